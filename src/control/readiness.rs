//! What an emergency broadcast would reach, told before anybody needs it (E10), and what a running one does reach (E9).

use super::{Control, Push, Receiver};
use crate::base::{ChannelId, Mono};
use std::time::Duration;

/// How often a running broadcast looks at what it reaches.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// Media flows if a packet came within this; packets come every 20 ms.
const FLOWING: Duration = Duration::from_secs(1);

/// What a radio does for a broadcast (E9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RadioState {
    /// Nothing keeps it from being keyed.
    Ready,
    /// Its transmitter is keyed.
    Keyed,
    /// Its own carrier is open and goes first; it is keyed when the carrier has closed.
    Blocked,
    /// Its transmitter is keyed, but its own user was pre-empted and still transmits: nobody there hears.
    Preempted,
    /// Its transmit audio or its PTT line does not work, or it is disabled.
    Broken,
}

impl RadioState {
    /// The word on the wire and in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RadioState::Ready => "ready",
            RadioState::Keyed => "keyed",
            RadioState::Blocked => "blocked",
            RadioState::Preempted => "preempted",
            RadioState::Broken => "broken",
        }
    }
}

/// What a broadcast reaches on one channel (E9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Which channel.
    pub channel: ChannelId,
    /// True if its gate is open for the broadcast.
    pub acquired: bool,
    /// True if packets of the broadcast pass its gate.
    pub media: bool,
    /// The channel's radios by name.
    pub radios: Vec<(String, RadioState)>,
}

/// What a broadcast would reach on one channel (E10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Which channel.
    pub channel: ChannelId,
    /// The people who would hear it: participants on the network, desks included, radios not.
    pub listeners: usize,
    /// What keeps it from everybody there, a sentence each; empty means reachable.
    pub obstacles: Vec<String>,
    /// The channel's radios by name.
    pub radios: Vec<(String, RadioState)>,
}

/// Whether an emergency broadcast would work (E10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Every channel of the event.
    pub channels: Vec<Reach>,
    /// What does not work on a desk, a sentence each.
    pub desks: Vec<String>,
}

impl Readiness {
    /// The line for people: "12 of 12 channels reachable, 1 radio blocked".
    #[must_use]
    pub fn summary(&self) -> String {
        let reachable = self.channels.iter().filter(|c| c.obstacles.is_empty()).count();
        let mut line = format!("{reachable} of {} channels reachable", self.channels.len());
        for (wanted, what) in [(RadioState::Blocked, "blocked"), (RadioState::Preempted, "pre-empted and still keyed")]
        {
            let radios = self.channels.iter().flat_map(|c| &c.radios);
            match radios.filter(|(_, state)| *state == wanted).count() {
                0 => {}
                1 => line += &format!(", 1 radio {what}"),
                more => line += &format!(", {more} radios {what}"),
            }
        }
        line
    }
}

impl Control {
    /// Whether an emergency broadcast would work now, and what would not (E10).
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let failed = |channel: &ChannelId| self.emergency.as_ref().is_some_and(|e| e.failed.contains(channel));
        let channels = self.channels.keys().map(|channel| {
            let radios = self.radios_of(channel);
            let mut obstacles: Vec<_> = radios
                .iter()
                .filter(|(_, state)| *state == RadioState::Broken)
                .map(|(name, _)| {
                    let disabled = self.disabled().iter().any(|(_, disabled)| disabled == name);
                    let mut ports = self.ports.iter().filter(|p| p.spec.name == *name);
                    let why = match () {
                        () if disabled => "it is disabled",
                        () if ports.any(|p| self.ptt_is_gone(p)) => "the GPIO chip of its PTT line is gone",
                        () => "its sound device does not work",
                    };
                    format!("{name} cannot transmit: {why}")
                })
                .collect();
            if failed(channel) {
                obstacles.push("its gate does not open; it is tried again every second".into());
            }
            let listeners = self.user_count(channel).saturating_sub(radios.len());
            Reach { channel: channel.clone(), listeners, obstacles, radios }
        });
        let desks = self.desks.iter().flat_map(|desk| self.desk_faults(desk));
        Readiness { channels: channels.collect(), desks: desks.collect() }
    }

    /// What the running broadcast reaches, as it was last told; empty without one.
    #[must_use]
    pub fn receipt(&self) -> &[Receipt] {
        self.emergency.as_ref().map_or(&[], |e| &e.receipt)
    }

    fn ptt_is_gone(&self, port: &super::radio::Port) -> bool {
        port.spec.ptt.as_ref().is_some_and(|line| self.gone.contains(line))
    }

    fn radios_of(&self, channel: &ChannelId) -> Vec<(String, RadioState)> {
        let ports = self.ports.iter().enumerate().filter(|(_, p)| p.spec.channel == *channel);
        let works = |p: &super::radio::Port| {
            let session = self.sessions.get(&p.spec.session);
            session.is_some_and(|s| s.playback_works && !s.disabled) && !self.ptt_is_gone(p)
        };
        ports
            .map(|(i, p)| {
                let state = match () {
                    () if !works(p) => RadioState::Broken,
                    () if p.is_keyed() && self.receiver(i) == Receiver::Preempted => RadioState::Preempted,
                    () if p.is_keyed() => RadioState::Keyed,
                    () if p.is_blocked_in_emergency() => RadioState::Blocked,
                    () => RadioState::Ready,
                };
                (p.spec.name.clone(), state)
            })
            .collect()
    }

    /// Tells the broadcaster what its broadcast reaches, when that has changed.
    pub(super) fn look_at_receipt(&mut self) {
        let now = self.now;
        let Some(e) = self.emergency.as_ref().filter(|e| now >= e.look_at) else { return };
        let flows = |channel| e.heard.get(channel).is_some_and(|at: &Mono| now.since(*at) < FLOWING);
        let receipt: Vec<_> = self
            .channels
            .keys()
            .map(|channel| Receipt {
                channel: channel.clone(),
                acquired: !e.failed.contains(channel),
                media: flows(channel),
                radios: self.radios_of(channel),
            })
            .collect();
        let (session, changed) = (e.session, e.receipt != receipt);
        if changed {
            self.push(vec![session], Push::EmergencyReceipt { channels: receipt.clone() });
        }
        let e = self.emergency.as_mut().expect("looked at above");
        (e.receipt, e.look_at) = (receipt, now + LOOK);
    }
}
