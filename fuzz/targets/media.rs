//! What a client with a valid token may send: RTP and RTCP that are sealed with the keys of its handshake.
//!
//! A talker and a listener are connected once; each input is a list of packets and reports of both. What their own library
//! would not seal is sent as it is, as somebody could who knows an address and an SSRC but no key.
//! Whatever they say: no panic, and the listener gets nothing but well-formed packets of the one stream it consumes.

#![no_main]

use crosspatch::base::{BurstId, ChannelId, SessionId, SourceId, UserId};
use crosspatch::media::gates::Gates;
use crosspatch::media::sfu::{Direction, DtlsParameters, DtlsRole, Fingerprint, Sfu, SfuConfig};
use crosspatch_fuzz::{hmac_sha1, steps};
use dimpl::{Config, Dtls, Output, SrtpProfile};
use is::stun::{StunMessage, TransId};
use rtc_crypto::providers::AwsLcRsCrypto;
use rtc_rtp::header::Header;
use rtc_shared::marshal::{MarshalSize, Unmarshal};
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SSRC: u32 = 4_711;

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::new(Bench::new());
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| BENCH.with_borrow_mut(|bench| bench.run(data)));

/// A client's transport after its handshake.
struct Client {
    session: SessionId,
    transport: String,
    at: SocketAddr,
    out: Context,
    into: Context,
}

struct Bench {
    sfu: Sfu,
    gates: Arc<Gates>,
    now: Instant,
    talker: Client,
    listener: Client,
    source: SourceId,
    stream: u32,
    sequence: u16,
    bursts: u64,
}

impl Bench {
    fn new() -> Self {
        let gates = Arc::new(Gates::new());
        let config = SfuConfig { announced: vec![SocketAddr::from(([192, 0, 2, 1], 5000))] };
        let mut sfu = Sfu::new(config, gates.clone()).expect("a certificate");
        let mut now = Instant::now();
        let [talker, listener] = [1, 2].map(|number| connect(&mut sfu, number, &mut now));
        let channel = ChannelId::from("ops");
        let rtp = serde_json::json!({
            "codecs": [{ "mimeType": "audio/opus", "payloadType": 109, "clockRate": 48000, "channels": 2 }],
            "headerExtensions": [{ "uri": "urn:ietf:params:rtp-hdrext:ssrc-audio-level", "id": 3 }],
            "encodings": [{ "ssrc": SSRC }],
        });
        let rtp = serde_json::from_value(rtp).expect("RTP parameters");
        let source = sfu.produce(talker.session, &talker.transport, &channel, "audio", &rtp).expect("a producer");
        let (producer, capabilities) = (Sfu::channel_producer_id(&channel), sfu.router_capabilities());
        let consumer = sfu.consume(listener.session, &listener.transport, &channel, &producer, 0, &capabilities);
        let stream = consumer.expect("a consumer").rtp_parameters.encodings[0].ssrc.expect("its SSRC");
        sfu.add_local_listener(SessionId(3), &UserId::from("desk"), &channel, 0, Box::new(|_| {}));
        Bench { sfu, gates, now, talker, listener, source, stream, sequence: 0, bursts: 0 }
    }

    fn run(&mut self, data: &[u8]) {
        self.bursts += 1;
        let (channel, burst) = (ChannelId::from("ops"), BurstId(self.bursts));
        self.gates.open(&channel, burst, Some(self.source)).expect("the gate was shut");
        for (what, step, bytes) in steps(data) {
            let mut sent: Vec<(Vec<u8>, SocketAddr)> = Vec::new();
            let mut send = |packet: &[u8], to: SocketAddr| sent.push((packet.to_vec(), to));
            let from = if what & 1 == 0 { &mut self.talker } else { &mut self.listener };
            let mut packet = bytes.to_vec();
            let sealed = match what % 4 {
                0 | 1 if packet.len() >= 12 => {
                    // Fresh numbers, a small step on, so that the packet is no repetition.
                    self.sequence = self.sequence.wrapping_add(1 + u16::from(step & 15));
                    packet[0] = packet[0] & 0x3f | 0x80;
                    packet[2..4].copy_from_slice(&self.sequence.to_be_bytes());
                    packet[8..12].copy_from_slice(&SSRC.to_be_bytes());
                    let header = Header::unmarshal(&mut packet.as_slice());
                    let well_formed = header.is_ok_and(|header| header.marshal_size() <= packet.len());
                    if well_formed && step & 16 == 0 { from.out.encrypt_rtp(&packet).ok() } else { None }
                }
                2 | 3 if packet.len() >= 8 => {
                    packet[0] = packet[0] & 0x3f | 0x80;
                    packet[1] = 192 | packet[1] & 31;
                    packet[4..8].copy_from_slice(&u32::from(step & 7).to_be_bytes());
                    if let Some(named) = packet.get_mut(8..12).filter(|_| step & 8 != 0) {
                        named.copy_from_slice(&self.stream.to_be_bytes());
                    }
                    if step & 16 == 0 { from.out.encrypt_rtcp(&packet).ok() } else { None }
                }
                _ => None,
            };
            let at = from.at;
            let mut datagram = sealed.map_or(packet, |sealed| sealed.to_vec());
            self.sfu.handle_datagram(&mut datagram, at, self.now, &mut send);
            self.sfu.handle_timeout(self.now, &mut send);
            for (packet, to) in sent {
                assert_eq!(to, self.listener.at, "nobody hears themselves");
                if (192..=223).contains(&packet[1]) {
                    self.listener.into.decrypt_rtcp(&packet).expect("a report that the listener can open");
                } else {
                    let opened = self.listener.into.decrypt_rtp(&packet).expect("a packet that the listener can open");
                    assert_eq!(opened[8..12], self.stream.to_be_bytes(), "the one stream that was consumed");
                }
            }
        }
        self.gates.shut(&channel, burst).expect("it was open");
        drop(self.sfu.stats());
    }
}

/// Checks, shakes hands, and keeps the keys.
fn connect(sfu: &mut Sfu, number: u8, now: &mut Instant) -> Client {
    let session = SessionId(u64::from(number));
    let at = SocketAddr::from(([10, 0, 0, number], 1_000));
    let made = sfu.create_transport(session, &UserId::from(format!("u{number}")), Direction::Send, *now);
    let made = made.expect("the first transport");
    let (name, password) = (format!("{}:peer", made.ice_parameters.username_fragment), made.ice_parameters.password);
    let request = StunMessage::binding_request(&name, TransId::new(), true, 1, 1, true);
    let mut buffer = vec![0; 4096];
    let length = request.to_bytes(Some(password.as_bytes()), &mut buffer, hmac_sha1).expect("room for a check");
    sfu.handle_datagram(&mut buffer[..length], at, *now, &mut |_, _| {});
    let certificate = dimpl::certificate::generate_self_signed_certificate().expect("a certificate");
    let fingerprint = Fingerprint { algorithm: "sha-256".into(), value: certificate.fingerprint_str() };
    let mut dtls = Dtls::new_12(Arc::new(Config::default()), certificate, *now);
    dtls.set_active(true);
    let parameters = DtlsParameters { role: DtlsRole::Client, fingerprints: vec![fingerprint] };
    sfu.connect_transport(session, &made.id, &parameters, *now, &mut |_, _| {}).expect("it connects once");
    for _ in 0..100 {
        dtls.handle_timeout(*now).expect("the handshake goes on");
        let (mut packets, mut keys) = (Vec::new(), None);
        loop {
            match dtls.poll_output(&mut buffer) {
                Output::Packet(packet) => packets.push(packet.to_vec()),
                Output::KeyingMaterial(material, profile) => keys = Some(contexts(&material, profile)),
                Output::Timeout(_) => break,
                _ => {}
            }
        }
        let mut answers = Vec::new();
        for mut packet in packets {
            sfu.handle_datagram(&mut packet, at, *now, &mut |answer, _| answers.push(answer.to_vec()));
        }
        if let Some((out, into)) = keys {
            return Client { session, transport: made.id, at, out, into };
        }
        for answer in answers {
            dtls.handle_packet(&answer).expect("the gateway's answer is good");
        }
        *now += Duration::from_millis(5);
        sfu.handle_timeout(*now, &mut |_, _| {});
    }
    panic!("the handshake does not end");
}

/// The client's keys, ours first (RFC 5764).
fn contexts(material: &[u8], profile: SrtpProfile) -> (Context, Context) {
    assert_eq!(profile, SrtpProfile::AEAD_AES_256_GCM, "the best that both have");
    let profile = ProtectionProfile::AeadAes256Gcm;
    let (keys, salts) = material.split_at(2 * profile.key_len());
    let (key, salt) = (profile.key_len(), profile.salt_len());
    let context = |side: usize| {
        let (key, salt) = (&keys[side * key..][..key], &salts[side * salt..][..salt]);
        Context::new(key, salt, profile, None, None, &AwsLcRsCrypto).expect("keys of the right length")
    };
    (context(0), context(1))
}
