//! The HTTP API for the audit: query, export, verification, the newest checkpoint.
//!
//! **Invariant:** every request carries the token of an Admin or a Dispatcher; the loop judges who is one. Files are
//! read on threads of their own, never on those that carry signaling.

use super::notes::{Hand, Note};
use super::people_api::{PeopleApi, ask};
use super::register::What;
use super::tasks::Failure;
use crate::audit::{self, AuditError, Filter, Row, Trust, Verdict};
use axum::Json;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
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
        .route("/api/audit/notes", post(note))
        .with_state(api)
}

/// What is wanted; as in [`Filter`].
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    person: Option<String>,
    /// With commas between them.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    burst: Option<String>,
    /// Whoever asks on and on asks for the same thing.
    #[serde(skip_serializing)]
    after: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    newest: Option<usize>,
}

impl Wanted {
    /// The note that somebody reads this.
    pub(super) fn note(&self, how: &str) -> Option<Note> {
        Some(Note::Read { how: how.to_owned(), wanted: json!(self) })
    }

    /// `most` records at most: the newest, unless those after a record are wanted.
    pub(super) fn filter(self, most: usize) -> Filter {
        let Wanted { from, until, channel, person, kind, burst, after, newest } = self;
        let kinds = kind.iter().flat_map(|kinds| kinds.split(',')).map(str::to_owned).collect();
        let newest = newest.or(after.is_none().then_some(most)).map(|n| n.min(most));
        Filter { from, until, channel, person, kinds, burst, after_seq: after.unwrap_or(0), newest }
    }
}

impl AuditApi {
    /// Lets an Admin or a Dispatcher pass, and has it noted what they read. The answer is the event's channels.
    pub(super) async fn admit(&self, headers: &HeaderMap, note: Option<Note>) -> Result<Value, Failure> {
        let by = self.people.identity(headers)?;
        ask(&self.people.events, Some(by), What::Review(note)).await
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

    /// Both: JSON for whoever may have it.
    async fn answer<T: Serialize + Send + 'static>(
        &self,
        headers: &HeaderMap,
        read: impl FnOnce(&PathBuf) -> Result<T, AuditError> + Send + 'static,
    ) -> Result<Json<T>, Failure> {
        self.admit(headers, None).await?;
        self.read(read).await.map(Json)
    }
}

async fn query(
    State(api): State<AuditApi>,
    headers: HeaderMap,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>, Failure> {
    let channels = api.admit(&headers, wanted.note("query")).await?;
    let filter = wanted.filter(MOST_RECORDS);
    let records = api.read(move |file| {
        let mut records: Vec<Row> = Vec::new();
        audit::query(file, &filter, |row| {
            records.push(row);
            records.len() < MOST_RECORDS
        })?;
        Ok(records)
    });
    Ok(Json(json!({ "records": records.await?, "channels": channels })))
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
    let note = Note::Read { how: "export".into(), wanted: json!({ "from": from, "until": until }) };
    api.admit(&headers, Some(note)).await?;
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
    api.answer(&headers, |file| audit::verify(file, &Trust::default())).await
}

async fn checkpoint(State(api): State<AuditApi>, headers: HeaderMap) -> Result<Json<audit::Checkpoint>, Failure> {
    api.answer(&headers, |file| audit::newest_checkpoint(file)).await
}

/// What a command has done, and whose hand was at it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Done {
    notes: Vec<Note>,
    by: Hand,
}

/// Notes what a command of this box has done. An Admin's business: it says so in an Admin's name.
async fn note(
    State(api): State<AuditApi>,
    headers: HeaderMap,
    Json(Done { notes, by: hand }): Json<Done>,
) -> Result<Json<Value>, Failure> {
    let by = api.people.identity(&headers)?;
    ask(&api.people.events, Some(by), What::Note(notes, hand)).await.map(Json)
}
