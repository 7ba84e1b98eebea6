//! Errors as RFC 9457 problem documents: one table of all errors, and one function that writes
//! them.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::links::LinkError;

/// The kind of an error. Each has its own status, title and stable code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    NotJson,
    MissingField,
    BadUrl,
    UnknownCode,
    NoRoute,
    Method,
    BodyTooLarge,
    BodyUnreadable,
    Unreachable,
    Overloaded,
    DiskFull,
    Unknown,
    Internal,
}

impl Kind {
    /// Status, code and title. The codes are stable: clients may act on them.
    fn row(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Kind::NotJson => (StatusCode::BAD_REQUEST, "not-json", "The body is not JSON"),
            Kind::MissingField => (StatusCode::BAD_REQUEST, "missing-field", "A field is missing or of the wrong type"),
            Kind::BadUrl => (StatusCode::BAD_REQUEST, "bad-url", "The URL cannot be shortened"),
            Kind::BodyUnreadable => (StatusCode::BAD_REQUEST, "body-unreadable", "The body could not be read"),
            Kind::UnknownCode => (StatusCode::NOT_FOUND, "unknown-code", "No such short link"),
            Kind::NoRoute => (StatusCode::NOT_FOUND, "no-route", "Nothing here"),
            Kind::Method => (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed"),
            Kind::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large"),
            Kind::Unreachable => (StatusCode::SERVICE_UNAVAILABLE, "store-unreachable", "The store is unreachable"),
            Kind::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "The store is overloaded"),
            Kind::DiskFull => (StatusCode::SERVICE_UNAVAILABLE, "store-full", "The store accepts no writes"),
            Kind::Unknown => (StatusCode::GATEWAY_TIMEOUT, "outcome-unknown", "The outcome is unknown"),
            Kind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
        }
    }
}

/// An error, without the path that it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    kind: Kind,
    detail: String,
    retry_after: Option<Duration>,
}

/// The wait before a retry unless the store gives one: about one failover.
const RETRY_AFTER: Duration = Duration::from_secs(2);

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Problem { kind, detail: detail.into(), retry_after: None }
    }

    /// The response to a request for this path.
    pub(crate) fn at(self, uri: &Uri) -> Response {
        let (status, code, title) = self.kind.row();
        let body = Body {
            r#type: format!("urn:quorate:problem:{code}"),
            title,
            status: status.as_u16(),
            detail: &self.detail,
            instance: uri.path(),
            code,
        };
        let body = serde_json::to_vec(&body).expect("strings and numbers are always JSON");
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
        }
        response
    }
}

impl From<LinkError> for Problem {
    fn from(error: LinkError) -> Self {
        let detail = error.to_string();
        let (kind, retry_after) = match error {
            LinkError::Unreachable { .. } => (Kind::Unreachable, Some(RETRY_AFTER)),
            LinkError::Overloaded { retry_after } => (Kind::Overloaded, Some(retry_after)),
            LinkError::Full => (Kind::DiskFull, Some(RETRY_AFTER)),
            LinkError::Unknown { .. } => (Kind::Unknown, None),
            LinkError::Broken { .. } => (Kind::Internal, None),
        };
        Problem { kind, detail, retry_after }
    }
}

/// The document of RFC 9457 section 3, extended by `code`.
#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
    code: &'static str,
}
