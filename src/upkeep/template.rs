//! The files that the program writes for people: a configuration to begin with, and one to stand in for none.

use super::sheet;
use crate::gateway::config::Config;
use crate::hardware::board::{Board, BoardError};
use crate::hardware::gpio::Direction;
use std::fmt::Write;

/// How the configuration that stands in for none begins.
pub const NONE_YET: &str = "# No good configuration yet";

/// What goes into the places of a new file when nobody says otherwise.
const DEFAULTS: [(&str, &str); 3] = [("hostname", "crosspatch"), ("address", "dhcp"), ("desk", "Desk 1")];

/// A commented file for a board, valid as it is. With `for_cards` it has a place for each column of a list of boxes.
///
/// # Errors
/// If there is no such board.
pub fn new_file(board: &str, for_cards: bool) -> Result<String, BoardError> {
    let profile = Board::load(board)?;
    let has = |name: &str, direction| profile.lines.iter().any(|l| l.name.as_str() == name && l.direction == direction);
    let mut desk = String::new();
    let mut say = |line: String| writeln!(desk, "{line}").expect("writing to a string works");
    for (key, line, direction) in [
        ("emergency_line", "emergency", Direction::Input),
        ("emergency_opening_line", "emergency.nc", Direction::Input),
        ("emergency_tally_line", "emergency.lamp", Direction::Output),
        ("fault_tally_line", "fault.lamp", Direction::Output),
        ("buzzer_line", "buzzer", Direction::Output),
    ] {
        if has(line, direction) {
            say(format!("{key} = \"{line}\""));
        }
    }
    for (channel, n) in ["ops", "medical"].iter().zip(1..) {
        say(format!("\n[[desk.button]]\nchannel = \"{channel}\""));
        for (key, line, direction) in [
            ("ptt_line", format!("button.{n}"), Direction::Input),
            ("tally_line", format!("lamp.{n}"), Direction::Output),
        ] {
            if has(&line, direction) {
                say(format!("{key} = \"{line}\""));
            }
        }
    }
    let boards: Vec<_> = Board::built_in().collect();
    let text = TEMPLATE
        .replace("{boards}", &boards.join(", "))
        .replace("{board}", board)
        .replace("{desk_lines}", desk.trim_end());
    if for_cards {
        return Ok(text);
    }
    Ok(DEFAULTS.iter().fold(text, |text, (column, value)| text.replace(&format!("{{{column}}}"), value)))
}

const TEMPLATE: &str = r#"# What this box is. Change it on any computer, put the card back, switch the box on.
# It takes the file over when it starts, and writes crosspatch-applied.txt here; when something in it is wrong it writes
# crosspatch-errors.txt with the lines, and goes on as it was before. A line that begins with # says nothing to the box.

# The board that the buttons, lamps and radios are wired to: {boards}.
board = "{board}"

[box]
# The box's name on the network: small letters, digits, hyphens. Phones open https://<this name>.local:8443/trust
hostname = "{hostname}"
# true writes crosspatch-links.txt here when a changed file is taken over, with a link for each person at its end.
# Whoever has a link can talk as that person: hand it on, then delete the file.
join_links = false
join_links_days = 14

[[network]]
# Every wired interface; or only one: interface = "eth0"
# "dhcp", or a fixed address with its network, such as "192.168.10.5/24".
address = "{address}"
# With a fixed address:
# gateway = "192.168.10.1"
# dns = ["192.168.10.1"]
# A box with only a switch or an access point gives the phones their addresses itself:
# serve_dhcp = true

[event]
# The event's id. Links and tokens are good for this event only.
id = "event"
# How long a general user may talk, in seconds.
talk_limit_s = 60

[tls]
# Where phones and browsers come in.
listen = "0.0.0.0:8443"

# The talk channels: an id of small letters, and the name that people see.
[[channel]]
id = "ops"
name = "Operations"

[[channel]]
id = "medical"
name = "Medical"

# The dispatch desk that is wired to this box. Take all of it out if there is none.
[[desk]]
user = "desk-1"
name = "{desk}"
# Its sound card: "default", or a name that `crosspatch audio list` prints on the box.
capture_pcm = "default"
playback_pcm = "default"
{desk_lines}

# A radio that is wired to this box:
# [[radio]]
# id = "vhf"
# user = "radio-vhf"
# name = "VHF"
# channel = "ops"
# carrier_line = "radio.1.carrier"
# ptt_line = "radio.1.ptt"
# card = "usb:1-1.3"                # its sound card, as `crosspatch audio list` names it on the box

# The people that the box knows from the beginning: role "general", "dispatch" or "admin".
# Without channels a person may join all of the above.
# [[person]]
# id = "anna"
# name = "Anna"
# role = "dispatch"
# channels = ["ops", "medical"]
"#;

/// The configuration of a box that has none: no channel to talk on that anybody could reach, but a lamp that says so.
///
/// `faulty` is what was refused, of which only the board counts; `model` is what the machine calls itself.
#[must_use]
pub fn stand_in(faulty: &str, model: Option<&str>) -> String {
    let written = faulty.lines().find_map(|line| {
        let value = line.trim_start().strip_prefix("board")?.trim_start().strip_prefix('=')?.trim_start();
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        value[1..].split(quote).next()
    });
    let known = |name: &&str| Board::built_in().any(|n| n == *name);
    let board = written.filter(known).or_else(|| model.and_then(Board::of_machine)).unwrap_or("sim");
    let text = |lamp: &str| {
        format!(
            "{NONE_YET}: crosspatch-errors.txt on the card says why.\nboard = \"{board}\"\n\n[event]\nid = \"none\"\n\n\
             [[channel]]\nid = \"none\"\nname = \"No configuration\"\n\n[[desk]]\nuser = \"box\"\nname = \"Box\"\n{lamp}"
        )
    };
    let lit = text("fault_tally_line = \"fault.lamp\"\n");
    if Config::parse(&lit, "").is_ok() { lit } else { text("") }
}

/// A new file as it goes onto a card.
///
/// # Errors
/// As [`new_file`].
pub fn new_for_laptops(board: &str, for_cards: bool) -> Result<String, BoardError> {
    new_file(board, for_cards).map(|text| sheet::for_laptops(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_valid_on_every_board_and_says_nothing_twice() {
        for board in Board::built_in() {
            let text = new_file(board, false).unwrap();
            let config = Config::parse(&text, board).unwrap_or_else(|e| panic!("{board}: {e}\n{text}"));
            assert_eq!(config.site.hostname.as_deref(), Some("crosspatch"), "{board}");
            let wired = board != "sim";
            assert_eq!(
                config.desks[0].emergency_line.is_some() && config.desks[0].buttons[1].tally_line.is_some(),
                wired
            );
        }
        assert!(new_file("pie", false).unwrap_err().to_string().contains("use sim, generic"));
    }

    #[test]
    fn what_is_commented_out_in_a_new_file_is_valid_too() {
        let text = new_file("rpi-4b", false).unwrap();
        let (before, after) = text.split_once("# [[radio]]").unwrap();
        let (radio, people) = after.split_once("\n\n").unwrap();
        let plain = |part: &str| part.replace("\n# ", "\n");
        let people = people.split_once("# [[person]]").unwrap().1;
        let whole = format!("{before}[[radio]]{}\n[[person]]{}", plain(radio), plain(people));
        let config = Config::parse(&whole, "x.toml").unwrap_or_else(|e| panic!("{e}\n{whole}"));
        assert_eq!((config.radios.len(), config.people.len()), (1, 1));
    }

    #[test]
    fn a_box_without_a_configuration_has_a_lamp_on_the_board_that_it_probably_is() {
        let lamp = |faulty: &str, model: Option<&str>| {
            let config = Config::parse(&stand_in(faulty, model), "").unwrap();
            (config.board.clone(), config.desks[0].fault_tally_line.is_some())
        };
        let pi = Some("Raspberry Pi 4 Model B Rev 1.5");
        assert_eq!(lamp("  board='rpi-5' # mine\n[[", pi), ("rpi-5".into(), true));
        assert_eq!(lamp("board = \"pie\"", pi), ("rpi-4b".into(), true));
        assert_eq!(lamp("", None), ("sim".into(), false));
    }
}
