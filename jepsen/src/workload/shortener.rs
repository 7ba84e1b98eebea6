//! `shortener`: short links are created and followed over HTTP, through several shortener
//! processes. An acknowledged code always redirects to its URL, and no code is assigned twice.
//!
//! In the history, creating a link is an `add` of its URL on the key `shortener/` that returns the
//! code. Following a link is a `read` of the key `shortener/CODE` that returns the URL.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::BoxFuture;
use quorate_client::ReadLevel;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::check::{Done, operations};
use super::contract::{Finding, Setting, Workload};
use super::http::{HttpError, Reply};
use super::op::{Access, Completion, Op};
use crate::history::{Action, Event, EventKind};

/// The shortener processes: links are created by one and followed through another.
const PROCESSES: usize = 2;
/// The time-out of creating a link: longer than the shortener's own, so that it usually answers.
const CREATE_DEADLINE: Duration = Duration::from_secs(12);
/// The key of link creations in the history.
const CREATE_KEY: &str = "shortener/";

pub(super) struct Shortener {
    urls: Vec<String>,
    /// The acknowledged codes, in the order of their completions.
    codes: Mutex<Vec<String>>,
}

impl Shortener {
    pub(super) fn new(setting: &Setting<'_>) -> anyhow::Result<Self> {
        let urls = setting.urls.map(read_urls).transpose()?.unwrap_or_default();
        Ok(Shortener { urls, codes: Mutex::default() })
    }

    fn url(&self, n: u64) -> String {
        match usize::try_from(n).ok().and_then(|n| self.urls.get(n % self.urls.len().max(1))) {
            // The number makes every URL unique, so that it identifies the request that created the
            // link.
            Some(url) if url.contains('#') => format!("{url}-{n}"),
            Some(url) => format!("{url}#{n}"),
            None => format!("https://example.org/page/{n}"),
        }
    }

    fn codes(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.codes.lock().expect("only a broken invariant poisons this lock")
    }
}

fn read_urls(file: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("http") && line.len() < 2_000)
        .map(str::to_owned)
        .collect())
}

impl Workload for Shortener {
    fn name(&self) -> &'static str {
        "shortener"
    }

    fn plan(&self, n: u64, rng: &mut StdRng) -> Op {
        let codes = self.codes();
        let follow = rng.random_ratio(6, 10) && !codes.is_empty();
        if follow {
            let code = &codes[rng.random_range(0..codes.len())];
            return Op::read(format!("{CREATE_KEY}{code}"), ReadLevel::Strong);
        }
        Op::new(Action::Add, CREATE_KEY, self.url(n ^ (rng.random_range(0..1_u64 << 20) << 40)))
    }

    fn perform(&self, access: Access, op: Op) -> BoxFuture<'_, Completion> {
        Box::pin(async move {
            let turn = usize::try_from(access.turn).unwrap_or(0);
            let Some(shortener) = access.shorteners.get(turn % access.shorteners.len().max(1)) else {
                return Completion::fail("no shortener is running");
            };
            match op.f {
                Action::Add => {
                    let url = format!("http://{shortener}/v1/urls");
                    let body = json!({ "long_url": op.value }).to_string();
                    created(access.http.post(&url, body, CREATE_DEADLINE).await)
                }
                _ => {
                    let code = op.key.trim_start_matches(CREATE_KEY);
                    let url = format!("http://{shortener}/{code}");
                    followed(access.http.get(&url, access.deadline.max(Duration::from_secs(6))).await)
                }
            }
        })
    }

    fn observe(&self, op: &Op, completion: &Completion) {
        if let (Action::Add, EventKind::Ok, Some(code)) = (op.f, completion.kind, completion.value.as_str()) {
            self.codes().push(code.to_owned());
        }
    }

    fn model(&self) -> Option<&'static str> {
        None
    }

    fn is_replayable(&self) -> bool {
        false
    }

    fn shorteners(&self) -> usize {
        PROCESSES
    }

    fn finals(&self, _: u64) -> Vec<Op> {
        self.codes().iter().map(|code| Op::read(format!("{CREATE_KEY}{code}"), ReadLevel::Strong)).collect()
    }

    fn check(&self, events: &[Event]) -> Vec<Finding> {
        check(events)
    }
}

/// The completion of a link creation. It is a failure only if the request was refused, or the
/// shortener reports that nothing was stored. An earlier code of the same request may exist, but no
/// client knows it.
fn created(reply: Result<Reply, HttpError>) -> Completion {
    match reply {
        Ok(Reply { status: 201, body, .. }) => {
            let answer: Value = serde_json::from_str(&body).unwrap_or_default();
            match answer["code"].as_str() {
                Some(code) => Completion::ok(json!(code)),
                None => Completion::info(format!("201 without a code: {body}")),
            }
        }
        Ok(Reply { status: status @ (400..=499 | 503), body, .. }) => Completion::fail(format!("{status}: {body}")),
        Ok(Reply { status, body, .. }) => Completion::info(format!("{status}: {body}")),
        Err(HttpError::NotSent(reason)) => Completion::fail(reason),
        Err(error @ HttpError::NoAnswer(_)) => Completion::info(error.to_string()),
    }
}

/// The completion of following a link: the URL, or null if there is no such link.
fn followed(reply: Result<Reply, HttpError>) -> Completion {
    match reply {
        Ok(Reply { status: 302, location: Some(url), .. }) => Completion::ok(json!(url)),
        Ok(Reply { status: 404, .. }) => Completion::ok(Value::Null),
        Ok(Reply { status, body, .. }) => Completion::fail(format!("{status}: {body}")),
        Err(error) => Completion::fail(error.to_string()),
    }
}

fn check(events: &[Event]) -> Vec<Finding> {
    let operations = operations(events);
    let mut made: HashMap<String, Done<'_>> = HashMap::new();
    let mut findings = Vec::new();
    for done in operations.iter().filter(|done| done.invoke.f == Action::Add && done.is_acknowledged()) {
        let code = done.result().as_str().unwrap_or_default();
        if let Some(before) = made.insert(code.to_owned(), *done) {
            let what = format!("code {code} was assigned to {} and to {}", before.invoke.value, done.invoke.value);
            findings.push(Finding { what, events: [before.events(), done.events()].concat() });
        }
    }
    for read in operations.iter().filter(|done| done.is_read(false)) {
        let code = read.invoke.key.as_deref().unwrap_or_default().trim_start_matches(CREATE_KEY);
        let Some(add) = made.get(code).filter(|add| add.end() < read.invoke.time) else { continue };
        if *read.result() != add.invoke.value {
            let what = format!("code {code} leads to {} instead of {}", read.result(), add.invoke.value);
            findings.push(Finding { what, events: [add.events(), read.events()].concat() });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, location: Option<&str>, body: &str) -> Result<Reply, HttpError> {
        Ok(Reply { status, location: location.map(str::to_owned), body: body.to_owned() })
    }

    #[test]
    fn responses_become_completions() {
        assert_eq!(created(reply(201, None, r#"{"code":"abc"}"#)), Completion::ok(json!("abc")));
        assert_eq!(created(reply(503, None, "")).kind, EventKind::Fail);
        assert_eq!(created(reply(504, None, "")).kind, EventKind::Info);
        assert_eq!(created(Err(HttpError::NotSent(String::new()))).kind, EventKind::Fail);
        assert_eq!(created(Err(HttpError::NoAnswer(String::new()))).kind, EventKind::Info);
        assert_eq!(followed(reply(302, Some("http://a/"), "")), Completion::ok(json!("http://a/")));
        assert_eq!(followed(reply(404, None, "")), Completion::ok(Value::Null));
        assert_eq!(followed(reply(503, None, "")).kind, EventKind::Fail);
    }

    fn event(index: u64, process: u64, kind: &str, f: &str, key: &str, value: Value) -> Event {
        let event = json!({"index": index, "time": index, "process": process, "type": kind, "f": f, "key": key, "value": value});
        serde_json::from_value(event).unwrap()
    }

    fn link(index: u64, url: &str, code: &str) -> [Event; 2] {
        [
            event(index, 0, "invoke", "add", CREATE_KEY, json!(url)),
            event(index + 1, 0, "ok", "add", CREATE_KEY, json!(code)),
        ]
    }

    fn follow(index: u64, code: &str, to: Value) -> [Event; 2] {
        let key = format!("{CREATE_KEY}{code}");
        [event(index, 1, "invoke", "read", &key, Value::Null), event(index + 1, 1, "ok", "read", &key, to)]
    }

    #[test]
    fn code_leads_to_its_url_and_is_assigned_once() {
        let good = [link(0, "http://a/", "A"), follow(2, "A", json!("http://a/"))].concat();
        assert_eq!(check(&good), vec![]);
        let lost = [link(0, "http://a/", "A"), follow(2, "A", Value::Null)].concat();
        assert!(check(&lost)[0].what.contains("leads to null"));
        let twice = [link(0, "http://a/", "A"), link(2, "http://b/", "A")].concat();
        assert!(check(&twice)[0].what.contains("was assigned"));
        let early = [follow(0, "A", Value::Null), link(2, "http://a/", "A")].concat();
        assert_eq!(check(&early), vec![]);
    }
}
