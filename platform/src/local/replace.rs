//! Another command, environment or node: what runs is replaced live by live.

use std::sync::Arc;
use std::time::Duration;

use foreshadow_act::PlatformError;
use foreshadow_model::{InstanceId, NodeName, Resources, Template, with_causes};

use super::nodes::cpu_list;
use super::recipe::Recipe;
use super::{GRACE, Inner, Local, port};

/// How long a shadow may take to end: it answers nobody, so there is nothing to finish.
const SHADOW_GRACE: Duration = Duration::from_secs(2);

impl Local {
    /// Sets what new instances are made of. Lives that run go on as they are until [`Local::replace`]; shadows of lives
    /// that need no replacement are made anew if what only shadows have is different.
    pub async fn set_template(&self, template: Template) {
        let recipe = Arc::new(Recipe::new(template));
        let _change = self.inner.change.lock().await;
        *self.inner.current() = recipe.clone();
        let outdated: Vec<InstanceId> = {
            let mut members = self.inner.members();
            let same =
                members.values_mut().filter(|member| member.is_live() && member.recipe.live == recipe.live);
            // Not what they are made of, but how their readiness is checked may be another.
            let current: Vec<InstanceId> = same
                .map(|member| {
                    member.recipe = recipe.clone();
                    member.id().shadow_of()
                })
                .collect();
            let differs =
                |id: &InstanceId| members.get(id).is_some_and(|it| it.recipe.shadow != recipe.shadow);
            current.into_iter().filter(differs).collect()
        };
        for shadow in outdated {
            self.inner.tell(&shadow, "made anew, shadows are made of something else now".into());
            self.inner.end(&shadow, SHADOW_GRACE).await;
        }
        self.inner.write_record().await;
    }

    /// Lives that are not made of what new instances are made of, also when it was changed while no controller ran.
    #[must_use]
    pub fn outdated(&self) -> Vec<InstanceId> {
        let recipe = self.inner.recipe();
        let members = self.inner.members();
        let lives = members.values().filter(|member| member.is_live() && member.recipe.live != recipe.live);
        lives.map(|member| member.id().clone()).collect()
    }

    /// Ends a live gracefully, starts it anew from what new instances are made of, and waits until it is ready; then its
    /// shadow is made anew as well. One that is not outdated is left as it is. Users are not sent elsewhere first: that
    /// is the caller's.
    ///
    /// # Errors
    /// When the new one does not become ready. The old one has been brought back then, or the error says that it could
    /// not be.
    pub async fn replace(&self, live: &InstanceId) -> Result<(), PlatformError> {
        let (inner, live) = (self.inner.clone(), live.clone());
        // Its own task: a caller that loses interest half-way must not leave a live that is neither old nor new.
        let replacing = self.inner.tasks.spawn(async move {
            let _change = inner.change.lock().await;
            inner.replace(&live).await
        });
        replacing.await.unwrap_or_else(|error| Err(PlatformError::failed("replace a live", error)))
    }
}

impl Local {
    /// Ends a live gracefully, starts it anew on another node, and waits until it is ready; then its shadow is made anew as
    /// well, on a node that is not live's. One that stands there already is left as it is.
    ///
    /// # Errors
    /// When there is no such node, or the live does not become ready there. It is back where it was then, or the error says
    /// that it could not be brought back.
    pub(super) async fn relocate(&self, live: &InstanceId, node: &NodeName) -> Result<(), PlatformError> {
        let (inner, live, node) = (self.inner.clone(), live.clone(), node.clone());
        let moving = self.inner.tasks.spawn(async move {
            let _change = inner.change.lock().await;
            inner.relocate(&live, &node).await
        });
        moving.await.unwrap_or_else(|error| Err(PlatformError::failed("move a live", error)))
    }
}

impl Inner {
    async fn relocate(&self, live: &InstanceId, node: &NodeName) -> Result<(), PlatformError> {
        let found = self
            .members()
            .get(live)
            .map(|member| (member.recipe.clone(), self.resources_owed(member), member.instance.node.clone()));
        let Some((recipe, limits, from)) = found else {
            return Err(PlatformError::NoSuchInstance(live.clone()));
        };
        if from == *node {
            return Ok(());
        }
        if self.node(node).is_none() {
            return Err(PlatformError::failed(
                format!("move `{live}`"),
                format!("no node is named `{node}`"),
            ));
        }
        self.tell(live, format!("ended, to be started anew on node {node}"));
        let Err(error) = self.start_on(live, recipe.clone(), limits, node).await else {
            self.tell(live, format!("moved from node {from} to {node}"));
            self.end(&live.shadow_of(), SHADOW_GRACE).await;
            self.wants().retry_now(live);
            return Ok(());
        };
        if self.cancel.is_cancelled() {
            return Err(error);
        }
        let why = with_causes(&error);
        tracing::warn!(error = why, instance = %live, %node, "Live does not start on another node");
        let outcome = match self.start_on(live, recipe, limits, &from).await {
            Ok(()) => format!("it is back on {from}"),
            Err(error) => format!("and it does not come back on {from}: {}", with_causes(&error)),
        };
        self.tell(live, format!("not moved, {outcome}: {why}"));
        Err(PlatformError::failed(format!("move `{live}` to node {node} ({outcome})"), why))
    }

    async fn replace(&self, live: &InstanceId) -> Result<(), PlatformError> {
        let found =
            self.members().get(live).map(|member| (member.recipe.clone(), self.resources_owed(member)));
        let Some((old, limits)) = found else {
            return Err(PlatformError::NoSuchInstance(live.clone()));
        };
        let new = self.recipe();
        if old.live == new.live {
            return Ok(());
        }
        // A size that an action gave is kept, unless the operator gives another one now.
        let is_resized = new.template.resources != old.template.resources;
        let new_limits = if is_resized { new.template.resources } else { limits };
        self.tell(live, "ended, to be started anew from the new template".into());
        let Err(error) = self.start_as(live, new, new_limits).await else {
            self.tell(live, "replaced".into());
            self.end(&live.shadow_of(), SHADOW_GRACE).await;
            self.wants().retry_now(live);
            return Ok(());
        };
        let why = with_causes(&error);
        if self.cancel.is_cancelled() {
            return Err(error);
        }
        tracing::warn!(error = why, instance = %live, "Live does not start from the new template");
        let outcome = match self.start_as(live, old, limits).await {
            Ok(()) => "the old one is back".to_owned(),
            Err(error) => format!("and the old one does not come back: {}", with_causes(&error)),
        };
        self.tell(live, format!("not replaced, {outcome}: {why}"));
        Err(PlatformError::failed(format!("replace `{live}` ({outcome})"), why))
    }

    /// Ends the process of a live and starts it anew under the same name, in the same cgroup and on the same node.
    async fn start_as(
        &self,
        live: &InstanceId,
        recipe: Arc<Recipe>,
        limits: Resources,
    ) -> Result<(), PlatformError> {
        let node = self.members().get(live).map(|member| member.instance.node.clone());
        let Some(node) = node else { return Err(PlatformError::NoSuchInstance(live.clone())) };
        self.start_on(live, recipe, limits, &node).await
    }

    /// The same, on a node that is named.
    async fn start_on(
        &self,
        live: &InstanceId,
        recipe: Arc<Recipe>,
        limits: Resources,
        node: &NodeName,
    ) -> Result<(), PlatformError> {
        let failed = |error| PlatformError::failed(format!("start `{live}`"), error);
        if let Some(member) = self.members().get_mut(live) {
            member.renews = true;
        }
        self.stop(live, GRACE).await;
        {
            let ports = self.ports();
            let mut members = self.members();
            let Some(member) = members.get_mut(live) else {
                return Err(PlatformError::NoSuchInstance(live.clone()));
            };
            let mut instance = member.instance.clone();
            instance.port = port::free(&ports).map_err(failed)?;
            let node = self.node(node).or(self.settings.nodes.first());
            let Some(node) = node else { return Err(PlatformError::NoSuchInstance(live.clone())) };
            if let (Some(tree), Some(_)) = (&self.abilities.cgroups, &instance.cgroup) {
                let failed = |error| PlatformError::failed(format!("resize `{live}`"), error);
                let (service, cpus) = (self.settings.service.as_str(), cpu_list(&node.cpus));
                tree.create(service, live.as_str(), limits, &cpus).map_err(failed)?;
            }
            instance.node = node.name.clone();
            member.instance.node = node.name.clone();
            let fresh = self.member(instance, node, None, recipe);
            member.instance.resources = limits;
            member.renew(fresh);
        }
        self.write_record().await;
        self.start(live).await?;
        self.wait_ready(live).await
    }
}
