//! The transmit watchdog, with nothing else of the program left to help it.

use crate::bench::{Bench, config};
use anyhow::{Result, ensure};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

const WATCH: &str = "transmit watch";
/// The port's time-out, and what the watchdog gives on top.
const DUE: Duration = Duration::from_secs(10 + 5);

/// All threads of a process but one stand still until this is dropped, by the thread that made it.
struct AllButOne(Vec<Pid>);

impl AllButOne {
    fn stop(pid: u32, but: &str) -> Result<Self> {
        let mut stopped = AllButOne(Vec::new());
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?;
            if std::fs::read_to_string(task.path().join("comm"))?.trim() == but {
                continue;
            }
            let thread = Pid::from_raw(task.file_name().to_string_lossy().parse()?);
            ptrace::seize(thread, ptrace::Options::empty())?;
            ptrace::interrupt(thread)?;
            waitpid(thread, Some(WaitPidFlag::__WALL))?;
            stopped.0.push(thread);
        }
        Ok(stopped)
    }
}

impl Drop for AllButOne {
    fn drop(&mut self) {
        for thread in &self.0 {
            ptrace::detach(*thread, None).ok(); // the process may have been killed meanwhile
        }
    }
}

#[tokio::test]
async fn the_transmit_watchdog_unkeys_though_every_other_thread_hangs() -> Result<()> {
    let config = config(|demo| {
        let name = "name = \"VHF 1\"\n";
        demo.replace(name, &format!("{name}transmit_timeout_s = 10\n"))
    });
    ensure!(config.contains("transmit_timeout_s"), "the demo has another radio now");
    let bench = Bench::with_config(&config).await?;
    bench.chip.move_line("desk.ptt.security", true)?;
    bench.chip.wait_until("radio.vhf.ptt", true)?;
    let keyed = Instant::now();
    let stopped = AllButOne::stop(bench.gateway.pid(), WATCH)?;
    ensure!(stopped.0.len() > 10, "only {} threads were stopped", stopped.0.len());
    bench.chip.wait_until("radio.vhf.ptt", false)?;
    let took = keyed.elapsed();
    println!("unkeyed {took:?} after it was keyed, with {} threads that hang", stopped.0.len());
    // Seen a moment after it was keyed; the guest may stand still for a while.
    ensure!(took > DUE - Duration::from_secs(2), "something else unkeyed it, after {took:?}");
    Ok(())
}
