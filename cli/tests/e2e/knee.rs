//! `foreshadow knee`: what one live can take, found on its shadow.

use std::process::Command;
use std::time::Duration;

use crate::controller::{Controller, Load, fed, foreshadow, has_cgroups, needs, pair, turn};
use crate::judge::lines;

/// Answers one request after the other, each after 20 ms: 50 a second, and a queue above some 40.
const SLOW: &str = "
import http.server, os, time
class Slow(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.0'
    def do_GET(self):
        time.sleep(0.02)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'well')
    def log_message(self, *words):
        pass
http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), Slow).serve_forever()
";

fn config(nodes: &str) -> String {
    format!(
        "service: e2e-knee\ntick: 1s\nlisten: 127.0.0.1:0\nstate: state\nplatform:\n  type: local\n  local:\n    \
         command: [python3, slow.py]\n    lives: 1\n{nodes}mirror: {{ rate: {{ min: 50%, max: 50% }} }}\n\
         probe: {{ enabled: false }}\n"
    )
}

#[test]
#[ignore = "long: a ramp takes three minutes"]
fn what_a_service_of_a_known_rate_can_take_is_found_and_its_live_goes_on() {
    let _turn = turn();
    if !has_cgroups() || !needs(&["hey", "python3"]) {
        return;
    }
    let controller = Controller::start_with(&config(""), &[("slow.py", SLOW)]);
    let status = controller.wait_ready();
    let url = format!("http://{}/", status["listen"].as_str().unwrap());
    let mut load = Load::of(Command::new("hey").args(["-z", "240s", "-c", "5", "-q", "2", &url]));
    controller.wait("pairs", Duration::from_secs(60), |status| {
        1 < pair(status, "live-1")["pairs"].as_u64().unwrap_or(0)
    });
    let svg = controller.folder.join("knee.svg");
    let words = ["knee", "--objective", "100ms", "-o", "json", "--plot", svg.to_str().unwrap()];
    let output = controller.command(&words);
    println!("{}", String::from_utf8_lossy(&output.stderr));
    let said = lines(&output);
    let (knee, steps) = said.split_last().unwrap();
    let found = knee["requests_per_second"].as_f64().unwrap();
    assert!((30.0..52.0).contains(&found) && knee["high"].is_number() && 4 < steps.len(), "{knee}");
    assert!(std::fs::read_to_string(&svg).unwrap().contains("requests per second"));
    load.end();
}

#[test]
fn what_cannot_be_done_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.yaml");
    std::fs::write(&file, config("    nodes: [{ name: a, cpus: 0 }]\n").replace(":0\n", ":18081\n")).unwrap();
    let path = file.to_str().unwrap();
    for (words, code, wanted) in [
        (&["knee", "-c", path, "--objective", "0s"][..], 2, "--objective: expected a span"),
        (&["knee", "-c", path, "--objective", "1s", "--errors", "200%"], 2, "--errors: expected a share"),
        (&["knee", "-c", "/nowhere.yaml", "--objective", "1s"], 2, "/nowhere.yaml"),
        (&["knee", "-c", path, "--percentile", "95"], 2, "--percentile: expected a share"),
        (&["knee", "-c", path, "--objective", "1s"], 1, "no controller answers"),
    ] {
        let output = fed(foreshadow().args(words), "");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(code) && text.contains(wanted),
            "{words:?}: {:?} {text}",
            output.status
        );
    }
}
