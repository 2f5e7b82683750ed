mod week;

use foreshadow_engine::Reader;
use foreshadow_engine::model::{Budget, Ratio, Verdict};

use super::incidents::{Answer, Ended};
use super::*;
use week::{BEGIN, DAY, HOSTILE, HOUR};

const END: i64 = BEGIN + 7 * DAY;

fn told(policy: &Policy) -> Report {
    let folder = week::folder();
    let file = folder.path().join("foreshadow.db");
    week::record(&file);
    let reader = Reader::open(&file).unwrap();
    let mut heard = 0;
    let report = super::report(&reader, Span { from: BEGIN, to: END }, policy, |_, _| heard += 1).unwrap();
    assert_eq!(heard, 18, "one word for each series");
    assert_eq!(super::report(&reader, Span { from: END, to: END + DAY }, policy, |_, _| {}).unwrap(), None);
    report.unwrap()
}

fn policy() -> Policy {
    let prices = Budget {
        per_hour: 9.0,
        live_per_hour: 0.2,
        shadow_per_hour: 0.05,
        shadow_ratio: Ratio::new(1.0).unwrap(),
    };
    Policy { service: Some("shop".into()), capacity: Some(80.0), quantile: Some(0.9), prices: Some(prices) }
}

#[test]
fn a_week_is_told_with_its_numbers() {
    let report = told(&policy());
    assert_eq!(report.lives.iter().map(ToString::to_string).collect::<Vec<_>>(), ["live-1", "live-2"]);
    incidents_of_the_week(&report);
    actions_of_the_week(&report);
    figures_of_the_week(&report);
    trends_of_the_week(&report.trends);
    page_of_the_week(&report);
}

fn incidents_of_the_week(report: &Report) {
    let [false_one, rejected, real] = &report.incidents[..] else { panic!("{:?}", report.incidents) };
    assert!(false_one.is_possibly_false() && false_one.live.as_str() == "live-2", "{false_one:?}");
    assert_eq!((rejected.answer, rejected.is_possibly_false()), (Some(Answer::Rejected), false));
    assert_eq!((real.begin_unix_ms, real.ended), (BEGIN + 84 * HOUR, Ended::Healthy));
    assert_eq!((real.verdict, real.worst.map(|worst| worst.delta.get())), (Verdict::Degraded, Some(0.5)));
    assert_eq!(real.actions.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a1", "a2"]);
    let users = real.users.known().unwrap();
    let during = users.during.unwrap().median;
    assert!(users.has_recovered && 1.3 * users.before.median < during, "{users:?}");
    let alarms = &report.alarms;
    assert_eq!((alarms.alarms, alarms.rejected, alarms.possibly_false), (3, 1, 1));
    let counted = alarms.counted.known().unwrap();
    assert!((counted.per_day - 2.0 / 7.0).abs() < 1e-3 && counted.at_most_per_day < 1.0, "{alarms:?}");
    assert!(alarms.expected_per_day.known().is_some_and(|of| (of - 0.1).abs() < 1e-9), "{alarms:?}");
}

fn actions_of_the_week(report: &Report) {
    let actions = &report.actions;
    assert_eq!((actions.all.len(), actions.taken_back, actions.by_operator), (3, 1, 1));
    let helped = actions.helped.unwrap();
    assert_eq!((helped.count, helped.of), (1, 2));
    assert!(helped.low < 0.1 && 0.9 < helped.high, "two are few: {helped:?}");
}

fn figures_of_the_week(report: &Report) {
    let room = report.headroom.known().unwrap();
    // 120 of 160 requests a second at noon, and a twentieth of noise.
    assert!((0.74..0.79).contains(&room.used_most) && room.daily_peaks.values == 7, "{room:?}");
    assert!((room.headroom + room.used_most - 1.0).abs() < 1e-12 && room.seconds_beyond == 0.0);
    let forecasts = report.forecasts.known().unwrap();
    assert!((forecasts.coverage.share - 0.9).abs() < 0.01, "{:?}", forecasts.coverage);
    assert!(forecasts.coverage.low < 0.88 && 0.92 < forecasts.coverage.high, "hours count, not minutes");
    let cpu = report.shadows.cpu_seconds.known().unwrap();
    assert!((cpu.share - 0.1).abs() < 1e-3 && 0.99 < cpu.recorded_share, "{cpu:?}");
    assert!(report.shadows.memory_bytes.known().is_some_and(|of| (of.share - 0.5).abs() < 1e-9));
    assert!(report.shadows.copies.known().is_some_and(|of| (of.share - 0.1).abs() < 1e-3));
    // Two of each for a week of 168 hours.
    let money = report.shadows.money.known().unwrap();
    assert!((money.shadows - 16.8).abs() < 0.1 && (money.lives - 67.2).abs() < 0.4, "{money:?}");
    let copied = *report.shadows.copied_bytes.known().unwrap();
    assert!((copied / (2.0 * 500.0 * 7.0 * 86_400.0) - 1.0).abs() < 0.01, "{copied}");
}

fn trends_of_the_week(trends: &Trends) {
    let drifts =
        |of: &str, metric: &str| trends.drifting.iter().find(|one| one.of == of && one.metric == metric);
    let drift = drifts("live-2", "latency p95").unwrap_or_else(|| panic!("{:?}", trends.drifting)).drift;
    assert!(drift.low.get() < 0.04 && 0.03 < drift.high.get() && drift.is_chronic, "{drift:?}");
    assert!(drifts("live-1", "latency p95").is_none() && drifts("live-1", "memory").is_none());
    let load = &trends.seasons[0];
    assert!(load.metric == "load" && load.day.known().is_some_and(|day| day.is_found));
    assert_eq!(load.week, Said::Unknown("not enough data: needs 14 days, has 7.0".into()));
    let [deploy] = &trends.deploys[..] else { panic!("{:?}", trends.deploys) };
    let shift = deploy.changes[2].change.known().unwrap();
    assert!(shift.is_shift && shift.low.get() < 0.3 && 0.3 < shift.high.get(), "{shift:?}");
    assert!(deploy.is_done && !deploy.changes[0].change.known().unwrap().is_shift, "the load is as it was");
}

fn page_of_the_week(report: &Report) {
    let page = page(report).unwrap();
    for (id, name) in [
        ("incidents", "Incidents"),
        ("actions", "Actions"),
        ("alarms", "False alarms"),
        ("headroom", "Capacity headroom"),
        ("forecasts", "Forecasts against what came"),
        ("shadows", "Cost of shadows"),
        ("trends", "Trends"),
    ] {
        assert!(page.contains(&format!("<section id=\"{id}\"><h2>{name}</h2>")), "{name}");
    }
    for words in
        ["+50 % [+40 %, +60 %]", "1 of 2 (50 %", "possibly false", "rejected", "<title>shop: report</title>"]
    {
        assert!(page.contains(words), "{words}");
    }
    assert_eq!(page.matches("<svg").count(), 7, "load, p95, lanes, headroom, forecasts, two drifts");
    assert!(page.contains("a deploy lies within it"), "the second of them is a step and no drift");
    // Nothing from anywhere else, nothing that runs, and nothing that came from outside as a part of the page.
    assert!(!page.contains(HOSTILE) && !page.contains("<script") && !page.contains("<img"), "escaped");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;"));
    let links: Vec<&str> = page
        .split("http")
        .skip(1)
        .filter(|rest| rest.starts_with("://") || rest.starts_with("s://"))
        .collect();
    assert!(links.iter().all(|link| link.starts_with("://www.w3.org/2000/svg")), "{links:?}");
    for from_elsewhere in ["@import", "url(", "<link", "<iframe", "<object"] {
        assert!(!page.contains(from_elsewhere), "{from_elsewhere}");
    }
    let summary = summary(report).join("\n");
    for words in [
        "shop, 7.0 days",
        "3 incidents, the worst with a delta of +50 %",
        "False alarms: 1 rejected, 1 possibly false",
    ] {
        assert!(summary.contains(words), "{words}: {summary}");
    }
}

#[test]
fn what_is_not_known_is_said_with_what_it_needs() {
    let folder = week::folder();
    let file = folder.path().join("foreshadow.db");
    let mut store = foreshadow_engine::Store::open(&file).unwrap();
    let tick = foreshadow_engine::model::Tick(1);
    store.append(tick, BEGIN, &week::verdict(1, Verdict::Warn, None)).unwrap();
    store.append(tick, BEGIN + HOUR, &week::verdict(1, Verdict::Healthy, None)).unwrap();
    drop(store);
    let reader = Reader::open(&file).unwrap();
    let report = super::report(&reader, Span { from: BEGIN, to: END }, &Policy::default(), |_, _| {});
    let report = report.unwrap().unwrap();
    let page = page(&report).unwrap();
    for words in [
        "`knee.objective` of the configuration",
        "needs 24 hours of forecasts",
        "no shadow answered a copy",
        "needs 48 hours, has 0",
    ] {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
}
