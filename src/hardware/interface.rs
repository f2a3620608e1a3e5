//! The interface between the box and a common radio: which parts of which value, and why. Facts and arithmetic only;
//! who draws it is none of its business.
//!
//! PTT and carrier go through optocouplers, audio through 600:600 ohm transformers, so that no current flows between box
//! and radio: no hum, and no transmitter's energy in the box. **Invariant:** every current and level stays on the safe
//! side with the worst of the parts, which the tests work out.

/// Volts of a GPIO that is high.
pub const GPIO_V: f64 = 3.3;
/// Volts across a lit LED of an optocoupler, as its maker says: typical, and the most.
pub const LED_V: f64 = 1.15;
/// See [`LED_V`].
pub const LED_WORST_V: f64 = 1.5;
/// The least part of the LED's current that flows through the transistor of an SFH618A-4 or a PC817 of rank C at one to
/// two milliamperes.
pub const TRANSFER: f64 = 1.6;
/// Volts across a transistor that is switched on fully.
pub const SATURATED_V: f64 = 0.3;

/// In series with the LED that keys, in ohms.
pub const R1_PTT_LED: f64 = 1_000.0;
/// From the keying output to ground, in ohms: it unkeys while the board has no power or is not driven.
pub const R2_PTT_SAFE: f64 = 10_000.0;
/// From the carrier's input to 3.3 V, in ohms, beside the chip's own of about 50 kilohm.
pub const R4_CARRIER_PULL: f64 = 4_700.0;
/// The chip's own pull-up, in ohms.
pub const CHIP_PULL: f64 = 50_000.0;
/// In series with the carrier's LED, in ohms, for each voltage that radios give.
pub const R3_CARRIER_LED: [(f64, f64); 3] = [(5.0, 2_200.0), (8.0, 3_900.0), (13.8, 6_800.0)];

/// Volts RMS of a usual card's output at 0 dBFS, and of its line input.
pub const CARD_V: f64 = 1.0;
/// The impedance that the transformers are made for, in ohms.
pub const LINE_OHM: f64 = 600.0;
/// In series with the radio's loudspeaker output, in ohms; with the transformer it makes a divider by two.
pub const R5_RECEIVE_SERIES: f64 = 560.0;
/// Ends the receive transformer, in ohms, beside the trimmer.
pub const R6_RECEIVE_END: f64 = 620.0;
/// The receive level, in ohms.
pub const RV1_RECEIVE: f64 = 10_000.0;
/// In series with the card's output, in ohms.
pub const R7_TRANSMIT_SERIES: f64 = 560.0;
/// Ends the transmit transformer, in ohms, beside the pad.
pub const R8_TRANSMIT_END: f64 = 680.0;
/// The pad before the transmit trimmer, in ohms, for a microphone input or 1200 baud data.
pub const R9_TRANSMIT_PAD: f64 = 4_700.0;
/// The transmit level, in ohms.
pub const RV2_TRANSMIT: f64 = 1_000.0;
/// Keeps the microphone's supply out of the trimmer, in farads.
pub const C2_MICROPHONE: f64 = 1e-6;
/// Keeps the card's direct current out of the transformer, in farads.
pub const C1_CARD: f64 = 10e-6;

/// Two resistors side by side, in ohms.
#[must_use]
pub fn parallel(a: f64, b: f64) -> f64 {
    a * b / (a + b)
}

/// Milliamperes through the LED that keys.
#[must_use]
pub fn ptt_led_ma() -> f64 {
    (GPIO_V - LED_V) / R1_PTT_LED * 1e3
}

/// Milliamperes that the PTT output can surely take to the radio's ground, with the worst of the parts: the most that a
/// radio's PTT wire may give.
#[must_use]
pub fn ptt_sink_ma() -> f64 {
    (GPIO_V - 0.3 - LED_WORST_V) / R1_PTT_LED * TRANSFER * 1e3
}

/// Milliamperes through the carrier's LED at one of the voltages of [`R3_CARRIER_LED`].
#[must_use]
pub fn carrier_led_ma(volts: f64, ohm: f64) -> f64 {
    (volts - LED_V) / ohm * 1e3
}

/// Milliamperes that the carrier's transistor has to take for the input to be low.
#[must_use]
pub fn carrier_pull_ma() -> f64 {
    (GPIO_V - SATURATED_V) / parallel(R4_CARRIER_PULL, CHIP_PULL) * 1e3
}

/// Volts RMS at the receive trimmer for each volt of the radio's output.
#[must_use]
pub fn receive_gain() -> f64 {
    let end = parallel(R6_RECEIVE_END, RV1_RECEIVE);
    end / (end + R5_RECEIVE_SERIES)
}

/// Volts RMS at the radio, with the trimmer all the way up, for each volt of the card's output.
#[must_use]
pub fn transmit_gain() -> f64 {
    let pad = R9_TRANSMIT_PAD + RV2_TRANSMIT;
    let end = parallel(R8_TRANSMIT_END, pad);
    end / (end + R7_TRANSMIT_SERIES) * RV2_TRANSMIT / pad
}

/// A ratio of voltages in decibels.
#[must_use]
pub fn decibels(ratio: f64) -> f64 {
    20.0 * ratio.log10()
}

/// A part to buy.
pub struct Part {
    /// What it is called in the drawing.
    pub name: &'static str,
    /// What it is.
    pub value: String,
    /// What it does there.
    pub why: String,
}

/// Ohms as they stand on a part.
#[must_use]
pub fn ohms(ohm: f64) -> String {
    if ohm < 1000.0 { format!("{ohm:.0} Ω") } else { format!("{} kΩ", (ohm / 100.0).round() / 10.0) }
}

/// All parts, in the order of the drawing.
#[must_use]
pub fn parts() -> Vec<Part> {
    let part = |name, value: String, why: String| Part { name, value, why };
    let carrier: Vec<_> = R3_CARRIER_LED.iter().map(|(volts, ohm)| format!("{} at {volts} V", ohms(*ohm))).collect();
    vec![
        part(
            "U1, U2",
            "SFH618A-4, or PC817 of rank C".into(),
            "optocouplers; the rank matters, others pass too little current".into(),
        ),
        part("R1", ohms(R1_PTT_LED), format!("{:.1} mA through the LED of U1 at {GPIO_V} V", ptt_led_ma())),
        part("R2", ohms(R2_PTT_SAFE), "unkeys while the board has no power or the pin is an input".into()),
        part(
            "R3",
            carrier.join(", "),
            "about 2 mA through the LED of U2; choose by the radio's carrier or supply voltage".into(),
        ),
        part("D1", "1N4148".into(), "takes a wrong polarity, or a relay's spike, past the LED".into()),
        part(
            "R4",
            ohms(R4_CARRIER_PULL),
            format!(
                "to 3.3 V: {:.1} mA when the carrier is there, quicker than the chip's own pull-up",
                carrier_pull_ma()
            ),
        ),
        part(
            "T1, T2",
            "audio transformer 600:600 Ω, 300 Hz to 3.4 kHz".into(),
            "no current between box and radio".into(),
        ),
        part(
            "R5, R6",
            format!("{}, {}", ohms(R5_RECEIVE_SERIES), ohms(R6_RECEIVE_END)),
            format!(
                "{:.1} dB from the loudspeaker output, ended with {} as T1 wants",
                decibels(receive_gain()),
                ohms(LINE_OHM)
            ),
        ),
        part("RV1", format!("trimmer {}", ohms(RV1_RECEIVE)), "receive level".into()),
        part("C1", "10 µF".into(), "keeps direct current of the card out of T2".into()),
        part(
            "R7, R8",
            format!("{}, {}", ohms(R7_TRANSMIT_SERIES), ohms(R8_TRANSMIT_END)),
            format!("T2 sees {} on both sides", ohms(LINE_OHM)),
        ),
        part(
            "R9",
            format!("{}, or a wire", ohms(R9_TRANSMIT_PAD)),
            format!(
                "the pad for microphone and 1200 baud inputs: {:.0} dB with RV2 up, {:.0} mV at the radio for a tone of −12 dBFS; a wire for inputs that want more than 100 mV",
                decibels(transmit_gain()),
                transmit_gain() * CARD_V * 250.0
            ),
        ),
        part("RV2", format!("trimmer {}", ohms(RV2_TRANSMIT)), "transmit level".into()),
        part("C2", "1 µF, film".into(), "keeps the supply of the radio's microphone out of RV2".into()),
    ]
}

/// The parts as a table for the documentation.
#[must_use]
pub fn parts_as_markdown() -> String {
    let rows = parts().into_iter().map(|part| format!("| {} | {} | {} |\n", part.name, part.value, part.why));
    format!("| part | value | why |\n| --- | --- | --- |\n{}", rows.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpio_lights_the_led_that_keys_and_the_transistor_takes_what_a_ptt_wire_gives() {
        let current = ptt_led_ma();
        assert!((1.0..=8.0).contains(&current), "{current} mA: a GPIO of a Raspberry Pi drives 8 mA by default");
        // The usual PTT wire is pulled to 8 V through 4.7 kilohm.
        assert!(ptt_sink_ma() > 8.0 / 4.7, "{} mA", ptt_sink_ma());
        const { assert!(GPIO_V / R2_PTT_SAFE < 0.000_5, "the resistor that unkeys costs little") }
    }

    #[test]
    fn the_carrier_takes_the_input_low_with_the_worst_of_the_parts() {
        for (volts, ohm) in R3_CARRIER_LED {
            let current = carrier_led_ma(volts, ohm);
            assert!((1.0..=3.0).contains(&current), "{current} mA at {volts} V");
            let worst = (volts - LED_WORST_V) / (ohm + 1_000.0) * 1e3; // a radio has up to 1 kilohm of its own
            assert!(worst * TRANSFER > 2.0 * carrier_pull_ma(), "{worst} mA at {volts} V: twice what is needed");
        }
        let dark = GPIO_V - 100e-9 * parallel(R4_CARRIER_PULL, CHIP_PULL);
        assert!(dark > 0.8 * GPIO_V, "100 nA of a dark transistor leave the input high");
    }

    #[test]
    fn transformers_see_600_ohms_and_levels_can_be_set_with_room_both_ways() {
        let near = |ohm: f64| (ohm - LINE_OHM).abs() < LINE_OHM / 10.0;
        assert!(near(parallel(R6_RECEIVE_END, RV1_RECEIVE)) && near(R5_RECEIVE_SERIES + 8.0));
        assert!(near(parallel(R8_TRANSMIT_END, R9_TRANSMIT_PAD + RV2_TRANSMIT)) && near(R7_TRANSMIT_SERIES + 32.0));
        // Half a volt of loudspeaker is a comfortable volume; speech should average -18 dBFS, 126 mV.
        assert!(0.5 * receive_gain() > 0.126 * 1.5, "{}", receive_gain());
        // Microphone inputs want about 10 mV, 1200 baud inputs 14 mV, for full deviation.
        let most_mv = transmit_gain() * CARD_V * 250.0;
        assert!((20.0..=40.0).contains(&most_mv), "{most_mv} mV at -12 dBFS");
        let corner = |farad: f64, ohm: f64| 1.0 / (2.0 * std::f64::consts::PI * farad * ohm);
        assert!(corner(C2_MICROPHONE, 2_000.0) < 100.0 && corner(C1_CARD, 1_200.0) < 20.0, "speech begins at 300 Hz");
    }
}
