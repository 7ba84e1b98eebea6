//! A minimal HTTP/1.1 client: one request at a time on one connection, which is reopened after an
//! error.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// The time-out of one request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A response.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The Location header.
    pub location: Option<String>,
    /// The Content-Type header.
    pub content_type: Option<String>,
    /// The body.
    pub body: String,
}

/// A client of one server. An error leaves the outcome of the request unknown.
pub struct HttpClient {
    address: String,
    connection: Option<BufReader<TcpStream>>,
}

impl HttpClient {
    /// A client of the server at `host:port`. Connects on first use.
    pub fn new(address: impl Into<String>) -> Self {
        HttpClient { address: address.into(), connection: None }
    }

    /// Sends a GET request.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<Response> {
        self.request("GET", path, None).await
    }

    /// Sends a POST request with a JSON body.
    pub async fn post(&mut self, path: &str, json: &str) -> anyhow::Result<Response> {
        self.request("POST", path, Some(("application/json", json))).await
    }

    /// Sends any request. `body` is a content type and its text.
    pub async fn request(&mut self, method: &str, path: &str, body: Option<(&str, &str)>) -> anyhow::Result<Response> {
        let result = tokio::time::timeout(TIMEOUT, self.exchange(method, path, body)).await;
        let result = result.context("no response in time").and_then(|answer| answer);
        if result.is_err() {
            self.connection = None;
        }
        result
    }

    async fn exchange(&mut self, method: &str, path: &str, body: Option<(&str, &str)>) -> anyhow::Result<Response> {
        if self.connection.is_none() {
            let stream = TcpStream::connect(&self.address).await?;
            stream.set_nodelay(true)?;
            self.connection = Some(BufReader::new(stream));
        }
        let connection = self.connection.as_mut().context("just connected")?;
        let (content_type, body) = body.unwrap_or(("", ""));
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n", self.address, body.len());
        if !content_type.is_empty() {
            request.push_str(&format!("content-type: {content_type}\r\n"));
        }
        request.push_str("\r\n");
        request.push_str(body);
        connection.get_mut().write_all(request.as_bytes()).await?;
        read_response(connection, method).await
    }
}

async fn read_response(connection: &mut BufReader<TcpStream>, method: &str) -> anyhow::Result<Response> {
    let mut line = String::new();
    if connection.read_line(&mut line).await? == 0 {
        bail!("the server closed the connection");
    }
    let status = line.split(' ').nth(1).context("a status line")?.parse()?;
    let mut response = Response { status, location: None, content_type: None, body: String::new() };
    let mut length = 0;
    loop {
        line.clear();
        connection.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse()?,
            "location" => response.location = Some(value.to_owned()),
            "content-type" => response.content_type = Some(value.to_owned()),
            _ => {}
        }
    }
    if method != "HEAD" {
        let mut body = vec![0; length];
        connection.read_exact(&mut body).await?;
        response.body = String::from_utf8(body)?;
    }
    Ok(response)
}
