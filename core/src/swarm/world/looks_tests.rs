//! Looks at some objects beside the list of all, answered in any order.

use super::desk::{Desk, Kind, Truth};
use super::*;
use crate::swarm::model::{DesiredState, EventAction, EventKind, TaskState};

/// Swarm and world at rest, with the list of `lane` under way: what Docker reads for it is `Truth` as it is now.
fn listing(lane: Lane) -> (Truth, Truth, Desk) {
    let truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    desk.fact(WorldFact::Look(lane));
    assert!(desk.question(lane, Kind::List).is_some());
    (truth.clone(), truth, desk)
}

fn stop_one_of_shop(truth: &mut Truth) {
    truth.task("shop.1", "shop", TaskState::Running, DesiredState::Shutdown);
    truth.task("shop.3", "shop", TaskState::Running, DesiredState::Running);
}

/// `shop` changes, and the look that this causes goes out.
fn look_at_shop(desk: &mut Desk) {
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.wait(6);
}

fn answer(desk: &mut Desk, lane: Lane, kind: Kind, truth: &Truth) {
    let fetch = desk.question(lane, kind).expect("it is asked").clone();
    desk.answer(lane, kind, truth.answer(&fetch));
}

/// Nothing was taken for the word of a manager that is behind, and nothing counts as missing.
fn is_calm(desk: &Desk) -> bool {
    let counters = desk.world.counters();
    (counters.outdated, counters.kept) == (0, 0) && desk.world.behind_at.is_none()
}

#[test]
fn a_look_at_tasks_does_not_wait_for_the_list_of_all() {
    let (before, mut truth, mut desk) = listing(Lane::Tasks);
    stop_one_of_shop(&mut truth);
    look_at_shop(&mut desk);
    answer(&mut desk, Lane::Tasks, Kind::Look, &truth);
    let serving = |desk: &Desk| {
        let tasks = desk
            .world
            .tasks_of(&ServiceId::from("shop"))
            .filter(|task| task.is_serving());
        tasks.map(|task| task.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(serving(&desk), ["shop.2", "shop.3"]);
    // The list was read before that. Of other services it tells something new.
    let mut listed = before;
    listed.task("api.2", "api", TaskState::Running, DesiredState::Running);
    answer(&mut desk, Lane::Tasks, Kind::List, &listed);
    assert_eq!(serving(&desk), ["shop.2", "shop.3"]);
    assert_eq!(desk.serving("api"), 2);
    assert!(is_calm(&desk));
}

#[test]
fn a_look_that_is_answered_after_a_later_list_says_nothing() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    let before = truth.clone();
    look_at_shop(&mut desk);
    desk.wait(1);
    desk.fact(WorldFact::Look(Lane::Tasks));
    stop_one_of_shop(&mut truth);
    answer(&mut desk, Lane::Tasks, Kind::List, &truth);
    answer(&mut desk, Lane::Tasks, Kind::Look, &before);
    assert_eq!(desk.serving("shop"), 2);
    assert!(is_calm(&desk));
    desk.run(&truth, 300);
    assert!(desk.count(Lane::Tasks) > 2, "shop is watched on");
}

#[test]
fn a_service_of_which_a_look_told_is_not_missing_in_an_earlier_list() {
    let (before, mut truth, mut desk) = listing(Lane::Services);
    truth.service("late", 1);
    desk.event(EventKind::Service, EventAction::Create, "late");
    desk.wait(6);
    answer(&mut desk, Lane::Services, Kind::Look, &truth);
    assert_eq!(desk.services(), ["api", "late", "shop"]);
    answer(&mut desk, Lane::Services, Kind::List, &before);
    assert_eq!(desk.services(), ["api", "late", "shop"]);
    assert!(is_calm(&desk));
}

#[test]
fn a_list_that_was_sent_later_and_answered_first_stands() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    let before = truth.clone();
    look_at_shop(&mut desk);
    desk.wait(1);
    desk.fact(WorldFact::Look(Lane::Services));
    truth.label("shop", "new");
    answer(&mut desk, Lane::Services, Kind::List, &truth);
    answer(&mut desk, Lane::Services, Kind::Look, &before);
    assert_eq!(*desk.world.services(), truth.services);
    assert!(is_calm(&desk));
}

#[test]
fn of_two_questions_of_one_moment_the_first_answer_stands() {
    for kinds in [[Kind::Look, Kind::List], [Kind::List, Kind::Look]] {
        let mut truth = Truth::small();
        let mut desk = Desk::synced(&truth);
        let before = truth.clone();
        // A reason for both at once.
        desk.event(EventKind::Node, EventAction::Update, "worker");
        desk.wait(6);
        let sent = |kind| desk.sent_at(Lane::Tasks, kind);
        assert_eq!(sent(Kind::Look), sent(Kind::List));
        stop_one_of_shop(&mut truth);
        answer(&mut desk, Lane::Tasks, kinds[0], &truth);
        answer(&mut desk, Lane::Tasks, kinds[1], &before);
        assert_eq!(desk.serving("shop"), 2);
        assert!(is_calm(&desk));
    }
}

#[test]
fn a_list_that_fails_beside_looks_that_do_not_is_asked_less_and_less_often() {
    for fails in [Kind::List, Kind::Look] {
        let mut truth = Truth::small();
        let mut desk = Desk::synced(&truth);
        // It never comes to rest.
        truth.service("shop", 5);
        look_at_shop(&mut desk);
        desk.fact(WorldFact::Look(Lane::Tasks));
        desk.run_with(10_000, |fetch| {
            if fetch.lane() == Lane::Tasks && Kind::of(fetch) == fails {
                Err(ApiError::Server("too much".to_string()))
            } else {
                truth.answer(fetch)
            }
        });
        for lane in Lane::ALL {
            let asked = |kind| {
                desk.fetched
                    .iter()
                    .filter(|(_, fetch)| fetch.lane() == lane && Kind::of(fetch) == kind)
                    .count()
            };
            // Pauses of 0.1, 0.2, … 2 s; after each that is over everything is listed once more.
            assert!(asked(Kind::List) <= 20, "{lane:?}, {fails:?}: {}", asked(Kind::List));
            if lane == Lane::Tasks {
                let looks = asked(Kind::Look);
                assert_eq!(looks > 12, fails == Kind::List, "{looks} looks");
            }
        }
        let is_trouble = desk.world.troubles().contains_key(&Lane::Tasks);
        assert!(is_trouble || fails == Kind::Look);
    }
}

#[test]
fn a_look_that_fails_has_everything_listed_and_is_asked_again() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    stop_one_of_shop(&mut truth);
    look_at_shop(&mut desk);
    let failed = desk.question(Lane::Tasks, Kind::Look).expect("a look").clone();
    desk.run_with(11_000, |fetch| {
        if *fetch == failed {
            Err(ApiError::Unreachable("no".to_string()))
        } else {
            truth.answer(fetch)
        }
    });
    assert_eq!(desk.serving("shop"), 2, "the list tells of it");
    desk.fetched.clear();
    desk.run(&truth, 3_000);
    assert!(desk.fetched.iter().any(|(_, fetch)| *fetch == failed));
}

#[test]
fn a_look_that_hangs_counts_as_lost_and_is_asked_again() {
    let mut truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    look_at_shop(&mut desk);
    let (hung, look) = desk.asked.remove(&(Lane::Tasks, Kind::Look)).expect("a look");
    stop_one_of_shop(&mut truth);
    desk.run(&truth, 11_000);
    let again = |desk: &Desk| desk.fetched.iter().filter(|(_, fetch)| *fetch == look).count();
    assert!(again(&desk) >= 2, "{}", again(&desk));
    // What comes after all is no answer any more.
    let serving = desk.serving("shop");
    desk.fact(WorldFact::Answer {
        id: hung,
        result: Truth::small().answer(&look),
    });
    assert_eq!((serving, desk.serving("shop")), (2, 2));
    assert!(is_calm(&desk));
}

#[test]
fn a_look_in_the_place_of_a_list_in_an_earlier_checkpoint_moves() {
    let truth = Truth::small();
    let mut desk = Desk::synced(&truth);
    look_at_shop(&mut desk);
    let schedule = desk.world.lane(Lane::Tasks);
    schedule.flight = schedule.look.take();
    let text = serde_json::to_string(&desk.world).expect("a world is plain data");
    let read: World = serde_json::from_str(&text).expect("it is read");
    desk.world = read.with_settings(WorldSettings::default());
    desk.world.check_invariants();
    answer(&mut desk, Lane::Tasks, Kind::Look, &truth);
    assert!(desk.world.lane(Lane::Tasks).look.is_none());
}
