//! `launch`: becomes an instance. `control SERVICE STATE PYTHON [STORAGE]`: runs one pair, prints a line of JSON when it
//! stands, and shuts down when its input ends.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use foreshadow_act::Platform;
use foreshadow_model::{Bytes, OnExit, Readiness, Resources, ServiceName, Template, with_causes};
use foreshadow_platform::local::{
    Abilities, LAUNCH_FAILED, Local, LogLimits, Settings, default_nodes, launch,
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["launch"] => {
            eprintln!("launch: {}", with_causes(&launch()));
            std::process::exit(i32::from(LAUNCH_FAILED));
        }
        ["control", service, state, python, ref storage @ ..] => {
            let settings = settings(service, state, python, storage);
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(control(settings));
        }
        _ => panic!("expected `launch` or `control SERVICE STATE PYTHON [STORAGE]`"),
    }
}

fn settings(service: &str, state: &str, python: &str, storage: &[&str]) -> Settings {
    let code = "import http.server, os; http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), \
                http.server.SimpleHTTPRequestHandler).serve_forever()";
    Settings {
        service: ServiceName::new(service).expect("a name"),
        template: Template {
            command: [python, "-c", code].map(String::from).to_vec(),
            workdir: PathBuf::from("/"),
            env: [].into(),
            shadow_env: [].into(),
            ready: Readiness::Tcp,
            ready_timeout: Duration::from_secs(20),
            resources: Resources::default(),
            storage: storage.iter().map(PathBuf::from).collect(),
            egress_allow: Vec::new(),
        },
        nodes: default_nodes(2),
        state: PathBuf::from(state),
        logs: LogLimits { size: Bytes::mebi(1), keep: 1 },
        launcher: std::env::current_exe().expect("own path"),
        shadows: true,
    }
}

async fn control(settings: Settings) {
    let (sender, mut events) = tokio::sync::mpsc::channel(64);
    let local = Local::open(settings, Abilities::detect(), sender).await.expect("opened");
    local.start_lives(1).await.expect("a live");
    let mut told = Vec::new();
    let mut inventory = local.inventory().await.expect("an inventory");
    // Until the shadow is ready, or it was said why there is none.
    while !inventory.pairs[0].shadow.as_ref().is_some_and(foreshadow_model::Instance::is_ready)
        && !told.iter().any(|change: &String| change.contains("could not be made"))
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
        while let Ok(event) = events.try_recv() {
            told.push(event.change);
        }
        inventory = local.inventory().await.expect("an inventory");
    }
    let line = serde_json::json!({ "inventory": inventory, "unenforced": local.unenforced(), "told": told });
    eprintln!("{line}");
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await.ok();
    local.shut_down(OnExit::Stop, Duration::from_secs(2)).await;
}
