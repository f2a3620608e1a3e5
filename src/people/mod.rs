//! The people of the event and what was changed at run time: persons, added channels, bans, disabled desks.
//!
//! This room decides how that reaches the disk and what is known of it while the disk does not answer. It never
//! decides who may do what, and never makes its caller wait: [`People::change`] hands a change to a thread of its own
//! through a bounded queue, and the answer comes back as [`News`].
//!
//! **Invariant:** "could not be read" is never taken for "has none": without a reading there is no [`Roll`]. **Invariant:**
//! what was read once is not lost with its file: it is written into the new one.

mod schema;
mod store;

use crate::base::{Beat, ChannelId, Pulse, Role, UserId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use store::{Store, copy};

/// Changes that may wait for the disk.
const QUEUE_CHANGES: usize = 64;
/// How long a store that does not answer is left alone.
const RETRY: Duration = Duration::from_secs(1);

/// What can go wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// The file was written by a later version.
    #[error("{path} has schema {found}, newer than {known}; run the newer crosspatch or move the file away")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema that this program knows.
        known: usize,
    },
    /// SQLite refuses.
    #[error("{path} cannot be used: {source}; check that its directory exists, is writable and has room")]
    Store {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// A damaged file cannot be renamed.
    #[error("{path} is damaged and cannot be set aside: {source}; move it away by hand")]
    SetAside {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The store's thread cannot be started.
    #[error("the thread of the store of people cannot be started: {0}; raise the unit's TasksMax or free memory")]
    Thread(std::io::Error),
}

/// A channel added at run time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredChannel {
    /// The id on the wire.
    pub id: ChannelId,
    /// The name people see.
    pub name: String,
    /// Its place among the added channels; the smallest comes first.
    pub order: i64,
}

/// A person; goes before what the person's token claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPerson {
    /// The name people see.
    pub name: String,
    /// The role.
    pub role: Role,
    /// Channels the person may join.
    pub channels: Vec<ChannelId>,
}

/// A ban.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Until when, in milliseconds since 1970; `None` is for ever.
    pub until_unix_ms: Option<u64>,
    /// Why, for people.
    pub reason: String,
    /// By whom.
    pub by: UserId,
}

/// Everything that is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roll {
    /// Added channels, in order.
    pub channels: Vec<StoredChannel>,
    /// Persons.
    pub people: BTreeMap<UserId, StoredPerson>,
    /// Bans, also such as are over.
    pub bans: BTreeMap<UserId, Ban>,
    /// Desks and ports that may not talk (F14).
    pub disabled: BTreeSet<UserId>,
}

impl Roll {
    /// Takes over a ban or a disabled desk that holds before it is on disk.
    pub fn note(&mut self, change: &Change) {
        match change {
            Change::PutBan(user, ban) => drop(self.bans.insert(user.clone(), ban.clone())),
            Change::RemoveBan(user) => drop(self.bans.remove(user)),
            Change::Disable(user) => drop(self.disabled.insert(user.clone())),
            Change::Enable(user) => drop(self.disabled.remove(user)),
            Change::PutChannel(_) | Change::RemoveChannel(_) | Change::PutPerson(..) | Change::RemovePerson(_) => {}
        }
    }

    /// The changes that make an empty store this one.
    fn as_changes(&self) -> Vec<Change> {
        let channels = self.channels.iter().cloned().map(Change::PutChannel);
        let people = self.people.iter().map(|(id, person)| Change::PutPerson(id.clone(), person.clone()));
        let bans = self.bans.iter().map(|(user, ban)| Change::PutBan(user.clone(), ban.clone()));
        channels.chain(people).chain(bans).chain(self.disabled.iter().cloned().map(Change::Disable)).collect()
    }
}

/// One change of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds a channel, or replaces its name and order.
    PutChannel(StoredChannel),
    /// Removes a channel and every permission for it.
    RemoveChannel(ChannelId),
    /// Adds a person, or replaces what is said of them.
    PutPerson(UserId, StoredPerson),
    /// Removes a person; their token's claims hold again.
    RemovePerson(UserId),
    /// Adds a ban, or replaces it.
    PutBan(UserId, Ban),
    /// Lifts a ban.
    RemoveBan(UserId),
    /// Notes that a desk or port may not talk.
    Disable(UserId),
    /// Notes that it may talk again.
    Enable(UserId),
}

/// What the store tells.
#[derive(Debug)]
pub enum News {
    /// The store was read: at start, or after it had not answered.
    Read {
        /// What it says.
        roll: Roll,
        /// What is wrong all the same: a damaged file was set aside.
        trouble: Option<String>,
    },
    /// The store does not answer; it is tried again every second.
    Unusable {
        /// Why.
        why: String,
    },
    /// A change is on disk, or cannot be.
    Changed {
        /// The number that [`People::change`] was given.
        ticket: u64,
        /// What the store says now, or why nothing was changed.
        result: Result<Roll, String>,
    },
}

/// Where news go; called on the store's thread.
pub type Tell = Box<dyn Fn(News) + Send>;

/// The handle that changes are made with. The thread ends when the last one is dropped.
pub struct People {
    queue: SyncSender<Message>,
    beat: Arc<Beat>,
}

/// What travels to the store's thread.
enum Message {
    /// A change and its ticket.
    Change(u64, Change),
    /// Somebody asks whether the thread is alive.
    Tick,
}

impl People {
    /// Hands a change over; its outcome comes as [`News::Changed`] with the same `ticket`. False if the disk is so
    /// slow that too many wait already.
    #[must_use]
    pub fn change(&self, ticket: u64, change: Change) -> bool {
        self.queue.try_send(Message::Change(ticket, change)).is_ok()
    }

    /// The thread's sign of life. It keeps the thread running as the handle does.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        let queue = self.queue.clone();
        // A full queue has the thread come round without it.
        Pulse::new(self.beat.clone(), move || drop(queue.try_send(Message::Tick)))
    }
}

/// Reads the store and starts its thread. The first news is returned, later ones are told.
///
/// # Errors
/// If the thread cannot be started. A store that does not answer is news, no error.
pub fn start(path: &Path, tell: Tell) -> Result<(People, News, JoinHandle<()>), PeopleError> {
    let (sender, receiver) = sync_channel(QUEUE_CHANGES);
    let beat = Beat::new();
    let mut keeper = Keeper { path: path.to_owned(), known: None, trouble: None, tell, beat: beat.clone() };
    let first = keeper.read();
    let works = matches!(first, News::Read { .. });
    let thread = std::thread::Builder::new()
        .name("people".to_owned())
        .spawn(move || keeper.run(&receiver, works))
        .map_err(PeopleError::Thread)?;
    Ok((People { queue: sender, beat }, first, thread))
}

/// The state of the store's thread.
struct Keeper {
    path: PathBuf,
    /// What was last read or written.
    known: Option<Roll>,
    trouble: Option<String>,
    tell: Tell,
    beat: Arc<Beat>,
}

impl Keeper {
    fn run(mut self, messages: &Receiver<Message>, mut works: bool) {
        let mut retry_at = Instant::now() + RETRY;
        loop {
            self.beat.answer();
            let next = match works {
                true => messages.recv().map_err(RecvTimeoutError::from),
                false => messages.recv_timeout(retry_at.saturating_duration_since(Instant::now())),
            };
            match next {
                Ok(Message::Tick) => continue,
                Ok(Message::Change(ticket, change)) => {
                    let result = self.apply(&change, works).map_err(|e| e.to_string());
                    works = result.is_ok();
                    if let Err(why) = &result {
                        (self.tell)(News::Unusable { why: why.clone() });
                    }
                    (self.tell)(News::Changed { ticket, result });
                }
                Err(RecvTimeoutError::Timeout) => {
                    let news = self.read();
                    works = matches!(news, News::Read { .. });
                    if works {
                        (self.tell)(news);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
            retry_at = Instant::now() + RETRY;
        }
    }

    fn read(&mut self) -> News {
        match self.open() {
            Ok((_, roll)) => News::Read { roll, trouble: self.trouble.clone() },
            Err(e) => News::Unusable { why: e.to_string() },
        }
    }

    /// Makes one change. What else is new in the file, or of it, is told before.
    fn apply(&mut self, change: &Change, works: bool) -> Result<Roll, PeopleError> {
        let before = (self.known.clone(), self.trouble.clone());
        let (mut store, roll) = self.open()?;
        if !works || before != (self.known.clone(), self.trouble.clone()) {
            (self.tell)(News::Read { roll, trouble: self.trouble.clone() });
        }
        store.change(std::slice::from_ref(change))?;
        let roll = store.read()?;
        self.known = Some(roll.clone());
        Ok(roll)
    }

    /// Opens and reads the store. A file that is empty though there was something in it is filled again.
    fn open(&mut self) -> Result<(Store, Roll), PeopleError> {
        let mut store = Store::open(&self.path)?;
        if let Some(aside) = &store.set_aside {
            let lost = match self.known {
                Some(_) => "what was known is stored anew",
                None => {
                    "people, channels, bans of before are not known: add them again, or stop the gateway and put a backup in its place"
                }
            };
            self.trouble =
                Some(format!("the store of people was damaged and is set aside as {}; {lost}", aside.display()));
        }
        let mut roll = store.read()?;
        if let Some(known) = &self.known
            && roll == Roll::default()
            && *known != roll
        {
            store.change(&known.as_changes())?;
            roll = store.read()?;
        }
        self.known = Some(roll.clone());
        Ok((store, roll))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};

    fn everything() -> Roll {
        let person =
            StoredPerson { name: "Anna".into(), role: Role::Dispatch, channels: vec!["gate".into(), "ops".into()] };
        let ban = Ban { until_unix_ms: Some(1_700_000_000_000), reason: "noise".into(), by: "ada".into() };
        let forever = Ban { until_unix_ms: None, reason: "theft".into(), by: "ada".into() };
        Roll {
            channels: vec![
                StoredChannel { id: "gate".into(), name: "Gate".into(), order: 1 },
                StoredChannel { id: "bar".into(), name: "Bar".into(), order: 2 },
            ],
            people: [("anna".into(), person)].into(),
            bans: [("bert".into(), ban), ("carl".into(), forever)].into(),
            disabled: ["desk-1".into()].into(),
        }
    }

    fn file() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("people.sqlite");
        (dir, path)
    }

    fn started(path: &Path) -> (People, News, Receiver<News>, JoinHandle<()>) {
        let (sender, news) = channel();
        let (people, first, thread) = start(path, Box::new(move |n| drop(sender.send(n)))).unwrap();
        (people, first, news, thread)
    }

    fn read(news: News) -> (Roll, Option<String>) {
        match news {
            News::Read { roll, trouble } => (roll, trouble),
            other @ (News::Unusable { .. } | News::Changed { .. }) => panic!("{other:?}"),
        }
    }

    fn changed(news: News) -> Result<Roll, String> {
        match news {
            News::Changed { result, .. } => result,
            other @ (News::Unusable { .. } | News::Read { .. }) => panic!("{other:?}"),
        }
    }

    fn ban(user: &str) -> Change {
        Change::PutBan(user.into(), Ban { until_unix_ms: None, reason: "r".into(), by: "ada".into() })
    }

    #[test]
    fn what_is_stored_is_read_back_by_the_next_start() {
        let (_dir, path) = file();
        Store::open(&path).unwrap().change(&everything().as_changes()).unwrap();
        let (people, first, _news, thread) = started(&path);
        assert_eq!(read(first), (everything(), None));
        drop(people);
        thread.join().unwrap();
    }

    #[test]
    fn a_removed_channel_takes_its_permissions_along() {
        let (_dir, path) = file();
        let mut store = Store::open(&path).unwrap();
        store.change(&everything().as_changes()).unwrap();
        let rest =
            [Change::RemoveChannel("gate".into()), Change::RemoveBan("bert".into()), Change::Enable("desk-1".into())];
        store.change(&rest).unwrap();
        let roll = store.read().unwrap();
        assert_eq!(roll.people["anna"].channels, [ChannelId::from("ops")]);
        assert_eq!((roll.channels.len(), roll.bans.len(), roll.disabled.len()), (1, 1, 0));
        store.change(&[Change::RemovePerson("anna".into())]).unwrap();
        assert!(store.read().unwrap().people.is_empty());
    }

    #[test]
    fn changes_come_back_with_the_whole_roll_once_they_are_on_disk() {
        let (_dir, path) = file();
        let (people, first, news, _thread) = started(&path);
        assert_eq!(read(first), (Roll::default(), None));
        assert!(people.change(7, ban("bert")));
        let News::Changed { ticket: 7, result: Ok(roll) } = news.recv().unwrap() else { panic!("not stored") };
        assert!(roll.bans.contains_key("bert"));
        assert_eq!(Store::open(&path).unwrap().read().unwrap(), roll);
    }

    #[test]
    fn a_damaged_file_is_set_aside_told_and_kept() {
        let (dir, path) = file();
        std::fs::write(&path, "this is no database, however long it may go on".repeat(100)).unwrap();
        let (_people, first, _news, _thread) = started(&path);
        let (roll, trouble) = read(first);
        assert_eq!(roll, Roll::default());
        assert!(trouble.unwrap().contains("people.sqlite.damaged-"));
        let kept = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path());
        let kept: Vec<_> = kept.filter(|p| p.to_str().unwrap().contains("damaged")).collect();
        assert!(std::fs::read(&kept[0]).unwrap().starts_with(b"this is no database"));
    }

    #[test]
    fn a_file_that_is_damaged_or_removed_at_run_time_loses_nothing_that_was_known() {
        let (_dir, path) = file();
        Store::open(&path).unwrap().change(&everything().as_changes()).unwrap();
        let (people, first, news, _thread) = started(&path);
        read(first);
        std::fs::write(&path, "noise".repeat(4000)).unwrap();
        assert!(people.change(1, ban("dora")));
        let (roll, trouble) = read(news.recv().unwrap());
        assert!(trouble.unwrap().contains("what was known is stored anew"));
        assert_eq!(roll, everything());
        assert!(changed(news.recv().unwrap()).unwrap().bans.contains_key("dora"));
        std::fs::remove_file(&path).unwrap();
        assert!(people.change(2, ban("emil")));
        let roll = changed(news.recv().unwrap()).unwrap();
        assert_eq!((roll.people, roll.bans.len()), (everything().people, 4));
    }

    #[test]
    fn a_store_that_cannot_be_opened_refuses_changes_and_is_read_when_it_answers_again() {
        let (_dir, path) = file();
        std::fs::create_dir(&path).unwrap();
        let (people, first, news, _thread) = started(&path);
        assert!(matches!(first, News::Unusable { .. }));
        assert!(people.change(1, ban("bert")));
        assert!(matches!(news.recv().unwrap(), News::Unusable { .. }));
        assert!(changed(news.recv().unwrap()).unwrap_err().contains("people.sqlite cannot be used"));
        std::fs::remove_dir(&path).unwrap();
        assert_eq!(read(news.recv().unwrap()), (Roll::default(), None));
    }

    #[test]
    fn a_newer_file_is_refused_and_left_alone() {
        let (_dir, path) = file();
        let db = rusqlite::Connection::open(&path).unwrap();
        db.pragma_update(None, "user_version", 99).unwrap();
        drop(db);
        assert!(matches!(Store::open(&path), Err(PeopleError::Newer { found: 99, .. })));
        assert!(path.exists());
    }
}
