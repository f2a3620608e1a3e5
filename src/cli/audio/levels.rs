//! `audio levels`: a meter in the terminal, of a card that it opens or of one that the gateway has.

use super::Device;
use crate::cli::client::request;
use crate::cli::radio::port::{Port, claim};
use crate::hardware::audio::{Capture, FRAME};
use crate::media::voice::level::{FLOOR_DBFS, Level, Meter};
use anyhow::Context;
use axum::http::Method;
use serde_json::Value;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// What a level test asks for.
const HIGHEST_PEAK_DBFS: f32 = -3.0;
const HIGHEST_AVERAGE_DBFS: f32 = -12.0;
/// Frames that one line of the meter shows: a quarter of a second.
const LINE_FRAMES: usize = 12;
/// How long they are; a gateway is asked as often as its own meters change.
const LINE_TIME: Duration = Duration::from_millis(240);
const ASK_PERIOD: Duration = Duration::from_millis(500);
const BAR: usize = 40;

/// What is wrong with a level; nothing if it passes.
pub fn verdict(level: &Level) -> Vec<&'static str> {
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

/// What one line shows.
struct Reading {
    now: Level,
    so_far: Level,
    /// Samples that the card lost.
    lost: u64,
    /// Carrier and PTT in words, if a radio is meant.
    radio: Option<String>,
    /// What it took to take it.
    took: Duration,
}

/// Shows levels for so many seconds, or for ever; false if they do not pass.
///
/// # Errors
/// If there is no such card or radio, or it cannot be used.
pub fn run(device: &Device, transmit: bool, seconds: u64) -> anyhow::Result<bool> {
    if let Some(id) = &device.radio {
        if claim(&device.state_dir).is_err() {
            return meter(of_gateway(&device.state_dir, id, transmit), seconds);
        }
        anyhow::ensure!(
            !transmit,
            "nothing is sent while no gateway runs; play something with `crosspatch audio tone`"
        );
        anyhow::ensure!(
            device.config.is_some(),
            "no gateway runs with {}; name it with --state-dir, or the radio's configuration with --config",
            device.state_dir.display()
        );
    }
    match device.port()? {
        Some((_claimed, port)) => meter(of_port(port), seconds),
        None => meter(of_card(device.capture()?), seconds),
    }
}

fn of_card(mut card: Box<dyn Capture>) -> impl FnMut() -> anyhow::Result<Reading> {
    let (mut frame, mut all) = ([0; FRAME], Meter::default());
    move || {
        let mut line = Meter::default();
        for _ in 0..LINE_FRAMES {
            card.read(&mut frame)?;
            all.add(&frame);
            line.add(&frame);
        }
        Ok(Reading { now: line.level(), so_far: all.level(), lost: card.xruns(), radio: None, took: LINE_TIME })
    }
}

fn of_port(mut port: Port) -> impl FnMut() -> anyhow::Result<Reading> {
    let mut all = Meter::default();
    move || {
        let (mut line, mut carrier, mut lost) = (Meter::default(), false, 0);
        for _ in 0..LINE_FRAMES {
            let slice = port.next()?;
            all.add(&slice.raw);
            line.add(&slice.raw);
            (carrier, lost) = (slice.carrier, slice.xruns);
        }
        let words = format!(
            "carrier {}  PTT {}",
            if carrier { "open  " } else { "closed" },
            if port.is_keyed() { "keyed" } else { "unkeyed" }
        );
        Ok(Reading { now: line.level(), so_far: all.level(), lost, radio: Some(words), took: LINE_TIME })
    }
}

/// What a gateway that runs says of a radio.
fn of_gateway(state_dir: &Path, id: &str, transmit: bool) -> impl FnMut() -> anyhow::Result<Reading> {
    let (state_dir, id) = (state_dir.to_owned(), id.to_owned());
    let (mut due, mut first_clipped) = (Instant::now(), None);
    let (mut peak_dbfs, mut power, mut readings) = (FLOOR_DBFS, 0.0, 0);
    move || {
        std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
        due = Instant::now() + ASK_PERIOD;
        let all = request(&state_dir, &Method::GET, "/api/meters", &Value::Null)?.map_err(|e| anyhow::anyhow!(e))?;
        let radios = all["radios"].as_array().context("the gateway says nothing of its radios; restart it")?;
        let radio = radios.iter().find(|radio| radio["id"] == id.as_str()).with_context(|| {
            let ids: Vec<_> = radios.iter().filter_map(|radio| radio["id"].as_str()).collect();
            format!("the gateway has no radio '{id}'; it has {}", ids.join(", "))
        })?;
        let gauge = &radio[if transmit { "transmit" } else { "receive" }];
        let dbfs = |key: &str| gauge[key].as_f64().map_or(FLOOR_DBFS, |level| level as f32);
        let clipped = gauge["clipped"].as_u64().unwrap_or(0);
        let clipped = clipped - (*first_clipped.get_or_insert(clipped)).min(clipped);
        let now =
            Level { peak_dbfs: dbfs("peakDbfs"), rms_dbfs: dbfs("averageDbfs"), clipped_samples: clipped as usize };
        readings += 1;
        power += 10f32.powf(now.rms_dbfs / 10.0);
        peak_dbfs = peak_dbfs.max(now.peak_dbfs);
        let rms_dbfs = (10.0 * (power / readings as f32).log10()).max(FLOOR_DBFS);
        let word = |key: &str| radio[key].as_str().unwrap_or("?").to_owned();
        let words = format!("receiver {:<9} transmitter {}", word("receiver"), word("transmitter"));
        let lost = gauge["xruns"].as_u64().unwrap_or(0);
        Ok(Reading { now, so_far: Level { peak_dbfs, rms_dbfs, ..now }, lost, radio: Some(words), took: ASK_PERIOD })
    }
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

fn meter(mut next: impl FnMut() -> anyhow::Result<Reading>, seconds: u64) -> anyhow::Result<bool> {
    let mut out = std::io::stdout();
    let (begin, end) = if out.is_terminal() { ("\r", "\x1b[K") } else { ("", "\n") };
    let mut time = Duration::ZERO;
    loop {
        let Reading { now, so_far, lost, radio, took } = next()?;
        time += took;
        let judged = if verdict(&so_far).is_empty() { "pass" } else { "FAIL" };
        write!(
            out,
            "{begin}[{}] peak {:6.1} dBFS  average {:6.1} dBFS  clipped {:5}  lost {lost:3}  {judged}  {}{end}",
            bar(&now),
            now.peak_dbfs,
            now.rms_dbfs,
            so_far.clipped_samples,
            radio.unwrap_or_default(),
        )?;
        out.flush()?;
        if seconds > 0 && time >= Duration::from_secs(seconds) {
            return conclude(&mut out, &so_far);
        }
    }
}

fn conclude(out: &mut impl Write, level: &Level) -> anyhow::Result<bool> {
    let wrong = verdict(level);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::audio::sim::{SimCapture, Sound};

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
        let tone = |level_dbfs| of_card(Box::new(SimCapture::new(Sound::Tone { hz: 1000.0, level_dbfs })));
        assert!(meter(tone(-12.0), 1).unwrap());
        assert!(!meter(tone(-1.0), 1).unwrap());
    }

    #[test]
    fn a_bar_shows_average_and_peak() {
        let shown = bar(&level(-6.0, -30.0, 0));
        assert_eq!((shown.find('|'), shown.matches('#').count()), (Some(36), 20));
    }
}
