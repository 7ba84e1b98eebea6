//! Increments a counter with compare-and-set: `cas [ENDPOINTS]`. Run several at the same time.

use quorate_client::{Client, Error};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let endpoints = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7100".to_owned());
    let client = Client::connect(&endpoints).await?;
    let mut current = client.get("counter").await?.value;
    loop {
        let (version, count) = match &current {
            None => (0, 0),
            Some(record) => (record.version, std::str::from_utf8(record.value.as_bytes())?.parse::<u64>()?),
        };
        // Version 0 stands for an absent key.
        match client.put("counter", (count + 1).to_string()).if_version(version).await {
            Ok(_) => {
                println!("counter = {}", count + 1);
                return Ok(());
            }
            // Another client was faster. The refusal usually carries the current record.
            Err(Error::Refused { current: Some(record), .. }) => current = Some(record),
            Err(Error::Refused { current: None, .. }) => current = client.get("counter").await?.value,
            Err(error) => return Err(error.into()),
        }
    }
}
