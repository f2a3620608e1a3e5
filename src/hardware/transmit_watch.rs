//! The transmit watchdog: a transmitter that stays keyed for longer than it ever may is unkeyed, whoever wants it keyed.
//!
//! It trusts nothing above it: it sees what is set at the outputs, has a thread of its own, and keeps an output that it
//! had to cut unkeyed until somebody unkeys it. It is no policy: the time-out of a port strikes five seconds before.

use super::gpio::Safety;
use crate::base::clock::mono_now;
use crate::base::{LineName, Mono};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

/// How much longer than its time-out a transmitter may be keyed.
pub const MARGIN: Duration = Duration::from_secs(5);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(100);
/// What was keyed for an emergency is unkeyed by then after its end.
const AFTER_EMERGENCY: Duration = Duration::from_secs(10);

/// One output that keys a transmitter.
#[derive(Clone, Debug)]
pub struct Limit {
    /// Its line.
    pub line: LineName,
    /// The port's time-out.
    pub timeout: Duration,
}

#[derive(Debug)]
struct Keyed {
    limit: Limit,
    since: Option<Mono>,
    /// It was cut, and stays so until it is unkeyed.
    cut: bool,
}

#[derive(Debug)]
struct State {
    outputs: Vec<Keyed>,
    emergency_max: Duration,
    /// An emergency lets everything run on until then (E9).
    excused_until: Mono,
    emergency: bool,
}

/// What the outputs and the watchdog's thread share.
#[derive(Clone, Debug)]
pub struct TransmitWatch(Arc<Mutex<State>>);

impl TransmitWatch {
    /// Nothing is keyed yet.
    #[must_use]
    pub fn new(limits: Vec<Limit>, emergency_max: Duration) -> Self {
        let outputs = limits.into_iter().map(|limit| Keyed { limit, since: None, cut: false }).collect();
        TransmitWatch(Arc::new(Mutex::new(State {
            outputs,
            emergency_max,
            excused_until: Mono::default(),
            emergency: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics while holding it")
    }

    /// An output is about to be set; false if it was cut and may not be keyed.
    pub fn may_set(&self, line: &LineName, active: bool, now: Mono) -> bool {
        let mut state = self.lock();
        let Some(output) = state.outputs.iter_mut().find(|o| o.limit.line == *line) else { return true };
        if !active {
            (output.since, output.cut) = (None, false);
        } else if !output.cut {
            output.since.get_or_insert(now);
        }
        !output.cut || !active
    }

    /// An emergency began or ended (E9). It excuses nobody for longer than an emergency may last.
    pub fn emergency(&self, runs: bool, now: Mono) {
        let mut state = self.lock();
        if state.emergency != runs {
            state.emergency = runs;
            let end = if runs { now + state.emergency_max + MARGIN } else { now + AFTER_EMERGENCY };
            state.excused_until = if runs { end } else { end.min(state.excused_until.max(now + MARGIN)) };
        }
    }

    /// The outputs that have to be unkeyed now.
    fn overdue(&self, now: Mono) -> Vec<LineName> {
        let mut state = self.lock();
        if now < state.excused_until {
            return Vec::new();
        }
        let overdue = state.outputs.iter_mut().filter(|output| {
            let limit = output.limit.timeout + MARGIN;
            !output.cut && output.since.is_some_and(|since| now >= since + limit)
        });
        overdue
            .map(|output| {
                output.cut = true;
                output.limit.line.clone()
            })
            .collect()
    }

    /// What it had to do, in a sentence.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let state = self.lock();
        let cut = state.outputs.iter().find(|output| output.cut)?;
        let seconds = (cut.limit.timeout + MARGIN).as_secs();
        Some(format!(
            "the transmit watchdog unkeyed '{}' after {seconds} s; report this as a fault of the program",
            cut.limit.line
        ))
    }

    /// Starts the thread; it ends when nobody else has the watch any more. `unkey` is called for each output that has to
    /// be unkeyed, and for no other: who transmits in time transmits on, since nobody would key it again.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(&self, unkey: Safety) -> std::io::Result<()> {
        let state: Weak<_> = Arc::downgrade(&self.0);
        std::thread::Builder::new().name("transmit watch".into()).spawn(move || {
            while let Some(state) = state.upgrade() {
                let overdue = TransmitWatch(state).overdue(mono_now());
                for line in &overdue {
                    unkey(Some(line));
                    tracing::error!("the transmit watchdog unkeyed '{line}'; report this as a fault of the program");
                }
                std::thread::sleep(LOOK);
            }
        })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    fn watch() -> TransmitWatch {
        let limit = Limit { line: "ptt".into(), timeout: Duration::from_secs(10) };
        TransmitWatch::new(vec![limit], Duration::from_secs(300))
    }

    fn at(s: u64) -> Mono {
        Mono::from_millis(s * 1000)
    }

    #[test]
    fn what_stays_keyed_is_cut_once_and_stays_so_until_it_is_unkeyed() {
        let (watch, ptt) = (watch(), LineName::from("ptt"));
        assert!(watch.may_set(&"lamp".into(), true, at(0)) && watch.may_set(&ptt, true, at(0)));
        assert!(watch.may_set(&ptt, true, at(9)), "keying again does not begin anew");
        assert!(watch.overdue(at(14)).is_empty() && watch.fault().is_none());
        assert_eq!(watch.overdue(at(15)), std::slice::from_ref(&ptt));
        assert!(watch.overdue(at(16)).is_empty(), "told once");
        assert!(!watch.may_set(&ptt, true, at(17)), "it stays cut");
        assert!(watch.fault().unwrap().contains("'ptt' after 15 s"));
        assert!(watch.may_set(&ptt, false, at(18)) && watch.may_set(&ptt, true, at(18)));
        assert!(watch.fault().is_none() && watch.overdue(at(32)).is_empty());
    }

    #[test]
    fn e9_an_emergency_excuses_and_not_for_ever() {
        let (watch, ptt) = (watch(), LineName::from("ptt"));
        watch.may_set(&ptt, true, at(0));
        watch.emergency(true, at(9));
        watch.emergency(true, at(200));
        assert!(watch.overdue(at(313)).is_empty());
        assert_eq!(watch.overdue(at(314)), std::slice::from_ref(&ptt), "an emergency that never ends excuses nobody");
        watch.may_set(&ptt, false, at(320));
        watch.emergency(false, at(320));
        watch.may_set(&ptt, true, at(330));
        watch.emergency(true, at(331));
        watch.emergency(false, at(400));
        assert!(watch.overdue(at(409)).is_empty(), "the last words still sound");
        assert_eq!(watch.overdue(at(410)), [ptt]);
    }

    #[test]
    fn a_thread_of_its_own_unkeys_while_everybody_else_hangs() {
        let limit = Limit { line: "ptt".into(), timeout: Duration::ZERO };
        let watch = TransmitWatch::new(vec![limit], Duration::ZERO);
        let (unkeyed, told) = sync_channel(1);
        watch.start(Arc::new(move |line| _ = unkeyed.try_send(line.cloned()))).unwrap();
        let long_ago = mono_now() - MARGIN;
        assert!(watch.may_set(&"ptt".into(), true, long_ago));
        assert_eq!(told.recv_timeout(Duration::from_secs(10)).unwrap(), Some("ptt".into()), "it alone");
    }
}
