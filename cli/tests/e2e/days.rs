//! A user's ordinary days: another configuration, a word to the controller, a look back.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::controller::{
    Controller, Quota, foreshadow, has_cgroups, is_listening, sample, turn, verdict, wait_until,
};
use crate::crowd::{Crowd, failures};
use crate::http::Request;

/// Long enough for a tick of a second on a busy machine, many times over.
const SOON: Duration = Duration::from_secs(20);

/// Until what is normal is known.
const LEARNT: Duration = Duration::from_secs(60);

/// Ticks in which a live with another size is watched.
const CALM_TICKS: u64 = 15;

/// Requests a second of its users: enough for a verdict, and far from too many.
const RATE: u64 = 40;

fn config(service: &str, more: &str) -> String {
    sample(service, 1, "cpu: 200m, memory: 128Mi", more)
}

fn write(controller: &Controller, text: &str) {
    std::fs::write(controller.folder.join("foreshadow.yaml"), text).unwrap();
}

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn error(status: &Value) -> &str {
    status["configError"].as_str().unwrap_or_default()
}

#[test]
fn a_changed_file_is_taken_over_and_a_broken_one_is_refused_while_the_old_one_stays() {
    let _turn = turn();
    let service = "e2e-reload";
    let mut controller = Controller::start(&config(service, ""));
    let before = controller.wait_ready();
    write(&controller, &config(service, "mode: act\n"));
    controller.wait("mode act by itself", SOON, |status| status["mode"] == "act");

    write(&controller, &config(service, "mode: observe\ncompare: { effect: 15 }\n"));
    let status = controller.wait("the error", SOON, |status| error(status).contains("expected a percentage"));
    assert!(error(&status).contains("foreshadow.yaml:13:20"), "with its line: {}", error(&status));
    assert_eq!(status["mode"], "act", "the old one stays in force");
    let shown = stdout(&controller.command(&["status"]));
    assert!(shown.contains("not in force"), "{shown}");

    write(&controller, &config(service, "mode: observe\n").replace("127.0.0.1:0", "127.0.0.1:1"));
    let refused = controller.command(&["reload"]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(
        stderr(&refused).contains("`listen`") && stderr(&refused).contains("restart"),
        "{}",
        stderr(&refused)
    );

    write(&controller, &config(service, "api: { listen: 127.0.0.1:1 }\n"));
    let refused = stderr(&controller.command(&["reload"]));
    assert!(refused.contains("`api.listen`") && refused.contains("restart"), "{refused}");

    let alerts = "alerts: { webhook: \"http://127.0.0.1:1/\" }\n";
    write(&controller, &config(service, &format!("mode: act\n{alerts}")));
    let taken = controller.command(&["reload"]);
    assert!(taken.status.success() && stderr(&taken).contains("alerts"), "{}", stderr(&taken));

    write(&controller, &config(service, "mode: observe\nprobe: { enabled: false }\n"));
    let taken = controller.command(&["reload"]);
    assert!(taken.status.success() && stderr(&taken).contains("mode, probe, alerts"), "{}", stderr(&taken));
    let status = controller.wait("mode observe", SOON, |status| status["mode"] == "observe");
    assert_eq!(error(&status), "");

    write(&controller, &config(service, "mode: act\n"));
    controller.signal("HUP");
    let after = controller.wait("mode act by SIGHUP", SOON, |status| status["mode"] == "act");
    assert_eq!(
        before["pairs"][0]["live"]["pids"], after["pairs"][0]["live"]["pids"],
        "nothing was restarted"
    );
    assert!(controller.command(&["stop"]).status.success());
    assert_eq!(controller.ended(), Some(0));
}

#[test]
fn words_about_what_is_not_there_are_refused_with_what_to_do() {
    let _turn = turn();
    let controller = Controller::start(&config("e2e-words", ""));
    let status = controller.wait_ready();
    let refused = |words: &[&str], code, why: &str| {
        let output = controller.command(words);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {text}");
        assert!(text.contains(why) && text.contains("= help:"), "{words:?}: {text}");
    };
    refused(&["acknowledge", "live-9"], 2, "no live is named");
    refused(&["reject", "live-1"], 2, "no alarm");
    refused(&["revert"], 2, "nothing that could be taken back");
    refused(&["revert", "a7"], 2, "a7");
    refused(&["revert", "seven"], 2, "expected an action such as `a7`");
    let log = status["pairs"][0]["liveLog"].as_str().unwrap();
    assert!(Path::new(log).is_file(), "{log}");
    assert!(stdout(&controller.command(&["status", "--wide"])).contains(log));
    assert!(stdout(&controller.command(&["status"])).contains("logs: "));
}

#[test]
fn history_shows_what_was_measured_as_a_picture_as_csv_and_as_json() {
    let _turn = turn();
    let controller = Controller::start(&config("e2e-history", ""));
    controller.wait("some ticks", SOON, |status| 4 <= status["tick"].as_u64().unwrap_or(0));
    let list = stdout(&controller.command(&["history"]));
    assert!(list.contains("live-1.sample_rate") && list.contains("live-1.requests "), "{list}");
    let picture = stdout(&controller.command(&["history", "live-1.memory", "--since", "5m"]));
    assert!(
        picture.contains("live-1.memory") && picture.contains("bytes") && picture.contains("max"),
        "{picture}"
    );
    let row = picture.lines().last().unwrap().split("  min ").next().unwrap();
    let row = row.trim_start_matches("live-1.memory").strip_prefix("  ").unwrap();
    assert_eq!(row.chars().count(), 60, "a row for whoever reads it later: {picture}");
    assert!(!row.starts_with(' '), "from the first sample on: {picture}");
    let csv = stdout(
        &controller.command(&["history", "live-1", "--metric", "pairs", "--metric", "cpu", "-o", "csv"]),
    );
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("unix_ms,live-1.cpu_cores,live-1.pairs"), "{csv}");
    assert!(lines.next().is_some_and(|row| row.split(',').count() == 3), "{csv}");
    let json = stdout(&controller.command(&["history", "*.memory", "-o", "json"]));
    let first: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert!(first["memory_bytes"].as_f64().is_some() && first["unixMs"].as_i64().is_some(), "{first}");
    let unknown = controller.command(&["history", "live-7"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(
        stderr(&unknown).contains("live-7") && stderr(&unknown).contains("= help:"),
        "{}",
        stderr(&unknown)
    );
    let bare = controller.command(&["history", "live-1", "--since", "60"]);
    assert_eq!(bare.status.code(), Some(2), "a bare number has no unit");
}

#[test]
fn init_writes_a_file_that_check_accepts_and_copies_no_secret_into_it() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut service = foreshadow()
        .arg("sample-service")
        .current_dir(folder.path())
        .env("PORT", port.to_string())
        .env("E2E_SECRET", "hunter2")
        .spawn()
        .unwrap();
    let is_open = || is_listening(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
    wait_until("the service", Duration::from_secs(60), is_open);
    let file = folder.path().join("made.yaml");
    let init = |output: &Path| {
        foreshadow().args(["init", "--pid", &service.id().to_string(), "-o"]).arg(output).output().unwrap()
    };
    let (made, again) = (init(&file), init(&file));
    service.kill().unwrap();
    service.wait().unwrap();
    assert_eq!(made.status.code(), Some(0), "{}{}", stdout(&made), stderr(&made));
    assert!(stdout(&made).contains("valid configuration"), "{}", stdout(&made));
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(&format!("listens on {port}")) && text.contains("sample-service"), "{text}");
    assert!(text.contains("E2E_SECRET") && !text.contains("hunter2"), "names, no values: {text}");
    assert!(text.contains("resources: { cpu: 250m, memory: 128Mi }"), "{text}");
    assert_eq!(again.status.code(), Some(2), "never written over");
    let gone = foreshadow().args(["init", "--pid", "4000000", "-o", "/nonexistent/x.yaml"]).output().unwrap();
    assert_eq!(gone.status.code(), Some(2));
    assert!(stderr(&gone).contains("4000000") && stderr(&gone).contains("= help:"), "{}", stderr(&gone));
}

#[test]
fn init_of_a_bare_command_takes_its_port_out_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let output = foreshadow()
        .args(["init", "-o"])
        .arg(folder.path().join("made.yaml"))
        .args(["--", "sleep", "--port=18000"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = std::fs::read_to_string(folder.path().join("made.yaml")).unwrap();
    assert!(text.contains(r#"command: ["sleep", "--port=$PORT"]"#), "{text}");
}

#[test]
fn a_live_that_is_resized_by_hand_is_followed_by_its_shadow_without_an_alarm() {
    let _turn = turn();
    if !has_cgroups() {
        return;
    }
    let controller = Controller::start(&config("e2e-by-hand", "mode: act\n"));
    let status = controller.wait_ready();
    let requests: Vec<Request> = (0..97).map(|item| Request::get(format!("/item/{item}"))).collect();
    let crowd = Crowd::start(status["listen"].as_str().unwrap().parse().unwrap(), RATE, &requests);
    let is_well = |status: &Value| verdict(status, "live-1") == "\"healthy\"";
    controller.wait("what is normal", LEARNT, is_well);
    Quota::of(&status["pairs"][0]["live"]).set(30_000);
    let followed = controller.wait("the shadow to follow", SOON, |status| {
        let cpu = |role: &str| status["pairs"][0][role]["resources"]["cpu"].as_u64();
        cpu("live") == Some(300) && cpu("shadow") == Some(300)
    });
    let until = followed["tick"].as_u64().unwrap() + CALM_TICKS;
    let status = controller.wait("calm with the new size", LEARNT, |status| {
        until <= status["tick"].as_u64().unwrap() && is_well(status)
    });
    let journal = stdout(&controller.command(&["explain", "live-1"]));
    assert!(journal.contains("changed by somebody else, cpu from 200m to 300m"), "{journal}");
    // A shadow that is made anew touches no live: a neighbour may have hurt it.
    let is_on_live = |action: &Value| action["action"]["recreateShadow"].is_null();
    let actions = status["actions"].as_array().unwrap();
    assert!(!actions.iter().any(is_on_live), "nobody acted: {actions:?}");
    controller.assert_never_degraded(&["live-1"]);
    let answers = crowd.end();
    assert!(!answers.is_empty() && failures(&answers) == 0, "{} failed", failures(&answers));
}
