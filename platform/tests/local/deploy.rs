//! Another command or environment, live by live.

use std::time::Duration;

use foreshadow_act::{PairLimit, Platform};
use foreshadow_model::{InstanceId, MilliCpu, OnExit, Template, with_causes};

use crate::world::{World, controller, is_alive, killed, pids, sh, until};

/// The template with another value of the variable `VERSION`.
fn version(world: &World, version: &str) -> Template {
    let mut template = world.settings.template.clone();
    template.env.insert("VERSION".into(), version.into());
    template
}

fn broken(world: &World) -> Template {
    let command = ["sh", "-c", "echo out of luck; exit 3"].map(String::from).to_vec();
    Template { command, ..world.settings.template.clone() }
}

const VERSION: &str = "echo $VERSION on $PORT";

#[tokio::test]
async fn lives_are_replaced_one_by_one_and_their_shadows_follow() {
    let Some(mut world) = World::new() else { return };
    world.settings.template = version(&world, "1");
    let (local, _events) = world.open().await;
    local.start_lives(2).await.unwrap();
    let before = world.stands(&local, 2).await;
    local.resize(&InstanceId::live(1), PairLimit::alike(Some(MilliCpu::new(400)))).await.unwrap();
    local.set_template(version(&world, "2")).await;
    assert_eq!(local.outdated(), [InstanceId::live(1), InstanceId::live(2)]);
    local.replace(&InstanceId::live(1)).await.unwrap();
    assert_eq!(local.outdated(), [InstanceId::live(2)]);
    let after = world.stands(&local, 2).await;
    for instance in [&after[0].live, after[0].shadow.as_ref().unwrap()] {
        assert_eq!(sh(instance, VERSION).await.output, format!("2 on {}\n", instance.port));
        assert_eq!(instance.resources.cpu, Some(MilliCpu::new(400)), "a size an action gave is kept");
    }
    assert!(!is_alive(before[0].live.pids[0]) && before[0].live.revision < after[0].live.revision);
    assert_eq!(after[1], before[1], "the other pair is not touched");
    local.replace(&InstanceId::live(2)).await.unwrap();
    local.replace(&InstanceId::live(2)).await.expect("what is current is left as it is");
    let after = world.stands(&local, 2).await;
    assert_eq!(sh(&after[1].live, VERSION).await.output, format!("2 on {}\n", after[1].live.port));
    assert!(local.outdated().is_empty());
    assert!(local.replace(&InstanceId::live(9)).await.is_err());
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
    assert_eq!(world.left_overs(), Vec::<String>::new());
}

#[tokio::test]
async fn one_that_does_not_start_is_told_with_its_log_and_the_old_one_is_back() {
    let Some(mut world) = World::new() else { return };
    world.settings.template = version(&world, "1");
    let (local, pair) = world.pair().await;
    local.set_template(broken(&world)).await;
    let error = with_causes(&local.replace(&pair.live.id).await.unwrap_err());
    assert!(error.contains("the old one is back") && error.contains("logs/live-1.log"), "{error}");
    assert!(!error.contains("out of luck"), "what a service says may be secret: {error}");
    let now = world.stands(&local, 1).await.remove(0);
    assert_eq!(sh(&now.live, VERSION).await.output, format!("1 on {}\n", now.live.port));
    assert_eq!(now.shadow, pair.shadow, "the shadow is still that of the old one");
    assert_eq!(local.outdated(), [pair.live.id]);
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
    assert_eq!(world.left_overs(), Vec::<String>::new());
}

#[tokio::test]
async fn a_template_changed_while_no_controller_ran_makes_lives_outdated_and_the_old_one_can_still_be_brought_back()
 {
    let Some(mut world) = World::new() else { return };
    world.settings.template = version(&world, "1");
    world.settings.template.env.insert("URL".into(), "http://here:$PORT/".into());
    let (child, before) = controller(&world, 1);
    killed(child);
    let record = std::fs::read_to_string(world.settings.state.join("instances.json")).unwrap();
    assert!(record.contains("VERSION") && !record.contains("here"), "names, but no values: {record}");
    let old = world.settings.template.clone();
    world.settings.template = Template {
        env: [("FORESHADOW_TEST".into(), world.settings.service.to_string())].into(),
        ..broken(&world)
    };
    let (local, _events) = world.open().await;
    local.start_lives(1).await.unwrap();
    let adopted = world.stands(&local, 1).await.remove(0);
    assert_eq!(adopted.live.pids, before.pairs[0].live.pids);
    assert_eq!(
        pids(adopted.shadow.as_ref().unwrap()),
        before.pairs[0].shadow.as_ref().unwrap().pids,
        "a shadow that is what its live is stays too"
    );
    assert_eq!(local.outdated(), [InstanceId::live(1)]);
    let error = with_causes(&local.replace(&InstanceId::live(1)).await.unwrap_err());
    assert!(error.contains("the old one is back"), "{error}");
    let back = world.stands(&local, 1).await.remove(0).live;
    let said = sh(&back, "echo $VERSION $URL").await.output;
    assert_eq!(said, format!("1 http://here:{}/\n", back.port));
    local.set_template(old).await;
    assert!(local.outdated().is_empty(), "the old file again: nothing is outdated");
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}

#[tokio::test]
async fn what_only_shadows_have_is_changed_without_touching_lives() {
    let Some(world) = World::new() else { return };
    let (local, pair) = world.pair().await;
    let mut template = world.settings.template.clone();
    template.shadow_env.insert("VERSION".into(), "shadowed".into());
    local.set_template(template).await;
    assert!(local.outdated().is_empty());
    let now = until(&local, "another shadow", |inventory| {
        let now = crate::world::ready_pair(inventory, 1)?;
        (now.shadow != pair.shadow).then_some(now)
    })
    .await;
    assert_eq!(now.live, pair.live);
    let output = sh(now.shadow.as_ref().unwrap(), "echo $VERSION").await.output;
    assert_eq!(output, "shadowed\n");
    local.shut_down(OnExit::Stop, Duration::ZERO).await;
}
