//! What clients say, checked field by field.

use crate::base::{BurstId, ChannelId, ReplyId, SessionId, UserId};
use crate::control::{Input, Refusal};
use serde_json::{Map, Value};
use std::time::Duration;

/// A message whose type and id could be read.
#[derive(Debug)]
pub struct Envelope {
    /// The request's id; without one it is carried out and not answered.
    pub id: Option<Value>,
    /// What it asks for, or which field is wrong.
    pub request: Result<Request, Refusal>,
}

/// What a message asks for.
#[derive(Debug)]
pub enum Request {
    /// Something the core decides.
    Core(Box<Input>),
    /// Something the media room does once the core has checked membership (F13).
    Media {
        /// The channel it names.
        channel: Option<ChannelId>,
        /// What to do.
        op: MediaOp,
    },
    /// `ping`
    Ping,
}

impl Request {
    /// True for emergency traffic and releases: no limit may hold them up.
    #[must_use]
    pub fn is_exempt_from_limits(&self) -> bool {
        match self {
            Request::Core(input) => matches!(
                **input,
                Input::Release { .. }
                    | Input::Leave { .. }
                    | Input::Arm { .. }
                    | Input::StartEmergency { .. }
                    | Input::StopEmergency { .. }
            ),
            Request::Media { .. } | Request::Ping => false,
        }
    }
}

/// A media request, with the message's `data` as it came.
#[derive(Clone, Debug, PartialEq)]
pub enum MediaOp {
    /// `get-router-capabilities`
    RouterCapabilities,
    /// `create-transport`
    CreateTransport(Value),
    /// `connect-transport`
    ConnectTransport(Value),
    /// `restart-ice`
    RestartIce(Value),
    /// `close-transport`
    CloseTransport(Value),
    /// `produce`
    Produce(Value),
    /// `consume`
    Consume(Value),
    /// `close-producer`
    CloseProducer(Value),
    /// `close-consumer`
    CloseConsumer(Value),
}

struct Data(Map<String, Value>);

impl Data {
    fn text(&self, field: &str) -> Result<&str, Refusal> {
        match self.0.get(field) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text),
            Some(_) => Err(bad(format!("'{field}' must be a non-empty string"))),
            None => Err(bad(format!("'{field}' is missing"))),
        }
    }

    fn channel(&self) -> Result<ChannelId, Refusal> {
        self.text("channelId").map(ChannelId::from)
    }

    fn target(&self) -> Result<UserId, Refusal> {
        self.text("targetUserId").map(UserId::from)
    }

    fn reason(&self) -> String {
        self.0.get("reason").and_then(Value::as_str).unwrap_or("No reason was given.").to_owned()
    }

    fn number(&self, field: &str) -> Result<Option<f64>, Refusal> {
        match self.0.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => match v.as_f64() {
                Some(n) if n.is_finite() && n >= 0.0 => Ok(Some(n)),
                Some(_) | None => Err(bad(format!("'{field}' must be a number that is not negative"))),
            },
        }
    }

    fn burst(&self) -> Result<Option<BurstId>, Refusal> {
        match self.0.get("burstId") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => text.parse().map(Some).map_err(|()| bad("'burstId' is none of ours".into())),
            Some(_) => Err(bad("'burstId' must be a string".into())),
        }
    }
}

fn bad(what: String) -> Refusal {
    Refusal::new("bad-request", what)
}

/// Reads one text frame. `reply` is the return address it gets.
#[must_use]
pub fn parse(text: &str, session: SessionId, reply: ReplyId) -> Envelope {
    let message: Value = match serde_json::from_str(text) {
        Ok(message) => message,
        Err(e) => {
            return Envelope { id: None, request: Err(Refusal::new("bad-json", format!("this is not JSON: {e}"))) };
        }
    };
    let Value::Object(mut message) = message else {
        return Envelope { id: None, request: Err(bad("a message must be a JSON object".into())) };
    };
    let id = message.remove("id").filter(|id| id.is_string() || id.is_number());
    let request = read(&mut message, session, reply);
    Envelope { id, request }
}

fn read(message: &mut Map<String, Value>, session: SessionId, reply: ReplyId) -> Result<Request, Refusal> {
    let kind = match message.get("type") {
        Some(Value::String(kind)) => kind.clone(),
        Some(_) => return Err(bad("'type' must be a string".into())),
        None => return Err(bad("'type' is missing".into())),
    };
    let data = match message.remove("data") {
        Some(Value::Object(data)) => Data(data),
        None | Some(Value::Null) => Data(Map::new()),
        Some(_) => return Err(bad("'data' must be an object".into())),
    };
    let core = |input| Ok(Request::Core(Box::new(input)));
    let media = |channel, op| Ok(Request::Media { channel, op });
    match kind.as_str() {
        "join-channel" => core(Input::Join { session, channel: data.channel()?, reply }),
        "leave-channel" => core(Input::Leave { session, channel: data.channel()?, reply }),
        "ptt-start" => core(Input::Request { session, channel: data.channel()?, priority: false, reply }),
        "priority-ptt-start" => core(Input::Request { session, channel: data.channel()?, priority: true, reply }),
        "ptt-stop" | "priority-ptt-stop" => {
            core(Input::Release { session, channel: data.channel()?, burst: data.burst()?, reply })
        }
        "emergency-broadcast-arm" => match data.0.get("pressed") {
            Some(Value::Bool(pressed)) => core(Input::Arm { session, pressed: *pressed, reply }),
            Some(_) => Err(bad("'pressed' must be true or false".into())),
            None => Err(bad("'pressed' is missing".into())),
        },
        "emergency-broadcast-start" => {
            let hold_ms = data.number("holdDuration")?.ok_or_else(|| bad("'holdDuration' is missing".into()))?;
            core(Input::StartEmergency { session, hold_ms, reply })
        }
        "emergency-broadcast-stop" => core(Input::StopEmergency { session, reply }),
        "force-disconnect" => {
            core(Input::ForceDisconnect { session, target: data.target()?, reason: data.reason(), reply })
        }
        "ban-user" => {
            let duration = data.number("duration")?.map(|ms| Duration::from_millis(ms as u64));
            core(Input::Ban { session, target: data.target()?, duration, reason: data.reason(), reply })
        }
        "unban-user" => core(Input::Unban { session, target: data.target()?, reply }),
        "ping" => Ok(Request::Ping),
        "get-router-capabilities" => media(Some(data.channel()?), MediaOp::RouterCapabilities),
        "create-transport" => {
            data.text("direction")?;
            media(Some(data.channel()?), MediaOp::CreateTransport(Value::Object(data.0)))
        }
        "produce" => {
            data.text("transportId")?;
            media(Some(data.channel()?), MediaOp::Produce(Value::Object(data.0)))
        }
        "consume" => {
            if data.0.contains_key("transportId") {
                data.text("transportId")?; // old clients name none
            }
            data.text("producerId")?;
            media(Some(data.channel()?), MediaOp::Consume(Value::Object(data.0)))
        }
        "connect-transport" => {
            data.text("transportId").map(drop).and(media(None, MediaOp::ConnectTransport(Value::Object(data.0))))
        }
        "restart-ice" => {
            data.text("transportId").map(drop).and(media(None, MediaOp::RestartIce(Value::Object(data.0))))
        }
        "close-transport" => {
            data.text("transportId").map(drop).and(media(None, MediaOp::CloseTransport(Value::Object(data.0))))
        }
        "close-producer" => {
            data.text("producerId").map(drop).and(media(None, MediaOp::CloseProducer(Value::Object(data.0))))
        }
        "close-consumer" => {
            data.text("consumerId").map(drop).and(media(None, MediaOp::CloseConsumer(Value::Object(data.0))))
        }
        other => Err(Refusal::new("unknown-type", format!("'{other}' is no message type of this gateway"))),
    }
}
