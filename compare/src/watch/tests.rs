use foreshadow_model::{BurstOutcome, Bytes, Instance, MilliCpu, NodeRoom, Pair, Role, ZoneName};
use proptest::prelude::*;

use super::null::surprise;
use super::*;

/// Processor, memory and storage of one side, as factors of their usual time.
#[derive(Clone, Copy)]
struct Side {
    processor: f64,
    memory: f64,
    storage: f64,
    waits: f64,
}

const CALM_SIDE: Side = Side { processor: 1.0, memory: 1.0, storage: 1.0, waits: 0.0 };

fn ran(kind: BurstKind, seconds: f64) -> Burst {
    Burst::new(
        kind,
        BurstOutcome::Ran {
            wall_seconds: seconds,
            cpu_seconds: seconds,
            score_per_second: 1.0 / seconds,
            operations: None,
        },
    )
}

fn window(tick: u64, live: Side, shadow: Side) -> Window {
    let mut window = Window::unreported(Tick(tick), InstanceId::live(1), 5.0);
    window.shadow = Some(InstanceId::live(1).shadow_of());
    // A wobble of 2 %, the same every time.
    let wobble = [1.0, 1.02, 0.99, 1.01, 0.98][(tick % 5) as usize];
    let bursts = |side: Side| {
        vec![
            ran(BurstKind::Processor, 0.005 * side.processor * wobble),
            ran(BurstKind::MemoryBandwidth, 0.008 * side.memory * wobble),
            ran(BurstKind::StorageRead, 0.003 * side.storage * wobble),
        ]
    };
    let signals = |side: Side| CgroupSignals {
        span_seconds: 5.0,
        io_pressure_seconds: Some(5.0 * side.waits),
        ..CgroupSignals::default()
    };
    (window.live_bursts, window.shadow_bursts) = (bursts(live), bursts(shadow));
    (window.live_signals, window.shadow_signals) = (Some(signals(live)), Some(signals(shadow)));
    window
}

/// What stands after `ticks` ticks like this, after a calm past.
fn after(ticks: u64, live: Side, shadow: Side) -> Option<HostFinding> {
    let mut watch = HostWatch::default();
    for tick in 0..40 {
        assert_eq!(watch.observe(&window(tick, CALM_SIDE, CALM_SIDE), true, false), None, "tick {tick}");
    }
    (40..40 + ticks).map(|tick| watch.observe(&window(tick, live, shadow), true, false)).last().flatten()
}

#[test]
fn the_tail_agrees_with_tables_of_student() {
    // P(T₃ > z) for z = 1, 2.353, 5.841, 10.215: 0.1955, 0.05, 0.005, 0.001.
    for (z, p) in [(1.0, 0.195_5), (2.353, 0.05), (5.841, 0.005), (10.215, 0.001)] {
        assert!((surprise(z) + f64::ln(p)).abs() < 2e-3, "{z}: {}", surprise(z));
    }
    assert!((surprise(30.1) - surprise(29.9)).abs() < 0.05, "no step where the formula changes");
    assert!((surprise(-1.0) - std::f64::consts::LN_2).abs() < 1e-12, "better is no surprise");
}

#[test]
fn a_resource_that_is_taken_away_is_found_in_three_ticks() {
    let cases = [
        (Side { processor: 2.3, ..CALM_SIDE }, Resource::Cpu),
        (Side { memory: 1.7, ..CALM_SIDE }, Resource::Memory),
        (Side { storage: 8.0, waits: 0.2, ..CALM_SIDE }, Resource::Storage),
    ];
    for (side, resource) in cases {
        let found = after(3, side, CALM_SIDE).unwrap();
        assert_eq!((found.resource, found.scope), (resource, HostScope::Live), "{found}");
        assert!(found.to_string().contains("its shadow is as before"), "{found}");
    }
}

#[test]
fn a_new_shadow_leaves_live_its_past_and_has_none_itself() {
    let mut watch = HostWatch::default();
    for tick in 0..40 {
        assert_eq!(watch.observe(&window(tick, CALM_SIDE, CALM_SIDE), true, false), None);
    }
    watch.renew_shadow();
    let side = Side { storage: 8.0, waits: 0.2, ..CALM_SIDE };
    let found = (40..43).map(|tick| watch.observe(&window(tick, side, CALM_SIDE), true, false)).last();
    let found = found.flatten().unwrap();
    assert_eq!((found.resource, found.scope), (Resource::Storage, HostScope::Unknown), "{found}");
}

#[test]
fn what_the_shadow_shows_too_is_shared() {
    let side = Side { storage: 8.0, waits: 0.2, ..CALM_SIDE };
    assert_eq!(after(3, side, side).unwrap().scope, HostScope::Shared);
}

#[test]
fn a_sixth_more_is_nobody_s_business_however_long() {
    assert_eq!(after(500, Side { processor: 1.17, ..CALM_SIDE }, CALM_SIDE), None);
}

#[test]
fn one_outlier_is_no_finding() {
    assert_eq!(after(1, Side { processor: 50.0, ..CALM_SIDE }, CALM_SIDE), None);
}

#[test]
fn without_a_processor_the_disk_is_not_blamed() {
    // Every test takes longer, and nothing waits for the disk.
    let found = after(3, Side { processor: 2.5, storage: 30.0, ..CALM_SIDE }, CALM_SIDE).unwrap();
    assert_eq!(found.resource, Resource::Cpu, "{found}");
}

#[test]
fn tests_that_cannot_run_are_found() {
    let mut watch = HostWatch::default();
    (0..40).for_each(|tick| drop(watch.observe(&window(tick, CALM_SIDE, CALM_SIDE), true, false)));
    let mut found = None;
    for tick in 40..43 {
        let mut window = window(tick, CALM_SIDE, CALM_SIDE);
        let reason = "storage is waited for".to_owned();
        window.live_bursts[2] = Burst::new(BurstKind::StorageRead, BurstOutcome::BackedOff { reason });
        found = watch.observe(&window, true, false);
    }
    let found = found.unwrap();
    assert_eq!(found.resource, Resource::Storage);
    assert!(found.words.contains("could not run"), "{found}");
}

#[test]
fn it_is_over_soon_after_its_cause() {
    let mut watch = HostWatch::default();
    let sick = Side { processor: 3.0, ..CALM_SIDE };
    (0..40).for_each(|tick| drop(watch.observe(&window(tick, CALM_SIDE, CALM_SIDE), true, false)));
    (40..80).for_each(|tick| drop(watch.observe(&window(tick, sick, CALM_SIDE), true, false)));
    let over =
        (80..120).find(|&tick| watch.observe(&window(tick, CALM_SIDE, CALM_SIDE), true, false).is_none());
    assert!(over.is_some_and(|tick| tick < 95), "{over:?}");
}

#[test]
fn a_regime_that_hurts_nobody_is_the_new_past_and_one_that_hurts_is_not() {
    let sick = Side { processor: 3.0, ..CALM_SIDE };
    for hurts in [false, true] {
        let mut watch = HostWatch::default();
        (0..40).for_each(|tick| drop(watch.observe(&window(tick, CALM_SIDE, CALM_SIDE), true, false)));
        let last = (40..900).map(|tick| watch.observe(&window(tick, sick, CALM_SIDE), true, hurts)).last();
        assert_eq!(last.flatten().is_some(), hurts);
    }
}

#[test]
fn two_lives_of_a_node_are_an_event_of_the_node() {
    let finding = after(3, Side { processor: 2.3, ..CALM_SIDE }, CALM_SIDE).unwrap();
    let node = |name| NodeName::new(name).unwrap();
    let of = |live, on| (InstanceId::live(live), node(on), finding.clone());
    assert!(node_events(&[of(1, "a"), of(2, "b")]).is_empty());
    let events = node_events(&[of(1, "a"), of(2, "b"), of(3, "a")]);
    let [event] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((event.node.clone(), event.resource), (node("a"), Resource::Cpu));
    assert_eq!(event.instances, [InstanceId::live(1), InstanceId::live(3)]);
}

#[test]
fn two_nodes_of_a_zone_are_an_event_of_the_zone() {
    let worse = Side { processor: 2.3, ..CALM_SIDE };
    let finding = after(3, worse, CALM_SIDE).unwrap();
    let node = |name: &str| NodeName::new(name).unwrap();
    let room = |name| NodeRoom {
        name: node(name),
        zone: Some(ZoneName::new("cellar").unwrap()),
        cpu: MilliCpu::new(1000),
        cpu_promised: MilliCpu::new(0),
        memory: None,
        memory_promised: Bytes::new(0),
    };
    let pair = |n, on| {
        let live = Instance::new(InstanceId::live(n), Role::Live, node(on), 1);
        Pair { live, shadow: None }
    };
    let pairs = vec![pair(1, "a"), pair(2, "b")];
    let inventory = Inventory { nodes: vec![room("a"), room("b")], pairs, ..Inventory::default() };
    let of =
        |live, on, resource| (InstanceId::live(live), node(on), HostFinding { resource, ..finding.clone() });
    let apart = [of(1, "a", Resource::Cpu), of(2, "b", Resource::Storage)];
    assert!(zone_events(&apart, &inventory).is_empty(), "not the same resource");
    let together = [of(1, "a", Resource::Cpu), of(2, "b", Resource::Cpu), of(3, "c", Resource::Cpu)];
    let events = zone_events(&together, &inventory);
    let [event] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((event.resource, event.nodes.clone()), (Resource::Cpu, vec![node("a"), node("b")]));
    assert_eq!(event.instances, [InstanceId::live(1), InstanceId::live(2)]);
}

#[test]
fn a_shadow_that_shows_nothing_tells_nothing() {
    let mut watch = HostWatch::default();
    let blind = |tick, live| {
        let mut window = window(tick, live, CALM_SIDE);
        (window.shadow_bursts, window.shadow_signals) = (Vec::new(), None);
        window
    };
    (0..40).for_each(|tick| drop(watch.observe(&blind(tick, CALM_SIDE), true, false)));
    let sick = Side { processor: 3.0, ..CALM_SIDE };
    let found = (40..44).map(|tick| watch.observe(&blind(tick, sick), true, false)).last().flatten().unwrap();
    assert_eq!(found.scope, HostScope::Unknown, "{found}");
}

#[test]
fn one_tick_at_the_memory_limit_is_no_finding() {
    let mut watch = HostWatch::default();
    let hits = |tick, hits| {
        let mut window = window(tick, CALM_SIDE, CALM_SIDE);
        window.live_signals.as_mut().unwrap().memory_limit_hits = Some(hits);
        window
    };
    (0..40).for_each(|tick| drop(watch.observe(&hits(tick, 0), true, false)));
    assert_eq!(watch.observe(&hits(40, 100_000), true, false), None, "a backup read its files once");
    assert_eq!(watch.observe(&hits(41, 0), true, false), None);
}

/// A machine whose bursts are as they were measured: a few percent of noise, and three in a thousand three times as long.
#[test]
fn healthy_days_raise_hardly_anything() {
    let mut state = 7_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(state >> 33).unwrap()) / f64::from(u32::MAX >> 1)
    };
    let mut noisy = || {
        let tremble = 1.0 + 0.03 * (uniform() + uniform() + uniform() - 1.5);
        if uniform() < 0.003 { 3.0 * tremble } else { tremble }
    };
    let (mut watch, mut stood, mut alarms) = (HostWatch::default(), false, 0);
    const DAYS: u64 = 5;
    for tick in 0..DAYS * 17_280 {
        let mut side = || Side { processor: noisy(), memory: noisy(), storage: noisy(), waits: 0.0 };
        let (live, shadow) = (side(), side());
        let found = watch.observe(&window(tick, live, shadow), true, false).is_some();
        alarms += u32::from(found && !stood);
        stood = found;
    }
    assert!(alarms <= 2, "{alarms} in {DAYS} healthy days; one a day is the promise");
}

proptest! {
    #[test]
    fn odd_values_never_panic_and_blame_nobody_alone(factors in prop::collection::vec(prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(0.0), 0.9..1.1], 60)) {
        let mut watch = HostWatch::default();
        for (tick, factor) in (0..).zip(factors) {
            let side = Side { processor: factor, memory: factor, ..CALM_SIDE };
            // What is no number is no value, and what both show alike is never live's alone.
            let found = watch.observe(&window(tick, side, side), true, false);
            prop_assert!(found.is_none_or(|found| found.scope == HostScope::Shared));
        }
    }
}
