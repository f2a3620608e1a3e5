//! Every check on facts that were made up: a box that is well, then one thing wrong at a time.

use super::facts::*;
use super::*;

/// A box with which nothing is wrong.
fn well() -> Facts {
    let line = |name: &str, input: bool| Line {
        name: name.into(),
        used_for: "PTT of Operations".into(),
        input,
        place: "pin 29".into(),
        level: input.then_some(Ok(false)),
        ..Line::default()
    };
    let level = Level { average_dbfs: -20.0, peak_dbfs: -8.0, clipped: 0 };
    let card = |name: &str, level| Sound { name: name.into(), device: Some("usb:1-1.3".into()), fault: None, level };
    let certificate = Certificate {
        own_authority: true,
        begins_s: 1_000,
        ends_s: 2_000_000_000,
        ends: "2033-05-18".into(),
        names: vec!["gate.local".into()],
        ..Certificate::default()
    };
    Facts {
        at: "2025-06-01T10:00:00Z".into(),
        now_s: 1_748_772_000,
        program: "1.2.3".into(),
        not_given: None,
        gateway: None,
        state_dir: "/var/lib/crosspatch".into(),
        closed: false,
        configuration: Configuration { holds: "event 'demo': 4 channels".into(), ..Configuration::default() },
        board: Some(Board {
            profile: "rpi-4b".into(),
            model: Some("Raspberry Pi 4 Model B Rev 1.5".into()),
            wanted_chips: vec!["pinctrl-bcm2711".into()],
            chips: vec!["raspberrypi-exp-gpio".into(), "pinctrl-bcm2711".into()],
            ..Board::default()
        }),
        lines: vec![line("button.1", true), line("lamp.1", false)],
        sound: vec![card("VHF 1 receive", Some(level)), card("VHF 1 transmit", None)],
        clock: Clock { synchronised: true, battery_clock_s: None, not_before_s: 1_748_000_000 },
        disk: Disk {
            mount: "/data".into(),
            file_system: "ext4".into(),
            free_bytes: 12_000_000_000,
            total_bytes: 16_000_000_000,
            write: Some(Ok(14)),
            kind: Some("MMC".into()),
            life_used_tenths: Some(2),
            spare: Some(1),
            ..Disk::default()
        },
        network: Network {
            tls: Some("0.0.0.0:8443".into()),
            addresses: vec![("eth0".into(), "192.0.2.7".into())],
            media: vec!["192.0.2.7:40000".into()],
            origins: vec!["https://192.0.2.7:8443".into()],
        },
        ports: vec![Port { what: "media".into(), address: "UDP 0.0.0.0:40000".into(), state: PortState::Free }],
        certificate: Some(certificate),
        audit: Some(Ok(Audit { last_seq: 812, checkpoints: 3, ..Audit::default() })),
        temperatures: vec![("cpu-thermal".into(), 58.4)],
        under_voltage: Some(false),
    }
}

fn check(name: &str, facts: &Facts) -> Check {
    examine(facts).checks.into_iter().find(|check| check.name == name).unwrap()
}

/// The sentences of a check that fails, and of no other one.
fn fails(name: &str, change: impl FnOnce(&mut Facts)) -> String {
    let mut facts = well();
    change(&mut facts);
    let report = examine(&facts);
    let failed: Vec<_> = report.checks.iter().filter(|check| check.outcome == Outcome::Fail).collect();
    assert_eq!(failed.iter().map(|check| check.name.as_str()).collect::<Vec<_>>(), [name], "{failed:?}");
    assert!(!report.is_well());
    failed[0].found.join("\n")
}

fn skips(name: &str, change: impl FnOnce(&mut Facts)) -> String {
    let mut facts = well();
    change(&mut facts);
    let check = check(name, &facts);
    assert_eq!(check.outcome, Outcome::Skip, "{check:?}");
    check.found.join("\n")
}

/// Fails unless the text has all of these.
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_box_that_is_well_passes_and_fits_on_one_screen() {
    let report = examine(&well());
    assert!(report.is_well(), "{report:?}");
    let skipped: Vec<_> =
        report.checks.iter().filter(|c| c.outcome == Outcome::Skip).map(|c| c.name.as_str()).collect();
    assert_eq!(skipped, ["gateway", "buttons", "lamps"], "what needs a gateway or a person");
    let text = as_text(&report);
    assert!(text.lines().count() <= 36 && text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
}

#[test]
fn nothing_known_is_never_a_pass_but_for_the_version_and_the_configuration() {
    let report = examine(&Facts::default());
    let passed: Vec<_> = report.checks.iter().filter(|c| c.outcome == Outcome::Pass).map(|c| c.name.as_str()).collect();
    assert_eq!(passed, ["versions", "configuration"]);
}

#[test]
fn the_wrong_board_is_named_with_the_profile_that_fits() {
    let told = fails("board", |facts| {
        let board = facts.board.as_mut().unwrap();
        board.model = Some("Raspberry Pi 5 Model B Rev 1.0".into());
        (board.chips, board.fitting) = (vec!["pinctrl-rp1".into()], vec!["rpi-5".into()]);
    });
    says(&told, &["'rpi-4b' is for the chip 'pinctrl-bcm2711', and Raspberry Pi 5", "write board = \"rpi-5\""]);
    let told = fails("board", |facts| facts.board.as_mut().unwrap().chips.clear());
    says(&told, &["shows no GPIO chip", "gpiodetect"]);
    says(&fails("board", |facts| facts.board.as_mut().unwrap().hazards.push("GPIO 2 is pulled".into())), &["GPIO 2"]);
    skips("board", |facts| facts.board.as_mut().unwrap().simulated = true);
    skips("board", |facts| facts.board = None);
}

#[test]
fn a_pin_that_is_held_or_pressed_is_named_with_its_place() {
    let told = fails("pins", |facts| facts.lines[0].level = Some(Err("held by 'gpiomon'; stop that".into())));
    says(&told, &["gpiomon"]);
    let told = fails("pins", |facts| facts.lines[0].level = Some(Ok(true)));
    says(&told, &["button.1 (PTT of Operations, pin 29) is active", "let go of it"]);
    let mut facts = well();
    (facts.lines[0].may_be_active, facts.lines[0].level) = (true, Some(Ok(true)));
    says(&check("pins", &facts).found.join("\n"), &["2 lines are free and at rest", "active now: button.1"]);
    assert!(examine(&facts).is_well(), "a carrier may be open");
    skips("pins", |facts| facts.lines[0].level = None);
    skips("pins", |facts| facts.lines.clear());
}

#[test]
fn buttons_pass_when_they_have_moved_and_lamps_when_they_were_seen() {
    says(&skips("buttons", |_| {}), &["not tried: button.1", "--walk"]);
    let mut facts = well();
    facts.gateway = Some(Gateway::default());
    says(&check("buttons", &facts).found[0], &["not moved since the gateway's start: button.1"]);
    facts.lines[0].moves = 2;
    assert_eq!(check("buttons", &facts).outcome, Outcome::Pass);
    facts.lines[0].walked = Some(Walked::Well);
    assert_eq!(check("buttons", &facts).found, ["1 of 1 tried and well"]);
    says(
        &fails("buttons", |facts| facts.lines[0].walked = Some(Walked::Failed)),
        &["button.1", "did not move", "check its wire"],
    );
    says(
        &fails("lamps", |facts| facts.lines[1].walked = Some(Walked::Failed)),
        &["lamp.1", "did not light", "its driver"],
    );
    let left_out = |facts: &mut Facts| facts.lines[1].walked = Some(Walked::LeftOut("it keys a transmitter".into()));
    says(&skips("lamps", left_out), &["0 of 1", "lamp.1 was left out: it keys a transmitter"]);
}

#[test]
fn a_missing_card_and_a_bad_level_are_named() {
    let told = fails("sound cards", |facts| facts.sound[0].fault = Some("it is not plugged in; plug it in".into()));
    says(&told, &["VHF 1 receive: it is not plugged in; plug it in"]);
    let level = |average_dbfs: f64, peak_dbfs: f64, clipped: u64| {
        move |facts: &mut Facts| facts.sound[0].level = Some(Level { average_dbfs, peak_dbfs, clipped })
    };
    says(&fails("levels", level(-20.0, 0.0, 7)), &["VHF 1 receive clips (7 samples); lower the gain"]);
    says(&fails("levels", level(-20.0, -2.0, 0)), &["peaks at -2 dBFS, above -3"]);
    says(&fails("levels", level(-9.0, -4.0, 0)), &["averages -9 dBFS, above -12"]);
    says(&skips("levels", level(-96.0, -96.0, 0)), &["hears nothing at all", "alsamixer"]);
    let simulated = |facts: &mut Facts| facts.sound.iter_mut().for_each(|sound| sound.device = None);
    skips("sound cards", simulated);
    skips("levels", simulated);
}

#[test]
fn what_is_wrong_with_many_pins_alike_is_said_once() {
    let told = fails("pins", |facts| {
        for line in &mut facts.lines {
            line.level = Some(Err(format!("gpio line '{}' cannot be used: it is not there now", line.name)));
        }
    });
    assert!(told.lines().count() == 1 && told.contains("; the same of "), "{told}");
}

#[test]
fn a_clock_that_went_back_fails_and_one_that_nobody_keeps_is_for_a_person_to_judge() {
    says(&fails("clock", |facts| facts.now_s = 1_700_000_000), &["earlier than the last record", "date --utc --set"]);
    let told = skips("clock", |facts| facts.clock.synchronised = false);
    says(&told, &["it says 2025-06-01 10:00 UTC", "there is no battery clock"]);
    let battery = |s: u64| {
        move |facts: &mut Facts| {
            (facts.clock.synchronised, facts.clock.battery_clock_s) = (false, Some(s));
        }
    };
    says(&fails("clock", battery(1_600_000_000)), &["the battery clock says something else"]);
    let mut facts = well();
    battery(1_748_772_010)(&mut facts);
    says(&check("clock", &facts).found[0], &["the battery clock keeps it"]);
}

#[test]
fn a_full_a_read_only_a_slow_and_a_worn_disk_fail() {
    says(&fails("disk", |facts| facts.disk.free_bytes = 40_000_000), &["only 40 MB of 16 GB are free", "keep_mb"]);
    says(
        &fails("disk", |facts| facts.disk.write = Some(Err("the disk is full; delete recordings".into()))),
        &["is full"],
    );
    let read_only = |facts: &mut Facts| {
        (facts.disk.read_only, facts.disk.write) = (true, Some(Err("read-only".into())));
    };
    assert_eq!(fails("disk", read_only).lines().count(), 1, "one fault, one sentence");
    says(&fails("disk", |facts| facts.disk.write = Some(Ok(4_200))), &["took 4200 ms", "replace it"]);
    says(&fails("disk", |facts| facts.disk.in_memory = Some("restart the box".into())), &["restart the box"]);
    says(&fails("disk", |facts| facts.disk.unknown = Some("it is not there; mount it".into())), &["mount it"]);
    says(&fails("wear", |facts| facts.disk.life_used_tenths = Some(9)), &["end of its life"]);
    says(&fails("wear", |facts| facts.disk.spare = Some(3)), &["back up the configuration"]);
    let card = |facts: &mut Facts| {
        facts.disk = Disk { kind: Some("SD".into()), made: Some("05/2021".into()), ..Disk::default() };
    };
    says(&skips("wear", card), &["an SD card (made 05/2021) does not tell"]);
}

#[test]
fn a_network_without_an_address_that_clients_can_use_fails() {
    says(&fails("network", |facts| facts.network.addresses.clear()), &["plug a cable in"]);
    says(&fails("network", |facts| facts.network.addresses[0].1 = "169.254.3.4".into()), &["no DHCP server"]);
    says(&fails("network", |facts| facts.network.media.clear()), &["announce under [media]"]);
    says(&skips("network", |facts| facts.network.tls = None), &["listen = \"0.0.0.0:8443\""]);
}

#[test]
fn a_port_of_somebody_else_is_named_with_who_has_it() {
    let taken = |facts: &mut Facts| facts.ports[0].state = PortState::Taken(Some("nginx (process 812)".into()));
    says(&fails("ports", taken), &["UDP 0.0.0.0:40000 for media is taken by nginx (process 812); stop that"]);
    let refused = |facts: &mut Facts| facts.ports[0].state = PortState::Refused("permission denied".into());
    says(&fails("ports", refused), &["cannot be had: permission denied"]);
}

#[test]
fn a_certificate_that_has_ended_or_soon_will_fails() {
    let of = |change: fn(&mut Certificate)| fails("certificate", |facts| change(facts.certificate.as_mut().unwrap()));
    says(&of(|c| c.ends_s = 1_700_000_000), &["it has ended on 2033-05-18; renew it"]);
    says(&of(|c| (c.own_authority, c.ends_s) = (false, 1_748_772_000 + 86_400)), &["it ends on 2033-05-18; renew it"]);
    says(&of(|c| c.begins_s = 1_900_000_000), &["not valid yet by the box's clock"]);
    says(&of(|c| c.missing.push("192.0.2.7".into())), &["it is not for 192.0.2.7"]);
    says(&of(|c| c.fault = Some("own.pem cannot be read; name a file".into())), &["own.pem cannot be read"]);
    skips("certificate", |facts| facts.certificate = None);
    skips("certificate", |facts| facts.certificate.as_mut().unwrap().to_be_made = true);
}

#[test]
fn a_broken_chain_fails_and_a_file_that_cannot_be_read_too() {
    let broken = |facts: &mut Facts| {
        facts.audit = Some(Ok(Audit { broken: Some("record 7 was changed".into()), ..Audit::default() }));
    };
    says(&fails("audit", broken), &["its chain is broken: record 7 was changed; keep a copy"]);
    fails("audit", |facts| facts.audit = Some(Err("it cannot be read".into())));
    skips("audit", |facts| facts.audit = None);
}

#[test]
fn who_may_not_enter_the_state_directory_is_not_told_that_it_is_empty() {
    let closed = |facts: &mut Facts| {
        (facts.closed, facts.audit, facts.disk.write) = (true, None, None);
        facts.certificate.as_mut().unwrap().to_be_made = true;
    };
    for name in ["gateway", "certificate", "audit"] {
        says(&skips(name, closed), &["may look into /var/lib/crosspatch; look as root"]);
    }
    let mut facts = well();
    closed(&mut facts);
    assert!(examine(&facts).is_well(), "nothing of it is a fault of the box");
    facts.certificate.as_mut().unwrap().own_authority = false;
    facts.certificate.as_mut().unwrap().to_be_made = false;
    assert_eq!(check("certificate", &facts).outcome, Outcome::Pass, "one of its own is elsewhere");
}

#[test]
fn heat_and_a_low_supply_fail() {
    says(&fails("temperature", |facts| facts.temperatures[0].1 = 82.0), &["cpu-thermal is at 82 °C", "give it air"]);
    says(&fails("supply", |facts| facts.under_voltage = Some(true)), &["5.1 V and 3 A"]);
    skips("temperature", |facts| facts.temperatures.clear());
    skips("supply", |facts| facts.under_voltage = None);
}

#[test]
fn degraded_parts_and_a_configuration_that_was_not_taken_fail() {
    let degraded = |facts: &mut Facts| {
        facts.gateway = Some(Gateway { degraded: vec![("Desk 1 capture".into(), "gone; plug it in".into())] });
    };
    says(&fails("gateway", degraded), &["Desk 1 capture: gone; plug it in"]);
    let changed = |facts: &mut Facts| {
        facts.configuration.file = Some("/etc/crosspatch/crosspatch.toml".into());
        (facts.configuration.sha256, facts.configuration.loaded_sha256) = (Some("aa".into()), Some("bb".into()));
    };
    says(&fails("versions", changed), &["was changed after the gateway read it", "crosspatch reload"]);
    says(&fails("versions", |facts| facts.not_given = Some("it was refused; bring it".into())), &["refused; bring it"]);
    says(&fails("configuration", |facts| facts.configuration.errors.push("x.toml:3: no".into())), &["x.toml:3"]);
}
