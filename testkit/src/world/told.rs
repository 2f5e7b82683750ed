//! What users met, and what the mirror reports.

use std::collections::BTreeMap;

use foreshadow_model::wire::UpstreamSummary;
use foreshadow_model::{
    Agreement, DropReason, Drops, InstanceId, LogHistogram, LogMoments, SampleRate, ServiceModel, SideWindow,
};

use super::Users;
use crate::noise::Noise;
use crate::replica::{Did, moments};

/// Spread of one latency, and of the ratio of two that answer the same request, in log units.
const ANSWER_SPREAD: f64 = 0.6;
const PAIR_SPREAD: f64 = 0.3;

/// Users are hurt when more than this share of their requests fails.
const FAILED_MOST: f64 = 0.01;

/// What users met, summed over the lives.
#[derive(Default)]
pub(super) struct Met {
    latency: LogHistogram,
    requests: u64,
    errors: u64,
}

impl Met {
    pub(super) fn add(&mut self, did: &Did) {
        self.latency.merge(&did.side.latency);
        self.requests += did.side.requests;
        self.errors += did.side.errors;
    }

    #[expect(clippy::cast_precision_loss, reason = "requests of a tick")]
    pub(super) fn users(&self, load: f64, service: &ServiceModel, any_ready: bool) -> Users {
        let latency_p95 = self.latency.quantile(0.95).map(|us| us / 1e6);
        let failed = match (any_ready, self.requests) {
            (false, _) if 0.0 < load => 1.0,
            (_, 0) => 0.0,
            (_, requests) => self.errors as f64 / requests as f64,
        };
        let are_hurt =
            FAILED_MOST < failed || latency_p95.is_some_and(|latency| service.objective_seconds < latency);
        Users { load, latency_p95, failed, are_hurt }
    }
}

/// What the mirror reports of a live and of the copies to its shadow.
pub(super) fn upstream(
    live: InstanceId,
    (sample_rate, sampled, is_amplified): (SampleRate, u64, bool),
    did: Did,
    copies: Option<(InstanceId, Did)>,
    noise: &mut Noise,
) -> UpstreamSummary {
    let mut summary = UpstreamSummary {
        live,
        shadow: None,
        live_side: did.side,
        shadow_side: SideWindow::default(),
        paired: LogMoments::default(),
        agreement: Agreement::default(),
        sampled,
        copied_bytes: 0,
        drops: Drops::default(),
        sample_rate,
        ejected: false,
        upgraded: 0,
        thinned: BTreeMap::new(),
    };
    let Some((shadow, copied)) = copies else {
        summary.sampled = 0;
        return summary;
    };
    summary.shadow = Some(shadow);
    summary.shadow_side.clone_from(&copied.side);
    if is_amplified {
        summary.drops.0.insert(DropReason::Amplified, sampled);
    } else {
        pair_up(&mut summary, (did.log, copied.log), &copied, noise);
    }
    summary
}

#[expect(clippy::cast_precision_loss, reason = "copies of a tick")]
fn pair_up(summary: &mut UpstreamSummary, (live, shadow): (f64, f64), copied: &Did, noise: &mut Noise) {
    let sampled = summary.sampled;
    let failed =
        |errors: u64, requests: u64| if requests == 0 { 0.0 } else { errors as f64 / requests as f64 };
    let of_live = failed(summary.live_side.errors, summary.live_side.requests);
    let of_shadow = failed(copied.side.errors, copied.side.requests);
    let live_only = noise.count(sampled as f64 * of_live).min(sampled);
    let shadow_only = noise.count(sampled as f64 * of_shadow).min(sampled - live_only);
    let same = sampled - live_only - shadow_only;
    summary.agreement = Agreement {
        same,
        live_error_only: live_only,
        shadow_error_only: shadow_only,
        ..Agreement::default()
    };
    summary.paired = moments(same, live - shadow, PAIR_SPREAD, noise);
    summary.live_side.paired_log = moments(same, live, ANSWER_SPREAD, noise);
    summary.shadow_side.paired_log = moments(same, shadow, ANSWER_SPREAD, noise);
}
