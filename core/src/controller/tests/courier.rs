//! Secrets by courier: what its service mounts, and who is given what.

use alloc::format;

use super::*;
use crate::reconcile::courier::COURIER_ROLE;
use crate::reconcile::desired::ServiceShape;
use crate::secrets::message::{Parcel, Report};
use crate::secrets::{Finding, SecretProblem, SecretText};

const COURIER: Connection = Connection(1_000);

fn service(harness: &Harness, name: &str) -> Option<ManagedService> {
    let mut managed = harness.swarm.managed().into_iter();
    managed.find(|service| service.shape.name == name)
}

/// What the courier's service mounts besides its identity.
fn carried(harness: &Harness) -> Vec<String> {
    let courier = service(harness, "tidegate_courier");
    let secrets = courier.iter().flat_map(|service| service.shape.secrets.keys());
    secrets.filter(|name| !name.starts_with("tidegate-")).cloned().collect()
}

fn secret(harness: &mut Harness, name: &str) {
    let now = harness.now;
    harness.swarm.create_secret(name, &[], b"pem", now).unwrap();
}

fn https(harness: &mut Harness, name: &str, cluster: &str, secret: &str) -> ServiceId {
    let host = format!("{name}.example.org");
    let labels = [
        ("tidegate.hosts", host.as_str()),
        ("tidegate.port", "80"),
        ("tidegate.ssl_cert", secret),
        ("tidegate.service_cluster", cluster),
    ];
    harness.app(name, "edge", &labels)
}

fn ready(settings: Settings) -> Harness {
    let mut harness = Harness::new();
    let proxies = settings.clusters.len();
    harness.start(settings, me("one", &[1]));
    harness.run(30, |harness| harness.swarm.managed().len() == 1 + proxies);
    harness
}

fn bring(harness: &mut Harness, names: &[&str]) {
    let parcels = names.iter().map(|name| Parcel {
        name: (*name).to_string(),
        content: Some(SecretText::new(*name)),
        problem: None,
    });
    let connected = ControllerFact::CourierConnected {
        connection: COURIER,
        task: "tidegate_courier.1".to_string(),
        parcels: parcels.collect(),
    };
    harness.turn(0, Input::Fact(connected));
}

#[test]
fn a_courier_carries_what_labels_name_and_no_proxy_is_touched() {
    let mut harness = ready(Settings::default());
    harness.run(30, |harness| {
        service(harness, "tidegate_proxy").is_some_and(|proxy| proxy.shape.networks.len() == 1)
    });
    let proxy = service(&harness, "tidegate_proxy").unwrap();
    let shop = https(&mut harness, "shop", "default", "shop.pem");
    secret(&mut harness, "shop.pem");
    secret(&mut harness, "of-nobody");
    harness.run(30, |harness| carried(harness) == ["shop.pem"]);
    let courier = service(&harness, "tidegate_courier").unwrap().shape;
    assert_eq!(courier.labels[ROLE_LABEL], COURIER_ROLE);
    assert!(courier.ports.is_empty() && courier.read_only && courier.update.start_first);
    assert_eq!(courier.networks.len(), 1, "the control network alone");
    assert_eq!(courier.constraints, ["node.role==manager".to_string()].into());
    // Another secret is another courier, and the proxies stay as they are.
    secret(&mut harness, "shop-2.pem");
    let now = harness.now;
    let labels = [
        ("tidegate.hosts", "shop.example.org"),
        ("tidegate.port", "80"),
        ("tidegate.ssl_cert", "shop-2.pem"),
    ];
    let mut shape = harness.swarm.shape(&shop).unwrap().clone();
    shape.labels = labels.map(|(key, value)| (key.to_string(), value.to_string())).into();
    let version = harness.swarm.version(&shop).unwrap();
    harness.swarm.update_service(&shop, version, shape, now).unwrap();
    harness.run(30, |harness| carried(harness) == ["shop-2.pem"]);
    let after = service(&harness, "tidegate_proxy").unwrap();
    assert_eq!(after.shape.secrets, proxy.shape.secrets);
    // Nothing to carry, no courier.
    harness.swarm.remove_service(&shop, harness.now).unwrap();
    harness.run(30, |harness| service(harness, "tidegate_courier").is_none());
}

#[test]
fn a_cluster_is_given_its_own_secrets_and_never_those_of_another() {
    let mut harness = ready(two_clusters());
    for name in ["west.pem", "east.pem"] {
        secret(&mut harness, name);
    }
    https(&mut harness, "west", "default", "west.pem");
    https(&mut harness, "east", "east", "east.pem");
    harness.run(30, |harness| carried(harness) == ["east.pem", "west.pem"]);
    for (connection, cluster) in [(1, "default"), (2, "east")] {
        let wanted = ControllerFact::SecretsWanted {
            connection: Connection(connection),
            cluster: ClusterName::from(cluster),
            proxy: cluster.into(),
        };
        harness.turn(0, Input::Fact(wanted));
    }
    bring(&mut harness, &["east.pem", "west.pem"]);
    let of = |harness: &Harness, connection: u64| -> BTreeSet<String> {
        let to = harness
            .delivered
            .iter()
            .filter(|sent| sent.to == Connection(connection));
        let names = to
            .clone()
            .flat_map(|sent| sent.delivery.names.iter().flatten().cloned());
        let parcels = to.flat_map(|sent| sent.delivery.secrets.iter().map(|parcel| parcel.name.clone()));
        names.chain(parcels).collect()
    };
    assert_eq!(of(&harness, 1), ["west.pem".to_string()].into());
    assert_eq!(of(&harness, 2), ["east.pem".to_string()].into());
    let status = harness.controllers[0].status(harness.now).courier.unwrap();
    assert_eq!(status.connected, ["tidegate_courier.1"]);
    assert_eq!(status.secrets["west.pem"], "here");
}

#[test]
fn nothing_that_a_controller_shows_holds_a_content() {
    let mut harness = ready(Settings::default());
    secret(&mut harness, "shop.pem");
    https(&mut harness, "shop", "default", "shop.pem");
    harness.run(30, |harness| carried(harness) == ["shop.pem"]);
    let wanted = ControllerFact::SecretsWanted {
        connection: Connection(1),
        cluster: ClusterName::default_cluster(),
        proxy: "p".into(),
    };
    harness.turn(0, Input::Fact(wanted));
    let parcel = Parcel {
        name: "shop.pem".to_string(),
        content: Some(SecretText::new("hush-hush")),
        problem: None,
    };
    let fact = ControllerFact::CourierConnected {
        connection: COURIER,
        task: "courier".to_string(),
        parcels: alloc::vec![parcel],
    };
    assert!(!format!("{fact:?}").contains("hush"));
    harness.turn(0, Input::Fact(fact));
    let controller = &harness.controllers[0];
    assert!(!harness.delivered.is_empty());
    let status = serde_json::to_string(&controller.status(harness.now)).unwrap();
    let shown = format!("{controller:?} {:?} {status}", harness.delivered);
    assert!(!shown.contains("hush"));
    let table = serde_json::to_string(&controller.snapshot(&ClusterName::default_cluster())).unwrap();
    assert!(table.contains("shop.pem") && !table.contains("hush"));
}

#[test]
fn what_a_proxy_finds_wrong_is_shown_beside_the_label() {
    let mut harness = ready(Settings::default());
    secret(&mut harness, "shop.pem");
    let shop = https(&mut harness, "shop", "default", "shop.pem");
    // A label of somebody else with the same text is not to blame.
    let now = harness.now;
    let note = |shape: &mut ServiceShape| drop(shape.labels.insert("backup.of".to_string(), "shop.pem".to_string()));
    harness.swarm.edit_service(&shop, now, note).unwrap();
    harness.run(30, |harness| carried(harness) == ["shop.pem"]);
    let cluster = ClusterName::default_cluster();
    let connected = ControllerFact::Connected {
        connection: Connection(1),
        cluster: cluster.clone(),
        proxy: "p1".into(),
        digest: None,
    };
    harness.turn(0, Input::Fact(connected));
    let report = |findings: &[Finding]| ControllerFact::Report {
        cluster: cluster.clone(),
        report: Report {
            proxy: "p1".into(),
            findings: findings.iter().cloned().collect(),
        },
    };
    let expired = Finding::new("shop.pem", "the certificate shop.pem has expired", "make a new secret");
    harness.turn(0, Input::Fact(report(&[expired])));
    let wanted = "warning: service shop: tidegate.ssl_cert = \"shop.pem\": the certificate shop.pem has expired; \
                  make a new secret";
    assert!(
        harness.diagnosed.iter().any(|line| line == wanted),
        "{:?}",
        harness.diagnosed
    );
    let shown = |harness: &Harness| {
        let status = harness.controllers[0].status(harness.now);
        status
            .diagnostics
            .iter()
            .filter(|found| found.problem.contains("expired"))
            .count()
    };
    assert_eq!(shown(&harness), 1);
    harness.turn(0, Input::Fact(report(&[])));
    assert_eq!(shown(&harness), 0);
    assert!(SecretProblem::Waiting.finding("a").passing);
}
