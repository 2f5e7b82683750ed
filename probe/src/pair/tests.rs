use foreshadow_model::BurstKind;

use super::*;

fn shell(script: &str) -> Prober {
    Prober::new(HelperCommand {
        program: "/bin/sh".into(),
        arguments: vec!["-c".to_owned(), script.to_owned()],
    })
}

fn target(name: &str) -> Target {
    Target { instance: InstanceId::new(name).unwrap(), cgroup: None, pid: None, netns: None }
}

fn round(kinds: &[BurstKind]) -> Round {
    Round {
        tests: kinds.iter().map(|&kind| kind.into()).collect(),
        volume: Volume { directory: None, size: Bytes::mebi(1), fallback: None },
        peer: None,
        give_up: Duration::from_millis(50),
    }
}

fn run(prober: &Prober, kinds: &[BurstKind]) -> (Side, Side) {
    prober.run_pair(&target("live-1"), Some(&target("shadow-1")), &round(kinds))
}

const RAN: &str = r#"{"burst":{"kind":"processor","outcome":{"ran":{"wallSeconds":1.0,"cpuSeconds":2.0,"scorePerSecond":3.0}}}}"#;
const BOTH: [BurstKind; 2] = [BurstKind::Processor, BurstKind::StorageRead];

#[test]
fn both_answers_are_taken_over() {
    let done = r#"{"done":{"cpuSeconds":0.5}}"#;
    let (live, shadow) = run(&shell(&format!("echo '{RAN}'; echo '{done}'")), &BOTH[..1]);
    let outcome =
        BurstOutcome::Ran { wall_seconds: 1.0, cpu_seconds: 2.0, score_per_second: 3.0, operations: None };
    assert_eq!(live.bursts, [Burst::new(BurstKind::Processor, outcome)]);
    assert_eq!(live.cpu_seconds, Some(0.5));
    assert_eq!(shadow, live);
}

#[test]
fn a_silent_helper_is_starved_and_killed() {
    let prober = shell("exec sleep 600");
    let (live, shadow) = run(&prober, &BOTH);
    for side in [live, shadow] {
        let [first, second] = side.bursts.as_slice() else { panic!("{side:?}") };
        assert!(first.wall_seconds().is_some_and(|waited| 0.05 <= waited) && first.is_saturated());
        assert!(!second.is_saturated(), "nothing is known of what it did not get to");
    }
    assert!(prober.stuck.lock().unwrap().is_empty(), "nothing is left behind");
}

#[test]
fn a_helper_that_hangs_in_a_test_keeps_what_it_said_before() {
    let (live, _) = run(&shell(&format!("echo '{RAN}'; exec sleep 600")), &BOTH);
    let [processor, storage] = live.bursts.as_slice() else { panic!("{live:?}") };
    assert_eq!(processor.wall_seconds(), Some(1.0));
    assert!(storage.is_saturated(), "{storage:?}");
}

#[test]
fn a_helper_that_hangs_in_the_disk_says_nothing_of_the_processor() {
    let tests: Vec<Test> = BOTH.map(Test::from).into();
    let bursts = behind(&tests, Resource::Storage, Duration::from_secs(2));
    assert!(!bursts[0].is_saturated() && bursts[1].is_saturated(), "{bursts:?}");
    assert_eq!(bursts[1].wall_seconds(), Some(2.0));
}

#[test]
fn a_helper_that_dies_is_no_sample() {
    let (live, _) = run(&shell("kill -9 $$"), &BOTH[..1]);
    let BurstOutcome::Skipped { reason } = &live.bursts[0].outcome else { panic!("{live:?}") };
    assert!(reason.contains("signal: 9"), "{reason}");
}

#[test]
fn nonsense_is_no_sample() {
    for script in ["echo hello", "echo '[]'", "yes"] {
        let (live, _) = run(&shell(script), &BOTH[..1]);
        assert!(matches!(live.bursts[0].outcome, BurstOutcome::Skipped { .. }), "{script}: {live:?}");
    }
}

#[test]
fn a_helper_that_cannot_be_started_is_skipped_with_a_reason() {
    let prober = Prober::new(HelperCommand { program: "/nonexistent".into(), arguments: Vec::new() });
    let (live, shadow) = prober.run_pair(&target("live-1"), None, &round(&BOTH[..1]));
    let BurstOutcome::Skipped { reason } = &live.bursts[0].outcome else { panic!("{live:?}") };
    assert!(reason.contains("/nonexistent"), "{reason}");
    assert!(shadow.bursts.is_empty());
}

#[test]
fn memory_of_the_tests_only_becomes_less() {
    let prober = shell("exit 0");
    let of = |room| prober.memory_for(&InstanceId::live(1), Some(Bytes::mebi(room))).ok();
    assert_eq!(
        [of(1000), of(400), of(1000), of(100)].map(|bytes| bytes.map(|bytes| bytes.get() >> 20)),
        [Some(64), Some(32), Some(32), None]
    );
    assert_eq!(of(1000), Some(Bytes::mebi(32)), "too little for once is no less for ever");
}

#[test]
fn a_process_that_is_gone_is_not_tested() {
    let gone = Target { pid: Some(u32::MAX / 2), ..target("live-1") };
    let (live, _) = shell(&format!("echo '{RAN}'")).run_pair(&gone, None, &round(&BOTH[..1]));
    let BurstOutcome::Skipped { reason } = &live.bursts[0].outcome else { panic!("{live:?}") };
    assert!(reason.contains("has ended"), "{reason}");
}
