//! What `decide` does with a story. Each file under `scenarios/` is one, readable by an operator; `expect` holds the
//! decisions as `foreshadow plan` prints them.

#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use foreshadow_decide::{Inputs, Usage, capacity, plan};
use foreshadow_model::{
    Action, ActionId, ActionPolicy, ActionType, Assessment, Attribution, Budget, Bytes, ComparePolicy,
    Decision, Effect, Estimate, FlippedAlarms, Forecast, ForecastPolicy, Generation, GuardPolicy,
    HorizontalPolicy, Inconclusive, Instance, InstanceId, Inventory, KneePolicy, Ledger, MilliCpu,
    MirrorPolicy, Mode, NodeName, NodeRoom, OnExit, Pair, PerSecond, Phase, Policy, Pressure, ProbePolicy,
    Ratio, Resource, Resources, Role, SamplingNeed, Sensitivities, ShadowLimit, Share, Stream, StreamState,
    Taken, Tick, Verdict, VerticalPolicy, Weight,
};
use serde::Deserialize;

/// Now, in every story; "ticks ago" counts back from here.
const NOW: u64 = 10_000;

/// The stream of failures as a live shows it: those who wait for an answer say nothing until they are given up.
fn failing(share: f64) -> StreamState {
    StreamState {
        stream: Stream::Errors,
        evidence: 1e6 * share,
        cusum: 1e6 * share,
        residual: None,
        whitened: None,
        raised: 0.0 < share,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Story {
    story: String,
    #[serde(default)]
    policy: StoryPolicy,
    lives: Vec<Live>,
    #[serde(default)]
    paused: bool,
    #[serde(default)]
    taken: Vec<Before>,
    #[serde(default)]
    calm_ticks: u64,
    /// Requests per second that are expected at most.
    #[serde(default)]
    foreseen: Option<f64>,
    /// Requests per second that all lives are asked.
    #[serde(default)]
    load: Option<f64>,
    /// Nobody reports what they are asked.
    #[serde(default)]
    silent: bool,
    #[serde(default)]
    maintenance: bool,
    expect: Vec<String>,
    /// What else was weighed for the first decision, and why it lost; not looked at while absent.
    #[serde(default)]
    alternatives: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct StoryPolicy {
    mode: Mode,
    r#type: ActionType,
    sizes: Vec<u32>,
    lives_min: u32,
    lives_max: u32,
    /// Requests per second one live can take.
    capacity: Option<f64>,
    /// Ticks for which a step is tried on the shadow first.
    rehearse: u32,
    /// What all lives may cost in an hour; one costs 1.
    budget: Option<f64>,
}

impl Default for StoryPolicy {
    fn default() -> Self {
        Self {
            mode: Mode::Act,
            r#type: ActionType::Auto,
            sizes: vec![500, 750, 1000],
            lives_min: 2,
            lives_max: 4,
            capacity: None,
            rehearse: 0,
            budget: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Live {
    verdict: String,
    #[serde(default)]
    delta: Option<f64>,
    /// Upper end of the interval of `delta`; the same as it while absent.
    #[serde(default)]
    delta_at_most: Option<f64>,
    #[serde(default)]
    errors: Option<f64>,
    /// `own` or `node`.
    #[serde(default)]
    short: Option<String>,
    #[serde(default = "usual_limit")]
    cpu: Option<u32>,
    /// The limit of its shadow; the same as its own while absent.
    #[serde(default)]
    shadow_cpu: Option<u32>,
    #[serde(default)]
    used: f64,
    /// Share of the time in which tasks waited for a processor.
    #[serde(default)]
    waiting: f64,
    /// The node it stands on; one of its own while absent.
    #[serde(default)]
    node: Option<String>,
    #[serde(default = "usual_weight")]
    weight: u16,
    /// The resource its shift comes from.
    #[serde(default)]
    because: Option<Resource>,
    #[serde(default)]
    overloaded: bool,
    /// Memory on its node that is promised to nobody, in MiB.
    #[serde(default = "usual_memory_room")]
    memory_room: u64,
    /// Its memory limit in MiB.
    #[serde(default)]
    memory: Option<u64>,
    /// Processor time on its node that is promised to nobody.
    #[serde(default = "usual_room")]
    room: u32,
}

fn usual_limit() -> Option<u32> {
    Some(500)
}
fn usual_weight() -> u16 {
    100
}
fn usual_room() -> u32 {
    1000
}

fn usual_memory_room() -> u64 {
    1000
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Before {
    kind: String,
    #[serde(default = "first")]
    live: u32,
    ticks_ago: u64,
    /// `helped`, `vain`, `takenBack` by the operator, or absent while it is under way.
    #[serde(default)]
    effect: Option<String>,
}

fn first() -> u32 {
    1
}

fn ratio(value: f64) -> Ratio {
    Ratio::new(value).unwrap()
}

fn verdict(word: &str) -> Verdict {
    match word {
        "calibrating" => Verdict::Calibrating,
        "healthy" => Verdict::Healthy,
        "warn" => Verdict::Warn,
        "degraded" => Verdict::Degraded,
        "bothDegraded" => Verdict::BothDegraded,
        "shadowSuspect" => Verdict::ShadowSuspect,
        "tooFewSamples" => Verdict::Inconclusive(Inconclusive::TooFewSamples),
        "loadOutOfRange" => Verdict::Inconclusive(Inconclusive::LoadOutOfRange),
        "copiesDropped" => Verdict::Inconclusive(Inconclusive::CopiesDropped),
        other => panic!("unknown verdict `{other}`"),
    }
}

fn policy(story: &StoryPolicy) -> Policy {
    Policy {
        mode: story.mode,
        tick: Duration::from_secs(5),
        mirror: MirrorPolicy::default(),
        probe: ProbePolicy::default(),
        compare: ComparePolicy::default(),
        action: ActionPolicy {
            kind: story.r#type,
            vertical: VerticalPolicy {
                cpu_sizes: story.sizes.iter().map(|&size| MilliCpu::new(size)).collect(),
                memory_sizes: [64, 96, 128].map(Bytes::mebi).to_vec(),
            },
            horizontal: HorizontalPolicy {
                lives_min: story.lives_min,
                lives_max: story.lives_max,
                busy: ratio(0.8),
                calm: ratio(0.3),
                calm_for: Duration::from_secs(600),
            },
            guards: GuardPolicy {
                cooldown: Duration::from_secs(60),
                actions_per_hour: 5,
                verify_after: Duration::from_secs(30),
                rehearse_for: Duration::from_secs(5) * story.rehearse,
                budget: story.budget.map(|per_hour| Budget {
                    per_hour,
                    live_per_hour: 1.0,
                    shadow_per_hour: 0.0,
                    shadow_ratio: ratio(1.0),
                }),
            },
        },
        forecast: ForecastPolicy {
            capacity: story.capacity.and_then(PerSecond::new),
            ..ForecastPolicy::default()
        },
        knee: KneePolicy::default(),
        on_exit: OnExit::Stop,
    }
}

fn instance(id: InstanceId, role: Role, node: &NodeName, live: &Live) -> Instance {
    Instance {
        phase: Phase::Ready,
        resources: Resources { cpu: live.cpu.map(MilliCpu::new), memory: live.memory.map(Bytes::mebi) },
        pids: vec![1],
        ready_after_seconds: Some(1.0),
        revision: 1,
        ..Instance::new(id, role, node.clone(), 1)
    }
}

fn inventory(lives: &[Live]) -> Inventory {
    let mut inventory = Inventory::default();
    for (number, live) in (1..).zip(lives) {
        let own = format!("n{number}");
        let (id, node) = (InstanceId::live(number), NodeName::new(live.node.clone().unwrap_or(own)).unwrap());
        let room = NodeRoom {
            name: node.clone(),
            zone: None,
            cpu: MilliCpu::new(live.room + 4000),
            cpu_promised: MilliCpu::new(4000),
            memory: Some(Bytes::mebi(1000 + live.memory_room)),
            memory_promised: Bytes::mebi(1000),
        };
        if inventory.room(&node).is_none() {
            inventory.nodes.push(room);
        }
        let mut shadow = instance(id.shadow_of(), Role::Shadow, &node, live);
        shadow.resources.cpu = live.shadow_cpu.map(MilliCpu::new).or(shadow.resources.cpu);
        inventory.pairs.push(Pair { live: instance(id, Role::Live, &node, live), shadow: Some(shadow) });
    }
    inventory
}

fn assessment(number: u32, live: &Live) -> Assessment {
    let short = |what| live.short.as_deref() == Some(what);
    let estimate = |delta: f64| Estimate {
        delta: ratio(delta),
        low: ratio(delta - 0.05),
        high: ratio(live.delta_at_most.unwrap_or(delta)),
    };
    Assessment {
        tick: Tick(NOW),
        live: InstanceId::live(number),
        verdict: verdict(&live.verdict),
        provisional: false,
        delta: live.delta.map(estimate),
        carrier: None,
        own_delta: live.delta.map(ratio),
        error_excess: live.errors.map(ratio),
        evidence: 1e6,
        threshold: 1e4,
        streams: live.errors.map(failing).into_iter().collect(),
        false_alarms_per_day: 1.7,
        attribution: live.because.map(|resource| Attribution {
            shares: vec![Share {
                resource,
                share: 0.9,
                shift_log: 0.5,
                evidence: String::new(),
                factor: None,
                sensitivity: None,
            }],
        }),
        pressure: Pressure { own_cgroup: short("own"), node: short("node") },
        sampling: SamplingNeed::default(),
        load: live.overloaded.then_some(2.5),
        overloaded: live.overloaded,
        host: None,
        flipped: FlippedAlarms::default(),
        drift: None,
        sensitivities: Sensitivities::new(),
        e_value: 100.0,
        chosen: true,
    }
}

fn taken(number: u64, before: &Before) -> Taken {
    let instance = InstanceId::live(before.live);
    let cpu = |milli| Some(MilliCpu::new(milli));
    let action = match before.kind.as_str() {
        "vertical" => Action::Resize { instance, from: cpu(500), to: cpu(750), shadow: None },
        "shift" => Action::Shift { instance, from: Weight::FULL, to: Weight::new(50) },
        "eject" => Action::Shift { instance, from: Weight::FULL, to: Weight::NONE },
        "horizontal" => Action::Scale { from: 2, to: 3 },
        "fewer" => Action::Scale { from: 3, to: 2 },
        "replace" => Action::Replace {
            instance,
            from: NodeName::new("n1").unwrap(),
            to: NodeName::new("n2").unwrap(),
            weight: Weight::FULL,
        },
        "giveBack" => Action::Shift { instance, from: Weight::new(50), to: Weight::FULL },
        "shadow" => Action::RecreateShadow { instance },
        other => panic!("unknown kind `{other}`"),
    };
    let effect = before.effect.as_deref().map(|word| match word {
        "helped" => Effect::Helped { before: ratio(0.5), after: ratio(0.0) },
        "takenBack" => Effect::TakenBack { by: ActionId(99) },
        "vain" => Effect::DidNotHelp { before: ratio(0.5), after: Some(ratio(0.5)) },
        other => panic!("unknown effect `{other}`"),
    });
    let tick = Tick(NOW - before.ticks_ago);
    let settled = effect.is_some().then_some(tick);
    Taken { id: ActionId(number), tick, action, effect, settled }
}

fn in_words(decision: &Decision) -> String {
    let whom =
        |instance: &Option<InstanceId>| instance.as_ref().map_or("service".into(), ToString::to_string);
    match decision {
        Decision::Act(step) => match &step.action {
            Action::Resize { shadow: Some(ShadowLimit { from: Some(from), .. }), .. } => {
                format!("{}, its shadow's from {from}", step.action)
            }
            action if 0 < step.rehearsal_ticks => {
                format!("{action}, tried on its shadow first for {} ticks", step.rehearsal_ticks)
            }
            action => action.to_string(),
        },
        Decision::Hold { instance, reason, instead_of: Some(action), .. } => {
            format!("hold {}: {reason}, instead of {action}", whom(instance))
        }
        Decision::Hold { instance, reason, instead_of: None, .. } => {
            format!("hold {}: {reason}", whom(instance))
        }
    }
}

fn check(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    let story: Story =
        serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let policy = policy(&story.policy);
    let inventory = inventory(&story.lives);
    let numbered = || (1..).zip(&story.lives);
    let assessments: Vec<Assessment> = numbered().map(|(number, live)| assessment(number, live)).collect();
    let weights: BTreeMap<_, _> =
        numbered().map(|(number, live)| (InstanceId::live(number), Weight::new(live.weight))).collect();
    let usage = |(number, live): (u32, &Live)| {
        let cores_max = live.cpu.map_or(5.0, |cpu| f64::from(cpu) / 1000.0);
        (InstanceId::live(number), Usage { cores: live.used, cores_max, waiting: live.waiting })
    };
    let usage: BTreeMap<_, _> = numbered().map(usage).collect();
    let ledger = Ledger {
        paused: story.paused,
        maintenance: story.maintenance,
        taken: (1..).zip(&story.taken).map(|(n, before)| taken(n, before)).collect(),
    };
    let forecast = story.foreseen.and_then(PerSecond::new).map(|upper| Forecast {
        lead_seconds: 20.0,
        mean: upper,
        upper,
        quantile: ratio(0.9),
        minutes: 60,
    });
    let capacity = capacity(&policy, &BTreeMap::new(), &inventory, &assessments);
    let plan = plan(&Inputs {
        tick: Tick(NOW),
        generation: Generation(1),
        next_id: ActionId(100),
        inventory: &inventory,
        assessments: &assessments,
        weights: &weights,
        usage: &usage,
        load: story.load.or((!story.silent).then_some(1.0)).and_then(PerSecond::new),
        forecast: forecast.as_ref(),
        capacity: capacity.as_ref(),
        calm_ticks: story.calm_ticks,
        ledger: &ledger,
        policy: &policy,
    });
    let decisions: Vec<String> = plan.decisions.iter().map(in_words).collect();
    assert_eq!(decisions, story.expect, "\n{}: {}", path.display(), story.story);
    if let Some(expected) = story.alternatives {
        let weighed = plan.decisions.first().map(Decision::alternatives).unwrap_or_default();
        let weighed: Vec<String> = weighed.iter().map(ToString::to_string).collect();
        assert_eq!(weighed, expected, "\n{}: {}", path.display(), story.story);
    }
}

#[test]
fn every_story_ends_as_it_should() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut stories: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    stories.sort();
    assert!(10 < stories.len());
    stories.iter().for_each(|path| check(path));
}
