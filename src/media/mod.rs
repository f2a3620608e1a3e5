//! Audio: who hears whom, the network clients and the sound cards.

pub mod dsp;
pub mod gates;
pub mod sfu;
pub mod voice;
