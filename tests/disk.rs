//! A disk that is full costs records, never a word: the gateway talks on, says what is wrong, and catches up. Nor does one that is late.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "native/mod.rs"]
mod native;

use anyhow::{Context, Result, ensure};
use crosspatch::gateway::config::DEMO;
use native::doctor::Told;
use native::gateway::{Gateway, binary};
use native::signaling::Signaling;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long what is waited for may take; generous, since machines are busy.
const SOON: Duration = Duration::from_secs(30);

/// A small disk of its own; gone when this is dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` where nobody but root may mount one.
    fn mount() -> Result<Option<Self>> {
        let dir = TempDir::new()?;
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(dir.path()).output()?;
        if mount.status.success() {
            return Ok(Some(SmallDisk(dir)));
        }
        let why = String::from_utf8_lossy(&mount.stderr).trim().to_owned();
        ensure!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "this must be able to mount a tmpfs: {why}");
        println!("skipped: only root may mount a small disk ({why})");
        Ok(None)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes every byte that is left.
    fn fill(&self) -> Result<()> {
        let mut filler = std::fs::File::create(self.path().join("filler"))?;
        for size in [65_536, 4_096, 1] {
            while filler.write_all(&vec![0; size]).is_ok() {}
        }
        Ok(())
    }

    fn make_room(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.path().join("filler"))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(self.path()).status().ok();
    }
}

/// Why a part is degraded, if it is.
async fn trouble(gateway: &Gateway, part: &str) -> Result<Option<String>> {
    let panel = gateway.get("/api/panel").await?;
    let parts = panel["degraded"].as_array().context("the panel names no degraded parts")?;
    let found = parts.iter().find(|found| found["part"] == part);
    Ok(found.and_then(|found| found["why"].as_str()).map(str::to_owned))
}

/// Why the audit is degraded, if it is.
async fn audit_trouble(gateway: &Gateway) -> Result<Option<String>> {
    trouble(gateway, "audit").await
}

/// Waits until the audit is in trouble or out of it, and says why it is.
async fn wait_audit(gateway: &Gateway, troubled: bool) -> Result<Option<String>> {
    let deadline = Instant::now() + SOON;
    loop {
        let why = audit_trouble(gateway).await?;
        if why.is_some() == troubled {
            return Ok(why);
        }
        ensure!(Instant::now() < deadline, "the audit's trouble is still {why:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_audit_cannot_be_opened_starts_and_says_so() -> Result<()> {
    let outer = TempDir::new()?;
    let gateway = Gateway::demo_prepared(outer.path(), |state| std::fs::create_dir(state.join("audit.sqlite"))).await?;
    let why = wait_audit(&gateway, true).await?.unwrap_or_default();
    assert!(why.contains("cannot be used"), "{why}");
    let mut anna = Signaling::connect(&gateway, &gateway.token("anna", "general", "ops")?).await?;
    anna.ask("join-channel", json!({ "channelId": "ops" })).await?;
    ask(&mut anna, "ptt-start", json!({ "channelId": "ops" })).await?;

    std::fs::remove_dir(gateway.state_dir().join("audit.sqlite"))?;
    wait_audit(&gateway, false).await?;
    gateway.audited("action = 'ptt.start' AND actor = 'anna'").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_runs_from_memory_since_its_data_partition_is_missing_says_so() -> Result<()> {
    let outer = TempDir::new()?;
    let why = "the data partition is not there";
    let prepare = |state: &Path| std::fs::write(state.join("in-memory.txt"), format!("{why}\n"));
    let gateway = Gateway::demo_prepared(outer.path(), prepare).await?;
    says(&gateway, "state directory", why).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_kept_version_was_not_installed_at_this_boot_says_so() -> Result<()> {
    let outer = TempDir::new()?;
    let why = "its signature is not of these bytes; bring it anew";
    let prepare = |state: &Path| {
        std::fs::create_dir(state.join("update"))?;
        std::fs::write(state.join("update/not-given.txt"), format!("{why}\n"))
    };
    let gateway = Gateway::demo_prepared(outer.path(), prepare).await?;
    says(&gateway, "version", why).await?;
    let mut doctor = Command::new(binary());
    Told::by(doctor.args(["doctor", "--json", "--state-dir"]).arg(gateway.state_dir()))?.fails("versions", why)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_that_comes_late_is_taken_as_soon_as_nobody_talks() -> Result<()> {
    let gateway = Gateway::demo().await?;
    let card = TempDir::new()?;
    let late = || {
        let mut command = Command::new(binary());
        command.args(["provision", "late", "--state-dir"]).arg(gateway.state_dir());
        command.arg("--card").arg(card.path()).arg("--config").arg(card.path().join("etc.toml"));
        command
    };
    ensure!(late().status()?.code() == Some(1), "there is nothing on the card");
    std::fs::write(card.path().join("crosspatch.toml"), DEMO)?;
    let quiet = async |wanted: bool| -> Result<()> {
        let deadline = Instant::now() + SOON;
        while gateway.get("/api/panel").await?["isQuiet"] != wanted {
            ensure!(Instant::now() < deadline, "it never becomes {}", if wanted { "quiet" } else { "loud" });
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    };
    quiet(true).await?;
    gateway.move_line("desk.ptt.ops", true).await?;
    quiet(false).await?;
    let mut waiting = late().stdout(Stdio::piped()).spawn()?;
    let mut said = String::new();
    BufReader::new(waiting.stdout.take().context("no output")?).read_line(&mut said)?;
    ensure!(said.contains("as soon as nobody talks"), "{said}");
    // It looks several times meanwhile.
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(waiting.try_wait()?.is_none(), "somebody talks");
    gateway.move_line("desk.ptt.ops", false).await?;
    let deadline = Instant::now() + SOON;
    let ended = loop {
        match waiting.try_wait()? {
            Some(ended) => break ended,
            None => ensure!(Instant::now() < deadline, "nobody talks any more"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    ensure!(ended.success(), "{ended}");
    Ok(())
}

/// The panel says that this part is degraded, and why.
async fn says(gateway: &Gateway, part: &str, why: &str) -> Result<()> {
    let deadline = Instant::now() + SOON;
    loop {
        match trouble(gateway, part).await? {
            Some(told) => {
                assert_eq!(told, why);
                return Ok(());
            }
            None => ensure!(Instant::now() < deadline, "the panel never says so"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn ask(session: &mut Signaling, kind: &str, data: Value) -> Result<()> {
    let reply = session.ask(kind, data).await?;
    ensure!(reply["success"] == true, "{kind}: {reply}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_disk_full_people_talk_and_an_emergency_works_and_the_records_follow() -> Result<()> {
    let Some(disk) = SmallDisk::mount()? else { return Ok(()) };
    let gateway = Gateway::demo_in(disk.path()).await?;
    let mut anna = Signaling::connect(&gateway, &gateway.token("anna", "general", "ops")?).await?;
    let mut dora = Signaling::connect(&gateway, &gateway.token("dora", "dispatch", "ops")?).await?;
    let ops = json!({ "channelId": "ops" });
    for session in [&mut anna, &mut dora] {
        session.ask("join-channel", ops.clone()).await?;
    }
    disk.fill()?;
    let deadline = Instant::now() + SOON;
    let why = loop {
        ask(&mut anna, "ptt-start", ops.clone()).await?;
        ask(&mut anna, "ptt-stop", ops.clone()).await?;
        if let Some(why) = audit_trouble(&gateway).await? {
            break why;
        }
        ensure!(Instant::now() < deadline, "the audit never noticed the full disk");
        tokio::time::sleep(Duration::from_millis(30)).await; // nobody may ask more than 50 times a second
    };
    assert!(why.contains("has room"), "{why}");

    ask(&mut anna, "ptt-start", ops.clone()).await?;
    ask(&mut dora, "priority-ptt-start", ops.clone()).await?;
    let interrupted = anna.wait_push(|push| push["type"] == "ptt-interrupted", SOON).await?;
    assert_eq!(interrupted["data"]["message"], "Dispatch dora has priority");
    ask(&mut dora, "emergency-broadcast-start", json!({ "holdDuration": 2000 })).await?;
    anna.wait_push(|push| push["type"] == "emergency-broadcast-start", SOON).await?;
    ask(&mut dora, "emergency-broadcast-stop", json!({})).await?;

    disk.make_room()?;
    for action in ["priority_ptt.interrupted", "emergency_broadcast.start", "emergency_broadcast.stop"] {
        assert_eq!(gateway.audited(&format!("action = '{action}'")).await?, 1, "{action}");
    }
    wait_audit(&gateway, false).await?;
    gateway.audited("action = 'system.healed' AND detail LIKE '%\"audit\"%'").await?;
    Ok(())
}
