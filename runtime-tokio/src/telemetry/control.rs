//! Metrics of the control side: what a controller sees and publishes, and what a proxy subscribed to.

use super::exposition::Text;
use crate::app::controller::ControllerState;
use crate::control::subscribe::SubscriptionStatus;

/// Prometheus text of a controller.
pub fn controller(state: &ControllerState) -> String {
    let mut out = Text::default();
    let status = &state.status;
    out.family("tidegate_synced", "gauge", "1 once the Swarm was seen whole");
    out.sample("tidegate_synced", &[], u64::from(status.synced));
    if let Some(age) = status.staleness_ms {
        let help = "Milliseconds since the oldest of the lists that matter was confirmed";
        out.family("tidegate_staleness_milliseconds", "gauge", help);
        out.sample("tidegate_staleness_milliseconds", &[], age);
    }
    let calls = &state.counters;
    out.family("tidegate_docker_calls_total", "counter", "Lists asked of Docker");
    for (lane, count) in &calls.fetches {
        out.sample("tidegate_docker_calls_total", &[("list", lane.name())], *count);
    }
    out.family(
        "tidegate_docker_failures_total",
        "counter",
        "Lists without a usable answer",
    );
    for (lane, count) in &calls.failures {
        out.sample("tidegate_docker_failures_total", &[("list", lane.name())], *count);
    }
    for (name, help, value) in [
        ("tidegate_docker_events_total", "Events received", calls.events),
        ("tidegate_docker_streams_total", "Event streams opened", calls.streams),
        (
            "tidegate_docker_outdated_total",
            "Objects older than what is known, not believed",
            calls.outdated,
        ),
        (
            "tidegate_docker_kept_total",
            "Objects missing from a list and kept for now",
            calls.kept,
        ),
        (
            "tidegate_acks_total",
            "Acknowledgements of the present table",
            state.acks.0,
        ),
        (
            "tidegate_ack_milliseconds_total",
            "Milliseconds from publication to these",
            state.acks.1,
        ),
    ] {
        out.family(name, "counter", help);
        out.sample(name, &[], value);
    }
    out.family("tidegate_diagnostics", "gauge", "Findings about labels");
    out.sample("tidegate_diagnostics", &[], status.diagnostics.len() as u64);
    type Of = fn(&tidegate_core::controller::status::ClusterStatus) -> u64;
    let families: [(&str, &str, Of); 4] = [
        ("tidegate_revision", "Present revision", |cluster| cluster.revision),
        ("tidegate_routes", "Routed services", |cluster| cluster.routes as u64),
        ("tidegate_proxies", "Connected proxies", |cluster| {
            cluster.proxies.len() as u64
        }),
        (
            "tidegate_proxies_behind",
            "Connected proxies that do not serve the present revision",
            |cluster| cluster.proxies.iter().filter(|proxy| !proxy.current).count() as u64,
        ),
    ];
    for (name, help, of) in families {
        out.family(name, "gauge", help);
        for (cluster, status) in &status.clusters {
            out.sample(name, &[("cluster", cluster.as_str())], of(status));
        }
    }
    out.0
}

/// Prometheus text of a proxy's subscription.
pub fn proxy(status: &SubscriptionStatus) -> String {
    let mut out = Text::default();
    for (name, help, value) in [
        ("tidegate_table_revision", "Revision that is served", status.revision),
        (
            "tidegate_controller_connected",
            "1 while a controller is heard",
            status.connected.into(),
        ),
        (
            "tidegate_refused_specs",
            "Services that this version cannot serve",
            status.refused.len() as u64,
        ),
    ] {
        out.family(name, "gauge", help);
        out.sample(name, &[], value);
    }
    out.0
}
