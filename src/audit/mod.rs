//! The audit: what happened, by whom and when, in one SQLite file.
//!
//! This room decides when records reach the disk, and what to give up when the disk does not answer.
//! It never decides what is worth a record, never changes or deletes one, and never makes its
//! caller wait: [`Audit::write`] hands the record to a thread of its own through a bounded queue.
//!
//! **Invariant:** a record is stored, held in memory, or counted in [`Health::lost`].
//!
//! **Invariant:** a disk that fails degrades the audit; it never stops the gateway.

mod anchor;
mod chain;
mod check;
mod export;
mod memory;
mod query;
mod retention;
mod schema;
mod store;
mod verify;
mod writer;

use crate::base::clock::Wall;
use crate::base::{Beat, Mono, Pulse, Record, WallStamp};
use check::Found;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

pub use anchor::{Checkpoint, newest_checkpoint, public_key_beside};
pub use chain::Digest;
pub use export::{export, verify_export};
pub use query::{Filter, query};
pub use retention::Retention;
pub use schema::{Row, iso_8601};
pub use store::{last_wall_ms, tail};
pub use verify::{Broken, Trust, Verdict, verify};

/// Records that may wait between the gateway's loop and the writer.
const QUEUE_RECORDS: usize = 8192;

/// What can go wrong with the audit.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file was written by a later version.
    #[error("audit {path} has schema {found}, newer than {known}; run the newer crosspatch or move the file away")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema that this program knows.
        known: usize,
    },
    /// The writer's thread cannot be started.
    #[error("the audit's thread cannot be started: {0}; raise the unit's TasksMax or free memory")]
    Thread(std::io::Error),
    /// SQLite refuses.
    #[error("audit {path} cannot be used: {source}; check that its directory exists, is writable and has room")]
    Store {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// A damaged file cannot be renamed.
    #[error("damaged audit {path} cannot be set aside: {source}; move it away by hand")]
    SetAside {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Records are still in memory only.
    #[error("records are not on disk yet; see the audit's health for the reason")]
    NotOnDisk,
    /// There is no checkpoint beside the audit.
    #[error("the checkpoint {path} cannot be read: {why}; the gateway makes one with its next record")]
    NoCheckpoint {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An export cannot be written or read.
    #[error("the export failed: {source}; check that there is room and that it may be read")]
    Export {
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is no export.
    #[error("this is no export of an audit: {why}; make one with: crosspatch audit export")]
    NoExport {
        /// What is wrong with it.
        why: String,
    },
    /// The writer has ended.
    #[error("the audit is closed; restart the gateway to open it again")]
    Closed,
}

/// A record with the times at which it was decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamped {
    /// What happened.
    pub record: Record,
    /// When, on the clock that decisions are made by.
    pub mono: Mono,
    /// When, for people.
    pub wall: WallStamp,
}

/// How the audit is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Records lost since the start, because the queue or the memory was full.
    pub lost: u64,
    /// Why records do not reach the disk now, if they do not.
    pub failing: Option<String>,
    /// Why the chain of this file cannot be trusted, if so.
    pub broken: Option<String>,
}

impl Health {
    /// What a technician has to know now, if anything.
    #[must_use]
    pub fn trouble(self) -> Option<String> {
        let broken = |why| {
            format!(
                "its chain is broken: {why}; see it with: crosspatch audit verify; a new one is begun where the file is \
                 moved away while the gateway is stopped"
            )
        };
        self.failing.or(self.broken.map(broken))
    }
}

/// What travels to the writer.
enum Message {
    Write(Box<Stamped>),
    /// Commit, then say whether everything is on disk.
    Flush(SyncSender<bool>),
    Finish,
    /// Something is laid ready, or somebody asks whether the writer is alive.
    Tick,
}

impl Message {
    fn is_emergency(&self) -> bool {
        match self {
            Message::Write(stamped) => stamped.record.action.is_emergency(),
            Message::Flush(_) | Message::Finish | Message::Tick => false,
        }
    }
}

/// Called with the reason when something is wrong, and without when it is well again.
type Listener = Box<dyn Fn(Option<String>) + Send>;

/// Lost records that the audit has not told of yet.
#[derive(Clone, PartialEq)]
struct Lost {
    records: u64,
    /// The times of the first one and the last.
    first: (Mono, WallStamp),
    last: (Mono, WallStamp),
}

/// What the handles and the writer share.
#[derive(Default)]
struct Shared {
    /// Records lost since the start, and those of them that the audit has not told of.
    lost: Mutex<(u64, Option<Lost>)>,
    /// Emergencies that found the queue full.
    spilt: Mutex<Vec<Stamped>>,
    failing: Mutex<Option<String>>,
    listener: Mutex<Option<Listener>>,
    set_aside: Mutex<Option<PathBuf>>,
    broken: Mutex<Option<String>>,
    /// Laid ready for the writer: how much is kept from now on, and what the check of the whole file has found.
    retention: Mutex<Option<Retention>>,
    found: Mutex<Option<Found>>,
    beat: Arc<Beat>,
    wall: Wall,
}

impl Shared {
    fn note_lost(&self, stamped: &Stamped) {
        let mut lost = lock(&self.lost);
        let at = (stamped.mono, stamped.wall);
        lost.0 += 1;
        let untold = lost.1.get_or_insert(Lost { records: 0, first: at, last: at });
        untold.records += 1;
        untold.last = at;
    }

    fn lost(&self) -> u64 {
        lock(&self.lost).0
    }

    fn untold(&self) -> Option<Lost> {
        lock(&self.lost).1.clone()
    }

    /// The audit has told of these.
    fn told(&self, told: &Lost) {
        let mut lost = lock(&self.lost);
        if let Some(untold) = &mut lost.1 {
            untold.records -= told.records;
            untold.first = told.last; // what is left was lost after that
        }
        if lost.1.as_ref().is_some_and(|untold| untold.records == 0) {
            lost.1 = None;
        }
    }

    fn take_spilt(&self) -> Vec<Stamped> {
        std::mem::take(&mut *lock(&self.spilt))
    }

    /// Notes why records do not reach the disk, or that they do; true if that is news.
    fn set_failing(&self, why: Option<String>) -> bool {
        let mut failing = lock(&self.failing);
        let news = *failing != why;
        *failing = why;
        drop(failing);
        if news {
            self.tell();
        }
        news
    }

    /// Notes that the chain cannot be trusted; true if that is news.
    fn set_broken(&self, why: &str) -> bool {
        let news = lock(&self.broken).replace(why.to_owned()).is_none_or(|before| before != why);
        if news {
            self.tell();
        }
        news
    }

    fn tell(&self) {
        if let Some(listener) = lock(&self.listener).as_ref() {
            listener(self.health().trouble());
        }
    }

    fn health(&self) -> Health {
        Health { lost: self.lost(), failing: lock(&self.failing).clone(), broken: lock(&self.broken).clone() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding it")
}

/// The handle that records are written with; cheap to clone.
#[derive(Clone)]
pub struct Audit {
    queue_sender: SyncSender<Message>,
    shared: Arc<Shared>,
}

impl Audit {
    /// Hands a record to the writer. Never blocks: with a full queue an emergency is laid beside it, and any other
    /// record is counted as lost.
    pub fn write(&self, stamped: Stamped) {
        let refused = match self.queue_sender.try_send(Message::Write(Box::new(stamped))) {
            Ok(()) => return,
            Err(TrySendError::Full(message)) if message.is_emergency() => {
                if let Message::Write(stamped) = message {
                    lock(&self.shared.spilt).push(*stamped);
                }
                return;
            }
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => message,
        };
        if let Message::Write(stamped) = refused {
            self.shared.note_lost(&stamped);
        }
    }

    /// Calls `now` with what is wrong at this moment, if anything, and has `later` called on the writer's thread whenever
    /// that has changed.
    pub fn on_trouble(&self, now: impl FnOnce(Option<String>), later: impl Fn(Option<String>) + Send + 'static) {
        let mut listener = lock(&self.shared.listener); // held, lest news overtake what is told now
        now(self.health().trouble());
        *listener = Some(Box::new(later));
    }

    /// Wall time, never behind what the file has.
    #[must_use]
    pub fn wall(&self) -> Wall {
        self.shared.wall.clone()
    }

    /// Waits until everything written before is on disk.
    ///
    /// # Errors
    /// [`AuditError::NotOnDisk`] while the disk fails, [`AuditError::Closed`] after the end.
    pub fn flush(&self) -> Result<(), AuditError> {
        let (ack_sender, ack_receiver) = sync_channel(1);
        self.queue_sender.send(Message::Flush(ack_sender)).map_err(|_| AuditError::Closed)?;
        match ack_receiver.recv() {
            Ok(true) => Ok(()),
            Ok(false) => Err(AuditError::NotOnDisk),
            Err(_) => Err(AuditError::Closed),
        }
    }

    /// Keeps so much from now on; without this everything. Never blocks.
    pub fn retain(&self, retention: Retention) {
        *lock(&self.shared.retention) = Some(retention);
        // A full queue has the writer come round without it.
        drop(self.queue_sender.try_send(Message::Tick));
    }

    /// Records lost since the start.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost()
    }

    /// How the audit is.
    #[must_use]
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// Where a damaged file was put, if there was one; a new file was started in its place.
    #[must_use]
    pub fn set_aside(&self) -> Option<PathBuf> {
        lock(&self.shared.set_aside).clone()
    }
}

/// The writer's thread; whoever opened the audit ends it with [`AuditThread::finish`].
pub struct AuditThread {
    queue_sender: SyncSender<Message>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl AuditThread {
    /// The writer's sign of life.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        let queue_sender = self.queue_sender.clone();
        // A full queue has the writer come round without it.
        Pulse::new(self.shared.beat.clone(), move || drop(queue_sender.try_send(Message::Tick)))
    }

    /// Writes what is queued, closes the file and waits for the thread. Later records are lost.
    pub fn finish(self) {
        // A writer that is gone has nothing left to finish, and has told why when it went.
        let _ = self.queue_sender.send(Message::Finish);
        if self.thread.join().is_err() {
            tracing::error!("the audit's writer panicked; report this as a fault of the program");
        }
    }

    /// Where a damaged file was put, if there was one; a new file was started in its place.
    #[must_use]
    pub fn set_aside(&self) -> Option<PathBuf> {
        lock(&self.shared.set_aside).clone()
    }
}

/// Opens the audit and starts its writer. A damaged file is set aside. A disk that does not answer
/// is no error here: the audit starts [`Health::failing`], keeps records in memory and tries on.
/// Only the end of the chain is checked before this returns; the rest of the file is checked meanwhile.
///
/// # Errors
/// If the file belongs to a newer program, or the thread cannot be started.
pub fn open(path: &Path, boot_id: &str) -> Result<(Audit, AuditThread), AuditError> {
    let (audit, queue_receiver) = queue(QUEUE_RECORDS);
    let thread = start(path, boot_id, &audit, queue_receiver)?;
    Ok((audit, thread))
}

/// A handle and the writer's end of its queue.
fn queue(records: usize) -> (Audit, Receiver<Message>) {
    let (queue_sender, queue_receiver) = sync_channel(records);
    (Audit { queue_sender, shared: Arc::default() }, queue_receiver)
}

fn start(
    path: &Path,
    boot_id: &str,
    audit: &Audit,
    queue_receiver: Receiver<Message>,
) -> Result<AuditThread, AuditError> {
    let writer = writer::Writer::new(path, boot_id, Arc::clone(&audit.shared), audit.queue_sender.clone())?;
    let thread = std::thread::Builder::new()
        .name("audit".to_owned())
        .spawn(move || writer.run(&queue_receiver))
        .map_err(AuditError::Thread)?;
    Ok(AuditThread { queue_sender: audit.queue_sender.clone(), shared: Arc::clone(&audit.shared), thread })
}

#[cfg(test)]
mod tests;
