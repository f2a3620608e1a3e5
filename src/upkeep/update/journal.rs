//! How far an update is, on disk: what a boot after a power cut goes by.

use crate::upkeep::UpkeepError;
use crate::upkeep::disk::write_whole;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What is going on. Without one, what is installed is what should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// A new version is being installed, or was and is not ready yet.
    Trying {
        /// It.
        new: String,
        /// The version before.
        old: String,
    },
    /// The version before is being installed again.
    Returning {
        /// It.
        to: String,
        /// Why.
        why: String,
    },
}

/// What is going on and what came of it the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// What is going on.
    pub phase: Option<Phase>,
    /// A sentence about the last update.
    pub last: Option<String>,
}

impl Journal {
    /// What the directory says; nothing is going on where there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(dir: &Path) -> Result<Self, UpkeepError> {
        let path = dir.join("journal.json");
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| UpkeepError::at(&path)(e.into())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Journal::default()),
            Err(e) => Err(UpkeepError::at(&path)(e)),
        }
    }

    /// Writes it in one step.
    pub(super) fn write(&self, dir: &Path) -> Result<(), UpkeepError> {
        let text = serde_json::to_vec(self).expect("it has no keys but words");
        write_whole(&dir.join("journal.json"), &text, 0o600)
    }
}
