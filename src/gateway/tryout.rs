//! Lines as a technician tries them while the gateway runs: have the buttons moved, and does that lamp light?
//!
//! **Invariant:** only lamps and buzzers are lit, never what keys a transmitter. **Invariant:** what is lit goes back to
//! what the core wants, after [`LIT`] or as soon as the core sets it.

use super::executor::Executor;
use crate::base::{LineName, Mono};
use crate::hardware::gpio::{Direction, LineEvent};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a lamp is lit.
pub const LIT: Duration = Duration::from_secs(3);

/// A line as it is now.
#[derive(Clone, Debug)]
pub struct LineSeen {
    /// Its name.
    pub name: LineName,
    /// Active or not, or why that is not known.
    pub level: Result<bool, String>,
    /// How often it has moved since the gateway's start.
    pub moves: u64,
}

/// What a technician asks.
#[derive(Debug)]
pub enum Trial {
    /// How are the lines?
    Look(oneshot::Sender<Vec<LineSeen>>),
    /// Light a lamp, or sound a buzzer.
    Light(LineName, oneshot::Sender<Result<(), String>>),
}

/// What has been tried so far.
#[derive(Debug, Default)]
pub(super) struct Tryout {
    moves: BTreeMap<LineName, u64>,
    /// Lamps that are lit for a look, each until when.
    lit: BTreeMap<LineName, Mono>,
}

impl Tryout {
    /// Counts what an input does.
    pub fn count(&mut self, event: &LineEvent) {
        match event {
            LineEvent::Edge(edge) => *self.moves.entry(edge.line.clone()).or_default() += 1,
            LineEvent::Lost { .. } | LineEvent::Gone { .. } | LineEvent::Returned { .. } => {}
        }
    }

    /// When the next lamp goes out.
    pub fn due(&self) -> Option<Mono> {
        self.lit.values().min().copied()
    }

    /// The core has set this line: what it says counts.
    pub fn forget(&mut self, line: &LineName) {
        self.lit.remove(line);
    }
}

impl Executor {
    pub(super) fn try_out(&mut self, trial: Trial) {
        match trial {
            Trial::Look(answer) => drop(answer.send(self.look())),
            Trial::Light(line, answer) => drop(answer.send(self.light(line))),
        }
    }

    fn look(&self) -> Vec<LineSeen> {
        let specs = self.parts.lines.specs().iter();
        let seen = specs.map(|spec| LineSeen {
            level: self.parts.lines.level(&spec.name).map_err(|e| e.to_string()),
            moves: self.tryout.moves.get(&spec.name).copied().unwrap_or(0),
            name: spec.name.clone(),
        });
        seen.collect()
    }

    fn light(&mut self, line: LineName) -> Result<(), String> {
        let is_output =
            |name| self.parts.lines.specs().iter().any(|s| s.name == name && s.direction == Direction::Output);
        if self.parts.settings.ports.iter().any(|port| port.ptt.as_ref() == Some(&line)) {
            return Err(format!("{line} keys a transmitter, which is not a lamp; press a button to key it"));
        }
        if !is_output(line.clone()) {
            return Err(format!("{line} is no output of this board; use the name of a lamp or buzzer"));
        }
        self.parts.lines.set(&line, true).map_err(|e| e.to_string())?;
        self.tryout.lit.insert(line, self.now() + LIT);
        Ok(())
    }

    /// Takes lamps that were lit for long enough back to what the core wants.
    pub(super) fn dim(&mut self) {
        let now = self.now();
        let over: Vec<_> =
            self.tryout.lit.iter().filter(|(_, end)| **end <= now).map(|(line, _)| line.clone()).collect();
        for line in over {
            self.tryout.forget(&line);
            let wanted = self.control.outputs().get(&line).copied().unwrap_or(false);
            if let Err(e) = self.parts.lines.set(&line, wanted) {
                tracing::error!("{e}");
            }
        }
    }
}
