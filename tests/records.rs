//! Every kind of thing that an inquiry asks for is done to the real gateway once, and found in its audit with who, whom,
//! where and why. That a clock was set is proved where a clock may be set: `tests/vm/guest/clock.rs`.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "native/mod.rs"]
mod native;

use anyhow::{Context, Result, ensure};
use crosspatch::audit::{self, Row, Trust};
use native::gateway::{Gateway, binary};
use native::signaling::Signaling;
use native::talker::Talker;
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

/// The simulated board with a second contact.
const BOARD: &str = r#"
name = "Two contacts"
like = "sim"
backend = "sim"

[[line]]
name = "desk.emergency.nc"
direction = "input"
contact = "normally-closed"
"#;

const EVENT: &str = r#"
board = "board.toml"

[event]
id = "records"

[[channel]]
id = "ops"
name = "Operations"

[[channel]]
id = "security"
name = "Security"

[[desk]]
user = "desk-1"
name = "Desk 1"
emergency_line = "desk.emergency"
emergency_opening_line = "desk.emergency.nc"
stuck_alarm_s = 10

[[desk.button]]
channel = "ops"
ptt_line = "desk.ptt.ops"

[[radio]]
id = "vhf"
user = "radio-vhf"
name = "VHF 1"
channel = "security"
carrier_line = "radio.vhf.carrier"
ptt_line = "radio.vhf.ptt"
carrier_timeout_s = 10
transmit_timeout_s = 10

[recorder]
channels = ["ops"]
"#;

/// How long news may take; generous, since machines are busy.
const SOON: Duration = Duration::from_secs(30);

/// Kind, actor, target, channel, cause; `*` is whatever it is.
type Expected = (&'static str, &'static str, &'static str, &'static str, &'static str);

const EXPECTED: &[Expected] = &[
    ("system.start", "", "", "", ""),
    ("system.stop", "", "", "", ""),
    ("system.crash_found", "", "", "", "process-ended"),
    ("system.config_loaded", "", "", "", ""),
    ("system.config_reloaded", "cli", "", "", ""),
    ("system.config_refused", "cli", "", "", ""),
    ("auth.token_made", "", "guest-1", "", "front-panel"),
    ("auth.token_made", "cli", "anna", "", "command-line"),
    ("auth.token_made", "cli", "late", "", "no-gateway"),
    ("auth.login", "anna", "", "", ""),
    ("auth.logout", "eve", "", "", "*"),
    ("auth.denied", "", "", "", ""),
    ("channel.join", "anna", "", "ops", ""),
    ("channel.leave", "eve", "", "ops", "*"),
    ("channel.join_denied", "eve", "", "security", "*"),
    ("ptt.start", "anna", "", "ops", ""),
    ("ptt.stop", "anna", "", "ops", "released"),
    ("ptt.denied", "eve", "desk-1", "ops", "busy"),
    ("ptt.revoked", "radio-vhf", "", "security", "carrier-timeout"),
    ("priority_ptt.start", "dora", "anna", "ops", ""),
    ("priority_ptt.interrupted", "anna", "dora", "ops", "*"),
    ("priority_ptt.measured", "dora", "anna", "ops", ""),
    ("emergency_broadcast.armed", "desk-1", "", "", ""),
    ("emergency_broadcast.aborted", "desk-1", "", "", ""),
    ("emergency_broadcast.start", "desk-1", "", "", ""),
    ("emergency_broadcast.stop", "desk-1", "", "", "released"),
    ("emergency_broadcast.denied", "dora", "", "", "*"),
    ("permission.denied", "anna", "", "ops", "no-priority"),
    ("permission.granted", "ada", "eve", "security", ""),
    ("permission.revoked", "ada", "eve", "ops", ""),
    ("role.change", "ada", "eve", "", ""),
    ("person.create", "ada", "eve", "", ""),
    ("person.update", "ada", "eve", "", ""),
    ("person.delete", "ada", "eve", "", ""),
    ("person.enable", "ada", "desk-1", "", ""),
    ("channel.create", "ada", "", "gate", ""),
    ("channel.update", "ada", "", "gate", ""),
    ("channel.delete", "ada", "", "gate", "*"),
    ("force_disconnect", "dora", "desk-1", "", "*"),
    ("security.ban", "ada", "eve", "", "*"),
    ("security.unban", "ada", "eve", "", "*"),
    ("gpio.press", "desk-1", "", "", ""),
    ("gpio.release", "desk-1", "", "", ""),
    ("gpio.fault", "desk-1", "", "", "stuck"),
    ("gpio.fault", "desk-1", "", "", "wire-break"),
    ("gpio.healed", "desk-1", "", "", ""),
    ("radio.carrier_open", "radio-vhf", "", "security", ""),
    ("radio.carrier_closed", "radio-vhf", "", "security", ""),
    ("radio.keyed", "radio-vhf", "", "security", ""),
    ("radio.unkeyed", "radio-vhf", "", "security", "transmit-timeout"),
    ("recording.stored", "anna", "", "ops", ""),
    ("recording.played", "dora", "anna", "ops", ""),
    ("recording.exported", "cli", "anna", "ops", "command-line"),
    ("audit.read", "dora", "", "", ""),
    ("audit.read", "cli", "", "", "command-line"),
    ("system.store_changed", "cli", "", "", "no-gateway"),
];

/// What a kind says in its detail, besides who and where.
const SAYS: &[(&str, &str)] = &[
    ("gpio.press", "stampNs"),
    ("gpio.release", "heldMs"),
    ("emergency_broadcast.aborted", "heldMs"),
    ("emergency_broadcast.stop", "durationMs"),
    ("priority_ptt.measured", "requestToShutMs"),
    ("system.config_loaded", "sha256"),
    ("system.config_reloaded", "changed"),
    ("system.crash_found", "lastSeq"),
    ("auth.token_made", "expiresUtc"),
    ("recording.stored", "sha256"),
    ("recording.played", "id"),
    ("audit.read", "how"),
];

fn crosspatch(gateway: &Gateway, arguments: &[&str]) -> Result<String> {
    let done = Command::new(binary()).args(arguments).arg("--state-dir").arg(gateway.state_dir()).output()?;
    Ok(String::from_utf8([done.stdout, done.stderr].concat())?)
}

async fn happened(gateway: &Gateway, kind: &str, actor: &str) -> Result<Row> {
    gateway.audited_row(|row| row.action == kind && row.actor.as_deref().unwrap_or("") == actor).await
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_an_inquiry_asks_for_is_in_the_audit() -> Result<()> {
    let mut gateway = Gateway::with_files(&[("event.toml", EVENT), ("board.toml", BOARD)]).await?;
    // What takes ten seconds goes on beside everything else.
    gateway.move_line("desk.ptt.ops", true).await?;
    gateway.move_line("radio.vhf.carrier", true).await?;
    happened(&gateway, "gpio.press", "desk-1").await?;
    people(&gateway).await?;
    gateway.audited("action = 'gpio.fault' AND cause = 'stuck'").await?;
    gateway.move_line("desk.ptt.ops", false).await?;
    gateway.audited("action = 'ptt.revoked' AND cause = 'carrier-timeout'").await?;
    gateway.move_line("radio.vhf.carrier", false).await?;
    talk(&gateway).await?;
    emergency(&gateway).await?;
    configuration(&gateway).await?;
    review(&gateway).await?;
    restarts(&mut gateway).await?;
    judge(&gateway.audit()?)?;
    let verdict = audit::verify(&gateway.state_dir().join("audit.sqlite"), &Trust::default())?;
    assert_eq!(verdict.broken, None);
    Ok(())
}

/// Tokens, sessions, memberships, persons, channels, bans.
async fn people(gateway: &Gateway) -> Result<()> {
    let refused = Signaling::connect(gateway, "no-token").await;
    ensure!(refused.is_err(), "somebody came in without a token");
    let ada = gateway.token("ada", "admin", "ops")?;
    let mut eve = Signaling::connect(gateway, &gateway.token("eve", "general", "ops")?).await?;
    eve.ask("join-channel", json!({ "channelId": "ops" })).await?;
    eve.request("join-channel", json!({ "channelId": "security" })).await?;
    eve.ask("ptt-start", json!({ "channelId": "ops" })).await?;
    eve.ask("leave-channel", json!({ "channelId": "ops" })).await?;
    for (what, body) in [
        ("POST /api/channels", json!({ "id": "gate", "name": "Gate" })),
        ("PUT /api/channels/gate", json!({ "name": "Gate 1" })),
        ("DELETE /api/channels/gate", Value::Null),
        ("POST /api/people", json!({ "id": "eve", "name": "Eve", "role": "GENERAL", "channels": ["ops"] })),
        ("PUT /api/people/eve", json!({ "role": "DISPATCH", "channels": ["security"] })),
        ("DELETE /api/people/eve", Value::Null),
        ("POST /api/bans", json!({ "user": "eve", "reason": "noise" })),
        ("DELETE /api/bans/eve", Value::Null),
    ] {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, answer) = gateway.call(&ada, what, &body).await?;
        ensure!(matches!(status, 200 | 201), "{what}: {status} {answer}");
    }
    happened(gateway, "auth.logout", "eve").await?;
    Ok(())
}

/// Bursts, pre-emption, recording, keying.
async fn talk(gateway: &Gateway) -> Result<()> {
    let ops = json!({ "channelId": "ops" });
    let mut anna = Talker::join(gateway, "anna", "general", "ops").await?;
    let mut dora = Talker::join(gateway, "dora", "dispatch", "ops").await?;
    anna.signaling.request("priority-ptt-start", ops.clone()).await?;
    anna.signaling.ask("ptt-start", ops.clone()).await?;
    tokio::time::sleep(Duration::from_millis(300)).await; // something is said
    anna.signaling.ask("ptt-stop", ops.clone()).await?;
    happened(gateway, "recording.stored", "anna").await?;
    anna.signaling.ask("ptt-start", ops.clone()).await?;
    dora.signaling.ask("priority-ptt-start", ops.clone()).await?;
    dora.signaling.ask("ptt-stop", ops.clone()).await?;
    let mut gina = Talker::join(gateway, "gina", "general", "security").await?;
    gina.signaling.ask("ptt-start", json!({ "channelId": "security" })).await?;
    gateway.audited("action = 'radio.unkeyed' AND cause = 'transmit-timeout'").await?;
    Ok(())
}

/// The button: too short, long enough, with a wire that breaks; and a second one who asks meanwhile.
async fn emergency(gateway: &Gateway) -> Result<()> {
    let mut dora = Signaling::connect(gateway, &gateway.token("dora", "dispatch", "ops")?).await?;
    for (kind, asks) in [("emergency_broadcast.armed", false), ("emergency_broadcast.start", true)] {
        for (line, active) in [("desk.emergency.nc", true), ("desk.emergency", true)] {
            gateway.move_line(line, active).await?;
        }
        happened(gateway, kind, "desk-1").await?;
        if asks {
            dora.request("emergency-broadcast-start", json!({ "holdDuration": 2000 })).await?;
        }
        for line in ["desk.emergency", "desk.emergency.nc"] {
            gateway.move_line(line, false).await?;
        }
        gateway.audited("action = 'emergency_broadcast.aborted'").await?;
    }
    happened(gateway, "emergency_broadcast.stop", "desk-1").await?;
    gateway.move_line("desk.emergency.nc", true).await?;
    gateway.audited("action = 'gpio.fault' AND cause = 'wire-break'").await?;
    gateway.move_line("desk.emergency.nc", false).await?;
    dora.ask("force-disconnect", json!({ "targetUserId": "desk-1", "reason": "noise" })).await?;
    let enabled = gateway.call(&gateway.token("ada", "admin", "ops")?, "POST /api/people/desk-1/enable", "").await?;
    ensure!(enabled.0 == 200, "{enabled:?}");
    Ok(())
}

async fn configuration(gateway: &Gateway) -> Result<()> {
    let file = gateway.state_dir().join("event.toml");
    std::fs::write(&file, format!("{EVENT}keep_days = 3\n[audit]\nkeep_days = 30\n"))?;
    let taken = crosspatch(gateway, &["reload"])?;
    ensure!(taken.contains("audit") && taken.contains("recorder.keep_days"), "{taken}");
    std::fs::write(&file, EVENT.replace("channels = [\"ops\"]", "channels = [\"security\"]"))?;
    let refused = crosspatch(gateway, &["reload"])?;
    ensure!(refused.contains("needs a restart") && refused.contains("recorder"), "{refused}");
    std::fs::write(&file, EVENT)?;
    Ok(())
}

/// Who reads the audit, hears and copies.
async fn review(gateway: &Gateway) -> Result<()> {
    let dora = gateway.token("dora", "dispatch", "ops")?;
    let stored = happened(gateway, "recording.stored", "anna").await?;
    let id = stored.detail["id"].as_str().context("id")?;
    for _ in 0..3 {
        let (status, answer) = gateway.call(&dora, "GET /api/audit?kind=ptt&after=0", "").await?;
        ensure!(status == 200 && answer["channels"][0]["name"] == "Operations", "{status} {answer}");
        ensure!(gateway.call(&dora, &format!("GET /api/recordings/{id}"), "").await?.0 == 200);
    }
    ensure!(gateway.call(&dora, "GET /api/recordings/20250101T000000.000Z_ops_b1", "").await?.0 == 404);
    gateway.audited("action = 'recording.played'").await?;
    let queried = crosspatch(gateway, &["audit", "query", "--person", "anna"])?;
    ensure!(queried.contains("recording.played"), "{queried}");
    let out = gateway.state_dir().join("out");
    crosspatch(gateway, &["recording", "export", "--person", "anna", "-o", out.to_str().context("path")?])?;
    gateway.audited("action = 'recording.exported'").await?;
    let of = |kind: &str| Ok::<_, anyhow::Error>(gateway.audit()?.into_iter().filter(|row| row.action == kind).count());
    assert_eq!(of("recording.played")?, 3, "each time that it is heard, and not what is not there");
    let own =
        gateway.audit()?.into_iter().filter(|row| row.action == "audit.read" && row.actor.as_deref() == Some("dora"));
    assert_eq!(own.count(), 1, "who looks again and again reads once");
    Ok(())
}

/// A crash, an end in good order, commands while no gateway runs, and a start that takes in what they did.
async fn restarts(gateway: &mut Gateway) -> Result<()> {
    gateway.crash_and_restart().await?;
    gateway.audited("action = 'system.crash_found'").await?;
    gateway.signal("TERM")?;
    gateway.audited("action = 'system.stop'").await?;
    gateway.wait_ended().await?;
    gateway.token("late", "general", "ops")?;
    let changed = crosspatch(gateway, &["ban", "add", "mallory"])?;
    ensure!(changed.contains("stored"), "{changed}");
    ensure!(gateway.state_dir().join("audit.spool").exists(), "nothing waits for the next start");
    gateway.crash_and_restart().await?;
    gateway.audited("action = 'system.store_changed'").await?;
    let deadline = std::time::Instant::now() + SOON;
    while ["audit.spool", "audit.spool.taken"].iter().any(|name| gateway.state_dir().join(name).exists()) {
        ensure!(std::time::Instant::now() < deadline, "the spool is not emptied");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn judge(rows: &[Row]) -> Result<()> {
    let fits = |said: &Option<String>, wanted: &str| wanted == "*" || said.as_deref().unwrap_or("") == wanted;
    let missing: Vec<_> = EXPECTED
        .iter()
        .filter(|(kind, actor, target, channel, cause)| {
            !rows.iter().any(|row| {
                row.action == *kind
                    && fits(&row.actor, actor)
                    && fits(&row.target, target)
                    && fits(&row.channel, channel)
                    && fits(&row.cause, cause)
            })
        })
        .collect();
    let of_kinds: Vec<_> = rows
        .iter()
        .filter(|row| missing.iter().any(|(kind, ..)| *kind == row.action))
        .map(|row| (&row.action, &row.actor, &row.target, &row.channel, &row.cause))
        .collect();
    ensure!(missing.is_empty(), "not in the audit: {missing:#?}; of these kinds it has {of_kinds:#?}");
    for (kind, key) in SAYS {
        let silent = rows.iter().find(|row| row.action == *kind && row.detail[*key].is_null());
        ensure!(silent.is_none(), "{kind} does not say {key}: {silent:?}");
    }
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let clock_ok = std::path::Path::new("/run/systemd/timesync/synchronized").exists();
    for row in rows {
        ensure!(row.utc.len() == 24 && row.utc.ends_with('Z') && row.mono_ns > 0, "{row:?}");
        ensure!(row.boot_id == boot_id.trim() && row.clock_ok == clock_ok, "{row:?}");
    }
    Ok(())
}
