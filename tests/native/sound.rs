//! Sound cards without any: the null sinks of a sound server of our own, reached through ALSA. They keep real time.

use anyhow::{Context, Result, ensure};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long the server may take to have its sinks.
const START: Duration = Duration::from_secs(20);
/// Samples a second.
pub const RATE: u32 = 48_000;

/// The server; it ends when this is dropped.
pub struct SoundServer {
    process: Child,
    dir: TempDir,
}

impl SoundServer {
    /// Starts a server with a sink of each name. ALSA knows each: to capture what is played into it, and to play to it.
    pub fn start(names: &[&str]) -> Result<Self> {
        let dir = TempDir::new()?;
        std::fs::create_dir(dir.path().join("run"))?;
        let pcm = |name: &&str| {
            format!(
                "pcm.{name} {{\n type asym\n capture.pcm {{ type pulse device \"{name}.monitor\" }}\n \
                 playback.pcm {{ type pulse device \"{name}\" }}\n}}\n"
            )
        };
        std::fs::write(dir.path().join(".asoundrc"), names.iter().map(pcm).collect::<String>())?;
        let mut command = Command::new("pulseaudio");
        command.args(["-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1", "--realtime=no"]);
        command.args(["--high-priority=no", "-L", "module-native-protocol-unix"]);
        for name in names {
            // Without `norewinds` an idle sink renders up to two seconds ahead.
            let sink = format!("module-null-sink sink_name={name} rate={RATE} channels=1 norewinds=1");
            command.args(["-L", &sink]);
        }
        command.envs(environment(dir.path())).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().context("there is no pulseaudio; install pulseaudio and libasound2-plugins")?;
        let server = SoundServer { process, dir };
        let deadline = Instant::now() + START;
        while !names.iter().all(|name| server.sinks().is_ok_and(|sinks| sinks.contains(name))) {
            ensure!(Instant::now() < deadline, "the sound server has no sinks after {START:?}");
            std::thread::park_timeout(Duration::from_millis(50));
        }
        Ok(server)
    }

    fn sinks(&self) -> Result<String> {
        let listed = Command::new("pactl").args(["list", "short", "sinks"]).envs(self.environment()).output()?;
        Ok(String::from_utf8_lossy(&listed.stdout).into_owned())
    }

    /// What a program needs in its environment to find the sinks.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        environment(self.dir.path())
    }

    /// A place for files of a test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Plays samples into a sink until they end or the player is dropped.
    pub fn play(&self, sink: &str, samples: &[i16]) -> Result<Player> {
        let file = self.dir.path().join(format!("{sink}-{}.raw", samples.len()));
        std::fs::write(&file, samples.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<_>>())?;
        let format = ["--raw", "--format=s16le", "--rate=48000", "--channels=1", "--latency-msec=20"];
        let mut command = Command::new("pacat");
        command.arg("--playback").arg(format!("--device={sink}")).args(format).arg(file).envs(self.environment());
        Ok(Player(command.stdin(Stdio::null()).spawn().context("there is no pacat; install pulseaudio-utils")?))
    }

    /// Records what is played into a sink, until the recorder is asked for it.
    pub fn record(&self, sink: &str) -> Result<Recorder> {
        let file = self.dir.path().join(format!("{sink}.heard"));
        let format = ["--raw", "--format=s16le", "--rate=48000", "--channels=1", "--latency-msec=20"];
        let mut command = Command::new("pacat");
        command.arg("--record").arg(format!("--device={sink}.monitor")).args(format).arg(&file);
        let process = command.envs(self.environment()).stdin(Stdio::null()).spawn()?;
        let deadline = Instant::now() + START;
        while std::fs::metadata(&file).map_or(0, |found| found.len()) == 0 {
            ensure!(Instant::now() < deadline, "nothing is recorded from {sink}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(Recorder { process, file })
    }
}

fn environment(dir: &Path) -> Vec<(&'static str, OsString)> {
    let run = dir.join("run");
    let socket = format!("unix:{}", run.join("pulse/native").display());
    vec![
        ("HOME", dir.into()),
        ("XDG_CONFIG_HOME", dir.into()),
        ("XDG_RUNTIME_DIR", run.into()),
        ("PULSE_SERVER", socket.into()),
    ]
}

/// Something that plays.
pub struct Player(Child);

/// Something that records.
pub struct Recorder {
    process: Child,
    file: PathBuf,
}

impl Recorder {
    /// Everything so far.
    pub fn heard(&self) -> Result<Vec<i16>> {
        let bytes = std::fs::read(&self.file)?;
        Ok(bytes.chunks_exact(2).map(|b| i16::from_le_bytes([b[0], b[1]])).collect())
    }
}

impl Drop for SoundServer {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

fn end(process: &mut Child) {
    process.kill().ok(); // one that has ended needs no more
    process.wait().ok();
}
