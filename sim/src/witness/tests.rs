use tidegate_core::id::{EndpointId, ServiceId};
use tidegate_core::route::spec::{EndpointSpec, Leaving, RouteSpec};

use super::*;

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

#[test]
fn what_is_kept_to_a_task_that_leaves_is_told_and_what_is_under_way_is_not() {
    let witness = Witness::default();
    let (proxy, task) = (IpAddr::from([10, 0, 0, 9]), TaskId::from("t1"));
    let own = IpAddr::from([10, 0, 0, 7]);
    let idle = witness.opens(proxy, &task, own, at(0));
    let busy = witness.opens(proxy, &task, own, at(0));
    witness.begins(busy, at(1));
    witness
        .left
        .borrow_mut()
        .insert((proxy, task), ("shop".to_owned(), at(1000)));
    witness.judge_idle(at(1500));
    assert_eq!(witness.broken(), [""; 0], "it may have been under way");
    witness.judge_idle(at(1700));
    assert!(
        witness.broken()[0].contains("keeps a connection to task t1 700ms after"),
        "{:?}",
        witness.broken()
    );
    witness.closes(idle);
    witness.judge_idle(at(9000));
    assert_eq!(witness.broken().len(), 1, "its request goes on");
    witness.finishes(busy, at(9000));
    witness.unreachable(own, at(9001));
    witness.judge_idle(at(9700));
    assert_eq!(witness.broken().len(), 1, "it cannot hear of its end");
    witness.reachable(own, at(9800));
    witness.judge_idle(at(10_500));
    assert_eq!(witness.broken().len(), 2);
}

#[test]
fn a_task_that_leaves_may_be_used_while_the_others_cannot_answer() {
    let witness = Witness::default();
    let (proxy, cluster) = (IpAddr::from([10, 0, 0, 9]), ClusterName::from("default"));
    let [leaving, other] = ["t1", "t2"].map(TaskId::from);
    let mut spec = RouteSpec::new(ServiceId::from("s1"), "shop", "2024-01-01T00:00:00Z");
    spec.endpoints = [&leaving, &other]
        .map(|task| EndpointSpec {
            id: EndpointId::from(task.as_str()),
            addr: ([10, 0, 0, 7], 80).into(),
            via: None,
            node: None,
            leaving: (*task == leaving).then_some(Leaving { last_resort_ms: 2500 }),
            unsure: false,
        })
        .into();
    let snapshot = Snapshot {
        routes: [(spec.service.clone(), Arc::new(spec))].into(),
        ..Snapshot::default()
    };
    witness.table(proxy, &cluster, &Arc::new(snapshot), at(1000));
    witness.sees(&other, true, at(0));
    let is_told = |now| witness.left_long_ago(proxy, &leaving, now).is_some();
    assert!(is_told(at(2000)));
    witness.sees(&other, false, at(2000));
    assert!(!is_told(at(60_000)), "there is nothing else, however long");
    witness.sees(&other, true, at(60_000));
    assert!(!is_told(at(69_000)), "it may still rest");
    assert!(is_told(at(71_000)));
}

#[test]
fn a_proxy_that_stops_unannounced_may_refuse_what_comes_later_and_nothing_else() {
    let (witness, proxy) = (Witness::default(), IpAddr::from([10, 0, 0, 9]));
    witness.refuses(proxy, at(1000));
    assert!(!witness.was_refusing(proxy, at(999)), "it answers what it has");
    assert!(witness.was_refusing(proxy, at(1000)) && !witness.was_unreachable(proxy, at(0), at(2000)));
    witness.reachable(proxy, at(3000));
    assert!(!witness.was_refusing(proxy, at(3001)));
}

#[test]
fn more_at_a_task_than_may_be_is_told() {
    let witness = Witness::default();
    let (proxy, task) = (IpAddr::from([10, 0, 0, 9]), TaskId::from("t1"));
    witness.bound(&task, 1);
    let lines = [0, 0].map(|ms| witness.opens(proxy, &task, [10, 0, 0, 7].into(), at(ms)));
    witness.begins(lines[0], at(1));
    witness.finishes(lines[0], at(2));
    witness.begins(lines[1], at(3));
    assert_eq!(witness.broken(), [""; 0]);
    witness.begins(lines[0], at(4));
    assert_eq!(
        witness.broken(),
        ["0.004s: proxy 10.0.0.9 has 2 requests at task t1, 1 at most were due"]
    );
}

#[test]
fn a_request_that_may_be_sent_once_reaches_one_task() {
    let (witness, proxy) = (Witness::default(), IpAddr::from([10, 0, 0, 9]));
    let now = Instant::START;
    for _ in 0..SENT_MAX {
        witness.arrives_as("get-1", true, "shop", proxy, now);
    }
    witness.arrives_as("post-1", false, "shop", proxy, now);
    assert!(witness.broken().is_empty());
    witness.arrives_as("get-1", true, "shop", proxy, now);
    witness.arrives_as("post-1", false, "shop", proxy, now);
    let broken = witness.broken();
    assert!(
        broken[0].contains("request get-1 reached tasks 6 times, 5 at most"),
        "{broken:?}"
    );
    assert!(
        broken[1].contains("request post-1 reached tasks 2 times, 1 at most"),
        "{broken:?}"
    );
}
