//! The commissioning report: what was measured and set, by whom, as text and as JSON.

use super::edit::Setting;
use anyhow::Context;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is as it should be.
    Pass,
    /// It is not.
    Fail,
    /// It was not looked at.
    Skipped,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Fail => "FAIL",
            Outcome::Skipped => "skipped",
        }
    }
}

/// One step.
#[derive(Debug, Serialize)]
pub struct Step {
    /// What was looked at.
    pub name: &'static str,
    /// What came of it.
    pub result: Outcome,
    /// The same in words: what is wrong and what to do, or what is right.
    pub says: String,
    /// What was measured, with units in the names.
    pub measured: Map<String, Value>,
}

/// A key that was set.
#[derive(Debug, Serialize)]
pub struct Change {
    /// Which.
    pub key: &'static str,
    /// As it was configured before, or by default.
    pub before: Setting,
    /// As it is set.
    pub after: Setting,
}

/// The report.
#[derive(Debug, Serialize)]
pub struct Report {
    /// When, RFC 3339.
    pub date: String,
    /// The box's host name.
    #[serde(rename = "box")]
    pub host: String,
    /// The program's version.
    pub version: &'static str,
    /// The event.
    pub event: String,
    /// The radio's id, name and channel.
    pub radio: Value,
    /// The cards or PCMs, and what the system knows of them.
    pub card: Value,
    /// Who.
    pub by: String,
    /// In order.
    pub steps: Vec<Step>,
    /// What was set.
    pub set: Vec<Change>,
    /// The configuration.
    pub config: PathBuf,
    /// True if the keys stand in it now.
    pub written: bool,
}

impl Report {
    /// True if nothing failed and something was looked at.
    #[must_use]
    pub fn passes(&self) -> bool {
        let any = |outcome| self.steps.iter().any(|step| step.result == outcome);
        any(Outcome::Pass) && !any(Outcome::Fail)
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut report = json!(self);
        report["pass"] = self.passes().into();
        report
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "Commissioning of radio {} ({}) on channel {}\n\n  date    {}\n  box     {}, event {}, crosspatch {}\n  card    {}\n  by      {}\n\n",
            self.radio["id"].as_str().unwrap_or_default(),
            self.radio["name"].as_str().unwrap_or_default(),
            self.radio["channel"].as_str().unwrap_or_default(),
            self.date,
            self.host,
            self.event,
            self.version,
            card_in_words(&self.card),
            self.by
        );
        for step in &self.steps {
            let measured: Vec<_> = step.measured.iter().map(|(what, value)| format!("{what} {value}")).collect();
            text += &format!("{:<8}{:<10}{}\n", step.result.as_str(), step.name, step.says);
            if !measured.is_empty() {
                text += &format!("{:<18}{}\n", "", measured.join(", "));
            }
        }
        let state = if self.written { "set in" } else { "NOT written to" };
        text += &format!("\n{state} {}:\n", self.config.display());
        for Change { key, before, after } in &self.set {
            text += &format!("  {key} = {after}    # was {before}\n");
        }
        if self.set.is_empty() {
            text += "  nothing had to be changed\n";
        }
        writeln!(text, "\n{}", if self.passes() { "PASS" } else { "FAIL" }).unwrap_or(());
        text
    }

    /// Writes both beside each other; returns the two paths.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write(&self, dir: &Path) -> anyhow::Result<[PathBuf; 2]> {
        std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
        let stamp: String = self.date.chars().filter(char::is_ascii_digit).take(14).collect();
        let base = format!("commissioning-{}-{stamp}", self.radio["id"].as_str().unwrap_or_default());
        let paths = ["txt", "json"].map(|end| dir.join(format!("{base}.{end}")));
        for (path, text) in paths.iter().zip([self.text(), format!("{:#}\n", self.json())]) {
            std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))?;
        }
        Ok(paths)
    }
}

fn card_in_words(card: &Value) -> String {
    let names: Vec<_> =
        ["capture", "playback", "product", "serial"].iter().filter_map(|key| card[key].as_str()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(results: &[Outcome]) -> Report {
        let step = |result: &Outcome| Step {
            name: "receive",
            result: *result,
            says: "peaks at -9.0 dBFS".into(),
            measured: Map::from_iter([("peak_dbfs".to_owned(), json!(-9.0))]),
        };
        Report {
            date: "2026-05-01T12:30:00Z".into(),
            host: "box-1".into(),
            version: "1.0",
            event: "fair".into(),
            radio: json!({ "id": "vhf", "name": "VHF 1", "channel": "ops" }),
            card: json!({ "capture": "usb:1-1.3", "playback": "usb:1-1.3", "product": "USB Audio" }),
            by: "Ada".into(),
            steps: results.iter().map(step).collect(),
            set: vec![Change { key: "lead_in_ms", before: Setting::Ms(200), after: Setting::Ms(350) }],
            config: "event.toml".into(),
            written: true,
        }
    }

    #[test]
    fn it_passes_if_something_was_looked_at_and_nothing_failed() {
        use Outcome::{Fail, Pass, Skipped};
        assert!(report(&[Pass, Skipped]).passes());
        assert!(!report(&[Pass, Fail]).passes());
        assert!(!report(&[Skipped]).passes());
    }

    #[test]
    fn text_and_json_say_the_same() {
        let report = report(&[Outcome::Pass]);
        let (text, json) = (report.text(), report.json());
        for part in [
            "vhf (VHF 1) on channel ops",
            "pass    receive   peaks at",
            "peak_dbfs -9.0",
            "lead_in_ms = 350    # was 200",
            "by      Ada",
            "\nPASS\n",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert_eq!(
            (&json["pass"], &json["box"], &json["set"][0]["after"]),
            (&json!(true), &json!("box-1"), &json!(350))
        );
        assert_eq!(json["steps"][0]["result"], "pass");
    }
}
