//! The world: lives and shadows on nodes, what is asked of them, and what befalls them.

mod told;

use std::collections::BTreeMap;

use foreshadow_model::wire::{Summary, UpstreamSummary};
use foreshadow_model::{
    Bytes, CgroupSignals, Fault, FaultKind, Generation, InstanceId, Inventory, LoadModel, MilliCpu, NoShadow,
    NodeModel, NodeName, NodeRoom, Pair, PerSecond, Resources, Role, SampleRate, Scenario, ServiceModel,
    Weight,
};

use crate::noise::Noise;
use crate::replica::{Around, Replica};
use told::{Met, upstream};

/// Copies per second and pair, at most; as `mirror.budget` has it.
const COPIES_MOST: f64 = 200.0;

/// What the mix of requests does to both sides from tick to tick, in log units.
const MIX_SPREAD: f64 = 0.03;

/// A live with its shadow.
#[derive(Clone, Debug)]
struct Member {
    live: Replica,
    shadow: Option<Replica>,
    /// What its shadow and those made later may use.
    shadow_resources: Resources,
}

/// What users met in a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Users {
    /// Requests per second.
    pub load: f64,
    /// The 95th percentile of their answers in seconds; `None` without a request.
    pub latency_p95: Option<f64>,
    /// Share of their requests that failed.
    pub failed: f64,
    /// Whether the objective was missed.
    pub are_hurt: bool,
}

/// What is told of a tick.
#[derive(Clone, Debug)]
pub struct Sensed {
    /// What the mirror reports; `None` when it does not.
    pub summary: Option<Summary>,
    /// What the kernel tells of each instance.
    pub signals: Vec<(InstanceId, CgroupSignals)>,
    /// What users met.
    pub users: Users,
    /// Faults that began (`true`) or ended.
    pub befell: Vec<(FaultKind, bool)>,
}

/// The simulated world.
#[derive(Clone, Debug)]
pub struct World {
    service: ServiceModel,
    nodes: Vec<NodeModel>,
    resources: Resources,
    load: LoadModel,
    /// Requests per second by trace, each for so many seconds.
    trace: (Vec<f64>, f64),
    faults: Vec<(Fault, bool)>,
    members: BTreeMap<u32, Member>,
    weights: BTreeMap<InstanceId, Weight>,
    rates: BTreeMap<InstanceId, SampleRate>,
    amplified: BTreeMap<InstanceId, f64>,
    seconds: f64,
    /// When midnight was before the start, in seconds.
    since_midnight: f64,
    noise: Noise,
    next_pid: u32,
}

impl World {
    /// A world in which the lives of a story are up. `trace` is what its load was recorded as, requests per second each for
    /// so many seconds; not looked at where the load is another.
    #[must_use]
    pub fn new(scenario: &Scenario, trace: (Vec<f64>, f64)) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a day")]
        let since_midnight = scenario.starts_unix_ms.rem_euclid(86_400_000) as f64 / 1e3;
        let mut world = Self {
            service: scenario.service,
            nodes: scenario.nodes.clone(),
            resources: scenario.resources,
            load: scenario.load.clone(),
            trace: scaled(trace, &scenario.load),
            faults: scenario.faults.iter().map(|fault| (fault.clone(), false)).collect(),
            members: BTreeMap::new(),
            weights: BTreeMap::new(),
            rates: BTreeMap::new(),
            amplified: BTreeMap::new(),
            seconds: 0.0,
            since_midnight,
            noise: Noise::new(scenario.seed),
            next_pid: 1,
        };
        world.scale(scenario.lives);
        let start_up = scenario.service.start_up_seconds.1;
        world.members.values_mut().for_each(|member| member.live.come_up(f64::INFINITY, start_up));
        world.make_shadows();
        let shadows = world.members.values_mut().filter_map(|member| member.shadow.as_mut());
        shadows.for_each(|shadow| shadow.come_up(f64::INFINITY, start_up));
        world
    }

    /// Seconds since the start.
    #[must_use]
    pub const fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Lives that are there, those that start included.
    #[must_use]
    pub fn lives(&self) -> usize {
        self.members.len()
    }

    /// Whether some fault of this kind is there now.
    #[must_use]
    pub fn is_there(&self, kind: fn(&FaultKind) -> bool) -> bool {
        self.faults.iter().any(|(fault, is_on)| *is_on && kind(&fault.kind))
    }

    /// What is live and what shadows it.
    #[must_use]
    pub fn inventory(&self) -> Inventory {
        let mut without_shadow = BTreeMap::new();
        let pair = |member: &Member| Pair {
            live: member.live.instance.clone(),
            shadow: member.shadow.as_ref().map(|shadow| shadow.instance.clone()),
        };
        for member in self.members.values().filter(|member| member.shadow.is_none() && member.live.is_ready())
        {
            without_shadow
                .insert(member.live.instance.id.clone(), NoShadow::NoRoom("no node has room for one".into()));
        }
        let mut pairs: Vec<Pair> = self.members.values().map(pair).collect();
        pairs.sort_by(|one, other| one.live.id.cmp(&other.live.id));
        Inventory { pairs, nodes: self.rooms(), without_shadow, shadows_refused: 0 }
    }

    fn rooms(&self) -> Vec<NodeRoom> {
        let replicas =
            || self.members.values().flat_map(|member| std::iter::once(&member.live).chain(&member.shadow));
        let mut promised: BTreeMap<&NodeName, (u32, u64)> = BTreeMap::new();
        for replica in replicas() {
            let Resources { cpu, memory } = replica.instance.resources;
            let (cores, bytes) = promised.entry(&replica.instance.node).or_default();
            *cores = cores.saturating_add(cpu.map_or(0, MilliCpu::get));
            *bytes = bytes.saturating_add(memory.map_or(0, Bytes::get));
        }
        let room = |node: &NodeModel| {
            let (cores, bytes) = promised.get(&node.name).copied().unwrap_or_default();
            NodeRoom {
                name: node.name.clone(),
                zone: node.zone.clone(),
                cpu: node.cpu,
                cpu_promised: MilliCpu::new(cores),
                memory: node.memory,
                memory_promised: Bytes::new(bytes),
            }
        };
        self.nodes.iter().map(room).collect()
    }

    /// Lets `dt` seconds pass.
    pub fn step(&mut self, dt: f64) -> Sensed {
        let befell = self.befall();
        let start_up = self.service.start_up_seconds.1;
        for member in self.members.values_mut() {
            member.live.come_up(dt, start_up);
            if let Some(shadow) = &mut member.shadow {
                shadow.come_up(dt, start_up);
            }
        }
        self.make_shadows();
        let load = self.load_now();
        let (upstreams, signals, users) = self.serve(load, dt);
        self.seconds += dt;
        let reports = !self.is_there(|kind| matches!(kind, FaultKind::NoReport));
        let summary = reports.then_some(Summary {
            generation: Generation(1),
            span_seconds: dt,
            upstreams,
            refused: 0,
            cpu_seconds: 0.0,
            capture: None,
            log: None,
        });
        Sensed { summary, signals, users, befell }
    }

    /// Requests per second that are asked now.
    fn load_now(&self) -> f64 {
        let usual = match &self.load {
            LoadModel::Constant(load) => load.get(),
            LoadModel::Daily { mean, swing, peak_hour } => {
                let hours = (self.since_midnight + self.seconds) / 3600.0 - peak_hour;
                mean.get() * swing.get().mul_add((std::f64::consts::TAU * hours / 24.0).cos(), 1.0)
            }
            LoadModel::Trace { .. } => {
                let (values, seconds) = &self.trace;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a place in the trace"
                )]
                let at = (self.seconds / seconds.max(1e-9)) as usize;
                // Where nothing was recorded it goes on as it was.
                let known = values.iter().take(at + 1).rev().find(|value| value.is_finite());
                known.copied().unwrap_or(0.0)
            }
        };
        usual * self.factor(|kind| if let FaultKind::Surge { by } = kind { Some(*by) } else { None })
    }

    /// The product of what faults of a kind do now.
    fn factor(&self, of: impl Fn(&FaultKind) -> Option<f64>) -> f64 {
        self.faults.iter().filter(|(_, is_on)| *is_on).filter_map(|(fault, _)| of(&fault.kind)).product()
    }

    fn serve(
        &mut self,
        load: f64,
        dt: f64,
    ) -> (Vec<UpstreamSummary>, Vec<(InstanceId, CgroupSignals)>, Users) {
        let code_slow =
            self.factor(|kind| if let FaultKind::SlowCode { by } = kind { Some(*by) } else { None });
        let slow_nodes: BTreeMap<NodeName, f64> = self
            .nodes
            .iter()
            .map(|node| {
                let of = |kind: &FaultKind| match kind {
                    FaultKind::SlowNode { node: of, by } if *of == node.name => Some(*by),
                    _ => None,
                };
                (node.name.clone(), self.factor(of))
            })
            .collect();
        let mix = (MIX_SPREAD * self.noise.normal()).exp();
        let cores: BTreeMap<NodeName, f64> =
            self.nodes.iter().map(|node| (node.name.clone(), node.cpu.cores())).collect();
        let service = ServiceModel { seconds: self.service.seconds * mix, ..self.service };
        let around = |replica: &Replica| Around {
            service: &service,
            dt,
            node_slow: slow_nodes.get(&replica.instance.node).copied().unwrap_or(1.0),
            code_slow,
            node_cores: cores.get(&replica.instance.node).copied().unwrap_or(1.0),
        };
        let weights = &self.weights;
        let weight = |live: &InstanceId| f64::from(weights.get(live).copied().unwrap_or(Weight::FULL).get());
        let ready = || self.members.values().filter(|member| member.live.is_ready());
        let all: f64 = ready().map(|member| weight(&member.live.instance.id)).sum();
        let mut seen = Met::default();
        let (mut upstreams, mut signals) = (Vec::new(), Vec::new());
        let any_ready = 0.0 < all;
        let noise = &mut self.noise;
        for member in self.members.values_mut().filter(|member| member.live.is_ready()) {
            let live = member.live.instance.id.clone();
            let share = weights.get(&live).copied().unwrap_or(Weight::FULL);
            let expected = load * f64::from(share.get()) / all.max(1.0);
            let arrived = noise.count(expected * dt);
            let of = around(&member.live);
            let did = member.live.pass((arrived, expected), &of, noise);
            seen.add(&did);
            signals.push((live.clone(), did.signals.clone()));
            let rate = self.rates.get(&live).copied().unwrap_or_default();
            let asked = self.amplified.get(&live).copied();
            #[expect(clippy::cast_precision_loss, reason = "requests of a tick")]
            let sampled = noise.count((arrived as f64 * rate.get()).min(COPIES_MOST * dt)).min(arrived);
            let shadow = member.shadow.as_mut().filter(|shadow| shadow.is_ready());
            let copies = shadow.map(|shadow| {
                let plain = (expected * rate.get()).min(COPIES_MOST);
                let (arrived, expected) = match asked {
                    Some(load) => (noise.count(load * dt).max(sampled), load.max(plain)),
                    None => (sampled, plain),
                };
                let of = around(shadow);
                let did = shadow.pass((arrived, expected), &of, noise);
                signals.push((shadow.instance.id.clone(), did.signals.clone()));
                (shadow.instance.id.clone(), did)
            });
            upstreams.push(upstream(live, (rate, sampled, asked.is_some()), did, copies, noise));
        }
        upstreams.sort_by(|one, other| one.live.cmp(&other.live));
        (upstreams, signals, seen.users(load, &self.service, any_ready))
    }

    fn befall(&mut self) -> Vec<(FaultKind, bool)> {
        let now = self.seconds;
        let mut befell = Vec::new();
        for n in 0..self.faults.len() {
            let (fault, was_on) = self.faults[n].clone();
            let ends = fault.lasts_seconds.map_or(f64::INFINITY, |lasts| fault.at_seconds + lasts);
            let is_on = fault.at_seconds <= now && now < ends;
            if is_on == was_on {
                continue;
            }
            self.faults[n].1 = is_on;
            befell.push((fault.kind.clone(), is_on));
            match &fault.kind {
                FaultKind::Starve { live, to } => self.starve(live, *to, is_on),
                FaultKind::Errors { live, share } => {
                    let share = if is_on { share.get() } else { 0.0 };
                    self.member(live, |member| member.live.errors = share);
                }
                FaultKind::SlowLive { live, by } => {
                    let by = if is_on { *by } else { 1.0 };
                    self.member(live, |member| member.live.slow = by);
                }
                FaultKind::SlowShadow { live, by } => {
                    let by = if is_on { *by } else { 1.0 };
                    self.member(live, |member| {
                        if let Some(shadow) = &mut member.shadow {
                            shadow.slow = by;
                        }
                    });
                }
                FaultKind::SlowNode { .. }
                | FaultKind::SlowCode { .. }
                | FaultKind::Surge { .. }
                | FaultKind::NoReport
                | FaultKind::Pause
                | FaultKind::Revert => {}
            }
        }
        befell
    }

    /// Somebody sets the limit of a live alone; at the end it is set back, unless it has another one by then.
    fn starve(&mut self, live: &InstanceId, to: MilliCpu, is_on: bool) {
        let usual = self.resources;
        self.member(live, |member| {
            let now = member.live.instance.resources;
            // Behind foreshadow's back: no revision tells of it.
            if is_on {
                member.live.instance.resources.cpu = Some(to);
            } else if now.cpu == Some(to) {
                member.live.instance.resources.cpu = usual.cpu;
            }
        });
    }

    fn member(&mut self, live: &InstanceId, change: impl FnOnce(&mut Member)) {
        let number = live.number();
        if let Some(member) = number.and_then(|number| self.members.get_mut(&number)) {
            change(member);
        }
    }

    fn start_up(&mut self) -> f64 {
        let (least, most) = self.service.start_up_seconds;
        (most - least).mul_add(self.noise.uniform(), least)
    }

    fn pid(&mut self) -> u32 {
        self.next_pid += 1;
        self.next_pid
    }

    /// Every live that is ready has a shadow, or begins to have one: on the next node round that is not its own and has room,
    /// by preference one without a live.
    fn make_shadows(&mut self) {
        let lacking = |(_, member): &(&u32, &Member)| member.live.is_ready() && member.shadow.is_none();
        let lacking: Vec<u32> = self.members.iter().filter(lacking).map(|(number, _)| *number).collect();
        for number in lacking {
            let rooms = self.rooms();
            let Some(member) = self.members.get(&number) else { continue };
            let (own, needed) = (member.live.instance.node.clone(), member.shadow_resources);
            let first = usize::try_from(number).unwrap_or(0);
            let mut round: Vec<&NodeRoom> =
                (0..rooms.len()).map(|step| &rooms[(first + step) % rooms.len()]).collect();
            round.sort_by_key(|room| {
                self.members.values().any(|member| member.live.instance.node == room.name)
            });
            let fits = |room: &&NodeRoom| {
                (rooms.len() < 2 || room.name != own)
                    && needed.cpu.is_none_or(|cpu| cpu <= room.cpu_left())
                    && needed.memory.zip(room.memory_left()).is_none_or(|(memory, left)| memory <= left)
            };
            let fitting = round.into_iter().find(|room| fits(room)).map(|room| room.name.clone());
            let Some(node) = fitting else { continue };
            let (seconds, pid) = (self.start_up(), self.pid());
            let id = InstanceId::live(number).shadow_of();
            let mut shadow = Replica::new(id, Role::Shadow, node, needed);
            shadow.begin(seconds, pid);
            shadow.instance.revision = u64::from(pid);
            self.member(&InstanceId::live(number), |member| member.shadow = Some(shadow));
        }
    }

    /// Sets the cpu limits of a live and of its shadow.
    pub fn resize(&mut self, live: &InstanceId, of_live: Option<MilliCpu>, of_shadow: Option<MilliCpu>) {
        self.limit(live, |resources| resources.cpu = of_live, |resources| resources.cpu = of_shadow);
    }

    /// Sets the memory limits of a live and of its shadow.
    pub fn resize_memory(&mut self, live: &InstanceId, of_live: Option<Bytes>, of_shadow: Option<Bytes>) {
        self.limit(live, |resources| resources.memory = of_live, |resources| resources.memory = of_shadow);
    }

    fn limit(
        &mut self,
        live: &InstanceId,
        of_live: impl Fn(&mut Resources),
        of_shadow: impl Fn(&mut Resources),
    ) {
        self.member(live, |member| {
            let mut resources = member.live.instance.resources;
            of_live(&mut resources);
            member.live.resize(resources);
            of_shadow(&mut member.shadow_resources);
            if let Some(shadow) = &mut member.shadow {
                shadow.resize(member.shadow_resources);
            }
        });
    }

    /// Begins to make the number of lives this; those that are one too many are gone at once.
    pub fn scale(&mut self, lives: u32) {
        self.members.retain(|number, _| *number <= lives);
        self.weights.retain(|live, _| live.number().is_some_and(|number| number <= lives));
        for number in 1..=lives {
            if self.members.contains_key(&number) {
                continue;
            }
            let at = usize::try_from(number - 1).unwrap_or(0) % self.nodes.len().max(1);
            let node = self.nodes[at].name.clone();
            let (seconds, pid) = (self.start_up(), self.pid());
            let mut live = Replica::new(InstanceId::live(number), Role::Live, node, self.resources);
            live.begin(seconds, pid);
            live.instance.revision = u64::from(pid);
            let member = Member { live, shadow: None, shadow_resources: self.resources };
            self.members.insert(number, member);
        }
    }

    /// Begins a live anew on another node; its shadow is made anew when it is ready.
    pub fn replace(&mut self, live: &InstanceId, node: &NodeName) {
        let (seconds, pid) = (self.start_up(), self.pid());
        self.member(live, |member| {
            member.live.instance.node = node.clone();
            member.live.begin(seconds, pid);
            member.shadow = None;
        });
    }

    /// Ends the shadow of a live; another one is made.
    pub fn recreate_shadow(&mut self, live: &InstanceId) {
        self.member(live, |member| member.shadow = None);
    }

    /// Whether all lives, or the one that is named, are up.
    #[must_use]
    pub fn are_ready(&self, live: Option<&InstanceId>) -> bool {
        let is_meant = |member: &&Member| live.is_none_or(|live| member.live.instance.id == *live);
        self.members.values().filter(is_meant).all(|member| member.live.is_ready())
    }

    /// Whether there is such a live.
    #[must_use]
    pub fn has(&self, live: &InstanceId) -> bool {
        live.number().is_some_and(|number| self.members.contains_key(&number))
    }

    /// Sets the share of a live.
    pub fn set_weight(&mut self, live: &InstanceId, weight: Weight) {
        self.weights.insert(live.clone(), weight);
    }

    /// Shares of traffic; a live that is not listed has a full one.
    #[must_use]
    pub const fn weights(&self) -> &BTreeMap<InstanceId, Weight> {
        &self.weights
    }

    /// How much of each live is mirrored.
    #[must_use]
    pub const fn rates(&self) -> &BTreeMap<InstanceId, SampleRate> {
        &self.rates
    }

    /// Sets how much of each live is mirrored from now on.
    pub fn set_rates(&mut self, rates: BTreeMap<InstanceId, SampleRate>) {
        self.rates = rates;
    }

    /// Offers the shadow of a live so many requests per second from now on; 0 are its copies alone.
    pub fn amplify(&mut self, live: &InstanceId, load: f64) {
        if 0.0 < load {
            self.amplified.insert(live.clone(), load);
        } else {
            self.amplified.remove(live);
        }
    }
}

/// The trace with its busiest moment as the story wants it.
fn scaled((mut values, seconds): (Vec<f64>, f64), load: &LoadModel) -> (Vec<f64>, f64) {
    let most = values.iter().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
    if let LoadModel::Trace { most: Some(wanted), .. } = load
        && 0.0 < most
    {
        values.iter_mut().for_each(|value| *value *= PerSecond::get(*wanted) / most);
    }
    (values, seconds)
}

#[cfg(test)]
mod tests;
