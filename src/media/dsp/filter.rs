//! Filters of second order, and cascades of them.

use std::f64::consts::{PI, TAU};

/// The ripple of our Chebyshev filters in what they let through.
const RIPPLE_DB: f64 = 0.5;
/// Land mobile radio lowers or raises by 6 dB an octave from here on.
const EMPHASIS_FROM_HZ: f64 = 300.0;
/// Pre-emphasis ends here, lest it raise hiss.
const EMPHASIS_TO_HZ: f64 = 5_000.0;
/// What emphasis leaves as loud as it is.
const EMPHASIS_UNITY_HZ: f64 = 1_000.0;

/// A filter of second order, in the transposed direct form II.
#[derive(Clone, Copy, Debug)]
struct Biquad {
    b: [f64; 3],
    a: [f64; 2],
    state: [f64; 2],
}

impl Biquad {
    /// From polynomials in z⁻¹.
    fn new(b: [f64; 3], a: [f64; 3]) -> Self {
        Biquad { b: b.map(|b| b / a[0]), a: [a[1] / a[0], a[2] / a[0]], state: [0.0; 2] }
    }

    fn run(&mut self, x: f64) -> f64 {
        let y = self.b[0] * x + self.state[0];
        self.state[0] = self.b[1] * x - self.a[0] * y + self.state[1];
        self.state[1] = self.b[2] * x - self.a[1] * y;
        y
    }

    fn gain_at(&self, hz: f64, rate: f64) -> f64 {
        let w = TAU * hz / rate;
        let magnitude = |c: [f64; 3]| {
            let re = c[0] + c[1] * w.cos() + c[2] * (2.0 * w).cos();
            let im = c[1] * w.sin() + c[2] * (2.0 * w).sin();
            re.hypot(im)
        };
        magnitude(self.b) / magnitude([1.0, self.a[0], self.a[1]])
    }
}

/// Filters one after the other; `N` of second order.
#[derive(Clone, Debug)]
pub struct Cascade<const N: usize>([Biquad; N]);

impl<const N: usize> Cascade<N> {
    /// Lets through what is above `hz`: a Chebyshev filter of order `2 N`.
    #[must_use]
    pub fn high_pass(hz: f64, rate: f64) -> Self {
        let k = 1.0 / (PI * hz / rate).tan();
        Cascade(Self::prototype().map(|(p, q)| {
            let (k2, k1) = (q * k * k, p * k);
            Biquad::new([k2, -2.0 * k2, k2], [k2 + k1 + 1.0, 2.0 - 2.0 * k2, k2 - k1 + 1.0])
        }))
    }

    /// Lets through what is below `hz`: a Chebyshev filter of order `2 N`.
    #[must_use]
    pub fn low_pass(hz: f64, rate: f64) -> Self {
        let k = 1.0 / (PI * hz / rate).tan();
        Cascade(Self::prototype().map(|(p, q)| {
            let (k2, k1) = (k * k, p * k);
            Biquad::new([q, 2.0 * q, q], [k2 + k1 + q, 2.0 * q - 2.0 * k2, k2 - k1 + q])
        }))
    }

    /// The sections `q / (s² + p s + q)` of the Chebyshev low-pass at one radian a second.
    fn prototype() -> [(f64, f64); N] {
        let order = 2.0 * N as f64;
        let ripple = (10f64.powf(RIPPLE_DB / 10.0) - 1.0).sqrt();
        let a = (1.0 / ripple).asinh() / order;
        std::array::from_fn(|k| {
            let angle = PI * (2.0 * k as f64 + 1.0) / (2.0 * order);
            let (re, im) = (a.sinh() * angle.sin(), a.cosh() * angle.cos());
            (2.0 * re, re * re + im * im)
        })
    }

    /// The next sample.
    pub fn run(&mut self, sample: f64) -> f64 {
        self.0.iter_mut().fold(sample, |x, section| section.run(x))
    }

    /// How much louder a tone is afterwards, as a factor.
    #[must_use]
    pub fn gain_at(&self, hz: f64, rate: f64) -> f64 {
        self.0.iter().map(|section| section.gain_at(hz, rate)).product()
    }
}

impl Cascade<1> {
    /// Lowers treble by 6 dB an octave: undoes what the sender's radio did.
    #[must_use]
    pub fn de_emphasis(rate: f64) -> Self {
        let k = 1.0 / (PI * EMPHASIS_FROM_HZ / rate).tan();
        Self::normalised([1.0, 1.0, 0.0], [1.0 + k, 1.0 - k, 0.0], rate)
    }

    /// Raises treble by 6 dB an octave: what a radio does to its microphone.
    #[must_use]
    pub fn pre_emphasis(rate: f64) -> Self {
        let from = 1.0 / (PI * EMPHASIS_FROM_HZ / rate).tan();
        let to = 1.0 / (PI * EMPHASIS_TO_HZ / rate).tan();
        Self::normalised([1.0 + from, 1.0 - from, 0.0], [1.0 + to, 1.0 - to, 0.0], rate)
    }

    fn normalised(b: [f64; 3], a: [f64; 3], rate: f64) -> Self {
        let mut filter = Biquad::new(b, a);
        let gain = filter.gain_at(EMPHASIS_UNITY_HZ, rate);
        filter.b = filter.b.map(|b| b / gain);
        Cascade([filter])
    }
}

#[cfg(test)]
mod tests {
    use super::super::ctcss::TONES_HZ;
    use super::super::signal::{rms, sine};
    use super::*;

    const RATE: f64 = 48_000.0;

    fn gain_db<const N: usize>(filter: &Cascade<N>, hz: f64) -> f64 {
        let mut filter = filter.clone();
        let tone = sine(hz, 0.5, 1.0);
        let out: Vec<_> = tone.iter().map(|s| filter.run(*s)).collect();
        20.0 * (rms(&out) / rms(&tone)).log10()
    }

    #[test]
    fn the_high_pass_takes_every_ctcss_tone_out_and_leaves_speech() {
        let filter = Cascade::<5>::high_pass(300.0, RATE);
        for hz in TONES_HZ {
            let least = if hz > 240.0 { -30.0 } else { -40.0 };
            let gain = gain_db(&filter, f64::from(hz));
            assert!(gain < least, "{hz} Hz: {gain} dB");
        }
        for hz in [310.0, 400.0, 1000.0, 3000.0, 8000.0] {
            let gain = gain_db(&filter, hz);
            assert!((-0.7..0.7).contains(&gain), "{hz} Hz: {gain} dB");
        }
    }

    #[test]
    fn the_low_pass_is_the_other_way_round() {
        let filter = Cascade::<3>::low_pass(270.0, RATE);
        assert!(gain_db(&filter, 100.0).abs() < 0.7);
        assert!(gain_db(&filter, 400.0) < -30.0);
        assert!(gain_db(&filter, 1000.0) < -60.0);
    }

    #[test]
    fn the_gain_that_is_said_is_the_gain_that_is() {
        let filter = Cascade::<5>::high_pass(300.0, RATE);
        for hz in [200.0, 300.0, 500.0] {
            let said = 20.0 * filter.gain_at(hz, RATE).log10();
            assert!((said - gain_db(&filter, hz)).abs() < 0.3, "{hz} Hz: {said}");
        }
    }

    #[test]
    fn emphasis_goes_by_six_decibels_an_octave_and_one_undoes_the_other() {
        let (pre, de) = (Cascade::pre_emphasis(RATE), Cascade::de_emphasis(RATE));
        assert!(gain_db(&pre, 1000.0).abs() < 0.05 && gain_db(&de, 1000.0).abs() < 0.05);
        let octave = gain_db(&de, 2000.0) - gain_db(&de, 1000.0);
        assert!((-6.2..-5.4).contains(&octave), "{octave} dB");
        let octave = gain_db(&pre, 2000.0) - gain_db(&pre, 1000.0);
        assert!((5.0..6.2).contains(&octave), "{octave} dB");
        for hz in [400.0, 700.0, 1500.0, 2500.0] {
            let both = gain_db(&pre, hz) + gain_db(&de, hz);
            assert!(both.abs() < 1.0, "{hz} Hz: {both} dB");
        }
    }
}
