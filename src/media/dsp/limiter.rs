//! A limiter: peaks stay below a level, whatever comes.

use crate::media::voice::RATE;

/// How long the gain takes to come back.
const RELEASE_S: f64 = 0.1;

/// Lowers the gain at once when a sample is too loud, and lets it come back slowly.
#[derive(Clone, Copy, Debug)]
pub struct Limiter {
    ceiling: f64,
    gain: f64,
    recovery: f64,
}

impl Limiter {
    /// No sample will be louder than `ceiling`, in the unit of the samples.
    #[must_use]
    pub fn new(ceiling: f64) -> Self {
        Limiter { ceiling, gain: 1.0, recovery: 1.0 - (-1.0 / (RELEASE_S * f64::from(RATE))).exp() }
    }

    /// The next sample.
    pub fn run(&mut self, sample: f64) -> f64 {
        self.gain += (1.0 - self.gain) * self.recovery;
        let loud = sample.abs();
        if loud * self.gain > self.ceiling {
            self.gain = self.ceiling / loud;
        }
        sample * self.gain
    }
}

#[cfg(test)]
mod tests {
    use super::super::signal::{rms, sine};
    use super::*;

    #[test]
    fn nothing_is_louder_than_the_ceiling_and_what_is_softer_stays_as_it_is() {
        let mut limiter = Limiter::new(0.5);
        let loud: Vec<_> = sine(1000.0, 3.0, 0.5).iter().map(|s| limiter.run(*s)).collect();
        assert!(loud.iter().all(|s| s.abs() <= 0.5 + 1e-9));
        let off_db = 20.0 * (rms(&loud) / rms(&sine(1000.0, 0.5, 0.5))).log10();
        assert!(off_db.abs() < 0.3, "limited and not clipped: {off_db} dB");
        let soft = sine(1000.0, 0.4, 1.0);
        let out: Vec<_> = soft.iter().map(|s| limiter.run(*s)).collect();
        let late = out.len() * 4 / 5;
        assert!((rms(&out[late..]) / rms(&soft[late..]) - 1.0).abs() < 0.01, "the gain came back");
    }
}
