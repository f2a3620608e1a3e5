//! Carrier with attack and release times: a level counts once it has lasted long enough, and a burst that is over
//! before the flap time counts for nothing.

use crate::base::Mono;
use std::time::Duration;

/// How long levels must last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Present, to open.
    pub attack: Duration,
    /// Gone, to close.
    pub release: Duration,
    /// Present, to be more than a flap; counted from the same edge as the attack.
    pub flap: Duration,
}

/// A debounced level, judged by stamps.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Squelch {
    raw: bool,
    since: Mono,
    open: bool,
    /// The edge that opened it.
    began: Mono,
}

impl Squelch {
    /// The raw level changed.
    pub(super) fn raw(&mut self, active: bool, stamp: Mono) {
        if self.raw != active {
            (self.raw, self.since) = (active, stamp);
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// When the raw level will count.
    pub(super) fn due(&self, times: Times) -> Option<Mono> {
        (self.raw != self.open).then(|| self.since + if self.raw { times.attack } else { times.release })
    }

    /// Follows the raw level if it has lasted; true if that changed anything.
    pub(super) fn timeout(&mut self, now: Mono, times: Times) -> bool {
        let changed = self.due(times).is_some_and(|due| now >= due);
        self.open ^= changed;
        if changed && self.open {
            self.began = self.since;
        }
        changed
    }

    /// From when on an open squelch is more than a flap; never while the level is gone and only its release keeps it open.
    pub(super) fn is_no_flap_from(&self, times: Times) -> Option<Mono> {
        (self.open && self.raw).then(|| self.began + times.flap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times {
        attack: Duration::from_millis(20),
        release: Duration::from_millis(500),
        flap: Duration::from_millis(80),
    };

    #[test]
    fn a_level_counts_after_it_has_lasted() {
        let mut squelch = Squelch::default();
        squelch.raw(true, Mono::from_millis(100));
        squelch.raw(false, Mono::from_millis(110)); // a click
        assert_eq!(squelch.due(TIMES), None);
        squelch.raw(true, Mono::from_millis(200));
        assert!(!squelch.timeout(Mono::from_millis(219), TIMES));
        assert!(squelch.timeout(Mono::from_millis(220), TIMES));
        assert!(squelch.is_open());
        squelch.raw(false, Mono::from_millis(300));
        assert_eq!(squelch.due(TIMES), Some(Mono::from_millis(800)));
    }

    #[test]
    fn a_flap_is_judged_by_the_level_and_not_by_the_time_that_its_release_adds() {
        let mut squelch = Squelch::default();
        squelch.raw(true, Mono::from_millis(200));
        assert!(squelch.timeout(Mono::from_millis(220), TIMES));
        assert_eq!(squelch.is_no_flap_from(TIMES), Some(Mono::from_millis(280)));
        squelch.raw(false, Mono::from_millis(250));
        assert_eq!(squelch.is_no_flap_from(TIMES), None, "open until 750, but gone");
        squelch.raw(true, Mono::from_millis(400));
        assert_eq!(squelch.is_no_flap_from(TIMES), Some(Mono::from_millis(280)), "it came back");
    }
}
