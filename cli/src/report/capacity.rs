//! The load beside what the lives can take, and beside what was forecast.

use foreshadow_engine::model::{Budget, Role};
use serde::Serialize;

use super::cells::{Cells, Grid, Points};
use super::figures::{Said, Share, Spread, quantile};
use super::gather::Facts;

/// Hours of load before its peaks say anything.
const HOURS_MIN: f64 = 1.0;

/// Hours of forecasts before their coverage says anything: one of them is one value, since neighbours are alike.
const FORECAST_HOURS_MIN: f64 = 24.0;

/// The lead of a forecast that nobody wrote down.
const LEAD_SECONDS: f64 = 60.0;

const DAY_MS: i64 = 86_400_000;

/// What the configuration says of load.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Policy {
    pub(crate) service: Option<String>,
    /// Requests per second that one live can take.
    pub(crate) capacity: Option<f64>,
    /// The quantile that forecasts are made for.
    pub(crate) quantile: Option<f64>,
    /// What lives and shadows cost.
    pub(crate) prices: Option<Budget>,
}

/// How full the lives were: load over capacity.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Headroom {
    /// Requests per second of one live, in the middle where they differ.
    pub(crate) capacity_per_second: f64,
    /// Whether that was recorded, moment by moment (measured, or configured; less while a live was slower); else it is what the
    /// configuration says now.
    pub(crate) is_recorded: bool,
    pub(crate) used: Spread,
    pub(crate) used_p99: f64,
    pub(crate) used_most: f64,
    pub(crate) most_unix_ms: i64,
    /// The fullest moment of every day: how far they lie apart.
    pub(crate) daily_peaks: Spread,
    pub(crate) seconds_beyond: f64,
    /// What is left at the fullest moment; below zero is too little.
    pub(crate) headroom: f64,
    #[serde(skip)]
    pub(crate) cells: Points,
}

/// Forecasts against what came.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Forecasts {
    /// The quantile they were made for.
    pub(crate) quantile: f64,
    /// Whether the configuration says so, or it is the one where nobody does.
    pub(crate) quantile_is_configured: bool,
    /// Seconds ahead, as written down; else [`LEAD_SECONDS`].
    pub(crate) lead_seconds: f64,
    pub(crate) lead_is_recorded: bool,
    /// Moments whose load to come stayed below.
    pub(crate) coverage: Share,
    /// By how much the upper value lay above what came, over what came: the price of being safe.
    pub(crate) above: Spread,
    #[serde(skip)]
    pub(crate) said: Points,
    #[serde(skip)]
    pub(crate) came: Points,
}

pub(super) fn headroom(facts: &Facts, policy: &Policy) -> Said<Headroom> {
    let mut recorded: Vec<f64> = facts
        .of(Role::Live, "capacity")
        .flat_map(|course| course.cells.known())
        .map(|(_, value)| value)
        .collect();
    recorded.sort_by(f64::total_cmp);
    let is_recorded = !recorded.is_empty();
    let usual = if is_recorded { Some(quantile(&recorded, 0.5)) } else { policy.capacity };
    let Some(capacity) = usual.filter(|capacity| 0.0 < *capacity) else {
        return Said::Unknown(
            "how much one live can take is not known: `knee.objective` of the configuration lets it be measured, or \
             `forecast.capacity` says it (name the file with `-c`)"
                .into(),
        );
    };
    let lives: Vec<&Cells> = facts.of(Role::Live, "requests").map(|course| &course.cells).collect();
    let of_lives: Vec<&Cells> = facts.of(Role::Live, "capacity").map(|course| &course.cells).collect();
    let load = facts.load();
    let used = facts.grid.map(|at| {
        let known = of_lives.iter().map(|cells| cells.at(at)).filter(|value| value.is_finite());
        let recorded: f64 = known.sum();
        #[expect(clippy::cast_precision_loss, reason = "a count of lives")]
        let there = lives.iter().filter(|cells| cells.at(at).is_finite()).count() as f64;
        load.at(at) / if 0.0 < recorded { recorded } else { capacity * there }
    });
    let cells: Points = used.samples(facts.grid).collect();
    let mut values: Vec<f64> = cells.iter().map(|(_, used)| *used).collect();
    values.sort_by(f64::total_cmp);
    let needed = facts.grid.cells_in(3600.0 * HOURS_MIN);
    let (Some(spread), Some(most)) = (
        Spread::of(values.clone(), needed),
        cells.iter().copied().reduce(|a, b| if a.1 < b.1 { b } else { a }),
    ) else {
        return Said::Unknown(format!("not enough data: needs {HOURS_MIN:.0} hour of load"));
    };
    let peak = |day: &[(i64, f64)]| day.iter().map(|(_, used)| *used).fold(0.0, f64::max);
    let days =
        cells.chunk_by(|(a, _), (b, _)| (a - facts.asked.from) / DAY_MS == (b - facts.asked.from) / DAY_MS);
    let beyond = values.iter().filter(|used| 1.0 < **used).count();
    #[expect(clippy::cast_precision_loss, reason = "a count of cells")]
    let seconds_beyond = beyond as f64 * facts.grid.cell_seconds();
    Said::Known(Headroom {
        capacity_per_second: capacity,
        is_recorded,
        used: spread,
        used_p99: quantile(&values, 0.99),
        used_most: most.1,
        most_unix_ms: most.0,
        daily_peaks: Spread::of(days.map(peak).collect(), 1).unwrap_or(spread),
        seconds_beyond,
        headroom: 1.0 - most.1,
        cells,
    })
}

pub(super) fn forecasts(facts: &Facts, policy: &Policy) -> Said<Forecasts> {
    let grid = facts.grid;
    // It stands with whatever live is the first at that moment.
    let of = |metric: &str| {
        let all: Vec<&Cells> = facts.of(Role::Live, metric).map(|course| &course.cells).collect();
        grid.map(|at| {
            all.iter().map(|cells| cells.at(at)).find(|value| value.is_finite()).unwrap_or(f64::NAN)
        })
    };
    let (upper, load) = (of("forecast_upper"), facts.load());
    let mut leads: Vec<f64> = of("forecast_lead").known().map(|(_, lead)| lead).collect();
    leads.sort_by(f64::total_cmp);
    let lead_is_recorded = !leads.is_empty();
    let lead_seconds = if lead_is_recorded { quantile(&leads, 0.5) } else { LEAD_SECONDS };
    let (said, pairs) = beside(grid, &upper, &load, grid.cells_in(lead_seconds));
    #[expect(clippy::cast_precision_loss, reason = "a count of cells")]
    let hours = pairs.len() as f64 * grid.cell_seconds() / 3600.0;
    let ratios = pairs.iter().filter(|(_, came)| 0.0 < *came).map(|(upper, came)| upper / came - 1.0);
    let above = Spread::of(ratios.collect(), 1).filter(|_| FORECAST_HOURS_MIN <= hours);
    let Some(above) = above else {
        return Said::Unknown(format!(
            "not enough data: needs {FORECAST_HOURS_MIN:.0} hours of forecasts with the load that came, has {hours:.1}"
        ));
    };
    let covered = pairs.iter().filter(|(upper, came)| came <= upper).count();
    Said::Known(Forecasts {
        quantile: policy.quantile.unwrap_or(0.9),
        quantile_is_configured: policy.quantile.is_some(),
        lead_seconds,
        lead_is_recorded,
        coverage: Share::by(covered, pairs.len(), hours.min(hours * 3600.0 / lead_seconds)),
        above,
        said,
        came: load.samples(grid).collect(),
    })
}

/// Each upper value, drawn where it looks to, and beside it the largest load within its lead.
fn beside(grid: Grid, upper: &Cells, load: &Cells, lead: usize) -> (Points, Vec<(f64, f64)>) {
    let (mut said, mut pairs) = (Vec::new(), Vec::new());
    for (at, upper) in upper.known() {
        said.push((grid.moment(at + lead), upper));
        let came = load.within(at + 1, at + 1 + lead);
        if lead <= 2 * came.len() && !came.is_empty() {
            pairs.push((upper, came.into_iter().fold(0.0, f64::max)));
        }
    }
    (said, pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forecast_is_beside_the_largest_load_within_its_lead() {
        let grid = Grid { from: 0, cell_ms: 60_000, count: 5 };
        let minutes = |values: [f64; 5]| grid.map(|at| values[at]);
        let upper = minutes([10.0, 10.0, 10.0, 10.0, f64::NAN]);
        let load = minutes([1.0, 2.0, 30.0, f64::NAN, f64::NAN]);
        let (said, pairs) = beside(grid, &upper, &load, 2);
        assert_eq!(pairs, [(10.0, 30.0), (10.0, 30.0)], "what came is not known of the last two");
        assert_eq!(said[0], (grid.moment(2), 10.0));
    }
}
