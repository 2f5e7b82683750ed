//! The rules of the history.

use std::path::Path;
use std::time::Duration;

use super::{count, path, within};
use crate::error::Refusal;
use crate::file::{self, Retention, Store};
use crate::notation::Notation as _;
use crate::{RemoteWrite, StorePolicy};

/// What is seen on a weekend has to be there on Monday; less would hardly be a history.
const LEAST: Duration = Duration::from_secs(24 * 60 * 60);

/// A hundred years: nobody means more, and sums of moments stay far from overflow.
const MOST: Duration = Duration::from_secs(36_500 * 24 * 60 * 60);

/// How the history is kept. Files of tokens are taken from `directory`.
pub(super) fn policy(store: Store, directory: &Path) -> Result<StorePolicy, Refusal> {
    let Retention { samples, minutes, hours } = store.retention;
    let kept = within(&hours, "hours", LEAST, MOST)?;
    for (other, name) in [(&samples, "samples"), (&minutes, "minutes")] {
        let span = within(other, name, LEAST, MOST)?;
        if kept < span {
            let (kept, span) = (kept.write(), span.write());
            let message = format!(
                "expected `hours` to be kept at least as long as `{name}`, got `{kept}` and `{span}`"
            );
            return Err(Refusal::new(message).at(if hours.at.is_some() { &hours } else { other }));
        }
    }
    let places: Vec<_> = store.remote_write.iter().map(|target| target.url.at).collect();
    let remote_write: Result<Vec<RemoteWrite>, _> =
        store.remote_write.into_iter().map(|target| remote_target(target, directory)).collect();
    let remote_write = remote_write?;
    for (n, target) in remote_write.iter().enumerate() {
        let is_same =
            |other: &RemoteWrite| (&other.url, &other.token_file) == (&target.url, &target.token_file);
        if remote_write[..n].iter().any(is_same) {
            return Err(Refusal::new("the same target stands in `remoteWrite` twice").at_place(places[n]));
        }
    }
    Ok(StorePolicy {
        significant_digits: store.significant_digits.get().0,
        samples: samples.into_inner(),
        minutes: minutes.into_inner(),
        hours: kept,
        remote_write,
    })
}

fn remote_target(target: file::RemoteWrite, directory: &Path) -> Result<RemoteWrite, Refusal> {
    let token_file = target.bearer_token_file.as_ref().map(|file| path(file, directory)).transpose()?;
    let batch = count(&target.batch, "batch", 100, 100_000)?;
    Ok(RemoteWrite { url: target.url.into_inner().0, token_file, batch })
}
