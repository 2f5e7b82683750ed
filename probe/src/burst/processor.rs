//! Integer work that stays in registers: primes by trial division, as `sysbench cpu` does it.

use std::hint::black_box;
use std::time::Duration;

use super::Done;
use crate::clock::monotonic;

/// Numbers below this are tested in one slice; the same limit as `sysbench cpu` has by default.
const LIMIT: u64 = 10_000;

/// Slices in a burst: about 5 ms on a core of 2024. A constant for ever: changing it makes every recorded wall time
/// incomparable.
const SLICES: u32 = 24;

/// Primes below [`LIMIT`], the number 2 left out.
const PRIMES: u32 = 1228;

/// The score counts numbers tested.
pub(super) fn run(deadline: Duration) -> Done {
    let mut found = 0;
    for _ in 0..SLICES {
        if deadline <= monotonic() {
            return None;
        }
        found += primes_below(black_box(LIMIT));
    }
    assert_eq!(black_box(found), SLICES * PRIMES, "the processor cannot count");
    Some(f64::from(SLICES) * LIMIT as f64)
}

fn primes_below(limit: u64) -> u32 {
    let mut found = 0;
    for candidate in 3..limit {
        let mut divisor = 2;
        let mut is_prime = true;
        while divisor * divisor <= candidate {
            if candidate.is_multiple_of(divisor) {
                is_prime = false;
                break;
            }
            divisor += 1;
        }
        found += u32::from(is_prime);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_all_primes() {
        assert_eq!(primes_below(LIMIT), PRIMES);
        assert_eq!(primes_below(12), 4, "3, 5, 7, 11");
    }
}
