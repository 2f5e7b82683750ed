//! Cost of one reading of the passive signals of one process, alone and in cgroups made for it.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use criterion::{Criterion, criterion_group, criterion_main};
use foreshadow_model::CgroupPaths;
use foreshadow_probe::{NodeReader, SignalReader, monotonic};

/// A sleeping process in a cgroup of its own in every hierarchy of this machine that lets us.
struct Instance {
    child: Child,
    paths: CgroupPaths,
}

impl Instance {
    fn start() -> Self {
        let child = Command::new("sleep").arg("600").spawn().expect("sleep is everywhere");
        let base = Path::new("/sys/fs/cgroup");
        let name = format!("foreshadow-bench-{}", std::process::id());
        let make = |parent: PathBuf| {
            let directory = parent.join(&name);
            let made = directory.is_dir() || fs::create_dir(&directory).is_ok();
            let joined = made && fs::write(directory.join("cgroup.procs"), child.id().to_string()).is_ok();
            joined.then_some(directory)
        };
        let at = |hierarchy: &str| {
            make(if base.join("cgroup.controllers").exists() {
                base.to_owned()
            } else {
                base.join(hierarchy)
            })
        };
        let paths = CgroupPaths {
            cpu: at("cpu"),
            cpuacct: at("cpuacct"),
            memory: at("memory"),
            io: at("blkio"),
            cpuset: None,
            unified: at("unified"),
        };
        Self { child, paths }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        for directory in self.paths.directories() {
            if let Err(error) = fs::remove_dir(directory) {
                eprintln!("cannot remove `{}`: {error} ({ended:?})", directory.display());
            }
        }
    }
}

/// Threads that sleep until the sender is dropped.
fn fifty_threads() -> Vec<std::sync::mpsc::Sender<()>> {
    let start = |_| {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || receiver.recv().is_ok());
        sender
    };
    (0..50).map(start).collect()
}

fn readings(criterion: &mut Criterion) {
    let instance = Instance::start();
    let pids = [instance.child.id()];
    let mut reader = NodeReader::default();
    let node = reader.read();
    criterion.bench_function("signals/the node", |bench| bench.iter(|| black_box(reader.read())));
    let mut process = SignalReader::new(None, false);
    criterion.bench_function("signals/one process, no cgroup", |bench| {
        bench.iter(|| black_box(process.read(&pids, &node, monotonic())));
    });
    let threads = fifty_threads();
    let own = [std::process::id()];
    let mut process = SignalReader::new(None, false);
    criterion.bench_function("signals/fifty threads, no cgroup", |bench| {
        bench.iter(|| black_box(process.read(&own, &node, monotonic())));
    });
    drop(threads);
    eprintln!("cgroups: {:?}", instance.paths);
    let mut cgroup = SignalReader::new(Some(instance.paths.clone()), false);
    criterion.bench_function("signals/one process in its cgroups", |bench| {
        bench.iter(|| black_box(cgroup.read(&pids, &node, monotonic())));
    });
    criterion.bench_function("signals/a glance at it", |bench| {
        bench.iter(|| cgroup.glance(monotonic()));
    });
}

criterion_group!(benches, readings);
criterion_main!(benches);
