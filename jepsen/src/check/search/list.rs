//! The doubly linked list of invocations and returns that are not placed yet.

use super::plan::HEAD;

/// A circular list of the nodes of a [`Plan`](super::plan::Plan), in the order of their positions.
pub(super) struct List {
    next: Vec<u32>,
    previous: Vec<u32>,
}

impl List {
    /// Links this many nodes, the head among them.
    pub(super) fn new(nodes: usize) -> Self {
        let nodes = u32::try_from(nodes).expect("a history of one object has fewer than 2^32 events");
        List {
            next: (1..=nodes).map(|node| node % nodes).collect(),
            previous: (0..nodes).map(|node| (node + nodes - 1) % nodes).collect(),
        }
    }

    /// The node after this one. An unlinked node still knows the node that followed it.
    pub(super) fn next(&self, node: u32) -> u32 {
        self.next[node as usize]
    }

    /// Takes the invocation and the return of a call out of the list.
    pub(super) fn unlink(&mut self, (begin, end): (u32, u32)) {
        for node in [begin, end].into_iter().filter(|node| *node != HEAD) {
            let (previous, next) = (self.previous[node as usize], self.next[node as usize]);
            self.next[previous as usize] = next;
            self.previous[next as usize] = previous;
        }
    }

    /// Undoes the last `unlink` that is not undone yet.
    pub(super) fn relink(&mut self, (begin, end): (u32, u32)) {
        for node in [end, begin].into_iter().filter(|node| *node != HEAD) {
            let (previous, next) = (self.previous[node as usize], self.next[node as usize]);
            self.next[previous as usize] = node;
            self.previous[next as usize] = node;
        }
    }
}
