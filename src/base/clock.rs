//! The only place that reads clocks. **Invariant:** `control` never imports it; time is handed in.

use super::time::{Mono, WallStamp};
use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The time now on `CLOCK_MONOTONIC`.
#[must_use]
pub fn mono_now() -> Mono {
    let t = clock_gettime(ClockId::Monotonic);
    Mono(u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0))
}

/// The system's wall clock in milliseconds since 1970.
#[must_use]
pub fn unix_ms_now() -> u64 {
    let t = clock_gettime(ClockId::Realtime);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(t.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Where `systemd-timesyncd` leaves its mark once it has set the clock.
const SYNCHRONISED_MARK: &str = "/run/systemd/timesync/synchronized";

/// The system's wall clock as it is, and whether it can be trusted.
#[must_use]
pub fn wall_now() -> WallStamp {
    WallStamp { unix_ms: unix_ms_now(), synchronised: std::path::Path::new(SYNCHRONISED_MARK).exists() }
}

/// Wall time that never goes back (F17: boards have no battery clock): the later of the system's and the latest that was
/// handed out or stored. Clones are one and the same.
#[derive(Clone, Debug, Default)]
pub struct Wall(Arc<AtomicU64>);

impl Wall {
    /// Never goes behind this time any more, in milliseconds since 1970.
    pub fn at_least(&self, unix_ms: u64) {
        self.0.fetch_max(unix_ms, Ordering::Relaxed);
    }

    /// The latest time that was handed out or stored, in milliseconds since 1970.
    #[must_use]
    pub fn latest_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> WallStamp {
        let system = wall_now();
        let before = self.0.fetch_max(system.unix_ms, Ordering::Relaxed);
        WallStamp { unix_ms: system.unix_ms.max(before), ..system }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_never_goes_behind_what_was_stored() {
        let wall = Wall::default();
        assert!(wall.now().unix_ms >= unix_ms_now() - 60_000);
        let later = unix_ms_now() + 3_600_000;
        wall.clone().at_least(later);
        wall.at_least(later - 1);
        assert_eq!((wall.now().unix_ms, wall.latest_ms()), (later, later));
    }
}
