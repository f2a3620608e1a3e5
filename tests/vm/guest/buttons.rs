//! Buttons, lamps and keying through the kernel's character device.

use crate::bench::{Bench, SOON};
use anyhow::{Result, ensure};
use crosspatch::audit::Row;
use std::thread::sleep;
use std::time::{Duration, Instant};

const HOLD: Duration = Duration::from_millis(2000);
/// The kernel stamps a debounced edge when its timer fires, which is up to a jiffy late on either end.
const JIFFIES: Duration = Duration::from_millis(16);
/// The debounce time of the button that bounces, in its profile.
const DEBOUNCE: Duration = Duration::from_millis(30);
const GRANT: &str = "priority_ptt.start";
const RELEASE: &str = "ptt.stop";

/// How long a button was held at least, and at most.
struct Held(Duration, Duration);

/// Presses a button for at least this time.
fn hold(bench: &Bench, line: &str, time: Duration) -> Result<Held> {
    let before = Instant::now();
    bench.chip.move_line(line, true)?;
    let after = Instant::now();
    sleep(time);
    let least = after.elapsed();
    bench.chip.move_line(line, false)?;
    Ok(Held(least, before.elapsed()))
}

fn held_ms(row: &Row) -> Duration {
    Duration::from_millis(row.detail["heldMs"].as_u64().expect("a hold has a length"))
}

/// Moves a button as its contacts would: open and closed some times, then to stay. Returns the longest pause in between.
fn bounce(bench: &Bench, line: &str, active: bool) -> Result<Duration> {
    let mut longest = Duration::ZERO;
    for step in 0..7 {
        let began = Instant::now();
        bench.chip.move_line(line, (step % 2 == 0) == active)?;
        longest = longest.max(began.elapsed());
    }
    Ok(longest)
}

/// How often a button is pressed at most, until enough of it was quick enough to be judged.
const PRESSES: usize = 80;

#[tokio::test]
async fn every_bouncing_press_is_exactly_one_grant_and_one_release() -> Result<()> {
    let bench = Bench::start().await?;
    let mut judged = 0;
    for _ in 0..PRESSES {
        let (grants, releases) = (bench.count(GRANT)?, bench.count(RELEASE)?);
        let mut longest = bounce(&bench, "desk.ptt.ops", true)?;
        bench.wait_count(GRANT, grants + 1).await?;
        longest = longest.max(bounce(&bench, "desk.ptt.ops", false)?);
        bench.wait_count(RELEASE, releases + 1).await?;
        // What a bounce too many would have done is written before what another button does after it.
        bench.chip.move_line("desk.ptt.medical", true)?;
        bench.wait_count(GRANT, grants + 2).await?;
        bench.chip.move_line("desk.ptt.medical", false)?;
        bench.wait_count(RELEASE, releases + 2).await?;
        // A machine that was paused in the middle has made two presses of it.
        if longest < DEBOUNCE / 2 {
            assert_eq!((bench.count(GRANT)?, bench.count(RELEASE)?), (grants + 2, releases + 2));
            judged += 1;
        }
        if judged == 5 {
            return Ok(());
        }
    }
    anyhow::bail!("the machine is too slow to bounce: only {judged} of {PRESSES} presses could be judged")
}

#[tokio::test]
async fn a_hold_of_1900_ms_is_aborted_and_audited_with_its_length() -> Result<()> {
    let bench = Bench::start().await?;
    for attempt in 1.. {
        let held = hold(&bench, "desk.emergency", Duration::from_millis(1900))?;
        if held.1 + JIFFIES >= HOLD {
            ensure!(attempt < 10, "the machine is too slow: it never held for less than {:?}", held.1);
            continue;
        }
        bench.wait_count("emergency_broadcast.armed", attempt).await?;
        let aborted = bench.gateway.audited_row(|row| row.action == "emergency_broadcast.aborted").await?;
        let told = held_ms(&aborted);
        ensure!(
            told + JIFFIES >= held.0 && told <= held.1 + JIFFIES,
            "held for {:?} to {:?}: {aborted:?}",
            held.0,
            held.1
        );
        assert_eq!(bench.count("emergency_broadcast.start")?, attempt - 1);
        return Ok(());
    }
    Ok(())
}

#[tokio::test]
async fn a_hold_of_2100_ms_starts_a_broadcast_that_ends_with_it() -> Result<()> {
    let bench = Bench::start().await?;
    hold(&bench, "desk.emergency", Duration::from_millis(2100))?;
    let start = bench.gateway.audited_row(|row| row.action == "emergency_broadcast.start").await?;
    let armed = bench.gateway.audited_row(|row| row.action == "emergency_broadcast.armed").await?;
    let stop = bench.gateway.audited_row(|row| row.action == "emergency_broadcast.stop").await?;
    assert_eq!(stop.cause.as_deref(), Some("released"));
    // E2. The hold counts from the edge's stamp, the record from when it was read.
    ensure!(start.mono_ns - armed.mono_ns > 1_900_000_000, "started too early: {armed:?} {start:?}");
    assert_eq!(bench.count("emergency_broadcast.aborted")?, 0);
    Ok(())
}

#[tokio::test]
async fn a_hold_that_was_read_too_late_is_missed_and_not_fired() -> Result<()> {
    let bench = Bench::start().await?;
    bench.gateway.signal("STOP")?;
    let held = hold(&bench, "desk.emergency", Duration::from_millis(2200))?;
    // Past the last jiffy and the 20 ms in which a hold may still fire.
    sleep(Duration::from_millis(300));
    bench.gateway.signal("CONT")?;
    let missed = bench.gateway.audited_row(|row| row.action == "emergency_broadcast.missed").await?;
    let told = held_ms(&missed);
    ensure!(told + JIFFIES >= held.0 && told <= held.1 + JIFFIES, "held for {:?} to {:?}: {missed:?}", held.0, held.1);
    assert_eq!(bench.count("emergency_broadcast.start")?, 0);
    Ok(())
}

#[tokio::test]
async fn presses_that_are_read_late_are_all_counted() -> Result<()> {
    let bench = Bench::start().await?;
    bench.gateway.signal("STOP")?;
    for _ in 0..10 {
        hold(&bench, "desk.ptt.medical", Duration::from_millis(100))?;
        sleep(Duration::from_millis(100));
    }
    bench.gateway.signal("CONT")?;
    bench.wait_count(RELEASE, 10).await?;
    assert_eq!((bench.count(GRANT)?, bench.count(RELEASE)?, bench.count("gpio.fault")?), (10, 10, 0));
    Ok(())
}

#[tokio::test]
async fn a_press_lights_its_lamp_and_keys_the_radio_until_it_is_let_go() -> Result<()> {
    let bench = Bench::start().await?;
    bench.chip.move_line("desk.ptt.security", true)?;
    bench.chip.wait_until("radio.vhf.ptt", true)?;
    bench.chip.wait_until("desk.tally.security", true)?;
    bench.wait_count(GRANT, 1).await?;
    bench.chip.move_line("desk.ptt.security", false)?;
    bench.chip.wait_until("radio.vhf.ptt", false)?;
    bench.wait_count("radio.unkeyed", 1).await?;
    // Dark for longer than the pause of any pattern.
    for _ in 0..40 {
        sleep(Duration::from_millis(50));
        ensure!(!bench.chip.is_active("desk.tally.security")?, "nobody talks, and the lamp is lit");
    }
    Ok(())
}

#[tokio::test]
async fn an_emergency_is_heard_by_a_client_until_the_button_is_let_go() -> Result<()> {
    let bench = Bench::start().await?;
    let listener = bench.listener("lara", "medical").await?;
    bench.chip.move_line("desk.emergency", true)?;
    bench.chip.wait_until("radio.vhf.ptt", true)?;
    let heard = listener.wait_heard(|heard| heard.len() >= 100, SOON).await.len();
    ensure!(heard >= 100, "only {heard} packets of the emergency were heard");
    bench.chip.move_line("desk.emergency", false)?;
    bench.wait_count("emergency_broadcast.stop", 1).await?;
    bench.chip.wait_until("radio.vhf.ptt", false)?;
    let stats = bench.gateway.stats().await?;
    let after: u64 = stats["bursts"].as_array().into_iter().flatten().filter_map(|b| b["afterShut"].as_u64()).sum();
    assert_eq!(after, 0, "{stats}");
    listener.close().await
}
