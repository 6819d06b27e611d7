//! Moments of a recording, as people write them: seconds since the process started, or wall time in UTC.

use alloc::format;
use alloc::string::String;
use core::str::FromStr;

use crate::calendar::since_1970;
use crate::time::{Duration, Instant};

/// `754.2s` since the process started, or `2026-11-25T12:03:20Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Since the process started.
    SinceStart(Duration),
    /// Since 1970.
    Wall(Duration),
}

impl When {
    /// The moment on the clock of a process that started at `wall_at_start` (since 1970). Wall clocks that were set meanwhile
    /// make this wrong by as much.
    pub fn instant(self, wall_at_start: Duration) -> Instant {
        Instant::at(match self {
            When::SinceStart(since) => since,
            When::Wall(wall) => wall.saturating_sub(wall_at_start),
        })
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<When, String> {
        let wrong = || {
            format!(
                "{text:?} is no moment: write seconds since the controller started as 754.2s, or UTC as 2026-11-25T12:03:20Z"
            )
        };
        let wall = text
            .contains('T')
            .then(|| since_1970(text).filter(|_| text.ends_with('Z')));
        match wall {
            Some(wall) => Ok(When::Wall(wall.ok_or_else(wrong)?)),
            None => {
                let seconds = text.strip_suffix('s').unwrap_or(text);
                parse_seconds(seconds).map(When::SinceStart).ok_or_else(wrong)
            }
        }
    }
}

fn parse_seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    Some(Duration::new(whole.parse().ok()?, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_seconds_or_utc() {
        assert_eq!("754.25s".parse(), Ok(When::SinceStart(Duration::from_millis(754_250))));
        assert_eq!("7".parse(), Ok(When::SinceStart(Duration::from_secs(7))));
        let wall = Duration::from_secs(1_795_608_200);
        assert_eq!("2026-11-25T12:03:20Z".parse(), Ok(When::Wall(wall)));
        let start = wall - Duration::from_secs(20);
        assert_eq!(When::Wall(wall).instant(start), Instant::from_millis(20_000));
        for wrong in [
            "",
            "s",
            "-1s",
            "12:03",
            "2026-11-25T12:03",
            "2026-13-25T12:03:20Z",
            "1e3",
        ] {
            let error = wrong.parse::<When>().unwrap_err();
            assert!(error.contains("754.2s"), "{error}");
        }
    }
}
