//! One simulated instance, and what a tick of it looks like from outside.

use foreshadow_model::{
    CgroupSignals, Instance, InstanceId, LogMoments, NodeName, Phase, Resources, Role, ServiceModel,
    SideWindow,
};

use crate::noise::Noise;
use crate::queue::{Pace, Queue};

/// Use of the limit above which periods of the quota are throttled: bursts hit it before the mean does.
const THROTTLED_FROM: f64 = 0.5;

/// An instance that lives in the simulated world.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    pub(crate) instance: Instance,
    /// Seconds until it is ready.
    pub(crate) starts_for: f64,
    /// How slow it is by itself, 1 is as it should be.
    pub(crate) slow: f64,
    /// Share of its answers that are errors.
    pub(crate) errors: f64,
    queue: Queue,
    drift: f64,
}

/// What surrounds an instance in a tick.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around<'a> {
    pub(crate) service: &'a ServiceModel,
    pub(crate) dt: f64,
    /// How slow its node makes it, 1 is not at all.
    pub(crate) node_slow: f64,
    /// How slow the code is.
    pub(crate) code_slow: f64,
    /// Cores of the node.
    pub(crate) node_cores: f64,
}

/// What it did.
#[derive(Clone, Debug)]
pub(crate) struct Did {
    pub(crate) side: SideWindow,
    pub(crate) signals: CgroupSignals,
    /// The logarithm of a typical answer in seconds.
    pub(crate) log: f64,
}

impl Replica {
    pub(crate) fn new(id: InstanceId, role: Role, node: NodeName, resources: Resources) -> Self {
        let instance = Instance { resources, ..Instance::new(id, role, node, 1) };
        Self { instance, starts_for: 0.0, slow: 1.0, errors: 0.0, queue: Queue::default(), drift: 0.0 }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.instance.phase == Phase::Ready
    }

    /// It begins anew, with another process, and will be ready after so long. What was wrong with it is gone.
    pub(crate) fn begin(&mut self, seconds: f64, pid: u32) {
        self.instance.phase = Phase::Starting;
        self.instance.pids = vec![pid];
        self.instance.revision += 1;
        self.instance.ready_after_seconds = None;
        (self.starts_for, self.slow, self.errors) = (seconds, 1.0, 0.0);
        (self.queue, self.drift) = (Queue::default(), 0.0);
        if seconds <= 0.0 {
            self.come_up(0.0, seconds);
        }
    }

    /// Time passes for one that starts.
    pub(crate) fn come_up(&mut self, dt: f64, start_up: f64) {
        if self.instance.phase != Phase::Starting {
            return;
        }
        self.starts_for -= dt;
        if self.starts_for <= 0.0 {
            self.instance.phase = Phase::Ready;
            self.instance.ready_after_seconds = Some(start_up.max(0.0));
        }
    }

    pub(crate) fn resize(&mut self, resources: Resources) {
        if self.instance.resources != resources {
            self.instance.resources = resources;
            self.instance.revision += 1;
        }
    }

    /// A tick in which so many requests arrive, where so many a second are expected: how long a queue is follows from what is
    /// expected, chance within it included.
    pub(crate) fn pass(
        &mut self,
        (arrived, load): (u64, f64),
        around: &Around<'_>,
        noise: &mut Noise,
    ) -> Did {
        self.drift = noise.drift(self.drift);
        let limit = self.instance.resources.cpu.map(foreshadow_model::MilliCpu::cores);
        let cores = limit.unwrap_or(around.node_cores).min(around.node_cores);
        let slow = self.slow * around.node_slow * around.code_slow;
        let pace = self.queue.pass(around.service, (load, around.dt), (1.0 / slow, cores));
        let answers = pace.answers(around.service, self.drift);
        let side = side(arrived, &answers, self.errors.max(pace.given_up), noise);
        let typical = answers.iter().map(|answer| answer.ln()).sum::<f64>() / answers.len() as f64;
        Did { side, signals: signals(&pace, around, limit), log: typical }
    }
}

/// What the mirror sees of so many requests.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "requests of a tick"
)]
fn side(arrived: u64, answers: &[f64], failed: f64, noise: &mut Noise) -> SideWindow {
    let mut side = SideWindow { offered: Some(arrived), requests: arrived, ..SideWindow::default() };
    side.errors = noise.count(arrived as f64 * failed).min(arrived);
    // Each answer as often as it comes up; what does not divide goes to ranks by turns.
    let (each, rest) = (arrived / answers.len() as u64, arrived % answers.len() as u64);
    let first = (noise.uniform() * answers.len() as f64) as usize;
    for (n, answer) in answers.iter().enumerate() {
        let turn = (n + answers.len() - first) % answers.len();
        // Spread over all ranks, not the first ones: 7 and 32 have no common divisor.
        let extra = u64::from((turn * 7 % answers.len()) < rest as usize);
        side.latency.record_many(1e6 * answer, (each + extra) as u32);
        side.busy_seconds += (each + extra) as f64 * answer;
    }
    side
}

/// What the kernel tells of it.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "periods of a tick")]
fn signals(pace: &Pace, around: &Around<'_>, limit: Option<f64>) -> CgroupSignals {
    let used = pace.answered * pace.work * around.service.processor;
    let dt = around.dt;
    let of_limit = limit.map(|limit| used / limit.max(1e-9));
    let throttled = of_limit.map(|share| ((share - THROTTLED_FROM) / (1.0 - THROTTLED_FROM)).clamp(0.0, 1.0));
    // Neighbours that make everything twice as slow leave half of the time to wait in.
    let contended = (1.0 - 1.0 / around.node_slow.max(1.0)).clamp(0.0, 1.0);
    let own = throttled.unwrap_or(0.0);
    let waiting = (0.02 + 0.8 * own.max(contended)).min(1.0);
    CgroupSignals {
        span_seconds: dt,
        cpu_seconds: Some(used * dt),
        periods: limit.map(|_| (10.0 * dt) as u64),
        throttled_periods: throttled.map(|share| (10.0 * dt * share) as u64),
        throttled_seconds: throttled.map(|share| dt * share),
        cpu_pressure_seconds: Some(dt * waiting),
        run_delay_seconds: Some(dt * waiting),
        cpu_limit_cores: limit,
        node_cpu_pressure_seconds: Some(dt * (0.02 + 0.8 * contended).min(1.0)),
        ..CgroupSignals::default()
    }
}

/// Moments of so many logarithms around a mean.
pub(crate) fn moments(n: u64, mean: f64, spread: f64, noise: &mut Noise) -> LogMoments {
    let Ok(n) = u32::try_from(n) else { return LogMoments::default() };
    if n == 0 {
        return LogMoments::default();
    }
    let count = f64::from(n);
    let mean = mean + spread / count.sqrt() * noise.normal();
    LogMoments { n, sum: count * mean, sum_sq: count * (mean * mean + spread * spread) }
}
