//! The loop around the second witness (`core::witness`): asks Docker's DNS while no controller is heard, through legs where
//! legs are, and hands tables on to the workers.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use tidegate_core::machine::{Input, step};
use tidegate_core::snapshot::subscriber::Install;
use tidegate_core::time::Instant;
use tidegate_core::witness::{ASK_AFTER, Action, Fact, Witness};
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::clock::Clock;
use crate::net::Net;

/// Stands between a subscription and the workers. Clones are the same one.
pub struct SecondWitness<N, I> {
    inner: Rc<Inner<N, I>>,
}

struct Inner<N, I> {
    net: N,
    clock: Clock,
    machine: RefCell<Witness>,
    install: RefCell<I>,
    next: Cell<Option<Instant>>,
    rearm: Notify,
}

impl<N, I> Clone for SecondWitness<N, I> {
    fn clone(&self) -> Self {
        SecondWitness {
            inner: self.inner.clone(),
        }
    }
}

impl<N, I> fmt::Debug for SecondWitness<N, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecondWitness").finish_non_exhaustive()
    }
}

impl<N, I, F> SecondWitness<N, I>
where
    N: Net,
    I: FnMut(Install) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    /// `install` puts a table to work.
    pub fn new(net: N, clock: Clock, install: I) -> Self {
        SecondWitness {
            inner: Rc::new(Inner {
                net,
                clock,
                machine: RefCell::new(Witness::new()),
                install: RefCell::new(install),
                next: Cell::new(None),
                rearm: Notify::new(),
            }),
        }
    }

    /// Takes the tables of a subscription; as `install` itself.
    pub fn installer(&self) -> impl FnMut(Install) -> F + use<N, I, F> {
        let this = self.clone();
        move |table| {
            let installed = this.step(Input::Fact(Fact::Table(table)));
            installed.expect("a table is always served, in one form or another")
        }
    }

    /// Whether a controller confirms the present table.
    pub fn heard(&self, heard: bool) {
        self.step(Input::Fact(Fact::Heard(heard)));
    }

    /// Asks when it is time to; never returns.
    pub async fn run(self) {
        loop {
            tokio::select! { biased;
                () = self.inner.rearm.notified() => {}
                () = self.inner.clock.sleep_until(self.inner.next.get()) => {
                    self.step(Input::Timeout);
                }
            }
        }
    }

    /// One mutation; what the last table that it installed waits for.
    fn step(&self, input: Input<Fact>) -> Option<F> {
        let inner = &self.inner;
        let mut installed = None;
        let now = inner.clock.now();
        let next = step(&mut *inner.machine.borrow_mut(), input, now, |action| match action {
            Action::Ask {
                service,
                question,
                name,
            } => {
                let this = self.clone();
                spawn_local(async move {
                    let found = this.inner.net.resolve_on(name.via.as_ref(), &name.name, ASK_AFTER);
                    let addresses = match tokio::time::timeout(ASK_AFTER, found).await {
                        Ok(Ok(addresses)) => Some(addresses),
                        Ok(Err(error)) => {
                            tracing::debug!(name = name.name, %error, "Docker's DNS has no answer");
                            None
                        }
                        Err(_) => None,
                    };
                    this.step(Input::Fact(Fact::Answer {
                        service,
                        question,
                        addresses,
                    }));
                });
            }
            Action::Install(table) => installed = Some((inner.install.borrow_mut())(table)),
            Action::Notice(text) => tracing::warn!("{text}"),
        });
        inner.next.set(next.map(|deadline| deadline.at));
        inner.rearm.notify_one();
        installed
    }
}
