//! One request to the gateway that runs on a state directory, with an Admin's token of its own where one is needed.

use crate::base::Role;
use crate::base::clock::unix_ms_now;
use crate::net::token::{Identity, Tokens};
use anyhow::{Context, bail};
use axum::http::Method;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

/// How long the gateway may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long the token of one request is good for, in seconds.
const TOKEN_LIFETIME_S: u64 = 60;

/// The event that a state directory belongs to.
pub fn event_of(state_dir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(state_dir.join("event.json")).ok()?;
    serde_json::from_str::<Value>(&text).ok()?["event"].as_str().map(str::to_owned)
}

/// Sends one request, with [`PATIENCE`].
pub fn request(state_dir: &Path, method: &Method, path: &str, body: &Value) -> anyhow::Result<Result<Value, String>> {
    ask(state_dir, method, path, body, PATIENCE)
}

/// Where the gateway with this state directory answers this machine.
pub fn door(state_dir: &Path) -> anyhow::Result<String> {
    let ready = std::fs::read_to_string(state_dir.join("ready.json"))
        .context("a gateway runs with this state directory, but is not ready yet; try again in a moment")?;
    let ready: Value = serde_json::from_str(&ready).context("ready.json is broken; restart the gateway")?;
    Ok(ready["http"].as_str().context("ready.json names no address; restart the gateway")?.to_owned())
}

/// Sends one request; the outer error is about the way there, the inner one is the gateway's own sentence.
pub fn ask(
    state_dir: &Path,
    method: &Method,
    path: &str,
    body: &Value,
    patience: Duration,
) -> anyhow::Result<Result<Value, String>> {
    let address = door(state_dir)?;
    let token = format!("Authorization: Bearer {}\r\n", token(state_dir)?);
    let body = if body.is_null() { String::new() } else { body.to_string() };
    send(&address, &token, method, path, &body, patience)
}

/// Sends one request of those that anybody on this machine may send.
pub fn ask_openly(
    address: &str,
    method: &Method,
    path: &str,
    patience: Duration,
) -> anyhow::Result<Result<Value, String>> {
    send(address, "", method, path, "", patience)
}

fn send(
    address: &str,
    token: &str,
    method: &Method,
    path: &str,
    body: &str,
    patience: Duration,
) -> anyhow::Result<Result<Value, String>> {
    let unreachable = || format!("the gateway does not answer at {address}; see its log");
    let mut stream = TcpStream::connect(address).with_context(unreachable)?;
    stream.set_read_timeout(Some(patience))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\n{token}Connection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).with_context(unreachable)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(unreachable)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(unreachable)?;
    let body: Value = serde_json::from_str(body).with_context(|| format!("the gateway answers strangely: {head}"))?;
    match head.split(' ').nth(1) {
        Some("200" | "201") => Ok(Ok(body)),
        Some(_) => Ok(Err(body["error"].as_str().unwrap_or("The gateway refuses and does not say why.").to_owned())),
        None => bail!("the gateway answers strangely: {head}"),
    }
}

fn token(state_dir: &Path) -> anyhow::Result<String> {
    let event = event_of(state_dir).context("event.json is missing; restart the gateway")?;
    let tokens = Tokens::of_state_dir(state_dir, &event)?;
    let identity =
        Identity { user: "cli".into(), name: "Command line".into(), role: Role::Admin, channels: Vec::new() };
    Ok(tokens.sign(&identity, unix_ms_now() / 1000 + TOKEN_LIFETIME_S)?)
}

/// An id as it stands in a path.
pub fn escaped(id: &str) -> String {
    let byte = |b: u8| match b {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
        _ => format!("%{b:02X}"),
    };
    id.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn ids_are_escaped_for_paths() {
        assert_eq!(escaped("desk-1"), "desk-1");
        assert_eq!(escaped("a/b?ü"), "a%2Fb%3F%C3%BC");
    }
}
