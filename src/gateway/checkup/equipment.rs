//! Board, lines and sound cards, as they are now.

use super::Held;
use crate::base::LineName;
use crate::doctor::facts::{Board as BoardFacts, Level, Line as LineFacts, Sound};
use crate::doctor::machine::Machine;
use crate::gateway::config::Config;
use crate::gateway::radio_config::{CarrierFrom, PttOutput, Radio};
use crate::gateway::tryout::LineSeen;
use crate::hardware::audio::{self, FRAME};
use crate::hardware::board::{Backend, Board, Line};
use crate::hardware::cards;
use crate::hardware::gpio::cdev::{self, Survey};
use crate::hardware::gpio::{self, Direction, LineSpec};
use crate::media::voice::level::Meter;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Frames that a level is measured over: half a second.
const MEASURED_FRAMES: usize = 25;

/// The level of each line, if it is known, and how often it has moved.
type Seen = BTreeMap<LineName, (Option<Result<bool, String>>, u64)>;

fn used<'a>(config: &Config, board: &'a Board) -> Vec<&'a Line> {
    let names: BTreeSet<LineName> = config.lines().into_iter().map(|spec| spec.name).collect();
    board.lines.iter().filter(|line| names.contains(&line.name)).collect()
}

/// What the kernel says of the chips, before anything is opened.
pub(super) fn survey(board: Option<&(&Config, Board)>) -> Survey {
    let real = board.filter(|(_, board)| board.backend != Backend::Sim);
    real.map(|(config, board)| {
        let lines: Vec<Line> = used(config, board).into_iter().cloned().collect();
        cdev::survey(&lines)
    })
    .unwrap_or_default()
}

pub(super) fn board(config: &Config, board: &Board, survey: &Survey, machine: &Machine) -> BoardFacts {
    let is_there = |chip: &String| survey.chips.contains(chip);
    let has_chip = |name: &&str| Board::load(name).is_ok_and(|other| other.chip.iter().any(is_there));
    let model = machine.model();
    let fitting = match model.as_deref().and_then(Board::of_machine) {
        Some(profile) => vec![profile.to_owned()],
        None => Board::built_in().filter(has_chip).map(str::to_owned).collect(),
    };
    let names: BTreeSet<LineName> = config.lines().into_iter().map(|spec| spec.name).collect();
    let hazards = board.hazards().into_iter().filter(|(line, _)| names.contains(line));
    BoardFacts {
        profile: config.board.clone(),
        simulated: board.backend == Backend::Sim,
        model,
        wanted_chips: board.chip.clone(),
        chips: survey.chips.clone(),
        fitting,
        hazards: hazards.map(|(_, sentence)| format!("{sentence}; give it another pin in the profile")).collect(),
    }
}

/// The lines that may be active though nobody presses anything: carriers and positions of selectors.
fn restless(config: &Config) -> BTreeSet<&str> {
    let carriers = config.radios.iter().filter_map(|radio| radio.carrier_line.as_deref());
    let buttons = config.desks.iter().flat_map(|desk| &desk.buttons);
    carriers.chain(buttons.filter_map(|button| button.select_line.as_deref())).collect()
}

fn place(line: &Line) -> String {
    match (line.pin, line.offset, &line.kernel_line) {
        (Some(pin), _, _) => format!("pin {pin}"),
        (None, Some(offset), _) => format!("offset {offset}"),
        (None, None, Some(name)) => name.clone(),
        (None, None, None) => String::new(),
    }
}

pub(super) fn lines(config: &Config, board: &Board, survey: &Survey, held: Option<&[LineSeen]>) -> Vec<LineFacts> {
    let restless = restless(config);
    let uses = config.line_uses();
    let seen: Seen = match held {
        Some(held) => held.iter().map(|line| (line.name.clone(), (Some(line.level.clone()), line.moves))).collect(),
        None => look(board, &uses.iter().map(|(spec, _)| spec.clone()).collect::<Vec<_>>(), survey),
    };
    let on_board = uses.into_iter().map(|(spec, used_for)| {
        let (level, moves) = seen.get(&spec.name).cloned().unwrap_or_default();
        LineFacts {
            used_for,
            input: spec.direction == Direction::Input,
            keys_transmitter: config.radios.iter().any(|radio| radio.ptt_name().as_ref() == Some(&spec.name)),
            may_be_active: restless.contains(spec.name.as_str()),
            place: board.lines.iter().find(|line| line.name == spec.name).map(place).unwrap_or_default(),
            level,
            moves,
            walked: None,
            name: spec.name.to_string(),
        }
    });
    let elsewhere = config.radios.iter().flat_map(|radio| off_board(radio, &seen));
    on_board.chain(elsewhere).collect()
}

/// The pins that a radio brings along on its fob or serial port.
fn off_board(radio: &Radio, seen: &Seen) -> Vec<LineFacts> {
    let carrier = radio.carrier_name().filter(|_| radio.carrier_from() == CarrierFrom::Cm108).map(|name| (name, true));
    let ptt = radio.ptt_name().filter(|_| radio.ptt_output() != PttOutput::Gpio).map(|name| (name, false));
    let port = radio.serial_port.as_deref().filter(|port| !Path::new(port).exists());
    let missing =
        port.map(|port| Err(format!("the serial port {port} is not there; plug it in, or correct serial_port")));
    let fact = |(name, input): (LineName, bool)| {
        let (level, moves) = seen.get(&name).cloned().unwrap_or_default();
        LineFacts {
            used_for: format!("{} of {}", if input { "carrier" } else { "PTT output" }, radio.name),
            input,
            keys_transmitter: !input,
            may_be_active: input,
            place: radio.serial_port.clone().filter(|_| !input).unwrap_or_else(|| "fob".into()),
            level: level.or_else(|| missing.clone().filter(|_| !input)),
            moves,
            walked: None,
            name: name.to_string(),
        }
    };
    carrier.into_iter().chain(ptt).map(fact).collect()
}

/// Reads the inputs of a board that nobody holds. Outputs are not asked for: only whether they could be had.
fn look(board: &Board, wanted: &[LineSpec], survey: &Survey) -> Seen {
    if board.backend == Backend::Sim {
        return BTreeMap::new();
    }
    let missing: BTreeMap<_, _> = survey.missing.iter().cloned().collect();
    let free = |spec: &&LineSpec| spec.direction == Direction::Input && !missing.contains_key(&spec.name);
    let inputs: Vec<LineSpec> = wanted.iter().filter(free).cloned().collect();
    let lines = gpio::open(board, &inputs, Arc::new(|| {})).lines;
    let level = |spec: &LineSpec| match missing.get(&spec.name) {
        Some(why) => Some(Err(why.clone())),
        None if spec.direction == Direction::Output => None,
        None => Some(lines.level(&spec.name).map_err(|e| e.to_string())),
    };
    wanted.iter().map(|spec| (spec.name.clone(), (level(spec), 0))).collect()
}

/// Each way of each desk and radio.
pub(super) fn sound(config: &Config, held: Option<&Held>) -> Vec<Sound> {
    let mut ways = Vec::new();
    for desk in &config.desks {
        ways.push(Way::new(&desk.name, "microphone", "desk.microphone".into(), desk.capture_pcm.clone(), true));
        ways.push(Way::new(&desk.name, "loudspeaker", "desk.loudspeaker".into(), desk.playback_pcm.clone(), false));
    }
    for radio in &config.radios {
        let meter = |way: &str| format!("radio.{}.{way}", radio.id);
        ways.push(Way::new(
            &radio.name,
            "receive",
            meter("receive"),
            radio.capture_pcm.clone().or(radio.card.clone()),
            true,
        ));
        ways.push(Way::new(
            &radio.name,
            "transmit",
            meter("transmit"),
            radio.playback_pcm.clone().or(radio.card.clone()),
            false,
        ));
    }
    ways.into_iter()
        .map(|way| match held {
            Some(held) => way.of(held),
            None => way.opened(),
        })
        .collect()
}

/// One way of a card.
struct Way {
    name: String,
    /// What the part of the gateway is called.
    part: String,
    meter: String,
    device: Option<String>,
    hears: bool,
}

impl Way {
    fn new(owner: &str, way: &str, meter: String, device: Option<String>, hears: bool) -> Self {
        let part = if hears { "capture" } else { "playback" };
        Way { name: format!("{owner} {way}"), part: format!("{owner} {part}"), meter, device, hears }
    }

    /// As the gateway has it.
    fn of(self, held: &Held) -> Sound {
        let fault = held.degraded.iter().find(|(part, _)| *part == self.part).map(|(_, why)| why.clone());
        let level = held.meters.get(&self.meter).copied().filter(|_| self.hears);
        Sound { name: self.name, device: self.device, fault, level }
    }

    /// As it is when it is opened.
    fn opened(self) -> Sound {
        let tried = match &self.device {
            None => Ok(None),
            Some(device) => pcm(device).and_then(|pcm| if self.hears { measure(&pcm).map(Some) } else { sounds(&pcm) }),
        };
        let (fault, level) = match tried {
            Ok(level) => (None, level),
            Err(why) => (Some(why), None),
        };
        Sound { name: self.name, device: self.device, fault, level }
    }
}

/// The PCM of a card that is named by what stays, or the PCM that is named.
fn pcm(device: &str) -> Result<String, String> {
    match cards::find(device) {
        Some(card) => Ok(card.pcm()),
        None if cards::is_card_name(device) => {
            Err(format!("the card '{device}' is not plugged in; plug it in, or name one of `crosspatch audio list`"))
        }
        None => Ok(device.to_owned()),
    }
}

fn sounds(device: &str) -> Result<Option<Level>, String> {
    audio::open_playback(device).map(|_| None).map_err(|e| e.to_string())
}

fn measure(device: &str) -> Result<Level, String> {
    let mut capture = audio::open_capture(device).map_err(|e| e.to_string())?;
    let (mut frame, mut meter) = ([0; FRAME], Meter::default());
    for _ in 0..MEASURED_FRAMES {
        capture.read(&mut frame).map_err(|e| e.to_string())?;
        meter.add(&frame);
    }
    let level = meter.take();
    Ok(Level {
        average_dbfs: level.rms_dbfs.into(),
        peak_dbfs: level.peak_dbfs.into(),
        clipped: level.clipped_samples as u64,
    })
}
