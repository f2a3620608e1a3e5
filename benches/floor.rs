//! How fast a floor is given, taken over and given to everybody; and how soon it is heard.
//!
//! `cargo bench --bench floor -- [--members 1,100,500] [--pairs 1000] [--preemptions 1000] [--listeners 50] [--channels 1,50,500]`
//!
//! Everything but the core's own decisions is measured at clients, over real WebSockets and UDP on loopback: the gateway
//! is the release binary in a process of its own, and the clients take CPU on the same cores.

#[expect(dead_code, reason = "the tests and the other benchmark use the rest")]
#[path = "../tests/native/mod.rs"]
mod native;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use crosspatch::base::{ChannelId, Mono, ReplyId, Role, SessionId};
use crosspatch::control::{Answer, ChannelSpec, Claims, Control, Effect, Input, Settings, Tuning};
use native::client::random;
use native::figures::percentile;
use native::gateway::Gateway;
use native::lean::{self, Identity, Lean};
use native::signaling::Signaling;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// An event with one channel for everybody.
const EVENT: &str =
    "[event]\nid = \"bench\"\n\n[limits]\nchannel_users = 1000\n\n[[channel]]\nid = \"ops\"\nname = \"Operations\"\n";
/// Members of each channel in the core's benchmark.
const MEMBERS: u64 = 10;
/// Requests that are not counted.
const WARM_UP: usize = 50;
/// Requests to the core, for each number of channels.
const DECISIONS: usize = 20_000;
/// Talkers that take turns.
const TALKERS: usize = 10;
/// Between two presses of a talker: it may ask 50 times a second.
const TURN: Duration = Duration::from_millis(25);
/// Between two presses of anybody, for each member: they are all told, and the clients' side of that takes CPU too.
const TOLD: Duration = Duration::from_micros(200);
/// How often a voice sends.
const FRAME: Duration = Duration::from_millis(20);
/// How often a voice renews its consent.
const CONSENT: Duration = Duration::from_secs(5);
/// Channels of the emergency, and how often it is started.
const CHANNELS: usize = 50;
const EMERGENCIES: usize = 100;
/// How often a listener comes late.
const LATE_ENTRIES: usize = 200;
/// Longer than any packet takes.
const LOST: Duration = Duration::from_secs(2);
/// Payloads carry a voice's tag here.
const TAG: usize = 1;

#[derive(Parser)]
struct Options {
    /// How many members the channel has, one run each.
    #[arg(long, value_delimiter = ',', default_value = "1,100,500")]
    members: Vec<usize>,
    /// How many times talkers press and release.
    #[arg(long, default_value_t = 1_000)]
    pairs: usize,
    /// How many times a dispatcher cuts in.
    #[arg(long, default_value_t = 1_000)]
    preemptions: usize,
    /// How many listen while a dispatcher cuts in.
    #[arg(long, default_value_t = 50)]
    listeners: usize,
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
    println!("| request to reply over a WebSocket | p50 | p99 | longest |");
    println!("| --- | --- | --- | --- |");
    for members in &options.members {
        let (mut start, mut stop) = runtime.block_on(over_websocket(*members, options.pairs))?;
        row(&format!("ptt-start to its grant, {members} members"), &mut start);
        row(&format!("ptt-stop to its reply, {members} members"), &mut stop);
    }
    let mut emergencies = runtime.block_on(emergencies())?;
    row(&format!("emergency start to its reply, when all of {CHANNELS} gates are open"), &mut emergencies);
    println!();
    println!("| heard at a listener, {} listening | p50 | p99 | longest |", options.listeners);
    println!("| --- | --- | --- | --- |");
    let heard = runtime.block_on(preemptions(options.preemptions, options.listeners))?;
    let Heard { mut first_new, mut late_entry, after_shut, bursts } = heard;
    row("dispatcher's request to the first packet of its burst (one comes every 20 ms)", &mut first_new);
    row("reply to consume to the first packet of the running burst (one comes every 20 ms)", &mut late_entry);
    println!();
    println!(
        "{} pre-emptions: {after_shut} packets of {bursts} shut bursts forwarded after the decision",
        options.preemptions
    );
    println!();
    println!("the core alone, {MEMBERS} members a channel, {DECISIONS} requests, effects taken out");
    println!();
    println!("| decision | p50 | p99 | longest |");
    println!("| --- | --- | --- | --- |");
    for channels in options.channels {
        let (mut grant, mut release) = in_the_core(channels)?;
        let microseconds = ("µs", Duration::from_micros(1));
        row_in(&format!("grant, {channels} channels"), &mut grant, microseconds);
        row_in(&format!("release, {channels} channels"), &mut release, microseconds);
    }
    Ok(())
}

fn row(what: &str, samples: &mut [Duration]) {
    row_in(what, samples, ("ms", Duration::from_millis(1)));
}

fn row_in(what: &str, samples: &mut [Duration], (name, unit): (&str, Duration)) {
    let mut value = |q| percentile(samples, q, unit);
    println!("| {what} | {:.2} {name} | {:.2} {name} | {:.2} {name} |", value(0.5), value(0.99), value(1.0));
}

/// How long each request took on a channel with so many members, who are all told.
async fn over_websocket(members: usize, pairs: usize) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let gateway = Gateway::with_config(EVENT).await?;
    eprintln!("connecting {members} members");
    let ops = json!({ "channelId": "ops" });
    let mut sessions = Vec::new();
    for number in 0..members {
        let token = gateway.token(&format!("member-{number}"), "general", "ops")?;
        let mut session = Signaling::connect(&gateway, &token).await?;
        session.ask("join-channel", ops.clone()).await?;
        sessions.push(session);
    }
    let talkers = members.min(TALKERS);
    let turn = (TURN / u32::try_from(talkers)?).max(TOLD * u32::try_from(members)?);
    let (mut start, mut stop) = (Vec::new(), Vec::new());
    for number in 0..WARM_UP + pairs {
        let talker = &mut sessions[number % talkers];
        let asked = Instant::now();
        let reply = talker.ask("ptt-start", ops.clone()).await?;
        let granted = asked.elapsed();
        ensure!(reply["success"] == true, "no floor: {reply}");
        let asked = Instant::now();
        talker.ask("ptt-stop", ops.clone()).await?;
        if number >= WARM_UP {
            start.push(granted);
            stop.push(asked.elapsed());
        }
        tokio::time::sleep(turn).await;
    }
    Ok((start, stop))
}

/// How long each start of an emergency on all channels took, somebody listening on each.
async fn emergencies() -> Result<Vec<Duration>> {
    let channels: String =
        (0..CHANNELS).map(|n| format!("\n[[channel]]\nid = \"channel-{n}\"\nname = \"Channel {n}\"\n")).collect();
    let gateway = Gateway::with_config(&format!("[event]\nid = \"bench\"\n{channels}")).await?;
    eprintln!("connecting a member to each of {CHANNELS} channels");
    let mut sessions = Vec::new();
    for number in 0..CHANNELS {
        let id = format!("channel-{number}");
        let mut session =
            Signaling::connect(&gateway, &gateway.token(&format!("member-{number}"), "general", &id)?).await?;
        session.ask("join-channel", json!({ "channelId": id })).await?;
        sessions.push(session);
    }
    let mut dispatcher = Signaling::connect(&gateway, &gateway.token("dora", "dispatch", "channel-0")?).await?;
    let mut took = Vec::new();
    for _ in 0..EMERGENCIES {
        let asked = Instant::now();
        let reply = dispatcher.ask("emergency-broadcast-start", json!({ "holdDuration": 2000 })).await?;
        took.push(asked.elapsed());
        ensure!(reply["channelCount"] == CHANNELS && reply["failedChannelIds"] == json!([]), "not all: {reply}");
        dispatcher.ask("emergency-broadcast-stop", json!({})).await?;
    }
    Ok(took)
}

struct Heard {
    /// From a dispatcher's request to the first packet of its burst at a listener.
    first_new: Vec<Duration>,
    /// From the reply to `consume` to the first packet of the burst that runs.
    late_entry: Vec<Duration>,
    /// Packets that left after their gate was shut.
    after_shut: u64,
    /// Bursts whose counts were looked at.
    bursts: usize,
}

/// A general user and a dispatcher send all the time; the floor decides who is heard.
async fn preemptions(times: usize, listeners: usize) -> Result<Heard> {
    let gateway = Gateway::with_config(EVENT).await?;
    let identity = Identity::new()?;
    let ops = json!({ "channelId": "ops" });
    let stop = Arc::new(AtomicBool::new(false));
    let (mut talkers, mut threads) = (Vec::new(), Vec::new());
    for (tag, role) in [(1, "general"), (2, "dispatch")] {
        let mut session = Signaling::connect(&gateway, &gateway.token(role, role, "ops")?).await?;
        session.ask("join-channel", ops.clone()).await?;
        let voice = lean::connect(&mut session, "ops", "send", &identity).await?;
        let ssrc = u32::from_ne_bytes(random());
        lean::produce(&mut session, &voice, "ops", ssrc).await?;
        threads.push(talk(voice, ssrc, tag, stop.clone()));
        talkers.push(session);
    }
    eprintln!("connecting {listeners} listeners");
    let mut sessions = Vec::new();
    let mut ears = Vec::new();
    for number in 0..listeners {
        let token = gateway.token(&format!("listener-{number}"), "general", "ops")?;
        let mut session = Signaling::connect(&gateway, &token).await?;
        session.ask("join-channel", ops.clone()).await?;
        let ear = lean::connect(&mut session, "ops", "recv", &identity).await?;
        lean::consume(&mut session, &ear.id, "ops").await?;
        sessions.push((session, ear.id.clone()));
        ears.push(ear);
    }
    let ear = ears.pop().context("there must be a listener")?;
    let mut listening = vec![drain(ears, stop.clone())];
    let (heard, thread) = listen(ear, stop.clone());
    listening.push(thread);

    eprintln!("cutting in {times} times");
    let (mut first_new, mut after_shut, mut bursts) = (Vec::new(), 0, 0);
    for number in 0..times {
        ensure!(talkers[0].ask("ptt-start", ops.clone()).await?["success"] == true, "no floor");
        first_of(&heard, 1, Duration::ZERO)?;
        // Not always at the same place between two packets.
        tokio::time::sleep(Duration::from_micros(u64::from(u16::from_ne_bytes(random())) % 20_000)).await;
        let asked = now();
        ensure!(talkers[1].ask("priority-ptt-start", ops.clone()).await?["success"] == true, "no pre-emption");
        first_new.push(first_of(&heard, 2, asked)?.saturating_sub(asked));
        talkers[1].ask("priority-ptt-stop", ops.clone()).await?;
        if number % 100 == 99 || number + 1 == times {
            let stats = gateway.stats().await?;
            let shut = stats["bursts"].as_array().context("no counts")?.iter().filter(|burst| burst["open"] == false);
            let newest: Vec<&Value> = shut.rev().take(2 * (number % 100 + 1)).collect();
            bursts += newest.len();
            after_shut += newest.iter().filter_map(|burst| burst["afterShut"].as_u64()).sum::<u64>();
        }
    }

    eprintln!("coming late {LATE_ENTRIES} times");
    let mut late_entry = Vec::new();
    ensure!(talkers[1].ask("priority-ptt-start", ops.clone()).await?["success"] == true, "no floor");
    let (session, transport) = sessions.last_mut().context("there must be a listener")?;
    let mut consumer: Option<Value> = None;
    for _ in 0..LATE_ENTRIES {
        if let Some(consumer) = consumer.take() {
            session.ask("close-consumer", json!({ "consumerId": consumer })).await?;
        }
        let made = lean::consume(session, transport, "ops").await?;
        let replied = now();
        late_entry.push(first_of(&heard, 2, replied)?.saturating_sub(replied));
        consumer = Some(made["id"].clone());
        tokio::time::sleep(FRAME).await;
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads.into_iter().chain(listening) {
        thread.join().map_err(|_| anyhow::anyhow!("a voice or a listener died"))??;
    }
    Ok(Heard { first_new, late_entry, after_shut, bursts })
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Sends packets with a tag at the pace of speech until told to stop.
fn talk(mut voice: Lean, ssrc: u32, tag: u8, stop: Arc<AtomicBool>) -> JoinHandle<Result<()>> {
    std::thread::spawn(move || {
        let mut due = Instant::now();
        let mut consent = due;
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if due >= consent {
                voice.socket.send(&voice.check)?;
                consent = due + CONSENT;
            }
            due += FRAME;
            let mut payload = [lean::OPUS_20_MS; 80];
            payload[TAG] = tag;
            voice.send_rtp(&lean::rtp(ssrc, number, &payload))?;
        }
        Ok(())
    })
}

/// Tells the tag and time of every packet that one listener hears.
fn listen(mut ear: Lean, stop: Arc<AtomicBool>) -> (Receiver<(u8, Duration)>, JoinHandle<Result<()>>) {
    let (sender, heard) = channel();
    let thread = std::thread::spawn(move || {
        let mut consent = Instant::now();
        ear.socket.set_read_timeout(Some(FRAME))?;
        let mut peek = [0];
        while !stop.load(Ordering::Relaxed) {
            if Instant::now() >= consent {
                ear.socket.send(&ear.check)?;
                consent = Instant::now() + CONSENT;
            }
            // Waits for a datagram; nothing is lost when none has come.
            ear.socket.peek(&mut peek).ok();
            while let Some((datagram, stamp)) = ear.receive()? {
                if let Some(packet) = ear.open_rtp(&datagram) {
                    let packet = packet.as_ref();
                    sender.send((packet[packet.len() - 80 + TAG], stamp))?;
                }
            }
        }
        Ok(())
    });
    (heard, thread)
}

/// Listens without looking, for all other listeners.
fn drain(ears: Vec<Lean>, stop: Arc<AtomicBool>) -> JoinHandle<Result<()>> {
    std::thread::spawn(move || {
        let mut consent = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            if Instant::now() >= consent {
                consent = Instant::now() + CONSENT;
                for ear in &ears {
                    ear.socket.send(&ear.check)?;
                }
            }
            for ear in &ears {
                while ear.receive()?.is_some() {}
            }
            std::thread::sleep(FRAME);
        }
        Ok(())
    })
}

/// When the first packet with this tag came after `asked`.
fn first_of(heard: &Receiver<(u8, Duration)>, tag: u8, asked: Duration) -> Result<Duration> {
    loop {
        let (came, stamp) = heard.recv_timeout(LOST).context("nothing was heard")?;
        if came == tag && stamp >= asked {
            return Ok(stamp);
        }
    }
}

/// How long each decision took, with all that follows from it.
fn in_the_core(channels: u64) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let ids: Vec<ChannelId> = (0..channels).map(|number| ChannelId::from(format!("channel-{number}"))).collect();
    let mut core = Control::new(Settings {
        channels: ids.iter().map(|id| ChannelSpec { id: id.clone(), name: id.to_string() }).collect(),
        desks: Vec::new(),
        ports: Vec::new(),
        tuning: Tuning::default(),
        misconfigured: false,
    });
    let reply = ReplyId(1);
    let session = |channel: u64, member: u64| SessionId(1_000 + channel * MEMBERS + member);
    for (channel, id) in (0..).zip(&ids) {
        for member in 0..MEMBERS {
            let session = session(channel, member);
            let name = session.to_string();
            let claims = Claims { name: name.clone(), role: Role::General, channels: [id.clone()].into() };
            core.handle(Input::Open { session, user: name.into(), claims }, Mono(0));
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
