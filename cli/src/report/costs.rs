//! What shadows cost beside their lives.

use foreshadow_engine::model::{Budget, Role};
use serde::Serialize;

use super::capacity::Policy;
use super::figures::Said;
use super::gather::Facts;

/// Earlier controllers did not write it down.
const UNRECORDED: &str =
    "not recorded: needs shadows in cgroups, and a controller of this version, which records what they use";

const UNCOUNTED: &str = "not recorded: no shadow in this span, or a controller that did not count them";

const UNPRICED: &str = "not known: `action.budget` of the configuration says what a live and a shadow cost (name the file with `-c`)";

/// Something of all shadows beside the same of all lives.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Beside {
    pub(crate) shadows: f64,
    pub(crate) lives: f64,
    /// Shadows over lives.
    pub(crate) share: f64,
    /// Share of the span in which both are recorded.
    pub(crate) recorded_share: f64,
}

/// What was spent on shadows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Shadows {
    pub(crate) cpu_seconds: Said<Beside>,
    /// On average, in bytes.
    pub(crate) memory_bytes: Said<Beside>,
    /// Copies that shadows answered, beside the requests of users.
    pub(crate) copies: Said<Beside>,
    /// Bytes of the copies that were sent to them, heads and bodies.
    pub(crate) copied_bytes: Said<f64>,
    /// What they cost while they were there, in the currency of `action.budget`, beside their lives.
    pub(crate) money: Said<Beside>,
}

pub(super) fn shadows(facts: &Facts, policy: &Policy) -> Shadows {
    let memory = beside(facts, "memory").map(|both| {
        let seconds = both.recorded_share * facts.span.days() * 86_400.0;
        Beside { shadows: both.shadows / seconds, lives: both.lives / seconds, ..both }
    });
    let said = |both: Option<Beside>, why: &str| both.map_or_else(|| Said::Unknown(why.into()), Said::Known);
    Shadows {
        cpu_seconds: said(beside(facts, "cpu"), UNRECORDED),
        memory_bytes: said(memory, UNRECORDED),
        copies: said(beside(facts, "requests"), "not enough data: no shadow answered a copy in this span"),
        copied_bytes: copied(facts).map_or_else(|| Said::Unknown(UNCOUNTED.into()), Said::Known),
        money: match &policy.prices {
            Some(prices) => said(money(facts, prices), "not enough data: no live is recorded in this span"),
            None => Said::Unknown(UNPRICED.into()),
        },
    }
}

fn copied(facts: &Facts) -> Option<f64> {
    facts.grid.sum(facts.of(Role::Shadow, "copied").map(|course| &course.cells)).integral(facts.grid)
}

/// What is recorded of it was there.
fn money(facts: &Facts, prices: &Budget) -> Option<Beside> {
    let hours = |role: Role| {
        let cells = facts.of(role, "requests").map(|course| course.cells.known().count()).sum::<usize>();
        #[expect(clippy::cast_precision_loss, reason = "a count of cells")]
        let cells = cells as f64;
        cells * facts.grid.cell_seconds() / 3600.0
    };
    let (shadows, lives) =
        (hours(Role::Shadow) * prices.shadow_per_hour, hours(Role::Live) * prices.live_per_hour);
    let known = facts.load().known().count();
    #[expect(clippy::cast_precision_loss, reason = "counts of cells")]
    let recorded_share = known as f64 / facts.grid.count.max(1) as f64;
    (0.0 < lives).then(|| Beside { shadows, lives, share: shadows / lives, recorded_share })
}

/// Both sides, summed over the cells in which both are known.
fn beside(facts: &Facts, metric: &str) -> Option<Beside> {
    let grid = facts.grid;
    let of = |role: Role| grid.sum(facts.of(role, metric).map(|course| &course.cells));
    let (shadows, lives) = (of(Role::Shadow), of(Role::Live));
    let both = |at: usize| shadows.at(at).is_finite() && lives.at(at).is_finite();
    let ours = grid.map(|at| if both(at) { shadows.at(at) } else { f64::NAN }).integral(grid)?;
    let theirs = grid.map(|at| if both(at) { lives.at(at) } else { f64::NAN }).integral(grid)?;
    #[expect(clippy::cast_precision_loss, reason = "a count of cells")]
    let seconds = (0..grid.count).filter(|at| both(*at)).count() as f64 * grid.cell_seconds();
    let recorded_share = (seconds / (86_400.0 * facts.span.days())).min(1.0);
    (0.0 < theirs).then(|| Beside { shadows: ours, lives: theirs, share: ours / theirs, recorded_share })
}
