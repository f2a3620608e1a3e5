//! Board profiles: which lines a board has, where they are, how they are wired. Data, one file a board.
//!
//! Decides whether a profile makes sense; never what a line means.

use super::gpio::{Direction, LineSpec};
use super::header;
use crate::base::LineName;
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The profiles that the program carries.
const BUILT_IN: &[(&str, &str)] = &[
    ("sim", include_str!("../../board/sim.toml")),
    ("generic", include_str!("../../board/generic.toml")),
    ("rpi-3b-plus", include_str!("../../board/rpi-3b-plus.toml")),
    ("rpi-4b", include_str!("../../board/rpi-4b.toml")),
    ("rpi-5", include_str!("../../board/rpi-5.toml")),
    ("rpi-cm4-io", include_str!("../../board/rpi-cm4-io.toml")),
    ("rpi-zero-2w", include_str!("../../board/rpi-zero-2w.toml")),
];

/// What drives the lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// Simulated lines, moved over the local API.
    Sim,
    /// The kernel's GPIO character device: any board that runs Linux.
    Cdev,
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

/// The connector that people wire to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Header {
    /// The 40 pins of a Raspberry Pi, see [`super::header`].
    RaspberryPi,
}

/// One line of a board. Its safe level, if it is an output, is the inactive one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Its name, as the configuration uses it.
    pub name: LineName,
    /// Input or output.
    pub direction: Direction,
    /// Labels of the chip that it is on, the board's by default; any of them will do. With none, any chip.
    #[serde(default, deserialize_with = "labels")]
    pub chip: Vec<String>,
    /// Its place on the chip; a Raspberry Pi's BCM number.
    pub offset: Option<u32>,
    /// Its name in the kernel, in place of an offset.
    pub kernel_line: Option<String>,
    /// The pin of the header that people wire to.
    pub pin: Option<u8>,
    /// The resistor inside the chip. For outputs it holds the level when nobody drives them.
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
    /// How it is wired, in a sentence.
    pub wiring: Option<String>,
}

fn ten() -> u64 {
    10
}

/// True for `gpiochip4` and `/dev/gpiochip4`.
fn is_number(chip: &str) -> bool {
    let name = chip.strip_prefix("/dev/").unwrap_or(chip);
    name.strip_prefix("gpiochip").is_some_and(|number| number.chars().all(|c| c.is_ascii_digit()))
}

/// Labels that mean the same chip: one, or a list where kernels differ.
fn labels<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "write the label of a chip, such as \"pinctrl-bcm2711\", or a list of them")]
    enum Labels {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Labels::deserialize(value)? {
        Labels::One(label) => vec![label],
        Labels::Many(labels) => labels,
    })
}

/// A whole profile.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// The board's name for people.
    pub name: String,
    /// How the machines begin to call themselves that it is for.
    #[serde(default)]
    pub model: Vec<String>,
    /// A profile that the program carries, whose lines, header and notes this one takes over. A line of the same
    /// name takes the other's place.
    pub like: Option<String>,
    /// What drives its lines.
    pub backend: Backend,
    /// Labels of the chip that its lines are on; any of them will do.
    #[serde(default, deserialize_with = "labels")]
    pub chip: Vec<String>,
    /// The connector that people wire to.
    pub header: Option<Header>,
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
    /// The short names of the profiles that the program carries.
    pub fn built_in() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// The profile that the program carries for a machine that calls itself so.
    #[must_use]
    pub fn of_machine(model: &str) -> Option<&'static str> {
        let is_for = |name: &&str| Self::load(name).is_ok_and(|board| board.model.iter().any(|m| model.starts_with(m)));
        Self::built_in().find(is_for)
    }

    /// A profile that the program carries, by its short name, or one from a `.toml` file.
    ///
    /// # Errors
    /// If there is none of that name, or anything in it is wrong.
    pub fn load(name: &str) -> Result<Self, BoardError> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(n, _)| *n == name) {
            return Self::parse(text, &format!("board/{name}.toml"));
        }
        let known = Self::built_in().collect::<Vec<_>>().join(", ");
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
        let mut board: Board = toml::from_str(text).map_err(|e| {
            let at = e.span().map_or(0, |s| s.start);
            let line = text[..at].matches('\n').count() + 1;
            BoardError(vec![format!("{name}:{line}: {}; compare with board/sim.toml", e.message().trim_end())])
        })?;
        let line_of =
            |word: &str| text.find(&format!("\"{word}\"")).map_or(1, |at| text[..at].matches('\n').count() + 1);
        let mut wrong = Vec::new();
        let own = board.lines.len();
        if let Some(like) = board.like.clone() {
            match BUILT_IN.iter().find(|(n, t)| *n == like && *t != text) {
                Some((_, other)) => board.take_over(Self::parse(other, &format!("board/{like}.toml"))?),
                None => {
                    let known = Self::built_in().collect::<Vec<_>>().join(", ");
                    wrong.push(format!(
                        "{name}:{}: there is no profile '{like}' to be like; use {known}",
                        line_of(&like)
                    ));
                }
            }
        }
        for line in &mut board.lines {
            if line.chip.is_empty() {
                line.chip.clone_from(&board.chip);
            }
            if board.header.is_some() && line.pin.is_none() {
                line.pin = line.offset.and_then(header::gpio).map(|gpio| gpio.pin);
            }
        }
        let (mut names, mut places, mut pins) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        for (index, line) in board.lines.iter().enumerate() {
            let at = if index < own { line_of(line.name.as_str()) } else { 1 };
            let mut say = |sentence: String| wrong.push(format!("{name}:{at}: line '{}' {sentence}", line.name));
            if !names.insert(line.name.clone()) {
                say("is there twice; give each line a name of its own".into());
            }
            let place = line.offset.map(|o| format!("{:?} {o}", line.chip)).or_else(|| line.kernel_line.clone());
            if let Some(other) = place.and_then(|place| places.insert(place, line.name.clone())) {
                say(format!("has the same place as '{other}'; give each line a pin of its own"));
            }
            if let Some(other) = line.pin.and_then(|pin| pins.insert(pin, line.name.clone())) {
                say(format!("has the same pin as '{other}'; give each line a pin of its own"));
            }
            board.check_place(line, &mut say);
            if line.direction == Direction::Input && !(5..=30).contains(&line.debounce_ms) {
                say(format!("has debounce_ms = {}; use 5 to 30", line.debounce_ms));
            }
        }
        if wrong.is_empty() { Ok(board) } else { Err(BoardError(wrong)) }
    }

    /// Fills what this profile leaves out with what another has.
    fn take_over(&mut self, other: Board) {
        let from_other = |line: Line| {
            // What the other profile filled in for its own chip is filled in anew for this one's.
            if line.chip == other.chip { Line { chip: Vec::new(), ..line } } else { line }
        };
        let new = |line: &Line| self.lines.iter().all(|own| own.name != line.name);
        let lines: Vec<_> = other.lines.into_iter().filter(new).map(from_other).collect();
        self.lines.extend(lines);
        if self.chip.is_empty() {
            self.chip = other.chip;
        }
        self.header = self.header.or(other.header);
        self.wiring_notes.extend(other.wiring_notes);
    }

    /// Says what is wrong with the place of a line.
    fn check_place(&self, line: &Line, say: &mut impl FnMut(String)) {
        match (self.backend, line.offset, &line.kernel_line) {
            (Backend::Sim, ..) => {}
            (Backend::Rppal, None, _) => say("has no offset; give the BCM number of its pin".into()),
            (Backend::Rppal, Some(offset), _) if offset > 27 => {
                say("has an offset that the header does not have; use 0 to 27".into());
            }
            (Backend::Cdev, None, None) => {
                say("says nowhere which pin it is; give offset, its number on the chip, or kernel_line, its name in \
                     `gpioinfo`"
                    .into());
            }
            (Backend::Cdev, Some(_), Some(_)) => say("has both offset and kernel_line; give one of them".into()),
            (Backend::Cdev, Some(_), None) if line.chip.is_empty() => {
                say("has an offset and no chip; give the chip's label as `gpiodetect` shows it in brackets".into());
            }
            (Backend::Cdev | Backend::Rppal, ..) => {}
        }
        if let Some(number) = line.chip.iter().find(|label| is_number(label)) {
            say(format!(
                "names the chip '{number}', a number that changes from boot to boot; give its label as `gpiodetect` \
                 shows it in brackets"
            ));
        }
        if self.header != Some(Header::RaspberryPi) {
            return;
        }
        match (line.offset.map(|offset| (offset, header::gpio(offset))), line.pin) {
            (Some((offset, Some(gpio))), Some(pin)) if gpio.pin != pin => {
                say(format!(
                    "has pin = {pin}, but GPIO {offset} is pin {} of the header; correct one of them",
                    gpio.pin
                ));
            }
            (_, Some(pin)) if header::pin(pin).is_none() => {
                say(format!("has pin = {pin}, which the header does not have; use 1 to {}", header::PINS));
            }
            (_, Some(pin)) if !matches!(header::pin(pin), Some(header::Pin::Gpio(_))) => {
                say(format!("has pin = {pin}, which is a supply or ground; use the pin of a GPIO"));
            }
            (Some(_) | None, Some(_) | None) => {}
        }
    }

    /// What is dangerous about where the lines are, a sentence each; nothing for a board whose header is not known.
    #[must_use]
    pub fn hazards(&self) -> Vec<(LineName, String)> {
        let mut hazards = Vec::new();
        for line in self.lines.iter().filter(|_| self.header == Some(Header::RaspberryPi)) {
            let Some(gpio) = line.offset.and_then(header::gpio) else { continue };
            let mut say = |sentence: String| hazards.push((line.name.clone(), sentence));
            if let Some(by) = gpio.reserved {
                say(format!("line '{}' is on GPIO {}, which is also for {by}", line.name, gpio.offset));
            }
            let pulled = (gpio.reset == Bias::PullUp) != line.active_low;
            if line.direction == Direction::Output && pulled {
                let level = if line.active_low { "low" } else { "high" };
                say(format!(
                    "output '{}' is active {level} on GPIO {}, which is pulled {level} after reset: it is on until the \
                     gateway runs",
                    line.name, gpio.offset
                ));
            }
        }
        hazards
    }

    /// What keeps this board from serving `wanted`, a sentence each. `emergency` lines may not be normally closed, second
    /// contacts in `opening` must be.
    #[must_use]
    pub fn misfits(
        &self,
        wanted: &[LineSpec],
        emergency: &[LineName],
        opening: &[LineName],
    ) -> Vec<(LineName, String)> {
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
                Some(line) if line.contact == Contact::NormallyOpen && opening.contains(&spec.name) => {
                    format!(
                        "line '{}' is normally open, and a second contact must open when the button is pressed; use a line with \
                         contact = \"normally-closed\"",
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
    fn the_profiles_that_are_carried_are_valid_and_free_of_hazards() {
        for name in Board::built_in() {
            let board = Board::load(name).unwrap();
            assert_eq!(board.hazards(), [], "{name}");
            let on_a_pi = name.starts_with("rpi-");
            assert_eq!(board.header.is_some(), on_a_pi, "{name}");
            for line in board.lines.iter().filter(|_| on_a_pi) {
                let gpio = line.offset.and_then(header::gpio).unwrap_or_else(|| panic!("{name}: {}", line.name));
                assert_eq!((line.pin, &line.chip), (Some(gpio.pin), &board.chip), "{name}: {}", line.name);
                if line.direction == Direction::Output {
                    assert!((9..=27).contains(&gpio.offset), "{name}: {} is not pulled down after reset", line.name);
                    assert_eq!((line.active_low, line.bias), (false, Bias::PullDown), "{name}: {}", line.name);
                }
                assert!(line.wiring.is_some(), "{name}: {} says nothing of its wiring", line.name);
            }
        }
    }

    #[test]
    fn every_raspberry_pi_has_the_same_lines_on_its_own_chip() {
        let chips = [
            ("rpi-3b-plus", "pinctrl-bcm2835"),
            ("rpi-4b", "pinctrl-bcm2711"),
            ("rpi-5", "pinctrl-rp1"),
            ("rpi-cm4-io", "pinctrl-bcm2711"),
            ("rpi-zero-2w", "pinctrl-bcm2835"),
        ];
        let names = |board: &Board| board.lines.iter().map(|l| l.name.clone()).collect::<Vec<_>>();
        let model = names(&Board::load("rpi-4b").unwrap());
        for (name, chip) in chips {
            let board = Board::load(name).unwrap();
            assert_eq!((names(&board), board.chip), (model.clone(), vec![chip.to_owned()]), "{name}");
        }
    }

    fn of_pi(lines: &str) -> Result<Board, BoardError> {
        let text = format!("name = \"x\"\nlike = \"rpi-4b\"\nbackend = \"rppal\"\n{lines}");
        Board::parse(&text, "x.toml")
    }

    #[test]
    fn a_profile_that_is_like_another_changes_only_what_it_says() {
        let same = of_pi("").unwrap();
        let model = Board::load("rpi-4b").unwrap();
        assert_eq!((same.backend, same.lines.len()), (Backend::Rppal, model.lines.len()));
        let other = of_pi("[[line]]\nname = \"button.1\"\ndirection = \"input\"\noffset = 25\n").unwrap();
        assert_eq!(other.lines.len(), model.lines.len());
        let button = other.lines.iter().find(|l| l.name.as_str() == "button.1").unwrap();
        assert_eq!((button.offset, button.pin, button.active_low), (Some(25), Some(22), false));
        let clash = of_pi("[[line]]\nname = \"x\"\ndirection = \"input\"\noffset = 5\n").unwrap_err().0;
        assert!(clash[0].contains("line 'button.1' has the same place as 'x'"), "{clash:?}");
        let nobody = Board::parse("name = \"x\"\nlike = \"rpi\"\nbackend = \"cdev\"\n", "x.toml").unwrap_err().0;
        assert!(nobody[0].starts_with("x.toml:2: there is no profile 'rpi' to be like; use sim, "), "{nobody:?}");
    }

    #[test]
    fn a_machine_has_the_profile_that_names_it_and_a_strange_one_has_none() {
        for (model, profile) in [
            ("Raspberry Pi 3 Model B Rev 1.2", Some("rpi-3b-plus")),
            ("Raspberry Pi 3 Model B Plus Rev 1.3", Some("rpi-3b-plus")),
            ("Raspberry Pi 4 Model B Rev 1.5", Some("rpi-4b")),
            ("Raspberry Pi 400 Rev 1.0", Some("rpi-4b")),
            ("Raspberry Pi 5 Model B Rev 1.0", Some("rpi-5")),
            ("Raspberry Pi Compute Module 4 Rev 1.1", Some("rpi-cm4-io")),
            ("Raspberry Pi Zero 2 W Rev 1.0", Some("rpi-zero-2w")),
            ("Raspberry Pi Zero W Rev 1.1", None),
            ("", None),
        ] {
            assert_eq!(Board::of_machine(model), profile, "{model}");
        }
        let own = of_pi("").unwrap();
        assert!(own.model.is_empty(), "a profile that is like another is for no machine by itself");
    }

    #[test]
    fn a_line_on_the_wrong_pin_is_a_hazard_that_is_told() {
        let line = |at: &str| {
            let board = of_pi(&format!("[[line]]\nname = \"radio.1.ptt\"\n{at}\n")).unwrap();
            board.hazards().into_iter().map(|(_, sentence)| sentence).collect::<Vec<_>>()
        };
        assert_eq!(
            line("direction = \"output\"\noffset = 2"),
            [
                "line 'radio.1.ptt' is on GPIO 2, which is also for I2C, with 1.8 kilohm to 3.3 V on the board: the \
                 control bus of sound cards",
                "output 'radio.1.ptt' is active high on GPIO 2, which is pulled high after reset: it is on until the \
                 gateway runs"
            ]
        );
        assert!(line("direction = \"output\"\noffset = 25\nactive_low = true")[0].contains("pulled low after reset"));
        assert_eq!(line("direction = \"input\"\noffset = 25"), [""; 0]);
    }

    #[test]
    fn a_place_that_the_kernel_cannot_find_is_an_error_with_a_remedy() {
        let told = |head: &str, line: &str| {
            let line = format!("[[line]]\nname = \"a\"\ndirection = \"input\"\n{line}\n");
            Board::parse(&format!("name = \"x\"\nbackend = \"cdev\"\n{head}\n{line}"), "x.toml")
                .unwrap_err()
                .0
                .join("\n")
        };
        for (head, line, sentence) in [
            ("", "", "line 'a' says nowhere which pin it is; give offset, its number on the chip, or kernel_line"),
            ("", "offset = 1", "line 'a' has an offset and no chip; give the chip's label"),
            ("chip = \"c\"", "offset = 1\nkernel_line = \"B\"", "line 'a' has both offset and kernel_line"),
            ("chip = \"gpiochip4\"", "offset = 1", "line 'a' names the chip 'gpiochip4', a number that changes"),
            ("chip = 4", "offset = 1", "write the label of a chip, such as \"pinctrl-bcm2711\", or a list of them"),
            ("chip = \"c\"\nheader = \"raspberry-pi\"", "offset = 17\npin = 12", "but GPIO 17 is pin 11 of the header"),
            ("header = \"raspberry-pi\"", "kernel_line = \"B\"\npin = 6", "pin = 6, which is a supply or ground"),
            ("header = \"raspberry-pi\"", "kernel_line = \"B\"\npin = 41", "use 1 to 40"),
        ] {
            let errors = told(head, line);
            assert!(errors.starts_with("x.toml:") && errors.contains(sentence), "{sentence}: {errors}");
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
        assert!(board.misfits(&wanted, &["e".into()], &[])[0].1.contains("cut wire"));
        assert!(board.misfits(&wanted, &[], &["e".into()]).is_empty());
    }
}
