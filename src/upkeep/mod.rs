//! The box around the daemon: what it is given before it starts, what is kept of it, and which version of it runs.
//!
//! Decides what becomes of a file on the card, of a backup, of an update; never what the running gateway does. **Invariant:** nothing
//! of the box is changed before everything that comes from outside was checked. **Invariant:** the power may go at any
//! moment: what is there after that is all of the old or all of the new, or the next boot makes it so.

pub mod apply;
#[cfg(test)]
mod apply_tests;
pub mod backup;
#[cfg(test)]
mod backup_tests;
pub mod cards;
pub(crate) mod disk;
mod network;
mod notes;
pub mod parcel;
mod residents;
pub mod sheet;
pub mod template;
pub mod update;

use std::path::{Path, PathBuf};

/// What goes wrong in keeping a box up.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// A file that a person wrote has errors: one sentence an error, each with its place.
    #[error("{}", .0.join("\n"))]
    Written(Vec<String>),
    /// The gateway has the state directory.
    #[error("the gateway runs; stop it first with: systemctl stop crosspatch")]
    Running,
    /// The disk refuses.
    #[error("{path}: {source}; check that it is there, may be written and has room")]
    Disk {
        /// Which file or directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Something that a sentence says best.
    #[error("{0}")]
    Refused(String),
}

impl UpkeepError {
    /// Names the path that an error of the disk is about.
    fn at(path: &Path) -> impl FnOnce(std::io::Error) -> UpkeepError {
        let path = path.to_owned();
        move |source| UpkeepError::Disk { path, source }
    }
}
