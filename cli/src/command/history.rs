//! `foreshadow history`: how measured series went.

mod export;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use foreshadow_engine::model::ServiceName;
use foreshadow_engine::{Reader, SeriesKey};

use crate::args::{HistoryArgs, SeriesOutput};
use crate::command::{open_store, read_config};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::{show, spark};

/// Columns where nobody says how wide the terminal is.
const WIDTH: usize = 80;

/// Blocks where there is no terminal: lines may be as long as they like, and a row should show how it went.
const BLOCKS: usize = 60;

/// Columns that least, greatest and last value take beside the blocks.
const FIGURES_WIDTH: usize = 54;

/// One series with its samples, moments in Unix milliseconds.
struct Course {
    key: SeriesKey,
    samples: Vec<(i64, f64)>,
}

pub(crate) fn history(args: &HistoryArgs) -> Result<Exit, Failure> {
    let reader = open_store(&args.controller)?;
    let keys = reader.series_keys().map_err(|error| Failure::new(&error))?;
    let is_list = args.series.is_empty() && args.instance.is_empty() && args.metric.is_empty() && !args.all;
    let mut out = io::stdout().lock();
    if is_list {
        list(&mut out, &keys, args.output)?;
        return Ok(Exit::Fine);
    }
    let now = now_ms();
    let from = moment(&args.since, now)?;
    let to = args.until.as_deref().map_or(Ok(now + 1), |until| moment(until, now))?;
    if to <= from {
        return Err(Failure::message(Exit::Usage, "expected `--since` before `--until`"));
    }
    let wanted = wanted(&keys, args)?;
    let step_ms = args.step.as_deref().map(step).transpose()?;
    let part = export::Part { range: (from, to), step_ms };
    match args.output {
        SeriesOutput::Openmetrics => {
            let service = read_config(&args.controller.config).ok().map(|config| config.service);
            export::openmetrics(
                &mut out,
                &reader,
                &wanted,
                &part,
                service.as_ref().map(ServiceName::as_str),
            )?;
        }
        SeriesOutput::Csv if args.all || step_ms.is_some() => export::csv(&mut out, &reader, &wanted, &part)?,
        _ if step_ms.is_some() => {
            return Err(Failure::message(
                Exit::Usage,
                "expected `--step` with `--output csv` or `openmetrics`",
            ));
        }
        SeriesOutput::Human => draw(&mut out, &read(&reader, wanted, (from, to))?, (from, to))?,
        SeriesOutput::Json => lines(&mut out, &read(&reader, wanted, (from, to))?)?,
        SeriesOutput::Csv => columns(&mut out, &read(&reader, wanted, (from, to))?)?,
    }
    Ok(Exit::Fine)
}

/// A step of an export in milliseconds.
fn step(text: &str) -> Result<i64, Failure> {
    milliseconds(text).filter(|&ms| 0 < ms).ok_or_else(|| {
        Failure::message(Exit::Usage, format!("expected a step such as `1m` or `1h`, got `{text}`"))
    })
}

#[expect(clippy::disallowed_methods, reason = "the command line is an edge: spans count back from now")]
pub(crate) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// A moment as it was written, in Unix milliseconds.
pub(crate) fn moment(text: &str, now: i64) -> Result<i64, Failure> {
    let span = milliseconds(text);
    let written = || text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond);
    span.map(|ms| now - ms).or_else(written).ok_or_else(|| {
        let expected =
            "expected a span back from now such as `1h`, or a moment such as `2026-05-01T12:00:00Z`";
        Failure::message(Exit::Usage, format!("{expected}, got `{text}`"))
    })
}

/// A span such as `90m` or `2d`, in milliseconds.
pub(crate) fn milliseconds(span: &str) -> Option<i64> {
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    let span = span.parse::<jiff::Span>().ok()?.to_duration(days).ok()?;
    i64::try_from(span.as_millis()).ok().filter(|&ms| 0 <= ms)
}

/// `live-1.latency_p95`.
fn name(key: &SeriesKey) -> String {
    format!("{}.{}", key.instance, key.metric)
}

/// The metric with its unit: `latency_p95_ms`. What has no unit keeps its name.
fn with_unit(key: &SeriesKey) -> String {
    let suffix = match &*key.unit {
        "1" => "",
        "1/s" => "_per_second",
        "s" => "_seconds",
        "ms" => "_ms",
        "bytes" => "_bytes",
        "cores" => "_cores",
        other => return format!("{}_{}", key.metric, other.replace('/', "_per_")),
    };
    format!("{}{suffix}", key.metric)
}

/// The series that are asked for, each once.
fn wanted<'a>(keys: &'a [SeriesKey], args: &HistoryArgs) -> Result<Vec<&'a SeriesKey>, Failure> {
    let among = |words: &[String], word: &str| words.is_empty() || words.iter().any(|given| given == word);
    let fits = |pattern: &str, key: &SeriesKey| {
        let (instance, metric) = pattern.split_once('.').unwrap_or((pattern, "*"));
        let one = |pattern: &str, word: &str| pattern == "*" || pattern == word;
        one(instance, key.instance.as_str()) && one(metric, &key.metric)
    };
    let nothing = |what: &str| {
        Failure::message(Exit::Usage, format!("no series is named {what}"))
            .remedy("`foreshadow history` without a series lists them")
    };
    for pattern in &args.series {
        if !keys.iter().any(|key| fits(pattern, key)) {
            return Err(nothing(&format!("`{pattern}`")));
        }
    }
    let named =
        |key: &&SeriesKey| args.series.is_empty() || args.series.iter().any(|pattern| fits(pattern, key));
    let flagged =
        |key: &&SeriesKey| among(&args.instance, key.instance.as_str()) && among(&args.metric, &key.metric);
    let found: Vec<&SeriesKey> = keys.iter().filter(named).filter(flagged).collect();
    if found.is_empty() { Err(nothing("like that")) } else { Ok(found) }
}

fn read(reader: &Reader, keys: Vec<&SeriesKey>, (from, to): (i64, i64)) -> Result<Vec<Course>, Failure> {
    let course = |key: &SeriesKey| {
        let samples = reader.series(key, from, to).map_err(|error| Failure::new(&error))?;
        Ok(Course { key: key.clone(), samples })
    };
    keys.into_iter().map(course).collect()
}

fn list(out: &mut impl Write, keys: &[SeriesKey], output: SeriesOutput) -> io::Result<()> {
    match output {
        SeriesOutput::Human => {
            for key in keys {
                writeln!(out, "{:<32} {}", name(key), unit(key))?;
            }
            if keys.is_empty() {
                writeln!(out, "nothing was measured yet")?;
            }
        }
        SeriesOutput::Json => {
            for key in keys {
                writeln!(out, "{}", serde_json::to_string(key)?)?;
            }
        }
        SeriesOutput::Csv | SeriesOutput::Openmetrics => {
            writeln!(out, "instance,role,metric,unit")?;
            for SeriesKey { instance, role, metric, unit } in keys {
                writeln!(out, "{instance},{},{metric},{unit}", format!("{role:?}").to_lowercase())?;
            }
        }
    }
    Ok(())
}

fn unit(key: &SeriesKey) -> &str {
    if key.unit == "1" { "" } else { &key.unit }
}

fn draw(out: &mut impl Write, courses: &[Course], (from, to): (i64, i64)) -> io::Result<()> {
    let wide = courses.iter().map(|course| name(&course.key).len()).max().unwrap_or(0);
    let from = begin(courses, from);
    let blocks = blocks(wide);
    writeln!(out, "{} to {}", show::time(from), show::time(to))?;
    for course in courses {
        let name = name(&course.key);
        let values = || course.samples.iter().map(|&(_, value)| value).filter(|value| value.is_finite());
        let (Some(low), Some(high), Some(last)) =
            (values().reduce(f64::min), values().reduce(f64::max), values().next_back())
        else {
            writeln!(out, "{name:<wide$}  no value in this span")?;
            continue;
        };
        let row = spark::linear(&means(&course.samples, (from, to), blocks), low, high);
        let figure = |value: f64| format!("{} {}", short(value), unit(&course.key)).trim_end().to_owned();
        writeln!(
            out,
            "{name:<wide$}  {row}  min {:<12} max {:<12} last {}",
            figure(low),
            figure(high),
            figure(last)
        )?;
    }
    Ok(())
}

/// How many blocks make a row beside names of this width.
fn blocks(wide: usize) -> usize {
    if !io::stdout().is_terminal() {
        return BLOCKS;
    }
    let screen = comfy_table::Table::new().width().map_or(WIDTH, usize::from);
    screen.saturating_sub(wide + FIGURES_WIDTH).clamp(10, 200)
}

/// Where the picture begins: at the first sample, if nothing was measured before it.
fn begin(courses: &[Course], from: i64) -> i64 {
    let firsts = courses.iter().filter_map(|course| course.samples.first());
    firsts.map(|&(moment, _)| moment).min().map_or(from, |first| first.max(from))
}

/// A few digits, without an exponent where that can be read.
fn short(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        "0".into()
    } else if !(1e-3..1e6).contains(&size) {
        format!("{value:.2e}")
    } else if 100.0 <= size {
        format!("{value:.0}")
    } else {
        format!("{value:.3}").trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// The means of `n` equal parts of the span; NaN where a part holds nothing.
fn means(samples: &[(i64, f64)], (from, to): (i64, i64), n: usize) -> Vec<f64> {
    let mut sums = vec![(0.0, 0.0); n];
    #[expect(clippy::cast_precision_loss, reason = "spans of years are exact in milliseconds")]
    let share = |moment: i64| (moment - from) as f64 / (to - from) as f64;
    for &(moment, value) in samples.iter().filter(|(_, value)| value.is_finite()) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "within 0..n"
        )]
        let at = ((share(moment) * n as f64) as usize).min(n - 1);
        sums[at] = (sums[at].0 + value, sums[at].1 + 1.0);
    }
    sums.into_iter().map(|(sum, count)| sum / count).collect()
}

fn lines(out: &mut impl Write, courses: &[Course]) -> io::Result<()> {
    for Course { key, samples } in courses {
        for &(moment, value) in samples {
            let mut line = serde_json::Map::new();
            line.insert("unixMs".into(), moment.into());
            line.insert("instance".into(), key.instance.to_string().into());
            line.insert("role".into(), serde_json::to_value(key.role)?);
            line.insert(with_unit(key), value.into());
            writeln!(out, "{}", serde_json::Value::from(line))?;
        }
    }
    Ok(())
}

fn columns(out: &mut impl Write, courses: &[Course]) -> io::Result<()> {
    let header: Vec<String> =
        courses.iter().map(|course| format!("{}.{}", course.key.instance, with_unit(&course.key))).collect();
    writeln!(out, "unix_ms,{}", header.join(","))?;
    let mut rows: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for (at, course) in courses.iter().enumerate() {
        for &(moment, value) in &course.samples {
            let row = rows.entry(moment).or_insert_with(|| vec![String::new(); courses.len()]);
            row[at] = value.to_string();
        }
    }
    for (moment, row) in rows {
        writeln!(out, "{moment},{}", row.join(","))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_span_back_from_now_or_is_written_out() {
        let now = 1_000_000_000_000;
        assert_eq!(moment("1h", now).unwrap(), now - 3_600_000);
        assert_eq!(moment("2d", now).unwrap(), now - 2 * 86_400_000);
        assert_eq!(moment("2001-09-09T01:46:39Z", now).unwrap(), now - 1000);
        for wrong in ["60", "soon", "-1h", ""] {
            assert!(moment(wrong, now).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_part_of_the_span_without_samples_stays_empty() {
        let means = means(&[(0, 1.0), (1, 3.0), (9, f64::NAN), (99, 5.0)], (0, 100), 4);
        assert_eq!((means[0], means[3]), (2.0, 5.0));
        assert!(means[1].is_nan() && means[2].is_nan());
    }

    #[test]
    fn a_picture_begins_where_measuring_began() {
        let course = |samples: &[(i64, f64)]| Course {
            key: SeriesKey {
                instance: foreshadow_engine::model::InstanceId::live(1),
                role: foreshadow_engine::model::Role::Live,
                metric: "cpu".into(),
                unit: "cores".into(),
            },
            samples: samples.to_vec(),
        };
        let courses = [course(&[(70, 1.0), (80, 1.0)]), course(&[(60, 1.0)]), course(&[])];
        assert_eq!(begin(&courses, 10), 60, "the earliest of all, so that rows can be compared");
        assert_eq!(begin(&[course(&[])], 10), 10, "nothing was measured");
    }

    #[test]
    fn figures_are_short_and_small_ones_do_not_vanish() {
        assert_eq!(short(1234.5), "1234");
        assert_eq!(short(3.25), "3.25");
        assert_eq!(short(0.0), "0");
        assert_eq!(short(0.000_012), "1.20e-5");
        assert_eq!(short(5e8), "5.00e8");
    }
}
