//! Cost of one reading of the passive signals, of the bench's own processes in a cgroup of this machine.

use std::hint::black_box;
use std::path::PathBuf;

use criterion::{Criterion, criterion_group, criterion_main};
use foreshadow_model::CgroupPaths;
use foreshadow_probe::{SignalReader, monotonic};

fn root_cgroup() -> CgroupPaths {
    let base = PathBuf::from("/sys/fs/cgroup");
    let at = |name: &str| Some(base.join(name)).filter(|path| path.exists());
    if base.join("cgroup.controllers").exists() {
        let all = Some(base);
        return CgroupPaths {
            cpu: all.clone(),
            cpuacct: all.clone(),
            memory: all.clone(),
            io: all.clone(),
            cpuset: all.clone(),
            unified: all,
        };
    }
    CgroupPaths {
        cpu: at("cpu"),
        cpuacct: at("cpuacct"),
        memory: at("memory"),
        io: at("blkio"),
        cpuset: at("cpuset"),
        unified: at("unified"),
    }
}

fn readings(criterion: &mut Criterion) {
    let own = [std::process::id()];
    let mut without = SignalReader::new(None);
    criterion.bench_function("signals/processes only", |bench| {
        bench.iter(|| black_box(without.read(&own, monotonic())));
    });
    // The cgroup of cpu is left out: at the root it lists every process of the machine.
    let files = CgroupPaths { cpu: None, unified: None, ..root_cgroup() };
    let mut with = SignalReader::new(Some(files));
    criterion.bench_function("signals/cpuacct, memory, io, one process", |bench| {
        bench.iter(|| black_box(with.read(&own, monotonic())));
    });
}

criterion_group!(benches, readings);
criterion_main!(benches);
