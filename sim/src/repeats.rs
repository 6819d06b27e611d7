//! How often requests are sent again, counted where they arrive: retries are a share of the requests (`retry_budget_percent`),
//! with a floor, so that they never become the load that keeps a service down.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;

use tidegate_core::time::Instant;

/// Of a hundred requests so many may be repeats: the setting that no story changes.
const PERCENT: u64 = 20;
/// Repeats that are allowed in ten seconds, however few requests there are.
const FLOOR: u64 = 100;
/// Requests that the proxy has, and that have not arrived yet.
const ON_THEIR_WAY: u64 = 20;
/// Seconds that one of the proxy's budgets looks back at, and one more, as it counts by whole seconds.
const LOOKS_BACK: u64 = 11;
/// In any so many seconds no more than one budget is spent.
const SPENT: u64 = 9;

/// By second: what arrived for the first time, and again.
type Seconds = BTreeMap<u64, (u64, u64)>;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    /// Of each proxy and service.
    seconds: RefCell<BTreeMap<(IpAddr, String), Seconds>>,
}

impl Repeats {
    /// A request arrived at a task of a service; `again`: at some task before. Says what is too much.
    pub(crate) fn arrives(&self, proxy: IpAddr, service: &str, again: bool, now: Instant) -> Option<String> {
        let mut all = self.seconds.borrow_mut();
        let seconds = all.entry((proxy, service.to_owned())).or_default();
        let second = now.since_start().as_secs();
        let (first, repeated) = seconds.entry(second).or_default();
        if !again {
            *first += 1;
            return None;
        }
        *repeated += 1;
        seconds.retain(|then, _| *then + LOOKS_BACK >= second);
        let requests: u64 = seconds.values().map(|(first, _)| first).sum();
        let late = seconds.iter().filter(|(then, _)| **then + SPENT > second);
        let repeats: u64 = late.map(|(_, (_, repeated))| repeated).sum();
        let most = FLOOR + (requests + ON_THEIR_WAY) * PERCENT / 100;
        (repeats > most).then(|| {
            format!("{now}: proxy {proxy} sent {repeats} of {requests} requests for {service} again, {most} at most were due")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_repeats_than_the_share_and_the_floor_are_told() {
        let repeats = Repeats::default();
        let proxy = IpAddr::from([10, 0, 0, 9]);
        let at = |s: u64| Instant::from_millis(s * 1000);
        for second in 0..10 {
            for _ in 0..50 {
                assert_eq!(repeats.arrives(proxy, "shop", false, at(second)), None);
            }
        }
        for number in 0..204 {
            assert_eq!(repeats.arrives(proxy, "shop", true, at(9)), None, "{number}");
        }
        let said = repeats.arrives(proxy, "shop", true, at(9));
        assert!(said.is_some_and(|said| said.contains("sent 205 of 500 requests for shop again, 204 at most")));
        assert_eq!(repeats.arrives(proxy, "blog", true, at(9)), None);
        assert_eq!(repeats.arrives(proxy, "shop", true, at(40)), None, "long ago");
    }
}
