//! The media thread: owns the SFU and its UDP socket, carries out media requests, forwards packets.

use super::Event;
use super::endpoint::VoiceFrame;
use crate::base::{Beat, ChannelId, Pulse, ReplyId, SessionId, SourceId, UserId};
use crate::control::Refusal;
use crate::media::sfu::{Direction, Frame, Sfu, SfuError, SfuEvent};
use crate::net::udp::Datagrams;
use crate::wire::MediaOp;
use mio::{Events, Interest, Poll, Token, Waker};
use rtrb::Consumer;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Instant;

/// Commands and frames that may wait for the media thread.
const QUEUE: usize = 4096;
/// Room for any datagram a client may send.
const DATAGRAM: usize = 2048;
/// Datagrams read in one go before commands get their turn.
const BATCH: usize = 64;
const SOCKET: Token = Token(0);
const WAKE: Token = Token(1);

/// Something for the media thread to do.
pub enum Command {
    /// A request whose membership has been checked.
    Request(Box<MediaRequest>),
    /// A session is gone.
    CloseSession(SessionId),
    /// A session left a channel.
    Leave(SessionId, ChannelId),
    /// The box's addresses have changed.
    Announce(Vec<SocketAddr>),
    /// Read what has arrived, then say [`Event::MediaRead`] (F10).
    Read,
    /// Counters for the API.
    Stats(tokio::sync::oneshot::Sender<Value>),
    /// The end.
    Stop,
}

/// A request of a client.
pub struct MediaRequest {
    /// Whose.
    pub session: SessionId,
    /// The participant.
    pub user: UserId,
    /// The channel it names.
    pub channel: Option<ChannelId>,
    /// When the session joined it (E6).
    pub rank: u64,
    /// What to do.
    pub op: MediaOp,
    /// Where the answer goes.
    pub reply: ReplyId,
}

/// What came of a request.
#[derive(Debug)]
pub struct MediaDone {
    /// Which request.
    pub reply: ReplyId,
    /// Whose.
    pub session: SessionId,
    /// The reply's data.
    pub result: Result<Value, Refusal>,
    /// A producer that exists now, and its channel.
    pub opened: Option<(ChannelId, SourceId)>,
    /// A producer that is gone.
    pub closed: Option<SourceId>,
}

/// The way to the media thread.
#[derive(Clone)]
pub struct MediaHandle {
    queue: SyncSender<Command>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl MediaHandle {
    /// A handle and the queue behind it; `wake` is called after each command.
    #[must_use]
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> (Self, Receiver<Command>) {
        let (queue, commands) = sync_channel(QUEUE);
        (MediaHandle { queue, wake: Arc::new(wake) }, commands)
    }

    /// Has the media thread look at what desks and ports say.
    pub fn wake(&self) {
        (self.wake)();
    }

    /// Queues a command; false if the queue is full or the thread has gone.
    pub fn send(&self, command: Command) -> bool {
        match self.queue.try_send(command) {
            Ok(()) => {
                (self.wake)();
                true
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                tracing::error!("the media queue is full; a command was dropped");
                false
            }
        }
    }
}

/// The thread's parts before it runs.
pub struct MediaThread {
    sfu: Sfu,
    socket: Datagrams,
    poll: Poll,
    commands: Receiver<Command>,
    /// What desks and ports say.
    voices: Vec<(SourceId, Consumer<VoiceFrame>)>,
    events: tokio::sync::mpsc::Sender<Event>,
    /// Somebody waits for the socket to be empty.
    asked_to_read: bool,
    beat: Arc<Beat>,
}

impl MediaThread {
    /// Puts the thread together.
    ///
    /// # Errors
    /// If the poller cannot be made.
    pub fn new(
        sfu: Sfu,
        mut socket: Datagrams,
        voices: Vec<(SourceId, Consumer<VoiceFrame>)>,
        events: tokio::sync::mpsc::Sender<Event>,
    ) -> std::io::Result<(MediaHandle, MediaThread)> {
        let poll = Poll::new()?;
        poll.registry().register(socket.source(), SOCKET, Interest::READABLE)?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let (handle, commands) = MediaHandle::new(move || {
            waker.wake().ok(); // audio threads wake too, and must not log; whoever is not woken reads at the next packet
        });
        let beat = Beat::new();
        Ok((handle, MediaThread { sfu, socket, poll, commands, voices, events, asked_to_read: false, beat }))
    }

    /// The thread's sign of life.
    #[must_use]
    pub fn pulse(&self, handle: &MediaHandle) -> Pulse {
        Pulse { beat: self.beat.clone(), wake: handle.wake.clone() }
    }

    /// Runs until [`Command::Stop`].
    pub fn run(mut self) {
        let mut ready = Events::with_capacity(16);
        loop {
            self.beat.answer();
            let wait = self.sfu.next_timeout().map(|at| at.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut ready, wait) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => {
                    tracing::error!("the media socket cannot be waited for: {e}");
                    return;
                }
            }
            let mut more = true;
            while more {
                if !self.run_commands() {
                    return;
                }
                self.forward_voices();
                more = self.read_datagrams();
                // Always: a command may have left something to be sent, such as the last word of a closed transport.
                let socket = &self.socket;
                self.sfu.handle_timeout(Instant::now(), &mut |datagram, to| send(socket, datagram, to));
                while let Some(event) = self.sfu.poll_event() {
                    self.tell(Event::Sfu(event));
                }
            }
            if std::mem::take(&mut self.asked_to_read) {
                self.tell(Event::MediaRead);
            }
        }
    }

    /// False when told to stop.
    fn run_commands(&mut self) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Request(request) => self.request(*request),
                Command::CloseSession(session) => {
                    let gone = self.sfu.close_session(session);
                    self.tell_gone(gone);
                }
                Command::Leave(session, channel) => {
                    let gone = self.sfu.leave(session, &channel);
                    self.tell_gone(gone);
                }
                Command::Announce(addresses) => self.sfu.announce(&addresses),
                Command::Read => self.asked_to_read = true,
                Command::Stats(answer) => drop(answer.send(json!(self.sfu.stats()))),
                Command::Stop => return false,
            }
        }
        true
    }

    fn forward_voices(&mut self) {
        let socket = &self.socket;
        for (source, voices) in &mut self.voices {
            while let Ok(voice) = voices.pop() {
                let VoiceFrame { timestamp, sequence, level, .. } = voice;
                let frame = Frame { payload: voice.payload(), timestamp, sequence, level };
                let mut send = |datagram: &[u8], to| send(socket, datagram, to);
                self.sfu.local_frame(*source, frame, Instant::now(), &mut send);
            }
        }
    }

    /// True if there may be more.
    fn read_datagrams(&mut self) -> bool {
        let mut buffer = [0; DATAGRAM];
        for _ in 0..BATCH {
            match self.socket.receive(&mut buffer) {
                Ok((length, from)) => {
                    let (socket, start) = (&self.socket, buffer[0]);
                    let now = Instant::now();
                    self.sfu.handle_datagram(&mut buffer[..length], from, now, &mut |datagram, to| {
                        send(socket, datagram, to)
                    });
                    if self.sfu.knows(&from) {
                        self.socket.learn(start, |address| self.sfu.knows(address));
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
                Err(_) => {} // an ICMP error of an earlier send; the next datagram is another matter
            }
        }
        true
    }

    fn tell_gone(&self, sources: Vec<SourceId>) {
        for source in sources {
            self.tell(Event::Sfu(SfuEvent::SourceGone { source }));
        }
    }

    fn tell(&self, event: Event) {
        if self.events.blocking_send(event).is_err() {
            tracing::debug!("the gateway is stopping");
        }
    }

    fn request(&mut self, request: MediaRequest) {
        let (session, reply) = (request.session, request.reply);
        let (mut opened, mut closed) = (None, None);
        let result = self.carry_out(request, &mut opened, &mut closed);
        self.tell(Event::Media(MediaDone { reply, session, result, opened, closed }));
    }

    fn carry_out(
        &mut self,
        request: MediaRequest,
        opened: &mut Option<(ChannelId, SourceId)>,
        closed: &mut Option<SourceId>,
    ) -> Result<Value, Refusal> {
        let MediaRequest { session, user, channel, rank, op, .. } = request;
        let now = Instant::now();
        let channel = channel.unwrap_or_else(|| "".into());
        let text = |data: &Value, field: &str| data[field].as_str().unwrap_or_default().to_owned();
        let done = json!({ "success": true });
        let refused = |e: SfuError| Refusal::new("media", e.to_string());
        match op {
            MediaOp::RouterCapabilities => Ok(json!({ "routerRtpCapabilities": self.sfu.router_capabilities() })),
            MediaOp::CreateTransport(data) => {
                let direction: Direction = field(&data, "direction")?;
                let made = self.sfu.create_transport(session, &user, direction, now).map_err(refused)?;
                Ok(json!(made))
            }
            MediaOp::ConnectTransport(data) => {
                let dtls = field(&data, "dtlsParameters")?;
                let socket = &self.socket;
                let mut send = |datagram: &[u8], to| send(socket, datagram, to);
                self.sfu
                    .connect_transport(session, &text(&data, "transportId"), &dtls, now, &mut send)
                    .map_err(refused)?;
                Ok(done)
            }
            MediaOp::RestartIce(data) => {
                let ice = self.sfu.restart_ice(session, &text(&data, "transportId")).map_err(refused)?;
                Ok(json!({ "iceParameters": ice }))
            }
            MediaOp::CloseTransport(data) => {
                let gone = self.sfu.close_transport(session, &text(&data, "transportId")).map_err(refused)?;
                self.tell_gone(gone);
                Ok(done)
            }
            MediaOp::Produce(data) => {
                let rtp = field(&data, "rtpParameters")?;
                let kind = text(&data, "kind");
                let made =
                    self.sfu.produce(session, &text(&data, "transportId"), &channel, &kind, &rtp).map_err(refused)?;
                *opened = Some((channel, made));
                Ok(json!({ "id": made.to_string() }))
            }
            MediaOp::Consume(data) => {
                let capabilities = field(&data, "rtpCapabilities")?;
                let transport = match data["transportId"].as_str() {
                    Some(transport) => transport.to_owned(),
                    None => self.sfu.receiving_transport(session).map_err(refused)?,
                };
                let producer = text(&data, "producerId");
                let made =
                    self.sfu.consume(session, &transport, &channel, &producer, rank, &capabilities).map_err(refused)?;
                Ok(json!(made))
            }
            MediaOp::CloseProducer(data) => {
                *closed = Some(self.sfu.close_producer(session, &text(&data, "producerId")).map_err(refused)?);
                Ok(done)
            }
            MediaOp::CloseConsumer(data) => {
                self.sfu.close_consumer(session, &text(&data, "consumerId")).map_err(refused)?;
                Ok(done)
            }
        }
    }
}

fn send(socket: &Datagrams, datagram: &[u8], to: SocketAddr) {
    if let Err(e) = socket.send(datagram, to) {
        tracing::trace!("a datagram to {to} was not sent: {e}");
    }
}

fn field<T: DeserializeOwned>(data: &Value, name: &str) -> Result<T, Refusal> {
    T::deserialize(&data[name]).map_err(|e| Refusal::new("bad-request", format!("'{name}' is not understood: {e}")))
}
