//! What goes into the core and what comes out of it.

use super::Receipt;
use crate::base::{BurstId, ChannelId, LineName, Mono, Record, ReplyId, Role, SessionId, SourceId, UserId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{ChannelSpec, Tuning};

/// What is said of a participant: by its token, or in its place by the store of persons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The participant's name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Channels it may join, also such as the event does not have yet.
    pub channels: BTreeSet<ChannelId>,
}

/// Who makes a change without a session: an administrator at the API or the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// Who.
    pub user: UserId,
    /// Their name.
    pub name: String,
    /// Their role.
    pub role: Role,
}

/// What has to outlive a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keep {
    /// A ban.
    Ban {
        /// Who may not connect.
        user: UserId,
        /// For how long; `None` is for ever.
        duration: Option<Duration>,
        /// Why, for people.
        reason: String,
        /// By whom.
        by: UserId,
    },
    /// The end of a ban.
    Unban {
        /// Who may come back.
        user: UserId,
    },
    /// A desk or port may not talk until it is enabled (F14).
    Disable {
        /// Which one.
        user: UserId,
    },
}

/// One thing that happened outside.
#[derive(Clone, Debug)]
pub enum Input {
    /// A session opened with a valid token.
    Open {
        /// The new session.
        session: SessionId,
        /// Whose it is.
        user: UserId,
        /// What the token says; the store's word on this person goes before it.
        claims: Claims,
    },
    /// A session says which one it continues; said once, right after [`Input::Open`].
    Resume {
        /// The new session.
        session: SessionId,
        /// The one it continues; `None` for a client's first one.
        lost: Option<SessionId>,
    },
    /// A session ended.
    Close {
        /// Which one.
        session: SessionId,
        /// Why, in one kebab-case word.
        cause: &'static str,
    },
    /// `join-channel`
    Join {
        /// Who asks.
        session: SessionId,
        /// For which channel.
        channel: ChannelId,
        /// Where the answer goes.
        reply: ReplyId,
    },
    /// `leave-channel`
    Leave {
        /// Who asks.
        session: SessionId,
        /// Which channel.
        channel: ChannelId,
        /// Where the answer goes.
        reply: ReplyId,
    },
    /// `ptt-start` and `priority-ptt-start`
    Request {
        /// Who asks.
        session: SessionId,
        /// For which channel.
        channel: ChannelId,
        /// True for a priority request (F3, F5).
        priority: bool,
        /// Where the answer goes.
        reply: ReplyId,
    },
    /// `ptt-stop` and `priority-ptt-stop`
    Release {
        /// Who gives back.
        session: SessionId,
        /// Which channel.
        channel: ChannelId,
        /// The burst it means; an older one changes nothing (F8).
        burst: Option<BurstId>,
        /// Where the answer goes.
        reply: ReplyId,
    },
    /// `emergency-broadcast-arm`
    Arm {
        /// Whose button.
        session: SessionId,
        /// Down or up.
        pressed: bool,
        /// Where the answer goes.
        reply: ReplyId,
    },
    /// `emergency-broadcast-start`
    StartEmergency {
        /// Who asks.
        session: SessionId,
        /// How long the client says the button was held, in ms.
        hold_ms: f64,
        /// Where the answer goes.
        reply: ReplyId,
    },
    /// `emergency-broadcast-stop`
    StopEmergency {
        /// Who asks.
        session: SessionId,
        /// Where the answer goes.
        reply: ReplyId,
    },
    /// A media request (transports, producers, consumers) that needs membership of `channel` (F13).
    Media {
        /// Who asks.
        session: SessionId,
        /// For which channel, if the request names one.
        channel: Option<ChannelId>,
        /// Where the answer goes.
        reply: ReplyId,
    },
    /// A session's producer for a channel exists.
    SourceOpened {
        /// Whose.
        session: SessionId,
        /// For which channel.
        channel: ChannelId,
        /// The producer.
        source: SourceId,
    },
    /// A producer is gone.
    SourceClosed {
        /// Which one.
        source: SourceId,
    },
    /// The newest packet that a gate saw of a burst (F10).
    Heard {
        /// Which burst.
        burst: BurstId,
        /// On which channel.
        channel: ChannelId,
        /// When.
        at: Mono,
    },
    /// A gate could not be opened (E4).
    GateFailed {
        /// Where.
        channel: ChannelId,
        /// For which burst.
        burst: BurstId,
    },
    /// `force-disconnect`
    ForceDisconnect {
        /// Who asks.
        session: SessionId,
        /// Who has to go.
        target: UserId,
        /// Why, for people.
        reason: String,
        /// Where the answer goes.
        reply: ReplyId,
    },
    /// `ban-user`
    Ban {
        /// Who asks.
        session: SessionId,
        /// Who has to go.
        target: UserId,
        /// For how long; `None` is for ever.
        duration: Option<Duration>,
        /// Why, for people.
        reason: String,
        /// Where the answer goes.
        reply: ReplyId,
    },
    /// `unban-user`
    Unban {
        /// Who asks.
        session: SessionId,
        /// Who may come back.
        target: UserId,
        /// Where the answer goes.
        reply: ReplyId,
    },
    /// The channels of the event from now on, in order. A burst on one that is gone runs to its end (F14).
    Channels {
        /// All of them.
        channels: Vec<ChannelSpec>,
        /// Who changed them; nobody at start.
        by: Option<Actor>,
    },
    /// What the store says of persons from now on. Of whoever is not there, the token's claims hold.
    People {
        /// All of them.
        people: BTreeMap<UserId, Claims>,
        /// Who changed them; nobody at start.
        by: Option<Actor>,
    },
    /// Bans that the store knows, with their ends; others stay.
    Bans {
        /// Until when; `None` is for ever.
        bans: BTreeMap<UserId, Option<Mono>>,
    },
    /// A ban by somebody without a session; it is stored already.
    Banned {
        /// Who has to go.
        target: UserId,
        /// Until when; `None` is for ever.
        until: Option<Mono>,
        /// Why, for people.
        reason: String,
        /// By whom.
        by: Actor,
    },
    /// The end of a ban by somebody without a session.
    Unbanned {
        /// Who may come back.
        target: UserId,
        /// By whom.
        by: Actor,
    },
    /// Desks and ports that the store knows as disabled (F14).
    Disabled {
        /// Which ones.
        users: BTreeSet<UserId>,
    },
    /// A disabled desk or port may talk again.
    Enable {
        /// Which one.
        target: UserId,
        /// By whom.
        by: Actor,
    },
    /// Limits and times from now on.
    Tune(Tuning),
    /// A debounced edge of an input line.
    Edge {
        /// Which line.
        line: LineName,
        /// The level after it.
        active: bool,
        /// The kernel's stamp.
        stamp: Mono,
    },
    /// Edges of a line were lost; its level was read again.
    EdgesLost {
        /// Which line.
        line: LineName,
        /// The level now.
        active: bool,
    },
    /// An input was found active at start (E3: a fault, never a press).
    ActiveAtStart {
        /// Which line.
        line: LineName,
    },
    /// The chip of a line is gone; a button on it counts as let go (F10).
    LineGone {
        /// Which line, input or output.
        line: LineName,
    },
    /// The chip of a line is back.
    LineReturned {
        /// Which line, input or output.
        line: LineName,
        /// The level now.
        active: bool,
    },
    /// A port's audio rose above or fell below its VOX threshold.
    Voice {
        /// The port's session.
        session: SessionId,
        /// Above or below.
        active: bool,
        /// When the frame was captured.
        stamp: Mono,
    },
    /// The capture device of a desk or port works, or does not (F10).
    Capture {
        /// The desk's or port's session.
        session: SessionId,
        /// True if it works.
        works: bool,
    },
    /// The playback device of a desk or port works, or does not (E10).
    Playback {
        /// The desk's or port's session.
        session: SessionId,
        /// True if it works.
        works: bool,
    },
    /// A port has played the last sample of an ended burst, or of what ends a transmission.
    Drained {
        /// The port's session.
        session: SessionId,
        /// When the last sample has sounded.
        at: Mono,
    },
}

/// Who holds a floor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The participant.
    pub user: UserId,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// The talk burst.
    pub burst: BurstId,
    /// Since when.
    pub since: Mono,
}

/// What everybody may know of a channel's floor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelState {
    /// Which channel.
    pub channel: ChannelId,
    /// Who talks; `None` is idle.
    pub holder: Option<Holder>,
}

/// A failure: the request could not be carried out or may not be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One kebab-case word for programs.
    pub code: &'static str,
    /// One sentence for people.
    pub message: String,
}

impl Refusal {
    /// A refusal with its code and sentence.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Refusal { code, message: message.into() }
    }
}

/// The answer to a request that was carried out, or denied by the rules of the floor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Joined, with what whoever joins late must know (F12).
    Joined {
        /// The channel's floor.
        state: ChannelState,
        /// How many participants it has.
        user_count: usize,
    },
    /// Left.
    Left {
        /// Which channel.
        channel: ChannelId,
    },
    /// A floor was granted or given back.
    Floor {
        /// The state after it.
        state: ChannelState,
    },
    /// The floor is taken (F4, F6, E7).
    Denied {
        /// By whom.
        holder: Option<(UserId, String)>,
        /// One sentence for people.
        message: String,
    },
    /// An emergency broadcast runs.
    EmergencyStarted {
        /// The channels it took.
        channels: Vec<ChannelId>,
        /// The names of ports that cannot be keyed yet (E9).
        blocked_ports: Vec<String>,
    },
    /// An emergency broadcast ended.
    EmergencyStopped {
        /// How many channels it had.
        channel_count: usize,
        /// How long it ran.
        duration: Duration,
    },
    /// Done, nothing more to say.
    Done,
}

/// Why somebody was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// By a dispatcher (F3).
    Preempted,
    /// By an emergency broadcast (E4).
    Emergency,
    /// By the talk limit (F9).
    TalkLimit,
    /// By a carrier that is stuck open (F9).
    CarrierTimeout,
    /// By silence on the network (F10).
    NoMedia,
    /// By a `force-disconnect` (F14).
    Forced,
    /// Its gate could not be opened.
    GateFailed,
}

impl Interruption {
    /// The word on the wire and in the audit.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Interruption::Preempted => "preempted",
            Interruption::Emergency => "emergency",
            Interruption::TalkLimit => "talk-limit",
            Interruption::CarrierTimeout => "carrier-timeout",
            Interruption::NoMedia => "no-media",
            Interruption::Forced => "forced",
            Interruption::GateFailed => "gate-failed",
        }
    }
}

/// News for sessions that did not ask.
#[derive(Clone, Debug, PartialEq)]
pub enum Push {
    /// `channel-list`
    ChannelList {
        /// Channels the session may join, with their names.
        channels: Vec<(ChannelId, String)>,
        /// The participant's role.
        role: Role,
    },
    /// `session`: how the session may be continued within 30 s, and what it continues itself.
    Session {
        /// The session.
        session: SessionId,
        /// The floors of the channels that it is a member of again.
        resumed: Vec<ChannelState>,
    },
    /// `channel-state`: somebody came or went.
    Member {
        /// The channel's floor.
        state: ChannelState,
        /// `user-joined`, `user-left` or `user-disconnected`.
        action: &'static str,
        /// Who.
        user: UserId,
        /// Their name.
        name: String,
        /// How many participants are there now.
        user_count: usize,
    },
    /// `speaker-changed`
    SpeakerChanged {
        /// The channel's floor.
        state: ChannelState,
    },
    /// `ptt-interrupted`
    Interrupted {
        /// Where.
        channel: ChannelId,
        /// By whom; `None` if nobody did it.
        by: Option<(UserId, String)>,
        /// One sentence for people.
        message: String,
        /// Why.
        cause: Interruption,
        /// Which burst ended.
        burst: BurstId,
    },
    /// `permission-update`
    PermissionUpdate {
        /// Channels the session may join now.
        added: Vec<ChannelId>,
        /// Channels it may not join any more.
        removed: Vec<ChannelId>,
        /// All that it may join.
        channels: Vec<ChannelId>,
    },
    /// `talk-limit-warning`
    TalkLimitWarning {
        /// Where.
        channel: ChannelId,
        /// How long is left.
        remaining: Duration,
    },
    /// `emergency-broadcast-start`
    EmergencyStarted {
        /// Who broadcasts.
        user: UserId,
        /// Their name.
        name: String,
        /// The member's channel.
        channel: ChannelId,
    },
    /// `emergency-broadcast-stop`
    EmergencyStopped {
        /// Who broadcast.
        user: UserId,
        /// Their name.
        name: String,
        /// The member's channel.
        channel: ChannelId,
    },
    /// `emergency-broadcast-receipt`: what the broadcast reaches, to the broadcaster (E9).
    EmergencyReceipt {
        /// Every channel of the event.
        channels: Vec<Receipt>,
    },
    /// `force-disconnect`
    ForceDisconnect {
        /// Why, for people.
        reason: String,
    },
}

/// One thing to do outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Queue a record.
    Audit(Record),
    /// Shut a channel's gate; nothing of the burst may leave afterwards (F3).
    ShutGate {
        /// Where.
        channel: ChannelId,
        /// Which burst.
        burst: BurstId,
        /// True: what is buffered of it for radios and loudspeakers is thrown away.
        cut: bool,
    },
    /// Open a channel's gate for one source.
    OpenGate {
        /// Where.
        channel: ChannelId,
        /// For which burst.
        burst: BurstId,
        /// The source; `None` until the talker has a producer.
        source: Option<SourceId>,
    },
    /// Answer a request.
    Reply {
        /// Which one.
        to: ReplyId,
        /// What to say.
        answer: Result<Answer, Refusal>,
    },
    /// A media request passed its membership check and may be carried out.
    AdmitMedia {
        /// Which one.
        reply: ReplyId,
    },
    /// Store something that holds already. The request is answered when it is on disk, or cannot be.
    Keep {
        /// What.
        keep: Keep,
        /// Which request.
        reply: ReplyId,
    },
    /// Tell sessions something.
    Push {
        /// Whom.
        to: Vec<SessionId>,
        /// What.
        push: Push,
    },
    /// The session is no longer a member: its producers and consumers of the channel go.
    Leave {
        /// Who.
        session: SessionId,
        /// What.
        channel: ChannelId,
    },
    /// Close the session's socket (4003).
    Close {
        /// Which one.
        session: SessionId,
        /// Why, for people.
        reason: String,
    },
    /// A port plays a burst, with no audio before `from` (lead-in).
    Play {
        /// The port's session.
        session: SessionId,
        /// Which burst.
        burst: BurstId,
        /// The first audio not before this.
        from: Mono,
    },
    /// The burst has ended; say [`Input::Drained`] when its last sample has sounded.
    EndPlay {
        /// The port's session.
        session: SessionId,
        /// Which burst.
        burst: BurstId,
    },
    /// A port plays nothing more: its transmitter is unkeyed, or about to be.
    StopPlay {
        /// The port's session.
        session: SessionId,
        /// Nothing of this burst will be played any more; without one, what has come waits.
        burst: Option<BurstId>,
    },
    /// Sound what ends a transmission; say [`Input::Drained`] when it has sounded. [`Effect::Play`] breaks it off.
    Sign {
        /// The port's session.
        session: SessionId,
        /// A courtesy tone.
        courtesy: bool,
        /// The station's identification.
        ident: bool,
    },
    /// Sound the arming tone from a desk's loudspeaker, or stop it (E3).
    Tone {
        /// The desk's session.
        session: SessionId,
        /// Whether it sounds.
        sounds: bool,
    },
    /// Set an output line.
    Line {
        /// Which one.
        line: LineName,
        /// Its level.
        active: bool,
        /// True if it keys a transmitter.
        keys: bool,
    },
}

impl Effect {
    /// The place in the order of effects (F3).
    #[must_use]
    pub fn phase(&self) -> u8 {
        match self {
            Effect::Audit(_) => 0,
            Effect::ShutGate { .. } => 1,
            Effect::Push { push: Push::Interrupted { .. }, .. } => 2,
            Effect::OpenGate { .. } => 3,
            // Before hundreds of pushes: somebody holds a button.
            Effect::Reply { .. } | Effect::AdmitMedia { .. } | Effect::Keep { .. } => 4,
            Effect::Push { .. } | Effect::Leave { .. } => 5,
            Effect::Play { .. }
            | Effect::EndPlay { .. }
            | Effect::StopPlay { .. }
            | Effect::Sign { .. }
            | Effect::Line { keys: true, .. } => 6,
            Effect::Tone { .. } | Effect::Line { keys: false, .. } => 7,
            Effect::Close { .. } => 8,
        }
    }
}
