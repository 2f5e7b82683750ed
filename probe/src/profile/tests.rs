use super::*;

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
    let all: Vec<u8> = (0..=u8::MAX).cycle().take(PAGE).collect();
    assert!((bits_in_a_byte(&all) - 8.0).abs() < 1e-12);
}
