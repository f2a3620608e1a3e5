//! The WebSocket of a session: handshake, heartbeat, text frames both ways.
//!
//! **Invariant:** a slow or silent client never holds anybody up: its queue is bounded, and a full
//! queue or two missed heartbeats end the session.

use super::token::{Identity, TokenError, Tokens};
use crate::base::{Role, SessionId, UserId};
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{SinkExt, StreamExt};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// The largest message a client may send, in bytes.
const MAX_MESSAGE: usize = 64 * 1024;
/// What a session keeps to read into, in bytes: requests are far smaller, and a box has hundreds of sessions.
const READ_BUFFER: usize = 4 * 1024;
/// Messages that may wait for a slow client before its session is ended.
const OUT_QUEUE: usize = 1024;
const HEARTBEAT: Duration = Duration::from_secs(30);
/// Sessions that desks and ports may take; the network's begin above.
const FIRST_SESSION: u64 = 1000;

/// Whether a participant may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Yes,
    /// No: banned.
    Banned,
    /// Not now: too many connections.
    TooMany {
        /// When there is room again.
        retry_after: Duration,
    },
    /// Not now: the box has as many users as it may have.
    Full,
}

/// What happens on sockets.
#[derive(Debug)]
pub enum SocketEvent {
    /// May this participant connect? Asked before the upgrade.
    Admit {
        /// Who.
        user: UserId,
        /// In which role.
        role: Role,
        /// Where the answer goes.
        answer: oneshot::Sender<Admission>,
    },
    /// A handshake was refused.
    Refused {
        /// What was wrong.
        why: String,
    },
    /// A session opened.
    Opened {
        /// Its id.
        session: SessionId,
        /// Whose it is.
        identity: Identity,
        /// What the client says that it continues: the session in `?resume=`, empty for the first one; `None` from clients
        /// that know nothing of it.
        resume: Option<String>,
        /// Where messages to it go.
        out: mpsc::Sender<Outgoing>,
    },
    /// A text frame came.
    Text {
        /// From which session.
        session: SessionId,
        /// The frame.
        text: String,
    },
    /// A session ended.
    Closed {
        /// Which one.
        session: SessionId,
        /// Why, in one kebab-case word.
        cause: &'static str,
    },
}

/// What goes to a client.
#[derive(Debug, Clone)]
pub enum Outgoing {
    /// A text frame.
    Text(Arc<str>),
    /// The end, with close code 4003.
    Close(String),
}

/// What the handshake needs.
#[derive(Clone)]
pub struct Sockets {
    /// Checks tokens.
    pub tokens: Arc<Tokens>,
    /// Where events go; it waits when the gateway is busy.
    pub events: mpsc::Sender<SocketEvent>,
    next: Arc<AtomicU64>,
}

impl Sockets {
    /// Sockets whose sessions are checked by `tokens` and reported to `events`.
    #[must_use]
    pub fn new(tokens: Arc<Tokens>, events: mpsc::Sender<SocketEvent>) -> Self {
        Sockets { tokens, events, next: Arc::new(AtomicU64::new(FIRST_SESSION)) }
    }
}

/// `GET /ws`: checks the token, then upgrades.
pub async fn upgrade(
    State(sockets): State<Sockets>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
    ws: WebSocketUpgrade,
) -> Response {
    let checked = find_token(&headers, &query).ok_or(TokenError::Missing).and_then(|t| sockets.tokens.check(&t));
    let identity = match checked {
        Ok(identity) => identity,
        Err(e) => {
            let status = match e {
                TokenError::ForeignEvent(_) => StatusCode::FORBIDDEN,
                TokenError::Missing | TokenError::Invalid(_) | TokenError::Secret { .. } => StatusCode::UNAUTHORIZED,
            };
            sockets.events.send(SocketEvent::Refused { why: e.to_string() }).await.ok();
            return (status, e.to_string()).into_response();
        }
    };
    let (answer, admitted) = oneshot::channel();
    let ask = SocketEvent::Admit { user: identity.user.clone(), role: identity.role, answer };
    sockets.events.send(ask).await.ok();
    match admitted.await {
        Ok(Admission::Yes) => {}
        Ok(Admission::Banned) => {
            sockets.events.send(SocketEvent::Refused { why: format!("{} is banned", identity.user) }).await.ok();
            return (StatusCode::FORBIDDEN, "You are banned from this event. Ask an administrator.").into_response();
        }
        Ok(Admission::TooMany { retry_after }) => {
            let seconds = retry_after.as_secs() + 1;
            let headers = [(header::RETRY_AFTER, seconds.to_string())];
            let text = format!("You connect too often. Try again in {seconds} s.");
            return (StatusCode::TOO_MANY_REQUESTS, headers, text).into_response();
        }
        Ok(Admission::Full) => {
            let why = format!("{} finds the gateway full", identity.user);
            sockets.events.send(SocketEvent::Refused { why }).await.ok();
            let text = "The gateway has as many users as it may have. Try again later.";
            return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "30")], text).into_response();
        }
        Err(_) => return (StatusCode::SERVICE_UNAVAILABLE, "The gateway is stopping.").into_response(),
    }
    let resume = query.get("resume").cloned();
    let session = SessionId(sockets.next.fetch_add(1, Ordering::Relaxed));
    ws.protocols(["voiceping"])
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .on_upgrade(move |socket| run(socket, session, identity, resume, sockets.events))
}

/// The token: a bearer, a query parameter, `token-<jwt>` or the offered subprotocol that is not ours.
fn find_token(headers: &HeaderMap, query: &HashMap<String, String>) -> Option<String> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok());
    if let Some(bearer) = text(header::AUTHORIZATION).and_then(|v| v.strip_prefix("Bearer ")) {
        return Some(bearer.trim().to_owned());
    }
    if let Some(token) = query.get("token") {
        return Some(token.clone());
    }
    let offered = text(header::SEC_WEBSOCKET_PROTOCOL)?;
    let token = offered.split(',').map(str::trim).find(|p| *p != "voiceping")?;
    Some(token.strip_prefix("token-").unwrap_or(token).to_owned())
}

async fn run(
    socket: WebSocket,
    session: SessionId,
    identity: Identity,
    resume: Option<String>,
    events: mpsc::Sender<SocketEvent>,
) {
    let (out, mut outgoing) = mpsc::channel(OUT_QUEUE);
    let (mut sink, mut stream) = socket.split();
    if events.send(SocketEvent::Opened { session, identity, resume, out }).await.is_err() {
        return;
    }
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.tick().await;
    let mut missed = 0;
    let close = |code: u16, reason: &str| Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    let cause = loop {
        tokio::select! {
            frame = stream.next() => match frame {
                Some(Ok(Message::Text(text))) => {
                    missed = 0;
                    let text = text.as_str().to_owned();
                    if events.send(SocketEvent::Text { session, text }).await.is_err() {
                        break "gateway-stops";
                    }
                }
                Some(Ok(Message::Binary(_))) => {
                    sink.send(close(1003, "text frames only")).await.ok();
                    break "binary-frame";
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => missed = 0,
                Some(Ok(Message::Close(_))) | None => break "closed",
                Some(Err(e)) => {
                    if e.to_string().contains("too long") || e.to_string().contains("too big") {
                        sink.send(close(1009, "messages may have 64 KiB")).await.ok();
                        break "oversize-message";
                    }
                    break "connection-lost";
                }
            },
            message = outgoing.recv() => match message {
                Some(Outgoing::Text(text)) => {
                    if sink.send(Message::Text(text.as_ref().into())).await.is_err() {
                        break "connection-lost";
                    }
                }
                Some(Outgoing::Close(reason)) => {
                    sink.send(close(4003, &reason)).await.ok();
                    break "forced";
                }
                None => {
                    sink.send(close(1001, "the gateway ends this session")).await.ok();
                    break "gateway-closed";
                }
            },
            _ = heartbeat.tick() => {
                missed += 1;
                if missed > 2 || sink.send(Message::Ping(Vec::new().into())).await.is_err() {
                    break "heartbeat-lost";
                }
            }
        }
    };
    events.send(SocketEvent::Closed { session, cause }).await.ok();
}
