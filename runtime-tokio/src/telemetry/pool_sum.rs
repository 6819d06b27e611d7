//! One pool, summed over the workers of a proxy.

use std::collections::BTreeMap;

use tidegate_core::pool::State;

use crate::worker::PoolView;

#[derive(Debug, Default)]
pub(super) struct PoolSum {
    pub(super) statuses: [u64; 6],
    pub(super) retries: u64,
    pub(super) retries_refused: u64,
    pub(super) parked_total: u64,
    pub(super) parked: u64,
    pub(super) ejections: u64,
    pub(super) outliers: u64,
    pub(super) panics: u64,
    pub(super) busy: u64,
    pub(super) unfit: u64,
    pub(super) probations: u64,
    pub(super) hedges: u64,
    pub(super) hedges_won: u64,
    pub(super) abandoned: u64,
    pub(super) idle: u64,
    /// States order from worst to best.
    pub(super) states: BTreeMap<String, State>,
}

impl PoolSum {
    pub(super) fn add(&mut self, view: &PoolView) {
        for (mine, theirs) in self.statuses.iter_mut().zip(view.statuses) {
            *mine += theirs;
        }
        self.retries += view.counters.retries;
        self.retries_refused += view.counters.retries_refused;
        self.parked_total += view.counters.parked;
        self.parked += u64::from(view.parked);
        self.ejections += view.counters.ejections;
        self.outliers += view.counters.outliers;
        self.panics += view.counters.panics;
        self.busy += view.counters.busy;
        self.unfit += view.counters.unfit;
        self.probations += view.counters.probations;
        self.hedges += view.counters.hedges;
        self.hedges_won += view.counters.hedges_won;
        self.abandoned += view.counters.abandoned;
        self.idle += view.idle_connections as u64;
        for endpoint in &view.endpoints {
            let worst = self.states.entry(endpoint.id.to_string()).or_insert(endpoint.state);
            *worst = (*worst).min(endpoint.state);
        }
    }
}
