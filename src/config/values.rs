//! The simple types of values: text, choices, counts, durations, sizes, paths and lists.
//!
//! Each function returns a value or reports a fault, never both. Hosts, domains and networks are in
//! [`super::hosts`].

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::fault_list::FaultList;
use super::reader::{TomlValue, kind_name};
use super::spelling::{nearest_word, shorten};
use crate::policy::connector::TrustSource;
use crate::policy::location::Located;
use crate::policy::tls::{Pin, TlsVersion};

/// The longest duration. Anything longer is a mistake, and sums of durations stay far from an
/// overflow.
const LONGEST: Duration = Duration::from_hours(10 * 366 * 24);
const DURATION_REMEDY: &str =
    "Write a number and a unit in quotes, such as \"30s\", \"5m\", \"4h\" or \"5d\".";
const SIZE_REMEDY: &str = "Write \"64KiB\", \"50MiB\" or \"1GiB\", or a plain number of bytes.";

/// The most characters in the name of a listener or connector, for logs and tables.
const LABEL_MAX: usize = 64;

pub(super) fn text<'d>(value: &TomlValue<'d>, faults: &mut FaultList<'_>) -> Option<&'d str> {
    match value.raw {
        DeValue::String(text) => Some(text),
        other => wrong_kind(value, faults, "text", other, "Write text in double quotes."),
    }
}

fn wrong_kind<T>(
    value: &TomlValue<'_>,
    faults: &mut FaultList<'_>,
    wanted: &str,
    got: &DeValue<'_>,
    remedy: &str,
) -> Option<T> {
    faults.add(
        &value.location,
        format!("{} must be {wanted}, not {}", value.key, kind_name(got)),
        remedy,
    );
    None
}

pub(super) fn boolean(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<bool> {
    match value.raw {
        DeValue::Boolean(yes) => Some(*yes),
        other => wrong_kind(
            value,
            faults,
            "true or false",
            other,
            "Write true or false, without quotes.",
        ),
    }
}

/// Reads one of a few words.
pub(super) fn choice<T: Copy>(
    value: &TomlValue<'_>,
    faults: &mut FaultList<'_>,
    options: &[(&str, T)],
) -> Option<T> {
    let words: Vec<&str> = options.iter().map(|(word, _)| *word).collect();
    let list = words
        .iter()
        .map(|word| format!("\"{word}\""))
        .collect::<Vec<_>>()
        .join(", ");
    let DeValue::String(text) = value.raw else {
        return wrong_kind(
            value,
            faults,
            &format!("one of {list}"),
            value.raw,
            "Write one of them, in double quotes.",
        );
    };
    if let Some((_, meant)) = options.iter().find(|(word, _)| word == text) {
        return Some(*meant);
    }
    let remedy = match nearest_word(text, &words) {
        Some(meant) => format!("Did you mean \"{meant}\"? Possible are {list}."),
        None => format!("Write one of {list}."),
    };
    faults.add(
        &value.location,
        format!("{} cannot be \"{}\"", value.key, shorten(text)),
        remedy,
    );
    None
}

pub(super) fn version(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<TlsVersion> {
    choice(
        value,
        faults,
        &[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)],
    )
}

/// An integer of the document.
enum WrittenInteger {
    /// It fits and is not negative.
    Natural(u64),
    /// It is negative or too large, in the form that it was written in.
    OutOfRange(String),
}

impl fmt::Display for WrittenInteger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Natural(number) => number.fmt(f),
            Self::OutOfRange(written) => f.write_str(written),
        }
    }
}

/// Reads an integer. `None` if the value has another type.
fn integer(value: &TomlValue<'_>) -> Option<WrittenInteger> {
    let DeValue::Integer(number) = value.raw else {
        return None;
    };
    // TOML guarantees integers up to that of i64.
    let parsed = i64::from_str_radix(number.as_str(), number.radix())
        .ok()
        .and_then(|n| u64::try_from(n).ok());
    Some(match parsed {
        Some(number) => WrittenInteger::Natural(number),
        None => WrittenInteger::OutOfRange(shorten(&number.to_string())),
    })
}

/// Reads a count from 1 to `most`.
pub(super) fn count(value: &TomlValue<'_>, faults: &mut FaultList<'_>, most: u32) -> Option<u32> {
    let remedy = format!("Write a number from 1 to {most}, without quotes.");
    match integer(value) {
        None => wrong_kind(value, faults, "a number", value.raw, &remedy),
        Some(WrittenInteger::Natural(number)) if number >= 1 && number <= u64::from(most) => {
            u32::try_from(number).ok()
        }
        Some(written) => {
            faults.add(
                &value.location,
                format!("{} cannot be {written}", value.key),
                remedy,
            );
            None
        }
    }
}

pub(super) fn port(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<u16> {
    count(value, faults, u32::from(u16::MAX)).and_then(|number| u16::try_from(number).ok())
}

/// Reads a duration that is not zero.
pub(super) fn duration(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<Duration> {
    let DeValue::String(text) = value.raw else {
        return wrong_kind(value, faults, "a duration", value.raw, DURATION_REMEDY);
    };
    let Some(duration) = parse_duration(text) else {
        faults.add(
            &value.location,
            format!("{}: \"{}\" is not a duration", value.key, shorten(text)),
            DURATION_REMEDY,
        );
        return None;
    };
    if duration.is_zero() || duration > LONGEST {
        let why = if duration.is_zero() {
            "zero"
        } else {
            "over ten years"
        };
        faults.add(
            &value.location,
            format!("{}: \"{}\" is {why}", value.key, shorten(text)),
            DURATION_REMEDY,
        );
        return None;
    }
    Some(duration)
}

/// Parses a duration such as "30s", "5m", "4h" or "5d".
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    // humantime reads "5M" as five months, which nobody means here. The length limit prevents an
    // overflow in its sums: 24 characters cannot hold both the largest number of seconds and a
    // carry.
    let plain = |c: char| c.is_ascii_digit() || c.is_ascii_lowercase() || c == '.' || c == ' ';
    if text.len() > 24 || !text.chars().all(plain) {
        return None;
    }
    humantime::parse_duration(text).ok()
}

/// Writes a duration in the form that [`parse_duration`] reads.
#[must_use]
pub fn write_duration(duration: Duration) -> String {
    const UNITS: [(u64, char); 3] = [(24 * 60 * 60, 'd'), (60 * 60, 'h'), (60, 'm')];
    let seconds = duration.as_secs();
    match UNITS
        .iter()
        .find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit))
    {
        _ if duration.subsec_nanos() > 0 => humantime::format_duration(duration).to_string(),
        Some((unit, letter)) => format!("{}{letter}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

/// Writes a number of octets in the form in which a file has it: in the largest unit that divides
/// it.
#[must_use]
pub fn write_size(octets: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match UNITS
        .iter()
        .find(|(bits, _)| octets > 0 && octets.trailing_zeros() >= *bits)
    {
        Some((bits, unit)) => format!("{}{unit}", octets >> bits),
        None => octets.to_string(),
    }
}

/// Reads a number of octets, at least 1.
pub(super) fn size(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<u64> {
    let (size, written) = match (value.raw, integer(value)) {
        (_, Some(WrittenInteger::Natural(number))) => (Some(number), number.to_string()),
        (_, Some(WrittenInteger::OutOfRange(written))) => (None, written),
        (DeValue::String(text), None) => (parse_size(text), format!("\"{}\"", shorten(text))),
        (other, None) => return wrong_kind(value, faults, "a size", other, SIZE_REMEDY),
    };
    match size {
        Some(size) if size > 0 => Some(size),
        Some(_) => {
            faults.add(
                &value.location,
                format!("{} cannot be zero", value.key),
                SIZE_REMEDY,
            );
            None
        }
        None => {
            faults.add(
                &value.location,
                format!("{}: {written} is not a size", value.key),
                SIZE_REMEDY,
            );
            None
        }
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
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

/// Reads a path; a relative one starts from the folder of the configuration.
pub(super) fn path(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<PathBuf> {
    let path = text(value, faults)?;
    if path.is_empty() || path.contains('\0') {
        let message = format!("{}: \"{}\" is not a path", value.key, shorten(path));
        faults.add(
            &value.location,
            message,
            "Write a path; a relative one starts from this file's folder.",
        );
        return None;
    }
    Some(faults.folder().join(path))
}

/// Reads `"webpki"`, `"system"` or the path of a PEM file.
pub(super) fn trust(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<TrustSource> {
    match text(value, faults)? {
        "webpki" => Some(TrustSource::Webpki),
        "system" => Some(TrustSource::System),
        // A plain word is more likely a misspelling of these two than a file.
        word if !word.contains(['.', '/']) => {
            let remedy = match nearest_word(word, &["webpki", "system"]) {
                Some(meant) => format!("Did you mean \"{meant}\"? A PEM file of that name is written \"./{word}\"."),
                None => {
                    "Write \"webpki\", \"system\" or the path of a PEM file, such as \"partner-ca.pem\".".to_owned()
                }
            };
            faults.add(
                &value.location,
                format!("{} cannot be \"{}\"", value.key, shorten(word)),
                remedy,
            );
            None
        }
        _ => path(value, faults).map(TrustSource::File),
    }
}

/// Reads the hash of a public key.
pub(super) fn pin(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<Pin> {
    let written = text(value, faults)?;
    match Pin::parse(written) {
        Ok(pin) => Some(pin),
        Err(fault) => {
            let message = format!(
                "{}: \"{}\" is not a pin: {fault}",
                value.key,
                shorten(written)
            );
            let remedy = "Write \"sha256:\" and the SHA-256 of the public key (SPKI), in base64 or hexadecimal; \
                          `gatepost probe` prints it.";
            faults.add(&value.location, message, remedy);
            None
        }
    }
}

/// Reads the name of a listener or connector.
pub(super) fn label(value: &TomlValue<'_>, faults: &mut FaultList<'_>) -> Option<String> {
    let name = text(value, faults)?;
    let bad = name.is_empty() || name.trim() != name || name.chars().count() > LABEL_MAX;
    if bad || name.contains(char::is_control) {
        let remedy =
            format!("Write 1 to {LABEL_MAX} characters on one line, without spaces around them.");
        faults.add(
            &value.location,
            format!("{}: \"{}\" is not a usable name", value.key, shorten(name)),
            remedy,
        );
        return None;
    }
    Some(name.to_owned())
}

/// Reads a list. Invalid items are reported and left out; `None` if no item is valid.
pub(super) fn list<'d, T>(
    value: &TomlValue<'d>,
    faults: &mut FaultList<'_>,
    mut item: impl FnMut(&TomlValue<'d>, &mut FaultList<'_>) -> Option<T>,
) -> Option<Vec<Located<T>>> {
    let Some(items) = value.items(faults) else {
        return wrong_kind(
            value,
            faults,
            "a list",
            value.raw,
            "Put it in square brackets, even if it is only one.",
        );
    };
    let written = items.len();
    let mut good = Vec::with_capacity(written);
    for value in items {
        if let Some(meant) = item(&value, faults) {
            good.push(Located {
                value: meant,
                location: value.location,
            });
        }
    }
    (written == 0 || !good.is_empty()).then_some(good)
}

/// Drops the positions.
pub(super) fn without_locations<T>(items: Vec<Located<T>>) -> Vec<T> {
    items.into_iter().map(|item| item.value).collect()
}

/// Reads a list that must not be empty. `remedy` describes its content.
pub(super) fn full_list<'d, T>(
    value: &TomlValue<'d>,
    faults: &mut FaultList<'_>,
    remedy: &str,
    item: impl FnMut(&TomlValue<'d>, &mut FaultList<'_>) -> Option<T>,
) -> Option<Vec<Located<T>>> {
    let items = list(value, faults, item)?;
    if items.is_empty() {
        faults.add(&value.location, format!("{} is empty", value.key), remedy);
        return None;
    }
    Some(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_that_means_one_thing() {
        for (text, seconds) in [
            ("30s", 30),
            ("5m", 300),
            ("4h", 14_400),
            ("5d", 432_000),
            ("1h 30m", 5_400),
        ] {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for text in [
            "",
            "5",
            "5 parsecs",
            "5M",
            "-5s",
            "5µs",
            "s",
            "18446744073709551615s1000000000ns",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_written_in_the_form_that_is_read() {
        for text in ["30s", "90s", "5m", "90m", "4h", "25h", "5d", "400d"] {
            assert_eq!(write_duration(parse_duration(text).expect(text)), text);
        }
        assert_eq!(write_duration(Duration::from_millis(1500)), "1s 500ms");
    }

    #[test]
    fn sizes_are_written_in_the_form_that_is_read() {
        for text in [
            "1", "1000", "1KiB", "1025", "64KiB", "50MiB", "1GiB", "1536KiB",
        ] {
            assert_eq!(write_size(parse_size(text).expect(text)), text);
        }
        assert_eq!(write_size(0), "0");
    }

    #[test]
    fn sizes_are_powers_of_two_or_plain() {
        for (text, size) in [
            ("64KiB", 65_536),
            ("50MiB", 52_428_800),
            ("7", 7),
            ("1 GiB", 1 << 30),
        ] {
            assert_eq!(parse_size(text), Some(size), "{text}");
        }
        for text in [
            "",
            "KiB",
            "50MB",
            "5 mib",
            "1.5MiB",
            "-1",
            "16777216TiB",
            "99999999999999999999",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
