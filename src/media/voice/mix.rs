//! Several voices into one.

use super::{FRAME, Frame};

/// A gain, applied to samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gain(f32);

impl Gain {
    /// Leaves samples as they are.
    pub const UNITY: Gain = Gain(1.0);
    /// Leaves nothing.
    pub const MUTE: Gain = Gain(0.0);

    /// A gain in decibels.
    #[must_use]
    pub fn from_db(gain_db: f32) -> Self {
        Gain(10f32.powf(gain_db / 20.0))
    }

    /// Changes a frame; what does not fit saturates.
    pub fn apply(self, frame: &mut Frame) {
        if self != Self::UNITY {
            for sample in frame {
                // `as` saturates.
                *sample = (f32::from(*sample) * self.0).round() as i16;
            }
        }
    }
}

/// Adds frames up. Only the sum saturates, so the order of adding does not matter.
#[derive(Clone, Debug)]
pub struct Mixer {
    sum: [f32; FRAME],
}

impl Mixer {
    /// Silence so far.
    #[must_use]
    pub fn new() -> Self {
        Mixer { sum: [0.0; FRAME] }
    }

    /// Adds a frame.
    pub fn add(&mut self, frame: &Frame, gain: Gain) {
        for (sum, &sample) in self.sum.iter_mut().zip(frame) {
            *sum += f32::from(sample) * gain.0;
        }
    }

    /// The sum; starts anew.
    pub fn take(&mut self) -> Frame {
        self.take_through(|sample| sample)
    }

    /// The sum, each sample changed before it has to fit; starts anew.
    pub fn take_through(&mut self, mut change: impl FnMut(f64) -> f64) -> Frame {
        // `as` saturates.
        let frame = self.sum.map(|sum| change(f64::from(sum)).round() as i16);
        self.sum = [0.0; FRAME];
        frame
    }
}

impl Default for Mixer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::SILENCE;
    use super::*;

    #[test]
    fn frames_add_up_each_with_its_gain() {
        let mut mixer = Mixer::new();
        mixer.add(&[1000; FRAME], Gain::UNITY);
        mixer.add(&[1000; FRAME], Gain::from_db(-20.0));
        mixer.add(&[1000; FRAME], Gain::MUTE);
        assert_eq!(mixer.take(), [1100; FRAME]);
        assert_eq!(mixer.take(), SILENCE);
    }

    #[test]
    fn only_the_sum_saturates() {
        let mut mixer = Mixer::new();
        mixer.add(&[30_000; FRAME], Gain::UNITY);
        mixer.add(&[30_000; FRAME], Gain::UNITY);
        assert_eq!(mixer.clone().take(), [i16::MAX; FRAME]);
        mixer.add(&[-30_000; FRAME], Gain::UNITY);
        assert_eq!(mixer.take(), [30_000; FRAME]);
    }

    #[test]
    fn a_gain_saturates_instead_of_wrapping() {
        let mut frame = [-20_000; FRAME];
        Gain::from_db(6.0).apply(&mut frame);
        assert_eq!(frame, [i16::MIN; FRAME]);
    }
}
