//! The jitter buffer of one incoming stream: packets come as the network likes, frames go every 20 ms.
//!
//! A burst starts once a few frames are held (prefill), or once as much time has passed. A missing
//! packet is made up from the one after it (FEC) or from what was heard (PLC). When nothing is held,
//! the buffer conceals for a moment, then fills anew and holds a frame more from then on, until it has been calm for a
//! while. A buffer that is fuller than it needs to be plays a little faster, and one that is about to run dry a little
//! slower, at the same pitch: that works off the backlog of look-back and lead-in, and keeps a card whose clock differs
//! from the network's in bounds. Above its bound it drops at once.
//!
//! **Invariant:** sequence numbers within a burst play in order, each at most once; nothing of a
//! burst plays after it was cut, drained, or followed by the next one.

use super::codec::Decoder;
use super::store::{Packet, Store};
use super::stretch::{Stretch, Tempo};
use super::{FRAME, Frame, SILENCE, VoiceError};
use crate::base::BurstId;

/// How many frames in a row are concealed when nothing arrives, before the stream falls silent.
const CONCEALED_IN_A_ROW: u32 = 3;
/// How long it looks at how much is held before it plays faster, in frames, and before it plays slower: 0.2 s and 1 s.
const FASTER_PATIENCE: u32 = 10;
const SLOWER_PATIENCE: u32 = 50;
/// A backlog is worked off in this many frames: 4 s.
const WORKED_OFF_IN: f32 = 200.0;
/// The least and most that it plays faster by.
const FASTER: (f32, f32) = (0.03, 0.5);
/// How many frames more than configured the prefill may grow to, and how long it must be calm to shrink by one: 10 s.
const PREFILL_GROWTH: usize = 4;
const CALM_FRAMES: u32 = 500;
/// How far apart the timestamps of two frames in a row are.
const TIMESTAMP_STEP: u32 = super::FRAME as u32;

/// The sizes of a jitter buffer, in frames of 20 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// How many frames are held before a burst starts.
    pub prefill_frames: usize,
    /// How many frames are held at most.
    pub max_frames: usize,
}

impl Default for Sizes {
    fn default() -> Self {
        Sizes { prefill_frames: 2, max_frames: 10 }
    }
}

/// What happened to the packets of a stream. `lost`, `late` and `dropped` count packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Never came in time, or could not be decoded.
    pub lost: u64,
    /// Frames that were made up from the packet after them (FEC).
    pub mended_frames: u64,
    /// Frames that were made up from what was heard before (PLC).
    pub concealed_frames: u64,
    /// Came after their time, twice, or after their burst.
    pub late: u64,
    /// Thrown away because too much was held.
    pub dropped: u64,
    /// Samples that were left out to catch up.
    pub shortened: u64,
    /// Samples that were repeated to wait.
    pub stretched: u64,
}

/// Where a frame comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Its own packet.
    Packet,
    /// Its packet is lost; made up from the next one.
    Fec,
    /// Its packet is lost; made up from what was heard before.
    Concealed,
    /// There is nothing to play.
    Silence,
}

/// One frame to play.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The sound; zeros for [`Origin::Silence`].
    pub frame: Frame,
    /// Where it comes from.
    pub origin: Origin,
    /// The burst that is playing or about to.
    pub burst: Option<BurstId>,
}

/// A place in a burst.
#[derive(Clone, Copy)]
struct Place {
    sequence: u64,
    timestamp: u32,
}

impl Place {
    /// True if numbers and times go on alike.
    fn is_followed_by(self, later: Place) -> bool {
        later.sequence >= self.sequence && self.plus(later.sequence - self.sequence).timestamp == later.timestamp
    }

    fn plus(self, frames: u64) -> Self {
        let ticks = (frames as u32).wrapping_mul(TIMESTAMP_STEP);
        Place { sequence: self.sequence + frames, timestamp: self.timestamp.wrapping_add(ticks) }
    }
}

/// The burst that is playing.
struct Playing {
    burst: BurstId,
    /// What to play next, once the first frame has played.
    next: Option<Place>,
    /// While filling, how many frames that has taken so far.
    filling: Option<usize>,
    /// How many frames in a row had nothing to play; their packets may still come.
    starved_frames: u32,
    /// It has run dry since a packet played.
    ran_dry: bool,
}

/// The least of something over some frames.
#[derive(Clone, Copy)]
struct Least {
    samples: usize,
    frames: u32,
}

impl Default for Least {
    fn default() -> Self {
        Least { samples: usize::MAX, frames: 0 }
    }
}

impl Least {
    /// The least of so many frames, each time that they are over.
    fn of(&mut self, samples: usize, frames: u32) -> Option<usize> {
        self.samples = self.samples.min(samples);
        self.frames += 1;
        (self.frames >= frames).then(|| std::mem::take(self).samples)
    }
}

/// The jitter buffer.
pub struct Playout {
    sizes: Sizes,
    decoder: Decoder,
    held: Store,
    /// Decoded, but not played yet; more than nothing only after time was stretched.
    stretch: Stretch,
    /// Of which burst that is.
    stretched: Option<BurstId>,
    /// How many frames are held before a burst starts, as the network is.
    prefill_frames: usize,
    calm_frames: u32,
    /// How much faster it plays.
    faster: f32,
    /// It is about to run dry: a period is repeated as soon as that is not heard.
    slower: bool,
    playing: Option<Playing>,
    /// Bursts up to this one end once what is held has played.
    ended: BurstId,
    /// Nothing of bursts up to this one plays any more.
    closed: BurstId,
    /// The least that was held of late, and over longer.
    least_held: Least,
    least_held_long: Least,
    counters: Counters,
}

impl Playout {
    /// An empty buffer. Room for one frame more than the prefill is the least it has.
    ///
    /// # Errors
    /// If the decoder cannot be set up.
    pub fn new(sizes: Sizes) -> Result<Self, VoiceError> {
        let max_frames = sizes.max_frames.max(sizes.prefill_frames + 1);
        Ok(Playout {
            sizes: Sizes { max_frames, ..sizes },
            decoder: Decoder::new()?,
            held: Store::new(max_frames + 1),
            stretch: Stretch::new(),
            stretched: None,
            prefill_frames: sizes.prefill_frames,
            calm_frames: 0,
            faster: 0.0,
            slower: false,
            playing: None,
            ended: BurstId(0),
            closed: BurstId(0),
            least_held: Least::default(),
            least_held_long: Least::default(),
            counters: Counters::default(),
        })
    }

    /// Takes a packet in. `sequence` is the RTP number without its wrap-around.
    pub fn push(&mut self, burst: BurstId, sequence: u64, timestamp: u32, payload: &[u8]) {
        let passed = self.playing.as_ref().is_some_and(|playing| {
            burst < playing.burst
                || (burst == playing.burst && playing.next.is_some_and(|next| sequence < next.sequence))
        });
        if burst <= self.closed || passed || !self.held.insert(burst, sequence, timestamp, payload) {
            self.counters.late += 1;
            return;
        }
        while self.held.len() > self.sizes.max_frames {
            self.drop_oldest();
        }
    }

    /// Gives the next 20 ms.
    pub fn pull(&mut self) -> Pulled {
        let tempo = self.tempo();
        if tempo == Tempo::Even && self.stretch.is_empty() {
            let pulled = self.next_frame();
            self.stretched = pulled.burst;
            return pulled;
        }
        let mut newest = (Origin::Packet, self.stretched);
        // A frame for now, and those that are there for a look ahead.
        while self.stretch.len() < FRAME || (self.stretch.len() < Stretch::needs(tempo) && self.held.len() > 0) {
            let next = self.next_frame();
            newest = (next.origin, next.burst.or(self.stretched));
            if next.origin == Origin::Silence {
                if self.stretch.is_empty() {
                    return next;
                }
                newest.0 = Origin::Packet;
                break;
            }
            self.stretched = next.burst;
            self.stretch.push(&next.frame);
        }
        let (frame, longer) = self.stretch.pull(tempo);
        if longer > 0 {
            self.slower = false;
            self.counters.stretched += longer.unsigned_abs() as u64;
        } else {
            self.counters.shortened += longer.unsigned_abs() as u64;
        }
        Pulled { frame, origin: newest.0, burst: newest.1 }
    }

    /// Whether to play faster or slower now, by how much has been held of late.
    fn tempo(&mut self) -> Tempo {
        let Some(playing) = self.playing.as_ref().filter(|p| p.next.is_some() && p.filling.is_none()) else {
            (self.faster, self.slower) = (0.0, false);
            self.forget_least_held();
            return Tempo::Even;
        };
        let (burst, held) = (playing.burst, self.held_of(playing.burst) * FRAME + self.stretch.len());
        // One frame of slack: pushes and pulls may fall on either side of each other.
        let wanted = (self.prefill_frames + 1) * FRAME;
        if let Some(least) = self.least_held.of(held, FASTER_PATIENCE) {
            let excess = least.saturating_sub(wanted) as f32 / FRAME as f32;
            self.faster = match excess > 0.0 {
                // Once begun, at the pace it began with.
                true => self.faster.max((excess / WORKED_OFF_IN).clamp(FASTER.0, FASTER.1)),
                false => 0.0,
            };
        }
        let ends = burst <= self.ended; // nothing more comes, so that little is held is no sign
        if let Some(least) = self.least_held_long.of(held, SLOWER_PATIENCE) {
            self.slower = least < 2 * FRAME && self.sizes.prefill_frames > 1;
        }
        match () {
            () if self.faster > 0.0 => Tempo::Faster(self.faster),
            () if self.slower && !ends => Tempo::OnePeriodMore,
            () => Tempo::Even,
        }
    }

    fn next_frame(&mut self) -> Pulled {
        self.choose_burst();
        let Some(mut playing) = self.playing.take() else {
            return Pulled { frame: SILENCE, origin: Origin::Silence, burst: None };
        };
        let (frame, origin) = self.play(&mut playing);
        let burst = Some(playing.burst);
        self.playing = Some(playing);
        self.settle();
        self.calm_frames += 1;
        if self.calm_frames >= CALM_FRAMES {
            self.calm_frames = 0;
            self.prefill_frames = (self.prefill_frames - 1).max(self.sizes.prefill_frames);
        }
        Pulled { frame, origin, burst }
    }

    /// Drops everything of this burst and of those before it, at once.
    pub fn cut(&mut self, burst: BurstId) {
        self.close(burst);
        self.held.cut(burst);
        if self.stretched.is_some_and(|stretched| stretched <= burst) {
            self.stretch.clear();
        }
    }

    /// Says that no more of this burst will be sent: what is held plays, and then it is drained.
    pub fn end(&mut self, burst: BurstId) {
        self.ended = self.ended.max(burst);
        if self.held.first_burst().is_none_or(|held| held > burst) {
            self.close(burst);
        }
    }

    /// True if everything has played and nothing more is to come of any burst begun.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.playing.is_none() && self.held.len() == 0 && self.stretch.is_empty()
    }

    /// How many packets are held.
    #[must_use]
    pub fn held_frames(&self) -> usize {
        self.held.len()
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Lets nothing more of these bursts in, and stops playing them.
    fn close(&mut self, burst: BurstId) {
        self.closed = self.closed.max(burst);
        if self.playing.as_ref().is_some_and(|playing| playing.burst <= burst) {
            self.playing = None;
        }
    }

    /// Closes the burst that plays, once it has ended and all of it has played.
    fn settle(&mut self) {
        if let Some(playing) = &self.playing {
            let burst = playing.burst;
            let followed = self.held.last_burst().is_some_and(|last| last > burst);
            if self.held_of(burst) == 0 && (followed || burst <= self.ended) {
                self.close(burst);
            }
        }
    }

    /// Turns to the next burst if none plays.
    fn choose_burst(&mut self) {
        self.settle();
        if self.playing.is_none()
            && let Some(burst) = self.held.first_burst()
        {
            self.decoder.reset();
            self.forget_least_held();
            self.playing = Some(Playing { burst, next: None, filling: Some(0), starved_frames: 0, ran_dry: false });
        }
    }

    fn play(&mut self, playing: &mut Playing) -> (Frame, Origin) {
        let Some(first) = self.first_of(playing.burst) else {
            return self.starve(playing);
        };
        if std::mem::take(&mut playing.ran_dry) && playing.next.is_some_and(|next| next.is_followed_by(first)) {
            // It was late and no pause of the sender: the network is rougher than the prefill.
            self.prefill_frames = (self.prefill_frames + 1).min(self.sizes.prefill_frames + PREFILL_GROWTH);
            self.calm_frames = 0;
        }
        if let Some(waited) = playing.filling {
            let complete = playing.burst <= self.ended || self.held.len() > self.held_of(playing.burst);
            let filled = self.held_of(playing.burst) >= self.prefill_frames;
            if !filled && !complete && waited < self.prefill_frames {
                playing.filling = Some(waited + 1);
                playing.starved_frames = playing.starved_frames.saturating_add(1);
                return (SILENCE, Origin::Silence);
            }
            playing.filling = None;
        }
        let due = self.catch_up(playing, first);
        playing.starved_frames = 0;
        match self.held.take(playing.burst, due.sequence) {
            Some(packet) => {
                playing.next = Some(Place { timestamp: packet.timestamp, ..due }.plus(1));
                self.decode(&packet)
            }
            None => {
                playing.next = Some(due.plus(1));
                self.mend(playing.burst, due)
            }
        }
    }

    /// What to play now: what is due, or something later if what lies between has been concealed
    /// already while starved, or is too much to conceal.
    fn catch_up(&mut self, playing: &Playing, first: Place) -> Place {
        let next = playing.next.unwrap_or(first);
        let missing = first.sequence - next.sequence;
        let skipped = match missing > self.sizes.max_frames as u64 {
            true => missing,
            false => missing.min(u64::from(playing.starved_frames)),
        };
        self.counters.lost += skipped;
        next.plus(skipped)
    }

    fn decode(&mut self, packet: &Packet) -> (Frame, Origin) {
        match self.decoder.decode(packet.payload()) {
            Ok(frame) => (frame, Origin::Packet),
            Err(_) => {
                self.counters.lost += 1;
                self.conceal()
            }
        }
    }

    /// Makes up a lost frame, from the packet after it if that is there and follows in time.
    fn mend(&mut self, burst: BurstId, lost: Place) -> (Frame, Origin) {
        self.counters.lost += 1;
        let after = lost.plus(1);
        // After a pause of the sender (DTX) numbers follow but times do not, and the FEC is of older sound.
        let packet = self.held.get(burst, after.sequence).filter(|packet| packet.timestamp == after.timestamp);
        match packet.map(|packet| self.decoder.fec(packet.payload())) {
            Some(Ok(frame)) => {
                self.counters.mended_frames += 1;
                (frame, Origin::Fec)
            }
            Some(Err(_)) | None => self.conceal(),
        }
    }

    fn conceal(&mut self) -> (Frame, Origin) {
        self.counters.concealed_frames += 1;
        (self.decoder.conceal(), Origin::Concealed)
    }

    /// Nothing is held: conceals for a moment, then falls silent and fills anew.
    fn starve(&mut self, playing: &mut Playing) -> (Frame, Origin) {
        self.forget_least_held();
        playing.ran_dry |= playing.next.is_some();
        playing.starved_frames = playing.starved_frames.saturating_add(1);
        if playing.starved_frames <= CONCEALED_IN_A_ROW && playing.next.is_some() && playing.filling.is_none() {
            return self.conceal();
        }
        playing.filling = Some(0);
        (SILENCE, Origin::Silence)
    }

    fn forget_least_held(&mut self) {
        (self.least_held, self.least_held_long) = (Least::default(), Least::default());
    }

    fn drop_oldest(&mut self) {
        if let Some((burst, sequence, timestamp)) = self.held.pop_first() {
            self.counters.dropped += 1;
            if let Some(playing) = self.playing.as_mut().filter(|playing| playing.burst == burst)
                && let Some(next) = playing.next
            {
                self.counters.lost += sequence - next.sequence;
                playing.next = Some(Place { sequence, timestamp }.plus(1));
            }
        }
    }

    fn held_of(&self, burst: BurstId) -> usize {
        self.held.count_of(burst)
    }

    fn first_of(&self, burst: BurstId) -> Option<Place> {
        let (sequence, timestamp) = self.held.first_of(burst)?;
        Some(Place { sequence, timestamp })
    }
}

#[cfg(test)]
mod tests {
    use super::super::FRAME;
    use super::super::codec::{Encoder, MAX_PACKET_BYTES};
    use super::super::level::Level;
    use super::super::signal::{frequency_hz, sine};
    use super::*;

    const B1: BurstId = BurstId(1);
    const B2: BurstId = BurstId(2);

    /// A playout and the packets of a sine to feed it with.
    struct Bench {
        playout: Playout,
        packets: Vec<Vec<u8>>,
    }

    impl Bench {
        fn new() -> Self {
            let mut encoder = Encoder::new(5).unwrap();
            let encode = |index| {
                let mut out = [0; MAX_PACKET_BYTES];
                let bytes = encoder.encode(&sine(700.0, 8000.0, index), &mut out).unwrap();
                out[..bytes].to_vec()
            };
            Bench { playout: Playout::new(Sizes::default()).unwrap(), packets: (0..200).map(encode).collect() }
        }

        /// Pushes packets of a burst by number, with timestamps that follow the numbers.
        fn push(&mut self, burst: BurstId, sequences: impl IntoIterator<Item = u64>) {
            for sequence in sequences {
                let payload = self.packets[sequence as usize].clone();
                self.playout.push(burst, sequence, sequence as u32 * TIMESTAMP_STEP, &payload);
            }
        }

        fn pull(&mut self, frames: usize) -> Vec<Origin> {
            (0..frames).map(|_| self.playout.pull().origin).collect()
        }
    }

    use Origin::{Concealed, Fec, Packet as Own, Silence};

    #[test]
    fn a_burst_starts_after_its_prefill_and_sounds_like_what_was_sent() {
        let mut bench = Bench::new();
        assert_eq!(bench.pull(1), [Silence]);
        bench.push(B1, [0]);
        assert_eq!(bench.pull(1), [Silence]);
        let mut heard = Vec::new();
        for sequence in 1..100 {
            bench.push(B1, [sequence]);
            let pulled = bench.playout.pull();
            assert_eq!((pulled.origin, pulled.burst), (Own, Some(B1)));
            heard.extend(pulled.frame);
        }
        let settled = &heard[10 * FRAME..];
        assert!((frequency_hz(settled) - 700.0).abs() < 3.0);
        let off_db = Level::of(settled).rms_dbfs - Level::of(&sine(700.0, 8000.0, 0)).rms_dbfs;
        assert!(off_db.abs() < 1.0, "{off_db} dB");
        assert_eq!(bench.playout.counters(), Counters::default());
    }

    #[test]
    fn a_lone_packet_plays_once_the_prefill_time_has_passed() {
        let mut bench = Bench::new();
        bench.push(B1, [0]);
        assert_eq!(bench.pull(3), [Silence, Silence, Own]);
    }

    #[test]
    fn packets_out_of_order_play_in_order() {
        let [mut straight, mut shuffled] = [Bench::new(), Bench::new()];
        straight.push(B1, [0, 1, 2, 3]);
        shuffled.push(B1, [2, 0, 3, 1]);
        for _ in 0..4 {
            assert_eq!(straight.playout.pull(), shuffled.playout.pull());
        }
        assert_eq!(shuffled.playout.counters(), Counters::default());
    }

    #[test]
    fn a_single_loss_is_mended_from_the_next_packet_and_a_double_one_concealed_first() {
        let mut bench = Bench::new();
        bench.push(B1, [0, 1, 3, 4, 7]);
        assert_eq!(bench.pull(8), [Own, Own, Fec, Own, Own, Concealed, Fec, Own]);
        let counters = Counters { lost: 3, mended_frames: 2, concealed_frames: 1, ..Counters::default() };
        assert_eq!(bench.playout.counters(), counters);
    }

    #[test]
    fn fec_is_not_used_for_sound_of_another_time() {
        let mut bench = Bench::new();
        bench.push(B1, [0, 1]);
        let payload = bench.packets[3].clone();
        bench.playout.push(B1, 3, 50 * TIMESTAMP_STEP, &payload);
        assert_eq!(bench.pull(4), [Own, Own, Concealed, Own]);
    }

    #[test]
    fn a_packet_after_its_time_or_twice_is_late() {
        let mut bench = Bench::new();
        bench.push(B1, [0, 2, 2]);
        assert_eq!(bench.pull(3), [Own, Fec, Own]);
        bench.push(B1, [1]);
        assert_eq!(bench.playout.counters().late, 2);
        assert_eq!(bench.playout.held_frames(), 0);
    }

    #[test]
    fn what_is_no_opus_is_concealed() {
        let mut bench = Bench::new();
        bench.push(B1, [0]);
        bench.playout.push(B1, 1, TIMESTAMP_STEP, &[]);
        assert_eq!(bench.pull(2), [Own, Concealed]);
        assert_eq!(bench.playout.counters().lost, 1);
    }

    #[test]
    fn a_starved_stream_conceals_falls_silent_fills_anew_and_holds_more_from_then_on() {
        let mut bench = Bench::new();
        bench.push(B1, [0, 1]);
        assert_eq!(bench.pull(7), [Own, Own, Concealed, Concealed, Concealed, Silence, Silence]);
        bench.push(B1, [2]);
        assert_eq!(bench.pull(1), [Silence]);
        bench.push(B1, [3]);
        assert_eq!(bench.pull(1), [Silence], "one frame more than before");
        bench.push(B1, [4]);
        assert_eq!(bench.pull(3), [Own; 3]);
        assert_eq!(bench.playout.counters().lost, 0, "they were late, not lost");
    }

    #[test]
    fn a_pause_of_the_sender_is_not_taken_for_a_rough_network() {
        let mut bench = Bench::new();
        bench.push(B1, [0, 1]);
        bench.pull(10);
        for (sequence, pause) in [(2, 8), (3, 8)] {
            let payload = bench.packets[sequence].clone();
            bench.playout.push(B1, sequence as u64, (sequence as u32 + pause) * TIMESTAMP_STEP, &payload);
        }
        assert_eq!(bench.pull(2), [Own, Own], "the prefill is what it was");
    }

    #[test]
    fn what_was_lost_while_starved_is_not_concealed_twice() {
        let mut bench = Bench::new();
        bench.push(B1, [0, 1]);
        assert_eq!(bench.pull(5), [Own, Own, Concealed, Concealed, Concealed]);
        bench.push(B1, [5, 6]);
        assert_eq!(bench.pull(2), [Own, Own]);
        assert_eq!(bench.playout.counters(), Counters { lost: 3, concealed_frames: 3, ..Counters::default() });
    }

    #[test]
    fn a_long_gap_is_jumped() {
        let mut bench = Bench::new();
        bench.push(B1, [0, 1, 100, 101]);
        assert_eq!(bench.pull(4), [Own; 4]);
        assert_eq!(bench.playout.counters().lost, 98);
    }

    #[test]
    fn a_full_buffer_drops_the_oldest() {
        let mut bench = Bench::new();
        bench.push(B1, 0..2);
        assert_eq!(bench.pull(1), [Own]);
        bench.push(B1, 2..16);
        assert_eq!(bench.playout.held_frames(), 10);
        assert_eq!(bench.playout.counters(), Counters { dropped: 5, ..Counters::default() });
        assert_eq!(bench.pull(10), [Own; 10]);
        bench.push(B1, [3]);
        assert_eq!(bench.playout.counters().late, 1);
    }

    /// Plays a sender that goes on for `seconds`, after a backlog; says how much is held after each second.
    fn after_a_backlog(backlog: u64, seconds: u64) -> (Vec<usize>, Bench) {
        let sizes = Sizes { max_frames: 120, ..Sizes::default() };
        let mut bench = Bench::new();
        bench.playout = Playout::new(sizes).unwrap();
        let packets = bench.packets.clone();
        let push = |playout: &mut Playout, n: u64| {
            playout.push(B1, n, n as u32 * TIMESTAMP_STEP, &packets[n as usize % packets.len()]);
        };
        (0..backlog).for_each(|n| push(&mut bench.playout, n));
        let mut held = Vec::new();
        for n in 0..seconds * 50 {
            push(&mut bench.playout, backlog + n);
            assert_ne!(bench.playout.pull().origin, Silence);
            if n % 50 == 49 {
                held.push(bench.playout.held_frames());
            }
        }
        (held, bench)
    }

    #[test]
    fn a_backlog_of_look_back_and_lead_in_is_worked_off_within_five_seconds_and_nothing_is_dropped() {
        for backlog in [10, 20, 50, 100] {
            let (held, bench) = after_a_backlog(backlog, 6);
            assert!(held[4] <= 5, "{backlog} frames: {held:?} are held after each second");
            let counters = bench.playout.counters();
            assert_eq!(counters.dropped + counters.lost + counters.mended_frames + counters.concealed_frames, 0);
        }
    }

    #[test]
    fn an_hour_long_burst_stays_in_bounds_though_the_clocks_differ() {
        // Cards are off by 100 millionths at most; an hour of that is 18 frames. Ten times as much, for six minutes.
        for parts_per_million in [1000i64, -1000] {
            let mut bench = Bench::new();
            let (mut sent, mut most, mut starved) = (0u64, 0, 0);
            for pull in 0..18_000i64 {
                while (sent as i64) * 1_000_000 <= pull * (1_000_000 + parts_per_million) + 1_000_000 {
                    let payload = bench.packets[sent as usize % 200].clone();
                    bench.playout.push(B1, sent, sent as u32 * TIMESTAMP_STEP, &payload);
                    sent += 1;
                }
                let pulled = bench.playout.pull();
                starved += u64::from(matches!(pulled.origin, Silence | Concealed));
                most = most.max(bench.playout.held_frames());
            }
            let counters = bench.playout.counters();
            assert!(most <= 6 && counters.dropped == 0, "{parts_per_million}: {most} frames were held, {counters:?}");
            assert!(starved <= 4, "{parts_per_million}: it ran dry {starved} times, {counters:?}");
        }
    }

    #[test]
    fn a_cut_takes_what_is_decoded_ahead_too() {
        let (_, mut bench) = after_a_backlog(40, 1);
        assert!(!bench.playout.is_drained());
        bench.playout.cut(B1);
        assert!(bench.playout.is_drained());
        assert_eq!(bench.playout.pull(), Pulled { frame: SILENCE, origin: Silence, burst: None });
    }

    #[test]
    fn an_ended_burst_plays_to_its_end_and_is_drained() {
        let mut bench = Bench::new();
        assert!(bench.playout.is_drained());
        bench.push(B1, [0]);
        bench.playout.end(B1);
        assert!(!bench.playout.is_drained());
        assert_eq!(bench.pull(1), [Own]);
        assert!(bench.playout.is_drained());
        bench.push(B1, [1]);
        assert_eq!(bench.pull(1), [Silence]);
        assert_eq!(bench.playout.counters().late, 1);
    }

    #[test]
    fn a_burst_without_end_is_not_drained_until_its_end_is_told() {
        let mut bench = Bench::new();
        bench.push(B1, [0, 1]);
        bench.pull(5);
        assert!(!bench.playout.is_drained());
        bench.playout.end(B1);
        assert!(bench.playout.is_drained());
    }

    #[test]
    fn a_cut_is_at_once_and_spares_later_bursts() {
        let mut bench = Bench::new();
        bench.push(B1, 0..4);
        bench.push(B2, 0..2);
        assert_eq!(bench.pull(1), [Own]);
        bench.playout.cut(B1);
        bench.push(B1, [4]);
        assert_eq!(bench.playout.held_frames(), 2);
        let pulled = bench.playout.pull();
        assert_eq!((pulled.origin, pulled.burst), (Own, Some(B2)));
        bench.playout.cut(B2);
        assert!(bench.playout.is_drained());
        assert_eq!(bench.playout.pull(), Pulled { frame: SILENCE, origin: Silence, burst: None });
    }

    #[test]
    fn a_new_burst_follows_the_old_one_with_a_fresh_decoder_and_numbers_of_its_own() {
        let mut bench = Bench::new();
        bench.push(B1, 50..53);
        bench.push(B2, 0..3);
        let bursts: Vec<_> = (0..6).map(|_| bench.playout.pull()).collect();
        assert!(bursts.iter().all(|pulled| pulled.origin == Own));
        assert_eq!(bursts.iter().filter(|pulled| pulled.burst == Some(B1)).count(), 3);

        let mut alone = Bench::new();
        alone.push(B2, 0..3);
        assert_eq!(bursts[3], alone.playout.pull());
        assert_eq!(bench.playout.counters(), Counters::default());
    }
}
