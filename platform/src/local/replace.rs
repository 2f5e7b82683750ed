//! Another command or environment: what runs is replaced live by live.

use std::sync::Arc;
use std::time::Duration;

use foreshadow_act::PlatformError;
use foreshadow_model::{InstanceId, Resources, Template, with_causes};

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

impl Inner {
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

    /// Ends the process of a live and starts it anew under the same name, in the same cgroup.
    async fn start_as(
        &self,
        live: &InstanceId,
        recipe: Arc<Recipe>,
        limits: Resources,
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
            if let (Some(tree), Some(paths)) = (&self.abilities.cgroups, &instance.cgroup) {
                let failed = |error| PlatformError::failed(format!("resize `{live}`"), error);
                tree.set_cpu(paths, limits.cpu).map_err(failed)?;
                tree.set_memory(paths, limits.memory).map_err(failed)?;
            }
            let node = self.node(&instance.node).or(self.settings.nodes.first());
            let Some(node) = node else { return Err(PlatformError::NoSuchInstance(live.clone())) };
            let fresh = self.member(instance, node, None, recipe);
            member.instance.resources = limits;
            member.renew(fresh);
        }
        self.write_record().await;
        self.start(live).await?;
        self.wait_ready(live).await
    }
}
