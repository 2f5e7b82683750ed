//! A mirror that stands alone.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use foreshadow_model::{CaptureRules, MirrorPolicy, SessionKey, Weight};

use super::mirror::{policy, sample_rate};
use super::{alerts, at_least, count, path};
use crate::error::Refusal;
use crate::file;
use crate::names::HttpUrl;
use crate::notation::{Located, Notation as _, Scalar, Text};
use crate::{Alone, AloneLive, Source};

/// Turns a file into a configuration.
pub(crate) fn alone(file: file::Alone, directory: &Path) -> Result<Alone, Refusal> {
    let rate = sample_rate(&file.rate, "rate")?;
    for bound in [&file.mirror.rate.min, &file.mirror.rate.max] {
        if bound.at.is_some() {
            let got = bound.get().write();
            return Err(Refusal::new(format!(
                "expected no `mirror.rate` without a controller to move it, got `{got}`"
            ))
            .at(bound)
            .help("write `rate: 10%` beside `lives`, or beside the `url` of one of them"));
        }
    }
    let utilisation = &file.mirror.budget.utilisation;
    if utilisation.at.is_some() {
        return Err(Refusal::new("expected no `utilisation` without a controller to measure it")
            .at(utilisation)
            .help(
                "write `timePerSecond: 2s`: the mirror measures itself how long a shadow is at its copies",
            ));
    }
    if file.lives.value.is_empty() {
        return Err(Refusal::new("expected a live, got none")
            .at(&file.lives)
            .help("write `lives: [{ url: http://127.0.0.1:9001, shadow: http://127.0.0.1:9101 }]`"));
    }
    let live = |live: file::AloneLive| {
        let weight = count(&live.weight, "weight", 0, 100)?;
        Ok(AloneLive {
            url: bare(&live.url)?,
            weight: Weight::new(u16::try_from(weight).unwrap_or(100)),
            shadow: live.shadow.as_ref().map(bare).transpose()?,
            rate: live.rate.as_ref().map(|rate| sample_rate(rate, "rate")).transpose()?.unwrap_or(rate),
            http2: live.http2,
            authorities: live.authorities.as_ref().map(|file| path(file, directory)).transpose()?,
        })
    };
    let lives_at = file.lives.at;
    let lives = file.lives.value.into_iter().map(live).collect::<Result<Vec<_>, Refusal>>()?;
    let mirror = policy(file.mirror, directory)?;
    let blocks = Blocks { listen: file.listen, capture: file.capture, log: file.log };
    let source = source(&file.source, blocks, directory)?;
    if !matches!(source, Source::Proxy { .. }) {
        unproxied(&file.source, &mirror)?;
    }
    match &source {
        Source::Proxy { .. } => {}
        Source::Capture(_) => captured(&file.source, &lives)?,
        Source::Log { .. } if lives.len() == 1 => {}
        Source::Log { .. } => {
            return Err(Refusal::new(format!("expected one live, whose log it is, got {}", lives.len()))
                .at_place(lives_at)
                .help("run a mirror for each log"));
        }
    }
    Ok(Alone {
        source,
        lives,
        mirror,
        workers: file.workers.map(|workers| count(&workers, "workers", 1, 256)).transpose()?,
        report: at_least(&file.report, "report", Duration::from_secs(1))?,
        metrics: alerts::loopback(file.metrics)?,
        state: path(&file.state, directory)?,
    })
}

/// What the file says of sources, whichever is meant.
struct Blocks {
    listen: Option<Scalar<SocketAddr>>,
    capture: Option<Located<file::Capture>>,
    log: Option<Located<file::AccessLog>>,
}

/// Where requests are taken from. What is said of another source than the one that is meant is refused.
fn source(source: &Located<file::Source>, blocks: Blocks, directory: &Path) -> Result<Source, Refusal> {
    let Blocks { listen, capture, log } = blocks;
    let meant = source.value;
    if let Some(listen) = listen.as_ref().filter(|_| meant != file::Source::Proxy) {
        let why = "expected no `listen` where users connect to the lives, not to the mirror";
        return Err(Refusal::new(why).at(listen).help("leave it out, or write `source: proxy`"));
    }
    if let Some(capture) = capture.as_ref().filter(|_| meant != file::Source::Capture) {
        return Err(Refusal::new("expected `source: capture` beside `capture`")
            .at(capture)
            .help("write `source: capture`, or leave `capture` out"));
    }
    if let Some(log) = log.as_ref().filter(|_| meant != file::Source::Log) {
        return Err(Refusal::new("expected `source: log` beside `log`")
            .at(log)
            .help("write `source: log`, or leave `log` out"));
    }
    match meant {
        file::Source::Proxy => {
            Ok(Source::Proxy { listen: listen.map_or_else(|| file::listen().0, |listen| listen.value.0) })
        }
        file::Source::Capture => {
            let capture = capture.map(|capture| capture.value).unwrap_or_default();
            Ok(Source::Capture(CaptureRules {
                interface: capture.interface.as_ref().map(interface).transpose()?,
                namespace: capture.namespace.as_ref().map(|file| path(file, directory)).transpose()?,
            }))
        }
        file::Source::Log => {
            let log = log.ok_or_else(|| {
                Refusal::new("expected a log to read with `source: log`, got none")
                    .at(source)
                    .help("write `log: { file: /var/log/nginx/access.log }`")
            })?;
            Ok(Source::Log { file: path(&log.value.file, directory)?, format: log.value.format.value.0 })
        }
    }
}

/// How the lines of a log are written, if they can be read.
pub(crate) fn log_format(
    format: &Located<Text>,
    log_format: impl Fn(&str) -> Result<(), String>,
) -> Result<(), Refusal> {
    let text = &format.value.0;
    log_format(text).map_err(|why| {
        Refusal::new(format!("expected a format that can be read, got `{text}`: {why}"))
            .at(format)
            .help("`foreshadow replay --help` has the formats; `auto` fits what most servers write unasked")
    })
}

/// The name of an interface, as the kernel lets one be.
fn interface(name: &Located<Text>) -> Result<String, Refusal> {
    const BYTES_MAX: usize = 15;
    let text = &name.value.0;
    let is_name = (1..=BYTES_MAX).contains(&text.len())
        && !text.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control());
    if is_name {
        Ok(text.clone())
    } else {
        Err(Refusal::new(format!("expected an interface such as `eth0`, got `{text}`"))
            .at(name)
            .help("`ip -brief link` lists them"))
    }
}

/// What can be captured.
fn captured(source: &Located<file::Source>, lives: &[AloneLive]) -> Result<(), Refusal> {
    let Some(live) = lives.iter().find(|live| live.url.starts_with("https:")) else { return Ok(()) };
    Err(Refusal::new(format!("expected lives without TLS to capture, got `{}`", live.url)).at(source).help(
        "what is encrypted cannot be captured: capture behind whatever ends TLS, or let the mirror end it, with `source: proxy` and `mirror.front.tls`",
    ))
}

/// What only a proxy can do.
fn unproxied(source: &Located<file::Source>, mirror: &MirrorPolicy) -> Result<(), Refusal> {
    if source.value == file::Source::Log && mirror.session == SessionKey::ClientAddress {
        return Err(Refusal::new("expected no `session` with `source: log`")
            .at(source)
            .help("a log does not say what belongs together: each line is a session of its own"));
    }
    if source.value == file::Source::Log && mirror.compare_bodies {
        return Err(Refusal::new("expected no `compareBodies` with `source: log`")
            .at(source)
            .help("a log has no bodies"));
    }
    if matches!(mirror.session, SessionKey::Cookie(_) | SessionKey::Header(_)) {
        return Err(Refusal::new("expected `session` by cookie or header only with `source: proxy`")
            .at(source)
            .help("connections are chosen before a header is read, and a log tells of none: leave `session` out, or capture by `{ clientAddress: true }`"));
    }
    if mirror.front != MirrorPolicy::default().front {
        return Err(Refusal::new("expected `mirror.front` only with `source: proxy`")
            .at(source)
            .help("it says how users are let in, and none are: they connect to the lives"));
    }
    Ok(())
}

/// An address without a path, which nobody would know what to do with.
fn bare(url: &Scalar<HttpUrl>) -> Result<String, Refusal> {
    let text = &url.get().0;
    let after = text.split_once("://").map_or(text.as_str(), |(_, after)| after);
    if after.trim_end_matches('/').contains(['/', '?', '#']) {
        return Err(
            Refusal::new("expected an address without a path, such as `http://127.0.0.1:9001`").at(url)
        );
    }
    Ok(text.clone())
}
