//! `crosspatch emergency dry-run`: the hold of a real button, and everything that it would do, with nothing keyed.
//!
//! **Invariant:** no output is asked for, so none can move.

#![expect(clippy::wildcard_enum_match_arm, reason = "only what matters to whoever holds the button is said")]

use super::gpio::must_be_real;
use crate::base::clock::mono_now;
use crate::base::{Action, ChannelId, LineName, Record, SourceId};
use crate::control::{Control, Effect, Input, Settings};
use crate::gateway::config::Config;
use crate::hardware::gpio::{Direction, LineEvent, LineSpec, Lines, open};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

/// How often the hold is counted up on the screen.
const COUNT_PERIOD: Duration = Duration::from_millis(100);

#[derive(Args)]
pub struct EmergencyArgs {
    #[command(subcommand)]
    command: EmergencyCommand,
}

#[derive(Subcommand)]
enum EmergencyCommand {
    /// Reads a desk's emergency button and says everything that a press would do; keys nothing, and nobody hears it.
    /// Ends after one broadcast that would have been.
    DryRun(DryRun),
}

#[derive(Args)]
struct DryRun {
    /// The gateway's configuration.
    #[arg(long)]
    config: PathBuf,
    /// The user of the desk; the first one with an emergency button if not said.
    #[arg(long)]
    desk: Option<String>,
}

pub fn run(args: EmergencyArgs) -> anyhow::Result<()> {
    let EmergencyCommand::DryRun(args) = args.command;
    dry_run(&args)
}

fn dry_run(args: &DryRun) -> anyhow::Result<()> {
    let config = Config::read(&args.config)?;
    let board = config.board()?;
    must_be_real(&board)?;
    let sources: Vec<_> = (1..=config.desks.len() + config.radios.len()).map(|n| SourceId(n as u64)).collect();
    let mut settings = config.settings(&sources);
    let wanted_desk = |user: &str| args.desk.as_ref().is_none_or(|desk| desk == user);
    settings.desks.retain(|d| d.emergency.is_some() && wanted_desk(d.user.as_str()));
    settings.desks.truncate(1);
    let Some(desk) = settings.desks.first() else {
        bail!("no such desk has an emergency button; name the user of one that has an emergency_line with --desk");
    };
    let line = desk.emergency.as_ref().expect("only such desks are left").line.clone();
    println!("Dry run of {}, button {line}: hold it for two seconds. Nothing is keyed; Ctrl-C ends it.", desk.name);

    let (wake, woken) = sync_channel(1);
    let wake = Arc::new(move || _ = wake.try_send(()));
    let lines = open(&board, &inputs(&settings), wake).lines;
    if let Some(fault) = lines.fault() {
        bail!(fault);
    }
    let names = config.channels.iter().map(|c| (c.id.as_str().into(), c.name.clone())).collect();
    Rehearsal { control: Control::new(settings), lines, names, counting: false }.run(&woken, &line)
}

/// The inputs that a broadcast depends on: the button, and carriers that keep radios from being keyed.
fn inputs(settings: &Settings) -> Vec<LineSpec> {
    let buttons = settings.desks.iter().filter_map(|d| d.emergency.clone());
    let contacts = buttons.flat_map(|b| [Some(b.line), b.opening]).flatten();
    let carriers = settings.ports.iter().filter_map(|p| p.carrier.clone());
    let unique: BTreeSet<LineName> = contacts.chain(carriers).collect();
    unique.into_iter().map(|name| LineSpec { name, direction: Direction::Input }).collect()
}

/// The core with real inputs and without anything that its effects could reach.
struct Rehearsal {
    control: Control,
    lines: Box<dyn Lines>,
    names: Vec<(ChannelId, String)>,
    /// A hold is being counted on the screen.
    counting: bool,
}

impl Rehearsal {
    fn run(mut self, woken: &Receiver<()>, button: &LineName) -> anyhow::Result<()> {
        self.begin();
        let mut pressed_at = None;
        loop {
            for event in self.lines.drain() {
                if let LineEvent::Edge(edge) = &event
                    && edge.line == *button
                {
                    pressed_at = edge.active.then_some(edge.stamp);
                }
                if self.tell(input(event))? {
                    return Ok(());
                }
            }
            let now = mono_now();
            self.control.handle_timeout(now);
            if self.explain()? {
                return Ok(());
            }
            let counts = std::io::stdout().is_terminal() && self.counting;
            if let Some(since) = pressed_at.filter(|_| counts) {
                print!("\r  held for {:.1} s ", now.since(since).as_secs_f32());
                std::io::stdout().flush()?;
            }
            let due = self.control.next_timeout().map(|due| due.since(now));
            let shown = counts.then_some(COUNT_PERIOD);
            let wait = due.into_iter().chain(shown).min();
            match wait {
                Some(wait) => drop(woken.recv_timeout(wait)),
                None => woken.recv().context("the lines cannot be waited for any more")?,
            }
        }
    }

    /// Sound cards are taken to work: this is about the button and what follows from it.
    fn begin(&mut self) {
        let now = mono_now();
        for session in self.control.local_sessions() {
            self.control.handle(Input::Capture { session, works: true }, now);
            self.control.handle(Input::Playback { session, works: true }, now);
        }
        for spec in self.lines.specs().to_vec() {
            if self.lines.level(&spec.name).unwrap_or(false) {
                println!("  {} is active already", spec.name);
                self.control.handle(Input::ActiveAtStart { line: spec.name }, now);
            }
        }
        while self.control.next_effect().is_some() {}
        let readiness = self.control.readiness();
        println!("  {}", readiness.summary());
        let obstacles = readiness.channels.iter().flat_map(|c| &c.obstacles);
        for sentence in obstacles.chain(&readiness.desks) {
            println!("  ! {sentence}");
        }
    }

    fn tell(&mut self, input: Input) -> anyhow::Result<bool> {
        self.control.handle(input, mono_now());
        self.explain()
    }

    /// Says what the effects would be; true once a broadcast would have ended.
    fn explain(&mut self) -> anyhow::Result<bool> {
        let mut over = false;
        while let Some(effect) = self.control.next_effect() {
            let sentence = match &effect {
                Effect::Audit(record) => {
                    over |= record.action == Action::EmergencyStop;
                    self.counting = match record.action {
                        Action::EmergencyArmed => true,
                        Action::EmergencyAborted | Action::EmergencyStart | Action::GpioFault => false,
                        _ => self.counting,
                    };
                    of_record(record)
                }
                Effect::OpenGate { channel, .. } => Some(format!("  {} would carry it", self.name(channel))),
                Effect::Line { line, active, keys: true } => {
                    Some(format!("  {line} would {} a transmitter", if *active { "key" } else { "unkey" }))
                }
                _ => None,
            };
            if let Some(sentence) = sentence {
                println!("\r{sentence}");
            }
        }
        if self.control.emergency().is_some() && !over {
            let readiness = self.control.readiness();
            let radios = readiness.channels.iter().flat_map(|c| &c.radios);
            for (name, _) in radios.filter(|(_, state)| state.as_str() == "blocked") {
                println!("  {name} is receiving: it would be keyed when its carrier ends");
            }
        }
        std::io::stdout().flush()?;
        Ok(over)
    }

    fn name<'a>(&'a self, channel: &'a ChannelId) -> &'a str {
        self.names.iter().find(|(id, _)| id == channel).map_or(channel.as_str(), |(_, name)| name)
    }
}

fn input(event: LineEvent) -> Input {
    match event {
        LineEvent::Edge(edge) => Input::Edge { line: edge.line, active: edge.active, stamp: edge.stamp },
        LineEvent::Lost { line, active_now, .. } => Input::EdgesLost { line, active: active_now },
        LineEvent::Gone { line, .. } => Input::LineGone { line },
        LineEvent::Returned { line, active_now, .. } => Input::LineReturned { line, active: active_now },
    }
}

fn of_record(record: &Record) -> Option<String> {
    let held = record.detail["heldMs"].as_u64().unwrap_or(0);
    let cause = record.cause.unwrap_or("no reason");
    Some(match record.action {
        Action::EmergencyArmed => "pressed: the two seconds count".into(),
        Action::EmergencyAborted => format!("let go after {held} ms: too short, nothing would happen"),
        Action::EmergencyMissed => format!("held for {held} ms, but read too late: nothing would happen"),
        Action::EmergencyStart => "held long enough: the broadcast would start".into(),
        Action::EmergencyStop => format!("the broadcast would end ({cause}). Dry run over: nothing was keyed."),
        Action::EmergencyDenied => format!("refused: {cause}"),
        Action::PermissionDenied => "refused: the desk's role is not dispatch".into(),
        Action::GpioFault => format!("a fault of {}: {cause}", record.detail["line"]),
        Action::GpioHealed => format!("{} works again", record.detail["line"]),
        _ => return None,
    })
}
