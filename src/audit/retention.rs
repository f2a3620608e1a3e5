//! Retention: the oldest records go, by age and by the size of all, and the chain stays verifiable.
//!
//! A signed checkpoint with the cause `pruned` takes the place of what goes: the first record that is left follows its
//! hash. **Invariant:** nothing goes by its age while the clock is not known to be right.

use super::anchor::Checkpoint;
use super::schema::iso_8601;
use super::store::{Last, Store, keep};
use super::{AuditError, Stamped};
use crate::audit::chain::Digest;
use crate::base::{Action, Record, WallStamp, clock};
use rusqlite::Connection;
use serde_json::json;
use std::time::Duration;

/// Records that go at once. Urgent ones must not wait long behind it.
const STEP_RECORDS: i64 = 1000;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Records do not become older than this.
    pub age: Duration,
    /// Records together do not take more bytes than this.
    pub bytes: u64,
}

impl Store {
    /// Takes away some of what has to go; true if there may be more.
    pub(super) fn prune(&mut self, boot_id: &str, retention: &Retention, wall: WallStamp) -> Result<bool, AuditError> {
        let Some(cut) = self.cut(retention, wall).map_err(|e| self.failed(e))? else { return Ok(false) };
        let detail = json!({ "fromSeq": cut.from, "toSeq": cut.last.seq, "toUtc": cut.utc, "toHash": cut.last.hash.to_string() });
        let mut record = Record::new(Action::SystemAuditPruned).with(detail);
        record.cause = Some(cut.cause);
        let told = Stamped { record, mono: clock::mono_now(), wall };
        let key = self.key();
        let checkpoint = Checkpoint::new(cut.last.seq, cut.last.hash, &cut.utc, "pruned", key);
        self.append_and(boot_id, std::iter::once(&told), |transaction| {
            keep(transaction, &checkpoint)?;
            transaction.execute("DELETE FROM audit WHERE seq <= ?", [cut.last.seq]).map(drop)
        })?;
        Ok(true)
    }

    fn cut(&self, retention: &Retention, wall: WallStamp) -> rusqlite::Result<Option<Cut>> {
        let db = self.connection();
        let mut oldest = db.prepare_cached("SELECT seq, utc, hash FROM audit WHERE seq < ? ORDER BY seq LIMIT ?")?;
        let too_large = size(db)? > retention.bytes;
        let age = u64::try_from(retention.age.as_millis()).unwrap_or(u64::MAX);
        let before = if wall.synchronised { iso_8601(wall.unix_ms.saturating_sub(age)) } else { String::new() };
        let mut rows = oldest.query([self.last_seq(), STEP_RECORDS])?; // the last record always stays
        let (mut cut, mut from) = (None, 0);
        while let Some(row) = rows.next()? {
            let (seq, utc, hash): (i64, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            if !too_large && utc >= before {
                break;
            }
            if from == 0 {
                from = seq;
            }
            let Some(hash) = Digest::parse(&hash) else { break }; // a broken record stays, for whoever verifies
            let cause = if too_large { "size" } else { "age" };
            cut = Some(Cut { from, last: Last { seq, hash }, utc, cause });
        }
        Ok(cut)
    }
}

/// Everything up to a record.
struct Cut {
    from: i64,
    last: Last,
    utc: String,
    cause: &'static str,
}

/// What is in use of the file. Room that is free in it is used before it grows.
fn size(db: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let used = pragma("page_count")?.saturating_sub(pragma("freelist_count")?).saturating_mul(pragma("page_size")?);
    Ok(u64::try_from(used).unwrap_or(0))
}
