//! The jitter buffer of one incoming stream: packets come as the network likes, frames go every 20 ms.
//!
//! A burst starts once a few frames are held (prefill), or once as much time has passed. A missing
//! packet is made up from the one after it (FEC) or from what was heard (PLC). When nothing is held,
//! the buffer conceals for a moment, then fills anew. Too much held is dropped: at once above the
//! bound, and frame by frame if the buffer stays fuller than it needs to.
//!
//! **Invariant:** sequence numbers within a burst play in order, each at most once; nothing of a
//! burst plays after it was cut, drained, or followed by the next one.

use super::codec::Decoder;
use super::{Frame, SILENCE, VoiceError};
use crate::base::BurstId;
use std::collections::BTreeMap;

/// How many frames in a row are concealed when nothing arrives, before the stream falls silent.
const CONCEALED_IN_A_ROW: u32 = 3;
/// How many frames the buffer has to be too full for before one is skipped: one second.
const PATIENCE_FRAMES: u32 = 50;
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

/// What happened to the packets of a stream. All but `concealed_frames` count packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Never came in time, or could not be decoded.
    pub lost: u64,
    /// Frames that were made up (FEC or PLC).
    pub concealed_frames: u64,
    /// Came after their time, twice, or after their burst.
    pub late: u64,
    /// Thrown away because too much was held.
    pub dropped: u64,
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

struct Packet {
    timestamp: u32,
    payload: Vec<u8>,
}

/// A place in a burst.
#[derive(Clone, Copy)]
struct Place {
    sequence: u64,
    timestamp: u32,
}

impl Place {
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
}

/// The jitter buffer.
pub struct Playout {
    sizes: Sizes,
    decoder: Decoder,
    held: BTreeMap<(BurstId, u64), Packet>,
    playing: Option<Playing>,
    /// Bursts up to this one end once what is held has played.
    ended: BurstId,
    /// Nothing of bursts up to this one plays any more.
    closed: BurstId,
    /// The least that was held of late, and for how many frames.
    least_held: usize,
    least_held_frames: u32,
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
            held: BTreeMap::new(),
            playing: None,
            ended: BurstId(0),
            closed: BurstId(0),
            least_held: usize::MAX,
            least_held_frames: 0,
            counters: Counters::default(),
        })
    }

    /// Takes a packet in. `sequence` is the RTP number without its wrap-around.
    pub fn push(&mut self, burst: BurstId, sequence: u64, timestamp: u32, payload: &[u8]) {
        let passed = self.playing.as_ref().is_some_and(|playing| {
            burst < playing.burst
                || (burst == playing.burst && playing.next.is_some_and(|next| sequence < next.sequence))
        });
        if burst <= self.closed || passed || self.held.contains_key(&(burst, sequence)) {
            self.counters.late += 1;
            return;
        }
        self.held.insert((burst, sequence), Packet { timestamp, payload: payload.to_vec() });
        while self.held.len() > self.sizes.max_frames {
            self.drop_oldest();
        }
    }

    /// Gives the next 20 ms.
    pub fn pull(&mut self) -> Pulled {
        self.choose_burst();
        let Some(mut playing) = self.playing.take() else {
            return Pulled { frame: SILENCE, origin: Origin::Silence, burst: None };
        };
        let (frame, origin) = self.play(&mut playing);
        let burst = Some(playing.burst);
        self.playing = Some(playing);
        self.settle();
        Pulled { frame, origin, burst }
    }

    /// Drops everything of this burst and of those before it, at once.
    pub fn cut(&mut self, burst: BurstId) {
        self.close(burst);
        self.held.retain(|&(held, _), _| held > burst);
    }

    /// Says that no more of this burst will be sent: what is held plays, and then it is drained.
    pub fn end(&mut self, burst: BurstId) {
        self.ended = self.ended.max(burst);
        if self.held.first_key_value().is_none_or(|(&(held, _), _)| held > burst) {
            self.close(burst);
        }
    }

    /// True if everything has played and nothing more is to come of any burst begun.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.playing.is_none() && self.held.is_empty()
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
            let followed = self.held.keys().next_back().is_some_and(|&(last, _)| last > burst);
            if self.held_of(burst) == 0 && (followed || burst <= self.ended) {
                self.close(burst);
            }
        }
    }

    /// Turns to the next burst if none plays.
    fn choose_burst(&mut self) {
        self.settle();
        if self.playing.is_none()
            && let Some((&(burst, _), _)) = self.held.first_key_value()
        {
            self.decoder.reset();
            self.forget_least_held();
            self.playing = Some(Playing { burst, next: None, filling: Some(0), starved_frames: 0 });
        }
    }

    fn play(&mut self, playing: &mut Playing) -> (Frame, Origin) {
        let Some(first) = self.first_of(playing.burst) else {
            return self.starve(playing);
        };
        if let Some(waited) = playing.filling {
            let complete = playing.burst <= self.ended || self.held.len() > self.held_of(playing.burst);
            let filled = self.held_of(playing.burst) >= self.sizes.prefill_frames;
            if !filled && !complete && waited < self.sizes.prefill_frames {
                playing.filling = Some(waited + 1);
                playing.starved_frames = playing.starved_frames.saturating_add(1);
                return (SILENCE, Origin::Silence);
            }
            playing.filling = None;
        }
        let due = self.catch_up(playing, first);
        let due = self.skip_if_too_full(playing.burst, due);
        playing.starved_frames = 0;
        match self.held.remove(&(playing.burst, due.sequence)) {
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
        match self.decoder.decode(&packet.payload) {
            Ok(frame) => (frame, Origin::Packet),
            Err(error) => {
                tracing::debug!("{error}");
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
        let packet = self.held.get(&(burst, after.sequence)).filter(|packet| packet.timestamp == after.timestamp);
        match packet.map(|packet| self.decoder.fec(&packet.payload)) {
            Some(Ok(frame)) => {
                self.counters.concealed_frames += 1;
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
        playing.starved_frames = playing.starved_frames.saturating_add(1);
        if playing.starved_frames <= CONCEALED_IN_A_ROW && playing.next.is_some() && playing.filling.is_none() {
            return self.conceal();
        }
        playing.filling = Some(0);
        (SILENCE, Origin::Silence)
    }

    /// Skips a frame if the buffer has been fuller than it needs to be for all of a second. The frame
    /// is decoded all the same, so that the decoder stays in step.
    fn skip_if_too_full(&mut self, burst: BurstId, due: Place) -> Place {
        self.least_held = self.least_held.min(self.held_of(burst));
        self.least_held_frames += 1;
        if self.least_held_frames < PATIENCE_FRAMES {
            return due;
        }
        // One frame of slack: pushes and pulls may fall on either side of each other.
        let too_full = self.least_held > self.sizes.prefill_frames + 1;
        self.forget_least_held();
        match too_full.then(|| self.held.remove(&(burst, due.sequence))).flatten() {
            Some(packet) => {
                self.decode(&packet);
                self.counters.dropped += 1;
                Place { timestamp: packet.timestamp, ..due }.plus(1)
            }
            None => due,
        }
    }

    fn forget_least_held(&mut self) {
        self.least_held = usize::MAX;
        self.least_held_frames = 0;
    }

    fn drop_oldest(&mut self) {
        if let Some(((burst, sequence), Packet { timestamp, .. })) = self.held.pop_first() {
            self.counters.dropped += 1;
            if let Some(playing) = self.playing.as_mut().filter(|playing| playing.burst == burst)
                && let Some(next) = playing.next
            {
                self.counters.lost += sequence - next.sequence;
                playing.next = Some(Place { sequence, timestamp }.plus(1));
            }
        }
    }

    fn of(burst: BurstId) -> std::ops::RangeInclusive<(BurstId, u64)> {
        (burst, 0)..=(burst, u64::MAX)
    }

    fn held_of(&self, burst: BurstId) -> usize {
        self.held.range(Self::of(burst)).count()
    }

    fn first_of(&self, burst: BurstId) -> Option<Place> {
        let (&(_, sequence), packet) = self.held.range(Self::of(burst)).next()?;
        Some(Place { sequence, timestamp: packet.timestamp })
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
        assert_eq!(bench.playout.counters(), Counters { lost: 3, concealed_frames: 3, ..Counters::default() });
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
    fn a_starved_stream_conceals_falls_silent_and_fills_anew() {
        let mut bench = Bench::new();
        bench.push(B1, [0, 1]);
        assert_eq!(bench.pull(7), [Own, Own, Concealed, Concealed, Concealed, Silence, Silence]);
        bench.push(B1, [2]);
        assert_eq!(bench.pull(1), [Silence]);
        bench.push(B1, [3]);
        assert_eq!(bench.pull(2), [Own, Own]);
        assert_eq!(bench.playout.counters().lost, 0, "they were late, not lost");
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

    #[test]
    fn a_buffer_that_stays_too_full_shrinks_to_its_size() {
        let mut bench = Bench::new();
        bench.push(B1, 0..9);
        for sequence in 9..190 {
            bench.push(B1, [sequence]);
            assert_eq!(bench.pull(1), [Own]);
        }
        let counters = bench.playout.counters();
        assert_eq!(counters, Counters { dropped: 3, ..Counters::default() });
        assert_eq!(bench.playout.held_frames(), 6);
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
