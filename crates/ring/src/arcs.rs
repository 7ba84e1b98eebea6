//! The table of arcs: finds the shard that owns a token.

use std::collections::BTreeSet;

use quorate_types::{ShardId, Token, TokenArc};

/// The tokens of every shard.
///
/// # Invariants
/// * There is at least one shard, and no shard twice.
/// * Starts are strictly increasing, and every arc ends where the next one starts (the last one
///   where the first one starts): the arcs cover the ring exactly once. They may differ in length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArcTable {
    /// The starts alone, so that a look-up touches few cache lines.
    starts: Vec<Token>,
    shards: Vec<ShardId>,
}

/// The reason why arcs are no table: a token would have no shard, or two. Such a map is wrong; no
/// retry helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArcError {
    /// There is no arc.
    #[error("there are no shards")]
    Empty,
    /// A shard has two arcs.
    #[error("shard {0} has two arcs")]
    DuplicateShard(ShardId),
    /// An arc does not end where the next one starts.
    #[error("the arc {arc} of shard {shard} does not end at the start {:016x} of the next one, of shard {next}", next_start.0)]
    Mismatch {
        /// The shard whose arc ends too early or too late.
        shard: ShardId,
        /// Its arc.
        arc: TokenArc,
        /// The shard whose arc comes next on the ring.
        next: ShardId,
        /// The start of that arc.
        next_start: Token,
    },
}

impl ArcTable {
    /// Builds the table from arcs in any order. Refuses arcs that do not cover the ring exactly
    /// once.
    pub fn new(arcs: impl IntoIterator<Item = (ShardId, TokenArc)>) -> Result<Self, ArcError> {
        let mut arcs: Vec<(ShardId, TokenArc)> = arcs.into_iter().collect();
        arcs.sort_by_key(|&(shard, arc)| (arc.start, shard));
        let mut seen = BTreeSet::new();
        if let Some(&(twice, _)) = arcs.iter().find(|&&(shard, _)| !seen.insert(shard)) {
            return Err(ArcError::DuplicateShard(twice));
        }
        for (i, &(shard, arc)) in arcs.iter().enumerate() {
            let (next, next_arc) = arcs[(i + 1) % arcs.len()];
            // Two arcs of the whole ring also end where the other one starts.
            let twice = next != shard && next_arc.start == arc.start;
            if twice || arc.end != next_arc.start {
                return Err(ArcError::Mismatch { shard, arc, next, next_start: next_arc.start });
            }
        }
        if arcs.is_empty() {
            return Err(ArcError::Empty);
        }
        let (shards, starts) = arcs.into_iter().map(|(shard, arc)| (shard, arc.start)).unzip();
        Ok(ArcTable { starts, shards })
    }

    /// The shard that owns the token.
    pub fn lookup(&self, token: Token) -> ShardId {
        let after = self.starts.partition_point(|&start| start <= token);
        // Tokens before the first start belong to the arc that wraps: the last one.
        self.shards[after.checked_sub(1).unwrap_or(self.shards.len() - 1)]
    }

    /// The shards and their arcs, by the starts of the arcs.
    pub fn iter(&self) -> impl Iterator<Item = (ShardId, TokenArc)> {
        let ends = self.starts.iter().cycle().skip(1);
        self.shards
            .iter()
            .zip(self.starts.iter().zip(ends))
            .map(|(&shard, (&start, &end))| (shard, TokenArc { start, end }))
    }

    /// The number of shards, at least one.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arc(start: u64, end: u64) -> TokenArc {
        TokenArc { start: Token(start), end: Token(end) }
    }

    #[test]
    fn arcs_that_miss_or_repeat_a_token_are_refused() {
        let refusal = |arcs: &[(u32, TokenArc)]| {
            ArcTable::new(arcs.iter().map(|&(shard, arc)| (ShardId(shard), arc))).unwrap_err().to_string()
        };
        assert_eq!(refusal(&[]), "there are no shards");
        assert_eq!(refusal(&[(1, arc(0, 5)), (1, arc(5, 0))]), "shard 1 has two arcs");
        for arcs in [
            &[(1, arc(0, 5))][..],
            &[(1, arc(0, 5)), (2, arc(6, 0))],
            &[(1, arc(0, 5)), (2, arc(4, 0))],
            &[(1, arc(0, 5)), (2, arc(5, 1))],
            &[(1, arc(3, 3)), (2, arc(3, 3))],
            &[(1, arc(3, 3)), (2, arc(4, 5))],
            &[(1, arc(0, 5)), (2, arc(0, 5)), (3, arc(5, 0))],
            // Twice round the ring.
            &[(1, arc(0, 10)), (2, arc(10, 5)), (3, arc(5, 0))],
        ] {
            assert!(refusal(arcs).contains("does not end at the start"), "{arcs:?}");
        }
    }

    #[test]
    fn unequal_arcs_are_looked_up_by_their_starts() {
        let table =
            ArcTable::new([(ShardId(7), arc(20, 10)), (ShardId(3), arc(10, 11)), (ShardId(5), arc(11, 20))]).unwrap();
        let shards = [0, 9, 10, 11, 19, 20, u64::MAX].map(|token| table.lookup(Token(token)).0);
        assert_eq!(shards, [7, 7, 3, 5, 5, 7, 7]);
        let back: Vec<_> = table.iter().collect();
        assert_eq!(back, [(ShardId(3), arc(10, 11)), (ShardId(5), arc(11, 20)), (ShardId(7), arc(20, 10))]);
        assert_eq!(ArcTable::new(back).unwrap(), table);
    }
}
