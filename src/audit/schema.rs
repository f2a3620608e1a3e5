//! The shape of the audit's tables, and the one translation between rows and records.

use super::Stamped;
use super::chain::{self, Digest};
use crate::base::Role;
use rusqlite::types::{Type, ValueRef};
use rusqlite::{Connection, Statement, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One step a version; a file of version n (SQLite's `user_version`) is brought on by those from place n.
/// A step that goes through all records gives a sign of life now and then.
pub(super) const MIGRATIONS: &[Migration] =
    &[|db, _| db.execute_batch(FIRST), |db, alive| chain_up(db, alive).and_then(|()| db.execute_batch(GUARD))];

/// See [`MIGRATIONS`].
type Migration = fn(&Connection, &dyn Fn()) -> rusqlite::Result<()>;

const FIRST: &str = "
    CREATE TABLE IF NOT EXISTS audit (
        seq        INTEGER PRIMARY KEY,
        utc        TEXT NOT NULL,
        mono_ns    INTEGER NOT NULL,
        boot_id    TEXT NOT NULL,
        clock_ok   INTEGER NOT NULL,
        action     TEXT NOT NULL,
        actor      TEXT,
        actor_name TEXT,
        role       TEXT,
        channel    TEXT,
        target     TEXT,
        cause      TEXT,
        burst      TEXT,
        detail     TEXT
    )";

/// Records are only ever added at the end. What retention takes away, a checkpoint with the cause `pruned` has to
/// cover first.
const GUARD: &str = "
    CREATE TRIGGER audit_no_change BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
    CREATE TRIGGER audit_no_insert BEFORE INSERT ON audit
        WHEN NEW.seq IS NULL OR NEW.seq <= (SELECT coalesce(max(seq), 0) FROM audit)
        BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
    CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
        WHEN OLD.seq > (SELECT coalesce(max(seq), 0) FROM checkpoint WHERE cause = 'pruned')
        BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
    CREATE TRIGGER checkpoint_no_change BEFORE UPDATE ON checkpoint
        BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
    CREATE TRIGGER checkpoint_no_delete BEFORE DELETE ON checkpoint
        BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;";

/// Gives every record of a file of version 1 its hash: from here on the chain vouches for them.
fn chain_up(db: &Connection, alive: &dyn Fn()) -> rusqlite::Result<()> {
    db.execute_batch(
        "ALTER TABLE audit ADD COLUMN hash TEXT NOT NULL DEFAULT '';
         CREATE TABLE checkpoint (
             id         INTEGER PRIMARY KEY,
             seq        INTEGER NOT NULL,
             hash       TEXT NOT NULL,
             utc        TEXT NOT NULL,
             cause      TEXT NOT NULL,
             public_key TEXT,
             signature  TEXT
         );
         CREATE INDEX pruned ON checkpoint (seq) WHERE cause = 'pruned'",
    )?;
    let mut update = db.prepare("UPDATE audit SET hash = ? WHERE seq = ?")?;
    let (mut before, mut after_seq) = (Digest::ZERO, 0);
    loop {
        let rows: Vec<Row> = db
            .prepare_cached(&select("WHERE seq > ? ORDER BY seq LIMIT 1000"))?
            .query_map([after_seq], Row::read)?
            .collect::<Result<_, _>>()?;
        let Some(last) = rows.last() else { return Ok(()) };
        alive();
        after_seq = last.seq;
        for row in &rows {
            before = chain::link(before, row);
            update.execute(params![before.to_string(), row.seq])?;
        }
    }
}

pub(super) const INSERT: &str = "
    INSERT INTO audit (seq, utc, mono_ns, boot_id, clock_ok, action, actor, actor_name, role, channel, target, cause, burst, detail, hash)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// A query for rows, as [`Row::read`] wants them.
pub(super) fn select(rest: &str) -> String {
    format!(
        "SELECT seq, utc, mono_ns, boot_id, clock_ok, action, actor, actor_name, role, channel, target, cause, burst, \
         detail, hash FROM audit {rest}"
    )
}

/// The newest time of the last rows: stamps of different threads may swap places, but not far.
pub(super) const SELECT_LAST_WALL_MS: &str = "
    SELECT CAST(round(unixepoch(max(utc), 'subsec') * 1000) AS INTEGER)
    FROM (SELECT utc FROM audit ORDER BY seq DESC LIMIT 100)";

/// The place of the column `detail`.
const DETAIL: usize = 13;

/// One stored record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its number; only grows.
    pub seq: i64,
    /// When, for people: ISO 8601 in UTC with milliseconds.
    pub utc: String,
    /// When, in nanoseconds of `CLOCK_MONOTONIC` of its boot.
    pub mono_ns: i64,
    /// Which boot `mono_ns` belongs to.
    pub boot_id: String,
    /// True if the clock behind `utc` was synchronised.
    pub clock_ok: bool,
    /// What happened.
    pub action: String,
    /// Who did it.
    pub actor: Option<String>,
    /// Their name, as people know it.
    pub actor_name: Option<String>,
    /// Their role, as on the wire.
    pub role: Option<String>,
    /// On which channel.
    pub channel: Option<String>,
    /// To whom.
    pub target: Option<String>,
    /// Why, in one kebab-case word.
    pub cause: Option<String>,
    /// Which talk burst, as `b12`.
    pub burst: Option<String>,
    /// The rest, as a JSON object or null.
    pub detail: Value,
    /// The chain up to this record, in hex; empty before it is stored.
    pub hash: String,
}

/// What one column says.
pub(super) enum Cell<'a> {
    Null,
    Number(i64),
    Text(&'a str),
}

impl Row {
    /// What is stored of a record, but for its hash; its wall time is not before `floor_ms`.
    pub(super) fn of(seq: i64, boot_id: &str, floor_ms: u64, stamped: &Stamped) -> Self {
        let Stamped { record, mono, wall } = stamped;
        Row {
            seq,
            utc: iso_8601(wall.unix_ms.max(floor_ms)),
            mono_ns: i64::try_from(mono.0).unwrap_or(i64::MAX),
            boot_id: boot_id.to_owned(),
            clock_ok: wall.synchronised,
            action: record.action.as_str().to_owned(),
            actor: record.actor.as_ref().map(ToString::to_string),
            actor_name: record.actor_name.clone(),
            role: record.role.map(|role| Role::as_str(role).to_owned()),
            channel: record.channel.as_ref().map(ToString::to_string),
            target: record.target.as_ref().map(ToString::to_string),
            cause: record.cause.map(str::to_owned),
            burst: record.burst.map(|burst| burst.to_string()),
            detail: record.detail.clone(),
            hash: String::new(),
        }
    }

    /// Hands over every column but the hash, in order.
    pub(super) fn cells(&self, mut take: impl FnMut(Cell<'_>)) {
        let detail = self.detail_text();
        take(Cell::Number(self.seq));
        take(Cell::Text(&self.utc));
        take(Cell::Number(self.mono_ns));
        take(Cell::Text(&self.boot_id));
        take(Cell::Number(i64::from(self.clock_ok)));
        take(Cell::Text(&self.action));
        for column in
            [&self.actor, &self.actor_name, &self.role, &self.channel, &self.target, &self.cause, &self.burst, &detail]
        {
            take(column.as_deref().map_or(Cell::Null, Cell::Text));
        }
    }

    /// The detail as it stands in the file: compact, keys in order.
    fn detail_text(&self) -> Option<String> {
        (!self.detail.is_null()).then(|| self.detail.to_string())
    }

    pub(super) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let detail = match row.get_ref(DETAIL)? {
            ValueRef::Null => Value::Null,
            text @ (ValueRef::Text(_) | ValueRef::Blob(_) | ValueRef::Integer(_) | ValueRef::Real(_)) => {
                serde_json::from_str(text.as_str()?)
                    .map_err(|e| rusqlite::Error::FromSqlConversionFailure(DETAIL, Type::Text, Box::new(e)))?
            }
        };
        Ok(Row {
            seq: row.get(0)?,
            utc: row.get(1)?,
            mono_ns: row.get(2)?,
            boot_id: row.get(3)?,
            clock_ok: row.get(4)?,
            action: row.get(5)?,
            actor: row.get(6)?,
            actor_name: row.get(7)?,
            role: row.get(8)?,
            channel: row.get(9)?,
            target: row.get(10)?,
            cause: row.get(11)?,
            burst: row.get(12)?,
            detail,
            hash: row.get(14)?,
        })
    }

    /// True if the file says it as this program writes it. JSON has many spellings for one meaning, and somebody who
    /// looks at the file with other tools may read another one.
    pub(super) fn is_spelt_as_written(&self, row: &rusqlite::Row<'_>) -> rusqlite::Result<bool> {
        Ok(row.get::<_, Option<String>>(DETAIL)? == self.detail_text() && matches!(row.get(4)?, 0..=1))
    }

    /// Stores the row with the prepared [`INSERT`].
    pub(super) fn insert(&self, statement: &mut Statement<'_>) -> rusqlite::Result<()> {
        statement.execute(params![
            self.seq,
            self.utc,
            self.mono_ns,
            self.boot_id,
            self.clock_ok,
            self.action,
            self.actor,
            self.actor_name,
            self.role,
            self.channel,
            self.target,
            self.cause,
            self.burst,
            self.detail_text(),
            self.hash,
        ])?;
        Ok(())
    }
}

/// ISO 8601 in UTC with milliseconds; sorts like the time it names.
#[must_use]
pub fn iso_8601(unix_ms: u64) -> String {
    let t = i64::try_from(unix_ms / 1000)
        .ok()
        .and_then(|seconds| time::OffsetDateTime::from_unix_timestamp(seconds).ok())
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = (t.year(), u8::from(t.month()), t.day());
    let (hour, minute, second, ms) = (t.hour(), t.minute(), t.second(), unix_ms % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::iso_8601;

    #[test]
    fn times_are_iso_8601_with_milliseconds() {
        assert_eq!(iso_8601(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso_8601(1_709_164_799_007), "2024-02-28T23:59:59.007Z");
    }
}
