//! Another version of the program, and the way back.
//!
//! Decides which package may be tried, when it is kept and when the one before comes back. What touches the system is behind
//! [`System`]. **Invariant:** nothing is installed whose signature was not checked here, but the one that was installed
//! before. **Invariant:** whoever tries a version is the program of the version before, so that a new one that does nothing right
//! comes to nothing. **Invariant:** a try that the power ends is a failed one: the next boot has the version before.

mod debian;
mod journal;
mod signature;
#[cfg(test)]
mod tests;

use super::UpkeepError;
use super::disk::{make_private_directory, remove, swap_in, sync_directory_of, write_whole};
use std::cmp::Ordering;
use std::path::{Path, PathBuf};

pub use debian::{Debian, from_stick};
pub use journal::{Journal, Phase};
pub use signature::key_directories;

const PACKAGE: &str = "crosspatch";

/// What a package says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The machines that it is for.
    pub architecture: String,
}

/// What packages are installed with, and how the gateway is seen to run. Errors are sentences.
pub trait System {
    /// The version that is installed, whole.
    ///
    /// # Errors
    /// If the system does not tell.
    fn installed(&self) -> Result<Option<String>, String>;
    /// What a package file says of itself.
    ///
    /// # Errors
    /// If it is none.
    fn describe(&self, deb: &Path) -> Result<Package, String>;
    /// What this machine is.
    ///
    /// # Errors
    /// If the system does not tell.
    fn architecture(&self) -> Result<String, String>;
    /// Which of two versions is newer.
    ///
    /// # Errors
    /// If the system does not tell.
    fn compare(&self, one: &str, other: &str) -> Result<Ordering, String>;
    /// Packs what is installed into a package file.
    ///
    /// # Errors
    /// If that does not succeed.
    fn pack_installed(&self, to: &Path) -> Result<(), String>;
    /// Installs a package, and starts or stops nothing.
    ///
    /// # Errors
    /// If it is not installed whole.
    fn install(&mut self, deb: &Path) -> Result<(), String>;
    /// Restarts the gateway and waits until it is ready and stays so.
    ///
    /// # Errors
    /// If it does not become ready, or not for long.
    fn becomes_ready(&mut self) -> Result<(), String>;
    /// True if the root is in memory, so that the next boot has forgotten what is installed now.
    fn forgets(&self) -> bool;
}

/// Where things are.
#[derive(Clone, Debug)]
pub struct Store {
    /// A directory that only root enters: the journal, the packages, the program that tries them.
    pub dir: PathBuf,
    /// Where the package is kept that is installed at every boot of a root that forgets.
    pub kept: PathBuf,
    /// Directories of public keys.
    pub keys: Vec<PathBuf>,
}

impl Store {
    /// The package that is tried, or was last.
    fn new_deb(&self) -> PathBuf {
        self.dir.join("new.deb")
    }

    /// The one before.
    fn old_deb(&self) -> PathBuf {
        self.dir.join("old.deb")
    }

    /// The program that tries the new one.
    #[must_use]
    pub fn rescue(&self) -> PathBuf {
        self.dir.join("rescue")
    }

    fn kept_deb(&self) -> PathBuf {
        self.kept.join("current/crosspatch.deb")
    }
}

fn refused(why: String) -> UpkeepError {
    UpkeepError::Refused(why)
}

/// The signature that goes with a package.
fn signature_of(deb: &Path) -> PathBuf {
    let mut name = deb.as_os_str().to_owned();
    name.push(".minisig");
    name.into()
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There was nothing to do.
    Nothing,
    /// This version runs.
    Runs(String),
    /// The version before runs again.
    Returned {
        /// Which one.
        to: String,
        /// Why.
        why: String,
    },
    /// Neither the new version nor the one before became ready.
    Stuck {
        /// Why.
        why: String,
    },
}

/// Takes a package for the next try, after everything about it was checked. `downgrade` allows an older version.
///
/// # Errors
/// If it is refused. Then nothing is changed.
pub fn prepare(system: &impl System, store: &Store, deb: &Path, downgrade: bool) -> Result<Phase, UpkeepError> {
    let bytes = std::fs::read(deb).map_err(UpkeepError::at(deb))?;
    let signature = std::fs::read_to_string(signature_of(deb)).map_err(|_| {
        refused(format!(
            "{} is missing; a package is taken only with its signature beside it",
            signature_of(deb).display()
        ))
    })?;
    signature::verify(&bytes, &signature, &store.keys).map_err(|why| refused(format!("{}: {why}", deb.display())))?;
    let old = system.installed().map_err(refused)?;
    let old =
        old.ok_or_else(|| refused("no crosspatch package is installed here; install one with apt first".into()))?;
    let journal = Journal::read(&store.dir)?;
    if journal.phase.is_some() {
        return Err(refused("another update runs; `crosspatch update --status` says how far it is".into()));
    }
    make_private_directory(&store.dir)?;
    // What was checked is what is looked at and installed, whatever happens to the file that it came from.
    let candidate = store.dir.join("candidate.deb");
    write_whole(&candidate, &bytes, 0o600)?;
    write_whole(&signature_of(&candidate), signature.as_bytes(), 0o600)?;
    let new = match system.describe(&candidate).and_then(|package| fits(system, &package, &old, downgrade)) {
        Ok(version) => version,
        Err(why) => {
            remove(&candidate)?;
            remove(&signature_of(&candidate))?;
            return Err(refused(format!("{}: {why}", deb.display())));
        }
    };
    way_back(system, store, &old)?;
    rename_with_signature(&candidate, &store.new_deb())?;
    let phase = Phase::Trying { new, old };
    Journal { phase: Some(phase.clone()), ..journal }.write(&store.dir)?;
    Ok(phase)
}

/// Whether a package is for this machine and an update, and its version.
fn fits(system: &impl System, package: &Package, old: &str, downgrade: bool) -> Result<String, String> {
    let Package { name, version, architecture } = package;
    if name != PACKAGE {
        return Err(format!("this is a package of '{name}', not of {PACKAGE}"));
    }
    let machine = system.architecture()?;
    if *architecture != machine && architecture != "all" {
        return Err(format!(
            "this package is for {architecture}, and the box is {machine}; take the one for {machine}"
        ));
    }
    match system.compare(version, old)? {
        Ordering::Equal => Err(format!("version {version} is installed already")),
        Ordering::Less if !downgrade => Err(format!(
            "version {version} is older than {old}, which is installed; an older one may not read what a newer one has stored: take a \
             backup, then use --downgrade"
        )),
        Ordering::Less | Ordering::Greater => Ok(version.clone()),
    }
}

/// Sees to it that the installed version is there as a package.
fn way_back(system: &impl System, store: &Store, installed: &str) -> Result<(), UpkeepError> {
    let is_it = |deb: &Path| system.describe(deb).is_ok_and(|package| package.version == installed);
    if is_it(&store.old_deb()) {
        return Ok(());
    }
    if is_it(&store.new_deb()) {
        return rename_with_signature(&store.new_deb(), &store.old_deb());
    }
    let kept = store.kept_deb();
    remove(&signature_of(&store.old_deb()))?;
    if let Ok(bytes) = checked(&kept, store)
        && is_it(&kept)
    {
        write_whole(&store.old_deb(), &bytes, 0o600)?;
        let signature = std::fs::read(signature_of(&kept)).map_err(UpkeepError::at(&kept))?;
        return write_whole(&signature_of(&store.old_deb()), &signature, 0o600);
    }
    system.pack_installed(&store.old_deb()).map_err(|why| {
        refused(format!(
            "there would be no way back, so nothing is changed: the installed version cannot be packed: {why}"
        ))
    })
}

/// Moves a package with its signature, if it has one.
fn rename_with_signature(from: &Path, to: &Path) -> Result<(), UpkeepError> {
    remove(&signature_of(to))?;
    std::fs::rename(from, to).map_err(UpkeepError::at(to))?;
    if signature_of(from).exists() {
        std::fs::rename(signature_of(from), signature_of(to)).map_err(UpkeepError::at(to))?;
    }
    sync_directory_of(to)
}

/// The bytes of a kept package, if its signature is good. Whoever could write there could have replaced it.
fn checked(deb: &Path, store: &Store) -> Result<Vec<u8>, UpkeepError> {
    let bytes = std::fs::read(deb).map_err(UpkeepError::at(deb))?;
    let signature = std::fs::read_to_string(signature_of(deb)).map_err(UpkeepError::at(deb))?;
    signature::verify(&bytes, &signature, &store.keys).map_err(refused)?;
    Ok(bytes)
}

/// Takes the version before for the next try.
///
/// # Errors
/// If there is none.
pub fn prepare_back(system: &impl System, store: &Store) -> Result<Phase, UpkeepError> {
    let journal = Journal::read(&store.dir)?;
    if journal.phase.is_some() {
        return Err(refused("another update runs; `crosspatch update --status` says how far it is".into()));
    }
    let installed = system.installed().map_err(refused)?.unwrap_or_default();
    let (old, new) = (system.describe(&store.old_deb()), system.describe(&store.new_deb()));
    let (Ok(old), Ok(new)) = (old, new) else {
        return Err(refused(
            "no version before is kept; install one with: crosspatch update --downgrade FILE.deb".into(),
        ));
    };
    if old.version == installed || new.version != installed {
        return Err(refused(
            "no version before the installed one is kept; install one with --downgrade FILE.deb".into(),
        ));
    }
    let aside = store.dir.join("aside.deb");
    rename_with_signature(&store.old_deb(), &aside)?;
    rename_with_signature(&store.new_deb(), &store.old_deb())?;
    rename_with_signature(&aside, &store.new_deb())?;
    let phase = Phase::Trying { new: old.version, old: installed };
    Journal { phase: Some(phase.clone()), ..journal }.write(&store.dir)?;
    Ok(phase)
}

/// Installs what was prepared, and the version before again if it does not become ready.
///
/// # Errors
/// If the journal cannot be written.
pub fn carry_out(system: &mut impl System, store: &Store) -> Result<Outcome, UpkeepError> {
    let journal = Journal::read(&store.dir)?;
    let Some(Phase::Trying { new, old }) = journal.phase else { return Ok(Outcome::Nothing) };
    let tried = system
        .install(&store.new_deb())
        .map_err(|why| format!("version {new} cannot be installed: {why}"))
        .and_then(|()| system.becomes_ready().map_err(|why| format!("version {new} did not become ready: {why}")));
    let outcome = match tried.and_then(|()| keep(system, store).map_err(|e| e.to_string())) {
        Ok(()) => Outcome::Runs(new),
        Err(why) => {
            Journal { phase: Some(Phase::Returning { to: old.clone(), why: why.clone() }), last: None }
                .write(&store.dir)?;
            let returned = system.install(&store.old_deb()).and_then(|()| system.becomes_ready());
            match returned {
                Ok(()) => Outcome::Returned { to: old, why },
                Err(also) => Outcome::Stuck { why: format!("{why}; and version {old} again: {also}") },
            }
        }
    };
    Journal { phase: None, last: Some(outcome.in_words()) }.write(&store.dir)?;
    remove(&store.rescue())?;
    Ok(outcome)
}

/// Has the next boot of a root that forgets install the package that runs now.
fn keep(system: &impl System, store: &Store) -> Result<(), UpkeepError> {
    if !system.forgets() {
        return Ok(());
    }
    let (part, current) = (store.kept.join("part"), store.kept.join("current"));
    if part.exists() {
        std::fs::remove_dir_all(&part).map_err(UpkeepError::at(&part))?;
    }
    // One that was packed from what was installed is the one that the root has anyway.
    let Ok(signature) = std::fs::read(signature_of(&store.new_deb())) else {
        if current.exists() {
            std::fs::rename(&current, &part).map_err(UpkeepError::at(&current))?;
        }
        return Ok(());
    };
    let bytes = std::fs::read(store.new_deb()).map_err(UpkeepError::at(&store.dir))?;
    make_private_directory(&part)?;
    let deb = part.join("crosspatch.deb");
    write_whole(&deb, &bytes, 0o600)?;
    write_whole(&signature_of(&deb), &signature, 0o600)?;
    swap_in(&part, &current)
}

/// At boot, before the gateway starts: ends a try that the power has ended, and gives a root that forgets its version.
///
/// # Errors
/// If the version that should be there is not.
pub fn resume(system: &mut impl System, store: &Store) -> Result<Outcome, UpkeepError> {
    let journal = Journal::read(&store.dir)?;
    if let Some(Phase::Trying { old: to, .. } | Phase::Returning { to, .. }) = &journal.phase {
        let why = match &journal.phase {
            Some(Phase::Returning { why, .. }) => why.clone(),
            Some(Phase::Trying { new, .. }) => format!("the power went before version {new} was ready"),
            None => String::new(),
        };
        if system.installed().ok().flatten().as_ref() != Some(to) {
            system.install(&store.old_deb()).map_err(refused)?;
        }
        let outcome = Outcome::Returned { to: to.clone(), why };
        Journal { phase: None, last: Some(outcome.in_words()) }.write(&store.dir)?;
        remove(&store.rescue())?;
        return Ok(outcome);
    }
    let kept = store.kept_deb();
    if !system.forgets() || !kept.exists() {
        return Ok(Outcome::Nothing);
    }
    let bytes = checked(&kept, store)?;
    make_private_directory(&store.dir)?;
    write_whole(&store.new_deb(), &bytes, 0o600)?;
    let signature = std::fs::read(signature_of(&kept)).map_err(UpkeepError::at(&kept))?;
    write_whole(&signature_of(&store.new_deb()), &signature, 0o600)?;
    let version = system.describe(&store.new_deb()).map_err(refused)?.version;
    if system.installed().map_err(refused)?.as_ref() == Some(&version) {
        return Ok(Outcome::Nothing);
    }
    system.install(&store.new_deb()).map_err(refused)?;
    Ok(Outcome::Runs(version))
}

/// The newest package of a directory that is signed and for this machine.
///
/// # Errors
/// If there is none.
pub fn newest_in(system: &impl System, store: &Store, dir: &Path) -> Result<PathBuf, UpkeepError> {
    let machine = system.architecture().map_err(refused)?;
    let mut best: Option<(PathBuf, String)> = None;
    for entry in std::fs::read_dir(dir).map_err(UpkeepError::at(dir))?.flatten() {
        let path = entry.path();
        let is_deb = path.extension().is_some_and(|e| e == "deb") && checked(&path, store).is_ok();
        let Some(package) = is_deb.then(|| system.describe(&path).ok()).flatten() else { continue };
        let is_newer = match &best {
            Some((_, version)) => system.compare(&package.version, version).map_err(refused)? == Ordering::Greater,
            None => true,
        };
        if package.name == PACKAGE && package.architecture == machine && is_newer {
            best = Some((path, package.version));
        }
    }
    let none = || refused(format!("there is no signed package of {PACKAGE} for {machine} in {}", dir.display()));
    best.map(|(path, _)| path).ok_or_else(none)
}

impl Outcome {
    /// For people.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Outcome::Nothing => "There was nothing to do.".into(),
            Outcome::Runs(version) => format!("Version {version} runs."),
            Outcome::Returned { to, why } => format!("Version {to} is back: {why}."),
            Outcome::Stuck { why } => format!("The gateway is not ready: {why}. See: journalctl -u crosspatch"),
        }
    }
}
