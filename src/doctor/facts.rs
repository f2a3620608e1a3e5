//! What is known of a box before anything is judged. Everything may be missing: a technician looks when things are broken.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// All of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Facts {
    /// Now, as ISO 8601.
    pub at: String,
    /// Now, in seconds since 1970, by the system's clock.
    pub now_s: u64,
    /// The version of this program.
    pub program: String,
    /// Why this boot has not installed the version that is kept with the state, with what to do.
    pub not_given: Option<String>,
    /// The gateway that looks at itself; none if none runs.
    pub gateway: Option<Gateway>,
    /// The state directory.
    pub state_dir: PathBuf,
    /// True if whoever looks may not enter it.
    pub closed: bool,
    /// The configuration.
    pub configuration: Configuration,
    /// The board; none if the configuration does not say.
    pub board: Option<Board>,
    /// The lines that the configuration uses.
    pub lines: Vec<Line>,
    /// Each way of each sound card that the configuration uses.
    pub sound: Vec<Sound>,
    /// The clock.
    pub clock: Clock,
    /// The disk of the state directory.
    pub disk: Disk,
    /// How clients get in.
    pub network: Network,
    /// The ports.
    pub ports: Vec<Port>,
    /// What vouches for the box; none if it serves no network.
    pub certificate: Option<Certificate>,
    /// The audit; none if there is no file yet.
    pub audit: Option<Result<Audit, String>>,
    /// Each sensor's name and temperature in °C.
    pub temperatures: Vec<(String, f64)>,
    /// True while the supply is too low; none if the board does not tell.
    pub under_voltage: Option<bool>,
}

/// A running gateway's word on itself.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Gateway {
    /// Parts that are degraded, each with the reason.
    pub degraded: Vec<(String, String)>,
}

/// The configuration.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Configuration {
    /// The file; the demo event has none.
    pub file: Option<PathBuf>,
    /// What is in it, in a phrase.
    pub holds: String,
    /// Everything that is wrong with the file, a sentence each.
    pub errors: Vec<String>,
    /// SHA-256 of the file, in hex.
    pub sha256: Option<String>,
    /// SHA-256 of what the running gateway has read.
    pub loaded_sha256: Option<String>,
}

/// The board.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Board {
    /// The profile, as the configuration names it.
    pub profile: String,
    /// True for the simulated board.
    pub simulated: bool,
    /// What the machine calls itself.
    pub model: Option<String>,
    /// Labels of chips, any of which the profile's lines may be on; none for lines that are found by name.
    pub wanted_chips: Vec<String>,
    /// Labels of the chips that are there.
    pub chips: Vec<String>,
    /// Profiles for this machine, by what it calls itself; else those whose chip is there.
    pub fitting: Vec<String>,
    /// What is dangerous about where used lines are, a sentence each.
    pub hazards: Vec<String>,
}

/// A line that the configuration uses.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// Its name.
    pub name: String,
    /// What it is used for.
    pub used_for: String,
    /// True for an input.
    pub input: bool,
    /// True for an input that may well be active now: a carrier, or a position of a selector.
    pub may_be_active: bool,
    /// True for an output that keys a transmitter.
    pub keys_transmitter: bool,
    /// Where to find it, as on the header.
    pub place: String,
    /// Active or not, or why that is not known. For an output that nobody holds: inactive.
    pub level: Option<Result<bool, String>>,
    /// How often it has moved since the gateway's start.
    pub moves: u64,
    /// What a person saw or did, when the lines were walked through.
    pub walked: Option<Walked>,
}

/// What became of a line when a person tried it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Walked {
    /// It moved, or lit.
    Well,
    /// It did not.
    Failed,
    /// It was left out; why.
    LeftOut(String),
}

/// One way of a sound card.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sound {
    /// Which one, as in `Desk 1 microphone`.
    pub name: String,
    /// The ALSA device or card; none for simulated sound.
    pub device: Option<String>,
    /// Why it does not work.
    pub fault: Option<String>,
    /// What is heard; none for ways out, and where nothing was measured.
    pub level: Option<Level>,
}

/// How loud it was for a moment.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Level {
    /// RMS, in dBFS.
    pub average_dbfs: f64,
    /// The highest sample, in dBFS.
    pub peak_dbfs: f64,
    /// Samples at full scale.
    pub clipped: u64,
}

/// The clock.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Clock {
    /// True if the network has set it.
    pub synchronised: bool,
    /// The battery clock, in seconds since 1970; none if there is none that runs.
    pub battery_clock_s: Option<u64>,
    /// The earliest time that it can be, in seconds since 1970: that of the last record, or of this program's making.
    pub not_before_s: u64,
}

/// The disk of the state directory.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Disk {
    /// Why nothing is known of it.
    pub unknown: Option<String>,
    /// Where it is mounted.
    pub mount: String,
    /// Its file system.
    pub file_system: String,
    /// True if it is mounted read-only.
    pub read_only: bool,
    /// Why the image of a box keeps its state in memory.
    pub in_memory: Option<String>,
    /// Bytes that may still be written.
    pub free_bytes: u64,
    /// All its bytes.
    pub total_bytes: u64,
    /// Milliseconds that a small file took to be safe on disk, or why it could not be written; none if not tried.
    pub write: Option<Result<u64, String>>,
    /// What it is, as the kernel says: `MMC` (soldered), `SD`, or nothing.
    pub kind: Option<String>,
    /// Tenths of the lifetime used, the worse of the two that an eMMC counts; 11 is beyond the end.
    pub life_used_tenths: Option<u8>,
    /// Spare blocks are running out: 1 normal, 2 most, 3 nearly all are used.
    pub spare: Option<u8>,
    /// When a card was made, as `05/2021`.
    pub made: Option<String>,
}

/// How clients get in.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Network {
    /// Where TLS listens; none if the network is not served.
    pub tls: Option<String>,
    /// Interfaces with their addresses.
    pub addresses: Vec<(String, String)>,
    /// Addresses that media clients are told, without the loopback.
    pub media: Vec<String>,
    /// What people open.
    pub origins: Vec<String>,
}

/// A port that the gateway listens at.
#[derive(Clone, Debug, Serialize)]
pub struct Port {
    /// What it is for.
    pub what: String,
    /// Its address, with `udp` or `tcp`.
    pub address: String,
    /// Who has it.
    pub state: PortState,
}

/// See [`Port`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum PortState {
    /// Nobody: the gateway can have it.
    Free,
    /// The gateway.
    Ours,
    /// Somebody else, as far as is known.
    Taken(Option<String>),
    /// It cannot be had; why.
    Refused(String),
}

/// What vouches for the box.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Certificate {
    /// True if the box's own authority signs; false for a certificate from elsewhere.
    pub own_authority: bool,
    /// Why it cannot be used; the sentence says what to do.
    pub fault: Option<String>,
    /// It is not there yet: the gateway makes it at its first start.
    pub to_be_made: bool,
    /// Valid from, in seconds since 1970.
    pub begins_s: u64,
    /// Valid until, in seconds since 1970.
    pub ends_s: u64,
    /// The same as a day.
    pub ends: String,
    /// What it is for.
    pub names: Vec<String>,
    /// What people open that it is not for.
    pub missing: Vec<String>,
}

/// The audit.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Audit {
    /// The last record's number.
    pub last_seq: i64,
    /// Checkpoints that were compared.
    pub checkpoints: usize,
    /// What is wrong with the chain.
    pub broken: Option<String>,
    /// What lowers the worth of the verdict.
    pub notes: Vec<String>,
}
