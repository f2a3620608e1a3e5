//! A chip that is pulled out and given back, as a USB expander would be.

use crate::bench::{Bench, SOON};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::time::Instant;

/// What the front panel says is degraded, once it says what is wanted.
async fn wait_degraded(bench: &Bench, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let began = Instant::now();
    loop {
        let degraded = bench.gateway.get("/api/panel").await?["degraded"].take();
        if wanted(&degraded) {
            return Ok(degraded);
        }
        ensure!(began.elapsed() < SOON, "the panel says {degraded}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_chip_that_is_pulled_out_lets_its_buttons_go_and_heals_when_it_is_back() -> Result<()> {
    let bench = Bench::start().await?;
    let pid = bench.gateway.pid();
    bench.chip.move_line("desk.ptt.ops", true)?;
    bench.wait_count("priority_ptt.start", 1).await?;

    bench.chip.unplug()?;
    bench.wait_count("ptt.stop", 1).await?;
    let degraded = wait_degraded(&bench, |degraded| *degraded != json!([])).await?;
    ensure!(degraded.to_string().contains("Virtual machine"), "the board is not named: {degraded}");
    bench.wait_count("system.degraded", 1).await?;

    bench.chip.plug_in()?;
    wait_degraded(&bench, |degraded| *degraded == json!([])).await?;
    bench.wait_count("system.healed", 1).await?;
    for presses in 2..4 {
        bench.chip.move_line("desk.ptt.ops", true)?;
        bench.wait_count("priority_ptt.start", presses).await?;
        bench.chip.wait_until("desk.tally.ops", true)?;
        bench.chip.move_line("desk.ptt.ops", false)?;
        bench.wait_count("ptt.stop", presses).await?;
        bench.chip.wait_until("desk.tally.ops", false)?;
    }
    assert_eq!(bench.gateway.pid(), pid);
    Ok(())
}

#[tokio::test]
async fn an_emergency_ends_when_the_chip_of_its_button_is_pulled_out() -> Result<()> {
    let bench = Bench::start().await?;
    bench.chip.move_line("desk.emergency", true)?;
    bench.wait_count("emergency_broadcast.start", 1).await?;
    bench.chip.unplug()?;
    bench.wait_count("emergency_broadcast.stop", 1).await?;
    bench.chip.plug_in()?;
    bench.wait_count("system.healed", 1).await?;
    // Pressed still, as the chip sees it: that counts for nothing until it was let go (E3).
    assert_eq!(bench.count("emergency_broadcast.armed")?, 1);
    Ok(())
}
