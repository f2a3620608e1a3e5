//! `[audit]` and `[recorder]`: what is kept of what happened, and for how long.

use super::knobs;
use crate::audit::{Retention, iso_8601};
use crate::base::ChannelId;
use crate::recorder::{Keep, Plan};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `[audit]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// Records older than so many days go. Nothing goes by its age while the clock is not synchronised.
    #[schemars(range(min = 1, max = 3650))]
    pub keep_days: u64,
    /// Beyond so many MB the oldest records go.
    #[schemars(range(min = 16, max = 1_000_000))]
    pub keep_mb: u64,
}

impl Default for Audit {
    fn default() -> Self {
        Audit { keep_days: 365, keep_mb: 1024 }
    }
}

impl Audit {
    /// What the audit is told.
    #[must_use]
    pub fn retention(&self) -> Retention {
        Retention { age: days(self.keep_days), bytes: bytes(self.keep_mb) }
    }

    /// Tells what is wrong.
    pub(super) fn check(&self, wrong: &mut impl FnMut(Option<&str>, String)) {
        knobs::out_of_range(self, "[audit]").for_each(|sentence| wrong(None, sentence));
    }
}

/// `[recorder]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Recorder {
    /// The channels whose bursts are recorded; none, which is the default, records nothing.
    pub channels: Vec<String>,
    /// Recordings older than so many days go.
    #[schemars(range(min = 1, max = 3650))]
    pub keep_days: u64,
    /// Beyond so many MB the oldest recordings go.
    #[schemars(range(min = 16, max = 1_000_000))]
    pub keep_mb: u64,
}

impl Default for Recorder {
    fn default() -> Self {
        Recorder { channels: Vec::new(), keep_days: 7, keep_mb: 2048 }
    }
}

impl Recorder {
    /// What the recorder is told, if anything is recorded.
    #[must_use]
    pub fn plan(&self, state_dir: &Path) -> Option<Plan> {
        let channels: BTreeSet<ChannelId> = self.channels.iter().map(|id| id.as_str().into()).collect();
        let dir = recordings_of(state_dir);
        (!channels.is_empty()).then_some(Plan { channels, dir, keep: self.keep(), iso_8601 })
    }

    /// How much of the recordings is kept.
    #[must_use]
    pub fn keep(&self) -> Keep {
        Keep { age: days(self.keep_days), bytes: bytes(self.keep_mb) }
    }

    /// Tells what is wrong; `known` are the event's channels.
    pub(super) fn check(&self, known: impl Fn(&str) -> bool, wrong: &mut impl FnMut(Option<&str>, String)) {
        knobs::out_of_range(self, "[recorder]").for_each(|sentence| wrong(None, sentence));
        for channel in self.channels.iter().filter(|channel| !known(channel)) {
            wrong(Some(channel), format!("there is no channel '{channel}'; name one of the [[channel]] ids"));
        }
    }
}

/// Where recordings are, in a state directory.
#[must_use]
pub fn recordings_of(state_dir: &Path) -> PathBuf {
    state_dir.join("recordings")
}

fn days(days: u64) -> Duration {
    Duration::from_secs(days * 86_400)
}

fn bytes(megabytes: u64) -> u64 {
    megabytes * 1_000_000
}

#[cfg(test)]
mod tests {
    use crate::gateway::config::Config;

    const EVENT: &str = "[event]\nid = \"e\"\n[[channel]]\nid = \"ops\"\nname = \"Ops\"\n";

    #[test]
    fn nothing_is_recorded_unless_a_channel_is_named() {
        let config = Config::parse(EVENT, "e.toml").unwrap();
        assert!(config.recorder.plan("state".as_ref()).is_none());
        let config = Config::parse(&format!("{EVENT}[recorder]\nchannels = [\"ops\"]\n"), "e.toml").unwrap();
        let plan = config.recorder.plan("state".as_ref()).unwrap();
        assert_eq!((plan.keep.age.as_secs(), plan.keep.bytes), (7 * 86_400, 2_048_000_000));
    }

    #[test]
    fn wrong_values_are_named_with_a_remedy() {
        let wrong = "[audit]\nkeep_days = 0\nkeep_mb = 1\n[recorder]\nchannels = [\"opps\"]\n";
        let errors = Config::parse(&format!("{EVENT}{wrong}"), "e.toml").unwrap_err().0;
        assert_eq!(errors.len(), 3, "{errors:?}");
        assert!(errors[0].contains("keep_days of [audit] is 0; use 1 to 3650"), "{errors:?}");
        assert!(errors[2].starts_with("e.toml:10: there is no channel 'opps'"), "{errors:?}");
    }
}
