//! What may be asked of the register of channels, people and bans: read from a request, checked against what there
//! is, and turned into one change of the store. The API and the command line without a gateway both go this way.

use crate::base::{ChannelId, Role, UserId};
use crate::control::{ChannelSpec, Claims};
use crate::people::{Ban, Change, Roll, StoredChannel, StoredPerson};
use axum::http::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The longest id.
const MAX_ID: usize = 64;
/// The longest name or reason.
const MAX_TEXT: usize = 200;

/// Why a task was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The HTTP status.
    pub status: StatusCode,
    /// One kebab-case word for programs.
    pub code: &'static str,
    /// One sentence for people.
    pub message: String,
}

impl Failure {
    /// A failure with its status, code and sentence.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Failure { status, code, message: message.into() }
    }
}

/// What can be listed and changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collection {
    /// Talk channels.
    Channels,
    /// Persons, desks and ports.
    People,
    /// Bans.
    Bans,
}

impl Collection {
    /// The name in paths and listings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Collection::Channels => "channels",
            Collection::People => "people",
            Collection::Bans => "bans",
        }
    }

    /// The field that tells entries apart.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Collection::Channels | Collection::People => "id",
            Collection::Bans => "user",
        }
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Lists a collection, or one of its entries.
    List(Collection, Option<String>),
    /// Adds a channel.
    AddChannel(NewChannel),
    /// Gives a channel another name or place.
    ChangeChannel(ChannelId, ChannelChange),
    /// Removes a channel.
    RemoveChannel(ChannelId),
    /// Adds a person.
    AddPerson(NewPerson),
    /// Changes what is said of a person.
    ChangePerson(UserId, PersonChange),
    /// Removes a person.
    RemovePerson(UserId),
    /// Lets a disabled desk or port talk again (F14).
    Enable(UserId),
    /// Bans somebody who is not banned.
    AddBan(NewBan),
    /// Bans somebody, or bans them otherwise.
    PutBan(UserId, BanTerms),
    /// Lifts a ban.
    RemoveBan(UserId),
}

/// The body of `POST /api/channels`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewChannel {
    id: String,
    name: String,
    order: Option<i64>,
}

/// The body of `PUT /api/channels/{id}`; what is not there stays.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelChange {
    name: Option<String>,
    order: Option<i64>,
}

/// The body of `POST /api/people`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPerson {
    id: String,
    name: String,
    role: Role,
    channels: BTreeSet<String>,
}

/// The body of `PUT /api/people/{id}`; what is not there stays.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersonChange {
    name: Option<String>,
    role: Option<Role>,
    channels: Option<BTreeSet<String>>,
}

/// The body of `POST /api/bans`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NewBan {
    user: String,
    duration_ms: Option<u64>,
    reason: Option<String>,
}

/// The body of `PUT /api/bans/{user}`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BanTerms {
    duration_ms: Option<u64>,
    reason: Option<String>,
}

/// What there is, for a task to be checked against and lists to be made of.
pub struct Present<'a> {
    /// What the store says.
    pub roll: &'a Roll,
    /// The configuration file's channels; none where no gateway runs.
    pub fixed: &'a [ChannelSpec],
    /// Everybody who is connected, with what holds for them; desks and ports too.
    pub connected: BTreeMap<UserId, Claims>,
    /// Which of them are desks and ports.
    pub local: BTreeSet<UserId>,
    /// Desks and ports that may not talk.
    pub disabled: BTreeSet<UserId>,
    /// Wall time in milliseconds since 1970.
    pub unix_ms: u64,
}

impl Task {
    /// Reads a request.
    ///
    /// # Errors
    /// If there is no such request, or its body is not as it must be.
    pub fn read(method: &Method, collection: Collection, id: Option<&str>, body: &[u8]) -> Result<Self, Failure> {
        let task = match (collection, method.as_str(), id) {
            (_, "GET", id) => Task::List(collection, id.map(str::to_owned)),
            (Collection::Channels, "POST", None) => Task::AddChannel(parse(body)?),
            (Collection::Channels, "PUT", Some(id)) => Task::ChangeChannel(id.into(), parse(body)?),
            (Collection::Channels, "DELETE", Some(id)) => Task::RemoveChannel(id.into()),
            (Collection::People, "POST", None) => Task::AddPerson(parse(body)?),
            (Collection::People, "PUT", Some(id)) => Task::ChangePerson(id.into(), parse(body)?),
            (Collection::People, "DELETE", Some(id)) => Task::RemovePerson(id.into()),
            (Collection::Bans, "POST", None) => Task::AddBan(parse(body)?),
            (Collection::Bans, "PUT", Some(id)) => Task::PutBan(id.into(), parse(body)?),
            (Collection::Bans, "DELETE", Some(id)) => Task::RemoveBan(id.into()),
            (_, _, id) => {
                let usable = if id.is_some() { "GET, PUT or DELETE" } else { "GET or POST" };
                let message = format!("{method} means nothing here; use {usable}.");
                return Err(Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", message));
            }
        };
        Ok(task)
    }

    /// The collection and the entry of it that it is about; a whole list has no entry.
    #[must_use]
    pub fn entry(&self) -> (Collection, Option<&str>) {
        match self {
            Task::List(collection, id) => (*collection, id.as_deref()),
            Task::AddChannel(new) => (Collection::Channels, Some(&new.id)),
            Task::ChangeChannel(id, _) | Task::RemoveChannel(id) => (Collection::Channels, Some(id.as_str())),
            Task::AddPerson(new) => (Collection::People, Some(&new.id)),
            Task::ChangePerson(id, _) | Task::RemovePerson(id) | Task::Enable(id) => {
                (Collection::People, Some(id.as_str()))
            }
            Task::AddBan(new) => (Collection::Bans, Some(&new.user)),
            Task::PutBan(user, _) | Task::RemoveBan(user) => (Collection::Bans, Some(user.as_str())),
        }
    }

    /// The change of the store that it asks for; `None` for a list.
    ///
    /// # Errors
    /// If it does not fit what there is.
    pub fn change(&self, present: &Present<'_>) -> Result<Option<Change>, Failure> {
        let roll = present.roll;
        let change = match self {
            Task::List(..) => return Ok(None),
            Task::AddChannel(new) => {
                check_id(&new.id)?;
                let id = ChannelId::from(new.id.as_str());
                if present.channel(&id).is_some() {
                    return Err(exists(format!("There is a channel '{id}' already. Change it, or use another id.")));
                }
                let order = new.order.unwrap_or_else(|| roll.channels.iter().map(|c| c.order).max().unwrap_or(0) + 1);
                Change::PutChannel(StoredChannel { id, name: text(&new.name, "name")?, order })
            }
            Task::ChangeChannel(id, to) => {
                let mut channel = present.stored_channel(id)?.clone();
                if let Some(name) = &to.name {
                    channel.name = text(name, "name")?;
                }
                channel.order = to.order.unwrap_or(channel.order);
                Change::PutChannel(channel)
            }
            Task::RemoveChannel(id) => Change::RemoveChannel(present.stored_channel(id)?.id.clone()),
            Task::AddPerson(new) => {
                check_id(&new.id)?;
                let id = UserId::from(new.id.as_str());
                if roll.people.contains_key(&id) {
                    return Err(exists(format!("'{id}' is there already. Change it, or use another id.")));
                }
                present.check_not_local(&id)?;
                let channels = present.known_channels(&new.channels, &[])?;
                Change::PutPerson(id, StoredPerson { name: text(&new.name, "name")?, role: new.role, channels })
            }
            Task::ChangePerson(id, to) => {
                let mut person = present.stored_person(id)?.clone();
                if let Some(name) = &to.name {
                    person.name = text(name, "name")?;
                }
                person.role = to.role.unwrap_or(person.role);
                if let Some(channels) = &to.channels {
                    person.channels = present.known_channels(channels, &person.channels)?;
                }
                Change::PutPerson(id.clone(), person)
            }
            Task::RemovePerson(id) => present.stored_person(id).map(|_| Change::RemovePerson(id.clone()))?,
            Task::Enable(id) => {
                if !present.disabled.contains(id) {
                    return Err(not_found(format!("'{id}' is not disabled.")));
                }
                Change::Enable(id.clone())
            }
            Task::AddBan(new) => {
                let user = UserId::from(new.user.as_str());
                if present.ban_holds(&user) {
                    return Err(exists(format!("'{user}' is banned already. Change the ban, or lift it first.")));
                }
                Change::PutBan(user, ban(&new.user, new.duration_ms, new.reason.as_deref(), present.unix_ms)?)
            }
            Task::PutBan(user, terms) => {
                let ban = ban(user.as_str(), terms.duration_ms, terms.reason.as_deref(), present.unix_ms)?;
                Change::PutBan(user.clone(), ban)
            }
            Task::RemoveBan(user) => {
                if !present.ban_holds(user) {
                    return Err(not_found(format!("'{user}' is not banned.")));
                }
                Change::RemoveBan(user.clone())
            }
        };
        Ok(Some(change))
    }
}

impl Present<'_> {
    fn channel(&self, id: &ChannelId) -> Option<&str> {
        let fixed = self.fixed.iter().map(|c| (&c.id, &c.name));
        let mut all = fixed.chain(self.roll.channels.iter().map(|c| (&c.id, &c.name)));
        all.find(|(known, _)| *known == id).map(|(_, name)| name.as_str())
    }

    fn stored_channel(&self, id: &ChannelId) -> Result<&StoredChannel, Failure> {
        if self.fixed.iter().any(|c| c.id == *id) {
            let message = format!("'{id}' stands in the configuration file. Change it there, then reload.");
            return Err(Failure::new(StatusCode::CONFLICT, "in-configuration", message));
        }
        let stored = self.roll.channels.iter().find(|c| c.id == *id);
        stored.ok_or_else(|| not_found(format!("There is no channel '{id}'.")))
    }

    fn stored_person(&self, id: &UserId) -> Result<&StoredPerson, Failure> {
        self.check_not_local(id)?;
        let sentence = || format!("'{id}' is not in the store; what its token says holds. Add it first.");
        self.roll.people.get(id).ok_or_else(|| not_found(sentence()))
    }

    fn check_not_local(&self, id: &UserId) -> Result<(), Failure> {
        if self.local.contains(id) {
            let message = format!("'{id}' is a desk or radio of the configuration file. Change it there and restart.");
            return Err(Failure::new(StatusCode::CONFLICT, "in-configuration", message));
        }
        Ok(())
    }

    /// Channels by their ids. One that the event does not have is refused, unless it was there before.
    fn known_channels(&self, ids: &BTreeSet<String>, before: &[ChannelId]) -> Result<Vec<ChannelId>, Failure> {
        let known = |id: &ChannelId| self.fixed.is_empty() || self.channel(id).is_some() || before.contains(id);
        let ids: Vec<ChannelId> = ids.iter().map(|id| id.as_str().into()).collect();
        match ids.iter().find(|id| !known(id)) {
            Some(id) => Err(bad("unknown-channel", format!("There is no channel '{id}'. Add it first."))),
            None => Ok(ids),
        }
    }

    fn ban_holds(&self, user: &UserId) -> bool {
        self.roll.bans.get(user).is_some_and(|b| b.until_unix_ms.is_none_or(|until| self.unix_ms < until))
    }

    /// All entries of a collection.
    #[must_use]
    pub fn list(&self, collection: Collection) -> Vec<Value> {
        match collection {
            Collection::Channels => self.list_channels(),
            Collection::People => self.list_people(),
            Collection::Bans => self.list_bans(),
        }
    }

    /// One entry of a collection.
    ///
    /// # Errors
    /// If it is not there.
    pub fn entry(&self, collection: Collection, id: &str) -> Result<Value, Failure> {
        let mut list = self.list(collection).into_iter();
        let found = list.find(|entry| entry[collection.key()] == id);
        found.ok_or_else(|| not_found(format!("There is no '{id}' among the {}.", collection.as_str())))
    }

    fn list_channels(&self) -> Vec<Value> {
        let fixed = (1i64..).zip(self.fixed).map(|(order, c)| (&c.id, &c.name, order, "config"));
        let added = self.roll.channels.iter().filter(|c| self.fixed.iter().all(|f| f.id != c.id));
        let added = added.map(|c| (&c.id, &c.name, c.order, "store"));
        let entry = |(id, name, order, source): (&ChannelId, &String, i64, &str)| json!({ "id": id.as_str(), "name": name, "order": order, "source": source });
        fixed.chain(added).map(entry).collect()
    }

    fn list_people(&self) -> Vec<Value> {
        let ids: BTreeSet<_> = self.roll.people.keys().chain(self.connected.keys()).collect();
        let entry = |id: &UserId| {
            let stored = self.roll.people.get(id).filter(|_| !self.local.contains(id));
            let source = match stored {
                Some(_) => "store",
                None if self.local.contains(id) => "config",
                None => "token",
            };
            let (name, role, channels): (_, _, Vec<_>) = match (stored, self.connected.get(id)) {
                (Some(p), _) => (&p.name, p.role, p.channels.iter().map(ChannelId::as_str).collect()),
                (None, Some(c)) => (&c.name, c.role, c.channels.iter().map(ChannelId::as_str).collect()),
                (None, None) => return None,
            };
            Some(json!({
                "id": id.as_str(), "name": name, "role": role.as_str(), "channels": channels, "source": source,
                "connected": self.connected.contains_key(id), "disabled": self.disabled.contains(id),
            }))
        };
        ids.into_iter().filter_map(entry).collect()
    }

    fn list_bans(&self) -> Vec<Value> {
        let holding = self.roll.bans.iter().filter(|(user, _)| self.ban_holds(user));
        let entry = |(user, ban): (&UserId, &Ban)| {
            let remaining = ban.until_unix_ms.map(|until| until.saturating_sub(self.unix_ms));
            json!({
                "user": user.as_str(), "untilUnixMs": ban.until_unix_ms, "remainingMs": remaining,
                "reason": ban.reason, "by": ban.by.as_str(),
            })
        };
        holding.map(entry).collect()
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|e| bad("bad-request", format!("The body is not as it must be: {e}.")))
}

fn ban(user: &str, duration_ms: Option<u64>, reason: Option<&str>, unix_ms: u64) -> Result<Ban, Failure> {
    check_id(user)?;
    let reason = reason.map_or(Ok("No reason was given.".to_owned()), |r| text(r, "reason"))?;
    Ok(Ban { until_unix_ms: duration_ms.map(|d| unix_ms.saturating_add(d)), reason, by: "".into() })
}

fn check_id(id: &str) -> Result<(), Failure> {
    let fits = (1..=MAX_ID).contains(&id.chars().count());
    if fits && id.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '/' && c != ',') {
        return Ok(());
    }
    let sentence = format!("'{id}' is no id; use 1 to {MAX_ID} characters without spaces, slashes and commas.");
    Err(bad("bad-id", sentence))
}

fn text(text: &str, field: &str) -> Result<String, Failure> {
    let trimmed = text.trim();
    let fits = (1..=MAX_TEXT).contains(&trimmed.chars().count()) && !trimmed.chars().any(char::is_control);
    let sentence = || format!("'{field}' must have 1 to {MAX_TEXT} characters on one line.");
    if fits { Ok(trimmed.to_owned()) } else { Err(bad("bad-text", sentence())) }
}

fn bad(code: &'static str, message: String) -> Failure {
    Failure::new(StatusCode::BAD_REQUEST, code, message)
}

fn exists(message: String) -> Failure {
    Failure::new(StatusCode::CONFLICT, "exists", message)
}

fn not_found(message: String) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, "not-found", message)
}
