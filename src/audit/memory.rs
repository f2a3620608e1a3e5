//! What is kept in memory while the disk does not answer, and what is given up when that is full.
//!
//! **Invariant:** emergencies are never given up. They alone may be more than [`Memory::new`]'s limit: only
//! dispatchers make them, at the pace that a session may ask.

use super::Stamped;
use crate::base::Action;
use std::collections::VecDeque;

/// The lowest goes first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Worth {
    Ordinary,
    Urgent,
    Emergency,
}

impl Worth {
    const ALL: [Worth; 3] = [Worth::Ordinary, Worth::Urgent, Worth::Emergency];

    fn of(action: Action) -> Self {
        match (action.is_emergency(), action.is_urgent()) {
            (true, _) => Worth::Emergency,
            (false, true) => Worth::Urgent,
            (false, false) => Worth::Ordinary,
        }
    }
}

/// Records in the order of their arrival.
pub(super) struct Memory {
    limit: usize,
    arrived: u64,
    kept: [VecDeque<(u64, Stamped)>; 3],
}

impl Memory {
    pub(super) fn new(limit: usize) -> Self {
        Memory { limit, arrived: 0, kept: Default::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.kept.iter().map(VecDeque::len).sum()
    }

    /// Keeps a record, and hands back what has to go for it: the oldest of the least worth, which may be itself.
    pub(super) fn push(&mut self, stamped: Stamped) -> Option<Stamped> {
        self.arrived += 1;
        self.kept[Worth::of(stamped.record.action) as usize].push_back((self.arrived, stamped));
        if self.len() <= self.limit {
            return None;
        }
        let least = Worth::ALL.into_iter().find(|worth| !self.kept[*worth as usize].is_empty())?;
        if least == Worth::Emergency { None } else { self.kept[least as usize].pop_front().map(|(_, gone)| gone) }
    }

    /// All of them, oldest first.
    pub(super) fn in_order(&self) -> Vec<&Stamped> {
        let mut all: Vec<_> = self.kept.iter().flatten().collect();
        all.sort_unstable_by_key(|(arrived, _)| *arrived);
        all.into_iter().map(|(_, stamped)| stamped).collect()
    }

    pub(super) fn clear(&mut self) {
        self.kept.iter_mut().for_each(VecDeque::clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Mono, Record, WallStamp};

    fn stamped(action: Action, ms: u64) -> Stamped {
        let wall = WallStamp { unix_ms: ms, synchronised: true };
        Stamped { record: Record::new(action), mono: Mono::from_millis(ms), wall }
    }

    fn kept(memory: &Memory) -> Vec<(Action, u64)> {
        memory.in_order().iter().map(|s| (s.record.action, s.wall.unix_ms)).collect()
    }

    #[test]
    fn ordinary_records_go_first_then_pre_emptions_and_emergencies_never() {
        use Action::{EmergencyStart, PriorityPttStart, PttStart};
        let mut memory = Memory::new(3);
        for (action, ms) in [(EmergencyStart, 1), (PriorityPttStart, 2), (PttStart, 3)] {
            assert_eq!(memory.push(stamped(action, ms)), None);
        }
        let gone = |memory: &mut Memory, action, ms| memory.push(stamped(action, ms)).map(|g| g.wall.unix_ms);
        assert_eq!(gone(&mut memory, EmergencyStart, 4), Some(3));
        assert_eq!(gone(&mut memory, PttStart, 5), Some(5), "what is new is worth no more");
        assert_eq!(gone(&mut memory, EmergencyStart, 6), Some(2));
        assert_eq!(gone(&mut memory, EmergencyStart, 7), None);
        assert_eq!(kept(&memory), [1, 4, 6, 7].map(|ms| (EmergencyStart, ms)));
    }

    #[test]
    fn records_come_out_in_the_order_of_their_arrival() {
        let mut memory = Memory::new(10);
        for (action, ms) in [(Action::PttStart, 1), (Action::EmergencyStart, 2), (Action::PttStop, 3)] {
            memory.push(stamped(action, ms));
        }
        assert_eq!(kept(&memory).iter().map(|(_, ms)| *ms).collect::<Vec<_>>(), [1, 2, 3]);
    }
}
