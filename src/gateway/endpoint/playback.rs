//! The playback thread: plays what its channels carry, one frame every 20 ms.

use super::gauge::Measuring;
use super::{Endpoint, EndpointPlan, FRAME_TIME, OpenPlayback, Order, Packet, PlaybackEnd, Told, frames_in};
use super::{report, tell, with_device};
use crate::base::Mono;
use crate::base::clock::mono_now;
use crate::control::Input;
use crate::gateway::Event;
use crate::gateway::bell::Bell;
use crate::hardware::audio::sim::Sound;
use crate::hardware::audio::{AudioError, Playback};
use crate::media::dsp::chain::Chain;
use crate::media::dsp::limiter::Limiter;
use crate::media::dsp::tones;
use crate::media::voice::mix::{Gain, Mixer};
use crate::media::voice::playout::{Origin, Playout, Sizes};
use crate::media::voice::{FRAME, Frame, SILENCE, VoiceError};
use rtrb::Consumer;
use std::sync::atomic::Ordering;

/// Frames that a playback device may still hold, and that are kept to be played again without a burst that was cut.
const KEPT: usize = 3;
/// How much the loudspeaker is turned down while its own microphone is open (feedback).
const DIM_DB: f32 = -20.0;
/// How much other channels are turned down under the one that the desk talked on last.
const DUCK_DB: f32 = -12.0;
/// How much louder than everything else a loudspeaker plays an emergency (E6), and the peaks it keeps below then.
const EMERGENCY_DB: f32 = 6.0;
const EMERGENCY_CEILING_DBFS: f32 = -1.0;
/// What a loudspeaker sounds while the emergency button is held (E3).
const ARMING_TONE: Sound = Sound::Tone { hz: 880.0, level_dbfs: -20.0 };
/// A pause between the courtesy tone and the station's name.
const PAUSE: usize = 10 * FRAME;

/// One channel.
struct Stream {
    packets: Consumer<Packet>,
    playout: Playout,
    /// The newest frames, each with whether there is anything in it; the newest first.
    sounding: [(bool, Frame); KEPT],
}

/// What ends a transmission, as far as it has sounded.
struct Signature {
    sound: Vec<i16>,
    at: usize,
    /// How much of the sound is to be played.
    end: usize,
    /// Where the station's name begins.
    ident_from: usize,
}

impl Signature {
    fn new(ident: &[i16]) -> Self {
        let mut sound = tones::courtesy();
        sound.resize(sound.len() + PAUSE, 0);
        let ident_from = sound.len();
        sound.extend_from_slice(ident);
        Signature { at: 0, end: 0, ident_from, sound }
    }

    fn begin(&mut self, courtesy: bool, ident: bool) {
        self.at = if courtesy { 0 } else { self.ident_from };
        self.end = if ident { self.sound.len() } else { self.ident_from };
    }

    fn is_over(&self) -> bool {
        self.at >= self.end
    }

    fn next(&mut self, frame: &mut Frame) {
        let part = &self.sound[self.at..self.end.min(self.at + FRAME)];
        frame[..part.len()].copy_from_slice(part);
        self.at += FRAME;
    }
}

/// What one playback thread works with, made once.
struct Mouth {
    streams: Vec<Stream>,
    mixer: Mixer,
    chain: Chain,
    signature: Signature,
    /// From when on it plays; a port that is not keyed does not, lest sound go to a transmitter that is receiving.
    on_air: Option<Mono>,
    is_port: bool,
    draining: bool,
    played: u64,
    measuring: Measuring,
    dim: Gain,
    duck: Gain,
    duck_and_dim: Gain,
    raise: Gain,
    limiter: Limiter,
}

impl Mouth {
    fn new(plan: &EndpointPlan, packets: Vec<Consumer<Packet>>) -> Result<Self, VoiceError> {
        let sizes = Sizes::default();
        let sizes = Sizes { max_frames: sizes.max_frames + frames_in(plan.lead_in), ..sizes };
        let stream =
            |packets| Ok(Stream { packets, playout: Playout::new(sizes)?, sounding: [(false, SILENCE); KEPT] });
        Ok(Mouth {
            streams: packets.into_iter().map(stream).collect::<Result<_, _>>()?,
            mixer: Mixer::new(),
            chain: Chain::transmit(plan.transmit),
            signature: Signature::new(&plan.ident),
            on_air: (!plan.is_port).then(Mono::default),
            is_port: plan.is_port,
            draining: false,
            played: 0,
            measuring: Measuring::default(),
            dim: Gain::from_db(DIM_DB),
            duck: Gain::from_db(DUCK_DB),
            duck_and_dim: Gain::from_db(DUCK_DB + DIM_DB),
            raise: Gain::from_db(EMERGENCY_DB),
            limiter: Limiter::new(f64::from(i16::MAX) * 10f64.powf(f64::from(EMERGENCY_CEILING_DBFS) / 20.0)),
        })
    }

    /// Takes packets in. Those that were sent before an order was given are there once the order is.
    fn take_packets(&mut self) {
        for stream in &mut self.streams {
            while let Ok(p) = stream.packets.pop() {
                stream.playout.push(p.burst, p.sequence, p.timestamp, &p.payload[..usize::from(p.length)]);
            }
        }
    }

    /// What waits is old when a device comes back.
    fn forget(&mut self) {
        for stream in &mut self.streams {
            while stream.packets.pop().is_ok() {}
            stream.sounding = [(false, SILENCE); KEPT];
        }
    }

    fn obey(&mut self, order: Order, device: &mut dyn Playback, endpoint: &Endpoint) -> Result<(), AudioError> {
        match order {
            Order::From(at) => {
                (self.on_air, self.draining) = (Some(at), false);
                self.signature.end = 0;
            }
            Order::TellWhenDrained => self.draining = true,
            Order::Sign { courtesy, ident } => {
                self.signature.begin(courtesy, ident);
                self.draining = true;
            }
            Order::Stop(burst) => {
                (self.on_air, self.draining) = (None, false);
                self.signature.end = 0;
                for stream in &mut self.streams {
                    burst.into_iter().for_each(|burst| stream.playout.cut(burst));
                    stream.sounding = [(false, SILENCE); KEPT];
                }
                device.flush();
            }
            Order::End(stream, burst) => {
                let playout = &mut self.streams[stream].playout;
                match self.on_air {
                    Some(_) => playout.end(burst),
                    None => playout.cut(burst), // it was never on air, and must not follow later
                }
            }
            Order::Cut(stream, burst) => {
                self.streams[stream].playout.cut(burst);
                if self.streams[stream].sounding.iter().any(|(sounds, _)| *sounds) {
                    return self.play_again_without(stream, device, endpoint);
                }
            }
        }
        Ok(())
    }

    /// What the device still holds is thrown away, and what others say in it given again (F3).
    fn play_again_without(
        &mut self,
        cut: usize,
        device: &mut dyn Playback,
        endpoint: &Endpoint,
    ) -> Result<(), AudioError> {
        let unsounded = device.buffered().div_duration_f32(FRAME_TIME).ceil() as usize;
        device.flush();
        self.streams[cut].sounding = [(false, SILENCE); KEPT];
        for ago in (0..unsounded.min(KEPT)).rev() {
            let frame = self.mix(ago, endpoint);
            device.write(&frame)?;
        }
        Ok(())
    }

    /// The sum of what the streams said so many frames ago.
    fn mix(&mut self, ago: usize, endpoint: &Endpoint) -> Frame {
        let dims = !self.is_port && endpoint.talking.load(Ordering::Acquire);
        let raises = !self.is_port && endpoint.emergency.load(Ordering::Acquire);
        let selected = endpoint.selected.load(Ordering::Acquire);
        let ducks = self.streams.get(selected).is_some_and(|stream| stream.sounding[ago].0);
        for (n, stream) in self.streams.iter().enumerate() {
            let (sounds, frame) = &stream.sounding[ago];
            if *sounds {
                let gain = match (ducks && n != selected, dims) {
                    _ if raises => self.raise,
                    (false, false) => Gain::UNITY,
                    (false, true) => self.dim,
                    (true, false) => self.duck,
                    (true, true) => self.duck_and_dim,
                };
                self.mixer.add(frame, gain);
            }
        }
        let limiter = &mut self.limiter;
        let mut frame = self.mixer.take_through(|sample| if raises { limiter.run(sample) } else { sample });
        self.chain.run(&mut frame);
        frame
    }

    /// The next 20 ms.
    fn next(&mut self, endpoint: &Endpoint) -> Frame {
        let on_air = self.on_air.is_some_and(|from| mono_now() >= from);
        for stream in &mut self.streams {
            stream.sounding.rotate_right(1);
            stream.sounding[0].0 = false;
            if on_air {
                let pulled = stream.playout.pull();
                stream.sounding[0] = (pulled.origin != Origin::Silence, pulled.frame);
            }
        }
        let mut frame = self.mix(0, endpoint);
        if on_air && !self.signature.is_over() {
            self.signature.next(&mut frame);
        }
        if endpoint.toning.load(Ordering::Acquire) {
            self.mixer.add(&frame, Gain::UNITY);
            self.mixer.add(&ARMING_TONE.frame(self.played), Gain::UNITY);
            frame = self.mixer.take();
        }
        self.played += FRAME as u64;
        self.measuring.take(&frame, &endpoint.playback);
        let counters = self.streams.iter().map(|stream| stream.playout.counters());
        let (mended, concealed) =
            counters.fold((0, 0), |(mended, concealed), c| (mended + c.mended_frames, concealed + c.concealed_frames));
        endpoint.playback.made_up(mended, concealed);
        frame
    }

    /// True once when everything has been given to the device.
    fn has_drained(&mut self) -> bool {
        let drained = self.draining && self.signature.is_over() && self.streams.iter().all(|s| s.playout.is_drained());
        if drained {
            self.draining = false;
        }
        drained
    }
}

/// Runs the playback thread.
pub fn playback_thread(
    endpoint: &Endpoint,
    plan: &EndpointPlan,
    end: PlaybackEnd,
    bell: &Bell,
    events: &tokio::sync::mpsc::Sender<Event>,
    mut open: OpenPlayback,
) {
    let part = super::playback_part(plan);
    let session = endpoint.session;
    let PlaybackEnd { mut orders, packets, mut told } = end;
    let mut mouth = match Mouth::new(plan, packets) {
        Ok(mouth) => mouth,
        Err(e) => return report(events, Event::Part { part, why: Some(e.to_string()) }),
    };
    let works = |works| Input::Playback { session, works };
    with_device(endpoint, &endpoint.playback_beat, &part, events, works, &mut open, |mut device| {
        mouth.forget();
        loop {
            endpoint.playback_beat.answer();
            if endpoint.stopping.load(Ordering::Acquire) {
                return None;
            }
            let waiting = orders.slots();
            mouth.take_packets();
            for order in std::iter::from_fn(|| orders.pop().ok()).take(waiting) {
                if let Err(e) = mouth.obey(order, &mut *device, endpoint) {
                    return Some(e);
                }
            }
            let frame = mouth.next(endpoint);
            if let Err(e) = device.write(&frame) {
                return Some(e);
            }
            endpoint.playback.xruns(device.xruns());
            if mouth.has_drained() {
                tell(&mut told, Told::Drained { at: mono_now() + device.buffered() }, bell);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::MediaEnd;
    use super::*;
    use crate::base::{BurstId, SessionId, SourceId};
    use crate::media::voice::codec::{Encoder, MAX_PACKET_BYTES};
    use crate::media::voice::signal::{amplitude, sine};
    use std::sync::Arc;
    use std::time::Duration;

    const OPS_HZ: f64 = 400.0;
    const MEDICAL_HZ: f64 = 1000.0;
    const PEAK: f64 = 8000.0;

    /// Holds what it was given until it is flushed.
    #[derive(Default)]
    struct Card {
        held: Vec<Frame>,
        flushes: usize,
    }

    impl Playback for Card {
        fn write(&mut self, frame: &Frame) -> Result<(), AudioError> {
            self.held.push(*frame);
            Ok(())
        }

        fn buffered(&self) -> Duration {
            FRAME_TIME * self.held.len() as u32
        }

        fn flush(&mut self) {
            self.held.clear();
            self.flushes += 1;
        }

        fn xruns(&self) -> u64 {
            0
        }
    }

    /// A desk or port with the channels ops and medical, on each of which a burst of a tone is sent.
    struct Bench {
        endpoint: Arc<Endpoint>,
        end: PlaybackEnd,
        media: MediaEnd,
        mouth: Mouth,
        card: Card,
        talkers: [(f64, Encoder); 2],
        sent: u64,
    }

    impl Bench {
        fn new(is_port: bool) -> Self {
            let names = ("in".into(), "out".into());
            let channels = ["ops".into(), "medical".into()];
            let (endpoint, _, mut end, media) = Endpoint::new(SessionId(1), SourceId(1), names, &channels);
            let packets = std::mem::take(&mut end.packets);
            let mouth = Mouth::new(&EndpointPlan::plain("Desk", is_port), packets).unwrap();
            let talkers = [OPS_HZ, MEDICAL_HZ].map(|hz| (hz, Encoder::new(5).unwrap()));
            Bench { endpoint, end, media, mouth, card: Card::default(), talkers, sent: 0 }
        }

        /// Both, one or none of the bursts (of these numbers) go on for some frames; what is played.
        fn play(&mut self, bursts: [Option<u64>; 2], frames: usize) -> Vec<i16> {
            let mut played = Vec::new();
            for _ in 0..frames {
                for (n, burst) in bursts.into_iter().enumerate() {
                    let Some(burst) = burst else { continue };
                    let (hz, encoder) = &mut self.talkers[n];
                    let mut packet = [0; MAX_PACKET_BYTES];
                    let length = encoder.encode(&sine(*hz, PEAK, self.sent as usize), &mut packet).unwrap();
                    let timestamp = self.sent as u32 * FRAME as u32;
                    self.media.sinks[n].1.push(BurstId(burst), self.sent, timestamp, &packet[..length]);
                }
                self.sent += 1;
                self.mouth.take_packets();
                while let Ok(order) = self.end.orders.pop() {
                    self.mouth.obey(order, &mut self.card, &self.endpoint).unwrap();
                }
                played.extend(self.mouth.next(&self.endpoint));
            }
            played
        }
    }

    /// How loud a tone is at the end of it, in dB of how it was said.
    fn decibel(sound: &[i16], hz: f64) -> f64 {
        20.0 * (amplitude(&sound[sound.len() - 20 * FRAME..], hz) / PEAK).max(1e-6).log10()
    }

    fn is(db: f64, wanted: f32) -> bool {
        (db - f64::from(wanted)).abs() < 1.0
    }

    #[test]
    fn channels_are_mixed_ducked_under_the_one_it_talked_on_last_and_dimmed_while_it_talks() {
        let mut bench = Bench::new(false);
        let heard = bench.play([Some(1), Some(2)], 50);
        assert!(is(decibel(&heard, OPS_HZ), 0.0) && is(decibel(&heard, MEDICAL_HZ), 0.0));
        bench.endpoint.talk("ops".into(), BurstId(9));
        let heard = bench.play([None, Some(2)], 50);
        assert!(is(decibel(&heard, MEDICAL_HZ), DIM_DB), "{}", decibel(&heard, MEDICAL_HZ));
        bench.endpoint.stop_talking(&"ops".into(), BurstId(9));
        let heard = bench.play([Some(3), Some(2)], 50);
        assert!(is(decibel(&heard, OPS_HZ), 0.0) && is(decibel(&heard, MEDICAL_HZ), DUCK_DB));
        let heard = bench.play([None, Some(2)], 50);
        assert!(is(decibel(&heard, MEDICAL_HZ), 0.0), "nothing to duck under");
    }

    #[test]
    fn e6_an_emergency_is_loudest_neither_ducked_nor_dimmed_and_clips_nothing() {
        let mut bench = Bench::new(false);
        bench.endpoint.talk("ops".into(), BurstId(9));
        bench.endpoint.emergency(true);
        let heard = bench.play([None, Some(2)], 50);
        assert!(is(decibel(&heard, MEDICAL_HZ), EMERGENCY_DB), "{}", decibel(&heard, MEDICAL_HZ));
        let heard = bench.play([Some(3), Some(2)], 50);
        let ceiling = f32::from(i16::MAX) * 10f32.powf(EMERGENCY_CEILING_DBFS / 20.0);
        let loudest = heard.iter().map(|s| f32::from(s.saturating_abs())).fold(0.0, f32::max);
        assert!(loudest <= ceiling + 1.0, "{loudest} of {ceiling}");
        bench.endpoint.emergency(false);
        let heard = bench.play([None, Some(2)], 50);
        assert!(is(decibel(&heard, MEDICAL_HZ), DIM_DB));
    }

    #[test]
    fn f3_a_cut_takes_what_the_card_still_holds_of_it_and_leaves_the_others() {
        let mut bench = Bench::new(false);
        bench.play([Some(1), Some(2)], 50);
        bench.card.held = vec![[7; FRAME]; 2]; // what has not sounded
        bench.endpoint.cut(&"ops".into(), BurstId(1));
        let heard = bench.play([None, Some(2)], 1);
        assert_eq!((bench.card.flushes, bench.card.held.len()), (1, 2), "given again, without the burst that was cut");
        let sound: Vec<i16> = bench.card.held.iter().flatten().copied().chain(heard).collect();
        assert!(amplitude(&sound, OPS_HZ) < PEAK / 100.0 && amplitude(&sound, MEDICAL_HZ) > PEAK / 2.0);
        bench.endpoint.cut(&"ops".into(), BurstId(1));
        bench.play([None, Some(2)], 1);
        assert_eq!(bench.card.flushes, 1, "nothing more of it sounds, so nothing is thrown away");
    }

    #[test]
    fn a_port_plays_from_when_it_may_to_when_it_is_stopped_and_nothing_at_any_other_time() {
        let mut bench = Bench::new(true);
        let silent = |sound: Vec<i16>| sound.iter().all(|sample| *sample == 0);
        assert!(silent(bench.play([Some(1), None], 20)), "not keyed");
        bench.endpoint.play_from(mono_now() + Duration::from_secs(3600));
        assert!(silent(bench.play([Some(1), None], 20)), "lead-in");
        bench.endpoint.play_from(mono_now());
        let heard = bench.play([Some(1), None], 50);
        assert!(is(decibel(&heard, OPS_HZ), 0.0));
        bench.endpoint.stop_playing(None);
        assert!(silent(bench.play([Some(1), None], 20)), "unkeyed");
        assert_eq!(bench.card.flushes, 1);
    }
}
