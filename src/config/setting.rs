//! The value of a setting, as in the file: for comparing two configurations, and for showing one.

use std::fmt;
use std::fmt::Display;
use std::fmt::Write as _;
use std::time::Duration;

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use super::values::write_duration;
use crate::policy::connector::TrustSource;

/// A value, in the types that a file and JSON have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingValue {
    /// The key is not set, and has no default.
    Unset,
    /// Text.
    Text(String),
    /// A number.
    Number(u64),
    /// True or false.
    Flag(bool),
    /// A list.
    List(Vec<SettingValue>),
    /// An inline table.
    Table(Vec<(&'static str, SettingValue)>),
}

impl SettingValue {
    /// Makes a text.
    pub(super) fn text(value: impl Display) -> Self {
        Self::Text(value.to_string())
    }

    /// Makes a list of texts.
    pub(super) fn list<T: Display>(items: impl IntoIterator<Item = T>) -> Self {
        Self::List(items.into_iter().map(Self::text).collect())
    }

    /// Makes a duration, in the form in which a file has it.
    pub(super) fn duration(value: Duration) -> Self {
        Self::Text(write_duration(value))
    }

    /// Makes a source of trust anchors.
    pub(super) fn trust(value: &TrustSource) -> Self {
        match value {
            TrustSource::Webpki => Self::text("webpki"),
            TrustSource::System => Self::text("system"),
            TrustSource::File(path) => Self::text(path.display()),
        }
    }

    /// Returns true if the key is not set.
    #[must_use]
    pub fn is_unset(&self) -> bool {
        *self == Self::Unset
    }
}

impl From<bool> for SettingValue {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<u64> for SettingValue {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for SettingValue {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<usize> for SettingValue {
    fn from(number: usize) -> Self {
        Self::Number(u64::try_from(number).unwrap_or(u64::MAX))
    }
}

/// Writes the value as TOML; `-` if it is not set.
impl Display for SettingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset => f.write_char('-'),
            Self::Text(text) => quoted(f, text),
            Self::Number(number) => number.fmt(f),
            Self::Flag(flag) => flag.fmt(f),
            Self::List(items) => {
                f.write_char('[')?;
                for (at, item) in items.iter().enumerate() {
                    let separator = if at > 0 { ", " } else { "" };
                    write!(f, "{separator}{item}")?;
                }
                f.write_char(']')
            }
            Self::Table(pairs) => {
                f.write_str("{ ")?;
                for (at, (key, value)) in pairs.iter().enumerate() {
                    let separator = if at > 0 { ", " } else { "" };
                    write!(f, "{separator}{key} = {value}")?;
                }
                f.write_str(" }")
            }
        }
    }
}

/// Writes a basic string of TOML.
fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            c if c.is_control() => write!(f, "\\u{:04X}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

impl Serialize for SettingValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unset => serializer.serialize_none(),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(number) => serializer.serialize_u64(*number),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::List(items) => serializer.collect_seq(items),
            Self::Table(pairs) => {
                let mut map = serializer.serialize_map(Some(pairs.len()))?;
                for (key, value) in pairs {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of each value is TOML that means the same, and its JSON form has the same types.
    #[test]
    fn values_are_written_as_toml_and_as_json() {
        let table = SettingValue::Table(vec![
            ("tls", SettingValue::text("off")),
            ("on", true.into()),
        ]);
        for (value, toml, json) in [
            (SettingValue::Unset, "-", "null"),
            (
                SettingValue::text("a\"b\\c\n"),
                "\"a\\\"b\\\\c\\u000A\"",
                "\"a\\\"b\\\\c\\n\"",
            ),
            (
                SettingValue::duration(Duration::from_hours(120)),
                "\"5d\"",
                "\"5d\"",
            ),
            (20_u32.into(), "20", "20"),
            (false.into(), "false", "false"),
            (
                SettingValue::list(["1m", "5m"]),
                "[\"1m\", \"5m\"]",
                "[\"1m\",\"5m\"]",
            ),
            (SettingValue::list::<&str>([]), "[]", "[]"),
            (
                table,
                "{ tls = \"off\", on = true }",
                "{\"tls\":\"off\",\"on\":true}",
            ),
        ] {
            assert_eq!(value.to_string(), toml);
            assert_eq!(serde_json::to_string(&value).expect("JSON"), json);
        }
    }
}
