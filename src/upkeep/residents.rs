//! The people that a file on the card names: into the store, and a link for each. Decides who is new; never who may do what.

use super::notes::origin;
use super::{UpkeepError, sheet};
use crate::audit;
use crate::base::clock::Wall;
use crate::base::{ChannelId, UserId};
use crate::gateway::config::Config;
use crate::gateway::{reach, site};
use crate::net::token::{Identity, TokenError, Tokens};
use crate::people::{Change, PeopleError, Store, StoredPerson};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

const DAY_S: u64 = 24 * 3600;

/// Stores the people whose entries are new or say something new. What an administrator changed at run time stays as long as
/// the file says the same.
pub fn store_people(state_dir: &Path, old: Option<&Config>, new: &Config) -> Result<(), UpkeepError> {
    let (before, after) = (old.map(people).unwrap_or_default(), people(new));
    let put = after.iter().filter(|(id, person)| before.get(*id) != Some(*person));
    let put = put.map(|(id, person)| Change::PutPerson(id.clone(), person.clone()));
    let gone = before.keys().filter(|id| !after.contains_key(*id)).map(|id| Change::RemovePerson(id.clone()));
    let changes: Vec<_> = put.chain(gone).collect();
    if changes.is_empty() {
        return Ok(());
    }
    let failed = |e: PeopleError| UpkeepError::Refused(format!("the people are not stored: {e}"));
    let mut store = Store::open(&state_dir.join("people.sqlite")).map_err(failed)?;
    store.change(&changes).map_err(failed)
}

fn people(config: &Config) -> BTreeMap<UserId, StoredPerson> {
    let all: Vec<ChannelId> = config.channels.iter().map(|c| c.id.as_str().into()).collect();
    let stored = |person: &site::Person| {
        let named = person.channels.as_ref().map(|ids| ids.iter().map(|id| ChannelId::from(id.as_str())).collect());
        let mut channels: Vec<ChannelId> = named.unwrap_or_else(|| all.clone());
        channels.sort();
        (person.id.as_str().into(), StoredPerson { name: person.name.clone(), role: person.role, channels })
    };
    config.people.iter().map(stored).collect()
}

/// SHA-256 of the authority that phones install; it is made if it is not there yet. None where they need none.
pub fn fingerprint(state_dir: &Path, config: &Config) -> Result<Option<String>, UpkeepError> {
    if config.tls.listen.is_none() || config.tls.own().is_some() {
        return Ok(None);
    }
    let authority = reach::authority(&config.tls, &state_dir.join("tls"));
    Ok(Some(authority.map_err(|e| UpkeepError::Refused(e.to_string()))?.fingerprint().to_owned()))
}

/// A link for each person, and how a phone comes to trust the box.
pub fn links(state_dir: &Path, config: &Config, fingerprint: Option<&str>) -> Result<String, UpkeepError> {
    let refused = |e: TokenError| UpkeepError::Refused(e.to_string());
    let tokens = Tokens::of_state_dir(state_dir, &config.event.id).map_err(refused)?;
    let wall = Wall::default();
    wall.at_least(audit::last_wall_ms(&state_dir.join("audit.sqlite")).unwrap_or(0));
    let exp = reach::now_s(&wall) + config.site.join_links_days * DAY_S;
    let mut text = format!(
        "Whoever has a link can talk as that person. Hand each on, then delete this file. The links end on {}.\n",
        &audit::iso_8601(exp * 1000)[..10]
    );
    if let Some(fingerprint) = fingerprint {
        write!(
            text,
            "\nEvery phone first opens {}/trust once. Its browser warns that one time: go on to the page,\n\
             compare the fingerprint there with this one, and install the certificate as the page says:\n{fingerprint}\n",
            origin(config)
        )
        .expect("writing to a string works");
    }
    for (id, person) in people(config) {
        let StoredPerson { name, role, channels } = person;
        let token = tokens.sign(&Identity { user: id, name: name.clone(), role, channels }, exp).map_err(refused)?;
        write!(text, "\n{name}:\n{}/talk#token={token}\n", origin(config)).expect("writing to a string works");
    }
    Ok(sheet::for_laptops(&text))
}
