//! What was said, as it is found again: recorded from real packets, tied to the audit, played by other people's programs.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "native/mod.rs"]
mod native;

use anyhow::{Context, Result, ensure};
use crosspatch::audit::iso_8601;
use crosspatch::base::{Action, BurstId, Mono, Record, Role, SourceId, WallStamp};
use crosspatch::recorder::{self, Keep, News, Plan};
use native::gateway::Gateway;
use native::talker::Talker;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const EVENT: &str = "
[event]
id = \"recorded\"

[[channel]]
id = \"ops\"
name = \"Operations\"

[[channel]]
id = \"medical\"
name = \"Medical\"

[[channel]]
id = \"quiet\"
name = \"Not recorded\"

[recorder]
channels = [\"ops\", \"medical\"]
";

async fn talk(talker: &mut Talker, gateway: &Gateway, start: &str, stop: &str, data: Value) -> Result<()> {
    let granted = talker.signaling.ask(start, data.clone()).await?;
    ensure!(granted["success"] == true, "{granted}");
    // Heard for a while: the gate counts what it lets through.
    loop {
        let stats = gateway.stats().await?;
        let bursts = stats["bursts"].as_array().context("no bursts")?;
        if bursts.iter().any(|burst| burst["open"] == true && burst["received"].as_u64() > Some(25)) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    talker.signaling.ask(stop, data).await?;
    Ok(())
}

fn crosspatch(gateway: &Gateway, arguments: &[&str]) -> Result<(bool, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crosspatch"));
    let done = command.arg("recording").args(arguments).arg("--state-dir").arg(gateway.state_dir()).output()?;
    Ok((done.status.success(), String::from_utf8([done.stdout, done.stderr].concat())?))
}

/// How long ffmpeg finds a file to be, in s; nothing where there is no ffmpeg.
fn ffmpeg_length(path: &Path) -> Result<Option<f64>> {
    let decoded = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(path)
        .args(["-f", "s16le", "-ar", "48000", "-ac", "1", "-"])
        .output();
    let decoded = match decoded {
        Ok(decoded) => decoded,
        Err(e) => {
            ensure!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "this must be able to run ffmpeg: {e}");
            println!("skipped: there is no ffmpeg ({e})");
            return Ok(None);
        }
    };
    let complaints = String::from_utf8_lossy(&decoded.stderr).into_owned();
    ensure!(decoded.status.success() && complaints.is_empty(), "ffmpeg: {complaints}");
    Ok(Some(decoded.stdout.len() as f64 / 96_000.0))
}

#[tokio::test(flavor = "multi_thread")]
async fn bursts_become_files_that_play_and_that_the_audit_vouches_for() -> Result<()> {
    let gateway = Gateway::with_config(EVENT).await?;
    let mut anna = Talker::join(&gateway, "anna", "general", "ops").await?;
    talk(&mut anna, &gateway, "ptt-start", "ptt-stop", json!({ "channelId": "ops" })).await?;
    let row = gateway.audited_row(|row| row.action == "recording.stored").await?;
    assert_eq!(
        [&row.actor, &row.role, &row.channel, &row.burst].map(|text| text.as_deref().unwrap_or("")),
        ["anna", "GENERAL", "ops", "b1"]
    );
    let (packets, length_ms) = (row.detail["packets"].as_u64().context("packets")?, row.detail["lengthMs"].as_u64());
    assert!(packets > 25 && row.detail["lost"] == 0, "{}", row.detail);
    assert_eq!(length_ms, Some(packets * 20));

    let (fine, listed) = crosspatch(&gateway, &["list", "--json", "--channel", "ops"])?;
    assert!(fine, "{listed}");
    let listed: Value = serde_json::from_str(listed.trim())?;
    assert_eq!((&listed["userName"], &listed["kept"]), (&json!("anna"), &json!(true)));
    let out = gateway.state_dir().join("out");
    let (fine, text) = crosspatch(&gateway, &["export", "-o", out.to_str().context("path")?])?;
    assert!(fine, "{text}");
    let file = out.join(format!("{}.opus", listed["id"].as_str().context("id")?));
    if let Some(seconds) = ffmpeg_length(&file)? {
        assert!((seconds - packets as f64 * 0.02).abs() < 0.011, "{seconds} s of {packets} packets");
    }

    let recording = format!("GET /api/recordings/{}", listed["id"].as_str().context("id")?);
    let dora = gateway.token("dora", "dispatch", "ops")?;
    assert_eq!(gateway.call(&dora, "GET /api/recordings?channel=ops", "").await?.1["recordings"][0], listed);
    assert_eq!(gateway.call(&gateway.token("anna", "general", "ops")?, &recording, "").await?.0, 403);
    assert_eq!(gateway.call(&dora, "GET /api/recordings/20250101T000000.000Z_ops_b1", "").await?.0, 404);

    // A byte of the file changes: the copy is refused.
    let stored =
        gateway.state_dir().join("recordings").join(&file.file_name().context("name")?.to_str().context("text")?[..8]);
    let stored = stored.join(file.file_name().context("name")?);
    let mut bytes = std::fs::read(&stored)?;
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&stored, bytes)?;
    let (fine, text) = crosspatch(&gateway, &["export", "-o", out.to_str().context("path")?])?;
    assert!(!fine && text.contains("not the recordings that were made"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emergency_is_recorded_once_and_a_channel_that_is_not_named_never() -> Result<()> {
    let gateway = Gateway::with_config(EVENT).await?;
    let mut quinn = Talker::join(&gateway, "quinn", "general", "quiet").await?;
    talk(&mut quinn, &gateway, "ptt-start", "ptt-stop", json!({ "channelId": "quiet" })).await?;
    let mut dora = Talker::join(&gateway, "dora", "dispatch", "ops").await?;
    let hold = json!({ "holdDuration": 2000 });
    talk(&mut dora, &gateway, "emergency-broadcast-start", "emergency-broadcast-stop", hold).await?;
    let row = gateway.audited_row(|row| row.action == "recording.stored").await?;
    assert_eq!((row.actor.as_deref(), row.channel, row.burst.as_deref()), (Some("dora"), None, Some("b2")));
    assert_eq!(gateway.audited("action = 'recording.stored'").await?, 1);
    assert!(row.detail["id"].as_str().context("id")?.ends_with("_all_b2"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_that_a_crash_cuts_short_is_kept_up_to_the_last_second() -> Result<()> {
    let mut gateway = Gateway::with_config(EVENT).await?;
    let mut anna = Talker::join(&gateway, "anna", "general", "ops").await?;
    anna.signaling.ask("ptt-start", json!({ "channelId": "ops" })).await?;
    while gateway.stats().await?["bursts"][0]["received"].as_u64() < Some(120) {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    gateway.crash_and_restart().await?;
    let row = gateway.audited_row(|row| row.action == "recording.stored").await?;
    assert_eq!(row.cause.as_deref(), Some("cut-short"));
    gateway.audited("action = 'system.crash_found' AND cause = 'process-ended'").await?;
    let out = gateway.state_dir().join("out");
    let (fine, text) = crosspatch(&gateway, &["export", "-o", out.to_str().context("path")?])?;
    assert!(fine, "{text}");
    if let Some(seconds) = ffmpeg_length(&out.join(format!("{}.opus", row.detail["id"].as_str().context("id")?)))? {
        assert!(seconds > 1.9, "{seconds}");
    }
    Ok(())
}

/// Runs a recorder over bursts of 100 packets each of which loses `lost`, and says what it told and where its files are.
fn recorded(dir: &Path, bursts: u64, lost: std::ops::Range<u64>, keep: Keep) -> Result<Vec<Record>> {
    let plan = Plan { channels: ["ops".into()].into(), dir: dir.to_owned(), keep, iso_8601 };
    let (sender, told) = std::sync::mpsc::channel();
    let (recorder, thread) = recorder::start(plan, move |news| match news {
        News::Record(record) => drop(sender.send(record)),
        News::Failing(why) => assert_eq!(why, None),
    })?;
    for burst in (1..=bursts).map(BurstId) {
        let wall = WallStamp { unix_ms: 1_767_009_600_000 + burst.0 * 1000, synchronised: true };
        let start =
            Record::new(Action::PttStart).by(&"anna".into(), "Anna", Role::General).on(&"ops".into()).in_burst(burst);
        recorder.begin(recorder::beginning(&start, (Mono::default(), wall)).context("a burst begins")?);
        for n in (0..100).filter(|n| !lost.contains(n)) {
            recorder.packet(burst, SourceId(7), n, u32::try_from(n * 960)?, &[0xf8, 0xff, 0xfe]);
        }
        recorder.end(burst);
    }
    drop(recorder);
    thread.join().map_err(|_| anyhow::anyhow!("the recorder panicked"))?;
    Ok(told.iter().collect())
}

const EVERYTHING: Keep = Keep { age: std::time::Duration::MAX, bytes: u64::MAX };

#[test]
fn loss_is_a_gap_of_its_length_and_not_a_shorter_recording() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let told = recorded(dir.path(), 1, 40..60, EVERYTHING)?;
    assert_eq!((&told[0].detail["lost"], &told[0].detail["lengthMs"]), (&json!(20), &json!(2000)));
    let path = recorder::path_of(dir.path(), told[0].detail["id"].as_str().context("id")?).context("path")?;
    if let Some(seconds) = ffmpeg_length(&path)? {
        assert!((seconds - 2.0).abs() < 0.011, "{seconds}");
    }
    Ok(())
}

#[test]
fn the_oldest_recordings_go_when_there_are_too_many() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let told = recorded(dir.path(), 3, 0..0, Keep { bytes: 1000, ..EVERYTHING })?;
    let actions: Vec<_> = told.iter().map(|record| record.action).collect();
    let (stored, deleted) = (Action::RecordingStored, Action::RecordingDeleted);
    assert_eq!(actions, [stored, stored, deleted, stored, deleted]);
    assert_eq!(told[2].detail["id"], told[0].detail["id"]);
    let kept = |n: usize| {
        recorder::path_of(dir.path(), told[n].detail["id"].as_str().unwrap_or("")).is_some_and(|p| p.exists())
    };
    assert_eq!([0, 1, 3].map(kept), [false, false, true]);
    Ok(())
}
