//! `foreshadow replay`: an access log as load.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use foreshadow_engine::mirror::Destination;
use foreshadow_engine::mirror::log::{Format, Skipped, Speed};
use foreshadow_engine::mirror::replay::{
    LogSource, Progress, ReplayOptions, ReplayTally, replay as run_replay,
};
use foreshadow_engine::model::{LogHistogram, PerSecond};
use hyper::header::HeaderValue;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Output, ReplayArgs};
use crate::command::redact::rules;
use crate::command::runtime;
use crate::exit::Exit;
use crate::failure::Failure;

/// How often progress is shown.
const SHOW_EVERY: Duration = Duration::from_millis(500);

/// Late enough that the load was another one than in the log.
const LATE: Duration = Duration::from_millis(500);

pub(crate) fn replay(args: &ReplayArgs) -> Result<Exit, Failure> {
    let usage = |why: String| Failure::message(Exit::Usage, why);
    let format = args.format.parse::<Format>().map_err(|error| usage(error.to_string()))?;
    let speed = args.speed.parse::<Speed>().map_err(|error| usage(error.to_string()))?;
    if args.follow && speed != Speed::ORIGINAL {
        return Err(usage("what is written now cannot be replayed faster or slower than it comes".into()));
    }
    let options = |target| {
        Ok::<_, Failure>(ReplayOptions {
            source: source(args),
            format,
            target,
            host: args.host.as_deref().map(host).transpose()?,
            redact: rules(args.rules.as_deref())?,
            is_marked: !args.unmarked,
            speed,
            gap_max: span("--gap-max", &args.gap_max)?,
            rate_max: args.rate_max.as_deref().map(per_second).transpose()?,
            in_flight_max: usize::from(args.in_flight),
            patience: span("--patience", &args.patience)?,
        })
    };
    runtime()?.block_on(async {
        let target = Destination::find_open(&args.to).await.map_err(|error| {
            let exit = if error.is_transient() { Exit::Failed } else { Exit::Usage };
            Failure::new(&error)
                .with_exit(exit)
                .remedy("name where requests shall go: `--to http://127.0.0.1:8080`")
        })?;
        run(options(target)?, args.output).await
    })
}

async fn run(options: ReplayOptions, output: Output) -> Result<Exit, Failure> {
    let progress = Progress::default();
    let mut terminate = signal(SignalKind::terminate())?;
    let (result, is_interrupted) = tokio::select! {
        result = run_replay(options, progress.clone()) => (result, false),
        () = show(&progress) => (Ok(()), false),
        interrupt = tokio::signal::ctrl_c() => { interrupt?; (Ok(()), true) }
        _ = terminate.recv() => (Ok(()), true),
    };
    let tally = progress.tally();
    let mut out = io::stdout().lock();
    match output {
        Output::Human => write!(out, "{}", told(&tally))?,
        Output::Json => writeln!(out, "{}", as_json(&tally))?,
    }
    result.map_err(|error| {
        Failure::new(&error).remedy("give the path of an access log, or `-` for standard input")
    })?;
    if is_interrupted {
        return Ok(Exit::Interrupted);
    }
    complaint(&tally).map_or(Ok(Exit::Fine), Err)
}

/// What was no replay at all.
fn complaint(tally: &ReplayTally) -> Option<Failure> {
    let unreadable = tally.skipped.get(&Skipped::Unreadable).copied().unwrap_or(0);
    if tally.sent == 0 && 0 < unreadable {
        let failure = Failure::message(Exit::Failed, "no line of the log could be read");
        return Some(
            failure
                .remedy("say how it is written with `--format`; `foreshadow replay --help` has the formats"),
        );
    }
    if tally.sent == 0 {
        return Some(Failure::message(Exit::Failed, "the log has no request that may be sent again"));
    }
    (tally.sent == tally.unanswered).then(|| Failure::message(Exit::Failed, "no request got an answer"))
}

fn source(args: &ReplayArgs) -> LogSource {
    match (args.log.as_os_str().as_encoded_bytes(), args.follow) {
        (b"-", is_live) => LogSource::Input { is_live },
        (_, true) => LogSource::Followed(args.log.clone()),
        (_, false) => LogSource::File(args.log.clone()),
    }
}

fn host(text: &str) -> Result<HeaderValue, Failure> {
    let value = HeaderValue::from_str(text).ok().filter(|_| !text.contains(['/', '@', ' ']));
    value.ok_or_else(|| {
        Failure::message(Exit::Usage, format!("expected a host such as `shop.example`, got `{text}`"))
    })
}

/// `30s`.
pub(crate) fn span(name: &str, text: &str) -> Result<Duration, Failure> {
    let span = text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
    span.filter(|span| !span.is_zero()).ok_or_else(|| {
        Failure::message(Exit::Usage, format!("expected a span for `{name}` such as `30s`, got `{text}`"))
    })
}

/// `100/s`.
fn per_second(text: &str) -> Result<PerSecond, Failure> {
    let number = text.strip_suffix("/s").and_then(|number| number.parse::<f64>().ok());
    number.filter(|rate| 0.0 < *rate).and_then(PerSecond::new).ok_or_else(|| {
        Failure::message(Exit::Usage, format!("expected a rate above 0 such as `100/s`, got `{text}`"))
    })
}

/// Shows how far it is, for ever.
async fn show(progress: &Progress) {
    let bar = if io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    let mut before = 0;
    loop {
        tokio::time::sleep(SHOW_EVERY).await;
        let tally = progress.tally();
        #[expect(clippy::cast_precision_loss, reason = "requests of half a second")]
        let rate = (tally.sent - before) as f64 / SHOW_EVERY.as_secs_f64();
        before = tally.sent;
        let at = tally.reached.map(|at| format!(", log at {at}")).unwrap_or_default();
        bar.set_message(format!("{} sent, {rate:.0}/s, {} unanswered{at}", tally.sent, tally.unanswered));
        bar.tick();
    }
}

/// What came of it, for people.
fn told(tally: &ReplayTally) -> String {
    let mut text = format!("{} requests sent, {} without an answer\n", tally.sent, tally.unanswered);
    if 0 < tally.in_flight {
        text += &format!("{} of them were under way at the end\n", tally.in_flight);
    }
    for (class, count) in &tally.statuses {
        text += &format!("  {class}xx {count}\n");
    }
    text += &latency("latency", &tally.latency_ms);
    text += &latency("in the log", &tally.logged_latency_ms);
    if 0 < tally.known_status {
        text += &format!(
            "{} of {} answers with another status than in the log\n",
            tally.other_status, tally.known_status
        );
    }
    for (why, count) in &tally.skipped {
        text += &format!("warning: {count} lines left out: {why}\n");
    }
    if 0 < tally.over_cap {
        text += &format!("warning: {} requests left out: over `--rate-max`\n", tally.over_cap);
    }
    if 0 < tally.busy {
        text += &format!("warning: {} requests left out: `--in-flight` were under way already\n", tally.busy);
    }
    if LATE <= tally.latest {
        text += &format!(
            "warning: up to {:.1} s late: the log is faster than this machine can send\n",
            tally.latest.as_secs_f64()
        );
    }
    text
}

fn latency(name: &str, histogram: &LogHistogram) -> String {
    let quantile = |q| histogram.quantile(q).map(|ms| format!("{ms:.1}"));
    match (quantile(0.5), quantile(0.99)) {
        (Some(median), Some(tail)) => format!("{name}: p50 {median} ms, p99 {tail} ms\n"),
        _ => String::new(),
    }
}

fn as_json(tally: &ReplayTally) -> serde_json::Value {
    let named = |counts: Vec<(String, u64)>| counts.into_iter().collect::<BTreeMap<_, _>>();
    json!({
        "sent": tally.sent,
        "unanswered": tally.unanswered,
        "statuses": named(tally.statuses.iter().map(|(class, n)| (format!("{class}xx"), *n)).collect()),
        "knownStatus": tally.known_status,
        "otherStatus": tally.other_status,
        "latencyP50Ms": tally.latency_ms.quantile(0.5),
        "latencyP99Ms": tally.latency_ms.quantile(0.99),
        "loggedLatencyP50Ms": tally.logged_latency_ms.quantile(0.5),
        "loggedLatencyP99Ms": tally.logged_latency_ms.quantile(0.99),
        "skipped": named(tally.skipped.iter().map(|(why, n)| (why.label().to_owned(), *n)).collect()),
        "inFlight": tally.in_flight,
        "overCap": tally.over_cap,
        "busy": tally.busy,
        "latestSeconds": tally.latest.as_secs_f64(),
    })
}
