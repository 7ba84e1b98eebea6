//! Requests to the leader of the topology group, which alone lists operations and accepts changes.

use std::time::{Duration, Instant};

use quorate_client::{AdminClient, AdminError, AdminErrorKind, admin};
use tokio::time::sleep;

use crate::admin_failure::{refused, unanswered};
use crate::connect::Connect;
use crate::failure::{Exit, Failure};
use crate::survey::Survey;

/// The pause before a retry.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// The rest of a command's deadline.
struct Remaining<'a> {
    connect: &'a Connect,
    end: Instant,
}

impl<'a> Remaining<'a> {
    fn of(connect: &'a Connect) -> Self {
        Remaining { connect, end: Instant::now() + connect.deadline }
    }

    fn left(&self) -> Connect {
        Connect { deadline: self.end.saturating_duration_since(Instant::now()), ..self.connect.clone() }
    }

    /// Waits before the next attempt; false: there is no time for one.
    async fn pause(&self) -> bool {
        let in_time = Instant::now() + RETRY_AFTER < self.end;
        if in_time {
            sleep(RETRY_AFTER).await;
        }
        in_time
    }
}

/// Sends the leader a query. Waits for the election of a leader until the deadline. Also returns
/// the survey that found the leader.
pub(crate) async fn ask<T>(
    connect_to: &Connect,
    cannot: &str,
    ask: impl AsyncFn(AdminClient, Duration) -> Result<T, AdminError>,
) -> Result<(T, Survey), Failure> {
    let remaining = Remaining::of(connect_to);
    let mut last = None;
    loop {
        let left = remaining.left();
        let survey = match Survey::take(&left).await {
            Ok(survey) => survey,
            // The failure of an earlier attempt says more than a deadline that has passed.
            Err(failure) => return Err(last.unwrap_or(failure)),
        };
        let failure = match connect(&left, &survey).await {
            Err(failure) => failure,
            Ok(node) => match ask(node, remaining.left().deadline).await {
                Ok(answer) => return Ok((answer, survey)),
                Err(error) => match error.kind {
                    AdminErrorKind::Unreachable | AdminErrorKind::Unanswered => lost(&error),
                    _ => refused(cannot, &error),
                },
            },
        };
        if failure.exit() != Exit::Unreachable || !remaining.pause().await {
            return Err(failure);
        }
        last = Some(failure);
    }
}

/// Sends a change of the cluster to the leader, or else to another node, which forwards it.
///
/// A node that certainly has not begun the change (it is starting, stopping, or does not lead) is
/// not the last word: the next node is tried, and all of them again until the deadline. Nodes that
/// are removed or cut off are skipped, because they cannot forward it.
pub(crate) async fn change<T>(
    connect_to: &Connect,
    cannot: &str,
    ask: impl AsyncFn(AdminClient, Duration) -> Result<T, AdminError>,
) -> Result<T, Failure> {
    let remaining = Remaining::of(connect_to);
    let mut declined = None;
    loop {
        let survey = match Survey::take(&remaining.left()).await {
            Ok(survey) => survey,
            Err(failure) => return Err(declined.unwrap_or(failure)),
        };
        for address in addresses(&survey) {
            let answer = match admin(address, remaining.left().deadline).await {
                Ok(node) => ask(node, remaining.left().deadline).await,
                Err(error) => Err(error),
            };
            let error = match answer {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let failure = unanswered(cannot, &error);
            match error.kind {
                AdminErrorKind::Unreachable | AdminErrorKind::NotLeader => declined = Some(failure),
                _ => return Err(failure),
            }
        }
        if !remaining.pause().await {
            return Err(declined.unwrap_or_else(|| {
                Failure::new(Exit::Unreachable, cannot)
                    .cause("no reachable node is connected to the cluster")
                    .hint("nothing was changed; try again")
            }));
        }
    }
}

/// The nodes to try for a change, the leader first.
fn addresses(survey: &Survey) -> Vec<&str> {
    let leader = survey.claims_to_lead(0);
    let able = survey.nodes.iter().filter(|(node, status)| status.is_some() && !survey.is_cut_off(node.id));
    let mut able: Vec<_> = able.map(|(node, _)| node).collect();
    able.sort_by_key(|node| Some(node.id) != leader);
    able.into_iter().map(|node| node.client_address.as_str()).collect()
}

/// Connects to the leader.
pub(crate) async fn connect(connect: &Connect, survey: &Survey) -> Result<AdminClient, Failure> {
    let leader = survey.claims_to_lead(0).and_then(|id| survey.nodes.iter().find(|(node, _)| node.id == id));
    let Some((leader, _)) = leader else {
        return Err(Failure::new(Exit::Unreachable, "the topology group has no leader")
            .hint("a majority of its nodes may be down: quorate status"));
    };
    admin(&leader.client_address, connect.deadline).await.map_err(|error| lost(&error))
}

fn lost(error: &AdminError) -> Failure {
    Failure::new(Exit::Unreachable, "the leader of the topology group is unreachable").cause(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::tests::survey;

    /// A node that is cut off cannot forward a change; it once was tried first, and the outcome was
    /// unknown.
    #[test]
    fn the_leader_is_tried_first_and_a_node_that_is_cut_off_never() {
        assert_eq!(addresses(&survey(&[])), ["127.0.0.1:7100", "127.0.0.1:7110", "127.0.0.1:7120"]);
        assert_eq!(addresses(&survey(&[1])), ["127.0.0.1:7110", "127.0.0.1:7120"]);
        let mut cut = survey(&[]);
        for report in &mut cut.nodes[1].1.as_mut().unwrap().replicas {
            report.leader = 0;
            report.role = quorate_proto::kv::Role::Follower.into();
        }
        assert_eq!(addresses(&cut), ["127.0.0.1:7100", "127.0.0.1:7120"]);
    }
}
