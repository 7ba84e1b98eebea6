//! Election time-outs of one replica.
//!
//! openraft's own timers are off: 256 cores that each look at a clock would be most of the CPU of
//! an idle node. Instead one task per node (`campaigner`) checks all replicas and tells openraft
//! when to campaign; openraft asks for pre-votes first.
//!
//! ```text
//!   last contact ── lease ──┬─ rank × STAGGER + jitter ─→ campaigns ── RETRY + jitter ─→ campaigns
//!                           └ no voter votes for another candidate before this: the leader may
//!                             be alive
//! ```
//!
//! The remaining voters take turns by rank, which follows from group and replica: two of them
//! rarely campaign at the same moment, and the groups of a failed node are spread over all
//! survivors.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use quorate_types::{GroupId, NodeId, ReplicaId, Role};
use tokio::time::Instant;

use crate::soft_state::SoftState;

/// Extra wait per rank: longer than a pre-vote and a vote with their syncs usually take.
const STAGGER: Duration = Duration::from_millis(100);
/// The shortest pause before the second try. Jitter adds up to as much again, so that rivals fall
/// out of step.
const RETRY: Duration = Duration::from_millis(100);
/// How often the pause doubles at most: a try needs more time where slow disks delay the votes.
const RETRY_DOUBLINGS_MAX: u32 = 2;
/// A leader counts as lost after this many leases without contact.
const LOST_LEASES: u32 = 4;

/// Decides when one replica campaigns. Pure: the caller passes the time.
///
/// # Invariants
/// * No campaign before `votes_from`.
/// * The first campaign after a contact waits at least for the lease, unless the replica is the
///   only voter.
pub(crate) struct Election {
    node: NodeId,
    group: GroupId,
    replica: ReplicaId,
    lease: Duration,
    votes_from: Instant,
    silence: Mutex<Silence>,
}

/// The time since the last contact, and the campaigns in it. A contact is an accepted message of a
/// leader, or a vote given.
#[derive(Default)]
struct Silence {
    last_contact: Option<Instant>,
    /// When a replica without any contact could first have campaigned.
    waits_since: Option<Instant>,
    tries: u32,
    last_try: Option<Instant>,
}

impl Election {
    pub(crate) fn new(node: NodeId, group: GroupId, replica: ReplicaId, lease: Duration, votes_from: Instant) -> Self {
        Election { node, group, replica, lease, votes_from, silence: Mutex::default() }
    }

    /// The moment from which this replica votes and campaigns. A restarted replica has forgotten
    /// which leader it promised to wait for, so it waits for the longest lease there is.
    pub(crate) fn votes_from(&self) -> Instant {
        self.votes_from
    }

    /// Records a contact: the replica followed a leader's message, or voted for a candidate.
    pub(crate) fn contact(&self, now: Instant) {
        *self.silence() = Silence { last_contact: Some(now), ..Silence::default() };
    }

    /// Whether the last contact was recent. An isolated replica keeps believing in the leader it
    /// knew, because it would have to win a pre-vote to learn of another one.
    pub(crate) fn has_contact(&self, now: Instant) -> bool {
        self.silence().last_contact.is_some_and(|contact| now < contact + self.lease * LOST_LEASES)
    }

    /// Whether to campaign now; true counts as a try.
    pub(crate) fn is_due(&self, now: Instant, soft_state: &SoftState) -> bool {
        if soft_state.role == Role::Leader {
            self.contact(now);
            return false;
        }
        if !soft_state.is_voter {
            return false;
        }
        let mut silence = self.silence();
        let due = match silence.last_try {
            Some(last_try) => {
                let pause = RETRY * (1 << (silence.tries - 1).min(RETRY_DOUBLINGS_MAX));
                last_try + pause.mul_f64(1.0 + self.jitter(silence.tries))
            }
            None => {
                let waits_since = *silence.waits_since.get_or_insert(now);
                let alone = soft_state.voters.len() == 1;
                let from = match silence.last_contact {
                    Some(contact) if !alone => contact + self.lease,
                    _ => waits_since,
                };
                from.max(self.votes_from) + if alone { Duration::ZERO } else { self.stagger(soft_state) }
            }
        };
        if now < due {
            return false;
        }
        assert!(now >= self.votes_from, "no campaign while the promise to an earlier leader may hold");
        silence.tries += 1;
        silence.last_try = Some(now);
        true
    }

    /// The wait by rank among the voters other than the lost leader.
    fn stagger(&self, soft_state: &SoftState) -> Duration {
        let mut rivals: Vec<NodeId> =
            soft_state.voters.iter().copied().filter(|v| Some(*v) != soft_state.leader).collect();
        rivals.sort_unstable();
        let Some(place) = rivals.iter().position(|rival| *rival == self.node) else { return Duration::ZERO };
        let rank = (place + self.group.0 as usize) % rivals.len();
        STAGGER.mul_f64(rank as f64 + self.jitter(0) / 4.0)
    }

    /// From 0 to 1; differs between the replicas of a group and from try to try. A hash is enough:
    /// only rivals must differ.
    fn jitter(&self, tries: u32) -> f64 {
        // splitmix64 (Steele, Lea, Flood 2014) of a number that no two replicas share.
        let mut z = (self.replica.0 ^ (u64::from(tries) << 48)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn silence(&self) -> MutexGuard<'_, Silence> {
        self.silence.lock().expect("only a broken invariant poisons this lock")
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
            transferred_term: None,
        }
    }

    /// The campaigns of a replica without contact, in ms after `start`.
    fn campaigns(election: &Election, start: Instant, soft_state: &SoftState, until: u64) -> Vec<u64> {
        (0..until).filter(|at| election.is_due(start + ms(*at), soft_state)).collect()
    }

    #[test]
    fn survivors_take_turns_after_the_lease() {
        let start = Instant::now();
        for group in 0..8 {
            let soft_state = follower(&[1, 2, 3], Some(1));
            let firsts = [2, 3].map(|node| {
                let election = Election::new(NodeId(node), GroupId(group), ReplicaId(100 + node), LEASE, start);
                election.contact(start);
                campaigns(&election, start, &soft_state, 2_000)[0]
            });
            assert!(firsts.iter().all(|first| *first >= 550), "{firsts:?}");
            let (early, late) = (firsts[0].min(firsts[1]), firsts[0].max(firsts[1]));
            assert!(early < 580 && (650..680).contains(&late), "{firsts:?}");
            assert_eq!(firsts[0] < firsts[1], group % 2 == 0, "the first turn depends on the group");
        }
    }

    #[test]
    fn contact_postpones_a_campaign_and_a_leader_never_campaigns() {
        let start = Instant::now();
        let election = Election::new(NodeId(2), GroupId(1), ReplicaId(7), LEASE, start);
        let soft_state = follower(&[1, 2, 3], Some(1));
        for beat in 0..20 {
            election.contact(start + ms(beat * 150));
            assert!(!election.is_due(start + ms(beat * 150 + 149), &soft_state));
        }
        let leader = SoftState { role: Role::Leader, ..soft_state.clone() };
        assert!(!election.is_due(start + ms(100_000), &leader));
        assert!(!election.is_due(start + ms(100_001), &soft_state), "deposed a moment ago");
        let learner = SoftState { is_voter: false, ..soft_state };
        assert!(!election.is_due(start + ms(900_000), &learner));
    }

    #[test]
    fn contact_lasts_for_four_leases() {
        let start = Instant::now();
        let election = Election::new(NodeId(2), GroupId(1), ReplicaId(7), LEASE, start);
        assert!(!election.has_contact(start));
        election.contact(start);
        assert!(election.has_contact(start + ms(2_199)));
        assert!(!election.has_contact(start + ms(2_200)));
    }

    #[test]
    fn restarted_replica_waits_for_its_earlier_promise_and_a_new_one_does_not() {
        let start = Instant::now();
        let soft_state = follower(&[1, 2, 3], None);
        let restarted = Election::new(NodeId(1), GroupId(3), ReplicaId(7), LEASE, start + LEASE);
        assert!(campaigns(&restarted, start, &soft_state, 2_000)[0] >= 550);
        let new = Election::new(NodeId(1), GroupId(3), ReplicaId(7), LEASE, start);
        assert!(campaigns(&new, start, &soft_state, 2_000)[0] < 250);
        let alone = Election::new(NodeId(1), GroupId(2), ReplicaId(8), LEASE, start);
        assert_eq!(campaigns(&alone, start, &follower(&[1], None), 10)[0], 0, "a single voter needs no votes");
    }

    #[test]
    fn failed_rivals_fall_out_of_step() {
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
