//! What a port's sound goes through on its way in and on its way out, in order.

use super::filter::Cascade;
use super::limiter::Limiter;
use crate::media::voice::{Frame, RATE};

/// Peaks stay below this.
const CEILING_DBFS: f64 = -6.0;
/// CTCSS is below this, speech above.
const HIGH_PASS_HZ: f64 = 300.0;
const FULL_SCALE: f64 = 32_768.0;

/// What is done to the sound; nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Treatment {
    /// Takes out what is below 300 Hz.
    pub high_pass: bool,
    /// Lowers treble on the way in, raises it on the way out.
    pub emphasis: bool,
    /// ±30 dB.
    pub gain_db: f32,
    /// Keeps peaks at −6 dBFS.
    pub limiter: bool,
}

/// One way, in or out.
#[derive(Clone, Debug)]
pub struct Chain {
    emphasis: Option<Cascade<1>>,
    high_pass: Option<Cascade<5>>,
    gain: f64,
    limiter: Option<Limiter>,
}

impl Chain {
    /// From the radio.
    #[must_use]
    pub fn receive(treatment: Treatment) -> Self {
        Self::new(treatment, Cascade::de_emphasis)
    }

    /// To the radio.
    #[must_use]
    pub fn transmit(treatment: Treatment) -> Self {
        Self::new(treatment, Cascade::pre_emphasis)
    }

    fn new(treatment: Treatment, emphasis: fn(f64) -> Cascade<1>) -> Self {
        let rate = f64::from(RATE);
        Chain {
            emphasis: treatment.emphasis.then(|| emphasis(rate)),
            high_pass: treatment.high_pass.then(|| Cascade::high_pass(HIGH_PASS_HZ, rate)),
            gain: 10f64.powf(f64::from(treatment.gain_db) / 20.0),
            limiter: treatment.limiter.then(|| Limiter::new(FULL_SCALE * 10f64.powf(CEILING_DBFS / 20.0))),
        }
    }

    /// Changes a frame; returns its loudness (RMS) before the limiter, of full scale 1.
    pub fn run(&mut self, frame: &mut Frame) -> f64 {
        let mut power = 0.0;
        for sample in frame.iter_mut() {
            let mut x = f64::from(*sample);
            if let Some(filter) = &mut self.emphasis {
                x = filter.run(x);
            }
            if let Some(filter) = &mut self.high_pass {
                x = filter.run(x);
            }
            x *= self.gain;
            power += x * x;
            if let Some(limiter) = &mut self.limiter {
                x = limiter.run(x);
            }
            *sample = x.round() as i16; // `as` saturates
        }
        (power / frame.len() as f64).sqrt() / FULL_SCALE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::voice::FRAME;
    use crate::media::voice::level::{Level, Meter};

    fn through(chain: &mut Chain, hz: f64, peak: f64) -> (Level, f64) {
        let (mut meter, mut loudness) = (Meter::default(), 0.0);
        for index in 0..50 {
            let mut frame = crate::media::voice::signal::sine(hz, peak, index);
            loudness = chain.run(&mut frame);
            if index >= 25 {
                meter.add(&frame);
            }
        }
        (meter.level(), loudness)
    }

    #[test]
    fn without_treatment_sound_is_as_it_was() {
        let frame = crate::media::voice::signal::sine(1000.0, 20_000.0, 0);
        let mut out = frame;
        Chain::receive(Treatment::default()).run(&mut out);
        assert_eq!(out, frame);
    }

    #[test]
    fn a_tone_below_speech_goes_and_speech_is_raised_but_not_above_the_ceiling() {
        let all = Treatment { high_pass: true, emphasis: false, gain_db: 20.0, limiter: true };
        let mut chain = Chain::receive(all);
        assert!(through(&mut chain, 100.0, 3000.0).0.peak_dbfs < -40.0);
        let (soft, loudness) = through(&mut chain, 1000.0, 327.68);
        assert!((soft.peak_dbfs - -20.0).abs() < 0.7, "{soft:?}");
        assert!((20.0 * loudness.log10() - -23.0).abs() < 0.7, "{loudness}");
        let (loud, loudness) = through(&mut chain, 1000.0, 10_000.0);
        assert!((-6.5..=-5.99).contains(&loud.peak_dbfs), "{loud:?}");
        assert!(loudness > 1.0, "VOX judges what comes before the limiter: {loudness}");
    }

    #[test]
    fn emphasis_lowers_treble_on_the_way_in_and_raises_it_on_the_way_out() {
        let emphasis = Treatment { emphasis: true, ..Treatment::default() };
        let octave_db = |mut chain: Chain| {
            through(&mut chain, 2000.0, 3000.0).0.rms_dbfs - through(&mut chain, 1000.0, 3000.0).0.rms_dbfs
        };
        let (lowered, raised) = (octave_db(Chain::receive(emphasis)), octave_db(Chain::transmit(emphasis)));
        assert!((-6.2..-5.4).contains(&lowered) && (5.0..6.2).contains(&raised), "{lowered} dB in, {raised} dB out");
    }

    #[test]
    fn gain_without_a_limiter_saturates_and_does_not_wrap() {
        let mut frame = [-20_000; FRAME];
        Chain::transmit(Treatment { gain_db: 30.0, ..Treatment::default() }).run(&mut frame);
        assert_eq!(frame, [i16::MIN; FRAME]);
    }
}
