//! `foreshadow forecast` and `foreshadow backtest` on tables of a load.

use std::fmt::Write as _;
use std::process::Output;

use serde_json::Value;

use crate::controller::{fed, foreshadow};
use crate::judge::lines;
use crate::real_data::data;

/// 2026-05-01T00:00:00Z.
const BEGIN: u64 = 1_777_593_600;

/// Every five minutes of so many days: four times the night from eight to eight, within half an hour, and noise of a tenth.
fn table(days: u64) -> String {
    let mut text = String::from("timestamp,value\n");
    for row in 0..days * 288 {
        let of_day = row % 288;
        let up = (of_day.clamp(96, 102) - 96) as f64 / 6.0;
        let down = (of_day.clamp(240, 246) - 240) as f64 / 6.0;
        let tremble = 0.95 + 0.1 * ((row.wrapping_mul(0x9E37_79B9) >> 7) % 1000) as f64 / 1000.0;
        writeln!(text, "{},{:.3}", BEGIN + 300 * row, tremble * (100.0 + 300.0 * (up - down))).unwrap();
    }
    text
}

fn run(words: &[&str], input: &str) -> Output {
    fed(foreshadow().args(words), input)
}

fn number(line: &Value, name: &str) -> f64 {
    line[name].as_f64().unwrap_or_else(|| panic!("{name} of {line}"))
}

#[test]
fn a_load_is_forecast_with_bands_and_said_to_be_worth_it() {
    let said = lines(&run(&["forecast", "-", "-o", "json"], &table(10)));
    let (summary, rows) = said.split_last().unwrap();
    assert_eq!((rows.len(), &summary["type"], &summary["worth_it"]), (8, &"summary".into(), &true.into()));
    for row in rows {
        let [low, value, high] = ["low", "value", "high"].map(|name| number(row, name));
        assert!(low <= value && value <= high && 0.0 <= low, "{row}");
        assert!((80.0..130.0).contains(&value), "the next hour is of the night: {row}");
    }
    assert_eq!(rows[7]["timestamp"], "2026-05-11T00:55:00Z");
    let text = String::from_utf8(run(&["forecast", "-"], &table(10)).stdout).unwrap();
    assert!(text.contains("90 %") && text.contains("A forecast is worth having here"), "{text}");
}

#[test]
fn an_evaluation_says_how_good_forecasts_were_and_whether_they_are_worth_it() {
    let [said] = &lines(&run(&["forecast", "-", "--evaluate", "-o", "json"], &table(14)))[..] else {
        panic!()
    };
    assert!(number(said, "mase") < 0.8 * number(said, "naive_mase"), "{said}");
    assert!(number(said, "mase") < number(said, "seasonal_naive_mase") && said["worth_it"] == true, "{said}");
    assert!((0.86..0.94).contains(&number(said, "coverage_q90")), "{said}");
    assert!(0.0 < number(said, "pinball_q90") && number(said, "cpu_ms_per_fit") < 1000.0, "{said}");
    assert_eq!(said["origins"], 12 * 288 - 12);
    let flat: String = std::iter::once("timestamp,value\n".to_owned())
        .chain((0..2000).map(|row| format!("{},7\n", BEGIN + 300 * row)))
        .collect();
    let output = run(&["forecast", "-", "--evaluate", "-o", "json"], &flat);
    let [said] = &lines(&output)[..] else { panic!() };
    assert_eq!((&said["worth_it"], &said["mase"]), (&false.into(), &Value::Null));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no error to compare with"));
}

#[test]
fn policies_are_compared_and_one_is_recommended() {
    let said =
        lines(&run(&["backtest", "-", "--seeds", "1", "--startup", "4m..5m", "-o", "json"], &table(8)));
    let (last, policies) = said.split_last().unwrap();
    for line in policies {
        assert!(0.0 <= number(line, "violation_minutes") && 0.0 < number(line, "replica_hours"), "{line}");
        assert!(line["scale_events"].is_u64() && line["policy"].is_string(), "{line}");
    }
    let names: Vec<&str> = policies.iter().map(|line| line["policy"].as_str().unwrap()).collect();
    for name in ["hpa-cpu-70", "hpa-concurrency-60", "kpa-60", "forecast-only", "foreshadow"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    assert_eq!(last["forecast"], "on", "it rises every morning while replicas take five minutes: {last}");
    assert!(
        last["recommended"].is_string()
            && last["because"].as_str().unwrap().contains("at equal replica-hours")
    );
    let again =
        lines(&run(&["backtest", "-", "--seeds", "1", "--startup", "4m..5m", "-o", "json"], &table(8)));
    assert_eq!(said, again, "the same seeds, the same scores");
}

#[test]
fn what_is_advised_goes_into_a_configuration_and_the_pictures_into_files() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("shop.yaml");
    let before = "# ours\nservice: shop\nplatform:\n  type: local\n  local:\n    command: [sleep, \"1\"]\n";
    std::fs::write(&config, before).unwrap();
    let svg = folder.path().join("cost.svg");
    let [file, svg] = [&config, &svg].map(|path| path.to_str().unwrap());
    let words = [
        "backtest", "-", "--seeds", "1", "--config", file, "--emit", file, "--plot", svg, "--lives",
        "3..300", "--knee", "60",
    ];
    let output = run(&words, &table(3));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let after = std::fs::read_to_string(&config).unwrap();
    assert!(after.starts_with(before) && after.contains("\nforecast:\n"), "{after}");
    assert!(foreshadow().args(["plan", file]).output().unwrap().status.success(), "{after}");
    assert!(std::fs::read_to_string(svg).unwrap().contains("replica-hours"));
    let svg = folder.path().join("load.svg");
    assert!(run(&["forecast", "-", "--plot", svg.to_str().unwrap()], &table(3)).status.success());
    assert!(std::fs::read_to_string(svg).unwrap().starts_with("<svg"));
}

#[test]
fn what_cannot_be_is_refused_with_what_was_expected() {
    let short = "timestamp,value\n0,1\n60,2\n120,3\n";
    for (words, input, wanted) in [
        (&["forecast", "-", "--evaluate"][..], short, "expected more than two days of load"),
        (&["forecast", "-", "--lead", "2d"], short, "--lead: expected a day at most"),
        (&["forecast", "-", "--quantile", "40%"], short, "--quantile: expected a share from 51% to 99%"),
        (&["forecast", "-"], "timestamp,value\n60,1\n0,2\n", "line 3, column `timestamp`"),
        (&["forecast", "-"], "timestamp,value\n0,1\n0,2\n", "does not come after"),
        (
            &["forecast", "-"],
            "timestamp,value\n0,-1\n",
            "line 2, column `value`: expected a finite number that is not negative",
        ),
        (&["forecast", "-"], "when,load\n0,1\n", "expected a column `timestamp`"),
        (&["forecast", "-"], "timestamp,value\n0,\n60,\n", "expected a load in some rows"),
        (&["forecast", "/nowhere.csv"], "", "failed to read the table"),
        (&["backtest", "-"], short, "expected at least a day of load"),
        (&["backtest", "-", "--lives", "9..3"], &table(2), "--lives: expected"),
        (&["backtest", "-", "--scale", "0"], &table(2), "--scale: expected"),
        (&["backtest", "-", "--objective", "60ms"], &table(2), "--objective: no load is small enough"),
    ] {
        let output = run(words, input);
        let words_of = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && words_of.contains(wanted), "{words:?}: {words_of}");
        assert!(output.stdout.is_empty(), "{words:?}");
    }
}

/// Bounds are what was measured, and a little.
#[test]
fn the_goals_are_met_on_loads_that_were_recorded() {
    let Some(data) = data("load").and_then(|load| Some(load.parent()?.to_path_buf())) else { return };
    let of = |file: &str| data.join(file).to_str().unwrap().to_owned();
    let evaluate =
        |file: &str| lines(&run(&["forecast", &of(file), "--evaluate", "-o", "json"], ""))[0].clone();
    for (file, mase, pinball) in [
        ("load/worldcup98_1min.csv", 0.53, 0.20),
        ("anomaly/mscloud/mongo-03.csv", 0.60, 0.17),
        ("anomaly/mscloud/ingress-01.csv", 0.48, 0.13),
        ("anomaly/nab/nyc_taxi.csv", 0.43, 0.11),
    ] {
        let said = evaluate(file);
        assert!(number(&said, "mase") < mase && number(&said, "pinball_q90") < pinball, "{file}: {said}");
        assert!((0.88..0.92).contains(&number(&said, "coverage_q90")), "{file}: {said}");
    }
    let backtest = |words: &[&str]| {
        let all = [&["backtest", "-o", "json"], words].concat();
        lines(&run(&all, "")).pop().unwrap()
    };
    let mongo = backtest(&[&of("anomaly/mscloud/mongo-01.csv"), "--startup", "240s..360s"]);
    assert!(mongo["forecast"] == "on" && number(&mongo, "over_concurrency") < 0.22, "{mongo}");
    let smooth = backtest(&[&of("anomaly/mscloud/ingress-01.csv")]);
    assert!(smooth["forecast"] == "off" && number(&smooth, "over_concurrency") < 1.02, "{smooth}");
}
