//! Reading RTP packets (RFC 3550, RFC 8285).

const FIXED_HEADER: usize = 12;
const ONE_BYTE_EXTENSIONS: [u8; 2] = [0xbe, 0xde];

/// The level of a packet that does not tell one: silence.
const NO_LEVEL: u8 = 127;

/// A decrypted packet of a talker.
pub(super) struct Packet<'a> {
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub extensions: &'a [u8],
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Takes a packet apart. `None` if its lengths do not add up or it carries nothing.
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let (header, _) = packet.split_first_chunk::<FIXED_HEADER>()?;
        let mut rest = packet.get(FIXED_HEADER + 4 * usize::from(header[0] & 0x0f)..)?;
        let mut extensions: &[u8] = &[];
        if header[0] & 0x10 != 0 {
            let (head, behind) = rest.split_first_chunk::<4>()?;
            let words = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let (block, behind) = behind.split_at_checked(4 * words)?;
            if head[..2] == ONE_BYTE_EXTENSIONS {
                extensions = block;
            }
            rest = behind;
        }
        if header[0] & 0x20 != 0 {
            let padding = usize::from(*rest.last()?);
            rest = rest.get(..rest.len().checked_sub(padding)?)?;
        }
        if rest.is_empty() {
            return None;
        }
        Some(Packet {
            payload_type: header[1] & 0x7f,
            sequence: u16::from_be_bytes([header[2], header[3]]),
            timestamp: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            extensions,
            payload: rest,
        })
    }

    /// The audio level in header extension `id`: 0 is loudest, 127 silence; the top bit says voice.
    pub fn level(&self, id: Option<u8>) -> u8 {
        id.and_then(|id| one_byte_extension(self.extensions, id)).unwrap_or(NO_LEVEL)
    }
}

fn one_byte_extension(mut block: &[u8], wanted: u8) -> Option<u8> {
    while let Some((&head, rest)) = block.split_first() {
        let (id, length) = (head >> 4, usize::from(head & 0x0f) + 1);
        block = match id {
            0 => rest,
            15 => return None,
            id if id == wanted => return rest.first().copied(),
            _ => rest.get(length..)?,
        };
    }
    None
}

/// The SSRC of an RTP packet that is still encrypted.
pub(super) fn ssrc(packet: &[u8]) -> Option<u32> {
    let bytes = packet.get(8..FIXED_HEADER)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Turns 16-bit sequence numbers into ones that never wrap.
#[derive(Default)]
pub(super) struct Unwrapper(Option<u64>);

impl Unwrapper {
    /// The long form of `sequence`, the one nearest to the newest so far.
    pub fn unwrap(&mut self, sequence: u16) -> u64 {
        let Some(newest) = self.0 else {
            // One round up, so that a late packet does not fall below zero.
            let first = u64::from(sequence) + (1 << 16);
            self.0 = Some(first);
            return first;
        };
        let step = sequence.wrapping_sub(newest as u16) as i16;
        let index = newest.saturating_add_signed(i64::from(step));
        self.0 = Some(newest.max(index));
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_extensions_and_padding() {
        let mut packet = vec![0xb0, 111, 0, 9, 0, 0, 0, 5, 0, 0, 0, 1];
        packet.extend([0xbe, 0xde, 0, 2, 0x10, b'0', 0, 0xa0, 42, 0, 0, 0]);
        packet.extend([7, 7, 7, 0, 2]);
        let read = Packet::parse(&packet).unwrap();
        assert_eq!((read.payload, read.sequence, read.timestamp), (&[7, 7, 7][..], 9, 5));
        assert_eq!(read.level(Some(10)), 42);
        assert_eq!(read.level(Some(3)), NO_LEVEL);
        for cut in 0..packet.len() {
            Packet::parse(&packet[..cut]);
        }
    }

    #[test]
    fn sequence_numbers_never_wrap() {
        let mut unwrapper = Unwrapper::default();
        let first = unwrapper.unwrap(65_534);
        assert_eq!(unwrapper.unwrap(1), first + 3);
        assert_eq!(unwrapper.unwrap(65_535), first + 1);
        assert_eq!(unwrapper.unwrap(2), first + 4);
    }
}
