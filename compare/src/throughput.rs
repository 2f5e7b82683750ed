//! Whether live still answers what it is asked (`DELTA.md` §3).
//!
//! *Why not answers per second*: they follow what users want. What was handed to live and not answered does not.
//! *Inputs*: requests handed over and requests answered in a tick, `x = ln((offered + ½)/(answered + ½))`. At rest the
//! two differ by the change of what is in flight, whose variance is about twice the number in flight (Little).
//! *Trips* like every detector, against live's own past: the shadow is offered another load. *Recovers* by calm; a queue
//! that is worked off counts as calm. *First start*: 24 ticks. *After a gap* nothing changes.
//! *Cannot see*: clients that wait for an answer before they ask again; they stop asking. Nothing where the mirror does
//! not count what it hands over.

use foreshadow_model::Window;

use crate::detector::{SAMPLES_MIN, Statistic};

/// The statistic of one tick; `None` with too few requests, or where they are not counted.
#[expect(clippy::cast_precision_loss, reason = "requests of one tick")]
pub(crate) fn statistic(window: &Window) -> Option<Statistic> {
    let side = &window.live_side;
    let (offered, answered) = (side.offered?, side.requests);
    let larger = offered.max(answered);
    if !window.reported || larger < u64::from(SAMPLES_MIN) {
        return None;
    }
    let in_flight = (side.busy_seconds / window.span_seconds).max(1.0);
    let larger = larger as f64;
    // More in flight than a tick brings says nothing more about it than that tick.
    let sampling = 2.0 * in_flight.min(larger) / (larger * larger);
    let x = ((offered as f64 + 0.5) / (answered as f64 + 0.5)).ln();
    sampling.is_finite().then_some(Statistic { x, sampling })
}

#[cfg(test)]
mod tests {
    use foreshadow_model::{InstanceId, Tick};

    use super::*;

    fn window(offered: Option<u64>, answered: u64, busy_seconds: f64) -> Window {
        let mut window = Window::unreported(Tick(0), InstanceId::live(1), 2.0);
        window.reported = true;
        (window.live_side.offered, window.live_side.requests) = (offered, answered);
        window.live_side.busy_seconds = busy_seconds;
        window
    }

    #[test]
    fn a_tick_agrees_with_a_hand_computed_case() {
        let said = statistic(&window(Some(200), 100, 8.0)).unwrap();
        assert!((said.x - (200.5_f64 / 100.5).ln()).abs() < 1e-12);
        // 8 s of answers in 2 s: four in flight. 2 · 4 / 200².
        assert!((said.sampling - 2e-4).abs() < 1e-12);
    }

    #[test]
    fn without_a_count_or_without_requests_nothing_is_said() {
        assert_eq!(statistic(&window(None, 100, 1.0)), None);
        assert_eq!(statistic(&window(Some(4), 4, 1.0)), None);
        assert!(statistic(&window(Some(100), 0, 0.0)).is_some_and(|said| 5.0 < said.x));
    }
}
