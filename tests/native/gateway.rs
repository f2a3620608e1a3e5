//! A gateway of one's own: the real binary in a directory of its own, on free ports.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BINARY: &str = env!("CARGO_BIN_EXE_crosspatch");
/// How long the gateway may take until everything is up.
const START: Duration = Duration::from_secs(20);

/// A running gateway; it ends when this is dropped.
pub struct Gateway {
    process: Child,
    state: TempDir,
    http: String,
}

impl Gateway {
    /// Starts the demo event and waits until everything is up.
    pub async fn demo() -> Result<Self> {
        let state = TempDir::new()?;
        Self::start(state, &["--demo".as_ref()]).await
    }

    /// Starts an event with this configuration.
    pub async fn with_config(config: &str) -> Result<Self> {
        let state = TempDir::new()?;
        let path = state.path().join("event.toml");
        std::fs::write(&path, config)?;
        Self::start(state, &["--config".as_ref(), &path]).await
    }

    async fn start(state: TempDir, event: &[&Path]) -> Result<Self> {
        let process = Command::new(BINARY)
            .arg("run")
            .args(event)
            .args(["--listen", "127.0.0.1:0", "--media-port", "0", "--state-dir"])
            .arg(state.path())
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .spawn()
            .context("the gateway does not start")?;
        let mut gateway = Gateway { process, state, http: String::new() };
        let ready = gateway.state.path().join("ready.json");
        let deadline = Instant::now() + START;
        while !ready.exists() {
            if let Some(status) = gateway.process.try_wait()? {
                bail!("the gateway ended at once: {status}");
            }
            ensure!(Instant::now() < deadline, "the gateway was not ready within {START:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let ready: Value = serde_json::from_str(&std::fs::read_to_string(ready)?)?;
        gateway.http = ready["http"].as_str().context("ready.json names no http address")?.to_owned();
        Ok(gateway)
    }

    /// Where pages and signaling are, as `host:port`.
    pub fn http(&self) -> &str {
        &self.http
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A token for `user`, whose name is the same; `channels` with commas between them.
    pub fn token(&self, user: &str, role: &str, channels: &str) -> Result<String> {
        let made = Command::new(BINARY)
            .args(["token", "--state-dir"])
            .arg(self.state.path())
            .args(["--user", user, "--name", user, "--role", role, "--channels", channels])
            .output()?;
        ensure!(made.status.success(), "no token for {user}: {}", String::from_utf8_lossy(&made.stderr));
        Ok(String::from_utf8(made.stdout)?.trim().to_owned())
    }

    /// Waits until the audit has rows for which `condition` holds, and counts them.
    pub async fn audited(&self, condition: &str) -> Result<u32> {
        let audit = rusqlite::Connection::open(self.state.path().join("audit.sqlite"))?;
        let count = format!("SELECT count(*) FROM audit WHERE {condition}");
        let deadline = Instant::now() + START;
        loop {
            let rows: u32 = audit.query_row(&count, [], |row| row.get(0))?;
            if rows > 0 {
                return Ok(rows);
            }
            ensure!(Instant::now() < deadline, "the audit has no row where {condition}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What `GET /api/stats` says.
    pub async fn stats(&self) -> Result<Value> {
        let mut stream = TcpStream::connect(&self.http).await?;
        let request = format!("GET /api/stats HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.http);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no body")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "the API answered {head}");
        Ok(serde_json::from_str(body)?)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Nothing is left to be done for a process that has ended already.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
