//! All streams of one instance, and their evidence as one number (`DELTA.md` §5).
//!
//! *Why a mean*: the mean of several `R` is as valid as each of them under any dependence between them, with any fixed
//! weights. The weights are bets on where trouble shows: the centre counts most, since most of what makes a service
//! worse moves it.
//! *A silent stream does not dilute*: only streams count that exist for this instance and speak about the present. The
//! errors join with the first failure that argued for anything, a tail while its blocks end, throughput where it is
//! counted, probes and signals where they can be read.
//! *Who may act*: what users feel (centre, errors, tails, throughput). Probes and signals add evidence; alone they
//! warn.

use foreshadow_model::{ComparePolicy, Estimate, Ratio, Stream, StreamState, StreamStates, Window};
use serde::{Deserialize, Serialize};

use crate::controlled::Controlled;
use crate::detector::{Detector, Use};
use crate::errors::Errors;
use crate::host::Host;
use crate::quality::TickCounts;
use crate::tails::Tails;
use crate::throughput;

/// Quantile of the normal distribution for a 95 % interval.
const NORMAL_95: f64 = 1.96;

/// Weight of the centre in the mean. Together with its dissenters it keeps what it had beside the errors alone.
const CENTRE_WEIGHT: f64 = 4.0;

/// What of it the centre leaves to live's own past and load, once they say something.
const CONTROLLED_WEIGHT: f64 = 3.0;

/// Weight of the errors: few failures must be enough.
const ERRORS_WEIGHT: f64 = 3.0;

/// Weight of every other stream.
const OTHER_WEIGHT: f64 = 1.0;

/// The streams.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Streams {
    pub(crate) centre: Detector,
    controlled: Controlled,
    pub(crate) errors: Errors,
    tails: Tails,
    throughput: Detector,
    host: Host,
}

impl Streams {
    pub(crate) fn new(policy: &ComparePolicy, ticks_per_day: f64) -> Self {
        Self {
            centre: Detector::new(policy),
            controlled: Controlled::new(policy, ticks_per_day),
            errors: Errors::default(),
            tails: Tails::new(policy),
            throughput: Detector::new(policy),
            host: Host::new(policy),
        }
    }

    /// Takes the latencies of one tick in; `None` where they say nothing. The centre hears nothing of pairs that are held for
    /// the next tick. `load` in requests per second.
    pub(crate) fn observe_latencies(
        &mut self,
        window: Option<&Window>,
        load: Option<f64>,
        held: bool,
        uses: Use,
    ) {
        if !held {
            self.centre.observe_moments(window.map(|w| &w.paired), uses);
            self.controlled.observe(window, load, uses, &self.centre);
        }
        self.tails.observe(window, uses, self.centre.up.is_alarmed());
    }

    /// Takes in what does not need a shadow. Where load explains everything (`explained`) it says nothing.
    pub(crate) fn observe_alone(&mut self, window: &Window, uses: Use, explained: bool) {
        self.throughput.observe(throughput::statistic(window).filter(|_| !explained), uses);
        let hurts = self.is_alarmed();
        let judge = uses.judge && !explained;
        self.host.observe(window, Use { judge, ..uses }, hurts);
    }

    /// Whether something that users feel has passed its threshold and not been cleared.
    pub(crate) fn is_alarmed(&self) -> bool {
        self.felt().any(|(_, detector)| detector.up.is_alarmed())
            || self.controlled.is_alarmed()
            || self.errors.stream().is_alarmed()
    }

    /// The largest `C` of what users feel.
    pub(crate) fn cusum(&self) -> f64 {
        self.felt()
            .map(|(_, detector)| detector.up.cusum())
            .fold(self.errors.stream().cusum().max(self.controlled.cusum()), f64::max)
    }

    /// Whether answers take longer, lastingly.
    pub(crate) fn is_slow(&self) -> bool {
        self.centre.is_lasting() || self.controlled.is_lasting()
    }

    /// Whether its tail or throughput is worse, lastingly.
    pub(crate) fn is_lasting(&self) -> bool {
        self.throughput.is_lasting() || self.tails.named().into_iter().any(|(_, tail)| tail.is_lasting())
    }

    /// `R` of the instance.
    pub(crate) fn evidence(&self) -> f64 {
        let felt = [self.controlled.weighed_evidence(), self.errors.weighed_evidence()];
        self.mean(Detector::weighed_evidence, felt)
    }

    /// The same of shifts to the better.
    pub(crate) fn flipped_evidence(&self) -> f64 {
        let felt = [self.controlled.flipped_evidence(&self.centre), self.errors.shadow.evidence()];
        self.mean(|detector| detector.down.evidence(), felt)
    }

    fn mean(&self, of: fn(&Detector) -> f64, [controlled, errors]: [f64; 2]) -> f64 {
        let (mut sum, mut weights) = (0.0, 0.0);
        let mut add = |weight: f64, evidence: f64| {
            sum += weight * evidence;
            weights += weight;
        };
        if self.controlled.speaks() {
            add(CENTRE_WEIGHT - CONTROLLED_WEIGHT, of(&self.centre));
            add(CONTROLLED_WEIGHT, controlled);
        } else {
            add(CENTRE_WEIGHT, of(&self.centre));
        }
        if 0.0 < errors {
            add(ERRORS_WEIGHT, errors);
        }
        for (stream, detector) in self.others() {
            if self.speaks(stream) {
                add(OTHER_WEIGHT, of(detector));
            }
        }
        sum / weights
    }

    fn speaks(&self, stream: Stream) -> bool {
        match stream {
            Stream::Centre | Stream::Errors => true,
            Stream::Controlled => self.controlled.speaks(),
            Stream::Tail95 | Stream::Tail99 | Stream::Tail999 => {
                self.tails.named().into_iter().any(|(of, tail)| of == stream && tail.speaks())
            }
            Stream::Throughput => self.throughput.recent().is_some(),
            Stream::Probes => self.host.probes.speaks(),
            Stream::Signals => self.host.signals.speaks(),
        }
    }

    /// All but centre and errors.
    fn others(&self) -> [(Stream, &Detector); 6] {
        let [p95, p99, p999] = self.tails.named().map(|(stream, tail)| (stream, &tail.detector));
        [
            p95,
            p99,
            p999,
            (Stream::Throughput, &self.throughput),
            (Stream::Probes, &self.host.probes.detector),
            (Stream::Signals, &self.host.signals.detector),
        ]
    }

    /// The detectors of what users feel.
    fn felt(&self) -> impl Iterator<Item = (Stream, &Detector)> {
        let [p95, p99, p999, throughput, ..] = self.others();
        [(Stream::Centre, &self.centre), p95, p99, p999, throughput].into_iter()
    }

    /// The stream that carries the shift: the centre, unless it is not raised and another is. Then the one that is worst.
    fn carrier(&self) -> (Stream, &Detector) {
        let shift = |detector: &Detector| detector.recent().map_or(0.0, |recent| recent.median);
        let controlled =
            self.controlled.is_alarmed().then_some((Stream::Controlled, &self.controlled.detector));
        let others = || self.felt().filter(|(_, detector)| detector.up.is_alarmed()).chain(controlled);
        let worst = others().max_by(|a, b| shift(a.1).total_cmp(&shift(b.1)));
        match worst {
            Some(worst) if !self.centre.up.is_alarmed() => worst,
            _ => (Stream::Centre, &self.centre),
        }
    }

    /// Which stream [`delta`](Self::delta) speaks of; `None` is the centre.
    pub(crate) fn carrier_name(&self) -> Option<Stream> {
        Some(self.carrier().0).filter(|&stream| stream != Stream::Centre)
    }

    /// The recent median of the carrier, in log units.
    pub(crate) fn shift_log(&self) -> Option<f64> {
        self.carrier().1.recent().map(|recent| recent.median)
    }

    /// The same with its interval.
    pub(crate) fn delta(&self) -> Option<Estimate> {
        let detector = self.carrier().1;
        let recent = detector.recent()?;
        let reach = NORMAL_95 * detector.recent_error(&recent);
        Some(Estimate {
            delta: Ratio::from_log(recent.median),
            low: Ratio::from_log(recent.median - reach),
            high: Ratio::from_log(recent.median + reach),
        })
    }

    /// Every stream that exists for this instance. Always with the centre first and the errors second.
    pub(crate) fn states(&self, silent: bool) -> StreamStates {
        let of = |stream: Stream, detector: &Detector| StreamState {
            stream,
            evidence: detector.up.evidence(),
            cusum: detector.up.cusum(),
            residual: detector.residual,
            whitened: detector.whitened,
            raised: detector.up.is_alarmed(),
        };
        let errors = self.errors.stream();
        let mut states = StreamStates::new();
        states.push(of(Stream::Centre, &self.centre));
        states.push(StreamState {
            stream: Stream::Errors,
            evidence: errors.evidence(),
            cusum: errors.cusum(),
            residual: if silent { None } else { self.errors.excess() },
            whitened: None,
            raised: errors.is_alarmed(),
        });
        if self.controlled.speaks() {
            states.push(StreamState {
                raised: self.controlled.is_alarmed(),
                evidence: self.controlled.weighed_evidence(),
                cusum: self.controlled.cusum(),
                ..of(Stream::Controlled, &self.controlled.detector)
            });
        }
        let speaking = self.others().into_iter().filter(|&(stream, _)| self.speaks(stream));
        states.extend(speaking.map(|(stream, detector)| of(stream, detector)));
        states
    }

    /// `R` of all starts anew; of shifts to the better as well, where there is next to no evidence of any (`both`).
    pub(crate) fn start_evidence_anew(&mut self, both: bool) {
        for detector in [
            &mut self.centre,
            &mut self.controlled.detector,
            &mut self.throughput,
            &mut self.host.probes.detector,
            &mut self.host.signals.detector,
        ] {
            detector.start_evidence_anew(both);
        }
        self.tails.each(|detector| detector.start_evidence_anew(both));
        self.errors.start_evidence_anew(both);
    }

    /// Forgets levels and evidence.
    pub(crate) fn rebaseline(&mut self) {
        self.centre.rebaseline();
        self.controlled.rebaseline();
        self.errors.rebaseline();
        self.tails.rebaseline();
        self.throughput.rebaseline();
        self.host.rebaseline();
    }

    /// Forgets what was said of live *and its shadow*; what live alone was like is kept.
    pub(crate) fn renew_shadow(&mut self) {
        self.centre.rebaseline();
        self.controlled.renew_shadow();
        self.errors.rebaseline();
        self.tails.rebaseline();
        self.host.renew_shadow();
    }

    /// Takes the present levels as normal.
    pub(crate) fn acknowledge(&mut self, recent: &TickCounts) {
        self.centre.acknowledge();
        self.controlled.acknowledge();
        self.errors.acknowledge(recent);
        self.tails.acknowledge();
        self.throughput.acknowledge();
        self.host.acknowledge();
    }

    /// The alarm was false.
    pub(crate) fn reject(&mut self) {
        self.centre.reject();
        self.controlled.reject();
        self.errors.reject();
        self.tails.reject();
        self.throughput.reject();
        self.host.reject();
    }
}
