//! Lamps: dark is idle, steady is somebody talking; while a hold counts, the emergency lamp blinks and a tone sounds with
//! it (E3).

use super::{Control, Effect};

impl Control {
    /// Brings every lamp in line with what it shows.
    pub(super) fn update_tallies(&mut self) {
        let (mut lamps, mut tones) = (Vec::new(), Vec::new());
        for desk in &self.desks {
            for (line, channel) in &desk.spec.tally {
                let talking = self.channels.get(channel).is_some_and(|c| c.burst.is_some());
                lamps.push((line.clone(), talking));
            }
            let blink = desk.arming_blink(self.now).is_some_and(|(lit, _)| lit);
            tones.push((desk.spec.session, blink));
            if let Some(line) = &desk.spec.emergency_tally {
                lamps.push((line.clone(), self.emergency.is_some() || blink));
            }
        }
        for (line, lit) in lamps {
            self.set_line(&line, lit);
        }
        for (session, sounds) in tones {
            let changed = if sounds { self.toning.insert(session) } else { self.toning.remove(&session) };
            if changed {
                self.emit(Effect::Tone { session, sounds });
            }
        }
    }
}
