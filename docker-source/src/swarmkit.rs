//! The messages of SwarmKit's watch (`docker.swarmkit.v1.Watch`), as far as Tidegate needs them: field numbers of its
//! `api/watch.proto` and `api/objects.proto`. Fields that are not here are passed over unread: a task's environment, its
//! registry password, everything of other kinds of objects.

use prost::Message;
use tidegate_core::id::{ServiceId, TaskId, Version};
use tidegate_core::swarm::model::{EventAction, TaskEvent};

use crate::convert;

/// Path of the call.
pub(crate) const WATCH: &str = "/docker.swarmkit.v1.Watch/Watch";
/// The one kind that is asked for. Secrets and configs are kinds of their own, which this watch would deliver with their
/// contents in clear (facts §9): they are never asked for. `/events` tells of everything but tasks as soon.
const TASK: &str = "task";
/// `WatchActionKind`, a set of bits.
const CREATE: i32 = 1;
const UPDATE: i32 = 2;
const REMOVE: i32 = 4;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct WatchRequest {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<WatchEntry>,
    #[prost(message, optional, tag = "2")]
    resume_from: Option<Index>,
}

#[derive(Clone, PartialEq, Message)]
struct WatchEntry {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(int32, tag = "2")]
    action: i32,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Index {
    #[prost(uint64, tag = "1")]
    index: u64,
}

/// The first one is empty: the stream is open. Its own version is not read: it is 0 in live messages (facts §9).
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WatchMessage {
    #[prost(message, repeated, tag = "1")]
    events: Vec<WatchEvent>,
}

#[derive(Clone, PartialEq, Message)]
struct WatchEvent {
    #[prost(int32, tag = "1")]
    action: i32,
    #[prost(message, optional, tag = "2")]
    object: Option<Object>,
}

#[derive(Clone, PartialEq, Message)]
struct Object {
    #[prost(message, optional, tag = "4")]
    task: Option<Task>,
}

#[derive(Clone, PartialEq, Message)]
struct Task {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "2")]
    meta: Option<Meta>,
    #[prost(string, tag = "4")]
    service_id: String,
    #[prost(message, optional, tag = "9")]
    status: Option<TaskStatus>,
    #[prost(int32, tag = "10")]
    desired_state: i32,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Meta {
    #[prost(message, optional, tag = "1")]
    version: Option<Index>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct TaskStatus {
    #[prost(int32, tag = "2")]
    state: i32,
}

/// The request for all changes of tasks, since a version or from now on.
pub(crate) fn request(resume_from: Option<Version>) -> Vec<u8> {
    let request = WatchRequest {
        entries: vec![WatchEntry {
            kind: String::from(TASK),
            action: CREATE | UPDATE | REMOVE,
        }],
        resume_from: resume_from.map(|version| Index { index: version.0 }),
    };
    request.encode_to_vec()
}

/// The changes of tasks in one message.
///
/// # Errors
/// If the message is not what its definition says.
pub(crate) fn events(message: &[u8]) -> Result<Vec<TaskEvent>, prost::DecodeError> {
    let events = WatchMessage::decode(message)?.events;
    Ok(events.into_iter().filter_map(event).collect())
}

fn event(event: WatchEvent) -> Option<TaskEvent> {
    let task = event.object?.task?;
    Some(TaskEvent {
        action: match event.action {
            CREATE => EventAction::Create,
            UPDATE => EventAction::Update,
            REMOVE => EventAction::Remove,
            _ => EventAction::Other,
        },
        version: Version(task.meta.and_then(|meta| meta.version).unwrap_or_default().index),
        state: convert::task_state(name_of(task.status.unwrap_or_default().state)),
        desired: convert::desired_state(name_of(task.desired_state)),
        task: TaskId::from(task.id),
        service: ServiceId::from(task.service_id),
    })
}

/// A `TaskState` as the API writes it.
fn name_of(state: i32) -> &'static str {
    match state {
        0 => "new",
        64 => "pending",
        192 => "assigned",
        256 => "accepted",
        320 => "preparing",
        384 => "ready",
        448 => "starting",
        512 => "running",
        576 => "complete",
        640 => "shutdown",
        704 => "failed",
        768 => "rejected",
        800 => "remove",
        832 => "orphaned",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::swarm::model::{DesiredState, TaskState};

    use super::*;

    #[test]
    fn the_request_names_tasks_and_no_other_kind() {
        let bytes = request(Some(Version(300)));
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("task"), "{text:?}");
        for kind in ["secret", "config", "cluster", "node", "service", "network"] {
            assert!(!text.contains(kind), "{text:?}");
        }
        // entries { kind: "task", action: 7 }, resume_from { index: 300 }, and nothing else.
        assert_eq!(bytes, b"\x0a\x08\x0a\x04task\x10\x07\x12\x03\x08\xac\x02");
        assert_eq!(request(None), b"\x0a\x08\x0a\x04task\x10\x07");
    }

    /// A task, as a manager writes it, with a spec (3), networks (11) and fields of the future.
    fn message(action: u8, state: [u8; 2], desired: [u8; 2]) -> Vec<u8> {
        let mut task = b"\x0a\x02t1\x12\x06\x0a\x02\x08\x2a\x12\x00\x1a\x08SPECSPEC\x22\x02s1\x28\x01".to_vec();
        task.extend([0x4a, 5, 0x0a, 0, 0x10, state[0], state[1]]);
        task.extend([0x50, desired[0], desired[1]]);
        task.extend(b"\x5a\x03NET\xf2\x3f\x03NEW");
        let wrap = |tag: u8, inner: &[u8]| {
            let mut out = vec![tag, u8::try_from(inner.len()).expect("short")];
            out.extend(inner);
            out
        };
        let mut event = vec![0x08, action];
        event.extend(wrap(0x12, &wrap(0x22, &task)));
        wrap(0x0a, &event)
    }

    #[test]
    fn a_task_is_read_and_what_is_not_needed_is_passed_over() {
        // 512 and 640 as variable-length numbers.
        let told = events(&message(2, [0x80, 0x04], [0x80, 0x05])).expect("a message");
        let expected = TaskEvent {
            action: EventAction::Update,
            task: TaskId::from("t1"),
            service: ServiceId::from("s1"),
            version: Version(42),
            state: TaskState::Running,
            desired: DesiredState::Shutdown,
        };
        assert_eq!(told, [expected]);
        let unknown = events(&message(9, [0x81, 0x04], [0x81, 0x05])).expect("a message");
        assert_eq!(unknown[0].action, EventAction::Other);
        assert_eq!(
            (unknown[0].state, unknown[0].desired),
            (TaskState::Other, DesiredState::Other)
        );
    }

    #[test]
    fn an_object_of_another_kind_leaves_nothing_behind() {
        // object { secret (6) { id, spec { annotations, data } } }
        let secret = b"\x0a\x1c\x08\x01\x12\x18\x32\x16\x0a\x03sec\x1a\x0f\x0a\x02\x0a\x00\x12\x09swordfish";
        assert_eq!(events(secret), Ok(Vec::new()));
        let read = WatchMessage::decode(&secret[..]).expect("a message");
        assert!(!format!("{read:?}").contains("swordfish"));
    }

    #[test]
    fn the_first_message_is_empty_and_half_a_message_is_an_error() {
        assert_eq!(events(b""), Ok(Vec::new()));
        let whole = message(1, [0x80, 0x04], [0x80, 0x04]);
        assert!(events(&whole[..whole.len() - 1]).is_err());
    }
}
