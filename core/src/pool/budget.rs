//! How many retries a pool may cause: a share of its requests, so that retries never become the load that keeps a pool
//! down, with a floor so that a quiet pool can retry at all.

use crate::time::{Duration, Instant};

/// Retries that are allowed every second, however few requests there are.
pub const FLOOR_PER_SECOND: u64 = 10;
const SECONDS: usize = 10;

/// Requests and retries of the last ten seconds, second by second.
#[derive(Clone, Debug, Default)]
pub struct RetryBudget {
    slots: [Slot; SECONDS],
    newest: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    requests: u64,
    retries: u64,
}

impl RetryBudget {
    /// Counts a first try.
    pub fn handle_request(&mut self, now: Instant) {
        self.slot(now).requests += 1;
    }

    /// Takes one retry from the budget; false, and nothing taken, where none is left.
    /// `percent` is the share of requests that may be retries.
    pub fn withdraw(&mut self, percent: u32, now: Instant) -> bool {
        self.slot(now);
        let (requests, retries) = self.slots.iter().fold((0, 0), |(requests, retries), slot| {
            (requests + slot.requests, retries + slot.retries)
        });
        let allowed = requests * u64::from(percent) / 100 + FLOOR_PER_SECOND * SECONDS as u64;
        if retries >= allowed {
            return false;
        }
        self.slot(now).retries += 1;
        true
    }

    /// The slot of this second; forgets what is older than the window.
    fn slot(&mut self, now: Instant) -> &mut Slot {
        let second = now.since(Instant::START).max(Duration::ZERO).as_secs();
        if second > self.newest {
            let stale = (second - self.newest).min(SECONDS as u64);
            for back in 0..stale {
                self.slots[((second - back) % SECONDS as u64) as usize] = Slot::default();
            }
            self.newest = second;
        }
        &mut self.slots[(self.newest % SECONDS as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    #[test]
    fn a_quiet_pool_may_retry_the_floor_and_no_more() {
        let mut budget = RetryBudget::default();
        let granted = (0..500).filter(|_| budget.withdraw(20, at(3))).count();
        assert_eq!(granted, 100);
    }

    #[test]
    fn a_busy_pool_may_retry_its_share_on_top() {
        let mut budget = RetryBudget::default();
        for _ in 0..1000 {
            budget.handle_request(at(5));
        }
        let granted = (0..1000).filter(|_| budget.withdraw(20, at(6))).count();
        assert_eq!(granted, 300);
    }

    #[test]
    fn the_window_moves_on() {
        let mut budget = RetryBudget::default();
        while budget.withdraw(0, at(1)) {}
        assert!(!budget.withdraw(0, at(10)));
        assert!(budget.withdraw(0, at(11)));
    }
}
