//! `foreshadow amplify`: more load for a shadow than live has.

use std::time::Duration;

use foreshadow_engine::mirror::tell;
use foreshadow_engine::mirror_socket;
use foreshadow_engine::model::InstanceId;
use foreshadow_engine::model::wire::{AMPLIFY_FACTOR_MAX, AMPLIFY_LASTS_MAX, ToMirror};

use crate::args::AmplifyArgs;
use crate::command::mirror::read;
use crate::command::replay::span;
use crate::command::runtime;
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
    let config = read(&args.config)?;
    let socket = mirror_socket(&config);
    let say = async |factor, lasts| {
        let order = ToMirror::Amplify { live: live.clone(), factor, lasts };
        tell(&socket, &order).await.map_err(|error| {
            Failure::new(&error)
                .remedy("start it with `foreshadow mirror`; a mirror of a controller is led by that alone")
        })
    };
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

fn factor(text: &str) -> Result<f64, Failure> {
    let factor = text.strip_suffix('x').and_then(|number| number.parse::<f64>().ok());
    factor.filter(|factor| 1.0 < *factor && *factor <= AMPLIFY_FACTOR_MAX).ok_or_else(|| {
        Failure::message(
            Exit::Usage,
            format!("expected a factor above 1 and up to 100 such as `4x`, got `{text}`"),
        )
    })
}
