//! The gateway on a chip: the demo event, with lines of a real `/dev/gpiochip`.

use crate::chip::Chip;
use crate::native::client::NativeClient;
use crate::native::gateway::Gateway;
use crate::native::sdp::DtlsRole;
use anyhow::{Result, ensure};
use std::process::Command;
use std::time::{Duration, Instant};

/// The profile of the chip.
pub const BOARD: &str = include_str!("board.toml");
const DEMO: &str = include_str!("../../../src/gateway/demo.toml");
/// How long something may take; generous, since the guest is slow and its host may be busy.
pub const SOON: Duration = Duration::from_secs(30);

/// The demo event's configuration on the chip; `change` may change its text.
pub fn config(change: impl FnOnce(&str) -> String) -> String {
    format!("board = \"board.toml\"\n{}", change(DEMO))
}

/// The lines of the demo event's radio.
pub const LINES: &str = "carrier_line = \"radio.vhf.carrier\"\nptt_line = \"radio.vhf.ptt\"\n";

/// The demo event on the chip, with other keys in the place of its radio's lines.
pub fn with_radio(keys: &str) -> Result<String> {
    let config = config(|demo| demo.replace(LINES, keys));
    ensure!(config.contains(keys), "the demo has another radio now");
    Ok(config)
}

/// Loads modules of the kernel, and what they lean on.
pub fn load(modules: &[&str]) -> Result<()> {
    for module in modules {
        ensure!(Command::new("modprobe").arg(module).status()?.success(), "{module} cannot be loaded");
    }
    Ok(())
}

/// A chip and a gateway that uses it.
pub struct Bench {
    /// The daemon.
    pub gateway: Gateway,
    /// The chip, pulled out last.
    pub chip: Chip,
}

impl Bench {
    /// Plugs a chip in and starts the gateway.
    pub async fn start() -> Result<Self> {
        Self::with_config(&config(str::to_owned)).await
    }

    /// The same with this configuration, whatever is not there.
    pub async fn degraded_with_config(config: &str) -> Result<Self> {
        let chip = Chip::for_board(BOARD)?;
        let gateway = Gateway::with_files(&[("event.toml", config), ("board.toml", BOARD)]).await?;
        Ok(Bench { gateway, chip })
    }

    /// The same with this configuration, of which all is there.
    pub async fn with_config(config: &str) -> Result<Self> {
        let bench = Self::degraded_with_config(config).await?;
        let degraded = bench.gateway.get("/api/panel").await?["degraded"].take();
        ensure!(degraded == serde_json::json!([]), "something is not up at the start: {degraded}");
        Ok(bench)
    }

    /// How often this was written into the audit so far.
    pub fn count(&self, action: &str) -> Result<usize> {
        Ok(self.gateway.audit()?.iter().filter(|row| row.action == action).count())
    }

    /// Waits until this has been written into the audit so often.
    pub async fn wait_count(&self, action: &str, count: usize) -> Result<()> {
        let deadline = Instant::now() + SOON;
        while self.count(action)? < count {
            ensure!(Instant::now() < deadline, "no {count} × {action}: {:#?}", self.gateway.audit()?);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Waits until the parts that are degraded are as wanted, as the panel tells them.
    pub async fn wait_degraded(&self, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let began = Instant::now();
        loop {
            let degraded = self.gateway.get("/api/panel").await?["degraded"].take().to_string();
            if wanted(&degraded) {
                return Ok(degraded);
            }
            ensure!(began.elapsed() < SOON, "the panel says {degraded}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A general user who listens to a channel.
    pub async fn listener(&self, user: &str, channel: &str) -> Result<NativeClient> {
        let token = self.gateway.token(user, "general", channel)?;
        let mut client = NativeClient::connect(&self.gateway, &token, DtlsRole::Client).await?;
        client.join(channel).await?;
        client.consume(channel).await?;
        Ok(client)
    }
}
