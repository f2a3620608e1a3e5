//! The outputs, which anybody who must can hold at their safe level while the loop that owns the lines hangs.
//!
//! Decides nothing about keying: it keeps what the core wants, and lets it through unless the outputs are held.
//!
//! **Invariant:** while outputs are held, none is active, whatever the loop sets meanwhile. **Invariant:** what was set
//! meanwhile is not lost: it is set when they are let go.

use crate::base::{LineName, Pulse};
use crate::hardware::gpio::{GpioError, LineEvent, LineSpec, Lines, Safety};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

/// How long a panic waits for the outputs: its thread may hold a lock that making them safe needs.
const PANIC_PATIENCE: Duration = Duration::from_millis(250);

/// Takes the outputs to their safe level and keeps them there, from any thread. Clones hold the same outputs.
#[derive(Clone)]
pub struct Hold {
    state: Arc<State>,
    safety: Safety,
}

#[derive(Default)]
struct State {
    held: AtomicBool,
    /// How often they were let go.
    let_go: AtomicU64,
}

impl Hold {
    /// Makes every output inactive, and keeps it so. Once more does no harm.
    pub fn hold(&self) {
        self.state.held.store(true, Ordering::SeqCst);
        (self.safety)(None);
    }

    /// Lets them go; the owner of the lines sets them as the core wants them when it next reads its lines.
    pub fn let_go(&self) {
        self.state.let_go.fetch_add(1, Ordering::SeqCst);
        self.state.held.store(false, Ordering::SeqCst);
    }

    /// From now on a panic, in whichever thread, unkeys and ends the process: a gateway with a dead thread would look
    /// alive, and whoever supervises it starts a whole one.
    pub fn on_panic(&self) {
        let (hold, tell) = (self.clone(), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |panic| {
            let (done, wait) = sync_channel(1);
            let hold = hold.clone();
            let unkey = std::thread::Builder::new().name("unkey".into()).spawn(move || {
                hold.hold();
                done.try_send(()).ok();
            });
            if unkey.is_ok() {
                wait.recv_timeout(PANIC_PATIENCE).ok();
            }
            tell(panic);
            std::process::abort();
        }));
    }
}

/// Makes the outputs safe when it is dropped, whichever way out of the gateway that is.
pub struct AtTheEnd(pub Hold);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        self.0.hold();
    }
}

/// A board's lines whose outputs can be held.
pub struct Outputs {
    lines: Box<dyn Lines>,
    hold: Hold,
    /// What every output should be.
    wanted: BTreeMap<LineName, bool>,
    /// How often they had been let go when they were last set.
    set_again: u64,
}

impl Outputs {
    /// Lines and what holds their outputs.
    #[must_use]
    pub fn new(lines: Box<dyn Lines>) -> (Self, Hold) {
        let hold = Hold { state: Arc::default(), safety: lines.safety() };
        (Outputs { lines, hold: hold.clone(), wanted: BTreeMap::new(), set_again: 0 }, hold)
    }

    fn is_held(&self) -> bool {
        self.hold.state.held.load(Ordering::SeqCst)
    }

    /// Sets an output unless it is held. A hold that begins in between wins.
    fn pass_on(&mut self, line: &LineName, active: bool) -> Result<(), GpioError> {
        if self.is_held() {
            return Ok(());
        }
        self.lines.set(line, active)?;
        if self.is_held() {
            (self.hold.safety)(Some(line));
        }
        Ok(())
    }
}

impl Lines for Outputs {
    fn specs(&self) -> &[LineSpec] {
        self.lines.specs()
    }

    /// Sets the outputs again, too, if they were let go since.
    fn drain(&mut self) -> Vec<LineEvent> {
        let let_go = self.hold.state.let_go.load(Ordering::SeqCst);
        if self.set_again != let_go {
            self.set_again = let_go;
            for (line, active) in self.wanted.clone() {
                if let Err(e) = self.pass_on(&line, active) {
                    tracing::error!("{e}");
                }
            }
        }
        self.lines.drain()
    }

    fn level(&self, line: &LineName) -> Result<bool, GpioError> {
        self.lines.level(line)
    }

    fn set(&mut self, line: &LineName, active: bool) -> Result<(), GpioError> {
        self.wanted.insert(line.clone(), active);
        self.pass_on(line, active)
    }

    fn safe(&mut self) {
        self.wanted.clear();
        self.lines.safe();
    }

    fn safety(&self) -> Safety {
        self.hold.safety.clone()
    }

    fn emergency(&mut self, runs: bool) {
        self.lines.emergency(runs);
    }

    fn fault(&self) -> Option<String> {
        self.lines.fault()
    }

    fn pulse(&self) -> Option<Pulse> {
        self.lines.pulse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::gpio::Direction;
    use crate::hardware::gpio::sim::SimBoard;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    fn board() -> (SimBoard, Outputs, Hold) {
        let specs = ["ptt", "lamp"].map(|name| LineSpec { name: name.into(), direction: Direction::Output });
        let board = SimBoard::new(&specs);
        let (outputs, hold) = Outputs::new(Box::new(board.open()));
        (board, outputs, hold)
    }

    fn active(board: &SimBoard) -> Vec<String> {
        board.lines().into_iter().filter(|l| l.active).map(|l| l.name.to_string()).collect()
    }

    #[test]
    fn held_outputs_are_safe_whatever_is_set_and_come_back_as_they_were_last_wanted() {
        let (board, mut outputs, hold) = board();
        outputs.set(&"ptt".into(), true).unwrap();
        assert_eq!(active(&board), ["ptt"]);
        hold.hold();
        assert_eq!(active(&board), [] as [&str; 0]);
        outputs.set(&"lamp".into(), true).unwrap();
        outputs.drain();
        assert_eq!(active(&board), [] as [&str; 0], "nothing passes while they are held");
        hold.let_go();
        assert_eq!(active(&board), [] as [&str; 0], "only the owner of the lines sets them");
        outputs.drain();
        assert_eq!(active(&board), ["ptt", "lamp"]);
        outputs.set(&"ptt".into(), false).unwrap();
        outputs.drain();
        assert_eq!(active(&board), ["lamp"], "they are set again once only");
    }

    #[test]
    fn outputs_are_safe_after_the_end() {
        let (board, mut outputs, hold) = board();
        let end = AtTheEnd(hold);
        outputs.set(&"ptt".into(), true).unwrap();
        drop(end);
        outputs.set(&"ptt".into(), true).unwrap();
        assert_eq!(active(&board), [] as [&str; 0]);
    }

    /// The process that panics in [`a_panic_in_any_thread_unkeys_and_ends_the_process`].
    #[test]
    #[ignore = "ends its process; another test runs it in one of its own"]
    fn panic_while_keyed() {
        let (board, mut outputs, hold) = board();
        outputs.set(&"ptt".into(), true).unwrap();
        let safety = {
            let lines = outputs.safety();
            Arc::new(move |meant: Option<&LineName>| {
                lines(meant);
                println!("active: {:?}", active(&board));
            })
        };
        Hold { safety, ..hold }.on_panic();
        let panic = std::thread::spawn(|| assert_eq!(1, 2, "a thread that nobody joins"));
        panic.join().ok();
        println!("still alive");
    }

    #[test]
    fn a_panic_in_any_thread_unkeys_and_ends_the_process() {
        let ended = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "gateway::outputs::tests::panic_while_keyed"])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&ended.stdout);
        assert!(told.contains("active: []"), "{told}");
        assert!(!told.contains("still alive"), "{told}");
        assert_eq!(ended.status.signal(), Some(6), "{:?}", ended.status);
        assert!(String::from_utf8_lossy(&ended.stderr).contains("a thread that nobody joins"));
    }
}
