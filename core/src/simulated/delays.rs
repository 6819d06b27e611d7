//! How long a Swarm takes for each thing it does, as measured (docker-swarm facts §1, §2, §5), so that a shell can run
//! the model at its real pace or at one of its own.

use crate::rng::Rng;
use crate::time::Duration;

/// A delay between two bounds, both included, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The shortest.
    pub min_ms: u32,
    /// The longest.
    pub max_ms: u32,
}

impl Span {
    /// From `min_ms` to `max_ms`.
    pub const fn ms(min_ms: u32, max_ms: u32) -> Self {
        Span { min_ms, max_ms }
    }

    /// One delay of the span.
    pub fn draw(self, rng: &mut Rng) -> Duration {
        Duration::from_millis(rng.between(self.min_ms.into(), self.max_ms.into()))
    }
}

/// Every delay of the model. The defaults are the measured ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delays {
    /// From a change to its event on every manager.
    pub event: Span,
    /// From a change of a service to the orchestrator's commit; for a stop this is `T` of facts §1.1.
    pub orchestrate: Span,
    /// From a task's creation to its addresses (`pending`).
    pub allocate: Span,
    /// From `pending` to `assigned`: the dispatcher batches.
    pub assign: Span,
    /// From `assigned` to `ready`: image there, container made.
    pub prepare: Span,
    /// More time before that for the first task of a network on a node.
    pub first_of_network: Span,
    /// From `ready`, or from desired state `running` where that comes later, to the process that listens.
    pub start: Span,
    /// From the process that listens to `running`, without a health check.
    pub report_running: Span,
    /// The same with a health check: its first success.
    pub report_healthy: Span,
    /// From the decision to stop to the address leaving Docker's DNS.
    pub leave_dns: Span,
    /// From the decision to stop to SIGTERM, with an overlay network or an ingress port.
    pub signal_overlay: Span,
    /// The same without either.
    pub signal_bare: Span,
    /// From the end of a process that was told to stop to its state in `/tasks`.
    pub report_end: Span,
    /// From the end of a process that was not to `failed`.
    pub report_failed: Span,
    /// From the start of a process to the end of the patience with one that has not been healthy yet: the start period
    /// and all probes.
    pub unhealthy_start: Span,
    /// From a health check that begins to fail to the address leaving Docker's DNS.
    pub unhealthy_leave_dns: Span,
    /// From a health check that begins to fail to SIGTERM; `/tasks` says `running` until the process has ended.
    pub unhealthy_signal: Span,
    /// From the end of a process to the end of its network namespace: refused before, black hole after.
    pub black_hole: Span,
    /// From `failed` to the start of the replacement.
    pub restart: Span,
    /// From the SIGKILL of a dockerd to `down`.
    pub notice_crash: Span,
    /// From power loss to `down`.
    pub notice_power: Span,
    /// From a lost link to `down`.
    pub notice_link: Span,
    /// From a dockerd that stops to `down`.
    pub notice_dockerd: Span,
    /// From a lost link or power to the node's addresses leaving DNS.
    pub lost_leave_dns: Span,
    /// From the loss of the leader to the next one.
    pub election: Span,
    /// From the election until a node is `ready` again.
    pub node_ready: Span,
}

impl Default for Delays {
    fn default() -> Self {
        Delays {
            event: Span::ms(4, 8),
            orchestrate: Span::ms(5, 15),
            allocate: Span::ms(5, 15),
            assign: Span::ms(40, 60),
            prepare: Span::ms(150, 200),
            start: Span::ms(350, 480),
            first_of_network: Span::ms(300, 1000),
            report_running: Span::ms(11, 135),
            report_healthy: Span::ms(1086, 1990),
            leave_dns: Span::ms(1070, 1670),
            signal_overlay: Span::ms(3090, 3276),
            signal_bare: Span::ms(1103, 1185),
            report_end: Span::ms(105, 655),
            report_failed: Span::ms(180, 430),
            // Of Tidegate's own services: 10 s, and three probes 2 s apart.
            unhealthy_start: Span::ms(14_000, 16_000),
            unhealthy_leave_dns: Span::ms(1050, 1100),
            unhealthy_signal: Span::ms(1950, 2050),
            black_hole: Span::ms(40, 100),
            restart: Span::ms(5000, 5000),
            notice_crash: Span::ms(12_900, 13_600),
            notice_power: Span::ms(14_600, 15_500),
            notice_link: Span::ms(9900, 13_300),
            notice_dockerd: Span::ms(9800, 13_500),
            lost_leave_dns: Span::ms(5700, 7200),
            election: Span::ms(10_400, 18_400),
            node_ready: Span::ms(300, 10_000),
        }
    }
}
