//! A desk's buttons and lamps, on injected time.

use super::tests::{DANA, DESK, DORA, World, button, has, ptt, settings};
use super::*;

/// What a line shows, by its name.
fn shows(w: &World, line: &str) -> Shows {
    let lamps = w.control.lamps();
    lamps.into_iter().find(|(name, _)| name.as_str() == line).expect("the desk has that lamp").1
}

/// The changes of one line within so many milliseconds: milliseconds from now, and lit or dark.
fn changes(w: &mut World, line: &str, ms: u64) -> Vec<(u64, bool)> {
    let mut seen = Vec::new();
    for after in 1..=ms {
        for change in w.pass(1) {
            if let Some(level) = change.strip_prefix(&format!("line {line} ")) {
                seen.push((after, level == "on"));
            }
        }
    }
    seen
}

#[test]
fn a_lamp_tells_own_talk_from_that_of_others_and_a_refusal_from_both() {
    let mut w = World::new();
    assert_eq!(shows(&w, "desk.tally.ops"), Shows::Idle);
    w.press(DANA, "ops", true);
    assert_eq!(shows(&w, "desk.tally.ops"), Shows::Busy);
    let lines = w.edge("desk.ptt.ops", true);
    assert!(has(&lines, "audit ptt.denied desk-1 ops busy"), "{lines:#?}");
    assert!(has(&lines, "tone s1 on"), "the loudspeaker sounds with it: {lines:#?}");
    assert_eq!(shows(&w, "desk.tally.ops"), Shows::Denied);
    assert_eq!(changes(&mut w, "desk.tally.ops", 1_000).len(), 16, "it flutters, and is lit again after a second");
    assert_eq!(shows(&w, "desk.tally.ops"), Shows::Busy);
    w.edge("desk.ptt.ops", false);
    w.release(DANA, "ops", None);
    w.edge("desk.ptt.ops", true);
    assert_eq!(shows(&w, "desk.tally.ops"), Shows::OwnTalk);
    assert_eq!(changes(&mut w, "desk.tally.ops", 2_000), [(900, false), (1_000, true), (1_900, false), (2_000, true)]);
    let lines = w.edge("desk.ptt.ops", false);
    assert!(has(&lines, "line desk.tally.ops off"), "{lines:#?}");
}

#[test]
fn a_refused_configuration_shows_on_the_fault_lamp_until_something_worse_does() {
    let mut settings = settings();
    settings.misconfigured = true;
    settings.desks[0].fault_tally = Some("desk.tally.fault".into());
    let mut w = World::with(settings);
    assert_eq!(shows(&w, "desk.tally.fault"), Shows::Misconfigured);
    let long_and_short = [(200, true), (300, false), (2_000, true), (3_000, false)]; // it is lit since a second
    assert_eq!(changes(&mut w, "desk.tally.fault", 3_000), long_and_short);
    w.tell(Input::Capture { session: DESK, works: false });
    assert_eq!(shows(&w, "desk.tally.fault"), Shows::Fault);
}

#[test]
fn arming_blinks_faster_and_faster_and_a_broadcast_winks() {
    let mut w = World::new();
    assert!(has(&w.edge("desk.emergency", true), "line desk.tally.emergency on"));
    let seen = changes(&mut w, "desk.tally.emergency", 1_999);
    let gaps: Vec<_> = seen.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(gaps.windows(2).all(|pair| pair[1] <= pair[0]) && gaps.len() > 10, "{seen:?}");
    assert_eq!(shows(&w, "desk.tally.emergency"), Shows::Arming);
    w.pass(1);
    assert_eq!(shows(&w, "desk.tally.emergency"), Shows::Emergency);
    assert_eq!(shows(&w, "desk.tally.ops"), Shows::OwnTalk);
    assert_eq!(changes(&mut w, "desk.tally.emergency", 500), [(400, false), (500, true)]);
}

#[test]
fn e7_a_second_emergency_is_refused_on_the_lamp() {
    let mut w = World::new();
    w.ask(|reply| Input::StartEmergency { session: DANA, hold_ms: 2000.0, reply });
    w.edge("desk.emergency", true);
    let lines = w.pass(2_000);
    assert!(has(&lines, "audit emergency_broadcast.denied desk-1"), "{lines:#?}");
    assert_eq!(shows(&w, "desk.tally.emergency"), Shows::Denied);
    w.pass(1_000);
    assert_eq!(shows(&w, "desk.tally.emergency"), Shows::Emergency);
}

#[test]
fn own_talk_that_a_radio_does_not_follow_yet_shows_as_blocked() {
    let mut w = World::new();
    w.edge("radio.vhf.carrier", true);
    w.pass(20);
    assert_eq!(w.holder("security").as_deref(), Some("VHF 1"));
    w.edge("desk.ptt.security", true);
    assert_eq!(w.holder("security").as_deref(), Some("Desk 1"));
    assert_eq!(shows(&w, "desk.tally.security"), Shows::Blocked);
    w.edge("radio.vhf.carrier", false);
    w.pass(20);
    assert_eq!(shows(&w, "desk.tally.security"), Shows::OwnTalk);
}

#[test]
fn e2_a_missed_hold_is_on_the_fault_lamp_until_the_button_is_pressed_again() {
    let mut settings = settings();
    settings.desks[0].fault_tally = Some("desk.tally.fault".into());
    let mut w = World::with(settings);
    assert_eq!(shows(&w, "desk.tally.fault"), Shows::Idle);
    let pressed = w.now;
    w.now = pressed + Duration::from_secs(5); // the process stood still
    w.tell(Input::Edge { line: "desk.emergency".into(), active: true, stamp: pressed });
    let released = pressed + Duration::from_millis(2_500);
    let lines = w.tell(Input::Edge { line: "desk.emergency".into(), active: false, stamp: released });
    assert!(has(&lines, "audit emergency_broadcast.missed desk-1"), "{lines:#?}");
    assert_eq!(shows(&w, "desk.tally.fault"), Shows::Fault);
    assert_eq!(shows(&w, "desk.tally.emergency"), Shows::Idle, "the fault lamp says it");
    assert_eq!(changes(&mut w, "desk.tally.fault", 4_000).len(), 12, "three flashes every two seconds");
    w.edge("desk.emergency", true);
    assert_eq!(shows(&w, "desk.tally.fault"), Shows::Idle);
}

#[test]
fn f10_a_desk_without_a_microphone_has_its_fault_lamp_on() {
    let mut w = World::new();
    w.tell(Input::Capture { session: DESK, works: false });
    assert_eq!(shows(&w, "desk.tally.emergency"), Shows::Fault, "a desk without a fault lamp shows it here");
    w.tell(Input::Capture { session: DESK, works: true });
    assert_eq!(shows(&w, "desk.tally.emergency"), Shows::Idle);
}

/// The demo's desk with a second contact at its emergency button and at one PTT button.
fn two_contacts() -> World {
    let mut settings = settings();
    settings.desks[0].emergency = Some(ButtonSpec { line: "e".into(), opening: Some("e.nc".into()) });
    settings.desks[0].ptt[0].button = ButtonSpec { line: "p".into(), opening: Some("p.nc".into()) };
    World::with(settings)
}

#[test]
fn a_cut_wire_is_a_fault_and_never_a_press_or_an_emergency() {
    let mut w = two_contacts();
    w.edge("e.nc", true);
    w.edge("p.nc", true);
    let lines = w.pass(60_000);
    assert!(has(&lines, "audit gpio.fault desk-1 wire-break"), "{lines:#?}");
    assert!(!has(&lines, "emergency_broadcast") && !has(&lines, "ptt."), "{lines:#?}");
    assert_eq!(shows(&w, "desk.tally.ops"), Shows::Fault, "the channel whose button it is");
    let told = w.control.readiness().desks;
    assert!(told.iter().any(|t| t.contains("emergency button (e) has a broken wire")), "{told:?}");
    assert!(has(&w.edge("e.nc", false), "audit gpio.healed desk-1"));
    w.edge("e", true);
    w.edge("e.nc", true);
    assert!(has(&w.pass(2_000), "audit emergency_broadcast.start desk-1"));
}

#[test]
fn e8_a_wire_that_breaks_or_a_button_that_sticks_ends_the_broadcast() {
    for breaks in [true, false] {
        let mut w = two_contacts();
        w.edge("e", true);
        w.edge("e.nc", true);
        w.pass(2_000);
        assert!(w.control.emergency().is_some());
        let lines = if breaks { w.edge("e", false) } else { w.pass(118_000) };
        let cause = if breaks { "released" } else { "button-fault" };
        assert!(has(&lines, &format!("audit emergency_broadcast.stop desk-1 {cause}")), "{lines:#?}");
        assert!(breaks || has(&lines, "audit gpio.fault desk-1 stuck"), "{lines:#?}");
    }
}

#[test]
fn a_stuck_talk_button_gives_the_floor_back_and_counts_again_once_it_was_let_go() {
    let mut w = World::new();
    w.edge("desk.ptt.ops", true);
    let lines = w.pass(120_000);
    assert!(has(&lines, "audit gpio.fault desk-1 stuck") && has(&lines, "audit ptt.stop desk-1 ops"), "{lines:#?}");
    w.edge("desk.ptt.ops", false);
    w.edge("desk.ptt.ops", true);
    assert_eq!(w.holder("ops").as_deref(), Some("Desk 1"));
}

#[test]
fn f10_losing_the_chip_is_a_release_and_its_return_heals() {
    let mut w = World::new();
    w.edge("desk.ptt.ops", true);
    w.edge("desk.emergency", true);
    w.pass(2_000);
    assert!(w.control.emergency().is_some());
    let lines = w.tell(Input::LineGone { line: "desk.emergency".into() });
    assert!(has(&lines, "audit emergency_broadcast.stop desk-1 button-fault"), "E8: {lines:#?}");
    w.tell(Input::LineGone { line: "desk.ptt.ops".into() });
    assert!(w.control.readiness().desks[0].contains("chip is gone"));
    assert_eq!(shows(&w, "desk.tally.emergency"), Shows::Fault);
    w.tell(Input::LineReturned { line: "desk.ptt.ops".into(), active: true });
    assert_eq!(w.holder("ops"), None, "F7: pressed while nobody could see it");
    w.edge("desk.ptt.ops", false);
    w.tell(Input::LineReturned { line: "desk.emergency".into(), active: false });
    assert_eq!(w.control.readiness().desks, Vec::<String>::new());
    w.edge("desk.ptt.ops", true);
    assert_eq!(w.holder("ops").as_deref(), Some("Desk 1"));
}

#[test]
fn a_radio_without_the_chip_of_its_ptt_is_told_before_anybody_needs_it() {
    let mut w = World::new();
    w.tell(Input::LineGone { line: "radio.vhf.ptt".into() });
    let security = w.control.readiness().channels.into_iter().find(|c| c.channel.as_str() == "security").unwrap();
    assert_eq!(security.obstacles, ["VHF 1 cannot transmit: the GPIO chip of its PTT line is gone"]);
    w.edge("radio.vhf.carrier", true);
    w.pass(20);
    assert_eq!(w.holder("security").as_deref(), Some("VHF 1"));
    w.tell(Input::LineGone { line: "radio.vhf.carrier".into() });
    w.pass(20);
    assert_eq!(w.holder("security"), None, "F10: a carrier that nobody can see has ended");
}

/// One PTT button, and a selector with a position for each of three channels.
fn selector() -> World {
    let mut settings = settings();
    let position = |id: &str| (format!("select.{id}").as_str().into(), id.into());
    let select = ["ops", "medical", "security"].map(position).to_vec();
    settings.desks[0].ptt = vec![PttSpec { button: button("ptt"), channels: Vec::new(), select }];
    let mut w = World::with(settings);
    w.tell(Input::ActiveAtStart { line: "select.medical".into() });
    w
}

#[test]
fn a_selector_sends_one_button_to_the_channel_that_it_stands_at() {
    let mut w = selector();
    assert_eq!(w.control.readiness().desks, Vec::<String>::new(), "a selector stands somewhere at start");
    w.edge("ptt", true);
    assert_eq!((w.holder("medical").as_deref(), w.holder("ops")), (Some("Desk 1"), None));
    w.edge("select.medical", false);
    w.edge("select.ops", true);
    assert_eq!(w.holder("medical").as_deref(), Some("Desk 1"), "a press belongs to the channel that it began on");
    w.edge("ptt", false);
    assert_eq!(w.holder("medical"), None);
    w.edge("ptt", true);
    assert_eq!(w.holder("ops").as_deref(), Some("Desk 1"));
    w.edge("ptt", false);
    w.edge("select.ops", false);
    let lines = w.edge("ptt", true);
    assert!(has(&lines, "audit ptt.denied desk-1 no-channel-selected"), "between two positions: {lines:#?}");
    assert_eq!(shows(&w, "desk.tally.emergency"), Shows::Denied);
}

#[test]
fn f16_a_selector_that_stands_at_several_channels_talks_on_all_of_them() {
    let mut w = selector();
    w.edge("select.ops", true);
    w.press(DORA, "ops", true);
    w.edge("ptt", true);
    assert_eq!((w.holder("ops").as_deref(), w.holder("medical").as_deref()), (Some("Dora"), Some("Desk 1")));
    assert_eq!((shows(&w, "desk.tally.ops"), shows(&w, "desk.tally.medical")), (Shows::Denied, Shows::OwnTalk));
    w.edge("ptt", false);
    assert_eq!((w.holder("ops").as_deref(), w.holder("medical")), (Some("Dora"), None));
}

#[test]
fn of_two_buttons_on_one_channel_the_last_one_let_go_ends_the_burst_and_a_stale_one_ends_nothing() {
    let mut settings = settings();
    settings.desks[0].ptt = vec![ptt("one", &["ops"]), ptt("all", &["ops", "medical"])];
    let mut w = World::with(settings);
    w.edge("one", true);
    w.edge("all", true);
    w.edge("one", false);
    assert_eq!(w.holder("ops").as_deref(), Some("Desk 1"), "the other button is pressed");
    w.ask(|reply| Input::StartEmergency { session: DANA, hold_ms: 2000.0, reply });
    w.ask(|reply| Input::StopEmergency { session: DANA, reply });
    w.edge("one", true);
    w.edge("all", false);
    assert_eq!(w.holder("ops").as_deref(), Some("Desk 1"), "F8: the interrupted button ends nothing");
    w.edge("one", false);
    assert_eq!(w.holder("ops"), None);
}

#[test]
fn every_press_and_release_is_on_record_with_its_stamps() {
    let mut w = World::new();
    let press = w.now;
    w.control.handle(Input::Edge { line: "desk.ptt.ops".into(), active: true, stamp: press }, press);
    let late = press + Duration::from_millis(700);
    let release = press + Duration::from_millis(640);
    w.control.handle(Input::Edge { line: "desk.ptt.ops".into(), active: false, stamp: release }, late);
    let mut records = Vec::new();
    while let Some(effect) = w.control.next_effect() {
        let Effect::Audit(record) = effect else { continue };
        let of = |key: &str| record.detail[key].as_u64();
        records.push((record.action.as_str(), of("stampNs"), of("heldMs")));
    }
    records.retain(|(action, ..)| action.starts_with("gpio."));
    assert_eq!(records, [("gpio.press", Some(press.0), None), ("gpio.release", Some(release.0), Some(640))]);
}

#[test]
fn a_buzzer_sounds_in_the_pattern_of_the_lamp() {
    let mut settings = settings();
    settings.desks[0].buzzer = Some("buzzer".into());
    let mut w = World::with(settings);
    assert!(has(&w.edge("desk.emergency", true), "line buzzer on"));
    let lamp = changes(&mut w, "desk.tally.emergency", 400);
    w.edge("desk.emergency", false);
    w.pass(1_000);
    w.edge("desk.emergency", true);
    assert_eq!(changes(&mut w, "buzzer", 400), lamp);
    let lines = w.edge("desk.emergency", false);
    assert!(!has(&lines, "line buzzer on"), "{lines:#?}");
}
