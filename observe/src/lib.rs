//! Samples to windows: what the mirror and the probes saw, closed per tick for live and shadow together.
//!
//! Pure: time enters as spans that somebody else measured.

use std::collections::BTreeMap;

use foreshadow_model::wire::Summary;
use foreshadow_model::{Burst, CgroupSignals, InstanceId, Inventory, MemoryProfile, Tick, Window, of_live};

/// What was seen of one instance from inside its cgroup.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inside {
    /// Passive signals of the tick; `None` when they cannot be read.
    pub signals: Option<CgroupSignals>,
    /// Probe bursts of the tick.
    pub bursts: Vec<Burst>,
    /// Its memory, if a profile was taken.
    pub memory: Option<MemoryProfile>,
}

/// Gathers samples until the windows of a tick are closed.
#[derive(Debug, Default)]
pub struct Observer {
    summaries: Vec<Summary>,
    inside: BTreeMap<InstanceId, Inside>,
}

impl Observer {
    /// Takes what the mirror reported. Several reports within one tick are added up.
    pub fn summary(&mut self, summary: Summary) {
        self.summaries.push(summary);
    }

    /// Takes passive signals of an instance; a later reading within the tick replaces an earlier one.
    pub fn signals(&mut self, id: InstanceId, signals: CgroupSignals) {
        self.inside.entry(id).or_default().signals = Some(signals);
    }

    /// Takes probe bursts of an instance.
    pub fn bursts(&mut self, id: InstanceId, bursts: Vec<Burst>) {
        self.inside.entry(id).or_default().bursts.extend(bursts);
    }

    /// Takes a memory profile of an instance; a later one within the tick replaces an earlier one.
    pub fn memory(&mut self, id: InstanceId, profile: MemoryProfile) {
        self.inside.entry(id).or_default().memory = Some(profile);
    }

    /// Closes the tick: one window per pair of `inventory`, live and shadow over the same span. A live that the
    /// mirror did not report about gets a window that says so, never one full of zeros.
    pub fn close_windows(&mut self, tick: Tick, span_seconds: f64, inventory: &Inventory) -> Vec<Window> {
        let summaries = std::mem::take(&mut self.summaries);
        let mut inside = std::mem::take(&mut self.inside);
        let mut close = |pair: &foreshadow_model::Pair| {
            let ready_shadow = pair.shadow.as_ref().filter(|shadow| shadow.is_ready());
            let mut window = Window::unreported(tick, pair.live.id.clone(), span_seconds);
            window.shadow = ready_shadow.map(|shadow| shadow.id.clone());
            add_summaries(&mut window, &summaries);
            let live = inside.remove(&pair.live.id).unwrap_or_default();
            (window.live_signals, window.live_bursts) = (live.signals, live.bursts);
            window.live_memory = live.memory;
            if let Some(shadow) = ready_shadow {
                let shadow = inside.remove(&shadow.id).unwrap_or_default();
                (window.shadow_signals, window.shadow_bursts) = (shadow.signals, shadow.bursts);
                window.shadow_memory = shadow.memory;
            }
            window
        };
        inventory.pairs.iter().map(&mut close).collect()
    }
}

fn add_summaries(window: &mut Window, summaries: &[Summary]) {
    let mut span = 0.0;
    for summary in summaries {
        let Some(seen) = of_live(&summary.upstreams, &window.live) else { continue };
        window.reported = true;
        span += summary.span_seconds;
        window.live_side.merge(&seen.live_side);
        window.sampled += seen.sampled;
        window.drops.merge(&seen.drops);
        (window.sample_rate, window.held_back) = (seen.sample_rate, seen.ejected);
        // Pairs with a shadow that has been replaced since say nothing about the one there is now.
        if seen.shadow == window.shadow {
            window.shadow_side.merge(&seen.shadow_side);
            window.copied_bytes = window.copied_bytes.saturating_add(seen.copied_bytes);
            window.paired.merge(&seen.paired);
            window.agreement.merge(&seen.agreement);
        }
    }
    if window.reported && 0.0 < span {
        window.span_seconds = span;
    }
}

#[cfg(test)]
mod tests {
    use foreshadow_model::wire::UpstreamSummary;
    use foreshadow_model::{
        Agreement, Drops, Generation, Instance, LogMoments, NodeName, Pair, Phase, Role, SampleRate,
        SideWindow,
    };

    use super::*;

    fn instance(id: InstanceId, role: Role, phase: Phase) -> Instance {
        Instance { phase, ..Instance::new(id, role, NodeName::new("a").unwrap(), 1) }
    }

    fn inventory(shadow: Phase) -> Inventory {
        let live = instance(InstanceId::live(1), Role::Live, Phase::Ready);
        let shadow = instance(live.id.shadow_of(), Role::Shadow, shadow);
        Inventory { pairs: vec![Pair { live, shadow: Some(shadow) }], ..Inventory::default() }
    }

    fn summary(shadow: Option<InstanceId>, requests: u64) -> Summary {
        let seen = UpstreamSummary {
            live: InstanceId::live(1),
            shadow,
            live_side: SideWindow { requests, ..SideWindow::default() },
            shadow_side: SideWindow { requests: 1, ..SideWindow::default() },
            paired: LogMoments { n: 1, sum: 0.5, sum_sq: 0.25 },
            agreement: Agreement::default(),
            sampled: 1,
            copied_bytes: 400,
            drops: Drops::default(),
            sample_rate: SampleRate::ALL,
            ejected: false,
            upgraded: 0,
            thinned: BTreeMap::new(),
        };
        Summary {
            generation: Generation(1),
            span_seconds: 1.0,
            upstreams: vec![seen],
            refused: 0,
            cpu_seconds: 0.0,
            capture: None,
            log: None,
        }
    }

    #[test]
    fn a_tick_without_a_report_is_unknown_and_not_empty() {
        let windows = Observer::default().close_windows(Tick(1), 5.0, &inventory(Phase::Ready));
        assert!(!windows[0].reported);
    }

    #[test]
    fn reports_within_one_tick_are_added_up() {
        let mut observer = Observer::default();
        observer.summary(summary(Some(InstanceId::live(1).shadow_of()), 3));
        observer.summary(summary(Some(InstanceId::live(1).shadow_of()), 4));
        let mut last = summary(Some(InstanceId::live(1).shadow_of()), 0);
        (last.span_seconds, last.upstreams[0].paired, last.upstreams[0].ejected) =
            (0.0, LogMoments::default(), true);
        observer.summary(last);
        let windows = observer.close_windows(Tick(1), 1.9, &inventory(Phase::Ready));
        assert_eq!((windows[0].live_side.requests, windows[0].paired.n), (7, 2));
        assert!(windows[0].held_back, "as was said last");
        assert!((windows[0].span_seconds - 2.0).abs() < 1e-12, "the span that the mirror measured");
        assert!(
            !observer.close_windows(Tick(2), 1.0, &inventory(Phase::Ready))[0].reported,
            "nothing is counted twice"
        );
    }

    #[test]
    fn a_shadow_that_is_not_ready_gives_no_pairs() {
        let mut observer = Observer::default();
        observer.summary(summary(Some(InstanceId::live(1).shadow_of()), 3));
        let windows = observer.close_windows(Tick(1), 1.0, &inventory(Phase::Restarting));
        assert_eq!((windows[0].shadow.clone(), windows[0].paired.n), (None, 0));
        assert_eq!(windows[0].live_side.requests, 3);
    }
}
