//! The journal: why something was or was not done.

use axum::Json;
use axum::extract::{Query, State};
use foreshadow_model::{ActionId, InstanceId, JournalEntry};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Problem, Shared, Unanswered};
use crate::records::JournalQuery;

/// Entries that are answered when nobody says how many.
const LIMIT: u32 = 100;

/// Entries that are answered at most.
const LIMIT_MAX: u32 = 5000;

/// Which entries are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub(super) struct Asked {
    /// Only of this action: `a7`.
    action: Option<String>,
    /// Only about this instance: `live-1`.
    instance: Option<String>,
    /// Only of these kinds, separated by commas: `verdict,decided,intent,outcome`.
    kinds: Option<String>,
    /// At most this many, 5000 at most; 100 if not given.
    limit: Option<u32>,
}

impl Asked {
    fn checked(self) -> Result<JournalQuery, Unanswered> {
        let action = self.action.map(|text| action(&text)).transpose()?;
        let instance = self.instance.map(|text| instance(&text)).transpose()?;
        let kinds = self.kinds.unwrap_or_default();
        let kinds = kinds.split(',').filter(|kind| !kind.is_empty()).map(str::to_owned).collect();
        let limit = self.limit.unwrap_or(LIMIT);
        if limit == 0 || LIMIT_MAX < limit {
            return Err(Unanswered::bad(format!("expected a limit from 1 to {LIMIT_MAX}, got `{limit}`")));
        }
        Ok(JournalQuery { action, instance, kinds, limit })
    }
}

fn action(text: &str) -> Result<ActionId, Unanswered> {
    let number = text.strip_prefix('a').and_then(|number| number.parse().ok());
    number
        .map(ActionId)
        .ok_or_else(|| Unanswered::bad(format!("expected an action such as `a7`, got `{text}`")))
}

pub(super) fn instance(text: &str) -> Result<InstanceId, Unanswered> {
    InstanceId::new(text)
        .map_err(|_| Unanswered::bad(format!("expected an instance such as `live-1`, got `{text}`")))
}

/// Verdicts, decisions, holds, actions and their outcomes, newest first: what `foreshadow explain` tells from.
#[utoipa::path(get, path = "/v1/journal", tag = "records", params(Asked), responses(
    (status = 200, body = Vec<JournalEntry>),
    (status = 400, body = Problem),
))]
pub(super) async fn journal(
    State(shared): State<Shared>,
    Query(asked): Query<Asked>,
) -> Result<Json<Vec<JournalEntry>>, Unanswered> {
    let query = asked.checked()?;
    shared.read(move |records| records.journal(&query)).await.map(Json)
}
