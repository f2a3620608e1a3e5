//! Words that every room shares: ids, roles, time, audit records.
//!
//! This is the lowest layer. It decides nothing and knows nothing of the rooms above it.

pub mod aside;
pub mod beat;
pub mod clock;
pub mod ids;
pub mod record;
pub mod role;
pub mod time;

pub use beat::{Beat, Pulse};
pub use ids::{BurstId, ChannelId, LineName, ReplyId, SessionId, SourceId, UserId};
pub use record::{Action, Record};
pub use role::Role;
pub use time::{Mono, WallStamp};
