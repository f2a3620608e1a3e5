//! The 2-second hold of a guarded button, judged by edge stamps alone (E2, E3).

use crate::base::Mono;
use std::time::Duration;

/// How late a full hold may be read and still fire: the figure of E2.
const PUNCTUAL: Duration = Duration::from_millis(20);

/// Where a button is in its hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// Up.
    Idle,
    /// Down since the stamp, not long enough yet.
    Armed(Mono),
    /// Held long enough; down still.
    Fired,
    /// Down, but it ended a broadcast and counts for nothing else (E8, latch).
    Spent,
}

/// What an edge or the deadline means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Nothing,
    /// The hold began.
    Armed,
    /// Let go too early, after this long.
    Aborted(Duration),
    /// Held long enough: the broadcast starts.
    Fire,
    /// Held long enough and let go within the same moment: it starts and ends.
    FireAndRelease,
    /// A full hold that was read too late to fire.
    Missed(Duration),
    /// Let go after it had fired.
    Released,
}

impl Hold {
    /// Takes a press or release with the kernel's stamp, read at `now`.
    pub(super) fn edge(&mut self, active: bool, stamp: Mono, now: Mono, hold: Duration) -> Verdict {
        match (*self, active) {
            (Hold::Idle, true) => {
                *self = Hold::Armed(stamp);
                Verdict::Armed
            }
            (Hold::Armed(since), false) => {
                *self = Hold::Idle;
                let held = stamp.since(since);
                if held < hold {
                    Verdict::Aborted(held)
                } else if now.since(since + hold) <= PUNCTUAL {
                    Verdict::FireAndRelease
                } else {
                    Verdict::Missed(held)
                }
            }
            (Hold::Fired, false) => {
                *self = Hold::Idle;
                Verdict::Released
            }
            (Hold::Spent, false) => {
                *self = Hold::Idle;
                Verdict::Nothing
            }
            (Hold::Idle, false) | (Hold::Armed(_) | Hold::Fired | Hold::Spent, true) => Verdict::Nothing,
        }
    }

    /// Since when it counts, while it does.
    pub(super) fn armed_since(self) -> Option<Mono> {
        match self {
            Hold::Armed(since) => Some(since),
            Hold::Idle | Hold::Fired | Hold::Spent => None,
        }
    }

    /// When the hold fires if nothing happens before.
    pub(super) fn due(self, hold: Duration) -> Option<Mono> {
        self.armed_since().map(|since| since + hold)
    }

    /// Fires if the deadline has come; edges that were queued have been read before.
    pub(super) fn timeout(&mut self, now: Mono, hold: Duration) -> Verdict {
        match self.due(hold) {
            Some(due) if now >= due => {
                *self = Hold::Fired;
                Verdict::Fire
            }
            Some(_) | None => Verdict::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_millis(2000);
    const fn at(ms: u64) -> Mono {
        Mono::from_millis(10_000 + ms)
    }

    #[test]
    fn a_hold_of_1999_ms_aborts_however_late_it_is_read() {
        for read_at in [1999, 2001, 60_000] {
            let mut hold = Hold::Idle;
            assert_eq!(hold.edge(true, at(0), at(0), HOLD), Verdict::Armed);
            assert_eq!(hold.edge(false, at(1999), at(read_at), HOLD), Verdict::Aborted(Duration::from_millis(1999)));
        }
    }

    #[test]
    fn a_hold_of_2000_ms_fires_at_its_deadline() {
        let mut hold = Hold::Idle;
        hold.edge(true, at(0), at(3), HOLD);
        assert_eq!(hold.due(HOLD), Some(at(2000)));
        assert_eq!(hold.timeout(at(1999), HOLD), Verdict::Nothing);
        assert_eq!(hold.timeout(at(2000), HOLD), Verdict::Fire);
        assert_eq!(hold.timeout(at(2001), HOLD), Verdict::Nothing);
        assert_eq!(hold.edge(false, at(5000), at(5000), HOLD), Verdict::Released);
    }

    #[test]
    fn a_release_at_2000_ms_fires_when_read_at_once_and_is_missed_when_read_late() {
        let mut hold = Hold::Idle;
        hold.edge(true, at(0), at(0), HOLD);
        assert_eq!(hold.edge(false, at(2000), at(2005), HOLD), Verdict::FireAndRelease);
        hold.edge(true, at(3000), at(3000), HOLD);
        assert_eq!(hold.edge(false, at(5500), at(9000), HOLD), Verdict::Missed(Duration::from_millis(2500)));
    }
}
