//! Pages of the documentation that are made of what the program does. REWRITE_DOCS=1 writes them anew.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::path::Path;

/// A page ends with a part that is made by the program and begins with `first_line`.
fn ends_with(page: &str, first_line: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
    let text = std::fs::read_to_string(&path).unwrap();
    let (by_hand, _) = text.split_once(first_line).unwrap();
    let wanted = format!("{by_hand}{made}");
    if std::env::var_os("REWRITE_DOCS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    } else {
        assert_eq!(text, wanted, "docs/{page} is out of date; run this test with REWRITE_DOCS=1");
    }
}

#[test]
fn the_page_of_lamp_codes_is_the_table_of_the_core() {
    ends_with("lamps.md", "| the lamp |", &crosspatch::control::codes_as_markdown());
}

#[test]
fn the_reference_of_the_configuration_is_what_the_parser_takes() {
    ends_with("configuration.md", "## `[event]`", &crosspatch::gateway::knobs::reference());
}

#[test]
fn the_parts_of_the_interface_are_those_that_are_worked_out() {
    ends_with("technician.md", "| part | value | why |", &crosspatch::hardware::interface::parts_as_markdown());
}

/// The pages that people read with the program at hand.
const PAGES: &[&str] =
    &["README.md", "docs/technician.md", "docs/dispatcher.md", "docs/operator.md", "docs/configuration.md"];

fn page(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn every_link_of_the_documentation_leads_somewhere() {
    for name in PAGES {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        for link in page(name).split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let leads = link.is_empty() || link.starts_with("http") || file.parent().unwrap().join(link).exists();
            assert!(leads, "{name}: there is no {link}");
        }
    }
}

#[test]
fn every_command_in_the_documentation_is_one() {
    let known = |words: &[&str]| {
        let shown = std::process::Command::new(env!("CARGO_BIN_EXE_crosspatch")).args(words).arg("--help").output();
        shown.unwrap().status.success()
    };
    let mut seen = 0;
    for name in PAGES {
        let text = page(name);
        // In code only: prose speaks of the program by its name, too.
        let commands = text.split("`crosspatch ").skip(1).chain(text.split("\ncrosspatch ").skip(1));
        for command in commands {
            let is_word = |word: &&str| word.chars().next().is_some_and(|c| c.is_ascii_lowercase());
            let end = |c: char| c.is_whitespace() || "`,;:".contains(c);
            let words: Vec<_> = command.split(end).take(2).take_while(is_word).collect();
            let is_known = known(&words) || known(&words[..1]) && !known(&["-"]) && !has_commands(words[0]);
            assert!(is_known, "{name}: crosspatch {words:?}");
            seen += 1;
        }
    }
    assert!(seen > 40, "they are found: {seen}");
}

/// True for a command that is made of others, so that its second word has to be one of them.
fn has_commands(word: &str) -> bool {
    matches!(
        word,
        "audit" | "audio" | "ban" | "board" | "channel" | "config" | "emergency" | "gpio" | "person" | "recording"
    )
}

/// Nobody here has the containers of `cross`; what it is told can be compared with what builds without them.
#[test]
fn what_cross_is_told_is_what_dev_installs() {
    let told: toml::Table = page("cross.toml").parse().unwrap();
    let targets = told["target"].as_table().unwrap();
    assert!(targets.keys().eq(["aarch64-unknown-linux-gnu", "armv7-unknown-linux-gnueabihf"]), "{targets:?}");
    let dev = page("dev");
    let build = dev.split_once("need_to_build() {").unwrap().1.split_once("apt_install ").unwrap().1;
    // Its images have compilers and certificates of their own.
    let there = ["gcc", "libc6-dev", "make", "ca-certificates"];
    let mut needed: Vec<_> = build.lines().next().unwrap().split(' ').filter(|p| !there.contains(p)).collect();
    needed.sort_unstable();
    for (target, told) in targets {
        let commands: Vec<_> = told["pre-build"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
        let [add, install] = commands.as_slice() else { panic!("{target}: {commands:?}") };
        assert_eq!(*add, "dpkg --add-architecture $CROSS_DEB_ARCH", "{target}");
        let install = install.strip_prefix("apt-get update && apt-get install --assume-yes --no-install-recommends ");
        let (own, for_target): (Vec<_>, Vec<_>) = install.unwrap().split(' ').partition(|p| !p.contains(':'));
        assert_eq!(for_target, ["libasound2-dev:$CROSS_DEB_ARCH"], "{target}: what is linked is the board's");
        let mut all: Vec<_> = own.into_iter().chain(["libasound2-dev"]).collect();
        all.sort_unstable();
        assert_eq!(all, needed, "{target}");
    }
    for page in [page("README.md"), page("cross.toml")] {
        assert!(page.contains("CROSS_CONFIG=cross.toml cross build"), "it looks for Cross.toml otherwise");
    }
}

#[test]
fn every_desk_in_the_documentation_is_a_valid_configuration() {
    let page = include_str!("../docs/desk.md");
    let demo = include_str!("../src/gateway/demo.toml");
    let event = demo.split("[[desk]]").next().unwrap();
    let examples: Vec<_> = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 2);
    for example in examples {
        let (board, desk) = example.split_once("[[desk]]").unwrap();
        let board = if board.contains("board =") { board } else { "board = \"rpi-4b\"\n" };
        crosspatch::gateway::config::Config::parse(&format!("{board}{event}[[desk]]{desk}"), "desk.md").unwrap();
    }
}
