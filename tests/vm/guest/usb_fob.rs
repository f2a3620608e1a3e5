//! A USB sound fob on a port of the kernel's own: the kernel takes it for real hardware, and this is what it talks to.
//!
//! The port is one of `vhci_hcd`, which carries USB over a socket: `Documentation/usb/usbip_protocol.rst`. The fob is built
//! as a CM108 is, by USB Audio Class 1.0 and USB HID 1.11: two channels out, one in, both 16 bit at 48 kHz, and a chip with
//! pins. It moves sound at the pace of a clock, hears a tone all the time, and notes what is played and written to its pins.

use crate::bench::load;
use crate::gadget::wait_for;
use crate::native::gateway::binary;
use crate::sound::{self, quarters_with_tone, samples};
use crate::uhid::{DESCRIPTOR, GPIO3};
use anyhow::{Result, anyhow};
use crosspatch::hardware::audio::real_time;
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const HUB: &str = "/sys/devices/platform/vhci_hcd.0";
const PORT: u32 = 0;
/// USB_SPEED_FULL of `linux/usb/ch9.h`.
const FULL_SPEED: u32 = 2;
const VENDOR: &str = "C-Media Electronics Inc.";
const PRODUCT: &str = "USB PnP Sound Device";

// usbip_protocol.rst: its commands, and the lengths of a header and of what is said of a packet.
const SUBMIT: u32 = 1;
const UNLINK: u32 = 2;
const SUBMITTED: u32 = 3;
const UNLINKED: u32 = 4;
const HEADER: usize = 48;
const PACKET: usize = 16;
/// What a cancelled transfer and a refused request end with.
const ECONNRESET: u32 = 104;
const EPIPE: u32 = 32;

// Its endpoints, without their direction, and the interface of its chip.
const SPEAKER: u32 = 1;
const MICROPHONE: u32 = 2;
const BUTTONS: u32 = 3;
const CHIP: u8 = 3;
/// A packet is what sounds in a frame of full-speed USB.
const FRAME: Duration = Duration::from_millis(1);
/// How often the fob looks at the wire: less often than there are frames, for a slow machine.
const TICK: Duration = Duration::from_millis(4);

/// A quarter of a second of what is played.
const QUARTER: usize = 48_000 / 4 * 2 * 2;

/// What the test and the fob share.
#[derive(Default)]
struct Pins {
    buttons: u8,
    written: Vec<[u8; 4]>,
    played: Vec<u8>,
}

fn lock(pins: &Mutex<Pins>) -> MutexGuard<'_, Pins> {
    pins.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A fob that is plugged in until it is dropped, but for the time between [`UsbFob::unplug`] and [`UsbFob::replug`].
pub struct UsbFob {
    pins: Arc<Mutex<Pins>>,
    device: Option<JoinHandle<io::Result<()>>>,
}

impl UsbFob {
    /// Plugs one in.
    pub fn plug_in() -> Result<Self> {
        load(&["vhci-hcd", "snd-usb-audio", "usbhid", "hid-generic"])?;
        let mut fob = UsbFob { pins: Arc::default(), device: None };
        fob.replug()?;
        Ok(fob)
    }

    /// Plugs it in where it was.
    pub fn replug(&mut self) -> Result<()> {
        let (wire, kernels) = UnixStream::pair()?;
        let attach = format!("{PORT} {} 1 {FULL_SPEED}", kernels.as_raw_fd());
        // The port is in use until the kernel has taken notice of what was pulled out of it.
        wait_for("free port", || Ok(std::fs::write(format!("{HUB}/attach"), &attach).ok()))?;
        self.pins().buttons = 0;
        let device = Device::new(wire, self.pins.clone());
        self.device = Some(std::thread::spawn(move || device.run()));
        self.name().map(drop)
    }

    /// Pulls it out, whoever uses it.
    pub fn unplug(&mut self) -> Result<()> {
        let Some(device) = self.device.take() else { return Ok(()) };
        std::fs::write(format!("{HUB}/detach"), PORT.to_string())?;
        Ok(device.join().map_err(|_| anyhow!("the fob has panicked"))??)
    }

    fn pins(&self) -> MutexGuard<'_, Pins> {
        lock(&self.pins)
    }

    /// The name of its card, as the tool prints it for the configuration.
    pub fn name(&self) -> Result<String> {
        wait_for("card in the list", || {
            let listed = process::Command::new(binary()).args(["audio", "list"]).output()?;
            let listed = String::from_utf8(listed.stdout)?;
            let line = listed.lines().find(|line| line.contains("\"usb:") && line.contains(PRODUCT));
            Ok(line.and_then(|line| line.split('"').nth(1)).map(str::to_owned))
        })
    }

    /// Opens or shuts the squelch, which is at volume down.
    pub fn carrier(&self, active: bool) {
        self.pins().buttons = if active { 0b10 } else { 0 };
    }

    /// What was written to its pins so far.
    pub fn written(&self) -> Vec<[u8; 4]> {
        self.pins().written.clone()
    }

    /// Waits until its GPIO3 keys, or does not.
    pub fn wait_keyed(&self, keyed: bool) -> Result<()> {
        let is_keyed = || self.pins().written.last().is_some_and(|report| report[1] & report[2] & GPIO3 != 0);
        wait_for(if keyed { "key" } else { "release" }, || Ok((is_keyed() == keyed).then_some(())))
    }

    /// Waits until a tone sounds on it, for a second at least.
    pub fn sounds(&self) -> Result<()> {
        let mut quarters = 0;
        self.pins().played.clear();
        wait_for("tone in what the fob plays", || {
            let mut pins = self.pins();
            let whole = pins.played.len() / QUARTER * QUARTER;
            let played: Vec<u8> = pins.played.drain(..whole).collect();
            drop(pins);
            let left: Vec<i16> = samples(&played).into_iter().step_by(2).collect();
            quarters += quarters_with_tone(&left);
            Ok((quarters >= 4).then_some(()))
        })
    }
}

impl Drop for UsbFob {
    fn drop(&mut self) {
        self.unplug().ok(); // what fails shows when the next one is plugged in
    }
}

/// What is said of a packet: its place, its length, how much of it was used, and how it ended.
type Packet = [u32; PACKET / 4];

/// A command of the kernel: a transfer, or the end of one that it waits for no longer.
struct Command {
    kind: u32,
    sequence: u32,
    endpoint: u32,
    /// Of an end: the transfer's.
    ended: u32,
    length: usize,
    setup: [u8; 8],
    data: Vec<u8>,
    packets: Vec<Packet>,
    /// When the last packet is through; buttons are told of when they change.
    due: Option<Instant>,
}

/// The fob's side of the wire.
struct Device {
    wire: UnixStream,
    pins: Arc<Mutex<Pins>>,
    asked: Vec<u8>,
    answers: Vec<u8>,
    transfers: Vec<Command>,
    /// When the last packet that an endpoint has is through.
    busy_until: HashMap<u32, Instant>,
    reported: u8,
    /// What its controls were set to, by value and index of the request.
    controls: HashMap<[u8; 4], Vec<u8>>,
    /// A packet of what it hears: a period of the tone.
    hears: Vec<u8>,
}

impl Device {
    fn new(wire: UnixStream, pins: Arc<Mutex<Pins>>) -> Self {
        let hears = sound::tone(48_000, 1)[..2 * 48].to_vec();
        let (busy_until, controls) = (HashMap::new(), HashMap::new());
        let (asked, answers, transfers) = (Vec::new(), Vec::new(), Vec::new());
        Device { wire, pins, asked, answers, transfers, busy_until, reported: 0, controls, hears }
    }

    /// Until it is pulled out.
    fn run(mut self) -> io::Result<()> {
        real_time().map_err(io::Error::other)?; // as the gateway's own threads: hardware does not wait for them
        self.wire.set_nonblocking(true)?;
        loop {
            std::thread::sleep(TICK);
            match self.wire.read_to_end(&mut self.asked) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
            while let Some(command) = self.command() {
                self.obey(command);
            }
            self.finish();
            match self.wire.write_all(&std::mem::take(&mut self.answers)) {
                Err(e) if e.kind() == ErrorKind::BrokenPipe => return Ok(()),
                done => done?,
            }
        }
    }

    /// The next command, once all of it is there.
    fn command(&mut self) -> Option<Command> {
        let (header, rest) = self.asked.split_first_chunk::<HEADER>()?;
        let [kind, sequence, _, inwards, endpoint, ended, length, _, packets, _] = words(header);
        let (sends, sounds) = (inwards == 0, matches!(endpoint, SPEAKER | MICROPHONE));
        let data = if kind == SUBMIT && sends { length as usize } else { 0 };
        let end = data + if kind == SUBMIT && sounds { packets as usize * PACKET } else { 0 };
        let (data, packets) = rest.get(..end)?.split_at(data);
        let command = Command {
            kind,
            sequence,
            endpoint,
            ended,
            length: length as usize,
            setup: *header.last_chunk().expect("a header is longer"),
            data: data.to_owned(),
            packets: packets.chunks_exact(PACKET).map(words).collect(),
            due: None,
        };
        self.asked.drain(..HEADER + end);
        Some(command)
    }

    fn obey(&mut self, mut command: Command) {
        if command.kind == UNLINK {
            let before = self.transfers.len();
            self.transfers.retain(|transfer| transfer.sequence != command.ended);
            let error = if self.transfers.len() < before { ECONNRESET } else { 0 };
            self.answer(UNLINKED, command.sequence, error, 0, &[], &[]);
        } else if command.endpoint == 0 {
            let sent = command.data.len();
            match self.control(command.setup, command.data) {
                Some(mut answer) => {
                    answer.truncate(command.length);
                    self.answer(SUBMITTED, command.sequence, 0, sent + answer.len(), &answer, &[]);
                }
                None => self.answer(SUBMITTED, command.sequence, EPIPE, 0, &[], &[]),
            }
        } else {
            if !command.packets.is_empty() {
                let now = Instant::now();
                let until = self.busy_until.entry(command.endpoint).or_insert(now);
                *until = now.max(*until) + FRAME * command.packets.len() as u32;
                command.due = Some(*until);
            }
            self.transfers.push(command);
        }
    }

    /// Ends the transfers whose time has come.
    fn finish(&mut self) {
        let (now, buttons, reported) = (Instant::now(), lock(&self.pins).buttons, self.reported);
        let is_due = |transfer: &mut Command| transfer.due.map_or(buttons != reported, |due| due <= now);
        let due: Vec<Command> = self.transfers.extract_if(.., is_due).collect();
        for Command { sequence, endpoint, data, mut packets, .. } in due {
            let answer = match endpoint {
                SPEAKER => Vec::new(),
                MICROPHONE => self.hears.repeat(packets.len()),
                _ => vec![buttons, 0, 0, 0],
            };
            for [_, length, used, status] in &mut packets {
                (*used, *status) = (if endpoint == SPEAKER { *length } else { self.hears.len() as u32 }, 0);
            }
            self.answer(SUBMITTED, sequence, 0, data.len() + answer.len(), &answer, &packets);
            match endpoint {
                SPEAKER => lock(&self.pins).played.extend(data),
                BUTTONS => self.reported = buttons,
                _ => {}
            }
        }
    }

    /// Answers a command: an error's number or 0, how many bytes went either way, and those that come in.
    fn answer(&mut self, kind: u32, sequence: u32, error: u32, used: usize, data: &[u8], packets: &[Packet]) {
        let header = [kind, sequence, 0, 0, 0, error.wrapping_neg(), used as u32, 0, packets.len() as u32, 0, 0, 0];
        let bytes = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
        self.answers.extend([&bytes(&header), data, &bytes(packets.as_flattened())].concat());
    }

    /// Answers a request on endpoint 0; nothing if the fob does not know it.
    fn control(&mut self, setup: [u8; 8], data: Vec<u8>) -> Option<Vec<u8>> {
        let [kind, request, number, value, index, unit, length, _] = setup;
        Some(match (kind, request, value) {
            (0x80, 0x06, 1) => device(),
            (0x80, 0x06, 2) => configuration(),
            (0x80, 0x06, 3) => string(number)?,
            (0x81, 0x06, 0x22) if index == CHIP => DESCRIPTOR.to_vec(),
            // GET_REPORT and SET_REPORT of the chip.
            (0xa1, 0x01, 1) if index == CHIP => vec![self.reported, 0, 0, 0],
            (0x21, 0x09, 2) if index == CHIP => {
                lock(&self.pins).written.push(data.try_into().ok()?);
                Vec::new()
            }
            // SET_CUR and GET_CUR of mute, volume and rate; MIN, MAX and RES of volume, in 1/256 dB.
            (0x21 | 0x22, 0x01, _) => {
                self.controls.insert([number, value, index, unit], data);
                Vec::new()
            }
            (0xa1 | 0xa2, 0x81, _) => {
                let set = self.controls.get(&[number, value, index, unit]);
                set.cloned().unwrap_or_else(|| vec![0; length.into()])
            }
            (0xa1, 0x82, 2) => (-37 * 256_i16).to_le_bytes().to_vec(),
            (0xa1, 0x83, 2) => 0_i16.to_le_bytes().to_vec(),
            (0xa1, 0x84, 2) => 256_i16.to_le_bytes().to_vec(),
            // GET_STATUS; CLEAR_FEATURE, SET_CONFIGURATION, SET_INTERFACE, SET_IDLE.
            (0x80..=0x82, 0x00, _) => vec![0; 2],
            (0x02, 0x01, _) | (0x00, 0x09, _) | (0x01, 0x0b, _) | (0x21, 0x0a, _) => Vec::new(),
            _ => return None,
        })
    }
}

fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    std::array::from_fn(|n| u32::from_be_bytes(bytes[4 * n..4 * n + 4].try_into().expect("they are four bytes")))
}

/// Descriptors, each with its length before it.
fn described(descriptors: &[&[u8]]) -> Vec<u8> {
    let length = |descriptor: &[u8]| descriptor.len() as u8 + 1;
    descriptors
        .iter()
        .flat_map(|&descriptor| std::iter::once(length(descriptor)).chain(descriptor.iter().copied()))
        .collect()
}

/// Of the device: USB 1.1, C-Media's CM108, its vendor's and its own name.
fn device() -> Vec<u8> {
    described(&[&[1, 0x10, 1, 0, 0, 0, 64, 0x8c, 0x0d, 0x3c, 0x01, 0, 1, 1, 2, 0, 1]])
}

fn string(number: u8) -> Option<Vec<u8>> {
    let text: Vec<u16> = match number {
        0 => vec![0x0409], // English is all that it speaks
        1 => VENDOR.encode_utf16().collect(),
        2 => PRODUCT.encode_utf16().collect(),
        _ => return None,
    };
    let text = text.iter().flat_map(|unit| unit.to_le_bytes());
    Some(described(&[&std::iter::once(3).chain(text).collect::<Vec<u8>>()]))
}

/// Its configuration, by USB Audio 1.0, 4.3 to 4.6, and HID 1.11, 6.2.1.
fn configuration() -> Vec<u8> {
    // From the host (1) by a feature unit (2) to a speaker (3), from a microphone (4) by another one (5) to the host (6).
    let units = described(&[
        &[0x24, 2, 1, 0x01, 0x01, 0, 2, 3, 0, 0, 0],
        &[0x24, 6, 2, 1, 1, 1, 2, 2, 0],
        &[0x24, 3, 3, 0x01, 0x03, 0, 2, 0],
        &[0x24, 2, 4, 0x01, 0x02, 0, 1, 0, 0, 0, 0],
        &[0x24, 6, 5, 4, 1, 3, 0, 0],
        &[0x24, 3, 6, 0x01, 0x01, 0, 5, 0],
    ]);
    let control = described(&[&[4, 0, 0, 0, 1, 1, 0, 0], &[0x24, 1, 0, 1, units.len() as u8 + 10, 0, 2, 1, 2]]);
    // Nothing in the first setting; in the second 16 bits at 48 kHz, in packets of 1 ms. The last byte but one is its rate's control.
    let stream = |interface, terminal, channels, endpoint, kind| {
        described(&[
            &[4, interface, 0, 0, 1, 2, 0, 0],
            &[4, interface, 1, 1, 1, 2, 0, 0],
            &[0x24, 1, terminal, 1, 1, 0],
            &[0x24, 2, 1, channels, 2, 16, 1, 0x80, 0xbb, 0],
            &[5, endpoint, kind, channels * 96, 0, 1, 0, 0],
            &[0x25, 1, 1, 0, 0, 0],
        ])
    };
    let (speaker, microphone) = (stream(1, 1, 2, SPEAKER as u8, 0x09), stream(2, 6, 1, MICROPHONE as u8 | 0x80, 0x0d));
    let chip = described(&[
        &[4, CHIP, 0, 1, 3, 0, 0, 0],
        &[0x21, 0x10, 1, 0, 1, 0x22, DESCRIPTOR.len() as u8, 0],
        &[5, BUTTONS as u8 | 0x80, 3, 4, 0, 2],
    ]);
    let interfaces = [control, units, speaker, microphone, chip].concat();
    let [low, high] = (interfaces.len() as u16 + 9).to_le_bytes();
    [described(&[&[2, low, high, 4, 1, 0, 0x80, 50]]), interfaces].concat()
}
