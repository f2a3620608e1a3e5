//! Single threads of other processes: found by name, stopped, and made to panic.

use anyhow::{Context, Result, bail, ensure};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

/// A thread of a process, by its name; the first one has the program's.
pub fn named(pid: u32, name: &str) -> Result<Pid> {
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?;
        if std::fs::read_to_string(task.path().join("comm"))?.trim() == name {
            return Ok(Pid::from_raw(task.file_name().to_string_lossy().parse()?));
        }
    }
    bail!("the process {pid} has no thread '{name}'")
}

/// Stops one thread. It stays so until the caller, one and the same thread, lets it go.
pub fn stop(thread: Pid) -> nix::Result<()> {
    ptrace::seize(thread, ptrace::Options::empty())?;
    ptrace::interrupt(thread)?;
    waitpid(thread, Some(WaitPidFlag::__WALL)).map(drop)
}

/// Waits until a thread waits for its card: then it is in the middle of nothing else.
#[cfg(target_arch = "x86_64")]
pub fn wait_polling(pid: u32, name: &str) -> Result<()> {
    const POLL: &str = "7 ";
    let began = Instant::now();
    let call = format!("/proc/{pid}/task/{}/syscall", named(pid, name)?);
    while !std::fs::read_to_string(&call)?.starts_with(POLL) {
        ensure!(began.elapsed() < SOON, "the thread '{name}' never waits for its card");
    }
    Ok(())
}

/// Where a program's threads are sent that are to panic, from where the program is loaded.
pub fn panic_address(program: &Path) -> Result<u64> {
    let listed = Command::new("nm").arg(program).output().context("there is no nm; install binutils")?;
    ensure!(listed.status.success(), "nm does not list {}", program.display());
    let names = String::from_utf8(listed.stdout)?;
    let line = names.lines().find(|line| line.contains(" T ") && line.ends_with("panic_cannot_unwind"));
    let address = line.and_then(|line| line.split(' ').next()).context("the program has no function that panics")?;
    Ok(u64::from_str_radix(address, 16)?)
}

/// Has a thread panic where it stands, as by a fault that nobody knows yet.
#[cfg(target_arch = "x86_64")]
pub fn panic(pid: u32, thread: &str, address: u64) -> Result<()> {
    let panicking = named(pid, thread)?;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let base = u64::from_str_radix(maps.split('-').next().context("no maps")?, 16)?;
    stop(panicking)?;
    let mut registers = ptrace::getregs(panicking)?;
    registers.rip = base + address;
    // As after a call: the stack is aligned but for the address to return to. No system call is to be repeated.
    registers.rsp = ((registers.rsp - 256) & !15) - 8;
    registers.orig_rax = u64::MAX;
    ptrace::setregs(panicking, registers)?;
    Ok(ptrace::detach(panicking, None)?)
}
