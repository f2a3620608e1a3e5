//! A USB sound fob with a CM108-type chip: its volume-down pin is a carrier signal, its GPIO3 keys a transmitter.
//!
//! Spoken to over hidraw. The chip reports its pins when they change, so what it last reported is what holds.
//!
//! **Invariant:** a fob that is unplugged keys nothing and receives nothing: its line is gone until it is back. Then it is
//! unkeyed first, and keyed again if that is still wanted.

use super::cards;
use super::gpio::{LineEvent, Wake};
use crate::base::LineName;
use crate::base::clock::mono_now;
use rustix::io::Errno;
use std::fs::File;
use std::io::{Error, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

/// HID input report, first byte: volume down.
const VOLUME_DOWN: u8 = 0b0000_0010;
/// GPIO3 in the chip's GPIO registers.
const GPIO3: u8 = 0b0000_0100;
/// A fob that is not there is looked for again after this.
const RETRY: Duration = Duration::from_secs(1);

/// A fob, as the configuration names it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The card that it is part of, or the path of a hidraw device.
    pub card: String,
    /// What its volume-down pin is called, if it is a carrier.
    pub carrier: Option<LineName>,
    /// True: the pin is active while the squelch is shut.
    pub inverted: bool,
    /// What its GPIO3 is called, if it keys.
    pub ptt: Option<LineName>,
}

#[derive(Default)]
struct State {
    device: Option<File>,
    keyed: bool,
    carrier: bool,
    sequence: u32,
    events: Vec<LineEvent>,
    fault: Option<Fault>,
}

/// What keeps a fob from working.
enum Fault {
    /// It is not there, in the words in which that showed first.
    Absent(String),
    /// It is there and may not be used.
    Refused(String),
}

impl State {
    fn fails(&mut self, fault: Fault) {
        self.device = None;
        if !matches!((&self.fault, &fault), (Some(Fault::Absent(_)), Fault::Absent(_))) {
            self.fault = Some(fault);
        }
    }
}

/// The fob; clones are the same one.
#[derive(Clone)]
pub struct Fob {
    plan: Arc<Plan>,
    state: Arc<Mutex<State>>,
}

/// The output report that sets GPIO3: report number, mode, levels, directions, and a byte for S/PDIF.
fn output_report(keyed: bool) -> [u8; 5] {
    [0, 0, if keyed { GPIO3 } else { 0 }, GPIO3, 0]
}

fn is_carrier(report: &[u8], inverted: bool) -> Option<bool> {
    report.first().map(|buttons| (buttons & VOLUME_DOWN != 0) != inverted)
}

impl Fob {
    /// Looks for the fob, on a thread of its own, for as long as anybody has it.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn open(plan: Plan, wake: Wake) -> std::io::Result<Self> {
        let fob = Fob { plan: Arc::new(plan), state: Arc::default() };
        let first = fob.connect();
        let (plan, state) = (fob.plan.clone(), Arc::downgrade(&fob.state));
        std::thread::Builder::new().name("fob".into()).spawn(move || read(&plan, &state, &wake, first))?;
        Ok(fob)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }

    /// Its carrier's line.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Whether its carrier is there, by what it last reported.
    #[must_use]
    pub fn carrier(&self) -> bool {
        self.lock().carrier
    }

    /// What happened so far.
    pub fn drain(&self) -> Vec<LineEvent> {
        std::mem::take(&mut self.lock().events)
    }

    /// What keeps it from working.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let state = self.lock();
        let (Fault::Absent(why) | Fault::Refused(why)) = state.fault.as_ref()?;
        Some(format!("fob '{}' {why}", self.plan.card))
    }

    /// Keys or unkeys.
    ///
    /// # Errors
    /// If the fob is gone; then it keys nothing.
    pub fn set(&self, keyed: bool) -> Result<(), String> {
        let mut state = self.lock();
        state.keyed = keyed;
        let gone = || format!("fob '{}' is not plugged in; plug it in", self.plan.card);
        let device = state.device.as_mut().ok_or_else(gone)?;
        device.write_all(&output_report(keyed)).map_err(|e| format!("fob '{}' does not key: {e}", self.plan.card))
    }

    /// Finds and opens it; a reader for the thread.
    fn connect(&self) -> Option<File> {
        let opened = find(&self.plan.card).map_err(Fault::Absent).and_then(|path| {
            let open = File::options().read(true).write(true).open(&path);
            open.and_then(|mut device| {
                if self.plan.ptt.is_some() {
                    device.write_all(&output_report(false))?; // unkeyed before anything else
                }
                Ok((device.try_clone()?, device))
            })
            .map_err(|e| refusal(&path, &e))
        });
        let mut state = self.lock();
        match opened {
            Ok((reader, mut device)) => {
                if state.keyed {
                    device.write_all(&output_report(true)).ok(); // one that is gone again is found by its reader
                }
                (state.device, state.fault) = (Some(device), None);
                Some(reader)
            }
            Err(fault) => {
                state.fails(fault);
                None
            }
        }
    }

    /// Takes a report in; true if the carrier has changed.
    fn report(&self, report: &[u8]) -> bool {
        let (Some(line), Some(active)) = (&self.plan.carrier, is_carrier(report, self.plan.inverted)) else {
            return false;
        };
        let mut state = self.lock();
        if state.carrier == active {
            return false;
        }
        state.carrier = active;
        state.sequence = state.sequence.wrapping_add(1);
        let edge = super::gpio::Edge { line: line.clone(), active, stamp: mono_now(), sequence: state.sequence };
        state.events.push(LineEvent::Edge(edge));
        true
    }

    fn gone(&self) {
        let mut state = self.lock();
        state.carrier = false;
        state.fails(Fault::Absent("is gone; plug it in again".into()));
        if let Some(line) = &self.plan.carrier {
            state.events.push(LineEvent::Gone { line: line.clone(), stamp: mono_now() });
        }
    }

    fn returned(&self) {
        if let Some(line) = &self.plan.carrier {
            let event = LineEvent::Returned { line: line.clone(), active_now: false, stamp: mono_now() };
            self.lock().events.push(event);
        }
    }
}

/// Why a fob's device cannot be used.
fn refusal(path: &Path, error: &Error) -> Fault {
    let path = path.display();
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => {
            Fault::Absent(format!("is not plugged in: there is no {path}; plug it in"))
        }
        Some(Errno::ACCESS | Errno::PERM) => {
            Fault::Refused(format!("may not be used ({path}); install the gateway's udev rules"))
        }
        _ => Fault::Refused(format!("does not work ({path}: {error}); unplug it and plug it in again")),
    }
}

/// The thread: waits for reports; a fob that is gone is looked for until it is back.
fn read(plan: &Arc<Plan>, state: &Weak<Mutex<State>>, wake: &Wake, mut first: Option<File>) {
    let mut was_gone = false;
    while let Some(state) = state.upgrade() {
        let fob = Fob { plan: plan.clone(), state };
        let Some(mut reader) = first.take().or_else(|| fob.connect()) else {
            if !std::mem::replace(&mut was_gone, true) {
                fob.gone();
                wake();
            }
            drop(fob);
            std::thread::sleep(RETRY);
            continue;
        };
        if std::mem::take(&mut was_gone) {
            fob.returned();
            wake();
        }
        let mut report = [0; 16];
        while let Ok(length) = reader.read(&mut report)
            && length > 0
        {
            if fob.report(&report[..length]) {
                wake();
            }
        }
        fob.gone();
        was_gone = true;
        wake();
    }
}

/// Unkeys a fob without anything else, for whoever cleans up after a gateway that has died.
///
/// # Errors
/// If it is not plugged in, or may not be used; in words.
pub fn unkey(card: &str) -> Result<(), String> {
    let path = find(card).map_err(|why| format!("it {why}"))?;
    let done = File::options().write(true).open(&path).and_then(|mut device| device.write_all(&output_report(false)));
    done.map_err(|e| format!("{}: {e}", path.display()))
}

/// The hidraw device of a card's fob.
fn find(card: &str) -> Result<PathBuf, String> {
    if card.starts_with("/dev/") {
        return Ok(PathBuf::from(card));
    }
    cards::hidraw(card)
        .ok_or_else(|| "is not plugged in, or has no HID interface; plug it in, see `crosspatch audio list`".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::gpio::Edge;

    fn fob(inverted: bool) -> Fob {
        let plan = Plan { card: "usb:9-9".into(), carrier: Some("cos".into()), inverted, ptt: Some("ptt".into()) };
        Fob { plan: Arc::new(plan), state: Arc::default() }
    }

    #[test]
    fn the_report_that_keys_drives_gpio_3_and_nothing_else() {
        assert_eq!(output_report(true), [0, 0, 0x04, 0x04, 0]);
        assert_eq!(output_report(false), [0, 0, 0x00, 0x04, 0]);
    }

    #[test]
    fn volume_down_is_the_carrier_and_other_buttons_are_not() {
        let fob = fob(false);
        assert!(fob.report(&[0b10, 0, 0, 0]) && fob.carrier());
        assert!(!fob.report(&[0b11, 0, 0, 0]), "volume up is another matter");
        assert!(fob.report(&[0b01, 0, 0, 0]) && !fob.carrier());
        let edges: Vec<_> = fob.drain();
        let is = |event: &LineEvent, wanted| matches!(event, LineEvent::Edge(Edge { active, .. }) if *active == wanted);
        assert!(edges.len() == 2 && is(&edges[0], true) && is(&edges[1], false), "{edges:?}");
        assert_eq!(is_carrier(&[0b10], true), Some(false));
        assert_eq!(is_carrier(&[], false), None);
    }

    #[test]
    fn a_fob_that_cannot_be_used_says_why() {
        let fob = fob(false);
        for (error, said) in [
            (Errno::NOENT, "is not plugged in: there is no /dev/hidraw7; plug it in"),
            (Errno::NODEV, "is not plugged in: there is no /dev/hidraw7; plug it in"),
            (Errno::ACCESS, "may not be used (/dev/hidraw7); install the gateway's udev rules"),
            (
                Errno::BUSY,
                "does not work (/dev/hidraw7: Device or resource busy (os error 16)); unplug it and plug it in again",
            ),
            (
                Errno::IO,
                "does not work (/dev/hidraw7: Input/output error (os error 5)); unplug it and plug it in again",
            ),
        ] {
            fob.lock().fails(refusal(Path::new("/dev/hidraw7"), &error.into()));
            assert_eq!(fob.fault().unwrap(), format!("fob 'usb:9-9' {said}"));
        }
    }

    #[test]
    fn a_fob_that_is_not_there_is_a_fault_that_is_said_once_with_what_to_do_and_keys_nothing() {
        let fob = fob(false);
        assert!(fob.connect().is_none());
        let fault = fob.fault().unwrap();
        assert!(fault.starts_with("fob 'usb:9-9' is not plugged in") && fault.contains("plug it in"), "{fault}");
        fob.gone();
        assert!(fob.connect().is_none());
        assert_eq!(fob.fault().unwrap(), fault, "the same in other words is nothing new");
        fob.lock().fails(Fault::Refused("may not be used".into()));
        assert_eq!(fob.fault().unwrap(), "fob 'usb:9-9' may not be used", "that is something else");
        assert!(fob.set(true).unwrap_err().contains("plug it in"));
    }
}
