//! What the operator sees: kept up to date after every tick, read by the control API.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use foreshadow_model::wire::Summary;
use foreshadow_model::{
    ActionRow, Agreement, BurstOutcome, Decision, DeployRow, Drops, FlippedAlarms, InstanceId, Ledger, Pair,
    PairRow, Policy, StatusReport, Weight, Window, of_live,
};
use foreshadow_platform::local::Local;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock;
use crate::cycle::Closed;
use crate::history::History;
use crate::knees::Knees;
use crate::memory::Trends;

/// Actions that are shown.
const ACTIONS: usize = 20;

/// Sums since the controller started.
#[derive(Debug, Default)]
struct Totals {
    requests: u64,
    mirrored: u64,
    mirror_cpu_seconds: f64,
    drops: BTreeMap<InstanceId, Drops>,
    agreement: BTreeMap<InstanceId, Agreement>,
    began: BTreeMap<foreshadow_model::ActionId, i64>,
    /// By live and by test: why it was not tried.
    untested: BTreeMap<InstanceId, BTreeMap<String, String>>,
}

/// The board that the status is written on.
#[derive(Debug)]
pub(crate) struct Board {
    service: String,
    started: Instant,
    totals: Totals,
    listen: SocketAddr,
    mirror_pid: Option<u32>,
    api: Option<SocketAddr>,
    unenforced: Vec<String>,
    config_error: Option<String>,
    deploy: Option<DeployRow>,
    shown: watch::Sender<Option<Arc<StatusReport>>>,
}

/// What of the loop's state goes into a status.
pub(crate) struct Facts<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) ledger: &'a Ledger,
    pub(crate) weights: &'a BTreeMap<InstanceId, Weight>,
    pub(crate) closed: &'a Closed,
    pub(crate) platform: &'a Local,
    pub(crate) trends: &'a Trends,
    pub(crate) knees: &'a Knees,
    /// The operator has turned the performance tests off.
    pub(crate) probes_off: bool,
    /// What does not work at the moment.
    pub(crate) troubles: Vec<String>,
}

impl Board {
    pub(crate) fn new(service: String, listen: SocketAddr, unenforced: Vec<String>) -> Self {
        let shown = watch::Sender::new(None);
        Self {
            service,
            started: Instant::now(),
            totals: Totals::default(),
            listen,
            mirror_pid: None,
            api: None,
            unenforced,
            config_error: None,
            deploy: None,
            shown,
        }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Arc<StatusReport>>> {
        self.shown.subscribe()
    }

    pub(crate) fn mirror(&mut self, pid: Option<u32>, listen: Option<SocketAddr>) {
        self.mirror_pid = pid;
        self.listen = listen.unwrap_or(self.listen);
    }

    /// Why the file as it is now is not in force.
    pub(crate) fn config_error(&mut self, error: Option<String>) {
        self.config_error = error;
    }

    /// Shows where the API is, if anywhere.
    pub(crate) fn api(&mut self, listener: Option<&TcpListener>) {
        self.api = listener.and_then(|listener| listener.local_addr().ok());
    }

    /// How far the roll-out of a changed service is.
    pub(crate) fn deploy(&mut self, deploy: Option<DeployRow>) {
        self.deploy = deploy;
    }

    /// Adds what the mirror counted.
    pub(crate) fn add(&mut self, summary: &Summary) {
        for seen in &summary.upstreams {
            self.totals.requests += seen.live_side.requests;
            self.totals.mirrored += seen.shadow_side.requests;
            self.totals.drops.entry(seen.live.clone()).or_default().merge(&seen.drops);
            let agreement = self.totals.agreement.entry(seen.live.clone()).or_default();
            agreement.merge(&seen.agreement);
            agreement.fade();
        }
        self.totals.requests += summary.refused;
        self.totals.mirror_cpu_seconds += summary.cpu_seconds;
    }

    /// Writes down on which routes answers diverge, for those who ask when no controller runs.
    pub(crate) fn keep(&self, unix_ms: i64, history: &History) {
        let routes = self.totals.agreement.values().map(|agreement| &agreement.diverging_routes);
        crate::diverging::keep(routes, (self.totals.mirrored, unix_ms), history);
    }

    /// Shows the state after a tick.
    pub(crate) fn show(&mut self, facts: &Facts<'_>) {
        for step in facts.closed.report.plan.steps() {
            self.totals.began.entry(step.id).or_insert(facts.closed.report.unix_ms);
        }
        self.note_untested(&facts.closed.windows);
        let mut rows: Vec<PairRow> =
            facts.closed.inventory.pairs.iter().map(|pair| self.row(pair, facts)).collect();
        // `live-2` before `live-10`: people count, they do not spell.
        rows.sort_by_key(|row| (row.live.id.number(), row.live.id.clone()));
        let assessments = &facts.closed.report.assessments;
        let mut decisions = facts.closed.report.plan.decisions.iter();
        let of_service = decisions.find(|decision| decision.instance().is_none());
        let report = StatusReport {
            format: StatusReport::FORMAT,
            service: self.service.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            mirror_pid: self.mirror_pid,
            listen: self.listen.to_string(),
            api: self.api.map(|address| address.to_string()),
            mode: facts.policy.mode,
            paused: facts.ledger.paused,
            probes_off: facts.probes_off,
            tick: facts.closed.report.tick,
            tick_seconds: facts.policy.tick.as_secs_f64(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            pairs: rows,
            forecast: facts.closed.report.forecast,
            decision: of_service.map(in_words),
            held: of_service.is_some_and(is_held),
            ramp: facts.knees.ramp(),
            knee_waits: facts.knees.waits(),
            actions: self.actions(facts.ledger),
            unenforced: self.unenforced.clone(),
            troubles: facts.troubles.clone(),
            requests: self.totals.requests,
            mirrored: self.totals.mirrored,
            shadows_refused: facts.closed.inventory.shadows_refused,
            false_alarms_per_day: assessments.iter().map(|assessment| assessment.false_alarms_per_day).sum(),
            flipped: assessments.iter().fold(FlippedAlarms::default(), |sum, of| sum.and(of.flipped)),
            controller_cpu_seconds: clock::cpu_seconds(),
            mirror_cpu_seconds: self.totals.mirror_cpu_seconds,
            config_error: self.config_error.clone(),
            deploy: self.deploy.clone(),
        };
        self.shown.send_replace(Some(Arc::new(report)));
    }

    fn note_untested(&mut self, windows: &[Window]) {
        self.totals.untested.retain(|live, _| windows.iter().any(|window| window.live == *live));
        for window in windows {
            let untested = self.totals.untested.entry(window.live.clone()).or_default();
            for burst in &window.live_bursts {
                match &burst.outcome {
                    BurstOutcome::Skipped { reason } | BurstOutcome::BackedOff { reason } => {
                        untested.insert(burst.name(), reason.clone());
                    }
                    BurstOutcome::Ran { .. } | BurstOutcome::Starved { .. } => {
                        untested.remove(&burst.name());
                    }
                }
            }
        }
    }

    fn actions(&self, ledger: &Ledger) -> Vec<ActionRow> {
        let row = |taken: &foreshadow_model::Taken| ActionRow {
            id: taken.id,
            unix_ms: self.totals.began.get(&taken.id).copied().unwrap_or_default(),
            action: taken.action.clone(),
            effect: taken.effect.clone(),
        };
        ledger.taken.iter().rev().take(ACTIONS).map(row).collect()
    }

    fn row(&self, pair: &Pair, facts: &Facts<'_>) -> PairRow {
        let live = &pair.live.id;
        let window = of_live(&facts.closed.windows, live).filter(|window| window.reported);
        let report = &facts.closed.report;
        let decision = report.plan.decisions.iter().find(|decision| decision.instance() == Some(live));
        let agreement = self.totals.agreement.get(live);
        let assessment = of_live(&report.assessments, live);
        let weighed = decision.map(Decision::alternatives).unwrap_or_default();
        PairRow {
            live: pair.live.clone(),
            shadow: pair.shadow.clone(),
            no_shadow: facts.closed.inventory.without_shadow.get(live).cloned(),
            weight: facts.weights.get(live).copied().unwrap_or(Weight::FULL),
            sample_rate: window.map(|window| window.sample_rate).unwrap_or_default(),
            requests_per_second: window.map_or(0.0, |window| window.per_second(window.live_side.requests)),
            latency_p95_ms: window
                .and_then(|window| window.live_side.latency.quantile(0.95))
                .map(|us| us / 1000.0),
            error_share: window.and_then(error_share),
            pairs: window.map_or(0, |window| window.paired.n),
            assessment: assessment.cloned(),
            knee: facts.knees.row(live, assessment),
            alternatives: weighed.iter().map(ToString::to_string).collect(),
            decision: decision.map(in_words),
            drops: self.totals.drops.get(live).cloned().unwrap_or_default(),
            diverging_routes: agreement.map(|seen| seen.diverging_routes.clone()).unwrap_or_default(),
            differences: agreement.map(Agreement::differing).unwrap_or_default(),
            untested: self.totals.untested.get(live).cloned().unwrap_or_default(),
            memory: facts.trends.of(live),
            held: decision.is_some_and(is_held),
            live_log: Some(facts.platform.log_of(live)),
            shadow_log: pair.shadow.as_ref().map(|shadow| facts.platform.log_of(&shadow.id)),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "requests of one tick")]
fn error_share(window: &Window) -> Option<f64> {
    let side = &window.live_side;
    (0 < side.requests).then(|| side.errors as f64 / side.requests as f64)
}

/// Whether something is wished for and not done for now.
fn is_held(decision: &Decision) -> bool {
    matches!(decision, Decision::Hold { instead_of: Some(_), .. })
}

/// A decision as one line.
fn in_words(decision: &Decision) -> String {
    match decision {
        Decision::Act(step) if 0 < step.rehearsal_ticks => {
            format!("{}: {}, tried on its shadow first", step.id, step.action)
        }
        Decision::Act(step) => format!("{}: {}", step.id, step.action),
        Decision::Hold { reason, instead_of: Some(action), .. } => {
            format!("hold ({reason}) instead of {action}")
        }
        Decision::Hold { reason, instead_of: None, .. } => format!("hold ({reason})"),
    }
}
