//! One story per state: how it is entered, and how it is left.

use foreshadow_model::{
    Assessment, DropReason, Drops, Inconclusive, LogMoments, Ratio, Resource, Stream, Verdict, Window,
};

use crate::sim::{CALM, Nature, Sim, Trouble, slower};

/// A pair that has been healthy for `ticks`.
fn healthy_for(ticks: u64, seed: u64) -> Sim {
    let mut sim = Sim::new(Nature::PROTOCOL, seed);
    assert_eq!(sim.run(ticks, &CALM).verdict, Verdict::Healthy);
    sim
}

fn residual(assessment: &Assessment) -> f64 {
    assessment.streams.iter().find(|s| s.stream == Stream::Centre).unwrap().residual.unwrap()
}

#[test]
fn nothing_is_said_before_24_ticks() {
    let mut sim = Sim::new(Nature::PROTOCOL, 1);
    assert_eq!(sim.run(23, &CALM).verdict, Verdict::Calibrating);
    let first = sim.step(&CALM);
    assert_eq!(first.verdict, Verdict::Healthy);
    assert!(first.provisional);
}

#[test]
fn a_threefold_slowdown_is_found_within_ten_ticks_of_a_minute_old_demo() {
    for seed in 0..40 {
        let mut sim = Sim::new(Nature::DEMO, seed);
        for _ in 0..60 {
            let verdict = sim.step(&CALM).verdict;
            assert!(matches!(verdict, Verdict::Calibrating | Verdict::Healthy), "seed {seed}: {verdict}");
        }
        let found = sim.ticks_until(Verdict::Degraded, &slower(3.0), 30);
        assert!(found.is_some_and(|ticks| ticks <= 10), "seed {seed}: {found:?}");
    }
}

#[test]
fn a_burst_of_four_ticks_is_no_reason_to_act() {
    for seed in 0..10 {
        let mut sim = healthy_for(1000, seed);
        assert_eq!(sim.ticks_until(Verdict::Degraded, &slower(1.6), 4), None);
        assert_eq!(sim.ticks_until(Verdict::Degraded, &CALM, 100), None);
    }
}

#[test]
fn a_degradation_is_never_learned_as_normal() {
    let mut sim = healthy_for(1000, 1);
    sim.run(3000, &slower(1.3));
    let last = sim.step(&slower(1.3));
    assert_eq!(last.verdict, Verdict::Degraded);
    assert!(0.15 < residual(&last), "{}", residual(&last));
    assert!(0.15 < last.delta.unwrap().delta.get());
}

#[test]
fn healing_is_believed_after_some_calm_minutes() {
    let mut sim = healthy_for(1000, 1);
    sim.run(40, &slower(3.0));
    let ticks = sim.ticks_until(Verdict::Healthy, &CALM, 200).unwrap();
    assert!((24..=96).contains(&ticks), "{ticks}");
    assert!(sim.run(300, &CALM).evidence < 1e4);
}

#[test]
fn a_gap_neither_clears_nor_loses_a_degradation() {
    let mut sim = healthy_for(1000, 1);
    let before = sim.run(40, &slower(2.0)).evidence;
    for _ in 0..200 {
        let mut window = sim.window(&CALM);
        window = Window::unreported(window.tick, window.live, window.span_seconds);
        window.shadow = Some(window.live.shadow_of());
        let assessment = sim.judge.update(&window);
        assert_eq!(assessment.verdict, Verdict::Inconclusive(Inconclusive::NotReported));
        assert_eq!(assessment.evidence.to_bits(), before.to_bits());
        assert_eq!(assessment.delta, None);
    }
    assert_eq!(sim.step(&slower(2.0)).verdict, Verdict::Degraded);
}

#[test]
fn errors_only_on_live_are_a_degradation() {
    let failing = Trouble { live_errors: 0.2, ..CALM };
    let mut sim = healthy_for(200, 1);
    let ticks = sim.ticks_until(Verdict::Degraded, &failing, 30).unwrap();
    assert!(ticks <= 6, "{ticks}");
    let last = sim.run(12, &failing);
    assert!((last.error_excess.unwrap().get() - 0.2).abs() < 0.05);
    assert!(sim.ticks_until(Verdict::Healthy, &CALM, 60).is_some());
}

#[test]
fn a_live_that_only_fails_is_a_degradation_although_no_latency_compares() {
    let mut sim = healthy_for(200, 1);
    let last = sim.run(40, &Trouble { live_errors: 1.0, ..CALM });
    assert_eq!(last.verdict, Verdict::Degraded);
}

#[test]
fn failures_without_a_shadow_are_seen_but_not_judged() {
    let mut sim = healthy_for(200, 1);
    for _ in 0..30 {
        let mut window = lost(sim.window(&CALM), DropReason::ShadowError);
        window.shadow = None;
        window.live_side.errors = window.live_side.requests / 5;
        let said = sim.judge.update(&window);
        assert_eq!(said.verdict, Verdict::Inconclusive(Inconclusive::NoShadow));
    }
    let last = sim.step(&CALM);
    assert!(1e4 <= last.evidence, "{}", last.evidence);
}

#[test]
fn errors_on_both_sides_alike_say_nothing() {
    let mut sim = healthy_for(200, 1);
    let flaky = Trouble { live_errors: 0.03, shadow_errors: 0.03, ..CALM };
    assert_eq!(sim.ticks_until(Verdict::Degraded, &flaky, 2000), None);
}

#[test]
fn a_failing_shadow_is_the_suspect() {
    let mut sim = healthy_for(200, 1);
    let last = sim.run(20, &Trouble { shadow_errors: 0.3, ..CALM });
    assert_eq!(last.verdict, Verdict::ShadowSuspect);
}

#[test]
fn a_slow_shadow_is_the_suspect() {
    let mut sim = healthy_for(1000, 1);
    let last = sim.run(60, &Trouble { shadow: 0.5, ..CALM });
    assert_eq!(last.verdict, Verdict::ShadowSuspect);
    assert!(sim.ticks_until(Verdict::Healthy, &CALM, 60).is_some());
}

#[test]
fn a_live_that_became_faster_makes_no_shadow_suspect() {
    let mut sim = healthy_for(1000, 1);
    assert_eq!(sim.ticks_until(Verdict::ShadowSuspect, &Trouble { live: -0.5, ..CALM }, 200), None);
}

#[test]
fn both_sides_slow_together_is_not_the_host() {
    let mut sim = healthy_for(1000, 1);
    let slow = Trouble { live: 0.5, shadow: 0.5, ..CALM };
    assert_eq!(sim.ticks_until(Verdict::Degraded, &slow, 10), None);
    let last = sim.run(50, &slow);
    assert_eq!(last.verdict, Verdict::BothDegraded);
    assert_eq!(last.attribution.unwrap().first(), Resource::SoftwareOrDependency);
    assert!(sim.ticks_until(Verdict::Healthy, &CALM, 100).is_some());
}

/// A shadow whose copies all come to nothing.
fn lost(mut window: Window, reason: DropReason) -> Window {
    window.paired = Default::default();
    window.live_side.paired_log = Default::default();
    window.shadow_side = Default::default();
    window.agreement = Default::default();
    window.drops = Drops([(reason, window.sampled)].into());
    window
}

#[test]
fn a_dead_or_frozen_shadow_is_neither_good_nor_bad_news() {
    for reason in [DropReason::ShadowError, DropReason::Timeout, DropReason::QueueFull] {
        let mut sim = healthy_for(1000, 1);
        for _ in 0..300 {
            let window = lost(sim.window(&CALM), reason);
            let verdict = sim.judge.update(&window).verdict;
            assert_eq!(verdict, Verdict::Inconclusive(Inconclusive::CopiesDropped));
        }
        assert_eq!(sim.ticks_until(Verdict::Degraded, &CALM, 100), None);
        assert_eq!(sim.step(&CALM).verdict, Verdict::Healthy);
    }
}

#[test]
fn only_the_fast_answers_of_a_stumbling_shadow_do_not_blame_live() {
    let mut sim = healthy_for(1000, 1);
    for tick in 0..300 {
        let mut window = sim.window(&Trouble { shadow: -0.7, ..CALM });
        window.drops = Drops([(DropReason::Timeout, window.sampled * 2 / 5)].into());
        let verdict = sim.judge.update(&window).verdict;
        let dropped = verdict == Verdict::Inconclusive(Inconclusive::CopiesDropped);
        assert!(dropped || tick < 7 && verdict == Verdict::Healthy, "tick {tick}: {verdict}");
    }
}

#[test]
fn a_live_whose_clients_give_up_is_not_healthy() {
    let mut sim = healthy_for(1000, 1);
    let mut last = sim.step(&CALM);
    for _ in 0..20 {
        let mut window = sim.window(&CALM);
        window.drops = Drops([(DropReason::LiveAborted, window.sampled / 2)].into());
        last = sim.judge.update(&window);
    }
    assert_eq!(last.verdict, Verdict::Inconclusive(Inconclusive::CopiesDropped));
    for _ in 0..30 {
        let mut window = sim.window(&slower(2.0));
        window.drops = Drops([(DropReason::LiveAborted, window.sampled / 2)].into());
        last = sim.judge.update(&window);
    }
    assert_eq!(last.verdict, Verdict::Degraded, "what is missing only flatters live");
}

#[test]
fn a_pair_without_a_shadow_is_inconclusive() {
    let mut sim = healthy_for(200, 1);
    let mut window = sim.window(&CALM);
    window.shadow = None;
    assert_eq!(sim.judge.update(&window).verdict, Verdict::Inconclusive(Inconclusive::NoShadow));
}

#[test]
fn answers_of_another_kind_are_inconclusive() {
    let mut sim = healthy_for(200, 1);
    let redirecting = Trouble { diverging: 0.4, live: 0.7, ..CALM };
    assert_eq!(sim.ticks_until(Verdict::Degraded, &redirecting, 100), None);
    assert_eq!(sim.step(&redirecting).verdict, Verdict::Inconclusive(Inconclusive::Diverging));
}

#[test]
fn too_few_pairs_are_inconclusive() {
    let mut sim = healthy_for(200, 1);
    let mut sparse = Sim::new(Nature { pairs: 3, ..Nature::PROTOCOL }, 1);
    let verdicts: Vec<_> = (0..12).map(|_| sim.judge.update(&sparse.window(&CALM)).verdict).collect();
    assert_eq!(verdicts[3], Verdict::Healthy, "a few poor ticks are ordinary");
    assert_eq!(verdicts[11], Verdict::Inconclusive(Inconclusive::TooFewSamples));
}

#[test]
fn a_jump_of_load_is_inconclusive_and_keeps_the_evidence() {
    let mut sim = healthy_for(1000, 1);
    sim.run(40, &slower(2.0));
    sim.load_factor = 0.05;
    let relieved = sim.run(100, &CALM);
    assert!(1e4 <= relieved.evidence);
    assert_ne!(relieved.verdict, Verdict::Healthy);
    sim.load_factor = 1.0;
    assert_eq!(sim.run(30, &slower(2.0)).verdict, Verdict::Degraded);

    let mut sim = healthy_for(1000, 1);
    sim.load_factor = 4.0;
    sim.run(6, &slower(2.0));
    let last = sim.run(60, &slower(2.0));
    assert_eq!(last.verdict, Verdict::Inconclusive(Inconclusive::LoadOutOfRange));
}

#[test]
fn traffic_that_starts_long_after_the_judge_is_no_jump() {
    let mut sim = Sim::new(Nature::PROTOCOL, 1);
    let mut idle = Sim::new(Nature { pairs: 0, requests_per_second: 0.0, ..Nature::PROTOCOL }, 1);
    for _ in 0..200 {
        let verdict = sim.judge.update(&idle.window(&CALM)).verdict;
        assert!(matches!(verdict, Verdict::Calibrating | Verdict::Inconclusive(Inconclusive::TooFewSamples)));
    }
    assert_eq!(sim.run(40, &CALM).verdict, Verdict::Healthy);
}

#[test]
fn a_throughput_that_collapses_does_not_hide_the_fault() {
    let mut sim = healthy_for(1000, 1);
    sim.load_factor = 0.1;
    assert!(sim.ticks_until(Verdict::Degraded, &slower(3.0), 15).is_some());
}

#[test]
fn a_throttled_cgroup_explains_any_shift() {
    let mut sim = healthy_for(200, 1);
    let last = sim.run(20, &Trouble { throttled: 0.96, burst: 0.8, ..slower(3.0) });
    assert_eq!(last.verdict, Verdict::Degraded);
    let attribution = last.attribution.unwrap();
    assert_eq!(attribution.first(), Resource::Cpu);
    assert!(attribution.shares[0].evidence.contains("throttled in"), "{attribution}");
    assert!(last.pressure.own_cgroup && !last.pressure.node);
    let total: f64 = attribution.shares.iter().map(|share| share.share).sum();
    assert!((total - 1.0).abs() < 1e-9);
}

#[test]
fn a_slow_node_shows_in_the_burst_alone() {
    let mut sim = healthy_for(200, 1);
    let last = sim.run(20, &Trouble { burst: 0.6, ..slower(2.0) });
    assert_eq!(last.attribution.unwrap().first(), Resource::Cpu);
    assert!(last.pressure.node && !last.pressure.own_cgroup);
}

#[test]
fn slow_software_is_not_blamed_on_the_host() {
    let mut sim = healthy_for(200, 1);
    let last = sim.run(20, &slower(3.0));
    let attribution = last.attribution.unwrap();
    assert_eq!(attribution.first(), Resource::SoftwareOrDependency, "{attribution}");
    assert!(!last.pressure.own_cgroup && !last.pressure.node);
}

#[test]
fn a_new_baseline_takes_the_shift_as_normal() {
    let mut sim = healthy_for(1000, 1);
    sim.run(40, &slower(2.0));
    sim.judge.rebaseline();
    assert_eq!(sim.step(&slower(2.0)).verdict, Verdict::Calibrating);
    assert_eq!(sim.ticks_until(Verdict::Degraded, &slower(2.0), 500), None);
    let last = sim.step(&slower(2.0));
    assert_eq!((last.verdict, last.provisional), (Verdict::Healthy, true));
}

#[test]
fn a_frozen_judge_learns_nothing() {
    let mut sim = healthy_for(1000, 1);
    sim.judge.freeze(true);
    let r = |sim: &mut Sim| (0..50).map(|_| residual(&sim.step(&slower(1.04)))).sum::<f64>() / 50.0;
    let before = r(&mut sim);
    sim.run(900, &slower(1.04));
    assert!(before - 0.02 < r(&mut sim));
}

#[test]
fn the_state_survives_being_saved() {
    let mut sim = healthy_for(300, 1);
    sim.run(5, &slower(2.0));
    let saved = serde_json::to_string(&sim.judge).unwrap();
    assert!(saved.len() < 40 << 10, "{} bytes", saved.len());
    assert!(size_of_val(&sim.judge) < 16 << 10, "{} bytes", size_of_val(&sim.judge));
    let mut restored: foreshadow_compare::Judge = serde_json::from_str(&saved).unwrap();
    for _ in 0..50 {
        let window = sim.window(&slower(2.0));
        assert_eq!(sim.judge.update(&window), restored.update(&window));
    }
}

#[test]
fn a_day_of_quarantine_without_a_degradation_becomes_the_new_normal() {
    let mut sim = Sim::new(Nature { tick_seconds: 60.0, ..Nature::PROTOCOL }, 1);
    sim.run(1000, &CALM);
    let slow = Trouble { live: 0.5, shadow: 0.5, ..CALM };
    assert_eq!(sim.run(100, &slow).verdict, Verdict::BothDegraded);
    let last = sim.run(1440, &slow);
    assert_eq!((last.verdict, last.provisional), (Verdict::Healthy, true));
}

/// Eight pairs of variance 0.32 leave a tick 20 % of noise: half are found as soon as with more, some need longer.
#[test]
fn few_noisy_pairs_still_find_a_threefold_slowdown() {
    let mut delays = Vec::new();
    for seed in 0..20 {
        let mut sim = Sim::new(Nature { pairs: 8, requests_per_second: 16.0, ..Nature::DEMO }, seed);
        for _ in 0..60 {
            let verdict = sim.step(&CALM).verdict;
            assert!(matches!(verdict, Verdict::Calibrating | Verdict::Healthy), "seed {seed}: {verdict}");
        }
        delays.push(sim.ticks_until(Verdict::Degraded, &slower(3.0), 60).expect("found within a minute"));
    }
    delays.sort_unstable();
    eprintln!("eight noisy pairs, threefold: {delays:?} ticks");
    assert!(delays[10] <= 12, "{delays:?}");
}

/// A live that answers nobody: what a tick is when those who wait are counted as failed, and hardly anybody asks anew.
fn hangs(sim: &mut Sim, failed: u64) -> Window {
    let calm = sim.window(&CALM);
    let mut window = Window::unreported(calm.tick, calm.live.clone(), calm.span_seconds);
    (window.reported, window.shadow) = (true, calm.shadow);
    (window.live_side.requests, window.live_side.errors) = (failed, failed);
    window.live_side.offered = Some(failed);
    // The copies of those that are sampled are answered.
    window.shadow_side.requests = failed.min(2);
    window
}

const FEW: Verdict = Verdict::Inconclusive(Inconclusive::TooFewSamples);

#[test]
fn a_live_that_answers_nobody_is_degraded_within_ten_ticks_although_nothing_can_be_compared() {
    for seed in 0..10 {
        let mut sim = healthy_for(200, seed);
        // At first those who wait are nowhere counted.
        for _ in 0..10 {
            let window = hangs(&mut sim, 0);
            assert_ne!(sim.judge.update(&window).verdict, Verdict::Degraded);
        }
        let window = hangs(&mut sim, 0);
        assert_eq!(sim.judge.update(&window).verdict, FEW);
        let mut found = None;
        for tick in 1..=20 {
            let failed = if tick == 1 { 12 } else { u64::from(tick % 3 == 0) };
            let window = hangs(&mut sim, failed);
            if sim.judge.update(&window).verdict == Verdict::Degraded {
                found = Some(tick);
                break;
            }
        }
        assert!(found.is_some_and(|ticks| (3..=10).contains(&ticks)), "seed {seed}: {found:?}");
        // Ejected: nobody knows whether it still hangs, and a trickle is to find out.
        let mut last = Verdict::Degraded;
        for _ in 0..20 {
            let window = hangs(&mut sim, 0);
            last = sim.judge.update(&window).verdict;
        }
        assert_eq!(last, FEW);
        // It is well again.
        for _ in 0..40 {
            let mut window = sim.window(&CALM);
            thinned(&mut window);
            assert_ne!(sim.judge.update(&window).verdict, Verdict::Degraded, "seed {seed}");
        }
    }
}

/// The same, held back by the mirror.
fn held_back(sim: &mut Sim, failed: u64) -> Window {
    Window { held_back: true, ..hangs(sim, failed) }
}

/// It is held back and tried once in so many ticks, until it is found degraded.
fn found_hanging(every: u64) -> Sim {
    let mut sim = healthy_for(200, 1);
    for tick in 0..4 * every + 12 {
        let failed = if tick == 0 { 12 } else { u64::from(tick % every == 0) };
        let window = held_back(&mut sim, failed);
        if sim.judge.update(&window).verdict == Verdict::Degraded {
            return sim;
        }
    }
    panic!("not found, tried every {every} ticks");
}

#[test]
fn a_live_that_the_mirror_holds_back_is_degraded_between_two_tries_too() {
    // The recent ticks are twelve.
    for every in [2, 3, 8, 11] {
        let mut sim = found_hanging(every);
        for tick in 0..10 * every {
            let window = held_back(&mut sim, u64::from(tick % every == every / 2));
            let said = sim.judge.update(&window);
            let excess = said.error_excess.map(Ratio::get);
            assert!(
                said.verdict == Verdict::Degraded && excess.is_some_and(|excess| 0.5 < excess),
                "every {every}, {tick}: {} {excess:?}",
                said.verdict
            );
            let missing = Window::unreported(window.tick, window.live, window.span_seconds);
            drop(sim.judge.update(&missing));
        }
        // Sent nobody by the controller, it is not held back by the mirror: whether it still hangs is unknown.
        let mut last = Verdict::Degraded;
        for _ in 0..20 {
            let window = hangs(&mut sim, 0);
            last = sim.judge.update(&window).verdict;
        }
        assert_eq!(last, FEW);
    }
}

#[test]
fn of_a_live_that_nobody_tries_any_more_it_is_unknown_whether_it_hangs() {
    let mut sim = found_hanging(3);
    let window = held_back(&mut sim, 0);
    assert_eq!(sim.judge.update(&window).verdict, Verdict::Degraded);
    let mut last = Verdict::Degraded;
    for _ in 0..20 {
        let window = held_back(&mut sim, 0);
        last = sim.judge.update(&window).verdict;
    }
    assert_eq!(last, FEW, "after a minute");
}

#[test]
fn what_both_waited_for_is_forgotten_after_some_tries() {
    let mut sim = healthy_for(200, 1);
    for tick in 0..1000 {
        let mut window = held_back(&mut sim, 4);
        (window.shadow_side.requests, window.shadow_side.errors) = (4, if tick < 900 { 4 } else { 0 });
        let verdict = sim.judge.update(&window).verdict;
        assert!(900 <= tick || verdict != Verdict::Degraded);
        if verdict == Verdict::Degraded {
            assert!(tick < 915, "{tick}");
            return;
        }
    }
    panic!("never found");
}

#[test]
fn a_pause_of_a_tick_is_no_reason_to_act() {
    for seed in 0..10 {
        let mut sim = healthy_for(200, seed);
        let window = hangs(&mut sim, 12);
        assert_ne!(sim.judge.update(&window).verdict, Verdict::Degraded, "seed {seed}");
        assert_eq!(sim.ticks_until(Verdict::Degraded, &CALM, 100), None);
    }
}

#[test]
fn what_live_and_shadow_wait_for_together_is_not_blamed_on_live() {
    for shadow_fails in [false, true] {
        let mut sim = healthy_for(200, 1);
        for _ in 0..30 {
            let mut window = hangs(&mut sim, 4);
            let failed = if shadow_fails { 4 } else { 0 };
            (window.shadow_side.requests, window.shadow_side.errors) = (failed, failed);
            assert_ne!(sim.judge.update(&window).verdict, Verdict::Degraded);
        }
    }
}

#[test]
fn a_live_that_nobody_asks_is_not_degraded() {
    let mut sim = healthy_for(200, 1);
    for _ in 0..100 {
        let window = hangs(&mut sim, 0);
        assert_ne!(sim.judge.update(&window).verdict, Verdict::Degraded);
    }
}

/// What is left of a tick when users who wait ask nothing more: two pairs of it.
fn thinned(window: &mut Window) {
    let whole = |log: &mut LogMoments| {
        let mean = log.mean().unwrap();
        *log = LogMoments { n: 2, sum: 2.0 * mean, sum_sq: 2.0 * mean * mean + 0.1 };
    };
    whole(&mut window.paired);
    whole(&mut window.live_side.paired_log);
    whole(&mut window.shadow_side.paired_log);
    (window.sampled, window.agreement.same) = (2, 2);
    (window.live_side.requests, window.live_side.offered) = (10, Some(10));
}

#[test]
fn a_live_that_is_asked_less_the_slower_it_gets_is_found_all_the_same() {
    for seed in 0..10 {
        let mut sim = healthy_for(200, seed);
        let found = (1..=60).find(|_| {
            let mut window = sim.window(&slower(50.0));
            thinned(&mut window);
            sim.judge.update(&window).verdict == Verdict::Degraded
        });
        assert!(found.is_some_and(|ticks| ticks <= 24), "seed {seed}: {found:?}");
    }
}
