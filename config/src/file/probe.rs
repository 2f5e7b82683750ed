//! `probe`: the performance tests on live and shadow, and the memory profile.

use std::net::SocketAddr;
use std::time::Duration;

use foreshadow_model::{Bytes, EgressTarget, ProbePolicy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::notation::{As, Located, Scalar, Text};
use crate::units::Percent;

/// The performance tests on live and shadow.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Probe {
    /// Whether tests run; passive signals and memory profiles go on without them. Default `true`: they tell "my host"
    /// from "my code".
    pub(crate) enabled: bool,
    /// Processor time that all tests in one instance may take, `0.1%` to `20%` of one core, or of what the smallest instance
    /// may use of one. Default `1%`. A short processor test comes as often as there is room for it, the others take turns.
    pub(crate) budget: Scalar<Percent>,
    /// Whether the bandwidth and latency of memory are tested: in a tenth of what is free below the limit, 64 MiB at
    /// most. Default `true`.
    pub(crate) memory: bool,
    /// Tests of the volume of each instance.
    pub(crate) storage: Storage,
    /// Tests of the network, from the network namespace of each instance.
    pub(crate) network: Network,
    /// What the memory of each instance is like.
    pub(crate) profile: Profile,
    /// Small pressure on shadows, to learn what their workload answers to.
    pub(crate) press: Press,
}

/// Reads and writes past the page cache, in a file without a name.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Storage {
    /// Whether they run. Default `true`.
    pub(crate) enabled: bool,
    /// Size of the file, `1Mi` to `1Gi`; as much again must be free. It is written once and gone with foreshadow,
    /// however that ends. Default `16Mi`.
    pub(crate) size: Scalar<Bytes>,
    /// The directory, as the instance sees it. Default: the working directory of its first process.
    pub(crate) directory: Option<Located<Text>>,
}

/// Round trips, bulk, connections and names.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Network {
    /// Whether they run. Default `true`.
    pub(crate) enabled: bool,
    /// Hosts with their port that are connected to, once every twelve ticks, and whose names are looked up: what the service
    /// depends on. The connection is closed without a word; some servers count those who do that (MySQL,
    /// `max_connect_errors`). Default: none, because nobody is contacted unasked.
    pub(crate) targets: Vec<As<EgressTarget>>,
    /// Where `foreshadow probe answer` listens on another node: it answers round trips and takes bulk. Default: both ends
    /// in the instance, which tells of its processor and kernel, and of no cable.
    pub(crate) peer: Option<As<SocketAddr>>,
}

/// Size, working set, rate of change and growth of the memory of each instance. No content leaves the machine.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Profile {
    /// Whether profiles are taken. Default `true`.
    pub(crate) enabled: bool,
    /// From one to the next, `10s` or more. Default `60s`.
    pub(crate) every: Scalar<Duration>,
    /// Whether a shadow whose memory is more than a fifth smaller than its live's holds the rest as ballast, changed as
    /// fast as live's. Given back at once when memory is short. Default `true`: with less memory a shadow is faster than
    /// its live can be.
    pub(crate) ballast: bool,
}

/// The processor of a shadow is pressed for a while, one shadow at a time in the whole service, while all is calm, and only where no
/// live stands on its node. Its live is judged by its own past meanwhile. How much slower the shadow becomes says how much of a later
/// shift a shortage of processor explains.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Press {
    /// Whether it is done. Default `false`: every resource is taken to matter alike.
    pub(crate) enabled: bool,
    /// From one time to the next, for each shadow, `1m` or more. Default `1d`.
    pub(crate) every: Scalar<Duration>,
    /// For how long, `10s` to `10m`, and eight ticks at least; then it rests as long. Default `60s`.
    pub(crate) lasts: Scalar<Duration>,
    /// How hard: share of the time in which one core of the shadow's own cgroup is busy with it, `1%` to `100%`. Default `20%`.
    pub(crate) share: Scalar<Percent>,
}

impl Default for Press {
    fn default() -> Self {
        let policy = ProbePolicy::default().press;
        Self {
            enabled: policy.enabled,
            every: Scalar::of(policy.every),
            lasts: Scalar::of(policy.lasts),
            share: Scalar::of(Percent::of_fraction(policy.share.get())),
        }
    }
}

impl Default for Probe {
    fn default() -> Self {
        let policy = ProbePolicy::default();
        Self {
            enabled: policy.enabled,
            budget: Scalar::of(Percent::of_fraction(policy.budget.get())),
            memory: policy.memory,
            storage: Storage::default(),
            network: Network::default(),
            profile: Profile::default(),
            press: Press::default(),
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        let policy = ProbePolicy::default().storage;
        Self { enabled: policy.enabled, size: Scalar::of(policy.size), directory: None }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self { enabled: ProbePolicy::default().network.enabled, targets: Vec::new(), peer: None }
    }
}

impl Default for Profile {
    fn default() -> Self {
        let policy = ProbePolicy::default().profile;
        Self { enabled: policy.enabled, every: Scalar::of(policy.every), ballast: policy.ballast }
    }
}
