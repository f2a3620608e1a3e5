//! `crosspatch doctor` beside the installed service and without it, as root and as anybody, with one thing broken at a time.

use super::{CONFIG, PROGRAM, Service, UNIT, run};
use crate::native::doctor::Told;
use crate::sound::{load_card, on_pcms};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const STATE_DIR: &str = "/var/lib/crosspatch";
const DISK_BYTES: u64 = 200 << 20;
/// What a gateway shows of itself may be a moment old.
const SHOWN: Duration = Duration::from_secs(30);

/// The state directory on a small disk of its own, as on a box with a data partition.
struct DataDisk;

impl DataDisk {
    fn mount() -> Result<Self> {
        std::fs::create_dir_all(STATE_DIR)?;
        run("mount", &["-t", "tmpfs", "-o", &format!("size={DISK_BYTES},mode=700"), "tmpfs", STATE_DIR])?;
        Ok(DataDisk)
    }
}

impl Drop for DataDisk {
    fn drop(&mut self) {
        run("umount", &["--lazy", STATE_DIR]).ok();
    }
}

fn root() -> Result<Told> {
    Told::by(Command::new(PROGRAM).args(["doctor", "--json"]))
}

fn anybody() -> Result<Told> {
    Told::by(Command::new("runuser").args(["-u", "nobody", "--", PROGRAM, "doctor", "--json"]))
}

/// The service on its chip and on sound cards, on a box whose clock the network has set.
fn well() -> Result<(Service, DataDisk)> {
    let disk = DataDisk::mount()?;
    load_card()?;
    std::fs::create_dir_all("/run/systemd/timesync")?;
    std::fs::write("/run/systemd/timesync/synchronized", "")?;
    let service = Service::start_with(&on_pcms("plughw:Loopback,1,0", "plughw:Loopback,1,1"))?;
    Ok((service, disk))
}

/// Looks until it is as wanted: what a gateway shows of itself is a moment old.
fn until(look: impl Fn() -> Result<Told>, wanted: impl Fn(&Told) -> Result<()>) -> Result<()> {
    let began = Instant::now();
    loop {
        match wanted(&look()?) {
            Ok(()) => return Ok(()),
            Err(e) => ensure!(began.elapsed() < SHOWN, e),
        }
    }
}

#[test]
fn beside_the_running_service_root_and_anybody_are_told_the_same() -> Result<()> {
    let (service, _disk) = well()?;
    let outcomes =
        |told: &Told| told.checks.iter().map(|(name, (outcome, _))| (name.clone(), outcome.clone())).collect();
    let (by_root, by_anybody) = (root()?, anybody()?);
    let (one, other): (BTreeMap<_, _>, BTreeMap<_, _>) = (outcomes(&by_root), outcomes(&by_anybody));
    assert_eq!((&one, by_root.by_gateway, by_root.code), (&other, by_anybody.by_gateway, by_anybody.code));
    ensure!(by_root.by_gateway && one.len() == 18, "{one:?}");
    by_root.fails_only(&[])?;
    let all =
        ["gateway", "versions", "configuration", "board", "pins", "sound cards", "clock", "disk", "ports", "audit"];
    by_root.passes(&all)?;
    by_anybody.says("pins", "pass", "the gateway's and at rest")?;
    service.chip.unplug()?;
    for look in [root, anybody] {
        until(look, |told| {
            told.fails("pins", "it is not there now")?;
            told.fails("gateway", "there is no gpio chip")
        })?;
    }
    service.chip.plug_in()?;
    until(anybody, |told| told.fails_only(&[]))
}

#[test]
fn a_service_that_came_up_without_its_card_says_which_one_is_missing() -> Result<()> {
    let (service, _disk) = well()?;
    run("systemctl", &["stop", UNIT])?;
    run("modprobe", &["-r", "snd-aloop"])?;
    run("systemctl", &["start", UNIT])?;
    until(root, |told| {
        told.fails_only(&["gateway", "sound cards"])?;
        told.says("sound cards", "fail", "Desk 1 microphone: ")?;
        told.says("sound cards", "fail", "VHF 1 transmit: ")
    })?;
    load_card()?;
    until(anybody, |told| told.fails_only(&[]))?;
    drop(service);
    Ok(())
}

#[test]
fn without_the_service_one_thing_that_is_broken_fails_its_check_and_no_other() -> Result<()> {
    let (service, _disk) = well()?;
    run("systemctl", &["stop", UNIT])?;
    let is_well = || -> Result<()> {
        let told = root()?;
        told.fails_only(&[])?;
        ensure!(!told.by_gateway, "nobody else looked");
        told.says("gateway", "skip", "none runs with /var/lib/crosspatch")?;
        told.says("pins", "pass", "free and at rest")?;
        told.passes(&["board", "sound cards", "clock", "disk", "ports", "audit"])
    };
    is_well()?;

    // Who may not look says so, and calls nothing missing or broken that root finds.
    let told = anybody()?;
    for name in ["gateway", "audit"] {
        told.says(name, "skip", "look as root")?;
    }
    told.passes(&["clock", "disk", "ports", "configuration"])?;
    told.fails("board", "look as root")?;

    run("modprobe", &["-r", "snd-aloop"])?;
    let told = root()?;
    told.fails_only(&["sound cards"])?;
    told.says("sound cards", "fail", "VHF 1 receive: sound device 'plughw:Loopback,1,0' is not there")?;
    load_card()?;
    is_well()?;

    service.chip.unplug()?;
    let told = root()?;
    told.fails_only(&["board", "pins"])?;
    told.says("board", "fail", "shows no GPIO chip")?;
    service.chip.plug_in()?;
    is_well()?;

    service.chip.move_line(super::PTT, true)?;
    root()?.fails_only(&["pins"])?;
    service.chip.move_line(super::PTT, false)?;
    is_well()?;

    let filler = Path::new(STATE_DIR).join("filler");
    let mut file = std::fs::File::create(&filler)?;
    while file.write_all(&[0; 1 << 16]).is_ok() {}
    let told = root()?;
    told.fails_only(&["disk"])?;
    told.says("disk", "fail", "the disk is full; delete recordings")?;
    std::fs::remove_file(&filler)?;
    is_well()?;

    let (now, since) = (SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(), Instant::now());
    run("date", &["-u", "-s", "2001-02-03"])?;
    let told = root();
    run("date", &["-u", "-s", &format!("@{}", now + since.elapsed().as_secs())])?;
    let told = told?;
    told.fails_only(&["clock"])?;
    told.says("clock", "fail", "earlier than the last record")?;

    std::fs::remove_file("/run/systemd/timesync/synchronized")?;
    let told = root()?;
    let (outcome, found) = told.checks.get("clock").context("no check of the clock")?;
    ensure!(found.contains("set it by the network") || found.contains("battery clock"), "{outcome}: {found}");
    std::fs::write("/run/systemd/timesync/synchronized", "")?;

    let taken = TcpListener::bind("127.0.0.1:8080")?;
    let told = root()?;
    told.fails_only(&["ports"])?;
    told.says("ports", "fail", &format!("(process {}); stop that", std::process::id()))?;
    drop(taken);
    is_well()?;

    let good = std::fs::read_to_string(CONFIG)?;
    std::fs::write(CONFIG, good.replace("emergency_hold_ms", "emergency_hold"))?;
    root()?.fails("configuration", "write `emergency_hold_ms`")?;
    std::fs::write(CONFIG, good)?;
    is_well()
}
