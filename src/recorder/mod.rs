//! Recordings of what was said: one Ogg Opus file a talk burst, straight from the packets that went through the gate.
//!
//! Off unless channels are named. This room decides how packets become files, what becomes of files that were cut
//! short, and which go when there are too many. It never decides who may be heard or recorded, decodes nothing, and
//! never makes its caller wait: [`Recorder`] hands everything to a thread of its own through a bounded queue, and what
//! the queue cannot take is a gap in the recording.
//!
//! **Invariant:** a recording is in the audit with its SHA-256 once it is whole on disk, not before.

mod shelf;
mod stream;

pub use shelf::{Keep, path_of};

use crate::base::clock::wall_now;
use crate::base::{Action, BurstId, ChannelId, Mono, Record, Role, SourceId, UserId, WallStamp};
use aws_lc_rs::digest::{Context, SHA256};
use serde_json::json;
use shelf::{Gone, Shelf, id_of};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use stream::OpusStream;

/// Packets that may wait for the disk: 20 bursts of 4 s.
const QUEUE: usize = 4096;
/// How often old recordings are looked for.
const PRUNE_PERIOD: Duration = Duration::from_secs(600);
/// How long a directory that cannot be used is left alone.
const RETRY: Duration = Duration::from_secs(5);

/// What can go wrong with recordings.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    /// The disk refuses.
    #[error("{path} cannot be used: {source}; check that it is writable and has room")]
    Disk {
        /// What was to be used.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The thread cannot be started.
    #[error("the recorder's thread cannot be started: {0}; raise the unit's TasksMax or free memory")]
    Thread(std::io::Error),
}

/// Who talks in a burst.
#[derive(Clone, Debug)]
pub struct Talker {
    /// The burst.
    pub burst: BurstId,
    /// Its channel; none for an emergency, which is heard on all.
    pub channel: Option<ChannelId>,
    /// The participant.
    pub user: Option<UserId>,
    /// Its name.
    pub name: Option<String>,
    /// Its role.
    pub role: Option<Role>,
    /// Since when.
    pub since: (Mono, WallStamp),
}

/// What travels to the recorder's thread.
enum Order {
    Begin(Box<Talker>),
    Packet { burst: BurstId, source: SourceId, sequence: u64, timestamp: u32, payload: Vec<u8> },
    End(BurstId),
    Keep(Keep),
}

/// What the recorder tells.
pub enum News {
    /// Something for the audit.
    Record(Record),
    /// Why recordings do not reach the disk, or that they do.
    Failing(Option<String>),
}

/// What is recorded, where and for how long.
#[derive(Clone)]
pub struct Plan {
    /// The channels; an emergency is recorded if there is any.
    pub channels: BTreeSet<ChannelId>,
    /// Where the files are.
    pub dir: PathBuf,
    /// How much of them is kept.
    pub keep: Keep,
    /// How a time is written, from milliseconds since 1970.
    pub iso_8601: fn(u64) -> String,
}

/// The handle that bursts and packets are handed in with; cheap to clone. The thread ends when the last one is gone.
#[derive(Clone)]
pub struct Recorder {
    queue: SyncSender<Order>,
    channels: Arc<BTreeSet<ChannelId>>,
}

impl Recorder {
    /// The channels that are recorded.
    #[must_use]
    pub fn channels(&self) -> &BTreeSet<ChannelId> {
        &self.channels
    }

    /// A burst begins. Called before its gate opens.
    pub fn begin(&self, talker: Talker) {
        let burst = talker.burst;
        if talker.channel.as_ref().is_none_or(|channel| self.channels.contains(channel))
            && !self.hand(Order::Begin(Box::new(talker)))
        {
            tracing::error!(%burst, "the recorder does not keep up; a burst is not recorded");
        }
    }

    /// A packet went through the gate.
    pub fn packet(&self, burst: BurstId, source: SourceId, sequence: u64, timestamp: u32, payload: &[u8]) {
        if !self.hand(Order::Packet { burst, source, sequence, timestamp, payload: payload.to_vec() }) {
            tracing::debug!(%burst, "the recorder does not keep up; there is a gap");
        }
    }

    /// A burst has ended. Called after its gate was shut.
    pub fn end(&self, burst: BurstId) {
        if !self.hand(Order::End(burst)) {
            tracing::error!(%burst, "the recorder does not keep up; a recording ends with the next start");
        }
    }

    /// Keeps so much from now on.
    pub fn keep(&self, keep: Keep) {
        if !self.hand(Order::Keep(keep)) {
            tracing::error!("the recorder does not keep up; how much it keeps changes with the next start");
        }
    }

    fn hand(&self, order: Order) -> bool {
        self.queue.try_send(order).is_ok()
    }
}

/// Starts the recorder's thread; `tell` is called on it.
///
/// # Errors
/// If the thread cannot be started. A directory that cannot be used is news.
pub fn start(plan: Plan, tell: impl Fn(News) + Send + 'static) -> Result<(Recorder, JoinHandle<()>), RecorderError> {
    let (queue, orders) = sync_channel(QUEUE);
    let recorder = Recorder { queue, channels: Arc::new(plan.channels.clone()) };
    let clerk = Clerk { plan, tell: Box::new(tell), shelf: None, open: HashMap::new(), failing: None };
    let thread = std::thread::Builder::new()
        .name("recorder".to_owned())
        .spawn(move || clerk.run(&orders))
        .map_err(RecorderError::Thread)?;
    Ok((recorder, thread))
}

/// A file that hashes what is written to it.
struct Hashing {
    file: BufWriter<File>,
    hash: Context,
    bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// A burst that runs; without a recording if there cannot be one.
struct Open {
    talker: Talker,
    recording: Option<Recording>,
}

/// A file that is being written.
struct Recording {
    id: String,
    part: PathBuf,
    stream: OpusStream<Hashing>,
}

/// The state of the recorder's thread.
struct Clerk {
    plan: Plan,
    tell: Box<dyn Fn(News) + Send>,
    /// Nothing while the directory cannot be used.
    shelf: Option<Shelf>,
    open: HashMap<BurstId, Open>,
    failing: Option<String>,
}

impl Clerk {
    fn run(mut self, orders: &Receiver<Order>) {
        self.open_shelf();
        if self.failing.is_none() {
            (self.tell)(News::Failing(None));
        }
        let mut look_at = Instant::now();
        loop {
            let now = Instant::now();
            if now >= look_at {
                self.open_shelf();
                self.prune();
                look_at = now + if self.shelf.is_some() { PRUNE_PERIOD } else { RETRY };
            }
            match orders.recv_timeout(look_at.saturating_duration_since(now)) {
                Ok(order) => self.take(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let open: Vec<BurstId> = self.open.keys().copied().collect();
        open.into_iter().for_each(|burst| self.end(burst));
    }

    /// Opens the directory unless it is open; what a crash has left there is brought in order.
    fn open_shelf(&mut self) {
        if self.shelf.is_some() {
            return;
        }
        match Shelf::open(&self.plan.dir) {
            Ok((shelf, parts)) => {
                self.shelf = Some(shelf);
                self.fail(None);
                let parts = parts.into_iter().filter(|part| !self.is_being_written(part));
                parts.collect::<Vec<_>>().iter().for_each(|part| self.rescue(part));
            }
            Err(e) => self.fail(Some(e.to_string())),
        }
    }

    fn is_being_written(&self, part: &Path) -> bool {
        self.open.values().filter_map(|open| open.recording.as_ref()).any(|recording| recording.part == part)
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Begin(talker) => {
                let recording = self.begin(&talker).map_err(|e| self.fail(Some(e.to_string()))).ok();
                self.open.insert(talker.burst, Open { talker: *talker, recording });
            }
            Order::Packet { burst, source, sequence, timestamp, payload } => {
                let Some(recording) = self.open.get_mut(&burst).and_then(|open| open.recording.as_mut()) else {
                    return;
                };
                if let Err(source) = recording.stream.packet(source, sequence, timestamp, &payload) {
                    let path = recording.part.clone();
                    if let Some(open) = self.open.get_mut(&burst) {
                        open.recording = None;
                    }
                    self.fail(Some(RecorderError::Disk { path, source }.to_string()));
                }
            }
            Order::End(burst) => self.end(burst),
            Order::Keep(keep) => {
                self.plan.keep = keep;
                self.prune();
            }
        }
    }

    fn begin(&mut self, talker: &Talker) -> Result<Recording, RecorderError> {
        let utc = (self.plan.iso_8601)(talker.since.1.unix_ms);
        let id = id_of(&utc, talker.channel.as_ref(), &talker.burst.to_string());
        let part = match &self.shelf {
            Some(shelf) => shelf.part_of(&id)?,
            None => {
                return Err(RecorderError::Disk {
                    path: self.plan.dir.clone(),
                    source: std::io::ErrorKind::NotFound.into(),
                });
            }
        };
        let failed = |source| RecorderError::Disk { path: part.clone(), source };
        let file = BufWriter::new(File::create(&part).map_err(failed)?);
        let to = Hashing { file, hash: Context::new(&SHA256), bytes: 0 };
        let channel = talker.channel.as_ref().map_or("all", |channel| channel.as_str());
        let comments = [
            format!("ARTIST={}", talker.name.as_deref().unwrap_or_default()),
            format!("TITLE={channel} {}", talker.burst),
            format!("DATE={utc}"),
            format!("CHANNEL={channel}"),
            format!("TALKER={}", talker.user.as_ref().map_or("", |user| user.as_str())),
            format!("ROLE={}", talker.role.map_or("", Role::as_str)),
        ];
        let serial = u32::try_from(talker.burst.0 & u64::from(u32::MAX)).unwrap_or(0);
        let stream = OpusStream::begin(to, serial, &comments).map_err(failed)?;
        Ok(Recording { id, part, stream })
    }

    fn end(&mut self, burst: BurstId) {
        let Some(Open { talker, recording }) = self.open.remove(&burst) else { return };
        let stored = recording.map(|recording| {
            let path = recording.part.clone();
            self.store(&talker, recording).map_err(|source| RecorderError::Disk { path, source })
        });
        let record = match stored {
            Some(Ok(None)) => return, // nothing was said
            Some(Ok(Some(record))) => {
                self.fail(None);
                record
            }
            Some(Err(e)) => {
                self.fail(Some(e.to_string()));
                self.failed(&talker)
            }
            None => self.failed(&talker),
        };
        (self.tell)(News::Record(record));
        self.prune();
    }

    fn failed(&self, talker: &Talker) -> Record {
        about(Action::RecordingFailed, talker).with(json!({ "why": self.failing }))
    }

    /// Makes a file whole; nothing if the burst had no packet.
    fn store(&mut self, talker: &Talker, recording: Recording) -> std::io::Result<Option<Record>> {
        let Recording { id, part, stream } = recording;
        let (mut to, tally) = stream.end()?;
        to.flush()?;
        if tally.packets == 0 {
            std::fs::remove_file(&part)?;
            return Ok(None);
        }
        to.file.get_ref().sync_all()?;
        std::fs::rename(&part, part.with_extension(""))?;
        if let Some(shelf) = &mut self.shelf {
            shelf.add(&id, to.bytes);
        }
        let detail = json!({
            "id": id,
            "sha256": hex(to.hash.finish().as_ref()),
            "bytes": to.bytes,
            "startedUtc": (self.plan.iso_8601)(talker.since.1.unix_ms),
            "startedMonoNs": talker.since.0.0,
            "lengthMs": tally.samples / 48,
            "packets": tally.packets,
            "lost": tally.lost,
        });
        Ok(Some(about(Action::RecordingStored, talker).with(detail)))
    }

    /// A file that was being written when the process or the power ended: whole up to its last page.
    fn rescue(&mut self, part: &Path) {
        let whole = part.with_extension("");
        let rescued = std::fs::read(part).and_then(|bytes| std::fs::rename(part, &whole).map(|()| bytes));
        let (Ok(bytes), Some(id)) = (rescued, whole.file_stem().and_then(|stem| stem.to_str())) else {
            return tracing::error!("{} cannot be read; the recording stays as it is", part.display());
        };
        if let Some(shelf) = &mut self.shelf {
            shelf.add(id, bytes.len() as u64);
        }
        let mut hash = Context::new(&SHA256);
        hash.update(&bytes);
        let detail = json!({ "id": id, "sha256": hex(hash.finish().as_ref()), "bytes": bytes.len() });
        (self.tell)(News::Record(Record::new(Action::RecordingStored).because("cut-short").with(detail)));
    }

    fn prune(&mut self) {
        let wall = wall_now(); // not what never goes back: a clock that was once years ahead must not empty the shelf
        let Some(shelf) = &mut self.shelf else { return };
        for Gone { id, cause } in shelf.prune(&self.plan.keep, wall, self.plan.iso_8601) {
            (self.tell)(News::Record(Record::new(Action::RecordingDeleted).because(cause).with(json!({ "id": id }))));
        }
    }

    fn fail(&mut self, why: Option<String>) {
        if self.failing != why {
            self.failing.clone_from(&why);
            (self.tell)(News::Failing(why));
        }
    }
}

/// A record of a talker's burst.
fn about(action: Action, talker: &Talker) -> Record {
    let mut record = Record::new(action).in_burst(talker.burst);
    record.actor.clone_from(&talker.user);
    record.actor_name.clone_from(&talker.name);
    record.role = talker.role;
    record.channel.clone_from(&talker.channel);
    record
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 of a recording's file, in hex.
///
/// # Errors
/// If it cannot be read.
pub fn sha256_of(path: &Path) -> std::io::Result<String> {
    let (mut file, mut hash, mut buffer) = (File::open(path)?, Context::new(&SHA256), vec![0; 64 * 1024]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(hash.finish().as_ref())),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// The talker of a burst that begins, if `record` says that one does.
#[must_use]
pub fn beginning(record: &Record, since: (Mono, WallStamp)) -> Option<Talker> {
    let begins = matches!(record.action, Action::PttStart | Action::PriorityPttStart | Action::EmergencyStart);
    let burst = record.burst.filter(|_| begins)?;
    Some(Talker {
        burst,
        channel: record.channel.clone(),
        user: record.actor.clone(),
        name: record.actor_name.clone(),
        role: record.role,
        since,
    })
}
