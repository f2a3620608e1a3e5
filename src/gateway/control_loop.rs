//! The one loop: waits for events and deadlines, and hands them to the executor.

use super::Event;
use super::bell::Listener;
use super::executor::{Executor, Parts};
use super::witness::ClockWatch;
use crate::base::clock::mono_now;
use crate::base::{Beat, Mono};
use crate::net::socket::SocketEvent;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// A part that has not said by then whether it is up is declared degraded: it keeps nobody waiting.
const START: Duration = Duration::from_secs(10);

/// What the loop waits for.
pub struct Queues {
    /// From our own threads.
    pub events: mpsc::Receiver<Event>,
    /// Rings when an audio thread has something to say.
    pub bell: Listener,
    /// From sockets.
    pub sockets: mpsc::Receiver<SocketEvent>,
    /// Resolves when its sender is dropped: the end.
    pub stop: oneshot::Receiver<()>,
    /// The loop's sign of life.
    pub beat: Arc<Beat>,
}

/// Runs until told to stop. `ready` is called once, with the degraded parts, when all that are `expected` have said
/// whether they are up, or had the time to.
pub fn run(parts: Parts, mut queues: Queues, expected: Vec<String>, ready: impl FnOnce(Vec<String>)) {
    let mut executor = Executor::new(parts);
    let mut starting = Some((mono_now() + START, ready));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return tracing::error!("the control loop cannot be started: {e}"),
    };
    runtime.block_on(async {
        let mut clock = ClockWatch::new()
            .inspect_err(|e| tracing::error!("nobody sees whether the clock is set: {e}; raise the unit's LimitNOFILE"))
            .ok();
        let ear = match queues.bell.listen() {
            Ok(ear) => ear,
            Err(e) => return tracing::error!("the audio threads cannot be heard: {e}"),
        };
        loop {
            let due: Option<Mono> =
                [executor.next_timeout(), starting.as_ref().map(|s| s.0)].into_iter().flatten().min();
            let timer = async {
                match due {
                    Some(due) => tokio::time::sleep(due.since(mono_now())).await,
                    None => std::future::pending().await,
                }
            };
            let clock_is_set = async {
                match &mut clock {
                    Some(clock) => clock.is_set().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = &mut queues.stop => return,
                Some(event) = queues.events.recv() => executor.event(event),
                () = ear.rings() => {}
                Some(event) = queues.sockets.recv() => executor.socket(event),
                step = clock_is_set => executor.clock_stepped(step),
                () = timer => {}
            }
            executor.turn();
            queues.beat.answer();
            if let Some((_, ready)) = starting.take_if(|(end, _)| executor.have_all_reported(&expected, *end)) {
                ready(executor.degraded().map(|(part, why)| format!("{part}: {why}")).collect());
            }
        }
    });
    executor.finish();
}
