//! Printing that holds nobody up.

use std::io::{self, Write};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Reports that wait to be printed.
const WAITING_MAX: usize = 16;

/// How long the last ones may take.
const LAST: Duration = Duration::from_secs(1);

/// Prints on a thread of its own: whoever reads slowly, or not at all, holds nobody up. What does not fit is left out.
pub(crate) struct Printer {
    reports: Option<SyncSender<String>>,
    thread: JoinHandle<()>,
}

impl Printer {
    pub(crate) fn start() -> Self {
        let (reports, printed) = sync_channel::<String>(WAITING_MAX);
        let print = move || {
            for text in printed {
                let mut out = io::stdout().lock();
                if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
                    return;
                }
            }
        };
        Self { reports: Some(reports), thread: std::thread::spawn(print) }
    }

    pub(crate) fn print(&self, text: String) {
        if let Some(reports) = &self.reports
            && let Err(TrySendError::Full(_)) = reports.try_send(text)
        {
            tracing::warn!("Nobody reads what is reported: a report is left out");
        }
    }
}

impl Drop for Printer {
    fn drop(&mut self) {
        const LOOK: Duration = Duration::from_millis(10);
        self.reports = None;
        for _ in 0..LAST.as_millis() / LOOK.as_millis() {
            if self.thread.is_finished() {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}
