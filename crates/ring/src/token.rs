//! Hashes keys to tokens, and divides the ring of a new cluster.

use std::hash::Hasher;

use quorate_types::{Key, Token, TokenArc};
use siphasher::sip::SipHasher24;

/// The token of a key: SipHash-2-4 of its routing key ([`Key::routing_key`]) under the cluster's
/// secret hash key, so that clients cannot choose keys of one shard.
///
/// The bytes are hashed in one write, and without Rust's `Hash`, whose prefixes differ between
/// `&str`, slices and arrays.
pub fn token(hash_key: &[u8; 16], key: &Key) -> Token {
    let mut hasher = SipHasher24::new_with_key(hash_key);
    hasher.write(key.routing_key());
    Token(hasher.finish())
}

/// `shards` arcs that cover the ring exactly once and differ in length by one token at most, by
/// their starts from 0. One shard has the whole ring (`start == end`); zero shards give no arcs.
pub fn equal_arcs(shards: u32) -> Vec<TokenArc> {
    let boundary = |i: u32| {
        let token = (u128::from(i) << 64) / u128::from(shards);
        // The boundary after the last arc is 2^64, which is the token 0.
        Token(u64::try_from(token).unwrap_or(0))
    };
    (0..shards).map(|i| TokenArc { start: boundary(i), end: boundary(i + 1) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_shard_has_the_whole_ring_and_none_has_nothing() {
        assert_eq!(equal_arcs(1), [TokenArc { start: Token(0), end: Token(0) }]);
        assert_eq!(equal_arcs(0), []);
    }

    #[test]
    fn arcs_differ_by_one_token_at_most() {
        for shards in [2_u32, 3, 7, 16, 1000, 4096] {
            let widths: Vec<u64> = equal_arcs(shards).iter().map(|arc| arc.end.0.wrapping_sub(arc.start.0)).collect();
            let (least, most) = (widths.iter().min().unwrap(), widths.iter().max().unwrap());
            assert!(most - least <= 1, "{shards} shards: {least}..{most}");
        }
    }
}
