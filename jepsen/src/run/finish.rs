//! The steps after healing: availability, final reads, convergence, state hashes, and the nodes'
//! logs.

use std::path::Path;
use std::sync::Arc;

use super::clients::Clients;
use super::failure::failed;
use super::finale::{self, Hashes};
use super::progress::progress;
use super::shorteners;
use super::subject::Subject;
use crate::report::{Check, Outcome};

/// Checks the cluster when all faults are healed. A step that fails does not prevent the others.
pub(super) async fn finish(subject: &Subject, clients: &Arc<Clients>, dir: &Path) -> Vec<Check> {
    const AVAILABILITY: &str = "availability after healing";
    progress("waiting until every shard serves");
    let client = clients.connections[0].clone();
    let serving = subject.clients().spawn(async move { finale::serving(&client, finale::SERVING_MAX).await }).await;
    let available = match serving {
        Ok(Ok(())) => Check::pass(AVAILABILITY, "every shard accepts writes"),
        Ok(Err(error)) => return vec![Check::new(AVAILABILITY, Outcome::Violation, format!("{error:#}"))],
        Err(error) => return vec![failed(AVAILABILITY, &error)],
    };
    progress("final reads");
    let reads = final_reads(subject, clients, dir).await.unwrap_or_else(|error| failed("final reads", &error));
    progress("convergence and state hashes");
    let converged = convergence(subject, clients).await.unwrap_or_else(|error| failed("convergence", &error));
    vec![available, reads, converged, hashes(subject).await]
}

async fn final_reads(subject: &Subject, clients: &Arc<Clients>, dir: &Path) -> anyhow::Result<Check> {
    // New processes have no caches: their answers come from the cluster.
    let fresh = shorteners::for_workloads(subject, &clients.workloads, dir).await?;
    *clients.shorteners.lock().expect("only a broken invariant poisons this lock") = Arc::clone(&fresh.addresses);
    let reading = Arc::clone(clients);
    let reads = subject.clients().spawn(async move { finale::final_reads(&reading).await }).await?;
    Ok(match reads.unread.first() {
        None => Check::pass("final reads", format!("{} keys", reads.read)),
        Some(first) => {
            let (unread, all) = (reads.unread.len(), reads.read + reads.unread.len());
            let detail = format!("{unread} of {all} keys cannot be read, such as {first}");
            Check::new("final reads", Outcome::Violation, detail)
        }
    })
}

async fn convergence(subject: &Subject, clients: &Arc<Clients>) -> anyhow::Result<Check> {
    let converging = Arc::clone(clients);
    let apart = subject.clients().spawn(async move { finale::converge(&converging).await }).await?;
    Ok(match apart.first() {
        None => Check::pass("convergence", "eventual reads return the values of strong reads"),
        Some(first) => {
            let detail = format!("{} keys do not converge, such as {first}", apart.len());
            Check::new("convergence", Outcome::Violation, detail)
        }
    })
}

async fn hashes(subject: &Subject) -> Check {
    const NAME: &str = "state hashes";
    let binary = match subject.binary() {
        Ok(binary) => binary.to_owned(),
        Err(error) => return Check::new(NAME, Outcome::Unknown, error.to_string()),
    };
    match finale::hashes(|| subject.command(), &subject.endpoints).await {
        Ok(Hashes::Equal(shards)) => Check::pass(NAME, format!("all replicas of {shards} shards are equal")),
        Ok(Hashes::Differ(which)) => Check::new(NAME, Outcome::Violation, which),
        Ok(Hashes::Unknown(why)) => Check::new(NAME, Outcome::Unknown, why),
        Err(error) => Check::new(NAME, Outcome::HarnessFailure, format!("{}: {error:#}", binary.display())),
    }
}

/// Checks that no node, shortener or client panicked, and that no node ended by itself. A fault
/// that ends a node restarts it when it is healed.
pub(super) fn processes(subject: &Subject, dir: &Path, mut wrong: Vec<String>) -> Check {
    wrong.extend(subject.died());
    for log in subject.logs.iter().chain([&shorteners::log_file(dir)]) {
        let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
        let name = log.file_name().unwrap_or_default().to_string_lossy().into_owned();
        wrong.extend(finale::panics(&text).into_iter().map(|line| format!("{name}: {line}")));
    }
    match wrong.is_empty() {
        true => Check::pass("processes", format!("no panic in {} logs, and every node runs", subject.logs.len())),
        false => Check::new("processes", Outcome::Violation, wrong.join("; ")),
    }
}
