//! A process that can be frozen: while its gate is shut nothing of it runs, and its network stays as it is.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::task::LocalSet;

use crate::world::Running;

/// What keeps a process from running.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    shut: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Gate {
    pub(crate) fn freeze(&self) {
        self.shut.set(true);
    }

    pub(crate) fn thaw(&self) {
        self.shut.set(false);
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
    }

    pub(crate) fn is_shut(&self) -> bool {
        self.shut.get()
    }
}

struct Gated {
    gate: Rc<Gate>,
    inner: Running,
}

impl Future for Gated {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.gate.shut.get() {
            *self.gate.waiting.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.inner.as_mut().poll(cx)
    }
}

/// Runs a process, and all that it spawns, behind `gate`.
pub(crate) fn behind(gate: Rc<Gate>, process: Running) -> Running {
    let inner: Running = Box::pin(async move { LocalSet::new().run_until(process).await });
    Box::pin(Gated { gate, inner })
}
