//! Who and what the event has at run time: the configuration file's channels, the store's, persons and bans.
//!
//! The loop asks the store and never waits for it: whoever asked is answered when the change is on disk and the core
//! has taken it. **Invariant:** while the store does not answer, what was known holds, and nobody loses anything.

use super::config::Config;
use super::executor::Executor;
use super::notes::{self, Hand, Note, Readings};
use super::tasks::{Failure, Present, Task};
use crate::base::{Action, Mono, Record, ReplyId, Role, UserId};
use crate::control::{Actor, Answer, ChannelSpec, Claims, Input, Keep, Refusal};
use crate::net::socket::Admission;
use crate::net::token::Identity;
use crate::people::{Ban, Change, News, Roll};
use crate::wire;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tokio::sync::oneshot;

/// What is asked of the register.
#[derive(Debug)]
pub struct Asked {
    /// By whom: a token's owner, or the box itself (SIGHUP).
    pub by: Option<Identity>,
    /// What.
    pub what: What,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Value, Failure>>,
}

/// See [`Asked`].
#[derive(Debug)]
pub enum What {
    /// A task of the API.
    Task(Task),
    /// May the asker reload the configuration?
    MayReload,
    /// May the asker read the audit and hear recordings? Dispatch may, too. What they read is noted; the answer is the
    /// event's channels.
    Review(Option<Note>),
    /// Note what was done by a command.
    Note(Vec<Note>, Hand),
    /// Take a configuration that was read again; the text says what is new in it.
    Reload(Box<Config>, Vec<String>),
    /// Note that a configuration was refused, and why.
    Refused(Vec<String>),
}

/// Who waits for a change to be on disk.
enum Waiting {
    Api {
        by: Actor,
        task: Task,
        change: Change,
        answer: oneshot::Sender<Result<Value, Failure>>,
    },
    /// A request on a socket; what it asked for holds already.
    Socket(ReplyId, Change),
    /// Nobody: it is stored after the fact.
    Nobody(Change),
}

/// What is known of the event at run time.
pub struct Register {
    /// The configuration file's channels.
    fixed: Vec<ChannelSpec>,
    /// What the store said last.
    roll: Roll,
    waiting: HashMap<u64, Waiting>,
    last_ticket: u64,
    /// What holds and could not be stored; tried again when the store answers.
    unsaved: Vec<Change>,
    /// Bans made in this run: monotonic time judges them, whatever becomes of the wall clock (F17).
    made_here: BTreeSet<UserId>,
    /// True once the system's clock was seen synchronised.
    clock_known: bool,
    readings: Readings,
}

impl Register {
    /// Knows the configuration file's channels and nothing of the store yet.
    #[must_use]
    pub fn new(fixed: Vec<ChannelSpec>) -> Self {
        Register {
            fixed,
            roll: Roll::default(),
            waiting: HashMap::new(),
            last_ticket: 0,
            unsaved: Vec::new(),
            made_here: BTreeSet::new(),
            clock_known: false,
            readings: Readings::default(),
        }
    }

    /// All channels: the file's, which win, then the store's in their order.
    #[must_use]
    pub fn channels(&self) -> Vec<ChannelSpec> {
        let added = self.roll.channels.iter().filter(|c| self.fixed.iter().all(|f| f.id != c.id));
        let added = added.map(|c| ChannelSpec { id: c.id.clone(), name: c.name.clone() });
        self.fixed.iter().cloned().chain(added).collect()
    }

    /// The same for pages.
    pub(super) fn channel_list(&self) -> Vec<Value> {
        self.channels().iter().map(|c| json!({ "id": c.id.as_str(), "name": c.name })).collect()
    }

    fn people(&self) -> BTreeMap<UserId, Claims> {
        let claims = self.roll.people.iter().map(|(id, p)| {
            let (name, channels) = (p.name.clone(), p.channels.iter().cloned().collect());
            (id.clone(), Claims { name, role: p.role, channels })
        });
        claims.collect()
    }
}

impl Executor {
    /// Answers what can be answered now; a change goes to the store first.
    pub(super) fn manage(&mut self, asked: Asked) {
        let Asked { by, what, answer } = asked;
        let roles: &[Role] =
            if matches!(what, What::Review(_)) { &[Role::Admin, Role::Dispatch] } else { &[Role::Admin] };
        let by = match by.map_or_else(|| Ok(the_box()), |identity| self.check_role(identity, roles)) {
            Ok(by) => by,
            Err(failure) => return drop(answer.send(Err(failure))),
        };
        let done = match what {
            What::Task(task) => match task.change(&self.present()) {
                Ok(Some(change)) => return self.store_for_api(by, task, change, answer),
                Ok(None) => self.listed(&task),
                Err(failure) => Err(failure),
            },
            What::MayReload => Ok(Value::Null),
            What::Review(note) => Ok(self.reviewed(note, &by)),
            What::Note(notes, hand) => {
                for note in notes {
                    let mut record = note.record().by(&by.user, &by.name, by.role).because("command-line");
                    notes::add(&mut record, "by", json!(hand));
                    self.record(record);
                }
                Ok(Value::Null)
            }
            What::Reload(config, news) => Ok(self.take_config(&config, news, by)),
            What::Refused(errors) => {
                self.record(by_whom(Action::SystemConfigRefused, &by).with(json!({ "errors": errors })));
                Ok(Value::Null)
            }
        };
        answer.send(done).ok(); // whoever asked may have gone
    }

    fn reviewed(&mut self, note: Option<Note>, by: &Actor) -> Value {
        let now = self.now();
        if let Some(note) = note.filter(|note| self.register.readings.is_news(&by.user, note, now)) {
            self.record(note.record().by(&by.user, &by.name, by.role));
        }
        json!(self.register.channel_list())
    }

    /// The store's word on the asker goes before the token's, as everywhere.
    fn check_role(&mut self, identity: Identity, roles: &[Role]) -> Result<Actor, Failure> {
        let role = self.control.role_now(&identity.user, identity.role);
        let by = Actor { user: identity.user, name: identity.name, role };
        let banned = self.control.is_banned(&by.user, self.now());
        if roles.contains(&role) && !banned {
            return Ok(by);
        }
        let (cause, message) = match roles {
            _ if banned => ("banned", "You are banned from this event."),
            [Role::Admin] => ("not-admin", "Only an Admin may do this. Use the token of one."),
            _ => ("not-dispatch", "Only an Admin or a Dispatcher may do this. Use the token of one."),
        };
        self.record(by_whom(Action::PermissionDenied, &by).because(cause));
        Err(Failure::new(StatusCode::FORBIDDEN, cause, message))
    }

    fn present(&mut self) -> Present<'_> {
        let unix_ms = self.wall().unix_ms;
        let connected = self.control.present();
        Present {
            roll: &self.register.roll,
            fixed: &self.register.fixed,
            local: connected.keys().filter(|u| self.control.is_local(u)).cloned().collect(),
            disabled: self.control.disabled().into_iter().map(|(user, _)| user).collect(),
            connected,
            unix_ms,
        }
    }

    fn listed(&mut self, task: &Task) -> Result<Value, Failure> {
        let present = self.present();
        match task.entry() {
            (collection, None) => Ok(json!({ collection.as_str(): present.list(collection) })),
            (collection, Some(id)) => present.entry(collection, id),
        }
    }

    fn store_for_api(
        &mut self,
        by: Actor,
        task: Task,
        mut change: Change,
        answer: oneshot::Sender<Result<Value, Failure>>,
    ) {
        if let Change::PutBan(_, ban) = &mut change {
            ban.by = by.user.clone();
        }
        let waiting = Waiting::Api { by, task, change: change.clone(), answer };
        self.store(change, waiting);
    }

    /// Hands a change to the store; a queue that is full is an answer too.
    fn store(&mut self, change: Change, waiting: Waiting) {
        self.register.last_ticket += 1;
        let ticket = self.register.last_ticket;
        self.register.waiting.insert(ticket, waiting);
        if !self.parts.people.change(ticket, change) {
            self.changed(ticket, Err("too many changes wait for the disk; try again in a moment".into()));
        }
    }

    /// What the core decided and what has to outlive a restart (bans, disabled desks): it holds already.
    pub(super) fn keep(&mut self, keep: Keep, reply: ReplyId) {
        let change = match keep {
            Keep::Ban { user, duration, reason, by } => {
                self.register.made_here.insert(user.clone());
                let until = duration.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
                let until_unix_ms = until.map(|d| self.wall().unix_ms.saturating_add(d));
                Change::PutBan(user, Ban { until_unix_ms, reason, by })
            }
            Keep::Unban { user } => Change::RemoveBan(user),
            Keep::Disable { user } => Change::Disable(user),
        };
        self.register.roll.note(&change);
        self.store(change.clone(), Waiting::Socket(reply, change));
    }

    /// News of the store.
    pub(super) fn people_news(&mut self, news: News) {
        match news {
            News::Read { roll, trouble } => {
                self.part("people".into(), trouble);
                self.take_roll(roll, None);
                let disabled = self.register.roll.disabled.clone();
                self.input(Input::Disabled { users: disabled });
                self.load_bans();
                for change in std::mem::take(&mut self.register.unsaved) {
                    self.register.roll.note(&change);
                    self.store(change.clone(), Waiting::Nobody(change));
                }
            }
            News::Unusable { why } => {
                let sentence = format!("what is known holds on and changes are refused, because {why}");
                self.part("people".into(), Some(sentence));
            }
            News::Changed { ticket, result } => self.changed(ticket, result),
        }
    }

    fn changed(&mut self, ticket: u64, result: Result<Roll, String>) {
        match (self.register.waiting.remove(&ticket), result) {
            (Some(Waiting::Api { by, task, change, answer }), Ok(roll)) => {
                let removed =
                    matches!(change, Change::RemoveChannel(_) | Change::RemovePerson(_) | Change::RemoveBan(_));
                self.take_roll(roll, Some(&by));
                self.take_change(change, by);
                let done = if removed { Ok(self.removed(&task)) } else { self.listed(&task) };
                answer.send(done).ok(); // whoever asked may have gone
            }
            (Some(Waiting::Api { answer, .. }), Err(why)) => {
                let message = format!("Nothing was changed, because {why}.");
                answer.send(Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "not-stored", message))).ok();
            }
            (Some(Waiting::Socket(reply, _)), Ok(roll)) => {
                self.take_roll(roll, None);
                self.answer_kept(reply, Ok(Answer::Done));
            }
            (Some(Waiting::Socket(reply, change)), Err(why)) => {
                self.register.unsaved.push(change);
                let message = format!("It is done, but will not outlive a restart, because {why}.");
                self.answer_kept(reply, Err(Refusal::new("not-stored", message)));
            }
            (Some(Waiting::Nobody(_)) | None, Ok(roll)) => self.take_roll(roll, None),
            (Some(Waiting::Nobody(change)), Err(_)) => self.register.unsaved.push(change),
            (None, Err(_)) => {}
        }
    }

    fn answer_kept(&mut self, reply: ReplyId, answer: Result<Answer, Refusal>) {
        if let Some(pending) = self.pending.remove(&reply)
            && let Some(text) = wire::reply(pending.id.as_ref(), &answer, &[], self.parts.clock)
        {
            self.send(pending.session, text);
        }
    }

    /// Brings the core in line with the store's channels and persons.
    fn take_roll(&mut self, roll: Roll, by: Option<&Actor>) {
        let before = (self.register.channels(), self.register.people());
        self.register.roll = roll;
        let (channels, people) = (self.register.channels(), self.register.people());
        if channels != before.0 {
            self.input(Input::Channels { channels, by: by.cloned() });
        }
        if people != before.1 {
            self.input(Input::People { people, by: by.cloned() });
        }
    }

    /// Tells the core what it does not take from the roll.
    fn take_change(&mut self, change: Change, by: Actor) {
        match change {
            Change::PutBan(target, ban) => {
                let until = self.end_of(&ban);
                self.register.made_here.insert(target.clone());
                self.input(Input::Banned { target, until, reason: ban.reason, by });
            }
            Change::RemoveBan(target) => {
                self.register.made_here.remove(&target);
                self.input(Input::Unbanned { target, by });
            }
            Change::Enable(target) => self.input(Input::Enable { target, by }),
            Change::PutChannel(_)
            | Change::RemoveChannel(_)
            | Change::PutPerson(..)
            | Change::RemovePerson(_)
            | Change::Disable(_) => {}
        }
    }

    fn removed(&self, task: &Task) -> Value {
        let id = task.entry().1.unwrap_or_default();
        let talking = |s: &crate::control::ChannelState| s.channel.as_str() == id;
        let deferred = matches!(task, Task::RemoveChannel(_)) && self.control.states().iter().any(talking);
        json!({ "id": id, "removed": true, "deferred": deferred })
    }

    /// May a participant connect?
    pub(super) fn admission(&mut self, user: &UserId, claimed: Role) -> Admission {
        self.look_at_the_clock();
        if self.control.is_banned(user, self.now()) {
            return Admission::Banned;
        }
        let role = self.control.role_now(user, claimed);
        if !self.control.has_room_for(user, role) {
            return Admission::Full;
        }
        match self.arrive(user, role) {
            Ok(()) => Admission::Yes,
            Err(retry_after) => Admission::TooMany { retry_after },
        }
    }

    /// Once the clock is known, stored bans are judged by it, and bans made before are stored with their true end.
    fn look_at_the_clock(&mut self) {
        let wall = self.wall();
        if self.register.clock_known || !wall.synchronised {
            return;
        }
        self.load_bans(); // still knows which ends were written by a clock that was wrong
        self.register.clock_known = true;
        for user in self.register.made_here.clone() {
            let (now, ban) = (self.now(), self.register.roll.bans.get(&user).cloned());
            if let (Some(Some(end)), Some(mut ban)) = (self.control.ban_end(&user, now), ban) {
                let rest = u64::try_from(end.since(now).as_millis()).unwrap_or(u64::MAX);
                ban.until_unix_ms = Some(wall.unix_ms.saturating_add(rest));
                let change = Change::PutBan(user, ban);
                self.store(change.clone(), Waiting::Nobody(change));
            }
        }
    }

    fn load_bans(&mut self) {
        let here = &self.register.made_here;
        let bans: Vec<_> = self.register.roll.bans.iter().filter(|(user, _)| !here.contains(*user)).collect();
        let bans: Vec<_> = bans.into_iter().map(|(user, ban)| (user.clone(), ban.clone())).collect();
        let bans = bans.into_iter().map(|(user, ban)| (user, self.end_of(&ban))).collect();
        self.input(Input::Bans { bans });
    }

    /// When a ban ends, on the clock that decisions are made by.
    fn end_of(&mut self, ban: &Ban) -> Option<Mono> {
        let (now, wall) = (self.now(), self.wall().unix_ms);
        ban.until_unix_ms.map(|until| now + std::time::Duration::from_millis(until.saturating_sub(wall)))
    }

    fn take_config(&mut self, config: &Config, news: Vec<String>, by: Actor) -> Value {
        self.record(by_whom(Action::SystemConfigReloaded, &by).with(json!({ "changed": news })));
        self.parts.audit.retain(config.audit.retention());
        self.parts.recorder.iter().for_each(|recorder| recorder.keep(config.recorder.keep()));
        self.input(Input::Tune(config.tuning()));
        let before = self.register.channels();
        self.register.fixed = config.channel_specs();
        let channels = self.register.channels();
        if channels != before {
            self.input(Input::Channels { channels, by: Some(by) });
        }
        json!({ "changed": news })
    }
}

fn by_whom(action: Action, by: &Actor) -> Record {
    Record::new(action).by(&by.user, &by.name, by.role)
}

/// Who sends a SIGHUP.
fn the_box() -> Actor {
    Actor { user: "system".into(), name: "SIGHUP".into(), role: Role::Admin }
}
