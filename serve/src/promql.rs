//! A subset of PromQL over the history, for Grafana and whatever else asks Prometheus.
//!
//! Why not all of it: what is half supported answers wrongly, and a wrong curve is worse than a refusal. So [`plan`] takes
//! a question apart once and names what it does not know, and [`eval`] computes only what has been taken apart.
//!
//! Understood are selectors with all four matchers and `offset`; `rate`, `increase` and the `_over_time` functions of
//! [`plan::Function`]; `sum`, `avg`, `min`, `max`, `count` with `by` and `without`; arithmetic and comparisons between
//! numbers and vectors, vectors one to one on equal labels. Windows are open at their old end, as those of Prometheus 3.
//!
//! Everything is bounded: the text, its depth, the series and samples read, the points made, the samples looked at.

mod eval;
mod plan;
mod series;

use foreshadow_model::Exported;

use crate::records::{Records, RecordsError, SeriesRow};

pub(crate) use eval::{Answer, evaluate};
pub(crate) use plan::{plan, selectors};
pub(crate) use series::{Labels, Matchers};

/// The label of the name of a metric.
pub(crate) const NAME: &str = "__name__";

/// Points of one series, at most: what Prometheus allows.
pub(crate) const POINTS_MAX: i64 = 11_000;

/// A question that is not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    /// It is not understood, or asks for what there is not.
    #[error("{0}")]
    Bad(String),
    /// It is understood and cannot be carried out.
    #[error("{0}")]
    Execution(String),
    /// The history cannot be read.
    #[error("failed to read the history")]
    Records(#[from] RecordsError),
}

/// The moments of an answer, in Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// Above zero.
    pub(crate) step: i64,
}

impl Grid {
    /// One moment.
    pub(crate) const fn instant(at: i64) -> Self {
        Self { start: at, end: at, step: 1 }
    }

    pub(crate) fn len(self) -> usize {
        let steps = self.end.saturating_sub(self.start).div_euclid(self.step.max(1));
        usize::try_from(steps.saturating_add(1)).unwrap_or(0)
    }

    pub(crate) fn moments(self) -> impl Iterator<Item = i64> {
        (0..self.len()).map(move |at| {
            let at = i64::try_from(at).unwrap_or(i64::MAX);
            self.start.saturating_add(at.saturating_mul(self.step))
        })
    }
}

/// The history as a data source: its series with their labels.
pub(crate) struct Source<'a> {
    records: &'a dyn Records,
    series: Vec<(Labels, SeriesRow, Exported)>,
}

impl<'a> Source<'a> {
    /// What there is of this service.
    pub(crate) fn new(records: &'a dyn Records, service: &str) -> Result<Self, QueryError> {
        let row = |row: SeriesRow| {
            let exported = Exported::of(&row.metric, &row.unit);
            let labels = Labels::from([
                (NAME.to_owned(), exported.name.clone()),
                ("instance".to_owned(), row.instance.to_string()),
                ("role".to_owned(), row.role.label().to_owned()),
                ("service".to_owned(), service.to_owned()),
            ]);
            (labels, row, exported)
        };
        Ok(Self { records, series: records.series()?.into_iter().map(row).collect() })
    }

    /// The series that any of these selectors fits; all, if there is no selector.
    pub(crate) fn matching(&self, any: &[Matchers]) -> impl Iterator<Item = (&Labels, &Exported)> {
        let fits = move |labels: &Labels| any.is_empty() || any.iter().any(|matchers| matchers.fit(labels));
        self.series
            .iter()
            .filter(move |(labels, ..)| fits(labels))
            .map(|(labels, _, exported)| (labels, exported))
    }
}

#[cfg(test)]
mod tests;
