//! The heartbeat of a session on a clock that is wound on, over sockets in memory.

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::routing::get;
use axum::serve::Listener;
use crosspatch::base::Role;
use crosspatch::net::socket::{Admission, SocketEvent, Sockets, upgrade};
use crosspatch::net::token::{Identity, Tokens};
use futures_util::{SinkExt, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// What the protocol says.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Takes the server's ends of sockets in memory.
struct Memory(mpsc::Receiver<DuplexStream>);

impl Listener for Memory {
    type Io = DuplexStream;
    type Addr = ();

    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.recv().await {
            Some(socket) => (socket, ()),
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The door of a gateway; whoever is behind it is let in.
struct Door {
    sockets: mpsc::Sender<DuplexStream>,
    token: String,
    /// Sessions that ended: when and why.
    ended: mpsc::Receiver<(Instant, &'static str)>,
    _dir: tempfile::TempDir,
}

impl Door {
    fn open() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let tokens = Tokens::of_state_dir(dir.path(), "demo")?;
        let (user, name, channels) = ("anna".into(), "Anna".into(), vec!["ops".into()]);
        let token = tokens.sign(&Identity { user, name, role: Role::General, channels }, 4_000_000_000)?;
        let (events, mut heard) = mpsc::channel(100);
        let (sockets, accepted) = mpsc::channel(1);
        let app = Router::new().route("/ws", get(upgrade)).with_state(Sockets::new(Arc::new(tokens), events));
        tokio::spawn(async move { axum::serve(Memory(accepted), app).await });
        let (tell, ended) = mpsc::channel(100);
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Some(event) = heard.recv().await {
                match event {
                    SocketEvent::Admit { answer, .. } => drop(answer.send(Admission::Yes)),
                    SocketEvent::Opened { out, .. } => open.push(out), // a session whose sender is dropped is ended
                    SocketEvent::Closed { cause, .. } => drop(tell.send((Instant::now(), cause)).await),
                    SocketEvent::Refused { .. } | SocketEvent::Text { .. } => {}
                }
            }
        });
        Ok(Door { sockets, token, ended, _dir: dir })
    }

    async fn enter(&self) -> Result<WebSocketStream<DuplexStream>> {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        self.sockets.send(theirs).await?;
        let address = format!("ws://memory/ws?token={}", self.token);
        Ok(tokio_tungstenite::client_async(address, ours).await?.0)
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_is_pinged_every_30_s_and_stays_as_long_as_it_answers() -> Result<()> {
    let mut door = Door::open()?;
    let mut client = door.enter().await?;
    let entered = Instant::now();
    for beat in 1..=20 {
        // Reading is what answers pings.
        let message = client.next().await.context("the gateway has hung up")??;
        ensure!(message.is_ping(), "{message:?}");
        assert_eq!(entered.elapsed().as_secs(), (HEARTBEAT * beat).as_secs());
    }
    assert!(door.ended.try_recv().is_err(), "10 minutes later it is there");
    client.close(None).await?;
    while client.next().await.is_some() {}
    assert_eq!(door.ended.recv().await.context("no end")?.1, "closed");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_client_that_misses_two_pings_is_dead_when_the_next_is_due() -> Result<()> {
    let mut door = Door::open()?;
    let _silent = door.enter().await?;
    let entered = Instant::now();
    let (ended, cause) = door.ended.recv().await.context("no end")?;
    assert_eq!((ended - entered).as_secs(), (HEARTBEAT * 3).as_secs());
    assert_eq!(cause, "heartbeat-lost");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn any_message_is_a_sign_of_life() -> Result<()> {
    let mut door = Door::open()?;
    let mut client = door.enter().await?;
    for _ in 0..20 {
        tokio::time::sleep(HEARTBEAT).await;
        client.send(Message::Text("{}".into())).await?; // and reads nothing, so no ping is answered
    }
    assert!(door.ended.try_recv().is_err());
    Ok(())
}
