//! What controllers count of themselves: calls to Docker, and how fresh their proxies are.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;

use super::admin::page;
use crate::clock::now;
use crate::scene::{CONTROLLER, Scene};

/// The counts of all controllers together, at one moment.
#[derive(Clone, Debug)]
pub(super) struct Counts {
    at: Instant,
    controllers: usize,
    samples: BTreeMap<String, f64>,
}

impl Counts {
    /// Asks every controller.
    pub(super) fn take(scene: &Scene) -> Result<Counts> {
        let mut counts = Counts {
            at: now(),
            controllers: 0,
            samples: BTreeMap::new(),
        };
        for node in scene.managers() {
            for container in node.containers_of(CONTROLLER)? {
                counts.controllers += 1;
                add_samples(&page(node, &container, "/metrics")?, &mut counts.samples);
            }
        }
        Ok(counts)
    }

    /// Routed services, as the controllers count them on average.
    pub(super) fn routes(&self) -> f64 {
        self.sum("tidegate_routes") / self.controllers.max(1) as f64
    }

    fn sum(&self, start: &str) -> f64 {
        let matching = self.samples.iter().filter(|(name, _)| name.starts_with(start));
        matching.map(|(_, value)| value).sum()
    }

    fn since(&self, earlier: &Counts, name: &str) -> f64 {
        self.sum(name) - earlier.sum(name)
    }

    /// Calls to Docker a second since `earlier`, one controller on average, by kind.
    pub(super) fn calls_since(&self, earlier: &Counts) -> String {
        let seconds = self.at.duration_since(earlier.at).as_secs_f64() * self.controllers.max(1) as f64;
        let mut kinds: BTreeMap<&str, f64> = BTreeMap::new();
        for (name, value) in &self.samples {
            let Some(labels) = name.strip_prefix("tidegate_docker_calls_total{call=\"") else {
                continue;
            };
            let kind = labels.split('"').next().unwrap_or_default();
            *kinds.entry(kind).or_default() += value - earlier.samples.get(name).copied().unwrap_or_default();
        }
        let all: f64 = kinds.values().sum();
        let mut text = format!("{:.2} calls a second", all / seconds);
        for (kind, count) in kinds.iter().filter(|(_, count)| **count > 0.0) {
            text.push_str(&format!(", {kind} {:.2}", count / seconds));
        }
        text
    }

    /// What the controllers' feeds told since `earlier`.
    pub(super) fn feed_since(&self, earlier: &Counts) -> String {
        format!(
            "open at {} of {} controllers, {} changes told, {} feeds opened, {} silent",
            self.sum("tidegate_swarm_watch_open"),
            self.controllers,
            self.since(earlier, "tidegate_swarm_watch_events_total"),
            self.since(earlier, "tidegate_swarm_watch_streams_total"),
            self.since(earlier, "tidegate_swarm_watch_silences_total"),
        )
    }

    /// What `tidegate_freshness_seconds` says since `earlier`.
    pub(super) fn freshness_since(&self, earlier: &Counts) -> String {
        let within = |bound: &str| {
            let name = format!("tidegate_freshness_seconds_bucket{{le=\"{bound}\"}}");
            self.since(earlier, &name)
        };
        format!(
            "{} acknowledged changes, {} within 100 ms of Docker's decision, {} within 200, {} within 800",
            self.since(earlier, "tidegate_freshness_seconds_count"),
            within("0.1"),
            within("0.2"),
            within("0.8"),
        )
    }
}

/// Adds the samples of a page of metrics, by name with labels, to those that are there.
pub(crate) fn add_samples(text: &str, samples: &mut BTreeMap<String, f64>) {
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some((name, value)) = line.rsplit_once(' ')
            && let Ok(value) = value.parse::<f64>()
        {
            *samples.entry(name.to_string()).or_default() += value;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn counts(at: Instant, text: &str) -> Counts {
        let mut samples = BTreeMap::new();
        add_samples(text, &mut samples);
        add_samples(text, &mut samples);
        Counts {
            at,
            controllers: 2,
            samples,
        }
    }

    #[test]
    fn rates_are_those_of_one_controller() {
        let start = now();
        let before = counts(
            start,
            "# TYPE x counter\ntidegate_docker_calls_total{call=\"tasks\",result=\"ok\"} 5\n",
        );
        let text = "tidegate_docker_calls_total{call=\"tasks\",result=\"ok\"} 25\n\
                    tidegate_docker_calls_total{call=\"tasks\",result=\"server\"} 10\n\
                    tidegate_routes{cluster=\"default\"} 7\n\
                    tidegate_freshness_seconds_bucket{le=\"0.1\"} 3\ntidegate_freshness_seconds_bucket{le=\"0.2\"} 4\n\
                    tidegate_freshness_seconds_bucket{le=\"0.8\"} 4\ntidegate_freshness_seconds_count 5\n";
        let after = counts(start + Duration::from_secs(10), text);
        assert_eq!(after.calls_since(&before), "3.00 calls a second, tasks 3.00");
        assert_eq!(after.routes(), 7.0);
        assert_eq!(
            after.freshness_since(&before),
            "10 acknowledged changes, 6 within 100 ms of Docker's decision, 8 within 200, 8 within 800"
        );
    }
}
