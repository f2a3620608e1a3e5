//! `crosspatch doctor`: every check of the box on one screen, through the gateway if one runs, else alone.

mod walk;

use super::client::{PATIENCE, ask};
use super::{LISTEN, MEDIA_PORT};
use crate::audit::iso_8601;
use crate::base::clock::unix_ms_now;
use crate::doctor::facts::{Facts, Line};
use crate::doctor::machine::Machine;
use crate::doctor::{Check, Report, as_text, examine};
use crate::gateway::checkup::Checkup;
use crate::gateway::config::Config;
use crate::gateway::lock_state_dir;
use anyhow::Context;
use axum::http::Method;
use clap::Args;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
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
    /// Where the gateway would serve pages for this machine.
    #[arg(long, default_value = LISTEN)]
    listen: SocketAddr,
    /// Where it would serve the network, if not as the configuration says.
    #[arg(long, value_name = "ADDR:PORT")]
    listen_tls: Option<SocketAddr>,
    /// The UDP port of all media.
    #[arg(long, default_value_t = MEDIA_PORT)]
    media_port: u16,
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
            listen: self.listen,
            listen_tls: self.listen_tls,
            media_port: self.media_port,
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
        Ok(dir.join("lock").exists() && lock_state_dir(&dir)?.is_none())
    }

    /// Examines the box, through its gateway if one runs.
    pub fn report(&self) -> Report {
        let mut report = match self.is_running() {
            Ok(true) => self.by_gateway(),
            Ok(false) => examine(&self.checkup().facts(None)),
            Err(e) => {
                let mut report = examine(&self.checkup().facts(None));
                report.put(Check::skip("gateway", format!("nobody can tell whether one runs: {e:#}; look as root")));
                report
            }
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

    fn by_gateway(&self) -> Report {
        let asked = get(&self.state_dir(), "/api/doctor", LONG_PATIENCE);
        asked.and_then(|answer| Ok(serde_json::from_value(answer)?)).unwrap_or_else(|e| {
            let silent = Check::fail("gateway", format!("it runs and does not say how it is: {e:#}; restart it"));
            let (at, version) = (iso_8601(unix_ms_now()), env!("CARGO_PKG_VERSION").to_owned());
            Report { at, version, by_gateway: false, checks: vec![silent] }
        })
    }
}

/// One question to the running gateway.
pub fn get(state_dir: &Path, path: &str, patience: Duration) -> anyhow::Result<Value> {
    ask(state_dir, &Method::GET, path, &Value::Null, patience)?.map_err(|refusal| anyhow::anyhow!(refusal))
}

/// Examines the box and shows what was found. False if a check fails.
///
/// # Errors
/// If there is nobody to talk to.
pub fn run(args: &DoctorArgs) -> anyhow::Result<bool> {
    let mut report = args.place.report();
    if args.walk {
        let lines = if report.by_gateway {
            let mut bench = walk::Remote::new(args.place.state_dir());
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
fn lines_of(state_dir: &Path) -> anyhow::Result<Vec<Line>> {
    let mut answer = get(state_dir, "/api/doctor/lines", PATIENCE)?;
    Ok(serde_json::from_value(answer["lines"].take())?)
}
