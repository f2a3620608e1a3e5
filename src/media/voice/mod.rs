//! Voice as samples: coded and decoded, buffered against jitter, measured and mixed.
//!
//! This room decides how a lost or late packet sounds and when a buffer is too full. It never
//! decides who is heard, never touches a network or a sound device, and reads no clock: whoever
//! pulls a frame every 20 ms sets the pace.
//!
//! **Invariant:** a buffer is bounded. It drops, it never drifts.
//!
//! **Invariant:** nothing here allocates, locks or logs once it is made: it runs on audio threads.

pub mod codec;
pub mod level;
pub mod mix;
pub mod playout;
mod store;
mod stretch;

/// Samples a second.
pub const RATE: u32 = 48_000;
/// Samples a frame: 20 ms.
pub const FRAME: usize = 960;

/// One frame of mono sound.
pub type Frame = [i16; FRAME];

/// A frame of silence.
pub const SILENCE: Frame = [0; FRAME];

/// What can go wrong with voice.
#[derive(Debug, thiserror::Error)]
pub enum VoiceError {
    /// The codec cannot be set up.
    #[error("the opus codec cannot be set up: {0}; check the complexity (0 to 10) and free memory")]
    Setup(opus::Error),
    /// A frame cannot be encoded.
    #[error("a frame cannot be encoded: {0}; give it {MAX_PACKET_BYTES} bytes of room", MAX_PACKET_BYTES = codec::MAX_PACKET_BYTES)]
    Encode(opus::Error),
    /// A packet is no Opus.
    #[error("a packet cannot be decoded: {0}; conceal it and look at its sender")]
    Decode(opus::Error),
    /// A packet does not hold 20 ms.
    #[error("a packet holds {samples} samples, not {FRAME}; have its sender use 20 ms")]
    Length {
        /// How many it holds.
        samples: usize,
    },
}

#[cfg(test)]
pub(crate) mod signal {
    use super::{FRAME, Frame, RATE};

    /// Frame number `index` of a sine.
    pub fn sine(hz: f64, peak: f64, index: usize) -> Frame {
        std::array::from_fn(|n| {
            let seconds = (index * FRAME + n) as f64 / f64::from(RATE);
            ((seconds * hz * std::f64::consts::TAU).sin() * peak) as i16
        })
    }

    /// The frequency that a signal crosses zero with.
    pub fn frequency_hz(samples: &[i16]) -> f64 {
        let rises = samples.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
        rises as f64 * f64::from(RATE) / samples.len() as f64
    }

    /// How loud a tone is in a signal: its peak.
    pub fn amplitude(samples: &[i16], hz: f64) -> f64 {
        let step = hz * std::f64::consts::TAU / f64::from(RATE);
        let parts = samples.iter().enumerate().map(|(n, s)| (f64::from(*s), n as f64 * step));
        let (i, q) = parts.fold((0.0, 0.0), |(i, q), (s, angle)| (i + s * angle.cos(), q + s * angle.sin()));
        2.0 * f64::hypot(i, q) / samples.len() as f64
    }
}
