//! The controller of a demo: its process and what it is asked.

use std::cell::RefCell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use foreshadow_engine::model::{Instance, Mode, NoShadow, StatusReport};
use foreshadow_engine::{Client, control_socket};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use super::story::Story;
use crate::exit::Exit;
use crate::failure::Failure;

/// How often the controller is asked.
pub(crate) const ASK: Duration = Duration::from_millis(200);

/// How long the controller may take to start.
const START: Duration = Duration::from_secs(40);

/// The controller's process.
pub(crate) struct Controller {
    child: RefCell<Child>,
    client: Client,
    log: PathBuf,
}

impl Controller {
    /// Starts it in a folder of its own.
    pub(crate) fn start(folder: &Path, story: &Story, mode: Mode) -> Result<Self, Failure> {
        let program = std::env::current_exe()?;
        fs::create_dir_all(folder.join("data"))?;
        let config = folder.join("foreshadow.yaml");
        fs::write(&config, story.configuration(&program, mode))?;
        let log = folder.join("controller.log");
        let file = File::create(&log)?;
        let child = Command::new(&program)
            .arg("run")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        let client = Client::new(&control_socket(&folder.join("state")));
        Ok(Self { child: RefCell::new(child), client, log })
    }

    /// The status as soon as every pair has a shadow that is ready.
    pub(crate) async fn first_status(&self) -> Result<StatusReport, Failure> {
        let until = Instant::now() + START;
        let has_shadows = |status: &StatusReport| {
            status.pairs.iter().all(|pair| pair.shadow.as_ref().is_some_and(Instance::is_ready))
        };
        loop {
            match self.client.status().await {
                Ok(status) if has_shadows(&status) => return Ok(status),
                Ok(status) if let Some(why) = without_shadow(&status) => {
                    return Err(self.broken(&format!("the sample service gets no shadow: {why}")));
                }
                _ if until < Instant::now() => {
                    return Err(self.broken("the sample service did not start in time"));
                }
                _ => {}
            }
            if let Some(status) = self.child.borrow_mut().try_wait()? {
                return Err(self.broken(&format!("the controller ended ({status})")));
            }
            sleep(ASK).await;
        }
    }

    pub(crate) async fn status(&self) -> Result<StatusReport, Failure> {
        self.client
            .status()
            .await
            .map_err(|error| self.broken(&foreshadow_engine::model::with_causes(&error)))
    }

    pub(crate) async fn stop(&self) -> Result<(), Failure> {
        self.client.command(foreshadow_engine::Command::Stop).await?;
        while self.child.borrow_mut().try_wait()?.is_none() {
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn broken(&self, what: &str) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(8).collect();
        let tail: Vec<&str> = lines.into_iter().rev().collect();
        Failure::message(Exit::Failed, format!("{what}; the controller's last words:\n{}", tail.join("\n")))
    }
}

/// Why a live has no shadow and will not have one soon.
fn without_shadow(status: &StatusReport) -> Option<String> {
    let mut lacks = status.pairs.iter().filter_map(|pair| pair.no_shadow.as_ref());
    lacks.find(|lack| **lack != NoShadow::Waiting).map(ToString::to_string)
}

impl Drop for Controller {
    /// Whatever way the demo ends, nothing of it stays: the controller ends its lives, shadows and mirror itself.
    fn drop(&mut self) {
        let child = self.child.get_mut();
        if matches!(child.try_wait(), Ok(None)) {
            if let Ok(pid) = i32::try_from(child.id()) {
                kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
            }
            child.wait().ok();
        }
    }
}
