use foreshadow_model::{InstanceId, JournalEntry, Role};
use proptest::prelude::*;

use super::*;
use crate::records::{JournalQuery, Step};

/// Two lives and a shadow; the value is the number of the instance, plus one each minute.
struct Shelf;

fn at(number: f64, moment: i64) -> f64 {
    number + (moment / 60_000) as f64
}

impl Records for Shelf {
    fn journal(&self, _: &JournalQuery) -> Result<Vec<JournalEntry>, RecordsError> {
        Ok(Vec::new())
    }

    fn series(&self) -> Result<Vec<SeriesRow>, RecordsError> {
        let row = |instance: InstanceId, role, metric: &str, unit: &str| SeriesRow {
            instance,
            role,
            metric: metric.into(),
            unit: unit.into(),
        };
        Ok(vec![
            row(InstanceId::live(1), Role::Live, "latency_p99", "ms"),
            row(InstanceId::live(2), Role::Live, "latency_p99", "ms"),
            row(InstanceId::live(1).shadow_of(), Role::Shadow, "latency_p99", "ms"),
            row(InstanceId::live(1), Role::Live, "requests", "1/s"),
        ])
    }

    fn samples(&self, series: &SeriesRow, from: i64, to: i64) -> Result<Vec<(i64, f64)>, RecordsError> {
        let number = if series.instance == InstanceId::live(2) { 2000.0 } else { 1000.0 };
        let moments = (0..2880).map(|tick| tick * 60_000 + 1000);
        Ok(moments.filter(|at| (from..to).contains(at)).map(|moment| (moment, at(number, moment))).collect())
    }

    fn steps(&self, series: &SeriesRow, range: (i64, i64), step_ms: i64) -> Result<Vec<Step>, RecordsError> {
        let one = |(moment, value): (i64, f64)| Step {
            unix_ms: moment.div_euclid(step_ms) * step_ms,
            n: 1,
            min: value,
            max: value,
            sum: value,
            last: value,
        };
        Ok(self.samples(series, range.0, range.1)?.into_iter().map(one).collect())
    }

    fn backlog(&self, _: i64, _: usize) -> Result<Option<crate::records::Backlog>, RecordsError> {
        Ok(None)
    }
}

fn ask(text: &str, grid: Grid) -> Result<Answer, QueryError> {
    let plan = plan(text)?;
    evaluate(&plan, grid, &Source::new(&Shelf, "shop").unwrap())
}

/// What is found after ten minutes: labels in one text, and the value.
fn check(text: &str, expected: &[(&str, f64)]) {
    let answer = ask(text, Grid::instant(605_000)).unwrap_or_else(|error| panic!("{text}: {error}"));
    let found: Vec<(String, f64)> = match answer {
        Answer::Scalar(values) => vec![("scalar".to_owned(), values[0])],
        Answer::Vector(found) => {
            let words = |labels: &Labels| {
                let shown = labels.iter().filter(|(name, _)| *name != "service");
                shown.map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(" ")
            };
            found.iter().map(|found| (words(&found.labels), found.values[0].unwrap())).collect()
        }
    };
    let expected: Vec<(String, f64)> =
        expected.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    let is_same = |((name, value), (wanted, number)): (&(String, f64), &(String, f64))| {
        name == wanted && (value - number).abs() <= 1e-12 * number.abs()
    };
    let is_same = found.len() == expected.len() && found.iter().zip(&expected).all(is_same);
    assert!(is_same, "{text}: {found:?}");
}

const P99: &str = "foreshadow_latency_p99_seconds";

#[test]
fn selectors_pick_by_all_four_matchers_and_give_base_units() {
    let (one, two, three) =
        (format!("{P99} live-1 live"), format!("{P99} live-2 live"), format!("{P99} shadow-1 shadow"));
    check(P99, &[(&one, 1.01), (&two, 2.01), (&three, 1.01)]);
    check(&format!("{P99}{{role=\"live\",instance!=\"live-1\"}}"), &[(&two, 2.01)]);
    check(&format!("{P99}{{instance=~\"live.*\",instance!~\".*-2\"}}"), &[(&one, 1.01)]);
    check(&format!("{P99}{{nothing=\"\",service=\"shop\",role=\"shadow\"}}"), &[(&three, 1.01)]);
    check(&format!("{P99}{{service=\"other\"}}"), &[]);
    check(&format!("{P99}{{instance=\"live-1\"}} offset 5m"), &[(&one, 1.005)]);
    check("{__name__=~\".+per_second\"}", &[("foreshadow_requests_per_second live-1 live", 1010.0)]);
}

#[test]
fn functions_aggregations_and_arithmetic_are_those_of_prometheus() {
    let requests = "foreshadow_requests_per_second";
    check(&format!("avg_over_time({requests}[5m])"), &[("live-1 live", 1008.0)]);
    check(&format!("count_over_time({requests}[5m])"), &[("live-1 live", 5.0)]);
    check(&format!("increase({requests}[5m])"), &[("live-1 live", 5.0)]);
    check(&format!("quantile_over_time(0.5, {requests}[5m])"), &[("live-1 live", 1008.0)]);
    check(&format!("last_over_time({requests}[5m])"), &[(&format!("{requests} live-1 live"), 1010.0)]);
    check(&format!("sum by (role) ({P99})"), &[("live", 3.02), ("shadow", 1.01)]);
    check(&format!("count without (instance, service) ({P99})"), &[("live", 2.0), ("shadow", 1.0)]);
    check(&format!("max({P99})"), &[("", 2.01)]);
    check(&format!("{requests} > 2000"), &[]);
    check(&format!("{requests} > bool 2000"), &[("live-1 live", 0.0)]);
    check(&format!("2 * {requests} % 7"), &[("live-1 live", 2020.0 % 7.0)]);
    check(&format!("{requests} / {P99}"), &[("live-1 live", 1010.0 / 1.01)]);
    check(&format!("-{requests}"), &[("live-1 live", -1010.0)]);
    check("2 ^ 3 + 1 == bool 9", &[("scalar", 1.0)]);
}

#[test]
fn a_grid_has_a_value_at_each_moment_and_none_where_nothing_was_measured() {
    let grid = Grid { start: -60_000, end: 120_000, step: 60_000 };
    let Answer::Vector(found) = ask("foreshadow_requests_per_second", grid).unwrap() else {
        panic!("a vector")
    };
    assert_eq!(found[0].values, [None, None, Some(1000.0), Some(1001.0)]);
    let late = Grid::instant(2880 * 60_000 + 300_000);
    let Answer::Vector(found) = ask("foreshadow_requests_per_second", late).unwrap() else {
        panic!("a vector")
    };
    assert_eq!(found, [], "five minutes after the last sample there is none");
}

#[test]
fn long_steps_over_long_spans_are_answered_by_roll_ups() {
    let hour = 3_600_000;
    let grid = Grid { start: 0, end: 15 * 24 * hour, step: hour };
    let Answer::Vector(found) = ask("max_over_time(foreshadow_requests_per_second[1h])", grid).unwrap()
    else {
        panic!("a vector")
    };
    assert_eq!((found[0].values[0], found[0].values[1]), (None, Some(1059.0)));
}

#[test]
fn what_is_not_supported_is_named() {
    for (text, wanted) in [
        ("topk(3, a)", "aggregation `topk`"),
        ("histogram_quantile(0.9, a)", "function `histogram_quantile`"),
        ("a and b", "operator `and`"),
        ("a / on(instance) b", "`on`, `ignoring`"),
        ("rate(a[5m:1m])", "subquery"),
        ("a[5m]", "range without a function"),
        ("a @ 5", "modifier `@`"),
        ("\"text\"", "text as a query"),
        ("rate(a)", "query"),
        ("1 > 2", "BOOL"),
        ("sum(1)", "aggreg"),
        ("{", "cannot parse"),
        ("", "cannot parse"),
        ("{__name__=~\".+\"} * 2", "same labelset"),
        ("{__name__=~\".+\"} + {__name__=~\".+\"}", "many-to-many"),
    ] {
        let error = ask(text, Grid::instant(605_000)).expect_err(text).to_string();
        assert!(error.contains(wanted), "{text}: {error}");
    }
}

#[test]
fn a_question_that_is_too_large_is_refused_before_it_is_computed() {
    let deep = format!("{}1{}", "(".repeat(1000), ")".repeat(1000));
    let long = vec!["1"; 3000].join("+");
    let chain = vec!["1"; 200].join("+");
    let signs = format!("{}up", "-".repeat(4000));
    for (text, wanted) in [(deep, "nested"), (long, "bytes"), (chain, "nested"), (signs, "nested")] {
        let error = plan(&text).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    let patterns = ["{__name__=~\".+\"}"; 12].join(" + ");
    let error = plan(&patterns).unwrap_err().to_string();
    assert!(error.contains("at most 8 regular expressions"), "{error}");
    let grid = Grid { start: 0, end: 172_800_000, step: 16_000 };
    let text = ["max_over_time({__name__=~\".+seconds\"}[2d])"; 8].join(" > ");
    let error = ask(&text, grid).unwrap_err().to_string();
    assert!(error.contains("needs more than"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_text_panics(text in "\\PC{0,80}") {
        let _answer = ask(&text, Grid { start: 0, end: 600_000, step: 60_000 });
        let _selectors = selectors(std::iter::once(text.as_str()));
    }

    #[test]
    fn nothing_that_looks_like_a_query_panics(
        words in prop::collection::vec(prop::sample::select(vec![
            "a", "rate", "sum", "(", ")", "[5m]", "{", "}", "role", "=", "=~", "\"live\"", "by", "offset", "-", "5m", "1",
            "+", "==", "bool", ",", "quantile_over_time", "1e308", "NaN", "Inf", "%", "^", "without", "@", "[5m:]", "\"(\"",
            "foreshadow_requests_per_second", "avg_over_time", "!~", "'", "`", "#", "0x", "1d", "\\",
        ]), 0..14),
        is_spaced: bool,
    ) {
        let text = words.join(if is_spaced { " " } else { "" });
        let _answer = ask(&text, Grid { start: 0, end: 600_000, step: 60_000 });
        let _selectors = selectors(std::iter::once(text.as_str()));
    }
}
