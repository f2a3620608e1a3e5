//! Verification: is this what was written, all of it and in this order?
//!
//! Reads only, and trusts nothing that the file says of itself but what a checkpoint vouches for.

use super::AuditError;
use super::anchor::{self, Checkpoint};
use super::chain::{self, Digest};
use super::schema::{self, Row};
use super::store::{self, Last};
use rusqlite::Connection;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// What verification is told besides the file.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Ed25519 keys, in hex, that may sign checkpoints. Without any, each has to be signed well by the key that it names.
    pub keys: Vec<String>,
    /// Checkpoints that were kept elsewhere.
    pub kept: Vec<Checkpoint>,
}

/// The first thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// The first record that is not as it was written.
    pub seq: i64,
    /// What is wrong with it, as a fragment.
    pub why: String,
}

/// What verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The first record of the file; 0 if there is none.
    pub first_seq: i64,
    /// The last one.
    pub last_seq: i64,
    /// The hash of the last one, in hex.
    pub last_hash: String,
    /// Checkpoints that were compared, with the one beside the file and those kept elsewhere.
    pub checkpoints: usize,
    /// The keys that have signed them, in hex.
    pub keys: Vec<String>,
    /// What lowers the worth of the verdict without being a fault.
    pub notes: Vec<String>,
    /// The first thing that is wrong; nothing if all is well.
    pub broken: Option<Broken>,
}

/// Walks a chain record by record.
pub(super) struct Walk {
    pub(super) last: Last,
    first_seq: i64,
    /// What the chain has to be after a record, and who says so.
    expected: BTreeMap<i64, Vec<(String, String)>>,
    pub(super) broken: Option<Broken>,
}

impl Walk {
    pub(super) fn new(from: Last) -> Self {
        Walk { first_seq: 0, last: from, expected: BTreeMap::new(), broken: None }
    }

    pub(super) fn fail(&mut self, seq: i64, why: String) {
        self.broken.get_or_insert(Broken { seq, why });
    }

    fn expect(&mut self, checkpoint: &Checkpoint, whose: &str) {
        let whose = format!("{whose} of record {} ({}, {})", checkpoint.seq, checkpoint.cause, checkpoint.utc);
        self.expected.entry(checkpoint.seq).or_default().push((checkpoint.hash.clone(), whose));
    }

    /// Takes the next record; false when the first fault is found.
    pub(super) fn step(&mut self, row: &Row, as_written: bool) -> bool {
        let (seq, due) = (row.seq, self.last.seq + 1);
        if self.first_seq == 0 {
            self.first_seq = seq;
        }
        if seq != due {
            let last = seq - 1;
            let which = if due == last { format!("record {due} is") } else { format!("records {due} to {last} are") };
            self.fail(due, format!("{which} missing"));
            return false;
        }
        let hash = chain::link(self.last.hash, row);
        if !as_written || hash.to_string() != row.hash {
            self.fail(
                seq,
                format!(
                    "record {seq} ({}, {}) does not fit its hash: it was changed, inserted or moved",
                    row.action, row.utc
                ),
            );
            return false;
        }
        if let Some((_, whose)) = self.expected.remove(&seq).into_iter().flatten().find(|(said, _)| *said != row.hash) {
            self.fail(
                seq,
                format!("record {seq}, or one before it, is not the one that was written: {whose} says otherwise"),
            );
            return false;
        }
        self.last = Last { seq, hash };
        true
    }

    /// Nothing follows: whoever vouches for later records vouches for missing ones. `at_fault` is a checkpoint that is
    /// itself at fault, which stands unless a record before it is.
    pub(super) fn finish(mut self, verdict: Verdict, at_fault: Option<Broken>) -> Verdict {
        let missing = self.expected.last_key_value().filter(|(seq, _)| **seq > self.last.seq && self.broken.is_none());
        if let Some((seq, said)) = missing {
            let (due, whose) = (self.last.seq + 1, said.first().map_or_else(String::new, |(_, whose)| whose.clone()));
            self.fail(due, format!("the last records, {due} to {seq}, are missing: {whose} knows them"));
        }
        let at_fault = at_fault.filter(|own| self.broken.as_ref().is_none_or(|found| own.seq <= found.seq));
        Verdict {
            first_seq: self.first_seq,
            last_seq: self.last.seq,
            last_hash: self.last.hash.to_string(),
            broken: at_fault.or(self.broken),
            ..verdict
        }
    }
}

/// Has a checkpoint judge the walk, if it can be trusted itself.
pub(super) fn take_checkpoint(
    walk: &mut Walk,
    verdict: &mut Verdict,
    checkpoint: &Checkpoint,
    whose: &str,
    keys: &[String],
) {
    if let Err(why) = check_signature(checkpoint, keys) {
        let seq = checkpoint.seq;
        walk.fail(seq, format!("{whose} of record {seq} cannot be trusted: {why}"));
    }
    verdict.checkpoints += 1;
    if let Some(key) = checkpoint.public_key.as_ref().filter(|key| !verdict.keys.contains(key)) {
        verdict.keys.push(key.clone());
    }
    if checkpoint.seq > walk.last.seq {
        walk.expect(checkpoint, whose);
    }
}

/// Verifies all of an audit.
///
/// # Errors
/// If the file cannot be read.
pub fn verify(path: &Path, trust: &Trust) -> Result<Verdict, AuditError> {
    let read = || verify_in(&store::read_only(path)?, path, trust, &|| true);
    read().map_err(|source| AuditError::Store { path: path.to_owned(), source })
}

/// The same of an open file; the verdict means nothing once `goes_on` has said no.
pub(super) fn verify_in(
    db: &Connection,
    path: &Path,
    trust: &Trust,
    goes_on: &dyn Fn() -> bool,
) -> rusqlite::Result<Verdict> {
    let head = anchor::read_head(path); // before the records: never ahead of them, also while the gateway writes
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version < 2 {
        return Ok(unchained());
    }
    let db = db.unchecked_transaction()?; // one view of all, while the gateway goes on writing
    let mut walk = Walk::new(store::pruned(&db)?.unwrap_or(Last { seq: 0, hash: Digest::ZERO }));
    let mut verdict = Verdict::default();
    let mut keys = trust.keys.clone();
    keys.extend(anchor::public_key_beside(path));
    for checkpoint in checkpoints(&db)? {
        take_checkpoint(&mut walk, &mut verdict, &checkpoint, "the file's own checkpoint", &keys);
    }
    match &head {
        Ok(head) => take_checkpoint(&mut walk, &mut verdict, head, "the checkpoint beside the file", &keys),
        Err(why) => verdict.notes.push(format!(
            "{} cannot be read ({why}), so that records missing at the end are found only by a checkpoint kept elsewhere",
            anchor::head_path(path).display()
        )),
    }
    for checkpoint in &trust.kept {
        if checkpoint.seq < walk.last.seq {
            verdict.notes.push(format!("record {} of a kept checkpoint was taken away by retention", checkpoint.seq));
        }
        take_checkpoint(&mut walk, &mut verdict, checkpoint, "a checkpoint kept elsewhere", &keys);
    }
    let at_fault = walk.broken.take();
    walk_all(&db, &mut walk, goes_on)?;
    Ok(walk.finish(verdict, at_fault))
}

fn unchained() -> Verdict {
    let note = "the file is of schema 1 and has no chain yet; the gateway makes one at its next start";
    Verdict { notes: vec![note.into()], ..Verdict::default() }
}

fn check_signature(checkpoint: &Checkpoint, keys: &[String]) -> Result<(), String> {
    match &checkpoint.public_key {
        None if keys.is_empty() => Ok(()),
        None => Err("it is not signed".into()),
        Some(_) if !checkpoint.is_signed() => Err("its signature is wrong".into()),
        Some(key) if !keys.is_empty() && !keys.contains(key) => Err(format!("it is signed by an unknown key, {key}")),
        Some(_) => Ok(()),
    }
}

/// Follows the chain until its end or its first fault, or until `goes_on` says no.
fn walk_all(db: &Connection, walk: &mut Walk, goes_on: &dyn Fn() -> bool) -> rusqlite::Result<()> {
    let mut statement = db.prepare(&schema::select("WHERE seq > ? ORDER BY seq"))?;
    let mut rows = statement.query([walk.last.seq])?;
    while let Some(row) = rows.next()?.filter(|_| goes_on()) {
        let seq = walk.last.seq + 1;
        match Row::read(row).and_then(|read| Ok((read.is_spelt_as_written(row)?, read))) {
            Ok((as_written, row)) => {
                if !walk.step(&row, as_written) {
                    break;
                }
            }
            Err(error) if store::is_damage(&error) => return Err(error),
            Err(error) => {
                walk.fail(seq, format!("record {seq} cannot be read: {error}"));
                break;
            }
        }
    }
    Ok(())
}

/// The checkpoints in the file, oldest first.
pub(super) fn checkpoints(db: &Connection) -> rusqlite::Result<Vec<Checkpoint>> {
    let select = "SELECT seq, hash, utc, cause, public_key, signature FROM checkpoint ORDER BY id";
    let read = |row: &rusqlite::Row<'_>| {
        Ok(Checkpoint {
            seq: row.get(0)?,
            hash: row.get(1)?,
            utc: row.get(2)?,
            cause: row.get(3)?,
            public_key: row.get(4)?,
            signature: row.get(5)?,
        })
    };
    db.prepare(select)?.query_map((), read)?.collect()
}

/// Verifies what is newer than the last checkpoint but one, and that nothing is missing at the end: quick enough for
/// every start.
pub(super) fn newest(db: &Connection, path: &Path) -> rusqlite::Result<Option<String>> {
    let mut all = checkpoints(db)?;
    let newest = all.pop();
    let from = match all.pop() {
        Some(before) => Some(Last { seq: before.seq, hash: Digest::parse(&before.hash).unwrap_or(Digest::ZERO) }),
        None => store::pruned(db)?,
    };
    let mut walk = Walk::new(from.unwrap_or(Last { seq: 0, hash: Digest::ZERO }));
    for (checkpoint, whose) in
        [(newest, "the file's own checkpoint"), (anchor::read_head(path).ok(), "the checkpoint beside the file")]
    {
        if let Some(checkpoint) = checkpoint.filter(|checkpoint| checkpoint.seq > walk.last.seq) {
            walk.expect(&checkpoint, whose);
        }
    }
    walk_all(db, &mut walk, &|| true)?;
    Ok(walk.finish(Verdict::default(), None).broken.map(|broken| broken.why))
}
