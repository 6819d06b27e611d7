//! Rendezvous (highest random weight) hashing: a key always finds the same of several candidates, and where a candidate
//! comes or goes, no key moves but to or from that one (Thaler and Ravishankar, "A Name-Based Mapping Scheme for
//! Rendezvous").
//!
//! Knows no more than the key and a hash per candidate, so every worker of every proxy makes the same choice.

/// The hash of a name or a key's bytes: FNV-1a, then mixed so that each bit depends on all.
pub fn hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(fnv)
}

/// The position of the candidate for `key`; `None` where there is none. `hash` gives the candidate's own hash.
pub fn choose(len: usize, hash: impl Fn(usize) -> u64, key: u64) -> Option<usize> {
    (0..len).max_by_key(|at| (score(key, hash(*at)), hash(*at)))
}

/// The same where candidates have weights: of all keys each gets its share, and a change of one weight moves keys to or
/// from that candidate alone. `candidate` gives hash and weight; a weight of 0 gets nothing.
pub fn choose_weighted(len: usize, candidate: impl Fn(usize) -> (u64, u32), key: u64) -> Option<usize> {
    // The largest of `weight / -ln(u)` for u uniform in (0, 1); compared crosswise, without fractions.
    let mut best: Option<(usize, u64, u128)> = None;
    for at in 0..len {
        let (hash, weight) = candidate(at);
        if weight == 0 {
            continue;
        }
        let (weight, cost) = (u128::from(weight), u128::from(negative_log2(score(key, hash))));
        let is_better = match best {
            None => true,
            Some((_, best_weight, best_cost)) => weight * best_cost > u128::from(best_weight) * cost,
        };
        if is_better {
            best = Some((at, weight as u64, cost));
        }
    }
    best.map(|(at, _, _)| at)
}

fn score(key: u64, candidate: u64) -> u64 {
    mix(key ^ candidate.rotate_left(23))
}

/// SplitMix64's finaliser.
fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// `-log2(u / 2^64)` with 32 binary places, at least 1: integers alone, so that all machines agree.
fn negative_log2(u: u64) -> u64 {
    let u = u.max(1);
    let whole = u64::from(63 - u.leading_zeros());
    // The mantissa in [1, 2) with 63 places; squaring it brings out one place of its logarithm after the other.
    let mut mantissa = u << u.leading_zeros();
    let mut places = 0_u64;
    for _ in 0..32 {
        let square = (u128::from(mantissa) * u128::from(mantissa)) >> 63;
        places <<= 1;
        if square >> 64 == 0 {
            mantissa = square as u64;
        } else {
            places |= 1;
            mantissa = (square >> 1) as u64;
        }
    }
    ((64 - whole) << 32) - places
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::vec;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn names(len: usize) -> Vec<u64> {
        (0..len).map(|at| hash(format!("task-{at}").as_bytes())).collect()
    }

    #[test]
    fn the_logarithm_is_one() {
        for (u, expected) in [
            (u64::MAX, 0.0),
            (1 << 63, 1.0),
            (3 << 62, 0.415_037_499),
            (1 << 32, 32.0),
            (1, 64.0),
        ] {
            let found = negative_log2(u) as f64 / f64::from(1 << 16) / f64::from(1 << 16);
            assert!((found - expected).abs() < 1e-8, "{u}: {found}");
        }
    }

    #[test]
    fn no_candidate_gives_no_choice() {
        assert_eq!(choose(0, |_| 0, 1), None);
        assert_eq!(choose_weighted(2, |at| (at as u64, 0), 1), None);
    }

    proptest! {
        // Each case draws thousands of times.
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_newcomer_takes_its_share_and_moves_nobody_else(len in 1_usize..12, seed: u64) {
            let names = names(len + 1);
            let mut moved = 0;
            for key in (0..2_000).map(|key| mix(seed.wrapping_add(key))) {
                let before = choose(len, |at| names[at], key).expect("candidates");
                let after = choose(len + 1, |at| names[at], key).expect("candidates");
                if after != before {
                    prop_assert_eq!(after, len, "moved between two that stayed");
                    moved += 1;
                }
            }
            // The mean is 2000 / (len + 1); six standard deviations are allowed.
            let mean = 2_000.0 / (len as f64 + 1.0);
            prop_assert!((f64::from(moved) - mean).abs() < 6.0 * mean.sqrt(), "{moved} of {mean}");
        }

        #[test]
        fn the_order_of_candidates_does_not_matter(len in 1_usize..12, key: u64) {
            let names = names(len);
            let forward = choose(len, |at| names[at], key).map(|at| names[at]);
            let backward = choose(len, |at| names[len - 1 - at], key).map(|at| names[len - 1 - at]);
            prop_assert_eq!(forward, backward);
        }

        #[test]
        fn keys_are_shared_by_weight(weights in prop::collection::vec(0_u32..=20, 2..5), seed: u64) {
            let total: u32 = weights.iter().sum();
            prop_assume!(total > 0);
            let names = names(weights.len());
            let mut counts = vec![0_u32; weights.len()];
            let draws = 20_000;
            for key in (0..draws).map(|key| mix(seed.wrapping_add(key))) {
                counts[choose_weighted(weights.len(), |at| (names[at], weights[at]), key).expect("a weight")] += 1;
            }
            for (count, weight) in counts.iter().zip(&weights) {
                let share = f64::from(*weight) / f64::from(total);
                let deviation = (draws as f64 * share * (1.0 - share)).sqrt();
                prop_assert!((f64::from(*count) - draws as f64 * share).abs() <= 6.0 * deviation, "{counts:?} {weights:?}");
            }
        }

        #[test]
        fn a_weight_that_grows_takes_keys_and_moves_none_between_others(
            weights in prop::collection::vec(1_u32..=20, 2..5), more in 1_u32..20, seed: u64,
        ) {
            let names = names(weights.len());
            for key in (0..1_000).map(|key| mix(seed.wrapping_add(key))) {
                let before = choose_weighted(weights.len(), |at| (names[at], weights[at]), key);
                let grown = |at: usize| (names[at], weights[at] + if at == 0 { more } else { 0 });
                let after = choose_weighted(weights.len(), grown, key);
                prop_assert!(after == before || after == Some(0));
            }
        }

        #[test]
        fn equal_weights_are_no_weights(len in 1_usize..8, weight in 1_u32..1_000, key: u64) {
            let names = names(len);
            prop_assert_eq!(choose_weighted(len, |at| (names[at], weight), key), choose(len, |at| names[at], key));
        }
    }
}
