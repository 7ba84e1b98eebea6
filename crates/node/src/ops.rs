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

/// `ok`, or 503 and the reasons as JSON. `?for=writes` asks in addition for a shard with a leader;
/// `?verbose` lists all checks and further observations.
async fn ready(State(node): State<Arc<Node>>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let values = |name: &str| values(&query, name).collect::<Vec<_>>();
    if let Some(unknown) = values("for").into_iter().find(|purpose| *purpose != "writes") {
        let reason = format!("'for={}' is unknown; use for=writes\n", unknown.escape_debug());
        return (StatusCode::BAD_REQUEST, reason).into_response();
    }
    let mut found = readiness::check(&node);
    if !values("for").is_empty() {
        let writes = readiness::writes(&node);
        found.ready &= writes.ok;
        found.checks.push(writes);
    }
    let status = if found.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if !values("verbose").is_empty() {
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

/// The values of a parameter of the query; empty where the name stands alone.
fn values<'a>(query: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let pairs = query.split('&').map(|word| word.split_once('=').unwrap_or((word, "")));
    pairs.filter(move |(key, _)| *key == name).map(|(_, value)| value)
}
