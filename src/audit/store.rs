//! The SQLite file: opened, checked, set aside if damaged, brought to the newest schema, appended to.

use super::anchor::{self, Checkpoint, Key};
use super::chain::{self, Digest};
use super::schema::{self, Row};
use super::{AuditError, Stamped, verify};
use crate::base::Action;
use crate::base::aside::set_aside;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, params};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Records from one checkpoint to the next.
pub(super) const CHECKPOINT_RECORDS: i64 = 1000;
/// While there are records, checkpoints are not further apart than this.
const CHECKPOINT_PERIOD: Duration = Duration::from_secs(600);

/// An open audit file.
pub(super) struct Store {
    path: PathBuf,
    connection: Connection,
    /// Signs checkpoints; without one they are made all the same.
    key: Option<Key>,
    last: Last,
    /// The record of the newest checkpoint, and when this program made it.
    checkpoint: (i64, Instant),
    /// The newest wall time in the file when it was opened, in milliseconds since 1970. Records that were made before
    /// that could be known are not stored with an earlier one (F17).
    floor_ms: u64,
}

/// The end of the chain.
#[derive(Clone)]
pub(super) struct Last {
    pub(super) seq: i64,
    pub(super) hash: Digest,
}

/// A store, and what opening it brought to light.
pub(super) struct Opened {
    pub(super) store: Store,
    /// Where the damaged file was put that this one replaces.
    pub(super) set_aside: Option<PathBuf>,
    /// Why the newest part of the chain cannot be trusted, if so.
    pub(super) broken: Option<String>,
    /// The last record, if the gateway did not stop in good order after it.
    pub(super) crashed: Option<Box<Row>>,
}

impl Store {
    /// Opens the file after a check of the chain's newest part, and of every page if it is `suspect`. A damaged file is
    /// set aside, one with a broken chain is told of and gone on with.
    pub(super) fn open_checked(path: &Path, suspect: bool, alive: &dyn Fn()) -> Result<Opened, AuditError> {
        let failed = |source| AuditError::Store { path: path.to_owned(), source };
        let sound = || match Connection::open(path).and_then(|db| is_sound(&db)) {
            Err(error) if is_damage(&error) => Ok(false),
            sound => sound.map_err(failed),
        };
        if !suspect || sound()? {
            match Self::open_seen(path, alive) {
                Err(AuditError::Store { source, .. }) if is_damage(&source) => {}
                opened => return opened,
            }
        }
        let aside = set_aside(path).map_err(|source| AuditError::SetAside { path: path.to_owned(), source })?;
        Ok(Opened { set_aside: Some(aside), ..Self::open_seen(path, alive)? })
    }

    fn open_seen(path: &Path, alive: &dyn Fn()) -> Result<Opened, AuditError> {
        let failed = |source| AuditError::Store { path: path.to_owned(), source };
        let store = Self::open(path, alive)?;
        let broken = verify::newest(&store.connection, path).map_err(failed)?;
        let crashed = store.crashed().map_err(failed)?;
        Ok(Opened { store, set_aside: None, broken, crashed })
    }

    /// True if the file is of an older program and has to be brought on, which takes its time.
    pub(super) fn is_old(path: &Path) -> Result<bool, AuditError> {
        let read = || read_only(path)?.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
        match (read(), schema::MIGRATIONS.len()) {
            (Ok(found), known) if usize::try_from(found).is_ok_and(|found| found > known) => {
                Err(AuditError::Newer { path: path.to_owned(), found, known })
            }
            (Ok(found), known) => Ok(usize::try_from(found).is_ok_and(|found| (1..known).contains(&found))),
            (Err(_), _) => Ok(false), // whoever opens it to write will know why
        }
    }

    /// Opens the file as it is; `alive` is called now and then while it is brought to the newest schema.
    pub(super) fn open(path: &Path, alive: &dyn Fn()) -> Result<Self, AuditError> {
        let failed = |source| AuditError::Store { path: path.to_owned(), source };
        let mut connection = Connection::open(path).map_err(failed)?;
        let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
        let known = schema::MIGRATIONS.len();
        let from = usize::try_from(found).ok().filter(|from| *from <= known);
        let from = from.ok_or_else(|| AuditError::Newer { path: path.to_owned(), found, known })?;
        prepare(&connection).map_err(failed)?;
        let key = match Key::beside(path) {
            Ok(key) => Some(key),
            Err(e) => {
                tracing::error!("the audit's key cannot be used, so checkpoints are not signed: {e}");
                None
            }
        };
        let last = migrate(&mut connection, from, key.as_ref(), alive).map_err(failed)?;
        let floor_ms = wall_ms(&connection).map_err(failed)?.unwrap_or(0);
        let newest = "SELECT coalesce(max(seq), 0) FROM checkpoint";
        let checkpoint = connection.query_row(newest, (), |row| row.get(0)).map_err(failed)?;
        Ok(Store { path: path.to_owned(), connection, key, last, checkpoint: (checkpoint, Instant::now()), floor_ms })
    }

    /// The last record, unless one of the last few says that the gateway stopped.
    fn crashed(&self) -> rusqlite::Result<Option<Box<Row>>> {
        let mut statement = self.connection.prepare(&schema::select("ORDER BY seq DESC LIMIT 8"))?;
        let rows: Vec<Row> = statement.query_map((), Row::read)?.collect::<Result<_, _>>()?;
        let stopped = rows.iter().any(|row| row.action == Action::SystemStop.as_str());
        Ok(rows.into_iter().next().filter(|_| !stopped).map(Box::new))
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }

    pub(super) fn last_seq(&self) -> i64 {
        self.last.seq
    }

    pub(super) fn floor_ms(&self) -> u64 {
        self.floor_ms
    }

    pub(super) fn failed(&self, source: rusqlite::Error) -> AuditError {
        AuditError::Store { path: self.path.clone(), source }
    }

    /// Stores all of the records or none.
    pub(super) fn append<'a>(
        &mut self,
        boot_id: &str,
        records: impl Iterator<Item = &'a Stamped>,
    ) -> Result<(), AuditError> {
        self.append_and(boot_id, records, |_| Ok(()))
    }

    /// The same, with something done in the same transaction.
    pub(super) fn append_and<'a>(
        &mut self,
        boot_id: &str,
        records: impl Iterator<Item = &'a Stamped>,
        also: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), AuditError> {
        let mut last = self.last.clone();
        let (made_for, made_at) = self.checkpoint;
        let append = || -> rusqlite::Result<Option<(Checkpoint, bool)>> {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut statement = transaction.prepare_cached(schema::INSERT)?;
            let (mut utc, mut cause) = (None, "periodic");
            for stamped in records {
                let mut row = Row::of(last.seq + 1, boot_id, self.floor_ms, stamped);
                last = Last { seq: row.seq, hash: chain::link(last.hash, &row) };
                row.hash = last.hash.to_string();
                row.insert(&mut statement)?;
                if stamped.record.action == Action::SystemStop {
                    cause = "stop";
                }
                utc = Some(row.utc);
            }
            drop(statement);
            let Some(utc) = utc else { return transaction.commit().map(|()| None) };
            let due =
                cause == "stop" || last.seq - made_for >= CHECKPOINT_RECORDS || made_at.elapsed() >= CHECKPOINT_PERIOD;
            let head = Checkpoint::new(last.seq, last.hash, &utc, "head", self.key.as_ref());
            if due {
                keep(&transaction, &Checkpoint::new(last.seq, last.hash, &utc, cause, self.key.as_ref()))?;
            }
            also(&transaction)?;
            transaction.commit()?;
            Ok(Some((head, due)))
        };
        let done = append().map_err(|source| AuditError::Store { path: self.path.clone(), source })?;
        let Some((head, made)) = done else { return Ok(()) };
        self.last = last;
        if made {
            self.checkpoint = (head.seq, Instant::now());
        }
        if let Err(e) = anchor::write_head(&self.path, &head) {
            tracing::warn!("the audit's newest checkpoint cannot be kept beside it: {e}");
        }
        Ok(())
    }
}

/// Adds a checkpoint to the file.
pub(super) fn keep(transaction: &Transaction<'_>, checkpoint: &Checkpoint) -> rusqlite::Result<()> {
    let Checkpoint { seq, hash, utc, cause, public_key, signature } = checkpoint;
    let insert = "INSERT INTO checkpoint (seq, hash, utc, cause, public_key, signature) VALUES (?, ?, ?, ?, ?, ?)";
    transaction.execute(insert, params![seq, hash, utc, cause, public_key, signature]).map(drop)
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    // WAL with NORMAL may lose the last commits with the power; FULL does not.
    connection.pragma_update(None, "synchronous", "full")
}

/// Brings the file to the newest schema, all or nothing, and says where its chain ends.
fn migrate(connection: &mut Connection, from: usize, key: Option<&Key>, alive: &dyn Fn()) -> rusqlite::Result<Last> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in &schema::MIGRATIONS[from..] {
        step(&transaction, alive)?;
    }
    let select = schema::select("ORDER BY seq DESC LIMIT 1");
    let row = match transaction.query_row(&select, (), Row::read) {
        Ok(row) => Some(row),
        Err(rusqlite::Error::QueryReturnedNoRows) => None,
        Err(error) => return Err(error),
    };
    let last = match &row {
        // A hash that is none is found by whoever verifies; the chain goes on from nothing.
        Some(row) => Last { seq: row.seq, hash: Digest::parse(&row.hash).unwrap_or(Digest::ZERO) },
        None => pruned(&transaction)?.unwrap_or(Last { seq: 0, hash: Digest::ZERO }),
    };
    if let Some(row) = row.filter(|_| from < schema::MIGRATIONS.len()) {
        tracing::info!(records = row.seq, "the audit is brought to schema {}", schema::MIGRATIONS.len());
        keep(&transaction, &Checkpoint::new(row.seq, last.hash, &row.utc, "migrated", key))?;
    }
    transaction.pragma_update(None, "user_version", i64::try_from(schema::MIGRATIONS.len()).unwrap_or(i64::MAX))?;
    transaction.commit()?;
    Ok(last)
}

/// The last record that retention has taken away.
pub(super) fn pruned(connection: &Connection) -> rusqlite::Result<Option<Last>> {
    let newest = "SELECT seq, hash FROM checkpoint WHERE cause = 'pruned' ORDER BY seq DESC LIMIT 1";
    let read = |row: &rusqlite::Row<'_>| {
        let hash: String = row.get(1)?;
        Ok(Last { seq: row.get(0)?, hash: Digest::parse(&hash).unwrap_or(Digest::ZERO) })
    };
    match connection.query_row(newest, (), read) {
        Ok(last) => Ok(Some(last)),
        Err(rusqlite::Error::QueryReturnedNoRows) => Ok(None),
        Err(error) => Err(error),
    }
}

/// True if the file can be read from end to end; an error that is no damage says that this cannot be known.
pub(super) fn is_sound(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("PRAGMA quick_check(1)", (), |row| Ok(row.get::<_, String>(0)? == "ok"))
}

/// True if the error speaks of the file's content, not of the way to it.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Reads up to `limit` records after number `after_seq`, in order. Does not disturb the writer.
///
/// # Errors
/// If the file cannot be read.
pub fn tail(path: &Path, after_seq: i64, limit: usize) -> Result<Vec<Row>, AuditError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let read = || -> rusqlite::Result<Vec<Row>> {
        let connection = read_only(path)?;
        let mut statement = connection.prepare(&schema::select("WHERE seq > ? ORDER BY seq LIMIT ?"))?;
        statement.query_map((after_seq, limit), Row::read)?.collect()
    };
    read().map_err(|source| AuditError::Store { path: path.to_owned(), source })
}

/// The newest wall time stored, in milliseconds since 1970: time must not go behind it (F17).
/// Nothing if there is no record or the file cannot be read.
#[must_use]
pub fn last_wall_ms(path: &Path) -> Option<u64> {
    read_only(path).and_then(|connection| wall_ms(&connection)).ok().flatten()
}

fn wall_ms(connection: &Connection) -> rusqlite::Result<Option<u64>> {
    let newest = connection.query_row(schema::SELECT_LAST_WALL_MS, (), |row| row.get::<_, Option<i64>>(0))?;
    Ok(newest.and_then(|unix_ms| u64::try_from(unix_ms).ok()))
}

pub(super) fn read_only(path: &Path) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
}
