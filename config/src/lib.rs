//! The configuration file: parsed, checked across fields, turned into domain types.
//!
//! [`parse`] is the whole of it: text in, [`Config`] or [`ConfigError`] out; no file is read and no machine asked.
//! A refusal always names a line and a column. [`schema`] describes the file for editors, from the same types that
//! read it.

mod check;
mod error;
mod file;
mod maintenance;
mod names;
mod notation;
mod units;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use foreshadow_model::{
    Bytes, CaptureRules, LocalNode, MirrorPolicy, Policy, Ratio, RedactPolicy, SampleRate, Scenario,
    ServiceName, Template, Weight,
};
use serde::de::DeserializeOwned;

pub use self::error::ConfigError;
use self::error::Refusal;
use self::file::File;
pub use self::maintenance::Maintenance;

/// A checked configuration file. Every path in it is absolute if the directory given to [`parse`] was.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The name of the service.
    pub service: ServiceName,
    /// Where users connect. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Lives to begin with, within the floor and the ceiling of the policy.
    pub lives: u32,
    /// How an instance is made.
    pub template: Template,
    /// Sets of processors that stand for hosts, disjoint; `None` leaves it to the platform.
    pub nodes: Option<Vec<LocalNode>>,
    /// Shadows per live, above 0 up to 1.
    pub shadow_ratio: Ratio,
    /// Whether new shadows begin with the memory of their live.
    pub seed_shadows: bool,
    /// Whom to tell of alarms.
    pub alerts: AlertPolicy,
    /// Where the API for dashboards and scrapers is served, a loopback address; `None` is nowhere.
    pub api: Option<SocketAddr>,
    /// The operator's rules.
    pub policy: Policy,
    /// Times in which nothing is done.
    pub maintenance: Vec<Maintenance>,
    /// How the history is kept.
    pub store: StorePolicy,
    /// The folder of history, journal, logs and sockets.
    pub state: PathBuf,
    /// Logs of the instances.
    pub logs: LogPolicy,
    /// What is allowed and yet hardly meant. One sentence each, for the operator to see.
    pub warnings: Vec<String>,
}

/// A checked file of a mirror that stands alone. Every path in it is absolute if the directory given was.
#[derive(Clone, Debug, PartialEq)]
pub struct Alone {
    /// Where requests are taken from.
    pub source: Source,
    /// Where they go; one or more.
    pub lives: Vec<AloneLive>,
    /// What is copied, and how users are let in. Its rates are nobody's.
    pub mirror: MirrorPolicy,
    /// Threads that serve users; `None` leaves it to the machine.
    pub workers: Option<u32>,
    /// How often it is told what happened.
    pub report: Duration,
    /// Where metrics are served, a loopback address; `None` is nowhere.
    pub metrics: Option<SocketAddr>,
    /// The folder of its socket.
    pub state: PathBuf,
}

/// Where such a mirror takes requests from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Users connect to it.
    Proxy {
        /// Where. Port 0 lets the system choose.
        listen: SocketAddr,
    },
    /// It reads what users and lives say to each other.
    Capture(CaptureRules),
    /// It reads what the log of its one live says.
    Log {
        /// Where it is.
        file: PathBuf,
        /// How its lines are written.
        format: String,
    },
}

/// A live of such a mirror, and its shadow.
#[derive(Clone, Debug, PartialEq)]
pub struct AloneLive {
    /// Its address, `http` or `https`, without a path.
    pub url: String,
    /// Its share of requests.
    pub weight: Weight,
    /// The address of its shadow.
    pub shadow: Option<String>,
    /// The share of its sessions that is mirrored.
    pub rate: SampleRate,
    /// Whether it and its shadow are spoken to by HTTP/2.
    pub http2: bool,
    /// PEM file of the authorities that may have signed their certificates; `None` are those that the system trusts.
    pub authorities: Option<PathBuf>,
}

/// How much of the logs of one instance is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPolicy {
    /// Size at which a log is put aside.
    pub max: Bytes,
    /// Logs put aside that are kept.
    pub keep: u32,
}

/// How the history is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorePolicy {
    /// Significant decimal digits of every value, 1 to 15; `None` is every bit.
    pub significant_digits: Option<u8>,
    /// How long samples are kept.
    pub samples: Duration,
    /// How long roll-ups of a minute are kept.
    pub minutes: Duration,
    /// How long roll-ups of an hour are kept, at least as long as the others.
    pub hours: Duration,
    /// Where every sample is written to besides.
    pub remote_write: Vec<RemoteWrite>,
}

/// One target of remote write.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteWrite {
    /// Where to `POST`, an `http` or `https` address.
    pub url: String,
    /// A file with a bearer token.
    pub token_file: Option<PathBuf>,
    /// Samples of one request, some more or less.
    pub batch: u32,
}

impl fmt::Debug for RemoteWrite {
    /// Without the address, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url: _, token_file, batch } = self;
        write!(f, "RemoteWrite {{ url: .., token_file: {token_file:?}, batch: {batch} }}")
    }
}

/// Whom to tell of alarms.
#[derive(Clone, PartialEq, Eq)]
pub struct AlertPolicy {
    /// Where to `POST` alarms, an `http` or `https` address.
    pub webhook: Option<String>,
    /// Address of an Alertmanager, without the path of its API.
    pub alertmanager: Option<String>,
    /// How often Alertmanager is told again of an alarm that lasts.
    pub repeat: Duration,
}

impl fmt::Debug for AlertPolicy {
    /// Without the addresses: many a webhook has its password in them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = |url: &Option<String>| if url.is_some() { "Some(..)" } else { "None" };
        let (webhook, alertmanager) = (given(&self.webhook), given(&self.alertmanager));
        write!(
            f,
            "AlertPolicy {{ webhook: {webhook}, alertmanager: {alertmanager}, repeat: {:?} }}",
            self.repeat
        )
    }
}

/// Reads the text of a configuration file that stands in `directory`. Relative paths are taken from there.
///
/// # Errors
/// [`ConfigError`] with the first thing that is wrong: not YAML, an unknown or duplicate key, a value without its
/// unit, or values that contradict each other.
pub fn parse(text: &str, directory: &Path) -> Result<Config, ConfigError> {
    from_yaml::<File>(text)
        .and_then(|file| check::config(file, directory))
        .map_err(|refusal| ConfigError::of_refusal(refusal, text))
}

fn from_yaml<T: DeserializeOwned>(text: &str) -> Result<T, Refusal> {
    // `yes` and `on` are text, as YAML 1.2 has it; otherwise `KEY: no` would reach a service as `false`.
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    Ok(serde_saphyr::from_str_with_options(text, options)?)
}

/// Reads the text of the file of a mirror that stands alone, as [`parse`] does. Whoever reads logs says with `log_format`
/// what is wrong with a format.
///
/// # Errors
/// As [`parse`].
pub fn parse_alone(
    text: &str,
    directory: &Path,
    log_format: impl Fn(&str) -> Result<(), String>,
) -> Result<Alone, ConfigError> {
    from_yaml::<file::Alone>(text)
        .and_then(|file| {
            if let Some(log) = &file.log {
                check::log_format(&log.value.format, log_format)?;
            }
            check::alone(file, directory)
        })
        .map_err(|refusal| ConfigError::of_refusal(refusal, text))
}

/// Reads the text of a file that holds nothing but what may stand at `mirror.redact`.
///
/// # Errors
/// As [`parse`].
pub fn parse_redact(text: &str, directory: &Path) -> Result<RedactPolicy, ConfigError> {
    from_yaml::<file::Redact>(text)
        .and_then(|redact| check::redact(redact, directory))
        .map_err(|refusal| ConfigError::of_refusal(refusal, text))
}

/// Reads the text of a story for the simulator, as [`parse`] does; with the times in which nothing is done.
///
/// # Errors
/// As [`parse`].
pub fn parse_scenario(text: &str, directory: &Path) -> Result<(Scenario, Vec<Maintenance>), ConfigError> {
    from_yaml::<file::Scenario>(text)
        .and_then(|file| check::scenario(file, directory))
        .map_err(|refusal| ConfigError::of_refusal(refusal, text))
}

/// Bytes as the file writes them: `16Mi`; `None` for anything else.
#[must_use]
pub fn parse_bytes(text: &str) -> Option<foreshadow_model::Bytes> {
    notation::Notation::read(text)
}

/// The JSON Schema of the file, committed as `schemas/config.schema.json`.
#[must_use]
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(File)
}

/// The JSON Schema of the file of a mirror that stands alone, committed as `schemas/mirror.schema.json`.
#[must_use]
pub fn alone_schema() -> schemars::Schema {
    schemars::schema_for!(file::Alone)
}

/// The JSON Schema of a story for the simulator, committed as `schemas/scenario.schema.json`.
#[must_use]
pub fn scenario_schema() -> schemars::Schema {
    schemars::schema_for!(file::Scenario)
}

#[cfg(test)]
mod tests;
