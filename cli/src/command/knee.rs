//! `foreshadow knee`: how much one live can take, found on its shadow while no user notices.
//!
//! The controller multiplies the copies step by step until the shadow's answers break the objective, and closes in on the knee; here it is
//! asked for and followed. It ends when live becomes slower, and on Ctrl-C; should this process die, it goes on to its end.

use std::io::{self, Write};
use std::time::Duration;

use comfy_table::{Table, presets};
use foreshadow_engine::forecast::{Knee, Objective, RampStep};
use foreshadow_engine::model::{InstanceId, KneeOutcome, RampReport, RampRow};
use foreshadow_engine::{Client, Command, KneeWish, control_socket};
use serde_json::{Value, json};

use crate::args::{ControllerArgs, KneeArgs, Output};
use crate::command::{runtime, state_folder};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::load::{figure, plot, seconds, share};
use crate::spark;

pub(crate) fn knee(args: &KneeArgs) -> Result<Exit, Failure> {
    let wish = wish(args)?;
    let controller = ControllerArgs { config: args.config.clone(), state: None };
    let client = Client::new(&control_socket(&state_folder(&controller)?));
    let ramp = runtime()?.block_on(async {
        let before = client.status().await?.ramp.map_or(0, |ramp| ramp.number);
        client.command(Command::Knee(wish)).await?;
        tokio::select! {
            ramp = follow(&client, before) => ramp,
            interrupt = tokio::signal::ctrl_c() => {
                interrupt?;
                client.command(Command::KneeEnd).await?;
                Err(Failure::message(Exit::Interrupted, "interrupted: the copies are as they were"))
            }
        }
    })?;
    say(&ramp, args)
}

fn wish(args: &KneeArgs) -> Result<KneeWish, Failure> {
    let failed = args.errors.as_ref().map(|text| share("--errors", text, 0.0..=1.0)).transpose()?;
    let percentile =
        args.percentile.as_ref().map(|text| share("--percentile", text, 0.5..=0.999)).transpose()?;
    let objective = args.objective.as_ref().map(|text| seconds("--objective", text)).transpose()?;
    let live = args.live.as_ref().map(|live| InstanceId::try_from(live.clone())).transpose();
    let live = live.map_err(|error| Failure::message(Exit::Usage, format!("--live: {error}")))?;
    let (shared_node, safe_egress) = (args.shared_node, args.safe_egress);
    Ok(KneeWish { live, objective, failed, percentile, shared_node, safe_egress })
}

/// Tells every step as it is made, until the ramp after number `before` has ended.
async fn follow(client: &Client, before: u64) -> Result<RampReport, Failure> {
    let mut told = 0;
    loop {
        let status = client.status().await?;
        let pause = Duration::from_secs_f64((0.5 * status.tick_seconds).clamp(0.2, 5.0));
        let Some(ramp) = status.ramp.filter(|ramp| before < ramp.number) else {
            tokio::time::sleep(pause).await;
            continue;
        };
        for step in ramp.steps.iter().skip(told) {
            eprintln!("{}", in_a_line(step));
        }
        if told == 0 && ramp.steps.is_empty() {
            tracing::debug!("The load before is looked at");
        }
        told = ramp.steps.len();
        if ramp.outcome.is_some() {
            return Ok(ramp);
        }
        tokio::time::sleep(pause).await;
    }
}

fn in_a_line(step: &RampRow) -> String {
    format!(
        "{:>8} requests/s  {:>8} ms  failed {:.1} %  answered {:.0} %  {}",
        figure(step.requests_per_second),
        step.latency_ms.map_or_else(|| "no answer".into(), |ms| format!("{ms:.1}")),
        100.0 * step.failed,
        100.0 * step.answered,
        if step.kept { "kept" } else { "broken" }
    )
}

fn say(ramp: &RampReport, args: &KneeArgs) -> Result<Exit, Failure> {
    let (found, why) = match &ramp.outcome {
        Some(KneeOutcome::Found { load, low, high }) => {
            let high = high.map(|high| high.get());
            (Some(Knee { load: load.get(), low: low.get(), high, law: None }), None)
        }
        Some(KneeOutcome::Ended { why }) => (None, Some(why.as_str())),
        None => (None, None),
    };
    let mut out = io::stdout().lock();
    match args.output {
        Output::Json => {
            for step in &ramp.steps {
                writeln!(out, "{}", step_json(step))?;
            }
            writeln!(out, "{}", knee_json(ramp, found, why))?;
        }
        Output::Human => people(&mut out, ramp, found, why)?,
    }
    if let Some(file) = &args.plot {
        let step = |row: &RampRow| RampStep {
            load: row.requests_per_second,
            latency: row.latency_ms.map_or(f64::INFINITY, |ms| ms / 1e3),
            failed: row.failed,
            answered: row.answered,
        };
        let steps: Vec<RampStep> = ramp.steps.iter().map(step).collect();
        plot::knee(file, &steps, &Objective { latency: ramp.objective_ms / 1e3, failed: 1.0 }, found)?;
    }
    Ok(if found.is_some() { Exit::Fine } else { Exit::Inconclusive })
}

fn step_json(step: &RampRow) -> Value {
    json!({
        "type": "step", "requests_per_second": step.requests_per_second, "latency_ms": step.latency_ms,
        "failed": step.failed, "answered": step.answered, "kept": step.kept,
    })
}

fn knee_json(ramp: &RampReport, found: Option<Knee>, why: Option<&str>) -> Value {
    json!({
        "type": "knee", "live": ramp.live, "objective_ms": ramp.objective_ms, "percentile": ramp.percentile,
        "requests_per_second": found.map(|knee| knee.load), "low": found.map(|knee| knee.low),
        "high": found.and_then(|knee| knee.high), "why_not": why,
    })
}

fn people(out: &mut impl Write, ramp: &RampReport, found: Option<Knee>, why: Option<&str>) -> io::Result<()> {
    let mut sorted: Vec<&RampRow> = ramp.steps.iter().collect();
    sorted.sort_by(|a, b| a.requests_per_second.total_cmp(&b.requests_per_second));
    let latencies = || sorted.iter().filter_map(|step| step.latency_ms);
    let (low, high) = (latencies().fold(f64::INFINITY, f64::min), latencies().fold(0.0, f64::max));
    let percentile = format!("p{}", figure(100.0 * ramp.percentile));
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["requests/s", percentile.as_str(), "", "failed", "answered"]);
    for step in &sorted {
        let latency = step.latency_ms.unwrap_or(f64::INFINITY);
        table.add_row([
            figure(step.requests_per_second),
            format!("{latency:.1} ms"),
            spark::logarithmic(&[latency], low.max(1e-3), high),
            format!("{:.1} %", 100.0 * step.failed),
            format!("{:.0} %", 100.0 * step.answered),
        ]);
    }
    writeln!(out, "{table}\n")?;
    let objective = format!("a {percentile} of {:.0} ms", ramp.objective_ms);
    match found {
        Some(Knee { load, low, high: Some(high), .. }) => writeln!(
            out,
            "{} can take {} requests/s with {objective}: kept at {}, broken at {}",
            ramp.live,
            figure(load),
            figure(low),
            figure(high)
        )?,
        Some(Knee { load, low, high: None, .. }) => writeln!(
            out,
            "{} can take about {} requests/s with {objective}, as the queueing law says; {} were tried, and more copies there are not",
            ramp.live,
            figure(load),
            figure(low)
        )?,
        None => writeln!(
            out,
            "what {} can take with {objective} was not found: {}",
            ramp.live,
            why.unwrap_or("it has not ended")
        )?,
    }
    if found.is_some() {
        writeln!(
            out,
            "The controller goes by it from now on, unless `forecast.capacity` says something else."
        )?;
    }
    Ok(())
}
