//! All of what makes a box this box, in one file, and back.
//!
//! That is its configuration, its people, added channels and bans, the secret that signs tokens and the authority that phones
//! trust. Not the audit and the recordings, which stay where they were made. A restore is prepared beside what there is, looked at as the gateway would,
//! and then put in its place name by name; whoever starts the box next finishes one that the power has ended.

use super::apply::{APPLIED, FILE, LINKS, Places, beside, lock};
use super::disk::{
    as_owner_of, give_to_owner_of, make_private_directory, on_card, remove, sync_directory_of, write_whole,
};
use super::parcel::{Files, Label, pack, unpack};
use super::{UpkeepError, parcel::ParcelError};
use crate::audit;
use crate::base::clock::unix_ms_now;
use crate::gateway::config::Config;
use crate::net::addresses::host_name;
use crate::net::authority::Authority;
use crate::net::token::Tokens;
use crate::people::{self, Store};
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// What belongs to the state, besides people, by its path there.
const SECRETS: [&str; 4] = ["token.secret", "tls/ca.pem", "tls/ca-key.pem", "tls/server.pem"];
const PEOPLE: &str = "people.sqlite";
/// Where a restore is prepared, and its name once everything in it was looked at.
const PART: &str = "restore.part";
const READY: &str = "restore.ready";
/// What was there before the last restore.
pub const BEFORE: &str = "before-restore.backup";

impl From<ParcelError> for UpkeepError {
    fn from(e: ParcelError) -> Self {
        UpkeepError::Refused(e.to_string())
    }
}

/// A backup of the box; the gateway may run.
///
/// # Errors
/// If anything of it cannot be read.
pub fn take(places: &Places, passphrase: Option<&str>) -> Result<(Label, Vec<u8>), UpkeepError> {
    let mut files = as_owner_of(&places.state_dir, || of_state(&places.state_dir))?;
    let good = places.good().join(FILE);
    let kept = as_owner_of(&places.state_dir, || Ok(std::fs::read(&good).is_ok()))?;
    let config_file = if kept { &good } else { &places.config };
    let config = as_owner_of(&places.state_dir, || of_config(config_file, &mut files))?;
    let label = Label {
        made: audit::iso_8601(unix_ms_now()),
        program: format!("crosspatch {}", env!("CARGO_PKG_VERSION")),
        host: host_name().unwrap_or_default(),
        event: config.event.id,
        provisioned: kept,
    };
    let bytes = pack(&label, &files, passphrase)?;
    Ok((label, bytes))
}

fn of_state(state_dir: &Path) -> Result<Files, UpkeepError> {
    let mut files = Files::new();
    for name in SECRETS {
        let path = state_dir.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => drop(files.insert(format!("state/{name}"), bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(UpkeepError::at(&path)(e)),
        }
    }
    let people = state_dir.join(PEOPLE);
    if people.exists() {
        let copy = state_dir.join("people.copy");
        remove(&copy)?;
        let copied = people::copy(&people, &copy).map_err(|e| UpkeepError::Refused(e.to_string()));
        let bytes = copied.and_then(|()| std::fs::read(&copy).map_err(UpkeepError::at(&copy)));
        remove(&copy)?;
        files.insert(format!("state/{PEOPLE}"), bytes?);
    }
    Ok(files)
}

fn of_config(file: &Path, files: &mut Files) -> Result<Config, UpkeepError> {
    let config = Config::read(file).map_err(|e| UpkeepError::Written(e.0))?;
    for path in std::iter::once(file.to_owned()).chain(beside(&config, file.parent().unwrap_or(Path::new("")))) {
        let bytes = std::fs::read(&path).map_err(UpkeepError::at(&path))?;
        let name = if path == file { FILE.into() } else { path.file_name().unwrap_or_default().to_string_lossy() };
        files.insert(format!("config/{name}"), bytes);
    }
    Ok(config)
}

/// Puts a backup in the place of what there is, after all of it was looked at. What was there before is in [`BEFORE`].
///
/// # Errors
/// If the gateway runs, or the backup is not good. Then nothing is changed.
pub fn restore(places: &Places, bytes: &[u8], passphrase: Option<&str>) -> Result<Label, UpkeepError> {
    let (label, files) = unpack(bytes, passphrase)?;
    let _lock = as_owner_of(&places.state_dir, || lock(&places.state_dir))?;
    finish(places)?; // an older one, so that what is kept of before is all of one box
    as_owner_of(&places.state_dir, || {
        let part = places.state_dir.join(PART);
        let examined = stage(&part, &label, &files).and_then(|()| examine(&part));
        if examined.is_err() {
            std::fs::remove_dir_all(&part).ok();
        }
        examined
    })?;
    if let Ok((_, before)) = take(places, None) {
        as_owner_of(&places.state_dir, || write_whole(&places.state_dir.join(BEFORE), &before, 0o600))?;
    }
    as_owner_of(&places.state_dir, || {
        let ready = places.state_dir.join(READY);
        std::fs::rename(places.state_dir.join(PART), &ready).map_err(UpkeepError::at(&ready))?;
        sync_directory_of(&ready)
    })?;
    finish(places)?;
    Ok(label)
}

/// Writes the files of a backup into a directory of their own.
fn stage(part: &Path, label: &Label, files: &Files) -> Result<(), UpkeepError> {
    if part.exists() {
        std::fs::remove_dir_all(part).map_err(UpkeepError::at(part))?;
    }
    make_private_directory(part)?;
    if label.provisioned {
        write_whole(&part.join("provisioned"), b"", 0o600)?;
    }
    for (name, bytes) in files {
        let known = match name.split_once('/') {
            Some(("config", name)) => is_plain(name),
            Some(("state", name)) => name == PEOPLE || SECRETS.contains(&name),
            Some(_) | None => false,
        };
        if !known {
            return Err(UpkeepError::Refused(format!("the backup holds '{name}', which this version does not know")));
        }
        let path = part.join(name);
        make_private_directory(path.parent().unwrap_or(part))?;
        write_whole(&path, bytes, 0o600)?;
    }
    Ok(())
}

/// True for a name that stays in its directory.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) && !name.ends_with('/')
}

/// Looks at what was prepared as the gateway will.
fn examine(part: &Path) -> Result<(), UpkeepError> {
    let refused = |why: String| UpkeepError::Refused(format!("the backup is not good: {why}"));
    let (config, state) = (part.join("config"), part.join("state"));
    let config = Config::read(&config.join(FILE)).map_err(|e| refused(e.to_string()))?;
    let people = state.join(PEOPLE);
    if people.exists() {
        let store = Store::open(&people).map_err(|e| refused(e.to_string()))?;
        if store.set_aside.is_some() {
            return Err(refused("its people cannot be read".into()));
        }
        store.read().map_err(|e| refused(e.to_string()))?;
    }
    if state.join("token.secret").exists() {
        Tokens::of_state_dir(&state, &config.event.id).map_err(|e| refused(e.to_string()))?;
    }
    let (certificate, key) = (state.join("tls/ca.pem"), state.join("tls/ca-key.pem"));
    if certificate.exists() != key.exists() {
        return Err(refused("its authority has no key".into()));
    }
    if certificate.exists() {
        Authority::open(&state.join("tls"), &BTreeSet::new()).map_err(|e| refused(e.to_string()))?;
    }
    Ok(())
}

/// Puts what was prepared in its place, name by name. Once more is as good as once.
///
/// # Errors
/// If a file cannot be written; the next start tries again.
pub(super) fn finish(places: &Places) -> Result<(), UpkeepError> {
    let ready = places.state_dir.join(READY);
    if !ready.exists() {
        return Ok(());
    }
    let (files, provisioned) = as_owner_of(&places.state_dir, || prepared(&ready))?;
    as_owner_of(&places.state_dir, || to_state(places, &files, provisioned))?;
    for (name, bytes) in files.iter().filter_map(|(name, bytes)| Some((name.strip_prefix("config/")?, bytes))) {
        let path = if name == FILE { places.config.clone() } else { places.config.with_file_name(name) };
        // What is no TOML may be the key of an own certificate.
        let open = name.ends_with(".toml");
        write_whole(&path, bytes, if open { 0o644 } else { 0o600 })?;
        if !open {
            give_to_owner_of(&places.state_dir, &path)?;
        }
        // Or the next boot would take over what is on the card.
        if places.card.join(FILE).exists() {
            on_card(&places.card, places.is_this_system(), || write_whole(&places.card.join(name), bytes, 0o644))?;
        }
    }
    // Made with the secret and the authority that were here before. The next boot writes what it is to say anew.
    if places.card.join(LINKS).exists() || places.card.join(APPLIED).exists() {
        let remove = || [LINKS, APPLIED].iter().try_for_each(|name| remove(&places.card.join(name)));
        on_card(&places.card, places.is_this_system(), remove)?;
    }
    as_owner_of(&places.state_dir, || {
        std::fs::remove_dir_all(&ready).map_err(UpkeepError::at(&ready))?;
        sync_directory_of(&ready)
    })
}

fn prepared(ready: &Path) -> Result<(Files, bool), UpkeepError> {
    let mut files = Files::new();
    let state = SECRETS.iter().chain([&PEOPLE]).map(|name| format!("state/{name}"));
    let names = std::fs::read_dir(ready.join("config")).map_err(UpkeepError::at(ready))?.flatten();
    let config = names.map(|entry| format!("config/{}", entry.file_name().to_string_lossy()));
    for name in state.chain(config) {
        let path = ready.join(&name);
        match std::fs::read(&path) {
            Ok(bytes) => drop(files.insert(name, bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(UpkeepError::at(&path)(e)),
        }
    }
    Ok((files, ready.join("provisioned").exists()))
}

/// What goes into the state directory. What the backup does not hold is not there afterwards either.
fn to_state(places: &Places, files: &Files, provisioned: bool) -> Result<(), UpkeepError> {
    let put = |path: PathBuf, bytes: Option<&Vec<u8>>| match bytes {
        Some(bytes) => {
            make_private_directory(path.parent().unwrap_or(&places.state_dir))?;
            write_whole(&path, bytes, 0o600)
        }
        None => remove(&path),
    };
    // A log of the other store would be taken for one of this.
    for log in ["people.sqlite-wal", "people.sqlite-shm"] {
        remove(&places.state_dir.join(log))?;
    }
    for name in SECRETS.iter().chain([&PEOPLE]) {
        put(places.state_dir.join(name), files.get(&format!("state/{name}")))?;
    }
    let good = places.good();
    if good.exists() {
        std::fs::remove_dir_all(&good).map_err(UpkeepError::at(&good))?;
    }
    for (name, bytes) in files.iter().filter_map(|(name, bytes)| Some((name.strip_prefix("config/")?, bytes))) {
        if provisioned {
            put(good.join(name), Some(bytes))?;
        }
    }
    Ok(())
}

/// Finishes a restore that was interrupted, before the gateway starts.
///
/// # Errors
/// If the gateway runs or a file cannot be written.
pub fn finish_interrupted(places: &Places) -> Result<(), UpkeepError> {
    if !places.state_dir.join(READY).exists() {
        return Ok(());
    }
    let _lock = as_owner_of(&places.state_dir, || lock(&places.state_dir))?;
    finish(places)
}
