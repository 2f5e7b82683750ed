//! `foreshadow backtest`: what autoscaling policies would have cost and spared on a recorded load.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Cell, CellAlignment, Table, presets};
use foreshadow_engine::forecast::backtest::{
    Advice, Comparison, Dip, FILLED, Family, Line, Service, Settings, Startup, Trace, compare,
};
use serde::Serialize;
use serde_json::json;

use super::grid::Grid;
use super::{between, emit, figure, percent, plot, seconds, share, usage};
use crate::args::{BacktestArgs, Output};
use crate::command::read_config;
use crate::exit::Exit;
use crate::failure::Failure;

/// Steps of a trace, in seconds: finer than a minute is left to the jitter of the simulation.
const STEP_LEAST: u32 = 60;

/// Seconds of a step from which on much happens within.
const COARSE: u32 = 300;

/// Days times runs that take some seconds.
const SLOW_DAYS: f64 = 60.0;

/// Share of the moments that are busier than what a trace is scaled by.
const BUSIER: f64 = 0.0001;

/// Replicas of one service.
const LIVES_MAX: u32 = 10_000;

/// Of replicas the knee is at this many times the service time, where nobody says what is to be kept.
const OBJECTIVE_OF_SERVICE: f64 = 5.0;

/// Reads, simulates, prints.
pub(crate) fn backtest(args: &BacktestArgs) -> Result<Exit, Failure> {
    let grid = Grid::read(&args.file, &args.columns, None, STEP_LEAST)?;
    grid.warn_of_gaps();
    if grid.days() < 1.0 {
        return Err(usage(format!("expected at least a day of load, found {:.2}", grid.days())));
    }
    if COARSE < grid.step_seconds {
        eprintln!(
            "warning: rows are {} s apart: what happens within is not known, so real violations are more, and forecasts worth more, than this shows",
            grid.step_seconds
        );
    }
    let trace = trace(&grid, args)?;
    let (service, is_known) = service(args)?;
    if !(args.allow.is_finite() && (0.0..=1440.0).contains(&args.allow)) {
        return Err(usage(format!("--allow: expected 0 to 1440 minutes a day, got {}", args.allow)));
    }
    if !(1..=100).contains(&args.seeds) {
        return Err(usage(format!("--seeds: expected 1 to 100, got {}", args.seeds)));
    }
    let settings = Settings {
        seeds: args.seeds,
        quantile: share("--quantile", &args.quantile, 0.5..=0.99)?,
        allowed_per_day: args.allow,
    };
    if service.knee() <= 0.0 {
        return Err(usage(format!(
            "--objective: no load is small enough, the work alone takes longer than {:.0} ms in 5 % of the requests",
            1e3 * service.objective
        )));
    }
    if SLOW_DAYS < trace.days() * f64::from(args.seeds) && io::stderr().is_terminal() {
        eprintln!("Simulating {:.0} days, {} times for each policy ...", grid.days(), args.seeds);
    }
    let comparison = compare(&trace, &service, &settings);
    if let (Some(file), true, false) = (&args.emit, comparison.advice.forecast, is_known) {
        return Err(usage(format!(
            "--emit: `{}` is left as it was: forecasts are acted on by the capacity of a replica, which is not known here; give --knee or --service-time, or a configuration with `forecast.capacity`",
            file.display()
        )));
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    match args.output {
        Output::Json => lines(&mut out, &comparison, args.allow)?,
        Output::Human => people(&mut out, &comparison, &trace, args.allow)?,
    }
    out.flush()?;
    if let Some(file) = &args.plot {
        plot::costs(file, &comparison)?;
    }
    if let Some(file) = &args.emit {
        emit::emit(file, &block(&comparison, &settings))?;
        eprintln!("written: block `forecast` of {}", file.display());
    }
    Ok(Exit::Fine)
}

fn trace(grid: &Grid, args: &BacktestArgs) -> Result<Trace, Failure> {
    let per = seconds("--per", &args.per)?;
    let mut load: Vec<f64> =
        grid.values.iter().map(|value| value.map_or(f64::NAN, |load| load / per)).collect();
    if args.scale != "none" {
        let to = args.scale.parse::<f64>().ok().filter(|to| to.is_finite() && 0.0 < *to);
        let to = to.ok_or_else(|| {
            usage(format!(
                "--scale: expected requests per second above zero, or `none`, got `{}`",
                args.scale
            ))
        })?;
        let highest = highest(&load);
        if highest <= 0.0 {
            return Err(usage("the load is zero throughout: there is nothing to scale"));
        }
        load.iter_mut().for_each(|load| *load *= to / highest);
    }
    Ok(Trace { load, seconds: f64::from(grid.step_seconds), first_unix_seconds: grid.first })
}

/// What all but one in ten thousand moments stay below.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank"
)]
fn highest(load: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = load.iter().copied().filter(|load| load.is_finite()).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = ((1.0 - BUSIER) * sorted.len() as f64) as usize;
    sorted.get(rank.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// The service that the flags and the configuration describe, and whether anything told what a replica of it takes.
fn service(args: &BacktestArgs) -> Result<(Service, bool), Failure> {
    let config = args.config.as_deref().map(read_config).transpose()?;
    let policy = config.as_ref().map(|config| &config.policy);
    if !(1..=10_000).contains(&args.workers) {
        return Err(usage(format!("--workers: expected 1 to 10000, got {}", args.workers)));
    }
    if !(0.0..=100.0).contains(&args.variation) {
        return Err(usage(format!("--variation: expected 0 to 100, got {}", args.variation)));
    }
    let (from, to) = between("--startup", &args.startup)?;
    let startup = Startup { from: seconds("--startup", from)?, to: seconds("--startup", to)? };
    if startup.to < startup.from || 86_400.0 < startup.to {
        return Err(usage(format!(
            "--startup: expected the least before the most, and at most a day, got `{}`",
            args.startup
        )));
    }
    let time = args.service_time.as_deref().map(|span| seconds("--service-time", span)).transpose()?;
    let time = time.unwrap_or(Service::PROTOCOL.seconds);
    let objective = args.objective.as_deref().map(|span| seconds("--objective", span)).transpose()?;
    let bounds =
        policy.map(|policy| (policy.action.horizontal.lives_min, policy.action.horizontal.lives_max));
    let mut service = Service {
        workers: args.workers,
        seconds: time,
        variation: args.variation,
        objective: objective.unwrap_or(OBJECTIVE_OF_SERVICE * time),
        processor: share("--processor", &args.processor, 0.01..=1.0)?,
        startup,
        replicas: match &args.lives {
            Some(lives) => lives_of(lives)?,
            None => bounds.unwrap_or(Service::PROTOCOL.replicas),
        },
        dip: args.dip.as_deref().map(dip).transpose()?,
    };
    let known = args.knee.or_else(|| Some(policy?.forecast.capacity?.get()));
    if let Some(knee) = known {
        if !(knee.is_finite() && 0.0 < knee) {
            return Err(usage(format!("--knee: expected requests per second above zero, got {knee}")));
        }
        // The same queue, faster or slower as a whole.
        let factor = service.knee() / knee;
        if 0.0 < factor {
            (service.seconds, service.objective) = (service.seconds * factor, service.objective * factor);
        }
    }
    Ok((service, known.is_some() || args.service_time.is_some()))
}

fn lives_of(text: &str) -> Result<(u32, u32), Failure> {
    let (least, most) = between("--lives", text)?;
    match (least.trim().parse(), most.trim().parse()) {
        (Ok(least), Ok(most)) if 1 <= least && least <= most && most <= LIVES_MAX => Ok((least, most)),
        _ => Err(usage(format!(
            "--lives: expected 1 to {LIVES_MAX} with the least first, as in `3..300`, got `{text}`"
        ))),
    }
}

/// `9-21:25%`.
fn dip(text: &str) -> Result<Dip, Failure> {
    let parts = text.split_once(':').and_then(|(hours, lost)| Some((hours.split_once('-')?, lost)));
    let hour = |text: &str| text.trim().parse::<f64>().ok().filter(|hour| (0.0..=24.0).contains(hour));
    let hours = parts.and_then(|((from, to), _)| Some((hour(from)?, hour(to)?)));
    match (hours, parts) {
        (Some((from_hour, to_hour)), Some((_, lost))) if from_hour < to_hour => {
            Ok(Dip { from_hour, to_hour, lost: share("--dip", lost, 0.0..=0.9)? })
        }
        _ => Err(usage(format!(
            "--dip: expected hours of the day and a share, as in `9-21:25%`, got `{text}`"
        ))),
    }
}

/// `hpa-cpu-70`.
fn name(line: &Line) -> String {
    match line.family {
        Family::Closed | Family::Open | Family::ForecastOnly => line.family.label().to_owned(),
        family => format!("{}-{:.0}", family.label(), 100.0 * line.target),
    }
}

#[derive(Serialize)]
struct PolicyLine {
    policy: String,
    target: f64,
    violation_minutes: f64,
    replica_hours: f64,
    scale_events: u32,
    /// Its violations over those of `hpa-concurrency` at equal cost.
    over_concurrency: Option<f64>,
}

impl PolicyLine {
    fn of(line: &Line, policy: String, comparison: &Comparison) -> Self {
        Self {
            policy,
            target: line.target,
            violation_minutes: line.score.violation_minutes,
            replica_hours: line.score.replica_hours,
            scale_events: line.score.scale_events,
            over_concurrency: comparison.curves[0].compared(&line.score),
        }
    }
}

fn policy_lines(comparison: &Comparison) -> Vec<PolicyLine> {
    let mut all: Vec<PolicyLine> =
        comparison.lines.iter().map(|line| PolicyLine::of(line, name(line), comparison)).collect();
    all.push(PolicyLine::of(&comparison.advice.line, "foreshadow".into(), comparison));
    all
}

fn lines(out: &mut impl Write, comparison: &Comparison, allow: f64) -> io::Result<()> {
    for line in policy_lines(comparison) {
        writeln!(out, "{}", serde_json::to_string(&line)?)?;
    }
    let advice = &comparison.advice;
    let finite = |value: f64| value.is_finite().then_some(value);
    let last = json!({
        "recommended": name(&advice.line),
        "forecast": on(advice),
        "because": because(comparison, allow),
        "target": advice.line.target,
        "knee_rps": comparison.knee,
        "days": comparison.days,
        "with_forecast": advice.with_forecast.map(finite),
        "over_concurrency": advice.over_concurrency,
    });
    writeln!(out, "{last}")
}

fn on(advice: &Advice) -> &'static str {
    if advice.forecast { "on" } else { "off" }
}

/// One sentence.
fn because(comparison: &Comparison, allow: f64) -> String {
    let advice = &comparison.advice;
    let [whole, first, second] = advice.with_forecast.map(times);
    let gate = if advice.with_forecast[0].is_nan() {
        "forecasts do not pay: with them it is dearer than what is enough without".to_owned()
    } else if advice.forecast {
        format!(
            "with forecasts violations are {whole} of those without at equal replica-hours ({first} and {second} in the halves)"
        )
    } else {
        format!(
            "forecasts do not pay: violations with them are {whole} of those without at equal replica-hours ({first} and {second} in the halves; 0.90 at most is asked of all three, and a minute less)"
        )
    };
    let kept = if advice.is_enough {
        format!("it keeps within {allow} min a day")
    } else {
        format!("no policy keeps within {allow} min a day, this one comes nearest")
    };
    let rival = match advice.over_concurrency {
        Some(over) => {
            format!(", {} of the violations of scaling on concurrency alone at equal cost", times(over))
        }
        None => ", at a cost that scaling on concurrency alone does not come down to".to_owned(),
    };
    format!(
        "{gate}; with {:.0} % of its workers in flight as the target {kept}{rival}",
        100.0 * advice.line.target
    )
}

fn times(ratio: f64) -> String {
    if ratio.is_finite() { format!("{ratio:.2} ×") } else { "dearer".into() }
}

fn people(out: &mut impl Write, comparison: &Comparison, trace: &Trace, allow: f64) -> io::Result<()> {
    let most = trace.load.iter().copied().fold(0.0, f64::max);
    writeln!(
        out,
        "{:.1} days of load, {} requests/s at most; a replica takes {} requests/s\n",
        comparison.days,
        figure(most),
        figure(comparison.knee)
    )?;
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["policy", "violation min", "replica-hours", "scaled", "× concurrency at equal cost"]);
    for line in policy_lines(comparison) {
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        table.add_row([
            Cell::new(&line.policy),
            right(format!("{:.1}", line.violation_minutes)),
            right(format!("{:.0}", line.replica_hours)),
            right(line.scale_events.to_string()),
            right(line.over_concurrency.map_or_else(|| "–".into(), |over| format!("{over:.2}"))),
        ]);
    }
    writeln!(out, "{table}\n")?;
    writeln!(out, "Forecasting {} for this service: {}.", on(&comparison.advice), because(comparison, allow))
}

/// The block of a configuration.
fn block(comparison: &Comparison, settings: &Settings) -> String {
    let advice = &comparison.advice;
    let percent = percent(settings.quantile);
    if advice.forecast {
        format!(
            "forecast:\n  # From a back-test: forecasts pay here. Nine tenths of the knee: it is not the brink.\n  capacity: {:.1}/s\n  quantile: {percent}%\n",
            FILLED * comparison.knee
        )
    } else {
        format!(
            "forecast:\n  # From a back-test: forecasts do not pay here. Without a capacity they are shown and never acted on.\n  quantile: {percent}%\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Args, Verb};

    fn service_of(words: &[&str]) -> Result<Service, String> {
        let args = ["foreshadow", "backtest", "-"].iter().chain(words);
        let Verb::Backtest(args) = Args::try_parse_from(args).unwrap().verb else { unreachable!() };
        service(&args).map(|(service, _)| service).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_service_is_what_the_flags_say() {
        let usual = service_of(&[]).unwrap();
        assert!((usual.knee() - Service::PROTOCOL.knee()).abs() < 1e-9 && usual.replicas == (3, 300));
        let known = service_of(&["--knee", "200", "--lives", "2..40", "--startup", "10s..20s"]).unwrap();
        assert!((known.knee() - 200.0).abs() < 1e-6 && known.replicas == (2, 40), "{known:?}");
        assert!(service_of(&["--dip", "9-21:25%"]).unwrap().dip.is_some_and(|dip| dip.lost == 0.25));
        for words in [
            ["--knee", "0"],
            ["--knee", "nan"],
            ["--lives", "0..3"],
            ["--lives", "5..3"],
            ["--startup", "60s"],
            ["--startup", "2m..1m"],
            ["--dip", "21-9:25%"],
            ["--processor", "0%"],
            ["--workers", "0"],
            ["--variation", "-1"],
        ] {
            let words: Vec<String> = vec![format!("{}={}", words[0], words[1])];
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            assert!(service_of(&words).is_err_and(|why| why.contains("expected")), "{words:?}");
        }
    }
}
