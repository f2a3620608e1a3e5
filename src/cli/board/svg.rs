//! The header as a picture: pins as they lie, names beside them, colours for what they are.

use super::{Uses, at, short};
use crate::hardware::board::{Board, Header, Line};
use crate::hardware::gpio::Direction;
use crate::hardware::header::{self, Pin};
use std::fmt::{self, Write};

const WIDTH: u32 = 1040;
const TOP: u32 = 96;
const ROW: u32 = 30;
const MIDDLE: u32 = WIDTH / 2;
/// From the middle to the centre of a pin.
const PIN: u32 = 17;
/// From the middle to where names begin.
const NAME: u32 = 132;

const SUPPLY: &str = "#c0392b";
const GROUND: &str = "#2b2b2b";
const INPUT: &str = "#1f6fb2";
const OUTPUT: &str = "#c77700";
const FREE: &str = "#7fae5c";
const RESERVED: &str = "#b9b9b9";

/// Draws the header of a board.
///
/// # Errors
/// If the profile knows no header.
pub(super) fn draw(board: &Board, uses: &Uses) -> anyhow::Result<String> {
    anyhow::ensure!(
        board.header == Some(Header::RaspberryPi),
        "the profile '{}' says nothing of a header to draw; give it header = \"raspberry-pi\" if it has one",
        board.name
    );
    let mut out = String::new();
    picture(&mut out, board, uses)?;
    Ok(out)
}

fn picture(out: &mut String, board: &Board, uses: &Uses) -> fmt::Result {
    let rows = u32::from(header::PINS / 2);
    let height = TOP + rows * ROW + 56;
    writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"DejaVu Sans, Verdana, sans-serif\" font-size=\"14\">"
    )?;
    writeln!(out, "<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>")?;
    let title = escaped(&board.name);
    writeln!(
        out,
        "<text x=\"{MIDDLE}\" y=\"36\" text-anchor=\"middle\" font-size=\"22\" font-weight=\"bold\">{title}</text>"
    )?;
    let chip = escaped(&board.chip.join(" or "));
    let wired = board.lines.iter().filter(|line| line.pin.is_some()).count();
    writeln!(
        out,
        "<text x=\"{MIDDLE}\" y=\"60\" text-anchor=\"middle\" fill=\"#555555\">{wired} lines on {chip}, seen from above, pin 1 at the corner of the board</text>"
    )?;
    writeln!(
        out,
        "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"6\" fill=\"#e9e6df\" stroke=\"#8a8578\"/>",
        MIDDLE - 36,
        TOP - 18,
        72,
        rows * ROW + 6
    )?;
    for number in 1..=header::PINS {
        pin(out, board, uses, number)?;
    }
    legend(out, height - 30)?;
    writeln!(out, "</svg>")
}

fn pin(out: &mut String, board: &Board, uses: &Uses, number: u8) -> fmt::Result {
    let Some(pin) = header::pin(number) else { return Ok(()) };
    let left = number % 2 == 1;
    let y = TOP + u32::from((number - 1) / 2) * ROW;
    let from_middle = |distance: u32| if left { MIDDLE - distance } else { MIDDLE + distance };
    let anchor = if left { "end" } else { "start" };
    let line = at(board, number);
    let (colour, kind, name) = match (pin, line) {
        (Pin::Supply3V3, _) => (SUPPLY, "3.3 V".to_owned(), String::new()),
        (Pin::Supply5V, _) => (SUPPLY, "5 V".to_owned(), String::new()),
        (Pin::Ground, _) => (GROUND, "ground".to_owned(), String::new()),
        (Pin::Gpio(gpio), Some(line)) => (colour(line), format!("GPIO {}", gpio.offset), line.name.to_string()),
        (Pin::Gpio(gpio), None) => match gpio.reserved {
            Some(by) => (RESERVED, format!("GPIO {}", gpio.offset), short(by).to_owned()),
            None => (FREE, format!("GPIO {}", gpio.offset), "free".to_owned()),
        },
    };
    let (x, text_y) = (from_middle(PIN), y + 5);
    if number == 1 {
        writeln!(out, "<rect x=\"{}\" y=\"{}\" width=\"24\" height=\"24\" fill=\"{colour}\"/>", x - 12, y - 12)?;
    } else {
        writeln!(out, "<circle cx=\"{x}\" cy=\"{y}\" r=\"12\" fill=\"{colour}\"/>")?;
    }
    let ink = if colour == RESERVED || colour == FREE { "#222222" } else { "#ffffff" };
    writeln!(
        out,
        "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" font-size=\"11\" fill=\"{ink}\">{number}</text>",
        y + 4
    )?;
    writeln!(
        out,
        "<text x=\"{}\" y=\"{text_y}\" text-anchor=\"{anchor}\" fill=\"#555555\" font-size=\"12\">{kind}</text>",
        from_middle(46)
    )?;
    let Some(line) = line else {
        if !name.is_empty() {
            writeln!(
                out,
                "<text x=\"{}\" y=\"{text_y}\" text-anchor=\"{anchor}\" fill=\"#777777\" font-style=\"italic\">{}</text>",
                from_middle(NAME),
                escaped(&name)
            )?;
        }
        return Ok(());
    };
    arrow(out, (from_middle(104), from_middle(124)), y, line)?;
    // The name stands next to its pin, what it is used for outside.
    let name = format!("<tspan font-weight=\"bold\" fill=\"{colour}\">{}</tspan>", escaped(&name));
    let text = match uses.get(&line.name) {
        Some(what) if left => format!("{} {name}", escaped(what)),
        Some(what) => format!("{name} {}", escaped(what)),
        None => name,
    };
    let x = from_middle(NAME);
    writeln!(out, "<text x=\"{x}\" y=\"{text_y}\" text-anchor=\"{anchor}\" fill=\"#333333\">{text}</text>")
}

fn colour(line: &Line) -> &'static str {
    match line.direction {
        Direction::Input => INPUT,
        Direction::Output => OUTPUT,
    }
}

/// To the header for an input, away from it for an output.
fn arrow(out: &mut String, (near, far): (u32, u32), y: u32, line: &Line) -> fmt::Result {
    let (tip, tail) = match line.direction {
        Direction::Input => (near, far),
        Direction::Output => (far, near),
    };
    let back = if tip > tail { tip - 7 } else { tip + 7 };
    let colour = colour(line);
    writeln!(
        out,
        "<path d=\"M{tail} {y}H{back}\" stroke=\"{colour}\" stroke-width=\"2\"/><path d=\"M{tip} {y}L{back} {}V{}Z\" fill=\"{colour}\"/>",
        y - 5,
        y + 5
    )
}

fn legend(out: &mut String, y: u32) -> fmt::Result {
    let entries = [
        (INPUT, "input"),
        (OUTPUT, "output"),
        (FREE, "free"),
        (RESERVED, "better left alone"),
        (GROUND, "ground"),
        (SUPPLY, "supply"),
    ];
    // Letters of 14 pixels are about 8 wide.
    let width = |word: &str| 48 + 8 * u32::try_from(word.len()).unwrap_or_default();
    let mut x = MIDDLE - entries.iter().map(|(_, word)| width(word)).sum::<u32>() / 2 + 16;
    for (colour, word) in entries {
        writeln!(out, "<circle cx=\"{x}\" cy=\"{y}\" r=\"8\" fill=\"{colour}\"/>")?;
        writeln!(out, "<text x=\"{}\" y=\"{}\" fill=\"#333333\">{word}</text>", x + 14, y + 5)?;
        x += width(word);
    }
    Ok(())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
