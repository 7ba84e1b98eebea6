//! Every fault that the harness reports is real: a cut stops packets, a power cut loses what was not synced, and so on.
//!
//! The tests need root and a binary of the store; where something is missing they say so and count as skipped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_jepsen::cluster::{Abilities, Clocks, Cluster, Options, binary};
use quorate_jepsen::nemesis::{Fault, Journal, Nemesis, Outcome};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Every fault once: made, seen, healed.
#[tokio::test(flavor = "multi_thread")]
async fn tour() -> anyhow::Result<()> {
    let dir = tempfile::tempdir_in("/tmp/ft")?.keep();
    let mut options = Options::new(&dir)?;
    options.clocks = Clocks::Wall;
    let cluster = Arc::new(Cluster::start(options).await?);
    let start = Instant::now();
    let journal = Arc::new(Journal::create(&dir.join("nemesis.jsonl"), start)?);
    let nemesis = Arc::new(Nemesis::new(cluster.clone(), journal));
    let wanted = std::env::var("FAULTS").unwrap_or("all".into());
    let runtime = cluster.client_runtime(1)?;
    let endpoints = cluster.endpoints();
    let load = runtime.spawn(async move {
        let client = quorate_client::Client::builder()
            .endpoints(endpoints)
            .deadline(Duration::from_secs(5))
            .connect()
            .await
            .unwrap();
        for n in 0.. {
            let _ = client.put(format!("load-{}", n % 1000), "x".repeat(1000)).await;
        }
    });
    let mut rng = StdRng::seed_from_u64(7);
    for fault in Fault::parse_list(&wanted).unwrap() {
        let t = Instant::now();
        match nemesis.install(fault, &mut rng).await {
            Outcome::Installed(active) => {
                let hold = active.lasts().unwrap_or(Duration::from_secs(1));
                let i = t.elapsed();
                tokio::time::sleep(hold).await;
                let t = Instant::now();
                let healed = nemesis.heal(active).await;
                println!("{fault}: install {i:?} heal {:?} {healed:?}", t.elapsed());
            }
            Outcome::Skipped { why } => println!("{fault}: skipped {why}"),
            Outcome::Indeterminate { why } => println!("{fault}: INDETERMINATE {why}"),
        }
        let t = Instant::now();
        println!("   settle {:?} in {:?}", nemesis.settle().await, t.elapsed());
    }
    load.abort();
    println!("verify {:?}", cluster.verify().await?.equal);
    for finding in nemesis.findings() {
        println!("FINDING {finding:#?}");
    }
    cluster.dismantle().await?;
    runtime.shutdown_background();
    println!("{}", std::fs::read_to_string(dir.join("nemesis.jsonl"))?);
    Ok(())
}
