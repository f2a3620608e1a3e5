//! A radio port: its carrier asks for the floor (F6, F7), its transmitter is keyed for others (lead-in, hang).

use super::squelch::Squelch;
use super::{Answer, Control, Effect, Interruption, PortSpec};
use crate::base::{Action, BurstId, Mono, SessionId};
use std::time::Duration;

/// If the playback never says that it has finished, the transmitter is unkeyed after this all the same.
const DRAIN_LIMIT: Duration = Duration::from_secs(3);

/// The transmitter of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keyer {
    Unkeyed,
    /// Somebody talks, but the port's own carrier is open (simplex, radio-first).
    Blocked(BurstId),
    Playing(BurstId),
    /// The burst is over; its last samples are still sounding.
    Draining {
        until: Mono,
    },
    Hang {
        until: Mono,
    },
}

/// What a port is doing.
#[derive(Debug)]
pub(super) struct Port {
    pub spec: PortSpec,
    squelch: Squelch,
    /// When the open carrier has to close (F9).
    carrier_limit: Option<Mono>,
    /// The carrier counts for nothing until it has closed (F7).
    pub spent: bool,
    keyer: Keyer,
    /// Own carrier is ignored until then.
    inhibited_until: Mono,
}

impl Port {
    pub(super) fn new(spec: PortSpec) -> Self {
        Port {
            spec,
            squelch: Squelch::default(),
            carrier_limit: None,
            spent: false,
            keyer: Keyer::Unkeyed,
            inhibited_until: Mono::default(),
        }
    }

    pub(super) fn is_keyed(&self) -> bool {
        matches!(self.keyer, Keyer::Playing(_) | Keyer::Draining { .. } | Keyer::Hang { .. })
    }

    /// Somebody talks whom it does not transmit yet: its own carrier is open.
    pub(super) fn is_blocked(&self) -> bool {
        matches!(self.keyer, Keyer::Blocked(_))
    }

    /// E9: it could not be keyed now because its own carrier is open and goes first.
    pub(super) fn is_blocked_in_emergency(&self) -> bool {
        self.squelch.is_open() && self.spec.radio_first_in_emergency
    }
}

impl Control {
    fn port_index(&self, session: SessionId) -> Option<usize> {
        self.ports.iter().position(|p| p.spec.session == session)
    }

    /// The port's raw carrier, by line or by voice. The level before counts if it had lasted by the stamp; the new
    /// one is judged when all edges that are queued have been read (F10).
    pub(super) fn carrier(&mut self, session: SessionId, active: bool, stamp: Mono) {
        if let Some(port) = self.port_index(session) {
            self.judge_carrier(port, stamp);
            let p = &mut self.ports[port];
            p.squelch.raw(active, stamp);
            p.spent &= active || p.squelch.is_open(); // F7: the release edge of what never counted
        }
    }

    fn judge_carrier(&mut self, port: usize, until: Mono) {
        let p = &mut self.ports[port];
        if p.squelch.timeout(until, p.spec.attack, p.spec.release) {
            if p.squelch.is_open() {
                self.carrier_opened(port);
            } else {
                self.carrier_closed(port);
            }
        }
    }

    fn carrier_opened(&mut self, port: usize) {
        let now = self.now;
        let p = &mut self.ports[port];
        let (session, channel) = (p.spec.session, p.spec.channel.clone());
        if p.spent || now < p.inhibited_until || (p.is_keyed() && p.spec.radio_first) {
            p.spent = true; // a carrier that began in our own transmission is our own
            return;
        }
        p.carrier_limit = Some(now + p.spec.carrier_timeout);
        let record = self.record(Action::RadioCarrierOpen, session).on(&channel);
        self.audit(record);
        let granted = matches!(self.request_floor(session, &channel, false, None), Ok(Answer::Floor { .. }));
        self.ports[port].spent = !granted;
    }

    fn carrier_closed(&mut self, port: usize) {
        let p = &mut self.ports[port];
        let (session, channel) = (p.spec.session, p.spec.channel.clone());
        let counted = p.carrier_limit.take().is_some();
        p.spent = false;
        if counted {
            let record = self.record(Action::RadioCarrierClosed, session).on(&channel);
            self.audit(record);
            self.release(session, &channel, None, None);
        }
    }

    /// E9: ports that cannot be keyed now because their own carrier is open.
    pub(super) fn blocked_ports(&self) -> Vec<String> {
        let blocked = self.ports.iter().filter(|p| p.is_blocked_in_emergency());
        blocked.map(|p| p.spec.name.clone()).collect()
    }

    /// The last sample of an ended burst sounds at `at`.
    pub(super) fn drained(&mut self, session: SessionId, at: Mono) {
        let Some(port) = self.port_index(session) else { return };
        let p = &mut self.ports[port];
        if matches!(p.keyer, Keyer::Draining { .. }) {
            p.keyer = Keyer::Hang { until: at + p.spec.ptt_hang };
            self.port_timeouts();
        }
    }

    /// Brings every transmitter in line with the floor of its channel.
    pub(super) fn update_keyers(&mut self) {
        for i in 0..self.ports.len() {
            let p = &self.ports[i];
            let held = self.channels.get(&p.spec.channel).and_then(|c| c.burst.as_ref());
            let wanted =
                held.filter(|b| b.user != p.spec.user && !self.sessions[&p.spec.session].disabled).map(|b| b.id);
            let radio_first =
                if self.emergency.is_some() { p.spec.radio_first_in_emergency } else { p.spec.radio_first };
            let blocked = radio_first && p.squelch.is_open() && !p.is_keyed();
            let session = p.spec.session;
            match (wanted, p.keyer) {
                (Some(burst), Keyer::Playing(playing)) if burst == playing => {}
                (Some(burst), _) if blocked => self.ports[i].keyer = Keyer::Blocked(burst),
                (Some(burst), keyer) => {
                    let key_up = matches!(keyer, Keyer::Unkeyed | Keyer::Blocked(_));
                    let from = if key_up { self.now + p.spec.lead_in } else { self.now };
                    self.ports[i].keyer = Keyer::Playing(burst);
                    if key_up {
                        self.key(i, true);
                    }
                    self.emit(Effect::Play { session, burst, from });
                }
                (None, Keyer::Playing(burst)) => {
                    self.ports[i].keyer = Keyer::Draining { until: self.now + DRAIN_LIMIT };
                    self.emit(Effect::EndPlay { session, burst });
                }
                (None, Keyer::Blocked(_)) => self.ports[i].keyer = Keyer::Unkeyed,
                (None, Keyer::Unkeyed | Keyer::Draining { .. } | Keyer::Hang { .. }) => {}
            }
        }
    }

    fn key(&mut self, port: usize, keyed: bool) {
        let spec = &self.ports[port].spec;
        let (session, channel, line) = (spec.session, spec.channel.clone(), spec.ptt.clone());
        let action = if keyed { Action::RadioKeyed } else { Action::RadioUnkeyed };
        let record = self.record(action, session).on(&channel);
        self.audit(record);
        if let Some(line) = line {
            self.set_line(&line, keyed);
        }
    }

    fn unkey_due(port: &Port) -> Option<Mono> {
        match port.keyer {
            Keyer::Hang { until } | Keyer::Draining { until } => Some(until),
            Keyer::Unkeyed | Keyer::Blocked(_) | Keyer::Playing(_) => None,
        }
    }

    pub(super) fn port_due(&self) -> impl Iterator<Item = Mono> {
        self.ports.iter().flat_map(|p| {
            let squelch = p.squelch.due(p.spec.attack, p.spec.release);
            [squelch, p.carrier_limit.filter(|_| !p.spent), Self::unkey_due(p)].into_iter().flatten()
        })
    }

    pub(super) fn port_timeouts(&mut self) {
        let now = self.now;
        for i in 0..self.ports.len() {
            self.judge_carrier(i, now);
            let p = &mut self.ports[i];
            if p.carrier_limit.is_some_and(|limit| now >= limit) && !p.spent {
                p.spent = true;
                let (session, channel) = (p.spec.session, p.spec.channel.clone());
                let holds = self.channels[&channel].burst.as_ref().is_some_and(|b| b.session == session);
                if holds && self.emergency.is_none() {
                    self.interrupt(
                        &channel,
                        Interruption::CarrierTimeout,
                        None,
                        "The radio's carrier is stuck.".into(),
                    );
                    self.announce(&channel, None);
                }
            }
            if Self::unkey_due(&self.ports[i]).is_some_and(|until| now >= until) {
                self.ports[i].keyer = Keyer::Unkeyed;
                self.ports[i].inhibited_until = now + self.ports[i].spec.inhibit;
                self.key(i, false);
            }
        }
    }
}
