//! A record as it is written.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;

/// A record in the form in which it is written: JSON without its braces and its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordText {
    pub(in super::super) fields: String,
    /// True for the result of an attempt.
    pub(in super::super) is_delivery: bool,
}

impl RecordText {
    /// Appends the fields of a value that is a JSON object, without its braces.
    pub(super) fn append(fields: &mut String, value: &impl Serialize) {
        // Serializing cannot fail: records have only strings as keys.
        let text = serde_json::to_string(value).unwrap_or_default();
        let inner = text
            .strip_prefix('{')
            .and_then(|text| text.strip_suffix('}'));
        fields.push_str(inner.unwrap_or_default());
    }

    /// Returns the front of the text, with the time of a record.
    pub(super) fn begin(at: Timestamp) -> String {
        // Milliseconds are precise enough, and shorter.
        let at = Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at);
        let mut text = String::with_capacity(1024);
        // Writing into a String cannot fail.
        let _ = write!(text, "\"time\":\"{at}\",");
        text
    }
}
