//! A card, a box and its boots, in a directory.

use super::UpkeepError;
use super::apply::{APPLIED, ERRORS, FILE, LINKS, Outcome, Places, RunsOn, apply, is_news};
use crate::base::Role;
use crate::gateway::config::{Config, DEMO};
use crate::gateway::lock_state_dir;
use crate::gateway::site::{NOT_GIVEN, refused};
use crate::net::authority::Authority;
use crate::people::{Change, Roll, Store};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

const GOOD: &str = "board = \"rpi-4b\"\n[box]\nhostname = \"gate-1\"\n[[network]]\naddress = \"192.168.1.5/24\"\n\
    [event]\nid = \"fair\"\n[tls]\nlisten = \"0.0.0.0:8443\"\n[[channel]]\nid = \"ops\"\nname = \"Ops\"\n\
    [[person]]\nid = \"anna\"\nname = \"Anna\"\nrole = \"dispatch\"\n";

struct World {
    dir: tempfile::TempDir,
    places: Places,
}

impl World {
    /// A box as it comes from the package: the demo in `/etc`, nothing on the card.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let places = Places {
            card: at("card"),
            config: at("etc/crosspatch/crosspatch.toml"),
            state_dir: at("state"),
            root: dir.path().to_owned(),
        };
        for dir in [at("card"), at("etc/crosspatch"), at("state"), at("run/systemd/network"), at("proc/device-tree")] {
            std::fs::create_dir_all(dir).unwrap();
        }
        std::fs::write(&places.config, DEMO).unwrap();
        std::fs::write(at("proc/device-tree/model"), "Raspberry Pi 4 Model B Rev 1.5\0").unwrap();
        World { dir, places }
    }

    fn put(&self, text: impl AsRef<[u8]>) {
        std::fs::write(self.places.card.join(FILE), text).unwrap();
    }

    fn boot(&self) -> Outcome {
        let report = apply(&self.places).unwrap();
        assert_eq!(report.trouble, Vec::<String>::new());
        report.outcome
    }

    /// A root that forgets, as behind a RAM overlay.
    fn forget(&self) {
        std::fs::write(&self.places.config, DEMO).unwrap();
        for path in [self.dir.path().join("etc/hostname"), self.network()] {
            std::fs::remove_file(path).unwrap();
        }
    }

    fn network(&self) -> PathBuf {
        self.dir.path().join("run/systemd/network/05-crosspatch-2-wired.network")
    }

    fn note(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.places.card.join(name)).ok()
    }

    fn config(&self) -> Config {
        Config::read(&self.places.config).unwrap()
    }

    /// Changes when the configuration is written, be it with the same words.
    fn written(&self) -> u64 {
        self.places.config.metadata().unwrap().ino()
    }

    fn roll(&self) -> Roll {
        self.store().read().unwrap()
    }

    fn store(&self) -> Store {
        Store::open(&self.places.state_dir.join("people.sqlite")).unwrap()
    }

    fn hostname(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("etc/hostname")).unwrap()
    }
}

#[test]
fn a_good_file_is_the_box_after_the_next_boot_and_every_other_one() {
    let w = World::new();
    w.put(format!("\u{feff}{GOOD}").replace('\n', "\r\n"));
    assert!(matches!(w.boot(), Outcome::Applied(_)));
    let written = w.written();
    assert_eq!((w.boot(), w.written()), (Outcome::AsBefore, written), "cards wear out");
    assert_eq!(w.note(LINKS), None, "nobody asked for any");
    for _ in 0..2 {
        assert_eq!(w.config().event.id, "fair");
        assert_eq!(w.hostname(), "gate-1\n");
        assert!(std::fs::read_to_string(w.network()).unwrap().contains("Address=192.168.1.5/24"));
        w.forget();
        assert_eq!(w.boot(), Outcome::AsBefore);
    }
    let anna = &w.roll().people["anna"];
    assert_eq!((anna.role, anna.channels.as_slice()), (Role::Dispatch, ["ops".into()].as_slice()));
    let note = w.note(APPLIED).unwrap();
    assert!(
        note.contains("\r\nChanged:  everything") && note.contains("open https://192.168.1.5:8443/trust"),
        "{note}"
    );
    w.put(GOOD.replace("\"fair\"", "\"feast\"").replace("address = \"192.168.1.5/24\"", "address = \"dhcp\""));
    let changed = ["line 5: network[0].address".to_owned(), "line 7: event.id".to_owned()];
    let Outcome::Applied(mut told) = w.boot() else { panic!("it is new") };
    told.sort();
    assert_eq!(told, changed);
    assert!(w.note(APPLIED).unwrap().contains("Changed:  line 7: event.id\r\n"));
}

#[test]
fn a_faulty_file_is_told_by_line_and_the_last_good_one_holds_until_it_is_mended() {
    let w = World::new();
    w.put(GOOD);
    w.boot();
    w.forget();
    w.put(GOOD.replace("192.168.1.5/24", "192.168.1.0/24").replace("gate-1", "Gate 1"));
    let Outcome::Refused { errors, runs_on } = w.boot() else { panic!("it is faulty") };
    assert_eq!((errors.len(), runs_on), (2, RunsOn::LastGood));
    assert_eq!((w.config().event.id.as_str(), w.hostname().as_str()), ("fair", "gate-1\n"));
    let note = w.note(ERRORS).unwrap();
    assert!(
        note.contains("\r\nline 3: 'Gate 1' is no host name") && note.contains("\r\nline 5: 192.168.1.0/24"),
        "{note}"
    );
    let why = refused(&w.places.config).unwrap();
    assert!(why.contains("crosspatch.toml:3: 'Gate 1' is no host name") && why.contains("(and 1 more)"), "{why}");
    w.put(GOOD);
    assert_eq!(w.boot(), Outcome::AsBefore);
    assert_eq!((w.note(ERRORS), refused(&w.places.config)), (None, None));
}

#[test]
fn a_box_that_never_had_a_good_file_has_a_lamp_and_nothing_else() {
    let w = World::new();
    w.put("board = \"rpi-5\"\n[event\n");
    assert!(matches!(w.boot(), Outcome::Refused { runs_on: RunsOn::Nothing, .. }));
    let config = w.config();
    assert_eq!((config.board.as_str(), config.radios.len()), ("rpi-5", 0));
    assert_eq!(config.desks[0].fault_tally_line.as_deref(), Some("fault.lamp"));
    assert!(refused(&w.places.config).is_some() && w.note(ERRORS).unwrap().contains("\r\nline 2: "));
    assert!(matches!(w.boot(), Outcome::Refused { runs_on: RunsOn::Nothing, .. }), "it is no last good one");
    w.put(GOOD);
    assert!(matches!(w.boot(), Outcome::Applied(_)));
    assert_eq!((w.config().event.id.as_str(), refused(&w.places.config)), ("fair", None));
}

#[test]
fn what_somebody_wrote_into_etc_by_hand_is_left_alone_by_a_faulty_file() {
    let w = World::new();
    let by_hand = DEMO.replace("\"demo\"", "\"own\"");
    std::fs::write(&w.places.config, &by_hand).unwrap();
    assert_eq!(w.boot(), Outcome::NotProvisioned);
    w.put("nonsense");
    assert!(matches!(w.boot(), Outcome::Refused { runs_on: RunsOn::ByHand, .. }));
    assert_eq!(std::fs::read_to_string(&w.places.config).unwrap(), by_hand);
    assert!(refused(&w.places.config).is_some());
    std::fs::remove_file(w.places.card.join(FILE)).unwrap();
    assert_eq!((w.boot(), refused(&w.places.config)), (Outcome::NotProvisioned, None));
}

#[test]
fn a_card_without_a_file_keeps_the_box_as_it_was_and_a_hidden_ending_hides_nothing() {
    let w = World::new();
    w.put(GOOD);
    w.boot();
    w.forget();
    std::fs::remove_file(w.places.card.join(FILE)).unwrap();
    assert_eq!(w.boot(), Outcome::Missing);
    assert_eq!(w.config().event.id, "fair");
    std::fs::write(w.places.card.join("crosspatch.toml.txt"), GOOD.replace("fair", "feast")).unwrap();
    assert!(matches!(w.boot(), Outcome::Applied(_)));
    assert_eq!(w.config().event.id, "feast");
}

#[test]
fn people_are_stored_when_the_file_says_something_new_of_them() {
    let w = World::new();
    w.put(format!("{GOOD}[[person]]\nid = \"ben\"\nname = \"Ben\"\n"));
    w.boot();
    let mut ben = w.roll().people["ben"].clone();
    ben.role = Role::Admin;
    w.store().change(&[Change::PutPerson("ben".into(), ben), Change::RemovePerson("anna".into())]).unwrap();
    w.put(format!("# a remark\n{GOOD}[[person]]\nid = \"ben\"\nname = \"Ben\"\n"));
    w.boot();
    let roll = w.roll();
    assert!(!roll.people.contains_key("anna") && roll.people["ben"].role == Role::Admin, "as they were changed");
    w.put(GOOD.replace("\"Anna\"", "\"Anna B.\""));
    w.boot();
    let roll = w.roll();
    assert_eq!(roll.people["anna"].name, "Anna B.");
    assert!(!roll.people.contains_key("ben"), "the file names him no more");
}

#[test]
fn join_links_are_written_once_and_open_the_box_to_whom_they_name() {
    let w = World::new();
    w.put(GOOD.replace("[box]\n", "[box]\njoin_links = true\n"));
    w.boot();
    let links = w.note(LINKS).unwrap();
    let token = links.split_once("https://192.168.1.5:8443/talk#token=").unwrap().1.trim_end();
    let identity = crate::net::token::Tokens::of_state_dir(&w.places.state_dir, "fair").unwrap().check(token).unwrap();
    assert_eq!((identity.name.as_str(), identity.role), ("Anna", Role::Dispatch));
    // What the gateway will serve is what people compare.
    let authority = Authority::open(&w.places.state_dir.join("tls"), &BTreeSet::new()).unwrap();
    for note in [&links, &w.note(APPLIED).unwrap()] {
        assert!(note.contains(&format!("{}\r\n", authority.fingerprint())), "{note}");
    }
    std::fs::remove_file(w.places.card.join(LINKS)).unwrap();
    w.boot();
    assert_eq!(w.note(LINKS), None, "it was handed on and deleted");
    std::fs::remove_file(w.places.card.join(APPLIED)).unwrap();
    w.boot();
    assert!(w.note(LINKS).is_none() && w.note(APPLIED).is_some(), "that one alone is written anew");
}

#[test]
fn what_is_in_memory_only_vouches_for_no_link_and_no_fingerprint_on_the_card() {
    let w = World::new();
    let linked = GOOD.replace("[box]\n", "[box]\njoin_links = true\n");
    w.put(&linked);
    w.boot();
    let told = (w.note(LINKS), w.note(APPLIED));
    // The data partition is late: an empty directory in memory stands in for it.
    let (state, data) = (&w.places.state_dir, w.dir.path().join("data"));
    std::fs::rename(state, &data).unwrap();
    std::fs::create_dir(state).unwrap();
    std::fs::write(state.join("in-memory.txt"), "the data partition is not there").unwrap();
    for _ in 0..2 {
        let report = apply(&w.places).unwrap();
        assert!(report.trouble.concat().ends_with("would not hold: the data partition is not there"), "{report:?}");
        assert_eq!((w.note(LINKS), w.note(APPLIED)), told, "those of the data");
    }
    assert_eq!(w.config().event.id, "fair", "and yet the box is what the card says");
    std::fs::remove_dir_all(state).unwrap();
    std::fs::rename(data, state).unwrap();
    assert_eq!(w.boot(), Outcome::AsBefore);
    assert_eq!((w.note(LINKS), w.note(APPLIED)), told);
}

#[test]
fn a_card_that_comes_late_is_news_if_it_says_what_was_not_known() {
    let w = World::new();
    assert!(!is_news(&w.places), "there is no file");
    w.put("nonsense");
    assert!(is_news(&w.places));
    w.boot();
    assert!(!is_news(&w.places), "it was refused already");
    w.put(GOOD);
    assert!(is_news(&w.places));
    w.boot();
    assert!(!is_news(&w.places), "it is the last good one");
    // A key that comes with the card may be what was missing.
    std::fs::create_dir(w.places.state_dir.join("update")).unwrap();
    std::fs::write(w.places.state_dir.join(NOT_GIVEN), "no key").unwrap();
    std::fs::create_dir(w.places.card.join("update-keys")).unwrap();
    assert!(!is_news(&w.places));
    std::fs::write(w.places.card.join("update-keys/own.pub"), "").unwrap();
    assert!(is_news(&w.places));
}

#[test]
fn the_files_that_a_file_names_go_with_it() {
    let w = World::new();
    let own = "name = \"Own\"\nlike = \"rpi-4b\"\nbackend = \"cdev\"\n";
    std::fs::write(w.places.card.join("own.toml"), own).unwrap();
    for name in ["own.pem", "own.key"] {
        std::fs::write(w.places.card.join(name), "only looked at where the clock is right").unwrap();
    }
    let named = GOOD.replace("\"rpi-4b\"", "\"own.toml\"");
    w.put(named.replace("[tls]\n", "[tls]\ncertificate = \"own.pem\"\nkey = \"own.key\"\n"));
    assert!(matches!(w.boot(), Outcome::Applied(_)));
    let mode = |name: &str| w.places.config.with_file_name(name).metadata().unwrap().mode() & 0o777;
    assert_eq!((mode("own.toml"), mode("own.pem"), mode("own.key")), (0o644, 0o644, 0o600));
    w.put(&named);
    w.boot();
    assert_eq!(w.config().board().unwrap().name, "Own");
    std::fs::write(w.places.card.join("own.toml"), own.replace("Own", "Mine")).unwrap();
    assert_eq!(w.boot(), Outcome::Applied(vec!["file own.toml".into()]));
    assert_eq!(w.config().board().unwrap().name, "Mine");
    std::fs::remove_file(w.places.card.join("own.toml")).unwrap();
    assert!(matches!(w.boot(), Outcome::Refused { runs_on: RunsOn::LastGood, .. }));
    assert_eq!(w.config().board().unwrap().name, "Mine");
}

#[test]
fn a_state_that_is_missing_costs_what_is_kept_and_not_the_box() {
    let w = World::new();
    std::fs::remove_dir(&w.places.state_dir).unwrap();
    w.put(GOOD);
    let report = apply(&w.places).unwrap();
    assert!(matches!(report.outcome, Outcome::Applied(_)));
    assert!(report.trouble[0].starts_with("nothing can be kept"), "{:?}", report.trouble);
    assert_eq!((w.config().event.id.as_str(), w.hostname().as_str()), ("fair", "gate-1\n"));
    assert!(w.note(APPLIED).unwrap().contains("But:      nothing can be kept"));
}

#[test]
fn a_network_that_the_file_names_no_more_is_gone_and_nobody_elses_is() {
    let w = World::new();
    let other = w.dir.path().join("run/systemd/network/70-other.network");
    std::fs::write(&other, "").unwrap();
    w.put(GOOD);
    w.boot();
    w.put(GOOD.replace("[[network]]\naddress = \"192.168.1.5/24\"\n", ""));
    w.boot();
    assert!(!w.network().exists() && other.exists());
}

#[test]
fn nothing_is_taken_over_under_a_running_gateway() {
    let w = World::new();
    w.put(GOOD);
    let _running = lock_state_dir(&w.places.state_dir).unwrap().unwrap();
    assert!(matches!(apply(&w.places), Err(UpkeepError::Running)));
    assert_eq!(std::fs::read_to_string(&w.places.config).unwrap(), DEMO);
}

#[test]
fn a_power_cut_before_the_file_is_kept_leaves_a_box_that_takes_it_over_at_the_next_boot() {
    let w = World::new();
    w.put(GOOD);
    w.boot();
    // As far as a boot can come: people stored, half of the new file written.
    let half = w.places.state_dir.join("provision/new");
    std::fs::remove_dir_all(&half).ok();
    std::fs::create_dir_all(&half).unwrap();
    std::fs::write(half.join("crosspatch.toml.part"), "[ev").unwrap();
    std::fs::write(half.join("old.key"), "").unwrap();
    w.put(GOOD.replace("fair", "feast"));
    assert!(matches!(w.boot(), Outcome::Applied(_)));
    assert_eq!(w.config().event.id, "feast");
    assert_eq!(w.boot(), Outcome::AsBefore);
    let provision = w.places.state_dir.join("provision");
    assert_eq!(std::fs::read_dir(provision.join("good")).unwrap().count(), 1, "nothing else came in with it");
    let before = std::fs::read_to_string(provision.join("new/crosspatch.toml")).unwrap();
    assert!(before.contains("fair"), "they have changed places, in one step");
    // People who cannot be stored: the file is not kept before they are.
    w.put(GOOD.replace("fair", "finale").replace("\"Anna\"", "\"Anna B.\""));
    let (people, away) = (w.places.state_dir.join("people.sqlite"), w.dir.path().join("away"));
    std::fs::rename(&people, &away).unwrap();
    std::fs::create_dir(&people).unwrap();
    assert!(apply(&w.places).unwrap().trouble.concat().contains("the people are not stored"));
    std::fs::remove_dir(&people).unwrap();
    std::fs::rename(away, people).unwrap();
    assert!(matches!(w.boot(), Outcome::Applied(_)));
    assert_eq!(w.roll().people["anna"].name, "Anna B.");
}
