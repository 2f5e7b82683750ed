//! What history and journal hold of a span, read once and made small: cells of a minute, medians of an hour.

use foreshadow_engine::forecast::trend::Hourly;
use foreshadow_engine::model::{InstanceId, JournalEntry, Role};
use foreshadow_engine::{Query, ReadStoreError, Reader, SeriesKey};

use super::cells::{Cells, Grid};

/// Kinds of journal entries that the report tells of.
const KINDS: [&str; 6] = ["verdict", "decided", "intent", "outcome", "operator", "deploy"];

/// Entries that are read at first; four times as many as long as the span is not covered.
const ENTRIES_FIRST: u32 = 4096;

/// Entries that are read at the most.
const ENTRIES_MAX: u32 = 1 << 20;

/// Metrics of lives that are read, beside the tests of their hosts, whose unit is a second.
const LIVE: [&str; 9] = [
    "requests",
    "errors",
    "latency_p50",
    "latency_p95",
    "cpu",
    "memory",
    "forecast_upper",
    "forecast_lead",
    "capacity",
];

/// Metrics of shadows that are read.
const SHADOW: [&str; 4] = ["requests", "cpu", "memory", "copied"];

/// A span of time in Unix milliseconds; the end is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: i64,
    pub(crate) to: i64,
}

impl Span {
    pub(crate) fn days(self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "spans of years are exact in milliseconds")]
        let ms = (self.to - self.from) as f64;
        ms / 86_400_000.0
    }

    pub(crate) fn holds(self, moment: i64) -> bool {
        self.from <= moment && moment < self.to
    }
}

/// One series.
#[derive(Clone, Debug)]
pub(super) struct Course {
    pub(super) key: SeriesKey,
    pub(super) cells: Cells,
    pub(super) hourly: Hourly,
}

/// Everything a report rests on.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// What was asked for.
    pub(super) asked: Span,
    /// From the first thing that is recorded in it to the last.
    pub(super) span: Span,
    pub(super) grid: Grid,
    /// Oldest first, up to the end of the span; those before it tell how it began.
    pub(super) entries: Vec<JournalEntry>,
    pub(super) courses: Vec<Course>,
}

impl Facts {
    /// Reads a span; `None` if nothing is recorded in it. `tell` hears how many series of how many are read.
    pub(super) fn read(
        reader: &Reader,
        asked: Span,
        mut tell: impl FnMut(usize, usize),
    ) -> Result<Option<Self>, ReadStoreError> {
        let keys: Vec<SeriesKey> = reader.series_keys()?.into_iter().filter(is_wanted).collect();
        let entries = entries(reader, asked)?;
        let mut grid = None;
        let (mut courses, mut ends) = (Vec::new(), None::<(i64, i64)>);
        for (at, key) in keys.iter().enumerate() {
            tell(at, keys.len());
            let samples = reader.series(key, asked.from, asked.to)?;
            let (Some(first), Some(last)) = (samples.first(), samples.last()) else { continue };
            ends = Some(ends.map_or((first.0, last.0), |(from, to)| (from.min(first.0), to.max(last.0))));
            let grid = *grid.get_or_insert_with(|| Grid::fitting(asked, &samples));
            let (cells, hourly) = (grid.cells(&samples), Hourly::of(samples));
            courses.push(Course { key: key.clone(), cells, hourly });
        }
        let of_journal = entries.iter().map(|entry| entry.unix_ms).filter(|moment| asked.holds(*moment));
        let moments = of_journal.chain(ends.into_iter().flat_map(|(from, to)| [from, to]));
        let (from, to) = moments.fold((i64::MAX, i64::MIN), |(a, b), at| (a.min(at), b.max(at)));
        if to < from {
            return Ok(None);
        }
        let span = Span { from, to: (to + 1).min(asked.to).max(from + 1) };
        let grid = grid.unwrap_or_else(|| Grid::fitting(asked, &[]));
        Ok(Some(Self { asked, span, grid, entries, courses }))
    }

    /// The lives that answered in the span.
    pub(super) fn lives(&self) -> Vec<InstanceId> {
        self.of(Role::Live, "requests").map(|course| course.key.instance.clone()).collect()
    }

    /// One metric of all instances of a role.
    pub(super) fn of<'a>(&'a self, role: Role, metric: &'a str) -> impl Iterator<Item = &'a Course> {
        self.courses.iter().filter(move |course| course.key.role == role && course.key.metric == metric)
    }

    /// One metric of one live.
    pub(super) fn live(&self, live: &InstanceId, metric: &str) -> Option<&Course> {
        self.courses.iter().find(|course| {
            course.key.role == Role::Live && course.key.instance == *live && course.key.metric == metric
        })
    }

    /// Requests per second of all lives.
    pub(super) fn load(&self) -> Cells {
        self.grid.sum(self.of(Role::Live, "requests").map(|course| &course.cells))
    }

    /// What users feel, in milliseconds: the p95 of every live, by the requests it answered.
    pub(super) fn users_p95(&self) -> Cells {
        let lives = self.lives();
        let pairs: Vec<(&Cells, &Cells)> = lives
            .iter()
            .filter_map(|live| {
                Some((&self.live(live, "requests")?.cells, &self.live(live, "latency_p95")?.cells))
            })
            .collect();
        self.grid.map(|at| {
            let known = pairs.iter().map(|(load, p95)| (load.at(at), p95.at(at)));
            let known = known.filter(|(load, p95)| load.is_finite() && p95.is_finite());
            let (sum, weight) =
                known.fold((0.0, 0.0), |(sum, weight), (load, p95)| (sum + load * p95, weight + load));
            sum / weight
        })
    }

    /// Processor time of lives for one request, in milliseconds.
    pub(super) fn cpu_per_request(&self) -> Cells {
        let (cpu, load) =
            (self.grid.sum(self.of(Role::Live, "cpu").map(|course| &course.cells)), self.load());
        self.grid.map(|at| if 0.0 < load.at(at) { 1000.0 * cpu.at(at) / load.at(at) } else { f64::NAN })
    }
}

fn is_wanted(key: &SeriesKey) -> bool {
    match key.role {
        Role::Live => LIVE.contains(&&*key.metric) || key.unit == "s",
        Role::Shadow => SHADOW.contains(&&*key.metric),
    }
}

/// Entries up to the end of the span and back to before its begin, oldest first.
fn entries(reader: &Reader, asked: Span) -> Result<Vec<JournalEntry>, ReadStoreError> {
    let mut limit = ENTRIES_FIRST;
    loop {
        let kinds = KINDS.iter().map(|kind| (*kind).to_owned()).collect();
        let mut entries =
            reader.journal(&Query { action: None, instance: None, kinds, limit, newest_first: true })?;
        let is_whole = u32::try_from(entries.len()).is_ok_and(|count| count < limit);
        let is_covered = entries.last().is_some_and(|oldest| oldest.unix_ms < asked.from);
        if is_whole || is_covered || ENTRIES_MAX <= limit {
            entries.reverse();
            entries.retain(|entry| entry.unix_ms < asked.to);
            return Ok(entries);
        }
        limit *= 4;
    }
}
