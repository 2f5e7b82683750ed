//! All that is known of one pair, and how a tick changes it.

use std::time::Duration;

use foreshadow_model::{
    Assessment, Attribution, ComparePolicy, Estimate, Pressure, Ratio, Stream, StreamState, Verdict, Window,
};
use serde::{Deserialize, Serialize};

use crate::attribution::{attribute, pressure_of};
use crate::detector::{Detector, SAMPLES_MIN, Use};
use crate::errors::{EXCESS_ACT, Errors};
use crate::evidence::FREEZE_CUSUM;
use crate::load::{Load, Range};
use crate::own_history::OwnHistory;
use crate::quality::{Objection, Quality, TickCounts};
use crate::resources::Resources;
use crate::sampling;
use crate::verdict::{Course, Facts, SHIFT_LOG};

/// How much of a shift against live must be the shadow's own worsening before the shadow is suspected: otherwise
/// live has become faster, which is no fault of anybody.
const SHADOW_PART: f64 = 0.5;

/// Quantile of the normal distribution for a 95 % interval.
const NORMAL_95: f64 = 1.96;

/// A window of less than a millisecond has no rate.
const SPAN_MIN_SECONDS: f64 = 1e-3;

const SECONDS_PER_DAY: f64 = 86_400.0;

/// Judges one pair, tick by tick; holds all streaming state of the pair.
///
/// The same windows in the same order give the same assessments. The state can be saved between any two ticks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Judge {
    policy: ComparePolicy,
    ticks_per_day: f64,
    centre: Detector,
    errors: Errors,
    own: OwnHistory,
    load: Load,
    quality: Quality,
    resources: Resources,
    course: Course,
    frozen: bool,
    shadow_suspect: bool,
    quarantined_ticks: f64,
}

impl Judge {
    /// A judge that knows nothing yet of its pair.
    #[must_use]
    pub fn new(policy: ComparePolicy, tick: Duration) -> Self {
        let ticks_per_day = SECONDS_PER_DAY / tick.as_secs_f64().max(1e-3);
        Self {
            policy,
            ticks_per_day,
            centre: Detector::new(&policy),
            errors: Errors::default(),
            own: OwnHistory::new(&policy),
            load: Load::default(),
            quality: Quality::default(),
            resources: Resources::default(),
            course: Course::default(),
            frozen: false,
            shadow_suspect: false,
            quarantined_ticks: 0.0,
        }
    }

    /// Takes one tick in and says what it makes of the pair.
    #[must_use]
    pub fn update(&mut self, window: &Window) -> Assessment {
        let objection = self.quality.observe(window);
        let range = self.observe_load(window);
        let silent = objection.to_any_news.is_some() || range == Range::TooHigh;
        let uses = self.uses(range);
        let latencies = (!silent && !objection.to_this_tick).then_some(window);
        self.centre.observe(latencies.map(|w| &w.paired), uses);
        self.own.observe(latencies, uses);
        self.observe_errors(window, uses, silent);
        let learn = self.may_learn() && !silent && range == Range::Known;
        if window.reported && SAMPLES_MIN <= window.paired.n {
            self.load.learn(range, self.may_learn());
        }
        self.resources.observe(window, learn && self.own.cusum() < FREEZE_CUSUM);
        let verdict = self.course.judge(&self.facts(objection, range));
        self.shadow_suspect = match verdict {
            Verdict::Inconclusive(_) => self.shadow_suspect,
            other => other == Verdict::ShadowSuspect,
        };
        let assessment = self.assess(window, verdict, silent);
        self.end_quarantine(verdict);
        assessment
    }

    /// Forgets what was normal and goes back to the provisional phase: after a deploy, a resize or a new shadow.
    ///
    /// What was learned of the noise is kept, all evidence is dropped. Verdicts come back after five ticks with
    /// data, at first for large shifts only.
    pub fn rebaseline(&mut self) {
        self.centre.rebaseline();
        self.own.rebaseline();
        self.errors.rebaseline();
        self.course = Course::default();
        self.resources = Resources::default();
        (self.shadow_suspect, self.quarantined_ticks) = (false, 0.0);
    }

    /// Stops or resumes learning what is normal.
    ///
    /// While an action is under way or judged, live must be judged against what was there before it. Evidence
    /// goes on being gathered.
    pub fn freeze(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    #[expect(clippy::cast_precision_loss, reason = "requests of one tick")]
    fn observe_load(&mut self, window: &Window) -> Range {
        if !(window.reported && (SPAN_MIN_SECONDS..f64::MAX).contains(&window.span_seconds)) {
            return Range::Known;
        }
        self.load.observe(window.live_side.requests as f64 / window.span_seconds, window.span_seconds)
    }

    /// What this tick's latencies may be used for.
    fn uses(&self, range: Range) -> Use {
        let known = range == Range::Known;
        Use {
            learn: known && self.may_learn(),
            // At low load a sick live looks well: what was found out before is kept until load is back.
            judge: known || !self.is_alarmed(),
            calm: known,
        }
    }

    fn observe_errors(&mut self, window: &Window, uses: Use, silent: bool) {
        let (recent, now, threshold) =
            (self.quality.together(), TickCounts::of(window), self.policy.threshold);
        if silent {
            // Live's own answers count even without a shadow to compare them with.
            if window.reported && now.pairs == 0 {
                self.errors.observe_unpaired(&now, &recent, threshold);
            }
        } else if uses.judge {
            self.errors.observe(&now, &recent, threshold, uses.learn);
        }
    }

    fn is_alarmed(&self) -> bool {
        self.centre.up.is_alarmed() || self.errors.stream().is_alarmed()
    }

    /// Nothing is learned as normal while it may be a fault.
    fn may_learn(&self) -> bool {
        !(self.frozen || self.shadow_suspect || self.course.is_degraded()) && self.cusum() < FREEZE_CUSUM
    }

    /// The largest `C` of the streams.
    fn cusum(&self) -> f64 {
        self.centre.up.cusum().max(self.errors.stream().cusum())
    }

    /// `R` of the instance: the mean over its streams, valid under any dependence between them.
    fn evidence(&self) -> f64 {
        f64::midpoint(self.centre.up.evidence(), self.errors.stream().evidence())
    }

    fn facts(&self, objection: Objection, range: Range) -> Facts {
        let excess = self.errors.excess().unwrap_or(0.0);
        let slow = self.centre.up.is_alarmed() && self.centre.recent().is_some_and(|r| SHIFT_LOG <= r.median);
        let failing = self.errors.stream().is_alarmed() && EXCESS_ACT <= excess;
        let shadow_fails = self.errors.shadow.is_alarmed() && excess <= -EXCESS_ACT;
        Facts {
            objection,
            range,
            ready: self.centre.is_ready(),
            evident: self.policy.threshold <= self.evidence(),
            lasting: slow || failing,
            uncleared: self.is_alarmed(),
            shadow_is_worse: shadow_fails || self.shadow_is_slow(),
            both_are_worse: self.own.both_are_worse(),
        }
    }

    fn shadow_is_slow(&self) -> bool {
        if !self.centre.down.is_alarmed() {
            return false;
        }
        let Some(recent) = self.centre.recent() else { return false };
        let own = self.own.shadow_shift_log();
        recent.median <= -SHIFT_LOG && own.is_none_or(|shift| -SHADOW_PART * recent.median <= shift)
    }

    /// A day of quarantine without a degradation is a new normal that nobody asked about.
    fn end_quarantine(&mut self, verdict: Verdict) {
        let quiet = self.cusum().max(self.own.cusum()) < FREEZE_CUSUM;
        if quiet || verdict == Verdict::Degraded {
            self.quarantined_ticks = 0.0;
            return;
        }
        self.quarantined_ticks += 1.0;
        if self.ticks_per_day <= self.quarantined_ticks && !self.course.is_degraded() && !self.frozen {
            self.rebaseline();
        }
    }

    fn assess(&self, window: &Window, verdict: Verdict, silent: bool) -> Assessment {
        let evidence = self.evidence();
        let degraded = self.course.is_degraded();
        let found = matches!(verdict, Verdict::Warn | Verdict::Degraded | Verdict::BothDegraded);
        Assessment {
            tick: window.tick,
            live: window.live.clone(),
            verdict,
            provisional: self.centre.is_provisional(),
            delta: if silent { None } else { self.delta() },
            carrier: None,
            own_delta: if silent { None } else { self.own.live_shift_log().map(Ratio::from_log) },
            error_excess: if silent { None } else { self.errors.excess().and_then(Ratio::new) },
            evidence,
            threshold: self.policy.threshold,
            streams: self.streams(silent),
            false_alarms_per_day: self.ticks_per_day / self.policy.threshold.max(1.0),
            attribution: found.then(|| self.attribution(verdict)),
            pressure: if found || degraded { pressure_of(&self.resources) } else { Pressure::default() },
            sampling: sampling::need(&self.policy, &self.centre, evidence, self.cusum(), degraded),
            load: self.load.relative(),
            overloaded: false,
        }
    }

    fn attribution(&self, verdict: Verdict) -> Attribution {
        let own = if verdict == Verdict::BothDegraded { self.own.live_shift_log() } else { None };
        let shift = own.or_else(|| self.centre.recent().map(|recent| recent.median)).unwrap_or(0.0);
        attribute(&self.resources, shift)
    }

    /// The recent median with its interval.
    fn delta(&self) -> Option<Estimate> {
        let recent = self.centre.recent()?;
        let reach = NORMAL_95 * self.centre.recent_error(&recent);
        Some(Estimate {
            delta: Ratio::from_log(recent.median),
            low: Ratio::from_log(recent.median - reach),
            high: Ratio::from_log(recent.median + reach),
        })
    }

    fn streams(&self, silent: bool) -> Vec<StreamState> {
        let errors = self.errors.stream();
        vec![
            StreamState {
                stream: Stream::Centre,
                evidence: self.centre.up.evidence(),
                cusum: self.centre.up.cusum(),
                residual: self.centre.residual,
                whitened: self.centre.whitened,
                raised: self.centre.up.is_alarmed(),
            },
            StreamState {
                stream: Stream::Errors,
                evidence: errors.evidence(),
                cusum: errors.cusum(),
                residual: if silent { None } else { self.errors.excess() },
                whitened: None,
                raised: errors.is_alarmed(),
            },
        ]
    }
}
