//! How many retries a pool may cause: a share of the requests that are sent to it, so that retries never become the load that
//! keeps a pool down, with a floor so that a quiet pool can retry at all.

use super::window::{SECONDS, Window};
use crate::time::Instant;

/// Retries that are allowed every second, however few requests there are.
pub const FLOOR_PER_SECOND: u64 = 10;

/// Requests that were sent, and retries, of the last ten seconds.
#[derive(Clone, Debug, Default)]
pub struct RetryBudget {
    window: Window<Counts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    sent: u64,
    retries: u64,
}

impl RetryBudget {
    /// Counts a request that is sent for the first time.
    pub fn handle_sent(&mut self, now: Instant) {
        self.window.present(now).sent += 1;
    }

    /// Takes one retry from the budget; false, and nothing taken, where none is left.
    /// `percent` is the share of the requests sent that may be retries.
    pub fn withdraw(&mut self, percent: u32, now: Instant) -> bool {
        let seconds = self.window.all(now).iter();
        let (sent, retries) = seconds.fold((0, 0), |(sent, retries), second| {
            (sent + second.sent, retries + second.retries)
        });
        let allowed = sent * u64::from(percent) / 100 + FLOOR_PER_SECOND * SECONDS;
        if retries >= allowed {
            return false;
        }
        self.window.present(now).retries += 1;
        true
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
            budget.handle_sent(at(5));
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
