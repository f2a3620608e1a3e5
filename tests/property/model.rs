//! The reference model: what the rules of the floor say, in the plainest words, without effects, lamps or messages.
//!
//! It says who holds each channel and how each request is answered. It shares no code with the core. What it is told of the
//! core is only what a bystander sees: the ids that bursts got, and whether a transmitter is keyed.

use crate::event::*;
use crosspatch::base::{BurstId, ChannelId, LineName, Mono, Role, SessionId, SourceId, UserId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const FULL_HOLD: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_secs(4);

/// How a request is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Done,
    /// The floor, or the state of a channel after a release: who holds it now.
    Floor(Option<UserId>),
    Denied(Option<UserId>),
    Error(&'static str),
    /// A media request goes on.
    Admitted,
    Started,
    /// On so many channels.
    Stopped(usize),
}

#[derive(Clone, Debug)]
pub struct Hold {
    pub user: UserId,
    pub session: SessionId,
    /// Learned from the core: the model hands out no ids.
    pub burst: Option<BurstId>,
    since: Mono,
    last_packet: Mono,
}

#[derive(Clone, Debug)]
pub struct Broadcast {
    pub user: UserId,
    pub session: SessionId,
    pub since: Mono,
    last_packet: Mono,
    /// Channels that the session has not joined itself (E5).
    pub temporary: BTreeSet<ChannelId>,
}

#[derive(Debug, Default)]
pub struct Socket {
    pub user: String,
    allowed: Vec<ChannelId>,
    pub joined: BTreeSet<ChannelId>,
    pub producers: BTreeMap<ChannelId, SourceId>,
    armed: Option<Mono>,
    /// For a desk or port: whether it can be heard.
    local: Option<(SourceId, bool)>,
    /// A desk or port that was thrown out (F14).
    pub disabled: bool,
}

/// A guarded button (E2).
#[derive(Clone, Copy, Debug, PartialEq)]
enum Button {
    Up,
    Down(Mono),
    /// Pressed since then, and it has fired.
    Fired(Mono),
    /// Counts for nothing until it is let go.
    Dead,
}

#[derive(Debug)]
struct Radio {
    session: SessionId,
    channel: ChannelId,
    simplex: bool,
    raw: bool,
    raw_since: Mono,
    open: bool,
    /// The edge that opened it.
    began: Mono,
    dead: bool,
    /// When a carrier that counted is stuck.
    limit: Option<Mono>,
    keyed: bool,
    quiet_until: Mono,
}

pub struct Model {
    now: Mono,
    roles: BTreeMap<UserId, Role>,
    pub sockets: BTreeMap<SessionId, Socket>,
    pub holds: BTreeMap<ChannelId, Option<Hold>>,
    pub emergency: Option<Broadcast>,
    locked_out: BTreeMap<(UserId, ChannelId), Mono>,
    banned: BTreeMap<UserId, Option<Mono>>,
    emergency_buttons: BTreeMap<LineName, (SessionId, bool, Button)>,
    /// PTT buttons: whose, for what, down since, dead.
    ptt: BTreeMap<LineName, (SessionId, Vec<ChannelId>, Option<Mono>, bool)>,
    radios: Vec<Radio>,
    /// What was joined for a broadcast that has ended, until somebody looks.
    pub cleaned_up: BTreeSet<(SessionId, ChannelId)>,
}

impl Model {
    pub fn new() -> Self {
        let mut roles = BTreeMap::new();
        let mut sockets = BTreeMap::new();
        for local in &*SEATS {
            roles.insert(local.user.clone(), local.role);
            let socket = Socket {
                user: local.user.to_string(),
                joined: local.channels.iter().cloned().collect(),
                local: Some((local.source, false)),
                disabled: false,
                ..Socket::default()
            };
            sockets.insert(local.session, socket);
        }
        let radio = |session, channel: &str, simplex| Radio {
            session,
            channel: channel.into(),
            simplex,
            raw: false,
            raw_since: Mono::default(),
            open: false,
            began: Mono::default(),
            dead: false,
            limit: None,
            keyed: false,
            quiet_until: Mono::default(),
        };
        let ptt = |session, channels: &[&str]| {
            (session, channels.iter().map(|c| ChannelId::from(*c)).collect::<Vec<_>>(), None, false)
        };
        Model {
            now: Mono::default(),
            roles,
            sockets,
            holds: CHANNELS.iter().map(|c| (ChannelId::from(*c), None)).collect(),
            emergency: None,
            locked_out: BTreeMap::new(),
            banned: BTreeMap::new(),
            emergency_buttons: BTreeMap::from([
                ("desk.emergency".into(), (DESK, false, Button::Up)),
                ("latch.emergency".into(), (LATCH_DESK, true, Button::Up)),
            ]),
            ptt: BTreeMap::from([
                ("desk.ptt.ops".into(), ptt(DESK, &["ops"])),
                ("desk.ptt.two".into(), ptt(DESK, &["medical", "security"])),
                ("latch.ptt.logistics".into(), ptt(LATCH_DESK, &["logistics"])),
            ]),
            radios: vec![radio(SIMPLEX, "ops", true), radio(DUPLEX, "security", false)],
            cleaned_up: BTreeSet::new(),
        }
    }

    pub fn at(&mut self, now: Mono) {
        self.now = now;
    }

    fn role(&self, session: SessionId) -> Option<Role> {
        self.sockets.get(&session).map(|s| self.roles[s.user.as_str()])
    }

    fn is_local(&self, session: SessionId) -> bool {
        self.sockets.get(&session).is_some_and(|s| s.local.is_some())
    }

    fn can_be_heard(&self, session: SessionId) -> bool {
        self.sockets.get(&session).is_some_and(|s| s.local.is_none_or(|(_, works)| works))
    }

    fn user(&self, session: SessionId) -> UserId {
        self.sockets[&session].user.as_str().into()
    }

    pub fn holder(&self, channel: &ChannelId) -> Option<UserId> {
        self.holds.get(channel)?.as_ref().map(|hold| hold.user.clone())
    }

    /// What may be let through for a session: its producers, or its microphone.
    pub fn sources_of(&self, session: SessionId) -> impl Iterator<Item = SourceId> {
        let socket = self.sockets.get(&session);
        socket
            .into_iter()
            .flat_map(|s| s.local.map(|(source, _)| source).into_iter().chain(s.producers.values().copied()))
    }

    pub fn carrier_is_open(&self, session: SessionId) -> bool {
        self.radios.iter().any(|radio| radio.session == session && radio.open)
    }

    /// All sockets of a participant that are on the network (F13).
    pub fn network_sockets(&self, user: &UserId) -> BTreeSet<SessionId> {
        let own = self.sockets.iter().filter(|(_, s)| s.user == user.as_str() && s.local.is_none());
        own.map(|(id, _)| *id).collect()
    }

    pub fn network_members(&self, channel: &ChannelId) -> BTreeSet<SessionId> {
        let members = self.sockets.iter().filter(|(_, s)| s.joined.contains(channel) && s.local.is_none());
        members.map(|(id, _)| *id).collect()
    }

    // ---- people ----

    pub fn open(&mut self, session: SessionId, user: &str, role: Role) {
        self.roles.insert(user.into(), role);
        let socket = Socket { user: user.to_owned(), allowed: allowed(user), ..Socket::default() };
        self.sockets.insert(session, socket);
    }

    pub fn close(&mut self, session: SessionId) {
        if self.emergency.as_ref().is_some_and(|e| e.session == session) {
            self.end_emergency(); // E8
        }
        self.free(|hold| hold.session == session); // F10
        let Some(socket) = self.sockets.remove(&session) else { return };
        if self.sockets.values().all(|s| s.user != socket.user) {
            self.locked_out.retain(|(user, _), _| user.as_str() != socket.user); // F9
            self.roles.remove(socket.user.as_str());
        }
    }

    pub fn join(&mut self, session: SessionId, channel: &ChannelId) -> Verdict {
        if !self.holds.contains_key(channel) {
            return Verdict::Error("unknown-channel");
        }
        let Some(socket) = self.sockets.get_mut(&session) else { return Verdict::Error("no-session") };
        if !socket.allowed.contains(channel) {
            return Verdict::Error("not-permitted");
        }
        socket.joined.insert(channel.clone());
        if let Some(e) = self.emergency.as_mut().filter(|e| e.session == session) {
            e.temporary.remove(channel); // E5
        }
        Verdict::Floor(self.holder(channel))
    }

    pub fn leave(&mut self, session: SessionId, channel: &ChannelId) -> Verdict {
        if !self.holds.contains_key(channel) {
            return Verdict::Error("unknown-channel");
        }
        if let Some(socket) = self.sockets.get_mut(&session)
            && socket.joined.remove(channel)
        {
            socket.producers.remove(channel);
            if self.emergency.is_none() && self.holds[channel].as_ref().is_some_and(|h| h.session == session) {
                self.holds.insert(channel.clone(), None);
            }
        }
        Verdict::Done
    }

    fn manages(&self, session: SessionId) -> bool {
        matches!(self.role(session), Some(Role::Dispatch | Role::Admin))
    }

    pub fn throw_out(&mut self, session: SessionId, target: &UserId) -> Verdict {
        if !self.manages(session) {
            return Verdict::Error("not-permitted");
        }
        if !self.roles.contains_key(target) {
            return Verdict::Error("unknown-user");
        }
        if self.emergency.as_ref().is_some_and(|e| e.user == *target) {
            self.end_emergency(); // E8
        }
        self.free(|hold| hold.user == *target); // F14
        for socket in self.sockets.values_mut().filter(|s| s.user == target.as_str()) {
            socket.disabled = socket.local.is_some();
        }
        Verdict::Done
    }

    pub fn ban(&mut self, session: SessionId, target: &UserId, duration: Option<Duration>) -> Verdict {
        if !self.manages(session) {
            return Verdict::Error("not-permitted");
        }
        self.banned.insert(target.clone(), duration.map(|d| self.now + d));
        self.throw_out(session, target);
        Verdict::Done
    }

    pub fn unban(&mut self, session: SessionId, target: &UserId) -> Verdict {
        if !self.manages(session) {
            return Verdict::Error("not-permitted");
        }
        self.banned.remove(target);
        Verdict::Done
    }

    pub fn is_banned(&self, user: &UserId) -> bool {
        self.banned.get(user).is_some_and(|until| until.is_none_or(|until| until > self.now))
    }

    // ---- the floor ----

    /// F13 and E5: a member, or the broadcaster on a channel that it has for the broadcast.
    fn may_ask(&self, session: SessionId, channel: &ChannelId) -> Result<(), &'static str> {
        if !self.holds.contains_key(channel) {
            return Err("unknown-channel");
        }
        let socket = self.sockets.get(&session).ok_or("no-session")?;
        let temporary = self.emergency.as_ref().is_some_and(|e| e.session == session && e.temporary.contains(channel));
        if socket.joined.contains(channel) || temporary { Ok(()) } else { Err("not-member") }
    }

    pub fn media(&self, session: SessionId, channel: Option<&ChannelId>) -> Verdict {
        match channel.map_or(Ok(()), |channel| self.may_ask(session, channel)) {
            Ok(()) => Verdict::Admitted,
            Err(code) => Verdict::Error(code),
        }
    }

    pub fn request(&mut self, session: SessionId, channel: &ChannelId, priority: bool) -> Verdict {
        if let Err(code) = self.may_ask(session, channel) {
            return Verdict::Error(code);
        }
        if priority && self.role(session) != Some(Role::Dispatch) {
            return Verdict::Error("no-priority"); // F5
        }
        let user = self.user(session);
        let holder = self.holder(channel);
        if !self.can_be_heard(session) || self.sockets[&session].disabled {
            return Verdict::Denied(None); // F10
        }
        if holder.as_ref() == Some(&user) {
            return Verdict::Floor(holder); // F2
        }
        if let Some(holder) = holder {
            let equal = self.roles[&holder] == Role::Dispatch;
            if self.emergency.is_some() || equal || !priority {
                return Verdict::Denied(Some(holder)); // E7, F4, F6
            }
        } else {
            let locked = self.locked_out.get(&(user.clone(), channel.clone()));
            if locked.is_some_and(|since| self.now < *since + Duration::from_secs(1)) {
                return Verdict::Denied(None); // F9
            }
        }
        self.locked_out.remove(&(user.clone(), channel.clone()));
        let hold = Hold { user: user.clone(), session, burst: None, since: self.now, last_packet: self.now };
        self.holds.insert(channel.clone(), Some(hold));
        Verdict::Floor(Some(user))
    }

    pub fn release(&mut self, session: SessionId, channel: &ChannelId, burst: Option<BurstId>) -> Verdict {
        if !self.holds.contains_key(channel) {
            return Verdict::Error("unknown-channel");
        }
        if let Some(socket) = self.sockets.get(&session) {
            self.locked_out.remove(&(socket.user.as_str().into(), channel.clone()));
        }
        self.give_back(session, channel, burst);
        Verdict::Floor(self.holder(channel))
    }

    fn give_back(&mut self, session: SessionId, channel: &ChannelId, burst: Option<BurstId>) {
        let own = self.holds[channel].as_ref().filter(|h| h.session == session); // F8, F15
        let fresh = own.is_some_and(|h| burst.is_none() || burst == h.burst);
        if fresh && self.emergency.is_none() {
            self.holds.insert(channel.clone(), None);
        }
    }

    fn free(&mut self, which: impl Fn(&Hold) -> bool) {
        for hold in self.holds.values_mut() {
            hold.take_if(|h| which(h));
        }
    }

    pub fn heard(&mut self, burst: BurstId, at: Mono) {
        let mut heard = false;
        for hold in self.holds.values_mut().flatten().filter(|h| h.burst == Some(burst)) {
            hold.last_packet = hold.last_packet.max(at);
            heard = true;
        }
        if let Some(e) = self.emergency.as_mut().filter(|_| heard) {
            e.last_packet = e.last_packet.max(at);
        }
    }

    pub fn gate_failed(&mut self, channel: &ChannelId, burst: BurstId) {
        if self.emergency.is_none() && self.holds[channel].as_ref().is_some_and(|h| h.burst == Some(burst)) {
            self.holds.insert(channel.clone(), None);
        }
    }

    pub fn capture(&mut self, session: SessionId, works: bool) {
        if let Some(socket) = self.sockets.get_mut(&session) {
            socket.local = socket.local.map(|(source, _)| (source, works));
        }
    }

    // ---- the emergency ----

    pub fn arm(&mut self, session: SessionId, pressed: bool) -> Verdict {
        if self.role(session) != Some(Role::Dispatch) {
            return Verdict::Error("not-permitted"); // E1
        }
        let now = self.now;
        self.sockets.get_mut(&session).expect("it has a role").armed = pressed.then_some(now);
        Verdict::Done
    }

    pub fn start(&mut self, session: SessionId, hold_ms: f64) -> Verdict {
        if self.role(session) != Some(Role::Dispatch) {
            return Verdict::Error("not-permitted"); // E1
        }
        let seen = self.sockets[&session].armed.map(|since| self.now.since(since));
        if hold_ms < 2000.0 || seen.is_some_and(|seen| seen < Duration::from_millis(1800)) {
            return Verdict::Error("hold-too-short"); // E2
        }
        self.begin(session)
    }

    fn begin(&mut self, session: SessionId) -> Verdict {
        if let Some(e) = &self.emergency {
            return Verdict::Denied(Some(e.user.clone())); // E7
        }
        if !self.can_be_heard(session) || self.sockets[&session].disabled {
            return Verdict::Denied(None); // F10
        }
        let (user, since) = (self.user(session), self.now);
        let joined = &self.sockets[&session].joined;
        let temporary = self.holds.keys().filter(|c| !joined.contains(*c)).cloned().collect();
        for (channel, hold) in &mut self.holds {
            self.locked_out.remove(&(user.clone(), channel.clone()));
            *hold = Some(Hold { user: user.clone(), session, burst: None, since, last_packet: since }); // E4
        }
        self.emergency = Some(Broadcast { user, session, since, last_packet: since, temporary });
        Verdict::Started
    }

    pub fn stop(&mut self, session: SessionId) -> Verdict {
        if let Some(socket) = self.sockets.get_mut(&session) {
            socket.armed = None;
        }
        let own = |e: &Broadcast| self.sockets.get(&session).is_some_and(|s| s.user == e.user.as_str());
        if !self.emergency.as_ref().is_some_and(own) {
            return Verdict::Stopped(0);
        }
        self.end_emergency();
        Verdict::Stopped(self.holds.len())
    }

    fn end_emergency(&mut self) {
        let Some(e) = self.emergency.take() else { return };
        self.free(|_| true);
        let socket = self.sockets.get_mut(&e.session).expect("the broadcaster has a socket");
        socket.producers.retain(|channel, _| !e.temporary.contains(channel));
        self.cleaned_up.extend(e.temporary.into_iter().map(|channel| (e.session, channel)));
    }

    // ---- buttons and carriers ----

    fn broadcasts(&self, session: SessionId) -> bool {
        self.emergency.as_ref().is_some_and(|e| e.session == session)
    }

    pub fn edge(&mut self, line: &LineName, active: bool, stamp: Mono) {
        self.find_stuck_buttons(line, stamp, false);
        if let Some((session, latch, before)) = self.emergency_buttons.get(line).copied() {
            let after = self.guarded_button(session, latch, before, active, stamp);
            self.emergency_buttons.get_mut(line).expect("found above").2 = after;
        } else if let Some((session, channels, down, dead)) = self.ptt.get(line).cloned() {
            let button = self.ptt.get_mut(line).expect("found above");
            let counts = active && !dead;
            (button.2, button.3) = (counts.then(|| down.unwrap_or(stamp)), dead && active);
            for channel in channels {
                if counts && down.is_none() {
                    self.request(session, &channel, true); // F6: a desk asks with priority
                } else if !active && down.is_some() {
                    self.give_back(session, &channel, None);
                }
            }
        } else {
            self.carrier(SIMPLEX, active, stamp);
        }
    }

    /// A button that was pressed for too long counts as let go, and for nothing until it is.
    fn find_stuck_buttons(&mut self, line: &LineName, until: Mono, at_once: bool) {
        let is_stuck = |since: Mono| since + STUCK < until || at_once && since + STUCK == until;
        let stuck = match (self.emergency_buttons.get(line), self.ptt.get(line)) {
            (Some((_, _, Button::Down(since) | Button::Fired(since))), _) | (_, Some((_, _, Some(since), _))) => {
                is_stuck(*since)
            }
            _ => false,
        };
        if stuck {
            self.edges_lost(line, true);
        }
    }

    fn guarded_button(&mut self, session: SessionId, latch: bool, before: Button, active: bool, stamp: Mono) -> Button {
        match (before, active) {
            (Button::Up, true) if latch && self.broadcasts(session) => {
                self.end_emergency();
                Button::Dead
            }
            (Button::Up, true) => Button::Down(stamp),
            (before, true) => before,
            (Button::Down(since), false) => {
                let full = stamp.since(since) >= FULL_HOLD;
                let late = self.now.since(since + FULL_HOLD) > Duration::from_millis(20);
                if full && (latch || !late) {
                    self.begin(session);
                }
                if !latch && self.broadcasts(session) {
                    self.end_emergency();
                }
                Button::Up
            }
            (Button::Fired(_), false) => {
                if !latch && self.broadcasts(session) {
                    self.end_emergency();
                }
                Button::Up
            }
            (Button::Up | Button::Dead, false) => Button::Up,
        }
    }

    /// Edges are missing: whatever was down has been let go, and what is down now counts for nothing.
    pub fn edges_lost(&mut self, line: &LineName, active: bool) {
        if let Some((session, latch, before)) = self.emergency_buttons.get_mut(line) {
            *before = Button::Up;
            let ends = !*latch;
            let session = *session;
            if ends && self.broadcasts(session) {
                self.end_emergency(); // E8
            }
        } else if let Some((session, channels, down, _)) = self.ptt.get(line).cloned() {
            self.ptt.get_mut(line).expect("found above").2 = None;
            for channel in channels.iter().filter(|_| down.is_some()) {
                self.give_back(session, channel, None);
            }
        } else {
            self.edge(line, false, self.now);
        }
        if active {
            self.kill(line);
        } else if let Some(button) = self.ptt.get_mut(line) {
            button.3 = false;
        }
    }

    /// E3, F7: counts for nothing until it is let go.
    pub fn kill(&mut self, line: &LineName) {
        if let Some(button) = self.emergency_buttons.get_mut(line) {
            button.2 = Button::Dead;
        } else if let Some(button) = self.ptt.get_mut(line) {
            button.3 = true;
        } else {
            self.radios[0].dead = true;
        }
    }

    /// A carrier counts once it has lasted, by its stamps alone.
    pub fn carrier(&mut self, session: SessionId, active: bool, stamp: Mono) {
        let place = self.radios.iter().position(|r| r.session == session).expect("a radio");
        self.let_carrier_count(place, stamp);
        let radio = &mut self.radios[place];
        if radio.raw != active {
            (radio.raw, radio.raw_since) = (active, stamp);
        }
        if !active && !radio.open {
            radio.dead = false;
        }
    }

    fn due(radio: &Radio) -> Option<Mono> {
        let needed = if radio.raw { ATTACK } else { RELEASE };
        (radio.raw != radio.open).then(|| radio.raw_since + needed)
    }

    /// When an open carrier asks: no flap, nothing of the radio's own transmission, and let go since it was dead.
    fn asks_at(radio: &Radio) -> Option<Mono> {
        let may = radio.open && radio.raw && radio.limit.is_none() && !radio.dead && !(radio.keyed && radio.simplex);
        may.then(|| radio.quiet_until.max(radio.began + FLAP))
    }

    fn let_carrier_count(&mut self, place: usize, until: Mono) {
        let radio = &mut self.radios[place];
        let (session, channel, now) = (radio.session, radio.channel.clone(), self.now);
        if Self::due(radio).is_some_and(|due| due <= until) {
            radio.open = radio.raw;
            radio.began = radio.raw_since;
            if !radio.open {
                radio.dead = false;
                if radio.limit.take().is_some() {
                    self.give_back(session, &channel, None);
                }
                return;
            }
        }
        if Self::asks_at(radio).is_some_and(|at| at <= until) {
            radio.limit = Some(now + CARRIER_TIMEOUT);
            let granted = matches!(self.request(session, &channel, false), Verdict::Floor(_));
            self.radios[place].dead = !granted;
        }
    }

    /// What a bystander sees of a transmitter.
    pub fn keyed(&mut self, session: SessionId, keyed: bool) {
        let now = self.now;
        if let Some(radio) = self.radios.iter_mut().find(|r| r.session == session) {
            radio.keyed = keyed;
            if !keyed {
                radio.quiet_until = now + INHIBIT;
            }
        }
    }

    // ---- time ----

    fn silence_of(&self, session: SessionId, last_packet: Mono) -> Option<Mono> {
        (!self.is_local(session) || !self.can_be_heard(session)).then(|| last_packet + SILENCE)
    }

    fn limit_of(&self, hold: &Hold) -> Option<Mono> {
        let limited = !self.is_local(hold.session) && self.roles[&hold.user] != Role::Dispatch;
        limited.then(|| hold.since + TALK_LIMIT)
    }

    /// When something will happen by itself.
    pub fn next_deadline(&self) -> Option<Mono> {
        let buttons = self.emergency_buttons.values().filter_map(|(_, _, button)| match button {
            Button::Down(since) => Some(*since + FULL_HOLD),
            Button::Fired(since) => Some(*since + STUCK),
            Button::Up | Button::Dead => None,
        });
        let buttons = buttons.chain(self.ptt.values().filter_map(|(_, _, down, _)| Some((*down)? + STUCK)));
        let radios =
            self.radios.iter().flat_map(|r| [Self::due(r), Self::asks_at(r), r.limit.filter(|_| !r.dead)]).flatten();
        let broadcast = self.emergency.iter().flat_map(|e| {
            [Some(e.since + EMERGENCY_MAX), self.silence_of(e.session, e.last_packet)].into_iter().flatten()
        });
        let holds = self.holds.values().flatten().filter(|_| self.emergency.is_none());
        let holds = holds.flat_map(|h| [self.limit_of(h), self.silence_of(h.session, h.last_packet)]).flatten();
        buttons.chain(radios).chain(broadcast).chain(holds).min()
    }

    /// What happens by itself at `now`: buttons first, then carriers, then limits.
    pub fn tick(&mut self, now: Mono) {
        self.now = now;
        for line in self.emergency_buttons.keys().cloned().collect::<Vec<_>>() {
            let (session, _, button) = self.emergency_buttons[&line];
            if matches!(button, Button::Down(since) if since + FULL_HOLD <= now) {
                let Button::Down(since) = button else { unreachable!("matched above") };
                self.begin(session);
                self.emergency_buttons.get_mut(&line).expect("a button").2 = Button::Fired(since);
            }
        }
        for line in self.emergency_buttons.keys().chain(self.ptt.keys()).cloned().collect::<Vec<_>>() {
            self.find_stuck_buttons(&line, now, true);
            self.find_stuck_buttons(&line, now, false);
        }
        for place in 0..self.radios.len() {
            self.let_carrier_count(place, now);
            let radio = &mut self.radios[place];
            if !radio.dead && radio.limit.is_some_and(|limit| limit <= now) {
                radio.dead = true;
                let (session, channel) = (radio.session, radio.channel.clone());
                self.give_back(session, &channel, None);
            }
        }
        match &self.emergency {
            Some(e) => {
                let silent = self.silence_of(e.session, e.last_packet).is_some_and(|at| at <= now);
                if silent || e.since + EMERGENCY_MAX <= now {
                    self.end_emergency();
                }
            }
            None => self.judge_holds(now),
        }
    }

    fn judge_holds(&mut self, now: Mono) {
        for channel in self.holds.keys().cloned().collect::<Vec<_>>() {
            let Some(hold) = &self.holds[&channel] else { continue };
            let limit = self.limit_of(hold).is_some_and(|at| at <= now);
            let silent = self.silence_of(hold.session, hold.last_packet).is_some_and(|at| at <= now);
            if limit {
                self.locked_out.insert((hold.user.clone(), channel.clone()), now);
            }
            if limit || silent {
                self.holds.insert(channel, None);
            }
        }
    }
}
