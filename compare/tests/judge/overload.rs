//! Load that explains slowness, and load that does not.

use foreshadow_model::{Assessment, Inconclusive, Verdict};

use crate::sim::{CALM, Nature, Sim, Trouble, slower};

const NATURE: Nature = Nature { requests_per_second: 200.0, pairs: 40, load_noise: 0.01, ..Nature::DEMO };

/// A healthy pair of two minutes of age whose load does not swing.
fn steady(seed: u64) -> Sim {
    let mut sim = Sim::new(NATURE, seed);
    sim.run(120, &CALM);
    sim
}

/// A queue at half of its capacity: at `load` times the usual it is slower by so much in log units.
fn queueing(load: f64) -> Trouble {
    let used = (0.5 * load).min(0.95);
    slower(0.5 / (1.0 - used))
}

/// Load goes to `to` within `over` ticks, then stays for 30: every assessment.
fn story(sim: &mut Sim, to: f64, over: u32, trouble: impl Fn(f64) -> Trouble) -> Vec<Assessment> {
    let step = |t: u32| {
        sim.load_factor = 1.0 + (to - 1.0) * (f64::from(t) / f64::from(over)).min(1.0);
        sim.step(&trouble(sim.load_factor))
    };
    (1..=over + 30).map(step).collect()
}

fn first_overloaded(story: &[Assessment]) -> Option<usize> {
    story.iter().position(|said| said.overloaded)
}

#[test]
fn a_threefold_load_that_slows_live_is_overload_within_ten_ticks_and_nobody_is_blamed() {
    for seed in 0..10 {
        let said = story(&mut steady(seed), 3.0, 1, queueing);
        assert!(first_overloaded(&said).is_some_and(|at| at < 10), "seed {seed}: {said:?}");
        assert!(said.iter().all(|said| said.verdict != Verdict::Degraded), "seed {seed}");
        let last = said.last().unwrap();
        assert!(last.overloaded && 1.0 < last.own_delta.unwrap().get(), "seed {seed}");
        assert_eq!(last.verdict, Verdict::Inconclusive(Inconclusive::LoadOutOfRange), "seed {seed}");
    }
}

#[test]
fn a_ramp_to_the_double_within_twenty_ticks_is_overload_ten_ticks_later_and_nobody_is_blamed() {
    for seed in 0..10 {
        let said = story(&mut steady(seed), 2.0, 20, queueing);
        assert!(first_overloaded(&said).is_some_and(|at| at < 30), "seed {seed}");
        assert!(said.last().unwrap().overloaded, "seed {seed}");
        assert!(said.iter().all(|said| said.verdict != Verdict::Degraded), "seed {seed}");
    }
}

#[test]
fn a_load_that_live_takes_is_no_overload() {
    for seed in 0..10 {
        for to in [1.5, 3.0] {
            let said = story(&mut steady(seed), to, 1, |_| CALM);
            assert_eq!(first_overloaded(&said), None, "seed {seed}, load {to}");
        }
    }
}

#[test]
fn a_fault_at_constant_load_or_at_a_fifth_more_is_a_fault() {
    for seed in 0..10 {
        for to in [1.0, 1.2] {
            let said = story(&mut steady(seed), to, 1, |_| slower(3.0));
            assert_eq!(first_overloaded(&said), None, "seed {seed}, load {to}");
            assert_eq!(said.last().unwrap().verdict, Verdict::Degraded, "seed {seed}, load {to}");
        }
    }
}

#[test]
fn load_does_not_excuse_what_was_found_before() {
    let mut sim = steady(1);
    sim.run(20, &slower(3.0));
    let said = story(&mut sim, 3.0, 1, |_| slower(3.0));
    assert_eq!(first_overloaded(&said), None);
}

#[test]
fn requests_that_are_not_answered_count_as_load() {
    let mut sim = steady(1);
    let mut overloaded = None;
    for tick in 0..20 {
        let mut window = sim.window(&slower(3.0));
        window.live_side.offered = Some(3 * window.live_side.requests);
        if sim.judge.update(&window).overloaded {
            overloaded.get_or_insert(tick);
        }
    }
    assert!(overloaded.is_some_and(|tick| tick < 10), "{overloaded:?}");
}

#[test]
fn overload_ends_with_the_load() {
    let mut sim = steady(1);
    story(&mut sim, 3.0, 1, queueing);
    sim.load_factor = 1.0;
    let later: Vec<_> = (0..60).map(|_| sim.step(&CALM)).collect();
    assert!(later.iter().all(|said| said.verdict != Verdict::Degraded));
    assert!(!later[12].overloaded);
    assert_eq!(later[59].verdict, Verdict::Healthy);
}
