//! What a proxy may hold at most, looked at from inside its process while it lives, and what it may hold when everything is
//! over: nothing.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use tidegate::app::proxy::Front;
use tidegate::worker::PoolView;
use tidegate_core::id::TaskId;
use tidegate_core::pool::state::State;
use tidegate_core::route::RouteTable;

use crate::shared::Shared;

/// Between two looks.
pub(crate) const EVERY: Duration = Duration::from_millis(200);

/// Looks at a proxy for as long as it lives, and tells the witness.
pub(crate) async fn look(shared: Rc<Shared>, proxy: IpAddr, front: Rc<RefCell<Option<Front>>>) {
    let _life = Life(shared.clone(), proxy);
    let mut waited = 0;
    loop {
        shared.wait(EVERY).await;
        let Some(front) = front.borrow().clone() else {
            continue; // it has no table yet
        };
        let pools = front.pools().await;
        if let Err(broken) = judge(&front.table(), &pools) {
            shared
                .witness()
                .breaks(format!("{}: proxy {proxy}: {broken}", shared.now()));
        }
        let endpoints = pools.iter().flat_map(|pool| &pool.endpoints);
        for ready in endpoints.filter(|endpoint| endpoint.state == State::Ready) {
            let task = TaskId::from(ready.id.as_str());
            shared.witness().is_ready(proxy, &task, shared.now());
        }
        let parked = pools.iter().map(|pool| u64::from(pool.parked)).sum();
        shared.witness().waits(proxy, parked);
        if parked > waited {
            shared.trace("oracle", &format!("{parked} requests wait in proxy {proxy}"));
        }
        waited = parked;
    }
}

/// Nothing waits in a process that is gone, however it went.
struct Life(Rc<Shared>, IpAddr);

impl Drop for Life {
    fn drop(&mut self) {
        self.0.witness().waits(self.1, 0);
    }
}

/// The bounds that settings give: see `ProxySettings`.
fn judge(table: &RouteTable, pools: &[PoolView]) -> Result<(), String> {
    let settings = table.settings();
    if pools.len() > table.pools().len() {
        return Err(format!(
            "{} pools for {} of its table",
            pools.len(),
            table.pools().len()
        ));
    }
    for pool in pools {
        let (name, counters) = (&pool.name, &pool.counters);
        if pool.parked > settings.parked_max {
            return Err(format!(
                "{} requests wait for {name}, of {} that may",
                pool.parked, settings.parked_max
            ));
        }
        let most = counters.requests * u64::from(settings.retries_max);
        if counters.retries > most {
            return Err(format!("{} retries for {name}, of {most} at most", counters.retries));
        }
        let idle_most = pool.endpoints.len() * settings.idle_connections_max as usize;
        if pool.idle_connections > idle_most {
            let idle = pool.idle_connections;
            return Err(format!("{idle} idle connections for {name}, of {idle_most} at most"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidegate_core::id::ServiceId;
    use tidegate_core::pool::PoolCounters;
    use tidegate_core::route::spec::{HostPattern, RouteSpec};
    use tidegate_core::snapshot::model::Snapshot;

    use super::*;

    #[test]
    fn more_than_settings_allow_is_told() {
        let spec = RouteSpec {
            hosts: vec![HostPattern::from_normalised("shop.example".to_owned())],
            ..RouteSpec::new(ServiceId::from("s1"), "shop", "2024-01-01T00:00:00Z")
        };
        let snapshot = Snapshot {
            routes: [(spec.service.clone(), Arc::new(spec))].into(),
            ..Snapshot::default()
        };
        let table = RouteTable::compile(&snapshot);
        let pool = |parked, requests, retries, idle_connections| PoolView {
            key: table.pools().keys().next().expect("one service has a pool").clone(),
            name: "shop".to_owned(),
            endpoints: Vec::new(),
            parked,
            idle_connections,
            counters: PoolCounters {
                requests,
                retries,
                ..PoolCounters::default()
            },
            statuses: [0; 6],
        };
        let says = |pools: &[PoolView]| judge(&table, pools).err().unwrap_or_default();
        assert_eq!(says(&[pool(1024, 5, 15, 0)]), "");
        assert_eq!(
            says(&[pool(1025, 5, 0, 0)]),
            "1025 requests wait for shop, of 1024 that may"
        );
        assert_eq!(says(&[pool(0, 5, 16, 0)]), "16 retries for shop, of 15 at most");
        assert_eq!(says(&[pool(0, 0, 0, 1)]), "1 idle connections for shop, of 0 at most");
        let two = [pool(0, 0, 0, 0), pool(0, 0, 0, 0)];
        assert_eq!(says(&two), "2 pools for 1 of its table");
    }
}
