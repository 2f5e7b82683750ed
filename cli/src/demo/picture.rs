//! What the demo shows: lines as things happen, a bar while they don't, a picture at the end.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use foreshadow_engine::model::StatusReport;
use indicatif::{ProgressBar, ProgressStyle};

use super::Summary;
use super::score::{Objective, Seconds};
use crate::args::Output;
use crate::spark;

/// How far one part of the demo is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment<'a> {
    pub(crate) what: &'a str,
    pub(crate) passed: Duration,
    pub(crate) length: Duration,
}

/// Where the demo speaks.
pub(crate) struct Stage {
    output: Output,
    bar: Option<ProgressBar>,
}

impl Stage {
    pub(crate) fn new(output: Output) -> Self {
        let shows_bar = output == Output::Human && io::stderr().is_terminal();
        let bar = shows_bar.then(|| {
            let style = ProgressStyle::with_template("{wide_msg}\n[{bar:40}] {pos}/{len} s");
            ProgressBar::new(1).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { output, bar }
    }

    /// Says what happened.
    pub(crate) fn say(&mut self, event: &str, text: &str) {
        match self.output {
            // A reader that went away is met again, and quietly, at the summary.
            Output::Json => {
                let line = serde_json::json!({ "event": event, "text": text });
                writeln!(io::stdout(), "{line}").unwrap_or_default();
            }
            Output::Human => match &self.bar {
                Some(bar) => bar.println(text),
                None => eprintln!("{text}"),
            },
        }
    }

    /// Shows how it stands.
    pub(crate) fn progress(&mut self, moment: Moment<'_>, status: &StatusReport, p95_ms: f64) {
        let Some(bar) = &self.bar else { return };
        bar.set_length(moment.length.as_secs());
        bar.set_position(moment.passed.as_secs());
        let what = moment.what;
        let verdicts: Vec<String> = status
            .pairs
            .iter()
            .map(|pair| {
                let verdict = pair
                    .assessment
                    .as_ref()
                    .map_or_else(|| "–".into(), |assessment| assessment.verdict.to_string());
                format!("{} {verdict}, {} mirrored", pair.live.id, pair.sample_rate)
            })
            .collect();
        bar.set_message(format!("{what}: users' p95 {p95_ms:.1} ms · {}", verdicts.join(" · ")));
    }

    /// The end: figures and a picture for people, the summary alone for programs.
    pub(crate) fn end(
        &mut self,
        summary: &Summary,
        objective: Objective,
        (with, without): (&Seconds, &Seconds),
    ) -> io::Result<()> {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let mut out = io::stdout().lock();
        match self.output {
            Output::Json => writeln!(out, "{}", serde_json::to_string(summary)?),
            Output::Human => write!(out, "{}", people(summary, objective, with, without)),
        }
    }
}

fn people(summary: &Summary, objective: Objective, with: &Seconds, without: &Seconds) -> String {
    let seconds =
        |value: Option<f64>| value.map_or_else(|| "not within the time".into(), |s| format!("{s:.1} s"));
    let (low, high) = (1.0, 10_000.0);
    let Objective { percent, within } = objective;
    let actions = if summary.actions.is_empty() { "none".into() } else { summary.actions.join("; ") };
    format!(
        "\nThe users' p95, second by second from the fault on ({percent} of 100 within {within:.0?} wanted; ▁ is 1 ms, █ is 10 s, logarithmic)\n\
         \x20 acting    {}\n\x20 watching  {}\n\n\
         found after             {}  ({})\n\
         done                    {actions}\n\
         users well again after  {}\n\
         objective missed        {} s acting, {} s only watching\n\
         requests                {}, of which {} failed\n\
         mirrored                {:.1} % of requests\n\
         controller              {:.1} % of one core\n\
         seed                    {}\n",
        spark::logarithmic(&with.p95_ms, low, high),
        spark::logarithmic(&without.p95_ms, low, high),
        seconds(summary.detected_after_s),
        summary.attributed_to.as_deref().unwrap_or("no attribution"),
        summary.recovered_after_s.map_or_else(|| "not within the time".into(), |s| format!("{s} s")),
        summary.slo_violation_s,
        summary.slo_violation_s_observe_only,
        summary.requests,
        summary.failed_requests,
        summary.mirrored_share * 100.0,
        summary.controller_cpu_ratio * 100.0,
        summary.seed,
    )
}
