//! The things that are wired to the box: buttons, lamps and keying lines, sound cards.
//!
//! This room decides how a device is opened, paced and healed, and which level is safe. It never
//! decides what a press means or who may talk: it knows nothing of floors, channels or people.

pub mod audio;
pub mod board;
pub mod cards;
pub mod fob;
pub mod gpio;
pub mod header;
pub mod interface;
pub mod rig;
pub mod serial;
pub mod transmit_watch;
