//! What a pool decides by: from the settings of its cluster, the limits of its route and the shares of its services.

use alloc::vec::Vec;

use crate::balance::rendezvous;
use crate::route::PoolSpec;
use crate::route::spec::{Balance, RouteLimits};
use crate::route::statuses::ServerErrors;
use crate::settings::proxy::ProxySettings;
use crate::time::Duration;

/// What a pool decides by. From the cluster's settings and the route's own limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolPolicy {
    /// How an endpoint is chosen among those that are ready.
    pub balance: Balance,
    /// Failures within `fail_timeout` after which an endpoint is taken out; 0 = never. For endpoints of services that
    /// `services` does not have.
    pub max_fails: u32,
    /// The window of `max_fails`, and how long an ejected endpoint rests.
    pub fail_timeout: Duration,
    /// Points in percent by which the share of an endpoint's failures must be above that of the others to take it out;
    /// 0 = never. Likewise.
    pub fail_rate_percent: u32,
    /// The share of the pool that may be ejected at once; one endpoint may always. 0 = none.
    pub eject_max_percent: u32,
    /// The share of the pool that must be ready; where fewer are, ejected ones are used too. 0 = they are not.
    pub panic_threshold_percent: u32,
    /// What differs from service to service.
    pub services: Vec<ServicePolicy>,
    /// Retries in percent of requests.
    pub retry_budget_percent: u32,
    /// Requests that may wait for an endpoint at once.
    pub parked_max: u32,
    /// How long one may wait; zero: none waits.
    pub park: Duration,
    /// How long a response may take to begin before it is asked whether its endpoint is still there; zero: never.
    pub doubt: Duration,
}

/// What a pool decides by for the endpoints of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServicePolicy {
    /// Of its id, for clients that are known again.
    pub hash: u64,
    /// Its share of the requests; `None`: one per ready endpoint. 0: its endpoints take nothing.
    pub weight: Option<u32>,
    /// See [`PoolPolicy::max_fails`].
    pub max_fails: u32,
    /// See [`PoolPolicy::fail_timeout`].
    pub fail_timeout: Duration,
    /// See [`PoolPolicy::fail_rate_percent`].
    pub fail_rate_percent: u32,
    /// Requests that one of its endpoints may have under way from this worker; 0: any number.
    pub requests_max: u32,
    /// Answers that count as failures.
    pub fail_on: ServerErrors,
    /// How long a new endpoint takes to grow to its full share; zero: it has it at once.
    pub slow_start: Duration,
}

impl PoolPolicy {
    /// The policy of a pool of a route table in a cluster with `settings`.
    pub fn of(pool: &PoolSpec, settings: &ProxySettings) -> Self {
        let services = pool.services.iter().zip(&pool.shares).map(|(service, share)| {
            let max_fails = share.checks.max_fails.unwrap_or(settings.max_fails);
            // Who says that nothing is ever set aside does not mean that something else may do it.
            let clusters = if max_fails == 0 { 0 } else { settings.fail_rate_percent };
            let fail_timeout_ms = share.checks.fail_timeout_ms.unwrap_or(settings.fail_timeout_ms);
            ServicePolicy {
                hash: rendezvous::hash(service.id.as_str().as_bytes()),
                weight: share.weight,
                max_fails,
                fail_rate_percent: share.checks.fail_rate_percent.unwrap_or(clusters),
                requests_max: share.checks.requests_max.unwrap_or(0),
                fail_on: share.checks.fail_on,
                fail_timeout: Duration::from_millis(fail_timeout_ms.into()),
                slow_start: Duration::from_millis(share.checks.slow_start_ms.unwrap_or(0).into()),
            }
        });
        PoolPolicy {
            services: services.collect(),
            ..Self::new(pool.balance, &pool.limits, settings)
        }
    }

    /// The same for one of so many workers, among which the limits of endpoints are divided: each may do its part, rounded up.
    #[must_use]
    pub fn divided_among(mut self, workers: u32) -> Self {
        for service in &mut self.services {
            service.requests_max = service.requests_max.div_ceil(workers.max(1));
        }
        self
    }

    /// The policy of a route with `limits` in a cluster with `settings`.
    pub fn new(balance: Balance, limits: &RouteLimits, settings: &ProxySettings) -> Self {
        PoolPolicy {
            balance,
            max_fails: settings.max_fails,
            fail_timeout: Duration::from_millis(settings.fail_timeout_ms.into()),
            fail_rate_percent: match settings.max_fails {
                0 => 0,
                _ => settings.fail_rate_percent,
            },
            eject_max_percent: limits.eject_max_percent.unwrap_or(settings.eject_max_percent),
            panic_threshold_percent: limits
                .panic_threshold_percent
                .unwrap_or(settings.panic_threshold_percent),
            services: Vec::new(),
            retry_budget_percent: settings.retry_budget_percent,
            parked_max: limits.parked_max.unwrap_or(settings.parked_max),
            park: Duration::from_millis(limits.park_ms.unwrap_or(settings.park_ms).into()),
            doubt: Duration::from_millis(settings.doubt_ms.into()),
        }
    }
}

/// The weight of each service that has an endpoint among those of `offered` services, 0 for the others.
pub(super) fn weights(services: &[ServicePolicy], offered: impl Iterator<Item = usize>) -> Vec<u32> {
    let mut weights = alloc::vec![0_u32; services.len()];
    for service in offered {
        if let Some(weight) = weights.get_mut(service) {
            *weight = services[service].weight.unwrap_or_else(|| weight.saturating_add(1));
        }
    }
    weights
}
