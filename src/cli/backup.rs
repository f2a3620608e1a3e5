//! `crosspatch backup` and `restore`: the whole box in one file, and back.

use super::provision::Boxed;
use crate::upkeep::{UpkeepError, backup};
use anyhow::{Context, bail};
use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// What a backup is sealed with.
#[derive(Args)]
struct Passphrase {
    /// Asks for a passphrase at the terminal.
    #[arg(long, conflicts_with = "passphrase_file")]
    passphrase: bool,
    /// Reads it from the first line of a file; - is the standard input.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

#[derive(Args)]
pub struct BackupArgs {
    /// The file to write; one that is there already is left alone.
    file: PathBuf,
    #[command(flatten)]
    passphrase: Passphrase,
    #[command(flatten)]
    places: Boxed,
}

#[derive(Args)]
pub struct RestoreArgs {
    /// The backup.
    #[arg(required_unless_present = "finish")]
    file: Option<PathBuf>,
    /// Finishes a restore that the power has ended; the service does it.
    #[arg(long)]
    finish: bool,
    #[command(flatten)]
    passphrase: Passphrase,
    #[command(flatten)]
    places: Boxed,
}

impl Passphrase {
    fn get(&self, twice: bool) -> anyhow::Result<Option<String>> {
        let line = |from: &mut dyn BufRead| -> std::io::Result<String> {
            let mut text = String::new();
            from.read_line(&mut text)?;
            Ok(text.trim_end_matches(['\r', '\n']).to_owned())
        };
        if let Some(path) = &self.passphrase_file {
            let text = match path.as_os_str() == "-" {
                true => line(&mut std::io::stdin().lock())?,
                false => {
                    let file = std::fs::File::open(path);
                    let file = file.with_context(|| format!("{} cannot be read", path.display()))?;
                    line(&mut std::io::BufReader::new(file))?
                }
            };
            return Ok(Some(text));
        }
        if !self.passphrase {
            return Ok(None);
        }
        let first = ask("Passphrase: ")?;
        if twice && ask("Once more: ")? != first {
            bail!("the two passphrases differ; nothing is written");
        }
        Ok(Some(first))
    }
}

/// Asks at the terminal for what nobody should read there.
fn ask(question: &str) -> anyhow::Result<String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        bail!("there is no terminal to ask for the passphrase at; use --passphrase-file");
    }
    eprint!("{question}");
    std::io::stderr().flush()?;
    let shown = tcgetattr(&stdin)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
    let mut text = String::new();
    let read = stdin.lock().read_line(&mut text);
    tcsetattr(&stdin, OptionalActions::Flush, &shown)?;
    eprintln!();
    read?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

pub fn backup(args: &BackupArgs) -> anyhow::Result<()> {
    let passphrase = args.passphrase.get(true)?;
    let (label, bytes) = backup::take(&args.places.clone().into(), passphrase.as_deref())?;
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.file);
    let mut file = made
        .with_context(|| format!("{} cannot be made; move a file away that is there already", args.file.display()))?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).with_context(|| {
        std::fs::remove_file(&args.file).ok();
        format!("{} cannot be written; make room", args.file.display())
    })?;
    println!("{}: {} bytes, event {}, {}", args.file.display(), bytes.len(), label.event, label.made);
    if passphrase.is_none() {
        eprintln!(
            "WARNING: this file is not sealed. Whoever has it can make links to this box as anybody, and pose as it to phones. \
             Keep it as you keep a key, or make it with --passphrase."
        );
    }
    Ok(())
}

pub fn restore(args: &RestoreArgs) -> anyhow::Result<()> {
    let places = args.places.clone().into();
    if args.finish {
        return Ok(backup::finish_interrupted(&places)?);
    }
    let file = args.file.as_ref().expect("clap requires it");
    let bytes = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let label = backup::restore(&places, &bytes, args.passphrase.get(false)?.as_deref()).map_err(named(file))?;
    println!(
        "The backup of {} (event {}, {}) is in place. Switch the box off and on, or: systemctl start crosspatch",
        label.host, label.event, label.made
    );
    println!("What was there before is in {}.", places.state_dir.join(backup::BEFORE).display());
    Ok(())
}

fn named(file: &std::path::Path) -> impl FnOnce(UpkeepError) -> UpkeepError {
    let file = file.display().to_string();
    move |e| match e {
        UpkeepError::Refused(why) => UpkeepError::Refused(format!("{file}: {why}")),
        UpkeepError::Written(_) | UpkeepError::Running | UpkeepError::Disk { .. } => e,
    }
}
