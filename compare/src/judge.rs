//! All that is known of one pair, and how a tick changes it.

use std::time::Duration;

use foreshadow_model::{
    Assessment, Attribution, ComparePolicy, Inconclusive, Pressure, Ratio, Resource, SamplingNeed, Verdict,
    Window,
};
use serde::{Deserialize, Serialize};

use crate::attribution::{attribute, pressure_of};
use crate::detector::{CALM_LOG, SAMPLES_MIN, Use, effect_log};
use crate::errors::EXCESS_ACT;
use crate::evidence::FREEZE_CUSUM;
use crate::fleet::Since;
use crate::flipped::Flipped;
use crate::load::{Load, Range};
use crate::overload::{Overload, Strain};
use crate::own_history::OwnHistory;
use crate::quality::{Objection, Quality, TickCounts};
use crate::resources::Resources;
use crate::sampling;
use crate::sensitivity::Sensitivities;
use crate::streams::Streams;
use crate::thin::Thin;
use crate::verdict::{Course, Facts, SHIFT_LOG};
use crate::watch::HostWatch;

/// How much of a shift against live must be the shadow's own worsening before the shadow is suspected: otherwise
/// live has become faster, which is no fault of anybody.
const SHADOW_PART: f64 = 0.5;

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
    streams: Streams,
    own: OwnHistory,
    load: Load,
    overload: Overload,
    quality: Quality,
    #[serde(default)]
    thin: Thin,
    resources: Resources,
    #[serde(default)]
    watch: HostWatch,
    #[serde(default)]
    flipped: Flipped,
    since: Since,
    sensitivities: Sensitivities,
    course: Course,
    frozen: bool,
    shadow_suspect: bool,
    quarantined_ticks: f64,
}

/// What a tick says nothing of.
#[derive(Clone, Copy, Debug)]
struct Silence {
    /// How live stands to its shadow.
    latencies: bool,
    /// Whether it fails more often.
    errors: bool,
    /// How it stands to its own past.
    own_past: bool,
}

impl Silence {
    const WHOLE: Self = Self { latencies: true, errors: true, own_past: true };
}

impl Judge {
    /// A judge that knows nothing yet of its pair.
    #[must_use]
    pub fn new(policy: ComparePolicy, tick: Duration) -> Self {
        let ticks_per_day = SECONDS_PER_DAY / tick.as_secs_f64().max(1e-3);
        Self {
            policy,
            ticks_per_day,
            streams: Streams::new(&policy, ticks_per_day),
            own: OwnHistory::new(&policy),
            load: Load::default(),
            overload: Overload::default(),
            quality: Quality::default(),
            thin: Thin::default(),
            resources: Resources::default(),
            watch: HostWatch::default(),
            flipped: Flipped::default(),
            since: Since::default(),
            sensitivities: Sensitivities::default(),
            course: Course::default(),
            frozen: false,
            shadow_suspect: false,
            quarantined_ticks: 0.0,
        }
    }

    /// Takes one tick in and says what it makes of the pair.
    #[must_use]
    pub fn update(&mut self, window: &Window) -> Assessment {
        if self.sensitivities.counts_out() {
            return self.update_pressed(window);
        }
        let objection = self.quality.observe(window);
        let window = &*self.thin.put_together(window);
        let range = self.observe_load(window);
        let unusable = objection.to_any_news.is_some() && !objection.is_thin;
        let latencies = (!unusable && !objection.to_this_tick).then_some(window);
        let held = self.thin.holds();
        let may_learn = self.may_learn();
        if !held {
            self.own.observe(latencies, self.own_uses(range, may_learn));
        }
        let strain = if unusable { Strain::None } else { self.strain(range, window.span_seconds) };
        self.overload.observe(strain, &self.own, effect_log(&self.policy), self.course.is_degraded());
        let usual = range;
        let range = if self.overload.explains() { Range::TooHigh } else { range };
        let silent = unusable || range == Range::TooHigh;
        // Few pairs say little of how fast live is, and enough of whether it answers.
        let is_few = objection.to_any_news == Some(Inconclusive::TooFewSamples);
        let silence = Silence {
            latencies: silent,
            errors: range == Range::TooHigh || (unusable && !is_few),
            own_past: unusable,
        };
        let uses = self.uses(range, may_learn);
        let latencies = latencies.filter(|_| !silent);
        self.streams.observe_latencies(latencies, asked_per_second(window), held, uses);
        self.streams.observe_alone(window, uses, range == Range::TooHigh);
        self.observe_errors(window, uses, silence.errors);
        let may_learn = self.may_learn();
        let learn = may_learn && !silent && range == Range::Known;
        if window.reported && SAMPLES_MIN <= window.paired.n {
            // A load that live suffers under is no new normal.
            self.load.learn(usual, may_learn && !self.overload.explains());
        }
        self.resources.observe(window, learn && self.own.cusum() < FREEZE_CUSUM);
        if !silent && self.streams.centre.is_ready() {
            self.flipped.observe(self.streams.flipped_evidence(), self.policy.threshold);
        }
        let threshold = self.policy.threshold;
        if self.since.count(self.streams.evidence(), threshold) {
            self.streams.start_evidence_anew(self.streams.flipped_evidence() < threshold.sqrt());
        }
        let host = self.watch.observe(window, range != Range::TooHigh, self.streams.is_alarmed());
        let verdict = self.course.judge(&self.facts(objection, range));
        self.shadow_suspect = match verdict {
            Verdict::Inconclusive(_) => self.shadow_suspect,
            other => other == Verdict::ShadowSuspect,
        };
        let assessment = Assessment { host, ..self.assess(window, verdict, silence) };
        self.end_quarantine(verdict);
        assessment
    }

    /// Says which resource of the shadow is pressed, if any. Meanwhile live is judged by its own past alone; what the shadow shows
    /// is learned from.
    pub fn press(&mut self, resource: Option<Resource>) {
        self.sensitivities.press(resource);
    }

    /// A tick in which the shadow is slow by our own doing.
    fn update_pressed(&mut self, window: &Window) -> Assessment {
        let uses = Use { learn: false, judge: true, calm: true };
        let slower = self.own.observe_pressed(window, uses);
        // The pairs say nothing, and nothing that the shadow shows is held against anybody.
        self.streams.observe_latencies(None, None, false, uses);
        let (recent, now) = (self.quality.together(), TickCounts::of(window));
        self.streams.errors.observe_unpaired(&now, &recent, self.policy.threshold);
        let host = self.watch.observe(window, false, self.streams.is_alarmed());
        let moved = self.sensitivities.pressed().and_then(|resource| self.watch.shadow_shift(resource));
        self.sensitivities.note(slower, moved);
        let silence = Silence { latencies: true, errors: false, own_past: false };
        let said = self.assess(window, Verdict::Inconclusive(Inconclusive::Pressed), silence);
        Assessment { host, ..said }
    }

    /// What the sample rate needs to know, once the noise was measured; `None` while it is assumed.
    #[must_use]
    pub fn measured_need(&self) -> Option<SamplingNeed> {
        let centre = &self.streams.centre;
        (!centre.is_provisional()).then(|| sampling::need(&self.policy, centre, 0.0, 0.0, false))
    }

    /// Lets a tick pass that says nothing, because users are being moved about for a roll-out. Nothing is learned, no
    /// evidence changes.
    #[must_use]
    pub fn rest(&self, window: &Window) -> Assessment {
        self.assess(window, Verdict::Inconclusive(Inconclusive::RollingOut), Silence::WHOLE)
    }

    /// Forgets what was normal and goes back to the provisional phase: after a deploy or a resize.
    ///
    /// What was learned of the noise is kept, all evidence is dropped. Verdicts come back after five ticks with
    /// data, at first for large shifts only.
    pub fn rebaseline(&mut self) {
        self.streams.rebaseline();
        self.own.rebaseline();
        self.start_anew();
    }

    /// Another shadow stands beside the same live: what was normal between the two is forgotten, live's own past is not,
    /// nor what was found on its host.
    pub fn renew_shadow(&mut self) {
        self.streams.renew_shadow();
        self.own.renew_shadow();
        self.watch.renew_shadow();
        self.resources.renew_shadow();
        self.streams.start_evidence_anew(true);
        self.forget_course();
    }

    fn start_anew(&mut self) {
        self.resources = Resources::default();
        self.watch.rebaseline();
        self.forget_course();
    }

    fn forget_course(&mut self) {
        self.course = Course::default();
        self.overload = Overload::default();
        self.thin = Thin::default();
        self.since = Since::default();
        (self.shadow_suspect, self.quarantined_ticks) = (false, 0.0);
    }

    /// The operator's word that what is now is the new normal: the present level of every stream becomes its baseline,
    /// evidence is dropped, what was learned of the noise is kept.
    ///
    /// Large shifts from the new level are found at once, smaller ones as its ticks add up.
    pub fn acknowledge(&mut self) {
        self.streams.acknowledge(&self.quality.together());
        self.own.acknowledge();
        self.load.adopt();
        self.start_anew();
    }

    /// The operator's word that the alarm was false: the streams that are raised need ten times the evidence from now
    /// on (a thousand times at most), and all evidence is dropped. Baselines, noise and load stay as they are.
    pub fn reject(&mut self) {
        self.streams.reject();
        self.own.reject();
        self.watch.reject();
        self.since = Since::default();
        self.course = Course::default();
        self.shadow_suspect = false;
    }

    /// Stops or resumes learning what is normal.
    ///
    /// While an action is under way or judged, live must be judged against what was there before it. Evidence
    /// goes on being gathered.
    pub fn freeze(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    fn observe_load(&mut self, window: &Window) -> Range {
        asked_per_second(window).map_or(Range::Known, |rate| self.load.observe(rate, window.span_seconds))
    }

    fn strain(&self, range: Range, span_seconds: f64) -> Strain {
        if range == Range::TooHigh || self.load.is_strained(span_seconds) {
            Strain::Strained
        } else if self.load.is_rising() {
            Strain::Rising
        } else {
            Strain::None
        }
    }

    /// What this tick may be used for by live and shadow against their own past: at a load beyond the range they learn
    /// nothing, but whether live stands it must be seen.
    fn own_uses(&self, range: Range, may_learn: bool) -> Use {
        match range {
            Range::TooHigh => Use { learn: false, judge: true, calm: true },
            Range::Known | Range::TooLow => self.uses(range, may_learn),
        }
    }

    /// What this tick's latencies may be used for.
    fn uses(&self, range: Range, may_learn: bool) -> Use {
        let known = range == Range::Known;
        Use {
            learn: known && may_learn,
            // At low load a sick live looks well: what was found out before is kept until load is back.
            judge: known || !self.streams.is_alarmed(),
            calm: known,
        }
    }

    fn observe_errors(&mut self, window: &Window, uses: Use, silent: bool) {
        let (recent, now, threshold) =
            (self.quality.together(), TickCounts::of(window), self.policy.threshold);
        if !silent && uses.judge {
            self.streams.errors.observe(&now, &recent, threshold, uses.learn);
        } else if window.reported && 0 < now.pairs {
            self.streams.errors.note(&now, &recent);
        } else if window.reported {
            // Live's own answers count even without a shadow to compare them with.
            self.streams.errors.observe_unpaired(&now, &recent, threshold);
        }
    }

    /// Nothing is learned as normal while it may be a fault.
    fn may_learn(&self) -> bool {
        !(self.frozen || self.shadow_suspect || self.course.is_degraded())
            && self.streams.cusum() < FREEZE_CUSUM
    }

    fn facts(&self, objection: Objection, range: Range) -> Facts {
        let excess = self.streams.errors.excess().unwrap_or(0.0);
        let evident = self.policy.threshold <= self.streams.evidence();
        let both_are_worse = self.own.both_are_worse();
        let recent = self.quality.together();
        let slow = self.streams.is_slow() && self.own_past_agrees();
        let failing = self.streams.errors.stream().is_alarmed() && EXCESS_ACT <= excess;
        let shadow_fails = self.streams.errors.shadow.is_alarmed() && excess <= -EXCESS_ACT;
        Facts {
            objection,
            range,
            ready: self.streams.centre.is_ready(),
            evident,
            lasting: slow || failing || self.streams.is_lasting(),
            // Of one that nobody asks any more it is not known whether it still does.
            failing: failing && 0 < recent.requests.max(recent.unpaired.requests),
            shared: (evident || both_are_worse) && self.is_shared(),
            uncleared: self.streams.is_alarmed(),
            shadow_is_worse: shadow_fails || self.shadow_is_slow(),
            both_are_worse,
        }
    }

    /// The second metric that must agree: that live is behind its shadow must not be the shadow's having become faster
    /// while live is what it was.
    fn own_past_agrees(&self) -> bool {
        let (Some(recent), Some(live), Some(shadow)) =
            (self.streams.centre.recent(), self.own.live_shift_log(), self.own.shadow_shift_log())
        else {
            return true;
        };
        SHIFT_LOG <= live || -SHADOW_PART * recent.median < shadow
    }

    /// Whether the larger part of live's slowness is the shadow's too, or both wait for one disk: not live's fault.
    fn is_shared(&self) -> bool {
        let (Some(live), Some(shadow)) = (self.own.live_shift_log(), self.own.shadow_shift_log()) else {
            return false;
        };
        let alike = SHIFT_LOG <= shadow && SHADOW_PART * live <= shadow;
        alike || (self.resources.disk_is_shared() && CALM_LOG <= shadow)
    }

    fn shadow_is_slow(&self) -> bool {
        if !self.streams.centre.down.is_alarmed() {
            return false;
        }
        let Some(recent) = self.streams.centre.recent() else { return false };
        let own = self.own.shadow_shift_log();
        recent.median <= -SHIFT_LOG && own.is_none_or(|shift| -SHADOW_PART * recent.median <= shift)
    }

    /// A day of quarantine without a degradation is a new normal that nobody asked about.
    fn end_quarantine(&mut self, verdict: Verdict) {
        let quiet = self.streams.cusum().max(self.own.cusum()) < FREEZE_CUSUM;
        if quiet || verdict == Verdict::Degraded {
            self.quarantined_ticks = 0.0;
            return;
        }
        self.quarantined_ticks += 1.0;
        if self.ticks_per_day <= self.quarantined_ticks && !self.course.is_degraded() && !self.frozen {
            self.rebaseline();
        }
    }

    fn assess(&self, window: &Window, verdict: Verdict, silence: Silence) -> Assessment {
        let evidence = self.streams.evidence();
        let degraded = self.course.is_degraded();
        let found = matches!(verdict, Verdict::Warn | Verdict::Degraded | Verdict::BothDegraded);
        Assessment {
            tick: window.tick,
            live: window.live.clone(),
            verdict,
            provisional: self.streams.centre.is_provisional(),
            delta: if silence.latencies { None } else { self.streams.delta() },
            carrier: if silence.latencies { None } else { self.streams.carrier_name() },
            own_delta: if silence.own_past { None } else { self.own.live_shift_log().map(Ratio::from_log) },
            error_excess: if silence.errors {
                None
            } else {
                self.streams.errors.excess().and_then(Ratio::new)
            },
            evidence,
            threshold: self.policy.threshold,
            streams: self.streams.states(silence.latencies),
            false_alarms_per_day: self.ticks_per_day / self.policy.threshold.max(1.0),
            attribution: found.then(|| self.attribution(verdict)),
            pressure: if found || degraded { pressure_of(&self.resources) } else { Pressure::default() },
            sampling: sampling::need(
                &self.policy,
                &self.streams.centre,
                evidence,
                self.streams.cusum(),
                degraded,
            ),
            load: self.load.relative(),
            overloaded: self.overload.is_overloaded(),
            host: None,
            flipped: self.flipped.seen(self.ticks_per_day),
            sensitivities: self.sensitivities.known(),
            e_value: self.since.e_value(evidence),
            chosen: false,
            drift: self.streams.centre.drift_log(self.ticks_per_day).map(Ratio::from_log),
        }
    }

    fn attribution(&self, verdict: Verdict) -> Attribution {
        let own = if verdict == Verdict::BothDegraded { self.own.live_shift_log() } else { None };
        let shift = own.or_else(|| self.streams.shift_log()).unwrap_or(0.0);
        attribute(&self.resources, &self.watch, &self.sensitivities, shift)
    }
}

/// Load of live; `None` where it is not known.
#[expect(clippy::cast_precision_loss, reason = "requests of one tick")]
fn asked_per_second(window: &Window) -> Option<f64> {
    let has_rate = window.reported && (SPAN_MIN_SECONDS..f64::MAX).contains(&window.span_seconds);
    has_rate.then(|| window.live_side.asked() as f64 / window.span_seconds)
}
