//! What each demo is about: the service, how much it is asked, and how it is configured.

use std::path::Path;
use std::time::Duration;

use foreshadow_engine::model::Mode;

use super::score::Objective;
use crate::args::Fault;

/// One demo.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Story {
    pub(crate) fault: Fault,
    /// The service in one sentence.
    pub(crate) about: &'static str,
    /// Its arguments.
    service: &'static [&'static str],
    /// Requests per second before the fault.
    pub(crate) rate: f64,
    /// Of how many in a hundred requests the objective speaks. A shift leaves up to a fifth of the users to the sick live,
    /// and lost packets hurt few.
    percent: usize,
    /// They are answered within this time; `None` is half as much again as they are used to.
    within: Option<Duration>,
    /// The size of a live, and those it may be given.
    cpu: &'static str,
    cpu_sizes: &'static str,
}

impl Story {
    /// The story of a fault.
    pub(crate) fn of(fault: Fault) -> Self {
        let plain = Self {
            fault,
            about: "A sample service works some two milliseconds for every request.",
            service: &[],
            rate: 120.0,
            percent: 95,
            within: Some(Duration::from_millis(100)),
            cpu: "300m",
            cpu_sizes: "[300m, 450m]",
        };
        match fault {
            Fault::Cpu | Fault::Errors => plain,
            Fault::Network => Self { percent: 97, ..plain },
            Fault::Latency => Self { percent: 80, within: None, ..plain },
            Fault::Memory => Self {
                about: "A sample service looks up 96 blocks of a file of 48 MiB for every request.",
                service: &["--reads", "96"],
                percent: 80,
                within: None,
                rate: 60.0,
                ..plain
            },
            Fault::Storage => Self {
                about: "A sample service reads 20 blocks from the disk for every request.",
                service: &["--reads", "20", "--direct"],
                percent: 80,
                rate: 60.0,
                ..plain
            },
            // As large as it may get: more of the same is the only way.
            Fault::Overload => Self { cpu: "150m", cpu_sizes: "[150m]", rate: 60.0, ..plain },
        }
    }

    /// The objective of users whose p95 was `usual` before the fault.
    pub(crate) fn objective(&self, usual: Duration) -> Objective {
        Objective { percent: self.percent, within: self.within.unwrap_or_else(|| usual.mul_f64(1.5)) }
    }

    /// Whether the fault may be the work of a proxy in front of live, also as a stand-in for what this machine lacks.
    fn has_proxy(&self) -> bool {
        !matches!(self.fault, Fault::Cpu | Fault::Overload)
    }

    /// The configuration file for a controller whose state is beside it.
    pub(crate) fn configuration(&self, program: &Path, mode: Mode) -> String {
        let program = format!("{program:?}");
        let mut command: Vec<&str> = vec![&program];
        if self.has_proxy() {
            command.extend(["lab", "proxy", "--control", "faults", "--", &program]);
        }
        command.push("sample-service");
        let quoted: Vec<String> = self.service.iter().map(|word| format!("{word:?}")).collect();
        command.extend(quoted.iter().map(String::as_str));
        // Without root nothing can be copied on write. Its files are only read, so nothing is lost by sharing them.
        let is_isolated = rustix::process::geteuid().is_root() && !self.service.is_empty();
        let storage = if is_isolated { "    storage: [data]\n" } else { "" };
        let (cpu, cpu_sizes) = (self.cpu, self.cpu_sizes);
        let mode = match mode {
            Mode::Act => "act",
            Mode::Observe => "observe",
        };
        format!(
            "service: demo\n\
             mode: {mode}\n\
             tick: 1s\n\
             listen: 127.0.0.1:0\n\
             state: state\n\
             platform:\n  type: local\n  local:\n    command: [{}]\n    lives: 2\n    \
             ready: {{ http: /healthz }}\n    resources: {{ cpu: {cpu}, memory: 128Mi }}\n{storage}\
             mirror:\n  session: {{ header: x-session }}\n\
             probe: {{ memory: false }}\n\
             action:\n  vertical: {{ cpuSizes: {cpu_sizes}, memorySizes: [128Mi, 192Mi] }}\n  \
             guards: {{ cooldown: 30s, verifyAfter: 15s }}\n",
            command.join(", "),
        )
    }
}

#[cfg(test)]
mod tests {
    use foreshadow_engine::config;

    use super::*;

    #[test]
    fn every_story_has_a_configuration_that_is_accepted() {
        use Fault::{Cpu, Errors, Latency, Memory, Network, Overload, Storage};
        for fault in [Cpu, Memory, Storage, Network, Latency, Errors, Overload] {
            let text = Story::of(fault).configuration(Path::new("/usr/bin/foreshadow"), Mode::Act);
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("data")).unwrap();
            let parsed = config::parse(&text, folder.path());
            assert!(parsed.is_ok(), "{}: {}", fault.name(), parsed.unwrap_err());
        }
    }
}
