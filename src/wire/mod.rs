//! The signaling protocol: JSON text frames in, core inputs out, and back.
//!
//! Knows names and shapes of messages, nothing of sockets. The shapes are a contract with clients
//! that exist: every success reply is typed `channel-state`, clients match on `id` alone.

mod reply;
mod request;

pub use reply::{error, media_reply, pong, ports, push, readiness, receipts, reply, states};
pub use request::{Envelope, MediaOp, Request, parse};

use crate::base::{ChannelId, Mono};

/// Turns monotonic time into the wall time that the wire carries.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    /// Milliseconds since 1970 at monotonic zero.
    pub unix_ms_at_zero: u64,
}

impl WallClock {
    fn unix_ms(self, at: Mono) -> u64 {
        self.unix_ms_at_zero + at.as_millis()
    }
}

/// The id of a channel's one producer: it stays the same whoever talks.
#[must_use]
pub fn channel_producer_id(channel: &ChannelId) -> String {
    format!("channel:{channel}")
}
