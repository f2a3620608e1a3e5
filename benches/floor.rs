//! How fast a floor is given: over a real WebSocket on loopback, and in the core alone.
//!
//! `cargo bench --bench floor -- [--pairs 1000] [--channels 1,50,500]`

#[expect(dead_code, reason = "the tests and the other benchmark use the rest")]
#[path = "../tests/native/mod.rs"]
mod native;

use anyhow::{Result, ensure};
use clap::Parser;
use crosspatch::base::{ChannelId, Mono, ReplyId, Role, SessionId};
use crosspatch::control::{Answer, ChannelSpec, Control, Effect, Input, Settings};
use native::figures::percentile;
use native::gateway::Gateway;
use native::signaling::Signaling;
use serde_json::json;
use std::time::{Duration, Instant};

/// Members of each channel in the core's benchmark.
const MEMBERS: u64 = 10;
/// Requests that are not counted.
const WARM_UP: usize = 50;
/// Requests to the core, for each number of channels.
const DECISIONS: usize = 20_000;

#[derive(Parser)]
struct Options {
    /// How many times the talker presses and releases.
    #[arg(long, default_value_t = 1_000)]
    pairs: usize,
    /// How many channels the core has, one run each.
    #[arg(long, value_delimiter = ',', default_value = "1,50,500")]
    channels: Vec<u64>,
    /// Cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (mut start, mut stop) = runtime.block_on(over_websocket(options.pairs))?;
    println!("{} pairs of ptt-start and ptt-stop over a WebSocket on loopback, one after the other", options.pairs);
    println!();
    println!("| request to reply | p50 | p99 | longest |");
    println!("| --- | --- | --- | --- |");
    row("ptt-start to its grant", &mut start);
    row("ptt-stop to its reply", &mut stop);
    println!();
    println!("the core alone, {MEMBERS} members a channel, {DECISIONS} requests, effects taken out");
    println!();
    println!("| decision | p50 | p99 | longest |");
    println!("| --- | --- | --- | --- |");
    for channels in options.channels {
        let (mut grant, mut release) = in_the_core(channels)?;
        row(&format!("grant, {channels} channels"), &mut grant);
        row(&format!("release, {channels} channels"), &mut release);
    }
    Ok(())
}

fn row(what: &str, samples: &mut [Duration]) {
    let mut microseconds = |q| percentile(samples, q, Duration::from_micros(1));
    println!("| {what} | {:.1} µs | {:.1} µs | {:.1} µs |", microseconds(0.5), microseconds(0.99), microseconds(1.0));
}

/// How long each request took.
async fn over_websocket(pairs: usize) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let gateway = Gateway::demo().await?;
    let token = gateway.token("anna", "general", "ops")?;
    let mut anna = Signaling::connect(&gateway, &token).await?;
    let channel = json!({ "channelId": "ops" });
    anna.ask("join-channel", channel.clone()).await?;
    let (mut start, mut stop) = (Vec::new(), Vec::new());
    for number in 0..WARM_UP + pairs {
        let asked = Instant::now();
        let reply = anna.ask("ptt-start", channel.clone()).await?;
        let granted = asked.elapsed();
        ensure!(reply["success"] == true, "no floor: {reply}");
        let asked = Instant::now();
        anna.ask("ptt-stop", channel.clone()).await?;
        if number >= WARM_UP {
            start.push(granted);
            stop.push(asked.elapsed());
        }
    }
    Ok((start, stop))
}

/// How long each decision took, with all that follows from it.
fn in_the_core(channels: u64) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let ids: Vec<ChannelId> = (0..channels).map(|number| ChannelId::from(format!("channel-{number}"))).collect();
    let mut core = Control::new(Settings {
        channels: ids.iter().map(|id| ChannelSpec { id: id.clone(), name: id.to_string() }).collect(),
        desks: Vec::new(),
        ports: Vec::new(),
        emergency_hold: Duration::from_secs(2),
        emergency_max: Duration::from_secs(300),
        talk_limit: Duration::from_secs(60),
    });
    let reply = ReplyId(1);
    let session = |channel: u64, member: u64| SessionId(1_000 + channel * MEMBERS + member);
    for (channel, id) in (0..).zip(&ids) {
        for member in 0..MEMBERS {
            let session = session(channel, member);
            let (user, name) = (session.to_string().into(), session.to_string());
            let allowed = vec![id.clone()];
            core.handle(Input::Open { session, user, name, role: Role::General, allowed }, Mono(0));
            core.handle(Input::Join { session, channel: id.clone(), reply }, Mono(0));
        }
    }
    while core.next_effect().is_some() {}

    let (mut grants, mut releases) = (Vec::new(), Vec::new());
    let mut now = Mono::from_millis(1_000);
    for (number, channel) in (0..channels).cycle().take(WARM_UP + DECISIONS).enumerate() {
        let id = ids[channel as usize].clone();
        let session = session(channel, number as u64 % MEMBERS);
        now = now + Duration::from_millis(1);
        let request = Input::Request { session, channel: id.clone(), priority: false, reply };
        let (grant, granted) = decide(&mut core, request, now);
        ensure!(granted, "no floor for {session} on {id}");
        let request = Input::Release { session, channel: id, burst: None, reply };
        let (release, released) = decide(&mut core, request, now);
        ensure!(released, "{session} could not give the floor back");
        if number >= WARM_UP {
            grants.push(grant);
            releases.push(release);
        }
    }
    Ok((grants, releases))
}

/// How long it took, and whether the answer was a floor's state.
fn decide(core: &mut Control, input: Input, now: Mono) -> (Duration, bool) {
    let asked = Instant::now();
    core.handle(input, now);
    let mut success = false;
    while let Some(effect) = core.next_effect() {
        success |= matches!(effect, Effect::Reply { answer: Ok(Answer::Floor { .. }), .. });
    }
    (asked.elapsed(), success)
}
