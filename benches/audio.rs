//! What a radio port costs, and how late sound is.
//!
//! `cargo bench --bench audio -- [--seconds 20]`
//!
//! *Inside*: the gateway's own audio and media threads in this process, with devices that keep time as a card does, write
//! down when each sample passed them, and what the thread used between two of its visits. *Outside*: the release binary
//! with the null sinks of a sound server of our own as its sound cards, and native clients.

#[path = "audio/inside.rs"]
mod inside;
#[expect(dead_code, reason = "the tests and the other benchmarks use the rest")]
#[path = "../tests/native/mod.rs"]
mod native;
#[path = "audio/outside.rs"]
mod outside;

use anyhow::{Result, ensure};
use clap::Parser;
use native::sound::SoundServer;
use std::process::Command;

/// Set where the sound server's sinks can be found. The environment of a running process is not changed, so the benchmark
/// runs itself again.
const WITH_SOUND: &str = "CROSSPATCH_BENCH_WITH_SOUND";

#[derive(Parser)]
struct Options {
    /// For how long sound goes each way.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Cargo says so.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if std::env::var_os(WITH_SOUND).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        return runtime.block_on(outside::run(options.seconds));
    }
    inside::run(options.seconds)?;
    let server = SoundServer::start(&outside::SINKS)?;
    let mut again = Command::new(std::env::current_exe()?);
    again.args(["--seconds", &options.seconds.to_string()]).envs(server.environment()).env(WITH_SOUND, "1");
    ensure!(again.status()?.success(), "the second half failed");
    Ok(())
}
