use std::collections::BTreeMap;
use std::time::Duration;

use foreshadow_act::{BalancerError, JournalError, PairLimit};
use foreshadow_model::{Bytes, Instance, MilliCpu, NodeName, Pair, Phase, Readiness, Resources, Role};

use super::*;

/// Lives with the command they run, shares of users, and everything that was done, in order.
#[derive(Clone, Debug, Default)]
struct Fake(Arc<Mutex<World>>);

#[derive(Debug, Default)]
struct World {
    wanted: String,
    lives: BTreeMap<u32, String>,
    weights: BTreeMap<InstanceId, Weight>,
    /// The command that never becomes ready.
    broken: &'static str,
    done: Vec<String>,
    /// A tick at which no live carries users is a failed request.
    unserved: bool,
}

impl World {
    fn look(&mut self) {
        let carries = |number: &u32| self.weights.get(&InstanceId::live(*number)) != Some(&Weight::NONE);
        self.unserved |= !self.lives.keys().any(carries);
    }
}

impl Fake {
    fn running(lives: u32, command: &str) -> Self {
        let fake = Self::default();
        fake.world().lives = (1..=lives).map(|number| (number, command.to_owned())).collect();
        fake
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    fn failed() -> PlatformError {
        PlatformError::failed("start it", "its last words")
    }
}

impl Platform for Fake {
    async fn inventory(&self) -> Result<Inventory, PlatformError> {
        let live = |number: &u32| Pair {
            live: Instance {
                phase: Phase::Ready,
                ..Instance::new(InstanceId::live(*number), Role::Live, NodeName::new("a").unwrap(), 1)
            },
            shadow: None,
        };
        Ok(Inventory { pairs: self.world().lives.keys().map(live).collect(), ..Inventory::default() })
    }
    async fn resize(&self, _: &InstanceId, _: PairLimit<MilliCpu>) -> Result<(), PlatformError> {
        Ok(())
    }
    async fn resize_memory(&self, _: &InstanceId, _: PairLimit<Bytes>) -> Result<(), PlatformError> {
        Ok(())
    }
    async fn scale(&self, lives: u32) -> Result<(), PlatformError> {
        let mut world = self.world();
        world.done.push(format!("scale {lives}"));
        world.lives.retain(|number, _| *number <= lives);
        for number in 1..=lives {
            if !world.lives.contains_key(&number) {
                if world.wanted == world.broken {
                    return Err(Self::failed());
                }
                let wanted = world.wanted.clone();
                world.lives.insert(number, wanted);
            }
        }
        world.look();
        Ok(())
    }
    async fn replace_on(&self, _live: &InstanceId, _node: &NodeName) -> Result<(), PlatformError> {
        unreachable!("a roll-out moves nobody")
    }
    async fn recreate_shadow(&self, _: &InstanceId) -> Result<(), PlatformError> {
        Ok(())
    }
}

impl Fleet for Fake {
    async fn set_template(&self, template: Template) {
        self.world().wanted = template.command[0].clone();
    }
    fn outdated(&self) -> Vec<InstanceId> {
        let world = self.world();
        let differs = world.lives.iter().filter(|(_, command)| **command != world.wanted);
        differs.map(|(number, _)| InstanceId::live(*number)).collect()
    }
    async fn replace(&self, live: &InstanceId) -> Result<(), PlatformError> {
        let mut world = self.world();
        world.done.push(format!("replace {live}"));
        assert_eq!(world.weights.get(live), Some(&Weight::NONE), "users left first");
        world.look();
        if world.wanted == world.broken {
            return Err(Self::failed());
        }
        let wanted = world.wanted.clone();
        world.lives.insert(live.number().unwrap(), wanted);
        Ok(())
    }
}

impl Balancer for Fake {
    async fn set_weight(&self, live: &InstanceId, weight: Weight) -> Result<(), BalancerError> {
        let mut world = self.world();
        world.weights.insert(live.clone(), weight);
        world.look();
        Ok(())
    }
}

impl Spread for Fake {
    fn weight(&self, live: &InstanceId) -> Weight {
        self.world().weights.get(live).copied().unwrap_or(Weight::FULL)
    }
    fn refresh(&self, _: &Inventory) {}
}

impl Journal for Fake {
    async fn append(&self, _: Tick, event: JournalEvent) -> Result<(), JournalError> {
        assert_eq!(event.kind(), "deploy");
        Ok(())
    }
}

fn template(command: &str) -> Template {
    Template {
        command: vec![command.to_owned()],
        workdir: "/".into(),
        env: BTreeMap::new(),
        shadow_env: BTreeMap::new(),
        ready: Readiness::Tcp,
        ready_timeout: Duration::from_secs(1),
        resources: Resources::default(),
        storage: Vec::new(),
        egress_allow: Vec::new(),
    }
}

/// Rolls `new` over what the fake runs, `old`.
async fn roll(fake: &Fake, lives: Option<u32>, stand_in: Option<InstanceId>) -> DeployRow {
    let progress = Progress::new(vec!["platform.local.command".into()]);
    let rollout = Rollout {
        fleet: fake.clone(),
        spread: fake.clone(),
        journal: fake.clone(),
        progress: progress.clone(),
        tick: Tick(1),
    };
    rollout.roll(Wanted { template: template("new"), before: Some(template("old")), lives, stand_in }).await;
    assert!(!fake.world().unserved, "some live carried users at every moment: {:?}", fake.world().done);
    progress.row()
}

fn commands(fake: &Fake) -> Vec<String> {
    fake.world().lives.values().cloned().collect()
}

#[tokio::test(start_paused = true)]
async fn lives_are_replaced_one_after_another_and_carry_users_again() {
    let fake = Fake::running(2, "old");
    let reduced = Weight::new(50);
    fake.world().weights.insert(InstanceId::live(2), reduced);
    let row = roll(&fake, None, None).await;
    assert_eq!((row.stage, row.lives_done, row.lives), (DeployStage::Done, 2, 2));
    assert_eq!(fake.world().done, ["replace live-1", "replace live-2"]);
    assert_eq!(commands(&fake), ["new", "new"]);
    assert_eq!(fake.weight(&InstanceId::live(1)), Weight::FULL);
    assert_eq!(fake.weight(&InstanceId::live(2)), reduced, "its share is not given back by a deploy");
}

#[tokio::test(start_paused = true)]
async fn an_only_live_gets_a_stand_in_that_goes_again() {
    let fake = Fake::running(1, "old");
    assert_eq!(roll(&fake, None, None).await.stage, DeployStage::Done);
    assert_eq!(fake.world().done, ["scale 2", "replace live-1", "scale 1"]);
    assert_eq!(commands(&fake), ["new"]);
}

#[tokio::test(start_paused = true)]
async fn a_stand_in_that_does_not_come_up_stops_it_before_anything_is_touched() {
    let fake = Fake::running(1, "old");
    fake.world().broken = "new";
    let row = roll(&fake, None, None).await;
    assert_eq!(row.stage, DeployStage::Stopped);
    assert!(row.now.contains("its last words"), "{}", row.now);
    assert_eq!((commands(&fake), fake.world().wanted.as_str()), (vec!["old".to_owned()], "old"));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_come_up_stops_it_at_the_first_live() {
    let fake = Fake::running(3, "old");
    fake.world().broken = "new";
    let row = roll(&fake, None, None).await;
    assert_eq!((row.stage, row.lives_done), (DeployStage::Stopped, 0));
    assert_eq!(fake.world().done, ["replace live-1"], "nothing else is touched");
    assert_eq!(fake.weight(&InstanceId::live(1)), Weight::FULL);
    assert_eq!(fake.world().wanted, "old", "lives to come are made of what works");
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_controller_began_is_finished_and_its_stand_in_dismissed() {
    let fake = Fake::running(2, "old");
    fake.world().lives.insert(2, "new".into());
    let row = roll(&fake, None, Some(InstanceId::live(2))).await;
    assert_eq!(row.stage, DeployStage::Done);
    assert_eq!(fake.world().done, ["replace live-1", "scale 1"]);
    let gone = Fake::running(1, "old");
    assert_eq!(roll(&gone, None, Some(InstanceId::live(2))).await.stage, DeployStage::Done);
    assert_eq!(gone.world().done, ["scale 2", "replace live-1", "scale 1"], "it never came up: another");
}

#[tokio::test(start_paused = true)]
async fn another_number_of_lives_comes_last() {
    let more = Fake::running(2, "new");
    assert_eq!(roll(&more, Some(3), None).await.stage, DeployStage::Done);
    assert_eq!(commands(&more).len(), 3);
    let fewer = Fake::running(3, "new");
    roll(&fewer, Some(1), None).await;
    assert_eq!((commands(&fewer).len(), fewer.weight(&InstanceId::live(2))), (1, Weight::NONE));
}
