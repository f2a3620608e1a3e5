//! The systemd unit: every line has its reason, and what it runs is there.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::path::Path;
use std::process::Command;

fn unit() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/crosspatch.service")).unwrap()
}

#[test]
fn every_line_of_the_unit_has_its_reason_above_it() {
    let text = unit();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.iter().filter(|l| l.contains('=')).count() > 30, "this is the unit");
    for (above, line) in lines.iter().zip(&lines[1..]) {
        let is_setting = !line.is_empty() && !line.starts_with(['#', '[']);
        assert!(!is_setting || above.starts_with("# "), "'{line}' has no reason");
    }
}

#[test]
fn every_command_of_the_unit_is_one_of_ours() {
    let text = unit();
    let commands = text.lines().filter_map(|l| l.strip_prefix("Exec")?.split_once('=')).map(|(_, command)| command);
    let commands = commands.map(|c| c.trim_start_matches(['-', '+']));
    let ours: Vec<_> = commands.filter_map(|c| c.strip_prefix("/usr/bin/crosspatch ")).collect();
    assert_eq!(ours.len(), 4, "it checks, runs, reloads and unkeys: {ours:?}");
    for command in ours {
        let mut words = command.split(' ');
        let help = Command::new(env!("CARGO_BIN_EXE_crosspatch")).args([words.next().unwrap(), "--help"]).output();
        let help = String::from_utf8(help.unwrap().stdout).unwrap();
        for option in words.filter(|w| w.starts_with("--")) {
            assert!(help.contains(option), "'{command}': there is no {option} in {help}");
        }
    }
}
