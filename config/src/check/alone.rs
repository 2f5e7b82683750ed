//! A mirror that stands alone.

use std::path::Path;
use std::time::Duration;

use foreshadow_model::Weight;

use super::mirror::{policy, sample_rate};
use super::{alerts, at_least, count, path};
use crate::error::Refusal;
use crate::file;
use crate::names::HttpUrl;
use crate::notation::{Notation as _, Scalar};
use crate::{Alone, AloneLive};

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
    let lives = file.lives.value.into_iter().map(live).collect::<Result<_, Refusal>>()?;
    Ok(Alone {
        listen: file.listen.0,
        lives,
        mirror: policy(file.mirror, directory)?,
        workers: file.workers.map(|workers| count(&workers, "workers", 1, 256)).transpose()?,
        report: at_least(&file.report, "report", Duration::from_secs(1))?,
        metrics: alerts::loopback(file.metrics)?,
        state: path(&file.state, directory)?,
    })
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
