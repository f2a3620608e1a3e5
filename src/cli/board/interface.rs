//! The interface between the box and a radio as a picture, from the values in [`crate::hardware::interface`].

use crate::hardware::board::Board;
use crate::hardware::interface::{
    R1_PTT_LED, R2_PTT_SAFE, R3_CARRIER_LED, R4_CARRIER_PULL, R5_RECEIVE_SERIES, R6_RECEIVE_END, R7_TRANSMIT_SERIES,
    R8_TRANSMIT_END, R9_TRANSMIT_PAD, RV1_RECEIVE, RV2_TRANSMIT, ohms,
};
use std::fmt::{self, Write};

const WIDTH: i32 = 1240;
const HEIGHT: i32 = 860;
/// Where no current crosses.
const BARRIER: i32 = 600;
/// Where the box's and the radio's wires end.
const BOX: i32 = 150;
const RADIO: i32 = 1035;
/// From a row's upper wire to its lower one.
const DEEP: i32 = 80;
const INK: &str = "#222222";
const BOX_INK: &str = "#1f6fb2";
const RADIO_INK: &str = "#8a3ab9";

/// Draws the interface of the first radio of a board.
///
/// # Errors
/// If the board has no such lines on a header.
pub(super) fn draw(board: &Board) -> anyhow::Result<String> {
    let pin = |name: &str| {
        let line = board.lines.iter().find(|line| line.name.as_str() == name);
        line.and_then(|line| Some(format!("pin {}, GPIO {}", line.pin?, line.offset?)))
    };
    let (Some(ptt), Some(carrier)) = (pin("radio.1.ptt"), pin("radio.1.carrier")) else {
        anyhow::bail!("the profile '{}' has no radio.1.ptt and radio.1.carrier on a header; name another", board.name);
    };
    let mut sketch = Sketch(String::new());
    sketch.all(&ptt, &carrier)?;
    Ok(sketch.0)
}

struct Sketch(String);

impl Sketch {
    fn all(&mut self, ptt: &str, carrier: &str) -> fmt::Result {
        writeln!(
            self.0,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             font-family=\"DejaVu Sans, Verdana, sans-serif\" font-size=\"14\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>"
        )?;
        self.words(WIDTH / 2, 36, "middle", "font-size=\"22\" font-weight=\"bold\"", "One radio, isolated")?;
        self.words(
            WIDTH / 2,
            60,
            "middle",
            "fill=\"#555555\"",
            "no current crosses the dashed line; the two grounds are never connected",
        )?;
        self.words(BOX - 120, 90, "start", &format!("font-weight=\"bold\" fill=\"{BOX_INK}\""), "the box")?;
        self.words(RADIO + 150, 90, "end", &format!("font-weight=\"bold\" fill=\"{RADIO_INK}\""), "the radio")?;
        writeln!(
            self.0,
            "<path d=\"M{BARRIER} 80V{}\" stroke=\"#c0392b\" stroke-width=\"2\" stroke-dasharray=\"9 7\"/>",
            HEIGHT - 40
        )?;
        self.ptt(140, ptt)?;
        self.carrier(350, carrier)?;
        self.receive(530)?;
        self.transmit(690)?;
        self.words(
            WIDTH / 2,
            HEIGHT - 14,
            "middle",
            "fill=\"#555555\" font-size=\"13\"",
            "U1, U2: SFH618A-4 or PC817 of rank C. T1, T2: 600:600 Ω. D1: 1N4148. A dot is a joint; wires that cross without one do not touch.",
        )?;
        writeln!(self.0, "</svg>")
    }

    /// GPIO, R1, the LED of U1; its transistor takes PTT to the radio's ground.
    fn ptt(&mut self, y: i32, pin: &str) -> fmt::Result {
        let low = y + DEEP;
        self.row(y, "PTT")?;
        self.of_box(y, "PTT output", pin)?;
        self.of_box(low, "ground", "pin 14")?;
        self.wire(&[(BOX, y), (330, y)])?;
        self.resistor_down(250, y, "R2", &ohms(R2_PTT_SAFE))?;
        self.resistor(330, y, "R1", &ohms(R1_PTT_LED))?;
        self.wire(&[(410, y), (560, y)])?;
        self.led(560, y)?;
        self.wire(&[(560, low), (BOX, low)])?;
        self.coupler(y, "U1")?;
        self.transistor(640, y)?;
        self.wire(&[(640, y), (RADIO, y)])?;
        self.wire(&[(640, low), (RADIO, low)])?;
        self.light(574, 612, y)?;
        self.of_radio(y, "PTT", "keys when pulled to ground")?;
        self.of_radio(low, "ground", "")
    }

    /// The radio's COR lights the LED of U2; its transistor takes the input to ground.
    fn carrier(&mut self, y: i32, pin: &str) -> fmt::Result {
        let low = y + DEEP;
        self.row(y, "carrier (COR)")?;
        self.of_box(y, "carrier input", pin)?;
        self.of_box(low, "ground", "pin 14")?;
        self.wire(&[(BOX, y), (560, y)])?;
        self.resistor_down(330, y - DEEP, "R4", &ohms(R4_CARRIER_PULL))?;
        self.wire(&[(330, y - DEEP), (BOX, y - DEEP)])?;
        self.of_box(y - DEEP, "3.3 V", "pin 17")?;
        self.transistor_left(560, y)?;
        self.wire(&[(560, low), (BOX, low)])?;
        self.coupler(y, "U2")?;
        self.led(640, y)?;
        self.light(626, 588, y)?;
        self.wire(&[(640, y), (820, y)])?;
        self.diode_up(730, y, "D1")?;
        let values: Vec<_> = R3_CARRIER_LED.iter().map(|(volts, ohm)| format!("{} at {volts} V", ohms(*ohm))).collect();
        self.resistor(820, y, "R3", &values.join(", "))?;
        self.wire(&[(900, y), (RADIO, y)])?;
        self.wire(&[(640, low), (RADIO, low)])?;
        self.of_radio(y, "COR", "high when the squelch opens")?;
        self.of_radio(low, "ground", "or an open collector COR,")?;
        self.words(RADIO + 14, low + 36, "start", "fill=\"#555555\" font-size=\"12\"", "with R3 at the radio's +")
    }

    /// The radio's loudspeaker, R5, T1 ended with R6, RV1, the card's input.
    fn receive(&mut self, y: i32) -> fmt::Result {
        let low = y + DEEP;
        self.row(y, "receive audio")?;
        self.of_box(y, "card: line in", "left and right")?;
        self.of_box(low, "card: ground", "")?;
        self.trimmer(330, y, "RV1", &ohms(RV1_RECEIVE), true)?;
        self.wire(&[(BOX, y), (270, y), (270, y + DEEP / 2), (314, y + DEEP / 2)])?;
        self.resistor_down(450, y, "R6", &ohms(R6_RECEIVE_END))?;
        self.wire(&[(330, y), (575, y)])?;
        self.wire(&[(BOX, low), (575, low)])?;
        self.transformer(y, "T1")?;
        self.wire(&[(625, y), (820, y)])?;
        self.resistor(820, y, "R5", &ohms(R5_RECEIVE_SERIES))?;
        self.wire(&[(900, y), (RADIO, y)])?;
        self.wire(&[(625, low), (RADIO, low)])?;
        self.of_radio(y, "loudspeaker +", "0.5 to 2 V")?;
        self.of_radio(low, "loudspeaker −", "need not be ground")
    }

    /// The card's output, C1, R7, T2 ended with R8, the pad R9 and RV2, C2, the radio's microphone input.
    fn transmit(&mut self, y: i32) -> fmt::Result {
        let low = y + DEEP;
        self.row(y, "transmit audio")?;
        self.of_box(y, "card: line out", "left")?;
        self.of_box(low, "card: ground", "")?;
        self.capacitor(230, y, "C1", "10 µF")?;
        self.wire(&[(BOX, y), (226, y)])?;
        self.wire(&[(238, y), (330, y)])?;
        self.resistor(330, y, "R7", &ohms(R7_TRANSMIT_SERIES))?;
        self.wire(&[(410, y), (575, y)])?;
        self.wire(&[(BOX, low), (575, low)])?;
        self.transformer(y, "T2")?;
        self.wire(&[(625, y), (770, y)])?;
        self.resistor_down(710, y, "R8", &ohms(R8_TRANSMIT_END))?;
        self.resistor(770, y, "R9", &ohms(R9_TRANSMIT_PAD))?;
        self.wire(&[(850, y), (910, y)])?;
        self.trimmer(910, y, "RV2", &ohms(RV2_TRANSMIT), false)?;
        self.wire(&[(926, y + DEEP / 2), (975, y + DEEP / 2), (975, y), (1000, y)])?;
        self.capacitor(1004, y, "C2", "1 µF")?;
        self.wire(&[(1012, y), (RADIO, y)])?;
        self.wire(&[(625, low), (RADIO, low)])?;
        self.of_radio(y, "microphone", "or data in, 1200 baud")?;
        self.of_radio(low, "ground", "of the microphone")
    }

    // ---- parts ----

    fn words(&mut self, x: i32, y: i32, anchor: &str, style: &str, text: &str) -> fmt::Result {
        writeln!(self.0, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\" {style}>{text}</text>")
    }

    fn row(&mut self, y: i32, name: &str) -> fmt::Result {
        self.words(BARRIER - 40, y - 14, "end", "font-weight=\"bold\" fill=\"#777777\"", name)
    }

    fn end(&mut self, x: i32, y: i32, ink: &str) -> fmt::Result {
        writeln!(
            self.0,
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"5\" fill=\"#ffffff\" stroke=\"{ink}\" stroke-width=\"2.5\"/>"
        )
    }

    fn of_box(&mut self, y: i32, name: &str, place: &str) -> fmt::Result {
        self.end(BOX, y, BOX_INK)?;
        self.words(BOX - 14, y + 1, "end", &format!("fill=\"{BOX_INK}\" font-weight=\"bold\""), name)?;
        self.words(BOX - 14, y + 17, "end", "fill=\"#555555\" font-size=\"12\"", place)
    }

    fn of_radio(&mut self, y: i32, name: &str, what: &str) -> fmt::Result {
        self.end(RADIO, y, RADIO_INK)?;
        self.words(RADIO + 14, y + 1, "start", &format!("fill=\"{RADIO_INK}\" font-weight=\"bold\""), name)?;
        self.words(RADIO + 14, y + 17, "start", "fill=\"#555555\" font-size=\"12\"", what)
    }

    fn wire(&mut self, points: &[(i32, i32)]) -> fmt::Result {
        // A wire ends at the ring, not in it.
        let at_ring = |x: i32| match x {
            BOX => BOX + 6,
            RADIO => RADIO - 6,
            x => x,
        };
        let path: Vec<_> = points.iter().map(|(x, y)| format!("{} {y}", at_ring(*x))).collect();
        self.path(&format!("M{}", path.join("L")), "none")
    }

    fn path(&mut self, path: &str, fill: &str) -> fmt::Result {
        writeln!(
            self.0,
            "<path d=\"{path}\" fill=\"{fill}\" stroke=\"{INK}\" stroke-width=\"2\" stroke-linejoin=\"round\"/>"
        )
    }

    fn joint(&mut self, x: i32, y: i32) -> fmt::Result {
        writeln!(self.0, "<circle cx=\"{x}\" cy=\"{y}\" r=\"4\" fill=\"{INK}\"/>")
    }

    fn named(&mut self, x: i32, y: i32, anchor: &str, name: &str, value: &str) -> fmt::Result {
        self.words(x, y, anchor, "", &format!("<tspan font-weight=\"bold\">{name}</tspan> {value}"))
    }

    /// 80 wide, from `x`.
    fn resistor(&mut self, x: i32, y: i32, name: &str, value: &str) -> fmt::Result {
        self.wire(&[(x, y), (x + 15, y)])?;
        self.path(&format!("M{} {}h50v16h-50z", x + 15, y - 8), "#ffffff")?;
        self.wire(&[(x + 65, y), (x + 80, y)])?;
        self.named(x + 40, y - 16, "middle", name, value)
    }

    /// From the upper wire at `y` to the lower one, with joints.
    fn resistor_down(&mut self, x: i32, y: i32, name: &str, value: &str) -> fmt::Result {
        self.standing(x, y)?;
        self.named(x + 16, y + DEEP / 2 + 5, "start", name, value)
    }

    fn standing(&mut self, x: i32, y: i32) -> fmt::Result {
        self.wire(&[(x, y), (x, y + 18)])?;
        self.path(&format!("M{} {}h16v44h-16z", x - 8, y + 18), "#ffffff")?;
        self.wire(&[(x, y + 62), (x, y + DEEP)])?;
        self.joint(x, y)?;
        self.joint(x, y + DEEP)
    }

    /// A standing resistor with a wiper on its left or right.
    fn trimmer(&mut self, x: i32, y: i32, name: &str, value: &str, wiper_left: bool) -> fmt::Result {
        self.standing(x, y)?;
        let middle = y + DEEP / 2;
        let (side, anchor, label) = if wiper_left { (-1, "start", x + 16) } else { (1, "end", x - 16) };
        self.path(&format!("M{} {middle}l{} -6v12z", x + side * 8, side * 10), INK)?;
        self.named(label, middle + 5, anchor, name, value)
    }

    fn capacitor(&mut self, x: i32, y: i32, name: &str, value: &str) -> fmt::Result {
        self.path(&format!("M{} {}v28M{} {}v28", x - 4, y - 14, x + 8, y - 14), "none")?;
        writeln!(self.0, "<path d=\"M{} {y}h10\" stroke=\"#ffffff\" stroke-width=\"3\"/>", x - 2)?;
        self.named(x + 2, y - 20, "middle", name, value)
    }

    /// The frame of an optocoupler around the barrier.
    fn coupler(&mut self, y: i32, name: &str) -> fmt::Result {
        writeln!(
            self.0,
            "<rect x=\"{}\" y=\"{}\" width=\"132\" height=\"{}\" rx=\"4\" fill=\"none\" stroke=\"#888888\"/>",
            BARRIER - 66,
            y + 6,
            DEEP - 12
        )?;
        self.words(BARRIER + 8, y - 4, "start", "font-weight=\"bold\"", name)
    }

    /// From the upper wire, its anode, to the lower one.
    fn led(&mut self, x: i32, y: i32) -> fmt::Result {
        let middle = y + DEEP / 2;
        self.wire(&[(x, y), (x, y + DEEP)])?;
        self.path(&format!("M{} {}h24l-12 18z", x - 12, middle - 9), "#ffffff")?;
        self.path(&format!("M{} {}h24", x - 12, middle + 9), "none")
    }

    /// A diode whose anode is at the lower wire.
    fn diode_up(&mut self, x: i32, y: i32, name: &str) -> fmt::Result {
        let middle = y + DEEP / 2;
        self.wire(&[(x, y), (x, y + DEEP)])?;
        self.path(&format!("M{} {}h24l-12 -18z", x - 12, middle + 9), "#ffffff")?;
        self.path(&format!("M{} {}h24", x - 12, middle - 9), "none")?;
        self.joint(x, y)?;
        self.joint(x, y + DEEP)?;
        self.words(x + 18, middle + 5, "start", "font-weight=\"bold\"", name)
    }

    /// Two arrows of light.
    fn light(&mut self, from: i32, to: i32, y: i32) -> fmt::Result {
        let back = if to > from { -6 } else { 6 };
        for y in [y + DEEP / 2 - 5, y + DEEP / 2 + 5] {
            self.path(&format!("M{from} {y}H{to}M{} {}L{to} {y}L{} {}", to + back, y - 3, to + back, y + 3), "none")?;
        }
        Ok(())
    }

    /// Its collector is the upper wire; light comes from the left.
    fn transistor(&mut self, x: i32, y: i32) -> fmt::Result {
        self.phototransistor(x, y, -1)
    }

    /// The same with light from the right.
    fn transistor_left(&mut self, x: i32, y: i32) -> fmt::Result {
        self.phototransistor(x, y, 1)
    }

    fn phototransistor(&mut self, x: i32, y: i32, side: i32) -> fmt::Result {
        let (middle, base) = (y + DEEP / 2, x + side * 20);
        self.path(&format!("M{base} {}v28", middle - 14), "none")?;
        self.path(&format!("M{base} {}L{x} {}V{y}", middle - 5, middle - 20), "none")?;
        self.path(&format!("M{base} {}L{x} {}V{}", middle + 5, middle + 20, y + DEEP), "none")?;
        // The emitter's arrow, away from the base.
        let (tip_x, tip_y) = (base - side * 15, middle + 16);
        self.path(&format!("M{tip_x} {tip_y}l{} 0l{} -8z", side * 10, -side * 4), INK)
    }

    /// Two windings at the barrier, from the upper wires to the lower ones.
    fn transformer(&mut self, y: i32, name: &str) -> fmt::Result {
        for (x, sweep) in [(BARRIER - 25, 1), (BARRIER + 25, 0)] {
            let humps = format!("a10 10 0 0 {sweep} 0 20").repeat(4);
            self.path(&format!("M{x} {y}{humps}"), "none")?;
        }
        self.path(&format!("M{} {}v{}M{} {}v{}", BARRIER - 5, y + 4, DEEP - 8, BARRIER + 5, y + 4, DEEP - 8), "none")?;
        self.words(BARRIER + 8, y - 10, "start", "font-weight=\"bold\"", name)
    }
}
