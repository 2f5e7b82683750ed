//! Server-sent events: one per cycle.

use std::convert::Infallible;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use foreshadow_model::CycleReport;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;
use tokio_stream::{Stream, StreamExt};

use super::{Problem, Shared, Unanswered};

/// Listeners at the same time, at most.
const LISTENERS: usize = 32;

/// A stream of server-sent events. `cycle` carries the report of a cycle, its id is the tick. `missed` carries the number
/// of cycles that a slow reader lost.
#[utoipa::path(get, path = "/v1/events", tag = "state", responses(
    (status = 200, body = CycleReport, content_type = "text/event-stream"),
    (status = 503, body = Problem, description = "Too many listen already."),
))]
pub(super) async fn events(
    State(shared): State<Shared>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Unanswered> {
    if LISTENERS <= shared.readings.feed.listeners() {
        return Err(Unanswered::not_ready(format!("{LISTENERS} listen already")));
    }
    let cycles = BroadcastStream::new(shared.readings.feed.listen()).map(|cycle| Ok(event(cycle)));
    // A stream that did not end would hold up the end of the controller.
    let ended = futures_util::StreamExt::take_until(cycles, shared.cancel.clone().cancelled_owned());
    Ok(Sse::new(ended).keep_alive(KeepAlive::default()))
}

fn event(cycle: Result<std::sync::Arc<CycleReport>, BroadcastStreamRecvError>) -> Event {
    match cycle {
        Ok(report) => {
            let event = Event::default().event("cycle").id(report.tick.0.to_string());
            event.json_data(&*report).unwrap_or_else(|_| Event::default().event("unreadable"))
        }
        Err(BroadcastStreamRecvError::Lagged(missed)) => {
            Event::default().event("missed").data(missed.to_string())
        }
    }
}
