//! HTTP requests with a time-out, for the shortener and for the nodes' metrics.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::Request;
use hyper::header::{CONTENT_TYPE, LOCATION};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// The largest body that is read.
const BODY_BYTES_MAX: usize = 16 << 20;

/// A client with persistent connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
}

/// A response.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The header `Location`.
    pub location: Option<String>,
    /// The body.
    pub body: String,
}

/// The error of a request without a response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// There was no connection, so the request was not sent.
    #[error("no connection: {0}")]
    NotSent(String),
    /// The request may have been sent, but no response arrived.
    #[error("no answer: {0}")]
    NoAnswer(String),
}

impl Default for Http {
    fn default() -> Self {
        Http { client: Client::builder(TokioExecutor::new()).build_http() }
    }
}

impl Http {
    /// Gets a URL.
    ///
    /// # Errors
    ///
    /// No response arrived in time, or it cannot be read.
    pub async fn get(&self, url: &str, within: Duration) -> Result<Reply, HttpError> {
        self.send(Request::get(url).body(Full::default()), within).await
    }

    /// Posts JSON to a URL.
    ///
    /// # Errors
    ///
    /// No response arrived in time, or it cannot be read.
    pub async fn post(&self, url: &str, json: String, within: Duration) -> Result<Reply, HttpError> {
        let request = Request::post(url).header(CONTENT_TYPE, "application/json");
        self.send(request.body(Full::from(json)), within).await
    }

    async fn send(
        &self,
        request: Result<Request<Full<Bytes>>, hyper::http::Error>,
        within: Duration,
    ) -> Result<Reply, HttpError> {
        let request = request.map_err(|error| HttpError::NotSent(error.to_string()))?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| match error.is_connect() {
                true => HttpError::NotSent(error.to_string()),
                false => HttpError::NoAnswer(error.to_string()),
            })?;
            let status = response.status().as_u16();
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
            let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
            let body = body.map_err(|error| HttpError::NoAnswer(error.to_string()))?.to_bytes();
            Ok(Reply { status, location, body: String::from_utf8_lossy(&body).into_owned() })
        };
        let late = |_| Err(HttpError::NoAnswer(format!("not within {} ms", within.as_millis())));
        tokio::time::timeout(within, exchange).await.unwrap_or_else(late)
    }
}
