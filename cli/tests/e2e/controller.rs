//! A controller under test: started as a user would, spoken to through the command line.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

/// How often a state that is waited for is looked at.
/// Every look is a process: more of them would be a load of their own.
const POLL: Duration = Duration::from_millis(400);

/// One test at a time.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The binary that is shipped.
pub(crate) fn foreshadow() -> Command {
    Command::new(assert_cmd::cargo::cargo_bin!("foreshadow"))
}

/// The configuration of the bundled sample service, with these lines besides.
pub(crate) fn sample(service: &str, lives: u32, resources: &str, more: &str) -> String {
    let program = assert_cmd::cargo::cargo_bin!("foreshadow").display().to_string();
    format!(
        "service: {service}\ntick: 1s\nlisten: 127.0.0.1:0\nstate: state\nplatform:\n  type: local\n  local:\n    \
         command: [{program:?}, sample-service]\n    ready: {{ http: /healthz }}\n    lives: {lives}\n    \
         resources: {{ {resources} }}\n{more}"
    )
}

/// A running controller with its folder. Ended, and everything it started with it, when dropped.
pub(crate) struct Controller {
    pub(crate) folder: PathBuf,
    child: Child,
    _temporary: tempfile::TempDir,
}

impl Controller {
    /// Starts `foreshadow run` on this configuration.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_prepared(config, |_| {})
    }

    /// Starts `foreshadow run` on this configuration, with these files beside it.
    pub(crate) fn start_with(config: &str, files: &[(&str, &str)]) -> Self {
        Self::start_prepared(config, |folder| {
            files.iter().for_each(|(name, text)| std::fs::write(folder.join(name), text).unwrap());
        })
    }

    /// Starts it in a folder that holds what the service needs.
    pub(crate) fn start_prepared(config: &str, prepare: impl FnOnce(&Path)) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().to_path_buf();
        prepare(&folder);
        std::fs::write(folder.join("foreshadow.yaml"), config).unwrap();
        let child = run(&folder, None);
        Self { folder, child, _temporary: temporary }
    }

    /// Starts another controller on the same folder, after the first one ended.
    pub(crate) fn again(&mut self) {
        self.child = run(&self.folder, None);
    }

    /// The same, and it dies beside an entry of its journal: `intent:after:1`.
    pub(crate) fn again_until(&mut self, die_at: &str) {
        self.child = run(&self.folder, Some(die_at));
    }

    /// Whether the controller has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Runs a command about this controller.
    pub(crate) fn command(&self, words: &[&str]) -> Output {
        foreshadow().args(words).arg("--config").arg(self.folder.join("foreshadow.yaml")).output().unwrap()
    }

    /// The status, once there is one.
    pub(crate) fn status(&self) -> Option<Value> {
        let output = self.command(&["status", "--output", "json"]);
        serde_json::from_slice(&output.stdout).ok()
    }

    /// The verdicts on a live among the last entries of the journal, as JSON, the oldest first.
    pub(crate) fn verdicts(&self, live: &str) -> Vec<String> {
        let output = self.command(&["explain", live, "--output", "json"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let entries = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let verdict = |entry: Value| {
            let event = &entry["event"];
            (event["type"] == "verdictChanged").then(|| event["assessment"]["verdict"].to_string())
        };
        entries.filter_map(verdict).collect()
    }

    /// Asserts that there were verdicts on these lives, and that none of the last ones is against them.
    pub(crate) fn assert_never_degraded(&self, lives: &[&str]) {
        for live in lives {
            let verdicts = self.verdicts(live);
            assert!(!verdicts.is_empty(), "nothing was said of {live}, so nothing is proved");
            assert!(!verdicts.iter().any(|verdict| verdict.contains("egraded")), "{live}: {verdicts:?}");
        }
    }

    /// Waits until the status is as wanted; panics with the log when it takes too long.
    pub(crate) fn wait(&self, what: &str, limit: Duration, wanted: impl FnMut(&Value) -> bool) -> Value {
        self.try_wait(what, limit, wanted).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Waits until the status is as wanted; says what it is instead when it takes too long.
    pub(crate) fn try_wait(
        &self,
        what: &str,
        limit: Duration,
        mut wanted: impl FnMut(&Value) -> bool,
    ) -> Result<Value, String> {
        let tries = limit.as_millis() / POLL.as_millis();
        let mut last = None;
        for _ in 0..tries {
            if let Some(status) = self.status() {
                if wanted(&status) {
                    return Ok(status);
                }
                last = Some(status);
            }
            sleep(POLL);
        }
        Err(format!("no {what} within {limit:?}; last status:\n{last:#?}\nlog:\n{}", self.log()))
    }

    /// Waits until every pair has a shadow that is ready.
    pub(crate) fn wait_ready(&self) -> Value {
        self.wait("shadows", Duration::from_secs(60), |status| {
            let pairs = status["pairs"].as_array().unwrap();
            !pairs.is_empty()
                && pairs
                    .iter()
                    .all(|pair| pair["shadow"]["phase"] == "ready" && pair["live"]["phase"] == "ready")
        })
    }

    /// Ends what `onExit: leave` left behind, also when the test failed half-way.
    fn sweep(&self) {
        let record = std::fs::read_to_string(self.folder.join("state/instances.json")).unwrap_or_default();
        let record: Value = serde_json::from_str(&record).unwrap_or_default();
        let left: Vec<&Value> =
            record["instances"].as_object().into_iter().flat_map(|all| all.values()).collect();
        for pid in left.iter().filter_map(|instance| instance["process"]["pid"].as_u64()) {
            Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status().unwrap();
        }
        left.iter().for_each(|instance| remove_cgroup(&instance["instance"]["cgroup"]));
        // The mirror names its socket, which lies in this test's own folder, on its command line.
        Command::new("pkill")
            .args(["-9", "-f", &self.folder.join("state/mirror.sock").display().to_string()])
            .status()
            .unwrap();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("run.log")).unwrap_or_default()
    }

    /// Waits for the controller's end and returns its exit code.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub(crate) fn signal(&self, signal: &str) {
        Command::new("kill").args([format!("-{signal}"), self.child.id().to_string()]).status().unwrap();
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal("TERM");
            self.child.wait().unwrap();
        }
        self.sweep();
    }
}

/// Removes what no controller is there to remove, the service's own folder included once it is empty.
fn remove_cgroup(paths: &Value) {
    for path in paths.as_object().into_iter().flat_map(|all| all.values()).filter_map(Value::as_str) {
        // What was killed ends a moment later.
        for _ in 0..20 {
            if !Path::new(path).exists() || std::fs::remove_dir(path).is_ok() {
                break;
            }
            sleep(Duration::from_millis(50));
        }
        if let Some(service) = Path::new(path).parent() {
            std::fs::remove_dir(service).ok();
        }
    }
}

fn run(folder: &Path, die_at: Option<&str>) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("run.log")).unwrap();
    foreshadow()
        .envs(die_at.map(|at| ("FORESHADOW_DIE_AT", at)))
        .arg("run")
        .arg(folder.join("foreshadow.yaml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Whether somebody listens there, and goes on doing so: a socket that was bound to find a free port lives on for a moment in a child that
/// another test is just starting.
pub(crate) fn is_listening(address: SocketAddr) -> bool {
    let connects = || TcpStream::connect(address).is_ok();
    connects() && {
        sleep(Duration::from_millis(50));
        connects()
    }
}

/// Waits until something is so; panics when it takes too long.
pub(crate) fn wait_until(what: &str, limit: Duration, is_so: impl Fn() -> bool) {
    const LOOK_EVERY: Duration = Duration::from_millis(50);
    let looks = limit.as_millis() / LOOK_EVERY.as_millis();
    let is_so_at_last = (0..looks).any(|_| {
        is_so() || {
            sleep(LOOK_EVERY);
            false
        }
    });
    assert!(is_so_at_last, "{what} not within {limit:?}");
}

/// The first pair's live of this name.
pub(crate) fn pair<'a>(status: &'a Value, live: &str) -> &'a Value {
    status["pairs"].as_array().unwrap().iter().find(|pair| pair["live"]["id"] == live).unwrap()
}

/// Whether this test can set limits: skips loudly, except on CI, which must have what it needs.
pub(crate) fn has_cgroups() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("foreshadow.yaml");
    std::fs::write(
        &file,
        "service: check\nlisten: 127.0.0.1:0\nplatform:\n  type: local\n  local: { command: [\"true\"] }\n",
    )
    .unwrap();
    let output = foreshadow().args(["check", "-o", "json"]).arg(file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let works = text.lines().any(|line| line.contains(r#""what":"cgroups","isFine":true"#));
    assert!(works || std::env::var_os("CI").is_none(), "CI must have root and cgroups: {text}");
    if !works {
        eprintln!("SKIPPED: needs root and cgroups");
    }
    works
}

/// Whether these programs are on the path: skips loudly, except on CI, which must have what it needs.
pub(crate) fn needs(programs: &[&str]) -> bool {
    let missing: Vec<&str> = programs.iter().copied().filter(|name| program(name).is_none()).collect();
    assert!(missing.is_empty() || std::env::var_os("CI").is_none(), "CI must have {}", missing.join(", "));
    if !missing.is_empty() {
        eprintln!("SKIPPED: needs {}", missing.join(", "));
    }
    missing.is_empty()
}

/// What a command that is given `input` answers. One that refuses its arguments reads nothing.
pub(crate) fn fed(command: &mut Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap_or_default();
    child.wait_with_output().unwrap()
}

/// Where a program is on the path.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// A load that runs; ended when dropped.
pub(crate) struct Load(Child);

impl Load {
    pub(crate) fn of(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// Ends it and waits for its report; panics if it had ended by itself, since then nothing was proved.
    pub(crate) fn end(&mut self) {
        assert!(self.0.try_wait().unwrap().is_none(), "the load must still run");
        Command::new("kill").args(["-INT", &self.0.id().to_string()]).status().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Asks for `path` sixty times a second, over twenty connections, for `length`.
pub(crate) fn hey(status: &Value, path: &str, length: &str, report: &Path) -> Load {
    let url = format!("http://{}{path}", status["listen"].as_str().unwrap());
    let mut hey = Command::new("hey");
    Load::of(
        hey.args(["-z", length, "-c", "20", "-q", "3", &url]).stdout(std::fs::File::create(report).unwrap()),
    )
}

/// Measures for five seconds what an instance uses, in cores.
pub(crate) fn cores_used(live: &Value) -> f64 {
    let used = || -> f64 {
        if let Ok(nanos) = std::fs::read_to_string(cgroup(live, "cpuacct").join("cpuacct.usage")) {
            return nanos.trim().parse::<f64>().unwrap() / 1e9;
        }
        let stat = std::fs::read_to_string(cgroup(live, "cpu").join("cpu.stat")).unwrap();
        let micros = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap();
        micros.parse::<f64>().unwrap() / 1e6
    };
    let before = used();
    sleep(Duration::from_secs(5));
    (used() - before) / 5.0
}

fn cgroup(live: &Value, name: &str) -> PathBuf {
    PathBuf::from(live["cgroup"][name].as_str().unwrap())
}

/// The cpu quota of an instance, read and written behind the controller's back: microseconds of every tenth of a second.
pub(crate) struct Quota(PathBuf);

impl Quota {
    pub(crate) fn of(instance: &Value) -> Self {
        let v2 = cgroup(instance, "cpu").join("cpu.max");
        Self(if v2.exists() { v2 } else { cgroup(instance, "cpu").join("cpu.cfs_quota_us") })
    }

    pub(crate) fn get(&self) -> u64 {
        let text = std::fs::read_to_string(&self.0).unwrap();
        text.split_ascii_whitespace().next().unwrap().parse().unwrap()
    }

    pub(crate) fn set(&self, micros: u64) {
        let period = if self.0.ends_with("cpu.max") { " 100000" } else { "" };
        std::fs::write(&self.0, format!("{micros}{period}")).unwrap();
    }
}

/// Leaves live 80 % of the processor time it uses, behind the controller's back.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "microseconds of a tenth of a second"
)]
pub(crate) fn starve(live: &Value) {
    Quota::of(live).set((cores_used(live) * 0.8 * 100_000.0).round() as u64);
}

/// The verdict on a live, as JSON.
pub(crate) fn verdict(status: &Value, live: &str) -> String {
    pair(status, live)["assessment"]["verdict"].to_string()
}
