//! The protocol of `DELTA.md` §8: ours beside the usual rules, on the same pairs, for false alarms and for delay.
//!
//! Pairs are simulated by the very code that the tests of `compare` use. An instance is healthy for a day, on which rules
//! that need one take their offset, and judged on the next; or it falls ill at some moment of it. Seeds are others than
//! those that anything was tuned on.

mod kayenta;
mod picture;
mod rules;
#[path = "../../../compare/tests/judge/sim.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is a module of tests, which use more of it"
)]
mod sim;

use std::path::Path;
use std::thread;

use anyhow::Context as _;
use clap::Args;
use foreshadow_model::FlippedAlarms;

use self::rules::{Metric, Rule, Rules};
use self::sim::{CALM, DAY, Nature, Rng, Sim, Trouble, slower};

/// Ticks after an alarm in which another is the same one: 5 min.
const REFRACTORY: u64 = 60;

/// Ticks after a burst in which an alarm is still about it.
const BURST_GRACE: usize = 24;

/// Ticks from which a burst is long: half a minute. Of a longer one an action is no mistake.
const LONG_BURST: usize = 6;

/// Ticks in which a shift must be found: an hour.
const HORIZON: u64 = 720;

/// Ticks of 5 min.
const SOON: u64 = 60;

/// Seconds of a tick.
const TICK: f64 = 5.0;

/// How much.
#[derive(Args)]
pub(crate) struct Options {
    /// Healthy instance-days of each kind of pair.
    #[arg(long, default_value_t = 2000)]
    days: u64,
    /// Instances that fall ill, of each kind and size.
    #[arg(long, default_value_t = 300)]
    shifts: u64,
    /// Only kinds whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Only the rules of the running product: three times as fast.
    #[arg(long)]
    ours: bool,
    /// Where to draw it.
    #[arg(long, default_value = "target/delta.svg")]
    picture: std::path::PathBuf,
}

/// What one rule did on one kind of pair.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    pub(super) rule: &'static str,
    pub(super) days: f64,
    /// Rising decisions outside of bursts.
    pub(super) false_alarms: u64,
    /// The same within those shorter than half a minute, and within longer ones.
    on_bursts: [u64; 2],
    /// Ticks until a shift of 5, 15 and 30 % is found, sorted; `HORIZON + 1` if it is not.
    pub(super) delays: [Vec<u64>; 3],
}

const SIZES: [f64; 3] = [1.05, 1.15, 1.30];

impl Outcome {
    fn merge(&mut self, other: Self) {
        self.days += other.days;
        self.false_alarms += other.false_alarms;
        for (own, other) in self.on_bursts.iter_mut().zip(other.on_bursts) {
            *own += other;
        }
        for (own, mut others) in self.delays.iter_mut().zip(other.delays) {
            own.append(&mut others);
            own.sort_unstable();
        }
    }

    /// Seconds at a quantile of the delays of a size; `None` if it was not found within the hour.
    pub(super) fn delay(&self, size: usize, quantile: f64) -> Option<f64> {
        let delays = &self.delays[size];
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank"
        )]
        let rank = (quantile * delays.len() as f64) as usize;
        let ticks = *delays.get(rank.min(delays.len().saturating_sub(1)))?;
        #[expect(clippy::cast_precision_loss, reason = "at most an hour")]
        let seconds = ticks as f64 * TICK;
        (ticks <= HORIZON).then_some(seconds)
    }

    /// Share that is found within so many ticks.
    #[expect(clippy::cast_precision_loss, reason = "a count of instances")]
    fn within(&self, size: usize, ticks: u64) -> f64 {
        let delays = &self.delays[size];
        delays.iter().filter(|&&delay| delay <= ticks).count() as f64 / delays.len().max(1) as f64
    }

    /// False alarms a day, and at most so many with 95 %.
    pub(super) fn per_day(&self) -> (f64, f64) {
        FlippedAlarms { alarms: self.false_alarms, days: self.days }.per_day()
    }
}

pub(super) fn run(root: &Path, options: &Options) -> anyhow::Result<()> {
    use Metric::{Centre, P99};
    let kinds = [
        ("S1, 200 pairs", Nature::PROTOCOL, Centre),
        ("S2, 20 pairs", Nature { pairs: 20, ..Nature::ROUGH }, Centre),
        ("S2, 20 pairs, all streams", Nature { pairs: 20, answers: true, ..Nature::ROUGH }, Centre),
        ("S2, 200 pairs", Nature::ROUGH, Centre),
        ("S2, 2000 pairs", Nature { pairs: 2000, ..Nature::ROUGH }, Centre),
        ("p99 of 200 answers, S2", Nature { answers: true, ..Nature::ROUGH }, P99),
    ];
    let mut drawn = Vec::new();
    for (name, nature, metric) in kinds {
        if options.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        eprintln!("{name}: {} healthy days and {} shifts of each size", options.days, options.shifts);
        let rules = Rules { metric, only_ours: options.ours };
        let outcomes = both_halves(nature, rules, options);
        println!("{}", table(name, &outcomes));
        drawn.push((name, outcomes));
    }
    if options.only.as_ref().is_none_or(|only| "other streams".contains(only.as_str())) {
        println!("{}", others(options.shifts));
    }
    let picture = root.join(&options.picture);
    std::fs::write(&picture, picture::draw(&drawn)?)
        .with_context(|| format!("failed to draw `{}`", picture.display()))?;
    println!("drawn: {}", options.picture.display());
    Ok(())
}

/// On two processors, half of the seeds each.
fn both_halves(nature: Nature, rules: Rules, options: &Options) -> Vec<Outcome> {
    let half = |is_second: bool| {
        let part = |n: u64| if is_second { n / 2..n } else { 0..n / 2 };
        let mut outcomes = healthy(nature, rules, part(options.days));
        for (size, factor) in SIZES.iter().enumerate() {
            let seeds = part(options.shifts);
            let trouble = rules.metric.slower(*factor);
            for (outcome, delays) in outcomes.iter_mut().zip(delays(nature, rules, &trouble, seeds)) {
                outcome.delays[size] = delays;
            }
        }
        outcomes
    };
    let (mut first, second) = thread::scope(|scope| {
        let second = scope.spawn(|| half(true));
        (half(false), second.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    for (own, other) in first.iter_mut().zip(second) {
        own.merge(other);
    }
    first
}

/// A pair after its healthy day, with rules that know it.
fn grown(nature: Nature, rules: Rules, seed: u64) -> (Sim, Vec<Box<dyn Rule>>) {
    let mut sim = Sim::new(nature, seed);
    let mut rules = rules.make();
    for _ in 0..DAY {
        let (window, assessment) = sim.seen(&CALM);
        rules.iter_mut().for_each(|rule| rule.learn(&window, &assessment));
    }
    rules.iter_mut().for_each(|rule| rule.learned());
    (sim, rules)
}

/// What rules said tick by tick, and when there was a burst.
struct Said {
    /// For each rule, whether it alarmed in each tick.
    alarms: Vec<Vec<bool>>,
    /// The burst of which an alarm would be in each tick: a short one or a long one.
    bursts: Vec<Option<Length>>,
}

#[derive(Clone, Copy)]
enum Length {
    Short,
    Long,
}

/// What burst each tick belongs to; that of an alarm may be over for two minutes.
fn bursts_of(bursting: &[bool]) -> Vec<Option<Length>> {
    let mut bursts = vec![None; bursting.len()];
    let mut from = 0;
    for run in bursting.chunk_by(|a, b| a == b) {
        let to = from + run.len();
        if run[0] {
            let length = if run.len() < LONG_BURST { Length::Short } else { Length::Long };
            bursts[from..(to + BURST_GRACE).min(bursting.len())].fill(Some(length));
        }
        from = to;
    }
    bursts
}

/// Goes on for so many ticks, calm ones first.
fn listen(sim: &mut Sim, rules: &mut [Box<dyn Rule>], calm: u64, (ill, trouble): (u64, &Trouble)) -> Said {
    let mut alarms = vec![Vec::new(); rules.len()];
    let mut bursting = Vec::new();
    for tick in 0..calm + ill {
        let (window, assessment) = sim.seen(if tick < calm { &CALM } else { trouble });
        bursting.push(sim.is_bursting());
        for (rule, alarms) in rules.iter_mut().zip(&mut alarms) {
            alarms.push(rule.alarms(&window, &assessment));
        }
    }
    for (rule, alarms) in rules.iter().zip(&mut alarms) {
        if let Some(afterwards) = rule.afterwards() {
            *alarms = afterwards;
        }
    }
    Said { alarms, bursts: bursts_of(&bursting) }
}

fn healthy(nature: Nature, rules: Rules, seeds: std::ops::Range<u64>) -> Vec<Outcome> {
    let names = rules.make();
    let mut outcomes: Vec<Outcome> =
        names.iter().map(|rule| Outcome { rule: rule.name(), ..Outcome::default() }).collect();
    for seed in seeds {
        let (mut sim, mut rules) = grown(nature, rules, 500_000 + seed);
        let said = listen(&mut sim, &mut rules, DAY, (0, &CALM));
        for (alarms, outcome) in said.alarms.iter().zip(&mut outcomes) {
            outcome.days += 1.0;
            let mut since = REFRACTORY;
            for (alarms, burst) in alarms.iter().zip(&said.bursts) {
                if *alarms && REFRACTORY <= since {
                    *match burst {
                        None => &mut outcome.false_alarms,
                        Some(Length::Short) => &mut outcome.on_bursts[0],
                        Some(Length::Long) => &mut outcome.on_bursts[1],
                    } += 1;
                }
                since = if *alarms { 0 } else { since + 1 };
            }
        }
    }
    outcomes
}

/// Ticks until each rule finds the trouble: until it begins to alarm. One that alarms anyway has found nothing.
fn delays(nature: Nature, rules: Rules, trouble: &Trouble, seeds: std::ops::Range<u64>) -> Vec<Vec<u64>> {
    let mut all_delays = vec![Vec::new(); rules.make().len()];
    for seed in seeds {
        let (mut sim, mut rules) = grown(nature, rules, 900_000 + seed);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a tick of a day")]
        let onset = 1440 + (Rng::new(seed ^ 0xABCD).uniform() * 8000.0) as u64;
        let said = listen(&mut sim, &mut rules, onset, (HORIZON, trouble));
        for (alarms, delays) in said.alarms.iter().zip(&mut all_delays) {
            let rises = |at: &usize| alarms[*at] && !alarms[*at - 1];
            let onset = usize::try_from(onset).unwrap_or(usize::MAX);
            let found = (onset..alarms.len()).find(rises).map(|at| (at - onset + 1) as u64);
            delays.push(found.unwrap_or(HORIZON + 1));
        }
    }
    all_delays
}

fn table(name: &str, outcomes: &[Outcome]) -> String {
    use std::fmt::Write as _;
    let days = outcomes.first().map_or(0.0, |outcome| outcome.days);
    let mut text = format!(
        "\n{name}, {days:.0} healthy instance-days\n\
         | rule | false alarms a day [≤ 95 %] | a day on bursts under 30 s / longer | 15 %: median / p90 / ≤ 5 min | 30 %: median / p90 | 5 % alarmed in 1 h |\n\
         |---|---|--:|---|---|--:|\n"
    );
    for outcome in outcomes {
        let (per_day, bound) = outcome.per_day();
        let seconds = |size, quantile| {
            outcome.delay(size, quantile).map_or_else(|| "> 1 h".to_owned(), |s| format!("{s:.0} s"))
        };
        #[expect(clippy::cast_precision_loss, reason = "a count of alarms")]
        let [short, long] = outcome.on_bursts.map(|alarms| alarms as f64 / outcome.days.max(1e-9));
        writeln!(
            text,
            "| {} | {per_day:.4} [{bound:.4}] | {short:.2} / {long:.2} | {} / {} / {:.0} % | {} / {} | {:.0} % |",
            outcome.rule,
            seconds(1, 0.5),
            seconds(1, 0.9),
            100.0 * outcome.within(1, SOON),
            seconds(2, 0.5),
            seconds(2, 0.9),
            100.0 * outcome.within(0, HORIZON),
        )
        .unwrap_or_default();
    }
    text
}

/// Those of the running product.
const OURS: Rules = Rules { metric: Metric::Centre, only_ours: true };

/// What is no shift of the centre: ours alone, since the other rules do not look there.
fn others(shifts: u64) -> String {
    use std::fmt::Write as _;
    let nature = Nature { pairs: 20, answers: true, ..Nature::ROUGH };
    let troubles = [
        ("one request in fifty takes ten times as long", Trouble { tail: 0.02, ..CALM }),
        ("2 % of live's answers fail", Trouble { live_errors: 0.02, ..CALM }),
        ("30 % of requests stay unanswered", Trouble { unanswered: 0.3, ..CALM }),
    ];
    let mut text =
        String::from("\n| S2, 20 pairs, all streams | found within 1 h | median / p90 |\n|---|--:|---|\n");
    for (name, trouble) in troubles {
        let mut delays = delays(nature, OURS, &trouble, 0..shifts.min(40)).swap_remove(0);
        delays.sort_unstable();
        let outcome = Outcome { delays: [delays, Vec::new(), Vec::new()], ..Outcome::default() };
        let seconds =
            |quantile| outcome.delay(0, quantile).map_or_else(|| "> 1 h".to_owned(), |s| format!("{s:.0} s"));
        writeln!(
            text,
            "| {name} | {:.0} % | {} / {} |",
            100.0 * outcome.within(0, HORIZON),
            seconds(0.5),
            seconds(0.9)
        )
        .unwrap_or_default();
    }
    let mut reached: Vec<f64> = (0..shifts.min(100)).filter_map(ramp).collect();
    reached.sort_by(f64::total_cmp);
    let middle = reached.get(reached.len() / 2).copied().unwrap_or(f64::NAN);
    writeln!(
        text,
        "\nramp of 1 % a minute (S2, 200 pairs): warned at {:.1} % in the median of {}",
        100.0 * middle,
        reached.len()
    )
    .unwrap_or_default();
    text
}

/// How much slower live was when a ramp of 1 % a minute was warned of.
#[expect(clippy::cast_precision_loss, reason = "a tick of an hour")]
fn ramp(seed: u64) -> Option<f64> {
    let (mut sim, mut rules) = grown(Nature::ROUGH, OURS, 700_000 + seed);
    (1..=HORIZON).find_map(|tick| {
        let slower_by = 0.01 * tick as f64 * TICK / 60.0;
        let (window, assessment) = sim.seen(&slower(1.0 + slower_by));
        rules[0].alarms(&window, &assessment).then_some(slower_by)
    })
}

impl Sim {
    /// The next tick: what was seen and what our judge says of it.
    fn seen(&mut self, trouble: &Trouble) -> (foreshadow_model::Window, foreshadow_model::Assessment) {
        let window = self.window(trouble);
        let assessment = self.judge.update(&window);
        (window, assessment)
    }
}
