//! Reading: records by time, channel, person and kind. Does not disturb the writer.

use super::schema::{self, Row};
use super::{AuditError, store};
use rusqlite::params_from_iter;
use rusqlite::types::Value as Sql;
use std::path::Path;

/// Which records are wanted; what is not said does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Not before this time: ISO 8601 in UTC, or its beginning.
    pub from: Option<String>,
    /// Before this time.
    pub until: Option<String>,
    /// On this channel.
    pub channel: Option<String>,
    /// By or to this participant, by id; or by this name.
    pub person: Option<String>,
    /// Actions, or the part before the dot for all of a kind: `ptt.start`, `emergency_broadcast`. None are all.
    pub kinds: Vec<String>,
    /// Of this burst, as `b12`.
    pub burst: Option<String>,
    /// After this record.
    pub after_seq: i64,
    /// The newest so many of them.
    pub newest: Option<usize>,
}

impl Filter {
    /// The condition in SQL and what it is asked with.
    fn condition(&self) -> (String, Vec<Sql>) {
        let mut conditions = vec!["seq > ?".to_owned()];
        let mut values = vec![Sql::from(self.after_seq)];
        let mut add = |condition: &str, texts: &[&str]| {
            conditions.push(condition.to_owned());
            values.extend(texts.iter().map(|text| Sql::from((*text).to_owned())));
        };
        if let Some(from) = &self.from {
            add("utc >= ?", &[from]);
        }
        if let Some(until) = &self.until {
            add("utc < ?", &[until]);
        }
        if let Some(channel) = &self.channel {
            add("channel = ?", &[channel]);
        }
        if let Some(person) = &self.person {
            add("(actor = ? OR target = ? OR actor_name = ?)", &[person, person, person]);
        }
        if let Some(burst) = &self.burst {
            add("burst = ?", &[burst]);
        }
        if !self.kinds.is_empty() {
            let one = "(action = ? OR substr(action, 1, length(?) + 1) = ? || '.')";
            let texts: Vec<&str> = self.kinds.iter().flat_map(|kind| [kind.as_str(); 3]).collect();
            add(&format!("({})", vec![one; self.kinds.len()].join(" OR ")), &texts);
        }
        (conditions.join(" AND "), values)
    }
}

/// Hands over the records that are wanted, oldest first, until `take` says no.
///
/// # Errors
/// If the file cannot be read.
pub fn query(path: &Path, filter: &Filter, mut take: impl FnMut(Row) -> bool) -> Result<(), AuditError> {
    let (condition, values) = filter.condition();
    let rest = match filter.newest {
        // The newest are looked for from the end, and turned round.
        Some(newest) => format!("WHERE {condition} ORDER BY seq DESC LIMIT {newest}"),
        None => format!("WHERE {condition} ORDER BY seq"),
    };
    let mut read = || -> rusqlite::Result<()> {
        let db = store::read_only(path)?;
        let mut statement = db.prepare(&schema::select(&rest))?;
        let rows = statement.query_map(params_from_iter(values.iter()), Row::read)?;
        if filter.newest.is_some() {
            let rows: Vec<Row> = rows.collect::<Result<_, _>>()?;
            rows.into_iter().rev().all(&mut take);
            return Ok(());
        }
        for row in rows {
            if !take(row?) {
                break;
            }
        }
        Ok(())
    };
    read().map_err(|source| AuditError::Store { path: path.to_owned(), source })
}
