//! A chip of the kernel's own simulator, gpio-sim, with the lines of a board profile.

use crate::bench::{SOON, load};
use anyhow::{Context, Result, bail, ensure};
use crosspatch::hardware::board::Board;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const CONFIGFS: &str = "/sys/kernel/config/gpio-sim";
/// As many lines as a Raspberry Pi's header has.
const LINES: u32 = 28;

/// A chip that is plugged in until it is dropped.
pub struct Chip {
    config: PathBuf,
    board: Board,
}

impl Chip {
    /// Plugs in a chip with the label that the profile asks for.
    pub fn for_board(profile: &str) -> Result<Self> {
        let board = Board::parse(profile, "board.toml")?;
        // It is in no kernel, so that nothing else loads it.
        load(&["gpio-sim"])?;
        let config = Path::new(CONFIGFS).join("vm");
        let bank = config.join("bank0");
        std::fs::create_dir_all(&bank)?;
        std::fs::write(bank.join("num_lines"), LINES.to_string())?;
        std::fs::write(bank.join("label"), board.chip.first().context("the profile names no chip")?)?;
        let chip = Chip { config, board };
        chip.plug_in()?;
        Ok(chip)
    }

    /// Plugs it in again after [`Chip::unplug`].
    pub fn plug_in(&self) -> Result<()> {
        Ok(std::fs::write(self.config.join("live"), "1")?)
    }

    /// Pulls it out, whoever holds its lines.
    pub fn unplug(&self) -> Result<()> {
        Ok(std::fs::write(self.config.join("live"), "0")?)
    }

    /// Moves an input to its active level, or back.
    pub fn move_line(&self, name: &str, active: bool) -> Result<()> {
        let (path, active_low) = self.line(name)?;
        let pull = if active == active_low { "pull-down" } else { "pull-up" };
        std::fs::write(path.join("pull"), pull).with_context(|| format!("{name} cannot be moved"))
    }

    /// True if a line has its active level.
    pub fn is_active(&self, name: &str) -> Result<bool> {
        let (path, active_low) = self.line(name)?;
        Ok((std::fs::read_to_string(path.join("value"))?.trim() == "1") != active_low)
    }

    /// Waits until an output has this level, and says how long that took.
    pub fn wait_until(&self, name: &str, active: bool) -> Result<Duration> {
        let began = Instant::now();
        while self.is_active(name)? != active {
            ensure!(began.elapsed() < SOON, "{name} did not become {active} within {SOON:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(began.elapsed())
    }

    /// Where the simulator has a line, and whether it is active low.
    fn line(&self, name: &str) -> Result<(PathBuf, bool)> {
        let Some(line) = self.board.lines.iter().find(|line| line.name.as_str() == name) else {
            bail!("the profile has no line {name}");
        };
        let read = |path: PathBuf| anyhow::Ok(std::fs::read_to_string(path)?.trim().to_owned());
        let device = read(self.config.join("dev_name"))?;
        let chip = read(self.config.join("bank0/chip_name"))?;
        let offset = line.offset.context("the line has no offset")?;
        let path = Path::new("/sys/devices/platform").join(device).join(chip).join(format!("sim_gpio{offset}"));
        Ok((path, line.active_low))
    }
}

impl Drop for Chip {
    fn drop(&mut self) {
        // In this order; what fails shows when the next test plugs its chip in.
        self.unplug().ok();
        std::fs::remove_dir(self.config.join("bank0")).ok();
        std::fs::remove_dir(&self.config).ok();
    }
}
