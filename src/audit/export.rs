//! Exports that prove themselves: all records of a time, the hash before them, and signed checkpoints among them.
//!
//! A line of JSON first says what came before and what vouches for the rest; then every record is a line. The records
//! go on beyond the wanted time up to one that a checkpoint vouches for.

use super::AuditError;
use super::anchor::{self, Checkpoint};
use super::chain::Digest;
use super::schema::{self, Row};
use super::store::{self, Last};
use super::verify::{Trust, Verdict, Walk, checkpoints, take_checkpoint};
use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Write};
use std::path::Path;

/// What the first line says it is.
const KIND: &str = "crosspatch-audit-export-1";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    kind: String,
    /// The record before the first one, and its hash.
    before_seq: i64,
    before_hash: String,
    checkpoints: Vec<Checkpoint>,
}

/// Writes all records from `from` until `until` (ISO 8601 in UTC, or its beginning) with their proof; says how many.
///
/// # Errors
/// If the audit cannot be read or the export not be written.
pub fn export(path: &Path, from: Option<&str>, until: Option<&str>, to: &mut dyn Write) -> Result<u64, AuditError> {
    let head = anchor::read_head(path).ok(); // before the records: never ahead of them
    let failed = |source| AuditError::Store { path: path.to_owned(), source };
    let db = store::read_only(path).map_err(failed)?;
    let db = db.unchecked_transaction().map_err(failed)?;
    let (header, first, last) = plan(&db, head, from, until).map_err(failed)?;
    let wrong = |source: std::io::Error| AuditError::Export { source };
    let line = |to: &mut dyn Write, text: serde_json::Result<String>| writeln!(to, "{}", text?);
    line(to, serde_json::to_string(&header)).map_err(wrong)?;
    let mut statement = db.prepare(&schema::select("WHERE seq BETWEEN ? AND ? ORDER BY seq")).map_err(failed)?;
    let mut records = 0;
    for row in statement.query_map([first, last], Row::read).map_err(failed)? {
        line(to, serde_json::to_string(&row.map_err(failed)?)).map_err(wrong)?;
        records += 1;
    }
    Ok(records)
}

/// The first line, and the first and last record that belong to the export.
fn plan(
    db: &Connection,
    head: Option<Checkpoint>,
    from: Option<&str>,
    until: Option<&str>,
) -> rusqlite::Result<(Header, i64, i64)> {
    let start = store::pruned(db)?.unwrap_or(Last { seq: 0, hash: Digest::ZERO });
    let ends =
        "SELECT coalesce(min(seq), 0), coalesce(max(seq), -1) FROM audit WHERE utc >= ?1 AND (?2 IS NULL OR utc < ?2)";
    let (first, last): (i64, i64) =
        db.query_row(ends, (from.unwrap_or(""), until), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let hash_of = "SELECT hash FROM audit WHERE seq = ?";
    let before: Option<String> = db.query_row(hash_of, [first - 1], |row| row.get(0)).optional()?;
    let before = before.unwrap_or_else(|| start.hash.to_string());
    let all: Vec<Checkpoint> = checkpoints(db)?.into_iter().chain(head).collect();
    let vouched = all.iter().map(|checkpoint| checkpoint.seq).filter(|seq| *seq >= last).min().unwrap_or(last);
    let among = |checkpoint: &Checkpoint| (first..=vouched).contains(&checkpoint.seq);
    let header = Header {
        kind: KIND.to_owned(),
        before_seq: first - 1,
        before_hash: before,
        checkpoints: all.into_iter().filter(among).collect(),
    };
    Ok((header, first, vouched))
}

/// Verifies an export by itself: no box and no other file is needed but the key, to know whose it is.
///
/// # Errors
/// If it cannot be read, or is no export.
pub fn verify_export(from: &mut dyn BufRead, trust: &Trust) -> Result<Verdict, AuditError> {
    let mut lines = from.lines();
    let no_export = |why: &str| AuditError::NoExport { why: why.to_owned() };
    let first =
        lines.next().ok_or_else(|| no_export("it is empty"))?.map_err(|source| AuditError::Export { source })?;
    let header: Header = serde_json::from_str(&first).map_err(|e| no_export(&e.to_string()))?;
    let before = Digest::parse(&header.before_hash).filter(|_| header.kind == KIND);
    let hash = before.ok_or_else(|| no_export("its first line is of another kind"))?;
    let mut walk = Walk::new(Last { seq: header.before_seq, hash });
    let mut verdict = Verdict::default();
    let own: Vec<_> = header.checkpoints.iter().map(|checkpoint| (checkpoint, "the export's checkpoint")).collect();
    let kept = trust.kept.iter().map(|checkpoint| (checkpoint, "a checkpoint kept elsewhere"));
    let newest = own.iter().map(|(checkpoint, _)| checkpoint.seq).max().unwrap_or(0);
    for (checkpoint, whose) in own.into_iter().chain(kept.filter(|(checkpoint, _)| checkpoint.seq <= newest)) {
        take_checkpoint(&mut walk, &mut verdict, checkpoint, whose, &trust.keys);
    }
    let at_fault = walk.broken.take();
    for line in lines {
        let line = line.map_err(|source| AuditError::Export { source })?;
        let seq = walk.last.seq + 1;
        let Ok(row) = serde_json::from_str::<Row>(&line) else {
            walk.fail(seq, format!("record {seq} cannot be read"));
            break;
        };
        if !walk.step(&row, true) {
            break;
        }
    }
    if newest < walk.last.seq {
        verdict.notes.push(format!("no checkpoint vouches for the records after {newest}"));
    }
    Ok(walk.finish(verdict, at_fault))
}
