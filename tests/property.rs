//! Random histories of the core against a reference model of the floor's rules.
//!
//! `PROPTEST_CASES=20000 cargo test --test property` looks longer. A history that fails is shrunk and kept in
//! `tests/property/regressions.txt`; what it taught gets a named test in `src/control/tests.rs`.

#![expect(clippy::wildcard_enum_match_arm, reason = "bystanders look at a few of many actions")]

#[path = "property/event.rs"]
mod event;
#[path = "property/model.rs"]
mod model;
#[path = "property/step.rs"]
mod step;
#[path = "property/world.rs"]
mod world;

use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};
use step::Mix;

/// Steps of the longest histories.
const LONGEST: usize = 400;

/// A little of everything.
const EVERYTHING: Mix = Mix { people: 4, talk: 8, emergency: 2, buttons: 4, radio: 3, managers: 1, faults: 1, time: 6 };

fn check(cases: u32, mix: Mix) {
    let persistence = FileFailurePersistence::Direct("tests/property/regressions.txt");
    let config = Config { failure_persistence: Some(Box::new(persistence)), ..Config::default() };
    // The environment's number of cases stands; the default of the library does not.
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { config.cases } else { cases };
    let mut runner = TestRunner::new(Config { cases, ..config });
    let result = runner.run(&mix.history(LONGEST), |history| {
        world::live(&history);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

#[test]
fn every_history_keeps_every_rule() {
    check(40, EVERYTHING);
}

#[test]
fn emergencies_always_win_and_always_end() {
    check(40, Mix { emergency: 10, buttons: 10, ..EVERYTHING });
}

#[test]
fn radios_are_keyed_and_unkeyed_with_the_floor() {
    check(40, Mix { radio: 14, buttons: 6, ..EVERYTHING });
}

#[test]
fn people_come_go_and_are_thrown_out() {
    check(40, Mix { people: 14, managers: 6, ..EVERYTHING });
}

#[test]
fn faults_of_gates_and_sound_cards_break_no_rule() {
    check(40, Mix { faults: 10, emergency: 4, ..EVERYTHING });
}
