//! A whole alignment on simulated hardware: a handheld, the air and a technician that follow what is asked.

use super::align::Align;
use super::asking::Asking;
use super::edit::Setting;
use super::port::Port;
use super::report::{Change, Outcome, Step};
use crate::base::Mono;
use crate::base::clock::mono_now;
use crate::gateway::config::Config;
use crate::hardware::audio::sim::{SimCapture, SimPlayback, Sound};
use crate::hardware::audio::{AudioError, Capture, FRAME, Playback, Way};
use crate::hardware::gpio::sim::SimBoard;
use crate::hardware::gpio::{Direction, LineSpec};
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const CARRIER: &str = "radio.vhf.carrier";
const PTT: &str = "radio.vhf.ptt";

fn board() -> SimBoard {
    let spec = |name: &str, direction| LineSpec { name: name.into(), direction };
    SimBoard::new(&[spec(CARRIER, Direction::Input), spec(PTT, Direction::Output)])
}

fn is_active(board: &SimBoard, name: &str) -> bool {
    board.lines().iter().any(|line| line.name.as_str() == name && line.active)
}

fn tone(hz: f32, level_dbfs: f32, n: usize) -> [i16; FRAME] {
    Sound::Tone { hz, level_dbfs }.frame((n * FRAME) as u64)
}

/// What was asked last; the technician and the air do it.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<String>>);

impl Write for Asked {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Asked {
    fn last(&self) -> String {
        self.0.lock().unwrap().rsplit("? ").next().unwrap_or_default().to_owned()
    }
}

/// The receiver's sound, which keeps time, and its carrier.
struct Air {
    pace: SimCapture,
    board: SimBoard,
    asked: Asked,
    /// Frames since the handheld was pressed, and since the own transmitter was unkeyed.
    pressed: usize,
    keyed: usize,
    after: Option<usize>,
    /// When the newest frame ended, however late it is read.
    now: Option<Mono>,
}

impl Air {
    fn carrier(&self, active: bool) {
        self.board.move_input(&CARRIER.into(), active, self.now.unwrap()).unwrap();
    }
}

impl Capture for Air {
    fn read(&mut self, frame: &mut [i16; FRAME]) -> Result<(), AudioError> {
        self.pace.read(frame)?;
        let now = mono_now();
        self.now = Some(self.now.map_or(now, |last| now.min(last + Duration::from_millis(21))));
        let asked = self.asked.last();
        *frame = [9; FRAME];
        if asked.starts_with("Speak") {
            *frame = tone(700.0, -20.0, self.pressed);
            self.pressed += 1;
        } else if asked.starts_with("Press PTT") {
            self.pressed += 1;
            match self.pressed - 250 {
                10 | 12 => self.carrier(true),
                11 => self.carrier(false),                            // it chatters
                90..97 => *frame = tone(3000.0, -15.0, self.pressed), // the squelch is slow
                97 => self.carrier(false),
                _ => {}
            }
        }
        // The own transmission sounds on in the own receiver for 300 ms.
        if is_active(&self.board, PTT) {
            (self.keyed, self.after) = (self.keyed + 1, Some(0));
        } else if let Some(after) = &mut self.after {
            *after += 1;
            match *after {
                1 => self.carrier(true),
                15 => self.carrier(false),
                _ => {}
            }
        }
        Ok(())
    }
    fn xruns(&self) -> u64 {
        0
    }
}

fn align(answers: &str) -> (Vec<Step>, Vec<Change>) {
    let (board, asked) = (board(), Asked::default());
    let radio = Config::demo().radios.remove(0);
    let air = Air {
        pace: SimCapture::new(Sound::Silence),
        board: board.clone(),
        asked: asked.clone(),
        pressed: 250,
        keyed: 0,
        after: None,
        now: None,
    };
    let mouth = Box::new(SimPlayback::new());
    let mut port = Port::new(radio.clone(), Box::new(board.open()), Box::new(air), mouth).unwrap();
    let mut asking = Asking::new(answers.as_bytes(), asked, false);
    let mut align = Align::new(&mut port, &mut asking, None, Duration::from_secs(10));
    align.run(&[super::align::Wanted::Receive]).unwrap();
    let done = align.finish(&radio);
    assert!(!is_active(&board, PTT), "it is unkeyed at the end");
    done
}

#[test]
fn an_alignment_finds_chatter_tail_lead_in_and_inhibit() {
    // Quiet; press; key, then 2 dB more, then ok; two beeps cut off, then whole; key.
    let (steps, changes) = align("\n\n\n2\n\nok\n\nn\nn\ny\n\n");
    let told: Vec<_> = steps.iter().map(|step| (step.name, step.result)).collect();
    let all = ["noise", "receive", "squelch", "transmit", "lead-in", "inhibit"];
    let wanted: Vec<_> =
        all.into_iter().map(|name| (name, if name == "receive" { Outcome::Skipped } else { Outcome::Pass })).collect();
    assert_eq!(told, wanted, "{steps:#?}");
    let after = |key: &str| changes.iter().find(|change| change.key == key).map(|change| change.after);
    let ms = |key: &str| match after(key) {
        Some(Setting::Ms(ms)) => ms,
        other => panic!("{key} is {other:?} in {changes:#?}"),
    };
    // Two changes 40 ms apart; noise of 140 ms and the debounce until it is judged; each may be a frame off.
    assert!((30..=100).contains(&ms("carrier_debounce_ms")), "{changes:#?}");
    assert!((160..=300).contains(&ms("tail_elimination_ms")), "{changes:#?}");
    assert_eq!((ms("lead_in_ms"), after("transmit_gain_db")), (350, Some(Setting::Tenths(2.0))));
    assert!(ms("inhibit_after_transmit_ms") >= 250, "{changes:#?}");
}

#[test]
fn nobody_who_answers_ends_it_with_the_transmitter_unkeyed() {
    let board = board();
    let radio = Config::demo().radios.remove(0);
    let card = Box::new(SimCapture::new(Sound::Silence));
    let mut port = Port::new(radio, Box::new(board.open()), card, Box::new(SimPlayback::new())).unwrap();
    let mut asking = Asking::new("\n".as_bytes(), Vec::new(), false);
    let mut align = Align::new(&mut port, &mut asking, None, Duration::from_secs(1));
    assert!(align.run(&[]).unwrap_err().to_string().contains("nothing was changed"));
    assert!(!is_active(&board, PTT));
}

/// A card that is pulled out while it plays.
struct Pulled(usize, SimBoard);

impl Playback for Pulled {
    fn write(&mut self, _: &[i16; FRAME]) -> Result<(), AudioError> {
        self.0 += 1;
        assert!(is_active(&self.1, PTT), "it plays while it is keyed only");
        if self.0 < 5 { Ok(()) } else { Err(AudioError::Stalled { name: "card".into(), way: Way::Playback }) }
    }
    fn buffered(&self) -> Duration {
        Duration::ZERO
    }
    fn flush(&mut self) {}
    fn xruns(&self) -> u64 {
        0
    }
}

#[test]
fn a_card_that_goes_while_it_is_keyed_unkeys() {
    let board = board();
    let radio = Config::demo().radios.remove(0);
    let card = Box::new(SimCapture::new(Sound::Silence));
    let mouth = Box::new(Pulled(0, board.clone()));
    let mut port = Port::new(radio, Box::new(board.open()), card, mouth).unwrap();
    assert!(port.transmit(vec![[0; FRAME]; 50]).is_err());
    assert!(!is_active(&board, PTT) && !port.is_keyed());
}

#[test]
fn a_port_that_is_dropped_while_it_is_keyed_unkeys() {
    let board = board();
    let radio = Config::demo().radios.remove(0);
    let card = Box::new(SimCapture::new(Sound::Silence));
    let (watched, keyed) = (board.clone(), Arc::new(Mutex::new(false)));
    let saw = keyed.clone();
    let mouth = SimPlayback::with_listener(move |_| *saw.lock().unwrap() |= is_active(&watched, PTT));
    let mut port = Port::new(radio, Box::new(board.open()), card, Box::new(mouth)).unwrap();
    let frames = (0..20).map(|n| if n < 3 { [0; FRAME] } else { panic!("the program has a fault") });
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| port.transmit(frames))).unwrap_err();
    assert!(
        *keyed.lock().unwrap() && is_active(&board, PTT),
        "the hook of a port that is really used is what ends it then"
    );
    drop(port);
    assert!(!is_active(&board, PTT));
}
