//! The watchdog: asks every thread for a sign of life, and is the one place that decides that a thread hangs.
//!
//! While one does, the outputs are held at their safe level and systemd is not told that all is well, so that it ends
//! and restarts the gateway. A thread that comes back before that brings everything back with it. Without systemd the
//! outputs are held all the same.
//!
//! **Invariant:** a stall of the watchdog itself, as when the whole process is stopped, is held against nobody.

use super::Event;
use super::outputs::Hold;
use crate::base::clock::mono_now;
use crate::base::{Mono, Pulse};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often threads are asked while all of them answer.
const TICK: Duration = Duration::from_secs(1);
/// How often the watchdog looks while somebody owes an answer.
const LOOK: Duration = Duration::from_millis(250);
/// The watchdog itself came so much too late: what happened meanwhile says nothing about the others.
const LATE: Duration = Duration::from_millis(500);

/// Threads that talk depends on: the loop, the media, the lines.
pub const TALK: Duration = Duration::from_secs(2);
/// Threads that wait for a sound card, which gives up a card that stands still after 3 s.
pub const SOUND: Duration = Duration::from_secs(6);
/// Threads that wait for the disk: a worn SD card may take seconds to sync.
pub const DISK: Duration = Duration::from_secs(20);

/// A thread that is watched.
pub struct Watched {
    /// What it is called in messages.
    pub name: String,
    /// How it is asked.
    pub pulse: Pulse,
    /// How long it may owe an answer.
    pub patience: Duration,
}

/// What the watchdog has found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// The thread with this number does not answer.
    Hangs(usize),
    /// It answers again, after that long.
    Answers(usize, Duration),
    /// The watchdog itself did not run for that long.
    Stood(Duration),
}

/// Judges threads by how long they owe an answer, on time that is handed in.
struct Judge {
    threads: Vec<Judged>,
    /// When it last looked, and when it was going to look again.
    looked: Mono,
    due: Mono,
}

struct Judged {
    patience: Duration,
    owes_for: Duration,
    hangs: bool,
}

impl Judge {
    fn new(patience: impl Iterator<Item = Duration>, now: Mono) -> Self {
        let threads = patience.map(|patience| Judged { patience, owes_for: Duration::ZERO, hangs: false }).collect();
        Judge { threads, looked: now, due: now }
    }

    /// Looks at all threads; `owes` says whether the one with that number owes an answer, and `next` when it looks again.
    fn look(&mut self, now: Mono, owes: impl Fn(usize) -> bool) -> Vec<Finding> {
        let passed = now.since(self.looked);
        let late = now.since(self.due) > LATE;
        self.looked = now;
        let mut findings = Vec::new();
        if late {
            findings.push(Finding::Stood(passed));
        }
        for (number, thread) in self.threads.iter_mut().enumerate() {
            if !owes(number) {
                let owed = std::mem::take(&mut thread.owes_for);
                if std::mem::take(&mut thread.hangs) {
                    findings.push(Finding::Answers(number, owed + passed));
                }
                continue;
            }
            match late && !thread.hangs {
                true => thread.owes_for = Duration::ZERO,
                false => thread.owes_for += passed,
            }
            if thread.owes_for >= thread.patience && !thread.hangs {
                thread.hangs = true;
                findings.push(Finding::Hangs(number));
            }
        }
        findings
    }

    /// When to look again: soon, if somebody owes an answer for longer than a tick.
    fn next(&mut self, tick: Duration) -> Duration {
        let owed = self.threads.iter().any(|t| t.owes_for > Duration::ZERO);
        let wait = if owed { LOOK.min(tick) } else { tick };
        self.due = self.looked + wait;
        wait
    }

    fn all_answer(&self) -> bool {
        self.threads.iter().all(|t| !t.hangs)
    }
}

/// The running watchdog.
pub struct Watchdog {
    stop: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Watchdog {
    /// Ends it; from then on nobody is watched.
    pub fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the watchdog panicked; report this as a fault of the program");
        }
    }
}

/// Starts to watch. `feed` is called at every look while all threads answer; within `limit` of the last time the
/// supervisor ends the process, if there is one.
///
/// # Errors
/// If the thread cannot be started.
pub fn start(
    watched: Vec<Watched>,
    hold: Hold,
    events: tokio::sync::mpsc::Sender<Event>,
    limit: Option<Duration>,
    feed: impl Fn() + Send + 'static,
) -> std::io::Result<Watchdog> {
    let (stop, stopped) = sync_channel(1);
    let tick = limit.map_or(TICK, |limit| TICK.min(limit / 3));
    let thread = std::thread::Builder::new().name("watchdog".into()).spawn(move || {
        let mut judge = Judge::new(watched.iter().map(|w| w.patience), mono_now());
        loop {
            let findings = judge.look(mono_now(), |number| !watched[number].pulse.beat.is_answered());
            if judge.all_answer() {
                if findings.iter().any(|f| matches!(f, Finding::Answers(..))) {
                    hold.let_go();
                    events.try_send(Event::Lines).ok();
                }
                feed();
            } else {
                hold.hold();
            }
            for finding in findings {
                tell(finding, &watched, &events);
            }
            for thread in watched.iter().filter(|w| w.pulse.beat.is_answered()) {
                thread.pulse.ask();
            }
            match stopped.recv_timeout(judge.next(tick)) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    })?;
    Ok(Watchdog { stop, thread })
}

fn tell(finding: Finding, watched: &[Watched], events: &tokio::sync::mpsc::Sender<Event>) {
    let report = |number: usize, why| {
        let part = format!("thread {}", watched[number].name);
        events.try_send(Event::Part { part, why }).ok(); // a full queue is no reason to wait
    };
    match finding {
        Finding::Hangs(number) => {
            let Watched { name, patience, .. } = &watched[number];
            let why = format!("it did not answer for {} s; all outputs are unkeyed until it does", patience.as_secs());
            tracing::error!("the thread '{name}' hangs: {why}");
            report(number, Some(why));
        }
        Finding::Answers(number, after) => {
            tracing::warn!("the thread '{}' answers again after {:.1} s", watched[number].name, after.as_secs_f32());
            report(number, None);
        }
        Finding::Stood(time) => tracing::warn!("the whole process stood still for {:.1} s", time.as_secs_f32()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Beat;
    use crate::gateway::outputs::Outputs;
    use crate::hardware::gpio::sim::SimBoard;
    use crate::hardware::gpio::{Direction, LineSpec, Lines};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;
    use std::sync::{Arc, Mutex};

    fn judge() -> Judge {
        Judge::new([TALK, DISK].into_iter(), Mono::from_millis(0))
    }

    /// Looks as the thread does, from `from` to `to`, and tells when it found what.
    fn look_until(
        judge: &mut Judge,
        from: u64,
        to: u64,
        owes: impl Fn(usize, u64) -> bool,
    ) -> (u64, Vec<(u64, Finding)>) {
        let (mut now, mut found) = (from, Vec::new());
        while now <= to {
            let findings = judge.look(Mono::from_millis(now), |n| owes(n, now));
            found.extend(findings.into_iter().map(|f| (now, f)));
            now += judge.next(TICK).as_millis() as u64;
        }
        (now, found)
    }

    #[test]
    fn a_thread_that_answers_within_its_patience_is_left_alone() {
        let mut judge = judge();
        let (_, found) = look_until(&mut judge, 0, 20_000, |n, now| n == 0 && (1..1900).contains(&(now % 4_000)));
        assert_eq!(found, []);
        assert!(judge.all_answer());
    }

    #[test]
    fn a_thread_that_does_not_answer_hangs_after_its_own_patience_and_heals_when_it_does() {
        let mut judge = judge();
        let (now, found) = look_until(&mut judge, 0, 2_000, |n, now| n == 0 && now > 0);
        assert_eq!(found, [(2_000, Finding::Hangs(0))]);
        assert!(!judge.all_answer());
        let (_, found) = look_until(&mut judge, now, 5_000, |n, now| n == 0 && now < 3_000);
        assert_eq!(found, [(3_000, Finding::Answers(0, Duration::from_secs(3)))]);
        assert!(judge.all_answer());
        let (_, found) = look_until(&mut judge, 6_000, 30_000, |n, _| n == 1);
        assert_eq!(found.first(), Some(&(25_000, Finding::Hangs(1))), "a disk may take longer");
    }

    #[test]
    fn a_stall_of_the_watchdog_itself_is_told_and_held_against_nobody() {
        let mut judge = judge();
        look_until(&mut judge, 0, 1_000, |_, now| now > 0);
        let (_, found) = look_until(&mut judge, 90_000, 90_500, |_, now| now < 90_500);
        assert_eq!(found, [(90_000, Finding::Stood(Duration::from_secs(89)))]);
        assert!(judge.all_answer());
    }

    #[test]
    fn a_thread_that_hung_before_a_stall_still_hangs_after_it() {
        let mut judge = judge();
        let (_, found) = look_until(&mut judge, 0, 2_500, |n, now| n == 0 && now > 0);
        assert_eq!(found, [(2_000, Finding::Hangs(0))]);
        let (_, found) = look_until(&mut judge, 60_000, 60_000, |n, _| n == 0);
        assert!(matches!(found[..], [(60_000, Finding::Stood(_))]));
        assert!(!judge.all_answer());
    }

    #[test]
    fn a_real_thread_that_hangs_unkeys_starves_the_supervisor_and_brings_all_back() {
        let spec = LineSpec { name: "ptt".into(), direction: Direction::Output };
        let board = SimBoard::new(&[spec]);
        let (mut outputs, hold) = Outputs::new(Box::new(board.open()));
        outputs.set(&"ptt".into(), true).unwrap();
        let (beat, hang) = (Beat::new(), Arc::new(Mutex::new(())));
        let (wake, woken) = channel::<()>();
        let (thread_beat, thread_hang) = (beat.clone(), hang.clone());
        let thread = std::thread::spawn(move || {
            while woken.recv().is_ok() {
                drop(thread_hang.lock().unwrap()); // hangs here while the test holds it
                thread_beat.answer();
            }
        });
        let pulse = Pulse::new(beat, move || _ = wake.send(()));
        let watched = Watched { name: "worker".into(), pulse, patience: Duration::from_millis(300) };
        let (events, mut event_receiver) = tokio::sync::mpsc::channel(64);
        let fed = Arc::new(AtomicUsize::new(0));
        let feeding = fed.clone();
        let (limit, feed) = (Duration::from_millis(150), move || _ = feeding.fetch_add(1, Ordering::SeqCst));
        let watchdog = start(vec![watched], hold, events, Some(limit), feed).unwrap();
        let mut next_part = || loop {
            if let Some(Event::Part { part, why }) = event_receiver.blocking_recv() {
                assert_eq!(part, "thread worker");
                return why;
            }
        };

        let hanging = hang.lock().unwrap();
        assert!(next_part().unwrap().contains("unkeyed"));
        assert!(!board.lines()[0].active, "unkeyed before anybody is told");
        let hungry = fed.load(Ordering::SeqCst);
        assert!(hungry > 0, "fed while it answered");
        outputs.drain();
        assert!(!board.lines()[0].active);
        assert_eq!(fed.load(Ordering::SeqCst), hungry, "not fed while it hangs");
        drop(hanging);
        assert_eq!(next_part(), None);
        outputs.drain();
        assert!(board.lines()[0].active, "keyed again as the core wants it");
        assert!(fed.load(Ordering::SeqCst) > hungry);
        watchdog.stop();
        thread.join().unwrap();
    }
}
