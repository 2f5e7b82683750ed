//! Services that nobody here wrote, each ready to be run, asked and disturbed.

pub(crate) mod datasette;
pub(crate) mod django;
pub(crate) mod httpbin;
pub(crate) mod nginx;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::controller::program;
use crate::http::Request;

/// A service as a configuration describes it.
pub(crate) struct Service {
    pub(crate) name: &'static str,
    /// What a shell becomes the service with; `@PORT@` is where it listens, `@PYTHON@` the folder of `python`.
    pub(crate) script: &'static str,
    /// A path that answers as soon as the service does.
    pub(crate) ready: &'static str,
    /// Limits of one live: cpu and memory as they are, and one size larger.
    pub(crate) cpu: [&'static str; 2],
    pub(crate) memory: [&'static str; 2],
    /// The cpu of one live where overload is the fault: scarce, so that the machine has room for as many users.
    pub(crate) scarce_cpu: &'static str,
    /// Folders it writes to.
    pub(crate) storage: &'static [&'static str],
    /// Writes the files it needs.
    pub(crate) prepare: fn(&Path),
    /// What users ask for, cheap and dear mixed.
    pub(crate) requests: fn() -> Vec<Request>,
    /// How often they ask in a second; a third of what two lives can take.
    pub(crate) rate: u64,
    /// Faults that mean something to it.
    pub(crate) faults: &'static [&'static str],
}

impl Service {
    /// The configuration. A `fault` of the answers needs the proxy in front of the service; the others go without.
    pub(crate) fn configuration(&self, mode: &str, fault: &str) -> String {
        let program = assert_cmd::cargo::cargo_bin!("foreshadow").display().to_string();
        let is_proxied = matches!(fault, "latency" | "errors");
        let port = if is_proxied { "$BEHIND" } else { "$PORT" };
        let python = python().map(|path| path.with_file_name("")).unwrap_or_default();
        let script = self.script.replace("@PORT@", port).replace("@PYTHON@", &python.display().to_string());
        let proxy = if is_proxied {
            format!("{program:?}, lab, proxy, --control, faults, --, ")
        } else {
            String::new()
        };
        let ([cpu, cpu_more], [memory, memory_more]) = (self.cpu, self.memory);
        let (cpu, cpu_sizes) = if fault == "overload" {
            // More of the same is the only way when a live is as large as it may get.
            (self.scarce_cpu, self.scarce_cpu.to_owned())
        } else {
            (cpu, format!("{cpu}, {cpu_more}"))
        };
        format!(
            "service: e2e-{}-{}\nmode: {mode}\ntick: 1s\nlisten: 127.0.0.1:0\nstate: state\nplatform:\n  type: local\n  local:\n    \
             command: [{proxy}sh, -c, {script:?}]\n    lives: 2\n    ready: {{ http: {} }}\n    \
             resources: {{ cpu: {cpu}, memory: {memory} }}\n    storage: [{}]\n\
             mirror:\n  session: {{ header: x-session }}\nprobe: {{ memory: false }}\n\
             action:\n  vertical: {{ cpuSizes: [{cpu_sizes}], memorySizes: [{memory}, {memory_more}] }}\n  \
             guards: {{ cooldown: 30s, verifyAfter: 15s, actionsPerHour: 60 }}\n",
            self.name,
            // Others may be testing on this machine.
            std::process::id(),
            self.ready,
            self.storage.join(", "),
        )
    }
}

/// All of them that this machine has; the others are named loudly, and must be there on CI.
pub(crate) fn available() -> Vec<&'static Service> {
    let all = [
        (nginx::SERVICE, program("nginx").is_some(), "nginx"),
        (httpbin::SERVICE, has_module("httpbin"), "gunicorn and httpbin"),
        (datasette::SERVICE, has_module("datasette"), "datasette"),
        (django::SERVICE, has_module("django"), "gunicorn and django"),
    ];
    let mut found = Vec::new();
    for (service, is_there, needs) in all {
        assert!(is_there || std::env::var_os("CI").is_none(), "CI must have {needs}");
        if is_there {
            found.push(service);
        } else {
            eprintln!(
                "SKIPPED: {} needs {needs} (FORESHADOW_GUNICORN names gunicorn in a venv)",
                service.name
            );
        }
    }
    found
}

/// Whether this one is among them.
pub(crate) fn is_available(service: &Service) -> bool {
    available().iter().any(|there| there.name == service.name)
}

/// `python` beside the `gunicorn` that `FORESHADOW_GUNICORN` names, else beside the one on the path.
pub(crate) fn python() -> Option<PathBuf> {
    let named = std::env::var_os("FORESHADOW_GUNICORN").map(PathBuf::from);
    Some(named.or_else(|| program("gunicorn"))?.with_file_name("python"))
}

fn has_module(module: &str) -> bool {
    python().is_some_and(|python| {
        let import = format!("import gunicorn, {module}");
        let mut command = Command::new(python);
        command.args(["-c", &import]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    })
}

/// Runs a Python program in a folder; panics with what it says when it fails.
pub(crate) fn run_python(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = Command::new(python().unwrap())
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
