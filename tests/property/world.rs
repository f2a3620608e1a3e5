//! A core, the model beside it, and bystanders that see only effects: gates, sockets, lamps, transmitters, the audit.
//!
//! Every input goes to the core and to the model. What a rule says is checked after each one; a failure begins with the
//! rule's number.

use crate::event::*;
use crate::model::{Model, Verdict};
use crate::step::{History, Named, Step};
use crosspatch::base::{Action, BurstId, ChannelId, LineName, Mono, ReplyId, Role, SessionId, SourceId, UserId};
use crosspatch::control::{Actor, Answer, ChannelState, Claims, Control, Effect, Input, Push, Refusal, Shows};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long the transmitter may stay keyed after its burst: the core's limit for what still sounds, and the hang.
const UNKEYED_AFTER: Duration = PTT_HANG.saturating_add(Duration::from_secs(3 + 30));
/// A gate of an emergency that did not open is tried again within this (E4).
const RETRIED_AFTER: Duration = Duration::from_secs(1);

/// What a bystander sees of a radio.
#[derive(Default)]
struct Transmitter {
    keyed: bool,
    keyed_since: Mono,
    playing: Option<BurstId>,
    /// Its playback may sound what comes, from `from` on.
    open: bool,
    /// When the newest burst may sound.
    from: Mono,
    /// Which burst it was unkeyed in, for time.
    timed_out: Option<BurstId>,
    /// Unkeyed for a moment before the burst, so that its time starts anew.
    rests_until: Option<Mono>,
    /// Since when nobody else has had the channel.
    idle_since: Option<Mono>,
}

/// What is seen of the effects of one input.
#[derive(Default)]
struct Seen {
    answers: Vec<Verdict>,
    cut: BTreeSet<(ChannelId, BurstId)>,
    told_interrupted: BTreeSet<(ChannelId, BurstId)>,
    left: BTreeSet<(SessionId, ChannelId)>,
    keyed_up: BTreeSet<SessionId>,
}

pub struct World {
    control: Control,
    model: Model,
    now: Mono,
    /// The newest session of each socket.
    sockets: Vec<SessionId>,
    /// Sessions on the network before the input that is being handled.
    online: BTreeSet<SessionId>,
    last_session: u64,
    last_source: u64,
    last_reply: u64,
    last_burst: u64,
    levels: BTreeMap<LineName, bool>,
    voice: bool,
    gates: BTreeMap<ChannelId, (BurstId, Option<SourceId>)>,
    /// Gates that have been shut, and gates that did not open with when that was.
    ended: BTreeSet<(ChannelId, BurstId)>,
    refused: BTreeMap<(ChannelId, BurstId), Mono>,
    broken_gates: u8,
    /// The process did nothing for a while just now.
    stalled: bool,
    speaking: BTreeMap<BurstId, Mono>,
    holders: BTreeMap<BurstId, UserId>,
    /// Bursts that began in the audit and have not ended there.
    on_record: BTreeMap<BurstId, Mono>,
    /// Who holds a channel, as each member has been told.
    told: BTreeMap<(SessionId, ChannelId), Option<BurstId>>,
    lit: BTreeMap<LineName, bool>,
    /// Desks whose arming tone sounds.
    tones: BTreeMap<SessionId, bool>,
    transmitters: BTreeMap<SessionId, Transmitter>,
    warned: BTreeSet<BurstId>,
    doomed: Vec<SessionId>,
}

fn channel_id(place: usize) -> ChannelId {
    CHANNELS.get(place).copied().unwrap_or(NOWHERE).into()
}

fn verdict(answer: Result<Answer, Refusal>) -> Verdict {
    match answer {
        Ok(Answer::Joined { state, .. } | Answer::Floor { state }) => Verdict::Floor(state.holder.map(|h| h.user)),
        Ok(Answer::Left { .. } | Answer::Done) => Verdict::Done,
        Ok(Answer::Denied { holder, .. }) => Verdict::Denied(holder.map(|(user, _)| user)),
        Ok(Answer::EmergencyStarted { channels, .. }) => {
            assert_eq!(channels.len(), CHANNELS.len(), "E4: the broadcaster is told every channel");
            Verdict::Started
        }
        Ok(Answer::EmergencyStopped { channel_count, .. }) => Verdict::Stopped(channel_count),
        Err(refusal) => Verdict::Error(refusal.code),
    }
}

/// F3: audit, shut, interrupted, open, tell, key, tally. One input may hold a second decision: a broadcast that starts also
/// ends, since its hold was let go in the moment it was full (E2), or its button found to be stuck after a stall.
fn check_order(effects: &[Effect]) {
    let of = |wanted: &[Action], e: &Effect| matches!(e, Effect::Audit(record) if wanted.contains(&record.action));
    let mut starts = false;
    for (place, pair) in effects.windows(2).enumerate() {
        starts |= of(&[Action::EmergencyStart], &pair[0]);
        if pair[1].phase() < pair[0].phase() {
            let ends = of(&[Action::EmergencyStop, Action::GpioRelease, Action::GpioFault], &pair[1]);
            assert!(starts && ends, "F3: effect {} is out of order: {effects:?}", place + 1);
            starts = false;
        }
    }
}

/// Lives through a history and checks every rule at every step.
pub fn live(history: &History) {
    let mut world = World::new(&history.active_at_start);
    for step in &history.steps {
        world.step(step);
    }
    world.finish();
}

impl World {
    /// Everybody is there: on `ops` and `medical`, with a producer on `ops`.
    fn new(active_at_start: &[usize]) -> Self {
        let mut world = World {
            control: Control::new(SETTINGS.clone()),
            model: Model::new(),
            now: Mono::from_millis(100_000),
            sockets: vec![SessionId(0); SOCKETS.len()],
            online: BTreeSet::new(),
            last_session: 100,
            last_source: 100,
            last_reply: 0,
            last_burst: 0,
            levels: INPUTS.iter().map(|line| ((*line).into(), false)).collect(),
            voice: false,
            gates: BTreeMap::new(),
            ended: BTreeSet::new(),
            refused: BTreeMap::new(),
            broken_gates: 0,
            stalled: false,
            speaking: BTreeMap::new(),
            holders: BTreeMap::new(),
            on_record: BTreeMap::new(),
            told: BTreeMap::new(),
            lit: BTreeMap::new(),
            tones: BTreeMap::new(),
            transmitters: [SIMPLEX, DUPLEX].map(|session| (session, Transmitter::default())).into(),
            warned: BTreeSet::new(),
            doomed: Vec::new(),
        };
        for place in active_at_start {
            let line = LineName::from(INPUTS[*place]);
            world.levels.insert(line.clone(), true);
            world.tell(Input::ActiveAtStart { line: line.clone() }, |model| model.kill(&line));
        }
        for session in LOCALS {
            world.tell(Input::Capture { session, works: true }, |model| model.capture(session, true));
            world.tell(Input::Playback { session, works: true }, |_| ());
        }
        for socket in 0..SOCKETS.len() {
            world.step(&Step::Open { socket, promoted: false });
            world.step(&Step::Join { socket, channel: 0 });
            world.step(&Step::Join { socket, channel: 1 });
            world.step(&Step::Produce { socket, channel: 0 });
        }
        world
    }

    /// Everybody lets go and leaves, and what was broken is mended: nothing is left running.
    fn finish(&mut self) {
        for (line, active) in self.levels.clone() {
            if active {
                self.step(&Step::LoseEdges {
                    line: INPUTS.iter().position(|l| line.as_str() == *l).expect("ours"),
                    active: false,
                });
            }
        }
        self.step(&Step::Voice { active: false });
        for local in &*SEATS {
            let (session, target) = (local.session, local.user.clone());
            self.tell(Input::Capture { session, works: true }, |model| model.capture(session, true));
            let by = Actor { user: "ada".into(), name: "Ada".into(), role: Role::Admin };
            self.tell(Input::Enable { target, by }, |model| {
                model.sockets.get_mut(&session).expect("a seat").disabled = false;
            });
        }
        for line in ["desk.emergency", "latch.emergency"] {
            let line = INPUTS.iter().position(|l| line == *l).expect("ours");
            self.edges(&[(line, 10), (line, 10)], 0); // pressed again, a missed hold is not shown any more
        }
        for socket in 0..SOCKETS.len() {
            self.step(&Step::Close { socket });
        }
        self.pass(EMERGENCY_MAX + UNKEYED_AFTER);
        assert!(self.gates.is_empty(), "every grant ends: {:?}", self.gates);
        assert!(self.on_record.is_empty(), "every burst ends in the audit: {:?}", self.on_record);
        assert!(self.transmitters.values().all(|t| !t.keyed), "every transmitter is unkeyed");
        assert!(self.lit.values().all(|lit| !lit), "every lamp is dark: {:?}", self.lit);
        assert_eq!(self.control.next_timeout(), None, "nothing is due any more");
    }

    // ---- inputs ----

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Open { socket, promoted } => self.open(socket, promoted),
            Step::Close { socket } => self.close(self.sockets[socket]),
            Step::Join { socket, channel } => {
                let (session, channel) = (self.sockets[socket], channel_id(channel));
                self.ask(
                    session,
                    |reply| Input::Join { session, channel: channel.clone(), reply },
                    |model| model.join(session, &channel),
                );
            }
            Step::Leave { socket, channel } => {
                let (session, channel) = (self.sockets[socket], channel_id(channel));
                self.ask(
                    session,
                    |reply| Input::Leave { session, channel: channel.clone(), reply },
                    |model| model.leave(session, &channel),
                );
            }
            Step::Request { socket, channel, priority } => {
                let (session, channel) = (self.sockets[socket], channel_id(channel));
                self.ask(
                    session,
                    |reply| Input::Request { session, channel: channel.clone(), priority, reply },
                    |model| model.request(session, &channel, priority),
                );
            }
            Step::Release { socket, channel, burst } => {
                let (session, channel) = (self.sockets[socket], channel_id(channel));
                let current = self.gates.get(&channel).map(|(burst, _)| *burst);
                let burst = match burst {
                    Named::None => None,
                    Named::Current => current,
                    Named::Older => current.map(|burst| BurstId(burst.0 - 1)),
                };
                self.ask(
                    session,
                    |reply| Input::Release { session, channel: channel.clone(), burst, reply },
                    |model| model.release(session, &channel, burst),
                );
            }
            Step::Arm { socket, pressed } => {
                let session = self.sockets[socket];
                self.ask(session, |reply| Input::Arm { session, pressed, reply }, |model| model.arm(session, pressed));
            }
            Step::Start { socket, hold_ms } => {
                let (session, hold_ms) = (self.sockets[socket], f64::from(hold_ms));
                self.ask(
                    session,
                    |reply| Input::StartEmergency { session, hold_ms, reply },
                    |model| model.start(session, hold_ms),
                );
            }
            Step::Stop { socket } => {
                let session = self.sockets[socket];
                self.ask(session, |reply| Input::StopEmergency { session, reply }, |model| model.stop(session));
            }
            Step::Media { socket, channel } => {
                let (session, channel) = (self.sockets[socket], channel.map(channel_id));
                self.ask(
                    session,
                    |reply| Input::Media { session, channel: channel.clone(), reply },
                    |model| model.media(session, channel.as_ref()),
                );
            }
            Step::Produce { socket, channel } => self.produce(self.sockets[socket], channel_id(channel)),
            Step::CloseProducer { socket, channel } => {
                let session = self.sockets[socket];
                let socket = self.model.sockets.get_mut(&session);
                if let Some(source) = socket.and_then(|socket| socket.producers.remove(&channel_id(channel))) {
                    self.tell(Input::SourceClosed { source }, |_| ());
                }
            }
            Step::Speak { channel, ms } => {
                if let Some((burst, _)) = self.gates.get(&channel_id(channel)) {
                    self.speaking.insert(*burst, self.now + Duration::from_millis(ms));
                }
            }
            Step::TalkTooLong { socket, channel, after_ms } => {
                let limit = TALK_LIMIT.as_millis() as u64;
                self.step(&Step::Request { socket, channel, priority: false });
                self.step(&Step::Speak { channel, ms: limit });
                self.step(&Step::Pass { ms: limit });
                self.step(&Step::Pass { ms: after_ms });
                self.step(&Step::Request { socket, channel, priority: false });
            }
            Step::BreakGates { count } => self.broken_gates = count,
            Step::StaleGateFailure { channel } => {
                let stale = self.ended.iter().find(|(ended, _)| *ended == channel_id(channel)).cloned();
                if let Some((channel, burst)) = stale {
                    self.tell(Input::GateFailed { channel, burst }, |_| ());
                }
            }
            Step::Throw { socket, target } => {
                let (session, target) = (self.sockets[socket], UserId::from(USERS[target]));
                self.ask(
                    session,
                    |reply| Input::ForceDisconnect { session, target: target.clone(), reason: "test".into(), reply },
                    |model| model.throw_out(session, &target),
                );
            }
            Step::Ban { socket, target, ms } => {
                let (session, target) = (self.sockets[socket], UserId::from(USERS[target]));
                let duration = ms.map(Duration::from_millis);
                self.ask(
                    session,
                    |reply| Input::Ban { session, target: target.clone(), duration, reason: "test".into(), reply },
                    |model| model.ban(session, &target, duration),
                );
            }
            Step::Unban { socket, target } => {
                let (session, target) = (self.sockets[socket], UserId::from(USERS[target]));
                self.ask(
                    session,
                    |reply| Input::Unban { session, target: target.clone(), reply },
                    |model| model.unban(session, &target),
                );
            }
            Step::Edges { ref lines, late_ms } => self.edges(lines, late_ms),
            Step::LoseEdges { line, active } => {
                let line = LineName::from(INPUTS[line]);
                self.levels.insert(line.clone(), active);
                let input = Input::EdgesLost { line: line.clone(), active };
                self.tell(input, |model| model.edges_lost(&line, active));
            }
            Step::Voice { active } => {
                self.voice = active;
                let (session, stamp) = (DUPLEX, self.now);
                self.tell(Input::Voice { session, active, stamp }, |model| model.carrier(session, active, stamp));
            }
            Step::Capture { local, works } => {
                let session = LOCALS[local];
                self.tell(Input::Capture { session, works }, |model| model.capture(session, works));
            }
            Step::Drained { local, ago_ms } => {
                let at = self.now - Duration::from_millis(ago_ms);
                self.tell(Input::Drained { session: LOCALS[local], at }, |_| ());
            }
            Step::Pass { ms } => self.pass(Duration::from_millis(ms)),
        }
        while let Some(session) = self.doomed.pop() {
            self.close(session);
        }
    }

    fn open(&mut self, socket: usize, promoted: bool) {
        let user = USERS[SOCKETS[socket]];
        self.model.at(self.now);
        let banned = self.model.is_banned(&user.into());
        assert_eq!(self.control.is_banned(&user.into(), self.now), banned, "{user} is banned until the ban ends");
        if banned || self.model.sockets.contains_key(&self.sockets[socket]) {
            return;
        }
        self.last_session += 1;
        let session = SessionId(self.last_session);
        self.sockets[socket] = session;
        let role = if promoted { Role::Dispatch } else { role_of(user) };
        let claims = Claims { name: user.to_uppercase(), role, channels: allowed(user).into_iter().collect() };
        let input = Input::Open { session, user: user.into(), claims };
        self.tell(input, |model| model.open(session, user, role));
    }

    fn close(&mut self, session: SessionId) {
        self.tell(Input::Close { session, cause: "closed" }, |model| model.close(session));
        self.told.retain(|(told, _), _| *told != session);
    }

    /// The SFU has made a producer; membership was checked when it was asked for (F13).
    fn produce(&mut self, session: SessionId, channel: ChannelId) {
        if self.model.media(session, Some(&channel)) != Verdict::Admitted {
            return;
        }
        self.last_source += 1;
        let source = SourceId(self.last_source);
        let input = Input::SourceOpened { session, channel: channel.clone(), source };
        self.tell(input, |model| {
            let socket = model.sockets.get_mut(&session).expect("admitted");
            socket.producers.insert(channel, source);
        });
    }

    /// The process does nothing while the lines change, then reads all that the kernel has queued.
    fn edges(&mut self, lines: &[(usize, u64)], late_ms: u64) {
        let (mut queued, before) = (Vec::new(), self.now);
        for (line, after_ms) in lines {
            self.now = self.now + Duration::from_millis(*after_ms);
            let level = self.levels.get_mut(INPUTS[*line]).expect("a line");
            *level = !*level;
            queued.push((LineName::from(INPUTS[*line]), *level, self.now));
        }
        self.now = self.now + Duration::from_millis(late_ms);
        self.stalled = self.now > before;
        for (line, active, stamp) in queued {
            self.input(Input::Edge { line: line.clone(), active, stamp }, |model| model.edge(&line, active, stamp));
        }
        self.run_timers();
        self.stalled = false;
    }

    fn pass(&mut self, length: Duration) {
        let end = self.now + length;
        while let Some(due) = self.next_due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.run_timers();
        }
        self.now = end;
    }

    fn next_due(&self) -> Option<Mono> {
        self.control.next_timeout().into_iter().chain(self.model.next_deadline()).min()
    }

    /// Packets that have come are counted before a limit is judged (F10), as the executor does it.
    fn run_timers(&mut self) {
        if self.next_due().is_none_or(|due| due > self.now) {
            return;
        }
        for (burst, until) in self.speaking.clone() {
            let at = until.min(self.now);
            let holds = |state: &ChannelState| state.holder.as_ref().is_some_and(|holder| holder.burst == burst);
            for state in self.control.states().into_iter().filter(holds) {
                self.control.handle(Input::Heard { burst, channel: state.channel, at }, self.now);
            }
            self.model.heard(burst, at);
        }
        self.observe(None, None);
        self.model.tick(self.now);
        self.control.handle_timeout(self.now);
        self.observe(None, None);
        self.nothing_is_overdue();
    }

    fn tell(&mut self, input: Input, model: impl FnOnce(&mut Model)) {
        self.input(input, model);
        self.run_timers();
    }

    fn input(&mut self, input: Input, model: impl FnOnce(&mut Model)) {
        self.model.at(self.now);
        model(&mut self.model);
        self.control.handle(input, self.now);
        self.observe(None, None);
    }

    fn ask(
        &mut self,
        session: SessionId,
        input: impl FnOnce(ReplyId) -> Input,
        model: impl FnOnce(&mut Model) -> Verdict,
    ) {
        self.last_reply += 1;
        let reply = ReplyId(self.last_reply);
        self.model.at(self.now);
        let expected = model(&mut self.model);
        self.control.handle(input(reply), self.now);
        self.observe(Some((session, reply)), Some(expected));
        self.run_timers();
    }

    // ---- what comes of them ----

    fn observe(&mut self, asked: Option<(SessionId, ReplyId)>, expected: Option<Verdict>) {
        let effects: Vec<_> = std::iter::from_fn(|| self.control.next_effect()).collect();
        check_order(&effects);
        let mut seen = Seen::default();
        let mut failed = Vec::new();
        for effect in effects {
            self.effect(effect, asked, &mut seen, &mut failed);
        }
        assert_eq!(seen.answers, Vec::from_iter(expected), "F11, F2 to F9: one answer, the one that the model gives");
        assert_eq!(seen.cut, seen.told_interrupted, "F3, F13: whoever is cut off hears of it");
        self.one_holder_as_the_model_says();
        self.gates_follow_the_floor();
        self.everybody_knows_who_talks();
        self.temporary_joins_end_with_the_broadcast(&seen);
        self.transmitters_follow_the_floor(&seen);
        self.lamps_show_the_floor();
        let running: BTreeSet<_> = self.model.holds.values().flatten().filter_map(|hold| hold.burst).collect();
        assert!(self.on_record.keys().eq(&running), "E11, F3: every burst begins and ends in the audit: {running:?}");
        self.online = self.model.sockets.keys().copied().filter(|session| !LOCALS.contains(session)).collect();
        for (channel, burst) in failed {
            self.model.gate_failed(&channel, burst);
            self.control.handle(Input::GateFailed { channel, burst }, self.now);
            self.observe(None, None);
        }
    }

    fn effect(
        &mut self,
        effect: Effect,
        asked: Option<(SessionId, ReplyId)>,
        seen: &mut Seen,
        failed: &mut Vec<(ChannelId, BurstId)>,
    ) {
        match effect {
            Effect::Audit(record) => {
                let burst = || record.burst.expect("a burst's record names it");
                match record.action {
                    Action::PttStart | Action::PriorityPttStart | Action::EmergencyStart => {
                        assert!(burst().0 > self.last_burst, "ids of bursts only grow");
                        self.last_burst = burst().0;
                        self.on_record.insert(burst(), self.now);
                        self.holders.insert(burst(), record.actor.expect("a burst has a talker"));
                    }
                    Action::PttStop | Action::PttRevoked | Action::PriorityPttInterrupted | Action::EmergencyStop => {
                        let since = self.on_record.remove(&burst()).expect("a burst ends once");
                        let at_limit = record.cause == Some("talk-limit") && self.now == since + TALK_LIMIT;
                        let warned = self.warned.contains(&burst());
                        assert!(!at_limit || self.stalled || warned, "F9: a warning before the limit");
                    }
                    _ => {}
                }
            }
            Effect::ShutGate { channel, burst, cut } => {
                let open = self.gates.remove(&channel).map(|(open, _)| open);
                let never_opened = self.refused.remove(&(channel.clone(), burst)).is_some();
                assert!(open == Some(burst) || open.is_none() && never_opened, "every grant ends once: {burst:?}");
                assert!(self.ended.insert((channel.clone(), burst)), "every grant ends once: {burst:?}");
                if cut && !self.model.network_sockets(&self.holders[&burst]).is_empty() {
                    seen.cut.insert((channel, burst));
                }
            }
            Effect::OpenGate { channel, burst, source } => {
                let open = self.gates.get(&channel).map(|(open, _)| *open);
                assert!(
                    open.is_none_or(|open| open == burst),
                    "F1: shut before open: {open:?} {burst:?} on {channel:?}"
                );
                assert!(!self.ended.contains(&(channel.clone(), burst)), "a gate that was shut stays shut");
                let live = |source| self.model.sockets.keys().any(|s| self.model.sources_of(*s).any(|p| p == source));
                assert!(source.is_none_or(live), "F15: {channel} opens for {source:?}, which is closed");
                if self.broken_gates > 0 && open.is_none() {
                    self.broken_gates -= 1;
                    self.refused.insert((channel.clone(), burst), self.now);
                    failed.push((channel, burst));
                } else {
                    self.refused.remove(&(channel.clone(), burst));
                    self.gates.insert(channel, (burst, source));
                }
            }
            Effect::Reply { to, answer } => {
                let (session, reply) = asked.expect("F11: an answer to nobody");
                assert_eq!(to, reply, "F11: an answer to somebody else");
                if let Ok(Answer::Floor { state } | Answer::Joined { state, .. }) = &answer {
                    self.told.insert((session, state.channel.clone()), state.holder.as_ref().map(|h| h.burst));
                }
                seen.answers.push(verdict(answer));
            }
            Effect::Keep { reply, .. } => {
                let asked = asked.map(|(_, asked)| asked);
                assert_eq!(asked, Some(reply), "F11: somebody else's request is kept");
                seen.answers.push(Verdict::Done); // answered when it is on disk
            }
            Effect::AdmitMedia { reply } => {
                assert_eq!(asked.map(|(_, reply)| reply), Some(reply), "F11: somebody else's media request");
                seen.answers.push(Verdict::Admitted);
            }
            Effect::Push { to, push } => self.push(to, push, seen),
            Effect::Leave { session, channel } => drop(seen.left.insert((session, channel))),
            Effect::Close { session, .. } => {
                assert!(!LOCALS.contains(&session), "F14: a desk or port stays seated");
                self.doomed.push(session);
            }
            Effect::Play { session, burst, from } => {
                let transmitter = self.transmitters.get_mut(&session).expect("a radio");
                (transmitter.playing, transmitter.from, transmitter.idle_since) = (Some(burst), from, None);
                transmitter.open = true;
                if !transmitter.keyed {
                    let half_used = self.now.since(transmitter.keyed_since) >= TRANSMIT_TIMEOUT / 2;
                    assert!(half_used || transmitter.rests_until.is_some(), "it rests without a need");
                    transmitter.rests_until = Some(from - LEAD_IN);
                }
            }
            Effect::EndPlay { session, burst } => {
                let playing = self.transmitters.get_mut(&session).expect("a radio").playing.take();
                assert_eq!(playing, Some(burst), "what ends has played");
            }
            Effect::StopPlay { session, .. } => {
                let transmitter = self.transmitters.get_mut(&session).expect("a radio");
                assert!(!transmitter.keyed, "what is keyed plays on");
                (transmitter.playing, transmitter.rests_until, transmitter.open) = (None, None, false);
            }
            Effect::Sign { session, courtesy, ident } => {
                let transmitter = &self.transmitters[&session];
                assert!(
                    transmitter.keyed && transmitter.playing.is_none(),
                    "a signature is for the end of a transmission"
                );
                assert!(ident || (courtesy && session == DUPLEX), "a signature of nothing");
            }
            Effect::Tone { session, sounds } => {
                let before = self.tones.insert(session, sounds).unwrap_or(false);
                assert_ne!(before, sounds, "E3: a tone changes");
            }
            Effect::Line { line, active, keys } => self.line(line, active, keys, seen),
        }
    }

    fn push(&mut self, to: Vec<SessionId>, push: Push, seen: &mut Seen) {
        let is_online = |s: &SessionId| self.online.contains(s) || self.model.sockets.contains_key(s);
        assert!(!to.is_empty() && to.iter().all(|s| is_online(s) && !LOCALS.contains(s)), "a push to nobody: {push:?}");
        let recipients: BTreeSet<_> = to.iter().copied().collect();
        assert_eq!(recipients.len(), to.len(), "a push twice to one session: {push:?}");
        match push {
            Push::SpeakerChanged { state } | Push::Member { state, .. } => {
                let burst = state.holder.map(|holder| holder.burst);
                self.told.extend(to.into_iter().map(|session| ((session, state.channel.clone()), burst)));
            }
            Push::Interrupted { channel, burst, .. } => {
                let all = self.model.network_sockets(&self.holders[&burst]);
                assert_eq!(recipients, all, "F13: all sockets of the interrupted hear of it");
                seen.told_interrupted.insert((channel, burst));
            }
            Push::TalkLimitWarning { channel, remaining } => {
                assert!(remaining > Duration::ZERO, "F9: a warning after the fact");
                let burst = self.model.holds[&channel].as_ref().and_then(|hold| hold.burst);
                self.warned.extend(burst);
            }
            Push::EmergencyReceipt { channels } => {
                assert_eq!(channels.len(), self.model.holds.len(), "E9: the receipt names every channel");
                let broadcaster = self.model.emergency.as_ref().map(|e| self.model.network_sockets(&e.user));
                assert!(broadcaster.is_some_and(|own| recipients.is_subset(&own)), "E9: a receipt for somebody else");
            }
            Push::Session { .. }
            | Push::PermissionUpdate { .. }
            | Push::ChannelList { .. }
            | Push::EmergencyStarted { .. }
            | Push::EmergencyStopped { .. }
            | Push::ForceDisconnect { .. } => {}
        }
    }

    fn line(&mut self, line: LineName, active: bool, keys: bool, seen: &mut Seen) {
        if !keys {
            self.lit.insert(line, active);
            return;
        }
        let session = if line.as_str() == "radio-vhf.ptt" { SIMPLEX } else { DUPLEX };
        let transmitter = self.transmitters.get_mut(&session).expect("a radio");
        assert_ne!(transmitter.keyed, active, "a key changes");
        transmitter.keyed = active;
        self.model.keyed(session, active);
        if active {
            transmitter.keyed_since = self.now;
            (transmitter.timed_out, transmitter.rests_until) = (None, None);
            seen.keyed_up.insert(session);
        } else if self.now.since(transmitter.keyed_since) >= TRANSMIT_TIMEOUT {
            transmitter.timed_out = transmitter.playing;
        }
    }

    // ---- rules ----

    /// F1, F2 to F10, E4, E7, E8: the core's holders are the model's. A burst's id is learned when it begins.
    fn one_holder_as_the_model_says(&mut self) {
        for state in self.control.states() {
            let hold = self.model.holds.get_mut(&state.channel).expect("a channel of the event");
            let core = state.holder.as_ref().map(|h| &h.user);
            assert_eq!(core, hold.as_ref().map(|h| &h.user), "who holds {} at {:?}", state.channel, self.now);
            if let Some((hold, holder)) = hold.as_mut().zip(state.holder) {
                let fresh = !self.ended.contains(&(state.channel.clone(), holder.burst));
                assert!(fresh, "a burst that has ended holds {}", state.channel);
                let burst = *hold.burst.get_or_insert(holder.burst);
                assert_eq!(burst, holder.burst, "a burst keeps its id");
            }
        }
        let bursts: BTreeSet<_> = self.model.holds.values().map(|hold| hold.as_ref().and_then(|h| h.burst)).collect();
        let broadcast = self.control.emergency().map(|(name, since)| (name.to_lowercase(), since));
        let expected = self.model.emergency.as_ref().map(|e| (e.user.to_string(), e.since));
        assert_eq!(broadcast, expected, "E1 to E8: who broadcasts");
        assert!(broadcast.is_none() || bursts.len() == 1, "E4: one burst on every channel: {bursts:?}");
    }

    /// F1, F15, E4, E5: a gate is open for the holder's burst and nobody else's, and lets the right producer through.
    fn gates_follow_the_floor(&self) {
        for (channel, hold) in &self.model.holds {
            let (open, source) = self.gates.get(channel).copied().unzip();
            let Some(hold) = hold else {
                assert_eq!(open, None, "F1: the gate of idle {channel} is shut");
                continue;
            };
            let burst = hold.burst.expect("learned above");
            if self.refused.contains_key(&(channel.clone(), burst)) {
                continue;
            }
            assert_eq!(open, Some(burst), "F1: the gate of {channel} is open for its holder");
            let of = |session: &SessionId| self.model.sources_of(*session);
            let own: BTreeSet<_> = match &self.model.emergency {
                Some(e) => self.model.network_sockets(&e.user).iter().chain([&e.session]).flat_map(of).collect(),
                None if LOCALS.contains(&hold.session) => of(&hold.session).collect(),
                None => self.model.sockets[&hold.session].producers.get(channel).copied().into_iter().collect(),
            };
            match source.flatten() {
                Some(source) if own.contains(&source) => {}
                Some(source) => {
                    let others = self.model.sockets.keys().flat_map(of).any(|live| live == source);
                    assert!(own.is_empty() && !others, "F15, E5: {source:?} is let through, not {own:?}");
                }
                None => assert!(own.is_empty(), "F15, E5: nothing is let through, though there is {own:?}"),
            }
        }
        let sources: BTreeSet<_> = self.gates.values().map(|(_, source)| source).collect();
        assert!(self.model.emergency.is_none() || sources.len() <= 1, "E5: one source: {sources:?}");
    }

    /// F3, F12: after every decision each member knows who holds the channel, by a push or by its own answer.
    fn everybody_knows_who_talks(&self) {
        for (channel, hold) in &self.model.holds {
            let burst = hold.as_ref().and_then(|hold| hold.burst);
            for session in self.model.network_members(channel) {
                let told = self.told.get(&(session, channel.clone()));
                assert_eq!(told, Some(&burst), "F3, F12: what {session} knows of {channel}");
            }
        }
    }

    /// E5: what was joined for the broadcast is left when it ends, and nothing else is.
    fn temporary_joins_end_with_the_broadcast(&mut self, seen: &Seen) {
        let cleaned_up = std::mem::take(&mut self.model.cleaned_up);
        assert!(cleaned_up.is_subset(&seen.left), "E5: left when it ends: {cleaned_up:?}, not {:?}", seen.left);
        for (session, channel) in &seen.left {
            let member = self.model.sockets.get(session).is_some_and(|s| s.joined.contains(channel));
            assert!(!member, "E5: a channel that was joined before stays: {session} {channel}");
        }
    }

    /// Keyed for others, with the lead-in; blocked only by its own carrier (E9); unkeyed when the burst is over.
    fn transmitters_follow_the_floor(&mut self, seen: &Seen) {
        for local in &*SEATS {
            let Some(transmitter) = self.transmitters.get_mut(&local.session) else { continue };
            let hold = self.model.holds[&local.channels[0]]
                .as_ref()
                .filter(|hold| hold.user != local.user && !self.model.sockets[&local.session].disabled);
            let simplex = local.session == SIMPLEX;
            let plays = transmitter.open && transmitter.rests_until.is_none();
            assert!(transmitter.keyed || !plays, "sound goes to {} though it is not keyed", local.user);
            match hold {
                Some(hold) if transmitter.keyed => {
                    assert_eq!(transmitter.playing, hold.burst, "what is keyed for is played");
                    transmitter.idle_since = None;
                }
                Some(hold) => {
                    let radio_first = simplex != self.model.emergency.is_some();
                    let receives = self.model.carrier_is_open(local.session);
                    let spent = transmitter.timed_out.is_some() && transmitter.timed_out == hold.burst;
                    let excused = spent || transmitter.rests_until.is_some();
                    assert!(
                        excused || radio_first && receives,
                        "E9: {} is not keyed, though nothing blocks it",
                        local.user
                    );
                    transmitter.idle_since = None;
                }
                None => {
                    let rests = transmitter.rests_until.is_some();
                    assert!(rests || transmitter.playing.is_none(), "a burst that is over ends on {}", local.user);
                    transmitter.idle_since.get_or_insert(self.now);
                }
            }
            if seen.keyed_up.contains(&local.session) {
                // Also rules out that it is keyed for nobody.
                assert_eq!(transmitter.from, self.now + LEAD_IN, "key-up leads in");
            }
        }
    }

    /// What had to happen by now has happened, and no deadline stays in the past, which would keep the loop busy.
    fn nothing_is_overdue(&self) {
        let next = self.next_due();
        assert!(next.is_none_or(|due| due > self.now), "a deadline stays in the past: {next:?} at {:?}", self.now);
        for ((channel, burst), since) in &self.refused {
            assert!(self.now < *since + RETRIED_AFTER, "E4: the gate of {channel} is tried again for {burst}");
        }
        for (session, transmitter) in &self.transmitters {
            let rested = transmitter.rests_until.is_some_and(|until| self.now >= until);
            assert!(!rested, "the transmitter of {session} rests too long");
        }
        for (session, transmitter) in self.transmitters.iter().filter(|(_, t)| t.keyed) {
            let late = transmitter.idle_since.is_some_and(|since| self.now > since + UNKEYED_AFTER);
            assert!(!late, "the transmitter of {session} stays keyed for nobody");
            let over = self.now >= transmitter.keyed_since + TRANSMIT_TIMEOUT;
            let limited = self.model.emergency.is_none() && transmitter.playing.is_some();
            assert!(!(over && limited), "E9: only an emergency keeps {session} keyed beyond its time");
        }
    }

    fn lamps_show_the_floor(&self) {
        let lamps: BTreeMap<_, _> = self.control.lamps().into_iter().collect();
        let lit = |line: &LineName| self.lit.get(line).copied().unwrap_or(false);
        for desk in &SETTINGS.desks {
            for (line, channels) in &desk.tally {
                let holder = channels.iter().find_map(|channel| self.model.holds[channel].as_ref());
                match lamps[line] {
                    Shows::Idle => assert!(holder.is_none() && !lit(line), "{line} is dark while nobody talks"),
                    Shows::Fault => assert!(holder.is_none(), "{line} shows a fault though somebody talks"),
                    Shows::Busy => {
                        let other = holder.is_some_and(|hold| hold.session != desk.session);
                        assert!(other && lit(line), "{line} is lit while somebody else talks");
                    }
                    Shows::OwnTalk | Shows::Blocked => {
                        assert!(holder.is_some_and(|hold| hold.session == desk.session), "{line} shows own talk");
                    }
                    Shows::Denied => {}
                    Shows::Emergency | Shows::Arming | Shows::Misconfigured => panic!("{line} is no emergency lamp"),
                }
            }
            let shown = lamps[desk.emergency_tally.as_ref().expect("each desk has one")];
            match shown {
                Shows::Emergency => assert!(self.model.emergency.is_some(), "the emergency lamp says that one runs"),
                Shows::Idle => {
                    assert!(self.model.emergency.is_none(), "the emergency lamp says nothing while one runs")
                }
                Shows::Arming | Shows::Denied => {}
                Shows::Fault | Shows::Misconfigured | Shows::Busy | Shows::OwnTalk | Shows::Blocked => {
                    panic!("the emergency lamp: {shown:?}")
                }
            }
        }
    }
}
