//! Desks and radio ports as talkers and listeners: one thread captures, one plays.
//!
//! Decides nothing about floors. A capture thread sends what it hears only while the core has
//! given it a burst; a playback thread plays what the gates let through, and says when it is done.

use super::Event;
use super::media::{Command, MediaHandle};
use crate::base::clock::mono_now;
use crate::base::{Beat, BurstId, ChannelId, Mono, SessionId, SourceId};
use crate::control::Input;
use crate::hardware::audio::sim::Sound;
use crate::hardware::audio::{AudioError, Capture, FRAME, Playback};
use crate::media::voice::Frame;
use crate::media::voice::codec::Encoder;
use crate::media::voice::level::{FLOOR_DBFS, Level};
use crate::media::voice::mix::{Gain, Mixer};
use crate::media::voice::playout::{Origin, Playout, Sizes};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Packets and orders that may wait for a playback thread.
const QUEUE: usize = 512;
/// How many of them packets may be: a flood of them must not keep the end or the cut of a burst out (F3).
const PACKETS: usize = 448;
/// A device that failed is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
/// The frame's length.
const FRAME_TIME: Duration = Duration::from_millis(20);
/// The largest Opus packet we make, in bytes.
const MAX_PACKET: usize = 400;
/// Frames that a playback device may still hold, and that are kept to be played again without a burst that was cut.
const KEPT: usize = 3;
/// How much the loudspeaker is turned down while its own microphone is open (feedback).
const DIM_DB: f32 = -20.0;
/// What a loudspeaker sounds while the emergency button is held (E3).
const ARMING_TONE: Sound = Sound::Tone { hz: 880.0, level_dbfs: -20.0 };
/// Opus effort; a Raspberry Pi 3 encodes a frame in well under a millisecond with it.
const COMPLEXITY: u8 = 5;

/// Opens a capture device; called again after a failure.
pub type OpenCapture = Box<dyn FnMut() -> Result<Box<dyn Capture>, AudioError> + Send>;
/// Opens a playback device; called again after a failure.
pub type OpenPlayback = Box<dyn FnMut() -> Result<Box<dyn Playback>, AudioError> + Send>;

/// A packet for a playback thread.
pub struct Packet {
    /// From which channel.
    pub channel: ChannelId,
    /// Of which burst.
    pub burst: BurstId,
    /// Its number, without wrap-around.
    pub sequence: u64,
    /// At 48 kHz.
    pub timestamp: u32,
    /// Opus.
    pub payload: Vec<u8>,
}

/// What a playback thread is told.
enum Order {
    Packet(Packet),
    /// A port may play from this time on.
    From(Mono),
    /// The burst has ended in good order; the rest of it is played.
    End(ChannelId, BurstId),
    /// Say when everything has sounded.
    TellWhenDrained,
    /// Throw away what has not sounded (F3).
    Cut(ChannelId, BurstId),
}

/// What the loop and the API share with the threads of one desk or port.
pub struct Endpoint {
    /// The inside session.
    pub session: SessionId,
    /// The microphone or receiver.
    pub source: SourceId,
    /// What its levels are called, capture and playback.
    pub level_names: (String, String),
    /// The gates that are open for it (F16: several at once).
    open_gates: Mutex<BTreeSet<(BurstId, ChannelId)>>,
    /// True while any is.
    talking: AtomicBool,
    toning: AtomicBool,
    capture_level: AtomicI32,
    playback_level: AtomicI32,
    orders: SyncSender<Order>,
    packets_waiting: AtomicUsize,
    overflowing: AtomicBool,
    stopping: AtomicBool,
    /// The capture thread's sign of life.
    pub capture_beat: Arc<Beat>,
    /// The playback thread's.
    pub playback_beat: Arc<Beat>,
}

/// How one endpoint listens and talks.
pub struct EndpointPlan {
    /// What it is called in messages.
    pub name: String,
    /// True for a port: it waits for its lead-in and says when it is drained.
    pub is_port: bool,
    /// Where its voice comes from, if the carrier is judged by voice.
    pub vox_threshold_dbfs: Option<f32>,
    /// Audio kept from before the grant.
    pub look_back: Duration,
    /// The longest wait before the first audio.
    pub lead_in: Duration,
}

impl Endpoint {
    /// The endpoint and the receiving end of its playback thread.
    #[must_use]
    pub fn new(session: SessionId, source: SourceId, level_names: (String, String)) -> (Arc<Self>, PlaybackOrders) {
        let (orders, receiver) = sync_channel(QUEUE);
        let floor = level_to_int(FLOOR_DBFS);
        let endpoint = Endpoint {
            session,
            source,
            level_names,
            open_gates: Mutex::default(),
            talking: AtomicBool::new(false),
            toning: AtomicBool::new(false),
            capture_level: AtomicI32::new(floor),
            playback_level: AtomicI32::new(floor),
            orders,
            packets_waiting: AtomicUsize::new(0),
            overflowing: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            capture_beat: Beat::new(),
            playback_beat: Beat::new(),
        };
        (Arc::new(endpoint), PlaybackOrders(receiver))
    }

    /// Opens the microphone for a burst on a channel.
    pub fn talk(&self, channel: ChannelId, burst: BurstId) {
        self.gates_changed(|open| _ = open.insert((burst, channel)));
    }

    /// Shuts it for that burst; it stays open while another channel has it open.
    pub fn stop_talking(&self, channel: &ChannelId, burst: BurstId) {
        self.gates_changed(|open| _ = open.remove(&(burst, channel.clone())));
    }

    fn gates_changed(&self, change: impl FnOnce(&mut BTreeSet<(BurstId, ChannelId)>)) {
        let mut open = self.open_gates.lock().expect("no holder of this lock panics");
        change(&mut open);
        self.talking.store(!open.is_empty(), Ordering::Release);
    }

    /// Hands a packet to the playback thread; a full queue drops it.
    pub fn play(&self, packet: Packet) {
        let full = self.packets_waiting.fetch_add(1, Ordering::Relaxed) >= PACKETS;
        if full {
            self.packets_waiting.fetch_sub(1, Ordering::Relaxed);
        } else {
            self.order(Order::Packet(packet));
        }
        // Told once, not for every packet: the log must not become the trouble.
        if self.overflowing.swap(full, Ordering::Relaxed) != full && full {
            tracing::warn!(session = %self.session, "the playback queue is full; audio is dropped");
        }
    }

    /// No audio before `at`.
    pub fn play_from(&self, at: Mono) {
        self.order(Order::From(at));
    }

    /// The burst has ended in good order.
    pub fn end(&self, channel: &ChannelId, burst: BurstId) {
        self.order(Order::End(channel.clone(), burst));
    }

    /// The burst was cut: what is buffered of it is thrown away.
    pub fn cut(&self, channel: &ChannelId, burst: BurstId) {
        self.order(Order::Cut(channel.clone(), burst));
    }

    /// Has [`Input::Drained`] said once everything has sounded.
    pub fn tell_when_drained(&self) {
        self.order(Order::TellWhenDrained);
    }

    /// Sounds the arming tone over everything else, or stops it.
    pub fn sound_tone(&self, sounds: bool) {
        self.toning.store(sounds, Ordering::Release);
    }

    fn order(&self, order: Order) {
        // A thread that has ended has nothing left to be told.
        if let Err(TrySendError::Full(_)) = self.orders.try_send(order) {
            tracing::error!(session = %self.session, "the playback thread does not take its orders");
        }
    }

    /// Ends both threads after their next frame.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// The names and values of its levels, in dBFS (RMS of the newest frame).
    #[must_use]
    pub fn levels(&self) -> [(String, f32); 2] {
        let read = |level: &AtomicI32| level.load(Ordering::Relaxed) as f32 / 10.0;
        [
            (self.level_names.0.clone(), read(&self.capture_level)),
            (self.level_names.1.clone(), read(&self.playback_level)),
        ]
    }
}

/// The receiving end of a playback thread.
pub struct PlaybackOrders(Receiver<Order>);

fn level_to_int(dbfs: f32) -> i32 {
    (dbfs * 10.0) as i32
}

fn report(events: &tokio::sync::mpsc::Sender<Event>, event: Event) {
    if events.blocking_send(event).is_err() {
        tracing::debug!("the gateway is stopping");
    }
}

/// Opens a device again and again until told to stop; tells the loop when that changes anything.
fn with_device<D>(
    endpoint: &Endpoint,
    beat: &Beat,
    part: &str,
    events: &tokio::sync::mpsc::Sender<Event>,
    works: impl Fn(bool) -> Input,
    mut open: impl FnMut() -> Result<D, AudioError>,
    mut run: impl FnMut(D) -> Option<AudioError>,
) {
    let mut told: Option<Option<String>> = None;
    let mut tell = |why: Option<String>| {
        if told.as_ref() != Some(&why) {
            told = Some(why.clone());
            report(events, Event::Input(works(why.is_none())));
            report(events, Event::Part { part: part.to_owned(), why });
        }
    };
    while !endpoint.stopping.load(Ordering::Acquire) {
        beat.answer();
        let failure = match open() {
            Ok(device) => {
                tell(None);
                run(device)
            }
            Err(e) => Some(e),
        };
        if let Some(e) = failure {
            tell(Some(e.to_string()));
            std::thread::park_timeout(RETRY);
        }
    }
}

/// What a capture thread is called as a part of the gateway.
#[must_use]
pub fn capture_part(plan: &EndpointPlan) -> String {
    format!("{} capture", plan.name)
}

/// What a playback thread is called as a part of the gateway.
#[must_use]
pub fn playback_part(plan: &EndpointPlan) -> String {
    format!("{} playback", plan.name)
}

/// The capture thread: hears, measures, and talks while it has a burst.
pub fn capture_thread(
    endpoint: &Endpoint,
    plan: &EndpointPlan,
    media: &MediaHandle,
    events: &tokio::sync::mpsc::Sender<Event>,
    mut open: OpenCapture,
) {
    let part = capture_part(plan);
    let session = endpoint.session;
    let mut encoder = match Encoder::new(COMPLEXITY) {
        Ok(encoder) => encoder,
        Err(e) => return report(events, Event::Part { part, why: Some(e.to_string()) }),
    };
    let look_back = (plan.look_back.as_millis() / FRAME_TIME.as_millis()) as usize;
    let mut kept: VecDeque<[i16; FRAME]> = VecDeque::with_capacity(look_back + 1);
    let (mut was_talking, mut voice) = (false, false);
    let (mut sequence, mut timestamp) = (0u64, 0u32);
    let mut packet = [0; MAX_PACKET];
    let works = |works| Input::Capture { session, works };
    with_device(endpoint, &endpoint.capture_beat, &part, events, works, &mut open, |mut device| {
        let mut frame = [0i16; FRAME];
        loop {
            endpoint.capture_beat.answer();
            if endpoint.stopping.load(Ordering::Acquire) {
                return None;
            }
            if let Err(e) = device.read(&mut frame) {
                return Some(e);
            }
            let stamp = mono_now() - FRAME_TIME;
            let level = Level::of(&frame).rms_dbfs;
            endpoint.capture_level.store(level_to_int(level), Ordering::Relaxed);
            if let Some(threshold) = plan.vox_threshold_dbfs
                && voice != (level >= threshold)
            {
                voice = !voice;
                report(events, Event::Input(Input::Voice { session, active: voice, stamp }));
            }
            kept.push_back(frame);
            let talking = endpoint.talking.load(Ordering::Acquire);
            if talking && !was_talking {
                encoder.reset();
            }
            was_talking = talking;
            if !talking {
                while kept.len() > look_back {
                    kept.pop_front();
                }
                continue;
            }
            for frame in kept.drain(..) {
                match encoder.encode(&frame, &mut packet) {
                    Ok(length) => {
                        let level = (-Level::of(&frame).rms_dbfs).clamp(0.0, 127.0) as u8;
                        let payload = packet[..length].to_vec();
                        media.send(Command::Frame { source: endpoint.source, sequence, timestamp, level, payload });
                    }
                    Err(e) => tracing::warn!("{part}: a frame was not encoded: {e}"),
                }
                sequence += 1;
                timestamp = timestamp.wrapping_add(FRAME as u32);
            }
        }
    });
}

/// A desk's loudspeaker is turned down while its microphone is open.
fn gain(plan: &EndpointPlan, endpoint: &Endpoint) -> Gain {
    let dim = !plan.is_port && endpoint.talking.load(Ordering::Acquire);
    Gain::from_db(if dim { DIM_DB } else { 0.0 })
}

fn mixed(mixer: &mut Mixer, frames: &[(ChannelId, Frame)], gain: Gain) -> Frame {
    for (_, frame) in frames {
        mixer.add(frame, gain);
    }
    mixer.take()
}

/// The playback thread: plays what its channels carry, one frame every 20 ms.
pub fn playback_thread(
    endpoint: &Endpoint,
    plan: &EndpointPlan,
    orders: &PlaybackOrders,
    events: &tokio::sync::mpsc::Sender<Event>,
    mut open: OpenPlayback,
) {
    let part = playback_part(plan);
    let session = endpoint.session;
    let waiting_frames = (plan.lead_in.as_millis() / FRAME_TIME.as_millis()) as usize;
    let sizes = Sizes { max_frames: Sizes::default().max_frames + waiting_frames, ..Sizes::default() };
    let mut streams: BTreeMap<ChannelId, Playout> = BTreeMap::new();
    let mut mixer = Mixer::new();
    // From when on it plays; a port that is not keyed does not, lest sound go to a transmitter that is receiving.
    let mut on_air = (!plan.is_port).then(Mono::default);
    let mut draining = false;
    let mut played = 0u64;
    let mut sounding: VecDeque<Vec<(ChannelId, Frame)>> = VecDeque::with_capacity(KEPT + 1);
    let works = |works| Input::Playback { session, works };
    with_device(endpoint, &endpoint.playback_beat, &part, events, works, &mut open, |mut device| {
        loop {
            endpoint.playback_beat.answer();
            if endpoint.stopping.load(Ordering::Acquire) {
                return None;
            }
            while let Ok(order) = orders.0.try_recv() {
                match order {
                    Order::Packet(p) => {
                        endpoint.packets_waiting.fetch_sub(1, Ordering::Relaxed);
                        if !streams.contains_key(&p.channel) {
                            match Playout::new(sizes) {
                                Ok(stream) => drop(streams.insert(p.channel.clone(), stream)),
                                Err(e) => tracing::error!("{part}: {e}"),
                            }
                        }
                        if let Some(stream) = streams.get_mut(&p.channel) {
                            stream.push(p.burst, p.sequence, p.timestamp, &p.payload);
                        }
                    }
                    Order::From(at) => (on_air, draining) = (Some(at), false),
                    Order::TellWhenDrained => draining = true,
                    Order::End(channel, burst) => {
                        if let Some(stream) = streams.get_mut(&channel) {
                            match on_air {
                                Some(_) => stream.end(burst),
                                None => stream.cut(burst), // it was never on air, and must not follow later
                            }
                        }
                    }
                    Order::Cut(channel, burst) => {
                        if let Some(stream) = streams.get_mut(&channel) {
                            stream.cut(burst);
                        }
                        if sounding.iter().flatten().any(|(c, _)| *c == channel) {
                            let unsounded = device.buffered().div_duration_f32(FRAME_TIME).ceil() as usize;
                            device.flush();
                            sounding.drain(..sounding.len().saturating_sub(unsounded));
                            for frames in &mut sounding {
                                frames.retain(|(c, _)| *c != channel);
                                if let Err(e) = device.write(&mixed(&mut mixer, frames, gain(plan, endpoint))) {
                                    return Some(e);
                                }
                            }
                        }
                    }
                }
            }
            let mut frames = Vec::new();
            if on_air.is_some_and(|from| mono_now() >= from) {
                for (channel, stream) in &mut streams {
                    let pulled = stream.pull();
                    if pulled.origin != Origin::Silence {
                        frames.push((channel.clone(), pulled.frame));
                    }
                }
            }
            let mut frame = mixed(&mut mixer, &frames, gain(plan, endpoint));
            if endpoint.toning.load(Ordering::Acquire) {
                mixer.add(&frame, Gain::UNITY);
                mixer.add(&ARMING_TONE.frame(played), Gain::UNITY);
                frame = mixer.take();
            }
            played += FRAME as u64;
            sounding.push_back(frames);
            if sounding.len() > KEPT {
                sounding.pop_front();
            }
            endpoint.playback_level.store(level_to_int(Level::of(&frame).rms_dbfs), Ordering::Relaxed);
            if let Err(e) = device.write(&frame) {
                return Some(e);
            }
            if draining && streams.values().all(Playout::is_drained) {
                draining = false;
                if plan.is_port {
                    on_air = None;
                }
                let at = mono_now() + device.buffered();
                report(events, Event::Input(Input::Drained { session, at }));
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_packets_does_not_keep_the_cut_of_a_burst_out() {
        let (endpoint, orders) = Endpoint::new(SessionId(1), SourceId(1), ("in".into(), "out".into()));
        let (channel, burst) = (ChannelId::from("ops"), BurstId(1));
        for sequence in 0..2 * QUEUE as u64 {
            let channel = channel.clone();
            endpoint.play(Packet { channel, burst, sequence, timestamp: 0, payload: Vec::new() });
        }
        endpoint.cut(&channel, burst);
        endpoint.tell_when_drained();
        let (packets, others): (Vec<_>, Vec<_>) = orders.0.try_iter().partition(|o| matches!(o, Order::Packet(_)));
        assert_eq!(packets.len(), PACKETS);
        assert!(matches!(others[..], [Order::Cut(..), Order::TellWhenDrained]));
    }
}
