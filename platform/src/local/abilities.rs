//! What this machine lets us enforce, each lack with its remedy.

use std::fs;

use foreshadow_model::{Bytes, Resources};

use super::cgroup::{self, Hierarchy};
use super::netns;
use super::nodes::allowed_processors;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub what: &'static str,
    /// Whether it works here.
    pub works: bool,
    /// What was found, in words; for what does not work, what is lost by it.
    pub found: String,
    /// What would make it work; empty if it works.
    pub remedy: String,
}

impl Finding {
    /// What is lost and what would help, in a sentence; `None` if it works.
    pub(crate) fn lack(&self) -> Option<String> {
        let Self { what, found, remedy, .. } = self;
        (!self.works).then(|| format!("{what}: {found}; {remedy}"))
    }
}

/// What this machine lets us enforce.
#[derive(Clone, Debug)]
pub struct Abilities {
    /// The cgroup trees, if they can be written to.
    pub cgroups: Option<Hierarchy>,
    /// Whether shadows can be shut into namespaces.
    pub namespaces: bool,
    /// How that was found out.
    pub findings: Vec<Finding>,
}

impl Abilities {
    /// Tries everything once and leaves nothing behind.
    #[must_use]
    pub fn detect() -> Self {
        let (cgroups, cgroup_finding) = detect_cgroups();
        let namespaces = netns::is_possible();
        let namespace_finding = Finding {
            what: "namespaces",
            works: namespaces,
            found: if namespaces {
                "shadows get a network and a view of the disk of their own".into()
            } else {
                "the egress of shadows cannot be denied and their writes cannot be kept apart".into()
            },
            remedy: if namespaces {
                String::new()
            } else {
                "run foreshadow as root, or with CAP_SYS_ADMIN".into()
            },
        };
        Self { cgroups, namespaces, findings: vec![cgroup_finding, namespace_finding, detect_psi()] }
    }

    /// Memory that instances can have: the machine's, or less where all of this is in a container.
    pub(crate) fn memory(&self) -> Option<Bytes> {
        let container = self.cgroups.as_ref().and_then(Hierarchy::memory_of_all);
        [meminfo("MemTotal:"), container].into_iter().flatten().min()
    }

    /// What cannot be enforced, one sentence each.
    #[must_use]
    pub fn unenforced(&self) -> Vec<String> {
        self.findings.iter().filter_map(Finding::lack).collect()
    }
}

/// A line of `/proc/meminfo`, by its name with the colon.
pub(crate) fn meminfo(name: &str) -> Option<Bytes> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibi: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Bytes::new(kibi << 10))
}

fn detect_cgroups() -> (Option<Hierarchy>, Finding) {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let lost =
        "cpu and memory limits cannot be set or measured, and what leaves its session outlives its live";
    let finding =
        |works, found: String, remedy: &str| Finding { what: "cgroups", works, found, remedy: remedy.into() };
    let Some(hierarchy) = Hierarchy::detect(&mountinfo) else {
        return (None, finding(false, format!("{lost}: none is mounted"), "mount cgroup2 on /sys/fs/cgroup"));
    };
    let name = format!("check-{}", std::process::id());
    let cpu = allowed_processors().first().map_or_else(String::new, u32::to_string);
    match hierarchy.create("check", &name, Resources::default(), &cpu) {
        Ok(paths) => {
            let found = format!(
                "{:?} with cpu{}",
                hierarchy.version(),
                if paths.memory.is_some() { " and memory" } else { "" }
            );
            drop(cgroup::remove(&paths));
            (Some(hierarchy), finding(true, found, ""))
        }
        Err(error) => {
            drop(cgroup::remove(&hierarchy.paths("check", &name)));
            let remedy = "run foreshadow as root, or under systemd with `Delegate=yes`";
            (None, finding(false, format!("{lost}: {error}"), remedy))
        }
    }
}

fn detect_psi() -> Finding {
    let works = fs::read_to_string("/proc/pressure/cpu").is_ok_and(|text| text.contains("total="));
    Finding {
        what: "pressure (PSI)",
        works,
        found: if works { "readable".into() } else { "attribution has to do without waiting times".into() },
        remedy: if works { String::new() } else { "boot with `psi=1`".into() },
    }
}
