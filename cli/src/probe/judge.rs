//! A result against earlier ones of the same machine.
//!
//! *Why the own past*: two machines of one kind differ by up to a third for ever; a machine's own past is what its figures
//! mean something against. *Trips* when a figure is worse than the median of the past by more than three of its
//! deviations (MAD) and by 15 % at least. *First start*: nothing is said before three earlier results.
//! *Cannot see*: what was bad from the first day on; `--compare` with another machine shows that.

use foreshadow_engine::model::Resource;

use super::report::{Figure, Report};

/// Earlier results before anything is said.
const PAST_MIN: usize = 3;

/// Results that count as the past: the latest.
const PAST_MAX: usize = 20;

/// Deviations beyond which a figure is worse.
const DEVIATIONS: f64 = 3.0;

/// ... and by at least this much: 15 %, in log units.
const EFFECT_LOG: f64 = 0.139_761_942_375;

/// What the past says of every test.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Judgement {
    pub(super) tests: Vec<Against>,
}

/// A figure against its past.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Against {
    name: String,
    /// Earlier results with this figure.
    past: usize,
    /// `value / median of the past` less one, positive is worse; `None` with too little of a past.
    pub(super) worse: Option<f64>,
    pub(super) is_worse: bool,
}

/// Sets every figure against those of `past`, oldest first.
pub(super) fn against_past(report: &Report, past: &[&Report]) -> Judgement {
    let tests = report.tests.iter().map(|figure| against(report, figure, past)).collect();
    Judgement { tests }
}

fn against(report: &Report, figure: &Figure, past: &[&Report]) -> Against {
    let alike = past.iter().rev().filter(|past| report.is_alike(past, figure.test));
    let logs: Vec<f64> =
        alike.filter_map(|past| figure.worse_log(past.figure(figure)?.value?)).take(PAST_MAX).collect();
    let name = figure.name();
    if logs.len() < PAST_MIN {
        return Against { name, past: logs.len(), worse: None, is_worse: false };
    }
    let worse_log = median(logs.clone());
    let noise = 1.4826 * median(logs.iter().map(|log| (log - worse_log).abs()).collect());
    let floor = match figure.test.resource() {
        Resource::Storage | Resource::Network => 0.1,
        _ => 0.03,
    };
    let is_worse = (DEVIATIONS * noise.max(floor)).max(EFFECT_LOG) < worse_log;
    Against { name, past: logs.len(), worse: Some(worse_log.exp_m1()), is_worse }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
}

impl Judgement {
    /// The one line people came for.
    pub(super) fn line(&self) -> String {
        let judged = self.tests.iter().filter(|test| test.worse.is_some()).count();
        if judged == 0 {
            let past = self.tests.iter().map(|test| test.past).max().unwrap_or(0);
            return format!(
                "Nothing to judge by yet: {past} earlier {} of this machine, {PAST_MIN} are needed.",
                if past == 1 { "result" } else { "results" }
            );
        }
        let past = self.tests.iter().map(|test| test.past).max().unwrap_or(0);
        let mut worse: Vec<&Against> = self.tests.iter().filter(|test| test.is_worse).collect();
        if worse.is_empty() {
            return format!(
                "As this machine was before: {judged} tests within the noise of its {past} last results."
            );
        }
        worse.sort_by(|a, b| b.worse.unwrap_or(0.0).total_cmp(&a.worse.unwrap_or(0.0)));
        let words: Vec<String> = worse
            .iter()
            .map(|test| format!("{} by {:.0} %", test.name, 100.0 * test.worse.unwrap_or(0.0)))
            .collect();
        format!("WORSE than this machine's own past ({past} results): {}.", words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(processor: f64) -> Report {
        let text = format!(
            r#"{{"format":1,"unixMs":0,"machine":{{"name":"a","kernel":"6","processor":"x","processors":2}},"pageMode":"4 KiB pages","spanSeconds":0.3,"runs":3,"directory":"/","fileBytes":1,"peer":null,"tests":[{{"test":"processor","target":null,"unit":"events/s","better":"higher","value":{processor},"lowest":1.0,"highest":2.0,"perCpuSecond":1.0,"minimumSeconds":1.0,"p50Seconds":1.0,"p99Seconds":1.0,"reason":null}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn judge(past: &[f64], now: f64) -> Judgement {
        let past: Vec<Report> = past.iter().map(|&value| report(value)).collect();
        against_past(&report(now), &past.iter().collect::<Vec<_>>())
    }

    #[test]
    fn without_a_past_nothing_is_said() {
        let judgement = judge(&[5000.0, 5000.0], 1.0);
        assert!(
            judgement.line().starts_with("Nothing to judge by yet: 2 earlier results"),
            "{}",
            judgement.line()
        );
        assert!(!judgement.tests[0].is_worse);
    }

    #[test]
    fn a_figure_within_its_noise_is_as_before_and_one_far_below_is_worse() {
        let past = [5000.0, 5050.0, 4950.0, 5020.0];
        assert!(judge(&past, 4900.0).line().starts_with("As this machine was before"));
        let worse = judge(&past, 2500.0).line();
        assert!(worse.contains("WORSE") && worse.contains("processor by 100 %"), "{worse}");
        assert!(!judge(&past, 9000.0).tests[0].is_worse, "better is not worse");
    }

    #[test]
    fn a_past_that_differs_widely_excuses_much() {
        let past = [5000.0, 3000.0, 7000.0, 4000.0, 6500.0];
        assert!(!judge(&past, 3500.0).tests[0].is_worse);
    }
}
