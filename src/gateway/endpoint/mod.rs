//! Desks and radio ports as talkers and listeners: one thread captures, one plays.
//!
//! Decides nothing about floors. A capture thread sends what it hears only while the core has
//! given it a burst; a playback thread plays what the gates let through, and says when it is done.
//!
//! **Invariant:** while its device works, an audio thread neither allocates nor locks nor logs. What goes to it and what
//! comes from it passes rings whose room is made once, and atomics.

mod capture;
mod gauge;
mod playback;

pub use capture::capture_thread;
pub use gauge::Gauge;
pub use playback::playback_thread;

use super::Event;
use super::bell::Bell;
use crate::base::{Beat, BurstId, ChannelId, Mono, SessionId, SourceId};
use crate::control::Input;
use crate::hardware::audio::{AudioError, Capture, Playback, real_time};
use crate::media::dsp::chain::Treatment;
use crate::media::sfu::LocalFrame;
use crate::media::voice::codec::{MAX_PACKET_BYTES, MAX_PAYLOAD_BYTES};
use rtrb::{Consumer, Producer, RingBuffer};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Orders that may wait for a playback thread. Packets have rings of their own, so that a flood of them keeps no end and
/// no cut of a burst out (F3).
const ORDERS: usize = 512;
/// Packets of one channel that may wait for a playback thread, and frames for the media thread: a look-back and more.
const PACKETS: usize = 96;
/// What an audio thread may have to tell before the loop hears it.
const TOLD: usize = 64;
/// A device that failed is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
/// The frame's length.
const FRAME_TIME: Duration = Duration::from_millis(20);
/// No stream is selected.
const NONE: usize = usize::MAX;

/// Opens a capture device; called again after a failure.
pub type OpenCapture = Box<dyn FnMut() -> Result<Box<dyn Capture>, AudioError> + Send>;
/// Opens a playback device; called again after a failure.
pub type OpenPlayback = Box<dyn FnMut() -> Result<Box<dyn Playback>, AudioError> + Send>;

/// A packet for a playback thread.
#[derive(Clone, Copy)]
struct Packet {
    burst: BurstId,
    sequence: u64,
    timestamp: u32,
    length: u16,
    payload: [u8; MAX_PAYLOAD_BYTES],
}

/// 20 ms of a capture thread for the media thread.
#[derive(Clone, Copy)]
pub struct VoiceFrame {
    /// Its number.
    pub sequence: u64,
    /// At 48 kHz.
    pub timestamp: u32,
    /// RFC 6464: −dBov.
    pub level: u8,
    length: u16,
    bytes: [u8; MAX_PACKET_BYTES],
}

impl VoiceFrame {
    /// Opus.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// What a playback thread is told; streams are numbers of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// A port may play from this time on.
    From(Mono),
    /// The burst has ended in good order; the rest of it is played.
    End(usize, BurstId),
    /// Say when everything has sounded.
    TellWhenDrained,
    /// Play nothing until told from when on; nothing of this burst ever.
    Stop(Option<BurstId>),
    /// Sound what ends a transmission, then say that it has sounded.
    Sign { courtesy: bool, ident: bool },
    /// Throw away what has not sounded (F3).
    Cut(usize, BurstId),
}

/// What an audio thread tells the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// A carrier that is judged by sound came or went.
    Carrier { active: bool, stamp: Mono },
    /// The last sample has sounded, or will at this time.
    Drained { at: Mono },
}

/// What the loop and the API share with the threads of one desk or port.
pub struct Endpoint {
    /// The inside session.
    pub session: SessionId,
    /// The microphone or receiver.
    pub source: SourceId,
    /// What its levels are called, capture and playback.
    pub level_names: (String, String),
    channels: Vec<ChannelId>,
    /// The gates that are open for it (F16: several at once).
    open_gates: Mutex<BTreeSet<(BurstId, ChannelId)>>,
    /// True while any is.
    talking: AtomicBool,
    /// The stream of the channel that it talked on last.
    selected: AtomicUsize,
    toning: AtomicBool,
    /// An emergency broadcast runs.
    emergency: AtomicBool,
    stopping: AtomicBool,
    capture: Gauge,
    playback: Gauge,
    orders: Mutex<Producer<Order>>,
    told: Mutex<[Consumer<Told>; 2]>,
    /// The capture thread's sign of life.
    pub capture_beat: Arc<Beat>,
    /// The playback thread's.
    pub playback_beat: Arc<Beat>,
}

/// What a capture thread owns of its endpoint.
pub struct CaptureEnd {
    frames: Producer<VoiceFrame>,
    told: Producer<Told>,
}

/// What a playback thread owns of its endpoint.
pub struct PlaybackEnd {
    orders: Consumer<Order>,
    packets: Vec<Consumer<Packet>>,
    told: Producer<Told>,
}

/// What the media thread owns of an endpoint.
pub struct MediaEnd {
    /// What its microphone or receiver says.
    pub frames: Consumer<VoiceFrame>,
    /// Where packets of each of its channels go.
    pub sinks: Vec<(ChannelId, Sink)>,
}

/// Takes packets of one channel for a playback thread.
pub struct Sink {
    endpoint: Arc<Endpoint>,
    packets: Producer<Packet>,
}

impl Sink {
    /// Hands a packet over; a full ring drops it.
    pub fn play(&mut self, frame: &LocalFrame<'_>) {
        self.push(frame.burst, frame.sequence, frame.timestamp, frame.payload);
    }

    fn push(&mut self, burst: BurstId, sequence: u64, timestamp: u32, payload: &[u8]) {
        let mut packet = Packet { burst, sequence, timestamp, length: 0, payload: [0; MAX_PAYLOAD_BYTES] };
        let fits = payload.len() <= MAX_PAYLOAD_BYTES;
        if fits {
            packet.length = payload.len() as u16;
            packet.payload[..payload.len()].copy_from_slice(payload);
        }
        if !fits || self.packets.push(packet).is_err() {
            self.endpoint.playback.lost_frame();
        }
    }
}

/// How a carrier is told from the sound, if it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sense {
    /// It has a line of its own, or there is none.
    Line,
    /// By its loudness, in dBFS.
    Vox(f32),
    /// By a tone, in Hz, that has been there for so long.
    Ctcss(f32, Duration),
}

/// How one endpoint listens and talks.
pub struct EndpointPlan {
    /// What it is called in messages.
    pub name: String,
    /// True for a port: it waits for its lead-in and says when it is drained.
    pub is_port: bool,
    /// Where its carrier comes from.
    pub sense: Sense,
    /// What is done to what it hears.
    pub receive: Treatment,
    /// What is done to what it says.
    pub transmit: Treatment,
    /// Audio kept from before the grant.
    pub look_back: Duration,
    /// How late what it hears is sent, so that the noise at the end of a carrier is not.
    pub tail: Duration,
    /// The longest wait before the first audio.
    pub lead_in: Duration,
    /// What the station calls itself, as sound.
    pub ident: Vec<i16>,
}

impl EndpointPlan {
    /// A desk or port that does nothing to its sound.
    #[must_use]
    pub fn plain(name: &str, is_port: bool) -> Self {
        EndpointPlan {
            name: name.to_owned(),
            is_port,
            sense: Sense::Line,
            receive: Treatment::default(),
            transmit: Treatment::default(),
            look_back: Duration::ZERO,
            tail: Duration::ZERO,
            lead_in: Duration::ZERO,
            ident: Vec::new(),
        }
    }
}

/// Whole frames in a duration.
fn frames_in(duration: Duration) -> usize {
    duration.as_millis().div_ceil(FRAME_TIME.as_millis()) as usize
}

impl Endpoint {
    /// The endpoint, and what each of the threads owns of it.
    #[must_use]
    pub fn new(
        session: SessionId,
        source: SourceId,
        level_names: (String, String),
        channels: &[ChannelId],
    ) -> (Arc<Self>, CaptureEnd, PlaybackEnd, MediaEnd) {
        let (orders, orders_receiver) = RingBuffer::new(ORDERS);
        let (frames, frames_receiver) = RingBuffer::new(PACKETS);
        let (capture_told, told_by_capture) = RingBuffer::new(TOLD);
        let (playback_told, told_by_playback) = RingBuffer::new(TOLD);
        let endpoint = Arc::new(Endpoint {
            session,
            source,
            level_names,
            channels: channels.to_vec(),
            open_gates: Mutex::default(),
            talking: AtomicBool::new(false),
            selected: AtomicUsize::new(NONE),
            toning: AtomicBool::new(false),
            emergency: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            capture: Gauge::default(),
            playback: Gauge::default(),
            orders: Mutex::new(orders),
            told: Mutex::new([told_by_capture, told_by_playback]),
            capture_beat: Beat::new(),
            playback_beat: Beat::new(),
        });
        let (mut packets, mut sinks) = (Vec::new(), Vec::new());
        for channel in channels {
            let (producer, consumer) = RingBuffer::new(PACKETS);
            packets.push(consumer);
            sinks.push((channel.clone(), Sink { endpoint: endpoint.clone(), packets: producer }));
        }
        (
            endpoint,
            CaptureEnd { frames, told: capture_told },
            PlaybackEnd { orders: orders_receiver, packets, told: playback_told },
            MediaEnd { frames: frames_receiver, sinks },
        )
    }

    fn stream(&self, channel: &ChannelId) -> Option<usize> {
        self.channels.iter().position(|c| c == channel)
    }

    /// Opens the microphone for a burst on a channel.
    pub fn talk(&self, channel: ChannelId, burst: BurstId) {
        self.selected.store(self.stream(&channel).unwrap_or(NONE), Ordering::Release);
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

    /// No audio before `at`.
    pub fn play_from(&self, at: Mono) {
        self.order(Order::From(at));
    }

    /// The burst has ended in good order.
    pub fn end(&self, channel: &ChannelId, burst: BurstId) {
        if let Some(stream) = self.stream(channel) {
            self.order(Order::End(stream, burst));
        }
    }

    /// The burst was cut: what is buffered of it is thrown away.
    pub fn cut(&self, channel: &ChannelId, burst: BurstId) {
        if let Some(stream) = self.stream(channel) {
            self.order(Order::Cut(stream, burst));
        }
    }

    /// Has [`Input::Drained`] said once everything has sounded.
    pub fn tell_when_drained(&self) {
        self.order(Order::TellWhenDrained);
    }

    /// Nothing more is played until [`Endpoint::play_from`], and nothing of `burst` ever.
    pub fn stop_playing(&self, burst: Option<BurstId>) {
        self.order(Order::Stop(burst));
    }

    /// Sounds what ends a transmission, then has [`Input::Drained`] said.
    pub fn sign(&self, courtesy: bool, ident: bool) {
        self.order(Order::Sign { courtesy, ident });
    }

    /// Sounds the arming tone over everything else, or stops it.
    pub fn sound_tone(&self, sounds: bool) {
        self.toning.store(sounds, Ordering::Release);
    }

    /// Plays what comes louder while an emergency runs, or as it was.
    pub fn emergency(&self, runs: bool) {
        self.emergency.store(runs, Ordering::Release);
    }

    fn order(&self, order: Order) {
        if self.orders.lock().expect("no holder of this lock panics").push(order).is_err() {
            tracing::error!(session = %self.session, "the playback thread does not take its orders");
        }
    }

    /// What its threads have to say, in order for each of them.
    pub fn take_told(&self) -> Vec<Input> {
        let session = self.session;
        let mut rings = self.told.lock().expect("no holder of this lock panics");
        let told = rings.iter_mut().flat_map(|ring| std::iter::from_fn(|| ring.pop().ok()));
        told.map(|told| match told {
            Told::Carrier { active, stamp } => Input::Voice { session, active, stamp },
            Told::Drained { at } => Input::Drained { session, at },
        })
        .collect()
    }

    /// Ends both threads after their next frame.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Its levels by name: capture and playback.
    #[must_use]
    pub fn gauges(&self) -> [(&str, &Gauge); 2] {
        [(&self.level_names.0, &self.capture), (&self.level_names.1, &self.playback)]
    }
}

fn report(events: &tokio::sync::mpsc::Sender<Event>, event: Event) {
    if events.blocking_send(event).is_err() {
        tracing::debug!("the gateway is stopping");
    }
}

/// True if nobody has to be told of the newer failure: the device is as absent as before.
fn is_known(told: &Option<AudioError>, now: &Option<AudioError>) -> bool {
    match (told, now) {
        (Some(before), Some(now)) => before == now || (before.is_absence() && now.is_absence()),
        (told, now) => told == now,
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
    if let Err(why) = real_time() {
        tracing::warn!("{part}: {why}");
    }
    let mut told: Option<Option<AudioError>> = None;
    let mut tell = |why: Option<AudioError>| {
        if !told.as_ref().is_some_and(|told| is_known(told, &why)) {
            report(events, Event::Input(works(why.is_none())));
            report(events, Event::Part { part: part.to_owned(), why: why.as_ref().map(ToString::to_string) });
            told = Some(why);
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
            tell(Some(e));
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

/// Rings after something was told.
fn tell(ring: &mut Producer<Told>, told: Told, bell: &Bell) {
    // Nobody reads any more if it is full: the loop has ended or hangs.
    if ring.push(told).is_ok() {
        bell.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> (Arc<Endpoint>, CaptureEnd, PlaybackEnd, MediaEnd) {
        Endpoint::new(SessionId(1), SourceId(1), ("in".into(), "out".into()), &["ops".into(), "medical".into()])
    }

    #[test]
    fn a_flood_of_packets_does_not_keep_the_cut_of_a_burst_out() {
        let (endpoint, _, mut playback, mut media) = endpoint();
        for sequence in 0..2 * PACKETS as u64 {
            media.sinks[0].1.push(BurstId(1), sequence, 0, &[]);
        }
        media.sinks[1].1.push(BurstId(2), 0, 0, &[0; MAX_PAYLOAD_BYTES + 1]);
        endpoint.cut(&"medical".into(), BurstId(1));
        endpoint.cut(&"nowhere".into(), BurstId(1));
        endpoint.tell_when_drained();
        assert_eq!(playback.packets[0].slots(), PACKETS);
        let orders: Vec<_> = std::iter::from_fn(|| playback.orders.pop().ok()).collect();
        assert_eq!(orders, [Order::Cut(1, BurstId(1)), Order::TellWhenDrained]);
        assert_eq!(
            endpoint.gauges()[1].1.view()["lostFrames"],
            PACKETS + 1,
            "what had no room, and what was too large"
        );
    }

    #[test]
    fn what_audio_threads_tell_reaches_the_loop_as_inputs() {
        let (endpoint, mut capture, mut playback, _) = endpoint();
        let (bell, _listener) = Bell::new().unwrap();
        let at = Mono::from_millis(5);
        tell(&mut playback.told, Told::Drained { at }, &bell);
        tell(&mut capture.told, Told::Carrier { active: true, stamp: at }, &bell);
        let told = endpoint.take_told();
        assert!(matches!(told[..], [Input::Voice { active: true, .. }, Input::Drained { .. }]), "{told:?}");
        assert!(endpoint.take_told().is_empty());
    }

    #[test]
    fn the_sources_of_audio_threads_name_no_lock_and_no_log() {
        let rooms = ["src/media/voice", "src/media/dsp"].map(|dir| std::fs::read_dir(dir).unwrap());
        let files = rooms.into_iter().flatten().map(|entry| entry.unwrap().path());
        let own = ["capture", "playback", "gauge"].map(|name| format!("src/gateway/endpoint/{name}.rs").into());
        let mut read = 0;
        for file in files.chain(own) {
            let text = std::fs::read_to_string(&file).unwrap();
            for word in ["tracing", "Mutex", ".lock()", "println"] {
                assert!(!text.contains(word), "{} has {word}", file.display());
            }
            read += 1;
        }
        assert!(read > 10, "the sources are where this test looks for them");
    }
}
