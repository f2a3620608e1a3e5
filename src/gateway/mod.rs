//! The composition root: configuration in, adapters up, and the one loop that owns the core.
//!
//! The only room that knows all others. It decides nothing about floors.

pub mod api;
pub mod audit_api;
pub mod bell;
pub mod checkup;
pub mod config;
pub mod control_loop;
pub mod doctor_api;
pub mod endpoint;
pub mod executor;
pub mod keeping;
pub mod knobs;
pub mod limits;
pub mod media;
pub mod notes;
mod notify;
pub mod outputs;
pub mod people_api;
pub mod radio_config;
pub mod reach;
pub mod recordings;
pub mod register;
pub mod reload;
pub mod site;
pub mod tasks;
pub mod tryout;
mod watchdog;
pub mod witness;

use crate::audit;
use crate::base;
use crate::base::clock::{Wall, mono_now, unix_ms_now};
use crate::base::{Beat, ChannelId, Pulse, Role, SessionId, SourceId};
use crate::hardware::audio;
use crate::hardware::audio::sim::{SimCapture, SimPlayback, Sound};
use crate::hardware::board::Backend;
use crate::hardware::cards;
use crate::hardware::fob::Fob;
use crate::hardware::gpio::{self, Lines};
use crate::hardware::rig::Rig;
use crate::hardware::transmit_watch::TransmitWatch;
use crate::media::gates::Gates;
use crate::media::sfu::{LocalFrame, Sfu, SfuConfig, SfuEvent};
use crate::net::socket::{SocketEvent, Sockets};
use crate::net::tls::TlsListener;
use crate::net::token::{Identity, Tokens};
use crate::net::udp::Datagrams;
use crate::recorder;
use crate::wire::WallClock;
use anyhow::Context;
use axum::Router;
use axum::serve::ListenerExt;
use bell::Bell;
use config::{Config, ConfigError};
use control_loop::Queues;
use endpoint::{Endpoint, EndpointPlan, OpenCapture, OpenPlayback, VoiceFrame};
use executor::Parts;
use media::{Command, MediaDone, MediaThread};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpFreebind;
use notes::Note;
use outputs::{AtTheEnd, Outputs};
use radio_config::Radio;
use reach::{Reach, Secure};
use rtrb::Consumer;
use serde_json::json;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Notify, mpsc, watch};
use watchdog::Watched;

/// Connections that may wait to be accepted.
const LISTEN_QUEUE: u32 = 1024;
/// Events that may wait for the loop.
const QUEUE: usize = 4096;
/// How long a command may hold the state directory at start.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// The recorder's inside session; those of desks and radios begin at 1.
const RECORDER: SessionId = SessionId(0);
/// How long a disk that fails is left alone before the spool of notes is looked at again.
const NOTES_RETRY: Duration = Duration::from_secs(5);
/// How long the links on the front panel are good for.
const LINK_LIFETIME_S: u64 = 12 * 3600;

/// Everything that reaches the loop.
pub enum Event {
    /// From a desk's or port's threads.
    Input(crate::control::Input),
    /// A media request was carried out.
    Media(MediaDone),
    /// News of the SFU.
    Sfu(SfuEvent),
    /// The media thread has read everything that had arrived when it was asked.
    MediaRead,
    /// News of the store of channels, people and bans.
    People(crate::people::News),
    /// Somebody asks the register for something.
    Manage(Box<register::Asked>),
    /// A technician tries lines out.
    Try(tryout::Trial),
    /// Lines have edges to read, or outputs to be set again.
    Lines,
    /// Somebody asks whether the loop is alive.
    Tick,
    /// A part is up (`None`) or degraded, because ….
    Part {
        /// Which part.
        part: String,
        /// Why.
        why: Option<String>,
    },
}

/// What `crosspatch run` was told.
pub struct Options {
    /// The configuration.
    pub config: Config,
    /// The file it was read from, to be read again; the demo has none.
    pub config_file: Option<PathBuf>,
    /// Pages, signaling and the board's buttons, for this machine only.
    pub listen: SocketAddr,
    /// Pages and signaling for the network, over TLS; else as the configuration says.
    pub listen_tls: Option<SocketAddr>,
    /// The UDP port of all media; 0 picks a free one.
    pub media_port: u16,
    /// Where the audit, the token secret and `ready.json` live.
    pub state_dir: PathBuf,
}

/// A desk's or port's audio before its threads run.
struct Voice {
    endpoint: Arc<Endpoint>,
    plan: Arc<EndpointPlan>,
    capture: (endpoint::CaptureEnd, OpenCapture),
    playback: (endpoint::PlaybackEnd, OpenPlayback),
}

/// Runs the gateway until `stop` resolves.
///
/// # Errors
/// If a part without which nothing works cannot be set up: state directory, sockets, token secret. TLS is none of them:
/// the desk and the radios need no certificate.
pub async fn run(options: Options, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let Options { config, config_file, listen, listen_tls, media_port, state_dir } = options;
    if !listen.ip().is_loopback() {
        return Err(ConfigError(vec![format!(
            "--listen {listen} is open to the network without encryption, where browsers give no microphone and anybody \
             can read tokens; use --listen-tls {listen} instead, and leave --listen at a loopback address"
        )])
        .into());
    }
    std::fs::create_dir_all(&state_dir).with_context(|| {
        format!("the state directory {} cannot be made; name another with --state-dir", state_dir.display())
    })?;
    let _lock = own_state_dir(&state_dir).await?;
    let ready_file = state_dir.join("ready.json");
    std::fs::remove_file(&ready_file).ok();
    if let Err(e) = std::fs::write(state_dir.join("event.json"), json!({ "event": config.event.id }).to_string()) {
        tracing::error!("event.json cannot be written, so `crosspatch token` may not know the event: {e}");
    }

    let audit_path = state_dir.join("audit.sqlite");
    let (audit, audit_thread) = audit::open(&audit_path, &boot_id())
        .with_context(|| format!("the audit {} cannot be opened", audit_path.display()))?;
    audit.retain(config.audit.retention());
    let wall = audit.wall();
    let note = |record| audit.write(audit::Stamped { record, mono: mono_now(), wall: wall.now() });
    note(witness::config_loaded(config_file.as_deref()));
    take_in_notes(&state_dir, &audit, note)?;
    let tokens = Arc::new(Tokens::of_state_dir(&state_dir, &config.event.id)?);

    let http = TcpListener::bind(listen).await.with_context(|| {
        format!("{listen} cannot be listened on; is another gateway running? choose another with --listen")
    })?;
    let http_address = http.local_addr()?;
    let found = crate::net::addresses::interfaces().context("the system does not tell the box's addresses")?;
    let tls_wanted = listen_tls.or(config.tls.listen);
    let tls = match tls_wanted {
        Some(at) => open_tls(at, &config.tls, &state_dir.join("tls"), wall.clone(), &found).await.map(Some),
        None => Ok(None),
    };
    let (tls, tls_fault) = match tls {
        Ok(tls) => (tls, None),
        Err(e) => (None, Some(format!("{e:#}; then restart the gateway, which serves no network until then"))),
    };
    let (tls, secure) = tls.unzip();
    if tls_wanted.is_none() && (config.tls.own().is_some() || !config.tls.names.is_empty()) {
        tracing::warn!(
            "[tls] names no address to listen on, so the network is not served; add listen = \"0.0.0.0:8443\""
        );
    }
    let tls_address = tls.as_ref().map(TcpListener::local_addr).transpose()?;
    let media_listen = SocketAddr::new(reach::media_ip(listen.ip(), tls_address), media_port);
    let media_socket = Datagrams::bind(media_listen)
        .with_context(|| format!("UDP {media_listen} cannot be bound; choose another port with --media-port"))?;
    let media_address = media_socket.local_addr()?;
    let reach = Reach { media: config.media.clone(), media_address, tls_address };
    let announced = reach.announced(&found);
    let trust = secure.as_ref().and_then(Secure::trust);
    let listener = tls.zip(secure.as_ref()).map(|(tcp, secure)| TlsListener::new(tcp, secure.subscribe()));
    let (shown_sender, shown) = watch::channel(reach.shown(secure.as_ref(), &found));
    if let Some(secure) = &secure {
        tracing::info!("the fingerprint (SHA-256) of {} is {}", secure.owner(), secure.fingerprint());
        if announced.len() == 1 {
            tracing::warn!("no address to announce to media clients; check the network, and interfaces in [media]");
        }
    }

    let gates = Arc::new(Gates::new());
    let mut sfu = Sfu::new(SfuConfig { announced }, gates.clone())?;
    let (events, event_receiver) = mpsc::channel(QUEUE);
    let why = tls_fault.or_else(|| secure.as_ref().and_then(Secure::ending));
    events.try_send(Event::Part { part: "tls".into(), why }).ok();
    let parts_sender = events.clone();
    let part = |why| Event::Part { part: "audit".into(), why };
    audit.on_trouble(
        |why| drop(events.try_send(part(why))),
        move |why| {
            if parts_sender.blocking_send(part(why)).is_err() {
                tracing::debug!("the gateway is stopping");
            }
        },
    );
    events.try_send(Event::Part { part: "state directory".into(), why: in_memory(&state_dir) }).ok();
    events.try_send(Event::Part { part: "version".into(), why: site::not_given(&state_dir) }).ok();
    let tell = events.clone();
    let tell = Box::new(move |news| drop(tell.blocking_send(Event::People(news))));
    let (people, first_reading, people_thread) = crate::people::start(&state_dir.join("people.sqlite"), tell)?;
    events.try_send(Event::People(first_reading)).ok(); // before any session can ask to be let in
    let (recorder, recorder_thread) = match config.recorder.plan(&state_dir) {
        Some(plan) => Some(open_recorder(plan, &mut sfu, &audit, &events)?).unzip(),
        None => (None, None),
    };
    let (bell, bell_listener) = Bell::new().context("the system has no file descriptor left; raise LimitNOFILE")?;
    let (voices, spoken) = voices(&config, &mut sfu);
    let endpoints: Vec<_> = voices.iter().map(|v| v.endpoint.clone()).collect();
    let sources: Vec<_> = endpoints.iter().map(|e| e.source).collect();
    let mut settings = config.settings(&sources);
    let refused = config_file.as_deref().and_then(site::refused);
    settings.misconfigured = refused.is_some();
    events.try_send(Event::Part { part: "configuration".into(), why: refused }).ok();
    let (media, media_thread) = MediaThread::new(sfu, media_socket, spoken, events.clone())?;

    let (board, board_part) = open_board(&config, &events)?;
    let (outputs, hold) = Outputs::new(board.lines);
    hold.on_panic();
    let _end = AtTheEnd(hold.clone());
    let mut watched =
        vec![Watched { name: "media".into(), pulse: media_thread.pulse(&media), patience: watchdog::TALK }];
    watched.extend(outputs.pulse().map(|pulse| Watched { name: "gpio".into(), pulse, patience: watchdog::TALK }));
    watched.extend([("audit", audit_thread.pulse()), ("people", people.pulse())].map(|(name, pulse)| Watched {
        name: name.into(),
        pulse,
        patience: watchdog::DISK,
    }));

    let (live_sender, live) =
        watch::channel(json!({ "channels": [], "channelList": [], "emergency": null, "degraded": [] }));
    let (socket_events, socket_receiver) = mpsc::channel::<SocketEvent>(QUEUE);
    let api = api::Api {
        board: board.sim,
        panel: Arc::new(panel(&config, &tokens, note)?),
        live: live.clone(),
        tls: shown.clone(),
        endpoints: Arc::new(endpoints.clone()),
        gates: gates.clone(),
        media: media.clone(),
    };
    let checkup = checkup::Checkup {
        state_dir: state_dir.clone(),
        config_file: config_file.clone(),
        config: Ok(config.clone()),
        listen: http_address,
        listen_tls,
        media_port: media_address.port(),
        machine: crate::doctor::machine::Machine::default(),
    };
    let reloader = Arc::new(reload::Reloader::new(config_file, events.clone())?);
    let people_api =
        people_api::PeopleApi { tokens: tokens.clone(), events: events.clone(), reloader: reloader.clone() };
    let doctor_api = doctor_api::DoctorApi {
        people: people_api.clone(),
        checkup: Arc::new(checkup),
        live: live.clone(),
        shown: shown.clone(),
        endpoints: Arc::new(endpoints.clone()),
        media: media_address,
        tls: tls_address,
        one: Arc::default(),
    };
    let audit_api = audit_api::AuditApi { people: people_api.clone(), file: Arc::new(audit_path) };
    let sockets = Sockets::new(tokens, socket_events);
    let app: Router = Router::new()
        .route("/ws", axum::routing::get(crate::net::socket::upgrade))
        .with_state(sockets)
        .merge(api::routes(api))
        .merge(people_api::routes(people_api))
        .merge(doctor_api::routes(doctor_api))
        .merge(audit_api::routes(audit_api.clone()))
        .merge(recordings::routes(audit_api))
        .merge(crate::net::pages::routes(trust));

    let mut threads = vec![spawn("media", move || media_thread.run())?];
    let mut parts = vec![board_part.clone(), "people".into(), "tls".into(), "audit".into()];
    parts.extend(recorder.is_some().then(|| "recorder".to_owned()));
    for Voice { endpoint, plan, capture, playback } in voices {
        parts.extend([endpoint::capture_part(&plan), endpoint::playback_part(&plan)]);
        let beats = [("in", &endpoint.capture_beat), ("out", &endpoint.playback_beat)];
        watched.extend(beats.map(|(way, beat)| Watched {
            name: format!("{} {way}", plan.name),
            pulse: Pulse::of_itself(beat.clone()),
            patience: watchdog::SOUND,
        }));
        let (e, p, q) = (endpoint.clone(), plan.clone(), events.clone());
        let (end, open) = capture;
        let (capture_bell, media) = (bell.clone(), media.clone());
        let wakes = (capture_bell, move || media.wake());
        threads
            .push(spawn(&format!("{} in", plan.name), move || endpoint::capture_thread(&e, &p, end, wakes, &q, open))?);
        let (q, playback_bell) = (events.clone(), bell.clone());
        let (end, open) = playback;
        threads.push(spawn(&format!("{} out", plan.name), move || {
            endpoint::playback_thread(&endpoint, &plan, end, &playback_bell, &q, open)
        })?);
    }

    let ready = {
        let (http, media) = (http_address.to_string(), media_address.to_string());
        move |degraded: Vec<String>| {
            let tls = shown.borrow().clone();
            let ready = json!({ "http": http, "media": media, "degraded": degraded, "tls": tls });
            if let Err(e) = write_whole(&ready_file, &ready.to_string()) {
                tracing::error!("{} cannot be written: {e}", ready_file.display());
            }
            tracing::info!("ready: open http://{http}/ ({} degraded)", degraded.len());
            notify::ready();
            for origin in tls["origins"].as_array().into_iter().flatten().filter_map(|o| o.as_str()) {
                tracing::info!(
                    "from the network: {origin}/{}",
                    if tls["authority"] == true { "trust" } else { "talk" }
                );
            }
        }
    };
    let executor_parts = Parts {
        settings,
        now: Box::new(mono_now),
        lines: Box::new(outputs),
        board: board_part,
        audit,
        clock: WallClock { unix_ms_at_zero: wall.now().unix_ms - mono_now().as_millis() },
        wall,
        gates,
        media: media.clone(),
        endpoints: endpoints.clone(),
        people,
        recorder,
        live: live_sender,
    };
    let (stop_loop, stopped) = tokio::sync::oneshot::channel();
    let beat = Beat::new();
    let wake = events.clone();
    let pulse = Pulse::new(beat.clone(), move || drop(wake.try_send(Event::Tick)));
    watched.push(Watched { name: "control".into(), pulse, patience: watchdog::TALK });
    let queues = Queues { events: event_receiver, bell: bell_listener, sockets: socket_receiver, stop: stopped, beat };
    let control_thread = spawn("control", move || control_loop::run(executor_parts, queues, parts, ready))?;
    let alive = Arc::new(Notify::new());
    let feed = alive.clone();
    let limit = notify::watchdog_limit();
    let watchdog = watchdog::start(watched, hold.clone(), events.clone(), limit, move || feed.notify_one())?;
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    let plain = axum::serve(http.tap_io(|stream| at_once(stream)), service.clone());
    let encrypted = async {
        match listener {
            Some(listener) => axum::serve(listener.tap_io(|stream| at_once(stream.get_ref().0)), service).await,
            None => std::future::pending().await,
        }
    };
    let hangups = tokio::spawn(reload::on_hangup(reloader));
    tokio::select! {
        served = plain => served.context("the web server ended")?,
        served = encrypted => served.context("the TLS server ended")?,
        never = reach.follow(secure, found, &media, shown_sender, &events) => match never {},
        never = notify::follow(&config, live, &alive) => match never {},
        () = stop => tracing::info!("stopping"),
    }
    hold.hold(); // at once; the loop may have a queue to work off
    notify::stopping();
    hangups.abort();
    drop(stop_loop);
    tokio::task::spawn_blocking(move || {
        control_thread.join().ok();
        watchdog.stop(); // with what it asks people by
        for endpoint in &endpoints {
            endpoint.stop();
        }
        people_thread.join().ok(); // the loop held the only handle
        media.send(Command::Stop);
        for thread in threads {
            thread.join().ok();
        }
        if let Some(thread) = recorder_thread {
            thread.join().ok(); // the loop and the media thread held the handles
        }
        audit_thread.finish();
    })
    .await?;
    Ok(())
}

/// Has the audit take in what commands have done while no gateway ran.
fn take_in_notes(state_dir: &Path, audit: &audit::Audit, note: impl Fn(base::Record)) -> anyhow::Result<()> {
    let waiting = notes::take_in(state_dir);
    if waiting.is_empty() {
        return Ok(());
    }
    waiting.into_iter().for_each(note);
    let (audit, state_dir) = (audit.clone(), state_dir.to_owned());
    spawn("notes", move || {
        while let Err(audit::AuditError::NotOnDisk) = audit.flush() {
            std::thread::park_timeout(NOTES_RETRY);
        }
        if let Err(e) = notes::forget(&state_dir) {
            tracing::error!("the spool of notes cannot be emptied: {e}; they are told again at the next start");
        }
    })
    .map(drop)
}

/// Starts the recorder and lets it hear its channels. It is one session: an emergency is recorded once.
fn open_recorder(
    plan: recorder::Plan,
    sfu: &mut Sfu,
    audit: &audit::Audit,
    events: &mpsc::Sender<Event>,
) -> anyhow::Result<(recorder::Recorder, std::thread::JoinHandle<()>)> {
    let (audit, wall, events) = (audit.clone(), audit.wall(), events.clone());
    let (recorder, thread) = recorder::start(plan, move |news| match news {
        recorder::News::Record(record) => {
            audit.write(audit::Stamped { record, mono: mono_now(), wall: wall.now() });
        }
        recorder::News::Failing(why) => drop(events.blocking_send(Event::Part { part: "recorder".into(), why })),
    })?;
    for (rank, channel) in recorder.channels().iter().enumerate() {
        let handle = recorder.clone();
        let sink = Box::new(move |frame: LocalFrame<'_>| {
            handle.packet(frame.burst, frame.source, frame.sequence, frame.timestamp, frame.payload);
        });
        sfu.add_local_listener(RECORDER, &"gateway:recorder".into(), channel, rank as u64, sink);
    }
    Ok((recorder, thread))
}

/// The certificate for this box and a socket to serve it at.
async fn open_tls(
    at: SocketAddr,
    tls: &config::Tls,
    dir: &Path,
    wall: Wall,
    found: &[(String, IpAddr)],
) -> anyhow::Result<(TcpListener, Secure)> {
    let secure = Secure::open(tls, dir, wall, found)?;
    if !at.ip().is_unspecified() && found.iter().all(|(_, ip)| *ip != at.ip()) {
        tracing::warn!("no interface of this box has {} yet; the network is served as soon as one has it", at.ip());
    }
    let listener = listen_before_the_network_is_up(at).map_err(|e| {
        anyhow::anyhow!(
            "{at} cannot be listened on for TLS ({e}); use an address of this box and a free port, with --listen-tls or \
             in [tls]"
        )
    })?;
    Ok((listener, secure))
}

/// Listens at an address that an interface may get only later, as after a power cut that took the switch down too.
fn listen_before_the_network_is_up(at: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    setsockopt(&socket, IpFreebind, &true)?;
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(LISTEN_QUEUE)
}

/// A grant must not wait until the client has acknowledged what was sent before it.
fn at_once(stream: &tokio::net::TcpStream) {
    if let Err(e) = stream.set_nodelay(true) {
        tracing::debug!("a connection keeps small messages back: {e}");
    }
}

/// The board's lines, and the name of the part that they are. A board that is not there is a degraded part.
fn open_board(config: &Config, events: &mpsc::Sender<Event>) -> anyhow::Result<(gpio::Opened, String)> {
    let wake = events.clone();
    let opened = open_lines(config, Arc::new(move || drop(wake.try_send(Event::Lines))))?;
    let part = format!("board '{}'", config.board()?.name);
    events.try_send(Event::Part { part: part.clone(), why: opened.lines.fault() }).ok();
    Ok((opened, part))
}

/// The lines that a configuration uses, with the pins that its radios bring along, under the eyes of the transmit watchdog.
/// What cannot be had is their fault.
///
/// # Errors
/// If there is no such board profile, or a thread cannot be started.
pub fn open_lines(config: &Config, wake: gpio::Wake) -> anyhow::Result<gpio::Opened> {
    let mut opened = gpio::open(&config.board()?, &config.lines(), wake.clone());
    let fobs = config.radios.iter().filter_map(Radio::fob).map(|plan| Fob::open(plan, wake.clone()));
    let fobs = fobs.collect::<Result<_, _>>().context("the thread of a fob cannot be started")?;
    let serial = config.radios.iter().filter_map(Radio::serial_ptt).collect();
    let limits = config.radios.iter().filter_map(Radio::transmit_limit).collect();
    let watch = TransmitWatch::new(limits, Duration::from_secs(config.event.emergency_max_s));
    opened.lines =
        Box::new(Rig::new(opened.lines, fobs, serial, watch).context("the transmit watchdog cannot be started")?);
    Ok(opened)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> anyhow::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .with_context(|| format!("the thread '{name}' cannot be started"))
}

/// Holds the state directory while the gateway runs; a command that changes it lets go soon.
async fn own_state_dir(state_dir: &Path) -> anyhow::Result<Option<std::fs::File>> {
    let deadline = std::time::Instant::now() + LOCK_PATIENCE;
    loop {
        match lock_state_dir(state_dir) {
            Ok(Some(lock)) => return Ok(Some(lock)),
            Ok(None) => {}
            Err(e) => {
                tracing::error!("nobody is kept from changing the state directory at the same time: {e:#}");
                return Ok(None); // a disk that fails keeps nobody from talking
            }
        }
        let dir = state_dir.display();
        anyhow::ensure!(
            std::time::Instant::now() < deadline,
            "another gateway runs with {dir}; name another with --state-dir"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Holds a state directory until the file is dropped; `None` if a gateway has it.
///
/// # Errors
/// If the lock cannot be made.
pub fn lock_state_dir(state_dir: &Path) -> anyhow::Result<Option<std::fs::File>> {
    let path = state_dir.join("lock");
    let file = std::fs::File::create(&path).with_context(|| {
        format!("{} cannot be made; name the gateway's state directory with --state-dir", path.display())
    })?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(e)) => Err(e).with_context(|| format!("{} cannot be locked", path.display())),
    }
}

/// Why nothing in the state directory outlasts the power. The image of a box has this file where its data partition is
/// mounted over it.
#[must_use]
pub fn in_memory(state_dir: &Path) -> Option<String> {
    std::fs::read_to_string(state_dir.join("in-memory.txt")).ok().map(|why| why.trim_end().to_owned())
}

/// Which boot the monotonic time belongs to.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let part = path.with_extension("part");
    std::fs::write(&part, text)?;
    std::fs::rename(part, path)
}

/// Gives every desk and port its source, its threads' parts and its place as a listener; and the media thread what they
/// say.
fn voices(config: &Config, sfu: &mut Sfu) -> (Vec<Voice>, Vec<(SourceId, Consumer<VoiceFrame>)>) {
    let (mut voices, mut spoken) = (Vec::new(), Vec::new());
    let mut add = |plan, levels, user: &str, channels: Vec<String>, capture, playback| {
        let session = SessionId(voices.len() as u64 + 1);
        let user = user.into();
        let source = sfu.add_local_source(session, &user);
        let channels: Vec<ChannelId> = channels.into_iter().map(ChannelId::from).collect();
        let (endpoint, capture_end, playback_end, media_end) = Endpoint::new(session, source, levels, &channels);
        spoken.push((source, media_end.frames));
        for (rank, (channel, mut sink)) in media_end.sinks.into_iter().enumerate() {
            let sink = Box::new(move |frame: LocalFrame<'_>| sink.play(&frame));
            sfu.add_local_listener(session, &user, &channel, rank as u64, sink);
        }
        let (capture, playback) = ((capture_end, capture), (playback_end, playback));
        voices.push(Voice { endpoint, plan: Arc::new(plan), capture, playback });
    };
    for (n, desk) in config.desks.iter().enumerate() {
        let level = level_of_desk(n, &desk.user);
        let levels = (format!("{level}.microphone"), format!("{level}.loudspeaker"));
        let channels = desk.channels();
        let capture = open_capture(desk.capture_pcm.clone(), 523.25);
        let plan = EndpointPlan::plain(&desk.name, false);
        add(plan, levels, &desk.user, channels, capture, open_playback(desk.playback_pcm.clone()));
    }
    for radio in &config.radios {
        let levels = (format!("radio.{}.receive", radio.id), format!("radio.{}.transmit", radio.id));
        let capture = open_capture(radio.capture_pcm.clone().or(radio.card.clone()), 392.0);
        let playback = open_playback(radio.playback_pcm.clone().or(radio.card.clone()));
        add(radio.plan(), levels, &radio.user, vec![radio.channel.clone()], capture, playback);
    }
    (voices, spoken)
}

/// What the levels of a desk begin with.
fn level_of_desk(number: usize, user: &str) -> String {
    if number == 0 { "desk".into() } else { format!("desk.{user}") }
}

/// A card by its name, an ALSA PCM, or a paced simulated microphone that hears a tone.
fn open_capture(pcm: Option<String>, tone_hz: f32) -> OpenCapture {
    Box::new(move || match &pcm {
        Some(name) => audio::open_capture(&pcm_of(name)),
        None => Ok(Box::new(SimCapture::new(Sound::Tone { hz: tone_hz, level_dbfs: -12.0 }))),
    })
}

fn open_playback(pcm: Option<String>) -> OpenPlayback {
    Box::new(move || match &pcm {
        Some(name) => audio::open_playback(&pcm_of(name)),
        None => Ok(Box::new(SimPlayback::new())),
    })
}

/// The PCM of a card, looked for anew each time: it may have come back under another number.
fn pcm_of(name: &str) -> String {
    cards::find(name).map_or_else(|| name.to_owned(), |card| card.pcm())
}

/// What the front panel shows that does not change, with links that let people in.
fn panel(config: &Config, tokens: &Tokens, note: impl Fn(base::Record)) -> anyhow::Result<serde_json::Value> {
    let exp = unix_ms_now() / 1000 + LINK_LIFETIME_S;
    let channels: Vec<ChannelId> = config.channels.iter().map(|c| c.id.as_str().into()).collect();
    let link = |label: &str, user: &str, name: &str, role| -> anyhow::Result<serde_json::Value> {
        let identity = Identity { user: user.into(), name: name.into(), role, channels: channels.clone() };
        note(Note::token(&identity, exp).record().because("front-panel"));
        Ok(json!({ "label": label, "url": format!("/talk#token={}", tokens.sign(&identity, exp)?) }))
    };
    Ok(json!({
        "event": config.event.id,
        "simulated": config.board()?.backend == Backend::Sim,
        "desk": config.desks.first().map(|d| {
            let buttons = d.buttons.iter().map(|b| json!({ "channels": b.channel.ids(), "pttLine": b.ptt_line, "tallyLine": b.tally_line }));
            json!({
                "user": d.user, "name": d.name, "buttons": buttons.collect::<Vec<_>>(),
                "emergencyLine": d.emergency_line, "emergencyTallyLine": d.emergency_tally_line, "faultTallyLine": d.fault_tally_line,
            })
        }),
        "desks": config.desks.iter().enumerate().map(|(n, d)| json!({ "name": d.name, "level": level_of_desk(n, &d.user) })).collect::<Vec<_>>(),
        "ports": config.radios.iter().map(|r| json!({
            "id": r.id, "user": r.user, "name": r.name, "channel": r.channel, "carrierLine": r.carrier_line, "pttLine": r.ptt_line,
        })).collect::<Vec<_>>(),
        "emergencyHoldMs": config.event.emergency_hold_ms,
        "links": [
            link("General user", "guest-1", "Guest 1", Role::General)?,
            link("Second general user", "guest-2", "Guest 2", Role::General)?,
            link("Dispatcher", "dispatch-2", "Dana", Role::Dispatch)?,
        ],
    }))
}
