//! A Raspberry Pi's pins through `rppal`.
//!
//! Its outputs are register writes: the level stays when the process dies, and `gpioinfo` shows nobody who holds them.
//! So every way out of the program makes them safe here, and the board must have a pull or relay that unkeys. Its chip
//! never goes.

use super::{Direction, Edge, GapFinder, GpioError, LineEvent, LineSpec, Lines, Safety, Wake, is_meant};
use crate::base::clock::mono_now;
use crate::base::{Beat, LineName, Mono, Pulse};
use crate::hardware::board::{Bias, Board, Line};
use rppal::gpio::{Gpio, InputPin, Level, OutputPin, Pin, Trigger};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Edges that may wait to be read.
const QUEUE: usize = 256;
/// How long the reader waits for an edge before it looks whether it shall end; `rppal` offers no bell.
const ROUND: Duration = Duration::from_millis(500);

/// Pins by name; true if the low level is the active one.
type Inputs = BTreeMap<LineName, (InputPin, bool)>;
type Outputs = BTreeMap<LineName, (OutputPin, bool)>;

fn lock(outputs: &Mutex<Outputs>) -> MutexGuard<'_, Outputs> {
    outputs.lock().unwrap_or_else(PoisonError::into_inner)
}

fn make_safe(outputs: &Mutex<Outputs>, meant: Option<&LineName>) {
    for (_, (pin, low)) in lock(outputs).iter_mut().filter(|(line, _)| is_meant(meant, line)) {
        pin.write(if *low { Level::High } else { Level::Low });
    }
}

fn failed(line: &Line, e: rppal::gpio::Error) -> GpioError {
    GpioError::Device { line: line.name.clone(), reason: e.to_string() }
}

/// The lines of a Raspberry Pi.
pub struct RppalLines {
    specs: Vec<LineSpec>,
    inputs: Arc<Inputs>,
    outputs: Arc<Mutex<Outputs>>,
    edges: Receiver<Edge>,
    gaps: GapFinder,
    /// Lines that could not be had, said once.
    gone: Vec<LineEvent>,
    refused: Vec<String>,
    reader: Option<Reader>,
}

/// The thread that reads the pins.
struct Reader {
    beat: Arc<Beat>,
    stop: Arc<AtomicBool>,
    failed: Arc<OnceLock<String>>,
    thread: JoinHandle<()>,
}

impl RppalLines {
    /// Takes the pins of `wanted`; outputs are at their safe level from the first moment. A pin that cannot be had is a
    /// fault of its own. `wake` is called after each edge.
    ///
    /// # Errors
    /// If this is no Raspberry Pi, or its registers are closed to us.
    pub fn open(board: &Board, wanted: &[LineSpec], wake: &Wake) -> Result<Self, GpioError> {
        let (mut inputs, mut outputs) = (Inputs::new(), Outputs::new());
        let (mut gone, mut refused) = (Vec::new(), Vec::new());
        let lines = board.lines.iter().filter(|l| wanted.iter().any(|w| w.name == l.name));
        for line in lines {
            let gpio = Gpio::new().map_err(|e| failed(line, e))?;
            let offset = line.offset.and_then(|offset| u8::try_from(offset).ok()).unwrap_or(u8::MAX);
            let name = line.name.clone();
            let taken = gpio.get(offset).and_then(|pin| match line.direction {
                Direction::Output => {
                    let pin = if line.active_low { pin.into_output_high() } else { pin.into_output_low() };
                    outputs.insert(name, (pin, line.active_low));
                    Ok(())
                }
                Direction::Input => input(pin, line).map(|pin| drop(inputs.insert(name, (pin, line.active_low)))),
            });
            if let Err(e) = taken {
                refused.push(failed(line, e).to_string());
                if line.direction == Direction::Input {
                    gone.push(LineEvent::Gone { line: line.name.clone(), stamp: mono_now() });
                }
            }
        }
        let (sender, edges) = sync_channel(QUEUE);
        let inputs = Arc::new(inputs);
        let told = wake.clone();
        let tell = move |edge| {
            // A full queue loses the edge; the gap in the sequence tells.
            if sender.try_send(edge).is_ok() {
                told();
            }
        };
        let reader = if inputs.is_empty() { None } else { Reader::start(inputs.clone(), tell, wake.clone()) };
        if reader.is_none() && !inputs.is_empty() {
            refused.push("gpio inputs cannot be read: no thread can be started; restart the gateway".into());
        }
        let (specs, outputs) = (wanted.to_vec(), Arc::new(Mutex::new(outputs)));
        Ok(RppalLines { specs, inputs, outputs, edges, gaps: GapFinder::default(), gone, refused, reader })
    }
}

/// An input that counts its edges from now on.
fn input(pin: Pin, line: &Line) -> rppal::gpio::Result<InputPin> {
    let mut pin = match line.bias {
        Bias::Off => pin.into_input(),
        Bias::PullUp => pin.into_input_pullup(),
        Bias::PullDown => pin.into_input_pulldown(),
    };
    pin.set_interrupt(Trigger::Both, Some(Duration::from_millis(line.debounce_ms)))?;
    Ok(pin)
}

impl Reader {
    fn start(inputs: Arc<Inputs>, tell: impl Fn(Edge) + Send + 'static, wake: Wake) -> Option<Self> {
        let gpio = Gpio::new().ok()?;
        let (beat, stop, failed) = (Beat::new(), Arc::new(AtomicBool::new(false)), Arc::new(OnceLock::new()));
        let (answers, told, failure) = (beat.clone(), stop.clone(), failed.clone());
        let run = move || {
            let pins: Vec<&InputPin> = inputs.values().map(|(pin, _)| pin).collect();
            while !told.load(Ordering::Acquire) {
                match gpio.poll_interrupts(&pins, false, Some(ROUND)) {
                    Ok(None) => {}
                    Ok(Some((pin, event))) => {
                        let Some((name, (_, low))) = inputs.iter().find(|(_, (p, _))| p.pin() == pin.pin()) else {
                            continue;
                        };
                        let active = (event.trigger == Trigger::RisingEdge) != *low;
                        let stamp = Mono(u64::try_from(event.timestamp.as_nanos()).unwrap_or(u64::MAX));
                        tell(Edge { line: name.clone(), active, stamp, sequence: event.seqno });
                    }
                    Err(e) => {
                        failure.set(format!("gpio inputs are not read any more: {e}; restart the gateway")).ok();
                        return wake();
                    }
                }
                answers.answer();
            }
        };
        let thread = std::thread::Builder::new().name("gpio".into()).spawn(run).ok()?;
        Some(Reader { beat, stop, failed, thread })
    }
}

impl Lines for RppalLines {
    fn specs(&self) -> &[LineSpec] {
        &self.specs
    }

    fn drain(&mut self) -> Vec<LineEvent> {
        let mut events = std::mem::take(&mut self.gone);
        let mut edges: Vec<Edge> = self.edges.try_iter().collect();
        edges.sort_by_key(|edge| edge.stamp);
        let inputs = &self.inputs;
        events.extend(self.gaps.judge(edges, |line| inputs.get(line).is_some_and(|(pin, low)| pin.is_low() == *low)));
        events
    }

    fn level(&self, line: &LineName) -> Result<bool, GpioError> {
        let input = self.inputs.get(line).map(|(pin, low)| pin.is_low() == *low);
        let output = || lock(&self.outputs).get(line).map(|(pin, low)| pin.is_set_low() == *low);
        input.or_else(output).ok_or_else(|| GpioError::Unknown(line.clone()))
    }

    fn set(&mut self, line: &LineName, active: bool) -> Result<(), GpioError> {
        if self.inputs.contains_key(line) {
            return Err(GpioError::NotAnOutput(line.clone()));
        }
        let mut outputs = lock(&self.outputs);
        let (pin, low) = outputs.get_mut(line).ok_or_else(|| GpioError::Unknown(line.clone()))?;
        pin.write(if active == *low { Level::Low } else { Level::High });
        Ok(())
    }

    fn safe(&mut self) {
        make_safe(&self.outputs, None);
    }

    fn safety(&self) -> Safety {
        let outputs = self.outputs.clone();
        Arc::new(move |meant| make_safe(&outputs, meant))
    }

    fn fault(&self) -> Option<String> {
        let failed = self.reader.as_ref().and_then(|reader| reader.failed.get());
        let all: Vec<&str> = failed.into_iter().chain(&self.refused).map(String::as_str).collect();
        (!all.is_empty()).then(|| all.join(". "))
    }

    fn pulse(&self) -> Option<Pulse> {
        self.reader.as_ref().map(|reader| Pulse::of_itself(reader.beat.clone()))
    }
}

impl Drop for RppalLines {
    fn drop(&mut self) {
        self.safe();
        lock(&self.outputs).clear(); // pins become inputs again, also if somebody still has the safety handle
        if let Some(reader) = self.reader.take() {
            reader.stop.store(true, Ordering::Release);
            reader.thread.join().ok();
        }
    }
}
