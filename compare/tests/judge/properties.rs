//! What holds for any window, however absurd.

use std::time::Duration;

use foreshadow_compare::Judge;
use foreshadow_model::{
    Agreement, CgroupSignals, ComparePolicy, DropReason, Drops, InstanceId, LogMoments, SideWindow, Tick,
    Verdict, Window,
};
use proptest::prelude::*;

fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![-2.0..2.0_f64, -1e300..1e300_f64, Just(0.0), Just(f64::MAX), Just(f64::MIN_POSITIVE)]
}

fn any_count() -> impl Strategy<Value = u64> {
    prop_oneof![0..50_u64, Just(0), Just(u64::MAX)]
}

fn any_moments() -> impl Strategy<Value = LogMoments> {
    (0..60_u32, any_number(), any_number()).prop_map(|(n, sum, sum_sq)| LogMoments { n, sum, sum_sq })
}

fn any_side() -> impl Strategy<Value = SideWindow> {
    (any_count(), any_count(), any_moments()).prop_map(|(requests, errors, paired_log)| SideWindow {
        requests,
        errors,
        paired_log,
        ..SideWindow::default()
    })
}

fn any_agreement() -> impl Strategy<Value = Agreement> {
    // `Agreement::total` adds them up, so only one may be absurd.
    (any_count(), 0..50_u64, 0..50_u64, 0..50_u64).prop_map(
        |(same, live_error_only, shadow_error_only, diverging)| Agreement {
            same: same.min(u64::MAX / 2),
            live_error_only,
            shadow_error_only,
            diverging,
            ..Agreement::default()
        },
    )
}

prop_compose! {
    fn any_window()(
        reported in prop::bool::weighted(0.9),
        has_shadow in prop::bool::weighted(0.9),
        sides in (any_side(), any_side()),
        paired in any_moments(),
        agreement in any_agreement(),
        sampled in any_count(),
        dropped in any_count(),
        span in prop_oneof![Just(5.0), Just(1.0), any_number()],
        signals in prop::option::of((any_number(), any_number(), any_count())),
    ) -> Window {
        let live = InstanceId::live(1);
        let mut window = Window::unreported(Tick(0), live.clone(), span);
        window.reported = reported;
        window.shadow = has_shadow.then(|| live.shadow_of());
        (window.live_side, window.shadow_side) = sides;
        window.paired = paired;
        window.agreement = agreement;
        window.sampled = sampled;
        window.drops = Drops([(DropReason::Timeout, dropped)].into());
        window.live_signals = signals.map(|(a, b, n)| CgroupSignals {
            span_seconds: span,
            cpu_seconds: Some(a),
            periods: Some(n),
            throttled_periods: Some(n / 2),
            cpu_pressure_seconds: Some(b),
            run_delay_seconds: Some(b),
            io_pressure_seconds: Some(a),
            ..CgroupSignals::default()
        });
        window
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_comes_evidence_is_a_number_and_silence_is_never_healthy(
        windows in prop::collection::vec(any_window(), 1..120),
    ) {
        let mut judge = Judge::new(ComparePolicy::default(), Duration::from_secs(5));
        for window in &windows {
            let said = judge.update(window);
            prop_assert!(said.evidence.is_finite() && 0.0 <= said.evidence);
            for stream in &said.streams {
                prop_assert!(stream.evidence.is_finite() && 0.0 <= stream.evidence);
                prop_assert!(stream.cusum.is_finite() && 0.0 <= stream.cusum);
                prop_assert!(stream.residual.is_none_or(f64::is_finite));
                prop_assert!(stream.whitened.is_none_or(f64::is_finite));
            }
            if !window.reported || window.shadow.is_none() {
                prop_assert!(matches!(said.verdict, Verdict::Inconclusive(_)));
                prop_assert_eq!(said.delta, None);
            }
            prop_assert!(said.sampling.remaining_log.is_finite() && said.sampling.tick_variance.is_finite());
            let saved = serde_json::to_string(&judge).unwrap();
            prop_assert!(serde_json::from_str::<Judge>(&saved).is_ok());
            if let Some(attribution) = &said.attribution {
                let total: f64 = attribution.shares.iter().map(|share| share.share).sum();
                prop_assert!((total - 1.0).abs() < 1e-9);
            }
        }
    }
}
