//! GPIO lines: what they are called, which way they face, and what happened on them.
//!
//! This room decides what counts as an edge, and notices when edges were lost. Levels are logical:
//! `active` is pressed, open or keyed, whatever the voltage. It never decides what a press means and
//! never debounces by itself; a real chip's kernel does.
//!
//! **Invariant:** stamps are those of the edge, not of when it was read (F17).
//!
//! **Invariant:** after lost edges the line's level is read again; nothing is assumed from before.

pub mod cdev;
#[cfg(feature = "rppal")]
pub mod rppal;
pub mod sim;

use super::board::{Backend, Board};
use crate::base::clock::mono_now;
use crate::base::{LineName, Mono, Pulse};
use std::collections::HashMap;
use std::sync::Arc;

/// What can go wrong with GPIO lines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpioError {
    /// There is no such line.
    #[error("gpio line '{0}' does not exist; use a name that the board profile lists")]
    Unknown(LineName),
    /// The line is an output, and inputs only were asked for.
    #[error("gpio line '{0}' is an output, which only the gateway moves; use an input")]
    NotAnInput(LineName),
    /// The line is an input, and outputs only were asked for.
    #[error("gpio line '{0}' is an input, which cannot be set; use an output")]
    NotAnOutput(LineName),
    /// The chip or the kernel refuses.
    #[error("gpio line '{line}' cannot be used: {reason}; check the chip and who else holds the line with `gpioinfo`")]
    Device {
        /// The line.
        line: LineName,
        /// The system's reason.
        reason: String,
    },
}

/// Which way a line faces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// A button, a contact or a carrier signal.
    Input,
    /// A lamp or a keying line.
    Output,
}

/// A line as the board profile asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineSpec {
    /// Its name.
    pub name: LineName,
    /// Which way it faces.
    pub direction: Direction,
}

/// One change of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Which line.
    pub line: LineName,
    /// Its level after the change.
    pub active: bool,
    /// When the kernel saw it.
    pub stamp: Mono,
    /// Counts the line's edges from 1; a gap means lost edges.
    pub sequence: u32,
}

/// What an input has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineEvent {
    /// The input changed.
    Edge(Edge),
    /// Edges were lost. The level was read again; whatever was going on is to be aborted.
    Lost {
        /// Which line.
        line: LineName,
        /// Its level, read after the loss.
        active_now: bool,
        /// When the newest known edge happened.
        stamp: Mono,
    },
    /// The line cannot be used: its chip is gone. Whatever was pressed counts as let go (F10).
    Gone {
        /// Which line.
        line: LineName,
        /// When that was noticed.
        stamp: Mono,
    },
    /// The line can be read again after its chip was gone.
    Returned {
        /// Which line.
        line: LineName,
        /// Its level, read after the return.
        active_now: bool,
        /// When it returned.
        stamp: Mono,
    },
}

/// Takes an output to its safe level, inactive, or all of them for `None`. From any thread: also while the owner of the
/// lines hangs.
pub type Safety = Arc<dyn Fn(Option<&LineName>) + Send + Sync>;

/// True if a line is meant by what a [`Safety`] is told.
pub(super) fn is_meant(meant: Option<&LineName>, line: &LineName) -> bool {
    meant.is_none_or(|meant| meant == line)
}

/// The lines of one board.
pub trait Lines: Send {
    /// The lines that were asked for.
    fn specs(&self) -> &[LineSpec];

    /// Takes what has happened so far, in order. Never blocks.
    fn drain(&mut self) -> Vec<LineEvent>;

    /// The level of a line now.
    ///
    /// # Errors
    /// If there is no such line, or it cannot be read.
    fn level(&self, line: &LineName) -> Result<bool, GpioError>;

    /// Sets an output.
    ///
    /// # Errors
    /// If there is no such output, or it cannot be set.
    fn set(&mut self, line: &LineName, active: bool) -> Result<(), GpioError>;

    /// Takes every output to its safe level, inactive: unkeyed and dark.
    fn safe(&mut self);

    /// The same for another thread.
    fn safety(&self) -> Safety;

    /// An emergency broadcast began or ended: transmitters may be keyed for as long as it lasts (E9).
    fn emergency(&mut self, runs: bool) {
        let _ = runs;
    }

    /// What keeps some of the lines from working now, in a sentence; `None` if all of them work.
    fn fault(&self) -> Option<String>;

    /// The sign of life of the thread that reads the lines; `None` for lines that have none.
    fn pulse(&self) -> Option<Pulse> {
        None
    }
}

/// Called from any thread when there is something to drain; must not wait.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// A board that was opened.
pub struct Opened {
    /// Its lines.
    pub lines: Box<dyn Lines>,
    /// The outside of the board, if it is a simulated one.
    pub sim: Option<sim::SimBoard>,
}

/// Opens the `wanted` lines of a board. Never fails: what cannot be had is told by [`Lines::fault`].
#[must_use]
pub fn open(board: &Board, wanted: &[LineSpec], wake: Wake) -> Opened {
    let lines: Result<Box<dyn Lines>, String> = match board.backend {
        Backend::Sim => {
            let sim = sim::SimBoard::new(wanted);
            sim.set_waker(wake);
            return Opened { lines: Box::new(sim.open()), sim: Some(sim) };
        }
        Backend::Cdev => match cdev::CdevLines::open(board, wanted, wake) {
            Ok(lines) => Ok(Box::new(lines)),
            Err(e) => Err(format!("gpio lines cannot be waited for: {e}; restart the gateway")),
        },
        #[cfg(feature = "rppal")]
        Backend::Rppal => match rppal::RppalLines::open(board, wanted, &wake) {
            Ok(lines) => Ok(Box::new(lines)),
            Err(e) => Err(e.to_string()),
        },
        #[cfg(not(feature = "rppal"))]
        Backend::Rppal => {
            Err("this program was built without rppal; use backend = \"cdev\", or build it with --features rppal"
                .into())
        }
    };
    let lines = lines.unwrap_or_else(|why| Box::new(NoLines::new(wanted, why)));
    Opened { lines, sim: None }
}

/// The lines of a board that could not be opened: none can be read, and setting them does nothing.
///
/// A missing board must not keep the rest of the gateway from working.
pub struct NoLines {
    specs: Vec<LineSpec>,
    why: String,
    /// Said once.
    gone: Vec<LineEvent>,
}

impl NoLines {
    /// The lines that were asked for, and why they could not be had.
    #[must_use]
    pub fn new(wanted: &[LineSpec], why: String) -> Self {
        let inputs = wanted.iter().filter(|spec| spec.direction == Direction::Input);
        let gone = inputs.map(|spec| LineEvent::Gone { line: spec.name.clone(), stamp: mono_now() });
        NoLines { specs: wanted.to_vec(), why, gone: gone.collect() }
    }
}

impl Lines for NoLines {
    fn specs(&self) -> &[LineSpec] {
        &self.specs
    }

    fn drain(&mut self) -> Vec<LineEvent> {
        std::mem::take(&mut self.gone)
    }

    fn level(&self, line: &LineName) -> Result<bool, GpioError> {
        Err(GpioError::Device { line: line.clone(), reason: self.why.clone() })
    }

    fn set(&mut self, _: &LineName, _: bool) -> Result<(), GpioError> {
        Ok(())
    }

    fn safe(&mut self) {}

    fn safety(&self) -> Safety {
        Arc::new(|_| {})
    }

    fn fault(&self) -> Option<String> {
        Some(self.why.clone())
    }
}

/// Finds lost edges by the gaps in each line's sequence numbers.
#[derive(Debug, Default)]
pub struct GapFinder {
    newest: HashMap<LineName, u32>,
}

impl GapFinder {
    /// Forgets a line whose numbers begin again.
    pub fn forget(&mut self, line: &LineName) {
        self.newest.remove(line);
    }

    /// Turns edges in order into events. A line with a gap gives one [`LineEvent::Lost`] in the
    /// place of its first edge after the gap; its further edges are part of the level read again.
    pub fn judge(&mut self, edges: Vec<Edge>, mut level: impl FnMut(&LineName) -> bool) -> Vec<LineEvent> {
        let mut events: Vec<LineEvent> = Vec::with_capacity(edges.len());
        let mut lost: HashMap<LineName, usize> = HashMap::new();
        for edge in edges {
            let newest = self.newest.entry(edge.line.clone()).or_default();
            let follows = edge.sequence == newest.wrapping_add(1);
            *newest = edge.sequence;
            if let Some(&place) = lost.get(&edge.line) {
                if let LineEvent::Lost { stamp, .. } = &mut events[place] {
                    *stamp = edge.stamp;
                }
            } else if follows {
                events.push(LineEvent::Edge(edge));
            } else {
                lost.insert(edge.line.clone(), events.len());
                let active_now = level(&edge.line);
                events.push(LineEvent::Lost { line: edge.line, active_now, stamp: edge.stamp });
            }
        }
        events
    }
}
