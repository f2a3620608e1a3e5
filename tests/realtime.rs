//! Audio threads: while their devices work they neither allocate nor log. The threads are the real ones; the devices are
//! simulated and mark the thread that they are used by.

use assert_no_alloc::{AllocDisabler, assert_no_alloc, reset_violation_count, violation_count};
use crosspatch::base::{BurstId, Mono, SessionId, SourceId};
use crosspatch::gateway::bell::Bell;
use crosspatch::gateway::endpoint::{Endpoint, EndpointPlan, Sense, capture_thread, playback_thread};
use crosspatch::hardware::audio::sim::{SimCapture, SimPlayback, Sound};
use crosspatch::hardware::audio::{AudioError, Capture, FRAME, Playback};
use crosspatch::media::dsp::chain::Treatment;
use crosspatch::media::sfu::LocalFrame;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

thread_local! {
    static MARKED: Cell<bool> = const { Cell::new(false) };
}
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static LOGS: AtomicU64 = AtomicU64::new(0);
static FRAMES: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: AllocDisabler = AllocDisabler;

/// Called by the devices with every frame: counts what the thread has allocated and freed since the frame before.
fn mark() {
    if MARKED.replace(true) {
        ALLOCATIONS.fetch_add(violation_count().into(), Ordering::Relaxed);
    }
    reset_violation_count();
    FRAMES.fetch_add(1, Ordering::Relaxed);
}

struct Marking<D>(D);

impl Capture for Marking<SimCapture> {
    fn read(&mut self, frame: &mut [i16; FRAME]) -> Result<(), AudioError> {
        mark();
        self.0.read(frame)
    }
    fn xruns(&self) -> u64 {
        self.0.xruns()
    }
}

impl Playback for Marking<SimPlayback> {
    fn write(&mut self, frame: &[i16; FRAME]) -> Result<(), AudioError> {
        mark();
        self.0.write(frame)
    }
    fn buffered(&self) -> Duration {
        self.0.buffered()
    }
    fn flush(&mut self) {
        self.0.flush();
    }
    fn xruns(&self) -> u64 {
        self.0.xruns()
    }
}

/// Counts what is logged on marked threads.
struct Logs;

impl tracing::Subscriber for Logs {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        LOGS.fetch_add(u64::from(MARKED.get()), Ordering::Relaxed);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

fn plan() -> EndpointPlan {
    let all = Treatment { high_pass: true, emphasis: true, gain_db: 3.0, limiter: true };
    EndpointPlan {
        sense: Sense::Ctcss(88.5, Duration::from_millis(250)),
        receive: all,
        transmit: all,
        look_back: Duration::from_millis(200),
        lead_in: Duration::from_millis(200),
        ident: vec![1000; 5 * FRAME],
        ..EndpointPlan::plain("VHF", true)
    }
}

#[test]
fn audio_threads_neither_allocate_nor_log_whatever_they_are_told() {
    tracing::subscriber::set_global_default(Logs).unwrap();
    let channel = crosspatch::base::ChannelId::from("ops");
    let levels = ("in".into(), "out".into());
    let (endpoint, capture_end, playback_end, mut media) =
        Endpoint::new(SessionId(1), SourceId(1), levels, std::slice::from_ref(&channel));
    let (bell, _listener) = Bell::new().unwrap();
    let (events, mut received) = tokio::sync::mpsc::channel(64);
    let plan = Arc::new(plan());
    let threads = {
        let (e, p, b, q) = (endpoint.clone(), plan.clone(), bell.clone(), events.clone());
        let capture = std::thread::spawn(move || {
            let sound = Sound::Tone { hz: 88.5, level_dbfs: -12.0 };
            let open = Box::new(move || Ok(Box::new(Marking(SimCapture::new(sound.clone()))) as Box<dyn Capture>));
            assert_no_alloc(|| capture_thread(&e, &p, capture_end, (b, || {}), &q, open));
        });
        let (e, p, q) = (endpoint.clone(), plan, events);
        let playback = std::thread::spawn(move || {
            let open = Box::new(|| Ok(Box::new(Marking(SimPlayback::new())) as Box<dyn Playback>));
            assert_no_alloc(|| playback_thread(&e, &p, playback_end, &bell, &q, open));
        });
        [capture, playback]
    };
    // Bursts in both directions, with losses and a backlog, cuts, ends and signatures, for two seconds.
    let mut sequence = 0;
    let start = Instant::now();
    for round in 0..8u64 {
        let burst = BurstId(round + 1);
        endpoint.talk(channel.clone(), burst);
        endpoint.play_from(Mono(0));
        let until = start + Duration::from_millis(250) * (round as u32 + 1);
        while Instant::now() < until {
            while let Ok(voice) = media.frames.pop() {
                sequence += 1 + u64::from(sequence % 7 == 3); // one in seven is lost
                media.sinks[0].1.play(&LocalFrame {
                    channel: &channel,
                    burst,
                    source: SourceId(1),
                    sequence,
                    timestamp: sequence as u32 * 960,
                    payload: voice.payload(),
                });
            }
            std::thread::yield_now();
        }
        endpoint.stop_talking(&channel, burst);
        match round % 4 {
            0 => endpoint.cut(&channel, burst),
            1 => endpoint.stop_playing(Some(burst)),
            2 => {
                endpoint.end(&channel, burst);
                endpoint.sign(true, true);
            }
            _ => {
                endpoint.end(&channel, burst);
                endpoint.tell_when_drained();
            }
        }
    }
    let heard = endpoint.take_told();
    endpoint.stop();
    for thread in threads {
        thread.join().unwrap();
    }
    while received.try_recv().is_ok() {}
    let frames = FRAMES.load(Ordering::Relaxed);
    assert!(frames > 100 && sequence > 50, "{frames} frames passed the devices, {sequence} packets were sent");
    assert!(!heard.is_empty(), "the tone was found");
    assert_eq!((ALLOCATIONS.load(Ordering::Relaxed), LOGS.load(Ordering::Relaxed)), (0, 0), "on audio threads");
}
