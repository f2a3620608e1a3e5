//! The whole gateway with clients that are no browsers: what is said is heard, and by whom.

#[expect(dead_code, reason = "the benchmarks use the rest")]
#[path = "native/mod.rs"]
mod native;

use anyhow::{Context, Result, bail};
use native::client::{Heard, NativeClient};
use native::figures::percentile;
use native::gateway::Gateway;
use native::lean::{self, Lean};
use native::sdp::DtlsRole;
use native::signaling::Signaling;
use native::talker::Talker;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// An Opus packet of 20 ms begins like this.
const TOC: u8 = 0xf8;
/// How long what is sent may take to be heard; generous, since machines are busy.
const SOON: Duration = Duration::from_secs(3);
/// Long enough for a packet that should not come.
const QUIET: Duration = Duration::from_millis(300);

fn payload(talker: u8, number: u8) -> Vec<u8> {
    vec![TOC, talker, number, 0, 0, 0, 0, 0]
}

fn of(heard: &[Heard], talker: u8) -> impl Iterator<Item = &Heard> {
    heard.iter().filter(move |packet| packet.payload[1] == talker)
}

async fn member(gateway: &Gateway, user: &str, role: &str, dtls: DtlsRole) -> Result<NativeClient> {
    let token = gateway.token(user, role, "ops")?;
    let mut client = NativeClient::connect(gateway, &token, dtls).await?;
    client.join("ops").await?;
    Ok(client)
}

/// Talks for `count` packets at the pace of speech.
async fn talk(client: &mut NativeClient, talker: u8, count: u8) -> Result<()> {
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    for number in 0..count {
        pace.tick().await;
        client.send_opus(&payload(talker, number)).await?;
    }
    Ok(())
}

fn bursts(stats: &Value) -> &[Value] {
    stats["bursts"].as_array().expect("the bursts are an array")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_bursts_of_two_talkers_are_one_stream() -> Result<()> {
    let gateway = Gateway::demo().await?;
    let mut anna = member(&gateway, "anna", "general", DtlsRole::Client).await?;
    let mut bert = member(&gateway, "bert", "general", DtlsRole::Server).await?;
    let mut cora = member(&gateway, "cora", "general", DtlsRole::Server).await?;
    anna.produce("ops").await?;
    bert.produce("ops").await?;
    let consumer = cora.consume("ops").await?;
    assert_eq!(consumer["producerId"], "channel:ops");
    anna.consume("ops").await?;

    for (talker, client) in [(1, &mut anna), (2, &mut bert)] {
        client.press("ops", false).await?;
        talk(client, talker, 40).await?;
        let heard = cora.wait_heard(|heard| of(heard, talker).count() == 40, SOON).await;
        let numbers: Vec<u8> = of(&heard, talker).map(|packet| packet.payload[2]).collect();
        assert_eq!(numbers, (0..40).collect::<Vec<u8>>(), "talker {talker}, every packet, in order");
        client.release("ops").await?;
    }

    let heard = cora.heard();
    let ssrc = &consumer["rtpParameters"]["encodings"][0]["ssrc"];
    assert!(heard.iter().all(|packet| *ssrc == packet.ssrc), "one stream whoever talks");
    assert!(heard.windows(2).all(|w| w[1].sequence == w[0].sequence.wrapping_add(1)), "no gap between bursts");
    let own = anna.heard();
    assert_eq!((of(&own, 1).count(), of(&own, 2).count()), (0, 40), "nobody hears themselves");
    for client in [anna, bert, cora] {
        client.close().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_cuts_in_and_nothing_of_the_old_burst_follows() -> Result<()> {
    let gateway = Gateway::demo().await?;
    let mut anna = member(&gateway, "anna", "general", DtlsRole::Server).await?;
    let mut dora = member(&gateway, "dora", "dispatch", DtlsRole::Client).await?;
    let mut cora = member(&gateway, "cora", "general", DtlsRole::Client).await?;
    anna.produce("ops").await?;
    dora.produce("ops").await?;
    cora.consume("ops").await?;

    let old = anna.press("ops", false).await?["state"]["burstId"].clone();
    // Anna does not care that she is interrupted: she talks on, 200 packets a second.
    let talking = tokio::spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(5));
        for number in 0..200 {
            pace.tick().await;
            anna.send_opus(&payload(1, number)).await?;
        }
        anyhow::Ok(anna)
    });
    cora.wait_heard(|heard| heard.len() >= 40, SOON).await;
    dora.press("ops", true).await?;
    let at_reply = gateway.stats().await?;
    let cut = |stats: &Value| bursts(stats).iter().find(|burst| burst["burst"] == old).cloned().expect("the burst");
    talk(&mut dora, 2, 20).await?;
    let anna = talking.await??;

    let heard = cora.wait_heard(|heard| of(heard, 2).count() == 20, SOON).await;
    assert_eq!(of(&heard, 2).count(), 20, "the dispatcher is heard");
    let first = heard.iter().position(|packet| packet.payload[1] == 2).expect("a packet of the dispatcher");
    assert_eq!(of(&heard[first..], 1).count(), 0, "nobody but the dispatcher after the first packet");
    assert!(heard.windows(2).all(|w| w[1].sequence == w[0].sequence.wrapping_add(1)), "one stream without a gap");

    let after = gateway.stats().await?;
    assert!(bursts(&after).iter().all(|burst| burst["afterShut"] == 0), "{after}");
    assert_eq!(cut(&at_reply)["forwarded"], cut(&after)["forwarded"], "the gate was shut when the reply came");
    // Cora, the desk: each packet that left the gate is one of at most two.
    assert!(of(&heard, 1).count() < 200, "the interrupted talker is not heard to the end");

    let told = |push: &Value| push["type"] == "ptt-interrupted";
    let told = anna.signaling.wait_push(told, SOON).await?;
    assert_eq!(told["data"]["cause"], "preempted");
    assert_eq!(told["data"]["message"], "Dispatch dora has priority");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_floor_nothing_arrives() -> Result<()> {
    let gateway = Gateway::demo().await?;
    let mut anna = member(&gateway, "anna", "general", DtlsRole::Client).await?;
    let mut cora = member(&gateway, "cora", "general", DtlsRole::Client).await?;
    anna.produce("ops").await?;
    cora.consume("ops").await?;

    talk(&mut anna, 1, 25).await?;
    tokio::time::sleep(QUIET).await;
    assert!(cora.heard().is_empty(), "heard without the floor");
    let before = gateway.stats().await?;
    assert_eq!(before["media"]["dropped"]["gateShut"], 25, "{before}");

    anna.press("ops", false).await?;
    talk(&mut anna, 2, 10).await?;
    cora.wait_heard(|heard| of(heard, 2).count() == 10, SOON).await;
    anna.release("ops").await?;
    talk(&mut anna, 3, 25).await?;
    tokio::time::sleep(QUIET).await;
    let heard = cora.heard();
    assert_eq!((of(&heard, 2).count(), heard.len()), (10, 10), "only what was said with the floor");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_joins_late_hears_the_running_burst_at_once() -> Result<()> {
    let gateway = Gateway::demo().await?;
    let mut anna = Talker::join(&gateway, "anna", "general", "ops").await?;
    anna.signaling.ask("ptt-start", json!({ "channelId": "ops" })).await?;
    let identity = lean::Identity::new()?;
    // On a new transport, which has to connect first, and on one that is connected.
    let (mut new, mut connected) = (Vec::new(), Vec::new());
    for round in 0..50 {
        let token = gateway.token(&format!("late-{round}"), "general", "ops")?;
        let mut late = Signaling::connect(&gateway, &token).await?;
        late.ask("join-channel", json!({ "channelId": "ops" })).await?;
        let transport = lean::create(&mut late, "ops", "recv").await?;
        let (consumed, ssrc) = consume(&mut late, &transport["id"]).await?;
        let mut ear = lean::connect_to(&mut late, transport, &identity).await?;
        new.push(first_packet(&mut ear, ssrc)? - consumed);
        let (consumed, ssrc) = consume(&mut late, &json!(ear.id)).await?;
        connected.push(first_packet(&mut ear, ssrc)? - consumed);
    }
    for (what, waits) in [("new", &mut new), ("connected", &mut connected)] {
        let mut ms = |q| percentile(waits, q, Duration::from_millis(1));
        let (p50, p99) = (ms(0.5), ms(0.99));
        println!("reply to consume to first packet, {what} transport: p50 {p50:.1} ms, p99 {p99:.1} ms");
        assert!(p99 < 150.0, "on a {what} transport: {p99:.1} ms"); // F12
    }
    Ok(())
}

/// Consumes the channel; when the reply came, and which stream it promises.
async fn consume(signaling: &mut Signaling, transport: &Value) -> Result<(Instant, u64)> {
    let opus = json!({ "kind": "audio", "mimeType": "audio/opus", "clockRate": 48_000, "channels": 2 });
    let request = json!({
        "channelId": "ops", "transportId": transport, "producerId": "channel:ops", "rtpCapabilities": { "codecs": [opus] },
    });
    let consumer = signaling.ask("consume", request).await?;
    let at = Instant::now();
    Ok((at, consumer["rtpParameters"]["encodings"][0]["ssrc"].as_u64().context("no ssrc")?))
}

/// When the first genuine packet of the stream comes in.
fn first_packet(ear: &mut Lean, ssrc: u64) -> Result<Instant> {
    let deadline = Instant::now() + SOON;
    let mut buffer = [0; 2048];
    while Instant::now() < deadline {
        let Ok(length) = ear.socket.recv(&mut buffer) else { continue };
        let at = Instant::now();
        let Some(packet) = ear.open_rtp(&buffer[..length]) else { continue };
        let named = packet.as_ref().get(8..12).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
        if named.map(u64::from) == Some(ssrc) {
            return Ok(at);
        }
    }
    bail!("nothing of the burst within {SOON:?}")
}
