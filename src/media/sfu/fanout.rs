//! From one source to everybody who listens.

use super::stream::Frame;
use super::{Ear, LocalFrame, Outlet, SendFn, Sfu};
use crate::base::{ChannelId, SessionId, SourceId, UserId};
use std::time::Instant;

/// The largest Opus packet that is forwarded.
const LARGEST_PAYLOAD: usize = 1_400;

/// One candidate for a copy: a session hears each packet once, on the channel it joined first (E6).
/// The order of the fields is the order of preference.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Copy {
    session: SessionId,
    join_rank: u64,
    gate: usize,
    ear: usize,
}

impl Sfu {
    /// Registers the microphone of a desk or the receiver of a radio; it is valid on any channel.
    pub fn add_local_source(&mut self, session: SessionId, user: &UserId) -> SourceId {
        self.new_source(session, user, None, None)
    }

    /// Lets a sound card listen to `channel`, in place of what `session` had there before.
    pub fn add_local_listener(
        &mut self,
        session: SessionId,
        user: &UserId,
        channel: &ChannelId,
        join_rank: u64,
        sink: Box<dyn FnMut(LocalFrame<'_>) + Send>,
    ) {
        let ears = self.ears.entry(channel.clone()).or_default();
        ears.retain(|ear| ear.session != session || !matches!(ear.outlet, Outlet::Local(_)));
        ears.push(Ear { session, user: user.clone(), join_rank, only: None, outlet: Outlet::Local(sink) });
    }

    /// Takes a packet from a sound card.
    pub fn local_frame(&mut self, source: SourceId, frame: Frame<'_>, now: Instant, send: SendFn<'_>) {
        self.forward(source, &frame, now, send);
    }

    /// Sends a packet of `source` through every gate that is open for it.
    pub(super) fn forward(&mut self, source: SourceId, frame: &Frame<'_>, now: Instant, send: SendFn<'_>) {
        let Some(talker) = self.sources.get_mut(&source) else {
            self.dropped.unannounced += 1;
            return;
        };
        talker.note(frame.level, now);
        if frame.payload.len() > LARGEST_PAYLOAD {
            self.dropped.oversize += 1;
            return;
        }
        let mut gates = std::mem::take(&mut self.open_gates);
        self.gates.of_source(source, &mut gates);
        if gates.is_empty() {
            self.dropped.gate_shut += 1;
        }
        let user = talker.user.clone();
        let mut copies = std::mem::take(&mut self.copies);
        copies.clear();
        for (place, gate) in gates.iter().enumerate() {
            gate.note_received(now);
            self.collect(place, &gate.channel, source, &user, &mut copies);
        }
        copies.sort_unstable();
        copies.dedup_by_key(|copy| copy.session);
        for copy in &copies {
            let gate = &gates[copy.gate];
            let ears = self.ears.get_mut(&gate.channel);
            let Some(ear) = ears.and_then(|ears| ears.get_mut(copy.ear)) else {
                continue;
            };
            let passed = gate.pass(source, || match &mut ear.outlet {
                Outlet::Local(sink) => {
                    sink(LocalFrame {
                        channel: &gate.channel,
                        burst: gate.burst,
                        source,
                        sequence: frame.sequence,
                        timestamp: frame.timestamp,
                        payload: frame.payload,
                    });
                    self.forwarded += 1;
                    true
                }
                Outlet::Consumer { transport, consumer } => {
                    let sent = self.transports.get_mut(transport).is_some_and(|transport| {
                        let Some(to) = transport.listening_at() else {
                            return false;
                        };
                        let stream = transport.consumers.get_mut(consumer).map(|c| &mut c.stream);
                        let (Some(stream), Some(keys)) = (stream, &mut transport.keys) else {
                            return false;
                        };
                        if !stream.write(frame, gate.burst, source, now, &mut self.packet) {
                            return false;
                        }
                        let Ok(packet) = keys.protect(&self.packet) else {
                            return false;
                        };
                        send(packet.as_ref(), to);
                        true
                    });
                    self.forwarded += u64::from(sent);
                    self.dropped.late += u64::from(!sent);
                    sent
                }
            });
            self.dropped.gate_shut += u64::from(!passed);
        }
        self.open_gates = gates;
        self.copies = copies;
    }

    /// Adds the listeners of `channel` who can hear `source` now. Nobody hears themselves.
    fn collect(&self, gate: usize, channel: &ChannelId, source: SourceId, user: &UserId, copies: &mut Vec<Copy>) {
        for (place, ear) in self.ears.get(channel).into_iter().flatten().enumerate() {
            let ready = match &ear.outlet {
                Outlet::Local(_) => true,
                Outlet::Consumer { transport, .. } => {
                    self.transports.get(transport).is_some_and(|t| t.listening_at().is_some())
                }
            };
            if ready && ear.user != *user && ear.only.is_none_or(|only| only == source) {
                copies.push(Copy { session: ear.session, join_rank: ear.join_rank, gate, ear: place });
            }
        }
    }
}
