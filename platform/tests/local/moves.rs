//! A live is replaced on another node.

use std::time::Duration;

use foreshadow_act::Platform;
use foreshadow_model::{NodeName, OnExit};

use crate::world::{World, is_alive, sh};

/// The processors that the process may use.
const ALLOWED: &str = "grep Cpus_allowed_list /proc/self/status | cut -f 2";

#[tokio::test]
async fn a_live_that_is_moved_uses_the_processors_of_its_new_node_and_its_shadow_makes_room() {
    let Some(world) = World::new() else { return };
    if world.settings.nodes.len() < 2 {
        eprintln!("skipped: one node only");
        return;
    }
    let (local, before) = world.pair().await;
    let (from, to) = (before.live.node.clone(), before.shadow.as_ref().unwrap().node.clone());
    assert_ne!(from, to);
    local.replace_on(&before.live.id, &to).await.unwrap();
    let after = world.stands(&local, 1).await.remove(0);
    assert_eq!((&after.live.node, &after.shadow.as_ref().unwrap().node), (&to, &from));
    assert!(!is_alive(before.live.pids[0]) && before.live.revision < after.live.revision);
    let allowed = async |instance| sh(instance, ALLOWED).await.output;
    assert_ne!(allowed(&after.live).await, allowed(after.shadow.as_ref().unwrap()).await);
    local.replace_on(&before.live.id, &to).await.expect("where it stands already it is left alone");
    assert_eq!(world.stands(&local, 1).await.remove(0), after);
    let nowhere = NodeName::new("nowhere").unwrap();
    assert!(local.replace_on(&before.live.id, &nowhere).await.is_err());
    assert_eq!(world.stands(&local, 1).await.remove(0), after, "nothing was touched");
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
    assert_eq!(world.left_overs(), Vec::<String>::new());
}
