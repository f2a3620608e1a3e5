//! The configuration file: TOML, unknown keys refused, every error with its line and a remedy.

use super::radio_config::{CarrierFrom, PttOutput, Radio};
use crate::base::clock::unix_ms_now;
use crate::base::{ChannelId, LineName, Role, SessionId, SourceId, UserId};
use crate::control::{ChannelSpec, DeskSpec, MIN_HOLD, Settings, Tuning};
use crate::hardware::board::{Board, BoardError};
use crate::hardware::gpio::{Direction, LineSpec};
use crate::net::{addresses, tls};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The demo event, used without a configuration file.
const DEMO: &str = include_str!("demo.toml");

/// A whole configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The board profile: the name of one that the program carries, or a `.toml` file beside the configuration.
    #[serde(default = "sim")]
    pub board: String,
    /// The event.
    pub event: Event,
    /// How many may come.
    #[serde(default)]
    pub limits: Limits,
    /// Its talk channels.
    #[serde(rename = "channel")]
    pub channels: Vec<Channel>,
    /// The desks of this box.
    #[serde(rename = "desk", default)]
    pub desks: Vec<Desk>,
    /// The radio ports of this box.
    #[serde(rename = "radio", default)]
    pub radios: Vec<Radio>,
    /// How phones and browsers elsewhere get in.
    #[serde(default)]
    pub tls: Tls,
    /// Where media comes in.
    #[serde(default)]
    pub media: Media,
}

/// `[tls]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Where pages and signaling are served to the network; nowhere without it.
    #[serde(default, deserialize_with = "socket_address")]
    pub listen: Option<SocketAddr>,
    /// PEM file of an own certificate with its chain; without one a local authority vouches for the box.
    pub certificate: Option<PathBuf>,
    /// PEM file of its key.
    pub key: Option<PathBuf>,
    /// Names and addresses the local authority vouches for, besides those that the box knows to be its own.
    #[serde(default)]
    pub names: Vec<String>,
}

/// `[media]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Media {
    /// The addresses that clients are told, the best one first; without them those of all interfaces.
    #[serde(default)]
    pub announce: Vec<IpAddr>,
    /// The only interfaces whose addresses clients are told.
    #[serde(default)]
    pub interfaces: Vec<String>,
}

fn socket_address<'de, D: Deserializer<'de>>(value: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(value)?;
    let wrong = |_| {
        serde::de::Error::custom(format!(
            "'{text}' is no address with a port; write \"0.0.0.0:8443\" for port 8443 on every interface"
        ))
    };
    text.parse().map(Some).map_err(wrong)
}

/// `[event]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// The event's id, as in tokens.
    pub id: String,
    /// E2; 2000 or more.
    #[serde(default = "two_thousand")]
    pub emergency_hold_ms: u64,
    /// E8.
    #[serde(default = "three_hundred")]
    pub emergency_max_s: u64,
    /// F9; for General and Admin.
    #[serde(default = "sixty")]
    pub talk_limit_s: u64,
}

/// `[limits]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Channels that a General user may monitor at once.
    pub general_channels: usize,
    /// The same for Dispatch and Admin.
    pub dispatch_channels: usize,
    /// Users on one channel.
    pub channel_users: usize,
    /// Users on the box.
    pub users: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let Tuning { general_channels, dispatch_channels, channel_users, users, .. } = Tuning::default();
        Limits { general_channels, dispatch_channels, channel_users, users }
    }
}

/// `[[channel]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// The id on the wire.
    pub id: String,
    /// The name people see.
    pub name: String,
}

/// `[[desk]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Desk {
    /// The desk as a participant.
    pub user: String,
    /// Its name.
    pub name: String,
    /// Its role; Dispatch by default.
    #[serde(default = "dispatch")]
    pub role: Role,
    /// The guarded emergency button.
    pub emergency_line: Option<String>,
    /// The emergency lamp.
    pub emergency_tally_line: Option<String>,
    /// True: the next press ends an emergency.
    #[serde(default)]
    pub emergency_latch: bool,
    /// PTT buttons with their lamps.
    #[serde(rename = "button", default)]
    pub buttons: Vec<Button>,
    /// ALSA PCM of the microphone; without one, paced simulated audio.
    pub capture_pcm: Option<String>,
    /// ALSA PCM of the loudspeaker.
    pub playback_pcm: Option<String>,
}

/// `[[desk.button]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Button {
    /// Which channel it talks on.
    pub channel: String,
    /// The button.
    pub ptt_line: Option<String>,
    /// The lamp.
    pub tally_line: Option<String>,
}

fn two_thousand() -> u64 {
    2000
}
fn three_hundred() -> u64 {
    300
}
fn sixty() -> u64 {
    60
}
fn sim() -> String {
    "sim".into()
}
fn dispatch() -> Role {
    Role::Dispatch
}

/// What is wrong with a configuration: one sentence an error, each with its place.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

impl Config {
    /// The demo event on the simulated board.
    #[must_use]
    pub fn demo() -> Self {
        Self::parse(DEMO, "demo.toml").expect("a test reads it")
    }

    /// Reads and checks a file. Whether an own certificate serves is none of it: the gateway runs without TLS too.
    ///
    /// # Errors
    /// If it cannot be read or anything in it is wrong; all that is wrong is told at once.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::read_with(path, false)
    }

    /// Reads and checks a file and the own certificate that it names.
    ///
    /// # Errors
    /// As [`Config::read`], and if the certificate does not serve today.
    pub fn inspect(path: &Path) -> Result<(), ConfigError> {
        Self::read_with(path, true).map(drop)
    }

    fn read_with(path: &Path, certificate: bool) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|e| {
            ConfigError(vec![format!("{name}: cannot be read ({e}); name a file that exists with --config")])
        })?;
        Self::parse_in(&text, &name, path.parent().unwrap_or(Path::new("")), certificate)
    }

    /// Reads and checks text; `name` stands before each error.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        Self::parse_in(text, name, Path::new(""), false)
    }

    /// Reads and checks text, and the own `certificate` if it is asked for; files are looked for in `dir`.
    fn parse_in(text: &str, name: &str, dir: &Path, certificate: bool) -> Result<Self, ConfigError> {
        let line_of = |at: usize| text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
        let mut config: Config = toml::from_str(text).map_err(|e| {
            let line = e.span().map_or(1, |s| line_of(s.start));
            ConfigError(vec![format!(
                "{name}:{line}: {}; compare with the sample configuration",
                e.message().trim_end()
            )])
        })?;
        for file in [&mut config.tls.certificate, &mut config.tls.key].into_iter().flatten() {
            *file = dir.join(&*file);
        }
        let profile = config.board.clone();
        if profile.ends_with(".toml") {
            config.board = dir.join(&profile).display().to_string();
        }
        let mut wrong = Vec::new();
        let mut tell = |value: Option<&str>, sentence| {
            let find = |v: &str| text.find(&format!("\"{v}\"")).or_else(|| text.find(&format!("/{v}\"")));
            let line = value.and_then(find).map_or(1, line_of);
            wrong.push(format!("{name}:{line}: {sentence}"));
        };
        config.check(&profile, &mut tell);
        if certificate {
            config.tls.check_own(&mut tell);
        }
        if wrong.is_empty() { Ok(config) } else { Err(ConfigError(wrong)) }
    }

    /// The board profile.
    ///
    /// # Errors
    /// As [`Board::load`].
    pub fn board(&self) -> Result<Board, BoardError> {
        Board::load(&self.board)
    }

    /// Tells every error with a value that stands near it.
    fn check(&self, profile: &str, mut wrong: impl FnMut(Option<&str>, String)) {
        let mut seen = BTreeSet::new();
        if self.channels.is_empty() {
            wrong(None, "the event has no channel; add a [[channel]] with id and name".into());
        }
        for channel in &self.channels {
            if !seen.insert(channel.id.as_str()) {
                wrong(
                    Some(&channel.id),
                    format!("channel '{}' is there twice; give each channel an id of its own", channel.id),
                );
            }
        }
        let known = |id: &str| self.channels.iter().any(|c| c.id == id);
        if Duration::from_millis(self.event.emergency_hold_ms) < MIN_HOLD {
            wrong(None, format!("emergency_hold_ms is {}; it may not be below 2000", self.event.emergency_hold_ms));
        }
        let limits = [
            ("general_channels", self.limits.general_channels),
            ("dispatch_channels", self.limits.dispatch_channels),
            ("channel_users", self.limits.channel_users),
            ("users", self.limits.users),
        ];
        for (key, _) in limits.into_iter().filter(|(_, limit)| *limit == 0) {
            wrong(None, format!("{key} is 0, so that nobody could come in; use 1 or more"));
        }
        let mut users = BTreeSet::new();
        let named = self.desks.iter().map(|d| d.user.as_str()).chain(self.radios.iter().map(|r| r.user.as_str()));
        for user in named {
            if !users.insert(user) {
                wrong(Some(user), format!("user '{user}' is there twice; give each desk and radio a user of its own"));
            }
        }
        for desk in &self.desks {
            if desk.emergency_line.is_some() && desk.role != Role::Dispatch {
                wrong(
                    Some(&desk.user),
                    format!(
                        "desk '{}' has an emergency button, which is for Dispatch only; give it role = \"dispatch\" or take the button away",
                        desk.user
                    ),
                );
            }
            for button in desk.buttons.iter().filter(|b| !known(&b.channel)) {
                wrong(
                    Some(&button.channel),
                    format!("there is no channel '{}'; name one of the [[channel]] ids", button.channel),
                );
            }
        }
        for radio in &self.radios {
            if !known(&radio.channel) {
                wrong(
                    Some(&radio.channel),
                    format!("there is no channel '{}'; name one of the [[channel]] ids", radio.channel),
                );
            }
            radio.check(&mut wrong);
        }
        self.tls.check(&mut wrong);
        let mut lines = BTreeSet::new();
        for line in self.lines() {
            if !lines.insert(line.name.clone()) {
                wrong(Some(line.name.as_str()), format!("line '{}' has two uses; give each its own", line.name));
            }
        }
        let emergency = self.desks.iter().filter_map(|d| d.emergency_line.as_deref().map(LineName::from));
        match self.board() {
            Err(BoardError(errors)) => {
                for error in errors {
                    wrong(Some(profile), error);
                }
            }
            Ok(board) => {
                for (line, sentence) in board.misfits(&self.lines(), &emergency.collect::<Vec<_>>()) {
                    wrong(Some(line.as_str()), sentence);
                }
            }
        }
    }

    /// Every line that the configuration uses.
    #[must_use]
    pub fn lines(&self) -> Vec<LineSpec> {
        let line = |name: &Option<String>, direction| name.as_deref().map(|n| LineSpec { name: n.into(), direction });
        let mut lines = Vec::new();
        for desk in &self.desks {
            for button in &desk.buttons {
                lines.extend(line(&button.ptt_line, Direction::Input));
                lines.extend(line(&button.tally_line, Direction::Output));
            }
            lines.extend(line(&desk.emergency_line, Direction::Input));
            lines.extend(line(&desk.emergency_tally_line, Direction::Output));
        }
        for radio in &self.radios {
            if radio.carrier_from() == CarrierFrom::Gpio {
                lines.extend(line(&radio.carrier_line, Direction::Input));
            }
            if radio.ptt_output() == PttOutput::Gpio {
                lines.extend(line(&radio.ptt_line, Direction::Output));
            }
        }
        lines
    }

    /// What the core is told. Desks and ports get the session ids 1, 2, …; `sources` are theirs, in the same order.
    #[must_use]
    pub fn settings(&self, sources: &[SourceId]) -> Settings {
        let name = |n: &Option<String>| n.as_deref().map(LineName::from);
        let mut sessions = (1..).map(SessionId).zip(sources.iter().copied());
        let mut next = || sessions.next().expect("one source for each desk and radio");
        let desks = self.desks.iter().map(|d| {
            let (session, source) = next();
            let channel = |b: &Button| ChannelId::from(b.channel.as_str());
            DeskSpec {
                user: UserId::from(d.user.as_str()),
                name: d.name.clone(),
                role: d.role,
                session,
                source,
                ptt: d.buttons.iter().filter_map(|b| Some((name(&b.ptt_line)?, vec![channel(b)]))).collect(),
                emergency: name(&d.emergency_line),
                tally: d.buttons.iter().filter_map(|b| Some((name(&b.tally_line)?, channel(b)))).collect(),
                emergency_tally: name(&d.emergency_tally_line),
                latch: d.emergency_latch,
            }
        });
        let desks = desks.collect();
        let ports = self.radios.iter().map(|r| {
            let (session, source) = next();
            r.spec(session, source)
        });
        Settings { ports: ports.collect(), desks, channels: self.channel_specs(), tuning: self.tuning() }
    }

    /// The channels as the core knows them.
    #[must_use]
    pub fn channel_specs(&self) -> Vec<ChannelSpec> {
        self.channels.iter().map(|c| ChannelSpec { id: c.id.as_str().into(), name: c.name.clone() }).collect()
    }

    /// Limits and times that may change at run time.
    #[must_use]
    pub fn tuning(&self) -> Tuning {
        Tuning {
            emergency_hold: Duration::from_millis(self.event.emergency_hold_ms),
            emergency_max: Duration::from_secs(self.event.emergency_max_s),
            talk_limit: Duration::from_secs(self.event.talk_limit_s),
            general_channels: self.limits.general_channels,
            dispatch_channels: self.limits.dispatch_channels,
            channel_users: self.limits.channel_users,
            users: self.limits.users,
        }
    }
}

impl Tls {
    /// The files of an own certificate.
    #[must_use]
    pub fn own(&self) -> Option<(&Path, &Path)> {
        self.certificate.as_deref().zip(self.key.as_deref())
    }

    /// Tells every error with a value that stands near it.
    fn check(&self, mut wrong: impl FnMut(Option<&str>, String)) {
        if self.certificate.is_some() != self.key.is_some() {
            let near = self.certificate.as_deref().or(self.key.as_deref()).and_then(written);
            wrong(near, "[tls] has only one of certificate and key; name both, or neither".into());
        }
        for name in &self.names {
            let is_name = addresses::is_host_name(name) && *name == name.to_ascii_lowercase();
            if name.parse::<IpAddr>().is_err() && !is_name {
                let sentence = format!(
                    "'{name}' is no name or address of a box; write it in small letters and without https:// and port, \
                     such as \"gate.local\""
                );
                wrong(Some(name), sentence);
            }
        }
    }

    /// Tells why the own certificate does not serve today.
    fn check_own(&self, mut wrong: impl FnMut(Option<&str>, String)) {
        if let Some((certificate, key)) = self.own()
            && let Err(e) = tls::own(certificate, key, unix_ms_now() / 1000)
        {
            wrong(written(certificate), e.to_string());
        }
    }
}

/// How a path ends in the configuration, wherever it is looked for.
fn written(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_is_a_valid_configuration() {
        let demo = Config::parse(DEMO, "demo.toml").unwrap();
        assert_eq!(demo.settings(&[SourceId(1), SourceId(2)]).channels.len(), 4);
    }

    #[test]
    fn every_error_names_its_line_and_a_remedy() {
        let text =
            DEMO.replace("channel = \"security\"\ncarrier", "channel = \"securty\"\nrole = \"dispatch\"\ncarrier");
        let errors = Config::parse(&text, "x.toml").unwrap_err().0;
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors[0].starts_with("x.toml:52: there is no channel 'securty'; name one"), "{errors:?}");
        assert!(errors[1].contains("always general"), "{errors:?}");
        let misfit = Config::parse(&DEMO.replace("line = \"radio.vhf.ptt\"", "line = \"radio.uhf.ptt\""), "x.toml");
        assert_eq!(
            misfit.unwrap_err().0,
            [
                "x.toml:54: the board 'Simulated board' has no line 'radio.uhf.ptt'; add it to the profile or use another"
            ]
        );
        let no_board = Config::parse(&format!("board = \"pie\"\n{DEMO}"), "x.toml").unwrap_err().0;
        assert_eq!(no_board, ["x.toml:1: board 'pie': there is no such profile; use sim, or the path of a .toml file"]);
        let unknown = Config::parse(&DEMO.replace("emergency_hold_ms", "emergency_hold"), "x.toml").unwrap_err().0;
        assert!(unknown[0].starts_with("x.toml:4: unknown field `emergency_hold`"), "{unknown:?}");
    }

    #[test]
    fn an_error_at_a_letter_of_several_bytes_has_its_line_too() {
        for text in ["\u{feff}", "\u{feff}é", "[event]\né = 1"] {
            let errors = Config::parse(text, "x.toml").unwrap_err().0;
            let line = text.lines().count();
            assert!(errors[0].starts_with(&format!("x.toml:{line}: ")), "{errors:?}");
        }
    }

    #[test]
    fn errors_of_tls_name_their_line_and_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("event.toml");
        let errors = |tls: &str| {
            std::fs::write(&path, format!("{DEMO}\n[tls]\n{tls}\n")).unwrap();
            Config::read(&path).unwrap_err().0.join("\n")
        };
        let line = DEMO.lines().count() + 3;
        let at = format!("event.toml:{line}: ");
        let told = errors("listen = \"8443\"");
        assert!(told.contains(&format!("{at}'8443' is no address with a port; write")), "{told}");
        let told = errors("names = [\"https://gate\"]");
        assert!(told.contains(&format!("{at}'https://gate' is no name or address")), "{told}");
        let told = errors("certificate = \"own.pem\"");
        assert!(told.contains(&format!("{at}[tls] has only one of certificate and key")), "{told}");
        let told = errors("cert = \"own.pem\"");
        assert!(told.contains(&format!("{at}unknown field `cert`")), "{told}");
    }

    #[test]
    fn a_certificate_that_does_not_serve_is_an_error_to_those_who_inspect_and_keeps_no_gateway_from_running() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("event.toml");
        std::fs::write(&path, format!("{DEMO}\n[tls]\ncertificate = \"pem/own.pem\"\nkey = \"own.key\"\n")).unwrap();
        let told = Config::inspect(&path).unwrap_err().0.join("\n");
        let at = format!("event.toml:{}: {}", DEMO.lines().count() + 3, dir.path().display());
        assert!(told.contains(&format!("{at}/pem/own.pem cannot be read")), "{told}");
        assert!(Config::read(&path).unwrap().tls.own().is_some());
    }
}
