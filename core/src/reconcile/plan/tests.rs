use std::string::String;
use std::vec;

use proptest::prelude::*;

use super::*;
use crate::id::{ServiceId, Version};
use crate::reconcile::desired::published_tcp;

fn set(items: &[&str]) -> BTreeSet<String> {
    items.iter().map(|item| String::from(*item)).collect()
}

fn wanted() -> ServiceShape {
    ServiceShape {
        name: String::from("tidegate_proxy"),
        labels: BTreeMap::from([(String::from(ROLE_LABEL), String::from("proxy"))]),
        image: String::from("tidegate:1"),
        env: set(&["TIDEGATE_LOG=info", "TIDEGATE_CLUSTER=default"]),
        replicas: Some(2),
        networks: set(&["control"]),
        ports: BTreeSet::from([published_tcp(80, 8080, PublishMode::Ingress)]),
        ..ServiceShape::default()
    }
}

fn managed(shape: ServiceShape) -> ManagedService {
    ManagedService {
        id: ServiceId::from("id"),
        version: Version(1),
        shape,
        template: String::new(),
        update_state: None,
    }
}

fn written(wanted: &ServiceShape) -> ManagedService {
    managed(stamped(wanted.clone(), wanted))
}

#[track_caller]
fn update(plan: Plan) -> ServiceShape {
    match plan {
        Plan::Update(shape) => *shape,
        other @ (Plan::Nothing | Plan::Recreate) => panic!("not an update: {other:?}"),
    }
}

#[test]
fn what_was_written_is_not_written_again() {
    assert_eq!(plan(&wanted(), &written(&wanted()), None), Plan::Nothing);
}

#[test]
fn row_43_a_changed_setting_is_written_and_an_operators_edit_of_another_field_stays() {
    let mut actual = written(&wanted());
    actual.shape.replicas = Some(7);
    actual.shape.env.insert(String::from("RUST_BACKTRACE=1"));
    assert_eq!(
        plan(&wanted(), &actual, None),
        Plan::Nothing,
        "the edit alone is no reason to write"
    );
    let mut next = wanted();
    next.image = String::from("tidegate:2");
    next.env = set(&["TIDEGATE_LOG=debug", "TIDEGATE_CLUSTER=default"]);
    let shape = update(plan(&next, &actual, None));
    assert_eq!(shape.image, "tidegate:2");
    assert_eq!(shape.replicas, Some(7));
    assert_eq!(
        shape.env,
        set(&["RUST_BACKTRACE=1", "TIDEGATE_CLUSTER=default", "TIDEGATE_LOG=debug"])
    );
    assert_eq!(applied(&shape), Some(next));
}

#[test]
fn row_43_a_field_that_the_settings_change_is_written_over_an_operators_edit() {
    let mut actual = written(&wanted());
    actual.shape.replicas = Some(7);
    let next = ServiceShape {
        replicas: Some(3),
        ..wanted()
    };
    assert_eq!(update(plan(&next, &actual, None)).replicas, Some(3));
}

/// A change of what is wanted.
type Edit = fn(&mut ServiceShape);

/// What Docker compares when it decides whether a service's tasks are still right (facts §6): all that is left once
/// placement, the policy of updates, the number of replicas and the service's own labels are put aside.
fn what_tasks_are_made_of(shape: &ServiceShape) -> ServiceShape {
    ServiceShape {
        labels: BTreeMap::new(),
        replicas: None,
        constraints: BTreeSet::new(),
        spread: Vec::new(),
        update: UpdatePolicy::default(),
        ..shape.clone()
    }
}

/// The write that `edit` of the settings leads to on a service that an operator has given another variable.
#[track_caller]
fn before_and_after(edit: impl FnOnce(&mut ServiceShape)) -> (ServiceShape, ServiceShape) {
    let mut live = written(&wanted());
    live.shape.env.insert(String::from("RUST_BACKTRACE=1"));
    let mut next = wanted();
    edit(&mut next);
    let after = update(plan(&next, &live, None));
    assert!(after.env.contains("RUST_BACKTRACE=1"));
    (live.shape, after)
}

#[test]
fn row_43_placement_policy_replicas_and_labels_leave_the_proxies_in_place() {
    let edits: [Edit; 5] = [
        |shape| shape.constraints = set(&["node.labels.nodetype==loadbalancer"]),
        |shape| shape.spread = vec![String::from("node.labels.zone")],
        |shape| shape.replicas = Some(5),
        |shape| shape.update.delay_ms += 1000,
        |shape| drop(shape.labels.insert(String::from("team"), String::from("edge"))),
    ];
    for (at, edit) in edits.into_iter().enumerate() {
        let (before, after) = before_and_after(edit);
        assert_ne!(before, after, "edit {at} is written");
        assert_eq!(
            what_tasks_are_made_of(&before),
            what_tasks_are_made_of(&after),
            "edit {at}"
        );
    }
}

#[test]
fn row_43_environment_ports_grace_and_image_replace_the_proxies_with_nothing_else_changed() {
    let edits: [(&str, Edit); 6] = [
        ("env", |shape| {
            shape.env = set(&["TIDEGATE_LOG=debug", "TIDEGATE_CLUSTER=default"])
        }),
        ("ports", |shape| {
            shape.ports = BTreeSet::from([published_tcp(81, 8080, PublishMode::Ingress)]);
        }),
        ("stop_grace_ms", |shape| shape.stop_grace_ms += 1000),
        ("stop_signal", |shape| shape.stop_signal = String::from("SIGQUIT")),
        ("container_labels", |shape| {
            shape
                .container_labels
                .insert(String::from("team"), String::from("edge"));
        }),
        ("image", |shape| shape.image = String::from("tidegate:2")),
    ];
    for (field, edit) in edits {
        let (before, after) = before_and_after(edit);
        let (before, after) = (what_tasks_are_made_of(&before), what_tasks_are_made_of(&after));
        assert_eq!(differences(&before, &after), [field]);
    }
}

#[test]
fn a_network_or_label_that_was_taken_away_comes_back() {
    let mut actual = written(&wanted());
    actual.shape.networks.clear();
    actual.shape.labels.remove(ROLE_LABEL);
    let shape = update(plan(&wanted(), &actual, None));
    assert_eq!(shape.networks, wanted().networks);
    assert_eq!(shape.labels[ROLE_LABEL], "proxy");
}

#[test]
fn a_network_that_is_no_longer_wanted_is_left_and_a_foreign_one_stays() {
    let before = ServiceShape {
        networks: set(&["control", "shop"]),
        ..wanted()
    };
    let mut actual = written(&before);
    actual.shape.networks.insert(String::from("monitoring"));
    let shape = update(plan(&wanted(), &actual, None));
    assert_eq!(shape.networks, set(&["control", "monitoring"]));
}

#[test]
fn a_port_takes_the_place_of_the_one_that_an_operator_wrote() {
    let mut actual = written(&wanted());
    actual.shape.ports = BTreeSet::from([published_tcp(81, 8080, PublishMode::Ingress)]);
    let ports = BTreeSet::from([published_tcp(90, 8080, PublishMode::Ingress)]);
    let next = ServiceShape {
        ports: ports.clone(),
        ..wanted()
    };
    assert_eq!(update(plan(&next, &actual, None)).ports, ports);
}

#[test]
fn a_service_without_our_label_is_adopted_whole() {
    let mut foreign = wanted();
    foreign.image = String::from("other");
    foreign.env = set(&["A=1", "TIDEGATE_LOG=trace"]);
    let shape = update(plan(&wanted(), &managed(foreign), None));
    assert_eq!(shape.image, "tidegate:1");
    assert_eq!(
        shape.env,
        set(&["A=1", "TIDEGATE_CLUSTER=default", "TIDEGATE_LOG=info"])
    );
}

#[test]
fn an_unreadable_label_is_as_none() {
    let mut actual = written(&wanted());
    actual
        .shape
        .labels
        .insert(String::from(APPLIED_LABEL), String::from("{"));
    let shape = update(plan(&wanted(), &actual, None));
    assert_eq!(applied(&shape), Some(wanted()));
}

#[test]
fn a_change_of_mode_means_another_service() {
    let next = ServiceShape {
        replicas: None,
        ..wanted()
    };
    assert_eq!(plan(&next, &written(&wanted()), None), Plan::Recreate);
}

#[test]
fn start_first_never_meets_a_host_mode_port() {
    let mut actual = written(&wanted());
    actual.shape.update.start_first = true;
    let ports = BTreeSet::from([published_tcp(80, 8080, PublishMode::Host)]);
    let shape = update(plan(&ServiceShape { ports, ..wanted() }, &actual, None));
    assert!(!shape.update.start_first);
}

#[test]
fn what_was_rolled_back_is_not_written_again_but_other_changes_are() {
    let bad = ServiceShape {
        image: String::from("broken"),
        networks: set(&["control", "shop"]),
        ..wanted()
    };
    // Docker restored the spec before, label included.
    let actual = written(&wanted());
    assert_eq!(plan(&bad, &actual, Some(&bad)), Plan::Nothing);
    let next = ServiceShape {
        replicas: Some(5),
        ..bad.clone()
    };
    let shape = update(plan(&next, &actual, Some(&bad)));
    assert_eq!((shape.image.as_str(), shape.replicas), ("tidegate:1", Some(5)));
}

#[test]
fn after_a_rollback_what_is_wanted_takes_the_place_of_what_was_written_before() {
    let with_identity = |number: u32| ServiceShape {
        image: String::from("broken"),
        secrets: BTreeMap::from([(alloc::format!("identity-{number}"), String::from("identity"))]),
        ..wanted()
    };
    let before = ServiceShape {
        image: String::from("tidegate:1"),
        ..with_identity(1)
    };
    let mut actual = written(&before);
    let own = (String::from("an operator's"), String::from("own"));
    actual.shape.secrets.insert(own.0.clone(), own.1.clone());
    let shape = update(plan(&with_identity(3), &actual, Some(&with_identity(2))));
    let mounted = BTreeMap::from([(String::from("identity-3"), String::from("identity")), own]);
    assert_eq!((shape.image.as_str(), shape.secrets), ("tidegate:1", mounted));
}

#[test]
fn differences_name_the_fields() {
    let other = ServiceShape {
        image: String::from("x"),
        replicas: None,
        ..wanted()
    };
    assert_eq!(differences(&wanted(), &other), vec!["image", "replicas"]);
    assert!(differences(&wanted(), &stamped(wanted(), &wanted())).is_empty());
}

fn any_shape() -> impl Strategy<Value = ServiceShape> {
    let word = || prop::sample::select(vec!["a", "b", "c", "d"]).prop_map(String::from);
    let words = move || prop::collection::btree_set(word(), 0..4);
    let map = move || prop::collection::btree_map(word(), word(), 0..4);
    let env = prop::collection::btree_map(word(), word(), 0..4)
        .prop_map(|map| map.into_iter().map(|(key, value)| key + "=" + &value).collect());
    let ports = prop::collection::btree_set((80..83_u16, 8080..8082_u16, any::<bool>()), 0..3).prop_map(|ports| {
        let port = |(published, target, host)| {
            published_tcp(
                published,
                target,
                if host { PublishMode::Host } else { PublishMode::Ingress },
            )
        };
        ports.into_iter().map(port).collect()
    });
    (
        (map(), words(), words(), env, ports),
        (0..3_u64, word(), any::<bool>(), map(), map()),
    )
        .prop_map(
            |((labels, networks, constraints, env, ports), (replicas, image, start_first, volumes, secrets))| {
                ServiceShape {
                    name: String::from("proxy"),
                    labels,
                    networks,
                    constraints,
                    env,
                    ports,
                    replicas: Some(replicas),
                    image,
                    volumes,
                    secrets,
                    update: UpdatePolicy {
                        start_first,
                        ..UpdatePolicy::default()
                    },
                    ..ServiceShape::default()
                }
            },
        )
}

proptest! {
    #[test]
    fn one_write_is_enough(wanted in any_shape(), before in any_shape(), edited in any_shape(), labelled: bool) {
        // `edited` is what an operator made of what we wrote for `before`.
        let actual = if labelled { stamped(edited, &before) } else { edited };
        match plan(&wanted, &managed(actual), None) {
            Plan::Update(shape) => prop_assert_eq!(plan(&wanted, &managed(*shape), None), Plan::Nothing),
            Plan::Nothing => {}
            Plan::Recreate => prop_assert!(false, "the mode is the same"),
        }
    }

    #[test]
    fn an_untouched_service_becomes_exactly_as_wanted(wanted in any_shape(), before in any_shape()) {
        let mut wanted = wanted;
        if wanted.ports.iter().any(|port| port.mode == PublishMode::Host) {
            wanted.update.start_first = false;
        }
        match plan(&wanted, &written(&before), None) {
            Plan::Update(shape) => prop_assert_eq!(*shape, stamped(wanted.clone(), &wanted)),
            Plan::Nothing => prop_assert_eq!(wanted, before),
            Plan::Recreate => prop_assert!(false, "the mode is the same"),
        }
    }
}
