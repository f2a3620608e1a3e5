//! A client without a browser, and what its users share: a gateway of their own and its signaling.
//!
//! The tests hear and talk with [`client::NativeClient`], a whole WebRTC stack; the benchmarks with
//! [`lean`], which costs so little that it does not disturb what it measures.

pub mod chirp;
pub mod client;
pub mod doctor;
pub mod figures;
pub mod fob;
pub mod gateway;
pub mod lean;
pub mod likeness;
pub mod pulse;
pub mod radios;
pub mod sdp;
pub mod signaling;
pub mod sound;
pub mod syscalls;
pub mod talker;
pub mod threads;
