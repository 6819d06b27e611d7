//! What a node finds wrong with a task that it should run: an image that nobody has, a health check that fails.

use alloc::string::String;

use super::record::Process;
use super::{Due, Swarm};
use crate::id::TaskId;
use crate::swarm::model::{DesiredState, TaskState};
use crate::time::Instant;

impl Swarm {
    /// What the health check of a task finds from now on. A container that turns unhealthy is stopped by its node.
    pub(super) fn health(&mut self, id: &TaskId, healthy: bool, now: Instant) {
        let Some(record) = self.tasks.get_mut(id) else { return };
        record.healthy = healthy;
        let checked = !record.shape.health_command.is_empty();
        if !checked || record.process != Process::Running {
            return;
        }
        let (serves, starts) = (record.task.is_serving(), record.task.state == TaskState::Starting);
        if !healthy && serves {
            self.after(Due::LeaveDns(id.clone()), self.delays.unhealthy_leave_dns, now);
            self.after(Due::Signal(id.clone()), self.delays.unhealthy_signal, now);
        }
        let report = Due::ReportRunning(id.clone());
        if healthy && starts && self.timers.get(&report).is_none() {
            self.after(report, self.delays.report_running, now);
        }
    }

    /// A start that has not been healthy in time is stopped.
    pub(super) fn give_up(&mut self, id: &TaskId, now: Instant) {
        let Some(record) = self.tasks.get_mut(id) else { return };
        let starts = record.process == Process::Running && record.task.state == TaskState::Starting;
        if starts && !record.healthy && !record.task.desired.is_past_running() {
            record.given_up = true;
            self.after(Due::Signal(id.clone()), self.delays.unhealthy_signal, now);
        }
    }

    /// The node refuses a task.
    pub(super) fn reject(&mut self, id: &TaskId, error: String, now: Instant) {
        let version = self.next_version();
        let Some(record) = self.tasks.get_mut(id) else { return };
        record.task.version = version;
        record.task.state = TaskState::Rejected;
        record.task.error = error;
        let desired = record.task.desired;
        self.update_failed(id, now);
        self.give_back(id);
        // One that waits for its turn is replaced when it comes.
        if desired == DesiredState::Running {
            self.replace_failed(id, now);
        }
    }
}
