//! The history of a running controller: written to a real Prometheus and a real VictoriaMetrics, asked as a Prometheus is,
//! exported, copied and put back.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::alone::{Process, free_address};
use crate::controller::{Controller, is_listening, needs, sample, turn, wait_until};
use crate::http::{Connection, Request};

/// How long something may take that takes a moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// Name, instance, role and moment in Unix milliseconds; the value.
type Samples = BTreeMap<(String, String, String, i64), f64>;

/// A database of time series that is started and stopped on the same data.
struct Database {
    program: &'static str,
    arguments: Vec<String>,
    address: SocketAddr,
    process: Option<Process>,
}

impl Database {
    fn prometheus(folder: &Path, data: &Path) -> Self {
        let config = folder.join("prometheus.yml");
        std::fs::write(&config, "global: {}\n").unwrap();
        let address = free_address();
        let arguments = vec![
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", data.display()),
            "--storage.tsdb.retention.time=100y".to_owned(),
            "--web.enable-remote-write-receiver".to_owned(),
            format!("--web.listen-address={address}"),
        ];
        let mut database = Self { program: "prometheus", arguments, address, process: None };
        database.start();
        database
    }

    fn victoria_metrics(data: &Path) -> Self {
        let address = free_address();
        let arguments = vec![
            format!("-storageDataPath={}", data.display()),
            format!("-httpListenAddr={address}"),
            "-retentionPeriod=100y".to_owned(),
        ];
        let mut database = Self { program: "victoria-metrics", arguments, address, process: None };
        database.start();
        database
    }

    fn start(&mut self) {
        let mut command = Command::new(self.program);
        command.args(&self.arguments).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(Process(command.spawn().unwrap()));
        wait_until(self.program, PATIENCE, || is_listening(self.address));
    }

    /// In good order: what it has in memory is its own affair.
    fn stop(&mut self) {
        let mut process = self.process.take().unwrap();
        Command::new("kill").arg(process.0.id().to_string()).status().unwrap();
        process.0.wait().unwrap();
    }

    /// Every sample of this service.
    fn samples(&self) -> Samples {
        let mut all = Samples::new();
        let mut insert = |metric: &Value, moment: i64, value: f64| {
            let label = |name: &str| metric[name].as_str().unwrap().to_owned();
            let key = (label("__name__"), label("instance"), label("role"), moment);
            assert!(all.insert(key, value).is_none(), "twice: {metric} {moment}");
        };
        if self.program == "prometheus" {
            let answer = ask(self.address, "/api/v1/query", &[("query", "{service=\"history\"}[1h]")]);
            for series in answer["data"]["result"].as_array().unwrap() {
                for point in series["values"].as_array().unwrap() {
                    #[expect(clippy::cast_possible_truncation, reason = "a moment of this millennium")]
                    let moment = (point[0].as_f64().unwrap() * 1000.0).round() as i64;
                    insert(&series["metric"], moment, point[1].as_str().unwrap().parse().unwrap());
                }
            }
            return all;
        }
        ask_text(self.address, "/internal/force_flush", &[]);
        let text = ask_text(self.address, "/api/v1/export", &[("match[]", "{service=\"history\"}")]);
        for line in text.lines() {
            let series: Value = serde_json::from_str(line).unwrap();
            let (moments, values) =
                (series["timestamps"].as_array().unwrap(), series["values"].as_array().unwrap());
            for (moment, value) in moments.iter().zip(values) {
                insert(&series["metric"], moment.as_i64().unwrap(), value.as_f64().unwrap());
            }
        }
        all
    }
}

fn ask_text(address: SocketAddr, path: &str, form: &[(&str, &str)]) -> String {
    let encoded = |text: &str| -> String {
        text.bytes().fold(String::new(), |mut all, byte| {
            write!(all, "%{byte:02X}").unwrap();
            all
        })
    };
    let form: Vec<String> =
        form.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    Connection::new(address).ask(&Request::post(path, form.join("&"))).unwrap().text()
}

fn ask(address: SocketAddr, path: &str, form: &[(&str, &str)]) -> Value {
    let text = ask_text(address, path, form);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path} {form:?}: {error}: {text}"))
}

/// What the controller has itself, up to this moment, from its export.
fn own(controller: &Controller, until: i64) -> (Samples, String) {
    let until = jiff::Timestamp::from_millisecond(until).unwrap().to_string();
    let output =
        controller.command(&["history", "--all", "-o", "openmetrics", "--since", "1h", "--until", &until]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut all = Samples::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once('{').unwrap();
        let (labels, rest) = rest.split_once("} ").unwrap();
        let (value, moment) = rest.split_once(' ').unwrap();
        let label = |name: &str| {
            let after = labels.split_once(&format!("{name}=\"")).unwrap().1;
            after.split_once('"').unwrap().0.to_owned()
        };
        let moment: i64 = moment.replace('.', "").parse().unwrap();
        all.insert((name.to_owned(), label("instance"), label("role"), moment), value.parse().unwrap());
    }
    (all, text)
}

fn assert_same(ours: &Samples, theirs: &Samples, whose: &str, until: i64) {
    // Each begins when it was first written to.
    let begin = theirs.keys().map(|key| key.3).min().unwrap();
    let within = |samples: &Samples| -> Samples {
        let fits = |key: &(String, String, String, i64)| begin <= key.3 && key.3 < until;
        samples.iter().filter(|(key, _)| fits(key)).map(|(key, value)| (key.clone(), *value)).collect()
    };
    let (ours, theirs) = (within(ours), within(theirs));
    let missing: Vec<_> = ours.keys().filter(|key| !theirs.contains_key(*key)).take(5).collect();
    let foreign: Vec<_> = theirs.keys().filter(|key| !ours.contains_key(*key)).take(5).collect();
    assert!(missing.is_empty() && foreign.is_empty(), "{whose}: missing {missing:?}, foreign {foreign:?}");
    for (key, value) in &ours {
        let other = theirs[key];
        assert!((value - other).abs() <= 1e-9 * value.abs(), "{whose}: {key:?}: {value} {other}");
    }
    assert!(200 < ours.len(), "{whose}: {} samples prove little", ours.len());
}

/// How far behind the targets are, and how much was dropped: the metrics of the controller.
fn metric(api: SocketAddr, name: &str) -> Vec<f64> {
    let text = Connection::new(api).ask(&Request::get("/metrics")).unwrap().text();
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect()
}

fn start(folder: &Path) -> (Controller, SocketAddr, [Database; 2]) {
    let prometheus = Database::prometheus(folder, &folder.join("received"));
    let victoria = Database::victoria_metrics(&folder.join("victoria"));
    let api = free_address();
    let targets = [&prometheus, &victoria]
        .map(|target| format!("{{ url: \"http://{}/api/v1/write\" }}", target.address));
    let more = format!("api: {{ listen: \"{api}\" }}\nstore: {{ remoteWrite: [{}] }}\n", targets.join(", "));
    let controller = Controller::start(&sample("history", 2, "cpu: 200m, memory: 64Mi", &more));
    controller.wait_ready();
    (controller, api, [prometheus, victoria])
}

fn wait_for_ticks(controller: &Controller, ticks: u64) {
    let tick = |status: &Value| status["tick"].as_u64().unwrap();
    let begin = controller.wait("a tick", PATIENCE, |_| true);
    controller.wait("ticks", PATIENCE, |status| tick(&begin) + ticks <= tick(status));
}

fn unix_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[test]
fn every_sample_arrives_once_though_receivers_are_away_and_is_asked_for_as_of_a_prometheus() {
    if !needs(&["prometheus", "promtool", "victoria-metrics"]) {
        return;
    }
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let (mut controller, api, mut databases) = start(folder.path());
    wait_for_ticks(&controller, 6);
    databases.iter_mut().for_each(Database::stop);
    wait_for_ticks(&controller, 5);
    // Over a restart too: a killed controller goes on from the cursors that it kept.
    controller.signal("KILL");
    controller.ended();
    controller.again();
    controller.wait_ready();
    databases.iter_mut().for_each(Database::start);
    wait_for_ticks(&controller, 4);
    wait_until("both caught up", PATIENCE, || {
        metric(api, "foreshadow_remote_write_lag_seconds").iter().all(|lag| *lag < 2.0)
            && metric(api, "foreshadow_remote_write_samples_total").iter().all(|sent| 0.0 < *sent)
    });
    let until = unix_ms() - 3000;
    let (ours, text) = own(&controller, until);
    for database in &databases {
        assert_same(&ours, &database.samples(), database.program, until);
    }
    assert_eq!(metric(api, "foreshadow_remote_write_dropped_samples_total").len(), 2);
    let exported = imported(folder.path(), &text);
    compare(api, exported.address, &ours);
    copy_and_put_back(controller, folder.path());
}

/// A Prometheus that has what was exported, and nothing else.
fn imported(folder: &Path, text: &str) -> Database {
    let (file, data) = (folder.join("exported.om"), folder.join("imported"));
    std::fs::write(&file, text).unwrap();
    let made = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([&file, &data])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Database::prometheus(folder, &data)
}

const QUERIES: [&str; 16] = [
    "foreshadow_requests_per_second",
    "{__name__=~\"foreshadow_(sample_rate|memory_bytes)\",role!=\"shadow\",instance!~\".*-2\"}",
    "foreshadow_memory_bytes offset 3s",
    "avg_over_time(foreshadow_memory_bytes[7s])",
    "min_over_time(foreshadow_cpu_cores[7s])",
    "max_over_time(foreshadow_cpu_cores[7s])",
    "sum_over_time(foreshadow_cpu_cores[7s])",
    "count_over_time(foreshadow_cpu_cores[7s])",
    "last_over_time(foreshadow_memory_bytes[7s])",
    "quantile_over_time(0.3, foreshadow_cpu_cores[7s])",
    "rate(foreshadow_memory_bytes[7s])",
    "increase(foreshadow_evidence[9s])",
    "sum by (role) (foreshadow_memory_bytes) / 1048576",
    "max without (instance) (foreshadow_cpu_cores) > bool 0.001",
    "avg(foreshadow_memory_bytes) - 2 ^ 3 % 5",
    "foreshadow_memory_bytes / foreshadow_cpu_cores > 1e6",
];

/// The same questions to both, over the same span.
fn compare(api: SocketAddr, prometheus: SocketAddr, ours: &Samples) {
    let moments = || ours.keys().map(|key| key.3);
    let (first, last) = (moments().min().unwrap(), moments().max().unwrap());
    // Half a tick beside the samples, so that none lies on the edge of a window.
    let seconds = |ms: i64| format!("{}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000));
    let (start, end) = (seconds(first + 4500), seconds(last - 500));
    let mut found = 0;
    for query in QUERIES {
        let form = [("query", query), ("start", &start), ("end", &end), ("step", "1")];
        let both =
            [api, prometheus].map(|address| series(&ask(address, "/api/v1/query_range", &form), "values"));
        assert_near(query, &both[0], &both[1]);
        found += both[0].len();
        let form = [("query", query), ("time", &end)];
        let both = [api, prometheus].map(|address| series(&ask(address, "/api/v1/query", &form), "value"));
        assert_near(query, &both[0], &both[1]);
    }
    assert!(QUERIES.len() * 5 < found, "{found} values prove little");
    let selector = [("match[]", "{role=\"live\"}"), ("start", &start), ("end", &end)];
    for path in ["/api/v1/series", "/api/v1/labels", "/api/v1/label/__name__/values"] {
        // Values of one label are asked for by GET alone.
        let [ours, theirs] = [api, prometheus].map(|address| {
            let answer = if path.contains("values") {
                let request = Request::get(format!("{path}?start={start}&end={end}"));
                serde_json::from_str(&Connection::new(address).ask(&request).unwrap().text()).unwrap()
            } else {
                ask(address, path, &selector)
            };
            let mut all: Vec<String> =
                answer["data"].as_array().unwrap().iter().map(Value::to_string).collect();
            all.sort();
            all
        });
        assert_eq!(ours, theirs, "{path}");
    }
}

/// Values by series and moment.
fn series(answer: &Value, key: &str) -> BTreeMap<(String, String), f64> {
    assert_eq!(answer["status"], "success", "{answer}");
    let mut all = BTreeMap::new();
    for series in answer["data"]["result"].as_array().unwrap() {
        let points = if key == "value" {
            vec![&series[key]]
        } else {
            series[key].as_array().unwrap().iter().collect()
        };
        for point in points {
            let place = (series["metric"].to_string(), point[0].to_string());
            all.insert(place, point[1].as_str().unwrap().parse().unwrap());
        }
    }
    all
}

fn assert_near(
    query: &str,
    ours: &BTreeMap<(String, String), f64>,
    theirs: &BTreeMap<(String, String), f64>,
) {
    let places = |all: &BTreeMap<(String, String), f64>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(places(ours), places(theirs), "{query}");
    for (place, value) in ours {
        let other = theirs[place];
        let is_near = (value - other).abs() <= 1e-9 * value.abs().max(1e-9);
        let is_same = value.to_bits() == other.to_bits() || (value.is_nan() && other.is_nan());
        assert!(is_near || is_same, "{query} {place:?}: {value}, a Prometheus says {other}");
    }
}

fn copy_and_put_back(mut controller: Controller, folder: &Path) {
    let file = folder.join("copy.db");
    let said = |words: &[&str]| {
        let output = controller.command(words);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let name = file.to_str().unwrap();
    assert_eq!(said(&["backup", name]).0, Some(0));
    let (code, words) = said(&["backup", name]);
    assert!(code == Some(2) && words.contains("--force"), "{words}");
    assert_eq!(said(&["backup", name, "--force"]).0, Some(0));
    let (code, words) = said(&["restore", name]);
    assert!(code == Some(12) && words.contains("foreshadow stop"), "{words}");
    assert_eq!(said(&["stop"]).0, Some(0));
    controller.ended();
    let state: PathBuf = controller.folder.join("state");
    let output = controller.command(&["restore", name]);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && words.contains("foreshadow.before-"), "{words}");
    let kept = std::fs::read_dir(&state).unwrap().filter(|entry| {
        entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("foreshadow.before-")
    });
    assert_eq!(kept.count(), 1);
    let listed = controller.command(&["history", "-o", "json"]);
    assert!(String::from_utf8_lossy(&listed.stdout).lines().count() > 10);
}
