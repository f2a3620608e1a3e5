//! Somebody who talks on and on: a lean transport with a thread that sends a packet every 20 ms.

use super::gateway::Gateway;
use super::lean::{self, Identity, Lean};
use super::signaling::Signaling;
use anyhow::{Context, Result};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const SSRC: u32 = 7;
const FRAME: Duration = Duration::from_millis(20);
/// How often consent is renewed.
const CONSENT: Duration = Duration::from_secs(5);

/// A member of one channel with a producer; it sends from the beginning, with or without the floor.
pub struct Talker {
    /// Its WebSocket.
    pub signaling: Signaling,
    speaks: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
    voice: Option<JoinHandle<()>>,
}

impl Talker {
    /// Joins `channel` and begins to send.
    pub async fn join(gateway: &Gateway, user: &str, role: &str, channel: &str) -> Result<Self> {
        let token = gateway.token(user, role, channel)?;
        let mut signaling = Signaling::connect(gateway, &token).await?;
        signaling.ask("join-channel", json!({ "channelId": channel })).await?;
        let transport = lean::connect(&mut signaling, channel, "send", &Identity::new()?).await?;
        let rtp = json!({
            "codecs": [{ "mimeType": "audio/opus", "payloadType": 111, "clockRate": 48_000, "channels": 2 }],
            "encodings": [{ "ssrc": SSRC }],
        });
        let request =
            json!({ "transportId": transport.id, "kind": "audio", "rtpParameters": rtp, "channelId": channel });
        signaling.ask("produce", request).await?;
        let [speaks, ends] = [true, false].map(|state| Arc::new(AtomicBool::new(state)));
        let (speaking, ended) = (speaks.clone(), ends.clone());
        let voice = std::thread::Builder::new().name(format!("voice {user}"));
        let voice = voice.spawn(move || talk(transport, &speaking, &ended)).context("no thread")?;
        Ok(Talker { signaling, speaks, ends, voice: Some(voice) })
    }

    /// Falls silent with everything still open: not one packet more, of no kind. Returns when.
    pub fn vanish(&self) -> Instant {
        self.speaks.store(false, Ordering::SeqCst);
        Instant::now()
    }
}

fn talk(mut transport: Lean, speaks: &AtomicBool, ends: &AtomicBool) {
    let begin = Instant::now();
    let mut consent = begin;
    for number in 0_u32.. {
        if ends.load(Ordering::SeqCst) {
            return;
        }
        std::thread::park_timeout((begin + FRAME * number).saturating_duration_since(Instant::now()));
        if !speaks.load(Ordering::SeqCst) {
            continue;
        }
        let mut packet = vec![0x80, 111];
        packet.extend((number as u16).to_be_bytes());
        packet.extend((number.wrapping_mul(960)).to_be_bytes());
        packet.extend(SSRC.to_be_bytes());
        packet.extend([0xf8, 0xff, 0xfe]);
        // A gateway that is stopped or gone is what these talkers are for.
        transport.send_rtp(&packet).ok();
        if consent.elapsed() > CONSENT {
            transport.socket.send(&transport.check).ok();
            consent = Instant::now();
        }
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        if let Some(voice) = self.voice.take() {
            voice.join().ok();
        }
    }
}
