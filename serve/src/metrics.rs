//! Metrics for scrapers, made from the latest status when somebody asks.
//!
//! Labels are bounded: names of lives, and words of ours. Never a route, an error or an address.

use std::fmt;
use std::sync::atomic::AtomicU64;

use foreshadow_model::{AlarmReport, DropReason, Inconclusive, PairRow, StatusReport, Verdict};
use prometheus_client::encoding::{prometheus_text, text as openmetrics_text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::feed::Sums;
use crate::remote_write::Tally;

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    OpenMetrics,
    /// The older text format, for those that do not say what they accept.
    Prometheus,
}

impl Format {
    pub(crate) fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What metrics are made from.
pub(crate) struct Facts<'a> {
    /// `None` before the first tick: then only those of the rest are told.
    pub(crate) status: Option<&'a StatusReport>,
    pub(crate) sums: &'a Sums,
    pub(crate) alarms: &'a AlarmReport,
    pub(crate) remotes: &'a [Tally],
}

/// Every metric as text.
pub(crate) fn text(facts: &Facts<'_>, format: Format) -> String {
    let mut sheet = Sheet::default();
    if let Some(status) = facts.status {
        of_service(&mut sheet, status);
        of_judging(&mut sheet, &status.pairs);
        of_knees(&mut sheet, &status.pairs);
        of_traffic(&mut sheet, &status.pairs);
        of_instances(&mut sheet, &status.pairs);
    }
    of_loop(&mut sheet, facts.sums);
    of_alarms(&mut sheet, facts.alarms);
    of_remotes(&mut sheet, facts.remotes);
    sheet.written(format)
}

pub(crate) type Labels = Vec<(&'static str, String)>;

/// A registry that is filled once and written once.
#[derive(Default)]
pub(crate) struct Sheet(Registry);

impl Sheet {
    /// All of it as text.
    pub(crate) fn written(&self, format: Format) -> String {
        let mut text = String::new();
        let written: fmt::Result = match format {
            Format::OpenMetrics => openmetrics_text::encode(&mut text, &self.0),
            Format::Prometheus => prometheus_text::encode(&mut text, &self.0),
        };
        written.expect("text can be written to");
        text
    }

    /// Quantities that go up and down.
    pub(crate) fn gauge(&mut self, name: &str, unit: Option<&str>, help: &str, values: Vec<(Labels, f64)>) {
        let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        self.register(name, unit, help, family);
    }

    /// Sums since the start; `_total` is appended.
    pub(crate) fn counter(&mut self, name: &str, unit: Option<&str>, help: &str, values: Vec<(Labels, f64)>) {
        let family = Family::<Labels, Counter<f64, AtomicU64>>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value.max(0.0));
        }
        self.register(name, unit, help, family);
    }

    fn register(&mut self, name: &str, unit: Option<&str>, help: &str, metric: impl Metric) {
        let name = format!("foreshadow_{name}");
        match unit {
            Some(unit) => self.0.register_with_unit(name, help, Unit::Other(unit.to_owned()), metric),
            None => self.0.register(name, help, metric),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of one run stay far below 2⁵³")]
pub(crate) const fn count(n: u64) -> f64 {
    n as f64
}

pub(crate) fn bare(value: f64) -> Vec<(Labels, f64)> {
    vec![(Vec::new(), value)]
}

fn of_service(sheet: &mut Sheet, status: &StatusReport) {
    let version = vec![("version", status.version.clone()), ("service", status.service.clone())];
    sheet.gauge("build_info", None, "Version of the controller, and its service", vec![(version, 1.0)]);
    sheet.gauge("uptime", Some("seconds"), "Since the controller started", bare(status.uptime_seconds));
    sheet.gauge(
        "paused",
        None,
        "1 while the kill switch is thrown",
        bare(f64::from(u8::from(status.paused))),
    );
    sheet.gauge(
        "false_alarms_per_day",
        None,
        "False alarms to be expected, at most",
        bare(status.false_alarms_per_day),
    );
    sheet.counter(
        "flipped_alarms",
        None,
        "Alarms for shifts to the better: as many of the others may be false",
        bare(count(status.flipped.alarms)),
    );
    let judged = 86_400.0 * status.flipped.days;
    sheet.counter("judged", Some("seconds"), "Time of single lives that was judged", bare(judged));
    sheet.counter("requests", None, "Requests to all lives", bare(count(status.requests)));
    sheet.counter("mirrored", None, "Copies sent to shadows", bare(count(status.mirrored)));
    let process = |name: &str| vec![("process", name.to_owned())];
    sheet.counter(
        "cpu",
        Some("seconds"),
        "Processor time of our own processes",
        vec![
            (process("controller"), status.controller_cpu_seconds),
            (process("mirror"), status.mirror_cpu_seconds),
        ],
    );
    let with_shadow = |pair: &&PairRow| pair.shadow.as_ref().is_some_and(|shadow| shadow.is_ready());
    let ready = status.pairs.iter().filter(with_shadow).count();
    sheet.gauge("lives", None, "Lives", bare(count(status.pairs.len() as u64)));
    sheet.gauge("shadows_ready", None, "Shadows that are ready", bare(count(ready as u64)));
    sheet.counter(
        "shadows_refused",
        None,
        "How often no node had room for a shadow",
        bare(count(status.shadows_refused)),
    );
    sheet.gauge(
        "unenforced",
        None,
        "Lacks of this machine that status names",
        bare(count(status.unenforced.len() as u64)),
    );
}

/// One value per pair that has it, labelled with its live.
fn per(pairs: &[PairRow], value: impl Fn(&PairRow) -> Option<f64>) -> Vec<(Labels, f64)> {
    let live = |pair: &PairRow| vec![("live", pair.live.id.to_string())];
    pairs.iter().filter_map(|pair| value(pair).map(|value| (live(pair), value))).collect()
}

/// What each live can take, as its shadow showed it.
fn of_knees(sheet: &mut Sheet, pairs: &[PairRow]) {
    sheet.gauge(
        "knee_rps",
        None,
        "Requests per second that a live can take within its objective, less by what it is slower now or has less of the processor",
        per(pairs, |pair| pair.knee.map(|knee| knee.now.get())),
    );
    sheet.gauge(
        "knee_measured_rps",
        None,
        "The same as it was measured",
        per(pairs, |pair| pair.knee.map(|knee| knee.measured.get())),
    );
}

fn of_judging(sheet: &mut Sheet, pairs: &[PairRow]) {
    let delta = |pair: &PairRow| pair.assessment.as_ref().and_then(|assessment| assessment.delta);
    let ratio = Some("ratio");
    sheet.gauge(
        "delta",
        ratio,
        "Relative worsening of live against its shadow",
        per(pairs, |pair| delta(pair).map(|delta| delta.delta.get())),
    );
    sheet.gauge(
        "delta_low",
        ratio,
        "Lower end of the 95 % interval of delta",
        per(pairs, |pair| delta(pair).map(|delta| delta.low.get())),
    );
    sheet.gauge(
        "delta_high",
        ratio,
        "Upper end of the 95 % interval of delta",
        per(pairs, |pair| delta(pair).map(|delta| delta.high.get())),
    );
    sheet.gauge(
        "evidence",
        Some("ticks"),
        "Evidence against live; from the threshold on it alarms",
        per(pairs, |pair| pair.assessment.as_ref().map(|assessment| assessment.evidence)),
    );
    sheet.gauge(
        "threshold",
        Some("ticks"),
        "Mean time between false alarms, at least",
        per(pairs, |pair| pair.assessment.as_ref().map(|assessment| assessment.threshold)),
    );
    sheet.gauge("verdict_state", None, "1 for the verdict in force", verdicts(pairs));
}

/// What users ask of every live, and how it answers.
fn of_traffic(sheet: &mut Sheet, pairs: &[PairRow]) {
    let ratio = Some("ratio");
    sheet.gauge(
        "sample_rate",
        ratio,
        "Share of requests mirrored",
        per(pairs, |pair| Some(pair.sample_rate.get())),
    );
    sheet.gauge(
        "weight",
        ratio,
        "Share of traffic relative to a full share",
        per(pairs, |pair| Some(f64::from(pair.weight.get()) / 100.0)),
    );
    sheet.gauge(
        "latency_p95",
        Some("seconds"),
        "95th percentile of live's latency, last tick",
        per(pairs, |pair| pair.latency_p95_ms.map(|ms| ms / 1000.0)),
    );
    sheet.gauge(
        "errors",
        ratio,
        "Share of live's answers that failed, last tick",
        per(pairs, |pair| pair.error_share),
    );
}

/// How lives and shadows themselves fare, and what came to nothing between them.
fn of_instances(sheet: &mut Sheet, pairs: &[PairRow]) {
    sheet.gauge(
        "shadow_ready",
        Some("seconds"),
        "From the request for a shadow to its first good readiness check",
        per(pairs, |pair| pair.shadow.as_ref().and_then(|shadow| shadow.ready_after_seconds)),
    );
    sheet.counter(
        "restarts",
        None,
        "How often a live died and was started again",
        per(pairs, |pair| Some(f64::from(pair.live.restarts))),
    );
    let untested = |pair: &PairRow| -> Vec<(Labels, f64)> {
        let row = |test: &String| (vec![("live", pair.live.id.to_string()), ("test", test.clone())], 1.0);
        pair.untested.keys().map(row).collect()
    };
    sheet.gauge(
        "probe_untested",
        None,
        "1 for a test that is not tried in this pair; the status says why",
        pairs.iter().flat_map(untested).collect(),
    );
    let drops = |pair: &PairRow| -> Vec<(Labels, f64)> {
        let row = |(reason, n): (&DropReason, &u64)| {
            (vec![("live", pair.live.id.to_string()), ("reason", reason.label().to_owned())], count(*n))
        };
        pair.drops.0.iter().map(row).collect()
    };
    sheet.counter(
        "dropped",
        None,
        "Sampled copies that came to nothing",
        pairs.iter().flat_map(drops).collect(),
    );
}

fn verdicts(pairs: &[PairRow]) -> Vec<(Labels, f64)> {
    let mut values = Vec::new();
    for pair in pairs {
        let Some(assessment) = &pair.assessment else { continue };
        let in_force = verdict_label(assessment.verdict);
        for verdict in VERDICTS {
            let labels =
                vec![("live", pair.live.id.to_string()), ("verdict", verdict_label(verdict).to_owned())];
            values.push((labels, f64::from(u8::from(verdict_label(verdict) == in_force))));
        }
    }
    values
}

/// Every verdict once; the reason of `Inconclusive` is no label.
const VERDICTS: [Verdict; 7] = [
    Verdict::Calibrating,
    Verdict::Healthy,
    Verdict::Warn,
    Verdict::Degraded,
    Verdict::Inconclusive(Inconclusive::NotReported),
    Verdict::BothDegraded,
    Verdict::ShadowSuspect,
];

const fn verdict_label(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Calibrating => "calibrating",
        Verdict::Healthy => "healthy",
        Verdict::Warn => "warn",
        Verdict::Degraded => "degraded",
        Verdict::Inconclusive(_) => "inconclusive",
        Verdict::BothDegraded => "both_degraded",
        Verdict::ShadowSuspect => "shadow_suspect",
    }
}

fn of_loop(sheet: &mut Sheet, sums: &Sums) {
    sheet.counter("cycles", None, "Ticks that ended", bare(count(sums.cycles)));
    let held = |(reason, n): (&&'static str, &u64)| (vec![("reason", (*reason).to_owned())], count(*n));
    sheet.counter(
        "held",
        None,
        "Decisions not to act, one per tick that they last",
        sums.held.iter().map(held).collect(),
    );
    let begun = sums.begun.iter().map(|(kind, n)| (vec![("kind", kind.to_string())], count(*n)));
    sheet.counter("actions_begun", None, "Actions begun", begun.collect());
    let outcomes = sums.outcomes.iter().map(|((kind, effect), n)| {
        (vec![("kind", kind.to_string()), ("effect", (*effect).to_owned())], count(*n))
    });
    sheet.counter("actions", None, "Actions that were judged, by what they did", outcomes.collect());
}

fn of_alarms(sheet: &mut Sheet, alarms: &AlarmReport) {
    let mut active: Vec<(Labels, f64)> = Vec::new();
    for alarm in &alarms.active {
        let labels = vec![("kind", alarm.kind.label().to_owned()), ("severity", alarm.severity.to_string())];
        match active.iter_mut().find(|(seen, _)| *seen == labels) {
            Some((_, n)) => *n += 1.0,
            None => active.push((labels, 1.0)),
        }
    }
    sheet.gauge("alarms", None, "Alarms that last", active);
    let (mut results, mut waiting) = (Vec::new(), Vec::new());
    for row in &alarms.deliveries {
        let receiver = ("receiver", row.receiver.clone());
        for (result, n) in [("delivered", row.delivered), ("failed", row.failed), ("given_up", row.given_up)]
        {
            results.push((vec![receiver.clone(), ("result", result.to_owned())], count(n)));
        }
        waiting.push((vec![receiver], count(row.waiting)));
    }
    sheet.counter("alarm_deliveries", None, "Messages to receivers of alarms", results);
    sheet.gauge("alarms_waiting", None, "Messages that wait for a receiver", waiting);
}

/// Targets go by their number in the configuration: an address may hold a password.
fn of_remotes(sheet: &mut Sheet, tallies: &[Tally]) {
    if tallies.is_empty() {
        return;
    }
    let each = |value: fn(&Tally) -> f64| -> Vec<(Labels, f64)> {
        let numbered = (1..).zip(tallies);
        numbered.map(|(at, tally): (u32, _)| (vec![("target", at.to_string())], value(tally))).collect()
    };
    sheet.counter(
        "remote_write_samples",
        None,
        "Samples that a target took",
        each(|tally| count(tally.sent)),
    );
    sheet.counter(
        "remote_write_dropped_samples",
        None,
        "Samples that a target refused",
        each(|tally| count(tally.dropped)),
    );
    sheet.counter(
        "remote_write_failed_requests",
        None,
        "Requests that a target did not take",
        each(|tally| count(tally.failed)),
    );
    let lag = each(|tally| count(tally.lag_ms.unsigned_abs()) / 1000.0);
    sheet.gauge("remote_write_lag", Some("seconds"), "How far a target is behind", lag);
}
