//! Carries out what the core decides: one event in, its effects out, in order. Knows no threads and
//! no clock of its own, so that the whole gateway also runs on simulated time.

use super::Event;
use super::endpoint::Endpoint;
use super::limits::{Arrivals, Pace, TooFast};
use super::media::{Command, MediaDone, MediaHandle, MediaRequest};
use super::register::Register;
use super::tryout::Tryout;
use super::witness::{Step, Witness};
use crate::audit::{Audit, Stamped, iso_8601};
use crate::base::clock::Wall;
use crate::base::{Action, ChannelId, Mono, Record, ReplyId, Role, SessionId, UserId, WallStamp};
use crate::control::{Claims, Control, Effect, Input, Refusal, Settings};
use crate::hardware::gpio::{Direction, LineEvent, Lines};
use crate::media::gates::Gates;
use crate::media::sfu::SfuEvent;
use crate::net::socket::{Outgoing, SocketEvent};
use crate::net::token::Identity;
use crate::people::People;
use crate::recorder::{Recorder, beginning};
use crate::wire::{self, MediaOp, Request, WallClock};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

/// What the executor works with.
pub struct Parts {
    /// What the core is told.
    pub settings: Settings,
    /// Reads CLOCK_MONOTONIC, or a simulation of it.
    pub now: Box<dyn Fn() -> Mono + Send>,
    /// The board's lines.
    pub lines: Box<dyn Lines>,
    /// The name of the board as a part that is up or degraded.
    pub board: String,
    /// Where records go.
    pub audit: Audit,
    /// Wall time, which never goes back (F17).
    pub wall: Wall,
    /// For time stamps on the wire.
    pub clock: WallClock,
    /// The gates that floors open and shut.
    pub gates: Arc<Gates>,
    /// The media thread.
    pub media: MediaHandle,
    /// Desks and ports.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// The store of channels, people and bans; what it reads first comes as an event.
    pub people: People,
    /// Records what is said, if anything is recorded.
    pub recorder: Option<Recorder>,
    /// What pages are shown.
    pub live: watch::Sender<Value>,
}

/// A request that waits for its answer.
pub(super) struct Pending {
    pub(super) session: SessionId,
    pub(super) id: Option<Value>,
    media: Option<(Option<ChannelId>, MediaOp)>,
}

/// Whether the media thread has read what arrived before somebody is judged silent (F10).
#[derive(Clone, Copy)]
enum Reading {
    /// It was not asked.
    No,
    /// It was asked then.
    Since(Mono),
    /// It has.
    Done,
}

/// How long a deadline waits for the media thread to read; a thread that hangs must not keep floors for ever.
const READING: Duration = Duration::from_millis(200);

/// A connected session.
struct Client {
    user: UserId,
    out: mpsc::Sender<Outgoing>,
    pace: Pace,
    /// Refusals that wait to be said.
    late: usize,
}

/// Refusals of one session that may wait to be said; further ones are said at once.
const LATE: usize = 256;

/// The core with everything that its effects reach.
pub struct Executor {
    pub(super) control: Control,
    pub(super) register: Register,
    pub(super) parts: Parts,
    clients: HashMap<SessionId, Client>,
    pub(super) pending: HashMap<ReplyId, Pending>,
    last_reply: u64,
    arrivals: Arrivals,
    /// Refusals that are said later, lest whoever asks too often ask even more often.
    late: BTreeMap<(Mono, ReplyId), (SessionId, String)>,
    reported: BTreeMap<String, Option<String>>,
    reading: Reading,
    witness: Witness,
    pub(super) tryout: Tryout,
    /// Gates that did not open while the effects of one input were carried out (E4).
    failed_gates: Vec<ChannelId>,
    /// What pages are shown is not the newest any more.
    stale: bool,
    /// When pages may be shown something again.
    show_at: Mono,
}

/// Pages are shown news no more often than this: making the view takes longer the more channels there are, and grants
/// do not wait for it.
const SHOW_PERIOD: Duration = Duration::from_millis(50);

impl Executor {
    /// A core that has started: inputs that are active already are faults (E3).
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let mut executor = Executor {
            control: Control::new(parts.settings.clone()),
            register: Register::new(parts.settings.channels.clone()),
            witness: Witness::default(),
            tryout: Tryout::default(),
            parts,
            clients: HashMap::new(),
            pending: HashMap::new(),
            last_reply: 0,
            arrivals: Arrivals::default(),
            late: BTreeMap::new(),
            reported: BTreeMap::new(),
            reading: Reading::No,
            failed_gates: Vec::new(),
            stale: true,
            show_at: Mono::default(),
        };
        let version = env!("CARGO_PKG_VERSION");
        executor.record(Record::new(Action::SystemStart).with(json!({ "version": version })));
        executor.find_active_inputs();
        executor
    }

    /// Reads queued edges, runs what is due, shows the new state. Call it after every event and at every deadline.
    pub fn turn(&mut self) {
        self.read_lines();
        self.read_told();
        self.run_timers();
        self.say_late();
        self.dim();
        let now = self.now();
        if self.stale && now >= self.show_at {
            (self.stale, self.show_at) = (false, now + SHOW_PERIOD);
            self.publish();
        }
    }

    /// When [`Executor::turn`] is due without an event.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Mono> {
        let control = match self.reading {
            Reading::Since(asked) => Some(asked + READING),
            Reading::No | Reading::Done => self.control.next_timeout(),
        };
        let late = self.late.keys().next().map(|(due, _)| *due);
        let show = self.stale.then_some(self.show_at);
        [control, late, show, self.tryout.due()].into_iter().flatten().min()
    }

    /// True if all of these parts have said whether they are up. From `end` on those that have not count as degraded.
    pub fn have_all_reported(&mut self, parts: &[String], end: Mono) -> bool {
        let silent: Vec<_> = parts.iter().filter(|part| !self.reported.contains_key(*part)).cloned().collect();
        let late = self.now() >= end;
        for part in silent.iter().filter(|_| late) {
            self.part(part.clone(), Some("it has not said yet whether it is up".into()));
        }
        late || silent.is_empty()
    }

    /// The end, in good order: outputs at their safe level.
    pub fn finish(&mut self) {
        self.record(Record::new(Action::SystemStop));
        self.parts.lines.safe();
    }

    pub(super) fn now(&self) -> Mono {
        (self.parts.now)()
    }

    /// Reads edges that are queued: also before any deadline is judged (E2).
    fn read_lines(&mut self) {
        for event in self.parts.lines.drain() {
            self.tryout.count(&event);
            match event {
                LineEvent::Edge(e) => {
                    self.witness.asked(e.stamp);
                    self.input(Input::Edge { line: e.line, active: e.active, stamp: e.stamp });
                }
                LineEvent::Lost { line, active_now, .. } => self.input(Input::EdgesLost { line, active: active_now }),
                LineEvent::Gone { line, .. } => self.input(Input::LineGone { line }),
                LineEvent::Returned { line, active_now, .. } => {
                    self.input(Input::LineReturned { line, active: active_now });
                }
            }
        }
        let fault = self.parts.lines.fault();
        if self.reported.get(&self.parts.board) != Some(&fault) {
            self.part(self.parts.board.clone(), fault);
        }
    }

    /// What the audio threads have to say.
    fn read_told(&mut self) {
        for endpoint in self.parts.endpoints.clone() {
            for input in endpoint.take_told() {
                self.input(input);
            }
        }
    }

    fn run_timers(&mut self) {
        let now = self.now();
        if self.control.next_timeout().is_none_or(|due| now < due) {
            return;
        }
        self.witness.asked(now);
        for (burst, channel, at) in self.parts.gates.last_packets() {
            self.control.handle(Input::Heard { burst, channel, at: now - at.elapsed() }, now);
        }
        if !self.must_read_first(now) {
            self.control.handle_timeout(now);
            self.stale |= self.control.emergency().is_some(); // what it reaches may have changed (E9)
        }
        self.apply();
    }

    /// True while somebody would be judged silent by packets that nobody has read yet: after a stall of the process
    /// they wait in the socket (F10).
    fn must_read_first(&mut self, now: Mono) -> bool {
        let somebody_is_silent = self.control.silence_due().is_some_and(|due| now >= due);
        self.reading = match self.reading {
            Reading::No if somebody_is_silent && self.parts.media.send(Command::Read) => Reading::Since(now),
            Reading::Since(asked) if somebody_is_silent && now < asked + READING => Reading::Since(asked),
            Reading::No | Reading::Since(_) | Reading::Done => Reading::No,
        };
        matches!(self.reading, Reading::Since(_))
    }

    fn find_active_inputs(&mut self) {
        let inputs: Vec<_> =
            self.parts.lines.specs().iter().filter(|s| s.direction == Direction::Input).cloned().collect();
        for spec in inputs {
            if self.parts.lines.level(&spec.name).unwrap_or(false) {
                self.input(Input::ActiveAtStart { line: spec.name });
            }
        }
        let now = self.now();
        self.control.handle_timeout(now);
        self.apply();
    }

    pub(super) fn input(&mut self, input: Input) {
        let now = self.now();
        self.control.handle(input, now);
        self.apply();
    }

    /// Takes one event from a thread.
    pub fn event(&mut self, event: Event) {
        match event {
            Event::Input(input) => self.input(input),
            Event::Lines | Event::Tick => {}
            Event::MediaRead => {
                if let Reading::Since(_) = self.reading {
                    self.reading = Reading::Done;
                }
            }
            Event::Media(done) => self.media_done(done),
            Event::Sfu(SfuEvent::SourceGone { source }) => self.input(Input::SourceClosed { source }),
            Event::Sfu(SfuEvent::TransportFailed { session, transport_id, reason }) => {
                tracing::info!(%session, transport_id, "transport failed: {reason}");
                let refusal = Refusal::new("transport-failed", reason);
                self.send(session, wire::error(None, &refusal));
            }
            Event::Part { part, why } => self.part(part, why),
            Event::People(news) => self.people_news(news),
            Event::Manage(asked) => self.manage(*asked),
            Event::Try(trial) => self.try_out(trial),
        }
    }

    pub(super) fn part(&mut self, part: String, why: Option<String>) {
        self.stale = true;
        let before = self.reported.insert(part.clone(), why.clone());
        if before.as_ref() == Some(&why) {
            return;
        }
        let (action, detail) = match &why {
            Some(why) => {
                tracing::error!("{part} is degraded: {why}");
                (Action::SystemDegraded, json!({ "part": part, "why": why }))
            }
            None if matches!(before, Some(Some(_))) => {
                tracing::info!("{part} is up again");
                (Action::SystemHealed, json!({ "part": part }))
            }
            None => return,
        };
        self.record(Record::new(action).with(detail));
    }

    /// Parts that are down, each with its reason.
    pub fn degraded(&self) -> impl Iterator<Item = (&String, &String)> {
        self.reported.iter().filter_map(|(part, why)| Some((part, why.as_ref()?)))
    }

    /// Takes one event from a socket.
    pub fn socket(&mut self, event: SocketEvent) {
        match event {
            SocketEvent::Admit { user, role, answer } => drop(answer.send(self.admission(&user, role))),
            SocketEvent::Refused { why } => {
                self.record(Record::new(Action::AuthDenied).with(json!({ "why": why })));
            }
            // Banned between the handshake and now.
            SocketEvent::Opened { identity, out, .. } if self.control.is_banned(&identity.user, self.now()) => {
                out.try_send(Outgoing::Close("You are banned from this event.".into())).ok();
            }
            SocketEvent::Opened { session, identity, resume, out } => {
                let client = Client { user: identity.user.clone(), out, pace: Pace::default(), late: 0 };
                self.clients.insert(session, client);
                let Identity { user, name, role, channels } = identity;
                let claims = Claims { name, role, channels: channels.into_iter().collect() };
                self.input(Input::Open { session, user, claims });
                if let Some(lost) = resume {
                    self.input(Input::Resume { session, lost: lost.parse().ok() });
                }
            }
            SocketEvent::Text { session, text } => self.text(session, &text),
            SocketEvent::Closed { session, cause } => {
                self.clients.remove(&session);
                self.input(Input::Close { session, cause });
                self.parts.media.send(Command::CloseSession(session));
            }
        }
    }

    fn text(&mut self, session: SessionId, text: &str) {
        if !self.clients.contains_key(&session) {
            return;
        }
        self.last_reply += 1;
        self.witness.asked(self.now());
        let reply = ReplyId(self.last_reply);
        let wire::Envelope { id, request } = wire::parse(text, session, reply);
        if !request.as_ref().is_ok_and(Request::is_exempt_from_limits)
            && let Some(too_fast) = self.too_fast(session)
        {
            return self.refuse_late(session, reply, id.as_ref(), too_fast);
        }
        match request {
            Ok(Request::Ping) => {
                if let Some(id) = id {
                    self.send(session, wire::pong(&id));
                }
            }
            Ok(Request::Core(input)) => {
                self.pending.insert(reply, Pending { session, id, media: None });
                self.input(*input);
            }
            Ok(Request::Media { channel, op }) => {
                self.pending.insert(reply, Pending { session, id, media: Some((channel.clone(), op)) });
                self.input(Input::Media { session, channel, reply });
            }
            Err(refusal) => self.send(session, wire::error(id.as_ref(), &refusal)),
        }
    }

    /// Counts a connection; too many of one user in a minute have to wait.
    pub(super) fn arrive(&mut self, user: &UserId, role: Role) -> Result<(), Duration> {
        let (now, channels) = (self.now(), self.control.channels_at_once(role));
        self.arrivals.take(user, channels, now).inspect_err(|retry_after| {
            let record = Record::new(Action::RateLimitBlock).to(user);
            self.record(record.with(json!({ "retryAfterMs": retry_after.as_millis() as u64 })));
        })
    }

    fn too_fast(&mut self, session: SessionId) -> Option<TooFast> {
        let now = self.now();
        self.clients.get_mut(&session)?.pace.take(now).err()
    }

    /// Answers a request above the limit without carrying it out, ever later.
    fn refuse_late(&mut self, session: SessionId, reply: ReplyId, id: Option<&Value>, too_fast: TooFast) {
        let now = self.now();
        let Some(client) = self.clients.get_mut(&session) else { return };
        let wait = if client.late < LATE { too_fast.answer_after } else { Duration::ZERO };
        client.late += 1;
        let user = client.user.clone();
        if too_fast.is_first {
            self.record(Record::new(Action::RateLimitHit).to(&user).with(json!({ "session": session.to_string() })));
        }
        let retry_ms = too_fast.retry_after.as_millis() + 1; // rounded up: nobody is told to come too early
        let refusal = Refusal::new("rate-limited", format!("Too many requests. Try again in {retry_ms} ms."));
        self.late.insert((now + wait, reply), (session, wire::error(id, &refusal)));
    }

    fn say_late(&mut self) {
        let now = self.now();
        while let Some(entry) = self.late.first_entry().filter(|entry| entry.key().0 <= now) {
            let (session, text) = entry.remove();
            if let Some(client) = self.clients.get_mut(&session) {
                client.late -= 1;
            }
            self.send(session, text);
        }
    }

    fn media_done(&mut self, done: MediaDone) {
        let MediaDone { reply, session, result, opened, closed } = done;
        if let Some((channel, source)) = opened {
            self.input(Input::SourceOpened { session, channel, source });
        }
        if let Some(source) = closed {
            self.input(Input::SourceClosed { source });
        }
        let Some(pending) = self.pending.remove(&reply) else { return };
        let text = match (&result, &pending.id) {
            (Ok(data), Some(id)) => wire::media_reply(id, data.clone()),
            (Ok(_), None) => return,
            (Err(refusal), id) => wire::error(id.as_ref(), refusal),
        };
        self.send(session, text);
    }

    /// Carries out what the core decided, in its order.
    fn apply(&mut self) {
        self.failed_gates.clear();
        let emergency = self.control.emergency().is_some();
        self.parts.lines.emergency(emergency); // before anything is keyed for it
        self.parts.endpoints.iter().for_each(|endpoint| endpoint.emergency(emergency));
        while let Some(effect) = self.control.next_effect() {
            self.stale = true;
            match effect {
                Effect::Audit(record) => {
                    self.witness.record(&record);
                    if self.parts.recorder.is_some() {
                        let since = (self.now(), self.wall());
                        beginning(&record, since).into_iter().zip(&self.parts.recorder).for_each(|(t, r)| r.begin(t));
                    }
                    self.record(record);
                }
                Effect::ShutGate { channel, burst, cut } => {
                    let count = self.parts.gates.shut(&channel, burst);
                    let now = self.now();
                    if let Some(record) = self.witness.shut(&channel, burst, now, count.as_ref()) {
                        self.record(record);
                    }
                    if let Some(recorder) = self.parts.recorder.as_ref().filter(|_| !self.parts.gates.is_open(burst)) {
                        recorder.end(burst);
                    }
                    for endpoint in &self.parts.endpoints {
                        endpoint.stop_talking(&channel, burst);
                        if cut {
                            endpoint.cut(&channel, burst);
                        } else {
                            endpoint.end(&channel, burst);
                        }
                    }
                }
                Effect::OpenGate { channel, burst, source } => {
                    self.witness.opened(&channel, burst);
                    if let Err(e) = self.parts.gates.open(&channel, burst, source) {
                        tracing::error!(%channel, %burst, "the gate did not open: {e}");
                        self.failed_gates.push(channel.clone());
                        let now = self.now();
                        self.control.handle(Input::GateFailed { channel, burst }, now);
                    } else if let Some(endpoint) = self.parts.endpoints.iter().find(|e| Some(e.source) == source) {
                        endpoint.talk(channel, burst);
                    }
                }
                Effect::Reply { to, answer } => {
                    if let Some(pending) = self.pending.remove(&to)
                        && let Some(text) =
                            wire::reply(pending.id.as_ref(), &answer, &self.failed_gates, self.parts.clock)
                    {
                        self.send(pending.session, text);
                    }
                }
                Effect::Keep { keep, reply } => self.keep(keep, reply),
                Effect::AdmitMedia { reply } => self.start_media(reply),
                Effect::Push { to, push } => {
                    let text: Arc<str> = wire::push(&push, self.parts.clock).into();
                    for session in to {
                        self.send_shared(session, text.clone());
                    }
                }
                Effect::Leave { session, channel } => drop(self.parts.media.send(Command::Leave(session, channel))),
                Effect::Close { session, reason } => {
                    if let Some(client) = self.clients.get(&session) {
                        client.out.try_send(Outgoing::Close(reason)).ok();
                    }
                }
                Effect::Play { session, from, .. } => {
                    if let Some(endpoint) = self.endpoint(session) {
                        endpoint.play_from(from);
                    }
                }
                Effect::EndPlay { session, .. } => {
                    if let Some(endpoint) = self.endpoint(session) {
                        endpoint.tell_when_drained();
                    }
                }
                Effect::StopPlay { session, burst } => {
                    if let Some(endpoint) = self.endpoint(session) {
                        endpoint.stop_playing(burst);
                    }
                }
                Effect::Sign { session, courtesy, ident } => {
                    if let Some(endpoint) = self.endpoint(session) {
                        endpoint.sign(courtesy, ident);
                    }
                }
                Effect::Tone { session, sounds } => {
                    if let Some(endpoint) = self.endpoint(session) {
                        endpoint.sound_tone(sounds);
                    }
                }
                Effect::Line { line, active, .. } => {
                    self.tryout.forget(&line);
                    if let Err(e) = self.parts.lines.set(&line, active) {
                        tracing::error!("{e}");
                    }
                }
            }
        }
    }

    fn endpoint(&self, session: SessionId) -> Option<&Endpoint> {
        self.parts.endpoints.iter().map(Arc::as_ref).find(|endpoint| endpoint.session == session)
    }

    fn start_media(&mut self, reply: ReplyId) {
        let Some(pending) = self.pending.get_mut(&reply) else { return };
        let (Some((channel, op)), Some(client)) = (pending.media.take(), self.clients.get(&pending.session)) else {
            return;
        };
        let session = pending.session;
        let rank = channel.as_ref().and_then(|c| self.control.join_rank(session, c)).unwrap_or(u64::MAX);
        let request = MediaRequest { session, user: client.user.clone(), channel, rank, op, reply };
        if !self.parts.media.send(Command::Request(Box::new(request))) {
            let refusal = Refusal::new("busy", "The gateway is busy. Try again in a moment.");
            let text = wire::error(self.pending.remove(&reply).and_then(|p| p.id).as_ref(), &refusal);
            self.send(session, text);
        }
    }

    pub(super) fn send(&mut self, session: SessionId, text: String) {
        self.send_shared(session, text.into());
    }

    /// A client that does not read loses its session, not our time.
    fn send_shared(&mut self, session: SessionId, text: Arc<str>) {
        if let Some(client) = self.clients.get(&session)
            && matches!(client.out.try_send(Outgoing::Text(text)), Err(TrySendError::Full(_)))
        {
            tracing::warn!(%session, "the client does not read its messages; its session is ended");
            self.clients.remove(&session); // its task sees the closed queue and reports the end
        }
    }

    /// Wall time; it never goes back (F17).
    pub(super) fn wall(&self) -> WallStamp {
        self.parts.wall.now()
    }

    pub(super) fn record(&mut self, record: Record) {
        let (mono, wall) = (self.now(), self.wall());
        self.parts.audit.write(Stamped { record, mono, wall });
    }

    /// Notes that the wall clock was set (F17).
    pub fn clock_stepped(&mut self, Step { by_ms, to_ms }: Step) {
        tracing::warn!(by_ms, "the wall clock was set");
        let detail = json!({ "byMs": by_ms, "toUtc": iso_8601(to_ms) });
        self.record(Record::new(Action::SystemClockStep).with(detail));
        self.parts.clock.unix_ms_at_zero = self.wall().unix_ms.saturating_sub(self.now().as_millis());
    }

    /// Shows pages the newest state.
    fn publish(&mut self) {
        let clock = self.parts.clock;
        let emergency = self.control.emergency().map(|(name, since): (String, Mono)| {
            json!({ "userName": name, "startedUnixMs": clock.unix_ms_at_zero + since.as_millis() })
        });
        let mut degraded: Vec<_> = self.degraded().map(|(part, why)| json!({ "part": part, "why": why })).collect();
        for (user, name) in self.control.disabled() {
            let why = format!("it is disabled and may not talk; let it with: crosspatch person enable {user}");
            degraded.push(json!({ "part": name, "why": why }));
        }
        let view = json!({
            "channels": wire::states(&self.control.states(), clock),
            "channelList": self.register.channel_list(),
            "emergency": emergency,
            "degraded": degraded,
            "readiness": wire::readiness(&self.control.readiness()),
            "receipt": wire::receipts(self.control.receipt()),
            "lines": self.control.outputs().iter().map(|(line, active)| json!({ "name": line, "direction": "output", "active": active })).collect::<Vec<_>>(),
            "radios": wire::ports(&self.control.port_states()),
            "lamps": self.control.lamps().iter().map(|(line, shows)| (line.to_string(), shows.as_str().into())).collect::<serde_json::Map<_, _>>(),
        });
        self.parts.live.send_replace(view);
    }
}
