//! `crosspatch doctor`: every check of the box on one screen, through the gateway if one runs, else alone.

mod walk;

use super::Served;
use super::client::{PATIENCE, ask_openly, door};
use crate::audit::iso_8601;
use crate::base::clock::unix_ms_now;
use crate::doctor::facts::{Facts, Line};
use crate::doctor::machine::Machine;
use crate::doctor::{Check, Report, as_text, examine};
use crate::gateway::checkup::{Checkup, is_closed};
use crate::gateway::config::Config;
use crate::gateway::lock_state_dir;
use anyhow::Context;
use axum::http::Method;
use clap::Args;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use walk::Bench;

/// Where the package keeps things.
const CONFIG: &str = "/etc/crosspatch/crosspatch.toml";
const STATE_DIR: &str = "/var/lib/crosspatch";
/// Reading a big audit on a slow board takes its time.
const LONG_PATIENCE: Duration = Duration::from_secs(300);

/// Which box, and how thoroughly.
#[derive(Args)]
#[command(after_help = "Ends with 0 if nothing fails, with 1 if a check fails. What is skipped fails nothing.")]
pub struct DoctorArgs {
    #[command(flatten)]
    pub place: Place,
    /// Has you press every button and look at every lamp.
    #[arg(long, conflicts_with = "json")]
    walk: bool,
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// The box's files and ports.
#[derive(Args)]
pub struct Place {
    /// The gateway's configuration; the package's by default, else the demo event. A running gateway knows its own.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The gateway's state directory; the package's by default, else ./state.
    #[arg(long)]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    served: Served,
}

impl Place {
    /// The state directory.
    pub fn state_dir(&self) -> PathBuf {
        let installed = || Some(PathBuf::from(STATE_DIR)).filter(|dir| dir.exists());
        self.state_dir.clone().or_else(installed).unwrap_or_else(|| "state".into())
    }

    /// The configuration's file; the demo event has none.
    pub fn config_file(&self) -> Option<PathBuf> {
        self.config.clone().or_else(|| Some(PathBuf::from(CONFIG)).filter(|file| file.exists()))
    }

    fn checkup(&self) -> Checkup {
        let config_file = self.config_file();
        Checkup {
            state_dir: self.state_dir(),
            config: config_file
                .as_deref()
                .map_or_else(|| Ok(Config::demo()), |file| Config::read(file).map_err(|e| e.0)),
            config_file,
            listen: self.served.listen,
            listen_tls: self.served.listen_tls,
            media_port: self.served.media_port,
            machine: Machine::default(),
        }
    }

    /// True while a gateway runs with the state directory.
    ///
    /// # Errors
    /// If that cannot be told.
    pub fn is_running(&self) -> anyhow::Result<bool> {
        let dir = self.state_dir();
        // A lock of root's making would keep the gateway's own user out.
        Ok(dir.join("lock").try_exists()? && lock_state_dir(&dir)?.is_none())
    }

    /// Where a running gateway is asked: whoever may not read that finds it where it is by default.
    fn door(&self) -> anyhow::Result<String> {
        let dir = self.state_dir();
        if is_closed(&dir) { Ok(self.served.listen.to_string()) } else { door(&dir) }
    }

    /// Examines the box, through its gateway if one runs.
    pub fn report(&self) -> Report {
        let alone = || examine(&self.checkup().facts(None));
        let mut report = match self.is_running() {
            Ok(true) => self.by_gateway().unwrap_or_else(|e| {
                let silent = Check::fail("gateway", format!("it runs and does not say how it is: {e:#}; restart it"));
                let (at, version) = (iso_8601(unix_ms_now()), env!("CARGO_PKG_VERSION").to_owned());
                Report { at, version, by_gateway: false, checks: vec![silent] }
            }),
            Ok(false) => alone(),
            // Who may not enter its directory is answered at its door all the same.
            Err(_) => self.by_gateway().unwrap_or_else(|_| alone()),
        };
        let own = env!("CARGO_PKG_VERSION");
        if report.version != own {
            let remedy = "restart it: systemctl restart crosspatch";
            report.put(Check::fail(
                "versions",
                format!("the gateway is crosspatch {}, this is {own}; {remedy}", report.version),
            ));
        }
        report
    }

    fn by_gateway(&self) -> anyhow::Result<Report> {
        Ok(serde_json::from_value(get(&self.door()?, "/api/doctor", LONG_PATIENCE)?)?)
    }
}

/// One question to the running gateway.
fn get(door: &str, path: &str, patience: Duration) -> anyhow::Result<Value> {
    ask_openly(door, &Method::GET, path, patience)?.map_err(|refusal| anyhow::anyhow!(refusal))
}

/// Examines the box and shows what was found. False if a check fails.
///
/// # Errors
/// If there is nobody to talk to.
pub fn run(args: &DoctorArgs) -> anyhow::Result<bool> {
    let mut report = args.place.report();
    if args.walk {
        let lines = if report.by_gateway {
            let mut bench = walk::Remote::new(args.place.door()?);
            walk::warn(&mut std::io::stdout())?;
            walk_through(&mut bench)?
        } else {
            walk_through(&mut walk::Local::open(&args.place.checkup())?)?
        };
        let walked = examine(&Facts { lines, ..Facts::default() });
        walked
            .checks
            .into_iter()
            .filter(|c| ["buttons", "lamps"].contains(&c.name.as_str()))
            .for_each(|c| report.put(c));
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", as_text(&report));
    }
    Ok(report.is_well())
}

fn walk_through(bench: &mut dyn Bench) -> anyhow::Result<Vec<Line>> {
    let lines = walk::walk(bench, &walk::answers(), &mut std::io::stdout()).context("nobody can be asked")?;
    println!();
    Ok(lines)
}

/// The lines of a running gateway.
fn lines_of(door: &str) -> anyhow::Result<Vec<Line>> {
    let mut answer = get(door, "/api/doctor/lines", PATIENCE)?;
    Ok(serde_json::from_value(answer["lines"].take())?)
}
