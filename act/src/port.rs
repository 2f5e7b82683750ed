//! The ports: what foreshadow needs of a world it can act on.

use std::error::Error;

use foreshadow_model::{Bytes, InstanceId, Inventory, MilliCpu, NodeName, Role, Weight};

/// Something the platform could not do.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// There is no such instance (any more).
    #[error("no instance is named `{0}`")]
    NoSuchInstance(InstanceId),
    /// This machine does not let us; trying again changes nothing.
    #[error("failed to {what}: not possible here, {remedy}")]
    NotPossible {
        /// What was tried.
        what: String,
        /// What would make it possible.
        remedy: String,
    },
    /// It failed now and may succeed later.
    #[error("failed to {what}")]
    Failed {
        /// What was tried.
        what: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl PlatformError {
    /// Wraps the cause of a failed `what`.
    pub fn failed(what: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed { what: what.into(), source: source.into() }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

/// A limit of a live and of its shadow; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairLimit<T> {
    /// Of the live.
    pub live: Option<T>,
    /// Of its shadow, and of those that are made for it later.
    pub shadow: Option<T>,
}

impl<T: Copy> PairLimit<T> {
    /// The same for both.
    pub fn alike(limit: Option<T>) -> Self {
        Self { live: limit, shadow: limit }
    }

    /// That of one of them.
    pub fn of(self, role: Role) -> Option<T> {
        match role {
            Role::Live => self.live,
            Role::Shadow => self.shadow,
        }
    }
}

/// Where instances run. Every call is absolute and may be repeated: asking for what is there already is a success.
pub trait Platform: Send + Sync + 'static {
    /// What is live and what shadows it, read back from the world.
    fn inventory(&self) -> impl Future<Output = Result<Inventory, PlatformError>> + Send;

    /// Sets the cpu limit of a live, and of its shadow.
    fn resize(
        &self,
        live: &InstanceId,
        cpu: PairLimit<MilliCpu>,
    ) -> impl Future<Output = Result<(), PlatformError>> + Send;

    /// Sets the memory limit of a live, and of its shadow.
    fn resize_memory(
        &self,
        live: &InstanceId,
        memory: PairLimit<Bytes>,
    ) -> impl Future<Output = Result<(), PlatformError>> + Send;

    /// Makes the number of lives `lives`. Returns when the new ones are ready, or the surplus ones have finished what
    /// they were doing and are gone.
    fn scale(&self, lives: u32) -> impl Future<Output = Result<(), PlatformError>> + Send;

    /// Ends a live, starts it anew on another node, and returns when it is ready; its shadow is made anew as well. One that
    /// stands there already is left as it is. Users are not sent elsewhere first: that is the caller's. If it does not
    /// become ready there, it is brought back to where it was.
    fn replace_on(
        &self,
        live: &InstanceId,
        node: &NodeName,
    ) -> impl Future<Output = Result<(), PlatformError>> + Send;

    /// Makes the shadow of this live anew.
    fn recreate_shadow(&self, live: &InstanceId) -> impl Future<Output = Result<(), PlatformError>> + Send;
}

/// The balancer did not take a change over.
#[derive(Debug, thiserror::Error)]
pub enum BalancerError {
    /// It is not connected; it goes on with its last weights.
    #[error("the balancer is not connected")]
    NotConnected,
    /// There is no such live behind it.
    #[error("no live is named `{0}`")]
    NoSuchLive(InstanceId),
}

/// What spreads users over the lives.
pub trait Balancer: Send + Sync + 'static {
    /// Sets the share of one live.
    fn set_weight(
        &self,
        live: &InstanceId,
        weight: Weight,
    ) -> impl Future<Output = Result<(), BalancerError>> + Send;
}
