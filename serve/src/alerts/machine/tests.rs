use foreshadow_model::{
    Action, ActionId, Bytes, FlippedAlarms, HostFinding, HostScope, Instance, MilliCpu, NodeEvent, NodeRoom,
    Outcome, Pair, Phase, Plan, Pressure, Ratio, Resource, Role, SamplingNeed, Sensitivities, StreamStates,
    Weight, ZoneEvent,
};
use proptest::prelude::*;

use super::*;

const TICK: Duration = Duration::from_secs(5);

/// Ticks that nothing can be said for before anybody is told.
const BLIND_TICKS: u64 = 120;

fn instance(id: InstanceId, role: Role, node: &str) -> Instance {
    Instance { phase: Phase::Ready, ..Instance::new(id, role, NodeName::new(node).unwrap(), 1) }
}

/// Lives 1 and 2 on node a, 3 on node b; shadows the other way round.
fn inventory(lives: u32) -> Inventory {
    let pair = |n: u32| {
        let (here, there) = if n < 3 { ("a", "b") } else { ("b", "a") };
        let live = InstanceId::live(n);
        let shadow = Some(instance(live.shadow_of(), Role::Shadow, there));
        Pair { live: instance(live, Role::Live, here), shadow }
    };
    Inventory { pairs: (1..=lives).map(pair).collect(), ..Inventory::default() }
}

fn assessment(live: u32, verdict: Verdict) -> Assessment {
    Assessment {
        tick: Tick(1),
        live: InstanceId::live(live),
        verdict,
        provisional: false,
        delta: None,
        own_delta: None,
        error_excess: None,
        evidence: 2e4,
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
        e_value: 100.0,
        chosen: true,
        carrier: None,
    }
}

fn outcome(live: u32, effect: Effect) -> Outcome {
    let action = Action::Shift { instance: InstanceId::live(live), from: Weight::FULL, to: Weight::new(50) };
    Outcome { id: ActionId(1), action, tick: Tick(1), effect }
}

/// The machine, and a clock that goes with it.
struct Story {
    machine: Machine,
    inventory: Inventory,
    now: i64,
    /// Lives whose host shows something, and nodes of which several do.
    hosts: Vec<u32>,
    node_events: Vec<NodeEvent>,
    zone_events: Vec<ZoneEvent>,
    /// How far all have drifted.
    drift: Option<Ratio>,
}

impl Story {
    fn new() -> Self {
        Self {
            machine: Machine::default(),
            inventory: inventory(3),
            now: 0,
            hosts: Vec::new(),
            node_events: Vec::new(),
            zone_events: Vec::new(),
            drift: None,
        }
    }

    fn tick(&mut self, verdicts: &[Verdict], outcomes: Vec<Outcome>, fails: bool) -> Vec<Alarm> {
        self.changes(verdicts, outcomes, fails).told
    }

    fn changes(&mut self, verdicts: &[Verdict], outcomes: Vec<Outcome>, fails: bool) -> Changes {
        self.now += 5000;
        let report = CycleReport {
            node_events: self.node_events.clone(),
            zone_events: self.zone_events.clone(),
            tick: Tick(1),
            unix_ms: self.now,
            assessments: (1..)
                .zip(verdicts)
                .map(|(live, verdict)| {
                    let host = self.hosts.contains(&live).then(finding);
                    Assessment { host, drift: self.drift, ..assessment(live, *verdict) }
                })
                .collect(),
            plan: Plan::default(),
            outcomes,
            forecast: None,
        };
        let facts = Facts {
            report: &report,
            inventory: &self.inventory,
            tick: TICK,
            journal_fails: fails,
            history_fails: false,
        };
        self.machine.update(&facts)
    }

    /// Keys told of: `+` begins, `-` ends.
    fn says(&mut self, verdicts: &[Verdict]) -> Vec<String> {
        self.tick(verdicts, Vec::new(), false).iter().map(told).collect()
    }
}

fn told(alarm: &Alarm) -> String {
    let sign = if alarm.resolved_unix_ms.is_some() { '-' } else { '+' };
    format!("{sign}{}", alarm.key)
}

use Verdict::{BothDegraded, Calibrating, Degraded, Healthy, ShadowSuspect, Warn};
const NO_SHADOW: Verdict = Verdict::Inconclusive(Inconclusive::NoShadow);
const FEW: Verdict = Verdict::Inconclusive(Inconclusive::TooFewSamples);

#[test]
fn a_degradation_is_told_once_and_its_end_once() {
    let mut story = Story::new();
    assert_eq!(story.says(&[Degraded]), ["+degraded/live-1"]);
    assert!(story.says(&[Degraded]).is_empty());
    assert!(story.says(&[Warn]).is_empty(), "on its way out it is no second alarm");
    assert_eq!(story.says(&[Healthy]), ["-degraded/live-1"]);
}

#[test]
fn a_warning_that_becomes_a_degradation_within_a_silence_is_not_told_to_be_over() {
    let mut story = Story::new();
    (0..WARN_TICKS).for_each(|_| drop(story.says(&[Warn])));
    story.machine.silence(&InstanceId::live(1), i64::MAX);
    assert!(story.says(&[Degraded]).is_empty(), "neither the worse nor an end of the warning");
    story.machine.silence(&InstanceId::live(1), 0);
    assert_eq!(story.says(&[Degraded]), ["-warn/live-1", "+degraded/live-1"]);
    // One that ends within the silence ends for those who were told of the other as well.
    story.machine.silence(&InstanceId::live(1), i64::MAX);
    assert!(story.says(&[BothDegraded]).is_empty());
    assert_eq!(story.says(&[Healthy]), ["-degraded/live-1"]);
}

#[test]
fn nobody_is_told_of_a_silenced_live_and_what_outlasts_the_silence_is_told_then() {
    let mut story = Story::new();
    let live = InstanceId::live(1);
    story.machine.silence(&live, 12_000);
    assert!(story.says(&[Degraded]).is_empty());
    assert_eq!(story.machine.active().count(), 1, "it is shown all the same");
    assert_eq!(story.machine.told().count(), 0, "and not repeated to anybody");
    let Changes { told, unheard } = story.changes(&[Healthy], Vec::new(), false);
    assert!(told.is_empty(), "who was not told of its beginning is not told of its end");
    assert_eq!(unheard.len(), 1, "it is written down that it was");
    assert_eq!(
        story.says(&[ShadowSuspect, Degraded]),
        ["+degraded/live-2", "+shadow_suspect/live-1"],
        "over after 12 s"
    );
    assert_eq!(story.machine.silences().count(), 0);
    story.machine.silence(&InstanceId::live(2), 1_000_000);
    assert_eq!(
        story.says(&[Healthy, Healthy]),
        ["-degraded/live-2", "-shadow_suspect/live-1"],
        "told before"
    );
    story.machine.silence(&live, 1_000_000);
    assert!(story.says(&[ShadowSuspect]).is_empty(), "its shadow is meant as well");
    let kept = serde_json::to_string(&story.machine).unwrap();
    story.machine = serde_json::from_str(&kept).unwrap();
    story.machine.silence(&live, 0);
    assert_eq!(story.says(&[ShadowSuspect]), ["+shadow_suspect/live-1"], "the operator ended it");
}

fn finding() -> HostFinding {
    HostFinding {
        resource: Resource::Storage,
        scope: HostScope::Live,
        shift_log: Some(2.0),
        evidence: 15.0,
        since: Tick(1),
        words: "storage-read takes 7.4 × as long".into(),
    }
}

#[test]
fn a_host_that_lasts_is_told_unless_more_is_said_already() {
    let mut story = Story::new();
    story.hosts = vec![1];
    for _ in 1..WARN_TICKS {
        assert!(story.says(&[Healthy]).is_empty());
    }
    assert_eq!(story.says(&[Healthy]), ["+host/live-1"]);
    assert!(story.machine.active().any(|alarm| alarm.summary.contains("its shadow is as before")));
    assert_eq!(story.says(&[Degraded]), ["-host/live-1", "+degraded/live-1"]);
    story.hosts.clear();
    assert_eq!(story.says(&[Healthy]), ["-degraded/live-1"]);
}

#[test]
fn two_hosts_of_a_node_are_one_alarm_about_it() {
    let mut story = Story::new();
    story.hosts = vec![1, 2];
    let instances = vec![InstanceId::live(1), InstanceId::live(2)];
    let node = NodeName::new("a").unwrap();
    story.node_events = vec![NodeEvent { node, resource: Resource::Storage, instances }];
    let told: Vec<String> = (0..WARN_TICKS).flat_map(|_| story.says(&[Healthy, Healthy])).collect();
    assert_eq!(told, ["+host/a"]);
    (story.hosts, story.node_events) = (Vec::new(), Vec::new());
    assert_eq!(story.says(&[Healthy, Healthy]), ["-host/a"]);
}

/// A story whose nodes a and b are in one zone.
fn in_a_zone() -> Story {
    let mut story = Story::new();
    story.inventory.nodes = ["a", "b"]
        .map(|name| NodeRoom {
            name: NodeName::new(name).unwrap(),
            zone: Some(ZoneName::new("cellar").unwrap()),
            cpu: MilliCpu::new(1000),
            cpu_promised: MilliCpu::new(0),
            memory: None,
            memory_promised: Bytes::new(0),
        })
        .to_vec();
    story
}

#[test]
fn hosts_of_a_zone_are_one_alarm_about_it_and_none_about_its_nodes() {
    let mut story = in_a_zone();
    story.hosts = vec![1, 2];
    let (node, instances) = (NodeName::new("a").unwrap(), vec![InstanceId::live(1), InstanceId::live(2)]);
    story.node_events = vec![NodeEvent { node, resource: Resource::Storage, instances }];
    let told: Vec<String> = (0..WARN_TICKS).flat_map(|_| story.says(&[Healthy; 3])).collect();
    assert_eq!(told, ["+host/a"]);
    story.hosts = vec![1, 2, 3];
    story.node_events.clear();
    story.zone_events = vec![ZoneEvent {
        zone: ZoneName::new("cellar").unwrap(),
        nodes: ["a", "b"].map(|name| NodeName::new(name).unwrap()).to_vec(),
        resource: Resource::Storage,
        instances: (1..4).map(InstanceId::live).collect(),
    }];
    assert_eq!(story.says(&[Healthy; 3]), ["-host/a", "+host/zone-cellar-storage"]);
    assert!(story.machine.active().all(|alarm| alarm.summary.contains("storage of zone cellar")));
    (story.hosts, story.zone_events) = (vec![3], Vec::new());
    assert!(story.says(&[Healthy; 3]).is_empty(), "one still shows it");
    story.hosts.clear();
    assert_eq!(story.says(&[Healthy; 3]), ["-host/zone-cellar-storage"]);
}

#[test]
fn instances_of_a_zone_are_one_alarm_until_the_last_is_well() {
    let mut story = in_a_zone();
    assert_eq!(story.says(&[Degraded, Healthy, Healthy]), ["+degraded/live-1"]);
    assert_eq!(story.says(&[Degraded, Healthy, Degraded]), ["-degraded/live-1", "+zone_suspect/cellar"]);
    let alarm = story.machine.active().next().unwrap();
    assert_eq!(alarm.instances, [InstanceId::live(1), InstanceId::live(3)]);
    assert_eq!(alarm.zone, ZoneName::new("cellar").ok());
    assert!(alarm.summary.starts_with("instances in zone cellar worsened together on a, b (live-1, live-3)"));
    assert!(story.says(&[Degraded, Degraded, Healthy]).is_empty(), "it lasts");
    assert_eq!(story.says(&[Healthy; 3]), ["-zone_suspect/cellar"]);
}

#[test]
fn no_news_is_not_good_news() {
    let mut story = Story::new();
    story.says(&[Degraded]);
    for silence in [FEW, NO_SHADOW, Calibrating] {
        assert!(story.says(&[silence]).is_empty(), "{silence}");
    }
    assert!(story.says(&[]).is_empty());
    assert_eq!(story.machine.active().count(), 1);
}

#[test]
fn a_new_baseline_after_an_action_that_helped_is_good_news() {
    let mut story = Story::new();
    story.says(&[Degraded]);
    let helped = Effect::Helped { before: Ratio::ZERO, after: Ratio::ZERO };
    assert!(story.tick(&[Degraded], vec![outcome(1, helped)], false).is_empty());
    assert_eq!(story.says(&[Calibrating]), ["-degraded/live-1"]);
}

#[test]
fn a_warning_must_last_and_gives_way_to_a_degradation() {
    let mut story = Story::new();
    for _ in 1..WARN_TICKS {
        assert!(story.says(&[Warn]).is_empty());
    }
    assert_eq!(story.says(&[Warn]), ["+warn/live-1"]);
    assert_eq!(story.says(&[Degraded]), ["-warn/live-1", "+degraded/live-1"]);
    assert_eq!(story.says(&[BothDegraded]), ["-degraded/live-1", "+both_degraded/live-1"]);
}

#[test]
fn nothing_to_say_is_told_after_ten_minutes() {
    let mut story = Story::new();
    for _ in 1..BLIND_TICKS {
        assert!(story.says(&[FEW]).is_empty());
    }
    assert_eq!(story.says(&[FEW]), ["+inconclusive/live-1"]);
    assert_eq!(story.says(&[NO_SHADOW]), ["-inconclusive/live-1", "+no_shadow/live-1"]);
    assert_eq!(story.says(&[Calibrating]), ["-no_shadow/live-1"]);
}

#[test]
fn a_restart_makes_no_other_alarm_of_one_that_lasts() {
    let mut story = Story::new();
    for _ in 0..BLIND_TICKS {
        story.says(&[FEW]);
    }
    story.machine.streaks.clear();
    assert!(story.says(&[NO_SHADOW]).is_empty());
    assert!(story.says(&[FEW]).is_empty());
}

#[test]
fn a_shadow_that_cannot_be_made_is_told_soon_and_one_that_waits_for_its_turn_never() {
    let mut story = Story::new();
    story.inventory.without_shadow.insert(InstanceId::live(1), NoShadow::NoRoom("needs 500m".into()));
    for _ in 1..WARN_TICKS {
        assert!(story.says(&[NO_SHADOW]).is_empty());
    }
    assert_eq!(story.says(&[NO_SHADOW]), ["+no_shadow/live-1"]);
    assert!(story.machine.active().all(|alarm| alarm.summary.contains("needs 500m")));
    story.inventory.without_shadow.insert(InstanceId::live(1), NoShadow::Waiting);
    assert_eq!(story.says(&[NO_SHADOW]), ["-no_shadow/live-1"]);
    for _ in 0..BLIND_TICKS {
        assert!(story.says(&[NO_SHADOW]).is_empty());
    }
}

#[test]
fn instances_of_one_node_are_one_alarm_until_the_last_is_well() {
    let mut story = Story::new();
    assert_eq!(story.says(&[Degraded, Healthy, Healthy]), ["+degraded/live-1"]);
    assert_eq!(story.says(&[Degraded, Degraded, Healthy]), ["-degraded/live-1", "+node_suspect/a"]);
    // The shadow of live 3 stands on node a as well.
    assert!(story.says(&[Degraded, Degraded, ShadowSuspect]).is_empty());
    let alarm = story.machine.active().next().unwrap();
    let names: Vec<&str> = alarm.instances.iter().map(InstanceId::as_str).collect();
    assert_eq!(names, ["live-1", "live-2", "shadow-3"]);
    assert_eq!(alarm.started_unix_ms, 5000, "it began with the first of them");
    assert!(story.says(&[Degraded, Healthy, Healthy]).is_empty(), "one is left");
    assert_eq!(story.says(&[Healthy, Healthy, Healthy]), ["-node_suspect/a"]);
}

#[test]
fn two_nodes_are_two_alarms() {
    assert_eq!(Story::new().says(&[Degraded, Healthy, Degraded]), ["+degraded/live-1", "+degraded/live-3"]);
}

#[test]
fn an_action_in_vain_is_told_and_ends_with_the_trouble_or_after_an_hour() {
    let in_vain = || vec![outcome(1, Effect::DidNotHelp { before: Ratio::ZERO, after: None })];
    let mut story = Story::new();
    story.says(&[Degraded]);
    let alarms = story.tick(&[Degraded], in_vain(), false);
    assert_eq!(alarms.iter().map(told).collect::<Vec<_>>(), ["+action_in_vain/live-1"]);
    assert_eq!(story.says(&[Healthy]), ["-action_in_vain/live-1", "-degraded/live-1"]);
    story.tick(&[Degraded], in_vain(), false);
    story.now += ACTION_MS;
    assert_eq!(story.says(&[Degraded]), ["-action_in_vain/live-1"]);
}

#[test]
fn a_journal_that_cannot_be_written_is_told() {
    let mut story = Story::new();
    assert_eq!(story.tick(&[], Vec::new(), true)[0].key, "unwritten/journal");
    assert_eq!(story.says(&[]), ["-unwritten/journal"]);
}

#[test]
fn the_operators_word_ends_an_alarm() {
    let mut story = Story::new();
    story.says(&[Degraded]);
    story.machine.dismiss(&InstanceId::live(1));
    assert_eq!(story.says(&[Calibrating]), ["-degraded/live-1"]);
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    prop::sample::select(vec![
        Calibrating,
        Healthy,
        Warn,
        Degraded,
        BothDegraded,
        ShadowSuspect,
        FEW,
        NO_SHADOW,
    ])
}

fn any_effect() -> impl Strategy<Value = Effect> {
    prop::sample::select(vec![
        Effect::Done,
        Effect::Helped { before: Ratio::ZERO, after: Ratio::ZERO },
        Effect::DidNotHelp { before: Ratio::ZERO, after: None },
        Effect::Failed { error: "x".into() },
    ])
}

/// Verdicts, an outcome, whether writing fails, lives that are there, how long it lasts.
type Chapter = ([Verdict; 3], Option<(u32, Effect)>, bool, u32, u64);

fn any_chapter() -> impl Strategy<Value = Chapter> {
    let verdicts = [any_verdict(), any_verdict(), any_verdict()];
    (verdicts, prop::option::weighted(0.2, (1..=3_u32, any_effect())), any::<bool>(), 1..=3_u32, 1..130_u64)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// What was told is what lasts; every key begins and ends in turns; nothing is about a live that is not there; an
    /// alarm about a verdict ends on an accusation of somebody else, good news or not at all; a restart changes nothing
    /// but the patience with what must last.
    #[test]
    fn what_is_told_adds_up_to_what_lasts(story in prop::collection::vec(any_chapter(), 1..12)) {
        let mut teller = Story::new();
        let mut lasts: BTreeMap<String, Alarm> = BTreeMap::new();
        for (verdicts, outcome_of, fails, lives, ticks) in story {
            teller.inventory = inventory(lives);
            for n in 0..ticks {
                let outcomes = outcome_of.iter().filter(|_| n == 0);
                let outcomes = outcomes.map(|(live, effect)| outcome(*live, effect.clone())).collect();
                for alarm in teller.tick(&verdicts, outcomes, fails) {
                    match alarm.resolved_unix_ms {
                        None => prop_assert!(lasts.insert(alarm.key.clone(), alarm).is_none()),
                        Some(end) => {
                            let begun = lasts.remove(&alarm.key);
                            prop_assert!(begun.is_some_and(|begun| begun.started_unix_ms == alarm.started_unix_ms));
                            prop_assert!(alarm.started_unix_ms <= end);
                        }
                    }
                }
                let active: Vec<&String> = teller.machine.active().map(|alarm| &alarm.key).collect();
                prop_assert_eq!(active, lasts.keys().collect::<Vec<_>>());
                let is_there = |id: &InstanceId| {
                    teller.inventory.pairs.iter().any(|pair| pair.live.id == *id || pair.live.id.shadow_of() == *id)
                };
                prop_assert!(teller.machine.active().all(|alarm| alarm.instances.iter().all(is_there)));
                for (live, verdict) in (1..=lives).zip(&verdicts) {
                    if *verdict == Degraded {
                        let id = InstanceId::live(live);
                        prop_assert!(teller.machine.active().any(|alarm| alarm.instances.contains(&id)));
                    }
                }
            }
            let kept = serde_json::to_vec(&teller.machine).unwrap();
            let restored: Machine = serde_json::from_slice(&kept).unwrap();
            prop_assert_eq!(restored.active().collect::<Vec<_>>(), teller.machine.active().collect::<Vec<_>>());
            teller.machine = Machine { streaks: teller.machine.streaks.clone(), ..restored };
        }
    }

    #[test]
    fn silence_ends_no_accusation(silence in prop::sample::select(vec![FEW, NO_SHADOW, Calibrating, Warn]), ticks in 1..300_u32) {
        let mut story = Story::new();
        story.says(&[Degraded]);
        for _ in 0..ticks {
            story.says(&[silence]);
        }
        prop_assert!(story.machine.active().any(|alarm| alarm.key == "degraded/live-1"));
    }
}

#[test]
fn a_drift_is_one_alarm_until_it_is_gone() {
    let mut story = Story::new();
    assert!(story.tick(&[Verdict::Healthy], Vec::new(), false).is_empty());
    story.drift = Ratio::new(0.12);
    let told = story.tick(&[Verdict::Healthy], Vec::new(), false);
    assert_eq!(told[0].key, "drift/live-1");
    assert!(told[0].summary.contains("+12 %") && told[0].summary.contains("acknowledge live-1"), "{told:?}");
    story.drift = Ratio::new(0.14);
    assert!(story.tick(&[Verdict::Healthy], Vec::new(), false).is_empty(), "one and the same");
    story.drift = None;
    assert!(story.tick(&[Verdict::Healthy], Vec::new(), false)[0].resolved_unix_ms.is_some());
}
