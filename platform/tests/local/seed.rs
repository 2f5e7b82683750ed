//! Shadows that begin with the memory of their live.
//!
//! With a CRIU that this kernel needs (4.2 from Linux 6.16 on) a clone is really made; with an older one, or none, the
//! refusal is looked at.

use std::time::Duration;

use foreshadow_act::Platform;
use foreshadow_model::{InstanceId, OnExit, Pair};
use foreshadow_platform::local::seeding;

use crate::world::{World, get, ready_pair, told, until};

/// Counts in memory how often it was asked, and says who it takes itself for.
const COUNTER: &str = r#"
import http.server, os
asked = 0
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global asked
        if self.path == "/count":
            asked += 1
        body = f"{os.environ['FORESHADOW_INSTANCE']} {asked} {os.getpid()}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// A service without capabilities, or with all of them.
fn counter(world: &mut World, is_root: bool) {
    // Another user's process CRIU could only look at with `CAP_SYS_RESOURCE`, which many a container has not got.
    let nobody = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    let python = [world.python.as_str(), "-c", COUNTER].map(String::from);
    let words = nobody.into_iter().filter(|_| !is_root).map(String::from);
    world.settings.template.command = words.chain(python).collect();
    world.settings.template.workdir = "/".into();
    world.settings.seed_shadows = true;
}

/// The number of a process in its own namespace.
fn numbered(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    line.split_ascii_whitespace().last().unwrap_or_default().to_owned()
}

async fn pair_of(local: &foreshadow_platform::local::Local) -> Pair {
    until(local, "a pair", |inventory| ready_pair(inventory, 1)).await
}

#[tokio::test]
async fn a_shadow_begins_with_what_its_live_remembers_and_live_goes_on() {
    let Some(mut world) = World::new() else { return };
    let able = seeding();
    if !able.works {
        eprintln!("SKIPPED: {}; {}", able.found, able.remedy);
        return;
    }
    counter(&mut world, false);
    let (local, mut events) = world.open().await;
    local.start_lives(1).await.unwrap();
    let first = pair_of(&local).await;
    for n in 1..=5 {
        assert!(get(&first.live, "/count").await.starts_with(&format!("live-1 {n} ")));
    }
    // A user who is connected, and others who come all the time, are not in the way.
    let kept = crate::world::connect(&first.live).unwrap();
    let live = first.live.clone();
    let coming = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let come = coming.clone();
    let users = std::thread::spawn(move || {
        while come.load(std::sync::atomic::Ordering::Relaxed) {
            crate::world::connect(&live).unwrap();
        }
    });
    local.recreate_shadow(&InstanceId::live(1)).await.unwrap();
    told(&mut events, "retired").await;
    eprintln!("{}", told(&mut events, "was written down to seed its shadow and stood still for").await);
    told(&mut events, "seeded with what its live holds").await;
    coming.store(false, std::sync::atomic::Ordering::Relaxed);
    users.join().unwrap();
    drop(kept);
    let second = pair_of(&local).await;
    let shadow = second.shadow.as_ref().unwrap();
    let remembered = get(shadow, "/count").await;
    assert!(remembered.starts_with("live-1 6 "), "it goes on where its live was: {remembered}");
    assert!(get(&second.live, "/count").await.starts_with("live-1 6 "), "and so does its live");
    assert_eq!(first.live.pids, second.live.pids, "which is the same process");
    // What is shut in stays shut in, and nothing that was written down is left.
    let number = remembered.rsplit(' ').next().unwrap();
    let pid = *shadow.pids.iter().find(|pid| numbered(**pid) == number).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000\nCapBnd:\t0000000000000000"), "{status}");
    let inside = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let root = inside.lines().find(|line| line.contains(" / / "));
    assert!(root.is_some_and(|line| line.contains(" ro,")), "{inside}");
    assert!(!inside.contains("/shadow-1/seed"), "nobody keeps what was written down: {inside}");
    // With it the state folder, which is below `/tmp` here, would hold a mount, and not be covered.
    assert!(inside.contains(" /tmp rw,nosuid,nodev,relatime - overlay"), "{inside}");
    let written = world.settings.state.join("shadows").join(shadow.id.as_str()).join("seed");
    let deleted = async {
        while written.exists() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), deleted).await.unwrap();
    // One that dies is started the ordinary way.
    crate::world::kill(i32::try_from(pid).unwrap());
    let third = until(&local, "a new shadow", |inventory| {
        ready_pair(inventory, 1).filter(|pair| 0 < pair.shadow.as_ref().unwrap().restarts)
    })
    .await;
    assert!(get(third.shadow.as_ref().unwrap(), "/count").await.starts_with("shadow-1 1 "));
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
    assert_eq!(world.left_overs(), Vec::<String>::new());
}

#[tokio::test]
async fn a_live_whose_clone_could_get_out_is_not_cloned_and_its_shadow_begins_with_nothing() {
    let Some(mut world) = World::new() else { return };
    counter(&mut world, true);
    let (local, mut events) = world.open().await;
    local.start_lives(1).await.unwrap();
    let why = told(&mut events, "not seeded").await;
    let able = seeding();
    if able.works {
        assert!(why.contains("has capabilities"), "{why}");
    } else {
        assert!(able.found.ends_with(why.trim_start_matches("not seeded: ")), "{why} is not {}", able.found);
        assert!(local.unenforced().iter().any(|line| line.starts_with("seeding: ")), "the status says so");
    }
    let pair = pair_of(&local).await;
    assert!(get(pair.shadow.as_ref().unwrap(), "/count").await.starts_with("shadow-1 1 "));
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
    assert_eq!(world.left_overs(), Vec::<String>::new());
}
