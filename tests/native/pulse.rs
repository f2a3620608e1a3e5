//! Sound cards for tests: the null sinks of a sound server of our own, which the gateway reaches through ALSA, in real time.
//! What is played into a sink is what a radio hears there; what a radio plays to one is recorded from it.

use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Samples a second.
pub const RATE: u32 = 48_000;
/// How long the server may take for what is due at once, on a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// The server is asked to move sound in pieces of so many ms: a stamp may be off by as much.
pub const PIECE_MS: u32 = 20;
/// Real human speech, of Debian's `alsa-utils`.
const WORDS: [&str; 8] =
    ["Front_Center", "Rear_Left", "Side_Right", "Front_Left", "Rear_Right", "Side_Left", "Rear_Center", "Front_Right"];

/// Words that a person says, each with the pauses around it.
pub fn words() -> Result<Vec<Vec<i16>>> {
    let word = |name| {
        let path = Path::new("/usr/share/sounds/alsa").join(name).with_extension("wav");
        samples_of(&std::fs::read(&path).with_context(|| format!("{} is of alsa-utils", path.display()))?)
    };
    WORDS.into_iter().map(word).collect()
}

/// The samples of a WAV file of 16 bit, mono, 48 kHz.
fn samples_of(wav: &[u8]) -> Result<Vec<i16>> {
    let mut at = 12;
    while let Some(head) = wav.get(at..at + 8) {
        let length = u32::from_le_bytes(head[4..].try_into()?) as usize;
        if &head[..4] == b"data" {
            let data = &wav[at + 8..(at + 8 + length).min(wav.len())];
            return Ok(from_bytes(data));
        }
        at += 8 + length;
    }
    bail!("a WAV file without data")
}

fn from_bytes(bytes: &[u8]) -> Vec<i16> {
    bytes.chunks_exact(2).map(|s| i16::from_le_bytes([s[0], s[1]])).collect()
}

/// Samples as raw sound.
pub fn to_bytes(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_le_bytes()).collect()
}

/// A sound server; it ends when this is dropped.
pub struct SoundServer {
    child: Child,
    dir: TempDir,
}

impl SoundServer {
    /// Starts one with a sink of each name. ALSA knows each: to capture what is played into it, and to play to it.
    pub fn start(names: &[&str]) -> Result<Self> {
        let dir = TempDir::new()?;
        let pcm = |name: &&str| {
            format!(
                "pcm.{name} {{\n  type asym\n  capture.pcm {{ type pulse device \"{name}.monitor\" }}\n  \
                 playback.pcm {{ type pulse device \"{name}\" }}\n}}\n"
            )
        };
        std::fs::write(dir.path().join(".asoundrc"), names.iter().map(pcm).collect::<String>())?;
        std::fs::DirBuilder::new().create(dir.path().join("run"))?;
        std::fs::set_permissions(dir.path().join("run"), std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        let mut command = tool("pulseaudio", dir.path());
        command.args(["-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1"]);
        command.args(["--realtime=no", "--high-priority=no", "-L", "module-native-protocol-unix"]);
        for name in names {
            // Without `norewinds` an idle sink renders up to two seconds ahead.
            let sink = format!("module-null-sink sink_name={name} rate={RATE} channels=1 norewinds=1");
            command.args(["-L", &sink]);
        }
        let child = command.spawn().context("pulseaudio does not start; ./dev installs it")?;
        let server = SoundServer { child, dir };
        server.wait_for_sinks(names)?;
        Ok(server)
    }

    fn wait_for_sinks(&self, names: &[&str]) -> Result<()> {
        let began = Instant::now();
        loop {
            let listed =
                tool("pactl", self.dir.path()).args(["list", "short", "sinks"]).stdout(Stdio::piped()).output()?;
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            if names.iter().all(|name| listed.contains(name)) {
                return Ok(());
            }
            ensure!(began.elapsed() < SOON, "the sound server has no sinks: {listed}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What the gateway must find in its environment to reach the server.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![("HOME", self.dir.path().into()), ("XDG_RUNTIME_DIR", self.dir.path().join("run").into())]
    }

    /// Plays samples into a sink; it has sounded when the child ends.
    pub fn play(&self, sink: &str, samples: &[i16]) -> Result<Playing> {
        let (playing, mut pipe) = self.feed(sink)?;
        let bytes = to_bytes(samples);
        // A player that was stopped takes no more.
        std::thread::spawn(move || pipe.write_all(&bytes).ok());
        Ok(playing)
    }

    /// Plays into a sink what is written to the pipe.
    pub fn feed(&self, sink: &str) -> Result<(Playing, ChildStdin)> {
        let mut child = tool("pacat", self.dir.path())
            .args(["--playback", "--raw", &format!("--device={sink}"), "--latency-msec=20"])
            .args(FORMAT)
            .stdin(Stdio::piped())
            .spawn()?;
        let pipe = child.stdin.take().context("it is piped")?;
        Ok((Playing(child), pipe))
    }

    /// Begins to record what is played into a sink; returns when sound (be it silence) comes in.
    pub fn record(&self, sink: &str) -> Result<Recording> {
        let mut child = tool("parec", self.dir.path())
            .args(["--raw", &format!("--device={sink}.monitor"), &format!("--latency-msec={PIECE_MS}")])
            .args(FORMAT)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut pipe = child.stdout.take().context("it is piped")?;
        let heard = Arc::new(Mutex::new(Tape { samples: Vec::new(), start: None }));
        let tape = heard.clone();
        std::thread::spawn(move || {
            let (mut buffer, mut odd) = ([0; 8192], Vec::new());
            while let Ok(length) = pipe.read(&mut buffer)
                && length > 0
            {
                odd.extend_from_slice(&buffer[..length]);
                let whole = odd.len() & !1;
                tape.lock().unwrap_or_else(PoisonError::into_inner).take(from_bytes(&odd[..whole]));
                odd.drain(..whole);
            }
        });
        let recording = Recording { child, heard };
        recording.wait_samples(1)?;
        Ok(recording)
    }
}

impl Drop for SoundServer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

const FORMAT: [&str; 3] = ["--format=s16le", "--rate=48000", "--channels=1"];

/// A program of the sound server's that finds it, and no other.
fn tool(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(name);
    for other in ["PULSE_SERVER", "PULSE_RUNTIME_PATH", "XDG_CONFIG_HOME", "ALSA_CONFIG_PATH", "DISPLAY"] {
        command.env_remove(other);
    }
    command.env("HOME", dir).env("XDG_RUNTIME_DIR", dir.join("run")).stderr(Stdio::null()).stdout(Stdio::null());
    command
}

/// Something that plays until it has ended, or until this is dropped.
pub struct Playing(Child);

impl Playing {
    /// Waits until all of it has sounded.
    pub async fn ended(mut self) -> Result<()> {
        while self.0.try_wait()?.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Sound that is being recorded.
pub struct Recording {
    child: Child,
    heard: Arc<Mutex<Tape>>,
}

struct Tape {
    samples: Vec<i16>,
    /// The earliest that any sample came in, carried back to the first: a late piece does not move it.
    start: Option<Instant>,
}

impl Tape {
    fn take(&mut self, samples: Vec<i16>) {
        self.samples.extend(samples);
        let length = Duration::from_secs_f64(self.samples.len() as f64 / f64::from(RATE));
        if let Some(start) = Instant::now().checked_sub(length) {
            self.start = Some(self.start.map_or(start, |earlier| earlier.min(start)));
        }
    }
}

impl Recording {
    /// What was recorded so far.
    pub fn samples(&self) -> Vec<i16> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).samples.clone()
    }

    /// How many samples that is.
    pub fn length(&self) -> usize {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).samples.len()
    }

    /// Which sample came in at this time.
    pub fn sample_at(&self, at: Instant) -> usize {
        let start = self.heard.lock().unwrap_or_else(PoisonError::into_inner).start;
        let since = start.and_then(|start| at.checked_duration_since(start)).unwrap_or_default();
        (since.as_secs_f64() * f64::from(RATE)) as usize
    }

    /// Waits until there are so many samples.
    pub fn wait_samples(&self, count: usize) -> Result<()> {
        let began = Instant::now();
        while self.length() < count {
            ensure!(began.elapsed() < SOON, "nothing is recorded");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
