//! The SFU against clients in memory.

use super::srtp::Keys;
use super::*;
use ::is::stun::{StunMessage, TransId};
use dimpl::{Dtls, Output, SrtpProfile};

const SSRC: u32 = 4_711;

/// One client transport: ICE controlling, DTLS, SRTP.
struct Client {
    session: SessionId,
    transport: String,
    at: SocketAddr,
    dtls: Dtls,
    keys: Option<Keys>,
    profile: Option<SrtpProfile>,
    heard: Vec<Vec<u8>>,
    reports: usize,
}

#[derive(Clone, Copy)]
enum Version {
    V12,
    Auto,
}

struct Bench {
    sfu: Sfu,
    gates: Arc<Gates>,
    now: Instant,
    clients: Vec<Client>,
}

fn channel(name: &str) -> ChannelId {
    ChannelId::from(name)
}

fn rtp_parameters(ssrc: u32) -> RtpParameters {
    serde_json::from_value(serde_json::json!({
        "codecs": [{"mimeType": "audio/opus", "payloadType": 109, "clockRate": 48000, "channels": 2}],
        "headerExtensions": [{"uri": "urn:ietf:params:rtp-hdrext:ssrc-audio-level", "id": 3}],
        "encodings": [{"ssrc": ssrc, "dtx": false}],
        "rtcp": {"cname": "x"}
    }))
    .unwrap()
}

fn rtp(ssrc: u32, sequence: u16, level: u8) -> Vec<u8> {
    let mut packet = vec![0x90, 109];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 960).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0xbe, 0xde, 0, 1, 0x30, level, 0, 0]);
    packet.extend(b"opus audio");
    packet
}

fn sequence(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[2], packet[3]])
}

impl Bench {
    fn new() -> Self {
        let gates = Arc::new(Gates::new());
        let config = SfuConfig { announced: vec!["192.0.2.1:5000".parse().unwrap()] };
        let sfu = Sfu::new(config, gates.clone()).unwrap();
        Bench { sfu, gates, now: Instant::now(), clients: Vec::new() }
    }

    /// Connects a transport; returns its place in `clients`.
    fn client(&mut self, session: u64, user: &str, version: Version, active: bool) -> usize {
        let certificate = dimpl::certificate::generate_self_signed_certificate().unwrap();
        let fingerprint = certificate.fingerprint_str().to_lowercase();
        self.client_with(session, user, version, active, certificate, fingerprint)
    }

    fn client_with(
        &mut self,
        session: u64,
        user: &str,
        version: Version,
        active: bool,
        certificate: dimpl::DtlsCertificate,
        value: String,
    ) -> usize {
        let session = SessionId(session);
        let made = self.sfu.create_transport(session, &UserId::from(user), Direction::Send, self.now).unwrap();
        let config = Arc::new(dimpl::Config::default());
        let mut dtls = match version {
            Version::V12 => Dtls::new_12(config, certificate, self.now),
            Version::Auto => Dtls::new_auto(config, certificate, self.now),
        };
        dtls.set_active(active);
        let place = self.clients.len();
        let at = SocketAddr::from(([10, 0, 0, 1], 1_000 + place as u16));
        let role = if active { DtlsRole::Client } else { DtlsRole::Server };
        let parameters =
            DtlsParameters { role, fingerprints: vec![Fingerprint { algorithm: "sha-256".into(), value }] };
        self.clients.push(Client {
            session,
            transport: made.id.clone(),
            at,
            dtls,
            keys: None,
            profile: None,
            heard: Vec::new(),
            reports: 0,
        });
        let ice = made.ice_parameters;
        assert!(!self.check(&ice.username_fragment, "wrong", at));
        assert!(self.check(&ice.username_fragment, &ice.password, at));
        let id = made.id;
        self.run(|sfu, now, send| sfu.connect_transport(session, &id, &parameters, now, send).unwrap());
        self.clients[place].dtls.handle_timeout(self.now).unwrap();
        self.settle();
        place
    }

    /// Sends a binding request; true if it was answered with success.
    fn check(&mut self, fragment: &str, password: &str, at: SocketAddr) -> bool {
        let name = format!("{fragment}:peer");
        let request = StunMessage::binding_request(&name, TransId::new(), true, 1, 1, true);
        let mut buffer = [0; 256];
        let n = request.to_bytes(Some(password.as_bytes()), &mut buffer, stun::hmac_sha1).unwrap();
        let mut answers = Vec::new();
        self.sfu.handle_datagram(&mut buffer[..n], at, self.now, &mut |p, to| {
            answers.push((p.to_vec(), to));
        });
        let answer = answers.iter().find(|(p, to)| p[0] < 4 && *to == at);
        answer.is_some_and(|(p, _)| {
            let message = StunMessage::parse(p).unwrap();
            message.is_successful_binding_response() && message.mapped_address() == Some(at)
        })
    }

    /// Runs something on the SFU and delivers what it sends.
    fn run<T>(&mut self, what: impl FnOnce(&mut Sfu, Instant, SendFn<'_>) -> T) -> T {
        let mut sent = Vec::new();
        let result = what(&mut self.sfu, self.now, &mut |p, to| sent.push((p.to_vec(), to)));
        for (packet, to) in sent {
            if let Some(client) = self.clients.iter_mut().find(|client| client.at == to) {
                client.receive(&packet);
            }
        }
        result
    }

    /// Lets the handshakes finish.
    fn settle(&mut self) {
        for _ in 0..200 {
            for place in 0..self.clients.len() {
                let at = self.clients[place].at;
                for mut packet in self.clients[place].poll() {
                    self.run(|sfu, now, send| sfu.handle_datagram(&mut packet, at, now, send));
                }
            }
            self.now += Duration::from_millis(5);
            self.run(|sfu, now, send| sfu.handle_timeout(now, send));
        }
    }

    fn produce(&mut self, place: usize, on: &str) -> SourceId {
        let client = &self.clients[place];
        let (session, id) = (client.session, client.transport.clone());
        self.sfu.produce(session, &id, &channel(on), "audio", &rtp_parameters(SSRC)).unwrap()
    }

    fn consume(&mut self, place: usize, on: &str, join_rank: u64) -> ConsumerParameters {
        let client = &self.clients[place];
        let (session, id, on) = (client.session, client.transport.clone(), channel(on));
        let producer = Sfu::channel_producer_id(&on);
        let capabilities = self.sfu.router_capabilities();
        self.sfu.consume(session, &id, &on, &producer, join_rank, &capabilities).unwrap()
    }

    /// Gives everybody keys of `profile`: the test clients' DTLS cannot be told what to offer.
    fn rekey(&mut self, profile: SrtpProfile) {
        let material: [u8; 88] = stun::random();
        for client in &mut self.clients {
            let id = number(&client.transport, 't').unwrap();
            let transport = self.sfu.transports.get_mut(&id).unwrap();
            transport.keys = Keys::new(profile, &material, false);
            client.keys = Keys::new(profile, &material, true);
        }
    }

    /// One packet of a talker, 20 ms later.
    fn talk(&mut self, place: usize, sequence: u16) {
        self.now += Duration::from_millis(20);
        let client = &mut self.clients[place];
        let at = client.at;
        let packet = client.keys.as_mut().unwrap().protect(&rtp(SSRC, sequence, 33)).unwrap();
        let mut packet = packet.as_ref().to_vec();
        self.run(|sfu, now, send| sfu.handle_datagram(&mut packet, at, now, send));
    }

    fn open(&self, on: &str, burst: u64, source: SourceId) {
        self.gates.open(&channel(on), BurstId(burst), Some(source)).unwrap();
    }
}

impl Client {
    fn receive(&mut self, packet: &[u8]) {
        match Kind::of(packet) {
            Kind::Dtls => drop(self.dtls.handle_packet(packet)),
            Kind::Rtp { .. } => {
                let opened = self.keys.as_mut().unwrap().open(packet).unwrap();
                self.heard.push(opened.as_ref().to_vec());
            }
            Kind::Rtcp => {
                self.keys.as_mut().unwrap().open_rtcp(packet).unwrap();
                self.reports += 1;
            }
            Kind::Stun | Kind::Other => {}
        }
    }

    fn poll(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let mut buffer = vec![0; 4096];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(packet) => packets.push(packet.to_vec()),
                Output::KeyingMaterial(material, profile) => {
                    self.profile = Some(profile);
                    self.keys = Keys::new(profile, &material, self.dtls.is_active());
                }
                Output::Timeout(_) => return packets,
                Output::BufferTooSmall { .. }
                | Output::Connected
                | Output::PeerCert(_)
                | Output::ApplicationData(_)
                | Output::CloseNotify
                | _ => {}
            }
        }
    }
}

fn talk_and_listen(version: Version, active: bool, forced: Option<SrtpProfile>) -> SrtpProfile {
    let mut bench = Bench::new();
    let (ann, ben) = (bench.client(1, "ann", version, active), bench.client(2, "ben", version, active));
    if let Some(profile) = forced {
        bench.rekey(profile);
    }
    let source = bench.produce(ann, "ops");
    let consumer = bench.consume(ben, "ops", 0);
    bench.consume(ann, "ops", 0);
    bench.talk(ann, 65_533);
    assert_eq!(bench.sfu.stats().dropped.gate_shut, 1, "no floor, no audio");
    bench.open("ops", 1, source);
    for step in 0..6_u16 {
        bench.talk(ann, 65_534_u16.wrapping_add(step));
    }
    let heard = &bench.clients[ben].heard;
    assert_eq!(heard.len(), 6);
    let ssrc = consumer.rtp_parameters.encodings[0].ssrc.unwrap();
    for (step, packet) in heard.iter().enumerate() {
        assert_eq!(rtp::ssrc(packet), Some(ssrc));
        assert_eq!(sequence(packet), sequence(&heard[0]).wrapping_add(step as u16));
        let read = Packet::parse(packet).unwrap();
        assert_eq!((read.payload, read.level(Some(10))), (&b"opus audio"[..], 33));
        assert_eq!(packet[1] & 0x80 != 0, step == 0, "marker on the first packet only");
    }
    assert!(bench.clients[ann].heard.is_empty(), "nobody hears themselves");
    let count = bench.gates.shut(&channel("ops"), BurstId(1)).unwrap();
    assert_eq!((count.received, count.forwarded, count.after_shut), (6, 6, 0));
    bench.talk(ann, 10);
    assert_eq!(bench.clients[ben].heard.len(), 6);
    bench.now += TICK;
    bench.run(|sfu, now, send| sfu.handle_timeout(now, send));
    assert_eq!(bench.clients[ben].reports, 1);
    bench.clients[ben].profile.unwrap()
}

#[test]
fn dtls_1_2_with_gcm() {
    assert_eq!(talk_and_listen(Version::V12, true, None), SrtpProfile::AEAD_AES_256_GCM);
}

#[test]
fn the_newest_dtls_that_both_know() {
    talk_and_listen(Version::Auto, true, None);
}

#[test]
fn the_gateway_can_open_the_handshake() {
    talk_and_listen(Version::V12, false, None);
}

#[test]
fn every_srtp_profile() {
    for profile in SrtpProfile::ALL {
        talk_and_listen(Version::V12, true, Some(*profile));
    }
}

#[test]
fn talkers_change_within_one_stream() {
    let mut bench = Bench::new();
    let places = [(1, "ann"), (2, "ben"), (3, "cho")].map(|(s, u)| bench.client(s, u, Version::V12, true));
    let [ann, ben, cho] = places;
    let (first, second) = (bench.produce(ann, "ops"), bench.produce(ben, "ops"));
    bench.consume(cho, "ops", 0);
    for round in 0..4_u64 {
        let (source, place) = if round % 2 == 0 { (first, ann) } else { (second, ben) };
        bench.open("ops", round + 1, source);
        for step in 0..3 {
            bench.talk(place, 100 + 1_000 * round as u16 + step);
        }
        bench.gates.shut(&channel("ops"), BurstId(round + 1));
    }
    let heard = &bench.clients[cho].heard;
    assert_eq!(heard.len(), 12);
    for pair in heard.windows(2) {
        assert_eq!(sequence(&pair[1]), sequence(&pair[0]).wrapping_add(1));
        assert_eq!(rtp::ssrc(&pair[0]), rtp::ssrc(&pair[1]));
    }
}

#[test]
fn one_copy_for_each_session_on_the_channel_joined_first() {
    let mut bench = Bench::new();
    let (ann, ben) = (bench.client(1, "ann", Version::V12, true), bench.client(2, "ben", Version::V12, true));
    let source = bench.produce(ann, "ops");
    let late = bench.consume(ben, "ops", 9);
    let early = bench.consume(ben, "medical", 4);
    let (tell, told) = std::sync::mpsc::channel();
    for (name, rank) in [("ops", 2), ("medical", 1)] {
        let tell = tell.clone();
        let sink = Box::new(move |frame: LocalFrame<'_>| tell.send(frame.channel.clone()).unwrap());
        bench.sfu.add_local_listener(SessionId(8), &UserId::from("desk"), &channel(name), rank, sink);
    }
    bench.open("ops", 1, source);
    bench.open("medical", 1, source);
    bench.talk(ann, 1);
    let ssrc = |p: &ConsumerParameters| p.rtp_parameters.encodings[0].ssrc;
    assert_eq!(bench.clients[ben].heard.len(), 1);
    assert_eq!(rtp::ssrc(&bench.clients[ben].heard[0]), ssrc(&early));
    bench.gates.shut(&channel("medical"), BurstId(1));
    bench.talk(ann, 2);
    assert_eq!(rtp::ssrc(&bench.clients[ben].heard[1]), ssrc(&late));
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [channel("medical"), channel("ops")]);
}

#[test]
fn a_desk_is_heard_and_leaves() {
    let mut bench = Bench::new();
    let ben = bench.client(2, "ben", Version::V12, true);
    bench.consume(ben, "ops", 0);
    let desk = bench.sfu.add_local_source(SessionId(8), &UserId::from("desk"));
    bench.open("ops", 1, desk);
    let frame = Frame { payload: b"opus", timestamp: 960, sequence: 1, level: 20 };
    bench.run(|sfu, now, send| sfu.local_frame(desk, frame, now, send));
    assert_eq!(bench.clients[ben].heard.len(), 1);
    assert_eq!(bench.sfu.source_last_packet(desk), Some(bench.now));
    bench.sfu.leave(SessionId(2), &channel("ops"));
    let frame = Frame { sequence: 2, ..frame };
    bench.run(|sfu, now, send| sfu.local_frame(desk, frame, now, send));
    assert_eq!(bench.clients[ben].heard.len(), 1);
    assert_eq!(bench.sfu.close_session(SessionId(8)), [desk]);
    assert!(bench.sfu.close_session(SessionId(2)).is_empty());
    assert!(bench.sfu.ears.is_empty() && bench.sfu.transports.is_empty());
    assert!(bench.sfu.by_address.is_empty() && bench.sfu.by_fragment.is_empty());
}

#[test]
fn garbage_is_counted_and_harmless() {
    let mut bench = Bench::new();
    let ann = bench.client(1, "ann", Version::V12, true);
    bench.produce(ann, "ops");
    let (known, stranger) = (bench.clients[ann].at, "203.0.113.9:9".parse().unwrap());
    let mut state = 1_u32;
    for length in 0..600_usize {
        let mut datagram: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(length % 120)
        .collect();
        if let Some(first) = datagram.first_mut().filter(|_| length % 2 == 0) {
            *first = [0, 22, 128, 144][length / 2 % 4];
        }
        for from in [known, stranger] {
            bench.run(|sfu, now, send| sfu.handle_datagram(&mut datagram, from, now, send));
        }
    }
    let mut forged = rtp(SSRC, 5, 0);
    bench.run(|sfu, now, send| sfu.handle_datagram(&mut forged, known, now, send));
    let dropped = bench.sfu.stats().dropped;
    assert!(dropped.unknown_address > 0 && dropped.bad_stun > 0 && dropped.malformed > 0);
    assert!(dropped.unannounced > 0 && dropped.forged > 0);
    assert!(bench.sfu.poll_event().is_none());
    bench.talk(ann, 1);
    bench.talk(ann, 2);
    assert_eq!(bench.sfu.stats().sources[0].received, 2);
}

#[test]
fn a_wrong_fingerprint_fails_the_transport() {
    let mut bench = Bench::new();
    let certificate = dimpl::certificate::generate_self_signed_certificate().unwrap();
    bench.client_with(1, "ann", Version::V12, true, certificate, "AB:CD".into());
    let Some(SfuEvent::TransportFailed { session, reason, .. }) = bench.sfu.poll_event() else {
        panic!("no event");
    };
    assert_eq!(session, SessionId(1));
    assert!(reason.contains("AB:CD"), "{reason}");
    assert!(bench.sfu.transports.is_empty());
}

#[test]
fn a_second_consume_retires_the_first() {
    let mut bench = Bench::new();
    let (ann, ben) = (bench.client(1, "ann", Version::V12, true), bench.client(2, "ben", Version::V12, true));
    let source = bench.produce(ann, "ops");
    let (old, new) = (bench.consume(ben, "ops", 0), bench.consume(ben, "ops", 0));
    assert_ne!(old.rtp_parameters.mid, new.rtp_parameters.mid);
    bench.open("ops", 1, source);
    bench.talk(ann, 1);
    assert_eq!(bench.clients[ben].heard.len(), 1);
    assert!(bench.sfu.close_consumer(SessionId(2), &old.id).is_err());
    assert!(bench.sfu.close_consumer(SessionId(1), &new.id).is_err(), "somebody else's");
    assert!(bench.sfu.close_consumer(SessionId(2), &new.id).is_ok());
    assert!(bench.sfu.close_producer(SessionId(2), &source.to_string()).is_err());
    assert_eq!(bench.sfu.close_producer(SessionId(1), &source.to_string()), Ok(source));
}

#[test]
fn an_ice_restart_moves_the_client_and_silence_ends_it() {
    let mut bench = Bench::new();
    let ann = bench.client(1, "ann", Version::V12, true);
    let source = bench.produce(ann, "ops");
    let (id, old) = (bench.clients[ann].transport.clone(), bench.sfu.transports[&1].ice.clone());
    let new = bench.sfu.restart_ice(SessionId(1), &id).unwrap();
    assert!(bench.sfu.restart_ice(SessionId(2), &id).is_err(), "somebody else's");
    let at = bench.clients[ann].at;
    assert!(bench.check(&old.username_fragment, &old.password, at));
    for port in 1..=20 {
        let moved = SocketAddr::from(([10, 9, 9, 9], port));
        assert!(bench.check(&new.username_fragment, &new.password, moved));
    }
    assert_eq!(bench.sfu.by_address.len(), 8);
    assert!(!bench.check(&old.username_fragment, &old.password, at));
    bench.now += Duration::from_secs(31);
    bench.run(|sfu, now, send| sfu.handle_timeout(now, send));
    assert_eq!(bench.sfu.poll_event(), Some(SfuEvent::SourceGone { source }));
    assert!(matches!(bench.sfu.poll_event(), Some(SfuEvent::TransportFailed { .. })));
    assert!(bench.sfu.by_address.is_empty());
}
