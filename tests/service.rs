//! The systemd units: every line has its reason, and what they run is there.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::path::Path;
use std::process::Command;

fn units() -> Vec<String> {
    let dir = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")).unwrap();
    let paths = dir.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|e| e == "service"));
    paths.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn every_line_of_the_units_has_its_reason_above_it() {
    let units = units();
    let lines: Vec<_> = units.iter().flat_map(|text| text.lines()).collect();
    assert!(lines.iter().filter(|l| l.contains('=')).count() > 30, "these are the units");
    for (above, line) in lines.iter().zip(&lines[1..]) {
        let is_setting = !line.is_empty() && !line.starts_with(['#', '[']);
        assert!(!is_setting || above.starts_with("# "), "'{line}' has no reason");
    }
}

#[test]
fn every_command_of_the_units_is_one_of_ours() {
    let units = units();
    let commands = units
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|l| l.strip_prefix("Exec")?.split_once('='))
        .map(|(_, command)| command);
    let commands = commands.map(|c| c.trim_start_matches(['-', '+']));
    let in_image = include_str!("../board/image/root/usr/lib/crosspatch/take-late-card");
    let in_image = in_image.lines().filter_map(|l| l.strip_prefix("crosspatch ")?.split_once(" ||")).map(|(c, _)| c);
    let ours: Vec<_> = commands.filter_map(|c| c.strip_prefix("/usr/bin/crosspatch ")).chain(in_image).collect();
    assert_eq!(ours.len(), 8, "they provision, late too, update, restore, check, run, reload and unkey: {ours:?}");
    for command in ours {
        let words: Vec<_> = command.split(' ').collect();
        let named = words.iter().take_while(|w| w.bytes().all(|b| b.is_ascii_lowercase())).chain([&"--help"]);
        let help = Command::new(env!("CARGO_BIN_EXE_crosspatch")).args(named).output();
        let help = help.unwrap();
        assert!(help.status.success(), "'{command}': {}", String::from_utf8_lossy(&help.stderr));
        let help = String::from_utf8(help.stdout).unwrap();
        for option in words.into_iter().filter(|w| w.starts_with("--")) {
            assert!(help.contains(option), "'{command}': there is no {option} in {help}");
        }
    }
}
