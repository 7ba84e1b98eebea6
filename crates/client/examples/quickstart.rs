//! Writes a key, and reads it at both levels: `quickstart [ENDPOINTS]`.

use quorate_client::{Client, ReadLevel};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoints = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7100".to_owned());
    let client = Client::connect(&endpoints).await?;

    // Durable on a majority of the shard's replicas when it returns.
    let put = client.put("greeting", "hello").await?;
    println!("wrote version {} in shard {}", put.value.version, put.by.shard);

    // Linearizable: sees every write that returned before it.
    let read = client.get("greeting").await?;
    if let Some(record) = read.value {
        println!("{} (version {})", String::from_utf8_lossy(record.value.as_bytes()), record.version);
    }

    // Served by the nearest replica, without a quorum. May be stale.
    let nearby = client.get("greeting").level(ReadLevel::Eventual).await?;
    println!("node {} ({}) answered", nearby.by.node, nearby.by.role);
    Ok(())
}
