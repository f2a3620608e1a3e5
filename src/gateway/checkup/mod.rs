//! Finds out what a box's checks are judged by: from the gateway for what it holds, else by opening things itself.
//!
//! Judges nothing, which is [`crate::doctor`]'s, and changes nothing: inputs are only read, no output is asked for, no
//! certificate made. **Invariant:** while a gateway runs, nothing that it holds is opened.

mod equipment;
mod service;
#[cfg(test)]
mod tests;

use super::config::Config;
use super::tryout::LineSeen;
use super::{in_memory, site};
use crate::audit::{self, iso_8601};
use crate::base::clock::{unix_ms_now, wall_now};
use crate::doctor::facts::{Clock, Configuration, Facts, Gateway, Level, Line};
use crate::doctor::machine::{self, Machine};
use crate::hardware::gpio::cdev::Survey;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Which box is looked at.
pub struct Checkup {
    /// The state directory.
    pub state_dir: PathBuf,
    /// The configuration's file; the demo has none.
    pub config_file: Option<PathBuf>,
    /// What it says, or everything that is wrong with it.
    pub config: Result<Config, Vec<String>>,
    /// Pages for this machine.
    pub listen: SocketAddr,
    /// Pages for the network, if not as the configuration says.
    pub listen_tls: Option<SocketAddr>,
    /// The UDP port of all media.
    pub media_port: u16,
    /// The machine that it runs on.
    pub machine: Machine,
}

/// What the running gateway holds.
pub struct Held {
    /// Its lines.
    pub lines: Vec<LineSeen>,
    /// Parts that are degraded, each with the reason.
    pub degraded: Vec<(String, String)>,
    /// What its sound cards hear and play, by name.
    pub meters: BTreeMap<String, Level>,
    /// The media socket's address.
    pub media: SocketAddr,
    /// The TLS listener's address.
    pub tls: Option<SocketAddr>,
    /// How people get in, as the front panel shows it.
    pub shown: Value,
    /// SHA-256 of the configuration that it has read.
    pub sha256: Option<String>,
}

impl Checkup {
    /// Everything that can be found out. Opens lines and cards if nobody holds them, and reads the whole audit: takes a
    /// second or two.
    #[must_use]
    pub fn facts(&self, held: Option<&Held>) -> Facts {
        let now_s = unix_ms_now() / 1000;
        let config = self.config.as_ref().ok();
        let audit = self.state_dir.join("audit.sqlite");
        let mut disk = self.machine.disk(&self.state_dir);
        let closed = is_closed(&self.state_dir);
        disk.in_memory = in_memory(&self.state_dir);
        if disk.unknown.is_none() && !closed {
            disk.write = Some(machine::write_test(&self.state_dir));
        }
        let board = config.and_then(|config| Some((config, config.board().ok()?)));
        let survey = equipment::survey(board.as_ref());
        Facts {
            at: iso_8601(unix_ms_now()),
            now_s,
            program: env!("CARGO_PKG_VERSION").into(),
            not_given: site::not_given(&self.state_dir),
            gateway: held.map(|held| Gateway { degraded: held.degraded.clone() }),
            state_dir: self.state_dir.clone(),
            closed,
            configuration: self.configuration(held),
            board: board.as_ref().map(|(config, board)| equipment::board(config, board, &survey, &self.machine)),
            lines: board
                .as_ref()
                .map(|(config, board)| equipment::lines(config, board, &survey, held.map(|held| held.lines.as_slice())))
                .unwrap_or_default(),
            sound: config.map(|config| equipment::sound(config, held)).unwrap_or_default(),
            clock: Clock {
                synchronised: wall_now().synchronised,
                battery_clock_s: self.machine.battery_clock_s(),
                not_before_s: program_made_s().max(audit::last_wall_ms(&audit).unwrap_or(0) / 1000),
            },
            disk,
            network: self.network(config, held),
            ports: self.ports(config, held),
            certificate: self.certificate(config, held, now_s),
            audit: service::audit(&audit),
            temperatures: self.machine.temperatures(),
            under_voltage: self.machine.under_voltage(),
        }
    }

    /// The lines that the configuration uses, as a gateway has seen them or as they are when they are opened.
    #[must_use]
    pub fn lines(&self, seen: Option<&[LineSeen]>) -> Vec<Line> {
        let board = self.config.as_ref().ok().and_then(|config| Some((config, config.board().ok()?)));
        let survey = if seen.is_some() { Survey::default() } else { equipment::survey(board.as_ref()) };
        board.as_ref().map(|(config, board)| equipment::lines(config, board, &survey, seen)).unwrap_or_default()
    }

    fn configuration(&self, held: Option<&Held>) -> Configuration {
        // A file that was changed is judged as it is now.
        let now = self.config_file.as_deref().map(Config::read);
        let errors = match (now, &self.config) {
            (Some(Err(e)), _) => e.0,
            (None, Err(errors)) => errors.clone(),
            (Some(Ok(_)), _) | (None, Ok(_)) => Vec::new(),
        };
        Configuration {
            file: self.config_file.clone(),
            holds: self.config.as_ref().map(holds).unwrap_or_default(),
            errors,
            sha256: self.config_file.as_deref().and_then(sha256),
            loaded_sha256: held.and_then(|held| held.sha256.clone()),
        }
    }
}

/// True for a directory that whoever looks may not enter.
#[must_use]
pub fn is_closed(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_err_and(|e| e.kind() == ErrorKind::PermissionDenied)
}

/// A configuration in a phrase.
fn holds(config: &Config) -> String {
    let some = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    format!(
        "event '{}': {}, {}, {}",
        config.event.id,
        some(config.channels.len(), "channel"),
        some(config.desks.len(), "desk"),
        some(config.radios.len(), "radio")
    )
}

/// SHA-256 of a file, in hex.
#[must_use]
pub fn sha256(file: &Path) -> Option<String> {
    std::fs::read(file).ok().map(|text| audit::Digest::of(&text).to_string())
}

/// When this program was made, in seconds since 1970; it cannot be earlier now.
fn program_made_s() -> u64 {
    let made = std::env::current_exe().and_then(std::fs::metadata).and_then(|m| m.modified()).ok();
    made.and_then(|t| t.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs())
}
