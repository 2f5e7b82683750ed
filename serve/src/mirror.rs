//! What a mirror without a controller tells: sums since its start, for scrapers.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{Router, get};
use foreshadow_model::wire::{CaptureSummary, LogSummary, Summary, UpstreamSummary};
use foreshadow_model::{Agreement, CaptureLoss, Drops, InstanceId, LogMoments, SampleRate, SideWindow};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::door::until_cancelled;
use crate::host;
use crate::metrics::{Format, Labels, Sheet, bare, count};

/// Everything since the start.
#[derive(Clone, Debug, Default)]
pub struct MirrorTotals {
    /// By live.
    pub lives: BTreeMap<InstanceId, LiveTotals>,
    /// Requests that the mirror answered itself.
    pub refused: u64,
    /// Processor time of the mirror, in seconds.
    pub cpu_seconds: f64,
    /// Since the start, in seconds.
    pub span_seconds: f64,
    /// What was seen of the wire, where it is read.
    pub capture: Option<CaptureSummary>,
    /// What a log said, where one is read.
    pub log: Option<LogSummary>,
}

/// Everything about one live since the start.
#[derive(Clone, Debug, Default)]
pub struct LiveTotals {
    /// What live answered.
    pub live: SideWindow,
    /// What its shadow answered.
    pub shadow: SideWindow,
    /// Pairs of answers that agree.
    pub paired: LogMoments,
    /// How far answers agree.
    pub agreement: Agreement,
    /// Requests that were chosen to be copied.
    pub sampled: u64,
    /// Copies that came to nothing.
    pub drops: Drops,
    /// Connections that became something else than HTTP.
    pub upgraded: u64,
    /// The rate in force.
    pub rate: SampleRate,
    /// Whether it is passed over.
    pub is_ejected: bool,
}

impl LiveTotals {
    fn add(&mut self, seen: &UpstreamSummary) {
        self.live.merge(&seen.live_side);
        self.shadow.merge(&seen.shadow_side);
        self.paired.merge(&seen.paired);
        self.agreement.merge(&seen.agreement);
        self.sampled += seen.sampled;
        self.drops.merge(&seen.drops);
        self.upgraded += seen.upgraded;
        self.rate = seen.sample_rate;
        self.is_ejected = seen.ejected;
    }
}

impl MirrorTotals {
    /// Adds what happened in a while; a live that is there no more is forgotten.
    pub fn add(&mut self, summary: &Summary) {
        self.lives.retain(|id, _| summary.upstreams.iter().any(|seen| seen.live == *id));
        for seen in &summary.upstreams {
            self.lives.entry(seen.live.clone()).or_default().add(seen);
        }
        self.refused += summary.refused;
        self.cpu_seconds += summary.cpu_seconds;
        self.span_seconds += summary.span_seconds;
        if let Some(capture) = &summary.capture {
            self.capture.get_or_insert_default().merge(capture);
        }
        if let Some(log) = &summary.log {
            self.log.get_or_insert_default().merge(log);
        }
    }
}

/// Serves `/metrics` until cancelled. It asks nobody who they are, so `listener` must be on the loopback.
///
/// # Errors
/// Those of accepting connections.
pub async fn serve_mirror(
    listener: TcpListener,
    totals: Arc<Mutex<MirrorTotals>>,
    cancel: CancellationToken,
) -> io::Result<()> {
    let router = Router::new().route("/metrics", get(metrics)).with_state(totals);
    let router = router.layer(axum::middleware::from_fn(host::loopback_only));
    let serving = axum::serve(listener, router).with_graceful_shutdown(cancel.clone().cancelled_owned());
    until_cancelled(serving, cancel).await
}

async fn metrics(State(totals): State<Arc<Mutex<MirrorTotals>>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = Format::accepted(accept);
    let text = text(&totals.lock().unwrap_or_else(PoisonError::into_inner), format);
    ([(header::CONTENT_TYPE, format.content_type())], text).into_response()
}

fn text(totals: &MirrorTotals, format: Format) -> String {
    let mut sheet = Sheet::default();
    sheet.gauge("uptime", Some("seconds"), "Since the mirror started", bare(totals.span_seconds));
    sheet.counter("cpu", Some("seconds"), "Processor time of the mirror", bare(totals.cpu_seconds));
    sheet.counter(
        "refused",
        None,
        "Requests that the mirror answered itself: 408, 501, 502, 503 or 504",
        bare(count(totals.refused)),
    );
    let per = |value: &dyn Fn(&LiveTotals) -> f64| -> Vec<(Labels, f64)> {
        totals.lives.iter().map(|(id, live)| (vec![("live", id.to_string())], value(live))).collect()
    };
    sheet.gauge("sample_rate", Some("ratio"), "Share of requests mirrored", per(&|live| live.rate.get()));
    sheet.gauge(
        "ejected",
        None,
        "1 while a live that is to get requests refuses connections or answers hardly anybody",
        per(&|live| f64::from(u8::from(live.is_ejected))),
    );
    sheet.counter("sampled", None, "Requests chosen to be copied", per(&|live| count(live.sampled)));
    sheet.counter(
        "upgraded",
        None,
        "Connections that became something else than HTTP",
        per(&|live| count(live.upgraded)),
    );
    for (name, unit, help, value) in OF_A_SIDE {
        let mut rows = Vec::new();
        for (id, live) in &totals.lives {
            for (side, window) in [("live", &live.live), ("shadow", &live.shadow)] {
                rows.push((vec![("live", id.to_string()), ("side", side.to_owned())], value(window)));
            }
        }
        sheet.counter(name, unit, help, rows);
    }
    let by = |name: &'static str, of: &dyn Fn(&LiveTotals) -> Vec<(String, u64)>| -> Vec<(Labels, f64)> {
        let rows = totals.lives.iter().flat_map(|(id, live)| {
            let row = |(label, n): (String, u64)| (vec![("live", id.to_string()), (name, label)], count(n));
            of(live).into_iter().map(row).collect::<Vec<_>>()
        });
        rows.collect()
    };
    let drops = |live: &LiveTotals| {
        live.drops.0.iter().map(|(reason, n)| (reason.label().to_owned(), *n)).collect::<Vec<_>>()
    };
    sheet.counter("dropped", None, "Copies that came to nothing", by("reason", &drops));
    let agreement = |live: &LiveTotals| {
        let Agreement { same, live_error_only, shadow_error_only, diverging, .. } = &live.agreement;
        let named = [
            ("same", same),
            ("live_error", live_error_only),
            ("shadow_error", shadow_error_only),
            ("diverging", diverging),
        ];
        named.map(|(name, n)| (name.to_owned(), *n)).to_vec()
    };
    sheet.counter(
        "pairs",
        None,
        "Two answers to one request, by how far they agree",
        by("agreement", &agreement),
    );
    totals.capture.iter().for_each(|capture| of_the_wire(capture, &mut sheet));
    totals.log.iter().for_each(|log| of_the_log(log, &mut sheet));
    sheet.written(format)
}

fn of_the_log(said: &LogSummary, sheet: &mut Sheet) {
    let skipped = said.skipped.iter().map(|(why, n)| (vec![("reason", why.clone())], count(*n))).collect();
    sheet.counter("log_requests", None, "Lines of the log with a request", bare(count(said.requests)));
    sheet.counter("log_skipped", None, "Lines of the log without a request that may be sent again", skipped);
}

fn of_the_wire(seen: &CaptureSummary, sheet: &mut Sheet) {
    sheet.counter(
        "capture_connections",
        None,
        "Connections that began to be followed on the wire",
        bare(count(seen.connections)),
    );
    sheet.counter(
        "capture_packets_dropped",
        None,
        "Packets that found no room between the kernel and the mirror",
        bare(count(seen.packets_dropped)),
    );
    let lost = CaptureLoss::ALL.map(|loss| {
        let n = seen.lost.get(&loss).copied().unwrap_or(0);
        (vec![("reason", loss.label().to_owned())], count(n))
    });
    sheet.counter(
        "capture_lost",
        None,
        "Connections that could not be read, or not any further",
        lost.into(),
    );
}

type OfASide = (&'static str, Option<&'static str>, &'static str, fn(&SideWindow) -> f64);

const OF_A_SIDE: [OfASide; 3] = [
    ("answers", None, "Answers", |side| count(side.requests)),
    ("failures", None, "Answers that failed, or never came", |side| count(side.errors)),
    ("busy", Some("seconds"), "Latencies of all answers together", |side| side.busy_seconds),
];

#[cfg(test)]
mod tests {
    use foreshadow_model::DropReason;
    use std::time::Duration;

    use super::*;

    #[test]
    fn sums_go_on_over_summaries() {
        let mut totals = MirrorTotals::default();
        for _twice in 0..2 {
            let mut live_side =
                SideWindow { requests: 3, errors: 1, busy_seconds: 0.5, ..SideWindow::default() };
            live_side.latency.record(1000.0);
            let mut paired = LogMoments::default();
            paired.record_pair(Duration::from_millis(2), Duration::from_millis(1));
            totals.add(&Summary {
                generation: foreshadow_model::Generation(1),
                span_seconds: 10.0,
                upstreams: vec![UpstreamSummary {
                    live: InstanceId::live(1),
                    shadow: None,
                    live_side,
                    shadow_side: SideWindow::default(),
                    paired,
                    agreement: Agreement { same: 1, ..Agreement::default() },
                    sampled: 2,
                    copied_bytes: 0,
                    drops: Drops([(DropReason::TooBig, 1)].into()),
                    sample_rate: SampleRate::clamped(0.1),
                    ejected: false,
                    upgraded: 1,
                    thinned: BTreeMap::new(),
                }],
                refused: 4,
                cpu_seconds: 0.25,
                capture: Some(CaptureSummary {
                    connections: 5,
                    lost: [(CaptureLoss::Gap, 1)].into(),
                    packets_dropped: 7,
                }),
                log: None,
            });
        }
        let text = text(&totals, Format::OpenMetrics);
        for line in [
            "foreshadow_refused_total 8.0",
            "foreshadow_uptime_seconds 20.0",
            "foreshadow_answers_total{live=\"live-1\",side=\"live\"} 6.0",
            "foreshadow_failures_total{live=\"live-1\",side=\"live\"} 2.0",
            "foreshadow_dropped_total{live=\"live-1\",reason=\"too_big\"} 2.0",
            "foreshadow_pairs_total{live=\"live-1\",agreement=\"same\"} 2.0",
            "foreshadow_upgraded_total{live=\"live-1\"} 2.0",
            "foreshadow_capture_connections_total 10.0",
            "foreshadow_capture_packets_dropped_total 14.0",
            "foreshadow_capture_lost_total{reason=\"gap\"} 2.0",
            "foreshadow_capture_lost_total{reason=\"tls\"} 0.0",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
