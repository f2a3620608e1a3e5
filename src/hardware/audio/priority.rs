//! Real-time priority for the threads that feed sound cards: they must not wait for whoever computes.

use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Above everything ordinary, below what the kernel does for its devices (50).
const PRIORITY: u8 = 20;

/// Asks for real-time priority (SCHED_FIFO) for this thread.
///
/// # Errors
/// A sentence that says why it was refused, and what to do; the thread runs on as any other.
pub fn real_time() -> Result<(), String> {
    let priority = ThreadPriorityValue::try_from(PRIORITY).map_err(|e| e.to_owned())?;
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo);
    set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Crossplatform(priority), policy).map_err(|e| {
        format!(
            "no real-time priority for sound ({e:?}); a busy CPU may be heard; give the service LimitRTPRIO={PRIORITY}"
        )
    })
}
