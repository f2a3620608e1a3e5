//! What a supervisor hears, and what happens to outputs when a single thread of the real gateway hangs.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "native/mod.rs"]
mod native;

use anyhow::{Context, Result, ensure};
use native::gateway::Gateway;
use native::syscalls;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long what must happen may take; generous, since machines are busy.
const SOON: Duration = Duration::from_secs(20);
/// As the unit has it.
const WATCHDOG: Duration = Duration::from_secs(10);

/// What systemd would be at the other end of.
struct Supervisor {
    socket: UnixDatagram,
    dir: TempDir,
}

impl Supervisor {
    fn new() -> Result<Self> {
        let dir = TempDir::new()?;
        let socket = UnixDatagram::bind(dir.path().join("notify"))?;
        socket.set_read_timeout(Some(SOON))?;
        Ok(Supervisor { socket, dir })
    }

    async fn start(&self) -> Result<Gateway> {
        Gateway::demo_supervised(&self.dir.path().join("notify"), WATCHDOG).await
    }

    /// The next message, one or more lines.
    fn next(&self) -> Result<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).context("nothing was said")?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// Waits for a message with this line.
    fn wait_for(&self, line: &str) -> Result<()> {
        let began = Instant::now();
        while !self.next()?.lines().any(|l| l == line) {
            ensure!(began.elapsed() < SOON, "'{line}' was not said");
        }
        Ok(())
    }

    /// Throws away what was said until now; true if a sign of life was among it.
    fn was_alive(&self) -> Result<bool> {
        let mut alive = false;
        self.socket.set_nonblocking(true)?;
        while let Ok(said) = self.next() {
            alive |= said.contains("WATCHDOG=1");
        }
        self.socket.set_nonblocking(false)?;
        Ok(alive)
    }
}

/// A thread that stands still until this is dropped. Made and dropped on one and the same thread, as ptrace asks for.
struct Hanging(Pid);

impl Hanging {
    fn thread(gateway: &Gateway, name: &str) -> Result<Self> {
        for task in std::fs::read_dir(format!("/proc/{}/task", gateway.pid()))? {
            let task = task?;
            if std::fs::read_to_string(task.path().join("comm"))?.trim() == name {
                let thread = Pid::from_raw(task.file_name().to_string_lossy().parse()?);
                ptrace::seize(thread, ptrace::Options::empty())?;
                ptrace::interrupt(thread)?;
                waitpid(thread, Some(WaitPidFlag::__WALL))?;
                return Ok(Hanging(thread));
            }
        }
        anyhow::bail!("the gateway has no thread '{name}'")
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        ptrace::detach(self.0, None).expect("it was seized when this was made");
    }
}

async fn is_active(gateway: &Gateway, line: &str) -> Result<bool> {
    let lines = gateway.get("/api/sim/lines").await?;
    let lines = lines.as_array().context("no lines")?;
    let line = lines.iter().find(|l| l["name"] == line).context("no such line")?;
    Ok(line["active"] == true)
}

/// Waits for a line, and listens meanwhile: a socket that nobody reads takes a few messages only.
async fn wait_until(supervisor: &Supervisor, gateway: &Gateway, line: &str, active: bool) -> Result<()> {
    let began = Instant::now();
    while is_active(gateway, line).await? != active {
        ensure!(began.elapsed() < SOON, "{line} did not become {active}");
        supervisor.was_alive()?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test]
async fn the_supervisor_hears_of_start_reload_and_stop_and_of_what_the_gateway_does() -> Result<()> {
    let supervisor = Supervisor::new()?;
    let gateway = supervisor.start().await?;
    supervisor.wait_for("READY=1")?;
    supervisor.wait_for("WATCHDOG=1")?;
    gateway.move_line("desk.emergency", true).await?;
    supervisor.wait_for("STATUS=4 channels, 1 desk, 1 radio; emergency by Desk 1")?;
    gateway.move_line("desk.emergency", false).await?;
    supervisor.wait_for("STATUS=4 channels, 1 desk, 1 radio")?;
    gateway.signal("HUP")?;
    supervisor.wait_for("RELOADING=1")?;
    supervisor.wait_for("READY=1")?;
    gateway.signal("TERM")?;
    supervisor.wait_for("STOPPING=1")
}

#[tokio::test]
async fn a_thread_that_hangs_unkeys_the_radio_and_starves_the_watchdog_until_it_answers() -> Result<()> {
    let supervisor = Supervisor::new()?;
    let gateway = supervisor.start().await?;
    gateway.move_line("desk.ptt.security", true).await?;
    for thread in ["control", "media", "VHF 1 out"] {
        wait_until(&supervisor, &gateway, "radio.vhf.ptt", true).await?;
        let hanging = Hanging::thread(&gateway, thread)?;
        wait_until(&supervisor, &gateway, "radio.vhf.ptt", false).await.with_context(|| thread.to_owned())?;
        supervisor.was_alive()?; // what was said before it was found out
        tokio::time::sleep(Duration::from_millis(2_500)).await; // longer than two signs of life are apart
        ensure!(!supervisor.was_alive()?, "{thread} hangs, and the supervisor is told that all is well");
        ensure!(!is_active(&gateway, "radio.vhf.ptt").await?, "{thread} hangs, and the radio is keyed again");
        drop(hanging);
        supervisor.wait_for("WATCHDOG=1").with_context(|| thread.to_owned())?;
        gateway.audited(&format!("action = 'system.healed' AND detail LIKE '%thread {thread}%'")).await?;
    }
    wait_until(&supervisor, &gateway, "radio.vhf.ptt", true).await
}

#[tokio::test]
async fn a_process_that_was_stopped_as_a_whole_has_no_thread_that_hangs() -> Result<()> {
    let supervisor = Supervisor::new()?;
    let gateway = supervisor.start().await?;
    supervisor.wait_for("READY=1")?;
    gateway.signal("STOP")?;
    tokio::time::sleep(Duration::from_secs(4)).await; // longer than a thread may hang
    gateway.signal("CONT")?;
    supervisor.was_alive()?;
    for _ in 0..4 {
        supervisor.wait_for("WATCHDOG=1")?;
    }
    let judged = gateway.audit()?.into_iter().any(|row| row.detail.to_string().contains("\"thread "));
    ensure!(!judged, "somebody was judged: {:#?}", gateway.audit()?);
    Ok(())
}

#[tokio::test]
async fn a_chip_that_is_unplugged_unkeys_is_told_as_a_degraded_part_and_heals_without_a_restart() -> Result<()> {
    let supervisor = Supervisor::new()?;
    let gateway = supervisor.start().await?;
    let plug = |present: bool| format!("{{\"present\": {present}}}");
    gateway.move_line("desk.ptt.security", true).await?;
    wait_until(&supervisor, &gateway, "radio.vhf.ptt", true).await?;
    ensure!(gateway.call("", "POST /api/sim/chip", &plug(false)).await?.0 == 200);
    gateway.audited("action = 'system.degraded' AND detail LIKE '%the simulated chip is unplugged%'").await?;
    gateway.audited("action = 'ptt.stop' AND channel = 'security'").await?;
    ensure!(!is_active(&gateway, "radio.vhf.ptt").await?);
    gateway.move_line("desk.ptt.security", false).await.ok(); // nobody hears of it: no edge, no stamp
    ensure!(gateway.call("", "POST /api/sim/chip", &plug(true)).await?.0 == 200);
    gateway.audited("action = 'system.healed' AND detail LIKE '%board%'").await?;
    ensure!(!is_active(&gateway, "radio.vhf.ptt").await?, "nobody talks, though the button was pressed before");
    gateway.move_line("desk.ptt.security", true).await?;
    wait_until(&supervisor, &gateway, "radio.vhf.ptt", true).await
}

/// A lock that nobody else has makes no system call: that the sources name none is another test's.
#[tokio::test]
async fn audio_threads_wait_for_nobody_while_there_are_bursts_in_both_directions() -> Result<()> {
    let gateway = Gateway::demo().await?;
    for thread in ["VHF 1 in", "VHF 1 out", "Desk 1 in", "Desk 1 out"] {
        let (pid, name) = (gateway.pid(), thread.to_owned());
        let calls = tokio::task::spawn_blocking(move || syscalls::of_thread(pid, &name, Duration::from_secs(4)));
        for _ in 0..3 {
            for line in ["desk.ptt.security", "radio.vhf.carrier"] {
                gateway.move_line(line, true).await?;
                tokio::time::sleep(Duration::from_millis(400)).await; // of a burst
                gateway.move_line(line, false).await?;
                tokio::time::sleep(Duration::from_millis(200)).await; // of a pause
            }
        }
        let calls = calls.await??;
        println!("{thread}: {calls:?}");
        syscalls::are_those_of_an_audio_thread(&calls).with_context(|| thread.to_owned())?;
    }
    for who in ["desk-1", "radio-vhf"] {
        gateway.audited(&format!("actor = '{who}' AND action LIKE '%ptt%start'")).await?;
    }
    Ok(())
}

/// A log pipe that breaks, as when the terminal is closed that the gateway was started from.
#[tokio::test]
async fn a_log_that_nobody_reads_any_more_ends_nothing() -> Result<()> {
    let state = tempfile::tempdir()?;
    let config = state.path().join("event.toml");
    std::fs::write(&config, include_str!("../src/gateway/demo.toml"))?;
    let mut command = std::process::Command::new(native::gateway::binary());
    command.args(["run", "--listen", "127.0.0.1:0", "--media-port", "0", "--config"]).arg(&config);
    let mut gateway = command.arg("--state-dir").arg(state.path()).stderr(std::process::Stdio::piped()).spawn()?;
    let alive = async |gateway: &mut std::process::Child, what: &str, is_so: &dyn Fn() -> bool| -> Result<()> {
        let deadline = Instant::now() + SOON;
        while !is_so() {
            ensure!(gateway.try_wait()?.is_none(), "the gateway ended before {what}");
            ensure!(Instant::now() < deadline, "no {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    };
    alive(&mut gateway, "it was ready", &|| state.path().join("ready.json").exists()).await?;
    drop(gateway.stderr.take());
    for reloads in 1..=2 {
        let sent = std::process::Command::new("kill").arg("-HUP").arg(gateway.id().to_string()).status()?;
        ensure!(sent.success(), "the signal was not sent");
        let told = || {
            let rows = crosspatch::audit::tail(&state.path().join("audit.sqlite"), 0, 10_000).unwrap_or_default();
            rows.iter().filter(|row| row.action == "system.config_reloaded").count() == reloads
        };
        alive(&mut gateway, "the configuration was read again", &told).await?;
    }
    gateway.kill()?;
    gateway.wait()?;
    Ok(())
}
