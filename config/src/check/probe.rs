//! Checks of `probe`.

use std::path::PathBuf;
use std::time::Duration;

use foreshadow_model::{Bytes, NetworkProbe, PressPolicy, ProbePolicy, ProfilePolicy, StorageProbe};

use super::{at_least, percent, ratio, within};
use crate::error::Refusal;
use crate::file;

impl TryFrom<file::Probe> for ProbePolicy {
    type Error = Refusal;

    fn try_from(probe: file::Probe) -> Result<Self, Refusal> {
        let budget = within(&probe.budget, "budget", percent(0.1), percent(20.0))
            .map_err(|refusal| refusal.help("`enabled: false` turns all tests off"))?;
        let file::ProbeStorage { enabled, size, directory } = probe.storage;
        let directory = directory.map(|text| {
            let path = PathBuf::from(&text.value.0);
            let refuse = || {
                let message =
                    format!("expected an absolute path, as the instance sees it, got `{}`", text.value.0);
                Refusal::new(message).at(&text)
            };
            if path.is_absolute() { Ok(path) } else { Err(refuse()) }
        });
        let storage = StorageProbe {
            enabled,
            size: within(&size, "size", Bytes::mebi(1), Bytes::mebi(1024))?,
            directory: directory.transpose()?,
        };
        let network = NetworkProbe {
            enabled: probe.network.enabled,
            targets: probe.network.targets.into_iter().map(|target| target.0).collect(),
            peer: probe.network.peer.map(|peer| peer.0),
        };
        let profile = ProfilePolicy {
            enabled: probe.profile.enabled,
            every: at_least(&probe.profile.every, "every", Duration::from_secs(10))?,
            ballast: probe.profile.ballast,
        };
        let press = PressPolicy {
            enabled: probe.press.enabled,
            every: at_least(&probe.press.every, "every", Duration::from_secs(60))?,
            lasts: within(&probe.press.lasts, "lasts", Duration::from_secs(10), Duration::from_secs(600))?,
            share: ratio(within(&probe.press.share, "share", percent(1.0), percent(100.0))?),
        };
        Ok(Self {
            enabled: probe.enabled,
            budget: ratio(budget),
            memory: probe.memory,
            storage,
            network,
            profile,
            press,
        })
    }
}
