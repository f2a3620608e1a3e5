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
use super::disk::{as_owner_of, make_private_directory, remove, swap_in, sync_directory_of, write_whole};
use crate::gateway::{in_memory, site};
use std::cmp::Ordering;
use std::path::{Path, PathBuf};

pub use debian::{Debian, from_stick};
pub use journal::{Journal, Phase};
pub use signature::key_directories;

const PACKAGE: &str = "crosspatch";
/// Where the image of a box, whose root forgets, has its root as it is on the card, and so at every boot.
const ROOT_ON_CARD: &str = "/run/root/ro";

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
    /// The version that a root that forgets has by itself.
    ///
    /// # Errors
    /// If the system does not tell.
    fn own(&self) -> Result<Option<String>, String>;
    /// Packs that version into a package file.
    ///
    /// # Errors
    /// If that does not succeed.
    fn pack_own(&self, to: &Path) -> Result<(), String>;
}

/// Where things are.
#[derive(Clone, Debug)]
pub struct Store {
    /// A directory that only root enters: the packages, the program that tries them, and the journal of a root that does not
    /// forget. A root that forgets has forgotten it at the next boot.
    pub dir: PathBuf,
    /// In the gateway's state: where a root that forgets keeps its journal, the package that it is given at every boot, and the
    /// one before.
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

    /// The package that a root that forgets is given at every boot.
    fn kept_deb(&self) -> PathBuf {
        self.kept.join("current/crosspatch.deb")
    }

    /// The one that it was given before.
    fn before_deb(&self) -> PathBuf {
        self.kept.join("before/crosspatch.deb")
    }

    /// How far an update is, and what came of the last one.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn journal(&self, system: &impl System) -> Result<Journal, UpkeepError> {
        Journal::read(if system.forgets() { &self.kept } else { &self.dir })
    }

    fn note(&self, system: &impl System, journal: &Journal) -> Result<(), UpkeepError> {
        if !system.forgets() {
            return journal.write(&self.dir);
        }
        self.in_state(|| make_private_directory(&self.kept).and_then(|()| journal.write(&self.kept)))
    }

    /// Has the gateway say, from its next start on, why this boot has not installed what is kept; or that it has.
    fn tell(&self, not_given: Option<&str>) -> Result<(), UpkeepError> {
        // Cards wear out.
        if site::not_given(self.state_dir()).as_deref() == not_given {
            return Ok(());
        }
        let path = self.state_dir().join(site::NOT_GIVEN);
        self.in_state(|| match not_given {
            Some(why) => write_whole(&path, why.as_bytes(), 0o600),
            None => remove(&path),
        })
    }

    fn state_dir(&self) -> &Path {
        self.kept.parent().unwrap_or(Path::new("."))
    }

    /// Writes what is kept in the gateway's state as the gateway's user, who could have laid a link there.
    fn in_state(&self, write: impl FnOnce() -> Result<(), UpkeepError>) -> Result<(), UpkeepError> {
        as_owner_of(self.state_dir(), write)
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

/// Where the version of a kept package stands beside it.
fn version_beside(deb: &Path) -> PathBuf {
    deb.with_file_name("version")
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
    let journal = idle(system, store)?;
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
    store.note(system, &Journal { phase: Some(phase.clone()), ..journal })?;
    Ok(phase)
}

/// The journal, if no update runs.
fn idle(system: &impl System, store: &Store) -> Result<Journal, UpkeepError> {
    let journal = store.journal(system)?;
    if journal.phase.is_some() {
        return Err(refused("another update runs; `crosspatch update --status` says how far it is".into()));
    }
    Ok(journal)
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
    if take_checked(&store.kept_deb(), &store.old_deb(), store).is_ok() && is_it(&store.old_deb()) {
        return Ok(());
    }
    remove(&signature_of(&store.old_deb()))?;
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

/// The bytes of a package and its signature, if that is good. Whoever could write there could have replaced it.
fn checked(deb: &Path, store: &Store) -> Result<(Vec<u8>, String), UpkeepError> {
    let bytes = std::fs::read(deb).map_err(UpkeepError::at(deb))?;
    let signature = std::fs::read_to_string(signature_of(deb)).map_err(UpkeepError::at(deb))?;
    signature::verify(&bytes, &signature, &store.keys).map_err(refused)?;
    Ok((bytes, signature))
}

/// Copies a package with its signature to where only root writes, if the signature is good.
fn take_checked(from: &Path, to: &Path, store: &Store) -> Result<(), UpkeepError> {
    let (bytes, signature) = checked(from, store)?;
    write_whole(to, &bytes, 0o600)?;
    write_whole(&signature_of(to), signature.as_bytes(), 0o600)
}

/// Takes the version before for the next try.
///
/// # Errors
/// If there is none.
pub fn prepare_back(system: &impl System, store: &Store) -> Result<Phase, UpkeepError> {
    let journal = idle(system, store)?;
    let installed = system.installed().map_err(refused)?.unwrap_or_default();
    if system.forgets() {
        recall(system, store, &installed)?;
    }
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
    store.note(system, &Journal { phase: Some(phase.clone()), ..journal })?;
    Ok(phase)
}

/// After a boot a root that forgets has its packages anew: the installed one, and the one before if there was one. That is the
/// kept one before, or the root's own.
fn recall(system: &impl System, store: &Store, installed: &str) -> Result<(), UpkeepError> {
    let (old, new) = (store.old_deb(), store.new_deb());
    let version = |deb: &Path| system.describe(deb).map(|package| package.version).unwrap_or_default();
    if old.exists() && version(&old) != installed && version(&new) == installed {
        return Ok(());
    }
    make_private_directory(&store.dir)?;
    way_back(system, store, installed)?;
    rename_with_signature(&old, &new)?;
    if take_checked(&store.before_deb(), &old, store).is_ok() && version(&old) != installed {
        return Ok(());
    }
    remove(&old)?;
    remove(&signature_of(&old))?;
    if system.own().map_err(refused)?.is_some_and(|own| own != installed) {
        system.pack_own(&old).map_err(refused)?;
    }
    Ok(())
}

/// Installs what was prepared, and the version before again if it does not become ready.
///
/// # Errors
/// If the journal cannot be written.
pub fn carry_out(system: &mut impl System, store: &Store) -> Result<Outcome, UpkeepError> {
    let journal = store.journal(system)?;
    let Some(Phase::Trying { new, old }) = journal.phase else { return Ok(Outcome::Nothing) };
    let not_given = site::not_given(store.state_dir());
    store.tell(None)?; // whatever runs after this was not given by a boot
    let tried = system
        .install(&store.new_deb())
        .map_err(|why| format!("version {new} cannot be installed: {why}"))
        .and_then(|()| system.becomes_ready().map_err(|why| format!("version {new} did not become ready: {why}")));
    let outcome = match tried.and_then(|()| keep(system, store, &new).map_err(|e| e.to_string())) {
        Ok(()) => Outcome::Runs(new),
        Err(why) => {
            let phase = Some(Phase::Returning { to: old.clone(), why: why.clone() });
            store.note(system, &Journal { phase, last: None })?;
            store.tell(not_given.as_deref())?;
            let returned = system.install(&store.old_deb()).and_then(|()| system.becomes_ready());
            match returned {
                Ok(()) => Outcome::Returned { to: old, why },
                Err(also) => Outcome::Stuck { why: format!("{why}; and version {old} again: {also}") },
            }
        }
    };
    store.note(system, &Journal { phase: None, last: Some(outcome.in_words()) })?;
    remove(&store.rescue())?;
    Ok(outcome)
}

/// Has the next boot of a root that forgets install the package that runs now. The one before is kept beside it.
fn keep(system: &impl System, store: &Store, version: &str) -> Result<(), UpkeepError> {
    if !system.forgets() {
        return Ok(());
    }
    let bytes = std::fs::read(store.new_deb()).map_err(UpkeepError::at(&store.dir))?;
    // One without a signature was packed from what the root has anyway.
    let signature = std::fs::read(signature_of(&store.new_deb())).ok();
    let at = |name: &str| store.kept.join(name);
    let (part, current, before) = (at("part"), at("current"), at("before"));
    store.in_state(|| {
        remove_all(&part)?;
        match signature {
            Some(signature) => {
                make_private_directory(&part)?;
                let deb = part.join("crosspatch.deb");
                write_whole(&deb, &bytes, 0o600)?;
                write_whole(&signature_of(&deb), &signature, 0o600)?;
                write_whole(&version_beside(&deb), version.as_bytes(), 0o600)?;
                // What was kept until now has the other's name afterwards.
                swap_in(&part, &current)?;
            }
            None if current.exists() => std::fs::rename(&current, &part).map_err(UpkeepError::at(&current))?,
            None => {}
        }
        remove_all(&before)?;
        if part.exists() {
            std::fs::rename(&part, &before).map_err(UpkeepError::at(&before))?;
        }
        if store.kept.exists() { sync_directory_of(&before) } else { Ok(()) }
    })
}

fn remove_all(dir: &Path) -> Result<(), UpkeepError> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(UpkeepError::at(dir)(e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// At boot, before the gateway starts: ends a try that the power has ended, and gives a root that forgets its version.
///
/// # Errors
/// If the version that should be there is not.
pub fn resume(system: &mut impl System, store: &Store) -> Result<Outcome, UpkeepError> {
    let read = store.journal(system);
    // Words that were lost keep no version from being given, nor the next update from being noted.
    let lost = read.is_err();
    let journal = if system.forgets() { read.unwrap_or_default() } else { read? };
    if let Some(Phase::Trying { old: to, .. } | Phase::Returning { to, .. }) = &journal.phase
        && (!system.forgets() || store.old_deb().exists())
    {
        let outcome = Outcome::Returned { to: to.clone(), why: ended(&journal) };
        if system.installed().ok().flatten().as_ref() != Some(to) {
            system.install(&store.old_deb()).map_err(refused)?;
        }
        store.note(system, &Journal { phase: None, last: Some(outcome.in_words()) })?;
        remove(&store.rescue())?;
        return Ok(outcome);
    }
    if !system.forgets() {
        return Ok(Outcome::Nothing);
    }
    let given = give(system, store);
    let installed = system.installed().map_err(refused)?.unwrap_or_default();
    let outcome = match &journal.phase {
        Some(Phase::Trying { new, .. }) if *new == installed => Outcome::Runs(installed.clone()), // it was kept already
        Some(_) => Outcome::Returned { to: installed.clone(), why: ended(&journal) },
        None if given == Ok(true) => Outcome::Runs(installed.clone()),
        None => Outcome::Nothing,
    };
    let last = journal.phase.as_ref().map(|_| outcome.in_words()).or_else(|| journal.last.clone());
    let now = Journal { phase: None, last };
    // Cards wear out.
    let noted = if now == journal && !lost { Ok(()) } else { store.note(system, &now) };
    let told = store.tell(given.as_ref().err().map(|why| not_given(why)).as_deref());
    match given {
        Err(why) => Err(refused(format!("{}; version {installed} is installed", not_given(&why)))),
        Ok(_) => noted.and(told).map(|()| outcome),
    }
}

/// Why a try ended that is not going on any more.
fn ended(journal: &Journal) -> String {
    match &journal.phase {
        Some(Phase::Returning { why, .. }) => why.clone(),
        Some(Phase::Trying { new, .. }) => format!("the power went before version {new} was ready"),
        None => String::new(),
    }
}

fn not_given(why: &str) -> String {
    format!(
        "the version that is kept on the data partition was not installed at this boot: {why}; bring it anew with: crosspatch update FILE.deb"
    )
}

/// Gives a root that forgets the version that is kept for it. True if it was not there yet.
fn give(system: &mut impl System, store: &Store) -> Result<bool, String> {
    let kept = store.kept_deb();
    if !kept.exists() {
        return Ok(false);
    }
    let installed = system.installed()?;
    // Nobody vouches for these words; but where nothing is to be installed, nothing need be checked.
    if installed.is_some() && std::fs::read_to_string(version_beside(&kept)).ok() == installed {
        return Ok(false);
    }
    let in_words = |e: UpkeepError| e.to_string();
    make_private_directory(&store.dir).map_err(in_words)?;
    take_checked(&kept, &store.new_deb(), store).map_err(in_words)?;
    let version = system.describe(&store.new_deb())?.version;
    if installed.as_ref() == Some(&version) {
        return Ok(false);
    }
    // Whoever ends this half-way has it said; a disk that takes no words keeps no version from being given.
    store.tell(Some(&not_given("installing it did not end, see journalctl -u crosspatch-update"))).ok();
    let Err(why) = system.install(&store.new_deb()) else { return Ok(true) };
    // Half of a version is worse than the one that the root has by itself.
    let old = store.old_deb();
    let back = system.pack_own(&old).and_then(|()| system.install(&old));
    Err(back.err().map_or(why.clone(), |also| format!("{why}; and the root's own again: {also}")))
}

/// What is installed, what came of the last update, and what the next boot starts: a sentence each.
///
/// # Errors
/// If the journal cannot be read.
pub fn standing(system: &impl System, store: &Store) -> Result<Vec<String>, UpkeepError> {
    let journal = store.journal(system)?;
    let installed = system.installed().map_err(refused)?;
    let mut said = vec![match &installed {
        Some(version) => format!("Version {version} is installed."),
        None => "No version is installed whole.".into(),
    }];
    said.push(journal.last.map_or("There was no update yet.".into(), |last| format!("The last update: {last}")));
    said.extend(site::not_given(store.state_dir()).map(|why| format!("But {why}.")));
    said.extend(journal.phase.map(|phase| match phase {
        Phase::Trying { new, old } => format!("Version {new} is being tried; version {old} comes back if it fails."),
        Phase::Returning { to, why } => format!("Version {to} is coming back: {why}."),
    }));
    said.extend(next_boot(system, store));
    Ok(said)
}

/// What the next boot of a root that forgets starts, and why something else if not what is installed.
#[must_use]
pub fn next_boot(system: &impl System, store: &Store) -> Option<String> {
    if !system.forgets() {
        return None;
    }
    let installed = system.installed().ok().flatten().unwrap_or_default();
    if let Some(why) = store.kept.parent().and_then(in_memory) {
        return Some(format!("What is kept for the next boot is not known: {why}."));
    }
    let own = || system.own().ok().flatten().unwrap_or_default();
    let kept = store.kept_deb();
    if !kept.exists() {
        return Some(match own() {
            own if own == installed => "It is the one that the card has by itself.".into(),
            own => format!("The next boot starts version {own}, which the card has by itself."),
        });
    }
    Some(match checked(&kept, store).map(|_| system.describe(&kept)) {
        Ok(Ok(package)) if package.version == installed => {
            "It is kept on the data partition and installed anew at every boot.".into()
        }
        Ok(Ok(package)) => {
            format!("The next boot installs version {}, which is kept on the data partition.", package.version)
        }
        Ok(Err(why)) => format!("The next boot starts version {}: what is kept is no package: {why}.", own()),
        Err(why) => format!("The next boot starts version {}: the kept one is not taken: {why}.", own()),
    })
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
            // What systemd says ends with a full stop already.
            Outcome::Returned { to, why } => format!("Version {to} is back: {}.", why.trim_end_matches('.')),
            Outcome::Stuck { why } => format!("The gateway is not ready: {why}. See: journalctl -u crosspatch"),
        }
    }
}
