//! Counts of a worker. Plain cells on its own thread, read through its query channel, summed by whoever renders them: no
//! request meets a shared counter.
//!
//! Names are documented in `docs/metrics.md`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidegate_core::pool::State;
use tidegate_core::request::fault::UpstreamFault;
use tidegate_core::time::Duration;

use super::exposition::Text;
use super::pool_sum::PoolSum;
use crate::worker::PoolView;

/// Upper bounds of the duration histogram, in milliseconds.
const BOUNDS_MS: [u64; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 5000, 30_000];

/// Responses by class of status; index 0 counts requests whose client left before there was one.
#[derive(Debug, Default)]
pub(crate) struct StatusCounts([Cell<u64>; 6]);

impl StatusCounts {
    pub(crate) fn count(&self, status: u16) {
        let class = if status == 499 {
            0
        } else {
            usize::from(status / 100).min(5)
        };
        bump(&self.0[class]);
    }

    pub(crate) fn counts(&self) -> [u64; 6] {
        std::array::from_fn(|class| self.0[class].get())
    }
}

/// A histogram of durations.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// The last one is beyond all bounds.
    buckets: [Cell<u64>; BOUNDS_MS.len() + 1],
    micros: Cell<u64>,
}

impl Histogram {
    pub(crate) fn observe(&self, took: Duration) {
        let at = BOUNDS_MS.iter().position(|bound| took <= Duration::from_millis(*bound));
        bump(&self.buckets[at.unwrap_or(BOUNDS_MS.len())]);
        self.micros
            .set(self.micros.get() + u64::try_from(took.as_micros()).unwrap_or(0));
    }
}

/// Live counts of one worker.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) accept_errors: Cell<u64>,
    pub(crate) connect_failures: Cell<u64>,
    no_leg: Cell<u64>,
    pub(crate) connections: Cell<u64>,
    pub(crate) connections_open: Cell<u64>,
    pub(crate) durations: Histogram,
    faults: RefCell<BTreeMap<&'static str, u64>>,
    pub(crate) park_timeouts: Cell<u64>,
    pub(crate) passthrough: Cell<u64>,
    pub(crate) probes: Cell<u64>,
    pub(crate) refused_heads: Cell<u64>,
    pub(crate) requests_open: Cell<u64>,
    pub(crate) slow_clients: Cell<u64>,
    pub(crate) tables: Cell<u64>,
    tls_failures: RefCell<BTreeMap<&'static str, u64>>,
    tls_handshakes: [Cell<u64>; 2],
    pub(crate) unrouted: StatusCounts,
    pub(crate) upgrades: Cell<u64>,
    pub(crate) upgrades_open: Cell<u64>,
    upstream_new: Cell<u64>,
    upstream_reused: Cell<u64>,
}

impl Metrics {
    /// A request got a connection to an endpoint.
    pub(crate) fn count_connection(&self, reused: bool) {
        bump(if reused {
            &self.upstream_reused
        } else {
            &self.upstream_new
        });
    }

    /// The proxy answered itself, or a response broke off.
    pub(crate) fn count_fault(&self, fault: &'static str) {
        *self.faults.borrow_mut().entry(fault).or_default() += 1;
    }

    /// A connection to an endpoint was not made.
    pub(crate) fn count_no_leg(&self, fault: UpstreamFault) {
        if fault == UpstreamFault::NoLeg {
            bump(&self.no_leg);
        }
    }

    /// A TLS connection came to nothing.
    pub(crate) fn count_tls_failure(&self, reason: &'static str) {
        *self.tls_failures.borrow_mut().entry(reason).or_default() += 1;
    }

    /// TLS ends here.
    pub(crate) fn count_handshake(&self, is_resumed: bool) {
        bump(&self.tls_handshakes[usize::from(is_resumed)]);
    }

    pub(crate) fn read(&self) -> WorkerMetrics {
        WorkerMetrics {
            accept_errors: self.accept_errors.get(),
            access_lines_dropped: 0,
            connect_failures: self.connect_failures.get(),
            no_leg: self.no_leg.get(),
            connections: self.connections.get(),
            connections_open: self.connections_open.get(),
            duration_buckets: self.durations.buckets.iter().map(Cell::get).collect(),
            duration_micros: self.durations.micros.get(),
            faults: self
                .faults
                .borrow()
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
            park_timeouts: self.park_timeouts.get(),
            passthrough: self.passthrough.get(),
            probes: self.probes.get(),
            refused_heads: self.refused_heads.get(),
            requests_open: self.requests_open.get(),
            slow_clients: self.slow_clients.get(),
            tables: self.tables.get(),
            tls_failures: self
                .tls_failures
                .borrow()
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count))
                .collect(),
            tls_handshakes: [self.tls_handshakes[0].get(), self.tls_handshakes[1].get()],
            unrouted: self.unrouted.counts(),
            upgrades: self.upgrades.get(),
            upgrades_open: self.upgrades_open.get(),
            upstream_new: self.upstream_new.get(),
            upstream_reused: self.upstream_reused.get(),
        }
    }
}

fn bump(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

/// Counts of a worker since it started. Sums of several workers are of the same type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerMetrics {
    /// Connections that could not be accepted.
    pub accept_errors: u64,
    /// Access lines that nobody could take in time.
    pub access_lines_dropped: u64,
    /// Connections to endpoints that failed.
    pub connect_failures: u64,
    /// Those of them that found no leg of the endpoint's network.
    pub no_leg: u64,
    /// Client connections accepted.
    pub connections: u64,
    /// Client connections open now.
    pub connections_open: u64,
    /// Requests by duration, not cumulated; the last bucket is beyond all bounds.
    pub duration_buckets: Vec<u64>,
    /// Microseconds of all requests together.
    pub duration_micros: u64,
    /// Answers of the proxy itself and broken responses, by reason.
    pub faults: BTreeMap<String, u64>,
    /// Requests that waited for an endpoint in vain.
    pub park_timeouts: u64,
    /// TLS connections that were passed on to an endpoint.
    pub passthrough: u64,
    /// Connection attempts to endpoints on probation or in doubt.
    pub probes: u64,
    /// Heads that were no HTTP or beyond the limits, and answered before they became requests.
    pub refused_heads: u64,
    /// Requests under way now.
    pub requests_open: u64,
    /// Connections closed because the client was too slow.
    pub slow_clients: u64,
    /// Tables taken.
    pub tables: u64,
    /// TLS connections that came to nothing, by reason.
    pub tls_failures: BTreeMap<String, u64>,
    /// TLS handshakes: full, and resumed with a ticket.
    pub tls_handshakes: [u64; 2],
    /// Responses to requests without route, by class of status.
    pub unrouted: [u64; 6],
    /// Connections that switched protocols.
    pub upgrades: u64,
    /// Those that are open now.
    pub upgrades_open: u64,
    /// Requests that were sent on a new connection.
    pub upstream_new: u64,
    /// Requests that were sent on a connection that was used before.
    pub upstream_reused: u64,
}

impl WorkerMetrics {
    /// Adds another worker's counts.
    pub fn add(&mut self, other: &WorkerMetrics) {
        self.accept_errors += other.accept_errors;
        self.access_lines_dropped += other.access_lines_dropped;
        self.connect_failures += other.connect_failures;
        self.no_leg += other.no_leg;
        self.connections += other.connections;
        self.connections_open += other.connections_open;
        let buckets = self.duration_buckets.len().max(other.duration_buckets.len());
        self.duration_buckets.resize(buckets, 0);
        for (mine, theirs) in self.duration_buckets.iter_mut().zip(&other.duration_buckets) {
            *mine += theirs;
        }
        self.duration_micros += other.duration_micros;
        for (name, count) in &other.faults {
            *self.faults.entry(name.clone()).or_default() += count;
        }
        self.park_timeouts += other.park_timeouts;
        self.passthrough += other.passthrough;
        self.probes += other.probes;
        self.refused_heads += other.refused_heads;
        self.requests_open += other.requests_open;
        self.slow_clients += other.slow_clients;
        self.tables += other.tables;
        for (name, count) in &other.tls_failures {
            *self.tls_failures.entry(name.clone()).or_default() += count;
        }
        for (mine, theirs) in self.tls_handshakes.iter_mut().zip(other.tls_handshakes) {
            *mine += theirs;
        }
        for (mine, theirs) in self.unrouted.iter_mut().zip(other.unrouted) {
            *mine += theirs;
        }
        self.upgrades += other.upgrades;
        self.upgrades_open += other.upgrades_open;
        self.upstream_new += other.upstream_new;
        self.upstream_reused += other.upstream_reused;
    }
}

/// Renders all workers of a proxy as Prometheus text (format 0.0.4). `pools` holds each worker's view of each pool.
pub fn render(workers: &[WorkerMetrics], pools: &[PoolView]) -> String {
    let mut sum = WorkerMetrics::default();
    for worker in workers {
        sum.add(worker);
    }
    let mut by_name: BTreeMap<&str, PoolSum> = BTreeMap::new();
    for pool in pools {
        by_name.entry(&pool.name).or_default().add(pool);
    }
    let mut out = Text::default();
    out.family(
        "tidegate_requests_total",
        "counter",
        "Responses by service and class of status; client_left: the client went away before one",
    );
    let mut requests = |service: &str, counts: &[u64; 6]| {
        for (class, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let class = match class {
                0 => "client_left".to_owned(),
                class => format!("{class}xx"),
            };
            out.sample(
                "tidegate_requests_total",
                &[("service", service), ("status", &class)],
                *count,
            );
        }
    };
    requests("", &sum.unrouted);
    for (name, pool) in &by_name {
        requests(name, &pool.statuses);
    }
    out.histogram(
        "tidegate_request_duration_seconds",
        "Time from a request's head to the end of its response",
        &BOUNDS_MS,
        &sum.duration_buckets,
        sum.duration_micros,
    );
    out.family(
        "tidegate_faults_total",
        "counter",
        "Answers of the proxy itself and responses that broke off, by reason",
    );
    for (reason, count) in &sum.faults {
        out.sample("tidegate_faults_total", &[("reason", reason)], *count);
    }
    out.family(
        "tidegate_tls_failures_total",
        "counter",
        "TLS connections that came to nothing, by reason",
    );
    for (reason, count) in &sum.tls_failures {
        out.sample("tidegate_tls_failures_total", &[("reason", reason)], *count);
    }
    out.family(
        "tidegate_tls_handshakes_total",
        "counter",
        "TLS handshakes that ended here, in full or resumed with a ticket",
    );
    for (kind, count) in ["full", "resumed"].iter().zip(sum.tls_handshakes) {
        out.sample("tidegate_tls_handshakes_total", &[("kind", kind)], count);
    }
    for (name, help, value) in [
        ("tidegate_requests_open", "Requests under way", sum.requests_open),
        (
            "tidegate_connections_open",
            "Client connections open",
            sum.connections_open,
        ),
        (
            "tidegate_upgrades_open",
            "Connections that switched protocols and are open",
            sum.upgrades_open,
        ),
    ] {
        out.family(name, "gauge", help);
        out.sample(name, &[], value);
    }
    for (name, help, value) in [
        (
            "tidegate_connections_total",
            "Client connections accepted",
            sum.connections,
        ),
        (
            "tidegate_upgrades_total",
            "Connections that switched protocols",
            sum.upgrades,
        ),
        (
            "tidegate_refused_heads_total",
            "Heads that were no HTTP or beyond the limits",
            sum.refused_heads,
        ),
        (
            "tidegate_slow_clients_total",
            "Connections closed because the client was too slow",
            sum.slow_clients,
        ),
        (
            "tidegate_accept_errors_total",
            "Connections that could not be accepted",
            sum.accept_errors,
        ),
        (
            "tidegate_upstream_connect_failures_total",
            "Connections to endpoints that failed",
            sum.connect_failures,
        ),
        (
            "tidegate_no_leg_total",
            "Connections to endpoints that were not tried because no leg of their network answered",
            sum.no_leg,
        ),
        (
            "tidegate_probes_total",
            "Connection attempts to endpoints on probation or in doubt",
            sum.probes,
        ),
        (
            "tidegate_park_timeouts_total",
            "Requests that waited for an endpoint in vain",
            sum.park_timeouts,
        ),
        (
            "tidegate_passthrough_total",
            "TLS connections that were passed on to an endpoint",
            sum.passthrough,
        ),
        (
            "tidegate_tables_total",
            "Tables taken, by all workers together",
            sum.tables,
        ),
        (
            "tidegate_access_lines_dropped_total",
            "Access lines that could not be written in time",
            sum.access_lines_dropped,
        ),
    ] {
        out.family(name, "counter", help);
        out.sample(name, &[], value);
    }
    out.family(
        "tidegate_upstream_requests_total",
        "counter",
        "Requests sent to endpoints, by kind of connection",
    );
    out.sample(
        "tidegate_upstream_requests_total",
        &[("connection", "new")],
        sum.upstream_new,
    );
    out.sample(
        "tidegate_upstream_requests_total",
        &[("connection", "reused")],
        sum.upstream_reused,
    );
    type Read = fn(&PoolSum) -> u64;
    let per_pool: [(&str, &str, &str, Read); 14] = [
        ("tidegate_retries_total", "counter", "Tries beyond the first", |pool| {
            pool.retries
        }),
        (
            "tidegate_retries_refused_total",
            "counter",
            "Retries that the budget refused",
            |pool| pool.retries_refused,
        ),
        (
            "tidegate_hedges_total",
            "counter",
            "Second copies of requests that were sent elsewhere",
            |pool| pool.hedges,
        ),
        (
            "tidegate_hedges_won_total",
            "counter",
            "Second copies that were answered first",
            |pool| pool.hedges_won,
        ),
        (
            "tidegate_abandoned_total",
            "counter",
            "Requests that left an endpoint that vanished under them",
            |pool| pool.abandoned,
        ),
        (
            "tidegate_parked_total",
            "counter",
            "Requests that had to wait for an endpoint",
            |pool| pool.parked_total,
        ),
        (
            "tidegate_parked",
            "gauge",
            "Requests that wait for an endpoint now",
            |pool| pool.parked,
        ),
        (
            "tidegate_busy_total",
            "counter",
            "Requests that found all endpoints with as many requests as they may have",
            |pool| pool.busy,
        ),
        (
            "tidegate_ejections_total",
            "counter",
            "Times an endpoint was ejected",
            |pool| pool.ejections,
        ),
        (
            "tidegate_outliers_total",
            "counter",
            "Times an endpoint was ejected for failing far more often than the others",
            |pool| pool.outliers,
        ),
        (
            "tidegate_panics_total",
            "counter",
            "Requests that went to an ejected endpoint because too few were ready",
            |pool| pool.panics,
        ),
        (
            "tidegate_probations_total",
            "counter",
            "Times an endpoint went on probation",
            |pool| pool.probations,
        ),
        (
            "tidegate_unfit_total",
            "counter",
            "Times an endpoint began to fail its active checks",
            |pool| pool.unfit,
        ),
        (
            "tidegate_upstream_idle_connections",
            "gauge",
            "Connections that wait for a request",
            |pool| pool.idle,
        ),
    ];
    for (name, kind, help, read) in per_pool {
        out.family(name, kind, help);
        for (service, pool) in &by_name {
            out.sample(name, &[("service", service)], read(pool));
        }
    }
    out.family(
        "tidegate_endpoints",
        "gauge",
        "Endpoints by state, as the worker sees them that sees them worst",
    );
    for (service, pool) in &by_name {
        for state in State::ALL {
            let count = pool.states.values().filter(|worst| **worst == state).count() as u64;
            if count > 0 {
                out.sample(
                    "tidegate_endpoints",
                    &[("service", service), ("state", state.name())],
                    count,
                );
            }
        }
    }
    out.0
}

#[cfg(test)]
mod tests {
    use tidegate_core::id::{EndpointId, ServiceId};
    use tidegate_core::pool::{EndpointView, PoolCounters};
    use tidegate_core::route::PoolKey;

    use super::super::exposition::tests::{documented, families};
    use super::*;

    fn sample() -> String {
        let metrics = Metrics::default();
        metrics.durations.observe(Duration::from_millis(3));
        metrics.durations.observe(Duration::from_secs(60));
        metrics.unrouted.count(503);
        metrics.count_fault("unknown_host");
        metrics.count_connection(true);
        let worker = metrics.read();
        let pool = |state| PoolView {
            key: PoolKey::of([ServiceId::from("id")].iter()),
            name: "shop\"1".to_owned(),
            endpoints: vec![EndpointView {
                id: EndpointId::from("task"),
                addr: ([10, 0, 0, 1], 80).into(),
                node: None,
                state,
                in_flight: 0,
            }],
            parked: 1,
            idle_connections: 2,
            counters: PoolCounters {
                retries: 3,
                ..PoolCounters::default()
            },
            statuses: [1, 0, 40, 0, 0, 2],
        };
        let pools = [pool(State::Ready), pool(State::Ejected)];
        render(&[worker.clone(), worker], &pools)
    }

    #[test]
    fn two_workers_render_as_one_proxy() {
        insta::assert_snapshot!(sample());
    }

    #[test]
    fn the_documentation_names_exactly_what_there_is() {
        let (documented, real) = (documented("# Metrics"), families(&sample()));
        assert!(documented.contains("tidegate_requests_total"));
        assert_eq!(documented, real);
    }

    #[test]
    fn a_sum_of_sums_is_the_sum() {
        let metrics = Metrics::default();
        metrics.durations.observe(Duration::from_millis(3));
        metrics.unrouted.count(404);
        metrics.count_fault("unknown_host");
        let one = metrics.read();
        let mut two = one.clone();
        two.add(&one);
        let mut four = two.clone();
        four.add(&two);
        let mut sum = WorkerMetrics::default();
        for _ in 0..4 {
            sum.add(&one);
        }
        assert_eq!(sum, four);
    }
}
