//! An access log as a source of copies: what live was asked, and how it answered, is what its log says.
//!
//! Lines come when live has answered, so that its shadow is asked a moment later than live was. What a log does not say,
//! headers above all, the shadow does not hear.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, net::Ipv4Addr};

use http::header::HeaderValue;
use tokio::sync::mpsc;

use crate::client::Client;
use crate::copy::Candidate;
use crate::log::{Format, Logged, Origin, PaceOptions, Speed};
use crate::replay::{Event, LogSource, ReplayError, Said, Schedule, start};
use crate::server::Shared;
use crate::stats::Answer;

/// How long a pause of the log may be before it is cut: a log of now has none.
const GAP_MAX: Duration = Duration::from_secs(1);

/// The log of a live.
#[derive(Clone, Debug)]
pub struct LogRules {
    /// Where it is; followed from its end on, over rotation and truncation.
    pub file: PathBuf,
    /// How its lines are written.
    pub format: Format,
}

/// A log that could be opened, and is not read yet.
pub(crate) struct Log {
    events: mpsc::Receiver<Event>,
}

impl Log {
    /// Opens it.
    pub(crate) fn open(rules: &LogRules) -> Result<Self, ReplayError> {
        Ok(Self { events: start(&LogSource::Followed(rules.file.clone()), rules.format.clone())? })
    }

    /// Reads until it is told to end.
    pub(crate) fn start(self, shared: &Arc<Shared>) -> io::Result<JoinHandle<()>> {
        let shared = shared.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("told".into()).spawn(move || {
            let schedule =
                Schedule::new(PaceOptions { speed: Speed::ORIGINAL, gap_max: GAP_MAX, is_live: true });
            let mut reader = Reader { shared: &shared, line: 0 };
            let read = schedule.run(self.events, |said| reader.hear(said));
            shared.read(|| {
                runtime.block_on(async {
                    tokio::select! {
                        () = shared.drain.cancelled() => Ok(()),
                        result = read => result,
                    }
                })
            });
        })
    }
}

struct Reader<'a> {
    shared: &'a Shared,
    /// Each is a session of its own: a log does not say what belongs together.
    line: u64,
}

impl Reader<'_> {
    fn hear(&mut self, said: Said) {
        let Some(counts) = &self.shared.log else { return };
        match said {
            Said::Skipped(why) => {
                counts.change(|counts| *counts.skipped.entry(why.label().to_owned()).or_default() += 1);
            }
            // Nobody knows what live answered, or it did not: the client had gone (499 of nginx).
            Said::Due { logged, .. } if logged.status.is_none_or(|status| status.as_u16() == 499) => {
                counts.change(|counts| *counts.skipped.entry("no_answer".to_owned()).or_default() += 1);
            }
            Said::Due { logged, .. } => {
                counts.change(|counts| counts.requests += 1);
                self.take(&logged);
            }
        }
    }

    fn take(&mut self, logged: &Logged) {
        let table = self.shared.table();
        let Some(entry) = table.entries.first() else { return };
        let host = HeaderValue::from_str(&entry.upstream.address.to_string()).ok();
        let Some(host) = logged.host.as_ref().or(host.as_ref()) else { return };
        let Some(parts) = logged.head(logged.target.as_str(), host, Origin::Named) else { return };
        self.line += 1;
        let client = Client::new((Ipv4Addr::UNSPECIFIED, 0).into(), self.line, false);
        let candidate = Candidate { table: &table, entry, client: &client, parts: &parts, has_body: false };
        let taken = candidate.take_copy(&self.shared.sampler);
        entry.stats.offered();
        let answer =
            Answer { status: logged.status, latency: logged.latency.unwrap_or_default(), body: None };
        entry.stats.live(&answer);
        if let Some(taken) = taken {
            taken.half.answered(answer);
        }
    }
}
