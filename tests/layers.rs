//! Imports go down only; rooms on one layer do not know each other. `ARCHITECTURE.md` draws this.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::path::{Path, PathBuf};

/// From the bottom up. A room may import rooms of lower layers, and itself.
const LAYERS: &[&[&str]] = &[
    &["base"],
    &["control", "audit", "media", "hardware", "net", "people", "recorder", "doctor"],
    &["wire"],
    &["gateway"],
    &["upkeep"],
    &["cli"],
];

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn layer_of(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.contains(&room))
}

/// The rooms that a source file names as `crate::room`.
fn imports(text: &str) -> Vec<String> {
    let after = text.split("crate::").skip(1);
    after.map(|t| t.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()).collect()
}

#[test]
fn imports_only_go_down() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    assert!(files.len() > 30, "the sources are where this test looks for them");
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        let room = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if matches!(room, "main" | "lib") {
            continue;
        }
        let layer =
            layer_of(room).unwrap_or_else(|| panic!("{room} has no layer; give it one here and in ARCHITECTURE.md"));
        for import in imports(&std::fs::read_to_string(&file).unwrap()) {
            let imported = layer_of(&import)
                .unwrap_or_else(|| panic!("{} imports {import}, which has no layer", inside.display()));
            assert!(
                import == room || imported < layer,
                "{} imports {import}: rooms import downwards only, and siblings meet in gateway",
                inside.display()
            );
        }
    }
}

#[test]
fn the_core_knows_no_clock_and_does_no_io() {
    let mut files = Vec::new();
    rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/control"), &mut files);
    let banned = ["base::clock", "Instant", "SystemTime", "std::thread", "tokio", "std::fs", "std::net", "rand"];
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for word in banned {
            let code = text.lines().filter(|l| !l.trim_start().starts_with("//"));
            let used = code.filter(|l| {
                l.split(|c: char| !(c.is_alphanumeric() || c == ':' || c == '_'))
                    .any(|w| w.split("::").any(|p| p == word) || w.contains(word) && word.contains("::"))
            });
            assert_eq!(used.count(), 0, "{} uses {word}; time and IO are handed in", file.display());
        }
    }
}
