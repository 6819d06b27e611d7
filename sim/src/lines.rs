//! Connections as tasks of apps see them: who opened them, and what is under way on each. By this the oracle knows what a
//! proxy keeps and how much it sends at once, without asking the proxy.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;

use tidegate_core::id::TaskId;
use tidegate_core::time::Instant;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    open: RefCell<BTreeMap<u64, Line>>,
    next: Cell<u64>,
}

#[derive(Clone, Debug)]
struct Line {
    proxy: IpAddr,
    task: TaskId,
    /// The task's address that was connected to.
    at: IpAddr,
    under_way: u32,
    idle_since: Instant,
}

impl Lines {
    /// A proxy connected to a task; the number names the connection.
    pub(crate) fn opens(&self, proxy: IpAddr, task: &TaskId, at: IpAddr, now: Instant) -> u64 {
        let number = self.next.replace(self.next.get() + 1);
        let line = Line {
            proxy,
            task: task.clone(),
            at,
            under_way: 0,
            idle_since: now,
        };
        self.open.borrow_mut().insert(number, line);
        number
    }

    /// It is closed.
    pub(crate) fn closes(&self, number: u64) {
        self.open.borrow_mut().remove(&number);
    }

    /// A request or a stream begins on it: whose it is, and how many the same proxy has under way at the same task now.
    pub(crate) fn begins(&self, number: u64) -> Option<(IpAddr, TaskId, u32)> {
        let mut open = self.open.borrow_mut();
        let line = open.get_mut(&number)?;
        line.under_way += 1;
        let (proxy, task) = (line.proxy, line.task.clone());
        let same = open.values().filter(|line| line.proxy == proxy && line.task == task);
        Some((proxy, task.clone(), same.map(|line| line.under_way).sum()))
    }

    /// It ends.
    pub(crate) fn finishes(&self, number: u64, now: Instant) {
        if let Some(line) = self.open.borrow_mut().get_mut(&number) {
            line.under_way -= 1;
            line.idle_since = now;
        }
    }

    /// Connections that are open with nothing under way: the proxy that keeps each, the task and its address, and since when.
    pub(crate) fn idle(&self) -> Vec<(IpAddr, TaskId, IpAddr, Instant)> {
        let open = self.open.borrow();
        let idle = open.values().filter(|line| line.under_way == 0);
        idle.map(|line| (line.proxy, line.task.clone(), line.at, line.idle_since))
            .collect()
    }
}
