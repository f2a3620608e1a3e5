//! The pages, built from `web/` and carried inside the program.

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

macro_rules! page {
    ($name:literal, $type:literal) => {
        get(|| async {
            (
                [(header::CONTENT_TYPE, $type), (header::CACHE_CONTROL, "no-cache")],
                include_str!(concat!("../../web/dist/", $name)),
            )
        })
    };
}

/// Routes to every page and asset.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", page!("index.html", "text/html; charset=utf-8"))
        .route("/talk", page!("talk.html", "text/html; charset=utf-8"))
        .route("/assets/talk.js", page!("talk.js", "text/javascript; charset=utf-8"))
        .route("/assets/panel.js", page!("panel.js", "text/javascript; charset=utf-8"))
        .route("/assets/style.css", page!("style.css", "text/css; charset=utf-8"))
        .fallback(|| async {
            (axum::http::StatusCode::NOT_FOUND, "There is no such page here. Open / instead.").into_response()
        })
}
