//! A radio on a USB fob: its squelch is a HID report that comes in, its key one that goes out.

use crate::bench::{Bench, SOON, with_radio};
use crate::native::gateway::binary;
use crate::native::signaling::Signaling;
use crate::uhid::UhidFob;
use anyhow::{Result, ensure};
use serde_json::json;
use std::process::Command;
use std::time::{Duration, Instant};

/// Where the only HID device of the machine is, whenever it is plugged in.
const DEVICE: &str = "/dev/hidraw0";

/// The demo event with its radio on a fob.
async fn bench() -> Result<Bench> {
    let keys = format!("carrier_from = \"cm108\"\nptt_output = \"cm108\"\nfob = \"{DEVICE}\"\n");
    Bench::with_config(&with_radio(&keys)?).await
}

/// Whether the radio has the floor of its channel.
async fn holds(bench: &Bench) -> Result<bool> {
    let token = bench.gateway.token("visitor", "general", "security")?;
    let mut visitor = Signaling::connect(&bench.gateway, &token).await?;
    let joined = visitor.ask("join-channel", json!({ "channelId": "security" })).await?;
    Ok(joined["state"]["currentSpeaker"] == "radio-vhf")
}

async fn wait_holds(bench: &Bench, wanted: bool) -> Result<()> {
    let began = Instant::now();
    while holds(bench).await? != wanted {
        ensure!(
            began.elapsed() < SOON,
            "the radio's floor is not {wanted}: {}",
            bench.gateway.get("/api/panel").await?
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_report_of_the_fob_gives_the_radio_the_floor_and_takes_it() -> Result<()> {
    let mut fob = UhidFob::plug_in()?;
    let bench = bench().await?;
    fob.carrier(true)?;
    wait_holds(&bench, true).await?;
    fob.report(0b11)?; // another of its buttons, with the squelch still open
    fob.report(0b01)?;
    wait_holds(&bench, false).await?;
    bench.wait_count("radio.carrier_closed", 1).await?;
    fob.report(0)?;
    fob.report(0b100)?;
    fob.carrier(true)?;
    bench.wait_count("radio.carrier_open", 2).await?;
    assert_eq!(bench.count("ptt.start")?, 2, "no other button opens the squelch");
    ensure!(!fob.is_keyed()?, "a radio that receives is keyed");
    Ok(())
}

#[tokio::test]
async fn somebody_who_talks_keys_the_fob_and_only_its_third_pin() -> Result<()> {
    let mut fob = UhidFob::plug_in()?;
    let bench = bench().await?;
    ensure!(!fob.written()?.is_empty(), "it was not unkeyed at the start");
    ensure!(!fob.is_keyed()?, "keyed at the start: {:?}", fob.written()?);
    for presses in 1..=2 {
        bench.chip.move_line("desk.ptt.security", true)?;
        fob.wait_keyed(true).await?;
        bench.wait_count("radio.keyed", presses).await?;
        bench.chip.move_line("desk.ptt.security", false)?;
        fob.wait_keyed(false).await?;
        bench.wait_count("radio.unkeyed", presses).await?;
    }
    let others = fob.written()?.iter().filter(|report| !matches!(report, [0, 0 | 0b100, 0b100, 0])).count();
    assert_eq!(others, 0, "{:?}", fob.written()?);
    Ok(())
}

#[tokio::test]
async fn a_fob_that_is_unplugged_is_a_release_and_a_degraded_part_until_it_is_back() -> Result<()> {
    let mut fob = UhidFob::plug_in()?;
    let bench = bench().await?;
    let pid = bench.gateway.pid();
    fob.carrier(true)?;
    wait_holds(&bench, true).await?;
    drop(fob);
    wait_holds(&bench, false).await?;
    let degraded = bench.wait_degraded(|degraded| degraded != "[]").await?;
    ensure!(degraded.contains("fob") && degraded.contains("plug it in"), "it is not named: {degraded}");
    bench.wait_count("system.degraded", 1).await?;

    let mut fob = UhidFob::plug_in()?;
    bench.wait_degraded(|degraded| degraded == "[]").await?;
    bench.wait_count("system.healed", 1).await?;
    assert_eq!(bench.count("system.degraded")?, 1, "told of once");
    ensure!(!holds(&bench).await?, "a fob that comes back has reported no carrier");
    fob.carrier(true)?;
    wait_holds(&bench, true).await?;
    fob.carrier(false)?;
    wait_holds(&bench, false).await?;
    bench.chip.move_line("desk.ptt.security", true)?;
    fob.wait_keyed(true).await?;
    bench.chip.move_line("desk.ptt.security", false)?;
    fob.wait_keyed(false).await?;
    assert_eq!(bench.gateway.pid(), pid);
    Ok(())
}

#[tokio::test]
async fn a_fob_that_is_pulled_out_while_it_keys_comes_back_unkeyed_and_keys_while_somebody_still_talks() -> Result<()> {
    let mut fob = UhidFob::plug_in()?;
    let bench = bench().await?;
    bench.chip.move_line("desk.ptt.security", true)?;
    fob.wait_keyed(true).await?;
    drop(fob);
    bench.wait_degraded(|degraded| degraded != "[]").await?;
    let mut fob = UhidFob::plug_in()?;
    fob.wait_keyed(true).await?;
    assert_eq!(fob.written()?[0], [0, 0, 0b100, 0], "unkeyed before anything else");
    bench.chip.move_line("desk.ptt.security", false)?;
    fob.wait_keyed(false).await?;

    // Pulled out, and nobody talks when it is back.
    bench.chip.move_line("desk.ptt.security", true)?;
    fob.wait_keyed(true).await?;
    drop(fob);
    bench.chip.move_line("desk.ptt.security", false)?;
    bench.wait_count("radio.unkeyed", 2).await?;
    let mut fob = UhidFob::plug_in()?;
    bench.wait_degraded(|degraded| degraded == "[]").await?;
    ensure!(fob.written()?.iter().all(|report| report[1] == 0), "it came back keyed: {:?}", fob.written()?);
    Ok(())
}

#[tokio::test]
async fn a_gateway_that_is_told_to_stop_leaves_the_fob_unkeyed() -> Result<()> {
    let mut fob = UhidFob::plug_in()?;
    let bench = bench().await?;
    bench.chip.move_line("desk.ptt.security", true)?;
    fob.wait_keyed(true).await?;
    bench.gateway.signal("TERM")?;
    fob.wait_keyed(false).await
}

#[tokio::test]
async fn a_fob_whose_gateway_was_killed_is_unkeyed_by_the_program_that_cleans_up() -> Result<()> {
    let mut fob = UhidFob::plug_in()?;
    let bench = bench().await?;
    bench.chip.move_line("desk.ptt.security", true)?;
    fob.wait_keyed(true).await?;
    bench.gateway.signal("KILL")?;
    let config = bench.gateway.state_dir().join("event.toml");
    let unkeyed = Command::new(binary()).args(["unkey", "--config"]).arg(config).status()?;
    ensure!(unkeyed.success(), "crosspatch unkey failed");
    fob.wait_keyed(false).await
}
