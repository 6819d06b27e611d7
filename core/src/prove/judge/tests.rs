use alloc::string::ToString;

use super::super::Cause;
use super::*;
use crate::time::Duration;

/// A service as it should be.
fn good() -> Subject {
    Subject {
        name: "web".into(),
        port: 8080,
        replicas: 3,
        is_global: false,
        health: HealthCheck::Present,
        start_first: true,
        parallelism: 1,
        failure_action: "rollback".into(),
        stop_grace_ms: 30_000,
        host_port: None,
    }
}

fn quiet() -> Seen {
    Seen {
        ending: Ending::Completed,
        killed: 0,
        exited_at_once: 0,
        unhandled: 0,
        account: Account::default(),
    }
}

fn with(cause: Cause) -> Seen {
    let mut seen = quiet();
    seen.account.enter(Duration::from_secs(10), Some(cause));
    seen
}

fn parked() -> Cause {
    let page = "503 Service Unavailable\n\nno endpoint of the service became ready within 10000 ms.\n";
    Cause::of_answer(503, page).unwrap()
}

fn died() -> Cause {
    let page = "502 Bad Gateway\n\nthe service closed the connection without a response.\n";
    Cause::of_answer(502, page).unwrap()
}

#[test]
fn a_good_service_without_failures_gets_no_advice() {
    assert_eq!(judge(&good(), &quiet()), []);
}

#[test]
fn settings_are_judged_without_failures_too() {
    let subject = Subject {
        health: HealthCheck::Missing,
        replicas: 1,
        start_first: false,
        failure_action: "pause".into(),
        ..good()
    };
    let advice = judge(&subject, &quiet());
    assert!(advice.iter().all(|advice| !advice.is_cause));
    let all: Vec<String> = advice.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn nobody_to_take_a_request_is_the_missing_health_checks_fault() {
    let subject = Subject {
        health: HealthCheck::Missing,
        ..good()
    };
    let advice = judge(&subject, &with(parked()));
    assert_eq!(advice.len(), 1);
    assert!(
        advice[0].is_cause && advice[0].lines.contains("  web:\n    healthcheck:"),
        "{}",
        advice[0]
    );
    let unknown = Subject {
        health: HealthCheck::Unknown,
        ..good()
    };
    assert!(judge(&unknown, &with(parked()))[0].problem.contains("may have one"));
}

#[test]
fn all_tasks_at_once_is_named_only_where_old_ones_stop_first() {
    for parallelism in [0, 3, 9] {
        let subject = Subject {
            start_first: false,
            parallelism,
            ..good()
        };
        let advice = judge(&subject, &with(parked()));
        assert!(
            advice[0].is_cause && advice[0].lines.contains("parallelism: 1"),
            "{}",
            advice[0]
        );
        let subject = Subject {
            start_first: true,
            ..subject
        };
        assert_eq!(judge(&subject, &quiet()), []);
    }
}

#[test]
fn a_killed_task_wants_a_longer_grace_and_a_quick_one_a_handler() {
    let seen = Seen {
        killed: 2,
        ..with(died())
    };
    let advice = judge(&good(), &seen);
    assert!(
        advice[0].is_cause && advice[0].lines.contains("stop_grace_period: 90s"),
        "{}",
        advice[0]
    );
    let seen = Seen {
        exited_at_once: 3,
        ..with(died())
    };
    let advice = judge(&good(), &seen);
    assert!(
        advice[0].is_cause && advice[0].problem.contains("3 old tasks ended as soon"),
        "{}",
        advice[0]
    );
    let harmless = Seen {
        exited_at_once: 3,
        ..quiet()
    };
    assert_eq!(judge(&good(), &harmless), []);
    let unhandled = Seen {
        unhandled: 3,
        ..harmless
    };
    let advice = judge(&good(), &unhandled);
    assert!(
        !advice[0].is_cause && advice[0].problem.contains("does not handle it"),
        "{}",
        advice[0]
    );
}

#[test]
fn start_first_on_a_port_of_the_node_never_ends() {
    let subject = Subject {
        host_port: Some(8081),
        ..good()
    };
    let stuck = Seen {
        ending: Ending::Unfinished("0 of 3 tasks are new".into()),
        ..quiet()
    };
    let advice = judge(&subject, &stuck);
    assert!(
        advice[0].is_cause && advice[0].lines.contains("order: stop-first"),
        "{}",
        advice[0]
    );
    assert!(advice[1].problem.contains("0 of 3 tasks are new"), "{}", advice[1]);
}

#[test]
fn an_update_that_stops_half_way_is_named() {
    let paused = Seen {
        ending: Ending::Paused("update paused due to failure".into()),
        ..quiet()
    };
    let subject = Subject {
        failure_action: "pause".into(),
        ..good()
    };
    let advice = judge(&subject, &paused);
    assert!(
        advice[0].is_cause && advice[0].lines.contains("failure_action: rollback"),
        "{}",
        advice[0]
    );
    let back = Seen {
        ending: Ending::RolledBack(String::new()),
        ..quiet()
    };
    let advice = judge(&good(), &back);
    assert!(advice[0].problem.contains("Swarm went back"), "{}", advice[0]);
}

#[test]
fn a_failure_that_nothing_explains_is_not_passed_over() {
    let advice = judge(&good(), &with(Cause::App { status: 500 }));
    assert!(
        advice[0].is_cause && advice[0].problem.contains("no setting of the stack explains"),
        "{}",
        advice[0]
    );
    let advice = judge(&good(), &with(Cause::Refused));
    assert!(advice[0].problem.contains("the entrance"), "{}", advice[0]);
}
