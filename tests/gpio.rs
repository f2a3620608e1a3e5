//! One suite over all GPIO backends, behind one small [`Rig`].
//!
//! On any host it runs on `sim`. On a machine with gpio-sim, as root, with configfs mounted, the same program runs it on
//! a real chip that it makes itself:
//!
//! ```text
//! modprobe gpio-sim; CROSSPATCH_GPIO_RIG=cdev gpio-test
//! ```
//!
//! and, built with `--features rppal`, on a pretended Raspberry Pi, where edges are real and levels mean nothing. Before
//! the `cdev` run or on a fresh system, since `rppal` looks for its chip from gpiochip0 upwards without a gap:
//!
//! ```text
//! modprobe gpio-sim; mount -t tmpfs none /sys/firmware; mkdir -p /sys/firmware/devicetree/base
//! printf 'raspberrypi,4-model-b\0brcm,bcm2711\0' >/sys/firmware/devicetree/base/compatible
//! head -c 8192 /dev/zero >/dev/gpiomem; CROSSPATCH_GPIO_RIG=rppal gpio-test
//! ```

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use crosspatch::base::Mono;
use crosspatch::base::clock::mono_now;
use crosspatch::hardware::board::{Board, Line};
use crosspatch::hardware::gpio::sim::SimBoard;
use crosspatch::hardware::gpio::{Direction, LineEvent, LineSpec, Lines, Wake, open};
use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A guest without acceleration is slow; nothing here waits so long when all is well.
const PATIENCE: Duration = Duration::from_secs(30);
/// Edges of one line that a backend keeps, at most.
const QUEUE: u32 = 64;

/// What stands around the lines.
trait Rig {
    /// The profile.
    fn board(&self) -> Board;
    /// The gateway's side. Once a rig.
    fn open(&self, wake: Wake) -> Box<dyn Lines>;
    /// Presses or releases an input.
    fn pull(&self, line: &str, active: bool);
    /// Whether an output is active for the world outside; `None` where that cannot be seen.
    fn output(&self, line: &str) -> Option<bool>;
    /// Takes the chip away, or gives it back; false where chips do not go.
    fn plug(&self, present: bool) -> bool;
    /// Who the system says holds a line.
    fn consumer(&self, _line: &str) -> Option<String> {
        None
    }
    /// Another program that holds a line until it is dropped.
    fn hold_elsewhere(&self, _line: &str) -> Option<Box<dyn Any>> {
        None
    }
    /// False where a contact is taken as it is.
    fn debounces(&self) -> bool {
        false
    }
}

fn specs(board: &Board) -> Vec<LineSpec> {
    board.lines.iter().map(|l| LineSpec { name: l.name.clone(), direction: l.direction }).collect()
}

/// `held` reads active without anybody pressing it: 0 V on an active-low line without a pull.
const LINES: &str = r#"
header = "raspberry-pi"
[[line]]
name = "a"
direction = "input"
offset = 4
bias = "pull-down"
debounce_ms = 5
[[line]]
name = "low"
direction = "input"
offset = 5
bias = "pull-up"
active_low = true
debounce_ms = 5
[[line]]
name = "slow"
direction = "input"
PLACE
bias = "pull-down"
debounce_ms = 30
[[line]]
name = "held"
direction = "input"
offset = 7
active_low = true
debounce_ms = 5
[[line]]
name = "key"
direction = "output"
offset = 17
bias = "pull-down"
[[line]]
name = "key.low"
direction = "output"
offset = 8
bias = "pull-up"
active_low = true
"#;

fn profile(backend: &str, chip: &str, place: &str) -> Board {
    let lines = LINES.replace("PLACE", place);
    let text = format!("name = \"rig\"\nbackend = \"{backend}\"\nchip = [\"no-such-chip\", \"{chip}\"]{lines}");
    Board::parse(&text, "rig.toml").unwrap()
}

struct SimRig {
    outside: Mutex<Option<SimBoard>>,
    present: Mutex<bool>,
}

impl Rig for SimRig {
    fn board(&self) -> Board {
        profile("sim", "sim", "offset = 6")
    }

    fn open(&self, wake: Wake) -> Box<dyn Lines> {
        let board = SimBoard::new(&specs(&self.board()));
        board.move_input(&"held".into(), true, mono_now()).unwrap();
        let mut lines = board.open();
        lines.drain(); // held before anybody looked: no edge
        if !*self.present.lock().unwrap() {
            board.unplug();
        }
        board.set_waker(wake);
        *self.outside.lock().unwrap() = Some(board);
        Box::new(lines)
    }

    fn pull(&self, line: &str, active: bool) {
        self.outside.lock().unwrap().as_ref().unwrap().move_input(&line.into(), active, mono_now()).unwrap();
    }

    fn output(&self, line: &str) -> Option<bool> {
        let outside = self.outside.lock().unwrap();
        Some(outside.as_ref().unwrap().lines().iter().find(|l| l.name.as_str() == line).unwrap().active)
    }

    fn plug(&self, present: bool) -> bool {
        *self.present.lock().unwrap() = present;
        match (self.outside.lock().unwrap().as_ref(), present) {
            (Some(board), true) => board.plug(),
            (Some(board), false) => board.unplug(),
            (None, _) => {}
        }
        true
    }
}

/// A chip of the kernel's own simulator; it is gone when this is dropped.
struct Chip {
    config: PathBuf,
    label: String,
}

impl Chip {
    fn make(label: &str, lines: u32) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("crosspatch-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let config = Path::new("/sys/kernel/config/gpio-sim").join(name);
        let bank = config.join("bank0");
        std::fs::create_dir(&config).expect("gpio-sim is loaded, configfs is mounted, and this is root");
        std::fs::create_dir_all(bank.join("line6")).unwrap();
        std::fs::write(bank.join("num_lines"), lines.to_string()).unwrap();
        std::fs::write(bank.join("label"), label).unwrap();
        std::fs::write(bank.join("line6/name"), format!("{label}.SLOW")).unwrap();
        let chip = Chip { config, label: label.into() };
        chip.live(true);
        chip
    }

    fn live(&self, live: bool) {
        std::fs::write(self.config.join("live"), if live { "1" } else { "0" }).unwrap();
    }

    fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.config.join(file)).unwrap().trim().to_owned()
    }

    fn device(&self) -> PathBuf {
        Path::new("/dev").join(self.text("bank0/chip_name"))
    }

    fn of_line(&self, offset: u32, file: &str) -> PathBuf {
        let (device, chip) = (self.text("dev_name"), self.text("bank0/chip_name"));
        Path::new("/sys/devices/platform").join(device).join(chip).join(format!("sim_gpio{offset}")).join(file)
    }

    fn pull(&self, offset: u32, up: bool) {
        std::fs::write(self.of_line(offset, "pull"), if up { "pull-up" } else { "pull-down" }).unwrap();
    }

    fn is_high(&self, offset: u32) -> bool {
        std::fs::read_to_string(self.of_line(offset, "value")).unwrap().trim() == "1"
    }
}

impl Drop for Chip {
    fn drop(&mut self) {
        std::fs::write(self.config.join("live"), "0").ok();
        for dir in ["bank0/line6", "bank0", ""] {
            std::fs::remove_dir(self.config.join(dir)).ok();
        }
    }
}

struct CdevRig {
    chip: Chip,
}

impl CdevRig {
    fn line(&self, name: &str) -> Line {
        self.board().lines.into_iter().find(|l| l.name.as_str() == name).unwrap()
    }

    fn offset(line: &Line) -> u32 {
        line.offset.unwrap_or(6)
    }
}

impl Rig for CdevRig {
    fn board(&self) -> Board {
        profile("cdev", &self.chip.label, &format!("kernel_line = \"{}.SLOW\"", self.chip.label))
    }

    fn open(&self, wake: Wake) -> Box<dyn Lines> {
        open(&self.board(), &specs(&self.board()), wake).lines
    }

    fn pull(&self, line: &str, active: bool) {
        let line = self.line(line);
        self.chip.pull(Self::offset(&line), active != line.active_low);
    }

    fn output(&self, line: &str) -> Option<bool> {
        let line = self.line(line);
        Some(self.chip.is_high(Self::offset(&line)) != line.active_low)
    }

    fn plug(&self, present: bool) -> bool {
        self.chip.live(present);
        true
    }

    fn consumer(&self, line: &str) -> Option<String> {
        let chip = gpiocdev::Chip::from_path(self.chip.device()).unwrap();
        Some(chip.line_info(Self::offset(&self.line(line))).unwrap().consumer)
    }

    fn hold_elsewhere(&self, line: &str) -> Option<Box<dyn Any>> {
        let offset = Self::offset(&self.line(line));
        let mut other = gpiocdev::Request::builder();
        other.on_chip(self.chip.device()).with_consumer("somebody else").with_line(offset).as_input();
        Some(Box::new(other.request().unwrap()))
    }

    fn debounces(&self) -> bool {
        true
    }
}

/// Levels come from a plain file that pretends to be registers; edges come from a chip of the kernel's simulator.
struct RppalRig(CdevRig);

impl Rig for RppalRig {
    fn board(&self) -> Board {
        profile("rppal", &self.0.chip.label, "offset = 6")
    }

    fn open(&self, wake: Wake) -> Box<dyn Lines> {
        // A pull that is written into a plain file pulls nothing.
        for line in ["a", "low", "slow"] {
            self.pull(line, false);
        }
        open(&self.board(), &specs(&self.board()), wake).lines
    }

    fn pull(&self, line: &str, active: bool) {
        self.0.pull(line, active);
    }

    fn output(&self, _: &str) -> Option<bool> {
        None
    }

    fn plug(&self, _: bool) -> bool {
        false
    }
}

/// A rig, for one test at a time: the kernel has one pretended Pi, and a chip that goes wakes the lines of all others.
fn rig() -> (Box<dyn Rig>, MutexGuard<'static, ()>) {
    static ONE: Mutex<()> = Mutex::new(());
    let alone = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let rig: Box<dyn Rig> = match std::env::var("CROSSPATCH_GPIO_RIG").as_deref() {
        Err(_) | Ok("sim") => Box::new(SimRig { outside: Mutex::new(None), present: Mutex::new(true) }),
        Ok("cdev") => Box::new(CdevRig { chip: Chip::make("crosspatch-rig", 28) }),
        Ok("rppal") => Box::new(RppalRig(CdevRig { chip: Chip::make("pinctrl-bcm2711", 58) })),
        Ok(other) => panic!("CROSSPATCH_GPIO_RIG is '{other}'; use sim, cdev or rppal"),
    };
    (rig, alone)
}

/// Opened lines with what woke us.
struct Desk {
    lines: Box<dyn Lines>,
    woken: Receiver<()>,
    wakes: Arc<AtomicU64>,
    seen: Vec<LineEvent>,
}

impl Desk {
    fn open(rig: &dyn Rig) -> Self {
        let (sender, woken) = sync_channel(1);
        let wakes = Arc::new(AtomicU64::new(0));
        let count = wakes.clone();
        let wake = Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
            sender.try_send(()).ok();
        });
        Desk { lines: rig.open(wake), woken, wakes, seen: Vec::new() }
    }

    /// Waits until `done` is true of what has been drained, and takes that.
    fn until(&mut self, what: &str, done: impl Fn(&[LineEvent]) -> bool) -> Vec<LineEvent> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.seen.extend(self.lines.drain());
            if done(&self.seen) {
                return std::mem::take(&mut self.seen);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(self.woken.recv_timeout(left).is_ok(), "no {what} after {PATIENCE:?}: {:?}", self.seen);
        }
    }

    /// Presses or releases and waits until the backend has noticed, without reading.
    fn pull_unread(&self, rig: &dyn Rig, line: &str, active: bool) {
        let (before, deadline) = (self.wakes.load(Ordering::Relaxed), Instant::now() + PATIENCE);
        rig.pull(line, active);
        while self.wakes.load(Ordering::Relaxed) == before {
            assert!(Instant::now() < deadline, "the edge of {line} was not noticed");
            std::thread::yield_now();
        }
    }

    fn edge(&mut self, rig: &dyn Rig, line: &str, active: bool) -> (bool, Mono, u32) {
        rig.pull(line, active);
        let events = self.until("edge", |seen| !seen.is_empty());
        match events.as_slice() {
            [LineEvent::Edge(e)] if e.line.as_str() == line => (e.active, e.stamp, e.sequence),
            other => panic!("one edge of {line} was expected: {other:?}; {:?}", self.lines.fault()),
        }
    }
}

fn short(events: &[LineEvent]) -> Vec<String> {
    let short = |event: &LineEvent| match event {
        LineEvent::Edge(e) => format!("{} {} #{}", e.line, u8::from(e.active), e.sequence),
        LineEvent::Lost { line, active_now, .. } => format!("{line} lost, now {}", u8::from(*active_now)),
        LineEvent::Gone { line, .. } => format!("{line} gone"),
        LineEvent::Returned { line, active_now, .. } => format!("{line} returned, now {}", u8::from(*active_now)),
    };
    events.iter().map(short).collect()
}

fn returned(line: &'static str) -> impl Fn(&[LineEvent]) -> bool {
    move |seen| seen.iter().any(|e| matches!(e, LineEvent::Returned { line: l, .. } if l.as_str() == line))
}

#[test]
fn edges_have_their_level_their_number_and_the_stamp_of_the_edge() {
    let (rig, _alone) = rig();
    let mut desk = Desk::open(&*rig);
    for (line, base) in [("a", 0), ("low", 0), ("slow", 0), ("a", 2)] {
        for (n, active) in [(1, true), (2, false)] {
            let before = mono_now();
            let (level, stamp, sequence) = desk.edge(&*rig, line, active);
            assert_eq!((level, sequence), (active, base + n), "{line}");
            assert!(before <= stamp && stamp <= mono_now(), "{line}: {before:?} {stamp:?} {:?}", mono_now());
        }
    }
}

#[test]
fn edges_that_are_read_late_keep_their_stamps_and_the_order_of_all_lines() {
    let (rig, _alone) = rig();
    let mut desk = Desk::open(&*rig);
    let moves = [("a", true), ("slow", true), ("low", true), ("a", false), ("slow", false), ("low", false)];
    let mut noticed = Vec::new();
    for (line, active) in moves {
        desk.pull_unread(&*rig, line, active);
        noticed.push(mono_now());
    }
    let events = desk.until("six edges", |seen| seen.len() >= moves.len());
    assert_eq!(short(&events), ["a 1 #1", "slow 1 #1", "low 1 #1", "a 0 #2", "slow 0 #2", "low 0 #2"]);
    for (event, noticed) in events.iter().zip(noticed) {
        let LineEvent::Edge(edge) = event else { unreachable!("they were compared") };
        assert!(edge.stamp <= noticed, "{edge:?} is stamped when it was read, not when it happened: {noticed:?}");
    }
}

#[test]
fn more_edges_than_the_queue_holds_are_lost_and_the_level_is_read_again() {
    let (rig, _alone) = rig();
    let mut desk = Desk::open(&*rig);
    let Some(_) = rig.output("key") else { return eprintln!("levels mean nothing here") };
    for n in 1..=QUEUE {
        desk.pull_unread(&*rig, "a", n % 2 == 1);
    }
    // The kernel wakes nobody for an edge that pushes out another; the slower line tells when it has happened.
    rig.pull("a", true);
    desk.pull_unread(&*rig, "slow", true);
    let events = desk.until("the slow edge", |seen| short(seen).contains(&"slow 1 #1".into()));
    assert_eq!(short(&events), ["a lost, now 1", "slow 1 #1"]);
    let (level, _, sequence) = desk.edge(&*rig, "a", false);
    assert_eq!((level, sequence), (false, QUEUE + 2), "the edge after the loss counts again");
}

#[test]
fn a_bouncing_contact_is_one_edge() {
    let (rig, _alone) = rig();
    if !rig.debounces() {
        return eprintln!("contacts do not bounce here");
    }
    let mut desk = Desk::open(&*rig);
    for active in [true, false, true, false, true] {
        rig.pull("slow", active);
    }
    let pressed = desk.until("a press", |seen| !seen.is_empty());
    desk.pull_unread(&*rig, "a", true);
    let rest = desk.until("the other edge", |seen| !seen.is_empty());
    assert_eq!((short(&pressed), short(&rest)), (vec!["slow 1 #1".into()], vec!["a 1 #1".into()]));
}

#[test]
fn an_input_that_is_active_at_start_has_its_level_and_no_edge() {
    let (rig, _alone) = rig();
    let mut desk = Desk::open(&*rig);
    let Some(_) = rig.output("key") else { return eprintln!("levels mean nothing here") };
    assert_eq!(desk.lines.level(&"held".into()), Ok(true));
    assert_eq!(desk.lines.level(&"a".into()), Ok(false));
    assert_eq!(desk.lines.level(&"low".into()), Ok(false));
    assert_eq!(desk.lines.drain(), []);
    assert_eq!(desk.lines.fault(), None);
}

#[test]
fn outputs_start_inactive_are_set_made_safe_and_safe_when_dropped() {
    let (rig, _alone) = rig();
    let mut desk = Desk::open(&*rig);
    let outputs = || [rig.output("key"), rig.output("key.low")];
    let is = |active: bool| if rig.output("key").is_some() { [Some(active); 2] } else { [None; 2] };
    let set = |desk: &mut Desk| {
        for line in ["key", "key.low"] {
            desk.lines.set(&line.into(), true).unwrap();
        }
    };
    assert_eq!(outputs(), is(false), "at start");
    set(&mut desk);
    assert_eq!(outputs(), is(true), "set");
    desk.lines.safe();
    assert_eq!(outputs(), is(false), "made safe");
    set(&mut desk);
    let safety = desk.lines.safety();
    std::thread::spawn(move || safety(None)).join().unwrap();
    assert_eq!(outputs(), is(false), "made safe by another thread while the lines rest");
    set(&mut desk);
    let safety = desk.lines.safety();
    drop(desk);
    assert_eq!(outputs(), is(false), "dropped");
    safety(None); // nobody's line any more, and no panic
    for line in ["key", "key.low"] {
        assert!(rig.consumer(line).is_none_or(|c| c.is_empty()), "{line} is given back");
    }
}

#[test]
fn the_wrong_line_is_refused() {
    let (rig, _alone) = rig();
    let mut desk = Desk::open(&*rig);
    assert!(desk.lines.set(&"a".into(), true).is_err());
    assert!(desk.lines.set(&"x".into(), true).is_err());
    assert!(desk.lines.level(&"x".into()).is_err());
    assert_eq!(desk.lines.specs().iter().filter(|s| s.direction == Direction::Output).count(), 2);
}

#[test]
fn a_chip_that_goes_releases_its_inputs_and_its_return_restores_everything() {
    let (rig, _alone) = rig();
    let mut desk = Desk::open(&*rig);
    for active in [true, false] {
        desk.edge(&*rig, "low", active);
    }
    desk.edge(&*rig, "a", true);
    desk.lines.set(&"key".into(), true).unwrap();
    if !rig.plug(false) {
        return eprintln!("chips do not go here");
    }
    let events = desk.until("loss of all inputs", |seen| seen.len() >= 4);
    assert_eq!(short(&events), ["a gone", "low gone", "slow gone", "held gone"]);
    let fault = desk.lines.fault().unwrap();
    assert!(fault.contains("chip"), "{fault}");
    assert!(desk.lines.level(&"a".into()).is_err());
    desk.lines.set(&"key.low".into(), true).unwrap();

    rig.plug(true);
    let mut events = short(&desk.until("return of all inputs", |seen| seen.len() >= 4));
    let pressed_meanwhile = events.remove(0); // a chip of the kernel's simulator comes back with nobody pressing
    assert!(pressed_meanwhile.starts_with("a returned, now "), "{pressed_meanwhile}");
    assert_eq!(events, ["low returned, now 0", "slow returned, now 0", "held returned, now 1"]);
    assert_eq!(desk.lines.fault(), None);
    assert_eq!([rig.output("key"), rig.output("key.low")], [Some(true); 2], "as they were last set");
    let (level, _, sequence) = desk.edge(&*rig, "low", true);
    assert_eq!((level, sequence), (true, 1), "numbers begin again, and nothing counts as lost");
}

#[test]
fn an_output_that_was_made_safe_while_its_chip_was_away_stays_safe() {
    let (rig, _alone) = rig();
    let mut desk = Desk::open(&*rig);
    desk.lines.set(&"key".into(), true).unwrap();
    if !rig.plug(false) {
        return eprintln!("chips do not go here");
    }
    desk.until("loss of all inputs", |seen| seen.len() >= 4);
    desk.lines.safety()(None);
    rig.plug(true);
    desk.until("return", returned("held"));
    assert_eq!(rig.output("key"), Some(false));
}

#[test]
fn a_chip_that_goes_and_comes_at_once_is_noticed() {
    let (rig, _alone) = rig();
    let mut desk = Desk::open(&*rig);
    desk.lines.set(&"key".into(), true).unwrap();
    if !rig.plug(false) {
        return eprintln!("chips do not go here");
    }
    rig.plug(true);
    let events = short(&desk.until("return", returned("held")));
    assert_eq!(events[..4], ["a gone", "low gone", "slow gone", "held gone"]);
    assert_eq!(
        events[4..],
        ["a returned, now 0", "low returned, now 0", "slow returned, now 0", "held returned, now 1"]
    );
    assert_eq!(rig.output("key"), Some(true));
}

#[test]
fn a_chip_that_is_missing_at_start_is_a_fault_that_heals_when_it_comes() {
    let (rig, _alone) = rig();
    if !rig.plug(false) {
        return eprintln!("chips do not go here");
    }
    let mut desk = Desk::open(&*rig);
    assert_eq!(short(&desk.lines.drain()), ["a gone", "low gone", "slow gone", "held gone"]);
    assert!(desk.lines.fault().is_some());
    desk.lines.set(&"key".into(), true).unwrap();
    rig.plug(true);
    let events = desk.until("return", returned("held"));
    assert_eq!(events.len(), 4, "{events:?}");
    assert_eq!((desk.lines.fault(), rig.output("key")), (None, Some(true)));
}

#[test]
fn who_holds_a_line_is_seen_and_a_line_of_somebody_else_costs_only_itself() {
    let (rig, _alone) = rig();
    let Some(other) = rig.hold_elsewhere("low") else { return eprintln!("nobody else holds lines here") };
    let mut desk = Desk::open(&*rig);
    assert_eq!(short(&desk.lines.drain()), ["low gone"]);
    let fault = desk.lines.fault().unwrap();
    assert!(fault.starts_with("gpio line 'low' is held by 'somebody else'; stop"), "{fault}");
    assert_eq!(rig.consumer("a").unwrap(), "crosspatch a");
    assert_eq!(rig.consumer("key.low").unwrap(), "crosspatch key.low");
    desk.edge(&*rig, "a", true);
    drop(other);
    let events = short(&desk.until("the line", returned("low")));
    assert_eq!(events, ["low returned, now 0"]);
    assert_eq!((desk.lines.fault(), rig.consumer("low").unwrap()), (None, "crosspatch low".into()));
    desk.edge(&*rig, "low", true);
}

#[test]
fn the_reader_answers_a_watchdog() {
    let (rig, _alone) = rig();
    let desk = Desk::open(&*rig);
    let Some(pulse) = desk.lines.pulse() else { return eprintln!("no thread of its own here") };
    pulse.ask();
    let deadline = Instant::now() + PATIENCE;
    while !pulse.beat.is_answered() {
        assert!(Instant::now() < deadline, "it did not answer");
        std::thread::yield_now();
    }
}
