//! The release binary with the null sinks of a sound server as its cards: from mouth to ear, and what a port takes.

use super::native::chirp::{self, Track, frame, millis_at, now};
use super::native::figures::{cpu_by_thread, rss_kb};
use super::native::gateway::Gateway;
use super::native::lean::{self, Identity, Lean};
use super::native::signaling::Signaling;
use anyhow::{Context, Result, ensure};
use crosspatch::base::BurstId;
use crosspatch::hardware::audio::{open_capture, open_playback};
use crosspatch::media::voice::codec::{Decoder, Encoder, MAX_PACKET_BYTES};
use crosspatch::media::voice::playout::{Playout, Sizes};
use crosspatch::media::voice::{FRAME, SILENCE};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The sinks: what the radio hears, what it sends, and what a second radio sends.
pub const SINKS: [&str; 3] = ["radio_rx", "radio_tx", "far_tx"];
const FRAME_S: f64 = 0.02;
/// When a burst is steady: the backlog is worked off by then.
const STEADY_S: f64 = 5.0;
/// No chirp is later.
const LATEST_S: f64 = 0.45;
/// How often a client renews its consent.
const CONSENT: Duration = Duration::from_secs(5);
const SSRC: u32 = 11;
/// Ports that memory is divided by.
const PORTS: usize = 16;

const EVENT: &str = r#"
[event]
id = "bench"
talk_limit_s = 600

[[channel]]
id = "ops"
name = "Operations"
"#;

const RADIOS: &str = r#"
[[radio]]
id = "vhf"
user = "radio-vhf"
name = "VHF 1"
channel = "ops"
carrier_line = "radio.vhf.carrier"
ptt_line = "radio.vhf.ptt"
lead_in_ms = 0
look_back_ms = 0
carrier_timeout_s = 600
transmit_timeout_s = 600
capture_pcm = "radio_rx"
playback_pcm = "radio_tx"

[[radio]]
id = "uhf"
user = "radio-uhf"
name = "UHF 1"
channel = "ops"
vox_threshold_dbfs = 0.0
lead_in_ms = 0
transmit_timeout_s = 600
playback_pcm = "far_tx"
"#;

/// How often each way is measured, each time with a gateway whose cards begin elsewhere between two frames.
const ROUNDS: u64 = 4;
/// What is told of each round, in this order.
const WAYS: [&str; 5] = [
    "the sound server's own loop: written, and read again",
    "radio PCM to a native listener: arrived",
    "the same, heard behind a jitter buffer like ours",
    "radio PCM to another radio's PCM",
    "native talker to the radio's PCM",
];

/// How many chirps there were on each of the ways, and how late each was.
type Delays = [(usize, Vec<f64>); WAYS.len()];

/// Prints the delays from outside, and what ports take of the machine.
pub async fn run(seconds: u64) -> Result<()> {
    let mut all = Delays::default();
    for _ in 0..ROUNDS {
        let gateway = Gateway::with_config(&(EVENT.to_owned() + RADIOS)).await?;
        let total = seconds / 2 + STEADY_S as u64;
        let [own, arrived, heard, far] = from_the_radio(&gateway, total).await?;
        let talked = to_the_radio(&gateway, total).await?;
        for (all, one) in all.iter_mut().zip([own, arrived, heard, far, talked]) {
            all.0 += one.0;
            all.1.extend(one.1);
        }
    }
    let own = millis_at(&mut all[0].1, 0.5);
    println!(
        "| outside, behind a sound server, {ROUNDS} bursts each | chirps | p50 | p95 | p50, p95 less the server's loop |"
    );
    println!("| --- | --- | --- | --- | --- |");
    for (n, (what, (sent, delays))) in WAYS.into_iter().zip(&mut all).enumerate() {
        let [p50, p95] = [0.5, 0.95].map(|q| millis_at(delays, q));
        // Only what goes through a second PCM has a loop of the server in it.
        let net = if n >= 3 { format!("{:.1}, {:.1} ms", p50 - own, p95 - own) } else { String::new() };
        println!("| {what} | {} of {sent} | {p50:.1} ms | {p95:.1} ms | {net} |", delays.len());
    }
    println!();
    costs(seconds).await
}

/// A thread that writes down what it takes in until it is told to stop.
struct Writing(Arc<AtomicBool>, JoinHandle<Result<Track>>);

impl Writing {
    fn start(run: impl FnOnce(&AtomicBool) -> Result<Track> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        Writing(stop, std::thread::spawn(move || run(&stopped)))
    }

    /// Reads what is played into a sink, as the gateway reads.
    fn of(sink: &'static str) -> Self {
        Self::start(move |stop| {
            let (mut device, mut track, mut heard) = (open_capture(sink)?, Track::default(), SILENCE);
            while !stop.load(Ordering::Relaxed) {
                device.read(&mut heard)?;
                track.push(&heard, now() - FRAME_S);
            }
            ensure!(device.xruns() == 0, "the machine is too busy: samples of {sink} were lost");
            Ok(track.steady())
        })
    }

    fn end(self) -> Result<Track> {
        self.0.store(true, Ordering::Relaxed);
        self.1.join().ok().context("a thread panicked")?
    }
}

/// From the radio's PCM to a native listener, and to another radio's; first the sound server's own loop.
async fn from_the_radio(gateway: &Gateway, total: u64) -> Result<[(usize, Vec<f64>); 4]> {
    let token = gateway.token("lara", "general", "ops")?;
    let mut signaling = Signaling::connect(gateway, &token).await?;
    signaling.ask("join-channel", json!({ "channelId": "ops" })).await?;
    let ear = lean::connect(&mut signaling, "ops", "recv", &Identity::new()?).await?;
    lean::consume(&mut signaling, &ear.id, "ops").await?;
    let near = Writing::of("radio_rx");
    let far = Writing::of("far_tx");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let listening = std::thread::spawn(move || listen(ear, &stopped));
    gateway.move_line("radio.vhf.carrier", true).await?;
    gateway.audited("action = 'ptt.start' AND actor = 'radio-vhf'").await?;
    let writing = std::thread::spawn(move || write(total));
    let written = tokio::task::spawn_blocking(move || writing.join()).await?.ok().context("the writer panicked")??;
    gateway.move_line("radio.vhf.carrier", false).await?;
    gateway.audited("action = 'ptt.stop' AND actor = 'radio-vhf'").await?;
    stop.store(true, Ordering::Relaxed);
    let packets = listening.join().ok().context("the listener panicked")??;
    let (near, far) = (near.end()?, far.end()?);

    let known = written.known(STEADY_S);
    // Each chirp as it was at the radio's PCM.
    let from: Vec<f64> = known.iter().filter_map(|at| Some(at + near.delays(&[*at], LATEST_S).first()?)).collect();
    let (arrived, heard) = (as_they_came(&packets)?, through_a_jitter_buffer(&packets)?);
    let late = |track: &Track| (from.len(), track.delays(&from, LATEST_S));
    let server = (known.len(), near.delays(&known, LATEST_S));
    Ok([server, late(&arrived), late(&heard), late(&far)])
}

/// Plays chirps to the radio, and writes down when each frame was taken.
fn write(total: u64) -> Result<Track> {
    let (sound, mut track) = (chirp::chirps(total), Track::default());
    let mut device = open_playback("radio_rx")?;
    for number in 0..sound.len() / FRAME {
        let frame = frame(&sound, number);
        device.write(&frame)?;
        track.push(&frame, now());
    }
    Ok(track)
}

/// A packet as it came in.
struct Packet {
    at: f64,
    sequence: u16,
    timestamp: u32,
    payload: Vec<u8>,
}

/// Takes packets in until told to stop.
fn listen(mut ear: Lean, stop: &AtomicBool) -> Result<Vec<Packet>> {
    let mut packets = Vec::new();
    let mut consent = Instant::now();
    ear.socket.set_nonblocking(false)?;
    ear.socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut datagram = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if consent.elapsed() >= CONSENT {
            consent = Instant::now();
            ear.socket.send(&ear.check)?;
        }
        let Ok(length) = ear.socket.recv(&mut datagram) else { continue };
        let at = now();
        if let Some(packet) = ear.open_rtp(&datagram[..length]) {
            let p = packet.as_ref();
            let extension = if p[0] & 0x10 != 0 { 4 + 4 * usize::from(u16::from_be_bytes([p[14], p[15]])) } else { 0 };
            let payload = p[12 + 4 * usize::from(p[0] & 0x0f) + extension..].to_vec();
            let timestamp = u32::from_be_bytes([p[4], p[5], p[6], p[7]]);
            packets.push(Packet { at, sequence: u16::from_be_bytes([p[2], p[3]]), timestamp, payload });
        }
    }
    Ok(packets)
}

/// As a listener would hear it that plays every packet the moment it is there.
fn as_they_came(packets: &[Packet]) -> Result<Track> {
    let (mut decoder, mut track) = (Decoder::new()?, Track::default());
    for packet in packets {
        track.push(&decoder.decode(&packet.payload)?, packet.at);
    }
    Ok(track)
}

/// As a listener hears it that has the gateway's own jitter buffer.
fn through_a_jitter_buffer(packets: &[Packet]) -> Result<Track> {
    let (mut playout, mut track) = (Playout::new(Sizes::default())?, Track::default());
    let (Some(first), Some(last)) = (packets.first(), packets.last()) else { return Ok(track) };
    let mut waiting = packets.iter().peekable();
    for tick in 1.. {
        let at = first.at + f64::from(tick) * FRAME_S;
        while let Some(p) = waiting.next_if(|p| p.at <= at) {
            let sequence = u64::from(p.sequence.wrapping_sub(first.sequence));
            playout.push(BurstId(1), sequence, p.timestamp, &p.payload);
        }
        track.push(&playout.pull().frame, at);
        if at > last.at {
            break;
        }
    }
    Ok(track)
}

/// From a native talker to the radio's PCM.
async fn to_the_radio(gateway: &Gateway, total: u64) -> Result<(usize, Vec<f64>)> {
    let (mut signaling, voice) = talker(gateway).await?;
    let reader = Writing::of("radio_tx");
    signaling.ask("ptt-start", json!({ "channelId": "ops" })).await?;
    let talking = std::thread::spawn(move || talk(voice, total));
    let spoken = tokio::task::spawn_blocking(move || talking.join()).await?.ok().context("the talker panicked")??;
    signaling.ask("ptt-stop", json!({ "channelId": "ops" })).await?;
    let from = spoken.known(STEADY_S);
    Ok((from.len(), reader.end()?.delays(&from, LATEST_S)))
}

async fn talker(gateway: &Gateway) -> Result<(Signaling, Lean)> {
    let token = gateway.token("tina", "general", "ops")?;
    let mut signaling = Signaling::connect(gateway, &token).await?;
    signaling.ask("join-channel", json!({ "channelId": "ops" })).await?;
    let voice = lean::connect(&mut signaling, "ops", "send", &Identity::new()?).await?;
    lean::produce(&mut signaling, &voice, "ops", SSRC).await?;
    Ok((signaling, voice))
}

/// Says chirps, a frame every 20 ms, each sent when its last sample has been said.
fn talk(mut voice: Lean, total: u64) -> Result<Track> {
    let (sound, mut track, mut encoder) = (chirp::chirps(total), Track::default(), Encoder::new(5)?);
    let begin = Instant::now();
    for number in 0..sound.len() / FRAME {
        let due = begin + Duration::from_millis(20) * number as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let (frame, mut packet) = (frame(&sound, number), [0; MAX_PACKET_BYTES]);
        let length = encoder.encode(&frame, &mut packet)?;
        track.push(&frame, now() - FRAME_S);
        voice.send_rtp(&lean::rtp(SSRC, number as u64, &packet[..length]))?;
        if number % 250 == 0 {
            voice.socket.send(&voice.check)?;
        }
    }
    Ok(track)
}

/// What the whole process takes, with simulated sound.
async fn costs(seconds: u64) -> Result<()> {
    let radio = |n: usize| {
        let lines = if n == 0 {
            "carrier_line = \"radio.vhf.carrier\"\nptt_line = \"radio.vhf.ptt\"\n"
        } else {
            "vox_threshold_dbfs = 0.0\n"
        };
        format!(
            "\n[[radio]]\nid = \"r{n}\"\nuser = \"radio-{n}\"\nname = \"Radio {n}\"\nchannel = \"ops\"\n{lines}\
             carrier_timeout_s = 600\ntransmit_timeout_s = 600\n"
        )
    };
    println!("| the whole gateway for {seconds} s, simulated sound | CPU a second | more than without a radio |");
    println!("| --- | --- | --- |");
    let none = Gateway::with_config(EVENT).await?;
    let base = used(&none, seconds).await?;
    println!("| no radio | {base:.2} ms | |");
    let tell = |what: &str, cpu: f64| println!("| {what} | {cpu:.2} ms | {:.2} ms |", cpu - base);
    let without = rss_kb(none.pid())?;
    drop(none);
    let one = Gateway::with_config(&(EVENT.to_owned() + &radio(0))).await?;
    tell("one radio, nobody talks", used(&one, seconds).await?);
    one.move_line("radio.vhf.carrier", true).await?;
    one.audited("action = 'ptt.start'").await?;
    tell("one radio, receiving", used(&one, seconds).await?);
    one.move_line("radio.vhf.carrier", false).await?;
    one.audited("action = 'ptt.stop'").await?;
    let (mut signaling, voice) = talker(&one).await?;
    signaling.ask("ptt-start", json!({ "channelId": "ops" })).await?;
    let talking = std::thread::spawn(move || talk(voice, seconds + 1));
    one.audited("action = 'radio.keyed'").await?;
    tell("one radio, transmitting a native talker", used(&one, seconds).await?);
    talking.join().ok().context("the talker panicked")??;
    drop(one);
    let many = Gateway::with_config(&(0..=PORTS).fold(EVENT.to_owned(), |text, n| text + &radio(n))).await?;
    tell(&format!("{} radios, nobody talks", PORTS + 1), used(&many, seconds).await?);
    let with = rss_kb(many.pid())?;
    println!();
    println!(
        "Memory: {without:.0} kB without a radio, {:.0} kB more for each of {}.",
        (with - without) / (PORTS + 1) as f64,
        PORTS + 1
    );
    Ok(())
}

/// Milliseconds of CPU a second.
async fn used(gateway: &Gateway, seconds: u64) -> Result<f64> {
    let look = || cpu_by_thread(gateway.pid()).map(|threads| threads.values().sum::<Duration>());
    let (began, before) = (Instant::now(), look()?);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    Ok((look()?.saturating_sub(before)).as_secs_f64() * 1000.0 / began.elapsed().as_secs_f64())
}
