//! Small helpers for messages that people read.

use alloc::vec::Vec;

/// The known word nearest to `word`, if it is near enough to be what was meant: at most a third of its letters differ.
/// Of equally near ones the first.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    known
        .filter_map(|candidate| Some((distance(word, candidate, limit)?, candidate)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap of neighbours) that turn `a` into `b`; none if more than `limit`, which costs
/// less to find out.
pub fn distance(a: &str, b: &str, limit: usize) -> Option<usize> {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let width = b.len() + 1;
    let (mut before, mut row) = (alloc::vec![0; width], alloc::vec![0; width]);
    let mut last: Vec<usize> = (0..width).collect();
    for i in 0..a.len() {
        row[0] = i + 1;
        for j in 0..b.len() {
            let replaced = last[j] + usize::from(a[i] != b[j]);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                best = best.min(before[j - 1] + 1);
            }
            row[j + 1] = best;
        }
        core::mem::swap(&mut before, &mut last);
        core::mem::swap(&mut last, &mut row);
        // Every later row grows out of this one: a swap reaches back to the row before, and costs what the way over this one does.
        if last.iter().all(|edits| *edits > limit) {
            return None;
        }
    }
    Some(last[b.len()]).filter(|edits| *edits <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_word() {
        let known = ["hosts", "port", "network"];
        assert_eq!(nearest("prot", known.into_iter()), Some("port"));
        assert_eq!(nearest("host", known.into_iter()), Some("hosts"));
        assert_eq!(nearest("colour", known.into_iter()), None);
    }

    #[test]
    fn distance_counts_edits() {
        for (a, b, edits) in [
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("ab", "ba", 1),
            ("same", "same", 0),
        ] {
            assert_eq!(distance(a, b, 9), Some(edits), "{a} {b}");
            assert_eq!(distance(b, a, edits), Some(edits), "{b} {a}");
            assert_eq!(
                edits.checked_sub(1).and_then(|less| distance(a, b, less)),
                None,
                "{a} {b}"
            );
        }
    }
}
