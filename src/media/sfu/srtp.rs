//! The SRTP keys of one transport, both ways.

use super::rtp;
use dimpl::SrtpProfile;
use rtc_crypto::providers::AwsLcRsCrypto;
use rtc_shared::error::Error;
use rtc_srtp::context::Context;
use rtc_srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use rtc_srtp::protection_profile::ProtectionProfile;
use std::collections::HashSet;

/// How many packets a talker's packet may be late.
const WINDOW: usize = 256;
/// Distinct SSRCs in a client's RTCP. The library keeps state for each one, before it has checked
/// that the packet is genuine.
const RTCP_SSRCS: usize = 64;

pub(super) struct Keys {
    out: Context,
    into: Context,
    rtcp_ssrcs: HashSet<u32>,
}

impl Keys {
    /// Splits the handshake's keying material (RFC 5764). `None` for a profile that is not ours.
    pub fn new(profile: SrtpProfile, material: &[u8], active: bool) -> Option<Self> {
        let profile = match profile {
            SrtpProfile::AES128_CM_SHA1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
            SrtpProfile::AEAD_AES_128_GCM => ProtectionProfile::AeadAes128Gcm,
            SrtpProfile::AEAD_AES_256_GCM => ProtectionProfile::AeadAes256Gcm,
            _ => return None,
        };
        let (key, salt) = (profile.key_len(), profile.salt_len());
        let (client_key, rest) = material.split_at_checked(key)?;
        let (server_key, rest) = rest.split_at_checked(key)?;
        let (client_salt, rest) = rest.split_at_checked(salt)?;
        let server_salt = rest.get(..salt)?;
        let (client, server) = ((client_key, client_salt), (server_key, server_salt));
        let (ours, theirs) = if active { (client, server) } else { (server, client) };
        let context = |(key, salt), window: Option<usize>| {
            let replay = window.map(srtp_replay_protection);
            let rtcp_replay = window.map(srtcp_replay_protection);
            Context::new(key, salt, profile, replay, rtcp_replay, &AwsLcRsCrypto).ok()
        };
        Some(Keys { out: context(ours, None)?, into: context(theirs, Some(WINDOW))?, rtcp_ssrcs: HashSet::new() })
    }

    pub fn protect(&mut self, packet: &[u8]) -> Result<impl AsRef<[u8]> + use<>, Error> {
        self.out.encrypt_rtp(packet)
    }

    pub fn protect_rtcp(&mut self, packet: &[u8]) -> Result<impl AsRef<[u8]> + use<>, Error> {
        self.out.encrypt_rtcp(packet)
    }

    /// Opens an RTP packet. **Only** for SSRCs that were announced: the library keeps state for
    /// every SSRC it is shown.
    pub fn open(&mut self, packet: &[u8]) -> Result<impl AsRef<[u8]> + use<>, Error> {
        self.into.decrypt_rtp(packet)
    }

    /// Opens an RTCP packet; `None` if it is forged, repeated or of one SSRC too many.
    pub fn open_rtcp(&mut self, packet: &[u8]) -> Option<impl AsRef<[u8]> + use<>> {
        let ssrc = u32::from_be_bytes(packet.get(4..8)?.try_into().ok()?);
        if self.rtcp_ssrcs.len() >= RTCP_SSRCS && !self.rtcp_ssrcs.contains(&ssrc) {
            return None;
        }
        self.rtcp_ssrcs.insert(ssrc);
        self.into.decrypt_rtcp(packet).ok()
    }
}

/// True for RTCP, as RFC 5761 tells it from RTP on one port.
pub(super) fn is_rtcp(packet: &[u8]) -> bool {
    packet.get(1).is_some_and(|kind| (192..=223).contains(kind))
}

/// What a datagram is, by its first byte (RFC 7983).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Stun,
    Dtls,
    Rtcp,
    Rtp { ssrc: u32 },
    Other,
}

impl Kind {
    pub fn of(datagram: &[u8]) -> Self {
        match (datagram.first(), rtp::ssrc(datagram)) {
            (Some(0..=3), _) => Kind::Stun,
            (Some(20..=63), _) => Kind::Dtls,
            (Some(128..=191), Some(_)) if is_rtcp(datagram) => Kind::Rtcp,
            (Some(128..=191), Some(ssrc)) => Kind::Rtp { ssrc },
            _ => Kind::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forged_and_repeated_packets_are_refused() {
        for profile in SrtpProfile::ALL {
            let material: Vec<u8> = (0..88).collect();
            let mut client = Keys::new(*profile, &material, true).unwrap();
            let mut server = Keys::new(*profile, &material, false).unwrap();
            let packet = [0x80, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 42];
            let sealed = client.protect(&packet).unwrap().as_ref().to_vec();
            let mut forged = sealed.clone();
            forged[12] ^= 1;
            assert!(server.open(&forged).is_err());
            assert_eq!(server.open(&sealed).unwrap().as_ref(), packet);
            assert!(server.open(&sealed).is_err(), "repeated");
            assert!(Keys::new(*profile, &material[..40], true).is_none());
        }
    }

    #[test]
    fn rtcp_of_endless_ssrcs_is_refused() {
        let material: Vec<u8> = (0..88).collect();
        let mut client = Keys::new(SrtpProfile::AEAD_AES_128_GCM, &material, true).unwrap();
        let mut server = Keys::new(SrtpProfile::AEAD_AES_128_GCM, &material, false).unwrap();
        let mut open = |ssrc: u8| {
            let report = [0x80, 201, 0, 1, 0, 0, 0, ssrc];
            let sealed = client.protect_rtcp(&report).unwrap().as_ref().to_vec();
            server.open_rtcp(&sealed).is_some()
        };
        assert!((0..64).all(&mut open));
        assert!(!open(64));
        assert!(open(0));
    }
}
