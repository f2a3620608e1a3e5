//! One radio with its card and its lines, by hand, while no gateway has them.
//!
//! **Invariant:** what was keyed here is unkeyed: when the port is dropped, at Ctrl-C, SIGTERM and SIGHUP, and at a panic;
//! the transmit watchdog looks on.

use crate::base::clock::mono_now;
use crate::base::{LineName, Mono};
use crate::gateway::config::Config;
use crate::gateway::endpoint::Sense;
use crate::gateway::outputs::{AtTheEnd, Hold, Outputs};
use crate::gateway::radio_config::Radio;
use crate::gateway::{lock_state_dir, open_lines};
use crate::hardware::audio::{self, AudioError, Capture, Playback};
use crate::hardware::cards;
use crate::hardware::gpio::{LineEvent, Lines};
use crate::media::dsp::chain::Chain;
use crate::media::dsp::ctcss::Ctcss;
use crate::media::voice::{Frame, SILENCE};
use anyhow::{Context, bail};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// A frame's length.
pub const FRAME_TIME: Duration = Duration::from_millis(20);
/// Frames that wait while nobody listens; then they are dropped.
const WAITING: usize = 512;
/// How much later than the one before a frame may be, beyond its length.
const DRIFT: Duration = Duration::from_millis(1);
/// A card gives a frame every 20 ms.
const SILENT_CARD: Duration = Duration::from_secs(5);
/// What programs say that Ctrl-C has ended.
const INTERRUPTED: i32 = 130;

/// Holds a state directory, so that no gateway starts meanwhile.
///
/// # Errors
/// If a gateway runs with it; says what to do.
pub fn claim(state_dir: &Path) -> anyhow::Result<Option<File>> {
    if !state_dir.is_dir() {
        return Ok(None);
    }
    match lock_state_dir(state_dir)? {
        Some(lock) => Ok(Some(lock)),
        None => {
            bail!("the gateway of {} runs and has the radio, which nobody else may key; {STOP_IT}", state_dir.display())
        }
    }
}

/// A card by its name, or an ALSA PCM.
pub fn pcm(name: &str) -> String {
    cards::find(name).map_or_else(|| name.to_owned(), |card| card.pcm())
}

/// What to do if it is the gateway that has what is wanted.
const STOP_IT: &str = "stop it with `systemctl stop crosspatch`, do this again, and start it afterwards";

/// What keeps a card from being used, with what that may come from.
pub fn busy(error: AudioError) -> anyhow::Error {
    match &error {
        AudioError::Busy { .. } => anyhow::anyhow!("{error}; if that is the gateway, {STOP_IT}"),
        AudioError::Missing { .. }
        | AudioError::Open { .. }
        | AudioError::Unsuitable { .. }
        | AudioError::Gone { .. }
        | AudioError::Stalled { .. } => error.into(),
    }
}

/// 20 ms that were heard.
pub struct Heard {
    /// When it began.
    pub at: Mono,
    /// As the card gives it.
    pub frame: Frame,
    /// How often the card has lost samples so far.
    pub xruns: u64,
}

/// A card that is listened to on a thread of its own, so that nothing is lost while something is played.
pub struct Ear {
    heard: Receiver<Result<Heard, AudioError>>,
    stop: Arc<AtomicBool>,
}

impl Ear {
    /// Begins to listen.
    pub fn new(mut card: Box<dyn Capture>) -> std::io::Result<Self> {
        let (sender, heard) = sync_channel(WAITING);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        std::thread::Builder::new().name("ear".into()).spawn(move || {
            let mut frame = SILENCE;
            let mut due: Option<Mono> = None;
            while !stopped.load(Ordering::Acquire) {
                let read = card.read(&mut frame);
                let failed = read.is_err();
                // A card keeps time; that this thread was late moves nothing but by a little, for clocks differ.
                let now = mono_now() - FRAME_TIME;
                let at = due.map_or(now, |due| due.min(now));
                due = Some(at + FRAME_TIME + DRIFT);
                let heard = read.map(|()| Heard { at, frame, xruns: card.xruns() });
                sender.try_send(heard).ok(); // nobody listens
                if failed {
                    return;
                }
            }
        })?;
        Ok(Ear { heard, stop })
    }

    /// The next frame.
    ///
    /// # Errors
    /// If the card is gone or stands still.
    pub fn next(&self) -> anyhow::Result<Heard> {
        match self.heard.recv_timeout(SILENT_CARD) {
            Ok(heard) => Ok(heard?),
            Err(RecvTimeoutError::Timeout) => bail!("the sound card gives nothing; replug it"),
            Err(RecvTimeoutError::Disconnected) => bail!("the sound card is gone; plug it in again"),
        }
    }

    /// Forgets what was heard so far.
    pub fn skip(&self) {
        while self.heard.try_recv().is_ok() {}
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// 20 ms with everything that is known about them.
pub struct Slice {
    /// When it began.
    pub at: Mono,
    /// As the card gives it.
    pub raw: Frame,
    /// After filter and gain, as the gateway judges it.
    pub treated: Frame,
    /// RMS after filter and gain, before the limiter.
    pub loudness_dbfs: f32,
    /// Whether the carrier is there.
    pub carrier: bool,
    /// Edges of the carrier's line since the slice before.
    pub edges: Vec<(Mono, bool)>,
    /// How often the card has lost samples so far.
    pub xruns: u64,
}

/// When a transmission was what.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// The transmitter was keyed.
    pub keyed: Mono,
    /// It was unkeyed.
    pub unkeyed: Mono,
}

/// The radio.
pub struct Port {
    /// As it is configured; what is changed here counts from the next transmission on, or after [`Port::treat_anew`].
    pub radio: Radio,
    ear: Ear,
    mouth: Box<dyn Playback>,
    lines: Outputs,
    _end: AtTheEnd,
    carrier: bool,
    receive: Chain,
    ctcss: Option<Ctcss>,
}

impl Port {
    /// Opens a radio of a configuration with its card and its lines.
    ///
    /// # Errors
    /// If there is no such radio, it has no card, or card or lines cannot be had; says what to do.
    pub fn open(config: &Config, id: &str) -> anyhow::Result<Self> {
        let radio = find(config, id)?.clone();
        let mut own = config.clone();
        own.desks.clear();
        own.radios.retain(|other| other.id == id);
        let (hears, plays) = names(&radio)?;
        // Before the lines: a fob or serial port is unkeyed as it is opened, and its radio may be the gateway's.
        let card = audio::open_capture(&pcm(hears)).map_err(busy)?;
        let mouth = audio::open_playback(&pcm(plays)).map_err(busy)?;
        let lines = open_lines(&own, Arc::new(|| {}))?.lines;
        if let Some(fault) = lines.fault() {
            bail!("{fault}; if the gateway has it, {STOP_IT}");
        }
        Self::new(radio.clone(), lines, card, mouth)
    }

    /// A radio with these parts.
    pub fn new(
        radio: Radio,
        lines: Box<dyn Lines>,
        card: Box<dyn Capture>,
        mouth: Box<dyn Playback>,
    ) -> anyhow::Result<Self> {
        let (mut lines, hold) = Outputs::new(lines);
        lines.drain();
        let carrier = radio.carrier_name().is_some_and(|line| lines.level(&line).unwrap_or(false));
        let receive = Chain::receive(radio.plan().receive);
        let mut port =
            Port { ear: Ear::new(card)?, radio, mouth, lines, _end: AtTheEnd(hold), carrier, receive, ctcss: None };
        port.treat_anew();
        Ok(port)
    }

    /// From now on it is unkeyed at signals and panics, whichever thread is at work; both end the program.
    ///
    /// # Errors
    /// If signals cannot be caught.
    pub fn unkey_at_signals(&self) -> anyhow::Result<()> {
        let hold: Hold = self._end.0.clone();
        hold.on_panic();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut interrupt, mut terminate, mut hangup) = {
            let _inside = runtime.enter();
            let of = signal;
            (of(SignalKind::interrupt())?, of(SignalKind::terminate())?, of(SignalKind::hangup())?)
        };
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
            });
            hold.hold();
            eprintln!("\nunkeyed; ended before its time");
            std::process::exit(INTERRUPTED);
        })?;
        Ok(())
    }

    /// Takes a changed configuration of the radio up for what is heard.
    pub fn treat_anew(&mut self) {
        let plan = self.radio.plan();
        self.receive = Chain::receive(plan.receive);
        self.ctcss = match plan.sense {
            Sense::Ctcss(hz, detect) => Some(Ctcss::new(hz, detect)),
            Sense::Line | Sense::Vox(_) => None,
        };
    }

    /// Forgets what was heard so far.
    pub fn skip(&self) {
        self.ear.skip();
    }

    /// The next 20 ms.
    ///
    /// # Errors
    /// If the card or the carrier's line is gone.
    pub fn next(&mut self) -> anyhow::Result<Slice> {
        let Heard { at, frame: raw, xruns } = self.ear.next()?;
        let mut treated = raw;
        let loudness_dbfs = (20.0 * self.receive.run(&mut treated).max(1e-6).log10()) as f32;
        let mut edges = Vec::new();
        for event in self.lines.drain() {
            let (stamp, active) = match event {
                LineEvent::Edge(edge) => (edge.stamp, edge.active),
                LineEvent::Lost { active_now, stamp, .. } | LineEvent::Returned { active_now, stamp, .. } => {
                    (stamp, active_now)
                }
                LineEvent::Gone { line, .. } => bail!("the line '{line}' cannot be read any more; check its chip"),
            };
            self.carrier = active;
            edges.push((stamp, active));
        }
        match (self.radio.plan().sense, &mut self.ctcss) {
            (Sense::Vox(threshold_dbfs), _) => self.carrier = loudness_dbfs >= threshold_dbfs,
            (Sense::Ctcss(..), Some(detector)) => self.carrier = detector.hear(&raw),
            (Sense::Line | Sense::Ctcss(..), _) => {}
        }
        Ok(Slice { at, raw, treated, loudness_dbfs, carrier: self.carrier, edges, xruns })
    }

    /// Everything of the next so many milliseconds.
    ///
    /// # Errors
    /// As [`Port::next`].
    pub fn listen(&mut self, time: Duration) -> anyhow::Result<Vec<Slice>> {
        (0..time.as_millis() / FRAME_TIME.as_millis()).map(|_| self.next()).collect()
    }

    fn ptt(&self) -> Option<LineName> {
        self.radio.ptt_name()
    }

    fn set(&mut self, keyed: bool) -> anyhow::Result<()> {
        match self.ptt() {
            Some(line) => self.lines.set(&line, keyed).context("the transmitter cannot be keyed"),
            None => Ok(()), // it keys itself by VOX
        }
    }

    /// True while its PTT output is active.
    pub fn is_keyed(&self) -> bool {
        self.ptt().is_some_and(|line| self.lines.level(&line).unwrap_or(false))
    }

    /// Keys, waits for the lead-in, plays with the transmitter's own treatment, waits for the hang, unkeys.
    ///
    /// # Errors
    /// If it cannot be keyed or the card is gone; it is unkeyed in any case.
    pub fn transmit(&mut self, frames: impl IntoIterator<Item = Frame>) -> anyhow::Result<Sent> {
        let longest = Duration::from_secs(self.radio.transmit_timeout_s).div_duration_f32(FRAME_TIME) as usize;
        let mut treatment = Chain::transmit(self.radio.plan().transmit);
        let keyed = mono_now();
        let done = self.set(true).and_then(|()| {
            let lead_in = Duration::from_millis(self.radio.lead_in_ms).as_millis().div_ceil(FRAME_TIME.as_millis());
            for _ in 0..lead_in {
                self.mouth.write(&SILENCE)?;
            }
            for mut frame in frames.into_iter().take(longest) {
                treatment.run(&mut frame);
                self.mouth.write(&frame)?;
            }
            std::thread::park_timeout(self.mouth.buffered() + Duration::from_millis(self.radio.ptt_hang_ms));
            Ok(())
        });
        let unkeyed = self.set(false);
        done.and(unkeyed)?;
        Ok(Sent { keyed, unkeyed: mono_now() })
    }
}

/// A radio of a configuration.
pub fn find<'a>(config: &'a Config, id: &str) -> anyhow::Result<&'a Radio> {
    config.radios.iter().find(|radio| radio.id == id).with_context(|| {
        let ids: Vec<_> = config.radios.iter().map(|r| r.id.as_str()).collect();
        format!("there is no radio '{id}'; there is {}", ids.join(", "))
    })
}

/// What it is heard by and talked to by.
pub fn names(radio: &Radio) -> anyhow::Result<(&str, &str)> {
    radio.sound().with_context(|| {
        format!("radio '{}' has no sound card; give it card = \"…\" of `crosspatch audio list`", radio.id)
    })
}
