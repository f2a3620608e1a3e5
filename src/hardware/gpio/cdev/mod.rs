//! The kernel's GPIO character device, uAPI v2: any board that runs Linux.
//!
//! Each line has a request of its own, so that a line that cannot be had costs only itself, and every line shows in
//! `gpioinfo` under its own name. The kernel debounces, stamps edges and numbers them.
//!
//! What happens under `/dev`, the edges and a retry timer meet in one epoll, [`Watch`]. The loop's thread reads from it
//! without ever waiting; [`reader::Reader`] waits on it and only wakes the loop.
//!
//! **Invariant:** an output is at its safe level from the moment it is requested, and when the lines are dropped.
//!
//! **Invariant:** a line that comes back has the level that was last set; one that was made safe stays safe.

mod chips;
mod reader;

use super::{Direction, Edge, GapFinder, GpioError, LineEvent, LineSpec, Lines, Safety, Wake, is_meant};
use crate::base::clock::mono_now;
use crate::base::{LineName, Mono, Pulse};
use crate::hardware::board::{Bias, Board, Line};
use chips::{CONSUMER, Chips, Missing, PREFIX, Place};
use gpiocdev::Request;
use gpiocdev::line::{EdgeDetection, EdgeKind, EventClock, Value};
use reader::Reader;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::fs::inotify;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::io;
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Edges of one line that the kernel keeps until they are read; with a debounce of 5 ms enough for 300 ms of chatter.
const KERNEL_QUEUE: u16 = 64;
/// How often a line that somebody else holds is tried.
const RETRY_S: i64 = 1;
/// What the kernel keeps of a consumer's name, in bytes.
const CONSUMER_BYTES: usize = 31;

/// A line and what it is held by.
struct Slot {
    line: Line,
    held: Mutex<Held>,
}

struct Held {
    request: Option<Request>,
    /// The level that an output was last set to.
    active: bool,
}

impl Slot {
    /// Never poisoned for long: also after a panic outputs must be made safe.
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_input(&self) -> bool {
        self.line.direction == Direction::Input
    }

    fn failed(&self, reason: impl ToString) -> GpioError {
        GpioError::Device { line: self.line.name.clone(), reason: reason.to_string() }
    }

    fn level(&self) -> Result<bool, GpioError> {
        let held = self.lock();
        let request = held.request.as_ref().ok_or_else(|| self.failed("it is not there now"))?;
        request.lone_value().map(|value| value == Value::Active).map_err(|e| self.failed(e))
    }

    fn make_safe(&self) {
        let mut held = self.lock();
        held.active = false;
        if let Some(Err(e)) = held.request.as_ref().map(|r| r.set_lone_value(Value::Inactive)) {
            tracing::error!("{}", self.failed(e)); // nothing else to be done: a chip that is gone drives nothing
        }
    }
}

fn make_safe(slots: &[Slot], meant: Option<&LineName>) {
    let outputs = slots.iter().filter(|slot| !slot.is_input() && is_meant(meant, &slot.line.name));
    outputs.for_each(Slot::make_safe);
}

/// What there is, without asking for a single line.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Labels of the chips that may be opened.
    pub chips: Vec<String>,
    /// Lines that cannot be had now, each with what to do.
    pub missing: Vec<(LineName, String)>,
}

/// Looks for `lines` on the chips that the kernel has now.
#[must_use]
pub fn survey(lines: &[Line]) -> Survey {
    let chips = Chips::scan();
    let missing = lines.iter().filter_map(|line| Some((line.name.clone(), chips.find(line).err()?.why().to_owned())));
    Survey { missing: missing.collect(), chips: chips.labels() }
}

/// What `gpioinfo` shows: `crosspatch button.1`.
fn consumer(line: &LineName) -> String {
    let mut name = format!("{CONSUMER}{line}");
    while name.len() > CONSUMER_BYTES {
        name.pop();
    }
    name
}

fn request(line: &Line, place: &Place, active: bool) -> gpiocdev::Result<Request> {
    let mut builder = Request::builder();
    builder.on_chip(&place.chip).with_consumer(consumer(&line.name)).with_line(place.offset);
    let pull = match line.bias {
        Bias::PullUp => Some(gpiocdev::line::Bias::PullUp),
        Bias::PullDown => Some(gpiocdev::line::Bias::PullDown),
        Bias::Off => None,
    };
    match line.direction {
        Direction::Input => builder
            .as_input()
            .with_bias(pull.unwrap_or(gpiocdev::line::Bias::Disabled))
            .with_debounce_period(Duration::from_millis(line.debounce_ms))
            .with_edge_detection(EdgeDetection::BothEdges)
            .with_event_clock(EventClock::Monotonic)
            .with_kernel_event_buffer_size(KERNEL_QUEUE.into()),
        // Without a pull of the profile's own the one after reset stays.
        Direction::Output => builder.as_output(if active { Value::Active } else { Value::Inactive }).with_bias(pull),
    };
    if line.active_low {
        builder.as_active_low();
    }
    builder.request()
}

/// Lines count from 0; these are none.
const DEVICES: u64 = u64::MAX;
const RETRY: u64 = u64::MAX - 1;

/// One epoll for everything that may happen: edges of each line, chips that come and go, the retry timer.
struct Watch {
    all: OwnedFd,
    /// Changes under `/dev`; without them lines are tried every second while one is missing.
    devices: Option<OwnedFd>,
    retry: OwnedFd,
}

impl Watch {
    fn new() -> io::Result<Self> {
        let all = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let retry = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        epoll::add(&all, &retry, epoll::EventData::new_u64(RETRY), epoll::EventFlags::IN)?;
        let devices = watch_devices().and_then(|devices| {
            epoll::add(&all, &devices, epoll::EventData::new_u64(DEVICES), epoll::EventFlags::IN)?;
            Ok(devices)
        });
        let devices = devices.inspect_err(|e| tracing::warn!("chips that come and go are noticed late: {e}")).ok();
        Ok(Watch { all, devices, retry })
    }

    fn add(&self, line: usize, request: &Request) -> io::Result<()> {
        let data = epoll::EventData::new_u64(line as u64);
        Ok(epoll::add(&self.all, request, data, epoll::EventFlags::IN)?)
    }

    /// Reads what happened under `/dev`; true if a chip came, went or was opened to us.
    fn chips_changed(&self) -> bool {
        let Some(devices) = &self.devices else { return false };
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut news = inotify::Reader::new(devices, &mut space);
        let mut changed = false;
        while let Ok(event) = news.next() {
            // No name: the kernel's queue was too short.
            changed |= event.file_name().is_none_or(|name| name.to_bytes().starts_with(PREFIX.as_bytes()));
        }
        changed
    }

    fn arm_retry(&self, on: bool) {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let due = Timespec { tv_sec: if on { RETRY_S } else { 0 }, tv_nsec: 0 };
        let once = Itimerspec { it_interval: zero, it_value: due };
        if let Err(e) = timerfd_settime(&self.retry, TimerfdTimerFlags::empty(), &once) {
            tracing::error!("missing gpio lines are tried again only when a chip comes: {e}");
        }
    }
}

fn watch_devices() -> rustix::io::Result<OwnedFd> {
    let devices = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    // Attributes: udev opens a new chip to the service's group a moment after it came.
    let what = inotify::WatchFlags::CREATE | inotify::WatchFlags::DELETE | inotify::WatchFlags::ATTRIB;
    inotify::add_watch(&devices, "/dev", what)?;
    Ok(devices)
}

/// Lines of the kernel's chips.
pub struct CdevLines {
    specs: Vec<LineSpec>,
    slots: Arc<[Slot]>,
    /// Why a slot is empty, in the slots' order.
    missing: Vec<Option<Missing>>,
    gaps: GapFinder,
    /// What has been noticed outside of [`Lines::drain`].
    news: Vec<LineEvent>,
    reader: Reader,
    watch: Watch,
}

impl CdevLines {
    /// Takes the `wanted` lines that can be had; the others are a fault that heals by itself. `wake` is called when
    /// there is something to drain.
    ///
    /// # Errors
    /// If the system gives no epoll, timer or thread.
    pub fn open(board: &Board, wanted: &[LineSpec], wake: Wake) -> io::Result<Self> {
        let lines = board.lines.iter().filter(|line| wanted.iter().any(|spec| spec.name == line.name));
        let held = || Mutex::new(Held { request: None, active: false });
        let slots: Arc<[Slot]> = lines.map(|line| Slot { line: line.clone(), held: held() }).collect();
        let watch = Watch::new()?;
        let reader = Reader::start(&watch.all, wake)?;
        let mut lines = CdevLines {
            specs: wanted.to_vec(),
            missing: slots.iter().map(|_| Some(Missing::Absent(String::new()))).collect(),
            slots,
            gaps: GapFinder::default(),
            news: Vec::new(),
            reader,
            watch,
        };
        lines.take_missing();
        lines.news = lines.gone(|lines, index| lines.missing[index].is_some());
        Ok(lines)
    }

    fn slot(&self, line: &LineName) -> Result<&Slot, GpioError> {
        self.slots.iter().find(|slot| slot.line.name == *line).ok_or_else(|| GpioError::Unknown(line.clone()))
    }

    /// Reads the edges of one line; false if it cannot be read any more.
    fn read(&self, index: usize, edges: &mut Vec<Edge>) -> bool {
        let Some(slot) = self.slots.get(index) else { return true };
        let held = slot.lock();
        let Some(request) = &held.request else { return true };
        let mut buffer = request.new_edge_event_buffer(KERNEL_QUEUE.into());
        // An output has no edges; the kernel speaks of it only when its chip goes.
        while slot.is_input() && matches!(buffer.has_event(), Ok(true)) {
            let Ok(event) = buffer.read_event() else { return false };
            edges.push(Edge {
                line: slot.line.name.clone(),
                active: event.kind == EdgeKind::Rising,
                stamp: Mono(event.timestamp_ns),
                sequence: event.line_seqno,
            });
        }
        slot.is_input()
    }

    /// Gives up what is gone, takes what can be had.
    fn heal(&mut self) -> Vec<LineEvent> {
        let mut events = self.gone(|lines, index| {
            let mut held = lines.slots[index].lock();
            let dead = held.request.as_ref().is_some_and(|request| request.lone_value().is_err());
            if dead {
                held.request = None; // closed at once: the kernel keeps the rest of a chip for those who hold its lines
            }
            dead
        });
        events.extend(self.take_missing());
        events
    }

    /// Notes the lines that are gone now.
    fn gone(&mut self, is_gone: impl Fn(&Self, usize) -> bool) -> Vec<LineEvent> {
        let now = mono_now();
        let mut events = Vec::new();
        for index in 0..self.slots.len() {
            if is_gone(self, index) {
                let slot = &self.slots[index];
                self.gaps.forget(&slot.line.name);
                if slot.is_input() {
                    events.push(LineEvent::Gone { line: slot.line.name.clone(), stamp: now });
                }
                self.missing[index].get_or_insert(Missing::Absent(String::new()));
            }
        }
        events
    }

    /// Takes the missing lines that can be had, outputs with the level that was last set.
    fn take_missing(&mut self) -> Vec<LineEvent> {
        let mut events = Vec::new();
        if self.missing.iter().all(Option::is_none) {
            return events;
        }
        let chips = Chips::scan();
        for (index, missing) in self.missing.iter_mut().enumerate().filter(|(_, missing)| missing.is_some()) {
            let slot = &self.slots[index];
            let taken = chips.find(&slot.line).and_then(|place| {
                let mut held = slot.lock();
                let refused = |e: String| Missing::Refused(slot.failed(e).to_string());
                let request = request(&slot.line, &place, held.active).map_err(|e| refused(e.to_string()))?;
                self.watch.add(index, &request).map_err(|e| refused(e.to_string()))?;
                let active_now = request.lone_value().map_err(|e| refused(e.to_string()))? == Value::Active;
                held.request = Some(request);
                Ok(active_now)
            });
            *missing = match taken {
                Ok(active_now) => {
                    if slot.is_input() {
                        let line = slot.line.name.clone();
                        events.push(LineEvent::Returned { line, active_now, stamp: mono_now() });
                    }
                    None
                }
                Err(why) => Some(why),
            };
        }
        let timed = |missing: &Missing| match missing {
            Missing::Refused(_) => true,
            Missing::Absent(_) => self.watch.devices.is_none(),
        };
        self.watch.arm_retry(self.missing.iter().flatten().any(timed));
        events
    }
}

impl Lines for CdevLines {
    fn specs(&self) -> &[LineSpec] {
        &self.specs
    }

    fn drain(&mut self) -> Vec<LineEvent> {
        let mut events = std::mem::take(&mut self.news);
        let (mut edges, mut look) = (Vec::new(), false);
        let mut ready: Vec<epoll::Event> = Vec::with_capacity(self.slots.len() + 2);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        if let Err(e) = epoll::wait(&self.watch.all, spare_capacity(&mut ready), Some(&at_once)) {
            tracing::debug!("gpio lines are read at the next turn: {e}");
        }
        for event in ready {
            look |= match event.data.u64() {
                DEVICES => self.watch.chips_changed(),
                RETRY => rustix::io::read(&self.watch.retry, &mut [0; 8]).is_ok(),
                index => !usize::try_from(index).is_ok_and(|index| self.read(index, &mut edges)),
            };
        }
        edges.sort_by_key(|edge| edge.stamp);
        let slots = &self.slots;
        let level = |line: &LineName| {
            slots.iter().find(|slot| slot.line.name == *line).is_some_and(|slot| slot.level().unwrap_or(false))
        };
        events.extend(self.gaps.judge(edges, level));
        if look {
            events.extend(self.heal());
        }
        events
    }

    fn level(&self, line: &LineName) -> Result<bool, GpioError> {
        self.slot(line)?.level()
    }

    fn set(&mut self, line: &LineName, active: bool) -> Result<(), GpioError> {
        let slot = self.slot(line)?;
        if slot.is_input() {
            return Err(GpioError::NotAnOutput(line.clone()));
        }
        let mut held = slot.lock();
        held.active = active;
        let Some(request) = &held.request else { return Ok(()) };
        request.set_lone_value(if active { Value::Active } else { Value::Inactive }).map_err(|e| slot.failed(e))
    }

    fn safe(&mut self) {
        make_safe(&self.slots, None);
    }

    fn safety(&self) -> Safety {
        let slots = self.slots.clone();
        Arc::new(move |meant| make_safe(&slots, meant))
    }

    fn fault(&self) -> Option<String> {
        let mut reasons: Vec<&str> = Vec::new();
        for missing in self.missing.iter().flatten() {
            if !reasons.contains(&missing.why()) {
                reasons.push(missing.why());
            }
        }
        let more = reasons.len().saturating_sub(SAID);
        reasons.truncate(SAID);
        let said = reasons.join(". ");
        (!said.is_empty()).then(|| if more == 0 { said } else { format!("{said}. The same of {more} more lines") })
    }

    fn pulse(&self) -> Option<Pulse> {
        Some(self.reader.pulse())
    }
}

/// Reasons that are said at once.
const SAID: usize = 3;

impl Drop for CdevLines {
    fn drop(&mut self) {
        self.safe();
        // Whoever still has the safety handle holds no line any more.
        self.slots.iter().for_each(|slot| slot.lock().request = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_consumers_name_fits_into_the_kernels_31_bytes() {
        assert_eq!(consumer(&"button.1".into()), "crosspatch button.1");
        let long = consumer(&"radio.with.a.very.long.namé.carrier".into());
        assert_eq!(long, "crosspatch radio.with.a.very.lo");
        assert_eq!(consumer(&"radio.with.a.very.lé".into()), "crosspatch radio.with.a.very.l");
    }

    #[test]
    fn a_chip_that_is_missing_at_start_is_a_fault_that_stops_nobody() {
        let text = "name = \"x\"\nbackend = \"cdev\"\nchip = \"no-such-chip\"\n[[line]]\nname = \"b\"\ndirection = \"input\"\n\
                    offset = 1\n[[line]]\nname = \"k\"\ndirection = \"output\"\noffset = 2\n";
        let board = Board::parse(text, "x.toml").unwrap();
        let wanted: Vec<_> =
            board.lines.iter().map(|l| LineSpec { name: l.name.clone(), direction: l.direction }).collect();
        let mut lines = CdevLines::open(&board, &wanted, Arc::new(|| {})).unwrap();
        let events = lines.drain();
        assert!(matches!(events.as_slice(), [LineEvent::Gone { line, .. }] if line.as_str() == "b"), "{events:?}");
        assert_eq!(lines.drain(), []);
        let fault = lines.fault().unwrap();
        assert!(fault.starts_with("there is no gpio chip 'no-such-chip'; connect it"), "said once: {fault}");
        assert_eq!(fault.matches("no-such-chip").count(), 1, "{fault}");
        assert_eq!(lines.set(&"k".into(), true), Ok(()), "it has that level when it comes");
        assert_eq!(lines.set(&"b".into(), true), Err(GpioError::NotAnOutput("b".into())));
        assert!(lines.level(&"b".into()).is_err());
        assert_eq!(lines.level(&"x".into()), Err(GpioError::Unknown("x".into())));
        lines.safety()(None);
    }
}
