//! The SQLite file: checked, set aside if damaged, brought to the newest schema, read and changed.
//!
//! It is opened anew for every change. Changes are rare, and so what counts is what the file says, not what a cache
//! remembers of a file that somebody has restored, removed or damaged meanwhile.

use super::{Change, PeopleError, Roll, schema};
use crate::base::aside::set_aside;
use rusqlite::{Connection, ErrorCode};
use std::path::{Path, PathBuf};

/// A store that is open for one reading or one change.
pub struct Store {
    path: PathBuf,
    db: Connection,
    /// Where the damaged file is that this one replaces.
    pub set_aside: Option<PathBuf>,
}

impl Store {
    /// Opens the file after a check of all of it, or makes it.
    ///
    /// # Errors
    /// If it cannot be opened, read or set aside, or belongs to a newer program.
    pub fn open(path: &Path) -> Result<Self, PeopleError> {
        let failed = |source| PeopleError::Store { path: path.to_owned(), source };
        let (db, set_aside) = match open_sound(path) {
            Ok(db) => (db, None),
            Err(error) if is_damage(&error) => {
                let aside =
                    set_aside(path).map_err(|source| PeopleError::SetAside { path: path.to_owned(), source })?;
                (open_sound(path).map_err(failed)?, Some(aside))
            }
            Err(error) => return Err(failed(error)),
        };
        let mut store = Store { path: path.to_owned(), db, set_aside };
        store.migrate()?;
        Ok(store)
    }

    fn failed(&self, source: rusqlite::Error) -> PeopleError {
        PeopleError::Store { path: self.path.clone(), source }
    }

    fn migrate(&mut self) -> Result<(), PeopleError> {
        let known = schema::MIGRATIONS.len();
        let found: i64 =
            self.db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(|e| self.failed(e))?;
        let next = usize::try_from(found).unwrap_or(usize::MAX);
        if next > known {
            return Err(PeopleError::Newer { path: self.path.clone(), found, known });
        }
        let migrate = |db: &mut Connection| {
            for (version, script) in (1i64..).zip(schema::MIGRATIONS).skip(next) {
                let transaction = db.transaction()?;
                transaction.execute_batch(script)?;
                transaction.pragma_update(None, "user_version", version)?;
                transaction.commit()?;
            }
            Ok(())
        };
        migrate(&mut self.db).map_err(|e| self.failed(e))
    }

    /// Everything that is stored.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self) -> Result<Roll, PeopleError> {
        schema::read(&self.db).map_err(|e| self.failed(e))
    }

    /// Stores all of `changes` or none.
    ///
    /// # Errors
    /// If they do not reach the disk.
    pub fn change(&mut self, changes: &[Change]) -> Result<(), PeopleError> {
        let write = |db: &mut Connection| {
            let transaction = db.transaction()?;
            changes.iter().try_for_each(|change| schema::write(&transaction, change))?;
            transaction.commit()
        };
        write(&mut self.db).map_err(|e| self.failed(e))
    }
}

/// Copies the file, whole and at one moment, also while the gateway changes it.
///
/// # Errors
/// If it cannot be read, is damaged, or `to` cannot be written.
pub fn copy(path: &Path, to: &Path) -> Result<(), PeopleError> {
    let copied = open_sound(path).and_then(|db| db.execute("VACUUM INTO ?", [to.to_string_lossy()]));
    copied.map(drop).map_err(|source| PeopleError::Store { path: path.to_owned(), source })
}

fn open_sound(path: &Path) -> rusqlite::Result<Connection> {
    let db = Connection::open(path)?;
    let verdict: String = db.query_row("PRAGMA integrity_check(1)", (), |row| row.get(0))?;
    if verdict != "ok" {
        let damage = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
        return Err(rusqlite::Error::SqliteFailure(damage, Some(verdict)));
    }
    db.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    db.pragma_update(None, "synchronous", "full")?; // NORMAL may lose the last change with the power
    db.pragma_update(None, "foreign_keys", true)?;
    Ok(db)
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}
