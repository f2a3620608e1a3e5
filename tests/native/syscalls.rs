//! What a thread asks of the kernel: every system call of it, seen through ptrace.

use super::threads;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The system calls that a thread made in so long, by what they are: their number, and for those that name an open file, as
/// `write` does, that file.
pub fn of_thread(pid: u32, name: &str, time: Duration) -> Result<BTreeMap<(i64, String), usize>> {
    let thread = threads::named(pid, name)?;
    ptrace::seize(thread, ptrace::Options::PTRACE_O_TRACESYSGOOD)?;
    ptrace::interrupt(thread)?;
    let (began, mut calls) = (Instant::now(), BTreeMap::new());
    let mut enters = false;
    while began.elapsed() < time {
        match waitpid(thread, Some(WaitPidFlag::__WALL))? {
            WaitStatus::PtraceSyscall(_) => {
                enters = !enters;
                if enters {
                    *calls.entry(call(pid, thread)?).or_default() += 1;
                }
            }
            WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..) => {}
            ended @ (WaitStatus::Exited(..)
            | WaitStatus::Signaled(..)
            | WaitStatus::Continued(_)
            | WaitStatus::StillAlive) => bail!("'{name}' has ended: {ended:?}"),
        }
        ptrace::syscall(thread, None)?;
    }
    // It is let go where it stops next.
    waitpid(thread, Some(WaitPidFlag::__WALL))?;
    ptrace::detach(thread, None)?;
    Ok(calls)
}

/// What a stopped thread is about to call.
fn call(pid: u32, thread: Pid) -> Result<(i64, String)> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/syscall"))?;
    let mut words = line.split_whitespace();
    let number = words.next().context("no call")?.parse()?;
    if ![nix::libc::SYS_write, nix::libc::SYS_writev, nix::libc::SYS_sendto].contains(&number) {
        return Ok((number, String::new()));
    }
    let file = words.next().and_then(|word| word.strip_prefix("0x")).context("no file")?;
    let file = std::fs::read_link(format!("/proc/{pid}/fd/{}", i64::from_str_radix(file, 16)?))?;
    Ok((number, file.display().to_string()))
}

/// Fails if an audio thread did anything else than to look at the clock, wait for time or its card, and wake another thread.
pub fn are_those_of_an_audio_thread(calls: &BTreeMap<(i64, String), usize>) -> Result<()> {
    // What waits begins again after it was stopped to be looked at.
    use nix::libc::{
        SYS_clock_gettime, SYS_clock_nanosleep, SYS_ioctl, SYS_ppoll, SYS_restart_syscall, SYS_sendto, SYS_write,
    };
    let may = |(number, file): &(i64, String)| {
        [SYS_clock_gettime, SYS_clock_nanosleep, SYS_ioctl, SYS_ppoll, SYS_restart_syscall].contains(number)
            || cfg!(target_arch = "x86_64") && *number == 7 // poll, which newer machines do not have
            || *number == SYS_write && file.contains("[eventfd]") // wakes the media thread
            || *number == SYS_sendto && file.starts_with("socket:") // rings for the loop
    };
    let others: Vec<_> = calls.iter().filter(|(call, _)| !may(call)).collect();
    ensure!(others.is_empty(), "it also called {others:?}; futex, {}, is a lock", nix::libc::SYS_futex);
    ensure!(calls.values().sum::<usize>() > 20, "it hardly ran: {calls:?}");
    Ok(())
}
