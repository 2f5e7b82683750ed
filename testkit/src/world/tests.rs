use std::time::Duration;

use foreshadow_model::{
    ActionPolicy, ActionType, ComparePolicy, ForecastPolicy, GuardPolicy, HorizontalPolicy, KneePolicy,
    MirrorPolicy, Mode, OnExit, Policy, ProbePolicy, Ratio, VerticalPolicy,
};

use super::*;

fn ratio(value: f64) -> Ratio {
    Ratio::new(value).unwrap()
}

pub(crate) fn scenario(lives: u32, load: f64) -> Scenario {
    let node = |name: &str| NodeModel {
        name: NodeName::new(name).unwrap(),
        zone: None,
        cpu: MilliCpu::new(8000),
        memory: None,
    };
    Scenario {
        story: String::new(),
        seed: 7,
        lasts_seconds: 600.0,
        starts_unix_ms: 0,
        lives,
        resources: Resources { cpu: Some(MilliCpu::new(2500)), memory: None },
        nodes: vec![node("a"), node("b")],
        service: ServiceModel {
            workers: 4,
            seconds: 0.05,
            variation: 1.5,
            processor: 0.5,
            objective_seconds: 0.25,
            start_up_seconds: (20.0, 30.0),
        },
        load: LoadModel::Constant(PerSecond::new(load).unwrap()),
        faults: Vec::new(),
        expectations: Vec::new(),
        violation_minutes_most: None,
        policy: Policy {
            mode: Mode::Act,
            tick: Duration::from_secs(5),
            mirror: MirrorPolicy::default(),
            probe: ProbePolicy::default(),
            compare: ComparePolicy::default(),
            action: ActionPolicy {
                kind: ActionType::Auto,
                vertical: VerticalPolicy::default(),
                horizontal: HorizontalPolicy {
                    lives_min: 1,
                    lives_max: 9,
                    busy: ratio(0.8),
                    calm: ratio(0.3),
                    calm_for: Duration::from_secs(600),
                },
                guards: GuardPolicy {
                    cooldown: Duration::from_secs(60),
                    actions_per_hour: 12,
                    verify_after: Duration::from_secs(30),
                    rehearse_for: Duration::ZERO,
                    budget: None,
                },
            },
            forecast: ForecastPolicy::default(),
            knee: KneePolicy::default(),
            on_exit: OnExit::Stop,
        },
    }
}

fn world(scenario: &Scenario) -> World {
    World::new(scenario, (Vec::new(), 60.0))
}

fn steps(world: &mut World, n: usize) -> Sensed {
    (0..n).map(|_| world.step(5.0)).last().unwrap()
}

#[test]
fn the_same_seed_gives_the_same_world_and_another_one_another() {
    let told = |seed| {
        let mut world = world(&Scenario { seed, ..scenario(2, 60.0) });
        (0..50).map(|_| format!("{:?}", world.step(5.0))).collect::<Vec<_>>()
    };
    assert!(told(1) == told(1) && told(1) != told(2));
}

#[test]
fn a_live_takes_its_knee_and_no_more() {
    let hurt = |load| {
        let mut world = world(&scenario(2, load));
        (0..100).filter(|_| world.step(5.0).users.are_hurt).count()
    };
    assert_eq!(hurt(100.0), 0, "59 each are its knee");
    assert!(90 < hurt(150.0), "75 each are beyond it");
}

#[test]
fn new_lives_serve_when_they_are_up_and_have_shadows_on_another_node() {
    let mut world = world(&scenario(2, 150.0));
    assert!(steps(&mut world, 20).users.are_hurt);
    world.scale(3);
    assert!(!world.are_ready(None));
    steps(&mut world, 6);
    assert!(world.are_ready(None), "thirty seconds at most");
    assert!(!steps(&mut world, 10).users.are_hurt);
    for pair in world.inventory().pairs {
        assert_ne!(pair.shadow.unwrap().node, pair.live.node);
    }
    world.scale(1);
    assert_eq!(world.inventory().pairs.len(), 1);
}

#[test]
fn what_is_starved_is_throttled_and_slower_than_its_shadow() {
    let starve = FaultKind::Starve { live: InstanceId::live(1), to: MilliCpu::new(800) };
    let fault = Fault { at_seconds: 100.0, lasts_seconds: Some(100.0), kind: starve };
    let mut world = world(&Scenario { faults: vec![fault], ..scenario(2, 60.0) });
    world.set_rates([(InstanceId::live(1), SampleRate::ALL)].into());
    let told = |sensed: &Sensed| {
        let of = |id: &InstanceId| sensed.signals.iter().find(|(of, _)| of == id).unwrap().1.clone();
        let throttled = of(&InstanceId::live(1)).throttled_share().unwrap();
        (sensed.summary.as_ref().unwrap().upstreams[0].paired.mean().unwrap(), throttled)
    };
    let (before, throttled) = told(&steps(&mut world, 20));
    assert!(throttled < 0.01, "{throttled}");
    let sensed = steps(&mut world, 10);
    let (slow, throttled) = told(&sensed);
    assert!(before + 0.3 < slow && 0.5 < throttled, "{before} {slow} {throttled}");
    assert!(sensed.befell.is_empty());
    let after = (0..30).map(|_| world.step(5.0)).find(|sensed| !sensed.befell.is_empty()).unwrap();
    assert!(matches!(&after.befell[..], [(FaultKind::Starve { .. }, false)]), "{after:?}");
}

#[test]
fn a_day_is_busiest_when_it_is_said_to_be() {
    let load = LoadModel::Daily { mean: PerSecond::new(50.0).unwrap(), swing: ratio(0.5), peak_hour: 14.0 };
    let mut world = world(&Scenario { load, ..scenario(2, 0.0) });
    let loads: Vec<f64> = (0..288).map(|_| world.step(300.0).users.load).collect();
    let busiest = loads.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
    assert!((busiest as f64 / 12.0 - 14.0).abs() < 0.2 && (loads[busiest] - 75.0).abs() < 0.1);
}

#[test]
fn a_trace_goes_on_where_nothing_was_recorded() {
    let load = LoadModel::Trace { file: "x.csv".into(), most: PerSecond::new(80.0) };
    let scenario = Scenario { load, ..scenario(2, 0.0) };
    let mut world = World::new(&scenario, (vec![1.0, f64::NAN, 4.0], 60.0));
    let loads: Vec<f64> = (0..4).map(|_| world.step(60.0).users.load).collect();
    assert_eq!(loads, [20.0, 20.0, 80.0, 80.0]);
}

#[test]
fn without_a_live_every_request_fails() {
    let mut world = world(&scenario(1, 10.0));
    world.replace(&InstanceId::live(1), &NodeName::new("b").unwrap());
    let users = world.step(5.0).users;
    assert!(users.are_hurt && users.failed == 1.0);
    assert!(!steps(&mut world, 30).users.are_hurt);
    let pair = world.inventory().pairs.remove(0);
    assert_eq!((pair.live.node.as_str(), pair.shadow.unwrap().node.as_str()), ("b", "a"));
}
