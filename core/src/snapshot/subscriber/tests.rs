use super::*;
use crate::machine::{Input, step};
use crate::rng::Rng;
use crate::snapshot::publisher::tests::change;
use crate::snapshot::{Connection, Publisher};
use alloc::collections::BTreeMap;
use proptest::prelude::*;

/// A publisher and a subscriber with a wire between them.
struct Pair {
    publisher: Publisher,
    subscriber: Subscriber,
    actions: Vec<Action>,
    now: Instant,
}

impl Pair {
    fn new() -> Pair {
        let now = Instant::START;
        Pair {
            publisher: Publisher::new("c1", "0"),
            subscriber: Subscriber::new("p".into(), Rng::new(1), now),
            actions: Vec::new(),
            now,
        }
    }

    fn tell(&mut self, fact: Fact) {
        let actions = &mut self.actions;
        step(&mut self.subscriber, Input::Fact(fact), self.now, |action| {
            actions.push(action)
        });
    }

    /// Lets time pass to the subscriber's next deadline.
    fn wait(&mut self) {
        self.now = self.subscriber.poll_timeout().expect("a deadline").at;
        let actions = &mut self.actions;
        step(&mut self.subscriber, Input::Timeout, self.now, |action| {
            actions.push(action)
        });
    }

    fn connect(&mut self) {
        self.wait();
        let Some(Action::Connect { digest, .. }) = self.actions.pop() else {
            panic!("no connect: {:?}", self.actions)
        };
        self.tell(Fact::Connected);
        self.publisher
            .handle_connected(Connection(1), "p".into(), digest, self.now);
        self.carry();
    }

    /// Carries what is on the wire, and the acks back.
    fn carry(&mut self) {
        while let Some(send) = self.publisher.poll_action() {
            self.tell(Fact::Line(send.line.trim_end().to_string()));
        }
        let now = self.now;
        for action in &self.actions {
            if let Action::Ack(ack) = action {
                self.publisher.handle_ack(ack.clone(), now);
            }
        }
    }

    fn publish(&mut self, specs: &[(&str, Option<u16>)]) {
        self.publisher
            .publish(change(specs), &ProxySettings::default(), "test", self.now);
    }

    fn served(&self) -> Vec<(String, u16)> {
        let routes = &self.subscriber.snapshot.routes;
        routes
            .iter()
            .map(|(id, spec)| (id.to_string(), spec.endpoints[0].addr.port()))
            .collect()
    }

    fn has(&self, wanted: fn(&Action) -> bool) -> bool {
        self.actions.iter().any(wanted)
    }
}

fn named(list: &[(&str, u16)]) -> Vec<(String, u16)> {
    list.iter().map(|(name, port)| (name.to_string(), *port)).collect()
}

#[test]
fn a_table_and_its_changes_arrive_and_are_acknowledged() {
    let mut pair = Pair::new();
    pair.publish(&[("a", Some(1))]);
    pair.connect();
    pair.publish(&[("a", Some(2)), ("b", Some(1))]);
    pair.publish(&[("b", None)]);
    pair.carry();
    assert_eq!(pair.served(), named(&[("a", 2)]));
    assert!(pair.publisher.proxies()[0].current);
    let changed: Vec<_> = pair
        .actions
        .iter()
        .filter_map(|action| {
            if let Action::Install(install) = action {
                Some(install.changed.clone())
            } else {
                None
            }
        })
        .collect();
    let ids = |names: &[&str]| Some(names.iter().map(|name| ServiceId::from(*name)).collect::<BTreeSet<_>>());
    assert_eq!(changed, [None, ids(&["a", "b"]), ids(&["b"])]);
}

#[test]
fn a_lost_delta_is_noticed_and_the_table_is_asked_for_again() {
    let mut pair = Pair::new();
    pair.publish(&[("a", Some(1))]);
    pair.connect();
    pair.publish(&[("a", Some(2))]);
    assert!(pair.publisher.poll_action().is_some(), "the delta is lost");
    pair.publish(&[("b", Some(1))]);
    pair.carry();
    assert_eq!(pair.served(), named(&[("a", 1)]), "the last good table is served");
    assert!(pair.has(|action| matches!(action, Action::Disconnect)));
    pair.actions.clear();
    pair.connect();
    assert_eq!(pair.served(), named(&[("a", 2), ("b", 1)]));
}

/// What the lost one changed is in the next one as well, so its digest comes out right: it is passed over all the same.
#[test]
fn a_delta_that_does_not_follow_is_not_taken_whatever_its_digest_says() {
    let mut pair = Pair::new();
    pair.publish(&[("a", Some(1))]);
    pair.connect();
    pair.publish(&[("a", Some(2))]);
    assert!(pair.publisher.poll_action().is_some(), "it is lost on the way");
    pair.publish(&[("a", Some(3))]);
    let line = pair
        .publisher
        .poll_action()
        .expect("the next one")
        .line
        .trim_end()
        .to_string();
    pair.tell(Fact::Line(line));
    assert_eq!(pair.served(), named(&[("a", 1)]));
    assert!(pair.has(|action| matches!(action, Action::Disconnect)));
    pair.connect();
    assert_eq!(pair.served(), named(&[("a", 3)]));
}

#[test]
fn a_damaged_line_changes_nothing() {
    for line in [
        "",
        "{",
        "[]",
        "{\"full\":{}}",
        "{\"delta\":{\"revision\":2}}",
        "\u{0}",
        "{\"ping\":3}",
    ] {
        let mut pair = Pair::new();
        pair.publish(&[("a", Some(1))]);
        pair.connect();
        pair.tell(Fact::Line(line.to_string()));
        assert_eq!(pair.served(), named(&[("a", 1)]), "{line:?}");
        assert!(!pair.subscriber.is_connected(), "{line:?}");
    }
}

#[test]
fn a_message_of_a_newer_controller_is_passed_over() {
    let mut pair = Pair::new();
    pair.publish(&[("a", Some(1))]);
    pair.connect();
    pair.tell(Fact::Line("{\"weather\":{\"sun\":true}}".to_string()));
    assert!(pair.subscriber.is_connected());
}

#[test]
fn a_revision_with_an_unknown_required_feature_is_refused_for_that_service_alone() {
    let mut pair = Pair::new();
    pair.publish(&[("a", Some(1)), ("b", Some(1))]);
    pair.connect();
    let mut changes = change(&[("a", Some(2)), ("b", Some(2))]);
    let spec = Arc::make_mut(changes.get_mut(&ServiceId::from("b")).unwrap().as_mut().unwrap());
    spec.requires.insert("teleport".to_string());
    pair.publisher
        .publish(changes, &ProxySettings::default(), "test", pair.now);
    pair.carry();
    assert_eq!(pair.served(), named(&[("a", 2), ("b", 1)]));
    let status = &pair.publisher.proxies()[0];
    assert!(status.current);
    assert_eq!(status.refused[0].service, "b");
    assert!(status.refused[0].reason.contains("teleport"), "{status:?}");
}

#[test]
fn the_stored_table_is_served_without_a_controller_and_brings_unknown_fields_back() {
    let mut first = Pair::new();
    first.publish(&[("a", Some(1)), ("b", Some(2))]);
    first.connect();
    first.wait();
    let Some(Action::Store(text)) = first.actions.pop() else {
        panic!("{:?}", first.actions)
    };
    let mut second = Pair::new();
    second.tell(Fact::Stored {
        text,
        age: Duration::ZERO,
    });
    assert_eq!(second.served(), named(&[("a", 1), ("b", 2)]));
    assert!(second.subscriber.has_table() && !second.subscriber.is_connected());
    assert_eq!(second.subscriber.revision().1, first.subscriber.revision().1);
}

#[test]
fn a_damaged_stored_table_is_passed_over() {
    for text in [
        "",
        "{\"full\":{\"revision\":1}}",
        "{\"ping\":{\"revision\":1,\"digest\":\"00\"}}",
    ] {
        let mut pair = Pair::new();
        pair.tell(Fact::Stored {
            text: text.to_string(),
            age: Duration::ZERO,
        });
        assert!(!pair.subscriber.has_table());
        assert!(pair.has(|action| matches!(action, Action::Notice(_))));
    }
}

#[test]
fn a_silent_controller_is_left() {
    let mut pair = Pair::new();
    pair.publish(&[]);
    pair.connect();
    pair.wait(); // stores
    pair.wait(); // silence
    assert!(pair.has(|action| matches!(action, Action::Disconnect)));
    assert_eq!(pair.now, Instant::START + SILENCE_MAX);
}

#[test]
fn waits_between_attempts_grow_to_a_limit() {
    let mut pair = Pair::new();
    let mut waits = Vec::new();
    for _ in 0..12 {
        let before = pair.now;
        pair.wait();
        waits.push(pair.now.since(before));
        pair.tell(Fact::Disconnected("refused".to_string()));
    }
    assert!(waits.iter().all(|wait| *wait <= RETRY_MAX));
    assert!(waits[11] >= RETRY_MAX / 2 && waits[1] <= RETRY_MIN, "{waits:?}");
}

#[test]
fn a_controller_that_greets_and_leaves_is_not_asked_in_a_loop() {
    let mut pair = Pair::new();
    let mut waits = Vec::new();
    for _ in 0..12 {
        let before = pair.now;
        pair.wait();
        waits.push(pair.now.since(before));
        pair.tell(Fact::Connected);
        pair.tell(Fact::Line(
            "{\"hello\":{\"controller\":\"c\",\"version\":\"1\"}}".to_string(),
        ));
        assert!(matches!(pair.actions.pop(), Some(Action::Greeted { .. })));
        pair.tell(Fact::Disconnected("it is leaving".to_string()));
    }
    assert!(waits[11] >= RETRY_MAX / 2, "{waits:?}");
}

proptest! {
    /// `apply(delta(a, b), a) == b`, over any sequence of changes, losses and reconnects.
    #[test]
    fn a_proxy_ends_with_what_was_published(steps in proptest::collection::vec((0..5u8, 0..4u16, 0..8u8), 1..40)) {
        let mut pair = Pair::new();
        pair.publish(&[]);
        pair.connect();
        let names = ["a", "b", "c", "d", "e"];
        let mut model: BTreeMap<&str, u16> = BTreeMap::new();
        for (name, port, fate) in steps {
            let name = names[usize::from(name)];
            if port == 0 { model.remove(name); } else { model.insert(name, port); }
            pair.publish(&[(name, (port != 0).then_some(port))]);
            if fate == 0 {
                pair.publisher.poll_action(); // lost on the way
            }
            pair.carry();
        }
        while !(pair.subscriber.is_connected() && pair.publisher.proxies()[0].current) {
            if pair.subscriber.is_connected() {
                // A last delta was lost: the next sign of life shows it.
                let due = pair.publisher.poll_timeout().unwrap().at;
                pair.now = pair.now.max(due);
                pair.publisher.handle_timeout(due);
                pair.carry();
            } else {
                pair.publisher.handle_disconnected(Connection(1));
                pair.actions.clear();
                pair.wait();
                if let Some(Action::Connect { digest, .. }) = pair.actions.pop() {
                    pair.tell(Fact::Connected);
                    let now = pair.now;
                    pair.publisher.handle_connected(Connection(1), "p".into(), digest, now);
                    pair.carry();
                }
            }
        }
        let expected: Vec<(String, u16)> = model.iter().map(|(name, port)| (name.to_string(), *port)).collect();
        prop_assert_eq!(pair.served(), expected);
    }
}
