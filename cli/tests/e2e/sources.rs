//! `source: capture` and `source: log`: a real nginx that nobody stands before, and users who speak to it themselves.

use std::io::Read as _;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::alone::{Process, free_address, instance};
use crate::controller::{foreshadow, is_listening, needs, turn, wait_until};
use crate::http::{Connection, Request};

const PATIENCE: Duration = Duration::from_secs(60);

/// The mirror as somebody who may do nothing beyond this; `None`, loudly, where this test may not arrange that.
fn limited(capabilities: &str) -> Option<Command> {
    if !needs(&["setpriv"]) {
        return None;
    }
    let bounds = format!("--bounding-set=-all{capabilities}");
    let may =
        Command::new("setpriv").args([&bounds, "true"]).stderr(Stdio::null()).status().unwrap().success();
    if !may {
        eprintln!("SKIPPED: capabilities can only be dropped by root");
        return None;
    }
    let mut command = Command::new("setpriv");
    command.arg(bounds).arg(foreshadow().get_program()).args(["mirror", "mirror.yaml"]);
    Some(command)
}

/// nginx with an access log in this folder that tells milliseconds.
fn nginx(folder: &std::path::Path, listen: SocketAddr) -> Process {
    let text = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr; worker_processes 1; events {{}}\n\
         http {{ log_format timed '{TIMED}'; access_log access.log timed; server {{ listen {listen}; location / {{ return 200 \"live\\n\"; }} }} }}\n"
    );
    std::fs::write(folder.join("nginx.conf"), text).unwrap();
    let (prefix, file) = (folder.display().to_string(), folder.join("nginx.conf"));
    let child = Command::new("nginx")
        .args(["-p", &prefix, "-c"])
        .arg(file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("nginx serves", PATIENCE, || is_listening(listen));
    Process(child)
}

/// An access log with what live took.
const TIMED: &str = r#"$remote_addr [$time_local] "$request" $status $request_time"#;

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_share_of_the_users_of_nginx_is_read_from_the_wire_with_one_capability_and_nobody_notices() {
    let _turn = turn();
    if !needs(&["nginx"]) {
        return;
    }
    let (Some(without), Some(mut with)) = (limited(""), limited(",+net_raw")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (listen, metrics) = (free_address(), free_address());
    let _nginx = nginx(folder.path(), listen);
    let (_shadow, shadow_at) = instance("none");
    let text = format!(
        "source: capture\ncapture: {{ interface: lo }}\nlives: [{{ url: http://{listen}, shadow: http://{shadow_at} }}]\n\
         rate: 50%\nreport: 1s\nmetrics: {metrics}\n"
    );
    std::fs::write(folder.path().join("mirror.yaml"), text).unwrap();

    let mut without = without;
    let refused = without.current_dir(folder.path()).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", told(&refused));
    assert!(told(&refused).contains("cap_net_raw"), "{}", told(&refused));

    let report = std::fs::File::create(folder.path().join("report.jsonl")).unwrap();
    let mut with = with
        .args(["-o", "json"])
        .current_dir(folder.path())
        .stdout(report)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut greeting = [0; 15];
    with.stderr.as_mut().unwrap().read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"Mirror captures");
    for _ in 0..200 {
        let response =
            Connection::new(listen).ask(&Request::get("/x").header("connection", "close")).unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "live\n"));
    }
    let scraped = || {
        let response = Connection::new(metrics).ask(&Request::get("/metrics"));
        response.map(|response| response.text()).unwrap_or_default()
    };
    wait_until("the pairs", PATIENCE, || {
        let pairs = scraped()
            .lines()
            .filter(|line| line.starts_with("foreshadow_pairs_total"))
            .map(|line| line.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0))
            .sum::<f64>();
        // Of 200 connections one half; further off than this once in some ten thousand runs.
        72.0 <= pairs
    });
    assert!(scraped().contains("foreshadow_capture_packets_dropped_total 0"), "{}", scraped());
    Command::new("kill").args(["-TERM", &with.id().to_string()]).status().unwrap();
    assert!(with.wait().unwrap().success());
    let report = std::fs::read_to_string(folder.path().join("report.jsonl")).unwrap();
    let summaries: Vec<Value> = report.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sum = |place: &str| -> u64 {
        summaries.iter().filter_map(|line| line["summary"].pointer(place)?.as_u64()).sum()
    };
    let (requests, sampled) = (sum("/upstreams/0/liveSide/requests"), sum("/upstreams/0/sampled"));
    assert!((72..=128).contains(&requests), "{requests} of 200 at one half");
    assert_eq!((sampled, sum("/upstreams/0/liveSide/errors")), (requests, 0));
    assert_eq!(sum("/capture/packetsDropped"), 0);
    assert!(requests <= sum("/capture/connections"));
}

#[test]
fn the_access_log_of_nginx_feeds_a_shadow_over_a_rotation() {
    let _turn = turn();
    if !needs(&["nginx"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (listen, metrics) = (free_address(), free_address());
    let nginx = nginx(folder.path(), listen);
    let (_shadow, shadow_at) = instance("none");
    let text = format!(
        "source: log\nlog: {{ file: access.log, format: '{TIMED}' }}\n\
         lives: [{{ url: http://{listen}, shadow: http://{shadow_at} }}]\nrate: 100%\nreport: 1s\nmetrics: {metrics}\n"
    );
    std::fs::write(folder.path().join("mirror.yaml"), text).unwrap();
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let mirror =
        foreshadow().args(["mirror", "mirror.yaml"]).current_dir(folder.path()).stderr(log).spawn().unwrap();
    let mut mirror = Process(mirror);
    let log = || std::fs::read_to_string(folder.path().join("log")).unwrap();
    wait_until("the mirror reads", PATIENCE, || log().contains("Mirror reads in a log"));
    let sampled = || {
        let response = Connection::new(metrics).ask(&Request::get("/metrics"));
        let text = response.map(|response| response.text()).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("foreshadow_sampled_total")).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0)
    };
    let ask = |n: usize| {
        for _ in 0..n {
            assert_eq!(Connection::new(listen).ask(&Request::get("/x")).unwrap().status, 200);
        }
    };
    ask(20);
    wait_until("what was written before the rotation", PATIENCE, || 20.0 <= sampled());
    std::fs::rename(folder.path().join("access.log"), folder.path().join("access.log.1")).unwrap();
    Command::new("kill").args(["-USR1", &nginx.0.id().to_string()]).status().unwrap();
    wait_until("nginx writes a new one", PATIENCE, || folder.path().join("access.log").exists());
    Connection::new(listen).ask(&Request::post("/buy", "n=1")).unwrap();
    ask(20);
    wait_until("what was written after it", PATIENCE, || 40.0 <= sampled());
    assert!(sampled() < 41.0, "what may change something is never asked again");
    Command::new("kill").args(["-TERM", &mirror.0.id().to_string()]).status().unwrap();
    assert!(mirror.0.wait().unwrap().success(), "{}", log());
}
