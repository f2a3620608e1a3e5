//! What anybody may send to the media port: STUN, DTLS, SRTP and nonsense from many addresses, while a transport waits.
//!
//! The input is a list of steps: what, from which address, how many bytes, the bytes. `FRAGMENT....` in a datagram stands
//! for the transport's user name fragment, which nobody could guess. Whatever comes: no panic, nobody who has not shown the
//! password is talked to but for a refusal, and answers never outgrow questions by much.

#![no_main]

use crosspatch::base::{SessionId, UserId};
use crosspatch::media::gates::Gates;
use crosspatch::media::sfu::{Direction, DtlsParameters, DtlsRole, Fingerprint, IceParameters, Sfu, SfuConfig};
use crosspatch_fuzz::{hmac_sha1, steps};
use is::stun::{StunMessage, TransId};
use std::cell::RefCell;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SESSION: SessionId = SessionId(1);
const PLACEHOLDER: &[u8; 12] = b"FRAGMENT....";

thread_local! {
    /// One SFU for all inputs, since its certificate takes longer than all the rest, and its clock.
    static SFU: RefCell<(Sfu, Instant)> = RefCell::new({
        let config = SfuConfig { announced: vec![SocketAddr::from(([192, 0, 2, 1], 5000))] };
        (Sfu::new(config, Arc::new(Gates::new())).expect("a certificate"), Instant::now())
    });
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| SFU.with_borrow_mut(|(sfu, now)| run(sfu, now, data)));

fn run(sfu: &mut Sfu, clock: &mut Instant, data: &[u8]) {
    let mut now = *clock;
    let made = sfu.create_transport(SESSION, &UserId::from("u"), Direction::Send, now).expect("the first transport");
    let mut ice = made.ice_parameters;
    let mut genuine = HashSet::new();
    for (what, from, bytes) in steps(data) {
        let from = SocketAddr::from(([10, 0, 0, from & 15], 1_000));
        let mut sent: Vec<(usize, SocketAddr)> = Vec::new();
        let mut send = |packet: &[u8], to: SocketAddr| sent.push((packet.len(), to));
        match what % 8 {
            0..=3 => {
                let mut datagram = with_fragment(bytes, &ice);
                sfu.handle_datagram(&mut datagram, from, now, &mut send);
                for (length, to) in sent {
                    assert!(to == from || genuine.contains(&to), "an answer to {to}, who did not ask");
                    assert!(genuine.contains(&to) || length <= datagram.len() + 128, "an answer that amplifies");
                }
            }
            4 => {
                let first = bytes.first().copied().unwrap_or(0);
                let controlling = first & 1 == 0;
                let name = format!("{}:peer", ice.username_fragment);
                let request = StunMessage::binding_request(&name, TransId::new(), controlling, 1, 1, first & 2 == 0);
                let mut buffer = [0; 256];
                let length = request.to_bytes(Some(ice.password.as_bytes()), &mut buffer, hmac_sha1).expect("room");
                sfu.handle_datagram(&mut buffer[..length], from, now, &mut send);
                if controlling {
                    genuine.insert(from);
                }
            }
            5 => {
                now += Duration::from_millis(bytes.first().map_or(1, |byte| 40 * u64::from(*byte)));
                sfu.handle_timeout(now, &mut send);
            }
            6 => {
                if let Ok(fresh) = sfu.restart_ice(SESSION, &made.id) {
                    ice = fresh;
                }
            }
            _ => {
                let role = if bytes.is_empty() { DtlsRole::Server } else { DtlsRole::Client };
                let fingerprints = vec![Fingerprint { algorithm: "sha-256".into(), value: "AA".into() }];
                let dtls = DtlsParameters { role, fingerprints };
                sfu.connect_transport(SESSION, &made.id, &dtls, now, &mut send).ok();
            }
        }
        while sfu.poll_event().is_some() {}
    }
    drop(sfu.stats());
    sfu.close_session(SESSION);
    sfu.handle_timeout(now, &mut |_, _| {});
    *clock = now;
}

fn with_fragment(bytes: &[u8], ice: &IceParameters) -> Vec<u8> {
    let mut datagram = bytes.to_vec();
    if let Some(at) = datagram.windows(PLACEHOLDER.len()).position(|window| window == PLACEHOLDER) {
        datagram[at..at + PLACEHOLDER.len()].copy_from_slice(ice.username_fragment.as_bytes());
    }
    datagram
}
