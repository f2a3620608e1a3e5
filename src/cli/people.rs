//! `crosspatch channel`, `person`, `ban` and `reload`: through the running gateway, or in the store where none runs.

use super::client::{escaped, request};
use crate::base::Role;
use crate::base::clock::unix_ms_now;
use crate::gateway::lock_state_dir;
use crate::gateway::notes::{Hand, Note, lay};
use crate::gateway::tasks::{Collection, Present, Task};
use crate::people::{Change, Roll, Store};
use anyhow::Context;
use axum::http::Method;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What was asked for makes no sense here: an error of the asker, not of the machine.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Where the gateway keeps its things, and how to answer.
#[derive(Args)]
pub struct Target {
    /// The gateway's state directory.
    #[arg(long, default_value = "state", global = true)]
    state_dir: PathBuf,
    /// Answers in JSON, for programs.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Args)]
pub struct ChannelArgs {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: ChannelCommand,
}

#[derive(Subcommand)]
enum ChannelCommand {
    /// Lists the channels, the configuration file's and those added at run time.
    List,
    /// Adds a channel.
    Add {
        /// Its id on the wire.
        id: String,
        /// The name people see.
        #[arg(long)]
        name: String,
        /// Its place among the added channels; the last one if it is not given.
        #[arg(long)]
        order: Option<i64>,
    },
    /// Gives an added channel another name or place.
    Change {
        /// Which one.
        id: String,
        /// The new name.
        #[arg(long)]
        name: Option<String>,
        /// The new place.
        #[arg(long)]
        order: Option<i64>,
    },
    /// Removes an added channel; a burst on it runs to its end.
    Remove {
        /// Which one.
        id: String,
    },
}

#[derive(Args)]
pub struct PersonArgs {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: PersonCommand,
}

#[derive(Subcommand)]
enum PersonCommand {
    /// Lists persons in the store and whoever is connected.
    List,
    /// Adds a person; goes before what the person's token says.
    Add {
        /// The participant's id, as in tokens.
        id: String,
        /// The name people see.
        #[arg(long)]
        name: String,
        /// general, dispatch or admin.
        #[arg(long)]
        role: Role,
        /// Channels the person may join, with commas between them.
        #[arg(long, value_delimiter = ',', required = true)]
        channels: Vec<String>,
    },
    /// Changes what is said of a person; what is not given stays.
    Change {
        /// Which one.
        id: String,
        /// The new name.
        #[arg(long)]
        name: Option<String>,
        /// The new role.
        #[arg(long)]
        role: Option<Role>,
        /// All channels the person may join, with commas between them; '' for none.
        #[arg(long, value_delimiter = ',')]
        channels: Option<Vec<String>>,
    },
    /// Removes a person from the store; the token's claims hold again.
    Remove {
        /// Which one.
        id: String,
    },
    /// Lets a disabled desk or radio talk again.
    Enable {
        /// The desk's or radio's user.
        id: String,
    },
}

#[derive(Args)]
pub struct BanArgs {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: BanCommand,
}

#[derive(Subcommand)]
enum BanCommand {
    /// Lists the bans that hold.
    List,
    /// Bans a participant and closes its sessions.
    Add {
        /// Who.
        user: String,
        /// For how long: 30m, 12h, 2d; for ever if it is not given.
        #[arg(long, value_parser = super::parse_duration)]
        duration: Option<Duration>,
        /// Why, for people.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Lifts a ban.
    Remove {
        /// Whose.
        user: String,
    },
}

#[derive(Args)]
pub struct ReloadArgs {
    #[command(flatten)]
    target: Target,
}

/// One request of the API.
struct Wanted {
    method: Method,
    collection: Collection,
    id: Option<String>,
    body: Value,
}

fn wanted(method: Method, collection: Collection, id: Option<String>, body: Value) -> Wanted {
    Wanted { method, collection, id, body }
}

/// The fields that are given.
fn given<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

pub fn channel(args: ChannelArgs) -> anyhow::Result<()> {
    let all = Collection::Channels;
    let wanted = match args.command {
        ChannelCommand::List => wanted(Method::GET, all, None, Value::Null),
        ChannelCommand::Add { id, name, order } => {
            wanted(Method::POST, all, None, json!({ "id": id, "name": name, "order": order }))
        }
        ChannelCommand::Change { id, name, order } => {
            let body = given([("name", name.map(Value::from)), ("order", order.map(Value::from))]);
            wanted(Method::PUT, all, Some(id), body)
        }
        ChannelCommand::Remove { id } => wanted(Method::DELETE, all, Some(id), Value::Null),
    };
    carry_out(&args.target, &wanted)
}

pub fn person(args: PersonArgs) -> anyhow::Result<()> {
    let all = Collection::People;
    let wanted = match args.command {
        PersonCommand::List => wanted(Method::GET, all, None, Value::Null),
        PersonCommand::Add { id, name, role, channels } => {
            let body = json!({ "id": id, "name": name, "role": role, "channels": channels });
            wanted(Method::POST, all, None, body)
        }
        PersonCommand::Change { id, name, role, channels } => {
            let channels = channels.map(|all| all.into_iter().filter(|c| !c.is_empty()).collect::<Vec<_>>());
            let body = given([
                ("name", name.map(Value::from)),
                ("role", role.map(|r| r.as_str().into())),
                ("channels", channels.map(Value::from)),
            ]);
            wanted(Method::PUT, all, Some(id), body)
        }
        PersonCommand::Remove { id } => wanted(Method::DELETE, all, Some(id), Value::Null),
        PersonCommand::Enable { id } => return enable(&args.target, &id),
    };
    carry_out(&args.target, &wanted)
}

pub fn ban(args: BanArgs) -> anyhow::Result<()> {
    let all = Collection::Bans;
    let wanted = match args.command {
        BanCommand::List => wanted(Method::GET, all, None, Value::Null),
        BanCommand::Add { user, duration, reason } => {
            let duration = duration.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
            let body = json!({ "user": user, "durationMs": duration, "reason": reason });
            wanted(Method::POST, all, None, body)
        }
        BanCommand::Remove { user } => wanted(Method::DELETE, all, Some(user), Value::Null),
    };
    carry_out(&args.target, &wanted)
}

pub fn reload(args: &ReloadArgs) -> anyhow::Result<()> {
    let Target { state_dir, json } = &args.target;
    if lock_state_dir(state_dir)?.is_some() {
        return Err(
            Refused("no gateway runs with this state directory; it reads the file when it starts".into()).into()
        );
    }
    let done = request(state_dir, &Method::POST, "/api/reload", &Value::Null)?.map_err(Refused)?;
    if *json {
        println!("{done}");
        return Ok(());
    }
    let changed: Vec<_> = done["changed"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if changed.is_empty() {
        println!("Nothing has changed.");
    } else {
        println!("Taken: {}", changed.join(", "));
    }
    Ok(())
}

fn enable(target: &Target, id: &str) -> anyhow::Result<()> {
    let done = match lock_state_dir(&target.state_dir)? {
        None => {
            let path = format!("/api/people/{}/enable", escaped(id));
            request(&target.state_dir, &Method::POST, &path, &Value::Null)?.map_err(Refused)?
        }
        Some(_lock) => {
            note(&target.state_dir, format!("POST /api/people/{id}/enable"), Value::Null)?;
            in_store(&target.state_dir, &Task::Enable(id.into()))?
        }
    };
    print(target, None, &done);
    Ok(())
}

fn carry_out(target: &Target, wanted: &Wanted) -> anyhow::Result<()> {
    let Wanted { method, collection, id, body } = wanted;
    let done = match lock_state_dir(&target.state_dir)? {
        None => {
            let id = id.as_ref().map_or_else(String::new, |id| format!("/{}", escaped(id)));
            let path = format!("/api/{}{id}", collection.as_str());
            request(&target.state_dir, method, &path, body)?.map_err(Refused)?
        }
        Some(_lock) => {
            let task = Task::read(method, *collection, id.as_deref(), body.to_string().as_bytes());
            let task = task.map_err(|e| Refused(e.message))?;
            if *method != Method::GET {
                let id = id.as_ref().map_or_else(String::new, |id| format!("/{id}"));
                note(&target.state_dir, format!("{method} /api/{}{id}", collection.as_str()), body.clone())?;
            }
            in_store(&target.state_dir, &task)?
        }
    };
    print(target, Some(*collection), &done);
    Ok(())
}

/// Lays a note of a change for the next gateway's audit; the caller holds the state directory's lock.
fn note(state_dir: &Path, change: String, body: Value) -> anyhow::Result<()> {
    lay(state_dir, &[Note::StoreChanged { change, body }], &Hand::own()).context(
        "nothing was changed, because it cannot be noted for the audit; check that the state directory is writable",
    )
}

/// Carries a task out where no gateway runs; the caller holds the state directory's lock.
fn in_store(state_dir: &Path, task: &Task) -> anyhow::Result<Value> {
    let mut store = Store::open(&state_dir.join("people.sqlite"))?;
    if let Some(aside) = &store.set_aside {
        eprintln!("crosspatch: the store of people was damaged and is set aside as {}", aside.display());
    }
    let roll = store.read()?;
    if let (collection, None) = task.entry() {
        return Ok(json!({ collection.as_str(): present(&roll).list(collection) }));
    }
    let change = task.change(&present(&roll)).map_err(|e| Refused(e.message))?;
    let Some(mut change) = change else { return Ok(Value::Null) };
    if let Change::PutBan(_, ban) = &mut change {
        ban.by = "cli".into();
    }
    store.change(&[change]).context("nothing was changed")?;
    let roll = store.read()?;
    let (collection, id) = task.entry();
    let id = id.unwrap_or_default();
    Ok(present(&roll).entry(collection, id).unwrap_or_else(|_| json!({ "id": id, "removed": true, "deferred": false })))
}

/// What there is where no gateway runs: the store, and nobody connected.
fn present(roll: &Roll) -> Present<'_> {
    Present {
        roll,
        fixed: &[],
        connected: BTreeMap::new(),
        local: BTreeSet::new(),
        disabled: roll.disabled.clone(),
        unix_ms: unix_ms_now(),
    }
}

fn print(target: &Target, collection: Option<Collection>, done: &Value) {
    if target.json {
        return println!("{done}");
    }
    match collection.and_then(|c| Some((c, done.get(c.as_str())?.as_array()?))) {
        Some((collection, list)) => print!("{}", table(collection, list)),
        None if done["deferred"] == true => println!("{} goes when the burst on it has ended.", text(&done["id"])),
        None if done["removed"] == true => println!("{} is removed.", text(&done["id"])),
        None => println!("{} is stored.", text(done.get("id").unwrap_or(&done["user"]))),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::Number(n) => n.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(text).collect::<Vec<_>>().join(","),
        Value::Object(_) => value.to_string(),
    }
}

/// A list with a heading, its columns as wide as they must be.
fn table(collection: Collection, list: &[Value]) -> String {
    let columns: &[&str] = match collection {
        Collection::Channels => &["id", "name", "order", "source"],
        Collection::People => &["id", "name", "role", "channels", "source", "connected", "disabled"],
        Collection::Bans => &["user", "for", "reason", "by"],
    };
    let cell = |entry: &Value, column: &str| match column {
        "for" => entry["remainingMs"].as_u64().map_or("ever".to_owned(), remaining),
        column => text(&entry[column]),
    };
    let heading = columns.iter().map(|c| c.to_uppercase()).collect::<Vec<_>>();
    let rows = list.iter().map(|entry| columns.iter().map(|c| cell(entry, c)).collect::<Vec<_>>());
    let rows: Vec<_> = std::iter::once(heading).chain(rows).collect();
    let widths: Vec<_> =
        (0..columns.len()).map(|i| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

fn remaining(ms: u64) -> String {
    let minutes = ms.div_ceil(60_000);
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, m) => format!("{m}m"),
        (0, h, m) => format!("{h}h{m}m"),
        (d, h, _) => format!("{d}d{h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_columns_as_wide_as_their_longest_cell() {
        let list = [
            json!({ "id": "ops", "name": "Operations", "order": 1, "source": "config" }),
            json!({ "id": "entrance", "name": "Gate", "order": 10, "source": "store" }),
        ];
        assert_eq!(
            table(Collection::Channels, &list),
            "ID        NAME        ORDER  SOURCE\n\
             ops       Operations  1      config\n\
             entrance  Gate        10     store\n"
        );
    }

    #[test]
    fn a_bans_rest_is_told_in_two_units() {
        assert_eq!([1, 3_600_000, 5_400_000, 90_000_000].map(remaining), ["1m", "1h0m", "1h30m", "1d1h"]);
        let forever = [json!({ "user": "eve", "remainingMs": null, "reason": "r", "by": "ada" })];
        assert!(table(Collection::Bans, &forever).ends_with("eve   ever  r       ada\n"));
    }
}
