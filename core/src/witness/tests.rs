use alloc::string::ToString;
use alloc::vec;
use proptest::prelude::*;

use super::*;
use crate::id::{NetworkId, Revision};
use crate::machine::{Input, step};
use crate::snapshot::Digest;

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 5, last])
}

fn endpoint(last: u8) -> EndpointSpec {
    EndpointSpec {
        id: EndpointId::from(format!("task{last}")),
        addr: SocketAddr::new(ip(last), 8080),
        via: Some(NetworkId::from("net")),
        node: None,
        leaving: None,
        unsure: false,
    }
}

fn spec(name: &str, addresses: &[u8]) -> Arc<RouteSpec> {
    Arc::new(RouteSpec {
        endpoints: addresses.iter().map(|last| endpoint(*last)).collect(),
        witness: Some(DnsWitness {
            name: format!("tasks.{name}"),
            port: 8080,
            via: Some(NetworkId::from("net")),
        }),
        ..RouteSpec::new(ServiceId::from(name), name, "2026-01-01T00:00:00Z")
    })
}

fn table(specs: &[Arc<RouteSpec>], stored: Option<Duration>) -> Install {
    let routes = specs.iter().map(|spec| (spec.service.clone(), spec.clone()));
    Install {
        snapshot: Arc::new(Snapshot {
            routes: routes.collect(),
            ..Snapshot::default()
        }),
        changed: None,
        revision: Revision(1),
        cause: "test".to_string(),
        digest: Digest::default(),
        stored,
    }
}

/// A witness, its table as the workers have it, and a DNS that answers what it is told to.
struct Bench {
    witness: Witness,
    now: Instant,
    served: Option<Arc<Snapshot>>,
    installs: usize,
    asked: Vec<(ServiceId, u64)>,
    dns: BTreeMap<ServiceId, Option<Vec<IpAddr>>>,
}

impl Bench {
    fn new(first: Install) -> Bench {
        let mut bench = Bench {
            witness: Witness::new(),
            now: Instant::START,
            served: None,
            installs: 0,
            asked: Vec::new(),
            dns: BTreeMap::new(),
        };
        bench.tell(Fact::Table(first));
        bench
    }

    /// Of a controller, which is gone then.
    fn alone(specs: &[Arc<RouteSpec>]) -> Bench {
        let mut bench = Bench::new(table(specs, None));
        bench.tell(Fact::Heard(false));
        bench
    }

    fn tell(&mut self, fact: Fact) {
        self.step(Input::Fact(fact));
    }

    fn step(&mut self, input: Input<Fact>) {
        let (served, installs, asked) = (&mut self.served, &mut self.installs, &mut self.asked);
        step(&mut self.witness, input, self.now, |action| match action {
            Action::Ask { service, question, .. } => asked.push((service, question)),
            Action::Install(table) => {
                *installs += 1;
                *served = Some(table.snapshot);
            }
            Action::Notice(_) => {}
        });
    }

    fn say(&mut self, service: &str, addresses: Option<&[u8]>) {
        let addresses = addresses.map(|list| list.iter().map(|last| ip(*last)).collect());
        self.dns.insert(ServiceId::from(service), addresses);
    }

    /// Lets so much time pass; each question is answered 5 ms later.
    fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(deadline) = self.witness.poll_timeout().filter(|deadline| deadline.at <= end) {
            self.now = self.now.max(deadline.at);
            self.step(Input::Timeout);
            self.now = self.now + Duration::from_millis(5);
            for (service, question) in core::mem::take(&mut self.asked) {
                let addresses = self.dns.get(&service).cloned().flatten();
                self.tell(Fact::Answer {
                    service,
                    question,
                    addresses,
                });
            }
        }
        self.now = self.now.max(end);
    }

    /// What the workers have for a service: addresses, `-` before those that leave, `?` behind those that are unsure.
    fn served(&self, service: &str) -> String {
        let snapshot = self.served.as_ref().expect("a table");
        let mut words: Vec<String> = snapshot.routes[&ServiceId::from(service)]
            .endpoints
            .iter()
            .map(|endpoint| {
                let IpAddr::V4(ip) = endpoint.addr.ip() else {
                    panic!("a test's addresses")
                };
                let (leaves, unsure) = (endpoint.leaving.is_some(), endpoint.unsure);
                format!(
                    "{}{}{}",
                    if leaves { "-" } else { "" },
                    ip.octets()[3],
                    if unsure { "?" } else { "" }
                )
            })
            .collect();
        words.sort();
        words.join(" ")
    }
}

#[test]
fn while_a_controller_is_heard_nobody_asks_and_tables_pass_as_they_are() {
    let mut bench = Bench::new(table(&[spec("shop", &[1, 2])], None));
    bench.tell(Fact::Heard(true));
    bench.say("shop", Some(&[9]));
    bench.pass(60_000);
    assert_eq!((bench.served("shop").as_str(), bench.installs), ("1 2", 1));
    assert!(!bench.witness.is_active());
}

#[test]
fn a_controller_that_is_back_in_time_changes_nothing() {
    let mut bench = Bench::alone(&[spec("shop", &[1, 2])]);
    bench.pass(900);
    bench.tell(Fact::Heard(true));
    bench.say("shop", Some(&[9]));
    bench.pass(60_000);
    assert_eq!((bench.served("shop").as_str(), bench.installs), ("1 2", 1));
}

#[test]
fn a_rolling_update_without_controllers_is_followed_before_the_app_is_told() {
    let mut bench = Bench::alone(&[spec("shop", &[1, 2, 3])]);
    bench.say("shop", Some(&[1, 2, 3]));
    bench.pass(5_000);
    assert_eq!(bench.served("shop"), "1 2 3");
    // A task leaves DNS up to 1.7 s after the decision, and Swarm tells the app 3.0 s after it at the earliest.
    bench.say("shop", Some(&[2, 3]));
    bench.pass(600);
    assert_eq!(bench.served("shop"), "-1 2 3");
    bench.say("shop", Some(&[2, 3, 4]));
    bench.pass(600);
    assert_eq!(bench.served("shop"), "-1 2 3 4");
    let snapshot = bench.served.clone().unwrap();
    let new = snapshot.routes[&ServiceId::from("shop")]
        .endpoints
        .iter()
        .find(|e| e.addr.ip() == ip(4))
        .unwrap();
    assert_eq!((new.addr.port(), new.via.clone()), (8080, Some(NetworkId::from("net"))));
    bench.say("shop", Some(&[4, 5, 6]));
    bench.pass(900);
    assert_eq!(bench.served("shop"), "-1 -2 -3 4 5 6");
}

#[test]
fn errors_and_empty_answers_empty_no_pool() {
    for nothing in [None, Some(&[][..])] {
        let mut bench = Bench::alone(&[spec("shop", &[1, 2])]);
        bench.say("shop", Some(&[1, 2]));
        bench.pass(3_000);
        bench.say("shop", nothing);
        bench.pass(3_600_000);
        assert_eq!(
            bench.served("shop"),
            "1? 2?",
            "they serve on, and nobody vouches for them"
        );
        bench.say("shop", Some(&[1, 2]));
        bench.pass(2_000);
        assert_eq!(bench.served("shop"), "1 2");
    }
}

#[test]
fn one_answer_without_an_address_is_not_enough() {
    let mut bench = Bench::alone(&[spec("shop", &[1, 2])]);
    bench.say("shop", Some(&[1, 2]));
    bench.pass(2_000);
    let before = bench.installs;
    bench.say("shop", Some(&[1]));
    let next = bench.witness.poll_timeout().expect("it asks on").at;
    bench.pass(next.since(bench.now).as_millis() as u64);
    bench.say("shop", Some(&[1, 2]));
    bench.pass(2_000);
    assert_eq!((bench.served("shop").as_str(), bench.installs), ("1 2", before));
}

#[test]
fn an_answer_vouches_for_the_addresses_that_it_has_and_for_no_other_one() {
    let mut bench = Bench::alone(&[spec("shop", &[1, 2])]);
    bench.say("shop", Some(&[1, 2]));
    bench.pass(2_000);
    // All of it was lost with its nodes, and comes back task by task: another service may have the second address.
    bench.say("shop", None);
    bench.pass(10_000);
    assert_eq!(bench.served("shop"), "1? 2?");
    bench.say("shop", Some(&[1]));
    let next = bench.witness.poll_timeout().expect("it asks on").at;
    bench.pass(next.since(bench.now).as_millis() as u64);
    assert_eq!(bench.served("shop"), "1 2?");
    bench.pass(100);
    assert_eq!(bench.served("shop"), "-2 1");
}

#[test]
fn an_address_that_another_service_has_now_is_left_at_once() {
    let mut bench = Bench::alone(&[spec("a", &[1, 2]), spec("b", &[7])]);
    bench.say("a", Some(&[1, 2]));
    bench.say("b", Some(&[7]));
    bench.pass(2_000);
    // DNS lost a's name altogether, and b got an address of it.
    bench.say("a", None);
    bench.say("b", Some(&[7, 2]));
    bench.pass(300);
    assert!(!bench.served("a").contains('2'), "{}", bench.served("a"));
    assert_eq!(bench.served("b"), "2 7");
}

#[test]
fn an_endpoint_that_was_told_to_stop_does_not_come_back() {
    let mut stopping = (*spec("shop", &[1, 2])).clone();
    stopping.endpoints[0].leaving = Some(Leaving { last_resort_ms: 2_500 });
    let mut bench = Bench::alone(&[Arc::new(stopping)]);
    bench.say("shop", Some(&[1, 2]));
    bench.pass(2_000);
    assert_eq!(bench.served("shop"), "-1 2");
}

#[test]
fn a_controller_that_is_heard_again_is_believed_alone() {
    let mut bench = Bench::alone(&[spec("shop", &[1, 2])]);
    bench.say("shop", Some(&[2, 3]));
    bench.pass(3_000);
    assert_eq!(bench.served("shop"), "-1 2 3");
    bench.tell(Fact::Heard(true));
    assert_eq!(bench.served("shop"), "1 2", "it confirmed this very table");
    bench.tell(Fact::Heard(false));
    bench.pass(3_000);
    bench.tell(Fact::Table(table(&[spec("shop", &[3, 4])], None)));
    assert_eq!(bench.served("shop"), "3 4");
    assert!(!bench.witness.is_active());
}

#[test]
fn a_stored_table_serves_at_once_while_it_is_young() {
    let mut bench = Bench::new(table(&[spec("shop", &[1, 2])], Some(Duration::from_secs(60))));
    assert_eq!(bench.served("shop"), "1 2");
    bench.say("shop", Some(&[2]));
    bench.pass(3_000);
    assert_eq!(bench.served("shop"), "-1 2", "and DNS is asked as ever");
}

#[test]
fn a_stored_table_that_is_old_is_served_as_far_as_dns_confirms_it() {
    let old = Some(Duration::from_secs(3_600));
    let mut unnamed = (*spec("host", &[9])).clone();
    unnamed.witness = None;
    let mut bench = Bench::new(table(&[spec("a", &[1, 2]), spec("b", &[3]), Arc::new(unnamed)], old));
    assert_eq!((bench.served("a").as_str(), bench.served("host").as_str()), ("", "9"));
    bench.say("a", Some(&[2, 5]));
    bench.pass(100);
    assert_eq!((bench.served("a").as_str(), bench.served("b").as_str()), ("2 5", ""));
    bench.tell(Fact::Heard(true));
    assert_eq!((bench.served("a").as_str(), bench.served("b").as_str()), ("1 2", "3"));
}

#[test]
fn a_late_answer_counts_for_nothing() {
    let mut bench = Bench::alone(&[spec("shop", &[1, 2])]);
    bench.say("shop", Some(&[1, 2]));
    bench.pass(2_000);
    let served = bench.served("shop");
    for question in [0, 1, 2] {
        let service = ServiceId::from("shop");
        let addresses = Some(vec![ip(8)]);
        bench.tell(Fact::Answer {
            service,
            question,
            addresses,
        });
    }
    assert_eq!(bench.served("shop"), served);
}

#[test]
fn many_services_are_asked_for_less_often() {
    let specs: Vec<Arc<RouteSpec>> = (0..1_000).map(|n| spec(&format!("s{n}"), &[1])).collect();
    let mut bench = Bench::alone(&specs);
    let mut questions = 0;
    let end = bench.now + Duration::from_secs(11);
    while let Some(deadline) = bench.witness.poll_timeout().filter(|deadline| deadline.at <= end) {
        bench.now = bench.now.max(deadline.at);
        bench.step(Input::Timeout);
        for (service, question) in core::mem::take(&mut bench.asked) {
            questions += 1;
            bench.tell(Fact::Answer {
                service,
                question,
                addresses: None,
            });
        }
    }
    assert!((1_000..=2_200).contains(&questions), "{questions} in 10 s");
}

proptest! {
    /// Whatever DNS says: routes stay, something is always left to serve, and a controller's word undoes it all.
    #[test]
    fn no_answer_empties_a_pool_or_touches_a_route(
        answers in proptest::collection::vec((0..2_usize, proptest::option::of(proptest::collection::vec(1..8_u8, 0..4)), 0..2_000_u64), 0..40)
    ) {
        let names = ["a", "b"];
        let specs = [spec("a", &[1, 2]), spec("b", &[13])];
        let mut bench = Bench::alone(&specs);
        for (which, addresses, ms) in answers {
            // No two services have one address at a time: each has its own range of them.
            let addresses = addresses.map(|list| list.into_iter().map(|last| last + 10 * which as u8).collect::<Vec<_>>());
            bench.say(names[which], addresses.as_deref());
            bench.pass(ms);
            for (name, original) in names.iter().zip(&specs) {
                let snapshot = bench.served.clone().unwrap();
                let served = &snapshot.routes[&ServiceId::from(*name)];
                prop_assert!(served.endpoints.iter().any(|endpoint| endpoint.leaving.is_none()), "{name} is empty");
                let without = RouteSpec { endpoints: original.endpoints.clone(), ..(**served).clone() };
                prop_assert_eq!(&without, &**original);
            }
        }
        bench.tell(Fact::Heard(true));
        prop_assert_eq!((bench.served("a"), bench.served("b")), ("1 2".to_string(), "13".to_string()));
    }
}
