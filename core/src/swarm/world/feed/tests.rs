use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use super::super::desk::{Desk, Kind, Truth};
use super::super::*;
use crate::id::Version;
use crate::swarm::model::{DesiredState, EventAction, EventKind, FeedEnd, TaskEvent, TaskState};

const RUNNING: (TaskState, DesiredState) = (TaskState::Running, DesiredState::Running);

fn broken() -> FeedEnd {
    FeedEnd::Broken(ApiError::Unreachable(String::from("test")))
}

fn absent() -> FeedEnd {
    FeedEnd::NotThere(String::from("no such file"))
}

fn set(truth: &mut Truth, task: &str, (state, desired): (TaskState, DesiredState)) {
    let service = task.split('.').next().expect("a service");
    truth.task(task, service, state, desired);
}

fn looks(desk: &Desk) -> Vec<&Fetch> {
    let partial = |(_, fetch): &'_ &(Instant, Fetch)| matches!(fetch, Fetch::Tasks(of) if !of.is_empty());
    desk.fetched.iter().filter(partial).map(|(_, fetch)| fetch).collect()
}

#[test]
fn nobody_who_did_not_ask_for_it_gets_a_feed() {
    let desk = Desk::synced(&Truth::small());
    assert!(desk.feeds.is_empty());
    assert!(!desk.world.is_fed());
}

#[test]
fn a_task_that_is_told_to_stop_is_looked_at_at_once_and_its_service_alone() {
    let mut truth = Truth::small();
    let mut desk = Desk::fed(&truth);
    set(&mut truth, "shop.1", (TaskState::Running, DesiredState::Shutdown));
    desk.tell(&truth, "shop.1");
    assert_eq!(desk.serving("shop"), 2, "the feed changes nothing by itself");
    desk.run(&truth, 7);
    assert_eq!(desk.serving("shop"), 1);
    assert_eq!(looks(&desk), [&Fetch::Tasks(vec![ServiceId::from("shop")])]);
}

#[test]
fn changes_at_one_time_are_one_reason() {
    let mut truth = Truth::small();
    let mut desk = Desk::fed(&truth);
    for task in ["shop.1", "api.1", "shop.2"] {
        set(&mut truth, task, (TaskState::Failed, DesiredState::Running));
        desk.tell(&truth, task);
    }
    desk.run(&truth, 7);
    let both = ["api", "shop"].map(ServiceId::from).to_vec();
    assert_eq!(looks(&desk), [&Fetch::Tasks(both)]);
}

#[test]
fn steps_on_the_way_to_running_are_no_reason_and_running_is() {
    let mut truth = Truth::small();
    let mut desk = Desk::fed(&truth);
    for state in [
        TaskState::New,
        TaskState::Pending,
        TaskState::Assigned,
        TaskState::Preparing,
        TaskState::Ready,
        TaskState::Starting,
    ] {
        set(&mut truth, "shop.3", (state, DesiredState::Running));
        desk.tell(&truth, "shop.3");
        desk.run(&truth, 20);
    }
    assert!(looks(&desk).is_empty(), "{:?}", looks(&desk));
    set(&mut truth, "shop.3", RUNNING);
    desk.tell(&truth, "shop.3");
    desk.run(&truth, 7);
    assert_eq!(desk.serving("shop"), 3);
}

#[test]
fn what_a_list_has_shown_already_is_no_reason() {
    let mut truth = Truth::small();
    let mut desk = Desk::fed(&truth);
    set(&mut truth, "shop.1", (TaskState::Running, DesiredState::Shutdown));
    desk.fact(WorldFact::Look(Lane::Tasks));
    desk.run(&truth, 2);
    desk.tell(&truth, "shop.1");
    assert!(!desk.world.watch.is_wanted());
}

#[test]
fn a_change_that_is_told_during_a_look_is_looked_at_again() {
    let mut truth = Truth::small();
    let mut desk = Desk::fed(&truth);
    set(&mut truth, "shop.1", (TaskState::Running, DesiredState::Shutdown));
    desk.tell(&truth, "shop.1");
    desk.wait(6);
    let look = desk.question(Lane::Tasks, Kind::Look).expect("a look");
    let older = truth.answer(look);
    set(&mut truth, "shop.2", (TaskState::Running, DesiredState::Shutdown));
    desk.tell(&truth, "shop.2");
    desk.answer(Lane::Tasks, Kind::Look, older);
    assert_eq!(desk.serving("shop"), 1);
    desk.run(&truth, 30);
    assert_eq!(desk.serving("shop"), 0);
}

#[test]
fn tasks_of_unknown_services_are_no_reason() {
    let mut truth = Truth::small();
    let mut desk = Desk::fed(&truth);
    truth.task("job.1", "job", TaskState::Running, DesiredState::Running);
    truth.task("attached", "", TaskState::Running, DesiredState::Running);
    desk.tell(&truth, "job.1");
    desk.tell(&truth, "attached");
    desk.wait(100);
    assert!(looks(&desk).is_empty());
}

#[test]
fn a_removal_explains_why_a_list_lacks_a_task_and_removes_nothing_by_itself() {
    let mut truth = Truth::small();
    let mut desk = Desk::fed(&truth);
    let gone = TaskEvent {
        action: EventAction::Remove,
        ..truth.task_event("shop.1")
    };
    truth.tasks.remove(&TaskId::from("shop.1"));
    desk.fact(WorldFact::FeedEvents(vec![gone]));
    assert_eq!(desk.serving("shop"), 2);
    desk.run(&truth, 7);
    assert_eq!(desk.serving("shop"), 1);
}

#[test]
fn a_changing_service_is_polled_rarely_while_the_feed_is_open_and_often_once_it_is_not() {
    let mut truth = Truth::small();
    truth.task("shop.3", "shop", TaskState::Preparing, DesiredState::Running);
    let mut desk = Desk::fed(&truth);
    truth.label("shop", "new");
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.run(&truth, 10_000);
    assert!((17..=24).contains(&looks(&desk).len()), "{}", looks(&desk).len());
    desk.fetched.clear();
    desk.close_feed(absent());
    desk.run(&truth, 1_000);
    assert!(looks(&desk).len() >= 9, "{}", looks(&desk).len());
}

#[test]
fn a_label_costs_few_looks_at_tasks_of_which_the_feed_tells() {
    let mut truth = Truth::small();
    let mut desk = Desk::fed(&truth);
    truth.label("shop", "new");
    desk.event(EventKind::Service, EventAction::Update, "shop");
    desk.run(&truth, 30_000);
    assert!((5..=8).contains(&looks(&desk).len()), "{}", looks(&desk).len());
}

#[test]
fn tasks_of_a_new_service_are_looked_at_when_it_is_listed_though_the_feed_told_of_them_before() {
    let mut truth = Truth::small();
    let mut desk = Desk::fed(&truth);
    truth.service("late", 1);
    set(&mut truth, "late.1", RUNNING);
    desk.tell(&truth, "late.1");
    desk.event(EventKind::Service, EventAction::Create, "late");
    desk.run(&truth, 30);
    assert_eq!(desk.serving("late"), 1);
}

#[test]
fn a_feed_that_broke_is_resumed_from_the_newest_version_and_lists_nothing_then() {
    let mut truth = Truth::small();
    let mut desk = Desk::fed(&truth);
    for task in ["shop.1", "shop.2"] {
        set(&mut truth, task, RUNNING);
        desk.tell(&truth, task);
    }
    // Told late, and older.
    let older = TaskEvent {
        version: Version(1),
        ..truth.task_event("api.1")
    };
    desk.fact(WorldFact::FeedEvents(vec![older]));
    let newest = truth.tasks[&TaskId::from("shop.2")].version;
    desk.run(&truth, 20_000);
    desk.close_feed(broken());
    desk.run(&truth, 150);
    assert_eq!(desk.feeds.last().map(|(_, from)| *from), Some(Some(newest)));
    desk.fetched.clear();
    desk.open_feed();
    desk.run(&truth, 100);
    assert_eq!(desk.count(Lane::Tasks), 0);
}

#[test]
fn a_feed_that_cannot_be_resumed_begins_anew_with_one_list() {
    let mut truth = Truth::small();
    let mut desk = Desk::fed(&truth);
    set(&mut truth, "shop.1", RUNNING);
    desk.tell(&truth, "shop.1");
    desk.run(&truth, 20_000);
    desk.close_feed(broken());
    desk.run(&truth, 150);
    desk.close_feed(FeedEnd::Gap(String::from("versions are out of order")));
    desk.run(&truth, 300);
    assert_eq!(desk.feeds.last().map(|(_, from)| *from), Some(None));
    desk.run(&truth, 2_000);
    desk.fetched.clear();
    desk.open_feed();
    desk.run(&truth, 100);
    assert_eq!(
        desk.fetched
            .iter()
            .filter(|(_, fetch)| *fetch == Fetch::Tasks(vec![]))
            .count(),
        1
    );
}

#[test]
fn a_feed_that_is_not_there_is_asked_for_rarely_and_at_once_when_the_engine_is_back() {
    let truth = Truth::small();
    let mut desk = Desk::fed(&truth);
    desk.close_feed(absent());
    assert_eq!(desk.world.feed_absence(), Some("no such file"));
    let before = desk.feeds.len();
    for _ in 0..1_200 {
        desk.run(&truth, 1_000);
        if desk.world.feed().is_some() {
            desk.close_feed(absent());
        }
    }
    let asked = desk.feeds.len() - before;
    assert!((15..=30).contains(&asked), "{asked} in 20 minutes");
    desk.close();
    desk.run(&truth, 200);
    desk.open();
    desk.run(&truth, 1);
    assert!(desk.world.feed().is_some(), "a new stream: a new chance");
    desk.open_feed();
    assert_eq!(desk.world.feed_absence(), None);
}

#[test]
fn a_feed_that_is_silent_about_what_a_list_shows_is_closed_and_polled_around() {
    let mut truth = Truth::small();
    let mut desk = Desk::fed(&truth);
    truth.label("shop", "an update begins");
    desk.event(EventKind::Service, EventAction::Update, "shop");
    set(&mut truth, "shop.3", (TaskState::Preparing, DesiredState::Running));
    desk.run(&truth, 100);
    assert!(desk.world.is_fed(), "it may be a little late");
    desk.fetched.clear();
    desk.run(&truth, 1_000);
    assert!(
        looks(&desk).len() >= 6,
        "in doubt it is not waited for: {}",
        looks(&desk).len()
    );
    desk.run(&truth, 1_000);
    assert!(!desk.world.is_fed());
    assert_eq!(desk.world.counters().feed_silences, 1);
    // Opened again and silent again, it is tried ever less often.
    let before = desk.feeds.len();
    for round in 0..600 {
        desk.run(&truth, 1_000);
        set(&mut truth, "shop.3", (TaskState::Preparing, DesiredState::Running));
        if desk.world.feed().is_some() && !desk.world.is_fed() {
            desk.open_feed();
        }
        if round % 5 == 0 {
            truth.label("shop", &format!("{round}"));
            desk.event(EventKind::Service, EventAction::Update, "shop");
        }
    }
    let asked = desk.feeds.len() - before;
    assert!((8..=30).contains(&asked), "{asked} in 10 minutes");
}

#[test]
fn a_feed_that_tells_a_little_later_than_a_list_is_trusted() {
    let mut truth = Truth::small();
    let mut desk = Desk::fed(&truth);
    for _ in 0..20 {
        set(&mut truth, "shop.1", RUNNING);
        desk.fact(WorldFact::Look(Lane::Tasks));
        desk.run(&truth, 500);
        desk.tell(&truth, "shop.1");
        desk.run(&truth, 3_000);
    }
    assert_eq!(desk.world.counters().feed_silences, 0);
    assert_eq!(desk.feeds.len(), 1);
}

#[test]
fn a_feed_that_breaks_again_and_again_counts_as_absent() {
    let truth = Truth::small();
    let mut desk = Desk::fed(&truth);
    desk.close_feed(broken());
    assert_eq!(desk.world.feed_absence(), None, "once is nothing to speak of");
    for _ in 0..100 {
        desk.run(&truth, 100);
        if desk.world.feed().is_some() {
            desk.close_feed(broken());
        }
    }
    let why = desk.world.feed_absence().unwrap_or_default();
    assert!(why.contains("broke"), "{why}");
}

#[test]
fn a_quiet_swarm_is_no_silence() {
    let truth = Truth::small();
    let mut desk = Desk::fed(&truth);
    desk.run(&truth, 600_000);
    assert_eq!((desk.feeds.len(), desk.world.counters().feed_silences), (1, 0));
}

#[test]
fn a_hanging_engine_puts_the_feed_in_doubt_too() {
    let mut truth = Truth::small();
    let mut desk = Desk::fed(&truth);
    set(&mut truth, "shop.1", RUNNING);
    desk.tell(&truth, "shop.1");
    desk.run(&truth, 3_000);
    desk.fact(WorldFact::Look(Lane::Nodes));
    desk.answer(
        Lane::Nodes,
        Kind::List,
        Err(ApiError::Unreachable(String::from("test"))),
    );
    desk.run(&truth, 150);
    assert_eq!(desk.feeds.len(), 2, "a feed may die without a word");
    assert!(desk.feeds[1].1.is_some());
}

#[test]
fn an_opening_without_an_answer_is_given_up() {
    let truth = Truth::small();
    let settings = WorldSettings {
        feed: true,
        ..WorldSettings::default()
    };
    let mut desk = Desk::with(settings);
    desk.open();
    desk.run(&truth, 11_000);
    assert_eq!(desk.feeds.len(), 2);
    assert!(desk.world.is_synced(), "nothing waits for the feed");
}

#[test]
fn tasks_are_as_fresh_as_the_feed_is_gapless() {
    let mut truth = Truth::small();
    let mut desk = Desk::fed(&truth);
    let age = |desk: &Desk| desk.world.age(Lane::Tasks, desk.now).expect("listed");
    desk.run(&truth, 3_000);
    assert_eq!(age(&desk), Duration::ZERO);
    set(&mut truth, "shop.1", (TaskState::Running, DesiredState::Shutdown));
    desk.tell(&truth, "shop.1");
    assert!(age(&desk) > Duration::ZERO, "a look is due");
    desk.run(&truth, 50);
    assert_eq!(age(&desk), Duration::ZERO);
    desk.close_feed(broken());
    assert!(age(&desk) > Duration::ZERO);
}

#[test]
fn a_world_with_a_feed_survives_its_checkpoint() {
    let mut truth = Truth::small();
    let mut desk = Desk::fed(&truth);
    set(&mut truth, "shop.1", (TaskState::Running, DesiredState::Shutdown));
    desk.tell(&truth, "shop.1");
    let text = serde_json::to_string(&desk.world).expect("plain data");
    let settings = desk.world.settings.clone();
    let world: World = serde_json::from_str(&text).expect("its own text");
    desk.world = world.with_settings(settings);
    desk.run(&truth, 7);
    assert_eq!(desk.serving("shop"), 1);
}
