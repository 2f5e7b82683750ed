//! What came of a replay.

use std::collections::BTreeMap;
use std::time::Duration;

use foreshadow_model::LogHistogram;
use http::StatusCode;
use jiff::Timestamp;

use crate::log::{Logged, Skipped};

/// What came of a replay so far.
#[derive(Clone, Debug, Default)]
pub struct ReplayTally {
    /// Requests sent.
    pub sent: u64,
    /// Of those, requests without an answer yet.
    pub in_flight: usize,
    /// Of those, requests that got no answer, or half of one, or too late.
    pub unanswered: u64,
    /// Answers by the first digit of their status.
    pub statuses: BTreeMap<u16, u64>,
    /// Answers whose status differs from what the log says live answered.
    pub other_status: u64,
    /// Answers whose status the log tells of.
    pub known_status: u64,
    /// How long answers took, in milliseconds.
    pub latency_ms: LogHistogram,
    /// How long live took for the same requests, in milliseconds, where the log says so.
    pub logged_latency_ms: LogHistogram,
    /// Lines that were not sent, by reason.
    pub skipped: BTreeMap<Skipped, u64>,
    /// Requests left out because of the rate cap.
    pub over_cap: u64,
    /// Requests left out because too many were under way.
    pub busy: u64,
    /// How late the latest of them was, against its moment.
    pub latest: Duration,
    /// The time of the log that was reached.
    pub reached: Option<Timestamp>,
}

impl ReplayTally {
    pub(super) fn skip(&mut self, why: Skipped) {
        *self.skipped.entry(why).or_default() += 1;
    }

    pub(super) fn reached(&mut self, at: Timestamp, late: Duration) {
        self.reached = Some(at);
        self.latest = self.latest.max(late);
    }

    pub(super) fn begin(&mut self) {
        self.sent += 1;
        self.in_flight += 1;
    }

    pub(super) fn end(&mut self, status: Option<StatusCode>, latency: Duration, logged: &Logged) {
        self.in_flight -= 1;
        let Some(status) = status else {
            self.unanswered += 1;
            return;
        };
        *self.statuses.entry(status.as_u16() / 100).or_default() += 1;
        if let Some(before) = logged.status {
            self.known_status += 1;
            self.other_status += u64::from(before != status);
        }
        self.latency_ms.record(latency.as_secs_f64() * 1e3);
        if let Some(before) = logged.latency {
            self.logged_latency_ms.record(before.as_secs_f64() * 1e3);
        }
    }
}
