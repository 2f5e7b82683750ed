use proptest::prelude::*;

use super::*;

const OBJECTIVE: Objective = Objective { latency: 0.25, failed: 0.01 };

const BOUNDS: RampBounds =
    RampBounds { percentile: 0.95, tick_seconds: 5.0, repeats_max: 100.0, load_max: 1e5 };

/// A hundred answers that took so many seconds each.
fn answers(seconds: f64) -> LogHistogram {
    let mut answers = LogHistogram::default();
    answers.record_many(1e6 * seconds, 100);
    answers
}

/// A shadow that takes `capacity` requests a second, of a live of which `copies` are taken.
struct Service {
    capacity: f64,
    copies: f64,
}

impl Service {
    fn tick(&self, load: f64) -> RampTick {
        let offered = load.max(self.copies);
        let busy = offered / self.capacity;
        let latency = if busy < 0.999 { 0.04 + 0.03 * busy * busy / (1.0 - busy) } else { 5.0 };
        RampTick {
            offered,
            answered: offered.min(self.capacity),
            answers: answers(latency),
            under_way: offered.min(self.capacity) * latency,
            failed: 0.0,
            copies: self.copies,
            live_latency: Some(0.04),
        }
    }

    /// Steps of 5 s until it ends, and how.
    fn climb(&self, near: Option<f64>) -> (Ramp, RampEnd, usize) {
        let mut ramp = Ramp::new(OBJECTIVE, near, BOUNDS);
        for ticks in 1..1000 {
            if let RampTurn::End(end) = ramp.tick(self.tick(ramp.load())) {
                return (ramp, end, ticks);
            }
        }
        panic!("it never ended: {ramp:?}");
    }

    /// 0.25 = 0.04 + 0.03 x: ρ = 0.887.
    fn knee(&self) -> f64 {
        0.887 * self.capacity
    }
}

#[test]
fn the_knee_is_found_within_a_twentieth() {
    for capacity in [70.0, 300.0, 900.0] {
        let service = Service { capacity, copies: 10.0 };
        let (ramp, end, _) = service.climb(None);
        let RampEnd::Found(found) = end else { panic!("{end:?} {ramp:?}") };
        assert!((found.load / service.knee() - 1.0).abs() < 0.03, "{capacity}: {found:?}");
        assert!(found.high.is_some_and(|high| high / found.low < 1.06), "{found:?}");
    }
}

#[test]
fn beside_an_earlier_knee_a_quarter_less_is_known_sooner() {
    let cut = Service { capacity: 225.0, copies: 10.0 };
    let (_, end, ticks) = cut.climb(Some(266.0));
    let RampEnd::Found(found) = end else { panic!("{end:?}") };
    assert!((found.load / cut.knee() - 1.0).abs() < 0.03, "{found:?}");
    let (_, _, from_nothing) = cut.climb(None);
    assert!(ticks + 15 < from_nothing, "{ticks} ticks of 5 s, {from_nothing} without");
}

#[test]
fn it_ends_when_live_becomes_slower_and_not_for_one_slow_tick() {
    let service = Service { capacity: 300.0, copies: 10.0 };
    let mut ramp = Ramp::new(OBJECTIVE, None, BOUNDS);
    let slow = |ramp: &Ramp| RampTick { live_latency: Some(0.1), ..service.tick(ramp.load()) };
    while ramp.load() < 40.0 {
        assert!(!matches!(ramp.tick(service.tick(ramp.load())), RampTurn::End(_)));
    }
    assert_eq!(ramp.tick(slow(&ramp)), RampTurn::Wait);
    (0..2).for_each(|_| assert!(!matches!(ramp.tick(service.tick(40.0)), RampTurn::End(_))));
    let turns: Vec<RampTurn> = (0..3).map(|_| ramp.tick(slow(&ramp))).collect();
    assert!(turns.contains(&RampTurn::End(RampEnd::LiveSlower { before: 0.04, now: 0.1 })), "{turns:?}");
}

#[test]
fn what_cannot_be_said_is_said_so() {
    let ends = |service: Service| service.climb(None).1;
    assert_eq!(ends(Service { capacity: 9.0, copies: 0.5 }), RampEnd::TooFew { copies: 0.5 });
    assert_eq!(ends(Service { capacity: 10.0, copies: 10.0 }), RampEnd::BrokenAlready);
    let endless = ends(Service { capacity: 1e6, copies: 10.0 });
    assert_eq!(endless, RampEnd::NotReached { kept: 1000.0 });
}

/// How a ramp ends on a service that is sent no more than this, in requests per second.
fn end_of(service: &Service, bounds: RampBounds, sent_most: f64) -> RampEnd {
    let mut ramp = Ramp::new(OBJECTIVE, None, bounds);
    let end = (0..1000).find_map(|_| match ramp.tick(service.tick(ramp.load().min(sent_most))) {
        RampTurn::End(end) => Some(end),
        _ => None,
    });
    end.unwrap_or_else(|| panic!("{ramp:?}"))
}

#[test]
fn one_stall_is_found_out_whenever_it_comes() {
    let service = Service { capacity: 300.0, copies: 10.0 };
    for stalled in 1..12 {
        let mut ramp = Ramp::new(OBJECTIVE, None, BOUNDS);
        let end = (0..1000).find_map(|_| {
            let honest = service.tick(ramp.load());
            let answers = if ramp.steps().len() == stalled { answers(0.9) } else { honest.answers.clone() };
            match ramp.tick(RampTick { answers, ..honest }) {
                RampTurn::End(end) => Some(end),
                _ => None,
            }
        });
        let Some(RampEnd::Found(found)) = end else { panic!("{stalled}: {end:?}") };
        let off = found.load / service.knee() - 1.0;
        assert!(off.abs() < 0.03, "look {stalled}: {found:?} {:?}", ramp.steps());
    }
}

#[test]
fn what_the_mirror_cannot_send_is_no_knee() {
    let service = Service { capacity: 1e6, copies: 10.0 };
    let end = end_of(&service, BOUNDS, 300.0);
    assert_eq!(end, RampEnd::CannotOffer { asked: 600.0, offered: 300.0 });
    let end = end_of(&service, RampBounds { load_max: 200.0, ..BOUNDS }, 1e9);
    assert_eq!(end, RampEnd::NotReached { kept: 200.0 });
}

#[test]
fn answers_that_come_after_the_look_are_chance_where_they_are_few() {
    // Two a second, three seconds each: six are under way, and of eighty that were offered 68 are answered.
    let few = Service { capacity: 9.0, copies: 2.0 };
    let slow = RampTick { offered: 2.0, answered: 1.7, under_way: 6.0, ..few.tick(0.0) };
    let many = RampTick { offered: 200.0, answered: 170.0, ..slow.clone() };
    let objective = Objective { latency: 9.0, ..OBJECTIVE };
    let turn = |tick: &RampTick| {
        let mut ramp = Ramp::new(objective, None, BOUNDS);
        (0..8).map(|_| ramp.tick(tick.clone())).last()
    };
    assert!(matches!(turn(&slow), Some(RampTurn::Offer { .. })), "{:?}", turn(&slow));
    assert_eq!(turn(&many), Some(RampTurn::End(RampEnd::BrokenAlready)), "of thousands it is none");
}

#[test]
fn who_is_not_answered_waits_longer_than_who_is() {
    // One in fifteen waits in a queue that nobody serves while the others are served at once.
    let service = Service { capacity: 900.0, copies: 20.0 };
    let starved = |load: f64| {
        let honest = service.tick(load);
        let answered = if 300.0 < honest.offered { honest.offered / 1.07 } else { honest.offered };
        RampTick { answered, ..honest }
    };
    let mut ramp = Ramp::new(OBJECTIVE, None, BOUNDS);
    let end = (0..1000).find_map(|_| match ramp.tick(starved(ramp.load())) {
        RampTurn::End(end) => Some(end),
        _ => None,
    });
    let Some(RampEnd::Found(found)) = end else { panic!("{end:?}") };
    assert!((285.0..315.0).contains(&found.load), "{found:?}");
}

#[test]
fn copies_that_come_and_go_with_their_sessions_are_no_more_and_no_less_capacity() {
    let mut ramp = Ramp::new(OBJECTIVE, None, BOUNDS);
    let found = (0..1000).find_map(|tick| {
        let copies = [10.0, 8.0, 12.0, 9.0, 11.0][tick / 40 % 5];
        match ramp.tick(Service { capacity: 300.0, copies }.tick(ramp.load())) {
            RampTurn::End(end) => Some(end),
            _ => None,
        }
    });
    let Some(RampEnd::Found(found)) = found else { panic!("{found:?} {ramp:?}") };
    assert!((found.load / (0.887 * 300.0) - 1.0).abs() < 0.05, "{found:?} {:?}", ramp.steps());
}

#[test]
fn a_load_that_goes_away_under_way_breaks_nothing() {
    let service = Service { capacity: 900.0, copies: 10.0 };
    let mut ramp = Ramp::new(OBJECTIVE, None, BOUNDS);
    while ramp.load() < 40.0 {
        ramp.tick(service.tick(ramp.load()));
    }
    let gone = RampTick { answered: 0.0, answers: LogHistogram::default(), copies: 0.0, ..service.tick(0.0) };
    let turns: Vec<RampTurn> = (0..6).map(|_| ramp.tick(gone.clone())).collect();
    assert!(turns.contains(&RampTurn::End(RampEnd::TooFew { copies: 0.0 })), "{turns:?}");
    assert!(ramp.steps().iter().all(|step| OBJECTIVE.is_kept(step)), "{:?}", ramp.steps());
}

#[test]
fn silence_is_broken_and_no_reason_to_panic() {
    let mut ramp = Ramp::new(OBJECTIVE, Some(f64::NAN), RampBounds { tick_seconds: 1.0, ..BOUNDS });
    let silent = RampTick {
        offered: 0.0,
        answered: 0.0,
        under_way: 0.0,
        answers: LogHistogram::default(),
        failed: 0.0,
        copies: 0.0,
        live_latency: None,
    };
    let turns: Vec<RampTurn> = (0..30).map(|_| ramp.tick(silent.clone())).collect();
    assert!(turns.contains(&RampTurn::End(RampEnd::TooFew { copies: 0.0 })));
}

proptest! {
    #[test]
    fn whatever_is_seen_no_load_leaves_its_bounds_and_it_ends(
        ticks in prop::collection::vec((0.0_f64..1e4, prop::option::of(prop::num::f64::ANY), 0.0_f64..1.0, 0.0_f64..1e4, 0.0_f64..1e6), 1..50),
        near in prop::option::of(prop::num::f64::ANY),
    ) {
        let mut ramp = Ramp::new(OBJECTIVE, near, BOUNDS);
        let mut ended = false;
        for (answered, latency, failed, copies, offered) in ticks.iter().copied().cycle().take(1000) {
            let live_latency = Some(0.04);
            let mut answers = LogHistogram::default();
            latency.into_iter().for_each(|seconds| answers.record(1e6 * seconds));
            match ramp.tick(RampTick { offered, answered, answers: answers.clone(), failed, under_way: answered, copies, live_latency }) {
                RampTurn::Offer { load, seconds, .. } => {
                    prop_assert!((0.0..=100.0 * copies.max(1e4)).contains(&load) && (0.0..=600.0).contains(&seconds), "{load} {seconds}");
                }
                RampTurn::End(_) => { ended = true; break; }
                RampTurn::Wait => {}
            }
        }
        prop_assert!(ended, "{ramp:?}");
    }
}

#[test]
fn a_queue_that_comes_and_goes_is_too_slow_though_half_of_the_ticks_are_fast() {
    let service = Service { capacity: 300.0, copies: 10.0 };
    let mut ramp = Ramp::new(OBJECTIVE, None, RampBounds { tick_seconds: 1.0, ..BOUNDS });
    let mut nth = 0;
    while ramp.steps().len() < 2 {
        nth += 1;
        let answers = if 0.0 < ramp.load() && nth % 3 == 0 { answers(0.6) } else { answers(0.05) };
        ramp.tick(RampTick { answers, ..service.tick(ramp.load()) });
    }
    assert!(!OBJECTIVE.is_kept(&ramp.steps()[1]), "a third of all answers: {:?}", ramp.steps());
}

/// Ticks of a second that the look at the second step takes, just below such a knee, of a service that answers like this.
fn look_of(near: f64, tick: impl Fn(f64) -> RampTick) -> (usize, RampStep) {
    let mut ramp = Ramp::new(OBJECTIVE, Some(near), RampBounds { tick_seconds: 1.0, ..BOUNDS });
    let usual = Service { capacity: 2000.0, copies: 20.0 };
    for ticks in 0..100 {
        let seen = if ramp.load() == 0.0 { usual.tick(0.0) } else { tick(ramp.load()) };
        ramp.tick(seen);
        if let [_, step] = ramp.steps() {
            // Twenty of the load before and three to settle.
            return (ticks + 1 - 20 - 3, *step);
        }
    }
    panic!("{ramp:?}");
}

#[test]
fn a_look_is_as_long_as_it_must_be_and_says_what_a_whole_one_would() {
    let far = Service { capacity: 2000.0, copies: 20.0 };
    let (ticks, step) = look_of(1000.0, |load| far.tick(load));
    assert!(ticks == 4 && OBJECTIVE.is_kept(&step), "{ticks} {step:?}");
    let (ticks, step) = look_of(1000.0, |load| RampTick { failed: 0.008, ..far.tick(load) });
    assert!(ticks == 15 && OBJECTIVE.is_kept(&step), "failures are near what is allowed: {ticks} {step:?}");
    let beside = Service { capacity: 850.0 / 0.88, copies: 20.0 };
    let (ticks, step) = look_of(1000.0, |load| beside.tick(load));
    assert!(ticks == 15 && OBJECTIVE.is_kept(&step), "{ticks} {step:?}");
    let broken = Service { capacity: 400.0, copies: 20.0 };
    let (ticks, step) = look_of(1000.0, |load| broken.tick(load));
    assert!(ticks == 4 && !OBJECTIVE.is_kept(&step), "{ticks} {step:?}");
    let grows = |load| RampTick { answered: 0.96 * load, ..far.tick(load) };
    let (ticks, step) = look_of(1000.0, grows);
    assert!(ticks == 15, "fast, and one in twenty-five is left behind: {ticks} {step:?}");
    let few = Service { capacity: 2000.0, copies: 20.0 };
    let (ticks, _) = look_of(100.0, |load| few.tick(load));
    assert_eq!(ticks, 12, "so few requests say little of the load");
}

#[test]
fn who_may_still_be_answered_in_time_does_not_end_a_look() {
    let service = Service { capacity: 2000.0, copies: 20.0 };
    // A pause of a quarter of a second at the end of each tick, shorter than the objective by a hair.
    let nth = std::cell::Cell::new(0);
    let (ticks, step) = look_of(1000.0, |load| {
        nth.set(nth.get() + 1);
        let missing = if nth.get() == 7 { 0.24 * load } else { 0.0 };
        let late = if nth.get() == 8 { 0.24 * load } else { 0.0 };
        let honest = service.tick(load);
        RampTick { answered: load - missing + late, ..honest }
    });
    assert!(4 < ticks && OBJECTIVE.is_kept(&step), "{ticks} {step:?}");
}

#[test]
fn what_is_offered_by_chance_is_no_mirror_that_cannot_send_it() {
    // Poisson: 20 a second over 20 s are 400, and one in forty times less than 360 of them.
    let service = Service { capacity: 1e6, copies: 2.0 };
    let mut ramp = Ramp::new(OBJECTIVE, None, BOUNDS);
    while ramp.load() < 30.0 {
        let offered = if ramp.load() < 16.0 { ramp.load().max(2.0) } else { 0.87 * ramp.load() };
        let seen = RampTick { offered, answered: offered, ..service.tick(offered) };
        assert!(!matches!(ramp.tick(seen), RampTurn::End(_)), "{:?}", ramp.steps());
    }
}
