//! Patience with a connection: what makes no progress for too long is given up.
//!
//! A timer is only set when something waits, and only moved when it runs out too early: a connection that flows pays
//! nothing for it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::moment::Moment;

/// How long something may wait without any progress.
#[derive(Debug)]
pub(crate) struct Stall {
    limit: Duration,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, since: None, timer: None }
    }

    /// There was progress.
    pub(crate) fn moved(&mut self) {
        self.since = None;
    }

    /// There was none. Ready when that has been so for too long.
    pub(crate) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = *self.since.get_or_insert_with(Instant::now) + self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        loop {
            std::task::ready!(timer.as_mut().poll(cx));
            if until <= timer.deadline() {
                return Poll::Ready(());
            }
            // It was set for a wait that ended in time.
            timer.as_mut().reset(until);
        }
    }
}

/// A connection whose other side must take what it is sent.
#[derive(Debug)]
pub(crate) struct Flowing<S> {
    stream: S,
    stall: Stall,
    written: Arc<Moment>,
}

impl<S> Flowing<S> {
    pub(crate) fn new(stream: S, limit: Duration) -> Self {
        Self { stream, stall: Stall::new(limit), written: Arc::default() }
    }

    /// When something was written to it the last time.
    pub(crate) fn written(&self) -> Arc<Moment> {
        self.written.clone()
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stall.moved();
            self.written.set(Instant::now());
            return result;
        }
        self.stall.poll_over(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Flowing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Flowing<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_given_up_and_who_takes_a_little_is_not() {
        let (ours, mut theirs) = tokio::io::duplex(4);
        let mut ours = Flowing::new(ours, LIMIT);
        let reading = async {
            for _ in 0..5 {
                tokio::time::sleep(LIMIT - Duration::from_secs(1)).await;
                theirs.read_exact(&mut [0; 4]).await.unwrap();
            }
            theirs
        };
        let began = Instant::now();
        let (written, _theirs) = tokio::join!(ours.write_all(&[7; 40]), reading);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        // The last piece was taken after 45 s.
        assert_eq!(began.elapsed().as_secs(), 55);
    }
}
