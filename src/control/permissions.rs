//! Roles and permissions that change while people talk (F13, F14).
//!
//! **Invariant:** whoever loses a permission talks to the end of the burst first. **Invariant:** where the store says
//! nothing of a person, the token's claims hold; an empty store takes nothing from anybody.

use super::channels::change;
use super::{Actor, ChannelSpec, Claims, Control, Push};
use crate::base::{Action, ChannelId, Record, Role, SessionId, UserId};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

impl Control {
    /// Brings everybody in line with the store's word on persons.
    pub(super) fn set_people(&mut self, people: BTreeMap<UserId, Claims>, by: Option<&Actor>) {
        let before = std::mem::replace(&mut self.people, people);
        let named: BTreeSet<_> = before.keys().chain(self.people.keys()).cloned().collect();
        for user in named {
            let (old, new) = (before.get(&user), self.people.get(&user).cloned());
            if old == new.as_ref() {
                continue;
            }
            let (action, said) = match (old, &new) {
                (None, Some(new)) => (Action::PersonCreate, Some(new)),
                (Some(_), Some(new)) => (Action::PersonUpdate, Some(new)),
                (_, None) => (Action::PersonDelete, None),
            };
            let detail = said.map(|c| {
                let channels: Vec<_> = c.channels.iter().map(ChannelId::as_str).collect();
                json!({ "name": c.name, "role": c.role.as_str(), "channels": channels })
            });
            self.audit_change(action, by, |r| r.to(&user).with(detail.unwrap_or_default()));
            let claimed = self.token_claims(&user).cloned();
            let old = old.cloned().or_else(|| claimed.clone());
            if let (Some(old), Some(new)) = (old, new.or(claimed)) {
                self.claims_changed(&user, &old, &new, by);
            }
            self.apply_claims(&user);
        }
        self.lists_changed = true;
    }

    /// What the newest token of a participant says; the newest speaks for it.
    fn token_claims(&self, user: &UserId) -> Option<&Claims> {
        let sessions = self.users.get(user)?.sessions.iter().rev().filter_map(|s| self.sessions.get(s));
        sessions.filter(|s| s.local.is_none()).map(|s| &s.claims).next()
    }

    /// Audits what a person gains and loses, and puts off what has to wait for a burst.
    fn claims_changed(&mut self, user: &UserId, old: &Claims, new: &Claims, by: Option<&Actor>) {
        if old.role != new.role {
            let detail = json!({ "from": old.role.as_str(), "to": new.role.as_str() });
            self.audit(change(Action::RoleChange, by).to(user).with(detail));
        }
        for channel in new.channels.difference(&old.channels) {
            self.deferred.remove(&(user.clone(), channel.clone()));
            self.audit(change(Action::PermissionGranted, by).to(user).on(channel));
        }
        for channel in old.channels.difference(&new.channels) {
            let burst = self.channels.get(channel).and_then(|c| c.burst.as_ref());
            let action = if burst.is_some_and(|b| b.user == *user) {
                self.deferred.insert((user.clone(), channel.clone()));
                Action::PermissionRevocationDeferred
            } else {
                Action::PermissionRevoked
            };
            self.audit(change(action, by).to(user).on(channel));
        }
    }

    /// Gives a participant and its sessions the name, role and channels that hold now. Desks and ports are the
    /// configuration's.
    pub(super) fn apply_claims(&mut self, user: &UserId) {
        let Some(newest) = self.token_claims(user) else { return };
        let holds = self.people.get(user).unwrap_or(newest);
        let (name, role) = (holds.name.clone(), holds.role);
        if let Some(u) = self.users.get_mut(user) {
            let before = std::mem::replace(&mut u.role, role);
            u.name = name;
            if before.has_priority() && !role.has_priority() {
                self.lose_priority(user);
            }
        }
        let sessions = self.users.get(user).map(|u| u.sessions.clone()).unwrap_or_default();
        for session in sessions.into_iter().filter(|s| self.is_network(*s)).collect::<Vec<_>>() {
            let claims = self.people.get(user).or_else(|| self.sessions.get(&session).map(|s| &s.claims));
            let exists = |c: &&ChannelId| self.channels.contains_key(*c) && !self.retired.contains(*c);
            let allowed = claims.map(|c| c.channels.iter().filter(exists).cloned().collect()).unwrap_or_default();
            if let Some(s) = self.sessions.get_mut(&session) {
                s.allowed = allowed;
            }
        }
    }

    /// E1: whoever is no dispatcher any more broadcasts no longer. Its bursts run on, under the limit of its new role.
    fn lose_priority(&mut self, user: &UserId) {
        if self.emergency.as_ref().is_some_and(|e| e.user == *user) {
            self.end_emergency("role-change", None);
        }
        let now = self.now;
        for burst in self.channels.values_mut().filter_map(|c| c.burst.as_mut()).filter(|b| b.user == *user) {
            (burst.limited_from, burst.warned) = (now, false);
        }
        for session in self.users.get(user).map(|u| u.sessions.clone()).unwrap_or_default() {
            if let Some(since) = self.sessions.get_mut(&session).and_then(|s| s.armed.take()) {
                self.audit_aborted(session, now.since(since));
            }
        }
    }

    /// Takes members out of channels that they have lost, unless their participant, or anybody on a removed channel,
    /// still talks there (F14).
    pub(super) fn carry_out_departures(&mut self) {
        if !self.lists_changed && self.deferred.is_empty() && self.retired.is_empty() {
            return;
        }
        self.drop_retired();
        let ended = |(user, channel): &&(UserId, ChannelId)| {
            self.channels.get(channel).and_then(|c| c.burst.as_ref()).is_none_or(|b| b.user != *user)
        };
        let ended: Vec<_> = self.deferred.iter().filter(ended).cloned().collect();
        for due in ended {
            self.deferred.remove(&due);
            let record = Record::new(Action::PermissionRevoked).to(&due.0).on(&due.1).because("burst-ended");
            self.audit(record);
            self.lists_changed = true;
        }
        if !self.lists_changed {
            return;
        }
        let lost = |(id, s): (&SessionId, &super::Session)| {
            let lost = s.joined.keys().filter(|c| !s.allowed.contains(*c) && !self.retired.contains(*c));
            let lost = lost.filter(|c| !self.deferred.contains(&(s.user.clone(), (*c).clone())));
            lost.map(|c| (*id, c.clone())).collect::<Vec<_>>()
        };
        let lost: Vec<_> = self.sessions.iter().flat_map(lost).collect();
        for (session, channel) in lost {
            self.remove_member(session, &channel, "user-left");
        }
    }

    /// What a session may know of: what it may join, and what it may still talk on.
    fn listing(&self, session: SessionId) -> Vec<ChannelSpec> {
        let Some(s) = self.sessions.get(&session) else { return Vec::new() };
        let listed = |c: &&ChannelSpec| s.allowed.contains(&c.id) || s.joined.contains_key(&c.id);
        self.settings.channels.iter().filter(listed).cloned().collect() // as the event lists them
    }

    /// `channel-list` and `permission-update` to every session for which something is new (F13).
    pub(super) fn tell_lists(&mut self) {
        if !std::mem::take(&mut self.lists_changed) {
            return;
        }
        for session in self.sessions.keys().copied().filter(|s| self.is_network(*s)).collect::<Vec<_>>() {
            let (list, role) = (self.listing(session), self.role_of(session));
            let Some(s) = self.sessions.get_mut(&session) else { continue };
            let before = std::mem::replace(&mut s.told, (list.clone(), role));
            if before == (list.clone(), role) {
                continue;
            }
            let ids = |list: &[ChannelSpec]| list.iter().map(|c| c.id.clone()).collect::<Vec<_>>();
            let (old, new) = (ids(&before.0), ids(&list));
            self.push_list(session, list, role);
            let added: Vec<_> = new.iter().filter(|c| !old.contains(c)).cloned().collect();
            let removed: Vec<_> = old.iter().filter(|c| !new.contains(c)).cloned().collect();
            if !added.is_empty() || !removed.is_empty() {
                self.push(vec![session], Push::PermissionUpdate { added, removed, channels: new });
            }
        }
    }

    /// The first `channel-list` of a session.
    pub(super) fn tell_first_list(&mut self, session: SessionId) {
        let (list, role) = (self.listing(session), self.role_of(session));
        if let Some(s) = self.sessions.get_mut(&session) {
            s.told = (list.clone(), role);
        }
        self.push_list(session, list, role);
    }

    fn push_list(&mut self, session: SessionId, list: Vec<ChannelSpec>, role: Role) {
        let channels = list.into_iter().map(|c| (c.id, c.name)).collect();
        self.push(vec![session], Push::ChannelList { channels, role });
    }
}
