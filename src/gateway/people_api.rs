//! The HTTP API for administrators: channels, people, bans, reload.
//!
//! **Invariant:** every request carries the token of an Admin; being on this machine is not enough. The loop judges
//! who is one, since the store's word goes before the token's.

use super::Event;
use super::register::{Asked, What};
use super::reload::Reloader;
use super::tasks::{Collection, Failure, Task};
use crate::net::token::{Identity, Tokens};
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// The largest body, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// What the API works with.
#[derive(Clone)]
pub struct PeopleApi {
    /// Checks tokens.
    pub tokens: Arc<Tokens>,
    /// The loop's queue.
    pub events: mpsc::Sender<Event>,
    /// Reads the configuration again.
    pub reloader: Arc<Reloader>,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "code": self.code, "error": self.message }))).into_response()
    }
}

/// The routes.
pub fn routes(api: PeopleApi) -> Router {
    let mut router = Router::new().route("/api/reload", post(reload)).route("/api/people/{user}/enable", post(enable));
    for collection in [Collection::Channels, Collection::People, Collection::Bans] {
        let all = move |State(api): State<PeopleApi>, method: Method, headers: HeaderMap, body| async move {
            api.carry_out(&headers, collection, &method, None, body).await
        };
        let one = move |State(api): State<PeopleApi>,
                        Path(id): Path<String>,
                        method: Method,
                        headers: HeaderMap,
                        body| async move {
            api.carry_out(&headers, collection, &method, Some(&id), body).await
        };
        let path = format!("/api/{}", collection.as_str());
        router = router.route(&path, any(all)).route(&format!("{path}/{{id}}"), any(one));
    }
    router.layer(DefaultBodyLimit::max(MAX_BODY)).with_state(api)
}

async fn enable(
    State(api): State<PeopleApi>,
    Path(user): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Failure> {
    let by = api.identity(&headers)?;
    ask(&api.events, Some(by), What::Task(Task::Enable(user.into()))).await.map(Json)
}

async fn reload(State(api): State<PeopleApi>, headers: HeaderMap) -> Result<Json<Value>, Failure> {
    let by = api.identity(&headers)?;
    api.reloader.reload(Some(by)).await.map(Json)
}

impl PeopleApi {
    /// Whose token came with a request.
    pub(super) fn identity(&self, headers: &HeaderMap) -> Result<Identity, Failure> {
        let unauthorized = |message: String| Failure::new(StatusCode::UNAUTHORIZED, "no-token", message);
        let token = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let token = token.and_then(|v| v.strip_prefix("Bearer ")).map(str::trim);
        let token = token
            .ok_or_else(|| unauthorized("No token came with the request. Send one as Authorization: Bearer.".into()))?;
        self.tokens.check(token).map_err(|e| unauthorized(format!("{e}.")))
    }

    async fn carry_out(
        &self,
        headers: &HeaderMap,
        collection: Collection,
        method: &Method,
        id: Option<&str>,
        body: Result<Bytes, BytesRejection>,
    ) -> Result<Response, Failure> {
        let by = self.identity(headers)?;
        let body = body.map_err(|e| {
            let message = format!("The body cannot be read: {e}. It may have {MAX_BODY} bytes.");
            Failure::new(e.status(), "bad-body", message)
        })?;
        let task = Task::read(method, collection, id, &body)?;
        let done = ask(&self.events, Some(by), What::Task(task)).await?;
        let status = if *method == Method::POST { StatusCode::CREATED } else { StatusCode::OK };
        Ok((status, Json(done)).into_response())
    }
}

/// Asks the loop and waits for its answer.
///
/// # Errors
/// If it says no, is too busy to be asked, or has ended.
pub async fn ask(events: &mpsc::Sender<Event>, by: Option<Identity>, what: What) -> Result<Value, Failure> {
    let gone = || Failure::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "The gateway is busy. Try again in a moment.");
    let (answer, answered) = oneshot::channel();
    events.try_send(Event::Manage(Box::new(Asked { by, what, answer }))).map_err(|_| gone())?;
    answered.await.map_err(|_| gone())?
}
