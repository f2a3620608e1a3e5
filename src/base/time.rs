//! Time as plain values. Nothing here reads a clock; see [`super::clock`].

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock that kernel GPIO edges are stamped with (F17).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(pub u64);

impl Mono {
    /// A literal for tests and transcripts: `ms` milliseconds after boot.
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Mono(ms * 1_000_000)
    }

    /// Milliseconds since boot, rounded down.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, d: Duration) -> Mono {
        Mono(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Mono {
    type Output = Mono;
    fn sub(self, d: Duration) -> Mono {
        Mono(self.0.saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for Mono {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}ms", self.0 / 1_000_000, self.0 / 1_000 % 1_000)
    }
}

/// Wall time for people and records. Never used to judge anything (F17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallStamp {
    /// Milliseconds since 1970, UTC.
    pub unix_ms: u64,
    /// True while the system says that its clock is synchronised.
    pub synchronised: bool,
}
