//! The checks of the box over HTTP, for its page and for `crosspatch doctor`.
//!
//! **Invariant:** who asks is on this machine, or sends the token of an Admin. What takes time is done on threads of its
//! own, never on those that carry signaling.

use super::Event;
use super::api::is_local;
use super::checkup::{Checkup, Held};
use super::endpoint::Endpoint;
use super::people_api::{PeopleApi, ask};
use super::register::What;
use super::tasks::Failure;
use super::tryout::{LineSeen, Trial};
use crate::base::LineName;
use crate::doctor::facts::{Facts, Level};
use crate::doctor::{Report, examine};
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::{Mutex, oneshot, watch};

/// What the API works with.
#[derive(Clone)]
pub struct DoctorApi {
    /// Who asks, and the loop that judges them.
    pub people: PeopleApi,
    /// The box.
    pub checkup: Arc<Checkup>,
    /// What the loop says of degraded parts.
    pub live: watch::Receiver<Value>,
    /// How the box is reached from the network.
    pub shown: watch::Receiver<Value>,
    /// Desks and ports, for their levels.
    pub endpoints: Arc<Vec<Arc<Endpoint>>>,
    /// The media socket's address.
    pub media: SocketAddr,
    /// The TLS listener's address.
    pub tls: Option<SocketAddr>,
    /// One look at a time: it reads the whole audit.
    pub one: Arc<Mutex<()>>,
}

/// The routes.
pub fn routes(api: DoctorApi) -> Router {
    Router::new()
        .route("/api/doctor", get(doctor))
        .route("/api/doctor/lines", get(lines))
        .route("/api/doctor/lamps/{line}", post(light))
        .with_state(api)
}

impl DoctorApi {
    async fn admit(&self, peer: SocketAddr, headers: &HeaderMap) -> Result<(), Failure> {
        if is_local(peer, headers) {
            return Ok(());
        }
        let by = self.people.identity(headers)?;
        ask(&self.people.events, Some(by), What::MayReload).await.map(drop)
    }

    async fn look(&self) -> Result<Vec<LineSeen>, Failure> {
        let (answer, answered) = oneshot::channel();
        self.people.events.try_send(Event::Try(Trial::Look(answer))).map_err(|_| busy())?;
        answered.await.map_err(|_| busy())
    }

    async fn facts(&self) -> Result<Facts, Failure> {
        let lines = self.look().await?;
        let degraded = self.live.borrow()["degraded"].as_array().cloned().unwrap_or_default();
        let (sha256, shown) = (self.people.reloader.sha256().await, self.shown.borrow().clone());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let held = Held {
            lines,
            degraded: degraded.iter().map(|d| (text(&d["part"]), text(&d["why"]))).collect(),
            meters: meters(&self.endpoints),
            media: self.media,
            tls: self.tls,
            shown,
            sha256,
        };
        let _one = self.one.lock().await;
        let checkup = self.checkup.clone();
        tokio::task::spawn_blocking(move || checkup.facts(Some(&held))).await.map_err(|_| busy())
    }
}

fn busy() -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "The gateway is busy. Try again in a moment.")
}

fn meters(endpoints: &[Arc<Endpoint>]) -> BTreeMap<String, Level> {
    let level = |view: &Value| Level {
        average_dbfs: view["averageDbfs"].as_f64().unwrap_or_default(),
        peak_dbfs: view["peakDbfs"].as_f64().unwrap_or_default(),
        clipped: view["clipped"].as_u64().unwrap_or_default(),
    };
    let gauges = endpoints.iter().flat_map(|endpoint| endpoint.gauges());
    gauges.map(|(name, gauge)| (name.to_owned(), level(&gauge.view()))).collect()
}

type Peer = ConnectInfo<SocketAddr>;

async fn doctor(
    State(api): State<DoctorApi>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
) -> Result<Json<Report>, Failure> {
    api.admit(peer, &headers).await?;
    Ok(Json(examine(&api.facts().await?)))
}

/// The lines with how often each has moved, for somebody who presses them.
async fn lines(
    State(api): State<DoctorApi>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
) -> Result<Json<Value>, Failure> {
    api.admit(peer, &headers).await?;
    let seen = api.look().await?;
    Ok(Json(json!({ "lines": api.checkup.lines(Some(&seen)) })))
}

async fn light(
    State(api): State<DoctorApi>,
    ConnectInfo(peer): Peer,
    headers: HeaderMap,
    Path(line): Path<String>,
) -> Result<Json<Value>, Failure> {
    api.admit(peer, &headers).await?;
    let (answer, answered) = oneshot::channel();
    let trial = Trial::Light(LineName::from(line.as_str()), answer);
    api.people.events.try_send(Event::Try(trial)).map_err(|_| busy())?;
    let refused = |why| Failure::new(StatusCode::BAD_REQUEST, "no-lamp", format!("{why}."));
    answered.await.map_err(|_| busy())?.map_err(refused)?;
    Ok(Json(json!({ "line": line })))
}
