//! `crosspatch gpio` and `unkey`: lines by hand, for the technician at the box.
//!
//! **Invariant:** an output that is set here goes back to its safe level: after its time, at Ctrl-C, SIGTERM and
//! SIGHUP, and when anything fails.

use super::parse_duration;
use crate::base::clock::mono_now;
use crate::base::{LineName, Mono};
use crate::gateway::config::Config;
use crate::gateway::radio_config::Radio;
use crate::hardware::board::{Backend, Board};
use crate::hardware::fob;
use crate::hardware::gpio::{Direction, GpioError, LineEvent, LineSpec, Lines, open};
use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// A line is not set for longer.
const LONGEST: Duration = Duration::from_secs(30);
/// How often a hold is counted up on the screen.
const COUNT_PERIOD: Duration = Duration::from_millis(100);

#[derive(Args)]
pub struct GpioArgs {
    #[command(subcommand)]
    command: GpioCommand,
}

#[derive(Subcommand)]
enum GpioCommand {
    /// Prints every press and release with its kernel stamp, and counts up how long a button is held.
    Watch(From),
    /// Sets an output, such as a lamp or a radio's PTT, for a few seconds.
    Set(Set),
}

/// Which board.
#[derive(Args)]
pub struct From {
    /// The gateway's configuration, which names the board.
    #[arg(long, required_unless_present = "board")]
    config: Option<PathBuf>,
    /// A board profile in place of a configuration: a name from `crosspatch board list`, or a .toml file.
    #[arg(long, conflicts_with = "config")]
    board: Option<String>,
}

#[derive(Args)]
struct Set {
    /// The line, as in the board profile.
    line: String,
    /// The level; off is the safe one.
    level: Level,
    /// After that time it goes back to its safe level; 30s at most.
    #[arg(long = "for", value_name = "TIME", default_value = "5s", value_parser = parse_time)]
    time: Duration,
    #[command(flatten)]
    from: From,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    On,
    Off,
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    if time > LONGEST || time.is_zero() {
        return Err(format!("'{text}' is out of range; use 1s to {}s, lest a radio stays keyed", LONGEST.as_secs()));
    }
    Ok(time)
}

impl From {
    /// The profile, and the lines of it that the configuration uses; without one, all.
    fn read(&self) -> anyhow::Result<(Board, Vec<LineSpec>)> {
        if let Some(path) = &self.config {
            let config = Config::read(path)?;
            return Ok((config.board()?, config.lines()));
        }
        let board = Board::load(self.board.as_deref().unwrap_or_default())?;
        let lines = every_line(&board);
        Ok((board, lines))
    }
}

fn every_line(board: &Board) -> Vec<LineSpec> {
    board.lines.iter().map(|l| LineSpec { name: l.name.clone(), direction: l.direction }).collect()
}

fn only(lines: Vec<LineSpec>, direction: Direction) -> Vec<LineSpec> {
    lines.into_iter().filter(|spec| spec.direction == direction).collect()
}

pub(super) fn must_be_real(board: &Board) -> anyhow::Result<()> {
    if board.backend == Backend::Sim {
        bail!("'{}' has no real lines: they live inside the gateway; use its front panel", board.name);
    }
    Ok(())
}

pub fn run(args: GpioArgs) -> anyhow::Result<()> {
    match args.command {
        GpioCommand::Watch(from) => watch(&from),
        GpioCommand::Set(args) => {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(set(&args))
        }
    }
}

async fn set(args: &Set) -> anyhow::Result<()> {
    let (board, _) = args.from.read()?;
    must_be_real(&board)?;
    let line = LineName::from(args.line.as_str());
    let found = every_line(&board).into_iter().find(|spec| spec.name == line);
    let spec = found.ok_or_else(|| GpioError::Unknown(line.clone()))?;
    if spec.direction == Direction::Input {
        return Err(GpioError::NotAnOutput(line).into());
    }
    // Signals are caught before anything is keyed.
    let (mut interrupt, mut terminate, mut hangup) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let mut lines = open(&board, &[spec], Arc::new(|| {})).lines;
    if let Some(fault) = lines.fault() {
        bail!(fault);
    }
    if args.level == Level::Off {
        lines.safe();
        println!("{line} is off");
        return Ok(());
    }
    lines.set(&line, true)?;
    println!("{line} is on for {} s; Ctrl-C ends it", args.time.as_secs());
    tokio::select! {
        () = tokio::time::sleep(args.time) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    lines.safe();
    println!("{line} is off");
    Ok(())
}

/// Takes every output to its safe level. Succeeds also where lines cannot be had: whoever holds them keeps them safe.
///
/// # Errors
/// If the configuration or the profile is wrong.
pub fn unkey(from: &From) -> anyhow::Result<()> {
    if let Some(config) = &from.config {
        unkey_fobs(&Config::read(config)?);
    }
    let (board, _) = from.read()?;
    if board.backend == Backend::Sim {
        println!("'{}' is a simulated board: nothing to unkey", board.name);
        return Ok(());
    }
    let outputs = only(every_line(&board), Direction::Output);
    let mut lines = open(&board, &outputs, Arc::new(|| {})).lines;
    lines.safe();
    let safe = outputs.iter().filter(|spec| lines.level(&spec.name).is_ok()).count();
    println!("{safe} of {} outputs are at their safe level", outputs.len());
    if let Some(fault) = lines.fault() {
        println!("the others are left alone: {fault}");
    }
    Ok(())
}

/// A fob's pin keeps its level when the process that set it ends. (A serial port's pins fall when it is closed.)
fn unkey_fobs(config: &Config) {
    for plan in config.radios.iter().filter_map(Radio::fob).filter(|plan| plan.ptt.is_some()) {
        match fob::unkey(&plan.card) {
            Ok(()) => println!("the fob '{}' is unkeyed", plan.card),
            Err(why) => println!("the fob '{}' is left alone: {why}", plan.card),
        }
    }
}

fn watch(from: &From) -> anyhow::Result<()> {
    let (board, lines) = from.read()?;
    must_be_real(&board)?;
    let inputs = only(lines, Direction::Input);
    let (sender, woken) = sync_channel(1);
    let mut lines = open(&board, &inputs, Arc::new(move || sender.try_send(()).unwrap_or(()))).lines;
    let mut screen = Screen::new(&*lines, mono_now());
    let mut out = std::io::stdout();
    let in_place = out.is_terminal();
    println!("{} inputs of '{}'; press something, Ctrl-C ends", inputs.len(), board.name);
    println!("{:>15}  {:<20} what it did", "seconds", "line");
    let mut fault = None;
    loop {
        let mut news: Vec<String> = lines.drain().iter().map(|event| screen.tell(event)).collect();
        let now = lines.fault();
        if now != fault {
            news.push(now.as_ref().map_or_else(|| "all lines work".into(), |why| format!("! {why}")));
            fault = now;
        }
        for text in news {
            writeln!(out, "{}{text}", if in_place { "\r\x1b[K" } else { "" })?;
        }
        let held = screen.held(mono_now()).filter(|_| in_place);
        if in_place {
            write!(out, "\r\x1b[K{}", held.as_deref().unwrap_or_default())?;
        }
        out.flush()?;
        if held.is_some() {
            woken.recv_timeout(COUNT_PERIOD).ok(); // also without news: the count goes on
        } else {
            woken.recv().context("the lines are not read any more")?;
        }
    }
}

/// What `watch` shows.
struct Screen {
    /// The newest edge of each line.
    last: BTreeMap<LineName, Mono>,
    /// Pressed inputs, each since when.
    pressed: BTreeMap<LineName, Mono>,
}

impl Screen {
    /// Inputs that are active at once count from `now`.
    fn new(lines: &dyn Lines, now: Mono) -> Self {
        let active = lines.specs().iter().filter(|spec| lines.level(&spec.name).unwrap_or(false));
        Screen { last: BTreeMap::new(), pressed: active.map(|spec| (spec.name.clone(), now)).collect() }
    }

    fn press(&mut self, line: &LineName, active: bool, stamp: Mono) {
        if active {
            self.pressed.entry(line.clone()).or_insert(stamp);
        } else {
            self.pressed.remove(line);
        }
    }

    /// A line of text for one event.
    fn tell(&mut self, event: &LineEvent) -> String {
        let (line, stamp, what) = match event {
            LineEvent::Edge(edge) => {
                self.press(&edge.line, edge.active, edge.stamp);
                let before = self.last.insert(edge.line.clone(), edge.stamp);
                let what = if edge.active { "pressed " } else { "released" };
                let since = before.map(|before| format!("  after {}", seconds(edge.stamp.since(before))));
                (&edge.line, edge.stamp, format!("{what}{}", since.unwrap_or_default()))
            }
            LineEvent::Lost { line, active_now, stamp } => {
                self.press(line, *active_now, *stamp);
                (line, *stamp, format!("! edges were lost; it is {} now", word(*active_now)))
            }
            LineEvent::Gone { line, stamp } => {
                self.press(line, false, *stamp);
                (line, *stamp, "! cannot be read now".into())
            }
            LineEvent::Returned { line, active_now, stamp } => {
                self.press(line, *active_now, *stamp);
                (line, *stamp, format!("can be read again; it is {}", word(*active_now)))
            }
        };
        format!("{:>8}.{:06}  {:<20} {what}", stamp.0 / 1_000_000_000, stamp.0 / 1_000 % 1_000_000, line.as_str())
            .trim_end()
            .to_owned()
    }

    /// What is held now and for how long.
    fn held(&self, now: Mono) -> Option<String> {
        let held = |(line, since): (&LineName, &Mono)| format!("{line} held {}", seconds(now.since(*since)));
        let held: Vec<_> = self.pressed.iter().map(held).collect();
        (!held.is_empty()).then(|| held.join(", "))
    }
}

fn word(active: bool) -> &'static str {
    if active { "pressed" } else { "released" }
}

fn seconds(time: Duration) -> String {
    format!("{}.{:03} s", time.as_secs(), time.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::gpio::sim::SimBoard;

    fn at(ms: u64) -> Mono {
        Mono::from_millis(1_000_000 + ms)
    }

    #[test]
    fn edges_are_told_with_stamps_and_the_time_since_the_one_before() {
        let board = SimBoard::new(&[LineSpec { name: "button.1".into(), direction: Direction::Input }]);
        let mut lines = board.open();
        let mut screen = Screen::new(&lines, at(0));
        let mut told = |active: bool, ms: u64| {
            board.move_input(&"button.1".into(), active, at(ms)).unwrap();
            lines.drain().iter().map(|e| screen.tell(e)).collect::<Vec<_>>()
        };
        assert_eq!(told(true, 1), ["    1000.001000  button.1             pressed"]);
        assert_eq!(told(false, 2_004), ["    1002.004000  button.1             released  after 2.003 s"]);
        assert_eq!(told(true, 2_100), ["    1002.100000  button.1             pressed   after 0.096 s"]);
        assert_eq!(screen.held(at(4_100)).unwrap(), "button.1 held 2.000 s");
    }

    #[test]
    fn what_is_held_at_start_counts_from_then_and_a_chip_that_goes_releases_it() {
        let board = SimBoard::new(&[LineSpec { name: "e".into(), direction: Direction::Input }]);
        board.move_input(&"e".into(), true, at(0)).unwrap();
        let mut lines = board.open();
        lines.drain();
        let mut screen = Screen::new(&lines, at(10));
        assert_eq!(screen.held(at(1_010)).unwrap(), "e held 1.000 s");
        board.unplug();
        let told: Vec<_> = lines.drain().iter().map(|e| screen.tell(e)).collect();
        assert!(told[0].ends_with("e                    ! cannot be read now"), "{told:?}");
        assert_eq!(screen.held(at(1_100)), None);
        board.plug();
        let told: Vec<_> = lines.drain().iter().map(|e| screen.tell(e)).collect();
        assert!(told[0].ends_with("can be read again; it is pressed"), "{told:?}");
    }

    #[test]
    fn a_line_is_set_for_30_seconds_at_most() {
        assert_eq!(parse_time("30s"), Ok(Duration::from_secs(30)));
        for wrong in ["31s", "1m", "0s", "5"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }
}
