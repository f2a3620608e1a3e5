//! The pages, built from `web/` and carried inside the program.

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use std::net::SocketAddr;

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

/// What people need to trust this box: the local authority's certificate and its fingerprint. There is nothing to trust
/// without TLS, or with a certificate that browsers know already.
#[derive(Clone)]
pub struct Trust {
    /// In PEM form.
    pub certificate: String,
    /// SHA-256.
    pub fingerprint: String,
}

/// Routes to every page and asset.
pub fn routes<S: Clone + Send + Sync + 'static>(trust: Option<Trust>) -> Router<S> {
    let elsewhere = if trust.is_some() { "/trust" } else { "/talk" };
    let (authority, steps) = (trust.clone(), trust);
    // The front panel works on the box itself only; from the network people get to where they can go on.
    let by_peer = move |ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request, next: Next| async move {
        if peer.ip().to_canonical().is_loopback() {
            return next.run(request).await;
        }
        Redirect::temporary(elsewhere).into_response()
    };
    Router::new()
        .route("/", page!("index.html", "text/html; charset=utf-8").layer(from_fn(by_peer)))
        .route("/talk", page!("talk.html", "text/html; charset=utf-8"))
        .route("/timeline", page!("timeline.html", "text/html; charset=utf-8"))
        .route("/doctor", page!("doctor.html", "text/html; charset=utf-8"))
        .route("/assets/doctor.js", page!("doctor.js", "text/javascript; charset=utf-8"))
        .route("/assets/doctor.css", page!("doctor.css", "text/css; charset=utf-8"))
        .route("/assets/timeline.js", page!("timeline.js", "text/javascript; charset=utf-8"))
        .route("/assets/timeline.css", page!("timeline.css", "text/css; charset=utf-8"))
        .route("/assets/talk.js", page!("talk.js", "text/javascript; charset=utf-8"))
        .route("/assets/panel.js", page!("panel.js", "text/javascript; charset=utf-8"))
        .route("/assets/style.css", page!("style.css", "text/css; charset=utf-8"))
        .route("/ca.pem", get(|| async move { authority.map_or_else(nothing_to_trust, download) }))
        .route("/trust", get(|| async move { steps.map_or_else(nothing_to_trust, |trust| explain(&trust)) }))
        .fallback(|| async { (StatusCode::NOT_FOUND, "There is no such page here. Open / instead.").into_response() })
}

fn nothing_to_trust() -> Response {
    (StatusCode::NOT_FOUND, "This box has no authority of its own; there is nothing to install.").into_response()
}

/// The type makes phones offer to install it; the name's end is one that they know.
fn download(trust: Trust) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/x-x509-ca-cert"),
        (header::CONTENT_DISPOSITION, "inline; filename=\"crosspatch.crt\""),
    ];
    (headers, trust.certificate).into_response()
}

fn explain(trust: &Trust) -> Response {
    let page = include_str!("../../web/dist/trust.html").replace("{fingerprint}", &trust.fingerprint);
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")], page).into_response()
}
