//! The table from range queries instead of a file.

use std::collections::BTreeMap;

use foreshadow_engine::{Prometheus, Range, RangeError};

use super::usage;
use crate::args::JudgeArgs;
use crate::command::history::{moment, now_ms};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::table::{Series, Table};

/// Where a bearer token is looked for: not among the arguments, which everybody on the machine may read.
const TOKEN: &str = "FORESHADOW_PROMETHEUS_TOKEN";

/// Rows of one table.
const ROWS_MAX: i64 = 2_000_000;

/// Asks for live, shadow and what stands beside them; every moment at which live has a value is a row.
pub(super) async fn read(url: &str, args: &JudgeArgs) -> Result<Table, Failure> {
    let Some(live) = &args.live else {
        return Err(usage("--prometheus: expected `--live QUERY`"));
    };
    if args.shadow.is_none() && !args.own_history {
        return Err(usage("--prometheus: expected `--shadow QUERY`, or `--own-history`"));
    }
    let now = now_ms();
    let from = moment(&args.since, now)?;
    let to = args.until.as_deref().map_or(Ok(now), |until| moment(until, now))?;
    let step = crate::command::replay::span("--step", &args.step)?;
    let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
    if to - from < step || ROWS_MAX < (to - from) / step {
        return Err(usage(format!(
            "expected `--since` before `--until`, with 1 to {ROWS_MAX} steps between them"
        )));
    }
    let server = Prometheus::new(url, std::env::var(TOKEN).ok()).map_err(|error| refused(&error))?;
    let range = Range { from, to, step };
    let live = one(&server, live, range).await?;
    let beside = async |query: Option<&String>| match query {
        None => Ok(None),
        Some(query) => one(&server, query, range).await.map(Some),
    };
    let shadow = beside(args.shadow.as_ref().filter(|_| !args.own_history)).await?;
    let (load, samples) = (beside(args.load.as_ref()).await?, beside(args.samples.as_ref()).await?);
    let moments: Vec<i64> = live.keys().copied().collect();
    let column = |of: &BTreeMap<i64, f64>| -> Vec<f64> {
        let figure = |at: &i64| of.get(at).copied().filter(|value| value.is_finite() && 0.0 <= *value);
        moments.iter().map(|at| figure(at).unwrap_or(f64::NAN)).collect()
    };
    #[expect(clippy::cast_precision_loss, reason = "a moment of this millennium")]
    let series = Series {
        rows: (0..moments.len()).collect(),
        seconds: moments.iter().map(|&at| at as f64 / 1000.0).collect(),
        live: column(&live),
        shadow: shadow.as_ref().map(column),
        load: load.as_ref().map(column),
        samples: samples.as_ref().map(column),
        ..Series::default()
    };
    Ok(Table { rows: series.rows.len(), series: vec![series] })
}

/// The only series of a query, by moment.
async fn one(server: &Prometheus, query: &str, range: Range) -> Result<BTreeMap<i64, f64>, Failure> {
    let found = server.range(query, range).await.map_err(|error| refused(&error))?;
    match <[_; 1]>::try_from(found) {
        Ok([(_, points)]) => Ok(points.into_iter().collect()),
        Err(found) if found.is_empty() => Err(usage(format!("`{query}` gives no series in this span"))),
        Err(found) => {
            let labels: Vec<&str> = found.iter().take(3).map(|(labels, _)| labels.as_str()).collect();
            Err(usage(format!(
                "expected one series, `{query}` gives {}: {} …",
                found.len(),
                labels.join(", ")
            ))
            .remedy("narrow it by a label, or put them together, as in `avg(…)`"))
        }
    }
}

fn refused(error: &RangeError) -> Failure {
    let exit = match error {
        RangeError::Address | RangeError::Refused { .. } => Exit::Usage,
        _ => Exit::Failed,
    };
    Failure::new(error).with_exit(exit)
}
