//! A desk's button, made of one contact or of two, as clean presses and releases (E3, E8).
//!
//! Decides what counts as pressed and what is wrong with a button, by stamps alone. It never decides what a press means.
//!
//! **Invariant:** what is pressed by a fault, at start or after lost edges counts for nothing until it was let go.

use super::ButtonSpec;
use crate::base::{LineName, Mono};
use std::time::Duration;

/// Two contacts that disagree for longer than this have a broken wire; changing over takes a few milliseconds.
pub(super) const CHANGE_OVER: Duration = Duration::from_millis(50);

/// Why a button counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It was found pressed when the gateway started (E3).
    ActiveAtStart,
    /// Edges were lost, and it is pressed now.
    EdgesLost,
    /// Its two contacts contradict each other.
    WireBreak,
    /// It has been pressed for too long.
    Stuck,
    /// The chip of its line is gone.
    ChipGone,
}

impl Fault {
    /// The word in the audit.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Fault::ActiveAtStart => "active-at-start",
            Fault::EdgesLost => "edges-lost",
            Fault::WireBreak => "wire-break",
            Fault::Stuck => "stuck",
            Fault::ChipGone => "chip-gone",
        }
    }

    /// What people are told to do.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Fault::ActiveAtStart => "was pressed at start; let go of it, or look at its wiring",
            Fault::EdgesLost => "moved too fast to follow; let go of it and press again",
            Fault::WireBreak => "has a broken wire: its two contacts contradict each other; look at its wiring",
            Fault::Stuck => "is stuck; let go of it, or look at its wiring",
            Fault::ChipGone => "cannot be read, its GPIO chip is gone; plug it in again",
        }
    }
}

/// What became of a button.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Pressed at that moment.
    Pressed(Mono),
    /// Let go.
    Released {
        /// Pressed since.
        since: Mono,
        /// Let go at.
        at: Mono,
    },
    /// It counts for nothing from now on; whatever was going on has ended.
    Broken {
        /// Why.
        fault: Fault,
        /// Pressed since, if it was pressed.
        since: Option<Mono>,
    },
    /// It counts again.
    Healed,
}

/// One contact.
#[derive(Clone, Copy, Debug, Default)]
struct Contact {
    active: bool,
    gone: bool,
}

/// A button and what it is doing.
#[derive(Debug)]
pub(super) struct Button {
    pub spec: ButtonSpec,
    first: Contact,
    /// The contact that opens when the first one closes; stays at rest if there is none.
    second: Contact,
    pressed: Option<Mono>,
    /// Since when the contacts disagree.
    split: Option<Mono>,
    fault: Option<Fault>,
}

impl Button {
    pub(super) fn new(spec: ButtonSpec) -> Self {
        let (first, second) = (Contact::default(), Contact::default());
        Button { spec, first, second, pressed: None, split: None, fault: None }
    }

    pub(super) fn has(&self, line: &LineName) -> bool {
        self.spec.line == *line || self.spec.opening.as_ref() == Some(line)
    }

    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    fn contact(&mut self, line: &LineName) -> &mut Contact {
        if self.spec.line == *line { &mut self.first } else { &mut self.second }
    }

    fn is_anywhere_active(&self) -> bool {
        self.first.active || self.second.active
    }

    fn is_everywhere_active(&self) -> bool {
        self.first.active && (self.second.active || self.spec.opening.is_none())
    }

    /// A contact changed.
    pub(super) fn edge(&mut self, line: &LineName, active: bool, stamp: Mono, stuck: Duration) -> Vec<Turn> {
        let mut turns = Vec::new();
        if self.due(stuck).is_some_and(|due| due < stamp) {
            turns.extend(self.timeout(stamp, stuck));
        }
        self.contact(line).active = active;
        self.follow(stamp, &mut turns);
        turns
    }

    /// Brings the button in line with its contacts.
    fn follow(&mut self, stamp: Mono, turns: &mut Vec<Turn>) {
        let (any, all) = (self.is_anywhere_active(), self.is_everywhere_active());
        self.split = (any != all).then(|| self.split.unwrap_or(stamp));
        if !all && let Some(since) = self.pressed.take() {
            turns.push(Turn::Released { since, at: stamp });
        }
        match self.fault {
            Some(_) if !any && !self.first.gone && !self.second.gone => {
                self.fault = None;
                turns.push(Turn::Healed);
            }
            None if all && self.pressed.is_none() => {
                self.pressed = Some(stamp);
                turns.push(Turn::Pressed(stamp));
            }
            Some(_) | None => {}
        }
    }

    /// When something is wrong if nothing happens before.
    pub(super) fn due(&self, stuck: Duration) -> Option<Mono> {
        let split = self.split.filter(|_| self.fault.is_none()).map(|since| since + CHANGE_OVER);
        split.into_iter().chain(self.pressed.map(|since| since + stuck)).min()
    }

    /// Takes what is due at `now`; edges that were queued have been read before.
    pub(super) fn timeout(&mut self, now: Mono, stuck: Duration) -> Option<Turn> {
        if self.due(stuck).is_none_or(|due| now < due) {
            return None;
        }
        Some(self.break_by(if self.pressed.is_some() { Fault::Stuck } else { Fault::WireBreak }))
    }

    fn break_by(&mut self, fault: Fault) -> Turn {
        self.fault = Some(fault);
        Turn::Broken { fault, since: self.pressed.take() }
    }

    /// Edges of a contact are missing; this is its level now.
    pub(super) fn lost(&mut self, line: &LineName, active: bool, now: Mono) -> Vec<Turn> {
        let mut turns = vec![self.break_by(Fault::EdgesLost)];
        self.contact(line).active = active;
        self.follow(now, &mut turns);
        turns
    }

    /// Found active at start.
    pub(super) fn active_at_start(&mut self, line: &LineName) -> Option<Turn> {
        self.contact(line).active = true;
        self.fault.is_none().then(|| self.break_by(Fault::ActiveAtStart))
    }

    /// The chip of a contact is gone.
    pub(super) fn gone(&mut self, line: &LineName) -> Option<Turn> {
        *self.contact(line) = Contact { active: false, gone: true };
        self.split = None;
        (self.fault != Some(Fault::ChipGone)).then(|| self.break_by(Fault::ChipGone))
    }

    /// The chip of a contact is back, and this is its level.
    pub(super) fn returned(&mut self, line: &LineName, active: bool, now: Mono) -> Vec<Turn> {
        *self.contact(line) = Contact { active, gone: false };
        let mut turns = Vec::new();
        if !self.first.gone && !self.second.gone && self.is_anywhere_active() {
            turns.push(self.break_by(Fault::ActiveAtStart));
        }
        self.follow(now, &mut turns);
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STUCK: Duration = Duration::from_secs(120);

    const fn at(ms: u64) -> Mono {
        Mono::from_millis(10_000 + ms)
    }

    fn one() -> Button {
        Button::new(ButtonSpec { line: "b".into(), opening: None })
    }

    fn two() -> Button {
        Button::new(ButtonSpec { line: "b".into(), opening: Some("b.nc".into()) })
    }

    fn edge(button: &mut Button, line: &str, active: bool, ms: u64) -> Vec<Turn> {
        button.edge(&line.into(), active, at(ms), STUCK)
    }

    #[test]
    fn one_contact_is_a_press_and_a_release() {
        let mut b = one();
        assert_eq!(edge(&mut b, "b", true, 0), [Turn::Pressed(at(0))]);
        assert_eq!(edge(&mut b, "b", false, 80), [Turn::Released { since: at(0), at: at(80) }]);
    }

    #[test]
    fn two_contacts_are_pressed_when_both_have_changed_and_released_when_one_has() {
        let mut b = two();
        assert_eq!(edge(&mut b, "b.nc", true, 0), []);
        assert_eq!(b.due(STUCK), Some(at(50)));
        assert_eq!(edge(&mut b, "b", true, 4), [Turn::Pressed(at(4))]);
        assert_eq!(edge(&mut b, "b", false, 3000), [Turn::Released { since: at(4), at: at(3000) }]);
        assert_eq!(edge(&mut b, "b.nc", false, 3005), []);
        assert_eq!(b.due(STUCK), None);
    }

    #[test]
    fn contacts_that_disagree_for_longer_than_50_ms_are_a_broken_wire_and_never_a_press() {
        let mut b = two();
        edge(&mut b, "b.nc", true, 0);
        assert_eq!(b.timeout(at(49), STUCK), None);
        let broken = Turn::Broken { fault: Fault::WireBreak, since: None };
        assert_eq!(b.timeout(at(50), STUCK), Some(broken));
        assert_eq!(edge(&mut b, "b", true, 60), [], "both are active, but the wire is not to be trusted");
        assert_eq!(edge(&mut b, "b", false, 70), []);
        assert_eq!(edge(&mut b, "b.nc", false, 90), [Turn::Healed]);
        let mut read_late = two();
        edge(&mut read_late, "b.nc", true, 0);
        assert_eq!(edge(&mut read_late, "b", true, 51), [broken], "judged by stamps, however late they are read");
        let mut in_time = two();
        edge(&mut in_time, "b.nc", true, 0);
        assert_eq!(edge(&mut in_time, "b", true, 50), [Turn::Pressed(at(50))]);
    }

    #[test]
    fn a_wire_that_breaks_while_pressed_is_a_release() {
        let mut b = two();
        edge(&mut b, "b.nc", true, 0);
        edge(&mut b, "b", true, 2);
        assert_eq!(edge(&mut b, "b", false, 500), [Turn::Released { since: at(2), at: at(500) }]);
        assert_eq!(b.timeout(at(550), STUCK), Some(Turn::Broken { fault: Fault::WireBreak, since: None }));
    }

    #[test]
    fn a_button_that_is_pressed_for_too_long_is_stuck_until_it_is_let_go() {
        let mut b = one();
        edge(&mut b, "b", true, 0);
        assert_eq!(b.timeout(at(119_999), STUCK), None);
        let broken = Turn::Broken { fault: Fault::Stuck, since: Some(at(0)) };
        assert_eq!(b.timeout(at(120_000), STUCK), Some(broken));
        assert_eq!(b.due(STUCK), None);
        assert_eq!(edge(&mut b, "b", false, 130_000), [Turn::Healed]);
        assert_eq!(edge(&mut b, "b", true, 131_000), [Turn::Pressed(at(131_000))]);
        let mut read_late = one();
        edge(&mut read_late, "b", true, 0);
        assert_eq!(edge(&mut read_late, "b", false, 120_001), [broken, Turn::Healed]);
    }

    #[test]
    fn lost_edges_end_what_was_pressed_and_what_is_active_now_counts_for_nothing() {
        let mut b = one();
        edge(&mut b, "b", true, 0);
        let lost = Turn::Broken { fault: Fault::EdgesLost, since: Some(at(0)) };
        assert_eq!(b.lost(&"b".into(), true, at(100)), [lost]);
        assert_eq!(edge(&mut b, "b", false, 200), [Turn::Healed]);
        edge(&mut b, "b", true, 300);
        let lost = Turn::Broken { fault: Fault::EdgesLost, since: Some(at(300)) };
        assert_eq!(b.lost(&"b".into(), false, at(400)), [lost, Turn::Healed]);
    }

    #[test]
    fn a_chip_that_goes_is_a_release_and_its_return_heals() {
        let mut b = two();
        edge(&mut b, "b.nc", true, 0);
        edge(&mut b, "b", true, 2);
        let gone = Turn::Broken { fault: Fault::ChipGone, since: Some(at(2)) };
        assert_eq!(b.gone(&"b".into()), Some(gone));
        assert_eq!(b.gone(&"b.nc".into()), None, "said once");
        assert_eq!(b.returned(&"b".into(), false, at(500)), [], "the other contact is still missing");
        assert_eq!(b.returned(&"b.nc".into(), false, at(501)), [Turn::Healed]);
        b.gone(&"b".into());
        b.gone(&"b.nc".into());
        b.returned(&"b".into(), true, at(900));
        let held = Turn::Broken { fault: Fault::ActiveAtStart, since: None };
        assert_eq!(b.returned(&"b.nc".into(), true, at(901)), [held], "pressed while it was away: never a press");
        edge(&mut b, "b", false, 950);
        assert_eq!(edge(&mut b, "b.nc", false, 951), [Turn::Healed]);
    }

    #[test]
    fn active_at_start_is_a_fault_until_it_is_let_go() {
        let mut b = one();
        let held = Turn::Broken { fault: Fault::ActiveAtStart, since: None };
        assert_eq!(b.active_at_start(&"b".into()), Some(held));
        assert_eq!(edge(&mut b, "b", false, 10), [Turn::Healed]);
    }
}
