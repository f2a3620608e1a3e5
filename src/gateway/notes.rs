//! What people do beside the loop and an inquiry asks for: tokens made, the audit read, recordings heard and copied, the
//! store changed while no gateway ran.
//!
//! **Invariant:** the chain has one writer, the gateway. A command that runs beside it has it write; a command that runs
//! without one lays its notes in a spool, which the gateway takes in at its next start. Says what a note is and where it
//! waits; never who may do the thing itself.

use super::recordings::Recording;
use crate::audit::iso_8601;
use crate::base::clock::{mono_now, wall_now};
use crate::base::{Action, ChannelId, Mono, Record, Role, UserId};
use crate::net::token::Identity;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A reading that goes on, as a page does that looks every second, is told so often.
const TOLD_AGAIN: Duration = Duration::from_secs(3600);
/// Readings that are remembered; beyond it they are rather told twice.
const REMEMBERED: usize = 4096;

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Note {
    /// A token was made.
    Token {
        /// Whom it lets in.
        user: UserId,
        /// Their name.
        name: String,
        /// Their role.
        role: Role,
        /// Where they may talk.
        channels: Vec<ChannelId>,
        /// Until when, ISO 8601 in UTC.
        expires_utc: String,
    },
    /// The audit was read.
    Read {
        /// `query`, `tail`, `export`, `recordings`.
        how: String,
        /// Which part of it.
        wanted: Value,
    },
    /// A recording was handed to a page that plays it.
    Played(Heard),
    /// A recording was copied.
    Exported(Heard),
    /// Channels, people or bans were changed while no gateway ran.
    StoreChanged {
        /// The method and path of the same change over HTTP.
        change: String,
        /// What it says.
        body: Value,
    },
}

/// Which recording, and of whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heard {
    id: String,
    burst: Option<String>,
    channel: Option<ChannelId>,
    user: Option<UserId>,
}

impl Heard {
    /// Nothing is known of it but its id.
    #[must_use]
    pub fn of_id(id: &str) -> Self {
        Heard { id: id.to_owned(), burst: None, channel: None, user: None }
    }

    /// What the audit says of it.
    #[must_use]
    pub fn of(recording: &Recording) -> Self {
        Heard {
            id: recording.id.clone(),
            burst: recording.burst.clone(),
            channel: recording.channel.as_deref().map(Into::into),
            user: recording.user.as_deref().map(Into::into),
        }
    }

    fn record(&self, action: Action) -> Record {
        let mut record = Record::new(action).with(json!({ "id": self.id }));
        record.burst = self.burst.as_deref().and_then(|burst| burst.parse().ok());
        record.channel.clone_from(&self.channel);
        record.target.clone_from(&self.user);
        record
    }
}

impl Note {
    /// A token for somebody, valid until `exp`, in seconds since 1970.
    #[must_use]
    pub fn token(identity: &Identity, exp: u64) -> Self {
        let Identity { user, name, role, channels } = identity.clone();
        Note::Token { user, name, role, channels, expires_utc: iso_8601(exp.saturating_mul(1000)) }
    }

    /// The record of it, without who did it.
    #[must_use]
    pub fn record(&self) -> Record {
        match self {
            Note::Token { user, name, role, channels, expires_utc } => {
                let detail =
                    json!({ "name": name, "role": role.as_str(), "channels": channels, "expiresUtc": expires_utc });
                Record::new(Action::AuthTokenMade).to(user).with(detail)
            }
            Note::Read { how, wanted } => Record::new(Action::AuditRead).with(json!({ "how": how, "wanted": wanted })),
            Note::Played(heard) => heard.record(Action::RecordingPlayed),
            Note::Exported(heard) => heard.record(Action::RecordingExported),
            Note::StoreChanged { change, body } => {
                Record::new(Action::SystemStoreChanged).with(json!({ "change": change, "body": body }))
            }
        }
    }
}

/// Whose hand was at the command line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hand {
    /// The account that the command ran as.
    account: String,
    /// The account that somebody logged in with, which `sudo` does not change; none if nobody did.
    login: Option<String>,
}

impl Hand {
    /// Of this process.
    #[must_use]
    pub fn own() -> Self {
        let uid = std::fs::metadata("/proc/self").map(|data| data.uid().to_string()).unwrap_or_default();
        let login =
            std::fs::read_to_string("/proc/self/loginuid").ok().filter(|uid| uid.trim() != u32::MAX.to_string());
        Hand { account: account(&uid), login: login.map(|uid| account(uid.trim())) }
    }
}

/// The name of an account, or its number if it has none.
fn account(uid: &str) -> String {
    let all = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = all.lines().find(|line| line.split(':').nth(2) == Some(uid)).and_then(|line| line.split(':').next());
    named.unwrap_or(uid).to_owned()
}

/// Adds something to what a record says.
pub(super) fn add(record: &mut Record, key: &str, value: Value) {
    if let Value::Object(detail) = &mut record.detail {
        detail.insert(key.to_owned(), value);
    }
}

/// A note in the spool, with when it was laid there.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spooled {
    note: Note,
    by: Hand,
    utc: String,
    mono_ns: u64,
    boot_id: String,
    clock_ok: bool,
}

fn spool(state_dir: &Path) -> PathBuf {
    state_dir.join("audit.spool")
}

/// The spool while its notes are on the way into the audit.
fn under_way(state_dir: &Path) -> PathBuf {
    state_dir.join("audit.spool.taken")
}

/// Lays notes where the gateway finds them at its next start. They are on disk when this returns.
///
/// # Errors
/// If the disk refuses.
pub fn lay(state_dir: &Path, notes: &[Note], by: &Hand) -> std::io::Result<()> {
    let (wall, mono) = (wall_now(), mono_now());
    let mut lines = String::new();
    for note in notes {
        let spooled = Spooled {
            note: note.clone(),
            by: by.clone(),
            utc: iso_8601(wall.unix_ms),
            mono_ns: mono.0,
            boot_id: super::boot_id(),
            clock_ok: wall.synchronised,
        };
        lines.push_str(&serde_json::to_string(&spooled)?);
        lines.push('\n');
    }
    // Readable for the gateway, whoever the command ran as.
    let mut file = std::fs::OpenOptions::new().append(true).create(true).mode(0o644).open(spool(state_dir))?;
    file.write_all(lines.as_bytes())?;
    file.sync_all()
}

/// The records of all notes that were laid. They are taken again at the next start unless [`forget`] says that they are
/// in the audit.
#[must_use]
pub fn take_in(state_dir: &Path) -> Vec<Record> {
    let (from, to) = (spool(state_dir), under_way(state_dir));
    let ready = if to.exists() { Ok(()) } else { std::fs::rename(&from, &to) };
    let text = match ready.and_then(|()| std::fs::read_to_string(&to)) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(e) => {
            tracing::error!(
                "{} cannot be read: {e}; what commands did meanwhile is not in the audit yet",
                to.display()
            );
            return Vec::new();
        }
    };
    // A line that the power cut short is of a command that was cut short before it did what it says.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).map(Spooled::record).collect()
}

impl Spooled {
    fn record(self) -> Record {
        let Spooled { note, by, utc, mono_ns, boot_id, clock_ok } = self;
        let mut record = note.record().by(&"cli".into(), "Command line", Role::Admin).because("no-gateway");
        add(&mut record, "by", json!(by));
        add(&mut record, "at", json!({ "utc": utc, "monoNs": mono_ns, "bootId": boot_id, "clockOk": clock_ok }));
        record
    }
}

/// What was taken in is in the audit, on disk.
///
/// # Errors
/// If the disk refuses.
pub fn forget(state_dir: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(under_way(state_dir)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Readings that were told of lately.
#[derive(Default)]
pub struct Readings(HashMap<(UserId, String), Mono>);

impl Readings {
    /// True if a note has to be told: all but the same reading by the same person within the hour.
    pub fn is_news(&mut self, by: &UserId, note: &Note, now: Mono) -> bool {
        let Note::Read { how, wanted } = note else { return true };
        let key = (by.clone(), format!("{how} {wanted}"));
        if self.0.get(&key).is_some_and(|told| now.since(*told) < TOLD_AGAIN) {
            return false;
        }
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(channel: &str) -> Note {
        Note::Read { how: "query".into(), wanted: json!({ "channel": channel }) }
    }

    #[test]
    fn notes_wait_in_the_spool_and_go_when_they_are_in_the_audit() {
        let dir = tempfile::tempdir().unwrap();
        assert!(take_in(dir.path()).is_empty());
        let channels = vec!["ops".into()];
        let (name, expires_utc) = ("Eve".into(), "2030-01-01T00:00:00.000Z".into());
        let token = Note::Token { user: "eve".into(), name, role: Role::Dispatch, channels, expires_utc };
        lay(dir.path(), &[token, reading("ops")], &Hand::own()).unwrap();
        let heard = Heard { burst: Some("b12".into()), ..Heard::of_id("x") };
        lay(dir.path(), &[Note::Exported(heard)], &Hand::own()).unwrap();
        let mut torn = std::fs::OpenOptions::new().append(true).open(spool(dir.path())).unwrap();
        torn.write_all(b"{\"note\":").unwrap();

        let records = take_in(dir.path());
        assert_eq!(records, take_in(dir.path()), "nothing says that they are in the audit");
        let actions: Vec<_> = records.iter().map(|record| record.action).collect();
        assert_eq!(actions, [Action::AuthTokenMade, Action::AuditRead, Action::RecordingExported]);
        assert_eq!((&records[0].target, records[2].burst), (&Some("eve".into()), Some(crate::base::BurstId(12))));
        assert_eq!((&records[0].detail["role"], &records[0].detail["by"]), (&json!("DISPATCH"), &json!(Hand::own())));
        assert!(records[0].detail["at"]["monoNs"].as_u64().unwrap() > 0);
        forget(dir.path()).unwrap();
        assert!(take_in(dir.path()).is_empty());
    }

    #[test]
    fn a_page_that_looks_every_second_is_told_once_an_hour() {
        let (mut readings, ada, bob) = (Readings::default(), "ada".into(), "bob".into());
        let at = |s: u64| Mono::from_millis(1000 * s);
        assert!(readings.is_news(&ada, &reading("ops"), at(0)));
        assert!(!readings.is_news(&ada, &reading("ops"), at(3599)));
        assert!(readings.is_news(&ada, &reading("medical"), at(1)), "something else");
        assert!(readings.is_news(&bob, &reading("ops"), at(1)), "somebody else");
        assert!(readings.is_news(&ada, &reading("ops"), at(3600)));
        let played = Note::Played(Heard::of_id("x"));
        assert!(readings.is_news(&ada, &played, at(1)) && readings.is_news(&ada, &played, at(1)));
    }
}
