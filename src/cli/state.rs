//! Where the gateway keeps its things, and having it noted there what a command does.

use super::client::request;
use super::people::Refused;
use crate::gateway::lock_state_dir;
use crate::gateway::notes::{Hand, Note, lay};
use anyhow::Context;
use axum::http::Method;
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Notes in one request.
const AT_ONCE: usize = 100;

/// Names the state directory.
#[derive(Args)]
pub struct StateDir {
    /// The gateway's state directory.
    #[arg(long = "state-dir", id = "state_dir", value_name = "DIR", default_value = "state", global = true)]
    pub path: PathBuf,
}

impl StateDir {
    /// The audit.
    pub fn audit(&self) -> PathBuf {
        self.path.join("audit.sqlite")
    }

    /// Has it noted what is read, and says so if that cannot be: whoever looks into a box that has failed must be able to.
    pub fn note_reading(&self, how: &str, wanted: serde_json::Value) {
        if !self.audit().exists() {
            return; // there is nothing to read, as whoever reads will say
        }
        let note = Note::Read { how: how.to_owned(), wanted };
        if let Err(e) = have_noted(&self.path, &[note]) {
            eprintln!("crosspatch: that you read this is not in the audit: {e:#}");
        }
    }
}

/// Has it noted what a command does: by the gateway that runs, or in the spool that the next one takes in.
///
/// # Errors
/// If neither is possible: then the command must not do it.
pub fn have_noted(state_dir: &Path, notes: &[Note]) -> anyhow::Result<()> {
    let by = Hand::own();
    let lay = |notes| lay(state_dir, notes, &by).with_context(|| format!("{} cannot be written", state_dir.display()));
    if lock_state_dir(state_dir)?.is_some() {
        return lay(notes);
    }
    for notes in notes.chunks(AT_ONCE) {
        let body = json!({ "notes": notes, "by": by });
        match request(state_dir, &Method::POST, "/api/audit/notes", &body) {
            Ok(noted) => noted.map(drop).map_err(Refused)?,
            Err(e) => {
                eprintln!("crosspatch: {e:#}; what you do is in the audit with the gateway's next start");
                lay(notes)?;
            }
        }
    }
    Ok(())
}
