//! Metrics of the control side: what a controller sees and publishes, and what a proxy subscribed to.

use super::exposition::Text;
use super::freshness::BOUNDS_MS;
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
    let help = "Milliseconds that each list may be behind Docker";
    out.family("tidegate_list_age_milliseconds", "gauge", help);
    for (list, age) in &state.ages {
        out.sample(
            "tidegate_list_age_milliseconds",
            &[("list", list.name())],
            age.as_millis(),
        );
    }
    out.family("tidegate_docker_calls_total", "counter", "Calls to Docker that ended");
    for ((call, result), count) in &state.calls {
        let labels = [("call", *call), ("result", *result)];
        out.sample("tidegate_docker_calls_total", &labels, *count);
    }
    let seen = &state.counters;
    for (name, help, value) in [
        ("tidegate_docker_events_total", "Events received", seen.events),
        ("tidegate_docker_streams_total", "Event streams opened", seen.streams),
        (
            "tidegate_swarm_watch_events_total",
            "Changes of tasks that SwarmKit's watch told",
            seen.feed_events,
        ),
        (
            "tidegate_swarm_watch_streams_total",
            "SwarmKit watches opened",
            seen.feeds,
        ),
        (
            "tidegate_swarm_watch_silences_total",
            "Watches closed because a list showed what they had not told",
            seen.feed_silences,
        ),
        (
            "tidegate_docker_outdated_total",
            "Objects older than what is known, not believed",
            seen.outdated,
        ),
        (
            "tidegate_docker_kept_total",
            "Objects missing from a list and kept for now",
            seen.kept,
        ),
    ] {
        out.family(name, "counter", help);
        out.sample(name, &[], value);
    }
    let help = "1 while SwarmKit's watch is open";
    out.family("tidegate_swarm_watch_open", "gauge", help);
    out.sample("tidegate_swarm_watch_open", &[], u64::from(state.is_fed));
    for (name, help, latencies) in [
        (
            "tidegate_ack_duration_seconds",
            "From the publication of a revision to each proxy's acknowledgement",
            &state.freshness.acks,
        ),
        (
            "tidegate_freshness_seconds",
            "From Docker's decision to each proxy's acknowledgement of what it changes",
            &state.freshness.decided,
        ),
    ] {
        out.histogram(name, help, &BOUNDS_MS, &latencies.buckets, latencies.micros);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tidegate_core::controller::status::{ClusterStatus, ControllerStatus};
    use tidegate_core::id::ClusterName;
    use tidegate_core::snapshot::Served;
    use tidegate_core::swarm::model::ApiError;
    use tidegate_core::swarm::world::Lane;

    use super::super::exposition::tests::{documented, families};
    use super::super::freshness::{Calls, Freshness};
    use super::*;

    fn sample() -> String {
        let calls = Calls::default();
        for _ in 0..3 {
            calls.count("tasks", &Ok(()));
        }
        calls.count::<()>("update_service", &Err(ApiError::Conflict(String::new())));
        let mut freshness = Freshness::default();
        let wall = Duration::from_secs(1_800_000_000);
        let served = |took, decided: &[u64]| Served {
            took: Duration::from_millis(took),
            decided: decided.iter().map(|ms| wall - Duration::from_millis(*ms)).collect(),
        };
        let ahead = Served {
            took: Duration::ZERO,
            decided: Arc::from([wall + Duration::from_secs(9)]),
        };
        freshness.served(&[served(3, &[90, 700]), served(100_000, &[]), ahead], wall);
        let cluster = (ClusterName::default_cluster(), ClusterStatus::default());
        controller(&ControllerState {
            status: ControllerStatus {
                synced: true,
                staleness_ms: Some(40),
                clusters: [cluster].into(),
                ..ControllerStatus::default()
            },
            ages: [
                (Lane::Services, Duration::ZERO),
                (Lane::Tasks, Duration::from_millis(1234)),
            ]
            .into(),
            calls: calls.counts(),
            freshness,
            ..ControllerState::default()
        })
    }

    #[test]
    fn a_controller_tells_how_fresh_it_is() {
        insta::assert_snapshot!(sample());
    }

    #[test]
    fn the_documentation_names_exactly_what_there_is() {
        assert_eq!(documented("## Controllers"), families(&sample()));
    }
}
