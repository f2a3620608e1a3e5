//! Configuration files, and a core that is made of each one that is accepted.
//!
//! Whatever it says: no panic; a refusal names file and line; an accepted file gives a core that starts.

#![no_main]

use crosspatch::base::{Mono, SourceId};
use crosspatch::control::{Control, Input};
use crosspatch::gateway::config::Config;
use crosspatch::hardware::gpio::Direction;

libfuzzer_sys::fuzz_target!(|text: &str| {
    match Config::parse(text, "fuzz.toml") {
        Ok(config) => {
            let count = config.desks.len() + config.radios.len();
            let sources: Vec<_> = (1..=count as u64).map(SourceId).collect();
            let mut control = Control::new(config.settings(&sources));
            let mut now = Mono::from_millis(1_000);
            for spec in config.lines().into_iter().filter(|spec| spec.direction == Direction::Input) {
                control.handle(Input::Edge { line: spec.name, active: true, stamp: now }, now);
            }
            for _ in 0..50 {
                let Some(due) = control.next_timeout() else { break };
                now = now.max(due);
                control.handle_timeout(now);
                while control.next_effect().is_some() {}
                assert!(control.next_timeout().is_none_or(|due| due > now), "no deadline stays in the past");
            }
        }
        Err(errors) => {
            for error in errors.0 {
                let line = error.strip_prefix("fuzz.toml:").and_then(|rest| rest.split(':').next());
                assert!(line.is_some_and(|line| line.parse::<usize>().is_ok()), "without a line: {error}");
            }
        }
    }
});
