//! How soon a pressed button opens its gate, and what the gateway costs while nobody presses anything.
//!
//! `cargo bench --bench button -- [--channels 0,50,500] [--presses 1000] [--seconds 30]`
//!
//! The gateway is the release binary in a process of its own on the simulated board. A press is measured in it, on
//! CLOCK_MONOTONIC: from the stamp of the edge, which a real board's kernel gives after its debounce time, to the opening of
//! the gate.

#[expect(dead_code, reason = "the tests and the other benchmarks use the rest")]
#[path = "../tests/native/mod.rs"]
mod native;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use native::client::random;
use native::figures::{cpu_by_thread, percentile, sleeps_by_thread};
use native::gateway::Gateway;
use std::time::{Duration, Instant};

/// Presses that are not counted.
const WARM_UP: usize = 20;
/// Longer than any press takes.
const LOST: Duration = Duration::from_secs(2);
/// Before an idle gateway is looked at.
const SETTLE: Duration = Duration::from_secs(3);

#[derive(Parser)]
struct Options {
    /// How many idle channels there are beside the pressed one, one run each.
    #[arg(long, value_delimiter = ',', default_value = "0,50,500")]
    channels: Vec<usize>,
    /// How many times the button is pressed.
    #[arg(long, default_value_t = 1_000)]
    presses: usize,
    /// For how long an idle gateway is watched.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    println!("| edge to open gate, {} presses | p50 | p99 | longest |", options.presses);
    println!("| --- | --- | --- | --- |");
    for idle in &options.channels {
        let mut took = presses(*idle, options.presses).await?;
        let mut value = |q| percentile(&mut took, q, Duration::from_millis(1));
        println!("| {idle} idle channels | {:.2} ms | {:.2} ms | {:.2} ms |", value(0.5), value(0.99), value(1.0));
    }
    println!();
    println!(
        "| idle for {} s | of one core | wake-ups a second | threads that were woken, times a second |",
        options.seconds
    );
    println!("| --- | --- | --- | --- |");
    let time = Duration::from_secs(options.seconds);
    idle("no desk, no radio", &Gateway::with_config(&event("", 4)).await?, time).await?;
    idle("the demo: 1 desk, 1 radio, simulated sound", &Gateway::demo().await?, time).await
}

/// An event with a channel `ops`, so many others, and a desk.
fn event(desk: &str, others: usize) -> String {
    let idle: String =
        (0..others).map(|n| format!("\n[[channel]]\nid = \"idle-{n}\"\nname = \"Idle {n}\"\n")).collect();
    format!("[event]\nid = \"bench\"\n\n[[channel]]\nid = \"ops\"\nname = \"Operations\"\n{idle}{desk}")
}

/// How long each press took to open the gate.
async fn presses(others: usize, times: usize) -> Result<Vec<Duration>> {
    let desk = "\n[[desk]]\nuser = \"desk-1\"\nname = \"Desk 1\"\n\n[[desk.button]]\nchannel = \"ops\"\nptt_line = \"desk.ptt.ops\"\n";
    let gateway = Gateway::with_config(&event(desk, others)).await?;
    let mut took = Vec::with_capacity(times);
    for number in 0..WARM_UP + times {
        // Not always at the same place between two frames of sound.
        tokio::time::sleep(Duration::from_micros(u64::from(u16::from_ne_bytes(random())) % 20_000)).await;
        let pressed = gateway.move_line("desk.ptt.ops", true).await?;
        let opened = wait_for_gate(&gateway, |open, opened| open && opened >= pressed).await?;
        if number >= WARM_UP {
            took.push(Duration::from_nanos(opened - pressed));
        }
        gateway.move_line("desk.ptt.ops", false).await?;
        wait_for_gate(&gateway, |open, at| !open && at == opened).await?;
    }
    Ok(took)
}

/// Waits for a gate that is as wanted, by whether it is open and when it was opened; says when.
async fn wait_for_gate(gateway: &Gateway, wanted: impl Fn(bool, u64) -> bool) -> Result<u64> {
    let began = Instant::now();
    loop {
        let stats = gateway.stats().await?;
        let gates = stats["bursts"].as_array().context("no bursts")?.iter();
        let mut gates = gates.filter_map(|gate| Some((gate["open"].as_bool()?, gate["openedNs"].as_u64()?)));
        if let Some((_, opened)) = gates.find(|(open, opened)| wanted(*open, *opened)) {
            return Ok(opened);
        }
        ensure!(began.elapsed() < LOST, "a press or its end was lost");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Prints what a gateway does while nothing happens.
async fn idle(what: &str, gateway: &Gateway, time: Duration) -> Result<()> {
    tokio::time::sleep(SETTLE).await;
    let look = || Ok::<_, anyhow::Error>((cpu_by_thread(gateway.pid())?, sleeps_by_thread(gateway.pid())?));
    let (began, before) = (Instant::now(), look()?);
    tokio::time::sleep(time).await;
    let (after, seconds) = (look()?, began.elapsed().as_secs_f64());
    let cpu: Duration =
        after.0.iter().map(|(name, used)| *used - before.0.get(name).copied().unwrap_or_default()).sum();
    let woken = after.1.iter().map(|(name, sleeps)| (name, sleeps - before.1.get(name).copied().unwrap_or_default()));
    let mut woken: Vec<_> = woken.map(|(name, times)| (name, times as f64 / seconds)).collect();
    woken.sort_by(|a, b| b.1.total_cmp(&a.1));
    let all: f64 = woken.iter().map(|w| w.1).sum();
    let each: Vec<_> = woken.iter().filter(|w| w.1 >= 0.05).map(|(name, times)| format!("{name} {times:.1}")).collect();
    println!("| {what} | {:.2} % | {all:.1} | {} |", cpu.as_secs_f64() / seconds * 100.0, each.join(", "));
    Ok(())
}
