//! What the mirror shall do: lives, weights, shadows, rates; pushed whole whenever it changes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foreshadow_act::{Balancer, BalancerError};
use foreshadow_model::wire::{Routing, ShadowTarget, Upstream};
use foreshadow_model::{
    Generation, Instance, InstanceId, Inventory, MirrorPolicy, SampleRate, Speech, Weight,
};
use tokio::sync::watch;

/// The wanted routing. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Plane {
    state: Arc<Mutex<State>>,
    routing: watch::Sender<Routing>,
}

#[derive(Debug, Default)]
struct State {
    weights: BTreeMap<InstanceId, Weight>,
    rates: BTreeMap<InstanceId, SampleRate>,
    inventory: Inventory,
}

impl Plane {
    pub(crate) fn new(policy: &MirrorPolicy, tick: Duration) -> Self {
        let routing = Routing {
            generation: Generation(0),
            upstreams: Vec::new(),
            front: policy.front.clone(),
            copies: policy.clone().into(),
            summary_every: tick,
        };
        Self { state: Arc::default(), routing: watch::Sender::new(routing) }
    }

    /// Takes over shares of traffic that an earlier controller set.
    pub(crate) fn restore(&self, weights: BTreeMap<InstanceId, Weight>) {
        self.lock().weights = weights;
    }

    /// Other rules for users and copies, for every request from now on.
    pub(crate) fn set_policy(&self, policy: &MirrorPolicy) {
        self.amend(|routing| &mut routing.copies, policy.clone().into());
        self.amend(|routing| &mut routing.front, policy.front.clone());
    }

    /// Follows the wanted routing.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Routing> {
        self.routing.subscribe()
    }

    /// Makes sure the next routing is newer than one a mirror has already.
    pub(crate) fn at_least(&self, generation: Generation) {
        self.routing.send_if_modified(|routing| {
            let older = routing.generation <= generation;
            if older {
                routing.generation = generation.next();
            }
            older
        });
    }

    /// Shares of traffic; a live that is not listed has a full one.
    pub(crate) fn weights(&self) -> BTreeMap<InstanceId, Weight> {
        self.lock().weights.clone()
    }

    pub(crate) fn rate(&self, live: &InstanceId) -> SampleRate {
        self.lock().rates.get(live).copied().unwrap_or_default()
    }

    pub(crate) fn rates(&self) -> BTreeMap<InstanceId, SampleRate> {
        self.lock().rates.clone()
    }

    /// Takes over what is there and how much of it is mirrored.
    pub(crate) fn update(&self, inventory: &Inventory, rates: BTreeMap<InstanceId, SampleRate>) {
        let mut state = self.lock();
        state.weights.retain(|live, _| inventory.pair(live).is_some());
        state.inventory = inventory.clone();
        state.rates = rates;
        self.push(&state);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, state: &State) {
        self.amend(|routing| &mut routing.upstreams, upstreams(state));
    }

    /// Sets a part of the routing. One that was another before makes it a newer routing, which is pushed.
    fn amend<T: PartialEq>(&self, part: impl FnOnce(&mut Routing) -> &mut T, value: T) {
        self.routing.send_if_modified(|routing| {
            let part = part(routing);
            let changed = *part != value;
            if changed {
                *part = value;
                routing.generation = routing.generation.next();
            }
            changed
        });
    }
}

impl Balancer for Plane {
    async fn set_weight(&self, live: &InstanceId, weight: Weight) -> Result<(), BalancerError> {
        let mut state = self.lock();
        if state.inventory.pair(live).is_none() {
            return Err(BalancerError::NoSuchLive(live.clone()));
        }
        state.weights.insert(live.clone(), weight);
        self.push(&state);
        Ok(())
    }
}

fn upstreams(state: &State) -> Vec<Upstream> {
    let ready: Vec<_> = state.inventory.pairs.iter().filter(|pair| pair.live.is_ready()).collect();
    // With nobody ready the mirror keeps trying the ones there are: a refused connection beats a certain 503.
    let pairs = if ready.is_empty() { state.inventory.pairs.iter().collect() } else { ready };
    pairs
        .into_iter()
        .map(|pair| Upstream {
            id: pair.live.id.clone(),
            address: address(&pair.live),
            speech: Speech::default(),
            weight: state.weights.get(&pair.live.id).copied().unwrap_or(Weight::FULL),
            shadow: pair.shadow.as_ref().filter(|shadow| shadow.is_ready()).map(|shadow| ShadowTarget {
                id: shadow.id.clone(),
                address: address(shadow),
                netns: shadow.netns.clone(),
                speech: Speech::default(),
            }),
            sample_rate: state.rates.get(&pair.live.id).copied().unwrap_or_default(),
        })
        .collect()
}

fn address(instance: &Instance) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], instance.port))
}
