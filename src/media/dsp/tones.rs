//! Tones that a station makes itself: the courtesy tone at the end of a transmission, and its name in Morse code.

use crate::media::voice::RATE;
use std::f64::consts::{PI, TAU};

/// Of both; well below speech.
const LEVEL_DBFS: f64 = -15.0;
/// How long a tone takes to come and go, so that it does not click.
const RAMP_S: f64 = 0.005;
const COURTESY_HZ: f64 = 880.0;
const COURTESY_S: f64 = 0.12;
const MORSE_HZ: f64 = 700.0;
/// A dot at 20 words a minute.
const DOT_S: f64 = 0.06;

const CODE: [(char, &str); 37] = [
    ('A', ".-"),
    ('B', "-..."),
    ('C', "-.-."),
    ('D', "-.."),
    ('E', "."),
    ('F', "..-."),
    ('G', "--."),
    ('H', "...."),
    ('I', ".."),
    ('J', ".---"),
    ('K', "-.-"),
    ('L', ".-.."),
    ('M', "--"),
    ('N', "-."),
    ('O', "---"),
    ('P', ".--."),
    ('Q', "--.-"),
    ('R', ".-."),
    ('S', "..."),
    ('T', "-"),
    ('U', "..-"),
    ('V', "...-"),
    ('W', ".--"),
    ('X', "-..-"),
    ('Y', "-.--"),
    ('Z', "--.."),
    ('0', "-----"),
    ('1', ".----"),
    ('2', "..---"),
    ('3', "...--"),
    ('4', "....-"),
    ('5', "....."),
    ('6', "-...."),
    ('7', "--..."),
    ('8', "---.."),
    ('9', "----."),
    ('/', "-..-."),
];

/// True if Morse code has it, or it is a space.
#[must_use]
pub fn is_in_morse(letter: char) -> bool {
    letter == ' ' || code(letter).is_some()
}

fn code(letter: char) -> Option<&'static str> {
    let letter = letter.to_ascii_uppercase();
    CODE.iter().find(|(known, _)| *known == letter).map(|(_, code)| *code)
}

/// The tone that says: over to you.
#[must_use]
pub fn courtesy() -> Vec<i16> {
    let mut samples = Vec::new();
    tone(&mut samples, COURTESY_HZ, COURTESY_S);
    samples
}

/// A text in Morse code at 20 words a minute; what the code does not have is left out.
#[must_use]
pub fn morse(text: &str) -> Vec<i16> {
    let mut samples = Vec::new();
    for word in text.split_whitespace() {
        for letter in word.chars().filter_map(code) {
            for sign in letter.chars() {
                tone(&mut samples, MORSE_HZ, if sign == '-' { 3.0 * DOT_S } else { DOT_S });
                silence(&mut samples, DOT_S);
            }
            silence(&mut samples, 2.0 * DOT_S); // three dots between letters
        }
        silence(&mut samples, 4.0 * DOT_S); // seven between words
    }
    samples
}

fn silence(samples: &mut Vec<i16>, seconds: f64) {
    samples.resize(samples.len() + (seconds * f64::from(RATE)) as usize, 0);
}

fn tone(samples: &mut Vec<i16>, hz: f64, seconds: f64) {
    let (rate, peak) = (f64::from(RATE), 32_767.0 * 10f64.powf(LEVEL_DBFS / 20.0));
    let count = (seconds * rate) as usize;
    samples.extend((0..count).map(|n| {
        let at = n as f64 / rate;
        let edge = at.min(seconds - at).min(RAMP_S) / RAMP_S;
        let loudness = 0.5 - 0.5 * (PI * edge).cos();
        ((at * hz * TAU).sin() * peak * loudness) as i16
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::voice::level::Level;

    /// Reads Morse code back, by the loudness of pieces of a third of a dot.
    fn read(samples: &[i16]) -> String {
        let piece = (DOT_S * f64::from(RATE) / 3.0) as usize;
        let loud: Vec<bool> = samples.chunks(piece).map(|c| Level::of(c).rms_dbfs > -40.0).collect();
        let (mut text, mut sign) = (String::new(), String::new());
        for run in loud.chunk_by(|a, b| a == b) {
            let dots = (run.len() as f64 / 3.0).round() as usize;
            match (run[0], dots) {
                (true, 3) => sign.push('-'),
                (true, _) => sign.push('.'),
                (false, 1) => {}
                (false, dots) => {
                    text.extend(CODE.iter().find(|(_, code)| *code == sign).map(|(letter, _)| *letter));
                    text.extend((dots >= 7).then_some(' '));
                    sign.clear();
                }
            }
        }
        text
    }

    #[test]
    fn a_call_sign_can_be_read_back() {
        assert_eq!(read(&morse("de DB0XYZ/7")).trim_end(), "DE DB0XYZ/7");
        assert!(is_in_morse('q') && is_in_morse(' ') && !is_in_morse('ä'));
        assert!(morse("").is_empty());
    }

    #[test]
    fn a_tone_begins_and_ends_softly_and_is_softer_than_speech() {
        let tone = courtesy();
        assert_eq!((tone[0], tone.len()), (0, 5760));
        let level = Level::of(&tone);
        assert!((-15.5..-14.5).contains(&level.peak_dbfs), "{level:?}");
        let steepest = tone.windows(2).map(|w| (i32::from(w[1]) - i32::from(w[0])).abs()).max().unwrap();
        assert!(steepest < 800, "it clicks: {steepest}");
    }
}
