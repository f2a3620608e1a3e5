//! Real USB devices: a fob whose pins are found by the port that its card is plugged into, and a card that is named by it.

use crate::bench::{Bench, SOON, config};
use crate::gadget::{Gadget, wait_for};
use crate::native::gateway::binary;
use crate::sound::{Tone, load_card, quarters_with_tone, samples};
use crate::uhid::{DESCRIPTOR, UhidFob};
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const RADIO: &str = "plughw:Loopback,1,0";
const LINES: &str = "carrier_line = \"radio.vhf.carrier\"\nptt_line = \"radio.vhf.ptt\"\n";
const PRODUCT: &str = "USB PnP Sound Device";
const GPIO3: u8 = 0b100;

/// A fob of two interfaces, sound and HID. Its sound is MIDI only: this kernel's port carries no PCM.
struct UsbFob {
    gadget: Gadget,
    chip: Option<File>,
    written: Vec<[u8; 4]>,
}

impl UsbFob {
    fn plug_in() -> Result<Self> {
        let hid: [(&str, &[u8]); 5] = [
            ("protocol", b"0"),
            ("subclass", b"0"),
            ("report_length", b"4"),
            ("no_out_endpoint", b"1"),
            ("report_desc", DESCRIPTOR),
        ];
        let functions: [(&str, &[(&str, &[u8])]); 2] = [("midi.usb0", &[]), ("hid.usb0", &hid)];
        let gadget = Gadget::plug_in(PRODUCT, ["0x0d8c", "0x013c"], &functions)?;
        let mut fob = UsbFob { gadget, chip: None, written: Vec::new() };
        fob.open()?;
        Ok(fob)
    }

    fn open(&mut self) -> Result<()> {
        let open = || File::options().read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open("/dev/hidg0");
        self.chip = Some(wait_for("chip", || Ok(open().ok()))?);
        Ok(())
    }

    /// Pulls it out. This kernel falls over a chip that is open then.
    fn unplug(&mut self) -> Result<()> {
        self.chip = None;
        self.gadget.unplug()
    }

    fn replug(&mut self) -> Result<()> {
        self.gadget.replug()?;
        self.open()
    }

    /// The name that the tool prints for the configuration.
    fn name(&self) -> Result<String> {
        wait_for("card in the list", || card_of(PRODUCT))
    }

    fn carrier(&mut self, active: bool) -> Result<()> {
        Ok(self.chip.as_mut().context("it is unplugged")?.write_all(&[if active { 0b10 } else { 0 }, 0, 0, 0])?)
    }

    fn is_keyed(&mut self) -> Result<bool> {
        let mut report = [0; 4];
        match self.chip.as_mut().context("it is unplugged")?.read(&mut report) {
            Ok(4) => self.written.push(report),
            Ok(length) => anyhow::bail!("a report of {length} bytes was written"),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e).context("the chip does not say what was written"),
        }
        Ok(self.written.last().is_some_and(|report| report[1] & report[2] & GPIO3 != 0))
    }

    fn wait_keyed(&mut self, keyed: bool) -> Result<()> {
        let began = Instant::now();
        while self.is_keyed()? != keyed {
            ensure!(began.elapsed() < SOON, "the fob's pin is not {keyed}: {:?}", self.written);
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for UsbFob {
    fn drop(&mut self) {
        self.chip = None; // before the port goes
    }
}

/// The name of a product's card, as the tool prints it.
fn card_of(product: &str) -> Result<Option<String>> {
    let listed = Command::new(binary()).args(["audio", "list"]).output()?;
    let listed = String::from_utf8(listed.stdout)?;
    let line = listed.lines().find(|line| line.contains("\"usb:") && line.contains(product));
    Ok(line.and_then(|line| line.split('"').nth(1)).map(str::to_owned))
}

/// The demo event with other keys in the place of its radio's lines.
fn with_radio(keys: &str) -> Result<String> {
    let config = config(|demo| demo.replace(LINES, keys));
    ensure!(config.contains(keys), "the demo has another radio now");
    Ok(config)
}

async fn wait_degraded(bench: &Bench, wanted: impl Fn(&str) -> bool) -> Result<String> {
    let began = Instant::now();
    loop {
        let degraded = bench.gateway.get("/api/panel").await?["degraded"].take().to_string();
        if wanted(&degraded) {
            return Ok(degraded);
        }
        ensure!(began.elapsed() < SOON, "the panel says {degraded}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_fob_is_found_by_the_port_of_its_card_whatever_number_it_has() -> Result<()> {
    load_card()?;
    let mut fob = UsbFob::plug_in()?;
    let card = fob.name()?;
    let keys = format!(
        "card = \"{card}\"\ncarrier_from = \"cm108\"\nptt_output = \"cm108\"\n\
         capture_pcm = \"{RADIO}\"\nplayback_pcm = \"{RADIO}\"\n"
    );
    let bench = Bench::with_config(&with_radio(&keys)?).await?;
    let mut other = None;
    for round in 1..=2 {
        fob.carrier(true)?;
        bench.wait_count("radio.carrier_open", round).await?;
        fob.carrier(false)?;
        bench.wait_count("radio.carrier_closed", round).await?;
        bench.chip.move_line("desk.ptt.security", true)?;
        fob.wait_keyed(true)?;
        bench.chip.move_line("desk.ptt.security", false)?;
        fob.wait_keyed(false)?;
        if round == 1 {
            fob.unplug()?;
            let told = wait_degraded(&bench, |degraded| degraded != "[]").await?;
            ensure!(told.contains(&format!("fob '{card}' is gone; plug it in again")), "{told}");
            // Another one takes its number meanwhile.
            other = Some(UhidFob::plug_in()?);
            ensure!(Path::new("/dev/hidraw0").exists(), "the other has another number");
            fob.replug()?;
            wait_degraded(&bench, |degraded| degraded == "[]").await?;
            assert_eq!(bench.count("system.degraded")?, 1, "told of once");
        }
    }
    let written = other.context("there was another")?.written()?.len();
    assert_eq!(written, 0, "the other fob was touched");
    Ok(())
}

/// The card of QEMU, which plays into a file of the host.
const QEMU_CARD: &str = "QEMU USB Audio";
const AIR: &str = "/out/air.wav";

/// Waits until a second more of the tone has sounded on the card.
fn sounds_on_air(from: usize) -> Result<usize> {
    wait_for("tone in what QEMU's card has played", || {
        let sound = std::fs::read(AIR)?;
        let left: Vec<i16> = samples(&sound[44.min(sound.len())..]).into_iter().step_by(2).skip(from).collect();
        Ok((quarters_with_tone(&left) >= 4).then_some(from + left.len()))
    })
}

/// The port of a USB device in sysfs.
fn port(card: &str) -> PathBuf {
    Path::new("/sys/bus/usb/devices").join(card.trim_start_matches("usb:"))
}

#[tokio::test]
async fn a_usb_card_is_named_by_its_port_and_sounds_again_after_it_was_unplugged() -> Result<()> {
    load_card()?;
    for module in ["xhci-pci", "snd-usb-audio"] {
        ensure!(Command::new("modprobe").arg(module).status()?.success(), "{module} cannot be loaded");
    }
    let card = wait_for("card of QEMU's", || card_of(QEMU_CARD))?;
    let pcms = format!("card = \"{card}\"\ncapture_pcm = \"{RADIO}\"\n");
    let desk = "name = \"Desk 1\"\n";
    let event = with_radio(&format!("{LINES}{pcms}"))?.replace(
        desk,
        &format!("{desk}capture_pcm = \"plughw:Loopback,1,1\"\nplayback_pcm = \"plughw:Loopback,1,1\"\n"),
    );
    let bench = Bench::with_config(&event).await?;
    let _tone = Tone::play("plughw:Loopback,0,1")?;
    bench.chip.move_line("desk.ptt.security", true)?;
    bench.chip.wait_until("radio.vhf.ptt", true)?;
    let before = sounds_on_air(0)?;

    std::fs::write(port(&card).join("authorized"), "0")?; // what its drivers see of a pulled plug
    let told = wait_degraded(&bench, |degraded| degraded != "[]").await?;
    ensure!(told.contains(&card) && told.contains("plug it in again"), "{told}");
    bench.chip.wait_until("radio.vhf.ptt", false)?;
    bench.chip.move_line("desk.ptt.security", false)?;
    std::fs::write(port(&card).join("authorized"), "1")?;
    wait_degraded(&bench, |degraded| degraded == "[]").await?;
    assert_eq!(bench.count("system.degraded")?, 1, "told of once");
    bench.chip.move_line("desk.ptt.security", true)?;
    bench.chip.wait_until("radio.vhf.ptt", true)?;
    sounds_on_air(before)?;
    bench.chip.move_line("desk.ptt.security", false)
}
