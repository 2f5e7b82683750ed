//! The routing in force, as the workers see it. Replaced whole, never changed in place.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use foreshadow_model::wire::{CopyRules, Routing, ShadowTarget, Upstream};
use foreshadow_model::{Generation, RouteRule, SampleRate};
use http::Method;
use tokio::sync::mpsc;

use crate::allowance::Allowances;
use crate::amplify::Amplifier;
use crate::bodies::Earlier;
use crate::front::Front;
use crate::moment::Moment;
use crate::pair::ShadowHalf;
use crate::pool::{Place, Way};
use crate::redact::{Redactor, percent_decoded};
use crate::stats::Stats;
use crate::tls::TlsError;

/// A copy on its way to a shadow.
pub(crate) struct Job {
    pub(crate) request: http::Request<Bytes>,
    pub(crate) half: ShadowHalf,
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
    /// Whether no copy holds any of it: none waits, none is under way.
    pub(crate) fn is_whole(&self) -> bool {
        self.used.load(Ordering::Relaxed) == 0
    }

    /// Takes `bytes` unless that passes `limit`.
    pub(crate) fn take(&self, bytes: u64, limit: u64) -> Option<HeldBytes> {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let held = HeldBytes { used: self.used.clone(), bytes };
        (before + bytes <= limit).then_some(held)
    }
}

impl HeldBytes {
    /// How many they are.
    pub(crate) fn get(&self) -> u64 {
        self.bytes
    }

    /// Takes so many more, unless that passes `limit`. What was taken stays.
    pub(crate) fn grow(&mut self, bytes: u64, limit: u64) -> bool {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        before + bytes <= limit
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
    pub(crate) line: ShadowLine,
    pub(crate) queue: mpsc::Sender<Job>,
    /// Until when it is spared copies, because it refuses connections or only fails. Known to the live path, so that no
    /// copy is made for nothing.
    pub(crate) pause: Arc<Moment>,
    pub(crate) amplifier: Amplifier,
}

/// All that a queue to a shadow was opened with; another line needs another queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShadowLine {
    pub(crate) target: ShadowTarget,
    /// Copies that may wait.
    pub(crate) queue: u32,
    /// How long the shadow may take.
    pub(crate) timeout: Duration,
}

/// One live behind the balancer.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) upstream: Upstream,
    pub(crate) way: Arc<Way>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) shadow: Option<ShadowHandle>,
    pub(crate) allowance: Arc<Allowances>,
    /// Requests under way to it, of all threads.
    pub(crate) active: Arc<AtomicU32>,
    /// Set by the workers: it refuses connections, or answers hardly anybody.
    pub(crate) ejected: Arc<AtomicBool>,
}

impl Entry {
    /// Notes whether it is passed over. Written only when that changes: all workers read the same line of cache.
    pub(crate) fn note_ejected(&self, is_ejected: bool) {
        if self.ejected.load(Ordering::Relaxed) != is_ejected {
            self.ejected.store(is_ejected, Ordering::Relaxed);
        }
    }
}

/// Everything a worker needs to serve a request.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) generation: Generation,
    pub(crate) entries: Vec<Entry>,
    pub(crate) front: Arc<Front>,
    pub(crate) copies: CopyRules,
    pub(crate) redactor: Arc<Redactor>,
    pub(crate) budget: Arc<ByteBudget>,
    /// What lives answered, where bodies are compared.
    pub(crate) earlier: Arc<Earlier>,
    /// How often a summary is wanted.
    pub(crate) summary_every: Duration,
}

impl Table {
    /// A table that routes nothing.
    pub(crate) fn empty(routing: Routing, redactor: Arc<Redactor>) -> Self {
        Self {
            generation: routing.generation,
            entries: Vec::new(),
            front: Arc::default(),
            copies: routing.copies,
            redactor,
            budget: Arc::default(),
            earlier: Arc::default(),
            summary_every: routing.summary_every,
        }
    }

    /// The table for a newer routing; counters, shadow queues and the ways to instances that stay are taken along.
    ///
    /// What was made of files is taken along only while those are [`Files::Known`].
    ///
    /// # Errors
    /// When TLS is to be spoken with an instance or with users and cannot be.
    pub(crate) fn next(
        &self,
        routing: Routing,
        redactor: Arc<Redactor>,
        files: Files,
        open: impl FnMut(ShadowLine, Arc<Way>, Duration) -> ShadowHandle,
    ) -> Result<Self, TlsError> {
        let front = if routing.front == self.front.rules {
            self.front.clone()
        } else {
            Arc::new(Front::open(routing.front)?)
        };
        let mut next = Successor {
            before: self,
            files,
            copies: &routing.copies,
            connect: front.rules.patience.connect,
            open,
        };
        let entries =
            routing.upstreams.into_iter().map(|upstream| next.entry(upstream)).collect::<Result<_, _>>()?;
        Ok(Self {
            generation: routing.generation,
            entries,
            front,
            copies: routing.copies,
            redactor,
            budget: self.budget.clone(),
            earlier: self.earlier.clone(),
            summary_every: routing.summary_every,
        })
    }

    /// The rate for a request: the entry's own, or none where its method or a rule says so. The longest prefix wins. A
    /// path is compared in the spelling that servers give it: `/%61dmin` and `//admin` are `/admin`.
    pub(crate) fn rate(&self, entry: &Entry, method: &Method, path: &str) -> SampleRate {
        let (rules, method) = (self.copies.routes.as_slice(), method.as_str());
        let may = |path: &str| RouteRule::may_mirror(rules, method, path);
        // A server that reads the path another way than we do must not be led round a rule either.
        let may_mirror = may(path) && (rules.is_empty() || plain_path(path).is_some_and(|path| may(&path)));
        if may_mirror { entry.upstream.sample_rate } else { SampleRate::NONE }
    }
}

/// What is known of the files that a routing names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Files {
    /// All of it, as long as their names are the same.
    Known,
    /// Nothing: they may have been written anew.
    Unknown,
}

/// Makes entries of a newer table.
struct Successor<'a, O> {
    before: &'a Table,
    files: Files,
    copies: &'a CopyRules,
    connect: Duration,
    open: O,
}

impl<O: FnMut(ShadowLine, Arc<Way>, Duration) -> ShadowHandle> Successor<'_, O> {
    fn entry(&mut self, upstream: Upstream) -> Result<Entry, TlsError> {
        let before = self.before.entries.iter().find(|entry| entry.upstream.id == upstream.id);
        let kept = before.filter(|_| self.files == Files::Known);
        let shadow = upstream.shadow.clone().map(|target| self.shadow(target, kept)).transpose()?;
        let place = Place::of_live(&upstream);
        let way = match kept.filter(|before| *before.way.place() == place) {
            Some(before) => before.way.clone(),
            None => Arc::new(Way::new(place)?),
        };
        Ok(Entry {
            stats: before.map_or_else(Arc::default, |entry| entry.stats.clone()),
            ejected: before.map_or_else(Arc::default, |entry| entry.ejected.clone()),
            allowance: before.map_or_else(Arc::default, |entry| entry.allowance.clone()),
            active: before.map_or_else(Arc::default, |entry| entry.active.clone()),
            shadow,
            way,
            upstream,
        })
    }

    fn shadow(&mut self, target: ShadowTarget, before: Option<&Entry>) -> Result<ShadowHandle, TlsError> {
        let place = Place::of_shadow(&target);
        let line = ShadowLine { target, queue: self.copies.queue, timeout: self.copies.shadow_timeout };
        match before.and_then(|entry| entry.shadow.as_ref()) {
            Some(handle) if handle.line == line => Ok(handle.clone()),
            _ => Ok((self.open)(line, Arc::new(Way::new(place)?), self.connect)),
        }
    }
}

/// The path without percent-encoding, doubled slashes and dot segments; `None` if its encoding is broken.
fn plain_path(path: &str) -> Option<Cow<'_, str>> {
    let odd = ["%", "//", "/.", "\\", ";"];
    if !odd.iter().any(|odd| path.contains(odd)) {
        return Some(Cow::Borrowed(path));
    }
    let decoded = percent_decoded(path)?.replace('\\', "/");
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            name => segments.push(name),
        }
    }
    let end = if decoded.ends_with('/') && !segments.is_empty() { "/" } else { "" };
    Some(Cow::Owned(format!("/{}{end}", segments.join("/"))))
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

    #[test]
    fn another_spelling_does_not_lead_round_a_rule() {
        for path in ["/admin", "/%61dmin/x", "//admin", "/a/../admin", "/./admin", "/admin;v=1", "/\\admin"] {
            assert!(plain_path(path).unwrap().starts_with("/admin"), "{path}");
        }
        assert_eq!(plain_path("/a/b/").unwrap(), "/a/b/");
        assert_eq!(plain_path("/a//b/").unwrap(), "/a/b/");
        assert_eq!(plain_path("/.."), Some("/".into()));
        assert_eq!(plain_path("/%zz"), None);
    }
}
