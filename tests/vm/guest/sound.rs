//! The desk and the radio on ALSA devices: the kernel's loopback card, whose one end plays what the other end captures.

use crate::bench::{Bench, SOON, config};
use crate::native::syscalls;
use anyhow::{Context, Result, ensure};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const RATE: u32 = 48_000;
const TONE_HZ: f64 = 1_000.0;
/// A listener hears the tone within so many packets of 20 ms.
const PACKETS: usize = 100;

/// Plays a tone to one end of the loopback until it is dropped. A player whose card stood still, as the whole machine may for
/// seconds, gives up; then the next one plays.
pub struct Tone {
    ends: Arc<AtomicBool>,
    players: Option<JoinHandle<()>>,
}

impl Tone {
    pub fn play(pcm: &str) -> Result<Self> {
        Self::play_as(pcm, RATE, 1)
    }

    /// The same as a card that has only this rate and so many channels; what captures at the other end must have them too.
    pub fn play_as(pcm: &str, rate: u32, channels: u32) -> Result<Self> {
        let path = std::env::temp_dir().join("tone.raw");
        std::fs::write(&path, tone(rate, channels).repeat(100 * 60))?;
        let mut player = Command::new("aplay");
        player.args(["-q", "-D", pcm, "-t", "raw", "-f", "S16_LE", "-c", &channels.to_string()]);
        player.args(["-r", &rate.to_string()]).arg(path);
        let ends = Arc::new(AtomicBool::new(false));
        let ended = ends.clone();
        let players = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let Ok(mut playing) = player.spawn() else { return };
                while matches!(playing.try_wait(), Ok(None)) && !ended.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(50));
                }
                playing.kill().ok(); // it may have ended
                playing.wait().ok();
            }
        });
        Ok(Tone { ends, players: Some(players) })
    }
}

impl Drop for Tone {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(players) = self.players.take() {
            players.join().ok();
        }
    }
}

/// Ten periods of the tone, which are 10 ms, as 16 bits on so many channels.
pub fn tone(rate: u32, channels: u32) -> Vec<u8> {
    let sample = |n| (f64::from(n) * std::f64::consts::TAU * TONE_HZ / f64::from(rate)).sin() * 8_000.0;
    let all = |n| std::iter::repeat_n((sample(n) as i16).to_le_bytes(), channels as usize).flatten();
    (0..rate / 100).flat_map(all).collect()
}

/// How strong the tone is in what was heard, from 0 to 1 for nothing else.
fn share_of_tone(samples: &[i16]) -> f64 {
    let (mut re, mut im, mut all) = (0.0, 0.0, 0.0);
    for (n, &sample) in samples.iter().enumerate() {
        let (sample, angle) = (f64::from(sample), n as f64 * std::f64::consts::TAU * TONE_HZ / f64::from(RATE));
        re += sample * angle.cos();
        im += sample * angle.sin();
        all += sample * sample;
    }
    2.0 * (re * re + im * im) / (all * samples.len() as f64)
}

/// In how many quarters of a second there was hardly anything but the tone.
pub fn quarters_with_tone(samples: &[i16]) -> usize {
    samples.chunks_exact(RATE as usize / 4).filter(|quarter| share_of_tone(quarter) > 0.9).count()
}

/// The kernel's loopback card, for the desk and the radio.
pub fn load_card() -> Result<()> {
    let loaded = Command::new("modprobe").args(["snd-aloop", "pcm_substreams=2", "id=Loopback"]).status()?;
    ensure!(loaded.success(), "there is no loopback card");
    Ok(())
}

/// The demo event with its radio on one PCM and its desk on another.
pub fn on_pcms(radio: &str, desk: &str) -> String {
    config(|demo| {
        let pcms =
            |part: &str, pcm| (part.to_owned(), format!("{part}capture_pcm = \"{pcm}\"\nplayback_pcm = \"{pcm}\"\n"));
        let [(radio, radio_with), (desk, desk_with)] =
            [pcms("name = \"VHF 1\"\n", radio), pcms("name = \"Desk 1\"\n", desk)];
        assert!(demo.contains(&radio) && demo.contains(&desk), "the demo has another desk and radio now");
        demo.replace(&radio, &radio_with).replace(&desk, &desk_with)
    })
}

/// The gateway with desk and radio at one end of the loopback card; the test is at the other end.
async fn bench() -> Result<Bench> {
    load_card()?;
    // Fails if any of the four is degraded.
    Bench::with_config(&on_pcms("plughw:Loopback,1,0", "plughw:Loopback,1,1")).await
}

/// Fails unless a client hears the tone that the radio's card is played.
pub async fn is_heard(bench: &Bench) -> Result<()> {
    let listener = bench.listener("lara", "security").await?;
    let opened = bench.count("radio.carrier_open")?;
    bench.chip.move_line("radio.vhf.carrier", true)?;
    bench.wait_count("radio.carrier_open", opened + 1).await?;
    let began = Instant::now();
    let mut quarters = 0;
    while quarters < 4 {
        ensure!(began.elapsed() < 2 * SOON, "only {quarters} quarters of a second have the tone");
        let before = listener.heard().len();
        let heard = listener.wait_heard(|heard| heard.len() >= before + PACKETS, SOON).await;
        ensure!(heard.len() > before, "nothing of the radio is heard");
        let mut decoder = opus::Decoder::new(RATE, opus::Channels::Mono)?;
        let mut samples = Vec::new();
        for packet in &heard[before..] {
            let mut frame = [0; 960];
            let length = decoder.decode(&packet.payload, &mut frame, false).context("this is not Opus")?;
            samples.extend_from_slice(&frame[..length]);
        }
        quarters = quarters_with_tone(&samples);
    }
    bench.chip.move_line("radio.vhf.carrier", false)?;
    bench.wait_count("radio.carrier_closed", opened + 1).await?;
    listener.close().await
}

/// Fails unless the tone sounds at a card, for a second at least; it is recorded as this many channels.
pub fn sounds(pcm: &str, channels: usize) -> Result<()> {
    let count = channels.to_string();
    let format = ["-q", "-D", pcm, "-t", "raw", "-f", "S16_LE", "-c", &count, "-r", "48000", "-d", "4"];
    let began = Instant::now();
    loop {
        let recorded = Command::new("arecord").args(format).output()?;
        let samples = samples(&recorded.stdout);
        let one = |channel| samples.iter().skip(channel).step_by(channels).copied().collect::<Vec<_>>();
        let quarters: Vec<_> = (0..channels).map(|channel| quarters_with_tone(&one(channel))).collect();
        if quarters.iter().all(|quarters| *quarters >= 4) {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&recorded.stderr);
        ensure!(began.elapsed() < SOON, "only {quarters:?} quarters of a second have the tone: {said}");
    }
}

/// Samples of 16 bits.
pub fn samples(bytes: &[u8]) -> Vec<i16> {
    bytes.chunks_exact(2).map(|s| i16::from_le_bytes([s[0], s[1]])).collect()
}

/// Fails unless the tone goes out on the radio's card while somebody talks; it is recorded as this many channels.
pub fn goes_out(bench: &Bench, pcm: &str, channels: usize) -> Result<()> {
    bench.chip.move_line("desk.ptt.security", true)?;
    bench.chip.wait_until("radio.vhf.ptt", true)?;
    sounds(pcm, channels)?;
    bench.chip.move_line("desk.ptt.security", false)?;
    bench.chip.wait_until("radio.vhf.ptt", false).map(drop)
}

#[tokio::test]
async fn what_a_radio_receives_on_a_sound_card_is_heard_by_a_client() -> Result<()> {
    let bench = bench().await?;
    let _tone = Tone::play("plughw:Loopback,0,0")?;
    is_heard(&bench).await
}

#[tokio::test]
async fn what_is_said_at_the_desk_goes_out_on_the_radio_card() -> Result<()> {
    let bench = bench().await?;
    let _tone = Tone::play("plughw:Loopback,0,1")?;
    goes_out(&bench, "plughw:Loopback,0,0", 1)
}

#[tokio::test]
async fn what_a_card_loses_while_the_gateway_stands_still_is_counted_and_both_ways_go_on() -> Result<()> {
    let bench = bench().await?;
    let _tones = [Tone::play("plughw:Loopback,0,0")?, Tone::play("plughw:Loopback,0,1")?];
    is_heard(&bench).await?;
    bench.gateway.signal("STOP")?;
    std::thread::sleep(Duration::from_secs(2));
    bench.gateway.signal("CONT")?;
    let began = Instant::now();
    loop {
        let radio = bench.gateway.get("/api/meters").await?["radios"][0].take();
        let lost = |way: &str| radio[way]["xruns"].as_u64().unwrap_or(0) > 0;
        if lost("receive") && lost("transmit") {
            break;
        }
        ensure!(began.elapsed() < SOON, "nothing is counted: {radio}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    is_heard(&bench).await?;
    // Threads of a slow machine may be late; that is told too.
    let is_of_card = |part: &str| part.ends_with(" capture") || part.ends_with(" playback");
    let told = bench.gateway.audit()?.into_iter().filter(|row| row.action == "system.degraded");
    let of_cards = told.filter(|row| row.detail["part"].as_str().is_some_and(is_of_card)).count();
    assert_eq!(of_cards, 0, "the card is there all the time");
    Ok(())
}

/// A lock that nobody else has makes no system call: that the sources name none is another test's.
#[tokio::test]
async fn audio_threads_only_wait_for_their_cards_while_somebody_talks() -> Result<()> {
    let bench = bench().await?;
    let _tones = [Tone::play("plughw:Loopback,0,0")?, Tone::play("plughw:Loopback,0,1")?];
    bench.chip.move_line("desk.ptt.security", true)?;
    bench.chip.wait_until("radio.vhf.ptt", true)?;
    for thread in ["VHF 1 in", "VHF 1 out", "Desk 1 in", "Desk 1 out"] {
        let calls = syscalls::of_thread(bench.gateway.pid(), thread, Duration::from_secs(4))?;
        println!("{thread}: {calls:?}");
        syscalls::are_those_of_an_audio_thread(&calls).with_context(|| thread.to_owned())?;
    }
    Ok(())
}
