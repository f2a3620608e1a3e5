//! What is done to a radio's sound between the card and the codec: filters, gain, limiter, tone detector; and the tones
//! that a station makes itself.
//!
//! This room decides what a signal sounds like afterwards, and whether a tone is in it. It never decides who is heard or
//! when a transmitter is keyed, holds no device, and reads no clock: it counts samples.
//!
//! **Invariant:** once made, nothing here allocates: all of it runs on audio threads.

pub mod chain;
pub mod ctcss;
pub mod filter;
pub mod limiter;
pub mod tones;

#[cfg(test)]
mod signal {
    use crate::media::voice::{FRAME, RATE};

    /// Seconds of a sine.
    pub fn sine(hz: f64, peak: f64, seconds: f64) -> Vec<f64> {
        let samples = (seconds * f64::from(RATE)) as usize / FRAME * FRAME;
        (0..samples).map(|n| (n as f64 / f64::from(RATE) * hz * std::f64::consts::TAU).sin() * peak).collect()
    }

    /// The root of the mean power, without the first fifth, in which filters settle.
    pub fn rms(samples: &[f64]) -> f64 {
        let settled = &samples[samples.len() / 5..];
        (settled.iter().map(|s| s * s).sum::<f64>() / settled.len() as f64).sqrt()
    }

    /// Noise that is the same every time, within ±1.
    pub fn noise(samples: usize) -> Vec<f64> {
        let mut state = 0x1234_5678_u32;
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            f64::from(state) / f64::from(u32::MAX) * 2.0 - 1.0
        };
        (0..samples).map(next).collect()
    }
}
