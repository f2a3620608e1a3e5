//! Board profiles: which lines a board has, where they are, how they are wired. Data, one file a board.
//!
//! Decides whether a profile makes sense; never what a line means.

use super::gpio::{Direction, LineSpec};
use crate::base::LineName;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// The profiles that the program carries.
const BUILT_IN: &[(&str, &str)] = &[("sim", include_str!("../../board/sim.toml"))];

/// What drives the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// Simulated lines, moved over the local API.
    Sim,
    /// A Raspberry Pi's pins through `rppal` (a program built with that feature).
    Rppal,
}

/// The resistor inside the chip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bias {
    /// None; the wiring has its own.
    #[default]
    Off,
    /// Up to the supply.
    PullUp,
    /// Down to ground.
    PullDown,
}

/// What the contact of an input does when it is pressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contact {
    /// Closes.
    #[default]
    NormallyOpen,
    /// Opens: a cut wire looks like a press.
    NormallyClosed,
}

/// One line of a board.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Its name, as the configuration uses it.
    pub name: LineName,
    /// Input or output.
    pub direction: Direction,
    /// Its place on the chip; a Raspberry Pi's BCM number.
    pub offset: Option<u8>,
    /// The resistor inside the chip.
    #[serde(default)]
    pub bias: Bias,
    /// True if the low level is the active one.
    #[serde(default)]
    pub active_low: bool,
    /// For inputs, 5–30 ms.
    #[serde(default = "ten")]
    pub debounce_ms: u64,
    /// For inputs.
    #[serde(default)]
    pub contact: Contact,
}

fn ten() -> u64 {
    10
}

/// A whole profile.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// The board's name for people.
    pub name: String,
    /// What drives its lines.
    pub backend: Backend,
    /// What the technician must know when wiring.
    #[serde(default)]
    pub wiring_notes: Vec<String>,
    /// Its lines.
    #[serde(rename = "line", default)]
    pub lines: Vec<Line>,
}

/// What is wrong with a profile: one sentence an error, each with its place.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct BoardError(pub Vec<String>);

impl Board {
    /// A profile that the program carries, by its short name, or one from a `.toml` file.
    ///
    /// # Errors
    /// If there is none of that name, or anything in it is wrong.
    pub fn load(name: &str) -> Result<Self, BoardError> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(n, _)| *n == name) {
            return Self::parse(text, &format!("board/{name}.toml"));
        }
        let known = BUILT_IN.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", ");
        let missing =
            |why: String| BoardError(vec![format!("board '{name}': {why}; use {known}, or the path of a .toml file")]);
        if Path::new(name).extension().is_none_or(|e| e != "toml") {
            return Err(missing("there is no such profile".into()));
        }
        let text = std::fs::read_to_string(name).map_err(|e| missing(e.to_string()))?;
        Self::parse(&text, name)
    }

    /// Reads and checks a profile's text; `name` stands before each error.
    ///
    /// # Errors
    /// As [`Board::load`].
    pub fn parse(text: &str, name: &str) -> Result<Self, BoardError> {
        let board: Board = toml::from_str(text).map_err(|e| {
            let at = e.span().map_or(0, |s| s.start);
            let line = text[..at].matches('\n').count() + 1;
            BoardError(vec![format!("{name}:{line}: {}; compare with board/sim.toml", e.message().trim_end())])
        })?;
        let mut wrong = Vec::new();
        let (mut names, mut offsets) = (BTreeMap::new(), BTreeMap::new());
        for line in &board.lines {
            let at = text.find(&format!("\"{}\"", line.name)).map_or(1, |at| text[..at].matches('\n').count() + 1);
            let mut say = |sentence: String| wrong.push(format!("{name}:{at}: line '{}' {sentence}", line.name));
            if names.insert(line.name.clone(), ()).is_some() {
                say("is there twice; give each line a name of its own".into());
            }
            if let Some(other) = line.offset.and_then(|o| offsets.insert(o, line.name.clone())) {
                say(format!("has the same offset as '{other}'; give each line a pin of its own"));
            }
            if line.offset.is_none() && board.backend == Backend::Rppal {
                say("has no offset; give the BCM number of its pin".into());
            }
            if line.offset.is_some_and(|o| o > 27) && board.backend == Backend::Rppal {
                say("has an offset that the header does not have; use 0 to 27".into());
            }
            if line.direction == Direction::Input && !(5..=30).contains(&line.debounce_ms) {
                say(format!("has debounce_ms = {}; use 5 to 30", line.debounce_ms));
            }
        }
        if wrong.is_empty() { Ok(board) } else { Err(BoardError(wrong)) }
    }

    /// What keeps this board from serving `wanted`, a sentence each. `emergency` lines may not be normally closed.
    #[must_use]
    pub fn misfits(&self, wanted: &[LineSpec], emergency: &[LineName]) -> Vec<(LineName, String)> {
        let mut misfits = Vec::new();
        for spec in wanted {
            let sentence = match self.lines.iter().find(|l| l.name == spec.name) {
                None => format!(
                    "the board '{}' has no line '{}'; add it to the profile or use another",
                    self.name, spec.name
                ),
                Some(line) if line.direction != spec.direction => {
                    format!(
                        "line '{}' of the board '{}' has the other direction; correct the profile",
                        spec.name, self.name
                    )
                }
                Some(line) if line.contact == Contact::NormallyClosed && emergency.contains(&spec.name) => {
                    format!(
                        "line '{}' is normally closed: a cut wire would look like an emergency; use a normally open contact",
                        spec.name
                    )
                }
                Some(_) => continue,
            };
            misfits.push((spec.name.clone(), sentence));
        }
        misfits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profiles_that_are_carried_are_valid() {
        for (name, _) in BUILT_IN {
            Board::load(name).unwrap();
        }
    }

    #[test]
    fn errors_name_the_line_and_the_remedy() {
        let text =
            "name = \"x\"\nbackend = \"rppal\"\n[[line]]\nname = \"a\"\ndirection = \"input\"\ndebounce_ms = 99\n";
        let errors = Board::parse(text, "x.toml").unwrap_err().0;
        assert_eq!(
            errors,
            [
                "x.toml:4: line 'a' has no offset; give the BCM number of its pin",
                "x.toml:4: line 'a' has debounce_ms = 99; use 5 to 30"
            ]
        );
        let typo = Board::parse("name = \"x\"\nbakend = \"sim\"\n", "x.toml").unwrap_err().0;
        assert!(typo[0].starts_with("x.toml:2: unknown field `bakend`"), "{typo:?}");
        assert!(Board::load("pie").unwrap_err().to_string().contains("use sim"));
    }

    #[test]
    fn a_normally_closed_emergency_button_is_refused() {
        let text = "name = \"x\"\nbackend = \"sim\"\n[[line]]\nname = \"e\"\ndirection = \"input\"\ncontact = \"normally-closed\"\n";
        let board = Board::parse(text, "x.toml").unwrap();
        let wanted = [LineSpec { name: "e".into(), direction: Direction::Input }];
        assert!(board.misfits(&wanted, &["e".into()])[0].1.contains("cut wire"));
        assert!(board.misfits(&wanted, &[]).is_empty());
    }
}
