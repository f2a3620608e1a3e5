//! Sound without a sound card, in real time: for hosts that have none, and for tests.

use super::{AudioError, Capture, FRAME, FRAME_DURATION, Playback, RATE};
use crate::base::{Mono, clock};
use std::f64::consts::TAU;
use std::sync::Arc;
use std::time::Duration;

/// A simulated card that is later than this has lost samples.
const CAPTURE_BUFFER: Duration = Duration::from_millis(160);
/// How much a simulated card takes before it lets its writer wait.
const PLAYBACK_BUFFER: Duration = Duration::from_millis(60);

/// What a simulated microphone hears.
#[derive(Clone, Debug, PartialEq)]
pub enum Sound {
    /// Nothing.
    Silence,
    /// A sine.
    Tone {
        /// Its frequency.
        hz: f32,
        /// Its peak, in dB under full scale.
        level_dbfs: f32,
    },
    /// These samples, over and over.
    Samples(Arc<[i16]>),
}

impl Sound {
    /// The frame that begins at a position counted in samples from the start.
    #[must_use]
    pub fn frame(&self, position: u64) -> [i16; FRAME] {
        match self {
            Sound::Silence => [0; FRAME],
            Sound::Tone { hz, level_dbfs } => tone(*hz, *level_dbfs, position),
            Sound::Samples(samples) if samples.is_empty() => [0; FRAME],
            Sound::Samples(samples) => {
                std::array::from_fn(|n| samples[((position + n as u64) % samples.len() as u64) as usize])
            }
        }
    }
}

/// A frame of a sine. It is turned on from sample to sample: asking for each sine would be most of what an idle
/// gateway with simulated sound does.
fn tone(hz: f32, level_dbfs: f32, position: u64) -> [i16; FRAME] {
    let cycles = position as f64 / f64::from(RATE) * f64::from(hz);
    let (sine, cosine) = (cycles.fract() * TAU).sin_cos();
    let (turn_sine, turn_cosine) = (f64::from(hz) / f64::from(RATE) * TAU).sin_cos();
    let peak = 32_767.0 * 10f64.powf(f64::from(level_dbfs.min(0.0)) / 20.0);
    let (mut sine, mut cosine) = (sine * peak, cosine * peak);
    std::array::from_fn(|_| {
        let sample = sine.round() as i16;
        (sine, cosine) = (sine * turn_cosine + cosine * turn_sine, cosine * turn_cosine - sine * turn_sine);
        sample
    })
}

/// A simulated microphone or receiver. It starts with the first read.
pub struct SimCapture {
    sound: Sound,
    position: u64,
    /// When the next frame is complete.
    next: Option<Mono>,
    xruns: u64,
}

impl SimCapture {
    /// One that hears this.
    #[must_use]
    pub fn new(sound: Sound) -> Self {
        SimCapture { sound, position: 0, next: None, xruns: 0 }
    }
}

impl Capture for SimCapture {
    fn read(&mut self, frame: &mut [i16; FRAME]) -> Result<(), AudioError> {
        let now = clock::mono_now();
        let mut next = self.next.unwrap_or(now + FRAME_DURATION);
        if now.since(next) > CAPTURE_BUFFER {
            self.xruns += 1;
            next = now;
        }
        sleep_until(next);
        self.next = Some(next + FRAME_DURATION);
        *frame = self.sound.frame(self.position);
        self.position += FRAME as u64;
        Ok(())
    }

    fn xruns(&self) -> u64 {
        self.xruns
    }
}

/// Told of each frame as it is written.
type Listener = Box<dyn FnMut(&[i16; FRAME]) + Send>;

/// A simulated loudspeaker or transmitter.
pub struct SimPlayback {
    listener: Option<Listener>,
    /// When the last sample written has sounded.
    end: Option<Mono>,
    xruns: u64,
}

impl SimPlayback {
    /// One that nobody hears.
    #[must_use]
    pub fn new() -> Self {
        SimPlayback { listener: None, end: None, xruns: 0 }
    }

    /// One that hands each frame over as it is written, before it would sound.
    #[must_use]
    pub fn with_listener(listener: impl FnMut(&[i16; FRAME]) + Send + 'static) -> Self {
        SimPlayback { listener: Some(Box::new(listener)), ..Self::new() }
    }
}

impl Default for SimPlayback {
    fn default() -> Self {
        Self::new()
    }
}

impl Playback for SimPlayback {
    fn write(&mut self, frame: &[i16; FRAME]) -> Result<(), AudioError> {
        let now = clock::mono_now();
        let mut end = self.end.unwrap_or(now);
        if end < now {
            self.xruns += 1;
            end = now;
        }
        end = end + FRAME_DURATION;
        self.end = Some(end);
        if let Some(listener) = &mut self.listener {
            listener(frame);
        }
        sleep_until(end - PLAYBACK_BUFFER);
        Ok(())
    }

    fn buffered(&self) -> Duration {
        self.end.map_or(Duration::ZERO, |end| end.since(clock::mono_now()))
    }

    fn flush(&mut self) {
        self.end = None;
    }

    fn xruns(&self) -> u64 {
        self.xruns
    }
}

/// Sleeps to a point in time, so that errors of single sleeps do not add up.
fn sleep_until(deadline: Mono) {
    std::thread::sleep(deadline.since(clock::mono_now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capture_is_paced_in_real_time_and_goes_on_where_it_was() {
        let samples: Arc<[i16]> = (0..1000).collect();
        let mut capture = SimCapture::new(Sound::Samples(samples));
        let mut frame = [0; FRAME];
        let start = clock::mono_now();
        for _ in 0..5 {
            capture.read(&mut frame).unwrap();
        }
        assert!(clock::mono_now().since(start) >= 5 * FRAME_DURATION);
        assert_eq!(frame[0], (4 * FRAME % 1000) as i16);
    }

    #[test]
    fn a_tone_has_its_level_and_frequency() {
        let tone = Sound::Tone { hz: 1000.0, level_dbfs: -20.0 };
        let frames = (0..u64::from(RATE)).step_by(FRAME).map(|position| tone.frame(position));
        let samples: Vec<i16> = frames.flatten().collect();
        assert_eq!(samples.iter().max(), Some(&3277));
        let rises = samples.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count();
        assert!((999..=1000).contains(&rises), "{rises}");
    }

    #[test]
    fn playback_holds_60_ms_and_then_sets_the_pace() {
        let (frame_sender, frame_receiver) = std::sync::mpsc::sync_channel(16);
        let mut playback = SimPlayback::with_listener(move |frame| frame_sender.send(frame[0]).unwrap());
        let start = clock::mono_now();
        for n in 0..6 {
            playback.write(&[n; FRAME]).unwrap();
            assert!(playback.buffered() <= PLAYBACK_BUFFER);
        }
        assert!(clock::mono_now().since(start) >= 3 * FRAME_DURATION);
        playback.flush();
        assert_eq!(playback.buffered(), Duration::ZERO);
        assert_eq!(frame_receiver.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    }
}
