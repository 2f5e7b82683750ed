//! Passive signals and probe bursts of every instance.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc as std_mpsc;
use std::thread;
use std::time::Duration;

use foreshadow_model::{Burst, CgroupPaths, CgroupSignals, Instance, InstanceId, Inventory, ProbePolicy};
use foreshadow_probe::{
    HelperCommand, NodeReader, Prober, Rotation, Round, SignalReader, Target, Volume, monotonic,
};
use tokio::sync::mpsc;

/// Turns of bursts waiting behind the one that runs: a turn that begins late would not be of its tick.
const TURNS: usize = 0;

/// Bursts on their way to the loop.
const RESULTS: usize = 1024;

/// How long the bursts of a round may try.
const GIVE_UP_MAX: Duration = Duration::from_secs(1);

/// What came of the bursts in one instance.
pub(crate) type Bursts = (InstanceId, Vec<Burst>);

/// What is to be done in one tick.
struct Turn {
    pairs: Vec<(Target, Option<Target>)>,
    policy: ProbePolicy,
    /// Cores that the smallest of them may use, one at most.
    cores: f64,
    /// All instances there are, ready or not.
    known: Vec<InstanceId>,
}

/// What the probing thread is told of its surroundings.
pub(crate) struct Start {
    /// This program, which is the helper too.
    pub(crate) program: PathBuf,
    /// The state folder.
    pub(crate) state: PathBuf,
}

/// Readers of passive signals and the thread that probes.
#[derive(Debug)]
pub(crate) struct Senses {
    policy: ProbePolicy,
    /// The operator's off switch.
    off: bool,
    readers: BTreeMap<InstanceId, (Option<CgroupPaths>, SignalReader)>,
    node: NodeReader,
    turns: std_mpsc::SyncSender<Turn>,
}

impl Senses {
    /// Starts the probing thread; bursts arrive on the receiver. The thread ends with the senses.
    pub(crate) fn start(
        start: Start,
        policy: ProbePolicy,
        tick: Duration,
        off: bool,
    ) -> std::io::Result<(Self, mpsc::Receiver<Bursts>)> {
        let (turns, incoming) = std_mpsc::sync_channel::<Turn>(TURNS);
        let (results, bursts) = mpsc::channel(RESULTS);
        let Start { program, state } = start;
        let command = HelperCommand { program, arguments: vec!["probe-helper".into()] };
        let mut probing =
            Probing { prober: Prober::new(command), rotation: None, tick, state, next: 0, results };
        thread::Builder::new().name("probe".into()).spawn(move || {
            while let Ok(turn) = incoming.recv() {
                probing.take(turn);
            }
        })?;
        Ok((Self { policy, off, readers: BTreeMap::new(), node: NodeReader::default(), turns }, bursts))
    }

    /// Other rules for bursts, from the next turn on.
    pub(crate) fn set_policy(&mut self, policy: ProbePolicy) {
        self.policy = policy;
    }

    /// Turns bursts off or on again, whatever the policy says of them.
    pub(crate) fn switch(&mut self, off: bool) {
        self.off = off;
    }

    /// Whether the operator has turned bursts off.
    pub(crate) fn is_off(&self) -> bool {
        self.off
    }

    /// Reads the passive signals of all instances, each with its increments since the last call.
    ///
    /// `ours` are processes of foreshadow in their cgroups.
    pub(crate) fn signals(
        &mut self,
        inventory: &Inventory,
        ours: &[u32],
    ) -> Vec<(InstanceId, CgroupSignals)> {
        let (now, node) = (monotonic(), self.node.read());
        self.readers.retain(|id, _| instances(inventory).any(|instance| instance.id == *id));
        instances(inventory)
            .filter_map(|instance| {
                let (paths, signals) = self
                    .readers
                    .entry(instance.id.clone())
                    .or_insert_with(|| (instance.cgroup.clone(), reader(instance)));
                if *paths != instance.cgroup {
                    *paths = instance.cgroup.clone();
                    *signals = reader(instance);
                }
                signals.leave_out(ours);
                let signals = signals.read(&instance.pids, &node, now);
                (0.0 < signals.span_seconds).then(|| (instance.id.clone(), signals))
            })
            .collect()
    }

    /// A look between two ticks at what comes in thrusts.
    pub(crate) fn glance(&mut self) {
        let now = monotonic();
        self.readers.values_mut().for_each(|(_, reader)| reader.glance(now));
    }

    /// Begins the bursts of a tick, unless those of the last one are still going on.
    pub(crate) fn probe(&self, inventory: &Inventory) {
        // With nobody to test the thread gives back what it keeps for instances.
        let is_on = self.policy.enabled && !self.off;
        let ready = inventory.pairs.iter().filter(|pair| is_on && pair.live.is_ready());
        let pairs = ready
            .map(|pair| {
                (target(&pair.live), pair.shadow.as_ref().filter(|shadow| shadow.is_ready()).map(target))
            })
            .collect();
        let limits = instances(inventory).filter_map(|instance| Some(instance.resources.cpu?.cores()));
        let cores = limits.fold(1.0, f64::min);
        let known = instances(inventory).map(|instance| instance.id.clone()).collect();
        if self.turns.try_send(Turn { pairs, policy: self.policy.clone(), cores, known }).is_err() {
            tracing::debug!("Probes are behind, one turn is left out");
        }
    }
}

/// What the probing thread holds.
struct Probing {
    prober: Prober,
    /// The tests by turns, with the policy they are made from.
    rotation: Option<(ProbePolicy, Rotation)>,
    tick: Duration,
    /// The controller's own folder.
    state: PathBuf,
    /// The pair that is first in the next turn: where time is too short for all, nobody is left out for ever.
    next: usize,
    results: mpsc::Sender<Bursts>,
}

impl Probing {
    fn take(&mut self, turn: Turn) {
        let Turn { mut pairs, policy, cores, known } = turn;
        self.prober.keep_only(&known);
        if pairs.is_empty() {
            return;
        }
        let rotation = match &mut self.rotation {
            Some((of, rotation)) if *of == policy => rotation,
            other => &mut other.insert((policy.clone(), Rotation::new(&policy))).1,
        };
        let tests = rotation.due(policy.budget.get() * cores, self.tick);
        if tests.is_empty() {
            return;
        }
        let fallback = Some(self.state.clone());
        let volume = Volume { directory: policy.storage.directory, size: policy.storage.size, fallback };
        let give_up = GIVE_UP_MAX.min(self.tick / 2);
        let round = Round { tests, volume, peer: policy.network.peer, give_up };
        let until = monotonic().saturating_add(self.tick);
        let first = self.next % pairs.len();
        pairs.rotate_left(first);
        let mut sides = Vec::new();
        for (done, (live, shadow)) in pairs.into_iter().enumerate() {
            if until <= monotonic() {
                tracing::debug!(
                    done,
                    "A tick is too short to test all instances; the others are first next time"
                );
                break;
            }
            self.next = first + done + 1;
            let (on_live, on_shadow) = self.prober.run_pair(&live, shadow.as_ref(), &round);
            sides.extend(
                [Some((live, on_live)), shadow.map(|shadow| (shadow, on_shadow))].into_iter().flatten(),
            );
        }
        rotation.spent(&round.tests, sides.iter().map(|(_, side)| side));
        for (target, side) in sides {
            if self.results.try_send((target.instance, side.bursts)).is_err() {
                tracing::debug!("Loop does not keep up with bursts");
            }
        }
    }
}

fn reader(instance: &Instance) -> SignalReader {
    SignalReader::new(instance.cgroup.clone(), instance.netns.is_some())
}

fn target(instance: &Instance) -> Target {
    Target {
        instance: instance.id.clone(),
        cgroup: instance.cgroup.clone(),
        pid: instance.pids.first().copied(),
        netns: instance.netns.clone(),
    }
}

fn instances(inventory: &Inventory) -> impl Iterator<Item = &Instance> {
    inventory.pairs.iter().flat_map(|pair| std::iter::once(&pair.live).chain(pair.shadow.as_ref()))
}
