//! A radio on a USB fob as the kernel sees a real one: its card is named by the port that it is plugged into, and its pins
//! are found by that card.

use crate::bench::{Bench, LINES, with_radio};
use crate::gadget::wait_for;
use crate::sound::{Tone, is_heard, load_card};
use crate::uhid::{GPIO3, UhidFob};
use crate::usb_fob::UsbFob;
use anyhow::{Result, ensure};
use crosspatch::audit::Row;
use std::path::Path;

// Reports to the chip of a fob: its third pin drives low or high, and no other drives.
const UNKEYED: [u8; 4] = [0, 0, GPIO3, 0];
const KEYED: [u8; 4] = [0, GPIO3, GPIO3, 0];

/// Fails unless each of these parts was degraded once since there were so many records.
fn are_told_once(bench: &Bench, since: usize, parts: &[&str]) -> Result<()> {
    let told: Vec<_> = bench.gateway.audit()?.into_iter().skip(since).collect();
    let is_of = |row: &&Row, part: &str| row.action == "system.degraded" && row.detail["part"] == part;
    let times = |part: &str| told.iter().filter(|row| is_of(row, part)).count();
    ensure!(parts.iter().all(|part| times(part) == 1), "{told:#?}");
    Ok(())
}

/// Its squelch opens and shuts, and who talks keys it.
async fn pins_work(bench: &Bench, fob: &UsbFob, times: usize) -> Result<()> {
    for (active, told) in [(true, "radio.carrier_open"), (false, "radio.carrier_closed")] {
        fob.carrier(active);
        bench.wait_count(told, times).await?;
    }
    for pressed in [true, false] {
        bench.chip.move_line("desk.ptt.security", pressed)?;
        fob.wait_keyed(pressed)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_card_named_by_its_port_sounds_both_ways_and_again_after_it_was_unplugged() -> Result<()> {
    load_card()?;
    let mut fob = UsbFob::plug_in()?;
    let card = fob.name()?;
    let desk = "name = \"Desk 1\"\n";
    let desk_with = format!("{desk}capture_pcm = \"plughw:Loopback,1,1\"\nplayback_pcm = \"plughw:Loopback,1,1\"\n");
    let event = with_radio(&format!("{LINES}card = \"{card}\"\n"))?.replace(desk, &desk_with);
    let bench = Bench::with_config(&event).await?;
    let pid = bench.gateway.pid();
    let _tone = Tone::play("plughw:Loopback,0,1")?;
    let parts = ["VHF 1 capture", "VHF 1 playback"];
    for plugged_in in 1..=2 {
        is_heard(&bench).await?;
        bench.chip.move_line("desk.ptt.security", true)?;
        bench.chip.wait_until("radio.vhf.ptt", true)?;
        fob.sounds()?;
        if plugged_in == 1 {
            let before = bench.gateway.audit()?.len();
            fob.unplug()?;
            let told = bench.wait_degraded(|degraded| parts.iter().all(|part| degraded.contains(part))).await?;
            ensure!(told.matches("plug it in again").count() == parts.len(), "{told}");
            bench.chip.wait_until("radio.vhf.ptt", false)?;
            bench.chip.move_line("desk.ptt.security", false)?;
            fob.replug()?; // which takes some seconds, and it is looked for every second
            are_told_once(&bench, before, &parts)?;
            bench.wait_degraded(|degraded| degraded == "[]").await?;
            bench.wait_count("system.healed", parts.len()).await?;
        }
    }
    bench.chip.move_line("desk.ptt.security", false)?;
    bench.chip.wait_until("radio.vhf.ptt", false)?;
    assert_eq!(bench.gateway.pid(), pid);
    Ok(())
}

#[tokio::test]
async fn a_fob_is_found_by_the_port_of_its_card_while_another_has_its_number() -> Result<()> {
    let mut fob = UsbFob::plug_in()?;
    let card = fob.name()?;
    let keys = format!("card = \"{card}\"\ncarrier_from = \"cm108\"\nptt_output = \"cm108\"\n");
    let bench = Bench::with_config(&with_radio(&keys)?).await?;
    pins_work(&bench, &fob, 1).await?;
    bench.chip.move_line("desk.ptt.security", true)?;
    fob.wait_keyed(true)?;
    let records = bench.gateway.audit()?.len();
    fob.unplug()?;
    let told = [&format!("fob '{card}' is gone; plug it in again"), "VHF 1 capture", "VHF 1 playback"];
    bench.wait_degraded(|degraded| told.iter().all(|part| degraded.contains(part))).await?;

    // Another one has its number meanwhile, and somebody talks.
    let mut other = wait_for("free number", || {
        let other = UhidFob::plug_in()?;
        Ok(Path::new("/dev/hidraw0").exists().then_some(other))
    })?;
    bench.chip.move_line("desk.ptt.security", false)?;
    bench.wait_count("ptt.stop", 3).await?;
    bench.chip.move_line("desk.ptt.security", true)?;
    bench.wait_count("priority_ptt.start", 3).await?;
    bench.chip.move_line("desk.ptt.security", false)?;
    bench.wait_count("ptt.stop", 4).await?;

    let before = fob.written().len();
    fob.replug()?;
    are_told_once(&bench, records, &["board 'Virtual machine'", told[1], told[2]])?;
    bench.wait_degraded(|degraded| degraded == "[]").await?;
    ensure!(Path::new("/dev/hidraw1").exists(), "it has its number again");
    pins_work(&bench, &fob, 2).await?;
    let written = fob.written();
    assert_eq!(written[before], UNKEYED, "unkeyed before anything else");
    ensure!(written.iter().all(|report| [UNKEYED, KEYED].contains(report)), "more than its third pin: {written:?}");
    ensure!(other.written()?.is_empty(), "the other fob was touched: {:?}", other.written()?);
    Ok(())
}
