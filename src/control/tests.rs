//! The rules of the floor and of the emergency broadcast, on injected time, with transcripts.

use super::*;
use crate::base::{ReplyId, SourceId};

pub(super) const DESK: SessionId = SessionId(1);
const PORT: SessionId = SessionId(2);
const GINA: SessionId = SessionId(11);
const GREG: SessionId = SessionId(12);
pub(super) const DANA: SessionId = SessionId(21);
pub(super) const DORA: SessionId = SessionId(22);
const ADA: SessionId = SessionId(31);

pub(super) fn button(line: &str) -> ButtonSpec {
    ButtonSpec { line: line.into(), opening: None }
}

pub(super) fn ptt(line: &str, channels: &[&str]) -> PttSpec {
    PttSpec { button: button(line), channels: channels.iter().map(|id| (*id).into()).collect(), select: Vec::new() }
}

pub(super) fn settings() -> Settings {
    let ids = ["ops", "medical", "security", "logistics"];
    Settings {
        channels: ids.iter().map(|id| ChannelSpec { id: (*id).into(), name: (*id).to_uppercase() }).collect(),
        desks: vec![DeskSpec {
            user: "desk-1".into(),
            name: "Desk 1".into(),
            role: Role::Dispatch,
            session: DESK,
            source: SourceId(101),
            ptt: ids[..3].iter().map(|id| ptt(&format!("desk.ptt.{id}"), &[id])).collect(),
            emergency: Some(button("desk.emergency")),
            tally: ids[..3].iter().map(|id| (format!("desk.tally.{id}").into(), vec![(*id).into()])).collect(),
            emergency_tally: Some("desk.tally.emergency".into()),
            fault_tally: None,
            buzzer: None,
            stuck_alarm: Duration::from_secs(120),
            latch: false,
        }],
        ports: vec![PortSpec {
            user: "radio-vhf".into(),
            name: "VHF 1".into(),
            channel: "security".into(),
            session: PORT,
            source: SourceId(102),
            carrier: Some("radio.vhf.carrier".into()),
            ptt: Some("radio.vhf.ptt".into()),
            attack: Duration::from_millis(20),
            release: Duration::from_millis(20),
            lead_in: Duration::from_millis(200),
            ptt_hang: Duration::from_millis(100),
            inhibit: Duration::from_millis(200),
            flap: Duration::ZERO,
            linger: Duration::ZERO,
            carrier_timeout: Duration::from_secs(120),
            transmit_timeout: Duration::from_secs(120),
            courtesy_tone: false,
            ident_interval: None,
            radio_first: true,
            radio_first_in_emergency: false,
        }],
        tuning: Tuning::default(),
        misconfigured: false,
    }
}

/// The core with its clock; says what happened in one line an effect.
pub(super) struct World {
    pub control: Control,
    pub now: Mono,
    last_reply: u64,
}

impl World {
    /// Everybody is there: Gina, Greg (General), Dana, Dora (Dispatch), Ada (Admin), each in `ops`.
    pub fn new() -> Self {
        Self::with(settings())
    }

    pub fn with(settings: Settings) -> Self {
        let mut world = World { control: Control::new(settings), now: Mono::from_millis(10_000), last_reply: 0 };
        for session in [DESK, PORT] {
            world.tell(Input::Capture { session, works: true });
            world.tell(Input::Playback { session, works: true });
        }
        for (session, name, role) in [
            (GINA, "Gina", Role::General),
            (GREG, "Greg", Role::General),
            (DANA, "Dana", Role::Dispatch),
            (DORA, "Dora", Role::Dispatch),
            (ADA, "Ada", Role::Admin),
        ] {
            world.open(session, name, role);
            world.join(session, "ops");
        }
        world
    }

    fn open(&mut self, session: SessionId, name: &str, role: Role) {
        let channels = ["ops", "medical", "security", "logistics"].map(ChannelId::from).into();
        let user = name.to_lowercase().as_str().into();
        self.tell(Input::Open { session, user, claims: Claims { name: name.into(), role, channels } });
    }

    fn join(&mut self, session: SessionId, channel: &str) -> Vec<String> {
        let lines = self.ask(|reply| Input::Join { session, channel: channel.into(), reply });
        let source = SourceId(session.0 * 10 + channel.len() as u64);
        self.tell(Input::SourceOpened { session, channel: channel.into(), source });
        lines
    }

    pub fn tell(&mut self, input: Input) -> Vec<String> {
        self.control.handle(input, self.now);
        self.drain()
    }

    pub fn ask(&mut self, input: impl FnOnce(ReplyId) -> Input) -> Vec<String> {
        self.last_reply += 1;
        let lines = self.tell(input(ReplyId(self.last_reply)));
        let replies = lines.iter().filter(|l| l.starts_with("reply") || l.starts_with("refuse")).count();
        assert_eq!(replies, 1, "F11: exactly one reply: {lines:#?}");
        lines
    }

    pub fn press(&mut self, session: SessionId, channel: &str, priority: bool) -> Vec<String> {
        self.ask(|reply| Input::Request { session, channel: channel.into(), priority, reply })
    }

    pub fn release(&mut self, session: SessionId, channel: &str, burst: Option<u64>) -> Vec<String> {
        self.ask(|reply| Input::Release { session, channel: channel.into(), burst: burst.map(BurstId), reply })
    }

    pub fn edge(&mut self, line: &str, active: bool) -> Vec<String> {
        self.tell(Input::Edge { line: line.into(), active, stamp: self.now })
    }

    /// Lets time pass, with every deadline on its way.
    pub fn pass(&mut self, ms: u64) -> Vec<String> {
        let end = self.now + Duration::from_millis(ms);
        let mut lines = Vec::new();
        while let Some(due) = self.control.next_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.control.handle_timeout(self.now);
            lines.extend(self.drain());
        }
        self.now = end;
        lines
    }

    fn drain(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.control.next_effect()).map(|e| line(&e)).collect()
    }

    pub fn holder(&self, channel: &str) -> Option<String> {
        let states = self.control.states();
        states.into_iter().find(|s| s.channel.as_str() == channel).and_then(|s| s.holder).map(|h| h.name)
    }
}

/// An effect as a line of a transcript.
fn line(effect: &Effect) -> String {
    let sessions = |to: &[SessionId]| to.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    match effect {
        Effect::Audit(r) => {
            let mut line = format!("audit {}", r.action.as_str());
            for part in [
                r.actor.as_ref().map(ToString::to_string),
                r.channel.as_ref().map(ToString::to_string),
                r.cause.map(str::to_owned),
            ] {
                line += &part.map_or_else(String::new, |p| format!(" {p}"));
            }
            line
        }
        Effect::ShutGate { channel, burst, cut } => format!("shut {channel} {burst}{}", if *cut { " cut" } else { "" }),
        Effect::OpenGate { channel, burst, source } => {
            format!("open {channel} {burst} {}", source.map_or_else(|| "-".into(), |s| s.to_string()))
        }
        Effect::Reply { answer: Err(r), .. } => format!("refuse {}", r.code),
        Effect::Reply { answer: Ok(a), .. } => match a {
            Answer::Joined { state, .. } | Answer::Floor { state } => {
                format!("reply {}", state.holder.as_ref().map_or("idle", |h| h.name.as_str()))
            }
            Answer::Denied { message, .. } => format!("reply denied: {message}"),
            Answer::EmergencyStarted { channels, .. } => format!("reply emergency on {}", channels.len()),
            Answer::EmergencyStopped { channel_count, .. } => format!("reply emergency over on {channel_count}"),
            Answer::Left { .. } | Answer::Done => "reply done".into(),
        },
        Effect::Push { to, push } => match push {
            Push::Session { resumed, .. } => {
                let one =
                    |s: &ChannelState| format!(" {}:{}", s.channel, s.holder.as_ref().map_or("idle", |h| &h.name));
                format!("push {} session{}", sessions(to), resumed.iter().map(one).collect::<String>())
            }
            Push::ChannelList { .. } => format!("push {} channel-list", sessions(to)),
            Push::Member { action, .. } => format!("push {} {action}", sessions(to)),
            Push::SpeakerChanged { state } => {
                let holder = state.holder.as_ref().map_or("idle", |h| h.name.as_str());
                format!("push {} speaker {} {holder}", sessions(to), state.channel)
            }
            Push::Interrupted { message, cause, .. } => {
                format!("push {} interrupted {}: {message}", sessions(to), cause.as_str())
            }
            Push::PermissionUpdate { added, removed, .. } => {
                let names = |ids: &[ChannelId]| ids.iter().map(ChannelId::as_str).collect::<Vec<_>>().join(",");
                format!("push {} permissions +{} -{}", sessions(to), names(added), names(removed))
            }
            Push::TalkLimitWarning { remaining, .. } => format!("push {} warning {remaining:?}", sessions(to)),
            Push::EmergencyStarted { channel, .. } => format!("push {} emergency on {channel}", sessions(to)),
            Push::EmergencyStopped { channel, .. } => format!("push {} emergency over on {channel}", sessions(to)),
            Push::EmergencyReceipt { channels } => {
                let one = |r: &Receipt| {
                    let radios = r.radios.iter().map(|(_, state)| format!(" {}", state.as_str())).collect::<String>();
                    let (taken, media) =
                        (if r.acquired { "taken" } else { "not taken" }, if r.media { " media" } else { "" });
                    format!("{} {taken}{media}{radios}", r.channel)
                };
                format!("push {} receipt {}", sessions(to), channels.iter().map(one).collect::<Vec<_>>().join("; "))
            }
            Push::ForceDisconnect { .. } => format!("push {} force-disconnect", sessions(to)),
        },
        Effect::AdmitMedia { .. } => "admit media".into(),
        Effect::Keep { keep, .. } => match keep {
            Keep::Ban { user, .. } => format!("reply when kept: ban {user}"),
            Keep::Unban { user } => format!("reply when kept: unban {user}"),
            Keep::Disable { user } => format!("reply when kept: disable {user}"),
        },
        Effect::Leave { session, channel } => format!("leave {session} {channel}"),
        Effect::Close { session, .. } => format!("close {session}"),
        Effect::Play { from, .. } => format!("play from {from:?}"),
        Effect::EndPlay { .. } => "end play".into(),
        Effect::StopPlay { .. } => "stop play".into(),
        Effect::Sign { courtesy, ident, .. } => {
            format!("sign{}{}", if *courtesy { " tone" } else { "" }, if *ident { " ident" } else { "" })
        }
        Effect::Tone { session, sounds } => format!("tone {session} {}", if *sounds { "on" } else { "off" }),
        Effect::Line { line, active, .. } => format!("line {line} {}", if *active { "on" } else { "off" }),
    }
}

pub(super) fn has(lines: &[String], part: &str) -> bool {
    lines.iter().any(|l| l.contains(part))
}

#[test]
fn f2_an_idle_channel_is_granted_and_everybody_else_is_told() {
    let mut w = World::new();
    let lines = w.press(GINA, "ops", false);
    assert_eq!(
        lines,
        [
            "audit ptt.start gina ops",
            "open ops b1 p113",
            "reply Gina",
            "push s12,s21,s22,s31 speaker ops Gina",
            "line desk.tally.ops on"
        ]
    );
    assert_eq!(w.press(GINA, "ops", false), ["reply Gina"], "asking again is the same burst, announced to nobody");
    assert_eq!(
        w.press(GINA, "medical", false),
        ["audit permission.denied gina medical not-member", "refuse not-member"]
    );
    assert_eq!(w.press(GINA, "nowhere", false), ["refuse unknown-channel"]);
}

#[test]
fn f3_a_dispatcher_cuts_in_and_the_effects_come_in_their_order() {
    let mut w = World::new();
    w.press(GINA, "ops", false);
    let lines = w.press(DANA, "ops", true);
    assert_eq!(
        lines,
        [
            "audit priority_ptt.interrupted gina ops preempted",
            "audit priority_ptt.start dana ops",
            "shut ops b1 cut",
            "push s11 interrupted preempted: Dispatch Dana has priority",
            "open ops b2 p213",
            "reply Dana",
            "push s11,s12,s22,s31 speaker ops Dana"
        ]
    );
}

#[test]
fn f4_to_f6_equals_plain_requests_and_management_do_not_interrupt() {
    let mut w = World::new();
    w.press(GINA, "ops", false);
    assert_eq!(w.press(DANA, "ops", false), ["audit ptt.denied dana ops busy", "reply denied: Gina is talking"]);
    assert_eq!(w.press(ADA, "ops", true), ["audit permission.denied ada ops no-priority", "refuse no-priority"]);
    assert_eq!(w.press(GREG, "ops", true), ["audit permission.denied greg ops no-priority", "refuse no-priority"]);
    w.press(DANA, "ops", true);
    assert_eq!(w.press(DORA, "ops", true), ["audit ptt.denied dora ops busy", "reply denied: Dana is talking"]);
    assert_eq!(w.holder("ops").unwrap(), "Dana");
}

#[test]
fn f7_an_interrupted_radio_counts_for_nothing_until_its_carrier_has_dropped() {
    let mut w = World::new();
    w.join(DANA, "security");
    w.edge("radio.vhf.carrier", true);
    assert!(has(&w.pass(30), "audit ptt.start radio-vhf security"));
    w.press(DANA, "security", true);
    w.release(DANA, "security", None);
    w.pass(5_000);
    assert_eq!(w.holder("security"), None, "the carrier is still open, and counts for nothing");
    w.edge("radio.vhf.carrier", false);
    w.pass(1_000);
    w.edge("radio.vhf.carrier", true);
    w.pass(30);
    assert_eq!(w.holder("security").unwrap(), "VHF 1");
}

#[test]
fn f8_a_stale_release_changes_nothing_and_still_gets_its_reply() {
    let mut w = World::new();
    w.press(GINA, "ops", false);
    assert_eq!(w.release(GREG, "ops", None), ["reply Gina"]);
    assert_eq!(w.release(GINA, "ops", Some(77)), ["reply Gina"]);
    assert!(has(&w.release(GINA, "ops", Some(1)), "push s12,s21,s22,s31 speaker ops idle"));
}

#[test]
fn f9_the_limit_warns_cuts_and_locks_out() {
    let mut w = World::new();
    w.press(GINA, "ops", false);
    let mut lines = Vec::new();
    for _ in 0..60 {
        w.control.handle(Input::Heard { burst: BurstId(1), channel: "ops".into(), at: w.now }, w.now);
        lines.extend(w.pass(1_000));
    }
    assert!(has(&lines, "push s11 warning 10s"), "{lines:#?}");
    assert!(has(&lines, "shut ops b1 cut") && has(&lines, "interrupted talk-limit"), "{lines:#?}");
    assert!(has(&w.press(GINA, "ops", false), "reply denied: Talk limit reached"));
    w.pass(1_000);
    assert!(has(&w.press(GINA, "ops", false), "reply Gina"));
}

#[test]
fn f10_a_holder_that_sends_nothing_for_4_s_loses_the_floor() {
    let mut w = World::new();
    w.press(GINA, "ops", false);
    assert!(w.pass(3_999).is_empty());
    let lines = w.pass(1);
    assert!(has(&lines, "audit ptt.revoked gina ops no-media") && has(&lines, "shut ops b1 cut"), "{lines:#?}");
}

#[test]
fn f12_who_joins_late_is_told_who_talks() {
    let mut w = World::new();
    w.press(GINA, "ops", false);
    w.open(SessionId(40), "Late", Role::General);
    assert!(has(&w.join(SessionId(40), "ops"), "reply Gina"));
}

#[test]
fn f13_every_socket_of_an_interrupted_user_hears_of_it() {
    let mut w = World::new();
    w.open(SessionId(13), "Gina", Role::General);
    w.press(GINA, "ops", false);
    assert!(has(&w.press(DANA, "ops", true), "push s11,s13 interrupted"));
}

#[test]
fn a_session_that_comes_back_gets_its_memberships_in_their_order_and_never_the_floor() {
    let mut w = World::new();
    let again = SessionId(41);
    w.join(GINA, "medical");
    w.press(GINA, "ops", false);
    w.tell(Input::Close { session: GINA, cause: "connection-lost" });
    w.pass(29_000);
    w.open(again, "Gina", Role::General);
    let lines = w.tell(Input::Resume { session: again, lost: Some(GINA) });
    assert!(has(&lines, "push s41 session ops:idle medical:idle"), "{lines:#?}");
    assert!(has(&lines, "push s12,s21,s22,s31 user-joined"), "{lines:#?}");
    assert!(w.control.join_rank(again, &"ops".into()) < w.control.join_rank(again, &"medical".into()), "E6");
    assert_eq!(w.holder("ops"), None);
    // Once only, and only by the same user.
    let lines = w.tell(Input::Resume { session: GREG, lost: Some(GINA) });
    assert_eq!(lines, ["push s12 session"]);
}

#[test]
fn memberships_wait_for_30_s_and_for_their_own_user() {
    let mut w = World::new();
    w.tell(Input::Close { session: GINA, cause: "connection-lost" });
    assert_eq!(w.tell(Input::Resume { session: GREG, lost: Some(GINA) }), ["push s12 session"]);
    w.pass(30_000);
    w.open(SessionId(41), "Gina", Role::General);
    assert_eq!(w.tell(Input::Resume { session: SessionId(41), lost: Some(GINA) }), ["push s41 session"]);
}

#[test]
fn a_session_that_comes_back_before_its_loss_was_noticed_takes_the_place_of_the_old_one() {
    let mut w = World::new();
    w.press(GINA, "ops", false);
    w.open(SessionId(41), "Gina", Role::General);
    let lines = w.tell(Input::Resume { session: SessionId(41), lost: Some(GINA) });
    assert!(has(&lines, "audit ptt.stop gina ops user-disconnected"), "{lines:#?}");
    assert!(has(&lines, "push s41 session ops:idle"), "{lines:#?}");
    assert!(has(&lines, "close s11"), "{lines:#?}");
    assert_eq!(w.holder("ops"), None);
    // Nobody continues somebody else's session.
    let lines = w.tell(Input::Resume { session: SessionId(41), lost: Some(GREG) });
    assert_eq!(lines, ["push s41 session"]);
}

#[test]
fn f15_what_a_user_does_on_another_socket_does_not_touch_its_burst() {
    let mut w = World::new();
    w.open(SessionId(13), "Gina", Role::General);
    w.join(SessionId(13), "ops");
    w.press(GINA, "ops", false);
    w.release(SessionId(13), "ops", None);
    w.tell(Input::Close { session: SessionId(13), cause: "closed" });
    assert_eq!(w.holder("ops").unwrap(), "Gina");
    let lines = w.tell(Input::Close { session: GINA, cause: "closed" });
    assert!(has(&lines, "shut ops b1") && has(&lines, "speaker ops idle"), "{lines:#?}");
}

#[test]
fn f16_one_button_asks_every_channel_on_its_own() {
    let mut settings = settings();
    settings.desks[0].ptt = vec![ptt("desk.ptt.all", &["ops", "medical"])];
    let mut w = World::new();
    w.control = Control::new(settings);
    w.tell(Input::Capture { session: DESK, works: true });
    w.open(DANA, "Dana", Role::Dispatch);
    w.join(DANA, "ops");
    w.press(DANA, "ops", true);
    let lines = w.edge("desk.ptt.all", true);
    assert!(has(&lines, "audit ptt.denied desk-1 ops busy") && has(&lines, "open medical"), "{lines:#?}");
    w.edge("desk.ptt.all", false);
    assert_eq!((w.holder("ops").unwrap().as_str(), w.holder("medical")), ("Dana", None));
}

#[test]
fn a_desk_without_a_microphone_is_denied_at_once() {
    let mut w = World::new();
    w.tell(Input::Capture { session: DESK, works: false });
    assert!(has(&w.edge("desk.ptt.ops", true), "audit ptt.denied desk-1 ops no-capture"));
}

#[test]
fn e1_only_dispatch_starts_an_emergency() {
    let mut w = World::new();
    for session in [GINA, ADA] {
        let lines = w.ask(|reply| Input::StartEmergency { session, hold_ms: 2500.0, reply });
        assert!(has(&lines, "permission.denied") && has(&lines, "refuse not-permitted"), "{lines:#?}");
    }
}

#[test]
fn e2_a_network_press_is_judged_by_the_clients_hold_and_by_our_clock() {
    let mut w = World::new();
    let start = |w: &mut World, hold_ms| w.ask(|reply| Input::StartEmergency { session: DANA, hold_ms, reply });
    assert!(has(&start(&mut w, 1999.0), "refuse hold-too-short"));
    w.ask(|reply| Input::Arm { session: DANA, pressed: true, reply });
    w.pass(1_000);
    assert!(has(&start(&mut w, 2000.0), "refuse hold-too-short"), "the gateway saw the press only a second ago");
    w.pass(800);
    assert!(has(&start(&mut w, 2000.0), "reply emergency on 4"), "200 ms for the network");
}

#[test]
fn e2_the_button_fires_after_2000_ms_and_aborts_at_1999() {
    let mut w = World::new();
    w.edge("desk.emergency", true);
    let progress = w.pass(1_999);
    for shown in ["line desk.tally.emergency off", "line desk.tally.emergency on", "tone s1 off", "tone s1 on"] {
        assert!(has(&progress, shown), "E3: the lamp and the tone show progress: {progress:#?}");
    }
    let lines = w.edge("desk.emergency", false);
    assert!(has(&lines, "audit emergency_broadcast.aborted desk-1"), "{lines:#?}");
    assert_eq!(w.control.emergency(), None);
    w.edge("desk.emergency", true);
    let lines = w.pass(2_000);
    assert!(has(&lines, "audit emergency_broadcast.start desk-1"), "{lines:#?}");
    let lines = w.edge("desk.emergency", false);
    assert!(has(&lines, "audit emergency_broadcast.stop desk-1 released"), "{lines:#?}");
}

#[test]
fn e1_the_button_of_a_desk_that_is_not_dispatch_starts_nothing() {
    let mut settings = settings();
    settings.desks[0].role = Role::General;
    let mut w = World::with(settings);
    w.edge("desk.emergency", true);
    let lines = w.pass(2_000);
    assert!(has(&lines, "audit permission.denied desk-1 not-dispatch"), "{lines:#?}");
    assert_eq!(w.control.emergency(), None);
}

#[test]
fn e3_a_button_active_at_start_is_a_fault_and_never_fires() {
    let mut w = World::new();
    assert!(has(&w.tell(Input::ActiveAtStart { line: "desk.emergency".into() }), "audit gpio.fault"));
    w.pass(10_000);
    assert_eq!(w.control.emergency(), None);
    w.edge("desk.emergency", false);
    w.edge("desk.emergency", true);
    w.pass(2_000);
    assert!(w.control.emergency().is_some());
}

#[test]
fn e4_an_emergency_takes_every_channel_also_from_dispatch_and_shuts_before_it_opens() {
    let mut w = World::new();
    w.join(DORA, "medical");
    w.press(GINA, "ops", false);
    w.press(DORA, "medical", true);
    let lines = w.ask(|reply| Input::StartEmergency { session: DANA, hold_ms: 2000.0, reply });
    let place =
        |part: &str| lines.iter().position(|l| l.contains(part)).unwrap_or_else(|| panic!("{part}: {lines:#?}"));
    assert!(place("shut ops b1 cut") < place("push s11 interrupted emergency: Emergency broadcast by Dispatch Dana"));
    assert!(place("push s22 interrupted emergency") < place("open logistics b3 p213"));
    for channel in ["ops", "medical", "security", "logistics"] {
        assert!(has(&lines, &format!("open {channel} b3 p213")), "one source for all: {lines:#?}");
        assert_eq!(w.holder(channel).unwrap(), "Dana");
    }
    assert!(has(&w.press(GINA, "ops", false), "reply denied: Emergency broadcast by Dispatch Dana"), "E7");
    let second = w.ask(|reply| Input::StartEmergency { session: DORA, hold_ms: 2000.0, reply });
    assert!(has(&second, "reply denied: Emergency broadcast by Dispatch Dana"), "E7: {second:#?}");
}

#[test]
fn e5_temporary_joins_are_left_again_and_permanent_ones_are_kept() {
    let mut w = World::new();
    w.ask(|reply| Input::StartEmergency { session: DANA, hold_ms: 2000.0, reply });
    w.join(DANA, "medical"); // becomes permanent
    let lines = w.ask(|reply| Input::StopEmergency { session: DANA, reply });
    assert!(has(&lines, "leave s21 security") && has(&lines, "leave s21 logistics"), "{lines:#?}");
    assert!(!has(&lines, "leave s21 ops") && !has(&lines, "leave s21 medical"), "{lines:#?}");
    assert!(has(&w.press(DANA, "medical", false), "reply Dana"));
    assert!(has(&w.press(DANA, "security", false), "refuse not-member"));
}

#[test]
fn e4_a_channel_that_fails_is_reported_and_tried_again() {
    let mut w = World::new();
    w.ask(|reply| Input::StartEmergency { session: DANA, hold_ms: 2000.0, reply });
    let lines = w.tell(Input::GateFailed { channel: "medical".into(), burst: BurstId(1) });
    assert!(has(&lines, "audit emergency_broadcast.channel_failed dana medical"), "{lines:#?}");
    assert!(has(&w.pass(1_000), "open medical b1"));
}

#[test]
fn e8_the_carrying_session_closing_ends_it_though_another_socket_stays() {
    let mut w = World::new();
    w.open(SessionId(23), "Dana", Role::Dispatch);
    w.join(SessionId(23), "ops");
    w.ask(|reply| Input::StartEmergency { session: DANA, hold_ms: 2000.0, reply });
    w.tell(Input::Close { session: SessionId(23), cause: "closed" });
    assert!(w.control.emergency().is_some(), "the other socket does not carry it");
    let lines = w.tell(Input::Close { session: DANA, cause: "closed" });
    assert!(has(&lines, "audit emergency_broadcast.stop dana session-closed"), "{lines:#?}");
    for channel in ["ops", "medical", "security", "logistics"] {
        assert_eq!(w.holder(channel), None);
    }
}

#[test]
fn e8_silence_and_the_time_limit_end_it() {
    let mut settings = settings();
    settings.desks[0].stuck_alarm = Duration::from_secs(600);
    let mut w = World::with(settings);
    w.ask(|reply| Input::StartEmergency { session: DANA, hold_ms: 2000.0, reply });
    assert!(has(&w.pass(4_000), "emergency_broadcast.stop dana no-media"));
    w.edge("desk.emergency", true);
    w.pass(2_000);
    let lines = w.pass(300_000);
    assert!(has(&lines, "emergency_broadcast.stop desk-1 time-limit"), "{lines:#?}");
}

/// Packets of the broadcast pass on every channel, as often as they do.
fn talk_for(w: &mut World, ms: u64, burst: u64) -> Vec<String> {
    let mut lines = Vec::new();
    for _ in 0..ms / 20 {
        for channel in ["ops", "medical", "security", "logistics"] {
            lines.extend(w.tell(Input::Heard { burst: BurstId(burst), channel: channel.into(), at: w.now }));
        }
        lines.extend(w.pass(20));
    }
    lines
}

#[test]
fn e9_a_radio_that_receives_is_reported_as_blocked_and_keyed_when_its_carrier_ends() {
    let mut settings = settings();
    settings.ports[0].radio_first_in_emergency = true;
    let mut w = World::with(settings);
    w.edge("radio.vhf.carrier", true);
    w.pass(100);
    assert_eq!(w.holder("security").unwrap(), "VHF 1");
    assert_eq!(w.control.readiness().summary(), "4 of 4 channels reachable, 1 radio blocked", "E10");
    let lines = w.ask(|reply| Input::StartEmergency { session: DANA, hold_ms: 2000.0, reply });
    assert!(has(&lines, "shut security b1 cut"), "{lines:#?}");
    assert!(!has(&lines, "radio.keyed"), "{lines:#?}");
    let lines = talk_for(&mut w, 200, 2);
    assert!(
        has(
            &lines,
            "push s21 receipt logistics taken media; medical taken media; ops taken media; security taken media blocked"
        ),
        "{lines:#?}"
    );
    w.edge("radio.vhf.carrier", false);
    let lines = w.pass(50);
    assert!(has(&lines, "audit radio.keyed radio-vhf security"), "within 50 ms of the carrier's end: {lines:#?}");
    let lines = talk_for(&mut w, 200, 2);
    assert!(has(&lines, "security taken media keyed"), "{lines:#?}");
    let lines = w.ask(|reply| Input::StopEmergency { session: DANA, reply });
    assert!(!has(&lines, "receipt"), "{lines:#?}");
}

#[test]
fn e9_the_broadcaster_is_told_when_media_stops_and_when_a_channel_is_not_taken() {
    let mut w = World::new();
    w.ask(|reply| Input::StartEmergency { session: DANA, hold_ms: 2000.0, reply });
    w.tell(Input::GateFailed { channel: "medical".into(), burst: BurstId(1) });
    let lines = w.pass(100);
    let first = "push s21 receipt logistics taken; medical not taken; ops taken; security taken keyed";
    assert!(has(&lines, first), "nothing has been heard yet: {lines:#?}");
    assert!(has(&talk_for(&mut w, 200, 1), "ops taken media"), "heard");
    let lines = w.pass(1_500);
    assert!(has(&lines, "medical taken"), "E4: the retry opened it: {lines:#?}");
    assert!(has(&lines, "ops taken;"), "and silence is told: {lines:#?}");
}

#[test]
fn e10_readiness_says_what_an_emergency_would_not_reach_before_anybody_needs_it() {
    let mut w = World::new();
    assert_eq!(w.control.readiness().summary(), "4 of 4 channels reachable");
    assert_eq!(w.control.readiness().desks, Vec::<String>::new());
    w.tell(Input::Playback { session: PORT, works: false });
    w.tell(Input::Capture { session: DESK, works: false });
    w.tell(Input::ActiveAtStart { line: "desk.emergency".into() });
    let readiness = w.control.readiness();
    assert_eq!(readiness.summary(), "3 of 4 channels reachable");
    let security = readiness.channels.iter().find(|c| c.channel.as_str() == "security").unwrap();
    assert_eq!(security.obstacles, ["VHF 1 cannot transmit: its sound device does not work"]);
    assert_eq!(security.listeners, 1, "the desk");
    assert_eq!(
        readiness.desks,
        [
            "Desk 1: the microphone does not work",
            "Desk 1: the emergency button (desk.emergency) was pressed at start; let go of it, or look at its wiring"
        ]
    );
    w.tell(Input::Playback { session: PORT, works: true });
    w.tell(Input::Capture { session: DESK, works: true });
    w.edge("desk.emergency", false);
    assert_eq!(w.control.readiness().summary(), "4 of 4 channels reachable");
    assert_eq!(w.control.readiness().desks, Vec::<String>::new());
}

#[test]
fn e8_a_forced_disconnect_of_the_broadcaster_ends_it() {
    let mut w = World::new();
    w.ask(|reply| Input::StartEmergency { session: DANA, hold_ms: 2000.0, reply });
    let lines =
        w.ask(|reply| Input::ForceDisconnect { session: ADA, target: "dana".into(), reason: "test".into(), reply });
    assert!(has(&lines, "emergency_broadcast.stop dana force-disconnect") && has(&lines, "close s21"), "{lines:#?}");
}

#[test]
fn a_transmitter_is_keyed_before_the_audio_and_unkeyed_after_the_hang() {
    let mut w = World::new();
    w.join(GINA, "security");
    let lines = w.press(GINA, "security", false);
    assert!(has(&lines, "line radio.vhf.ptt on") && has(&lines, "play from 10200.000ms"), "{lines:#?}");
    w.pass(1_000);
    let lines = w.release(GINA, "security", None);
    assert!(has(&lines, "end play") && !has(&lines, "radio.vhf.ptt off"), "{lines:#?}");
    w.pass(50);
    w.tell(Input::Drained { session: PORT, at: w.now });
    assert!(!has(&w.pass(99), "radio.vhf.ptt off"));
    assert!(has(&w.pass(1), "line radio.vhf.ptt off"));
}

#[test]
fn a_simplex_radio_is_not_keyed_while_it_receives_and_ignores_its_own_carrier() {
    let mut w = World::new();
    w.join(DANA, "security");
    w.edge("radio.vhf.carrier", true);
    w.pass(30);
    assert!(!has(&w.press(DANA, "security", true), "radio.vhf.ptt on"), "pre-empted, radio still keyed");
    w.edge("radio.vhf.carrier", false);
    assert!(has(&w.pass(30), "line radio.vhf.ptt on"));
    w.edge("radio.vhf.carrier", true);
    assert!(!has(&w.pass(30), "radio.carrier_open"), "its own carrier");
}

fn channel_specs(ids: &[&str]) -> Vec<ChannelSpec> {
    ids.iter().map(|id| ChannelSpec { id: (*id).into(), name: (*id).to_uppercase() }).collect()
}

fn boss() -> Option<Actor> {
    Some(Actor { user: "boss".into(), name: "Boss".into(), role: Role::Admin })
}

impl World {
    fn set_channels(&mut self, ids: &[&str]) -> Vec<String> {
        self.tell(Input::Channels { channels: channel_specs(ids), by: boss() })
    }

    /// The store's word on one person, and on nobody else.
    fn set_person(&mut self, user: &str, role: Role, channels: &[&str]) -> Vec<String> {
        let channels = channels.iter().map(|c| ChannelId::from(*c)).collect();
        let claims = Claims { name: user.to_uppercase(), role, channels };
        self.tell(Input::People { people: [(user.into(), claims)].into(), by: boss() })
    }
}

const ALL: [&str; 4] = ["ops", "medical", "security", "logistics"];

#[test]
fn f14_a_permission_lost_while_talking_is_taken_when_the_burst_has_ended() {
    let mut w = World::new();
    w.open(SessionId(13), "Gina", Role::General); // a second socket of the same user
    w.join(SessionId(13), "ops");
    w.press(GINA, "ops", false);
    let lines = w.set_person("gina", Role::General, &["medical", "security", "logistics"]);
    assert_eq!(
        lines,
        ["audit person.create boss", "audit permission.revocation_deferred boss ops"],
        "she talks on, and nobody is told of anything yet"
    );
    assert_eq!(w.holder("ops").unwrap(), "GINA");
    let lines = w.release(GINA, "ops", None);
    for part in [
        "audit permission.revoked ops burst-ended",
        "leave s11 ops",
        "leave s13 ops",
        "push s11 permissions + -ops",
        "push s13 permissions + -ops",
    ] {
        assert!(has(&lines, part), "{part}: {lines:#?}");
    }
    assert!(has(&w.press(GINA, "ops", false), "refuse not-member"));
    assert!(has(&w.join(GINA, "ops"), "refuse not-permitted"));
}

#[test]
fn f14_a_permission_lost_in_silence_is_taken_at_once_and_one_that_comes_back_in_time_is_kept() {
    let mut w = World::new();
    let lines = w.set_person("greg", Role::General, &["medical"]);
    for part in ["audit permission.revoked boss ops", "leave s12 ops", "push s12 permissions + -ops,security,logistics"]
    {
        assert!(has(&lines, part), "{part}: {lines:#?}");
    }
    w.press(GINA, "ops", false);
    w.set_person("gina", Role::General, &[]);
    let lines = w.set_person("gina", Role::General, &ALL);
    assert!(has(&lines, "audit permission.granted boss ops"), "{lines:#?}");
    w.release(GINA, "ops", None);
    assert!(has(&w.press(GINA, "ops", false), "reply GINA"), "she was never out");
}

#[test]
fn the_stores_word_goes_before_the_token_and_without_it_the_token_holds() {
    let mut w = World::new();
    assert!(has(&w.press(GREG, "ops", true), "refuse no-priority"));
    let lines = w.set_person("greg", Role::Dispatch, &ALL);
    assert!(has(&lines, "audit role.change boss") && has(&lines, "push s12 channel-list"), "{lines:#?}");
    assert!(has(&w.press(GREG, "ops", true), "reply GREG"));
    w.release(GREG, "ops", None);
    w.open(SessionId(14), "Greg", Role::General); // an old token of his
    w.join(SessionId(14), "medical");
    assert!(has(&w.press(SessionId(14), "medical", true), "reply GREG"));
    w.release(SessionId(14), "medical", None);
    w.tell(Input::People { people: BTreeMap::new(), by: boss() });
    assert!(has(&w.press(GREG, "ops", true), "refuse no-priority"), "an entry that is removed leaves the token");
    assert!(has(&w.press(GREG, "ops", false), "reply Greg"));
}

#[test]
fn an_empty_store_takes_nothing_from_anybody() {
    let mut w = World::new();
    assert_eq!(w.tell(Input::People { people: BTreeMap::new(), by: None }), [""; 0]);
    w.set_channels(&ALL);
    assert!(has(&w.press(GINA, "ops", false), "reply Gina"));
}

#[test]
fn a_demoted_broadcasters_emergency_ends() {
    let mut w = World::new();
    w.ask(|reply| Input::StartEmergency { session: DANA, hold_ms: 2000.0, reply });
    let lines = w.set_person("dana", Role::General, &ALL);
    assert!(has(&lines, "audit emergency_broadcast.stop dana role-change"), "{lines:#?}");
    assert_eq!(w.control.emergency(), None);
}

#[test]
fn a_demoted_dispatcher_talks_on_under_the_talk_limit_from_then_and_may_be_interrupted() {
    let mut w = World::new();
    w.press(DANA, "ops", true);
    let talk = |w: &mut World, seconds| {
        let mut lines = Vec::new();
        for _ in 0..seconds {
            w.control.handle(Input::Heard { burst: BurstId(1), channel: "ops".into(), at: w.now }, w.now);
            lines.extend(w.pass(1_000));
        }
        lines
    };
    assert_eq!(talk(&mut w, 90), [""; 0], "no limit for Dispatch");
    w.set_person("dana", Role::General, &ALL);
    let lines = talk(&mut w, 59);
    assert!(has(&lines, "push s21 warning 10s") && !has(&lines, "shut ops"), "{lines:#?}");
    assert!(has(&talk(&mut w, 1), "interrupted talk-limit"));
    w.pass(2_000);
    w.press(DANA, "ops", false);
    assert!(has(&w.press(DORA, "ops", true), "reply Dora"), "priority is lost");
}

#[test]
fn a_channel_added_is_listed_joined_and_talked_on_at_once() {
    let mut w = World::new();
    let claims = Claims { name: "Nils".into(), role: Role::General, channels: ["ops".into(), "gate".into()].into() };
    w.tell(Input::Open { session: SessionId(50), user: "nils".into(), claims });
    assert!(has(&w.join(SessionId(50), "gate"), "refuse unknown-channel"));
    let lines = w.set_channels(&["ops", "medical", "security", "logistics", "gate"]);
    assert_eq!(
        lines,
        ["audit channel.create boss gate", "push s50 channel-list", "push s50 permissions +gate -"],
        "only whoever may join it is told"
    );
    w.join(SessionId(50), "gate");
    assert!(has(&w.press(SessionId(50), "gate", false), "open gate b1"));
}

#[test]
fn a_channel_removed_while_somebody_talks_goes_when_the_burst_has_ended() {
    let mut w = World::new();
    w.join(GINA, "logistics");
    w.join(GREG, "logistics");
    w.press(GINA, "logistics", false);
    let lines = w.set_channels(&["ops", "medical", "security"]);
    assert!(has(&lines, "audit channel.delete boss logistics burst-running"), "{lines:#?}");
    assert!(has(&lines, "push s31 permissions + -logistics"), "who is not on it: {lines:#?}");
    assert!(!has(&lines, "push s11") && !has(&lines, "push s12"), "who is on it stays for now: {lines:#?}");
    assert!(has(&w.join(ADA, "logistics"), "refuse unknown-channel"), "nobody comes in any more");
    let lines = w.release(GINA, "logistics", None);
    for part in ["leave s11 logistics", "leave s12 logistics", "push s12 permissions + -logistics"] {
        assert!(has(&lines, part), "{part}: {lines:#?}");
    }
    assert!(has(&w.press(GINA, "logistics", false), "refuse unknown-channel"));
    let lines = w.set_channels(&ALL);
    assert!(has(&lines, "audit channel.create boss logistics"), "{lines:#?}");
    assert!(has(&w.join(GINA, "logistics"), "reply idle"));
}

#[test]
fn a_channel_that_a_desk_or_radio_sits_on_stays() {
    let mut w = World::new();
    w.set_channels(&["medical"]);
    assert!(has(&w.edge("desk.ptt.ops", true), "audit priority_ptt.start desk-1 ops"));
}

#[test]
fn e7_a_channel_created_during_an_emergency_is_included_and_idle_afterwards() {
    let mut w = World::new();
    w.ask(|reply| Input::StartEmergency { session: DANA, hold_ms: 2000.0, reply });
    assert!(has(&w.set_channels(&["ops", "medical", "security", "logistics", "gate"]), "open gate b1 p213"));
    w.set_person("greg", Role::General, &["ops", "gate"]);
    let lines = w.join(GREG, "gate");
    assert!(has(&lines, "reply Dana") && has(&lines, "push s12 emergency on gate"), "{lines:#?}");
    assert!(has(&w.press(GREG, "gate", false), "reply denied: Emergency broadcast by Dispatch Dana"));
    let lines = w.set_channels(&ALL);
    assert!(has(&lines, "audit channel.delete boss gate burst-running"), "it goes after the broadcast: {lines:#?}");
    let lines = w.ask(|reply| Input::StopEmergency { session: DANA, reply });
    assert!(has(&lines, "shut gate b1") && has(&lines, "leave s12 gate"), "{lines:#?}");
    assert_eq!(w.control.states().len(), 4);
}

#[test]
fn a_desk_that_was_thrown_out_is_disabled_until_it_is_enabled_whatever_its_microphone_does() {
    let mut w = World::new();
    let throw = |reply| Input::ForceDisconnect { session: ADA, target: "desk-1".into(), reason: "stuck".into(), reply };
    w.edge("desk.ptt.ops", true);
    let lines = w.ask(throw);
    assert!(has(&lines, "shut ops b1 cut") && has(&lines, "reply when kept: disable desk-1"), "{lines:#?}");
    w.edge("desk.ptt.ops", false);
    w.tell(Input::Capture { session: DESK, works: true });
    assert!(has(&w.edge("desk.ptt.ops", true), "audit ptt.denied desk-1 ops disabled"));
    w.edge("desk.ptt.ops", false);
    w.edge("desk.emergency", true);
    assert!(has(&w.pass(2_000), "audit emergency_broadcast.denied desk-1 disabled"));
    w.edge("desk.emergency", false);
    assert_eq!(w.control.disabled(), [("desk-1".into(), "Desk 1".to_owned())]);
    let by = boss().unwrap();
    assert_eq!(w.tell(Input::Enable { target: "desk-1".into(), by }), ["audit person.enable boss"]);
    assert!(has(&w.edge("desk.ptt.ops", true), "audit priority_ptt.start desk-1 ops"));
}

#[test]
fn a_disabled_radio_is_not_keyed() {
    let mut w = World::new();
    w.join(GINA, "security");
    w.tell(Input::Playback { session: PORT, works: true });
    w.tell(Input::Disabled { users: ["radio-vhf".into()].into() });
    let security = w.control.readiness().channels.into_iter().find(|c| c.channel.as_str() == "security");
    assert_eq!(security.unwrap().obstacles, ["VHF 1 cannot transmit: it is disabled"]);
    assert!(!has(&w.press(GINA, "security", false), "radio.vhf.ptt on"));
    let lines = w.tell(Input::Enable { target: "radio-vhf".into(), by: boss().unwrap() });
    assert!(has(&lines, "line radio.vhf.ptt on"), "somebody talks: {lines:#?}");
}

#[test]
fn a_ban_from_the_network_holds_at_once_and_is_answered_when_it_is_kept() {
    let mut w = World::new();
    let duration = Some(Duration::from_secs(60));
    let lines =
        w.ask(|reply| Input::Ban { session: ADA, target: "gina".into(), duration, reason: "noise".into(), reply });
    assert!(has(&lines, "close s11") && has(&lines, "reply when kept: ban gina"), "{lines:#?}");
    assert!(w.control.is_banned(&"gina".into(), w.now));
    w.pass(60_000);
    assert!(!w.control.is_banned(&"gina".into(), w.now));
    let refused = w.ask(|reply| Input::Unban { session: GREG, target: "gina".into(), reply });
    assert!(has(&refused, "refuse not-permitted"), "{refused:#?}");
}

#[test]
fn bans_of_the_store_throw_out_whoever_is_here_and_leave_other_bans_alone() {
    let mut w = World::new();
    w.ask(|reply| Input::Ban { session: ADA, target: "eve".into(), duration: None, reason: "r".into(), reply });
    let (over, holds) = (w.now - Duration::from_secs(1), w.now + Duration::from_secs(1));
    let bans = [("gina".into(), Some(holds)), ("greg".into(), Some(over))].into();
    let lines = w.tell(Input::Bans { bans });
    assert!(has(&lines, "close s11") && !has(&lines, "close s12"), "{lines:#?}");
    assert!(w.control.is_banned(&"eve".into(), w.now), "a loaded list lifts no ban");
}

#[test]
fn the_limit_of_channels_counts_the_user_over_all_of_its_sockets() {
    let mut settings = settings();
    settings.tuning.general_channels = 2;
    let mut w = World { control: Control::new(settings), now: Mono::from_millis(10_000), last_reply: 0 };
    for (session, channel) in [(11, "ops"), (12, "medical"), (13, "security"), (14, "ops")] {
        w.open(SessionId(session), "Gina", Role::General);
        let lines = w.join(SessionId(session), channel);
        let wanted = if session == 13 { "refuse too-many-channels" } else { "reply idle" };
        assert!(has(&lines, wanted), "{channel}: {lines:#?}");
    }
}

#[test]
fn a_full_channel_refuses_another_user_but_not_another_socket_of_one_that_is_in() {
    let mut settings = settings();
    settings.tuning.channel_users = 2; // the desk is one
    let mut w = World { control: Control::new(settings), now: Mono::from_millis(10_000), last_reply: 0 };
    for (session, name) in [(GINA, "Gina"), (SessionId(13), "Gina"), (GREG, "Greg")] {
        w.open(session, name, Role::General);
    }
    assert!(has(&w.join(GINA, "ops"), "reply idle"));
    assert!(has(&w.join(SessionId(13), "ops"), "reply idle"));
    assert!(has(&w.join(GREG, "ops"), "refuse channel-full"));
}

#[test]
fn a_full_box_has_room_for_its_users_and_for_dispatch() {
    let mut w = World::new();
    let mut tuning = settings().tuning;
    tuning.users = 5;
    w.tell(Input::Tune(tuning));
    assert!(!w.control.has_room_for(&"eve".into(), Role::General));
    assert!(w.control.has_room_for(&"gina".into(), Role::General), "one more socket");
    assert!(w.control.has_room_for(&"eve".into(), Role::Dispatch));
}

#[test]
fn a_new_talk_limit_holds_for_the_burst_that_runs() {
    let mut w = World::new();
    w.press(GINA, "ops", false);
    let mut tuning = settings().tuning;
    tuning.talk_limit = Duration::from_secs(3);
    w.tell(Input::Tune(tuning));
    assert!(has(&w.pass(3_000), "interrupted talk-limit"));
}

#[test]
fn e2_a_hold_let_go_in_the_moment_it_is_full_opens_every_gate_and_then_shuts_it() {
    let mut w = World::new();
    w.edge("desk.emergency", true);
    w.pass(1_999);
    w.now = w.now + Duration::from_millis(1);
    let lines = w.edge("desk.emergency", false);
    let place = |part: &str| lines.iter().position(|l| l.starts_with(part)).unwrap();
    assert!(place("open medical b1") < place("shut medical b1"), "{lines:#?}");
    assert!(w.control.emergency().is_none());
}

#[test]
fn e5_a_broadcast_goes_on_with_another_producer_when_its_own_is_closed() {
    let mut w = World::new();
    w.ask(|reply| Input::StartEmergency { session: DANA, hold_ms: 2000.0, reply });
    assert!(has(&w.tell(Input::SourceClosed { source: SourceId(213) }), "open medical b1 -"), "nothing is left");
    let opened = Input::SourceOpened { session: DANA, channel: "ops".into(), source: SourceId(900) };
    assert!(has(&w.tell(opened), "open medical b1 p900"));
    w.open(SessionId(23), "Dana", Role::Dispatch);
    w.join(SessionId(23), "ops");
    assert!(has(&w.tell(Input::SourceClosed { source: SourceId(900) }), "open medical b1 p233"), "its other socket's");
}

#[test]
fn e5_a_producer_made_for_a_temporary_join_ends_with_it() {
    let mut w = World::new();
    w.ask(|reply| Input::StartEmergency { session: DANA, hold_ms: 2000.0, reply });
    w.tell(Input::SourceOpened { session: DANA, channel: "security".into(), source: SourceId(900) });
    w.ask(|reply| Input::StopEmergency { session: DANA, reply });
    w.ask(|reply| Input::Join { session: DANA, channel: "security".into(), reply });
    assert!(has(&w.press(DANA, "security", false), "open security b2 -"), "its producer was closed with the leave");
}

#[test]
fn f10_a_desk_without_a_microphone_starts_no_emergency() {
    let mut w = World::new();
    w.tell(Input::Capture { session: DESK, works: false });
    w.edge("desk.emergency", true);
    assert!(has(&w.pass(2_000), "audit emergency_broadcast.denied desk-1 no-capture"));
    assert_eq!(w.control.emergency(), None);
}

#[test]
fn f10_a_desk_whose_microphone_dies_loses_the_floor_after_4_s() {
    let mut w = World::new();
    w.edge("desk.ptt.ops", true);
    assert!(!has(&w.pass(10_000), "audit"), "a desk that works may be silent");
    w.tell(Input::Capture { session: DESK, works: false });
    w.control.handle(Input::Heard { burst: BurstId(1), channel: "ops".into(), at: w.now }, w.now);
    assert!(!has(&w.pass(3_999), "audit"));
    assert!(has(&w.pass(1), "audit ptt.revoked desk-1 ops no-media"));
}

#[test]
fn f7_after_a_carrier_that_was_active_at_start_the_next_one_counts() {
    for fault in [
        Input::ActiveAtStart { line: "radio.vhf.carrier".into() },
        Input::EdgesLost { line: "radio.vhf.carrier".into(), active: true },
    ] {
        let mut w = World::new();
        w.tell(fault);
        w.edge("radio.vhf.carrier", false);
        w.pass(1_000);
        w.edge("radio.vhf.carrier", true);
        assert!(has(&w.pass(30), "audit ptt.start radio-vhf security"));
    }
}

#[test]
fn f10_a_click_of_the_carrier_that_is_read_late_counts_for_nothing() {
    let mut w = World::new();
    let start = w.now;
    w.now = start + Duration::from_millis(500);
    for (active, after) in [(true, 0), (false, 10)] {
        let stamp = start + Duration::from_millis(after);
        w.tell(Input::Edge { line: "radio.vhf.carrier".into(), active, stamp });
    }
    assert!(w.pass(1_000).is_empty(), "10 ms are below the attack time of 20 ms");
}

fn with_port(change: impl FnOnce(&mut PortSpec)) -> World {
    let mut settings = settings();
    change(&mut settings.ports[0]);
    let mut w = World::with(settings);
    for session in [GINA, DANA] {
        w.join(session, "security");
    }
    w
}

fn port_state(w: &World) -> (Receiver, Transmitter) {
    let state = &w.control.port_states()[0];
    (state.receiver, state.transmitter)
}

#[test]
fn a_carrier_that_flaps_counts_for_nothing_and_one_that_lasts_does() {
    let mut w = with_port(|p| p.flap = Duration::from_millis(80));
    for _ in 0..5 {
        w.edge("radio.vhf.carrier", true);
        let lines = w.pass(79);
        assert_eq!(port_state(&w).0, Receiver::Open);
        w.edge("radio.vhf.carrier", false);
        assert!(lines.is_empty() && w.pass(100).is_empty(), "79 ms are a flap: {lines:#?}");
    }
    w.edge("radio.vhf.carrier", true);
    assert!(has(&w.pass(80), "audit ptt.start radio-vhf security"));
    assert_eq!(port_state(&w).0, Receiver::Talking);
}

#[test]
fn the_floor_is_kept_for_the_end_of_what_was_said_and_not_longer() {
    let mut w = with_port(|p| p.linger = Duration::from_millis(40));
    w.edge("radio.vhf.carrier", true);
    w.pass(1_000);
    w.edge("radio.vhf.carrier", false);
    let lines = w.pass(59);
    assert!(has(&lines, "radio.carrier_closed") && !has(&lines, "ptt.stop"), "{lines:#?}");
    assert!(has(&w.pass(1), "audit ptt.stop radio-vhf security released"));
}

#[test]
fn a_carrier_of_the_own_transmission_is_ignored_and_one_that_outlasts_it_is_somebody_else() {
    let mut w = with_port(|_| {});
    w.press(GINA, "security", false);
    w.pass(1_000);
    w.edge("radio.vhf.carrier", true); // the transmitter's own, through the repeater
    w.release(GINA, "security", None);
    w.tell(Input::Drained { session: PORT, at: w.now });
    let lines = w.pass(100 + 199);
    assert!(has(&lines, "radio.unkeyed") && !has(&lines, "ptt.start"), "hang and inhibit: {lines:#?}");
    w.edge("radio.vhf.carrier", false);
    assert!(!has(&w.pass(1_000), "ptt.start"), "it was the own one");

    w.press(GINA, "security", false);
    w.pass(1_000);
    w.edge("radio.vhf.carrier", true); // somebody answers too early
    w.release(GINA, "security", None);
    w.tell(Input::Drained { session: PORT, at: w.now });
    assert!(!has(&w.pass(100 + 199), "ptt.start"));
    assert!(has(&w.pass(1), "audit ptt.start radio-vhf security"), "the rest of the answer is heard");
}

#[test]
fn f3_a_radio_that_was_preempted_and_is_still_keyed_is_a_state_of_its_own() {
    let mut w = with_port(|_| {});
    w.edge("radio.vhf.carrier", true);
    w.pass(100);
    assert_eq!(port_state(&w), (Receiver::Talking, Transmitter::Unkeyed));
    w.press(DANA, "security", true);
    assert_eq!(port_state(&w), (Receiver::Preempted, Transmitter::Blocked));
    let lines = w.ask(|reply| Input::StartEmergency { session: DORA, hold_ms: 2000.0, reply });
    assert!(has(&lines, "radio.keyed"), "network-first in an emergency: {lines:#?}");
    assert_eq!(port_state(&w), (Receiver::Preempted, Transmitter::Keyed));
    assert_eq!(
        w.control.readiness().summary(),
        "4 of 4 channels reachable, 1 radio pre-empted and still keyed",
        "nobody at that radio hears the broadcast"
    );
    w.edge("radio.vhf.carrier", false);
    w.pass(30);
    assert_eq!(port_state(&w), (Receiver::Closed, Transmitter::Keyed));
    assert_eq!(w.control.readiness().summary(), "4 of 4 channels reachable");
}

#[test]
fn a_carrier_that_is_denied_or_stuck_says_so() {
    let mut w = with_port(|p| p.radio_first = false);
    w.press(GINA, "security", false);
    w.edge("radio.vhf.carrier", true);
    w.pass(100);
    assert_eq!(port_state(&w).0, Receiver::Denied);
    w.edge("radio.vhf.carrier", false);
    w.release(GINA, "security", None);
    w.pass(5_000);
    w.edge("radio.vhf.carrier", true);
    let lines = w.pass(120_020);
    assert!(has(&lines, "audit ptt.revoked radio-vhf security carrier-timeout"), "{lines:#?}");
    assert_eq!(port_state(&w).0, Receiver::Stuck);
    assert!(w.pass(300_000).is_empty(), "F9: the source must close first");
    w.edge("radio.vhf.carrier", false);
    w.pass(30);
    w.edge("radio.vhf.carrier", true);
    assert!(has(&w.pass(30), "audit ptt.start radio-vhf security"));
}

#[test]
fn a_transmitter_whose_sound_card_goes_is_unkeyed_and_keyed_again_when_it_is_back() {
    let mut w = with_port(|_| {});
    w.press(DANA, "security", true);
    let lines = w.tell(Input::Playback { session: PORT, works: false });
    assert!(has(&lines, "audit radio.unkeyed radio-vhf security playback-gone"), "{lines:#?}");
    assert!(has(&lines, "line radio.vhf.ptt off") && has(&lines, "stop play"), "{lines:#?}");
    assert!(!has(&talk_for(&mut w, 2_000, 1), "radio.keyed"), "it would send silence");
    assert_eq!(w.holder("security").unwrap(), "Dana", "the floor is another matter");
    let lines = w.tell(Input::Playback { session: PORT, works: true });
    assert!(has(&lines, "line radio.vhf.ptt on"), "{lines:#?}");

    w.release(DANA, "security", None);
    let lines = w.tell(Input::Playback { session: PORT, works: false });
    assert!(has(&lines, "line radio.vhf.ptt off"), "nothing is left that could sound: {lines:#?}");
    assert!(!has(&w.press(DANA, "security", true), "radio.keyed"), "whoever talks then does not key it");
    w.release(DANA, "security", None);
    assert!(!has(&w.tell(Input::Playback { session: PORT, works: true }), "radio.keyed"), "nobody talks any more");
}

#[test]
fn a_transmitter_is_cut_at_its_time_out_until_the_talker_has_released() {
    let mut w = with_port(|p| p.transmit_timeout = Duration::from_secs(10));
    w.press(DANA, "security", true);
    assert!(!has(&talk_for(&mut w, 9_980, 1), "radio.unkeyed"));
    let lines = talk_for(&mut w, 20, 1);
    assert!(has(&lines, "audit radio.unkeyed radio-vhf security transmit-timeout"), "{lines:#?}");
    assert!(has(&lines, "line radio.vhf.ptt off") && has(&lines, "stop play"), "{lines:#?}");
    assert_eq!(port_state(&w).1, Transmitter::TimedOut);
    assert!(!has(&talk_for(&mut w, 60_000, 1), "radio.keyed"), "locked out");
    assert_eq!(w.holder("security").unwrap(), "Dana", "the floor is another matter");
    w.release(DANA, "security", None);
    assert!(has(&w.press(DANA, "security", true), "radio.keyed"));
}

#[test]
fn e9_the_transmit_time_out_does_not_cut_an_emergency() {
    let mut w = with_port(|p| p.transmit_timeout = Duration::from_secs(10));
    w.press(DANA, "security", true);
    talk_for(&mut w, 9_000, 1);
    w.ask(|reply| Input::StartEmergency { session: DORA, hold_ms: 2000.0, reply });
    assert!(!has(&talk_for(&mut w, 299_000, 2), "radio.unkeyed"));
    let lines = talk_for(&mut w, 1_020, 2);
    assert!(has(&lines, "emergency_broadcast.stop dora time-limit"), "{lines:#?}");
    let lines = w.pass(3_100);
    assert!(has(&lines, "radio.unkeyed"), "{lines:#?}");
}

#[test]
fn bursts_without_a_pause_between_them_do_not_take_each_others_time() {
    let mut w = with_port(|p| p.transmit_timeout = Duration::from_secs(10));
    w.press(GINA, "security", false);
    talk_for(&mut w, 6_000, 1);
    let lines = w.press(DANA, "security", true);
    assert!(has(&lines, "line radio.vhf.ptt off") && has(&lines, "play from 16300.000ms"), "a rest: {lines:#?}");
    assert!(has(&w.pass(100), "line radio.vhf.ptt on"));
    assert!(!has(&talk_for(&mut w, 9_900, 2), "radio.unkeyed"), "its own 10 s");
    assert!(has(&talk_for(&mut w, 120, 2), "transmit-timeout"));
}

#[test]
fn a_station_ends_its_transmission_with_a_tone_and_its_name_when_it_is_due() {
    let mut w = with_port(|p| {
        (p.courtesy_tone, p.ident_interval) = (true, Some(Duration::from_secs(600)));
    });
    let over = |w: &mut World| {
        w.press(GINA, "security", false);
        talk_for(w, 1_000, 1);
        w.release(GINA, "security", None);
        w.tell(Input::Drained { session: PORT, at: w.now })
    };
    assert_eq!(over(&mut w), ["sign tone ident"]);
    w.pass(100);
    let lines = w.press(GINA, "security", false);
    assert!(has(&lines, "play from") && !has(&lines, "radio.keyed"), "speech breaks it off: {lines:#?}");
    w.release(GINA, "security", None);
    assert_eq!(w.tell(Input::Drained { session: PORT, at: w.now }), ["sign tone ident"], "it was not said to its end");
    w.pass(4_000);
    let lines = w.tell(Input::Drained { session: PORT, at: w.now });
    assert!(!has(&lines, "radio.unkeyed") && has(&w.pass(100), "radio.unkeyed"), "after the hang");
    assert_eq!(over(&mut w), ["sign tone"]);
    w.tell(Input::Drained { session: PORT, at: w.now });
    w.pass(600_000);
    assert_eq!(over(&mut w), ["sign tone ident"]);
}
