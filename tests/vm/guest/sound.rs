//! The desk and the radio on ALSA devices: the kernel's loopback card, whose one end plays what the other end captures.

use crate::bench::{Bench, SOON, config};
use anyhow::{Context, Result, ensure};
use std::process::{Child, Command};

const RATE: u32 = 48_000;
const TONE_HZ: f64 = 1_000.0;
/// A listener hears the tone within so many packets of 20 ms.
const PACKETS: usize = 100;

/// Plays a tone to one end of the loopback until it is dropped.
struct Tone {
    player: Child,
}

impl Tone {
    fn play(pcm: &str) -> Result<Self> {
        let path = std::env::temp_dir().join("tone.raw");
        let sample = |n: u32| (f64::from(n) * std::f64::consts::TAU * TONE_HZ / f64::from(RATE)).sin() * 8_000.0;
        let tone: Vec<u8> = (0..RATE * 60).flat_map(|n| (sample(n) as i16).to_le_bytes()).collect();
        std::fs::write(&path, tone)?;
        let rate = RATE.to_string();
        let player = Command::new("aplay")
            .args(["-q", "-D", pcm, "-t", "raw", "-f", "S16_LE", "-c", "1", "-r", &rate])
            .arg(path)
            .spawn()?;
        Ok(Tone { player })
    }
}

impl Drop for Tone {
    fn drop(&mut self) {
        self.player.kill().ok();
        self.player.wait().ok();
    }
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
fn quarters_with_tone(samples: &[i16]) -> usize {
    samples.chunks_exact(RATE as usize / 4).filter(|quarter| share_of_tone(quarter) > 0.9).count()
}

/// The gateway with desk and radio at one end of the loopback card; the test is at the other end.
async fn bench() -> Result<Bench> {
    let loaded = Command::new("modprobe").args(["snd-aloop", "pcm_substreams=2", "id=Loopback"]).status()?;
    ensure!(loaded.success(), "there is no loopback card");
    let config = config(|demo| {
        let pcms = |part: &str, substream| {
            let pcm = format!("\"plughw:Loopback,1,{substream}\"");
            (part.to_owned(), format!("{part}capture_pcm = {pcm}\nplayback_pcm = {pcm}\n"))
        };
        let [(radio, radio_with), (desk, desk_with)] = [pcms("name = \"VHF 1\"\n", 0), pcms("name = \"Desk 1\"\n", 1)];
        demo.replace(&radio, &radio_with).replace(&desk, &desk_with)
    });
    ensure!(config.matches("plughw:").count() == 4, "the demo has another desk and radio now");
    // Fails if any of the four is degraded.
    Bench::with_config(&config).await
}

#[tokio::test]
async fn what_a_radio_receives_on_a_sound_card_is_heard_by_a_client() -> Result<()> {
    let bench = bench().await?;
    let _tone = Tone::play("plughw:Loopback,0,0")?;
    let listener = bench.listener("lara", "security").await?;
    bench.chip.move_line("radio.vhf.carrier", true)?;
    bench.wait_count("radio.carrier_open", 1).await?;
    let heard = listener.wait_heard(|heard| heard.len() >= PACKETS, SOON).await;
    ensure!(heard.len() >= PACKETS, "only {} packets of the radio were heard", heard.len());
    bench.chip.move_line("radio.vhf.carrier", false)?;
    bench.wait_count("radio.carrier_closed", 1).await?;

    let mut decoder = opus::Decoder::new(RATE, opus::Channels::Mono)?;
    let mut samples = Vec::new();
    for packet in &heard {
        let mut frame = [0; 960];
        let length = decoder.decode(&packet.payload, &mut frame, false).context("this is not Opus")?;
        samples.extend_from_slice(&frame[..length]);
    }
    let quarters = quarters_with_tone(&samples);
    ensure!(quarters >= 4, "only {quarters} quarters of a second have the tone");
    listener.close().await
}

#[tokio::test]
async fn what_is_said_at_the_desk_goes_out_on_the_radio_card() -> Result<()> {
    let bench = bench().await?;
    let _tone = Tone::play("plughw:Loopback,0,1")?;
    bench.chip.move_line("desk.ptt.security", true)?;
    bench.chip.wait_until("radio.vhf.ptt", true)?;
    let format = ["-q", "-D", "plughw:Loopback,0,0", "-t", "raw", "-f", "S16_LE", "-c", "1", "-r", "48000", "-d", "4"];
    let recorded = Command::new("arecord").args(format).output()?;
    ensure!(recorded.status.success(), "{}", String::from_utf8_lossy(&recorded.stderr));
    let samples: Vec<i16> = recorded.stdout.chunks_exact(2).map(|s| i16::from_le_bytes([s[0], s[1]])).collect();
    let quarters = quarters_with_tone(&samples);
    ensure!(quarters >= 4, "only {quarters} of {} quarters of a second have the tone", samples.len() / 12_000);
    Ok(())
}
