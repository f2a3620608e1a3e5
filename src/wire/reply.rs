//! What the gateway says: replies, errors and pushes.

use super::{WallClock, channel_producer_id};
use crate::base::{ChannelId, Role};
use crate::control::{Answer, ChannelState, PortState, Push, RadioState, Reach, Readiness, Receipt, Refusal};
use serde_json::{Value, json};
use std::time::Duration;

fn message(kind: &str, data: Value) -> String {
    json!({ "type": kind, "data": data }).to_string()
}

/// Adds the fields of `extra` to the object `base`.
fn with(mut base: Value, extra: Value) -> Value {
    if let (Value::Object(base), Value::Object(extra)) = (&mut base, extra) {
        base.extend(extra);
    }
    base
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// A channel's floor as the wire shows it.
pub(super) fn state(state: &ChannelState, clock: WallClock) -> Value {
    let holder = state.holder.as_ref();
    json!({
        "channelId": state.channel.as_str(),
        "currentSpeaker": holder.map(|h| h.user.as_str()),
        "speakerName": holder.map(|h| &h.name),
        "speakerRole": holder.map(|h| h.role.as_str()),
        "isBusy": holder.is_some(),
        "lockTimestamp": holder.map(|h| clock.unix_ms(h.since)),
        "burstId": holder.map(|h| h.burst.to_string()),
        "producerId": channel_producer_id(&state.channel),
    })
}

/// The states of channels, for pages that show them all.
#[must_use]
pub fn states(all: &[ChannelState], clock: WallClock) -> Vec<Value> {
    all.iter().map(|s| state(s, clock)).collect()
}

/// What a running broadcast reaches, channel by channel (E9).
#[must_use]
pub fn receipts(all: &[Receipt]) -> Vec<Value> {
    let one = |receipt: &Receipt| {
        json!({
            "channelId": receipt.channel.as_str(),
            "acquired": receipt.acquired,
            "mediaFlowing": receipt.media,
            "radios": radios(&receipt.radios),
        })
    };
    all.iter().map(one).collect()
}

/// Whether an emergency broadcast would work (E10).
#[must_use]
pub fn readiness(readiness: &Readiness) -> Value {
    let channel = |reach: &Reach| {
        json!({
            "channelId": reach.channel.as_str(),
            "reachable": reach.obstacles.is_empty(),
            "obstacles": reach.obstacles,
            "listeners": reach.listeners,
            "radios": radios(&reach.radios),
        })
    };
    json!({
        "summary": readiness.summary(),
        "desks": readiness.desks,
        "channels": readiness.channels.iter().map(channel).collect::<Vec<_>>(),
    })
}

/// What every radio port is doing.
#[must_use]
pub fn ports(all: &[PortState]) -> Vec<Value> {
    let one = |port: &PortState| {
        json!({
            "userId": port.user.as_str(),
            "name": port.name,
            "channelId": port.channel.as_str(),
            "receiver": port.receiver.as_str(),
            "transmitter": port.transmitter.as_str(),
        })
    };
    all.iter().map(one).collect()
}

fn radios(all: &[(String, RadioState)]) -> Vec<Value> {
    all.iter().map(|(name, state)| json!({ "name": name, "state": state.as_str() })).collect()
}

/// The reply to a request with `id`, whatever its type was.
fn success(id: &Value, data: Value) -> String {
    json!({ "type": "channel-state", "id": id, "data": data }).to_string()
}

/// A failure; without `id` it is a push that says what was wrong.
#[must_use]
pub fn error(id: Option<&Value>, refusal: &Refusal) -> String {
    let mut message = json!({ "type": "error", "error": refusal.message, "data": { "code": refusal.code } });
    if let Some(id) = id {
        message["id"] = id.clone();
    }
    message.to_string()
}

/// The reply to `ping`.
#[must_use]
pub fn pong(id: &Value) -> String {
    success(id, json!({ "type": "pong" }))
}

/// The reply to a media request.
#[must_use]
pub fn media_reply(id: &Value, data: Value) -> String {
    success(id, data)
}

/// The reply to a request that the core answered; `None` where nothing is to be said. `failed` are channels whose
/// gates did not open on the way (E4).
#[must_use]
pub fn reply(
    id: Option<&Value>,
    answer: &Result<Answer, Refusal>,
    failed: &[ChannelId],
    clock: WallClock,
) -> Option<String> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(refusal) => return Some(error(id, refusal)),
    };
    let data = match answer {
        Answer::Joined { state: s, user_count } => {
            let s = state(s, clock);
            json!({ "channelId": s["channelId"], "state": s, "channelState": s, "userCount": user_count })
        }
        Answer::Left { channel } => json!({ "channelId": channel.as_str(), "success": true }),
        Answer::Floor { state: s } => json!({ "success": true, "state": state(s, clock) }),
        Answer::Denied { holder, message } => json!({
            "success": false,
            "denied": true,
            "currentSpeaker": holder.as_ref().map(|h| h.0.as_str()),
            "currentSpeakerName": holder.as_ref().map(|h| &h.1),
            "message": message,
        }),
        Answer::EmergencyStarted { channels, blocked_ports } => json!({
            "success": true,
            "channelCount": channels.len(),
            "channelIds": channels.iter().map(|c| c.as_str()).collect::<Vec<_>>(),
            "failedChannelIds": failed.iter().map(ChannelId::as_str).collect::<Vec<_>>(),
            "blockedPorts": blocked_ports,
        }),
        Answer::EmergencyStopped { channel_count, duration } => {
            json!({ "success": true, "channelCount": channel_count, "durationMs": millis(*duration) })
        }
        Answer::Done => json!({ "success": true }),
    };
    id.map(|id| success(id, data))
}

/// A push as text; the same for every session it goes to.
#[must_use]
pub fn push(push: &Push, clock: WallClock) -> String {
    match push {
        Push::ChannelList { channels, role } => message(
            "channel-list",
            json!({
                "channels": channels.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(),
                "channelNames": channels.iter().map(|(id, name)| (id.to_string(), json!(name))).collect::<serde_json::Map<_, _>>(),
                "role": role.as_str(),
                "globalRole": if *role == Role::Admin { "ADMIN" } else { "USER" },
            }),
        ),
        Push::Session { session, resumed } => {
            message("session", json!({ "sessionId": session.to_string(), "resumed": states(resumed, clock) }))
        }
        Push::Member { state: s, action, user, name, user_count } => {
            let extra = json!({ "action": action, "userId": user.as_str(), "userName": name, "userCount": user_count });
            message("channel-state", with(state(s, clock), extra))
        }
        Push::SpeakerChanged { state: s } => message("speaker-changed", state(s, clock)),
        Push::Interrupted { channel, by, message: text, cause, burst } => message(
            "ptt-interrupted",
            json!({
                "channelId": channel.as_str(),
                "interruptedBy": by.as_ref().map(|b| &b.1),
                "interruptedById": by.as_ref().map(|b| b.0.as_str()),
                "message": text,
                "cause": cause.as_str(),
                "burstId": burst.to_string(),
            }),
        ),
        Push::PermissionUpdate { added, removed, channels } => {
            let ids = |list: &[ChannelId]| list.iter().map(|c| json!(c.as_str())).collect::<Vec<_>>();
            let data = json!({ "added": ids(added), "removed": ids(removed), "channels": ids(channels) });
            message("permission-update", data)
        }
        Push::TalkLimitWarning { channel, remaining } => {
            message("talk-limit-warning", json!({ "channelId": channel.as_str(), "remainingMs": millis(*remaining) }))
        }
        Push::EmergencyStarted { user, name, channel } | Push::EmergencyStopped { user, name, channel } => {
            let kind = if matches!(push, Push::EmergencyStarted { .. }) {
                "emergency-broadcast-start"
            } else {
                "emergency-broadcast-stop"
            };
            let data =
                json!({ "dispatchUserId": user.as_str(), "dispatchUserName": name, "channelId": channel.as_str() });
            message(kind, data)
        }
        Push::EmergencyReceipt { channels } => {
            message("emergency-broadcast-receipt", json!({ "channels": receipts(channels) }))
        }
        Push::ForceDisconnect { reason } => message("force-disconnect", json!({ "reason": reason })),
    }
}
