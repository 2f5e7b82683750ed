//! All tests once over, for people who look at one machine.
//!
//! The tests are those that run inside instances; here each fills a span instead of doing a fixed amount of work, and is
//! repeated, so that its figure can be set beside that of the usual tool for the thing: sysbench, STREAM, fio, iperf3.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use foreshadow_model::{Burst, BurstKind, BurstOutcome, Bytes, Operations, with_causes};

use crate::burst::{Length, Means, Prepared, Test, array_bytes};
use crate::cgroup::memory_room;
use crate::clock::monotonic;
use crate::scratch::Scratch;

/// Beyond its span a test may take this much before it counts as starved.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is tested, and how.
#[derive(Clone, Debug)]
pub struct Suite {
    /// In this order.
    pub tests: Vec<Test>,
    /// How long each takes.
    pub span: Duration,
    /// How often each is done.
    pub runs: u32,
    /// Where the file of the storage tests is made.
    pub directory: PathBuf,
    /// Its size.
    pub size: Bytes,
    /// Who answers round trips and takes bulk; `None` is a thread of this process.
    pub peer: Option<SocketAddr>,
}

impl Suite {
    /// Does the tests, one run of all after the other. `begins` is told of each before it begins, with how many are done.
    ///
    /// Changes this process while it lasts: huge pages are off, and network tests keep the calling thread on one processor.
    #[must_use]
    pub fn run(&self, mut begins: impl FnMut(&Test, usize)) -> Vec<Vec<Burst>> {
        let needs_file =
            self.tests.iter().any(|test| test.kind.resource() == foreshadow_model::Resource::Storage);
        let scratch = if needs_file {
            Scratch::create(&self.directory, self.size).map_err(|error| with_causes(&error))
        } else {
            Err("no storage test was asked for".to_owned())
        };
        let mut prepared = Prepared::new(Means {
            memory: array_bytes(memory_room(None), Means::ALONE),
            scratch,
            peer: self.peer,
            no_network: None,
        });
        let mut all: Vec<Vec<Burst>> = vec![Vec::new(); self.tests.len()];
        for run in 0..self.runs as usize {
            for (at, test) in self.tests.iter().enumerate() {
                begins(test, run * self.tests.len() + at);
                let ready = prepared.prepare([test], Length::Span(self.span)).pop();
                let start = monotonic();
                let deadline = start.saturating_add(self.span).saturating_add(PATIENCE);
                all[at].extend(ready.map(|ready| ready.run(start, deadline)));
            }
        }
        all
    }
}

/// The tests that need nobody else, and those of these targets (`host:port`).
#[must_use]
pub fn all_tests(targets: &[String]) -> Vec<Test> {
    let mut tests: Vec<Test> = BurstKind::ALL
        .into_iter()
        .filter(|kind| !matches!(kind, BurstKind::Connect | BurstKind::Resolve))
        .map(Test::from)
        .collect();
    tests.extend(targets.iter().flat_map(|target| Test::of_target(target)));
    tests
}

/// One burst for several runs of a test: the median of each figure. What did not run in any is taken from the last.
#[must_use]
pub fn median_of_runs(runs: &[Burst]) -> Option<Burst> {
    let ran: Vec<_> = runs
        .iter()
        .filter_map(|burst| match burst.outcome {
            BurstOutcome::Ran { wall_seconds, cpu_seconds, score_per_second, operations } => {
                Some((wall_seconds, cpu_seconds, score_per_second, operations.unwrap_or_default()))
            }
            _ => None,
        })
        .collect();
    let last = runs.last()?;
    if ran.is_empty() {
        return Some(last.clone());
    }
    let middle = |pick: fn(&(f64, f64, f64, Operations)) -> f64| {
        let mut values: Vec<f64> = ran.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
    };
    let operations = Operations {
        count: ran.iter().map(|ran| ran.3.count).sum(),
        minimum_seconds: ran.iter().map(|ran| ran.3.minimum_seconds).fold(f64::INFINITY, f64::min),
        p50_seconds: middle(|ran| ran.3.p50_seconds),
        p99_seconds: middle(|ran| ran.3.p99_seconds),
    };
    let outcome = BurstOutcome::Ran {
        wall_seconds: middle(|ran| ran.0),
        cpu_seconds: middle(|ran| ran.1),
        score_per_second: middle(|ran| ran.2),
        operations: Some(operations),
    };
    Some(Burst { outcome, ..last.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_does_every_test_in_every_run() {
        let suite = Suite {
            tests: vec![BurstKind::Processor.into(), BurstKind::RoundTrip.into()],
            span: Duration::from_millis(5),
            runs: 3,
            directory: "/nonexistent".into(),
            size: Bytes::mebi(1),
            peer: None,
        };
        let mut begun = Vec::new();
        let all = suite.run(|test, done| begun.push((test.kind, done)));
        assert_eq!(begun.last(), Some(&(BurstKind::RoundTrip, 5)));
        assert!(all.iter().all(|runs| runs.len() == 3), "{all:?}");
        assert!(all.iter().flatten().all(|burst| burst.figure().is_some()), "{all:?}");
    }

    #[test]
    fn a_directory_that_is_not_there_skips_its_tests_and_no_others() {
        let suite = Suite {
            tests: vec![BurstKind::Processor.into(), BurstKind::StorageRead.into()],
            span: Duration::from_millis(1),
            runs: 1,
            directory: "/nonexistent".into(),
            size: Bytes::mebi(1),
            peer: None,
        };
        let all = suite.run(|_, _| {});
        assert!(all[0][0].figure().is_some());
        let BurstOutcome::Skipped { reason } = &all[1][0].outcome else { panic!("{all:?}") };
        assert!(reason.contains("/nonexistent"), "{reason}");
    }

    #[test]
    fn the_median_of_runs_leaves_an_outlier_out() {
        let ran = |seconds: f64| {
            let operations =
                Operations { count: 1, minimum_seconds: seconds, p50_seconds: seconds, p99_seconds: seconds };
            let outcome = BurstOutcome::Ran {
                wall_seconds: seconds,
                cpu_seconds: seconds,
                score_per_second: 1.0 / seconds,
                operations: Some(operations),
            };
            Burst::new(BurstKind::StorageRead, outcome)
        };
        assert_eq!(median_of_runs(&[ran(1.0), ran(90.0), ran(2.0)]).unwrap().figure(), Some(2.0));
        let skipped = Burst::new(BurstKind::Bulk, BurstOutcome::Skipped { reason: "no".into() });
        assert_eq!(median_of_runs(std::slice::from_ref(&skipped)), Some(skipped));
        assert_eq!(median_of_runs(&[]), None);
    }
}
