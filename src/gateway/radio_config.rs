//! `[[radio]]`: one analog radio, with every knob, its range and what the core is told of it.

use super::endpoint::{EndpointPlan, Sense};
use super::knobs;
use crate::base::{ChannelId, LineName, Role, SessionId, SourceId, UserId};
use crate::control::PortSpec;
use crate::hardware::serial::{Pin, SerialPtt};
use crate::hardware::transmit_watch::Limit;
use crate::hardware::{cards, fob};
use crate::media::dsp::chain::Treatment;
use crate::media::dsp::{ctcss, tones};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long the end of what was said is on its way through a sound card, if nothing else keeps the floor for it.
const CARD_LAG: Duration = Duration::from_millis(40);

/// `[[radio]]`
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Radio {
    /// The short name of the port, as in levels and lines.
    pub id: String,
    /// The id of the radio as a participant, in the audit and in `crosspatch person`.
    pub user: String,
    /// The name that others see when it talks.
    pub name: String,
    /// The channel that it is bridged to.
    pub channel: String,
    /// Always general: nobody could stop a stuck squelch with priority (F6).
    #[serde(default = "general")]
    pub role: Role,

    /// Where the carrier signal comes from; without it `gpio` if there is a line, else `vox`.
    pub carrier_from: Option<CarrierFrom>,
    /// The line of the board that carries COR, for `gpio`.
    pub carrier_line: Option<String>,
    /// How long the carrier has to stay before it counts, in ms; for `gpio` and `cm108`.
    #[serde(default = "ms::<20>")]
    #[schemars(range(min = 5, max = 500))]
    pub carrier_debounce_ms: u64,
    /// True: the fob's pin is active while the squelch is shut.
    #[serde(default)]
    pub cm108_carrier_inverted: bool,
    /// How loud it must be to count as a carrier, in dBFS; for `vox`.
    #[serde(default = "minus_thirty")]
    #[schemars(range(min = -60.0, max = 0.0))]
    pub vox_threshold_dbfs: f32,
    /// For how long it must be so loud, in ms; for `vox`.
    #[serde(default = "ms::<10>")]
    #[schemars(range(min = 5, max = 50))]
    pub vox_attack_ms: u64,
    /// How long the carrier outlasts the last loud sound, in ms; for `vox`.
    #[serde(default = "ms::<500>")]
    #[schemars(range(min = 100, max = 3000))]
    pub vox_hang_ms: u64,
    /// The tone that opens the port, one of the 50 standard tones, in Hz; for `ctcss`.
    pub ctcss_hz: Option<f32>,
    /// How long the tone is listened to before it counts, in ms; for `ctcss`.
    #[serde(default = "ms::<250>")]
    #[schemars(range(min = 150, max = 450))]
    pub ctcss_detect_ms: u64,
    /// By how much the audio is late, in ms, so that the noise at the end of a carrier is cut off.
    #[serde(default)]
    #[schemars(range(min = 0, max = 300))]
    pub tail_elimination_ms: u64,
    /// Audio that is kept from before the grant, in ms, so that the first syllable is not lost.
    #[serde(default = "ms::<200>")]
    #[schemars(range(min = 0, max = 1000))]
    pub look_back_ms: u64,
    /// For how long after its own transmission the port hears nothing, in ms.
    #[serde(default = "ms::<200>")]
    #[schemars(range(min = 0, max = 2000))]
    pub inhibit_after_transmit_ms: u64,
    /// A carrier that is open for longer, in s, is cut off until it has closed: a stuck squelch.
    #[serde(default = "ms::<120>")]
    #[schemars(range(min = 10, max = 600))]
    pub carrier_timeout_s: u64,
    /// A carrier that is over sooner, in ms, counts for nothing.
    #[serde(default = "ms::<80>")]
    #[schemars(range(min = 0, max = 500))]
    pub flap_suppression_ms: u64,
    /// Takes everything below 300 Hz, such as CTCSS, out of what is heard.
    #[serde(default = "yes")]
    pub high_pass: bool,
    /// How much louder what is heard is made, in dB.
    #[serde(default)]
    #[schemars(range(min = -30.0, max = 30.0))]
    pub receive_gain_db: f32,
    /// Keeps peaks at −6 dBFS.
    #[serde(default = "yes")]
    pub limiter: bool,

    /// What keys the transmitter; without it `gpio` if there is a line, else `none`.
    pub ptt_output: Option<PttOutput>,
    /// The line of the board that keys, for `gpio`.
    pub ptt_line: Option<String>,
    /// The serial port that keys, as `/dev/serial/by-id/…`; for `serial-rts` and `serial-dtr`.
    pub serial_port: Option<String>,
    /// From key-up to the first audio, in ms; the audio waits, none is lost.
    #[serde(default = "ms::<200>")]
    #[schemars(range(min = 0, max = 2000))]
    pub lead_in_ms: u64,
    /// From the last audio to unkey, in ms.
    #[serde(default = "ms::<100>")]
    #[schemars(range(min = 0, max = 1000))]
    pub ptt_hang_ms: u64,
    /// A transmission that is longer, in s, is cut off; the transmit watchdog unkeys 5 s later whatever happens.
    #[serde(default = "ms::<120>")]
    #[schemars(range(min = 10, max = 600))]
    pub transmit_timeout_s: u64,
    /// Who goes first on a simplex radio while it is receiving.
    #[serde(default)]
    pub simplex: Policy,
    /// The same in an emergency broadcast (E9).
    #[serde(default = "network_first")]
    pub simplex_in_emergency: Policy,
    /// Treble, for radios that are wired to their discriminator and modulator.
    #[serde(default)]
    pub emphasis: Emphasis,
    /// How much louder what is transmitted is made, in dB.
    #[serde(default)]
    #[schemars(range(min = -30.0, max = 30.0))]
    pub transmit_gain_db: f32,
    /// A tone at the end of every transmission.
    #[serde(default)]
    pub courtesy_tone: bool,
    /// What the station calls itself in Morse code at the end of a transmission; never without it.
    pub ident: Option<String>,
    /// How often the station identifies itself while it transmits, in s.
    #[serde(default = "ms::<600>")]
    #[schemars(range(min = 60, max = 3600))]
    pub ident_interval_s: u64,

    /// The sound card, and the fob if one is used, by its stable name, as `crosspatch audio list` prints it.
    pub card: Option<String>,
    /// The path of the fob's hidraw device, where it is not part of the card.
    pub fob: Option<String>,
    /// ALSA PCM of the receive audio in place of the card's; without any, paced simulated audio.
    pub capture_pcm: Option<String>,
    /// ALSA PCM of the transmit audio in place of the card's.
    pub playback_pcm: Option<String>,
}

/// Where a carrier signal comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CarrierFrom {
    /// A line of the board.
    Gpio,
    /// A USB fob's volume-down pin.
    Cm108,
    /// The loudness of what is heard.
    Vox,
    /// A tone below what is heard.
    Ctcss,
}

/// What keys a transmitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PttOutput {
    /// A line of the board.
    Gpio,
    /// A USB fob's GPIO3.
    Cm108,
    /// A serial port's RTS.
    SerialRts,
    /// A serial port's DTR.
    SerialDtr,
    /// Nothing: the radio keys itself by VOX.
    None,
}

/// Who goes first on a simplex radio.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Keying waits for the own carrier.
    #[default]
    RadioFirst,
    /// Keying is at once.
    NetworkFirst,
}

/// Whether treble is raised on the way out and lowered on the way in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Emphasis {
    /// The radio does it.
    #[default]
    None,
    /// The gateway does it.
    PreEmphasis,
}

impl Radio {
    /// Where its carrier comes from.
    #[must_use]
    pub fn carrier_from(&self) -> CarrierFrom {
        let by_line = if self.carrier_line.is_some() { CarrierFrom::Gpio } else { CarrierFrom::Vox };
        self.carrier_from.unwrap_or(by_line)
    }

    /// What keys it.
    #[must_use]
    pub fn ptt_output(&self) -> PttOutput {
        let by_line = if self.ptt_line.is_some() { PttOutput::Gpio } else { PttOutput::None };
        self.ptt_output.unwrap_or(by_line)
    }

    /// What its carrier line is called; a fob's pin is a line too.
    #[must_use]
    pub fn carrier_name(&self) -> Option<LineName> {
        match self.carrier_from() {
            CarrierFrom::Gpio => self.carrier_line.as_deref().map(LineName::from),
            CarrierFrom::Cm108 => Some(format!("radio.{}.cm108-carrier", self.id).into()),
            CarrierFrom::Vox | CarrierFrom::Ctcss => None,
        }
    }

    /// What its PTT output is called; a fob's and a serial port's pin are lines too.
    #[must_use]
    pub fn ptt_name(&self) -> Option<LineName> {
        match self.ptt_output() {
            PttOutput::Gpio => self.ptt_line.as_deref().map(LineName::from),
            PttOutput::Cm108 => Some(format!("radio.{}.cm108-ptt", self.id).into()),
            PttOutput::SerialRts | PttOutput::SerialDtr => Some(format!("radio.{}.serial-ptt", self.id).into()),
            PttOutput::None => None,
        }
    }

    /// Tells every error with a value that stands near it.
    pub(super) fn check(&self, mut wrong: impl FnMut(Option<&str>, String)) {
        let id = self.id.as_str();
        if self.role != Role::General {
            let sentence = format!(
                "radio '{id}' has a role with priority; a radio is always general (a stuck squelch could be stopped by nobody)"
            );
            wrong(Some(id), sentence);
        }
        for sentence in knobs::out_of_range(self, &format!("radio '{id}'")) {
            wrong(Some(id), sentence);
        }
        if let Some(call_sign) = &self.ident
            && let Some(letter) = call_sign.chars().find(|c| !tones::is_in_morse(*c))
        {
            wrong(
                Some(call_sign),
                format!(
                    "ident of radio '{id}' has '{letter}', which Morse code does not; use A to Z, 0 to 9, / and spaces"
                ),
            );
        }
        self.check_wiring(&mut wrong);
    }

    /// What a source or output needs, and what nothing uses.
    fn check_wiring(&self, mut wrong: impl FnMut(Option<&str>, String)) {
        let id = self.id.as_str();
        let (carrier, ptt) = (self.carrier_from(), self.ptt_output());
        let fob = carrier == CarrierFrom::Cm108 || ptt == PttOutput::Cm108;
        let serial = matches!(ptt, PttOutput::SerialRts | PttOutput::SerialDtr);
        let needs = [
            (carrier == CarrierFrom::Gpio, self.carrier_line.is_some(), "carrier_from = \"gpio\"", "carrier_line"),
            (ptt == PttOutput::Gpio, self.ptt_line.is_some(), "ptt_output = \"gpio\"", "ptt_line"),
            (carrier == CarrierFrom::Ctcss, self.ctcss_hz.is_some(), "carrier_from = \"ctcss\"", "ctcss_hz"),
            (serial, self.serial_port.is_some(), "a serial ptt_output", "serial_port"),
        ];
        for (used, there, what, key) in needs {
            if used && !there {
                wrong(Some(id), format!("radio '{id}' has {what} but no {key}; add it"));
            }
            if !used && there {
                let remedy = "take it away, or say what it is for with carrier_from or ptt_output";
                wrong(Some(id), format!("{key} of radio '{id}' is used by nothing; {remedy}"));
            }
        }
        if fob && self.card.is_none() && self.fob.is_none() {
            wrong(
                Some(id),
                format!("radio '{id}' uses a fob but has no card; name it as `crosspatch audio list` prints it"),
            );
        }
        if let Some(card) = self.card.as_deref().filter(|card| !cards::is_card_name(card)) {
            wrong(
                Some(card),
                format!("card '{card}' of radio '{id}' is no name of a card; copy one of `crosspatch audio list`"),
            );
        }
        if let Some(hz) = self.ctcss_hz
            && !ctcss::is_standard(hz)
        {
            let near = ctcss::nearest(hz);
            wrong(
                Some(id),
                format!("ctcss_hz of radio '{id}' is {hz}, which is no standard tone; did you mean {near:.1}?"),
            );
        }
    }

    /// The fob whose pins it uses.
    #[must_use]
    pub fn fob(&self) -> Option<fob::Plan> {
        let carrier = self.carrier_name().filter(|_| self.carrier_from() == CarrierFrom::Cm108);
        let ptt = self.ptt_name().filter(|_| self.ptt_output() == PttOutput::Cm108);
        let card = self.fob.clone().or(self.card.clone())?;
        let used = carrier.is_some() || ptt.is_some();
        used.then_some(fob::Plan { card, carrier, inverted: self.cm108_carrier_inverted, ptt })
    }

    /// The serial port that keys it.
    pub(super) fn serial_ptt(&self) -> Option<SerialPtt> {
        let pin = match self.ptt_output() {
            PttOutput::SerialRts => Pin::Rts,
            PttOutput::SerialDtr => Pin::Dtr,
            PttOutput::Gpio | PttOutput::Cm108 | PttOutput::None => return None,
        };
        Some(SerialPtt::open(self.ptt_name()?, self.serial_port.as_deref()?, pin))
    }

    /// What the transmit watchdog watches.
    pub(super) fn transmit_limit(&self) -> Option<Limit> {
        Some(Limit { line: self.ptt_name()?, timeout: Duration::from_secs(self.transmit_timeout_s) })
    }

    /// The names of what it is heard by and talked to by; `None` for simulated sound.
    #[must_use]
    pub fn sound(&self) -> Option<(&str, &str)> {
        let card = self.card.as_deref();
        Some((self.capture_pcm.as_deref().or(card)?, self.playback_pcm.as_deref().or(card)?))
    }

    /// How its threads listen and talk.
    #[must_use]
    pub fn plan(&self) -> EndpointPlan {
        let ms = Duration::from_millis;
        let emphasis = self.emphasis == Emphasis::PreEmphasis;
        EndpointPlan {
            name: self.name.clone(),
            is_port: true,
            sense: match self.carrier_from() {
                CarrierFrom::Gpio | CarrierFrom::Cm108 => Sense::Line,
                CarrierFrom::Vox => Sense::Vox(self.vox_threshold_dbfs),
                CarrierFrom::Ctcss => Sense::Ctcss(self.ctcss_hz.unwrap_or_default(), ms(self.ctcss_detect_ms)),
            },
            receive: Treatment {
                high_pass: self.high_pass,
                emphasis,
                gain_db: self.receive_gain_db,
                limiter: self.limiter,
            },
            transmit: Treatment { emphasis, gain_db: self.transmit_gain_db, ..Treatment::default() },
            look_back: ms(self.look_back_ms),
            tail: ms(self.tail_elimination_ms),
            lead_in: ms(self.lead_in_ms),
            ident: self.ident.as_deref().map(tones::morse).unwrap_or_default(),
        }
    }

    /// What the core is told.
    pub(super) fn spec(&self, session: SessionId, source: SourceId) -> PortSpec {
        let ms = Duration::from_millis;
        let (attack, release) = match self.carrier_from() {
            CarrierFrom::Gpio | CarrierFrom::Cm108 => (ms(self.carrier_debounce_ms), ms(self.carrier_debounce_ms)),
            CarrierFrom::Vox => (ms(self.vox_attack_ms), ms(self.vox_hang_ms)),
            // The detector has judged for long enough.
            CarrierFrom::Ctcss => (Duration::ZERO, Duration::ZERO),
        };
        let by_pin = matches!(self.carrier_from(), CarrierFrom::Gpio | CarrierFrom::Cm108);
        let keeps_the_end = by_pin && self.tail_elimination_ms == 0;
        PortSpec {
            user: UserId::from(self.user.as_str()),
            name: self.name.clone(),
            channel: ChannelId::from(self.channel.as_str()),
            session,
            source,
            carrier: self.carrier_name(),
            ptt: self.ptt_name(),
            attack,
            release,
            lead_in: ms(self.lead_in_ms),
            ptt_hang: ms(self.ptt_hang_ms),
            flap: ms(self.flap_suppression_ms),
            linger: if keeps_the_end { CARD_LAG } else { Duration::ZERO },
            inhibit: ms(self.inhibit_after_transmit_ms),
            carrier_timeout: Duration::from_secs(self.carrier_timeout_s),
            transmit_timeout: Duration::from_secs(self.transmit_timeout_s),
            courtesy_tone: self.courtesy_tone,
            ident_interval: self.ident.is_some().then(|| Duration::from_secs(self.ident_interval_s)),
            radio_first: self.simplex == Policy::RadioFirst,
            radio_first_in_emergency: self.simplex_in_emergency == Policy::RadioFirst,
        }
    }
}

fn ms<const DEFAULT: u64>() -> u64 {
    DEFAULT
}
fn yes() -> bool {
    true
}
fn minus_thirty() -> f32 {
    -30.0
}
fn general() -> Role {
    Role::General
}
fn network_first() -> Policy {
    Policy::NetworkFirst
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(keys: &str) -> Vec<String> {
        let text = format!("id = \"vhf\"\nuser = \"radio-vhf\"\nname = \"VHF 1\"\nchannel = \"ops\"\n{keys}");
        let radio: Radio = toml::from_str(&text).unwrap();
        let mut errors = Vec::new();
        radio.check(|_, sentence| errors.push(sentence));
        errors
    }

    #[test]
    fn every_knob_out_of_its_range_is_named_with_the_range() {
        for (key, low, high) in [
            ("carrier_debounce_ms", "4", "501"),
            ("vox_attack_ms", "4", "51"),
            ("vox_hang_ms", "99", "3001"),
            ("ctcss_detect_ms", "149", "451"),
            ("tail_elimination_ms", "301", "301"),
            ("look_back_ms", "1001", "1001"),
            ("inhibit_after_transmit_ms", "2001", "2001"),
            ("carrier_timeout_s", "9", "601"),
            ("flap_suppression_ms", "501", "501"),
            ("lead_in_ms", "2001", "2001"),
            ("ptt_hang_ms", "1001", "1001"),
            ("transmit_timeout_s", "9", "601"),
            ("ident_interval_s", "59", "3601"),
            ("vox_threshold_dbfs", "-60.5", "nan"),
            ("receive_gain_db", "-30.5", "30.5"),
            ("transmit_gain_db", "-31.0", "inf"),
        ] {
            for value in [low, high] {
                let told = errors(&format!("{key} = {value}"));
                assert_eq!(told.len(), 1, "{key} = {value}: {told:?}");
                assert!(
                    told[0].starts_with(&format!("{key} of radio 'vhf' is ")) && told[0].contains("; use "),
                    "{told:?}"
                );
            }
        }
    }

    #[test]
    fn a_source_or_output_without_what_it_needs_is_named() {
        let one = |keys: &str| errors(keys).join("\n");
        assert_eq!(one(""), "", "VOX, and a radio that keys itself");
        assert!(one("carrier_from = \"gpio\"").contains("no carrier_line"));
        assert!(
            one("carrier_from = \"vox\"\ncarrier_line = \"x\"")
                .contains("carrier_line of radio 'vhf' is used by nothing")
        );
        assert!(one("carrier_from = \"ctcss\"").contains("no ctcss_hz"));
        assert!(one("carrier_from = \"ctcss\"\nctcss_hz = 88.4").contains("did you mean 88.5?"));
        assert!(one("ptt_output = \"serial-rts\"").contains("no serial_port"));
        assert!(one("ptt_output = \"cm108\"").contains("uses a fob but has no card"));
        assert!(one("ident = \"DB0Ä\"").contains("'Ä', which Morse code does not"));
        assert!(one("role = \"dispatch\"").contains("always general"));
    }

    #[test]
    fn the_core_is_told_how_long_the_floor_is_kept_for_the_end_of_what_was_said() {
        let linger = |keys: &str| {
            let text = format!("id = \"v\"\nuser = \"u\"\nname = \"V\"\nchannel = \"ops\"\n{keys}");
            toml::from_str::<Radio>(&text).unwrap().spec(SessionId(1), SourceId(1)).linger
        };
        assert_eq!(linger("carrier_line = \"c\""), CARD_LAG);
        assert_eq!(linger("carrier_line = \"c\"\ntail_elimination_ms = 100"), Duration::ZERO, "its end is noise");
        assert_eq!(linger(""), Duration::ZERO, "the hang of VOX is longer");
    }
}
