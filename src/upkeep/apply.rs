//! The step at boot: the file on the card is read, checked, kept, and the system is made of it.
//!
//! The file that was last good is kept with the gateway's state and is the truth: everything else, the configuration in
//! `/etc`, the host name and the network, is made of it anew at every boot, so that it fits a root that forgets. It
//! is replaced in one step. **Invariant:** a file with an error changes nothing. **Invariant:** no failure here keeps the gateway from starting with the last good file.

use super::disk::{as_owner_of, give_to_owner_of, make_private_directory, on_card, remove, swap_in, write_whole};
use super::notes::{applied_note, errors_note};
use super::residents::{fingerprint, links, store_people};
use super::{UpkeepError, backup, network, sheet, template};
use crate::gateway::config::{Config, DEMO};
use crate::gateway::{in_memory, lock_state_dir, reload, site};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The file that people write, on the card and in `/etc`.
pub const FILE: &str = "crosspatch.toml";
/// What is wrong with it, beside it.
pub const ERRORS: &str = "crosspatch-errors.txt";
/// When it was taken over and what changed, beside it.
pub const APPLIED: &str = "crosspatch-applied.txt";
/// A link for each person, beside it.
pub const LINKS: &str = "crosspatch-links.txt";
/// Public keys that vouch for versions, beside it.
const KEYS: &str = "update-keys";

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Places {
    /// The card's FAT partition.
    pub card: PathBuf,
    /// The gateway's configuration.
    pub config: PathBuf,
    /// The gateway's state directory, whose owner is the gateway's user.
    pub state_dir: PathBuf,
    /// The root of the file system; another one in tests.
    pub root: PathBuf,
}

impl Places {
    /// Where the last good file is.
    pub(super) fn good(&self) -> PathBuf {
        self.state_dir.join("provision/good")
    }

    pub(super) fn is_this_system(&self) -> bool {
        self.root == Path::new("/")
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is no file on the card and never was a good one: this box is looked after by other means.
    NotProvisioned,
    /// The system is as the file says, which is what it said before.
    AsBefore,
    /// The file was taken over; what changed, by key and line.
    Applied(Vec<String>),
    /// The file is not there any more: the last good one holds.
    Missing,
    /// The file has errors.
    Refused {
        /// A sentence each.
        errors: Vec<String>,
        /// What the box runs on in its place.
        runs_on: RunsOn,
    },
}

/// What a box with a refused file runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunsOn {
    /// The last good file.
    LastGood,
    /// A configuration in `/etc` that somebody has put there by hand.
    ByHand,
    /// None; its fault lamp says so.
    Nothing,
}

impl RunsOn {
    /// For the note on the card.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            RunsOn::LastGood => "The box runs on the last good file.",
            RunsOn::ByHand => "The box runs on the configuration that was in /etc/crosspatch already.",
            RunsOn::Nothing => "The box has no good configuration yet: only its fault lamp works.",
        }
    }
}

/// What came of it, and what did not work on the way without stopping it.
#[derive(Debug)]
pub struct Report {
    /// What came of it.
    pub outcome: Outcome,
    /// A sentence each.
    pub trouble: Vec<String>,
}

/// A file that was checked, with the files beside it that it names.
struct Sheet {
    config: Config,
    text: String,
    /// Their names and contents: a board profile, an own certificate and its key.
    beside: BTreeMap<String, Vec<u8>>,
}

/// Reads and checks a file as people save it. Errors begin with its name and the line.
///
/// # Errors
/// If anything in it is wrong.
pub fn check(path: &Path) -> Result<Config, UpkeepError> {
    read(path, true).map(|sheet| sheet.config).map_err(UpkeepError::Written)
}

/// Reads and checks a file; its own `certificate` only where the clock can be trusted.
fn read(path: &Path, certificate: bool) -> Result<Sheet, Vec<String>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let bytes = std::fs::read(path).map_err(|e| vec![format!("{name}:1: it cannot be read: {e}")])?;
    let text = sheet::decode(&bytes, &name).map_err(|e| vec![e])?;
    let dir = path.parent().unwrap_or(Path::new(""));
    let config = parse(&text, &name, dir, certificate)?;
    let mut contents = BTreeMap::new();
    for file in beside(&config, dir) {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let whole = std::fs::read(&file).map_err(|e| vec![format!("{FILE}:1: {name} cannot be read: {e}")])?;
        contents.insert(name, whole);
    }
    Ok(Sheet { config, text, beside: contents })
}

/// The files in `dir` that a configuration names: a board profile, an own certificate and its key.
pub(super) fn beside(config: &Config, dir: &Path) -> Vec<PathBuf> {
    let own = [&config.tls.certificate, &config.tls.key].into_iter().flatten().cloned();
    let board = Some(PathBuf::from(&config.board)).filter(|board| board.extension().is_some_and(|e| e == "toml"));
    own.chain(board).filter(|file| file.parent() == Some(dir)).collect()
}

/// Checks text; files that it names are looked for in `dir`.
pub(super) fn parse(text: &str, name: &str, dir: &Path, certificate: bool) -> Result<Config, Vec<String>> {
    Config::parse_in(text, name, dir, certificate).map_err(|e| match sheet::curly_quote(text) {
        Some(line) => vec![format!("{name}:{line}: curly quotation marks; write straight ones, as in name = \"Gate\"")],
        None => e.0,
    })
}

/// Takes over what is on the card, or makes the system anew of the last good file.
///
/// # Errors
/// If the gateway runs. Everything else is in the report.
pub fn apply(places: &Places) -> Result<Report, UpkeepError> {
    let mut trouble = Vec::new();
    let lock = match as_owner_of(&places.state_dir, || lock(&places.state_dir)) {
        Ok(lock) => Some(lock),
        Err(UpkeepError::Running) => return Err(UpkeepError::Running),
        Err(e) => {
            trouble.push(format!("nothing can be kept, neither the last good file nor people: {e}"));
            None
        }
    };
    if lock.is_some() {
        try_to(&mut trouble, backup::finish(places));
    }
    let good = good(places);
    let outcome = match (file_on(&places.card), good) {
        (None, None) => {
            // Without a file nothing is refused; but a box that has nothing else goes on saying so.
            if by_hand(places) {
                try_to(&mut trouble, remove(&places.config.with_file_name(site::REFUSED)));
            }
            Outcome::NotProvisioned
        }
        (None, Some(good)) => {
            make_system(places, &good, &mut trouble);
            try_to(&mut trouble, remove(&places.config.with_file_name(site::REFUSED)));
            Outcome::Missing
        }
        (Some(path), good) => match read(&path, false) {
            Ok(new) => take(places, &new, good.as_ref(), &mut trouble),
            Err(errors) => refuse(places, &path, errors, good.as_ref(), &mut trouble),
        },
    };
    drop(lock);
    Ok(Report { outcome, trouble })
}

/// True if the card, which came after this boot's [`apply`], says something that was not known then: a file that is neither
/// the last good one nor refused already, or a key without which the kept version was not installed.
#[must_use]
pub fn is_news(places: &Places) -> bool {
    let file = file_on(&places.card).is_some_and(|path| match read(&path, false) {
        Ok(new) => is_new(&new, good(places).as_ref()),
        Err(_) => site::refused(&places.config).is_none(),
    });
    let keys = std::fs::read_dir(places.card.join(KEYS)).into_iter().flatten().flatten();
    let has_key = keys.map(|entry| entry.path()).any(|path| path.extension().is_some_and(|e| e == "pub"));
    file || has_key && site::not_given(&places.state_dir).is_some()
}

pub(super) fn lock(state_dir: &Path) -> Result<std::fs::File, UpkeepError> {
    lock_state_dir(state_dir).map_err(|e| UpkeepError::Refused(format!("{e:#}")))?.ok_or(UpkeepError::Running)
}

/// The file on the card. An editor may have added an ending that its owner does not see.
fn file_on(card: &Path) -> Option<PathBuf> {
    [FILE, "crosspatch.toml.txt"].iter().map(|name| card.join(name)).find(|path| path.exists())
}

/// The last good file, if there is one and it still is.
fn good(places: &Places) -> Option<Sheet> {
    read(&places.good().join(FILE), false).ok()
}

fn is_new(new: &Sheet, good: Option<&Sheet>) -> bool {
    good.is_none_or(|good| good.text != new.text || good.beside != new.beside)
}

fn take(places: &Places, new: &Sheet, good: Option<&Sheet>, trouble: &mut Vec<String>) -> Outcome {
    let is_new = is_new(new, good);
    if is_new && places.state_dir.is_dir() {
        // People first: when the power goes between, the next boot takes all of it over once more.
        let kept = as_owner_of(&places.state_dir, || {
            store_people(&places.state_dir, good.map(|g| &g.config), &new.config)?;
            keep(places, new)
        });
        try_to(trouble, kept);
    }
    make_system(places, new, trouble);
    try_to(trouble, remove(&places.config.with_file_name(site::REFUSED)));
    let applied = places.card.join(APPLIED);
    let errors = places.card.join(ERRORS);
    let outcome = if is_new { Outcome::Applied(changes(good, new)) } else { Outcome::AsBefore };
    let mut notes: Vec<(PathBuf, Option<String>)> = Vec::new();
    if let Some(why) = in_memory(&places.state_dir) {
        // What signs links and what phones trust is forgotten with the power: nobody must be told of it.
        trouble.push(format!("neither {APPLIED} nor {LINKS} is written, since they would not hold: {why}"));
    } else if is_new || !applied.exists() {
        let trusted = as_owner_of(&places.state_dir, || fingerprint(&places.state_dir, &new.config));
        let trusted = trusted.unwrap_or_else(|e| {
            trouble.push(format!("what phones are to trust is not known: {e}"));
            None
        });
        if is_new && new.config.site.join_links {
            match as_owner_of(&places.state_dir, || links(&places.state_dir, &new.config, trusted.as_deref())) {
                Ok(text) => notes.push((places.card.join(LINKS), Some(text))),
                Err(e) => trouble.push(format!("the join links cannot be made: {e}")),
            }
        }
        let changed = if let Outcome::Applied(changed) = &outcome { changed.as_slice() } else { &[] };
        notes.push((applied, Some(applied_note(&new.config, trusted.as_deref(), changed, trouble))));
    }
    if errors.exists() {
        notes.push((errors, None));
    }
    write_notes(places, &notes, trouble);
    outcome
}

/// True if somebody has written a good configuration into `/etc`.
fn by_hand(places: &Places) -> bool {
    let text = std::fs::read_to_string(&places.config).unwrap_or_default();
    text != DEMO && !text.starts_with(template::NONE_YET) && Config::read(&places.config).is_ok()
}

fn refuse(
    places: &Places,
    path: &Path,
    errors: Vec<String>,
    good: Option<&Sheet>,
    trouble: &mut Vec<String>,
) -> Outcome {
    let runs_on = match good {
        Some(good) => {
            make_system(places, good, trouble);
            RunsOn::LastGood
        }
        None if by_hand(places) => RunsOn::ByHand,
        None => {
            let faulty = std::fs::read(path).ok().and_then(|bytes| sheet::decode(&bytes, "").ok()).unwrap_or_default();
            let model = std::fs::read_to_string(places.root.join("proc/device-tree/model")).ok();
            let text = template::stand_in(&faulty, model.as_deref());
            try_to(trouble, write_changed(&places.config, text.as_bytes(), 0o644));
            RunsOn::Nothing
        }
    };
    let short = match errors.as_slice() {
        [only] => only.clone(),
        [first, others @ ..] => format!("{first} (and {} more)", others.len()),
        [] => String::new(),
    };
    let why = format!("the file on the card was refused: {short}; correct it there, then switch the box off and on\n");
    try_to(trouble, write_changed(&places.config.with_file_name(site::REFUSED), why.as_bytes(), 0o644));
    let note = errors_note(&errors, runs_on);
    write_notes(places, &[(places.card.join(ERRORS), Some(note))], trouble);
    Outcome::Refused { errors, runs_on }
}

fn try_to(trouble: &mut Vec<String>, done: Result<(), UpkeepError>) {
    trouble.extend(done.err().map(|e| e.to_string()));
}

/// Writes a file only if it says something else: cards wear out.
fn write_changed(path: &Path, bytes: &[u8], mode: u32) -> Result<(), UpkeepError> {
    if std::fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(UpkeepError::at(dir))?;
    }
    write_whole(path, bytes, mode)
}

/// Puts a file in the place of the last good one, in one step, with all that is beside it.
fn keep(places: &Places, sheet: &Sheet) -> Result<(), UpkeepError> {
    let (good, new) = (places.good(), places.state_dir.join("provision/new"));
    if new.exists() {
        std::fs::remove_dir_all(&new).map_err(UpkeepError::at(&new))?;
    }
    make_private_directory(&new)?;
    for (name, bytes) in &sheet.beside {
        write_whole(&new.join(name), bytes, 0o600)?;
    }
    write_whole(&new.join(FILE), sheet.text.as_bytes(), 0o600)?;
    // What was good before stays as `new` until the next time.
    swap_in(&new, &good)
}

/// Makes configuration, host name and network what a file says.
fn make_system(places: &Places, sheet: &Sheet, trouble: &mut Vec<String>) {
    for (name, bytes) in &sheet.beside {
        let path = places.config.with_file_name(name);
        let is_key = sheet.config.tls.key.as_ref().and_then(|k| k.file_name()).is_some_and(|k| k == name.as_str());
        try_to(trouble, write_changed(&path, bytes, if is_key { 0o600 } else { 0o644 }));
        if is_key && path.exists() {
            try_to(trouble, give_to_owner_of(&places.state_dir, &path));
        }
    }
    // At the end, so that lines have the numbers that they have on the card.
    let text = format!("{}\n# Made of {FILE} on the card at every boot: change that file.\n", sheet.text.trim_end());
    try_to(trouble, write_changed(&places.config, text.as_bytes(), 0o644));
    if let Some(name) = &sheet.config.site.hostname {
        try_to(trouble, write_changed(&places.root.join("etc/hostname"), format!("{name}\n").as_bytes(), 0o644));
        if places.is_this_system()
            && let Err(e) = nix::unistd::sethostname(name)
        {
            trouble.push(format!("the name of the box cannot be set: {e}"));
        }
    }
    try_to(trouble, make_networks(&places.root.join("run/systemd/network"), &sheet.config.networks));
}

/// Writes the files of the networks and removes those that were made of an older file.
fn make_networks(dir: &Path, networks: &[site::Network]) -> Result<(), UpkeepError> {
    let wanted: BTreeMap<_, _> = network::files(networks).into_iter().collect();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(network::PREFIX) && !wanted.contains_key(&name) {
            remove(&entry.path())?;
        }
    }
    wanted.iter().try_for_each(|(name, text)| write_changed(&dir.join(name), text.as_bytes(), 0o644))
}

/// The keys that differ from the last good file, with their lines.
fn changes(good: Option<&Sheet>, new: &Sheet) -> Vec<String> {
    let Some(good) = good else { return vec!["everything: it is the first good file of this box".into()] };
    let mut changed: Vec<_> = reload::differences(&good.text, &new.text)
        .into_iter()
        .map(|(key, line)| format!("line {line}: {key}"))
        .collect();
    changed.extend(new.beside.iter().filter(|(k, v)| good.beside.get(*k) != Some(v)).map(|(k, _)| format!("file {k}")));
    if changed.is_empty() {
        changed.push("only remarks and spaces".into());
    }
    changed
}

/// Writes notes on the card, or removes them.
fn write_notes(places: &Places, notes: &[(PathBuf, Option<String>)], trouble: &mut Vec<String>) {
    let write = || {
        notes.iter().try_for_each(|(path, text)| match text {
            Some(text) if std::fs::read(path).is_ok_and(|there| there == text.as_bytes()) => Ok(()),
            Some(text) => write_whole(path, text.as_bytes(), 0o644),
            None => remove(path),
        })
    };
    let done = on_card(&places.card, places.is_this_system(), write);
    try_to(trouble, done);
}
