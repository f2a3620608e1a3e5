//! The recordings on disk: one directory a day, one file a burst, and what goes when there are too many.
//!
//! A file that is being written ends in `.part`; under its own name it is whole. **Invariant:** nothing goes by its age
//! while the clock is not known to be right.

use super::RecorderError;
use crate::base::{ChannelId, WallStamp};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Recordings do not become older than this.
    pub age: Duration,
    /// Recordings together do not take more bytes than this.
    pub bytes: u64,
}

/// The recordings of a box.
pub struct Shelf {
    dir: PathBuf,
    /// Whole recordings by id, which sorts by time, with their sizes.
    files: BTreeMap<String, u64>,
    bytes: u64,
}

/// A recording that went, and why: `age` or `size`.
pub struct Gone {
    /// Which one.
    pub id: String,
    /// Why.
    pub cause: &'static str,
}

/// The id of a recording: when it began, in UTC, the channel and the burst.
pub(super) fn id_of(utc: &str, channel: Option<&ChannelId>, burst: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' };
    let time: String = utc.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').collect();
    let channel: String =
        channel.map_or_else(|| "all".into(), |channel| channel.as_str().chars().map(plain).take(64).collect());
    format!("{time}_{channel}_{burst}")
}

/// Where a recording is, below `dir`; nothing if `id` is none.
#[must_use]
pub fn path_of(dir: &Path, id: &str) -> Option<PathBuf> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let day = id.get(..8).filter(|day| day.chars().all(|c| c.is_ascii_digit()))?;
    id.chars().all(plain).then(|| dir.join(day).join(format!("{id}.opus")))
}

impl Shelf {
    /// Looks through a directory, made if need be. Files that were being written when the process or the power ended are
    /// handed back: they are whole up to the last second.
    pub(super) fn open(dir: &Path) -> Result<(Self, Vec<PathBuf>), RecorderError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| RecorderError::Disk { path, source }
        };
        std::fs::create_dir_all(dir).map_err(failed(dir))?;
        let mut shelf = Shelf { dir: dir.to_owned(), files: BTreeMap::new(), bytes: 0 };
        let mut parts = Vec::new();
        for day in std::fs::read_dir(dir).map_err(failed(dir))? {
            let day = day.map_err(failed(dir))?.path();
            if !day.is_dir() {
                continue;
            }
            for file in std::fs::read_dir(&day).map_err(failed(&day))? {
                let file = file.map_err(failed(&day))?;
                let (path, size) = (file.path(), file.metadata().map_or(0, |data| data.len()));
                match (path.extension().and_then(|e| e.to_str()), path.file_stem().and_then(|s| s.to_str())) {
                    (Some("opus"), Some(id)) => shelf.add(id, size),
                    (Some("part"), Some(_)) => parts.push(path),
                    _ => {}
                }
            }
        }
        Ok((shelf, parts))
    }

    /// Where a new recording is to be written, its day's directory made.
    pub(super) fn part_of(&self, id: &str) -> Result<PathBuf, RecorderError> {
        let path = path_of(&self.dir, id).expect("made by id_of").with_extension("opus.part");
        let day = path.parent().expect("below a day");
        std::fs::create_dir_all(day).map_err(|source| RecorderError::Disk { path: day.to_owned(), source })?;
        Ok(path)
    }

    pub(super) fn add(&mut self, id: &str, size: u64) {
        self.bytes += size;
        self.bytes -= self.files.insert(id.to_owned(), size).unwrap_or(0);
    }

    /// Deletes the oldest recordings that are too old or too many.
    pub(super) fn prune(&mut self, keep: &Keep, wall: WallStamp, iso_8601: fn(u64) -> String) -> Vec<Gone> {
        let age = u64::try_from(keep.age.as_millis()).unwrap_or(u64::MAX);
        let before = id_of(&iso_8601(wall.unix_ms.saturating_sub(age)), None, "");
        let mut gone = Vec::new();
        while let Some((id, size)) = self.files.first_key_value() {
            let cause = match (self.bytes > keep.bytes, wall.synchronised && *id < before) {
                (true, _) => "size",
                (false, true) => "age",
                (false, false) => break,
            };
            let (id, size) = (id.clone(), *size);
            let path = path_of(&self.dir, &id).unwrap_or_default();
            if let Err(e) = std::fs::remove_file(&path).or_else(gone_already) {
                tracing::error!("{} cannot be deleted: {e}; recordings take more room than they may", path.display());
                break;
            }
            if let Some(day) = path.parent() {
                std::fs::remove_dir(day).ok(); // fails while there is another recording in it
            }
            self.files.remove(&id);
            self.bytes -= size;
            gone.push(Gone { id, cause });
        }
        gone
    }
}

fn gone_already(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_are_plain_file_names() {
        let id = id_of("2025-06-01T09:30:00.250Z", Some(&"../ops 1/é".into()), "b12");
        assert_eq!(id, "20250601T093000.250Z_---ops-1--_b12");
        let dir = Path::new("/r");
        assert_eq!(path_of(dir, &id).unwrap(), Path::new("/r/20250601/20250601T093000.250Z_---ops-1--_b12.opus"));
        for wrong in ["../../etc/passwd", "20250601/../../x", "2025", "", "20250601\0"] {
            assert_eq!(path_of(dir, wrong), None, "{wrong}");
        }
    }
}
