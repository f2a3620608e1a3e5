//! USB devices as the kernel sees real ones, plugged into a port of its `dummy_hcd` and made of gadget functions: a fob
//! whose card and pins share a port, and a serial adapter.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const GADGETS: &str = "/sys/kernel/config/usb_gadget";
const PORT: &str = "dummy_udc.0";
const SOON: Duration = Duration::from_secs(30);

/// A device that is plugged in until it is dropped.
pub struct Gadget {
    config: PathBuf,
    functions: Vec<&'static str>,
}

impl Gadget {
    /// Plugs in a device of these functions, each with what is written into its files first.
    pub fn plug_in(product: &str, ids: [&str; 2], functions: &[(&'static str, &[(&str, &[u8])])]) -> Result<Self> {
        for module in ["dummy_hcd", "libcomposite", "usbhid", "hid-generic", "snd-usb-audio", "cdc-acm"] {
            ensure!(Command::new("modprobe").arg(module).status()?.success(), "{module} cannot be loaded");
        }
        let config = Path::new(GADGETS).join("vm");
        let write = |file: &str, text: &[u8]| {
            let path = config.join(file);
            std::fs::write(&path, text).with_context(|| path.display().to_string())
        };
        for dir in ["strings/0x409", "configs/c.1"] {
            std::fs::create_dir_all(config.join(dir))?;
        }
        let mut gadget = Gadget { config: config.clone(), functions: Vec::new() };
        write("idVendor", ids[0].as_bytes())?;
        write("idProduct", ids[1].as_bytes())?;
        write("strings/0x409/manufacturer", b"crosspatch")?;
        write("strings/0x409/product", product.as_bytes())?;
        write("strings/0x409/serialnumber", b"A1B2")?;
        for (function, files) in functions {
            let dir = format!("functions/{function}");
            std::fs::create_dir(config.join(&dir))?;
            gadget.functions.push(function);
            for (file, text) in *files {
                write(&format!("{dir}/{file}"), text)?;
            }
            std::os::unix::fs::symlink(config.join(&dir), config.join("configs/c.1").join(function))?;
        }
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
        for function in &self.functions {
            std::fs::remove_file(self.config.join("configs/c.1").join(function)).ok();
            std::fs::remove_dir(self.config.join("functions").join(function)).ok();
        }
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
