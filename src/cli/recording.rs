//! `crosspatch recording`: what was recorded, and copies of it that are compared with the audit.

use super::audit::{Time, line};
use super::people::Refused;
use super::state::{StateDir, have_noted};
use crate::audit::Filter;
use crate::gateway::notes::{Heard, Note};
use crate::gateway::recordings::{self, Recording};
use crate::recorder::sha256_of;
use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};

/// See the command's help.
#[derive(Args)]
pub struct RecordingArgs {
    #[command(flatten)]
    state_dir: StateDir,
    #[command(subcommand)]
    command: RecordingCommand,
}

#[derive(Subcommand)]
enum RecordingCommand {
    /// Lists recordings.
    List {
        #[command(flatten)]
        wanted: Wanted,
        /// Prints lines of JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Copies recordings, compares each with its hash in the audit, and writes `recordings.jsonl` beside them.
    Export {
        #[command(flatten)]
        wanted: Wanted,
        /// The directory to copy to.
        #[arg(short, long)]
        output: PathBuf,
    },
}

#[derive(Args, Serialize)]
struct Wanted {
    #[command(flatten)]
    #[serde(flatten)]
    time: Time,
    /// On this channel.
    #[arg(long)]
    channel: Option<String>,
    /// By this person, by id or name.
    #[arg(long)]
    person: Option<String>,
    /// Of this talk burst, such as b12.
    #[arg(long)]
    burst: Option<String>,
    /// The newest so many.
    #[arg(short = 'n', long)]
    newest: Option<usize>,
}

impl Wanted {
    fn filter(&self) -> Filter {
        let Wanted { time: Time { from, until }, channel, person, burst, newest } = self;
        Filter {
            from: from.clone(),
            until: until.clone(),
            channel: channel.clone(),
            person: person.clone(),
            burst: burst.clone(),
            newest: *newest,
            ..Filter::default()
        }
    }
}

/// Runs the command.
///
/// # Errors
/// If the audit or a recording cannot be read, or a recording is not the one that was made.
pub fn run(args: &RecordingArgs) -> anyhow::Result<()> {
    match &args.command {
        RecordingCommand::List { wanted, json } => {
            args.state_dir.note_reading("recordings", json!(wanted));
            for recording in recordings::list(&args.state_dir.path, wanted.filter())? {
                println!("{}", if *json { serde_json::to_string(&recording)? } else { table(&recording) });
            }
            Ok(())
        }
        RecordingCommand::Export { wanted, output } => export(&args.state_dir.path, wanted, output),
    }
}

fn table(recording: &Recording) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".into());
    let seconds = recording.length_ms.map_or_else(|| "?".into(), |ms| format!("{}.{} s", ms / 1000, ms % 1000 / 100));
    let mut remarks = Vec::new();
    if !recording.kept {
        remarks.push("gone".to_owned());
    }
    remarks.extend(recording.cause.clone());
    remarks.extend(recording.lost.filter(|lost| *lost > 0).map(|lost| format!("{lost} packets lost")));
    let channel = recording.channel.clone().unwrap_or_else(|| "all".into());
    let columns = [
        (25, text(&recording.started_utc)),
        (12, channel),
        (20, text(&recording.user_name)),
        (9, text(&recording.role)),
        (8, seconds),
        (0, format!("{} {}", recording.id, remarks.join(", "))),
    ];
    line(columns)
}

fn export(state_dir: &Path, wanted: &Wanted, output: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(output).with_context(|| format!("{} cannot be made", output.display()))?;
    let (mut index, mut wrong, mut copied) = (String::new(), Vec::new(), 0);
    let recordings = recordings::list(state_dir, wanted.filter())?;
    let kept = recordings.iter().filter(|recording| recording.kept).map(Heard::of);
    have_noted(state_dir, &kept.map(Note::Exported).collect::<Vec<_>>())
        .context("nothing was copied, because the audit cannot be told of it")?;
    for recording in recordings {
        index.push_str(&serde_json::to_string(&recording)?);
        index.push('\n');
        let id = &recording.id;
        let Some(from) = recording.path(state_dir).filter(|_| recording.kept) else {
            eprintln!("{id} is gone");
            continue;
        };
        let to = output.join(format!("{id}.opus"));
        std::fs::copy(&from, &to).with_context(|| format!("{} cannot be copied", from.display()))?;
        copied += 1;
        if sha256_of(&to)? != recording.sha256 {
            wrong.push(id.clone());
        }
    }
    let path = output.join("recordings.jsonl");
    std::fs::write(&path, index).with_context(|| format!("{} cannot be written", path.display()))?;
    println!("{copied} recordings in {}", output.display());
    let sentence = || Refused(format!("not the recordings that were made: {}", wrong.join(", ")));
    ensure!(wrong.is_empty(), sentence());
    Ok(())
}
