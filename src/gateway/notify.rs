//! What systemd is told: ready, stopping, reloading, alive, and one line for people. Without systemd nothing happens.

use super::config::Config;
use sd_notify::NotifyState;
use serde_json::Value;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Said once already: a process is ready for good.
static READY: AtomicBool = AtomicBool::new(false);

fn say(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        tracing::debug!("systemd was not told: {e}"); // it draws its own conclusions
    }
}

/// Every part is up or declared degraded.
pub fn ready() {
    READY.store(true, Ordering::Release);
    say(&[NotifyState::Ready]);
}

/// The end has begun.
pub fn stopping() {
    say(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// The configuration is being read again, until this is dropped.
pub struct Reloading {
    was_ready: bool,
}

impl Reloading {
    /// Says so, unless the gateway is still starting.
    #[must_use]
    pub fn begin() -> Self {
        let was_ready = READY.load(Ordering::Acquire);
        if was_ready {
            say(&[NotifyState::Reloading]);
        }
        Reloading { was_ready }
    }
}

impl Drop for Reloading {
    fn drop(&mut self) {
        if self.was_ready {
            ready();
        }
    }
}

/// Within this time a sign of life has to be given again and again, if systemd watches.
#[must_use]
pub fn watchdog_limit() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// Keeps the line that `systemctl status` shows true, and passes on each `alive`. The watchdog does not do so itself:
/// a supervisor that does not listen must not make it wait.
pub async fn follow(config: &Config, mut live: watch::Receiver<Value>, alive: &Notify) -> Infallible {
    let mut told = String::new();
    loop {
        let line = status(config, &live.borrow_and_update());
        if line != told {
            say(&[NotifyState::Status(&line)]);
            told = line;
        }
        tokio::select! {
            () = alive.notified() => say(&[NotifyState::Watchdog]),
            changed = live.changed() => if changed.is_err() {
                std::future::pending::<()>().await; // the loop has ended, and so will this
            }
        }
    }
}

/// Such as `4 channels, 1 desk, 1 radio; degraded: tls`.
fn status(config: &Config, live: &Value) -> String {
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let channels = live["channelList"].as_array().map_or(0, Vec::len);
    let mut line =
        [count(channels, "channel"), count(config.desks.len(), "desk"), count(config.radios.len(), "radio")].join(", ");
    if let Some(name) = live["emergency"]["userName"].as_str() {
        line += &format!("; emergency by {name}");
    }
    let degraded: Vec<_> =
        live["degraded"].as_array().into_iter().flatten().filter_map(|d| d["part"].as_str()).collect();
    if !degraded.is_empty() {
        line += &format!("; degraded: {}", degraded.join(", "));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_line_for_people_counts_what_is_there_and_names_what_is_not() {
        let config = Config::demo();
        let live = json!({ "channelList": [{}, {}, {}, {}], "emergency": null, "degraded": [] });
        assert_eq!(status(&config, &live), "4 channels, 1 desk, 1 radio");
        let live = json!({
            "channelList": [{}], "emergency": { "userName": "Dana" },
            "degraded": [{ "part": "tls", "why": "…" }, { "part": "VHF 1 capture", "why": "…" }]
        });
        assert_eq!(
            status(&config, &live),
            "1 channel, 1 desk, 1 radio; emergency by Dana; degraded: tls, VHF 1 capture"
        );
    }
}
