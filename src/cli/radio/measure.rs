//! What is made of what was heard: gains, thresholds and times. Pure; no card, no clock.

use crate::base::Mono;
use crate::media::dsp::ctcss::{Ctcss, TONES_HZ};
use crate::media::voice::level::{FLOOR_DBFS, Level, Meter};
use crate::media::voice::{FRAME, Frame};
use std::time::Duration;

/// Where peaks of speech shall be: below the limiter's ceiling of −6 dBFS, so that it has little to do.
const TARGET_PEAK_DBFS: f32 = -8.0;
/// Where its average shall be at most: 3 dB below what passes.
const TARGET_AVERAGE_DBFS: f32 = -15.0;
/// So much louder than the noise is a voice.
const VOICE_ABOVE_DB: f32 = 10.0;
/// A threshold needs so much room between noise and speech.
const VOX_ROOM_DB: f32 = 15.0;
/// Nothing softer is noise at the end of a carrier.
const SOFTEST_TAIL_DBFS: f32 = -50.0;
/// So much louder than the silent carrier is the noise that follows it.
const TAIL_ABOVE_DB: f32 = 6.0;
/// What the end of a carrier is looked at in.
const STEP: usize = FRAME / 4;
const STEP_TIME: Duration = Duration::from_millis(5);
/// Of the carrier's end, where noise may be.
const LONGEST_TAIL: Duration = Duration::from_millis(600);
/// Edges that are nearer than that to each other are of one change.
const CHATTER: Duration = Duration::from_millis(500);
/// A tone is looked for in so many frames.
const TONE_FRAMES: usize = 75;

/// RMS of frames that nine of ten do not exceed.
#[must_use]
pub fn floor_dbfs(levels: &[f32]) -> f32 {
    let mut levels = levels.to_vec();
    levels.sort_by(f32::total_cmp);
    levels.get(levels.len() * 9 / 10).copied().unwrap_or(FLOOR_DBFS).max(FLOOR_DBFS)
}

/// The level of the frames that are louder than noise, and how many there are.
#[must_use]
pub fn voice<'a>(frames: impl IntoIterator<Item = &'a Frame>, floor_dbfs: f32) -> (Level, usize) {
    let (mut meter, mut count) = (Meter::default(), 0);
    for frame in frames {
        if Level::of(frame).rms_dbfs > floor_dbfs + VOICE_ABOVE_DB {
            meter.add(frame);
            count += 1;
        }
    }
    (meter.level(), count)
}

/// The gain, in whole dB, that takes speech to where it shall be.
#[must_use]
pub fn gain_db(speech: &Level) -> f32 {
    (TARGET_PEAK_DBFS - speech.peak_dbfs).min(TARGET_AVERAGE_DBFS - speech.rms_dbfs).floor().clamp(-30.0, 30.0)
}

/// A threshold between noise and speech, in whole dB; `None` if they are too near to each other.
#[must_use]
pub fn vox_threshold_dbfs(floor_dbfs: f32, speech_dbfs: f32) -> Option<f32> {
    let room = speech_dbfs - floor_dbfs;
    (room >= VOX_ROOM_DB).then(|| (floor_dbfs + (room / 2.0).min(15.0)).round().clamp(-60.0, 0.0))
}

/// How long before a carrier was judged to be gone the noise began that follows it. The carrier was silent before.
#[must_use]
pub fn tail<'a>(frames: impl IntoIterator<Item = (Mono, &'a Frame)>, closed: Mono) -> Duration {
    let steps = frames.into_iter().flat_map(|(at, frame)| {
        (0..4).map(move |n| (at + STEP_TIME * n as u32, Level::of(&frame[n * STEP..(n + 1) * STEP]).rms_dbfs))
    });
    let before: Vec<(Mono, f32)> = steps.take_while(|(at, _)| *at + STEP_TIME <= closed).collect();
    let earliest = before.iter().position(|(at, _)| *at + LONGEST_TAIL >= closed).unwrap_or(before.len());
    let (quiet, end) = before.split_at(earliest);
    let quiet: Vec<f32> = quiet.iter().map(|(_, level)| *level).collect();
    let silence = median(&quiet);
    let loud = |level: f32| level > silence + TAIL_ABOVE_DB && level > SOFTEST_TAIL_DBFS;
    let first = end.windows(2).position(|pair| loud(pair[0].1) && loud(pair[1].1));
    first.map_or(Duration::ZERO, |first| closed.since(end[first].0))
}

fn median(levels: &[f32]) -> f32 {
    let mut levels = levels.to_vec();
    levels.sort_by(f32::total_cmp);
    levels.get(levels.len() / 2).copied().unwrap_or(FLOOR_DBFS)
}

/// How long a carrier's line went to and fro before it settled, at its longest.
#[must_use]
pub fn chatter(edges: &[(Mono, bool)]) -> Duration {
    let (mut longest, mut first) = (Duration::ZERO, None::<Mono>);
    for pair in edges.windows(2) {
        let (before, now) = (pair[0].0, pair[1].0);
        let began = *first.get_or_insert(before);
        if now.since(before) < CHATTER {
            longest = longest.max(now.since(began));
        } else {
            first = Some(now);
        }
    }
    longest
}

/// The standard tone in the loudest part of these frames.
#[must_use]
pub fn ctcss_hz(frames: &[Frame]) -> Option<f32> {
    let loud: Vec<f32> = frames.iter().map(|frame| Level::of(frame).rms_dbfs).collect();
    let windows = loud.windows(TONE_FRAMES.min(loud.len()).max(1)).map(|window| window.iter().sum::<f32>());
    let (from, _) = windows.enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let part = &frames[from..(from + TONE_FRAMES).min(frames.len())];
    let heard = |hz: f32| {
        let mut detector = Ctcss::new(hz, Duration::from_millis(450));
        part.iter().filter(|frame| detector.hear(frame)).count()
    };
    let (hz, count) = TONES_HZ.into_iter().map(|hz| (hz, heard(hz))).max_by_key(|(_, count)| *count)?;
    (count > part.len() / 4).then_some(hz)
}

/// A time rounded up to whole steps, in ms.
#[must_use]
pub fn ms_up(time: Duration, step: u64) -> u64 {
    (time.as_micros() as u64).div_ceil(1000).div_ceil(step) * step
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::audio::sim::Sound;

    fn tone(hz: f32, level_dbfs: f32, n: usize) -> Frame {
        Sound::Tone { hz, level_dbfs }.frame((n * FRAME) as u64)
    }

    fn level(peak_dbfs: f32, rms_dbfs: f32) -> Level {
        Level { peak_dbfs, rms_dbfs, clipped_samples: 0 }
    }

    #[test]
    fn a_gain_takes_peak_and_average_below_their_targets() {
        assert_eq!(gain_db(&level(-26.0, -40.0)), 18.0, "the peak is what is near");
        assert_eq!(gain_db(&level(-10.0, -12.0)), -3.0, "the average is");
        assert_eq!(gain_db(&level(-90.0, -96.0)), 30.0, "no more than the knob has");
    }

    #[test]
    fn a_threshold_lies_between_noise_and_speech_or_there_is_none() {
        assert_eq!(vox_threshold_dbfs(-60.0, -20.0), Some(-45.0));
        assert_eq!(vox_threshold_dbfs(-40.0, -20.0), Some(-30.0));
        assert_eq!(vox_threshold_dbfs(-30.0, -20.0), None);
    }

    #[test]
    fn a_pause_counts_for_nothing_in_the_level_of_a_voice() {
        let frames: Vec<_> = (0..40).map(|n| if n % 2 == 0 { tone(700.0, -20.0, n) } else { [3; FRAME] }).collect();
        let (heard, count) = voice(&frames, -70.0);
        assert_eq!(count, 20);
        assert!((heard.rms_dbfs - -23.0).abs() < 0.1, "{heard:?}");
    }

    #[test]
    fn the_noise_at_the_end_of_a_carrier_is_measured_to_its_last_moment() {
        let at = |n: usize| Mono::from_millis(1000 + 20 * n as u64);
        let frames = |noise: std::ops::Range<usize>| -> Vec<Frame> {
            (0..100).map(|n| if noise.contains(&n) { tone(3000.0, -15.0, n) } else { [9; FRAME] }).collect()
        };
        let measured = |frames: &[Frame], closed| {
            tail(frames.iter().enumerate().map(|(n, frame)| (at(n), frame)), closed).as_millis()
        };
        assert_eq!(measured(&frames(80..100), at(87)), 140, "it sounds on after the end");
        assert_eq!(measured(&frames(100..100), at(87)), 0, "a receiver that mutes in time");
        assert_eq!(measured(&frames(80..85), at(87)), 140, "also when it is over by then");
        assert_eq!(measured(&frames(10..30), at(87)), 0, "somebody spoke");
    }

    #[test]
    fn a_line_that_goes_to_and_fro_is_timed_and_two_changes_far_apart_are_not_one() {
        let edges = |ms: &[u64]| ms.iter().map(|ms| (Mono::from_millis(*ms), ms % 2 == 0)).collect::<Vec<_>>();
        assert_eq!(chatter(&edges(&[0, 3000])), Duration::ZERO);
        assert_eq!(chatter(&edges(&[0, 7, 19, 3000, 3005])), Duration::from_millis(19));
        assert_eq!(chatter(&[]), Duration::ZERO);
    }

    #[test]
    fn the_tone_below_a_voice_is_found_and_a_voice_without_one_has_none() {
        let both = |low: f32| -> Vec<Frame> {
            let sum = |n: usize| {
                let (voice, tone) = (tone(900.0, -20.0, n), tone(low, -26.0, n));
                std::array::from_fn(|i| voice[i] + tone[i])
            };
            (0..120).map(sum).collect()
        };
        assert_eq!(ctcss_hz(&both(103.5)), Some(103.5));
        assert_eq!(ctcss_hz(&both(700.0)), None);
        assert_eq!(ctcss_hz(&[]), None);
    }

    #[test]
    fn times_are_rounded_up() {
        assert_eq!((ms_up(Duration::from_millis(101), 20), ms_up(Duration::ZERO, 20)), (120, 0));
    }
}
