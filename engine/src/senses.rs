//! Passive signals and probe bursts of every instance.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::Duration;

use foreshadow_model::{
    Burst, BurstKind, CgroupPaths, CgroupSignals, Instance, InstanceId, Inventory, ProbePolicy, Tick,
};
use foreshadow_probe::{HelperCommand, Prober, SignalReader, Target, monotonic};
use tokio::sync::mpsc;

/// Rounds of bursts waiting behind the one that runs: a round that begins late would not be of its tick.
const ROUNDS: usize = 0;

/// Bursts on their way to the loop.
const RESULTS: usize = 1024;

/// How long a burst may try.
const GIVE_UP_MAX: Duration = Duration::from_secs(1);

/// What came of the bursts in one instance.
pub(crate) type Bursts = (InstanceId, Vec<Burst>);

struct Round {
    pairs: Vec<(Target, Option<Target>)>,
    kinds: Vec<BurstKind>,
}

/// Readers of passive signals and the thread that probes.
#[derive(Debug)]
pub(crate) struct Senses {
    policy: ProbePolicy,
    readers: BTreeMap<InstanceId, (Option<CgroupPaths>, SignalReader)>,
    rounds: std_mpsc::SyncSender<Round>,
}

impl Senses {
    /// Starts the probing thread; bursts arrive on the receiver. The thread ends with the senses.
    pub(crate) fn start(
        program: PathBuf,
        policy: ProbePolicy,
        tick: Duration,
    ) -> std::io::Result<(Self, mpsc::Receiver<Bursts>)> {
        let (rounds, incoming) = std_mpsc::sync_channel::<Round>(ROUNDS);
        let (results, bursts) = mpsc::channel(RESULTS);
        let prober = Prober::new(HelperCommand { program, arguments: vec!["probe-helper".into()] });
        let give_up = GIVE_UP_MAX.min(tick / 2);
        thread::Builder::new().name("probe".into()).spawn(move || {
            while let Ok(round) = incoming.recv() {
                for (live, shadow) in round.pairs {
                    let (on_live, on_shadow) = prober.run_pair(&live, shadow.as_ref(), &round.kinds, give_up);
                    let both =
                        [Some((live.instance, on_live)), shadow.map(|shadow| (shadow.instance, on_shadow))];
                    if both.into_iter().flatten().any(|result| results.try_send(result).is_err()) {
                        tracing::debug!("Loop does not keep up with bursts");
                    }
                }
            }
        })?;
        Ok((Self { policy, readers: BTreeMap::new(), rounds }, bursts))
    }

    /// Other rules for bursts, from the next round on.
    pub(crate) fn set_policy(&mut self, policy: ProbePolicy) {
        self.policy = policy;
    }

    /// Reads the passive signals of all instances, each with its increments since the last call.
    pub(crate) fn signals(&mut self, inventory: &Inventory) -> Vec<(InstanceId, CgroupSignals)> {
        let now = monotonic();
        self.readers.retain(|id, _| instances(inventory).any(|instance| instance.id == *id));
        instances(inventory)
            .filter_map(|instance| {
                let (paths, reader) = self
                    .readers
                    .entry(instance.id.clone())
                    .or_insert_with(|| (instance.cgroup.clone(), SignalReader::new(instance.cgroup.clone())));
                if *paths != instance.cgroup {
                    *paths = instance.cgroup.clone();
                    *reader = SignalReader::new(paths.clone());
                }
                let signals = reader.read(&instance.pids, now);
                (0.0 < signals.span_seconds).then(|| (instance.id.clone(), signals))
            })
            .collect()
    }

    /// Begins the bursts of a tick, unless the last round is still going on.
    pub(crate) fn probe(&self, tick: Tick, inventory: &Inventory) {
        let kinds = self.due(tick);
        if kinds.is_empty() {
            return;
        }
        let target =
            |instance: &Instance| Target { instance: instance.id.clone(), cgroup: instance.cgroup.clone() };
        let ready = inventory.pairs.iter().filter(|pair| pair.live.is_ready());
        let pairs = ready
            .map(|pair| {
                (target(&pair.live), pair.shadow.as_ref().filter(|shadow| shadow.is_ready()).map(target))
            })
            .collect();
        if self.rounds.try_send(Round { pairs, kinds }).is_err() {
            tracing::debug!("Probes are behind, one round is left out");
        }
    }

    fn due(&self, tick: Tick) -> Vec<BurstKind> {
        let due = |every: u32| self.policy.enabled && 0 < every && tick.0.is_multiple_of(u64::from(every));
        let kinds = [
            (BurstKind::Processor, self.policy.processor_every),
            (BurstKind::MemoryBandwidth, self.policy.memory_every),
        ];
        kinds.into_iter().filter(|&(_, every)| due(every)).map(|(kind, _)| kind).collect()
    }
}

fn instances(inventory: &Inventory) -> impl Iterator<Item = &Instance> {
    inventory.pairs.iter().flat_map(|pair| std::iter::once(&pair.live).chain(pair.shadow.as_ref()))
}
