//! The emergency broadcast (E1–E8, E11): one talker to all channels of the event.

use super::readiness::{LOOK, Receipt};
use super::{Answer, Burst, Control, Effect, Interruption, MEDIA_TIMEOUT, MIN_HOLD, NETWORK_JITTER, Push, Refusal};
use crate::base::{Action, BurstId, ChannelId, Mono, ReplyId, SessionId, SourceId, UserId};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A broadcast that runs.
#[derive(Debug)]
pub(super) struct Emergency {
    pub burst: BurstId,
    pub user: UserId,
    pub session: SessionId,
    pub since: Mono,
    pub source: Option<SourceId>,
    pub last_media: Mono,
    /// Channels joined for this broadcast, recorded here and nowhere else (E5).
    pub temporary: BTreeSet<ChannelId>,
    /// Channels whose gate did not open, tried again at the time beside them (E4).
    pub failed: BTreeSet<ChannelId>,
    pub retry_at: Option<Mono>,
    pub warned: bool,
    /// The newest packet on each channel (E9).
    pub heard: BTreeMap<ChannelId, Mono>,
    /// What the broadcaster was told last that it reaches (E9).
    pub receipt: Vec<Receipt>,
    pub look_at: Mono,
}

/// E4: a channel that failed is tried again after this.
const RETRY: Duration = Duration::from_secs(1);
/// E8: the warning comes this long before the end.
const END_WARNING: Duration = Duration::from_secs(30);
/// E2: what every refusal for a short press says.
const SHORT_HOLD: &str = "Emergency broadcast requires 2-second hold";

impl Control {
    pub(super) fn arm_from_network(&mut self, session: SessionId, pressed: bool, reply: ReplyId) {
        if let Err(refusal) = self.check_broadcaster(session) {
            return self.reply(reply, Err(refusal));
        }
        let now = self.now;
        let s = self.sessions.get_mut(&session).expect("a broadcaster has a session");
        let was = if pressed { s.armed.replace(now) } else { s.armed.take() };
        let runs = self.emergency.as_ref().is_some_and(|e| e.session == session);
        match (pressed, was) {
            (true, _) => self.audit_armed(session),
            (false, Some(since)) if !runs => self.audit_aborted(session, now.since(since)),
            (false, _) => {}
        }
        self.reply(reply, Ok(Answer::Done));
    }

    pub(super) fn audit_armed(&mut self, session: SessionId) {
        let record = self.record(Action::EmergencyArmed, session);
        self.audit(record);
    }

    pub(super) fn audit_aborted(&mut self, session: SessionId, held: Duration) {
        let record = self.record(Action::EmergencyAborted, session).with(json!({ "heldMs": millis(held) }));
        self.audit(record);
    }

    pub(super) fn emergency_from_network(&mut self, session: SessionId, hold_ms: f64, reply: ReplyId) {
        let hold = self.settings.tuning.emergency_hold.max(MIN_HOLD);
        let armed = self.sessions.get(&session).and_then(|s| s.armed);
        let long_enough = hold_ms >= hold.as_millis() as f64;
        let clock_agrees = armed.is_none_or(|since| self.now.since(since) + NETWORK_JITTER >= hold);
        let answer = self.check_broadcaster(session).and_then(|()| {
            if long_enough && clock_agrees {
                return Ok(self.start_emergency(session));
            }
            self.deny_emergency(session, "hold-too-short", json!({ "holdDuration": hold_ms }));
            Err(Refusal::new("hold-too-short", SHORT_HOLD))
        });
        self.reply(reply, answer);
    }

    /// A desk's button was held long enough; a desk of another role is refused as anybody else would be (E1).
    /// True if it runs now.
    pub(super) fn emergency_from_button(&mut self, session: SessionId) -> bool {
        let may = self.check_broadcaster(session).is_ok();
        may && matches!(self.start_emergency(session), Answer::EmergencyStarted { .. })
    }

    /// E1: Dispatch only.
    fn check_broadcaster(&mut self, session: SessionId) -> Result<(), Refusal> {
        if self.sessions.contains_key(&session) && self.role_of(session).has_priority() {
            return Ok(());
        }
        let record = self.record(Action::PermissionDenied, session).because("not-dispatch");
        self.audit(record);
        Err(Refusal::new("not-permitted", "Only Dispatch may start an emergency broadcast."))
    }

    fn deny_emergency(&mut self, session: SessionId, cause: &'static str, detail: serde_json::Value) {
        let record = self.record(Action::EmergencyDenied, session).because(cause).with(detail);
        self.audit(record);
    }

    /// Takes every channel of the event (E4, E5). The hold has been judged.
    pub(super) fn start_emergency(&mut self, session: SessionId) -> Answer {
        if let Some(running) = &self.emergency {
            let holder = (running.user.clone(), self.name_of(&running.user));
            let message = format!("Emergency broadcast by Dispatch {}", holder.1);
            self.deny_emergency(session, "emergency", json!({ "broadcaster": holder.0.as_str() }));
            return Answer::Denied { holder: Some(holder), message }; // E7
        }
        if !self.sessions[&session].capture_works {
            self.deny_emergency(session, "no-capture", json!({}));
            return Answer::Denied { holder: None, message: "The microphone does not work.".into() }; // F10
        }
        if self.sessions[&session].disabled {
            self.deny_emergency(session, "disabled", json!({}));
            let message = "This desk is disabled. Have an administrator enable it.".to_owned();
            return Answer::Denied { holder: None, message }; // F14
        }
        let user = self.sessions[&session].user.clone();
        let name = self.name_of(&user);
        let channels: Vec<ChannelId> = self.channels.keys().cloned().collect();
        let joined: BTreeSet<_> = self.sessions[&session].joined.keys().cloned().collect();
        let temporary: BTreeSet<_> = channels.iter().filter(|c| !joined.contains(*c)).cloned().collect();
        let source = self.emergency_source(session, &user);
        let burst = self.next_burst();
        let interrupted: BTreeSet<_> = self
            .channels
            .values()
            .filter_map(|c| c.burst.as_ref())
            .map(|b| b.user.clone())
            .filter(|u| *u != user)
            .collect();
        let detail = json!({
            "channelCount": channels.len(),
            "temporaryJoinCount": temporary.len(),
            "interrupted": interrupted.iter().map(UserId::as_str).collect::<Vec<_>>(),
        });
        let record = self.record(Action::EmergencyStart, session).in_burst(burst).with(detail);
        self.audit(record);
        for channel in &channels {
            if self.channels[channel].burst.as_ref().is_some_and(|b| b.user == user) {
                self.finish_quietly(channel);
            } else {
                let message = format!("Emergency broadcast by Dispatch {name}");
                self.interrupt(channel, Interruption::Emergency, Some(&user), message);
            }
        }
        self.emergency = Some(Emergency {
            burst,
            user: user.clone(),
            session,
            since: self.now,
            source,
            last_media: self.now,
            temporary,
            failed: BTreeSet::new(),
            retry_at: None,
            warned: false,
            heard: BTreeMap::new(),
            receipt: Vec::new(),
            look_at: self.now + LOOK,
        });
        for channel in &channels {
            let since = self.now;
            self.take(
                channel,
                Burst {
                    id: burst,
                    user: user.clone(),
                    session,
                    since,
                    last_media: since,
                    warned: true,
                    limited_from: since,
                },
            );
            self.emit(Effect::OpenGate { channel: channel.clone(), burst, source });
            self.announce(channel, None);
            self.tell_emergency(channel, true, &user);
        }
        Answer::EmergencyStarted { channels, blocked_ports: self.blocked_ports() }
    }

    /// The broadcaster's own burst gives way to its broadcast.
    fn finish_quietly(&mut self, channel: &ChannelId) {
        if let Some(burst) = self.free(channel, false) {
            let record =
                self.record_of(Action::PttStop, &burst.user).on(channel).in_burst(burst.id).because("emergency");
            self.audit(record);
        }
    }

    /// E5: the producer of the session that asked, else one of the participant.
    fn emergency_source(&self, session: SessionId, user: &UserId) -> Option<SourceId> {
        let first_of = |id: &SessionId| {
            let s = self.sessions.get(id)?;
            s.local.or_else(|| {
                let joined = s.joined.iter().filter_map(|(c, rank)| Some((rank, s.sources.get(c)?))).min();
                joined.map(|(_, p)| *p).or_else(|| s.sources.values().next().copied())
            })
        };
        let talking = || {
            let burst = self.channels.values().filter_map(|c| c.burst.as_ref()).find(|b| b.user == *user)?;
            first_of(&burst.session)
        };
        first_of(&session).or_else(talking).or_else(|| self.users.get(user)?.sessions.iter().find_map(first_of))
    }

    fn tell_emergency(&mut self, channel: &ChannelId, start: bool, user: &UserId) {
        let name = self.name_of(user);
        let to = self.channels[channel].members.iter().copied().collect();
        let (user, channel) = (user.clone(), channel.clone());
        let push = if start {
            Push::EmergencyStarted { user, name, channel }
        } else {
            Push::EmergencyStopped { user, name, channel }
        };
        self.push(to, push);
    }

    /// E7: whoever joins in the middle hears of it too.
    pub(super) fn tell_late_joiner(&mut self, session: SessionId, channel: &ChannelId) {
        if let Some(e) = &self.emergency {
            let (user, channel) = (e.user.clone(), channel.clone());
            let push = Push::EmergencyStarted { name: self.name_of(&user), user, channel };
            self.push(vec![session], push);
        }
    }

    /// E5: a broadcast whose producer is gone, or was not there yet, goes on with another one of the participant, if any.
    pub(super) fn update_emergency_source(&mut self) {
        let Some(e) = &self.emergency else { return };
        let mut own = self.users[&e.user].sessions.iter().map(|id| &self.sessions[id]);
        if e.source.is_some_and(|p| own.any(|s| s.local == Some(p) || s.sources.values().any(|q| *q == p))) {
            return;
        }
        let (burst, source) = (e.burst, self.emergency_source(e.session, &e.user));
        if source == e.source {
            return;
        }
        self.emergency.as_mut().expect("checked above").source = source;
        for channel in self.channels.keys().cloned().collect::<Vec<_>>() {
            self.emit(Effect::OpenGate { channel, burst, source });
        }
    }

    pub(super) fn emergency_gate_failed(&mut self, channel: &ChannelId) {
        let retry_at = self.now + RETRY;
        let Some(e) = self.emergency.as_mut() else { return };
        e.failed.insert(channel.clone());
        e.retry_at = Some(retry_at);
        let session = e.session;
        let record = self.record(Action::EmergencyChannelFailed, session).on(channel);
        self.audit(record);
    }

    pub(super) fn stop_from_network(&mut self, session: SessionId, reply: ReplyId) {
        let running = self.emergency.as_ref().map(|e| (e.user.clone(), e.since));
        let own = running.filter(|(user, _)| self.sessions.get(&session).is_some_and(|s| s.user == *user));
        let answer = match own {
            Some((_, since)) => {
                let (channel_count, duration) = (self.channels.len(), self.now.since(since));
                self.end_emergency("released", None);
                Answer::EmergencyStopped { channel_count, duration }
            }
            None => Answer::EmergencyStopped { channel_count: 0, duration: Duration::ZERO }, // F8: changes nothing
        };
        if let Some(s) = self.sessions.get_mut(&session) {
            s.armed = None;
        }
        self.reply(reply, Ok(answer));
    }

    /// E8: every channel is idle afterwards; temporary joins are gone with the broadcast.
    pub(super) fn end_emergency(&mut self, cause: &'static str, except: Option<SessionId>) {
        let Some(e) = self.emergency.take() else { return };
        let detail = json!({
            "durationMs": millis(self.now.since(e.since)),
            "temporaryChannelsCleanedUp": e.temporary.len(),
            "channelCount": self.channels.len(),
        });
        let record = self.record_of(Action::EmergencyStop, &e.user).in_burst(e.burst).because(cause).with(detail);
        self.audit(record);
        let channels: Vec<_> = self.channels.keys().cloned().collect();
        for channel in &channels {
            self.free(channel, false);
            self.announce(channel, except);
            self.tell_emergency(channel, false, &e.user);
        }
        for channel in e.temporary {
            if let Some(s) = self.sessions.get_mut(&e.session) {
                s.sources.remove(&channel); // the SFU closes it with the leave
            }
            self.emit(Effect::Leave { session: e.session, channel });
        }
    }

    pub(super) fn emergency_due(&self) -> impl Iterator<Item = Mono> {
        self.emergency.iter().flat_map(|e| {
            let end = e.since + self.settings.tuning.emergency_max;
            let warning = (!e.warned).then(|| end - END_WARNING.min(self.settings.tuning.emergency_max));
            let silence = self.may_go_silent(e.session).then(|| e.last_media + MEDIA_TIMEOUT);
            [Some(end), warning, silence, e.retry_at, Some(e.look_at)].into_iter().flatten()
        })
    }

    pub(super) fn emergency_timeouts(&mut self) {
        let now = self.now;
        let Some(e) = &self.emergency else { return };
        let end = e.since + self.settings.tuning.emergency_max;
        if now >= end {
            return self.end_emergency("time-limit", None);
        }
        if self.may_go_silent(e.session) && now >= e.last_media + MEDIA_TIMEOUT {
            return self.end_emergency("no-media", None);
        }
        let session = e.session;
        if !e.warned && now + END_WARNING >= end {
            let channel = self.sessions[&session].joined.keys().next().cloned();
            if let Some(channel) = channel {
                self.push(vec![session], Push::TalkLimitWarning { channel, remaining: end.since(now) });
            }
            self.emergency.as_mut().expect("checked above").warned = true;
        }
        let e = self.emergency.as_mut().expect("checked above");
        if e.retry_at.is_some_and(|at| now >= at) {
            e.retry_at = None;
            let (burst, source) = (e.burst, e.source);
            for channel in std::mem::take(&mut e.failed) {
                self.emit(Effect::OpenGate { channel, burst, source });
            }
        }
        self.look_at_receipt();
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
