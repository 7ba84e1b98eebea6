//! The HTTP routes. Each handler is short; the decisions are in `target`, `create` and `cache`.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use tracing::error;

use crate::cache::{CACHE_TTL, Cache, Miss};
use crate::create::create;
use crate::links::Links;
use crate::problem::{Kind, Problem};
use crate::{Code, target};

/// The largest body of a request, in bytes: the longest target, escaped, with room to spare.
pub(crate) const BODY_BYTES_MAX: usize = 16 << 10;
/// The bytes of a larger body that are read and discarded. A client that is still sending when the
/// connection closes would see a broken pipe instead of the error.
const DISCARDED_BYTES_MAX: usize = 16 << 20;

/// The state that all requests share.
struct App<L> {
    cache: Cache<L>,
    /// The prefix of short URLs, without a trailing slash.
    base_url: String,
}

type Shared<L> = State<Arc<App<L>>>;

/// All routes, over a store and below a base URL.
pub(crate) fn routes<L: Links>(links: L, base_url: &str) -> Router {
    let app = App { cache: Cache::new(links), base_url: base_url.trim_end_matches('/').to_owned() };
    Router::new()
        .route("/v1/urls", post(shorten::<L>))
        .route("/livez", get(live))
        .route("/readyz", get(ready::<L>))
        .route("/{code}", get(redirect::<L>))
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::new(app))
}

#[derive(Deserialize)]
struct NewLink {
    long_url: String,
}

#[derive(Serialize)]
struct Link<'a> {
    code: &'a str,
    short_url: &'a str,
    long_url: &'a str,
}

async fn shorten<L: Links>(State(app): Shared<L>, uri: Uri, body: Body) -> Response {
    let new = match collect(body).await.and_then(|body| read(&body)) {
        Ok(new) => new,
        Err(problem) => return problem.at(&uri),
    };
    if let Err(bad) = target::check(&new.long_url) {
        return Problem::new(Kind::BadUrl, bad.to_string()).at(&uri);
    }
    let code = match create(app.cache.links(), &new.long_url, Code::random).await {
        Ok(code) => code,
        Err(failure) => {
            error!(error = %failure, "link not created");
            return Problem::from(failure).at(&uri);
        }
    };
    let short_url = format!("{}/{code}", app.base_url);
    let link = Link { code: code.as_str(), short_url: &short_url, long_url: &new.long_url };
    let json = serde_json::to_vec(&link).expect("strings are always JSON");
    let headers = [(header::LOCATION, short_url.as_str()), (header::CONTENT_TYPE, "application/json")];
    (StatusCode::CREATED, headers, json).into_response()
}

/// The request's body, if it is not too large.
async fn collect(body: Body) -> Result<Vec<u8>, Problem> {
    let mut parts = body.into_data_stream();
    let (mut collected, mut discarded) = (Vec::new(), 0);
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| Problem::new(Kind::BodyUnreadable, error.to_string()))?;
        if discarded == 0 && collected.len() + part.len() <= BODY_BYTES_MAX {
            collected.extend_from_slice(&part);
            continue;
        }
        discarded += part.len();
        if discarded > DISCARDED_BYTES_MAX {
            break;
        }
    }
    if discarded == 0 {
        return Ok(collected);
    }
    Err(Problem::new(Kind::BodyTooLarge, format!("a body has at most {BODY_BYTES_MAX} bytes")))
}

/// Parses the body as JSON. The content type is ignored, because plain `curl -d` sends a form's.
fn read(body: &[u8]) -> Result<NewLink, Problem> {
    // Through an object, because serde also accepts a list for a struct.
    let object: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_slice(body);
    let new = object.and_then(|object| NewLink::deserialize(serde_json::Value::Object(object)));
    new.map_err(|error| {
        let kind = if error.is_data() { Kind::MissingField } else { Kind::NotJson };
        Problem::new(kind, format!("{error}; send {{\"long_url\": \"https://…\"}}"))
    })
}

async fn redirect<L: Links>(State(app): Shared<L>, uri: Uri, code: Result<Path<String>, PathRejection>) -> Response {
    let Some(code) = code.ok().and_then(|Path(code)| code.parse::<Code>().ok()) else { return unknown(&uri) };
    match app.cache.target(code).await {
        Ok(target) => found(&target, &uri),
        Err(Miss::Absent) => unknown(&uri),
        Err(Miss::Failed(failure)) => {
            error!(%code, error = %failure, "link not read");
            Problem::from(failure).at(&uri)
        }
    }
}

fn found(target: &str, uri: &Uri) -> Response {
    let Ok(location) = HeaderValue::from_str(target) else {
        // Targets are checked before they are stored, so the shortener did not write this one.
        return Problem::new(Kind::Internal, "the link's target cannot stand in a header").at(uri);
    };
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, cache_control()),
        (HeaderName::from_static("x-robots-tag"), HeaderValue::from_static("noindex")),
        (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
    ];
    (StatusCode::FOUND, headers, format!("{target}\n")).into_response()
}

/// Browsers may keep a redirect for [`CACHE_TTL`]; shared caches may not keep it.
fn cache_control() -> HeaderValue {
    const VALUE: &str = "private, max-age=60";
    debug_assert_eq!(VALUE, format!("private, max-age={}", CACHE_TTL.as_secs()));
    HeaderValue::from_static(VALUE)
}

fn unknown(uri: &Uri) -> Response {
    Problem::new(Kind::UnknownCode, "no short link has this code; case matters").at(uri)
}

async fn live() -> &'static str {
    "ok\n"
}

async fn ready<L: Links>(State(app): Shared<L>, uri: Uri) -> Response {
    match app.cache.links().probe().await {
        Ok(()) => "ok\n".into_response(),
        Err(failure) => Problem::from(failure).at(&uri),
    }
}

async fn no_route(uri: Uri) -> Response {
    Problem::new(Kind::NoRoute, "the routes are POST /v1/urls and GET /{code}").at(&uri)
}

/// The router adds `Allow`.
async fn wrong_method(uri: Uri) -> Response {
    Problem::new(Kind::Method, "the header 'Allow' names the methods that this path takes").at(&uri)
}

#[cfg(test)]
mod tests;
