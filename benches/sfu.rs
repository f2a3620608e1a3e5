//! What forwarding costs: one talker, many listeners, over the real signaling.
//!
//! `cargo bench --bench sfu -- [--listeners 50,200] [--seconds 20] [--demo]`
//!
//! The gateway is the release binary in a process of its own. Without `--demo` its event has no desk
//! and no radio, so that the figures are those of forwarding alone. CPU is that of its whole process.
//!
//! The clients are [`native::lean`], not the `webrtc` crate of the tests: 200 connections of that take
//! more CPU to listen than the gateway takes to talk to them, on the same cores, and would show in its
//! latency. Latency is from the talker's stamp, taken just before it encrypts, to the kernel's stamp on
//! the listener's socket, so that it does not depend on when the listener gets to run either.
//!
//! The *limit* is what no forwarder can go below: one thread that protects and sends packets of the
//! same size to as many sockets, and does nothing else. It is shown in a tight loop and, as forwarding
//! really happens, in one go every 20 ms, with cold caches and listeners that must be woken.

#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/native/mod.rs"]
mod native;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use mio::{Events, Interest, Poll, Token};
use native::client::random;
use native::figures::{cpu, cpu_by_thread, millis, own_cpu, percentile, rss_kb};
use native::gateway::Gateway;
use native::lean::{self, Identity, Lean};
use native::signaling::Signaling;
use rtc_srtp::protection_profile::ProtectionProfile;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a packet of the talker carries, in bytes.
const PAYLOAD: usize = 80;
/// How often the talker sends.
const FRAME: Duration = Duration::from_millis(20);
/// Packets that are sent before anything is measured.
const WARM_UP: u64 = 50;
/// How long the idle gateway is watched.
const IDLE: Duration = Duration::from_secs(3);
/// How often a client renews its consent.
const CONSENT: Duration = Duration::from_secs(5);
/// Packets of the limit's tight loop.
const TIGHT: usize = 200_000;
/// Bursts of the limit's paced loop.
const PACED: usize = 150;
/// An event with nothing but a channel.
const EVENT: &str =
    "[event]\nid = \"bench\"\n\n[limits]\nchannel_users = 1000\n\n[[channel]]\nid = \"ops\"\nname = \"Operations\"\n";

#[derive(Parser)]
struct Options {
    /// How many listeners, one run each.
    #[arg(long, value_delimiter = ',', default_value = "50,200")]
    listeners: Vec<usize>,
    /// How long the talker talks.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Measures the demo event, whose desk listens too.
    #[arg(long)]
    demo: bool,
    /// Cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What one run showed.
struct Run {
    listeners: usize,
    profile: ProtectionProfile,
    packet: usize,
    cpu: f64,
    idle: f64,
    rss: f64,
    latency: Vec<Duration>,
    connect: Vec<Duration>,
    sent: u64,
    got: u64,
    gaps: u64,
    threads: BTreeMap<String, f64>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut runs = Vec::new();
    for listeners in &options.listeners {
        runs.push(runtime.block_on(measure(*listeners, &options))?);
    }
    println!("one talker, 50 packets/s of {PAYLOAD} bytes, {} s", options.seconds);
    println!();
    println!(
        "| listeners | CPU ms per 1,000 forwarded | of the limit | RSS per listener | added latency p50/p99 | lost | connected in p50/p99 |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let mut limits = Vec::new();
    for run in &mut runs {
        let (tight, paced) = limit(run)?;
        let (expected, millisecond) = (run.sent * run.listeners as u64, Duration::from_millis(1));
        println!(
            "| {} | {:.2} | {:.2} | {:.1} kB | {:.2} / {:.2} ms | {} of {expected}, {} gaps | {:.0} / {:.0} ms |",
            run.listeners,
            run.cpu,
            run.cpu / tight,
            run.rss,
            percentile(&mut run.latency, 0.5, millisecond),
            percentile(&mut run.latency, 0.99, millisecond),
            expected.saturating_sub(run.got),
            run.gaps,
            percentile(&mut run.connect, 0.5, millisecond),
            percentile(&mut run.connect, 0.99, millisecond),
        );
        limits.push((run.listeners, tight, paced));
    }
    println!();
    for (listeners, tight, paced) in limits {
        println!("limit, {listeners} sockets: {tight:.2} ms per 1,000 in a tight loop, {paced:.2} ms every 20 ms");
    }
    for run in runs {
        let threads = run.threads.iter().map(|(name, time)| format!("{name} {time:.2}"));
        let threads = threads.collect::<Vec<_>>().join(", ");
        println!(
            "{} listeners, {:?}, {} bytes before srtp; idle {:.2} ms/s; CPU ms per 1,000 by thread: {threads}",
            run.listeners, run.profile, run.packet, run.idle
        );
    }
    Ok(())
}

async fn measure(listeners: usize, options: &Options) -> Result<Run> {
    let gateway = if options.demo { Gateway::demo().await? } else { Gateway::with_config(EVENT).await? };
    let identity = Identity::new()?;
    // No talk limit cuts a dispatcher short.
    let mut talker = Signaling::connect(&gateway, &gateway.token("talker", "dispatch", "ops")?).await?;
    talker.ask("join-channel", json!({ "channelId": "ops" })).await?;
    let voice = lean::connect(&mut talker, "ops", "send", &identity).await?;
    let ssrc = u32::from_ne_bytes(random());
    lean::produce(&mut talker, &voice, "ops", ssrc).await?;

    eprintln!("connecting {listeners} listeners");
    let rss = rss_kb(gateway.pid())?;
    let (mut sessions, mut ears, mut connect) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..listeners {
        // A user of its own for each: users have limits.
        let token = gateway.token(&format!("listener-{number}"), "general", "ops")?;
        let started = Instant::now();
        let mut session = Signaling::connect(&gateway, &token).await?;
        session.ask("join-channel", json!({ "channelId": "ops" })).await?;
        let ear = lean::connect(&mut session, "ops", "recv", &identity).await?;
        lean::consume(&mut session, &ear.id, "ops").await?;
        connect.push(started.elapsed());
        sessions.push(session);
        ears.push(ear);
    }
    let profile = ears.first().context("no listeners")?.profile;
    let stop = Arc::new(AtomicBool::new(false));
    let listening = listen(ears, stop.clone())?;

    eprintln!("watching the idle gateway for {IDLE:?}");
    let before = cpu_by_thread(gateway.pid())?;
    tokio::time::sleep(IDLE).await;
    let after = cpu_by_thread(gateway.pid())?;
    let idle = millis(after.values().sum::<Duration>().saturating_sub(before.values().sum())) / IDLE.as_secs_f64();

    eprintln!("talking for {} s", options.seconds);
    let granted = talker.ask("ptt-start", json!({ "channelId": "ops" })).await?;
    ensure!(granted["success"] == true, "no floor: {granted}");
    let mut voice = talk(voice, ssrc, 0..WARM_UP).await?;
    let (cpu_before, before) = (cpu(gateway.pid())?, cpu_by_thread(gateway.pid())?);
    let sent = options.seconds * 50;
    voice = talk(voice, ssrc, WARM_UP..WARM_UP + sent).await?;
    let (cpu_after, after) = (cpu(gateway.pid())?, cpu_by_thread(gateway.pid())?);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let rss = (rss_kb(gateway.pid())? - rss) / listeners as f64;
    stop.store(true, Ordering::Relaxed);
    let heard = listening.join().map_err(|_| anyhow::anyhow!("the listeners died"))??;
    let thousands = heard.latency.len() as f64 / 1_000.0;
    let by_thread = |(name, time): (String, Duration)| {
        let spent = time.saturating_sub(before.get(&name).copied().unwrap_or_default());
        (name, millis(spent) / thousands)
    };
    drop((voice, sessions));
    Ok(Run {
        listeners,
        profile,
        packet: heard.packet,
        cpu: millis(cpu_after - cpu_before) / thousands,
        idle,
        rss,
        got: heard.latency.len() as u64,
        latency: heard.latency,
        connect,
        sent,
        gaps: heard.gaps,
        threads: after.into_iter().map(by_thread).filter(|(_, spent)| *spent >= 0.01).collect(),
    })
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Sends the packets with these numbers at the pace of speech.
async fn talk(mut voice: Lean, ssrc: u32, numbers: std::ops::Range<u64>) -> Result<Lean> {
    let talking = move || {
        let mut due = Instant::now();
        let mut consent = due;
        for number in numbers {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if due >= consent {
                voice.socket.send(&voice.check)?;
                consent = due + CONSENT;
            }
            due += FRAME;
            let mut payload = vec![lean::OPUS_20_MS];
            payload.extend((now().as_nanos() as u64).to_be_bytes());
            payload.extend(number.to_be_bytes());
            payload.resize(PAYLOAD, 0x55);
            voice.send_rtp(&lean::rtp(ssrc, number, &payload))?;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        Ok(voice)
    };
    tokio::task::spawn_blocking(talking).await?
}

/// What all listeners heard after the warm-up.
#[derive(Default)]
struct Heard {
    latency: Vec<Duration>,
    /// Packets whose number was not the next one.
    gaps: u64,
    /// The size of one before it was encrypted.
    packet: usize,
}

/// Listens on a thread of its own until told to stop.
fn listen(mut ears: Vec<Lean>, stop: Arc<AtomicBool>) -> Result<JoinHandle<Result<Heard>>> {
    let (mut poll, _held) = { poll_all(ears.iter().map(|ear| &ear.socket))? };
    let run = move || {
        let held = _held;
        let mut events = Events::with_capacity(1024);
        let mut heard = Heard::default();
        let mut last = vec![None::<u16>; ears.len()];
        let mut consent = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            if consent.elapsed() >= CONSENT {
                consent = Instant::now();
                for ear in &ears {
                    ear.socket.send(&ear.check)?;
                }
            }
            wait(&mut poll, &mut events)?;
            for event in &events {
                let place = event.token().0;
                while let Some((datagram, stamp)) = ears[place].receive()? {
                    if let Some(packet) = ears[place].open_rtp(&datagram) {
                        heard.take(packet.as_ref(), stamp, &mut last[place]);
                    }
                }
            }
        }
        drop(held);
        Ok(heard)
    };
    Ok(std::thread::spawn(run))
}

impl Heard {
    fn take(&mut self, packet: &[u8], stamp: Duration, last: &mut Option<u16>) {
        let sequence = u16::from_be_bytes([packet[2], packet[3]]);
        self.gaps += u64::from(last.is_some_and(|last| last.wrapping_add(1) != sequence));
        *last = Some(sequence);
        self.packet = packet.len();
        let payload = &packet[packet.len() - PAYLOAD..];
        let number = |at: usize| payload[at..at + 8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        if number(9) >= WARM_UP {
            self.latency.push(stamp.saturating_sub(Duration::from_nanos(number(1))));
        }
    }
}

/// Waits for all of these sockets; the second value keeps them registered.
fn poll_all<'a>(sockets: impl Iterator<Item = &'a UdpSocket>) -> Result<(Poll, Vec<mio::net::UdpSocket>)> {
    let poll = Poll::new()?;
    let mut held = Vec::new();
    for (place, socket) in sockets.enumerate() {
        socket.set_nonblocking(true)?;
        let mut socket = mio::net::UdpSocket::from_std(socket.try_clone()?);
        poll.registry().register(&mut socket, Token(place), Interest::READABLE)?;
        held.push(socket);
    }
    Ok((poll, held))
}

fn wait(poll: &mut Poll, events: &mut Events) -> Result<()> {
    match poll.poll(events, Some(Duration::from_millis(100))) {
        Err(e) if e.kind() != std::io::ErrorKind::Interrupted => Err(e.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// CPU ms of a thread per 1,000 packets protected and sent as in `run`: in a tight loop, and every 20 ms.
fn limit(run: &Run) -> Result<(f64, f64)> {
    eprintln!("the limit for {} listeners", run.listeners);
    let sockets = (0..run.listeners).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    let addresses = sockets.iter().map(UdpSocket::local_addr).collect::<Result<Vec<_>, _>>()?;
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    let (mut poll, held) = poll_all(sockets.iter())?;
    let drain = std::thread::spawn(move || {
        let (mut events, mut buffer) = (Events::with_capacity(1024), [0; 2048]);
        while !told.load(Ordering::Relaxed) {
            wait(&mut poll, &mut events)?;
            for event in &events {
                while held[event.token().0].recv(&mut buffer).is_ok() {}
            }
        }
        anyhow::Ok(())
    });

    let material: [u8; 88] = random();
    let contexts = addresses.iter().map(|_| Ok(lean::contexts(run.profile, &material)?.0));
    let mut contexts = contexts.collect::<Result<Vec<_>>>()?;
    let sender = UdpSocket::bind("127.0.0.1:0")?;
    let mut packet = vec![0x55; run.packet];
    packet[..2].copy_from_slice(&[0x80, 111]);
    packet[8..12].copy_from_slice(&[0, 0, 0, 1]);
    let mut round = |number: usize| -> Result<()> {
        packet[2..4].copy_from_slice(&(number as u16).to_be_bytes());
        for (context, to) in contexts.iter_mut().zip(&addresses) {
            let sealed = context.encrypt_rtp(&packet)?;
            sender.send_to(&sealed, to)?;
        }
        Ok(())
    };
    let rounds = TIGHT / run.listeners;
    let per_thousand = |spent, rounds: usize| millis(spent) / (rounds * run.listeners) as f64 * 1_000.0;
    let before = own_cpu();
    for number in 0..rounds {
        round(number)?;
    }
    let tight = per_thousand(own_cpu() - before, rounds);
    let mut spent = Duration::ZERO;
    for number in rounds..rounds + PACED {
        std::thread::sleep(FRAME);
        let before = own_cpu();
        round(number)?;
        spent += own_cpu() - before;
    }
    stop.store(true, Ordering::Relaxed);
    drain.join().map_err(|_| anyhow::anyhow!("the reader died"))??;
    Ok((tight, per_thousand(spent, PACED)))
}
