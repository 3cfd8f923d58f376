//! The body of a token request (`application/x-www-form-urlencoded`, RFC 6749 appendix B).

use std::fmt::Write as _;

use bytes::Bytes;
use zeroize::Zeroizing;

/// A form whose octets are wiped from memory after they were sent.
#[derive(Default)]
pub(super) struct Form(Zeroizing<String>);

impl Form {
    /// Adds a field.
    pub(super) fn add(&mut self, name: &str, value: &str) {
        let value = encode(value);
        // A growing text would leave copies of its content in memory.
        let mut grown = Zeroizing::new(String::with_capacity(
            self.0.len() + name.len() + value.len() + 2,
        ));
        grown.push_str(&self.0);
        if !grown.is_empty() {
            grown.push('&');
        }
        grown.push_str(name);
        grown.push('=');
        grown.push_str(&value);
        self.0 = grown;
    }

    /// Returns the octets.
    pub(super) fn into_bytes(mut self) -> Bytes {
        let octets = std::mem::take(&mut *self.0).into_bytes();
        Bytes::from_owner(Zeroizing::new(octets))
    }
}

/// Encodes a value.
// Rule: RFC 6749 appendix B.
pub(super) fn encode(value: &str) -> Zeroizing<String> {
    let mut encoded = Zeroizing::new(String::with_capacity(3 * value.len()));
    for octet in value.bytes() {
        match octet {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'*' => {
                encoded.push(char::from(octet));
            }
            b' ' => encoded.push('+'),
            // Writing to a string cannot fail.
            _ => drop(write!(encoded, "%{octet:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded() {
        let mut form = Form::default();
        form.add("scope", "https://a.example/.default b");
        form.add("client_secret", "a~&=+%\"ü*-_.Z9");
        assert_eq!(
            form.into_bytes(),
            "scope=https%3A%2F%2Fa.example%2F.default+b&client_secret=a%7E%26%3D%2B%25%22%C3%BC*-_.Z9"
        );
    }
}
