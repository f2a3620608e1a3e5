//! A USB fob where there is none: a pseudo terminal in the place of its hidraw device. Nobody but the program that has it
//! unkeys it.

use anyhow::{Context, Result, ensure};
use serialport::{SerialPort, TTYPort};
use std::io::Read;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);
/// A report with its number, levels and directions of the chip's pins.
const REPORT: usize = 5;
const GPIO3: u8 = 0b100;

/// The fob.
pub struct PtyFob {
    chip: TTYPort,
    /// Keeps what was written until it is read.
    device: TTYPort,
    written: Vec<u8>,
}

impl PtyFob {
    /// Makes one.
    pub fn plug_in() -> Result<Self> {
        let (chip, device) = TTYPort::pair()?;
        Ok(PtyFob { chip, device, written: Vec::new() })
    }

    /// The path for the configuration.
    pub fn path(&self) -> Result<String> {
        self.device.name().context("it has no path")
    }

    /// Every report so far, oldest first.
    pub fn written(&mut self) -> Result<&[[u8; REPORT]]> {
        while self.chip.bytes_to_read()? > 0 {
            let mut buffer = [0; 64];
            let length = self.chip.read(&mut buffer)?;
            self.written.extend_from_slice(&buffer[..length]);
        }
        Ok(self.written.as_chunks().0)
    }

    /// True if its third pin drives, and is high.
    pub fn is_keyed(&mut self) -> Result<bool> {
        Ok(self.written()?.last().is_some_and(|report| report[2] & report[3] & GPIO3 != 0))
    }

    /// Waits until it keys, or does not.
    pub fn wait_keyed(&mut self, keyed: bool) -> Result<()> {
        let began = Instant::now();
        while self.is_keyed()? != keyed {
            ensure!(began.elapsed() < SOON, "the fob's pin is not {keyed}: {:?}", self.written()?);
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}
