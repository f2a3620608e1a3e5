//! The event that the histories happen at: four channels, two desks, two radios, five people.

use crosspatch::base::{ChannelId, LineName, Role, SessionId, SourceId, UserId};
use crosspatch::control::{ButtonSpec, ChannelSpec, DeskSpec, MIN_HOLD, PortSpec, PttSpec, Settings, Tuning};
use std::sync::LazyLock;
use std::time::Duration;

/// The talk channels; a history may also name [`NOWHERE`].
pub const CHANNELS: [&str; 4] = ["ops", "medical", "security", "logistics"];
/// A channel that the event does not have.
pub const NOWHERE: &str = "nowhere";
/// Hold-to-talk, with a button that asks for two channels (F16).
pub const DESK: SessionId = SessionId(1);
/// Its emergency button latches (E8).
pub const LATCH_DESK: SessionId = SessionId(2);
/// Simplex, with a carrier line.
pub const SIMPLEX: SessionId = SessionId(3);
/// Keys over its own carrier but not in an emergency; VOX.
pub const DUPLEX: SessionId = SessionId(4);
/// The inside sessions.
pub const LOCALS: [SessionId; 4] = [DESK, LATCH_DESK, SIMPLEX, DUPLEX];
/// Everybody who may be a target, the last one never there.
pub const USERS: [&str; 10] =
    ["gina", "greg", "dana", "dora", "ada", "desk-1", "desk-2", "radio-vhf", "radio-uhf", "nobody"];
/// Whose a network socket is: an index into [`USERS`], several sockets for some.
pub const SOCKETS: [usize; 8] = [0, 0, 1, 2, 2, 3, 4, 1];
/// The input lines.
pub const INPUTS: [&str; 6] =
    ["desk.ptt.ops", "desk.ptt.two", "desk.emergency", "latch.ptt.logistics", "latch.emergency", "vhf.carrier"];
/// How long carriers must last to count, and be gone to count as gone.
pub const ATTACK: Duration = Duration::from_millis(20);
/// See [`ATTACK`].
pub const RELEASE: Duration = Duration::from_millis(60);
/// A carrier that is over before this counts for nothing.
pub const FLAP: Duration = Duration::from_millis(50);
/// The longest transmission.
pub const TRANSMIT_TIMEOUT: Duration = Duration::from_secs(11);
/// How often a station identifies itself.
pub const IDENT_INTERVAL: Duration = Duration::from_secs(20);
/// The longest carrier.
pub const CARRIER_TIMEOUT: Duration = Duration::from_secs(15);
/// Key-up to first audio.
pub const LEAD_IN: Duration = Duration::from_millis(200);
/// Last audio to unkey.
pub const PTT_HANG: Duration = Duration::from_millis(100);
/// An own carrier is ignored for so long after a transmission.
pub const INHIBIT: Duration = Duration::from_millis(150);
/// The longest burst of General and Admin.
pub const TALK_LIMIT: Duration = Duration::from_secs(13);
/// The longest emergency.
pub const EMERGENCY_MAX: Duration = Duration::from_secs(40);

/// A button that is pressed for so long is stuck.
pub const STUCK: Duration = Duration::from_secs(25);

/// The role that a user's ordinary token gives.
pub fn role_of(user: &str) -> Role {
    match user {
        "dana" | "dora" | "desk-1" | "desk-2" => Role::Dispatch,
        "ada" => Role::Admin,
        _ => Role::General,
    }
}

/// The channels that a user's token allows: Greg may not join `logistics`.
pub fn allowed(user: &str) -> Vec<ChannelId> {
    let some = CHANNELS.iter().filter(|channel| user != "greg" || **channel != "logistics");
    some.map(|channel| (*channel).into()).collect()
}

/// What a desk or port is.
pub struct Local {
    pub session: SessionId,
    pub user: UserId,
    pub role: Role,
    pub source: SourceId,
    pub channels: Vec<ChannelId>,
}

/// The desks and ports.
pub static SEATS: LazyLock<Vec<Local>> = LazyLock::new(|| {
    let desks = SETTINGS.desks.iter().map(|d| Local {
        session: d.session,
        user: d.user.clone(),
        role: d.role,
        source: d.source,
        channels: d.ptt.iter().flat_map(|ptt| ptt.channels.clone()).collect(),
    });
    let ports = SETTINGS.ports.iter().map(|p| Local {
        session: p.session,
        user: p.user.clone(),
        role: Role::General,
        source: p.source,
        channels: vec![p.channel.clone()],
    });
    desks.chain(ports).collect()
});

fn button(line: &str) -> ButtonSpec {
    ButtonSpec { line: line.into(), opening: None }
}

fn ptt(line: &str, channels: &[&str]) -> PttSpec {
    PttSpec { button: button(line), channels: channels.iter().map(|c| (*c).into()).collect(), select: Vec::new() }
}

fn desk(session: SessionId, user: &str, ptt: Vec<PttSpec>, emergency: &str, latch: bool) -> DeskSpec {
    let channels = ptt.iter().flat_map(|ptt| ptt.channels.clone());
    let tally = channels.map(|c| (LineName::from(format!("{user}.tally.{c}")), vec![c])).collect();
    DeskSpec {
        user: user.into(),
        name: user.to_uppercase(),
        role: Role::Dispatch,
        session,
        source: SourceId(session.0),
        ptt,
        emergency: Some(button(emergency)),
        tally,
        emergency_tally: Some(format!("{user}.tally.emergency").into()),
        fault_tally: Some(format!("{user}.tally.fault").into()),
        buzzer: Some(format!("{user}.buzzer").into()),
        stuck_alarm: STUCK,
        latch,
    }
}

fn port(session: SessionId, user: &str, channel: &str, carrier: Option<&str>) -> PortSpec {
    let simplex = carrier.is_some();
    PortSpec {
        user: user.into(),
        name: user.to_uppercase(),
        channel: channel.into(),
        session,
        source: SourceId(session.0),
        carrier: carrier.map(Into::into),
        ptt: Some(format!("{user}.ptt").into()),
        attack: ATTACK,
        release: RELEASE,
        lead_in: LEAD_IN,
        ptt_hang: PTT_HANG,
        inhibit: INHIBIT,
        flap: FLAP,
        linger: Duration::ZERO,
        carrier_timeout: CARRIER_TIMEOUT,
        transmit_timeout: TRANSMIT_TIMEOUT,
        courtesy_tone: !simplex,
        ident_interval: simplex.then_some(IDENT_INTERVAL),
        radio_first: simplex,
        radio_first_in_emergency: !simplex,
    }
}

/// What the core is told.
pub static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    let first = vec![ptt("desk.ptt.ops", &["ops"]), ptt("desk.ptt.two", &["medical", "security"])];
    let second = vec![ptt("latch.ptt.logistics", &["logistics"])];
    Settings {
        channels: CHANNELS.iter().map(|id| ChannelSpec { id: (*id).into(), name: id.to_uppercase() }).collect(),
        desks: vec![
            desk(DESK, "desk-1", first, "desk.emergency", false),
            desk(LATCH_DESK, "desk-2", second, "latch.emergency", true),
        ],
        ports: vec![
            port(SIMPLEX, "radio-vhf", "ops", Some("vhf.carrier")),
            port(DUPLEX, "radio-uhf", "security", None),
        ],
        misconfigured: false,
        tuning: Tuning {
            emergency_hold: MIN_HOLD,
            emergency_max: EMERGENCY_MAX,
            talk_limit: TALK_LIMIT,
            ..Tuning::default()
        },
    }
});
