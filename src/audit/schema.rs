//! The shape of the audit's table, and the one translation between rows and records.

use super::Stamped;
use crate::base::Role;
use rusqlite::types::Type;
use rusqlite::{Statement, params};
use serde::Serialize;
use serde_json::Value;

/// The schema's number, kept in SQLite's `user_version`.
pub(super) const VERSION: i64 = 1;

pub(super) const CREATE: &str = "
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

pub(super) const INSERT: &str = "
    INSERT INTO audit (utc, mono_ns, boot_id, clock_ok, action, actor, actor_name, role, channel, target, cause, burst, detail)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

pub(super) const SELECT_AFTER: &str = "
    SELECT seq, utc, mono_ns, boot_id, clock_ok, action, actor, actor_name, role, channel, target, cause, burst, detail
    FROM audit WHERE seq > ? ORDER BY seq LIMIT ?";

/// The newest time of the last rows: stamps of different threads may swap places, but not far.
pub(super) const SELECT_LAST_WALL_MS: &str = "
    SELECT CAST(round(unixepoch(max(utc), 'subsec') * 1000) AS INTEGER)
    FROM (SELECT utc FROM audit ORDER BY seq DESC LIMIT 100)";

/// One stored record.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
}

impl Row {
    pub(super) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        const DETAIL: usize = 13;
        let detail = match row.get::<_, Option<String>>(DETAIL)? {
            Some(text) => serde_json::from_str(&text)
                .map_err(|e| rusqlite::Error::FromSqlConversionFailure(DETAIL, Type::Text, Box::new(e)))?,
            None => Value::Null,
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
        })
    }
}

/// Stores one record with the prepared [`INSERT`].
pub(super) fn insert(statement: &mut Statement<'_>, boot_id: &str, stamped: &Stamped) -> rusqlite::Result<()> {
    let Stamped { record, mono, wall } = stamped;
    statement.execute(params![
        iso_8601(wall.unix_ms),
        i64::try_from(mono.0).unwrap_or(i64::MAX),
        boot_id,
        wall.synchronised,
        record.action.as_str(),
        record.actor.as_ref().map(|id| id.as_str()),
        record.actor_name,
        record.role.map(Role::as_str),
        record.channel.as_ref().map(|id| id.as_str()),
        record.target.as_ref().map(|id| id.as_str()),
        record.cause,
        record.burst.map(|burst| burst.to_string()),
        (!record.detail.is_null()).then(|| record.detail.to_string()),
    ])?;
    Ok(())
}

/// ISO 8601 in UTC with milliseconds; sorts like the time it names.
fn iso_8601(unix_ms: u64) -> String {
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
