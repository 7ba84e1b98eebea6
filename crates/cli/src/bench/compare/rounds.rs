//! The rounds of a comparison: each load on each of the clusters.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use rand::seq::SliceRandom as _;

use super::contender::Contender;
use super::plan::{Load, Measurement, Plan};
use super::ratios::{Comparison, Pair};
use crate::failure::Failure;

/// The most measurements that may fail in one comparison; one more ends it.
const FAILURES_MAX: u32 = 10;

/// The measurements of a comparison so far.
pub(super) struct Rounds<'a> {
    plan: &'a Plan,
    complete: u32,
    failed: u32,
    /// The loads and ratios of the complete rounds.
    pairs: Vec<(Load, Pair)>,
}

impl<'a> Rounds<'a> {
    pub(super) fn new(plan: &'a Plan) -> Self {
        Rounds { plan, complete: 0, failed: 0, pairs: Vec::new() }
    }

    /// The number of complete rounds.
    pub(super) fn complete(&self) -> u32 {
        self.complete
    }

    /// Measures until all rounds are complete or `stop` is ready. The contenders are in the order
    /// old, old again, new.
    pub(super) async fn measure(
        &mut self,
        contenders: &[Contender],
        stop: &mut Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), Failure> {
        let each = self.plan.warm_up + Duration::from_secs(self.plan.seconds);
        let all = each * self.plan.rounds * contenders.len() as u32 * Load::all().count() as u32;
        tell!("{} rounds: about {} minutes", self.plan.rounds, all.as_secs().div_ceil(60));
        while self.complete < self.plan.rounds {
            let mut pairs = Vec::new();
            for load in Load::all() {
                tell!("round {} of {}: {load}", self.complete + 1, self.plan.rounds);
                let measured = tokio::select! {
                    measured = measure_each(self.plan, contenders, load) => measured,
                    () = stop.as_mut() => return Ok(()),
                };
                match measured {
                    Ok(all) => pairs.push((load, Pair::new(&all))),
                    Err(failure) => self.failed(load, failure)?,
                }
            }
            self.pairs.append(&mut pairs);
            self.complete += 1;
        }
        Ok(())
    }

    /// Leaves a load out of this round. Returns an error after more than [`FAILURES_MAX`] failures.
    fn failed(&mut self, load: Load, failure: Failure) -> Result<(), Failure> {
        self.failed += 1;
        if self.failed > FAILURES_MAX {
            return Err(failure);
        }
        tell!("left out of this round: {load}: {failure}");
        Ok(())
    }

    /// The comparison of each load that was measured in at least one round.
    pub(super) fn compare(&self) -> Vec<Comparison> {
        let of = |load: Load| self.pairs.iter().filter(move |(other, _)| *other == load).map(|(_, pair)| *pair);
        Load::all().filter_map(|load| Comparison::new(load.to_string(), of(load).collect())).collect()
    }
}

/// Measures a load on each cluster, in random order, so that a trend of the machine favours none of
/// them.
async fn measure_each(plan: &Plan, contenders: &[Contender], load: Load) -> Result<Vec<Measurement>, Failure> {
    let mut order: Vec<usize> = (0..contenders.len()).collect();
    order.shuffle(&mut rand::rng());
    let mut measured = Vec::new();
    for number in order {
        measured.push((number, contenders[number].measure(plan, load).await?));
    }
    measured.sort_by_key(|(number, _)| *number);
    Ok(measured.into_iter().map(|(_, measurement)| measurement).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    #[test]
    fn a_comparison_whose_measurements_keep_failing_ends() {
        let plan = Plan { rounds: 7, seconds: 5, warm_up: Duration::ZERO, value_bytes: 1, keys: 1 };
        let mut rounds = Rounds::new(&plan);
        let failure = || Failure::new(Exit::Other, "cannot measure");
        for _ in 0..FAILURES_MAX {
            rounds.failed(Load::FIRST, failure()).unwrap();
        }
        assert!(rounds.failed(Load::FIRST, failure()).is_err());
        assert!(rounds.compare().is_empty());
    }
}
