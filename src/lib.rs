//! crosspatch: an embedded radio gateway. `ARCHITECTURE.md` is the map of the house.

pub mod base;
pub mod control;
