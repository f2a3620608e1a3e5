//! Sound through ALSA: cards, and everything that its plugins reach.
//!
//! Devices are opened so that they never block and are waited for with a limit, so that a card that
//! stops is an error and not a thread that hangs.

use super::{AudioError, Capture, FRAME, Playback, RATE, Way};
use alsa::pcm::{Access, Format, Frames, HwParams, PCM, State};
use alsa::{Direction, ValueOr};
use rustix::io::Errno;
use std::ffi::CString;
use std::time::Duration;

/// A card that moves nothing for so long has stopped. Cards answer within a period; a sound server
/// may take two seconds to wake a sink.
const STALL_LIMIT_MS: u32 = 3_000;
/// Frames of 20 ms that a playback buffer holds: enough for a busy CPU, short enough to talk.
const PLAYBACK_BUFFER_FRAMES: Frames = 3;
/// Frames of 20 ms that a capture buffer holds; it costs no delay while the reader keeps up.
const CAPTURE_BUFFER_FRAMES: Frames = 8;

/// Opens a device to hear from.
///
/// # Errors
/// If there is no such device, it is in use, or it has no 16 bit at 48 kHz.
pub fn open_capture(name: &str) -> Result<Box<dyn Capture>, AudioError> {
    Device::open(name, Way::Capture).map(|device| Box::new(device) as Box<dyn Capture>)
}

/// Opens a device to speak to.
///
/// # Errors
/// If there is no such device, it is in use, or it has no 16 bit at 48 kHz.
pub fn open_playback(name: &str) -> Result<Box<dyn Playback>, AudioError> {
    Device::open(name, Way::Playback).map(|device| Box::new(device) as Box<dyn Playback>)
}

struct Device {
    name: String,
    way: Way,
    pcm: PCM,
    channels: usize,
    /// How many samples its buffer holds.
    buffer_samples: Frames,
    /// One frame as the card has it: all channels of a sample side by side.
    interleaved: Vec<i16>,
    xruns: u64,
}

impl Device {
    fn open(name: &str, way: Way) -> Result<Self, AudioError> {
        let refused = |reason| AudioError::Open { name: name.to_owned(), way, reason };
        let c_name = CString::new(name).map_err(|_| refused("its name holds a zero byte".to_owned()))?;
        let direction = match way {
            Way::Capture => Direction::Capture,
            Way::Playback => Direction::Playback,
        };
        // ALSA tells every step of a failure on standard error: with a card that is missing, that fills the log.
        let _told = alsa::Output::local_error_handler();
        let pcm = PCM::open(&c_name, direction, true).map_err(|e| match Errno::from_raw_os_error(e.errno()) {
            Errno::BUSY => AudioError::Busy { name: name.to_owned(), way },
            Errno::NOENT | Errno::NODEV | Errno::NXIO => AudioError::Missing { name: name.to_owned(), way },
            _ => refused(in_words(e)),
        })?;
        let (channels, buffer_samples) = configure(&pcm, way).map_err(|e| AudioError::Unsuitable {
            name: name.to_owned(),
            way,
            reason: in_words(e),
        })?;
        let interleaved = vec![0; FRAME * channels];
        Ok(Device { name: name.to_owned(), way, pcm, channels, buffer_samples, interleaved, xruns: 0 })
    }

    /// Waits, recovers, or gives up, as the error asks for.
    fn mend(&mut self, error: alsa::Error) -> Result<(), AudioError> {
        match Errno::from_raw_os_error(error.errno()) {
            Errno::AGAIN => match self.pcm.wait(Some(STALL_LIMIT_MS)) {
                Ok(true) => Ok(()),
                Ok(false) => Err(AudioError::Stalled { name: self.name.clone(), way: self.way }),
                // The wait itself has no reason to be repeated: a device that says so is broken.
                Err(e) if e.errno() == Errno::AGAIN.raw_os_error() => Err(self.gone(e)),
                Err(e) => self.mend(e),
            },
            Errno::PIPE | Errno::STRPIPE => {
                self.xruns += 1;
                self.pcm.try_recover(error, true).map_err(|e| self.gone(e))
            }
            Errno::INTR => Ok(()),
            _ => Err(self.gone(error)),
        }
    }

    fn gone(&self, error: alsa::Error) -> AudioError {
        let reason = match Errno::from_raw_os_error(error.errno()) {
            Errno::NODEV | Errno::BADFD => "it was unplugged".to_owned(),
            Errno::IO => "it does not answer any more".to_owned(),
            _ => in_words(error),
        };
        AudioError::Gone { name: self.name.clone(), way: self.way, reason }
    }
}

/// Sets format, rate, channels and buffers; returns the number of channels and the buffer's size.
fn configure(pcm: &PCM, way: Way) -> alsa::Result<(usize, Frames)> {
    let frame = FRAME as Frames;
    let buffer = match way {
        Way::Capture => CAPTURE_BUFFER_FRAMES * frame,
        Way::Playback => PLAYBACK_BUFFER_FRAMES * frame,
    };
    let hw = HwParams::any(pcm)?;
    hw.set_access(Access::RWInterleaved)?;
    hw.set_format(Format::s16())?;
    hw.set_rate(RATE, ValueOr::Nearest)?;
    hw.set_channels(1).or_else(|_| hw.set_channels(2))?;
    hw.set_period_size_near(frame, ValueOr::Nearest)?;
    hw.set_buffer_size_near(buffer)?;
    pcm.hw_params(&hw)?;

    let sw = pcm.sw_params_current()?;
    match way {
        // Started by the first read.
        Way::Capture => {}
        // One period short of full, so that the first write after a pause does not run dry at once.
        Way::Playback => sw.set_start_threshold((hw.get_buffer_size()? - hw.get_period_size()?).max(1))?,
    }
    pcm.sw_params(&sw)?;
    Ok((hw.get_channels()? as usize, hw.get_buffer_size()?))
}

fn in_words(error: alsa::Error) -> String {
    let text = std::io::Error::from_raw_os_error(error.errno()).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

impl Capture for Device {
    fn read(&mut self, frame: &mut [i16; FRAME]) -> Result<(), AudioError> {
        let mut done = 0;
        while done < FRAME {
            let outcome = if self.pcm.state() == State::Prepared {
                self.pcm.start().map(|()| 0)
            } else {
                self.pcm.io_i16().and_then(|io| io.readi(&mut self.interleaved[done * self.channels..]))
            };
            match outcome {
                Ok(samples) => done += samples,
                Err(error) => self.mend(error)?,
            }
        }
        for (mono, sample) in frame.iter_mut().zip(self.interleaved.chunks_exact(self.channels)) {
            let sum: i32 = sample.iter().map(|&s| i32::from(s)).sum();
            *mono = (sum / self.channels as i32) as i16;
        }
        Ok(())
    }

    fn xruns(&self) -> u64 {
        self.xruns
    }
}

impl Playback for Device {
    fn write(&mut self, frame: &[i16; FRAME]) -> Result<(), AudioError> {
        for (sample, &mono) in self.interleaved.chunks_exact_mut(self.channels).zip(frame) {
            sample.fill(mono);
        }
        let mut done = 0;
        while done < FRAME {
            let outcome = self.pcm.io_i16().and_then(|io| io.writei(&self.interleaved[done * self.channels..]));
            match outcome {
                Ok(samples) => done += samples,
                Err(error) => self.mend(error)?,
            }
        }
        Ok(())
    }

    fn buffered(&self) -> Duration {
        // The delay counts the way behind the buffer too, but sound servers lose it after a flush.
        let delay = self.pcm.delay().unwrap_or(0);
        let queued = self.pcm.avail_update().map_or(0, |room| self.buffer_samples - room);
        Duration::from_secs(1) * u32::try_from(delay.max(queued)).unwrap_or(0) / RATE
    }

    fn flush(&mut self) {
        if let Err(error) = self.pcm.drop().and_then(|()| self.pcm.prepare()) {
            // The next write meets the same trouble and reports it to its caller.
            tracing::warn!(device = self.name, reason = in_words(error), "playback cannot be flushed");
        }
    }

    fn xruns(&self) -> u64 {
        self.xruns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_does_not_exist_is_named_with_the_remedy() {
        let error = open_capture("no-such-card").err().unwrap();
        assert_eq!(
            error.to_string(),
            "sound device 'no-such-card' is not there for capture; plug it in, or name one that `arecord -L` lists"
        );
        let error = open_playback("no-such-card").err().unwrap();
        assert!(error.to_string().ends_with("name one that `aplay -L` lists"), "{error}");
    }

    #[test]
    fn a_name_with_a_zero_byte_is_an_error_and_no_panic() {
        assert!(matches!(open_capture("a\0b"), Err(AudioError::Open { .. })));
    }
}
