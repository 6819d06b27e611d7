//! Labels, as anybody who may deploy a service may write them: never a panic, and the same route and findings each time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_core::id::{ServiceId, Version};
use tidegate_core::labels::{keys, read};
use tidegate_core::swarm::model::{EndpointMode, Service, ServiceMode};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut labels = vec![
        ("tidegate.hosts".to_owned(), "shop.example.org".to_owned()),
        ("tidegate.port".to_owned(), "80".to_owned()),
    ];
    // A line each: the place of a known label in the list, or a label's name, and the value behind `=`.
    for line in text.lines() {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let known = key
            .parse::<usize>()
            .ok()
            .and_then(|place| keys::LABELS.get(place % keys::LABELS.len()));
        let key = known.map_or_else(|| key.to_owned(), |known| format!("tidegate.{}", known.name));
        labels.push((key, value.to_owned()));
    }
    let service = Service {
        id: ServiceId::from("shop"),
        name: "shop".to_owned(),
        version: Version(1),
        created_at: String::new(),
        labels: labels.into_iter().collect(),
        mode: ServiceMode::Replicated { replicas: 1 },
        endpoint_mode: EndpointMode::Vip,
        virtual_ips: Vec::new(),
        ports: Vec::new(),
        networks: Vec::new(),
        has_health_check: false,
    };
    let (once, again) = (read(&service), read(&service));
    assert_eq!(once.route, again.route);
    assert_eq!(once.diagnostics, again.diagnostics);
    for finding in &once.diagnostics {
        assert!(!finding.to_string().is_empty());
    }
});
