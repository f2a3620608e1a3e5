//! A report as one screen of text.

use super::{Outcome, Report};
use std::fmt::Write;

/// Columns of a terminal.
pub const WIDTH: usize = 80;
/// Where sentences begin.
const INDENT: usize = 22;

/// The screen: a line or two a check, then what it comes to.
#[must_use]
pub fn as_text(report: &Report) -> String {
    let who = if report.by_gateway { "the gateway looks at itself" } else { "no gateway runs" };
    let mut out = format!("crosspatch doctor {}, {}, {who}\n\n", report.version, report.at);
    for check in &report.checks {
        let mut head = format!("{:<6}{:<16}", check.outcome.as_str(), check.name);
        for sentence in &check.found {
            for line in wrapped(sentence) {
                let _ = writeln!(out, "{head:<INDENT$}{line}");
                head.clear();
            }
        }
    }
    let count = |outcome| report.count(outcome);
    let _ = write!(
        out,
        "\n{} checks: {} pass, {} fail, {} skipped.",
        report.checks.len(),
        count(Outcome::Pass),
        count(Outcome::Fail),
        count(Outcome::Skip)
    );
    out + if report.is_well() { " Nothing is wrong.\n" } else { " See what FAIL says to do.\n" }
}

/// A sentence in lines that fit beside the names. What is longer than a line stays whole, to be copied.
fn wrapped(sentence: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in sentence.split_whitespace() {
        let last = lines.last_mut().expect("it begins with one");
        if last.is_empty() {
            *last = word.to_owned();
        } else if last.chars().count() + 1 + word.chars().count() <= WIDTH - INDENT {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(format!("  {word}"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Check;

    #[test]
    fn a_report_is_one_screen_with_what_fails_in_capitals() {
        let checks = vec![
            Check::pass("board", "it is there"),
            Check::fail(
                "disk",
                "4 MB are free of 16 GB; delete recordings or give the box a larger card, then look again",
            ),
            Check::skip("lamps", "not lit"),
        ];
        let report = Report { at: "2025-06-01T10:00:00Z".into(), version: "1.0".into(), by_gateway: false, checks };
        assert_eq!(
            as_text(&report),
            "crosspatch doctor 1.0, 2025-06-01T10:00:00Z, no gateway runs\n\n\
             pass  board           it is there\n\
             FAIL  disk            4 MB are free of 16 GB; delete recordings or give the box\n                        \
             a larger card, then look again\n\
             skip  lamps           not lit\n\n\
             3 checks: 1 pass, 1 fail, 1 skipped. See what FAIL says to do.\n"
        );
    }
}
