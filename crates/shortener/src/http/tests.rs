//! The routes over a real socket, with links in memory.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::links::LinkError;
use crate::links::memory::MemoryLinks;

/// A shortener on a port of its own, and the links below it.
struct Site {
    links: MemoryLinks,
    address: std::net::SocketAddr,
}

struct Answer {
    status: u16,
    headers: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect(&self.body)
    }

    /// Checks that this is the problem document with this status and code, and returns its detail.
    fn problem(&self, status: u16, code: &str, instance: &str) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let body = self.json();
        assert_eq!(body["type"], format!("urn:quorate:problem:{code}"));
        assert_eq!((&body["status"], &body["code"]), (&json!(status), &json!(code)));
        assert_eq!(body["instance"], instance);
        assert!(body["title"].as_str().is_some_and(|title| !title.is_empty()));
        body["detail"].as_str().unwrap().to_owned()
    }
}

impl Site {
    async fn start() -> Self {
        let links = MemoryLinks::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = routes(links.clone(), "https://sho.rt/");
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Site { links, address }
    }

    async fn send(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        for header in headers {
            request += &format!("{header}\r\n");
        }
        request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (headers, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = headers.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, headers: headers.to_owned(), body: body.to_owned() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    async fn post(&self, body: &str) -> Answer {
        self.send("POST", "/v1/urls", &["Content-Type: application/json"], body).await
    }
}

/// A code redirects to exactly the text that was posted.
#[tokio::test]
async fn a_code_redirects_to_the_unchanged_url() {
    let site = Site::start().await;
    for long_url in ["http://example.org", "HTTP://EXAMPLE.org:80/a/../b?q=a|b&c={d}#e", "https://x.example/%7euser"] {
        let made = site.post(&json!({ "long_url": long_url }).to_string()).await;
        assert_eq!(made.status, 201, "{}", made.body);
        assert_eq!(made.header("content-type"), Some("application/json"));
        let body = made.json();
        let code = body["code"].as_str().unwrap();
        assert_eq!(code.len(), 7);
        assert_eq!(body["short_url"], format!("https://sho.rt/{code}"));
        assert_eq!(made.header("location"), body["short_url"].as_str());
        assert_eq!(body["long_url"], long_url);

        for method in ["GET", "HEAD"] {
            let answer = site.send(method, &format!("/{code}"), &[], "").await;
            assert_eq!(answer.status, 302);
            assert_eq!(answer.header("location"), Some(long_url));
            assert_eq!(answer.header("cache-control"), Some("private, max-age=60"));
            let expected = if method == "GET" { format!("{long_url}\n") } else { String::new() };
            assert_eq!(answer.body, expected);
        }
    }
}

#[tokio::test]
async fn bad_bodies_are_400_with_their_reason() {
    let site = Site::start().await;
    for (body, code) in [
        ("", "not-json"),
        ("{", "not-json"),
        ("long_url=http://example.org", "not-json"),
        ("{}", "missing-field"),
        ("[]", "missing-field"),
        (r#"{"long_url": 7}"#, "missing-field"),
        (r#"{"long_url": ""}"#, "bad-url"),
        (r#"{"long_url": "example.org"}"#, "bad-url"),
        (r#"{"long_url": "ftp://example.org/"}"#, "bad-url"),
        (r#"{"long_url": "http://example.org/\r\nX: y"}"#, "bad-url"),
        (r#"{"long_url": "http://example.org/é"}"#, "bad-url"),
    ] {
        let detail = site.post(body).await.problem(400, code, "/v1/urls");
        assert!(detail.contains("long_url"), "{body}: {detail}");
    }
    assert_eq!(site.links.creates(), 0);
}

#[tokio::test]
async fn a_body_must_be_json_and_small() {
    let site = Site::start().await;
    let body = r#"{"long_url":"http://example.org/"}"#;
    // The content type of a plain `curl -d`, and one with parameters.
    let form = "Content-Type: application/x-www-form-urlencoded";
    for headers in [&[][..], &[form], &["Content-Type: application/JSON; charset=utf-8"]] {
        assert_eq!(site.send("POST", "/v1/urls", headers, body).await.status, 201);
        site.send("POST", "/v1/urls", headers, "long_url=x").await.problem(400, "not-json", "/v1/urls");
    }
    for not_an_object in [r#"["http://example.org/"]"#, "7", "null", r#""http://example.org/""#] {
        site.post(not_an_object).await.problem(400, "missing-field", "/v1/urls");
    }

    let large = format!(r#"{{"long_url":"http://example.org/{}"}}"#, "a".repeat(BODY_BYTES_MAX));
    let detail = site.post(&large).await.problem(413, "body-too-large", "/v1/urls");
    assert!(detail.contains("16384 bytes"));
}

#[tokio::test]
async fn unknown_codes_and_paths_are_404() {
    let site = Site::start().await;
    site.get("/AbCdEf0").await.problem(404, "unknown-code", "/AbCdEf0");
    site.get("/favicon.ico").await.problem(404, "unknown-code", "/favicon.ico");
    site.get("/%ff%fe").await.problem(404, "unknown-code", "/%ff%fe");
    site.get("/").await.problem(404, "no-route", "/");
    site.get("/a/b").await.problem(404, "no-route", "/a/b");
    assert_eq!(site.links.lookups().len(), 2, "only a text that can be a code is looked up");
}

#[tokio::test]
async fn wrong_methods_are_405_with_the_allowed_ones() {
    let site = Site::start().await;
    for (method, path, allow) in
        [("GET", "/v1/urls", "POST"), ("DELETE", "/AbCdEf0", "GET,HEAD"), ("POST", "/livez", "GET,HEAD")]
    {
        let answer = site.send(method, path, &[], "").await;
        answer.problem(405, "method-not-allowed", path);
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
}

/// Each failure of the store has its own status; none of them is a 201 or a 404.
#[tokio::test]
async fn each_failure_of_the_store_has_its_status() {
    let site = Site::start().await;
    let reason = || "it is down".to_owned();
    let overloaded = LinkError::Overloaded { retry_after: Duration::from_secs(3) };
    for (failure, status, code, retry_after) in [
        (LinkError::Unreachable { reason: reason() }, 503, "store-unreachable", Some("2")),
        (overloaded, 503, "overloaded", Some("3")),
        (LinkError::Full, 503, "store-full", Some("2")),
        (LinkError::Unknown { reason: reason() }, 504, "outcome-unknown", None),
        (LinkError::Broken { reason: reason() }, 500, "internal", None),
    ] {
        site.links.fail(Some(failure));
        let answer = site.post(r#"{"long_url":"http://example.org/"}"#).await;
        answer.problem(status, code, "/v1/urls");
        assert_eq!(answer.header("retry-after"), retry_after);
        site.get("/AbCdEf0").await.problem(status, code, "/AbCdEf0");
    }
}

#[tokio::test]
async fn liveness_does_not_depend_on_the_store_and_readiness_does() {
    let site = Site::start().await;
    assert_eq!((site.get("/livez").await.status, site.get("/readyz").await.status), (200, 200));
    site.links.fail(Some(LinkError::Unreachable { reason: "it is down".into() }));
    assert_eq!(site.get("/livez").await.status, 200);
    site.get("/readyz").await.problem(503, "store-unreachable", "/readyz");
}
