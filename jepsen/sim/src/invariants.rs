//! Raft's invariants, as far as an observer can see them. They are checked periodically during the
//! run, on the current data, the durable data and the status of every node.
//!
//! ```text
//!   log matching         entries with one id have one content and one predecessor
//!   state machine safety an index is committed once; replicas that applied the same entry have
//!                        the same state
//!   leader completeness  entries committed under an earlier vote are in every later leader's log
//!   durability           committed entries are durable on a majority of the voters
//!   voters               a voter's data are never destroyed (`voters`)
//!   promises             granted votes and acknowledged entries are durable (`promise`)
//!   order                purged <= flushed <= applied; durable data suffice for a restart
//!   doubt                only a replica whose disk lost entries is doubtful, and stays so
//!   monotonic            durable votes and durable applied indexes never go back
//! ```
//!
//! A vote here is a term and a candidate. Within a term, a candidate with a larger id may become
//! leader after one with a smaller id (openraft's `leader_id_adv`). "One leader a term" therefore
//! holds for the pair; log matching covers it, because every entry's id contains the pair.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use quorate_machine::log::{Log, LogState, MemoryLog};
use quorate_machine::state::{MemoryState, State, View, meta};
use quorate_machine::state_hash;
use quorate_types::state::Head;
use quorate_types::{Entry, GroupId, LogId, Membership, NodeId, Payload, ReplicaId, Role};

use crate::counts::Count;
use crate::violations::Violation;
use crate::voters::Voters;
use crate::world::World;

/// How often the invariants are checked.
const PERIOD: Duration = Duration::from_millis(25);
/// One in this many checks also compares the states of the replicas.
const CHECKS_PER_STATE: u64 = 8;

/// Checks until it is aborted.
pub(crate) async fn run(world: Arc<World>) {
    let mut observer =
        Observer { world, groups: BTreeMap::new(), replicas: BTreeMap::new(), voters: Voters::default(), round: 0 };
    loop {
        tokio::time::sleep(PERIOD).await;
        observer.check();
    }
}

/// The state of all groups and replicas as observed so far.
struct Observer {
    world: Arc<World>,
    groups: BTreeMap<GroupId, KnownGroup>,
    replicas: BTreeMap<ReplicaId, KnownReplica>,
    voters: Voters,
    round: u64,
}

/// A vote: its term and its candidate.
type Ballot = (u64, ReplicaId);

#[derive(Default)]
struct KnownGroup {
    leaders: BTreeSet<Ballot>,
    /// Every observed entry: the digest of its payload, and the id of the entry before it.
    entries: BTreeMap<LogId, (u64, Option<LogId>)>,
    committed: BTreeMap<u64, Committed>,
    /// Observed memberships, by the id of their entry.
    memberships: BTreeMap<LogId, Membership>,
    /// The state after each applied entry.
    states: BTreeMap<LogId, u128>,
}

#[derive(Clone, Copy)]
struct Committed {
    id: LogId,
    /// The smallest vote under which the entry was seen committed.
    under: Ballot,
    /// The entry was seen durable on a majority.
    durable: bool,
}

#[derive(Default)]
struct KnownReplica {
    life: u64,
    applied: Option<LogId>,
    durable_vote: (u64, ReplicaId, bool),
    durable_applied: Option<LogId>,
    snapshots: u64,
    purged: Option<LogId>,
    doubtful: bool,
}

/// A replica with its data on disk.
struct Found {
    node: NodeId,
    replica: ReplicaId,
    life: u64,
    log: Arc<MemoryLog>,
    state: Arc<MemoryState>,
    now: LogState,
    durable: LogState,
    head: Head,
    durable_head: Head,
    /// Its disk lost durable entries.
    damaged: bool,
}

impl Observer {
    fn check(&mut self) {
        self.round += 1;
        self.world.counts.one(Count::Checks);
        let found = self.find();
        let mut wrong = self.world.network.broken_promises();
        wrong.extend(self.voters.check(&self.world).err().map(|Violation(what)| what));
        for (group, replicas) in &found {
            wrong.extend(self.check_group(*group, replicas));
        }
        wrong.extend(self.check_leaders(&found));
        wrong.into_iter().for_each(|what| self.world.violation(what));
    }

    /// The replicas on the disks of all nodes, by group.
    fn find(&self) -> BTreeMap<GroupId, Vec<Found>> {
        let mut found: BTreeMap<GroupId, Vec<Found>> = BTreeMap::new();
        for (node, known) in self.world.nodes().iter() {
            for (replica, group) in known.log.replicas() {
                let Ok(now) = known.log.state(replica) else { continue };
                found.entry(group).or_default().push(Found {
                    node: *node,
                    replica,
                    // A node that is down counts as a life of its own.
                    life: 2 * known.lives + u64::from(known.member.is_some()),
                    log: known.log.clone(),
                    state: known.state.clone(),
                    now,
                    durable: known.log.durable_state(replica).unwrap_or_default(),
                    head: head(&mut |read| known.state.view(read), replica),
                    durable_head: head(&mut |read| known.state.view_durable(read), replica),
                    damaged: known.damaged.contains(&replica),
                });
            }
        }
        found
    }

    fn check_group(&mut self, group: GroupId, replicas: &[Found]) -> Vec<String> {
        let mut wrong = Vec::new();
        let known = self.groups.entry(group).or_default();
        for found in replicas {
            let seen = self.replicas.entry(found.replica).or_default();
            if let Err(what) = known.look_at(found, seen) {
                wrong.push(format!("group {group}, replica {} on node {}: {what}", found.replica, found.node));
            }
            if found.durable.doubtful && !seen.doubtful {
                self.world.counts.one(Count::Doubtful);
                seen.doubtful = true;
            }
            if found.now.purged > seen.purged {
                self.world.counts.one(Count::Purges);
                seen.purged = found.now.purged;
            }
        }
        if let Err(what) = known.check_durable(replicas) {
            wrong.push(format!("group {group}: {what}"));
        }
        if self.round.is_multiple_of(CHECKS_PER_STATE)
            && let Err(what) = known.compare_states(replicas)
        {
            wrong.push(format!("group {group}: {what}"));
        }
        wrong
    }

    /// Checks the leaders that were not seen before, and counts leaders and installed snapshots.
    fn check_leaders(&mut self, found: &BTreeMap<GroupId, Vec<Found>>) -> Vec<String> {
        let mut wrong = Vec::new();
        for member in self.world.members() {
            for status in member.groups().statuses() {
                let known = self.groups.entry(status.group).or_default();
                let seen = self.replicas.entry(status.replica).or_default();
                if status.snapshots_installed > seen.snapshots {
                    self.world.counts.add(Count::Snapshots, status.snapshots_installed - seen.snapshots);
                }
                seen.snapshots = status.snapshots_installed;
                if status.role != Role::Leader {
                    continue;
                }
                let of_group = found.get(&status.group).into_iter().flatten();
                let leader = of_group.filter(|found| found.node == member.node).find(|f| f.replica == status.replica);
                let Some(leader) = leader else { continue };
                match known.new_leader(status.term, leader) {
                    Ok(true) => {
                        self.world.counts.one(Count::Leaders);
                        let what = format!("n{} leads g{} in term {}", member.node, status.group, status.term);
                        self.world.trace.event(&what);
                    }
                    Ok(false) => {}
                    Err(what) => wrong.push(format!("group {}: {what}", status.group)),
                }
            }
        }
        wrong
    }
}

type Viewing<'a> = &'a mut dyn FnMut(
    &mut dyn FnMut(&dyn View) -> Result<(), quorate_machine::state::StateError>,
) -> Result<(), quorate_machine::state::StateError>;

fn head(view: Viewing<'_>, replica: ReplicaId) -> Head {
    let mut head = Head::default();
    view(&mut |view| {
        head = meta::head(view, replica)?;
        Ok(())
    })
    .expect("a state in memory can be read");
    head
}

fn digest(entry: &Entry) -> u64 {
    let mut hasher = DefaultHasher::new();
    match &entry.payload {
        Payload::Blank => hasher.write_u8(0),
        Payload::Normal(proposal) => hasher.write(&proposal.0),
        Payload::Membership(members) => hasher.write(format!("{members:?}").as_bytes()),
    }
    hasher.finish()
}

fn index(id: Option<LogId>) -> u64 {
    id.map_or(0, |id| id.index + 1)
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation(what())) }
}

impl KnownGroup {
    fn look_at(&mut self, found: &Found, seen: &mut KnownReplica) -> Result<(), Violation> {
        let Found { now, durable, head, durable_head, damaged, .. } = found;
        ensure(*damaged || !durable.doubtful, || "it is doubtful, although its disk lost nothing".to_owned())?;
        ensure(durable.doubtful || !seen.doubtful, || "it was doubtful, and is trusted again".to_owned())?;
        // The data that survive a crash must suffice to start from.
        ensure(index(durable.purged) <= index(durable_head.applied), || {
            format!(
                "the log is durably purged up to {:?}, the state durable up to {:?}",
                durable.purged, durable_head.applied
            )
        })?;
        ensure(index(now.purged) <= index(head.applied), || {
            format!("purged {:?}, applied {:?}", now.purged, head.applied)
        })?;
        ensure(durable_head.applied <= head.applied, || {
            format!("durable up to {:?}, applied {:?}", durable_head.applied, head.applied)
        })?;
        let vote = durable.vote.map_or((0, ReplicaId(0), false), |vote| (vote.term, vote.candidate, vote.committed));
        ensure(vote.0 >= seen.durable_vote.0, || {
            format!("the vote went back from {:?} to {vote:?}", seen.durable_vote)
        })?;
        ensure(vote.0 > seen.durable_vote.0 || seen.durable_vote.0 == 0 || vote.1 >= seen.durable_vote.1, || {
            format!("two votes in a term: {:?} and {vote:?}", seen.durable_vote)
        })?;
        seen.durable_vote = vote;
        ensure(durable_head.applied >= seen.durable_applied, || {
            format!("durably applied {:?}, before {:?}", durable_head.applied, seen.durable_applied)
        })?;
        seen.durable_applied = durable_head.applied;
        if found.life == seen.life {
            ensure(head.applied >= seen.applied, || format!("applied {:?}, before {:?}", head.applied, seen.applied))?;
        }
        let already = if found.life == seen.life { seen.applied } else { None };
        (seen.life, seen.applied) = (found.life, head.applied);
        self.look_at_log(found, already)
    }

    /// Checks the entries above those that were applied at the last check.
    fn look_at_log(&mut self, found: &Found, already: Option<LogId>) -> Result<(), Violation> {
        let from = index(already).max(index(found.now.purged));
        let entries = found
            .log
            .entries(found.replica, from..u64::MAX, usize::MAX)
            .map_err(|error| Violation(error.to_string()))?;
        let mut before = None;
        for entry in &entries {
            let says = digest(entry);
            let (known, after) = *self.entries.entry(entry.id).or_insert((says, before));
            ensure(known == says, || format!("entry {} differs from the entry of another replica", entry.id))?;
            if before.is_some() && after.is_some() {
                ensure(before == after, || {
                    format!("entry {} follows {before:?} here and {after:?} elsewhere", entry.id)
                })?;
            }
            before = Some(entry.id);
            if let Payload::Membership(members) = &entry.payload {
                self.memberships.entry(entry.id).or_insert_with(|| members.clone());
            }
            if found.head.applied.is_some_and(|applied| entry.id.index <= applied.index) {
                self.commit(entry.id, found)?;
            }
        }
        found.head.applied.map_or(Ok(()), |applied| self.commit(applied, found))
    }

    fn commit(&mut self, id: LogId, found: &Found) -> Result<(), Violation> {
        let under = found.now.vote.map_or((id.term, id.leader), |vote| (vote.term, vote.candidate));
        let known = self.committed.entry(id.index).or_insert(Committed { id, under, durable: false });
        known.under = known.under.min(under);
        ensure(known.id == id, || format!("applied {id} where {} was applied elsewhere", known.id))
    }

    /// Checks that applied entries are durable on a majority of the voters, under the membership of
    /// the entry or under a later one.
    fn check_durable(&mut self, replicas: &[Found]) -> Result<(), Violation> {
        let has = |voter: ReplicaId, id: LogId| {
            replicas.iter().any(|found| {
                found.replica == voter
                    && (index(found.durable.purged) > id.index
                        || found.durable_head.applied >= Some(id)
                        || found.log.durable_id(voter, id.index) == Some(id))
            })
        };
        // A membership that a later leader overwrote never counted.
        let stands = |place: &LogId| self.committed.get(&place.index).is_none_or(|committed| committed.id == *place);
        let memberships: Vec<_> = self.memberships.iter().filter(|(place, _)| stands(place)).collect();
        for committed in self.committed.values_mut().filter(|committed| !committed.durable) {
            let at = memberships.iter().rev().find(|(place, _)| place.index <= committed.id.index);
            let later = memberships.iter().filter(|(place, _)| place.index > committed.id.index);
            let mut candidates = at.into_iter().chain(later).map(|(_, members)| members).peekable();
            if candidates.peek().is_none() {
                continue;
            }
            let quorum = |voters: &BTreeSet<ReplicaId>| {
                voters.iter().filter(|voter| has(**voter, committed.id)).count() > voters.len() / 2
            };
            committed.durable = candidates.any(|members| members.voters.iter().all(quorum));
            ensure(committed.durable, || {
                format!("entry {} was applied, and is durable on no majority of the voters", committed.id)
            })?;
        }
        Ok(())
    }

    /// Checks the log of a new leader. True if the leader was not seen before.
    fn new_leader(&mut self, term: u64, leader: &Found) -> Result<bool, Violation> {
        let ballot = (term, leader.replica);
        if !self.leaders.insert(ballot) {
            return Ok(false);
        }
        let from = index(leader.now.purged);
        let entries = leader
            .log
            .entries(leader.replica, from..u64::MAX, usize::MAX)
            .map_err(|error| Violation(error.to_string()))?;
        let own: BTreeMap<u64, LogId> = entries.iter().map(|entry| (entry.id.index, entry.id)).collect();
        for committed in self.committed.range(from..).map(|(_, committed)| committed) {
            let there = own.get(&committed.id.index);
            ensure(committed.under >= ballot || there == Some(&committed.id), || {
                format!(
                    "replica {} leads in term {term} without entry {}, which was committed under {:?}; it has {there:?}",
                    leader.replica, committed.id, committed.under
                )
            })?;
        }
        Ok(true)
    }

    /// Checks that replicas with the same last applied entry have the same state.
    fn compare_states(&mut self, replicas: &[Found]) -> Result<(), Violation> {
        for found in replicas {
            let mut hash = None;
            let viewed = found.state.view(&mut |view| {
                hash = Some(state_hash(view, found.replica)?);
                Ok(())
            });
            viewed.map_err(|error| Violation(error.to_string()))?;
            let Some(hash) = hash else { continue };
            let Some(applied) = hash.head.applied else { continue };
            let known = *self.states.entry(applied).or_insert(hash.hash);
            ensure(known == hash.hash, || {
                format!(
                    "replica {} on node {} applied up to {applied} and has another state",
                    found.replica, found.node
                )
            })?;
        }
        Ok(())
    }
}
