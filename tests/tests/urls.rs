//! Every acknowledged short URL redirects to exactly its long URL, although nodes die meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use quorate_tests::{Cluster, ClusterOptions, HttpClient, shared_file};

const CLIENTS: usize = 64;
/// How often a client retries one URL.
const ATTEMPTS_MAX: usize = 50;
/// How long a redirect may fail before its URL counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// The progress of the load.
#[derive(Default)]
struct Load {
    next: AtomicUsize,
    acknowledged: Mutex<Vec<(String, String)>>,
}

impl Load {
    async fn run(self: Arc<Self>, shortener: String, urls: Arc<Vec<String>>) -> anyhow::Result<()> {
        let mut http = HttpClient::new(shortener);
        loop {
            let Some(url) = urls.get(self.next.fetch_add(1, Ordering::SeqCst)) else { return Ok(()) };
            let code = create(&mut http, url).await?;
            self.acknowledged.lock().expect("no test panics here").push((code, url.clone()));
        }
    }
}

/// Posts until a code is acknowledged.
async fn create(http: &mut HttpClient, url: &str) -> anyhow::Result<String> {
    let body = serde_json::json!({ "long_url": url }).to_string();
    let mut last = String::new();
    for _ in 0..ATTEMPTS_MAX {
        match http.post("/v1/urls", &body).await {
            Ok(response) if response.status == 201 => {
                let created: serde_json::Value = serde_json::from_str(&response.body)?;
                ensure!(created["long_url"] == url, "the answer names another URL: {created}");
                return Ok(created["code"].as_str().context("a code")?.to_owned());
            }
            Ok(response) if response.status < 500 => anyhow::bail!("{url}: {response:?}"),
            other => last = format!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("{url}: never acknowledged; last: {last}")
}

/// The result of following a short URL.
enum Verdict {
    Right,
    Wrong(String),
    Lost(String),
}

async fn check(http: &mut HttpClient, code: &str, url: &str) -> Verdict {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match http.get(&format!("/{code}")).await {
            Ok(response) if response.status == 302 && response.location.as_deref() == Some(url) => {
                return Verdict::Right;
            }
            Ok(response) if response.status == 302 => {
                return Verdict::Wrong(format!("{code}: {response:?}, not {url}"));
            }
            Ok(response) if response.status < 500 => return Verdict::Lost(format!("{code}: {response:?}")),
            other if Instant::now() > deadline => return Verdict::Lost(format!("{code}: {other:?}")),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Follows all short URLs through a new shortener, whose cache is empty. Returns (lost, wrong).
async fn read_back(shortener: String, all: Vec<(String, String)>) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let all = Arc::new(all);
    let next = Arc::new(AtomicUsize::new(0));
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (all, next, shortener) = (all.clone(), next.clone(), shortener.clone());
        readers.spawn(async move {
            let mut http = HttpClient::new(shortener);
            let (mut lost, mut wrong) = (vec![], vec![]);
            while let Some((code, url)) = all.get(next.fetch_add(1, Ordering::SeqCst)) {
                match check(&mut http, code, url).await {
                    Verdict::Right => {}
                    Verdict::Wrong(answer) => wrong.push(answer),
                    Verdict::Lost(answer) => lost.push(answer),
                }
            }
            (lost, wrong)
        });
    }
    let (mut lost, mut wrong) = (vec![], vec![]);
    while let Some(reader) = readers.join_next().await {
        let (more_lost, more_wrong) = reader?;
        lost.extend(more_lost);
        wrong.extend(more_wrong);
    }
    Ok((lost, wrong))
}

fn urls() -> Option<Arc<Vec<String>>> {
    let file = shared_file("data/urls.txt")?;
    let text = std::fs::read_to_string(file).ok()?;
    Some(Arc::new(text.lines().map(str::to_owned).collect()))
}

/// Waits until `count` URLs are acknowledged.
async fn acknowledged(load: &Load, count: usize) -> anyhow::Result<()> {
    quorate_tests::eventually("the load makes progress", Duration::from_secs(300), || async {
        load.acknowledged.lock().expect("no test panics here").len() >= count
    })
    .await
}

fn report(test: &str, load: &Load, lost: &[String], wrong: &[String]) -> anyhow::Result<()> {
    let acknowledged = load.acknowledged.lock().expect("no test panics here").len();
    println!("{test}: acknowledged {acknowledged}, lost {}, wrong {}", lost.len(), wrong.len());
    ensure!(lost.is_empty() && wrong.is_empty(), "lost: {lost:?}; wrong: {wrong:?}");
    Ok(())
}

async fn start_load(
    cluster: &mut Cluster,
    urls: &Arc<Vec<String>>,
) -> anyhow::Result<(Arc<Load>, tokio::task::JoinSet<anyhow::Result<()>>)> {
    let shortener = cluster.start_shortener().await?;
    let load = Arc::new(Load::default());
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        writers.spawn(load.clone().run(shortener.clone(), urls.clone()));
    }
    Ok((load, writers))
}

async fn finish(mut writers: tokio::task::JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    Ok(())
}

/// One node is killed and restarted while URLs are written, another one while they are followed.
#[tokio::test(flavor = "multi_thread")]
async fn no_url_is_lost_when_single_nodes_are_killed() -> anyhow::Result<()> {
    let Some(urls) = urls() else {
        println!("skipped: ../shared/data/urls.txt is missing");
        return Ok(());
    };
    let mut cluster = Cluster::start(ClusterOptions::default()).await?;
    let (load, writers) = start_load(&mut cluster, &urls).await?;
    acknowledged(&load, urls.len() / 4).await?;
    cluster.kill(1).await?;
    acknowledged(&load, urls.len() / 2).await?;
    cluster.restart(1).await?;
    finish(writers).await?;

    let shortener = cluster.start_shortener().await?;
    let all = load.acknowledged.lock().expect("no test panics here").clone();
    ensure!(all.len() == urls.len(), "every URL is acknowledged in the end");
    let reading = tokio::spawn(read_back(shortener, all));
    cluster.kill(2).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.restart(2).await?;
    let (lost, wrong) = reading.await??;
    report("single nodes killed", &load, &lost, &wrong)
}

/// All nodes are killed at the same instant during the load, and restarted.
#[tokio::test(flavor = "multi_thread")]
async fn no_url_is_lost_when_all_nodes_are_killed_at_once() -> anyhow::Result<()> {
    let Some(urls) = urls() else {
        println!("skipped: ../shared/data/urls.txt is missing");
        return Ok(());
    };
    let mut cluster = Cluster::start(ClusterOptions::default()).await?;
    let (load, writers) = start_load(&mut cluster, &urls).await?;
    acknowledged(&load, urls.len() / 2).await?;
    cluster.kill_all().await?;
    for number in 1..=cluster.len() {
        cluster.restart(number).await?;
    }
    finish(writers).await?;

    let shortener = cluster.start_shortener().await?;
    let all = load.acknowledged.lock().expect("no test panics here").clone();
    ensure!(all.len() == urls.len(), "every URL is acknowledged in the end");
    let (lost, wrong) = read_back(shortener, all).await?;
    report("all nodes killed together", &load, &lost, &wrong)
}
