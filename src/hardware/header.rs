//! The 40-pin header of a Raspberry Pi: which pin carries which GPIO, its pull after reset, what else wants it.
//!
//! Facts only. What a profile makes of them is judged in [`super::board`].

use super::board::Bias;

/// A GPIO that the header carries. Bank and number are those of the chip: BCM2835 and its successors, RP1 on the Pi 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpio {
    /// Its BCM number, which is its offset on the chip.
    pub offset: u32,
    /// The pin of the header.
    pub pin: u8,
    /// The resistor that holds it after reset, until somebody asks for something else.
    pub reset: Bias,
    /// What uses it on many boxes, so that a profile had better not.
    pub reserved: Option<&'static str>,
}

const HAT: &str = "the EEPROM of a HAT";
const I2C: &str = "I2C, with 1.8 kilohm to 3.3 V on the board: the control bus of sound cards";
const UART: &str = "the serial console";
const I2S: &str = "I2S: the sound of a sound card";

/// The pin of each GPIO, by number.
const PIN_OF: [u8; 28] =
    [27, 28, 3, 5, 7, 29, 31, 26, 24, 21, 19, 23, 32, 33, 8, 10, 36, 11, 12, 35, 38, 40, 15, 16, 18, 22, 37, 13];

/// All GPIOs of the header, by number.
pub const GPIOS: [Gpio; 28] = {
    let mut all = [of(0); 28];
    let mut offset = 1;
    while offset < 28 {
        all[offset as usize] = of(offset);
        offset += 1;
    }
    all
};

const fn of(offset: u32) -> Gpio {
    let reserved = match offset {
        0 | 1 => Some(HAT),
        2 | 3 => Some(I2C),
        14 | 15 => Some(UART),
        18..=21 => Some(I2S),
        _ => None,
    };
    let reset = if offset <= 8 { Bias::PullUp } else { Bias::PullDown };
    Gpio { offset, pin: PIN_OF[offset as usize], reset, reserved }
}

/// Pins of the header.
pub const PINS: u8 = 40;

/// What a pin of the header is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// A supply of 3.3 V.
    Supply3V3,
    /// A supply of 5 V, which no GPIO survives.
    Supply5V,
    /// Ground.
    Ground,
    /// A GPIO.
    Gpio(Gpio),
}

/// What pin `number`, from 1, is; `None` if the header has no such pin.
#[must_use]
pub fn pin(number: u8) -> Option<Pin> {
    match number {
        1 | 17 => Some(Pin::Supply3V3),
        2 | 4 => Some(Pin::Supply5V),
        6 | 9 | 14 | 20 | 25 | 30 | 34 | 39 => Some(Pin::Ground),
        _ => GPIOS.iter().find(|gpio| gpio.pin == number).copied().map(Pin::Gpio),
    }
}

/// The GPIO with a BCM number.
#[must_use]
pub fn gpio(offset: u32) -> Option<Gpio> {
    GPIOS.iter().find(|gpio| gpio.offset == offset).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pin_of_the_header_is_one_thing() {
        let kinds: Vec<_> = (1..=PINS).map(|n| pin(n).unwrap_or_else(|| panic!("pin {n} is nothing"))).collect();
        let count = |kind| kinds.iter().filter(|k| **k == kind).count();
        assert_eq!((count(Pin::Supply3V3), count(Pin::Supply5V), count(Pin::Ground)), (2, 2, 8));
        let mut offsets: Vec<_> =
            kinds.iter().filter_map(|k| if let Pin::Gpio(g) = k { Some(g.offset) } else { None }).collect();
        offsets.sort_unstable();
        assert_eq!(offsets, (0..28).collect::<Vec<_>>());
        assert_eq!((pin(0), pin(41), gpio(28)), (None, None, None));
    }

    #[test]
    fn numbers_and_pulls_are_those_of_the_chip() {
        for (number, gpio) in (0..).zip(GPIOS) {
            assert_eq!(gpio.offset, number);
            assert_eq!(gpio.reset, if number <= 8 { Bias::PullUp } else { Bias::PullDown });
        }
    }
}
