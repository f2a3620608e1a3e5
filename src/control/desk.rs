//! A desk's buttons: PTT with priority (F6, F16) and the guarded emergency button (E2, E3, E8).

use super::hold::{Hold, Verdict};
use super::{Control, DeskSpec, MIN_HOLD};
use crate::base::{Action, ChannelId, LineName, Mono, Record};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;

/// Half a period of the emergency lamp while the hold counts (E3).
const BLINK: Duration = Duration::from_millis(125);

/// What a desk's buttons are doing.
#[derive(Debug)]
pub(super) struct Desk {
    pub spec: DeskSpec,
    pub hold: Hold,
    /// PTT buttons that count for nothing until they are released (E3, F7).
    spent: BTreeSet<LineName>,
    down: BTreeSet<LineName>,
}

impl Desk {
    pub(super) fn new(spec: DeskSpec) -> Self {
        Desk { spec, hold: Hold::Idle, spent: BTreeSet::new(), down: BTreeSet::new() }
    }

    /// While the hold counts: whether the lamp is lit now, and when it changes.
    pub(super) fn arming_blink(&self, now: Mono) -> Option<(bool, Mono)> {
        let Hold::Armed(since) = self.hold else { return None };
        let half_periods = u32::try_from(now.since(since).as_nanos() / BLINK.as_nanos()).unwrap_or(u32::MAX);
        Some((half_periods.is_multiple_of(2), since + BLINK * (half_periods + 1)))
    }
}

impl Control {
    fn hold_time(&self) -> Duration {
        self.settings.tuning.emergency_hold.max(MIN_HOLD)
    }

    /// Routes an input line's edge to the desk or port that owns it.
    pub(super) fn edge(&mut self, line: &LineName, active: bool, stamp: Mono) {
        if let Some(desk) = self.desks.iter().position(|d| d.spec.emergency.as_ref() == Some(line)) {
            let (now, hold) = (self.now, self.hold_time());
            if active && self.desks[desk].spec.latch && self.runs_from(desk) {
                self.desks[desk].hold = Hold::Spent;
                return self.end_emergency("released", None);
            }
            let verdict = self.desks[desk].hold.edge(active, stamp, now, hold);
            return self.judge(desk, verdict);
        }
        let ptt = self.desks.iter().enumerate().find_map(|(i, d)| {
            let (_, channels) = d.spec.ptt.iter().find(|(l, _)| l == line)?;
            Some((i, channels.clone()))
        });
        if let Some((desk, channels)) = ptt {
            return self.desk_ptt(desk, line, &channels, active);
        }
        if let Some(session) = self.ports.iter().find(|p| p.spec.carrier.as_ref() == Some(line)).map(|p| p.spec.session)
        {
            self.carrier(session, active, stamp);
        }
    }

    /// Each channel is asked on its own (F16); an edge, never a level, asks (F7).
    fn desk_ptt(&mut self, desk: usize, line: &LineName, channels: &[ChannelId], active: bool) {
        let d = &mut self.desks[desk];
        let session = d.spec.session;
        if active {
            if d.spent.contains(line) || !d.down.insert(line.clone()) {
                return;
            }
            let priority = self.role_of(session).has_priority();
            for channel in channels {
                self.request_floor(session, channel, priority, None).ok();
            }
        } else {
            d.spent.remove(line);
            if d.down.remove(line) {
                for channel in channels {
                    self.release(session, channel, None, None);
                }
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
            Verdict::Fire => self.emergency_from_button(session),
            Verdict::FireAndRelease => {
                self.emergency_from_button(session);
                self.settle(); // two decisions: sorted together, the gates would shut before they open (F3)
                self.judge(desk, Verdict::Released);
            }
            Verdict::Missed(_) if latch => self.emergency_from_button(session),
            Verdict::Missed(held) => {
                let detail = json!({ "heldMs": u64::try_from(held.as_millis()).unwrap_or(u64::MAX) });
                let record = self.record(Action::EmergencyMissed, session).with(detail);
                self.audit(record);
            }
            Verdict::Released if !latch && self.runs_from(desk) => self.end_emergency("released", None),
            Verdict::Released => {}
        }
    }

    fn runs_from(&self, desk: usize) -> bool {
        self.emergency.as_ref().is_some_and(|e| e.session == self.desks[desk].spec.session)
    }

    /// Edges are missing: a hold in progress is aborted, never assumed; a level that is active counts for nothing.
    pub(super) fn edges_lost(&mut self, line: &LineName, active: bool) {
        for i in 0..self.desks.len() {
            if self.desks[i].spec.emergency.as_ref() == Some(line) {
                if let Hold::Armed(since) = self.desks[i].hold {
                    let (session, held) = (self.desks[i].spec.session, self.now.since(since));
                    self.audit_aborted(session, held);
                }
                if self.runs_from(i) && !self.desks[i].spec.latch {
                    self.end_emergency("button-fault", None);
                }
                self.desks[i].hold = if active { Hold::Spent } else { Hold::Idle };
            }
        }
        let now = self.now;
        self.edge(line, false, now);
        if active {
            self.spend(line);
        }
    }

    /// E3: a button found active at start is a fault, never a press.
    pub(super) fn active_at_start(&mut self, line: &LineName) {
        self.spend(line);
        let record = Record::new(Action::GpioFault).because("active-at-start").with(json!({ "line": line.as_str() }));
        self.audit(record);
    }

    fn spend(&mut self, line: &LineName) {
        for desk in &mut self.desks {
            if desk.spec.emergency.as_ref() == Some(line) {
                desk.hold = Hold::Spent;
            } else if desk.spec.ptt.iter().any(|(l, _)| l == line) {
                desk.spent.insert(line.clone());
            }
        }
        for port in self.ports.iter_mut().filter(|p| p.spec.carrier.as_ref() == Some(line)) {
            port.spent = true;
        }
    }

    pub(super) fn desk_due(&self) -> impl Iterator<Item = Mono> {
        let hold = self.hold_time();
        self.desks
            .iter()
            .flat_map(move |d| [d.hold.due(hold), d.arming_blink(self.now).map(|(_, at)| at)].into_iter().flatten())
    }

    pub(super) fn desk_timeouts(&mut self) {
        let (now, hold) = (self.now, self.hold_time());
        for desk in 0..self.desks.len() {
            let verdict = self.desks[desk].hold.timeout(now, hold);
            self.judge(desk, verdict);
        }
    }
}
