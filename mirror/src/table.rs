//! The routing in force, as the workers see it. Replaced whole, never changed in place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use foreshadow_model::wire::{CopyRules, Routing, ShadowTarget, Upstream};
use foreshadow_model::{Generation, RouteRule, SampleRate};
use tokio::sync::mpsc;

use crate::pair::Pair;
use crate::redact::Redactor;
use crate::stats::Stats;

/// A copy on its way to a shadow.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) request: http::Request<()>,
    pub(crate) pair: Arc<Pair>,
    pub(crate) bytes: HeldBytes,
}

/// Bytes that copies hold, all shadows together.
#[derive(Debug, Default)]
pub(crate) struct ByteBudget {
    used: Arc<AtomicU64>,
}

/// A part of the budget, returned when dropped.
#[derive(Debug)]
pub(crate) struct HeldBytes {
    used: Arc<AtomicU64>,
    bytes: u64,
}

impl ByteBudget {
    /// Takes `bytes` unless that passes `limit`.
    pub(crate) fn take(&self, bytes: u64, limit: u64) -> Option<HeldBytes> {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let held = HeldBytes { used: self.used.clone(), bytes };
        (before + bytes <= limit).then_some(held)
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The way to one shadow. When the last clone goes, its task ends.
#[derive(Clone, Debug)]
pub(crate) struct ShadowHandle {
    pub(crate) target: ShadowTarget,
    pub(crate) queue: mpsc::Sender<Job>,
}

/// One live behind the balancer.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) upstream: Upstream,
    pub(crate) stats: Arc<Stats>,
    pub(crate) shadow: Option<ShadowHandle>,
    /// Set by the workers: it refuses connections.
    pub(crate) ejected: Arc<AtomicBool>,
}

/// Everything a worker needs to serve a request.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) generation: Generation,
    pub(crate) entries: Vec<Entry>,
    pub(crate) copies: CopyRules,
    pub(crate) redactor: Redactor,
    pub(crate) budget: Arc<ByteBudget>,
}

impl Table {
    /// A table that routes nothing.
    pub(crate) fn empty(copies: CopyRules, redactor: Redactor) -> Self {
        Self { generation: Generation(0), entries: Vec::new(), copies, redactor, budget: Arc::default() }
    }

    /// The table for a newer routing; counters and shadow queues of instances that stay are taken along.
    pub(crate) fn next(
        &self,
        routing: Routing,
        redactor: Redactor,
        mut open: impl FnMut(&ShadowTarget) -> ShadowHandle,
    ) -> Self {
        let entries = routing
            .upstreams
            .into_iter()
            .map(|upstream| {
                let before = self.entries.iter().find(|entry| entry.upstream.id == upstream.id);
                let shadow = upstream.shadow.as_ref().map(|target| {
                    match before.and_then(|entry| entry.shadow.as_ref()) {
                        Some(handle) if handle.target == *target => handle.clone(),
                        _ => open(target),
                    }
                });
                Entry {
                    stats: before.map_or_else(Arc::default, |entry| entry.stats.clone()),
                    ejected: before.map_or_else(Arc::default, |entry| entry.ejected.clone()),
                    shadow,
                    upstream,
                }
            })
            .collect();
        Self {
            generation: routing.generation,
            entries,
            copies: routing.copies,
            redactor,
            budget: self.budget.clone(),
        }
    }

    /// The rate for a path: the entry's own, or none where a rule says so. The longest prefix wins.
    pub(crate) fn rate(&self, entry: &Entry, path: &str) -> SampleRate {
        let rule = self
            .copies
            .routes
            .iter()
            .filter(|rule| path.starts_with(&rule.path))
            .max_by_key(|rule| rule.path.len());
        match rule {
            Some(RouteRule { mirror: false, .. }) => SampleRate::NONE,
            _ => entry.upstream.sample_rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_over_the_budget_are_refused_and_returned() {
        let budget = ByteBudget::default();
        let first = budget.take(60, 100).unwrap();
        assert!(budget.take(60, 100).is_none());
        drop(first);
        assert!(budget.take(100, 100).is_some(), "a refusal leaves nothing behind");
    }
}
