//! The listener: pages, the WebSocket, tokens. Decides who may open a session and moves text
//! frames; it never looks into them.

pub mod pages;
pub mod socket;
pub mod token;
