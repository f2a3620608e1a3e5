//! What may happen, and how often.

use crate::event::*;
use proptest::prelude::*;

/// One thing that happens. Numbers are places in the lists of [`crate::event`].
#[derive(Clone, Debug)]
pub enum Step {
    /// A person connects, perhaps with a token of another role than usual.
    Open {
        socket: usize,
        promoted: bool,
    },
    Close {
        socket: usize,
    },
    Join {
        socket: usize,
        channel: usize,
    },
    Leave {
        socket: usize,
        channel: usize,
    },
    Request {
        socket: usize,
        channel: usize,
        priority: bool,
    },
    Release {
        socket: usize,
        channel: usize,
        burst: Named,
    },
    Arm {
        socket: usize,
        pressed: bool,
    },
    Start {
        socket: usize,
        hold_ms: u16,
    },
    Stop {
        socket: usize,
    },
    Media {
        socket: usize,
        channel: Option<usize>,
    },
    Produce {
        socket: usize,
        channel: usize,
    },
    CloseProducer {
        socket: usize,
        channel: usize,
    },
    /// Whoever has the floor of the channel sends packets for so long.
    Speak {
        channel: usize,
        ms: u64,
    },
    /// Somebody asks, talks until the limit cuts in, and asks again after so long (F9).
    TalkTooLong {
        socket: usize,
        channel: usize,
        after_ms: u64,
    },
    /// The next gates do not open.
    BreakGates {
        count: u8,
    },
    /// News of a gate that was shut long ago.
    StaleGateFailure {
        channel: usize,
    },
    Throw {
        socket: usize,
        target: usize,
    },
    Ban {
        socket: usize,
        target: usize,
        ms: Option<u64>,
    },
    Unban {
        socket: usize,
        target: usize,
    },
    /// Lines change one after the other, each so long after the one before, and are read so long after the last one.
    Edges {
        lines: Vec<(usize, u64)>,
        late_ms: u64,
    },
    LoseEdges {
        line: usize,
        active: bool,
    },
    Voice {
        active: bool,
    },
    Capture {
        local: usize,
        works: bool,
    },
    /// The last sample of an ended burst sounded so long ago.
    Drained {
        local: usize,
        ago_ms: u64,
    },
    Pass {
        ms: u64,
    },
}

/// Which burst a release names.
#[derive(Clone, Copy, Debug)]
pub enum Named {
    None,
    Current,
    Older,
}

/// A whole history.
#[derive(Clone, Debug)]
pub struct History {
    /// Lines that are active when the gateway starts.
    pub active_at_start: Vec<usize>,
    pub steps: Vec<Step>,
}

/// What a kind of history is about: how much there is of each kind of step.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    pub people: u32,
    pub talk: u32,
    pub emergency: u32,
    pub buttons: u32,
    pub radio: u32,
    pub managers: u32,
    pub faults: u32,
    pub time: u32,
}

fn socket() -> impl Strategy<Value = usize> {
    0..SOCKETS.len()
}

fn channel() -> impl Strategy<Value = usize> {
    prop_oneof![60 => 0..CHANNELS.len(), 1 => Just(CHANNELS.len())]
}

fn target() -> impl Strategy<Value = usize> {
    0..USERS.len()
}

fn named() -> impl Strategy<Value = Named> {
    prop_oneof![Just(Named::None), Just(Named::Current), Just(Named::Older)]
}

/// Lengths around every limit there is.
fn length() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 1..60_u64, 3 => 60..1_200_u64, 2 => 1_200..4_500_u64, 1 => 4_500..16_000_u64, 1 => Just(2_000)]
}

fn people() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (socket(), prop::bool::weighted(0.1)).prop_map(|(socket, promoted)| Step::Open { socket, promoted }),
        1 => socket().prop_map(|socket| Step::Close { socket }),
        8 => (socket(), channel()).prop_map(|(socket, channel)| Step::Join { socket, channel }),
        1 => (socket(), channel()).prop_map(|(socket, channel)| Step::Leave { socket, channel }),
        6 => (socket(), channel()).prop_map(|(socket, channel)| Step::Produce { socket, channel }),
        1 => (socket(), channel()).prop_map(|(socket, channel)| Step::CloseProducer { socket, channel }),
    ]
}

fn talk() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (socket(), channel(), any::<bool>())
            .prop_map(|(socket, channel, priority)| Step::Request { socket, channel, priority }),
        3 => (socket(), channel(), named()).prop_map(|(socket, channel, burst)| Step::Release { socket, channel, burst }),
        3 => (channel(), length()).prop_map(|(channel, ms)| Step::Speak { channel, ms }),
        1 => (socket(), channel(), 1..2_000_u64)
            .prop_map(|(socket, channel, after_ms)| Step::TalkTooLong { socket, channel, after_ms }),
        1 => (socket(), prop::option::of(channel())).prop_map(|(socket, channel)| Step::Media { socket, channel }),
    ]
}

fn emergency() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (socket(), any::<bool>()).prop_map(|(socket, pressed)| Step::Arm { socket, pressed }),
        3 => (socket(), 1_900..2_600_u16).prop_map(|(socket, hold_ms)| Step::Start { socket, hold_ms }),
        2 => socket().prop_map(|socket| Step::Stop { socket }),
    ]
}

fn buttons() -> impl Strategy<Value = Step> {
    let guarded = prop_oneof![Just(2_usize), Just(4)];
    let one = (0..INPUTS.len(), length()).prop_map(|(line, ms)| (line, ms));
    prop_oneof![
        6 => (0..INPUTS.len()).prop_map(|line| Step::Edges { lines: vec![(line, 0)], late_ms: 0 }),
        2 => (prop::collection::vec(one, 1..4), prop_oneof![Just(0), length()])
            .prop_map(|(lines, late_ms)| Step::Edges { lines, late_ms }),
        // Held for 2 s, give or take a millisecond (E2).
        2 => (guarded, 1_999..2_002_u64, prop_oneof![Just(0), 1..40_u64])
            .prop_map(|(line, ms, late_ms)| Step::Edges { lines: vec![(line, 0), (line, ms)], late_ms }),
        1 => (0..INPUTS.len(), any::<bool>()).prop_map(|(line, active)| Step::LoseEdges { line, active }),
    ]
}

fn radio() -> impl Strategy<Value = Step> {
    let ports = || prop_oneof![Just(2_usize), Just(3)];
    let carrier = INPUTS.len() - 1;
    prop_oneof![
        2 => Just(Step::Edges { lines: vec![(carrier, 0)], late_ms: 0 }),
        2 => any::<bool>().prop_map(|active| Step::Voice { active }),
        2 => (ports(), prop_oneof![Just(0), length()]).prop_map(|(local, ago_ms)| Step::Drained { local, ago_ms }),
    ]
}

fn managers() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (socket(), target()).prop_map(|(socket, target)| Step::Throw { socket, target }),
        1 => (socket(), target(), prop::option::of(1_000..20_000_u64))
            .prop_map(|(socket, target, ms)| Step::Ban { socket, target, ms }),
        2 => (socket(), target()).prop_map(|(socket, target)| Step::Unban { socket, target }),
    ]
}

fn faults() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (1..4_u8).prop_map(|count| Step::BreakGates { count }),
        1 => channel().prop_map(|channel| Step::StaleGateFailure { channel }),
        3 => (0..LOCALS.len(), prop::bool::weighted(0.7)).prop_map(|(local, works)| Step::Capture { local, works }),
    ]
}

impl Mix {
    fn step(self) -> impl Strategy<Value = Step> {
        prop_oneof![
            self.people => people(),
            self.talk => talk(),
            self.emergency => emergency(),
            self.buttons => buttons(),
            self.radio => radio(),
            self.managers => managers(),
            self.faults => faults(),
            self.time => length().prop_map(|ms| Step::Pass { ms }),
        ]
    }

    /// A history that begins with most people there and members of most channels.
    pub fn history(self, longest: usize) -> impl Strategy<Value = History> {
        let seldom_active = prop::collection::vec(0..INPUTS.len(), 0..2);
        (seldom_active, prop::collection::vec(self.step(), 1..longest))
            .prop_map(|(active_at_start, steps)| History { active_at_start, steps })
    }
}
