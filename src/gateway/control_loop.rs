//! The one loop: waits for events and deadlines, and hands them to the executor.

use super::Event;
use super::bell::Listener;
use super::executor::{Executor, Parts};
use crate::base::clock::mono_now;
use crate::net::socket::SocketEvent;
use tokio::sync::{mpsc, oneshot};

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
}

/// Runs until told to stop. `ready` is called once, with the degraded parts, when all of `expected_parts` have
/// said whether they are up.
pub fn run(parts: Parts, mut queues: Queues, expected_parts: usize, ready: impl FnOnce(Vec<String>)) {
    let mut executor = Executor::new(parts);
    let mut ready = Some(ready);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return tracing::error!("the control loop cannot be started: {e}"),
    };
    runtime.block_on(async {
        let ear = match queues.bell.listen() {
            Ok(ear) => ear,
            Err(e) => return tracing::error!("the audio threads cannot be heard: {e}"),
        };
        loop {
            let due = executor.next_timeout();
            let timer = async {
                match due {
                    Some(due) => tokio::time::sleep(due.since(mono_now())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = &mut queues.stop => return,
                Some(event) = queues.events.recv() => executor.event(event),
                () = ear.rings() => {}
                Some(event) = queues.sockets.recv() => executor.socket(event),
                () = timer => {}
            }
            executor.turn();
            if executor.reported_parts() >= expected_parts
                && let Some(ready) = ready.take()
            {
                ready(executor.degraded().map(|(part, why)| format!("{part}: {why}")).collect());
            }
        }
    });
    executor.finish();
}
