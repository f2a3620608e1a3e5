//! The shape of the store's tables and what is read from and written to them.

use super::{Ban, Change, Roll, StoredChannel, StoredPerson};
use crate::base::Role;
use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};

/// One script a version; a file of version n (SQLite's `user_version`) is brought on by those from place n.
pub(super) const MIGRATIONS: &[&str] = &["
    CREATE TABLE channel (id TEXT PRIMARY KEY, name TEXT NOT NULL, place INTEGER NOT NULL) STRICT;
    CREATE TABLE person (id TEXT PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL) STRICT;
    CREATE TABLE permission (
        person  TEXT NOT NULL REFERENCES person ON DELETE CASCADE,
        channel TEXT NOT NULL,
        PRIMARY KEY (person, channel)
    ) STRICT;
    CREATE TABLE ban (user TEXT PRIMARY KEY, until_unix_ms INTEGER, reason TEXT NOT NULL, made_by TEXT NOT NULL) STRICT;
    CREATE TABLE disabled (user TEXT PRIMARY KEY) STRICT;
"];

pub(super) fn read(db: &Connection) -> rusqlite::Result<Roll> {
    let mut roll = Roll::default();
    let mut channels = db.prepare("SELECT id, name, place FROM channel ORDER BY place, id")?;
    let channel = |row: &Row<'_>| {
        Ok(StoredChannel { id: row.get::<_, String>("id")?.into(), name: row.get("name")?, order: row.get("place")? })
    };
    roll.channels = channels.query_map((), channel)?.collect::<Result<_, _>>()?;
    let mut people = db.prepare("SELECT id, name, role FROM person")?;
    let mut rows = people.query(())?;
    while let Some(row) = rows.next()? {
        let role: String = row.get("role")?;
        let role: Role =
            role.parse().map_err(|e: String| rusqlite::Error::FromSqlConversionFailure(2, Type::Text, e.into()))?;
        let person = StoredPerson { name: row.get("name")?, role, channels: Vec::new() };
        roll.people.insert(row.get::<_, String>("id")?.into(), person);
    }
    let mut permissions = db.prepare("SELECT person, channel FROM permission ORDER BY channel")?;
    let mut rows = permissions.query(())?;
    while let Some(row) = rows.next()? {
        if let Some(person) = roll.people.get_mut(row.get::<_, String>("person")?.as_str()) {
            person.channels.push(row.get::<_, String>("channel")?.into());
        }
    }
    let mut bans = db.prepare("SELECT user, until_unix_ms, reason, made_by FROM ban")?;
    let mut rows = bans.query(())?;
    while let Some(row) = rows.next()? {
        let until = row.get::<_, Option<i64>>("until_unix_ms")?;
        let ban = Ban {
            until_unix_ms: until.map(|ms| u64::try_from(ms).unwrap_or(0)),
            reason: row.get("reason")?,
            by: row.get::<_, String>("made_by")?.into(),
        };
        roll.bans.insert(row.get::<_, String>("user")?.into(), ban);
    }
    let mut disabled = db.prepare("SELECT user FROM disabled")?;
    roll.disabled = disabled.query_map((), |row| Ok(row.get::<_, String>(0)?.into()))?.collect::<Result<_, _>>()?;
    Ok(roll)
}

pub(super) fn write(db: &Connection, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::PutChannel(c) => {
            let upsert = "INSERT INTO channel (id, name, place) VALUES (?, ?, ?)
                ON CONFLICT (id) DO UPDATE SET name = excluded.name, place = excluded.place";
            db.execute(upsert, params![c.id.as_str(), c.name, c.order])?;
        }
        Change::RemoveChannel(id) => {
            db.execute("DELETE FROM channel WHERE id = ?", [id.as_str()])?;
            db.execute("DELETE FROM permission WHERE channel = ?", [id.as_str()])?;
        }
        Change::PutPerson(id, person) => {
            let upsert = "INSERT INTO person (id, name, role) VALUES (?, ?, ?)
                ON CONFLICT (id) DO UPDATE SET name = excluded.name, role = excluded.role";
            db.execute(upsert, params![id.as_str(), person.name, person.role.as_str()])?;
            db.execute("DELETE FROM permission WHERE person = ?", [id.as_str()])?;
            for channel in &person.channels {
                db.execute("INSERT OR IGNORE INTO permission VALUES (?, ?)", [id.as_str(), channel.as_str()])?;
            }
        }
        Change::RemovePerson(id) => {
            db.execute("DELETE FROM person WHERE id = ?", [id.as_str()])?;
        }
        Change::PutBan(user, ban) => {
            let until = ban.until_unix_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
            let upsert = "INSERT OR REPLACE INTO ban (user, until_unix_ms, reason, made_by) VALUES (?, ?, ?, ?)";
            db.execute(upsert, params![user.as_str(), until, ban.reason, ban.by.as_str()])?;
        }
        Change::RemoveBan(user) => {
            db.execute("DELETE FROM ban WHERE user = ?", [user.as_str()])?;
        }
        Change::Disable(user) => {
            db.execute("INSERT OR IGNORE INTO disabled VALUES (?)", [user.as_str()])?;
        }
        Change::Enable(user) => {
            db.execute("DELETE FROM disabled WHERE user = ?", [user.as_str()])?;
        }
    }
    Ok(())
}
