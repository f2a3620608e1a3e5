//! Carrier with attack and release times: a level counts once it has lasted long enough.

use crate::base::Mono;
use std::time::Duration;

/// A debounced level, judged by stamps.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Squelch {
    raw: bool,
    since: Mono,
    open: bool,
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
    pub(super) fn due(&self, attack: Duration, release: Duration) -> Option<Mono> {
        (self.raw != self.open).then(|| self.since + if self.raw { attack } else { release })
    }

    /// Follows the raw level if it has lasted; true if that changed anything.
    pub(super) fn timeout(&mut self, now: Mono, attack: Duration, release: Duration) -> bool {
        let changed = self.due(attack, release).is_some_and(|due| now >= due);
        self.open ^= changed;
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_counts_after_it_has_lasted() {
        let (attack, release) = (Duration::from_millis(20), Duration::from_millis(500));
        let mut squelch = Squelch::default();
        squelch.raw(true, Mono::from_millis(100));
        squelch.raw(false, Mono::from_millis(110)); // a click
        assert_eq!(squelch.due(attack, release), None);
        squelch.raw(true, Mono::from_millis(200));
        assert!(!squelch.timeout(Mono::from_millis(219), attack, release));
        assert!(squelch.timeout(Mono::from_millis(220), attack, release));
        assert!(squelch.is_open());
        squelch.raw(false, Mono::from_millis(300));
        assert_eq!(squelch.due(attack, release), Some(Mono::from_millis(800)));
    }
}
