//! Ours, and the rules that people use instead.

use foreshadow_compare::{RecordedPolicy, Recording, Worse, judge_recording};
use foreshadow_model::{Assessment, ComparePolicy, SideWindow, Stream, Verdict, Window};

use super::kayenta::Kayenta;
use super::sim::{CALM, Trouble, slower};

/// Ticks of a minute.
const MINUTE: usize = 12;

/// Ticks in a row.
const IN_A_ROW: u32 = 3;

/// What of latency the rules look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metric {
    /// Mean log latency over the pairs.
    Centre,
    /// The 99th percentile over the answers of a tick.
    P99,
}

impl Metric {
    /// Live is slower by this factor, as far as this metric shows it.
    pub(super) fn slower(self, by: f64) -> Trouble {
        match self {
            Self::Centre => slower(by),
            Self::P99 => Trouble { answers: by.ln(), ..CALM },
        }
    }

    /// Log latency of live and of its shadow.
    pub(super) fn logs(self, window: &Window) -> Option<[f64; 2]> {
        let of = |side: &SideWindow| match self {
            Self::Centre => side.paired_log.mean(),
            Self::P99 => side.latency.quantile(0.99).map(f64::ln).filter(|log| log.is_finite()),
        };
        Some([of(&window.live_side)?, of(&window.shadow_side)?])
    }
}

/// Which rules, and of what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) metric: Metric,
    pub(super) only_ours: bool,
}

/// Says at each tick whether live is worse.
pub(super) trait Rule {
    fn name(&self) -> &'static str;
    /// A tick of the healthy day.
    fn learn(&mut self, _: &Window, _: &Assessment) {}
    /// The healthy day is over.
    fn learned(&mut self) {}
    fn alarms(&mut self, window: &Window, assessment: &Assessment) -> bool;
    /// What it says in the end of every tick since it has learned, if it says it in the end.
    fn afterwards(&self) -> Option<Vec<bool>> {
        None
    }
}

impl Rules {
    /// New ones that know nothing yet, ours first.
    pub(super) fn make(self) -> Vec<Box<dyn Rule>> {
        let mut rules: Vec<Box<dyn Rule>> = match self.metric {
            Metric::Centre => vec![Box::new(Ours { acts: false }), Box::new(Ours { acts: true })],
            Metric::P99 => vec![Box::new(OurTail)],
        };
        if !self.only_ours {
            rules.extend(others(self.metric));
        }
        rules
    }
}

fn others(metric: Metric) -> [Box<dyn Rule>; 6] {
    let ratio = |name, limit, mean_of| Ratio::new(metric, name, limit, mean_of);
    let offset = |name, limit, mean_of| Ratio { takes_offset: true, ..ratio(name, limit, mean_of) };
    [
        Box::new(Recorded::new(metric)),
        Box::new(ratio("raw ratio > 15 %, 3 ticks", 1.15, 1)),
        Box::new(offset("constant offset removed, > 15 %, 3 ticks", 1.15, 1)),
        Box::new(offset("constant offset removed, > 30 %, 3 ticks", 1.30, 1)),
        Box::new(offset("constant offset removed, 60 s mean > 15 %", 1.15, MINUTE)),
        Box::new(Kayenta::new(metric)),
    ]
}

/// The engine of the product.
struct Ours {
    acts: bool,
}

impl Rule for Ours {
    fn name(&self) -> &'static str {
        if self.acts { "**ours, to act**" } else { "**ours, to warn**" }
    }

    fn alarms(&mut self, _: &Window, assessment: &Assessment) -> bool {
        match assessment.verdict {
            Verdict::Degraded => true,
            Verdict::Warn => !self.acts,
            _ => false,
        }
    }
}

/// The stream of the product that looks at the 99th percentile, by itself.
struct OurTail;

impl Rule for OurTail {
    fn name(&self) -> &'static str {
        "**ours, the stream of the p99**"
    }

    fn alarms(&mut self, _: &Window, assessment: &Assessment) -> bool {
        assessment.streams.iter().any(|state| state.stream == Stream::Tail99 && state.raised)
    }
}

/// `foreshadow judge` on what was recorded.
struct Recorded {
    metric: Metric,
    recording: Recording,
    calibrate: usize,
}

impl Recorded {
    fn new(metric: Metric) -> Self {
        Self { metric, recording: Recording::default(), calibrate: 0 }
    }

    fn record(&mut self, window: &Window) {
        let [of_live, of_shadow] = self.metric.logs(window).unwrap_or([f64::NAN; 2]);
        let Recording { live, shadow, seconds, samples, load, .. } = &mut self.recording;
        live.push(of_live);
        shadow.get_or_insert_default().push(of_shadow);
        seconds.push(window.tick.0 as f64 * window.span_seconds);
        samples.get_or_insert_default().push(f64::from(window.paired.n));
        load.get_or_insert_default().push(window.live_side.requests as f64);
    }
}

impl Rule for Recorded {
    fn name(&self) -> &'static str {
        "**ours, on the recording**"
    }

    fn learn(&mut self, window: &Window, _: &Assessment) {
        self.record(window);
    }

    fn learned(&mut self) {
        self.calibrate = self.recording.live.len();
    }

    fn alarms(&mut self, window: &Window, _: &Assessment) -> bool {
        self.record(window);
        false
    }

    fn afterwards(&self) -> Option<Vec<bool>> {
        let compare = ComparePolicy::default();
        let policy = RecordedPolicy {
            compare,
            calibrate: self.calibrate,
            level_rows: 0,
            worse: Worse::Higher,
            adopt: self.calibrate,
            sparse: false,
        };
        let found = judge_recording(&self.recording, &policy);
        let mut alarms = vec![false; found.judged];
        for shift in &found.shifts {
            let (from, to) = (shift.row - self.calibrate, shift.cleared.map(|row| row - self.calibrate));
            alarms[from..to.unwrap_or(found.judged)].fill(true);
        }
        Some(alarms)
    }
}

/// A ratio beyond a limit, several ticks in a row; or the mean of a minute.
struct Ratio {
    metric: Metric,
    name: &'static str,
    limit_log: f64,
    mean_of: usize,
    takes_offset: bool,
    day: Vec<f64>,
    offset: f64,
    last: Vec<f64>,
    in_a_row: u32,
}

impl Ratio {
    fn new(metric: Metric, name: &'static str, limit: f64, mean_of: usize) -> Self {
        Self {
            metric,
            name,
            limit_log: limit.ln(),
            mean_of,
            takes_offset: false,
            day: Vec::new(),
            offset: 0.0,
            last: Vec::new(),
            in_a_row: 0,
        }
    }

    fn x(&self, window: &Window) -> Option<f64> {
        self.metric.logs(window).map(|[live, shadow]| live - shadow)
    }
}

impl Rule for Ratio {
    fn name(&self) -> &'static str {
        self.name
    }

    fn learn(&mut self, window: &Window, _: &Assessment) {
        if self.takes_offset {
            self.day.extend(self.x(window));
        }
    }

    fn learned(&mut self) {
        let middle = self.day.len() / 2;
        if self.takes_offset && !self.day.is_empty() {
            self.offset = *self.day.select_nth_unstable_by(middle, f64::total_cmp).1;
        }
        self.day = Vec::new();
    }

    #[expect(clippy::cast_precision_loss, reason = "a minute of ticks")]
    fn alarms(&mut self, window: &Window, _: &Assessment) -> bool {
        let Some(x) = self.x(window) else { return false };
        self.last.push(x - self.offset);
        if self.mean_of < self.last.len() {
            self.last.remove(0);
        }
        let mean = self.last.iter().sum::<f64>() / self.last.len() as f64;
        let is_full = self.last.len() == self.mean_of;
        self.in_a_row = if is_full && self.limit_log < mean { self.in_a_row + 1 } else { 0 };
        let needed = if self.mean_of == 1 { IN_A_ROW } else { 1 };
        needed <= self.in_a_row
    }
}
