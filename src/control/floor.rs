//! The floor of a channel: requests, grants, denials, releases, revokes (F1–F10, F15).

use super::{Answer, Burst, Control, Effect, Interruption, LIMIT_WARNING, LOCKOUT, MEDIA_TIMEOUT, Push, Refusal};
use crate::base::{Action, BurstId, ChannelId, Mono, ReplyId, SessionId, SourceId, UserId};
use serde_json::json;

impl Control {
    /// Decides one floor request. With a reply the asking session learns it there, not by a push.
    pub(super) fn request_floor(
        &mut self,
        session: SessionId,
        channel: &ChannelId,
        priority: bool,
        reply: Option<ReplyId>,
    ) -> Result<Answer, Refusal> {
        let user = self.check_member(session, channel)?;
        let role = self.role_of(session);
        if priority && !role.has_priority() {
            let record = self.record(Action::PermissionDenied, session).on(channel).because("no-priority");
            self.audit(record);
            return Err(Refusal::new("no-priority", "Only Dispatch may interrupt. Use the ordinary talk button."));
        }
        if !self.sessions[&session].capture_works {
            return Ok(self.deny(session, channel, None, "no-capture", "The microphone does not work.".into()));
        }
        if self.sessions.get(&session).is_some_and(|s| s.disabled) {
            let message = "This desk or radio is disabled. Have an administrator enable it.".to_owned();
            return Ok(self.deny(session, channel, None, "disabled", message));
        }
        let Some(held) = self.channels.get(channel).and_then(|c| c.burst.clone()) else {
            if self.is_locked_out(&user, channel) {
                let message = "Talk limit reached. Release and press again.".to_owned();
                return Ok(self.deny(session, channel, None, "talk-limit", message));
            }
            self.grant(
                session,
                channel,
                if priority { Action::PriorityPttStart } else { Action::PttStart },
                None,
                reply,
            );
            return Ok(Answer::Floor { state: self.state(channel) });
        };
        if held.user == user {
            return Ok(Answer::Floor { state: self.state(channel) }); // F2: the same burst, nothing announced
        }
        let holder = (held.user.clone(), self.name_of(&held.user));
        if self.emergency.is_some() {
            let message = format!("Emergency broadcast by Dispatch {}", holder.1);
            return Ok(self.deny(session, channel, Some(holder), "emergency", message));
        }
        let holder_has_priority = self.users.get(&held.user).is_some_and(|u| u.role.has_priority());
        if !priority || holder_has_priority {
            let message = format!("{} is talking", holder.1);
            return Ok(self.deny(session, channel, Some(holder), "busy", message));
        }
        let name = self.name_of(&user);
        self.interrupt(channel, Interruption::Preempted, Some(&user), format!("Dispatch {name} has priority"));
        self.grant(session, channel, Action::PriorityPttStart, Some(held.user), reply);
        Ok(Answer::Floor { state: self.state(channel) })
    }

    fn deny(
        &mut self,
        session: SessionId,
        channel: &ChannelId,
        holder: Option<(UserId, String)>,
        cause: &'static str,
        message: String,
    ) -> Answer {
        let mut record = self.record(Action::PttDenied, session).on(channel).because(cause);
        if let Some((user, _)) = &holder {
            record = record.to(user);
        }
        self.audit(record);
        Answer::Denied { holder, message }
    }

    /// Gives an idle channel to `session`.
    fn grant(
        &mut self,
        session: SessionId,
        channel: &ChannelId,
        action: Action,
        interrupted: Option<UserId>,
        reply: Option<ReplyId>,
    ) {
        let id = self.next_burst();
        let user = self.sessions[&session].user.clone();
        let mut record = self.record(action, session).on(channel).in_burst(id);
        if let Some(interrupted) = interrupted {
            record = record.to(&interrupted).with(json!({ "interrupted": interrupted.as_str() }));
        }
        self.audit(record);
        self.take(
            channel,
            Burst { id, user, session, since: self.now, last_media: self.now, warned: false, limited_from: self.now },
        );
        let source = self.source_for(session, channel);
        self.emit(Effect::OpenGate { channel: channel.clone(), burst: id, source });
        self.announce(channel, reply.map(|_| session));
    }

    pub(super) fn next_burst(&mut self) -> BurstId {
        self.last_burst += 1;
        BurstId(self.last_burst)
    }

    /// Writes the holder of a channel that must be free (F1).
    pub(super) fn take(&mut self, channel: &ChannelId, burst: Burst) {
        self.locked_out.remove(&(burst.user.clone(), channel.clone()));
        let channel = self.channels.get_mut(channel).expect("the channel was checked");
        debug_assert!(channel.burst.is_none(), "F1: one holder");
        channel.burst = Some(burst);
    }

    /// Ends the burst on `channel` without a word to the talker: shuts the gate, frees the floor.
    pub(super) fn free(&mut self, channel: &ChannelId, cut: bool) -> Option<Burst> {
        let burst = self.channels.get_mut(channel)?.burst.take()?;
        self.emit(Effect::ShutGate { channel: channel.clone(), burst: burst.id, cut });
        Some(burst)
    }

    /// Takes the floor from whoever has it and tells all of their sessions (F3, F13).
    pub(super) fn interrupt(&mut self, channel: &ChannelId, cause: Interruption, by: Option<&UserId>, message: String) {
        let Some(burst) = self.free(channel, true) else { return };
        let action = match cause {
            Interruption::Preempted | Interruption::Emergency => Action::PriorityPttInterrupted,
            Interruption::TalkLimit
            | Interruption::CarrierTimeout
            | Interruption::NoMedia
            | Interruption::Forced
            | Interruption::GateFailed => Action::PttRevoked,
        };
        let length_ms = u64::try_from(self.now.since(burst.since).as_millis()).unwrap_or(u64::MAX);
        let mut record = self
            .record_of(action, &burst.user)
            .on(channel)
            .in_burst(burst.id)
            .because(cause.as_str())
            .with(json!({ "durationMs": length_ms }));
        if let Some(by) = by {
            record = record.to(by);
        }
        self.audit(record);
        let sessions = self.users.get(&burst.user).map(|u| u.sessions.iter().copied().collect()).unwrap_or_default();
        let by = by.map(|by| (by.clone(), self.name_of(by)));
        self.push(sessions, Push::Interrupted { channel: channel.clone(), by, message, cause, burst: burst.id });
    }

    /// `speaker-changed` to every member session but `except`, whose reply says it (F3).
    pub(super) fn announce(&mut self, channel: &ChannelId, except: Option<SessionId>) {
        let to = self.channels[channel].members.iter().copied().filter(|s| Some(*s) != except).collect();
        let state = self.state(channel);
        self.push(to, Push::SpeakerChanged { state });
    }

    pub(super) fn release_request(
        &mut self,
        session: SessionId,
        channel: &ChannelId,
        burst: Option<BurstId>,
        reply: ReplyId,
    ) {
        if !self.channels.contains_key(channel) {
            return self.reply(reply, Err(unknown_channel(channel)));
        }
        if let Some(user) = self.sessions.get(&session).map(|s| s.user.clone()) {
            self.locked_out.remove(&(user, channel.clone()));
        }
        self.release(session, channel, burst, Some(reply));
        let state = self.state(channel);
        self.reply(reply, Ok(Answer::Floor { state }));
    }

    /// Gives a floor back. Whatever is not this session's running burst changes nothing (F8, F15).
    pub(super) fn release(
        &mut self,
        session: SessionId,
        channel: &ChannelId,
        burst: Option<BurstId>,
        reply: Option<ReplyId>,
    ) {
        let Some(held) = self.channels.get(channel).and_then(|c| c.burst.as_ref()) else { return };
        let stale = held.session != session || burst.is_some_and(|b| b != held.id);
        if stale || self.emergency.is_some() {
            return;
        }
        self.finish(channel, "released", reply.map(|_| session));
    }

    /// Ends the burst on `channel` in good order.
    pub(super) fn finish(&mut self, channel: &ChannelId, cause: &'static str, except: Option<SessionId>) {
        let Some(burst) = self.free(channel, false) else { return };
        let length_ms = u64::try_from(self.now.since(burst.since).as_millis()).unwrap_or(u64::MAX);
        let record = self.record_of(Action::PttStop, &burst.user).on(channel).in_burst(burst.id).because(cause);
        self.audit(record.with(json!({ "durationMs": length_ms })));
        self.announce(channel, except);
    }

    /// The producer that may be heard: this session's, for this channel (F15), or the one of a desk or port.
    pub(super) fn source_for(&self, session: SessionId, channel: &ChannelId) -> Option<SourceId> {
        let session = self.sessions.get(&session)?;
        session.local.or_else(|| session.sources.get(channel).copied())
    }

    pub(super) fn source_opened(&mut self, session: SessionId, channel: &ChannelId, source: SourceId) {
        let Some(s) = self.sessions.get_mut(&session) else { return };
        s.sources.insert(channel.clone(), source);
        let held = self.channels.get(channel).and_then(|c| c.burst.as_ref());
        if let Some(burst) = held.filter(|b| b.session == session && self.emergency.is_none()) {
            self.emit(Effect::OpenGate { channel: channel.clone(), burst: burst.id, source: Some(source) });
        }
    }

    pub(super) fn source_closed(&mut self, source: SourceId) {
        for session in self.sessions.values_mut() {
            session.sources.retain(|_, s| *s != source);
        }
    }

    pub(super) fn heard(&mut self, burst: BurstId, channel: &ChannelId, at: Mono) {
        for held in self.channels.values_mut().filter_map(|c| c.burst.as_mut()).filter(|b| b.id == burst) {
            held.last_media = held.last_media.max(at);
        }
        if let Some(emergency) = self.emergency.as_mut().filter(|e| e.burst == burst) {
            emergency.last_media = emergency.last_media.max(at);
            emergency.heard.insert(channel.clone(), at);
        }
    }

    pub(super) fn gate_failed(&mut self, channel: &ChannelId, burst: BurstId) {
        if self.emergency.as_ref().is_some_and(|e| e.burst == burst) {
            return self.emergency_gate_failed(channel);
        }
        if self.channels.get(channel).and_then(|c| c.burst.as_ref()).is_some_and(|b| b.id == burst) {
            self.interrupt(
                channel,
                Interruption::GateFailed,
                None,
                "The channel could not be opened. Press again.".into(),
            );
            self.announce(channel, None);
        }
    }

    fn is_locked_out(&self, user: &UserId, channel: &ChannelId) -> bool {
        self.locked_out.get(&(user.clone(), channel.clone())).is_some_and(|since| self.now < *since + LOCKOUT)
    }

    /// True unless it is a desk or port that works: only those never go silent by themselves (F10).
    pub(super) fn may_go_silent(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_none_or(|s| s.local.is_none() || !s.capture_works)
    }

    /// When the burst must end: by its limit, and by the silence of its talker.
    fn limits(&self, burst: &Burst) -> (Option<Mono>, Option<Mono>) {
        let unlimited = self.role_of(burst.session).has_priority() || !self.is_network(burst.session);
        let limit = (!unlimited).then(|| burst.limited_from + self.settings.tuning.talk_limit);
        let silence = self.may_go_silent(burst.session).then(|| burst.last_media + MEDIA_TIMEOUT);
        (limit, silence)
    }

    /// When the first holder will have been silent for too long (F10). Whoever takes time further reads what has
    /// arrived first.
    #[must_use]
    pub fn silence_due(&self) -> Option<Mono> {
        match &self.emergency {
            Some(e) => self.is_network(e.session).then(|| e.last_media + MEDIA_TIMEOUT),
            None => {
                let bursts = self.channels.values().filter_map(|c| c.burst.as_ref());
                bursts.filter_map(|b| self.limits(b).1).min()
            }
        }
    }

    pub(super) fn floor_due(&self) -> impl Iterator<Item = Mono> {
        let bursts = self.channels.values().filter_map(|c| c.burst.as_ref()).filter(|_| self.emergency.is_none());
        bursts.flat_map(|b| {
            let (limit, silence) = self.limits(b);
            let warning = limit.filter(|_| !b.warned).map(|l| l - LIMIT_WARNING.min(self.settings.tuning.talk_limit));
            [limit, silence, warning].into_iter().flatten()
        })
    }

    pub(super) fn floor_timeouts(&mut self) {
        if self.emergency.is_some() {
            return;
        }
        let held: Vec<_> = self.channels.iter().filter_map(|(id, c)| Some((id.clone(), c.burst.clone()?))).collect();
        for (channel, burst) in held {
            let (limit, silence) = self.limits(&burst);
            if limit.is_some_and(|l| self.now >= l) {
                self.interrupt(
                    &channel,
                    Interruption::TalkLimit,
                    None,
                    "Talk limit reached. Release and press again.".into(),
                );
                self.locked_out.insert((burst.user, channel.clone()), self.now);
                self.announce(&channel, None);
            } else if silence.is_some_and(|l| self.now >= l) {
                self.interrupt(&channel, Interruption::NoMedia, None, "No audio arrives from you. Press again.".into());
                self.announce(&channel, None);
            } else if let Some(limit) = limit.filter(|l| !burst.warned && self.now + LIMIT_WARNING >= *l) {
                let remaining = limit.since(self.now);
                if let Some(b) = self.channels.get_mut(&channel).and_then(|c| c.burst.as_mut()) {
                    b.warned = true;
                }
                self.push(vec![burst.session], Push::TalkLimitWarning { channel, remaining });
            }
        }
    }
}

/// The error for a channel that the event does not have.
pub(super) fn unknown_channel(channel: &ChannelId) -> Refusal {
    Refusal::new("unknown-channel", format!("There is no channel '{channel}' at this event."))
}
