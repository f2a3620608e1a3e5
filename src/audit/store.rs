//! The SQLite file: opened, checked, set aside if damaged, appended to, read.

use super::schema::{self, Row};
use super::{AuditError, Stamped};
use crate::base::aside::set_aside;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::path::{Path, PathBuf};

/// An open audit file.
pub(super) struct Store {
    path: PathBuf,
    connection: Connection,
}

/// A store, and where the damaged file that it replaces was put.
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) set_aside: Option<PathBuf>,
}

impl Store {
    /// Opens the file after a check of every page; a damaged one is set aside.
    pub(super) fn open_checked(path: &Path) -> Result<Opened, AuditError> {
        let failed = |source| AuditError::Store { path: path.to_owned(), source };
        let aside = |source| AuditError::SetAside { path: path.to_owned(), source };
        let set_aside = if is_sound(path).map_err(failed)? { None } else { Some(set_aside(path).map_err(aside)?) };
        Ok(Opened { store: Self::open(path)?, set_aside })
    }

    /// Opens the file as it is.
    pub(super) fn open(path: &Path) -> Result<Self, AuditError> {
        let failed = |source| AuditError::Store { path: path.to_owned(), source };
        let connection = Connection::open(path).map_err(failed)?;
        let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
        if found > schema::VERSION {
            return Err(AuditError::Newer { path: path.to_owned(), found, known: schema::VERSION });
        }
        prepare(&connection).map_err(failed)?;
        Ok(Store { path: path.to_owned(), connection })
    }

    /// Stores all of the records or none.
    pub(super) fn append<'a>(
        &mut self,
        boot_id: &str,
        records: impl Iterator<Item = &'a Stamped>,
    ) -> Result<(), AuditError> {
        let append = |connection: &mut Connection| {
            let transaction = connection.transaction()?;
            let mut statement = transaction.prepare_cached(schema::INSERT)?;
            for stamped in records {
                schema::insert(&mut statement, boot_id, stamped)?;
            }
            drop(statement);
            transaction.commit()
        };
        append(&mut self.connection).map_err(|source| AuditError::Store { path: self.path.clone(), source })
    }
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    // WAL with NORMAL may lose the last commits with the power; FULL does not.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.execute(schema::CREATE, ())?;
    connection.pragma_update(None, "user_version", schema::VERSION)
}

/// True if the file can be read from end to end; an error if that cannot be known.
fn is_sound(path: &Path) -> rusqlite::Result<bool> {
    let verdict = Connection::open(path)
        .and_then(|connection| connection.query_row("PRAGMA quick_check(1)", (), |row| row.get::<_, String>(0)));
    match verdict {
        Ok(text) => Ok(text == "ok"),
        Err(error) if is_damage(&error) => Ok(false),
        Err(error) => Err(error),
    }
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
        let mut statement = connection.prepare(schema::SELECT_AFTER)?;
        statement.query_map((after_seq, limit), Row::read)?.collect()
    };
    read().map_err(|source| AuditError::Store { path: path.to_owned(), source })
}

/// The newest wall time stored, in milliseconds since 1970: time must not go behind it (F17).
/// Nothing if there is no record or the file cannot be read.
#[must_use]
pub fn last_wall_ms(path: &Path) -> Option<u64> {
    let read = || read_only(path)?.query_row(schema::SELECT_LAST_WALL_MS, (), |row| row.get::<_, Option<i64>>(0));
    read().ok().flatten().and_then(|unix_ms| u64::try_from(unix_ms).ok())
}

fn read_only(path: &Path) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
}
