//! The real daemon on a real GPIO chip, real sound devices and systemd, in a virtual machine.
//!
//! Built on the host, run in the guest as root: see `tests/vm/suite`. The guest is some twenty times slower than its host,
//! and its host is busy: these tests judge by stamps and by the audit, never by how soon something happened.

mod bench;
mod buttons;
mod cards;
mod chip;
mod clock;
mod fob;
mod gadget;
mod keyed;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../../native/mod.rs"]
mod native;
mod serial;
mod service;
mod sound;
mod technician;
mod tools;
mod uhid;
mod unplugged;
mod usb;
mod usb_fob;
