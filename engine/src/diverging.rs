//! Answers of shadows that differ in kind from those of their lives, by route, kept for those who ask without a
//! controller.

use std::collections::BTreeMap;
use std::path::Path;

use foreshadow_model::ROUTES_MAX;
use foreshadow_store::Reader;
use serde::{Deserialize, Serialize};

use crate::database;
use crate::history::History;

/// The name under which they are kept.
const KEY: &str = "diverging";

/// Copies after which a run knows more than the one before it: a start that saw nothing must not hide what was seen.
const COPIES_MIN: u64 = 20;

/// As it is kept.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    unix_ms: i64,
    routes: BTreeMap<String, u64>,
}

/// Writes down what this run saw, in place of what the run before it did.
pub(crate) fn keep<'a>(
    seen: impl Iterator<Item = &'a BTreeMap<String, u64>>,
    (copies, unix_ms): (u64, i64),
    history: &History,
) {
    if copies < COPIES_MIN {
        return;
    }
    history.keep(KEY, &Kept { unix_ms, routes: most(seen) });
}

/// The routes of all lives together; those with the fewest such answers are left out.
fn most<'a>(seen: impl Iterator<Item = &'a BTreeMap<String, u64>>) -> BTreeMap<String, u64> {
    let mut all: BTreeMap<String, u64> = BTreeMap::new();
    for (route, n) in seen.flatten() {
        *all.entry(route.clone()).or_default() += n;
    }
    let mut rows: Vec<(String, u64)> = all.into_iter().collect();
    rows.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    rows.truncate(ROUTES_MAX);
    rows.into_iter().collect()
}

/// Diverging answers by route, as the last controller of this state folder saw them. None if nothing was kept or it
/// cannot be read: there is nothing to go by then.
#[must_use]
pub fn remembered_diverging(state: &Path) -> BTreeMap<String, u64> {
    let kept = Reader::open(&database(state)).ok().and_then(|reader| reader.kept(KEY).ok().flatten());
    let kept = kept.and_then(|bytes| serde_json::from_slice::<Kept>(&bytes).ok());
    kept.unwrap_or_default().routes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_summed_and_only_the_worst_routes_are_kept() {
        let many: BTreeMap<String, u64> = (0..80).map(|n| (format!("/{n}"), n)).collect();
        let kept = most([&many, &BTreeMap::from([("/1".to_owned(), 1_000)])].into_iter());
        assert_eq!(kept.len(), ROUTES_MAX);
        assert_eq!(kept["/1"], 1_001);
        assert!(kept.contains_key("/79") && !kept.contains_key("/2"));
    }

    #[tokio::test]
    async fn what_a_controller_kept_is_read_without_it_and_a_start_that_saw_nothing_hides_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(remembered_diverging(folder.path()).is_empty());
        let opened =
            crate::history::open(&database(folder.path()), foreshadow_store::StoreOptions::USUAL).unwrap();
        let seen = BTreeMap::from([("/admin".to_owned(), 9)]);
        keep([&seen].into_iter(), (100, 1), &opened.history);
        keep(std::iter::empty(), (COPIES_MIN - 1, 2), &opened.history);
        drop(opened.history);
        tokio::task::spawn_blocking(|| opened.thread.join().unwrap()).await.unwrap();
        assert_eq!(remembered_diverging(folder.path()), seen);
    }
}
