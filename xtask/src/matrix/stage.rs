//! The pair on its stage, and one tick of it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::linux::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use foreshadow_model::{BurstKind, Bytes, CgroupPaths, InstanceId, ProbePolicy, Tick, Window};
use foreshadow_probe::{
    HelperCommand, NodeReader, Prober, Rotation, Round, SignalReader, Target, Volume, monotonic,
};

use super::group::Group;
use super::network::{Dependency, Namespace};
use super::{Seen, Span};

/// The processors of live and of its shadow.
const LIVE: &str = "0";
const SHADOW: &str = "1";

/// The file live reads: larger than what it is left when memory is short.
const FILE_BYTES: u64 = 192 << 20;

/// A budget at which every test has its turn at every tick of two seconds as it has at the product's five.
const BUDGET_AT_FIVE_SECONDS: f64 = 0.01;

/// One side.
pub(crate) struct Instance {
    pub(crate) group: Group,
    pub(crate) namespace: Namespace,
    child: Child,
    orders: Arc<Mutex<ChildStdin>>,
    reader: SignalReader,
    id: InstanceId,
}

/// Everything that stands.
pub(crate) struct Stage {
    pub(crate) live: Instance,
    pub(crate) shadow: Instance,
    /// A cgroup beside live, on its processor.
    pub(crate) neighbour: Group,
    /// One that may run everywhere.
    pub(crate) roamer: Group,
    pub(crate) dependency: Dependency,
    /// Where files are, and on which device.
    pub(crate) folder: PathBuf,
    pub(crate) device: String,
    node: NodeReader,
    prober: Prober,
    rotation: Rotation,
    pieces: mpsc::Receiver<f64>,
    tick_length: Duration,
    tick: u64,
    last: Duration,
}

impl Stage {
    pub(crate) fn set(root: &Path, tick_length: Duration) -> anyhow::Result<Self> {
        anyhow::ensure!(rustix::process::geteuid().is_root(), "needs root: cgroups and network namespaces");
        let folder = root.join("target").join(format!("matrix-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let metadata = fs::metadata(&folder)?;
        let device = disk_of(metadata.st_dev())?;
        let spaces = (Namespace::new(1)?, Namespace::new(2)?);
        let dependency = Dependency::start(spaces.0.address)?;
        let (pieces, told) = mpsc::channel();
        let live = Instance::start(("live", LIVE), spaces.0, &folder, &dependency, Some(pieces))?;
        let shadow = Instance::start(("shadow", SHADOW), spaces.1, &folder, &dependency, None)?;
        let program = std::env::current_exe()?;
        let command = HelperCommand { program, arguments: vec!["matrix-part".into(), "helper".into()] };
        Ok(Self {
            live,
            shadow,
            neighbour: Group::new("neighbour", LIVE)?,
            roamer: Group::new("roamer", "0-1")?,
            dependency,
            folder,
            device,
            node: NodeReader::default(),
            prober: Prober::new(command),
            rotation: Rotation::new(&ProbePolicy::default()),
            pieces: told,
            tick_length,
            tick: 0,
            last: monotonic(),
        })
    }

    /// Lets a tick pass: reads signals, does bursts, as the controller does.
    pub(crate) fn tick(&mut self, span: Span) -> anyhow::Result<Seen> {
        let next = self.last + self.tick_length;
        thread::sleep(next.saturating_sub(monotonic()));
        let now = monotonic();
        let node = self.node.read();
        let mut window =
            Window::unreported(Tick(self.tick), self.live.id.clone(), (now - self.last).as_secs_f64());
        window.reported = true;
        window.shadow = Some(self.shadow.id.clone());
        for (side, signals) in
            [(&mut self.live, &mut window.live_signals), (&mut self.shadow, &mut window.shadow_signals)]
        {
            let read = side.reader.read(&[side.child.id()], &node, now);
            *signals = Some(read).filter(|signals| 0.0 < signals.span_seconds);
        }
        // The budget of a tick of five seconds, however long this one is.
        let budget = BUDGET_AT_FIVE_SECONDS * 5.0 / self.tick_length.as_secs_f64();
        let round = Round {
            tests: self.rotation.due(budget, self.tick_length),
            volume: Volume { directory: None, size: Bytes::mebi(16), fallback: None },
            peer: None,
            give_up: Duration::from_secs(1).min(self.tick_length / 2),
        };
        let (live, shadow) = (self.live.target(), self.shadow.target());
        let (on_live, on_shadow) = self.run_pair(&live, &shadow, &round);
        self.rotation.spent(&round.tests, [&on_live, &on_shadow]);
        (window.live_bursts, window.shadow_bursts) = (on_live.bursts, on_shadow.bursts);
        let pieces: Vec<f64> = self.pieces.try_iter().collect();
        #[expect(clippy::cast_precision_loss, reason = "seconds of one tick")]
        let live_ms = (!pieces.is_empty()).then(|| pieces.iter().sum::<f64>() / pieces.len() as f64);
        (self.tick, self.last) = (self.tick + 1, now);
        Ok(Seen { span, live_ms, tick_seconds: self.tick_length.as_secs_f64(), window })
    }

    /// Each side asks the dependency by its own cable, so network tests are a round of each side's own.
    fn run_pair(
        &self,
        live: &Target,
        shadow: &Target,
        round: &Round,
    ) -> (foreshadow_probe::Side, foreshadow_probe::Side) {
        let is_peer = |test: &foreshadow_probe::burst::Test| {
            matches!(test.kind, BurstKind::RoundTrip | BurstKind::Bulk)
        };
        let (network, host) = round.tests.iter().cloned().partition(is_peer);
        let host = Round { tests: host, ..round.clone() };
        let (mut on_live, mut on_shadow) = self.prober.run_pair(live, Some(shadow), &host);
        let network = Round { tests: network, ..round.clone() };
        if !network.tests.is_empty() {
            for (target, side, instance) in
                [(live, &mut on_live, &self.live), (shadow, &mut on_shadow, &self.shadow)]
            {
                let peer = Some(self.dependency.at(&instance.namespace));
                let (mut more, _) = self.prober.run_pair(target, None, &Round { peer, ..network.clone() });
                side.bursts.append(&mut more.bursts);
                side.cpu_seconds = side.cpu_seconds.map(|cpu| cpu + more.cpu_seconds.unwrap_or(0.0));
            }
        }
        (on_live, on_shadow)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.folder).unwrap_or_default();
    }
}

impl Instance {
    fn start(
        (name, processor): (&str, &str),
        namespace: Namespace,
        folder: &Path,
        dependency: &Dependency,
        pieces: Option<mpsc::Sender<f64>>,
    ) -> anyhow::Result<Self> {
        let group = Group::new(name, processor)?;
        let directory = folder.join(name);
        fs::create_dir_all(&directory)?;
        let file = directory.join("data");
        fill(&file)?;
        let mut child = Command::new("ip")
            .args(["netns", "exec"])
            .arg(namespace.path().file_name().context("no name")?)
            .arg(std::env::current_exe()?)
            .args(["matrix-part", "live", "--peer"])
            .arg(dependency.at(&namespace).to_string())
            .arg("--file")
            .arg(&file)
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start the service")?;
        group.join(child.id())?;
        let orders = child.stdin.take().context("no way to tell the service anything")?;
        let orders = Arc::new(Mutex::new(orders));
        let out = child.stdout.take().context("the service says nothing")?;
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if let (Some(pieces), Ok(ms)) = (&pieces, line.parse()) {
                    pieces.send(ms).unwrap_or_default();
                }
            }
        });
        let reader = SignalReader::new(Some(group.paths().clone()), true);
        let id = InstanceId::new(format!("{name}-1")).context("a name")?;
        Ok(Self { group, namespace, child, orders, reader, id })
    }

    fn target(&self) -> Target {
        Target {
            instance: self.id.clone(),
            cgroup: Some(self.paths().clone()),
            pid: Some(self.child.id()),
            netns: Some(self.namespace.path()),
        }
    }

    fn paths(&self) -> &CgroupPaths {
        self.group.paths()
    }

    /// What it has cached is read again when this is dropped.
    pub(crate) fn warm(&self) -> Warm {
        Warm(self.orders.clone())
    }

    /// Makes it hold so many bytes more every second, until the leak is dropped, which gives all of them back.
    pub(crate) fn leak(&self, bytes_per_second: u64) -> Leak {
        let leak = Leak(self.orders.clone());
        leak.tell(bytes_per_second);
        leak
    }
}

/// A leak under way.
pub(crate) struct Leak(Arc<Mutex<ChildStdin>>);

impl Leak {
    fn tell(&self, bytes_per_second: u64) {
        let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(orders, "leak {bytes_per_second}").and_then(|()| orders.flush()).unwrap_or_default();
    }
}

impl Drop for Leak {
    fn drop(&mut self) {
        self.tell(0);
    }
}

/// Has what was thrown out of live's cache read again when dropped.
pub(crate) struct Warm(Arc<Mutex<ChildStdin>>);

impl Drop for Warm {
    fn drop(&mut self) {
        let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(orders, "warm").and_then(|()| orders.flush()).unwrap_or_default();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait().map(drop)).unwrap_or_default();
    }
}

/// The whole disk that a device is a part of: caps are put on disks.
fn disk_of(device: u64) -> anyhow::Result<String> {
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let part = Path::new("/sys/dev/block").join(&number);
    let whole = if part.join("partition").exists() { part.join("..").join("dev") } else { part.join("dev") };
    let text =
        fs::read_to_string(&whole).with_context(|| format!("`{number}` is no disk: run this on one"))?;
    Ok(text.trim().to_owned())
}

fn fill(path: &Path) -> anyhow::Result<()> {
    let mut file = File::create(path)?;
    let block: Vec<u8> = (0..1 << 20).map(|n: u32| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    for _ in 0..FILE_BYTES >> 20 {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    // Whoever reads it first pays for what is cached of it.
    Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
}
