//! What came of a suite: as it is printed in JSON, kept, and read again.

use std::path::Path;

use foreshadow_engine::model::{Burst, BurstKind, BurstOutcome, Measure};
use foreshadow_engine::probe::burst::PAGE_MODE;
use foreshadow_engine::probe::suite::{Suite, median_of_runs};
use serde::{Deserialize, Serialize};

use super::judge::Judgement;
use crate::exit::Exit;
use crate::failure::Failure;

/// Larger files are none of ours.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The machine and its figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Report {
    /// Raised when the shape changes.
    format: u32,
    /// Wall clock at the end, Unix milliseconds.
    unix_ms: i64,
    pub(super) machine: Machine,
    /// Pages of the memory tests.
    page_mode: String,
    /// How long each run of a test took.
    span_seconds: f64,
    runs: u32,
    /// Where the storage tests ran.
    directory: String,
    file_bytes: u64,
    /// Who answered round trips; `null` is the machine itself.
    peer: Option<String>,
    pub(super) tests: Vec<Figure>,
    /// Against the machine's own past, in words.
    #[serde(default)]
    judgement: Option<String>,
}

/// What was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Machine {
    pub(super) name: String,
    pub(super) kernel: String,
    pub(super) processor: String,
    pub(super) processors: usize,
}

/// One test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Figure {
    pub(super) test: BurstKind,
    pub(super) target: Option<String>,
    /// The unit of `value`, `lowest` and `highest`.
    pub(super) unit: String,
    /// `higher` or `lower`.
    pub(super) better: Better,
    /// Median over the runs; `null` if it did not run.
    pub(super) value: Option<f64>,
    /// The lowest of the runs.
    pub(super) lowest: Option<f64>,
    /// The highest of the runs.
    pub(super) highest: Option<f64>,
    /// Work per second of processor time, in the unit of the rate, or operations.
    pub(super) per_cpu_second: Option<f64>,
    /// The shortest operation: what the machine can do when nobody is in the way.
    pub(super) minimum_seconds: Option<f64>,
    pub(super) p50_seconds: Option<f64>,
    pub(super) p99_seconds: Option<f64>,
    /// Why there is no value.
    pub(super) reason: Option<String>,
}

/// In which direction a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Better {
    Higher,
    Lower,
}

impl Report {
    const FORMAT: u32 = 1;

    pub(super) fn of(suite: &Suite, runs: &[Vec<Burst>]) -> Self {
        Self {
            format: Self::FORMAT,
            unix_ms: foreshadow_engine::unix_ms(),
            machine: Machine::here(),
            page_mode: PAGE_MODE.to_owned(),
            span_seconds: suite.span.as_secs_f64(),
            runs: suite.runs,
            directory: suite.directory.display().to_string(),
            file_bytes: suite.size.get(),
            peer: suite.peer.map(|peer| peer.to_string()),
            tests: runs.iter().filter_map(|runs| Figure::of(runs)).collect(),
            judgement: None,
        }
    }

    /// Reads one that was printed as JSON.
    pub(super) fn read(file: &Path) -> Result<Self, Failure> {
        let refuse = |why: String| {
            Failure::message(Exit::Usage, format!("failed to read the result `{}`: {why}", file.display()))
                .remedy("`foreshadow probe -o json > FILE` writes one")
        };
        let length = std::fs::metadata(file).map_err(|error| refuse(error.to_string()))?.len();
        if FILE_BYTES_MAX < length {
            return Err(refuse(format!("it has {length} bytes, a result has a few thousand")));
        }
        let text = std::fs::read_to_string(file).map_err(|error| refuse(error.to_string()))?;
        let report: Self = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        if report.format != Self::FORMAT {
            return Err(refuse(format!(
                "it has format {}, this version reads {}",
                report.format,
                Self::FORMAT
            )));
        }
        Ok(report)
    }

    /// The same with what was said of it.
    pub(super) fn judged(&self, judgement: &Judgement) -> Self {
        Self { judgement: Some(judgement.line()), ..self.clone() }
    }

    /// How it was measured, in words.
    pub(super) fn how(&self) -> String {
        let peer = self.peer.as_ref().map(|peer| format!(", peer {peer}")).unwrap_or_default();
        format!(
            "{} runs of {} ms each, {}, storage in {}{peer}",
            self.runs,
            1000.0 * self.span_seconds,
            self.page_mode,
            self.directory
        )
    }

    /// Whether figures of this test may be set beside those of another report of the same machine.
    pub(super) fn is_alike(&self, other: &Self, test: BurstKind) -> bool {
        use foreshadow_engine::model::Resource;
        // A test of five milliseconds is no past of one of three hundred.
        let is_measured_alike =
            (self.span_seconds, &self.page_mode) == (other.span_seconds, &other.page_mode);
        is_measured_alike
            && match test.resource() {
                Resource::Storage => {
                    (&self.directory, self.file_bytes) == (&other.directory, other.file_bytes)
                }
                Resource::Network => self.peer == other.peer,
                _ => true,
            }
    }

    /// The same test in another report.
    pub(super) fn figure(&self, like: &Figure) -> Option<&Figure> {
        self.tests.iter().find(|figure| figure.test == like.test && figure.target == like.target)
    }
}

impl Machine {
    fn here() -> Self {
        let uname = rustix::system::uname();
        let processor = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        });
        Self {
            name: uname.nodename().to_string_lossy().into_owned(),
            kernel: uname.release().to_string_lossy().into_owned(),
            processor: processor.unwrap_or_else(|| uname.machine().to_string_lossy().into_owned()),
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        }
    }
}

impl Figure {
    fn of(runs: &[Burst]) -> Option<Self> {
        let burst = median_of_runs(runs)?;
        let (unit, better) = match burst.kind.measure() {
            Measure::Rate(unit) => (unit, Better::Higher),
            Measure::Latency => ("s", Better::Lower),
        };
        let values = || runs.iter().filter_map(Burst::figure);
        let mut figure = Self {
            test: burst.kind,
            target: burst.target.clone(),
            unit: unit.to_owned(),
            better,
            value: burst.figure(),
            lowest: values().reduce(f64::min),
            highest: values().reduce(f64::max),
            per_cpu_second: None,
            minimum_seconds: None,
            p50_seconds: None,
            p99_seconds: None,
            reason: None,
        };
        match burst.outcome {
            BurstOutcome::Ran { wall_seconds, cpu_seconds, score_per_second, operations } => {
                figure.per_cpu_second =
                    Some(score_per_second * wall_seconds / cpu_seconds).filter(|rate| rate.is_finite());
                figure.minimum_seconds = operations.map(|operations| operations.minimum_seconds);
                figure.p50_seconds = operations.map(|operations| operations.p50_seconds);
                figure.p99_seconds = operations.map(|operations| operations.p99_seconds);
            }
            BurstOutcome::Starved { waited_seconds } => {
                figure.reason =
                    Some(format!("not done after {waited_seconds:.1} s: something else takes it all"));
            }
            BurstOutcome::BackedOff { reason } | BurstOutcome::Skipped { reason } => {
                figure.reason = Some(reason)
            }
        }
        Some(figure)
    }

    /// The test and whom it was done to, in words.
    pub(super) fn name(&self) -> String {
        match &self.target {
            Some(target) => format!("{} {target}", self.test.label()),
            None => self.test.label().to_owned(),
        }
    }

    /// By how much it is worse than a value, in log units; negative is better.
    pub(super) fn worse_log(&self, than: f64) -> Option<f64> {
        let log = (self.value? / than).ln();
        let log = if self.better == Better::Higher { -log } else { log };
        log.is_finite().then_some(log)
    }
}
