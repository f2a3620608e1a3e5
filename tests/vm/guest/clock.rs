//! The wall clock is set while the gateway runs, as by a time server that comes late, and back again as by hand.

use crate::bench::Bench;
use anyhow::{Context, Result, ensure};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

const HOUR_S: i64 = 3600;

fn set_clock(by_s: i64) -> Result<()> {
    let now_s = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    let set = Command::new("date").args(["-u", "-s", &format!("@{}", now_s + by_s)]).output()?;
    ensure!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
    Ok(())
}

#[tokio::test]
async fn a_clock_that_is_set_is_in_the_audit_with_the_step_and_cuts_nobody_off() -> Result<()> {
    let bench = Bench::start().await?;
    bench.chip.move_line("desk.ptt.ops", true)?;
    bench.wait_count("priority_ptt.start", 1).await?;
    for (count, hours) in [(1, 2), (2, -2)] {
        set_clock(hours * HOUR_S)?;
        bench.wait_count("system.clock_step", count).await?;
    }
    assert_eq!(bench.count("ptt.stop")?, 0, "a clock that is set cuts nobody off");
    bench.chip.move_line("desk.ptt.ops", false)?;
    bench.wait_count("ptt.stop", 1).await?;

    let rows = bench.gateway.audit()?;
    let steps = rows.iter().filter(|row| row.action == "system.clock_step");
    let by_s: Vec<_> = steps.map(|row| row.detail["byMs"].as_i64().unwrap_or(0) / 1000).collect();
    // `date` sets whole seconds, and takes its time.
    for (found, hours) in by_s.iter().zip([2, -2]) {
        ensure!((found - hours * HOUR_S).abs() < 60, "{by_s:?}");
    }
    let stop = rows.iter().find(|row| row.action == "ptt.stop").context("no stop")?;
    ensure!(stop.detail["durationMs"].as_u64().is_some_and(|ms| ms < 600_000), "{stop:?}");
    ensure!(rows.is_sorted_by_key(|row| &row.utc), "wall time went back: {rows:#?}");
    Ok(())
}
