//! The technician's tools on a real card with the pins of a fob or of a chip, without a gateway and beside one.

use crate::bench::{BOARD, Bench, LINES, with_radio};
use crate::chip::Chip;
use crate::sound::{Tone, load_card, sounds};
use crate::technician::Tool;
use crate::uhid::UhidFob;
use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The end of the card that the radio has, and the one that its air is at.
const RADIO: &str = "plughw:Loopback,1,0";
const AIR: &str = "plughw:Loopback,0,0";
const FOB: &str = "carrier_from = \"cm108\"\nptt_output = \"cm108\"\nfob = \"/dev/hidraw0\"\n";

/// The demo event with its radio on the card, keyed by these pins.
fn on_card(pins: &str) -> Result<String> {
    with_radio(&format!("{pins}capture_pcm = \"{RADIO}\"\nplayback_pcm = \"{RADIO}\"\n"))
}

fn tool(config: &str, line: &str) -> Result<Tool> {
    Tool::with_config(config, &line.split(' ').collect::<Vec<_>>())
}

#[tokio::test]
async fn a_tone_goes_out_on_the_card_while_the_fob_is_keyed_until_it_is_told_to_stop() -> Result<()> {
    load_card()?;
    let config = on_card(FOB)?;
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut fob = UhidFob::plug_in()?;
        let mut tool = tool(&config, "audio tone --key --seconds 60 --radio vhf")?;
        fob.wait_keyed(true).await?;
        sounds(AIR, 1)?;
        ensure!(fob.is_keyed()?, "unkeyed before its time");
        kill(Pid::from_raw(tool.pid().try_into()?), signal)?;
        fob.wait_keyed(false).await.with_context(|| signal.to_string())?;
        let (status, why) = tool.ended()?;
        assert_eq!(status.code(), Some(130), "{signal}: {why}");
    }
    Ok(())
}

#[tokio::test]
async fn the_parrot_waits_for_the_fobs_squelch_keys_the_fob_and_says_back_what_was_heard() -> Result<()> {
    load_card()?;
    let mut fob = UhidFob::plug_in()?;
    let mut parrot = tool(&on_card(FOB)?, "audio parrot --on-carrier --seconds 6 --radio vhf")?;
    parrot.wait("waiting for the carrier")?;
    let tone = Tone::play(AIR)?;
    fob.carrier(true)?;
    parrot.wait("recording")?;
    ensure!(!fob.is_keyed()?, "it is keyed while it hears");
    fob.wait_keyed(true).await?;
    drop(tone);
    sounds(AIR, 1)?;
    parrot.wait("unkeyed after")?;
    fob.wait_keyed(false).await?;
    parrot.ended_well()
}

#[tokio::test]
async fn levels_show_what_the_card_hears_and_whether_the_fobs_squelch_is_open() -> Result<()> {
    load_card()?;
    let mut fob = UhidFob::plug_in()?;
    let _tone = Tone::play(AIR)?;
    let mut levels = tool(&on_card(FOB)?, "audio levels --seconds 60 --radio vhf")?;
    levels.wait("carrier closed  PTT unkeyed")?;
    fob.carrier(true)?;
    levels.wait("carrier open    PTT unkeyed")?;
    fob.carrier(false)?;
    levels.wait("carrier closed  PTT unkeyed")?;
    // A quarter of full scale; it may begin in the middle of a line of the meter.
    let line = levels.wait("peak  -12.2 dBFS  average  -15.3 dBFS  clipped     0")?;
    ensure!(line.contains("pass"), "{line}");
    ensure!(fob.written()?.iter().all(|report| report[1] == 0), "it was keyed: {:?}", fob.written()?);
    Ok(())
}

#[tokio::test]
async fn a_tone_keys_a_line_of_the_chip_and_leaves_it_unkeyed() -> Result<()> {
    load_card()?;
    let chip = Chip::for_board(BOARD)?;
    let mut tool = tool(&on_card(LINES)?, "audio tone --key --seconds 2 --radio vhf")?;
    chip.wait_until("radio.vhf.ptt", true)?;
    tool.wait("unkeyed")?;
    ensure!(!chip.is_active("radio.vhf.ptt")?, "it says so, and is keyed");
    tool.ended_well()
}

#[tokio::test]
async fn beside_a_gateway_no_tool_keys_and_none_unkeys_what_the_gateway_keys() -> Result<()> {
    load_card()?;
    let mut fob = UhidFob::plug_in()?;
    let config = on_card(FOB)?;
    let bench = Bench::with_config(&config).await?;
    bench.chip.move_line("desk.ptt.security", true)?;
    fob.wait_keyed(true).await?;
    // Whoever does not say where the gateway's state is finds its card busy.
    for line in ["audio tone --key", "audio parrot --seconds 1", "radio align --yes"] {
        for tries in 1.. {
            let (before, hung) = (fob.written()?.len(), bench.count("system.degraded")?);
            let (status, why) = tool(&config, &format!("{line} --radio vhf"))?.ended()?;
            assert_eq!(status.code(), Some(69), "{line}: {why}");
            ensure!(why.contains("stop it with `systemctl stop crosspatch`"), "{line}: {why}");
            let untouched = fob.is_keyed()? && fob.written()?.len() == before;
            // The gateway's watchdog unkeys too, where the whole machine stands still for too long.
            if untouched || tries == 3 || bench.count("system.degraded")? == hung {
                ensure!(untouched, "{line}: the fob was touched: {:?}", fob.written()?);
                break;
            }
            fob.wait_keyed(true).await?;
        }
    }
    Ok(())
}
