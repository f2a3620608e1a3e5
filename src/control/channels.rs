//! Channels that come, go and change their names while people talk.
//!
//! **Invariant:** a channel that is removed keeps its members and its burst until that burst has ended (F14).

use super::{Actor, Burst, Channel, ChannelSpec, Control, Effect};
use crate::base::{Action, ChannelId, Record};
use serde_json::json;

impl Control {
    /// Brings the event in line with `channels`. A channel that a desk or port sits on stays.
    pub(super) fn set_channels(&mut self, channels: Vec<ChannelSpec>, by: Option<&Actor>) {
        let before = std::mem::replace(&mut self.settings.channels, channels.clone());
        for new in &channels {
            let detail = json!({ "name": new.name });
            match before.iter().find(|old| old.id == new.id) {
                Some(old) if !self.retired.remove(&new.id) => {
                    if old.name != new.name {
                        self.audit_change(Action::ChannelUpdate, by, |r| r.on(&new.id).with(detail));
                    }
                }
                Some(_) | None => {
                    self.audit_change(Action::ChannelCreate, by, |r| r.on(&new.id).with(detail));
                    if !self.channels.contains_key(&new.id) {
                        self.channels.insert(new.id.clone(), Channel::default());
                        self.include_in_emergency(&new.id);
                    }
                }
            }
        }
        for old in before.into_iter().filter(|old| channels.iter().all(|new| new.id != old.id)) {
            let seated = self.channels[&old.id].members.iter().any(|s| !self.is_network(*s));
            if !seated && self.retired.insert(old.id.clone()) {
                let talks = self.channels[&old.id].burst.is_some();
                let why = |r: Record| if talks { r.because("burst-running") } else { r };
                self.audit_change(Action::ChannelDelete, by, |r| why(r.on(&old.id)));
            }
            self.settings.channels.push(old);
        }
        for user in self.users.keys().cloned().collect::<Vec<_>>() {
            self.apply_claims(&user);
        }
        self.lists_changed = true;
    }

    /// Audits a change that somebody made; what was read at start is none.
    pub(super) fn audit_change(&mut self, action: Action, by: Option<&Actor>, with: impl FnOnce(Record) -> Record) {
        if let Some(by) = by {
            self.audit(with(change(action, Some(by))));
        }
    }

    /// E7: a channel that is created during a broadcast is a temporary join of it.
    fn include_in_emergency(&mut self, channel: &ChannelId) {
        let now = self.now;
        let Some(e) = &mut self.emergency else { return };
        e.temporary.insert(channel.clone());
        let (id, user, session, source) = (e.burst, e.user.clone(), e.session, e.source);
        self.take(channel, Burst { id, user, session, since: now, last_media: now, warned: true, limited_from: now });
        self.emit(Effect::OpenGate { channel: channel.clone(), burst: id, source });
    }

    /// Drops removed channels that nobody talks on any more.
    pub(super) fn drop_retired(&mut self) {
        let idle = |id: &&ChannelId| self.channels.get(*id).is_none_or(|c| c.burst.is_none());
        let idle: Vec<_> = self.retired.iter().filter(idle).cloned().collect();
        for id in idle {
            self.retired.remove(&id);
            self.settings.channels.retain(|c| c.id != id);
            self.locked_out.retain(|(_, c), _| *c != id);
            self.deferred.retain(|(_, c)| *c != id);
            let members = self.channels.remove(&id).map(|c| c.members).unwrap_or_default();
            for session in members {
                if let Some(s) = self.sessions.get_mut(&session) {
                    s.joined.remove(&id);
                    s.sources.remove(&id);
                }
                let record = self.record(Action::ChannelLeave, session).on(&id).because("channel-removed");
                self.audit(record);
                self.emit(Effect::Leave { session, channel: id.clone() });
            }
            self.lists_changed = true;
        }
    }
}

/// A record of what `by` changed, or of what the gateway itself took over.
pub(super) fn change(action: Action, by: Option<&Actor>) -> Record {
    let record = Record::new(action);
    match by {
        Some(by) => record.by(&by.user, &by.name, by.role),
        None => record,
    }
}
