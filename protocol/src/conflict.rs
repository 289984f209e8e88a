//! Names of conflicted copies: `NAME (conflicted copy, DEVICE, YYYY-MM-DD HH-MM).EXT`.
//!
//! The name is a pure function of the name and of the losing value, so that replicas that settle a conflict without hearing of each
//! other agree (C24). It never exceeds 255 bytes and is cut at a character's end.

use crate::limits::NAME_MAX_BYTES;
use crate::name::Name;
use crate::node::Value;

/// What stands in the brackets after "conflicted copy": the device that wrote the losing value, and when, by its clock, in UTC.
pub fn label(value: &Value) -> String {
    let (year, month, day, hour, minute) = civil(value.wall_ms);
    let device: String = value.author.name.chars().filter(|c| !c.is_control() && *c != '/').collect();
    let device = if device.trim().is_empty() { "unnamed device" } else { device.trim() };
    format!("{device}, {year:04}-{month:02}-{day:02} {hour:02}-{minute:02}")
}

/// The name of a conflicted copy of `name` with this label; `extra` tildes are appended when the plain name is taken.
///
/// The extension is everything from the first dot on, unless the name begins with one.
pub fn conflict_name(name: &Name, label: &str, extra: usize) -> Name {
    let bytes = name.as_bytes();
    let dot = if bytes[0] == b'.' { None } else { bytes.iter().position(|b| *b == b'.') };
    let (stem, extension) = bytes.split_at(dot.unwrap_or(bytes.len()));
    let middle = format!(" (conflicted copy, {label})");
    let extra = extra.min(NAME_MAX_BYTES / 4);
    // A stem is never wholly eaten by a long extension: the extension gives way first.
    let fixed = middle.len() + extra;
    let extension = cut(extension, NAME_MAX_BYTES.saturating_sub(fixed + stem.len().min(32)));
    let stem = cut(stem, NAME_MAX_BYTES.saturating_sub(fixed + extension.len()));
    let mut out = Vec::with_capacity(NAME_MAX_BYTES);
    out.extend_from_slice(stem);
    out.extend_from_slice(middle.as_bytes());
    out.extend_from_slice(extension);
    out.resize(out.len() + extra, b'~');
    out.truncate(NAME_MAX_BYTES);
    Name::new(out).unwrap_or_else(|_| name.clone())
}

/// The longest beginning of at most `max` bytes that ends where a UTF-8 character ends; other bytes are cut anywhere.
fn cut(bytes: &[u8], max: usize) -> &[u8] {
    if bytes.len() <= max {
        return bytes;
    }
    let mut end = max;
    while end > 0 && max - end < 3 && bytes[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    if bytes[end] & 0xC0 == 0x80 { &bytes[..max] } else { &bytes[..end] }
}

/// Year, month, day, hour, minute in UTC, proleptic Gregorian. After Howard Hinnant, "chrono-compatible low-level date algorithms".
fn civil(wall_ms: i64) -> (i64, u32, u32, u32, u32) {
    let minutes = wall_ms.div_euclid(60_000);
    let (days, minute_of_day) = (minutes.div_euclid(1440), minutes.rem_euclid(1440) as u32);
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u32;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 } as u32;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day, minute_of_day / 60, minute_of_day % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn the_extension_stays_at_the_end() {
        let l = "LAPTOP, 2026-11-22 10-30";
        assert_eq!(conflict_name(&name("report.txt"), l, 0), name("report (conflicted copy, LAPTOP, 2026-11-22 10-30).txt"));
        assert_eq!(conflict_name(&name("a.tar.gz"), l, 0), name("a (conflicted copy, LAPTOP, 2026-11-22 10-30).tar.gz"));
        assert_eq!(conflict_name(&name(".bashrc"), l, 0), name(".bashrc (conflicted copy, LAPTOP, 2026-11-22 10-30)"));
        assert_eq!(conflict_name(&name("plain"), l, 1), name("plain (conflicted copy, LAPTOP, 2026-11-22 10-30)~"));
    }

    #[test]
    fn known_instants() {
        assert_eq!(civil(0), (1970, 1, 1, 0, 0));
        assert_eq!(civil(1_795_343_400_000), (2026, 11, 22, 10, 30));
        assert_eq!(civil(951_782_400_000), (2000, 2, 29, 0, 0));
        assert_eq!(civil(-60_000), (1969, 12, 31, 23, 59));
    }

    #[test]
    fn a_long_name_is_cut_at_a_characters_end() {
        let long = name(&"é".repeat(127));
        let copy = conflict_name(&long, "L, 2026-11-22 10-30", 0);
        assert!(copy.as_bytes().len() <= 255 && std::str::from_utf8(copy.as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn always_a_name(bytes in proptest::collection::vec(1u8..255, 1..256), label in ".{0,90}", extra in 0usize..300) {
            if let Ok(n) = Name::new(&bytes) {
                let label: String = label.chars().filter(|c| *c != '/' && *c != '\0').collect();
                prop_assert!(conflict_name(&n, &label, extra).as_bytes().len() <= 255);
            }
        }
    }
}
