//! A board without a board: its inputs are moved by hand, its outputs can be looked at.
//!
//! It behaves as the kernel does where it matters: one bounded queue for the board, the oldest edge
//! lost first, and sequence numbers that show it. Its chip can be unplugged and plugged in again.

use super::{Direction, Edge, GapFinder, GpioError, LineEvent, LineSpec, Lines, Safety, Wake, is_meant};
use crate::base::clock::mono_now;
use crate::base::{LineName, Mono};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

/// Edges that the board's queue holds for each of its inputs, as in the kernel.
const QUEUE_EDGES_PER_INPUT: usize = 16;

/// A line of a simulated board, to look at.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SimLine {
    /// Its name.
    pub name: LineName,
    /// Which way it faces.
    pub direction: Direction,
    /// Its level.
    pub active: bool,
}

struct Pin {
    spec: LineSpec,
    /// For outputs the level that was last set; nothing drives it while the chip is away.
    active: bool,
    sequence: u32,
}

struct State {
    pins: Vec<Pin>,
    present: bool,
    /// The chip went or came; older than everything in the queue.
    news: Vec<LineEvent>,
    queue: VecDeque<Edge>,
    waker: Option<Wake>,
}

impl State {
    fn inputs(&self) -> impl Iterator<Item = &Pin> {
        self.pins.iter().filter(|pin| pin.spec.direction == Direction::Input)
    }

    fn pin(&mut self, line: &LineName) -> Result<&mut Pin, GpioError> {
        self.pins.iter_mut().find(|pin| pin.spec.name == *line).ok_or_else(|| GpioError::Unknown(line.clone()))
    }

    fn queue_limit(&self) -> usize {
        self.inputs().count() * QUEUE_EDGES_PER_INPUT
    }
}

/// The outside of a simulated board; clones are the same board.
#[derive(Clone)]
pub struct SimBoard {
    state: Arc<Mutex<State>>,
}

impl SimBoard {
    /// A board with every line inactive.
    #[must_use]
    pub fn new(specs: &[LineSpec]) -> Self {
        let pin = |spec: &LineSpec| Pin { spec: spec.clone(), active: false, sequence: 0 };
        let pins = specs.iter().map(pin).collect();
        let state = State { pins, present: true, news: Vec::new(), queue: VecDeque::new(), waker: None };
        SimBoard { state: Arc::new(Mutex::new(state)) }
    }

    /// The gateway's side of the board. A board has one queue, so open it once.
    #[must_use]
    pub fn open(&self) -> SimLines {
        let specs = self.lock().pins.iter().map(|pin| pin.spec.clone()).collect();
        SimLines { board: self.clone(), specs, gaps: GapFinder::default() }
    }

    /// Every line as it is now; outputs are inactive while the chip is away.
    #[must_use]
    pub fn lines(&self) -> Vec<SimLine> {
        let state = self.lock();
        let look = |pin: &Pin| SimLine {
            name: pin.spec.name.clone(),
            direction: pin.spec.direction,
            active: pin.active && (state.present || pin.spec.direction == Direction::Input),
        };
        state.pins.iter().map(look).collect()
    }

    /// Takes the chip away: edges that nobody has read are lost, outputs drive nothing.
    pub fn unplug(&self) {
        self.change_chip(false);
    }

    /// Gives the chip back, with inputs where they are now and outputs as they were last set.
    pub fn plug(&self) {
        self.change_chip(true);
    }

    fn change_chip(&self, present: bool) {
        let waker = {
            let mut state = self.lock();
            if state.present == present {
                return;
            }
            state.present = present;
            state.queue.clear();
            for pin in &mut state.pins {
                pin.sequence = 0; // as a line that is requested anew
            }
            let stamp = mono_now();
            let news = state.inputs().map(|pin| match (pin.spec.name.clone(), pin.active) {
                (line, active_now) if present => LineEvent::Returned { line, active_now, stamp },
                (line, _) => LineEvent::Gone { line, stamp },
            });
            let news: Vec<_> = news.collect();
            state.news.extend(news);
            state.waker.clone()
        };
        if let Some(wake) = waker {
            wake();
        }
    }

    /// Moves an input. The level that it has already gives no edge; nor does a chip that is away.
    ///
    /// # Errors
    /// If there is no such input.
    pub fn move_input(&self, line: &LineName, active: bool, stamp: Mono) -> Result<(), GpioError> {
        let waker = {
            let mut state = self.lock();
            let (limit, present) = (state.queue_limit(), state.present);
            let pin = state.pin(line)?;
            if pin.spec.direction == Direction::Output {
                return Err(GpioError::NotAnInput(line.clone()));
            }
            if pin.active == active {
                return Ok(());
            }
            pin.active = active;
            if !present {
                return Ok(());
            }
            pin.sequence = pin.sequence.wrapping_add(1);
            let edge = Edge { line: line.clone(), active, stamp, sequence: pin.sequence };
            if state.queue.len() == limit {
                state.queue.pop_front();
            }
            state.queue.push_back(edge);
            state.waker.clone()
        };
        // Called without the lock, for it may drain at once.
        if let Some(wake) = waker {
            wake();
        }
        Ok(())
    }

    /// Sets what is called after each edge was queued; it takes the place of an earlier one.
    pub fn set_waker(&self, waker: Wake) {
        self.lock().waker = Some(waker);
    }

    fn make_safe(&self, meant: Option<&LineName>) {
        for pin in &mut self.lock().pins {
            if pin.spec.direction == Direction::Output && is_meant(meant, &pin.spec.name) {
                pin.active = false;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }
}

/// The gateway's side of a simulated board. Outputs go to their safe level when it is dropped.
pub struct SimLines {
    board: SimBoard,
    specs: Vec<LineSpec>,
    gaps: GapFinder,
}

impl Lines for SimLines {
    fn specs(&self) -> &[LineSpec] {
        &self.specs
    }

    fn drain(&mut self) -> Vec<LineEvent> {
        let mut state = self.board.lock();
        let mut events = std::mem::take(&mut state.news);
        for event in &events {
            if let LineEvent::Gone { line, .. } = event {
                self.gaps.forget(line);
            }
        }
        let edges = state.queue.drain(..).collect();
        events.extend(self.gaps.judge(edges, |line| state.pin(line).is_ok_and(|pin| pin.active)));
        events
    }

    fn level(&self, line: &LineName) -> Result<bool, GpioError> {
        let mut state = self.board.lock();
        let (present, active) = (state.present, state.pin(line)?.active);
        if present {
            Ok(active)
        } else {
            Err(GpioError::Device { line: line.clone(), reason: "it is not there now".into() })
        }
    }

    fn set(&mut self, line: &LineName, active: bool) -> Result<(), GpioError> {
        let mut state = self.board.lock();
        let pin = state.pin(line)?;
        if pin.spec.direction == Direction::Input {
            return Err(GpioError::NotAnOutput(line.clone()));
        }
        pin.active = active;
        Ok(())
    }

    fn safe(&mut self) {
        self.board.make_safe(None);
    }

    fn safety(&self) -> Safety {
        let board = self.board.clone();
        Arc::new(move |meant| board.make_safe(meant))
    }

    fn fault(&self) -> Option<String> {
        let away = !self.board.lock().present;
        away.then(|| "the simulated chip is unplugged; plug it in: POST /api/sim/chip {\"present\": true}".into())
    }
}

impl Drop for SimLines {
    fn drop(&mut self) {
        self.safe();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn board() -> SimBoard {
        let spec = |name: &str, direction| LineSpec { name: name.into(), direction };
        SimBoard::new(&[
            spec("ptt", Direction::Input),
            spec("emergency", Direction::Input),
            spec("key", Direction::Output),
        ])
    }

    fn edge(line: &str, active: bool, ms: u64, sequence: u32) -> LineEvent {
        LineEvent::Edge(Edge { line: line.into(), active, stamp: Mono::from_millis(ms), sequence })
    }

    fn toggle(board: &SimBoard, line: &str, times: u64) {
        for n in 1..=times {
            board.move_input(&line.into(), n % 2 == 1, Mono::from_millis(n)).unwrap();
        }
    }

    #[test]
    fn edges_come_in_order_with_their_stamps() {
        let board = board();
        let mut lines = board.open();
        board.move_input(&"ptt".into(), true, Mono::from_millis(10)).unwrap();
        board.move_input(&"emergency".into(), true, Mono::from_millis(11)).unwrap();
        board.move_input(&"ptt".into(), true, Mono::from_millis(12)).unwrap();
        board.move_input(&"ptt".into(), false, Mono::from_millis(13)).unwrap();
        let expected = [edge("ptt", true, 10, 1), edge("emergency", true, 11, 1), edge("ptt", false, 13, 2)];
        assert_eq!(lines.drain(), expected);
        assert_eq!(lines.drain(), []);
        assert_eq!(lines.level(&"emergency".into()), Ok(true));
    }

    #[test]
    fn an_overflow_shows_as_lost_with_the_level_read_again() {
        let board = board();
        let mut lines = board.open();
        toggle(&board, "ptt", 33);
        let lost = LineEvent::Lost { line: "ptt".into(), active_now: true, stamp: Mono::from_millis(33) };
        assert_eq!(lines.drain(), [lost]);
        board.move_input(&"ptt".into(), false, Mono::from_millis(40)).unwrap();
        assert_eq!(lines.drain(), [edge("ptt", false, 40, 34)]);
    }

    #[test]
    fn a_full_queue_without_overflow_loses_nothing() {
        let board = board();
        let mut lines = board.open();
        toggle(&board, "ptt", 32);
        let events = lines.drain();
        assert_eq!(events.len(), 32);
        assert_eq!(events[31], edge("ptt", false, 32, 32));
    }

    #[test]
    fn the_loss_of_one_line_leaves_the_others_alone() {
        let board = board();
        let mut lines = board.open();
        toggle(&board, "ptt", 32);
        board.move_input(&"emergency".into(), true, Mono::from_millis(50)).unwrap();
        let lost = LineEvent::Lost { line: "ptt".into(), active_now: false, stamp: Mono::from_millis(32) };
        assert_eq!(lines.drain(), [lost, edge("emergency", true, 50, 1)]);
    }

    #[test]
    fn outputs_are_set_seen_and_made_safe() {
        let board = board();
        let mut lines = board.open();
        lines.set(&"key".into(), true).unwrap();
        let key = |active| SimLine { name: "key".into(), direction: Direction::Output, active };
        assert_eq!(board.lines()[2], key(true));
        lines.safe();
        assert_eq!(board.lines()[2], key(false));
        lines.set(&"key".into(), true).unwrap();
        drop(lines);
        assert_eq!(board.lines()[2], key(false));
        let json = serde_json::to_string(&board.lines()[2]).unwrap();
        assert_eq!(json, r#"{"name":"key","direction":"output","active":false}"#);
    }

    #[test]
    fn the_wrong_line_is_refused_in_a_sentence() {
        let board = board();
        let mut lines = board.open();
        let moved = |line: &str| board.move_input(&line.into(), true, Mono::default()).unwrap_err().to_string();
        assert_eq!(moved("key"), "gpio line 'key' is an output, which only the gateway moves; use an input");
        assert_eq!(moved("x"), "gpio line 'x' does not exist; use a name that the board profile lists");
        assert_eq!(lines.set(&"ptt".into(), true), Err(GpioError::NotAnOutput("ptt".into())));
        assert_eq!(lines.level(&"x".into()), Err(GpioError::Unknown("x".into())));
    }

    #[test]
    fn the_waker_is_called_after_each_edge_and_may_drain() {
        let board = board();
        let lines = Mutex::new(board.open());
        let seen = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&seen);
        board.set_waker(Arc::new(move || {
            counter.fetch_add(lines.lock().unwrap().drain().len(), Ordering::Relaxed);
        }));
        toggle(&board, "ptt", 3);
        board.move_input(&"ptt".into(), true, Mono::from_millis(9)).unwrap();
        assert_eq!(seen.load(Ordering::Relaxed), 3);
    }
}
