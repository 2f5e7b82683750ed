//! Where the shift comes from (`DELTA.md` §6).
//!
//! *Why shares and not one guess*: a shift has several causes at times, and often none that the host knows of; what
//! no resource explains is "software or dependency" and is said so. `a_k = d_k / max(δ̂, Σ d_j)`, with `δ̂` the shift
//! of live and `d_k` that of resource `k` against its own past, times the sensitivity of the workload to it (`s_k`, 1 until it is
//! learned by putting small pressure on the shadow: [`crate::sensitivity`]).
//! *One rule beyond the formula*: where a limit is hit (`tight`), waiting multiplies without bound, so any shift is
//! explained by it; that resource then counts with at least `δ̂`.
//! *Inputs*: [`Resources`] and `δ̂`, all in log units. *First start*: without a past of a signal it has not moved.
//! *Cannot see*: locks, and a network that is slow without losing anything.

use foreshadow_model::{Attribution, BurstKind, Pressure, Resource, Share};

use crate::resources::{Resources, Series, Tested, share_of};
use crate::sensitivity::Sensitivities;
use crate::watch::HostWatch;

/// Log units by which bursts or the node's waiting must have worsened to call the node short: a tenth.
const NODE_SHORT_LOG: f64 = 0.095_310_179_804_324_9;

/// Shifts below this are too small to be divided: a tick's noise would pass for all of it.
const SHIFT_MIN_LOG: f64 = 0.048_790_164_169_432;

/// Where it is tight.
pub(crate) fn pressure_of(resources: &Resources) -> Pressure {
    let own_cgroup =
        resources.cpu_is_saturated() || resources.memory_is_short() || resources.disk_is_capped();
    // Of these two the noise is known; a tenth more in the worst of five is nothing.
    let is_known =
        |tested: &&Tested| matches!(tested.kind, BurstKind::Processor | BurstKind::MemoryBandwidth);
    let tests = [Resource::Cpu, Resource::Memory].into_iter().flat_map(|resource| resources.bursts(resource));
    let burst = tests.filter(is_known).fold(0.0, |most: f64, tested| most.max(tested.over_control()));
    let short = NODE_SHORT_LOG <= burst.max(resources.node_cpu_pressure.worse_by())
        || resources.is_starved()
        || resources.disk_is_shared();
    Pressure { own_cgroup, node: short && !own_cgroup }
}

/// What one resource did.
struct Finding {
    resource: Resource,
    /// `s_k`, if it was learned.
    sensitivity: Option<f64>,
    shift: f64,
    words: Vec<String>,
}

/// Divides the shift `shift_log` of live between the resources; `watch` knows how sure each is by itself.
pub(crate) fn attribute(
    resources: &Resources,
    watch: &HostWatch,
    sensitivities: &Sensitivities,
    shift_log: f64,
) -> Attribution {
    let shift = shift_log.max(SHIFT_MIN_LOG);
    // In this order at equal shares: memory that is short is read from disk again.
    let findings = [
        cpu(resources, Finding::new(Resource::Cpu, sensitivities), shift),
        memory(resources, Finding::new(Resource::Memory, sensitivities), shift),
        storage(resources, Finding::new(Resource::Storage, sensitivities), shift),
        network(resources, Finding::new(Resource::Network, sensitivities), shift),
    ];
    let explained: f64 = findings.iter().map(|finding| finding.shift).sum();
    let whole = shift.max(explained);
    let mut shares: Vec<Share> = findings
        .into_iter()
        .filter(|finding| 0.0 < finding.shift)
        .map(|finding| Share {
            resource: finding.resource,
            share: finding.shift / whole,
            shift_log: finding.shift,
            evidence: finding.words.join(", "),
            factor: watch.factor(finding.resource),
            sensitivity: finding.sensitivity,
        })
        .collect();
    let rest = (1.0 - explained / whole).max(0.0);
    let evidence =
        if shares.is_empty() { "no resource of the host moved with it" } else { "what no resource explains" };
    shares.push(Share {
        resource: Resource::SoftwareOrDependency,
        share: rest,
        shift_log: rest * whole,
        evidence: evidence.to_owned(),
        factor: None,
        sensitivity: None,
    });
    // Stable: a tie goes to the resource, which can be acted on.
    shares.sort_by(|a, b| b.share.total_cmp(&a.share));
    Attribution { shares }
}

fn cpu(resources: &Resources, mut finding: Finding, shift: f64) -> Finding {
    finding.waited(&resources.throttled, "throttled in", "of periods");
    finding.bursts(resources);
    finding.waited(&resources.cpu_pressure, "tasks waited for a processor", "of the time");
    if let Some(moved) = resources.run_delay.moved().filter(|moved| 0.0 < moved.shift) {
        let (now, before) = (moved.now.exp_m1(), moved.before.exp_m1());
        finding.add(moved.shift, format!("{now:.2} s runnable per second run ({before:.2} before)"));
    }
    if resources.is_starved() {
        finding.add(0.0, "bursts starved".to_owned());
    }
    if resources.cpu_is_saturated() {
        finding.shift = finding.shift.max(shift);
    }
    finding
}

fn memory(resources: &Resources, mut finding: Finding, shift: f64) -> Finding {
    finding.bursts(resources);
    finding.waited(&resources.memory_pressure, "tasks waited for memory", "of the time");
    if resources.memory_is_short() {
        let hits: u64 = resources.memory_limit_hits.iter().fold(0, |sum, &hits| sum.saturating_add(hits));
        finding.explain(shift, format!("limit hit {hits} times in the last ticks"));
        finding.pages(&resources.refaults, "pages a second were needed again");
        finding.pages(&resources.major_faults, "pages a second were read from disk");
    }
    finding
}

fn storage(resources: &Resources, mut finding: Finding, shift: f64) -> Finding {
    finding.waited(&resources.io_pressure, "tasks waited for block devices", "of the time");
    // A burst that had no processor is no word about the disk.
    if !resources.cpu_is_saturated() {
        finding.bursts(resources);
    }
    if resources.disk_is_slow() && !resources.memory_is_short() {
        let who = if resources.disk_is_shared() { "others wait as well" } else { "the shadow does not wait" };
        finding.explain(shift, who.to_owned());
    }
    finding
}

fn network(resources: &Resources, mut finding: Finding, shift: f64) -> Finding {
    if let Some(moved) = resources.retransmits.lost().filter(|_| resources.network_is_lossy()) {
        let (now, before) = (100.0 * share_of(moved.now), 100.0 * share_of(moved.before));
        finding.explain(shift, format!("{now:.1} % of segments were sent again ({before:.1} % before)"));
    }
    if !resources.cpu_is_saturated() {
        finding.bursts(resources);
    }
    finding
}

impl Finding {
    fn new(resource: Resource, sensitivities: &Sensitivities) -> Self {
        Self { resource, sensitivity: sensitivities.of(resource), shift: 0.0, words: Vec::new() }
    }

    /// Signals of one resource show the same shortage, so they are not added up: the largest counts, as far as the workload
    /// answers to it.
    fn add(&mut self, shift: f64, words: String) {
        self.explain(self.sensitivity.unwrap_or(1.0) * shift, words);
    }

    /// A limit that is hit explains so much whatever the workload is.
    fn explain(&mut self, shift: f64, words: String) {
        self.shift = self.shift.max(shift);
        self.words.push(words);
    }

    fn waited(&mut self, series: &Series, what: &str, of: &str) {
        let Some(moved) = series.moved().filter(|moved| 0.0 < moved.shift) else { return };
        let (now, before) = (100.0 * share_of(moved.now), 100.0 * share_of(moved.before));
        self.add(moved.shift, format!("{what} {now:.0} % {of} ({before:.0} % before)"));
    }

    fn pages(&mut self, series: &Series, what: &str) {
        let Some(moved) = series.moved().filter(|moved| 0.0 < moved.shift) else { return };
        self.add(0.0, format!("{:.0} {what} ({:.0} before)", moved.now.exp_m1(), moved.before.exp_m1()));
    }

    /// The tests of this resource, less what the shadow's share of each.
    fn bursts(&mut self, resources: &Resources) {
        for tested in resources.bursts(self.resource) {
            let shift = tested.over_control();
            let Some(moved) = tested.live.moved().filter(|_| 0.0 < shift) else { continue };
            self.add(
                shift,
                format!("{} burst {:.1} × its own median", tested.kind.label(), moved.shift.exp()),
            );
        }
    }
}
