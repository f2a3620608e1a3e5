//! Channels, people, bans and the configuration change while people talk: over the real sockets, the API and the
//! command line.

#[expect(dead_code, reason = "the other tests use the rest")]
#[path = "native/mod.rs"]
mod native;

use anyhow::{Context, Result, ensure};
use native::client::NativeClient;
use native::gateway::Gateway;
use native::sdp::DtlsRole;
use native::signaling::Signaling;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_crosspatch");
/// An Opus packet of 20 ms begins like this.
const TOC: u8 = 0xf8;
/// How long news may take; generous, since machines are busy.
const SOON: Duration = Duration::from_secs(5);

const EVENT: &str = r#"[event]
id = "fair"
talk_limit_s = 60

[limits]
general_channels = 10

[[channel]]
id = "ops"
name = "Operations"

[[channel]]
id = "medical"
name = "Medical"
"#;

/// One request to the API: its status and what it says.
async fn api(gateway: &Gateway, token: &str, what: &str, body: Value) -> Result<(u16, Value)> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    gateway.call(token, what, &body).await
}

/// A request that must succeed.
async fn done(gateway: &Gateway, token: &str, what: &str, body: Value) -> Result<Value> {
    let (status, answer) = api(gateway, token, what, body).await?;
    ensure!(matches!(status, 200 | 201), "{what}: {status} {answer}");
    Ok(answer)
}

/// Runs the command line: its exit code, what it prints and what it complains.
fn cli(state_dir: &Path, args: &[&str]) -> Result<(i32, String, String)> {
    let out = Command::new(BINARY).args(args).arg("--state-dir").arg(state_dir).output()?;
    let code = out.status.code().context("the command was killed")?;
    Ok((code, String::from_utf8(out.stdout)?, String::from_utf8(out.stderr)?))
}

/// Runs a command that must succeed and answers in JSON.
fn cli_json(state_dir: &Path, args: &[&str]) -> Result<Value> {
    let args: Vec<_> = args.iter().copied().chain(["--json"]).collect();
    let (code, out, complaint) = cli(state_dir, &args)?;
    ensure!(code == 0, "{args:?}: {code} {complaint}");
    Ok(serde_json::from_str(&out)?)
}

fn admin(gateway: &Gateway) -> Result<String> {
    gateway.token("ada", "admin", "ops")
}

async fn talk(client: &mut NativeClient, talker: u8, count: u8) -> Result<()> {
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    for number in 0..count {
        pace.tick().await;
        client.send_opus(&[TOC, talker, number, 0, 0, 0, 0, 0]).await?;
    }
    Ok(())
}

/// Waits until `listener` has heard exactly `count` packets of `talker`.
async fn heard(listener: &NativeClient, talker: u8, count: usize) {
    let of = |all: &[native::client::Heard]| all.iter().filter(|p| p.payload[1] == talker).count();
    let all = listener.wait_heard(|all| of(all) >= count, SOON).await;
    assert_eq!(of(&all), count, "packets of talker {talker}");
}

async fn update(signaling: &Signaling) -> Result<(Value, Value)> {
    let mut push = signaling.wait_push(|push| push["type"] == "permission-update", SOON).await?;
    Ok((push["data"]["added"].take(), push["data"]["removed"].take()))
}

/// The reasons of degraded parts whose name or reason contains `word`.
async fn degraded(gateway: &Gateway, word: &str) -> Result<Vec<String>> {
    let panel = done(gateway, "", "GET /api/panel", Value::Null).await?;
    let parts = panel["degraded"].as_array().context("no parts")?.iter().map(Value::to_string);
    Ok(parts.filter(|part| part.contains(word)).collect())
}

/// Waits until a part that `word` tells is degraded, or none is.
async fn wait_degraded(gateway: &Gateway, word: &str, wanted: bool) -> Result<()> {
    let deadline = Instant::now() + SOON;
    while degraded(gateway, word).await?.is_empty() == wanted {
        ensure!(Instant::now() < deadline, "degraded by '{word}' did not become {wanted}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Why a participant may not connect.
async fn refusal(gateway: &Gateway, token: &str) -> String {
    Signaling::connect(gateway, token).await.err().map_or_else(|| "welcome".into(), |e| e.to_string())
}

/// A talker with a producer in `channel`, and somebody who listens there.
async fn pair(gateway: &Gateway, channel: &str, channels: &str) -> Result<(NativeClient, NativeClient)> {
    let mut anna =
        NativeClient::connect(gateway, &gateway.token("anna", "general", channels)?, DtlsRole::Client).await?;
    let mut cora =
        NativeClient::connect(gateway, &gateway.token("cora", "general", channels)?, DtlsRole::Server).await?;
    anna.join(channel).await?;
    cora.join(channel).await?;
    anna.produce(channel).await?;
    cora.consume(channel).await?;
    Ok((anna, cora))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permission_comes_at_once_and_goes_when_the_burst_has_ended_on_every_socket() -> Result<()> {
    let gateway = Gateway::demo().await?;
    let ada = admin(&gateway)?;
    let (mut anna, cora) = pair(&gateway, "ops", "ops").await?;
    let mut second = Signaling::connect(&gateway, &gateway.token("anna", "general", "ops")?).await?;
    second.ask("join-channel", json!({ "channelId": "ops" })).await?;

    let anna_now = json!({ "id": "anna", "name": "Anna", "role": "general", "channels": ["ops", "medical"] });
    let stored = done(&gateway, &ada, "POST /api/people", anna_now).await?;
    assert_eq!((&stored["source"], &stored["connected"]), (&json!("store"), &json!(true)));
    assert_eq!(update(&anna.signaling).await?, (json!(["medical"]), json!([])));
    assert_eq!(update(&second).await?, (json!(["medical"]), json!([])));
    second.ask("join-channel", json!({ "channelId": "medical" })).await?;

    anna.press("ops", false).await?;
    talk(&mut anna, 1, 20).await?;
    heard(&cora, 1, 20).await;
    done(&gateway, &ada, "PUT /api/people/anna", json!({ "channels": ["medical"] })).await?;
    talk(&mut anna, 2, 20).await?;
    heard(&cora, 2, 20).await; // the burst runs on
    anna.release("ops").await?;
    assert_eq!(update(&anna.signaling).await?, (json!([]), json!(["ops"])), "nothing was said before");
    assert_eq!(update(&second).await?, (json!([]), json!(["ops"])));
    let refused = anna.signaling.request("ptt-start", json!({ "channelId": "ops" })).await?;
    assert_eq!(refused["data"]["code"], "not-member");
    let refused = second.request("join-channel", json!({ "channelId": "ops" })).await?;
    assert_eq!(refused["data"]["code"], "not-permitted");

    let deferred = gateway.audited_row(|row| row.action == "permission.revocation_deferred").await?;
    assert_eq!((deferred.actor.as_deref(), deferred.channel.as_deref()), (Some("ada"), Some("ops")));
    let revoked = gateway.audited_row(|row| row.action == "permission.revoked").await?;
    assert_eq!((revoked.target.as_deref(), revoked.cause.as_deref()), (Some("anna"), Some("burst-ended")));
    assert!(deferred.seq < revoked.seq);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ban_holds_at_the_handshake_and_after_a_crash_and_ends_by_itself_or_by_hand() -> Result<()> {
    let mut gateway = Gateway::demo().await?;
    let ada = admin(&gateway)?;
    let bert = gateway.token("bert", "general", "ops")?;
    let there = Signaling::connect(&gateway, &bert).await?;
    let hour = json!({ "user": "bert", "durationMs": 3_600_000, "reason": "noise" });
    let ban = done(&gateway, &ada, "POST /api/bans", hour.clone()).await?;
    assert_eq!((&ban["by"], &ban["reason"]), (&json!("ada"), &json!("noise")));
    let left = ban["remainingMs"].as_u64().context("no end")?;
    assert!((3_500_000..=3_600_000).contains(&left), "{left}");
    assert_eq!(api(&gateway, &ada, "POST /api/bans", hour).await?.0, 409);
    there.wait_push(|push| push["type"] == "force-disconnect", SOON).await?;
    assert!(refusal(&gateway, &bert).await.contains("403"));

    gateway.crash_and_restart().await?;
    assert!(refusal(&gateway, &bert).await.contains("403"), "it outlives a crash");
    done(&gateway, &ada, "DELETE /api/bans/bert", Value::Null).await?;
    Signaling::connect(&gateway, &bert).await?;

    // A dispatcher's ban over the socket: answered when it is on disk.
    let mut dora = Signaling::connect(&gateway, &gateway.token("dora", "dispatch", "ops")?).await?;
    dora.ask("ban-user", json!({ "targetUserId": "bert", "duration": 1500 })).await?;
    assert_eq!(done(&gateway, &ada, "GET /api/bans/bert", Value::Null).await?["by"], "dora");
    assert!(refusal(&gateway, &bert).await.contains("403"));
    let deadline = Instant::now() + SOON;
    while refusal(&gateway, &bert).await != "welcome" {
        ensure!(Instant::now() < deadline, "the ban did not end by itself");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_added_talked_on_and_removed_when_the_burst_has_ended() -> Result<()> {
    let gateway = Gateway::demo().await?;
    let ada = admin(&gateway)?;
    let mut anna =
        NativeClient::connect(&gateway, &gateway.token("anna", "general", "ops,gate")?, DtlsRole::Client).await?;
    assert!(anna.join("gate").await.is_err(), "there is no such channel yet");
    let gate = done(&gateway, &ada, "POST /api/channels", json!({ "id": "gate", "name": "Gate" })).await?;
    assert_eq!(gate, json!({ "id": "gate", "name": "Gate", "order": 1, "source": "store" }));
    assert_eq!(update(&anna.signaling).await?, (json!(["gate"]), json!([])));
    let named = |push: &Value| push["type"] == "channel-list" && push["data"]["channelNames"]["gate"] == "Gate";
    anna.signaling.wait_push(named, SOON).await?;
    anna.close().await?;
    let (mut anna, cora) = pair(&gateway, "gate", "gate").await?;
    anna.press("gate", false).await?;
    talk(&mut anna, 1, 20).await?;
    heard(&cora, 1, 20).await;

    let removed = done(&gateway, &ada, "DELETE /api/channels/gate", Value::Null).await?;
    assert_eq!(removed["deferred"], true);
    talk(&mut anna, 2, 20).await?;
    heard(&cora, 2, 20).await;
    anna.release("gate").await?;
    assert_eq!(update(&cora.signaling).await?, (json!([]), json!(["gate"])));
    let refused = anna.signaling.request("join-channel", json!({ "channelId": "gate" })).await?;
    assert_eq!(refused["data"]["code"], "unknown-channel");
    let (status, why) = api(&gateway, &ada, "DELETE /api/channels/ops", Value::Null).await?;
    assert_eq!((status, &why["code"]), (409, &json!("in-configuration")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_read_or_is_damaged_takes_nothing_from_anybody() -> Result<()> {
    let gateway = Gateway::demo().await?;
    let ada = admin(&gateway)?;
    let anna_now = json!({ "id": "anna", "name": "Anna", "role": "general", "channels": ["ops", "medical"] });
    done(&gateway, &ada, "POST /api/people", anna_now).await?;
    let (mut anna, cora) = pair(&gateway, "medical", "medical").await?;
    let mut lone = Signaling::connect(&gateway, &gateway.token("anna", "general", "ops")?).await?;
    lone.ask("join-channel", json!({ "channelId": "medical" })).await?; // by the store's word alone

    let store = gateway.state_dir().join("people.sqlite");
    let away = gateway.state_dir().join("away.sqlite");
    std::fs::rename(&store, &away)?;
    std::fs::create_dir(&store)?;
    let (status, why) = api(&gateway, &ada, "POST /api/bans", json!({ "user": "eve" })).await?;
    assert_eq!((status, &why["code"]), (503, &json!("not-stored")));
    assert!(why["error"].as_str().is_some_and(|e| e.contains("people.sqlite cannot be used")), "{why}");
    wait_degraded(&gateway, "changes are refused", true).await?;
    anna.press("medical", false).await?;
    talk(&mut anna, 1, 20).await?;
    heard(&cora, 1, 20).await;
    anna.release("medical").await?;
    lone.ask("ptt-start", json!({ "channelId": "medical" })).await?;
    lone.ask("ptt-stop", json!({ "channelId": "medical" })).await?;
    let people = done(&gateway, &ada, "GET /api/people/anna", Value::Null).await?;
    assert_eq!(people["channels"], json!(["medical", "ops"]), "what was read last is still known");
    let mut dora = Signaling::connect(&gateway, &gateway.token("dora", "dispatch", "ops")?).await?;
    let emergency = dora.ask("emergency-broadcast-start", json!({ "holdDuration": 2000 })).await?;
    assert_eq!((&emergency["success"], &emergency["channelCount"]), (&json!(true), &json!(4)));
    lone.wait_push(|push| push["type"] == "emergency-broadcast-start", Duration::from_secs(5)).await?;
    dora.ask("emergency-broadcast-stop", json!({})).await?;

    std::fs::remove_dir(&store)?;
    std::fs::rename(&away, &store)?;
    wait_degraded(&gateway, "changes are refused", false).await?;
    done(&gateway, &ada, "POST /api/bans", json!({ "user": "eve" })).await?;

    std::fs::write(&store, "noise".repeat(4_000))?;
    done(&gateway, &ada, "POST /api/bans", json!({ "user": "finn" })).await?;
    wait_degraded(&gateway, "set aside", true).await?;
    let bans = done(&gateway, &ada, "GET /api/bans", Value::Null).await?;
    assert_eq!(bans["bans"].as_array().map(Vec::len), Some(2), "the first was written into the new file: {bans}");
    lone.ask("ptt-start", json!({ "channelId": "medical" })).await?;
    let kept = std::fs::read_dir(gateway.state_dir())?.filter_map(|e| e.ok()?.file_name().into_string().ok());
    assert_eq!(kept.filter(|name| name.starts_with("people.sqlite.damaged-")).count(), 1);
    let rows = gateway.audit()?;
    assert!(rows.iter().all(|row| row.action != "permission.revoked"), "nobody lost anything");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_is_read_again_as_a_whole_or_not_at_all() -> Result<()> {
    let gateway = Gateway::with_config(EVENT).await?;
    let file = gateway.state_dir().join("event.toml");
    let mut anna = Signaling::connect(&gateway, &gateway.token("anna", "general", "ops,gate")?).await?;
    let gate = "\n[[channel]]\nid = \"gate\"\nname = \"Gate\"\n";

    std::fs::write(&file, format!("{}{gate}", EVENT.replace("\"fair\"", "\"fare\"")))?;
    let (code, _, complaint) = cli(gateway.state_dir(), &["reload"])?;
    assert_eq!(code, 65, "{complaint}");
    assert!(complaint.contains("event.toml:2: 'event.id' has changed, which needs a restart"), "{complaint}");
    std::fs::write(&file, format!("{EVENT}{gate}nmae = 1\n"))?;
    let (code, _, complaint) = cli(gateway.state_dir(), &["reload"])?;
    assert_eq!(code, 65, "{complaint}");
    assert!(complaint.contains("event.toml:19: unknown field `nmae`"), "{complaint}");
    let refused = anna.request("join-channel", json!({ "channelId": "gate" })).await?;
    assert_eq!(refused["data"]["code"], "unknown-channel", "nothing of either file was taken");
    gateway.audited_row(|row| row.action == "system.config_refused").await?;

    std::fs::write(&file, format!("{}{gate}", EVENT.replace("general_channels = 10", "general_channels = 1")))?;
    let (code, taken, complaint) = cli(gateway.state_dir(), &["reload"])?;
    assert_eq!((code, taken.as_str()), (0, "Taken: channel[2], limits.general_channels\n"), "{complaint}");
    assert_eq!(update(&anna).await?, (json!(["gate"]), json!([])));
    anna.ask("join-channel", json!({ "channelId": "gate" })).await?;
    let refused = anna.request("join-channel", json!({ "channelId": "ops" })).await?;
    assert_eq!(refused["error"], "Maximum channels reached. Remove a channel to add another.");

    std::fs::write(&file, EVENT)?;
    gateway.signal("HUP")?;
    assert_eq!(update(&anna).await?, (json!([]), json!(["gate"])));
    anna.ask("join-channel", json!({ "channelId": "ops" })).await?;
    let by = |who: &'static str| {
        move |row: &crosspatch::audit::Row| row.action == "system.config_reloaded" && row.actor.as_deref() == Some(who)
    };
    gateway.audited_row(by("cli")).await?;
    gateway.audited_row(by("system")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_changes_a_running_gateway_and_a_stopped_ones_store() -> Result<()> {
    let mut gateway = Gateway::with_config(EVENT).await?;
    let state = gateway.state_dir().to_owned();
    let mut dana = Signaling::connect(&gateway, &gateway.token("dana", "general", "ops")?).await?;
    dana.ask("join-channel", json!({ "channelId": "ops" })).await?;
    cli_json(&state, &["person", "add", "dana", "--name", "Dana", "--role", "dispatch", "--channels", "ops,medical"])?;
    assert_eq!(update(&dana).await?, (json!(["medical"]), json!([])));
    let granted = dana.ask("priority-ptt-start", json!({ "channelId": "ops" })).await?;
    assert_eq!(granted["state"]["speakerRole"], "DISPATCH");
    let (code, _, why) = cli(&state, &["person", "add", "ed", "--name", "Ed", "--role", "general", "--channels", "x"])?;
    assert_eq!((code, why.as_str()), (65, "crosspatch: There is no channel 'x'. Add it first.\n"));
    let (code, table, _) = cli(&state, &["channel", "list"])?;
    assert_eq!((code, table.lines().nth(1)), (0, Some("ops      Operations  1      config")));
    let row = gateway.audited_row(|row| row.action == "role.change").await?;
    assert_eq!((row.actor.as_deref(), row.target.as_deref()), (Some("cli"), Some("dana")));

    gateway.signal("KILL")?;
    let deadline = Instant::now() + SOON;
    while crosspatch::gateway::lock_state_dir(&state)?.is_none() {
        ensure!(Instant::now() < deadline, "the gateway does not die");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(cli_json(&state, &["person", "list"])?["people"][0]["connected"], false);
    cli_json(&state, &["channel", "add", "gate", "--name", "Gate"])?;
    cli_json(&state, &["channel", "change", "gate", "--name", "Main gate"])?;
    cli_json(&state, &["person", "change", "dana", "--role", "general", "--channels", "gate"])?;
    cli_json(&state, &["ban", "add", "bert", "--duration", "2h", "--reason", "noise"])?;
    let (code, table, _) = cli(&state, &["ban", "list"])?;
    assert_eq!((code, table.as_str()), (0, "USER  FOR   REASON  BY\nbert  2h0m  noise   cli\n"));
    assert_eq!(cli(&state, &["ban", "remove", "eve"])?.0, 65);
    assert_eq!(cli(&state, &["reload"])?.0, 65, "nobody is there to reload");

    gateway.crash_and_restart().await?;
    let mut dana = Signaling::connect(&gateway, &gateway.token("dana", "dispatch", "ops")?).await?;
    dana.ask("join-channel", json!({ "channelId": "gate" })).await?;
    let refused = dana.request("priority-ptt-start", json!({ "channelId": "gate" })).await?;
    assert_eq!(refused["data"]["code"], "no-priority", "the store's word goes before the token's");
    assert!(refusal(&gateway, &gateway.token("bert", "general", "ops")?).await.contains("403"));
    let channels = cli_json(&state, &["channel", "list"])?;
    assert_eq!(channels["channels"][2]["name"], "Main gate");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_for_admins_alone_and_says_what_is_wrong() -> Result<()> {
    let gateway = Gateway::demo().await?;
    let (ada, dora) = (admin(&gateway)?, gateway.token("dora", "dispatch", "ops")?);
    let code = |answer: (u16, Value)| (answer.0, answer.1["code"].as_str().unwrap_or_default().to_owned());
    assert_eq!(code(api(&gateway, "", "GET /api/people", Value::Null).await?), (401, "no-token".into()));
    assert_eq!(code(api(&gateway, &dora, "POST /api/reload", Value::Null).await?), (403, "not-admin".into()));
    let wrong = [
        ("POST /api/channels", json!({ "id": "x", "name": "X", "colour": 1 }), 400, "bad-request"),
        ("POST /api/channels", json!({ "id": "a b", "name": "X" }), 400, "bad-id"),
        ("POST /api/channels", json!({ "id": "x", "name": "\n" }), 400, "bad-text"),
        ("POST /api/channels", json!({ "id": "ops", "name": "X" }), 409, "exists"),
        ("PUT /api/channels/x", json!({ "name": "X" }), 404, "not-found"),
        ("PATCH /api/channels/x", Value::Null, 405, "method-not-allowed"),
        ("PUT /api/people/desk-1", json!({ "name": "X" }), 409, "in-configuration"),
        ("DELETE /api/people/nobody", Value::Null, 404, "not-found"),
        ("POST /api/people/desk-1/enable", Value::Null, 404, "not-found"),
        ("POST /api/people", json!({ "id": "x".repeat(70_000) }), 413, "bad-body"),
        ("POST /api/reload", Value::Null, 409, "config-refused"),
    ];
    for (what, body, status, word) in wrong {
        assert_eq!(code(api(&gateway, &ada, what, body).await?), (status, word.into()), "{what}");
    }
    let demoted = json!({ "id": "ada", "name": "Ada", "role": "general", "channels": [] });
    done(&gateway, &ada, "POST /api/people", demoted).await?;
    assert_eq!(code(api(&gateway, &ada, "GET /api/people", Value::Null).await?), (403, "not-admin".into()));
    let denied = gateway.audited_row(|row| row.cause.as_deref() == Some("not-admin") && row.target.is_none()).await?;
    assert_eq!(denied.action, "permission.denied");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_desk_that_was_thrown_out_stays_disabled_over_a_restart_until_it_is_enabled() -> Result<()> {
    let mut gateway = Gateway::demo().await?;
    let mut dora = Signaling::connect(&gateway, &gateway.token("dora", "dispatch", "ops")?).await?;
    dora.ask("force-disconnect", json!({ "targetUserId": "desk-1", "reason": "stuck" })).await?;
    wait_degraded(&gateway, "crosspatch person enable desk-1", true).await?;
    gateway.crash_and_restart().await?;
    wait_degraded(&gateway, "crosspatch person enable desk-1", true).await?;
    gateway.move_line("desk.ptt.ops", true).await?;
    gateway.audited_row(|row| row.action == "ptt.denied" && row.cause.as_deref() == Some("disabled")).await?;
    gateway.move_line("desk.ptt.ops", false).await?;

    let enabled = cli_json(gateway.state_dir(), &["person", "enable", "desk-1"])?;
    assert_eq!((&enabled["id"], &enabled["disabled"]), (&json!("desk-1"), &json!(false)));
    wait_degraded(&gateway, "crosspatch person enable desk-1", false).await?;
    gateway.move_line("desk.ptt.ops", true).await?;
    let granted = gateway.audited_row(|row| row.action == "priority_ptt.start").await?;
    assert_eq!(granted.actor.as_deref(), Some("desk-1"));
    Ok(())
}
