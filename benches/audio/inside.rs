//! The threads of two radio ports and a desk on one channel, without a gateway around them: the gate is opened by hand.

use super::native::chirp::{self, Track, millis_at, now};
use super::native::client::random;
use super::native::figures::{own_cpu, percentile};
use anyhow::Result;
use crosspatch::base::{BurstId, ChannelId, Mono, SessionId, UserId};
use crosspatch::gateway::bell::Bell;
use crosspatch::gateway::endpoint::{Endpoint, EndpointPlan, Sense, capture_thread, playback_thread};
use crosspatch::gateway::media::{Command, MediaThread};
use crosspatch::hardware::audio::sim::{SimCapture, SimPlayback, Sound};
use crosspatch::hardware::audio::{AudioError, Capture, FRAME, Playback};
use crosspatch::media::dsp::chain::Treatment;
use crosspatch::media::gates::Gates;
use crosspatch::media::sfu::{LocalFrame, Sfu, SfuConfig};
use crosspatch::net::udp::Datagrams;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const FRAME_S: f64 = 0.02;
/// Frames that are not counted.
const WARM_UP: usize = 50;
/// When a burst is steady.
const STEADY_S: f64 = 5.0;
/// No chirp is later.
const LATEST_S: f64 = 0.4;

/// What a device writes down.
#[derive(Default)]
struct Log {
    cpu: Vec<Duration>,
    wall: Vec<Duration>,
    /// By when samples came, or will sound.
    track: Track,
    /// By when they were handed to the card.
    handed: Track,
}

struct Watched<D> {
    device: D,
    left: Option<(Duration, Instant)>,
    log: Arc<Mutex<Log>>,
}

impl<D> Watched<D> {
    fn new(device: D, log: Arc<Mutex<Log>>) -> Self {
        Watched { device, left: None, log }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread is back; what did it use?
    fn visit(&self) {
        if let Some((cpu, at)) = self.left {
            let used = own_cpu().saturating_sub(cpu);
            let mut log = self.log();
            log.cpu.push(used);
            log.wall.push(at.elapsed());
        }
    }

    fn leave(&mut self) {
        self.left = Some((own_cpu(), Instant::now()));
    }
}

impl Capture for Watched<SimCapture> {
    fn read(&mut self, frame: &mut [i16; FRAME]) -> Result<(), AudioError> {
        self.visit();
        self.device.read(frame)?;
        self.log().track.push(frame, now() - FRAME_S);
        self.leave();
        Ok(())
    }
    fn xruns(&self) -> u64 {
        self.device.xruns()
    }
}

impl Playback for Watched<SimPlayback> {
    fn write(&mut self, frame: &[i16; FRAME]) -> Result<(), AudioError> {
        self.visit();
        let at = now();
        let sounds = at + self.device.buffered().as_secs_f64();
        {
            let mut log = self.log();
            log.track.push(frame, sounds);
            log.handed.push(frame, at);
        }
        self.device.write(frame)?;
        self.leave();
        Ok(())
    }
    fn buffered(&self) -> Duration {
        self.device.buffered()
    }
    fn flush(&mut self) {
        self.device.flush();
    }
    fn xruns(&self) -> u64 {
        self.device.xruns()
    }
}

/// A desk or port, and what its devices wrote down.
struct Part {
    endpoint: Arc<Endpoint>,
    capture: Arc<Mutex<Log>>,
    playback: Arc<Mutex<Log>>,
    threads: [JoinHandle<()>; 2],
}

/// What a scene showed, for the receiving port, the transmitting port and the desk: capture and playback.
type Scene = Vec<(Log, Log)>;

/// How often sound is sent, each time with cards and a burst that begin elsewhere between two frames.
const ROUNDS: u64 = 4;

/// Lets the one with this number talk to the others, or nobody, for so many seconds.
fn scene(seconds: u64, plans: Vec<EndpointPlan>, talker: Option<usize>) -> Result<Scene> {
    let gates = Arc::new(Gates::new());
    let mut sfu = Sfu::new(SfuConfig { announced: Vec::new() }, gates.clone())?;
    let (events, _received) = tokio::sync::mpsc::channel(256);
    let (bell, _listener) = Bell::new()?;
    let channel = ChannelId::from("ops");
    let sound: Arc<[i16]> = chirp::chirps(seconds + 2).into();
    let (mut spoken, mut sources, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
    for (n, plan) in plans.into_iter().enumerate() {
        let (session, user) = (SessionId(n as u64 + 1), UserId::from(plan.name.as_str()));
        let source = sfu.add_local_source(session, &user);
        let levels = ("in".to_owned(), "out".to_owned());
        let others = ["medical", "security", "logistics"].map(ChannelId::from);
        let channels: Vec<_> =
            std::iter::once(channel.clone()).chain(others).take(if plan.is_port { 1 } else { 4 }).collect();
        let (endpoint, capture, playback, media) = Endpoint::new(session, source, levels, &channels);
        spoken.push((source, media.frames));
        for (rank, (channel, mut sink)) in media.sinks.into_iter().enumerate() {
            let sink = Box::new(move |frame: LocalFrame<'_>| sink.play(&frame));
            sfu.add_local_listener(session, &user, &channel, rank as u64, sink);
        }
        sources.push(source);
        waiting.push((Arc::new(plan), endpoint, capture, playback));
    }
    let (media, thread) = MediaThread::new(sfu, Datagrams::bind(([127, 0, 0, 1], 0).into())?, spoken, events.clone())?;
    let forwarding = std::thread::spawn(move || thread.run());
    let parts: Vec<Part> = waiting
        .into_iter()
        .map(|(plan, endpoint, capture_end, playback_end)| {
            let logs = [Arc::<Mutex<Log>>::default(), Arc::default()];
            let (log, sound) = (logs[0].clone(), sound.clone());
            let open = move || {
                let device = SimCapture::new(Sound::Samples(sound.clone()));
                Ok(Box::new(Watched::new(device, log.clone())) as Box<dyn Capture>)
            };
            let (e, p, b, q, m) = (endpoint.clone(), plan.clone(), bell.clone(), events.clone(), media.clone());
            let hears = std::thread::spawn(move || {
                capture_thread(&e, &p, capture_end, (b, move || m.wake()), &q, Box::new(open));
            });
            let log = logs[1].clone();
            std::thread::sleep(Duration::from_micros(u64::from(u16::from_ne_bytes(random())) % 20_000));
            let open = move || Ok(Box::new(Watched::new(SimPlayback::new(), log.clone())) as Box<dyn Playback>);
            let (e, b, q) = (endpoint.clone(), bell.clone(), events.clone());
            let plays = std::thread::spawn(move || playback_thread(&e, &plan, playback_end, &b, &q, Box::new(open)));
            let [capture, playback] = logs;
            Part { endpoint, capture, playback, threads: [hears, plays] }
        })
        .collect();
    let burst = BurstId(1);
    if let Some(talker) = talker {
        gates.open(&channel, burst, Some(sources[talker]))?;
        for part in &parts {
            part.endpoint.play_from(Mono(0));
        }
        parts[talker].endpoint.talk(channel.clone(), burst);
    }
    std::thread::sleep(Duration::from_secs(seconds));
    for part in &parts {
        part.endpoint.stop();
    }
    let mut logs = Vec::new();
    for part in parts {
        for thread in part.threads {
            thread.join().ok(); // one that panicked has said so
        }
        let take = |log: Arc<Mutex<Log>>| std::mem::take(&mut *log.lock().unwrap_or_else(PoisonError::into_inner));
        logs.push((take(part.capture), take(part.playback)));
    }
    media.send(Command::Stop);
    forwarding.join().ok();
    Ok(logs)
}

/// The plans of a receiving and a transmitting port, as radios have them by default, and of a desk.
fn plans(all: bool) -> Vec<EndpointPlan> {
    let receive = Treatment { high_pass: true, limiter: true, emphasis: all, gain_db: if all { 3.0 } else { 0.0 } };
    let transmit = Treatment { emphasis: all, gain_db: receive.gain_db, ..Treatment::default() };
    let sense = if all { Sense::Ctcss(88.5, Duration::from_millis(250)) } else { Sense::Line };
    let port = |name| EndpointPlan { sense, receive, transmit, ..EndpointPlan::plain(name, true) };
    vec![port("near"), port("far"), EndpointPlan::plain("desk", false)]
}

fn row(what: &str, log: &mut Log) {
    let cpu = log.cpu.get_mut(WARM_UP..).unwrap_or_default();
    let a_second = cpu.iter().sum::<Duration>().as_secs_f64() * 1000.0 / (cpu.len() as f64 * FRAME_S);
    let micro = Duration::from_micros(1);
    let [p50, p99, longest] = [0.5, 0.99, 1.0].map(|q| percentile(cpu, q, micro));
    let wall = percentile(log.wall.get_mut(WARM_UP..).unwrap_or_default(), 1.0, Duration::from_millis(1));
    println!("| {what} | {a_second:.2} ms | {p50:.0} µs | {p99:.0} µs | {longest:.0} µs | {wall:.1} ms |");
}

/// Prints what threads cost and how late sound is inside.
pub fn run(seconds: u64) -> Result<()> {
    let mut idle = scene(seconds, plans(false), None)?;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(scene(seconds / 2 + STEADY_S as u64, plans(false), Some(0))?);
    }
    let mut full = scene(seconds, plans(true), Some(0))?;
    let mut desk = scene(seconds, plans(false), Some(2))?;
    let ways = [
        ("to the transmitting port's card", delays(&rounds, |scene| &scene[1].1.handed)),
        ("to its sound, behind the card's buffer of 60 ms", delays(&rounds, |scene| &scene[1].1.track)),
        ("to the desk's card", delays(&rounds, |scene| &scene[2].1.handed)),
    ];
    let radio = &mut rounds[0];
    println!("| a thread | CPU a second of sound | a frame, p50 | p99 | longest | longest by the clock |");
    println!("| --- | --- | --- | --- | --- | --- |");
    row("port, squelch shut: filter, limiter, look-back", &mut idle[0].0);
    row("port, unkeyed", &mut idle[1].1);
    row("port receiving: the same, and Opus", &mut radio[0].0);
    row("port transmitting: jitter buffer, Opus", &mut radio[1].1);
    row("port receiving, with CTCSS, de-emphasis and gain", &mut full[0].0);
    row("port transmitting, with pre-emphasis and gain", &mut full[1].1);
    row("desk talking", &mut desk[2].0);
    row("desk listening to four channels, a voice on one", &mut radio[2].1);
    println!();
    println!("| inside, {ROUNDS} bursts: from the receiving port's card | chirps | p50 | p95 | longest |");
    println!("| --- | --- | --- | --- | --- |");
    for (what, (sent, mut delays)) in ways {
        let [p50, p95, longest] = [0.5, 0.95, 1.0].map(|q| millis_at(&mut delays, q));
        println!("| {what} | {} of {sent} | {p50:.1} ms | {p95:.1} ms | {longest:.1} ms |", delays.len());
    }
    println!();
    Ok(())
}

/// How many chirps there were in all rounds, and how late each was on a track.
fn delays(rounds: &[Scene], on: impl Fn(&Scene) -> &Track) -> (usize, Vec<f64>) {
    let (mut sent, mut found) = (0, Vec::new());
    for scene in rounds {
        let from = scene[0].0.track.known(STEADY_S);
        sent += from.len();
        found.extend(on(scene).delays(&from, LATEST_S));
    }
    (sent, found)
}
