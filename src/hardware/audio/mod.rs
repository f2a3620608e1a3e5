//! Sound in and out: mono, 16 bit, 48 kHz, one frame of 20 ms at a time.
//!
//! This room decides how a sound device is opened, paced and mended after an overrun. It never
//! decides what is heard or how loud, and never opens a device anew that went away: it says
//! [`AudioError::Gone`], and whoever holds the device opens it again.
//!
//! **Invariant:** a device sets the pace. A read or write returns when the device is ready, in real
//! time, and never waits for ever.

mod alsa;
mod priority;
pub mod sim;

use std::time::Duration;

pub use self::alsa::{open_capture, open_playback};
pub use self::priority::real_time;

/// Samples a second.
pub const RATE: u32 = 48_000;
/// Samples a frame: 20 ms.
pub const FRAME: usize = 960;

/// How long a frame sounds.
const FRAME_DURATION: Duration = Duration::from_millis(20);

/// Which way sound goes through a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From a microphone or a receiver.
    Capture,
    /// To a loudspeaker or a transmitter.
    Playback,
}

impl Way {
    /// The word for messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Way::Capture => "capture",
            Way::Playback => "playback",
        }
    }

    /// The command that lists the devices of this way.
    fn lister(self) -> &'static str {
        match self {
            Way::Capture => "arecord -L",
            Way::Playback => "aplay -L",
        }
    }
}

/// What can go wrong with a sound device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AudioError {
    /// There is no such device, or not now.
    #[error("sound device '{name}' is not there for {}; plug it in, or name one that `{}` lists", way.as_str(), way.lister())]
    Missing {
        /// Its name.
        name: String,
        /// Which way it was to be used.
        way: Way,
    },
    /// The device cannot be opened.
    #[error("sound device '{name}' cannot be opened for {}: {reason}; give the gateway access, or name one that `{}` lists", way.as_str(), way.lister())]
    Open {
        /// Its name.
        name: String,
        /// Which way it was to be used.
        way: Way,
        /// The system's reason.
        reason: String,
    },
    /// Somebody else has the device.
    #[error("sound device '{name}' is used for {} by another program; end that, `fuser -v /dev/snd/*` names it", way.as_str())]
    Busy {
        /// Its name.
        name: String,
        /// Which way it was to be used.
        way: Way,
    },
    /// The device has no 16 bit at 48 kHz.
    #[error("sound device '{name}' has no 16 bit {} at 48 kHz: {reason}; use its `plughw:` name, which converts", way.as_str())]
    Unsuitable {
        /// Its name.
        name: String,
        /// Which way it was to be used.
        way: Way,
        /// The system's reason.
        reason: String,
    },
    /// The device went away while in use.
    #[error("sound device '{name}' is gone from {}: {reason}; plug it in again", way.as_str())]
    Gone {
        /// Its name.
        name: String,
        /// Which way it was used.
        way: Way,
        /// The system's reason.
        reason: String,
    },
    /// The device takes or gives nothing any more.
    #[error("sound device '{name}' stands still at {}; unplug it and plug it in again", way.as_str())]
    Stalled {
        /// Its name.
        name: String,
        /// Which way it was used.
        way: Way,
    },
}

impl AudioError {
    /// True if the device is not there, whichever way that shows: somebody has to plug it in.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        match self {
            AudioError::Missing { .. } | AudioError::Gone { .. } | AudioError::Stalled { .. } => true,
            AudioError::Open { .. } | AudioError::Busy { .. } | AudioError::Unsuitable { .. } => false,
        }
    }
}

/// Where sound comes from.
pub trait Capture: Send {
    /// Waits for a frame and reads it.
    ///
    /// # Errors
    /// If the device is gone or stands still; open it anew then.
    fn read(&mut self, frame: &mut [i16; FRAME]) -> Result<(), AudioError>;

    /// How often samples were lost because nobody read them in time.
    fn xruns(&self) -> u64;
}

/// Where sound goes to.
pub trait Playback: Send {
    /// Waits for room and writes a frame.
    ///
    /// # Errors
    /// If the device is gone or stands still; open it anew then.
    fn write(&mut self, frame: &[i16; FRAME]) -> Result<(), AudioError>;

    /// How long until the last sample written sounds.
    fn buffered(&self) -> Duration;

    /// Drops what has not sounded yet.
    fn flush(&mut self);

    /// How often the device ran dry because nobody wrote in time; a pause between writes is one.
    fn xruns(&self) -> u64;
}
