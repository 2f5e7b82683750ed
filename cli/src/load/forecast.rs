//! `foreshadow forecast`: the load ahead, and how good forecasts of it would have been.

use std::io::{self, Write};

use comfy_table::{Cell, CellAlignment, Table, presets};
use foreshadow_engine::forecast::{Evaluation, Horizon, LoadForecaster, Target, evaluate};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::grid::Grid;
use super::{figure, percent, plot, seconds, share, usage};
use crate::args::{ForecastArgs, Of, Output};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::judge::moment;
use crate::spark;

/// Leads that a table shows.
const LEADS: usize = 8;

/// Days of past that forecasts rest on: what is older has hardly any weight.
const DAYS_READ: usize = 28;

/// Steps of a lead.
const LEAD_STEPS: usize = 1440;

/// Blocks of past in the picture.
const BLOCKS: usize = 60;

/// Steps of values and of peaks, in seconds, at the least.
const STEP_OF_VALUES: u32 = 300;
const STEP_OF_PEAKS: u32 = 60;

/// One lead.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Row {
    #[serde(skip)]
    pub(super) moment: f64,
    lead_seconds: f64,
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    /// Bands are assumed: there is less than a day of past.
    cold: bool,
}

/// Reads, forecasts or evaluates, prints.
pub(crate) fn forecast(args: &ForecastArgs) -> Result<Exit, Failure> {
    let quantile = share("--quantile", &args.quantile, 0.51..=0.99)?;
    let (target, least) = match args.target {
        Of::Value => (Target::Value, STEP_OF_VALUES),
        Of::Peak => (Target::Peak, STEP_OF_PEAKS),
    };
    let asked = args.step.as_deref().map(|step| seconds("--step", step)).transpose()?;
    let grid = Grid::read(&args.file, &args.columns, asked, least)?;
    grid.warn_of_gaps();
    let lead = seconds("--lead", &args.lead)?;
    let (step, day) = (f64::from(grid.step_seconds), grid.steps_per_day());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let lead_steps = (lead / step).ceil() as usize;
    if day < lead_steps {
        return Err(usage(format!("--lead: expected a day at most, got {lead:.0} s")));
    }
    if LEAD_STEPS < lead_steps {
        return Err(usage(format!(
            "--lead: expected {LEAD_STEPS} steps at most, got {lead_steps} of {step} s; give a longer --step"
        )));
    }
    if lead < step {
        eprintln!("warning: a step is {step} s long, so that is the lead");
    }
    let horizon = Horizon { step_seconds: grid.step_seconds, lead_steps, target, quantile };
    let mut out = io::BufWriter::new(io::stdout().lock());
    if args.evaluate {
        say_evaluation(&mut out, &grid, horizon, args.output)?;
    } else {
        let rows = ahead(&grid, horizon)?;
        if rows.iter().any(|row| row.cold) {
            eprintln!("warning: less than a day of load is known: the bands are assumed, not learned");
        }
        let evaluation = evaluate(&grid.values, horizon, grid.first);
        match args.output {
            Output::Json => lines(&mut out, &rows, evaluation, &grid)?,
            Output::Human => people(&mut out, &rows, evaluation, &grid, horizon)?,
        }
        if let Some(file) = &args.plot {
            plot::forecast(file, &grid, &rows)?;
        }
    }
    out.flush()?;
    Ok(Exit::Fine)
}

/// The last days of the table.
fn recent(grid: &Grid) -> (usize, &[Option<f64>]) {
    let day = grid.steps_per_day();
    let from = grid.values.len().saturating_sub(DAYS_READ * day);
    (from, &grid.values[from..])
}

/// What is said at the end of the table, for some leads up to the one that is asked for.
fn ahead(grid: &Grid, horizon: Horizon) -> Result<Vec<Row>, Failure> {
    let (from, values) = recent(grid);
    let say = |lead_steps: usize, quantile: f64| {
        let mut forecaster =
            LoadForecaster::new(Horizon { lead_steps, quantile, ..horizon }, grid.moment(from));
        values.iter().map(|value| forecaster.push(*value)).last().flatten()
    };
    let row = |lead_steps: usize| {
        let (high, low) = (say(lead_steps, horizon.quantile)?, say(lead_steps, 1.0 - horizon.quantile)?);
        #[expect(clippy::cast_precision_loss, reason = "a day of steps at most")]
        let lead_seconds = lead_steps as f64 * f64::from(grid.step_seconds);
        let moment = grid.moment(grid.values.len() - 1) + lead_seconds;
        Some(Row {
            moment,
            lead_seconds,
            value: high.value,
            low: low.quantile,
            high: high.quantile,
            cold: high.cold,
        })
    };
    let rows: Option<Vec<Row>> = leads(horizon.lead_steps).into_iter().map(row).collect();
    rows.ok_or_else(|| {
        usage("the last hour of the table holds no load: of what is ahead nothing can be said")
    })
}

/// Leads from the first step to the last, evenly.
fn leads(last: usize) -> Vec<usize> {
    let count = LEADS.min(last).max(1);
    (1..=count).map(|k| (k * last).div_ceil(count).max(1)).collect()
}

fn say_evaluation(
    out: &mut impl Write,
    grid: &Grid,
    horizon: Horizon,
    output: Output,
) -> Result<(), Failure> {
    if grid.days() <= 2.0 {
        return Err(usage(format!(
            "--evaluate: expected more than two days of load, found {:.1}: nothing was known of a day before",
            grid.days()
        )));
    }
    let begun = processor_ms();
    let evaluation = evaluate(&grid.values, horizon, grid.first);
    let took = processor_ms() - begun;
    // A fit is every fourth value.
    #[expect(clippy::cast_precision_loss, reason = "a count of values")]
    let per_fit = took / (grid.values.len() as f64 / 4.0).max(1.0);
    if evaluation.is_none() {
        eprintln!(
            "warning: the load of a day was always that of the day before: there is no error to compare with"
        );
    }
    match output {
        Output::Json => writeln!(out, "{}", evaluation_json(grid, horizon, evaluation, per_fit))?,
        Output::Human => evaluation_for_people(out, grid, horizon, evaluation, per_fit)?,
    }
    Ok(())
}

/// Processor time of this thread.
#[expect(clippy::cast_precision_loss, reason = "the seconds of a run")]
fn processor_ms() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e3 + now.tv_nsec as f64 / 1e6
}

/// `q90`.
fn quantile_name(quantile: f64) -> String {
    format!("q{}", percent(quantile))
}

fn evaluation_json(grid: &Grid, horizon: Horizon, evaluation: Option<Evaluation>, per_fit: f64) -> Value {
    let q = quantile_name(horizon.quantile);
    let of = |value: fn(&Evaluation) -> f64| evaluation.as_ref().map_or(Value::Null, |e| json!(value(e)));
    let step = f64::from(horizon.step_seconds);
    #[expect(clippy::cast_precision_loss, reason = "a day of steps at most")]
    let lead_seconds = horizon.lead_steps as f64 * step;
    let all = [
        ("type", json!("evaluation")),
        ("steps", json!(grid.values.len())),
        ("origins", json!(evaluation.map_or(0, |e| e.origins))),
        ("step_seconds", json!(horizon.step_seconds)),
        ("lead_seconds", json!(lead_seconds)),
        ("target", json!(if horizon.target == Target::Peak { "peak" } else { "value" })),
        ("mase", of(|e| e.mase)),
        ("naive_mase", of(|e| e.naive_mase)),
        ("seasonal_naive_mase", of(|e| e.seasonal_naive_mase)),
        (&format!("pinball_{q}"), of(|e| e.pinball)),
        (&format!("naive_pinball_{q}"), of(|e| e.naive_pinball)),
        (&format!("coverage_{q}"), of(|e| e.coverage)),
        ("cpu_ms_per_fit", json!(per_fit)),
        ("worth_it", json!(evaluation.is_some_and(|e| e.worth_it))),
        ("worth_it_share", of(|e| e.worth_it_share)),
    ];
    Value::Object(all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

fn evaluation_for_people(
    out: &mut impl Write,
    grid: &Grid,
    horizon: Horizon,
    evaluation: Option<Evaluation>,
    per_fit: f64,
) -> io::Result<()> {
    let Some(e) = evaluation else {
        return writeln!(out, "A forecast is not worth having here: every day was like the one before.");
    };
    let what = if horizon.target == Target::Peak { "the peak within" } else { "the load in" };
    let minutes = f64::from(horizon.step_seconds) * horizon.lead_steps as f64 / 60.0;
    writeln!(
        out,
        "{what} {minutes:.0} min, forecast at {} moments of {:.1} days, each with what was known then\n",
        e.origins,
        grid.days()
    )?;
    let percent = percent(horizon.quantile);
    writeln!(
        out,
        "error of the median     {:.3}   last value {:.3}   as yesterday {:.3}   (MASE: 1 is what \"as yesterday\" is off at one value)",
        e.mase, e.naive_mase, e.seasonal_naive_mase
    )?;
    writeln!(
        out,
        "loss of the {percent} %        {:.3}   last hour with a margin {:.3}",
        e.pinball, e.naive_pinball
    )?;
    writeln!(out, "{percent} % held in          {:.1} % of the moments", 100.0 * e.coverage)?;
    writeln!(out, "processor               {per_fit:.3} ms a fit")?;
    writeln!(out, "\n{}", worth(Some(e)))
}

fn worth(evaluation: Option<Evaluation>) -> String {
    match evaluation {
        None => "Whether a forecast is worth having here cannot be said: it takes more than two days, and days that differ.".into(),
        Some(e) if e.worth_it => format!(
            "A forecast is worth having here: its error is {:.2} of that of the last value, its quantile loses {:.2} of that of the last hour with a margin.",
            e.mase / e.naive_mase, e.pinball / e.naive_pinball
        ),
        Some(e) => format!(
            "A forecast is not worth having here: its error is {:.2} of that of the last value, its quantile loses {:.2} of that of the last hour with a margin (0.95 at most is asked of both).",
            e.mase / e.naive_mase, e.pinball / e.naive_pinball
        ),
    }
}

fn lines(out: &mut impl Write, rows: &[Row], evaluation: Option<Evaluation>, grid: &Grid) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        r#type: &'static str,
        timestamp: String,
        #[serde(flatten)]
        row: &'a Row,
    }
    for row in rows {
        let line = Line { r#type: "forecast", timestamp: moment(row.moment), row };
        writeln!(out, "{}", serde_json::to_string(&line)?)?;
    }
    let summary = json!({
        "type": "summary", "steps": grid.values.len(), "step_seconds": grid.step_seconds,
        "worth_it": evaluation.is_some_and(|e| e.worth_it),
        "mase": evaluation.map(|e| e.mase), "naive_mase": evaluation.map(|e| e.naive_mase),
    });
    writeln!(out, "{summary}")
}

fn people(
    out: &mut impl Write,
    rows: &[Row],
    evaluation: Option<Evaluation>,
    grid: &Grid,
    horizon: Horizon,
) -> io::Result<()> {
    let (picture, low, high) = picture(grid, rows);
    writeln!(
        out,
        "{picture}\n{} to {}, the last day; behind the bar what is ahead\n",
        figure(low),
        figure(high)
    )?;
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    let percent = percent(horizon.quantile);
    let of = if horizon.target == Target::Peak { "peak until" } else { "at" };
    table.set_header([
        of.to_owned(),
        "median".into(),
        format!("{} %", super::percent(1.0 - horizon.quantile)),
        format!("{percent} %"),
    ]);
    for row in rows {
        let right = |value: f64| Cell::new(figure(value)).set_alignment(CellAlignment::Right);
        table.add_row([Cell::new(moment(row.moment)), right(row.value), right(row.low), right(row.high)]);
    }
    writeln!(out, "{table}\n")?;
    writeln!(out, "{}", worth(evaluation))
}

/// The last day and what is ahead of it, as blocks, with the range.
fn picture(grid: &Grid, rows: &[Row]) -> (String, f64, f64) {
    let day = grid.steps_per_day();
    let last = &grid.values[grid.values.len().saturating_sub(day)..];
    let size = last.len().div_ceil(BLOCKS).max(1);
    let part = |part: &[Option<f64>]| part.iter().flatten().copied().reduce(f64::max).unwrap_or(f64::NAN);
    let past: Vec<f64> = last.chunks(size).map(part).collect();
    let ahead: Vec<f64> = rows.iter().map(|row| row.value).collect();
    let all = || past.iter().chain(&ahead).copied().filter(|value| value.is_finite());
    let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
    let text = format!("{}|{}", spark::linear(&past, low, high), spark::linear(&ahead, low, high));
    (text, low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leads_end_with_the_one_that_is_asked_for() {
        assert_eq!(leads(1), [1]);
        assert_eq!(leads(3), [1, 2, 3]);
        assert_eq!(leads(12), [2, 3, 5, 6, 8, 9, 11, 12]);
    }
}
