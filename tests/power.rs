//! What a power cut leaves of the audit. Run in a virtual machine whose power is really cut: `tests/vm/power`.
//!
//! The machine starts again and again on the same disk. Each time this first judges what the cut before has left, then
//! writes as a busy event does, and says all the time how far the disk has got. At a moment that nobody chose it asks
//! for the power to be cut, and goes on writing.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use crosspatch::audit::{self, Audit, Filter, Stamped, Trust};
use crosspatch::base::clock::{mono_now, unix_ms_now};
use crosspatch::base::{Action, BurstId, Mono, Record, Role, WallStamp};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Records a second, and every which of them is an emergency.
const PACE: Duration = Duration::from_millis(20);
const EMERGENCY: u64 = 25;
/// How long the load runs before the cut, at least and at most.
const CUT_AFTER_MS: (u64, u64) = (1_500, 6_500);
/// How long after a cut was asked for the machine may still run.
const CUT_WITHIN: Duration = Duration::from_secs(60);

fn grant(n: u64) -> Stamped {
    let action = if n.is_multiple_of(EMERGENCY) { Action::EmergencyArmed } else { Action::PttStart };
    let record = Record::new(action).by(&"u1".into(), "Ann", Role::Dispatch).on(&"ops".into()).in_burst(BurstId(n));
    let wall = WallStamp { unix_ms: unix_ms_now(), synchronised: false };
    Stamped { record: record.with(json!({ "n": n })), mono: mono_now(), wall }
}

/// The highest number of our own records that is on disk: readers see what is synced only.
fn on_disk(path: &Path) -> Option<u64> {
    let mut last = None;
    let filter = Filter {
        burst: None,
        kinds: vec!["ptt".into(), "emergency_broadcast".into()],
        newest: Some(1),
        ..Filter::default()
    };
    audit::query(path, &filter, |row| {
        last = row.detail["n"].as_u64();
        true
    })
    .ok()?;
    last
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// Judges what is there: the chain is whole, nothing that was on disk is missing, nothing between is.
fn judge(path: &Path, promised: u64, handed: u64) {
    let verdict = audit::verify(path, &Trust::default()).unwrap();
    assert_eq!(verdict.broken, None, "the chain is broken: {verdict:?}");
    let (mut numbers, mut crashes) = (Vec::new(), 0);
    audit::query(path, &Filter::default(), |row| {
        numbers.extend(row.detail["n"].as_u64());
        crashes += u32::from(row.action == "system.crash_found");
        true
    })
    .unwrap();
    let left = numbers.last().copied().unwrap_or(0);
    assert_eq!(numbers, (1..=left).collect::<Vec<_>>(), "a record in the middle is missing");
    assert!(left >= promised, "record {promised} was on disk and is not there any more; the last one is {left}");
    let lost = handed.saturating_sub(left);
    say(&format!(
        "judged: {left} records, {crashes} crashes told of, whole; lost {lost} = {} ms",
        lost * PACE.as_millis() as u64
    ));
    assert!(lost * PACE.as_millis() as u64 <= 3_000, "{lost} records were lost");
}

#[test]
#[ignore = "needs a machine whose power is cut: tests/vm/power"]
fn a_power_cut_takes_nothing_that_was_on_disk() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let path: PathBuf = std::env::var_os("POWER_DIR").unwrap().into();
    let path = path.join("audit.sqlite");
    let (promised, handed) = (number("POWER_PROMISED").unwrap_or(0), number("POWER_HANDED").unwrap_or(0));
    if path.exists() {
        judge(&path, promised, handed);
    }
    let (audit, thread) = audit::open(&path, &mono_now().0.to_string()).unwrap();
    assert_eq!(audit.set_aside(), None, "a power cut has damaged the file");
    assert_eq!(audit.health().broken, None);
    if number("POWER_LAST").is_some() {
        thread.finish();
        return;
    }
    load(&audit, &path, on_disk(&path).unwrap_or(0));
}

/// Writes and tells until the power goes.
fn load(audit: &Audit, path: &Path, from: u64) {
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).unwrap();
    let span = CUT_AFTER_MS.1 - CUT_AFTER_MS.0;
    let cut_at = Instant::now() + Duration::from_millis(CUT_AFTER_MS.0 + u64::from_ne_bytes(seed) % span);
    let handed = Arc::new(AtomicU64::new(from));
    let (told, file) = (handed.clone(), path.to_owned());
    std::thread::spawn(move || {
        loop {
            let handed = told.load(SeqCst);
            if let Some(durable) = on_disk(&file) {
                say(&format!("durable {durable} handed {handed}"));
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
    });
    let begin: Mono = mono_now();
    let mut asked = false;
    for n in from + 1.. {
        audit.write(grant(n));
        handed.store(n, SeqCst);
        if !asked && Instant::now() >= cut_at {
            asked = true;
            say("CUT THE POWER");
        }
        assert!(Instant::now() < cut_at + CUT_WITHIN, "nobody cuts the power");
        let due = begin + PACE * u32::try_from(n - from).unwrap();
        std::thread::park_timeout(due.since(mono_now()));
    }
}
