//! What is lost on the way, by a real gateway: media, sockets, time, races, and the gateway itself.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "native/mod.rs"]
mod native;

use anyhow::{Context, Result, ensure};
use native::gateway::Gateway;
use native::signaling::Signaling;
use native::talker::Talker;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const DEMO: &str = include_str!("../src/gateway/demo.toml");
/// How long what is due at once may take on a busy machine.
const SOON: Duration = Duration::from_secs(3);
/// F10, T1.
const SILENCE: Duration = Duration::from_secs(4);
/// What a measurement over the network may be off by, on a busy machine.
const SLACK: Duration = Duration::from_millis(500);
const CHANNELS: [&str; 4] = ["ops", "medical", "security", "logistics"];

async fn member(gateway: &Gateway, user: &str, role: &str, channel: &str) -> Result<Signaling> {
    let mut signaling = Signaling::connect(gateway, &gateway.token(user, role, channel)?).await?;
    signaling.ask("join-channel", json!({ "channelId": channel })).await?;
    Ok(signaling)
}

fn on(channel: &str) -> Value {
    json!({ "channelId": channel })
}

async fn press(signaling: &mut Signaling, channel: &str) -> Result<Value> {
    let reply = signaling.ask("ptt-start", on(channel)).await?;
    ensure!(reply["success"] == true, "no floor: {reply}");
    Ok(reply["state"]["burstId"].clone())
}

/// The holder of a channel, as somebody who joins it is told.
async fn holder(gateway: &Gateway, channel: &str) -> Result<Value> {
    let mut visitor = Signaling::connect(gateway, &gateway.token("visitor", "general", channel)?).await?;
    Ok(visitor.ask("join-channel", on(channel)).await?["state"]["currentSpeaker"].take())
}

fn is_idle(push: &Value) -> bool {
    push["type"] == "speaker-changed" && push["data"]["isBusy"] == false
}

fn is_interrupted(push: &Value) -> bool {
    push["type"] == "ptt-interrupted"
}

/// Waits until a burst has got `more` packets in than it has now.
async fn hears_more(gateway: &Gateway, burst: &Value, more: u64) -> Result<()> {
    let received = |stats: &Value| {
        let bursts = stats["bursts"].as_array().into_iter().flatten();
        bursts.filter(|b| b["burst"] == *burst).filter_map(|b| b["received"].as_u64()).sum::<u64>()
    };
    let before = received(&gateway.stats().await?);
    let deadline = Instant::now() + SOON;
    while received(&gateway.stats().await?) < before + more {
        ensure!(Instant::now() < deadline, "{burst} is not heard: {}", gateway.stats().await?);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stood_still_for_5_s_takes_the_floor_from_nobody() -> Result<()> {
    let gateway = Gateway::demo().await?;
    let mut talkers = Vec::new();
    for (user, channel) in [("anna", "ops"), ("mia", "medical"), ("seth", "security")] {
        let mut talker = Talker::join(&gateway, user, "general", channel).await?;
        let burst = press(&mut talker.signaling, channel).await?;
        hears_more(&gateway, &burst, 5).await?;
        talkers.push((talker, burst));
    }
    gateway.move_line("desk.ptt.logistics", true).await?;
    assert_eq!(holder(&gateway, "logistics").await?, "desk-1");

    gateway.signal("STOP")?;
    // Nothing is waited for here: the time itself is what the gateway misses.
    tokio::time::sleep(Duration::from_secs(5)).await;
    gateway.signal("CONT")?;

    for (talker, burst) in &talkers {
        hears_more(&gateway, burst, 25).await?;
        let told = talker.signaling.unasked();
        assert!(!told.iter().any(is_interrupted), "{told:?}");
    }
    for (channel, user) in [("ops", "anna"), ("medical", "mia"), ("security", "seth"), ("logistics", "desk-1")] {
        assert_eq!(holder(&gateway, channel).await?, user);
    }
    gateway.move_line("desk.ptt.logistics", false).await?;
    gateway.audited("action = 'ptt.stop' AND actor = 'desk-1'").await?;
    let revoked: Vec<_> = gateway.audit()?.into_iter().filter(|row| row.action == "ptt.revoked").collect();
    assert!(revoked.is_empty(), "{revoked:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_talker_who_vanishes_without_a_word_loses_the_floor_after_4_s() -> Result<()> {
    let gateway = Gateway::demo().await?;
    let mut anna = Talker::join(&gateway, "anna", "general", "ops").await?;
    let mut bert = member(&gateway, "bert", "general", "ops").await?;
    let burst = press(&mut anna.signaling, "ops").await?;
    // Longer than the limit: it is the silence that counts, not the time since the grant.
    for _ in 0..5 {
        hears_more(&gateway, &burst, 50).await?;
    }
    let vanished = anna.vanish();
    bert.wait_push(is_idle, SILENCE + SOON).await?;
    let took = vanished.elapsed();
    assert!((SILENCE - SLACK..SILENCE + SLACK).contains(&took), "free after {took:?}");
    let told = anna.signaling.wait_push(is_interrupted, SOON).await?;
    assert_eq!((&told["data"]["cause"], &told["data"]["burstId"]), (&json!("no-media"), &burst));
    press(&mut bert, "ops").await?;
    gateway.audited("action = 'ptt.revoked' AND actor = 'anna' AND cause = 'no-media'").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_talker_who_never_sends_anything_loses_the_floor_after_4_s() -> Result<()> {
    let gateway = Gateway::demo().await?;
    let mut anna = member(&gateway, "anna", "general", "ops").await?;
    let asked = Instant::now();
    press(&mut anna, "ops").await?;
    let told = anna.wait_push(is_interrupted, SILENCE + SOON).await?;
    let took = asked.elapsed();
    assert!((SILENCE..SILENCE + SLACK).contains(&took), "after {took:?}");
    assert_eq!(told["data"]["cause"], "no-media");
    assert_eq!(holder(&gateway, "ops").await?, Value::Null);
    gateway.audited("action = 'ptt.revoked' AND cause = 'no-media'").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_talker_whose_socket_is_lost_frees_the_floor_at_once() -> Result<()> {
    let gateway = Gateway::demo().await?;
    let mut anna = Talker::join(&gateway, "anna", "general", "ops").await?;
    let mut bert = member(&gateway, "bert", "general", "ops").await?;
    let burst = press(&mut anna.signaling, "ops").await?;
    hears_more(&gateway, &burst, 5).await?;
    let lost = Instant::now();
    drop(anna);
    bert.wait_push(is_idle, SOON).await?;
    let took = lost.elapsed();
    assert!(took < SLACK, "free after {took:?}");
    press(&mut bert, "ops").await?;
    gateway.audited("action = 'auth.logout' AND actor = 'anna' AND cause = 'connection-lost'").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_talk_limit_warns_cuts_the_media_and_locks_out() -> Result<()> {
    let config = DEMO.replace("[event]\n", "[event]\ntalk_limit_s = 12\n");
    let gateway = Gateway::with_config(&config).await?;
    let mut anna = Talker::join(&gateway, "anna", "general", "ops").await?;
    let granted = Instant::now();
    let burst = press(&mut anna.signaling, "ops").await?;
    let warning = anna.signaling.wait_push(|push| push["type"] == "talk-limit-warning", SOON).await?;
    let warned = granted.elapsed();
    assert!((2_000..2_500).contains(&warned.as_millis()), "warned after {warned:?}");
    let remaining = warning["data"]["remainingMs"].as_u64().context("how long is left?")?;
    assert!((9_500..=10_000).contains(&remaining), "{warning}");

    let told = anna.signaling.wait_push(is_interrupted, Duration::from_secs(10) + SOON).await?;
    let cut = granted.elapsed();
    assert!((12_000..12_500).contains(&cut.as_millis()), "cut after {cut:?}");
    assert_eq!(told["data"]["cause"], "talk-limit");
    let denied = anna.signaling.ask("ptt-start", on("ops")).await?;
    assert_eq!((&denied["success"], &denied["denied"]), (&json!(false), &json!(true)), "locked out");
    let of_burst = |stats: &Value| {
        stats["bursts"].as_array().into_iter().flatten().find(|b| b["burst"] == burst).cloned().context("no such burst")
    };
    let before = gateway.stats().await?;
    anna.signaling.ask("ptt-stop", on("ops")).await?;
    let next = press(&mut anna.signaling, "ops").await?;
    hears_more(&gateway, &next, 25).await?;
    let after = gateway.stats().await?;
    assert_eq!(of_burst(&before)?["forwarded"], of_burst(&after)?["forwarded"], "the limit cuts the media (F9)");
    assert_eq!(of_burst(&after)?["afterShut"], 0);
    gateway.audited("action = 'ptt.revoked' AND cause = 'talk-limit'").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_ask_in_the_same_moment_get_one_reply_each_and_one_of_them_the_floor() -> Result<()> {
    let gateway = Gateway::demo().await?;
    let mut anna = member(&gateway, "anna", "general", "ops").await?;
    let mut bert = member(&gateway, "bert", "general", "ops").await?;
    let mut won = [0, 0];
    for round in 0..50 {
        let (first, second) = if round % 2 == 0 { (&mut anna, &mut bert) } else { (&mut bert, &mut anna) };
        let (one, two) = tokio::try_join!(first.ask("ptt-start", on("ops")), second.ask("ptt-start", on("ops")))?;
        let winner = usize::from(one["success"] != true);
        let (reply, denial) = if winner == 0 { (&one, &two) } else { (&two, &one) };
        assert_eq!(reply["success"], true, "round {round}: somebody gets it: {one} {two}");
        assert_eq!((&denial["success"], &denial["denied"]), (&json!(false), &json!(true)), "round {round}");
        assert_eq!(denial["currentSpeaker"], reply["state"]["currentSpeaker"]);
        won[winner] += 1;
        // F8: the loser's release, and one that is stale, change nothing.
        let (winner, loser) = if winner == 0 { (first, second) } else { (second, first) };
        let after = loser.ask("ptt-stop", on("ops")).await?;
        assert_eq!(after["state"]["burstId"], reply["state"]["burstId"], "round {round}");
        winner.ask("ptt-stop", on("ops")).await?;
        let stale = json!({ "channelId": "ops", "burstId": reply["state"]["burstId"] });
        assert_eq!(winner.ask("ptt-stop", stale).await?["success"], true);
    }
    for signaling in [&mut anna, &mut bert] {
        signaling.ask("ping", json!({})).await?;
        let twice: Vec<_> = signaling.unasked().into_iter().filter(|m| m.get("id").is_some()).collect();
        assert!(twice.is_empty(), "more than one reply: {twice:?}");
    }
    // 50 grants, 50 releases: each announced once to whoever did not do it.
    let changes = anna.unasked().iter().chain(&bert.unasked()).filter(|m| m["type"] == "speaker-changed").count();
    assert_eq!(changes, 100, "first to ask {}, second {}", won[0], won[1]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_killed_in_an_emergency_comes_back_without_a_trace_of_it() -> Result<()> {
    let mut gateway = Gateway::demo().await?;
    let mut dora = Talker::join(&gateway, "dora", "dispatch", "ops").await?;
    let mut mia = member(&gateway, "mia", "general", "medical").await?;
    let started = dora.signaling.ask("emergency-broadcast-start", json!({ "holdDuration": 2000 })).await?;
    assert_eq!(started["channelCount"], 4);
    hears_more(&gateway, &burst_of_dora(&mut mia).await?, 25).await?;
    gateway.audited("action = 'emergency_broadcast.start'").await?;
    let token = gateway.token("dora", "dispatch", &CHANNELS.join(","))?;
    gateway.crash_and_restart().await?;

    let mut dora = Signaling::connect(&gateway, &token).await?;
    for channel in CHANNELS {
        let refused = dora.request("ptt-start", on(channel)).await?;
        assert_eq!(refused["data"]["code"], "not-member", "nothing is joined that she has not joined: {refused}");
    }
    for channel in CHANNELS {
        let joined = dora.ask("join-channel", on(channel)).await?;
        assert_eq!((&joined["state"]["isBusy"], &joined["state"]["burstId"]), (&json!(false), &Value::Null));
        press(&mut dora, channel).await?;
        dora.ask("ptt-stop", on(channel)).await?;
    }
    let told = dora.unasked();
    assert!(!told.iter().any(|push| push["type"] == "emergency-broadcast-start"), "{told:?}");

    gateway.audited("action = 'ptt.stop' AND channel = 'logistics'").await?;
    let rows = gateway.audit()?;
    let numbers: Vec<_> = rows.iter().map(|row| row.seq).collect();
    assert_eq!(numbers, (1..=rows.len() as i64).collect::<Vec<_>>(), "no row is missing");
    let count = |action: &str| rows.iter().filter(|row| row.action == action).count();
    assert_eq!((count("system.start"), count("emergency_broadcast.start")), (2, 1));
    assert_eq!(count("emergency_broadcast.stop"), 0, "nobody was there to write it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcaster_whose_socket_is_lost_ends_the_emergency_at_once() -> Result<()> {
    let gateway = Gateway::demo().await?;
    let mut dora = Talker::join(&gateway, "dora", "dispatch", "ops").await?;
    let mut mia = member(&gateway, "mia", "general", "medical").await?;
    dora.signaling.ask("emergency-broadcast-start", json!({ "holdDuration": 2000 })).await?;
    hears_more(&gateway, &burst_of_dora(&mut mia).await?, 25).await?;
    let lost = Instant::now();
    drop(dora);
    mia.wait_push(|push| push["type"] == "emergency-broadcast-stop", SOON).await?;
    let took = lost.elapsed();
    assert!(took < SLACK, "over after {took:?}");
    press(&mut mia, "medical").await?;
    gateway.audited("action = 'emergency_broadcast.stop' AND cause = 'session-closed'").await?;
    let stop = gateway.audit()?.into_iter().find(|row| row.action == "emergency_broadcast.stop");
    assert_eq!(stop.context("no stop")?.detail["temporaryChannelsCleanedUp"], 3);
    for channel in CHANNELS {
        let expected = if channel == "medical" { json!("mia") } else { Value::Null };
        assert_eq!(holder(&gateway, channel).await?, expected, "{channel}");
    }
    Ok(())
}

/// The burst of a broadcast that Dora has begun.
async fn burst_of_dora(listener: &mut Signaling) -> Result<Value> {
    let changed = listener.wait_push(|push| push["type"] == "speaker-changed", SOON).await?;
    assert_eq!(changed["data"]["currentSpeaker"], "dora");
    Ok(changed["data"]["burstId"].clone())
}
