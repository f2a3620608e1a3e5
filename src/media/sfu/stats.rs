//! Counters for the status page.

use super::parameters::Direction;
use crate::base::{ChannelId, SourceId};
use serde::Serialize;

/// Why datagrams and frames were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dropped {
    /// From an address that no verified check came from.
    pub unknown_address: u64,
    /// Checks for nobody, or without the right password.
    pub bad_stun: u64,
    /// Audio of an SSRC that was not announced.
    pub unannounced: u64,
    /// Forged or repeated packets.
    pub forged: u64,
    /// Audio of a source that does not have the floor.
    pub gate_shut: u64,
    /// Packets that cannot be read.
    pub malformed: u64,
    /// Audio packets beyond 1,400 bytes.
    pub oversize: u64,
    /// Packets that were too late for a listener's stream.
    pub late: u64,
}

/// What the SFU holds and has done.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SfuStats {
    /// One entry for each transport.
    pub transports: Vec<TransportStats>,
    /// One entry for each source.
    pub sources: Vec<SourceStats>,
    /// One entry for each consumer.
    pub consumers: Vec<ConsumerStats>,
    /// Listeners inside the gateway.
    pub local_listeners: usize,
    /// Packets that went out to listeners.
    pub forwarded: u64,
    /// What was dropped.
    pub dropped: Dropped,
}

/// One transport.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TransportStats {
    /// Its id on the wire.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// Which way it goes.
    pub direction: Direction,
    /// True once audio can flow.
    pub connected: bool,
}

/// One source.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStats {
    /// Its id on the wire.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// Packets that came in, with and without the floor.
    pub received: u64,
    /// The last audio level as in RFC 6464.
    pub level: u8,
}

/// One consumer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerStats {
    /// Its id on the wire.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// The channel it listens to.
    pub channel: ChannelId,
    /// Packets that were sent to it.
    pub packets: u32,
    /// The share of packets that it lost lately, 0 to 1.
    pub lost: Option<f32>,
    /// The round trip in milliseconds.
    pub round_trip_ms: Option<f32>,
}

/// What happened without being asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SfuEvent {
    /// A source is gone because its transport is.
    SourceGone {
        /// The source.
        source: SourceId,
    },
    /// A transport is gone.
    TransportFailed {
        /// Whose it was.
        session: crate::base::SessionId,
        /// Its id on the wire.
        transport_id: String,
        /// Why, for people.
        reason: String,
    },
}
