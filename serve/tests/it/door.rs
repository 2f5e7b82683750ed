//! The control API from both sides.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foreshadow_model::{ActionId, InstanceId};
use foreshadow_serve::{Client, ClientError, Command, Done, Refusal, Refused, Request, listen, serve};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::common::{Stage, status as report};

struct Door {
    path: PathBuf,
    stage: Stage,
    commands: mpsc::Receiver<Request>,
    cancel: CancellationToken,
    tasks: TaskTracker,
    _folder: tempfile::TempDir,
}

fn open() -> Door {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let listener = listen(&path).unwrap();
    let stage = Stage::new();
    let (sender, commands) = mpsc::channel(1);
    let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn(serve(listener, stage.readings.clone(), sender, cancel.clone()));
    Door { path, stage, commands, cancel, tasks, _folder: folder }
}

#[tokio::test]
async fn the_status_is_there_after_the_first_tick_and_not_before() {
    let door = open();
    let client = Client::new(&door.path);
    assert!(matches!(client.status().await, Err(ClientError::NotReady(_))));
    door.stage.status.send_replace(Some(Arc::new(report())));
    assert_eq!(client.status().await.unwrap(), report());
}

#[tokio::test]
async fn a_command_is_answered_once_it_is_in_force() {
    let mut door = open();
    let client = Client::new(&door.path);
    let (answer, ()) = tokio::join!(client.command(Command::Pause), async {
        let request = door.commands.recv().await.unwrap();
        assert_eq!(request.command, Command::Pause);
        request.done.send(Ok(Done { said: "paused".into() })).unwrap();
    });
    assert_eq!(answer.unwrap().said, "paused");
}

/// What a controller would hear when a client says `command`.
async fn heard(command: Command) -> Command {
    let mut door = open();
    let client = Client::new(&door.path);
    let (answer, heard) = tokio::join!(client.command(command), async {
        let request = door.commands.recv().await.unwrap();
        request.done.send(Ok(Done::default())).unwrap();
        request.command
    });
    answer.unwrap();
    heard
}

#[tokio::test]
async fn every_command_arrives_as_it_was_said() {
    let live = InstanceId::live(2);
    for command in [
        Command::Pause,
        Command::Resume,
        Command::Stop,
        Command::Reload,
        Command::Acknowledge { live: live.clone() },
        Command::Reject { live: live.clone() },
        Command::Silence { live, seconds: 90.5 },
        Command::Revert { action: None },
        Command::Revert { action: Some(ActionId(7)) },
    ] {
        assert_eq!(heard(command.clone()).await, command);
    }
}

#[tokio::test]
async fn a_refusal_arrives_with_its_kind_its_reason_and_its_remedy() {
    let mut door = open();
    let client = Client::new(&door.path);
    let refusal = Refusal { kind: Refused::Guard, reason: "paused".into(), remedy: "resume".into() };
    let (answer, ()) = tokio::join!(client.command(Command::Revert { action: None }), async {
        door.commands.recv().await.unwrap().done.send(Err(refusal.clone())).unwrap();
    });
    assert!(matches!(answer, Err(ClientError::Refused(got)) if got == refusal));
}

#[tokio::test]
async fn a_command_nobody_takes_any_more_is_refused_and_holds_nobody_up() {
    let mut door = open();
    door.commands.close();
    let client = Client::new(&door.path);
    assert!(matches!(client.command(Command::Stop).await, Err(ClientError::NotReady(_))));
    door.cancel.cancel();
    door.tasks.close();
    door.tasks.wait().await;
}

#[tokio::test]
async fn only_the_owner_may_open_the_control_socket() {
    let door = open();
    assert_eq!(std::fs::metadata(&door.path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_dead_controller_is_told_from_a_busy_one() {
    let missing = Client::new(Path::new("/nonexistent/control.sock")).status().await;
    assert!(matches!(missing, Err(ClientError::NotRunning { .. })));
}
