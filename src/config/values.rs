//! The plain kinds of value: text, choices, counts, durations, sizes, paths and lists.
//!
//! Each reader takes a value or notes why not, and never both. What hosts, domains and networks look
//! like stands in [`super::hosts`].

use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::place::Notes;
use super::reader::{Value, kind, nearest, short};
use super::{Located, Trust};
use crate::tls::{Pin, TlsVersion};

/// Longer waits than this are slips; and sums of times stay far from any overflow.
const LONGEST: Duration = Duration::from_hours(10 * 366 * 24);
const DURATION_REMEDY: &str = "Write a number and a unit in quotes, such as \"30s\", \"5m\", \"4h\" or \"5d\".";
const SIZE_REMEDY: &str = "Write \"64KiB\", \"50MiB\" or \"1GiB\", or a plain number of bytes.";

/// Names in logs and tables; longer ones would break both.
const LABEL_MAX: usize = 64;

pub(super) fn text<'d>(value: &Value<'d>, notes: &mut Notes<'_>) -> Option<&'d str> {
    match value.raw {
        DeValue::String(text) => Some(text),
        other => wrong_kind(value, notes, "text", other, "Write text in double quotes."),
    }
}

fn wrong_kind<T>(value: &Value<'_>, notes: &mut Notes<'_>, wanted: &str, got: &DeValue<'_>, remedy: &str) -> Option<T> {
    notes.fault(&value.place, format!("{} must be {wanted}, not {}", value.key, kind(got)), remedy);
    None
}

pub(super) fn boolean(value: &Value<'_>, notes: &mut Notes<'_>) -> Option<bool> {
    match value.raw {
        DeValue::Boolean(yes) => Some(*yes),
        other => wrong_kind(value, notes, "true or false", other, "Write true or false, without quotes."),
    }
}

/// One of a few words.
pub(super) fn choice<T: Copy>(value: &Value<'_>, notes: &mut Notes<'_>, options: &[(&str, T)]) -> Option<T> {
    let words: Vec<&str> = options.iter().map(|(word, _)| *word).collect();
    let list = words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
    let DeValue::String(text) = value.raw else {
        return wrong_kind(value, notes, &format!("one of {list}"), value.raw, "Write one of them, in double quotes.");
    };
    if let Some((_, meant)) = options.iter().find(|(word, _)| word == text) {
        return Some(*meant);
    }
    let remedy = match nearest(text, &words) {
        Some(meant) => format!("Did you mean \"{meant}\"? Possible are {list}."),
        None => format!("Write one of {list}."),
    };
    notes.fault(&value.place, format!("{} cannot be \"{}\"", value.key, short(text)), remedy);
    None
}

pub(super) fn version(value: &Value<'_>, notes: &mut Notes<'_>) -> Option<TlsVersion> {
    choice(value, notes, &[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)])
}

/// A whole number that is not negative.
fn whole(value: &Value<'_>) -> Option<Result<u64, String>> {
    let DeValue::Integer(number) = value.raw else { return None };
    // The largest integer that TOML promises is i64's.
    let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok().and_then(|n| u64::try_from(n).ok());
    Some(parsed.ok_or_else(|| short(&number.to_string())))
}

/// A count from 1 to `most`.
pub(super) fn count(value: &Value<'_>, notes: &mut Notes<'_>, most: u32) -> Option<u32> {
    let remedy = format!("Write a number from 1 to {most}, without quotes.");
    match whole(value) {
        None => wrong_kind(value, notes, "a number", value.raw, &remedy),
        Some(Ok(number)) if number >= 1 && number <= u64::from(most) => u32::try_from(number).ok(),
        Some(number) => {
            let written = number.map_or_else(|text| text, |number| number.to_string());
            notes.fault(&value.place, format!("{} cannot be {written}", value.key), remedy);
            None
        }
    }
}

pub(super) fn port(value: &Value<'_>, notes: &mut Notes<'_>) -> Option<u16> {
    count(value, notes, u32::from(u16::MAX)).and_then(|number| u16::try_from(number).ok())
}

/// A time that is not nothing.
pub(super) fn duration(value: &Value<'_>, notes: &mut Notes<'_>) -> Option<Duration> {
    let DeValue::String(text) = value.raw else {
        return wrong_kind(value, notes, "a duration", value.raw, DURATION_REMEDY);
    };
    let Some(duration) = parse_duration(text) else {
        notes.fault(&value.place, format!("{}: \"{}\" is not a duration", value.key, short(text)), DURATION_REMEDY);
        return None;
    };
    if duration.is_zero() || duration > LONGEST {
        let why = if duration.is_zero() { "no time at all" } else { "over ten years" };
        notes.fault(&value.place, format!("{}: \"{}\" is {why}", value.key, short(text)), DURATION_REMEDY);
        return None;
    }
    Some(duration)
}

/// Reads a duration as people write it here, such as "30s", "5m", "4h" or "5d".
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    // humantime reads "5M" as five months, which nobody means here. The length keeps its sums from
    // overflowing: no 24 characters hold both the largest number of seconds and a carry.
    let plain = |c: char| c.is_ascii_digit() || c.is_ascii_lowercase() || c == '.' || c == ' ';
    if text.len() > 24 || !text.chars().all(plain) {
        return None;
    }
    humantime::parse_duration(text).ok()
}

/// A duration as people write it here, and as [`parse_duration`] reads it.
#[must_use]
pub fn write_duration(duration: Duration) -> String {
    const UNITS: [(u64, char); 3] = [(24 * 60 * 60, 'd'), (60 * 60, 'h'), (60, 'm')];
    let seconds = duration.as_secs();
    match UNITS.iter().find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit)) {
        _ if duration.subsec_nanos() > 0 => humantime::format_duration(duration).to_string(),
        Some((unit, letter)) => format!("{}{letter}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

/// A number of octets, at least 1.
pub(super) fn size(value: &Value<'_>, notes: &mut Notes<'_>) -> Option<u64> {
    let (size, written) = match (value.raw, whole(value)) {
        (_, Some(number)) => (number.clone().ok(), number.map_or_else(|text| text, |number| number.to_string())),
        (DeValue::String(text), None) => (parse_size(text), format!("\"{}\"", short(text))),
        (other, None) => return wrong_kind(value, notes, "a size", other, SIZE_REMEDY),
    };
    match size {
        Some(size) if size > 0 => Some(size),
        Some(_) => {
            notes.fault(&value.place, format!("{} cannot be nothing", value.key), SIZE_REMEDY);
            None
        }
        None => {
            notes.fault(&value.place, format!("{}: {written} is not a size", value.key), SIZE_REMEDY);
            None
        }
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    let size = number.parse::<u64>().ok()?.checked_mul(factor)?;
    // SQL and file offsets are signed.
    i64::try_from(size).is_ok().then_some(size)
}

/// A path; a relative one starts from the configuration's folder.
pub(super) fn path(value: &Value<'_>, notes: &mut Notes<'_>) -> Option<PathBuf> {
    let path = text(value, notes)?;
    if path.is_empty() || path.contains('\0') {
        let message = format!("{}: \"{}\" is not a path", value.key, short(path));
        notes.fault(&value.place, message, "Write a path; a relative one starts from this file's folder.");
        return None;
    }
    Some(notes.folder().join(path))
}

/// `"webpki"`, `"system"` or a PEM file.
pub(super) fn trust(value: &Value<'_>, notes: &mut Notes<'_>) -> Option<Trust> {
    match text(value, notes)? {
        "webpki" => Some(Trust::Webpki),
        "system" => Some(Trust::System),
        // A word like these two is a slip sooner than a file.
        word if !word.contains(['.', '/']) => {
            let remedy = match nearest(word, &["webpki", "system"]) {
                Some(meant) => format!("Did you mean \"{meant}\"? A PEM file of that name is written \"./{word}\"."),
                None => {
                    "Write \"webpki\", \"system\" or the path of a PEM file, such as \"partner-ca.pem\".".to_owned()
                }
            };
            notes.fault(&value.place, format!("{} cannot be \"{}\"", value.key, short(word)), remedy);
            None
        }
        _ => path(value, notes).map(Trust::File),
    }
}

/// The hash of a public key.
pub(super) fn pin(value: &Value<'_>, notes: &mut Notes<'_>) -> Option<Pin> {
    let written = text(value, notes)?;
    match Pin::parse(written) {
        Ok(pin) => Some(pin),
        Err(fault) => {
            let message = format!("{}: \"{}\" is not a pin: {fault}", value.key, short(written));
            let remedy = "Write \"sha256:\" and the SHA-256 of the public key (SPKI), in base64 or hexadecimal; \
                          `gatepost probe` prints it.";
            notes.fault(&value.place, message, remedy);
            None
        }
    }
}

/// The name of a listener or connector.
pub(super) fn label(value: &Value<'_>, notes: &mut Notes<'_>) -> Option<String> {
    let name = text(value, notes)?;
    let bad = name.is_empty() || name.trim() != name || name.chars().count() > LABEL_MAX;
    if bad || name.contains(char::is_control) {
        let remedy = format!("Write 1 to {LABEL_MAX} characters on one line, without spaces around them.");
        notes.fault(&value.place, format!("{}: \"{}\" is not a usable name", value.key, short(name)), remedy);
        return None;
    }
    Some(name.to_owned())
}

/// A list. Items that are bad are noted and left out; nothing comes back where no good one is left of
/// those that were written.
pub(super) fn list<'d, T>(
    value: &Value<'d>,
    notes: &mut Notes<'_>,
    mut item: impl FnMut(&Value<'d>, &mut Notes<'_>) -> Option<T>,
) -> Option<Vec<Located<T>>> {
    let Some(items) = value.items(notes) else {
        return wrong_kind(value, notes, "a list", value.raw, "Put it in square brackets, even if it is only one.");
    };
    let written = items.len();
    let mut good = Vec::with_capacity(written);
    for value in items {
        if let Some(meant) = item(&value, notes) {
            good.push(Located { value: meant, place: value.place });
        }
    }
    (written == 0 || !good.is_empty()).then_some(good)
}

/// A list that must not be empty; `remedy` says what could stand in it.
pub(super) fn full_list<'d, T>(
    value: &Value<'d>,
    notes: &mut Notes<'_>,
    remedy: &str,
    item: impl FnMut(&Value<'d>, &mut Notes<'_>) -> Option<T>,
) -> Option<Vec<Located<T>>> {
    let items = list(value, notes, item)?;
    if items.is_empty() {
        notes.fault(&value.place, format!("{} is empty", value.key), remedy);
        return None;
    }
    Some(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_that_means_one_thing() {
        for (text, seconds) in [("30s", 30), ("5m", 300), ("4h", 14_400), ("5d", 432_000), ("1h 30m", 5_400)] {
            assert_eq!(parse_duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "5", "5 parsecs", "5M", "-5s", "5µs", "s", "18446744073709551615s1000000000ns"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in ["30s", "90s", "5m", "90m", "4h", "25h", "5d", "400d"] {
            assert_eq!(write_duration(parse_duration(text).expect(text)), text);
        }
        assert_eq!(write_duration(Duration::from_millis(1500)), "1s 500ms");
    }

    #[test]
    fn sizes_are_powers_of_two_or_plain() {
        for (text, size) in [("64KiB", 65_536), ("50MiB", 52_428_800), ("7", 7), ("1 GiB", 1 << 30)] {
            assert_eq!(parse_size(text), Some(size), "{text}");
        }
        for text in ["", "KiB", "50MB", "5 mib", "1.5MiB", "-1", "16777216TiB", "99999999999999999999"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
