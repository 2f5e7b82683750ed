//! A pair that behaves as `DELTA.md` §8 says, tick by tick, from a seed.

use std::time::Duration;

use foreshadow_compare::Judge;
use foreshadow_model::{
    Agreement, Assessment, Burst, BurstKind, BurstOutcome, CgroupSignals, ComparePolicy, InstanceId,
    LogMoments, SampleRate, SideWindow, Tick, Verdict, Window,
};

/// Seconds of one tick of the protocol.
pub const TICK_SECONDS: f64 = 5.0;

/// Ticks of one day of the protocol.
pub const DAY: u64 = 17_280;

/// SplitMix64: tiny, and good enough for noise.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D_4C95_7F2D)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In `0..1`.
    pub fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Standard normal.
    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Number of successes among `n`.
    pub fn count(&mut self, n: u64, p: f64) -> u64 {
        (0..n).filter(|_| self.uniform() < p).count() as u64
    }
}

/// What is wrong with the pair in a tick; log units where a latency is meant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    pub live: f64,
    pub shadow: f64,
    pub live_errors: f64,
    pub shadow_errors: f64,
    pub diverging: f64,
    /// Of the cpu of live's cgroup.
    pub throttled: f64,
    /// Log units by which live's processor burst takes longer.
    pub burst: f64,
    /// Share of live's requests that take ten times as long.
    pub tail: f64,
    /// Log units by which the answers of live that are counted take longer, and the pairs do not: a shift of quantiles alone.
    pub answers: f64,
    /// Share of the requests handed to live that stay unanswered.
    pub unanswered: f64,
}

/// Nothing is wrong.
pub const CALM: Trouble = Trouble {
    live: 0.0,
    shadow: 0.0,
    live_errors: 0.0,
    shadow_errors: 0.0,
    diverging: 0.0,
    throttled: 0.0,
    burst: 0.0,
    tail: 0.0,
    answers: 0.0,
    unanswered: 0.0,
};

/// Live is slower by the factor `by`.
pub fn slower(by: f64) -> Trouble {
    Trouble { live: by.ln(), ..Trouble::default() }
}

/// How the pair behaves when nothing is wrong.
#[derive(Clone, Copy, Debug)]
pub struct Nature {
    /// Pairs per tick.
    pub pairs: u32,
    /// Standard deviation of the lingering noise of each side, φ 0.8.
    pub tick_noise: f64,
    /// Baseline wander and bursts of S2.
    pub rough: bool,
    pub requests_per_second: f64,
    /// Standard deviation of the load, AR(1) with φ 0.95.
    pub load_noise: f64,
    /// Whether every answer is in the histograms, and what was handed to live is counted: tails and throughput.
    pub answers: bool,
    pub tick_seconds: f64,
    /// Log units by which live alone swings with the hour of the day.
    pub daily: f64,
}

impl Nature {
    pub const PROTOCOL: Self = Self {
        pairs: 200,
        tick_noise: 0.03,
        rough: false,
        requests_per_second: 400.0,
        load_noise: 0.05,
        answers: false,
        tick_seconds: TICK_SECONDS,
        daily: 0.0,
    };
    pub const ROUGH: Self = Self { rough: true, ..Self::PROTOCOL };
    /// The demo: a tick of one second, few pairs, hardly any lingering noise.
    pub const DEMO: Self =
        Self { pairs: 20, tick_noise: 0.01, requests_per_second: 40.0, tick_seconds: 1.0, ..Self::PROTOCOL };
}

/// The pair and its judge.
pub struct Sim {
    pub judge: Judge,
    rng: Rng,
    nature: Nature,
    tick: u64,
    phase: f64,
    offset: f64,
    load_noise: f64,
    live_noise: f64,
    shadow_noise: f64,
    wander: f64,
    burst: Option<(u32, f64)>,
    /// Multiplies the offered load.
    pub load_factor: f64,
}

impl Sim {
    pub fn new(nature: Nature, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let (phase, offset) = (std::f64::consts::TAU * rng.uniform(), 0.05 * rng.normal());
        Self {
            judge: Judge::new(ComparePolicy::default(), Duration::from_secs_f64(nature.tick_seconds)),
            live_noise: nature.tick_noise * rng.normal(),
            shadow_noise: nature.tick_noise * rng.normal(),
            wander: 0.03 * rng.normal(),
            rng,
            nature,
            tick: 0,
            phase,
            offset,
            load_noise: 0.0,
            burst: None,
            load_factor: 1.0,
        }
    }

    /// It behaves otherwise from now on.
    pub fn change(&mut self, nature: Nature) {
        self.nature = nature;
    }

    /// Whether a burst of S2 is under way.
    pub fn is_bursting(&self) -> bool {
        self.burst.is_some()
    }

    fn walk(rng: &mut Rng, state: &mut f64, phi: f64, deviation: f64) {
        *state = phi * *state + deviation * (1.0 - phi * phi).sqrt() * rng.normal();
    }

    fn burst(&mut self) -> f64 {
        self.burst = match self.burst {
            Some((1, _)) | None => None,
            Some((left, size)) => Some((left - 1, size)),
        };
        if self.burst.is_none() && self.rng.uniform() < 6.0 / DAY as f64 {
            let mut length = 1;
            while 1.0 / 3.0 < self.rng.uniform() {
                length += 1;
            }
            self.burst = Some((length, (1.25 + 0.35 * self.rng.uniform()).ln()));
        }
        self.burst.map_or(0.0, |(_, size)| size)
    }

    fn moments(&mut self, n: u32, mean: f64, variance: f64) -> LogMoments {
        if n == 0 {
            return LogMoments::default();
        }
        let n = f64::from(n);
        let free = (n - 1.0).max(1.0);
        let seen = variance * (1.0 + (2.0 / free).sqrt() * self.rng.normal()).max(0.05);
        LogMoments { n: n as u32, sum: n * mean, sum_sq: n * mean * mean + (n - 1.0) * seen }
    }

    /// The next window.
    pub fn window(&mut self, trouble: &Trouble) -> Window {
        let Nature {
            pairs,
            tick_noise,
            rough,
            requests_per_second,
            tick_seconds,
            load_noise,
            answers,
            daily,
        } = self.nature;
        let day = std::f64::consts::TAU * self.tick as f64 / DAY as f64;
        Self::walk(&mut self.rng, &mut self.load_noise, 0.95, load_noise);
        Self::walk(&mut self.rng, &mut self.live_noise, 0.8, tick_noise);
        Self::walk(&mut self.rng, &mut self.shadow_noise, 0.8, tick_noise);
        Self::walk(&mut self.rng, &mut self.wander, 0.9995, 0.03);
        let load = (0.5 + 0.3 * (day + self.phase).sin() + self.load_noise).clamp(0.05, 1.0);
        let extra = if rough { self.wander + self.burst() } else { 0.0 };
        let hour = std::f64::consts::TAU * self.tick as f64 * tick_seconds / 86_400.0;
        let own = self.offset + daily * hour.sin();
        let live = own + 0.30 * load + self.live_noise + extra + trouble.live;
        let shadow = 0.10 * load + self.shadow_noise + trouble.shadow;
        let mut agreement = Agreement {
            diverging: self.rng.count(u64::from(pairs), trouble.diverging),
            ..Agreement::default()
        };
        let rest = u64::from(pairs) - agreement.diverging;
        agreement.live_error_only = self.rng.count(rest, trouble.live_errors);
        agreement.shadow_error_only = self.rng.count(rest - agreement.live_error_only, trouble.shadow_errors);
        agreement.same = rest - agreement.live_error_only - agreement.shadow_error_only;
        let n = agreement.same as u32;
        let root = f64::from(n.max(1)).sqrt();
        let mix = 0.5 * self.rng.normal() / root;
        let live_mean = -4.0 + live + mix + 0.4 * self.rng.normal() / root;
        let shadow_mean = -4.0 + shadow + mix + 0.4 * self.rng.normal() / root;
        let requests = self.rng.normal().mul_add(0.02, 1.0)
            * load
            * requests_per_second
            * tick_seconds
            * self.load_factor;
        let id = InstanceId::live(1);
        let mut window = Window::unreported(Tick(self.tick), id.clone(), tick_seconds);
        self.tick += 1;
        window.shadow = Some(id.shadow_of());
        window.reported = true;
        window.sampled = u64::from(pairs);
        window.sample_rate = SampleRate::clamped(0.1);
        window.paired = self.moments(n, live_mean - shadow_mean, 0.32);
        window.live_side = SideWindow {
            requests: requests.max(0.0) as u64,
            errors: (requests * trouble.live_errors) as u64,
            paired_log: self.moments(n, live_mean, 0.41),
            ..SideWindow::default()
        };
        window.shadow_side.paired_log = self.moments(n, shadow_mean, 0.41);
        window.agreement = agreement;
        if answers {
            self.add_answers(&mut window, live, shadow, trouble);
        }
        self.add_signals(&mut window, trouble);
        window
    }

    /// One answer of live and one of the shadow per pair, each by itself: a tail needs no pairs.
    fn add_answers(&mut self, window: &mut Window, live: f64, shadow: f64, trouble: &Trouble) {
        for _ in 0..self.nature.pairs {
            let mut of = |mean: f64| 1e6 * (-4.0 + mean + 0.64 * self.rng.normal()).exp();
            let (live, shadow) = (of(live + trouble.answers), of(shadow));
            let slow = self.rng.uniform() < trouble.tail;
            window.live_side.latency.record(if slow { 10.0 * live } else { live });
            window.shadow_side.latency.record(shadow);
        }
        let offered = window.live_side.requests as f64;
        let answered = offered * (1.0 - trouble.unanswered);
        window.live_side.requests = answered as u64;
        window.live_side.busy_seconds = answered * 0.02;
        // Those that are under way at the end of a tick differ from those at its beginning.
        let under_way = 0.2 * offered.sqrt() * self.rng.normal();
        window.live_side.offered = Some((offered + under_way).max(0.0) as u64);
    }

    fn add_signals(&mut self, window: &mut Window, trouble: &Trouble) {
        let span = window.span_seconds;
        let periods = (span * 10.0) as u64;
        let throttled = self.rng.count(periods, 0.03_f64.max(trouble.throttled));
        window.live_signals = Some(CgroupSignals {
            span_seconds: span,
            cpu_seconds: Some(0.2 * span),
            periods: Some(periods),
            throttled_periods: Some(throttled),
            cpu_pressure_seconds: Some(span * (0.05 + 0.02 * self.rng.uniform())),
            io_pressure_seconds: Some(0.0),
            memory_pressure_seconds: Some(0.0),
            cpu_limit_cores: Some(1.0),
            ..CgroupSignals::default()
        });
        let wall = 0.010 * (1.0 + 0.02 * self.rng.normal());
        window.live_bursts = vec![burst(wall * trouble.burst.exp())];
        window.shadow_bursts = vec![burst(wall)];
    }

    pub fn step(&mut self, trouble: &Trouble) -> Assessment {
        let window = self.window(trouble);
        self.judge.update(&window)
    }

    /// The last assessment of `ticks` ticks.
    pub fn run(&mut self, ticks: u64, trouble: &Trouble) -> Assessment {
        let mut last = self.step(trouble);
        (1..ticks).for_each(|_| last = self.step(trouble));
        last
    }

    /// Ticks until the verdict is `wanted`, the tick itself included; `None` if not within `limit`.
    pub fn ticks_until(&mut self, wanted: Verdict, trouble: &Trouble, limit: u64) -> Option<u64> {
        (1..=limit).find(|_| self.step(trouble).verdict == wanted)
    }
}

pub fn burst(wall_seconds: f64) -> Burst {
    let outcome = BurstOutcome::Ran {
        wall_seconds,
        cpu_seconds: wall_seconds,
        score_per_second: 1.0 / wall_seconds,
        operations: None,
    };
    Burst::new(BurstKind::Processor, outcome)
}
