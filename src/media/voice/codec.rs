//! Opus as the radio uses it: mono, 20 ms, about 20 kbit/s, with the last frame repeated in the next
//! packet (in-band FEC) so that a single loss can be mended.

use super::{FRAME, Frame, RATE, SILENCE, VoiceError};
use opus::{Application, Bitrate, Channels, packet};

/// Room that any packet of ours fits in.
pub const MAX_PACKET_BYTES: usize = 400;

/// Room for a packet of anybody: one Opus frame of the largest kind.
pub const MAX_PAYLOAD_BYTES: usize = 1276;

const BITRATE_BPS: i32 = 20_000;
/// Opus spends bits on FEC only if it is told to expect loss.
const EXPECTED_LOSS_PERCENT: i32 = 10;

/// Turns frames into packets.
#[derive(Debug)]
pub struct Encoder(opus::Encoder);

impl Encoder {
    /// An encoder of this complexity: 0 is the cheapest, 10 the best; a small board does well with 5.
    ///
    /// # Errors
    /// If the complexity is out of range or memory is out.
    pub fn new(complexity: u8) -> Result<Self, VoiceError> {
        let set_up = || -> opus::Result<opus::Encoder> {
            let mut encoder = opus::Encoder::new(RATE, Channels::Mono, Application::Voip)?;
            encoder.set_bitrate(Bitrate::Bits(BITRATE_BPS))?;
            encoder.set_vbr(true)?;
            encoder.set_inband_fec(true)?;
            encoder.set_packet_loss_perc(EXPECTED_LOSS_PERCENT)?;
            // Silence is sent too: a pause in packets would look like a loss to the listener.
            encoder.set_dtx(false)?;
            encoder.set_complexity(i32::from(complexity))?;
            Ok(encoder)
        };
        set_up().map(Encoder).map_err(VoiceError::Setup)
    }

    /// Encodes a frame into `out` and returns the number of bytes.
    ///
    /// # Errors
    /// If `out` is too small; [`MAX_PACKET_BYTES`] is enough.
    pub fn encode(&mut self, frame: &Frame, out: &mut [u8]) -> Result<usize, VoiceError> {
        self.0.encode(frame, out).map_err(VoiceError::Encode)
    }

    /// Forgets what was encoded before, for a new burst.
    pub fn reset(&mut self) {
        self.0.reset_state().expect("a reset takes no argument that could be wrong");
    }
}

/// Turns packets into frames.
#[derive(Debug)]
pub struct Decoder(opus::Decoder);

impl Decoder {
    /// A decoder.
    ///
    /// # Errors
    /// If memory is out.
    pub fn new() -> Result<Self, VoiceError> {
        opus::Decoder::new(RATE, Channels::Mono).map(Decoder).map_err(VoiceError::Setup)
    }

    /// Decodes a packet.
    ///
    /// # Errors
    /// If it is no Opus or does not hold 20 ms.
    pub fn decode(&mut self, payload: &[u8]) -> Result<Frame, VoiceError> {
        let samples = packet::get_nb_samples(payload, RATE).map_err(VoiceError::Decode)?;
        if samples != FRAME {
            return Err(VoiceError::Length { samples });
        }
        self.run(payload, false)
    }

    /// Makes up a frame for a lost packet from what was heard before (PLC).
    pub fn conceal(&mut self) -> Frame {
        self.run(&[], false).unwrap_or(SILENCE)
    }

    /// Makes up a frame for a lost packet from the packet right after it (FEC); without FEC in it,
    /// this conceals.
    ///
    /// # Errors
    /// If `next_payload` is no Opus.
    pub fn fec(&mut self, next_payload: &[u8]) -> Result<Frame, VoiceError> {
        packet::get_nb_samples(next_payload, RATE).map_err(VoiceError::Decode)?;
        self.run(next_payload, true)
    }

    /// Forgets what was decoded before, for a new burst.
    pub fn reset(&mut self) {
        self.0.reset_state().expect("a reset takes no argument that could be wrong");
    }

    fn run(&mut self, payload: &[u8], fec: bool) -> Result<Frame, VoiceError> {
        let mut frame = SILENCE;
        self.0.decode(payload, &mut frame, fec).map_err(VoiceError::Decode)?;
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::super::level::Level;
    use super::super::signal::{frequency_hz, sine};
    use super::*;

    const HZ: f64 = 700.0;
    const PEAK: f64 = 8000.0;

    fn packets(count: usize) -> Vec<Vec<u8>> {
        let mut encoder = Encoder::new(5).unwrap();
        let encode = |index| {
            let mut out = [0; MAX_PACKET_BYTES];
            let bytes = encoder.encode(&sine(HZ, PEAK, index), &mut out).unwrap();
            out[..bytes].to_vec()
        };
        (0..count).map(encode).collect()
    }

    fn rms(samples: &[i16]) -> f32 {
        Level::of(samples).rms_dbfs
    }

    #[test]
    fn a_sine_keeps_its_frequency_and_level() {
        let mut decoder = Decoder::new().unwrap();
        let heard: Vec<i16> = packets(100).iter().flat_map(|p| decoder.decode(p).unwrap()).collect();
        let settled = &heard[10 * FRAME..];
        let hz = frequency_hz(settled);
        assert!((hz - HZ).abs() < 3.0, "{hz} Hz");
        let off_db = rms(settled) - rms(&sine(HZ, PEAK, 0));
        assert!(off_db.abs() < 1.0, "{off_db} dB");
    }

    #[test]
    fn the_rate_is_about_20_kbit_s() {
        let bytes: usize = packets(100).iter().map(Vec::len).sum();
        let bits_per_second = bytes * 8 / 2;
        assert!((8_000..30_000).contains(&bits_per_second), "{bits_per_second}");
    }

    #[test]
    fn a_lost_packet_is_mended_from_the_next_one_or_concealed() {
        let packets = packets(40);
        for (with_fec, limit_db) in [(true, 1.0), (false, 6.0)] {
            let mut decoder = Decoder::new().unwrap();
            for packet in &packets[..30] {
                decoder.decode(packet).unwrap();
            }
            let mended = if with_fec { decoder.fec(&packets[31]).unwrap() } else { decoder.conceal() };
            let off_db = rms(&mended) - rms(&sine(HZ, PEAK, 0));
            assert!(off_db.abs() < limit_db, "fec {with_fec}: {off_db} dB");
        }
    }

    #[test]
    fn concealing_without_end_fades_out() {
        let mut decoder = Decoder::new().unwrap();
        for packet in packets(30) {
            decoder.decode(&packet).unwrap();
        }
        let last = (0..50).map(|_| decoder.conceal()).last().unwrap();
        assert!(rms(&last) < -50.0);
    }

    #[test]
    fn what_is_no_packet_of_20_ms_is_refused() {
        let mut decoder = Decoder::new().unwrap();
        assert!(matches!(decoder.decode(&[]), Err(VoiceError::Decode(_))));
        // Table of contents: CELT, 10 ms.
        assert!(matches!(decoder.decode(&[0b1111_0000, 0, 0]), Err(VoiceError::Length { samples: 480 })));
        assert!(Encoder::new(11).is_err());
    }
}
