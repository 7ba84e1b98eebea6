//! One run, from its seed to its verdict.

use std::sync::Arc;
use std::time::Duration;

use quorate_control::Proposed;
use quorate_control::proposer::propose_here;
use quorate_testpoints::Bug;
use quorate_types::topology::Command;
use tokio_util::task::AbortOnDropHandle;

use crate::client::Worker;
use crate::connection::router;
use crate::counts::{Count, Totals};
use crate::scenario::{Scenario, Stream};
use crate::violations::Violation;
use crate::world::World;
use crate::{dead, faults, heal, invariants, lives, panics, product_log};

/// How long the cluster may take to be bootstrapped while nothing goes wrong.
const BOOTSTRAP_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the bootstrap is tried.
const BOOTSTRAP_RETRY_PAUSE: Duration = Duration::from_millis(50);
/// The stack of a run's thread.
const STACK_BYTES: usize = 8 << 20;

/// The seeded defects that a run can have. The others need a disk or a wire.
pub const BUGS: [Bug; 15] = [
    Bug::AckBeforeSync,
    Bug::VoteNotSynced,
    Bug::ReadUnconfirmed,
    Bug::SessionTableOff,
    Bug::PurgePastFlush,
    Bug::SnapshotUnverified,
    Bug::WipedKeepsIdentity,
    Bug::RetryWithNewStamp,
    Bug::UnknownReportedAsFailed,
    Bug::StampUsedTwice,
    Bug::DestroyBeforeSuccessorVotes,
    Bug::FinishMoveBeforeCommit,
    Bug::JoiningReplicaStartsGroup,
    Bug::DoubtfulTakesPart,
    Bug::RemoveDeadIgnoresPings,
];

/// How a seed is run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Keeps the trace in words, not only its digest.
    pub keep_trace: bool,
    /// How long faults last. By default the seed decides.
    pub chaos: Option<Duration>,
    /// A seeded defect that the run has, one of [`BUGS`]. Needs a build with the feature `bugs` of
    /// `quorate_testpoints`.
    pub bug: Option<Bug>,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The scenario drawn from the seed, as text.
    pub scenario: String,
    /// A digest of all events in order: equal in two runs of a seed.
    pub digest: u64,
    /// The trace in words, if it was kept.
    pub trace: Vec<String>,
    /// Violations of the product's promises; empty after a correct run.
    pub violations: Vec<String>,
    /// The simulated duration of the run.
    pub simulated: Duration,
    /// Counts of the events in the run.
    pub totals: Totals,
}

/// Runs a seed on a thread of its own, so that tokio's thread-local state is fresh in every run.
pub fn run(seed: u64, options: &Options) -> Outcome {
    let options = options.clone();
    let thread = std::thread::Builder::new().name(format!("seed {seed}")).stack_size(STACK_BYTES);
    let run = thread.spawn(move || run_here(seed, &options)).expect("the system has room for a thread");
    run.join().unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().cloned();
        let what = what.or_else(|| panic.downcast_ref::<&str>().map(|what| (*what).to_owned())).unwrap_or_default();
        Outcome {
            seed,
            scenario: String::new(),
            digest: 0,
            trace: Vec::new(),
            violations: vec![format!("the run panicked: {what}")],
            simulated: Duration::ZERO,
            totals: Totals::default(),
        }
    })
}

fn run_here(seed: u64, options: &Options) -> Outcome {
    panics::watch();
    assert!(options.bug.is_none_or(|bug| BUGS.contains(&bug)), "the simulation has no such defect: {options:?}");
    options.bug.into_iter().for_each(Bug::switch_on_for_thread);
    quorate_raft::simulate(Stream::Raft.seed(seed));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing of the system");
    runtime.block_on(simulate(seed, options))
}

async fn simulate(seed: u64, options: &Options) -> Outcome {
    let scenario = Scenario::draw(seed, options.chaos);
    let described = scenario.describe();
    let world = World::new(scenario, options.keep_trace).expect("there is room for a directory");
    let _log = product_log::follow(world.trace.clone());
    let _network = spawned(world.network.clone().run());
    let _observer = spawned(invariants::run(world.clone()));
    world.node_ids().into_iter().for_each(|id| lives::start(&world, id));
    let mut undecided = 0;
    tokio::select! {
        biased;
        () = a_little_after(world.violations.first()) => {}
        lived = live(&world) => match lived {
            Ok(()) => undecided = heal::judge(&world),
            Err(Violation(what)) => world.violation(what),
        },
    }
    panics::seen().into_iter().for_each(|what| world.violation(format!("a task panicked: {what}")));
    let mut totals = world.counts.totals();
    let [answered, unknown, failed] = world.history.counts();
    totals.set(Count::Answered, answered);
    totals.set(Count::Unknown, unknown);
    totals.set(Count::Failed, failed);
    totals.set(Count::Undecided, undecided);
    totals.set(Count::SnapshotsRefused, world.network.snapshots_refused());
    let (digest, events, trace) = world.trace.end();
    totals.set(Count::Events, events);
    Outcome {
        seed,
        scenario: described,
        digest,
        trace,
        violations: world.violations.list(),
        simulated: world.trace.now(),
        totals,
    }
}

fn spawned(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

/// Returns 100 ms after a violation: the trace then includes its immediate consequences.
async fn a_little_after(violated: impl Future<Output = ()>) {
    violated.await;
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Bootstraps a cluster, runs it under faults, and checks its recovery.
async fn live(world: &Arc<World>) -> Result<(), Violation> {
    let bootstrapped = tokio::time::timeout(BOOTSTRAP_TIMEOUT, bootstrap(world)).await;
    bootstrapped.map_err(|_| Violation(format!("not bootstrapped within {} s", BOOTSTRAP_TIMEOUT.as_secs())))?;
    world.trace.event("bootstrapped");
    let clients = clients(world);
    let faults = spawned(faults::run(world.clone()));
    tokio::time::sleep(world.scenario.chaos).await;
    drop(faults);
    heal::heal_all(world);
    heal::serves(world).await?;
    drop(clients);
    heal::settles(world).await?;
    dead::check(world).await?;
    heal::read_everything(world).await;
    Ok(())
}

/// Starts one client beside each node, so that a cut leaves clients on both sides of it, and one
/// that reaches every node during every cut. Each has a reader and at least one worker; at least
/// one has two workers, which share its router and so its sessions.
fn clients(world: &Arc<World>) -> Vec<AbortOnDropHandle<()>> {
    let clients = world.scenario.shape.nodes + 1;
    let workers = world.scenario.workers;
    assert!(workers > clients, "a client has two workers");
    let routers: Vec<_> = (0..clients).map(|client| router(world, client)).collect();
    let worker = |number: u64| {
        let rng = Stream::Worker(number).rng(world.scenario.seed);
        let client = usize::try_from(number % clients).expect("there are few clients");
        Worker::new(world.clone(), routers[client].clone(), rng)
    };
    let working = (0..workers).map(|number| spawned(worker(number).work()));
    let reading = (workers..workers + clients).map(|number| spawned(worker(number).watch()));
    working.chain(reading).collect()
}

/// Proposes the bootstrap command to the topology group and waits until a replica of every shard
/// knows its arc. The nodes open the shards' replicas themselves.
async fn bootstrap(world: &World) {
    let command = Command::Bootstrap(world.bootstrap.clone(), world.shards.clone());
    while !is_bootstrapped(world, &command).await {
        tokio::time::sleep(BOOTSTRAP_RETRY_PAUSE).await;
    }
    let knows_its_arc = |shard| {
        world.members().iter().filter_map(|member| member.shard(shard)).any(|group| group.replica().head().epoch > 0)
    };
    while !world.shards.iter().all(|shard| knows_its_arc(shard.id)) {
        tokio::time::sleep(BOOTSTRAP_RETRY_PAUSE).await;
    }
}

/// Proposes the first command at every node, as an initial node of a real cluster does.
async fn is_bootstrapped(world: &World, command: &Command) -> bool {
    for member in world.members() {
        if let Ok(Proposed::Outcome(outcome)) = propose_here(&member.plane, command).await {
            return !matches!(outcome, quorate_types::topology::Outcome::Refused(_));
        }
    }
    false
}
