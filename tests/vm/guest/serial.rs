//! Transmitters on the RTS and DTR of serial ports: a 16550 that shows its own pins, and a USB adapter as it is seen on
//! the wire.

use crate::bench::{Bench, SOON, config, load};
use crate::gadget::{Gadget, wait_for};
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

const LINES: &str = "ptt_line = \"radio.vhf.ptt\"\n";

/// The demo event with its radio keyed by a pin of a serial port.
fn keyed_by(pin: &str, port: &str) -> Result<String> {
    let keys = format!("ptt_output = \"serial-{pin}\"\nserial_port = \"{port}\"\n");
    let config = config(|demo| demo.replace(LINES, &keys));
    ensure!(config.contains(&keys), "the demo has another radio now");
    Ok(config)
}

/// The pins of a port, as whoever is at its other end sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pins {
    rts: bool,
    dtr: bool,
}

const UNKEYED: Pins = Pins { rts: false, dtr: false };

fn wait_pins(mut look: impl FnMut() -> Result<Pins>, wanted: Pins) -> Result<()> {
    let began = Instant::now();
    loop {
        let pins = look()?;
        if pins == wanted {
            return Ok(());
        }
        ensure!(began.elapsed() < SOON, "{pins:?} in place of {wanted:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn keyed(pin: &str) -> Pins {
    Pins { rts: pin == "rts", dtr: pin == "dtr" }
}

/// The third port of the machine, which nobody else uses.
const PORT: &str = "/dev/ttyS2";

/// A 16550 that is wired to itself inside: its RTS is its CTS, its DTR its DSR. Open until this is dropped.
struct Loop {
    perl: Child,
    asks: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Loop {
    fn open() -> Result<Self> {
        // TIOCMBIS with TIOCM_LOOP, then TIOCMGET whenever a line comes in.
        let script = r#"$| = 1; open my $port, "+<", $ARGV[0] or die; my $loop = pack "I", 0x8000;
            ioctl $port, 0x5416, $loop or die; while (<STDIN>) { my $pins = pack "I", 0; ioctl $port, 0x5415, $pins or die;
            print unpack("I", $pins), "\n" }"#;
        let mut command = Command::new("perl");
        command.args(["-e", script, PORT]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut perl = command.spawn()?;
        let (asks, says) = (perl.stdin.take().context("it is piped")?, perl.stdout.take().context("it is piped")?);
        Ok(Loop { perl, asks, says: BufReader::new(says) })
    }

    fn pins(&mut self) -> Result<Pins> {
        self.asks.write_all(b"\n")?;
        let mut line = String::new();
        self.says.read_line(&mut line)?;
        let pins: u32 = line.trim().parse().context("the port does not say where its pins are")?;
        Ok(Pins { rts: pins & 0x20 != 0, dtr: pins & 0x100 != 0 })
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.perl.kill().ok(); // it may have ended
        self.perl.wait().ok();
    }
}

#[tokio::test]
async fn somebody_who_talks_keys_the_pin_of_a_serial_port_and_not_the_other_one() -> Result<()> {
    for pin in ["rts", "dtr"] {
        let mut port = Loop::open()?;
        let bench = Bench::with_config(&keyed_by(pin, PORT)?).await?;
        wait_pins(|| port.pins(), UNKEYED)?;
        for presses in 1..=2 {
            bench.chip.move_line("desk.ptt.security", true)?;
            wait_pins(|| port.pins(), keyed(pin))?;
            bench.wait_count("radio.keyed", presses).await?;
            bench.chip.move_line("desk.ptt.security", false)?;
            wait_pins(|| port.pins(), UNKEYED)?;
        }
        bench.chip.move_line("desk.ptt.security", true)?;
        wait_pins(|| port.pins(), keyed(pin))?;
        bench.gateway.signal("TERM")?;
        wait_pins(|| port.pins(), UNKEYED).context("a gateway that is told to stop leaves it keyed")?;
    }
    Ok(())
}

/// What goes over the machine's USB, as the kernel tells it.
struct Wire {
    file: File,
    text: String,
    pins: Option<Pins>,
}

impl Wire {
    fn tap() -> Result<Self> {
        load(&["usbmon"])?;
        let path = Path::new("/sys/kernel/debug/usb/usbmon/0u");
        if !path.exists() {
            Command::new("mount").args(["-t", "debugfs", "debugfs", "/sys/kernel/debug"]).status()?;
        }
        let file = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
        Ok(Wire { file, text: String::new(), pins: None })
    }

    /// What an adapter was last told of its pins: SET_CONTROL_LINE_STATE of a CDC device.
    fn pins(&mut self) -> Result<Pins> {
        let mut buffer = [0; 4096];
        while let Ok(length) = self.file.read(&mut buffer)
            && length > 0
        {
            self.text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        while let Some((line, rest)) = self.text.split_once('\n') {
            if let Some((_, value)) = line.split_once(" s 21 22 ") {
                let value = u32::from_str_radix(value.split(' ').next().unwrap_or_default(), 16)?;
                self.pins = Some(Pins { rts: value & 2 != 0, dtr: value & 1 != 0 });
            }
            self.text = rest.to_owned();
        }
        Ok(self.pins.unwrap_or(UNKEYED))
    }
}

/// The adapter's name that stays.
fn by_id() -> Result<Option<String>> {
    let Ok(entries) = std::fs::read_dir("/dev/serial/by-id") else { return Ok(None) };
    let mut names = entries.flatten().map(|entry| entry.path().display().to_string());
    Ok(names.find(|name| name.contains("crosspatch")))
}

#[tokio::test]
async fn a_usb_serial_adapter_keys_by_its_id_and_again_after_it_was_unplugged() -> Result<()> {
    let mut wire = Wire::tap()?;
    let adapter = Gadget::plug_in("USB serial", ["0x1d6b", "0x0104"], "acm.usb0")?;
    let port = wait_for("adapter under /dev/serial/by-id", by_id)?;
    let bench = Bench::with_config(&keyed_by("rts", &port)?).await?;
    let pid = bench.gateway.pid();
    wait_pins(|| wire.pins(), UNKEYED)?;
    bench.chip.move_line("desk.ptt.security", true)?;
    wait_pins(|| wire.pins(), keyed("rts"))?;
    bench.chip.move_line("desk.ptt.security", false)?;
    wait_pins(|| wire.pins(), UNKEYED)?;

    // It is missed when it should key, and used as soon as it is back and something should.
    adapter.unplug()?;
    bench.chip.move_line("desk.ptt.security", true)?;
    bench.wait_degraded(|degraded| degraded.contains(&port) && degraded.contains("plug it in")).await?;
    bench.chip.move_line("desk.ptt.security", false)?;
    bench.wait_count("radio.unkeyed", 2).await?;
    adapter.replug()?;
    wait_for("adapter under /dev/serial/by-id", by_id)?;
    bench.chip.move_line("desk.ptt.security", true)?;
    wait_pins(|| wire.pins(), keyed("rts"))?;
    bench.wait_count("system.healed", 1).await?;
    assert_eq!(bench.gateway.pid(), pid);

    // Nobody is left to unkey it, and so the kernel does.
    bench.gateway.signal("KILL")?;
    wait_pins(|| wire.pins(), UNKEYED).context("a gateway that was killed leaves it keyed")?;
    if by_id()?.is_none() {
        bail!("the adapter was lost meanwhile");
    }
    Ok(())
}
