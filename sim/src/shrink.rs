//! A failing story with fewer acts: leaves acts out, many at once first, and keeps what still fails in the same way.

use std::collections::BTreeSet;

use crate::seed::{self, Failure, Seed};

/// What is left of a failing story.
#[derive(Debug)]
pub struct Shrunk {
    /// The acts that need not be.
    pub left_out: BTreeSet<u32>,
    /// How it fails without them.
    pub failure: Failure,
    /// How many runs that took.
    pub runs: u32,
}

/// Leaves out as many acts as it can; `None` where the whole story holds. `tell` hears of each try.
pub fn shrink(seed: u64, story: fn(&Seed), mut tell: impl FnMut(&str)) -> Option<Shrunk> {
    let mut failure = seed::run(seed, story).err()?;
    let same = kind(&failure.what);
    let (mut left_out, mut runs) = (BTreeSet::new(), 1);
    let all: Vec<u32> = (1..=failure.acts.len() as u32).collect();
    let mut size = all.len().div_ceil(2);
    while size > 0 {
        for chunk in all.chunks(size) {
            let mut without: BTreeSet<u32> = left_out.clone();
            without.extend(chunk);
            if without.len() == left_out.len() {
                continue;
            }
            runs += 1;
            match seed::run_without(seed, &without, story) {
                Err(fewer) if kind(&fewer.what) == same => {
                    tell(&format!("fails without {}", list(&without)));
                    (left_out, failure) = (without, fewer);
                }
                Ok(_) | Err(_) => tell(&format!("needs some of {}", list(chunk))),
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    Some(Shrunk {
        left_out,
        failure,
        runs,
    })
}

/// `1,3,5`
pub fn list<'a>(acts: impl IntoIterator<Item = &'a u32>) -> String {
    let acts: Vec<String> = acts.into_iter().map(ToString::to_string).collect();
    acts.join(",")
}

/// What kind of failure it is: its words without numbers and names.
fn kind(what: &str) -> String {
    let words = what.split_whitespace();
    let plain = words.filter(|word| word.chars().all(|c| c.is_ascii_alphabetic() || c == ':' || c == ','));
    plain.take(6).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten acts, of which the fourth and the ninth together break something.
    fn story(seed: &Seed) {
        let done: Vec<u32> = (1..=10)
            .filter(|act| {
                seed.note(|report| report.acts.push(format!("{act} something")));
                !seed.leaves_out(*act)
            })
            .collect();
        assert!(
            !(done.contains(&4) && done.contains(&9)),
            "a request was lost after {} acts",
            done.len()
        );
    }

    #[test]
    fn only_the_acts_that_break_it_are_left() {
        let shrunk = shrink(1, story, |_| {}).expect("it fails");
        assert_eq!(list(&shrunk.left_out), "1,2,3,5,6,7,8,10");
        assert!(shrunk.runs < 30, "{} runs", shrunk.runs);
    }

    #[test]
    fn a_story_that_holds_has_nothing_to_shrink() {
        assert!(shrink(1, |_| {}, |_| {}).is_none());
    }
}
