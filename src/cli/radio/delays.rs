//! The steps of an alignment that find times: when a far radio opens, when the own one closes.

use super::align::{Align, TONE, tone_frames};
use super::measure::ms_up;
use super::port::FRAME_TIME;
use super::report::Outcome;
use crate::hardware::audio::FRAME;
use crate::media::voice::SILENCE;
use crate::media::voice::level::Meter;
use serde_json::json;
use std::io::{BufRead, Write};
use std::time::Duration;

/// Lead-ins that are tried until a far radio says all.
const LEAD_INS_MS: [u64; 9] = [100, 200, 300, 450, 600, 800, 1000, 1500, 2000];
/// What a measured delay gets on top.
const MARGIN: Duration = Duration::from_millis(50);
/// The highest that the configuration takes.
const LONGEST_DELAY_MS: u64 = 2000;
/// A tone at the far radio is as much louder than its noise.
const FAR_ABOVE_DB: f32 = 10.0;
/// What is looked at after a transmission.
const AFTER_TRANSMISSION: Duration = Duration::from_millis(2200);

impl<R: BufRead, W: Write> Align<'_, R, W> {
    pub(super) fn lead_in(&mut self) -> anyhow::Result<()> {
        if self.far.is_some() {
            return self.lead_in_by_far_radio();
        }
        if self.asking.is_alone() {
            return self.note("lead-in", Outcome::Skipped, "nobody listens at a far radio".into(), []);
        }
        self.asking.wait("Listen at a far radio: two short beeps come, sooner every time they are whole.")?;
        let beeps = || {
            let beep = |n: usize| if n % 15 < 8 { TONE.frame((n * FRAME) as u64) } else { SILENCE };
            (0..30).map(beep)
        };
        for ms in LEAD_INS_MS {
            self.port.radio.lead_in_ms = ms;
            self.send(beeps())?;
            if self.asking.agree(&format!("Were both beeps whole, with a lead-in of {ms} ms?"))? {
                let lead_in = (ms + MARGIN.as_millis() as u64).min(LONGEST_DELAY_MS);
                self.port.radio.lead_in_ms = lead_in;
                return self.note(
                    "lead-in",
                    Outcome::Pass,
                    format!("whole from {ms} ms on; {lead_in} ms are set"),
                    [("whole_from_ms", json!(ms))],
                );
            }
        }
        self.note("lead-in", Outcome::Fail, "the far radio does not open within two seconds".into(), [])
    }

    /// What is missing of a tone that began as the transmitter was keyed, however late it arrives.
    fn lead_in_by_far_radio(&mut self) -> anyhow::Result<()> {
        self.port.radio.lead_in_ms = 0;
        let length = Duration::from_millis(2500);
        let heard = self.send(tone_frames(length))?;
        let floor = self.far_floor(&heard) + FAR_ABOVE_DB;
        let steps = heard.iter().flat_map(|frame| frame.chunks_exact(FRAME / 4));
        let count = steps.filter(|step| {
            let mut meter = Meter::default();
            meter.add(step);
            meter.level().rms_dbfs > floor
        });
        let came = Duration::from_millis(5) * count.count() as u32;
        if came < Duration::from_millis(200) {
            return self.note(
                "lead-in",
                Outcome::Fail,
                "the far radio hears nothing".into(),
                [("far_ms", json!(came.as_millis() as u64))],
            );
        }
        let lost = length.saturating_sub(came);
        let lead_in = ms_up(lost + MARGIN, 10);
        let measured = [("lost_ms", json!(lost.as_millis() as u64))];
        if lead_in > LONGEST_DELAY_MS {
            return self.note("lead-in", Outcome::Fail, "the far radio opens too late".into(), measured);
        }
        self.port.radio.lead_in_ms = lead_in;
        self.note(
            "lead-in",
            Outcome::Pass,
            format!("the far radio opens after {} ms; {lead_in} ms are set", lost.as_millis()),
            measured,
        )
    }

    /// How long the own receiver takes the end of the own transmission for a carrier.
    pub(super) fn inhibit(&mut self) -> anyhow::Result<()> {
        self.asking.wait("The transmitter is keyed for a second; nobody else transmits.")?;
        self.port.skip();
        let sent = self.port.transmit(tone_frames(Duration::from_secs(1)))?;
        let mut last = None;
        loop {
            let slice = self.port.next()?;
            if slice.at > sent.unkeyed + AFTER_TRANSMISSION {
                break;
            }
            if slice.carrier && slice.at + FRAME_TIME > sent.unkeyed {
                last = Some(slice.at + FRAME_TIME);
            }
        }
        let open = last.map_or(Duration::ZERO, |at| at.since(sent.unkeyed));
        let measured = [
            ("own_carrier_ms", json!(open.as_millis() as u64)),
            ("keyed_ms", json!(sent.unkeyed.since(sent.keyed).as_millis() as u64)),
        ];
        let inhibit = ms_up(open + MARGIN, 50);
        if open.is_zero() {
            return self.note("inhibit", Outcome::Pass, "the own receiver stays closed".into(), measured);
        }
        if inhibit > LONGEST_DELAY_MS {
            let says =
                "the own receiver stays open after a transmission; close the squelch, or part the antennas".into();
            return self.note("inhibit", Outcome::Fail, says, measured);
        }
        self.port.radio.inhibit_after_transmit_ms = inhibit;
        self.note(
            "inhibit",
            Outcome::Pass,
            format!("the own receiver closes {} ms after it; {inhibit} ms are set", open.as_millis()),
            measured,
        )
    }
}
