use std::time::Duration;

use foreshadow_model::{
    EgressTarget, FlippedAlarms, Inconclusive, Instance, MilliCpu, NodeName, Phase, Pressure, Ratio, Role,
    SamplingNeed, Sensitivities, SideWindow, StreamStates, Tick,
};

use super::*;

/// One pair whose shadow takes so much, and what the mirror was told.
struct World {
    knees: Knees,
    policy: KneePolicy,
    inventory: Inventory,
    verdict: Verdict,
    own_delta: f64,
    capacity: f64,
    live_seconds: f64,
    /// Cores that live and shadow may use; `None` is all of them.
    limits: [Option<f64>; 2],
    /// Whether signals of the cgroups can be read.
    reads: bool,
    load: f64,
    is_quiet: bool,
    unix_ms: i64,
    events: Vec<String>,
}

const TICK_MS: i64 = 5000;

impl World {
    fn new() -> Self {
        let on = |id: InstanceId, role, node: &str| Instance {
            phase: Phase::Ready,
            pids: vec![7],
            ..Instance::new(id, role, NodeName::new(node).unwrap(), 1)
        };
        let live = on(InstanceId::live(1), Role::Live, "a");
        let shadow = Some(on(live.id.shadow_of(), Role::Shadow, "b"));
        Self {
            knees: Knees::default(),
            policy: KneePolicy { objective: Some(Duration::from_millis(250)), ..KneePolicy::default() },
            inventory: Inventory { pairs: vec![Pair { live, shadow }], ..Inventory::default() },
            verdict: Verdict::Healthy,
            own_delta: 0.0,
            capacity: 300.0,
            live_seconds: 0.04,
            limits: [Some(0.4); 2],
            reads: true,
            load: 0.0,
            is_quiet: true,
            unix_ms: 0,
            events: Vec::new(),
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "hundreds of requests")]
    fn side(load: f64, seconds: f64) -> SideWindow {
        let mut side = SideWindow { requests: (5.0 * load) as u64, ..SideWindow::default() };
        (0..side.requests).for_each(|_| side.latency.record(1e6 * seconds));
        side
    }

    fn window(&self) -> Window {
        const COPIES: f64 = 10.0;
        let load = self.load.max(COPIES);
        let busy = load / self.capacity;
        let seconds = if busy < 0.999 { 0.04 + 0.03 * busy * busy / (1.0 - busy) } else { 5.0 };
        let mut window = Window::unreported(Tick(1), InstanceId::live(1), 5.0);
        window.reported = true;
        window.sampled = 50;
        window.live_side = Self::side(100.0, self.live_seconds);
        window.shadow_side = Self::side(load.min(self.capacity), seconds);
        window.shadow = Some(InstanceId::live(1).shadow_of());
        let limited =
            |cores| self.reads.then(|| CgroupSignals { cpu_limit_cores: cores, ..CgroupSignals::default() });
        (window.live_signals, window.shadow_signals) = (limited(self.limits[0]), limited(self.limits[1]));
        window.shadow_side.offered = Self::side(load, 1.0).requests.into();
        window
    }

    fn assessment(&self) -> Assessment {
        let is_loaded = 0.0 < self.load;
        let verdict =
            if is_loaded { Verdict::Inconclusive(Inconclusive::CopiesDropped) } else { self.verdict };
        Assessment {
            tick: Tick(1),
            live: InstanceId::live(1),
            verdict,
            provisional: false,
            delta: None,
            carrier: None,
            own_delta: Ratio::new(self.own_delta),
            error_excess: None,
            evidence: 1.0,
            threshold: 1e4,
            streams: StreamStates::new(),
            false_alarms_per_day: 0.0,
            attribution: None,
            pressure: Pressure::default(),
            sampling: SamplingNeed::default(),
            load: None,
            overloaded: false,
            host: None,
            flipped: FlippedAlarms::default(),
            drift: None,
            sensitivities: Sensitivities::new(),
            e_value: 0.0,
            chosen: false,
        }
    }

    fn tick(&mut self) {
        let (windows, assessments) = ([self.window()], [self.assessment()]);
        self.knees.see(&self.inventory, &windows);
        let asked = self.knees.step(&Circumstances {
            inventory: &self.inventory,
            windows: &windows,
            assessments: &assessments,
            is_quiet: self.is_quiet,
            policy: &self.policy,
            tick_seconds: 5.0,
            unix_ms: self.unix_ms,
        });
        self.unix_ms += TICK_MS;
        if let Some(amplify) = asked.amplify {
            self.load = amplify.load;
        }
        if let Some(JournalEvent::Knee { outcome, .. }) = asked.event {
            self.events.push(outcome.to_string());
        }
    }

    /// So many ticks at most, until a ramp has ended; how many it took.
    fn until_ended(&mut self, ticks: usize) -> Option<usize> {
        let before = self.events.len();
        (1..=ticks).find(|_| {
            self.tick();
            before < self.events.len()
        })
    }

    fn known(&self) -> f64 {
        self.knees.row(&InstanceId::live(1), Some(&self.assessment())).map_or(0.0, |row| row.now.get())
    }
}

#[test]
fn the_knee_of_a_new_live_is_found_once_and_again_every_so_often() {
    let mut world = World::new();
    world.until_ended(200).unwrap();
    assert!((world.known() / 266.0 - 1.0).abs() < 0.05, "{:?}", world.events);
    assert!(world.load == 0.0 && !world.knees.is_busy());
    assert_eq!(world.until_ended(500), None, "it is known");
    world.unix_ms += 24 * 60 * 60 * 1000;
    let again = world.until_ended(200).unwrap();
    assert!(again < 70, "near the one before it is found sooner: {again} ticks");
}

#[test]
fn another_process_and_slower_sides_make_it_due() {
    let mut world = World::new();
    world.until_ended(200).unwrap();
    world.inventory.pairs[0].live.pids = vec![8];
    assert!(world.until_ended(200).is_some(), "a new process");
    (world.verdict, world.own_delta, world.capacity) = (Verdict::BothDegraded, 1.0 / 3.0, 225.0);
    let aged = world.known();
    assert!((aged / 200.0 - 1.0).abs() < 0.05, "at once it is less by what it is slower: {aged}");
    let ticks = world.until_ended(200).unwrap();
    assert!((world.known() / 200.0 - 1.0).abs() < 0.05, "confirmed after {ticks} ticks: {:?}", world.events);
    assert_eq!(world.until_ended(100), None, "what was slower then is in it");
}

#[test]
fn another_processor_limit_counts_at_once_and_is_confirmed_where_the_shadow_has_it_too() {
    let mut world = World::new();
    world.until_ended(200).unwrap();
    let before = world.known();
    (world.limits, world.capacity) = ([Some(0.3); 2], 225.0);
    world.tick();
    assert!((world.known() / before - 0.75).abs() < 1e-6, "at once: {} of {before}", world.known());
    world.reads = false;
    world.tick();
    assert!((world.known() / before - 0.75).abs() < 1e-6, "a tick without a reading is no good news");
    world.reads = true;
    let ticks = world.until_ended(200).unwrap();
    assert!(ticks < 70 && (world.known() / 200.0 - 1.0).abs() < 0.05, "{ticks} ticks: {:?}", world.events);
    assert_eq!(world.until_ended(200), None, "it is known");
    world.limits[0] = Some(0.15);
    assert_eq!(world.until_ended(100), None, "a shadow that may use more is no measure");
    assert!((world.known() / 200.0 - 0.5).abs() < 0.05);
    assert!(world.knees.waits()[&InstanceId::live(1)].contains("0.30 cores and its live 0.15"));
    let refused = world.knees.begin(&ByHand::default(), &world.inventory, &world.policy, 5.0);
    assert!(matches!(refused, Err(NotBegun::Refused(_))), "nor by hand: {refused:?}");
}

#[test]
fn no_limit_is_another_one_than_some_and_what_was_found_without_says_nothing_with() {
    let mut world = World::new();
    world.limits = [None; 2];
    world.until_ended(200).unwrap();
    assert!(200.0 < world.known());
    world.limits[0] = Some(0.5);
    world.tick();
    assert!(world.known() == 0.0, "how many cores it used nobody knows");
    assert_eq!(world.until_ended(100), None, "and its shadow may use all");
    assert!(world.knees.waits()[&InstanceId::live(1)].contains("all cores and its live 0.50"));
    world.limits[1] = Some(0.5);
    world.until_ended(200).unwrap();
    assert!(200.0 < world.known(), "{:?}", world.events);
}

#[test]
fn a_limit_that_changes_ends_a_ramp_and_one_that_always_does_loads_nobody_for_ever() {
    let mut world = World::new();
    while world.load < 40.0 {
        world.tick();
    }
    world.limits = [Some(0.3); 2];
    world.tick();
    assert!(world.load == 0.0 && world.events[0].contains("processor limit"), "{:?}", world.events);
    let mut world = World::new();
    world.until_ended(200).unwrap();
    let day = 24 * 60 * 60 * 1000 / TICK_MS;
    let is_busy = |tick: &i64| {
        if tick % 50 == 0 {
            world.limits = [Some(if tick % 100 == 0 { 0.3 } else { 0.4 }); 2];
        }
        world.tick();
        world.knees.is_busy()
    };
    let busy = (0..day).filter(is_busy).count();
    assert!(busy < usize::try_from(day / 2).unwrap(), "{busy} of {day} ticks");
}

#[test]
fn it_ends_at_once_when_something_else_is_going_on_and_then_rests() {
    let mut world = World::new();
    while world.load < 40.0 {
        world.tick();
    }
    world.is_quiet = false;
    world.tick();
    assert!(world.load == 0.0 && world.events[0].contains("something else"), "{:?}", world.events);
    world.is_quiet = true;
    (0..REST_MS / TICK_MS - 1).for_each(|_| world.tick());
    assert!(!world.knees.is_busy());
    (0..3).for_each(|_| world.tick());
    assert!(world.knees.is_busy(), "after ten minutes once more");
}

#[test]
fn it_ends_when_live_becomes_slower_or_anybody_sick() {
    let mut world = World::new();
    while world.load < 40.0 {
        world.tick();
    }
    world.live_seconds = 0.08;
    assert!(world.until_ended(4).is_some() && world.events[0].contains("live became slower"));
    assert!(world.load == 0.0 && world.known() == 0.0);
    let mut world = World::new();
    (0..10).for_each(|_| world.tick());
    world.verdict = Verdict::Degraded;
    world.load = 0.0;
    world.tick();
    assert!(world.events[0].contains("live-1 is degraded"), "{:?}", world.events);
}

#[test]
fn what_nobody_said_to_stand_it_is_not_loaded_nor_a_node_with_a_live() {
    let mut world = World::new();
    world.policy.spared = vec![EgressTarget { host: "db".into(), port: 5432 }];
    let why = |world: &mut World| {
        world.tick();
        assert!(!world.knees.is_busy());
        world.knees.waits()[&InstanceId::live(1)].clone()
    };
    assert!(why(&mut world).contains("db:5432"));
    let by_hand =
        |world: &mut World, asked: &ByHand| world.knees.begin(asked, &world.inventory, &world.policy, 5.0);
    let refused = by_hand(&mut world, &ByHand::default());
    assert!(matches!(refused, Err(NotBegun::Refused(_))), "{refused:?}");
    world.policy.spared.clear();
    world.inventory.pairs[0].shadow.as_mut().unwrap().node = NodeName::new("a").unwrap();
    assert!(why(&mut world).contains("beside live-1"));
    assert!(by_hand(&mut world, &ByHand::default()).is_err());
    let allowed = ByHand { shared_node: true, ..ByHand::default() };
    assert_eq!(by_hand(&mut world, &allowed), Ok(InstanceId::live(1)));
    assert_eq!(by_hand(&mut world, &allowed), Err(NotBegun::UnderWay(InstanceId::live(1))));
    let asked = world.knees.call_off("enough", 0);
    assert!(asked.amplify.is_some_and(|amplify| amplify.load == 0.0) && !world.knees.is_busy());
    world.policy.shared_node = true;
    world.unix_ms += REST_MS;
    (0..2).for_each(|_| world.tick());
    assert!(world.knees.is_busy());
}

#[test]
fn a_shadow_that_breaks_where_live_does_not_is_no_measure() {
    let mut world = World::new();
    world.capacity = 90.0;
    world.until_ended(200).unwrap();
    assert!(world.events[0].contains("no measure") && world.known() == 0.0, "{:?}", world.events);
}

#[test]
fn without_an_objective_it_is_looked_for_by_hand_only() {
    let mut world = World::new();
    world.policy.objective = None;
    assert_eq!(world.until_ended(100), None);
    let begin =
        |world: &mut World, asked: &ByHand| world.knees.begin(asked, &world.inventory, &world.policy, 5.0);
    assert_eq!(begin(&mut world, &ByHand::default()), Err(NotBegun::NoObjective));
    let other = ByHand { live: Some(InstanceId::live(9)), ..ByHand::default() };
    assert!(matches!(begin(&mut world, &other), Err(NotBegun::NoSuchLive(_))));
    begin(&mut world, &ByHand { objective_seconds: Some(0.25), ..ByHand::default() }).unwrap();
    assert!(world.until_ended(200).is_some() && 200.0 < world.known(), "{:?}", world.events);
    let file = "service: shop\nplatform:\n  type: local\n  local: { command: [serve] }\n";
    let mut policy = foreshadow_config::parse(file, std::path::Path::new("/srv")).unwrap().policy;
    let capacity = |world: &World, policy: &foreshadow_model::Policy| {
        world.knees.capacity((policy, world.unix_ms), &world.inventory, &[world.assessment()])
    };
    assert!(capacity(&world, &policy).is_some(), "where nobody says what is to be kept it counts");
    policy.knee.objective = Some(Duration::from_millis(100));
    assert_eq!(capacity(&world, &policy), None, "for something else to be kept it does not");
    world.policy.objective = policy.knee.objective;
    (0..2).for_each(|_| world.tick());
    assert!(world.knees.is_busy(), "and is looked for anew");
}

#[test]
fn a_live_beside_the_shadow_is_not_hurt_and_a_silent_mirror_ends_it() {
    let mut world = World::new();
    world.policy.shared_node = true;
    let other = Instance {
        phase: Phase::Ready,
        ..Instance::new(InstanceId::live(2), Role::Live, NodeName::new("b").unwrap(), 1)
    };
    world.inventory.pairs.push(Pair { live: other, shadow: None });
    let step = |world: &mut World, beside: f64, reported: bool| {
        let mut second = Window::unreported(Tick(1), InstanceId::live(2), 5.0);
        (second.reported, second.live_side) = (true, World::side(100.0, beside));
        let first = Window { reported, ..world.window() };
        let asked = world.knees.step(&Circumstances {
            inventory: &world.inventory,
            windows: &[first, second],
            assessments: &[world.assessment()],
            is_quiet: true,
            policy: &world.policy,
            tick_seconds: 5.0,
            unix_ms: world.unix_ms,
        });
        if let Some(amplify) = &asked.amplify {
            world.load = amplify.load;
        }
        asked
    };
    while world.load < 40.0 {
        let asked = step(&mut world, 0.02, true);
        assert!(asked.amplify.is_none_or(|amplify| amplify.idle == Some(true)), "only what is left over");
    }
    let ended = (0..3).map(|_| step(&mut world, 0.05, true)).find(|asked| asked.event.is_some()).unwrap();
    let Some(JournalEvent::Knee { outcome, .. }) = ended.event else { panic!("no end") };
    assert!(outcome.to_string().contains("live-2 beside the shadow became slower"), "{outcome}");
    assert_eq!(ended.amplify.map(|amplify| (amplify.load, amplify.idle)), Some((0.0, Some(false))));
    world.unix_ms += REST_MS;
    (0..12).for_each(|_| drop(step(&mut world, 0.02, true)));
    let ended = step(&mut world, 0.02, false);
    assert!(ended.event.is_some() && !world.knees.is_busy(), "{ended:?}");
}

#[test]
fn what_is_kept_goes_on_but_not_for_another_size() {
    let mut world = World::new();
    world.until_ended(200).unwrap();
    let bytes = serde_json::to_vec(&world.knees.known).unwrap();
    world.knees = Knees::restore(Some(&bytes));
    assert!(world.known() == 0.0, "how much of the processor it may use is not read yet");
    world.tick();
    assert!(200.0 < world.known());
    assert_eq!(world.until_ended(100), None);
    let file = "service: shop\nplatform:\n  type: local\n  local: { command: [serve] }\n";
    let policy = foreshadow_config::parse(file, std::path::Path::new("/srv")).unwrap().policy;
    let capacity = |world: &World| {
        world.knees.capacity((&policy, world.unix_ms), &world.inventory, &[world.assessment()])
    };
    assert!(200.0 < capacity(&world).unwrap().new_live.get());
    (world.inventory.pairs[0].live.resources.cpu, world.reads) = (Some(MilliCpu::new(200)), false);
    world.tick();
    let half = capacity(&world).unwrap().lives[&InstanceId::live(1)].get();
    assert!((half / 133.0 - 1.0).abs() < 0.05 && half == world.known(), "half of the processor: {half}");
    world.inventory.pairs[0].live.resources.memory = Some(foreshadow_model::Bytes::new(1 << 20));
    assert_eq!(capacity(&world), None, "of another size it says nothing");
    assert!(Knees::restore(Some(&b"garbage".to_vec())).known.is_empty());
}
