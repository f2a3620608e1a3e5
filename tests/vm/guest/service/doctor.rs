//! `crosspatch doctor` beside the installed service, as root and as anybody.

use super::{PROGRAM, Service, UNIT, run};
use crate::native::doctor::Told;
use crate::sound::{load_card, on_pcms};
use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

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
    let _well = well()?;
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
    by_anybody.says("pins", "pass", "the gateway's and at rest")
}

#[test]
fn a_service_that_came_up_without_its_card_says_which_one_is_missing() -> Result<()> {
    let _well = well()?;
    run("systemctl", &["stop", UNIT])?;
    run("modprobe", &["-r", "snd-aloop"])?;
    run("systemctl", &["start", UNIT])?;
    until(root, |told| {
        told.fails_only(&["gateway", "sound cards"])?;
        told.says("sound cards", "fail", "Desk 1 microphone: ")?;
        told.says("sound cards", "fail", "VHF 1 transmit: ")
    })?;
    load_card()?;
    until(anybody, |told| told.fails_only(&[]))
}
