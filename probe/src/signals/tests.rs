//! File trees as kernels write them, read twice.

use std::fs;

use tempfile::TempDir;

use super::*;

struct Tree {
    root: TempDir,
}

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        let tree = Self { root: tempfile::tempdir().unwrap() };
        tree.write(files);
        tree
    }

    fn write(&self, files: &[(&str, &str)]) {
        for (name, content) in files {
            let path = self.root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    fn at(&self, directory: &str) -> Option<PathBuf> {
        Some(self.root.path().join(directory))
    }

    fn v1(&self) -> SignalReader {
        let paths = CgroupPaths {
            cpu: self.at("cpu"),
            cpuacct: self.at("cpuacct"),
            memory: self.at("memory"),
            io: self.at("blkio"),
            cpuset: self.at("cpuset"),
            unified: self.at("unified"),
        };
        SignalReader::with_proc(Some(paths), true, self.root.path().join("proc"))
    }

    fn v2(&self) -> SignalReader {
        let all = self.at("own");
        let paths = CgroupPaths {
            cpu: all.clone(),
            cpuacct: all.clone(),
            memory: all.clone(),
            io: all.clone(),
            cpuset: all.clone(),
            unified: all,
        };
        SignalReader::with_proc(Some(paths), true, self.root.path().join("proc"))
    }
}

const V1: &[(&str, &str)] = &[
    ("cpuacct/cpuacct.usage", "1000000000\n"),
    ("cpu/cpu.stat", "nr_periods 10\nnr_throttled 2\nthrottled_time 500000000\n"),
    ("cpu/cpu.cfs_quota_us", "50000\n"),
    ("cpu/cpu.cfs_period_us", "100000\n"),
    ("cpu/cgroup.procs", "41\n42\n"),
    ("memory/memory.usage_in_bytes", "4096\n"),
    ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
    ("memory/memory.failcnt", "3\n"),
    (
        "memory/memory.stat",
        "pgmajfault 1\nworkingset_refault_file 1\ntotal_pgmajfault 10\ntotal_workingset_refault_anon 5\ntotal_workingset_refault_file 20\n",
    ),
    ("blkio/blkio.throttle.io_service_bytes", "8:0 Read 100\n8:0 Write 200\nTotal 300\n"),
    ("unified/cpu.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\nfull total=0\n"),
    ("unified/memory.pressure", "some avg10=0.00 total=0\n"),
    ("unified/io.pressure", "some avg10=0.00 total=7\n"),
    ("blkio/blkio.throttle.io_serviced", "8:0 Read 10\n8:0 Write 20\nTotal 30\n"),
    ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
    ("proc/pressure/cpu", "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n"),
    ("proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n"),
    ("proc/pressure/io", "some avg10=0.00 avg60=0.00 avg300=0.00 total=9\n"),
    ("proc/stat", "cpu  1 2 3 4 5 6 7 100 9 10\n"),
    (
        "proc/41/limits",
        "Limit Soft Hard Units\nMax open files            1024                 4096               files\n",
    ),
    ("proc/41/net/dev", "  lo: 1 0 0 0 0 0 0 0 1 0 0 0 0 0 0 0\neth0: 100 1 0 0 0 0 0 0 200 1 0 0 0 0 0 0\n"),
    ("proc/41/net/snmp", "Tcp: RtoAlgorithm OutSegs RetransSegs\nTcp: 1 1000 20\n"),
    ("proc/41/task/41/schedstat", "9 1000 1\n"),
    ("proc/42/task/42/schedstat", "9 2000 1\n"),
    ("proc/42/task/43/schedstat", "9 3000 1\n"),
];

const V2: &[(&str, &str)] = &[
    ("own/cgroup.controllers", "cpu io memory\n"),
    ("own/cgroup.procs", "41\n"),
    (
        "own/cpu.stat",
        "usage_usec 1000000\nuser_usec 1\nsystem_usec 1\nnr_periods 10\nnr_throttled 2\nthrottled_usec 500000\n",
    ),
    ("own/cpu.max", "150000 100000\n"),
    ("own/memory.current", "4096\n"),
    ("own/memory.max", "8192\n"),
    ("own/memory.events", "low 0\nhigh 0\nmax 3\noom 0\noom_kill 0\n"),
    ("own/memory.stat", "workingset_refault_anon 5\nworkingset_refault_file 20\npgmajfault 10\n"),
    ("own/io.stat", "8:0 rbytes=100 wbytes=200 rios=1 wios=1 dbytes=0 dios=0\n"),
    ("own/cpu.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\nfull total=0\n"),
    ("proc/41/task/41/schedstat", "9 1000 1\n"),
];

const NODE: NodeCounters = NodeCounters {
    cpu_pressure_us: None,
    memory_pressure_us: None,
    io_pressure_us: None,
    steal_us: None,
    network: NetworkCounters {
        segments_out: None,
        retransmits: None,
        bytes_in: None,
        bytes_out: None,
        lost: None,
    },
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_first_reading_spans_nothing() {
    let signals = Tree::new(V1).v1().read(&[], &NODE, SECOND);
    let expected = CgroupSignals {
        memory_bytes: Some(4096),
        cpu_limit_cores: Some(0.5),
        open_files_limit: Some(1024),
        ..CgroupSignals::default()
    };
    assert_eq!(signals, expected);
}

#[test]
fn version_1_gives_increments() {
    let tree = Tree::new(V1);
    let mut reader = tree.v1();
    let mut node = NodeReader::of(&tree.root.path().join("proc"));
    reader.read(&[], &node.read(), SECOND);
    tree.write(&[
        ("cpuacct/cpuacct.usage", "1250000000\n"),
        ("cpu/cpu.stat", "nr_periods 20\nnr_throttled 7\nthrottled_time 750000000\n"),
        ("memory/memory.failcnt", "4\n"),
        ("blkio/blkio.throttle.io_service_bytes", "8:0 Read 150\n8:0 Write 260\nTotal 410\n"),
        ("blkio/blkio.throttle.io_serviced", "8:0 Read 14\n8:0 Write 26\nTotal 40\n"),
        ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
        ("unified/cpu.pressure", "some avg10=0.00 total=1500000\n"),
        ("unified/memory.pressure", "some avg10=0.00 total=200000\nfull total=100000\n"),
        ("proc/stat", "cpu  1 2 3 4 5 6 7 150 9 10\n"),
        ("proc/41/net/dev", "  lo: 9 0 0 0 0 0 0 0 9 0 0 0 0 0 0 0\neth0: 150 1 0 2 0 0 0 0 260 1 0 0 0 0 0 0\n"),
        (
            "memory/memory.stat",
            "pgmajfault 9\nworkingset_refault_file 99\ntotal_pgmajfault 13\ntotal_workingset_refault_anon 6\ntotal_workingset_refault_file 40\n",
        ),
        ("proc/pressure/cpu", "some total=1000005\n"),
        ("proc/pressure/io", "some total=500009\n"),
        ("proc/41/net/snmp", "Tcp: RtoAlgorithm OutSegs RetransSegs\nTcp: 1 1400 24\n"),
        ("proc/42/task/43/schedstat", "9 1000003000 1\n"),
    ]);
    let expected = CgroupSignals {
        span_seconds: 2.0,
        cpu_seconds: Some(0.25),
        periods: Some(10),
        throttled_periods: Some(5),
        throttled_seconds: Some(0.25),
        cpu_pressure_seconds: Some(0.5),
        memory_pressure_seconds: Some(0.2),
        io_pressure_seconds: Some(0.0),
        run_delay_seconds: Some(1.0),
        memory_bytes: Some(4096),
        memory_limit_bytes: None,
        memory_limit_hits: Some(1),
        io_read_bytes: Some(50),
        io_write_bytes: Some(60),
        cpu_limit_cores: Some(0.5),
        node_cpu_pressure_seconds: Some(1.0),
        node_io_pressure_seconds: Some(0.5),
        major_faults: Some(3),
        refaults: Some(21),
        tcp_segments_out: Some(400),
        tcp_retransmits: Some(4),
        memory_full_pressure_seconds: None,
        io_full_pressure_seconds: None,
        node_memory_pressure_seconds: Some(0.0),
        node_steal_seconds: Some(0.5),
        page_faults: None,
        oom_kills: Some(1),
        io_reads: Some(4),
        io_writes: Some(6),
        net_in_bytes: Some(50),
        net_out_bytes: Some(60),
        net_lost_packets: Some(2),
        open_files: None,
        open_files_limit: Some(1024),
        worst_second: Some(WorstSecond {
            cpu_pressure: Some(0.25),
            memory_pressure: Some(0.1),
            io_pressure: Some(0.0),
            throttled: Some(0.5),
        }),
    };
    assert_eq!(reader.read(&[], &node.read(), SECOND * 3), expected);
}

#[test]
fn version_2_gives_increments() {
    let tree = Tree::new(V2);
    let mut reader = tree.v2();
    reader.read(&[], &NODE, SECOND);
    tree.write(&[
        ("own/cpu.stat", "usage_usec 1250000\nnr_periods 20\nnr_throttled 7\nthrottled_usec 750000\n"),
        ("own/memory.events", "low 0\nhigh 0\nmax 4\noom 0\noom_kill 0\n"),
        ("own/memory.stat", "workingset_refault_anon 5\nworkingset_refault_file 29\npgmajfault 11\n"),
        ("own/io.stat", "8:0 rbytes=150 wbytes=260 rios=3 wios=4\n"),
        ("own/cpu.pressure", "some total=1500000\n"),
    ]);
    let expected = CgroupSignals {
        span_seconds: 2.0,
        cpu_seconds: Some(0.25),
        periods: Some(10),
        throttled_periods: Some(5),
        throttled_seconds: Some(0.25),
        cpu_pressure_seconds: Some(0.5),
        run_delay_seconds: Some(0.0),
        memory_bytes: Some(4096),
        memory_limit_bytes: Some(8192),
        memory_limit_hits: Some(1),
        io_read_bytes: Some(50),
        io_write_bytes: Some(60),
        cpu_limit_cores: Some(1.5),
        major_faults: Some(1),
        refaults: Some(9),
        oom_kills: Some(0),
        io_reads: Some(2),
        io_writes: Some(3),
        worst_second: Some(WorstSecond {
            cpu_pressure: Some(0.25),
            throttled: Some(0.5),
            ..WorstSecond::default()
        }),
        ..CgroupSignals::default()
    };
    assert_eq!(reader.read(&[], &NODE, SECOND * 3), expected);
}

#[test]
fn the_worst_second_is_kept_until_the_next_reading() {
    let tree = Tree::new(V1);
    let mut reader = tree.v1();
    reader.read(&[], &NODE, SECOND);
    let waited = |us: u64| tree.write(&[("unified/io.pressure", &format!("some total={us}\n"))]);
    waited(900_007);
    reader.glance(SECOND * 2);
    waited(900_107);
    reader.glance(SECOND * 3);
    let worst = |reader: &mut SignalReader, at| reader.read(&[], &NODE, at).worst_second.unwrap().io_pressure;
    assert_eq!(worst(&mut reader, SECOND * 4), Some(0.9));
    assert_eq!(worst(&mut reader, SECOND * 5), Some(0.0), "it was of the reading before");
}

#[test]
fn the_recursive_file_is_preferred() {
    let tree = Tree::new(V1);
    tree.write(&[("blkio/blkio.throttle.io_service_bytes_recursive", "8:0 Read 1\n")]);
    let mut reader = tree.v1();
    reader.read(&[], &NODE, SECOND);
    tree.write(&[("blkio/blkio.throttle.io_service_bytes_recursive", "8:0 Read 4\n")]);
    assert_eq!(reader.read(&[], &NODE, SECOND * 2).io_read_bytes, Some(3));
}

#[test]
fn a_counter_that_went_backwards_is_unknown_for_one_reading() {
    let tree = Tree::new(V1);
    let mut reader = tree.v1();
    reader.read(&[], &NODE, SECOND);
    tree.write(&[("cpuacct/cpuacct.usage", "5\n")]);
    let signals = reader.read(&[], &NODE, SECOND * 2);
    assert_eq!(signals.cpu_seconds, None);
    assert_eq!(signals.periods, Some(0), "the others are not touched");
    tree.write(&[("cpuacct/cpuacct.usage", "1000000005\n")]);
    assert_eq!(reader.read(&[], &NODE, SECOND * 3).cpu_seconds, Some(1.0));
}

#[test]
fn threads_that_come_and_go_never_make_it_negative() {
    let tree = Tree::new(V1);
    let mut reader = tree.v1();
    reader.read(&[], &NODE, SECOND);
    fs::remove_dir_all(tree.root.path().join("proc/41")).unwrap();
    tree.write(&[
        ("proc/42/task/42/schedstat", "9 5 1\n"),
        ("proc/42/task/43/schedstat", "9 3500 1\n"),
        ("proc/42/task/44/schedstat", "9 999999 1\n"),
    ]);
    let waited = reader.read(&[], &NODE, SECOND * 2).run_delay_seconds.unwrap();
    assert!((waited - 500e-9).abs() < 1e-15, "only thread 43 was there before and grew, got {waited}");
    tree.write(&[("proc/42/task/44/schedstat", "9 1000999 1\n")]);
    let waited = reader.read(&[], &NODE, SECOND * 3).run_delay_seconds.unwrap();
    assert!((waited - 1e-6).abs() < 1e-15, "{waited}");
}

#[test]
fn without_a_cgroup_the_processes_that_are_known_are_read() {
    let tree = Tree::new(V1);
    let mut reader = SignalReader::with_proc(None, true, tree.root.path().join("proc"));
    reader.read(&[42], &NODE, SECOND);
    tree.write(&[("proc/42/task/42/schedstat", "9 1002000 1\n")]);
    let expected = CgroupSignals {
        span_seconds: 1.0,
        run_delay_seconds: Some(1e-3),
        worst_second: Some(WorstSecond::default()),
        ..CgroupSignals::default()
    };
    assert_eq!(reader.read(&[42], &NODE, SECOND * 2), expected);
}

#[test]
fn retransmits_of_a_namespace_that_was_left_are_unknown() {
    let tree = Tree::new(V1);
    let mut reader = tree.v1();
    reader.read(&[], &NODE, SECOND);
    tree.write(&[("proc/41/net/snmp", "Tcp: RtoAlgorithm OutSegs RetransSegs\nTcp: 1 7 0\n")]);
    let signals = reader.read(&[], &NODE, SECOND * 2);
    assert_eq!((signals.tcp_segments_out, signals.tcp_retransmits), (None, None));
}

#[test]
fn what_is_missing_is_unknown() {
    let tree = Tree::new(&[]);
    for mut reader in [tree.v1(), tree.v2()] {
        reader.read(&[1, 2], &NODE, SECOND);
        let worst_second = Some(WorstSecond::default());
        let expected = CgroupSignals { span_seconds: 1.0, worst_second, ..CgroupSignals::default() };
        assert_eq!(reader.read(&[1, 2], &NODE, SECOND * 2), expected);
    }
}

#[test]
fn odd_content_is_unknown() {
    let odd: Vec<(&str, &str)> = V1.iter().map(|&(name, _)| (name, "?? \u{0}\n -1\n")).collect();
    let tree = Tree::new(&odd);
    let mut reader = tree.v1();
    reader.read(&[], &NODE, SECOND);
    let signals = reader.read(&[], &NODE, SECOND * 2);
    assert_eq!((signals.cpu_seconds, signals.periods, signals.cpu_limit_cores), (None, None, None));
    assert_eq!((signals.memory_bytes, signals.run_delay_seconds), (None, None));
}

#[test]
fn the_real_node_can_be_read() {
    let mut reader = SignalReader::new(None, true);
    let own = [std::process::id()];
    reader.read(&own, &NODE, crate::monotonic());
    let signals = reader.read(&own, &NODE, crate::monotonic());
    assert!(0.0 <= signals.span_seconds);
    assert!(signals.run_delay_seconds.is_none_or(|waited| 0.0 <= waited));
}
