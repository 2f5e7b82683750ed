//! Smooth weighted round robin.
//!
//! Why this rule and not least-loaded: least-loaded moves traffic away from a slow live by itself, which hides the
//! very difference that is to be found, and does so per worker, unjournaled. Here shares change only by weight, and a
//! weight only by an action. Within the weights the order is spread evenly (nginx's algorithm), not in bursts.
//!
//! A mirror that stands alone may be told otherwise: least-loaded takes turns among those that have the least to do, and
//! hash keeps a session with its live by rendezvous, so that a live that comes or goes moves none but its own sessions.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::net::SocketAddr;

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

/// What a live has to do for its weight, one request more included; lower is better.
pub(crate) fn burden(active: u32, weight: u16) -> f64 {
    f64::from(active + 1) / f64::from(weight.max(1))
}

/// The place of the live that a session belongs to: weighted rendezvous (Thaler and Ravishankar 1998; the weights as in
/// draft-ietf-bess-weighted-hrw). The same in every thread and after every start.
pub(crate) fn home(session: u64, lives: impl Iterator<Item = (SocketAddr, u16)>) -> Option<usize> {
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    let score = |(place, (address, weight)): (usize, (SocketAddr, u16))| {
        // Above 0 and up to 1.
        #[expect(clippy::cast_precision_loss, reason = "53 bits tell sessions apart well enough")]
        let draw = (hasher.hash_one((session, address)) >> 11) as f64 / (1_u64 << 53) as f64;
        (weight != 0).then(|| (place, f64::from(weight) / -(draw.max(f64::MIN_POSITIVE)).ln()))
    };
    lives.enumerate().filter_map(score).max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(place, _)| place)
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

    fn homes(weights: &[u16]) -> Vec<usize> {
        let lives = || (1..).map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        let pairs = || lives().zip(weights.iter().copied());
        (0..10_000).filter_map(|session| home(session, pairs())).collect()
    }

    #[test]
    fn sessions_are_spread_by_weight_and_only_those_of_a_live_that_goes_move() {
        let before = homes(&[100, 100, 50]);
        let of = |place: usize, homes: &[usize]| homes.iter().filter(|&&home| home == place).count();
        assert!((3800..4200).contains(&of(0, &before)), "{}", of(0, &before));
        assert!((1850..2150).contains(&of(2, &before)), "{}", of(2, &before));
        let after = homes(&[100, 0, 50]);
        assert!(before.iter().zip(&after).all(|(before, after)| *before == 1 || before == after));
        assert_eq!(homes(&[0, 0]), Vec::<usize>::new());
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
