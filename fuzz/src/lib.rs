//! What the targets share.

use rtc_crypto::providers::AwsLcRsCrypto;
use rtc_crypto::{HmacAlgorithm, RTCCrypto};

/// Cuts an input into steps: what, where, the length of the bytes, the bytes. The last step may be short.
pub fn steps(mut data: &[u8]) -> impl Iterator<Item = (u8, u8, &[u8])> {
    std::iter::from_fn(move || {
        let ([what, place, high, low], rest) = data.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (bytes, rest) = rest.split_at(length);
        data = rest;
        Some((*what, *place, bytes))
    })
}

/// The integrity check of STUN.
pub fn hmac_sha1(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    let mut tag = [0; 20];
    let mac = AwsLcRsCrypto.new_hmac(HmacAlgorithm::Sha1, key);
    mac.and_then(|mut mac| mac.sign(parts, &mut tag)).expect("the provider has HMAC-SHA1");
    tag
}
