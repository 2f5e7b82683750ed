//! Keeps the mirror's process: spoken to, started again when it dies, drained at the end.

mod connection;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::Child;
use std::time::Duration;

use foreshadow_model::wire::{FromMirror, Routing, Summary, ToMirror};
use tokio::io::AsyncBufReadExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::plane::Plane;

pub(crate) use connection::{Connection, MirrorSettings, MirrorStartError, connect};

use connection::read;

/// Pause before a mirror is started again that died soon or did not start, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A mirror that lived this long is started again without a pause: users wait for it.
const LIVED: Duration = Duration::from_secs(5);

/// What the mirror's keeper tells the loop.
#[derive(Debug)]
pub(crate) enum MirrorEvent {
    /// It answers.
    Connected { pid: u32, listen: SocketAddr },
    /// One tick.
    Summary(Box<Summary>),
    /// It went away; it is started again.
    Lost,
}

/// Keeps a mirror running and informed until cancelled; then drains it if it is to end.
pub(crate) struct Keeper {
    pub(crate) settings: MirrorSettings,
    pub(crate) plane: Plane,
    pub(crate) events: mpsc::Sender<MirrorEvent>,
    /// What operators want of it.
    pub(crate) orders: mpsc::Receiver<ToMirror>,
    pub(crate) cancel: CancellationToken,
    /// Whether the mirror ends with the controller; decided at the end.
    pub(crate) drain: watch::Receiver<bool>,
}

impl Keeper {
    pub(crate) async fn keep(mut self, first: Connection) {
        // From port 0 the system chose one; a mirror that is started again must be found at the same.
        self.settings.listen = first.listen;
        let mut open = first;
        let mut pause = Duration::ZERO;
        loop {
            let began = Instant::now();
            self.tell(MirrorEvent::Connected { pid: open.pid, listen: open.listen });
            let ended = self.converse(&mut open).await;
            if self.cancel.is_cancelled() {
                if *self.drain.borrow() {
                    open.drain().await;
                }
                return;
            }
            tracing::error!(error = ?ended.err(), "Mirror went away");
            self.tell(MirrorEvent::Lost);
            if LIVED < began.elapsed() {
                pause = Duration::ZERO;
            }
            let Connection { front, child, .. } = open;
            let Some(next) = self.replace(front, &mut pause).await else { return };
            collect(child);
            open = next;
        }
    }

    /// The next mirror; `None` when it is not wanted any more.
    async fn replace(&self, mut front: Option<TcpListener>, pause: &mut Duration) -> Option<Connection> {
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return None,
                () = sleep(*pause) => {}
            }
            *pause = (*pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
            match connect(&self.settings, front).await {
                Ok(open) => return Some(open),
                Err((error, kept)) => {
                    let error = foreshadow_model::with_causes(&error);
                    tracing::error!(error, "No mirror, users get no answer");
                    front = kept;
                }
            }
        }
    }

    async fn converse(&mut self, open: &mut Connection) -> io::Result<()> {
        self.plane.at_least(open.generation);
        let mut routing = self.plane.subscribe();
        routing.mark_changed();
        // What was meant for the one before is over, or was told to be.
        while self.orders.try_recv().is_ok() {}
        loop {
            tokio::select! {
                // What it routes comes before what is done with it.
                biased;
                () = self.cancel.cancelled() => return Ok(()),
                changed = routing.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let wanted: Routing = routing.borrow_and_update().clone();
                    // A generation of 0 is the empty routing before the first inventory.
                    if !wanted.upstreams.is_empty() {
                        open.send(&ToMirror::Route { routing: Box::new(wanted) }).await?;
                    }
                }
                Some(order) = self.orders.recv() => open.send(&order).await?,
                // Not cancel-safe by itself: a half-read line is lost with its future. The buffer holds whole lines
                // unless one is being written this very moment, so wait for data first, then read to the line's end.
                ready = open.reader.fill_buf() => {
                    if ready?.is_empty() {
                        return Ok(());
                    }
                    match read(&mut open.reader).await? {
                        Some(FromMirror::Summary { summary }) => self.tell(MirrorEvent::Summary(summary)),
                        Some(FromMirror::Hello { generation, .. }) => self.plane.at_least(generation),
                        None => return Ok(()),
                    }
                }
            }
        }
    }

    fn tell(&self, event: MirrorEvent) {
        if self.events.try_send(event).is_err() {
            tracing::warn!("Loop does not keep up with the mirror, one summary is lost");
        }
    }
}

/// Collects what is left of a process, or it stays a zombie.
fn collect(child: Option<Child>) {
    if let Some(Err(error)) = child.map(|mut child| child.try_wait()) {
        tracing::warn!(%error, "Mirror's end not collected");
    }
}
