//! Sessions, participants and their memberships (F12–F14, F16).

use super::floor::unknown_channel;
use super::{Answer, Claims, Control, Effect, Push, Refusal, Session, User};
use crate::base::{Action, ChannelId, Mono, ReplyId, Role, SessionId, UserId};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a lost session's memberships wait for it.
pub(super) const RESUME: Duration = Duration::from_secs(30);

/// A session that was lost and may come back.
#[derive(Debug)]
pub(super) struct Lost {
    user: UserId,
    /// In the order of joining (E6).
    joined: Vec<ChannelId>,
    until: Mono,
}

impl Control {
    /// Makes desks and ports participants like any other, members of their channels for good.
    pub(super) fn seat_desks_and_ports(&mut self) {
        let desks = self.settings.desks.clone();
        for desk in desks {
            let mut channels: Vec<_> = desk.tally.iter().flat_map(|(_, channels)| channels).cloned().collect();
            channels.extend(desk.ptt.iter().flat_map(|ptt| &ptt.channels).cloned());
            channels.extend(desk.ptt.iter().flat_map(|ptt| &ptt.select).map(|(_, channel)| channel.clone()));
            self.seat(desk.session, desk.user, desk.name, desk.role, desk.source, &channels);
        }
        let ports = self.settings.ports.clone();
        for port in ports {
            self.seat(port.session, port.user, port.name, Role::General, port.source, &[port.channel]);
        }
    }

    fn seat(
        &mut self,
        session: SessionId,
        user: UserId,
        name: String,
        role: Role,
        source: crate::base::SourceId,
        channels: &[ChannelId],
    ) {
        self.add_session(session, user, Claims { name, role, channels: channels.iter().cloned().collect() });
        for channel in channels {
            self.add_member(session, channel);
        }
        let s = self.sessions.get_mut(&session).expect("just added");
        s.local = Some(source);
        (s.capture_works, s.playback_works) = (false, false);
    }

    fn add_session(&mut self, session: SessionId, user: UserId, claims: Claims) {
        let entry = self.users.entry(user.clone()).or_insert_with(|| User {
            name: String::new(),
            role: claims.role,
            sessions: BTreeSet::new(),
        });
        (entry.name, entry.role) = (claims.name.clone(), claims.role);
        entry.sessions.insert(session);
        self.sessions.insert(
            session,
            Session {
                user,
                allowed: claims.channels.clone(),
                told: (Vec::new(), claims.role),
                claims,
                joined: BTreeMap::new(),
                sources: BTreeMap::new(),
                local: None,
                capture_works: true,
                playback_works: true,
                disabled: false,
                armed: None,
            },
        );
    }

    fn add_member(&mut self, session: SessionId, channel: &ChannelId) {
        self.last_rank += 1;
        let (rank, Some(s)) = (self.last_rank, self.sessions.get_mut(&session)) else { return };
        s.joined.entry(channel.clone()).or_insert(rank);
        if let Some(c) = self.channels.get_mut(channel) {
            c.members.insert(session);
        }
    }

    /// The store's word on the person goes before the token's claims; else the newest token speaks for all sessions.
    pub(super) fn open_session(&mut self, session: SessionId, user: UserId, claims: Claims) {
        self.add_session(session, user.clone(), claims);
        self.apply_claims(&user);
        let record = self.record(Action::AuthLogin, session).with(json!({ "session": session.to_string() }));
        self.audit(record);
        self.tell_first_list(session);
    }

    pub(super) fn close_session(&mut self, session: SessionId, cause: &'static str) {
        if !self.sessions.contains_key(&session) {
            return;
        }
        let record =
            self.record(Action::AuthLogout, session).because(cause).with(json!({ "session": session.to_string() }));
        self.audit(record);
        if self.emergency.as_ref().is_some_and(|e| e.session == session) {
            self.end_emergency("session-closed", None);
        }
        let mut joined: Vec<_> = self.sessions[&session].joined.iter().map(|(c, rank)| (*rank, c.clone())).collect();
        joined.sort();
        let joined: Vec<_> = joined.into_iter().map(|(_, channel)| channel).collect();
        for channel in &joined {
            self.remove_member(session, channel, "user-disconnected");
        }
        let now = self.now;
        self.lost.retain(|_, lost| now < lost.until);
        let (user, until) = (self.sessions[&session].user.clone(), now + RESUME);
        self.lost.insert(session, Lost { user, joined, until });
        if let Some(s) = self.sessions.remove(&session)
            && let Some(user) = self.users.get_mut(&s.user)
        {
            user.sessions.remove(&session);
            if user.sessions.is_empty() {
                self.users.remove(&s.user);
                self.locked_out.retain(|(u, _), _| *u != s.user);
            }
        }
    }

    /// Gives a new session the memberships of the one that it continues, never its floor. `lost` may still be open: a
    /// client knows of a dead network before we do.
    pub(super) fn resume(&mut self, session: SessionId, lost: Option<SessionId>) {
        let Some(user) = self.sessions.get(&session).map(|s| s.user.clone()) else { return };
        let own = |of: &UserId| *of == user;
        if let Some(lost) =
            lost.filter(|lost| *lost != session && self.sessions.get(lost).is_some_and(|s| own(&s.user)))
        {
            self.close_session(lost, "resumed");
            let reason = "This session continues on another connection.".to_owned();
            self.emit(Effect::Close { session: lost, reason });
        }
        let lost = lost.filter(|lost| self.lost.get(lost).is_some_and(|l| own(&l.user) && self.now < l.until));
        let mut resumed = Vec::new();
        for channel in lost.and_then(|lost| self.lost.remove(&lost)).map(|lost| lost.joined).unwrap_or_default() {
            if self.try_join(session, &channel).is_ok() {
                resumed.push(channel);
            }
        }
        let states = resumed.iter().map(|channel| self.state(channel)).collect();
        self.push(vec![session], Push::Session { session, resumed: states });
    }

    /// Ends the session's burst on the channel, takes it out, tells the others.
    pub(super) fn remove_member(&mut self, session: SessionId, channel: &ChannelId, action: &'static str) {
        let carries = self.channels.get(channel).and_then(|c| c.burst.as_ref()).is_some_and(|b| b.session == session);
        if carries && self.emergency.is_none() {
            self.finish(channel, action, Some(session));
        }
        let Some(user) = self.sessions.get_mut(&session).map(|s| {
            s.joined.remove(channel);
            s.sources.remove(channel);
            s.user.clone()
        }) else {
            return;
        };
        if let Some(c) = self.channels.get_mut(channel) {
            c.members.remove(&session);
        }
        let record = self.record(Action::ChannelLeave, session).on(channel).because(action);
        self.audit(record);
        self.emit(Effect::Leave { session, channel: channel.clone() });
        self.announce_member(channel, action, &user, session);
    }

    fn announce_member(&mut self, channel: &ChannelId, action: &'static str, user: &UserId, except: SessionId) {
        let to = self.channels[channel].members.iter().copied().filter(|s| *s != except).collect();
        let push = Push::Member {
            state: self.state(channel),
            action,
            user: user.clone(),
            name: self.name_of(user),
            user_count: self.user_count(channel),
        };
        self.push(to, push);
    }

    pub(super) fn user_count(&self, channel: &ChannelId) -> usize {
        let members = self.channels[channel].members.iter();
        members.filter_map(|s| self.sessions.get(s)).map(|s| &s.user).collect::<BTreeSet<_>>().len()
    }

    pub(super) fn join(&mut self, session: SessionId, channel: &ChannelId, reply: ReplyId) {
        let answer = self.try_join(session, channel);
        if let Err(refusal) = &answer {
            let record = self.record(Action::ChannelJoinDenied, session).on(channel).because(refusal.code);
            self.audit(record);
        }
        self.reply(reply, answer);
    }

    fn try_join(&mut self, session: SessionId, channel: &ChannelId) -> Result<Answer, Refusal> {
        if !self.channels.contains_key(channel) || self.retired.contains(channel) {
            return Err(unknown_channel(channel));
        }
        let (limit, users) = (self.channels_at_once(self.role_of(session)), self.settings.tuning.channel_users);
        let Some(s) = self.sessions.get(&session) else {
            return Err(Refusal::new("no-session", "This session is closed."));
        };
        if !s.allowed.contains(channel) {
            return Err(Refusal::new("not-permitted", format!("You may not join '{channel}'. Ask an administrator.")));
        }
        if !s.joined.contains_key(channel) {
            let user = s.user.clone();
            let sessions = self.users[&user].sessions.iter().filter_map(|s| self.sessions.get(s));
            let monitored: BTreeSet<_> = sessions.flat_map(|s| s.joined.keys()).collect();
            if !monitored.contains(channel) && monitored.len() >= limit {
                return Err(Refusal::new(
                    "too-many-channels",
                    "Maximum channels reached. Remove a channel to add another.",
                ));
            }
            if !monitored.contains(channel) && self.user_count(channel) >= users {
                return Err(Refusal::new(
                    "channel-full",
                    format!("'{channel}' is full: it has {users} users. Ask an administrator."),
                ));
            }
            self.add_member(session, channel);
            let record = self.record(Action::ChannelJoin, session).on(channel);
            self.audit(record);
            self.announce_member(channel, "user-joined", &user, session);
            self.tell_late_joiner(session, channel);
        }
        if let Some(e) = self.emergency.as_mut().filter(|e| e.session == session) {
            e.temporary.remove(channel); // E5: what the broadcaster joins itself stays
        }
        Ok(Answer::Joined { state: self.state(channel), user_count: self.user_count(channel) })
    }

    pub(super) fn leave(&mut self, session: SessionId, channel: &ChannelId, reply: ReplyId) {
        let answer = if !self.channels.contains_key(channel) {
            Err(unknown_channel(channel))
        } else {
            if self.sessions.get(&session).is_some_and(|s| s.joined.contains_key(channel)) {
                self.remove_member(session, channel, "user-left");
            }
            Ok(Answer::Left { channel: channel.clone() })
        };
        self.reply(reply, answer);
    }

    /// The participant behind a session that is a member, or joined for its broadcast (F13, E5).
    pub(super) fn check_member(&mut self, session: SessionId, channel: &ChannelId) -> Result<UserId, Refusal> {
        if !self.channels.contains_key(channel) {
            return Err(unknown_channel(channel));
        }
        let Some(s) = self.sessions.get(&session) else {
            return Err(Refusal::new("no-session", "This session is closed."));
        };
        let temporary = self.emergency.as_ref().is_some_and(|e| e.session == session && e.temporary.contains(channel));
        if s.joined.contains_key(channel) || temporary {
            return Ok(s.user.clone());
        }
        let record = self.record(Action::PermissionDenied, session).on(channel).because("not-member");
        self.audit(record);
        Err(Refusal::new("not-member", format!("You are not a member of '{channel}'. Join it first.")))
    }

    pub(super) fn admit_media(&mut self, session: SessionId, channel: Option<&ChannelId>, reply: ReplyId) {
        match channel.map_or(Ok(()), |c| self.check_member(session, c).map(drop)) {
            Ok(()) => self.emit(Effect::AdmitMedia { reply }),
            Err(refusal) => self.reply(reply, Err(refusal)),
        }
    }

    pub(super) fn capture(&mut self, session: SessionId, works: bool) {
        if let Some(s) = self.sessions.get_mut(&session) {
            s.capture_works = works;
        }
    }

    pub(super) fn playback(&mut self, session: SessionId, works: bool) {
        if let Some(s) = self.sessions.get_mut(&session) {
            s.playback_works = works;
        }
        if !works {
            self.playback_gone(session);
        }
    }
}
