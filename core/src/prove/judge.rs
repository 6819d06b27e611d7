//! Settings, failures and the end of an update to advice.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::account::Account;

/// What Docker gives a container to end in, where nothing else is said.
const GRACE_DEFAULT_MS: u64 = 10_000;

/// What the settings of a service say about its updates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Name of the service as its stack file has it.
    pub name: String,
    /// The app's port.
    pub port: u16,
    /// How many tasks there are to be.
    pub replicas: u64,
    /// Whether their number is that of the nodes.
    pub is_global: bool,
    /// Whether Swarm can tell that the app listens.
    pub health: HealthCheck,
    /// The new task starts before the old one stops.
    pub start_first: bool,
    /// Tasks at a time; 0 = all.
    pub parallelism: u64,
    /// `pause`, `continue` or `rollback`.
    pub failure_action: String,
    /// Milliseconds between SIGTERM and SIGKILL.
    pub stop_grace_ms: u64,
    /// A port of the nodes that one task at a time can have.
    pub host_port: Option<u16>,
}

/// Whether Swarm can tell that the app listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthCheck {
    /// The service's settings or its image have one.
    Present,
    /// Neither has one.
    Missing,
    /// The settings have none, and the image is not on this manager.
    Unknown,
}

/// How the update ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Every task is new.
    Completed,
    /// Swarm stopped in the middle; what it says.
    Paused(String),
    /// Swarm went back; what it says.
    RolledBack(String),
    /// It was not over within the limit; what it waited for.
    Unfinished(String),
}

/// What was seen during the update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// How it ended.
    pub ending: Ending,
    /// Old tasks that were killed because their grace period was over.
    pub killed: u64,
    /// Old tasks that ended as soon as they were told to stop.
    pub exited_at_once: u64,
    /// Those of them that SIGTERM itself ended: the app did not handle it.
    pub unhandled: u64,
    /// The requests.
    pub account: Account,
}

/// A setting to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// Whether something failed that this is the reason for; otherwise it may fail another time.
    pub is_cause: bool,
    /// What is wrong, and what follows.
    pub problem: String,
    /// Lines of the service in its stack file; empty where no setting helps.
    pub lines: String,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_cause { "fix" } else { "advice" };
        write!(f, "{word}: {}", self.problem)?;
        for line in self.lines.lines() {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

/// What to change, causes first; none where all is well. In a fixed order otherwise.
pub fn judge(subject: &Subject, seen: &Seen) -> Vec<Advice> {
    let mut judge = Judge {
        subject,
        seen,
        lacked: any(seen, |cause| cause.lacks_endpoints()),
        cut: any(seen, |cause| cause.is_cut()),
        advice: Vec::new(),
    };
    judge.health_check();
    judge.order();
    judge.parallelism();
    judge.grace();
    judge.signal();
    judge.failure_action();
    judge.routing();
    let mut advice = judge.advice;
    advice.sort_by_key(|advice| !advice.is_cause); // stable
    advice
}

fn any(seen: &Seen, test: impl Fn(&super::Cause) -> bool) -> bool {
    seen.account.failures.keys().any(test)
}

struct Judge<'a> {
    subject: &'a Subject,
    seen: &'a Seen,
    /// Requests failed because nobody took them.
    lacked: bool,
    /// Requests failed because their task ended.
    cut: bool,
    advice: Vec<Advice>,
}

impl Judge<'_> {
    fn say(&mut self, is_cause: bool, problem: impl Into<String>, body: &str) {
        let lines = match body {
            "" => String::new(),
            body => format!("services:\n  {}:\n{body}", self.subject.name),
        };
        self.advice.push(Advice {
            is_cause,
            problem: problem.into(),
            lines,
        });
    }

    fn health_check(&mut self) {
        let known = match self.subject.health {
            HealthCheck::Present => return,
            HealthCheck::Missing => "no health check",
            HealthCheck::Unknown => {
                "no health check in the settings (the image is not on this manager, so it may have one)"
            }
        };
        let port = self.subject.port;
        self.say(
            self.lacked,
            format!(
                "{known}: Swarm calls a task running when its process starts, and stops the next old one, whether or not the app listens yet"
            ),
            &format!(
                "    healthcheck:\n      test: [\"CMD\", \"wget\", \"-q\", \"-O\", \"/dev/null\", \"http://127.0.0.1:{port}/\"]  # a command that the image has\n      interval: 2s\n      start_period: 60s  # longer than the app needs to start"
            ),
        );
    }

    fn order(&mut self) {
        let is_alone = self.subject.replicas <= 1 && !self.subject.is_global;
        match (self.subject.host_port, self.subject.start_first) {
            (Some(port), true) => self.say(
                !matches!(self.seen.ending, Ending::Completed),
                format!(
                    "start-first, and port {port} of its node: the new task waits for the port that the old one has, and the update never ends"
                ),
                "    deploy:\n      update_config:\n        order: stop-first",
            ),
            (Some(port), false) if is_alone => self.say(
                self.lacked,
                format!("one replica, stop-first, on port {port} of its node: nobody serves while it is replaced, and requests wait"),
                "    deploy:\n      replicas: 2",
            ),
            (None, false) if is_alone => self.say(
                self.lacked,
                "one replica, stop-first: nobody serves while it is replaced, and requests wait",
                "    deploy:\n      update_config:\n        order: start-first",
            ),
            (_, true | false) => {}
        }
    }

    fn parallelism(&mut self) {
        let at_once = self.subject.parallelism;
        let all = at_once == 0 || at_once >= self.subject.replicas;
        if all && self.subject.replicas > 1 && !self.subject.start_first {
            self.say(
                self.lacked,
                format!(
                    "all {} tasks are replaced at once, stop-first: nobody serves meanwhile, and requests wait",
                    self.subject.replicas
                ),
                "    deploy:\n      update_config:\n        parallelism: 1",
            );
        }
    }

    fn grace(&mut self) {
        let killed = self.seen.killed;
        if killed == 0 {
            return;
        }
        let grace = match self.subject.stop_grace_ms {
            0 => GRACE_DEFAULT_MS,
            grace => grace,
        };
        self.say(
            self.cut,
            format!(
                "{killed} old tasks were killed after {} s: the app does not end on its stop signal (SIGTERM unless stop_signal says otherwise), or needs longer than its grace period",
                grace.div_ceil(1000)
            ),
            &format!(
                "    init: true  # passes the signal on, where the app is not the first process\n    stop_grace_period: {}s",
                (3 * grace).div_ceil(1000)
            ),
        );
    }

    fn signal(&mut self) {
        let (quick, unhandled) = (self.seen.exited_at_once, self.seen.unhandled);
        // An app that has nothing under way may end at once.
        if unhandled == 0 && !(self.cut && quick > 0) {
            return;
        }
        let how = match unhandled {
            0 => format!("{quick} old tasks ended as soon as they were told to stop"),
            _ => format!("SIGTERM ended {unhandled} old tasks at once: the app does not handle it"),
        };
        let problem = format!(
            "{how}. Tidegate sends them nothing for the 3 s before, so shorter requests are safe, and longer ones are cut: let the app finish \
             what it has on SIGTERM, and give it the time"
        );
        self.say(self.cut, problem, "    stop_grace_period: 30s");
    }

    fn failure_action(&mut self) {
        let (is_cause, problem) = match &self.seen.ending {
            Ending::Paused(said) => (
                true,
                format!(
                    "the update is paused, with old and new tasks side by side ({}): `docker service ps` says why the new ones fail",
                    or_nothing(said)
                ),
            ),
            Ending::RolledBack(said) => {
                let problem = format!(
                    "Swarm went back to the tasks before ({}): `docker service ps` says why the new ones failed",
                    or_nothing(said)
                );
                self.say(true, problem, "");
                return;
            }
            Ending::Unfinished(said) => {
                let problem = format!("the update did not end: {said}; `docker service ps` says what it waits for");
                self.say(true, problem, "");
                return;
            }
            Ending::Completed if self.subject.failure_action == "rollback" => return,
            Ending::Completed => (
                false,
                format!(
                    "failure_action is {}: an update whose tasks fail leaves the service half old, half new",
                    self.subject.failure_action
                ),
            ),
        };
        let lines = match self.subject.failure_action.as_str() {
            "rollback" => "",
            _ => "    deploy:\n      update_config:\n        failure_action: rollback",
        };
        self.say(is_cause, problem, lines);
    }

    fn routing(&mut self) {
        if any(self.seen, super::Cause::is_unrouted) {
            let problem =
                "Tidegate does not route all of these requests: `tidegate explain URL` says what it has for them";
            self.say(true, problem, "");
        }
        if any(self.seen, |cause| *cause == super::Cause::Refused) {
            let problem =
                "the entrance took no connections for a time: that is the proxies' or their node's, not this stack's";
            self.say(true, problem, "");
        }
        let silent = self.advice.iter().all(|advice| !advice.is_cause);
        if silent && self.seen.account.failed() > 0 {
            let problem = "no setting of the stack explains the failures: look into the logs of the app and of the proxies at this time";
            self.say(true, problem, "");
        }
    }
}

fn or_nothing(said: &str) -> String {
    match said {
        "" => "Swarm says nothing".to_string(),
        said => format!("Swarm says: {said}"),
    }
}

#[cfg(test)]
mod tests;
