//! Speech a little faster or slower at the same pitch: whole periods of the voice are left out or repeated, and the ends
//! faded into each other.
//!
//! A backlog is worked off by it, and the difference between the clocks of a card and of the network made good.

use super::{FRAME, Frame};

/// The shortest and longest period: 400 to 67 Hz.
const SHORTEST: usize = 120;
const LONGEST: usize = 720;
/// How much is compared, and how much is faded.
const COMPARED: usize = 480;
const FADED: usize = 240;
/// Periods are looked for among every fourth sample first.
const COARSE: usize = 4;
/// How alike two periods must be, of 1, so that leaving one out is not heard.
const ALIKE: f32 = 0.7;
/// Softer than this (RMS, −46 dBFS) nobody hears what is left out.
const QUIET: f32 = 164.0;
/// Samples that may be owed before a period is left out that is not alike.
const OWED_AT_MOST: f32 = 3.0 * LONGEST as f32;
/// What shortening a frame looks at.
const LOOK_AHEAD: usize = FRAME + LONGEST + COMPARED;
const ROOM: usize = LOOK_AHEAD + FRAME;

/// What is to be done to time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Tempo {
    /// Nothing.
    Even,
    /// Faster by this part (0.1: a tenth is left out).
    Faster(f32),
    /// One period is repeated.
    OnePeriodMore,
}

/// Decoded sound that waits to be played.
pub(super) struct Stretch {
    samples: Vec<i16>,
    /// Samples that should have been left out by now.
    owed: f32,
}

impl Stretch {
    pub fn new() -> Self {
        Stretch { samples: Vec::with_capacity(ROOM), owed: 0.0 }
    }

    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    pub fn len(&self) -> usize {
        self.samples.len()
    }

    pub fn clear(&mut self) {
        self.samples.clear();
        self.owed = 0.0;
    }

    /// How many samples a frame at this tempo needs.
    pub fn needs(tempo: Tempo) -> usize {
        match tempo {
            // Slower is for when there is no more.
            Tempo::Even | Tempo::OnePeriodMore => FRAME,
            Tempo::Faster(_) => LOOK_AHEAD,
        }
    }

    pub fn push(&mut self, frame: &Frame) {
        debug_assert!(self.samples.len() + FRAME <= ROOM, "more is pushed than a frame needs");
        self.samples.extend_from_slice(frame);
    }

    /// The next frame, and how many samples it is longer than what it used up (less than nothing: shorter). What is
    /// missing at the end is silence.
    pub fn pull(&mut self, tempo: Tempo) -> (Frame, isize) {
        let enough = self.samples.len() >= Self::needs(tempo);
        match tempo {
            Tempo::Faster(part) if enough => self.shorten(part),
            Tempo::OnePeriodMore if enough => self.lengthen(),
            Tempo::Even | Tempo::Faster(_) | Tempo::OnePeriodMore => (self.give(0), 0),
        }
    }

    /// The first frame, of which so many more samples are used up than it has.
    fn give(&mut self, more: usize) -> Frame {
        let mut frame = [0; FRAME];
        let count = self.samples.len().min(FRAME);
        frame[..count].copy_from_slice(&self.samples[..count]);
        self.samples.drain(..(count + more).min(self.samples.len()));
        frame
    }

    fn shorten(&mut self, part: f32) -> (Frame, isize) {
        self.owed += part * FRAME as f32;
        let quiet = rms(&self.samples[..FRAME + LONGEST]) < QUIET;
        let (lag, alike) = if quiet { (LONGEST, 1.0) } else { best_lag(&self.samples, LONGEST) };
        let due = quiet || (self.owed >= lag as f32 && (alike >= ALIKE || self.owed >= OWED_AT_MOST));
        if !due {
            return (self.give(0), 0);
        }
        self.owed = (self.owed - lag as f32).max(0.0);
        for n in 0..FADED {
            let later = self.samples[n + lag];
            self.samples[n + lag] = fade(self.samples[n], later, n);
        }
        // What was faded into stands a period further on.
        self.samples.drain(..lag);
        (self.give(0), -(lag as isize))
    }

    fn lengthen(&mut self) -> (Frame, isize) {
        let quiet = rms(&self.samples[..FRAME]) < QUIET;
        let longest = LONGEST.min(self.samples.len() - COMPARED);
        let (lag, alike) = if quiet { (longest, 1.0) } else { best_lag(&self.samples, longest) };
        if alike < ALIKE {
            return (self.give(0), 0);
        }
        let mut frame = [0; FRAME];
        frame[..lag].copy_from_slice(&self.samples[..lag]);
        for (n, sample) in frame[lag..].iter_mut().enumerate() {
            let again = self.samples[n];
            *sample = if n < FADED { fade(self.samples[n + lag], again, n) } else { again };
        }
        self.samples.drain(..FRAME - lag);
        (frame, lag as isize)
    }
}

/// From one sound to the other, `n` samples on.
fn fade(from: i16, to: i16, n: usize) -> i16 {
    let part = n as f32 / FADED as f32;
    (f32::from(from) * (1.0 - part) + f32::from(to) * part).round() as i16
}

fn rms(samples: &[i16]) -> f32 {
    let power: f32 = samples.iter().map(|s| f32::from(*s) * f32::from(*s)).sum();
    (power / samples.len() as f32).sqrt()
}

/// The period of a voice in samples, and how alike two in a row are.
fn best_lag(samples: &[i16], longest: usize) -> (usize, f32) {
    let coarse = (SHORTEST..=longest).step_by(COARSE).map(|lag| (lag, likeness(samples, lag, COARSE)));
    let (near, _) = coarse.max_by(|a, b| a.1.total_cmp(&b.1)).expect("there are lags");
    let fine = (near.saturating_sub(COARSE).max(SHORTEST)..=(near + COARSE).min(longest))
        .map(|lag| (lag, likeness(samples, lag, 1)));
    fine.max_by(|a, b| a.1.total_cmp(&b.1)).expect("there are lags")
}

fn likeness(samples: &[i16], lag: usize, step: usize) -> f32 {
    let (mut both, mut first, mut second) = (0.0f32, 1.0f32, 1.0f32);
    for n in (0..COMPARED).step_by(step) {
        let (a, b) = (f32::from(samples[n]), f32::from(samples[n + lag]));
        both += a * b;
        first += a * a;
        second += b * b;
    }
    both / (first * second).sqrt()
}

#[cfg(test)]
mod tests {
    use super::super::signal::{frequency_hz, sine};
    use super::*;

    /// Runs a sine through at a tempo; what came out, and how many samples it used.
    fn run(tempo: Tempo, hz: f64, frames: usize) -> (Vec<i16>, usize) {
        let mut stretch = Stretch::new();
        let (mut out, mut index) = (Vec::new(), 0);
        for _ in 0..frames {
            while stretch.len() < Stretch::needs(tempo) {
                stretch.push(&sine(hz, 8000.0, index));
                index += 1;
            }
            out.extend(stretch.pull(tempo).0);
        }
        (out, index * FRAME - stretch.len())
    }

    fn steepest(samples: &[i16]) -> i32 {
        samples.windows(2).map(|w| (i32::from(w[1]) - i32::from(w[0])).abs()).max().unwrap()
    }

    #[test]
    fn faster_is_faster_at_the_same_pitch_and_does_not_click() {
        for (part, hz) in [(0.05, 130.0), (0.1, 220.0), (0.1, 700.0), (0.5, 180.0)] {
            let (out, used) = run(Tempo::Faster(part), hz, 200);
            let faster = used as f32 / out.len() as f32 - 1.0;
            assert!((faster - part).abs() < part * 0.2 + 0.005, "{hz} Hz: {faster} for {part}");
            assert!((frequency_hz(&out) - hz).abs() < hz * 0.01 + 0.5, "{hz} Hz became {}", frequency_hz(&out));
            let slope = steepest(&sine(hz, 8000.0, 0));
            assert!(steepest(&out) <= slope + slope / 5 + 60, "it clicks at {hz} Hz: {} for {slope}", steepest(&out));
        }
    }

    #[test]
    fn one_period_more_is_slower_at_the_same_pitch_and_does_not_click() {
        let (out, used) = run(Tempo::OnePeriodMore, 200.0, 100);
        assert!(used < out.len() * 95 / 100, "{used} of {}", out.len());
        assert!((frequency_hz(&out) - 200.0).abs() < 2.0);
        let slope = steepest(&sine(200.0, 8000.0, 0));
        assert!(steepest(&out) <= slope + slope / 5 + 60, "{} for {slope}", steepest(&out));
    }

    #[test]
    fn even_changes_nothing() {
        let (out, used) = run(Tempo::Even, 440.0, 50);
        assert_eq!(used, out.len());
        assert_eq!(out, (0..50).flat_map(|n| sine(440.0, 8000.0, n)).collect::<Vec<_>>());
    }

    #[test]
    fn pauses_are_shortened_most_of_all() {
        let mut stretch = Stretch::new();
        let mut used = 0;
        for _ in 0..50 {
            while stretch.len() < Stretch::needs(Tempo::Faster(0.05)) {
                stretch.push(&[5; FRAME]);
                used += FRAME;
            }
            stretch.pull(Tempo::Faster(0.05));
        }
        assert!(used - stretch.len() > 50 * FRAME * 17 / 10);
    }
}
