//! `foreshadow knee`: how much one live can take, found on its shadow while no user notices.
//!
//! The copies to the shadow are multiplied step by step until its answers break the objective; then the knee is closed in on.
//! It ends at once when live itself becomes slower, on Ctrl-C, and by itself should this process die.

use std::io::{self, Write};
use std::time::Duration;

use comfy_table::{Table, presets};
use foreshadow_engine::config::Config;
use foreshadow_engine::forecast::{Knee, Objective, RampStep, knee as knee_of};
use foreshadow_engine::model::wire::AMPLIFY_FACTOR_MAX;
use foreshadow_engine::model::{Instance, InstanceId, Role, StatusReport};
use foreshadow_engine::{Client, Command, Reader, SeriesKey, control_socket, database};
use serde_json::{Value, json};

use crate::args::{ControllerArgs, KneeArgs, Output};
use crate::command::history::now_ms;
use crate::command::{read_config, runtime, state_folder};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::load::{figure, plot, seconds, share};
use crate::spark;

/// By how much each step is more than the one before.
const GROWTH: f64 = 2.0;

/// Halvings between the last step that was kept and the first that was not: the sixteenth root of two is 4 %.
const HALVINGS: u32 = 4;

/// Ticks that a step needs to settle, and ticks that are looked at; and the seconds that either takes at the least.
const SETTLE: (f64, f64) = (2.0, 3.0);
const LOOK: (f64, f64) = (4.0, 10.0);

/// The same of the rest after a step that was broken.
const REST: (f64, f64) = (4.0, 10.0);

/// The load before is looked at for so many times as long: all that is offered is reckoned from it.
const USUAL_TIMES: f64 = 2.0;

/// Copies that are multiplied so often are bursts and no load.
const BURSTS: f64 = 20.0;

/// Copies per second without which nothing can be multiplied.
const COPIES_LEAST: f64 = 1.0;

/// A live that is so much slower than before, and by so much, is hurt.
const HURT: (f64, f64) = (1.5, 0.005);

/// The shadow that is loaded, and what is asked of it.
struct Ramp {
    client: Client,
    reader: Reader,
    live: InstanceId,
    shadow: InstanceId,
    objective: Objective,
    tick_seconds: f64,
}

/// What was seen for a while.
#[derive(Clone, Copy, Debug)]
struct Seen {
    load: f64,
    latency: f64,
    failed: f64,
    live_load: f64,
    live_latency: f64,
}

pub(crate) fn knee(args: &KneeArgs) -> Result<Exit, Failure> {
    let objective = Objective {
        latency: seconds("--objective", &args.objective)?,
        failed: share("--errors", &args.errors, 0.0..=1.0)?,
    };
    let config = read_config(&args.config)?;
    refuse_open_egress(&config, args)?;
    let controller = ControllerArgs { config: args.config.clone(), state: None };
    let state = state_folder(&controller)?;
    let client = Client::new(&control_socket(&state));
    runtime()?.block_on(async {
        let status = client.status().await?;
        let (live, shadow) = pair(&status, args)?;
        let reader = Reader::open(&database(&state)).map_err(|error| Failure::new(&error))?;
        let tick_seconds = status.tick_seconds.max(0.1);
        let ramp = Ramp { client, reader, live, shadow, objective, tick_seconds };
        let steps = tokio::select! {
            steps = ramp.climb() => steps,
            interrupt = tokio::signal::ctrl_c() => {
                interrupt?;
                Err(Failure::message(Exit::Interrupted, "interrupted: the copies are as they were"))
            }
        };
        ramp.multiply(1.0, 0.0).await?;
        say(&ramp, &steps?, args)
    })
}

/// A service that a shadow may write to is not to be written to a hundred times as often.
fn refuse_open_egress(config: &Config, args: &KneeArgs) -> Result<(), Failure> {
    let open = &config.template.egress_allow;
    if open.is_empty() || args.safe_egress {
        return Ok(());
    }
    let hosts: Vec<&str> = open.iter().map(|target| target.host.as_str()).collect();
    Err(Failure::message(
        Exit::Refused,
        format!(
            "the shadow may reach {}, which live may need: its load would be multiplied as well",
            hosts.join(", ")
        ),
    )
    .remedy("give `--safe-egress` if those stand it, and nothing of live hangs on them"))
}

/// The live that is asked for, or the first, with its shadow.
fn pair(status: &StatusReport, args: &KneeArgs) -> Result<(InstanceId, InstanceId), Failure> {
    let is_it = |id: &InstanceId| args.live.as_ref().is_none_or(|live| live == id.as_str());
    let row = status.pairs.iter().find(|row| is_it(&row.live.id)).ok_or_else(|| {
        let asked = args.live.as_deref().unwrap_or("any");
        Failure::message(Exit::Usage, format!("no live is named `{asked}`"))
            .remedy("`foreshadow status` lists the lives")
    })?;
    let shadow = row.shadow.as_ref().filter(|shadow| shadow.is_ready()).ok_or_else(|| {
        Failure::message(Exit::Inconclusive, format!("{} has no shadow that is ready", row.live.id))
            .remedy("`foreshadow status` says why")
    })?;
    let stands_beside = |live: &Instance| live.node == shadow.node;
    if let Some(beside) = status.pairs.iter().map(|row| &row.live).find(|live| stands_beside(live))
        && !args.shared_node
    {
        return Err(Failure::message(
            Exit::Refused,
            format!(
                "{} stands on {} beside {}: pressing it would press that live",
                shadow.id, shadow.node, beside.id
            ),
        )
        .remedy("give `--shared-node` to do it all the same; it ends when the live above becomes slower"));
    }
    Ok((row.live.id.clone(), shadow.id.clone()))
}

impl Ramp {
    /// Climbs until a step is broken, then closes in.
    async fn climb(&self) -> Result<Vec<RampStep>, Failure> {
        let usual = self.look(USUAL_TIMES * LOOK.0).await?;
        if usual.load < COPIES_LEAST {
            return Err(Failure::message(
                Exit::Inconclusive,
                format!(
                    "{} is sent {} copies a second, too few to be multiplied",
                    self.shadow,
                    figure(usual.load)
                ),
            )
            .remedy("load the service, or raise `mirror.sampling`"));
        }
        let mut steps = vec![self.step(1.0, &usual, &usual)];
        let (mut kept, mut broken) = (1.0, None);
        while broken.is_none() && kept < AMPLIFY_FACTOR_MAX {
            let factor = (kept * GROWTH).min(AMPLIFY_FACTOR_MAX);
            if self.is_kept_at(factor, &usual, &mut steps).await? {
                kept = factor
            } else {
                broken = Some(factor)
            }
        }
        let Some(mut broken) = broken else { return Ok(steps) };
        for _ in 0..HALVINGS {
            let middle = f64::sqrt(kept * broken);
            if self.is_kept_at(middle, &usual, &mut steps).await? { kept = middle } else { broken = middle }
        }
        Ok(steps)
    }

    async fn is_kept_at(
        &self,
        factor: f64,
        usual: &Seen,
        steps: &mut Vec<RampStep>,
    ) -> Result<bool, Failure> {
        let span = |(ticks, least): (f64, f64)| (ticks * self.tick_seconds).max(least);
        self.multiply(factor, span(SETTLE) + span(LOOK) + 2.0 * self.tick_seconds).await?;
        tokio::time::sleep(Duration::from_secs_f64(span(SETTLE))).await;
        let seen = self.look(LOOK.0).await?;
        let (times, more) = HURT;
        if (times * usual.live_latency).max(usual.live_latency + more) < seen.live_latency {
            return Err(Failure::message(
                Exit::Refused,
                format!(
                    "{} became slower ({:.1} ms, {:.1} ms before): ended, the copies are as they were",
                    self.live,
                    1e3 * seen.live_latency,
                    1e3 * usual.live_latency
                ),
            )
            .remedy("the two share something: another node for the shadow, or a calmer hour"));
        }
        let step = self.step(factor, usual, &seen);
        let is_kept = self.objective.is_kept(&step);
        eprintln!(
            "{factor:>6.2} ×  {:>8} requests/s  p95 {:>8.1} ms  failed {:.1} %  answered {:.0} %  {}",
            figure(step.load),
            1e3 * step.latency,
            100.0 * step.failed,
            100.0 * step.answered.min(1.0),
            if is_kept { "kept" } else { "broken" }
        );
        steps.push(step);
        if !is_kept {
            // What waits there is worked off before the next step, or that would be held against it.
            self.multiply(1.0, 0.0).await?;
            tokio::time::sleep(Duration::from_secs_f64(span(REST))).await;
        }
        Ok(is_kept)
    }

    /// What was offered: the copies that there were before, as many more as live is asked more, times the factor.
    fn step(&self, factor: f64, usual: &Seen, seen: &Seen) -> RampStep {
        let offered = factor * usual.load * seen.live_load / usual.live_load.max(1e-9);
        let answered = (seen.load / offered).min(1.0);
        RampStep { load: offered, latency: seen.latency, failed: seen.failed, answered }
    }

    async fn multiply(&self, factor: f64, seconds: f64) -> Result<(), Failure> {
        let command = Command::Amplify { live: Some(self.live.clone()), factor, seconds };
        Ok(self.client.command(command).await.map(drop)?)
    }

    /// The medians of so many ticks from now on.
    async fn look(&self, ticks: f64) -> Result<Seen, Failure> {
        let from = now_ms();
        let span = (ticks * self.tick_seconds).max(LOOK.1 * ticks / LOOK.0);
        // The last tick is written a moment after it has ended.
        tokio::time::sleep(Duration::from_secs_f64(span + 0.5 * self.tick_seconds)).await;
        let of = |id: &InstanceId, role: Role, metric: &'static str, unit: &'static str| {
            let (instance, metric, unit) = (id.clone(), metric.into(), unit.into());
            let series = self.reader.series(&SeriesKey { instance, role, metric, unit }, from, now_ms() + 1);
            series.map(|samples| samples.into_iter().map(|(_, value)| value).collect::<Vec<f64>>())
        };
        let read = || -> Result<_, foreshadow_engine::ReadStoreError> {
            let shadow = |metric, unit| of(&self.shadow, Role::Shadow, metric, unit);
            Ok((
                shadow("requests", "1/s")?,
                shadow("errors", "1/s")?,
                shadow("latency_p95", "ms")?,
                of(&self.live, Role::Live, "latency_p95", "ms")?,
                of(&self.live, Role::Live, "requests", "1/s")?,
            ))
        };
        let (requests, errors, latency, live, live_requests) =
            read().map_err(|error| Failure::new(&error))?;
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let load = mean(&requests);
        if requests.is_empty() {
            return Err(Failure::message(
                Exit::Inconclusive,
                "nothing was measured: does the controller run?",
            ));
        }
        Ok(Seen {
            load,
            latency: if latency.is_empty() { f64::INFINITY } else { median(latency) / 1e3 },
            failed: if 0.0 < load { mean(&errors) / load } else { 0.0 },
            live_load: mean(&live_requests),
            live_latency: median(live) / 1e3,
        })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn say(ramp: &Ramp, steps: &[RampStep], args: &KneeArgs) -> Result<Exit, Failure> {
    let found = knee_of(steps, &ramp.objective);
    let factor = found.zip(steps.first()).map(|(knee, usual)| knee.load / usual.load.max(1e-9));
    if let Some(factor) = factor.filter(|factor| BURSTS <= *factor) {
        eprintln!(
            "warning: few copies, multiplied by {factor:.0}, come in bursts: the knee is likely higher (by a sixth where it was measured); more load or a higher `mirror.rate` makes it sharper"
        );
    }
    let mut out = io::stdout().lock();
    match args.output {
        Output::Json => {
            for step in steps {
                writeln!(out, "{}", step_json(step, &ramp.objective))?;
            }
            writeln!(out, "{}", knee_json(ramp, found))?;
        }
        Output::Human => people(&mut out, ramp, steps, found)?,
    }
    if let Some(file) = &args.plot {
        plot::knee(file, steps, &ramp.objective, found)?;
    }
    Ok(if found.is_some() { Exit::Fine } else { Exit::Inconclusive })
}

fn step_json(step: &RampStep, objective: &Objective) -> Value {
    json!({
        "type": "step", "requests_per_second": step.load,
        "latency_p95_ms": step.latency.is_finite().then_some(1e3 * step.latency),
        "failed": step.failed, "answered": step.answered, "kept": objective.is_kept(step),
    })
}

fn knee_json(ramp: &Ramp, found: Option<Knee>) -> Value {
    json!({
        "type": "knee", "live": ramp.live, "objective_ms": 1e3 * ramp.objective.latency,
        "requests_per_second": found.map(|knee| knee.load), "low": found.map(|knee| knee.low),
        "high": found.and_then(|knee| knee.high),
    })
}

fn people(out: &mut impl Write, ramp: &Ramp, steps: &[RampStep], found: Option<Knee>) -> io::Result<()> {
    let mut sorted: Vec<&RampStep> = steps.iter().collect();
    sorted.sort_by(|a, b| a.load.total_cmp(&b.load));
    let latencies: Vec<f64> = sorted.iter().map(|step| step.latency).collect();
    let finite = || latencies.iter().copied().filter(|latency| latency.is_finite());
    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(0.0, f64::max));
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["requests/s", "p95", "", "failed", "answered"]);
    for step in &sorted {
        table.add_row([
            figure(step.load),
            format!("{:.1} ms", 1e3 * step.latency),
            spark::logarithmic(&[step.latency], low.max(1e-6), high),
            format!("{:.1} %", 100.0 * step.failed),
            format!("{:.0} %", 100.0 * step.answered),
        ]);
    }
    writeln!(out, "{table}\n")?;
    let objective = 1e3 * ramp.objective.latency;
    match found {
        Some(Knee { load, low, high: Some(high) }) => writeln!(
            out,
            "{} can take {} requests/s with a p95 of {objective:.0} ms: kept at {}, broken at {}. In the configuration: `forecast: {{ capacity: {load:.0}/s }}`",
            ramp.live,
            figure(load),
            figure(low),
            figure(high)
        ),
        Some(Knee { load, low, high: None }) => writeln!(
            out,
            "{} can take about {} requests/s with a p95 of {objective:.0} ms, as the queueing law says; {} were tried, and more copies there are not",
            ramp.live,
            figure(load),
            figure(low)
        ),
        None => writeln!(
            out,
            "{} kept a p95 of {objective:.0} ms at every step, and none was near it: more copies are needed to say what it can take",
            ramp.live
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_few_values_the_median_is_the_middle_one() {
        assert!((median(vec![3.0, 1.0, 9.0]) - 3.0).abs() < 1e-12);
        assert!(median(Vec::new()).abs() < 1e-12);
    }
}
