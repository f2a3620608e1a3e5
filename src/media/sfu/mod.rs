//! The SFU: forwards audio between network clients, desks and radios, in mediasoup's model.
//!
//! One [`Sfu`] belongs to the media thread. It opens no sockets and reads no clocks: datagrams and
//! the time are handed in, and what is to be sent goes out through a function. Who may be heard is
//! decided by the [`Gates`], which the control loop opens and shuts.

mod fanout;
mod io;
mod parameters;
mod requests;
mod rtcp;
mod rtp;
mod srtp;
mod stats;
mod stream;
mod stun;
mod transport;

#[cfg(test)]
mod tests;

use parameters::Announced;
pub use parameters::*;
pub use stats::*;
pub use stream::Frame;

use super::gates::{Gate, Gates};
use crate::base::{BurstId, ChannelId, SessionId, SourceId, UserId};
use rtp::{Packet, Unwrapper};
use srtp::Kind;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stream::Stream;
use transport::{Consumer, Identity, Transport};

/// How often reports go out and consent is checked.
const TICK: Duration = Duration::from_secs(5);
const TRANSPORTS_PER_SESSION: usize = 128;
const PRODUCERS_PER_SESSION: usize = 64;
const CONSUMERS_PER_SESSION: usize = 128;
/// SSRCs that may ever be announced on one transport: the SRTP library forgets none of them.
const SSRCS_PER_TRANSPORT: usize = 256;
/// Odd, so that steps of it meet every SSRC before any comes again.
const SSRC_STEP: u32 = 0x9e37_79b1;

/// How a datagram is sent.
pub type SendFn<'a> = &'a mut dyn FnMut(&[u8], SocketAddr);

/// Settings of the SFU.
#[derive(Clone, Debug)]
pub struct SfuConfig {
    /// The addresses that clients are told, the best one first.
    pub announced: Vec<SocketAddr>,
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SfuError {
    /// Unknown, closed or somebody else's.
    #[error("no such transport '{0}'; create one")]
    NoTransport(String),
    /// Nothing to consume on.
    #[error("there is no transport to receive on; create one with direction 'recv'")]
    NoReceivingTransport,
    /// Unknown, closed or somebody else's.
    #[error("no such producer '{0}'; ask for the channel's state")]
    NoProducer(String),
    /// Unknown, closed or somebody else's.
    #[error("no such consumer '{0}'; consume first")]
    NoConsumer(String),
    /// A bound was reached.
    #[error("the limit of {limit} {what} is reached; close one first")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// A transport connects once.
    #[error("transport '{0}' is connected already; restart ice, or create another")]
    Connected(String),
    /// No usable certificate.
    #[error("no sha-256 fingerprint; announce one")]
    NoFingerprint,
    /// Audio is all there is.
    #[error("'{0}' cannot be produced; produce audio")]
    NotAudio(String),
    /// The stream was not described well.
    #[error("bad rtp parameters: {0}")]
    BadParameters(&'static str),
    /// Each talker needs its own SSRC.
    #[error("ssrc {0} is in use on this transport; choose another")]
    SsrcInUse(u32),
    /// The listener could not play it.
    #[error("the client cannot receive audio/opus; add it to the capabilities")]
    NoOpus,
    /// No certificate could be made.
    #[error("the dtls certificate could not be made: {0}; check the system's randomness and clock")]
    Certificate(String),
}

/// A packet for a listener inside the gateway.
#[derive(Clone, Copy, Debug)]
pub struct LocalFrame<'a> {
    /// The channel it is heard on.
    pub channel: &'a ChannelId,
    /// The burst it belongs to.
    pub burst: BurstId,
    /// Where it comes from.
    pub source: SourceId,
    /// Its place in the source's sequence; a gap means loss.
    pub sequence: u64,
    /// The time of its first sample, in samples of 48 kHz.
    pub timestamp: u32,
    /// The Opus packet.
    pub payload: &'a [u8],
}

struct Source {
    session: SessionId,
    user: UserId,
    /// The channel of a client's producer; none for a local source.
    channel: Option<ChannelId>,
    wire: Option<Wire>,
    received: u64,
    level: u8,
    last_packet: Option<Instant>,
}

/// How a source's packets look on its client's transport.
struct Wire {
    transport: u64,
    announced: Announced,
    unwrapper: Unwrapper,
}

impl Source {
    fn note(&mut self, level: u8, now: Instant) {
        self.received += 1;
        self.level = level;
        self.last_packet = Some(now);
    }
}

/// One listener on one channel.
struct Ear {
    session: SessionId,
    user: UserId,
    join_rank: u64,
    /// The one source that was asked for, or the channel, whoever talks.
    only: Option<SourceId>,
    outlet: Outlet,
}

enum Outlet {
    Consumer { transport: u64, consumer: u64 },
    Local(Box<dyn FnMut(LocalFrame<'_>) + Send>),
}

impl Ear {
    fn is_consumer(&self, wanted: u64) -> bool {
        matches!(self.outlet, Outlet::Consumer { consumer, .. } if consumer == wanted)
    }
}

/// The selective forwarding unit; see the module's text.
pub struct Sfu {
    candidates: Vec<IceCandidate>,
    dtls: DtlsParameters,
    identity: Identity,
    gates: Arc<Gates>,
    transports: HashMap<u64, Transport>,
    by_fragment: HashMap<String, u64>,
    by_address: HashMap<SocketAddr, u64>,
    timers: BTreeSet<(Instant, u64)>,
    sources: HashMap<SourceId, Source>,
    /// SSRCs that were ever announced, by transport.
    announced: HashMap<u64, HashSet<u32>>,
    ears: HashMap<ChannelId, Vec<Ear>>,
    events: VecDeque<SfuEvent>,
    /// Good-byes that wait for the next chance to be sent.
    farewells: Vec<(Vec<u8>, SocketAddr)>,
    next_id: u64,
    next_ssrc: u32,
    /// The zero of the clock in sender reports.
    epoch: Option<Instant>,
    next_tick: Option<Instant>,
    forwarded: u64,
    dropped: Dropped,
    /// Scratch space of the fan-out.
    open_gates: Vec<Arc<Gate>>,
    copies: Vec<fanout::Copy>,
    packet: Vec<u8>,
}

impl Sfu {
    /// Makes an SFU with a fresh certificate.
    ///
    /// # Errors
    ///
    /// The certificate cannot be made.
    pub fn new(config: SfuConfig, gates: Arc<Gates>) -> Result<Self, SfuError> {
        let certificate = dimpl::certificate::generate_self_signed_certificate()
            .map_err(|error| SfuError::Certificate(error.to_string()))?;
        // The address is verified by ICE before DTLS begins; a cookie would prove nothing more.
        let dtls = dimpl::Config::builder().use_server_cookie(false).build();
        let dtls = dtls.map_err(|error| SfuError::Certificate(error.to_string()))?;
        let value = certificate.fingerprint_str();
        Ok(Sfu {
            candidates: candidates(&config.announced),
            dtls: DtlsParameters {
                role: DtlsRole::Auto,
                fingerprints: vec![Fingerprint { algorithm: "sha-256".to_owned(), value }],
            },
            identity: Identity { config: Arc::new(dtls), certificate },
            gates,
            transports: HashMap::new(),
            by_fragment: HashMap::new(),
            by_address: HashMap::new(),
            timers: BTreeSet::new(),
            sources: HashMap::new(),
            announced: HashMap::new(),
            ears: HashMap::new(),
            events: VecDeque::new(),
            farewells: Vec::new(),
            next_id: 0,
            next_ssrc: u32::from_ne_bytes(stun::random()),
            epoch: None,
            next_tick: None,
            forwarded: 0,
            dropped: Dropped::default(),
            open_gates: Vec::new(),
            copies: Vec::new(),
            packet: Vec::new(),
        })
    }

    /// From now on tells new transports these addresses, the best one first.
    pub fn announce(&mut self, addresses: &[SocketAddr]) {
        self.candidates = candidates(addresses);
    }

    /// True if a client has proved that it receives at this address.
    #[must_use]
    pub fn knows(&self, address: &SocketAddr) -> bool {
        self.by_address.contains_key(address)
    }

    /// What the gateway can do.
    #[must_use]
    pub fn router_capabilities(&self) -> RtpCapabilities {
        RtpCapabilities::of_gateway()
    }

    /// The producer id of a channel: the same whoever talks.
    #[must_use]
    pub fn channel_producer_id(channel: &ChannelId) -> String {
        format!("channel:{channel}")
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn new_source(
        &mut self,
        session: SessionId,
        user: &UserId,
        channel: Option<&ChannelId>,
        wire: Option<Wire>,
    ) -> SourceId {
        let source = SourceId(self.fresh_id());
        let channel = channel.cloned();
        let user = user.clone();
        let entry = Source { session, user, channel, wire, received: 0, level: 127, last_packet: None };
        self.sources.insert(source, entry);
        source
    }

    /// The next thing that happened without being asked for.
    pub fn poll_event(&mut self) -> Option<SfuEvent> {
        self.events.pop_front()
    }

    /// When the last packet of `source` came in, with or without the floor.
    #[must_use]
    pub fn source_last_packet(&self, source: SourceId) -> Option<Instant> {
        self.sources.get(&source)?.last_packet
    }

    /// Counters for the status page.
    #[must_use]
    pub fn stats(&self) -> SfuStats {
        let transports = self.transports.iter().map(|(id, transport)| TransportStats {
            id: transport_text(*id),
            user: transport.user.to_string(),
            direction: transport.direction,
            connected: transport.listening_at().is_some(),
        });
        let sources = self.sources.iter().map(|(id, source)| SourceStats {
            id: id.to_string(),
            user: source.user.to_string(),
            received: source.received,
            level: source.level,
        });
        let consumers = self.transports.values().flat_map(|transport| {
            transport.consumers.iter().map(|(id, consumer)| ConsumerStats {
                id: consumer_text(*id),
                user: transport.user.to_string(),
                channel: consumer.channel.clone(),
                packets: consumer.stream.packets(),
                lost: consumer.stream.quality.lost,
                round_trip_ms: consumer.stream.quality.round_trip_ms,
            })
        });
        let is_local = |ear: &&Ear| matches!(ear.outlet, Outlet::Local(_));
        SfuStats {
            transports: transports.collect(),
            sources: sources.collect(),
            consumers: consumers.collect(),
            local_listeners: self.ears.values().flatten().filter(is_local).count(),
            forwarded: self.forwarded,
            dropped: self.dropped,
        }
    }
}

fn candidates(addresses: &[SocketAddr]) -> Vec<IceCandidate> {
    addresses.iter().enumerate().map(|(place, at)| IceCandidate::new(place, *at)).collect()
}

fn transport_text(id: u64) -> String {
    format!("t{id}")
}

fn consumer_text(id: u64) -> String {
    format!("c{id}")
}

fn number(text: &str, prefix: char) -> Option<u64> {
    text.strip_prefix(prefix)?.parse().ok()
}
