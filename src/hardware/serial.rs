//! A serial port whose RTS or DTR keys a transmitter.
//!
//! The system raises both when it opens a port, so a port is opened at start and held: a blip then, and none later.

use crate::base::LineName;
use serialport::SerialPort;
use std::sync::{Arc, Mutex, MutexGuard};

/// Which pin keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// Request to send.
    Rts,
    /// Data terminal ready.
    Dtr,
}

/// The port; clones are the same one.
#[derive(Clone)]
pub struct SerialPtt {
    line: LineName,
    path: String,
    pin: Pin,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    port: Option<Box<dyn SerialPort>>,
    fault: Option<String>,
}

impl SerialPtt {
    /// Opens the port and unkeys it; a port that is not there is a fault, and tried again with every keying.
    #[must_use]
    pub fn open(line: LineName, path: &str, pin: Pin) -> Self {
        let ptt = SerialPtt { line, path: path.to_owned(), pin, state: Arc::default() };
        ptt.set(false).ok(); // kept as its fault
        ptt
    }

    /// What its pin is called.
    #[must_use]
    pub fn line(&self) -> &LineName {
        &self.line
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }

    /// What keeps it from working.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.lock().fault.clone()
    }

    /// Keys or unkeys.
    ///
    /// # Errors
    /// If there is no such port, or it is gone; it was closed then, which lowers its pins.
    pub fn set(&self, keyed: bool) -> Result<(), String> {
        let mut state = self.lock();
        let done = self.set_pins(&mut state, keyed).map_err(|e| {
            format!("serial port {} does not key: {e}; plug it in, and name it by /dev/serial/by-id", self.path)
        });
        if done.is_err() {
            state.port = None;
        }
        state.fault = done.clone().err();
        done
    }

    fn set_pins(&self, state: &mut State, keyed: bool) -> serialport::Result<()> {
        let port = match &mut state.port {
            Some(port) => port,
            None => state.port.insert(serialport::new(&self.path, 9600).dtr_on_open(false).open()?),
        };
        port.write_request_to_send(keyed && self.pin == Pin::Rts)?;
        port.write_data_terminal_ready(keyed && self.pin == Pin::Dtr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_not_there_says_what_to_do() {
        let ptt = SerialPtt::open("ptt".into(), "/dev/no-such-port", Pin::Rts);
        let fault = ptt.fault().unwrap();
        assert!(fault.contains("/dev/no-such-port does not key") && fault.contains("by-id"), "{fault}");
        assert_eq!(ptt.set(true).unwrap_err(), fault);
    }
}
