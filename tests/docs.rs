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
