//! The HTTP API for the audit: query, export, verification, the newest checkpoint.
//!
//! **Invariant:** every request carries the token of an Admin or a Dispatcher; the loop judges who is one. Files are
//! read on threads of their own, never on those that carry signaling.

use super::people_api::{PeopleApi, ask};
use super::register::What;
use super::tasks::Failure;
use crate::audit::{self, AuditError, Filter, Row, Trust, Verdict};
use axum::Json;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// Records in one answer, unless fewer are asked for.
const MOST_RECORDS: usize = 10_000;

/// What the API works with.
#[derive(Clone)]
pub struct AuditApi {
    /// Who asks, and the loop that judges them.
    pub people: PeopleApi,
    /// The audit.
    pub file: Arc<PathBuf>,
}

/// The routes.
pub fn routes(api: AuditApi) -> Router {
    Router::new()
        .route("/api/audit", get(query))
        .route("/api/audit/export", get(export))
        .route("/api/audit/verify", get(verify))
        .route("/api/audit/checkpoint", get(checkpoint))
        .with_state(api)
}

/// What is wanted; as in [`Filter`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    from: Option<String>,
    until: Option<String>,
    channel: Option<String>,
    person: Option<String>,
    /// With commas between them.
    kind: Option<String>,
    burst: Option<String>,
    after: Option<i64>,
    newest: Option<usize>,
}

impl AuditApi {
    /// Lets an Admin or a Dispatcher pass.
    pub(super) async fn admit(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let by = self.people.identity(headers)?;
        ask(&self.people.events, Some(by), What::MayReview).await.map(drop)
    }

    /// Runs `read` with the audit's file, where it may take its time.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&PathBuf) -> Result<T, AuditError> + Send + 'static,
    ) -> Result<T, Failure> {
        let file = self.file.clone();
        let failed = |why: String| Failure::new(StatusCode::SERVICE_UNAVAILABLE, "audit", format!("{why}."));
        let read = tokio::task::spawn_blocking(move || read(&file)).await.map_err(|e| failed(e.to_string()))?;
        read.map_err(|e| failed(e.to_string()))
    }
}

async fn query(
    State(api): State<AuditApi>,
    headers: HeaderMap,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>, Failure> {
    api.admit(&headers).await?;
    let Wanted { from, until, channel, person, kind, burst, after, newest } = wanted;
    let kinds = kind.iter().flat_map(|kinds| kinds.split(',')).map(str::to_owned).collect();
    let newest = newest.or(after.is_none().then_some(MOST_RECORDS)).map(|n| n.min(MOST_RECORDS));
    let filter = Filter { from, until, channel, person, kinds, burst, after_seq: after.unwrap_or(0), newest };
    let records = api.read(move |file| {
        let mut records: Vec<Row> = Vec::new();
        audit::query(file, &filter, |row| {
            records.push(row);
            records.len() < MOST_RECORDS
        })?;
        Ok(records)
    });
    Ok(Json(json!({ "records": records.await? })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Span {
    from: Option<String>,
    until: Option<String>,
}

async fn export(
    State(api): State<AuditApi>,
    headers: HeaderMap,
    Query(Span { from, until }): Query<Span>,
) -> Result<Response, Failure> {
    api.admit(&headers).await?;
    let text = api.read(move |file| {
        let mut text = Vec::new();
        audit::export(file, from.as_deref(), until.as_deref(), &mut text).map(|_| text)
    });
    let kind = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"audit-export.jsonl\""),
    ];
    Ok((kind, text.await?).into_response())
}

async fn verify(State(api): State<AuditApi>, headers: HeaderMap) -> Result<Json<Verdict>, Failure> {
    api.admit(&headers).await?;
    api.read(|file| audit::verify(file, &Trust::default())).await.map(Json)
}

async fn checkpoint(State(api): State<AuditApi>, headers: HeaderMap) -> Result<Json<audit::Checkpoint>, Failure> {
    api.admit(&headers).await?;
    api.read(|file| audit::newest_checkpoint(file)).await.map(Json)
}
