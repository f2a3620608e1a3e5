//! `crosspatch update`: another version, signed, with the way back.

use crate::upkeep::update::{self, Debian, Outcome, Phase, Store, System};
use crate::upkeep::{UpkeepError, disk};
use anyhow::{Context, bail};
use clap::Args;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

/// The transient unit that the work is done in: it goes on when the terminal, or the service, goes.
const UNIT: &str = "crosspatch-update-try";

#[derive(Args)]
pub struct UpdateArgs {
    /// The package, with FILE.deb.minisig beside it; or a directory, whose newest one for this box is taken.
    #[arg(required_unless_present_any = ["stick", "back", "status", "resume", "carry_out"])]
    file: Option<PathBuf>,
    /// Takes the newest package of a USB stick.
    #[arg(long, conflicts_with = "file")]
    stick: bool,
    /// Goes back to the version before.
    #[arg(long, conflicts_with_all = ["file", "stick"])]
    back: bool,
    /// Says what came of the last update.
    #[arg(long, conflicts_with_all = ["file", "stick", "back"])]
    status: bool,
    /// Allows an older version than the installed one.
    #[arg(long)]
    downgrade: bool,
    /// At boot: ends an update that the power has ended.
    #[arg(long, conflicts_with_all = ["file", "stick", "back", "status"])]
    resume: bool,
    /// In the transient unit: tries what was prepared.
    #[arg(long, hide = true)]
    carry_out: bool,
    /// The gateway's state directory.
    #[arg(long, default_value = "/var/lib/crosspatch")]
    state_dir: PathBuf,
    /// Where packages and journal are kept; only root enters it.
    #[arg(long, default_value = "/var/lib/crosspatch-update", hide = true)]
    dir: PathBuf,
}

pub fn run(args: &UpdateArgs) -> anyhow::Result<()> {
    let store = Store {
        dir: args.dir.clone(),
        kept: args.state_dir.join("update"),
        keys: update::key_directories(Debian.forgets()),
    };
    if args.status {
        for sentence in update::standing(&Debian, &store)? {
            println!("{sentence}");
        }
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(UpkeepError::Refused("only root may install a version; use sudo".into()).into());
    }
    let mut system = Debian;
    if args.resume {
        return told(&update::resume(&mut system, &store)?);
    }
    if args.carry_out {
        return told(&update::carry_out(&mut system, &store)?);
    }
    let take = |path: &std::path::Path| {
        let deb = if path.is_dir() { update::newest_in(&system, &store, path)? } else { path.to_owned() };
        update::prepare(&system, &store, &deb, args.downgrade)
    };
    let phase = match &args.file {
        _ if args.back => update::prepare_back(&system, &store)?,
        Some(file) => take(file)?,
        None => update::from_stick(take)?,
    };
    if let Phase::Trying { new, old } = &phase {
        println!("Version {new} is checked. It is tried now; version {old} comes back if it does not become ready.");
    }
    try_it(args, &store)
}

/// Has the program that runs now do the rest, in a unit of its own.
fn try_it(args: &UpdateArgs, store: &Store) -> anyhow::Result<()> {
    let own = std::fs::read("/proc/self/exe").context("the program cannot be read")?;
    disk::write_whole(&store.rescue(), &own, 0o700)?;
    std::fs::set_permissions(store.rescue(), std::fs::Permissions::from_mode(0o700))?;
    let mut unit = Command::new("systemd-run");
    unit.args(["--quiet", "--wait", "--collect", "--unit", UNIT, "--property=Type=exec"]);
    unit.arg(store.rescue())
        .args(["update", "--carry-out", "--state-dir"])
        .arg(&args.state_dir)
        .arg("--dir")
        .arg(&args.dir);
    let done = unit.status().context("systemd-run cannot be started")?;
    let mut journal = store.journal(&Debian)?;
    if journal.phase.is_some() && done.code().is_some() {
        // The unit could not be started, or has ended before its work.
        update::resume(&mut Debian, store)?;
        journal = store.journal(&Debian)?;
    }
    match journal.last {
        Some(last) if journal.phase.is_none() && done.success() => {
            println!("{last}");
            if let Some(next) = update::next_boot(&Debian, store) {
                println!("{next}");
            }
        }
        Some(last) if journal.phase.is_none() => bail!("{last}"),
        _ => {
            bail!("the update was interrupted; the next boot brings the version before back. See: journalctl -u {UNIT}")
        }
    }
    Ok(())
}

fn told(outcome: &Outcome) -> anyhow::Result<()> {
    match outcome {
        Outcome::Nothing | Outcome::Runs(_) => println!("{}", outcome.in_words()),
        Outcome::Returned { .. } | Outcome::Stuck { .. } => bail!("{}", outcome.in_words()),
    }
    Ok(())
}
