//! Milliseconds, and whether they meet a goal.

use std::fmt;

/// What is wanted of a set of durations.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// 99 of 100 take less milliseconds.
    pub p99_ms: f64,
    /// All take less.
    pub max_ms: Option<f64>,
}

/// Durations of one kind of change, in milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    sorted: Vec<f64>,
}

impl Figures {
    /// Of these, in any order.
    pub fn of(mut millis: Vec<f64>) -> Figures {
        millis.sort_by(f64::total_cmp);
        Figures { sorted: millis }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The smallest that `percent` of all do not exceed; 0 where there are none.
    pub fn percentile(&self, percent: f64) -> f64 {
        let rank = (self.sorted.len() as f64 * percent / 100.0).ceil() as usize;
        self.sorted.get(rank.max(1) - 1).copied().unwrap_or_default()
    }

    /// The longest.
    pub fn max(&self) -> f64 {
        self.percentile(100.0)
    }

    /// Whether there are any, and all meet the goal.
    pub fn meet(&self, goal: &Goal) -> bool {
        !self.sorted.is_empty() && self.percentile(99.0) < goal.p99_ms && goal.max_ms.is_none_or(|max| self.max() < max)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99] = [50.0, 99.0].map(|percent| self.percentile(percent));
        let (count, max) = (self.count(), self.max());
        write!(f, "{count:6} {p50:8.0} {p99:8.0} {max:8.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let figures = Figures::of((1..=200).rev().map(f64::from).collect());
        assert_eq!(
            [50.0, 99.0, 100.0].map(|p| figures.percentile(p)),
            [100.0, 198.0, 200.0]
        );
        assert_eq!(figures.to_string(), "   200      100      198      200");
        assert_eq!(Figures::of(vec![7.0]).percentile(50.0), 7.0);
        assert_eq!(Figures::default().max(), 0.0);
    }

    #[test]
    fn a_goal_is_met_below_its_limits_by_somebody() {
        let goal = Goal {
            p99_ms: 200.0,
            max_ms: Some(800.0),
        };
        let mut millis = vec![10.0; 199];
        millis.push(700.0);
        assert!(Figures::of(millis.clone()).meet(&goal), "p99 is 10, the longest 700");
        millis.push(900.0);
        assert!(!Figures::of(millis).meet(&goal));
        assert!(!Figures::of(vec![200.0]).meet(&goal));
        assert!(!Figures::default().meet(&goal));
    }
}
