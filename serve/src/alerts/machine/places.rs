//! Nodes and zones that speak for those who are in trouble there together.

use std::collections::{BTreeMap, BTreeSet};

use foreshadow_model::{Alarm, AlarmKind, InstanceId, Inventory, NodeName, Resource, ZoneName};

use super::{Complaint, Facts, Machine, Subject, WARN_TICKS, alarm, words};

/// What several complaints are put together by.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Node(NodeName),
    Zone(ZoneName),
}

/// One alarm of all that is complained of at a place.
pub(super) fn of_place(place: &Place, complaints: &[&Complaint]) -> Alarm {
    let accused = complaints.iter().filter_map(|complaint| complaint.accused.as_ref());
    let (instances, nodes): (Vec<InstanceId>, BTreeSet<&NodeName>) =
        accused.map(|(id, node)| (id.clone(), node)).unzip();
    let summaries: Vec<&str> = complaints.iter().map(|complaint| &*complaint.summary).collect();
    let since = complaints.iter().map(|complaint| complaint.since).min().unwrap_or_default();
    match place {
        Place::Node(node) => {
            let summary = words::node(node, &instances, &summaries);
            let alarm = alarm(AlarmKind::NodeSuspect, node.as_str(), since, summary);
            Alarm { instances, node: Some(node.clone()), ..alarm }
        }
        Place::Zone(zone) => {
            let nodes: Vec<&NodeName> = nodes.into_iter().collect();
            let summary = words::zone(zone, &nodes, &instances, &summaries);
            let alarm = alarm(AlarmKind::ZoneSuspect, zone.as_str(), since, summary);
            Alarm { instances, zone: Some(zone.clone()), ..alarm }
        }
    }
}

impl Machine {
    /// Nodes and zones in which several lives show the same. Of a node it is over when none there shows anything, of a zone when none
    /// there shows that resource. A zone speaks for its nodes, unless they have an event of their own.
    pub(super) fn places(&mut self, facts: &Facts<'_>) {
        let (inventory, report) = (facts.inventory, facts.report);
        let shows_long =
            |live: &InstanceId| self.streaks.get(live).is_some_and(|streak| WARN_TICKS <= streak.host);
        let lasts = |lives: &[InstanceId]| lives.iter().any(shows_long);
        let mut nodes: BTreeSet<&NodeName> = BTreeSet::new();
        let mut zones: BTreeSet<(&ZoneName, Resource)> = BTreeSet::new();
        for assessment in &report.assessments {
            let Some(finding) = assessment.host.as_ref() else { continue };
            let Some(pair) = inventory.pair(&assessment.live) else { continue };
            nodes.insert(&pair.live.node);
            zones.extend(inventory.zone(&pair.live.node).map(|zone| (zone, finding.resource)));
        }
        let mut said: BTreeMap<Subject, Vec<String>> = BTreeMap::new();
        for event in report.zone_events.iter().filter(|event| lasts(&event.instances)) {
            let subject = Subject::Zone(event.zone.clone(), event.resource);
            said.entry(subject).or_default().push(words::zone_event(event));
        }
        for event in report.node_events.iter().filter(|event| lasts(&event.instances)) {
            said.entry(Subject::Node(event.node.clone())).or_default().push(words::node_event(event));
        }
        for (subject, words) in said {
            self.set(subject, Some(AlarmKind::Host), report.unix_ms, || (words.join("; "), None));
        }
        let speaking: BTreeSet<ZoneName> =
            self.complaints.keys().filter_map(Subject::zone).cloned().collect();
        self.complaints.retain(|subject, _| match subject {
            Subject::Zone(zone, resource) => zones.contains(&(zone, *resource)),
            Subject::Node(node) => {
                let has_own = report.node_events.iter().any(|event| event.node == *node);
                let is_spoken_for = inventory.zone(node).is_some_and(|zone| speaking.contains(zone));
                nodes.contains(node) && (has_own || !is_spoken_for)
            }
            _ => true,
        });
    }

    /// Which nodes and zones speak for those that are accused there.
    pub(super) fn group(&mut self, inventory: &Inventory) {
        let mut accused: BTreeMap<NodeName, usize> = BTreeMap::new();
        for (_, node) in self.complaints.values().filter_map(|complaint| complaint.accused.as_ref()) {
            *accused.entry(node.clone()).or_default() += 1;
        }
        let several = accused.iter().filter(|(_, all)| 2 <= **all).map(|(node, _)| node.clone());
        self.nodes.retain(|node| accused.contains_key(node));
        self.nodes.extend(several);
        let sick: BTreeSet<NodeName> = accused.into_keys().collect();
        let zones: BTreeSet<&ZoneName> = sick.iter().filter_map(|node| inventory.zone(node)).collect();
        self.zones.retain(|zone| zones.contains(zone));
        self.zones.extend(inventory.zones_in_trouble(&sick).into_keys());
    }

    pub(super) fn place(&self, complaint: &Complaint, inventory: &Inventory) -> Option<Place> {
        let (_, node) = complaint.accused.as_ref()?;
        let zone = inventory.zone(node).filter(|zone| self.zones.contains(zone));
        zone.cloned()
            .map(Place::Zone)
            .or_else(|| self.nodes.contains(node).then(|| Place::Node(node.clone())))
    }
}
