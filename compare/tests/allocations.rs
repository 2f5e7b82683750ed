//! A judge of a healthy pair asks nobody for memory.

use foreshadow_model::Verdict;

#[path = "judge/sim.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "it is a module of other tests, which use more of it"
)]
mod sim;

use sim::{CALM, Nature, Sim};

#[test]
fn a_healthy_tick_allocates_nothing() {
    let nature = Nature { pairs: 50, answers: true, load_noise: 0.01, ..Nature::PROTOCOL };
    let mut sim = Sim::new(nature, 5);
    sim.run(6000, &CALM);
    let windows: Vec<_> = (0..2000).map(|_| sim.window(&CALM)).collect();
    let counted = allocation_counter::measure(|| drop(windows[0].clone()));
    assert!(0 < counted.count_total, "it counts");
    for window in &windows {
        let mut verdict = Verdict::Calibrating;
        let seen = allocation_counter::measure(|| verdict = sim.judge.update(window).verdict);
        assert_eq!((verdict, seen.count_total), (Verdict::Healthy, 0), "{:?}", window.tick);
    }
}
