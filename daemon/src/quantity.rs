//! Rates, spans of time and sizes as people write them in `ferry.toml` and on the command line.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A limit of bandwidth in bytes per second; nothing means unlimited. Text: `2MB/s`, `512 KiB/s`, `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rate(pub Option<u64>);

/// A span of time. Text: `90s`, `10m`, `2h`, `30d`, `1w`; a bare number is seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

/// The text is not a quantity of this kind; the message says what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not {expected}")]
pub struct QuantityError {
    text: String,
    expected: &'static str,
}

const RATE_EXPECTED: &str = "a rate: write for example 500kB/s, 2MB/s, 1MiB/s or none";
const SPAN_EXPECTED: &str = "a span of time: write for example 90s, 10m, 2h, 30d or 1w";

impl FromStr for Rate {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let wrong = || QuantityError { text: text.chars().take(40).collect(), expected: RATE_EXPECTED };
        let plain = text.trim().to_ascii_lowercase();
        if matches!(plain.as_str(), "none" | "unlimited" | "off") {
            return Ok(Self(None));
        }
        let plain = plain.strip_suffix("/s").unwrap_or(&plain).trim();
        let (number, unit) = split_unit(plain);
        let factor: u64 = match unit {
            "" | "b" => 1,
            "k" | "kb" => 1000,
            "m" | "mb" => 1_000_000,
            "g" | "gb" => 1_000_000_000,
            "kib" => 1 << 10,
            "mib" => 1 << 20,
            "gib" => 1 << 30,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let bytes = number * factor as f64;
        // Below one kilobyte per second nothing would ever finish, and a connection would time out: refuse it rather than appear to hang.
        if !(1000.0..=1e12).contains(&bytes) {
            return Err(wrong());
        }
        Ok(Self(Some(bytes as u64)))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("none"),
            Some(n) if n % 1_000_000 == 0 => write!(f, "{}MB/s", n / 1_000_000),
            Some(n) if n % (1 << 20) == 0 => write!(f, "{}MiB/s", n >> 20),
            Some(n) if n % 1000 == 0 => write!(f, "{}kB/s", n / 1000),
            Some(n) if n % (1 << 10) == 0 => write!(f, "{}KiB/s", n >> 10),
            Some(n) => write!(f, "{n}B/s"),
        }
    }
}

impl FromStr for Span {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let wrong = || QuantityError { text: text.chars().take(40).collect(), expected: SPAN_EXPECTED };
        let plain = text.trim().to_ascii_lowercase();
        let (number, unit) = split_unit(&plain);
        let factor = match unit {
            "" | "s" => 1.0,
            "ms" => 0.001,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            _ => return Err(wrong()),
        };
        let seconds = number.parse::<f64>().map_err(|_| wrong())? * factor;
        if !(0.0..=3.2e9).contains(&seconds) {
            return Err(wrong());
        }
        Ok(Self(Duration::from_millis((seconds * 1000.0).round() as u64)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        for (unit_ms, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")] {
            if ms >= unit_ms && ms.is_multiple_of(unit_ms) {
                return write!(f, "{}{unit}", ms / unit_ms);
            }
        }
        write!(f, "{ms}ms")
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TextOrNumber {
    Text(String),
    Number(u64),
}

macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = match TextOrNumber::deserialize(d)? {
                    TextOrNumber::Text(text) => text,
                    TextOrNumber::Number(number) => number.to_string(),
                };
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}
as_text!(Rate);
as_text!(Span);

/// Bytes for people, in powers of 1000: `18.2 GB`.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB", "PB"] {
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if unit == "B" {
        format!("{count} B")
    } else if value < 9.95 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// A span for people, one unit: `12 s`, `9 min`, `3 h`, `2 days`.
pub fn span(duration: Duration) -> String {
    let s = duration.as_secs();
    match s {
        0..=89 => format!("{s} s"),
        90..=5399 => format!("{} min", (s + 30) / 60),
        5400..=129_599 => format!("{} h", (s + 1800) / 3600),
        _ => format!("{} days", s.saturating_add(43_200) / 86_400),
    }
}

/// A count with a thin group separator: `41 203`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_spans_round_trip() {
        for (text, bytes) in [("2MB/s", 2_000_000), ("1.5 mb", 1_500_000), ("512KiB/s", 524_288), ("4096", 4096)] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate, Rate(Some(bytes)), "{text}");
            assert_eq!(rate.to_string().parse::<Rate>().unwrap(), rate);
        }
        assert_eq!("none".parse::<Rate>().unwrap(), Rate(None));
        for (text, seconds) in [("90s", 90), ("10m", 600), ("2h", 7200), ("30d", 2_592_000), ("15", 15), ("1w", 604_800)] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span, Span(Duration::from_secs(seconds)), "{text}");
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "fast", "-1", "2MB/h", "1", "0", "NaN", "inf", "9e99"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        for text in ["", "soon", "-1s", "1y", "s", "9999999999999d"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn people_read_it() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(18_200_000_000), "18 GB");
        assert_eq!(bytes(6_100_000), "6.1 MB");
        assert_eq!(count(41_203), "41 203");
        assert_eq!(count(100), "100");
        assert_eq!(span(Duration::from_secs(540)), "9 min");
    }
}
