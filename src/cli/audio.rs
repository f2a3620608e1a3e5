//! `crosspatch audio`: looks at sound cards, measures levels, plays tones, says back what was heard.
//!
//! Opens the cards itself, so the gateway must not have them: its own meters are on the front panel.

use crate::gateway::config::Config;
use crate::gateway::radio_config::Radio;
use crate::hardware::audio::sim::Sound;
use crate::hardware::audio::{self, Capture, FRAME, Playback};
use crate::hardware::cards::{self, Card};
use crate::media::voice::level::{FLOOR_DBFS, Level, Meter};
use anyhow::Context;
use clap::{Args, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// What a level test asks for.
const HIGHEST_PEAK_DBFS: f32 = -3.0;
const HIGHEST_AVERAGE_DBFS: f32 = -12.0;
/// Frames that one line of the meter shows: a quarter of a second.
const LINE_FRAMES: usize = 12;
const FRAMES_A_SECOND: u64 = 50;
const BAR: usize = 40;

#[derive(Subcommand)]
pub enum AudioCommand {
    /// Lists sound cards with the names to paste into the configuration.
    List {
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Shows peak, average and clipped samples of what a card hears, and whether they pass.
    Levels {
        #[command(flatten)]
        device: Device,
        /// Ends after so many seconds, with exit code 65 if the level does not pass; 0 goes on.
        #[arg(long, default_value_t = 0)]
        seconds: u64,
    },
    /// Records, then plays back what was heard. Key the radio yourself, or let its VOX do it.
    Parrot {
        #[command(flatten)]
        device: Device,
        /// How long.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// Plays a tone to set the transmit level by.
    Tone {
        #[command(flatten)]
        device: Device,
        /// Its frequency.
        #[arg(long, default_value_t = 1000.0)]
        hz: f32,
        /// Its peak.
        #[arg(long, default_value_t = -12.0, allow_hyphen_values = true)]
        level_dbfs: f32,
        /// How long.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
}

/// Which card.
#[derive(Args)]
pub struct Device {
    /// A card as `audio list` prints it, or an ALSA PCM.
    #[arg(long, conflicts_with_all = ["config", "radio"])]
    card: Option<String>,
    /// The configuration whose radio is meant.
    #[arg(long, requires = "radio")]
    config: Option<PathBuf>,
    /// The id of that radio.
    #[arg(long, requires = "config")]
    radio: Option<String>,
}

impl Device {
    /// The names to capture from and to play to.
    fn names(&self) -> anyhow::Result<(String, String)> {
        if let Some(card) = &self.card {
            return Ok((card.clone(), card.clone()));
        }
        let (Some(path), Some(id)) = (&self.config, &self.radio) else {
            anyhow::bail!("name a card with --card, or a radio with --config and --radio");
        };
        let config = Config::read(path)?;
        let radio: &Radio = config.radios.iter().find(|r| r.id == *id).with_context(|| {
            let ids: Vec<_> = config.radios.iter().map(|r| r.id.as_str()).collect();
            format!("there is no radio '{id}' in {}; there is {}", path.display(), ids.join(", "))
        })?;
        let of = |pcm: &Option<String>| pcm.clone().or(radio.card.clone());
        of(&radio.capture_pcm)
            .zip(of(&radio.playback_pcm))
            .with_context(|| format!("radio '{id}' has no sound card; give it card = \"…\" of `crosspatch audio list`"))
    }

    fn capture(&self) -> anyhow::Result<Box<dyn Capture>> {
        audio::open_capture(&pcm(&self.names()?.0)).map_err(hint)
    }

    fn playback(&self) -> anyhow::Result<Box<dyn Playback>> {
        audio::open_playback(&pcm(&self.names()?.1)).map_err(hint)
    }
}

fn pcm(name: &str) -> String {
    cards::find(name).map_or_else(|| name.to_owned(), |card| card.pcm())
}

fn hint(error: audio::AudioError) -> anyhow::Error {
    anyhow::anyhow!("{error} (a card that the gateway uses is busy: stop it, or see the meters on its front panel)")
}

/// Carries a command out; false if a level does not pass.
///
/// # Errors
/// If there is no such card, or it cannot be used.
pub fn run(command: AudioCommand) -> anyhow::Result<bool> {
    match command {
        AudioCommand::List { json } => list(json).map(|()| true),
        AudioCommand::Levels { device, seconds } => levels(&mut *device.capture()?, seconds),
        AudioCommand::Parrot { device, seconds } => parrot(&device, seconds).map(|()| true),
        AudioCommand::Tone { device, hz, level_dbfs, seconds } => {
            let sound = Sound::Tone { hz, level_dbfs };
            let frames = (0..seconds * FRAMES_A_SECOND).map(|n| sound.frame(n * FRAME as u64));
            play(&mut *device.playback()?, frames).map(|()| true)
        }
    }
}

fn list(json: bool) -> anyhow::Result<()> {
    let cards = cards::list();
    if json {
        let view = |card: &Card| {
            let mut view = serde_json::to_value(card)?;
            view["name"] = card.name().into();
            Ok(view)
        };
        let all = cards.iter().map(view).collect::<Result<Vec<_>, serde_json::Error>>()?;
        println!("{}", serde_json::Value::from(all));
        return Ok(());
    }
    if cards.is_empty() {
        println!("there is no sound card; plug one in, and look at `aplay -l`");
    }
    for card in cards {
        let ways = match (card.captures, card.plays) {
            (true, true) => "hears and sounds",
            (true, false) => "hears only",
            (false, true) => "sounds only",
            (false, false) => "has no PCM",
        };
        println!("card = \"{}\"    # {}, {ways}", card.name(), card.product);
        if let Some(serial) = card.serial {
            println!("card = \"{serial}\"    # the same, in whichever port");
        }
    }
    Ok(())
}

/// What is wrong with a level; nothing if it passes.
fn verdict(level: &Level) -> Vec<&'static str> {
    let mut wrong = Vec::new();
    if level.clipped_samples > 0 {
        wrong.push("it clips: lower the gain of the card or the radio");
    } else if level.peak_dbfs > HIGHEST_PEAK_DBFS {
        wrong.push("the peak is above -3 dBFS: lower the gain");
    }
    if level.rms_dbfs > HIGHEST_AVERAGE_DBFS {
        wrong.push("the average is above -12 dBFS: lower the gain");
    }
    if level.rms_dbfs <= FLOOR_DBFS {
        wrong.push("it is silent: check the cable and the card's mixer");
    }
    wrong
}

fn bar(level: &Level) -> String {
    let place = |dbfs: f32| ((dbfs.max(-60.0) + 60.0) / 60.0 * BAR as f32) as usize;
    let (average, peak) = (place(level.rms_dbfs), place(level.peak_dbfs).min(BAR - 1));
    (0..BAR)
        .map(|n| {
            if n == peak {
                '|'
            } else if n < average {
                '#'
            } else {
                ' '
            }
        })
        .collect()
}

fn levels(capture: &mut dyn Capture, seconds: u64) -> anyhow::Result<bool> {
    let (mut frame, mut all, mut line) = ([0; FRAME], Meter::default(), Meter::default());
    let mut out = std::io::stdout().lock();
    for n in 1.. {
        capture.read(&mut frame)?;
        all.add(&frame);
        line.add(&frame);
        if n % LINE_FRAMES == 0 {
            let (now, so_far) = (line.take(), all.level());
            let judged = if verdict(&so_far).is_empty() { "pass" } else { "FAIL" };
            write!(
                out,
                "\r[{}] peak {:6.1} dBFS  average {:6.1} dBFS  clipped {:5}  lost {:3}  {judged}",
                bar(&now),
                now.peak_dbfs,
                now.rms_dbfs,
                so_far.clipped_samples,
                capture.xruns(),
            )?;
            out.flush()?;
        }
        if seconds > 0 && n as u64 >= seconds * FRAMES_A_SECOND {
            break;
        }
    }
    let level = all.level();
    let wrong = verdict(&level);
    writeln!(
        out,
        "\npeak {:.1} dBFS, average {:.1} dBFS, {} samples clipped: {}",
        level.peak_dbfs,
        level.rms_dbfs,
        level.clipped_samples,
        if wrong.is_empty() { "pass".to_owned() } else { format!("fail; {}", wrong.join("; ")) }
    )?;
    Ok(wrong.is_empty())
}

fn parrot(device: &Device, seconds: u64) -> anyhow::Result<()> {
    let mut capture = device.capture()?;
    println!("say something: recording for {seconds} s");
    let mut heard = vec![[0; FRAME]; (seconds * FRAMES_A_SECOND) as usize];
    let mut meter = Meter::default();
    for frame in &mut heard {
        capture.read(frame)?;
        meter.add(&*frame);
    }
    drop(capture);
    let level = meter.level();
    println!("peak {:.1} dBFS, average {:.1} dBFS; this is what was heard:", level.peak_dbfs, level.rms_dbfs);
    play(&mut *device.playback()?, heard.into_iter())
}

/// Plays frames, and waits until they have sounded.
fn play(playback: &mut dyn Playback, frames: impl Iterator<Item = [i16; FRAME]>) -> anyhow::Result<()> {
    for frame in frames {
        playback.write(&frame)?;
    }
    std::thread::park_timeout(playback.buffered() + Duration::from_millis(20));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::audio::sim::SimCapture;

    fn level(peak_dbfs: f32, rms_dbfs: f32, clipped_samples: usize) -> Level {
        Level { peak_dbfs, rms_dbfs, clipped_samples }
    }

    #[test]
    fn a_level_passes_below_both_limits_and_without_a_clipped_sample() {
        assert!(verdict(&level(-3.5, -13.0, 0)).is_empty());
        assert!(verdict(&level(-2.9, -13.0, 0))[0].contains("-3 dBFS"));
        assert!(verdict(&level(-3.5, -11.0, 0))[0].contains("-12 dBFS"));
        assert!(verdict(&level(0.0, -13.0, 3))[0].contains("clips"));
        assert!(verdict(&Level::SILENCE)[0].contains("silent"));
    }

    #[test]
    fn a_measurement_ends_after_its_time_with_its_verdict() {
        let tone = |level_dbfs| SimCapture::new(Sound::Tone { hz: 1000.0, level_dbfs });
        assert!(levels(&mut tone(-12.0), 1).unwrap());
        assert!(!levels(&mut tone(-1.0), 1).unwrap());
    }

    #[test]
    fn a_bar_shows_average_and_peak() {
        let shown = bar(&level(-6.0, -30.0, 0));
        assert_eq!((shown.find('|'), shown.matches('#').count()), (Some(36), 20));
    }
}
