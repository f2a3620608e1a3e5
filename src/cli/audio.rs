//! `crosspatch audio`: looks at sound cards, measures levels, plays tones, says back what was heard.
//!
//! A card that a radio has is used with the radio's lines: `parrot` and `tone --key` key it. The gateway must not have them
//! then; `levels` asks a gateway that runs.

mod levels;

use super::radio::port::{Port, busy, claim, names, pcm};
use crate::gateway::config::Config;
use crate::hardware::audio::sim::Sound;
use crate::hardware::audio::{self, Capture, FRAME, Playback};
use crate::hardware::cards::{self, Card};
use crate::media::voice::Frame;
use crate::media::voice::level::Meter;
use anyhow::Context;
use clap::{Args, Subcommand};
pub(super) use levels::verdict;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

const FRAMES_A_SECOND: u64 = 50;
/// A tone on the air is no longer than this.
const LONGEST_KEYED_S: u64 = 60;

#[derive(Subcommand)]
pub enum AudioCommand {
    /// Lists sound cards with the names to paste into the configuration.
    List {
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Shows peak, average and clipped samples of what a card hears, and whether they pass; with a radio also its carrier
    /// and PTT. With --radio it asks the gateway while one runs.
    Levels {
        #[command(flatten)]
        device: Device,
        /// What the radio is sent in place of what it hears; while the gateway runs.
        #[arg(long, requires = "radio")]
        transmit: bool,
        /// Ends after so many seconds, with exit code 65 if the level does not pass; 0 goes on.
        #[arg(long, default_value_t = 0)]
        seconds: u64,
    },
    /// Records, then plays back what was heard; a radio is keyed for it, with its lead-in and hang.
    Parrot {
        #[command(flatten)]
        device: Device,
        /// Begins when the radio's carrier comes, and ends when it goes.
        #[arg(long, requires = "radio")]
        on_carrier: bool,
        /// How long.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
    /// Plays a tone to set the transmit level by.
    Tone {
        #[command(flatten)]
        device: Device,
        /// Keys the radio for it, with its lead-in and hang.
        #[arg(long, requires = "radio")]
        key: bool,
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
    #[arg(long)]
    radio: Option<String>,
    /// The gateway's state directory: while a gateway runs, it has the radios.
    #[arg(long, default_value = "state")]
    state_dir: PathBuf,
}

impl Device {
    /// The configuration and the id of the radio; `None` if a card is named.
    fn radio(&self) -> anyhow::Result<Option<(Config, &str)>> {
        match (&self.card, &self.config, &self.radio) {
            (Some(_), _, _) => Ok(None),
            (None, Some(path), Some(id)) => Ok(Some((Config::read(path)?, id))),
            (None, ..) => anyhow::bail!("name a card with --card, or a radio with --config and --radio"),
        }
    }

    /// The names to capture from and to play to.
    fn names(&self) -> anyhow::Result<(String, String)> {
        if let Some(card) = &self.card {
            return Ok((card.clone(), card.clone()));
        }
        let (config, id) = self.radio()?.context("a radio is named")?;
        let (capture, playback) = names(super::radio::port::find(&config, id)?)?;
        Ok((capture.to_owned(), playback.to_owned()))
    }

    /// The radio with its lines, and what keeps a gateway from starting meanwhile; `None` if a card is named.
    fn port(&self) -> anyhow::Result<Option<(Option<File>, Port)>> {
        let Some((config, id)) = self.radio()? else { return Ok(None) };
        let claimed = claim(&self.state_dir)?;
        let port = Port::open(&config, id)?;
        port.unkey_at_signals()?;
        Ok(Some((claimed, port)))
    }

    fn capture(&self) -> anyhow::Result<Box<dyn Capture>> {
        audio::open_capture(&pcm(&self.names()?.0)).map_err(busy)
    }

    fn playback(&self) -> anyhow::Result<Box<dyn Playback>> {
        audio::open_playback(&pcm(&self.names()?.1)).map_err(busy)
    }
}

/// Carries a command out; false if a level does not pass.
///
/// # Errors
/// If there is no such card, or it cannot be used.
pub fn run(command: AudioCommand) -> anyhow::Result<bool> {
    match command {
        AudioCommand::List { json } => list(json).map(|()| true),
        AudioCommand::Levels { device, transmit, seconds } => levels::run(&device, transmit, seconds),
        AudioCommand::Parrot { device, on_carrier, seconds } => {
            match device.port()? {
                Some((_claimed, mut port)) => parrot_on_air(&mut port, seconds, on_carrier)?,
                None => parrot(&device, seconds)?,
            }
            Ok(true)
        }
        AudioCommand::Tone { device, key, hz, level_dbfs, seconds } => {
            let sound = Sound::Tone { hz, level_dbfs };
            let frames = (0..seconds * FRAMES_A_SECOND).map(|n| sound.frame(n * FRAME as u64));
            match if key { device.port()? } else { None } {
                Some((_claimed, mut port)) => {
                    anyhow::ensure!(seconds <= LONGEST_KEYED_S, "use --seconds {LONGEST_KEYED_S} at most on the air");
                    println!("keyed for {seconds} s with {hz} Hz; Ctrl-C unkeys");
                    port.transmit(frames)?;
                    println!("unkeyed");
                }
                None => play(&mut *device.playback()?, frames)?,
            }
            Ok(true)
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

/// Records what the radio hears, and says it back over the air.
fn parrot_on_air(port: &mut Port, seconds: u64, on_carrier: bool) -> anyhow::Result<()> {
    let longest = (seconds * FRAMES_A_SECOND) as usize;
    port.skip();
    let mut heard: Vec<Frame> = Vec::new();
    if on_carrier {
        println!("waiting for the carrier; Ctrl-C ends");
        while !port.next()?.carrier {}
    }
    println!("say something: recording for {seconds} s");
    while heard.len() < longest {
        let slice = port.next()?;
        if on_carrier && !slice.carrier {
            break;
        }
        heard.push(slice.treated);
    }
    let mut meter = Meter::default();
    heard.iter().for_each(|frame| meter.add(frame));
    let level = meter.level();
    println!("peak {:.1} dBFS, average {:.1} dBFS; keyed, this is what was heard:", level.peak_dbfs, level.rms_dbfs);
    let sent = port.transmit(heard)?;
    println!("unkeyed after {:.1} s", sent.unkeyed.since(sent.keyed).as_secs_f32());
    Ok(())
}
