//! Transports that cost next to nothing: ICE, DTLS and SRTP straight from their libraries, one socket
//! each, no task, no queue. For benchmarks, where hundreds of clients share a machine with what they measure.

use super::client::random;
use super::signaling::Signaling;
use anyhow::{Context, Result, bail, ensure};
use dimpl::{Config, Dtls, DtlsCertificate, Output, SrtpProfile};
use is::stun::{StunMessage, TransId};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use rtc_crypto::providers::AwsLcRsCrypto;
use rtc_crypto::{HmacAlgorithm, RTCCrypto};
use rtc_srtp::context::Context as Srtp;
use rtc_srtp::protection_profile::ProtectionProfile;
use serde_json::{Value, json};
use std::io::IoSliceMut;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long ICE and DTLS may take together.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a reply is waited for before the check is sent again.
const RETRY: Duration = Duration::from_millis(100);

/// The certificate that all lean clients of a process show.
#[derive(Clone)]
pub struct Identity {
    config: Arc<Config>,
    certificate: DtlsCertificate,
}

impl Identity {
    /// A fresh one.
    pub fn new() -> Result<Self> {
        let certificate = dimpl::certificate::generate_self_signed_certificate().context("no certificate")?;
        Ok(Identity { config: Arc::new(Config::default()), certificate })
    }
}

/// A connected transport: a socket and the keys to it.
pub struct Lean {
    /// The client's own end.
    pub socket: UdpSocket,
    /// The transport's id, for `produce` and `consume`.
    pub id: String,
    /// What the handshake agreed on.
    pub profile: ProtectionProfile,
    /// A check that renews the consent to send; due at least every 30 s.
    pub check: Vec<u8>,
    out: Srtp,
    into: Srtp,
}

/// Makes a transport in `direction` and connects it.
pub async fn connect(signaling: &mut Signaling, channel: &str, direction: &str, identity: &Identity) -> Result<Lean> {
    let transport = create(signaling, channel, direction).await?;
    connect_to(signaling, transport, identity).await
}

/// Makes a transport in `direction`: the reply to `create-transport`.
pub async fn create(signaling: &mut Signaling, channel: &str, direction: &str) -> Result<Value> {
    signaling.ask("create-transport", json!({ "channelId": channel, "direction": direction })).await
}

/// Connects a transport that was made before.
pub async fn connect_to(signaling: &mut Signaling, transport: Value, identity: &Identity) -> Result<Lean> {
    let fingerprint = json!({ "algorithm": "sha-256", "value": identity.certificate.fingerprint_str() });
    let dtls = json!({ "role": "client", "fingerprints": [fingerprint] });
    let request = json!({ "transportId": transport["id"], "dtlsParameters": dtls });
    signaling.ask("connect-transport", request).await?;
    let identity = identity.clone();
    tokio::task::spawn_blocking(move || Lean::shake_hands(&transport, &identity)).await?
}

impl Lean {
    fn shake_hands(transport: &Value, identity: &Identity) -> Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned).context("create-transport left something out");
        let candidate = &transport["iceCandidates"][0];
        let at: SocketAddr = format!("{}:{}", text(&candidate["address"])?, candidate["port"]).parse()?;
        let ice = &transport["iceParameters"];
        let check = check(&text(&ice["usernameFragment"])?, &text(&ice["password"])?)?;
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(at)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        socket.set_read_timeout(Some(RETRY))?;

        let mut buffer = [0; 2048];
        let deadline = Instant::now() + CONNECT;
        socket.send(&check)?;
        while !socket.recv(&mut buffer).is_ok_and(|length| is_answer(&buffer[..length])) {
            ensure!(Instant::now() < deadline, "no check was answered within {CONNECT:?}");
            socket.send(&check)?;
        }
        let mut dtls = Dtls::new_auto(identity.config.clone(), identity.certificate.clone(), Instant::now());
        dtls.set_active(true);
        let (profile, material) = loop {
            dtls.handle_timeout(Instant::now())?;
            if let Some(keys) = drain(&mut dtls, &socket)? {
                break keys;
            }
            ensure!(Instant::now() < deadline, "the handshake did not end within {CONNECT:?}");
            if let Ok(length) = socket.recv(&mut buffer)
                && (20..64).contains(&buffer[0])
            {
                dtls.handle_packet(&buffer[..length])?;
            }
        };
        let profile = match profile {
            SrtpProfile::AES128_CM_SHA1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
            SrtpProfile::AEAD_AES_128_GCM => ProtectionProfile::AeadAes128Gcm,
            SrtpProfile::AEAD_AES_256_GCM => ProtectionProfile::AeadAes256Gcm,
            other => bail!("the srtp profile {other:?} is not known here"),
        };
        let (out, into) = contexts(profile, &material)?;
        Ok(Lean { socket, id: text(&transport["id"])?, profile, check, out, into })
    }

    /// Encrypts and sends an RTP packet.
    pub fn send_rtp(&mut self, packet: &[u8]) -> Result<()> {
        let packet = self.out.encrypt_rtp(packet)?;
        self.socket.send(&packet)?;
        Ok(())
    }

    /// The next datagram and when the kernel got it, by the system's clock; `None` if there is none.
    pub fn receive(&self) -> Result<Option<(Vec<u8>, Duration)>> {
        let mut buffer = [0; 2048];
        let mut control = nix::cmsg_space!(TimeSpec);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let message =
            match recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT) {
                Ok(message) => message,
                Err(nix::errno::Errno::EAGAIN) => return Ok(None),
                Err(e) => return Err(e.into()),
            };
        let stamp = message.cmsgs()?.find_map(|control| {
            if let ControlMessageOwned::ScmTimestampns(stamp) = control { Some(Duration::from(stamp)) } else { None }
        });
        let (length, stamp) = (message.bytes, stamp.context("the kernel gave no stamp")?);
        Ok(Some((buffer[..length].to_vec(), stamp)))
    }

    /// Opens a datagram that came in; `None` if it is anything but a genuine RTP packet.
    pub fn open_rtp(&mut self, datagram: &[u8]) -> Option<impl AsRef<[u8]> + use<>> {
        // RFC 7983 tells RTP from the rest, RFC 5761 from RTCP.
        let is_rtp = datagram.first().is_some_and(|first| first >> 6 == 2);
        let is_rtcp = datagram.get(1).is_some_and(|kind| (192..224).contains(kind));
        if !is_rtp || is_rtcp {
            return None;
        }
        self.into.decrypt_rtp(datagram).ok()
    }
}

/// The first byte of an Opus packet of 20 ms.
pub const OPUS_20_MS: u8 = 0xf8;

/// An RTP packet with an audio level, before it is encrypted.
pub fn rtp(ssrc: u32, number: u64, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x90, 111];
    packet.extend((number as u16).to_be_bytes());
    packet.extend((number as u32).wrapping_mul(960).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0xbe, 0xde, 0, 1, 0xa0, 0x80 | 20, 0, 0]);
    packet.extend(payload);
    packet
}

/// Makes the producer of a channel.
pub async fn produce(signaling: &mut Signaling, voice: &Lean, channel: &str, ssrc: u32) -> Result<()> {
    let rtp = json!({
        "codecs": [{ "mimeType": "audio/opus", "payloadType": 111, "clockRate": 48_000, "channels": 2 }],
        "headerExtensions": [{ "uri": "urn:ietf:params:rtp-hdrext:ssrc-audio-level", "id": 10 }],
        "encodings": [{ "ssrc": ssrc }],
    });
    let request = json!({ "transportId": voice.id, "kind": "audio", "rtpParameters": rtp, "channelId": channel });
    signaling.ask("produce", request).await.map(drop)
}

/// Makes a consumer of a channel on a transport; a second one takes its place.
pub async fn consume(signaling: &mut Signaling, transport: &str, channel: &str) -> Result<Value> {
    let codec = json!({
        "kind": "audio", "mimeType": "audio/opus", "payloadType": 111, "clockRate": 48_000, "channels": 2,
    });
    let request = json!({
        "channelId": channel,
        "transportId": transport,
        "producerId": format!("channel:{channel}"),
        "rtpCapabilities": { "codecs": [codec] },
    });
    signaling.ask("consume", request).await
}

/// Keys both ways from the handshake's material, ours first, as of the side that opened it (RFC 5764).
pub fn contexts(profile: ProtectionProfile, material: &[u8]) -> Result<(Srtp, Srtp)> {
    let (key, salt) = (profile.key_len(), profile.salt_len());
    ensure!(material.len() >= 2 * (key + salt), "the handshake left too few keys");
    let (keys, salts) = material.split_at(2 * key);
    let context = |key: &[u8], salt: &[u8]| Srtp::new(key, salt, profile, None, None, &AwsLcRsCrypto);
    let ours = context(&keys[..key], &salts[..salt])?;
    let theirs = context(&keys[key..], &salts[salt..2 * salt])?;
    Ok((ours, theirs))
}

/// Sends what the handshake wants to send; the keys once it is through.
fn drain(dtls: &mut Dtls, socket: &UdpSocket) -> Result<Option<(SrtpProfile, Vec<u8>)>> {
    let mut buffer = [0; 4096];
    let mut keys = None;
    loop {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the enum is non-exhaustive")]
        match dtls.poll_output(&mut buffer) {
            Output::Packet(packet) => drop(socket.send(packet)?),
            Output::KeyingMaterial(material, profile) => keys = Some((profile, material.to_vec())),
            Output::Timeout(_) => return Ok(keys),
            Output::BufferTooSmall { needed } => bail!("a dtls message of {needed} bytes"),
            Output::CloseNotify => bail!("the gateway ended the handshake"),
            // The fingerprint is not checked: nobody else is on this machine's loopback.
            _ => {}
        }
    }
}

fn check(fragment: &str, password: &str) -> Result<Vec<u8>> {
    let name = format!("{fragment}:lean");
    let request = StunMessage::binding_request(&name, TransId::new(), true, u64::from_ne_bytes(random()), 1, true);
    let mut buffer = [0; 256];
    let length = request.to_bytes(Some(password.as_bytes()), &mut buffer, hmac_sha1).context("no check")?;
    Ok(buffer[..length].to_vec())
}

fn is_answer(datagram: &[u8]) -> bool {
    StunMessage::parse(datagram).is_ok_and(|message| message.is_successful_binding_response())
}

fn hmac_sha1(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    let mut tag = [0; 20];
    AwsLcRsCrypto
        .new_hmac(HmacAlgorithm::Sha1, key)
        .and_then(|mut mac| mac.sign(parts, &mut tag))
        .expect("the provider has HMAC-SHA1");
    tag
}
