//! The configuration file while a controller runs: noticed, checked, put in force or refused as a whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use foreshadow_config::Config;
use foreshadow_model::{JournalEvent, with_causes};
use foreshadow_serve::{Done, Refusal, Refused};

use crate::deploy::Wanted;
use crate::operator::under_deploy;
use crate::run::Running;
use crate::voice::Life;

/// The key of those who are told of alarms: others are told from the moment it changes.
const ALERTS: &str = "alerts";

/// What tells a changed file from the one that was read last, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
}

/// The file of a running controller.
#[derive(Debug)]
pub(crate) struct Watched {
    path: PathBuf,
    read: Option<Stamp>,
    /// As it was at the last look, if it is not what was read.
    noticed: Option<Stamp>,
}

impl Watched {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), read: None, noticed: None }
    }

    /// The text of the file, if it changed and has come to rest: whoever writes it may be half-way, and half a file
    /// may be a valid one. `None` if there is nothing new; a file that is away for a moment is being replaced.
    fn look(&mut self) -> Option<io::Result<String>> {
        let now = stamp(&self.path)?;
        if self.read == Some(now) {
            self.noticed = None;
            return None;
        }
        (self.noticed.replace(now) == Some(now)).then(|| self.read())
    }

    /// The text of the file as it is now.
    fn read(&mut self) -> io::Result<String> {
        self.read = stamp(&self.path);
        fs::read_to_string(&self.path)
    }

    fn parse(&self, text: io::Result<String>) -> Result<Config, Refusal> {
        let refused = |reason| Refusal {
            kind: Refused::Configuration,
            reason,
            remedy: "mend the file; the configuration from before it changed stays in force".into(),
        };
        let name = self.path.display();
        let text = text.map_err(|error| refused(format!("failed to read `{name}`: {error}")))?;
        let folder = std::path::absolute(&self.path).ok();
        let folder = folder.as_deref().and_then(Path::parent).unwrap_or(Path::new("."));
        let config = foreshadow_config::parse(&text, folder)
            .map_err(|error| refused(error.in_file(name.to_string()).to_string()))?;
        foreshadow_mirror::examine(&config.policy.mirror).map_err(|error| refused(with_causes(&error)))?;
        Ok(config)
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp { modified: metadata.modified().ok(), bytes: metadata.len() })
}

/// The keys of the file that two configurations differ in, by what a change of them asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    /// A new start of the controller.
    restart: Vec<&'static str>,
    /// Nothing: in force from the next tick on.
    policy: Vec<&'static str>,
    /// Instances made anew.
    template: Vec<&'static str>,
}

impl Changes {
    fn between(old: &Config, new: &Config) -> Self {
        let differing = |pairs: &[(&'static str, bool)]| {
            pairs.iter().filter(|(_, same)| !same).map(|(key, _)| *key).collect::<Vec<_>>()
        };
        let (was, is) = (&old.policy, &new.policy);
        let (made, make) = (&old.template, &new.template);
        Self {
            restart: differing(&[
                ("service", old.service == new.service),
                ("listen", old.listen == new.listen),
                ("tick", was.tick == is.tick),
                ("platform.local.nodes", old.nodes == new.nodes),
                ("shadow.ratio", old.shadow_ratio == new.shadow_ratio),
                ("shadow.seed", old.seed_shadows == new.seed_shadows),
                ("api.listen", old.api == new.api),
                ("store", old.store == new.store),
                ("state", old.state == new.state),
                ("logs", old.logs == new.logs),
            ]),
            policy: differing(&[
                ("mode", was.mode == is.mode),
                ("mirror", was.mirror == is.mirror),
                ("probe", was.probe == is.probe),
                ("compare", was.compare == is.compare),
                ("action", was.action == is.action && old.maintenance == new.maintenance),
                ("forecast", was.forecast == is.forecast),
                ("knee", was.knee == is.knee),
                ("onExit", was.on_exit == is.on_exit),
                (ALERTS, old.alerts == new.alerts),
            ]),
            template: differing(&[
                ("platform.local.command", made.command == make.command),
                ("platform.local.workdir", made.workdir == make.workdir),
                ("platform.local.env", made.env == make.env),
                (
                    "platform.local.ready",
                    (&made.ready, made.ready_timeout) == (&make.ready, make.ready_timeout),
                ),
                ("platform.local.resources", made.resources == make.resources),
                ("platform.local.storage", made.storage == make.storage),
                ("platform.local.lives", old.lives == new.lives),
                ("shadow.env", made.shadow_env == make.shadow_env),
                ("shadow.egress", made.egress_allow == make.egress_allow),
            ]),
        }
    }

    /// What is in force now, in words.
    fn in_words(&self) -> String {
        let mut parts = Vec::new();
        if !self.policy.is_empty() {
            parts.push(format!("in force: {}", self.policy.join(", ")));
        }
        if !self.template.is_empty() {
            parts.push(format!("rolled over the lives: {}", self.template.join(", ")));
        }
        if parts.is_empty() { "nothing changed".into() } else { parts.join("; ") }
    }
}

impl Running {
    /// Looks whether the file changed. Once per tick, and not while a changed service is rolled out: one at a time.
    pub(crate) async fn look_at_file(&mut self) {
        if self.is_deploying() {
            return;
        }
        if let Some(text) = self.watched.look() {
            // Said in the log, the journal and the status; nobody asked.
            self.take_over(text).await.ok();
        }
    }

    /// Reads the file again because somebody asks for it.
    pub(crate) async fn reload(&mut self) -> Result<Done, Refusal> {
        if self.is_deploying() {
            return Err(under_deploy());
        }
        let text = self.watched.read();
        self.take_over(text).await
    }

    async fn take_over(&mut self, text: io::Result<String>) -> Result<Done, Refusal> {
        let checked = self.watched.parse(text).and_then(|new| {
            let changes = Changes::between(&self.config, &new);
            if changes.restart.is_empty() { Ok((new, changes)) } else { Err(needs_restart(&changes.restart)) }
        });
        let (new, changes) = match checked {
            Ok(accepted) => accepted,
            Err(refusal) => {
                tracing::error!(
                    error = refusal.reason,
                    "Changed configuration refused, the old one stays in force"
                );
                let change = format!("{}\n  = help: {}", refusal.reason, refusal.remedy);
                self.board.config_error(Some(change.clone()));
                self.journal(JournalEvent::Configuration { in_force: false, change }).await;
                return Err(refusal);
            }
        };
        self.board.config_error(None);
        let said = changes.in_words();
        if changes != Changes::default() {
            for warning in &new.warnings {
                tracing::warn!("{warning}");
            }
            tracing::info!(change = said, "Configuration changed");
            self.journal(JournalEvent::Configuration { in_force: true, change: said.clone() }).await;
            self.put_in_force(new, &changes);
        }
        Ok(Done { said })
    }

    fn put_in_force(&mut self, new: Config, changes: &Changes) {
        self.cycle.set_policy(new.policy.clone(), new.maintenance.clone());
        let old = std::mem::replace(&mut self.config, new);
        if changes.policy.contains(&ALERTS) {
            let life = Life { tasks: &self.tasks, cancel: &self.cancel };
            self.voice.announce(&self.config.alerts, &life);
        }
        if changes.template.is_empty() {
            return;
        }
        let lives = (old.lives != self.config.lives).then_some(self.config.lives);
        let template = self.config.template.clone();
        let wanted = Wanted { template, before: Some(old.template), lives, stand_in: None };
        self.order_deploy(changes.template.iter().map(|&key| key.to_owned()).collect(), wanted);
    }
}

fn needs_restart(keys: &[&str]) -> Refusal {
    let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    Refusal {
        kind: Refused::Configuration,
        reason: format!(
            "{} cannot change while the controller runs, so nothing of the file is taken over",
            keys.join(", ")
        ),
        remedy: "restart: `foreshadow stop`, then `foreshadow run`; or undo that part".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "service: shop\nlisten: 127.0.0.1:0\nplatform:\n  type: local\n  local: { command: [serve] }\n";

    fn config(text: &str) -> Config {
        foreshadow_config::parse(text, Path::new("/srv")).unwrap()
    }

    fn changes(new: &str) -> Changes {
        Changes::between(&config(FILE), &config(new))
    }

    #[test]
    fn a_policy_is_put_in_force_a_command_is_rolled_out_and_an_address_needs_a_restart() {
        assert_eq!(changes(FILE), Changes::default());
        let policy = changes(&format!("{FILE}mode: act\ncompare: {{ effect: 20% }}\n"));
        assert_eq!((policy.policy, policy.template), (vec!["mode", "compare"], vec![]));
        assert_eq!(changes(&FILE.replace("[serve]", "[other]")).template, ["platform.local.command"]);
        assert_eq!(changes(&FILE.replace("127.0.0.1:0", "127.0.0.1:1")).restart, ["listen"]);
        let alerts = changes(&format!("{FILE}alerts: {{ webhook: \"http://127.0.0.1:1/\" }}\n"));
        assert_eq!((alerts.policy, alerts.restart), (vec![ALERTS], vec![]), "told without a restart");
        assert_eq!(changes(&format!("{FILE}api: {{ listen: 127.0.0.1:1 }}\n")).restart, ["api.listen"]);
    }

    #[test]
    fn why_a_file_is_refused_says_where_and_has_nothing_of_the_line() {
        let text = format!("{FILE}compare: {{ effect: 15 }} # hunter2\n");
        let reason = Watched::new(Path::new("shop.yaml")).parse(Ok(text)).unwrap_err().reason;
        assert!(reason.contains("got `15`") && reason.contains("shop.yaml:6:20"), "{reason}");
        assert!(!reason.contains("hunter2"), "{reason}");
    }

    #[test]
    fn a_file_that_is_being_written_is_left_to_come_to_rest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("foreshadow.yaml");
        fs::write(&path, "a").unwrap();
        let mut watched = Watched::new(&path);
        assert!(watched.look().is_none(), "just noticed");
        fs::write(&path, "ab").unwrap();
        assert!(watched.look().is_none(), "still moving");
        assert_eq!(watched.look().unwrap().unwrap(), "ab");
        assert!(watched.look().is_none(), "read already");
        fs::remove_file(&path).unwrap();
        assert!(watched.look().is_none(), "away for a moment");
    }
}
