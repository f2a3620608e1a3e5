//! The JSON of mediasoup's signaling, as far as audio needs it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::net::{IpAddr, SocketAddr};

/// The payload type of Opus towards listeners.
pub(super) const OPUS_PAYLOAD_TYPE: u8 = 111;
/// The header extension id of the MID towards listeners.
pub(super) const MID_EXTENSION: u8 = 1;
/// The header extension id of the audio level towards listeners.
pub(super) const LEVEL_EXTENSION: u8 = 10;
/// The CNAME of every stream of the gateway.
pub(super) const CNAME: &str = "crosspatch";

const OPUS: &str = "audio/opus";
const MID_URI: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const LEVEL_URI: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";

/// Which way the audio of a transport goes, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The client talks.
    Send,
    /// The client listens.
    Recv,
}

/// What the gateway, or a client, can receive.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpCapabilities {
    /// The codecs.
    #[serde(default)]
    pub codecs: Vec<CodecCapability>,
    /// The header extensions.
    #[serde(default)]
    pub header_extensions: Vec<ExtensionCapability>,
}

/// One codec of [`RtpCapabilities`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CodecCapability {
    /// `audio`.
    pub kind: String,
    /// `audio/opus`.
    pub mime_type: String,
    /// 48000.
    pub clock_rate: u32,
    /// 2 for Opus, whatever the audio is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<u8>,
    /// The payload type that this side likes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_payload_type: Option<u8>,
    /// The codec's own parameters.
    #[serde(default)]
    pub parameters: Map<String, Value>,
    /// The RTCP feedback messages in use.
    #[serde(default)]
    pub rtcp_feedback: Vec<Value>,
}

/// One header extension of [`RtpCapabilities`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtensionCapability {
    /// `audio`.
    pub kind: String,
    /// What the extension is.
    pub uri: String,
    /// The id that this side likes.
    pub preferred_id: u8,
}

impl RtpCapabilities {
    /// What the gateway can do.
    #[must_use]
    pub fn of_gateway() -> Self {
        let extension = |uri: &str, preferred_id| ExtensionCapability {
            kind: "audio".to_owned(),
            uri: uri.to_owned(),
            preferred_id,
        };
        RtpCapabilities {
            codecs: vec![CodecCapability {
                kind: "audio".to_owned(),
                mime_type: OPUS.to_owned(),
                clock_rate: 48_000,
                channels: Some(2),
                preferred_payload_type: Some(OPUS_PAYLOAD_TYPE),
                parameters: opus_settings(),
                rtcp_feedback: Vec::new(),
            }],
            header_extensions: vec![extension(MID_URI, MID_EXTENSION), extension(LEVEL_URI, LEVEL_EXTENSION)],
        }
    }

    /// True if Opus is among the codecs.
    pub(super) fn has_opus(&self) -> bool {
        self.codecs.iter().any(|codec| is_opus(&codec.mime_type))
    }
}

/// One stream: what a client sends, or what it is about to receive.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RtpParameters {
    /// The media id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mid: Option<String>,
    /// The codecs; the first one counts.
    pub codecs: Vec<CodecParameters>,
    /// The header extensions.
    #[serde(default)]
    pub header_extensions: Vec<ExtensionParameters>,
    /// The encodings; the first one counts.
    pub encodings: Vec<Encoding>,
    /// RTCP settings.
    #[serde(default)]
    pub rtcp: RtcpParameters,
}

/// One codec of [`RtpParameters`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CodecParameters {
    /// `audio/opus`.
    pub mime_type: String,
    /// The payload type on the wire.
    pub payload_type: u8,
    /// 48000.
    pub clock_rate: u32,
    /// 2 for Opus, whatever the audio is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<u8>,
    /// The codec's own parameters.
    #[serde(default)]
    pub parameters: Map<String, Value>,
    /// The RTCP feedback messages in use.
    #[serde(default)]
    pub rtcp_feedback: Vec<Value>,
}

/// One header extension of [`RtpParameters`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExtensionParameters {
    /// What the extension is.
    pub uri: String,
    /// Its id on the wire.
    pub id: u8,
}

/// One encoding of [`RtpParameters`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Encoding {
    /// The SSRC on the wire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssrc: Option<u32>,
}

/// RTCP settings of [`RtpParameters`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RtcpParameters {
    /// The canonical name of the sender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cname: Option<String>,
}

/// What the gateway has to know of a stream that a client sends.
pub(super) struct Announced {
    pub ssrc: u32,
    pub payload_type: u8,
    pub level_extension: Option<u8>,
}

impl RtpParameters {
    /// The stream that is announced here, or what is wrong.
    pub(super) fn announced(&self) -> Result<Announced, &'static str> {
        let codec = self.codecs.first().filter(|codec| is_opus(&codec.mime_type));
        let ssrc = self.encodings.first().and_then(|encoding| encoding.ssrc);
        let mut extensions = self.header_extensions.iter();
        Ok(Announced {
            ssrc: ssrc.ok_or("the first encoding names no ssrc; name the one you send with")?,
            payload_type: codec.ok_or("the first codec is not audio/opus; send Opus")?.payload_type,
            level_extension: extensions.find(|e| e.uri == LEVEL_URI).map(|e| e.id),
        })
    }

    /// The stream that a listener is about to receive.
    pub(super) fn to_listener(mid: &str, ssrc: u32) -> Self {
        let extension = |uri: &str, id| ExtensionParameters { uri: uri.to_owned(), id };
        RtpParameters {
            mid: Some(mid.to_owned()),
            codecs: vec![CodecParameters {
                mime_type: OPUS.to_owned(),
                payload_type: OPUS_PAYLOAD_TYPE,
                clock_rate: 48_000,
                channels: Some(2),
                parameters: opus_settings(),
                rtcp_feedback: Vec::new(),
            }],
            header_extensions: vec![extension(MID_URI, MID_EXTENSION), extension(LEVEL_URI, LEVEL_EXTENSION)],
            encodings: vec![Encoding { ssrc: Some(ssrc) }],
            rtcp: RtcpParameters { cname: Some(CNAME.to_owned()) },
        }
    }
}

fn is_opus(mime_type: &str) -> bool {
    mime_type.eq_ignore_ascii_case(OPUS)
}

fn opus_settings() -> Map<String, Value> {
    let settings = [("minptime", json!(10)), ("useinbandfec", json!(1))];
    settings.map(|(key, value)| (key.to_owned(), value)).into_iter().collect()
}

/// The reply to `create-transport`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TransportParameters {
    /// The transport's id.
    pub id: String,
    /// The gateway's ICE credentials.
    pub ice_parameters: IceParameters,
    /// Where the gateway can be reached.
    pub ice_candidates: Vec<IceCandidate>,
    /// The gateway's certificate.
    pub dtls_parameters: DtlsParameters,
}

/// ICE credentials of one transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IceParameters {
    /// The user name fragment.
    pub username_fragment: String,
    /// The password.
    pub password: String,
    /// True: the gateway only answers checks.
    pub ice_lite: bool,
}

/// One address of the gateway.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IceCandidate {
    foundation: String,
    priority: u32,
    ip: IpAddr,
    address: IpAddr,
    protocol: &'static str,
    port: u16,
    #[serde(rename = "type")]
    kind: &'static str,
}

impl IceCandidate {
    /// The candidate for the address at `place` in the configuration, the first one preferred.
    pub(super) fn new(place: usize, at: SocketAddr) -> Self {
        let lower = u32::try_from(place).unwrap_or(u32::MAX).min(255) << 8;
        IceCandidate {
            foundation: format!("udp{place}"),
            priority: 0x7eff_ffff - lower,
            ip: at.ip(),
            address: at.ip(),
            protocol: "udp",
            port: at.port(),
            kind: "host",
        }
    }
}

/// DTLS role and certificates of one side.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DtlsParameters {
    /// Who opens the handshake.
    #[serde(default)]
    pub role: DtlsRole,
    /// The fingerprints of the certificate.
    pub fingerprints: Vec<Fingerprint>,
}

/// Who opens the DTLS handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DtlsRole {
    /// Either side; the client opens.
    #[default]
    Auto,
    /// The side that says so opens.
    Client,
    /// The side that says so waits.
    Server,
}

/// The fingerprint of a certificate.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Which hash, such as `sha-256`.
    pub algorithm: String,
    /// The hash in hexadecimal, with colons.
    pub value: String,
}

/// The reply to `consume`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerParameters {
    /// The consumer's id.
    pub id: String,
    /// The producer that was asked for.
    pub producer_id: String,
    /// `audio`.
    pub kind: &'static str,
    /// `simple`.
    #[serde(rename = "type")]
    pub consumer_type: &'static str,
    /// False: the gates decide, not the client.
    pub producer_paused: bool,
    /// The stream that will come.
    pub rtp_parameters: RtpParameters,
}
