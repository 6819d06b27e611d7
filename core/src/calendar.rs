//! Moments in UTC as people and Docker write them. The time since 1970 is what everything else goes by.

use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;
use alloc::format;
use alloc::string::String;
use core::fmt;

use crate::time::Duration;

/// The last moment that has a date here: the end of the year 9999, in seconds since 1970.
const LAST_SECOND: u64 = 253_402_300_799;

/// Date and time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// Year, month and day, from 1.
    pub date: (u64, u64, u64),
    /// Hour, minute and second.
    pub time: (u64, u64, u64),
}

impl Civil {
    /// `wall` since 1970. What is beyond the year 9999 is its last second.
    pub fn of(wall: Duration) -> Civil {
        let seconds = i64::try_from(wall.as_secs().min(LAST_SECOND)).unwrap_or_default();
        let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let year = u64::try_from(at.year()).unwrap_or_default();
        Civil {
            date: (year, u64::from(u8::from(at.month())), at.day().into()),
            time: (at.hour().into(), at.minute().into(), at.second().into()),
        }
    }
}

impl fmt::Display for Civil {
    /// `2026-11-25T12:03:20`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((year, month, day), (hour, minute, second)) = (self.date, self.time);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
    }
}

/// The time since 1970 of a moment as RFC 3339 §5.6 has it, e.g. `2026-01-31T23:59:59.123456789Z`. `None` where it cannot be
/// read or lies before 1970, as Go's zero does.
pub fn since_1970(text: &str) -> Option<Duration> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let seconds = u64::try_from(at.unix_timestamp()).ok()?;
    Some(Duration::new(seconds, at.nanosecond()))
}

/// `2026-11-25T12:03:20.123Z` for a time since 1970.
pub fn utc(wall: Duration) -> String {
    format!("{}.{:03}Z", Civil::of(wall), wall.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_is_printed_as_it_is_read() {
        assert_eq!(utc(Duration::ZERO), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(Duration::from_millis(951_782_400_500)), "2000-02-29T00:00:00.500Z");
        for day in 0..60_000 {
            let wall = Duration::from_secs(day * 86_400 + 3_723);
            assert_eq!(since_1970(&utc(wall)), Some(wall), "day {day}");
        }
        assert_eq!(utc(Duration::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn moments_are_counted_from_1970() {
        for (text, seconds, nanos) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("2000-02-29T12:30:15Z", 951_827_415, 0),
            ("2026-11-25T21:44:12.012345678Z", 1_795_643_052, 12_345_678),
            ("2026-11-25T22:44:12.5+01:00", 1_795_643_052, 500_000_000),
            ("2026-11-25T15:14:12.5-06:30", 1_795_643_052, 500_000_000),
            ("2100-03-01T00:00:00.1234567899Z", 4_107_542_400, 123_456_789),
        ] {
            assert_eq!(since_1970(text), Some(Duration::new(seconds, nanos)), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_none() {
        for text in [
            "",
            "0001-01-01T00:00:00Z",
            "2026-11-25",
            "2026-11-25T21:44:12",
            "2026-13-01T00:00:00Z",
            "2026-11-25T24:00:00Z",
            "2026-11-25T21:44:12.Z",
            "2026-11-25T21:44:1éZ",
            "2026-11-25T21:44:12.éZ",
            "2026-11-25T21:44Z",
            "+026-11-25T21:44:12Z",
            "tomorrow",
        ] {
            assert_eq!(since_1970(text), None, "{text:?}");
        }
    }
}
