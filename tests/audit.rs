//! The audit as an inquiry sees it: nothing may be missing, changed, added or moved without being found.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "native/mod.rs"]
mod native;

use anyhow::Result;
use aws_lc_rs::digest::{SHA256, digest};
use crosspatch::audit::{self, Audit, AuditThread, Checkpoint, Stamped, Trust};
use crosspatch::base::{Action, BurstId, Mono, Record, Role, WallStamp};
use native::gateway::Gateway;
use native::signaling::Signaling;
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const NOON_MS: u64 = 1_767_009_600_000;

struct File {
    dir: tempfile::TempDir,
}

impl File {
    /// An audit of `records` grants and a stop, a second apart.
    fn of(records: u64) -> Self {
        let file = File { dir: tempfile::tempdir().unwrap() };
        let (audit, thread) = file.open();
        (1..=records).for_each(|n| audit.write(grant(n)));
        file.close(&audit, thread, records + 1);
        file
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("audit.sqlite")
    }

    fn open(&self) -> (Audit, AuditThread) {
        audit::open(&self.path(), "boot-1").unwrap()
    }

    fn close(&self, audit: &Audit, thread: AuditThread, second: u64) {
        audit.write(at(Record::new(Action::SystemStop), second));
        thread.finish();
    }

    /// Does what no program of ours does, as somebody would who wants to hide something: with the guards taken away.
    fn tamper(&self, sql: &str) {
        let db = Connection::open(self.path()).unwrap();
        let guards: Vec<String> = db
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
            .unwrap()
            .query_map((), |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert!(guards.len() >= 5);
        for guard in guards {
            db.execute_batch(&format!("DROP TRIGGER {guard}")).unwrap();
        }
        db.execute_batch(sql).unwrap();
    }

    /// The first broken record and what is said of it.
    fn broken(&self) -> Option<(i64, String)> {
        broken(&self.path(), &Trust::default())
    }
}

/// The hash of a record, computed from the file by what `docs/audit.md` says and nothing of ours.
fn by_the_book(file: &File, seq: i64) -> String {
    let db = Connection::open(file.path()).unwrap();
    let before: String = db
        .query_row("SELECT coalesce((SELECT hash FROM audit WHERE seq = ? - 1), '')", [seq], |row| row.get(0))
        .unwrap();
    let mut bytes = match before.as_str() {
        "" => vec![0; 32],
        hex => hex
            .as_bytes()
            .chunks(2)
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
            .collect(),
    };
    db.query_row("SELECT * FROM audit WHERE seq = ?", [seq], |row| {
        for column in 0..14 {
            match row.get_ref(column)? {
                ValueRef::Null => bytes.push(0),
                ValueRef::Integer(number) => {
                    bytes.push(1);
                    bytes.extend(number.to_be_bytes());
                }
                ValueRef::Text(text) => {
                    bytes.push(2);
                    bytes.extend((text.len() as u32).to_be_bytes());
                    bytes.extend(text);
                }
                other @ (ValueRef::Real(_) | ValueRef::Blob(_)) => panic!("{other:?} is in no record"),
            }
        }
        Ok(())
    })
    .unwrap();
    digest(&SHA256, &bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn broken(path: &Path, trust: &Trust) -> Option<(i64, String)> {
    audit::verify(path, trust).unwrap().broken.map(|broken| (broken.seq, broken.why))
}

fn at(record: Record, second: u64) -> Stamped {
    let wall = WallStamp { unix_ms: NOON_MS + 1000 * second, synchronised: true };
    Stamped { record, mono: Mono::from_millis(1000 * second), wall }
}

fn grant(n: u64) -> Stamped {
    let record = Record::new(Action::PttStart).by(&"u1".into(), "Änn", Role::General).on(&"ops".into());
    at(record.in_burst(BurstId(n)).with(json!({ "n": n, "a": 0.5 })), n)
}

#[test]
fn what_was_written_is_vouched_for() {
    let file = File::of(2500);
    let verdict = audit::verify(&file.path(), &Trust::default()).unwrap();
    assert_eq!(verdict.broken, None);
    assert_eq!((verdict.first_seq, verdict.last_seq), (1, 2501));
    assert!(verdict.checkpoints >= 2, "{verdict:?}");
    assert_eq!(verdict.keys.len(), 1);
    assert!(verdict.notes.is_empty(), "{:?}", verdict.notes);
}

#[test]
fn records_can_only_be_added_at_the_end() {
    let file = File::of(3);
    let db = Connection::open(file.path()).unwrap();
    for sql in [
        "UPDATE audit SET actor = 'u2' WHERE seq = 2",
        "DELETE FROM audit WHERE seq = 4",
        "INSERT OR REPLACE INTO audit SELECT * FROM audit WHERE seq = 2",
        "UPDATE checkpoint SET seq = 1",
        "DELETE FROM checkpoint",
    ] {
        let refused = db.execute_batch(sql).unwrap_err().to_string();
        assert!(refused.contains("append-only"), "{sql}: {refused}");
    }
}

#[test]
fn a_changed_record_is_named() {
    for change in [
        "actor = 'u2'",
        "utc = '2025-12-29T12:00:02.001Z'",
        "mono_ns = mono_ns + 1",
        "cause = ''",
        "clock_ok = 2",
        r#"detail = '{"a":0.5,"n":3,"n":2}'"#,
        "detail = NULL",
        "boot_id = x'00'",
    ] {
        let file = File::of(5);
        file.tamper(&format!("UPDATE audit SET {change} WHERE seq = 2"));
        let (seq, why) = file.broken().unwrap();
        assert_eq!(seq, 2, "{change}: {why}");
    }
}

#[test]
fn each_hash_is_what_the_documentation_says() {
    let file = File::of(5);
    for seq in 1..=6 {
        let stored: String = Connection::open(file.path())
            .unwrap()
            .query_row("SELECT hash FROM audit WHERE seq = ?", [seq], |row| row.get(0))
            .unwrap();
        assert_eq!(by_the_book(&file, seq), stored, "record {seq}");
    }
}

#[test]
fn a_record_that_was_changed_together_with_its_hash_is_found_at_the_next() {
    let file = File::of(5);
    file.tamper("UPDATE audit SET actor = 'u2' WHERE seq = 2");
    let hash = by_the_book(&file, 2);
    Connection::open(file.path()).unwrap().execute("UPDATE audit SET hash = ? WHERE seq = 2", [hash]).unwrap();
    assert_eq!(file.broken().unwrap().0, 3);
}

#[test]
fn a_deleted_record_is_named() {
    let file = File::of(5);
    file.tamper("DELETE FROM audit WHERE seq = 3");
    assert_eq!(file.broken(), Some((3, "record 3 is missing".to_owned())));

    let file = File::of(5);
    file.tamper("DELETE FROM audit WHERE seq = 3; UPDATE audit SET seq = seq - 1 WHERE seq > 3");
    assert_eq!(file.broken().unwrap().0, 3);

    let file = File::of(5);
    file.tamper("DELETE FROM audit WHERE seq <= 2");
    assert_eq!(file.broken(), Some((1, "records 1 to 2 are missing".to_owned())));
}

#[test]
fn an_inserted_record_is_named() {
    let file = File::of(5);
    file.tamper(
        "UPDATE audit SET seq = -seq - 1 WHERE seq > 2; UPDATE audit SET seq = -seq WHERE seq < 0;
         INSERT INTO audit SELECT 3, utc, mono_ns, boot_id, clock_ok, action, 'u2', actor_name, role, channel, target, cause,
         burst, detail, hash FROM audit WHERE seq = 2",
    );
    assert_eq!(file.broken().unwrap().0, 3);
}

#[test]
fn swapped_records_are_named() {
    let file = File::of(5);
    file.tamper("UPDATE audit SET seq = 99 WHERE seq = 2; UPDATE audit SET seq = 2 WHERE seq = 4; UPDATE audit SET seq = 4 WHERE seq = 99");
    assert_eq!(file.broken().unwrap().0, 2);
}

#[test]
fn a_tail_that_was_cut_off_is_named() {
    let file = File::of(5);
    file.tamper("DELETE FROM audit WHERE seq > 4; DELETE FROM checkpoint");
    let (seq, why) = file.broken().unwrap();
    assert_eq!(seq, 5, "{why}");
    assert!(why.contains("5 to 6"), "{why}");
}

#[test]
fn a_whole_chain_made_anew_is_found_by_the_signed_checkpoint() {
    // Somebody with a copy of the program but without the key: the same records but one, in a file of their own.
    let (file, forged) = (File::of(5), File { dir: tempfile::tempdir().unwrap() });
    let (audit, thread) = forged.open();
    (1..=5).map(|n| if n == 3 { grant(33) } else { grant(n) }).for_each(|record| audit.write(record));
    forged.close(&audit, thread, 6);
    assert_eq!(forged.broken(), None, "by itself it is whole");

    let kept = audit::newest_checkpoint(&file.path()).unwrap();
    std::fs::copy(forged.path(), file.path()).unwrap();
    let (_, why) = file.broken().unwrap();
    assert!(why.contains("unknown key"), "{why}");
    let kept = Trust { kept: vec![kept], ..Trust::default() };
    assert_eq!(broken(&forged.path(), &kept).unwrap().0, 6);
}

#[test]
fn a_checkpoint_kept_elsewhere_finds_what_the_box_itself_cannot_know() {
    let file = File::of(5);
    let kept = audit::newest_checkpoint(&file.path()).unwrap();
    assert!(kept.is_signed());
    let text = serde_json::to_string(&kept).unwrap();
    let kept: Checkpoint = serde_json::from_str(&text).unwrap();
    file.tamper("DELETE FROM audit WHERE seq > 4; DELETE FROM checkpoint");
    std::fs::remove_file(file.dir.path().join("audit.sqlite-head")).unwrap();
    let verdict = audit::verify(&file.path(), &Trust::default()).unwrap();
    assert_eq!(verdict.broken, None);
    assert!(verdict.notes[0].contains("kept elsewhere"), "{:?}", verdict.notes);
    let (seq, _) = broken(&file.path(), &Trust { kept: vec![kept.clone()], ..Trust::default() }).unwrap();
    assert_eq!(seq, 5);

    let mut forged = kept;
    forged.seq = 4;
    assert!(!forged.is_signed());
}

#[test]
fn a_broken_chain_is_told_at_the_next_start_and_gone_on_with() {
    let file = File::of(5);
    file.tamper("DELETE FROM audit WHERE seq > 4; DELETE FROM checkpoint");
    let (audit, thread) = file.open();
    assert!(audit.health().broken.unwrap().contains("missing"));
    audit.write(grant(7));
    thread.finish();
    let rows = audit::tail(&file.path(), 4, 10).unwrap();
    let actions: Vec<_> = rows.iter().map(|row| row.action.as_str()).collect();
    assert_eq!(actions, ["system.audit_broken", "system.crash_found", "ptt.start"]);
}

#[test]
fn a_record_changed_long_ago_is_told_soon_after_the_start() {
    let file = File::of(50);
    // Each end makes a checkpoint, and a start looks no further back than to the last but one.
    for second in [100, 200, 300] {
        let (audit, thread) = file.open();
        file.close(&audit, thread, second);
    }
    file.tamper("UPDATE audit SET actor = 'u2' WHERE seq = 2");
    let (audit, thread) = file.open();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while audit.health().broken.is_none() {
        assert!(std::time::Instant::now() < deadline, "the whole file is not checked");
        std::thread::yield_now();
    }
    let trouble = audit.health().trouble().unwrap();
    assert!(trouble.contains("record 2 ") && trouble.contains("audit verify"), "{trouble}");
    thread.finish();
    let told = audit::tail(&file.path(), 50, 20).unwrap().into_iter().find(|row| row.action == "system.audit_broken");
    assert!(told.unwrap().detail["why"].as_str().unwrap().contains("record 2 "));
}

#[test]
fn a_file_of_the_first_schema_is_brought_to_the_new_one_with_all_its_records() {
    let file = File { dir: tempfile::tempdir().unwrap() };
    let db = Connection::open(file.path()).unwrap();
    db.execute_batch(include_str!("data/audit-v1.sql")).unwrap();
    drop(db);
    let (audit, thread) = file.open();
    audit.write(grant(1));
    file.close(&audit, thread, 2);
    let rows = audit::tail(&file.path(), 0, 100).unwrap();
    let seen: Vec<_> = rows.iter().map(|row| (row.seq, row.action.as_str())).collect();
    let expected = [
        (1, "system.start"),
        (2, "auth.login"),
        (3, "ptt.start"),
        (4, "gpio.fault"),
        (5, "system.stop"),
        (6, "ptt.start"),
        (7, "system.stop"),
    ];
    assert_eq!(seen, expected);
    assert_eq!(rows[2].detail, json!({ "interrupted": "guest-1" }));
    assert_eq!(file.broken(), None);
    file.tamper("UPDATE audit SET actor = 'x' WHERE seq = 3");
    assert_eq!(file.broken().unwrap().0, 3);
}

fn crosspatch(file: &File, arguments: &[&str]) -> (i32, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_crosspatch"));
    let done = command.args(["audit", "--state-dir"]).arg(file.dir.path()).args(arguments).output().unwrap();
    let text = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
    (done.status.code().unwrap(), text)
}

#[test]
fn the_command_finds_records_by_time_channel_person_and_kind() {
    let file = File::of(5);
    let (audit, thread) = file.open();
    let emergency = Record::new(Action::EmergencyStart).by(&"d1".into(), "Dana", Role::Dispatch);
    audit.write(at(emergency.to(&"u1".into()), 10));
    audit.write(at(Record::new(Action::EmergencyStop).by(&"d1".into(), "Dana", Role::Dispatch), 11));
    file.close(&audit, thread, 12);
    let count = |arguments: &[&str]| {
        let (code, text) = crosspatch(&file, &[&["query", "--format", "jsonl"], arguments].concat());
        assert_eq!(code, 0, "{text}");
        text.lines().count()
    };
    assert_eq!(count(&[]), 9);
    assert_eq!(count(&["--channel", "ops"]), 5);
    assert_eq!(count(&["--person", "u1"]), 6);
    assert_eq!(count(&["--person", "Dana"]), 2);
    assert_eq!(count(&["--kind", "emergency_broadcast"]), 2);
    assert_eq!(count(&["--kind", "emergency"]), 0, "a part of a word is no kind");
    assert_eq!(count(&["--kind", "ptt,emergency_broadcast.stop"]), 6);
    assert_eq!(count(&["--burst", "b3"]), 1);
    assert_eq!(count(&["--from", "2025-12-29T12:00:02", "--until", "2025-12-29 12:00:04"]), 2);
    assert_eq!(count(&["--newest", "2"]), 2);
    let (_, table) = crosspatch(&file, &["query", "--kind", "emergency_broadcast.start"]);
    assert!(table.contains("2025-12-29T12:00:10.000Z") && table.contains("Dana"), "{table}");
    let (_, csv) = crosspatch(&file, &["query", "--format", "csv", "--newest", "1"]);
    assert!(csv.lines().nth(1).unwrap().starts_with("9,2025-12-29T12:00:12.000Z,"), "{csv}");
    let (_, tail) = crosspatch(&file, &["tail", "-n", "1"]);
    assert!(tail.contains("system.stop"), "{tail}");
}

#[test]
fn an_export_of_a_time_proves_itself_and_any_change_of_it_is_found() {
    let file = File::of(1500);
    let out = file.dir.path().join("export.jsonl");
    let path = out.to_str().unwrap();
    let wanted = ["export", "--from", "2025-12-29T12:10", "--until", "2025-12-29T12:11", "-o", path];
    let (code, text) = crosspatch(&file, &wanted);
    assert_eq!(code, 0, "{text}");
    let (code, checkpoint) = crosspatch(&file, &["checkpoint"]);
    assert_eq!(code, 0);
    let key = serde_json::from_str::<Checkpoint>(checkpoint.trim()).unwrap().public_key.unwrap();
    let verify = |key: &str| crosspatch(&file, &["verify", "--export", path, "--key", key]);
    let (code, text) = verify(&key);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("records 600 to "), "{text}");
    let (code, text) = verify(&"0".repeat(64));
    assert_eq!(code, 65);
    assert!(text.contains("unknown key"), "{text}");

    let lines: Vec<String> = std::fs::read_to_string(&out).unwrap().lines().map(str::to_owned).collect();
    let mut without = lines.clone();
    without.remove(10);
    let mut changed = lines.clone();
    changed[10] = changed[10].replace("\"u1\"", "\"u2\"");
    let mut cut = lines.clone();
    cut.truncate(50);
    let mut swapped = lines;
    swapped.swap(10, 11);
    for (what, lines, seq) in
        [("deleted", without, 609), ("changed", changed, 609), ("cut", cut, 649), ("swapped", swapped, 609)]
    {
        std::fs::write(&out, lines.join("\n")).unwrap();
        let (code, text) = verify(&key);
        assert_eq!(code, 65, "{what}: {text}");
        assert!(text.contains(&format!("broken at record {seq}:")), "{what}: {text}");
    }
}

#[test]
fn the_command_names_the_first_broken_record() {
    let file = File::of(5);
    assert_eq!(crosspatch(&file, &["verify"]).0, 0);
    let kept = file.dir.path().join("kept");
    std::fs::write(&kept, crosspatch(&file, &["checkpoint"]).1).unwrap();
    file.tamper("DELETE FROM audit WHERE seq > 4; DELETE FROM checkpoint");
    std::fs::remove_file(file.dir.path().join("audit.sqlite-head")).unwrap();
    let (code, text) = crosspatch(&file, &["verify"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("note: "), "{text}");
    let (code, text) = crosspatch(&file, &["verify", "--checkpoints", kept.to_str().unwrap()]);
    assert_eq!(code, 65);
    assert!(text.contains("broken at record 5:"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_and_dispatch_read_the_audit_over_http_and_nobody_else() -> Result<()> {
    let gateway = Gateway::demo().await?;
    let mut anna = Signaling::connect(&gateway, &gateway.token("anna", "general", "ops")?).await?;
    for kind in ["join-channel", "ptt-start", "ptt-stop"] {
        anna.ask(kind, json!({ "channelId": "ops" })).await?;
    }
    gateway.audited("action = 'ptt.stop'").await?;
    for role in ["admin", "dispatch"] {
        let token = gateway.token(role, role, "ops")?;
        let (status, answer) = gateway.call(&token, "GET /api/audit?kind=ptt&person=anna&channel=ops", "").await?;
        assert_eq!(status, 200, "{answer}");
        let actions: Vec<_> = answer["records"].as_array().unwrap().iter().map(|row| row["action"].clone()).collect();
        assert_eq!(actions, ["ptt.start", "ptt.stop"]);
        let (status, verdict) = gateway.call(&token, "GET /api/audit/verify", "").await?;
        assert_eq!((status, &verdict["broken"]), (200, &Value::Null), "{verdict}");
        let (status, checkpoint) = gateway.call(&token, "GET /api/audit/checkpoint", "").await?;
        assert_eq!(status, 200);
        assert!(serde_json::from_value::<Checkpoint>(checkpoint)?.is_signed());
        assert_eq!(gateway.call(&token, "GET /api/audit/export?from=2020", "").await?.0, 200);
    }
    let general = gateway.token("anna", "general", "ops")?;
    for path in ["", "/export", "/verify", "/checkpoint"] {
        let what = format!("GET /api/audit{path}");
        assert_eq!(gateway.call(&general, &what, "").await?.0, 403, "{what}");
        assert_eq!(gateway.call("", &what, "").await?.0, 401, "{what}");
    }
    gateway.audited("action = 'permission.denied' AND cause = 'not-dispatch' AND actor = 'anna'").await?;
    Ok(())
}
