//! Docker's moments (RFC 3339 §5.6, e.g. `2026-01-31T23:59:59.123456789Z`) as time since 1970.

use tidegate_core::time::Duration;

/// The moment. None if it cannot be read or lies before 1970, as Go's zero does.
pub(crate) fn since_1970(text: &str) -> Option<Duration> {
    let (date, rest) = text.split_once(['T', 't'])?;
    let mut date = date.splitn(3, '-').map(|part| number(part, 4));
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, east) = zone(rest)?;
    let (time, nanos) = match time.split_once('.') {
        Some((time, fraction)) => (time, nanos(fraction)?),
        None => (time, 0),
    };
    let mut time = time.splitn(3, ':').map(|part| number(part, 2));
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - east;
    Some(Duration::new(u64::try_from(seconds).ok()?, nanos))
}

/// The text before the zone, and the zone's seconds east of UTC.
fn zone(text: &str) -> Option<(&str, i64)> {
    if let Some(time) = text.strip_suffix(['Z', 'z']) {
        return Some((time, 0));
    }
    let (time, zone) = text.split_at_checked(text.rfind(['+', '-'])?)?;
    let (hours, minutes) = zone[1..].split_once(':')?;
    let east = number(hours, 2)? * 3600 + number(minutes, 2)? * 60;
    Some((time, if zone.starts_with('-') { -east } else { east }))
}

fn number(text: &str, digits_max: usize) -> Option<i64> {
    let is_number = !text.is_empty() && text.len() <= digits_max && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// A fraction of a second; what is beyond nanoseconds is dropped.
fn nanos(fraction: &str) -> Option<u32> {
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = &fraction[..fraction.len().min(9)];
    let value: u32 = digits.parse().ok()?;
    Some(value * 10_u32.pow(9 - digits.len() as u32))
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar. Years begin in March here, so the odd day is a year's last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

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
