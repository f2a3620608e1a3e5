//! What the audit takes of the disk, and that it takes nothing of the floor.
//!
//! `cargo bench --bench audit -- [--records 1000000] [--presses 300] [--dir DIR]`
//!
//! Every commit is synced, as in the gateway. `--dir` is where the files are made: the disk that is measured.

#[expect(dead_code, reason = "the tests and the other benchmarks use the rest")]
#[path = "../tests/native/mod.rs"]
mod native;

use anyhow::{Context, Result, ensure};
use crosspatch::audit::{self, Audit, Filter, Stamped, Trust};
use crosspatch::base::clock::{mono_now, unix_ms_now};
use crosspatch::base::{Action, BurstId, Record, Role, WallStamp};
use native::figures::{millis, percentile};
use native::gateway::Gateway;
use native::signaling::Signaling;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Records that are under way at once when as many as possible are written.
const UNDER_WAY: u64 = 4000;
/// Rounds of the slow measurements.
const ROUNDS: usize = 100;

struct Arguments {
    records: u64,
    presses: usize,
    dir: PathBuf,
}

impl Arguments {
    fn read() -> Result<Self> {
        let mut arguments = Arguments { records: 1_000_000, presses: 300, dir: std::env::temp_dir() };
        let mut given = std::env::args().skip(1).filter(|argument| argument != "--bench");
        while let Some(name) = given.next() {
            let value = given.next().with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--records" => arguments.records = value.parse()?,
                "--presses" => arguments.presses = value.parse()?,
                "--dir" => arguments.dir = value.into(),
                _ => anyhow::bail!("there is no argument {name}"),
            }
        }
        Ok(arguments)
    }
}

/// What ordinary traffic writes: presses, grants, releases, some denials, all on four channels by fifty people.
fn ordinary(n: u64) -> Stamped {
    let (user, channel) =
        (format!("user-{}", n / 4 % 50), ["ops", "medical", "security", "logistics"][(n / 4 % 4) as usize]);
    let press = json!({ "line": "desk.ptt.ops", "stampNs": n * 1000 });
    let release = json!({ "line": "desk.ptt.ops", "stampNs": n * 1000, "pressNs": n * 900, "heldMs": 3420.125 });
    let (action, detail) = match n % 4 {
        0 => (Action::GpioPress, press),
        1 => (Action::PttStart, serde_json::Value::Null),
        2 => (Action::PttStop, json!({ "durationMs": 3_400 + n % 1000 })),
        _ => (Action::GpioRelease, release),
    };
    let record = Record::new(action).by(&user.as_str().into(), "Ordinary Name", Role::General);
    stamped(record.on(&channel.into()).in_burst(BurstId(n / 4)).with(detail), n)
}

fn stamped(record: Record, n: u64) -> Stamped {
    let wall = WallStamp { unix_ms: 1_750_000_000_000 + n * 1000, synchronised: true };
    Stamped { record, mono: mono_now(), wall }
}

fn stored(path: &Path) -> Result<i64> {
    let db = rusqlite::Connection::open(path)?;
    Ok(db.query_row("SELECT coalesce(max(seq), 0) FROM audit", (), |row| row.get(0))?)
}

/// As many records as possible, never more under way than the queue takes: how long all took, and how long each was on
/// its way to the disk.
fn fill(audit: &Audit, from: u64, records: u64) -> Result<(Duration, Vec<Duration>)> {
    let begin = Instant::now();
    let (mut queued, mut times) = (Vec::with_capacity(UNDER_WAY as usize), Vec::new());
    for n in 0..records {
        queued.push(Instant::now());
        audit.write(ordinary(from + n));
        if n % UNDER_WAY == UNDER_WAY - 1 || n == records - 1 {
            audit.flush()?;
            times.extend(queued.drain(..).map(|at| at.elapsed()));
        }
    }
    ensure!(audit.lost() == 0, "records were lost");
    Ok((begin.elapsed(), times))
}

/// How long after `write` a record can be read by somebody else, who sees only what is committed and synced.
fn to_disk(audit: &Audit, path: &Path, action: Action) -> Result<Vec<Duration>> {
    let db = rusqlite::Connection::open(path)?;
    let mut newest = db.prepare("SELECT max(seq) FROM audit")?;
    let mut times = Vec::new();
    for n in 0..ROUNDS as u64 {
        let before: i64 = newest.query_row((), |row| row.get(0))?;
        let begin = Instant::now();
        audit.write(stamped(Record::new(action), n));
        while newest.query_row((), |row| row.get::<_, i64>(0))? == before {
            std::thread::yield_now();
        }
        times.push(begin.elapsed());
    }
    Ok(times)
}

/// How long the caller is kept: all that the control loop pays.
fn calls(audit: &Audit) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for n in 0..20_000 {
        let record = ordinary(n);
        let begin = Instant::now();
        audit.write(record);
        times.push(begin.elapsed());
        if n % UNDER_WAY == UNDER_WAY - 1 {
            audit.flush()?;
        }
    }
    Ok(times)
}

/// Bytes that this process has had written to disks.
fn written() -> Result<u64> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).context("no write_bytes")?;
    Ok(line.parse()?)
}

/// Bytes that one burst costs: a commit for its start and its press, one for its end.
fn wear(audit: &Audit) -> Result<f64> {
    let (before, bursts) = (written()?, 500);
    for burst in 0..bursts {
        for half in 0..2 {
            audit.write(ordinary(4 * burst + 2 * half));
            audit.write(ordinary(4 * burst + 2 * half + 1));
            audit.flush()?;
        }
    }
    Ok((written()? - before) as f64 / bursts as f64)
}

fn timed<T>(name: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    let done = run()?;
    println!("| {name} | {:.1} ms |", millis(begin.elapsed()));
    Ok(done)
}

/// Request to grant over a WebSocket, with the audit on its disk and without one.
async fn grants(gateway: &Gateway, presses: usize) -> Result<Vec<Duration>> {
    let mut anna = Signaling::connect(gateway, &gateway.token("anna", "general", "ops")?).await?;
    let ops = json!({ "channelId": "ops" });
    anna.ask("join-channel", ops.clone()).await?;
    let mut times = Vec::new();
    for _ in 0..presses {
        let begin = Instant::now();
        let granted = anna.ask("ptt-start", ops.clone()).await?;
        times.push(begin.elapsed());
        ensure!(granted["success"] == true, "{granted}");
        anna.ask("ptt-stop", ops.clone()).await?;
        tokio::time::sleep(Duration::from_millis(42)).await; // nobody may ask more than 50 times a second
    }
    Ok(times)
}

fn row(name: &str, times: &mut [Duration]) {
    let mut at = |q| percentile(times, q, Duration::from_millis(1));
    println!("| {name} | {:.3} ms | {:.3} ms |", at(0.5), at(0.99));
}

fn main() -> Result<()> {
    let Arguments { records, presses, dir } = Arguments::read()?;
    let dir = TempDir::new_in(dir)?;
    let path = dir.path().join("audit.sqlite");
    let (audit, thread) = audit::open(&path, "bench")?;

    println!("| | p50 | p99 |\n| --- | --- | --- |");
    row("`write`: what the control loop pays", &mut calls(&audit)?);
    row("emergency or pre-emption, from `write` to disk", &mut to_disk(&audit, &path, Action::EmergencyStart)?);
    row("anything else, from `write` to disk", &mut to_disk(&audit, &path, Action::PttStart)?);
    let wear = wear(&audit)?;

    let from = u64::try_from(stored(&path)?)?;
    let (took, mut times) = fill(&audit, from, records)?;
    thread.finish();
    let bytes = std::fs::metadata(&path)?.len();
    let total = stored(&path)?;
    let per_million = bytes as f64 / total as f64;
    row("any record at the highest rate, from `write` to disk", &mut times);
    println!("\n{:.0} records a second sustained, synced every {UNDER_WAY}", records as f64 / took.as_secs_f64());
    println!("{per_million:.0} MB for a million records");
    println!("{:.1} kB written for a burst, {:.1} MB for an hour with 300 of them\n", wear / 1e3, wear * 300.0 / 1e6);

    println!("| with {total} records | |\n| --- | --- |");
    let start = 1_750_000_000_000 + from * 1000;
    let iso = |seconds: u64| audit::iso_8601(start + 1000 * seconds);
    let count = |filter: Filter| {
        let mut found = 0_u64;
        audit::query(&path, &filter, |_| {
            found += 1;
            true
        })?;
        Ok(found)
    };
    let newest = Filter { newest: Some(100), ..Filter::default() };
    timed("the newest 100", || count(newest.clone()))?;
    timed("the newest 100 of a person", || count(Filter { person: Some("user-7".into()), ..newest.clone() }))?;
    let hour = Filter { from: Some(iso(records / 2)), until: Some(iso(records / 2 + 3600)), ..Filter::default() };
    let found = timed("an hour in the middle", || count(hour.clone()))?;
    ensure!(found == 3600 || records < 10_000, "{found} records in the hour");
    timed("all of a kind, none there", || count(Filter { kinds: vec!["security".into()], ..Filter::default() }))?;
    timed("export of that hour", || {
        Ok(audit::export(&path, hour.from.as_deref(), hour.until.as_deref(), &mut std::io::sink())?)
    })?;
    let verdict = timed("verification of everything", || Ok(audit::verify(&path, &Trust::default())?))?;
    ensure!(verdict.broken.is_none(), "{verdict:?}");
    let began = unix_ms_now();
    let (_audit, thread) = timed("opening it, until the gateway goes on", || Ok(audit::open(&path, "bench")?))?;
    thread.finish();
    ensure!(unix_ms_now() >= began, "the clock runs");

    println!("\n| request to grant | p50 | p99 |\n| --- | --- | --- |");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let on_disk = Gateway::demo_in(dir.path()).await?;
        let without =
            Gateway::demo_prepared(dir.path(), |state| std::fs::create_dir(state.join("audit.sqlite"))).await?;
        for _ in 0..2 {
            row("with the audit on its disk", &mut grants(&on_disk, presses).await?);
            row("with an audit that has no disk", &mut grants(&without, presses).await?);
        }
        Ok(())
    })
}
