//! USB devices as the kernel sees real ones, plugged into a port of its `dummy_hcd` and made of a gadget function,
//! such as a serial adapter.

use crate::bench::{SOON, load};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const GADGETS: &str = "/sys/kernel/config/usb_gadget";
const PORT: &str = "dummy_udc.0";

/// A device that is plugged in until it is dropped.
pub struct Gadget {
    config: PathBuf,
    function: &'static str,
}

impl Gadget {
    /// Plugs in a device of this function.
    pub fn plug_in(product: &str, ids: [&str; 2], function: &'static str) -> Result<Self> {
        load(&["dummy_hcd", "libcomposite", "cdc-acm"])?;
        let config = Path::new(GADGETS).join("vm");
        let write = |file: &str, text: &[u8]| {
            let path = config.join(file);
            std::fs::write(&path, text).with_context(|| path.display().to_string())
        };
        for dir in ["strings/0x409", "configs/c.1"] {
            std::fs::create_dir_all(config.join(dir))?;
        }
        let gadget = Gadget { config: config.clone(), function };
        write("idVendor", ids[0].as_bytes())?;
        write("idProduct", ids[1].as_bytes())?;
        write("strings/0x409/manufacturer", b"crosspatch")?;
        write("strings/0x409/product", product.as_bytes())?;
        write("strings/0x409/serialnumber", b"A1B2")?;
        let made = config.join("functions").join(function);
        std::fs::create_dir(&made)?;
        std::os::unix::fs::symlink(made, config.join("configs/c.1").join(function))?;
        gadget.replug()?;
        Ok(gadget)
    }

    /// Plugs it in again after [`Gadget::unplug`].
    pub fn replug(&self) -> Result<()> {
        std::fs::write(self.config.join("UDC"), PORT).context("it cannot be plugged in")
    }

    /// Pulls it out, whoever uses it.
    pub fn unplug(&self) -> Result<()> {
        std::fs::write(self.config.join("UDC"), "\n").context("it cannot be pulled out")
    }
}

impl Drop for Gadget {
    fn drop(&mut self) {
        // In this order; what fails shows when the next device is plugged in.
        self.unplug().ok();
        std::fs::remove_file(self.config.join("configs/c.1").join(self.function)).ok();
        std::fs::remove_dir(self.config.join("functions").join(self.function)).ok();
        for dir in ["configs/c.1", "strings/0x409", ""] {
            std::fs::remove_dir(self.config.join(dir)).ok();
        }
    }
}

/// Waits until something is there.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(began.elapsed() < SOON, "there is no {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
