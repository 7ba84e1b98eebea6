//! Tokens, arcs and placements that must never change, written out. New numbers are no fix of a
//! failure here: with other tokens every cluster loses all keys, and with other placements releases
//! disagree about the bootstrap of a cluster.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use quorate_ring::{ArcTable, Candidate, PlacementRequest, equal_arcs, place, token};
use quorate_types::{Key, NodeId, ShardId};

/// 00 01 … 0f: the key of the test vectors in the SipHash paper.
const HASH_KEY: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// The 15 bytes 00 … 0e have the value of the SipHash paper's appendix A: only the bytes themselves
/// are hashed.
#[test]
fn tokens_are_siphash_2_4_of_the_routing_key() {
    let token = |key: &[u8]| format!("{:016x}", token(&HASH_KEY, &Key::new(key.to_vec()).unwrap()).0);
    assert_eq!(token(&HASH_KEY[..15]), "a129ca6149be45e5");
    let frozen = ["user:1", "user:2", "cart{user:1}", "{}", "\u{fc}ber"].map(|key| (key, token(key.as_bytes())));
    assert_eq!(
        frozen.each_ref().map(|(key, token)| (*key, token.as_str())),
        [
            ("user:1", "f66a302956a2be74"),
            ("user:2", "1bedf54f03ac48bd"),
            ("cart{user:1}", "f66a302956a2be74"),
            ("{}", "a8007d2a4ec8a0de"),
            ("\u{fc}ber", "4a51b4853cd5306e"),
        ]
    );
}

#[test]
fn arcs_of_a_new_cluster_are_frozen() {
    let text = |shards| equal_arcs(shards).iter().map(|arc| arc.to_string()).collect::<Vec<_>>();
    assert_eq!(
        text(3),
        [
            "0000000000000000..5555555555555555",
            "5555555555555555..aaaaaaaaaaaaaaaa",
            "aaaaaaaaaaaaaaaa..0000000000000000",
        ]
    );
    assert_eq!(text(16)[15], "f000000000000000..0000000000000000");
}

/// One line a shard: its nodes, preferred leader first.
fn placement(nodes: &[(u64, &str, u32)], shards: u32, replicas: u32) -> Vec<String> {
    let candidate = |&(id, zone, weight): &(u64, &str, u32)| Candidate { id: NodeId(id), zone: zone.into(), weight };
    let nodes: Vec<Candidate> = nodes.iter().map(candidate).collect();
    let shards = ArcTable::new((1..).map(ShardId).zip(equal_arcs(shards))).unwrap();
    let request = PlacementRequest { hash_key: &HASH_KEY, nodes: &nodes, shards: &shards, replicas };
    let line = |(shard, nodes): (ShardId, Vec<NodeId>)| {
        format!("{shard}: {}", nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(" "))
    };
    place(&request).unwrap().into_iter().map(line).collect()
}

#[test]
fn three_nodes_hold_everything_and_share_the_lead() {
    let nodes = [(1, "", 100), (2, "", 100), (3, "", 100)];
    assert_eq!(
        placement(&nodes, 16, 3),
        [
            "1: 3 1 2",
            "2: 3 2 1",
            "3: 2 1 3",
            "4: 1 3 2",
            "5: 1 3 2",
            "6: 2 1 3",
            "7: 3 1 2",
            "8: 2 3 1",
            "9: 3 2 1",
            "10: 2 1 3",
            "11: 2 3 1",
            "12: 2 1 3",
            "13: 1 3 2",
            "14: 1 3 2",
            "15: 1 3 2",
            "16: 3 1 2"
        ]
    );
}

#[test]
fn six_nodes_in_three_zones_with_a_heavy_and_a_light_one() {
    let nodes = [(1, "a", 100), (2, "a", 100), (3, "b", 100), (4, "b", 100), (5, "c", 150), (6, "c", 50)];
    assert_eq!(
        placement(&nodes, 12, 3),
        [
            "1: 4 5 1",
            "2: 2 5 4",
            "3: 1 5 3",
            "4: 6 1 3",
            "5: 4 2 5",
            "6: 3 2 6",
            "7: 3 6 2",
            "8: 2 3 5",
            "9: 5 2 4",
            "10: 1 6 3",
            "11: 5 2 4",
            "12: 5 1 4"
        ]
    );
}
