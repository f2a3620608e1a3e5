//! A Raspberry Pi's pins through `rppal`.
//!
//! Its outputs are register writes: the level stays when the process dies. So every way out of the program makes them
//! safe here, and the board must have a pull or relay that unkeys.

use super::{Direction, Edge, GapFinder, GpioError, LineEvent, LineSpec, Lines, Safety, Wake};
use crate::base::{LineName, Mono};
use crate::hardware::board::{Bias, Board, Line};
use rppal::gpio::{Gpio, InputPin, Level, OutputPin, Trigger};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Edges that may wait to be read.
const QUEUE: usize = 256;

/// Pins by name; true if the low level is the active one.
type Outputs = BTreeMap<LineName, (OutputPin, bool)>;

fn make_safe(outputs: &Mutex<Outputs>) {
    for (pin, low) in lock(outputs).values_mut() {
        pin.write(if *low { Level::High } else { Level::Low });
    }
}

fn lock(outputs: &Mutex<Outputs>) -> MutexGuard<'_, Outputs> {
    outputs.lock().expect("writing a register does not panic")
}

/// The lines of a Raspberry Pi.
pub struct RppalLines {
    specs: Vec<LineSpec>,
    inputs: BTreeMap<LineName, (InputPin, bool)>,
    outputs: Arc<Mutex<Outputs>>,
    edges: Receiver<Edge>,
    gaps: GapFinder,
}

fn failed(line: &Line, e: rppal::gpio::Error) -> GpioError {
    GpioError::Device { line: line.name.clone(), reason: e.to_string() }
}

impl RppalLines {
    /// Takes the pins of `wanted`; outputs are at their safe level from the first moment. `wake` is called after each edge.
    ///
    /// # Errors
    /// If this is no Raspberry Pi, or a pin is taken.
    pub fn open(board: &Board, wanted: &[LineSpec], wake: &Wake) -> Result<Self, GpioError> {
        let (sender, edges) = sync_channel(QUEUE);
        let (mut inputs, mut outputs) = (BTreeMap::new(), Outputs::new());
        let lines = board.lines.iter().filter(|l| wanted.iter().any(|w| w.name == l.name));
        for line in lines {
            let gpio = Gpio::new().map_err(|e| failed(line, e))?;
            let pin = gpio
                .get(line.offset.and_then(|o| u8::try_from(o).ok()).unwrap_or(u8::MAX))
                .map_err(|e| failed(line, e))?;
            let active = if line.active_low { Level::Low } else { Level::High };
            match line.direction {
                Direction::Output => {
                    let pin = if line.active_low { pin.into_output_high() } else { pin.into_output_low() };
                    outputs.insert(line.name.clone(), (pin, line.active_low));
                }
                Direction::Input => {
                    let mut pin = match line.bias {
                        Bias::Off => pin.into_input(),
                        Bias::PullUp => pin.into_input_pullup(),
                        Bias::PullDown => pin.into_input_pulldown(),
                    };
                    let (name, sender, wake) = (line.name.clone(), sender.clone(), wake.clone());
                    let debounce = Some(Duration::from_millis(line.debounce_ms));
                    pin.set_async_interrupt(Trigger::Both, debounce, move |event| {
                        let level = if event.trigger == Trigger::RisingEdge { Level::High } else { Level::Low };
                        let stamp = Mono(u64::try_from(event.timestamp.as_nanos()).unwrap_or(u64::MAX));
                        let edge = Edge { line: name.clone(), active: level == active, stamp, sequence: event.seqno };
                        // A full queue loses the edge; the gap in the sequence tells.
                        if sender.try_send(edge).is_ok() {
                            wake();
                        }
                    })
                    .map_err(|e| failed(line, e))?;
                    inputs.insert(line.name.clone(), (pin, line.active_low));
                }
            }
        }
        let outputs = Arc::new(Mutex::new(outputs));
        Ok(RppalLines { specs: wanted.to_vec(), inputs, outputs, edges, gaps: GapFinder::default() })
    }
}

impl Lines for RppalLines {
    fn specs(&self) -> &[LineSpec] {
        &self.specs
    }

    fn drain(&mut self) -> Vec<LineEvent> {
        let edges = self.edges.try_iter().collect();
        let inputs = &self.inputs;
        self.gaps.judge(edges, |line| inputs.get(line).is_some_and(|(pin, low)| pin.is_low() == *low))
    }

    fn level(&self, line: &LineName) -> Result<bool, GpioError> {
        let input = self.inputs.get(line).map(|(pin, low)| pin.is_low() == *low);
        let output = || lock(&self.outputs).get(line).map(|(pin, low)| pin.is_set_low() == *low);
        input.or_else(output).ok_or_else(|| GpioError::Unknown(line.clone()))
    }

    fn set(&mut self, line: &LineName, active: bool) -> Result<(), GpioError> {
        let mut outputs = lock(&self.outputs);
        let (pin, low) = outputs.get_mut(line).ok_or_else(|| GpioError::NotAnOutput(line.clone()))?;
        pin.write(if active == *low { Level::Low } else { Level::High });
        Ok(())
    }

    fn safe(&mut self) {
        make_safe(&self.outputs);
    }

    fn safety(&self) -> Safety {
        let outputs = self.outputs.clone();
        Arc::new(move || make_safe(&outputs))
    }

    fn fault(&self) -> Option<String> {
        None
    }
}

impl Drop for RppalLines {
    fn drop(&mut self) {
        self.safe();
    }
}
