//! Numbers and findings in words.

use foreshadow_engine::forecast::trend::{Change, Drift, Season};

use super::Report;
use super::costs::Beside;
use super::figures::{Said, Share, Spread};
use super::trends::Drifting;
use crate::show;

/// A share in percent: `7.3 %`, `45 %`.
pub(super) fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    if percent.abs() < 9.95 && 0.05 <= percent.abs() {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
}

/// A few digits.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        "0".into()
    } else if !(1e-3..1e7).contains(&size) {
        format!("{value:.1e}")
    } else if 100.0 <= size {
        format!("{value:.0}")
    } else {
        format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// A size in the unit that people read.
pub(super) fn bytes(size: f64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut rest = size;
    let mut unit = 0;
    while 1024.0 <= rest.abs() && unit + 1 < UNITS.len() {
        rest /= 1024.0;
        unit += 1;
    }
    format!("{} {}", number(rest), UNITS[unit])
}

/// A value in the unit of its series.
pub(super) fn in_unit(value: f64, unit: &str) -> String {
    match unit {
        "bytes" => bytes(value),
        "1" => number(value),
        "1/s" => format!("{}/s", number(value)),
        "s" if value.abs() < 0.1 => format!("{} ms", number(1000.0 * value)),
        unit => format!("{} {unit}", number(value)),
    }
}

/// A span of time in the unit that people read.
pub(super) fn lasting(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

/// Milliseconds between two moments, in seconds.
pub(super) fn seconds(from: i64, to: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "spans of years are exact in milliseconds")]
    let ms = (to - from) as f64;
    ms / 1000.0
}

/// `7 of 9 (78 %, 45 % to 94 %)`.
pub(super) fn share(of: &Share) -> String {
    format!("{} of {} ({}, {} to {})", of.count, of.of, percent(of.share), percent(of.low), percent(of.high))
}

/// `42 ms (35 to 50)`.
pub(super) fn spread(of: &Spread, unit: &str) -> String {
    format!("{} ({} to {})", in_unit(of.median, unit), number(of.low), number(of.high))
}

/// `1 incident`, `3 incidents`.
pub(super) fn count(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

pub(super) fn drift(of: &Drift) -> String {
    format!("{} per day [{}, {}], {} over {:.1} days", of.per_day, of.low, of.high, of.over_span, of.days)
}

pub(super) fn season(of: &Said<Season>, period: &str) -> String {
    let season = match of {
        Said::Unknown(why) => return why.clone(),
        Said::Known(season) => season,
    };
    let found = if season.is_found { format!("comes again every {period}") } else { "none found".into() };
    // Added to zero, what rounds to it has no sign.
    let two = |value: f64| (100.0 * value).round() / 100.0 + 0.0;
    format!(
        "{found}: autocorrelation {:.2}, beside it {:.2}, {:.2} more is needed; {:.1} {period}s",
        two(season.strength),
        two(season.beside),
        season.needed,
        season.periods
    )
}

pub(super) fn change(of: &Said<Change>) -> String {
    match of {
        Said::Unknown(why) => why.clone(),
        Said::Known(change) => format!(
            "{}{} [{}, {}], p {}; {} h before, {} h after",
            if change.is_shift { "" } else { "no shift: " },
            change.effect,
            change.low,
            change.high,
            if change.p < 0.001 { "below 0.001".into() } else { format!("{:.3}", change.p) },
            change.hours.0,
            change.hours.1
        ),
    }
}

pub(super) fn beside(of: &Said<Beside>, unit: impl Fn(f64) -> String) -> String {
    match of {
        Said::Unknown(why) => why.clone(),
        Said::Known(both) => format!(
            "{} beside {} of the lives: {} (recorded in {} of the span)",
            unit(both.shadows),
            unit(both.lives),
            percent(both.share),
            percent(both.recorded_share)
        ),
    }
}

pub(super) fn drifting(of: &Drifting) -> String {
    format!("{}, {}: {}", of.of, of.metric, drift(&of.drift))
}

/// The report in a few sentences.
pub(crate) fn summary(report: &Report) -> Vec<String> {
    let mut all = vec![head(report), incidents(report), actions(report), alarms(report)];
    all.push(match &report.headroom {
        Said::Known(room) => format!(
            "At the fullest moment {} of the capacity was used (daily peaks {} to {}): headroom {}.",
            percent(room.used_most),
            percent(room.daily_peaks.low),
            percent(room.daily_peaks.high),
            percent(room.headroom)
        ),
        Said::Unknown(why) => format!("Headroom: {why}."),
    });
    all.push(match &report.forecasts {
        Said::Known(of) => format!(
            "The load stayed below its forecast in {} of moments ({} to {}); {} was promised.",
            percent(of.coverage.share),
            percent(of.coverage.low),
            percent(of.coverage.high),
            percent(of.quantile)
        ),
        Said::Unknown(why) => format!("Forecasts: {why}."),
    });
    all.push(match report.shadows.cpu_seconds.known() {
        Some(both) => format!("Shadows used {} of the processor time of their lives.", percent(both.share)),
        None => "What shadows used of the processor is not recorded.".into(),
    });
    if let Some(money) = report.shadows.money.known() {
        all.push(format!("Shadows cost {:.2}, their lives {:.2}.", money.shadows, money.lives));
    }
    all.extend(trends(report));
    all
}

fn head(report: &Report) -> String {
    let service = report.service.as_deref().unwrap_or("The service");
    format!(
        "{service}, {} from {} to {}: {}, the load is known in {} of the time.",
        lasting(seconds(report.from_unix_ms, report.to_unix_ms)),
        show::time(report.from_unix_ms),
        show::time(report.to_unix_ms),
        count(report.lives.len(), "live"),
        percent(report.known_share)
    )
}

fn incidents(report: &Report) -> String {
    let all = &report.incidents;
    let Some(first) = all.first() else { return "No incident.".into() };
    let worst = all.iter().filter_map(|incident| Some((incident, incident.worst?)));
    let worst = worst.reduce(|a, b| if a.1.delta < b.1.delta { b } else { a });
    let words = worst.map_or_else(
        || format!(", first of {}", first.live),
        |(incident, delta)| format!(", the worst with a delta of {delta} on {}", incident.live),
    );
    let open = all.iter().filter(|incident| incident.end_unix_ms.is_none()).count();
    let open = if open == 0 { String::new() } else { format!("; {open} not over yet") };
    format!("{}{words}{open}.", count(all.len(), "incident"))
}

fn actions(report: &Report) -> String {
    let of = &report.actions;
    let helped = match &of.helped {
        Some(helped) => format!("; of those that could be judged {} helped", share(helped)),
        None if of.all.is_empty() => return "No action.".into(),
        None => "; none of them could be judged".into(),
    };
    format!("{}{helped}.", count(of.all.len(), "action"))
}

fn alarms(report: &Report) -> String {
    let of = &report.alarms;
    let counted = match &of.counted {
        Said::Known(rate) => {
            format!("{} a day (at most {})", number(rate.per_day), number(rate.at_most_per_day))
        }
        Said::Unknown(_) => "too short a time to say how many a day".into(),
    };
    let expected = match &of.expected_per_day {
        Said::Known(expected) => format!("expected are at most {} a day", number(*expected)),
        Said::Unknown(_) => "how many are to be expected is not known yet".into(),
    };
    format!(
        "False alarms: {} rejected, {} possibly false, {counted}; {expected}.",
        of.rejected, of.possibly_false
    )
}

fn trends(report: &Report) -> Vec<String> {
    let of = &report.trends;
    let mut all = Vec::new();
    match of.drifting.first() {
        Some(first) => all.push(format!(
            "{} of {} series drift, most of all {}.",
            of.drifting.len(),
            of.judged,
            drifting(first)
        )),
        None if of.judged == 0 => {
            let why = of.unjudged_because.as_deref().unwrap_or("not enough data: nothing was measured");
            all.push(format!("Drift: {why}."));
        }
        None => all.push(format!("None of {} series drifts.", of.judged)),
    }
    let found = |of: &Said<Season>| of.known().is_some_and(|season| season.is_found);
    for seasonal in of.seasons.iter().filter(|seasonal| seasonal.of == "service") {
        match (found(&seasonal.day), found(&seasonal.week)) {
            (true, true) => {
                all.push(format!("The {} comes again every day and every week.", seasonal.metric))
            }
            (true, false) => all.push(format!("The {} comes again every day.", seasonal.metric)),
            (false, true) => all.push(format!("The {} comes again every week.", seasonal.metric)),
            (false, false) => {}
        }
    }
    for deploy in &of.deploys {
        for changed in deploy.changes.iter().filter(|changed| changed.of == "service") {
            if let Some(shift) = changed.change.known().filter(|change| change.is_shift) {
                all.push(format!(
                    "Since the deploy of {} the {} is another: {} [{}, {}].",
                    show::time(deploy.begin_unix_ms),
                    changed.metric,
                    shift.effect,
                    shift.low,
                    shift.high
                ));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_few_digits_and_the_unit_that_people_read() {
        assert_eq!(
            (percent(0.073), percent(0.452), percent(0.0)),
            ("7.3 %".into(), "45 %".into(), "0 %".into())
        );
        assert_eq!((number(0.5), number(1234.5), number(2.0)), ("0.5".into(), "1234".into(), "2".into()));
        assert_eq!((bytes(512.0), bytes(3.5 * 1024.0 * 1024.0)), ("512 bytes".into(), "3.5 MiB".into()));
        assert_eq!((in_unit(0.004, "s"), in_unit(40.0, "1/s")), ("4 ms".into(), "40/s".into()));
        assert_eq!((lasting(90.0), lasting(4000.0)), ("90 s".into(), "67 min".into()));
    }
}
