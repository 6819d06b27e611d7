use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use super::desk::{Desk, Kind, Truth};
use super::*;
use crate::swarm::model::{DesiredState, EventAction, EventKind, NodeState, TaskState};

fn unreachable() -> ApiError {
    ApiError::Unreachable(String::from("test"))
}

#[test]
fn the_event_stream_is_opened_before_anything_is_listed() {
    let mut desk = Desk::new();
    assert_eq!((desk.opened, desk.asked.len()), (1, 0));
    desk.open();
    let lanes: Vec<_> = desk.asked.keys().map(|(lane, _)| *lane).collect();
    // Tasks follow when the services are known.
    assert_eq!(
        lanes,
        [
            Lane::Managed,
            Lane::Networks,
            Lane::Nodes,
            Lane::Secrets,
            Lane::Services
        ]
    );
    desk.run(&Truth::small(), 10);
    assert!(desk.world.is_synced());
    assert_eq!(desk.synced, 1);
    assert_eq!(desk.serving("shop"), 2);
}

#[test]
fn lists_are_read_even_if_events_cannot_be_had() {
    let mut desk = Desk::new();
    desk.close();
    desk.run(&Truth::small(), 50);
    assert!(desk.world.is_synced());
    assert!(!desk.world.is_following());
}

#[test]
fn an_event_has_its_service_asked_for_and_no_other_one() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.label("shop", "new");
    truth.label("api", "new");
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.wait(6);
    let [shop, api] = ["shop", "api"].map(ServiceId::from);
    let of_shop = Fetch::Services(vec![shop.clone()]);
    assert_eq!(desk.question(Lane::Services, Kind::Look), Some(&of_shop));
    // An event during the question is a reason to ask once more.
    desk.event(EventKind::Service, EventAction::Update, "api");
    desk.answer(Lane::Services, Kind::Look, truth.answer(&of_shop));
    assert_eq!(desk.changes.services, BTreeSet::from([shop]));
    desk.run(&truth, 60);
    assert!(desk.changes.services.contains(&api));
    assert_eq!(desk.services(), ["api", "shop"], "who was not asked for is not missing");
    let asked = |fetch: &Fetch| desk.fetched.iter().filter(|(_, other)| other == fetch).count();
    assert_eq!(asked(&Fetch::Services(vec![api])), 1);
    assert_eq!(asked(&Fetch::Services(Vec::new())), 0);
    assert_eq!(asked(&Fetch::Managed), 0, "neither is managed");
}

#[test]
fn events_of_many_services_have_all_listed_once() {
    let mut truth = Truth::small();
    let names: Vec<String> = (0..30).map(|number| format!("s{number}")).collect();
    for name in &names {
        truth.service(name, 0);
    }
    let mut desk = Desk::synced(&truth);
    for name in &names {
        truth.label(name, "new");
        desk.event(EventKind::Service, EventAction::Update, name);
    }
    desk.run(&truth, 12);
    assert_eq!(desk.changes.services.len(), names.len());
    assert_eq!(desk.count(Lane::Services), 1);
    assert!(
        desk.fetched
            .iter()
            .any(|(_, fetch)| *fetch == Fetch::Services(Vec::new()))
    );
}

#[test]
fn a_changed_label_is_read_after_one_event_and_changes_that_service_alone() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.label("shop", "new");
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.run(&truth, 12);
    assert_eq!(desk.changes.services, BTreeSet::from([ServiceId::from("shop")]));
    assert_eq!(
        desk.changes,
        Changes {
            services: desk.changes.services.clone(),
            ..Changes::default()
        }
    );
}

#[test]
fn a_task_that_is_told_to_stop_is_seen_within_the_polling_interval() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.label("shop", "an update begins");
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.run(&truth, 700);
    assert_eq!(desk.serving("shop"), 2);
    // No event says this.
    truth.task("shop.1", "shop", TaskState::Running, DesiredState::Shutdown);
    desk.run(&truth, 210);
    assert_eq!(desk.serving("shop"), 1);
    let leaving = desk
        .world
        .tasks_of(&ServiceId::from("shop"))
        .find(|task| task.is_leaving());
    assert!(leaving.is_some(), "a leaving task stays known");
}

#[test]
fn desired_remove_counts_as_leaving_like_shutdown() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.service("shop", 1);
    truth.task("shop.2", "shop", TaskState::Running, DesiredState::Remove);
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.run(&truth, 20);
    assert_eq!(desk.serving("shop"), 1);
}

#[test]
fn a_service_at_rest_is_left_alone_after_a_while() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.label("shop", "new");
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.run(&truth, 20_000);
    desk.fetched.clear();
    desk.run(&truth, 60_000);
    let some = desk
        .fetched
        .iter()
        .filter(|(_, fetch)| matches!(fetch, Fetch::Tasks(of) if !of.is_empty()));
    assert_eq!(some.count(), 0);
    // All tasks every 5 s, five other lists every 30 s.
    assert!((20..=25).contains(&desk.fetched.len()), "{}", desk.fetched.len());
}

#[test]
fn rest_is_judged_by_tasks_alone() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.label("shop", "stop-first");
    truth.task("shop.1", "shop", TaskState::Running, DesiredState::Shutdown);
    truth.task("shop.3", "shop", TaskState::Ready, DesiredState::Ready);
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.run(&truth, 5_000);
    desk.fetched.clear();
    desk.run(&truth, 1_000);
    assert!(
        desk.count(Lane::Tasks) >= 9,
        "polled at 100 ms while a task is between states"
    );
    truth.task("shop.1", "shop", TaskState::Shutdown, DesiredState::Shutdown);
    truth.task("shop.3", "shop", TaskState::Running, DesiredState::Running);
    desk.run(&truth, 150);
    assert_eq!(desk.serving("shop"), 2);
}

#[test]
fn a_service_that_never_rests_is_polled_more_slowly_and_then_left_to_the_regular_look() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.service("shop", 3);
    truth.task("shop.3", "shop", TaskState::Pending, DesiredState::Running);
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.run(&truth, 61_000);
    desk.fetched.clear();
    desk.run(&truth, 60_000);
    assert!(
        (50..=75).contains(&desk.count(Lane::Tasks)),
        "{}",
        desk.count(Lane::Tasks)
    );
    desk.run(&truth, 600_000);
    desk.fetched.clear();
    desk.run(&truth, 60_000);
    assert_eq!(desk.count(Lane::Tasks), 12);
}

#[test]
fn tasks_of_a_dead_node_are_at_rest_though_they_say_running() {
    let mut truth = Truth::small();
    truth.node("worker", NodeState::Down);
    for task in ["shop.1", "shop.2"] {
        truth.task(task, "shop", TaskState::Running, DesiredState::Shutdown);
    }
    truth.service("shop", 0);
    let mut desk = Desk::synced(&truth);
    desk.run(&truth, 60_000);
    let some = desk
        .fetched
        .iter()
        .filter(|(_, fetch)| matches!(fetch, Fetch::Tasks(of) if !of.is_empty()));
    assert_eq!(some.count(), 0);
    assert_eq!(desk.serving("shop"), 0);
}

#[test]
fn a_node_event_leads_to_a_look_at_the_tasks_on_that_node() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.node("worker", NodeState::Down);
    desk.event(EventKind::Node, EventAction::Update, "worker");
    desk.run(&truth, 30);
    truth.task("api.1", "api", TaskState::Running, DesiredState::Shutdown);
    desk.run(&truth, 210);
    assert_eq!(desk.serving("api"), 0);
}

#[test]
fn a_node_that_is_unknown_stays_what_it_was() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.node("worker", NodeState::Unknown);
    desk.event(EventKind::Node, EventAction::Update, "worker");
    desk.run(&truth, 1_000);
    assert_eq!(desk.world.nodes()[&NodeId::from("worker")].state, NodeState::Ready);
    assert!(desk.changes.is_empty(), "{:?}", desk.changes);
}

#[test]
fn no_error_removes_anything() {
    let errors = [
        ApiError::NotManager(String::from("This node is not a swarm manager.")),
        ApiError::Server(String::from("The swarm does not have a leader.")),
        ApiError::Garbled(String::from("EOF while parsing")),
        unreachable(),
        ApiError::NotFound(String::new()),
        ApiError::Refused(String::new()),
    ];
    for error in errors {
        let truth = Truth::small();
        let mut desk = Desk::synced(&truth);
        desk.event(EventKind::Service, EventAction::Update, "shop");
        desk.run_with(120_000, |_| Err(error.clone()));
        assert_eq!(desk.services(), ["api", "shop"]);
        assert_eq!(desk.serving("shop"), 2);
        assert!(desk.changes.is_empty(), "{:?}", desk.changes);
        assert!(desk.world.staleness(desk.now).expect("was synced") > Duration::from_secs(100));
        // Back-off ends at two seconds: six lanes, half a question a second each.
        assert!(desk.fetched.len() < 500, "{error}: {}", desk.fetched.len());
    }
}

#[test]
fn an_error_on_one_list_lists_everything_again_afterwards() {
    let truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.wait(6);
    desk.answer(Lane::Services, Kind::Look, Err(ApiError::Server(String::new())));
    desk.fetched.clear();
    desk.run(&truth, 200);
    for lane in Lane::ALL {
        assert!(desk.count(lane) >= 1, "{lane:?} is not listed again");
    }
}

#[test]
fn an_empty_list_that_nothing_explains_removes_nothing_for_a_while() {
    let truth = Truth::small();
    let nothing = Truth {
        services: BTreeMap::new(),
        tasks: BTreeMap::new(),
        ..truth.clone()
    };
    let mut desk = Desk::synced(&truth);
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.run(&nothing, 9_000);
    assert_eq!(desk.services(), ["api", "shop"]);
    assert_eq!(desk.serving("shop"), 2);
    desk.run(&truth, 2_000);
    assert!(desk.changes.is_empty(), "{:?}", desk.changes);
    // If it stays empty, it is.
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.run(&nothing, 15_000);
    assert_eq!(desk.services(), [""; 0]);
}

#[test]
fn a_removed_service_goes_with_the_next_list_and_its_event() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.remove("api");
    desk.event(EventKind::Service, EventAction::Remove, "api");
    assert_eq!(desk.services(), ["api", "shop"], "the event alone removes nothing");
    desk.run(&truth, 12);
    assert_eq!(desk.services(), ["shop"]);
    assert_eq!(desk.changes.services, BTreeSet::from([ServiceId::from("api")]));
}

#[test]
fn a_service_that_is_missing_without_an_event_goes_with_a_second_list() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.remove("api");
    desk.fact(WorldFact::Look(Lane::Services));
    desk.run(&truth, 900);
    assert_eq!(desk.services(), ["api", "shop"]);
    desk.run(&truth, 200);
    assert_eq!(desk.services(), ["shop"]);
}

#[test]
fn an_old_list_brings_no_removed_service_back() {
    let mut truth = Truth::small();
    let old = truth.clone();
    let mut desk = Desk::synced(&truth);
    truth.remove("api");
    desk.event(EventKind::Service, EventAction::Remove, "api");
    desk.run(&truth, 100);
    desk.fact(WorldFact::Look(Lane::Services));
    desk.run(&old, 60);
    assert_eq!(desk.services(), ["shop"]);
    // The name may return, with another id.
    truth.service("api-again", 1);
    desk.event(EventKind::Service, EventAction::Create, "api-again");
    desk.run(&truth, 500);
    assert_eq!(desk.services(), ["api-again", "shop"]);
}

#[test]
fn the_world_never_goes_back_to_an_older_object() {
    let mut truth = Truth::small();
    let old = truth.clone();
    truth.label("shop", "new");
    truth.task("shop.1", "shop", TaskState::Running, DesiredState::Shutdown);
    truth.service("late", 1);
    truth.task("late.1", "late", TaskState::Running, DesiredState::Running);
    let mut desk = Desk::synced(&truth);
    // A leader that was cut off answers with what it knew then: it lacks `late` as well.
    for lane in Lane::ALL {
        desk.fact(WorldFact::Look(lane));
    }
    desk.run_with(10_000, |fetch| old.answer(&super::simulation::whole(fetch.clone())));
    assert_eq!(desk.services(), ["api", "late", "shop"]);
    assert_eq!(desk.serving("late"), 1);
    assert_eq!(desk.serving("shop"), 1);
    assert!(desk.changes.is_empty(), "{:?}", desk.changes);
    assert!(desk.world.counters().outdated > 0);
}

#[test]
fn a_late_answer_to_an_older_question_is_dropped() {
    let truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    desk.fact(WorldFact::Look(Lane::Services));
    let place = (Lane::Services, Kind::List);
    let (old, _) = desk.asked[&place].clone();
    desk.asked.clear();
    // The shell never answered; the world asks again.
    desk.wait(11_000);
    assert_ne!(desk.asked[&place].0, old);
    desk.fact(WorldFact::Answer {
        id: old,
        result: Ok(Answer::Services(Vec::new())),
    });
    assert_eq!(desk.services(), ["api", "shop"]);
    assert_eq!(desk.world.counters().kept, 0);
}

#[test]
fn replayed_history_causes_few_looks_and_no_change() {
    let truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    for round in 0..2_000 {
        let action = [EventAction::Create, EventAction::Update, EventAction::Remove][round % 3];
        desk.event(EventKind::Service, action, &format!("gone-{round}"));
        if round % 70 == 0 {
            desk.run(&truth, 1);
        }
    }
    desk.run(&truth, 1_000);
    assert!(desk.changes.is_empty(), "{:?}", desk.changes);
    assert!(desk.count(Lane::Services) <= 4, "{}", desk.count(Lane::Services));
    assert_eq!(
        desk.world.absent.services.size(),
        0,
        "nothing is remembered of strangers"
    );
}

#[test]
fn networks_that_are_in_use_survive_a_list_without_them() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    let full = truth.clone();
    truth.networks.clear();
    desk.fact(WorldFact::Look(Lane::Networks));
    desk.run(&truth, 60_000);
    let known: Vec<_> = desk.world.networks().keys().map(NetworkId::as_str).collect();
    assert_eq!(
        known,
        ["edge"],
        "the one that a service names stays, the other goes in time"
    );
    desk.run(&full, 60_000);
    assert_eq!(desk.world.networks().len(), 2);
}

#[test]
fn no_network_goes_while_services_cannot_be_listed() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.networks.clear();
    let no_leader = || ApiError::Server(String::from("The swarm does not have a leader."));
    desk.fact(WorldFact::Look(Lane::Networks));
    desk.fact(WorldFact::Look(Lane::Services));
    desk.answer(Lane::Services, Kind::List, Err(no_leader()));
    desk.run_with(60_000, |fetch| {
        if fetch.lane() == Lane::Networks {
            truth.answer(fetch)
        } else {
            Err(no_leader())
        }
    });
    assert_eq!(desk.world.networks().len(), 2);
    assert!(desk.changes.is_empty(), "{:?}", desk.changes);
}

#[test]
fn a_removed_network_goes_with_its_event() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.networks.remove(&NetworkId::from("back"));
    desk.event(EventKind::Network, EventAction::Remove, "back");
    desk.run(&truth, 20);
    assert_eq!(desk.changes.networks, BTreeSet::from([NetworkId::from("back")]));
}

#[test]
fn a_serving_task_does_not_vanish_at_once_but_an_ended_one_does() {
    let mut truth = Truth::small();
    truth.task("shop.0", "shop", TaskState::Shutdown, DesiredState::Shutdown);
    let mut desk = Desk::synced(&truth);
    for task in ["shop.0", "shop.1"] {
        truth.tasks.remove(&TaskId::from(task));
    }
    desk.fact(WorldFact::Look(Lane::Tasks));
    desk.run(&truth, 100);
    let known = |desk: &Desk| desk.world.tasks_of(&ServiceId::from("shop")).count();
    assert_eq!(known(&desk), 2);
    desk.run(&truth, 2_000);
    assert_eq!(known(&desk), 1);
}

#[test]
fn tasks_of_finished_jobs_cause_one_look_and_no_more() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.task("job.1", "gone-job", TaskState::Complete, DesiredState::Complete);
    desk.run(&truth, 6_000);
    assert_eq!(desk.count(Lane::Services), 1);
    desk.fetched.clear();
    desk.run(&truth, 20_000);
    assert!(desk.count(Lane::Services) <= 1, "{}", desk.count(Lane::Services));
    assert_eq!(desk.world.tasks_of(&ServiceId::from("gone-job")).count(), 0);
}

#[test]
fn a_service_that_docker_does_not_know_spoils_the_look_at_others_only_once() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    truth.remove("api");
    desk.event(EventKind::Service, EventAction::Update, "api");
    desk.event(EventKind::Service, EventAction::Update, "shop");
    truth.task("shop.1", "shop", TaskState::Running, DesiredState::Shutdown);
    desk.run(&truth, 120);
    assert_eq!(desk.serving("shop"), 1);
    desk.run(&truth, 2_000);
    assert_eq!(desk.services(), ["shop"]);
}

#[test]
fn many_changing_services_are_looked_at_together() {
    let mut truth = Truth::small();
    for n in 0..100 {
        truth.service(&format!("s{n}"), 1);
    }
    let mut desk = Desk::synced(&truth);
    for n in 0..100 {
        desk.event(EventKind::Service, EventAction::Update, &format!("s{n}"));
    }
    desk.run(&truth, 30);
    assert!(desk.fetched.iter().any(|(_, fetch)| *fetch == Fetch::Tasks(Vec::new())));
    assert!(
        desk.fetched
            .iter()
            .all(|(_, fetch)| !matches!(fetch, Fetch::Tasks(of) if of.len() > 20))
    );
}

#[test]
fn a_stream_that_ends_is_opened_again_with_back_off_and_a_full_list() {
    let truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    let before = desk.opened;
    desk.close();
    assert_eq!(desk.opened, before);
    desk.run(&truth, 110);
    assert_eq!(desk.opened, before + 1);
    desk.fetched.clear();
    desk.open();
    desk.run(&truth, 100);
    for lane in Lane::ALL {
        assert!(desk.count(lane) >= 1, "{lane:?} is not listed again");
    }
}

#[test]
fn a_stream_that_ends_at_once_each_time_is_no_tight_loop() {
    let truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    let before = desk.opened;
    desk.close();
    for _ in 0..600 {
        desk.run(&truth, 100);
        if !desk.world.is_following() {
            desk.open();
            desk.close();
        }
    }
    assert!(desk.opened - before < 40, "{}", desk.opened - before);
}

#[test]
fn a_hanging_engine_puts_the_stream_in_doubt() {
    let truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    let before = desk.opened;
    desk.fact(WorldFact::Look(Lane::Nodes));
    desk.answer(Lane::Nodes, Kind::List, Err(unreachable()));
    desk.run(&truth, 150);
    assert_eq!(desk.opened, before + 1, "a stream may die without a word");
}

#[test]
fn an_event_during_a_list_lists_again() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    desk.fact(WorldFact::Look(Lane::Services));
    let old = truth.answer(&Fetch::Services(Vec::new()));
    truth.label("shop", "new");
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.answer(Lane::Services, Kind::List, old);
    desk.run(&truth, 80);
    assert!(desk.changes.services.contains(&ServiceId::from("shop")));
}

#[test]
fn staleness_is_that_of_the_oldest_list_that_nothing_follows() {
    let truth = Truth::small();
    let mut desk = Desk::new();
    assert_eq!(desk.world.staleness(desk.now), None);
    desk.open();
    desk.run(&truth, 20_000);
    assert!(desk.world.staleness(desk.now).expect("synced") <= Duration::from_secs(5));
    desk.wait(30_000);
    assert!(desk.world.staleness(desk.now).expect("synced") >= Duration::from_secs(25));
}

#[test]
fn settings_of_the_controller_set_the_pace() {
    let settings = WorldSettings::from(&crate::settings::ControllerSettings {
        poll_tasks_ms: 0,
        poll_changing_ms: 20,
        ..Default::default()
    });
    assert_eq!(settings.poll_changing, Duration::from_millis(20));
    assert!(settings.tasks_every > Duration::ZERO, "zero would be a tight loop");
}
