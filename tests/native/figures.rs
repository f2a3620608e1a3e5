//! Figures about a process, from `/proc`, and about many samples.

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::time::Duration;

/// Linux counts CPU time in hundredths of a second towards programs, whatever the machine.
const TICK: Duration = Duration::from_millis(10);

/// The CPU time a process has used, in the kernel and outside.
pub fn cpu(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The program's name may hold spaces, but nothing after it does.
    let (_, rest) = stat.rsplit_once(") ").context("no name in stat")?;
    let mut fields = rest.split(' ').skip(11);
    let mut ticks = || fields.next().and_then(|field| field.parse::<u32>().ok()).context("no time in stat");
    Ok(TICK * (ticks()? + ticks()?))
}

/// The CPU time of each thread of a process, by name.
pub fn cpu_by_thread(pid: u32) -> Result<BTreeMap<String, Duration>> {
    let mut times = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        let name = std::fs::read_to_string(task.join("comm"))?.trim().to_owned();
        *times.entry(name).or_default() += schedstat(&std::fs::read_to_string(task.join("schedstat"))?)?;
    }
    Ok(times)
}

/// How often each thread of a process went to sleep, by name: so often it was woken.
pub fn sleeps_by_thread(pid: u32) -> Result<BTreeMap<String, u64>> {
    let mut sleeps = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        let name = std::fs::read_to_string(task.join("comm"))?.trim().to_owned();
        let status = std::fs::read_to_string(task.join("status"))?;
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        *sleeps.entry(name).or_default() += count.context("no switches in status")?.trim().parse::<u64>()?;
    }
    Ok(sleeps)
}

/// The CPU time of the thread that asks.
pub fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.try_into().unwrap_or(0))
}

fn schedstat(text: &str) -> Result<Duration> {
    let nanoseconds = text.split(' ').next().and_then(|field| field.parse().ok());
    Ok(Duration::from_nanos(nanoseconds.context("no time in schedstat")?))
}

/// The memory of a process that is in RAM, in kB.
pub fn rss_kb(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in status")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// The value that the share `q` of the samples does not exceed, in the unit that `unit` is one of; sorts them.
pub fn percentile(samples: &mut [Duration], q: f64, unit: Duration) -> f64 {
    samples.sort_unstable();
    let place = (samples.len().saturating_sub(1) as f64 * q).round() as usize;
    samples.get(place).map_or(f64::NAN, |sample| sample.as_secs_f64() / unit.as_secs_f64())
}

/// Milliseconds, with fractions.
pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
