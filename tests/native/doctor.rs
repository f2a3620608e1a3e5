//! What `crosspatch doctor --json` says.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

/// The outcome of each check and its sentences, and how the command ended.
pub struct Told {
    /// The exit code.
    pub code: i32,
    /// True if the gateway looked at itself.
    pub by_gateway: bool,
    /// By name.
    pub checks: BTreeMap<String, (String, String)>,
}

impl Told {
    /// Runs a command that ends in such a report.
    pub fn by(command: &mut Command) -> Result<Self> {
        let done = command.output()?;
        let report: Value =
            serde_json::from_slice(&done.stdout).with_context(|| String::from_utf8_lossy(&done.stderr).into_owned())?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let check = |check: &Value| {
            let found: Vec<_> = check["found"].as_array().into_iter().flatten().map(text).collect();
            (text(&check["name"]), (text(&check["outcome"]), found.join("\n")))
        };
        Ok(Told {
            code: done.status.code().context("it was killed")?,
            by_gateway: report["by_gateway"] == true,
            checks: report["checks"].as_array().context("no checks")?.iter().map(check).collect(),
        })
    }

    /// Fails unless a check has this outcome, with this in its sentences.
    pub fn says(&self, name: &str, outcome: &str, sentence: &str) -> Result<()> {
        let (told, found) = self.checks.get(name).context("no such check")?;
        ensure!(told == outcome && found.contains(sentence), "{name}: {told}: {found}");
        Ok(())
    }

    /// Fails unless a check fails with this in its sentences, and the exit code says so.
    pub fn fails(&self, name: &str, sentence: &str) -> Result<()> {
        self.says(name, "fail", sentence)?;
        ensure!(self.code == 1, "a check fails: {}", self.code);
        Ok(())
    }

    /// Fails unless these pass.
    pub fn passes(&self, names: &[&str]) -> Result<()> {
        names.iter().try_for_each(|name| self.says(name, "pass", ""))
    }

    /// Fails unless exactly these fail, and the exit code says whether any does.
    pub fn fails_only(&self, names: &[&str]) -> Result<()> {
        let failed = self.checks.iter().filter(|(_, (outcome, _))| outcome == "fail");
        let failed: BTreeMap<_, _> = failed.map(|(name, (_, found))| (name.as_str(), found)).collect();
        ensure!(failed.keys().eq(&names.iter().copied().collect::<std::collections::BTreeSet<_>>()), "{failed:#?}");
        ensure!(self.code == i32::from(!names.is_empty()), "it ended with {}", self.code);
        Ok(())
    }
}
