//! Errors as people read them: what failed, why, what to do.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::Path;

use foreshadow_engine::config::ConfigError;
use foreshadow_engine::{ClientError, NotReadyError, OpenStoreError, Refused, RunError};

use crate::exit::Exit;

/// A command that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    causes: Vec<String>,
    remedy: Option<String>,
    last_words: Option<String>,
    is_closed_pipe: bool,
}

impl Failure {
    pub(crate) fn new(error: &(dyn Error + 'static)) -> Self {
        let causes = causes(error).skip(1).map(ToString::to_string).collect();
        Self { causes, ..Self::message(Exit::Failed, error.to_string()) }
    }

    pub(crate) fn message(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            causes: Vec::new(),
            remedy: None,
            last_words: None,
            is_closed_pipe: false,
        }
    }

    /// The same with another exit code.
    pub(crate) fn with_exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// What the service said last, if it did not start. May be secret: for a terminal, not for a log.
    pub(crate) fn last_words(&self) -> Option<&str> {
        self.last_words.as_deref()
    }

    /// Whoever read our output has gone: nothing to complain about.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        self.is_closed_pipe
    }

    /// The configuration file could not be read.
    pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Self {
        Self::message(Exit::Usage, format!("failed to read the configuration `{}`: {error}", path.display()))
            .remedy("give the path of the file, or write one: `config/examples/reference.yaml` explains every key")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        for cause in &self.causes {
            write!(f, "\n  because: {cause}")?;
        }
        if let Some(remedy) = &self.remedy {
            write!(f, "\n  = help: {remedy}")?;
        }
        Ok(())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { is_closed_pipe: error.kind() == io::ErrorKind::BrokenPipe, ..Self::new(&error) }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::message(Exit::Usage, error.with_line())
    }
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let remedy = match &error {
            full if is_disk_full(full) => Some(
                "make room on the disk of the state folder, or choose another `state` folder in the configuration",
            ),
            RunError::Lock(_) => Some("stop the other one first: `foreshadow stop`"),
            RunError::Mirror(_) => {
                Some("stop what listens on the address, or choose another `listen`; `foreshadow check` looks")
            }
            RunError::MirrorFiles(_) => Some("mend the file that is named, or what `mirror` says of it"),
            RunError::State { .. } => Some("choose another `state` folder in the configuration"),
            _ => None,
        };
        let last_words = causes(&error).find_map(<dyn Error>::downcast_ref).map(NotReadyError::last_words);
        let exit = if matches!(error, RunError::MirrorFiles(_)) { Exit::Usage } else { Exit::Failed };
        let failure = Self { last_words, exit, ..Self::new(&error) };
        match remedy {
            Some(remedy) => failure.remedy(remedy),
            None => failure,
        }
    }
}

/// An error and its causes.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// Whether a full disk is among the causes.
fn is_disk_full(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| {
        let is_full = |error: &io::Error| error.kind() == io::ErrorKind::StorageFull;
        cause.downcast_ref().is_some_and(is_full)
            || matches!(cause.downcast_ref(), Some(OpenStoreError::Full { .. }))
    })
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let failure = Self::new(&error);
        match error {
            ClientError::NotRunning { .. } => failure.remedy(
                "start one with `foreshadow run CONFIG`, or name its configuration with `--config` or its state folder with `--state`",
            ),
            ClientError::NotReady(_) => failure.remedy("it is starting or stopping; try again in a moment"),
            ClientError::Broken(_) => failure,
            ClientError::Refused(refusal) => {
                let exit = match refusal.kind {
                    Refused::Guard => Exit::Refused,
                    Refused::Unknown | Refused::Configuration => Exit::Usage,
                    Refused::Failed => Exit::Failed,
                };
                let failure = Self { exit, ..failure };
                if refusal.remedy.is_empty() { failure } else { failure.remedy(refusal.remedy) }
            }
        }
    }
}
