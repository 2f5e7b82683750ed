//! Commands that tell a running controller something: `stop`, `pause`, `acknowledge`, `revert` and their like.

use std::time::Duration;

use foreshadow_engine::model::{ActionId, InstanceId};
use foreshadow_engine::{Client, Command, control_socket, is_held};

use crate::args::{AlarmArgs, ControllerArgs, RevertArgs, SilenceArgs};
use crate::command::history::milliseconds;
use crate::command::{runtime, state_folder};
use crate::exit::Exit;
use crate::failure::Failure;

/// How long `stop` waits for the end.
const END: Duration = Duration::from_secs(60);

pub(crate) fn stop(args: &ControllerArgs) -> Result<Exit, Failure> {
    let state = state_folder(args)?;
    runtime()?.block_on(async {
        Client::new(&control_socket(&state)).command(Command::Stop).await?;
        eprintln!("Stopping: the mirror drains, then shadows and lives end.");
        let gone = async {
            while is_held(&state) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(END, gone).await.map_err(|_| {
            Failure::message(Exit::Failed, format!("the controller has not ended after {END:?}"))
                .remedy("press Ctrl-C twice where it runs, or end its process")
        })
    })?;
    eprintln!("Stopped.");
    Ok(Exit::Fine)
}

pub(crate) fn pause(args: &ControllerArgs) -> Result<Exit, Failure> {
    runtime()?.block_on(client(args)?.command(Command::Pause))?;
    eprintln!("Paused: no action from now on; watching goes on. `foreshadow resume` lifts it.");
    Ok(Exit::Fine)
}

pub(crate) fn resume(args: &ControllerArgs) -> Result<Exit, Failure> {
    runtime()?.block_on(client(args)?.command(Command::Resume))?;
    eprintln!("Resumed.");
    Ok(Exit::Fine)
}

/// Says something about the alarm on a live.
pub(crate) fn alarm(args: &AlarmArgs, word: fn(InstanceId) -> Command) -> Result<Exit, Failure> {
    let live = live(args)?;
    let command = word(live.clone());
    let is_acknowledged = matches!(command, Command::Acknowledge { .. });
    runtime()?.block_on(client(&args.controller)?.command(command))?;
    if is_acknowledged {
        eprintln!("Acknowledged: what {live} does now is its new normal; it is learned from here.");
    } else {
        eprintln!("Rejected: the alarm on {live} is dropped.");
    }
    Ok(Exit::Fine)
}

pub(crate) fn silence(args: &SilenceArgs) -> Result<Exit, Failure> {
    let live = live(&args.alarm)?;
    let lasts = milliseconds(&args.lasts).and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
    let Some(lasts) = lasts else {
        let message = format!("--for: expected a span such as `2h`, up to `30d`, got `{}`", args.lasts);
        return Err(Failure::message(Exit::Usage, message));
    };
    let command = Command::Silence { live: live.clone(), seconds: lasts.as_secs_f64() };
    runtime()?.block_on(client(&args.alarm.controller)?.command(command))?;
    if lasts.is_zero() {
        eprintln!("Alarms about {live} are told again.");
    } else {
        eprintln!("Nobody is told of alarms about {live} for {}; judging and acting go on.", args.lasts);
    }
    Ok(Exit::Fine)
}

fn live(args: &AlarmArgs) -> Result<InstanceId, Failure> {
    InstanceId::new(args.live.clone()).map_err(|error| {
        Failure::message(Exit::Usage, error.to_string()).remedy("`foreshadow status` lists the lives")
    })
}

pub(crate) fn revert(args: &RevertArgs) -> Result<Exit, Failure> {
    let action = args.action.as_deref().map(action_id).transpose()?;
    let done = runtime()?.block_on(client(&args.controller)?.command(Command::Revert { action }))?;
    eprintln!("Begun: {}. `foreshadow status` shows when it is done.", done.said);
    Ok(Exit::Fine)
}

pub(crate) fn reload(args: &ControllerArgs) -> Result<Exit, Failure> {
    // The file may be broken, which is for the controller to say; only its folder is needed here.
    let done = runtime()?.block_on(client(args)?.command(Command::Reload))?;
    eprintln!("{}", done.said);
    Ok(Exit::Fine)
}

fn action_id(text: &str) -> Result<ActionId, Failure> {
    text.strip_prefix('a').and_then(|number| number.parse().ok()).map(ActionId).ok_or_else(|| {
        Failure::message(Exit::Usage, format!("expected an action such as `a7`, got `{text}`"))
            .remedy("`foreshadow status` lists the actions of the last hour")
    })
}

fn client(args: &ControllerArgs) -> Result<Client, Failure> {
    Ok(Client::new(&control_socket(&state_folder(args)?)))
}
