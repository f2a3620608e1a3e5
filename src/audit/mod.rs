//! The audit: what happened, by whom and when, in one SQLite file.
//!
//! This room decides when records reach the disk, and what to give up when the disk does not answer.
//! It never decides what is worth a record, never changes or deletes one, and never makes its
//! caller wait: [`Audit::write`] hands the record to a thread of its own through a bounded queue.
//!
//! **Invariant:** a record is stored, held in memory, or counted in [`Health::lost`].
//!
//! **Invariant:** a disk that fails degrades the audit; it never stops the gateway.

mod schema;
mod store;
mod writer;

use crate::base::{Beat, Mono, Pulse, Record, WallStamp};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

pub use schema::Row;
pub use store::{last_wall_ms, tail};

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
        known: i64,
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
}

/// What travels to the writer.
enum Message {
    Write(Box<Stamped>),
    /// Commit, then say whether everything is on disk.
    Flush(SyncSender<bool>),
    Finish,
    /// Somebody asks whether the writer is alive.
    Tick,
}

/// Called with the reason when records stop reaching the disk, and without when they do again.
type Listener = Box<dyn Fn(Option<String>) + Send>;

/// What the handles and the writer share.
#[derive(Default)]
struct Shared {
    lost: AtomicU64,
    failing: Mutex<Option<String>>,
    listener: Mutex<Option<Listener>>,
    set_aside: Mutex<Option<PathBuf>>,
    beat: Arc<Beat>,
}

impl Shared {
    fn add_lost(&self, records: u64) {
        self.lost.fetch_add(records, Ordering::Relaxed);
    }

    fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Notes why records do not reach the disk, or that they do; true if that is news.
    fn set_failing(&self, why: Option<String>) -> bool {
        let mut failing = lock(&self.failing);
        let news = *failing != why;
        failing.clone_from(&why);
        drop(failing);
        if let Some(listener) = lock(&self.listener).as_ref().filter(|_| news) {
            listener(why);
        }
        news
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
    /// Hands a record to the writer. Never blocks: with a full queue the record is counted as lost.
    pub fn write(&self, stamped: Stamped) {
        match self.queue_sender.try_send(Message::Write(Box::new(stamped))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => self.shared.add_lost(1),
        }
    }

    /// Has `listener` called on the writer's thread, from now on, with the reason when records stop reaching the disk and
    /// without one when they do again. How it is now, [`Audit::health`] tells.
    pub fn on_failing(&self, listener: impl Fn(Option<String>) + Send + 'static) {
        *lock(&self.shared.listener) = Some(Box::new(listener));
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

    /// Records lost since the start.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost()
    }

    /// How the audit is.
    #[must_use]
    pub fn health(&self) -> Health {
        Health { lost: self.lost(), failing: lock(&self.shared.failing).clone() }
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
    let writer = writer::Writer::new(path, boot_id, Arc::clone(&audit.shared))?;
    let thread = std::thread::Builder::new()
        .name("audit".to_owned())
        .spawn(move || writer.run(&queue_receiver))
        .map_err(AuditError::Thread)?;
    Ok(AuditThread { queue_sender: audit.queue_sender.clone(), shared: Arc::clone(&audit.shared), thread })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Action, BurstId, Role};
    use serde_json::json;

    fn stamped(record: Record) -> Stamped {
        let wall = WallStamp { unix_ms: 1_700_000_000_123, synchronised: true };
        Stamped { record, mono: Mono::from_millis(5), wall }
    }

    fn grant(n: u64) -> Stamped {
        let record = Record::new(Action::PttStart)
            .by(&"u1".into(), "Ann", Role::Dispatch)
            .on(&"ops".into())
            .in_burst(BurstId(n))
            .because("pressed")
            .with(json!({ "n": n }));
        stamped(record)
    }

    fn file() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.sqlite");
        (dir, path)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (_dir, path) = file();
        let (audit, thread) = open(&path, "boot-1").unwrap();
        audit.write(grant(12));
        audit.write(stamped(Record::new(Action::SystemStop)));
        thread.finish();

        let rows = tail(&path, 0, 10).unwrap();
        assert_eq!(
            serde_json::to_value(&rows[0]).unwrap(),
            json!({
                "seq": 1, "utc": "2023-11-14T22:13:20.123Z", "mono_ns": 5_000_000, "boot_id": "boot-1",
                "clock_ok": true, "action": "ptt.start", "actor": "u1", "actor_name": "Ann",
                "role": "DISPATCH", "channel": "ops", "target": null, "cause": "pressed",
                "burst": "b12", "detail": { "n": 12 }
            })
        );
        assert_eq!(rows[1].action, "system.stop");
        assert_eq!(rows[1].detail, serde_json::Value::Null);
        assert_eq!(tail(&path, 1, 10).unwrap(), rows[1..]);
        assert_eq!(tail(&path, 0, 1).unwrap(), rows[..1]);
        assert_eq!(last_wall_ms(&path), Some(1_700_000_000_123));
    }

    #[test]
    fn the_sequence_goes_on_after_a_restart() {
        let (_dir, path) = file();
        for boot_id in ["boot-1", "boot-2"] {
            let (audit, thread) = open(&path, boot_id).unwrap();
            audit.write(grant(1));
            thread.finish();
        }
        let rows = tail(&path, 0, 10).unwrap();
        let seen: Vec<_> = rows.iter().map(|r| (r.seq, r.boot_id.as_str())).collect();
        assert_eq!(seen, [(1, "boot-1"), (2, "boot-2")]);
    }

    #[test]
    fn an_urgent_record_takes_the_queued_ones_along_at_once() {
        let (_dir, path) = file();
        let mut writer = writer::Writer::new(&path, "boot", Arc::default()).unwrap();
        let now = std::time::Instant::now();
        writer.take(Message::Write(Box::new(grant(1))), now);
        assert_eq!(writer.due(), Some(now + writer::GROUP_DELAY));
        writer.take(Message::Write(Box::new(stamped(Record::new(Action::EmergencyStart)))), now);
        assert_eq!(writer.due(), Some(now));
    }

    #[test]
    fn an_urgent_record_reaches_the_disk_without_a_flush() {
        let (_dir, path) = file();
        let (audit, thread) = open(&path, "boot").unwrap();
        audit.write(stamped(Record::new(Action::EmergencyStart)));
        while tail(&path, 0, 1).unwrap().is_empty() {
            std::thread::yield_now();
        }
        thread.finish();
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_a_new_one_started() {
        let (_dir, path) = file();
        std::fs::write(&path, "this is no database, however long it may go on".repeat(100)).unwrap();
        let (audit, thread) = open(&path, "boot").unwrap();
        let aside = thread.set_aside().unwrap();
        assert_eq!(audit.set_aside().as_ref(), Some(&aside));
        assert!(std::fs::read(&aside).unwrap().starts_with(b"this is no database"));
        assert!(aside.to_str().unwrap().contains("audit.sqlite.damaged-"));
        audit.write(grant(1));
        audit.flush().unwrap();
        assert_eq!(tail(&path, 0, 10).unwrap().len(), 1);
        thread.finish();
    }

    #[test]
    fn a_page_torn_in_the_middle_is_found_at_open() {
        let (_dir, path) = file();
        let (audit, thread) = open(&path, "boot").unwrap();
        (1..=2000).for_each(|n| audit.write(grant(n)));
        thread.finish();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 8192].fill(0xAA);
        std::fs::write(&path, bytes).unwrap();

        let (_audit, thread) = open(&path, "boot").unwrap();
        assert!(thread.set_aside().is_some());
        thread.finish();
    }

    #[test]
    fn a_newer_file_is_refused_and_left_alone() {
        let (_dir, path) = file();
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
        drop(connection);
        assert!(matches!(open(&path, "boot"), Err(AuditError::Newer { found: 99, .. })));
        assert!(path.exists());
    }

    #[test]
    fn a_full_queue_is_counted_and_told_once_it_has_room() {
        let (_dir, path) = file();
        let (audit, queue_receiver) = queue(4);
        (1..=7).for_each(|n| audit.write(grant(n)));
        assert_eq!(audit.lost(), 3);

        let thread = start(&path, "boot", &audit, queue_receiver).unwrap();
        audit.flush().unwrap();
        audit.write(grant(8));
        thread.finish();
        let rows = tail(&path, 0, 10).unwrap();
        assert_eq!(rows.len(), 6);
        assert_eq!(rows[4].action, "system.audit_lost");
        assert_eq!(rows[4].detail, json!({ "lost": 3 }));
        assert_eq!(rows[5].burst.as_deref(), Some("b8"));
    }

    #[test]
    fn a_disk_that_comes_back_gets_what_was_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("not-mounted").join("audit.sqlite");
        let (audit, thread) = open(&path, "boot").unwrap();
        audit.write(grant(1));
        assert!(matches!(audit.flush(), Err(AuditError::NotOnDisk)));
        assert!(audit.health().failing.unwrap().contains("cannot be used"));

        std::fs::create_dir(path.parent().unwrap()).unwrap();
        audit.flush().unwrap();
        assert_eq!(audit.health(), Health { lost: 0, failing: None });
        assert_eq!(tail(&path, 0, 10).unwrap().len(), 1);
        thread.finish();
    }

    #[test]
    fn a_full_memory_gives_up_ordinary_records_first() {
        let shared: Arc<Shared> = Arc::default();
        let mut writer = writer::Writer::new(Path::new("/nowhere/audit"), "boot", Arc::clone(&shared)).unwrap();
        let now = std::time::Instant::now();
        writer.take(Message::Write(Box::new(stamped(Record::new(Action::EmergencyStart)))), now);
        for n in 0..writer::HELD_RECORDS as u64 {
            writer.take(Message::Write(Box::new(grant(n))), now);
        }
        assert_eq!(shared.lost(), 1);
        assert_eq!(writer.held().front().unwrap().record.action, Action::EmergencyStart);
        assert_eq!(writer.held()[1].record.burst, Some(BurstId(1)));
        assert_eq!(writer.held().len(), writer::HELD_RECORDS);
    }
}
