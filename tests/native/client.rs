//! A participant made of the `webrtc` crate: it joins, talks and listens as an app does.
//!
//! One connection for each direction, as mediasoup's clients have. Callbacks of the crate run on the
//! task that drives the connection, so they do nothing but hand over.

use super::gateway::Gateway;
use super::sdp::{self, DtlsRole};
use super::signaling::Signaling;
use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use rtc::ice::mdns::MulticastDnsMode;
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::media_engine::MIME_TYPE_OPUS;
use rtc::peer_connection::transport::RTCDtlsRole;
use rtc::rtp;
use rtc::rtp::extension::HeaderExtension;
use rtc::rtp::extension::audio_level_extension::AudioLevelExtension;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters,
    RTCRtpHeaderExtensionCapability, RtpCodecKind,
};
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCPeerConnectionState,
    RTCSessionDescription, Registry, SettingEngineBuilder, configure_rtcp_reports,
};

const OPUS_PAYLOAD_TYPE: u8 = 111;
/// Samples of one packet: 20 ms at 48 kHz.
const FRAME: u32 = 960;
/// What every packet says of its level, in −dBov.
const LEVEL: u8 = 20;
/// How long ICE and DTLS may take.
const CONNECT: Duration = Duration::from_secs(10);

/// A packet that came in.
#[derive(Clone, Debug)]
pub struct Heard {
    /// When it was handed over.
    pub at: Instant,
    /// Of which stream.
    pub ssrc: u32,
    /// Its number in the stream.
    pub sequence: u16,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// What the connections leave for the test.
#[derive(Default)]
struct Ears {
    heard: Mutex<Vec<Heard>>,
    came: Notify,
}

impl Ears {
    fn heard(&self) -> MutexGuard<'_, Vec<Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One direction's connection.
struct Side {
    connection: Arc<dyn PeerConnection>,
    /// The reply to `create-transport`.
    transport: Value,
    role: DtlsRole,
    state: watch::Receiver<RTCPeerConnectionState>,
    told: bool,
}

/// The stream that is sent.
struct Voice {
    track: Arc<TrackLocalStaticRTP>,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
}

/// A participant of the event.
pub struct NativeClient {
    /// Its WebSocket, for anything that is not media.
    pub signaling: Signaling,
    role: DtlsRole,
    sending: Option<Side>,
    voice: Option<Voice>,
    receiving: Option<Side>,
    /// The replies to `consume` so far.
    consumers: Vec<Value>,
    ears: Arc<Ears>,
}

impl NativeClient {
    /// Connects to the gateway; `role` is its part in every DTLS handshake.
    pub async fn connect(gateway: &Gateway, token: &str, role: DtlsRole) -> Result<Self> {
        Ok(NativeClient {
            signaling: Signaling::connect(gateway, token).await?,
            role,
            sending: None,
            voice: None,
            receiving: None,
            consumers: Vec::new(),
            ears: Arc::default(),
        })
    }

    /// Becomes a member of `channel`.
    pub async fn join(&mut self, channel: &str) -> Result<Value> {
        self.signaling.ask("join-channel", json!({ "channelId": channel })).await
    }

    /// Makes the one producer of this client and returns its id.
    pub async fn produce(&mut self, channel: &str) -> Result<String> {
        ensure!(self.voice.is_none(), "this client has a producer already");
        let mut side = self.side(channel, "send").await?;
        let (voice, track) = Voice::new();
        let init = RTCRtpTransceiverInit { direction: RTCRtpTransceiverDirection::Sendonly, ..Default::default() };
        side.connection.add_transceiver_from_track(track, Some(init)).await?;
        let offer = side.connection.create_offer(None).await?;
        let local = offer.sdp.clone();
        side.connection.set_local_description(offer).await?;
        side.tell(&mut self.signaling, &local).await?;
        let rtp = sdp::rtp_parameters(&local, voice.ssrc)?;
        let answer = sdp::answer(&side.transport, side.role, rtp["mid"].as_str().unwrap_or_default(), &rtp);
        let request =
            json!({ "transportId": side.transport["id"], "kind": "audio", "rtpParameters": rtp, "channelId": channel });
        let made = self.signaling.ask("produce", request).await?;
        side.connection.set_remote_description(RTCSessionDescription::answer(answer)?).await?;
        side.connected().await?;
        (self.sending, self.voice) = (Some(side), Some(voice));
        Ok(made["id"].as_str().context("a producer without id")?.to_owned())
    }

    /// Listens to whoever talks on `channel` and returns the reply to `consume`.
    pub async fn consume(&mut self, channel: &str) -> Result<Value> {
        let mut side = match self.receiving.take() {
            Some(side) => side,
            None => self.side(channel, "recv").await?,
        };
        let capabilities = self.signaling.ask("get-router-capabilities", json!({ "channelId": channel })).await?;
        let request = json!({
            "channelId": channel,
            "transportId": side.transport["id"],
            "producerId": format!("channel:{channel}"),
            "rtpCapabilities": capabilities["routerRtpCapabilities"],
        });
        let consumer = self.signaling.ask("consume", request).await?;
        self.consumers.push(consumer.clone());
        let offer = sdp::offer(&side.transport, &self.consumers);
        side.connection.set_remote_description(RTCSessionDescription::offer(offer)?).await?;
        let answer = side.connection.create_answer(None).await?;
        side.tell(&mut self.signaling, &answer.sdp).await?;
        side.connection.set_local_description(answer).await?;
        side.connected().await?;
        self.receiving = Some(side);
        Ok(consumer)
    }

    /// Asks for the floor, or with `priority` for somebody else's; fails if it is denied.
    pub async fn press(&mut self, channel: &str, priority: bool) -> Result<Value> {
        let kind = if priority { "priority-ptt-start" } else { "ptt-start" };
        let reply = self.signaling.ask(kind, json!({ "channelId": channel })).await?;
        if reply["success"] != true {
            bail!("{kind} was denied: {}", reply["message"]);
        }
        Ok(reply)
    }

    /// Gives the floor back.
    pub async fn release(&mut self, channel: &str) -> Result<Value> {
        self.signaling.ask("ptt-stop", json!({ "channelId": channel })).await
    }

    /// Sends one Opus packet, the next 20 ms.
    pub async fn send_opus(&mut self, payload: &[u8]) -> Result<()> {
        let voice = self.next()?;
        let header = rtp::Header {
            version: 2,
            payload_type: OPUS_PAYLOAD_TYPE,
            sequence_number: voice.sequence,
            timestamp: voice.timestamp,
            ssrc: voice.ssrc,
            ..Default::default()
        };
        let packet = rtp::Packet { header, payload: payload.to_vec().into() };
        let level = HeaderExtension::AudioLevel(AudioLevelExtension { level: LEVEL, voice: true });
        Ok(voice.track.write_rtp_with_extensions(packet, &[level]).await?)
    }

    /// Lets the next 20 ms be lost on the way.
    pub fn lose_opus(&mut self) -> Result<()> {
        self.next().map(drop)
    }

    fn next(&mut self) -> Result<&mut Voice> {
        let voice = self.voice.as_mut().context("this client has no producer")?;
        voice.sequence = voice.sequence.wrapping_add(1);
        voice.timestamp = voice.timestamp.wrapping_add(FRAME);
        Ok(voice)
    }

    /// Everything that came in so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.ears.heard().clone()
    }

    /// Waits until `enough` is true of what came in, or the deadline is over; returns what came in.
    pub async fn wait_heard(&self, enough: impl Fn(&[Heard]) -> bool, deadline: Duration) -> Vec<Heard> {
        let wait = async {
            while !enough(&self.ears.heard()) {
                self.ears.came.notified().await;
            }
        };
        // Too little is for the caller to judge: it knows what it wanted.
        tokio::time::timeout(deadline, wait).await.ok();
        self.heard()
    }

    async fn side(&mut self, channel: &str, direction: &str) -> Result<Side> {
        let request = json!({ "channelId": channel, "direction": direction });
        let transport = self.signaling.ask("create-transport", request).await?;
        let (changed, state) = watch::channel(RTCPeerConnectionState::New);
        let handler = Handler { changed, ears: self.ears.clone() };
        let answering = match self.role {
            DtlsRole::Client => RTCDtlsRole::Client,
            DtlsRole::Server => RTCDtlsRole::Server,
        };
        let settings = SettingEngineBuilder::new()
            .with_multicast_dns_mode(MulticastDnsMode::Disabled)
            .with_include_loopback_candidate(true)
            .with_answering_dtls_role(answering)
            .build();
        let connection = PeerConnectionBuilder::new()
            .with_media_engine(media_engine()?)
            .with_setting_engine(settings)
            .with_interceptor_registry(configure_rtcp_reports(Registry::new()))
            .with_handler(Arc::new(handler))
            .with_udp_addrs(vec!["127.0.0.1:0"])
            .build()
            .await?;
        Ok(Side { connection: Arc::new(connection), transport, role: self.role, state, told: false })
    }

    /// Ends the media in good order; the WebSocket closes when the client is dropped.
    pub async fn close(self) -> Result<()> {
        for side in self.sending.into_iter().chain(self.receiving) {
            side.connection.close().await?;
        }
        Ok(())
    }
}

impl Side {
    /// Sends `connect-transport`, once.
    async fn tell(&mut self, signaling: &mut Signaling, local: &str) -> Result<()> {
        if !self.told {
            let dtls = sdp::dtls_parameters(local, self.role)?;
            let request = json!({ "transportId": self.transport["id"], "dtlsParameters": dtls });
            signaling.ask("connect-transport", request).await?;
            self.told = true;
        }
        Ok(())
    }

    async fn connected(&mut self) -> Result<()> {
        let reached = self.state.wait_for(|state| *state == RTCPeerConnectionState::Connected);
        let reached = tokio::time::timeout(CONNECT, reached).await.map(|reached| reached.is_ok());
        ensure!(reached == Ok(true), "not connected within {CONNECT:?}, but {:?}", *self.state.borrow());
        Ok(())
    }
}

impl Voice {
    fn new() -> (Self, Arc<dyn TrackLocal>) {
        let ssrc = u32::from_ne_bytes(random());
        let coding = RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
            codec: opus(),
            ..Default::default()
        };
        let [stream, track, label] = ["stream", "voice", "voice"].map(str::to_owned);
        let track = MediaStreamTrack::new(stream, track, label, RtpCodecKind::Audio, vec![coding]);
        let track = Arc::new(TrackLocalStaticRTP::new(track));
        let voice = Voice { track: track.clone(), ssrc, sequence: u16::from_ne_bytes(random()), timestamp: 0 };
        (voice, track)
    }
}

/// What a connection tells.
struct Handler {
    changed: watch::Sender<RTCPeerConnectionState>,
    ears: Arc<Ears>,
}

#[async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.changed.send_replace(state);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let ears = self.ears.clone();
        tokio::spawn(async move {
            while let Some(event) = track.poll().await {
                if let TrackRemoteEvent::OnRtpPacket(packet) = event {
                    let rtp::Packet { header, payload } = packet;
                    let (ssrc, sequence) = (header.ssrc, header.sequence_number);
                    ears.heard().push(Heard { at: Instant::now(), ssrc, sequence, payload: payload.to_vec() });
                    ears.came.notify_one();
                }
            }
        });
    }
}

fn opus() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: MIME_TYPE_OPUS.to_owned(),
        clock_rate: 48_000,
        channels: 2,
        sdp_fmtp_line: "minptime=10;useinbandfec=1".to_owned(),
        rtcp_feedback: Vec::new(),
    }
}

fn media_engine() -> Result<MediaEngine> {
    let mut engine = MediaEngine::default();
    let codec = RTCRtpCodecParameters { rtp_codec: opus(), payload_type: OPUS_PAYLOAD_TYPE };
    engine.register_codec(codec, RtpCodecKind::Audio)?;
    for uri in ["urn:ietf:params:rtp-hdrext:sdes:mid", "urn:ietf:params:rtp-hdrext:ssrc-audio-level"] {
        let extension = RTCRtpHeaderExtensionCapability { uri: uri.to_owned() };
        engine.register_header_extension(extension, RtpCodecKind::Audio, None)?;
    }
    Ok(engine)
}

/// Random bytes.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes
}
