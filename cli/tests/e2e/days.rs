//! A user's ordinary days: another configuration, a word to the controller, a look back.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::controller::{Controller, turn};

/// Long enough for a tick of a second on a busy machine, many times over.
const SOON: Duration = Duration::from_secs(20);

fn config(service: &str, more: &str) -> String {
    let program = assert_cmd::cargo::cargo_bin!("foreshadow").display().to_string();
    format!(
        "service: {service}\ntick: 1s\nlisten: 127.0.0.1:0\nstate: state\nplatform:\n  type: local\n  local:\n    \
         command: [{program:?}, sample-service]\n    ready: {{ http: /healthz }}\n    resources: {{ cpu: 200m, memory: 128Mi }}\n{more}"
    )
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
    assert!(error(&status).contains("foreshadow.yaml:12:20"), "with its line: {}", error(&status));
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

    write(&controller, &config(service, "mode: observe\nprobe: { enabled: false }\n"));
    let taken = controller.command(&["reload"]);
    assert!(taken.status.success() && stderr(&taken).contains("mode, probe"), "{}", stderr(&taken));
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
