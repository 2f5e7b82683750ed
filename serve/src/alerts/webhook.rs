//! Tells a webhook: one message at a time, in order, until it takes it.
//!
//! At least once: a receiver that answered too late, or a controller that was killed after the answer, gets a message
//! again, with the same id. A message that the receiver itself refuses (4xx) is given up after [`REFUSALS_MAX`] tries, or
//! it would hold up all others.

use tokio::time::sleep;

use super::desk::Desk;
use super::post::{Post, pause};

/// How often a message may be refused. With growing pauses this is about five minutes: long enough for a receiver whose
/// proxy answers 404 while it is restarted.
const REFUSALS_MAX: u32 = 10;

/// Tells, for ever.
pub(super) async fn tell(desk: &Desk, post: &Post) {
    let mut changed = desk.subscribe();
    let (mut failures, mut refusals) = (0_u32, 0_u32);
    loop {
        let next = changed.borrow_and_update().outbox.next().cloned();
        let Some(notice) = next else {
            changed.changed().await.ok();
            continue;
        };
        let result = post.send(&notice).await;
        let gives_up = match result {
            Ok(()) => false,
            Err(error) => {
                failures += 1;
                refusals += u32::from(!error.is_transient());
                if failures == 1 {
                    tracing::warn!(%error, "Webhook not told of an alarm, it is tried again");
                }
                REFUSALS_MAX <= refusals
            }
        };
        desk.change(|state| {
            // There is none when another configuration dropped this receiver meanwhile.
            if let Some(tally) = &mut state.outbox.webhook {
                tally.count(result);
            }
            if result.is_ok() || gives_up {
                state.outbox.done(&notice.id, result.is_ok());
            }
        });
        if gives_up {
            tracing::error!(id = notice.id, "The webhook refuses an alarm, it is given up");
        }
        if result.is_ok() || gives_up {
            (failures, refusals) = (0, 0);
        } else {
            sleep(pause(failures)).await;
        }
    }
}
