//! `crosspatch provision`: the one file that says what a box is, written, checked, multiplied and taken over.

use super::client::{PATIENCE, ask_openly, door};
use crate::upkeep::apply::{self, Outcome, Places};
use crate::upkeep::{UpkeepError, cards, sheet, template};
use anyhow::Context;
use axum::http::Method;
use clap::{Args, Subcommand};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a gateway that somebody talks through is asked whether they still do.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Args)]
pub struct ProvisionArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes a commented file to begin with.
    New {
        /// Where to; the terminal if it is not given. A file that is there already is left alone.
        file: Option<PathBuf>,
        /// The board profile.
        #[arg(long, default_value = "rpi-4b")]
        board: String,
        /// With {hostname}, {address} and {desk} for a list of boxes to fill.
        #[arg(long)]
        cards: bool,
    },
    /// Checks a file and names every error with its line.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Makes a directory for each box of a list, to be copied onto its card.
    Cards {
        /// The list: CSV with a heading; the column `box` names each box, any other fills its {column}.
        list: PathBuf,
        /// The file that all boxes have in common.
        #[arg(long)]
        base: PathBuf,
        /// The directory to make.
        #[arg(long)]
        out: PathBuf,
    },
    /// Takes over the file on the card, at boot before the gateway starts.
    Apply(Boxed),
    /// For a card that came after the gateway had started: ends with 1 if it says nothing new, else with 0 as soon as nobody talks.
    Late(Boxed),
}

/// Where a box has what makes it.
#[derive(Args, Clone)]
pub struct Boxed {
    /// The card's FAT partition.
    #[arg(long, default_value = "/boot/firmware")]
    card: PathBuf,
    /// The gateway's configuration.
    #[arg(long, default_value = "/etc/crosspatch/crosspatch.toml")]
    config: PathBuf,
    /// The gateway's state directory.
    #[arg(long, default_value = "/var/lib/crosspatch")]
    state_dir: PathBuf,
    /// The root of the file system.
    #[arg(long, default_value = "/", hide = true)]
    root: PathBuf,
}

impl From<Boxed> for Places {
    fn from(Boxed { card, config, state_dir, root }: Boxed) -> Places {
        Places { card, config, state_dir, root }
    }
}

/// Does it; false if there is nothing to do.
pub fn run(args: ProvisionArgs) -> anyhow::Result<bool> {
    match args.command {
        Command::Late(places) => return Ok(is_late(&places.into())),
        Command::New { file, board, cards } => new(file.as_deref(), &board, cards),
        Command::Check { file } => {
            apply::check(&file)?;
            println!("{}: no errors", file.display());
            Ok(())
        }
        Command::Cards { list, base, out } => make_cards(&list, &base, &out),
        Command::Apply(places) => take_over(&places.into()),
    }?;
    Ok(true)
}

fn new(file: Option<&Path>, board: &str, cards: bool) -> anyhow::Result<()> {
    let Some(file) = file else {
        print!("{}", template::new_file(board, cards)?);
        return Ok(());
    };
    let text = template::new_for_laptops(board, cards)?;
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).open(file);
    let mut opened =
        opened.with_context(|| format!("{} cannot be made; move a file away that is there already", file.display()))?;
    opened.write_all(text.as_bytes())?;
    println!("{} is written; `crosspatch provision check` names its errors", file.display());
    Ok(())
}

fn make_cards(list: &Path, base: &Path, out: &Path) -> anyhow::Result<()> {
    let read = |path: &Path| -> anyhow::Result<(String, String)> {
        let bytes = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((sheet::decode(&bytes, &name).map_err(|e| UpkeepError::Written(vec![e]))?, name))
    };
    let ((rows, list_name), (text, base_name)) = (read(list)?, read(base)?);
    let dir = base.parent().unwrap_or(Path::new(""));
    let made = cards::make((&rows, &list_name), (&text, &base_name), dir)?;
    cards::write(&made, out)?;
    for card in &made {
        println!("{}", out.join(&card.name).display());
    }
    println!("{} boxes. Copy what is in each directory onto the partition CROSSPATCH of its card.", made.len());
    Ok(())
}

fn is_late(places: &Places) -> bool {
    if !apply::is_news(places) {
        println!("The card says nothing new.");
        return false;
    }
    println!("The card came late and says something new: it is taken over as soon as nobody talks.");
    while somebody_talks(&places.state_dir) {
        std::thread::sleep(LOOK);
    }
    true
}

/// Nobody talks through a gateway that does not run, or does not answer.
fn somebody_talks(state_dir: &Path) -> bool {
    let panel = door(state_dir).and_then(|door| ask_openly(&door, &Method::GET, "/api/panel", PATIENCE));
    panel.is_ok_and(|panel| panel.is_ok_and(|panel| panel["isQuiet"] == false))
}

fn take_over(places: &Places) -> anyhow::Result<()> {
    let report = apply::apply(places)?;
    for trouble in &report.trouble {
        eprintln!("crosspatch: {trouble}");
    }
    match report.outcome {
        Outcome::NotProvisioned => println!("There is no {} on the card; nothing is changed.", apply::FILE),
        Outcome::AsBefore => println!("{} is as before.", apply::FILE),
        Outcome::Missing => println!("There is no {} on the card; the last good one holds.", apply::FILE),
        Outcome::Applied(changed) => {
            println!("{} is taken over.", apply::FILE);
            for change in changed {
                println!("{change}");
            }
        }
        Outcome::Refused { errors, runs_on } => {
            println!("{}", runs_on.in_words());
            return Err(UpkeepError::Written(errors).into());
        }
    }
    Ok(())
}
