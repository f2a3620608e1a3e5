//! Identifiers. Names that people choose are cheap shared strings, so that transcripts and logs
//! read as they do on the wire; numbers that the gateway hands out are plain integers.

use serde::{Deserialize, Serialize};
use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

macro_rules! name {
    ($(#[$doc:meta])* $id:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub struct $id(Arc<str>);

        impl $id {
            /// The id as text, as on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $id {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $id {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl From<$id> for String {
            fn from(id: $id) -> Self {
                id.0.as_ref().to_owned()
            }
        }

        impl Borrow<str> for $id {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

macro_rules! number {
    ($(#[$doc:meta])* $id:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $id(pub u64);

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl std::str::FromStr for $id {
            type Err = ();

            /// Reads what `Display` writes.
            fn from_str(text: &str) -> Result<Self, ()> {
                let digits = text.strip_prefix($prefix).ok_or(())?;
                digits.parse().map(Self).map_err(|_| ())
            }
        }
    };
}

name!(
    /// A talk channel of the event.
    ChannelId
);
name!(
    /// A participant: a person on the network, a desk or a radio port.
    UserId
);
name!(
    /// The name of a GPIO line, such as `desk.ptt.ops`.
    LineName
);
number!(
    /// One session: one WebSocket of a user, or the inside session of a desk or radio port.
    SessionId,
    "s"
);
number!(
    /// One talk burst: the audio between a grant and its end. Ids only grow; 0 is never used.
    BurstId,
    "b"
);
number!(
    /// One source of audio: a producer of a session, or the microphone side of a desk or radio port.
    SourceId,
    "p"
);
number!(
    /// The return address of one request; every request gets exactly one reply (F11).
    ReplyId,
    "r"
);
