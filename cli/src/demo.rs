//! `foreshadow demo`: a service falls ill and is healed; then the same with foreshadow only watching.
//!
//! Nothing here is staged. A controller is started as a user would, with a configuration file; the demo speaks to it
//! over its control socket, asks the service for items like a few hundred users, and lets a fault befall one live
//! behind everybody's back. The second act is another run from the start, so that both begin alike.

mod act;
mod controller;
pub(crate) mod load;
mod picture;
mod score;
pub(crate) mod service;
mod story;

use foreshadow_engine::model::Mode;
use serde::Serialize;
use tokio::signal;

use crate::args::DemoArgs;
use crate::command::runtime;
use crate::exit::Exit;
use crate::failure::Failure;

use act::{Played, play};
use picture::Stage;
use score::Seconds;
use story::Story;

/// The last line of `-o json`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) fault: &'static str,
    pub(crate) detected_after_s: Option<f64>,
    pub(crate) attributed_to: Option<String>,
    pub(crate) actions: Vec<String>,
    pub(crate) recovered_after_s: Option<usize>,
    pub(crate) slo_violation_s: usize,
    pub(crate) slo_violation_s_observe_only: usize,
    pub(crate) requests: usize,
    pub(crate) failed_requests: usize,
    pub(crate) mirrored_share: f64,
    pub(crate) controller_cpu_ratio: f64,
    pub(crate) seed: u64,
}

pub(crate) fn run(args: &DemoArgs) -> Result<Exit, Failure> {
    let runtime = runtime()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        tokio::select! {
            result = both(args) => result,
            _ = signal::ctrl_c() => Ok(Exit::Interrupted),
        }
    })
}

async fn both(args: &DemoArgs) -> Result<Exit, Failure> {
    let folder = tempfile::Builder::new().prefix("foreshadow-demo-").tempdir()?;
    let path = folder.path().to_path_buf();
    if args.keep {
        eprintln!("Everything is kept in {}", folder.keep().display());
    }
    let mut stage = Stage::new(args.output);
    let story = Story::of(args.fault);
    stage
        .say("start", &format!("{} Two lives serve users, each with a shadow on another node.", story.about));
    let acting = play(&story, Mode::Act, &path.join("acting"), args.seed, &mut stage).await?;
    stage.say(
        "watching",
        "Now the same again from the start, with foreshadow only watching (`mode: observe`).",
    );
    let watching = play(&story, Mode::Observe, &path.join("watching"), args.seed, &mut stage).await?;
    // What users were used to before the first act is what they expect in both.
    let objective = acting.objective;
    let (with, without) = (acting.seconds(objective), watching.seconds(objective));
    let summary = summary(args, (&acting, &with), (&watching, &without));
    stage.end(&summary, objective, (&with, &without))?;
    let healed = summary.detected_after_s.is_some() && summary.recovered_after_s.is_some();
    Ok(if healed { Exit::Fine } else { Exit::Failed })
}

fn summary(
    args: &DemoArgs,
    (acting, with): (&Played, &Seconds),
    (watching, without): (&Played, &Seconds),
) -> Summary {
    let answers = || acting.answers.iter().chain(&watching.answers);
    let last = &acting.last;
    #[expect(clippy::cast_precision_loss, reason = "counts of requests")]
    let mirrored_share = last.mirrored as f64 / last.requests.max(1) as f64;
    Summary {
        fault: args.fault.name(),
        detected_after_s: acting.watched.detected_after_s,
        attributed_to: acting.watched.attributed_to.clone(),
        actions: acting.watched.actions.clone(),
        recovered_after_s: with.recovered_after(),
        slo_violation_s: with.violations(),
        slo_violation_s_observe_only: without.violations(),
        requests: answers().count(),
        failed_requests: answers().filter(|answer| answer.failed).count(),
        mirrored_share,
        controller_cpu_ratio: last.controller_cpu_seconds / last.uptime_seconds.max(1.0),
        seed: args.seed,
    }
}
