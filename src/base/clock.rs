//! The only place that reads clocks. **Invariant:** `control` never imports it; time is handed in.

use super::time::{Mono, WallStamp};
use rustix::time::{ClockId, clock_gettime};

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

/// Wall time that never goes behind `floor_unix_ms`, the last time the gateway stored (F17: boards
/// have no battery clock).
#[must_use]
pub fn wall_now(floor_unix_ms: u64) -> WallStamp {
    WallStamp {
        unix_ms: unix_ms_now().max(floor_unix_ms),
        synchronised: std::path::Path::new(SYNCHRONISED_MARK).exists(),
    }
}
