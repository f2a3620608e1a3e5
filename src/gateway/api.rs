//! The local HTTP API: the front panel's view, the simulated board's lines, counters.
//!
//! **Invariant:** lines are moved from this machine only: by a loopback address, under a loopback
//! name, and never from a page of another site.

use super::endpoint::Endpoint;
use super::media::{Command, MediaHandle};
use crate::base::LineName;
use crate::base::clock::mono_now;
use crate::hardware::gpio::sim::SimBoard;
use crate::media::gates::Gates;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::sse::{Event as SseEvent, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// How often the front panel is refreshed while somebody looks at it.
const PANEL_PERIOD: Duration = Duration::from_millis(50);

/// What the API shows.
#[derive(Clone)]
pub struct Api {
    /// The simulated board; a real one is moved by hand only.
    pub board: Option<SimBoard>,
    /// What does not change: event, channels, desk, ports, links.
    pub panel: Arc<Value>,
    /// What the loop says of floors, emergency and degraded parts.
    pub live: watch::Receiver<Value>,
    /// How the box is reached from the network, and what to trust; null if it is not.
    pub tls: watch::Receiver<Value>,
    /// Desks and ports, for their levels.
    pub endpoints: Arc<Vec<Arc<Endpoint>>>,
    /// Packets a burst.
    pub gates: Arc<Gates>,
    /// For the SFU's counters.
    pub media: MediaHandle,
}

/// The routes under `/api`.
pub fn routes(api: Api) -> Router {
    Router::new()
        .route("/api/panel", get(panel))
        .route("/api/panel/live", get(panel_live))
        .route("/api/meters", get(meters))
        .route("/api/readiness", get(readiness))
        .route("/api/stats", get(stats))
        .route("/api/sim/lines", get(lines))
        .route("/api/sim/lines/{name}", post(move_line))
        .route("/api/sim/chip", post(change_chip))
        .layer(from_fn(local_only))
        .with_state(api)
}

/// Refuses whoever is not on this machine, also a page of another site in a browser on it.
async fn local_only(ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request, next: Next) -> Response {
    if is_local(peer, request.headers()) {
        return next.run(request).await;
    }
    (StatusCode::FORBIDDEN, "The front panel works on the box itself only. Open it there, as 127.0.0.1.")
        .into_response()
}

/// True for whoever is on this machine, and not a page of another site in a browser on it.
pub(super) fn is_local(peer: SocketAddr, headers: &HeaderMap) -> bool {
    peer.ip().to_canonical().is_loopback()
        && is_loopback_name(headers, header::HOST)
        && (!headers.contains_key(header::ORIGIN) || is_loopback_name(headers, header::ORIGIN))
}

fn is_loopback_name(headers: &HeaderMap, name: header::HeaderName) -> bool {
    let Some(value) = headers.get(name).and_then(|v| v.to_str().ok()) else { return false };
    let host = value.trim_start_matches("http://").trim_start_matches("https://");
    let host =
        host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(h, _)| h);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

async fn panel(State(api): State<Api>) -> Json<Value> {
    let mut panel = (*api.panel).clone();
    let live = api.live.borrow();
    panel["degraded"] = live["degraded"].clone();
    panel["channels"] = live["channelList"].clone();
    panel["isQuiet"] = is_quiet(&live).into();
    drop(live);
    panel["tls"] = api.tls.borrow().clone();
    Json(panel)
}

/// True while nobody talks; an emergency is talk on every channel.
fn is_quiet(live: &Value) -> bool {
    live["channels"].as_array().into_iter().flatten().all(|channel| channel["isBusy"] == false)
}

async fn panel_live(State(api): State<Api>) -> impl IntoResponse {
    let ticks = tokio::time::interval(PANEL_PERIOD);
    let stream = futures_util::stream::unfold((api, ticks, Value::Null), |(api, mut ticks, shown)| async move {
        loop {
            ticks.tick().await;
            let view = view(&api);
            if view != shown {
                let event = SseEvent::default().data(view.to_string());
                return Some((Ok::<_, Infallible>(event), (api, ticks, view)));
            }
        }
    });
    Sse::new(stream)
}

fn view(api: &Api) -> Value {
    let mut view = api.live.borrow().clone();
    if let Some(board) = &api.board {
        view["lines"] = json!(board.lines()); // inputs too, which only a simulated board shows
    }
    let gauges = || api.endpoints.iter().flat_map(|e| e.gauges());
    let tenths = |dbfs: f32| (f64::from(dbfs) * 10.0).round() / 10.0;
    let levels = gauges().map(|(name, gauge)| (name.to_owned(), json!(tenths(gauge.newest_dbfs()))));
    view["levels"] = levels.collect::<serde_json::Map<_, _>>().into();
    view["meters"] =
        gauges().map(|(name, gauge)| (name.to_owned(), gauge.view())).collect::<serde_json::Map<_, _>>().into();
    view
}

/// Each radio with its levels and what its receiver and transmitter do, for `audio levels`.
async fn meters(State(api): State<Api>) -> Json<Value> {
    let view = view(&api);
    let of = |port: &Value| {
        let state = view["radios"].as_array().into_iter().flatten().find(|radio| radio["userId"] == port["user"])?;
        let mut radio = state.clone();
        radio["id"] = port["id"].clone();
        for way in ["receive", "transmit"] {
            radio[way] = view["meters"][format!("radio.{}.{way}", port["id"].as_str()?)].clone();
        }
        Some(radio)
    };
    let radios: Vec<_> = api.panel["ports"].as_array().into_iter().flatten().filter_map(of).collect();
    Json(json!({ "radios": radios }))
}

/// What an emergency broadcast would reach (E10).
async fn readiness(State(api): State<Api>) -> Json<Value> {
    Json(api.live.borrow()["readiness"].clone())
}

async fn stats(State(api): State<Api>) -> Json<Value> {
    let (answer, media) = oneshot::channel();
    api.media.send(Command::Stats(answer));
    Json(json!({ "bursts": api.gates.counts(), "media": media.await.unwrap_or(Value::Null) }))
}

async fn lines(State(api): State<Api>) -> Json<Value> {
    Json(json!(api.board.as_ref().map(SimBoard::lines).unwrap_or_default()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    active: bool,
}

async fn move_line(State(api): State<Api>, Path(name): Path<String>, Json(to): Json<Move>) -> Response {
    let Some(board) = &api.board else { return real_board() };
    let stamp = mono_now();
    match board.move_input(&LineName::from(name.as_str()), to.active, stamp) {
        Ok(()) => {
            Json(json!({ "name": name, "direction": "input", "active": to.active, "stampNs": stamp.0 })).into_response()
        }
        Err(e) => (StatusCode::BAD_REQUEST, e.to_string()).into_response(),
    }
}

fn real_board() -> Response {
    (StatusCode::NOT_FOUND, "This board is a real one. It is moved by hand only.").into_response()
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Chip {
    present: bool,
}

/// Unplugs the simulated chip, or plugs it in again.
async fn change_chip(State(api): State<Api>, Json(chip): Json<Chip>) -> Response {
    let Some(board) = &api.board else { return real_board() };
    if chip.present {
        board.plug();
    } else {
        board.unplug();
    }
    Json(chip).into_response()
}
