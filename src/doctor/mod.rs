//! The checks of a box: what is known of it, judged one by one in sentences that say what to do next.
//!
//! Decides whether each thing is as it should be for an event. Never opens a line, a card or a socket, and never mends
//! anything: [`Facts`] are handed in, by the gateway for what it holds, by the command for the rest. Only
//! [`machine`] reads files, those in which the kernel tells about the machine.
//!
//! **Invariant:** [`examine`] is a function of its facts alone; what could not be found out is a skip with its reason,
//! never a pass.

mod equipment;
pub mod facts;
pub mod machine;
pub mod secrets;
mod service;
#[cfg(test)]
mod tests;
mod text;

pub use facts::Facts;
pub use text::{WIDTH, as_text};

use serde::{Deserialize, Serialize};

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is as it should be.
    Pass,
    /// It is not.
    Fail,
    /// Nobody can tell, or it does not apply.
    Skip,
}

impl Outcome {
    /// The word on the screen; what fails is found at a glance.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Fail => "FAIL",
            Outcome::Skip => "skip",
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was checked, in a word or two; it stays the same for programs.
    pub name: String,
    /// What it came to.
    pub outcome: Outcome,
    /// What was found, a sentence each. A failed check says what to do in each of them.
    pub found: Vec<String>,
}

impl Check {
    /// All is well.
    pub fn pass(name: &str, found: impl Into<String>) -> Self {
        Check { name: name.into(), outcome: Outcome::Pass, found: vec![found.into()] }
    }

    /// Something is wrong; the sentence says what to do.
    pub fn fail(name: &str, found: impl Into<String>) -> Self {
        Check { name: name.into(), outcome: Outcome::Fail, found: vec![found.into()] }
    }

    /// It was not checked; the sentence says why.
    pub fn skip(name: &str, why: impl Into<String>) -> Self {
        Check { name: name.into(), outcome: Outcome::Skip, found: vec![why.into()] }
    }

    /// A failure with every sentence of `wrong`, or else what `well` says.
    fn unless(name: &str, wrong: Vec<String>, well: impl FnOnce() -> Check) -> Self {
        if wrong.is_empty() { well() } else { Check { name: name.into(), outcome: Outcome::Fail, found: wrong } }
    }
}

/// All checks of a box at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// When, as ISO 8601.
    pub at: String,
    /// The version of the program that looked.
    pub version: String,
    /// True if the gateway looked itself, at what it holds.
    pub by_gateway: bool,
    /// The checks, in the order of the screen.
    pub checks: Vec<Check>,
}

impl Report {
    /// True if no check failed.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.count(Outcome::Fail) == 0
    }

    /// How many checks came to this.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> usize {
        self.checks.iter().filter(|check| check.outcome == outcome).count()
    }

    /// Puts a check in the place of the one of the same name, or at the end.
    pub fn put(&mut self, check: Check) {
        match self.checks.iter_mut().find(|old| old.name == check.name) {
            Some(old) => *old = check,
            None => self.checks.push(check),
        }
    }
}

/// Judges everything that is known of a box.
#[must_use]
pub fn examine(facts: &Facts) -> Report {
    let checks = vec![
        service::gateway(facts),
        service::versions(facts),
        service::configuration(facts),
        equipment::board(facts),
        equipment::pins(facts),
        equipment::buttons(facts),
        equipment::lamps(facts),
        equipment::sound(facts),
        equipment::levels(facts),
        service::clock(facts),
        service::disk(facts),
        service::wear(facts),
        service::network(facts),
        service::ports(facts),
        service::certificate(facts),
        service::audit(facts),
        equipment::temperature(facts),
        equipment::supply(facts),
    ];
    Report { at: facts.at.clone(), version: facts.program.clone(), by_gateway: facts.gateway.is_some(), checks }
}
