//! The thread that waits for the kernel, so that the loop need not. It reads nothing: it only wakes the loop, which
//! then reads every edge itself before it judges a deadline (E2).
//!
//! **Invariant:** nothing is polled; the thread sleeps until the kernel or a watchdog has something to say.

use super::super::Wake;
use crate::base::{Beat, Pulse};
use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fd::{AsFd, OwnedFd};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// What has something to say.
const EDGES: u64 = 0;
const BELL: u64 = 1;

/// The thread; it ends when this is dropped.
pub(super) struct Reader {
    bell: Arc<OwnedFd>,
    stop: Arc<AtomicBool>,
    beat: Arc<Beat>,
    thread: Option<JoinHandle<()>>,
}

fn ring(bell: &OwnedFd) {
    // Fails only when the counter is full, and then the thread has been woken already.
    rustix::io::write(bell, &1u64.to_ne_bytes()).ok();
}

impl Reader {
    /// Waits for `edges`, an epoll of its own, and calls `wake` after each change of it.
    pub(super) fn start(edges: impl AsFd, wake: Wake) -> io::Result<Self> {
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let all = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // Edge-triggered: one wake-up for each change, however long the loop takes to read it.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&all, edges, epoll::EventData::new_u64(EDGES), flags)?;
        epoll::add(&all, &bell, epoll::EventData::new_u64(BELL), flags)?;
        let (stop, beat) = (Arc::new(AtomicBool::new(false)), Beat::new());
        let (told, answers) = (stop.clone(), beat.clone());
        let thread = std::thread::Builder::new().name("gpio".into()).spawn(move || {
            let mut ready: Vec<epoll::Event> = Vec::with_capacity(2);
            while !told.load(Ordering::Acquire) {
                ready.clear();
                match epoll::wait(&all, spare_capacity(&mut ready), None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(e) => return tracing::error!("gpio lines cannot be waited for any more: {e}"),
                }
                if ready.iter().any(|event| event.data.u64() == EDGES) {
                    wake();
                }
                answers.answer();
            }
        })?;
        Ok(Reader { bell, stop, beat, thread: Some(thread) })
    }

    pub(super) fn pulse(&self) -> Pulse {
        let bell = self.bell.clone();
        Pulse::new(self.beat.clone(), move || ring(&bell))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        ring(&self.bell);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;
    use std::time::{Duration, Instant};

    #[test]
    fn the_reader_wakes_for_each_change_answers_a_watchdog_and_ends() {
        let edges = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let line = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        epoll::add(&edges, &line, epoll::EventData::new_u64(7), epoll::EventFlags::IN).unwrap();
        let (sender, woken) = sync_channel(8);
        let reader = Reader::start(&edges, Arc::new(move || sender.try_send(()).unwrap_or(()))).unwrap();
        let patience = Duration::from_secs(10);
        ring(&line);
        woken.recv_timeout(patience).unwrap();
        ring(&line);
        woken.recv_timeout(patience).expect("a change before the last one was read wakes too");
        let pulse = reader.pulse();
        pulse.ask();
        let deadline = Instant::now() + patience;
        while !pulse.beat.is_answered() {
            assert!(Instant::now() < deadline, "the thread did not answer");
            std::thread::yield_now();
        }
        assert!(woken.try_recv().is_err(), "a watchdog's question is no edge");
        drop(reader); // returns when the thread has ended
        pulse.ask();
        assert!(!pulse.beat.is_answered(), "nobody answers any more");
    }
}
