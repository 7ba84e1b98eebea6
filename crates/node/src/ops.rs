//! The ops port: metrics and health over plain HTTP.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use quorate_connections::Connections;

use crate::node::Node;
use crate::readiness::{self, Readiness};
use crate::telemetry;

/// Serves the ops port until the node has closed.
pub(crate) async fn serve(node: Arc<Node>, connections: Connections) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(node.clone());
    axum::serve(connections, routes).with_graceful_shutdown(async move { node.life.closed().await }).await
}

async fn metrics(State(node): State<Arc<Node>>) -> Response {
    telemetry::refresh(&node);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], telemetry::render()).into_response()
}

/// `ok`, or 503 and the reasons as JSON. `?verbose` lists all checks and further observations.
async fn ready(State(node): State<Arc<Node>>, RawQuery(query): RawQuery) -> Response {
    let mut found = readiness::check(&node);
    let status = if found.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if query.is_some_and(|query| query.split('&').any(|word| word.split('=').next() == Some("verbose"))) {
        found.checks.extend(readiness::notes(&node));
        return (status, Json(found)).into_response();
    }
    if found.ready {
        return "ok\n".into_response();
    }
    let Readiness { ready, checks } = found;
    let reasons = checks.into_iter().filter(|check| !check.ok).collect();
    (status, Json(Readiness { ready, checks: reasons })).into_response()
}
