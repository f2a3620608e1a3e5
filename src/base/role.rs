//! Roles and what they weigh (`Emergency > Dispatch > General = Admin`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The role of a participant at the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Role {
    /// Talks without priority.
    #[serde(rename = "GENERAL", alias = "general")]
    General,
    /// Manages; talks like General (a management role has no priority on the air).
    #[serde(rename = "ADMIN", alias = "admin")]
    Admin,
    /// Pre-empts General and Admin, and may start an emergency broadcast.
    #[serde(rename = "DISPATCH", alias = "dispatch")]
    Dispatch,
}

impl Role {
    /// True if this role may interrupt others with a priority request (F3, F5).
    #[must_use]
    pub fn has_priority(self) -> bool {
        self == Role::Dispatch
    }

    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::General => "GENERAL",
            Role::Admin => "ADMIN",
            Role::Dispatch => "DISPATCH",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "general" => Ok(Role::General),
            "admin" => Ok(Role::Admin),
            "dispatch" => Ok(Role::Dispatch),
            _ => Err(format!("'{text}' is no role; use general, dispatch or admin")),
        }
    }
}
