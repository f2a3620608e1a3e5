//! `crosspatch board`: which profiles there are, and where the lines of one are on its header.

mod interface;
mod svg;

use crate::base::LineName;
use crate::gateway::config::Config;
use crate::hardware::board::{Backend, Bias, Board, Contact, Header, Line};
use crate::hardware::gpio::Direction;
use crate::hardware::header::{self, Pin};
use clap::{Args, Subcommand};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// Columns of a terminal.
const WIDTH: usize = 80;

#[derive(Args)]
pub struct BoardArgs {
    #[command(subcommand)]
    command: BoardCommand,
}

#[derive(Subcommand)]
enum BoardCommand {
    /// Lists the profiles that the program carries.
    List,
    /// Shows the header with the lines on it, how each is wired, and what to know when wiring.
    Show {
        /// A profile's name, or a .toml file; the configuration's by default.
        #[arg(required_unless_present = "config")]
        name: Option<String>,
        /// Shows also what the configuration uses each line for.
        #[arg(long)]
        config: Option<PathBuf>,
        /// Prints the header as a picture.
        #[arg(long)]
        svg: bool,
    },
    /// Shows how to wire a common radio: PTT and carrier through optocouplers, audio through transformers.
    Interface {
        /// The profile whose pins are named.
        #[arg(default_value = "rpi-4b")]
        name: String,
        /// Prints the schematic as a picture.
        #[arg(long)]
        svg: bool,
    },
}

/// What lines are used for.
type Uses = BTreeMap<LineName, String>;

pub fn run(args: BoardArgs) -> anyhow::Result<()> {
    match args.command {
        BoardCommand::Interface { name, svg: true } => print!("{}", interface::draw(&Board::load(&name)?)?),
        BoardCommand::Interface { svg: false, .. } => print!("{}", interface_parts()),
        BoardCommand::List => print!("{}", list()?),
        BoardCommand::Show { name, config, svg } => {
            let config = config.map(|path| Config::read(&path)).transpose()?;
            let uses = config.as_ref().map(uses).unwrap_or_default();
            let name = name.or(config.map(|c| c.board)).unwrap_or_default();
            let board = Board::load(&name)?;
            print!("{}", if svg { svg::draw(&board, &uses)? } else { text(&board, &uses) });
        }
    }
    Ok(())
}

/// The parts of the interface for a terminal.
fn interface_parts() -> String {
    let mut out = String::from("The interface of a radio; --svg draws it.\n\n");
    for part in crate::hardware::interface::parts() {
        out += &wrapped(&format!("{}: {}", part.value, part.why), &format!("{:<8}", part.name), "        ");
    }
    out
}

fn list() -> anyhow::Result<String> {
    let mut out = String::new();
    for name in Board::built_in() {
        let board = Board::load(name)?;
        writeln!(out, "{name:<12}  {:<36}  {}", board.name, chip(&board))?;
    }
    Ok(out)
}

fn chip(board: &Board) -> String {
    match (board.backend, board.chip.as_slice()) {
        (Backend::Sim, _) => "no chip".into(),
        (Backend::Cdev | Backend::Rppal, []) => "any chip, lines by name".into(),
        (Backend::Cdev, labels) => format!("chip {}", labels.join(" or ")),
        (Backend::Rppal, labels) => format!("chip {}, through rppal", labels.join(" or ")),
    }
}

/// What the configuration makes of each line.
fn uses(config: &Config) -> Uses {
    config.line_uses().into_iter().map(|(spec, what)| (spec.name, what)).collect()
}

/// How a line rests and what it does when it is active.
fn electrics(line: &Line) -> String {
    let pull = match line.bias {
        Bias::Off => "no pull",
        Bias::PullUp => "pull-up",
        Bias::PullDown => "pull-down",
    };
    let active = if line.active_low { "active low" } else { "active high" };
    match (line.direction, line.contact) {
        (Direction::Input, Contact::NormallyClosed) => format!("in, {pull}, {active}, opens"),
        (Direction::Input, Contact::NormallyOpen) => format!("in, {pull}, {active}"),
        (Direction::Output, _) => format!("out, {pull}, {active}"),
    }
}

/// The whole page for a terminal.
fn text(board: &Board, uses: &Uses) -> String {
    let mut out = format!("{}: {} lines, {}\n", board.name, board.lines.len(), chip(board));
    if board.header == Some(Header::RaspberryPi) {
        out += "\n";
        for row in 0..header::PINS / 2 {
            let (left, right) = (2 * row + 1, 2 * row + 2);
            let line = format!("{:>36} {left:>2} | {right:<2} {}", cell(board, left, true), cell(board, right, false));
            out += line.trim_end();
            out += "\n";
        }
        out += "\n  Arrows point to the header for inputs, away from it for outputs; - is better\n  left alone. Pin 1 has the square pad.\n";
    }
    out += "\n";
    let column = board.lines.iter().map(|line| line.name.as_str().len()).max().unwrap_or_default() + 2;
    for line in &board.lines {
        let place = match (line.offset, &line.kernel_line, line.pin) {
            (Some(offset), _, Some(pin)) if board.header.is_some() => format!("pin {pin}, GPIO {offset}"),
            (Some(offset), _, _) => format!("offset {offset}"),
            (None, Some(name), _) => name.clone(),
            (None, None, _) => String::new(),
        };
        let head = match board.backend {
            Backend::Sim if line.direction == Direction::Input => "in".to_owned(),
            Backend::Sim => "out".to_owned(),
            Backend::Cdev | Backend::Rppal => format!("{place:<17} {}", electrics(line)),
        };
        let _ = writeln!(out, "{:<column$}{head}", line.name.as_str());
        let told: Vec<_> = uses.get(&line.name).into_iter().chain(&line.wiring).map(String::as_str).collect();
        if !told.is_empty() {
            let indent = " ".repeat(column);
            out += &wrapped(&told.join(": "), &indent, &indent);
        }
    }
    let used_lines = board.lines.iter().filter(|line| uses.contains_key(&line.name)).count();
    if !uses.is_empty() {
        let _ = writeln!(out, "\nThe configuration uses {used_lines} of them.");
    }
    for (_, hazard) in board.hazards() {
        out += "\n";
        out += &wrapped(&hazard, "! ", "  ");
    }
    for note in &board.wiring_notes {
        out += "\n";
        out += &wrapped(note, "- ", "  ");
    }
    out
}

/// One pin of the header, to the left or the right of it.
fn cell(board: &Board, number: u8, left: bool) -> String {
    let Some(pin) = header::pin(number) else { return String::new() };
    let gpio = match pin {
        Pin::Supply3V3 => return "3.3 V".into(),
        Pin::Supply5V => return "5 V".into(),
        Pin::Ground => return "ground".into(),
        Pin::Gpio(gpio) => gpio,
    };
    let (what, way) = match (at(board, number), gpio.reserved) {
        (Some(line), _) if line.direction == Direction::Input => (line.name.as_str().to_owned(), '<'),
        (Some(line), _) => (line.name.as_str().to_owned(), '>'),
        (None, Some(by)) => (short(by).to_owned(), '-'),
        (None, None) => ("free".into(), ' '),
    };
    // Arrows point to the box for an input, away from it for an output.
    let way = match way {
        '<' if left => '>',
        '>' if left => '<',
        same => same,
    };
    let name = format!("GPIO {}", gpio.offset);
    if left { format!("{what} {way} {name:>7}") } else { format!("{name:<7} {way} {what}") }
}

/// What reserves a pin, without the details.
fn short(by: &str) -> &str {
    by.split([',', ':']).next().unwrap_or(by)
}

fn at(board: &Board, pin: u8) -> Option<&Line> {
    board.lines.iter().find(|line| line.pin == Some(pin))
}

/// Text in lines that fit a terminal.
fn wrapped(text: &str, first: &str, then: &str) -> String {
    let (mut out, mut line) = (String::new(), first.to_owned());
    let mut is_empty = true;
    for word in text.split(' ') {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            out += line.trim_end();
            out.push('\n');
            line = then.to_owned();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line += word;
        is_empty = false;
    }
    out + line.trim_end() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_profile_fits_into_80_columns_and_shows_all_its_lines() {
        for name in Board::built_in() {
            let board = Board::load(name).unwrap();
            let page = text(&board, &Uses::new());
            for line in page.lines() {
                assert!(line.chars().count() <= WIDTH, "{name}: {line}");
            }
            for line in &board.lines {
                assert!(page.contains(line.name.as_str()), "{name}: {}", line.name);
            }
            let listed = list().unwrap();
            assert!(listed.lines().any(|l| l.starts_with(name) && l.chars().count() <= WIDTH), "{listed}");
        }
    }

    #[test]
    fn the_header_shows_lines_beside_their_pins_with_arrows_to_or_from_the_box() {
        let page = text(&Board::load("rpi-4b").unwrap(), &Uses::new());
        for row in [
            "                               3.3 V  1 | 2  5 V",
            "                       I2C -  GPIO 2  3 | 4  5 V",
            "                 emergency >  GPIO 4  7 | 8  GPIO 14 - the serial console",
            "              emergency.nc > GPIO 17 11 | 12 GPIO 18 - I2S",
            "               radio.1.ptt < GPIO 27 13 | 14 ground",
            "           radio.1.carrier > GPIO 22 15 | 16 GPIO 23 > radio.2.ptt",
            "                fault.lamp <  GPIO 9 21 | 22 GPIO 25   free",
        ] {
            assert!(page.lines().any(|l| l == row), "{row}\n{page}");
        }
    }

    #[test]
    fn a_configuration_says_what_lines_are_for() {
        let demo = Config::demo();
        let uses = uses(&demo);
        assert_eq!(uses.len(), demo.lines().len(), "no line without a use: {uses:?}");
        let page = text(&demo.board().unwrap(), &uses);
        assert!(page.contains("PTT of Operations"), "{page}");
        assert!(page.contains("emergency button of Desk 1"), "{page}");
        assert!(page.contains("PTT output of VHF 1"), "{page}");
    }

    #[test]
    fn a_hazard_is_shown() {
        let text_of = "name = \"x\"\nlike = \"rpi-5\"\nbackend = \"cdev\"\n[[line]]\nname = \"radio.1.ptt\"\ndirection = \"output\"\noffset = 2\n";
        let page = text(&Board::parse(text_of, "x.toml").unwrap(), &Uses::new());
        assert!(page.contains("! output 'radio.1.ptt' is active high on GPIO 2"), "{page}");
    }

    /// `REWRITE_PICTURES=1 cargo test --lib pictures` draws them anew after a wanted change.
    #[test]
    fn the_pictures_in_the_docs_are_drawn_from_the_profiles() {
        for name in Board::built_in().filter(|name| name.starts_with("rpi-")) {
            let picture = svg::draw(&Board::load(name).unwrap(), &Uses::new()).unwrap();
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/boards/{name}.svg"));
            if std::env::var_os("REWRITE_PICTURES").is_some() {
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(&file, &picture).unwrap();
            }
            let kept = std::fs::read_to_string(&file).unwrap_or_default();
            assert!(kept == picture, "{} is not what the profile says; see above", file.display());
        }
        let interface = interface::draw(&Board::load("rpi-4b").unwrap()).unwrap();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/interface.svg");
        if std::env::var_os("REWRITE_PICTURES").is_some() {
            std::fs::write(&file, &interface).unwrap();
        }
        assert!(std::fs::read_to_string(&file).unwrap_or_default() == interface, "docs/interface.svg is out of date");
    }
}
