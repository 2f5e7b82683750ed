//! The rules of the performance tests and of the memory profile.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Bytes, EgressTarget, Ratio};

/// Which performance tests run inside the instances, and what they may cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbePolicy {
    /// Off switch of all tests; passive signals and profiles go on.
    pub enabled: bool,
    /// Processor time that all tests in one instance may take, relative to one core, or to what the smallest instance may
    /// use of one if that is less.
    pub budget: Ratio,
    /// Whether memory is tested.
    pub memory: bool,
    /// Tests of the instance's volume.
    pub storage: StorageProbe,
    /// Tests of the network.
    pub network: NetworkProbe,
    /// The memory profile.
    pub profile: ProfilePolicy,
    /// Pressure on shadows.
    pub press: PressPolicy,
}

/// Tests of the instance's volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StorageProbe {
    /// Whether they run.
    pub enabled: bool,
    /// Size of the file they read and write; it has no name and is gone with the controller.
    pub size: Bytes,
    /// Where, as the instance sees it; `None` is the working directory of its first process.
    pub directory: Option<PathBuf>,
}

/// Tests of the network, from the instance's network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkProbe {
    /// Whether they run.
    pub enabled: bool,
    /// Whom to connect to, and whose name to look up.
    pub targets: Vec<EgressTarget>,
    /// Who answers round trips and takes bulk (`foreshadow probe answer`); `None` is the instance's own loopback.
    pub peer: Option<SocketAddr>,
}

/// The memory profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProfilePolicy {
    /// Whether profiles are taken.
    pub enabled: bool,
    /// From one to the next.
    pub every: Duration,
    /// Whether a shadow that holds clearly less memory than its live is given as much to hold.
    pub ballast: bool,
}

/// Small pressure on the processor of shadows, to learn how much their workload answers to a shortage of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PressPolicy {
    /// Whether shadows are pressed.
    pub enabled: bool,
    /// From one time to the next, for each shadow.
    pub every: Duration,
    /// For how long.
    pub lasts: Duration,
    /// How hard: share of the time in which one core of the shadow's cgroup is busy with it.
    pub share: Ratio,
}

impl Default for PressPolicy {
    fn default() -> Self {
        Self {
            enabled: false,
            every: Duration::from_secs(86_400),
            lasts: Duration::from_secs(60),
            share: Ratio::new(0.2).unwrap_or(Ratio::ZERO),
        }
    }
}

impl Default for ProbePolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            budget: Ratio::new(0.01).unwrap_or(Ratio::ZERO),
            memory: true,
            storage: StorageProbe { enabled: true, size: Bytes::mebi(16), directory: None },
            network: NetworkProbe { enabled: true, targets: Vec::new(), peer: None },
            profile: ProfilePolicy { enabled: true, every: Duration::from_secs(60), ballast: true },
            press: PressPolicy::default(),
        }
    }
}
