//! Vocabulary of the [`Reconciler`](super::machine::Reconciler): its settings, facts, writes, actions and notices.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

use super::desired::{ManagedService, ServiceShape};
use crate::id::{ServiceId, Version};
use crate::swarm::model::ApiError;
use crate::time::Duration;

/// How patiently services are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReconcileSettings {
    /// The installation (stack) whose services these are; others are never touched.
    pub installation: String,
    /// Says what would be written instead of writing it. Default false.
    pub read_only: bool,
    /// New networks are written when no more came for this long. Default 500 ms.
    pub network_quiet: Duration,
    /// And at the latest this long after the first. Default 2 s.
    pub network_wait_max: Duration,
    /// Networks are not changed while Docker still replaces proxies for an earlier change, but at the latest this long
    /// after that began. Default 10 min.
    pub update_wait_max: Duration,
    /// The same for every other change of proxies, which may be what mends an update that hangs. Default 2 min.
    pub mend_wait_max: Duration,
    /// A service that vanished is made anew this much later. Default 6 s: longer than a stopping controller lives on.
    pub recreate_after: Duration,
    /// The same for a leg. Default 2 s: `docker stack rm` and `--prune` of an application take its leg along, and the
    /// application's services are gone before that in the first case.
    pub recreate_leg_after: Duration,
    /// A leg in the stack of an application is removed this long after its last routed service went. Default 10 s:
    /// `docker stack rm` lists what it removes first, and fails if it finds the leg gone.
    pub leave_stack_after: Duration,
    /// After a write, how long to wait for Docker to show it. Default 5 s.
    pub settle: Duration,
    /// First pause before a write for the same wish is repeated; doubles. Default 1 s.
    pub retry_min: Duration,
    /// Longest such pause. Default 5 min.
    pub retry_max: Duration,
    /// Longest such pause while Docker cannot be reached or has no leader. Default 10 s.
    pub retry_unreachable_max: Duration,
    /// Repetitions are forgotten after this long without one. Default 10 min.
    pub forget_after: Duration,
    /// A write without an answer counts as lost then; the shell's own limit is shorter. Default 30 s.
    pub answer_limit: Duration,
}

impl Default for ReconcileSettings {
    fn default() -> Self {
        ReconcileSettings {
            installation: String::from("tidegate"),
            read_only: false,
            network_quiet: Duration::from_millis(500),
            network_wait_max: Duration::from_secs(2),
            update_wait_max: Duration::from_secs(600),
            mend_wait_max: Duration::from_secs(120),
            recreate_after: Duration::from_secs(6),
            recreate_leg_after: Duration::from_secs(2),
            leave_stack_after: Duration::from_secs(10),
            settle: Duration::from_secs(5),
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(300),
            retry_unreachable_max: Duration::from_secs(10),
            forget_after: Duration::from_secs(600),
            answer_limit: Duration::from_secs(30),
        }
    }
}

/// Names one write; a late answer to an older one is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WriteId(pub u64);

/// One call that changes Docker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Write {
    /// Make a service.
    Create(Box<ServiceShape>),
    /// Remove a service of this name.
    Remove {
        /// Which.
        id: ServiceId,
        /// Its name, for logs.
        name: String,
    },
    /// Change a service, if it still has this version.
    Update {
        /// Which.
        id: ServiceId,
        /// Must be the present one.
        version: Version,
        /// All of the new shape.
        shape: Box<ServiceShape>,
    },
}

impl Write {
    /// Name of the service.
    pub fn service(&self) -> &str {
        match self {
            Write::Create(shape) | Write::Update { shape, .. } => &shape.name,
            Write::Remove { name, .. } => name,
        }
    }
}

/// What the reconciler is told.
#[derive(Clone, Debug)]
pub enum ReconcileFact {
    /// The controllers' own service was removed: what is not wanted is removed without a pause.
    Leave,
    /// Managed services as Docker has them: all of them, once they have been listed.
    Managed(Vec<ManagedService>),
    /// All shapes that are wanted. An own service of proxies or legs that is not among them is removed.
    Wanted(Vec<ServiceShape>),
    /// Whether somebody else looks after the services now: nothing is written while that holds.
    Relieved(bool),
    /// The answer to a write.
    Written {
        /// The write.
        id: WriteId,
        /// Whether it was done.
        result: Result<(), ApiError>,
    },
}

/// What the reconciler wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReconcileAction {
    /// List the managed services again.
    LookAgain,
    /// Tell the operator; repeated only when it differs from the last one for that service.
    Notice(Notice),
    /// Call Docker, with a limit on the call. The answer comes back as [`ReconcileFact::Written`].
    Write {
        /// Goes back with the answer.
        id: WriteId,
        /// The call.
        write: Write,
    },
}

/// Something that an operator should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// Docker paused an update; Tidegate waits for the operator.
    Paused {
        /// The service.
        service: String,
    },
    /// The name belongs to a service that is not ours.
    NameTaken {
        /// The service.
        service: String,
    },
    /// The same wish had to be written several times: something writes otherwise.
    Overruled {
        /// The service.
        service: String,
        /// How often.
        writes: u32,
        /// Until the next write, if it is needed again.
        pause: Duration,
    },
    /// Docker did not do a write.
    Refused {
        /// The service.
        service: String,
        /// Why.
        error: ApiError,
        /// Until it is tried again.
        pause: Duration,
    },
    /// Docker rolled an update back; it is not written again until the settings change.
    RolledBack {
        /// The service.
        service: String,
    },
    /// What a controller that may write would do now.
    WouldWrite {
        /// The service.
        service: String,
        /// `create`, `remove`, or the fields of an update.
        what: String,
    },
}

impl Notice {
    /// Name of the service.
    pub fn service(&self) -> &str {
        match self {
            Notice::NameTaken { service }
            | Notice::Overruled { service, .. }
            | Notice::Paused { service }
            | Notice::Refused { service, .. }
            | Notice::RolledBack { service }
            | Notice::WouldWrite { service, .. } => service,
        }
    }

    pub(super) fn same_cause(&self, other: &Notice) -> bool {
        match (self, other) {
            (Notice::Refused { error: a, .. }, Notice::Refused { error: b, .. }) => a == b,
            (a, b) => a == b,
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::NameTaken { service } => write!(
                f,
                "a service {service} exists that this installation did not make: rename it, or set service_name of the cluster"
            ),
            Notice::Overruled { service, writes, pause } => write!(
                f,
                "service {service} was written {writes} times for the same settings: does another controller with other \
                 settings or another version run? Next write after {} s",
                pause.as_secs()
            ),
            Notice::Paused { service } => write!(
                f,
                "Docker paused the update of {service}: see `docker service ps {service}`; change the settings, or roll back"
            ),
            Notice::Refused { service, error, pause } => {
                write!(
                    f,
                    "service {service} is not written: {error}; again after {} s",
                    pause.as_secs()
                )
            }
            Notice::RolledBack { service } => write!(
                f,
                "Docker rolled the update of {service} back: see `docker service ps {service}`. It is not tried again \
                 until the settings change"
            ),
            Notice::WouldWrite { service, what } => write!(f, "read-only: would write {service}: {what}"),
        }
    }
}
