//! What was found, how soon, and what was called by its name.

use std::collections::BTreeMap;
use std::fmt;

use foreshadow_compare::HostWatch;
use foreshadow_model::{HostFinding, HostScope, Resource};

use super::{Seen, Span};
use crate::bench::ratio::middle;

/// A fault that makes live's own work take less than this longer, or no longer than some tick without it, has cost it
/// nothing.
const EFFECT_MIN: f64 = 1.15;

/// The product's tick. A tick of the matrix may be shorter; looks are what counts, for faults and for controls alike.
const TICK_SECONDS: f64 = 5.0;

/// Within this it must be found.
const SOON_SECONDS: f64 = 15.0;

const DAY_SECONDS: f64 = 86_400.0;

/// One fault, once.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    pub(crate) name: String,
    pub(crate) expected: Option<Resource>,
    /// How many times as long live's own work took.
    pub(crate) effect: f64,
    /// It took longer than in the slowest tick of the control before.
    pub(crate) is_beyond_noise: bool,
    /// Seconds until live's own work took longer for the first time, at the product's tick: a leak hurts late.
    pub(crate) hurts_from: Option<f64>,
    /// Seconds until something was found, at the product's tick, and what.
    pub(crate) found: Option<(f64, HostFinding)>,
}

impl Trial {
    pub(crate) fn is_effective(&self) -> bool {
        EFFECT_MIN <= self.effect && self.is_beyond_noise
    }

    fn is_soon(&self) -> bool {
        let late = self.hurts_from.map_or(0.0, |from| (from - TICK_SECONDS).max(0.0));
        self.found.as_ref().is_some_and(|(seconds, _)| *seconds <= late + SOON_SECONDS)
    }

    pub(crate) fn is_right(&self) -> bool {
        self.found.as_ref().is_some_and(|(_, finding)| Some(finding.resource) == self.expected)
    }
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Score {
    pub(crate) trials: Vec<Trial>,
    /// Seconds of controls, at the product's tick, and what was found in them.
    pub(crate) control_seconds: f64,
    pub(crate) false_alarms: Vec<HostFinding>,
    pub(crate) controls: u32,
    /// Milliseconds of live's own work in the ticks of the last fault.
    during: Vec<f64>,
    /// Ticks in a row in which live said nothing.
    silent: u32,
}

impl Score {
    /// Judges what was seen.
    pub(crate) fn of(seen: &[Seen]) -> Self {
        let mut score = Self::default();
        let mut watch = HostWatch::default();
        let (mut calm, mut stood) = (Vec::new(), false);
        let mut before: Option<&Span> = None;
        let mut in_span = 0.0;
        for tick in seen {
            let finding = watch.observe(&tick.window, true, false);
            if before != Some(&tick.span) {
                in_span = 0.0;
                score.begin(&tick.span);
                if tick.span == Span::Calm {
                    calm.clear();
                }
            }
            in_span += TICK_SECONDS;
            match &tick.span {
                Span::Calm => {
                    score.control_seconds += TICK_SECONDS;
                    calm.extend(tick.live_ms);
                    if let Some(finding) = finding.as_ref().filter(|_| !stood) {
                        score.false_alarms.push(finding.clone());
                    }
                }
                Span::Fault { .. } => score.fault(tick, &calm, in_span, finding.as_ref().filter(|_| !stood)),
                Span::Recovery => {}
            }
            stood = finding.is_some();
            before = Some(&tick.span);
        }
        score
    }

    fn begin(&mut self, span: &Span) {
        match span {
            Span::Calm => self.controls += 1,
            Span::Fault { name, expected, .. } => {
                self.during.clear();
                self.silent = 0;
                let (name, expected) = (name.clone(), *expected);
                self.trials.push(Trial {
                    name,
                    expected,
                    effect: 0.0,
                    is_beyond_noise: false,
                    hurts_from: None,
                    found: None,
                });
            }
            Span::Recovery => {}
        }
    }

    /// The effect is the mean over its ticks but the first, in which it began.
    fn fault(&mut self, tick: &Seen, calm: &[f64], in_span: f64, finding: Option<&HostFinding>) {
        let Some(trial) = self.trials.last_mut() else { return };
        if TICK_SECONDS < in_span {
            // It reports every second, so one tick without a word may be chance; several are a live that is stuck.
            self.silent = if tick.live_ms.is_some() { 0 } else { self.silent + 1 };
            let stuck = (2 <= self.silent).then_some(1000.0 * tick.tick_seconds);
            self.during.extend(tick.live_ms.or(stuck));
            let mean = self.during.iter().sum::<f64>() / self.during.len().max(1) as f64;
            trial.effect = mean / middle(calm.iter().copied());
            trial.is_beyond_noise = calm.iter().copied().fold(0.0, f64::max) < mean;
        }
        let usual = middle(calm.iter().copied());
        let is_stuck = 2 <= self.silent;
        if trial.hurts_from.is_none() && tick.live_ms.map_or(is_stuck, |ms| EFFECT_MIN * usual <= ms) {
            trial.hurts_from = Some(in_span);
        }
        if trial.found.is_none() {
            trial.found = finding.map(|finding| (in_span, finding.clone()));
        }
    }

    fn by_name(&self) -> BTreeMap<&str, Vec<&Trial>> {
        let mut all: BTreeMap<&str, Vec<&Trial>> = BTreeMap::new();
        for trial in &self.trials {
            all.entry(&trial.name).or_default().push(trial);
        }
        all
    }

    /// Names in the order they were first tried.
    pub(crate) fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for trial in &self.trials {
            if !names.contains(&trial.name.as_str()) {
                names.push(&trial.name);
            }
        }
        names
    }
}

impl fmt::Display for Score {
    #[expect(clippy::cast_precision_loss, reason = "counts of trials")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| fault | tried | live's work × | effective | found within 15 s of hurting | delay p50 / p90 | right first | found as |"
        )?;
        writeln!(f, "|---|--:|--:|--:|--:|---|--:|---|")?;
        let by_name = self.by_name();
        for name in self.names() {
            row(f, name, &by_name[name])?;
        }
        let real: Vec<&Trial> =
            self.trials.iter().filter(|trial| trial.expected.is_some() && trial.is_effective()).collect();
        let soon = real.iter().filter(|trial| trial.is_soon()).count();
        let found: Vec<&&Trial> = real.iter().filter(|trial| trial.found.is_some()).collect();
        let right = found.iter().filter(|trial| trial.is_right()).count();
        let percent = |part: usize, of: usize| 100.0 * part as f64 / of.max(1) as f64;
        writeln!(f)?;
        writeln!(
            f,
            "effective faults found within 15 s: {soon} of {} ({:.1} %; goal 95 %)",
            real.len(),
            percent(soon, real.len())
        )?;
        writeln!(
            f,
            "right resource first: {right} of {} found ({:.1} %; goal 90 %)",
            found.len(),
            percent(right, found.len())
        )?;
        let blamed = self.trials.iter().filter(|trial| {
            let blames = |(_, finding): &(f64, HostFinding)| finding.scope != HostScope::Shared;
            trial.expected.is_none() && !trial.is_effective() && trial.found.as_ref().is_some_and(blames)
        });
        let harmless =
            self.trials.iter().filter(|trial| trial.expected.is_none() && !trial.is_effective()).count();
        writeln!(
            f,
            "faults that cost live nothing and were held against it: {} of {harmless}",
            blamed.count()
        )?;
        let days = self.control_seconds / DAY_SECONDS;
        let n = self.false_alarms.len();
        writeln!(
            f,
            "controls: {} spans, {:.2} h, {n} false alarms: {:.1} a day, at most {:.1} (Poisson, 95 %; goal 1)",
            self.controls,
            self.control_seconds / 3600.0,
            n as f64 / days,
            poisson_upper(n) / days,
        )?;
        for finding in &self.false_alarms {
            writeln!(f, "  false: {finding}")?;
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of trials")]
fn row(f: &mut fmt::Formatter<'_>, name: &str, trials: &[&Trial]) -> fmt::Result {
    let mut delays: Vec<f64> =
        trials.iter().filter_map(|trial| trial.found.as_ref().map(|(seconds, _)| *seconds)).collect();
    delays.sort_by(f64::total_cmp);
    let quantile = |q: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a place in a short list"
        )]
        let place = ((delays.len() as f64 * q).ceil() as usize).max(1) - 1;
        delays.get(place).map_or_else(|| "–".to_owned(), |seconds| format!("{seconds:.0} s"))
    };
    let effective = trials.iter().filter(|trial| trial.is_effective()).count();
    let soon = trials.iter().filter(|trial| trial.is_effective() && trial.is_soon()).count();
    let found = trials.iter().filter(|trial| trial.found.is_some()).count();
    let right = trials.iter().filter(|trial| trial.is_right()).count();
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for (_, finding) in trials.iter().filter_map(|trial| trial.found.as_ref()) {
        let scope = match finding.scope {
            HostScope::Live => "",
            HostScope::Shared => " shared",
            HostScope::Unknown => " ?",
        };
        *names.entry(format!("{}{scope}", finding.resource)).or_default() += 1;
    }
    let names: Vec<String> = names.into_iter().map(|(name, n)| format!("{n} {name}")).collect();
    let effect = middle(trials.iter().map(|trial| trial.effect));
    writeln!(
        f,
        "| {name} | {} | {effect:.2} | {effective} | {soon} | {} / {} | {right} of {found} | {} |",
        trials.len(),
        quantile(0.5),
        quantile(0.9),
        names.join(", "),
    )
}

/// The upper end of the one-sided 95 % interval of a Poisson mean after `n` events: where seeing `n` or fewer has a chance of
/// 5 %, found by halving.
#[expect(clippy::cast_precision_loss, reason = "a handful of events")]
fn poisson_upper(n: usize) -> f64 {
    let chance = |mean: f64| {
        let (mut term, mut sum) = ((-mean).exp(), 0.0);
        for k in 0..=n {
            sum += term;
            term *= mean / (k + 1) as f64;
        }
        sum
    };
    let (mut low, mut high) = (0.0, 3.0 * (n as f64 + 3.0));
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if 0.05 < chance(middle) { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_that_of_the_tables() {
        // Garwood's one-sided bounds: 2.996 after none, 4.744 after one, 7.754 after three.
        for (n, expected) in [(0, 2.996), (1, 4.744), (3, 7.754)] {
            assert!((poisson_upper(n) - expected).abs() < 1e-3, "{n}: {}", poisson_upper(n));
        }
    }
}
