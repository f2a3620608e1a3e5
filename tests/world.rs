//! The whole gateway on simulated time: the real core, wire, gates, audit and executor; simulated lines, sessions and
//! media. Each test is a transcript of what clients saw.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use crosspatch::audit;
use crosspatch::base::{Mono, SessionId, SourceId};
use crosspatch::control::Input;
use crosspatch::gateway::Event;
use crosspatch::gateway::config::Config;
use crosspatch::gateway::endpoint::{CaptureEnd, Endpoint, MediaEnd, PlaybackEnd};
use crosspatch::gateway::executor::{Executor, Parts};
use crosspatch::gateway::media::{Command, MediaDone, MediaHandle};
use crosspatch::hardware::gpio::sim::SimBoard;
use crosspatch::media::gates::Gates;
use crosspatch::net::socket::{Outgoing, SocketEvent};
use crosspatch::net::token::Identity;
use crosspatch::people;
use crosspatch::wire::{MediaOp, WallClock};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

struct Person {
    session: SessionId,
    inbox: mpsc::Receiver<Outgoing>,
    replies: Vec<Value>,
    /// What came without being asked for, one line each.
    seen: Vec<String>,
}

struct World {
    executor: Executor,
    now: Arc<AtomicU64>,
    board: SimBoard,
    gates: Arc<Gates>,
    commands: Receiver<Command>,
    people: Vec<Person>,
    audit: audit::Audit,
    audit_file: std::path::PathBuf,
    last_id: u64,
    last_source: u64,
    /// False: the media thread does not come to reading what has arrived.
    media_reads: bool,
    _dir: tempfile::TempDir,
    _threads: (audit::AuditThread, Vec<(CaptureEnd, PlaybackEnd, MediaEnd)>),
}

impl World {
    /// The demo event at ten seconds after boot, with nobody connected.
    fn new() -> Self {
        let config = Config::demo();
        let dir = tempfile::tempdir().unwrap();
        let audit_file = dir.path().join("audit.sqlite");
        let (audit, audit_thread) = audit::open(&audit_file, "test-boot").unwrap();
        let now = Arc::new(AtomicU64::new(Mono::from_millis(10_000).0));
        let board = SimBoard::new(&config.lines());
        let (media, commands) = MediaHandle::new(|| {});
        let (endpoints, ends): (Vec<_>, Vec<_>) = (1..=2)
            .map(|i| Endpoint::new(SessionId(i), SourceId(i), ("in".into(), "out".into()), &[]))
            .map(|(endpoint, capture, playback, media)| (endpoint, (capture, playback, media)))
            .unzip();
        let gates = Arc::new(Gates::new());
        let clock = now.clone();
        let executor = Executor::new(Parts {
            settings: config.settings(&[SourceId(1), SourceId(2)]),
            now: Box::new(move || Mono(clock.load(Ordering::Relaxed))),
            board: "board 'sim'".into(),
            lines: Box::new(board.open()),
            audit: audit.clone(),
            wall: audit.wall(),
            clock: WallClock { unix_ms_at_zero: 1_700_000_000_000 },
            gates: gates.clone(),
            media,
            endpoints,
            people: people::start(&dir.path().join("people.sqlite"), Box::new(|_| {})).unwrap().0,
            recorder: None,
            live: watch::channel(Value::Null).0,
        });
        let mut world = World {
            executor,
            now,
            board,
            gates,
            commands,
            people: Vec::new(),
            audit,
            audit_file,
            last_id: 0,
            last_source: 100,
            media_reads: true,
            _dir: dir,
            _threads: (audit_thread, ends),
        };
        for session in [SessionId(1), SessionId(2)] {
            for works in [Input::Capture { session, works: true }, Input::Playback { session, works: true }] {
                world.executor.event(Event::Input(works));
            }
        }
        world
    }

    fn now(&self) -> Mono {
        Mono(self.now.load(Ordering::Relaxed))
    }

    /// Lets `ms` pass, stopping at every deadline on the way.
    fn pass(&mut self, ms: u64) {
        let end = self.now() + Duration::from_millis(ms);
        while let Some(due) = self.executor.next_timeout().filter(|due| *due <= end) {
            self.now.fetch_max(due.0, Ordering::Relaxed);
            self.turn();
        }
        self.now.store(end.0, Ordering::Relaxed);
    }

    /// One turn of the loop, the simulated media's answers, and everybody's mail.
    fn turn(&mut self) {
        self.executor.turn();
        while let Ok(command) = self.commands.try_recv() {
            if matches!(command, Command::Read) && self.media_reads {
                self.executor.event(Event::MediaRead);
                self.executor.turn();
            } else if let Command::Request(request) = command {
                self.last_source += 1;
                let source = SourceId(self.last_source);
                let opened =
                    matches!(request.op, MediaOp::Produce(_)).then(|| (request.channel.clone().unwrap(), source));
                let result = Ok(json!({ "id": source.to_string() }));
                let done = MediaDone { reply: request.reply, session: request.session, result, opened, closed: None };
                self.executor.event(Event::Media(done));
                self.executor.turn();
            }
        }
        for person in &mut self.people {
            while let Ok(out) = person.inbox.try_recv() {
                match out {
                    Outgoing::Text(text) => {
                        let message: Value = serde_json::from_str(&text).unwrap();
                        match message.get("id") {
                            Some(_) => person.replies.push(message),
                            None => person.seen.extend(news(&message)),
                        }
                    }
                    Outgoing::Close(_) => person.seen.push("closed".into()),
                }
            }
        }
    }

    /// Connects somebody and joins channels with a producer in each.
    fn enter(&mut self, user: &str, name: &str, role: &str, channels: &[&str]) -> usize {
        let session = SessionId(1000 + self.people.len() as u64);
        let (out, inbox) = mpsc::channel(1000);
        let all = ["ops", "medical", "security", "logistics"];
        let identity = Identity {
            user: user.into(),
            name: name.into(),
            role: role.parse().unwrap(),
            channels: all.map(Into::into).to_vec(),
        };
        self.executor.socket(SocketEvent::Opened { session, identity, resume: None, out });
        self.people.push(Person { session, inbox, replies: Vec::new(), seen: Vec::new() });
        let who = self.people.len() - 1;
        for channel in channels {
            self.ask(who, "join-channel", json!({ "channelId": channel }));
            self.ask(
                who,
                "produce",
                json!({ "transportId": "t1", "kind": "audio", "channelId": channel, "rtpParameters": {} }),
            );
        }
        self.people.iter_mut().for_each(|p| p.seen.clear());
        who
    }

    /// One request and its one reply.
    fn ask(&mut self, who: usize, kind: &str, data: Value) -> Value {
        self.last_id += 1;
        let text = json!({ "type": kind, "id": format!("q{}", self.last_id), "data": data }).to_string();
        self.executor.socket(SocketEvent::Text { session: self.people[who].session, text });
        self.turn();
        let replies = std::mem::take(&mut self.people[who].replies);
        assert_eq!(replies.len(), 1, "F11: one reply to {kind}: {replies:?}");
        assert_eq!(replies[0]["id"], format!("q{}", self.last_id));
        replies[0].clone()
    }

    fn leave(&mut self, who: usize) {
        self.executor.socket(SocketEvent::Closed { session: self.people[who].session, cause: "closed" });
        self.turn();
    }

    /// Moves an input line now, as the kernel would stamp it.
    fn line(&mut self, name: &str, active: bool) {
        self.board.move_input(&name.into(), active, self.now()).unwrap();
        self.turn();
    }

    fn lit(&self, name: &str) -> bool {
        self.board.lines().into_iter().find(|l| l.name.as_str() == name).unwrap().active
    }

    /// What somebody was told since the last look.
    fn seen(&mut self, who: usize) -> Vec<String> {
        std::mem::take(&mut self.people[who].seen)
    }

    /// The channels whose gate is open now, with the source that is let through.
    fn open_gates(&self) -> Vec<String> {
        let counts = self.gates.counts().into_iter().filter(|c| c.open);
        let mut open: Vec<_> = counts.map(|c| format!("{} {} {}", c.channel, c.burst, c.source.unwrap())).collect();
        open.sort();
        open
    }

    /// A lamp that is lit and dark within its longest pattern.
    fn blinks(&mut self, line: &str) -> bool {
        let seen: Vec<_> = (0..40).map(|_| (self.pass(50), self.lit(line)).1).collect();
        seen.contains(&true) && seen.contains(&false)
    }

    /// What was recorded but for presses and releases of buttons, which every test here makes itself, and for measures.
    fn audited(&self, after: i64) -> Vec<String> {
        let made = ["gpio.press", "gpio.release", "priority_ptt.measured"];
        self.rows(after)
            .into_iter()
            .filter(|r| !made.contains(&r.action.as_str()))
            .map(|r| [Some(r.action), r.actor, r.channel, r.cause].into_iter().flatten().collect::<Vec<_>>().join(" "))
            .collect()
    }

    fn rows(&self, after: i64) -> Vec<audit::Row> {
        self.audit.flush().unwrap();
        audit::tail(&self.audit_file, after, 1000).unwrap()
    }

    fn audit_length(&self) -> i64 {
        self.audit.flush().unwrap();
        audit::tail(&self.audit_file, 0, 100_000).unwrap().last().map_or(0, |r| r.seq)
    }
}

/// A push as a line of the transcript.
fn news(message: &Value) -> Option<String> {
    let data = &message["data"];
    let text = |field: &str| data[field].as_str().unwrap_or("nobody").to_owned();
    Some(match message["type"].as_str().unwrap() {
        "speaker-changed" => {
            assert_eq!(data["producerId"], format!("channel:{}", text("channelId")), "one stable producer a channel");
            format!("{}: {}", text("channelId"), text("speakerName"))
        }
        "ptt-interrupted" => format!("interrupted on {}: {}", text("channelId"), text("message")),
        "emergency-broadcast-start" => format!("emergency on {} by {}", text("channelId"), text("dispatchUserName")),
        "emergency-broadcast-stop" => format!("emergency over on {}", text("channelId")),
        "error" => format!("error: {}", message["error"].as_str().unwrap()),
        "channel-list" | "channel-state" => return None,
        other => other.to_owned(),
    })
}

#[test]
fn a_grant_a_denial_and_a_release() {
    let mut w = World::new();
    let gina = w.enter("gina", "Gina", "general", &["ops"]);
    let greg = w.enter("greg", "Greg", "general", &["ops"]);
    let before = w.audit_length();
    let granted = w.ask(gina, "ptt-start", json!({ "channelId": "ops" }));
    assert_eq!(granted["type"], "channel-state");
    assert_eq!(granted["data"]["success"], true);
    assert_eq!(granted["data"]["state"]["currentSpeaker"], "gina");
    assert_eq!(granted["data"]["state"]["lockTimestamp"], 1_700_000_010_000u64);
    let denied = w.ask(greg, "ptt-start", json!({ "channelId": "ops" }));
    assert_eq!(
        denied["data"],
        json!({ "success": false, "denied": true, "currentSpeaker": "gina", "currentSpeakerName": "Gina", "message": "Gina is talking" })
    );
    assert_eq!(w.open_gates(), ["ops b1 p101"]);
    assert!(w.lit("desk.tally.ops"));
    w.ask(gina, "ptt-stop", json!({ "channelId": "ops" }));
    assert_eq!(w.open_gates(), [""; 0]);
    assert!(!w.lit("desk.tally.ops"));
    assert_eq!(w.seen(greg), ["ops: Gina", "ops: nobody"]);
    assert_eq!(w.seen(gina), [""; 0], "the reply says it");
    assert_eq!(w.audited(before), ["ptt.start gina ops", "ptt.denied greg ops busy", "ptt.stop gina ops released"]);
}

#[test]
fn a_dispatcher_cuts_in_another_dispatcher_and_an_administrator_do_not() {
    let mut w = World::new();
    let gina = w.enter("gina", "Gina", "general", &["ops"]);
    let dana = w.enter("dana", "Dana", "dispatch", &["ops"]);
    let dora = w.enter("dora", "Dora", "dispatch", &["ops"]);
    let ada = w.enter("ada", "Ada", "admin", &["ops"]);
    w.ask(gina, "ptt-start", json!({ "channelId": "ops" }));
    let refused = w.ask(ada, "priority-ptt-start", json!({ "channelId": "ops" }));
    assert_eq!((&refused["type"], &refused["data"]["code"]), (&json!("error"), &json!("no-priority")));
    assert_eq!(w.open_gates(), ["ops b1 p101"], "nothing else changes");
    let granted = w.ask(dana, "priority-ptt-start", json!({ "channelId": "ops" }));
    assert_eq!(granted["data"]["state"]["speakerRole"], "DISPATCH");
    assert_eq!(w.open_gates(), ["ops b2 p102"]);
    let denied = w.ask(dora, "priority-ptt-start", json!({ "channelId": "ops" }));
    assert_eq!(denied["data"]["message"], "Dana is talking");
    assert_eq!(w.seen(gina), ["interrupted on ops: Dispatch Dana has priority", "ops: Dana"]);
    let stale = w.ask(gina, "ptt-stop", json!({ "channelId": "ops", "burstId": "b1" }));
    assert_eq!(stale["data"]["state"]["currentSpeaker"], "dana", "F8");
    w.ask(dana, "priority-ptt-stop", json!({ "channelId": "ops" }));
    w.ask(gina, "ptt-start", json!({ "channelId": "ops" }));
    assert_eq!(w.seen(dora), ["ops: Gina", "ops: Dana", "ops: nobody", "ops: Gina"]);
}

#[test]
fn the_button_aborts_at_1999_ms_and_reaches_every_channel_at_2000() {
    let mut w = World::new();
    let gina = w.enter("gina", "Gina", "general", &["ops"]);
    let mia = w.enter("mia", "Mia", "general", &["medical", "logistics"]);
    let dana = w.enter("dana", "Dana", "dispatch", &["security"]);
    let before = w.audit_length();
    w.line("desk.emergency", true);
    w.pass(1_999);
    w.line("desk.emergency", false);
    assert_eq!(w.seen(mia), [""; 0]);
    assert_eq!(w.audited(before), ["emergency_broadcast.armed desk-1", "emergency_broadcast.aborted desk-1"]);
    w.ask(dana, "priority-ptt-start", json!({ "channelId": "security" }));
    let before = w.audit_length();
    w.line("desk.emergency", true);
    w.pass(2_000);
    assert_eq!(w.open_gates(), ["logistics b2 p1", "medical b2 p1", "ops b2 p1", "security b2 p1"]);
    assert!(w.lit("radio.vhf.ptt"));
    assert!(w.blinks("desk.tally.emergency") && w.blinks("desk.tally.medical"));
    assert_eq!(w.seen(gina), ["ops: Desk 1", "emergency on ops by Desk 1"]);
    assert!(w.seen(dana).contains(&"interrupted on security: Emergency broadcast by Dispatch Desk 1".into()));
    let denied = w.ask(gina, "ptt-start", json!({ "channelId": "ops" }));
    assert_eq!(denied["data"]["message"], "Emergency broadcast by Dispatch Desk 1");
    w.line("desk.emergency", false);
    assert_eq!(w.open_gates(), [""; 0], "nobody is granted again");
    assert!(!w.lit("desk.tally.emergency"));
    assert_eq!(
        w.audited(before),
        [
            "emergency_broadcast.armed desk-1",
            "emergency_broadcast.start desk-1",
            "priority_ptt.interrupted dana security emergency",
            "ptt.denied gina ops emergency",
            "emergency_broadcast.stop desk-1 released"
        ]
    );
}

#[test]
fn an_emergency_from_the_network_leaves_its_temporary_joins_and_keeps_the_others() {
    let mut w = World::new();
    let dana = w.enter("dana", "Dana", "dispatch", &["ops"]);
    let mia = w.enter("mia", "Mia", "general", &["medical"]);
    w.ask(dana, "emergency-broadcast-arm", json!({ "pressed": true }));
    w.pass(1_000);
    let early = w.ask(dana, "emergency-broadcast-start", json!({ "holdDuration": 2000 }));
    assert_eq!(early["error"], "Emergency broadcast requires 2-second hold", "the gateway's own clock must agree");
    w.pass(1_000);
    let started = w.ask(dana, "emergency-broadcast-start", json!({ "holdDuration": 2000 }));
    assert_eq!(started["data"]["channelCount"], 4);
    assert_eq!(started["data"]["failedChannelIds"], json!([]));
    assert_eq!(w.seen(mia), ["medical: Dana", "emergency on medical by Dana"]);
    let stopped = w.ask(dana, "emergency-broadcast-stop", json!({}));
    assert_eq!(stopped["data"], json!({ "success": true, "channelCount": 4, "durationMs": 0 }));
    assert_eq!(w.ask(dana, "ptt-start", json!({ "channelId": "medical" }))["data"]["code"], "not-member");
    assert_eq!(w.ask(dana, "ptt-start", json!({ "channelId": "ops" }))["data"]["success"], true);
}

#[test]
fn the_carrying_session_closing_ends_the_emergency_though_another_socket_of_the_user_stays() {
    let mut w = World::new();
    let first = w.enter("dana", "Dana", "dispatch", &["ops"]);
    let second = w.enter("dana", "Dana", "dispatch", &["medical"]);
    let gina = w.enter("gina", "Gina", "general", &["ops"]);
    w.ask(first, "emergency-broadcast-start", json!({ "holdDuration": 2500 }));
    w.leave(first);
    assert_eq!(w.open_gates(), [""; 0]);
    assert!(w.seen(gina).contains(&"emergency over on ops".into()));
    assert_eq!(w.ask(second, "ptt-start", json!({ "channelId": "medical" }))["data"]["success"], true);
}

#[test]
fn a_request_without_id_is_carried_out_and_not_answered() {
    let mut w = World::new();
    let gina = w.enter("gina", "Gina", "general", &["ops"]);
    let session = w.people[gina].session;
    let say = |w: &mut World, text: &str| {
        w.executor.socket(SocketEvent::Text { session, text: text.into() });
        w.turn();
    };
    say(&mut w, r#"{"type":"ptt-start","data":{"channelId":"ops"}}"#);
    assert_eq!(w.open_gates(), ["ops b1 p101"]);
    assert!(w.people[gina].replies.is_empty() && w.seen(gina).is_empty());
    say(&mut w, r#"{"type":"ptt-start","data":{"channelId":"nowhere"}}"#);
    assert_eq!(w.seen(gina), ["error: There is no channel 'nowhere' at this event."]);
}

#[test]
fn nobody_is_silent_before_what_has_arrived_was_read_but_a_media_thread_that_hangs_keeps_no_floor() {
    let mut w = World::new();
    let gina = w.enter("gina", "Gina", "general", &["ops"]);
    w.media_reads = false;
    w.ask(gina, "ptt-start", json!({ "channelId": "ops" }));
    w.pass(4_199);
    assert_eq!(w.open_gates(), ["ops b1 p101"], "her packets may be in the socket");
    w.pass(1);
    assert_eq!(w.open_gates(), [""; 0]);
    assert_eq!(w.seen(gina), ["interrupted on ops: No audio arrives from you. Press again.", "ops: nobody"]);
    w.media_reads = true;
    w.ask(gina, "ptt-start", json!({ "channelId": "ops" }));
    w.pass(3_999);
    assert_eq!(w.open_gates(), ["ops b2 p101"]);
    w.pass(1);
    assert_eq!(w.open_gates(), [""; 0], "read at once, judged at once");
}

#[test]
fn edges_that_a_stall_kept_waiting_are_judged_by_their_stamps() {
    let mut w = World::new();
    let gina = w.enter("gina", "Gina", "general", &["ops"]);
    let edge = |w: &World, line: &str, active, at| w.board.move_input(&line.into(), active, at).unwrap();
    let stall = |w: &mut World, ms: u64| {
        w.now.fetch_add(Duration::from_millis(ms).as_nanos() as u64, Ordering::Relaxed);
        w.turn();
    };

    // Held for 1999 ms, read 5 s later.
    let (start, before) = (w.now(), w.audit_length());
    edge(&w, "desk.emergency", true, start);
    edge(&w, "desk.emergency", false, start + Duration::from_millis(1_999));
    stall(&mut w, 5_000);
    assert_eq!(w.audited(before), ["emergency_broadcast.armed desk-1", "emergency_broadcast.aborted desk-1"]);

    // Held for 3 s; the press was read in time, the release after it was long over.
    let (start, before) = (w.now(), w.audit_length());
    w.line("desk.emergency", true);
    edge(&w, "desk.emergency", false, start + Duration::from_millis(3_000));
    stall(&mut w, 5_000);
    assert_eq!(w.open_gates(), [""; 0], "nobody holds the button any more");
    assert_eq!(w.audited(before), ["emergency_broadcast.armed desk-1", "emergency_broadcast.missed desk-1"]);

    // Pressed in the stall and still down after it: it fires late, for it is meant.
    edge(&w, "desk.emergency", true, w.now());
    stall(&mut w, 5_000);
    assert_eq!(w.open_gates().len(), 4);
    w.line("desk.emergency", false);
    assert_eq!(w.open_gates(), [""; 0]);

    // A whole press of a talk button: granted and given back, nobody is left with the floor.
    w.seen(gina);
    edge(&w, "desk.ptt.ops", true, w.now());
    edge(&w, "desk.ptt.ops", false, w.now() + Duration::from_millis(500));
    stall(&mut w, 5_000);
    assert_eq!(w.open_gates(), [""; 0]);
    assert_eq!(w.seen(gina), ["ops: Desk 1", "ops: nobody"]);
}

#[test]
fn a_desk_whose_chip_goes_lets_go_while_everybody_else_talks_on_and_serves_again_when_it_is_back() {
    let mut w = World::new();
    let gina = w.enter("gina", "Gina", "general", &["medical"]);
    w.line("desk.ptt.ops", true);
    assert_eq!(w.open_gates(), ["ops b1 p1"]);
    let before = w.audit_length();
    w.board.unplug();
    w.turn();
    assert_eq!(w.open_gates(), [""; 0], "a button that cannot be read is let go (F10)");
    assert!(w.executor.degraded().any(|(part, why)| part == "board 'sim'" && why.contains("unplugged")));
    w.ask(gina, "ptt-start", json!({ "channelId": "medical" }));
    assert_eq!(w.open_gates(), ["medical b2 p101"]);
    w.board.plug();
    w.turn();
    assert_eq!(w.open_gates(), ["medical b2 p101"], "still pressed, but it was not pressed now (E3)");
    assert_eq!(w.executor.degraded().count(), 0);
    assert!(w.lit("desk.tally.medical"), "lamps show what is so now");
    w.line("desk.ptt.ops", false);
    w.line("desk.ptt.ops", true);
    assert_eq!(w.open_gates(), ["medical b2 p101", "ops b3 p1"]);
    let said = w.audited(before);
    for action in ["system.degraded", "system.healed"] {
        assert_eq!(said.iter().filter(|s| s.as_str() == action).count(), 1, "{said:?}");
    }
}

#[test]
fn a_pressed_desk_button_outlives_a_stall() {
    let mut w = World::new();
    w.line("desk.ptt.ops", true);
    let before = w.open_gates();
    assert_eq!(before.len(), 1);
    w.now.fetch_add(Duration::from_secs(5).as_nanos() as u64, Ordering::Relaxed);
    w.turn();
    assert_eq!(w.open_gates(), before);
}

#[test]
fn a_producer_that_is_made_anew_in_an_emergency_is_heard_on_every_channel() {
    let mut w = World::new();
    let dana = w.enter("dana", "Dana", "dispatch", &["ops"]);
    w.ask(dana, "emergency-broadcast-start", json!({ "holdDuration": 2000 }));
    assert!(w.open_gates().iter().all(|gate| gate.ends_with(" b1 p101")), "{:?}", w.open_gates());
    w.executor.event(Event::Input(Input::SourceClosed { source: SourceId(101) }));
    let again = json!({ "transportId": "t1", "kind": "audio", "channelId": "ops", "rtpParameters": {} });
    w.ask(dana, "produce", again);
    assert!(w.open_gates().iter().all(|gate| gate.ends_with(" b1 p102")), "{:?}", w.open_gates());
}

#[test]
fn the_audit_has_every_press_with_its_stamps_and_how_fast_a_talker_was_cut_off() {
    let mut w = World::new();
    let gina = w.enter("gina", "Gina", "general", &["ops"]);
    w.ask(gina, "ptt-start", json!({ "channelId": "ops" }));
    let before = w.audit_length();
    let pressed = w.now();
    w.board.move_input(&"desk.ptt.ops".into(), true, pressed).unwrap();
    w.now.fetch_add(Duration::from_micros(3_500).as_nanos() as u64, Ordering::Relaxed);
    w.turn();
    w.pass(1_250);
    w.line("desk.ptt.ops", false);
    let released = w.now();
    let rows = w.rows(before);
    let find =
        |action: &str| rows.iter().find(|row| row.action == action).unwrap_or_else(|| panic!("{action}: {rows:#?}"));
    let press = find("gpio.press");
    assert_eq!((press.actor.as_deref(), &press.detail["stampNs"]), (Some("desk-1"), &json!(pressed.0)));
    let release = find("gpio.release");
    assert_eq!((&release.detail["stampNs"], &release.detail["heldMs"]), (&json!(released.0), &json!(1253)));
    let measured = find("priority_ptt.measured");
    assert_eq!(
        [&measured.actor, &measured.target, &measured.channel, &measured.burst].map(|text| text.as_deref().unwrap()),
        ["desk-1", "gina", "ops", "b2"]
    );
    assert_eq!(measured.detail["requestToShutMs"], 3.5);
    assert_eq!(measured.detail["interruptedBurst"], "b1");
    assert_eq!(measured.detail["requestToFirstPacketMs"], Value::Null, "the simulated microphone sends none");
}
