//! The daemon as an installed service: the project's own unit, user, rules and sandbox.

mod doctor;

use crate::bench::{BOARD, SOON, config};
use crate::chip::Chip;
use crate::native::gateway::binary;
use crate::native::threads;
use anyhow::{Context, Result, ensure};
use crosspatch::audit;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

const UNIT: &str = "crosspatch.service";
const PROGRAM: &str = "/usr/bin/crosspatch";
const CONFIG: &str = "/etc/crosspatch/crosspatch.toml";
const AUDIT: &str = "/var/lib/crosspatch/audit.sqlite";
const PTT: &str = "desk.ptt.security";
const KEYED: &str = "radio.vhf.ptt";
/// What is copied from the project's `systemd/`, and where to.
const INSTALLED: &[(&str, &str)] = &[
    ("crosspatch.service", "/usr/lib/systemd/system"),
    ("sysusers.d/.", "/usr/lib/sysusers.d"),
    ("tmpfiles.d/.", "/usr/lib/tmpfiles.d"),
    ("udev/.", "/usr/lib/udev/rules.d"),
];
/// How soon a transmitter must be unkeyed whose gateway was killed.
const UNKEYED: Duration = Duration::from_secs(1);

/// Runs a command and returns what it says.
fn run(command: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(command).args(arguments).output().with_context(|| command.to_owned())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command} {arguments:?}: {} {said} {error}", output.status);
    Ok(said)
}

/// Puts everything where a package would, once, with this configuration.
fn install(config: &str) -> Result<()> {
    std::fs::create_dir_all("/etc/crosspatch")?;
    std::fs::write(CONFIG, config)?;
    std::fs::write("/etc/crosspatch/board.toml", BOARD)?;
    if Path::new(PROGRAM).exists() {
        return Ok(());
    }
    std::fs::copy(binary(), PROGRAM)?;
    for (from, to) in INSTALLED {
        std::fs::create_dir_all(to)?;
        run("cp", &["-r", &format!("/host/systemd/{from}"), to])?;
    }
    run("systemd-sysusers", &[])?;
    run("systemd-tmpfiles", &["--create"])?;
    run("udevadm", &["control", "--reload"])?;
    run("systemctl", &["daemon-reload"])?;
    Ok(())
}

/// The service with its chip; stopped when this is dropped.
struct Service {
    chip: Chip,
}

impl Service {
    fn start() -> Result<Self> {
        Self::start_with(&config(str::to_owned))
    }

    fn start_with(config: &str) -> Result<Self> {
        install(config)?;
        let chip = Chip::for_board(BOARD)?;
        run("udevadm", &["settle"])?;
        let service = Service { chip };
        run("systemctl", &["start", UNIT]).with_context(journal)?;
        Ok(service)
    }

    /// One property of the unit.
    fn show(&self, property: &str) -> Result<String> {
        Ok(run("systemctl", &["show", "--value", "-p", property, UNIT])?.trim().to_owned())
    }

    fn pid(&self) -> Result<i32> {
        Ok(self.show("MainPID")?.parse()?)
    }

    /// Talks at the desk until the radio is keyed.
    fn key(&self) -> Result<()> {
        // A button that is down at the start counts for nothing until the daemon has seen it up (E3), so once may not do.
        for _ in 0..10 {
            self.chip.move_line(PTT, false)?;
            sleep(Duration::from_millis(200));
            self.chip.move_line(PTT, true)?;
            let pressed = Instant::now();
            while pressed.elapsed() < Duration::from_secs(3) {
                if self.chip.is_active(KEYED)? {
                    return Ok(());
                }
                sleep(Duration::from_millis(20));
            }
        }
        anyhow::bail!("the radio is not keyed: {}", journal())
    }

    /// Waits until a process other than this one is ready to work, and works.
    fn wait_back(&self, ended: i32) -> Result<()> {
        let began = Instant::now();
        loop {
            let pid = self.pid()?;
            if pid != 0 && pid != ended && self.show("ActiveState")? == "active" {
                return self.key();
            }
            ensure!(began.elapsed() < 2 * SOON, "the service is not back: {}", journal());
            sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        run("systemctl", &["stop", UNIT]).ok();
        run("systemctl", &["reset-failed", UNIT]).ok();
        std::fs::remove_dir_all("/var/lib/crosspatch").ok();
    }
}

fn journal() -> String {
    run("journalctl", &["--no-pager", "-o", "short-monotonic", "-n", "40", "-u", UNIT])
        .unwrap_or_else(|e| e.to_string())
}

#[test]
fn a_killed_gateway_leaves_no_transmitter_keyed_and_comes_back() -> Result<()> {
    let service = Service::start()?;
    service.key()?;
    let pid = service.pid()?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    let took = service.chip.wait_until(KEYED, false)?;
    ensure!(took < UNKEYED, "unkeyed only after {took:?}");
    // A chip that keeps its levels is unkeyed by a program of its own, before the next start.
    let began = Instant::now();
    loop {
        let unkeyed = service.show("ExecStopPost")?;
        if unkeyed.contains("crosspatch unkey") && unkeyed.contains("code=exited ; status=0") {
            break;
        }
        ensure!(began.elapsed() < SOON, "{unkeyed} {}", journal());
    }
    service.wait_back(pid)
}

#[test]
fn a_gateway_that_is_stopped_unkeys_and_says_so_in_the_audit() -> Result<()> {
    let service = Service::start()?;
    service.key()?;
    run("systemctl", &["stop", UNIT])?;
    ensure!(!service.chip.is_active(KEYED)?, "still keyed");
    let rows = audit::tail(Path::new(AUDIT), 0, usize::MAX)?;
    ensure!(rows.iter().any(|row| row.action == "system.stop"), "{rows:#?}");
    assert_eq!(service.show("Result")?, "success");
    Ok(())
}

#[test]
fn a_thread_that_hangs_is_unkeyed_at_once_and_restarted_by_the_watchdog() -> Result<()> {
    let service = Service::start()?;
    for thread in ["control", "gpio"] {
        service.key()?;
        let pid = service.pid()?;
        let hanging = hang(threads::named(pid.try_into()?, thread)?)?;
        service.chip.wait_until(KEYED, false).with_context(|| thread.to_owned())?;
        assert_eq!(service.pid()?, pid, "{thread} hangs: unkeyed by the gateway itself, before systemd ends it");
        service.wait_back(pid).with_context(|| thread.to_owned())?;
        hanging.join().expect("it only waits");
        let said = journal();
        ensure!(said.contains("Watchdog timeout"), "{thread} hangs, and something else ended the gateway: {said}");
    }
    Ok(())
}

#[test]
fn a_panic_in_any_thread_unkeys_and_the_gateway_comes_back() -> Result<()> {
    let service = Service::start()?;
    for thread in ["control", "audit"] {
        service.key()?;
        let pid = service.pid()?;
        let address = std::fs::read_to_string("/host/panic-address")?;
        threads::panic(pid.try_into()?, thread, u64::from_str_radix(address.trim(), 16)?)?;
        service.chip.wait_until(KEYED, false)?;
        service.wait_back(pid).with_context(|| thread.to_owned())?;
        let said = journal();
        ensure!(said.contains("panicked at"), "something else ended the gateway: {said}");
    }
    Ok(())
}

/// As a technician upgrades: by `dpkg`, in the middle of an event.
#[test]
#[ignore = "needs a package and a newer one; `./dev test deb` brings them"]
fn an_upgrade_in_mid_burst_unkeys_and_is_back_in_seconds() -> Result<()> {
    let chip = Chip::for_board(BOARD)?;
    std::fs::create_dir_all("/etc/crosspatch")?;
    let configured = config(str::to_owned);
    std::fs::write(CONFIG, &configured)?;
    std::fs::write("/etc/crosspatch/board.toml", BOARD)?;
    run("dpkg", &["--install", "/host/old.deb"])?;
    let service = Service { chip };
    let version = || run("dpkg-query", &["--show", "--showformat=${Version}", "crosspatch"]);
    let old = version()?;
    service.key()?;
    let pid = service.pid()?;

    let began = Instant::now();
    let upgrade = std::thread::spawn(|| run("dpkg", &["--install", "/host/new.deb"]));
    // The old version talks on while the new one is unpacked, however long that takes.
    while service.chip.is_active(KEYED)? {
        ensure!(!upgrade.is_finished(), "it is keyed after the upgrade: {}", journal());
        sleep(Duration::from_millis(2));
    }
    let unkeyed = began.elapsed();
    service.wait_back(pid)?;
    let outage = began.elapsed() - unkeyed;
    upgrade.join().expect("it only runs dpkg")?;
    println!("unkeyed {unkeyed:?} after the upgrade began, keyed again {outage:?} later");
    ensure!(version()? != old, "it is still version {old}");
    assert_eq!(std::fs::read_to_string(CONFIG)?, configured);
    let rows = audit::tail(Path::new(AUDIT), 0, usize::MAX)?;
    ensure!(rows.iter().any(|row| row.action == "system.stop"), "it did not end by itself: {rows:#?}");
    Ok(())
}

/// Stops one thread for good. What is returned ends when the thread does.
fn hang(thread: Pid) -> Result<std::thread::JoinHandle<()>> {
    let (stopped, is_stopped) = std::sync::mpsc::channel();
    let tracer = std::thread::spawn(move || {
        stopped.send(threads::stop(thread)).expect("somebody waits");
        // The dead thread is there until its tracer has taken note.
        waitpid(thread, Some(WaitPidFlag::__WALL)).ok();
    });
    is_stopped.recv()??;
    Ok(tracer)
}

#[test]
fn a_start_that_fails_is_tried_again_until_it_does_not() -> Result<()> {
    let service = Service::start()?;
    let good = std::fs::read_to_string(CONFIG)?;
    std::fs::write(CONFIG, good.replace("channel = \"ops\"", "channel = \"oops\""))?;
    let restarts = |least: u32| -> Result<()> {
        let began = Instant::now();
        while service.show("NRestarts")?.parse::<u32>()? < least {
            ensure!(began.elapsed() < 2 * SOON, "it is not tried again: {}", journal());
            sleep(Duration::from_millis(100));
        }
        Ok(())
    };
    let pid = service.pid()?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    restarts(3)?;
    std::fs::write(CONFIG, good)?;
    service.wait_back(pid)
}

#[test]
fn a_gateway_without_its_chip_is_ready_and_has_it_when_it_comes() -> Result<()> {
    let service = Service::start()?;
    run("systemctl", &["stop", UNIT])?;
    service.chip.unplug()?;
    run("systemctl", &["start", UNIT]).with_context(journal)?;
    let pid = service.pid()?;
    service.chip.plug_in()?;
    service.key()?;
    assert_eq!(service.pid()?, pid);
    Ok(())
}

/// What a program in the service's place may not do, one line of sh each.
const FORBIDDEN: &[&str] = &[
    "echo x >/etc/crosspatch/x",
    "echo x >/usr/bin/x",
    "echo x >/home/x",
    "ls /root/.",
    "head -c 1 /dev/mem",
    "head -c 1 /dev/vda",
    "head -c 1 /dev/kmsg",
    "head -c 1 /dev/uinput",
    "echo 1 >/proc/sys/kernel/printk",
    "echo x >/sys/kernel/config/x",
    "mount -t tmpfs none /tmp",
    "unshare -U true",
    "chmod u+s /var/lib/crosspatch/own",
    "strace -o /dev/null true",
    "perl -e 'use Socket; socket(S, 17, SOCK_RAW, 0) or exit 1'",
    "perl -e 'syscall(9, 0, 4096, 7, 0x22, -1, 0) > 0 or exit 1'",
    "kill -0 1",
];

/// What it must be able to do.
const ALLOWED: &[&str] = &[
    "echo x >/var/lib/crosspatch/own",
    "cat /etc/crosspatch/crosspatch.toml",
    "gpioinfo gpiochip0",
    "perl -e 'use Socket; socket(S, AF_INET, SOCK_DGRAM, 0) or exit 1'",
];

#[test]
fn the_sandbox_denies_what_the_gateway_does_not_need() -> Result<()> {
    let service = Service::start()?;
    run("systemctl", &["stop", UNIT])?;
    // The same sandbox around other programs.
    let unit = std::fs::read_to_string(Path::new("/usr/lib/systemd/system").join(UNIT))?;
    let own = |line: &&str| {
        !["Type=", "ExecStart", "ExecReload=", "Restart", "Watchdog", "NotifyAccess="]
            .iter()
            .any(|key| line.starts_with(key))
    };
    let sandbox: Vec<&str> = unit.lines().filter(own).collect();
    let probe = sandbox.join("\n").replace("[Service]", "[Service]\nType=oneshot\nExecStart=/bin/sh /run/probe.sh");
    std::fs::write("/run/systemd/system/probe.service", probe)?;
    let lines = ALLOWED.iter().chain(FORBIDDEN);
    let script: String = lines
        .map(|line| format!("if ({line}) >/dev/null 2>&1; then echo \"may: $(cat <<'Q'\n{line}\nQ\n)\"; fi\n"))
        .collect();
    std::fs::write("/run/probe.sh", script)?;
    run("systemctl", &["daemon-reload"])?;
    run("systemctl", &["start", "probe"])?;
    let may = run("journalctl", &["--no-pager", "-o", "cat", "-u", "probe"])?;
    for line in ALLOWED {
        ensure!(may.lines().any(|said| said == format!("may: {line}")), "it may not: {line}\n{may}");
    }
    for line in FORBIDDEN {
        ensure!(!may.lines().any(|said| said == format!("may: {line}")), "it may: {line}");
    }
    drop(service);
    Ok(())
}

#[test]
fn systemd_calls_the_exposure_of_the_unit_two_or_less() -> Result<()> {
    let _service = Service::start()?;
    let report = run("systemd-analyze", &["security", "--no-pager", "--threshold=20", UNIT])?;
    println!("{}", report.lines().last().unwrap_or_default());
    Ok(())
}
