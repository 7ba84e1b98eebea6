//! A frame's requests, sorted into parts that are served with one call each.

use std::collections::HashMap;
use std::time::Duration;

use quorate_proto::kv::{Reply, Request};
use quorate_proto::{reply_to_wire, request_from_wire};
use quorate_types::{Command, Key, KvOperation, KvRequest, ReadLevel, Rejection, ShardId};

/// How long the node works on a request that does not say how long its client waits, and on any request at most.
const TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// Requests of one part: a part is answered as a whole, and must not become a long wait for its first request.
const PART_REQUESTS_MAX: usize = 512;
/// Bytes of one part: it must fit into one Raft entry with others.
const PART_BYTES_MAX: usize = 2 << 20;

/// Requests that are served with one call.
#[derive(Debug)]
pub(crate) enum Part {
    /// Commands for one shard.
    Write(Writes),
    /// Linearizable reads of one shard.
    Strong(Reads),
    /// Local reads, of any shards: they wait for nothing, so one task serves all of a frame.
    Eventual(Vec<Reads>),
}

/// A part with what is needed to account for it.
#[derive(Debug)]
pub(crate) struct Sized<P> {
    /// The part.
    pub(crate) part: P,
    /// Bytes of its requests, about.
    pub(crate) bytes: usize,
}

impl Sized<Part> {
    /// Requests in the part.
    pub(crate) fn len(&self) -> usize {
        match &self.part {
            Part::Write(writes) => writes.ids.len(),
            Part::Strong(reads) => reads.ids.len(),
            Part::Eventual(all) => all.iter().map(|reads| reads.ids.len()).sum(),
        }
    }
}

/// Commands for one shard. The request with `ids[i]` asks for `commands[i]`.
#[derive(Debug)]
pub(crate) struct Writes {
    /// The shard.
    pub(crate) shard: ShardId,
    /// How long the most patient client waits.
    pub(crate) within: Duration,
    /// The requests.
    pub(crate) ids: Vec<u64>,
    /// What they ask for.
    pub(crate) commands: Vec<Command>,
}

/// Reads of one shard. The request with `ids[i]` asks for `keys[i]` and was routed by `epochs[i]`.
#[derive(Debug)]
pub(crate) struct Reads {
    /// The shard.
    pub(crate) shard: ShardId,
    /// How long the most patient client waits.
    pub(crate) within: Duration,
    /// The requests.
    pub(crate) ids: Vec<u64>,
    /// The epochs that they were routed by.
    pub(crate) epochs: Vec<u64>,
    /// The keys.
    pub(crate) keys: Vec<Key>,
}

/// A frame, sorted.
pub(crate) struct Split {
    /// What is to be served.
    pub(crate) parts: Vec<Sized<Part>>,
    /// The replies to what is no valid request.
    pub(crate) refused: Vec<Reply>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Class {
    Write,
    Strong,
    Eventual,
}

/// Sorts a frame's requests. Within a part they keep their order.
pub(crate) fn split(requests: Vec<Request>) -> Split {
    let mut open: HashMap<(ShardId, Class), usize> = HashMap::new();
    let mut building: Vec<Building> = Vec::new();
    let mut refused = Vec::new();
    for request in requests {
        let id = request.id;
        let request = match request_from_wire(request) {
            Ok(request) => request,
            Err(e) => {
                refused.push(reply_to_wire(id, Err(Rejection::Invalid { reason: e.to_string() })));
                continue;
            }
        };
        let bytes = request.size_bytes();
        let class = class(&request.operation);
        let place = open.entry((request.shard, class)).or_insert(usize::MAX);
        if building.get(*place).is_none_or(|part| part.is_full(bytes)) {
            *place = building.len();
            building.push(Building::new(request.shard, class));
        }
        building[*place].add(request, bytes);
    }
    Split { parts: collect(building), refused }
}

fn class(operation: &KvOperation) -> Class {
    match operation {
        KvOperation::Get { level: ReadLevel::Strong, .. } => Class::Strong,
        KvOperation::Get { level: ReadLevel::Eventual, .. } => Class::Eventual,
        KvOperation::Write { .. } | KvOperation::OpenSession => Class::Write,
    }
}

/// All local reads of the frame become one part, as far as its bounds allow.
fn collect(building: Vec<Building>) -> Vec<Sized<Part>> {
    let mut parts = Vec::with_capacity(building.len());
    let mut local: Option<(Vec<Reads>, usize, usize)> = None;
    for Building { target, bytes } in building {
        match target {
            Target::Write(writes) => parts.push(Sized { part: Part::Write(writes), bytes }),
            Target::Read(reads, Class::Strong) => parts.push(Sized { part: Part::Strong(reads), bytes }),
            Target::Read(reads, _) => {
                let requests = reads.ids.len();
                match &mut local {
                    Some((all, count, total)) if *count + requests <= PART_REQUESTS_MAX => {
                        all.push(reads);
                        *count += requests;
                        *total += bytes;
                    }
                    _ => {
                        if let Some((all, _, bytes)) = local.replace((vec![reads], requests, bytes)) {
                            parts.push(Sized { part: Part::Eventual(all), bytes });
                        }
                    }
                }
            }
        }
    }
    if let Some((all, _, bytes)) = local {
        parts.push(Sized { part: Part::Eventual(all), bytes });
    }
    parts
}

/// A part that requests are added to.
struct Building {
    target: Target,
    bytes: usize,
}

enum Target {
    Write(Writes),
    Read(Reads, Class),
}

impl Building {
    fn new(shard: ShardId, class: Class) -> Self {
        let within = Duration::ZERO;
        let target = match class {
            Class::Write => Target::Write(Writes { shard, within, ids: vec![], commands: vec![] }),
            class => Target::Read(Reads { shard, within, ids: vec![], epochs: vec![], keys: vec![] }, class),
        };
        Building { target, bytes: 0 }
    }

    fn is_full(&self, more: usize) -> bool {
        let requests = match &self.target {
            Target::Write(writes) => writes.ids.len(),
            Target::Read(reads, _) => reads.ids.len(),
        };
        requests >= PART_REQUESTS_MAX || (requests > 0 && self.bytes + more > PART_BYTES_MAX)
    }

    fn add(&mut self, request: KvRequest, bytes: usize) {
        let KvRequest { id, epoch, timeout, operation, .. } = request;
        let within = timeout.unwrap_or(TIMEOUT_MAX).min(TIMEOUT_MAX);
        self.bytes += bytes;
        match (&mut self.target, operation) {
            (Target::Read(reads, _), KvOperation::Get { key, .. }) => {
                reads.within = reads.within.max(within);
                reads.ids.push(id);
                reads.epochs.push(epoch);
                reads.keys.push(key);
            }
            (Target::Write(writes), KvOperation::Write { stamp, write }) => {
                writes.add(id, within, Command::Write { epoch, stamp, write });
            }
            (Target::Write(writes), KvOperation::OpenSession) => writes.add(id, within, Command::OpenSession { epoch }),
            (Target::Read(..), _) | (Target::Write(_), KvOperation::Get { .. }) => {
                unreachable!("a request is added to a part of its class")
            }
        }
    }
}

impl Writes {
    fn add(&mut self, id: u64, within: Duration, command: Command) {
        self.within = self.within.max(within);
        self.ids.push(id);
        self.commands.push(command);
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::{Mutation, SessionId, SessionStamp, Value, Write};

    use super::*;

    fn get(id: u64, shard: u32, level: ReadLevel) -> Request {
        let key = Key::new(format!("k{id}")).unwrap();
        let operation = KvOperation::Get { key, level };
        KvRequest { id, shard: ShardId(shard), epoch: 1, timeout: Some(Duration::from_millis(id)), operation }.into()
    }

    fn put(id: u64, shard: u32, bytes: usize) -> Request {
        let stamp = SessionStamp { session: SessionId(1), sequence: id, lowest: 1 };
        let mutation = Mutation::Put(Value::new(vec![0; bytes]).unwrap());
        let operation =
            KvOperation::Write { stamp, write: Write { key: Key::new("k").unwrap(), mutation, condition: None } };
        KvRequest { id, shard: ShardId(shard), epoch: 1, timeout: None, operation }.into()
    }

    /// One line a part: what it is, the shard, the requests.
    fn script(split: &Split) -> Vec<String> {
        let reads = |reads: &Reads| format!("{}:{:?}", reads.shard, reads.ids);
        let line = |part: &Sized<Part>| match &part.part {
            Part::Write(writes) => format!("write {}:{:?}", writes.shard, writes.ids),
            Part::Strong(all) => format!("strong {}", reads(all)),
            Part::Eventual(all) => format!("eventual {}", all.iter().map(reads).collect::<Vec<_>>().join(" ")),
        };
        split.parts.iter().map(line).collect()
    }

    #[test]
    fn requests_are_sorted_by_shard_and_kind_and_local_reads_stay_together() {
        use ReadLevel::{Eventual, Strong};
        let frame = vec![
            put(1, 1, 10),
            get(2, 1, Strong),
            get(3, 2, Eventual),
            put(4, 1, 10),
            get(5, 1, Eventual),
            get(6, 1, Strong),
            put(7, 2, 10),
            get(8, 2, Eventual),
        ];
        let split = split(frame);
        assert_eq!(script(&split), ["write 1:[1, 4]", "strong 1:[2, 6]", "write 2:[7]", "eventual 2:[3, 8] 1:[5]"]);
        let Part::Strong(strong) = &split.parts[1].part else { panic!() };
        assert_eq!(strong.within, Duration::from_millis(6), "the most patient client decides");
        let Part::Write(writes) = &split.parts[0].part else { panic!() };
        assert_eq!(writes.within, TIMEOUT_MAX);
    }

    #[test]
    fn parts_are_bounded_in_requests_and_bytes() {
        let large = 1 << 20;
        let frame = (1..=4).map(|id| put(id, 1, large)).collect();
        assert_eq!(script(&split(frame)), ["write 1:[1]", "write 1:[2]", "write 1:[3]", "write 1:[4]"]);
        let frame = (1..=1030).map(|id| get(id, 1, ReadLevel::Eventual)).collect();
        let sizes: Vec<usize> = split(frame).parts.iter().map(Sized::len).collect();
        assert_eq!(sizes, [512, 512, 6]);
    }

    #[test]
    fn what_is_no_request_is_answered_and_the_rest_is_served() {
        let broken = Request { id: 9, shard: 1, ..Request::default() };
        let split = split(vec![get(1, 1, ReadLevel::Strong), broken]);
        assert_eq!(script(&split), ["strong 1:[1]"]);
        assert_eq!(split.refused[0].id, 9);
    }
}
