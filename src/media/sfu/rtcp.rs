//! Writing sender reports and reading receiver reports (RFC 3550).

use std::time::Instant;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const DESCRIPTION: u8 = 202;
const BLOCK: usize = 24;

/// The time since `epoch` as an NTP stamp. Only differences of it mean anything.
pub(super) fn ntp(now: Instant, epoch: Instant) -> u64 {
    let since = now.saturating_duration_since(epoch);
    (since.as_secs() << 32) | ((u64::from(since.subsec_nanos()) << 32) / 1_000_000_000)
}

pub(super) struct SenderInfo {
    pub ssrc: u32,
    pub ntp: u64,
    pub timestamp: u32,
    pub packets: u32,
    pub octets: u32,
}

/// A sender report and the canonical name, as one compound packet.
pub(super) fn sender_report(info: &SenderInfo, cname: &str) -> Vec<u8> {
    let mut out = vec![0x80, SENDER_REPORT, 0, 6];
    out.extend(info.ssrc.to_be_bytes());
    out.extend(info.ntp.to_be_bytes());
    for word in [info.timestamp, info.packets, info.octets] {
        out.extend(word.to_be_bytes());
    }
    // SSRC, item type, length, name and at least one zero, in whole words.
    let words = (4 + 2 + cname.len() + 1).div_ceil(4);
    out.extend([0x81, DESCRIPTION, 0, words as u8]);
    let end = out.len() + 4 * words;
    out.extend(info.ssrc.to_be_bytes());
    out.extend([1, cname.len() as u8]);
    out.extend(cname.as_bytes());
    out.resize(end, 0);
    out
}

/// How well a listener hears a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Quality {
    /// The share of packets lost since the listener's report before, 0 to 1.
    pub lost: Option<f32>,
    /// The round trip in milliseconds.
    pub round_trip_ms: Option<f32>,
}

/// What a receiver says about one stream.
pub(super) struct ReportBlock {
    pub ssrc: u32,
    fraction_lost: u8,
    last_report: u32,
    delay: u32,
}

impl ReportBlock {
    fn parse(block: &[u8]) -> Self {
        let word = |at| u32::from_be_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        ReportBlock { ssrc: word(0), fraction_lost: block[4], last_report: word(16), delay: word(20) }
    }

    pub fn quality(&self, ntp: u64) -> Quality {
        let trip = ((ntp >> 16) as u32).wrapping_sub(self.last_report).wrapping_sub(self.delay);
        // Units of 1/65536 s; a clock that runs a little fast makes it negative.
        let trip = (trip as i32).max(0) as f32 * 1_000.0 / 65_536.0;
        Quality {
            lost: Some(f32::from(self.fraction_lost) / 256.0),
            round_trip_ms: (self.last_report != 0).then_some(trip),
        }
    }
}

/// The report blocks of a compound packet; stops at the first thing that does not add up.
pub(super) fn report_blocks(mut compound: &[u8]) -> Vec<ReportBlock> {
    let mut found = Vec::new();
    while let Some((head, _)) = compound.split_first_chunk::<4>() {
        let length = 4 + 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
        let Some((packet, rest)) = compound.split_at_checked(length) else {
            break;
        };
        let blocks_at = match head[1] {
            SENDER_REPORT => 28,
            RECEIVER_REPORT => 8,
            _ => length,
        };
        let blocks = packet.get(blocks_at..).unwrap_or_default().chunks_exact(BLOCK);
        found.extend(blocks.take(usize::from(head[0] & 0x1f)).map(ReportBlock::parse));
        compound = rest;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_receiver_report_gives_loss_and_round_trip() {
        let mut packet = vec![0x81, RECEIVER_REPORT, 0, 7, 0, 0, 0, 1];
        packet.extend(9_u32.to_be_bytes());
        packet.extend([64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend((10_u32 << 16).to_be_bytes());
        packet.extend((1_u32 << 16).to_be_bytes());
        let blocks = report_blocks(&packet);
        let epoch = Instant::now();
        let quality = blocks[0].quality(ntp(epoch + Duration::from_millis(11_500), epoch));
        assert_eq!((blocks.len(), blocks[0].ssrc), (1, 9));
        assert_eq!((quality.lost, quality.round_trip_ms), (Some(0.25), Some(500.0)));
        for cut in 0..packet.len() {
            report_blocks(&packet[..cut]);
        }
    }

    #[test]
    fn sender_reports_are_whole_words() {
        let info = SenderInfo { ssrc: 1, ntp: 2, timestamp: 3, packets: 4, octets: 5 };
        for name in ["", "a", "ab", "abc", "crosspatch"] {
            let report = sender_report(&info, name);
            assert_eq!(report.len() % 4, 0);
            assert_eq!(report.len(), 28 + 4 + 4 * usize::from(report[31]));
        }
    }
}
