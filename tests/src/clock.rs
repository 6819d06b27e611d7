//! Real time for tests against real processes, and the one place that waits by asking again: a Swarm tells nobody when
//! it is ready.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The present moment.
#[expect(clippy::disallowed_methods, reason = "real processes run in real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Nanoseconds since 1970, by the clock that every dockerd and container of this machine has too.
#[expect(clippy::disallowed_methods, reason = "to be compared with what Docker wrote down")]
pub fn wall_nanos() -> u128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos())
}

/// Lets real time pass, where the passing itself is what is asked for (a load's pace, a poll's pause).
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// What a look at a condition found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look<T> {
    /// It holds.
    Holds(T),
    /// It does not hold, and this is what was seen instead.
    NotYet(String),
}

/// Looks until the condition holds; says how long that took.
///
/// # Errors
/// After `limit`, with what was seen last.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Look<T>) -> Result<(T, Duration)> {
    let start = now();
    loop {
        let seen = match look() {
            Look::Holds(value) => return Ok((value, start.elapsed())),
            Look::NotYet(seen) => seen,
        };
        if start.elapsed() >= limit {
            bail!("{what}: not within {:.1} s; seen last: {seen}", limit.as_secs_f64());
        }
        pause(LOOK_EVERY);
    }
}

/// As a [`Look`]: the value of an `Ok`, else the error's text.
pub fn once_ok<T, E: std::fmt::Display>(result: Result<T, E>) -> Look<T> {
    match result {
        Ok(value) => Look::Holds(value),
        Err(error) => Look::NotYet(format!("{error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_sight_is_in_the_message() {
        let error = wait_for::<()>("rain", Duration::ZERO, || Look::NotYet("sun".into())).unwrap_err();
        assert_eq!(error.to_string(), "rain: not within 0.0 s; seen last: sun");
    }

    #[test]
    fn a_condition_that_holds_at_the_third_look_is_waited_for() {
        let mut looks = 0;
        let held = wait_for("third", Duration::from_secs(9), || {
            looks += 1;
            if looks == 3 {
                Look::Holds(looks)
            } else {
                Look::NotYet(looks.to_string())
            }
        });
        assert_eq!(held.unwrap().0, 3);
    }
}
