//! The listeners: TLS, pages, the WebSocket, tokens, and the media's datagrams. Decides who may open a session and moves
//! frames; it never looks into them.

pub mod addresses;
pub mod authority;
pub mod certificate;
pub mod pages;
pub mod socket;
pub mod tls;
pub mod token;
pub mod udp;
