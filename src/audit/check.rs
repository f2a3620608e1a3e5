//! The whole check of a file, beside the running gateway: every page of it, then every record and every checkpoint.
//!
//! It takes seconds for a million records, on a slow card many: the start does not wait for it, and only looks at the
//! end of the chain itself. Reads only; what is done about a fault is the writer's business.

use super::verify::{self, Trust};
use super::{AuditError, lock, store};
use rusqlite::InterruptHandle;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What is wrong with the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It cannot be read from end to end.
    Damage,
    /// It can, and is not what was written.
    Broken(String),
}

/// A check that runs.
pub(super) struct Check {
    stop: Arc<Stop>,
    thread: JoinHandle<()>,
}

/// How a check is ended before its time.
#[derive(Default)]
struct Stop {
    wanted: AtomicBool,
    interrupt: Mutex<Option<InterruptHandle>>,
}

impl Check {
    /// Starts to check; `tell` is called with the first fault, on the check's thread.
    pub(super) fn start(path: &Path, tell: impl FnOnce(Found) + Send + 'static) -> std::io::Result<Self> {
        let (stop, path) = (Arc::new(Stop::default()), path.to_owned());
        let stopped = Arc::clone(&stop);
        let run = move || match stopped.check(&path) {
            Ok(Some(found)) => tell(found),
            Ok(None) => {}
            Err(e) => tracing::error!("the whole audit could not be checked: {e}; do it with: crosspatch audit verify"),
        };
        let thread = std::thread::Builder::new().name("audit check".to_owned()).spawn(run)?;
        Ok(Check { stop, thread })
    }

    /// Ends it and waits until it has let go of the file.
    pub(super) fn end(self) {
        self.stop.wanted.store(true, Ordering::Relaxed);
        if let Some(interrupt) = lock(&self.stop.interrupt).as_ref() {
            interrupt.interrupt();
        }
        if self.thread.join().is_err() {
            tracing::error!("the audit's check panicked; report this as a fault of the program");
        }
    }
}

impl Stop {
    fn check(&self, path: &PathBuf) -> Result<Option<Found>, AuditError> {
        let failed = |source| AuditError::Store { path: path.to_owned(), source };
        let db = store::read_only(path).map_err(failed)?;
        *lock(&self.interrupt) = Some(db.get_interrupt_handle());
        let goes_on = || !self.wanted.load(Ordering::Relaxed);
        let found = match store::is_sound(&db) {
            Ok(false) => Ok(Some(Found::Damage)),
            Ok(true) => verify::verify_in(&db, path, &Trust::default(), &goes_on)
                .map(|verdict| verdict.broken.map(|broken| Found::Broken(broken.why))),
            Err(error) => Err(error),
        };
        match found {
            _ if !goes_on() => Ok(None),
            Err(error) if store::is_damage(&error) => Ok(Some(Found::Damage)),
            found => found.map_err(failed),
        }
    }
}
