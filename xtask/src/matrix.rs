//! `cargo xtask matrix`: real faults, again and again, and whether probes and signals alone find them.
//!
//! A live and a shadow of a small service stand on a processor each, in cgroups and network namespaces of their own. Each
//! fault is put in as many times as asked for, with as many spans in which nothing is done. What is seen goes through the
//! same code as in the product: the helper in the cgroup, the readers of signals, the watch of the delta engine. Nobody
//! sends traffic to the pair that could tell.
//!
//! What was seen is kept, so that another way to judge can be tried on the same day of trouble: `--replay`.

mod faults;
pub(crate) mod group;
mod live;
mod network;
mod picture;
mod score;
mod stage;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use foreshadow_compare::HostWatch;
use foreshadow_model::{Resource, Window};
use nix::sys::signal::{SigSet, Signal};
use serde::{Deserialize, Serialize};

use self::faults::Fault;
use self::score::Score;
use self::stage::Stage;

/// Ticks before the first fault: the watch needs sixteen values.
const CALIBRATION_TICKS: u64 = 24;

/// Ticks a fault lasts: seven, of which the first three are 15 s at the tick of 5 s.
const FAULT_TICKS: u64 = 7;

/// Ticks after a fault in which what it left behind may be over: not counted for anybody.
const RECOVERY_TICKS: u64 = 8;

/// Ticks more that may pass until nothing is said any more.
const RECOVERY_MORE: u32 = 30;

/// Ticks of a control, before each fault.
const CONTROL_TICKS: u64 = 5;

/// How long, and what.
#[derive(Args)]
pub(crate) struct Options {
    /// How often each fault is put in.
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// Milliseconds of a tick. At the product's five seconds a whole matrix takes four hours.
    #[arg(long, default_value_t = 1000)]
    tick_ms: u64,
    /// Only faults whose name contains this; may be given more than once.
    #[arg(long)]
    only: Vec<String>,
    /// Judge what was seen and kept, instead of doing it all again.
    #[arg(long)]
    replay: Option<PathBuf>,
    /// Where to keep what is seen.
    #[arg(long, default_value = "target/matrix.jsonl")]
    keep: PathBuf,
    /// Say what is found in every tick.
    #[arg(long)]
    tell: bool,
    /// Where to draw it.
    #[arg(long, default_value = "target/matrix.svg")]
    picture: PathBuf,
}

/// What was done in a tick.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Span {
    /// Nothing, and nothing before that could still be felt.
    Calm,
    /// This fault, for the so manieth time.
    Fault {
        name: String,
        round: u32,
        /// What it wears out; `None` if it must not be called anything.
        expected: Option<Resource>,
    },
    /// It has just ended.
    Recovery,
}

/// One tick, as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) span: Span,
    /// Milliseconds that one piece of live's own work took on average.
    pub(crate) live_ms: Option<f64>,
    pub(crate) tick_seconds: f64,
    pub(crate) window: Window,
}

/// Does it all, or judges it again.
pub(crate) fn run(root: &Path, options: &Options) -> anyhow::Result<bool> {
    let seen = match &options.replay {
        Some(file) => read(file)?,
        None => perform(root, options)?,
    };
    if options.tell {
        tell(&seen);
    }
    let score = Score::of(&seen);
    println!("{score}");
    let picture = root.join(&options.picture);
    std::fs::write(&picture, picture::draw(&score))
        .with_context(|| format!("failed to draw `{}`", picture.display()))?;
    println!("drawn: {}", options.picture.display());
    Ok(true)
}

/// Every change of what is found, and every span.
fn tell(seen: &[Seen]) {
    let (mut watch, mut span, mut said) = (HostWatch::default(), None, None);
    for (tick, seen) in seen.iter().enumerate() {
        if span != Some(&seen.span) {
            println!("{tick}: {:?}", seen.span);
            span = Some(&seen.span);
        }
        let found = watch.observe(&seen.window, true, false);
        let now = found.as_ref().map(|found| (found.resource, found.scope, found.words.clone()));
        if now != said {
            println!("{tick}:   {}", found.map_or_else(|| "nothing".to_owned(), |found| found.to_string()));
            said = now;
        }
    }
}

fn perform(root: &Path, options: &Options) -> anyhow::Result<Vec<Seen>> {
    let faults: Vec<Fault> = faults::all()
        .into_iter()
        .filter(|fault| {
            options.only.is_empty() || options.only.iter().any(|only| fault.name.contains(only.as_str()))
        })
        .collect();
    let stop = stop_on_signal()?;
    let mut stage = Stage::set(root, Duration::from_millis(options.tick_ms))?;
    let file = root.join(&options.keep);
    let mut keep = File::create(&file).with_context(|| format!("failed to keep in `{}`", file.display()))?;
    let mut all = Vec::new();
    let mut watch = HostWatch::default();
    // Returns whether anything is said of the host after these ticks.
    let mut go = |stage: &mut Stage, ticks: u64, span: &Span| -> anyhow::Result<bool> {
        let mut stands = false;
        for _ in 0..ticks {
            anyhow::ensure!(
                !stop.load(Ordering::Relaxed),
                "stopped; what was seen is in `{}`",
                file.display()
            );
            let seen = stage.tick(span.clone())?;
            serde_json::to_writer(&mut keep, &seen)?;
            keep.write_all(b"\n")?;
            stands = watch.observe(&seen.window, true, false).is_some();
            all.push(seen);
        }
        Ok(stands)
    };
    eprintln!("calibrating: {CALIBRATION_TICKS} ticks");
    go(&mut stage, CALIBRATION_TICKS, &Span::Recovery)?;
    for round in 0..options.rounds {
        for fault in &faults {
            eprintln!("round {} of {}: {}", round + 1, options.rounds, fault.name);
            go(&mut stage, CONTROL_TICKS, &Span::Calm)?;
            let span = Span::Fault { name: fault.name.to_owned(), round, expected: fault.expected };
            match (fault.begin)(&mut stage) {
                Ok(end) => {
                    go(&mut stage, FAULT_TICKS, &span)?;
                    drop(end);
                }
                Err(error) => eprintln!("SKIPPED: {}: {error:#}", fault.name),
            }
            let mut stands = go(&mut stage, RECOVERY_TICKS, &Span::Recovery)?;
            // The next fault begins where nothing is said of the host.
            for _ in 0..RECOVERY_MORE {
                if stands {
                    stands = go(&mut stage, 1, &Span::Recovery)?;
                }
            }
        }
    }
    Ok(all)
}

/// Whether somebody wants this to end: what stands is to be taken down then.
fn stop_on_signal() -> anyhow::Result<Arc<AtomicBool>> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    std::thread::spawn(move || {
        if signals.wait().is_ok() {
            eprintln!("stopping with this tick");
            told.store(true, Ordering::Relaxed);
        }
    });
    Ok(stop)
}

fn read(file: &Path) -> anyhow::Result<Vec<Seen>> {
    let file = File::open(file).with_context(|| format!("failed to read `{}`", file.display()))?;
    BufReader::new(file).lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}

/// Becomes what the stage needs: the service, or a helper.
pub(crate) fn become_part(part: &Part) -> anyhow::Result<bool> {
    match part {
        Part::Live(options) => live::run(options)?,
        Part::Helper { request } => foreshadow_probe::helper_answer(request, std::io::stdout())?,
    }
    Ok(true)
}

/// The parts of the stage that are processes of their own.
#[derive(clap::Subcommand)]
pub(crate) enum Part {
    /// The service.
    Live(live::Options),
    /// The probe helper.
    Helper {
        /// What to do, as JSON.
        request: String,
    },
}
