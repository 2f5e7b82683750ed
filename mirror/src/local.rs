//! Lets HTTP/2 streams run on the thread of their connection.

/// Spawns on the thread that it is called on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future<Output = ()> + 'static,
{
    #[expect(
        clippy::disallowed_methods,
        reason = "owned by its connection: the stream ends when the connection does"
    )]
    fn execute(&self, future: F) {
        drop(tokio::task::spawn_local(future));
    }
}
