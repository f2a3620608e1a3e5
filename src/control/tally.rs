//! Lamps: dark is idle, steady is somebody talking, the emergency lamp blinks while a hold counts (E3).

use super::Control;

impl Control {
    /// Brings every lamp in line with what it shows.
    pub(super) fn update_tallies(&mut self) {
        let mut lamps = Vec::new();
        for desk in &self.desks {
            for (line, channel) in &desk.spec.tally {
                let talking = self.channels.get(channel).is_some_and(|c| c.burst.is_some());
                lamps.push((line.clone(), talking));
            }
            if let Some(line) = &desk.spec.emergency_tally {
                let blink = desk.arming_blink(self.now).is_some_and(|(lit, _)| lit);
                lamps.push((line.clone(), self.emergency.is_some() || blink));
            }
        }
        for (line, lit) in lamps {
            self.set_line(&line, lit);
        }
    }
}
