//! Connections to endpoints: made with a limit, kept for the next request, dropped when their endpoint leaves.
//!
//! Waits and never decides: which endpoint, and whether to try again, is `core::pool` and `core::request::retry`.

pub(crate) mod connect;
pub(crate) mod reuse;
pub(crate) mod trust;

use std::future::Future;

/// Runs hyper's tasks on the thread of the worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExec;

impl<F> hyper::rt::Executor<F> for LocalExec
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
