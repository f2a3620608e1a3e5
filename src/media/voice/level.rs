//! How loud a frame is. Thresholds (VOX, the level test) are judged elsewhere.

/// What silence reads as, and the least that 16 bits can tell.
pub const FLOOR_DBFS: f32 = -96.0;

/// Full scale: a square wave of it has both levels at 0 dBFS, a sine of it an RMS of −3 dBFS.
const FULL_SCALE: f64 = 32_768.0;

/// The level of some samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// The largest sample.
    pub peak_dbfs: f32,
    /// The average power.
    pub rms_dbfs: f32,
    /// How many samples are at full scale.
    pub clipped_samples: usize,
}

impl Level {
    /// What nothing sounds like.
    pub const SILENCE: Level = Level { peak_dbfs: FLOOR_DBFS, rms_dbfs: FLOOR_DBFS, clipped_samples: 0 };

    /// Measures samples; none are silence.
    #[must_use]
    pub fn of(samples: &[i16]) -> Self {
        let mut meter = Meter::default();
        meter.add(samples);
        meter.level()
    }
}

/// Measures over several frames.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    samples: u64,
    peak: u16,
    power: f64,
    clipped_samples: usize,
}

impl Meter {
    /// Takes samples in.
    pub fn add(&mut self, samples: &[i16]) {
        self.samples += samples.len() as u64;
        for &sample in samples {
            self.peak = self.peak.max(sample.unsigned_abs());
            self.power += f64::from(sample) * f64::from(sample);
            self.clipped_samples += usize::from(sample == i16::MAX || sample == i16::MIN);
        }
    }

    /// The level since the start or the last [`Meter::take`].
    #[must_use]
    pub fn level(&self) -> Level {
        let mean = self.power / self.samples.max(1) as f64;
        Level {
            peak_dbfs: dbfs(f64::from(self.peak)),
            rms_dbfs: dbfs(mean.sqrt()),
            clipped_samples: self.clipped_samples,
        }
    }

    /// The level so far; starts anew.
    pub fn take(&mut self) -> Level {
        let level = self.level();
        *self = Self::default();
        level
    }
}

fn dbfs(amplitude: f64) -> f32 {
    // Silence gives minus infinity, which the floor catches.
    let level_dbfs = 20.0 * (amplitude / FULL_SCALE).log10();
    (level_dbfs as f32).max(FLOOR_DBFS)
}

#[cfg(test)]
mod tests {
    use super::super::{SILENCE, signal::sine};
    use super::*;

    #[test]
    fn silence_is_at_the_floor() {
        assert_eq!(Level::of(&SILENCE), Level::SILENCE);
        assert_eq!(Level::of(&[]), Level::SILENCE);
    }

    #[test]
    fn a_sine_averages_three_decibels_under_its_peak() {
        let level = Level::of(&sine(1000.0, 3276.8, 0));
        assert!((level.peak_dbfs - -20.0).abs() < 0.05, "{level:?}");
        assert!((level.rms_dbfs - -23.01).abs() < 0.05, "{level:?}");
        assert_eq!(level.clipped_samples, 0);
    }

    #[test]
    fn full_scale_is_zero_and_clips() {
        assert_eq!(Level::of(&[i16::MIN; 4]), Level { peak_dbfs: 0.0, rms_dbfs: 0.0, clipped_samples: 4 });
    }

    #[test]
    fn taking_the_level_starts_anew() {
        let mut meter = Meter::default();
        meter.add(&sine(1000.0, 10_000.0, 0));
        meter.add(&SILENCE);
        let level = meter.take();
        assert!((level.rms_dbfs - (-10.31 - 6.02)).abs() < 0.05, "{level:?}");
        assert_eq!(meter.take(), Level::SILENCE);
    }
}
