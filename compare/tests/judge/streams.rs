//! Streams beside the centre: what they find, what they must not find, and what they say of it.

use foreshadow_model::{
    Assessment, CgroupSignals, Inconclusive, Resource, Stream, StreamState, Verdict, Window,
};
use proptest::prelude::*;

use crate::sim::{CALM, Nature, Rng, Sim, Trouble, burst, slower};

/// Ticks of a second with 100 pairs, every answer counted.
const ANSWERS: Nature = Nature { pairs: 100, answers: true, load_noise: 0.01, ..Nature::DEMO };

const SICK_TAIL: Trouble = Trouble { tail: 0.05, ..CALM };

fn healthy(seed: u64, ticks: u64) -> Sim {
    let mut sim = Sim::new(ANSWERS, seed);
    sim.run(ticks, &CALM);
    sim
}

fn state(said: &Assessment, stream: Stream) -> Option<&StreamState> {
    said.streams.iter().find(|state| state.stream == stream)
}

/// Runs `ticks` ticks of windows that `change` has had its hands on.
fn run(sim: &mut Sim, ticks: u64, trouble: &Trouble, change: impl Fn(&mut Window)) -> Assessment {
    let mut step = || {
        let mut window = sim.window(trouble);
        change(&mut window);
        sim.judge.update(&window)
    };
    (1..ticks).for_each(|_| drop(step()));
    step()
}

#[test]
fn one_request_in_twenty_that_takes_ten_times_as_long_is_a_degradation_of_the_tail() {
    let mut delays = Vec::new();
    for seed in 0..10 {
        let mut sim = healthy(seed, 400);
        delays.push(sim.ticks_until(Verdict::Degraded, &SICK_TAIL, 120).expect("found within two minutes"));
        let said = sim.step(&SICK_TAIL);
        assert!(matches!(said.carrier, Some(Stream::Tail95 | Stream::Tail99)), "seed {seed}: {said:?}");
        assert!(0.3 < said.delta.unwrap().delta.get(), "seed {seed}: {:?}", said.delta);
        assert!(!state(&said, Stream::Centre).unwrap().raised, "seed {seed}");
        assert!(state(&said, said.carrier.unwrap()).unwrap().raised, "seed {seed}");
    }
    eprintln!("sick tail: {delays:?} ticks");
}

#[test]
fn a_pressed_shadow_accuses_nobody_teaches_what_the_workload_answers_to_and_hides_no_sick_live() {
    let mut sim = Sim::new(Nature::DEMO, 3);
    sim.run(400, &CALM);
    let pressed = |sim: &mut Sim, live: f64| {
        sim.judge.press(Some(Resource::Cpu));
        let trouble = Trouble { shadow: 0.2, live, ..CALM };
        run(sim, 20, &trouble, |window| window.shadow_bursts = vec![burst(0.010 * 0.4_f64.exp())])
    };
    let said = pressed(&mut sim, 0.0);
    assert_eq!(said.verdict, Verdict::Inconclusive(Inconclusive::Pressed));
    assert!(said.own_delta.is_some_and(|delta| delta.get().abs() < 0.05) && said.delta.is_none(), "{said:?}");
    sim.judge.press(None);
    for tick in 0..200 {
        let said = sim.step(&CALM);
        assert!(
            matches!(said.verdict, Verdict::Healthy | Verdict::Inconclusive(Inconclusive::Pressed)),
            "{tick}: {}",
            said.verdict
        );
        let [cpu] = said.sensitivities[..] else { panic!("{said:?}") };
        assert!(cpu.resource == Resource::Cpu && (cpu.factor - 0.5).abs() < 0.15, "{cpu:?}");
    }
    let sick = pressed(&mut sim, 0.5);
    assert!(sick.own_delta.is_some_and(|delta| 0.4 < delta.get()), "whoever presses sees it: {sick:?}");
}

#[test]
fn what_both_sides_share_raises_no_alarm_on_live_however_long_it_lasts() {
    for (seed, shared) in [(1, 0.06), (2, 0.06), (3, 0.2), (4, 0.2), (5, 0.5), (6, 0.5)] {
        let mut sim = Sim::new(Nature::PROTOCOL, seed);
        sim.run(3000, &CALM);
        let both = Trouble { live: shared, shadow: shared, ..CALM };
        for tick in 0..4000 {
            let said = sim.step(&both);
            assert!(
                !matches!(said.verdict, Verdict::Warn | Verdict::Degraded),
                "seed {seed}, tick {tick}: {}",
                said.verdict
            );
        }
    }
}

#[test]
fn after_an_hour_the_controlled_stream_speaks_finds_what_is_live_s_own_and_goes_on_learning() {
    let mut sim = Sim::new(Nature::ROUGH, 7);
    assert!(state(&sim.run(700, &CALM), Stream::Controlled).is_none(), "not before");
    let said = sim.run(3000, &CALM);
    assert!(state(&said, Stream::Controlled).is_some_and(|state| !state.raised));
    let saved = serde_json::to_string(&sim.judge).unwrap();
    sim.judge = serde_json::from_str(&saved).unwrap();
    let ticks = sim.ticks_until(Verdict::Degraded, &slower(1.3), 60).unwrap();
    let said = sim.run(10, &slower(1.3));
    assert!(state(&said, Stream::Controlled).unwrap().raised, "after {ticks} ticks: {said:?}");
    sim.judge.renew_shadow();
    assert!(state(&sim.run(100, &CALM), Stream::Controlled).is_none(), "another shadow weighs anew");
}

#[test]
fn what_a_day_is_like_is_known_after_two_of_them() {
    // A minute each: the level follows a day only in part.
    let mut sim = Sim::new(Nature { tick_seconds: 60.0, daily: 0.3, ..Nature::PROTOCOL }, 11);
    let mut swing = |ticks: u64| {
        let said = (0..ticks).filter_map(|_| {
            let said = sim.step(&CALM);
            state(&said, Stream::Controlled)?.residual
        });
        let residuals: Vec<f64> = said.collect();
        let hours = residuals.chunks_exact(60).map(|hour| hour.iter().sum::<f64>() / 60.0);
        hours.map(f64::abs).fold(0.0, f64::max)
    };
    let [_, first, _, fourth] = [900, 1440, 2880, 1440].map(&mut swing);
    assert!(0.15 < first && fourth < first / 3.0, "{first} on the first day, {fourth} on the fifth");
}

#[test]
fn what_the_noise_is_like_is_learned_for_as_long_as_it_lasts() {
    // A minute each, so that five days are not many ticks; then the noise doubles.
    let nature = Nature { tick_seconds: 60.0, ..Nature::PROTOCOL };
    let mut sim = Sim::new(nature, 3);
    sim.run(120_000, &CALM);
    let loud = Nature { tick_noise: 2.0 * nature.tick_noise, ..nature };
    sim.change(loud);
    sim.run(40_000, &CALM);
    let (mut warned, mut before) = (0, Verdict::Healthy);
    for _ in 0..20_000 {
        let verdict = sim.step(&CALM).verdict;
        warned += u32::from(verdict == Verdict::Warn && before != Verdict::Warn);
        before = verdict;
    }
    assert!(warned <= 1, "{warned}");
}

/// Adds 200 ms to one request in ten of those that take 5 ms: a packet was lost and sent again.
fn lose_packets(window: &mut Window, rng: &mut Rng) {
    const LONGER_LOG: f64 = 3.7;
    let hit = rng.count(u64::from(window.paired.n), 0.1) as f64;
    let mean = window.paired.mean().unwrap_or(0.0);
    window.paired.sum += hit * LONGER_LOG;
    window.paired.sum_sq += hit * (2.0 * LONGER_LOG * mean + LONGER_LOG * LONGER_LOG);
}

#[test]
fn what_hits_some_requests_only_is_not_excused_by_the_variance_it_brings_along() {
    // Fifteen pairs a tick are too few for a tail: a block of p95 would take fourteen ticks.
    let few = Nature { pairs: 15, ..Nature::DEMO };
    let mut delays = Vec::new();
    for seed in 0..20 {
        let mut sim = Sim::new(few, seed);
        sim.run(300, &CALM);
        let mut rng = Rng::new(seed);
        let found = (1..=120).find(|_| {
            let mut window = sim.window(&CALM);
            lose_packets(&mut window, &mut rng);
            sim.judge.update(&window).verdict == Verdict::Degraded
        });
        delays.push(found.unwrap_or(u64::MAX));
    }
    delays.sort_unstable();
    eprintln!("lost packets: {delays:?} ticks");
    assert!(delays[10] <= 60, "half of them within a minute: {delays:?}");
}

#[test]
fn three_requests_in_a_thousand_that_take_ten_times_as_long_are_found_where_there_are_enough_requests() {
    let many = Nature { pairs: 2000, ..ANSWERS };
    let mut sim = Sim::new(many, 5);
    let healthy = sim.run(300, &CALM);
    assert!(state(&healthy, Stream::Tail999).is_some_and(|state| !state.raised), "{healthy:?}");
    let rare = Trouble { tail: 0.003, ..CALM };
    let found = (1..=200).find(|_| {
        let said = sim.step(&rare);
        said.verdict == Verdict::Degraded && state(&said, Stream::Tail999).is_some_and(|state| state.raised)
    });
    assert!(found.is_some());
    // With twenty times fewer it takes twenty times as long until it knows its past.
    assert!(state(&Sim::new(ANSWERS, 5).run(300, &CALM), Stream::Tail999).is_none());
}

#[test]
fn a_tail_that_heals_is_believed_after_a_while() {
    let mut sim = healthy(1, 400);
    sim.run(120, &SICK_TAIL);
    assert!(sim.ticks_until(Verdict::Healthy, &CALM, 200).is_some());
    assert_eq!(sim.run(200, &CALM).carrier, None);
}

#[test]
fn when_everything_is_slower_the_centre_speaks_and_the_tail_does_not_outlast_it() {
    let mut sim = healthy(1, 400);
    let said = sim.run(40, &slower(3.0));
    assert_eq!((said.verdict, said.carrier), (Verdict::Degraded, None));
    let ticks = sim.ticks_until(Verdict::Healthy, &CALM, 200).unwrap();
    assert!(ticks <= 96, "{ticks}");
}

#[test]
fn a_shadow_whose_tail_got_shorter_makes_no_live_degraded() {
    let mut sim = Sim::new(ANSWERS, 1);
    // Both have a tail; then the shadow alone loses it.
    let lengthen = |window: &mut Window| (0..10).for_each(|_| window.shadow_side.latency.record(3e5));
    run(&mut sim, 400, &Trouble { tail: 0.1, ..CALM }, lengthen);
    for _ in 0..200 {
        assert_ne!(sim.step(&Trouble { tail: 0.1, ..CALM }).verdict, Verdict::Degraded);
    }
}

#[test]
fn requests_that_stay_unanswered_are_a_degradation_although_all_answers_are_fast() {
    let mut sim = healthy(1, 200);
    let unanswered = Trouble { unanswered: 0.5, ..CALM };
    let ticks = sim.ticks_until(Verdict::Degraded, &unanswered, 40).unwrap();
    let said = sim.step(&unanswered);
    assert_eq!(said.carrier, Some(Stream::Throughput), "after {ticks} ticks: {said:?}");
    assert!(0.2 < said.delta.unwrap().delta.get());
}

#[test]
fn a_busy_neighbour_that_costs_live_nothing_warns_at_most() {
    let mut sim = healthy(1, 400);
    let mut warned = false;
    for _ in 0..300 {
        let said = run(&mut sim, 1, &Trouble { burst: 0.7, ..CALM }, |window| {
            let signals = window.live_signals.as_mut().unwrap();
            signals.cpu_pressure_seconds = Some(0.6 * signals.span_seconds);
        });
        assert!(matches!(said.verdict, Verdict::Healthy | Verdict::Warn), "{}", said.verdict);
        warned |= said.verdict == Verdict::Warn;
    }
    assert!(warned, "the host is clearly worse, and an operator may want to know");
}

#[test]
fn a_little_hog_is_nobody_s_business() {
    let mut sim = healthy(1, 400);
    assert_eq!(sim.ticks_until(Verdict::Warn, &Trouble { burst: 1.17_f64.ln(), ..CALM }, 500), None);
}

#[test]
fn a_stream_that_does_not_exist_does_not_dilute() {
    // No signals, no bursts, no counts: the centre is all there is, and the mean is the centre.
    let mut sim = Sim::new(Nature::DEMO, 1);
    let bare = |window: &mut Window| {
        (window.live_signals, window.live_bursts) = (None, Vec::new());
    };
    run(&mut sim, 200, &CALM, bare);
    let said = run(&mut sim, 5, &slower(2.0), bare);
    let centre = state(&said, Stream::Centre).unwrap().evidence;
    assert!((said.evidence / centre - 1.0).abs() < 1e-9, "{} of {centre}", said.evidence);
}

#[test]
fn healthy_hours_with_all_streams_bring_no_alarm() {
    for seed in 100..106 {
        let mut sim = Sim::new(ANSWERS, seed);
        for tick in 0..3000 {
            let said = sim.step(&CALM);
            let calm = matches!(said.verdict, Verdict::Calibrating | Verdict::Healthy);
            assert!(calm, "seed {seed}, tick {tick}: {} {:?}", said.verdict, said.streams);
        }
    }
}

#[test]
fn a_judge_saved_at_any_tick_goes_on_bit_for_bit() {
    let mut sim = healthy(3, 150);
    let troubles = [CALM, SICK_TAIL, slower(2.0), Trouble { unanswered: 0.4, burst: 0.7, ..CALM }];
    for tick in 0..160 {
        let window = sim.window(&troubles[tick / 40]);
        let saved = serde_json::to_string(&sim.judge).unwrap();
        let mut restored: foreshadow_compare::Judge = serde_json::from_str(&saved).unwrap();
        assert_eq!(sim.judge.update(&window), restored.update(&window), "tick {tick}");
        assert_eq!(serde_json::to_string(&sim.judge).unwrap(), serde_json::to_string(&restored).unwrap());
    }
}

/// Signals as they are when nothing is wrong.
fn signals(window: &mut Window, of_live: impl Fn(&mut CgroupSignals)) {
    let quiet = CgroupSignals {
        major_faults: Some(0),
        refaults: Some(2),
        memory_limit_hits: Some(1),
        node_io_pressure_seconds: Some(0.02),
        io_pressure_seconds: Some(0.01),
        tcp_segments_out: Some(1000),
        tcp_retransmits: Some(0),
        ..window.live_signals.clone().unwrap()
    };
    window.shadow_signals = Some(quiet.clone());
    let live = window.live_signals.insert(quiet);
    of_live(live);
}

fn with_fault(trouble: &Trouble, fault: impl Fn(&mut CgroupSignals)) -> Assessment {
    let mut sim = Sim::new(ANSWERS, 5);
    run(&mut sim, 200, &CALM, |window| signals(window, |_| ()));
    run(&mut sim, 20, trouble, |window| signals(window, &fault))
}

#[test]
fn a_memory_limit_below_the_working_set_is_the_cgroup_s_own() {
    let said = with_fault(&slower(3.0), |live| {
        (live.memory_limit_hits, live.refaults, live.major_faults) = (Some(300), Some(4000), Some(500));
        live.io_pressure_seconds = Some(0.3);
    });
    assert_eq!(said.verdict, Verdict::Degraded);
    assert_eq!(said.attribution.as_ref().unwrap().first(), Resource::Memory, "{:?}", said.attribution);
    assert!(said.pressure.own_cgroup);
}

#[test]
fn page_cache_at_its_limit_is_no_shortage() {
    let said = with_fault(&slower(3.0), |live| live.memory_limit_hits = Some(300));
    assert_eq!(said.attribution.as_ref().unwrap().first(), Resource::SoftwareOrDependency);
    assert!(!said.pressure.own_cgroup);
}

#[test]
fn a_cap_on_live_s_own_block_devices_is_the_cgroup_s_own() {
    let said = with_fault(&slower(5.0), |live| {
        live.io_pressure_seconds = Some(0.4);
        live.node_io_pressure_seconds = Some(0.42);
    });
    assert_eq!(said.attribution.as_ref().unwrap().first(), Resource::Storage, "{:?}", said.attribution);
    assert!(said.pressure.own_cgroup && !said.pressure.node);
}

#[test]
fn lost_segments_are_the_network() {
    let said = with_fault(&slower(3.0), |live| live.tcp_retransmits = Some(12));
    let attribution = said.attribution.unwrap();
    assert_eq!(attribution.first(), Resource::Network, "{attribution}");
    assert!(attribution.shares[0].evidence.contains("sent again"), "{attribution}");
    assert!(!said.pressure.own_cgroup);
}

#[test]
fn a_disk_hog_that_hurts_both_is_not_blamed_on_live() {
    // Live suffers more than its shadow, since it does more; of a busy disk it alone may fill the node's waiting, while
    // the shadow waits in the share of its sample.
    for (live_waits, shadow_waits, node_waits) in [(0.5, 0.4, 0.95), (0.9, 0.14, 0.92)] {
        let mut sim = Sim::new(ANSWERS, 5);
        run(&mut sim, 200, &CALM, |window| signals(window, |_| ()));
        let hog = Trouble { live: 5_f64.ln(), shadow: 2_f64.ln(), ..CALM };
        let mut last = None;
        for tick in 0..60 {
            let said = run(&mut sim, 1, &hog, |window| {
                signals(window, |_| ());
                let sides =
                    [(&mut window.live_signals, live_waits), (&mut window.shadow_signals, shadow_waits)];
                for (side, waits) in sides {
                    let side = side.as_mut().unwrap();
                    (side.io_pressure_seconds, side.node_io_pressure_seconds) =
                        (Some(waits), Some(node_waits));
                }
            });
            assert_ne!(said.verdict, Verdict::Degraded, "tick {tick}");
            last = Some(said);
        }
        let last = last.unwrap();
        assert_eq!(last.verdict, Verdict::BothDegraded);
        assert_eq!(last.attribution.unwrap().first(), Resource::Storage);
        assert!(!last.pressure.own_cgroup && last.pressure.node);
    }
}

#[test]
fn a_shadow_that_became_faster_makes_no_live_degraded() {
    let mut sim = healthy(1, 400);
    let faster = Trouble { shadow: -0.4, ..CALM };
    assert_eq!(sim.ticks_until(Verdict::Degraded, &faster, 200), None);
}

#[test]
fn what_is_acknowledged_is_normal_at_once_and_more_is_not() {
    let mut sim = healthy(1, 400);
    assert_eq!(sim.run(40, &slower(2.0)).verdict, Verdict::Degraded);
    sim.judge.acknowledge();
    assert_eq!(sim.step(&slower(2.0)).verdict, Verdict::Healthy);
    assert_eq!(sim.ticks_until(Verdict::Degraded, &slower(2.0), 300), None);
    assert!(sim.ticks_until(Verdict::Degraded, &slower(4.0), 20).is_some());
}

#[test]
fn failures_that_are_acknowledged_are_normal_and_more_are_not() {
    let mut sim = healthy(1, 400);
    let failing = |share: f64| Trouble { live_errors: share, ..CALM };
    assert_eq!(sim.run(20, &failing(0.1)).verdict, Verdict::Degraded);
    sim.judge.acknowledge();
    assert_eq!(sim.ticks_until(Verdict::Degraded, &failing(0.1), 300), None);
    assert!(sim.ticks_until(Verdict::Degraded, &failing(0.4), 20).is_some());
}

#[test]
fn a_rejected_alarm_takes_more_evidence_next_time_and_touches_no_data() {
    let mut sim = healthy(1, 400);
    sim.run(40, &slower(2.0));
    let before = serde_json::to_value(&sim.judge).unwrap();
    sim.judge.reject();
    let after = serde_json::to_value(&sim.judge).unwrap();
    let of = |value: &serde_json::Value, name: &str| value["streams"]["centre"][name].clone();
    for untouched in ["baseline", "noise", "recent", "sample_variance"] {
        assert_eq!(of(&before, untouched), of(&after, untouched), "{untouched}");
    }
    let threshold = |value: &serde_json::Value| of(value, "threshold").as_f64().unwrap();
    assert!((threshold(&after) / threshold(&before) - 10.0).abs() < 1e-9);
    for _ in 0..5 {
        sim.run(40, &slower(2.0));
        sim.judge.reject();
    }
    let last = serde_json::to_value(&sim.judge).unwrap();
    assert!((threshold(&last) / threshold(&before) - 1e3).abs() < 1e-6, "it can still alarm");
    assert!(sim.ticks_until(Verdict::Degraded, &slower(2.0), 40).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_live_and_host_do_each_stream_is_a_number_and_the_host_alone_never_degrades(
        ticks in prop::collection::vec((0.0..1.0_f64, 0.0..3.0_f64, prop::option::of(0..u64::MAX), 0..5000_u32), 30..90),
    ) {
        let mut sim = healthy(9, 60);
        for (waits, slow, offered, many) in ticks {
            let mut window = sim.window(&CALM);
            window.live_bursts = vec![burst(0.01 * slow.exp())];
            signals(&mut window, |live| {
                live.cpu_pressure_seconds = Some(waits);
                (live.refaults, live.tcp_retransmits) = (Some(u64::from(many)), Some(u64::from(many)));
            });
            let said = sim.judge.update(&window);
            prop_assert_ne!(said.verdict, Verdict::Degraded);
            window.live_side.offered = offered;
            (0..many / 100).for_each(|i| window.live_side.latency.record(f64::from(i) * 1e9 * slow));
            let mut judge = sim.judge.clone();
            for state in judge.update(&window).streams {
                prop_assert!(state.evidence.is_finite() && 0.0 <= state.evidence, "{:?}", state);
                prop_assert!(state.residual.is_none_or(f64::is_finite) && state.whitened.is_none_or(f64::is_finite));
            }
        }
    }
}
