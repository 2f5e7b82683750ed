//! How users are let in.

use std::path::Path;
use std::time::Duration;

use foreshadow_model::{Balance, Forwarded, FrontRules, Patience, TlsFiles};

use super::{count, path, within};
use crate::error::Refusal;
use crate::file;
use crate::notation::Scalar;

/// The rules, with paths taken from the folder of the file.
pub(super) fn rules(front: file::Front, directory: &Path) -> Result<FrontRules, Refusal> {
    let tls = |tls: file::Tls| {
        Ok::<_, Refusal>(TlsFiles {
            certificate: path(&tls.certificate, directory)?,
            key: path(&tls.key, directory)?,
        })
    };
    let hour = Duration::from_secs(3600);
    Ok(FrontRules {
        tls: front.tls.map(tls).transpose()?,
        proxy_protocol: front.proxy_protocol,
        forwarded: match front.forwarded {
            file::ForwardedKind::Append => Forwarded::Append,
            file::ForwardedKind::Replace => Forwarded::Replace,
            file::ForwardedKind::Keep => Forwarded::Keep,
        },
        balance: match front.balance {
            file::BalanceKind::RoundRobin => Balance::RoundRobin,
            file::BalanceKind::LeastLoaded => Balance::LeastLoaded,
            file::BalanceKind::Hash => Balance::Hash,
        },
        slow_start: within(&front.slow_start, "slowStart", Duration::ZERO, hour)?,
        patience: patience(&front.timeouts)?,
        connections: count(&front.connections, "connections", 1, u32::MAX)?,
        in_flight: count(&front.in_flight, "inFlight", 1, u32::MAX)?,
    })
}

fn patience(timeouts: &file::Patience) -> Result<Patience, Refusal> {
    let span = |scalar: &Scalar<Duration>, name: &str| {
        within(scalar, name, Duration::from_millis(1), Duration::from_secs(24 * 3600))
    };
    Ok(Patience {
        connect: span(&timeouts.connect, "connect")?,
        answer: span(&timeouts.answer, "answer")?,
        stall: span(&timeouts.stall, "stall")?,
        idle: span(&timeouts.idle, "idle")?,
    })
}
