//! The reading routes: the same over TCP and over the control socket.

mod events;
mod history;
mod journal;
mod promql;
mod state;

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::Router;
use foreshadow_model::StatusReport;
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder};
use utoipa::{OpenApi as _, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::alerts::Desk;
use crate::feed::Feed;
use crate::records::{Records, RecordsError};
use crate::remote_write::Remotes;

/// Readings of history and journal at the same time, at most: they share two cores with what they report on.
const READS: usize = 2;

/// What can be read.
#[derive(Clone)]
pub struct Readings {
    /// The status; `None` before the first tick.
    pub status: watch::Receiver<Option<Arc<StatusReport>>>,
    /// Cycles as they end.
    pub feed: Feed,
    /// Alarms.
    pub desk: Desk,
    /// History and journal.
    pub records: Arc<dyn Records>,
    /// What becomes of the samples that are written elsewhere.
    pub remotes: Remotes,
    /// The name of the service, a label of every series.
    pub service: String,
    /// The clock, in Unix milliseconds.
    pub unix_ms: fn() -> i64,
}

/// What the routes share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) readings: Readings,
    reads: Arc<Semaphore>,
    /// Streams end with it.
    cancel: CancellationToken,
}

/// Why something was not answered, for people.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Problem {
    /// What was expected.
    pub(crate) error: String,
}

/// A refusal with its HTTP status.
#[derive(Debug)]
pub(crate) struct Unanswered(StatusCode, String);

impl Unanswered {
    fn bad(expected: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, expected.into())
    }

    fn missing(what: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, what.into())
    }

    fn not_ready(why: impl Into<String>) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, why.into())
    }
}

impl IntoResponse for Unanswered {
    fn into_response(self) -> Response {
        (self.0, Json(Problem { error: self.1 })).into_response()
    }
}

impl Shared {
    pub(crate) fn new(readings: Readings, cancel: CancellationToken) -> Self {
        Self { readings, reads: Arc::new(Semaphore::new(READS)), cancel }
    }

    /// Now, in Unix milliseconds.
    fn now(&self) -> i64 {
        (self.readings.unix_ms)()
    }

    /// Reads history or journal where blocking hurts nobody.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Records) -> Result<T, RecordsError> + Send + 'static,
    ) -> Result<T, Unanswered> {
        let _turn =
            self.reads.acquire().await.map_err(|_| Unanswered::not_ready("the controller is stopping"))?;
        let records = self.readings.records.clone();
        let result = tokio::task::spawn_blocking(move || read(&*records)).await;
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                tracing::warn!(error = foreshadow_model::with_causes(&error), "Request for records failed");
                Err(Unanswered(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
            }
            Err(_panicked) => Err(Unanswered(StatusCode::INTERNAL_SERVER_ERROR, "reading broke off".into())),
        }
    }
}

/// Describes the service as a whole; the routes add themselves.
#[derive(utoipa::OpenApi)]
#[openapi()]
struct Outline;

fn described() -> OpenApiRouter<Shared> {
    let info = InfoBuilder::new()
        .title("foreshadow")
        .version("1")
        .description(Some(
            "What a running controller knows. Reading only; what changes something is asked for over the control \
             socket. Keys are stable and carry their unit.",
        ))
        .build();
    let outline = OpenApiBuilder::from(Outline::openapi()).info(info).build();
    OpenApiRouter::with_openapi(outline)
        .routes(routes!(state::status))
        .routes(routes!(state::alarms))
        .routes(routes!(state::metrics))
        .routes(routes!(state::healthz))
        .routes(routes!(journal::journal))
        .routes(routes!(history::list))
        .routes(routes!(history::series))
        .routes(routes!(events::events))
        .routes(routes!(state::openapi))
}

/// The reading routes.
pub(crate) fn reading(shared: Shared) -> Router {
    described().split_for_parts().0.merge(promql::routes()).with_state(shared)
}

/// The description of the reading routes, committed as `schemas/openapi.json`.
#[must_use]
pub fn openapi() -> OpenApi {
    described().split_for_parts().1
}
