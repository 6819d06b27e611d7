//! Certificates in `direct` mode: which secrets are mounted into the proxies.

use super::*;

/// What the present proxy service of the default cluster mounts.
fn mounted(harness: &Harness) -> Vec<String> {
    let managed = harness.swarm.managed();
    let proxy = managed.iter().find(|service| service.shape.name == "tidegate_proxy");
    let secrets = proxy.iter().flat_map(|service| service.shape.secrets.keys());
    secrets.filter(|name| !name.starts_with("tidegate")).cloned().collect()
}

fn direct() -> Settings {
    let mut settings = attached_proxies();
    for cluster in settings.clusters.values_mut() {
        cluster.certificates = CertificateSource::Direct;
    }
    settings
}

#[test]
fn the_secrets_that_labels_name_are_mounted_into_the_proxies_as_far_as_they_exist() {
    let mut harness = Harness::new();
    harness.start(direct(), me("one", &[1]));
    harness.run(30, |harness| harness.swarm.managed().len() == 2);
    let labels = [
        ("tidegate.hosts", "shop.example.org"),
        ("tidegate.port", "80"),
        ("tidegate.ssl_cert", "shop.cert"),
        ("tidegate.ssl_key", "shop.key"),
    ];
    harness.app("shop", "edge", &labels);
    let missing = |harness: &Harness, name: &str| {
        let wanted = alloc::format!("there is no secret {name}");
        harness.diagnosed.iter().any(|line| line.contains(&wanted))
    };
    harness.run(30, |harness| {
        missing(harness, "shop.cert") && missing(harness, "shop.key")
    });
    assert_eq!(mounted(&harness), Vec::<String>::new());
    for name in ["shop.cert", "shop.key"] {
        let now = harness.now;
        harness.swarm.create_secret(name, &[], b"pem", now).unwrap();
    }
    harness.run(60, |harness| mounted(harness) == ["shop.cert", "shop.key"]);
    // A table that names them was published all along.
    let snapshot = harness.controllers[0].snapshot(&ClusterName::default_cluster());
    assert_eq!(snapshot.routes.len(), 1);
}

#[test]
fn a_secret_of_our_own_is_never_mounted_for_a_label() {
    let mut harness = Harness::new();
    harness.start(direct(), me("one", &[1]));
    harness.run(30, |harness| harness.swarm.managed().len() == 2);
    let secrets = harness.swarm.secrets();
    let own = secrets
        .iter()
        .find(|secret| secret.labels.contains_key("tidegate.identity"));
    let name = own.expect("a controller makes its identities").name.clone();
    let labels = [
        ("tidegate.hosts", "shop.example.org"),
        ("tidegate.port", "80"),
        ("tidegate.ssl_cert", name.as_str()),
    ];
    let before = harness.swarm.managed();
    harness.app("shop", "edge", &labels);
    harness.run(30, |harness| {
        harness.diagnosed.iter().any(|line| line.contains("Tidegate's own"))
    });
    let secrets =
        |managed: Vec<ManagedService>| -> Vec<_> { managed.into_iter().map(|service| service.shape.secrets).collect() };
    assert_eq!(secrets(harness.swarm.managed()), secrets(before));
}
