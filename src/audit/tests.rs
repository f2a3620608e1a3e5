use super::*;
use crate::base::{Action, BurstId, Role, clock};
use serde_json::json;

fn stamped(record: Record) -> Stamped {
    let wall = WallStamp { unix_ms: 1_700_000_000_123, synchronised: true };
    Stamped { record, mono: Mono::from_millis(5), wall }
}

fn grant(n: u64) -> Stamped {
    let record = Record::new(Action::PttStart)
        .by(&"u1".into(), "Ann", Role::Dispatch)
        .on(&"ops".into())
        .in_burst(BurstId(n))
        .because("pressed")
        .with(json!({ "n": n }));
    stamped(record)
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.sqlite");
    (dir, path)
}

#[test]
fn what_is_written_is_read_back() {
    let (_dir, path) = file();
    let (audit, thread) = open(&path, "boot-1").unwrap();
    audit.write(grant(12));
    audit.write(stamped(Record::new(Action::SystemStop)));
    thread.finish();

    let rows = tail(&path, 0, 10).unwrap();
    assert_eq!(
        serde_json::to_value(&rows[0]).unwrap(),
        json!({
            "seq": 1, "utc": "2023-11-14T22:13:20.123Z", "mono_ns": 5_000_000, "boot_id": "boot-1",
            "clock_ok": true, "action": "ptt.start", "actor": "u1", "actor_name": "Ann",
            "role": "DISPATCH", "channel": "ops", "target": null, "cause": "pressed",
            "burst": "b12", "detail": { "n": 12 }, "hash": rows[0].hash
        })
    );
    assert_eq!(rows[1].action, "system.stop");
    assert_eq!(rows[1].detail, serde_json::Value::Null);
    assert_eq!(tail(&path, 1, 10).unwrap(), rows[1..]);
    assert_eq!(tail(&path, 0, 1).unwrap(), rows[..1]);
    assert_eq!(last_wall_ms(&path), Some(1_700_000_000_123));
}

#[test]
fn the_sequence_goes_on_after_a_restart() {
    let (_dir, path) = file();
    for boot_id in ["boot-1", "boot-2"] {
        let (audit, thread) = open(&path, boot_id).unwrap();
        audit.write(grant(1));
        audit.write(stamped(Record::new(Action::SystemStop)));
        thread.finish();
    }
    let rows = tail(&path, 0, 10).unwrap();
    let seen: Vec<_> = rows.iter().map(|r| (r.seq, r.boot_id.as_str())).collect();
    assert_eq!(seen, [(1, "boot-1"), (2, "boot-1"), (3, "boot-2"), (4, "boot-2")]);
}

#[test]
fn an_urgent_record_takes_the_queued_ones_along_at_once() {
    let (_dir, path) = file();
    let mut writer = writer::Writer::new(&path, "boot", Arc::default(), queue(1).0.queue_sender).unwrap();
    let now = std::time::Instant::now();
    writer.take(Message::Write(Box::new(grant(1))), now);
    assert_eq!(writer.due(), Some(now + writer::GROUP_DELAY));
    writer.take(Message::Write(Box::new(stamped(Record::new(Action::EmergencyStart)))), now);
    assert_eq!(writer.due(), Some(now));
}

#[test]
fn an_urgent_record_reaches_the_disk_without_a_flush() {
    let (_dir, path) = file();
    let (audit, thread) = open(&path, "boot").unwrap();
    audit.write(stamped(Record::new(Action::EmergencyStart)));
    while tail(&path, 0, 1).unwrap().is_empty() {
        std::thread::yield_now();
    }
    thread.finish();
}

#[test]
fn a_damaged_file_is_set_aside_and_a_new_one_started() {
    let (_dir, path) = file();
    std::fs::write(&path, "this is no database, however long it may go on".repeat(100)).unwrap();
    let (audit, thread) = open(&path, "boot").unwrap();
    let aside = thread.set_aside().unwrap();
    assert_eq!(audit.set_aside().as_ref(), Some(&aside));
    assert!(std::fs::read(&aside).unwrap().starts_with(b"this is no database"));
    assert!(aside.to_str().unwrap().contains("audit.sqlite.damaged-"));
    audit.write(grant(1));
    audit.flush().unwrap();
    let rows = tail(&path, 0, 10).unwrap();
    assert_eq!(rows.iter().map(|row| row.action.as_str()).collect::<Vec<_>>(), ["system.audit_set_aside", "ptt.start"]);
    assert_eq!(rows[0].detail, json!({ "file": aside }));
    thread.finish();
}

#[test]
fn a_page_torn_in_the_middle_is_found_after_the_start_and_the_file_set_aside() {
    let (_dir, path) = file();
    let (audit, thread) = open(&path, "boot").unwrap();
    (1..=2000).for_each(|n| audit.write(grant(n)));
    thread.finish();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0xAA);
    std::fs::write(&path, bytes).unwrap();

    let (audit, thread) = open(&path, "boot").unwrap();
    let aside = wait("the file is set aside", || thread.set_aside());
    assert!(std::fs::metadata(aside).unwrap().len() > 100_000);
    audit.write(grant(1));
    thread.finish();
    let actions: Vec<_> = tail(&path, 0, 10).unwrap().into_iter().map(|row| row.action).collect();
    assert_eq!(actions, ["system.audit_set_aside", "ptt.start"]);
}

/// Waits for something that a thread does, and returns it.
fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "not yet: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_disk_that_comes_late_has_wall_time_go_on_from_its_last_record() {
    let dir = tempfile::tempdir().unwrap();
    let (mounted, path) = (dir.path().join("disk"), dir.path().join("data").join("audit.sqlite"));
    std::fs::create_dir(&mounted).unwrap();
    let last = clock::unix_ms_now() + 3_600_000;
    let wall = |unix_ms| WallStamp { unix_ms, synchronised: false };
    let (audit, thread) = open(&mounted.join("audit.sqlite"), "boot-1").unwrap();
    audit.write(Stamped { wall: wall(last), ..grant(1) });
    thread.finish();

    let (audit, thread) = open(&path, "boot-2").unwrap();
    let early = audit.wall().now();
    assert!(early.unix_ms < last, "nobody can know it yet");
    audit.write(Stamped { wall: early, ..grant(2) });
    std::fs::rename(&mounted, path.parent().unwrap()).unwrap();
    audit.flush().unwrap();
    assert!(audit.wall().now().unix_ms >= last);
    thread.finish();
    let rows = tail(&path, 0, 10).unwrap();
    let utc: Vec<_> = rows.iter().filter(|row| row.action == "ptt.start").map(|row| row.utc.clone()).collect();
    assert_eq!(utc, [iso_8601(last), iso_8601(last)]);
}

#[test]
fn a_newer_file_is_refused_and_left_alone() {
    let (_dir, path) = file();
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    assert!(matches!(open(&path, "boot"), Err(AuditError::Newer { found: 99, .. })));
    assert!(path.exists());
}

#[test]
fn a_full_queue_is_counted_and_told_once_it_has_room() {
    let (_dir, path) = file();
    let (audit, queue_receiver) = queue(4);
    (1..=7).for_each(|n| audit.write(grant(n)));
    assert_eq!(audit.lost(), 3);

    let thread = start(&path, "boot", &audit, queue_receiver).unwrap();
    audit.flush().unwrap();
    audit.write(grant(8));
    thread.finish();
    let rows = tail(&path, 0, 10).unwrap();
    assert_eq!(rows.len(), 6);
    assert_eq!(rows[4].action, "system.audit_lost");
    let utc = "2023-11-14T22:13:20.123Z";
    let told = json!({ "lost": 3, "firstUtc": utc, "firstMonoNs": 5_000_000, "lastUtc": utc, "lastMonoNs": 5_000_000 });
    assert_eq!(rows[4].detail, told);
    assert_eq!(rows[5].burst.as_deref(), Some("b8"));
}

#[test]
fn a_disk_that_comes_back_gets_what_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("not-mounted").join("audit.sqlite");
    let (audit, thread) = open(&path, "boot").unwrap();
    audit.write(grant(1));
    assert!(matches!(audit.flush(), Err(AuditError::NotOnDisk)));
    assert!(audit.health().failing.unwrap().contains("cannot be used"));

    std::fs::create_dir(path.parent().unwrap()).unwrap();
    audit.flush().unwrap();
    assert_eq!(audit.health(), Health { lost: 0, failing: None, broken: None });
    assert_eq!(tail(&path, 0, 10).unwrap().len(), 1);
    thread.finish();
}

#[test]
fn an_emergency_that_finds_the_queue_full_is_stored_all_the_same() {
    let (_dir, path) = file();
    let (audit, queue_receiver) = queue(2);
    (1..=3).for_each(|n| audit.write(grant(n)));
    audit.write(stamped(Record::new(Action::EmergencyStart)));
    assert_eq!(audit.lost(), 1);
    let thread = start(&path, "boot", &audit, queue_receiver).unwrap();
    audit.flush().unwrap();
    thread.finish();
    let rows = tail(&path, 0, 10).unwrap();
    assert!(rows.iter().any(|row| row.action == "emergency_broadcast.start"));
}

#[test]
fn a_full_memory_counts_what_goes() {
    let shared: Arc<Shared> = Arc::default();
    let (nowhere, queue_sender) = (Path::new("/nowhere/audit"), queue(1).0.queue_sender);
    let mut writer = writer::Writer::new(nowhere, "boot", Arc::clone(&shared), queue_sender).unwrap();
    let now = std::time::Instant::now();
    writer.take(Message::Write(Box::new(stamped(Record::new(Action::EmergencyStart)))), now);
    for n in 0..writer::HELD_RECORDS as u64 {
        writer.take(Message::Write(Box::new(grant(n))), now);
    }
    assert_eq!(shared.lost(), 1);
    assert_eq!(writer.held().in_order()[0].record.action, Action::EmergencyStart);
    assert_eq!(writer.held().in_order()[1].record.burst, Some(BurstId(1)));
    assert_eq!(writer.held().len(), writer::HELD_RECORDS);
}

#[test]
fn an_end_without_a_stop_is_found_at_the_next_start() {
    let (_dir, path) = file();
    for (boot_id, stops) in [("boot-1", false), ("boot-1", false), ("boot-2", true), ("boot-2", true)] {
        let (audit, thread) = open(&path, boot_id).unwrap();
        audit.write(grant(1));
        if stops {
            audit.write(stamped(Record::new(Action::SystemStop)));
        }
        thread.finish();
    }
    let rows = tail(&path, 0, 20).unwrap();
    let crashes = rows.iter().filter(|row| row.action == "system.crash_found");
    let seen: Vec<_> =
        crashes.map(|row| (row.seq, row.cause.as_deref().unwrap(), row.detail["lastSeq"].clone())).collect();
    assert_eq!(seen, [(2, "process-ended", json!(1)), (4, "power-or-reboot", json!(3))]);
}

fn second(n: u64) -> Stamped {
    let wall = WallStamp { unix_ms: 1_700_000_000_000 + 1000 * n, synchronised: true };
    Stamped { wall, ..grant(n) }
}

#[test]
fn old_records_go_in_steps_and_the_chain_stays_whole() {
    let (_dir, path) = file();
    let mut store = store::Store::open(&path, &|| ()).unwrap();
    let records: Vec<_> = (1..=2500).map(second).collect();
    store.append("boot", records.iter()).unwrap();
    let wall = |n: u64, synchronised| WallStamp { synchronised, ..second(n).wall };
    let retention = Retention { age: std::time::Duration::from_secs(600), bytes: u64::MAX };

    assert!(!store.prune("boot", &retention, wall(90_000, false)).unwrap(), "the clock may be wrong");
    let steps = std::iter::from_fn(|| store.prune("boot", &retention, wall(2500, true)).unwrap().then_some(()));
    assert_eq!(steps.count(), 2);
    let rows = tail(&path, 0, 5000).unwrap();
    assert_eq!(rows[0].seq, 1900);
    let told: Vec<_> =
        rows.iter().filter(|row| row.action == "system.audit_pruned").map(|row| row.detail.clone()).collect();
    assert_eq!((&told[0]["toSeq"], &told[1]["fromSeq"], &told[1]["toSeq"]), (&json!(1000), &json!(1001), &json!(1899)));
    assert_eq!(rows.last().unwrap().cause.as_deref(), Some("age"));
    let verdict = verify(&path, &Trust::default()).unwrap();
    assert_eq!((verdict.broken, verdict.first_seq, verdict.last_seq), (None, 1900, 2502));

    let (_audit, thread) = open(&path, "boot").unwrap();
    thread.finish();
    let db = rusqlite::Connection::open(&path).unwrap();
    let refused = db.execute("DELETE FROM audit WHERE seq <= 1901", ()).unwrap_err().to_string();
    assert!(refused.contains("append-only"), "{refused}");
    db.execute_batch("DROP TRIGGER audit_no_delete; DELETE FROM audit WHERE seq <= 1901").unwrap();
    assert_eq!(verify(&path, &Trust::default()).unwrap().broken.unwrap().seq, 1900);
}

#[test]
fn a_file_that_is_too_large_loses_its_oldest_records_and_never_its_last() {
    let (_dir, path) = file();
    let (audit, thread) = open(&path, "boot").unwrap();
    (1..=3000).for_each(|n| audit.write(second(n)));
    audit.flush().unwrap();
    let limit = 200_000_i64;
    audit.retain(Retention { age: std::time::Duration::MAX, bytes: limit.unsigned_abs() });
    let in_use = || {
        let db = rusqlite::Connection::open(&path).unwrap();
        let pragma = |name| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
        (pragma("page_count") - pragma("freelist_count")) * pragma("page_size")
    };
    assert!(in_use() > 2 * limit, "{}", in_use());
    while in_use() > limit {
        std::thread::yield_now();
    }
    thread.finish();
    let verdict = verify(&path, &Trust::default()).unwrap();
    assert_eq!(verdict.broken, None);
    assert!(verdict.first_seq > 1000 && verdict.last_seq > 3000, "{verdict:?}");
}
