//! The configuration file: TOML, unknown keys refused, every error with its line and a remedy.

use super::knobs;
use super::radio_config::{CarrierFrom, PttOutput, Radio};
use super::{keeping, site};
use crate::base::clock::unix_ms_now;
use crate::base::{ChannelId, LineName, Role, SessionId, SourceId, UserId};
use crate::control::{ButtonSpec, ChannelSpec, DeskSpec, PttSpec, Settings, Tuning};
use crate::hardware::board::{Board, BoardError};
use crate::hardware::gpio::{Direction, LineSpec};
use crate::net::{addresses, tls};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The demo event, used without a configuration file.
pub const DEMO: &str = include_str!("demo.toml");

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
    /// How long records are kept.
    #[serde(default)]
    pub audit: keeping::Audit,
    /// What is recorded.
    #[serde(default)]
    pub recorder: keeping::Recorder,
    /// The box besides the gateway; none of the gateway's business, but of `crosspatch provision`.
    #[serde(rename = "box", default)]
    pub site: site::Site,
    /// How its interfaces get their addresses; likewise.
    #[serde(rename = "network", default)]
    pub networks: Vec<site::Network>,
    /// The people it begins with; likewise.
    #[serde(rename = "person", default)]
    pub people: Vec<site::Person>,
}

/// `[tls]`
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
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
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
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
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// The event's id, as in tokens.
    pub id: String,
    /// How long the emergency button is held before the broadcast begins, in ms (E2).
    #[serde(default = "two_thousand")]
    #[schemars(range(min = 2000))]
    pub emergency_hold_ms: u64,
    /// The longest emergency broadcast, in s (E8).
    #[serde(default = "three_hundred")]
    pub emergency_max_s: u64,
    /// How long a General or Admin may talk at a time, in s (F9).
    #[serde(default = "sixty")]
    pub talk_limit_s: u64,
}

/// `[limits]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Channels that a General user may monitor at once.
    #[schemars(range(min = 1))]
    pub general_channels: usize,
    /// The same for Dispatch and Admin.
    #[schemars(range(min = 1))]
    pub dispatch_channels: usize,
    /// Users on one channel.
    #[schemars(range(min = 1))]
    pub channel_users: usize,
    /// Users on the box.
    #[schemars(range(min = 1))]
    pub users: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let Tuning { general_channels, dispatch_channels, channel_users, users, .. } = Tuning::default();
        Limits { general_channels, dispatch_channels, channel_users, users }
    }
}

/// `[[channel]]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// The id in tokens, on the wire and in the audit.
    pub id: String,
    /// The name people see.
    pub name: String,
}

/// `[[desk]]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Desk {
    /// The id of the desk as a participant, in the audit and in `crosspatch person`.
    pub user: String,
    /// The name that others see when it talks.
    pub name: String,
    /// Its role; only Dispatch has priority and an emergency button.
    #[serde(default = "dispatch")]
    pub role: Role,
    /// The guarded emergency button: the contact that closes.
    pub emergency_line: Option<String>,
    /// Its second contact, which opens when the first closes, so that a broken wire is noticed.
    pub emergency_opening_line: Option<String>,
    /// The emergency lamp.
    pub emergency_tally_line: Option<String>,
    /// Whether the emergency button is held or latches (E8).
    #[serde(default)]
    pub emergency_mode: EmergencyMode,
    /// One PTT button for the channels that a selector selects: `select_line` of the buttons below.
    pub ptt_line: Option<String>,
    /// Its second contact.
    pub ptt_opening_line: Option<String>,
    /// The fault lamp; without one the emergency lamp shows faults.
    pub fault_tally_line: Option<String>,
    /// A buzzer that sounds where the lamp codes say so.
    pub buzzer_line: Option<String>,
    /// A button that is pressed for so many s is stuck, and counts as let go.
    #[serde(default = "hundred_twenty")]
    #[schemars(range(min = 10, max = 600))]
    pub stuck_alarm_s: u64,
    /// PTT buttons with their lamps, or positions of the selector.
    #[serde(rename = "button", default)]
    pub buttons: Vec<Button>,
    /// The sound card of the microphone, as `crosspatch audio list` prints it, or an ALSA PCM; without one the desk's sound
    /// is simulated.
    pub capture_pcm: Option<String>,
    /// The same of the loudspeaker.
    pub playback_pcm: Option<String>,
}

/// How an emergency broadcast from a button ends (E8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EmergencyMode {
    /// Letting go ends it.
    #[default]
    Hold,
    /// The next press ends it.
    Latch,
}

/// `[[desk.button]]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Button {
    /// Which channel it talks on; a list talks on all of them at once (F16).
    pub channel: OneOrMany,
    /// The PTT button: the contact that closes.
    pub ptt_line: Option<String>,
    /// Its second contact, which opens when the first closes.
    pub ptt_opening_line: Option<String>,
    /// The position of the selector that selects it.
    pub select_line: Option<String>,
    /// The lamp that shows what its channels do.
    pub tally_line: Option<String>,
}

/// One channel, or several.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged, expecting = "write a channel's id, such as \"ops\", or a list of them")]
pub enum OneOrMany {
    /// `"ops"`
    One(String),
    /// `["ops", "medical"]`
    Many(Vec<String>),
}

impl OneOrMany {
    /// The ids of the channels.
    #[must_use]
    pub fn ids(&self) -> &[String] {
        match self {
            OneOrMany::One(id) => std::slice::from_ref(id),
            OneOrMany::Many(ids) => ids,
        }
    }
}

fn two_thousand() -> u64 {
    2000
}
fn three_hundred() -> u64 {
    300
}
fn hundred_twenty() -> u64 {
    120
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
    pub(crate) fn parse_in(text: &str, name: &str, dir: &Path, certificate: bool) -> Result<Self, ConfigError> {
        let line_of = |at: usize| text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
        let mut config: Config = toml::from_str(text).map_err(|e| {
            let line = e.span().map_or(1, |s| line_of(s.start));
            let message = e.message().trim_end();
            let remedy = near_key(message).map_or_else(
                || "compare with the sample configuration".to_owned(),
                |key| format!("write `{key}` in its place"),
            );
            ConfigError(vec![format!("{name}:{line}: {message}; {remedy}")])
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
            let find = |v: &str| {
                [format!("\"{v}\""), format!("'{v}'"), format!("/{v}\"")].iter().find_map(|written| text.find(written))
            };
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
        for sentence in knobs::out_of_range(&self.event, "[event]").chain(knobs::out_of_range(&self.limits, "[limits]"))
        {
            wrong(None, sentence);
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
            for channel in desk.buttons.iter().flat_map(|b| b.channel.ids()).filter(|id| !known(id)) {
                wrong(Some(channel), format!("there is no channel '{channel}'; name one of the [[channel]] ids"));
            }
            desk.check(&mut wrong);
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
        self.audit.check(&mut wrong);
        self.recorder.check(known, &mut wrong);
        self.site.check(&mut wrong);
        if self.site.join_links && self.tls.listen.is_none() {
            wrong(
                None,
                "join_links are for phones, which cannot come in; add [tls] with listen = \"0.0.0.0:8443\"".into(),
            );
        }
        site::check_networks(&self.networks, &mut wrong);
        site::check_people(&self.people, known, &users, &mut wrong);
        let mut lines = BTreeSet::new();
        for line in self.lines() {
            if !lines.insert(line.name.clone()) {
                wrong(Some(line.name.as_str()), format!("line '{}' has two uses; give each its own", line.name));
            }
        }
        let emergency: Vec<_> = self.desks.iter().filter_map(|d| name(&d.emergency_line)).collect();
        let opening = self.desks.iter().flat_map(|d| {
            let of_buttons = d.buttons.iter().map(|b| &b.ptt_opening_line);
            of_buttons.chain([&d.emergency_opening_line, &d.ptt_opening_line]).filter_map(name)
        });
        match self.board() {
            Err(BoardError(errors)) => {
                for error in errors {
                    wrong(Some(profile), error);
                }
            }
            Ok(board) => {
                for (line, sentence) in board.misfits(&self.lines(), &emergency, &opening.collect::<Vec<_>>()) {
                    wrong(Some(line.as_str()), sentence);
                }
            }
        }
    }

    /// Every line that the configuration uses.
    #[must_use]
    pub fn lines(&self) -> Vec<LineSpec> {
        self.line_uses().into_iter().map(|(spec, _)| spec).collect()
    }

    /// Every line that the configuration uses, with what it is used for in words.
    #[must_use]
    pub fn line_uses(&self) -> Vec<(LineSpec, String)> {
        use Direction::{Input, Output};
        let mut uses = Vec::new();
        let mut add = |line: &Option<String>, direction, what: String| {
            uses.extend(name(line).map(|name| (LineSpec { name, direction }, what)));
        };
        for desk in &self.desks {
            for button in &desk.buttons {
                let channels =
                    button.channel.ids().iter().map(|id| self.channel_name(id)).collect::<Vec<_>>().join(", ");
                add(&button.ptt_line, Input, format!("PTT of {channels}"));
                add(&button.ptt_opening_line, Input, format!("second contact of the PTT of {channels}"));
                add(&button.select_line, Input, format!("selector at {channels}"));
                add(&button.tally_line, Output, format!("lamp of {channels}"));
            }
            let of = |what: &str| format!("{what} of {}", desk.name);
            add(&desk.ptt_line, Input, of("PTT"));
            add(&desk.ptt_opening_line, Input, of("second contact of the PTT"));
            add(&desk.emergency_line, Input, of("emergency button"));
            add(&desk.emergency_opening_line, Input, of("second contact of the emergency button"));
            add(&desk.emergency_tally_line, Output, of("emergency lamp"));
            add(&desk.fault_tally_line, Output, of("fault lamp"));
            add(&desk.buzzer_line, Output, of("buzzer"));
        }
        for radio in &self.radios {
            if radio.carrier_from() == CarrierFrom::Gpio {
                add(&radio.carrier_line, Input, format!("carrier of {}", radio.name));
            }
            if radio.ptt_output() == PttOutput::Gpio {
                add(&radio.ptt_line, Output, format!("PTT output of {}", radio.name));
            }
        }
        uses
    }

    fn channel_name<'a>(&'a self, id: &'a str) -> &'a str {
        self.channels.iter().find(|c| c.id == id).map_or(id, |c| &c.name)
    }

    /// What the core is told. Desks and ports get the session ids 1, 2, …; `sources` are theirs, in the same order.
    #[must_use]
    pub fn settings(&self, sources: &[SourceId]) -> Settings {
        let mut sessions = (1..).map(SessionId).zip(sources.iter().copied());
        let mut next = || sessions.next().expect("one source for each desk and radio");
        let desks = self.desks.iter().map(|d| {
            let (session, source) = next();
            DeskSpec {
                user: UserId::from(d.user.as_str()),
                name: d.name.clone(),
                role: d.role,
                session,
                source,
                ptt: d.ptt(),
                emergency: button(&d.emergency_line, &d.emergency_opening_line),
                tally: d.buttons.iter().filter_map(|b| Some((name(&b.tally_line)?, b.channels()))).collect(),
                emergency_tally: name(&d.emergency_tally_line),
                fault_tally: name(&d.fault_tally_line),
                buzzer: name(&d.buzzer_line),
                stuck_alarm: Duration::from_secs(d.stuck_alarm_s),
                latch: d.emergency_mode == EmergencyMode::Latch,
            }
        });
        let desks = desks.collect();
        let ports = self.radios.iter().map(|r| {
            let (session, source) = next();
            r.spec(session, source)
        });
        Settings {
            ports: ports.collect(),
            desks,
            channels: self.channel_specs(),
            tuning: self.tuning(),
            misconfigured: false,
        }
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

fn name(line: &Option<String>) -> Option<LineName> {
    line.as_deref().map(LineName::from)
}

fn button(line: &Option<String>, opening: &Option<String>) -> Option<ButtonSpec> {
    Some(ButtonSpec { line: name(line)?, opening: name(opening) })
}

impl Button {
    fn channels(&self) -> Vec<ChannelId> {
        self.channel.ids().iter().map(|id| ChannelId::from(id.as_str())).collect()
    }
}

impl Desk {
    /// The channels that the desk hears, each once, in the order of its buttons.
    #[must_use]
    pub fn channels(&self) -> Vec<String> {
        let mut channels: Vec<String> = Vec::new();
        for id in self.buttons.iter().flat_map(|b| b.channel.ids()) {
            if !channels.contains(id) {
                channels.push(id.clone());
            }
        }
        channels
    }

    /// A button for each `ptt_line`, and the one of the selector.
    fn ptt(&self) -> Vec<PttSpec> {
        let own = self.buttons.iter().filter_map(|b| {
            let button = button(&b.ptt_line, &b.ptt_opening_line)?;
            Some(PttSpec { button, channels: b.channels(), select: Vec::new() })
        });
        let positions = self.buttons.iter().filter_map(|b| Some((name(&b.select_line)?, b)));
        let select = positions.flat_map(|(line, b)| b.channels().into_iter().map(move |c| (line.clone(), c)));
        let select: Vec<_> = select.collect();
        let selector = button(&self.ptt_line, &self.ptt_opening_line);
        own.chain(selector.map(|button| PttSpec { button, channels: Vec::new(), select })).collect()
    }

    /// Tells every error with a value that stands near it.
    fn check(&self, mut wrong: impl FnMut(Option<&str>, String)) {
        let user = &self.user;
        for sentence in knobs::out_of_range(self, &format!("desk '{user}'")) {
            wrong(Some(user), sentence);
        }
        let mut say = |near: &str, sentence: String| wrong(Some(near), format!("desk '{user}' {sentence}"));
        let selects = self.buttons.iter().any(|b| b.select_line.is_some());
        if self.ptt_line.is_some() != selects {
            let sentence = "needs both for a selector: ptt_line in [[desk]], and select_line in each [[desk.button]] that it selects";
            say(self.ptt_line.as_deref().unwrap_or(user), sentence.into());
        }
        let pairs = self.buttons.iter().map(|b| (&b.ptt_line, &b.ptt_opening_line));
        let own = [(&self.emergency_line, &self.emergency_opening_line), (&self.ptt_line, &self.ptt_opening_line)];
        for (closing, opening) in pairs.chain(own) {
            if let (None, Some(opening)) = (closing, opening) {
                say(
                    opening,
                    format!("has the second contact '{opening}' without a first one; name the contact that closes too"),
                );
            }
        }
        for button in self.buttons.iter().filter(|b| b.channel.ids().is_empty()) {
            let near = button.ptt_line.as_deref().unwrap_or(user);
            say(near, "has a button for no channel; name one or more in channel".into());
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

/// The key that was most likely meant by one that is unknown: a slip, or its name in an earlier version.
fn near_key(message: &str) -> Option<&str> {
    let mut words = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    let written = words.next()?;
    let likeness = |key: &str| strsim::jaro_winkler(written, key);
    words.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|key| likeness(key) > 0.85)
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
        assert!(no_board[0].starts_with("x.toml:1: board 'pie': there is no such profile; use sim, "), "{no_board:?}");
        let unknown = Config::parse(&DEMO.replace("emergency_hold_ms", "emergency_hold"), "x.toml").unwrap_err().0;
        assert!(unknown[0].starts_with("x.toml:4: unknown field `emergency_hold`"), "{unknown:?}");
        assert!(unknown[0].ends_with("; write `emergency_hold_ms` in its place"), "{unknown:?}");
        let strange = Config::parse(&DEMO.replace("emergency_hold_ms", "colour"), "x.toml").unwrap_err().0;
        assert!(strange[0].ends_with("; compare with the sample configuration"), "{strange:?}");
    }

    #[test]
    fn errors_of_a_desks_wiring_name_their_line_and_a_remedy() {
        let desk = DEMO.split("[[desk]]").next().unwrap();
        let errors = |lines: &str| {
            Config::parse(&format!("board = \"rpi-4b\"\n{desk}[[desk]]\nuser = \"d\"\nname = \"D\"\n{lines}"), "x.toml")
                .unwrap_err()
                .0
        };
        let selector = errors("ptt_line = \"button.1\"");
        assert!(selector[0].contains("desk 'd' needs both for a selector: ptt_line in [[desk]], and"), "{selector:?}");
        let alone = errors("emergency_opening_line = \"emergency.nc\"");
        assert!(alone[0].contains("has the second contact 'emergency.nc' without a first one"), "{alone:?}");
        let same = errors("emergency_line = \"emergency\"\nemergency_opening_line = \"button.1\"");
        assert!(same[0].contains("'button.1' is normally open, and a second contact must open"), "{same:?}");
        let closed = errors("emergency_line = \"emergency.nc\"");
        assert!(closed[0].contains("a cut wire would look like an emergency"), "{closed:?}");
        let stuck = errors("stuck_alarm_s = 5");
        assert!(stuck[0].contains("stuck_alarm_s of desk 'd' is 5; use 10 to 600"), "{stuck:?}");
        let channel = errors("[[desk.button]]\nchannel = 3");
        assert!(channel[0].contains("write a channel's id, such as \"ops\", or a list of them"), "{channel:?}");
        let none = errors("[[desk.button]]\nchannel = []\nptt_line = \"button.1\"");
        assert!(none[0].contains("has a button for no channel"), "{none:?}");
    }

    #[test]
    fn a_desk_may_have_a_selector_or_a_button_for_several_channels() {
        let desk = DEMO.split("[[desk]]").next().unwrap();
        let text = format!(
            "board = \"rpi-4b\"\n{desk}[[desk]]\nuser = \"d\"\nname = \"D\"\nptt_line = \"button.1\"\nemergency_mode = \"latch\"\n\
             [[desk.button]]\nchannel = \"ops\"\nselect_line = \"button.2\"\n\
             [[desk.button]]\nchannel = [\"ops\", \"medical\"]\nptt_line = \"button.3\"\ntally_line = \"lamp.1\"\n"
        );
        let config = Config::parse(&text, "x.toml").unwrap();
        let spec = &config.settings(&[SourceId(1)]).desks[0];
        let select = [("button.2".into(), "ops".into())];
        let ptt: Vec<_> =
            spec.ptt.iter().map(|p| (p.button.line.as_str(), p.channels.len(), p.select.clone())).collect();
        assert_eq!(ptt, [("button.3", 2, vec![]), ("button.1", 0, select.to_vec())]);
        assert_eq!((spec.tally[0].1.len(), spec.latch, config.desks[0].channels().len()), (2, true, 2));
        let uses: Vec<_> =
            config.line_uses().into_iter().map(|(spec, what)| format!("{}: {what}", spec.name)).collect();
        assert!(uses.contains(&"button.3: PTT of Operations, Medical".to_owned()), "{uses:?}");
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
