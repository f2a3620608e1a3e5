//! A radio port's receiver: its carrier asks for the floor (F6, F7), and what pages are shown of the port.
//!
//! The transmitter is in [`super::keyer`].

use super::keyer::Keyer;
use super::squelch::{Squelch, Times};
use super::{Answer, Control, Interruption, PortSpec};
use crate::base::{Action, BurstId, ChannelId, Mono, SessionId, UserId};

/// What a port is doing.
#[derive(Debug)]
pub(super) struct Port {
    pub spec: PortSpec,
    pub(super) squelch: Squelch,
    /// When the open carrier has to close (F9); `None` until it has asked for the floor.
    carrier_limit: Option<Mono>,
    /// The carrier counts for nothing until it has closed (F7).
    pub spent: bool,
    /// The carrier has closed; its burst ends then.
    lingering: Option<(Mono, BurstId)>,
    pub(super) keyer: Keyer,
    /// It was keyed before what is decided now: a button of the same moment makes no carrier its own.
    was_keyed: bool,
    /// When the transmitter was keyed last.
    pub(super) keyed_since: Mono,
    /// Own carrier is ignored until then.
    pub(super) inhibited_until: Mono,
    /// When the station last identified itself.
    pub(super) identified: Option<Mono>,
}

/// What a port's receiver does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// No carrier.
    Closed,
    /// A carrier that does not count: too short yet, the port's own, or it was there at the start.
    Open,
    /// It holds the floor.
    Talking,
    /// It asked while somebody else talked.
    Denied,
    /// Pre-empted, radio still keyed: whoever talks there cannot hear that nobody listens any more.
    Preempted,
    /// Its carrier ran into its time-out.
    Stuck,
}

impl Receiver {
    /// The word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Receiver::Closed => "closed",
            Receiver::Open => "open",
            Receiver::Talking => "talking",
            Receiver::Denied => "denied",
            Receiver::Preempted => "preempted",
            Receiver::Stuck => "stuck",
        }
    }
}

/// What a port's transmitter does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transmitter {
    /// Nothing.
    Unkeyed,
    /// Somebody talks, but the port's own carrier is open and goes first.
    Blocked,
    /// It is keyed.
    Keyed,
    /// Somebody still talks, but it ran into its time-out.
    TimedOut,
}

impl Transmitter {
    /// The word in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Transmitter::Unkeyed => "unkeyed",
            Transmitter::Blocked => "blocked",
            Transmitter::Keyed => "keyed",
            Transmitter::TimedOut => "timed-out",
        }
    }
}

/// What a port is doing, for pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortState {
    /// Which participant.
    pub user: UserId,
    /// Its name.
    pub name: String,
    /// Its channel.
    pub channel: ChannelId,
    /// Its receiver.
    pub receiver: Receiver,
    /// Its transmitter.
    pub transmitter: Transmitter,
}

impl Port {
    pub(super) fn new(spec: PortSpec) -> Self {
        Port {
            spec,
            squelch: Squelch::default(),
            carrier_limit: None,
            spent: false,
            lingering: None,
            keyer: Keyer::Unkeyed,
            was_keyed: false,
            keyed_since: Mono::default(),
            inhibited_until: Mono::default(),
            identified: None,
        }
    }

    fn times(&self) -> Times {
        Times { attack: self.spec.attack, release: self.spec.release, flap: self.spec.flap }
    }

    /// Somebody talks whom it does not transmit yet: its own carrier is open.
    pub(super) fn is_blocked(&self) -> bool {
        matches!(self.keyer, Keyer::Blocked(_))
    }

    /// E9: it could not be keyed now because its own carrier is open and goes first.
    pub(super) fn is_blocked_in_emergency(&self) -> bool {
        self.squelch.is_open() && self.spec.radio_first_in_emergency
    }

    /// When the open carrier will ask for the floor: once it is no flap, and nothing of the port's own transmission.
    /// One that began in that and is still there after the inhibit time is somebody else's.
    fn asks_at(&self, keyed: bool) -> Option<Mono> {
        let own = keyed && self.spec.radio_first;
        let from = self.squelch.is_no_flap_from(self.times())?.max(self.inhibited_until);
        (self.carrier_limit.is_none() && !self.spent && !own).then_some(from)
    }
}

impl Control {
    pub(super) fn port_index(&self, session: SessionId) -> Option<usize> {
        self.ports.iter().position(|p| p.spec.session == session)
    }

    /// The port's raw carrier, by line or by its audio. The level before counts if it had lasted by the stamp; the new
    /// one is judged when all edges that are queued have been read (F10).
    pub(super) fn carrier(&mut self, session: SessionId, active: bool, stamp: Mono) {
        if let Some(port) = self.port_index(session) {
            self.judge_carrier(port, stamp);
            let p = &mut self.ports[port];
            p.squelch.raw(active, stamp);
            p.spent &= active || p.squelch.is_open(); // F7: the release edge of what never counted
        }
    }

    /// Called before anything is decided.
    pub(super) fn note_keyed(&mut self) {
        for port in &mut self.ports {
            port.was_keyed = port.is_keyed();
        }
    }

    fn judge_carrier(&mut self, port: usize, until: Mono) {
        let p = &mut self.ports[port];
        if p.squelch.timeout(until, p.times()) && !p.squelch.is_open() {
            return self.carrier_closed(port);
        }
        if p.asks_at(p.was_keyed).is_some_and(|at| until >= at) {
            self.carrier_counts(port);
        }
    }

    fn carrier_counts(&mut self, port: usize) {
        let now = self.now;
        let p = &mut self.ports[port];
        let (session, channel) = (p.spec.session, p.spec.channel.clone());
        p.carrier_limit = Some(now + p.spec.carrier_timeout);
        p.lingering = None;
        let record = self.record(Action::RadioCarrierOpen, session).on(&channel);
        self.audit(record);
        let granted = matches!(self.request_floor(session, &channel, false, None), Ok(Answer::Floor { .. }));
        self.ports[port].spent = !granted;
    }

    fn carrier_closed(&mut self, port: usize) {
        let held = self.burst_of(port);
        let p = &mut self.ports[port];
        let (session, channel, linger) = (p.spec.session, p.spec.channel.clone(), p.spec.linger);
        let counted = p.carrier_limit.take().is_some();
        p.spent = false;
        if counted {
            p.lingering = held.map(|burst| (self.now + linger, burst));
            let record = self.record(Action::RadioCarrierClosed, session).on(&channel);
            self.audit(record);
            self.end_lingering(port);
        }
    }

    /// The floor goes back when the end of what was said has come through the card.
    fn end_lingering(&mut self, port: usize) {
        let p = &mut self.ports[port];
        if let Some((_, burst)) = p.lingering.take_if(|(until, _)| self.now >= *until) {
            let (session, channel) = (p.spec.session, p.spec.channel.clone());
            self.release(session, &channel, Some(burst), None);
        }
    }

    /// The burst that the port talks in.
    fn burst_of(&self, port: usize) -> Option<BurstId> {
        let spec = &self.ports[port].spec;
        let burst = self.channels.get(&spec.channel)?.burst.as_ref()?;
        (burst.session == spec.session).then_some(burst.id)
    }

    /// E9: ports that cannot be keyed now because their own carrier is open.
    pub(super) fn blocked_ports(&self) -> Vec<String> {
        let blocked = self.ports.iter().filter(|p| p.is_blocked_in_emergency());
        blocked.map(|p| p.spec.name.clone()).collect()
    }

    /// What every port is doing.
    #[must_use]
    pub fn port_states(&self) -> Vec<PortState> {
        let state = |(port, p): (usize, &Port)| PortState {
            user: p.spec.user.clone(),
            name: p.spec.name.clone(),
            channel: p.spec.channel.clone(),
            receiver: self.receiver(port),
            transmitter: p.transmitter(),
        };
        self.ports.iter().enumerate().map(state).collect()
    }

    pub(super) fn receiver(&self, port: usize) -> Receiver {
        let p = &self.ports[port];
        match p.carrier_limit {
            _ if !p.squelch.is_open() => Receiver::Closed,
            None => Receiver::Open,
            Some(limit) if self.now >= limit => Receiver::Stuck,
            Some(_) if self.burst_of(port).is_some() => Receiver::Talking,
            Some(_) if p.spent => Receiver::Denied,
            Some(_) => Receiver::Preempted,
        }
    }

    pub(super) fn port_due(&self) -> impl Iterator<Item = Mono> {
        let emergency = self.emergency.is_some();
        self.ports.iter().flat_map(move |p| {
            let limit = p.carrier_limit.filter(|_| !p.spent);
            let lingering = p.lingering.map(|(until, _)| until);
            [p.squelch.due(p.times()), p.asks_at(p.is_keyed()), limit, lingering, p.keyer_due(emergency)]
                .into_iter()
                .flatten()
        })
    }

    pub(super) fn port_timeouts(&mut self) {
        let now = self.now;
        for i in 0..self.ports.len() {
            self.judge_carrier(i, now);
            self.end_lingering(i);
            let p = &mut self.ports[i];
            if p.carrier_limit.is_some_and(|limit| now >= limit) && !p.spent {
                p.spent = true;
                let channel = p.spec.channel.clone();
                if self.burst_of(i).is_some() && self.emergency.is_none() {
                    self.interrupt(
                        &channel,
                        Interruption::CarrierTimeout,
                        None,
                        "The radio's carrier is stuck.".into(),
                    );
                    self.announce(&channel, None);
                }
            }
            self.keyer_timeout(i);
        }
    }
}
