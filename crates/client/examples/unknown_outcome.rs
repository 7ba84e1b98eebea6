//! Handles a write whose outcome is unknown: `unknown_outcome [ENDPOINTS]`.
//!
//! The client retries a write under one session stamp, so the cluster applies it at most once. If the
//! deadline passes while an attempt may still be applied, the error says so. Sending the write again
//! as a new one could apply it twice; reading the key shows whether it was applied.

use std::time::Duration;

use quorate_client::Client;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoints = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7100".to_owned());
    let client = Client::connect(&endpoints).await?;

    // A value that no other write uses tells this write apart from all others.
    let order = format!("order of process {}", std::process::id());
    match client.put("order", order.clone()).deadline(Duration::from_millis(50)).await {
        Ok(written) => println!("applied as version {}", written.value.version),
        Err(error) if error.may_have_applied() => {
            println!("unknown: {error}");
            let found = client.get("order").await?.value;
            let is_applied = found.is_some_and(|record| record.value.as_bytes() == order.as_bytes());
            // An absent order may still arrive for a short while: only a conditional write is safe now.
            println!("{}", if is_applied { "it was applied" } else { "it was not applied yet" });
        }
        Err(error) if error.is_retryable() => println!("certainly not applied, try again: {error}"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
