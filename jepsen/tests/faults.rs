//! Every fault that the harness reports is real: a cut stops packets, a power cut loses what was not synced, and so on.

use quorate_jepsen::cluster::{Cluster, Options};

#[tokio::test(flavor = "multi_thread")]
async fn smoke() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let t = std::time::Instant::now();
    let cluster = Cluster::start(Options::new(dir.path())?).await?;
    println!("started {:?} {:?}", t.elapsed(), cluster.leaders().await);
    let t = std::time::Instant::now();
    cluster.power_cut(&[1, 2, 3, 4, 5]).await?;
    println!("cut {:?}", t.elapsed());
    cluster.start_all(&[1, 2, 3, 4, 5]).await?;
    cluster.wait_until_serving(std::time::Duration::from_secs(20)).await?;
    println!("back {:?} {:?}", t.elapsed(), cluster.leaders().await);
    println!("{:?}", cluster.verify().await?.equal);
    cluster.pause(1).await?;
    cluster.resume(1)?;
    let t = std::time::Instant::now();
    println!("{:?}", cluster.stop_all().await?);
    println!("stopped {:?}", t.elapsed());
    let t = std::time::Instant::now();
    cluster.dismantle().await?;
    println!("gone {:?}", t.elapsed());
    Ok(())
}
