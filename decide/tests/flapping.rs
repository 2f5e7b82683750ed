//! Nothing that is seen makes foreshadow go back and forth, and no number leaves its bounds.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::collections::BTreeMap;
use std::time::Duration;

use foreshadow_decide::{Inputs, Usage, capacity, plan};
use foreshadow_model::{
    Action, ActionId, ActionKind, ActionPolicy, ActionType, Assessment, ComparePolicy, Decision, Effect,
    Estimate, FlippedAlarms, Forecast, ForecastPolicy, Generation, GuardPolicy, HorizontalPolicy,
    Inconclusive, Instance, InstanceId, Inventory, KneePolicy, Ledger, MilliCpu, MirrorPolicy, Mode,
    NodeName, NodeRoom, OnExit, Pair, PerSecond, Phase, Policy, Pressure, ProbePolicy, Ratio, Resources,
    Role, SamplingNeed, Sensitivities, StreamStates, Taken, Tick, Verdict, VerticalPolicy, Weight,
};
use proptest::prelude::*;

const TICK: Duration = Duration::from_secs(5);
const CALM_FOR: u64 = 60;
const COOLDOWN: u64 = 12;
const PER_HOUR: usize = 12;
const HOUR: u64 = 720;
const LIVES: std::ops::RangeInclusive<u32> = 1..=6;

/// What one tick looks like, of every live and of the service.
#[derive(Clone, Debug)]
struct Moment {
    lives: Vec<(u8, f64, f64, f64)>,
    load: f64,
    upper: f64,
    effect: u8,
    lasts: u64,
}

/// Half of the moments are calm but for what is foreseen: those are when lives are ended.
fn moment() -> impl Strategy<Value = Moment> {
    let calm = (prop_oneof![Just(10.0), Just(350.0)], 1_u64..150).prop_map(|(upper, lasts)| Moment {
        lives: vec![(9, 0.0, 0.0, 0.1); 6],
        load: 10.0,
        upper,
        effect: 3,
        lasts,
    });
    prop_oneof![calm, wild()]
}

fn wild() -> impl Strategy<Value = Moment> {
    let number = prop_oneof![-2.0_f64..5.0, Just(f64::MAX), Just(0.0), Just(1e-300)];
    let load = prop_oneof![0.0_f64..900.0, Just(0.0), Just(f64::MAX), Just(1e-300)];
    let live = (0_u8..9, number.clone(), number, 0.0_f64..1.2);
    (prop::collection::vec(live, 6), load.clone(), load, 0_u8..4, 1_u64..80)
        .prop_map(|(lives, load, upper, effect, lasts)| Moment { lives, load, upper, effect, lasts })
}

fn ratio(value: f64) -> Ratio {
    Ratio::new(value).unwrap_or(Ratio::ZERO)
}

fn policy() -> Policy {
    Policy {
        mode: Mode::Act,
        tick: TICK,
        mirror: MirrorPolicy::default(),
        probe: ProbePolicy::default(),
        compare: ComparePolicy::default(),
        action: ActionPolicy {
            kind: ActionType::Auto,
            vertical: VerticalPolicy {
                cpu_sizes: [500, 750, 1000].map(MilliCpu::new).to_vec(),
                memory_sizes: Vec::new(),
            },
            horizontal: HorizontalPolicy {
                lives_min: *LIVES.start(),
                lives_max: *LIVES.end(),
                busy: ratio(0.8),
                calm: ratio(0.3),
                calm_for: TICK * u32::try_from(CALM_FOR).unwrap(),
            },
            guards: GuardPolicy {
                cooldown: TICK * u32::try_from(COOLDOWN).unwrap(),
                actions_per_hour: u32::try_from(PER_HOUR).unwrap(),
                verify_after: Duration::from_secs(30),
                rehearse_for: Duration::from_secs(30),
                budget: None,
            },
        },
        forecast: ForecastPolicy { capacity: PerSecond::new(100.0), ..ForecastPolicy::default() },
        knee: KneePolicy::default(),
        on_exit: OnExit::Stop,
    }
}

fn assessment(live: InstanceId, tick: Tick, (word, delta, errors, _): (u8, f64, f64, f64)) -> Assessment {
    let verdict = match word {
        0 => Verdict::Degraded,
        1 => Verdict::BothDegraded,
        2 => Verdict::ShadowSuspect,
        3 => Verdict::Warn,
        4 => Verdict::Inconclusive(Inconclusive::TooFewSamples),
        _ => Verdict::Healthy,
    };
    let delta = ratio(delta.max(-0.99));
    Assessment {
        tick,
        live,
        verdict,
        provisional: false,
        delta: Some(Estimate { delta, low: delta, high: delta }),
        carrier: None,
        own_delta: Some(delta),
        error_excess: Some(ratio(errors)),
        evidence: 1e6,
        threshold: 1e4,
        streams: StreamStates::new(),
        false_alarms_per_day: 0.0,
        attribution: None,
        pressure: Pressure { own_cgroup: word == 0, node: word == 7 },
        sampling: SamplingNeed::default(),
        load: None,
        overloaded: word == 8,
        host: None,
        flipped: FlippedAlarms::default(),
        drift: None,
        sensitivities: Sensitivities::new(),
        e_value: 100.0,
        chosen: true,
    }
}

/// The service as the actions left it.
struct World {
    lives: u32,
    sizes: BTreeMap<InstanceId, MilliCpu>,
    nodes: BTreeMap<InstanceId, NodeName>,
    weights: BTreeMap<InstanceId, Weight>,
    ledger: Ledger,
}

impl World {
    fn inventory(&self) -> Inventory {
        let node = |name: &str| NodeRoom {
            name: NodeName::new(name).unwrap(),
            zone: None,
            cpu: MilliCpu::new(16_000),
            cpu_promised: MilliCpu::new(2000),
            memory: None,
            memory_promised: foreshadow_model::Bytes::mebi(0),
        };
        let pair = |number| {
            let id = InstanceId::live(number);
            let on = self.nodes.get(&id).cloned().unwrap_or_else(|| NodeName::new("a").unwrap());
            let cpu = self.sizes.get(&id).copied().unwrap_or(MilliCpu::new(500));
            let made = |id, role| Instance {
                phase: Phase::Ready,
                resources: Resources { cpu: Some(cpu), memory: None },
                ..Instance::new(id, role, on.clone(), 1)
            };
            Pair { live: made(id.clone(), Role::Live), shadow: Some(made(id.shadow_of(), Role::Shadow)) }
        };
        Inventory {
            pairs: (1..=self.lives).map(pair).collect(),
            nodes: vec![node("a"), node("b")],
            ..Inventory::default()
        }
    }

    fn apply(&mut self, action: &Action) {
        match action.clone() {
            Action::Resize { instance, to, .. } => drop(self.sizes.insert(instance, to.unwrap())),
            Action::Scale { to, .. } => {
                self.lives = to;
                self.weights.retain(|live, _| live.number().is_some_and(|number| number <= to));
            }
            Action::Shift { instance, to, .. } => drop(self.weights.insert(instance, to)),
            Action::Replace { instance, to, .. } => {
                self.weights.insert(instance.clone(), Weight::FULL);
                self.nodes.insert(instance, to);
            }
            Action::ResizeMemory { .. } | Action::RecreateShadow { .. } => {}
        }
    }
}

fn check_all(taken: &[(u64, Action)]) -> Result<(), TestCaseError> {
    let touching: Vec<_> = taken.iter().filter(|(_, action)| action.kind() != ActionKind::Shadow).collect();
    for (n, (at, action)) in touching.iter().enumerate() {
        let within_hour = touching[..n].iter().filter(|(before, _)| at - before < HOUR).count();
        prop_assert!(within_hour < PER_HOUR, "{within_hour} actions within the hour before {action}");
        let last = touching[..n].iter().rev().find(|(_, other)| other.instance() == action.instance());
        if let Some((before, other)) = last {
            prop_assert!(COOLDOWN <= at - before, "{other} at {before}, {action} at {at}");
        }
        let Action::Scale { from, to } = action else { continue };
        prop_assert!(LIVES.contains(to) && from != to, "{action}");
        if to < from {
            prop_assert!(from - to == 1, "{action}");
            let more =
                |(_, other): &&&(u64, Action)| matches!(other, Action::Scale { from, to } if from < to);
            if let Some((before, other)) = touching[..n].iter().rev().find(more) {
                prop_assert!(CALM_FOR <= at - before, "{other} at {before}, {action} at {at}");
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn whatever_is_seen_actions_keep_their_distance_and_their_bounds(moments in prop::collection::vec(moment(), 1..40)) {
        let policy = policy();
        let mut world = World {
            lives: 2,
            sizes: BTreeMap::new(),
            nodes: BTreeMap::new(),
            weights: BTreeMap::new(),
            ledger: Ledger::default(),
        };
        let (mut tick, mut calm_ticks, mut next, mut taken) = (0, 0, 1, Vec::new());
        for moment in &moments {
            for _ in 0..moment.lasts {
                tick += 1;
                let inventory = world.inventory();
                let assessments: Vec<Assessment> = inventory
                    .pairs
                    .iter()
                    .zip(&moment.lives)
                    .map(|(pair, seen)| assessment(pair.live.id.clone(), Tick(tick), *seen))
                    .collect();
                let used = |(pair, seen): (&Pair, &(u8, f64, f64, f64))| {
                    (pair.live.id.clone(), Usage { cores: seen.3 / 2.0, cores_max: 0.5, waiting: seen.3 })
                };
                let usage: BTreeMap<_, _> = inventory.pairs.iter().zip(&moment.lives).map(used).collect();
                let forecast = PerSecond::new(moment.upper).map(|upper| Forecast {
                    lead_seconds: 20.0, mean: upper, upper, quantile: ratio(0.9), minutes: 60,
                });
                let capacity = capacity(&policy, &BTreeMap::new(), &inventory, &assessments);
                world.ledger.forget(Tick(tick), &policy);
                let inputs = Inputs {
                    tick: Tick(tick),
                    generation: Generation(tick),
                    next_id: ActionId(next),
                    inventory: &inventory,
                    assessments: &assessments,
                    weights: &world.weights,
                    usage: &usage,
                    load: PerSecond::new(moment.load),
                    forecast: forecast.as_ref(),
                    capacity: capacity.as_ref(),
                    calm_ticks,
                    ledger: &world.ledger,
                    policy: &policy,
                };
                calm_ticks = if inputs.is_calm() { calm_ticks + 1 } else { 0 };
                let decisions = plan(&inputs).decisions;
                for decision in decisions {
                    let Decision::Act(step) = decision else { continue };
                    // The plan of one tick may name more than the budget has left; the guard asks once more, as it does in `act`.
                    if world.ledger.refusal(&step.action, Tick(tick), &policy).is_some() {
                        continue;
                    }
                    prop_assert!(step.shift_log.is_finite() && step.error_excess.is_finite());
                    let delta = ratio(0.5);
                    let effect = match moment.effect {
                        0 => Effect::Helped { before: delta, after: Ratio::ZERO },
                        1 => Effect::DidNotHelp { before: delta, after: Some(delta) },
                        2 => Effect::Failed { error: "disk on fire".into() },
                        _ => Effect::Done,
                    };
                    world.apply(&step.action);
                    taken.push((tick, step.action.clone()));
                    world.ledger.taken.push(Taken {
                        id: step.id,
                        tick: Tick(tick),
                        action: step.action,
                        effect: Some(effect),
                        settled: Some(Tick(tick)),
                    });
                    next = step.id.0 + 1;
                }
            }
        }
        check_all(&taken)?;
    }
}
