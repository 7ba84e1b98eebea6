//! Bad input gets a clear error that names the next step, with its own exit code or status. Nothing
//! panics, and no data is lost.

use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use quorate_tests::{Cluster, ClusterOptions, HttpClient, quorate, run_cli};

const OTHER: i32 = 1;
const USAGE: i32 = 2;
const UNREACHABLE: i32 = 3;
const REFUSED: i32 = 6;
const ABSENT: i32 = 11;
const DATA_FORMAT: i32 = 65;
const LOCKED: i32 = 73;
const CONFIGURATION: i32 = 78;

fn small() -> ClusterOptions {
    ClusterOptions { shards: 2, ..ClusterOptions::default() }
}

/// Checks the exit code, that stderr contains each of `words`, and that the process did not panic.
fn expect(output: &Output, code: i32, words: &[&str]) -> anyhow::Result<()> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(code), "expected exit {code}, got {:?}: {stderr}", output.status.code());
    ensure!(!stderr.contains("panicked"), "the process panicked: {stderr}");
    for word in words {
        ensure!(stderr.to_lowercase().contains(&word.to_lowercase()), "'{word}' is missing: {stderr}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_values_and_flags_are_checked() -> anyhow::Result<()> {
    let cluster = Cluster::start(small()).await?;
    let endpoints = cluster.endpoints();
    let long_key = "k".repeat(4097);
    expect(&run_cli(&endpoints, &["kv", "put", "", "value"]).await?, USAGE, &["key", "empty"])?;
    expect(&run_cli(&endpoints, &["kv", "get", &long_key]).await?, USAGE, &["4097", "4096"])?;
    expect(&run_cli(&endpoints, &["kv", "get", "key", "--read", "sideways"]).await?, USAGE, &["strong", "eventual"])?;
    expect(&run_cli(&endpoints, &["kv", "get", "key", "--read", "lease"]).await?, USAGE, &["not built"])?;
    expect(&run_cli(&endpoints, &["kv", "get", "key", "--no-such-flag"]).await?, USAGE, &["--no-such-flag"])?;
    expect(&run_cli(&endpoints, &["kv", "get", "never-written"]).await?, ABSENT, &[])?;
    expect(&run_cli("127.0.0.1:1", &["kv", "get", "key", "--deadline", "2s"]).await?, UNREACHABLE, &["127.0.0.1:1"])?;

    let large = cluster.data_dir(1).with_extension("large");
    std::fs::write(&large, vec![b'v'; (1 << 20) + 1])?;
    let mut command = quorate()?;
    command.env("QUORATE_ENDPOINTS", &endpoints).args(["kv", "put", "key", "-"]).stdin(std::fs::File::open(&large)?);
    expect(&command.output().await?, USAGE, &["1048576"])?;

    expect(&run_cli(&endpoints, &["kv", "put", "key", "one", "--if-absent"]).await?, 0, &[])?;
    expect(&run_cli(&endpoints, &["kv", "put", "key", "two", "--if-absent"]).await?, REFUSED, &["version"])?;
    expect(&run_cli(&endpoints, &["kv", "put", "key", "two", "--if-version", "999999"]).await?, REFUSED, &["version"])?;
    expect(&run_cli(&endpoints, &["kv", "put", "key", "two", "--if-value", "other"]).await?, REFUSED, &["version"])?;
    expect(&run_cli(&endpoints, &["kv", "put", "key", "two", "--if-value", "one"]).await?, 0, &[])?;
    // If stderr cannot be written, the exit code is still the one of the error, not of a panic.
    let mut command = quorate()?;
    command.env("QUORATE_ENDPOINTS", &endpoints).args(["kv", "put", "key", "three", "--if-absent"]);
    let unread = command.stderr(std::fs::File::create("/dev/full")?).status().await?;
    ensure!(unread.code() == Some(REFUSED), "with a full stderr: {unread}");
    let get = run_cli(&endpoints, &["kv", "get", "key"]).await?;
    ensure!(String::from_utf8_lossy(&get.stdout).contains("two"), "the last conditional write was applied: {get:?}");
    Ok(())
}

/// A node has three ports. The error of a client at the wrong one names the port for clients.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_port_is_named_in_the_error() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(ClusterOptions { nodes: 1, ..small() }).await?;
    let shortener = cluster.start_shortener().await?;
    for port in [cluster.peer(1), cluster.ops(1), shortener] {
        let words = [port.as_str(), "client port"];
        let init = ["cluster", "init", "--nodes", &port, "--replicas", "1", "--shards", "1"];
        for arguments in [&["kv", "get", "key"][..], &["kv", "put", "key", "v"], &["status"], &["node", "list"], &init]
        {
            let output = run_cli(&port, arguments).await?;
            expect(&output, UNREACHABLE, &words).with_context(|| format!("{arguments:?} at {port}"))?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bootstrap_is_idempotent_and_refuses_another_set_of_nodes() -> anyhow::Result<()> {
    let cluster = Cluster::start_nodes(small()).await?;
    let all = cluster.endpoints();
    let two = format!("{},{}", cluster.endpoint(1), cluster.endpoint(2));
    let init = |nodes: String, replicas: &'static str, shards: &'static str| async move {
        let first = nodes.split(',').next().unwrap_or_default().to_owned();
        let arguments = ["cluster", "init", "--nodes", &nodes, "--replicas", replicas, "--shards", shards];
        run_cli(&first, &arguments).await
    };
    expect(&init(two.clone(), "3", "2").await?, USAGE, &["3", "2"])?;
    // A node outside a cluster fails fast.
    let began = Instant::now();
    let get = run_cli(&cluster.endpoint(1), &["kv", "get", "key", "--deadline", "2s"]).await?;
    expect(&get, UNREACHABLE, &["cluster"])?;
    ensure!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());

    expect(&init(all.clone(), "3", "2").await?, 0, &[])?;
    expect(&init(all.clone(), "3", "2").await?, 0, &[])?;
    expect(&init(two, "1", "2").await?, REFUSED, &[])?;
    expect(&init(all, "3", "4").await?, REFUSED, &[])?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn data_directories_are_protected() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(small()).await?;
    let start = |dir: std::path::PathBuf, listen: [String; 3]| async move {
        let mut command = quorate()?;
        command.args(["node", "start", "--join", "127.0.0.1:1", "--data-dir"]).arg(dir);
        command.args(["--client-listen", &listen[0], "--peer-listen", &listen[1], "--ops-listen", &listen[2]]);
        let output = tokio::time::timeout(Duration::from_secs(30), command.output()).await??;
        anyhow::Ok(output)
    };
    let any = || ["127.0.0.1:0".to_owned(), "127.0.0.1:0".to_owned(), "127.0.0.1:0".to_owned()];
    let locked = start(cluster.data_dir(1).to_owned(), any()).await?;
    expect(&locked, LOCKED, &["process", "--data-dir"])?;
    let open =
        start(cluster.data_dir(1).with_extension("new"), ["0.0.0.0:0".to_owned(), any()[1].clone(), any()[2].clone()]);
    expect(&open.await?, CONFIGURATION, &["--insecure"])?;
    let busy =
        start(cluster.data_dir(1).with_extension("new"), [cluster.endpoint(1), any()[1].clone(), any()[2].clone()]);
    let busy = busy.await?;
    ensure!([OTHER, CONFIGURATION].contains(&busy.status.code().unwrap_or(-1)), "busy port: {busy:?}");
    ensure!(String::from_utf8_lossy(&busy.stderr).contains(&cluster.endpoint(1)), "busy port: {busy:?}");

    let format = cluster.data_dir(3).join("FORMAT");
    cluster.kill(3).await?;
    let old = std::fs::read_to_string(&format)?;
    let newer = old.replacen('1', "999", 1);
    ensure!(newer != old, "the format file has a version: {old}");
    std::fs::write(&format, newer)?;
    expect(&start(cluster.data_dir(3).to_owned(), any()).await?, DATA_FORMAT, &["999"])?;
    std::fs::write(&format, old)?;

    // A node without its log has lost its votes, so it must not start with an empty one.
    let (log, away) = (cluster.data_dir(3).join("log"), cluster.data_dir(3).with_extension("log-away"));
    std::fs::rename(&log, &away)?;
    expect(&start(cluster.data_dir(3).to_owned(), any()).await?, DATA_FORMAT, &["gone", "new one"])?;
    std::fs::rename(&away, &log)?;

    // The same holds if only the newest part is missing; RocksDB opens such a database without an
    // error.
    let mut newest = Vec::new();
    for file in std::fs::read_dir(&log)? {
        let file = file?.path();
        if file.extension().is_some_and(|extension| extension == "log") {
            std::fs::rename(&file, file.with_extension("away"))?;
            newest.push(file);
        }
    }
    ensure!(!newest.is_empty(), "the log database has a write-ahead log");
    expect(&start(cluster.data_dir(3).to_owned(), any()).await?, DATA_FORMAT, &["write-ahead log", "new one"])?;
    for file in newest {
        std::fs::rename(file.with_extension("away"), &file)?;
    }
    cluster.restart(3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn shortener_refuses_invalid_urls() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(small()).await?;
    let mut http = HttpClient::new(cluster.start_shortener().await?);
    let json = Some("application/json");
    let large = format!("{{\"long_url\":\"http://example.com/{}\"}}", "x".repeat(1 << 20));
    let cases: [Case; 8] = [
        ("POST", "/v1/urls", json, "{\"long_url\":\"not a url\"}", &[400, 422]),
        ("POST", "/v1/urls", json, "{\"long_url\":\"ftp://example.com/\"}", &[400, 422]),
        ("POST", "/v1/urls", json, "{\"long_url\":\"javascript:alert(1)\"}", &[400, 422]),
        ("POST", "/v1/urls", json, "this is not json", &[400]),
        ("POST", "/v1/urls", json, "{}", &[400, 422]),
        ("POST", "/v1/urls", json, &large, &[413]),
        ("DELETE", "/v1/urls", None, "", &[405]),
        ("GET", "/zzzzzzz", None, "", &[404]),
    ];
    for (method, path, content_type, body, statuses) in cases {
        // The server may close the connection without reading a refused body.
        let mut fresh = HttpClient::new(http_address(&cluster)?);
        let response = fresh.request(method, path, content_type.map(|kind| (kind, body))).await?;
        ensure!(statuses.contains(&response.status), "{method} {path}: {response:?}");
        let kind = response.content_type.unwrap_or_default();
        ensure!(kind.starts_with("application/problem+json"), "{method} {path}: content type {kind}");
    }
    let created = http.post("/v1/urls", "{\"long_url\":\"https://example.com/a?b=c#d\"}").await?;
    ensure!(created.status == 201, "{created:?}");
    let code =
        serde_json::from_str::<serde_json::Value>(&created.body)?["code"].as_str().unwrap_or_default().to_owned();
    ensure!(code.len() == 7 && code.chars().all(|c| c.is_ascii_alphanumeric()), "code {code:?}");
    let redirect = http.get(&format!("/{code}")).await?;
    ensure!(
        redirect.status == 302 && redirect.location.as_deref() == Some("https://example.com/a?b=c#d"),
        "{redirect:?}"
    );
    Ok(())
}

/// Method, path, content type, body, and the accepted statuses.
type Case<'a> = (&'a str, &'a str, Option<&'a str>, &'a str, &'a [u16]);

fn http_address(cluster: &Cluster) -> anyhow::Result<String> {
    cluster.shortener_address().map(str::to_owned).ok_or_else(|| anyhow::anyhow!("no shortener is running"))
}
