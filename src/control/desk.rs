//! A desk's buttons: PTT with priority (F6, F16) and the guarded emergency button (E2, E3, E8).

use super::button::{Button, Fault, Turn};
use super::hold::{Hold, Verdict};
use super::tally::DENIED;
use super::{Answer, Control, DeskSpec, MIN_HOLD, PttSpec};
use crate::base::{Action, BurstId, ChannelId, LineName, Mono, Record, SessionId};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One of a desk's buttons.
#[derive(Clone, Copy, Debug)]
enum Which {
    Emergency,
    Ptt(usize),
}

/// What a desk's buttons are doing.
#[derive(Debug)]
pub(super) struct Desk {
    pub spec: DeskSpec,
    pub hold: Hold,
    emergency: Option<Button>,
    /// As in the specification.
    ptt: Vec<Button>,
    /// Positions of the selector that are active.
    selected: BTreeSet<LineName>,
    /// Bursts that each pressed button has begun, or found running: the last button that is let go ends them (F16).
    talking: BTreeMap<usize, Vec<(ChannelId, BurstId)>>,
    /// Until when a refusal is shown.
    pub denied: BTreeMap<ChannelId, Mono>,
    /// The same of the emergency button.
    pub emergency_denied: Option<Mono>,
    /// A hold of full length came to nothing (E2), and the button was not pressed since.
    missed: bool,
}

impl Desk {
    pub(super) fn new(spec: DeskSpec) -> Self {
        Desk {
            hold: Hold::Idle,
            emergency: spec.emergency.clone().map(Button::new),
            ptt: spec.ptt.iter().map(|ptt| Button::new(ptt.button.clone())).collect(),
            selected: BTreeSet::new(),
            talking: BTreeMap::new(),
            denied: BTreeMap::new(),
            emergency_denied: None,
            missed: false,
            spec,
        }
    }

    fn buttons(&self) -> impl Iterator<Item = &Button> {
        self.emergency.iter().chain(&self.ptt)
    }

    fn find(&self, line: &LineName) -> Option<Which> {
        if self.emergency.as_ref().is_some_and(|button| button.has(line)) {
            return Some(Which::Emergency);
        }
        self.ptt.iter().position(|button| button.has(line)).map(Which::Ptt)
    }

    fn button(&mut self, which: Which) -> &mut Button {
        match which {
            Which::Emergency => self.emergency.as_mut().expect("it was found"),
            Which::Ptt(place) => &mut self.ptt[place],
        }
    }

    fn is_selector(&self, line: &LineName) -> bool {
        self.spec.ptt.iter().any(|ptt| ptt.select.iter().any(|(l, _)| l == line))
    }

    fn select(&mut self, line: &LineName, active: bool) {
        if active {
            self.selected.insert(line.clone());
        } else {
            self.selected.remove(line);
        }
    }

    /// The channels that a press of this button asks for (F16).
    fn wanted(&self, PttSpec { channels, select, .. }: &PttSpec) -> Vec<ChannelId> {
        let selected = select.iter().filter(|(line, _)| self.selected.contains(line)).map(|(_, channel)| channel);
        channels.iter().chain(selected).cloned().collect()
    }

    /// The button that talks on `channel`, if one does.
    pub(super) fn button_of(&self, channel: &ChannelId) -> Option<&Button> {
        let place = self.spec.ptt.iter().position(|ptt| ptt.channels.contains(channel))?;
        self.ptt.get(place)
    }

    /// Every line that belongs to the desk.
    fn lines(&self) -> impl Iterator<Item = &LineName> {
        let DeskSpec { tally, emergency_tally, fault_tally, buzzer, .. } = &self.spec;
        let outputs = tally.iter().map(|(line, _)| line).chain(emergency_tally).chain(fault_tally).chain(buzzer);
        let contacts = self.buttons().flat_map(|b| [Some(&b.spec.line), b.spec.opening.as_ref()]).flatten();
        let select = self.spec.ptt.iter().flat_map(|ptt| ptt.select.iter().map(|(line, _)| line));
        outputs.chain(contacts).chain(select)
    }
}

impl Control {
    fn hold_time(&self) -> Duration {
        self.settings.tuning.emergency_hold.max(MIN_HOLD)
    }

    fn find_button(&self, line: &LineName) -> Option<(usize, Which)> {
        self.desks.iter().enumerate().find_map(|(i, desk)| Some((i, desk.find(line)?)))
    }

    fn select(&mut self, line: &LineName, active: bool) -> bool {
        let desk = self.desks.iter_mut().find(|desk| desk.is_selector(line));
        desk.map(|desk| desk.select(line, active)).is_some()
    }

    /// Routes an input line's edge to the desk or port that owns it.
    pub(super) fn edge(&mut self, line: &LineName, active: bool, stamp: Mono) {
        if let Some((desk, which)) = self.find_button(line) {
            let d = &mut self.desks[desk];
            let stuck = d.spec.stuck_alarm;
            let turns = d.button(which).edge(line, active, stamp, stuck);
            self.turn(desk, which, turns);
        } else if !self.select(line, active)
            && let Some(session) = self.port_with_carrier(line)
        {
            self.carrier(session, active, stamp);
        }
    }

    fn port_with_carrier(&self, line: &LineName) -> Option<SessionId> {
        self.ports.iter().find(|p| p.spec.carrier.as_ref() == Some(line)).map(|p| p.spec.session)
    }

    /// Carries out what became of a button.
    fn turn(&mut self, desk: usize, which: Which, turns: impl IntoIterator<Item = Turn>) {
        for turn in turns {
            self.audit_turn(desk, which, turn);
            match (which, turn) {
                (Which::Emergency, Turn::Pressed(stamp)) => self.emergency_edge(desk, true, stamp),
                (Which::Emergency, Turn::Released { at, .. }) => self.emergency_edge(desk, false, at),
                (Which::Emergency, Turn::Broken { .. }) => self.emergency_broken(desk),
                (Which::Ptt(place), Turn::Pressed(_)) => self.ptt_pressed(desk, place),
                (Which::Ptt(place), Turn::Released { .. } | Turn::Broken { .. }) => self.ptt_released(desk, place),
                (_, Turn::Healed) => {}
            }
        }
    }

    fn audit_turn(&mut self, desk: usize, which: Which, turn: Turn) {
        let d = &mut self.desks[desk];
        let (session, line) = (d.spec.session, d.button(which).spec.line.clone());
        let ms = |since: Mono, at: Mono| u64::try_from(at.since(since).as_millis()).unwrap_or(u64::MAX);
        let (action, cause, detail) = match turn {
            Turn::Pressed(stamp) => (Action::GpioPress, None, json!({ "line": line.as_str(), "stampNs": stamp.0 })),
            Turn::Released { since, at } => {
                let detail = json!({ "line": line.as_str(), "stampNs": at.0, "heldMs": ms(since, at) });
                (Action::GpioRelease, None, detail)
            }
            Turn::Broken { fault, since } => {
                let held = since.map(|since| ms(since, self.now));
                (Action::GpioFault, Some(fault.as_str()), json!({ "line": line.as_str(), "heldMs": held }))
            }
            Turn::Healed => (Action::GpioHealed, None, json!({ "line": line.as_str() })),
        };
        let mut record = self.record(action, session).with(detail);
        record.cause = cause;
        self.audit(record);
    }

    fn emergency_edge(&mut self, desk: usize, active: bool, stamp: Mono) {
        let (now, hold) = (self.now, self.hold_time());
        let d = &mut self.desks[desk];
        d.missed &= !active;
        if active && d.spec.latch && self.runs_from(desk) {
            self.desks[desk].hold = Hold::Spent;
            return self.end_emergency("released", None);
        }
        let verdict = self.desks[desk].hold.edge(active, stamp, now, hold);
        self.judge(desk, verdict);
    }

    /// E8: a fault counts as release, and a hold in progress is aborted, never assumed.
    fn emergency_broken(&mut self, desk: usize) {
        let d = &mut self.desks[desk];
        let (session, latch) = (d.spec.session, d.spec.latch);
        if let Some(since) = std::mem::replace(&mut d.hold, Hold::Idle).armed_since() {
            let held = self.now.since(since);
            self.audit_aborted(session, held);
        }
        if self.runs_from(desk) && !latch {
            self.end_emergency("button-fault", None);
        }
    }

    /// Each channel is asked on its own (F16); an edge, never a level, asks (F7).
    fn ptt_pressed(&mut self, desk: usize, place: usize) {
        let d = &self.desks[desk];
        let (session, channels) = (d.spec.session, d.wanted(&d.spec.ptt[place]));
        let until = self.now + DENIED;
        if channels.is_empty() {
            let record = self.record(Action::PttDenied, session).because("no-channel-selected");
            self.audit(record);
            self.desks[desk].emergency_denied = Some(until);
        }
        let priority = self.role_of(session).has_priority();
        for channel in channels {
            let answer = self.request_floor(session, &channel, priority, None);
            let d = &mut self.desks[desk];
            if let Ok(Answer::Floor { state }) = answer {
                let burst = state.holder.expect("a grant has a holder").burst;
                d.talking.entry(place).or_default().push((channel, burst));
            } else {
                d.denied.insert(channel, until);
            }
        }
    }

    /// Gives back what this button began, unless another one that is pressed holds it too.
    fn ptt_released(&mut self, desk: usize, place: usize) {
        let d = &mut self.desks[desk];
        let session = d.spec.session;
        for begun in d.talking.remove(&place).unwrap_or_default() {
            if !self.desks[desk].talking.values().flatten().any(|other| *other == begun) {
                self.release(session, &begun.0, Some(begun.1), None);
            }
        }
    }

    fn judge(&mut self, desk: usize, verdict: Verdict) {
        let session = self.desks[desk].spec.session;
        let latch = self.desks[desk].spec.latch;
        match verdict {
            Verdict::Nothing => {}
            Verdict::Armed => self.audit_armed(session),
            Verdict::Aborted(held) => self.audit_aborted(session, held),
            Verdict::Fire => self.fire(desk),
            Verdict::FireAndRelease => {
                self.fire(desk);
                self.settle(); // two decisions: sorted together, the gates would shut before they open (F3)
                self.judge(desk, Verdict::Released);
            }
            Verdict::Missed(_) if latch => self.fire(desk),
            Verdict::Missed(held) => {
                let detail = json!({ "heldMs": u64::try_from(held.as_millis()).unwrap_or(u64::MAX) });
                let record = self.record(Action::EmergencyMissed, session).with(detail);
                self.audit(record);
                self.desks[desk].missed = true;
            }
            Verdict::Released if !latch && self.runs_from(desk) => self.end_emergency("released", None),
            Verdict::Released => {}
        }
    }

    fn fire(&mut self, desk: usize) {
        if !self.emergency_from_button(self.desks[desk].spec.session) {
            self.desks[desk].emergency_denied = Some(self.now + DENIED);
        }
    }

    fn runs_from(&self, desk: usize) -> bool {
        self.emergency.as_ref().is_some_and(|e| e.session == self.desks[desk].spec.session)
    }

    /// Edges are missing: a hold in progress is aborted, never assumed; a level that is active counts for nothing.
    pub(super) fn edges_lost(&mut self, line: &LineName, active: bool) {
        let now = self.now;
        if let Some((desk, which)) = self.find_button(line) {
            let turns = self.desks[desk].button(which).lost(line, active, now);
            self.turn(desk, which, turns);
        } else if !self.select(line, active) {
            self.edge(line, false, now);
            self.spend_carrier(line, active);
        }
    }

    /// E3: a button found active at start is a fault, never a press. A selector stands somewhere always.
    pub(super) fn active_at_start(&mut self, line: &LineName) {
        if let Some((desk, which)) = self.find_button(line) {
            let turn = self.desks[desk].button(which).active_at_start(line);
            self.turn(desk, which, turn);
        } else if !self.select(line, true) {
            self.spend_carrier(line, true);
            let detail = json!({ "line": line.as_str() });
            self.audit(Record::new(Action::GpioFault).because("active-at-start").with(detail));
        }
    }

    /// F10: losing the chip while something is pressed is a release.
    pub(super) fn line_gone(&mut self, line: &LineName) {
        self.gone.insert(line.clone());
        if let Some((desk, which)) = self.find_button(line) {
            let turn = self.desks[desk].button(which).gone(line);
            self.turn(desk, which, turn);
        } else if !self.select(line, false) {
            let now = self.now;
            self.edge(line, false, now);
        }
    }

    /// The chip is back; what is active then was pressed while nobody could see it.
    pub(super) fn line_returned(&mut self, line: &LineName, active: bool) {
        self.gone.remove(line);
        if let Some((desk, which)) = self.find_button(line) {
            let now = self.now;
            let turns = self.desks[desk].button(which).returned(line, active, now);
            self.turn(desk, which, turns);
        } else if !self.select(line, active) {
            self.edges_lost(line, active);
        }
    }

    fn spend_carrier(&mut self, line: &LineName, active: bool) {
        for port in self.ports.iter_mut().filter(|p| active && p.spec.carrier.as_ref() == Some(line)) {
            port.spent = true;
        }
    }

    /// What does not work on a desk, a sentence each: for its fault lamp and for readiness (E10).
    pub(super) fn desk_faults(&self, desk: &Desk) -> Vec<String> {
        let name = &desk.spec.name;
        let session = self.sessions.get(&desk.spec.session);
        let mut faults = Vec::new();
        let mut say = |sentence: &str| faults.push(format!("{name}: {sentence}"));
        if session.is_some_and(|s| s.disabled) {
            say("it is disabled until an administrator enables it");
        }
        if !session.is_some_and(|s| s.capture_works) {
            say("the microphone does not work");
        }
        if !session.is_some_and(|s| s.playback_works) {
            say("the loudspeaker does not work");
        }
        if desk.missed {
            say(
                "the emergency button was held for two seconds while the gateway stood still; hold it again if it is needed",
            );
        }
        if desk.lines().any(|line| self.gone.contains(line)) {
            say("its GPIO chip is gone, so buttons and lamps do not work; look at its cable");
        }
        for button in desk.buttons() {
            if let Some(fault) = button.fault().filter(|fault| *fault != Fault::ChipGone) {
                let emergency = desk.emergency.as_ref().is_some_and(|e| std::ptr::eq(e, button));
                let which = if emergency { "the emergency button" } else { "a talk button" };
                say(&format!("{which} ({}) {}", button.spec.line, fault.remedy()));
            }
        }
        faults
    }

    pub(super) fn desk_due(&self) -> impl Iterator<Item = Mono> {
        let hold = self.hold_time();
        let desks = self.desks.iter().flat_map(move |desk| {
            let buttons = desk.buttons().filter_map(|button| button.due(desk.spec.stuck_alarm));
            desk.hold.due(hold).into_iter().chain(buttons)
        });
        desks.chain(self.lamps_due)
    }

    /// Holds that are full come before buttons that are stuck, as they do in time.
    pub(super) fn desk_timeouts(&mut self) {
        let (now, hold) = (self.now, self.hold_time());
        let ran = self.emergency.is_some();
        for desk in 0..self.desks.len() {
            let d = &mut self.desks[desk];
            d.denied.retain(|_, until| now < *until);
            let verdict = d.hold.timeout(now, hold);
            self.judge(desk, verdict);
        }
        let mut settled = ran || self.emergency.is_none();
        for desk in 0..self.desks.len() {
            let d = &self.desks[desk];
            let stuck = d.spec.stuck_alarm;
            let emergency = d.emergency.as_ref().map(|_| Which::Emergency);
            let all: Vec<_> = emergency.into_iter().chain((0..d.ptt.len()).map(Which::Ptt)).collect();
            for which in all {
                if let Some(turn) = self.desks[desk].button(which).timeout(now, stuck) {
                    if !std::mem::replace(&mut settled, true) {
                        self.settle(); // after a stall a hold may fire and be stuck at once: two decisions (F3)
                    }
                    self.turn(desk, which, [turn]);
                }
            }
        }
    }
}
