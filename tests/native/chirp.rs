//! Chirps, and when they are found again in what came out: delays to a tenth of a millisecond, whatever a codec does to the
//! phase of single tones.

use crosspatch::base::clock::mono_now;
use crosspatch::media::voice::{FRAME, Frame};
use std::f64::consts::{PI, TAU};

const RATE: f64 = 48_000.0;
/// How long one is.
const CHIRP: usize = 3840;
/// From one to the next; no multiple of a frame, so that each falls elsewhere between two.
const PERIOD: usize = 24_337;
/// Where the first begins.
const FIRST: usize = 4_800;
/// Samples that are averaged before they are compared.
const DECIMATION: usize = 4;
/// How alike a chirp and what is taken for it must be, of 1.
const ALIKE: f64 = 0.4;

/// Seconds of CLOCK_MONOTONIC.
pub fn now() -> f64 {
    mono_now().0 as f64 / 1e9
}

fn chirp() -> Vec<f64> {
    let sample = |n: usize| {
        let at = n as f64 / CHIRP as f64;
        let phase = (500.0 * at + 2000.0 * at * at / 2.0) * CHIRP as f64 / RATE;
        (phase * TAU).sin() * (PI * at).sin().powi(2) * 12_000.0
    };
    (0..CHIRP).map(sample).collect()
}

/// So many seconds of sound with a chirp every half of one, in whole frames.
pub fn chirps(seconds: u64) -> Vec<i16> {
    let mut samples = vec![0; seconds as usize * 50 * FRAME];
    let one = chirp();
    for (n, sample) in samples.iter_mut().enumerate().skip(FIRST) {
        let place = (n - FIRST) % PERIOD;
        *sample = one.get(place).map_or(0, |s| *s as i16);
    }
    samples
}

/// One of these frames.
pub fn frame(samples: &[i16], number: usize) -> Frame {
    std::array::from_fn(|n| samples[number * FRAME + n])
}

/// Frames of sound, each with the time of its first sample.
#[derive(Clone, Default)]
pub struct Track {
    samples: Vec<i16>,
    starts: Vec<f64>,
}

impl Track {
    /// Takes a frame in whose first sample was at a time, in seconds.
    pub fn push(&mut self, frame: &Frame, start: f64) {
        self.samples.extend_from_slice(frame);
        self.starts.push(start);
    }

    /// A reader that keeps up: none of its frames was there later than the earliest says, so a late look moves none.
    pub fn steady(mut self) -> Self {
        let frame_s = FRAME as f64 / RATE;
        let line = self.starts.iter().enumerate().map(|(n, start)| start - n as f64 * frame_s);
        let first = line.fold(f64::INFINITY, f64::min);
        self.starts = (0..self.starts.len()).map(|n| first + n as f64 * frame_s).collect();
        self
    }

    fn time_of(&self, sample: usize) -> Option<f64> {
        Some(self.starts.get(sample / FRAME)? + (sample % FRAME) as f64 / RATE)
    }

    /// When each chirp of [`chirps`] that was taken in from the beginning is, after so many seconds.
    pub fn known(&self, skip_s: f64) -> Vec<f64> {
        let places = (FIRST..).step_by(PERIOD).take_while(|place| place + CHIRP <= self.samples.len());
        places.filter(|place| *place as f64 / RATE >= skip_s).filter_map(|place| self.time_of(place)).collect()
    }

    /// The delay from each of these times to the chirp that began within the next `within` seconds.
    pub fn delays(&self, from: &[f64], within: f64) -> Vec<f64> {
        let average = |samples: &[f64]| samples.chunks_exact(DECIMATION).map(|c| c.iter().sum::<f64>()).collect();
        let own: Vec<f64> = self.samples.iter().map(|s| f64::from(*s)).collect();
        let (own, wanted): (Vec<f64>, Vec<f64>) = (average(&own), average(&chirp()));
        let power = |part: &[f64]| part.iter().map(|s| s * s).sum::<f64>().sqrt();
        let wanted_power = power(&wanted);
        let likeness = |place: usize| {
            let part = &own[place..place + wanted.len()];
            let both: f64 = part.iter().zip(&wanted).map(|(a, b)| a * b).sum();
            both / (wanted_power * power(part)).max(1.0)
        };
        let delay = |time: &f64| {
            let first = self.starts.partition_point(|start| start + FRAME as f64 / RATE < *time) * FRAME / DECIMATION;
            let last = first + (within * RATE) as usize / DECIMATION;
            let places = first..last.min(own.len().saturating_sub(wanted.len()));
            let (place, alike) = places.map(|place| (place, likeness(place))).max_by(|a, b| a.1.total_cmp(&b.1))?;
            Some(self.time_of(place * DECIMATION)? - time).filter(|_| alike >= ALIKE)
        };
        from.iter().filter_map(delay).collect()
    }
}

/// A percentile of seconds, in ms.
pub fn millis_at(delays: &mut [f64], q: f64) -> f64 {
    delays.sort_by(f64::total_cmp);
    let place = (delays.len().saturating_sub(1) as f64 * q).round() as usize;
    delays.get(place).map_or(f64::NAN, |s| s * 1000.0)
}
