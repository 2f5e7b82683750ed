//! `check` proposes what would mend a shadow, with and without a controller.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::controller::{Controller, foreshadow, needs, pair, turn};
use crate::http::{Connection, Request};

/// A service that answers otherwise where it is a shadow, and whose shadow says that it is refused.
const SERVICE: &str = r#"
import http.server, os, socket
OTHER = os.environ.get("OTHER") == "yes"
if OTHER:
    print("OperationalError: connection to server at \"10.9.8.7\", port 5432 failed: Connection refused", flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        gone = OTHER and self.path.startswith("/admin")
        body = b"none" if gone else b"here"
        self.send_response(404 if gone else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

const CONFIG: &str = "service: e2e-proposals\ntick: 1s\nlisten: 127.0.0.1:0\nstate: state\nplatform:\n  type: local\n  local:\n    \
     command: [python3, service.py]\n    ready: { http: /healthz }\n    \
     env:\n      DATABASE_URL: \"postgres://app:hunter2@db.internal/shop\"\n      MAIL: mail.internal:587\n\
     shadow: { env: { OTHER: \"yes\", MAIL: \"\" } }\nmirror: { rate: { min: 50%, max: 50% } }\n";

fn check(folder: &Path, words: &[&str]) -> String {
    let output = foreshadow().arg("check").args(words).arg(folder.join("foreshadow.yaml")).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What was found out about shadows, with the lines that are proposed.
fn found(text: &str) -> Vec<(String, Vec<String>)> {
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .filter(|check| matches!(check["what"].as_str(), Some("diverging answers" | "egress")))
        .map(|check| {
            let proposals = check["proposals"].as_array().unwrap().iter();
            let lines = proposals.map(|proposal| proposal["yaml"].as_str().unwrap().to_owned()).collect();
            (check["found"].as_str().unwrap().to_owned(), lines)
        })
        .collect()
}

#[test]
fn check_proposes_what_mends_a_shadow_and_remembers_it_without_a_controller() {
    let _turn = turn();
    if !needs(&["python3"]) {
        return;
    }
    let mut controller = Controller::start_with(CONFIG, &[("service.py", SERVICE)]);
    let status = controller.wait_ready();
    let listen = status["listen"].as_str().unwrap().parse().unwrap();
    controller.wait("diverging answers", Duration::from_secs(60), |status| {
        // A connection is a session here, and half of them are sampled.
        let mut user = Connection::new(listen);
        for number in 1..=20 {
            user.ask(&Request::get(format!("/admin/users/{number}"))).unwrap();
        }
        let routes = pair(status, "live-1")["divergingRoutes"].as_object();
        40 <= routes.map_or(0, |routes| routes.values().filter_map(Value::as_u64).sum())
    });
    let running = found(&check(&controller.folder, &["-o", "json"]));
    assert!(controller.command(&["stop"]).status.success());
    assert_eq!(controller.ended(), Some(0));
    let text = check(&controller.folder, &["-o", "json"]);
    let without = found(&text);
    for (when, found) in [("running", &running), ("without", &without)] {
        let with = |word: &str| found.iter().find(|(said, _)| said.contains(word));
        let (_, lines) = with("/admin").unwrap_or_else(|| panic!("{when}: {found:?}"));
        assert!(lines[0].contains("path: /admin"), "{when}: {lines:?}");
        let (_, lines) = with("10.9.8.7:5432").unwrap_or_else(|| panic!("{when}: {found:?}"));
        assert_eq!(lines[0], "shadow:\n  egress:\n    allow: [\"10.9.8.7:5432\"]\n", "{when}");
        let (said, lines) = with("db.internal:5432").unwrap_or_else(|| panic!("{when}: {found:?}"));
        assert!(said.contains("`DATABASE_URL`") && lines.len() == 2, "{when}: {said} {lines:?}");
        assert!(with("mail.internal").is_none(), "{when}: it has another value in the shadow");
    }
    let shown = check(&controller.folder, &[]);
    assert!(shown.contains("\nshadow:\n  env:\n    DATABASE_URL: \"\"\n"), "to be pasted: {shown}");
    assert!(!shown.contains("hunter2") && !text.contains("hunter2"), "no value is shown");
}
