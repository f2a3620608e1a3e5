//! Damaged database files: moved out of the way, never deleted.

use super::clock;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// Renames an SQLite file with its companions, so that SQLite's tools still find them together, and says where it is.
///
/// # Errors
/// If the system refuses to rename one of them.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let with = |base: &Path, suffix: &str| {
        let mut name: OsString = base.into();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = with(path, &format!(".damaged-{}", clock::unix_ms_now() / 1000));
    for suffix in ["", "-wal", "-shm", "-head"] {
        match std::fs::rename(with(path, suffix), with(&aside, suffix)) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(aside)
}
