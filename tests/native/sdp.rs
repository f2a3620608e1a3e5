//! Session descriptions from mediasoup's parameters, as libmediasoupclient writes them for the other
//! side, and back: what the gateway wants to know of our own.

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Who opens the DTLS handshake, as `connect-transport` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtlsRole {
    /// We open, as mediasoup-client does.
    Client,
    /// The gateway opens, as with libmediasoupclient on send transports.
    Server,
}

impl DtlsRole {
    fn as_str(self) -> &'static str {
        match self {
            DtlsRole::Client => "client",
            DtlsRole::Server => "server",
        }
    }

    /// What the gateway's description says when this is our role.
    fn remote_setup(self) -> &'static str {
        match self {
            DtlsRole::Client => "passive",
            DtlsRole::Server => "active",
        }
    }
}

/// The answer to our offer of one stream `mid`, from the reply to `create-transport`.
pub fn answer(transport: &Value, role: DtlsRole, mid: &str, rtp: &Value) -> String {
    let mut section = media_section(transport, role.remote_setup(), mid, rtp);
    section.push_str("a=recvonly\r\n");
    session(1, &[mid]) + &section
}

/// The offer of the streams that consumers were made for, from the replies to `create-transport` and `consume`.
pub fn offer(transport: &Value, consumers: &[Value]) -> String {
    let rtp = |consumer: &Value| consumer["rtpParameters"].clone();
    let mids: Vec<String> = consumers.iter().map(|c| text(&rtp(c)["mid"]).to_owned()).collect();
    let mids: Vec<&str> = mids.iter().map(String::as_str).collect();
    let mut description = session(consumers.len(), &mids);
    for (consumer, mid) in consumers.iter().zip(&mids) {
        let rtp = rtp(consumer);
        let (ssrc, cname) = (&rtp["encodings"][0]["ssrc"], text(&rtp["rtcp"]["cname"]));
        let id = text(&consumer["id"]);
        description += &media_section(transport, "actpass", mid, &rtp);
        description += &format!("a=sendonly\r\na=msid:{id} {id}\r\na=ssrc:{ssrc} cname:{cname}\r\n");
    }
    description
}

fn session(version: usize, mids: &[&str]) -> String {
    let bundle = mids.join(" ");
    format!(
        "v=0\r\no=crosspatch 1 {version} IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-lite\r\na=group:BUNDLE {bundle}\r\na=msid-semantic: WMS *\r\n"
    )
}

fn media_section(transport: &Value, setup: &str, mid: &str, rtp: &Value) -> String {
    let codec = &rtp["codecs"][0];
    let (payload_type, rate, channels) = (&codec["payloadType"], &codec["clockRate"], &codec["channels"]);
    let (ice, dtls) = (&transport["iceParameters"], &transport["dtlsParameters"]["fingerprints"][0]);
    let (fragment, password) = (text(&ice["usernameFragment"]), text(&ice["password"]));
    let (algorithm, fingerprint) = (text(&dtls["algorithm"]), text(&dtls["value"]));
    let mut section = format!(
        "m=audio 7 UDP/TLS/RTP/SAVPF {payload_type}\r\nc=IN IP4 127.0.0.1\r\na=mid:{mid}\r\n\
         a=ice-ufrag:{fragment}\r\na=ice-pwd:{password}\r\na=fingerprint:{algorithm} {fingerprint}\r\na=setup:{setup}\r\n\
         a=rtcp-mux\r\na=rtcp-rsize\r\na=rtpmap:{payload_type} opus/{rate}/{channels}\r\n\
         a=fmtp:{payload_type} minptime=10;useinbandfec=1\r\n"
    );
    for candidate in array(&transport["iceCandidates"]) {
        let (foundation, priority, port) = (text(&candidate["foundation"]), &candidate["priority"], &candidate["port"]);
        let address = text(&candidate["address"]);
        section += &format!("a=candidate:{foundation} 1 udp {priority} {address} {port} typ host\r\n");
    }
    section += "a=end-of-candidates\r\n";
    for extension in array(&rtp["headerExtensions"]) {
        section += &format!("a=extmap:{} {}\r\n", extension["id"], text(&extension["uri"]));
    }
    section
}

/// Our side of the handshake, for `connect-transport`.
pub fn dtls_parameters(local: &str, role: DtlsRole) -> Result<Value> {
    let fingerprint = attribute(local, "fingerprint").context("our description has no fingerprint")?;
    let (algorithm, value) = fingerprint.split_once(' ').context("our fingerprint has no algorithm")?;
    Ok(json!({ "role": role.as_str(), "fingerprints": [{ "algorithm": algorithm, "value": value }] }))
}

/// What our description says of the stream `ssrc` that we send, for `produce`.
pub fn rtp_parameters(local: &str, ssrc: u32) -> Result<Value> {
    let mid = attribute(local, "mid").context("our description has no mid")?;
    let opus = attributes(local, "rtpmap").find_map(|map| map.strip_suffix(" opus/48000/2"));
    let payload_type: u8 = opus.context("our description has no opus")?.parse()?;
    let extensions = attributes(local, "extmap").filter_map(|map| {
        let (id, uri) = map.split_once(' ')?;
        Some(json!({ "uri": uri, "id": id.parse::<u8>().ok()?, "encrypt": false, "parameters": {} }))
    });
    Ok(json!({
        "mid": mid,
        "codecs": [{
            "mimeType": "audio/opus",
            "payloadType": payload_type,
            "clockRate": 48_000,
            "channels": 2,
            "parameters": { "minptime": 10, "useinbandfec": 1 },
            "rtcpFeedback": [],
        }],
        "headerExtensions": extensions.collect::<Vec<_>>(),
        "encodings": [{ "ssrc": ssrc, "dtx": false }],
        "rtcp": { "cname": "native", "reducedSize": true },
    }))
}

fn attributes<'a>(description: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let values = description.lines().filter_map(|line| line.strip_prefix("a=")?.split_once(':'));
    values.filter(move |(key, _)| *key == name).map(|(_, value)| value)
}

fn attribute<'a>(description: &'a str, name: &'a str) -> Option<&'a str> {
    attributes(description, name).next()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
