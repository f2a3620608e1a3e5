//! The command line: arguments, logging, exit codes (sysexits).

mod audio;
mod audit;
mod backup;
mod board;
mod client;
mod doctor;
mod emergency;
mod gpio;
mod manual;
mod people;
mod provision;
mod radio;
mod recording;
mod state;
mod support;
mod update;

use crate::base::clock::unix_ms_now;
use crate::base::{ChannelId, Role};
use crate::gateway::config::{Config, ConfigError};
use crate::gateway::notes::Note;
use crate::gateway::{self, Options};
use crate::hardware::board::BoardError;
use crate::net::token::{Identity, Tokens};
use crate::upkeep::UpkeepError;
use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// sysexits: the command line or a file named on it is wrong.
const EX_CONFIG: u8 = 78;
/// sysexits: what is asked for does not fit what there is.
const EX_DATAERR: u8 = 65;
/// sysexits: something is wrong that the user did not do.
const EX_UNAVAILABLE: u8 = 69;

/// A check of the box fails.
const EX_FAILED_CHECK: u8 = 1;

#[derive(Parser)]
#[command(name = "crosspatch", version, about = "Radio gateway: push-to-talk with dispatch priority for events")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the gateway.
    Run(Run),
    /// Checks a configuration file and names every error.
    Check {
        /// The file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Writes, checks, multiplies and takes over the file that says what a box is.
    Provision(provision::ProvisionArgs),
    /// Writes all of what makes this box this box into one file: configuration, people, keys.
    Backup(backup::BackupArgs),
    /// Puts a backup in the place of what there is.
    Restore(backup::RestoreArgs),
    /// Installs another version of the program, and the one before again if it does not become ready.
    Update(update::UpdateArgs),
    /// Checks everything that the box needs, and says what to do where something is wrong.
    Doctor(doctor::DoctorArgs),
    /// Puts logs, configuration without secrets, checks and versions into one file for whoever helps from afar.
    SupportBundle(support::SupportArgs),
    /// Explains the configuration file.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Prints a token that lets a person in.
    Token(Token),
    /// Lists and changes channels.
    Channel(people::ChannelArgs),
    /// Lists and changes persons, their roles and permissions; enables desks and radios.
    Person(people::PersonArgs),
    /// Lists, adds and lifts bans.
    Ban(people::BanArgs),
    /// Has the running gateway read its configuration file again: channels, limits, times and what is kept.
    Reload(people::ReloadArgs),
    /// Looks at sound cards, measures levels, plays tones.
    Audio {
        #[command(subcommand)]
        command: audio::AudioCommand,
    },
    /// Sets a radio up.
    Radio(radio::RadioArgs),
    /// Lists board profiles, shows where their lines are.
    Board(board::BoardArgs),
    /// Watches and moves GPIO lines by hand, while no gateway runs.
    Gpio(gpio::GpioArgs),
    /// Tries the emergency button out.
    Emergency(emergency::EmergencyArgs),
    /// Prints what the lamps of a desk say, and how.
    Lamps,
    /// Takes every output of the board to its safe level, unkeyed and dark, and ends.
    Unkey(gpio::From),
    /// Writes man pages and shell completions for a package.
    #[command(hide = true)]
    Manual {
        /// Where to.
        dir: PathBuf,
    },
    /// Reads, exports and verifies the audit.
    Audit(audit::AuditArgs),
    /// Lists and copies recordings.
    Recording(recording::RecordingArgs),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Prints every key with its range, default and meaning.
    Reference,
}

/// Where the gateway serves, or would.
#[derive(Args, Clone, Copy)]
struct Served {
    /// Pages, signaling and the board's buttons, for this machine only; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Pages and signaling for the network, over TLS, such as 0.0.0.0:8443; by default as the configuration says.
    #[arg(long, value_name = "ADDR:PORT")]
    listen_tls: Option<SocketAddr>,
    /// The UDP port of all media; 0 picks a free one.
    #[arg(long, default_value_t = 40000)]
    media_port: u16,
}

#[derive(Args)]
struct Run {
    /// The configuration file; without one the demo event runs on the simulated board.
    #[arg(long, conflicts_with = "demo")]
    config: Option<PathBuf>,
    /// The demo event on the simulated board.
    #[arg(long)]
    demo: bool,
    #[command(flatten)]
    served: Served,
    /// Where the audit, the token secret and ready.json live.
    #[arg(long, default_value = "state")]
    state_dir: PathBuf,
    /// ALSA PCM of the (first) radio's receive audio.
    #[arg(long, value_name = "PCM")]
    radio_capture: Option<String>,
    /// ALSA PCM of the (first) radio's transmit audio.
    #[arg(long, value_name = "PCM")]
    radio_playback: Option<String>,
    /// ALSA PCM of the (first) desk's microphone.
    #[arg(long, value_name = "PCM")]
    desk_capture: Option<String>,
    /// ALSA PCM of the (first) desk's loudspeaker.
    #[arg(long, value_name = "PCM")]
    desk_playback: Option<String>,
}

#[derive(Args)]
struct Token {
    /// The gateway's state directory.
    #[arg(long)]
    state_dir: PathBuf,
    /// The participant's id.
    #[arg(long)]
    user: String,
    /// The participant's name.
    #[arg(long)]
    name: String,
    /// general, dispatch or admin.
    #[arg(long)]
    role: Role,
    /// Channels it may join, with commas between them.
    #[arg(long, value_delimiter = ',', required = true)]
    channels: Vec<String>,
    /// How long it is good for: 30m, 12h, 2d.
    #[arg(long, default_value = "12h", value_parser = parse_duration)]
    expires: Duration,
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no duration; write a number and s, m, h or d, such as 12h");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..split].parse().map_err(|_| wrong())?;
    let seconds = match &text[split..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(wrong()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// Runs the program; the exit code follows sysexits.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    // Without internal errors: a log that nobody reads any more must not end the gateway.
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false).init();
    let done = match cli.command {
        Command::Run(run) => start(run),
        Command::Check { config } => match Config::inspect(&config) {
            Ok(()) => {
                println!("{}: no errors", config.display());
                Ok(())
            }
            Err(e) => Err(e.into()),
        },
        Command::Provision(args) => match provision::run(args) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::from(EX_FAILED_CHECK),
            Err(e) => Err(e),
        },
        Command::Backup(args) => backup::backup(&args),
        Command::Restore(args) => backup::restore(&args),
        Command::Update(args) => update::run(&args),
        Command::Doctor(args) => match doctor::run(&args) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::from(EX_FAILED_CHECK),
            Err(e) => Err(e),
        },
        Command::SupportBundle(args) => support::run(&args),
        Command::Config { command: ConfigCommand::Reference } => {
            print!("{}", crate::gateway::knobs::reference());
            Ok(())
        }
        Command::Token(token) => print_token(&token),
        Command::Channel(args) => people::channel(args),
        Command::Person(args) => people::person(args),
        Command::Ban(args) => people::ban(args),
        Command::Reload(args) => people::reload(&args),
        Command::Audio { command } => match audio::run(command) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::from(EX_DATAERR),
            Err(e) => Err(e),
        },
        Command::Radio(args) => match radio::run(args) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::from(EX_DATAERR),
            Err(e) => Err(e),
        },
        Command::Board(args) => board::run(args),
        Command::Gpio(args) => gpio::run(args),
        Command::Emergency(args) => emergency::run(args),
        Command::Lamps => {
            print_lamps();
            Ok(())
        }
        Command::Unkey(from) => gpio::unkey(&from),
        Command::Manual { dir } => manual::write(Cli::command(), &dir),
        Command::Audit(args) => audit::run(&args),
        Command::Recording(args) => recording::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("crosspatch: {e:#}");
            let upkeep = e.downcast_ref::<UpkeepError>();
            let written = upkeep.is_some_and(|e| matches!(e, UpkeepError::Written(_)));
            let refused = upkeep.is_some_and(|e| matches!(e, UpkeepError::Refused(_) | UpkeepError::Running));
            ExitCode::from(if e.is::<ConfigError>() || e.is::<BoardError>() || written {
                EX_CONFIG
            } else if e.is::<people::Refused>() || refused {
                EX_DATAERR
            } else {
                EX_UNAVAILABLE
            })
        }
    }
}

fn start(run: Run) -> anyhow::Result<()> {
    let mut config = match &run.config {
        Some(path) => Config::read(path)?,
        None => Config::demo(),
    };
    if let Some(radio) = config.radios.first_mut() {
        radio.capture_pcm = run.radio_capture.or(radio.capture_pcm.take());
        radio.playback_pcm = run.radio_playback.or(radio.playback_pcm.take());
    }
    if let Some(desk) = config.desks.first_mut() {
        desk.capture_pcm = run.desk_capture.or(desk.capture_pcm.take());
        desk.playback_pcm = run.desk_playback.or(desk.playback_pcm.take());
    }
    let options = Options {
        config,
        config_file: run.config,
        listen: run.served.listen,
        listen_tls: run.served.listen_tls,
        media_port: run.served.media_port,
        state_dir: run.state_dir,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        };
        gateway::run(options, stop).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

fn print_lamps() {
    for code in crate::control::CODES {
        println!("{:<10} {}{}", code.shows.as_str(), code.looks, if code.sounds { " (the buzzer too)" } else { "" });
        println!("           {}", code.means);
    }
}

fn print_token(token: &Token) -> anyhow::Result<()> {
    std::fs::create_dir_all(&token.state_dir)
        .with_context(|| format!("the state directory {} cannot be made", token.state_dir.display()))?;
    let event = client::event_of(&token.state_dir).unwrap_or_else(|| Config::demo().event.id);
    let tokens = Tokens::of_state_dir(&token.state_dir, &event)?;
    let identity = Identity {
        user: token.user.as_str().into(),
        name: token.name.clone(),
        role: token.role,
        channels: token.channels.iter().map(|c| ChannelId::from(c.as_str())).collect(),
    };
    let exp = unix_ms_now() / 1000 + token.expires.as_secs();
    state::have_noted(&token.state_dir, &[Note::token(&identity, exp)])
        .context("no token was made, because the audit cannot be told of it")?;
    println!("{}", tokens.sign(&identity, exp)?);
    Ok(())
}
