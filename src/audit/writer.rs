//! The writer: gathers records, commits them in groups, and keeps them while the disk fails.

use super::store::{Opened, Store, is_damage};
use super::{AuditError, Message, Shared, Stamped, lock};
use crate::base::{Action, Record, clock};
use serde_json::json;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

/// How long an ordinary record may wait for company: 500 ms, less the time a slow card needs to sync.
pub(super) const GROUP_DELAY: Duration = Duration::from_millis(300);
/// How long a failing disk is left alone.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// How many records are kept in memory while the disk fails.
pub(super) const HELD_RECORDS: usize = 50_000;

/// The state of the writer's thread.
pub(super) struct Writer {
    path: PathBuf,
    boot_id: String,
    shared: Arc<Shared>,
    /// The open file, unless the disk fails.
    store: Option<Store>,
    /// True if the file has to be checked before it is opened again.
    suspect: bool,
    held: VecDeque<Stamped>,
    flushes: Vec<SyncSender<bool>>,
    /// When to commit; nothing while there is nothing to commit.
    due: Option<Instant>,
    /// How many of the lost records the audit itself has told of.
    lost_told: u64,
    finished: bool,
}

impl Writer {
    pub(super) fn new(path: &Path, boot_id: &str, shared: Arc<Shared>) -> Result<Self, AuditError> {
        let mut writer = Writer {
            path: path.to_owned(),
            boot_id: boot_id.to_owned(),
            shared,
            store: None,
            suspect: true,
            held: VecDeque::new(),
            flushes: Vec::new(),
            due: None,
            lost_told: 0,
            finished: false,
        };
        match writer.reopen() {
            Ok(()) => {}
            Err(error @ AuditError::Newer { .. }) => return Err(error),
            Err(error) => writer.failed(&error),
        }
        Ok(writer)
    }

    /// Writes until told to finish, or until nobody is left to write for.
    pub(super) fn run(mut self, queue_receiver: &Receiver<Message>) {
        while !self.finished {
            self.shared.beat.answer();
            let message = match self.due {
                Some(due) => queue_receiver.recv_timeout(due.saturating_duration_since(Instant::now())),
                None => queue_receiver.recv().map_err(RecvTimeoutError::from),
            };
            match message {
                Ok(message) => self.take(message, Instant::now()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.finish(Instant::now()),
            }
            if self.due.is_some_and(|due| due <= Instant::now()) {
                for message in queue_receiver.try_iter() {
                    self.take(message, Instant::now());
                }
                self.commit();
            }
        }
        if !self.held.is_empty() {
            self.shared.add_lost(self.held.len() as u64);
            tracing::error!(records = self.held.len(), "the audit ends with records that are not on disk");
        }
    }

    /// Takes one message in, and decides when to commit.
    pub(super) fn take(&mut self, message: Message, now: Instant) {
        match message {
            Message::Write(stamped) => {
                let delay = match stamped.record.action.is_urgent() {
                    true => Duration::ZERO,
                    false => GROUP_DELAY,
                };
                self.hold(*stamped);
                // A failing disk is asked again when its time has come, not at every record.
                if self.store.is_some() || self.due.is_none() {
                    self.due = Some(self.due.map_or(now + delay, |due| due.min(now + delay)));
                }
            }
            Message::Flush(ack_sender) => {
                self.flushes.push(ack_sender);
                self.due = Some(now);
            }
            Message::Finish => self.finish(now),
            Message::Tick => {}
        }
    }

    fn finish(&mut self, now: Instant) {
        self.finished = true;
        self.due = Some(now);
    }

    /// Keeps a record; with the memory full, the oldest ordinary one goes, else the oldest.
    fn hold(&mut self, stamped: Stamped) {
        self.held.push_back(stamped);
        if self.held.len() > HELD_RECORDS {
            let ordinary = self.held.iter().position(|held| !held.record.action.is_urgent());
            self.held.remove(ordinary.unwrap_or(0));
            self.shared.add_lost(1);
        }
    }

    /// Brings everything held to the disk, or says why not and sets the next attempt.
    fn commit(&mut self) {
        let outcome = self.append();
        let stored = outcome.is_ok();
        match outcome {
            Ok(()) => self.succeeded(),
            Err(error) => self.failed(&error),
        }
        for ack_sender in self.flushes.drain(..) {
            // Whoever asked may have gone; that is theirs to decide.
            let _ = ack_sender.send(stored);
        }
    }

    fn append(&mut self) -> Result<(), AuditError> {
        if self.store.is_none() {
            self.reopen()?;
        }
        let lost = self.shared.lost();
        let confession = (lost > self.lost_told).then(|| self.confession(lost - self.lost_told));
        let records = self.held.iter().chain(&confession);
        self.store.as_mut().expect("opened above").append(&self.boot_id, records)?;
        self.lost_told = lost;
        self.held.clear();
        Ok(())
    }

    /// The record that tells of lost ones.
    fn confession(&self, lost: u64) -> Stamped {
        let floor_unix_ms = self.held.back().map_or(0, |last| last.wall.unix_ms);
        Stamped {
            record: Record::new(Action::SystemAuditLost).with(json!({ "lost": lost })),
            mono: clock::mono_now(),
            wall: clock::wall_now(floor_unix_ms),
        }
    }

    fn reopen(&mut self) -> Result<(), AuditError> {
        if self.suspect {
            let Opened { store, set_aside } = Store::open_checked(&self.path)?;
            if let Some(aside) = set_aside {
                tracing::error!(file = %aside.display(), "the audit was damaged and is set aside; a new one is started");
                *lock(&self.shared.set_aside) = Some(aside);
            }
            self.store = Some(store);
            self.suspect = false;
        } else {
            self.store = Some(Store::open(&self.path)?);
        }
        Ok(())
    }

    fn succeeded(&mut self) {
        self.due = None;
        if self.shared.set_failing(None) {
            tracing::info!("the audit reaches the disk again");
        }
    }

    fn failed(&mut self, error: &AuditError) {
        self.suspect |= matches!(error, AuditError::Store { source, .. } if is_damage(source));
        self.store = None;
        self.due = Some(Instant::now() + RETRY_DELAY);
        let reason = error.to_string();
        if self.shared.set_failing(Some(reason.clone())) {
            tracing::error!("{reason}");
        }
    }
}

#[cfg(test)]
impl Writer {
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn held(&self) -> &VecDeque<Stamped> {
        &self.held
    }
}
