//! Levels of one way of a sound card, written by its audio thread and read by whoever shows them.

use crate::media::voice::Frame;
use crate::media::voice::level::{FLOOR_DBFS, Level, Meter};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// Frames that average and peak are taken over: half a second.
const WINDOW_FRAMES: u32 = 25;

/// What is shown. Levels are in tenths of dBFS.
#[derive(Debug)]
pub struct Gauge {
    newest: AtomicI32,
    average: AtomicI32,
    peak: AtomicI32,
    clipped: AtomicU64,
    xruns: AtomicU64,
    lost_frames: AtomicU64,
    mended_frames: AtomicU64,
    concealed_frames: AtomicU64,
}

impl Default for Gauge {
    fn default() -> Self {
        let floor = || AtomicI32::new(tenths(FLOOR_DBFS));
        Gauge {
            newest: floor(),
            average: floor(),
            peak: floor(),
            clipped: AtomicU64::new(0),
            xruns: AtomicU64::new(0),
            lost_frames: AtomicU64::new(0),
            mended_frames: AtomicU64::new(0),
            concealed_frames: AtomicU64::new(0),
        }
    }
}

fn tenths(dbfs: f32) -> i32 {
    (dbfs * 10.0).round() as i32
}

impl Gauge {
    /// RMS of the newest frame, in dBFS.
    #[must_use]
    pub fn newest_dbfs(&self) -> f32 {
        self.newest.load(Ordering::Relaxed) as f32 / 10.0
    }

    /// Everything, for pages and `audio levels`.
    #[must_use]
    pub fn view(&self) -> Value {
        let level = |tenths: &AtomicI32| f64::from(tenths.load(Ordering::Relaxed)) / 10.0;
        json!({
            "averageDbfs": level(&self.average),
            "peakDbfs": level(&self.peak),
            "clipped": self.clipped.load(Ordering::Relaxed),
            "xruns": self.xruns.load(Ordering::Relaxed),
            "lostFrames": self.lost_frames.load(Ordering::Relaxed),
            "mendedFrames": self.mended_frames.load(Ordering::Relaxed),
            "concealedFrames": self.concealed_frames.load(Ordering::Relaxed),
        })
    }

    /// How often the card lost samples since it was opened.
    pub(super) fn xruns(&self, count: u64) {
        self.xruns.store(count, Ordering::Relaxed);
    }

    /// How many frames were made up, whose packets are lost: from the one after them, and from what was heard before.
    pub(super) fn made_up(&self, mended: u64, concealed: u64) {
        self.mended_frames.store(mended, Ordering::Relaxed);
        self.concealed_frames.store(concealed, Ordering::Relaxed);
    }

    /// A frame had no room on its way.
    pub(super) fn lost_frame(&self) {
        self.lost_frames.fetch_add(1, Ordering::Relaxed);
    }
}

/// The audio thread's end.
#[derive(Debug, Default)]
pub(super) struct Measuring {
    meter: Meter,
    frames: u32,
}

impl Measuring {
    /// Takes a frame in and shows what it changes.
    pub fn take(&mut self, frame: &Frame, gauge: &Gauge) {
        let level = Level::of(frame);
        gauge.newest.store(tenths(level.rms_dbfs), Ordering::Relaxed);
        if level.clipped_samples > 0 {
            gauge.clipped.fetch_add(level.clipped_samples as u64, Ordering::Relaxed);
        }
        self.meter.add(frame);
        self.frames += 1;
        if self.frames >= WINDOW_FRAMES {
            let window = self.meter.take();
            gauge.average.store(tenths(window.rms_dbfs), Ordering::Relaxed);
            gauge.peak.store(tenths(window.peak_dbfs), Ordering::Relaxed);
            self.frames = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::voice::FRAME;

    #[test]
    fn a_gauge_shows_average_peak_and_every_clipped_sample() {
        let (gauge, mut measuring) = (Gauge::default(), Measuring::default());
        for n in 0..WINDOW_FRAMES {
            let frame = if n == 0 { [i16::MAX; FRAME] } else { [1000; FRAME] };
            measuring.take(&frame, &gauge);
        }
        let view = gauge.view();
        assert_eq!((view["peakDbfs"].as_f64(), view["clipped"].as_u64()), (Some(0.0), Some(FRAME as u64)));
        assert!((view["averageDbfs"].as_f64().unwrap() - -13.9).abs() < 0.15, "{view}");
        assert!((gauge.newest_dbfs() - -30.3).abs() < 0.1);
    }
}
