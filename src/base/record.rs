//! What the audit is told: one [`Record`] a thing that happened, before it is stamped and stored.

use super::{BurstId, ChannelId, Role, UserId};
use serde_json::Value;

macro_rules! actions {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What happened. The names of the existing system stay, so that its tools read our exports.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Action {
            $($(#[$doc])* $name,)*
        }

        impl Action {
            /// The name in the audit's `action` column.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Action::$name => $text,)*
                }
            }
        }
    };
}

actions! {
    /// A session opened.
    AuthLogin = "auth.login",
    /// A session closed.
    AuthLogout = "auth.logout",
    /// A handshake was refused (no, bad, expired or foreign token; banned).
    AuthDenied = "auth.denied",
    /// A token was made; `target` is whom it lets in, `detail` says as what and until when.
    AuthTokenMade = "auth.token_made",
    /// A session asked too often; further requests were answered late with an error.
    RateLimitHit = "rate_limit.hit",
    /// A user connected too often and was told when to come back.
    RateLimitBlock = "rate_limit.block",
    /// Somebody asked for what their role or membership does not allow.
    PermissionDenied = "permission.denied",
    /// A participant may join a channel now.
    PermissionGranted = "permission.granted",
    /// A participant may join a channel no longer.
    PermissionRevoked = "permission.revoked",
    /// The same, once the burst that runs has ended (F14).
    PermissionRevocationDeferred = "permission.revocation_deferred",
    /// A participant has another role; `detail` says which and which before.
    RoleChange = "role.change",
    /// A person was written into the store.
    PersonCreate = "person.create",
    /// What the store says of a person changed.
    PersonUpdate = "person.update",
    /// A person was taken out of the store: the token's claims hold again.
    PersonDelete = "person.delete",
    /// A desk or port that was disabled may talk again.
    PersonEnable = "person.enable",
    /// A channel was added at run time.
    ChannelCreate = "channel.create",
    /// A channel has another name.
    ChannelUpdate = "channel.update",
    /// A channel was removed at run time; with the cause `burst-running` it goes when that has ended.
    ChannelDelete = "channel.delete",
    /// A channel was joined.
    ChannelJoin = "channel.join",
    /// A channel was left.
    ChannelLeave = "channel.leave",
    /// A join was refused.
    ChannelJoinDenied = "channel.join_denied",
    /// A floor was granted.
    PttStart = "ptt.start",
    /// A burst ended by its talker.
    PttStop = "ptt.stop",
    /// A floor was denied.
    PttDenied = "ptt.denied",
    /// A floor was taken back; the cause says why.
    PttRevoked = "ptt.revoked",
    /// A dispatcher was granted a floor by a priority request.
    PriorityPttStart = "priority_ptt.start",
    /// A talker was interrupted by a priority request.
    PriorityPttInterrupted = "priority_ptt.interrupted",
    /// How fast somebody was interrupted, told at the end of the burst that did it: ms from the request (a button's edge,
    /// a message's reading) to the old gate shut, and to the first packet of the new burst.
    PriorityPttMeasured = "priority_ptt.measured",
    /// The guarded button is pressed; the hold is counting.
    EmergencyArmed = "emergency_broadcast.armed",
    /// Let go before the hold was complete; `heldMs` says how long it was held.
    EmergencyAborted = "emergency_broadcast.aborted",
    /// A hold of full length that was read too late to fire (E2).
    EmergencyMissed = "emergency_broadcast.missed",
    /// An emergency broadcast began.
    EmergencyStart = "emergency_broadcast.start",
    /// An emergency broadcast ended; the cause says why.
    EmergencyStop = "emergency_broadcast.stop",
    /// An emergency broadcast was refused.
    EmergencyDenied = "emergency_broadcast.denied",
    /// One channel of a running emergency could not be reached.
    EmergencyChannelFailed = "emergency_broadcast.channel_failed",
    /// A participant was thrown out.
    ForceDisconnect = "force_disconnect",
    /// A participant was banned.
    SecurityBan = "security.ban",
    /// A ban was lifted.
    SecurityUnban = "security.unban",
    /// A radio's receiver opened.
    RadioCarrierOpen = "radio.carrier_open",
    /// A radio's receiver closed.
    RadioCarrierClosed = "radio.carrier_closed",
    /// A radio's transmitter was keyed.
    RadioKeyed = "radio.keyed",
    /// A radio's transmitter was unkeyed.
    RadioUnkeyed = "radio.unkeyed",
    /// A button was pressed; `stampNs` is the kernel's stamp of its edge.
    GpioPress = "gpio.press",
    /// A button was let go; `heldMs` is the time between the two stamps.
    GpioRelease = "gpio.release",
    /// An input counts for nothing; the cause says why: `active-at-start`, `edges-lost`, `wire-break`, `stuck`, `chip-gone`.
    GpioFault = "gpio.fault",
    /// It counts again.
    GpioHealed = "gpio.healed",
    /// A burst was recorded; `detail` names the file by its id, with its SHA-256, length and lost packets.
    RecordingStored = "recording.stored",
    /// A burst that was to be recorded was not, or not to its end; `detail` says why.
    RecordingFailed = "recording.failed",
    /// Retention has deleted a recording; `detail` says which.
    RecordingDeleted = "recording.deleted",
    /// Somebody heard a recording on a page; `target` is who talks on it.
    RecordingPlayed = "recording.played",
    /// Somebody copied a recording; `target` is who talks on it.
    RecordingExported = "recording.exported",
    /// Somebody read the audit; `detail` says how and which part. A reading that goes on is told once an hour.
    AuditRead = "audit.read",
    /// A part of the gateway went down; `detail` says why.
    SystemDegraded = "system.degraded",
    /// A part of the gateway is up again.
    SystemHealed = "system.healed",
    /// The gateway started.
    SystemStart = "system.start",
    /// The gateway ended in good order.
    SystemStop = "system.stop",
    /// The configuration that the gateway starts with; `detail` names the file and its SHA-256.
    SystemConfigLoaded = "system.config_loaded",
    /// The configuration file was read again and taken.
    SystemConfigReloaded = "system.config_reloaded",
    /// The configuration file was read again and refused; `detail` says why. Nothing of it was taken.
    SystemConfigRefused = "system.config_refused",
    /// Channels, people or bans were changed by a command while no gateway ran; `detail` says what.
    SystemStoreChanged = "system.store_changed",
    /// The gateway had not stopped in good order before: the process ended, or the power. `detail` names the last record.
    SystemCrashFound = "system.crash_found",
    /// The wall clock was set; `detail` says by how much (F17).
    SystemClockStep = "system.clock_step",
    /// Records were lost because the queue or the disk was full; `detail` says how many and of which time.
    SystemAuditLost = "system.audit_lost",
    /// A damaged audit was set aside and a new one started; `detail` names the file.
    SystemAuditSetAside = "system.audit_set_aside",
    /// The newest part of the audit is not what was written; `detail` says which record is the first.
    SystemAuditBroken = "system.audit_broken",
    /// Retention has taken the oldest records away; `detail` says which.
    SystemAuditPruned = "system.audit_pruned",
}

impl Action {
    /// True for what has to be on disk within 100 ms of the decision: emergency and pre-emption.
    #[must_use]
    pub fn is_urgent(self) -> bool {
        self.is_emergency() || matches!(self, Action::PriorityPttStart | Action::PriorityPttInterrupted)
    }

    /// True for every step of an emergency broadcast.
    #[must_use]
    pub fn is_emergency(self) -> bool {
        self.as_str().starts_with("emergency_broadcast.")
    }
}

/// One thing that happened. Stamps (time, boot, sequence) are added where it is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What happened.
    pub action: Action,
    /// Who did it.
    pub actor: Option<UserId>,
    /// Their name, as people know it.
    pub actor_name: Option<String>,
    /// Their role.
    pub role: Option<Role>,
    /// On which channel.
    pub channel: Option<ChannelId>,
    /// To whom.
    pub target: Option<UserId>,
    /// Why, in one kebab-case word (`preempted`, `not-member`, …).
    pub cause: Option<&'static str>,
    /// Which talk burst.
    pub burst: Option<BurstId>,
    /// The rest, as a JSON object or null.
    pub detail: Value,
}

impl Record {
    /// A record with nothing but its action.
    #[must_use]
    pub fn new(action: Action) -> Self {
        Record {
            action,
            actor: None,
            actor_name: None,
            role: None,
            channel: None,
            target: None,
            cause: None,
            burst: None,
            detail: Value::Null,
        }
    }

    /// Names who did it.
    #[must_use]
    pub fn by(mut self, actor: &UserId, name: &str, role: Role) -> Self {
        self.actor = Some(actor.clone());
        self.actor_name = Some(name.to_owned());
        self.role = Some(role);
        self
    }

    /// Names the channel.
    #[must_use]
    pub fn on(mut self, channel: &ChannelId) -> Self {
        self.channel = Some(channel.clone());
        self
    }

    /// Names the participant it was done to.
    #[must_use]
    pub fn to(mut self, target: &UserId) -> Self {
        self.target = Some(target.clone());
        self
    }

    /// Says why, in one kebab-case word.
    #[must_use]
    pub fn because(mut self, cause: &'static str) -> Self {
        self.cause = Some(cause);
        self
    }

    /// Names the talk burst.
    #[must_use]
    pub fn in_burst(mut self, burst: BurstId) -> Self {
        self.burst = Some(burst);
        self
    }

    /// Adds the rest as a JSON object.
    #[must_use]
    pub fn with(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }
}
