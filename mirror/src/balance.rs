//! Smooth weighted round robin.
//!
//! Why this rule and not least-loaded: least-loaded moves traffic away from a slow live by itself, which hides the
//! very difference that is to be found, and does so per worker, unjournaled. Here shares change only by weight, and a
//! weight only by an action. Within the weights the order is spread evenly (nginx's algorithm), not in bursts.

/// Picks among `n` peers in proportion to their weights.
#[derive(Debug, Default)]
pub(crate) struct Balancer {
    current: Vec<i64>,
}

impl Balancer {
    /// The next peer, or `None` when no peer has a weight above zero. `weights` gives the weight of every peer now;
    /// a peer to be passed over has weight 0.
    pub(crate) fn pick(&mut self, weights: impl Iterator<Item = u16>) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<usize> = None;
        let mut peers = 0;
        for (peer, weight) in weights.enumerate() {
            peers = peer + 1;
            if self.current.len() < peers {
                self.current.push(0);
            }
            if weight == 0 {
                self.current[peer] = 0;
                continue;
            }
            self.current[peer] += i64::from(weight);
            total += i64::from(weight);
            if best.is_none_or(|best| self.current[best] < self.current[peer]) {
                best = Some(peer);
            }
        }
        self.current.truncate(peers);
        let best = best?;
        self.current[best] -= total;
        Some(best)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn picks(weights: &[u16], n: usize) -> Vec<usize> {
        let mut balancer = Balancer::default();
        (0..n).filter_map(|_| balancer.pick(weights.iter().copied())).collect()
    }

    #[test]
    fn nobody_is_picked_when_nobody_may_serve() {
        assert_eq!(picks(&[], 3), Vec::<usize>::new());
        assert_eq!(picks(&[0, 0], 3), Vec::<usize>::new());
    }

    #[test]
    fn picks_are_spread_and_not_in_bursts() {
        assert_eq!(picks(&[100, 100], 4), [0, 1, 0, 1]);
        assert_eq!(picks(&[50, 10, 10], 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    proptest! {
        #[test]
        fn shares_are_exactly_the_weights(weights in prop::collection::vec(0..=100_u16, 1..6)) {
            let total: usize = weights.iter().map(|&w| usize::from(w)).sum();
            let picks = picks(&weights, total);
            for (peer, &weight) in weights.iter().enumerate() {
                prop_assert_eq!(picks.iter().filter(|&&p| p == peer).count(), usize::from(weight));
            }
        }
    }
}
