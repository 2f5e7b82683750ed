//! `foreshadow simulate`: how a story would go, with the real core in a simulated world.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use foreshadow_engine::config::{Maintenance, parse_scenario};
use foreshadow_engine::model::{LoadModel, Scenario};
use foreshadow_engine::{Simulated, StoryPoint, simulate, story_clock};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::args::{Output, SimulateArgs};
use crate::command::absolute_folder;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::load::grid::Grid;
use crate::spark;

/// A table of load may be as fine as this, in seconds.
const STEP_LEAST: u32 = 1;

/// What takes longer shows how far it is.
const SHOW_AFTER: Duration = Duration::from_secs(2);

#[expect(clippy::disallowed_methods, reason = "how long it takes is what is told")]
pub(crate) fn run(args: &SimulateArgs) -> Result<Exit, Failure> {
    let (mut scenario, maintenance) = read(&args.story)?;
    scenario.seed = args.seed.unwrap_or(scenario.seed);
    let trace = trace(&scenario)?;
    let began = Instant::now();
    let told = tell(&scenario, &maintenance, trace)?;
    let times = scenario.lasts_seconds / began.elapsed().as_secs_f64().max(1e-9);
    let mut out = io::stdout().lock();
    match args.output {
        Output::Json => {
            for line in &told.lines {
                writeln!(out, "{}", json!({ "type": "line", "seconds": line.seconds, "says": line.says }))?;
            }
            writeln!(out, "{}", summary(&scenario, &told, times))?;
        }
        Output::Human => people(&mut out, &scenario, &told, times)?,
    }
    if told.unmet.is_empty() {
        return Ok(Exit::Fine);
    }
    let message = format!("{} of what was expected did not come", told.unmet.len());
    Err(Failure::message(Exit::Failed, message).remedy(told.unmet.join("\n")))
}

fn read(file: &Path) -> Result<(Scenario, Vec<Maintenance>), Failure> {
    let unreadable = |error: io::Error| {
        Failure::message(Exit::Usage, format!("failed to read the story `{}`: {error}", file.display()))
            .remedy("give the path of a story; some are in the folder `stories`")
    };
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    Ok(parse_scenario(&text, &absolute_folder(file)?)
        .map_err(|error| error.in_file(file.display().to_string()))?)
}

/// The recorded load of a story, where it has one.
fn trace(scenario: &Scenario) -> Result<(Vec<f64>, f64), Failure> {
    let LoadModel::Trace { file, .. } = &scenario.load else { return Ok((Vec::new(), 60.0)) };
    let grid = Grid::read(file, &[], None, STEP_LEAST)?;
    grid.warn_of_gaps();
    let values = grid.values.iter().map(|value| value.unwrap_or(f64::NAN)).collect();
    Ok((values, f64::from(grid.step_seconds)))
}

#[expect(clippy::disallowed_methods, reason = "how long it takes is what is measured")]
fn tell(
    scenario: &Scenario,
    maintenance: &[Maintenance],
    trace: (Vec<f64>, f64),
) -> Result<Simulated, Failure> {
    let began = Instant::now();
    let bar = ProgressBar::hidden();
    let mut shown = false;
    let told = simulate(scenario, maintenance, trace, &mut |share| {
        if !shown && SHOW_AFTER < began.elapsed() && io::stderr().is_terminal() {
            shown = true;
            bar.set_length(1000);
            if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent} %  {eta} left") {
                bar.set_style(style);
            }
            bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1")]
        bar.set_position((1000.0 * share) as u64);
    });
    bar.finish_and_clear();
    told.map_err(|error| Failure::new(&error))
}

fn summary(scenario: &Scenario, told: &Simulated, times: f64) -> serde_json::Value {
    json!({
        "type": "summary", "seed": scenario.seed, "seconds": scenario.lasts_seconds,
        "violation_minutes": told.violation_minutes, "live_hours": told.live_hours,
        "actions": told.actions, "in_vain": told.in_vain, "false_alarms": told.false_alarms,
        "unmet": told.unmet, "times_real_time": times.round(),
    })
}

fn people(out: &mut impl Write, scenario: &Scenario, told: &Simulated, times: f64) -> io::Result<()> {
    writeln!(out, "{}\n", scenario.story)?;
    for line in &told.lines {
        writeln!(out, "{:>12}  {}", story_clock(line.seconds), line.says)?;
    }
    let row = |of: fn(&StoryPoint) -> f64| told.points.iter().map(of).collect::<Vec<f64>>();
    let most = |values: &[f64]| values.iter().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
    let latencies: Vec<f64> = row(|point| 1e3 * point.latency_p95);
    writeln!(out)?;
    for (name, values, unit) in [
        ("load", row(|point| point.load), "requests/s"),
        ("lives", row(|point| point.lives), ""),
        ("users' p95", latencies, "ms"),
        ("hurt", row(|point| 100.0 * point.hurt), "% of the time"),
    ] {
        let most = most(&values);
        writeln!(out, "{name:>12}  {}  up to {most:.0} {unit}", spark::linear(&values, 0.0, most))?;
    }
    writeln!(
        out,
        "\nusers were hurt for {:.1} of {:.0} minutes; {:.1} live hours; {} actions, {} in vain; {} verdicts while nothing was wrong\nseed {}, {times:.0} times as fast as time",
        told.violation_minutes,
        scenario.lasts_seconds / 60.0,
        told.live_hours,
        told.actions,
        told.in_vain,
        told.false_alarms,
        scenario.seed,
    )
}
