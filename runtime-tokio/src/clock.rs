//! The one place that reads a clock. Everything else takes `now` as an argument.
//!
//! Monotonic time is tokio's, so it stands still and jumps as a simulation wants; wall time is the system's, or in a
//! simulation a fixed epoch plus the simulated time, and as wrong as the simulation wants.

use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidegate_core::time::Instant;

/// Gives `now` as core understands it. Cheap to clone; clones agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: tokio::time::Instant,
    wall: Wall,
}

#[derive(Clone, Copy, Debug)]
enum Wall {
    Simulated { epoch: Duration, off: &'static AtomicI64 },
    System,
}

impl Clock {
    /// The clock of a real process, starting now.
    pub fn system() -> Self {
        Clock {
            start: tokio_now(),
            wall: Wall::System,
        }
    }

    /// A clock whose wall time is `epoch` (since 1970) now, and moves with tokio's time. It is `off` seconds from that, which
    /// may change at any time, as when somebody sets the clock of a machine.
    pub fn simulated(epoch: Duration, off: &'static AtomicI64) -> Self {
        Clock {
            start: tokio_now(),
            wall: Wall::Simulated { epoch, off },
        }
    }

    /// Time since the process started.
    pub fn now(&self) -> Instant {
        Instant::at(tokio_now().saturating_duration_since(self.start))
    }

    /// Wall time since 1970-01-01T00:00:00Z.
    pub fn wall(&self) -> Duration {
        match self.wall {
            Wall::Simulated { epoch, off } => {
                let (right, off) = (epoch + self.now().since_start(), off.load(Ordering::Relaxed));
                let far = Duration::from_secs(off.unsigned_abs());
                if off < 0 {
                    right.saturating_sub(far)
                } else {
                    right + far
                }
            }
            Wall::System => system_now(),
        }
    }

    /// A timer for `at`, for futures that are written by hand.
    pub fn timer(&self, at: Instant) -> Pin<Box<tokio::time::Sleep>> {
        Box::pin(tokio::time::sleep_until(self.start + at.since_start()))
    }

    /// Waits for `pause`.
    pub async fn pause(&self, pause: Duration) {
        tokio::time::sleep(pause).await;
    }

    /// Waits until `at`; for ever where there is nothing to wait for.
    pub async fn sleep_until(&self, at: Option<Instant>) {
        match at {
            Some(at) => tokio::time::sleep_until(self.start + at.since_start()).await,
            None => std::future::pending().await,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one exception: this is the clock")]
fn tokio_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the one exception: this is the clock")]
fn system_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_simulated_clock_that_runs_may_be_set_and_time_since_the_start_does_not_jump() {
        static OFF: AtomicI64 = AtomicI64::new(0);
        let seconds = Duration::from_secs;
        let clock = Clock::simulated(seconds(1000), &OFF);
        tokio::time::advance(seconds(5)).await;
        let seen = [0, 60, -60].map(|off| {
            OFF.store(off, Ordering::Relaxed);
            (clock.now().since_start(), clock.wall())
        });
        assert_eq!(seen, [1005, 1065, 945].map(|wall| (seconds(5), seconds(wall))));
    }
}
