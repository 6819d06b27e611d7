//! Revisions that connected proxies have yet to acknowledge, and since when Docker wanted what they change.
//!
//! An answer to one revision counts for every earlier one that was not answered: who serves the later one serves them all,
//! and one that was overtaken counts when its answer comes. Bounded: what falls out is not measured.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use super::entry::Digest;
use crate::id::Revision;
use crate::time::{Duration, Instant};

/// Revisions that are remembered. A proxy that is so far behind is cut off anyway.
pub(super) const AWAITED_MAX: usize = 256;

/// A revision that a proxy serves now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// From its publication to the answer.
    pub took: Duration,
    /// For each change in it whose time is known: when Docker decided it, since 1970 by the managers' clock.
    pub decided: Arc<[Duration]>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Publication {
    revision: Revision,
    digest: Digest,
    at: Instant,
    decided: Arc<[Duration]>,
}

/// See the module. In order of revisions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Awaited {
    publications: VecDeque<Publication>,
}

impl Awaited {
    pub(super) fn published(&mut self, revision: Revision, digest: Digest, decided: Vec<Duration>, now: Instant) {
        if self.publications.len() >= AWAITED_MAX {
            self.publications.pop_front();
        }
        self.publications.push_back(Publication {
            revision,
            digest,
            at: now,
            decided: decided.into(),
        });
    }

    /// What a proxy that had `before` serves since it answered to `revision`. Nothing where `digest` is not that of the
    /// revision: a revision of another controller.
    pub(super) fn served(&self, before: Revision, revision: Revision, digest: Digest, now: Instant) -> Vec<Served> {
        let known = |publication: &Publication| (publication.revision, publication.digest) == (revision, digest);
        if !self.publications.iter().any(known) {
            return Vec::new();
        }
        self.publications
            .iter()
            .filter(|publication| publication.revision > before && publication.revision <= revision)
            .map(|publication| Served {
                took: now.since(publication.at),
                decided: publication.decided.clone(),
            })
            .collect()
    }

    /// Every connected proxy has answered to `revision`; all where there is none.
    pub(super) fn forget(&mut self, revision: Option<Revision>) {
        while self
            .publications
            .front()
            .is_some_and(|first| revision.is_none_or(|all| first.revision <= all))
        {
            self.publications.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::super::publisher::tests::change;
    use super::*;
    use crate::id::{ProxyId, ServiceId};
    use crate::settings::proxy::ProxySettings;
    use crate::snapshot::{Ack, Connection, Publisher};

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn wall(ms: u64) -> Duration {
        Duration::from_secs(1_800_000_000) + Duration::from_millis(ms)
    }

    /// Changes the port of service `a` to `number`, decided and published at these milliseconds.
    fn publish(publisher: &mut Publisher, number: u16, decided: u64, now: u64) -> Ack {
        let decided = BTreeMap::from([(ServiceId::from("a"), wall(decided))]);
        let changes = change(&[("a", Some(number)), ("same", Some(1))]);
        publisher.publish_decided(changes, &decided, &ProxySettings::default(), "test", at(now));
        Ack {
            proxy: ProxyId::from("p"),
            revision: publisher.revision(),
            digest: publisher.digest(),
            refused: Vec::new(),
        }
    }

    /// A publisher whose first table the proxy `p` has acknowledged.
    fn publisher() -> Publisher {
        let mut publisher = Publisher::new("c", "0");
        publisher.handle_connected(Connection(1), "p".into(), None, at(0));
        let first = publish(&mut publisher, 1, 0, 10);
        let taken = publisher.handle_ack(first, at(12));
        assert_eq!(
            told(&taken.served),
            [(2, Vec::new())],
            "when the first was decided says nothing"
        );
        publisher
    }

    fn told(served: &[Served]) -> Vec<(u128, Vec<u128>)> {
        let since = |decided: &Duration| (*decided - wall(0)).as_millis();
        let told = |served: &Served| (served.took.as_millis(), served.decided.iter().map(since).collect());
        served.iter().map(told).collect()
    }

    #[test]
    fn an_answer_says_how_long_it_took_and_since_when_its_change_was_wanted() {
        let mut publisher = publisher();
        let ack = publish(&mut publisher, 2, 70, 100);
        let taken = publisher.handle_ack(ack.clone(), at(130));
        assert_eq!(
            (taken.is_present, told(&taken.served)),
            (true, alloc::vec![(30, alloc::vec![70])])
        );
        assert_eq!(publisher.handle_ack(ack, at(140)).served, [], "it is answered once");
    }

    #[test]
    fn a_change_without_a_time_is_none() {
        let mut publisher = publisher();
        publish(&mut publisher, 2, 70, 100);
        publisher.publish(change(&[("a", None)]), &ProxySettings::default(), "test", at(200));
        let ack = Ack {
            proxy: "p".into(),
            revision: publisher.revision(),
            digest: publisher.digest(),
            refused: Vec::new(),
        };
        let taken = publisher.handle_ack(ack, at(203));
        assert_eq!(told(&taken.served), [(103, alloc::vec![70]), (3, Vec::new())]);
    }

    #[test]
    fn revisions_that_were_overtaken_count_each_by_their_own_answer_or_a_later_one() {
        let mut publisher = publisher();
        let second = publish(&mut publisher, 2, 90, 100);
        let third = publish(&mut publisher, 3, 190, 200);
        let fourth = publish(&mut publisher, 4, 290, 300);
        let taken = publisher.handle_ack(second, at(305));
        assert_eq!(
            (taken.is_present, told(&taken.served)),
            (false, alloc::vec![(205, alloc::vec![90])])
        );
        let taken = publisher.handle_ack(fourth, at(310));
        let both = [(110, alloc::vec![190]), (10, alloc::vec![290])];
        assert_eq!((taken.is_present, &told(&taken.served)[..]), (true, &both[..]));
        assert_eq!(
            publisher.handle_ack(third, at(320)).served,
            [],
            "late, and counted already"
        );
    }

    #[test]
    fn what_was_published_before_a_proxy_connected_is_not_late() {
        let mut publisher = publisher();
        let second = publish(&mut publisher, 2, 90, 100);
        publisher.handle_connected(Connection(2), "late".into(), None, at(9_000));
        let late = |ack: Ack| Ack {
            proxy: "late".into(),
            ..ack
        };
        let taken = publisher.handle_ack(late(second), at(9_005));
        assert_eq!(
            (taken.is_present, taken.served),
            (true, Vec::new()),
            "news, but no latency"
        );
        let third = publish(&mut publisher, 3, 9_090, 9_100);
        let taken = publisher.handle_ack(late(third), at(9_110));
        assert_eq!(told(&taken.served), [(10, alloc::vec![9_090])]);
    }

    #[test]
    fn answers_to_another_controller_count_for_nothing() {
        let mut publisher = publisher();
        let ours = publish(&mut publisher, 2, 90, 100);
        let theirs = Ack {
            digest: Digest::default(),
            ..ours.clone()
        };
        assert_eq!(publisher.handle_ack(theirs, at(105)).served, []);
        assert_eq!(
            told(&publisher.handle_ack(ours, at(110)).served),
            [(10, alloc::vec![90])]
        );
    }

    #[test]
    fn what_nobody_waits_for_is_forgotten_and_the_rest_is_bounded() {
        let mut awaited = Awaited::default();
        let publish = |awaited: &mut Awaited, number: u64| {
            awaited.published(Revision(number), Digest::default(), Vec::new(), at(number));
        };
        (1..=3).for_each(|number| publish(&mut awaited, number));
        awaited.forget(Some(Revision(2)));
        assert_eq!(awaited.publications.len(), 1);
        awaited.forget(None);
        assert_eq!(awaited.publications.len(), 0);
        (1..=300).for_each(|number| publish(&mut awaited, number));
        assert_eq!(awaited.publications.len(), AWAITED_MAX);
        let served = awaited.served(Revision(0), Revision(300), Digest::default(), at(300));
        assert_eq!(
            (served.len(), served[0].took),
            (AWAITED_MAX, Duration::from_millis(255))
        );
    }
}
