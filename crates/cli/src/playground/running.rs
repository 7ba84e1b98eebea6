//! A playground that runs, and what is done to its nodes on request.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::future::join_all;

use super::children::Children;
use super::control::{Answer, Done, Request};
use super::home::Home;
use super::layout::{Layout, NODES_MAX, Shape};
use super::links::Links;
use super::start::{ASK_DEADLINE, Started, node_name, start_node};
use crate::admin;
use crate::failure::{Exit, Failure};
use crate::survey::REMOVED;

/// How long a node may take to say who it is.
const LEARN_DEADLINE: Duration = Duration::from_millis(500);
/// How long it is looked at how a node that was started is.
const SEEN_WITHIN: Duration = Duration::from_secs(3);
/// The pause between two looks.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// A playground that runs.
///
/// # Invariants
/// * `ids`, the proxies of `links` and the nodes of `layout` are in one order.
pub(super) struct Running {
    pub(super) home: Home,
    pub(super) layout: Layout,
    pub(super) children: Children,
    /// None: the nodes talk to each other directly.
    pub(super) links: Option<Links>,
    shape: Shape,
    /// The ids that the cluster gave to the nodes; none: not known yet.
    ids: Vec<Option<u64>>,
    paused: BTreeSet<usize>,
}

impl Running {
    /// Nothing is started yet.
    pub(super) fn new(home: Home, shape: Shape, layout: Layout) -> Self {
        let ids = vec![None; layout.nodes.len()];
        let links = layout.proxied.then(Links::new);
        Running { home, layout, children: Children::default(), links, shape, ids, paused: BTreeSet::new() }
    }

    /// Takes note of the ids that the cluster gave.
    pub(super) fn started(&mut self, started: &Started) {
        self.ids = started.node_ids.iter().copied().map(Some).collect();
    }

    /// Does what is asked. Called on the main thread: it may start a child.
    pub(super) async fn execute(&mut self, request: Request) -> Answer {
        self.learn_ids().await;
        let mut added = None;
        let said = match request {
            Request::Add => {
                added = Some(self.add().await?);
                "a node is started".to_owned()
            }
            Request::Kill(id) => self.kill(id).await?,
            Request::Start(id) => self.start(id).await?,
            Request::Pause(id) => self.pause(id)?,
            Request::Resume(id) => self.resume(id)?,
            Request::Partition(ids) => self.partition(&ids)?,
            Request::Heal => self.heal(),
        };
        Ok(Done { said, endpoints: self.layout.endpoints(), added })
    }

    async fn add(&mut self) -> Result<String, Failure> {
        let place = self.layout.nodes.len();
        if place >= NODES_MAX as usize {
            return Err(Failure::new(Exit::Refused, format!("a playground has at most {NODES_MAX} nodes")));
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

    async fn kill(&mut self, id: u64) -> Result<String, Failure> {
        let place = self.running(id, "kill")?;
        self.children.kill(&node_name(place)).await;
        self.paused.remove(&place);
        Ok(format!("node {id} is killed (SIGKILL).  start it again: quorate playground start {id}"))
    }

    async fn start(&mut self, id: u64) -> Result<String, Failure> {
        let place = self.place(id)?;
        if self.children.id(&node_name(place)).is_some() {
            let failure = Failure::new(Exit::Conflict, format!("node {id} runs already"));
            return Err(match self.paused.contains(&place) {
                true => failure.hint(format!("it is paused; let it go on: quorate playground resume {id}")),
                false => failure,
            });
        }
        let others: Vec<String> = self.layout.nodes.iter().map(|node| node.client.clone()).collect();
        // Where nobody can be asked, it may be what is missing.
        if let Ok(topology) = admin::newest_topology(&others, ASK_DEADLINE).await
            && topology.nodes.iter().any(|node| node.id == id && node.state == REMOVED)
        {
            return Err(Failure::new(Exit::Conflict, format!("node {id} was removed from the cluster for good"))
                .hint("add another one: quorate playground add"));
        }
        start_node(place, &self.layout, &mut self.children, self.links.as_ref())?;
        // It may have died while it was paused.
        self.paused.remove(&place);
        self.see(place, id).await
    }

    fn pause(&mut self, id: u64) -> Result<String, Failure> {
        let place = self.running(id, "pause")?;
        if !self.paused.insert(place) {
            return Err(Failure::new(Exit::Conflict, format!("node {id} is paused already"))
                .hint(format!("quorate playground resume {id}")));
        }
        self.children.pause(&node_name(place))?;
        Ok(format!("node {id} is paused (SIGSTOP).  let it go on: quorate playground resume {id}"))
    }

    fn resume(&mut self, id: u64) -> Result<String, Failure> {
        let place = self.running(id, "resume")?;
        if !self.paused.remove(&place) {
            return Err(Failure::new(Exit::Conflict, format!("node {id} is not paused")));
        }
        self.children.resume(&node_name(place))?;
        Ok(format!("node {id} goes on"))
    }

    fn partition(&self, ids: &[u64]) -> Result<String, Failure> {
        let side = ids.iter().map(|id| self.place(*id)).collect::<Result<BTreeSet<usize>, Failure>>()?;
        let Some(links) = &self.links else {
            return Err(Failure::new(Exit::Refused, "this playground cannot be partitioned")
                .cause("it was started with --direct: its nodes talk to each other without proxies")
                .hint("start it again without --direct"));
        };
        if side.len() == self.layout.nodes.len() {
            return Err(Failure::new(Exit::Usage, "these are all nodes: there is no other side")
                .hint("name the nodes of one side only"));
        }
        links.cut(side.clone());
        let named = |cut: bool| {
            let of_side = (0..self.ids.len()).filter(|place| side.contains(place) == cut);
            let ids = of_side.map(|place| self.ids[place].map_or_else(|| "?".to_owned(), |id| id.to_string()));
            ids.collect::<Vec<_>>().join(", ")
        };
        Ok(format!("nodes {} | {} hear nothing of each other.  quorate playground heal", named(true), named(false)))
    }

    fn heal(&self) -> String {
        match &self.links {
            Some(links) if !links.side().is_empty() => {
                links.cut(BTreeSet::new());
                "every node reaches every other again".to_owned()
            }
            _ => "already so: nothing is cut".to_owned(),
        }
    }

    /// The place of a node that has a process.
    fn running(&self, id: u64, what: &str) -> Result<usize, Failure> {
        let place = self.place(id)?;
        if self.children.id(&node_name(place)).is_some() {
            return Ok(place);
        }
        Err(Failure::new(Exit::Conflict, format!("cannot {what} node {id}: it does not run"))
            .hint(format!("start it: quorate playground start {id}")))
    }

    fn place(&self, id: u64) -> Result<usize, Failure> {
        self.ids.iter().position(|known| *known == Some(id)).ok_or_else(|| {
            let known: Vec<String> = self.ids.iter().flatten().map(ToString::to_string).collect();
            Failure::new(Exit::Usage, format!("the playground has no node {id}"))
                .hint(format!("its nodes are {}", known.join(", ")))
        })
    }

    /// A node that was added hears its id a moment later than we start it; one that lost its data comes back under another.
    async fn learn_ids(&mut self) {
        let asked = self.layout.nodes.iter().map(|node| admin::node(&node.client, LEARN_DEADLINE));
        for (id, status) in self.ids.iter_mut().zip(join_all(asked).await) {
            if let Ok(status) = status
                && status.id != 0
            {
                *id = Some(status.id);
            }
        }
    }

    /// How a node that was just started is, a moment later.
    async fn see(&mut self, place: usize, id: u64) -> Result<String, Failure> {
        let deadline = Instant::now() + SEEN_WITHIN;
        let log = self.layout.logs.join(format!("{}.log", node_name(place)));
        loop {
            if self.children.has_ended(&node_name(place)) {
                return Err(Failure::new(Exit::Other, format!("node {id} ended as soon as it was started"))
                    .hint(format!("its log says why: {}", log.display())));
            }
            let own = std::slice::from_ref(&self.layout.nodes[place].client);
            if admin::newest_topology(own, LEARN_DEADLINE).await.is_ok() {
                return Ok(format!("node {id} is started; it catches up by itself"));
            }
            if Instant::now() >= deadline {
                return Ok(format!("node {id} is started, and does not serve yet: {}", log.display()));
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three nodes of which none was started: what is asked of them is refused by name.
    fn playground(proxied: bool) -> (tempfile::TempDir, Running) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(Some(dir.path().to_owned())).unwrap();
        let shape = Shape { nodes: 3, shards: 4, port_base: 7100, added: 0 };
        let layout = Layout::new(dir.path(), shape, None, proxied).unwrap();
        let mut running = Running::new(home, shape, layout);
        // Ids go by addresses, not by places.
        running.ids = vec![Some(2), Some(3), Some(1)];
        (dir, running)
    }

    #[tokio::test]
    async fn what_cannot_be_done_is_refused_with_its_code() {
        let (_dir, mut running) = playground(true);
        for (request, exit, words) in [
            (Request::Kill(9), Exit::Usage, "the playground has no node 9\n  hint:  its nodes are 2, 3, 1"),
            (Request::Kill(2), Exit::Conflict, "cannot kill node 2: it does not run"),
            (Request::Pause(2), Exit::Conflict, "quorate playground start 2"),
            (Request::Resume(1), Exit::Conflict, "cannot resume node 1"),
            (Request::Partition(vec![1, 7]), Exit::Usage, "no node 7"),
            (Request::Partition(vec![3, 1, 2]), Exit::Usage, "there is no other side"),
        ] {
            let failure = running.execute(request.clone()).await.unwrap_err();
            assert_eq!(failure.exit(), exit, "{request:?}: {failure}");
            assert!(failure.to_string().contains(words), "{request:?}: {failure}");
        }
        let (_dir, mut direct) = playground(false);
        let failure = direct.execute(Request::Partition(vec![1])).await.unwrap_err();
        assert_eq!(failure.exit(), Exit::Refused);
    }

    #[tokio::test]
    async fn a_cut_is_made_by_ids_and_healed_once() {
        let (_dir, mut running) = playground(true);
        let said = running.execute(Request::Partition(vec![1])).await.unwrap().said;
        assert!(said.starts_with("nodes 1 | 2, 3 hear nothing of each other"), "{said}");
        assert_eq!(running.links.as_ref().unwrap().side(), BTreeSet::from([2]));
        assert_eq!(running.execute(Request::Heal).await.unwrap().said, "every node reaches every other again");
        assert_eq!(running.execute(Request::Heal).await.unwrap().said, "already so: nothing is cut");
    }
}
