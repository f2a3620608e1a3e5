//! Recordings as people ask for them: the audit says what was recorded, the state directory has the files.
//!
//! **Invariant:** as with the audit, every request carries the token of an Admin or a Dispatcher.

use super::audit_api::{AuditApi, Wanted};
use super::keeping::recordings_of;
use super::notes::{Heard, Note};
use super::tasks::Failure;
use crate::audit::{self, AuditError, Filter, Row};
use crate::recorder::path_of;
use axum::extract::{Path as Part, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Recordings in one answer, unless fewer are asked for.
const MOST_RECORDINGS: usize = 2_000;

/// What the audit says of a recording.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recording {
    /// Its id, also the name of its file.
    pub id: String,
    /// The burst, as `b12`.
    pub burst: Option<String>,
    /// The channel; none for an emergency, which is heard on all.
    pub channel: Option<String>,
    /// Who talked.
    pub user: Option<String>,
    /// Their name.
    pub user_name: Option<String>,
    /// Their role.
    pub role: Option<String>,
    /// When it began; not known of one that was cut short by a crash.
    pub started_utc: Option<String>,
    /// How long it is.
    pub length_ms: Option<u64>,
    /// Packets that never came.
    pub lost: Option<u64>,
    /// How large its file is.
    pub bytes: Option<u64>,
    /// The SHA-256 of its file, in hex.
    pub sha256: String,
    /// `cut-short` if the process or the power ended before the burst.
    pub cause: Option<String>,
    /// False if the file is gone: by retention, or by somebody's hand.
    pub kept: bool,
}

impl Recording {
    fn of(row: Row, dir: &Path) -> Option<Self> {
        let text = |key: &str| row.detail[key].as_str().map(str::to_owned);
        let number = |key: &str| row.detail[key].as_u64();
        let id = text("id")?;
        Some(Recording {
            kept: path_of(dir, &id).is_some_and(|path| path.exists()),
            started_utc: text("startedUtc"),
            length_ms: number("lengthMs"),
            lost: number("lost"),
            bytes: number("bytes"),
            sha256: text("sha256")?,
            id,
            burst: row.burst,
            channel: row.channel,
            user: row.actor,
            user_name: row.actor_name,
            role: row.role,
            cause: row.cause,
        })
    }

    /// Where its file is.
    #[must_use]
    pub fn path(&self, state_dir: &Path) -> Option<PathBuf> {
        path_of(&recordings_of(state_dir), &self.id)
    }
}

/// The recordings that are wanted, oldest first; the filter's kinds do not matter.
///
/// # Errors
/// If the audit cannot be read.
pub fn list(state_dir: &Path, mut filter: Filter) -> Result<Vec<Recording>, AuditError> {
    filter.kinds = vec![crate::base::Action::RecordingStored.as_str().to_owned()];
    let (dir, mut found) = (recordings_of(state_dir), Vec::new());
    audit::query(&state_dir.join("audit.sqlite"), &filter, |row| {
        found.extend(Recording::of(row, &dir));
        true
    })?;
    Ok(found)
}

/// The routes.
pub fn routes(api: AuditApi) -> Router {
    Router::new().route("/api/recordings", get(listed)).route("/api/recordings/{id}", get(file)).with_state(api)
}

async fn listed(
    State(api): State<AuditApi>,
    headers: HeaderMap,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>, Failure> {
    let channels = api.admit(&headers, wanted.note("recordings")).await?;
    let filter = wanted.filter(MOST_RECORDINGS);
    let recordings = api.read(move |file| list(state_dir(file), filter)).await?;
    Ok(Json(json!({ "recordings": recordings, "channels": channels })))
}

async fn file(State(api): State<AuditApi>, headers: HeaderMap, Part(id): Part<String>) -> Result<Response, Failure> {
    api.admit(&headers, None).await?;
    let nothing = || Failure::new(StatusCode::NOT_FOUND, "no-recording", "There is no such recording any more.");
    let path = path_of(&recordings_of(state_dir(&api.file)), &id).ok_or_else(nothing)?;
    let bytes = tokio::task::spawn_blocking(move || std::fs::read(path)).await;
    let bytes = bytes.map_err(|_| nothing())?.map_err(|_| nothing())?;
    let of_burst = Filter { burst: id.rsplit('_').next().map(str::to_owned), ..Filter::default() };
    let wanted = id.clone();
    let known = api.read(move |file| Ok(list(state_dir(file), of_burst)?.into_iter().find(|of| of.id == wanted))).await;
    // An audit that cannot be read keeps nobody from hearing; what is known of the recording is its id then.
    let heard = known.ok().flatten().map_or_else(|| Heard::of_id(&id), |recording| Heard::of(&recording));
    api.admit(&headers, Some(Note::Played(heard))).await?;
    // Whoever hears it again asks again.
    Ok(([(header::CONTENT_TYPE, "audio/ogg"), (header::CACHE_CONTROL, "no-store")], bytes).into_response())
}

fn state_dir(audit: &Path) -> &Path {
    audit.parent().unwrap_or(Path::new(""))
}
