//! Text frames of a client, from the parser through the core to the answer's JSON.
//!
//! Each line is one frame. Whatever it says: no panic, each request of the core answered exactly once (F11), and what goes
//! out is JSON again.

#![no_main]

use crosspatch::base::{Mono, ReplyId, Role, SessionId, SourceId};
use crosspatch::control::{Claims, Control, Effect, Input};
use crosspatch::gateway::config::Config;
use crosspatch::wire::{self, Request, WallClock};
use serde_json::Value;
use std::time::Duration;

const CLOCK: WallClock = WallClock { unix_ms_at_zero: 1_700_000_000_000 };

libfuzzer_sys::fuzz_target!(|text: &str| {
    let mut control = Control::new(Config::demo().settings(&[SourceId(1), SourceId(2)]));
    let mut now = Mono::from_millis(1_000);
    for (session, role) in [(11, Role::General), (12, Role::Dispatch), (13, Role::Admin)] {
        let user = format!("u{session}");
        let claims =
            Claims { name: user.clone(), role, channels: ["ops", "medical", "security"].map(Into::into).into() };
        let open = Input::Open { session: SessionId(session), user: user.into(), claims };
        control.handle(open, now);
    }
    while control.next_effect().is_some() {}
    for (at, frame) in text.lines().enumerate() {
        let reply = ReplyId(at as u64 + 1);
        let envelope = wire::parse(frame, SessionId(11 + at as u64 % 3), reply);
        let id = envelope.id;
        let input = match envelope.request {
            Ok(Request::Core(input)) => *input,
            Ok(Request::Media { channel, .. }) => {
                Input::Media { session: SessionId(11 + at as u64 % 3), channel, reply }
            }
            Ok(Request::Ping) => {
                is_json(&wire::pong(&id.unwrap_or_default()));
                continue;
            }
            Err(refusal) => {
                is_json(&wire::error(id.as_ref(), &refusal));
                continue;
            }
        };
        control.handle(input, now);
        now = now + Duration::from_millis(300);
        control.handle_timeout(now);
        let mut answers = 0;
        while let Some(effect) = control.next_effect() {
            match effect {
                Effect::Reply { to, answer } => {
                    assert_eq!(to, reply, "an answer goes to its request");
                    answers += 1;
                    if let Some(text) = wire::reply(id.as_ref(), &answer, &[], CLOCK) {
                        is_json(&text);
                    }
                }
                // Answered when it has been done, or is on disk.
                Effect::AdmitMedia { reply: to } | Effect::Keep { reply: to, .. } => {
                    assert_eq!(to, reply, "an answer goes to its request");
                    answers += 1;
                }
                Effect::Push { push, .. } => is_json(&wire::push(&push, CLOCK)),
                Effect::Audit(_)
                | Effect::ShutGate { .. }
                | Effect::OpenGate { .. }
                | Effect::Leave { .. }
                | Effect::Close { .. }
                | Effect::Play { .. }
                | Effect::EndPlay { .. }
                | Effect::StopPlay { .. }
                | Effect::Sign { .. }
                | Effect::Tone { .. }
                | Effect::Line { .. } => {}
            }
        }
        assert_eq!(answers, 1, "F11: {frame}");
    }
});

fn is_json(text: &str) {
    serde_json::from_str::<Value>(text).expect("what goes out is JSON");
}
