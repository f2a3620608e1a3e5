//! What is wired, plugged in and powered.

use super::facts::{Facts, Level, Line, Sound, Walked};
use super::{Check, Outcome};

/// What a level may be at most, in dBFS.
const HIGHEST_PEAK_DBFS: f64 = -3.0;
const HIGHEST_AVERAGE_DBFS: f64 = -12.0;
/// Quieter than any card's own noise: nothing comes in at all.
const SILENCE_DBFS: f64 = -90.0;
/// A Raspberry Pi slows itself down from 80 °C on.
const HOTTEST: f64 = 80.0;

pub(super) fn board(facts: &Facts) -> Check {
    const NAME: &str = "board";
    let Some(board) = &facts.board else {
        return Check::skip(NAME, "the configuration cannot be read, so nobody knows which board is meant");
    };
    if board.simulated {
        return Check::skip(NAME, "it is simulated: nothing to compare");
    }
    let model = board.model.as_deref().unwrap_or("this machine");
    let wanted = board.wanted_chips.join("' or '");
    let is_there = |label: &String| board.chips.contains(label);
    let mut wrong = board.hazards.clone();
    if board.chips.is_empty() {
        wrong.push(format!(
            "{model} shows no GPIO chip; look as root or as a member of the group gpio, and check that `gpiodetect` \
             lists one"
        ));
    } else if !board.wanted_chips.is_empty() && !board.wanted_chips.iter().any(is_there) {
        let remedy = match board.fitting.as_slice() {
            [] => "write a profile of its own, as the board notes say".to_owned(),
            fitting => format!("write board = \"{}\" in the configuration", fitting.join("\" or \"")),
        };
        wrong.push(format!(
            "the profile '{}' is for the chip '{wanted}', and {model} has '{}'; {remedy}",
            board.profile,
            board.chips.join("', '")
        ));
    }
    Check::unless(NAME, wrong, || Check::pass(NAME, format!("{model} has the chip of the profile '{}'", board.profile)))
}

/// A line as people find it: `button.1 (PTT of Operations, pin 29)`.
fn called(line: &Line) -> String {
    let place = if line.place.is_empty() { String::new() } else { format!(", {}", line.place) };
    format!("{} ({}{place})", line.name, line.used_for)
}

/// What is wrong with lines; a sentence that is true of several, such as those of a chip that is not there, is said once.
fn said_once<'a>(wrong: impl Iterator<Item = (&'a Line, String)>) -> Vec<String> {
    let mut said: Vec<(String, String, Vec<&Line>)> = Vec::new();
    for (line, sentence) in wrong {
        let nameless = sentence.replace(&line.name, "");
        match said.iter_mut().find(|(other, ..)| *other == nameless) {
            Some((.., likewise)) => likewise.push(line),
            None => said.push((nameless, sentence, Vec::new())),
        }
    }
    let in_full = |(_, sentence, likewise): (String, String, Vec<&Line>)| match likewise.as_slice() {
        [] => sentence,
        others => format!("{sentence}; the same of {}", few(others)),
    };
    said.into_iter().map(in_full).collect()
}

pub(super) fn pins(facts: &Facts) -> Check {
    const NAME: &str = "pins";
    if facts.lines.is_empty() {
        return Check::skip(NAME, "the configuration uses no line");
    }
    let trouble = |line: &Line| match &line.level {
        Some(Err(why)) => Some(why.clone()),
        Some(Ok(true)) if line.input && !line.may_be_active => Some(format!(
            "{} is active though nobody should be pressing it; let go of it, else look for a stuck contact or a wire \
             that touches ground",
            called(line)
        )),
        Some(Ok(_)) | None => None,
    };
    let wrong = said_once(facts.lines.iter().filter_map(|line| Some((line, trouble(line)?))));
    let known = |line: &Line| !line.input || line.level.is_some();
    if wrong.is_empty() && !facts.lines.iter().all(known) {
        return Check::skip(NAME, "simulated ones, and those of fobs, are known while the gateway runs; start it");
    }
    let active = |line: &&Line| line.may_be_active && line.level == Some(Ok(true));
    let active: Vec<_> = facts.lines.iter().filter(active).map(called).collect();
    Check::unless(NAME, wrong, || {
        let held = if facts.gateway.is_some() { "the gateway's" } else { "free" };
        let mut check = Check::pass(NAME, format!("{} lines are {held} and at rest", facts.lines.len()));
        if !active.is_empty() {
            check.found.push(format!("active now: {}", active.join(", ")));
        }
        check
    })
}

/// What a walk through some lines came to; `None` if nobody walked.
fn walked(name: &str, lines: &[&Line], failed: impl Fn(&Line) -> String) -> Option<Check> {
    lines.iter().find(|line| line.walked.is_some())?;
    let wrong = lines.iter().filter(|line| line.walked == Some(Walked::Failed)).map(|line| failed(line)).collect();
    let left_out: Vec<_> = lines
        .iter()
        .filter_map(|line| match &line.walked {
            Some(Walked::LeftOut(why)) => Some(format!("{} was left out: {why}", line.name)),
            Some(Walked::Well | Walked::Failed) | None => None,
        })
        .collect();
    let well = lines.iter().filter(|line| line.walked == Some(Walked::Well)).count();
    let mut check = Check::unless(name, wrong, || {
        let found = format!("{well} of {} tried and well", lines.len());
        if well == 0 { Check::skip(name, found) } else { Check::pass(name, found) }
    });
    check.found.extend(left_out);
    Some(check)
}

/// A few names, and how many more.
fn few(lines: &[&Line]) -> String {
    let named: Vec<_> = lines.iter().take(2).map(|line| line.name.as_str()).collect();
    match lines.len().saturating_sub(2) {
        0 => named.join(" and "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

pub(super) fn buttons(facts: &Facts) -> Check {
    const NAME: &str = "buttons";
    let inputs: Vec<&Line> = facts.lines.iter().filter(|line| line.input).collect();
    if inputs.is_empty() {
        return Check::skip(NAME, "the configuration uses no input");
    }
    let failed = |line: &Line| {
        format!("{} did not move when it was tried; check its wire, its pin and its ground", called(line))
    };
    if let Some(check) = walked(NAME, &inputs, failed) {
        return check;
    }
    let still: Vec<&Line> = inputs.iter().copied().filter(|line| line.moves == 0).collect();
    if still.is_empty() {
        return Check::pass(NAME, format!("all {} have moved since the gateway's start", inputs.len()));
    }
    let since = if facts.gateway.is_some() { "not moved since the gateway's start" } else { "not tried" };
    Check::skip(NAME, format!("{since}: {}; press each with: crosspatch doctor --walk", few(&still)))
}

pub(super) fn lamps(facts: &Facts) -> Check {
    const NAME: &str = "lamps";
    let outputs: Vec<&Line> = facts.lines.iter().filter(|line| !line.input).collect();
    if outputs.is_empty() {
        return Check::skip(NAME, "the configuration uses no output");
    }
    let failed =
        |line: &Line| format!("{} did not light or sound; check the lamp, its driver and its ground", called(line));
    let only_eyes_tell = || Check::skip(NAME, "only eyes can tell; light each with: crosspatch doctor --walk");
    walked(NAME, &outputs, failed).unwrap_or_else(only_eyes_tell)
}

pub(super) fn sound(facts: &Facts) -> Check {
    const NAME: &str = "sound cards";
    if facts.sound.is_empty() {
        return Check::skip(NAME, "the configuration has no desk and no radio");
    }
    let wrong = facts.sound.iter().filter_map(|s| Some(format!("{}: {}", s.name, s.fault.as_ref()?))).collect();
    let real: Vec<_> = facts.sound.iter().filter_map(|s| s.device.as_deref()).collect();
    Check::unless(NAME, wrong, || {
        if real.is_empty() {
            return Check::skip(NAME, "all sound is simulated; name cards in the configuration to hear something");
        }
        let mut names = real.clone();
        names.dedup();
        Check::pass(NAME, format!("{} of {} ways work: {}", real.len(), facts.sound.len(), names.join(", ")))
    })
}

/// What is wrong with a level.
fn too_loud(level: &Level) -> Option<String> {
    if level.clipped > 0 {
        Some(format!("clips ({} samples)", level.clipped))
    } else if level.peak_dbfs > HIGHEST_PEAK_DBFS {
        Some(format!("peaks at {:.0} dBFS, above {HIGHEST_PEAK_DBFS:.0}", level.peak_dbfs))
    } else if level.average_dbfs > HIGHEST_AVERAGE_DBFS {
        Some(format!("averages {:.0} dBFS, above {HIGHEST_AVERAGE_DBFS:.0}", level.average_dbfs))
    } else {
        None
    }
}

pub(super) fn levels(facts: &Facts) -> Check {
    const NAME: &str = "levels";
    let heard: Vec<(&Sound, Level)> = facts
        .sound
        .iter()
        .filter(|s| s.device.is_some() && s.fault.is_none())
        .filter_map(|s| Some((s, s.level?)))
        .collect();
    if heard.is_empty() {
        return Check::skip(NAME, "there is no card to measure");
    }
    let loud = |(sound, level): &(&Sound, Level)| {
        Some(format!("{} {}; lower the gain of the card or the volume of the radio", sound.name, too_loud(level)?))
    };
    Check::unless(NAME, heard.iter().filter_map(loud).collect(), || {
        let silent: Vec<_> = heard.iter().filter(|(_, l)| l.peak_dbfs <= SILENCE_DBFS).map(|(s, _)| &s.name).collect();
        let measured = |(sound, level): &(&Sound, Level)| {
            format!("{}: average {:.0}, peak {:.0} dBFS", sound.name, level.average_dbfs, level.peak_dbfs)
        };
        let found = heard.iter().map(measured).collect();
        if silent.is_empty() {
            return Check { name: NAME.into(), outcome: Outcome::Pass, found };
        }
        let silent: Vec<_> = silent.iter().map(|name| name.as_str()).collect();
        Check::skip(
            NAME,
            format!(
                "{} hears nothing at all; speak, or open the squelch, and look again; if it stays so, check the cable \
                 and the card's switches in `alsamixer`",
                silent.join(" and ")
            ),
        )
    })
}

pub(super) fn temperature(facts: &Facts) -> Check {
    const NAME: &str = "temperature";
    let hottest = facts.temperatures.iter().max_by(|a, b| a.1.total_cmp(&b.1));
    match hottest {
        None => Check::skip(NAME, "this machine has no sensor"),
        Some((sensor, hot)) if *hot >= HOTTEST => Check::fail(
            NAME,
            format!("{sensor} is at {hot:.0} °C and the board slows itself down; take it out of the sun, give it air"),
        ),
        Some((sensor, warm)) => Check::pass(NAME, format!("{sensor} is at {warm:.0} °C")),
    }
}

pub(super) fn supply(facts: &Facts) -> Check {
    const NAME: &str = "supply";
    match facts.under_voltage {
        None => Check::skip(NAME, "this board does not tell whether its supply is too low"),
        Some(false) => Check::pass(NAME, "the voltage is high enough"),
        Some(true) => Check::fail(
            NAME,
            "the voltage is too low: the board may stop or damage its card at any time; use a supply of 5.1 V and 3 A \
             with a short, thick cable",
        ),
    }
}
