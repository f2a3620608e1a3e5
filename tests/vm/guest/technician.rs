//! What a technician does at the box by hand, on a real chip; and what a cut wire does.

use crate::bench::{BOARD, Bench, SOON, config};
use crate::chip::Chip;
use crate::native::gateway::binary;
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::sleep;
use std::time::Duration;

/// A command that runs on the chip, with what it prints.
pub struct Tool {
    child: Child,
    printed: Receiver<String>,
    seen: Vec<String>,
    _files: tempfile::TempDir,
}

impl Tool {
    fn start(arguments: &[&str]) -> Result<Self> {
        Self::with_config(&wired(), arguments)
    }

    /// Starts one with a configuration.
    pub fn with_config(config: &str, arguments: &[&str]) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let event = files.path().join("event.toml");
        std::fs::write(&event, config)?;
        std::fs::write(files.path().join("board.toml"), BOARD)?;
        let mut command = Command::new(binary());
        command.args(arguments).arg("--config").arg(event).env("RUST_LOG", "error");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let out = BufReader::new(child.stdout.take().context("it is piped")?);
        let (sender, printed) = channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
        Ok(Tool { child, printed, seen: Vec::new(), _files: files })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it prints this.
    pub fn wait(&mut self, part: &str) -> Result<String> {
        loop {
            let line = self.printed.recv_timeout(SOON).with_context(|| format!("no '{part}' in {:#?}", self.seen))?;
            self.seen.push(line.clone());
            if line.contains(part) {
                return Ok(line);
            }
        }
    }

    pub fn ended_well(mut self) -> Result<()> {
        let (status, why) = self.ended()?;
        ensure!(status.success(), "it failed after {:#?}: {why}", self.seen);
        Ok(())
    }

    /// Waits for its end: how that was, and what it complained of.
    pub fn ended(&mut self) -> Result<(ExitStatus, String)> {
        let mut why = String::new();
        self.child.stderr.take().context("it is piped")?.read_to_string(&mut why)?;
        Ok((self.child.wait()?, why))
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        self.child.kill().ok(); // it has ended already, in a test that passed
        self.child.wait().ok();
    }
}

/// The demo event with both contacts of the emergency button.
fn wired() -> String {
    let line = "emergency_line = \"desk.emergency\"";
    config(|demo| demo.replace(line, &format!("{line}\nemergency_opening_line = \"desk.emergency.nc\"")))
}

fn press(chip: &Chip, active: bool) -> Result<()> {
    chip.move_line("desk.emergency.nc", active)?;
    chip.move_line("desk.emergency", active)
}

#[test]
fn a_dry_run_says_what_an_emergency_would_do_and_keys_nothing() -> Result<()> {
    let chip = Chip::for_board(BOARD)?;
    let mut tool = Tool::start(&["emergency", "dry-run"])?;
    tool.wait("channels reachable")?;
    press(&chip, true)?;
    tool.wait("the two seconds count")?;
    press(&chip, false)?;
    tool.wait("too short, nothing would happen")?;
    press(&chip, true)?;
    tool.wait("the broadcast would start")?;
    for said in ["Logistics would carry it", "Security would carry it", "radio.vhf.ptt would key a transmitter"] {
        tool.wait(said)?;
    }
    ensure!(!chip.is_active("radio.vhf.ptt")? && !chip.is_active("desk.tally.emergency")?, "an output moved");
    press(&chip, false)?;
    tool.wait("nothing was keyed")?;
    tool.ended_well()
}

#[test]
fn a_line_that_is_set_by_hand_is_safe_again_after_its_time() -> Result<()> {
    let chip = Chip::for_board(BOARD)?;
    let mut tool = Tool::start(&["gpio", "set", "radio.vhf.ptt", "on", "--for", "1s"])?;
    tool.wait("radio.vhf.ptt is on")?;
    ensure!(chip.is_active("radio.vhf.ptt")?, "it is not keyed");
    tool.wait("radio.vhf.ptt is off")?;
    ensure!(!chip.is_active("radio.vhf.ptt")?, "it is still keyed");
    tool.ended_well()
}

#[test]
fn a_pressed_button_is_seen_with_the_time_that_it_was_held() -> Result<()> {
    let chip = Chip::for_board(BOARD)?;
    let mut tool = Tool::start(&["gpio", "watch"])?;
    tool.wait("what it did")?;
    chip.move_line("desk.ptt.ops", true)?;
    tool.wait("pressed")?;
    chip.move_line("desk.ptt.ops", false)?;
    tool.wait("released  after")?;
    Ok(())
}

#[tokio::test]
async fn unkeying_by_hand_makes_every_output_safe_and_a_running_gateway_is_left_alone() -> Result<()> {
    let chip = Chip::for_board(BOARD)?;
    let mut tool = Tool::start(&["unkey"])?;
    let said = tool.wait("safe level")?;
    tool.ended_well()?;
    ensure!(!said.starts_with("0 of"), "{said}");
    drop(chip);
    let bench = Bench::start().await?;
    bench.chip.move_line("desk.ptt.security", true)?;
    bench.chip.wait_until("radio.vhf.ptt", true)?;
    let mut tool = Tool::start(&["unkey"])?;
    tool.wait("0 of")?;
    ensure!(bench.chip.is_active("radio.vhf.ptt")?, "a running gateway keeps its own lines");
    tool.ended_well()
}

#[tokio::test]
async fn a_cut_wire_is_a_fault_on_the_lamp_and_never_an_emergency() -> Result<()> {
    let bench = Bench::with_config(&wired()).await?;
    bench.chip.move_line("desk.emergency.nc", true)?;
    let fault = bench.gateway.audited_row(|row| row.action == "gpio.fault").await?;
    assert_eq!(fault.cause.as_deref(), Some("wire-break"));
    bench.chip.wait_until("desk.tally.emergency", true)?; // three short flashes every two seconds
    sleep(Duration::from_millis(2500)); // what a press would need, and more
    assert_eq!(bench.count("emergency_broadcast.armed")?, 0);
    bench.chip.move_line("desk.emergency.nc", false)?;
    bench.wait_count("gpio.healed", 1).await?;
    press(&bench.chip, true)?;
    bench.wait_count("emergency_broadcast.start", 1).await?;
    press(&bench.chip, false)?;
    bench.wait_count("emergency_broadcast.stop", 1).await
}
