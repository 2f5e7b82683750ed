//! `foreshadow amplify`: more load for a shadow than live has.

use std::path::PathBuf;
use std::time::Duration;

use foreshadow_engine::mirror::tell;
use foreshadow_engine::model::InstanceId;
use foreshadow_engine::model::wire::{AMPLIFY_FACTOR_MAX, AMPLIFY_LASTS_MAX, Amplification, ToMirror};
use foreshadow_engine::{Client, Command, control_socket, mirror_socket};

use crate::args::{AmplifyArgs, ControllerArgs};
use crate::command::mirror::read;
use crate::command::replay::span;
use crate::command::{runtime, state_folder};
use crate::exit::Exit;
use crate::failure::Failure;

pub(crate) fn amplify(args: &AmplifyArgs) -> Result<Exit, Failure> {
    let factor = factor(&args.factor)?;
    let lasts = span("--for", &args.lasts)?;
    if AMPLIFY_LASTS_MAX < lasts {
        return Err(Failure::message(
            Exit::Usage,
            format!("expected `--for` of `10m` at most, got `{}`", args.lasts),
        ));
    }
    let live = args.live.clone().map(InstanceId::new).transpose().map_err(|error| {
        Failure::message(Exit::Usage, error.to_string()).remedy("the first of the file's lives is `live-1`")
    })?;
    let leader = Leader::of(args)?;
    let say = async |factor, lasts| leader.say(live.clone(), factor, lasts).await;
    runtime()?.block_on(async {
        say(factor, lasts).await?;
        eprintln!("Copies are multiplied by {factor} for {lasts:?}; the report of the mirror shows how its shadows fare. Ctrl-C ends it.");
        tokio::select! {
            interrupt = tokio::signal::ctrl_c() => {
                interrupt?;
                say(1.0, Duration::ZERO).await?;
                eprintln!("Ended.");
                Ok(Exit::Interrupted)
            }
            () = tokio::time::sleep(lasts) => Ok(Exit::Fine),
        }
    })
}

/// Who tells the mirror what to do.
enum Leader {
    /// Its controller, by this socket.
    Controller(PathBuf),
    /// Nobody but its file: it is told itself.
    Nobody(PathBuf),
}

impl Leader {
    /// The leader of the mirror whose file this is, or the controller's.
    fn of(args: &AmplifyArgs) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(&args.config)
            .map_err(|error| Failure::unreadable(&args.config, &error))?;
        // Only the file of a controller names a service.
        if text.lines().any(|line| line.starts_with("service:")) {
            let controller = ControllerArgs { config: args.config.clone(), state: None };
            return Ok(Self::Controller(control_socket(&state_folder(&controller)?)));
        }
        let config = read(&args.config)?;
        let lives = 1..=u32::try_from(config.lives.len()).unwrap_or(u32::MAX);
        let is_known = |live: &String| lives.clone().any(|n| InstanceId::live(n).to_string() == *live);
        if let Some(live) = args.live.as_ref().filter(|live| !is_known(live)) {
            let message = format!("no live is named `{live}`");
            return Err(
                Failure::message(Exit::Usage, message).remedy("the first of the file's lives is `live-1`")
            );
        }
        Ok(Self::Nobody(mirror_socket(&config)))
    }

    async fn say(&self, live: Option<InstanceId>, factor: f64, lasts: Duration) -> Result<(), Failure> {
        match self {
            Self::Controller(socket) => {
                let command = Command::Amplify { live, factor, seconds: lasts.as_secs_f64() };
                Ok(Client::new(socket).command(command).await.map(drop)?)
            }
            Self::Nobody(socket) => {
                let order = ToMirror::Amplify { live, by: Amplification::Factor(factor), lasts };
                let told = tell(socket, &order).await;
                told.map_err(|error| Failure::new(&error).remedy("start it with `foreshadow mirror`"))
            }
        }
    }
}

fn factor(text: &str) -> Result<f64, Failure> {
    let factor = text.strip_suffix('x').and_then(|number| number.parse::<f64>().ok());
    factor.filter(|factor| 1.0 < *factor && *factor <= AMPLIFY_FACTOR_MAX).ok_or_else(|| {
        Failure::message(
            Exit::Usage,
            format!("expected a factor above 1 and up to 100 such as `4x`, got `{text}`"),
        )
    })
}
