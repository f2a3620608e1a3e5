//! `crosspatch radio`: sets a radio up, with a technician at the box and another at a handheld.

mod align;
#[cfg(test)]
mod align_tests;
mod asking;
mod delays;
mod edit;
mod measure;
pub mod port;
mod report;

use crate::base::clock::unix_ms_now;
use crate::gateway::config::Config;
use crate::hardware::{audio, cards};
use align::{Align, Wanted};
use anyhow::Context;
use asking::Asking;
use clap::{Args, Subcommand};
use port::{Ear, Port};
use report::Report;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[derive(Args)]
pub struct RadioArgs {
    #[command(subcommand)]
    command: RadioCommand,
}

#[derive(Subcommand)]
enum RadioCommand {
    /// Leads through levels, squelch and delays of a radio, writes them to the configuration and ends in a report.
    Align(AlignArgs),
}

#[derive(Args)]
struct AlignArgs {
    /// The gateway's configuration; it is changed.
    #[arg(long)]
    config: PathBuf,
    /// The id of the radio.
    #[arg(long)]
    radio: String,
    /// Who does it, for the report; asked for if not said.
    #[arg(long)]
    by: Option<String>,
    /// Where the two files of the report go.
    #[arg(long, default_value = ".")]
    report: PathBuf,
    /// A card or ALSA PCM at which a second radio is heard: delays and the transmit level are measured there.
    #[arg(long)]
    far: Option<String>,
    /// Answers every question with its default. For tests, and for boxes that measure themselves.
    #[arg(long)]
    yes: bool,
    /// Leaves steps out: receive, squelch, transmit, delays.
    #[arg(long, value_delimiter = ',')]
    skip: Vec<Wanted>,
    /// For how many seconds a carrier is waited for.
    #[arg(long, default_value_t = 20)]
    patience: u64,
    /// The gateway's state directory: while a gateway runs, it has the radio.
    #[arg(long, default_value = "state")]
    state_dir: PathBuf,
}

/// Carries a command out; false if something does not pass.
///
/// # Errors
/// If the radio cannot be had, or nobody answers; nothing is changed then.
pub fn run(args: RadioArgs) -> anyhow::Result<bool> {
    let RadioCommand::Align(args) = args.command;
    let _claim = port::claim(&args.state_dir)?;
    let config = Config::read(&args.config)?;
    let mut port = Port::open(&config, &args.radio)?;
    port.unkey_at_signals()?;
    let far = match &args.far {
        Some(name) => Some(Ear::new(audio::open_capture(&port::pcm(name)).map_err(port::busy)?)?),
        None => None,
    };
    let mut asking = Asking::new(std::io::stdin().lock(), std::io::stdout(), args.yes);
    let radio = &port.radio;
    let (capture, playback) = port::names(radio)?;
    let card = cards::find(capture);
    let by = match args.by {
        Some(by) => by,
        None => asking.ask("Who are you? (for the report)", "unknown")?,
    };
    let mut report = Report {
        date: OffsetDateTime::from_unix_timestamp((unix_ms_now() / 1000) as i64)?.format(&Rfc3339)?,
        host: nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned(),
        version: env!("CARGO_PKG_VERSION"),
        event: config.event.id.clone(),
        radio: json!({ "id": radio.id, "name": radio.name, "channel": radio.channel }),
        card: json!({
            "capture": capture, "playback": playback,
            "product": card.as_ref().map(|c| c.product.clone()), "serial": card.and_then(|c| c.serial),
        }),
        by,
        steps: Vec::new(),
        set: Vec::new(),
        config: args.config.clone(),
        written: false,
    };
    let before = radio.clone();
    let mut align = Align::new(&mut port, &mut asking, far, Duration::from_secs(args.patience));
    align.run(&args.skip)?;
    (report.steps, report.set) = align.finish(&before);
    drop(port); // unkeyed, whatever comes now
    if !report.set.is_empty() {
        for change in &report.set {
            asking.say(&format!("  {} = {}    # was {}", change.key, change.after, change.before))?;
        }
        if asking.agree(&format!("Write this to {}?", args.config.display()))? {
            let changes: Vec<_> = report.set.iter().map(|change| (change.key, change.after)).collect();
            let kept = edit::write(&args.config, &args.radio, &changes)?;
            asking.say(&format!("  written; as it was before it is kept as {}", kept.display()))?;
            report.written = true;
        }
    }
    asking.say(&format!("\n{}", report.text()))?;
    let [text, json] = report.write(&args.report).context("the report is lost but for the lines above")?;
    asking.say(&format!("The report is in {} and {}", text.display(), json.display()))?;
    if report.written {
        asking.say("Start the gateway again to have it use them.")?;
    }
    Ok(report.passes())
}
