//! Power of two choices: of two candidates drawn at random, the one with fewer requests under way.
//!
//! Close to the true least-loaded candidate at the cost of two draws, and, unlike the true one, it does not send every
//! worker's next request to the same newcomer (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing").

use crate::rng::Rng;

/// A position below `len`; `None` where there is none. `load` gives the requests under way at a position.
///
/// Of equal loads the one drawn first wins, so ties are broken by chance.
pub fn choose(len: usize, load: impl Fn(usize) -> u32, rng: &mut Rng) -> Option<usize> {
    if len < 2 {
        return (len == 1).then_some(0);
    }
    let first = rng.index(len);
    let mut second = rng.index(len - 1);
    if second >= first {
        second += 1;
    }
    Some(if load(second) < load(first) { second } else { first })
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn of_two_candidates_the_one_with_fewer_requests_wins_always() {
        let mut rng = Rng::new(1);
        let loads = [3, 1];
        assert!((0..100).all(|_| choose(2, |at| loads[at], &mut rng) == Some(1)));
    }

    #[test]
    fn no_candidate_gives_no_choice() {
        assert_eq!(choose(0, |_| 0, &mut Rng::new(1)), None);
    }

    proptest! {
        #[test]
        fn the_most_loaded_of_all_is_never_chosen(loads in prop::collection::vec(0_u32..50, 2..20), seed: u64) {
            let most = *loads.iter().max().expect("at least two");
            prop_assume!(loads.iter().filter(|load| **load == most).count() == 1);
            let mut rng = Rng::new(seed);
            for _ in 0..50 {
                let chosen = choose(loads.len(), |at| loads[at], &mut rng).expect("candidates");
                prop_assert!(loads[chosen] < most);
            }
        }

        #[test]
        fn requests_that_never_end_spread_evenly(len in 2_usize..12, seed: u64) {
            let mut rng = Rng::new(seed);
            let mut loads: Vec<u32> = vec![0; len];
            for _ in 0..len * 100 {
                let chosen = choose(len, |at| loads[at], &mut rng).expect("candidates");
                loads[chosen] += 1;
            }
            // The gap between the fullest bin and the mean is O(log log n); 8 is far beyond it for n < 12.
            prop_assert!(loads.iter().all(|load| (92..=108).contains(load)), "{loads:?}");
        }
    }
}
