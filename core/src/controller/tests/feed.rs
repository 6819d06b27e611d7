//! The simulated Swarm's feed, and a controller that follows it.

use super::*;
use crate::id::Version;
use crate::simulated::TaskLog;
use crate::swarm::model::FeedEnd;

/// Who follows, and what there is to tell.
#[derive(Default)]
pub(super) struct Feeds {
    open: BTreeSet<usize>,
    log: TaskLog,
    /// None = there is a socket.
    absent: Option<String>,
}

impl Harness {
    pub(super) fn open_feed(&mut self, to: usize, stream: StreamId, from: Option<Version>) -> ControllerFact {
        let missed = match (&self.feeds.absent, from) {
            (Some(why), _) => Err(FeedEnd::NotThere(why.clone())),
            (None, Some(from)) => self.feeds.log.since(from),
            (None, None) => Ok(Vec::new()),
        };
        ControllerFact::World(match missed {
            Ok(missed) => {
                self.feeds.open.insert(to);
                let fact = ControllerFact::World(WorldFact::FeedEvents(missed));
                let at = self.now + Duration::from_millis(5);
                self.mail.push(Mail { at, to, fact });
                WorldFact::FeedOpened(stream)
            }
            Err(end) => WorldFact::FeedClosed { stream, end },
        })
    }

    pub(super) fn tell_tasks(&mut self) {
        let news = self.feeds.log.look(&self.swarm);
        if news.is_empty() {
            return;
        }
        for to in self.feeds.open.iter().copied() {
            let fact = ControllerFact::World(WorldFact::FeedEvents(news.clone()));
            self.mail.push(Mail { at: self.now, to, fact });
        }
    }
}

pub(super) fn following() -> Settings {
    let mut settings = Settings::default();
    settings.controller.swarm_watch = "/run/control.sock".to_string();
    settings
}

/// A rolling update, and how often tasks of some services were asked for meanwhile.
fn looks_of_an_update(settings: Settings) -> u64 {
    let mut harness = Harness::new();
    harness.start(settings, me("c1", &[]));
    let shop = harness.app("shop", "edge", SHOP);
    harness.run(20, |h| h.endpoints(0, "default", &shop) == Some(2));
    let end = harness.now + Duration::from_secs(20);
    harness.run(60, |h| h.now >= end);
    let asked = |h: &Harness| h.controllers[0].world().counters().fetches[&Lane::Tasks];
    let before = asked(&harness);
    let now = harness.now;
    let image = |shape: &mut ServiceShape| shape.image = "app:2".to_string();
    harness.swarm.edit_service(&shop, now, image).unwrap();
    let end = harness.now + Duration::from_secs(20);
    harness.run(60, |h| h.now >= end);
    assert_eq!(harness.endpoints(0, "default", &shop), Some(2));
    asked(&harness) - before
}

#[test]
fn who_follows_the_feed_asks_far_less_for_an_update() {
    let (polling, following) = (looks_of_an_update(Settings::default()), looks_of_an_update(following()));
    assert!(following * 2 < polling, "{following} of {polling}");
}

#[test]
fn an_operator_who_wants_a_feed_hears_once_that_there_is_none_and_that_it_is_there() {
    let mut harness = Harness::new();
    harness.feeds.absent = Some("no such file".to_string());
    let first = harness.start(following(), me("c1", &[]));
    let shop = harness.app("shop", "edge", SHOP);
    harness.run(20, |h| h.endpoints(first, "default", &shop) == Some(2));
    harness.run(200, |h| h.now >= Instant::START + Duration::from_secs(90));
    let said = |h: &Harness, what: &str| h.notices.iter().filter(|notice| notice.contains(what)).count();
    assert_eq!(said(&harness, "swarm_watch: no such file; tasks are polled instead"), 1);
    harness.feeds.absent = None;
    harness.run(200, |h| said(h, "swarm_watch: tasks are followed") == 1);
}
