//! Memory profiles of every instance, and the ballast of shadows.
//!
//! A profile waits between its two looks, so a thread takes them, one instance after the other. What it finds also says
//! how much a shadow lacks: the ballast is made, told and given back here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc};
use std::thread;
use std::time::Duration;

use foreshadow_forecast::Growth;
use foreshadow_model::{
    Bytes, Instance, InstanceId, Inventory, MemoryProfile, MemoryRow, ProfilePolicy, Window,
};
use foreshadow_probe::{Ballast, BallastEnd, HelperCommand, Load, monotonic, profile};
use tokio::sync::mpsc;

/// Between the two looks at a page. Pages that change faster count once.
const PAUSE: Duration = Duration::from_millis(500);

/// Profiles on their way to the loop.
const RESULTS: usize = 1024;

/// A shadow that holds this part of its live's memory, or more, is alike: a fifth less is within what traffic explains.
const ALIKE: f64 = 0.8;

/// Less than this is not worth a process.
const BALLAST_MIN: Bytes = Bytes::mebi(64);

/// After a ballast was given back because memory was short, none is made for this long.
const REST: Duration = Duration::from_secs(600);

/// What came of a look at one instance.
pub(crate) type Profiled = (InstanceId, MemoryProfile);

struct Turn {
    pairs: Vec<(Instance, Option<Instance>)>,
    ballast: bool,
}

/// The way to the thread that takes profiles.
#[derive(Debug)]
pub(crate) struct Profiles {
    policy: ProfilePolicy,
    turns: std_mpsc::SyncSender<Turn>,
    last: Option<Duration>,
    /// The processes of all ballast.
    ballast: Arc<Mutex<Vec<u32>>>,
}

impl Profiles {
    /// Starts the thread; profiles arrive on the receiver. The thread ends with this, and all ballast with it.
    pub(crate) fn start(
        program: PathBuf,
        policy: ProfilePolicy,
    ) -> std::io::Result<(Self, mpsc::Receiver<Profiled>)> {
        let (turns, incoming) = std_mpsc::sync_channel::<Turn>(0);
        let (results, profiles) = mpsc::channel(RESULTS);
        let command = HelperCommand { program, arguments: vec!["ballast".into()] };
        let ballast = Arc::new(Mutex::new(Vec::new()));
        let told = ballast.clone();
        let mut ballasts = Ballasts { command, held: BTreeMap::new(), rests: BTreeMap::new() };
        thread::Builder::new().name("profile".into()).spawn(move || {
            while let Ok(turn) = incoming.recv() {
                take(turn, &mut ballasts, &results);
                let pids = ballasts.held.values().map(Ballast::pid).collect();
                *told.lock().unwrap_or_else(PoisonError::into_inner) = pids;
            }
        })?;
        Ok((Self { policy, turns, last: None, ballast }, profiles))
    }

    /// Other rules, from the next turn on.
    pub(crate) fn set_policy(&mut self, policy: ProfilePolicy) {
        self.policy = policy;
    }

    /// The processes that hold memory in the cgroups of shadows: ours, not theirs.
    pub(crate) fn ballast(&self) -> Vec<u32> {
        self.ballast.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins a turn when one is due, unless the last one is still going on.
    pub(crate) fn take(&mut self, inventory: &Inventory) {
        let now = monotonic();
        if self.last.is_some_and(|last| now < last.saturating_add(self.policy.every)) {
            return;
        }
        let ready = inventory.pairs.iter().filter(|pair| self.policy.enabled && pair.live.is_ready());
        let pairs =
            ready.map(|pair| (pair.live.clone(), pair.shadow.clone().filter(Instance::is_ready))).collect();
        match self.turns.try_send(Turn { pairs, ballast: self.policy.ballast }) {
            Ok(()) => self.last = Some(now),
            Err(_) => tracing::debug!("Profiles are behind, one turn is left out"),
        }
    }
}

fn take(turn: Turn, ballasts: &mut Ballasts, results: &mpsc::Sender<Profiled>) {
    let shadows = || turn.pairs.iter().filter_map(|(_, shadow)| Some(&shadow.as_ref()?.id));
    ballasts.keep_only(&shadows().collect::<Vec<_>>());
    for (live, shadow) in &turn.pairs {
        let on_live = look(live, &[]);
        let ballast_pid = shadow.as_ref().and_then(|shadow| ballasts.pid(&shadow.id));
        let on_shadow = shadow.as_ref().and_then(|shadow| look(shadow, ballast_pid.as_slice()));
        if let (Some(shadow), Some(of_live), Some(of_shadow)) = (shadow, on_live, on_shadow) {
            let load = if turn.ballast { missing(&of_live, &of_shadow) } else { None };
            ballasts.settle(shadow, load);
        }
        let both = [Some(&live.id).zip(on_live), shadow.as_ref().map(|shadow| &shadow.id).zip(on_shadow)];
        for (id, profile) in both.into_iter().flatten() {
            if results.try_send((id.clone(), profile)).is_err() {
                tracing::debug!("Loop does not keep up with profiles");
            }
        }
    }
}

/// A profile of an instance without these processes.
fn look(instance: &Instance, without: &[u32]) -> Option<MemoryProfile> {
    let pids: Vec<u32> = instance.pids.iter().copied().filter(|pid| !without.contains(pid)).collect();
    match profile(&pids, instance.cgroup.as_ref(), PAUSE) {
        Ok(profile) => Some(profile),
        Err(error) => {
            let error = foreshadow_model::with_causes(&error);
            tracing::debug!(%error, instance = %instance.id, "No memory profile");
            None
        }
    }
}

/// What a shadow lacks of its live's memory; `None` if they are alike.
#[expect(clippy::cast_precision_loss, reason = "bytes of one instance")]
fn missing(live: &MemoryProfile, shadow: &MemoryProfile) -> Option<Load> {
    let (of_live, of_shadow) = (live.anonymous.get(), shadow.anonymous.get());
    let lacks = Bytes::new(of_live.saturating_sub(of_shadow));
    if ALIKE * of_live as f64 <= of_shadow as f64 || lacks < BALLAST_MIN {
        return None;
    }
    let rate = |profile: &MemoryProfile| profile.changed_bytes_per_second().unwrap_or(0.0);
    Some(Load { bytes: lacks, changed_bytes_per_second: (rate(live) - rate(shadow)).max(0.0) })
}

/// The ballast of every shadow that has one.
struct Ballasts {
    command: HelperCommand,
    held: BTreeMap<InstanceId, Ballast>,
    /// Shadows whose ballast was given back, and until when they get none.
    rests: BTreeMap<InstanceId, Duration>,
}

impl Ballasts {
    fn keep_only(&mut self, shadows: &[&InstanceId]) {
        self.held.retain(|id, _| shadows.contains(&id));
        self.rests.retain(|id, _| shadows.contains(&id));
    }

    fn pid(&self, shadow: &InstanceId) -> Option<u32> {
        self.held.get(shadow).map(Ballast::pid)
    }

    /// Makes, tells or gives back.
    fn settle(&mut self, shadow: &Instance, load: Option<Load>) {
        let now = monotonic();
        if let Some(end) = self.held.get_mut(&shadow.id).and_then(Ballast::ended) {
            self.held.remove(&shadow.id);
            if end == BallastEnd::Short {
                tracing::info!(shadow = %shadow.id, "Ballast was given back: memory is short");
                self.rests.insert(shadow.id.clone(), now.saturating_add(REST));
            }
        }
        let Some(load) = load else {
            self.held.remove(&shadow.id);
            return;
        };
        if self.rests.get(&shadow.id).is_some_and(|until| now < *until) {
            return;
        }
        let Some(cgroup) = shadow.cgroup.as_ref().filter(|cgroup| cgroup.memory.is_some()) else { return };
        let told = match self.held.get_mut(&shadow.id) {
            Some(ballast) => ballast.hold(load),
            None => Ballast::start(&self.command, cgroup).and_then(|mut ballast| {
                ballast.hold(load)?;
                tracing::info!(shadow = %shadow.id, bytes = %load.bytes, "Ballast is held: the shadow has less memory than its live");
                self.held.insert(shadow.id.clone(), ballast);
                Ok(())
            }),
        };
        if let Err(error) = told {
            tracing::debug!(%error, shadow = %shadow.id, "No ballast");
        }
    }
}

/// How the memory of every pair goes on.
#[derive(Debug, Default)]
pub(crate) struct Trends {
    pairs: BTreeMap<InstanceId, Trend>,
}

#[derive(Debug, Default)]
struct Trend {
    live: Grown,
    shadow: Grown,
    last: Option<MemoryRow>,
}

/// The growth of one side.
#[derive(Debug, Default)]
struct Grown {
    growth: Growth,
    /// Since its last profile.
    seconds: f64,
}

impl Grown {
    fn observe(&mut self, profile: Option<&MemoryProfile>, span_seconds: f64) {
        self.seconds += span_seconds;
        let Some(profile) = profile else { return };
        // What a leak makes larger: not files, which the kernel throws out when it needs the room.
        let size = profile.anonymous.get().saturating_add(profile.swapped.get());
        self.growth.observe(Bytes::new(size), self.seconds);
        self.seconds = 0.0;
    }
}

impl Trends {
    /// Takes the profiles of a tick in.
    pub(crate) fn observe(&mut self, windows: &[Window], span_seconds: f64) {
        self.pairs.retain(|live, _| windows.iter().any(|window| window.live == *live));
        for window in windows {
            let trend = self.pairs.entry(window.live.clone()).or_default();
            trend.live.observe(window.live_memory.as_ref(), span_seconds);
            trend.shadow.observe(window.shadow_memory.as_ref(), span_seconds);
            let Some(live) = window.live_memory else { continue };
            trend.last = Some(MemoryRow {
                live,
                shadow: window.shadow_memory,
                trend: trend.live.growth.trend(live.limit),
                shadow_trend: trend.shadow.growth.trend(live.limit),
            });
        }
    }

    /// What is known of a live's memory.
    pub(crate) fn of(&self, live: &InstanceId) -> Option<MemoryRow> {
        self.pairs.get(live)?.last
    }
}

#[cfg(test)]
mod tests {
    use foreshadow_model::PageSample;

    use super::*;

    fn held(mebi: u64, changed_share: f64) -> MemoryProfile {
        let pages = PageSample { pages: 100, span_seconds: 0.5, changed_share, ..PageSample::default() };
        MemoryProfile { anonymous: Bytes::mebi(mebi), pages: Some(pages), ..MemoryProfile::default() }
    }

    #[test]
    fn a_shadow_gets_what_it_lacks_and_as_much_change() {
        let load = missing(&held(1000, 0.1), &held(300, 0.1)).unwrap();
        assert_eq!(load.bytes, Bytes::mebi(700));
        let expected = (1000.0 - 300.0) * 0.1 / 0.5 * 1_048_576.0;
        assert!((load.changed_bytes_per_second - expected).abs() < 1.0, "{load:?}");
    }

    #[test]
    fn a_shadow_that_is_nearly_as_large_gets_none() {
        assert_eq!(missing(&held(1000, 0.0), &held(800, 0.0)), None);
        assert_eq!(missing(&held(100, 0.0), &held(50, 0.0)), None, "50 MiB are not worth a process");
        assert_eq!(missing(&held(300, 0.0), &held(1000, 0.0)), None);
    }
}
