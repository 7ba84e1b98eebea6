//! When a replica that hears from no leader campaigns.
//!
//! openraft could look at the clock in every core by itself, and that would be most of what an idle group costs. So one task a
//! node looks for all replicas (`run`), and openraft is told when to campaign; it asks for pre-votes first.
//!
//! ```text
//!   heard ──── lease ────┬─ rank × STAGGER + jitter ──→ campaigns ──── RETRY + jitter ──→ again …
//!                        └ until here nobody would vote for another: the leader may be alive
//! ```
//!
//! The voters that are left take turns by rank, which group and replica settle beforehand: two of them rarely campaign at the
//! same moment, and of a node's groups every survivor gets its share.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::join_all;
use quorate_types::{GroupId, NodeId, ReplicaId, Role};
use tokio::time::{Instant, MissedTickBehavior};

use crate::group::SoftState;
use crate::groups::Shared;

/// How often the node looks who hears from nobody.
const LOOK: Duration = Duration::from_millis(30);
/// What a rank waits longer than the one before it: longer than a pre-vote and a vote with their syncs usually take.
const STAGGER: Duration = Duration::from_millis(100);
/// The shortest pause before the second try; up to twice as long, so that rivals get out of step.
const RETRY: Duration = Duration::from_millis(100);
/// The pause doubles so often, at most: where votes take long because disks are slow, a try is given the time it needs.
const RETRY_DOUBLINGS_MAX: u32 = 2;

/// A leader of whom nothing was heard for so many leases is not heard of.
const SILENT_LEASES: u32 = 4;

/// Looks after all replicas of a node until the groups stop.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let now = Instant::now();
        join_all(shared.all().into_iter().filter_map(|replica| replica.campaign_if_due(now))).await;
    }
}

/// When one replica campaigns. Pure: the caller says what time it is.
///
/// # Invariants
/// * Never before `votes_from`, and never within `lease` of the last word of a leader.
pub(crate) struct Election {
    node: NodeId,
    group: GroupId,
    replica: ReplicaId,
    lease: Duration,
    votes_from: Instant,
    quiet: Mutex<Quiet>,
}

/// How long nothing was heard, and what was done about it.
#[derive(Default)]
struct Quiet {
    /// When a leader was executed, or a candidate got this replica's vote, for the last time.
    heard: Option<Instant>,
    /// Since when a replica that never heard of anybody could have campaigned.
    waits_since: Option<Instant>,
    tries: u32,
    tried: Option<Instant>,
}

impl Election {
    pub(crate) fn new(node: NodeId, group: GroupId, replica: ReplicaId, lease: Duration, votes_from: Instant) -> Self {
        Election { node, group, replica, lease, votes_from, quiet: Mutex::default() }
    }

    /// A leader was executed, or a candidate got this replica's vote.
    pub(crate) fn heard(&self, now: Instant) {
        *self.quiet() = Quiet { heard: Some(now), ..Quiet::default() };
    }

    /// Whether a leader was executed, or a vote given, not long ago. A replica that is cut off goes on believing in the leader that it
    /// knew: it would have to win a pre-vote to know better.
    pub(crate) fn hears(&self, now: Instant) -> bool {
        self.quiet().heard.is_some_and(|heard| now < heard + self.lease * SILENT_LEASES)
    }

    /// Whether to campaign now; a yes counts as a try.
    pub(crate) fn is_due(&self, now: Instant, soft_state: &SoftState) -> bool {
        if soft_state.role == Role::Leader {
            self.heard(now);
            return false;
        }
        if !soft_state.is_voter {
            return false;
        }
        let mut quiet = self.quiet();
        let due = match quiet.tried {
            Some(tried) => {
                let pause = RETRY * (1 << (quiet.tries - 1).min(RETRY_DOUBLINGS_MAX));
                tried + pause.mul_f64(1.0 + self.chance(quiet.tries))
            }
            None => {
                let waits_since = *quiet.waits_since.get_or_insert(now);
                let alone = soft_state.voters.len() == 1;
                let from = match quiet.heard {
                    Some(heard) if !alone => heard + self.lease,
                    _ => waits_since,
                };
                from.max(self.votes_from) + if alone { Duration::ZERO } else { self.stagger(soft_state) }
            }
        };
        if now < due {
            return false;
        }
        quiet.tries += 1;
        quiet.tried = Some(now);
        true
    }

    /// Which turn this replica has among the voters other than the leader that was lost.
    fn stagger(&self, soft_state: &SoftState) -> Duration {
        let mut rivals: Vec<NodeId> =
            soft_state.voters.iter().copied().filter(|v| Some(*v) != soft_state.leader).collect();
        rivals.sort_unstable();
        let Some(place) = rivals.iter().position(|rival| *rival == self.node) else { return Duration::ZERO };
        let rank = (place + self.group.0 as usize) % rivals.len();
        STAGGER.mul_f64(rank as f64 + self.chance(0) / 4.0)
    }

    /// From 0 to 1: differs between the replicas of a group, and from try to try. Needs no randomness: what matters is that
    /// rivals differ.
    fn chance(&self, tries: u32) -> f64 {
        // splitmix64 (Steele, Lea, Flood 2014), of numbers that no two replicas share.
        let mut z = (self.replica.0 ^ (u64::from(tries) << 48)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn quiet(&self) -> MutexGuard<'_, Quiet> {
        self.quiet.lock().expect("nobody panics while holding this lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_millis(550);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn follower(voters: &[u64], leader: Option<u64>) -> SoftState {
        SoftState {
            since: Instant::now(),
            role: Role::Follower,
            term: 1,
            leader: leader.map(NodeId),
            voters: voters.iter().copied().map(NodeId).collect(),
            is_voter: true,
        }
    }

    /// The first moments, in ms after `start`, at which a replica that hears nothing campaigns.
    fn campaigns(election: &Election, start: Instant, soft_state: &SoftState, until: u64) -> Vec<u64> {
        (0..until).filter(|at| election.is_due(start + ms(*at), soft_state)).collect()
    }

    #[test]
    fn nobody_campaigns_within_the_lease_and_then_the_survivors_take_turns() {
        let start = Instant::now();
        for group in 0..8 {
            let soft_state = follower(&[1, 2, 3], Some(1));
            let firsts = [2, 3].map(|node| {
                let election = Election::new(NodeId(node), GroupId(group), ReplicaId(100 + node), LEASE, start);
                election.heard(start);
                campaigns(&election, start, &soft_state, 2_000)[0]
            });
            assert!(firsts.iter().all(|first| *first >= 550), "{firsts:?}");
            let (early, late) = (firsts[0].min(firsts[1]), firsts[0].max(firsts[1]));
            assert!(early < 580 && (650..680).contains(&late), "{firsts:?}");
            assert_eq!(firsts[0] < firsts[1], group % 2 == 0, "turns go round with the group");
        }
    }

    #[test]
    fn a_leader_that_is_heard_puts_it_off_and_a_leader_itself_never_campaigns() {
        let start = Instant::now();
        let election = Election::new(NodeId(2), GroupId(1), ReplicaId(7), LEASE, start);
        let soft_state = follower(&[1, 2, 3], Some(1));
        for beat in 0..20 {
            election.heard(start + ms(beat * 150));
            assert!(!election.is_due(start + ms(beat * 150 + 149), &soft_state));
        }
        let leader = SoftState { role: Role::Leader, ..soft_state.clone() };
        assert!(!election.is_due(start + ms(100_000), &leader));
        assert!(!election.is_due(start + ms(100_001), &soft_state), "deposed a moment ago");
        let learner = SoftState { is_voter: false, ..soft_state };
        assert!(!election.is_due(start + ms(900_000), &learner));
    }

    #[test]
    fn a_leader_is_heard_of_for_some_leases() {
        let start = Instant::now();
        let election = Election::new(NodeId(2), GroupId(1), ReplicaId(7), LEASE, start);
        assert!(!election.hears(start));
        election.heard(start);
        assert!(election.hears(start + ms(2_199)));
        assert!(!election.hears(start + ms(2_200)));
    }

    #[test]
    fn a_restarted_replica_waits_for_the_promise_of_its_earlier_life_and_a_new_one_does_not() {
        let start = Instant::now();
        let soft_state = follower(&[1, 2, 3], None);
        let restarted = Election::new(NodeId(1), GroupId(3), ReplicaId(7), LEASE, start + LEASE);
        assert!(campaigns(&restarted, start, &soft_state, 2_000)[0] >= 550);
        let new = Election::new(NodeId(1), GroupId(3), ReplicaId(7), LEASE, start);
        assert!(campaigns(&new, start, &soft_state, 2_000)[0] < 250);
        let alone = Election::new(NodeId(1), GroupId(2), ReplicaId(8), LEASE, start);
        assert_eq!(campaigns(&alone, start, &follower(&[1], None), 10)[0], 0, "a single voter asks nobody");
    }

    #[test]
    fn rivals_that_failed_get_out_of_step() {
        let start = Instant::now();
        let soft_state = follower(&[1, 2, 3], None);
        let of = |replica: u64| {
            let election = Election::new(NodeId(1), GroupId(3), ReplicaId(replica), LEASE, start);
            campaigns(&election, start, &soft_state, 5_000)
        };
        let (one, other) = (of(11), of(12));
        let apart = one.iter().zip(&other).skip(1).filter(|(a, b)| a.abs_diff(**b) > 30).count();
        assert!(apart > 5, "{one:?} {other:?}");
        assert!(one.windows(2).all(|pair| (100..=800).contains(&(pair[1] - pair[0]))), "{one:?}");
    }
}
