//! Computes a plan over the history.
//!
//! Over long spans roll-ups stand for samples, each at the end of its span with what the function asks for: the mean, the
//! least, the greatest, the sum, the last, the count. So a year of an hour each costs what half a day of samples does.

mod window;

use std::collections::BTreeMap;

use super::plan::{Aggregation, Function, Grouping, Operator, Plan, Selector};
use super::series::{Labels, Row};
use super::{Grid, NAME, QueryError, Source};

/// How old the latest sample may be.
const LOOKBACK_MS: i64 = 300_000;

/// Series of one selector, at most.
const SERIES_MAX: usize = 2000;

/// Samples that are read for one question, at most: 32 MB.
const SAMPLES_MAX: usize = 2_000_000;

/// Points that are made on the way, at most.
const POINTS_MADE_MAX: usize = 2_000_000;

/// Samples that are looked at, at most: wide windows at many moments. About a second.
const LOOKS_MAX: usize = 200_000_000;

/// A window of so many roll-ups may begin and end within one.
const WINDOW_LENGTHS: i64 = 24;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;

/// From how long on minutes, or hours, stand for samples, if the step is as long.
const MINUTES_FROM_MS: i64 = 2 * 24 * HOUR_MS;
const HOURS_FROM_MS: i64 = 14 * 24 * HOUR_MS;

/// What was found, a value for each moment of the grid.
#[derive(Debug)]
pub(crate) enum Answer {
    Scalar(Vec<f64>),
    Vector(Vec<Found>),
}

/// A series of an answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) labels: Labels,
    pub(crate) values: Vec<Option<f64>>,
}

/// Computes `plan` at every moment of `grid`.
pub(crate) fn evaluate(plan: &Plan, grid: Grid, source: &Source<'_>) -> Result<Answer, QueryError> {
    let mut run = Run { grid, source, samples: 0, points: 0, looks: 0 };
    Ok(match run.value(plan)? {
        Value::Scalar(values) => Answer::Scalar(values),
        Value::Vector(mut rows) => {
            rows.retain(|row| row.values.iter().any(Option::is_some));
            rows.sort_by(|a, b| a.labels.cmp(&b.labels));
            Answer::Vector(rows.into_iter().map(|Row { labels, values }| Found { labels, values }).collect())
        }
    })
}

enum Value {
    Scalar(Vec<f64>),
    Vector(Vec<Row>),
}

struct Run<'a> {
    grid: Grid,
    source: &'a Source<'a>,
    samples: usize,
    points: usize,
    looks: usize,
}

fn too_much(what: &str, most: usize) -> QueryError {
    QueryError::Execution(format!(
        "the query needs more than {most} {what}: ask for less, or in longer steps"
    ))
}

impl Run<'_> {
    fn value(&mut self, plan: &Plan) -> Result<Value, QueryError> {
        Ok(match plan {
            Plan::Number(number) => Value::Scalar(vec![*number; self.grid.len()]),
            Plan::Latest(selector) => Value::Vector(self.latest(selector)?),
            Plan::Window { function, of, window } => Value::Vector(self.window(*function, of, *window)?),
            Plan::Aggregate { how, grouping, of } => match self.value(of)? {
                Value::Vector(rows) => Value::Vector(aggregated(*how, grouping, rows)),
                Value::Scalar(_) => return Err(QueryError::Bad("expected a vector to aggregate".into())),
            },
            Plan::Negative(of) => match self.value(of)? {
                Value::Scalar(values) => Value::Scalar(values.into_iter().map(|value| -value).collect()),
                Value::Vector(mut rows) => {
                    for row in &mut rows {
                        row.labels.remove(NAME);
                        row.values.iter_mut().flatten().for_each(|value| *value = -*value);
                    }
                    Value::Vector(distinct(rows)?)
                }
            },
            Plan::Binary { operator, is_bool, left, right } => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                combined(*operator, *is_bool, left, right)?
            }
        })
    }

    fn latest(&mut self, selector: &Selector) -> Result<Vec<Row>, QueryError> {
        let rolled = self.rolled_up();
        let lookback = rolled.map_or(LOOKBACK_MS, |_| HOUR_MS);
        let span = self.span(selector, lookback);
        self.each(selector, (span, rolled), Function::Last, |run, samples| {
            let mut end = 0;
            let latest = |at: i64| {
                end += samples[end..].iter().take_while(|(moment, _)| *moment <= at).count();
                let (moment, value) = *samples[..end].last()?;
                (at - lookback < moment).then_some(value)
            };
            Ok(run.grid.moments().map(|at| at.saturating_sub(selector.offset)).map(latest).collect())
        })
    }

    fn window(&mut self, function: Function, of: &Selector, window: i64) -> Result<Vec<Row>, QueryError> {
        let rolled = self.rolled_up_within(of, window);
        let cost = |n: usize| match function {
            // Each window is sorted.
            Function::Quantile(_) => n * (usize::BITS - n.leading_zeros()) as usize,
            _ => n,
        };
        let mut rows = self.each(of, (self.span(of, window), rolled), function, |run, samples| {
            let (mut begin, mut end) = (0, 0);
            let mut values = Vec::with_capacity(run.grid.len());
            for at in run.grid.moments().map(|at| at.saturating_sub(of.offset)) {
                end += samples[end..].iter().take_while(|(moment, _)| *moment <= at).count();
                let from = at.saturating_sub(window);
                begin += samples[begin..end].iter().take_while(|(moment, _)| *moment <= from).count();
                run.looks += cost(end - begin);
                if LOOKS_MAX < run.looks {
                    return Err(too_much("looks at samples", LOOKS_MAX));
                }
                values.push(window::value(function, &samples[begin..end], (from, at)));
            }
            Ok(values)
        })?;
        if function != Function::Last {
            rows.iter_mut().for_each(|row| drop(row.labels.remove(NAME)));
        }
        distinct(rows)
    }

    /// From the first to the last moment that counts.
    fn span(&self, selector: &Selector, before: i64) -> (i64, i64) {
        let from = self.grid.start.saturating_sub(selector.offset).saturating_sub(before);
        (from, self.grid.end.saturating_sub(selector.offset).saturating_add(1))
    }

    /// How long samples stand for one, for the step and the span of this question; `None` is not at all.
    fn rolled_up(&self) -> Option<i64> {
        let span = self.grid.end.saturating_sub(self.grid.start);
        match self.grid.step {
            HOUR_MS.. if HOURS_FROM_MS < span => Some(HOUR_MS),
            MINUTE_MS.. if MINUTES_FROM_MS < span => Some(MINUTE_MS),
            _ => None,
        }
    }

    /// The same for windows: roll-ups stand for samples only where each window is made of whole ones, or of so many that the
    /// halves at its ends are nothing.
    fn rolled_up_within(&self, of: &Selector, window: i64) -> Option<i64> {
        let span = self.grid.end.saturating_sub(self.grid.start).saturating_add(window);
        let first = self.grid.start.saturating_sub(of.offset);
        let is_whole = |length: i64| {
            let steps = self.grid.len() == 1 || self.grid.step % length == 0;
            window % length == 0 && first.rem_euclid(length) == 0 && steps
        };
        let fits = |(length, from): &(i64, i64)| {
            *from < span && (is_whole(*length) || WINDOW_LENGTHS * length <= window)
        };
        let lengths = [(HOUR_MS, HOURS_FROM_MS), (MINUTE_MS, MINUTES_FROM_MS)];
        lengths.iter().find(|length| fits(length)).map(|(length, _)| *length)
    }

    fn each(
        &mut self,
        selector: &Selector,
        (span, rolled): ((i64, i64), Option<i64>),
        function: Function,
        mut values: impl FnMut(&mut Self, &[(i64, f64)]) -> Result<Vec<Option<f64>>, QueryError>,
    ) -> Result<Vec<Row>, QueryError> {
        let source = self.source;
        let fitting: Vec<_> =
            source.series.iter().filter(|(labels, ..)| selector.matchers.fit(labels)).collect();
        if SERIES_MAX < fitting.len() {
            return Err(too_much("series", SERIES_MAX));
        }
        let mut rows = Vec::with_capacity(fitting.len());
        for (labels, row, exported) in fitting {
            let mut samples = match rolled {
                None => source.records.samples(row, span.0, span.1)?,
                Some(step) => {
                    let steps = source.records.steps(row, (span.0.saturating_sub(HOUR_MS), span.1), step)?;
                    steps.iter().map(|rolled| window::stand_in(function, rolled, step)).collect()
                }
            };
            self.samples += samples.len();
            self.points += self.grid.len();
            if SAMPLES_MAX < self.samples {
                return Err(too_much("samples", SAMPLES_MAX));
            }
            if POINTS_MADE_MAX < self.points {
                return Err(too_much("points", POINTS_MADE_MAX));
            }
            if rolled.is_none() || function != Function::Count {
                samples.iter_mut().for_each(|(_, value)| *value = exported.value(*value));
            }
            rows.push(Row { labels: labels.clone(), values: values(self, &samples)? });
        }
        Ok(rows)
    }
}

/// Refuses two series of the same labels, which would be one with two values.
fn distinct(rows: Vec<Row>) -> Result<Vec<Row>, QueryError> {
    let mut seen = std::collections::BTreeSet::new();
    for row in rows.iter().filter(|row| row.values.iter().any(Option::is_some)) {
        if !seen.insert(&row.labels) {
            return Err(QueryError::Execution("vector cannot contain metrics with the same labelset".into()));
        }
    }
    Ok(rows)
}

/// What became one so far.
struct Group {
    n: Vec<f64>,
    values: Vec<Option<f64>>,
}

fn aggregated(how: Aggregation, grouping: &Grouping, rows: Vec<Row>) -> Vec<Row> {
    let mut groups: BTreeMap<Labels, Group> = BTreeMap::new();
    for Row { mut labels, values } in rows {
        match grouping {
            Grouping::By(kept) => labels.retain(|name, _| kept.contains(name)),
            Grouping::Without(left_out) => {
                labels.retain(|name, _| name != NAME && !left_out.contains(name));
            }
        }
        let group = groups
            .entry(labels)
            .or_insert_with(|| Group { n: vec![0.0; values.len()], values: vec![None; values.len()] });
        for (at, value) in values.into_iter().enumerate() {
            let Some(value) = value else { continue };
            group.n[at] += 1.0;
            let before = group.values[at];
            group.values[at] = Some(match (how, before) {
                (Aggregation::Count, _) => group.n[at],
                (_, None) => value,
                (Aggregation::Sum | Aggregation::Avg, Some(sum)) => sum + value,
                (Aggregation::Min, Some(least)) => {
                    if value < least || least.is_nan() {
                        value
                    } else {
                        least
                    }
                }
                (Aggregation::Max, Some(most)) => {
                    if most < value || most.is_nan() {
                        value
                    } else {
                        most
                    }
                }
            });
        }
    }
    let finish = |(labels, mut group): (Labels, Group)| {
        if how == Aggregation::Avg {
            for (value, n) in group.values.iter_mut().zip(&group.n) {
                *value = value.map(|sum| sum / n);
            }
        }
        Row { labels, values: group.values }
    };
    groups.into_iter().map(finish).collect()
}

fn combined(operator: Operator, is_bool: bool, left: Value, right: Value) -> Result<Value, QueryError> {
    let keeps_name = operator.is_comparison() && !is_bool;
    let rename = |mut labels: Labels| {
        if !keeps_name {
            labels.remove(NAME);
        }
        labels
    };
    let with = |row: Row, value: &dyn Fn(usize, f64) -> Option<f64>| {
        let values = row.values.iter().enumerate().map(|(at, this)| this.and_then(|this| value(at, this)));
        Row { values: values.collect(), labels: rename(row.labels) }
    };
    Ok(match (left, right) {
        (Value::Scalar(left), Value::Scalar(right)) => {
            let both = left.into_iter().zip(right);
            Value::Scalar(both.map(|(left, right)| number(operator, left, right)).collect())
        }
        (Value::Vector(rows), Value::Scalar(right)) => {
            let one = |row| with(row, &|at, this| result(operator, is_bool, (this, right[at]), this));
            Value::Vector(distinct(rows.into_iter().map(one).collect())?)
        }
        (Value::Scalar(left), Value::Vector(rows)) => {
            let one = |row| with(row, &|at, this| result(operator, is_bool, (left[at], this), this));
            Value::Vector(distinct(rows.into_iter().map(one).collect())?)
        }
        (Value::Vector(left), Value::Vector(right)) => {
            let mut partners: BTreeMap<Labels, Vec<Option<f64>>> = BTreeMap::new();
            for row in right {
                unique(&mut partners, row)?;
            }
            let mut seen = BTreeMap::new();
            let mut rows = Vec::new();
            for row in left {
                let key = without_name(&row.labels);
                unique(&mut seen, row.clone())?;
                let Some(partner) = partners.get(&key) else { continue };
                rows.push(with(row, &|at, this| {
                    partner[at].and_then(|other| result(operator, is_bool, (this, other), this))
                }));
            }
            Value::Vector(rows)
        }
    })
}

fn without_name(labels: &Labels) -> Labels {
    labels
        .iter()
        .filter(|(name, _)| *name != NAME)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Each partner once: several names with equal labels may take turns, but not be there at the same moment.
fn unique(known: &mut BTreeMap<Labels, Vec<Option<f64>>>, row: Row) -> Result<(), QueryError> {
    let values = known.entry(without_name(&row.labels)).or_insert_with(|| vec![None; row.values.len()]);
    for (known, value) in values.iter_mut().zip(row.values) {
        if known.is_some() && value.is_some() {
            let words = "many-to-many matching not allowed: matching labels must be unique on one side";
            return Err(QueryError::Execution(words.into()));
        }
        *known = known.or(value);
    }
    Ok(())
}

/// What two values come to; `None` if a comparison leaves the series out.
fn result(operator: Operator, is_bool: bool, (left, right): (f64, f64), kept: f64) -> Option<f64> {
    let value = number(operator, left, right);
    if operator.is_comparison() && !is_bool { (value == 1.0).then_some(kept) } else { Some(value) }
}

#[expect(clippy::float_cmp, reason = "what is asked for")]
fn number(operator: Operator, left: f64, right: f64) -> f64 {
    let truth = |is: bool| f64::from(u8::from(is));
    match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
        Operator::Modulo => left % right,
        Operator::Power => left.powf(right),
        Operator::Equal => truth(left == right),
        Operator::NotEqual => truth(left != right),
        Operator::Less => truth(left < right),
        Operator::Greater => truth(right < left),
        Operator::LessOrEqual => truth(left <= right),
        Operator::GreaterOrEqual => truth(right <= left),
    }
}
