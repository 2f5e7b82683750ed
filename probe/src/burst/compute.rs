//! Work that stays in registers: integers in one thread and in all, and doubles.

use std::hint::black_box;
use std::thread;

use super::operations::Log;
use super::{Length, Work};
use crate::clock::monotonic;

/// Numbers below this are tested in one event; the same limit as `sysbench cpu` has by default.
const LIMIT: u64 = 10_000;

/// Primes below [`LIMIT`], the number 2 left out.
const PRIMES: u32 = 1228;

/// Events of every thread in one step: a burst is one step.
const THREAD_EVENTS: u32 = 8;

/// The same where a span is filled, so that starting threads costs nothing to speak of.
const THREAD_EVENTS_OF_SPAN: u32 = 400;

/// Numbers that are worked on side by side: as many as the registers of the oldest machine hold.
const LANES: usize = 16;

/// Rounds over all lanes in one step.
const ROUNDS: u32 = 100_000;

/// Primes by trial division, as `sysbench cpu` does it. The score counts its events.
pub(super) struct Primes;

impl Work for Primes {
    fn step(&mut self, log: &mut Log) -> Result<f64, String> {
        log.time(1, event)?;
        Ok(1.0)
    }
}

fn event() -> Result<(), String> {
    if black_box(primes_below(black_box(LIMIT))) == PRIMES {
        Ok(())
    } else {
        Err("the processor cannot count: it found another number of primes".to_owned())
    }
}

/// Divisors are compared with the root as doubles, as `sysbench` does: with squares it would be an eighth faster, and its
/// figures would be nobody else's.
fn primes_below(limit: u64) -> u32 {
    let mut found = 0;
    for candidate in 3..limit {
        let root = (candidate as f64).sqrt();
        let mut divisor = 2_u64;
        let mut is_prime = true;
        while divisor as f64 <= root {
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

/// The same in as many threads as this process may use processors.
pub(super) struct Threads {
    threads: usize,
    events: u32,
}

impl Threads {
    pub(super) fn new(length: Length) -> Self {
        let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let events = if length == Length::Burst { THREAD_EVENTS } else { THREAD_EVENTS_OF_SPAN };
        Self { threads, events }
    }
}

impl Work for Threads {
    #[expect(clippy::cast_precision_loss, reason = "a number of threads")]
    fn step(&mut self, log: &mut Log) -> Result<f64, String> {
        let events = self.events;
        let work = || {
            let before = monotonic();
            (0..events).try_for_each(|_| event())?;
            Ok::<_, String>(monotonic().saturating_sub(before).as_secs_f64() / f64::from(events))
        };
        let each = thread::scope(|scope| {
            let others: Vec<_> = (1..self.threads)
                .map(|_| thread::Builder::new().spawn_scoped(scope, work).map_err(|error| error.to_string()))
                .collect();
            let own = work();
            let joined = others.into_iter().map(|thread| match thread.map(thread::ScopedJoinHandle::join) {
                Ok(Ok(took)) => took,
                Ok(Err(_panic)) => Err("a thread panicked".to_owned()),
                Err(reason) => Err(format!("no thread can be started: {reason}")),
            });
            std::iter::once(own).chain(joined).collect::<Result<Vec<f64>, String>>()
        })?;
        each.iter().for_each(|&seconds| log.note(seconds));
        Ok(f64::from(events) * self.threads as f64)
    }
}

/// `x = a·x + b` for [`LANES`] numbers. The score counts multiplications and additions.
pub(super) struct Floats([f64; LANES]);

impl Default for Floats {
    fn default() -> Self {
        Self([1.0; LANES])
    }
}

impl Work for Floats {
    fn step(&mut self, log: &mut Log) -> Result<f64, String> {
        log.time(1, || floats(&mut self.0));
        // `x = 0.5·x + 0.5` stays at 1 for ever.
        if self.0.iter().all(|x| (x - 1.0).abs() < 1e-12) {
            Ok(2.0 * f64::from(ROUNDS) * LANES as f64)
        } else {
            Err("the processor cannot calculate: 0.5·1 + 0.5 is not 1".to_owned())
        }
    }
}

#[inline(never)]
fn floats(numbers: &mut [f64; LANES]) {
    let (a, b) = (black_box(0.5), black_box(0.5));
    let mut own = *numbers;
    for _ in 0..ROUNDS {
        // All products, then all sums: written as one expression the compiler keeps each sum right behind its product, and
        // the processor waits an eighth longer.
        own.iter_mut().for_each(|x| *x *= a);
        own.iter_mut().for_each(|x| *x += b);
    }
    *numbers = black_box(own);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_all_primes() {
        assert_eq!(primes_below(LIMIT), PRIMES);
        assert_eq!(primes_below(12), 4, "3, 5, 7, 11");
    }

    #[test]
    fn a_step_of_all_threads_counts_them_all() {
        let mut threads = Threads { threads: 3, events: 2 };
        let mut log = Log::default();
        assert_eq!(threads.step(&mut log), Ok(6.0));
        assert_eq!(log.summary().unwrap().count, 3);
    }
}
