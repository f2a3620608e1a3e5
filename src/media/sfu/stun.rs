//! ICE-lite: answering binding requests (RFC 8489, RFC 8445).

use super::parameters::IceParameters;
use is::stun::{StunMessage, StunMessageBuilder};
use rtc_crypto::providers::AwsLcRsCrypto;
use rtc_crypto::{HmacAlgorithm, RTCCrypto};
use std::net::SocketAddr;

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const LARGEST_REPLY: usize = 256;

/// Random bytes.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("invariant: the system has randomness");
    bytes
}

fn token<const N: usize>() -> String {
    random::<N>().map(|byte| char::from(LETTERS[usize::from(byte & 63)])).iter().collect()
}

/// Fresh credentials.
pub(super) fn credentials() -> IceParameters {
    IceParameters { username_fragment: token::<12>(), password: token::<24>(), ice_lite: true }
}

/// The user name fragment that a binding request is for.
pub(super) fn local_fragment(datagram: &[u8]) -> Option<String> {
    let message = StunMessage::parse(datagram).ok()?;
    let (local, _) = message.split_username().filter(|_| message.is_binding_request())?;
    Some(local.to_owned())
}

/// A binding request that was answered.
pub(super) struct Check {
    /// The request proves that its sender knows the password.
    pub genuine: bool,
    /// The client chose this pair of addresses.
    pub nominated: bool,
    /// What to send back.
    pub reply: Vec<u8>,
}

/// Judges a binding request to the owner of `password` and writes the answer.
pub(super) fn answer(datagram: &[u8], from: SocketAddr, password: &str) -> Option<Check> {
    let message = StunMessage::parse(datagram).ok().filter(StunMessage::is_binding_request)?;
    let id = message.trans_id();
    let genuine = message.verify(password.as_bytes(), hmac_sha1);
    let (genuine, reply) = match (genuine, message.ice_controlled()) {
        (true, None) => (true, StunMessage::binding_reply(id, from)),
        // A lite agent never takes the lead.
        (true, Some(_)) => (false, StunMessage::binding_role_conflict_reply(id)),
        (false, _) => {
            let refusal = StunMessageBuilder::new().binding().failure();
            (false, refusal.error_code(401, "Unauthenticated").build(id))
        }
    };
    let mut buffer = [0; LARGEST_REPLY];
    let length = reply.to_bytes(Some(password.as_bytes()), &mut buffer, hmac_sha1).ok()?;
    Some(Check { genuine, nominated: message.use_candidate(), reply: buffer[..length].to_vec() })
}

pub(super) fn hmac_sha1(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    let mut tag = [0; 20];
    AwsLcRsCrypto
        .new_hmac(HmacAlgorithm::Sha1, key)
        .and_then(|mut mac| mac.sign(parts, &mut tag))
        .expect("invariant: the provider has HMAC-SHA1");
    tag
}
