//! The last ten seconds, second by second: what is counted in them costs no memory and no timer.

use core::array;

use crate::time::{Duration, Instant};

/// Seconds that are remembered.
pub(super) const SECONDS: u64 = 10;

/// Something for each of the last [`SECONDS`].
#[derive(Clone, Debug)]
pub(super) struct Window<T> {
    slots: [T; SECONDS as usize],
    newest: u64,
}

impl<T: Default> Default for Window<T> {
    fn default() -> Self {
        Window {
            slots: array::from_fn(|_| T::default()),
            newest: 0,
        }
    }
}

impl<T: Copy + Default> Window<T> {
    /// That of the present second.
    pub(super) fn present(&mut self, now: Instant) -> &mut T {
        self.advance(now);
        &mut self.slots[(self.newest % SECONDS) as usize]
    }

    /// All of them, in no order.
    pub(super) fn all(&mut self, now: Instant) -> &[T] {
        self.advance(now);
        &self.slots
    }

    /// Merges every second of `other` that is remembered here into the same one here.
    pub(super) fn merge(&mut self, other: &Window<T>, merge: impl Fn(&mut T, T)) {
        for second in other.newest.saturating_sub(SECONDS - 1)..=other.newest {
            if second + SECONDS > self.newest {
                let slot = (second % SECONDS) as usize;
                merge(&mut self.slots[slot], other.slots[slot]);
            }
        }
    }

    /// Forgets what is older than the window.
    fn advance(&mut self, now: Instant) {
        let second = now.since(Instant::START).max(Duration::ZERO).as_secs();
        if second > self.newest {
            for back in 0..(second - self.newest).min(SECONDS) {
                self.slots[((second - back) % SECONDS) as usize] = T::default();
            }
            self.newest = second;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    fn sum(window: &mut Window<u32>, second: u64) -> u32 {
        window.all(at(second)).iter().sum()
    }

    #[test]
    fn a_second_is_remembered_for_ten() {
        let mut window = Window::default();
        *window.present(at(3)) += 1;
        *window.present(at(7)) += 2;
        assert_eq!(
            [12, 13, 16, 17, 900].map(|second| sum(&mut window, second)),
            [3, 2, 2, 0, 0]
        );
    }

    #[test]
    fn seconds_are_merged_as_far_as_both_know_them() {
        let (mut whole, mut part) = (Window::default(), Window::default());
        for second in [3, 7] {
            *whole.present(at(second)) += 10;
            *part.present(at(second)) += 1;
        }
        *whole.present(at(14)) += 10;
        whole.merge(&part, |whole, part| *whole -= part);
        assert_eq!(sum(&mut whole, 14), 19);
    }
}
