//! One Ogg Opus stream, made of a talker's packets as they come: no decoding, no encoding (RFC 7845).
//!
//! Packets that come out of order are put back in it. What is missing becomes packets without a frame, which a player
//! conceals or leaves silent, so that time in the file is time on the channel (RFC 7845, section 4.1).

use crate::base::SourceId;
use ogg::writing::{PacketWriteEndInfo, PacketWriter};
use std::collections::BTreeMap;
use std::io::Write;

/// Packets that wait for one before them.
const REORDERED: usize = 5;
/// Packets on one page, so that a power cut takes a second of a burst at most.
const PAGE_PACKETS: u32 = 50;
/// A longer step of the talker's timeline, in samples of 48 kHz, is no silence but another timeline.
const LONGEST_GAP: u32 = 60 * 48_000;

/// What a stream held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets that are in the file.
    pub packets: u64,
    /// Packets that never came, by their numbers.
    pub lost: u64,
    /// Its length in samples of 48 kHz, gaps included.
    pub samples: u64,
}

/// A packet and its place in the talker's timeline.
struct Arrived {
    timestamp: u32,
    payload: Vec<u8>,
}

/// See the module's text.
pub struct OpusStream<W: Write> {
    pages: PacketWriter<'static, W>,
    serial: u32,
    source: Option<SourceId>,
    waiting: BTreeMap<u64, Arrived>,
    /// The number and timestamp that come next.
    due: Option<(u64, u32)>,
    /// The TOC of the newest packet, for those that fill gaps.
    toc: u8,
    /// The newest packet, kept back: the last one of all is marked.
    held: Option<Vec<u8>>,
    on_page: u32,
    tally: Tally,
}

impl<W: Write> OpusStream<W> {
    /// Begins a stream; `comments` such as `ARTIST=Ann` are kept in it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(to: W, serial: u32, comments: &[String]) -> std::io::Result<Self> {
        let mut pages = PacketWriter::new(to);
        pages.write_packet(head(), serial, PacketWriteEndInfo::EndPage, 0)?;
        pages.write_packet(tags(comments), serial, PacketWriteEndInfo::EndPage, 0)?;
        Ok(OpusStream {
            pages,
            serial,
            source: None,
            waiting: BTreeMap::new(),
            due: None,
            toc: 0,
            held: None,
            on_page: 0,
            tally: Tally::default(),
        })
    }

    /// Takes a packet of the burst.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn packet(&mut self, source: SourceId, sequence: u64, timestamp: u32, payload: &[u8]) -> std::io::Result<()> {
        if self.source.replace(source) != Some(source) {
            self.write_waiting(0)?;
            self.due = None; // another microphone counts anew
        }
        if duration(payload).is_none() || self.due.is_some_and(|(due, _)| sequence < due) {
            return Ok(()); // no Opus, or too late
        }
        self.waiting.insert(sequence, Arrived { timestamp, payload: payload.to_vec() });
        self.write_waiting(REORDERED)
    }

    /// Ends the stream and hands back what it was written to.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn end(mut self) -> std::io::Result<(W, Tally)> {
        self.write_waiting(0)?;
        if let Some(last) = self.held.take() {
            self.pages.write_packet(last, self.serial, PacketWriteEndInfo::EndStream, self.tally.samples)?;
        }
        Ok((self.pages.into_inner(), self.tally))
    }

    /// Writes what is next, and what has waited long enough for one before it.
    fn write_waiting(&mut self, patience: usize) -> std::io::Result<()> {
        while let Some(first) = self.waiting.first_entry() {
            let sequence = *first.key();
            let next = self.due.is_some_and(|(due, _)| due == sequence);
            if !next && first_must_wait(self.due.is_none(), self.waiting.len(), patience) {
                break;
            }
            if let Some((_, Arrived { timestamp, payload })) = self.waiting.pop_first() {
                self.write(sequence, timestamp, payload)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, sequence: u64, timestamp: u32, payload: Vec<u8>) -> std::io::Result<()> {
        if let Some((due, due_at)) = self.due {
            self.tally.lost += sequence - due;
            let gap = timestamp.wrapping_sub(due_at);
            if gap <= LONGEST_GAP {
                self.fill(gap)?;
            }
        }
        let samples = duration(&payload).expect("judged when it came");
        self.due = Some((sequence + 1, timestamp.wrapping_add(samples)));
        self.toc = payload[0];
        self.tally.packets += 1;
        self.put(payload, samples)
    }

    /// Packets without a frame, of the length that frames had.
    fn fill(&mut self, gap: u32) -> std::io::Result<()> {
        let empty = self.toc & 0xfc; // one frame of no bytes
        let step = frame_samples(empty);
        for _ in 0..gap / step {
            self.put(vec![empty], step)?;
        }
        self.tally.samples += u64::from(gap % step);
        Ok(())
    }

    fn put(&mut self, payload: Vec<u8>, samples: u32) -> std::io::Result<()> {
        if let Some(before) = self.held.replace(payload) {
            self.on_page += 1;
            let ends_page = self.on_page >= PAGE_PACKETS;
            let info = if ends_page { PacketWriteEndInfo::EndPage } else { PacketWriteEndInfo::NormalPacket };
            self.pages.write_packet(before, self.serial, info, self.tally.samples)?;
            if ends_page {
                self.on_page = 0;
                self.pages.inner_mut().flush()?;
            }
        }
        self.tally.samples += u64::from(samples);
        Ok(())
    }
}

/// The very first packet may come after its successor, too.
fn first_must_wait(is_first: bool, waiting: usize, patience: usize) -> bool {
    waiting <= if is_first { patience.min(1) } else { patience }
}

/// Mono, nothing skipped: the first packet of the burst is the first one that was heard.
fn head() -> Vec<u8> {
    let mut head = b"OpusHead".to_vec();
    head.extend([1, 1]); // version, channels
    head.extend(0_u16.to_le_bytes()); // pre-skip
    head.extend(48_000_u32.to_le_bytes());
    head.extend(0_u16.to_le_bytes()); // gain
    head.push(0); // mapping family
    head
}

fn tags(comments: &[String]) -> Vec<u8> {
    let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    let vendor = concat!("crosspatch ", env!("CARGO_PKG_VERSION"));
    let mut tags = b"OpusTags".to_vec();
    tags.extend(length(vendor.len()));
    tags.extend(vendor.as_bytes());
    tags.extend(length(comments.len()));
    for comment in comments {
        tags.extend(length(comment.len()));
        tags.extend(comment.as_bytes());
    }
    tags
}

/// The samples at 48 kHz of one frame (RFC 6716, table 2).
fn frame_samples(toc: u8) -> u32 {
    let config = toc >> 3;
    match config {
        0..12 => [480, 960, 1920, 2880][usize::from(config % 4)],
        12..16 => [480, 960][usize::from(config % 2)],
        _ => [120, 240, 480, 960][usize::from(config % 4)],
    }
}

/// The samples at 48 kHz of a packet; nothing if it is no Opus or longer than 120 ms (RFC 6716, section 3.2).
fn duration(payload: &[u8]) -> Option<u32> {
    let toc = *payload.first()?;
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(*payload.get(1)? & 0x3f),
    };
    let samples = frames * frame_samples(toc);
    (1..=5760).contains(&samples).then_some(samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ogg::PacketReader;

    /// A CELT frame of 20 ms, mono.
    const TOC: u8 = 31 << 3;
    const VOICE: SourceId = SourceId(7);

    fn stream() -> OpusStream<Vec<u8>> {
        OpusStream::begin(Vec::new(), 1, &["ARTIST=Ann".into()]).unwrap()
    }

    /// The packets after both headers, with the granule position of their pages.
    fn read(bytes: Vec<u8>) -> Vec<(Vec<u8>, u64, bool)> {
        let mut reader = PacketReader::new(std::io::Cursor::new(bytes));
        let mut packets = Vec::new();
        while let Some(packet) = reader.read_packet().unwrap() {
            packets.push((packet.data.clone(), packet.absgp_page(), packet.last_in_stream()));
        }
        assert!(packets.remove(0).0.starts_with(b"OpusHead"));
        let tags = packets.remove(0).0;
        assert!(tags.starts_with(b"OpusTags") && tags.ends_with(b"ARTIST=Ann"));
        packets
    }

    fn talk(stream: &mut OpusStream<Vec<u8>>, numbers: &[u64]) {
        for n in numbers {
            let timestamp = u32::try_from(*n * 960).unwrap().wrapping_add(u32::MAX - 2000);
            stream.packet(VOICE, *n, timestamp, &[TOC, u8::try_from(*n).unwrap()]).unwrap();
        }
    }

    #[test]
    fn packets_are_stored_as_they_came() {
        let mut stream = stream();
        talk(&mut stream, &(10..130).collect::<Vec<_>>());
        let (bytes, tally) = stream.end().unwrap();
        assert_eq!(tally, Tally { packets: 120, lost: 0, samples: 120 * 960 });
        let packets = read(bytes);
        let numbers: Vec<_> = packets.iter().map(|(data, ..)| data[1]).collect();
        assert_eq!(numbers, (10..130).collect::<Vec<u8>>());
        assert_eq!(packets[0].1, 50 * 960, "a page is a second");
        assert_eq!((packets[119].1, packets[119].2), (120 * 960, true));
    }

    #[test]
    fn lost_packets_are_gaps_of_their_length_and_late_ones_find_their_place() {
        let mut stream = stream();
        talk(&mut stream, &[1, 0, 2, 4, 3, 5, 9, 10, 11, 12, 13, 14, 15, 2, 6]);
        let (bytes, tally) = stream.end().unwrap();
        assert_eq!(tally, Tally { packets: 13, lost: 3, samples: 16 * 960 });
        let packets = read(bytes);
        let numbers: Vec<_> = packets.iter().map(|(data, ..)| data.get(1).copied()).collect();
        let whole = |n: u8| Some(n);
        let expected: Vec<_> = (0..6).map(whole).chain([None; 3]).chain((9..16).map(whole)).collect();
        assert_eq!(numbers, expected);
        assert_eq!(packets[6].0, [TOC], "a packet without a frame");
    }

    #[test]
    fn another_microphone_in_the_same_burst_goes_on_where_the_first_one_ended() {
        let mut stream = stream();
        talk(&mut stream, &[0, 1, 2]);
        stream.packet(SourceId(8), 40_000, 5, &[TOC, 1]).unwrap();
        stream.packet(SourceId(8), 40_001, 965, &[TOC, 2]).unwrap();
        let (_, tally) = stream.end().unwrap();
        assert_eq!(tally, Tally { packets: 5, lost: 0, samples: 5 * 960 });
    }

    #[test]
    fn what_is_no_opus_is_left_out() {
        let mut stream = stream();
        for wrong in [&[][..], &[3], &[3, 0], &[0b0001_1011, 63]] {
            stream.packet(VOICE, 1, 0, wrong).unwrap();
        }
        assert_eq!(stream.end().unwrap().1, Tally::default());
        assert_eq!(duration(&[0b0001_1011, 2]), Some(5760));
        assert_eq!([0, 12 << 3, 16 << 3, 31 << 3].map(frame_samples), [480, 480, 120, 960]);
    }
}
