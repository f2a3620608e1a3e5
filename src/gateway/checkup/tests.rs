//! A box of files: what its kernel tells and what its gateway holds becomes facts, word for word.

use super::*;
use crate::net::authority::Authority;
use std::collections::BTreeSet;

const BOARD: &str = "name = \"Own\"\nlike = \"rpi-4b\"\nbackend = \"cdev\"\nchip = \"no-such-chip\"\n\
    [[line]]\nname = \"radio.1.ptt\"\ndirection = \"output\"\noffset = 2\npin = 3\n";
const CONFIG: &str = "board = \"own.toml\"\n[event]\nid = \"e\"\n[tls]\nlisten = \"127.0.0.1:0\"\n\
    [[channel]]\nid = \"ops\"\nname = \"Operations\"\n\
    [[desk]]\nuser = \"d\"\nname = \"Desk 1\"\ncapture_pcm = \"one\"\nplayback_pcm = \"one\"\n\
    [[desk.button]]\nchannel = \"ops\"\nptt_line = \"button.1\"\n\
    [[radio]]\nid = \"vhf\"\nuser = \"r\"\nname = \"VHF\"\nchannel = \"ops\"\ncapture_pcm = \"two\"\n\
    carrier_line = \"radio.1.carrier\"\nptt_line = \"radio.1.ptt\"\n";

#[test]
fn what_the_kernel_tells_and_the_gateway_holds_is_what_is_judged() {
    let dir = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("own.toml", BOARD);
    put("event.toml", CONFIG);
    put("state/update/not-given.txt", "bring it anew\n");
    put("state/in-memory.txt", "restart the box\n");
    put("proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.5\0");
    put("proc/self/mountinfo", "21 1 179:2 / / ro,relatime - ext4 /dev/mmcblk0p2 ro\n");
    put("sys/dev/block/179:2/device/life_time", "0x02 0x0a\n");
    put("sys/class/thermal/thermal_zone0/temp", "61000\n");
    put("sys/class/hwmon/hwmon0/name", "rpi_volt\n");
    put("sys/class/hwmon/hwmon0/in0_lcrit_alarm", "1\n");
    put("sys/class/rtc/rtc0/since_epoch", "1748772000\n");
    let file = dir.path().join("event.toml");
    let checkup = Checkup {
        state_dir: dir.path().join("state"),
        config: Config::read(&file).map_err(|e| e.0),
        config_file: Some(file),
        listen: "127.0.0.1:8080".parse().unwrap(),
        listen_tls: None,
        media_port: 40000,
        machine: Machine::below(dir.path()),
    };
    let seen = |name: &str, level, moves| LineSeen { name: name.into(), level, moves };
    let held = Held {
        lines: vec![
            seen("button.1", Ok(true), 3),
            seen("radio.1.carrier", Ok(true), 0),
            seen("radio.1.ptt", Err("gone".into()), 0),
        ],
        degraded: vec![("VHF capture".into(), "plug it in".into())],
        meters: [("desk.microphone".to_owned(), Level { clipped: 7, ..Level::default() })].into(),
        media: "192.0.2.9:40009".parse().unwrap(),
        tls: Some("192.0.2.7:8443".parse().unwrap()),
        shown: serde_json::json!({ "origins": ["https://gate-1.local:8443"] }),
        sha256: Some("what was read".into()),
    };
    assert!(checkup.facts(Some(&held)).certificate.unwrap().to_be_made);
    let tls = checkup.state_dir.join("tls");
    let names = BTreeSet::from(["gate-2.local".to_owned()]);
    Authority::open(&tls, &names).unwrap().server(&names, unix_ms_now() / 1000).unwrap();
    let facts = checkup.facts(Some(&held));

    let board = facts.board.unwrap();
    assert_eq!(board.model.as_deref(), Some("Raspberry Pi 4 Model B Rev 1.5"));
    assert_eq!((board.wanted_chips, board.fitting), (vec!["no-such-chip".to_owned()], vec!["rpi-4b".to_owned()]));
    assert!(!board.chips.contains(&"no-such-chip".to_owned()));
    assert!(board.hazards[0].starts_with("line 'radio.1.ptt' is on GPIO 2"), "{:?}", board.hazards);
    let line = |name: &str| facts.lines.iter().find(|line| line.name == name).unwrap();
    let (button, carrier, ptt) = (line("button.1"), line("radio.1.carrier"), line("radio.1.ptt"));
    assert_eq!((button.level.clone(), button.moves, button.place.as_str()), (Some(Ok(true)), 3, "pin 29"));
    assert_eq!([button, carrier, ptt].map(|line| line.may_be_active), [false, true, false]);
    assert_eq!([button, carrier, ptt].map(|line| line.keys_transmitter), [false, false, true]);
    assert_eq!([button, carrier, ptt].map(|line| line.input), [true, true, false]);
    assert_eq!(ptt.level, Some(Err("gone".into())));
    let sound: Vec<_> =
        facts.sound.iter().map(|s| (s.name.as_str(), s.fault.as_deref(), s.level.map(|l| l.clipped))).collect();
    assert_eq!(sound[0], ("Desk 1 microphone", None, Some(7)));
    assert_eq!(sound[2], ("VHF receive", Some("plug it in"), None));

    assert_eq!(facts.not_given.as_deref(), Some("bring it anew"));
    assert_eq!(facts.gateway.unwrap().degraded, held.degraded);
    assert!(facts.configuration.sha256.is_some() && facts.configuration.loaded_sha256 == held.sha256);
    assert!(facts.clock.battery_clock_s == Some(1_748_772_000) && facts.clock.not_before_s > 1_748_772_000);
    let disk = facts.disk;
    assert_eq!((disk.file_system.as_str(), disk.read_only, disk.life_used_tenths), ("ext4", true, Some(10)));
    assert!(disk.free_bytes < disk.total_bytes && matches!(disk.write, Some(Ok(_))), "{disk:?}");
    assert_eq!(disk.in_memory.as_deref(), Some("restart the box"));
    assert_eq!((facts.temperatures, facts.under_voltage), (vec![("the sensor".to_owned(), 61.0)], Some(true)));
    assert_eq!(facts.network.tls.as_deref(), Some("192.0.2.7:8443"));
    assert_eq!(facts.network.origins, ["https://gate-1.local:8443"]);
    assert!(facts.ports.iter().all(|port| port.state == crate::doctor::facts::PortState::Ours));
    assert_eq!(facts.ports[1].address, "UDP 192.0.2.9:40009");
    assert_eq!(facts.network.media, ["192.0.2.9:40009"]);
    let own = crate::net::addresses::interfaces().unwrap();
    let own: Vec<_> = own.into_iter().map(|(name, ip)| (name, ip.to_string())).collect();
    assert_eq!(facts.network.addresses, own);
    let certificate = facts.certificate.unwrap();
    assert_eq!((certificate.names, certificate.missing), (vec!["gate-2.local".into()], vec!["gate-1.local".into()]));
    assert!(certificate.own_authority && !certificate.to_be_made && certificate.fault.is_none());
    let authority = crate::net::certificate::read(&tls.join("ca.pem")).unwrap();
    assert_eq!((certificate.begins_s, certificate.ends_s), (authority.begins_s, authority.ends_s));
    assert!(facts.audit.is_none());
    assert_eq!(facts.clock.synchronised, wall_now().synchronised);
}
