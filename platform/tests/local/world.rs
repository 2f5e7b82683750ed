//! A service of one test's own.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use foreshadow_act::Platform;
use foreshadow_model::{
    Bytes, Instance, InstanceId, Inventory, MilliCpu, Pair, Ratio, Readiness, Resources, ServiceName,
    Template,
};
use foreshadow_platform::local::cgroup::{self, Hierarchy};
use foreshadow_platform::local::{Abilities, InstanceEvent, Local, LogLimits, Settings, default_nodes};
use nix::sched::{CloneFlags, setns};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

pub(crate) const HELPER: &str = env!("CARGO_BIN_EXE_foreshadow-platform-test");

/// In the environment of all processes of a world, launchers and attendants included.
const MARK: &str = "FORESHADOW_TEST";

/// How long a state is waited for before a test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers `GET` with `ok` and `POST` with exit code and output of the shell command in its body.
const SERVICE: &str = r#"
import http.server, os, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(b"ok")
    def do_POST(self):
        command = self.rfile.read(int(self.headers["content-length"])).decode()
        done = subprocess.run(command, shell=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        self.answer(f"{done.returncode}\n{done.stdout}{done.stderr}".encode())
    def answer(self, body):
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
print("hello from", os.environ["FORESHADOW_INSTANCE"], sys.argv[1:], flush=True)
http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"#;

pub(crate) struct World {
    folder: tempfile::TempDir,
    pub(crate) settings: Settings,
    pub(crate) abilities: Abilities,
    pub(crate) python: String,
}

/// What a shell command within an instance came to.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) output: String,
}

impl World {
    /// `None`, and said loudly, where this machine does not have what the tests need.
    pub(crate) fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: needs root");
            return None;
        }
        let abilities = Abilities::detect();
        if abilities.cgroups.is_none() || !abilities.namespaces {
            eprintln!("SKIPPED: needs cgroups and namespaces: {:?}", abilities.unenforced());
            return None;
        }
        let Some(python) = python() else {
            eprintln!("SKIPPED: needs python3");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("service.py");
        fs::write(&script, SERVICE).unwrap();
        let service = unique();
        let settings = Settings {
            template: Template {
                command: vec![python.clone(), script.display().to_string(), "port=$PORT".into()],
                workdir: folder.path().to_path_buf(),
                env: [(MARK.into(), service.clone())].into(),
                shadow_env: [].into(),
                ready: Readiness::Http("/".into()),
                ready_timeout: Duration::from_secs(20),
                resources: Resources { cpu: Some(MilliCpu::new(500)), memory: Some(Bytes::mebi(256)) },
                storage: Vec::new(),
                egress_allow: Vec::new(),
            },
            service: ServiceName::new(service).unwrap(),
            nodes: default_nodes(2),
            state: folder.path().join("state"),
            logs: LogLimits { size: Bytes::mebi(1), keep: 2 },
            launcher: PathBuf::from(HELPER),
            shadow_ratio: Ratio::new(1.0).unwrap(),
            shadow_turn: Duration::from_secs(600),
            seed_shadows: false,
        };
        Some(Self { folder, settings, abilities, python })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) async fn open(&self) -> (Local, mpsc::Receiver<InstanceEvent>) {
        let (sender, events) = mpsc::channel(1024);
        let local = Local::open(self.settings.clone(), self.abilities.clone(), sender).await.unwrap();
        (local, events)
    }

    /// One live and its ready shadow.
    pub(crate) async fn pair(&self) -> (Local, Pair) {
        let (local, _) = self.open().await;
        local.start_lives(1).await.unwrap();
        let pair = until(&local, "a pair", |inventory| ready_pair(inventory, 1)).await;
        (local, pair)
    }

    /// Whether a cgroup, a mount or a copy of this service is left.
    pub(crate) fn left_overs(&self) -> Vec<String> {
        let mut left: Vec<String> = self
            .cgroup_folders()
            .iter()
            .filter(|folder| folder.exists())
            .map(|path| path.display().to_string())
            .collect();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let state = self.settings.state.display().to_string();
        left.extend(mounts.lines().filter(|line| line.contains(&state)).map(String::from));
        for folder in ["netns", "shadows"] {
            let entries = fs::read_dir(self.settings.state.join(folder)).into_iter().flatten().flatten();
            left.extend(entries.map(|entry| entry.path().display().to_string()));
        }
        left
    }

    /// Every process of this service, inside and outside of cgroups.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mark = format!("{MARK}={}\0", self.settings.service);
        let holds = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.windows(mark.len()).any(|part| part == mark.as_bytes())
        };
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(holds).collect()
    }

    /// Waits until so many pairs are ready, and looks that there is one of everything for each and no more.
    pub(crate) async fn stands(&self, local: &Local, lives: u32) -> Vec<Pair> {
        let pairs = until(local, "ready pairs", |inventory| {
            let all = (1..=lives).map(|number| ready_pair(inventory, number)).collect::<Option<Vec<_>>>()?;
            (inventory.pairs.len() == all.len()).then_some(all)
        })
        .await;
        let count = usize::try_from(lives).unwrap();
        // A live is one process, a shadow two: itself and its attendant.
        assert_eq!(self.processes().len(), 3 * count, "{:?}", self.processes());
        for pair in &pairs {
            assert_eq!((pids(&pair.live).len(), pids(pair.shadow.as_ref().unwrap()).len()), (1, 1));
        }
        let state = &self.settings.state;
        for folder in ["netns", "shadows"] {
            let there = fs::read_dir(state.join(folder)).unwrap().count();
            assert_eq!(there, count, "{folder}");
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let netns = state.join("netns").display().to_string();
        assert_eq!(mounts.lines().filter(|line| line.contains(&netns)).count(), count, "{mounts}");
        for folder in self.cgroup_folders() {
            let groups = fs::read_dir(&folder).unwrap().flatten().filter(|entry| entry.path().is_dir());
            assert_eq!(groups.count(), 2 * count, "{}", folder.display());
        }
        pairs
    }

    /// The process that was started for an instance: for a shadow, its attendant.
    pub(crate) fn started(&self, instance: &Instance) -> u32 {
        let pid = &self.read_record()["instances"][instance.id.as_str()]["process"]["pid"];
        u32::try_from(pid.as_u64().unwrap()).unwrap()
    }

    /// Where instances are written down.
    pub(crate) fn record(&self) -> PathBuf {
        self.settings.state.join("instances.json")
    }

    fn read_record(&self) -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(self.record()).unwrap()).unwrap()
    }

    /// Makes the record another one while no controller runs.
    pub(crate) fn change_record(&self, change: impl FnOnce(&mut serde_json::Value)) {
        let mut record = self.read_record();
        change(&mut record);
        fs::write(self.record(), record.to_string()).unwrap();
    }

    /// The directories of the service, one per controller.
    fn cgroup_folders(&self) -> Vec<PathBuf> {
        let Some(tree) = &self.abilities.cgroups else { return Vec::new() };
        let paths = tree.paths(self.settings.service.as_str(), "any");
        paths.directories().iter().filter_map(|path| path.parent().map(Path::to_path_buf)).collect()
    }
}

impl Drop for World {
    /// A test that failed half-way leaves nothing either.
    fn drop(&mut self) {
        for folder in self.cgroup_folders() {
            for entry in
                fs::read_dir(&folder).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir())
            {
                for _ in 0..100 {
                    let text = fs::read_to_string(entry.path().join("cgroup.procs")).unwrap_or_default();
                    for pid in text.lines().filter_map(|pid| pid.parse().ok()) {
                        kill(pid);
                    }
                    if text.is_empty() && fs::remove_dir(entry.path()).is_ok() {
                        break;
                    }
                    thread::sleep(Duration::from_millis(10));
                }
            }
            fs::remove_dir(&folder).ok();
        }
        for entry in fs::read_dir(self.settings.state.join("netns")).into_iter().flatten().flatten() {
            nix::mount::umount2(&entry.path(), nix::mount::MntFlags::MNT_DETACH).ok();
        }
    }
}

pub(crate) fn python() -> Option<String> {
    ["/usr/bin/python3", "/usr/local/bin/python3"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .map(String::from)
}

/// A controller in a process of its own, once its pairs stand, and what it made.
pub(crate) fn controller(world: &World, lives: u32) -> (Child, Inventory) {
    let mut child = spawn_controller(world, lives);
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let told: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
    (child, serde_json::from_value(told["inventory"].clone()).unwrap())
}

/// The same, before anything stands.
pub(crate) fn spawn_controller(world: &World, lives: u32) -> Child {
    let template = world.path("template.json");
    fs::write(&template, serde_json::to_vec(&world.settings.template).unwrap()).unwrap();
    Command::new(HELPER)
        .args(["control", world.settings.service.as_str()])
        .args([&world.settings.state, &template])
        .arg(lives.to_string())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

pub(crate) fn killed(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A service name nobody else has.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) fn hierarchy() -> Option<Hierarchy> {
    Hierarchy::detect(&fs::read_to_string("/proc/self/mountinfo").ok()?)
}

pub(crate) fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).ok();
}

pub(crate) fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z")))
}

pub(crate) fn ready_pair(inventory: &Inventory, number: u32) -> Option<Pair> {
    let pair = inventory.pair(&InstanceId::live(number))?;
    let ready = pair.live.is_ready() && pair.shadow.as_ref().is_some_and(Instance::is_ready);
    ready.then(|| pair.clone())
}

/// Waits for a state of the inventory.
pub(crate) async fn until<T>(local: &Local, what: &str, find: impl Fn(&Inventory) -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(found) = find(&local.inventory().await.unwrap()) {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    match timeout(PATIENCE, search).await {
        Ok(found) => found,
        Err(_) => panic!("expected {what}, got {:#?}", local.inventory().await),
    }
}

/// Waits for an event that says so.
pub(crate) async fn told(events: &mut mpsc::Receiver<InstanceEvent>, part: &str) -> String {
    let mut all = Vec::new();
    let search = async {
        while let Some(event) = events.recv().await {
            if event.change.contains(part) {
                return event.change;
            }
            all.push(event);
        }
        panic!("events ended");
    };
    let found = timeout(PATIENCE, search).await;
    found.unwrap_or_else(|_| panic!("expected an event with `{part}`, got {all:#?}"))
}

/// Connects to an instance from within its network namespace, as the mirror does.
pub(crate) fn connect(instance: &Instance) -> io::Result<TcpStream> {
    let (netns, port) = (instance.netns.clone(), instance.port);
    let connect = move || {
        if let Some(netns) = netns {
            setns(File::open(netns)?, CloneFlags::CLONE_NEWNET)?;
        }
        TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_secs(5))
    };
    thread::spawn(connect).join().unwrap()
}

/// Runs a shell command within an instance.
pub(crate) async fn sh(instance: &Instance, command: &str) -> Answer {
    let length = command.len();
    let body = ask(instance, format!("POST / HTTP/1.0\r\ncontent-length: {length}\r\n\r\n{command}")).await;
    let (code, output) = body.split_once('\n').unwrap();
    Answer { code: code.parse().unwrap(), output: output.to_owned() }
}

/// What an instance answers.
pub(crate) async fn get(instance: &Instance, path: &str) -> String {
    ask(instance, format!("GET {path} HTTP/1.0\r\n\r\n")).await
}

async fn ask(instance: &Instance, request: String) -> String {
    let instance = instance.clone();
    let ask = move || {
        let mut stream = connect(&instance).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.split_once("\r\n\r\n").unwrap().1.to_owned()
    };
    tokio::task::spawn_blocking(ask).await.unwrap()
}

/// Every process of an instance.
pub(crate) fn pids(instance: &Instance) -> Vec<u32> {
    cgroup::pids(instance.cgroup.as_ref().unwrap())
}
