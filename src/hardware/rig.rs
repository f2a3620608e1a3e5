//! All lines of the box: the board's, and the pins that radios bring along on fobs and serial ports, under the eyes of the
//! transmit watchdog.

use super::fob::Fob;
use super::gpio::{Direction, GpioError, LineEvent, LineSpec, Lines, Safety, is_meant};
use super::serial::SerialPtt;
use super::transmit_watch::TransmitWatch;
use crate::base::clock::mono_now;
use crate::base::{LineName, Pulse};
use std::sync::Arc;

/// The lines together.
pub struct Rig {
    board: Box<dyn Lines>,
    fobs: Vec<Fob>,
    serial: Vec<SerialPtt>,
    watch: TransmitWatch,
    specs: Vec<LineSpec>,
}

impl Rig {
    /// Puts them together and starts the transmit watchdog.
    ///
    /// # Errors
    /// If its thread cannot be started.
    pub fn new(
        board: Box<dyn Lines>,
        fobs: Vec<Fob>,
        serial: Vec<SerialPtt>,
        watch: TransmitWatch,
    ) -> std::io::Result<Self> {
        let mut specs = board.specs().to_vec();
        let output = |name: &LineName| LineSpec { name: name.clone(), direction: Direction::Output };
        for fob in &fobs {
            let carrier = fob.plan().carrier.as_ref();
            specs.extend(carrier.map(|name| LineSpec { name: name.clone(), direction: Direction::Input }));
            specs.extend(fob.plan().ptt.as_ref().map(output));
        }
        specs.extend(serial.iter().map(|port| output(port.line())));
        let rig = Rig { board, fobs, serial, watch, specs };
        rig.watch.start(rig.safety())?;
        Ok(rig)
    }

    fn set_own(&self, line: &LineName, active: bool) -> Option<Result<(), String>> {
        if let Some(fob) = self.fobs.iter().find(|fob| fob.plan().ptt.as_ref() == Some(line)) {
            return Some(fob.set(active));
        }
        self.serial.iter().find(|port| port.line() == line).map(|port| port.set(active))
    }
}

impl Lines for Rig {
    fn specs(&self) -> &[LineSpec] {
        &self.specs
    }

    fn drain(&mut self) -> Vec<LineEvent> {
        let mut events = self.board.drain();
        events.extend(self.fobs.iter().flat_map(Fob::drain));
        events
    }

    fn level(&self, line: &LineName) -> Result<bool, GpioError> {
        match self.fobs.iter().find(|fob| fob.plan().carrier.as_ref() == Some(line)) {
            Some(fob) => Ok(fob.carrier()),
            None => self.board.level(line),
        }
    }

    fn set(&mut self, line: &LineName, active: bool) -> Result<(), GpioError> {
        if !self.watch.may_set(line, active, mono_now()) {
            return Ok(()); // told as a fault
        }
        match self.set_own(line, active) {
            Some(done) => done.map_err(|reason| GpioError::Device { line: line.clone(), reason }),
            None => self.board.set(line, active),
        }
    }

    fn safe(&mut self) {
        (self.safety())(None);
        self.board.safe();
    }

    fn safety(&self) -> Safety {
        let (board, fobs, serial) = (self.board.safety(), self.fobs.clone(), self.serial.clone());
        Arc::new(move |meant| {
            board(meant);
            for fob in fobs.iter().filter(|fob| fob.plan().ptt.as_ref().is_some_and(|ptt| is_meant(meant, ptt))) {
                fob.set(false).ok(); // one that is gone keys nothing
            }
            for port in serial.iter().filter(|port| is_meant(meant, port.line())) {
                port.set(false).ok(); // closed, which lowers its pins
            }
        })
    }

    fn emergency(&mut self, runs: bool) {
        self.watch.emergency(runs, mono_now());
    }

    fn fault(&self) -> Option<String> {
        let first = [self.watch.fault(), self.board.fault()].into_iter().flatten();
        let own = self.fobs.iter().filter_map(Fob::fault).chain(self.serial.iter().filter_map(SerialPtt::fault));
        let all: Vec<_> = first.chain(own).collect();
        (!all.is_empty()).then(|| all.join(". "))
    }

    fn pulse(&self) -> Option<Pulse> {
        self.board.pulse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::gpio::sim::SimBoard;
    use crate::hardware::serial::Pin;
    use crate::hardware::transmit_watch::{Limit, MARGIN};
    use std::time::{Duration, Instant};

    #[test]
    fn a_transmitter_that_the_program_never_unkeys_is_unkeyed_at_the_board_itself() {
        let spec = |name: &str| LineSpec { name: name.into(), direction: Direction::Output };
        let board = SimBoard::new(&[spec("ptt"), spec("other.ptt")]);
        let limit = |line: &str, s| Limit { line: line.into(), timeout: Duration::from_secs(s) };
        let watch = TransmitWatch::new(vec![limit("ptt", 0), limit("other.ptt", 600)], Duration::ZERO);
        let mut rig = Rig::new(Box::new(board.open()), Vec::new(), Vec::new(), watch).unwrap();
        let start = Instant::now();
        rig.set(&"ptt".into(), true).unwrap();
        rig.set(&"other.ptt".into(), true).unwrap();
        assert!(board.lines()[0].active && rig.fault().is_none());
        while board.lines()[0].active {
            assert!(start.elapsed() < MARGIN + Duration::from_secs(20), "it is keyed for ever");
            std::thread::yield_now();
        }
        assert!(start.elapsed() >= MARGIN, "not before its time");
        assert!(board.lines()[1].active, "another transmitter, whose time is not over, transmits on");
        assert!(rig.fault().unwrap().contains("'ptt'"));
        rig.set(&"ptt".into(), true).unwrap();
        assert!(!board.lines()[0].active, "it stays unkeyed until the program unkeys it");
        rig.set(&"ptt".into(), false).unwrap();
        rig.set(&"ptt".into(), true).unwrap();
        assert!(board.lines()[0].active);
    }

    #[test]
    fn a_serial_port_that_is_gone_is_a_fault_and_not_a_failed_start() {
        let watch = TransmitWatch::new(Vec::new(), Duration::ZERO);
        let serial = vec![SerialPtt::open("radio.ptt".into(), "/dev/no-such-port", Pin::Dtr)];
        let mut rig = Rig::new(Box::new(SimBoard::new(&[]).open()), Vec::new(), serial, watch).unwrap();
        assert_eq!(rig.specs().len(), 1);
        assert!(rig.fault().unwrap().contains("/dev/no-such-port"));
        assert!(rig.set(&"radio.ptt".into(), true).is_err());
    }
}
