//! A moment, to the millisecond, in UTC.

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, TimeZone, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

use crate::error::{Error, Result};

/// Milliseconds since 1970-01-01T00:00:00Z; written as RFC 3339, `2024-03-02T00:00:00.000Z`.
///
/// A time without a zone is taken as UTC: a conversation's clock is the conversation's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the epoch; times outside the years 1 to 9999 are an error.
    pub fn from_millis(millis: i64) -> Result<Self> {
        let year = Utc.timestamp_millis_opt(millis).single().map(|t| chrono::Datelike::year(&t));
        match year {
            Some(1..=9999) => Ok(Self(millis)),
            _ => Err(Error::invalid(format!("{millis} is not a time between the years 1 and 9999"))),
        }
    }

    /// Milliseconds since the epoch.
    pub fn millis(self) -> i64 {
        self.0
    }

    /// Reads RFC 3339 (`2024-03-02T10:00:00Z`), the same without a zone, a date alone, or
    /// LoCoMo's `1:56 pm on 8 May, 2023`.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Self::from_millis(time.timestamp_millis());
        }
        for format in [
            "%Y-%m-%dT%H:%M:%S%.f",
            "%Y-%m-%d %H:%M:%S%.f",
            "%Y-%m-%dT%H:%M",
            "%Y-%m-%d %H:%M",
            "%I:%M %p on %d %B, %Y",
        ] {
            if let Ok(time) = NaiveDateTime::parse_from_str(text, format) {
                return Self::from_millis(time.and_utc().timestamp_millis());
            }
        }
        if let Some(time) =
            NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().and_then(|date| date.and_hms_opt(0, 0, 0))
        {
            return Self::from_millis(time.and_utc().timestamp_millis());
        }
        Err(Error::invalid(format!("{text:?} is not a time; write 2024-03-02 or 2024-03-02T10:00:00Z")))
    }

    /// The day in UTC.
    pub fn date(self) -> NaiveDate {
        self.date_time().date_naive()
    }

    fn date_time(self) -> DateTime<Utc> {
        Utc.timestamp_millis_opt(self.0).single().unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.date_time().to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_accepted_form_of_one_moment_is_the_same_moment() {
        for text in [
            "2023-05-08T13:56:00Z",
            "2023-05-08T15:56:00+02:00",
            "2023-05-08 13:56",
            "1:56 pm on 8 May, 2023",
        ] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), "2023-05-08T13:56:00.000Z", "{text}");
        }
        assert_eq!(Timestamp::parse("2023-05-08").unwrap().to_string(), "2023-05-08T00:00:00.000Z");
    }

    #[test]
    fn what_is_not_a_time_is_an_error() {
        for text in ["", "yesterday", "2023-13-01", "99999-01-01"] {
            assert!(Timestamp::parse(text).is_err(), "{text}");
        }
    }
}
