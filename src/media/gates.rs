//! The switch between sources and listeners. The control loop opens and shuts gates, the media
//! thread sends through them.
//!
//! **Invariant (F3):** once [`Gates::shut`] has returned, not one more packet of that burst leaves
//! through that channel. `shut` waits for at most the one send in flight, never for a fan-out.

use crate::base::clock::mono_now;
use crate::base::{BurstId, ChannelId, Mono, SourceId};
use serde::{Serialize, Serializer};
use std::collections::{HashMap, VecDeque};
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How many finished bursts are remembered for the counts.
const FINISHED: usize = 256;

/// Why a gate did not open.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GateError {
    /// Another burst has the channel open.
    #[error("channel {channel} is open for {open}; shut that burst first")]
    Taken {
        /// The channel.
        channel: ChannelId,
        /// The burst that has it open.
        open: BurstId,
    },
}

/// What one burst did on one channel.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BurstCount {
    /// The burst.
    #[serde(serialize_with = "as_text")]
    pub burst: BurstId,
    /// The channel.
    pub channel: ChannelId,
    /// The source that talks, or talked last.
    #[serde(serialize_with = "as_optional_text")]
    pub source: Option<SourceId>,
    /// Packets that came in from the source.
    pub received: u64,
    /// Packets that went out, one for each listener.
    pub forwarded: u64,
    /// Packets that went out after the gate was shut. Anything but 0 is a fault.
    pub after_shut: u64,
    /// True until it is shut.
    pub open: bool,
    /// When its first packet came in.
    #[serde(skip)]
    pub first_packet: Option<Instant>,
    /// When it was opened, in nanoseconds of CLOCK_MONOTONIC.
    pub opened_ns: u64,
}

fn as_text<S: Serializer>(id: &impl Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(id)
}

fn as_optional_text<S: Serializer>(id: &Option<SourceId>, to: S) -> Result<S::Ok, S::Error> {
    match id {
        Some(id) => to.collect_str(id),
        None => to.serialize_none(),
    }
}

/// All gates. Share it in an [`Arc`].
#[derive(Default)]
pub struct Gates(Mutex<Table>);

#[derive(Default)]
struct Table {
    open: HashMap<ChannelId, Arc<Gate>>,
    by_source: HashMap<SourceId, Vec<Arc<Gate>>>,
    finished: VecDeque<Arc<Gate>>,
}

impl Gates {
    /// No gate is open.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens `channel` for `source` in `burst`. The same burst again replaces the source.
    ///
    /// # Errors
    ///
    /// Another burst has the channel open.
    pub fn open(&self, channel: &ChannelId, burst: BurstId, source: Option<SourceId>) -> Result<(), GateError> {
        let mut table = locked(&self.0);
        let gate = match table.open.get(channel) {
            Some(gate) if gate.burst == burst => gate.clone(),
            Some(gate) => {
                return Err(GateError::Taken { channel: channel.clone(), open: gate.burst });
            }
            None => {
                let gate = Arc::new(Gate::new(channel, burst));
                table.open.insert(channel.clone(), gate.clone());
                gate
            }
        };
        if let Some(before) = gate.source() {
            table.forget(before, &gate);
        }
        gate.set_source(source);
        if let Some(source) = source {
            table.by_source.entry(source).or_default().push(gate);
        }
        Ok(())
    }

    /// Shuts `channel` if `burst` has it open, and says what the burst did there.
    pub fn shut(&self, channel: &ChannelId, burst: BurstId) -> Option<BurstCount> {
        let mut table = locked(&self.0);
        if table.open.get(channel)?.burst != burst {
            return None;
        }
        let gate = table.open.remove(channel)?;
        if let Some(source) = gate.source() {
            table.forget(source, &gate);
        }
        gate.shut();
        if table.finished.len() == FINISHED {
            table.finished.pop_front();
        }
        table.finished.push_back(gate.clone());
        Some(gate.count())
    }

    /// True while `burst` has any channel open.
    #[must_use]
    pub fn is_open(&self, burst: BurstId) -> bool {
        locked(&self.0).open.values().any(|gate| gate.burst == burst)
    }

    /// The open bursts and the last 256 finished ones, the finished ones first.
    #[must_use]
    pub fn counts(&self) -> Vec<BurstCount> {
        let table = locked(&self.0);
        let gates = table.finished.iter().chain(table.open.values());
        gates.map(|gate| gate.count()).collect()
    }

    /// When the last packet of each open burst came in, for those that have had one.
    #[must_use]
    pub fn last_packets(&self) -> Vec<(BurstId, ChannelId, Instant)> {
        let table = locked(&self.0);
        let last = |gate: &Arc<Gate>| Some((gate.burst, gate.channel.clone(), (*locked(&gate.heard))?.1));
        table.open.values().filter_map(last).collect()
    }

    /// Puts the gates that are open for `source` into `into`.
    pub(super) fn of_source(&self, source: SourceId, into: &mut Vec<Arc<Gate>>) {
        into.clear();
        if let Some(gates) = locked(&self.0).by_source.get(&source) {
            into.extend_from_slice(gates);
        }
    }
}

impl Table {
    fn forget(&mut self, source: SourceId, gate: &Arc<Gate>) {
        if let Some(gates) = self.by_source.get_mut(&source) {
            gates.retain(|other| !Arc::ptr_eq(other, gate));
            if gates.is_empty() {
                self.by_source.remove(&source);
            }
        }
    }
}

/// One burst on one channel. It opens when it is made and never again after it was shut.
pub(super) struct Gate {
    pub burst: BurstId,
    pub channel: ChannelId,
    /// The raw id of the source, 0 for none.
    source: AtomicU64,
    open: AtomicBool,
    /// Held around each single send.
    sending: Mutex<()>,
    /// Set when `shut` is through. Only counting looks at it, never the decision to send.
    was_shut: AtomicBool,
    received: AtomicU64,
    forwarded: AtomicU64,
    after_shut: AtomicU64,
    /// When the first packet and the last came in.
    heard: Mutex<Option<(Instant, Instant)>>,
    opened: Mono,
}

impl Gate {
    fn new(channel: &ChannelId, burst: BurstId) -> Self {
        Gate {
            burst,
            channel: channel.clone(),
            source: AtomicU64::new(0),
            open: AtomicBool::new(true),
            sending: Mutex::new(()),
            was_shut: AtomicBool::new(false),
            received: AtomicU64::new(0),
            forwarded: AtomicU64::new(0),
            after_shut: AtomicU64::new(0),
            heard: Mutex::new(None),
            opened: mono_now(),
        }
    }

    /// Notes a packet that came in.
    pub fn note_received(&self, now: Instant) {
        self.received.fetch_add(1, SeqCst);
        let mut heard = locked(&self.heard);
        *heard = Some((heard.map_or(now, |(first, _)| first), now));
    }

    /// Runs `send`, which sends one packet of `source` to one listener and says whether it did.
    /// Returns false, without running it, if the gate is not open for `source`.
    pub fn pass(&self, source: SourceId, send: impl FnOnce() -> bool) -> bool {
        let _one = locked(&self.sending);
        if !self.open.load(SeqCst) || self.source() != Some(source) {
            return false;
        }
        self.deliver(send);
        true
    }

    fn deliver(&self, send: impl FnOnce() -> bool) {
        if send() {
            self.forwarded.fetch_add(1, SeqCst);
            if self.was_shut.load(SeqCst) {
                self.after_shut.fetch_add(1, SeqCst);
            }
        }
    }

    fn source(&self) -> Option<SourceId> {
        match self.source.load(SeqCst) {
            0 => None,
            id => Some(SourceId(id)),
        }
    }

    fn set_source(&self, source: Option<SourceId>) {
        self.source.store(source.map_or(0, |id| id.0), SeqCst);
        drop(locked(&self.sending));
    }

    fn shut(&self) {
        self.open.store(false, SeqCst);
        drop(locked(&self.sending));
        self.was_shut.store(true, SeqCst);
    }

    fn count(&self) -> BurstCount {
        BurstCount {
            open: self.open.load(SeqCst),
            opened_ns: self.opened.0,
            burst: self.burst,
            channel: self.channel.clone(),
            source: self.source(),
            received: self.received.load(SeqCst),
            forwarded: self.forwarded.load(SeqCst),
            after_shut: self.after_shut.load(SeqCst),
            first_packet: locked(&self.heard).map(|(first, _)| first),
        }
    }
}

/// A panic elsewhere must not stop the floor from being taken back: nothing behind these locks can
/// be left half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TALKER: SourceId = SourceId(7);

    fn gate(gates: &Gates) -> Arc<Gate> {
        let mut open = Vec::new();
        gates.of_source(TALKER, &mut open);
        open.pop().unwrap()
    }

    #[test]
    fn one_burst_at_a_time_and_the_source_can_be_replaced() {
        let (gates, ops) = (Gates::new(), ChannelId::from("ops"));
        gates.open(&ops, BurstId(1), Some(TALKER)).unwrap();
        assert!(gates.open(&ops, BurstId(2), None).is_err());
        assert!(gates.shut(&ops, BurstId(2)).is_none());
        let old = gate(&gates);
        gates.open(&ops, BurstId(1), Some(SourceId(8))).unwrap();
        assert!(!old.pass(TALKER, || true));
        assert!(old.pass(SourceId(8), || true));
        assert_eq!(gates.shut(&ops, BurstId(1)).unwrap().forwarded, 1);
        gates.open(&ops, BurstId(2), None).unwrap();
        assert_eq!(gates.counts().len(), 2);
    }

    #[test]
    fn nothing_passes_after_shut_returned() {
        for round in 1..200 {
            let (gates, ops) = (Gates::new(), ChannelId::from("ops"));
            gates.open(&ops, BurstId(round), Some(TALKER)).unwrap();
            let gate = gate(&gates);
            let (sender, shut) = (gate.clone(), Arc::new(AtomicBool::new(false)));
            let told = shut.clone();
            let thread = std::thread::spawn(move || {
                let mut tries_after = 0;
                while tries_after < 50 {
                    tries_after += u32::from(told.load(SeqCst));
                    sender.pass(TALKER, || true);
                }
            });
            std::thread::yield_now();
            let before = gates.shut(&ops, BurstId(round)).unwrap().forwarded;
            shut.store(true, SeqCst);
            thread.join().unwrap();
            assert_eq!(gate.count().after_shut, 0);
            assert_eq!(gate.count().forwarded, before);
        }
    }

    #[test]
    fn a_send_that_skips_the_check_is_counted() {
        let (gates, ops) = (Gates::new(), ChannelId::from("ops"));
        gates.open(&ops, BurstId(1), Some(TALKER)).unwrap();
        let gate = gate(&gates);
        gates.shut(&ops, BurstId(1));
        gate.deliver(|| true);
        assert_eq!(gates.counts()[0].after_shut, 1);
    }

    #[test]
    fn counts_read_well_as_json() {
        let gates = Gates::new();
        gates.open(&ChannelId::from("ops"), BurstId(3), None).unwrap();
        let json = serde_json::to_value(gates.counts()).unwrap();
        assert_eq!(json[0]["burst"], "b3");
        assert_eq!(json[0]["afterShut"], 0);
    }
}
