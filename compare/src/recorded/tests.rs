use proptest::prelude::*;

use super::*;

/// A wobble that is the same in every run, of deviation 0.02 or so.
fn wobble(row: usize) -> f64 {
    let mut z = (row as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z ^= z >> 27;
    0.07 * ((z % 1000) as f64 / 1000.0 - 0.5)
}

fn recording(rows: usize, shift: impl Fn(usize) -> f64) -> Recording {
    Recording {
        live: (0..rows).map(|row| 0.3 + wobble(row) + shift(row)).collect(),
        seconds: (0..rows).map(|row| 5.0 * row as f64).collect(),
        ..Recording::default()
    }
}

fn policy(calibrate: usize) -> RecordedPolicy {
    RecordedPolicy {
        compare: ComparePolicy::default(),
        calibrate,
        level_rows: 0,
        worse: Worse::Higher,
        adopt: 17_280,
        sparse: false,
    }
}

fn during(from: usize, to: usize, by: f64) -> impl Fn(usize) -> f64 {
    move |row| if (from..to).contains(&row) { by } else { 0.0 }
}

#[test]
fn a_shift_is_found_with_onset_size_and_end() {
    let found = judge_recording(&recording(3000, during(1500, 1700, 0.2)), &policy(1000));
    let [shift] = found.shifts[..] else { panic!("{:?}", found.shifts) };
    assert!((1500..1510).contains(&shift.row) && shift.onset.abs_diff(1500) <= 3, "{shift:?}");
    assert!(shift.cleared.is_some_and(|row| (1700..1760).contains(&row)), "{shift:?}");
    let Estimate { delta, low, high } = shift.size;
    assert!((delta.get() - 0.2_f64.exp_m1()).abs() < 0.01, "{shift:?}");
    assert!(low < delta && delta < high && 0.19 < low.get() && high.get() < 0.26, "{shift:?}");
    assert_eq!((found.mirrored, found.residuals.len()), (Some(0), 3000));
    assert!((0.015..0.03).contains(&found.noise), "{}", found.noise);
}

#[test]
fn a_level_can_be_taken_from_a_few_rows_of_another_time_and_from_many() {
    // Noise of the first 1000 rows, another level from there on.
    for level in [1, 2, 44, 46, 200] {
        let moved = |row: usize| if row < 1000 { 0.0 } else { 0.5 };
        let policy = RecordedPolicy { level_rows: level, sparse: true, ..policy(1000 + level) };
        let calm = judge_recording(&recording(1000 + level + 300, moved), &policy);
        assert!(calm.shifts.is_empty(), "{level}: {:?}", calm.shifts);
        let at = 1000 + level + 50;
        let sick = |row: usize| moved(row) + if at <= row { 0.3 } else { 0.0 };
        let found = judge_recording(&recording(1000 + level + 300, sick), &policy);
        assert!(
            found.shifts.first().is_some_and(|shift| (at..at + 3).contains(&shift.row)),
            "{level}: {:?}",
            found.shifts
        );
    }
}

#[test]
fn one_row_that_is_far_out_decides_nothing_and_two_do() {
    let found = |rows: usize| {
        let sick = during(1500, 1500 + rows, 1.0);
        judge_recording(&recording(2000, sick), &RecordedPolicy { sparse: true, ..policy(1000) }).shifts.len()
    };
    assert_eq!((found(1), found(2)), (0, 1));
}

#[test]
fn better_is_no_alarm_unless_either_is_and_counts_as_what_may_be_false() {
    // Short, so that it does not become the normal that its end is worse than.
    let better = recording(3000, during(1500, 1560, -0.2));
    let found = judge_recording(&better, &policy(1000));
    assert_eq!((found.shifts.len(), found.mirrored), (0, Some(1)));
    let found = judge_recording(&better, &RecordedPolicy { worse: Worse::Either, ..policy(1000) });
    assert_eq!((found.shifts.len(), found.mirrored), (1, None));
    assert!((found.shifts[0].size.delta.get() - (-0.2_f64).exp_m1()).abs() < 0.01);
}

#[test]
fn what_stands_for_long_is_the_new_normal() {
    let found = judge_recording(
        &recording(4000, during(1500, 4000, 0.2)),
        &RecordedPolicy { adopt: 500, ..policy(1000) },
    );
    let [shift] = found.shifts[..] else { panic!("{:?}", found.shifts) };
    assert!(shift.adopted && shift.cleared.is_some_and(|row| row < 2100), "{shift:?}");
    let end = RecordedPolicy { adopt: 5000, ..policy(1000) };
    assert_eq!(judge_recording(&recording(2000, during(1500, 2000, 0.2)), &end).shifts[0].cleared, None);
}

#[test]
fn rows_of_few_samples_are_trusted_less() {
    let mut recording = recording(3000, |_| 0.0);
    // Every third row has four samples instead of four hundred, and ten times the noise.
    let few = |row: usize| row.is_multiple_of(3);
    recording.live = (0..3000).map(|row| wobble(row) * if few(row) { 10.0 } else { 1.0 }).collect();
    recording.samples = Some((0..3000).map(|row| if few(row) { 4.0 } else { 400.0 }).collect());
    let c = recording.variance_of_a_sample(&recording.live[..1000]);
    assert!((0.05..0.4).contains(&c), "{c}");
    assert!(judge_recording(&recording, &policy(1000)).shifts.is_empty());
}

#[test]
fn a_gap_is_not_a_shift_and_is_counted_once() {
    let mut recording = recording(3000, |_| 0.0);
    recording.seconds.iter_mut().skip(1600).for_each(|at| *at += 86_400.0);
    assert_eq!((recording.missing_before(1600, 5.0), recording.missing_before(1601, 5.0)), (60, 0));
    assert!(judge_recording(&recording, &policy(1000)).shifts.is_empty());
}

/// Live and shadow with a noise of their own, and `both` that they share.
fn paired(rows: usize, own: f64, both: f64, shift: impl Fn(usize) -> (f64, f64)) -> Recording {
    let of = |salt: usize, row: usize| wobble(row.wrapping_mul(31).wrapping_add(salt));
    let side = |salt: usize, row: usize| own * of(salt, row) + both * of(7, row);
    Recording {
        live: (0..rows).map(|row| side(1_000_003, row) + shift(row).0).collect(),
        shadow: Some((0..rows).map(|row| side(2_000_029, row) + shift(row).1).collect()),
        seconds: (0..rows).map(|row| 5.0 * row as f64).collect(),
        ..Recording::default()
    }
}

#[test]
fn the_shadow_counts_as_much_as_leaves_the_least_noise() {
    let weight =
        |own, both| judge_recording(&paired(2000, own, both, |_| (0.0, 0.0)), &policy(1000)).shadow_weight;
    assert!(weight(1.0, 0.0) < 0.01, "{}", weight(1.0, 0.0));
    assert!((weight(0.1, 3.0) - 1.0).abs() < 0.01, "{}", weight(0.1, 3.0));
}

#[test]
fn what_the_shadow_shows_too_is_no_alarm_however_little_it_counts() {
    let hits = |live: f64, shadow: f64| {
        move |row: usize| if (1500..1800).contains(&row) { (live, shadow) } else { (0.0, 0.0) }
    };
    let alarms = |live, shadow| {
        let found = judge_recording(&paired(3000, 1.0, 0.0, hits(live, shadow)), &policy(1000));
        assert!(found.shadow_weight < 0.5, "{}", found.shadow_weight);
        found.shifts
    };
    let [shift] = alarms(0.2, 0.0)[..] else { panic!("{:?}", alarms(0.2, 0.0)) };
    assert!((1500..1510).contains(&shift.row) && (shift.size.delta.get() - 0.22).abs() < 0.02, "{shift:?}");
    assert_eq!(alarms(0.2, 0.2), [], "a dependency that is slow for both");
    assert_eq!(alarms(0.2, 0.05).len(), 1, "live has the larger part of it alone");
}

proptest! {
    #[test]
    fn whatever_was_recorded_is_judged(
        ratios in prop::collection::vec(prop_oneof![
            8 => -1.0..1.0_f64,
            1 => prop::num::f64::ANY,
            1 => Just(0.0),
        ], 0..300),
        calibrate in 0..400_usize,
        adopt in 0..50_usize,
        either: bool,
        paired in any::<bool>(),
    ) {
        let rows = ratios.len();
        let recording = Recording {
            shadow: paired.then(|| ratios.iter().rev().copied().collect()),
            live: ratios,
            seconds: (0..rows).map(|row| (row * row) as f64).collect(),
            samples: Some((0..rows).map(|row| (row % 7) as f64).collect()),
            load: Some((0..rows).map(|row| if row % 5 == 0 { f64::NAN } else { row as f64 }).collect()),
        };
        let worse = if either { Worse::Either } else { Worse::Higher };
        let found = judge_recording(&recording, &RecordedPolicy { worse, adopt, ..policy(calibrate) });
        prop_assert_eq!(found.residuals.len(), rows);
        prop_assert!(found.noise.is_finite() && found.smallest_detectable.is_finite());
        let mut before = 0;
        for shift in &found.shifts {
            prop_assert!(shift.onset <= shift.row && before <= shift.row && shift.row < rows);
            prop_assert!(shift.cleared.is_none_or(|row| shift.row <= row));
            before = shift.cleared.unwrap_or(rows);
        }
    }
}
