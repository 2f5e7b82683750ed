//! `foreshadow report`: what the last days were like, as one page.
//!
//! What is read (`gather.rs`) is computed upon (`incidents.rs`, `actions.rs`, `capacity.rs`, `costs.rs`, `trends.rs`) and then put
//! into words (`words.rs`), pictures (`chart.rs`) and a page (`page.rs`). Nothing that is drawn computes anything.

mod actions;
mod capacity;
mod cells;
mod chart;
mod costs;
mod figures;
mod gather;
mod incidents;
mod page;
#[cfg(test)]
mod tests;
mod trends;
mod words;

use foreshadow_engine::model::InstanceId;
use foreshadow_engine::{ReadStoreError, Reader};
use serde::Serialize;

pub(crate) use capacity::Policy;
pub(crate) use gather::Span;
pub(crate) use page::page;
pub(crate) use words::summary;

use actions::{Actions, Alarms};
use capacity::{Forecasts, Headroom};
use cells::Points;
use costs::Shadows;
use figures::Said;
use gather::Facts;
use incidents::Incident;
use trends::Trends;

/// Everything that is told of a span.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    /// Its name, where the configuration could be read.
    pub(crate) service: Option<String>,
    /// What was asked for.
    pub(crate) from_unix_ms: i64,
    pub(crate) to_unix_ms: i64,
    /// From the first record in it to the last.
    pub(crate) recorded_from_unix_ms: i64,
    pub(crate) recorded_to_unix_ms: i64,
    /// Share of the span asked for in which the load is known.
    pub(crate) known_share: f64,
    pub(crate) lives: Vec<InstanceId>,
    pub(crate) incidents: Vec<Incident>,
    pub(crate) actions: Actions,
    pub(crate) alarms: Alarms,
    pub(crate) headroom: Said<Headroom>,
    pub(crate) forecasts: Said<Forecasts>,
    pub(crate) shadows: Shadows,
    pub(crate) trends: Trends,
    /// Load and users' p95, to be drawn.
    #[serde(skip)]
    pub(crate) courses: Courses,
}

/// What is drawn first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Courses {
    pub(crate) load: Points,
    pub(crate) p95_ms: Points,
}

/// The report of a span; `None` if nothing is recorded in it. `tell` hears how many series of how many are read.
pub(crate) fn report(
    reader: &Reader,
    span: Span,
    policy: &Policy,
    tell: impl FnMut(usize, usize),
) -> Result<Option<Report>, ReadStoreError> {
    Ok(Facts::read(reader, span, tell)?.map(|facts| of(&facts, policy)))
}

fn of(facts: &Facts, policy: &Policy) -> Report {
    let (load, p95) = (facts.load(), facts.users_p95());
    #[expect(clippy::cast_precision_loss, reason = "counts of cells")]
    let known_share = load.known().count() as f64 / facts.grid.count.max(1) as f64;
    let incidents = incidents::incidents(facts);
    Report {
        service: policy.service.clone(),
        from_unix_ms: facts.asked.from,
        to_unix_ms: facts.asked.to,
        recorded_from_unix_ms: facts.span.from,
        recorded_to_unix_ms: facts.span.to,
        known_share,
        lives: facts.lives(),
        actions: actions::actions(facts),
        alarms: actions::alarms(facts, &incidents),
        headroom: capacity::headroom(facts, policy),
        forecasts: capacity::forecasts(facts, policy),
        shadows: costs::shadows(facts, policy),
        trends: trends::trends(facts),
        courses: Courses {
            load: load.samples(facts.grid).collect(),
            p95_ms: p95.samples(facts.grid).collect(),
        },
        incidents,
    }
}
