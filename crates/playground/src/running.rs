//! A running playground executes requests: faults on its nodes, and their repair.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::future::join_all;
use quorate_types::NodeId;
use quorate_types::topology::NodeState;

use crate::children::Children;
use crate::control::{Answer, Done, Request};
use crate::error::{Error, Kind};
use crate::home::Home;
use crate::layout::{Layout, NODES_MAX, Shape};
use crate::links::Links;
use crate::probe;
use crate::spawn::{node_name, start_node};

/// How long a node may take to report its id. Short: a suspended node must not hold up a request.
const ID_DEADLINE: Duration = Duration::from_millis(500);
/// How long the nodes may take to return the topology.
const TOPOLOGY_DEADLINE: Duration = Duration::from_secs(2);
/// How long a restarted node is watched before the request is answered.
const WATCH_RESTART: Duration = Duration::from_secs(3);
/// Interval of the checks on a restarted node.
const CHECK_EVERY: Duration = Duration::from_millis(100);

/// A running playground.
///
/// # Invariants
/// * `ids`, the proxies of `links` and the nodes of `layout` have the same order.
pub(crate) struct Running {
    pub(crate) home: Home,
    pub(crate) layout: Layout,
    pub(crate) children: Children,
    /// The proxies; none: the nodes connect to each other directly.
    pub(crate) links: Option<Links>,
    shape: Shape,
    /// The ids that the cluster assigned to the nodes; none: not known yet.
    ids: Vec<Option<u64>>,
    paused: BTreeSet<usize>,
}

impl Running {
    /// A playground without processes.
    pub(crate) fn new(home: Home, shape: Shape, layout: Layout) -> Self {
        let ids = vec![None; layout.nodes.len()];
        let links = layout.proxied.then(Links::new);
        Running { home, layout, children: Children::default(), links, shape, ids, paused: BTreeSet::new() }
    }

    /// Sets the ids that the cluster assigned, in the order of the layout.
    pub(crate) fn set_ids(&mut self, ids: &[u64]) {
        assert_eq!(ids.len(), self.layout.nodes.len(), "one id for each node of the layout");
        self.ids = ids.iter().copied().map(Some).collect();
    }

    /// Executes a request. Call it on the main thread: it may start a child.
    pub(crate) async fn execute(&mut self, request: Request) -> Answer {
        self.update_ids().await;
        let mut added = None;
        let text = match request {
            Request::Add => {
                added = Some(self.add().await?);
                "a node was started".to_owned()
            }
            Request::Kill(id) => self.kill(id).await?,
            Request::Start(id) => self.start(id).await?,
            Request::Pause(id) => self.pause(id)?,
            Request::Resume(id) => self.resume(id)?,
            Request::Partition(ids) => self.partition(&ids)?,
            Request::Heal => self.heal(),
        };
        Ok(Done { text, endpoints: self.layout.endpoints(), added })
    }

    async fn add(&mut self) -> Result<String, Error> {
        let place = self.layout.nodes.len();
        if place >= NODES_MAX as usize {
            return Err(Error::new(Kind::Refused, format!("a playground has at most {NODES_MAX} nodes")));
        }
        let shape = Shape { added: self.shape.added + 1, ..self.shape };
        let node = Layout::new(self.home.path(), shape, None, self.layout.proxied)?.nodes.swap_remove(place);
        node.check_ports()?;
        self.home.record(shape)?;
        if let Some(links) = &mut self.links {
            links.add(&node).await?;
        }
        let address = node.client.clone();
        self.shape = shape;
        self.layout.nodes.push(node);
        self.ids.push(None);
        start_node(place, &self.layout, &mut self.children, self.links.as_ref())?;
        Ok(address)
    }

    async fn kill(&mut self, id: u64) -> Result<String, Error> {
        let place = self.running(id, "kill")?;
        self.children.kill(&node_name(place)).await;
        self.paused.remove(&place);
        Ok(format!("node {id} was killed (SIGKILL).  restart it: quorate playground start {id}"))
    }

    async fn start(&mut self, id: u64) -> Result<String, Error> {
        let place = self.place(id)?;
        if self.children.id(&node_name(place)).is_some() {
            let error = Error::new(Kind::Conflict, format!("node {id} runs already"));
            return Err(match self.paused.contains(&place) {
                true => error.next(format!("it is paused; resume it: quorate playground resume {id}")),
                false => error,
            });
        }
        // If no node returns a topology, this node may be the one that is missing: start it.
        if let Ok(topology) = probe::topology(&self.layout.endpoints(), TOPOLOGY_DEADLINE).await
            && topology.node(NodeId(id)).is_some_and(|node| node.state == NodeState::Removed)
        {
            return Err(Error::new(Kind::Conflict, format!("node {id} was removed from the cluster for good"))
                .next("add another node: quorate playground add"));
        }
        start_node(place, &self.layout, &mut self.children, self.links.as_ref())?;
        // It may have been killed while it was paused.
        self.paused.remove(&place);
        self.watch_restart(place, id).await
    }

    fn pause(&mut self, id: u64) -> Result<String, Error> {
        let place = self.running(id, "pause")?;
        if !self.paused.insert(place) {
            return Err(Error::new(Kind::Conflict, format!("node {id} is paused already"))
                .next(format!("resume it: quorate playground resume {id}")));
        }
        self.children.pause(&node_name(place))?;
        Ok(format!("node {id} is paused (SIGSTOP).  resume it: quorate playground resume {id}"))
    }

    fn resume(&mut self, id: u64) -> Result<String, Error> {
        let place = self.running(id, "resume")?;
        if !self.paused.remove(&place) {
            return Err(Error::new(Kind::Conflict, format!("node {id} is not paused")));
        }
        self.children.resume(&node_name(place))?;
        Ok(format!("node {id} was resumed"))
    }

    fn partition(&self, ids: &[u64]) -> Result<String, Error> {
        let side = ids.iter().map(|id| self.place(*id)).collect::<Result<BTreeSet<usize>, Error>>()?;
        let Some(links) = &self.links else {
            return Err(Error::new(Kind::Refused, "this playground cannot be partitioned")
                .why("it was started with --direct: its nodes connect to each other without proxies")
                .next("restart it without --direct"));
        };
        if side.len() == self.layout.nodes.len() {
            return Err(Error::new(Kind::Usage, "these are all nodes: there is no other side")
                .next("name only the nodes of one side"));
        }
        links.cut(side.clone());
        let named = |cut: bool| {
            let of_side = (0..self.ids.len()).filter(|place| side.contains(place) == cut);
            let ids = of_side.map(|place| self.ids[place].map_or_else(|| "?".to_owned(), |id| id.to_string()));
            ids.collect::<Vec<_>>().join(", ")
        };
        Ok(format!("nodes {} | {} are partitioned.  heal: quorate playground heal", named(true), named(false)))
    }

    fn heal(&self) -> String {
        match &self.links {
            Some(links) if !links.side().is_empty() => {
                links.cut(BTreeSet::new());
                "the partition is healed".to_owned()
            }
            _ => "nothing to do: there is no partition".to_owned(),
        }
    }

    /// The place of a node that runs. `verb` is the request, for the error.
    fn running(&self, id: u64, verb: &str) -> Result<usize, Error> {
        let place = self.place(id)?;
        if self.children.id(&node_name(place)).is_some() {
            return Ok(place);
        }
        Err(Error::new(Kind::Conflict, format!("cannot {verb} node {id}: it does not run"))
            .next(format!("start it: quorate playground start {id}")))
    }

    fn place(&self, id: u64) -> Result<usize, Error> {
        self.ids.iter().position(|known| *known == Some(id)).ok_or_else(|| {
            let known: Vec<String> = self.ids.iter().flatten().map(ToString::to_string).collect();
            Error::new(Kind::Usage, format!("the playground has no node {id}"))
                .next(format!("its nodes are {}", known.join(", ")))
        })
    }

    /// Updates the ids from the nodes' reports: an added node gets its id after it was started, and
    /// a node that lost its data gets a new one.
    async fn update_ids(&mut self) {
        let asked = self.layout.nodes.iter().map(|node| probe::status(&node.client, ID_DEADLINE));
        for (id, status) in self.ids.iter_mut().zip(join_all(asked).await) {
            if let Ok(status) = status
                && status.id != 0
            {
                *id = Some(status.id);
            }
        }
    }

    /// Watches a restarted node until it serves or exits, for at most [`WATCH_RESTART`].
    async fn watch_restart(&mut self, place: usize, id: u64) -> Result<String, Error> {
        let deadline = Instant::now() + WATCH_RESTART;
        let log = self.layout.logs.join(format!("{}.log", node_name(place)));
        loop {
            if self.children.has_exited(&node_name(place)) {
                return Err(Error::new(Kind::Failed, format!("node {id} exited right after its start"))
                    .next(format!("read its log: {}", log.display())));
            }
            let own = std::slice::from_ref(&self.layout.nodes[place].client);
            if probe::topology(own, ID_DEADLINE).await.is_ok() {
                return Ok(format!("node {id} was restarted and is catching up"));
            }
            if Instant::now() >= deadline {
                return Ok(format!("node {id} was restarted but does not serve yet.  log: {}", log.display()));
            }
            tokio::time::sleep(CHECK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three nodes of which none was started.
    fn playground(proxied: bool) -> (tempfile::TempDir, Running) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(Some(dir.path().to_owned()), |_| {}).unwrap();
        let shape = Shape { nodes: 3, shards: 4, port_base: 7100, added: 0 };
        let layout = Layout::new(dir.path(), shape, None, proxied).unwrap();
        let mut running = Running::new(home, shape, layout);
        // Nodes get their ids in the order in which they join, which may not be that of the layout.
        running.ids = vec![Some(2), Some(3), Some(1)];
        (dir, running)
    }

    #[tokio::test]
    async fn impossible_requests_are_refused_with_their_kind() {
        let (_dir, mut running) = playground(true);
        for (request, kind, words) in [
            (Request::Kill(9), Kind::Usage, "its nodes are 2, 3, 1"),
            (Request::Kill(2), Kind::Conflict, "cannot kill node 2: it does not run"),
            (Request::Pause(2), Kind::Conflict, "quorate playground start 2"),
            (Request::Resume(1), Kind::Conflict, "cannot resume node 1"),
            (Request::Partition(vec![1, 7]), Kind::Usage, "no node 7"),
            (Request::Partition(vec![3, 1, 2]), Kind::Usage, "there is no other side"),
        ] {
            let error = running.execute(request.clone()).await.unwrap_err();
            assert_eq!(error.kind, kind, "{request:?}: {error:?}");
            let text = format!("{} {}", error.what, error.next.join(" "));
            assert!(text.contains(words), "{request:?}: {text}");
        }
        let (_dir, mut direct) = playground(false);
        let error = direct.execute(Request::Partition(vec![1])).await.unwrap_err();
        assert_eq!(error.kind, Kind::Refused);
    }

    #[tokio::test]
    async fn a_partition_is_made_by_ids_and_healed_once() {
        let (_dir, mut running) = playground(true);
        let text = running.execute(Request::Partition(vec![1])).await.unwrap().text;
        assert!(text.starts_with("nodes 1 | 2, 3 are partitioned"), "{text}");
        assert_eq!(running.links.as_ref().unwrap().side(), BTreeSet::from([2]));
        assert_eq!(running.execute(Request::Heal).await.unwrap().text, "the partition is healed");
        assert_eq!(running.execute(Request::Heal).await.unwrap().text, "nothing to do: there is no partition");
    }
}
