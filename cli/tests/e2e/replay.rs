//! `foreshadow replay` and `foreshadow redact`, which work alone.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::controller::{fed, foreshadow, wait_until};

/// How long something may take that takes a moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// A service that answers everything and remembers what it was asked. Its threads end with the process.
struct Sample {
    url: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Sample {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heads = Arc::<Mutex<Vec<String>>>::default();
        std::thread::spawn({
            let heads = heads.clone();
            move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let heads = heads.clone();
                    std::thread::spawn(move || answer_all(&stream, &heads));
                }
            }
        });
        Self { url, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn answer_all(stream: &TcpStream, heads: &Mutex<Vec<String>>) {
    let mut head = String::new();
    let mut reader = BufReader::new(stream);
    while reader.read_line(&mut head).is_ok_and(|read| 0 < read) {
        if head.ends_with("\r\n\r\n") {
            heads.lock().unwrap().push(std::mem::take(&mut head));
            let mut writer = stream;
            if writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
                return;
            }
        }
    }
}

fn line(second: u32, request: &str) -> String {
    format!("198.18.4.7 - - [17/May/2015:10:05:{second:02} +0000] \"{request}\" 200 12 \"-\" \"curl/8\"\n")
}

fn replay(log: &Path, words: &[&str]) -> Output {
    foreshadow().arg("replay").arg(log).args(words).args(["--output", "json"]).output().unwrap()
}

fn told(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn a_log_is_replayed_and_what_may_change_something_is_not() {
    let sample = Sample::start();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let mut text: String =
        (0..20).map(|second| line(second, &format!("GET /item/{second} HTTP/1.1"))).collect();
    text += &line(20, "POST /item/1 HTTP/1.1");
    text += "what is this\n";
    fs::write(&log, text).unwrap();
    let output = replay(&log, &["--to", &sample.url, "--speed", "20x"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told = told(&output);
    assert_eq!(
        (&told["sent"], &told["unanswered"], &told["statuses"]["2xx"]),
        (&20.into(), &0.into(), &20.into())
    );
    assert_eq!((&told["skipped"]["unsafe_method"], &told["skipped"]["unreadable"]), (&1.into(), &1.into()));
    assert_eq!((&told["knownStatus"], &told["otherStatus"]), (&20.into(), &0.into()));
    assert!(sample.heads().iter().all(|head| head.contains("x-foreshadow: shadow")));
}

#[test]
fn a_replay_obeys_the_rules_and_passes_for_users_if_it_is_told_to() {
    let sample = Sample::start();
    let folder = tempfile::tempdir().unwrap();
    let (log, rules) = (folder.path().join("access.log"), folder.path().join("rules.yaml"));
    fs::write(&log, line(0, "GET /a?customer=Jane&token=abc HTTP/1.1")).unwrap();
    fs::write(&rules, "mask: { query: [customer] }\n").unwrap();
    let rules = rules.display().to_string();
    let output =
        replay(&log, &["--to", &sample.url, "--unmarked", "--host", "shop.example", "--rules", &rules]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let head = &sample.heads()[0];
    assert!(head.starts_with("GET /a?customer=****&token=") && head.contains("host: shop.example"), "{head}");
    assert!(!head.contains("x-foreshadow") && !head.contains("=abc"), "{head}");
}

#[test]
fn a_log_that_grows_is_followed_over_its_rotation_until_somebody_has_enough() {
    let sample = Sample::start();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    fs::write(&log, line(0, "GET /old HTTP/1.1")).unwrap();
    let child = foreshadow()
        .arg("replay")
        .arg(&log)
        .args(["--follow", "--to", &sample.url, "--output", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // From its end on: so it must have been opened before more is written.
    let files = format!("/proc/{}/fd", child.id());
    let is_open = || {
        let files = fs::read_dir(&files).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_link(file.path()).ok()).any(|path| path == log)
    };
    wait_until("the log opened", PATIENCE, is_open);
    let append = |second| {
        let mut file = OpenOptions::new().append(true).create(true).open(&log).unwrap();
        file.write_all(line(second, &format!("GET /item/{second} HTTP/1.1")).as_bytes()).unwrap();
    };
    append(1);
    append(2);
    fs::rename(&log, folder.path().join("access.log.1")).unwrap();
    append(3);
    wait_until("three requests", PATIENCE, || 3 <= sample.heads().len());
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(told(&output)["sent"], 3, "what was there before is not replayed");
    assert!(sample.heads().iter().all(|head| head.contains("/item/")));
}

#[test]
fn a_replay_that_cannot_be_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    fs::write(&log, line(0, "GET / HTTP/1.1")).unwrap();
    let packed = folder.path().join("access.log.gz");
    fs::write(&packed, [0x1f, 0x8b, 8, 0]).unwrap();
    let sample = Sample::start();
    let closed = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let to = sample.url.as_str();
    for (log, words, code, says) in [
        (&log, vec!["--to", &closed], 1, "failed to connect"),
        (&log, vec!["--to", "https://shop.example"], 2, "http://127.0.0.1:8080"),
        (&log, vec!["--to", to, "--speed", "fast"], 2, "such as `2x`"),
        (&log, vec!["--to", to, "--rate-max", "0/s"], 2, "such as `100/s`"),
        (&log, vec!["--to", to, "--format", "$status"], 2, "must say when"),
        (&log, vec!["--to", to, "--format", "json"], 1, "--format"),
        (&log, vec!["--to", to, "--follow", "--speed", "2x"], 2, "faster or slower"),
        (&folder.path().join("none"), vec!["--to", to], 1, "failed to read"),
        (&packed, vec!["--to", to], 1, "zcat"),
    ] {
        let output = replay(log, &words);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {text}");
        assert!(text.contains(says), "{words:?}: {text}");
    }
}

fn redact(request: &str, words: &[&str]) -> Output {
    fed(foreshadow().arg("redact").args(words), request)
}

#[test]
fn before_and_after_of_a_request_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    fs::write(&rules, "mask: { headers: [x-team] }\nremove: { json: [debug] }\n").unwrap();
    let request = "POST /search?token=hunter2 HTTP/1.1\nhost: shop.example\nx-team: hunter2\ncontent-type: application/json\n\n{\"q\":1,\"debug\":\"hunter2\"}\n";
    let output = redact(request, &["--rules", &rules.display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let after: Vec<&str> = text.lines().filter(|line| !line.starts_with('-')).collect();
    assert!(after.iter().all(|line| !line.contains("hunter2")), "{text}");
    for kept in ["  host: shop.example", "+ x-team: *******", "+ {\"q\":1}"] {
        assert!(after.contains(&kept), "{kept} in {text}");
    }
}

#[test]
fn what_would_not_be_mirrored_is_refused_and_what_is_no_request_too() {
    let upload = "POST / HTTP/1.1\ncontent-type: text/plain\n\nhunter2";
    assert_eq!(redact(upload, &[]).status.code(), Some(12));
    assert_eq!(redact("hello", &[]).status.code(), Some(2));
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    fs::write(&rules, "headers: [x-team]\n").unwrap();
    let output = redact("GET / HTTP/1.1\n\n", &["--rules", &rules.display().to_string()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("rules.yaml:1:1"), "{output:?}");
}
