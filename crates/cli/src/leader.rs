//! Asking the leader of the topology group: it alone knows what there is and takes what changes it.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tonic::{Code, Response, Status};

use crate::admin::{self, Client};
use crate::args::Connect;
use crate::failure::{Exit, Failure};
use crate::operation::refused;
use crate::survey::Survey;

/// Who does not answer.
pub(crate) const LEADER: &str = "the leader of the topology group";
/// The pause before everything is asked again.
const AGAIN: Duration = Duration::from_millis(250);

/// How long may still be asked.
struct Patience<'a> {
    connect: &'a Connect,
    end: Instant,
}

impl<'a> Patience<'a> {
    fn of(connect: &'a Connect) -> Self {
        Patience { connect, end: Instant::now() + connect.deadline }
    }

    fn left(&self) -> Connect {
        Connect { deadline: self.end.saturating_duration_since(Instant::now()), ..self.connect.clone() }
    }

    /// Waits before the next round; false: there is no time for one.
    async fn pauses(&self) -> bool {
        let goes_on = Instant::now() + AGAIN < self.end;
        if goes_on {
            sleep(AGAIN).await;
        }
        goes_on
    }
}

/// Asks for something that changes nothing. While another leader is being elected, it is waited for as long as the deadline allows.
/// Gives the survey that it was found by, too.
pub(crate) async fn ask<T>(
    connect_to: &Connect,
    cannot: &str,
    ask: impl AsyncFn(Client) -> Result<Response<T>, Status>,
) -> Result<(T, Survey), Failure> {
    let patience = Patience::of(connect_to);
    let mut last = None;
    loop {
        let left = patience.left();
        let survey = match Survey::take(&left).await {
            Ok(survey) => survey,
            // What was in the way before says more than that there was no time left.
            Err(failure) => return Err(last.unwrap_or(failure)),
        };
        let failure = match connect(&left, &survey).await {
            Err(failure) => failure,
            Ok(node) => match admin::timely(LEADER, patience.left().deadline, ask(node)).await {
                Ok(answer) => return Ok((answer.into_inner(), survey)),
                Err(status) => match refused(cannot.to_owned(), &status) {
                    failure if failure.exit() != Exit::Unreachable || status.code() == Code::Aborted => failure,
                    _ => lost(&status),
                },
            },
        };
        if failure.exit() != Exit::Unreachable || !patience.pauses().await {
            return Err(failure);
        }
        last = Some(failure);
    }
}

/// Asks for a change of the cluster: the leader, or the other nodes, which pass it on. One that says that it has begun nothing, because
/// it starts, stops, or another one leads, is not the last word: the others are asked, and all of them again as long as the deadline
/// allows. Nodes that were removed or are cut off are not asked: they would find nobody to pass it on to.
pub(crate) async fn change<T>(
    connect_to: &Connect,
    ask: impl AsyncFn(Client) -> Result<Response<T>, Status>,
) -> Result<Result<T, Status>, Failure> {
    let patience = Patience::of(connect_to);
    let mut declined = None;
    loop {
        let survey = match Survey::take(&patience.left()).await {
            Ok(survey) => survey,
            Err(failure) => return declined.map_or(Err(failure), |status| Ok(Err(status))),
        };
        for address in addresses(&survey) {
            match admin::connect(address, patience.left().deadline).await {
                // Nothing was sent.
                Err(status) => declined = Some(Status::aborted(status.message())),
                Ok(node) => match admin::timely("the node that was asked", patience.left().deadline, ask(node)).await {
                    Err(status) if status.code() == Code::Aborted => declined = Some(status),
                    answer => return Ok(answer.map(Response::into_inner)),
                },
            }
        }
        if !patience.pauses().await {
            return Ok(
                Err(declined.unwrap_or_else(|| Status::aborted("no node that can be reached hears the others"))),
            );
        }
    }
}

/// Whom to ask for a change, in order.
fn addresses(survey: &Survey) -> Vec<&str> {
    let leader = survey.claims_to_lead(0);
    let able = survey.nodes.iter().filter(|(node, status)| status.is_some() && !survey.is_cut_off(node.id));
    let mut able: Vec<_> = able.map(|(node, _)| node).collect();
    able.sort_by_key(|node| Some(node.id) != leader);
    able.into_iter().map(|node| node.client_address.as_str()).collect()
}

/// A connection to it.
pub(crate) async fn connect(connect: &Connect, survey: &Survey) -> Result<Client, Failure> {
    let leader = survey.claims_to_lead(0).and_then(|id| survey.nodes.iter().find(|(node, _)| node.id == id));
    let Some((leader, _)) = leader else {
        return Err(Failure::new(Exit::Unreachable, "nobody leads the topology group just now")
            .hint("most of its nodes may be down: quorate status"));
    };
    admin::connect(&leader.client_address, connect.deadline).await.map_err(|status| lost(&status))
}

fn lost(status: &Status) -> Failure {
    Failure::new(Exit::Unreachable, "the leader of the topology group does not answer").cause(status.message())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::survey::tests::survey;

    /// A node that was cut off was asked because it was named first, found nobody to pass the change on to, and nobody knew
    /// what had become of it.
    #[test]
    fn the_leader_is_asked_first_and_one_that_is_cut_off_never() {
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
