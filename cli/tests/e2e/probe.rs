//! `foreshadow probe`, and the tests, profiles and ballast of a running product.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::alone::{Process, free_address};
use crate::controller::{Controller, foreshadow, has_cgroups, hey, needs, pair, sample, turn};

/// A shadow is pressed only while nothing is said of anybody, which a busy machine can take long to reach.
const CALM: Duration = Duration::from_secs(300);

/// A short suite with a past of its own.
fn probe(folder: &Path, words: &[&str]) -> Output {
    let past = folder.join("past.jsonl");
    let mut command = foreshadow();
    command.args(["probe", "--span", "5ms", "--runs", "1", "--size", "1Mi", "--directory"]).arg(folder);
    command.arg("--past").arg(past).args(words).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_test_is_shown_with_its_unit_and_judged_by_the_machine_s_own_past() {
    // Not in `/tmp`, which may be memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let first = probe(folder.path(), &[]);
    assert!(first.status.success(), "{}", text(&first.stderr));
    let shown = text(&first.stdout);
    for word in
        ["processor ↑", "GFLOP/s", "memory-latency ↓", "storage-sync", "round-trip", "GB/s", "4 KiB pages"]
    {
        assert!(shown.contains(word), "{word} in\n{shown}");
    }
    assert!(shown.contains("Nothing to judge by yet: 0 earlier results"), "{shown}");
    for _ in 0..2 {
        assert!(probe(folder.path(), &["--only", "processor"]).status.success());
    }
    let last = text(&probe(folder.path(), &["--only", "processor"]).stdout);
    assert!(
        last.contains("machine") && !last.contains("Nothing to judge"),
        "three results are a past: {last}"
    );
    let names: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| text(entry.unwrap().file_name().as_encoded_bytes()))
        .collect();
    assert_eq!(names, ["past.jsonl"], "the file of the storage tests leaves nothing behind");
}

#[test]
fn a_result_in_json_can_be_set_beside_another() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let output = probe(folder.path(), &["--only", "cpu", "-o", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let tests = report["tests"].as_array().unwrap();
    assert_eq!(tests.len(), 3, "processor, processors, floating-point: {report:#}");
    for test in tests {
        assert!(test["value"].as_f64().is_some_and(|value| 0.0 < value), "{test}");
        assert_eq!(test["better"], "higher");
    }
    let file = folder.path().join("other.json");
    std::fs::write(&file, text(&output.stdout).replace(r#""name":""#, r#""name":"other-"#)).unwrap();
    let beside = probe(folder.path(), &["--only", "processor", "--compare", file.to_str().unwrap()]);
    let shown = text(&beside.stdout);
    assert!(shown.contains("here/there") && shown.contains("other-"), "{shown}");
    let again = probe(folder.path(), &["--from", file.to_str().unwrap()]);
    assert!(text(&again.stdout).contains("other-"), "a kept result is shown without measuring");
}

#[test]
fn what_cannot_be_done_is_said_with_what_was_expected() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("odd.json");
    std::fs::write(&odd, "{}").unwrap();
    for (words, wanted) in [
        (&["--only", "disk"][..], "expected a test"),
        (&["--size", "5"], "expected bytes such as `256Mi`"),
        (&["--size", "1Ti"], "1Mi to"),
        (&["--span", "0s"], "expected a span"),
        (&["--target", "db"], "expected a host with its port"),
        (&["--compare", "no-such.json"], "no-such.json"),
        (&["--compare", odd.to_str().unwrap()], "missing field"),
    ] {
        let output = foreshadow().args(["probe", "--keep-nothing"]).args(words).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
        assert!(said.contains(wanted), "{words:?}: {said}");
    }
    // A volume that cannot be written, and a target that is not there, are reasons of single tests.
    let unused = free_address().to_string();
    let output = foreshadow()
        .args(["probe", "--keep-nothing", "--span", "5ms", "--runs", "1", "--directory", "/proc"])
        .args(["--target", &unused, "--only", "storage-read", "--only", "connect", "-o", "json"])
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let reasons: Vec<&str> =
        report["tests"].as_array().unwrap().iter().map(|test| test["reason"].as_str().unwrap()).collect();
    assert!(reasons[0].contains("/proc") && reasons[1].contains(&unused), "{reasons:?}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_peer_answers_round_trips_and_a_taken_port_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let at = free_address();
    let listen = at.to_string();
    let answer = || {
        foreshadow().args(["probe", "answer", "--listen", &listen]).stderr(Stdio::piped()).spawn().unwrap()
    };
    let first = Process(answer());
    crate::controller::wait_until("it listens", Duration::from_secs(10), || {
        crate::controller::is_listening(at)
    });
    let output =
        probe(folder.path(), &["--only", "round-trip", "--only", "bulk", "--peer", &listen, "-o", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["tests"].as_array().unwrap().iter().all(|test| test["value"].is_f64()), "{report:#}");
    assert_eq!(report["peer"], listen.as_str());
    let second = answer().wait_with_output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second.stderr).contains("failed to listen"), "{}", text(&second.stderr));
    drop(first);
}

/// What was measured of an instance, by name.
fn measured(controller: &Controller) -> Vec<String> {
    let output = controller.command(&["history", "--output", "json"]);
    let text = text(&output.stdout);
    let series = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    series
        .map(|series| {
            format!(
                "{}.{}",
                series["instance"].as_str().unwrap_or_default(),
                series["metric"].as_str().unwrap_or_default()
            )
        })
        .collect()
}

#[test]
fn tests_run_in_live_and_shadow_until_they_are_turned_off_and_that_is_remembered() {
    let _turn = turn();
    let mut controller =
        Controller::start(&sample("e2e-probe", 1, "cpu: 500m, memory: 512Mi", "probe: { budget: 20% }\n"));
    controller.wait_ready();
    let wanted = ["processor", "memory-bandwidth", "storage-read", "round-trip"];
    let has_all = |measured: &[String]| {
        ["live-1", "shadow-1"]
            .iter()
            .all(|id| wanted.iter().all(|test| measured.contains(&format!("{id}.{test}"))))
    };
    crate::controller::wait_until("every resource was tested on both sides", Duration::from_secs(60), || {
        let measured = measured(&controller);
        has_all(&measured) || (!has_direct_reads() && measured.contains(&"live-1.round-trip".to_owned()))
    });
    if !has_direct_reads() {
        // A file system that always caches has no storage tests, and says so.
        let untested = pair(&controller.status().unwrap(), "live-1")["untested"].clone();
        assert!(untested["storage-read"].is_string(), "{untested}");
    }
    assert!(controller.command(&["probe", "off"]).status.success());
    let off = |status: &Value| status["probesOff"] == true;
    controller.wait("probes are off", Duration::from_secs(10), off);
    // One tick for what was under way.
    let tick = |status: &Value| status["tick"].as_u64().unwrap();
    let after = tick(&controller.status().unwrap()) + 2;
    controller.wait("a tick or two", Duration::from_secs(10), |status| after <= tick(status));
    let bursts = || {
        let output = controller.command(&["history", "live-1.processor", "--since", "1h", "--output", "csv"]);
        text(&output.stdout).lines().count()
    };
    let before = bursts();
    let later = tick(&controller.status().unwrap()) + 4;
    controller.wait("some more ticks", Duration::from_secs(20), |status| later <= tick(status));
    assert_eq!(bursts(), before, "nothing is tested while probes are off");
    controller.signal("KILL");
    controller.ended();
    controller.again();
    controller.wait("it is remembered", Duration::from_secs(20), off);
    assert!(controller.command(&["probe", "on"]).status.success());
    controller.wait("probes are on", Duration::from_secs(10), |status| status["probesOff"] == false);
    assert!(controller.command(&["stop"]).status.success());
    assert_eq!(controller.ended(), Some(0));
}

/// Of the folder that controllers are tested in.
fn has_direct_reads() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let output = probe(folder.path(), &["--only", "storage-read", "-o", "json"]);
    serde_json::from_slice::<Value>(&output.stdout).is_ok_and(|report| report["tests"][0]["value"].is_f64())
}

/// A live whose heap depends on how much it is asked, so that the shadow's stays small.
const HUNGRY: &str = "import http.server, os, threading, time\n\
kept = bytearray(os.urandom(1 << 20)) * (160 if os.environ.get('HUNGRY') else 1)\n\
class Handler(http.server.BaseHTTPRequestHandler):\n\
\x20   def do_GET(self):\n\
\x20       self.send_response(200); self.send_header('content-length', '2'); self.end_headers(); self.wfile.write(b'ok')\n\
\x20   def log_message(self, *args): pass\n\
http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()\n";

#[test]
fn a_shadow_with_less_memory_holds_the_rest_as_ballast_and_gives_it_back() {
    let _turn = turn();
    if !has_cgroups() || crate::controller::program("python3").is_none() {
        return eprintln!("skipped: needs root, memory cgroups and python3");
    }
    let config = "service: e2e-ballast\nmode: observe\ntick: 1s\nlisten: 127.0.0.1:0\nstate: state\nplatform:\n  type: local\n  local:\n    \
        command: [python3, hungry.py]\n    env: { HUNGRY: \"yes\" }\n    lives: 1\n    ready: { http: / }\n    \
        resources: { cpu: 500m, memory: 512Mi }\nshadow:\n  env: { HUNGRY: \"\" }\nprobe: { profile: { every: 10s } }\n";
    let mut controller = Controller::start_with(config, &[("hungry.py", HUNGRY)]);
    controller.wait_ready();
    let status = controller.wait("a profile of both", Duration::from_secs(60), |status| {
        pair(status, "live-1")["memory"]["shadow"].is_object()
    });
    let memory = &pair(&status, "live-1")["memory"];
    let anonymous = |side: &str| memory[side]["anonymous"].as_u64().unwrap();
    assert!((160 << 20) < anonymous("live") && anonymous("shadow") < (80 << 20), "{memory:#}");
    let pages = &memory["live"]["pages"];
    assert!(
        pages["denseShare"].as_f64().is_some_and(|share| 0.5 < share),
        "the heap is random bytes: {pages}"
    );
    let cgroup = pair(&status, "live-1")["shadow"]["cgroup"]["memory"].as_str().unwrap().to_owned();
    let held = || {
        let pids = std::fs::read_to_string(format!("{cgroup}/cgroup.procs")).unwrap_or_default();
        let is_ballast = |pid: &u32| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.split(|&byte| byte == 0).any(|word| word == b"ballast")
        };
        pids.lines().filter_map(|pid| pid.parse::<u32>().ok()).filter(is_ballast).collect::<Vec<_>>()
    };
    let resident = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line =
            status.lines().find_map(|line| line.strip_prefix("RssAnon:")).map(str::trim).unwrap_or_default();
        line.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) >> 10
    };
    crate::controller::wait_until("the shadow holds what it lacks", Duration::from_secs(60), || {
        held().iter().any(|&pid| 120 < resident(pid))
    });
    let ballast = held()[0];
    controller.wait("the profile leaves the ballast out", Duration::from_secs(30), |status| {
        pair(status, "live-1")["memory"]["shadow"]["anonymous"]
            .as_u64()
            .is_some_and(|bytes| bytes < (80 << 20))
    });
    // Killed, so that nobody can tell it to go.
    controller.signal("KILL");
    controller.ended();
    crate::controller::wait_until("it is gone with the controller", Duration::from_secs(10), || {
        !Path::new(&format!("/proc/{ballast}")).exists()
    });
    controller.again();
    controller.wait_ready();
    assert!(controller.command(&["stop"]).status.success());
    assert_eq!(controller.ended(), Some(0));
}

#[test]
fn a_shadow_is_pressed_and_what_its_workload_answers_to_is_learned() {
    let _turn = turn();
    if !has_cgroups() || !needs(&["hey"]) {
        return;
    }
    let more = "mode: observe\nmirror: { rate: { min: 50%, max: 50% } }\nprobe:\n  storage: { enabled: false }\n  \
                press: { enabled: true, every: 1m, lasts: 20s, share: 90% }\n";
    let mut controller = Controller::start(&sample("e2e-press", 1, "cpu: 300m, memory: 256Mi", more));
    let status = controller.wait_ready();
    let mut load = hey(&status, "/item/3", "20m", &controller.folder.join("hey.txt"));
    let live = |status: &Value| pair(status, "live-1").clone();
    let pressed = controller.wait("the shadow under pressure", CALM, |status| {
        live(status)["assessment"]["verdict"]["inconclusive"] == "pressed"
    });
    let cgroup = live(&pressed)["shadow"]["cgroup"]["cpu"].as_str().unwrap().to_owned();
    let press = || {
        let is_press = |pid: &u32| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.split(|&byte| byte == 0).any(|word| word == b"press")
        };
        let pids = std::fs::read_to_string(format!("{cgroup}/cgroup.procs")).unwrap_or_default();
        pids.lines().filter_map(|pid| pid.parse::<u32>().ok()).find(is_press)
    };
    crate::controller::wait_until("a process in the shadow's cgroup", Duration::from_secs(10), || {
        press().is_some()
    });
    let learned = controller.wait("what was learned", CALM, |status| {
        live(status)["assessment"]["sensitivities"].as_array().is_some_and(|all| !all.is_empty())
    });
    let cpu = &live(&learned)["assessment"]["sensitivities"][0];
    assert!(cpu["resource"] == "cpu" && cpu["factor"].as_f64().is_some_and(|factor| 0.0 < factor), "{cpu}");
    // Of its live nothing is said meanwhile, and nothing is done to it.
    assert_eq!(learned["actions"], serde_json::json!([]));
    crate::controller::wait_until("the next time", CALM, || press().is_some());
    let pid = press().unwrap();
    controller.signal("KILL");
    controller.ended();
    crate::controller::wait_until("it is gone with the controller", Duration::from_secs(10), || {
        !Path::new(&format!("/proc/{pid}")).exists()
    });
    load.end();
    controller.again();
    controller.wait_ready();
    assert!(controller.command(&["stop"]).status.success());
    assert_eq!(controller.ended(), Some(0));
}
