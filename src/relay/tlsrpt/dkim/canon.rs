//! The "relaxed" canonicalization of RFC 6376 §3.4, which tolerates harmless changes in transit.

/// Canonicalizes a header field (§3.4.2), given without its line end.
#[must_use]
pub(super) fn header(field: &str) -> String {
    let (name, value) = field.split_once(':').unwrap_or((field, ""));
    let mut relaxed = name.trim_end_matches([' ', '\t']).to_ascii_lowercase();
    relaxed.push(':');
    let words = value
        .split([' ', '\t', '\r', '\n'])
        .filter(|word| !word.is_empty());
    for (at, word) in words.enumerate() {
        if at > 0 {
            relaxed.push(' ');
        }
        relaxed.push_str(word);
    }
    relaxed
}

/// Canonicalizes a body whose lines end with CRLF (§3.4.4).
#[must_use]
pub(super) fn body(body: &[u8]) -> Vec<u8> {
    let mut relaxed = Vec::with_capacity(body.len());
    // Empty lines are written only if something follows them.
    let mut empty = 0_usize;
    let whole = body.strip_suffix(b"\r\n").unwrap_or(body);
    for line in whole.split(|octet| *octet == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut words = line.split(|octet| matches!(octet, b' ' | b'\t'));
        // White space at the beginning of a line becomes one space, as elsewhere.
        let mut written = Vec::with_capacity(line.len());
        written.extend_from_slice(words.next().unwrap_or_default());
        for word in words.filter(|word| !word.is_empty()) {
            written.push(b' ');
            written.extend_from_slice(word);
        }
        if written.is_empty() {
            empty += 1;
            continue;
        }
        for _ in 0..std::mem::take(&mut empty) {
            relaxed.extend_from_slice(b"\r\n");
        }
        relaxed.extend_from_slice(&written);
        relaxed.extend_from_slice(b"\r\n");
    }
    relaxed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_standard() {
        // RFC 6376 §3.4.5, example 1.
        assert_eq!(header("A: X"), "a:X");
        assert_eq!(header("B : Y\t\r\n\tZ  "), "b:Y Z");
        assert_eq!(body(b" C \r\nD \t E\r\n\r\n\r\n"), b" C\r\nD E\r\n");
    }

    #[test]
    fn edges_of_bodies() {
        assert_eq!(body(b""), b"");
        assert_eq!(body(b"\r\n\r\n"), b"");
        assert_eq!(body(b"a"), b"a\r\n");
        assert_eq!(body(b"\r\n\r\na\r\n \r\nb"), b"\r\n\r\na\r\n\r\nb\r\n");
        assert_eq!(body(b"  \ta\r\n"), b" a\r\n");
    }
}
