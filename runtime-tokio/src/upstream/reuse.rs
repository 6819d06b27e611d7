//! Connections of one worker to one endpoint that wait for the next request.
//!
//! HTTP/1.1 connections lie in a list, the one used last on top: it is the warmest, and those at the bottom grow old and
//! go. HTTP/2 has one connection, shared by all requests until it says GOAWAY.

use std::cell::{Cell, RefCell};
use std::fmt;

use tidegate_core::time::{Duration, Instant};

use super::connect::{Http1, Http2};

/// The connections to one endpoint.
#[derive(Default)]
pub(crate) struct Connections {
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Option<Http2>>,
    /// Whether the endpoint chose HTTP/1.1 where it was offered both.
    prefers_http1: Cell<bool>,
    /// Set when the endpoint is gone: nothing is kept any more.
    closed: Cell<bool>,
}

struct Idle {
    sender: Http1,
    since: Instant,
}

impl Connections {
    /// A connection that waits, at most for `waited_max`, if one does. Dead ones on the way are dropped.
    pub(crate) fn take(&self, waited_max: Option<Duration>, now: Instant) -> Option<Http1> {
        let mut idle = self.idle.borrow_mut();
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            if waited_max.is_some_and(|max| now.since(idle[at].since) > max) {
                return None; // those below wait longer still
            }
            if idle[at].sender.is_closed() {
                idle.remove(at);
            } else if idle[at].sender.is_ready() {
                return Some(idle.remove(at).sender);
            }
            // Neither: the last response's end is still being read; it will be ready for somebody else.
        }
        None
    }

    /// Keeps a connection whose response has ended, at most `max` of them.
    pub(crate) fn keep(&self, sender: Http1, max: usize, now: Instant) {
        if self.closed.get() || max == 0 || sender.is_closed() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= max {
            idle.remove(0);
        }
        idle.push(Idle { sender, since: now });
    }

    /// The shared connection, if it takes requests.
    pub(crate) fn shared(&self) -> Option<Http2> {
        let mut shared = self.shared.borrow_mut();
        if shared
            .as_ref()
            .is_some_and(|sender| sender.is_closed() || !sender.is_ready())
        {
            *shared = None;
        }
        shared.clone()
    }

    /// Shares a new connection, unless somebody was faster: then theirs is returned.
    pub(crate) fn share(&self, sender: Http2) -> Http2 {
        if let Some(earlier) = self.shared() {
            return earlier;
        }
        if !self.closed.get() {
            *self.shared.borrow_mut() = Some(sender.clone());
        }
        sender
    }

    /// The endpoint chose HTTP/1.1 where it was offered both, and would again.
    pub(crate) fn set_prefers_http1(&self) {
        self.prefers_http1.set(true);
    }

    pub(crate) fn prefers_http1(&self) -> bool {
        self.prefers_http1.get()
    }

    /// Forgets the shared connection after it failed a request.
    pub(crate) fn unshare(&self) {
        *self.shared.borrow_mut() = None;
    }

    /// Closes what waits. Requests under way go on.
    pub(crate) fn close_idle(&self) {
        self.idle.borrow_mut().clear();
        self.unshare();
    }

    /// Closes what waits, and keeps nothing from now on.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.close_idle();
    }

    /// Closes connections that are dead or waited for `max`; how many are left.
    pub(crate) fn sweep(&self, max: Duration, now: Instant) -> usize {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|one| !one.sender.is_closed() && now.since(one.since) < max);
        idle.len()
    }

    /// How many wait.
    pub(crate) fn idle(&self) -> usize {
        self.idle.borrow().len() + usize::from(self.shared.borrow().is_some())
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("idle", &self.idle()).finish()
    }
}
