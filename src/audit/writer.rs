//! The writer: gathers records, commits them in groups, and keeps them while the disk fails.

use super::check::{Check, Found};
use super::memory::Memory;
use super::schema::iso_8601;
use super::store::{Opened, Store, is_damage};
use super::{AuditError, Lost, Message, Retention, Shared, Stamped, last_wall_ms, lock};
use crate::base::{Action, Mono, Record, WallStamp, clock};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

/// How long an ordinary record may wait for company: 500 ms, less the time a slow card needs to sync.
pub(super) const GROUP_DELAY: Duration = Duration::from_millis(300);
/// How long a failing disk is left alone.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// How often the oldest records are looked at, and how long the disk is left alone between two steps.
const PRUNE_PERIOD: Duration = Duration::from_secs(600);
const PRUNE_PAUSE: Duration = Duration::from_millis(200);
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
    /// True once the file has been open: later on a missing `system.stop` is our own.
    opened: bool,
    /// The check of the whole file, which begins once that is open.
    check: Checking,
    /// What opening and checking the file brought to light, to be told before everything else.
    findings: Vec<Stamped>,
    held: Memory,
    flushes: Vec<SyncSender<bool>>,
    /// When to commit; nothing while there is nothing to commit.
    due: Option<Instant>,
    /// How much is kept, and when to look again.
    retention: Option<(Retention, Instant)>,
    finished: bool,
}

/// See [`Writer::check`].
enum Checking {
    /// What is found is laid ready, and the writer woken through its queue.
    Due(SyncSender<Message>),
    Begun(Option<Check>),
}

impl Writer {
    /// Opens the file, unless it has to be brought to the newest schema first: the thread does that.
    pub(super) fn new(
        path: &Path,
        boot_id: &str,
        shared: Arc<Shared>,
        queue_sender: SyncSender<Message>,
    ) -> Result<Self, AuditError> {
        shared.wall.at_least(last_wall_ms(path).unwrap_or(0));
        let old = Store::is_old(path)?;
        let mut writer = Writer {
            path: path.to_owned(),
            boot_id: boot_id.to_owned(),
            shared,
            store: None,
            suspect: false,
            opened: false,
            check: Checking::Due(queue_sender),
            findings: Vec::new(),
            held: Memory::new(HELD_RECORDS),
            flushes: Vec::new(),
            due: None,
            retention: None,
            finished: false,
        };
        if old {
            writer.due = Some(Instant::now());
            writer.alarm("an older audit is brought on; until that is done, records are kept in memory".into());
        } else if let Err(error) = writer.reopen() {
            writer.failed(&error);
        }
        Ok(writer)
    }

    /// Writes until told to finish, or until nobody is left to write for.
    pub(super) fn run(mut self, queue_receiver: &Receiver<Message>) {
        while !self.finished {
            self.shared.beat.answer();
            self.take_what_is_laid_ready();
            let prune_at = self.retention.map(|(_, at)| at);
            let message = match self.due.into_iter().chain(prune_at).min() {
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
            } else {
                self.prune(Instant::now());
            }
        }
        if let Checking::Begun(Some(check)) = self.check {
            check.end();
        }
        if self.held.len() > 0 {
            self.held.in_order().into_iter().for_each(|lost| self.shared.note_lost(lost));
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

    fn take_what_is_laid_ready(&mut self) {
        if let Some(retention) = lock(&self.shared.retention).take() {
            self.retention = Some((retention, Instant::now()));
        }
        let found = lock(&self.shared.found).take();
        match found {
            Some(Found::Damage) => (self.suspect, self.store) = (true, None),
            Some(Found::Broken(why)) => self.tell_broken(why),
            None => return,
        }
        self.due = Some(Instant::now());
    }

    /// Takes away some of the oldest records if it is time; what there is to store goes first.
    fn prune(&mut self, now: Instant) {
        let Some((retention, _)) = self.retention.filter(|(_, at)| *at <= now) else { return };
        let Some(store) = &mut self.store else {
            self.retention = Some((retention, now + PRUNE_PERIOD));
            return;
        };
        let pruned = store.prune(&self.boot_id, &retention, clock::wall_now());
        let pause = if matches!(pruned, Ok(true)) { PRUNE_PAUSE } else { PRUNE_PERIOD };
        self.retention = Some((retention, now + pause));
        if let Err(error) = pruned {
            self.failed(&error);
        }
    }

    fn finish(&mut self, now: Instant) {
        self.finished = true;
        self.due = Some(now);
    }

    /// Keeps a record; with the memory full, another one goes.
    fn hold(&mut self, stamped: Stamped) {
        if let Some(lost) = self.held.push(stamped) {
            self.shared.note_lost(&lost);
        }
    }

    /// Brings everything held to the disk, or says why not and sets the next attempt.
    fn commit(&mut self) {
        for stamped in self.shared.take_spilt() {
            self.hold(stamped);
        }
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
        let lost = self.shared.untold();
        if let (Some(lost), true) = (&lost, self.store.is_some()) {
            let records = lost.records;
            self.alarm(format!("{records} records were lost because they came faster than the disk takes them"));
        }
        if self.store.is_none() {
            self.reopen()?;
        }
        let confession = lost.as_ref().map(|lost| self.note(Action::SystemAuditLost, lost.detail()));
        let records = self.findings.iter().chain(self.held.in_order()).chain(&confession);
        self.store.as_mut().expect("opened above").append(&self.boot_id, records)?;
        if let Some(lost) = lost {
            self.shared.told(&lost);
        }
        self.findings.clear();
        self.held.clear();
        Ok(())
    }

    /// A record of the audit's own.
    fn note(&self, action: Action, detail: Value) -> Stamped {
        Stamped { record: Record::new(action).with(detail), mono: clock::mono_now(), wall: self.shared.wall.now() }
    }

    fn reopen(&mut self) -> Result<(), AuditError> {
        let shared = Arc::clone(&self.shared);
        let alive = || shared.beat.answer();
        if self.opened && !self.suspect {
            self.store = Some(Store::open(&self.path, &alive)?);
            return Ok(());
        }
        let Opened { store, set_aside, broken, crashed } = Store::open_checked(&self.path, self.suspect, &alive)?;
        self.shared.wall.at_least(store.floor_ms());
        self.store = Some(store);
        self.suspect = false;
        if set_aside.is_none() {
            self.check();
        }
        if let Some(aside) = set_aside {
            tracing::error!(file = %aside.display(), "the audit was damaged and is set aside; a new one is started");
            self.findings.push(self.note(Action::SystemAuditSetAside, json!({ "file": aside })));
            *lock(&self.shared.set_aside) = Some(aside);
        }
        if let Some(why) = broken {
            self.tell_broken(why);
        }
        if let Some(last) = crashed.filter(|_| !self.opened) {
            let same_boot = last.boot_id == self.boot_id;
            tracing::warn!(last = last.utc, "the gateway did not stop in good order last time");
            let detail = json!({ "lastSeq": last.seq, "lastUtc": last.utc, "lastMonoNs": last.mono_ns, "lastBootId": last.boot_id });
            let mut found = self.note(Action::SystemCrashFound, detail);
            found.record.cause = Some(if same_boot { "process-ended" } else { "power-or-reboot" });
            self.findings.push(found);
        }
        self.opened = true;
        Ok(())
    }

    /// Has the whole file checked, once.
    fn check(&mut self) {
        let Checking::Due(queue_sender) = std::mem::replace(&mut self.check, Checking::Begun(None)) else { return };
        let shared = Arc::clone(&self.shared);
        let begun = Check::start(&self.path, move |found| {
            *lock(&shared.found) = Some(found);
            // A full queue has the writer come round without it.
            drop(queue_sender.try_send(Message::Tick));
        });
        match begun {
            Ok(check) => self.check = Checking::Begun(Some(check)),
            Err(e) => tracing::error!("the audit's check cannot be started: {e}; do it with: crosspatch audit verify"),
        }
    }

    fn tell_broken(&mut self, why: String) {
        if self.shared.set_broken(&why) {
            tracing::error!("the audit's chain is broken: {why}; see it with: crosspatch audit verify");
            self.findings.push(self.note(Action::SystemAuditBroken, json!({ "why": why })));
        }
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
        self.alarm(error.to_string());
    }

    fn alarm(&self, reason: String) {
        if self.shared.set_failing(Some(reason.clone())) {
            tracing::error!("{reason}");
        }
    }
}

impl Lost {
    /// What the audit says of lost records.
    fn detail(&self) -> Value {
        let utc = |(_, wall): (Mono, WallStamp)| iso_8601(wall.unix_ms);
        json!({
            "lost": self.records,
            "firstUtc": utc(self.first), "firstMonoNs": self.first.0.0,
            "lastUtc": utc(self.last), "lastMonoNs": self.last.0.0,
        })
    }
}

#[cfg(test)]
impl Writer {
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn held(&self) -> &Memory {
        &self.held
    }
}
