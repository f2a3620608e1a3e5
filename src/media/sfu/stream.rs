//! One outgoing stream: whoever talks, the listener sees one SSRC, one continuous sequence and one
//! timeline.

use super::parameters::{CNAME, LEVEL_EXTENSION, MID_EXTENSION, OPUS_PAYLOAD_TYPE};
use super::rtcp::{self, Quality, ReportBlock, SenderInfo};
use crate::base::{BurstId, SourceId};
use std::time::{Duration, Instant};

/// Samples of one 20 ms packet: the least step of the timeline between two bursts.
const PACKET_SAMPLES: u32 = 960;
/// A jump of the talker's sequence beyond this begins anew instead of leaving a gap.
const LARGEST_GAP: u64 = 3_000;
/// A stream that has been silent for longer sends no reports.
const REPORTED: Duration = Duration::from_secs(10);

/// One packet of audio on its way to the listeners.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The Opus packet.
    pub payload: &'a [u8],
    /// The time of its first sample, in samples of 48 kHz.
    pub timestamp: u32,
    /// Its place in the source's sequence; a gap means loss.
    pub sequence: u64,
    /// The audio level as in RFC 6464: 0 is loudest, 127 silence, the top bit says voice.
    pub level: u8,
}

/// The stretch of one burst of one source.
struct Stretch {
    burst: BurstId,
    source: SourceId,
    /// The source's sequence at its start, and ours.
    first: u64,
    base: u64,
    /// What is added to the source's timestamps.
    shift: u32,
}

pub(super) struct Stream {
    pub ssrc: u32,
    mid: String,
    stretch: Option<Stretch>,
    /// The highest sequence number sent, counting rounds, and which of the 64 up to it were sent.
    highest: u64,
    sent: u64,
    timestamp: u32,
    sent_at: Option<Instant>,
    packets: u32,
    octets: u32,
    pub quality: Quality,
}

impl Stream {
    /// `start` is random; half of it begins the sequence, the rest the timeline.
    pub fn new(ssrc: u32, mid: String, start: u64) -> Self {
        Stream {
            ssrc,
            mid,
            stretch: None,
            highest: start & 0x7fff,
            sent: u64::MAX,
            timestamp: (start >> 32) as u32,
            sent_at: None,
            packets: 0,
            octets: 0,
            quality: Quality::default(),
        }
    }

    pub fn packets(&self) -> u32 {
        self.packets
    }

    /// Writes the listener's own copy into `into`. False if the packet is too late or was sent
    /// already: no sequence number is ever used twice, as the ciphers demand.
    pub fn write(
        &mut self,
        frame: &Frame<'_>,
        burst: BurstId,
        source: SourceId,
        now: Instant,
        into: &mut Vec<u8>,
    ) -> bool {
        let Some((sequence, timestamp, marker)) = self.place(frame, burst, source, now) else {
            return false;
        };
        into.clear();
        into.extend([0x90, OPUS_PAYLOAD_TYPE | (u8::from(marker) << 7)]);
        into.extend((sequence as u16).to_be_bytes());
        into.extend(timestamp.to_be_bytes());
        into.extend(self.ssrc.to_be_bytes());
        let mid = self.mid.as_bytes();
        let words = (3 + mid.len()).div_ceil(4);
        into.extend([0xbe, 0xde, 0, words as u8]);
        let end = into.len() + 4 * words;
        into.extend([LEVEL_EXTENSION << 4, frame.level]);
        into.push((MID_EXTENSION << 4) | (mid.len() as u8 - 1));
        into.extend(mid);
        into.resize(end, 0);
        into.extend(frame.payload);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(frame.payload.len() as u32);
        true
    }

    /// Sequence number, timestamp and marker of `frame` in this stream.
    fn place(&mut self, frame: &Frame<'_>, burst: BurstId, source: SourceId, now: Instant) -> Option<(u64, u32, bool)> {
        let same = |s: &&Stretch| {
            (s.burst, s.source) == (burst, source)
                && s.base + frame.sequence.saturating_sub(s.first) <= self.highest + LARGEST_GAP
        };
        let running = self.stretch.as_ref().filter(same);
        let starts = running.is_none();
        let (sequence, shift) = match running {
            Some(s) => (s.base + frame.sequence.checked_sub(s.first)?, s.shift),
            None => self.begin(frame, burst, source, now),
        };
        let timestamp = frame.timestamp.wrapping_add(shift);
        if sequence > self.highest {
            let step = sequence - self.highest;
            self.sent = if step < 64 { (self.sent << step) | 1 } else { 1 };
            (self.highest, self.timestamp, self.sent_at) = (sequence, timestamp, Some(now));
        } else {
            let bit = 1_u64.checked_shl((self.highest - sequence) as u32)?;
            if self.sent & bit != 0 {
                return None;
            }
            self.sent |= bit;
        }
        Some((sequence, timestamp, starts))
    }

    fn begin(&mut self, frame: &Frame<'_>, burst: BurstId, source: SourceId, now: Instant) -> (u64, u32) {
        let silence = self.sent_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let samples = (silence.as_micros() * 48 / 1_000) as u32;
        let shift = self.timestamp.wrapping_add(samples.max(PACKET_SAMPLES)).wrapping_sub(frame.timestamp);
        let base = self.highest + 1;
        self.stretch = Some(Stretch { burst, source, first: frame.sequence, base, shift });
        (base, shift)
    }

    /// A sender report with the stream's name, if it was active lately.
    pub fn report(&self, now: Instant, epoch: Instant) -> Option<Vec<u8>> {
        let silence = now.saturating_duration_since(self.sent_at?);
        if silence > REPORTED {
            return None;
        }
        let samples = (silence.as_micros() * 48 / 1_000) as u32;
        Some(rtcp::sender_report(
            &SenderInfo {
                ssrc: self.ssrc,
                ntp: rtcp::ntp(now, epoch),
                timestamp: self.timestamp.wrapping_add(samples),
                packets: self.packets,
                octets: self.octets,
            },
            CNAME,
        ))
    }

    /// Keeps what the listener says about this stream.
    pub fn note_report(&mut self, block: &ReportBlock, now: Instant, epoch: Instant) {
        self.quality = block.quality(rtcp::ntp(now, epoch));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(sequence: u64) -> Frame<'static> {
        Frame { payload: b"opus", timestamp: sequence as u32 * 960, sequence, level: 30 }
    }

    #[test]
    fn a_new_burst_continues_the_old_one() {
        let (mut stream, now, mut out) = (Stream::new(1, "0".into(), 5), Instant::now(), Vec::new());
        let (a, b) = (SourceId(1), SourceId(2));
        let first = stream.place(&frame(100), BurstId(1), a, now).unwrap();
        assert_eq!((first.0, first.2), (6, true));
        assert_eq!(stream.place(&frame(103), BurstId(1), a, now).unwrap().0, 9);
        assert_eq!(stream.place(&frame(102), BurstId(1), a, now).unwrap().0, 8);
        assert!(stream.place(&frame(102), BurstId(1), a, now).is_none(), "sent already");
        assert!(stream.place(&frame(99), BurstId(1), a, now).is_none(), "older than the burst");
        let later = now + Duration::from_secs(1);
        let next = stream.place(&frame(7_000), BurstId(2), b, later).unwrap();
        assert_eq!((next.0, next.2), (10, true));
        assert_eq!(next.1.wrapping_sub(first.1), 3 * 960 + 48_000);
        assert!(stream.write(&frame(7_001), BurstId(2), b, later, &mut out));
        assert_eq!(out[1], OPUS_PAYLOAD_TYPE);
    }

    #[test]
    fn a_wild_jump_begins_anew() {
        let (mut stream, now) = (Stream::new(1, "0".into(), 5), Instant::now());
        stream.place(&frame(100), BurstId(1), SourceId(1), now).unwrap();
        let jumped = stream.place(&frame(900_000), BurstId(1), SourceId(1), now).unwrap();
        assert_eq!((jumped.0, jumped.2), (7, true));
    }
}
