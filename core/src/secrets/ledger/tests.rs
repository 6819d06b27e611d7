use proptest::prelude::*;

use super::*;
use crate::testing::sample::names;

const COURIER: Connection = Connection(100);

fn wanted<const N: usize>(clusters: [(&str, &[&str]); N]) -> Wanted {
    let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    clusters
        .map(|(cluster, of)| (ClusterName::from(cluster), names(of)))
        .into()
}

fn parcel(name: &str, content: &str) -> Parcel {
    Parcel {
        name: name.to_string(),
        content: Some(SecretText::new(content)),
        problem: None,
    }
}

/// What a proxy made of all that it was sent.
#[derive(Default)]
struct Proxy {
    names: BTreeSet<String>,
    secrets: BTreeMap<String, (Option<String>, Option<SecretProblem>)>,
}

/// Delivers everything that is under way.
fn deliver(ledger: &mut Ledger, proxies: &mut BTreeMap<Connection, Proxy>) {
    while let Some(Deliver { to, delivery }) = ledger.poll_action() {
        let proxy = proxies.entry(to).or_default();
        if let Some(names) = delivery.names {
            proxy.names = names;
        }
        for Parcel { name, content, problem } in delivery.secrets {
            let content = content.map(|text| text.expose().to_string());
            proxy.secrets.insert(name, (content, problem));
        }
    }
}

fn has(proxies: &BTreeMap<Connection, Proxy>, connection: Connection, name: &str) -> Option<String> {
    proxies.get(&connection)?.secrets.get(name)?.0.clone()
}

fn with_courier(ledger: &mut Ledger) {
    ledger.handle_courier(COURIER, "courier.1");
}

#[test]
fn a_proxy_gets_what_its_own_service_cluster_uses_and_nothing_else() {
    let (mut ledger, mut proxies) = (Ledger::default(), BTreeMap::new());
    ledger.look(
        wanted([("default", &["a", "both"]), ("east", &["b", "both"])]),
        names(["a", "b", "both"]),
    );
    let (west, east, direct) = (Connection(1), Connection(2), Connection(3));
    ledger.handle_listener(west, "default".into(), "p1".into());
    ledger.handle_listener(east, "east".into(), "p2".into());
    ledger.handle_listener(direct, "direct".into(), "p3".into());
    with_courier(&mut ledger);
    for name in ["a", "b", "both", "of-nobody"] {
        ledger.handle_parcels(COURIER, Vec::from([parcel(name, name)]));
        ledger.check_invariants();
    }
    deliver(&mut ledger, &mut proxies);
    let known = |connection| -> Vec<String> { proxies[&connection].secrets.keys().cloned().collect() };
    assert_eq!(known(west), ["a", "both"]);
    assert_eq!(known(east), ["b", "both"]);
    assert!(!proxies.contains_key(&direct));
    assert_eq!(has(&proxies, west, "a").as_deref(), Some("a"));
}

#[test]
fn nothing_is_said_before_the_swarm_was_seen() {
    let mut ledger = Ledger::default();
    ledger.handle_listener(Connection(1), "default".into(), "p1".into());
    with_courier(&mut ledger);
    ledger.handle_parcels(COURIER, Vec::from([parcel("a", "1")]));
    assert_eq!(ledger.poll_action(), None);
    ledger.look(wanted([("default", &["a"])]), names(["a"]));
    let sent = ledger.poll_action().unwrap().delivery;
    assert_eq!(sent.secrets, [parcel("a", "1")]);
    assert_eq!(sent.names, Some(names(["a"])));
}

#[test]
fn what_is_known_is_not_sent_again() {
    let (mut ledger, mut proxies) = (Ledger::default(), BTreeMap::new());
    let one = wanted([("default", &["a"])]);
    ledger.look(one.clone(), names(["a"]));
    ledger.handle_listener(Connection(1), "default".into(), "p1".into());
    with_courier(&mut ledger);
    ledger.handle_parcels(COURIER, Vec::from([parcel("a", "1")]));
    deliver(&mut ledger, &mut proxies);
    ledger.handle_parcels(COURIER, Vec::from([parcel("a", "1")]));
    ledger.look(one, names(["a", "b"]));
    assert_eq!(ledger.poll_action(), None);
    ledger.look(wanted([("default", &["a", "b"])]), names(["a", "b"]));
    let delivery = ledger.poll_action().unwrap().delivery;
    assert_eq!(delivery.secrets.len(), 1, "{delivery:?}");
}

#[test]
fn what_was_brought_outlives_the_courier_while_a_route_names_it() {
    let (mut ledger, mut proxies) = (Ledger::default(), BTreeMap::new());
    ledger.look(wanted([("default", &["a"])]), names(["a"]));
    with_courier(&mut ledger);
    ledger.handle_parcels(COURIER, Vec::from([parcel("a", "1")]));
    ledger.handle_disconnected(COURIER);
    ledger.handle_listener(Connection(1), "default".into(), "p1".into());
    deliver(&mut ledger, &mut proxies);
    assert_eq!(has(&proxies, Connection(1), "a").as_deref(), Some("1"));
    ledger.look(wanted([("default", &[])]), names(["a"]));
    ledger.look(wanted([("default", &["a"])]), names(["a"]));
    deliver(&mut ledger, &mut proxies);
    let again = proxies[&Connection(1)].secrets["a"].clone();
    assert_eq!(
        again,
        (None, Some(SecretProblem::Waiting)),
        "a name of nobody is forgotten"
    );
}

#[test]
fn a_name_that_comes_back_while_the_courier_has_it_is_there_at_once() {
    let (mut ledger, mut proxies) = (Ledger::default(), BTreeMap::new());
    ledger.look(wanted([("default", &["a"])]), names(["a", "b"]));
    with_courier(&mut ledger);
    ledger.handle_parcels(COURIER, Vec::from([parcel("a", "1")]));
    ledger.look(wanted([("default", &["b"])]), names(["a", "b"]));
    ledger.look(wanted([("default", &["a"])]), names(["a", "b"]));
    ledger.handle_listener(Connection(1), "default".into(), "p1".into());
    deliver(&mut ledger, &mut proxies);
    assert_eq!(has(&proxies, Connection(1), "a").as_deref(), Some("1"));
}

#[test]
fn a_secret_that_vanishes_or_cannot_be_read_is_named_and_its_last_content_stays() {
    let (mut ledger, mut proxies) = (Ledger::default(), BTreeMap::new());
    let both = wanted([("default", &["a", "b"])]);
    ledger.look(both.clone(), names(["a", "b"]));
    ledger.handle_listener(Connection(1), "default".into(), "p1".into());
    with_courier(&mut ledger);
    ledger.handle_parcels(COURIER, Vec::from([parcel("a", "1")]));
    let unreadable = SecretProblem::Unreadable("denied".to_string());
    let broken = Parcel {
        name: "b".to_string(),
        content: None,
        problem: Some(unreadable.clone()),
    };
    ledger.handle_parcels(COURIER, Vec::from([broken]));
    ledger.look(both, names(["b"]));
    deliver(&mut ledger, &mut proxies);
    let known = &proxies[&Connection(1)].secrets;
    assert_eq!(known["a"], (Some("1".to_string()), Some(SecretProblem::Missing)));
    assert_eq!(known["b"], (None, Some(unreadable)));
    let status = ledger.status().unwrap();
    assert_eq!(status.connected, ["courier.1"]);
    assert!(
        status.secrets["a"].contains("an earlier one is used: there is no secret a"),
        "{status:?}"
    );
    assert!(status.secrets["b"].contains("denied"), "{status:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Bring(u8, u8),
    Courier(bool),
    Listen(u8, u8),
    Leave(u8),
    Look([u8; 3], u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..4_u8, 0..3_u8).prop_map(|(name, content)| Step::Bring(name, content)),
        any::<bool>().prop_map(Step::Courier),
        (0..4_u8, 0..3_u8).prop_map(|(connection, cluster)| Step::Listen(connection, cluster)),
        (0..4_u8).prop_map(Step::Leave),
        (any::<[u8; 3]>(), any::<u8>()).prop_map(|(wanted, existing)| Step::Look(wanted, existing)),
    ];
    proptest::collection::vec(step, 0..60)
}

/// The names `s0` to `s3` whose bits are set.
fn subset(bits: u8) -> BTreeSet<String> {
    let set = (0..4).filter(|bit| bits & (1 << bit) != 0);
    set.map(|bit| alloc::format!("s{bit}")).collect()
}

proptest! {
    /// Whatever happens in whatever order: no proxy ever gets a secret that its cluster did not use at that moment, and in
    /// the end each has exactly what its cluster uses, as the ledger has it.
    #[test]
    fn proxies_have_what_their_cluster_uses_and_never_had_more(steps in steps()) {
        let (mut ledger, mut proxies) = (Ledger::default(), BTreeMap::new());
        let mut clusters: BTreeMap<Connection, u8> = BTreeMap::new();
        let mut wanted: Option<[u8; 3]> = None;
        for step in steps {
            match step {
                Step::Bring(name, content) => {
                    ledger.handle_parcels(COURIER, Vec::from([parcel(&alloc::format!("s{name}"), &content.to_string())]));
                }
                Step::Courier(true) => with_courier(&mut ledger),
                Step::Courier(false) => ledger.handle_disconnected(COURIER),
                Step::Listen(connection, cluster) => {
                    let connection = Connection(connection.into());
                    ledger.handle_disconnected(connection);
                    proxies.remove(&connection);
                    clusters.insert(connection, cluster);
                    ledger.handle_listener(connection, alloc::format!("c{cluster}").as_str().into(), "p".into());
                }
                Step::Leave(connection) => {
                    let connection = Connection(connection.into());
                    ledger.handle_disconnected(connection);
                    proxies.remove(&connection);
                    clusters.remove(&connection);
                }
                Step::Look(of, existing) => {
                    let map = of.iter().enumerate().map(|(index, bits)| {
                        (ClusterName::from(alloc::format!("c{index}").as_str()), subset(*bits))
                    });
                    wanted = Some(of);
                    ledger.look(map.collect(), subset(existing));
                }
            }
            ledger.check_invariants();
            // What is under way is for the present clusters alone.
            for Deliver { to, delivery } in &ledger.actions {
                let allowed = subset(wanted.unwrap()[usize::from(clusters[to])]);
                for parcel in &delivery.secrets {
                    prop_assert!(allowed.contains(&parcel.name));
                }
            }
            deliver(&mut ledger, &mut proxies);
        }
        for (connection, cluster) in &clusters {
            let Some(wanted) = wanted else { continue };
            let allowed = subset(wanted[usize::from(*cluster)]);
            let none = Proxy::default();
            let proxy = proxies.get(connection).unwrap_or(&none);
            prop_assert_eq!(&proxy.names, &allowed);
            for name in &allowed {
                let (content, problem) = ledger.present(name);
                let content = content.map(|text| text.expose().to_string());
                prop_assert_eq!(&proxy.secrets[name].1, &problem);
                // A content that the ledger forgot while nobody wanted it stays with who has it.
                if content.is_some() {
                    prop_assert_eq!(&proxy.secrets[name].0, &content);
                }
            }
        }
    }
}
