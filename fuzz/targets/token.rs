//! Access tokens: any text, and any header and claims that somebody signed with the right secret.
//!
//! Whatever comes: no panic; nobody gets in with a text that was not signed, with another algorithm than HS256, for another
//! event, or without an expiry that is yet to come.

#![no_main]

use crosspatch::net::token::Tokens;
use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
use serde::Deserialize;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

const SECRET: &[u8] = b"a secret that is 32 bytes or more";

static TOKENS: LazyLock<Tokens> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("token.secret"), SECRET).expect("a file");
    Tokens::of_state_dir(dir.path(), "demo").expect("a long secret")
});

/// What must hold of an accepted token. What it says besides is skipped, as it is in the gateway: it need not be a number that
/// fits, nor text that is Unicode.
#[derive(Deserialize)]
struct Head {
    alg: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claims {
    event_id: String,
    exp: u64,
}

libfuzzer_sys::fuzz_target!(|text: &str| {
    assert!(TOKENS.check(text).is_err(), "nobody signed this");
    // A header and claims, a line each.
    let Some((header, claims)) = text.split_once('\n') else { return };
    let message = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
    let key = EncodingKey::from_secret(SECRET);
    let signature = sign(message.as_bytes(), &key, Algorithm::HS256).expect("HMAC takes any message");
    if TOKENS.check(&format!("{message}.{signature}")).is_ok() {
        let head: Head = serde_json::from_str(header).expect("accepted, so it names its algorithm");
        let claims: Claims = serde_json::from_str(claims).expect("accepted, so it has an event and an expiry");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        assert_eq!(head.alg, "HS256", "the algorithm is pinned");
        assert_eq!(claims.event_id, "demo", "this event only");
        assert!(claims.exp + 1 > now, "it has not expired");
    }
});

fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(LETTERS[(bits >> (18 - 6 * place)) as usize & 63]));
        }
    }
    text
}
