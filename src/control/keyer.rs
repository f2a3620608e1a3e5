//! A radio port's transmitter: keyed for others, with lead-in, hang, time-out (E9), and what ends a transmission.
//!
//! **Invariant:** what is said waits for the lead-in and is not lost; what may not go on air any more is thrown away.
//! A transmitter that is unkeyed is given no sound: whoever unkeys it also stops the playback. One that has no sound card is
//! not keyed: it would send silence, and its radio would hear nobody.

use super::radio::{Port, Transmitter};
use super::{Control, Effect};
use crate::base::{Action, BurstId, Mono, SessionId};
use std::time::Duration;

/// If the playback never says that it has finished, the transmitter is unkeyed after this all the same.
const DRAIN_LIMIT: Duration = Duration::from_secs(3);
/// The same for what ends a transmission.
const SIGN_LIMIT: Duration = Duration::from_secs(30);
/// How far beyond the time-out that may go on.
const OVERTIME: Duration = Duration::from_secs(3);
/// How long a transmitter is unkeyed between two bursts so that its time-out starts anew.
const REST: Duration = Duration::from_millis(100);

/// The transmitter of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyer {
    Unkeyed,
    /// Somebody talks, but the port's own carrier is open (simplex, radio-first).
    Blocked(BurstId),
    /// Unkeyed for a moment before the burst, which would run into the time-out of those before it.
    Resting {
        burst: BurstId,
        until: Mono,
    },
    Playing(BurstId),
    /// The burst ran into the time-out; its talker must release first.
    TimedOut(BurstId),
    /// The burst is over; its last samples are still sounding.
    Draining {
        until: Mono,
    },
    /// A courtesy tone or an identification sounds.
    Signing {
        until: Mono,
        ident: bool,
    },
    Hang {
        until: Mono,
    },
}

impl Port {
    pub(super) fn is_keyed(&self) -> bool {
        match self.keyer {
            Keyer::Playing(_) | Keyer::Draining { .. } | Keyer::Signing { .. } | Keyer::Hang { .. } => true,
            Keyer::Unkeyed | Keyer::Blocked(_) | Keyer::Resting { .. } | Keyer::TimedOut(_) => false,
        }
    }

    pub(super) fn transmitter(&self) -> Transmitter {
        match self.keyer {
            _ if self.is_keyed() => Transmitter::Keyed,
            Keyer::Blocked(_) => Transmitter::Blocked,
            Keyer::TimedOut(_) => Transmitter::TimedOut,
            Keyer::Unkeyed
            | Keyer::Resting { .. }
            | Keyer::Playing(_)
            | Keyer::Draining { .. }
            | Keyer::Signing { .. }
            | Keyer::Hang { .. } => Transmitter::Unkeyed,
        }
    }

    /// When the keyer acts by itself.
    pub(super) fn keyer_due(&self, emergency: bool) -> Option<Mono> {
        match self.keyer {
            Keyer::Playing(_) => (!emergency).then(|| self.keyed_since + self.spec.transmit_timeout), // E9
            Keyer::Resting { until, .. }
            | Keyer::Hang { until }
            | Keyer::Signing { until, .. }
            | Keyer::Draining { until } => Some(until),
            Keyer::Unkeyed | Keyer::Blocked(_) | Keyer::TimedOut(_) => None,
        }
    }

    fn is_ident_due(&self, now: Mono) -> bool {
        let due = |interval| self.identified.is_none_or(|at| now >= at + interval);
        self.spec.ident_interval.is_some_and(due)
    }
}

impl Control {
    /// The last sample of an ended burst, or of what ends the transmission, sounds at `at`.
    pub(super) fn drained(&mut self, session: SessionId, at: Mono) {
        let Some(port) = self.port_index(session) else { return };
        let now = self.now;
        let p = &mut self.ports[port];
        let hang = Keyer::Hang { until: at + p.spec.ptt_hang };
        match p.keyer {
            Keyer::Draining { .. } => {
                let (courtesy, ident) = (p.spec.courtesy_tone, p.is_ident_due(now));
                // The transmit watchdog must not have to cut it off.
                let until = (now + SIGN_LIMIT).min(p.keyed_since + p.spec.transmit_timeout + OVERTIME);
                if (courtesy || ident) && until > now {
                    p.keyer = Keyer::Signing { until, ident };
                    self.emit(Effect::Sign { session, courtesy, ident });
                } else {
                    p.keyer = hang;
                }
            }
            Keyer::Signing { ident, .. } => {
                p.keyer = hang;
                p.identified = if ident { Some(now) } else { p.identified };
            }
            Keyer::Unkeyed
            | Keyer::Blocked(_)
            | Keyer::Resting { .. }
            | Keyer::Playing(_)
            | Keyer::TimedOut(_)
            | Keyer::Hang { .. } => return,
        }
        self.port_timeouts();
    }

    /// Brings every transmitter in line with the floor of its channel.
    pub(super) fn update_keyers(&mut self) {
        for i in 0..self.ports.len() {
            let p = &self.ports[i];
            let session = &self.sessions[&p.spec.session];
            if !session.playback_works {
                continue; // as it was left until its card is back
            }
            let held = self.channels.get(&p.spec.channel).and_then(|c| c.burst.as_ref());
            let wanted = held.filter(|b| b.user != p.spec.user && !session.disabled).map(|b| b.id);
            match wanted {
                Some(burst) => self.want_on_air(i, burst),
                None => self.want_silence(i),
            }
        }
    }

    /// The card of a port's transmitter is gone: what is keyed is unkeyed at once.
    pub(super) fn playback_gone(&mut self, session: SessionId) {
        let Some(port) = self.port_index(session) else { return };
        match self.ports[port].keyer {
            Keyer::Unkeyed | Keyer::Blocked(_) | Keyer::TimedOut(_) => {}
            Keyer::Resting { .. } => {
                self.ports[port].keyer = Keyer::Unkeyed;
                self.emit(Effect::StopPlay { session, burst: None });
            }
            Keyer::Playing(_) | Keyer::Draining { .. } | Keyer::Signing { .. } | Keyer::Hang { .. } => {
                self.unkey(port, Keyer::Unkeyed, Some("playback-gone"));
            }
        }
    }

    fn want_on_air(&mut self, port: usize, burst: BurstId) {
        let p = &self.ports[port];
        let session = p.spec.session;
        let radio_first = if self.emergency.is_some() { p.spec.radio_first_in_emergency } else { p.spec.radio_first };
        let blocked = radio_first && p.squelch.is_open() && !p.is_keyed();
        // A burst after others, with no pause between them, is given at least half of the time.
        let half_used = self.now >= p.keyed_since + p.spec.transmit_timeout / 2;
        let must_rest = p.is_keyed() && half_used && self.emergency.is_none();
        let lead_in = p.spec.lead_in;
        match p.keyer {
            Keyer::Playing(known) | Keyer::TimedOut(known) if known == burst => {}
            keyer if blocked => {
                self.ports[port].keyer = Keyer::Blocked(burst);
                if matches!(keyer, Keyer::Resting { .. }) {
                    self.emit(Effect::StopPlay { session, burst: None });
                }
            }
            Keyer::Resting { burst: known, .. } if known == burst => {}
            Keyer::Resting { until, .. } => {
                self.ports[port].keyer = Keyer::Resting { burst, until };
                self.emit(Effect::Play { session, burst, from: until + lead_in });
            }
            Keyer::Unkeyed | Keyer::Blocked(_) | Keyer::TimedOut(_) => {
                self.ports[port].keyer = Keyer::Playing(burst);
                self.key(port);
                self.emit(Effect::Play { session, burst, from: self.now + lead_in });
            }
            Keyer::Playing(_) | Keyer::Draining { .. } | Keyer::Signing { .. } | Keyer::Hang { .. } if must_rest => {
                let until = self.now + REST;
                self.unkey(port, Keyer::Resting { burst, until }, None);
                self.emit(Effect::Play { session, burst, from: until + lead_in });
            }
            Keyer::Playing(_) | Keyer::Draining { .. } | Keyer::Signing { .. } | Keyer::Hang { .. } => {
                let from = self.now.max(p.keyed_since + lead_in); // the lead-in is the transmitter's, not the burst's
                self.ports[port].keyer = Keyer::Playing(burst);
                self.emit(Effect::Play { session, burst, from });
            }
        }
    }

    fn want_silence(&mut self, port: usize) {
        let p = &mut self.ports[port];
        match p.keyer {
            Keyer::Playing(burst) => {
                p.keyer = Keyer::Draining { until: self.now + DRAIN_LIMIT };
                let session = p.spec.session;
                self.emit(Effect::EndPlay { session, burst });
            }
            Keyer::Blocked(_) | Keyer::TimedOut(_) => p.keyer = Keyer::Unkeyed,
            // A burst that is over before the rest is still goes on air.
            Keyer::Resting { .. }
            | Keyer::Unkeyed
            | Keyer::Draining { .. }
            | Keyer::Signing { .. }
            | Keyer::Hang { .. } => {}
        }
    }

    fn key(&mut self, port: usize) {
        let p = &mut self.ports[port];
        p.keyed_since = self.now;
        let record = self.record_of(Action::RadioKeyed, &self.ports[port].spec.user).on(&self.ports[port].spec.channel);
        self.audit(record);
        self.set_ptt(port, true);
    }

    fn unkey(&mut self, port: usize, to: Keyer, cause: Option<&'static str>) {
        let p = &mut self.ports[port];
        let session = p.spec.session;
        p.keyer = to;
        p.inhibited_until = self.now + p.spec.inhibit;
        let mut record =
            self.record_of(Action::RadioUnkeyed, &self.ports[port].spec.user).on(&self.ports[port].spec.channel);
        record.cause = cause;
        self.audit(record);
        self.set_ptt(port, false);
        let burst = match to {
            Keyer::Resting { .. } => return, // its caller says from when on it plays
            Keyer::TimedOut(burst) => Some(burst),
            Keyer::Unkeyed
            | Keyer::Blocked(_)
            | Keyer::Playing(_)
            | Keyer::Draining { .. }
            | Keyer::Signing { .. }
            | Keyer::Hang { .. } => None,
        };
        self.emit(Effect::StopPlay { session, burst });
    }

    fn set_ptt(&mut self, port: usize, keyed: bool) {
        if let Some(line) = self.ports[port].spec.ptt.clone() {
            self.set_line(&line, keyed);
        }
    }

    pub(super) fn keyer_timeout(&mut self, port: usize) {
        let emergency = self.emergency.is_some();
        let p = &mut self.ports[port];
        if p.keyer_due(emergency).is_none_or(|due| self.now < due) {
            return;
        }
        let session = p.spec.session;
        match p.keyer {
            Keyer::Playing(burst) => {
                self.unkey(port, Keyer::TimedOut(burst), Some("transmit-timeout"));
            }
            Keyer::Resting { burst, .. } => {
                p.keyer = Keyer::Playing(burst);
                let from = self.now + p.spec.lead_in; // later than planned if the process was stalled
                self.key(port);
                self.emit(Effect::Play { session, burst, from });
            }
            Keyer::Draining { .. } | Keyer::Signing { .. } => {
                self.unkey(port, Keyer::Unkeyed, Some("playback-stalled"));
            }
            Keyer::Hang { .. } => self.unkey(port, Keyer::Unkeyed, None),
            Keyer::Unkeyed | Keyer::Blocked(_) | Keyer::TimedOut(_) => {}
        }
    }
}
