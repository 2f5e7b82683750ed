//! Ours, and the rules that people use instead.

use foreshadow_compare::{RecordedPolicy, Recording, Worse, judge_recording};
use foreshadow_model::{Assessment, ComparePolicy, SideWindow, Verdict, Window};

use super::kayenta::Kayenta;

/// Ticks of a minute.
const MINUTE: usize = 12;

/// Ticks in a row.
const IN_A_ROW: u32 = 3;

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

/// Those of the running product.
pub(super) fn ours() -> Vec<Box<dyn Rule>> {
    vec![Box::new(Ours { acts: false }), Box::new(Ours { acts: true })]
}

/// All, ours first.
pub(super) fn all() -> Vec<Box<dyn Rule>> {
    let others: Vec<Box<dyn Rule>> = vec![
        Box::new(Recorded::default()),
        Box::new(Ratio::new("raw ratio > 15 %, 3 ticks", 1.15, 1)),
        Box::new(Ratio::without_offset("constant offset removed, > 15 %, 3 ticks", 1.15, 1)),
        Box::new(Ratio::without_offset("constant offset removed, > 30 %, 3 ticks", 1.30, 1)),
        Box::new(Ratio::without_offset("constant offset removed, 60 s mean > 15 %", 1.15, MINUTE)),
        Box::new(Kayenta::new()),
    ];
    ours().into_iter().chain(others).collect()
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

/// `foreshadow judge` on what was recorded.
#[derive(Default)]
struct Recorded {
    recording: Recording,
    calibrate: usize,
}

impl Recorded {
    fn record(&mut self, window: &Window) {
        let log = |side: &SideWindow| side.paired_log.mean().unwrap_or(f64::NAN);
        let Recording { live, shadow, seconds, samples, load, .. } = &mut self.recording;
        live.push(log(&window.live_side));
        shadow.get_or_insert_default().push(log(&window.shadow_side));
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
    fn new(name: &'static str, limit: f64, mean_of: usize) -> Self {
        Self {
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

    fn without_offset(name: &'static str, limit: f64, mean_of: usize) -> Self {
        Self { takes_offset: true, ..Self::new(name, limit, mean_of) }
    }
}

impl Rule for Ratio {
    fn name(&self) -> &'static str {
        self.name
    }

    fn learn(&mut self, window: &Window, _: &Assessment) {
        if self.takes_offset {
            self.day.extend(window.paired.mean());
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
        let Some(x) = window.paired.mean() else { return false };
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
