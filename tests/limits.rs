//! Limits slow down and never lock out; a lost session comes back.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "native/mod.rs"]
mod native;

use anyhow::{Context, Result};
use native::gateway::Gateway;
use native::signaling::Signaling;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio_tungstenite::tungstenite;

/// How long what is sent may take; generous, since machines are busy.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_too_often_is_answered_later_and_may_still_release_and_start_an_emergency() -> Result<()> {
    let gateway = Gateway::demo().await?;
    let mut dora = Signaling::connect(&gateway, &gateway.token("dora", "dispatch", "ops")?).await?;
    dora.ask("join-channel", json!({ "channelId": "ops" })).await?;
    let flood = 300;
    let began = Instant::now();
    for _ in 0..flood {
        dora.send("get-router-capabilities", json!({ "channelId": "ops" })).await?;
    }
    // Behind the flood, on the same socket.
    for (kind, data) in [
        ("ptt-stop", json!({ "channelId": "ops" })),
        ("emergency-broadcast-arm", json!({ "pressed": true })),
        ("emergency-broadcast-arm", json!({ "pressed": false })),
        ("emergency-broadcast-start", json!({ "holdDuration": 2000 })),
        ("emergency-broadcast-stop", json!({})),
    ] {
        assert_eq!(dora.ask(kind, data).await?["success"], true, "{kind}");
    }
    let urgent = began.elapsed();
    let (mut carried_out, mut refused) = (0, 0);
    for _ in 0..flood {
        let reply = dora.next_reply(SOON).await?;
        match reply["type"].as_str() {
            Some("channel-state") => carried_out += 1,
            Some("error") => {
                assert_eq!(reply["data"]["code"], "rate-limited", "{reply}");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    let all = began.elapsed();
    assert!(carried_out >= 49 && refused > 100, "{carried_out} carried out besides the join, {refused} refused");
    assert!(urgent * 2 < all, "what is urgent took {urgent:?} of {all:?}");
    assert!(all >= Duration::from_secs(2), "the last refusals came after {all:?}");
    assert!(dora.ask("get-router-capabilities", json!({ "channelId": "ops" })).await.is_ok(), "nobody is locked out");
    assert_eq!(gateway.audited("action = 'rate_limit.hit' AND target = 'dora'").await?, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_41st_connection_of_a_general_user_within_a_minute_is_told_when_to_come_back() -> Result<()> {
    let gateway = Gateway::demo().await?;
    let token = gateway.token("anna", "general", "ops")?;
    for _ in 0..40 {
        Signaling::connect(&gateway, &token).await?;
    }
    let refused = Signaling::connect(&gateway, &token).await.err().context("the 41st connection was let in")?;
    let Some(tungstenite::Error::Http(answer)) = refused.downcast_ref() else { panic!("{refused:?}") };
    assert_eq!(answer.status(), 429);
    let seconds: u64 = answer.headers()["Retry-After"].to_str()?.parse()?;
    assert!((1..=60).contains(&seconds), "{seconds}");
    gateway.audited("action = 'rate_limit.block' AND target = 'anna'").await?;
    let other = Signaling::connect(&gateway, &gateway.token("bert", "general", "ops")?).await;
    assert!(other.is_ok(), "another user is let in");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_comes_back_is_a_member_again_and_does_not_hold_the_floor() -> Result<()> {
    let gateway = Gateway::demo().await?;
    let token = gateway.token("anna", "general", "ops,medical")?;
    let is = |kind: &'static str| move |push: &Value| push["type"] == kind;
    let bert = {
        let mut bert = Signaling::connect(&gateway, &gateway.token("bert", "general", "ops")?).await?;
        bert.ask("join-channel", json!({ "channelId": "ops" })).await?;
        bert
    };
    let mut anna = Signaling::connect_with(&gateway, &token, "?resume=").await?;
    let first = anna.wait_push(is("session"), SOON).await?;
    assert_eq!(first["data"]["resumed"], json!([]));
    anna.ask("join-channel", json!({ "channelId": "ops" })).await?;
    assert_eq!(anna.ask("ptt-start", json!({ "channelId": "ops" })).await?["success"], true);
    drop(anna);
    let action =
        |action: &'static str| move |push: &Value| push["data"]["action"] == action && push["data"]["userId"] == "anna";
    bert.wait_push(action("user-disconnected"), SOON).await?;

    let session = first["data"]["sessionId"].as_str().context("no session id")?;
    let mut anna = Signaling::connect_with(&gateway, &token, &format!("?resume={session}")).await?;
    let resumed = anna.wait_push(is("session"), SOON).await?;
    assert_eq!(resumed["data"]["resumed"][0]["channelId"], "ops");
    assert_eq!(resumed["data"]["resumed"][0]["isBusy"], false, "never the floor");
    bert.wait_push(action("user-joined"), SOON).await?;
    assert_eq!(anna.ask("ptt-start", json!({ "channelId": "ops" })).await?["success"], true, "a member again");
    let refused = anna.request("ptt-start", json!({ "channelId": "medical" })).await?;
    assert_eq!(refused["data"]["code"], "not-member");
    Ok(())
}
