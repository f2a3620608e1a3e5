//! The signaling of one session: requests with their replies, and pushes.

use super::gateway::Gateway;
use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt, stream::SplitSink};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// How long a reply may take.
const REPLY: Duration = Duration::from_secs(10);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// What the reading task leaves for the others.
#[derive(Default)]
struct Inbox {
    /// Who waits for which reply.
    waiting: Mutex<HashMap<String, oneshot::Sender<Value>>>,
    pushes: Mutex<Vec<Value>>,
    /// A push came.
    came: Notify,
}

/// One WebSocket to the gateway.
pub struct Signaling {
    sink: SplitSink<Socket, Message>,
    inbox: Arc<Inbox>,
    reader: JoinHandle<()>,
    last_id: u64,
}

impl Signaling {
    /// Connects as the existing clients do: the token is offered as a subprotocol.
    pub async fn connect(gateway: &Gateway, token: &str) -> Result<Self> {
        Self::connect_with(gateway, token, "").await
    }

    /// Connects with a query, such as `?resume=`.
    pub async fn connect_with(gateway: &Gateway, token: &str, query: &str) -> Result<Self> {
        let mut request = format!("ws://{}/ws{query}", gateway.http()).into_client_request()?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", format!("voiceping, {token}").parse()?);
        let (socket, response) = tokio_tungstenite::connect_async(request).await?;
        let chosen = response.headers().get("Sec-WebSocket-Protocol");
        if chosen.is_none_or(|chosen| chosen != "voiceping") {
            bail!("the gateway chose the subprotocol {chosen:?}");
        }
        // A request is one small segment; it must not wait for the acknowledgement of the one before.
        if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
            stream.set_nodelay(true)?;
        }
        let (sink, mut stream) = socket.split();
        let inbox = Arc::new(Inbox::default());
        let to = inbox.clone();
        let reader = tokio::spawn(async move {
            while let Some(Ok(message)) = stream.next().await {
                if let Message::Text(text) = message {
                    to.take(&text);
                }
            }
        });
        Ok(Signaling { sink, inbox, reader, last_id: 0 })
    }

    /// Sends a request and returns its reply, whole.
    pub async fn request(&mut self, kind: &str, data: Value) -> Result<Value> {
        self.last_id += 1;
        let id = self.last_id.to_string();
        let (answer, reply) = oneshot::channel();
        locked(&self.inbox.waiting).insert(id.clone(), answer);
        let message = json!({ "type": kind, "id": id, "data": data }).to_string();
        self.sink.send(Message::Text(message.into())).await?;
        let reply = tokio::time::timeout(REPLY, reply).await;
        reply.with_context(|| format!("no reply to {kind} within {REPLY:?}"))?.context("the connection was lost")
    }

    /// Sends a request whose reply is taken with [`Signaling::next_reply`].
    pub async fn send(&mut self, kind: &str, data: Value) -> Result<()> {
        self.last_id += 1;
        let message = json!({ "type": kind, "id": self.last_id.to_string(), "data": data }).to_string();
        Ok(self.sink.send(Message::Text(message.into())).await?)
    }

    /// The next reply to what was sent with [`Signaling::send`].
    pub async fn next_reply(&self, deadline: Duration) -> Result<Value> {
        self.wait_push(|message| message["id"].is_string(), deadline).await
    }

    /// Sends a request that must succeed and returns the data of its reply.
    pub async fn ask(&mut self, kind: &str, data: Value) -> Result<Value> {
        let mut reply = self.request(kind, data).await?;
        if reply["type"] == "error" {
            bail!("{kind} was refused: {}", reply["error"]);
        }
        Ok(reply["data"].take())
    }

    /// What came so far and was taken by nobody, replies that nobody waited for among it.
    pub fn unasked(&self) -> Vec<Value> {
        locked(&self.inbox.pushes).clone()
    }

    /// Takes the first push that `wanted` says yes to, waiting for it until `deadline` has passed.
    pub async fn wait_push(&self, wanted: impl Fn(&Value) -> bool, deadline: Duration) -> Result<Value> {
        let search = async {
            loop {
                {
                    let mut pushes = locked(&self.inbox.pushes);
                    if let Some(place) = pushes.iter().position(&wanted) {
                        return pushes.remove(place);
                    }
                }
                self.inbox.came.notified().await;
            }
        };
        match tokio::time::timeout(deadline, search).await {
            Ok(push) => Ok(push),
            Err(_) => bail!("no such push within {deadline:?}; there are {:?}", locked(&self.inbox.pushes)),
        }
    }
}

impl Drop for Signaling {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Inbox {
    fn take(&self, text: &str) {
        let Ok(message) = serde_json::from_str::<Value>(text) else {
            return;
        };
        let waiting = message["id"].as_str().and_then(|id| locked(&self.waiting).remove(id));
        match waiting {
            // Whoever has given up waiting does not want it any more.
            Some(waiting) => drop(waiting.send(message)),
            None => {
                locked(&self.pushes).push(message);
                self.came.notify_one();
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
