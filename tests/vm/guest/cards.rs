//! Sound cards that are missing, busy, pulled out, or of another kind than one would like.

use crate::bench::{Bench, SOON};
use crate::sound::{Tone, goes_out, is_heard, load_card, on_pcms};
use anyhow::{Context, Result, ensure};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const DRIVER: &str = "/sys/bus/platform/drivers/snd_aloop";
const CARD: &str = "snd_aloop.0";
/// The end of the card that the radio has, and the one that its air is at.
const RADIO: &str = "hw:Loopback,1,0";
const AIR: &str = "hw:Loopback,0,0";
const DESK: &str = "plughw:Loopback,1,1";

/// Pulls the card out of its driver, whoever uses it; done when nobody does any more.
fn pull_out() -> JoinHandle<std::io::Result<()>> {
    std::thread::spawn(|| std::fs::write(format!("{DRIVER}/unbind"), CARD))
}

/// What the end of a test brings: the others want the card.
struct PluggedIn;

impl Drop for PluggedIn {
    fn drop(&mut self) {
        plug_in().ok(); // it is in already
    }
}

fn plug_in() -> Result<()> {
    std::fs::write(format!("{DRIVER}/bind"), CARD).context("the card does not come back")
}

/// True if all of these are named.
fn names(degraded: &str, parts: &[&str]) -> bool {
    parts.iter().all(|part| degraded.contains(part))
}

/// Somebody else who has the card, with parameters of their own.
struct Other(Child);

impl Other {
    fn records(pcm: &str, rate: &str, channels: &str) -> Result<Self> {
        let mut child = Command::new("arecord");
        child.args(["-q", "-D", pcm, "-t", "raw", "-f", "S16_LE", "-c", channels, "-r", rate]);
        Ok(Other(child.stdout(Stdio::null()).spawn()?))
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Waits until a device is open: the kernel says so.
fn wait_open(status: &str) -> Result<()> {
    let path = format!("/proc/asound/Loopback/{status}/status");
    let began = Instant::now();
    while std::fs::read_to_string(&path).with_context(|| path.clone())?.starts_with("closed") {
        ensure!(began.elapsed() < SOON, "{path} says that it is closed");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[tokio::test]
async fn a_card_that_vanishes_and_comes_back_heals_without_a_restart_and_sounds_both_ways() -> Result<()> {
    load_card()?;
    let _plugged_in = PluggedIn;
    let bench = Bench::with_config(&on_pcms("plughw:Loopback,1,0", DESK)).await?;
    let pid = bench.gateway.pid();
    let parts = ["VHF 1 capture", "VHF 1 playback", "Desk 1 capture", "Desk 1 playback"];
    for round in 1..=2 {
        // Once while the radio receives, once while it is keyed.
        let line = if round == 1 { "radio.vhf.carrier" } else { "desk.ptt.security" };
        bench.chip.move_line(line, true)?;
        bench.wait_count(if round == 1 { "radio.carrier_open" } else { "radio.keyed" }, 1).await?;
        let pulled = pull_out();
        let told = bench.wait_degraded(|degraded| names(degraded, &parts)).await?;
        ensure!(told.matches("plug it in again").count() == parts.len(), "no word of what to do: {told}");
        pulled.join().expect("it only writes")?;
        bench.chip.wait_until("radio.vhf.ptt", false)?;
        bench.chip.move_line(line, false)?;
        match round {
            1 => plug_in()?,
            // Its driver can be taken away too: nobody holds anything of it any more.
            _ => {
                ensure!(Command::new("modprobe").args(["-r", "snd-aloop"]).status()?.success(), "the card is in use");
                tokio::time::sleep(Duration::from_secs(2)).await; // it is looked for every second
                load_card()?;
            }
        }
        bench.wait_degraded(|degraded| degraded == "[]").await?;
        bench.wait_count("system.healed", round * parts.len()).await?;
        assert_eq!(bench.count("system.degraded")?, round * parts.len(), "each part is told of once");
    }
    {
        let _tone = Tone::play("plughw:Loopback,0,0")?;
        is_heard(&bench).await?;
    }
    let _tone = Tone::play("plughw:Loopback,0,1")?;
    goes_out(&bench, "plughw:Loopback,0,0", 1)?;
    assert_eq!(bench.gateway.pid(), pid);
    Ok(())
}

#[tokio::test]
async fn a_card_that_is_missing_at_the_start_is_named_and_used_when_it_comes() -> Result<()> {
    load_card()?;
    let _plugged_in = PluggedIn;
    pull_out().join().expect("it only writes")?;
    let config = on_pcms("plughw:Loopback,1,0", DESK);
    let bench = Bench::degraded_with_config(&config).await?;
    let told = bench.gateway.ready()["degraded"].to_string();
    ensure!(names(&told, &["VHF 1 capture", "VHF 1 playback"]), "ready.json says {told}");
    ensure!(
        told.contains("plughw:Loopback,1,0") && told.contains("plug it in, or name one that `arecord -L`"),
        "no word of what to do: {told}"
    );
    plug_in()?;
    bench.wait_degraded(|degraded| degraded == "[]").await?;
    let _tone = Tone::play("plughw:Loopback,0,0")?;
    is_heard(&bench).await
}

#[tokio::test]
async fn a_card_that_somebody_else_has_is_named_and_used_when_it_is_free() -> Result<()> {
    load_card()?;
    let other = Other::records(RADIO, "48000", "1")?;
    wait_open("pcm1c/sub0")?;
    let bench = Bench::degraded_with_config(&on_pcms(RADIO, DESK)).await?;
    let told = bench.wait_degraded(|degraded| names(degraded, &["VHF 1 capture"])).await?;
    ensure!(told.contains("another program") && told.contains("fuser"), "no word of what to do: {told}");
    ensure!(!names(&told, &["VHF 1 playback"]), "its other way is free: {told}");
    drop(other);
    bench.wait_degraded(|degraded| degraded == "[]").await?;
    let _tone = Tone::play_as(AIR, 48_000, 1)?;
    is_heard(&bench).await
}

#[tokio::test]
async fn a_card_of_another_rate_is_named_with_the_remedy_and_the_remedy_works() -> Result<()> {
    load_card()?;
    let _tone = Tone::play_as(AIR, 44_100, 1)?;
    wait_open("pcm0p/sub0")?;
    let bench = Bench::degraded_with_config(&on_pcms(RADIO, DESK)).await?;
    let told = bench.wait_degraded(|degraded| names(degraded, &["VHF 1 capture"])).await?;
    ensure!(told.contains("48 kHz") && told.contains("`plughw:`"), "no word of what to do: {told}");
    drop(bench);
    let bench = Bench::with_config(&on_pcms("plughw:Loopback,1,0", DESK)).await?;
    is_heard(&bench).await
}

#[tokio::test]
async fn cards_that_have_one_channel_only_or_two_only_work_both_ways() -> Result<()> {
    load_card()?;
    for channels in [1, 2] {
        // What is open at the other end of the loopback has what this end must have.
        let tone = Tone::play_as(AIR, 48_000, channels)?;
        let other = Other::records(AIR, "48000", &channels.to_string())?;
        wait_open("pcm0p/sub0")?;
        wait_open("pcm0c/sub0")?;
        let bench = Bench::with_config(&on_pcms(RADIO, DESK)).await?;
        for way in ["pcm1c", "pcm1p"] {
            let has = std::fs::read_to_string(format!("/proc/asound/Loopback/{way}/sub0/hw_params"))?;
            ensure!(has.contains(&format!("channels: {channels}\n")), "{way} has {has}");
        }
        is_heard(&bench).await.with_context(|| format!("{channels} channels"))?;
        drop((tone, other));
        let _tone = Tone::play("plughw:Loopback,0,1")?;
        goes_out(&bench, AIR, channels as usize).with_context(|| format!("{channels} channels"))?;
    }
    Ok(())
}
