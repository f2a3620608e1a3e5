//! One transport of a client: its addresses, its DTLS handshake, its keys and its streams.

use super::SendFn;
use super::parameters::{Direction, DtlsParameters, DtlsRole, IceParameters};
use super::srtp::Keys;
use super::stream::Stream;
use super::stun;
use crate::base::{ChannelId, SessionId, SourceId, UserId};
use dimpl::{Config, Dtls, DtlsCertificate, Output};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Without a check for so long, the client no longer consents to receive (RFC 7675).
const CONSENT: Duration = Duration::from_secs(30);
/// Addresses of one client that are remembered at a time.
const ADDRESSES: usize = 8;
/// The largest output of the DTLS library that is accepted.
const LARGEST_DTLS: usize = 16 * 1024;

/// What the gateway shares between all handshakes.
pub(super) struct Identity {
    pub config: Arc<Config>,
    pub certificate: DtlsCertificate,
}

/// A listener's stream and what it was made for.
pub(super) struct Consumer {
    pub producer_id: String,
    pub channel: ChannelId,
    pub stream: Stream,
}

pub(super) struct Transport {
    pub session: SessionId,
    pub user: UserId,
    pub direction: Direction,
    pub ice: IceParameters,
    /// The credentials before an ICE restart, until the new ones are used.
    pub previous_ice: Option<IceParameters>,
    pub addresses: Vec<SocketAddr>,
    pub keys: Option<Keys>,
    /// The talkers on this transport, by SSRC.
    pub sources: HashMap<u32, SourceId>,
    pub consumers: BTreeMap<u64, Consumer>,
    pub next_mid: u32,
    /// When the DTLS library wants to be called.
    pub due: Option<Instant>,
    remote: Option<SocketAddr>,
    dtls: Option<Box<Dtls>>,
    fingerprint: String,
    peer_is_genuine: bool,
    /// The last sign of life; `None` before the client was expected to send any.
    seen: Option<Instant>,
}

/// What a verified check changed.
pub(super) struct Checked {
    /// The transport did not know this address.
    pub is_new: bool,
    /// The address that was dropped for it.
    pub forgotten: Option<SocketAddr>,
    /// The fragment that is no longer valid.
    pub retired: Option<String>,
}

impl Transport {
    pub fn new(session: SessionId, user: &UserId, direction: Direction) -> Self {
        Transport {
            session,
            user: user.clone(),
            direction,
            ice: stun::credentials(),
            previous_ice: None,
            addresses: Vec::new(),
            keys: None,
            sources: HashMap::new(),
            consumers: BTreeMap::new(),
            next_mid: 0,
            due: None,
            remote: None,
            dtls: None,
            fingerprint: String::new(),
            peer_is_genuine: false,
            seen: None,
        }
    }

    /// Where the client receives, if it can receive audio by now.
    pub fn listening_at(&self) -> Option<SocketAddr> {
        self.remote.filter(|_| self.keys.is_some())
    }

    pub fn is_connecting(&self) -> bool {
        self.dtls.is_some()
    }

    pub fn lost_consent(&self, now: Instant) -> bool {
        self.seen.is_some_and(|seen| now.saturating_duration_since(seen) > CONSENT)
    }

    /// Takes the client's certificate fingerprint and role, and begins if its address is known.
    pub fn connect(
        &mut self,
        identity: &Identity,
        fingerprint: &str,
        dtls: &DtlsParameters,
        now: Instant,
        send: SendFn<'_>,
    ) -> Result<(), String> {
        let (config, certificate) = (identity.config.clone(), identity.certificate.clone());
        let engine = match dtls.role {
            DtlsRole::Server => {
                let mut engine = Dtls::new_12(config, certificate, now);
                engine.set_active(true);
                engine
            }
            DtlsRole::Auto | DtlsRole::Client => {
                let mut engine = Dtls::new_auto(config, certificate, now);
                engine.set_active(false);
                engine
            }
        };
        self.dtls = Some(Box::new(engine));
        self.fingerprint = fingerprint.to_owned();
        self.seen = Some(now);
        self.drive(now, send)
    }

    /// Answers a check. `None` if it proves nothing.
    pub fn check(
        &mut self,
        datagram: &[u8],
        fragment: &str,
        from: SocketAddr,
        now: Instant,
        send: SendFn<'_>,
    ) -> Option<Checked> {
        let is_current = fragment == self.ice.username_fragment;
        let ice = if is_current { &self.ice } else { self.previous_ice.as_ref()? };
        let check = stun::answer(datagram, from, &ice.password)?;
        send(&check.reply, from);
        if !check.genuine {
            return None;
        }
        self.seen = Some(now);
        let (is_new, forgotten) = self.remember(from);
        if self.remote.is_none() || check.nominated {
            // The last nomination wins: a client that changes networks is followed at once.
            self.remote = Some(from);
        }
        let retired = self.previous_ice.take_if(|_| is_current);
        Some(Checked { is_new, forgotten, retired: retired.map(|ice| ice.username_fragment) })
    }

    fn remember(&mut self, from: SocketAddr) -> (bool, Option<SocketAddr>) {
        if self.addresses.contains(&from) {
            return (false, None);
        }
        let mut forgotten = None;
        if self.addresses.len() == ADDRESSES {
            let oldest = self.addresses.iter().position(|at| Some(*at) != self.remote);
            forgotten = oldest.map(|place| self.addresses.remove(place));
        }
        self.addresses.push(from);
        (true, forgotten)
    }

    /// Fresh credentials; the old ones stay valid until these are used. Returns a fragment that is
    /// no longer valid.
    pub fn restart_ice(&mut self) -> Option<String> {
        let before = std::mem::replace(&mut self.ice, stun::credentials());
        if self.previous_ice.is_some() {
            return Some(before.username_fragment);
        }
        self.previous_ice = Some(before);
        None
    }

    pub fn handle_dtls(&mut self, datagram: &[u8], now: Instant, send: SendFn<'_>) -> Result<(), String> {
        let Some(dtls) = self.dtls.as_mut() else {
            return Ok(());
        };
        let handled = dtls.handle_timeout(now).and_then(|()| dtls.handle_packet(datagram));
        handled.map_err(dtls_failed)?;
        self.poll(send)
    }

    /// Lets the DTLS engine do what is due; nothing starts before the client's address is known.
    pub fn drive(&mut self, now: Instant, send: SendFn<'_>) -> Result<(), String> {
        let Some(dtls) = self.dtls.as_mut().filter(|_| self.remote.is_some()) else {
            return Ok(());
        };
        dtls.handle_timeout(now).map_err(dtls_failed)?;
        self.poll(send)
    }

    /// Says good-bye to the client.
    pub fn close(&mut self, mut send: impl FnMut(&[u8], SocketAddr)) {
        if let (Some(dtls), Some(to)) = (self.dtls.as_mut(), self.remote)
            && dtls.close().is_ok()
        {
            let mut buffer = [0; 2048];
            while let Output::Packet(packet) = dtls.poll_output(&mut buffer) {
                send(packet, to);
            }
        }
    }

    fn poll(&mut self, send: SendFn<'_>) -> Result<(), String> {
        let (Some(dtls), Some(to)) = (self.dtls.as_mut(), self.remote) else {
            return Ok(());
        };
        let mut buffer = vec![0; 2048];
        loop {
            match dtls.poll_output(&mut buffer) {
                Output::Packet(packet) => send(packet, to),
                Output::BufferTooSmall { needed } if needed <= LARGEST_DTLS => buffer.resize(needed, 0),
                Output::BufferTooSmall { .. } => {
                    return Err("the client's dtls messages are too large; use a smaller certificate".to_owned());
                }
                Output::PeerCert(der) => {
                    let shown = dimpl::certificate::calculate_fingerprint(der);
                    let shown = dimpl::certificate::format_fingerprint(&shown);
                    if !shown.eq_ignore_ascii_case(&self.fingerprint) {
                        return Err(format!(
                            "the client's certificate has the fingerprint {shown}, but {} was announced; announce the certificate in use",
                            self.fingerprint
                        ));
                    }
                    self.peer_is_genuine = true;
                }
                Output::KeyingMaterial(material, profile) => {
                    if !self.peer_is_genuine {
                        return Err("the client showed no certificate; send one".to_owned());
                    }
                    let keys = Keys::new(profile, &material, dtls.is_active());
                    self.keys = Some(keys.ok_or("the srtp profile is not supported; offer another")?);
                }
                Output::CloseNotify => return Err("the client closed the connection; connect anew".to_owned()),
                Output::Timeout(at) => {
                    self.due = Some(at);
                    return Ok(());
                }
                // Nothing else matters for audio, and the enum may grow.
                Output::Connected | Output::ApplicationData(_) | _ => {}
            }
        }
    }
}

fn dtls_failed(error: dimpl::Error) -> String {
    format!("the dtls handshake failed: {error}; connect anew")
}
