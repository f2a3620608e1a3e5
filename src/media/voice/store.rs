//! Packets that wait to be played, in their order, in room that is made once.

use super::codec::MAX_PAYLOAD_BYTES;
use crate::base::BurstId;

/// One packet.
#[derive(Clone, Copy)]
pub(super) struct Packet {
    pub timestamp: u32,
    length: u16,
    bytes: [u8; MAX_PAYLOAD_BYTES],
}

impl Packet {
    pub fn payload(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

#[derive(Clone, Copy)]
struct Entry {
    burst: BurstId,
    sequence: u64,
    slot: usize,
}

/// The packets of all bursts, the oldest first.
pub(super) struct Store {
    slots: Vec<Packet>,
    free: Vec<usize>,
    /// Sorted by burst and sequence.
    order: Vec<Entry>,
}

impl Store {
    /// Room for so many packets.
    pub fn new(capacity: usize) -> Self {
        Store {
            slots: vec![Packet { timestamp: 0, length: 0, bytes: [0; MAX_PAYLOAD_BYTES] }; capacity],
            free: (0..capacity).collect(),
            order: Vec::with_capacity(capacity),
        }
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }

    fn place(&self, burst: BurstId, sequence: u64) -> Result<usize, usize> {
        self.order.binary_search_by_key(&(burst, sequence), |e| (e.burst, e.sequence))
    }

    /// Takes a packet in; false if it is there, too large, or there is no room.
    pub fn insert(&mut self, burst: BurstId, sequence: u64, timestamp: u32, payload: &[u8]) -> bool {
        let Err(place) = self.place(burst, sequence) else { return false };
        if payload.len() > MAX_PAYLOAD_BYTES {
            return false;
        }
        let Some(slot) = self.free.pop() else { return false };
        let packet = &mut self.slots[slot];
        packet.timestamp = timestamp;
        packet.length = payload.len() as u16;
        packet.bytes[..payload.len()].copy_from_slice(payload);
        self.order.insert(place, Entry { burst, sequence, slot });
        true
    }

    fn remove_at(&mut self, place: usize) -> Entry {
        let entry = self.order.remove(place);
        self.free.push(entry.slot);
        entry
    }

    /// A packet without taking it out.
    pub fn get(&self, burst: BurstId, sequence: u64) -> Option<&Packet> {
        let place = self.place(burst, sequence).ok()?;
        Some(&self.slots[self.order[place].slot])
    }

    /// Takes a packet out.
    pub fn take(&mut self, burst: BurstId, sequence: u64) -> Option<Packet> {
        let place = self.place(burst, sequence).ok()?;
        let entry = self.remove_at(place);
        Some(self.slots[entry.slot])
    }

    /// Takes the oldest packet out: its burst, sequence and timestamp.
    pub fn pop_first(&mut self) -> Option<(BurstId, u64, u32)> {
        (!self.order.is_empty()).then(|| {
            let entry = self.remove_at(0);
            (entry.burst, entry.sequence, self.slots[entry.slot].timestamp)
        })
    }

    pub fn first_burst(&self) -> Option<BurstId> {
        self.order.first().map(|e| e.burst)
    }

    pub fn last_burst(&self) -> Option<BurstId> {
        self.order.last().map(|e| e.burst)
    }

    /// The first packet of a burst: its sequence and timestamp.
    pub fn first_of(&self, burst: BurstId) -> Option<(u64, u32)> {
        let entry = self.order.get(self.place(burst, 0).unwrap_or_else(|place| place))?;
        (entry.burst == burst).then(|| (entry.sequence, self.slots[entry.slot].timestamp))
    }

    pub fn count_of(&self, burst: BurstId) -> usize {
        self.order.iter().filter(|e| e.burst == burst).count()
    }

    /// Throws away all of this burst and of those before it.
    pub fn cut(&mut self, burst: BurstId) {
        while self.first_burst().is_some_and(|first| first <= burst) {
            self.remove_at(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_in_order_and_their_room_is_used_again() {
        let mut store = Store::new(3);
        let (b1, b2) = (BurstId(1), BurstId(2));
        for (burst, sequence) in [(b2, 0), (b1, 7), (b1, 5)] {
            assert!(store.insert(burst, sequence, sequence as u32, &[sequence as u8]));
        }
        assert!(!store.insert(b2, 1, 0, &[]), "no room");
        assert!(!store.insert(b1, 5, 0, &[]), "there already");
        assert_eq!(
            (store.first_of(b1), store.first_of(b2), store.first_of(BurstId(3))),
            (Some((5, 5)), Some((0, 0)), None)
        );
        assert_eq!(store.take(b1, 7).unwrap().payload(), [7]);
        assert!(store.insert(b1, 6, 6, &[6]) && store.get(b1, 6).is_some() && store.get(b1, 7).is_none());
        assert_eq!((store.count_of(b1), store.last_burst(), store.len()), (2, Some(b2), 3));
        assert_eq!(store.pop_first(), Some((b1, 5, 5)));
        store.cut(b1);
        assert_eq!((store.first_burst(), store.len()), (Some(b2), 1));
        assert!(!store.insert(b2, 9, 0, &[0; MAX_PAYLOAD_BYTES + 1]), "too large");
    }
}
