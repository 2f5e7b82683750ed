//! What users send is found nowhere in what the product keeps, says or serves.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::alone::free_address;
use crate::controller::{Controller, sample, turn};
use crate::http::{Connection, Request};

/// Requests of which each carries a secret of its own in one of the places.
const REQUESTS: usize = 400;

/// Every secret begins with this, and nothing else does.
const MARK: &str = "zQ7kXsecretW";

fn request(number: usize) -> Request {
    let secret = format!("{MARK}{number}");
    match number % 8 {
        0 => Request::get("/item/1").header("authorization", format!("Bearer {secret}")),
        1 => Request::get("/item/2").header("cookie", format!("sid={secret}")),
        2 => Request::get(format!("/item/3?token={secret}")),
        3 => Request::get(format!("/reset/{secret}")),
        4 => Request::get("/item/4").header("user-agent", format!("curl/8 {secret}@shop.example")),
        5 => Request::post("/item/5", format!("password={secret}&page=1")),
        6 => Request::get(format!("/item/6?q={secret}%40shop.example")),
        // No HTTP at all, which must not be told with its words either.
        _ => Request::get(format!("/item/7\u{1}{secret}")),
    }
}

/// The files below a folder that hold the mark.
fn found_in(folder: &Path, mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(found_in(&path, mark));
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes.windows(mark.len()).any(|window| window == mark.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
    found
}

#[test]
fn what_users_send_is_in_no_log_no_store_no_answer_of_the_api_and_no_metric() {
    let _turn = turn();
    let api = free_address();
    let text = sample(
        "e2e-secrets",
        1,
        "cpu: 200m, memory: 128Mi",
        &format!(
            "mirror:\n  rate: {{ min: 100%, max: 100% }}\n  compareBodies: true\n  routes:\n    \
             - {{ path: /item, mirror: true, methods: [POST] }}\napi: {{ listen: {api} }}\n"
        ),
    );
    let mut controller = Controller::start(&text);
    let status = controller.wait_ready();
    let listen = status["listen"].as_str().unwrap().parse().unwrap();
    sleep(Duration::from_secs(2));
    for number in 0..REQUESTS {
        // Some are refused, and some have no answer: what matters is where their words are afterwards.
        drop(Connection::new(listen).ask(&request(number)));
    }
    // Some ticks, until all of it is told and stored.
    sleep(Duration::from_secs(6));
    let status = controller.status().unwrap();
    let mirrored = status["mirrored"].as_u64().unwrap();
    assert!(100 < mirrored, "hardly anything was mirrored, so hardly anything is proved: {status:#}");
    let mut said = vec![("status", status.to_string())];
    for words in [&["explain", "live-1", "--output", "json"][..], &["history", "live-1", "--output", "json"]]
    {
        let output = controller.command(words);
        assert!(output.status.success() && !output.stdout.is_empty(), "{words:?}: {output:?}");
        said.push((words[0], String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    for path in ["/metrics", "/v1/status"] {
        let answer = Connection::new(api).ask(&Request::get(path)).unwrap();
        assert_eq!(answer.status, 200, "{path}");
        said.push((path, String::from_utf8_lossy(&answer.body).into_owned()));
    }
    assert!(controller.command(&["stop"]).status.success());
    assert_eq!(controller.ended(), Some(0));
    for (who, text) in said {
        assert!(!text.contains(MARK), "`{who}` says a secret:\n{text}");
    }
    let found = found_in(&controller.folder, MARK);
    assert!(found.is_empty(), "{found:#?}");
    assert!(!found_in(&controller.folder, "e2e-secrets").is_empty(), "the search finds what is there");
}
