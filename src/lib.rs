//! crosspatch: an embedded radio gateway. `ARCHITECTURE.md` is the map of the house.

pub mod audit;
pub mod base;
pub mod cli;
pub mod control;
pub mod doctor;
pub mod gateway;
pub mod hardware;
pub mod media;
pub mod net;
pub mod people;
pub mod recorder;
pub mod upkeep;
pub mod wire;
