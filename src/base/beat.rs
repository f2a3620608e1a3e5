//! Signs of life: somebody asks a thread for one, the thread answers when it next comes round.
//!
//! Decides nothing: who is judged to hang, and what is done about it, is the business of whoever asks.
//!
//! **Invariant:** asking and answering never wait, so that a thread that hangs holds up nobody.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether one thread owes a sign of life.
#[derive(Debug, Default)]
pub struct Beat(AtomicBool);

impl Beat {
    /// One that nobody has asked for yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Asks for a sign of life. The thread sees it when it next comes round.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Gives it. Called by the thread itself, between two pieces of work.
    pub fn answer(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// True if nothing is owed.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        !self.0.load(Ordering::Acquire)
    }
}

/// A thread's beat, and how the thread is made to look at it while it waits for something else.
#[derive(Clone)]
pub struct Pulse {
    /// What the thread answers.
    pub beat: Arc<Beat>,
    /// Wakes the thread; must not wait. Does nothing for a thread that comes round by itself every second or sooner.
    pub wake: Arc<dyn Fn() + Send + Sync>,
}

impl Pulse {
    /// A pulse whose thread has to be woken.
    #[must_use]
    pub fn new(beat: Arc<Beat>, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Pulse { beat, wake: Arc::new(wake) }
    }

    /// A pulse whose thread comes round by itself.
    #[must_use]
    pub fn of_itself(beat: Arc<Beat>) -> Self {
        Pulse::new(beat, || {})
    }

    /// Asks for a sign of life.
    pub fn ask(&self) {
        self.beat.ask();
        (self.wake)();
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.beat.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    #[test]
    fn one_answer_answers_all_that_was_asked() {
        let beat = Beat::new();
        assert!(beat.is_answered(), "who was never asked owes nothing");
        beat.ask();
        beat.ask();
        assert!(!beat.is_answered());
        beat.answer();
        assert!(beat.is_answered());
    }

    #[test]
    fn a_thread_that_waits_is_woken_to_answer() {
        let (wake, woken) = sync_channel(1);
        let beat = Beat::new();
        let pulse = Pulse::new(beat.clone(), move || _ = wake.try_send(()));
        let thread = std::thread::spawn(move || {
            woken.recv().unwrap();
            beat.answer();
        });
        pulse.ask();
        thread.join().unwrap();
        assert!(pulse.beat.is_answered());
    }
}
