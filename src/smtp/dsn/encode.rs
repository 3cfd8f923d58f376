//! The folding of a report's text, and the encoding of its parts so that they pass every server:
//! 7-bit with short lines, or quoted-printable (RFC 2045 §6.7). Addresses outside ASCII are written
//! with the numbers of their characters (RFC 6533 §3).

use std::borrow::Cow;
use std::fmt::Write as _;

/// The longest line in octets, without its CRLF (RFC 5321 §4.5.3.1.6).
const LINE_MAX: usize = 998;
/// The longest line of quoted-printable in octets, without the "=" of a soft line break.
const QUOTED_MAX: usize = 75;
/// The length at which lines are folded if possible (RFC 5322 §2.1.1).
const LINE_LENGTH: usize = 76;
/// The longest word in octets that is not broken. A line may have 998 (RFC 5321 §4.5.3.1.6).
const WORD_MAX: usize = 900;

/// Returns true if content passes without encoding: complete lines that are not too long, no NUL
/// and no octet above 127, unless all servers on the way offer 8BITMIME (`eight_bit_path`).
pub(super) fn passes_unencoded(content: &[u8], eight_bit_path: bool) -> bool {
    let is_good = |octet: &u8| !matches!(octet, 0 | b'\r') && (eight_bit_path || octet.is_ascii());
    content
        .split_inclusive(|octet| *octet == b'\n')
        .all(|line| match line.strip_suffix(b"\r\n") {
            Some(line) => line.len() <= LINE_MAX && line.iter().all(is_good),
            None => false,
        })
}

/// Encodes content in quoted-printable. Line ends stay as they are.
pub(super) fn quoted_printable(content: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(content.len() + content.len() / 4);
    let (mut column, mut rest) = (0, content);
    while let Some((octet, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(b"\r\n") {
            out.extend_from_slice(b"\r\n");
            (column, rest) = (0, after);
            continue;
        }
        let ends_line = after.is_empty() || after.starts_with(b"\r\n");
        let is_plain = match octet {
            b' ' | b'\t' => !ends_line,
            b'=' => false,
            octet => octet.is_ascii_graphic(),
        };
        let width = if is_plain { 1 } else { 3 };
        if column + width > QUOTED_MAX {
            out.extend_from_slice(b"=\r\n");
            column = 0;
        }
        if is_plain {
            out.push(*octet);
        } else {
            out.extend_from_slice(&[
                b'=',
                HEX[usize::from(octet >> 4)],
                HEX[usize::from(octet & 15)],
            ]);
        }
        column += width;
        rest = after;
    }
    out
}

/// Writes an address in the 7-bit form `utf-8-addr-xtext`.
pub(super) fn utf8_xtext(address: &str) -> String {
    escape_characters(address, |c| {
        !c.is_ascii_graphic() || matches!(c, '\\' | '+' | '=')
    })
}

/// Writes an ORCPT of the type utf-8 in its 7-bit form. ASCII stays as it is.
pub(super) fn seven_bit_orcpt(orcpt: &str) -> Cow<'_, str> {
    if orcpt.is_ascii() {
        orcpt.into()
    } else {
        escape_characters(orcpt, |c| !c.is_ascii()).into()
    }
}

/// Replaces characters by their escaped numbers.
fn escape_characters(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        if is_escaped(c) {
            // Writing into a String cannot fail.
            let _ = write!(out, "\\x{{{:02X}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// Decodes xtext (RFC 3461 §4): "+41" is "A". Invalid escapes stay as they are, and control
/// characters are replaced.
pub(super) fn from_xtext(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = text
            .get(at + 1..at + 3)
            .filter(|_| byte == b'+')
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(hex.unwrap_or(byte));
        at += if hex.is_some() { 3 } else { 1 };
    }
    out.iter()
        .map(|byte| {
            if (b' '..=b'~').contains(byte) {
                char::from(*byte)
            } else {
                '?'
            }
        })
        .collect()
}

/// Returns a text of a peer or sender without control characters, at most `most` characters long.
pub(super) fn quote(text: &str, most: usize) -> String {
    text.chars()
        .take(most)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// Appends a text, folded over as many lines as it needs.
pub(super) fn fold(out: &mut String, first: &str, next: &str, text: &str) {
    let mut space = LINE_LENGTH.saturating_sub(first.len());
    out.push_str(first);
    for (at, word) in text.split_whitespace().flat_map(split_word).enumerate() {
        if at > 0 && word.len() >= space {
            out.push_str("\r\n");
            out.push_str(next);
            space = LINE_LENGTH.saturating_sub(next.len());
        } else if at > 0 {
            out.push(' ');
            space = space.saturating_sub(1);
        }
        out.push_str(word);
        space = space.saturating_sub(word.len());
    }
    out.push_str("\r\n");
}

/// Splits a word that is too long for a line.
fn split_word(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        let (piece, more) = rest.split_at(rest.floor_char_boundary(WORD_MAX));
        rest = more;
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xtext_is_decoded_and_cannot_break_a_line() {
        assert_eq!(from_xtext("a+2Bb+0D+0Ac+zz"), "a+b??c+zz");
    }

    #[test]
    fn characters_outside_ascii_are_escaped_by_number() {
        assert_eq!(
            utf8_xtext("bö+x=\\@example.net"),
            "b\\x{F6}\\x{2B}x\\x{3D}\\x{5C}@example.net"
        );
        assert_eq!(
            utf8_xtext("\"a b\u{20ac}\"@example.net"),
            "\"a\\x{20}b\\x{20AC}\"@example.net"
        );
        assert_eq!(seven_bit_orcpt("b\\x{F6}ü"), "b\\x{F6}\\x{FC}");
        assert_eq!(seven_bit_orcpt("a\\x{2B}b"), "a\\x{2B}b");
    }

    #[test]
    fn content_that_cannot_pass_unencoded_is_recognised() {
        let long = |length: usize| format!("{}\r\n", "x".repeat(length));
        for (content, narrow, eight_bit_path) in [
            ("", true, true),
            ("a\r\n\r\nb\r\n", true, true),
            (&long(998), true, true),
            (&long(999), false, false),
            ("Wörter\r\n", false, true),
            ("no end", false, false),
            ("a\rb\r\n", false, false),
            ("a\nb\r\n", false, false),
            ("a\0b\r\n", false, false),
        ] {
            assert_eq!(
                (
                    passes_unencoded(content.as_bytes(), false),
                    passes_unencoded(content.as_bytes(), true)
                ),
                (narrow, eight_bit_path),
                "{content:?}"
            );
        }
    }

    #[test]
    fn quoted_printable_has_short_7bit_lines() {
        for (content, quoted) in [
            ("für =\r\n", "f=C3=BCr =3D\r\n"),
            ("blank \r\ntab\t\r\nend ", "blank=20\r\ntab=09\r\nend=20"),
            ("a\rb\nc\0\r\n", "a=0Db=0Ac=00\r\n"),
            (&"x".repeat(76), &format!("{}=\r\nx", "x".repeat(75))),
            (
                &format!("{}ü", "x".repeat(74)),
                &format!("{}=\r\n=C3=BC", "x".repeat(74)),
            ),
        ] {
            assert_eq!(
                String::from_utf8(quoted_printable(content.as_bytes())).expect("ASCII"),
                quoted
            );
        }
        let all: Vec<u8> = (0..=255).cycle().take(3000).collect();
        let quoted = quoted_printable(&all);
        assert!(
            quoted
                .split(|octet| *octet == b'\n')
                .all(|line| line.len() <= 77)
                && quoted.is_ascii()
        );
    }
}
