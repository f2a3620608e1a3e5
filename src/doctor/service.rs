//! The gateway as a service: what it reads, writes, serves and vouches for.

use super::Check;
use super::facts::{Facts, Port, PortState};

const DAY_S: u64 = 24 * 3600;
/// How long before its end a certificate from elsewhere has to be renewed.
const NOTICE_S: u64 = 14 * DAY_S;
/// How far a battery clock may be off.
const CLOCK_DRIFT_S: u64 = 300;
/// Works with and without a service that asks time servers; `timedatectl set-time` refuses beside one.
const SET_CLOCK: &str = "set it with `date --utc --set \"YYYY-MM-DD hh:mm\"`";
/// Less than this is as good as full, in bytes and in percent.
const LEAST_FREE_BYTES: u64 = 64_000_000;
const LEAST_FREE_PERCENT: u64 = 5;
/// How long a small file may take to be safe on disk.
const SLOWEST_WRITE_MS: u64 = 1000;
/// Tenths of an eMMC's lifetime.
const OLD_TENTHS: u8 = 9;

/// Why what is in the state directory is not known to whoever looks.
fn closed(facts: &Facts) -> Option<String> {
    let dir = facts.state_dir.display();
    facts.closed.then(|| format!("only root and the gateway's user may look into {dir}; look as root"))
}

pub(super) fn gateway(facts: &Facts) -> Check {
    const NAME: &str = "gateway";
    let Some(gateway) = &facts.gateway else {
        if let Some(why) = closed(facts) {
            return Check::skip(NAME, format!("none answers, and {why}"));
        }
        let dir = facts.state_dir.display();
        return Check::skip(NAME, format!("none runs with {dir}, so lines and cards were opened for this look"));
    };
    let wrong = gateway.degraded.iter().map(|(part, why)| format!("{part}: {why}")).collect();
    Check::unless(NAME, wrong, || Check::pass(NAME, "it runs, and no part of it is degraded"))
}

pub(super) fn versions(facts: &Facts) -> Check {
    const NAME: &str = "versions";
    let configuration = &facts.configuration;
    let mut wrong: Vec<_> = facts.not_given.iter().cloned().collect();
    if let (Some(file), Some(loaded)) = (&configuration.file, &configuration.loaded_sha256)
        && configuration.sha256.as_ref() != Some(loaded)
    {
        wrong.push(format!(
            "{} was changed after the gateway read it; take it with `crosspatch reload`, or restart the gateway",
            file.display()
        ));
    }
    let hash = configuration.sha256.as_deref().and_then(|hash| hash.get(..12));
    let hash = hash.map(|hash| format!(", configuration {hash}")).unwrap_or_default();
    Check::unless(NAME, wrong, || Check::pass(NAME, format!("crosspatch {}{hash}", facts.program)))
}

pub(super) fn configuration(facts: &Facts) -> Check {
    const NAME: &str = "configuration";
    let configuration = &facts.configuration;
    Check::unless(NAME, configuration.errors.clone(), || Check::pass(NAME, configuration.holds.clone()))
}

pub(super) fn clock(facts: &Facts) -> Check {
    const NAME: &str = "clock";
    let clock = &facts.clock;
    if facts.now_s < clock.not_before_s {
        let sentence = format!(
            "it is earlier than the last record, or than this program's making; {SET_CLOCK}, or connect the box to a \
             network with a time server"
        );
        return Check::fail(NAME, sentence);
    }
    if clock.synchronised {
        return Check::pass(NAME, "it is set by the network");
    }
    match clock.battery_clock_s {
        Some(battery_s) if battery_s.abs_diff(facts.now_s) <= CLOCK_DRIFT_S => {
            Check::pass(NAME, "nobody has set it since the start; the battery clock keeps it")
        }
        Some(_) => Check::fail(
            NAME,
            format!(
                "it is not set by the network, and the battery clock says something else; see which is right, then \
                 {SET_CLOCK}"
            ),
        ),
        // On a site without the internet that is how it is, and nobody but a person can tell.
        None => Check::skip(
            NAME,
            format!(
                "it says {}; no network sets it and there is no battery clock, so look whether that is right; else \
                 {SET_CLOCK}",
                facts.at.get(..16).unwrap_or(&facts.at).replace('T', " ") + " UTC"
            ),
        ),
    }
}

/// Bytes as people say them.
fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

pub(super) fn disk(facts: &Facts) -> Check {
    const NAME: &str = "disk";
    let disk = &facts.disk;
    if let Some(why) = &disk.unknown {
        return Check::fail(NAME, why.clone());
    }
    let mut wrong: Vec<_> = disk.in_memory.iter().cloned().collect();
    let place = format!("{} ({})", disk.mount, disk.file_system);
    if disk.read_only {
        wrong.push(format!(
            "{place} is mounted read-only, so nothing is kept; see why in `journalctl -k`, repair it with fsck, then \
             restart the box"
        ));
    }
    if disk.free_bytes < LEAST_FREE_BYTES || disk.free_bytes * 100 < disk.total_bytes * LEAST_FREE_PERCENT {
        wrong.push(format!(
            "only {} of {} are free on {place}; lower keep_mb in [audit] and [recorder], or use a larger disk",
            bytes(disk.free_bytes),
            bytes(disk.total_bytes)
        ));
    }
    let took = match &disk.write {
        Some(Err(why)) if !disk.read_only => {
            wrong.push(format!("nothing can be written to {}: {why}", facts.state_dir.display()));
            String::new()
        }
        Some(Ok(ms)) if *ms > SLOWEST_WRITE_MS => {
            wrong.push(format!(
                "a small file took {ms} ms to be safe on {place}; the card is worn out or a bad one: replace it"
            ));
            String::new()
        }
        Some(Ok(ms)) => format!(", a file is safe in {ms} ms"),
        Some(Err(_)) | None => String::new(),
    };
    Check::unless(NAME, wrong, || {
        let in_memory = ["tmpfs", "ramfs", "overlay"].contains(&disk.file_system.as_str());
        let lost = if in_memory { "; it is in memory, and gone when the box is switched off" } else { "" };
        let (free, total) = (bytes(disk.free_bytes), bytes(disk.total_bytes));
        Check::pass(NAME, format!("{free} of {total} free on {place}{took}{lost}"))
    })
}

pub(super) fn wear(facts: &Facts) -> Check {
    const NAME: &str = "wear";
    let disk = &facts.disk;
    let worn = disk.life_used_tenths.is_some_and(|tenths| tenths >= OLD_TENTHS);
    if worn || disk.spare.is_some_and(|spare| spare > 1) {
        return Check::fail(NAME, "the disk nears the end of its life; back up the configuration and replace it");
    }
    match (disk.life_used_tenths, disk.kind.as_deref()) {
        (Some(tenths), _) => Check::pass(NAME, format!("up to {} % of its life is used", u32::from(tenths) * 10)),
        (None, Some("SD")) => {
            let made = disk.made.as_deref().map(|made| format!(" (made {made})")).unwrap_or_default();
            Check::skip(NAME, format!("an SD card{made} does not tell; replace it every two years"))
        }
        (None, _) => Check::skip(NAME, "this disk does not tell"),
    }
}

pub(super) fn network(facts: &Facts) -> Check {
    const NAME: &str = "network";
    let network = &facts.network;
    let Some(tls) = &network.tls else {
        return Check::skip(NAME, "it is not served; write listen = \"0.0.0.0:8443\" under [tls] to let phones in");
    };
    let assigned = |ip: &String| !ip.starts_with("169.254.");
    if network.addresses.is_empty() {
        return Check::fail(NAME, "no interface has an address; plug a cable in, and check the switch or the Wi-Fi");
    }
    if !network.addresses.iter().any(|(_, ip)| assigned(ip)) {
        return Check::fail(
            NAME,
            "the box has given itself an address, since no DHCP server has answered; check the router, or set an address",
        );
    }
    if network.media.is_empty() {
        return Check::fail(
            NAME,
            "clients are told no address for media; correct interfaces or announce under [media]: no interface of the \
             box has what they name",
        );
    }
    let open =
        network.origins.first().cloned().unwrap_or_else(|| format!("port {}", tls.rsplit(':').next().unwrap_or(tls)));
    Check::pass(NAME, format!("people open {open}; media comes in at {}", network.media.join(", ")))
}

pub(super) fn ports(facts: &Facts) -> Check {
    const NAME: &str = "ports";
    if facts.ports.is_empty() {
        return Check::skip(NAME, "nobody knows which ports are meant");
    }
    let trouble = |port: &Port| {
        let Port { what, address, state } = port;
        match state {
            PortState::Free | PortState::Ours => None,
            PortState::Taken(by) => {
                let by = by.as_deref().unwrap_or("another program; look as root to see which");
                Some(format!("{address} for {what} is taken by {by}; stop that, or choose another port"))
            }
            PortState::Refused(why) => Some(format!(
                "{address} for {what} cannot be had: {why}; use an address of this box and a port above 1023"
            )),
        }
    };
    Check::unless(NAME, facts.ports.iter().filter_map(trouble).collect(), || {
        let addresses: Vec<_> = facts.ports.iter().map(|port| port.address.as_str()).collect();
        let held = if facts.gateway.is_some() { "the gateway's" } else { "free" };
        Check::pass(NAME, format!("{} are {held}", addresses.join(", ")))
    })
}

pub(super) fn certificate(facts: &Facts) -> Check {
    const NAME: &str = "certificate";
    let Some(certificate) = &facts.certificate else {
        return Check::skip(NAME, "the network is not served, so none is needed");
    };
    if let Some(why) = &certificate.fault {
        return Check::fail(NAME, why.clone());
    }
    if let Some(why) = closed(facts).filter(|_| certificate.own_authority) {
        return Check::skip(NAME, why);
    }
    if certificate.to_be_made {
        return Check::skip(NAME, "the gateway makes its authority at its first start");
    }
    if certificate.begins_s > facts.now_s {
        return Check::fail(NAME, "it is not valid yet by the box's clock; set the clock");
    }
    if certificate.ends_s < facts.now_s {
        let sentence = format!("it has ended on {}; renew it, then restart the gateway", certificate.ends);
        return Check::fail(NAME, sentence);
    }
    if !certificate.own_authority && certificate.ends_s < facts.now_s + NOTICE_S {
        let sentence = format!("it ends on {}; renew it, then restart the gateway", certificate.ends);
        return Check::fail(NAME, sentence);
    }
    if !certificate.missing.is_empty() {
        return Check::fail(
            NAME,
            format!("it is not for {}; restart the gateway, which makes a new one", certificate.missing.join(", ")),
        );
    }
    let whose = if certificate.own_authority { "of the box's authority" } else { "from elsewhere" };
    let names: Vec<_> = certificate.names.iter().take(3).map(String::as_str).collect();
    let more = certificate.names.len().saturating_sub(names.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Check::pass(NAME, format!("one {whose}, until {}, for {}{more}", certificate.ends, names.join(", ")))
}

pub(super) fn audit(facts: &Facts) -> Check {
    const NAME: &str = "audit";
    if let Some(why) = closed(facts) {
        return Check::skip(NAME, why);
    }
    match &facts.audit {
        None => Check::skip(NAME, "there is none yet; the gateway begins it at its first start"),
        Some(Err(why)) => Check::fail(NAME, why.clone()),
        Some(Ok(audit)) => match &audit.broken {
            Some(why) => Check::fail(
                NAME,
                format!("its chain is broken: {why}; keep a copy of the file, and see `crosspatch audit verify`"),
            ),
            None => {
                let mut check = Check::pass(
                    NAME,
                    format!(
                        "{} records, their chain is whole, checkpoints compared: {}",
                        audit.last_seq, audit.checkpoints
                    ),
                );
                check.found.extend(audit.notes.iter().cloned());
                check
            }
        },
    }
}
