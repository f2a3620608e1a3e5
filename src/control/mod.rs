//! The brain: who may speak where, and what follows from it.
//!
//! Decides floors, pre-emption, emergency broadcasts, what buttons and carriers mean, and when a
//! transmitter is keyed. It never reads a clock, sleeps, does IO or draws random numbers: inputs
//! come with the time they happened, effects go out in a fixed order.
//!
//! **Invariant:** at most one holder a channel (F1). **Invariant:** the effects of one input leave
//! in the order of [`Effect::phase`], decision by decision: audit, shut, tell the interrupted, open, reply, tell everybody, key,
//! tally (F3). **Invariant:** every [`ReplyId`] is answered exactly once (F11).

mod button;
mod channels;
mod desk;
#[cfg(test)]
mod desk_tests;
mod emergency;
mod floor;
mod hold;
mod keyer;
mod members;
mod message;
mod moderation;
mod permissions;
mod radio;
mod readiness;
mod squelch;
mod tally;
#[cfg(test)]
mod tests;

pub use message::{Actor, Answer, ChannelState, Claims, Effect, Holder, Input, Interruption, Keep, Push, Refusal};
pub use radio::{PortState, Receiver, Transmitter};
pub use readiness::{RadioState, Reach, Readiness, Receipt};
pub use tally::{CODES, Code, Pattern, Shows, codes_as_markdown};

use crate::base::{Action, BurstId, ChannelId, LineName, Mono, Record, Role, SessionId, SourceId, UserId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// What the core is told once, at start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The talk channels of the event.
    pub channels: Vec<ChannelSpec>,
    /// The desks of this box.
    pub desks: Vec<DeskSpec>,
    /// The radio ports of this box.
    pub ports: Vec<PortSpec>,
    /// Limits and times that may change at run time.
    pub tuning: Tuning,
    /// The box's new configuration was refused; a desk's fault lamp says so while nothing else is wrong.
    pub misconfigured: bool,
}

/// Limits and times that may change at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// How long the emergency button is held (E2); never below [`MIN_HOLD`].
    pub emergency_hold: Duration,
    /// The longest emergency broadcast (E8).
    pub emergency_max: Duration,
    /// The longest burst of General and Admin (F9); none for Dispatch.
    pub talk_limit: Duration,
    /// Channels that a General user may monitor at once, over all of its sessions.
    pub general_channels: usize,
    /// The same for Dispatch and Admin.
    pub dispatch_channels: usize,
    /// Users on one channel.
    pub channel_users: usize,
    /// Users on the box. Dispatch is let in all the same.
    pub users: usize,
}

/// E2: no configuration goes below this.
pub const MIN_HOLD: Duration = Duration::from_millis(2000);
/// F10, T1 of TS 24.380: a holder without media loses the floor after this.
pub const MEDIA_TIMEOUT: Duration = Duration::from_secs(4);
/// F9: the warning comes this long before the limit.
pub const LIMIT_WARNING: Duration = Duration::from_secs(10);
/// E2: what a network press may be shorter by on the gateway's own clock.
const NETWORK_JITTER: Duration = Duration::from_millis(200);
/// F9: a network client that is locked out may ask again after this.
const LOCKOUT: Duration = Duration::from_secs(1);

impl Default for Tuning {
    /// What holds if the configuration says nothing.
    fn default() -> Self {
        Tuning {
            emergency_hold: MIN_HOLD,
            emergency_max: Duration::from_secs(300),
            talk_limit: Duration::from_secs(60),
            general_channels: 10,
            dispatch_channels: 50,
            channel_users: 100,
            users: 1000,
        }
    }
}

/// One talk channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelSpec {
    /// The id on the wire.
    pub id: ChannelId,
    /// The name people see.
    pub name: String,
}

/// A button: one contact, or two of which one opens when the other closes, so that a broken wire shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ButtonSpec {
    /// The contact that closes; the button is called by it.
    pub line: LineName,
    /// The contact that opens; active when pressed, like the other.
    pub opening: Option<LineName>,
}

/// A PTT button.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PttSpec {
    /// The button.
    pub button: ButtonSpec,
    /// The channels that it always asks for; several are asked for each on its own (F16).
    pub channels: Vec<ChannelId>,
    /// The positions of a selector: it asks for the channels of those that are active when it is pressed.
    pub select: Vec<(LineName, ChannelId)>,
}

/// One dispatch desk: a participant made of buttons, lamps, a microphone and a loudspeaker.
#[derive(Clone, Debug)]
pub struct DeskSpec {
    /// Who it is.
    pub user: UserId,
    /// Its name, as people hear it.
    pub name: String,
    /// Its role, Dispatch by default.
    pub role: Role,
    /// Its inside session.
    pub session: SessionId,
    /// Its microphone.
    pub source: SourceId,
    /// PTT buttons.
    pub ptt: Vec<PttSpec>,
    /// The guarded emergency button.
    pub emergency: Option<ButtonSpec>,
    /// Tally lamps and the channels that each tells of.
    pub tally: Vec<(LineName, Vec<ChannelId>)>,
    /// The emergency lamp.
    pub emergency_tally: Option<LineName>,
    /// The fault lamp; without one the emergency lamp shows faults.
    pub fault_tally: Option<LineName>,
    /// The buzzer.
    pub buzzer: Option<LineName>,
    /// A button that is pressed for this long is stuck.
    pub stuck_alarm: Duration,
    /// True: the next press ends an emergency; false: hold to talk (E8).
    pub latch: bool,
}

/// One analog radio on one channel. Its role is always General (F6).
#[derive(Clone, Debug)]
pub struct PortSpec {
    /// Who it is.
    pub user: UserId,
    /// Its name, as people hear it.
    pub name: String,
    /// The one channel it bridges.
    pub channel: ChannelId,
    /// Its inside session.
    pub session: SessionId,
    /// Its receive audio.
    pub source: SourceId,
    /// Where its carrier comes from; `None` means VOX.
    pub carrier: Option<LineName>,
    /// Its PTT output.
    pub ptt: Option<LineName>,
    /// How long the carrier (or voice) must be there before it counts.
    pub attack: Duration,
    /// How long it must be gone before it counts as gone.
    pub release: Duration,
    /// Key-up to first audio.
    pub lead_in: Duration,
    /// Last audio to unkey.
    pub ptt_hang: Duration,
    /// A carrier that is over before this counts for nothing (flap suppression).
    pub flap: Duration,
    /// How long the floor is kept after the carrier's end: the end of what was said is still on its way through the card.
    pub linger: Duration,
    /// Own carrier is ignored for this long after an own transmission.
    pub inhibit: Duration,
    /// The longest carrier; takes the place of the talk limit.
    pub carrier_timeout: Duration,
    /// The longest time keyed, but in an emergency (E9).
    pub transmit_timeout: Duration,
    /// True: a tone ends every transmission.
    pub courtesy_tone: bool,
    /// How often the station identifies itself, at the end of a transmission; `None`: never.
    pub ident_interval: Option<Duration>,
    /// True: keying waits while the port's own carrier is open (simplex).
    pub radio_first: bool,
    /// The same during an emergency (E9).
    pub radio_first_in_emergency: bool,
}

/// A participant and its sessions (F13: several sockets are one participant).
#[derive(Debug)]
struct User {
    name: String,
    role: Role,
    sessions: BTreeSet<SessionId>,
}

#[derive(Debug)]
struct Session {
    user: UserId,
    /// What its token says.
    claims: Claims,
    /// Channels of the event that it may join: by the store's word on the person, else by the token.
    allowed: BTreeSet<ChannelId>,
    /// The channels and the role that it was told of last.
    told: (Vec<ChannelSpec>, Role),
    /// Joined channels with the order of joining (E6).
    joined: BTreeMap<ChannelId, u64>,
    /// Producers of a network session, by channel (F15).
    sources: BTreeMap<ChannelId, SourceId>,
    /// The one source of a desk or port.
    local: Option<SourceId>,
    /// False: a desk or port without a working capture device (F10).
    capture_works: bool,
    /// False: a desk or port without a working playback device (E10).
    playback_works: bool,
    /// A desk or port that was thrown out, until somebody enables it again (F14).
    disabled: bool,
    /// When the client said that its emergency button went down (E2).
    armed: Option<Mono>,
}

#[derive(Debug, Default)]
struct Channel {
    members: BTreeSet<SessionId>,
    burst: Option<Burst>,
}

/// A floor that is held.
#[derive(Clone, Debug)]
struct Burst {
    id: BurstId,
    user: UserId,
    session: SessionId,
    since: Mono,
    /// The newest packet, or the grant (F10).
    last_media: Mono,
    warned: bool,
    /// The talk limit counts from here: the grant, or the loss of priority (F9).
    limited_from: Mono,
}

/// The state of the whole event, and the only owner of it.
#[derive(Debug)]
pub struct Control {
    settings: Settings,
    users: BTreeMap<UserId, User>,
    sessions: BTreeMap<SessionId, Session>,
    channels: BTreeMap<ChannelId, Channel>,
    emergency: Option<emergency::Emergency>,
    desks: Vec<desk::Desk>,
    ports: Vec<radio::Port>,
    /// Sessions that may come back within [`members::RESUME`].
    lost: BTreeMap<SessionId, members::Lost>,
    /// Talkers that ran into their limit, and when (F9).
    locked_out: BTreeMap<(UserId, ChannelId), Mono>,
    /// What the store says of persons; goes before the claims of their tokens.
    people: BTreeMap<UserId, Claims>,
    /// Permissions that are lost when the participant's burst there has ended (F14).
    deferred: BTreeSet<(UserId, ChannelId)>,
    /// Channels that go when the burst on them has ended.
    retired: BTreeSet<ChannelId>,
    /// True while sessions have to be told of their channels or role.
    lists_changed: bool,
    /// Banned until; `None` is for ever.
    bans: BTreeMap<UserId, Option<Mono>>,
    last_burst: u64,
    last_rank: u64,
    /// What the lamps and keys show, so that only changes go out.
    lines: BTreeMap<LineName, bool>,
    /// When a lamp or buzzer changes by its pattern.
    lamps_due: Option<Mono>,
    /// Lines whose chip is gone.
    gone: BTreeSet<LineName>,
    /// Desks whose arming tone sounds.
    toning: BTreeSet<SessionId>,
    now: Mono,
    effects: Vec<Effect>,
    queue: VecDeque<Effect>,
}

impl Control {
    /// A core with its desks and ports as members of their channels and nobody talking.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let channels = settings.channels.iter().map(|c| (c.id.clone(), Channel::default())).collect();
        let mut control = Control {
            users: BTreeMap::new(),
            sessions: BTreeMap::new(),
            channels,
            emergency: None,
            desks: settings.desks.iter().cloned().map(desk::Desk::new).collect(),
            ports: settings.ports.iter().cloned().map(radio::Port::new).collect(),
            lost: BTreeMap::new(),
            locked_out: BTreeMap::new(),
            people: BTreeMap::new(),
            deferred: BTreeSet::new(),
            retired: BTreeSet::new(),
            lists_changed: false,
            bans: BTreeMap::new(),
            last_burst: 0,
            last_rank: 0,
            lines: BTreeMap::new(),
            lamps_due: None,
            gone: BTreeSet::new(),
            toning: BTreeSet::new(),
            now: Mono::default(),
            effects: Vec::new(),
            queue: VecDeque::new(),
            settings,
        };
        control.seat_desks_and_ports();
        control
    }

    /// Takes one input that happened at or before `now`.
    pub fn handle(&mut self, input: Input, now: Mono) {
        self.now = self.now.max(now);
        self.note_keyed();
        match input {
            Input::Open { session, user, claims } => self.open_session(session, user, claims),
            Input::Resume { session, lost } => self.resume(session, lost),
            Input::Close { session, cause } => self.close_session(session, cause),
            Input::Join { session, channel, reply } => self.join(session, &channel, reply),
            Input::Leave { session, channel, reply } => self.leave(session, &channel, reply),
            Input::Request { session, channel, priority, reply } => {
                let answer = self.request_floor(session, &channel, priority, Some(reply));
                self.reply(reply, answer);
            }
            Input::Release { session, channel, burst, reply } => self.release_request(session, &channel, burst, reply),
            Input::Arm { session, pressed, reply } => self.arm_from_network(session, pressed, reply),
            Input::StartEmergency { session, hold_ms, reply } => self.emergency_from_network(session, hold_ms, reply),
            Input::StopEmergency { session, reply } => self.stop_from_network(session, reply),
            Input::Media { session, channel, reply } => self.admit_media(session, channel.as_ref(), reply),
            Input::SourceOpened { session, channel, source } => self.source_opened(session, &channel, source),
            Input::SourceClosed { source } => self.source_closed(source),
            Input::Heard { burst, channel, at } => self.heard(burst, &channel, at),
            Input::GateFailed { channel, burst } => self.gate_failed(&channel, burst),
            Input::ForceDisconnect { session, target, reason, reply } => {
                self.force_disconnect(session, &target, reason, reply);
            }
            Input::Ban { session, target, duration, reason, reply } => {
                self.ban(session, &target, duration, reason, reply)
            }
            Input::Unban { session, target, reply } => self.unban(session, &target, reply),
            Input::Channels { channels, by } => self.set_channels(channels, by.as_ref()),
            Input::People { people, by } => self.set_people(people, by.as_ref()),
            Input::Bans { bans } => self.load_bans(bans),
            Input::Banned { target, until, reason, by } => self.banned(&target, until, &reason, &by),
            Input::Unbanned { target, by } => self.unbanned(&target, &by),
            Input::Disabled { users } => self.load_disabled(&users),
            Input::Enable { target, by } => self.enable(&target, &by),
            Input::Tune(tuning) => self.settings.tuning = tuning,
            Input::Edge { line, active, stamp } => self.edge(&line, active, stamp),
            Input::EdgesLost { line, active } => self.edges_lost(&line, active),
            Input::ActiveAtStart { line } => self.active_at_start(&line),
            Input::LineGone { line } => self.line_gone(&line),
            Input::LineReturned { line, active } => self.line_returned(&line, active),
            Input::Voice { session, active, stamp } => self.carrier(session, active, stamp),
            Input::Capture { session, works } => self.capture(session, works),
            Input::Playback { session, works } => self.playback(session, works),
            Input::Drained { session, at } => self.drained(session, at),
        }
        self.settle();
    }

    /// Takes what is due at `now`. The caller first reads edges and packets that are already queued (E2, F10).
    pub fn handle_timeout(&mut self, now: Mono) {
        self.now = self.now.max(now);
        self.note_keyed();
        self.desk_timeouts();
        self.port_timeouts();
        self.floor_timeouts();
        self.emergency_timeouts();
        self.settle();
    }

    /// When [`Control::handle_timeout`] is due next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Mono> {
        let due = self.floor_due().chain(self.emergency_due()).chain(self.desk_due()).chain(self.port_due());
        due.min()
    }

    /// The next thing to do, in order.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.queue.pop_front()
    }

    /// Every output that was ever set, as it is wanted now.
    #[must_use]
    pub fn outputs(&self) -> &BTreeMap<LineName, bool> {
        &self.lines
    }

    /// The inside sessions of desks and ports.
    #[must_use]
    pub fn local_sessions(&self) -> Vec<SessionId> {
        self.sessions.iter().filter(|(_, s)| s.local.is_some()).map(|(id, _)| *id).collect()
    }

    /// Users on the network, each once.
    #[must_use]
    pub fn network_users(&self) -> BTreeSet<&UserId> {
        self.sessions.values().filter(|s| s.local.is_none()).map(|s| &s.user).collect()
    }

    /// How many channels a user in this role may monitor at once.
    #[must_use]
    pub fn channels_at_once(&self, role: Role) -> usize {
        match role {
            Role::General => self.settings.tuning.general_channels,
            Role::Admin | Role::Dispatch => self.settings.tuning.dispatch_channels,
        }
    }

    /// False if the box has no room for one more user (Dispatch is let in all the same).
    #[must_use]
    pub fn has_room_for(&self, user: &UserId, role: Role) -> bool {
        let users = self.network_users();
        role.has_priority() || users.contains(user) || users.len() < self.settings.tuning.users
    }

    /// What holds for a participant whose token says `claimed`.
    #[must_use]
    pub fn role_now(&self, user: &UserId, claimed: Role) -> Role {
        self.people.get(user).map_or(claimed, |p| p.role)
    }

    /// Desks and ports that may not talk, with their names (F14).
    #[must_use]
    pub fn disabled(&self) -> Vec<(UserId, String)> {
        let disabled = self.sessions.values().filter(|s| s.disabled);
        disabled.map(|s| (s.user.clone(), self.name_of(&s.user))).collect()
    }

    /// Everybody who is there, with what holds for them; desks and ports too.
    #[must_use]
    pub fn present(&self) -> BTreeMap<UserId, Claims> {
        let claims = |user: &User| Claims {
            name: user.name.clone(),
            role: user.role,
            channels: user
                .sessions
                .iter()
                .filter_map(|s| self.sessions.get(s))
                .flat_map(|s| s.allowed.clone())
                .collect(),
        };
        self.users.iter().map(|(id, user)| (id.clone(), claims(user))).collect()
    }

    /// True if `user` is a desk or port of this box.
    #[must_use]
    pub fn is_local(&self, user: &UserId) -> bool {
        self.sessions.values().any(|s| s.local.is_some() && s.user == *user)
    }

    /// The end of a ban that holds; `Some(None)` has none.
    #[must_use]
    pub fn ban_end(&self, user: &UserId, now: Mono) -> Option<Option<Mono>> {
        self.bans.get(user).copied().filter(|_| self.is_banned(user, now))
    }

    /// True while `user` may not connect.
    #[must_use]
    pub fn is_banned(&self, user: &UserId, now: Mono) -> bool {
        self.bans.get(user).is_some_and(|until| until.is_none_or(|until| now < until))
    }

    /// The state of every channel, for pages and lamps.
    #[must_use]
    pub fn states(&self) -> Vec<ChannelState> {
        self.channels.keys().map(|id| self.state(id)).collect()
    }

    /// The broadcaster's name and the beginning of the running emergency.
    #[must_use]
    pub fn emergency(&self) -> Option<(String, Mono)> {
        self.emergency.as_ref().map(|e| (self.name_of(&e.user), e.since))
    }

    /// The order in which `session` joined `channel`; `None` if it is not a member.
    #[must_use]
    pub fn join_rank(&self, session: SessionId, channel: &ChannelId) -> Option<u64> {
        self.sessions.get(&session)?.joined.get(channel).copied()
    }

    fn settle(&mut self) {
        self.carry_out_departures();
        self.tell_lists();
        self.update_emergency_source();
        self.update_keyers();
        self.update_tallies();
        self.effects.sort_by_key(Effect::phase); // stable: within a phase the order of happening stays
        self.queue.extend(self.effects.drain(..));
    }

    fn emit(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    fn reply(&mut self, to: crate::base::ReplyId, answer: Result<Answer, Refusal>) {
        self.emit(Effect::Reply { to, answer });
    }

    fn push(&mut self, to: Vec<SessionId>, push: Push) {
        let to: Vec<_> = to.into_iter().filter(|s| self.is_network(*s)).collect();
        if !to.is_empty() {
            self.emit(Effect::Push { to, push });
        }
    }

    /// A record of what the participant behind `session` did.
    fn record(&self, action: Action, session: SessionId) -> Record {
        let record = Record::new(action);
        match self.sessions.get(&session) {
            Some(s) => self.record_of(action, &s.user),
            None => record,
        }
    }

    fn record_of(&self, action: Action, user: &UserId) -> Record {
        let role = self.users.get(user).map_or(Role::General, |u| u.role);
        Record::new(action).by(user, &self.name_of(user), role)
    }

    fn audit(&mut self, record: Record) {
        self.emit(Effect::Audit(record));
    }

    fn name_of(&self, user: &UserId) -> String {
        self.users.get(user).map_or_else(|| user.to_string(), |u| u.name.clone())
    }

    fn role_of(&self, session: SessionId) -> Role {
        self.sessions.get(&session).and_then(|s| self.users.get(&s.user)).map_or(Role::General, |u| u.role)
    }

    fn is_network(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|s| s.local.is_none())
    }

    fn state(&self, channel: &ChannelId) -> ChannelState {
        let burst = self.channels.get(channel).and_then(|c| c.burst.as_ref());
        ChannelState {
            channel: channel.clone(),
            holder: burst.map(|b| Holder {
                user: b.user.clone(),
                name: self.name_of(&b.user),
                role: self.users.get(&b.user).map_or(Role::General, |u| u.role),
                burst: b.id,
                since: b.since,
            }),
        }
    }

    fn set_line(&mut self, line: &LineName, active: bool) {
        if self.lines.get(line) != Some(&active) {
            self.lines.insert(line.clone(), active);
            self.emit(Effect::Line {
                line: line.clone(),
                active,
                keys: self.ports.iter().any(|p| p.spec.ptt.as_ref() == Some(line)),
            });
        }
    }
}
