//! CTCSS: is this tone below the speech there, and is it this one and not its neighbour?
//!
//! Standard tones are as near as 2.3 Hz, and 150 ms of sound cannot tell such neighbours by their loudness. Their phase
//! can: the band below speech is turned by the wanted frequency, and what is left turns by the difference.

use super::filter::Cascade;
use crate::media::voice::{FRAME, Frame, RATE};
use std::f64::consts::TAU;
use std::time::Duration;

/// The 50 standard tones.
pub const TONES_HZ: [f32; 50] = [
    67.0, 69.3, 71.9, 74.4, 77.0, 79.7, 82.5, 85.4, 88.5, 91.5, 94.8, 97.4, 100.0, 103.5, 107.2, 110.9, 114.8, 118.8,
    123.0, 127.3, 131.8, 136.5, 141.3, 146.2, 151.4, 156.7, 159.8, 162.2, 165.5, 167.9, 171.3, 173.8, 177.3, 179.9,
    183.5, 186.2, 189.9, 192.8, 196.6, 199.5, 203.5, 206.5, 210.7, 218.1, 225.7, 229.1, 233.6, 241.8, 250.3, 254.1,
];

/// One sample of many is looked at: the band ends far below.
const DECIMATION: usize = 48;
/// Samples a block of 20 ms that are looked at.
const BLOCK: usize = FRAME / DECIMATION;
/// Blocks that the longest detect time has.
const MOST_BLOCKS: usize = 22;
/// Full scale.
const FULL_SCALE: f64 = 32_768.0;
/// A tone that is softer is none.
const SOFTEST_DBFS: f64 = -60.0;
/// So is one that is this much softer than all that is heard: what a sender's filter leaves of a voice's pitch.
const SOFTEST_SHARE: f64 = 0.02;
/// How far off a tone may be, as a part of the way to its neighbour.
const TOLERANCE: f64 = 0.45;
/// What has to be true to hear it, and what to hear it on.
const OPEN: Demands = Demands { steadiness: 0.96, share: 0.9, tolerance: 1.0 };
const HOLD: Demands = Demands { steadiness: 0.7, share: 0.4, tolerance: 1.2 };
/// Blocks in a row without the tone before it is gone: a fading radio drops some.
const PATIENCE_BLOCKS: u32 = 2;

#[derive(Clone, Copy)]
struct Demands {
    /// How much of a block's tone follows that of the block before, of 1.
    steadiness: f64,
    /// How much of the band the tone is, of 1.
    share: f64,
    tolerance: f64,
}

/// True if it is one of the 50.
#[must_use]
pub fn is_standard(hz: f32) -> bool {
    TONES_HZ.contains(&hz)
}

/// The standard tone that is nearest.
#[must_use]
pub fn nearest(hz: f32) -> f32 {
    let nearer = |a: &f32, b: &f32| (a - hz).abs().total_cmp(&(b - hz).abs());
    TONES_HZ.into_iter().min_by(nearer).expect("there are 50")
}

/// 20 ms of sound.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    /// What it holds of the wanted tone.
    re: f64,
    im: f64,
    /// The energy of the band below speech, at the decimated rate.
    band: f64,
    /// The same of everything.
    all: f64,
}

/// Finds one tone.
#[derive(Clone, Debug)]
pub struct Ctcss {
    hz: f64,
    tolerance_hz: f64,
    band: Cascade<3>,
    hum: Cascade<2>,
    /// Where the wanted tone is in its turn.
    turns: f64,
    blocks: [Block; MOST_BLOCKS],
    used_blocks: usize,
    heard: bool,
    missed_blocks: u32,
}

impl Ctcss {
    /// A detector that looks at the last `detect` (150–450 ms) of sound.
    #[must_use]
    pub fn new(hz: f32, detect: Duration) -> Self {
        let gap = |other: &f32| f64::from((other - hz).abs());
        let neighbour = TONES_HZ.iter().map(gap).filter(|gap| *gap > 0.5).fold(f64::INFINITY, f64::min);
        let rate = f64::from(RATE);
        Ctcss {
            hz: f64::from(hz),
            tolerance_hz: neighbour * TOLERANCE,
            band: Cascade::low_pass(270.0, rate),
            hum: Cascade::high_pass(61.0, rate),
            turns: 0.0,
            blocks: [Block::default(); MOST_BLOCKS],
            used_blocks: (detect.as_millis() as usize / 20).clamp(7, MOST_BLOCKS),
            heard: false,
            missed_blocks: 0,
        }
    }

    /// Takes 20 ms in; true while the tone is there.
    pub fn hear(&mut self, frame: &Frame) -> bool {
        let mut block = Block::default();
        for (n, sample) in frame.iter().enumerate() {
            let sample = f64::from(*sample) / FULL_SCALE;
            block.all += sample * sample / DECIMATION as f64;
            let x = self.band.run(self.hum.run(sample));
            if n % DECIMATION == 0 {
                let (sin, cos) = (self.turns * TAU).sin_cos();
                block.re += x * cos;
                block.im -= x * sin;
                block.band += x * x;
                self.turns = (self.turns + self.hz * DECIMATION as f64 / f64::from(RATE)).fract();
            }
        }
        self.blocks.rotate_left(1);
        self.blocks[MOST_BLOCKS - 1] = block;
        let there = self.is_there(if self.heard { HOLD } else { OPEN });
        self.missed_blocks = if there { 0 } else { self.missed_blocks + 1 };
        self.heard = there || (self.heard && self.missed_blocks <= PATIENCE_BLOCKS);
        self.heard
    }

    fn is_there(&self, demands: Demands) -> bool {
        let blocks = &self.blocks[MOST_BLOCKS - self.used_blocks..];
        let count = blocks.len() as f64;
        let (own, band, all) = blocks
            .iter()
            .fold((0.0, 0.0, 0.0), |(own, band, all), b| (own + b.re * b.re + b.im * b.im, band + b.band, all + b.all));
        // How far it turns from block to block, then, not to be mistaken by a whole turn, over half of the window.
        let turn = |apart: usize| {
            let pairs = blocks.iter().zip(&blocks[apart..]);
            let (re, im) = pairs
                .fold((0.0, 0.0), |(re, im), (a, b)| (re + b.re * a.re + b.im * a.im, im + b.im * a.re - b.re * a.im));
            im.atan2(re) / TAU
        };
        let apart = blocks.len() / 2;
        let coarse = turn(1) * apart as f64;
        let fine = turn(apart);
        let turns_a_block = (fine + (coarse - fine).round()) / apart as f64;
        let off_hz = turns_a_block * 50.0;
        // Turned back, all blocks of a steady tone point the same way.
        let (re, im) = blocks.iter().enumerate().fold((0.0, 0.0), |(re, im), (k, b)| {
            let (sin, cos) = (turns_a_block * k as f64 * TAU).sin_cos();
            (re + b.re * cos + b.im * sin, im + b.im * cos - b.re * sin)
        });
        let together = re * re + im * im;
        // A tone of amplitude A gives A/2 a sample, and a power of A²/2.
        let tone = together * 2.0 / (count * BLOCK as f64);
        let tone_dbfs = 10.0 * (tone / (count * BLOCK as f64)).log10();
        off_hz.abs() <= self.tolerance_hz * demands.tolerance
            && together >= demands.steadiness * count * own
            && tone >= demands.share * band
            && tone >= SOFTEST_SHARE * all
            && tone_dbfs >= SOFTEST_DBFS
    }
}

#[cfg(test)]
mod tests {
    use super::super::signal::{noise, sine};
    use super::*;

    /// Feeds samples within ±1; how many ms of them it took to hear the tone, and whether it is heard at the end.
    fn detect(detector: &mut Ctcss, samples: &[f64]) -> (Option<u64>, bool) {
        let (mut first, mut heard) = (None, false);
        for (n, chunk) in samples.chunks_exact(FRAME).enumerate() {
            heard = detector.hear(&std::array::from_fn(|i| (chunk[i] * 32_000.0) as i16));
            if heard && first.is_none() {
                first = Some((n as u64 + 1) * 20);
            }
        }
        (first, heard)
    }

    fn detector(hz: f32, ms: u64) -> Ctcss {
        Ctcss::new(hz, Duration::from_millis(ms))
    }

    #[test]
    fn each_standard_tone_is_heard_in_its_time_under_speech_like_noise() {
        // As on the air: speech has nothing below 300 Hz, and is louder than the tone.
        let mut above = Cascade::<5>::high_pass(300.0, 48_000.0);
        let speech: Vec<_> = noise(48_000).iter().map(|s| above.run(*s) * 0.3).collect();
        for ms in [150, 250, 450] {
            for hz in TONES_HZ {
                let mut both = sine(f64::from(hz), 0.08, 0.98);
                both.iter_mut().zip(&speech).for_each(|(tone, speech)| *tone += speech);
                let (first, heard) = detect(&mut detector(hz, ms), &both);
                let first = first.unwrap_or_else(|| panic!("{hz} Hz is not heard within a second"));
                assert!(heard && first <= ms + 60, "{hz} Hz after {first} ms of {ms}");
            }
        }
    }

    #[test]
    fn a_tone_is_not_taken_for_its_neighbour() {
        for ms in [150, 250, 450] {
            for pair in TONES_HZ.windows(2) {
                for (wanted, there) in [(pair[0], pair[1]), (pair[1], pair[0])] {
                    let (first, _) = detect(&mut detector(wanted, ms), &sine(f64::from(there), 0.1, 2.0));
                    assert_eq!(first, None, "{wanted} Hz is heard in {there} Hz, with {ms} ms");
                }
            }
        }
    }

    #[test]
    fn a_tone_that_is_off_by_half_a_percent_is_heard() {
        for hz in TONES_HZ {
            for off in [0.995, 1.005] {
                let (first, _) = detect(&mut detector(hz, 250), &sine(f64::from(hz) * off, 0.1, 1.0));
                assert!(first.is_some(), "{hz} Hz, {off}");
            }
        }
    }

    /// A voice as it is on the air: pulses of a pitch that glides and trembles, with pauses, through the sender's filter.
    fn voice(from_hz: f64, to_hz: f64, seconds: f64) -> Vec<f64> {
        let samples = (seconds * 48_000.0) as usize;
        let mut phase = 0.0f64;
        let mut last = 0.0;
        let mut sender = Cascade::<2>::high_pass(300.0, 48_000.0);
        (0..samples)
            .map(|n| {
                let seconds = n as f64 / 48_000.0;
                let at = 1.0 - (seconds % 4.0 / 2.0 - 1.0).abs(); // up and down in four seconds
                let hz = from_hz + (to_hz - from_hz) * at + 4.0 * (seconds * 3.1 * TAU).sin();
                phase = (phase + hz / 48_000.0).fract();
                let loud = if (seconds * 3.0).fract() < 0.7 { 0.5 } else { 0.0 };
                last = last * 0.9 + (phase - 0.5) * loud;
                sender.run(last)
            })
            .collect()
    }

    #[test]
    fn speech_and_noise_are_no_tone() {
        let sounds = [voice(90.0, 140.0, 10.0), voice(220.0, 160.0, 10.0), voice(110.0, 100.0, 10.0), noise(480_000)];
        for (n, sound) in sounds.iter().enumerate() {
            for hz in TONES_HZ {
                let (first, _) = detect(&mut detector(hz, 250), sound);
                assert_eq!(first, None, "{hz} Hz is heard in sound {n}");
            }
        }
        let (first, _) = detect(&mut detector(100.0, 150), &vec![0.0; 48_000]);
        assert_eq!(first, None, "silence");
    }

    #[test]
    fn a_tone_that_ends_is_gone_soon() {
        let mut detector = detector(88.5, 250);
        let (_, heard) = detect(&mut detector, &sine(88.5, 0.1, 1.0));
        assert!(heard);
        let silence = vec![0.0; 48_000];
        let gone = silence.chunks_exact(FRAME).position(|_| !detector.hear(&[0; FRAME])).expect("it is gone") + 1;
        assert!(gone * 20 <= 240, "{} ms", gone * 20);
    }

    #[test]
    fn the_nearest_tone_is_told() {
        assert!(is_standard(88.5) && !is_standard(88.4));
        assert_eq!((TONES_HZ.len(), nearest(88.0), nearest(1000.0)), (50, 88.5, 254.1));
    }
}
