//! What a status means, and when `Retry-After` says to ask again. Pure.

use std::time::{Duration, SystemTime};

/// What is to be done about a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It worked.
    Done,
    /// It is elsewhere; the same request goes there, if that is the same server.
    Elsewhere,
    /// It may work in a moment. `is_transient` if the artifact cannot be at fault.
    Later { is_transient: bool },
    /// It does not work. `is_transient` if the artifact cannot be at fault.
    Refused { is_transient: bool },
}

/// What `status` means to a request; `gone_is_fine` if it wanted something gone.
pub(super) fn meaning(status: u16, gone_is_fine: bool) -> Meaning {
    match status {
        200..=299 => Meaning::Done,
        404 | 410 if gone_is_fine => Meaning::Done,
        301 | 302 | 307 | 308 => Meaning::Elsewhere,
        // The server is overloaded, or what stands before it has nobody to ask.
        408 | 429 | 502 | 503 | 504 => Meaning::Later { is_transient: true },
        // Some servers say so about a broken artifact.
        500..=599 => Meaning::Later { is_transient: false },
        // The secret is wrong or not accepted yet; it is read again.
        401 | 403 | 407 => Meaning::Refused { is_transient: true },
        _ => Meaning::Refused { is_transient: false },
    }
}

/// The pause that a `Retry-After` header asks for: seconds, or a date (RFC 9110 §10.2.3).
pub(super) fn retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are more than anybody waits.
        return Some(Duration::from_secs(header.parse().unwrap_or(u64::MAX)));
    }
    let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(date(header)?))?;
    Some(at.duration_since(now).unwrap_or_default())
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`, the only form that is still written.
fn date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (_weekday, rest) = text.strip_suffix(" GMT")?.split_once(", ")?;
    let mut words = rest.split(' ');
    let day: u64 = words.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as u64 + 1;
    let year: u64 = words.next()?.parse().ok().filter(|year| (1970..=9999).contains(year))?;
    let mut clock = words.next()?.split(':').map(|part| part.parse::<u64>().ok().filter(|part| *part <= 60));
    let (hours, minutes, seconds) = (clock.next()??, clock.next()??, clock.next()??);
    // Years that begin in March have the leap day at their end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    const DAYS_TO_1970: u64 = 719_468;
    Some((days.checked_sub(DAYS_TO_1970)?) * 86_400 + hours * 3600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(header: &str) -> Option<u64> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        retry_after(header, now).map(|pause| pause.as_secs())
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(after("120"), Some(120));
        assert_eq!(after(" 0 "), Some(0));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(7));
        assert_eq!(after("Sun, 06 Nov 1993 08:49:37 GMT"), Some(0), "it is over");
        assert_eq!(after("99999999999999999999999"), Some(u64::MAX));
        for wrong in ["", "-1", "soon", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun, 06 Nov 1994 08:49 GMT", "1.5"] {
            assert_eq!(after(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn dates_are_counted_as_everybody_does() {
        assert_eq!(date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(date("Thu, 29 Feb 2024 12:00:00 GMT"), Some(1_709_208_000));
        assert_eq!(date("Tue, 01 Mar 2100 00:00:00 GMT"), Some(4_107_542_400));
    }

    #[test]
    fn gone_is_fine_only_where_it_should_be_gone() {
        assert_eq!(meaning(404, true), Meaning::Done);
        assert_eq!(meaning(404, false), Meaning::Refused { is_transient: false });
        assert_eq!(meaning(303, false), Meaning::Refused { is_transient: false });
        assert_eq!(meaning(500, true), Meaning::Later { is_transient: false });
        assert_eq!(meaning(429, false), Meaning::Later { is_transient: true });
    }
}
