//! Moments of a recording, as people write them: seconds since the process started, or wall time in UTC.

use alloc::format;
use alloc::string::{String, ToString};
use core::str::FromStr;

use crate::time::{Duration, Instant};

const DAY: u64 = 86_400;

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
        let wall = text.contains('T').then(|| parse_utc(text));
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

fn parse_utc(text: &str) -> Option<Duration> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-');
    let (year, month, day): (u64, u64, u64) = (
        date.next()?.parse().ok()?,
        date.next()?.parse().ok()?,
        date.next()?.parse().ok()?,
    );
    let mut time = time.splitn(3, ':');
    let (hour, minute): (u64, u64) = (time.next()?.parse().ok()?, time.next()?.parse().ok()?);
    let second = parse_seconds(time.next()?)?;
    let is_valid = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < Duration::from_secs(61);
    if !is_valid {
        return None;
    }
    let days = days_before(year, month) + day - 1;
    Some(Duration::from_secs(days * DAY + hour * 3600 + minute * 60) + second)
}

/// Days from 1970 to the first of a month.
fn days_before(year: u64, month: u64) -> u64 {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let of_months = BEFORE.get(month as usize - 1).copied().unwrap_or_default() + u64::from(is_leap && month > 2);
    (year - 1970) * 365 + leaps(year - 1) - leaps(1969) + of_months
}

/// `2026-11-25T12:03:20.123Z` for a time since 1970, at most in the year 9999.
pub fn utc(wall: Duration) -> String {
    let (days, rest) = (wall.as_secs() / DAY, wall.as_secs() % DAY);
    let mut year = 1970 + days / 366;
    while year < 9999 && days_before(year + 1, 1) <= days {
        year += 1;
    }
    let month = (1..=12)
        .rev()
        .find(|month| days_before(year, *month) <= days)
        .unwrap_or(1);
    let day = days.saturating_sub(days_before(year, month)) + 1;
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let millis = wall.subsec_millis();
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z").to_string()
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

    #[test]
    fn every_day_is_printed_as_it_is_read() {
        assert_eq!(utc(Duration::ZERO), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(Duration::from_millis(951_782_400_500)), "2000-02-29T00:00:00.500Z");
        for day in 0..60_000 {
            let wall = Duration::from_secs(day * DAY + 3_723);
            assert_eq!(utc(wall).parse(), Ok(When::Wall(wall)), "day {day}");
        }
    }
}
