//! `launch`: becomes an instance. `control SERVICE STATE TEMPLATE LIVES`: runs so many pairs of what the file TEMPLATE says,
//! prints a line of JSON when they stand, and shuts down when its input ends.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use foreshadow_act::Platform;
use foreshadow_model::{Bytes, Instance, Inventory, OnExit, Pair, Ratio, ServiceName, with_causes};
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
        ["control", service, state, template, lives] => {
            let settings = settings(service, state, template);
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(control(settings, lives.parse().expect("a number")));
        }
        _ => panic!("expected `launch` or `control SERVICE STATE TEMPLATE LIVES`"),
    }
}

fn settings(service: &str, state: &str, template: &str) -> Settings {
    let template = fs::read_to_string(template).expect("a file");
    Settings {
        service: ServiceName::new(service).expect("a name"),
        template: serde_json::from_str(&template).expect("a template"),
        nodes: default_nodes(2),
        state: PathBuf::from(state),
        logs: LogLimits { size: Bytes::mebi(1), keep: 1 },
        launcher: std::env::current_exe().expect("own path"),
        shadow_ratio: Ratio::new(1.0).expect("a ratio"),
        shadow_turn: Duration::from_secs(600),
        seed_shadows: false,
    }
}

async fn control(settings: Settings, lives: u32) {
    let (sender, mut events) = tokio::sync::mpsc::channel(64);
    let local = Local::open(settings, Abilities::detect(), sender).await.expect("opened");
    local.start_lives(lives).await.expect("lives");
    let mut told = Vec::new();
    let mut inventory = local.inventory().await.expect("an inventory");
    // Until the shadows are ready, or it was said why there are none.
    while !stands(&inventory) && !told.iter().any(|change: &String| change.contains("could not be made")) {
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

fn stands(inventory: &Inventory) -> bool {
    let is_ready = |pair: &Pair| pair.live.is_ready() && pair.shadow.as_ref().is_some_and(Instance::is_ready);
    inventory.pairs.iter().all(is_ready)
}
