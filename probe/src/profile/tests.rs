use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const MEBI: usize = 1 << 20;

/// Memory of this process that is all noise, all zero, or rewritten by a thread.
fn noise(mebibytes: usize) -> Vec<u8> {
    let mut random = Random::new();
    (0..mebibytes * MEBI / 8).flat_map(|_| random.below(u64::MAX).to_ne_bytes()).collect()
}

fn take() -> MemoryProfile {
    profile(&[std::process::id()], None, Duration::from_millis(200)).unwrap()
}

/// One test, because all of them are about the memory of this one process.
#[test]
fn a_profile_tells_size_contents_and_change() {
    let held = noise(48);
    let calm = take();
    assert!(Bytes::mebi(48) <= calm.anonymous && calm.anonymous <= calm.resident, "{calm:?}");
    let pages = calm.pages.unwrap();
    assert!(0.5 < pages.dense_share, "most of it is noise: {pages:?}");
    assert!(pages.changed_share < 0.3, "hardly anything changes: {pages:?}");

    let mut zeros = vec![0_u8; 96 * MEBI];
    zeros.chunks_mut(PAGE).for_each(|page| page[0] = std::hint::black_box(0));
    let zero = take().pages.unwrap();
    assert!(0.4 < zero.zero_share, "most of it is zero now: {zero:?}");
    drop(zeros);

    // A quarter of what is held changes in 200 ms, page by page.
    let stop = Arc::new(AtomicBool::new(false));
    let changing = {
        let (stop, mut memory) = (stop.clone(), noise(48));
        std::thread::spawn(move || {
            let mut counter = 0_u8;
            while !stop.load(Ordering::Relaxed) {
                counter = counter.wrapping_add(1);
                memory.chunks_mut(PAGE).step_by(2).for_each(|page| page[7] = counter);
                std::thread::sleep(Duration::from_millis(20));
            }
        })
    };
    std::thread::sleep(Duration::from_millis(300));
    let busy = take();
    stop.store(true, Ordering::Relaxed);
    changing.join().unwrap();
    let changed = busy.pages.unwrap().changed_share;
    assert!((0.1..0.5).contains(&changed), "a quarter of the pages change: {busy:?}");
    assert!(busy.changed_bytes_per_second().is_some_and(|rate| 20e6 < rate), "{busy:?}");
    drop(held);
}

#[test]
fn a_process_that_is_gone_is_an_error_and_one_among_others_is_not() {
    let gone = u32::MAX / 2;
    assert!(profile(&[gone], None, Duration::ZERO).is_err());
    assert!(profile(&[], None, Duration::ZERO).is_err());
    assert!(profile(&[gone, std::process::id()], None, Duration::ZERO).is_ok());
}

#[test]
fn the_cgroup_gives_working_set_and_limit() {
    let directory = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| fs::write(directory.path().join(file), text).unwrap();
    write("cgroup.controllers", "memory\n");
    write("memory.current", "1000000\n");
    write("memory.max", "2000000\n");
    write("memory.stat", "anon 5\nanon_thp 4096\ninactive_file 400000\n");
    let paths = CgroupPaths { memory: Some(directory.path().to_owned()), ..CgroupPaths::default() };
    let mut profile = MemoryProfile::default();
    of_cgroup(&mut profile, Some(&paths));
    assert_eq!(profile.working_set, Some(Bytes::new(600_000)));
    assert_eq!((profile.limit, profile.huge), (Some(Bytes::new(2_000_000)), Some(Bytes::new(4096))));
}

#[test]
fn pages_are_found_across_regions() {
    let regions = [(0x1000, 0x3000), (0x10000, 0x11000)];
    assert_eq!([0, 1, 2].map(|n| nth_page(&regions, n)), [0x1000, 0x2000, 0x10000]);
}

#[test]
fn density_is_the_entropy_of_bytes() {
    assert!(bits_in_a_byte(&[7; PAGE]).abs() < 1e-12);
    let all: Vec<u8> = (0..PAGE).map(|at| (at % 256) as u8).collect();
    assert!((bits_in_a_byte(&all) - 8.0).abs() < 1e-12);
}
