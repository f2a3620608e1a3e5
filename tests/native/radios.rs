//! An event of radios on the sinks of a sound server, one a channel, with lines of a simulated board.

use super::gateway::Gateway;
use super::pulse::SoundServer;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

/// How long the sound devices may take to be open, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// Radios `r0`, `r1`, … on channels `c0`, `c1`, …, with sinks `rx0`, `tx0`, … and lines `r0.carrier`, `r0.ptt`, ….
pub struct Radios {
    /// The daemon; it ends before its sound cards do.
    pub gateway: Gateway,
    /// Its sound cards.
    pub sounds: SoundServer,
}

impl Radios {
    /// Starts as many as there are lists of keys; the keys are added to `[[radio]]`.
    pub async fn start(keys: &[&str]) -> Result<Self> {
        let mut event = "board = \"board.toml\"\n[event]\nid = \"radios\"\n".to_owned();
        let mut board = "name = \"Radios\"\nbackend = \"sim\"\n".to_owned();
        let mut sinks = Vec::new();
        for (n, keys) in keys.iter().enumerate() {
            event += &format!("[[channel]]\nid = \"c{n}\"\nname = \"Channel {n}\"\n");
            // What is told from the sound has no line.
            let carrier = format!("carrier_line = \"r{n}.carrier\"\n");
            let carrier = if keys.contains("carrier_from") { "" } else { &carrier };
            event += &format!(
                "[[radio]]\nid = \"r{n}\"\nuser = \"radio-{n}\"\nname = \"Radio {n}\"\nchannel = \"c{n}\"\n\
                 {carrier}ptt_line = \"r{n}.ptt\"\n\
                 capture_pcm = \"rx{n}\"\nplayback_pcm = \"tx{n}\"\n{keys}\n"
            );
            for (line, direction) in [("carrier", "input"), ("ptt", "output")] {
                board += &format!("[[line]]\nname = \"r{n}.{line}\"\ndirection = \"{direction}\"\n");
            }
            sinks.extend([format!("rx{n}"), format!("tx{n}")]);
        }
        let names: Vec<&str> = sinks.iter().map(String::as_str).collect();
        let sounds = SoundServer::start(&names)?;
        let files = [("event.toml", event.as_str()), ("board.toml", board.as_str())];
        let gateway = Gateway::with_sound(&files, sounds.environment()).await?;
        // A sound server takes a few callers at a time; the others try again after a second.
        let began = Instant::now();
        loop {
            let degraded = gateway.get("/api/panel").await?["degraded"].take();
            if degraded == serde_json::json!([]) {
                return Ok(Radios { gateway, sounds });
            }
            ensure!(began.elapsed() < SOON, "something is not up at the start: {degraded}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
