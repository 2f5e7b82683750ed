//! What changed over days: of every live, and of the service.

use std::collections::BTreeMap;

use foreshadow_engine::SeriesKey;
use foreshadow_engine::forecast::trend::{
    Change, Drift, Hourly, NotEnough, Period, Season, Sides, change, drift, season,
};
use foreshadow_engine::model::{DeployStep, InstanceId, JournalEvent, Ratio, Role};
use serde::Serialize;

use super::cells::Cells;
use super::figures::Said;
use super::gather::Facts;

/// Metrics of lives whose drift is looked at, beside the tests of their hosts.
const DRIFTING: [&str; 4] = ["latency_p50", "latency_p95", "cpu", "memory"];

/// How far back and ahead of a deploy is looked at: a week.
const REACH_MS: i64 = 7 * 86_400_000;

/// False ones among a hundred that are looked at (`forecast::trend`).
const FALSE_SHARE: f64 = 0.01;

/// A series that changes day by day.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Drifting {
    /// The live, or `service`.
    pub(crate) of: String,
    pub(crate) metric: String,
    pub(crate) unit: String,
    pub(crate) drift: Drift,
    #[serde(skip)]
    pub(crate) hours: Vec<(i64, f64)>,
}

/// What comes again in a series.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Seasonal {
    /// The live, or `service`.
    pub(crate) of: String,
    pub(crate) metric: String,
    pub(crate) day: Said<Season>,
    pub(crate) week: Said<Season>,
}

/// One roll-out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Deploy {
    pub(crate) begin_unix_ms: i64,
    pub(crate) end_unix_ms: i64,
    /// Keys of the configuration that changed.
    pub(crate) changed: Vec<String>,
    /// Whether it went through.
    pub(crate) is_done: bool,
    pub(crate) changes: Vec<Changed>,
}

/// What became of one series with a roll-out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Changed {
    /// The live, or `service`.
    pub(crate) of: String,
    pub(crate) metric: String,
    pub(crate) change: Said<Change>,
}

impl Changed {
    pub(crate) fn is_shift(&self) -> bool {
        self.change.known().is_some_and(|change| change.is_shift)
    }
}

/// A live whose baseline followed it in small steps for a day, as its last assessment has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Behind {
    pub(crate) live: InstanceId,
    pub(crate) delta: Ratio,
}

/// Everything that changes over days.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Trends {
    /// Chronic drift, the strongest first.
    pub(crate) drifting: Vec<Drifting>,
    /// Series that could be judged.
    pub(crate) judged: usize,
    /// So many of them drift by chance, at most.
    pub(crate) false_expected: f64,
    /// Series of which nothing can be said, and why of the first.
    pub(crate) unjudged: usize,
    pub(crate) unjudged_because: Option<String>,
    /// What the comparison itself has noticed: lives that became worse than their shadow little by little.
    pub(crate) behind_shadow: Vec<Behind>,
    /// Of the service, then of every live.
    pub(crate) seasons: Vec<Seasonal>,
    pub(crate) deploys: Vec<Deploy>,
}

pub(super) fn trends(facts: &Facts) -> Trends {
    let (service, lives) = (of_service(facts), of_lives(facts));
    let usual = || service.iter().chain(lives.iter().filter(|series| series.metric == LATENCY));
    let mut trends = Trends {
        drifting: Vec::new(),
        judged: 0,
        false_expected: 0.0,
        unjudged: 0,
        unjudged_because: None,
        behind_shadow: behind_shadow(facts),
        seasons: usual().map(seasonal).collect(),
        deploys: deploys(facts, &usual().collect::<Vec<_>>()),
    };
    for series in service.iter().chain(&lives) {
        match drift(&series.hourly) {
            Ok(drift) => {
                trends.judged += 1;
                if drift.is_chronic {
                    trends.drifting.push(series.drifting(drift));
                }
            }
            Err(why) => {
                trends.unjudged += 1;
                trends.unjudged_because.get_or_insert_with(|| why.to_string());
            }
        }
    }
    let size = |of: &Drifting| of.drift.over_span.get().abs();
    trends.drifting.sort_by(|a, b| size(b).total_cmp(&size(a)));
    #[expect(clippy::cast_precision_loss, reason = "a count of series")]
    let judged = trends.judged as f64;
    trends.false_expected = FALSE_SHARE * judged;
    trends
}

/// The metric of lives that seasons and deploys are told of.
const LATENCY: &str = "latency p95";

/// A series to be looked at.
struct Series {
    of: String,
    metric: String,
    unit: String,
    hourly: Hourly,
}

impl Series {
    fn drifting(&self, drift: Drift) -> Drifting {
        let (of, metric, unit) = (self.of.clone(), self.metric.clone(), self.unit.clone());
        Drifting { of, metric, unit, drift, hours: self.hourly.points().collect() }
    }
}

fn of_lives(facts: &Facts) -> Vec<Series> {
    let is_told = |key: &SeriesKey| {
        let is_test = key.unit == "s" && key.metric != "forecast_lead";
        key.role == Role::Live && (is_test || DRIFTING.contains(&&*key.metric))
    };
    let told = facts.courses.iter().filter(|course| is_told(&course.key));
    let series = told.map(|course| Series {
        of: course.key.instance.to_string(),
        metric: words(&course.key.metric),
        unit: course.key.unit.to_string(),
        hourly: course.hourly.clone(),
    });
    series.collect()
}

fn behind_shadow(facts: &Facts) -> Vec<Behind> {
    let mut last = BTreeMap::new();
    for entry in &facts.entries {
        if let JournalEvent::VerdictChanged { assessment } = &entry.event {
            last.insert(assessment.live.clone(), assessment.drift);
        }
    }
    last.into_iter().filter_map(|(live, drift)| Some(Behind { live, delta: drift? })).collect()
}

/// `latency p95`, as people say it.
fn words(metric: &str) -> String {
    metric.replace('_', " ")
}

/// Series of the service as a whole.
fn of_service(facts: &Facts) -> Vec<Series> {
    let series = |metric: &str, unit: &str, cells: &Cells| Series {
        of: "service".into(),
        metric: metric.into(),
        unit: unit.into(),
        hourly: Hourly::of(cells.samples(facts.grid)),
    };
    vec![
        series("load", "1/s", &facts.load()),
        series("users' latency p95", "ms", &facts.users_p95()),
        series("processor time per request", "ms", &facts.cpu_per_request()),
    ]
}

fn said<T>(result: Result<T, NotEnough>) -> Said<T> {
    result.map_or_else(|why| Said::Unknown(why.to_string()), Said::Known)
}

fn seasonal(series: &Series) -> Seasonal {
    let of = |period: Period| said(season(&series.hourly, period));
    let (whose, metric) = (series.of.clone(), series.metric.clone());
    Seasonal { of: whose, metric, day: of(Period::Day), week: of(Period::Week) }
}

/// The roll-outs that began in the span, each between the one before and the one after it.
fn deploys(facts: &Facts, series: &[&Series]) -> Vec<Deploy> {
    let mut all = begun(facts);
    let ends: Vec<(i64, i64)> = all.iter().map(|deploy| (deploy.begin_unix_ms, deploy.end_unix_ms)).collect();
    for (at, deploy) in all.iter_mut().enumerate() {
        let before = at.checked_sub(1).map_or(i64::MIN, |before| ends[before].1);
        let after = ends.get(at + 1).map_or(i64::MAX, |after| after.0);
        let sides = Sides {
            from: before.max(deploy.begin_unix_ms - REACH_MS),
            until: deploy.begin_unix_ms,
            since: deploy.end_unix_ms,
            to: after.min(deploy.end_unix_ms + REACH_MS),
        };
        let changed = |series: &&Series| Changed {
            of: series.of.clone(),
            metric: series.metric.clone(),
            change: said(change(&series.hourly, sides)),
        };
        deploy.changes = series.iter().map(changed).collect();
    }
    all.retain(|deploy| facts.asked.holds(deploy.begin_unix_ms));
    all
}

/// The roll-outs of the journal, without what they changed.
fn begun(facts: &Facts) -> Vec<Deploy> {
    let mut all: Vec<Deploy> = Vec::new();
    for entry in &facts.entries {
        let JournalEvent::Deploy { step, .. } = &entry.event else { continue };
        if let DeployStep::Begun { changed } = step {
            all.push(Deploy {
                begin_unix_ms: entry.unix_ms,
                end_unix_ms: entry.unix_ms,
                changed: changed.clone(),
                is_done: false,
                changes: Vec::new(),
            });
        } else if let Some(deploy) = all.last_mut() {
            deploy.end_unix_ms = entry.unix_ms;
            deploy.is_done = matches!(step, DeployStep::Done);
        }
    }
    all
}
