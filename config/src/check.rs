//! Checks across fields, and the way from the file's types to the domain's.
//!
//! A value that is wrong on its own was refused while it was read; here are the rules that need two values, a range
//! or the directory of the file. Each refusal points at the value that can be changed.

mod action;
mod alerts;
mod alone;
mod front;
mod knee;
mod maintenance;
mod mirror;
mod platform;
mod probe;
mod scenario;
mod store;

pub(crate) use self::alone::{alone, log_format};
pub(crate) use self::mirror::redact;
pub(crate) use self::scenario::scenario;

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use foreshadow_model::{
    Balance, ComparePolicy, ForecastPolicy, Mode, OnExit, PerSecond, Policy, ProbePolicy, Ratio,
};

use crate::error::Refusal;
use crate::file::{self, File};
use crate::notation::{Located, Notation, Scalar};
use crate::{AlertPolicy, Config, LogPolicy};

/// Turns a file into a configuration.
pub(crate) fn config(file: File, directory: &Path) -> Result<Config, Refusal> {
    let tick = within(&file.tick, "tick", Duration::from_secs(1), Duration::from_secs(60))?;
    let state_at = file.state.at;
    let state = path(&file.state, directory)?;
    let local = platform::local(file.platform)?;
    let shadow_ratio = platform::ratio(&file.shadow.ratio)?;
    let sizing = action::Sizing {
        lives: local.lives,
        cpu: local.resources.cpu,
        memory: local.resources.memory,
        tick,
        shadow_ratio,
    };
    let mut warnings = Vec::new();
    let place = platform::Place { directory, state: &Located { value: state.clone(), at: state_at } };
    let seed_shadows = file.shadow.seed == file::Seed::Checkpoint;
    let knee = knee::policy(&file.knee, platform::spared(&file.shadow.egress))?;
    let maintenance: Result<Vec<_>, _> =
        file.action.maintenance.iter().map(maintenance::maintenance).collect();
    let made = platform::made(local, file.shadow, &place, &mut warnings)?;
    let action = action::policy(file.action, &sizing, &mut warnings)?;
    let mirror = mirror::policy(file.mirror, directory)?;
    if mirror.front.balance != Balance::RoundRobin {
        warnings.push(
            "`mirror.front.balance` moves users away from a slow live by itself, which hides what is to be found: \
             `roundRobin` does not"
                .to_owned(),
        );
    }
    let policy = Policy {
        mode: mode(file.mode),
        tick,
        mirror,
        probe: ProbePolicy::try_from(file.probe)?,
        compare: ComparePolicy::try_from(file.compare)?,
        action,
        forecast: ForecastPolicy::try_from(file.forecast)?,
        knee,
        on_exit: on_exit(file.on_exit),
    };
    Ok(Config {
        service: file.service.0,
        listen: file.listen.0,
        lives: made.lives,
        template: made.template,
        nodes: made.nodes,
        shadow_ratio,
        seed_shadows,
        alerts: AlertPolicy::try_from(file.alerts)?,
        api: alerts::api(file.api)?,
        policy,
        maintenance: maintenance?,
        store: store::policy(file.store, directory)?,
        state,
        logs: LogPolicy::try_from(file.logs)?,
        warnings,
    })
}

const fn mode(mode: file::Mode) -> Mode {
    match mode {
        file::Mode::Observe => Mode::Observe,
        file::Mode::Act => Mode::Act,
    }
}

const fn on_exit(on_exit: file::OnExit) -> OnExit {
    match on_exit {
        file::OnExit::Stop => OnExit::Stop,
        file::OnExit::Leave => OnExit::Leave,
    }
}

impl TryFrom<file::Compare> for ComparePolicy {
    type Error = Refusal;

    fn try_from(compare: file::Compare) -> Result<Self, Refusal> {
        let (least, most) = (percent(1.0), percent(500.0));
        let effect = within(&compare.effect, "effect", least, most)?;
        let ticks = count(&compare.ticks_between_false_alarms, "ticksBetweenFalseAlarms", 100, u32::MAX)?;
        Ok(Self { effect: ratio(effect), threshold: f64::from(ticks) })
    }
}

impl TryFrom<file::Forecast> for ForecastPolicy {
    type Error = Refusal;

    fn try_from(forecast: file::Forecast) -> Result<Self, Refusal> {
        let quantile = ratio(within(&forecast.quantile, "quantile", percent(50.0), percent(99.0))?);
        let least = PerSecond::new(0.1).unwrap_or_default();
        let capacity = forecast.capacity.as_ref().map(|capacity| at_least(capacity, "capacity", least));
        Ok(Self { capacity: capacity.transpose()?, quantile })
    }
}

impl TryFrom<file::Logs> for LogPolicy {
    type Error = Refusal;

    fn try_from(logs: file::Logs) -> Result<Self, Refusal> {
        let least = foreshadow_model::Bytes::new(64 << 10);
        let max = at_least(&logs.max_size, "maxSize", least)?;
        Ok(Self { max, keep: count(&logs.keep, "keep", 0, 1000)? })
    }
}

fn percent(percent: f64) -> crate::units::Percent {
    crate::units::Percent::of_fraction(percent / 100.0)
}

/// A percentage as a ratio; it is finite by construction, so this loses nothing.
fn ratio(percent: crate::units::Percent) -> Ratio {
    Ratio::new(percent.fraction()).unwrap_or(Ratio::ZERO)
}

/// The value, if it is in `least..=most`.
fn within<T: Notation + PartialOrd + Copy>(
    scalar: &Scalar<T>,
    name: &str,
    least: T,
    most: T,
) -> Result<T, Refusal> {
    let value = *scalar.get();
    if value < least || most < value {
        let (least, most, got) = (least.write(), most.write(), value.write());
        let message = format!("expected `{name}` between `{least}` and `{most}`, got `{got}`");
        return Err(Refusal::new(message).at(scalar));
    }
    Ok(value)
}

/// The value, if it is `least` or more.
fn at_least<T: Notation + PartialOrd + Copy>(scalar: &Scalar<T>, name: &str, least: T) -> Result<T, Refusal> {
    let value = *scalar.get();
    if value < least {
        let message = format!("expected `{name}` of `{}` or more, got `{}`", least.write(), value.write());
        return Err(Refusal::new(message).at(scalar));
    }
    Ok(value)
}

/// The count, if it is in `least..=most`.
fn count(located: &Located<u32>, name: &str, least: u32, most: u32) -> Result<u32, Refusal> {
    let value = located.value;
    if value < least || most < value {
        let message = match most {
            u32::MAX => format!("expected `{name}` of {least} or more, got {value}"),
            _ => format!("expected `{name}` between {least} and {most}, got {value}"),
        };
        return Err(Refusal::new(message).at(located));
    }
    Ok(value)
}

/// A path of the file, taken from its directory. `.` is dropped; `..` stays, since only the file system knows what
/// stands before a symbolic link.
fn path(text: &Located<crate::notation::Text>, directory: &Path) -> Result<PathBuf, Refusal> {
    if text.value.0.is_empty() {
        return Err(Refusal::new("expected a path, got an empty text").at(text));
    }
    Ok(joined(&text.value.0, directory))
}

fn joined(text: &str, directory: &Path) -> PathBuf {
    directory.join(text).components().filter(|part| *part != Component::CurDir).collect()
}

/// Whether one of the two paths is the other or lies within it, as far as their texts tell.
fn overlap(a: &Path, b: &Path) -> bool {
    let (a, b) = (lexical(a), lexical(b));
    a.starts_with(&b) || b.starts_with(&a)
}

/// The path with `..` worked off, for comparison only.
fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if out.file_name().is_some() => {
                out.pop();
            }
            _ => out.push(part),
        }
    }
    out
}
