//! A gateway of one's own: the real binary in a directory of its own, on free ports.

use anyhow::{Context, Result, bail, ensure};
use crosspatch::audit::{self, Row};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The binary that was built with the tests; another where they run on another machine.
pub fn binary() -> PathBuf {
    std::env::var_os("CROSSPATCH_BIN").map_or_else(|| env!("CARGO_BIN_EXE_crosspatch").into(), PathBuf::from)
}

/// How long the gateway may take until everything is up.
const START: Duration = Duration::from_secs(60);

/// A running gateway; it ends when this is dropped.
pub struct Gateway {
    process: Child,
    /// What the command line says of the event.
    event: Vec<PathBuf>,
    /// What it finds in its environment.
    environment: Vec<(&'static str, OsString)>,
    state: TempDir,
    /// What `ready.json` says.
    ready: Value,
    http: String,
}

impl Gateway {
    /// Starts the demo event and waits until everything is up.
    pub async fn demo() -> Result<Self> {
        Self::start(TempDir::new()?, vec!["--demo".into()]).await
    }

    /// Starts the demo event with its state in this directory.
    pub async fn demo_in(state: &Path) -> Result<Self> {
        Self::demo_prepared(state, |_| Ok(())).await
    }

    /// The same, with something in its state directory already.
    pub async fn demo_prepared(within: &Path, prepare: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<Self> {
        let state = TempDir::new_in(within)?;
        prepare(state.path())?;
        Self::start(state, vec!["--demo".into()]).await
    }

    /// Starts an event with this configuration.
    pub async fn with_config(config: &str) -> Result<Self> {
        Self::with_files(&[("event.toml", config)]).await
    }

    /// Starts an event with the first of these files as its configuration.
    pub async fn with_files(files: &[(&str, &str)]) -> Result<Self> {
        Self::with_sound(files, Vec::new()).await
    }

    /// The same with what it finds in its environment, such as a sound server.
    pub async fn with_sound(files: &[(&str, &str)], environment: Vec<(&'static str, OsString)>) -> Result<Self> {
        let state = TempDir::new()?;
        for (name, text) in files {
            std::fs::write(state.path().join(name), text)?;
        }
        let (config, _) = files.first().context("no configuration")?;
        let config = state.path().join(config);
        Self::start_in(state, vec!["--config".into(), config], environment).await
    }

    /// Starts the demo event as systemd would: news go to this socket, and a sign of life is due within `watchdog`.
    pub async fn demo_supervised(notify: &Path, watchdog: Duration) -> Result<Self> {
        let watchdog = watchdog.as_micros().to_string();
        let environment = vec![("NOTIFY_SOCKET", notify.into()), ("WATCHDOG_USEC", watchdog.into())];
        Self::start_in(TempDir::new()?, vec!["--demo".into()], environment).await
    }

    async fn start(state: TempDir, event: Vec<PathBuf>) -> Result<Self> {
        Self::start_in(state, event, Vec::new()).await
    }

    async fn start_in(state: TempDir, event: Vec<PathBuf>, environment: Vec<(&'static str, OsString)>) -> Result<Self> {
        let process = spawn(state.path(), &event, &environment)?;
        let mut gateway = Gateway { process, event, environment, state, ready: Value::Null, http: String::new() };
        gateway.wait_until_ready().await?;
        Ok(gateway)
    }

    /// Kills the process without a chance to say anything, and starts another in the same state directory.
    pub async fn crash_and_restart(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        // The dead one's: whoever waits for the new one must not read it.
        std::fs::remove_file(self.state.path().join("ready.json"))?;
        self.process = spawn(self.state.path(), &self.event, &self.environment)?;
        self.wait_until_ready().await
    }

    /// Waits until the process has ended by itself.
    pub async fn wait_ended(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        while self.process.try_wait()?.is_none() {
            ensure!(Instant::now() < deadline, "the gateway does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let ready = self.state.path().join("ready.json");
        let deadline = Instant::now() + START;
        while !ready.exists() {
            if let Some(status) = self.process.try_wait()? {
                bail!("the gateway ended at once: {status}");
            }
            ensure!(Instant::now() < deadline, "the gateway was not ready within {START:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.ready = serde_json::from_str(&std::fs::read_to_string(ready)?)?;
        self.http = self.ready["http"].as_str().context("ready.json names no http address")?.to_owned();
        Ok(())
    }

    /// Sends the process a signal: `STOP`, `CONT`.
    pub fn signal(&self, name: &str) -> Result<()> {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status()?;
        ensure!(sent.success(), "the signal {name} was not sent");
        Ok(())
    }

    /// Where pages and signaling are, as `host:port`.
    pub fn http(&self) -> &str {
        &self.http
    }

    /// Where media goes.
    pub fn media(&self) -> Result<SocketAddr> {
        Ok(self.ready["media"].as_str().context("ready.json names no media address")?.parse()?)
    }

    /// What `ready.json` says.
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// Where the audit and the token secret are.
    pub fn state_dir(&self) -> &Path {
        self.state.path()
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A token for `user`, whose name is the same; `channels` with commas between them.
    pub fn token(&self, user: &str, role: &str, channels: &str) -> Result<String> {
        let made = Command::new(binary())
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
        self.api("GET /api/stats", "").await
    }

    /// Moves an input of the simulated board, and says what stamp the edge has, in nanoseconds of CLOCK_MONOTONIC.
    pub async fn move_line(&self, line: &str, active: bool) -> Result<u64> {
        let body = json!({ "active": active }).to_string();
        let moved = self.api(&format!("POST /api/sim/lines/{line}"), &body).await?;
        moved["stampNs"].as_u64().context("the edge has no stamp")
    }

    /// The audit so far, oldest first.
    pub fn audit(&self) -> Result<Vec<Row>> {
        Ok(audit::tail(&self.state.path().join("audit.sqlite"), 0, usize::MAX)?)
    }

    /// Waits until the audit has a row that `wanted` says yes to: the writer may hold it for a moment.
    pub async fn audited_row(&self, wanted: impl Fn(&Row) -> bool) -> Result<Row> {
        let deadline = Instant::now() + START;
        loop {
            if let Some(row) = self.audit()?.into_iter().find(&wanted) {
                return Ok(row);
            }
            ensure!(Instant::now() < deadline, "the audit has no such row within {START:?}: {:#?}", self.audit()?);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What the local API says at a path.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.api(&format!("GET {path}"), "").await
    }

    async fn api(&self, what: &str, body: &str) -> Result<Value> {
        let (status, answer) = self.call("", what, body).await?;
        ensure!(status == 200, "the API answered {status} {answer}");
        Ok(answer)
    }

    /// One request to the HTTP API, such as `GET /api/stats`: its status and what it says, null if that is no JSON.
    /// Without a token, as whoever is on this machine.
    pub async fn call(&self, token: &str, what: &str, body: &str) -> Result<(u16, Value)> {
        let authorization = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
        let request = format!(
            "{what} HTTP/1.1\r\nHost: {}\r\n{authorization}Connection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.http,
            body.len()
        );
        let mut stream = TcpStream::connect(&self.http).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer); // a recording is no text
        let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no body")?;
        let status = head.split(' ').nth(1).context("no status")?.parse()?;
        Ok((status, serde_json::from_str(body).unwrap_or(Value::Null)))
    }
}

fn spawn(state: &Path, event: &[PathBuf], environment: &[(&str, OsString)]) -> Result<Child> {
    Command::new(binary())
        .arg("run")
        .args(event)
        .args(["--listen", "127.0.0.1:0", "--media-port", "0", "--state-dir"])
        .arg(state)
        .env("RUST_LOG", "warn")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .spawn()
        .context("the gateway does not start")
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Nothing is left to be done for a process that has ended already.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
