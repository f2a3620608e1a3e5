//! Golden transcripts: every request and push of the signaling protocol, word for word, over a real WebSocket.
//!
//! Each file of `tests/transcripts/` is a play on a gateway of its own. Its lines:
//!
//! - `# …` is a remark; `event key = value` and `limits key = value`, at the top, change the demo event's tables;
//! - `anna connects by protocol|token-protocol|bearer|query|nothing with CLAIMS` shakes hands; the claims get an `exp`
//!   in the future unless they name one themselves (`null` leaves it out), and `"secret": "foreign"` signs with another;
//!   `by protocol?resume=` adds a query to the address;
//! - `anna > TEXT` sends a text frame, `anna until TYPE > TEXT` also waits for a push that follows a little later, so that
//!   both are written down together; `anna sends 70000 letters` and `anna sends a binary frame` what nobody should;
//! - `anna 100 times > TEXT` asks that often, and waits for all replies; what was said alike is written down once;
//! - `ada calls POST /api/people BODY` sends a request to the HTTP API, with the token of the socket;
//! - `anna waits for TYPE` waits for a push; `anna hangs up` closes;
//! - `anna < …` is what she then was sent, all of it: messages with their fields in alphabetical order, `open`,
//!   `refused` (an HTTP answer instead of a socket), `closed`, and `answered` by the HTTP API.
//!
//! A line goes on with lines that begin with a space. What differs from run to run is a placeholder such as
//! `<burst:1>`: the first burst that the play names, checked for its shape, and the same value wherever it stands.
//! Times are checked too: `<time of burst:1>` is the same in all messages about that burst, a `<duration>` is plausible.
//!
//! The whole play must come out as it is committed. After a change of the wire that is wanted,
//! `REWRITE_TRANSCRIPTS=1 cargo test --test transcripts` writes the files anew; read the difference before committing it.

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "native/mod.rs"]
mod native;

use anyhow::{Context, Result, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use native::gateway::Gateway;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

const DEMO: &str = include_str!("../src/gateway/demo.toml");
/// How long anything may take: the longest wait of a play is for silence (4 s).
const DEADLINE: Duration = Duration::from_secs(15);
const WIDTH: usize = 118;
const FENCE: &str = "fence";
/// How the refusal of a request above the limit begins; a number of milliseconds follows.
const TOO_FAST: &str = "Too many requests. Try again in ";

/// Values that differ from run to run, and what they are called.
struct Names {
    media_port: u64,
    /// Kind and value, in the order of their first appearance within the kind.
    known: BTreeMap<&'static str, Vec<Value>>,
    /// When each burst began, as it was said first.
    begun: BTreeMap<String, Value>,
}

impl Names {
    /// What a field's value is called; `None` if it is a constant, or does not look as it should.
    fn name(&mut self, field: &str, value: &Value) -> Option<String> {
        let kind = self.kind(field, value)?;
        let known = self.known.entry(kind).or_default();
        let place = known.iter().position(|k| k == value).unwrap_or_else(|| {
            known.push(value.clone());
            known.len() - 1
        });
        Some(format!("<{kind}:{}>", place + 1))
    }

    fn kind(&self, field: &str, value: &Value) -> Option<&'static str> {
        let numbered = |prefix: char| {
            let number = value.as_str().and_then(|text| text.strip_prefix(prefix));
            number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        };
        let ice_text = |least: usize| {
            value.as_str().is_some_and(|text| {
                text.len() >= least && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b))
            })
        };
        let fingerprint = || {
            let pairs: Vec<_> = value.as_str().unwrap_or_default().split(':').collect();
            let is_pair = |p: &&str| p.len() == 2 && p.bytes().all(|b| b"0123456789ABCDEF".contains(&b));
            pairs.len() == 32 && pairs.iter().all(is_pair)
        };
        let number = |from: u64, to: u64| value.as_u64().is_some_and(|n| (from..=to).contains(&n));
        let (kind, fits) = match field {
            "burstId" => ("burst", numbered('b')),
            "sessionId" => ("session", numbered('s')),
            "id" | "transportId" if numbered('t') => ("transport", true),
            "id" | "producerId" if numbered('p') => ("producer", true),
            "id" | "consumerId" if numbered('c') => ("consumer", true),
            "usernameFragment" => ("ufrag", ice_text(4)),
            "password" => ("password", ice_text(22)),
            "value" => ("fingerprint", fingerprint()),
            "port" => ("port", value.as_u64() == Some(self.media_port)),
            "ssrc" => ("ssrc", number(0, u64::from(u32::MAX))),
            _ => return None,
        };
        fits.then_some(kind)
    }

    /// Puts names in place of values.
    fn hide(&mut self, field: &str, value: &Value) -> Value {
        if let Some(name) = self.name(field, value) {
            return Value::String(name);
        }
        match value {
            Value::Object(fields) => {
                let mut hidden: Map<_, _> = fields.iter().map(|(k, v)| (k.clone(), self.hide(k, v))).collect();
                if let (Some(begun), Some(Value::String(burst))) = (fields.get("lockTimestamp"), hidden.get("burstId"))
                    && is_recent(begun)
                    && self.begun.entry(burst.clone()).or_insert_with(|| begun.clone()) == begun
                {
                    let name = format!("<time of {}", burst.trim_start_matches('<'));
                    hidden.insert("lockTimestamp".to_owned(), Value::String(name));
                }
                Value::Object(hidden)
            }
            Value::Array(items) => items.iter().map(|v| self.hide(field, v)).collect(),
            Value::String(text) if field == "error" => Value::String(self.hide_quoted(text)),
            Value::Number(ms) if field.ends_with("Ms") && ms.as_u64().is_some_and(|ms| (1..10_000).contains(&ms)) => {
                Value::String("<duration>".to_owned())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
        }
    }

    /// Puts names in place of values that stand quoted in a sentence.
    fn hide_quoted(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (kind, values) in &self.known {
            for (place, value) in values.iter().enumerate() {
                let plain = value.as_str().unwrap_or_default();
                text = text.replace(&format!("'{plain}'"), &format!("'<{kind}:{}>'", place + 1));
            }
        }
        match text.strip_prefix(TOO_FAST).and_then(|rest| rest.strip_suffix(" ms.")).map(str::parse::<u64>) {
            Some(Ok(0..=1_000)) => format!("{TOO_FAST}<duration> ms."),
            Some(Ok(_) | Err(_)) | None => text,
        }
    }

    /// Puts values in place of names.
    fn reveal(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (kind, values) in &self.known {
            for (place, value) in values.iter().enumerate() {
                let plain = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                text = text.replace(&format!("<{kind}:{}>", place + 1), &plain);
            }
        }
        text
    }
}

/// True for a time since 1970, in milliseconds, of the last minute.
fn is_recent(time: &Value) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    time.as_u64().is_some_and(|time| (now - 60_000..=now).contains(&time))
}

/// JSON on as few lines as fit, the fields of an object side by side.
fn pretty(value: &Value, indent: usize) -> String {
    let flat = flat(value);
    if flat.len() + indent <= WIDTH {
        return flat;
    }
    let (open, close, items): (_, _, Vec<String>) = match value {
        Value::Object(fields) => {
            let item = |(k, v): (&String, &Value)| format!("{}: {}", json!(k), pretty(v, indent + 2));
            ('{', '}', fields.iter().map(item).collect())
        }
        Value::Array(items) => ('[', ']', items.iter().map(|v| pretty(v, indent + 2)).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return flat,
    };
    let mut lines: Vec<String> = Vec::new();
    for item in items {
        match lines.last_mut() {
            Some(line)
                if !line.contains('\n') && indent + line.len() + item.len() + 4 <= WIDTH && !item.contains('\n') =>
            {
                *line += &format!(", {item}");
            }
            Some(_) | None => lines.push(item),
        }
    }
    let pad = " ".repeat(indent);
    format!("{open}\n{pad}  {}\n{pad}{close}", lines.join(&format!(",\n{pad}  ")))
}

fn flat(value: &Value) -> String {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let items: Vec<_> = fields.iter().map(|(k, v)| format!("{}: {}", json!(k), flat(v))).collect();
            format!("{{ {} }}", items.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(flat).collect::<Vec<_>>().join(", ")),
        Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

/// Somebody of the play.
struct Actor {
    name: String,
    token: String,
    socket: Option<WebSocketStream<TcpStream>>,
    /// What came and is not written down yet.
    heard: Vec<Value>,
    end: Option<String>,
    fences: u64,
}

impl Actor {
    async fn send(&mut self, message: Message) {
        if let Some(socket) = &mut self.socket {
            socket.send(message).await.ok(); // a socket that is closed already says so when it is read
        }
    }

    /// Reads until `enough` says so of a message, or the gateway has closed.
    async fn read_until(&mut self, what: &str, enough: impl Fn(&Value) -> bool) -> Result<()> {
        let read = async {
            while let Some(socket) = &mut self.socket {
                match socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        let message: Value = serde_json::from_str(&text)?;
                        let found = enough(&message);
                        if message["id"].as_str().is_none_or(|id| !id.starts_with(FENCE)) {
                            self.heard.push(message);
                        }
                        if found {
                            return Ok(());
                        }
                    }
                    Some(Ok(Message::Close(frame))) => {
                        let frame = frame.context("a close without a code")?;
                        self.end = Some(format!("closed {} {}", u16::from(frame.code), frame.reason));
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(other)) => bail!("the gateway sent {other:?}"),
                    Some(Err(_)) | None => self.socket = None,
                }
            }
            Ok(())
        };
        let read = tokio::time::timeout(DEADLINE, read).await;
        read.with_context(|| format!("{} waited {DEADLINE:?} for {what}", self.name))?
    }

    /// Waits until the gateway has done all that it was asked before: this request goes through the control loop, the
    /// media thread and back.
    async fn fence(&mut self) -> Result<()> {
        self.fences += 1;
        let id = format!("{FENCE}-{}", self.fences);
        let request = json!({ "type": "close-consumer", "id": id, "data": { "consumerId": "none" } });
        self.send(Message::Text(request.to_string().into())).await;
        self.read_until("the fence", |message| message["id"] == id.as_str()).await
    }
}

/// A play while it runs.
struct Stage {
    gateway: Gateway,
    names: Names,
    actors: Vec<Actor>,
    transcript: String,
}

impl Stage {
    async fn play(script: &str) -> Result<String> {
        let mut config = DEMO.to_owned();
        for line in script.lines() {
            if let Some(setting) = line.strip_prefix("event ") {
                config = config.replace("[event]\n", &format!("[event]\n{setting}\n"));
            } else if let Some(setting) = line.strip_prefix("limits ") {
                config += &format!("\n[limits]\n{setting}\n");
            }
        }
        let gateway = Gateway::with_config(&config).await?;
        let names =
            Names { media_port: gateway.media()?.port().into(), known: BTreeMap::new(), begun: BTreeMap::new() };
        let mut stage = Stage { gateway, names, actors: Vec::new(), transcript: String::new() };
        let mut lines = script.lines().peekable();
        while let Some(line) = lines.next() {
            let mut action = line.to_owned();
            while let Some(more) = lines.next_if(|next| next.starts_with(' ')) {
                action += "\n";
                action += more;
            }
            if action.split(' ').nth(1) == Some("<") {
                continue;
            }
            stage.transcript += &action;
            stage.transcript.push('\n');
            if !(line.is_empty() || ["#", "event ", "limits "].iter().any(|start| line.starts_with(start))) {
                stage.act(&action).await.with_context(|| format!("at '{line}'"))?;
            }
        }
        Ok(stage.transcript)
    }

    async fn act(&mut self, action: &str) -> Result<()> {
        let (who, what) = action.split_once(' ').context("nobody acts")?;
        if let Some(how) = what.strip_prefix("connects by ") {
            let (way, claims) = how.split_once(" with ").unwrap_or((how, "{}"));
            let actor = self.connect(who, &self.names.reveal(way), serde_json::from_str(claims)?).await?;
            self.actors.retain(|a| a.name != who);
            self.actors.push(actor);
            return self.settle(who).await;
        }
        let (until, what) = match what.strip_prefix("until ").and_then(|rest| rest.split_once(' ')) {
            Some((kind, what)) => (Some(kind), what),
            None => (None, what),
        };
        let text = what.strip_prefix("> ").map(|text| self.names.reveal(text));
        let actor = self.actors.iter_mut().find(|a| a.name == who).context("who is that?")?;
        match (text, what.split(' ').collect::<Vec<_>>().as_slice()) {
            (None, [count, "times", ">", ..]) => {
                let text = what.split_once("> ").context("what does she ask?")?.1;
                let id = &serde_json::from_str::<Value>(text)?["id"];
                let count: usize = count.parse()?;
                for _ in 0..count {
                    actor.send(Message::Text(text.into())).await;
                }
                for _ in 0..count {
                    actor.read_until("all replies", |message| message["id"] == *id).await?;
                }
                let mut said = BTreeSet::new();
                actor.heard.retain(|message| said.insert(self.names.hide("", message).to_string()));
            }
            (None, ["calls", method, path, body @ ..]) => {
                let call = format!("{method} {path}");
                let (status, answer) = self.gateway.call(&actor.token, &call, &body.join(" ")).await?;
                let answer = pretty(&answer, 2);
                self.transcript += &format!("{who} < answered {status} {answer}\n");
            }
            (Some(text), _) => actor.send(Message::Text(text.into())).await,
            (None, ["sends", "a", "binary", "frame"]) => actor.send(Message::Binary(vec![1, 2, 3].into())).await,
            (None, ["sends", count, "letters"]) => {
                actor.send(Message::Text("x".repeat(count.parse()?).into())).await;
            }
            (None, ["waits", "for", kind]) => {
                actor.read_until(kind, |message| message["type"] == *kind).await?;
            }
            (None, ["hangs", "up"]) => {
                actor.socket = None;
                return Ok(()); // whoever should notice waits for it
            }
            (None, _) => bail!("nobody knows how to do that"),
        }
        if let Some(kind) = until {
            actor.read_until(kind, |message| message["type"] == kind).await?;
        }
        self.settle(who).await
    }

    async fn connect(&mut self, who: &str, way: &str, mut claims: Value) -> Result<Actor> {
        let secret = match claims.as_object_mut().and_then(|c| c.remove("secret")) {
            Some(_) => vec![7; 32],
            None => std::fs::read(self.gateway.state_dir().join("token.secret"))?,
        };
        if claims.get("exp").is_none() {
            claims["exp"] = json!(4_000_000_000_u64);
        }
        if claims["exp"].is_null() {
            claims.as_object_mut().context("claims are an object")?.remove("exp");
        }
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(&secret))?;
        let (way, resume) = way.split_once('?').map_or((way, String::new()), |(way, query)| (way, format!("?{query}")));
        let mut address = format!("ws://{}/ws{resume}", self.gateway.http());
        let mut offered = "voiceping".to_owned();
        match way {
            "protocol" => offered += &format!(", {token}"),
            "token-protocol" => offered += &format!(", token-{token}"),
            "query" => address += &format!("?token={token}"),
            "bearer" | "nothing" => {}
            other => bail!("there is no way '{other}' to bring a token"),
        }
        let mut request = address.into_client_request()?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", offered.parse()?);
        if way == "bearer" {
            request.headers_mut().insert("Authorization", format!("Bearer {token}").parse()?);
        }
        let stream = TcpStream::connect(self.gateway.http()).await?;
        let mut actor = Actor { name: who.to_owned(), token, socket: None, heard: Vec::new(), end: None, fences: 0 };
        match tokio_tungstenite::client_async(request, stream).await {
            Ok((socket, response)) => {
                let chosen = response.headers().get("Sec-WebSocket-Protocol").context("no subprotocol was chosen")?;
                self.transcript += &format!("{who} < open {}\n", chosen.to_str()?);
                actor.socket = Some(socket);
            }
            Err(Error::Http(answer)) => {
                let text = String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default()).into_owned();
                let refused = format!("refused {} {text}", answer.status().as_u16());
                actor.end = Some(match answer.headers().get("Retry-After") {
                    Some(after) => {
                        let after = after.to_str()?;
                        ensure!((1..=60).contains(&after.parse::<u64>()?), "Retry-After: {after}");
                        let refused = refused.replace(&format!(" {after} s"), " <seconds> s");
                        format!("{refused} (Retry-After: <seconds>)")
                    }
                    None => refused,
                });
            }
            Err(error) => return Err(error.into()),
        }
        Ok(actor)
    }

    /// Lets everybody hear what came of an action and writes it down. When the actor is gone after it, the gateway may
    /// not know yet: whoever should notice waits for it.
    async fn settle(&mut self, who: &str) -> Result<()> {
        self.actors.sort_by_key(|actor| actor.name != who); // stable: whoever acts, then as they came
        for actor in &mut self.actors {
            actor.fence().await?;
            if actor.name == who && actor.socket.is_none() {
                break;
            }
        }
        for actor in &mut self.actors {
            for message in actor.heard.drain(..) {
                let line = format!("{} < ", actor.name);
                let text = pretty(&self.names.hide("", &message), 2);
                self.transcript += &format!("{line}{text}\n");
            }
            if let Some(end) = actor.end.take() {
                self.transcript += &format!("{} < {end}\n", actor.name);
            }
        }
        Ok(())
    }
}

/// The first line in which two texts differ, with what stands around it.
fn difference(expected: &str, actual: &str) -> Option<String> {
    let (expected, actual): (Vec<_>, Vec<_>) = (expected.lines().collect(), actual.lines().collect());
    let at = (0..expected.len().max(actual.len())).find(|i| expected.get(*i) != actual.get(*i))?;
    let around = |lines: &[&str]| lines.iter().skip(at).take(6).map(|l| format!("    {l}\n")).collect::<String>();
    Some(format!("line {}:\n  committed:\n{}  now:\n{}", at + 1, around(&expected), around(&actual)))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wire_is_as_the_transcripts_say() -> Result<()> {
    let rewrite = std::env::var_os("REWRITE_TRANSCRIPTS").is_some();
    let mut files: Vec<_> = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts"))?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    ensure!(!files.is_empty(), "there are no transcripts");
    let mut wrong = Vec::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let committed = std::fs::read_to_string(&file)?;
        match Stage::play(&committed).await {
            Ok(played) if rewrite => std::fs::write(&file, played)?,
            Ok(played) => wrong.extend(difference(&committed, &played).map(|d| format!("{name}, {d}"))),
            Err(error) => wrong.push(format!("{name}: {error:#}")),
        }
    }
    ensure!(wrong.is_empty(), "the wire has changed:\n{}", wrong.join("\n"));
    Ok(())
}
