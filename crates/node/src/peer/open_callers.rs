//! Connections that stay open between calls of one kind.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_control::{PeerAddress, PeerError};

use super::client::PeerCaller;

/// Connections that stay open between calls of one kind: those calls are frequent. Clones share
/// them.
///
/// # Invariants
/// * Only connections to known nodes stay open (held by the test
///   `only_connections_to_known_nodes_stay_open`).
#[derive(Clone, Default)]
pub(super) struct OpenCallers(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    /// The nodes of the topology, at their present addresses.
    known: HashSet<PeerAddress>,
    /// `None`: a call uses the connection. It finds no entry when it ends if the connections were
    /// closed meanwhile.
    callers: HashMap<PeerAddress, Option<PeerCaller>>,
}

impl OpenCallers {
    /// The open connection to a node, or a new one. [`keep`](Self::keep) it after the call if it
    /// works.
    pub(super) async fn open(&self, to: &PeerAddress) -> Result<PeerCaller, PeerError> {
        match self.take(to) {
            Some(caller) => Ok(caller),
            None => PeerCaller::connect(&to.address).await,
        }
    }

    fn take(&self, to: &PeerAddress) -> Option<PeerCaller> {
        self.lock().callers.entry(to.clone()).or_default().take()
    }

    /// Keeps a connection open, unless the node left the topology or all connections were closed
    /// during the call.
    pub(super) fn keep(&self, to: &PeerAddress, caller: PeerCaller) {
        let mut table = self.lock();
        let Table { known, callers } = &mut *table;
        match callers.get_mut(to) {
            Some(place) if known.contains(to) => *place = Some(caller),
            _ => {}
        }
    }

    /// Adopts the nodes of a newer topology, and closes the connections to all others.
    pub(super) fn update(&self, known: HashSet<PeerAddress>) {
        let mut table = self.lock();
        table.callers.retain(|peer, _| known.contains(peer));
        table.known = known;
    }

    /// Closes all connections.
    pub(super) fn clear(&self) {
        self.lock().callers.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // A poisoned lock guards a whole table: entries are only inserted and removed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::NodeId;

    use super::*;

    /// A call that ended after its node had left the topology, or after the last round of the
    /// reconciler, used to leave its connection open.
    #[tokio::test]
    async fn only_connections_to_known_nodes_stay_open() {
        let peer = |node, address: &str| PeerAddress { node: NodeId(node), address: address.to_owned() };
        let (one, two) = (peer(1, "a:1"), peer(2, "b:1"));
        let known = |peers: &[&PeerAddress]| peers.iter().map(|&peer| peer.clone()).collect();
        let callers = OpenCallers::default();
        callers.update(known(&[&one, &two]));
        let call = |peer: &PeerAddress| {
            let open = callers.take(peer);
            (open.is_some(), open.unwrap_or_else(PeerCaller::unconnected))
        };

        for is_open in [false, true, true] {
            let (was_open, caller) = call(&one);
            assert_eq!(was_open, is_open);
            callers.keep(&one, caller);
        }
        let (_, caller) = call(&one);
        callers.update(known(&[&two]));
        callers.keep(&one, caller);
        assert!(!call(&one).0, "the node left during the call");
        callers.keep(&one, PeerCaller::unconnected());
        assert!(!call(&one).0, "the node had left before the call");

        let (_, caller) = call(&two);
        callers.keep(&two, caller);
        let successor = peer(3, "b:1");
        callers.update(known(&[&successor]));
        assert!(!call(&two).0, "another node has the address");
        callers.update(known(&[&two]));

        let (_, caller) = call(&two);
        callers.clear();
        callers.keep(&two, caller);
        assert!(!call(&two).0, "all connections were closed during the call");
    }
}
