//! One after the other.

/// The position after the one chosen last; `None` where there is none. `cursor` is the caller's memory, shared by all
/// choices of one pool; where candidates come or go between two choices, one may be skipped or repeated once.
pub fn choose(len: usize, cursor: &mut usize) -> Option<usize> {
    if len == 0 {
        return None;
    }
    // Beyond the end it begins anew: a remainder would skip the first of a list that became shorter.
    let chosen = if *cursor < len { *cursor } else { 0 };
    *cursor = chosen + 1;
    Some(chosen)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_candidate_gets_the_same_number_give_or_take_one(len in 1_usize..20, draws in 0_usize..200, start: u8) {
            let mut cursor = usize::from(start);
            let mut counts = vec![0_usize; len];
            for _ in 0..draws {
                counts[choose(len, &mut cursor).expect("candidates")] += 1;
            }
            let (least, most) = (counts.iter().min().expect("one"), counts.iter().max().expect("one"));
            prop_assert!(most - least <= 1, "{counts:?}");
        }

        #[test]
        fn a_change_of_length_never_leads_out_of_bounds(lens in prop::collection::vec(0_usize..9, 1..50)) {
            let mut cursor = 0;
            for len in lens {
                match choose(len, &mut cursor) {
                    Some(chosen) => prop_assert!(chosen < len),
                    None => prop_assert_eq!(len, 0),
                }
            }
        }
    }
}
