//! A walk through the lines: the technician presses each button, which real edges confirm, and looks at each lamp.
//!
//! **Invariant:** nothing that keys a transmitter is set. **Invariant:** a lamp that was lit is dark again afterwards,
//! or as the gateway wants it.

use super::super::client::{PATIENCE, ask_openly, escaped};
use super::super::gpio::must_be_real;
use super::lines_of;
use crate::base::LineName;
use crate::doctor::facts::{Line, Walked};
use crate::gateway::checkup::Checkup;
use crate::hardware::gpio::{self, LineEvent, Lines};
use anyhow::{Context, bail};
use axum::http::Method;
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// How long an input may take to move.
const PRESS_PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// The lines under test.
pub trait Bench {
    /// The lines that the configuration uses, and how often each has moved.
    fn lines(&mut self) -> anyhow::Result<Vec<Line>>;
    /// Lights a lamp or sounds a buzzer; `Err` says why not.
    fn light(&mut self, line: &str) -> anyhow::Result<Result<(), String>>;
    /// Takes it back.
    fn dim(&mut self, line: &str);
}

/// Those of a running gateway.
pub struct Remote {
    door: String,
}

impl Remote {
    /// The gateway that answers there.
    pub fn new(door: String) -> Self {
        Remote { door }
    }
}

impl Bench for Remote {
    fn lines(&mut self) -> anyhow::Result<Vec<Line>> {
        lines_of(&self.door)
    }

    fn light(&mut self, line: &str) -> anyhow::Result<Result<(), String>> {
        let path = format!("/api/doctor/lamps/{}", escaped(line));
        Ok(ask_openly(&self.door, &Method::POST, &path, PATIENCE)?.map(drop))
    }

    /// The gateway does, by itself.
    fn dim(&mut self, _: &str) {}
}

/// Those of a board that nobody holds.
pub struct Local {
    facts: Vec<Line>,
    lines: Box<dyn Lines>,
    moves: BTreeMap<LineName, u64>,
}

impl Local {
    /// Opens the lines that a configuration uses.
    pub fn open(checkup: &Checkup) -> anyhow::Result<Self> {
        let config = checkup.config.as_ref().map_err(|errors| anyhow::anyhow!(errors.join("\n")))?;
        let board = config.board()?;
        must_be_real(&board).context("start the gateway, then walk through it")?;
        let facts = checkup.lines(None);
        let lines = gpio::open(&board, &config.lines(), Arc::new(|| {})).lines;
        if let Some(fault) = lines.fault() {
            bail!(fault);
        }
        Ok(Local { facts, lines, moves: BTreeMap::new() })
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.lines.safe();
    }
}

impl Bench for Local {
    fn lines(&mut self) -> anyhow::Result<Vec<Line>> {
        for event in self.lines.drain() {
            if let LineEvent::Edge(edge) = event {
                *self.moves.entry(edge.line).or_default() += 1;
            }
        }
        let moves = |name: &str| self.moves.get(&LineName::from(name)).copied().unwrap_or(0);
        Ok(self.facts.iter().map(|line| Line { moves: moves(&line.name), ..line.clone() }).collect())
    }

    fn light(&mut self, line: &str) -> anyhow::Result<Result<(), String>> {
        Ok(self.lines.set(&line.into(), true).map_err(|e| e.to_string()))
    }

    fn dim(&mut self, line: &str) {
        if let Err(e) = self.lines.set(&line.into(), false) {
            tracing::error!("{e}");
        }
    }
}

/// What a technician has to know who walks through a gateway that runs.
pub fn warn(out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "The gateway runs: a PTT button talks while it is pressed, and the emergency button starts a broadcast\n\
         after two seconds. Press each for less than a second.\n"
    )
}

/// What is typed, line by line; ends with the input.
pub fn answers() -> Receiver<String> {
    let (sender, answers) = sync_channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line.trim().to_ascii_lowercase()).is_err() {
                return;
            }
        }
    });
    answers
}

/// Asks for every line, and gives the lines with what became of each.
pub fn walk(bench: &mut dyn Bench, answers: &Receiver<String>, out: &mut dyn Write) -> anyhow::Result<Vec<Line>> {
    let mut lines = bench.lines()?;
    let all = lines.len();
    for (n, line) in lines.iter_mut().enumerate() {
        let place = if line.place.is_empty() { String::new() } else { format!(", {}", line.place) };
        write!(out, "{:>2}/{all}  {} ({}{place}): ", n + 1, line.name, line.used_for)?;
        out.flush()?;
        let walked = if line.input {
            press(bench, line, answers, out)?
        } else if line.keys_transmitter {
            writeln!(out, "left out")?;
            Walked::LeftOut(format!(
                "it keys a transmitter; try it with `crosspatch gpio set {} on --for 2s`",
                line.name
            ))
        } else {
            look(bench, line, answers, out)?
        };
        line.walked = Some(walked);
    }
    Ok(lines)
}

fn press(
    bench: &mut dyn Bench,
    line: &Line,
    answers: &Receiver<String>,
    out: &mut dyn Write,
) -> anyhow::Result<Walked> {
    let what = if line.may_be_active { "make it active, and idle again" } else { "press it and let go" };
    write!(out, "{what} (Enter leaves it out) ")?;
    out.flush()?;
    let begun = Instant::now();
    let before = line.moves;
    loop {
        let now = bench.lines()?.into_iter().find(|now| now.name == line.name).map_or(before, |now| now.moves);
        // An edge each way: a contact that closes and never opens again is not well.
        if now >= before + 2 {
            writeln!(out, "\n       it moved")?;
            return Ok(Walked::Well);
        }
        match answers.recv_timeout(LOOK) {
            Ok(_) => return Ok(Walked::LeftOut("as you wished".into())),
            Err(RecvTimeoutError::Timeout) if begun.elapsed() < PRESS_PATIENCE => {}
            Err(RecvTimeoutError::Disconnected) if begun.elapsed() < PRESS_PATIENCE => {
                // Nobody types: edges are still worth waiting for.
                std::thread::park_timeout(LOOK);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                writeln!(out, "\n       it did not move")?;
                return Ok(Walked::Failed);
            }
        }
    }
}

fn look(bench: &mut dyn Bench, line: &Line, answers: &Receiver<String>, out: &mut dyn Write) -> anyhow::Result<Walked> {
    loop {
        if let Err(why) = bench.light(&line.name)? {
            writeln!(out, "\n       {why}")?;
            return Ok(Walked::LeftOut(why));
        }
        write!(out, "does it light, or sound? (y, n, a = again, Enter leaves it out) ")?;
        out.flush()?;
        let answer = answers.recv();
        bench.dim(&line.name);
        match answer.as_deref() {
            Ok("y" | "yes") => return Ok(Walked::Well),
            Ok("n" | "no") => return Ok(Walked::Failed),
            Ok("a") => {}
            Ok(_) => return Ok(Walked::LeftOut("as you wished".into())),
            Err(_) => return Ok(Walked::LeftOut("nobody said whether it lights".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two buttons, of which one works and the other stays where it is once pressed, and three outputs.
    struct Wired {
        pressed: u64,
        lit: Vec<String>,
    }

    impl Bench for Wired {
        fn lines(&mut self) -> anyhow::Result<Vec<Line>> {
            self.pressed += 2;
            let line =
                |name: &str, input: bool| Line { name: name.into(), input, used_for: "x".into(), ..Line::default() };
            Ok(vec![
                Line { moves: self.pressed, ..line("button.1", true) },
                Line { moves: (self.pressed - 2).min(1), ..line("button.2", true) },
                line("lamp.1", false),
                line("lamp.2", false),
                Line { keys_transmitter: true, ..line("radio.1.ptt", false) },
            ])
        }

        fn light(&mut self, line: &str) -> anyhow::Result<Result<(), String>> {
            self.lit.push(format!("{line} on"));
            Ok(Ok(()))
        }

        fn dim(&mut self, line: &str) {
            self.lit.push(format!("{line} off"));
        }
    }

    #[test]
    fn edges_confirm_buttons_and_eyes_lamps_and_no_transmitter_is_keyed() {
        let mut bench = Wired { pressed: 0, lit: Vec::new() };
        let (sender, answers) = sync_channel(9);
        for answer in ["", "a", "y", "n"] {
            sender.send(answer.to_owned()).unwrap();
        }
        drop(sender); // nobody says more
        let mut screen = Vec::new();
        let walked = walk(&mut bench, &answers, &mut screen).unwrap();
        let walked: Vec<_> = walked.into_iter().filter_map(|line| line.walked).collect();
        assert_eq!(walked[0], Walked::Well);
        assert_eq!(
            walked[1],
            Walked::LeftOut("as you wished".into()),
            "the button that does not come back was left out"
        );
        assert_eq!(walked[2..4], [Walked::Well, Walked::Failed]);
        assert!(matches!(&walked[4], Walked::LeftOut(why) if why.contains("keys a transmitter")), "{walked:?}");
        let lit = ["lamp.1 on", "lamp.1 off", "lamp.1 on", "lamp.1 off", "lamp.2 on", "lamp.2 off"];
        assert_eq!(bench.lit, lit, "dark again each time");
        assert!(String::from_utf8(screen).unwrap().contains(" 1/5  button.1 (x): press it and let go"));
    }
}
