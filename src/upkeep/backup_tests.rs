//! Boxes that are backed up, lost and restored, in directories.

use super::UpkeepError;
use super::apply::{APPLIED, FILE, LINKS, Outcome, Places, apply};
use super::backup::{BEFORE, finish_interrupted, restore, take};
use crate::gateway::config::{Config, DEMO};
use crate::gateway::lock_state_dir;
use crate::net::authority::Authority;
use crate::net::token::{Identity, Tokens};
use crate::people::{Change, Roll, Store, StoredChannel};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const CARD: &str =
    "[event]\nid = \"fair\"\n[[channel]]\nid = \"ops\"\nname = \"Ops\"\n[[person]]\nid = \"anna\"\nname = \"Anna\"\n";

const LINKED: &str = "[box]\njoin_links = true\n[tls]\nlisten = \"0.0.0.0:8443\"\n";

struct World {
    dir: tempfile::TempDir,
    places: Places,
}

impl World {
    fn new(event: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let places = Places {
            card: at("card"),
            config: at("etc/crosspatch.toml"),
            state_dir: at("state"),
            root: dir.path().to_owned(),
        };
        for dir in [at("etc"), at("state"), at("card")] {
            std::fs::create_dir_all(dir).unwrap();
        }
        std::fs::write(&places.config, DEMO.replace("\"demo\"", &format!("\"{event}\""))).unwrap();
        World { dir, places }
    }

    /// With an authority, a secret, a channel that was added.
    fn lived_in(event: &str) -> Self {
        let w = Self::new(event);
        let state = &w.places.state_dir;
        Tokens::of_state_dir(state, event).unwrap();
        std::fs::create_dir(state.join("tls")).unwrap();
        Authority::open(&state.join("tls"), &BTreeSet::new()).unwrap();
        let channel = StoredChannel { id: event.into(), name: "Added".into(), order: 1 };
        w.store().change(&[Change::PutChannel(channel)]).unwrap();
        w
    }

    fn store(&self) -> Store {
        Store::open(&self.places.state_dir.join("people.sqlite")).unwrap()
    }

    fn roll(&self) -> Roll {
        self.store().read().unwrap()
    }

    fn event(&self) -> String {
        Config::read(&self.places.config).unwrap().event.id
    }

    fn token(&self) -> String {
        let identity =
            Identity { user: "u".into(), name: "U".into(), role: crate::base::Role::General, channels: vec![] };
        Tokens::of_state_dir(&self.places.state_dir, &self.event()).unwrap().sign(&identity, 4_000_000_000).unwrap()
    }

    fn fingerprint(&self) -> String {
        Authority::open(&self.places.state_dir.join("tls"), &BTreeSet::new()).unwrap().fingerprint().to_owned()
    }

    /// Every file with what it says.
    fn everything(&self) -> BTreeMap<String, Vec<u8>> {
        fn walk(dir: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => walk(&path, found),
                    false => drop(found.insert(path.display().to_string(), std::fs::read(&path).unwrap())),
                }
            }
        }
        let mut found = BTreeMap::new();
        walk(self.dir.path(), &mut found);
        found.retain(|name, _| !name.ends_with("/lock"));
        found
    }
}

#[test]
fn a_box_comes_back_on_another_machine_with_its_people_its_links_and_what_phones_trust() {
    let old = World::lived_in("fair");
    let _running = lock_state_dir(&old.places.state_dir).unwrap();
    let (label, bytes) = take(&old.places, Some("correct horse")).unwrap();
    assert_eq!((label.event.as_str(), label.provisioned), ("fair", false));
    let new = World::lived_in("other");
    assert_eq!(restore(&new.places, &bytes, Some("correct horse")).unwrap(), label);
    assert_eq!(new.event(), "fair");
    assert_eq!(new.roll(), old.roll());
    assert_eq!(new.token(), old.token());
    assert_eq!(new.fingerprint(), old.fingerprint());
    let secret = new.places.state_dir.join("token.secret").metadata().unwrap();
    assert_eq!(secret.mode() & 0o777, 0o600);
}

#[test]
fn what_was_there_before_a_restore_can_be_had_back() {
    let (fair, other) = (World::lived_in("fair"), World::lived_in("other"));
    let (token, fingerprint) = (other.token(), other.fingerprint());
    restore(&other.places, &take(&fair.places, None).unwrap().1, None).unwrap();
    let before = std::fs::read(other.places.state_dir.join(BEFORE)).unwrap();
    restore(&other.places, &before, None).unwrap();
    assert_eq!((other.event(), other.token(), other.fingerprint()), ("other".into(), token, fingerprint));
    restore(&other.places, &take(&World::new("bare").places, None).unwrap().1, None).unwrap();
    let left = ["token.secret", "tls/ca.pem", "people.sqlite"].map(|name| other.places.state_dir.join(name).exists());
    assert_eq!(left, [false; 3], "what the backup does not hold is not there afterwards");
}

#[test]
fn a_backup_that_is_not_good_changes_nothing() {
    let (fair, box_) = (World::lived_in("fair"), World::lived_in("other"));
    let (label, good) = take(&fair.places, None).unwrap();
    let (_, files) = super::parcel::unpack(&good, None).unwrap();
    let with = |name: &str, bytes: &[u8]| {
        let mut files = files.clone();
        files.insert(name.to_owned(), bytes.to_vec());
        super::parcel::pack(&label, &files, None).unwrap()
    };
    let no_key = {
        let mut files = files.clone();
        files.remove("state/tls/ca-key.pem").unwrap();
        super::parcel::pack(&label, &files, None).unwrap()
    };
    let before = box_.everything();
    let cases = [
        (no_key, "the backup is not good: its authority has no key"),
        (b"PK\x03\x04 something else".to_vec(), "this is no backup of crosspatch"),
        (good[..good.len() - 7].to_vec(), "this backup is cut off"),
        (with("config/crosspatch.toml", b"[event]"), "the backup is not good: "),
        (with("state/people.sqlite", b"SQLite format 4"), "the backup is not good: its people cannot be read"),
        (with("state/token.secret", b"short"), "the backup is not good: the token secret"),
        (with("state/tls/ca-key.pem", b"-----BEGIN"), "the backup is not good: the local authority"),
        (with("config/../../shadow", b"x"), "holds 'config/../../shadow', which this version does not know"),
        (with("state/audit.sqlite", b"x"), "holds 'state/audit.sqlite'"),
    ];
    for (bytes, told) in cases {
        let refused = restore(&box_.places, &bytes, None).unwrap_err().to_string();
        assert!(refused.contains(told), "{refused}");
        assert!(box_.everything() == before, "{told}: something was changed");
    }
}

#[test]
fn nothing_is_restored_under_a_running_gateway() {
    let (fair, box_) = (World::lived_in("fair"), World::lived_in("other"));
    let (_, bytes) = take(&fair.places, None).unwrap();
    let before = box_.everything();
    let running = lock_state_dir(&box_.places.state_dir).unwrap();
    assert!(matches!(restore(&box_.places, &bytes, None), Err(UpkeepError::Running)));
    assert!(box_.everything() == before);
    drop(running);
    restore(&box_.places, &bytes, None).unwrap();
}

#[test]
fn a_restore_that_the_power_ended_is_finished_by_the_next_start() {
    let (fair, box_) = (World::lived_in("fair"), World::lived_in("other"));
    let (_, bytes) = take(&fair.places, None).unwrap();
    // The power goes where the configuration should be written: a directory that cannot be replaced stands there.
    let interrupted = || {
        std::fs::remove_file(&box_.places.config).unwrap();
        std::fs::create_dir_all(box_.places.config.join("in the way")).unwrap();
        restore(&box_.places, &bytes, None).unwrap_err();
        std::fs::remove_dir_all(&box_.places.config).unwrap();
    };
    interrupted();
    restore(&box_.places, &take(&World::lived_in("third").places, None).unwrap().1, None).unwrap();
    restore(&box_.places, &std::fs::read(box_.places.state_dir.join(BEFORE)).unwrap(), None).unwrap();
    assert_eq!(
        (box_.event(), box_.token()),
        ("fair".into(), fair.token()),
        "all of what was there before is of one box"
    );
    interrupted();
    let log = box_.places.state_dir.join("people.sqlite-wal");
    std::fs::write(&log, "of the other store").unwrap();
    finish_interrupted(&box_.places).unwrap();
    assert!(!log.exists());
    assert_eq!((box_.event(), box_.token(), box_.roll()), ("fair".into(), fair.token(), fair.roll()));
    let done = box_.everything();
    finish_interrupted(&box_.places).unwrap();
    assert!(box_.everything() == done, "there is nothing left to finish");
}

#[test]
fn a_provisioned_box_stays_what_it_was_restored_to_after_the_next_boot() {
    let old = World::new("x");
    std::fs::write(old.places.card.join(FILE), CARD).unwrap();
    assert!(matches!(apply(&old.places).unwrap().outcome, Outcome::Applied(_)));
    old.store().change(&[Change::RemovePerson("anna".into())]).unwrap();
    let (label, bytes) = take(&old.places, None).unwrap();
    assert!(label.provisioned);
    let new = World::new("y");
    std::fs::write(new.places.card.join(FILE), CARD.replace("fair", "shipped") + LINKED).unwrap();
    apply(&new.places).unwrap();
    assert!(new.places.card.join(LINKS).exists());
    restore(&new.places, &bytes, None).unwrap();
    assert_eq!(apply(&new.places).unwrap().outcome, Outcome::AsBefore);
    assert!(!new.places.card.join(LINKS).exists(), "another secret has signed them");
    assert!(std::fs::read_to_string(new.places.card.join(APPLIED)).unwrap().contains("Event:    fair"));
    assert_eq!((new.event().as_str(), new.roll().people.len()), ("fair", 0));
    std::fs::remove_file(new.places.card.join(FILE)).unwrap();
    restore(&new.places, &take(&World::new("by hand").places, None).unwrap().1, None).unwrap();
    assert_eq!(apply(&new.places).unwrap().outcome, Outcome::NotProvisioned, "as the box that was backed up");
}
