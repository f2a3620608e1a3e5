//! Throwing out, banning and disabling (F13, F14): at once, running burst or not.

use super::channels::change;
use super::{Actor, Answer, Control, Effect, Interruption, Keep, Push, Refusal};
use crate::base::{Action, Mono, Record, ReplyId, Role, SessionId, UserId};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

impl Control {
    pub(super) fn force_disconnect(&mut self, session: SessionId, target: &UserId, reason: String, reply: ReplyId) {
        let record = self.record(Action::ForceDisconnect, session);
        match self.check_manager(session).and_then(|()| self.throw_out(record, target, &reason)) {
            Ok(()) if self.is_local(target) => {
                self.emit(Effect::Keep { keep: Keep::Disable { user: target.clone() }, reply });
            }
            Ok(()) => self.reply(reply, Ok(Answer::Done)),
            Err(refusal) => self.reply(reply, Err(refusal)),
        }
    }

    pub(super) fn ban(
        &mut self,
        session: SessionId,
        target: &UserId,
        duration: Option<Duration>,
        reason: String,
        reply: ReplyId,
    ) {
        if let Err(refusal) = self.check_manager(session) {
            return self.reply(reply, Err(refusal));
        }
        let (ban, out) = (self.record(Action::SecurityBan, session), self.record(Action::ForceDisconnect, session));
        self.shut_out(ban, out, target, duration.map(|d| self.now + d), &reason);
        let by = self.sessions.get(&session).map_or_else(|| target.clone(), |s| s.user.clone());
        self.emit(Effect::Keep { keep: Keep::Ban { user: target.clone(), duration, reason, by }, reply });
    }

    pub(super) fn unban(&mut self, session: SessionId, target: &UserId, reply: ReplyId) {
        if let Err(refusal) = self.check_manager(session) {
            return self.reply(reply, Err(refusal));
        }
        self.bans.remove(target);
        let record = self.record(Action::SecurityUnban, session).to(target);
        self.audit(record);
        self.emit(Effect::Keep { keep: Keep::Unban { user: target.clone() }, reply });
    }

    pub(super) fn banned(&mut self, target: &UserId, until: Option<Mono>, reason: &str, by: &Actor) {
        let (ban, out) = (change(Action::SecurityBan, Some(by)), change(Action::ForceDisconnect, Some(by)));
        self.shut_out(ban, out, target, until, reason);
    }

    pub(super) fn unbanned(&mut self, target: &UserId, by: &Actor) {
        self.bans.remove(target);
        self.audit(change(Action::SecurityUnban, Some(by)).to(target));
    }

    /// Bans of the store; whoever is here in spite of one goes.
    pub(super) fn load_bans(&mut self, bans: BTreeMap<UserId, Option<Mono>>) {
        for (user, until) in bans {
            self.bans.insert(user.clone(), until);
            if self.is_banned(&user, self.now) {
                self.throw_out(Record::new(Action::ForceDisconnect), &user, "You are banned from this event.").ok();
            }
        }
    }

    fn shut_out(&mut self, ban: Record, out: Record, target: &UserId, until: Option<Mono>, reason: &str) {
        self.bans.insert(target.clone(), until);
        let duration_ms = until.map(|until| u64::try_from(until.since(self.now).as_millis()).unwrap_or(u64::MAX));
        self.audit(ban.to(target).with(json!({ "reason": reason, "durationMs": duration_ms })));
        self.throw_out(out, target, reason).ok(); // who is not here need not go
    }

    fn check_manager(&mut self, session: SessionId) -> Result<(), Refusal> {
        match self.role_of(session) {
            Role::Dispatch | Role::Admin => Ok(()),
            Role::General => {
                let record = self.record(Action::PermissionDenied, session).because("not-manager");
                self.audit(record);
                Err(Refusal::new("not-permitted", "Only Dispatch and Admin may do this."))
            }
        }
    }

    /// Network sessions are closed. Desks and ports lose their floor, stay seated and are disabled.
    fn throw_out(&mut self, record: Record, target: &UserId, reason: &str) -> Result<(), Refusal> {
        let Some(user) = self.users.get(target) else {
            return Err(Refusal::new("unknown-user", format!("'{target}' is not connected.")));
        };
        let (sessions, by): (Vec<_>, _) = (user.sessions.iter().copied().collect(), record.actor.clone());
        self.audit(record.to(target).with(json!({ "reason": reason })));
        if self.emergency.as_ref().is_some_and(|e| e.user == *target) {
            self.end_emergency("force-disconnect", None);
        }
        let held = self.channels.iter().filter(|(_, c)| c.burst.as_ref().is_some_and(|b| b.user == *target));
        let held: Vec<_> = held.map(|(id, _)| id.clone()).collect();
        for channel in held {
            self.interrupt(&channel, Interruption::Forced, by.as_ref(), reason.to_owned());
            self.announce(&channel, None);
        }
        self.push(sessions.clone(), Push::ForceDisconnect { reason: reason.to_owned() });
        for session in sessions {
            if self.is_network(session) {
                self.emit(Effect::Close { session, reason: reason.to_owned() });
            } else if let Some(s) = self.sessions.get_mut(&session) {
                s.disabled = true;
            }
        }
        Ok(())
    }

    /// Desks and ports that were disabled before the start.
    pub(super) fn load_disabled(&mut self, users: &BTreeSet<UserId>) {
        for s in self.sessions.values_mut().filter(|s| s.local.is_some() && users.contains(&s.user)) {
            s.disabled = true;
        }
    }

    pub(super) fn enable(&mut self, target: &UserId, by: &Actor) {
        for s in self.sessions.values_mut().filter(|s| s.user == *target) {
            s.disabled = false;
        }
        self.audit(change(Action::PersonEnable, Some(by)).to(target));
    }
}
