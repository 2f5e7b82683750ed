//! Reads a table of figures: wide (a row a moment) or long (a row a moment, instance and metric).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder};
use foreshadow_engine::compare::usual_step;

use crate::exit::Exit;
use crate::failure::Failure;

/// What columns may be, and the names they go by when nobody says which is which.
const ROLES: [(Role, &[&str]); 7] = [
    (Role::Moment, &["timestamp", "time", "ts"]),
    (Role::Live, &["live", "value"]),
    (Role::Shadow, &["shadow"]),
    (Role::Load, &["load"]),
    (Role::Samples, &["n", "samples", "requests"]),
    (Role::Instance, &["instance"]),
    (Role::Metric, &["metric"]),
];

/// Seconds from here on are milliseconds: the year 5138.
const SECONDS_MAX: f64 = 1e11;

/// By how much the steps of two tables may differ.
const STEPS_APART: f64 = 1.5;

/// From here on they are no milliseconds either.
const MILLISECONDS_MAX: f64 = 1e14;

/// Series of one table.
const SERIES_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Moment,
    Live,
    Shadow,
    Load,
    Samples,
    Instance,
    Metric,
}

/// What a series is called; nothing in a wide table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    pub(crate) instance: Option<String>,
    pub(crate) metric: Option<String>,
}

impl Name {
    /// For people.
    pub(crate) fn words(&self) -> String {
        match (&self.instance, &self.metric) {
            (None, None) => "the table".into(),
            (Some(instance), Some(metric)) => format!("{instance} {metric}"),
            (Some(one), None) | (None, Some(one)) => one.clone(),
        }
    }
}

/// One metric of one instance. Every column has as many values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    pub(crate) name: Name,
    /// Row of the table, from zero on, that each value stands in.
    pub(crate) rows: Vec<usize>,
    /// Unix seconds, ascending.
    pub(crate) seconds: Vec<f64>,
    /// Not a number where there is no value.
    pub(crate) live: Vec<f64>,
    pub(crate) shadow: Option<Vec<f64>>,
    pub(crate) load: Option<Vec<f64>>,
    pub(crate) samples: Option<Vec<f64>>,
    /// The first so many values are of another table, and healthy.
    pub(crate) calibrated: Option<usize>,
}

impl Series {
    /// This series behind the whole of `past`. Moments of the past are moved so that they come before: a table of a
    /// healthy week may be younger than the one of the incident.
    pub(crate) fn after(self, past: &Self) -> Result<Self, Failure> {
        let n = past.seconds.len();
        let join = |past: &Option<Vec<f64>>, own: Option<Vec<f64>>| match (past, own) {
            (Some(past), Some(own)) => Some([past.as_slice(), &own].concat()),
            _ => None,
        };
        let refuse = |why: String| Failure::message(Exit::Usage, format!("--baseline: {why}"));
        for (name, is_there, was_there) in [
            ("shadow", self.shadow.is_some(), past.shadow.is_some()),
            ("load", self.load.is_some(), past.load.is_some()),
            ("n", self.samples.is_some(), past.samples.is_some()),
        ] {
            if is_there != was_there {
                return Err(refuse(format!("expected a column `{name}` in both tables, or in none")));
            }
        }
        let (step, before) = (usual_step(&self.seconds), usual_step(&past.seconds));
        if 1 < self.seconds.len() && !(step / STEPS_APART..=step * STEPS_APART).contains(&before) {
            return Err(refuse(format!(
                "it has a row every {before} s, the table one every {step} s: their noise is not the same"
            )));
        }
        let (first, last) = (self.seconds.first().copied(), past.seconds.last().copied());
        // Whole weeks, so that hours and weekdays stay what they are.
        let week = 7.0 * 86_400.0;
        let apart = (last.unwrap_or(0.0) - first.unwrap_or(0.0)) / week;
        let back = if apart < 0.0 { 0.0 } else { (apart.floor() + 1.0) * week };
        let seconds = past.seconds.iter().map(|at| at - back).chain(self.seconds.iter().copied()).collect();
        Ok(Self {
            name: self.name,
            rows: past.rows.iter().copied().chain(self.rows).collect(),
            seconds,
            live: [past.live.as_slice(), &self.live].concat(),
            shadow: join(&past.shadow, self.shadow),
            load: join(&past.load, self.load),
            samples: join(&past.samples, self.samples),
            calibrated: Some(n),
        })
    }
}

/// What is to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// Which columns, as the command line has them.
    pub(crate) columns: &'a [String],
    /// There is no shadow.
    pub(crate) one_sided: bool,
}

/// A whole table.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) series: Vec<Series>,
    pub(crate) rows: usize,
}

impl Table {
    /// The table of a file; `-` is standard input.
    pub(crate) fn read(file: &Path, wanted: Wanted<'_>) -> Result<Self, Failure> {
        if file == Path::new("-") {
            return parse(io::stdin().lock(), wanted, "standard input");
        }
        let name = file.display().to_string();
        let opened = File::open(file).map_err(|error| {
            Failure::message(Exit::Usage, format!("failed to read the table `{name}`: {error}"))
        })?;
        parse(opened, wanted, &name)
    }
}

/// Where each role stands.
struct Columns {
    moment: usize,
    live: usize,
    shadow: Option<usize>,
    load: Option<usize>,
    samples: Option<usize>,
    instance: Option<usize>,
    metric: Option<usize>,
    names: Vec<String>,
}

fn parse(from: impl Read, wanted: Wanted<'_>, name: &str) -> Result<Table, Failure> {
    let refuse = |why: String| Failure::message(Exit::Usage, format!("the table `{name}` is refused: {why}"));
    let mut reader = ReaderBuilder::new().buffer_capacity(1 << 17).from_reader(from);
    let header = reader.headers().map_err(|error| refuse(of_csv(&error)))?.clone();
    let names: Vec<String> =
        header.iter().map(|name| name.trim().trim_start_matches('\u{feff}').to_owned()).collect();
    let columns = Columns::find(names, wanted).map_err(refuse)?;
    let mut table = Table::default();
    let mut known: HashMap<Name, usize> = HashMap::new();
    let mut record = ByteRecord::new();
    let mut last = None;
    while reader.read_byte_record(&mut record).map_err(|error| refuse(of_csv(&error)))? {
        let line = record.position().map_or(0, csv::Position::line);
        let here = |(at, why): (usize, String)| {
            refuse(format!("line {line}, column `{}`: {why}", columns.names[at]))
        };
        let at = columns.series(&record, &mut known, &mut table, last).map_err(here)?;
        last = Some(at);
        let row = table.rows;
        columns.push(&record, &mut table.series[at], row).map_err(here)?;
        table.rows += 1;
    }
    if table.rows == 0 {
        return Err(refuse("expected rows below the header, found none".into()));
    }
    Ok(table)
}

fn of_csv(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let line = pos.as_ref().map_or(0, csv::Position::line);
            format!("line {line}: expected {expected_len} columns as in the header, found {len}")
        }
        csv::ErrorKind::Utf8 { pos, .. } => {
            format!("line {}: expected UTF-8", pos.as_ref().map_or(0, csv::Position::line))
        }
        _ => error.to_string(),
    }
}

impl Columns {
    fn find(names: Vec<String>, wanted: Wanted<'_>) -> Result<Self, String> {
        let named = |name: &str| names.iter().position(|of| of.eq_ignore_ascii_case(name));
        let must = |name: &str| {
            named(name).ok_or_else(|| format!("no column is named `{name}`; it has {}", listed(&names)))
        };
        let mut found: Vec<(Role, usize)> = Vec::new();
        for (place, given) in wanted.columns.iter().enumerate() {
            let (role, name) = match given.split_once('=') {
                Some((role, name)) => (role_of(role).ok_or_else(|| odd_role(role))?, name),
                None => (ROLES.get(place).ok_or_else(|| odd_role(given))?.0, given.as_str()),
            };
            found.push((role, must(name)?));
        }
        if wanted.columns.is_empty() {
            for (role, usual) in ROLES {
                found.extend(usual.iter().find_map(|name| named(name)).map(|at| (role, at)));
            }
        }
        let at = |role: Role| found.iter().find(|(of, _)| *of == role).map(|(_, at)| *at);
        let needed = |role: Role, usual: &str| {
            at(role).ok_or_else(|| {
                format!(
                    "expected a column `{usual}`, or `--columns` to say which it is; it has {}",
                    listed(&names)
                )
            })
        };
        let (moment, live) = (
            needed(Role::Moment, "timestamp")?,
            needed(Role::Live, if wanted.one_sided { "value" } else { "live" })?,
        );
        let shadow = if wanted.one_sided { None } else { Some(needed(Role::Shadow, "shadow")) };
        let shadow =
            shadow.transpose().map_err(|why| format!("{why} (of one side alone: `--own-history`)"))?;
        let [load, samples, instance, metric] =
            [Role::Load, Role::Samples, Role::Instance, Role::Metric].map(at);
        Ok(Self { moment, live, shadow, load, samples, instance, metric, names })
    }

    /// Which series this row is of, a new one if it was not met before. `last` is that of the row before.
    fn series(
        &self,
        record: &ByteRecord,
        known: &mut HashMap<Name, usize>,
        table: &mut Table,
        last: Option<usize>,
    ) -> Result<usize, (usize, String)> {
        if self.instance.is_none()
            && self.metric.is_none()
            && let Some(at) = last
        {
            return Ok(at);
        }
        let text = |at: Option<usize>| at.map(|at| String::from_utf8_lossy(&record[at]).trim().to_owned());
        let name = Name { instance: text(self.instance), metric: text(self.metric) };
        if let Some(&at) = known.get(&name) {
            return Ok(at);
        }
        if SERIES_MAX <= table.series.len() {
            let at = self.metric.or(self.instance).unwrap_or(self.moment);
            return Err((at, format!("expected at most {SERIES_MAX} series")));
        }
        let empty = |column: Option<usize>| column.map(|_| Vec::new());
        table.series.push(Series {
            name: name.clone(),
            shadow: empty(self.shadow),
            load: empty(self.load),
            samples: empty(self.samples),
            ..Series::default()
        });
        known.insert(name, table.series.len() - 1);
        Ok(table.series.len() - 1)
    }

    fn push(&self, record: &ByteRecord, series: &mut Series, row: usize) -> Result<(), (usize, String)> {
        let seconds = moment(&record[self.moment]).ok_or_else(|| {
            let text = String::from_utf8_lossy(&record[self.moment]);
            (
                self.moment,
                format!("expected a moment such as `2026-05-01T12:00:00Z`, or Unix seconds or milliseconds, got `{text}`"),
            )
        })?;
        if series.seconds.last().is_some_and(|&before| seconds <= before) {
            let text = String::from_utf8_lossy(&record[self.moment]);
            let name = series.name.words();
            return Err((
                self.moment,
                format!(
                    "`{text}` does not come after the row of {name} before it; sort the table by time, each moment once"
                ),
            ));
        }
        let figure = |at: usize| figure(&record[at]).map_err(|why| (at, why));
        series.live.push(figure(self.live)?);
        for (column, values) in [
            (self.shadow, &mut series.shadow),
            (self.load, &mut series.load),
            (self.samples, &mut series.samples),
        ] {
            if let (Some(at), Some(values)) = (column, values) {
                values.push(figure(at)?);
            }
        }
        series.seconds.push(seconds);
        series.rows.push(row);
        Ok(())
    }
}

fn listed(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn role_of(word: &str) -> Option<Role> {
    ROLES.iter().find(|(_, usual)| usual.contains(&word.trim())).map(|(role, _)| *role)
}

fn odd_role(word: &str) -> String {
    let usual: Vec<&str> = ROLES.iter().map(|(_, usual)| usual[0]).collect();
    format!(
        "`{word}` is one column too many, or no role: `--columns` takes {} in this order, or `live=NAME`",
        usual.join(", ")
    )
}

/// A figure, not a number where there is none.
fn figure(bytes: &[u8]) -> Result<f64, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "expected UTF-8".to_owned())?.trim();
    if text.is_empty() || ["nan", "null", "na", "-"].iter().any(|none| text.eq_ignore_ascii_case(none)) {
        return Ok(f64::NAN);
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && 0.0 <= value => Ok(value),
        _ => Err(format!("expected a finite number that is not negative, or nothing, got `{text}`")),
    }
}

/// Unix seconds.
fn moment(bytes: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    if let Ok(number) = text.parse::<f64>() {
        let seconds = if SECONDS_MAX <= number.abs() { number / 1000.0 } else { number };
        return (number.abs() < MILLISECONDS_MAX).then_some(seconds);
    }
    let of = |at: jiff::Timestamp| at.as_duration().as_secs_f64();
    // Without an offset it is taken for UTC.
    let civil = || jiff::tz::TimeZone::UTC.to_timestamp(text.parse::<jiff::civil::DateTime>().ok()?).ok();
    text.parse::<jiff::Timestamp>().ok().or_else(civil).map(of)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Args, Verb};

    fn read(words: &[&str], text: &str) -> Result<Table, String> {
        let args = ["foreshadow", "judge", "-"].iter().chain(words);
        let Verb::Judge(args) = Args::try_parse_from(args).unwrap().verb else { unreachable!() };
        let wanted = Wanted { columns: &args.columns, one_sided: args.own_history };
        parse(text.as_bytes(), wanted, "t.csv").map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_wide_table_is_one_series_and_a_long_one_a_series_for_each_metric() {
        let wide = read(&[], "timestamp,live,shadow,load,n\n2026-05-01T12:00:00Z,1.5,1.2,0.4,200\n2026-05-01T12:00:05Z,,1,0.4,0\n").unwrap();
        let series = &wide.series[0];
        assert_eq!((series.live[0], series.shadow.as_ref().unwrap()[0]), (1.5, 1.2));
        assert!(series.live[1].is_nan() && wide.rows == 2);
        let long = read(
            &[],
            "timestamp,instance,metric,live,shadow\n5,a,p50,1,1\n5,a,p99,2,2\n10,a,p50,3,3\n5,b,p50,4,4\n",
        )
        .unwrap();
        let names: Vec<String> = long.series.iter().map(|series| series.name.words()).collect();
        assert_eq!(names, ["a p50", "a p99", "b p50"]);
        assert_eq!(long.series[0].rows, [0, 2]);
    }

    #[test]
    fn columns_are_named_in_order_or_by_what_they_are() {
        let text = "at,x,y,z\n1,2,3,4\n";
        for words in [&["--columns", "at,y,z"][..], &["--columns", "live=y,timestamp=at,shadow=z"]] {
            let table = read(words, text).unwrap();
            assert_eq!((table.series[0].live[0], table.series[0].shadow.as_ref().unwrap()[0]), (3.0, 4.0));
        }
        let alone = read(&["--own-history"], "ts,value\n1,2\n").unwrap();
        assert!(alone.series[0].shadow.is_none());
    }

    #[test]
    fn what_is_odd_is_refused_with_line_and_column() {
        let head = "timestamp,live,shadow\n";
        for (rows, wanted) in [
            ("1,2,x\n", "line 2, column `shadow`: expected a finite number"),
            ("1,2,3\n2,-1,3\n", "line 3, column `live`: expected a finite number that is not negative"),
            ("1,inf,3\n", "line 2, column `live`"),
            ("1,2,3\n1,2,3\n", "line 3, column `timestamp`: `1` does not come after"),
            ("2,2,3\n1,2,3\n", "sort the table by time"),
            ("yesterday,2,3\n", "line 2, column `timestamp`: expected a moment"),
            ("1,2\n", "line 2: expected 3 columns as in the header, found 2"),
            ("", "found none"),
        ] {
            let why = read(&[], &format!("{head}{rows}")).unwrap_err();
            assert!(why.contains(wanted), "{rows:?}: {why}");
        }
        let why = read(&[], "a,b\n1,2\n").unwrap_err();
        assert!(why.contains("expected a column `timestamp`") && why.contains("`a`, `b`"), "{why}");
        assert!(read(&[], "timestamp,live\n1,2\n").unwrap_err().contains("--own-history"));
        assert!(read(&["--columns", "a,b,c"], head).unwrap_err().contains("no column is named `a`"));
        assert!(read(&["--columns", "colour=live"], head).unwrap_err().contains("no role"));
    }

    #[test]
    fn moments_are_read_as_people_write_them() {
        let noon = 1_777_636_800.0;
        for text in [
            "2026-05-01T12:00:00Z",
            "2026-05-01 12:00:00",
            "2026-05-01T14:00:00+02:00",
            "1777636800",
            "1777636800000",
        ] {
            assert_eq!(moment(text.as_bytes()), Some(noon), "{text}");
        }
        for text in ["", "nan", "inf", "12:00", "2026-13-01", "1777636800000000"] {
            assert_eq!(moment(text.as_bytes()), None, "{text}");
        }
    }
}
