//! The capture thread: hears, measures, senses a carrier, and talks while it has a burst.

use super::gauge::Measuring;
use super::{CaptureEnd, Endpoint, EndpointPlan, FRAME_TIME, OpenCapture, Sense, Told, VoiceFrame, frames_in};
use super::{report, tell, with_device};
use crate::base::Mono;
use crate::base::clock::mono_now;
use crate::control::Input;
use crate::gateway::Event;
use crate::gateway::bell::Bell;
use crate::media::dsp::chain::Chain;
use crate::media::dsp::ctcss::Ctcss;
use crate::media::voice::codec::{Encoder, MAX_PACKET_BYTES};
use crate::media::voice::level::Level;
use crate::media::voice::{FRAME, Frame, SILENCE};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

/// Opus effort; a Raspberry Pi 3 encodes a frame in well under a millisecond with it.
const COMPLEXITY: u8 = 5;

/// What one capture thread works with, made once.
struct Ear {
    chain: Chain,
    sense: Sense,
    ctcss: Option<Ctcss>,
    carrier: bool,
    encoder: Encoder,
    /// What was heard and not sent; the newest last.
    kept: VecDeque<Frame>,
    /// How much is kept while nobody listens, and how much is kept back while somebody does.
    look_back: usize,
    tail: usize,
    was_talking: bool,
    sequence: u64,
    timestamp: u32,
    measuring: Measuring,
}

impl Ear {
    fn new(plan: &EndpointPlan, encoder: Encoder) -> Self {
        let tail = frames_in(plan.tail);
        let look_back = frames_in(plan.look_back).max(tail);
        let ctcss = match plan.sense {
            Sense::Ctcss(hz, detect) => Some(Ctcss::new(hz, detect)),
            Sense::Line | Sense::Vox(_) => None,
        };
        Ear {
            chain: Chain::receive(plan.receive),
            sense: plan.sense,
            ctcss,
            carrier: false,
            encoder,
            kept: VecDeque::with_capacity(look_back + 2),
            look_back,
            tail,
            was_talking: false,
            sequence: 0,
            timestamp: 0,
            measuring: Measuring::default(),
        }
    }

    /// Takes in a frame that began at `stamp`; true if the carrier has changed.
    fn hear(&mut self, mut frame: Frame, endpoint: &Endpoint) -> bool {
        self.measuring.take(&frame, &endpoint.capture); // as it comes: that is what levels are set by
        let toned = self.ctcss.as_mut().is_some_and(|detector| detector.hear(&frame));
        let loudness = self.chain.run(&mut frame);
        let active = match self.sense {
            Sense::Line => false,
            Sense::Vox(threshold_dbfs) => 20.0 * loudness.max(1e-9).log10() >= f64::from(threshold_dbfs),
            Sense::Ctcss(..) => toned,
        };
        self.kept.push_back(frame);
        std::mem::replace(&mut self.carrier, active) != active
    }

    /// Sends what may be sent; true if anything was.
    fn talk(&mut self, endpoint: &Endpoint, end: &mut CaptureEnd) -> bool {
        let talking = endpoint.talking.load(Ordering::Acquire);
        if talking && !self.was_talking {
            self.encoder.reset();
        }
        if !talking && self.was_talking {
            self.kept.clear(); // the noise that was kept back is not what the next burst begins with
        }
        self.was_talking = talking;
        if !talking {
            while self.kept.len() > self.look_back {
                self.kept.pop_front();
            }
            return false;
        }
        let mut sent = false;
        while self.kept.len() > self.tail {
            let Some(frame) = self.kept.pop_front() else { break };
            self.send(&frame, endpoint, end);
            sent = true;
        }
        sent
    }

    fn send(&mut self, frame: &Frame, endpoint: &Endpoint, end: &mut CaptureEnd) {
        let mut voice = VoiceFrame {
            sequence: self.sequence,
            timestamp: self.timestamp,
            level: (-Level::of(frame).rms_dbfs).clamp(0.0, 127.0) as u8,
            length: 0,
            bytes: [0; MAX_PACKET_BYTES],
        };
        match self.encoder.encode(frame, &mut voice.bytes) {
            Ok(length) => {
                voice.length = length as u16;
                if end.frames.push(voice).is_err() {
                    endpoint.capture.lost_frame();
                }
            }
            Err(_) => endpoint.capture.lost_frame(),
        }
        self.sequence += 1;
        self.timestamp = self.timestamp.wrapping_add(FRAME as u32);
    }
}

/// Runs the capture thread; `wake` tells the media thread that there is something to forward.
pub fn capture_thread(
    endpoint: &Endpoint,
    plan: &EndpointPlan,
    mut end: CaptureEnd,
    (bell, wake): (Bell, impl Fn()),
    events: &tokio::sync::mpsc::Sender<Event>,
    mut open: OpenCapture,
) {
    let part = super::capture_part(plan);
    let session = endpoint.session;
    let encoder = match Encoder::new(COMPLEXITY) {
        Ok(encoder) => encoder,
        Err(e) => return report(events, Event::Part { part, why: Some(e.to_string()) }),
    };
    let mut ear = Ear::new(plan, encoder);
    let works = |works| Input::Capture { session, works };
    with_device(endpoint, &endpoint.capture_beat, &part, events, works, &mut open, |mut device| {
        let mut frame = SILENCE;
        loop {
            endpoint.capture_beat.answer();
            if endpoint.stopping.load(Ordering::Acquire) {
                return None;
            }
            if let Err(e) = device.read(&mut frame) {
                if std::mem::take(&mut ear.carrier) {
                    tell(&mut end.told, Told::Carrier { active: false, stamp: mono_now() }, &bell);
                }
                return Some(e);
            }
            let stamp: Mono = mono_now() - FRAME_TIME;
            endpoint.capture.xruns(device.xruns());
            if ear.hear(frame, endpoint) {
                tell(&mut end.told, Told::Carrier { active: ear.carrier, stamp }, &bell);
            }
            if ear.talk(endpoint, &mut end) {
                wake();
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BurstId, SessionId, SourceId};
    use crate::media::voice::codec::Decoder;
    use crate::media::voice::signal::{frequency_hz, sine};
    use std::time::Duration;

    struct Bench {
        endpoint: std::sync::Arc<Endpoint>,
        ear: Ear,
        end: CaptureEnd,
        media: super::super::MediaEnd,
        heard: u64,
        /// How often the carrier was told to have changed.
        changes: usize,
    }

    impl Bench {
        fn new(plan: &EndpointPlan) -> Self {
            let (endpoint, end, _, media) =
                Endpoint::new(SessionId(1), SourceId(1), ("in".into(), "out".into()), &["ops".into()]);
            Bench { endpoint, ear: Ear::new(plan, Encoder::new(5).unwrap()), end, media, heard: 0, changes: 0 }
        }

        /// Hears frames of a tone; how many frames were sent.
        fn hear(&mut self, hz: f64, frames: usize) -> usize {
            let before = self.media.frames.slots();
            for _ in 0..frames {
                self.changes += usize::from(self.ear.hear(sine(hz, 8000.0, self.heard as usize), &self.endpoint));
                self.ear.talk(&self.endpoint, &mut self.end);
                self.heard += 1;
            }
            self.media.frames.slots() - before
        }

        fn sent(&mut self) -> Vec<i16> {
            let mut decoder = Decoder::new().unwrap();
            std::iter::from_fn(|| self.media.frames.pop().ok())
                .flat_map(|f| decoder.decode(f.payload()).unwrap())
                .collect()
        }
    }

    #[test]
    fn what_was_said_just_before_the_grant_is_sent_with_it() {
        let plan = EndpointPlan { look_back: Duration::from_millis(200), ..EndpointPlan::plain("VHF", true) };
        let mut bench = Bench::new(&plan);
        assert_eq!(bench.hear(700.0, 50), 0);
        bench.endpoint.talk("ops".into(), BurstId(1));
        assert_eq!(bench.hear(700.0, 1), 11, "200 ms, and what is heard now");
        assert_eq!(bench.hear(700.0, 5), 5);
    }

    #[test]
    fn the_noise_at_the_end_of_a_carrier_is_not_sent_and_does_not_begin_the_next_burst() {
        let plan = EndpointPlan { tail: Duration::from_millis(100), ..EndpointPlan::plain("VHF", true) };
        let mut bench = Bench::new(&plan);
        bench.hear(700.0, 50);
        bench.endpoint.talk("ops".into(), BurstId(1));
        assert_eq!(bench.hear(700.0, 20), 20, "all but the newest five, and as many from before the grant");
        bench.hear(2500.0, 5); // the squelch tail: noise that sounds until the carrier is known to be gone
        bench.endpoint.stop_talking(&"ops".into(), BurstId(1));
        bench.hear(2500.0, 1);
        let sent = bench.sent();
        let end = &sent[sent.len() - 3 * FRAME..];
        assert!((frequency_hz(end) - 700.0).abs() < 20.0, "{} Hz at the end", frequency_hz(end));
        bench.hear(700.0, 20);
        bench.endpoint.talk("ops".into(), BurstId(2));
        bench.hear(700.0, 20);
        let sent = bench.sent();
        assert!((frequency_hz(&sent[2 * FRAME..]) - 700.0).abs() < 20.0);
    }

    #[test]
    fn a_carrier_is_told_from_loudness_after_the_filter_or_from_a_tone() {
        let receive = crate::media::dsp::chain::Treatment { high_pass: true, ..Default::default() };
        let changes = |sense, sounds: [(f64, usize); 3]| {
            let mut bench = Bench::new(&EndpointPlan { sense, receive, ..EndpointPlan::plain("VHF", true) });
            let mut carriers = Vec::new();
            for (hz, frames) in sounds {
                bench.hear(hz, frames);
                carriers.push(bench.ear.carrier);
            }
            (carriers, bench.changes)
        };
        let sounds = [(1000.0, 40), (88.5, 40), (1000.0, 40)];
        let by_vox = changes(Sense::Vox(-30.0), sounds);
        assert_eq!(by_vox, (vec![true, false, true], 3), "a tone below speech is no voice");
        let by_ctcss = changes(Sense::Ctcss(88.5, Duration::from_millis(250)), sounds);
        assert_eq!(by_ctcss, (vec![false, true, false], 2));
        assert_eq!(changes(Sense::Line, sounds), (vec![false; 3], 0));
    }
}
