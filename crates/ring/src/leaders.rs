//! Chooses the preferred leader of every shard: each node leads as many shards as its weight asks
//! for.
//!
//! A shard's leader does most of its work, so leaders are balanced apart from replicas. While it
//! helps, one leader moves from a busy node to an idle one, directly or along a chain of shards:
//!
//! ```text
//!   n1 leads 3 ── shard 5 ──→ n2 leads 2 ── shard 9 ──→ n3 leads 1          n1 2, n2 2, n3 2
//! ```
//!
//! When no chain helps, no other choice is better balanced (Harvey et al., "Semi-matchings for
//! bipartite graphs and load balancing", theorem 3.1).

use std::collections::VecDeque;

/// Puts every shard's preferred leader first and keeps the order of the other nodes. `weights` are
/// those of the nodes, not 0.
pub(crate) fn balance(shards: &mut [Vec<usize>], weights: &[u32]) {
    let mut leaders: Vec<usize> = shards.iter().map(|nodes| nodes[0]).collect();
    while improve(shards, &mut leaders, weights) {}
    for (nodes, &leader) in shards.iter_mut().zip(&leaders) {
        let at = nodes.iter().position(|&node| node == leader).expect("a leader is one of the shard's nodes");
        nodes[..=at].rotate_right(1);
    }
}

/// Moves one leader if that balances better, and returns whether it did. The sum of `led² / weight`
/// falls every time, so the iteration ends.
fn improve(shards: &[Vec<usize>], leaders: &mut [usize], weights: &[u32]) -> bool {
    let mut led: Vec<Vec<usize>> = vec![Vec::new(); weights.len()];
    leaders.iter().enumerate().for_each(|(shard, &leader)| led[leader].push(shard));
    // The change of the sum when a node leads one shard more or less, as a fraction: half of it,
    // without the constant.
    let helps = |from: usize, to: usize| {
        let (given, taken) = ((2 * led[from].len() as u128).saturating_sub(1), 2 * led[to].len() as u128 + 1);
        given * u128::from(weights[to]) > taken * u128::from(weights[from])
    };
    for source in 0..weights.len() {
        // The shard that a chain from `source` gives to this node, and the node that leads it now.
        let mut given_by: Vec<Option<(usize, usize)>> = vec![None; weights.len()];
        let mut queue = VecDeque::from([source]);
        while let Some(from) = queue.pop_front() {
            for &shard in &led[from] {
                for &to in &shards[shard] {
                    if to == source || given_by[to].is_some() {
                        continue;
                    }
                    given_by[to] = Some((shard, from));
                    if !helps(source, to) {
                        queue.push_back(to);
                        continue;
                    }
                    let mut node = to;
                    while let Some((shard, from)) = given_by[node] {
                        leaders[shard] = node;
                        node = from;
                    }
                    return true;
                }
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaders(shards: &[&[usize]], weights: &[u32]) -> Vec<usize> {
        let mut shards: Vec<Vec<usize>> = shards.iter().map(|nodes| nodes.to_vec()).collect();
        balance(&mut shards, weights);
        shards.iter().map(|nodes| nodes[0]).collect()
    }

    #[test]
    fn leaders_move_along_a_chain_of_shards() {
        // Node 0 and node 2 share no shard: 0's excess reaches 2 by way of 1.
        assert_eq!(leaders(&[&[0, 1], &[0, 1], &[1, 2]], &[100; 3]), [1, 0, 2]);
    }

    #[test]
    fn weights_ask_for_more_or_fewer() {
        let shards = [&[0_usize, 1][..]; 9];
        let of = |weights: &[u32]| leaders(&shards, weights).iter().filter(|&&leader| leader == 0).count();
        assert_eq!([of(&[100, 100]), of(&[200, 100]), of(&[100, 200])], [5, 6, 3]);
    }

    #[test]
    fn the_others_keep_their_order() {
        let mut shards = vec![vec![0, 1, 2], vec![0, 1, 2], vec![0, 1, 2]];
        balance(&mut shards, &[100; 3]);
        shards.sort();
        assert_eq!(shards, [[0, 1, 2], [1, 0, 2], [2, 0, 1]]);
    }
}
