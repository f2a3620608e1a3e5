//! Reading the configuration file again while people talk: all of it is taken, or nothing.

use super::Event;
use super::config::Config;
use super::notify;
use super::people_api::ask;
use super::register::What;
use super::tasks::Failure;
use crate::audit::Digest;
use crate::net::token::Identity;
use anyhow::Context;
use axum::http::StatusCode;
use serde_json::Value;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, mpsc};
use toml::de::{DeTable, DeValue};

/// Keys that change at run time; a key stands for all below it.
const AT_RUN_TIME: &[&str] = &[
    "channel",
    "limits",
    "event.talk_limit_s",
    "event.emergency_max_s",
    "event.emergency_hold_ms",
    "audit",
    "recorder.keep_days",
    "recorder.keep_mb",
];

/// Reads the configuration again.
pub struct Reloader {
    file: Option<PathBuf>,
    /// The text that holds now; one reload at a time.
    text: Mutex<String>,
    events: mpsc::Sender<Event>,
}

impl Reloader {
    /// Reads `file` as it is now, the text that later ones are compared with.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn new(file: Option<PathBuf>, events: mpsc::Sender<Event>) -> anyhow::Result<Self> {
        let text =
            file.as_ref().map(std::fs::read_to_string).transpose().context("the configuration cannot be read")?;
        Ok(Reloader { file, text: Mutex::new(text.unwrap_or_default()), events })
    }

    /// SHA-256 of the text that holds now; none for the demo, which has no file.
    pub async fn sha256(&self) -> Option<String> {
        self.file.as_ref()?;
        Some(Digest::of(self.text.lock().await.as_bytes()).to_string())
    }

    /// Takes the file's channels, limits and times, also those of what is kept; `None` is the box itself.
    ///
    /// # Errors
    /// If the asker may not, the file is wrong, or something in it needs a restart: then nothing of it is taken.
    pub async fn reload(&self, by: Option<Identity>) -> Result<Value, Failure> {
        ask(&self.events, by.clone(), What::MayReload).await?;
        let mut text = self.text.lock().await;
        let _reloading = notify::Reloading::begin();
        match self.read(&text).await {
            Ok((new, config, news)) => {
                let taken = ask(&self.events, by, What::Reload(Box::new(config), news)).await?;
                *text = new;
                Ok(taken)
            }
            Err(errors) => {
                ask(&self.events, by, What::Refused(errors.clone())).await?;
                let message = format!("Nothing was taken.\n{}", errors.join("\n"));
                Err(Failure::new(StatusCode::CONFLICT, "config-refused", message))
            }
        }
    }

    /// The file's text, what it says, and which keys are new in it.
    async fn read(&self, before: &str) -> Result<(String, Config, Vec<String>), Vec<String>> {
        let file = self.file.clone().ok_or_else(|| {
            vec!["The demo event has no configuration file. Start the gateway with --config to have one.".to_owned()]
        })?;
        let name = file.display().to_string();
        let read = move || {
            let text = std::fs::read_to_string(&file).map_err(|e| vec![format!("{}: {e}", file.display())])?;
            let config = Config::read(&file).map_err(|e| e.0)?;
            Ok::<_, Vec<String>>((text, config))
        };
        let (text, config) =
            tokio::task::spawn_blocking(read).await.map_err(|e| vec![format!("{name} was not read: {e}")])??;
        let changed = differences(before, &text);
        let fixed = changed.iter().filter(|(key, _)| !at_run_time(key));
        let errors: Vec<_> =
            fixed.map(|(key, line)| format!("{name}:{line}: '{key}' has changed, which needs a restart")).collect();
        if errors.is_empty() {
            Ok((text, config, changed.into_iter().map(|(key, _)| key).collect()))
        } else {
            Err(errors)
        }
    }
}

/// Reloads at every SIGHUP.
pub async fn on_hangup(reloader: Arc<Reloader>) {
    let mut hangups = match signal(SignalKind::hangup()) {
        Ok(hangups) => hangups,
        Err(e) => return tracing::error!("SIGHUP cannot be listened for: {e}; use crosspatch reload"),
    };
    while hangups.recv().await.is_some() {
        match reloader.reload(None).await {
            Ok(taken) => tracing::info!("the configuration was read again: {taken}"),
            Err(failure) => tracing::error!("{failure}"),
        }
    }
}

fn at_run_time(key: &str) -> bool {
    AT_RUN_TIME
        .iter()
        .any(|free| key.strip_prefix(free).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])))
}

/// The keys whose values differ, each with its line in `new`. Both texts are valid TOML.
pub(crate) fn differences(old: &str, new: &str) -> Vec<(String, usize)> {
    let (Ok(old), Ok(parsed)) = (DeTable::parse(old), DeTable::parse(new)) else { return Vec::new() };
    let mut found = Vec::new();
    let whole = parsed.span();
    compare("", Some(&DeValue::Table(old.into_inner())), Some(&DeValue::Table(parsed.into_inner())), whole, &mut found);
    found.into_iter().map(|(key, at)| (key, new[..at.min(new.len())].matches('\n').count() + 1)).collect()
}

/// Goes down both values side by side; `at` is the place of the newer one, or of what it is missing from.
fn compare(
    key: &str,
    old: Option<&DeValue<'_>>,
    new: Option<&DeValue<'_>>,
    at: Range<usize>,
    found: &mut Vec<(String, usize)>,
) {
    match (old, new) {
        (Some(DeValue::Table(old)), Some(DeValue::Table(new))) => {
            let below = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
            for (name, value) in new {
                let before = old.get(name.get_ref().as_ref()).map(|v| v.get_ref());
                compare(&below(name.get_ref()), before, Some(value.get_ref()), name.span(), found);
            }
            for (name, _) in old.iter().filter(|(name, _)| !new.contains_key(name.get_ref().as_ref())) {
                found.push((below(name.get_ref()), at.start));
            }
        }
        (Some(DeValue::Array(old)), Some(DeValue::Array(new))) => {
            for i in 0..old.len().max(new.len()) {
                let place = new.get(i).map_or(at.clone(), |v| v.span());
                let (old, new) = (old.get(i).map(|v| v.get_ref()), new.get(i).map(|v| v.get_ref()));
                compare(&format!("{key}[{i}]"), old, new, place, found);
            }
        }
        (Some(old), Some(new)) if scalar(old) == scalar(new) => {}
        _ => found.push((key.to_owned(), at.start)),
    }
}

/// A value as text, for comparison.
fn scalar(value: &DeValue<'_>) -> String {
    format!("{value:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str =
        "[event]\nid = \"e\"\ntalk_limit_s = 60\n\n[[channel]]\nid = \"a\"\nname = \"A\"\n\n[[desk]]\nuser = \"d\"\n";

    #[test]
    fn differences_are_named_by_key_and_line() {
        assert_eq!(differences(OLD, OLD), []);
        let comment = OLD.replace("[[desk]]", "# a remark\n[[desk]]");
        assert_eq!(differences(OLD, &comment), [], "only values count");
        let limit = differences(OLD, &OLD.replace("60", "90"));
        assert_eq!(limit, [("event.talk_limit_s".to_owned(), 3)]);
        let user = differences(OLD, &OLD.replace("\"d\"", "\"x\""));
        assert_eq!(user, [("desk[0].user".to_owned(), 10)]);
        let more = differences(OLD, &format!("{OLD}capture_pcm = \"hw:1\"\n[[desk]]\nuser = \"e\"\n"));
        assert_eq!(more, [("desk[0].capture_pcm".to_owned(), 11), ("desk[1]".to_owned(), 12)]);
        let gone = differences(OLD, &OLD.replace("[[desk]]\nuser = \"d\"\n", ""));
        assert_eq!(gone, [("desk".to_owned(), 1)]);
    }

    #[test]
    fn channels_limits_and_times_change_at_run_time_and_nothing_else() {
        for key in [
            "channel[0].name",
            "channel[3]",
            "limits.users",
            "limits",
            "event.talk_limit_s",
            "audit.keep_mb",
            "recorder.keep_days",
        ] {
            assert!(at_run_time(key), "{key}");
        }
        for key in
            ["event.id", "event", "desk[0].user", "radio[1]", "board", "channels", "recorder", "recorder.channels"]
        {
            assert!(!at_run_time(key), "{key}");
        }
    }
}
