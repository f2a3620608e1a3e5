//! A USB fob as the kernel sees one: a HID device made through `/dev/uhid`, with the reports of a CM108-type chip.
//!
//! The layout of the kernel's messages is that of `linux/uhid.h`.

use crate::bench::{SOON, load};
use crate::gadget::wait_for;
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const DESTROY: u32 = 1;
const OUTPUT: u32 = 6;
const CREATE2: u32 = 11;
const INPUT2: u32 = 12;
const DATA_MAX: usize = 4096;
/// The longest message, which is the one that creates.
const EVENT: usize = 4 + 128 + 64 + 64 + 2 + 2 + 4 * 4 + DATA_MAX;
const USB: u16 = 3;
/// C-Media, CM108.
const VENDOR: u32 = 0x0d8c;
const PRODUCT: u32 = 0x013c;
/// Consumer control: volume up, volume down, mute and five bits more; three bytes of the chip's pins; four bytes out.
pub const DESCRIPTOR: &[u8] = &[
    0x05, 0x0c, 0x09, 0x01, 0xa1, 0x01, 0x15, 0x00, 0x25, 0x01, 0x09, 0xe9, 0x09, 0xea, 0x09, 0xe2, 0x75, 0x01, 0x95,
    0x03, 0x81, 0x02, 0x95, 0x05, 0x81, 0x03, 0x06, 0x00, 0xff, 0x26, 0xff, 0x00, 0x75, 0x08, 0x95, 0x03, 0x09, 0x01,
    0x81, 0x02, 0x95, 0x04, 0x09, 0x02, 0x91, 0x02, 0xc0,
];
/// GPIO3: the one that keys, in the byte of levels and in that of directions.
pub const GPIO3: u8 = 0b100;

/// A fob that is plugged in until it is dropped.
pub struct UhidFob {
    device: File,
    /// What was written to the chip, oldest first, without the report's number.
    written: Vec<[u8; 4]>,
}

impl UhidFob {
    /// Plugs one in.
    pub fn plug_in() -> Result<Self> {
        load(&["uhid", "hid-generic"])?;
        let device = File::options().read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open("/dev/uhid")?;
        let mut fob = UhidFob { device, written: Vec::new() };
        let mut message = CREATE2.to_ne_bytes().to_vec();
        message.extend(text::<128>("USB PnP Sound Device"));
        message.extend(text::<64>("uhid"));
        message.extend(text::<64>(""));
        message.extend((DESCRIPTOR.len() as u16).to_ne_bytes());
        message.extend(USB.to_ne_bytes());
        [VENDOR, PRODUCT, 0x0100, 0].iter().for_each(|field| message.extend(field.to_ne_bytes()));
        message.extend(DESCRIPTOR);
        message.resize(EVENT, 0);
        fob.device.write_all(&message)?;
        wait_for("hidraw device of the fob", || Ok(hidraw()))?;
        Ok(fob)
    }

    /// The chip says which of its buttons are down; the second is the squelch.
    pub fn report(&mut self, buttons: u8) -> Result<()> {
        let mut message = INPUT2.to_ne_bytes().to_vec();
        message.extend(4_u16.to_ne_bytes());
        message.extend([buttons, 0, 0, 0]);
        message.resize(4 + 2 + DATA_MAX, 0);
        Ok(self.device.write_all(&message)?)
    }

    /// Opens or shuts the squelch.
    pub fn carrier(&mut self, active: bool) -> Result<()> {
        self.report(if active { 0b10 } else { 0 })
    }

    /// What was written so far.
    pub fn written(&mut self) -> Result<&[[u8; 4]]> {
        let mut event = [0; EVENT];
        loop {
            match self.device.read(&mut event) {
                Ok(_) if u32::from_ne_bytes(event[..4].try_into()?) == OUTPUT => {
                    let size = u16::from_ne_bytes(event[4 + DATA_MAX..4 + DATA_MAX + 2].try_into()?);
                    // A report without a number has a zero in its place.
                    ensure!(size == 5 && event[4] == 0, "a report of {size} bytes was written: {:?}", &event[4..12]);
                    self.written.push(event[5..9].try_into()?);
                }
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(&self.written),
                Err(e) => return Err(e).context("the kernel does not say what was written"),
            }
        }
    }

    /// True if its GPIO3 drives, and is high.
    pub fn is_keyed(&mut self) -> Result<bool> {
        let last = self.written()?.last().copied().unwrap_or_default();
        Ok(last[1] & last[2] & GPIO3 != 0)
    }

    /// Waits until it keys, or does not.
    pub async fn wait_keyed(&mut self, keyed: bool) -> Result<()> {
        let began = Instant::now();
        while self.is_keyed()? != keyed {
            ensure!(began.elapsed() < SOON, "the fob's pin is not {keyed}: {:?}", self.written);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

impl Drop for UhidFob {
    fn drop(&mut self) {
        let mut message = DESTROY.to_ne_bytes().to_vec();
        message.resize(EVENT, 0);
        self.device.write_all(&message).ok();
    }
}

/// Its device; there is no other HID device in the machine.
pub fn hidraw() -> Option<PathBuf> {
    let mut entries = std::fs::read_dir("/sys/class/hidraw").ok()?.flatten();
    entries.next().map(|entry| PathBuf::from("/dev").join(entry.file_name()))
}

fn text<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    field[..text.len()].copy_from_slice(text.as_bytes());
    field
}
