//! Lamps and buzzers: what each of them says, and the patterns they say it in.
//!
//! [`CODES`] is the one table of patterns; `docs/lamps.md` is made of it.

use super::desk::Desk;
use super::{Control, Effect};
use crate::base::{ChannelId, LineName, Mono};
use std::fmt::Write;
use std::time::Duration;

/// How long a refusal is shown.
pub(super) const DENIED: Duration = Duration::from_secs(1);

/// What a lamp says. Where one lamp has several things to say, the later in this order goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shows {
    /// Nothing.
    Idle,
    /// The box's new configuration was refused; it runs on an older one, or on none.
    Misconfigured,
    /// Something of the desk does not work.
    Fault,
    /// Somebody else talks.
    Busy,
    /// This desk talks.
    OwnTalk,
    /// This desk talks, but a radio of the channel cannot be keyed yet: its own carrier is open.
    Blocked,
    /// An emergency broadcast runs.
    Emergency,
    /// This desk's press was refused.
    Denied,
    /// The emergency button is held; the two seconds count (E3).
    Arming,
}

/// How a lamp shows something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Never lit.
    Dark,
    /// Always lit.
    Lit,
    /// On, off, on, … for so many milliseconds each, again and again.
    Cycle(&'static [u16]),
    /// The same once, from when it began; lit afterwards.
    Once(&'static [u16]),
}

/// One line of the table of lamp codes.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    /// What is said.
    pub shows: Shows,
    /// How the lamp says it.
    pub pattern: Pattern,
    /// True if the buzzer and the loudspeaker's tone follow the same pattern.
    pub sounds: bool,
    /// How the pattern looks, in words.
    pub looks: &'static str,
    /// What it means and what to do, in words.
    pub means: &'static str,
}

/// Every lamp code. Arming gets faster until the hold is complete.
pub const CODES: &[Code] = &[
    Code {
        shows: Shows::Idle,
        pattern: Pattern::Dark,
        sounds: false,
        looks: "dark",
        means: "Nobody talks and nothing is wrong.",
    },
    Code { shows: Shows::Busy, pattern: Pattern::Lit, sounds: false, looks: "steady", means: "Somebody else talks." },
    Code {
        shows: Shows::OwnTalk,
        pattern: Pattern::Cycle(&[900, 100]),
        sounds: false,
        looks: "lit with a short wink every second",
        means: "This desk talks.",
    },
    Code {
        shows: Shows::Blocked,
        pattern: Pattern::Cycle(&[100, 100, 100, 700]),
        sounds: false,
        looks: "two flashes every second",
        means: "This desk talks, but a radio of the channel does not transmit yet: it is receiving. It follows by itself.",
    },
    Code {
        shows: Shows::Denied,
        pattern: Pattern::Once(&[60; 16]),
        sounds: true,
        looks: "flutters for a second",
        means: "The press was refused: another dispatcher talks, or the desk cannot be heard. Let go, press again later.",
    },
    Code {
        shows: Shows::Arming,
        pattern: Pattern::Once(&[250, 250, 200, 200, 150, 150, 125, 125, 100, 100, 75, 75, 50, 50, 50, 50]),
        sounds: true,
        looks: "blinks faster and faster",
        means: "The emergency button is held. The broadcast starts after two seconds; letting go earlier ends it.",
    },
    Code {
        shows: Shows::Emergency,
        pattern: Pattern::Cycle(&[400, 100]),
        sounds: false,
        looks: "lit with two winks a second",
        means: "An emergency broadcast runs on all channels.",
    },
    Code {
        shows: Shows::Fault,
        pattern: Pattern::Cycle(&[50, 150, 50, 150, 50, 1550]),
        sounds: false,
        looks: "three short flashes every two seconds",
        means: "Something of this desk does not work, or an emergency hold came to nothing. The front panel says what.",
    },
    Code {
        shows: Shows::Misconfigured,
        pattern: Pattern::Cycle(&[1000, 200, 100, 1700]),
        sounds: false,
        looks: "a long and a short flash every three seconds",
        means: "crosspatch.toml on the card was refused. The box runs on the last good one, or on none. crosspatch-errors.txt beside it says which line.",
    },
];

impl Shows {
    /// The word for pages and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Shows::Idle => "idle",
            Shows::Misconfigured => "misconfigured",
            Shows::Fault => "fault",
            Shows::Busy => "busy",
            Shows::OwnTalk => "own-talk",
            Shows::Blocked => "blocked",
            Shows::Emergency => "emergency",
            Shows::Denied => "denied",
            Shows::Arming => "arming",
        }
    }

    fn code(self) -> &'static Code {
        CODES.iter().find(|code| code.shows == self).expect("a test looks for every code")
    }
}

impl Pattern {
    /// Whether the lamp is lit, and when it changes. A cycle runs from the clock's zero, so that lamps blink together;
    /// what is shown once runs from `since`.
    fn at(self, since: Mono, now: Mono) -> (bool, Option<Mono>) {
        let ms = |step: u16| Duration::from_millis(step.into());
        let (steps, mut end) = match self {
            Pattern::Dark => return (false, None),
            Pattern::Lit => return (true, None),
            Pattern::Once(steps) => (steps, since),
            Pattern::Cycle(steps) => {
                let period: u64 = steps.iter().map(|step| u64::from(*step) * 1_000_000).sum();
                (steps, Mono(now.0 - now.0 % period))
            }
        };
        for (place, step) in steps.iter().enumerate() {
            end = end + ms(*step);
            if now < end {
                return (place.is_multiple_of(2), Some(end));
            }
        }
        (true, None)
    }
}

/// The table for people, as Markdown.
#[must_use]
pub fn codes_as_markdown() -> String {
    let mut text = String::from("| the lamp | says | sounds |\n| --- | --- | --- |\n");
    for code in CODES {
        let sounds = if code.sounds { "with it" } else { "" };
        writeln!(text, "| {} | **{}** {} | {sounds} |", code.looks, code.shows.as_str(), code.means)
            .expect("writing to a string works");
    }
    text
}

/// What a lamp says, and since when.
type Said = (Shows, Mono);

impl Control {
    /// What every lamp says.
    #[must_use]
    pub fn lamps(&self) -> Vec<(LineName, Shows)> {
        let desks = self.desks.iter().flat_map(|desk| self.lamps_of(desk));
        desks.map(|(line, (shows, _))| (line, shows)).collect()
    }

    fn lamps_of(&self, desk: &Desk) -> Vec<(LineName, Said)> {
        let mut lamps = Vec::new();
        for (line, channels) in &desk.spec.tally {
            let said = channels.iter().map(|channel| self.channel_says(desk, channel));
            lamps.push((line.clone(), said.max_by_key(|(shows, _)| *shows).unwrap_or((Shows::Idle, self.now))));
        }
        let faulty = !self.desk_faults(desk).is_empty();
        let fault = match (faulty, self.settings.misconfigured) {
            (true, _) => Shows::Fault,
            (false, true) => Shows::Misconfigured,
            (false, false) => Shows::Idle,
        };
        let fault_elsewhere = desk.spec.fault_tally.is_some();
        if let Some(line) = &desk.spec.emergency_tally {
            let said = self.emergency_says(desk);
            let quiet = said.0 == Shows::Idle && !fault_elsewhere;
            lamps.push((line.clone(), if quiet { (fault, self.now) } else { said }));
        }
        if let Some(line) = &desk.spec.fault_tally {
            lamps.push((line.clone(), (fault, self.now)));
        }
        lamps
    }

    fn channel_says(&self, desk: &Desk, channel: &ChannelId) -> Said {
        if let Some(until) = desk.denied.get(channel).filter(|until| self.now < **until) {
            return (Shows::Denied, *until - DENIED);
        }
        let shows = match self.channels.get(channel).and_then(|c| c.burst.as_ref()) {
            Some(burst) if burst.session != desk.spec.session => Shows::Busy,
            Some(_) if self.ports.iter().any(|p| p.spec.channel == *channel && p.is_blocked()) => Shows::Blocked,
            Some(_) => Shows::OwnTalk,
            None if desk.button_of(channel).is_some_and(|b| b.fault().is_some()) => Shows::Fault,
            None => Shows::Idle,
        };
        (shows, self.now)
    }

    fn emergency_says(&self, desk: &Desk) -> Said {
        match (desk.hold.armed_since(), desk.emergency_denied) {
            (Some(since), _) => (Shows::Arming, since),
            (None, Some(until)) if self.now < until => (Shows::Denied, until - DENIED),
            (None, _) if self.emergency.is_some() => (Shows::Emergency, self.now),
            (None, _) => (Shows::Idle, self.now),
        }
    }

    /// What the buzzer and the tone follow: the most urgent of what the desk's lamps say aloud.
    fn desk_sounds(&self, desk: &Desk) -> Said {
        let channels = desk.spec.tally.iter().flat_map(|(_, channels)| channels).chain(desk.denied.keys());
        let said = channels.map(|channel| self.channel_says(desk, channel)).chain([self.emergency_says(desk)]);
        said.filter(|(shows, _)| shows.code().sounds).max_by_key(|(shows, _)| *shows).unwrap_or((Shows::Idle, self.now))
    }

    /// Brings every lamp, buzzer and tone in line with what it says.
    pub(super) fn update_tallies(&mut self) {
        let now = self.now;
        let (mut next, mut lines, mut tones) = (None::<Mono>, Vec::new(), Vec::new());
        let mut at = |(shows, since): Said| {
            let (lit, mut until) = shows.code().pattern.at(since, now);
            if shows == Shows::Denied {
                until = until.into_iter().chain([since + DENIED]).min();
            }
            next = next.into_iter().chain(until).min();
            lit
        };
        for desk in &self.desks {
            lines.extend(self.lamps_of(desk).into_iter().map(|(line, said)| (line, at(said))));
            let sounds = at(self.desk_sounds(desk));
            lines.extend(desk.spec.buzzer.clone().map(|line| (line, sounds)));
            tones.push((desk.spec.session, sounds));
        }
        self.lamps_due = next;
        for (line, lit) in lines {
            self.set_line(&line, lit);
        }
        for (session, sounds) in tones {
            let changed = if sounds { self.toning.insert(session) } else { self.toning.remove(&session) };
            if changed {
                self.emit(Effect::Tone { session, sounds });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_table_once() {
        let all = [
            Shows::Idle,
            Shows::Misconfigured,
            Shows::Fault,
            Shows::Busy,
            Shows::OwnTalk,
            Shows::Blocked,
            Shows::Emergency,
            Shows::Denied,
            Shows::Arming,
        ];
        for shows in all {
            assert_eq!(CODES.iter().filter(|code| code.shows == shows).count(), 1, "{shows:?}");
        }
        assert_eq!(CODES.len(), all.len());
    }

    #[test]
    fn no_two_codes_look_alike() {
        for (place, code) in CODES.iter().enumerate() {
            assert!(CODES[..place].iter().all(|other| other.pattern != code.pattern), "{:?}", code.shows);
        }
    }

    #[test]
    fn a_cycle_runs_with_the_clock_and_a_single_run_from_its_beginning() {
        let at = Mono::from_millis;
        let cycle = Pattern::Cycle(&[900, 100]);
        assert_eq!(cycle.at(at(5_450), at(5_899)), (true, Some(at(5_900))));
        assert_eq!(cycle.at(at(5_450), at(5_900)), (false, Some(at(6_000))));
        assert_eq!(cycle.at(at(5_450), at(6_000)), (true, Some(at(6_900))));
        let once = Pattern::Once(&[250, 50]);
        assert_eq!(once.at(at(5_450), at(5_450)), (true, Some(at(5_700))));
        assert_eq!(once.at(at(5_450), at(5_749)), (false, Some(at(5_750))));
        assert_eq!(once.at(at(5_450), at(5_750)), (true, None));
    }
}
