//! What instances are made of, told apart by fingerprints.
//!
//! A controller must know after a restart which instances run what is wanted now, and how to bring back one that does
//! not: so the record holds a fingerprint per instance and, per fingerprint, what a live was made of. Not its
//! environment: secrets are in it. The kernel keeps that of a running process, and there it is read again.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use foreshadow_model::{Readiness, Resources, Template};
use serde::{Deserialize, Serialize};

/// Stands for the port in arguments and environment.
pub(crate) const PORT: &str = "$PORT";

/// Tells what one instance is made of from what another is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Fingerprint(String);

impl Fingerprint {
    /// Of an instance whose record does not say; equal to no other.
    fn unknown() -> Self {
        Self("unknown".into())
    }

    fn of(parts: &impl Serialize) -> Self {
        let text = serde_json::to_vec(parts).unwrap_or_default();
        // Half of the hash is plenty: nobody chooses templates so that they collide.
        Self(blake3::hash(&text).to_hex()[..32].to_owned())
    }
}

/// A template with what tells it from others.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) template: Template,
    /// Changes with whatever asks for a live to be started anew. How readiness is checked does not.
    pub(crate) live: Fingerprint,
    /// Changes with that, and with what only a shadow has.
    pub(crate) shadow: Fingerprint,
}

impl Recipe {
    pub(crate) fn new(template: Template) -> Self {
        let Template { command, workdir, env, resources, .. } = &template;
        let live = Fingerprint::of(&(command, workdir, env, resources));
        Self::with(live, template)
    }

    fn with(live: Fingerprint, template: Template) -> Self {
        let Template { shadow_env, storage, egress_allow, .. } = &template;
        let shadow = Fingerprint::of(&(&live, shadow_env, storage, egress_allow));
        Self { template, live, shadow }
    }

    /// For a live of which nobody knows what it was made of: as `current`, but not the same.
    pub(crate) fn unknown(current: &Self) -> Self {
        Self::with(Fingerprint::unknown(), current.template.clone())
    }
}

/// What is written down of the template of a live.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RecordedRecipe {
    command: Vec<String>,
    workdir: PathBuf,
    /// Names only, and whether the value holds the port.
    env: BTreeMap<String, bool>,
    ready: Readiness,
    ready_timeout: Duration,
    resources: Resources,
}

impl RecordedRecipe {
    pub(crate) fn of(template: &Template) -> Self {
        Self {
            command: template.command.clone(),
            workdir: template.workdir.clone(),
            env: template.env.iter().map(|(name, value)| (name.clone(), value.contains(PORT))).collect(),
            ready: template.ready.clone(),
            ready_timeout: template.ready_timeout,
            resources: template.resources,
        }
    }

    /// What the live of this process and port was made of. What shadows may do is as the operator wants it now.
    pub(crate) fn restored(&self, live: Fingerprint, pid: u32, port: u16, current: &Template) -> Recipe {
        let found = environment(pid);
        let value = |(name, holds_port): (&String, &bool)| {
            // A service that writes over its own environment leaves us with what is configured now.
            let value = match found.get(name) {
                Some(value) if *holds_port => value.replace(&port.to_string(), PORT),
                Some(value) => value.clone(),
                None => current.env.get(name)?.clone(),
            };
            Some((name.clone(), value))
        };
        let template = Template {
            command: self.command.clone(),
            workdir: self.workdir.clone(),
            env: self.env.iter().filter_map(value).collect(),
            ready: self.ready.clone(),
            ready_timeout: self.ready_timeout,
            resources: self.resources,
            ..current.clone()
        };
        Recipe::with(live, template)
    }
}

/// What a process was started with.
pub(crate) fn environment(pid: u32) -> BTreeMap<String, String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let pair = |entry: &[u8]| {
        let text = String::from_utf8_lossy(entry).into_owned();
        text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    bytes.split(|&byte| byte == 0).filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn template() -> Template {
        Template {
            command: vec!["serve".into(), PORT.into()],
            workdir: PathBuf::from("/"),
            env: [("KEY".into(), "hidden".into()), ("URL".into(), "http://here:$PORT/".into())].into(),
            shadow_env: [("MAIL".into(), String::new())].into(),
            ready: Readiness::Tcp,
            ready_timeout: Duration::from_secs(1),
            resources: Resources::default(),
            storage: Vec::new(),
            egress_allow: Vec::new(),
        }
    }

    #[test]
    fn what_only_a_shadow_has_asks_for_no_new_live_and_a_check_for_neither() {
        let old = Recipe::new(template());
        let mail = Recipe::new(Template { shadow_env: BTreeMap::new(), ..template() });
        assert!(old.live == mail.live && old.shadow != mail.shadow);
        let check = Recipe::new(Template { ready: Readiness::Http("/".into()), ..template() });
        assert!(old.live == check.live && old.shadow == check.shadow);
        let command = Recipe::new(Template { command: vec!["other".into()], ..template() });
        assert!(old.live != command.live && old.shadow != command.shadow);
    }

    #[test]
    fn the_record_of_a_recipe_holds_no_value_of_the_environment_and_the_process_gives_it_back() {
        let recipe = Recipe::new(template());
        let recorded = RecordedRecipe::of(&recipe.template);
        assert!(!serde_json::to_string(&recorded).unwrap().contains("hidden"));
        let mut process = Command::new("sleep")
            .arg("60")
            .envs([("KEY", "hidden"), ("URL", "http://here:4711/")])
            .spawn()
            .unwrap();
        // The kernel lets a parent go on a moment before it shows what the child was started with.
        while environment(process.id()).is_empty() {
            std::thread::yield_now();
        }
        let current = Template { command: vec!["other".into()], env: BTreeMap::new(), ..template() };
        let restored = recorded.restored(recipe.live.clone(), process.id(), 4711, &current);
        process.kill().unwrap();
        process.wait().unwrap();
        assert_eq!(restored.template, recipe.template);
        assert_eq!((restored.live, restored.shadow), (recipe.live, recipe.shadow));
    }
}
