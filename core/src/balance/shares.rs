//! Which of several groups a request goes to, each by its weight: the share of a service in a pool with others. Within the
//! group another policy chooses, so a group's share does not depend on how many members it has or how fast they are.

use alloc::vec::Vec;

use crate::rng::Rng;

/// A position of `weights` by chance; `None` where all are 0.
pub fn draw(weights: &[u32], rng: &mut Rng) -> Option<usize> {
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    if total == 0 {
        return None;
    }
    let mut drawn = rng.below(total);
    weights
        .iter()
        .position(|weight| match drawn.checked_sub((*weight).into()) {
            None => true,
            Some(rest) => {
                drawn = rest;
                false
            }
        })
}

/// One after the other, as often as their weights say and as evenly as can be (nginx's smooth weighted round robin).
#[derive(Clone, Debug, Default)]
pub struct Turns(Vec<i64>);

impl Turns {
    /// The next position of `weights`; `None` where all are 0. The weights may change between two turns.
    pub fn next(&mut self, weights: &[u32]) -> Option<usize> {
        self.0.resize(weights.len(), 0);
        let total: i64 = weights.iter().map(|weight| i64::from(*weight)).sum();
        if total == 0 {
            return None;
        }
        for (credit, weight) in self.0.iter_mut().zip(weights) {
            // Credit that was gathered under other weights must not keep a group waiting or serving for ever.
            *credit = (*credit + i64::from(*weight)).clamp(-total, total);
        }
        let served = |at: &usize| weights[*at] > 0;
        // The first of equal ones.
        let best = (0..weights.len()).filter(served).rev().max_by_key(|at| self.0[*at])?;
        self.0[best] -= total;
        Some(best)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn turns_are_spread_as_evenly_as_can_be() {
        let mut turns = Turns::default();
        let served: Vec<_> = (0..7).filter_map(|_| turns.next(&[5, 1, 1])).collect();
        assert_eq!(served, [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(turns.next(&[0, 0]), None);
        assert_eq!(draw(&[], &mut Rng::new(1)), None);
    }

    proptest! {
        // Each case draws thousands of times.
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn each_group_gets_its_share(weights in prop::collection::vec(0_u32..=1_000, 1..5), seed: u64) {
            let total: u32 = weights.iter().sum();
            prop_assume!(total > 0);
            let mut rng = Rng::new(seed);
            let draws = 10_000_u32;
            let mut counts = vec![0_u32; weights.len()];
            for _ in 0..draws {
                counts[draw(&weights, &mut rng).expect("a weight")] += 1;
            }
            for (count, weight) in counts.iter().zip(&weights) {
                let share = f64::from(*weight) / f64::from(total);
                let deviation = (f64::from(draws) * share * (1.0 - share)).sqrt();
                prop_assert!((f64::from(*count) - f64::from(draws) * share).abs() <= 6.0 * deviation, "{counts:?}");
            }
        }

        #[test]
        fn turns_give_each_group_its_share_exactly(weights in prop::collection::vec(0_u32..=20, 1..5), before in prop::collection::vec(0_u32..=20, 0..5)) {
            let total: u32 = weights.iter().sum();
            prop_assume!(total > 0);
            let mut turns = Turns::default();
            let mut counts = vec![0; weights.len()];
            for _ in 0..total {
                counts[turns.next(&weights).expect("a weight")] += 1;
            }
            prop_assert_eq!(&counts, &weights);
            // Whatever came before, nobody waits for more than two rounds.
            turns.next(&before);
            let mut counts = vec![0_u32; weights.len()];
            for _ in 0..total * 3 {
                counts[turns.next(&weights).expect("a weight")] += 1;
            }
            for (count, weight) in counts.iter().zip(&weights) {
                prop_assert!(*weight == 0 && *count == 0 || *weight > 0 && *count > 0, "{counts:?} {weights:?}");
            }
        }
    }
}
