//! Sorts the requests of a frame into parts that are served with one call each.

use std::collections::HashMap;
use std::time::Duration;

use quorate_types::{Command, Key, KvOperation, KvRequest, ReadLevel, ShardId};

/// How long a node works on a request at most, and on one that names no time-out.
const TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// Requests of one part. A part is answered as a whole, so its first request must not wait long.
const PART_REQUESTS_MAX: usize = 512;
/// Bytes of one part: it must fit into one Raft entry with others.
const PART_BYTES_MAX: usize = 2 << 20;

/// Requests that are served with one call.
#[derive(Debug)]
pub struct Part {
    /// The requests.
    pub work: Work,
    /// The approximate size of the requests, in bytes.
    pub bytes: usize,
}

/// The requests of a part, by kind of service.
#[derive(Debug)]
pub enum Work {
    /// Commands for one shard.
    Write(Writes),
    /// Linearizable reads of one shard.
    Strong(Reads),
    /// Local reads of any shards. They wait for nothing, so one call serves those of many shards.
    Eventual(Vec<Reads>),
}

impl Part {
    /// The number of requests.
    pub fn requests(&self) -> usize {
        match &self.work {
            Work::Write(writes) => writes.requests.len(),
            Work::Strong(reads) => reads.requests.len(),
            Work::Eventual(all) => all.iter().map(|reads| reads.requests.len()).sum(),
        }
    }
}

/// Commands for one shard.
#[derive(Debug)]
pub struct Writes {
    /// The shard.
    pub shard: ShardId,
    /// The longest time-out of the requests.
    pub within: Duration,
    /// The requests, in the order in which they arrived.
    pub requests: Vec<PendingWrite>,
}

/// A command that waits to be served.
#[derive(Debug)]
pub struct PendingWrite {
    /// The request's id.
    pub id: u64,
    /// The command.
    pub command: Command,
}

/// Reads of one shard.
#[derive(Debug)]
pub struct Reads {
    /// The shard.
    pub shard: ShardId,
    /// The longest time-out of the requests.
    pub within: Duration,
    /// The requests, in the order in which they arrived.
    pub requests: Vec<PendingRead>,
}

/// A read that waits to be served.
#[derive(Debug)]
pub struct PendingRead {
    /// The request's id.
    pub id: u64,
    /// The shard's arc epoch that the client routed by.
    pub epoch: u64,
    /// The key.
    pub key: Key,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Class {
    Write,
    Strong,
    Eventual,
}

impl Class {
    fn of(operation: &KvOperation) -> Self {
        match operation {
            KvOperation::Get { level: ReadLevel::Strong, .. } => Class::Strong,
            KvOperation::Get { level: ReadLevel::Eventual, .. } => Class::Eventual,
            KvOperation::Write { .. } | KvOperation::OpenSession => Class::Write,
        }
    }
}

/// Sorts requests into parts. Within a part they keep their order.
pub fn split(requests: impl IntoIterator<Item = KvRequest>) -> Vec<Part> {
    let mut open: HashMap<(ShardId, Class), usize> = HashMap::new();
    let mut building: Vec<Building> = Vec::new();
    for request in requests {
        let bytes = request.size_bytes();
        let class = Class::of(&request.operation);
        let place = open.entry((request.shard, class)).or_insert(usize::MAX);
        if building.get(*place).is_none_or(|part| part.is_full(bytes)) {
            *place = building.len();
            building.push(Building::new(request.shard, class));
        }
        building[*place].add(request, bytes);
    }
    collect(building)
}

/// Joins the local reads of the frame into one part, within the bounds of a part.
fn collect(building: Vec<Building>) -> Vec<Part> {
    let mut parts = Vec::with_capacity(building.len());
    let mut local = Part { work: Work::Eventual(Vec::new()), bytes: 0 };
    for Building { target, bytes } in building {
        let reads = match target {
            Target::Write(writes) => {
                parts.push(Part { work: Work::Write(writes), bytes });
                continue;
            }
            Target::Read(reads, Class::Strong) => {
                parts.push(Part { work: Work::Strong(reads), bytes });
                continue;
            }
            Target::Read(reads, _) => reads,
        };
        if local.requests() > 0 && local.requests() + reads.requests.len() > PART_REQUESTS_MAX {
            parts.push(std::mem::replace(&mut local, Part { work: Work::Eventual(Vec::new()), bytes: 0 }));
        }
        let Work::Eventual(all) = &mut local.work else { unreachable!("local reads are eventual") };
        all.push(reads);
        local.bytes += bytes;
    }
    if local.requests() > 0 {
        parts.push(local);
    }
    assert!(parts.iter().all(|part| part.requests() <= PART_REQUESTS_MAX), "parts are bounded");
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
            Class::Write => Target::Write(Writes { shard, within, requests: Vec::new() }),
            class => Target::Read(Reads { shard, within, requests: Vec::new() }, class),
        };
        Building { target, bytes: 0 }
    }

    fn is_full(&self, more: usize) -> bool {
        let requests = match &self.target {
            Target::Write(writes) => writes.requests.len(),
            Target::Read(reads, _) => reads.requests.len(),
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
                reads.requests.push(PendingRead { id, epoch, key });
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
        self.requests.push(PendingWrite { id, command });
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::{Mutation, SessionId, SessionStamp, Value, Write};

    use super::*;

    fn get(id: u64, shard: u32, level: ReadLevel) -> KvRequest {
        let key = Key::new(format!("k{id}")).unwrap();
        let operation = KvOperation::Get { key, level };
        KvRequest { id, shard: ShardId(shard), epoch: 1, timeout: Some(Duration::from_millis(id)), operation }
    }

    fn put(id: u64, shard: u32, bytes: usize) -> KvRequest {
        let stamp = SessionStamp { session: SessionId(1), sequence: id, lowest: 1 };
        let mutation = Mutation::Put(Value::new(vec![0; bytes]).unwrap());
        let operation =
            KvOperation::Write { stamp, write: Write { key: Key::new("k").unwrap(), mutation, condition: None } };
        KvRequest { id, shard: ShardId(shard), epoch: 1, timeout: None, operation }
    }

    /// One line for each part: its kind, the shard, the requests.
    fn script(parts: &[Part]) -> Vec<String> {
        let ids = |reads: &Reads| reads.requests.iter().map(|read| read.id).collect::<Vec<_>>();
        let reads = |reads: &Reads| format!("{}:{:?}", reads.shard, ids(reads));
        let line = |part: &Part| match &part.work {
            Work::Write(writes) => {
                let ids: Vec<u64> = writes.requests.iter().map(|write| write.id).collect();
                format!("write {}:{ids:?}", writes.shard)
            }
            Work::Strong(all) => format!("strong {}", reads(all)),
            Work::Eventual(all) => format!("eventual {}", all.iter().map(reads).collect::<Vec<_>>().join(" ")),
        };
        parts.iter().map(line).collect()
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
        let parts = split(frame);
        assert_eq!(script(&parts), ["write 1:[1, 4]", "strong 1:[2, 6]", "write 2:[7]", "eventual 2:[3, 8] 1:[5]"]);
        let Work::Strong(strong) = &parts[1].work else { panic!() };
        assert_eq!(strong.within, Duration::from_millis(6), "the longest time-out counts");
        let Work::Write(writes) = &parts[0].work else { panic!() };
        assert_eq!(writes.within, TIMEOUT_MAX);
    }

    #[test]
    fn parts_are_bounded_in_requests_and_bytes() {
        let large = 1 << 20;
        let frame = (1..=4).map(|id| put(id, 1, large));
        assert_eq!(script(&split(frame)), ["write 1:[1]", "write 1:[2]", "write 1:[3]", "write 1:[4]"]);
        let frame = (1..=1030).map(|id| get(id, 1, ReadLevel::Eventual));
        let sizes: Vec<usize> = split(frame).iter().map(Part::requests).collect();
        assert_eq!(sizes, [512, 512, 6]);
    }
}
