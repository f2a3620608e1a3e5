//! The steps of an alignment: each asks for something, measures, and says what it made of it.
//!
//! Changes the radio's settings as it goes, so that later steps measure with them; writes nothing.

use super::asking::Asking;
use super::edit::Setting;
use super::measure::{chatter, ctcss_hz, floor_dbfs, gain_db, ms_up, tail, voice, vox_threshold_dbfs};
use super::port::{Ear, FRAME_TIME, Port, Slice};
use super::report::{Change, Outcome, Step};
use crate::base::Mono;
use crate::cli::audio::verdict;
use crate::gateway::radio_config::{CarrierFrom, Radio};
use crate::hardware::audio::FRAME;
use crate::hardware::audio::sim::Sound;
use crate::media::voice::Frame;
use crate::media::voice::level::Level;
use serde_json::{Map, Value, json};
use std::io::{BufRead, Write};
use std::time::Duration;

const QUIET_TIME: Duration = Duration::from_secs(2);
const SPEECH_TIME: Duration = Duration::from_secs(5);
const TONE_TIME: Duration = Duration::from_secs(5);
/// What the transmit level is set by.
pub(super) const TONE: Sound = Sound::Tone { hz: 1000.0, level_dbfs: -12.0 };
/// How often a level is tried.
const TRIES: usize = 10;
/// A second of speech is enough to judge it.
const ENOUGH_FRAMES: usize = 50;
/// How long a carrier may stay: a technician forgets to let go.
const LONGEST_CARRIER: Duration = Duration::from_secs(30);
/// A carrier is over when it was away for half a second.
const CLOSED_FRAMES: usize = 25;
/// What is looked at after the end of a transmission.
const AFTER: Duration = Duration::from_millis(500);
/// The highest that the configuration takes.
const LONGEST_TAIL_MS: u64 = 300;

/// A step that may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Wanted {
    /// Levels of what is heard.
    Receive,
    /// The carrier.
    Squelch,
    /// The level of what is sent.
    Transmit,
    /// Lead-in and inhibit.
    Delays,
}

/// An alignment.
pub struct Align<'a, R, W> {
    pub(super) port: &'a mut Port,
    pub(super) asking: &'a mut Asking<R, W>,
    /// Where a second radio is heard.
    pub(super) far: Option<Ear>,
    patience: Duration,
    steps: Vec<Step>,
    /// RMS of what the card gives while nobody transmits.
    raw_floor_dbfs: f32,
    /// The same behind the filter, without gain.
    floor_dbfs: f32,
    /// What was heard of somebody speaking, and its level behind the filter, without gain.
    speech: Option<(Vec<Frame>, Level)>,
}

fn tenths(dbfs: f32) -> Value {
    json!((f64::from(dbfs) * 10.0).round() / 10.0)
}

pub(super) fn tone_frames(time: Duration) -> impl Iterator<Item = Frame> {
    (0..time.as_millis() / FRAME_TIME.as_millis()).map(|n| TONE.frame(n as u64 * FRAME as u64))
}

impl<'a, R: BufRead, W: Write> Align<'a, R, W> {
    /// Nothing is measured yet.
    pub fn new(port: &'a mut Port, asking: &'a mut Asking<R, W>, far: Option<Ear>, patience: Duration) -> Self {
        Align { port, asking, far, patience, steps: Vec::new(), raw_floor_dbfs: 0.0, floor_dbfs: 0.0, speech: None }
    }

    /// Takes every step but these.
    ///
    /// # Errors
    /// If a card or line is gone, or nobody answers any more. A step that does not pass is none.
    pub fn run(&mut self, skip: &[Wanted]) -> anyhow::Result<()> {
        self.noise()?;
        for (step, name) in [
            (Wanted::Receive, "receive"),
            (Wanted::Squelch, "squelch"),
            (Wanted::Transmit, "transmit"),
            (Wanted::Delays, "lead-in"),
        ] {
            if skip.contains(&step) {
                self.note(name, Outcome::Skipped, "left out".into(), [])?;
                continue;
            }
            match step {
                Wanted::Receive => self.receive()?,
                Wanted::Squelch => self.squelch()?,
                Wanted::Transmit => self.transmit()?,
                Wanted::Delays => {
                    self.lead_in()?;
                    self.inhibit()?;
                }
            }
        }
        Ok(())
    }

    /// The steps, and every key that is other than it was.
    pub fn finish(self, before: &Radio) -> (Vec<Step>, Vec<Change>) {
        let keys = |r: &Radio| {
            [
                ("receive_gain_db", Some(Setting::Tenths(r.receive_gain_db))),
                ("carrier_debounce_ms", Some(Setting::Ms(r.carrier_debounce_ms))),
                ("vox_threshold_dbfs", Some(Setting::Tenths(r.vox_threshold_dbfs))),
                ("ctcss_hz", r.ctcss_hz.map(Setting::Tenths)),
                ("tail_elimination_ms", Some(Setting::Ms(r.tail_elimination_ms))),
                ("transmit_gain_db", Some(Setting::Tenths(r.transmit_gain_db))),
                ("lead_in_ms", Some(Setting::Ms(r.lead_in_ms))),
                ("inhibit_after_transmit_ms", Some(Setting::Ms(r.inhibit_after_transmit_ms))),
            ]
        };
        let both = keys(before).into_iter().zip(keys(&self.port.radio));
        let changed = both.filter(|(before, after)| before != after);
        let changes =
            changed.filter_map(|((key, before), (_, after))| Some(Change { key, before: before?, after: after? }));
        (self.steps, changes.collect())
    }

    pub(super) fn note<const N: usize>(
        &mut self,
        name: &'static str,
        result: Outcome,
        says: String,
        measured: [(&str, Value); N],
    ) -> anyhow::Result<()> {
        let measured: Map<String, Value> = measured.into_iter().map(|(what, value)| (what.to_owned(), value)).collect();
        let word = match result {
            Outcome::Pass => "ok",
            Outcome::Fail => "NOT ok",
            Outcome::Skipped => "skipped",
        };
        self.asking.say(&format!("  {name}: {word}; {says}"))?;
        self.steps.push(Step { name, result, says, measured });
        Ok(())
    }

    fn noise(&mut self) -> anyhow::Result<()> {
        self.asking.wait("Nobody transmits for the next two seconds.")?;
        let heard = self.listen_without_gain(QUIET_TIME)?;
        self.floor_dbfs = floor_dbfs(&heard.iter().map(|slice| slice.loudness_dbfs).collect::<Vec<_>>());
        let raw: Vec<f32> = heard.iter().map(|slice| Level::of(&slice.raw).rms_dbfs).collect();
        self.raw_floor_dbfs = floor_dbfs(&raw);
        let by_loudness = self.port.radio.carrier_from() == CarrierFrom::Vox;
        let open = !by_loudness && heard.iter().any(|slice| slice.carrier);
        let (result, says) = if open {
            let remedy = "close the squelch, or turn the signal over: the line's active_low in the board profile, or cm108_carrier_inverted";
            (Outcome::Fail, format!("the carrier is there while nobody transmits; {remedy}"))
        } else {
            (Outcome::Pass, format!("noise at {:.1} dBFS", self.floor_dbfs))
        };
        let measured = [("noise_dbfs", tenths(self.floor_dbfs)), ("carrier", json!(open))];
        self.note("noise", result, says, measured)
    }

    fn listen_without_gain(&mut self, time: Duration) -> anyhow::Result<Vec<Slice>> {
        let radio = &mut self.port.radio;
        let (gain, limiter) = (radio.receive_gain_db, radio.limiter);
        (radio.receive_gain_db, radio.limiter) = (0.0, false);
        self.port.treat_anew();
        self.port.skip();
        let heard = self.port.listen(time);
        (self.port.radio.receive_gain_db, self.port.radio.limiter) = (gain, limiter);
        self.port.treat_anew();
        heard
    }

    /// Levels as the card gives them must pass; what the gain is set by is what the filter leaves.
    fn receive(&mut self) -> anyhow::Result<()> {
        for attempt in 1.. {
            self.asking.wait("Speak into a handheld for five seconds as usual, or send a tone of 1 kHz.")?;
            let heard = self.listen_without_gain(SPEECH_TIME)?;
            let (raw, count) = voice(heard.iter().map(|slice| &slice.raw), self.raw_floor_dbfs);
            let (treated, _) = voice(heard.iter().map(|slice| &slice.treated), self.floor_dbfs);
            let wrong = if count < ENOUGH_FRAMES {
                vec!["nobody was heard; check the cable, and the card's mixer"]
            } else {
                verdict(&raw)
            };
            if !wrong.is_empty() && attempt < TRIES && !self.asking.is_alone() {
                self.asking.say(&format!(
                    "  peak {:.1} dBFS, average {:.1} dBFS: {}",
                    raw.peak_dbfs,
                    raw.rms_dbfs,
                    wrong.join("; ")
                ))?;
                if self.asking.agree("Try again?")? {
                    continue;
                }
            }
            return self.received(heard, raw, treated, &wrong);
        }
        Ok(())
    }

    fn received(&mut self, heard: Vec<Slice>, raw: Level, treated: Level, wrong: &[&str]) -> anyhow::Result<()> {
        let gain = gain_db(&treated);
        let measured = [
            ("peak_dbfs", tenths(raw.peak_dbfs)),
            ("average_dbfs", tenths(raw.rms_dbfs)),
            ("clipped_samples", json!(raw.clipped_samples)),
        ];
        if !wrong.is_empty() {
            return self.note("receive", Outcome::Fail, wrong.join("; "), measured);
        }
        self.port.radio.receive_gain_db = gain;
        self.speech = Some((heard.into_iter().map(|slice| slice.raw).collect(), treated));
        self.port.treat_anew();
        self.note(
            "receive",
            Outcome::Pass,
            format!("a gain of {gain:.0} dB brings its peaks to {:.1} dBFS", treated.peak_dbfs + gain),
            measured,
        )
    }

    fn squelch(&mut self) -> anyhow::Result<()> {
        match self.port.radio.carrier_from() {
            CarrierFrom::Vox => self.vox(),
            CarrierFrom::Gpio | CarrierFrom::Cm108 | CarrierFrom::Ctcss => self.carrier(),
        }
    }

    fn vox(&mut self) -> anyhow::Result<()> {
        let Some((frames, level)) = &self.speech else {
            return self.note("squelch", Outcome::Skipped, "its threshold needs the receive level".into(), []);
        };
        let gain = self.port.radio.receive_gain_db;
        let (tone, speech_dbfs, noise_dbfs) = (ctcss_hz(frames), level.rms_dbfs + gain, self.floor_dbfs + gain);
        let threshold = vox_threshold_dbfs(noise_dbfs, speech_dbfs);
        let measured =
            [("noise_dbfs", tenths(noise_dbfs)), ("speech_dbfs", tenths(speech_dbfs)), ("ctcss_hz", json!(tone))];
        let Some(threshold) = threshold else {
            let says =
                "speech is hardly louder than the noise; close the radio's squelch, or use its carrier signal".into();
            return self.note("squelch", Outcome::Fail, says, measured);
        };
        self.port.radio.vox_threshold_dbfs = threshold;
        self.port.treat_anew();
        self.note("squelch", Outcome::Pass, format!("opens at {threshold:.0} dBFS, between noise and speech"), measured)
    }

    fn carrier(&mut self) -> anyhow::Result<()> {
        self.asking.wait("Press PTT on a handheld for three seconds without a word, then let go.")?;
        self.port.skip();
        let mut heard = Vec::new();
        let waits = |time: Duration| time.as_millis() / FRAME_TIME.as_millis();
        for _ in 0..waits(self.patience) {
            heard.push(self.port.next()?);
            if heard.last().is_some_and(|slice| slice.carrier) {
                break;
            }
        }
        let frames = |heard: &[Slice]| heard.iter().map(|slice| slice.raw).collect::<Vec<_>>();
        if !heard.last().is_some_and(|slice| slice.carrier) {
            return self.no_carrier(ctcss_hz(&frames(&heard)));
        }
        let opened = heard.len() - 1;
        let mut closed_frames = 0; // a line that chatters is not closed
        for _ in 0..waits(LONGEST_CARRIER) {
            let slice = self.port.next()?;
            closed_frames = if slice.carrier { 0 } else { closed_frames + 1 };
            heard.push(slice);
            if closed_frames == CLOSED_FRAMES {
                break;
            }
        }
        let still_open = closed_frames < CLOSED_FRAMES;
        let closed = heard.len() - closed_frames.max(1);
        let edges: Vec<(Mono, bool)> = heard.iter().flat_map(|slice| slice.edges.iter().copied()).collect();
        let tone = ctcss_hz(&frames(&heard[opened..closed]));
        let length = heard[closed].at.since(heard[opened].at);
        let chatter = chatter(&edges);
        if !edges.is_empty() && !chatter.is_zero() {
            let wanted = ms_up(chatter + chatter / 2, 5);
            self.port.radio.carrier_debounce_ms = wanted.clamp(self.port.radio.carrier_debounce_ms, 500);
        }
        // As the gateway judges it: a line has to be quiet for the debounce time, a tone's end is told with its frame.
        let by_line = edges.iter().rev().find(|(_, active)| !active).map(|(at, _)| *at);
        let debounce = Duration::from_millis(self.port.radio.carrier_debounce_ms);
        let judged = by_line.map_or(heard[closed].at + FRAME_TIME, |at| at + debounce);
        let noise = tail(heard[opened..].iter().map(|slice| (slice.at, &slice.treated)), judged);
        let measured = [
            ("carrier_ms", json!(length.as_millis() as u64)),
            ("chatter_ms", json!(chatter.as_millis() as u64)),
            ("tail_ms", json!(noise.as_millis() as u64)),
            ("ctcss_hz", json!(tone)),
        ];
        if still_open {
            return self.note(
                "squelch",
                Outcome::Fail,
                "the carrier stayed; look whether the squelch closes".into(),
                measured,
            );
        }
        // Frames are whole, and the card may be late by one.
        let elimination = if noise.is_zero() { 0 } else { ms_up(noise, 20) + 20 };
        if elimination > LONGEST_TAIL_MS {
            let says = format!(
                "noise of {} ms follows the carrier, more than can be cut off; tighten the squelch",
                noise.as_millis()
            );
            return self.note("squelch", Outcome::Fail, says, measured);
        }
        self.port.radio.tail_elimination_ms = elimination;
        let says = format!(
            "opens and closes; {}",
            if noise.is_zero() {
                "no noise follows".into()
            } else {
                format!("noise of {} ms follows, and is cut off", noise.as_millis())
            }
        );
        self.note("squelch", Outcome::Pass, says, measured)
    }

    fn no_carrier(&mut self, tone: Option<f32>) -> anyhow::Result<()> {
        let by_tone = self.port.radio.carrier_from() == CarrierFrom::Ctcss;
        let says = match tone {
            Some(hz) if by_tone => {
                self.port.radio.ctcss_hz = Some(hz);
                format!("the handheld sends {hz:.1} Hz, another tone; it is set now, so align once more")
            }
            _ if by_tone => {
                "no tone was heard; set one on the handheld, and wire the radio before its own filter".into()
            }
            _ => "no carrier came; check its wire and carrier_from".into(),
        };
        self.note("squelch", Outcome::Fail, says, [("ctcss_hz", json!(tone))])
    }

    fn transmit(&mut self) -> anyhow::Result<()> {
        let mut says = "not accepted";
        for _ in 0..TRIES {
            let gain = self.port.radio.transmit_gain_db;
            self.asking.wait(&format!(
                "The transmitter is keyed with 1 kHz for five seconds, at a gain of {gain:.0} dB. Set 60 % of full deviation."
            ))?;
            let far = self.send(tone_frames(TONE_TIME))?;
            if self.far.is_some() {
                let (level, count) = voice(&far, self.far_floor(&far));
                let heard = count >= ENOUGH_FRAMES;
                let measured = [("far_peak_dbfs", tenths(level.peak_dbfs)), ("gain_db", tenths(gain))];
                if !heard {
                    let says = "the far radio hears nothing; check PTT, cable and frequency".into();
                    return self.note("transmit", Outcome::Fail, says, measured);
                }
                self.asking.say(&format!("  the far radio hears it with {:.1} dBFS at its peak", level.peak_dbfs))?;
            }
            match self.asking.ask("Is the level right? ok, louder, softer, dB such as -3, or no", "ok")?.as_str() {
                "ok" => {
                    let says = format!("accepted at a gain of {gain:.0} dB");
                    return self.note("transmit", Outcome::Pass, says, [("gain_db", tenths(gain))]);
                }
                "no" => break,
                other => match if other == "louder" {
                    Ok(2.0)
                } else if other == "softer" {
                    Ok(-2.0)
                } else {
                    other.parse::<f32>()
                } {
                    Ok(more) if more.is_finite() => self.port.radio.transmit_gain_db = (gain + more).clamp(-30.0, 30.0),
                    Ok(_) | Err(_) => self.asking.say("  say ok, louder, softer, a number of dB, or no")?,
                },
            }
            says = "not accepted in ten tries";
        }
        self.note("transmit", Outcome::Fail, says.into(), [("gain_db", tenths(self.port.radio.transmit_gain_db))])
    }

    /// Transmits; what the far radio heard meanwhile and shortly after.
    pub(super) fn send(&mut self, frames: impl Iterator<Item = Frame>) -> anyhow::Result<Vec<Frame>> {
        if let Some(far) = &self.far {
            far.skip();
        }
        let sent = self.port.transmit(frames)?;
        let mut heard = Vec::new();
        if let Some(far) = &self.far {
            loop {
                let frame = far.next()?;
                if frame.at > sent.unkeyed + AFTER {
                    break;
                }
                heard.push(frame.frame);
            }
        }
        Ok(heard)
    }

    /// The noise of a far radio: what the softest tenth of this is like.
    pub(super) fn far_floor(&self, heard: &[Frame]) -> f32 {
        let mut levels: Vec<f32> = heard.iter().map(|frame| Level::of(frame).rms_dbfs).collect();
        levels.sort_by(f32::total_cmp);
        levels.get(levels.len() / 10).copied().unwrap_or_default().max(-60.0)
    }
}
