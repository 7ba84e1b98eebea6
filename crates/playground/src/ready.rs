//! The announcement that everything serves: a screen for people, the ready file for scripts.

use std::path::Path;

use serde::Serialize;

use crate::children::Children;
use crate::error::{Error, Kind};
use crate::home::replace;
use crate::layout::Layout;
use crate::spawn::node_name;
use crate::start::Started;

/// The contents of the ready file.
#[derive(Debug, Serialize)]
pub(crate) struct Ready {
    nodes: Vec<ReadyNode>,
    /// The shortener's base URL; null: no shortener.
    shortener: Option<String>,
}

#[derive(Debug, Serialize)]
struct ReadyNode {
    /// A string, as all ids in our JSON: many readers lose digits of 64-bit numbers.
    id: String,
    client: String,
    peer: String,
    ops: String,
    pid: Option<u32>,
    data_dir: String,
}

impl Ready {
    pub(crate) fn of(layout: &Layout, started: &Started, children: &Children) -> Self {
        let nodes = layout.nodes.iter().zip(&started.node_ids).enumerate().map(|(number, (node, &id))| ReadyNode {
            id: id.to_string(),
            client: node.client.clone(),
            peer: node.peer.clone(),
            ops: node.ops.clone(),
            pid: children.id(&node_name(number)),
            data_dir: node.data_dir.display().to_string(),
        });
        Ready { nodes: nodes.collect(), shortener: layout.shortener.as_deref().map(url) }
    }
}

fn url(address: &str) -> String {
    format!("http://{address}")
}

/// Writes the ready file atomically.
pub(crate) fn write(file: &Path, ready: &Ready) -> Result<(), Error> {
    let mut text = serde_json::to_string_pretty(ready).expect("strings and numbers are always JSON");
    text.push('\n');
    replace(file, &text)
}

/// Removes the ready file: the playground is not ready yet, or has stopped.
pub(crate) fn remove(file: &Path) -> Result<(), Error> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::new(Kind::Failed, format!("cannot remove the ready file {}", file.display())).why(error))
        }
        _ => Ok(()),
    }
}

/// The screen: addresses, and commands to try.
pub(crate) fn screen(layout: &Layout, started: &Started, temporary: bool) -> String {
    let Started { restarted, took, .. } = started;
    let home = layout.logs.parent().unwrap_or(&layout.logs).display();
    let mut text = format!(
        "\n✓ {} nodes, {} shards × {} replicas ready in {:.1} s{}        data: {home}{}\n\n",
        layout.nodes.len(),
        layout.shards,
        layout.replicas,
        took.as_secs_f64(),
        if *restarted { " (existing cluster restarted)" } else { "" },
        if temporary { " (removed on exit)" } else { "" },
    );
    let endpoints = layout.endpoints();
    text += &format!("  export QUORATE_ENDPOINTS={}\n", endpoints.join(","));
    if let Some(alias) = alias() {
        text += &format!("  {alias}\n");
    }
    text += &format!("  metrics    http://{}/metrics\n", layout.nodes[0].ops);
    text += &format!("  logs       {}\n\n", layout.logs.display());
    text += "  try:  quorate kv put hello world && quorate kv get hello\n";
    text += "        quorate status\n";
    if let Some(address) = &layout.shortener {
        text += &format!(
            "        curl -s {}/v1/urls -H 'content-type: application/json' -d '{{\"long_url\":\"https://www.rust-lang.org/\"}}'\n",
            url(address)
        );
    }
    text += "        quorate playground kill 2    then: quorate status; quorate playground start 2\n";
    if layout.proxied {
        text += "        quorate playground partition 1    then: quorate kv get hello --read eventual; quorate playground heal\n";
    }
    text += "        quorate playground add    then: quorate op list; quorate status\n\n";
    text += "  Ctrl-C stops everything; a second Ctrl-C kills it\n";
    if !layout.has_default_ports() {
        text += "  (these are not the default ports: export QUORATE_ENDPOINTS first)\n";
    }
    text
}

/// A shell alias for this program; none if it is on the PATH.
fn alias() -> Option<String> {
    let program = std::env::current_exe().ok()?;
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).any(|path| path.join("quorate").is_file());
    (!found).then(|| format!("alias quorate={}", program.display()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::layout::Shape;

    fn playground() -> (Layout, Started) {
        let shape = Shape { nodes: 3, shards: 16, port_base: 7100, added: 0 };
        let layout = Layout::new(Path::new("/p"), shape, Some(8080), true).unwrap();
        let started = Started { node_ids: vec![1, 2, 3], restarted: false, took: Duration::from_millis(1_900) };
        (layout, started)
    }

    #[test]
    fn the_ready_file_has_the_promised_shape() {
        let (layout, started) = playground();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ready.json");
        write(&file, &Ready::of(&layout, &started, &Children::default())).unwrap();
        let document: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let node = json!({
            "id": "2", "client": "127.0.0.1:7110", "peer": "127.0.0.1:7111", "ops": "127.0.0.1:7112",
            "pid": null, "data_dir": "/p/node-2",
        });
        assert_eq!(document["nodes"][1], node);
        assert_eq!(document["shortener"], "http://127.0.0.1:8080");
    }

    #[test]
    fn the_screen_has_addresses_and_commands_to_try() {
        let (layout, started) = playground();
        let screen = screen(&layout, &started, true);
        assert!(screen.contains("✓ 3 nodes, 16 shards × 3 replicas ready in 1.9 s        data: /p (removed on exit)"));
        assert!(screen.contains("export QUORATE_ENDPOINTS=127.0.0.1:7100,127.0.0.1:7110,127.0.0.1:7120"));
        assert!(screen.contains("curl -s http://127.0.0.1:8080/v1/urls"));
        assert!(screen.contains("quorate playground partition 1"));
        assert!(!screen.contains("not the default ports"));
    }
}
