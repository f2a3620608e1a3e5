//! What the gateway itself has to tell an inquiry, besides what the core decides: how fast a talker was cut off, whether
//! the clock was set, which configuration it runs with.
//!
//! It watches inputs and effects pass and makes records of them; it changes nothing and decides nothing.

use crate::audit::Digest;
use crate::base::clock::{mono_now, unix_ms_now};
use crate::base::{Action, BurstId, ChannelId, Mono, Record, UserId};
use crate::media::gates::BurstCount;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use serde_json::{Value, json};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// A jump of wall time against monotonic time that is told, in ms. Slewing moves both alike.
const STEP_MS: i64 = 100;
/// Clocks that were read further apart than this say nothing.
const APART: Duration = Duration::from_millis(5);

/// Somebody is cut off, and somebody else talks in their place.
struct Cut {
    channel: ChannelId,
    /// By whom, and who is cut off.
    by: Option<UserId>,
    interrupted: Option<UserId>,
    old: BurstId,
    /// When the edge was, or when the request was read.
    asked: Mono,
    shut: Option<Mono>,
    new: Option<BurstId>,
}

/// See the module's text.
#[derive(Default)]
pub struct Witness {
    /// When what is being carried out was asked for.
    asked: Mono,
    cuts: Vec<Cut>,
}

impl Witness {
    /// From now on what happens was asked for then: the stamp of an edge, the reading of a request.
    pub fn asked(&mut self, at: Mono) {
        self.asked = at;
    }

    /// A record goes out: does it say that somebody is cut off?
    pub fn record(&mut self, record: &Record) {
        if record.action == Action::PriorityPttInterrupted
            && let (Some(channel), Some(old)) = (&record.channel, record.burst)
        {
            self.cuts.push(Cut {
                channel: channel.clone(),
                by: record.target.clone(),
                interrupted: record.actor.clone(),
                old,
                asked: self.asked,
                shut: None,
                new: None,
            });
        }
    }

    /// A gate is open for a burst.
    pub fn opened(&mut self, channel: &ChannelId, burst: BurstId) {
        let cut = self.cuts.iter_mut().find(|cut| cut.channel == *channel && cut.new.is_none());
        if let Some(cut) = cut {
            cut.new = Some(burst);
        }
    }

    /// A gate was shut `now`. At the end of a burst that has cut off another one: how fast that was.
    #[must_use]
    pub fn shut(
        &mut self,
        channel: &ChannelId,
        burst: BurstId,
        now: Mono,
        count: Option<&BurstCount>,
    ) -> Option<Record> {
        if let Some(cut) = self.cuts.iter_mut().find(|cut| cut.channel == *channel && cut.old == burst) {
            cut.shut = Some(now);
        }
        let ended = self.cuts.iter().position(|cut| cut.channel == *channel && cut.new == Some(burst))?;
        let Cut { by, interrupted, old, asked, shut, .. } = self.cuts.swap_remove(ended);
        let first = count.and_then(|count| count.first_packet).map(|at| now - at.elapsed());
        let after = |at: Option<Mono>| at.map_or(Value::Null, |at| ms(at.since(asked)));
        let mut record = Record::new(Action::PriorityPttMeasured).on(channel).in_burst(burst).with(json!({
            "interruptedBurst": old.to_string(),
            "requestToShutMs": after(shut),
            "requestToFirstPacketMs": after(first),
            "packets": count.map(|count| count.received),
        }));
        (record.actor, record.target) = (by, interrupted);
        Some(record)
    }
}

/// The record of the configuration that the gateway starts with: the demo has no file.
#[must_use]
pub fn config_loaded(file: Option<&Path>) -> Record {
    let sha256 = file.and_then(|file| std::fs::read(file).ok()).map(|text| Digest::of(&text).to_string());
    Record::new(Action::SystemConfigLoaded).with(json!({ "file": file, "sha256": sha256 }))
}

/// Milliseconds with three places.
fn ms(time: Duration) -> Value {
    json!((time.as_secs_f64() * 1_000_000.0).round() / 1000.0)
}

/// Sees that the wall clock was set, when it is set: the kernel ends the wait for a time of that clock then.
pub struct ClockWatch {
    timer: AsyncFd<OwnedFd>,
    offset: Offset,
}

impl ClockWatch {
    /// Watches from now on. Needs the loop's runtime around it.
    ///
    /// # Errors
    /// If the system has no timer to give.
    pub fn new() -> std::io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Realtime, flags)?;
        let never = Timespec { tv_sec: i64::MAX, tv_nsec: 0 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: never };
        timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &once)?;
        #[expect(deprecated, reason = "its heir is unsafe for types that close early; an owned descriptor does not")]
        let timer = AsyncFd::new(timer)?;
        let mut watch = ClockWatch { timer, offset: Offset(None) };
        watch.offset.look();
        Ok(watch)
    }

    /// Waits until the clock is set by so much that it is told; by how many ms, and from which time in ms since 1970.
    pub async fn is_set(&mut self) -> Step {
        loop {
            match self.timer.readable().await {
                Ok(mut ready) => {
                    // That the timer was cancelled is all that it ever says.
                    let _cancelled = ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut [0_u8; 8])?));
                    ready.clear_ready();
                }
                Err(e) => {
                    tracing::error!("nobody sees any more whether the clock is set: {e}");
                    std::future::pending().await
                }
            }
            if let Some(step) = self.offset.look() {
                return step;
            }
        }
    }
}

/// The clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// By so many ms.
    pub by_ms: i64,
    /// To this time, in ms since 1970.
    pub to_ms: u64,
}

/// Wall time less monotonic time, in ms, when it was last looked at.
struct Offset(Option<i64>);

impl Offset {
    /// By how much the clock was set since the last look.
    fn look(&mut self) -> Option<Step> {
        loop {
            let (before, unix_ms, after) = (mono_now(), unix_ms_now(), mono_now());
            if after.since(before) <= APART {
                return self.compare(after, unix_ms);
            }
            // Interrupted between the two: they say nothing.
        }
    }

    fn compare(&mut self, mono: Mono, unix_ms: u64) -> Option<Step> {
        let offset = i64::try_from(unix_ms).ok()?.saturating_sub(i64::try_from(mono.as_millis()).ok()?);
        let by_ms = offset - self.0.replace(offset).unwrap_or(offset);
        (by_ms.abs() >= STEP_MS).then_some(Step { by_ms, to_ms: unix_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_seen_once() {
        let mut offset = Offset(None);
        let mut by_ms = |mono, unix_ms| offset.compare(Mono::from_millis(mono), unix_ms).map(|step| step.by_ms);
        assert_eq!(by_ms(1_000, 5_000), None);
        assert_eq!(by_ms(9_000, 13_040), None);
        assert_eq!(by_ms(10_000, 1_700_000_000_000), Some(1_699_999_985_960));
        assert_eq!(by_ms(11_000, 1_700_000_001_000), None);
        assert_eq!(by_ms(12_000, 1_699_999_999_000), Some(-3_000));
    }
}
