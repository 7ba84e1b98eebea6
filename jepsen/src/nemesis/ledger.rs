//! The ledger of a run: active faults, the nodes that they affect, and the behaviour that no fault
//! explains.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::fault::{Class, Fault};
use super::injection::Injection;
use super::journal::{Journal, Line, Phase};
use super::refusal::Skip;
use crate::cluster::Cluster;

/// Behaviour of a node that no fault explains: a bug of the store.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The node.
    pub node: usize,
    /// The behaviour.
    pub what: String,
    /// The end of the node's log.
    pub log: String,
}

/// An active fault.
#[derive(Clone)]
pub(super) struct Hit {
    pub(super) fault: Fault,
    pub(super) targets: Vec<usize>,
    /// Nodes that cannot take part in a quorum while the fault lasts.
    pub(super) out: BTreeSet<usize>,
}

/// Active faults, affected nodes and findings.
#[derive(Default)]
pub(super) struct Records {
    last_id: u64,
    pub(super) active: BTreeMap<u64, Hit>,
    /// Nodes that a fault gave a reason to end by themselves.
    pub(super) excused: BTreeSet<usize>,
    /// Nodes whose disk was full since their last start: a write that failed then may end the node
    /// even after space was released.
    pub(super) filled: BTreeSet<usize>,
    /// Nodes whose disk may be damaged. If such a node refuses to start, it is replaced by a new
    /// one.
    pub(super) damaged: BTreeSet<usize>,
    /// Nodes that do not start on an undamaged disk. They stay down: their data is the evidence.
    pub(super) abandoned: BTreeSet<usize>,
    /// Nodes that are being given up as dead. No fault is installed meanwhile.
    judged: usize,
    pub(super) findings: Vec<Finding>,
}

/// Keeps faults from being installed until it is dropped.
pub(super) struct Truce<'a>(&'a Ledger);

impl Drop for Truce<'_> {
    fn drop(&mut self) {
        self.0.records().judged -= 1;
    }
}

impl Records {
    /// Whether a node is the target of an active fault, network faults aside.
    pub(super) fn is_hit(&self, node: usize) -> bool {
        let beyond_network = self.active.values().filter(|hit| hit.fault.class() != Class::Network);
        beyond_network.flat_map(|hit| &hit.targets).any(|target| *target == node)
    }

    /// Checks that the targets of a fault are still free: planning takes a while, and another fault
    /// may have taken one of them.
    fn check_still_free(&self, fault: Fault, targets: &[usize]) -> Result<(), Skip> {
        if self.judged > 0 {
            return Err(Skip::Judging);
        }
        if fault.destroys() {
            self.check_alone()?;
        }
        // These faults may share targets with other faults.
        if matches!(fault.class(), Class::Network | Class::Log) || fault == Fault::TransferLeaders {
            return Ok(());
        }
        match targets.iter().find(|node| self.is_hit(**node)) {
            Some(node) => Err(Skip::Taken(*node)),
            None => Ok(()),
        }
    }

    /// Checks that no active fault is destructive.
    pub(super) fn check_alone(&self) -> Result<(), Skip> {
        match self.active.values().find(|hit| hit.fault.destroys()) {
            Some(other) => Err(Skip::Destructive(other.fault)),
            None => Ok(()),
        }
    }

    /// The targets of all active faults.
    pub(super) fn targets(&self) -> BTreeSet<usize> {
        self.active.values().flat_map(|hit| hit.targets.iter().copied()).collect()
    }
}

/// The records of a run, shared by everything that installs and heals faults, and its journal.
pub(super) struct Ledger {
    cluster: Arc<Cluster>,
    journal: Arc<Journal>,
    records: Mutex<Records>,
}

impl Ledger {
    pub(super) fn new(cluster: Arc<Cluster>, journal: Arc<Journal>) -> Self {
        Ledger { cluster, journal, records: Mutex::default() }
    }

    pub(super) fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    pub(super) fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn new_id(&self) -> u64 {
        let mut records = self.records();
        records.last_id += 1;
        records.last_id
    }

    /// Records a fault as active, if its targets are still free.
    pub(super) fn reserve(&self, id: u64, hit: Hit) -> Result<(), Skip> {
        let mut records = self.records();
        records.check_still_free(hit.fault, &hit.targets)?;
        records.active.insert(id, hit);
        Ok(())
    }

    /// Installs no further fault until the result is dropped. The leader of the topology group
    /// judges whether a node is dead once it has been in office for 15 s, and a fault every few
    /// seconds would not leave it in office for so long.
    pub(super) fn truce(&self) -> Truce<'_> {
        self.records().judged += 1;
        Truce(self)
    }

    /// Records the possible effects of an injection on its targets. Returns the number of nodes
    /// that cannot take part in a quorum now.
    pub(super) fn mark(&self, injection: &Injection, targets: &[usize]) -> usize {
        let mut records = self.records();
        if injection.excuses() {
            records.excused.extend(targets);
        }
        if matches!(injection, Injection::DiskFull) {
            records.filled.extend(targets);
        }
        if injection.damages() {
            records.damaged.extend(targets);
        }
        let out: BTreeSet<usize> = records.active.values().flat_map(|hit| hit.out.iter().copied()).collect();
        out.len()
    }

    /// Withdraws the excuse of nodes that are neither the target of an active fault nor damaged: a
    /// damaged disk may show later, when the damaged part is read.
    pub(super) fn withdraw_excuse(&self, nodes: impl IntoIterator<Item = usize>) {
        let mut records = self.records();
        let hit = records.targets();
        for node in nodes {
            if !hit.contains(&node) && !records.damaged.contains(&node) {
                records.excused.remove(&node);
            }
        }
    }

    /// Whether a fault gave the node a reason to end by itself.
    pub(super) fn is_excused(&self, number: usize) -> bool {
        let (excused, filled) = {
            let records = self.records();
            (records.excused.contains(&number), records.filled.contains(&number))
        };
        excused || (filled && self.cluster.node(number).died_for_lack_of_space())
    }

    /// Writes a line about a fault to the journal.
    pub(super) fn note(&self, id: u64, fault: Fault, phase: Phase, hit: (&[usize], bool), detail: Value) {
        let ((targets, leaders_hit), fault) = (hit, fault.name());
        let nodes = targets.iter().filter_map(|place| self.cluster.node(*place).id()).collect();
        self.journal.write(Line { time: 0, id, fault, phase, targets: targets.to_vec(), nodes, leaders_hit, detail });
    }

    /// Records behaviour of a node that no fault explains, with the end of the node's log.
    pub(super) fn find(&self, number: usize, what: &str) {
        self.find_with_log(number, what, self.cluster.node(number).log_tail());
    }

    /// Records behaviour of a node that no fault explains, with an error that includes its log.
    pub(super) fn find_with_log(&self, number: usize, what: &str, log: String) {
        self.journal.write(Line {
            time: 0,
            id: 0,
            fault: "none".to_owned(),
            phase: Phase::Finding,
            targets: vec![number],
            nodes: self.cluster.node(number).id().into_iter().collect(),
            leaders_hit: false,
            detail: json!({ "what": what, "log": log }),
        });
        self.records().findings.push(Finding { node: number, what: what.to_owned(), log });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A power cut hit a node while a wiped disk was planned for it; the node had restarted before
    /// the wipe. Another time, a node was drained and wiped at the same time.
    #[test]
    fn a_node_is_the_target_of_one_fault_at_a_time() {
        let mut records = Records::default();
        let hit = |fault, node| Hit { fault, targets: vec![node], out: BTreeSet::new() };
        assert!(records.check_still_free(Fault::WipedDisk, &[4]).is_ok());
        records.active.insert(1, hit(Fault::PowerCutOne, 4));
        assert!(records.check_still_free(Fault::WipedDisk, &[4]).is_err());
        assert!(records.check_still_free(Fault::WipedDisk, &[3]).is_ok());
        assert!(records.check_still_free(Fault::PurgeLogs, &[4]).is_ok());
        records.active.insert(2, hit(Fault::Churn, 2));
        assert!(records.check_still_free(Fault::WipedDisk, &[3]).is_err());
        assert!(records.check_still_free(Fault::KillOne, &[3]).is_ok());
        records.active.clear();
        records.active.insert(3, hit(Fault::Loss, 4));
        assert!(records.check_still_free(Fault::KillOne, &[4]).is_ok());
        records.judged = 1;
        assert!(records.check_still_free(Fault::Loss, &[1]).is_err(), "a node is being given up as dead");
    }
}
