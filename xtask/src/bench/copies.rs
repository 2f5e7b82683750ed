//! What a mirror says of its copies.

use std::fmt;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::server::Server;

/// What became of the copies.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Copies {
    requests: u64,
    sampled: u64,
    paired: u64,
    dropped: u64,
}

impl Copies {
    /// What a mirror has said so far; waits for the report that has the last of it.
    pub(crate) fn of(server: &Server) -> anyhow::Result<Self> {
        sleep(Duration::from_millis(1500));
        let Some(file) = &server.report else { return Ok(Self::default()) };
        let text =
            std::fs::read_to_string(file).with_context(|| format!("failed to read `{}`", file.display()))?;
        let mut sum = Self::default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            let line: Value = serde_json::from_str(line)?;
            let seen = &line["summary"]["upstreams"][0];
            let count = |value: &Value| value.as_u64().unwrap_or(0);
            sum.requests += count(&seen["liveSide"]["requests"]);
            sum.sampled += count(&seen["sampled"]);
            sum.paired += count(&seen["agreement"]["same"]);
            sum.dropped += seen["drops"].as_object().map_or(0, |drops| drops.values().map(count).sum());
        }
        Ok(sum)
    }

    pub(crate) fn less(self, before: Self) -> Self {
        Self {
            requests: self.requests - before.requests,
            sampled: self.sampled - before.sampled,
            paired: self.paired - before.paired,
            dropped: self.dropped - before.dropped,
        }
    }
}

impl fmt::Display for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "counts of one run")]
        let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
        write!(
            f,
            "{:.1} % sampled; of those {:.1} % compared, {:.1} % dropped",
            percent(self.sampled, self.requests),
            percent(self.paired, self.sampled),
            percent(self.dropped, self.sampled)
        )
    }
}
