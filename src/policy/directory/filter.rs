//! Search filters (RFC 4515) with placeholders for an address.
//!
//! The filter of the configuration is parsed once. The address is then put into values alone, as
//! octets, so that nothing in it can be read as a part of the filter.

use super::ber;
use crate::smtp::address::Mailbox;

/// The deepest nesting of a filter.
const DEPTH_MAX: usize = 16;

/// The reason why a text is not a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The text is not a filter of RFC 4515.
    #[error("it is not a filter of RFC 4515, such as (mail=%s)")]
    Syntax,
    /// The filter is nested too deeply.
    #[error("it has more than 16 levels")]
    TooDeep,
    /// The filter has no place for the address.
    #[error("it has no %s or %u, and so would find the same entry for every address")]
    NoAddress,
    /// The filter has a `%` with another letter behind it.
    #[error("% stands before s (address), u (local part), d (domain) or another %")]
    Placeholder,
    /// The filter uses extensible matching with DN attributes or without an attribute.
    #[error("extensible matching is written (attribute:rule:=value)")]
    Extensible,
}

/// A filter with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LdapFilter {
    text: String,
    root: FilterItem,
}

/// A part of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
enum FilterItem {
    And(Vec<FilterItem>),
    Or(Vec<FilterItem>),
    Not(Box<FilterItem>),
    Present(String),
    /// A comparison with one value; the tag says which.
    Compare(u8, String, Vec<ValuePart>),
    /// The parts between the asterisks.
    Substrings(String, Vec<Vec<ValuePart>>),
    /// Extensible matching: rule, attribute and value.
    Extensible(String, String, Vec<ValuePart>),
}

/// A part of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ValuePart {
    Octets(Vec<u8>),
    Address,
    LocalPart,
    Domain,
}

impl LdapFilter {
    /// Parses a filter in which `%s` stands for the address, `%u` for its local part and `%d` for
    /// its domain; `%%` is a percent sign.
    ///
    /// # Errors
    /// [`FilterError`].
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let written = text.trim();
        let (root, rest) = parse_filter(written, DEPTH_MAX)?;
        if !rest.is_empty() {
            return Err(FilterError::Syntax);
        }
        if !root.has_address() {
            return Err(FilterError::NoAddress);
        }
        Ok(Self {
            text: written.to_owned(),
            root,
        })
    }

    /// The filter as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Appends the filter for an address in BER.
    pub fn write(&self, mailbox: &Mailbox, out: &mut Vec<u8>) {
        self.root.write(mailbox, out);
    }
}

impl FilterItem {
    fn has_address(&self) -> bool {
        let is_address =
            |part: &ValuePart| matches!(part, ValuePart::Address | ValuePart::LocalPart);
        match self {
            Self::And(items) | Self::Or(items) => items.iter().any(Self::has_address),
            Self::Not(item) => item.has_address(),
            Self::Present(_) => false,
            Self::Compare(_, _, value) | Self::Extensible(_, _, value) => {
                value.iter().any(is_address)
            }
            Self::Substrings(_, parts) => parts.iter().flatten().any(is_address),
        }
    }

    fn write(&self, mailbox: &Mailbox, out: &mut Vec<u8>) {
        let mut content = Vec::new();
        let tag = match self {
            Self::And(items) | Self::Or(items) => {
                for item in items {
                    item.write(mailbox, &mut content);
                }
                if matches!(self, Self::And(_)) {
                    0xa0
                } else {
                    0xa1
                }
            }
            Self::Not(item) => {
                item.write(mailbox, &mut content);
                0xa2
            }
            Self::Present(attribute) => {
                content.extend_from_slice(attribute.as_bytes());
                0x87
            }
            Self::Compare(tag, attribute, value) => {
                ber::write(&mut content, ber::OCTET_STRING, attribute.as_bytes());
                ber::write(&mut content, ber::OCTET_STRING, &octets(value, mailbox));
                *tag
            }
            Self::Substrings(attribute, parts) => {
                ber::write(&mut content, ber::OCTET_STRING, attribute.as_bytes());
                let (mut pieces, last) = (Vec::new(), parts.len() - 1);
                for (at, part) in parts
                    .iter()
                    .enumerate()
                    .filter(|(_, part)| !part.is_empty())
                {
                    let place = match at {
                        0 => 0x80,
                        at if at == last => 0x82,
                        _ => 0x81,
                    };
                    ber::write(&mut pieces, place, &octets(part, mailbox));
                }
                ber::write(&mut content, ber::SEQUENCE, &pieces);
                0xa4
            }
            Self::Extensible(rule, attribute, value) => {
                ber::write(&mut content, 0x81, rule.as_bytes());
                ber::write(&mut content, 0x82, attribute.as_bytes());
                ber::write(&mut content, 0x83, &octets(value, mailbox));
                0xa9
            }
        };
        ber::write(out, tag, &content);
    }
}

fn octets(value: &[ValuePart], mailbox: &Mailbox) -> Vec<u8> {
    let mut octets = Vec::new();
    for part in value {
        match part {
            ValuePart::Octets(literal) => octets.extend_from_slice(literal),
            ValuePart::Address => octets.extend_from_slice(mailbox.to_string().as_bytes()),
            ValuePart::LocalPart => octets.extend_from_slice(mailbox.local_part().as_bytes()),
            ValuePart::Domain => {
                octets.extend_from_slice(mailbox.host().to_string().as_bytes());
            }
        }
    }
    octets
}

/// Parses one filter in parentheses, and returns what stands behind it.
fn parse_filter(text: &str, depth: usize) -> Result<(FilterItem, &str), FilterError> {
    if depth == 0 {
        return Err(FilterError::TooDeep);
    }
    let text = text.strip_prefix('(').ok_or(FilterError::Syntax)?;
    let (item, rest) = match text.as_bytes().first() {
        Some(b'&') => {
            let (items, rest) = parse_list(&text[1..], depth)?;
            (FilterItem::And(items), rest)
        }
        Some(b'|') => {
            let (items, rest) = parse_list(&text[1..], depth)?;
            (FilterItem::Or(items), rest)
        }
        Some(b'!') => {
            let (item, rest) = parse_filter(&text[1..], depth - 1)?;
            (FilterItem::Not(Box::new(item)), rest)
        }
        _ => {
            // A parenthesis in a value is escaped.
            let end = text.find(['(', ')']).ok_or(FilterError::Syntax)?;
            (parse_comparison(&text[..end])?, &text[end..])
        }
    };
    let rest = rest.strip_prefix(')').ok_or(FilterError::Syntax)?;
    Ok((item, rest))
}

fn parse_list(mut text: &str, depth: usize) -> Result<(Vec<FilterItem>, &str), FilterError> {
    let mut items = Vec::new();
    while text.starts_with('(') {
        let (item, rest) = parse_filter(text, depth - 1)?;
        items.push(item);
        text = rest;
    }
    if items.is_empty() {
        return Err(FilterError::Syntax);
    }
    Ok((items, text))
}

/// Parses `attribute=value` and its relatives.
fn parse_comparison(text: &str) -> Result<FilterItem, FilterError> {
    let (left, value) = text.split_once('=').ok_or(FilterError::Syntax)?;
    if let Some(left) = left.strip_suffix(':') {
        let (attribute, rule) = left.split_once(':').ok_or(FilterError::Extensible)?;
        if !is_attribute(attribute) || !is_attribute(rule) || rule.eq_ignore_ascii_case("dn") {
            return Err(FilterError::Extensible);
        }
        let value = parse_value(value)?;
        return Ok(FilterItem::Extensible(
            rule.to_owned(),
            attribute.to_owned(),
            value,
        ));
    }
    let (attribute, tag) = match left.as_bytes().last() {
        Some(b'>') => (&left[..left.len() - 1], 0xa5),
        Some(b'<') => (&left[..left.len() - 1], 0xa6),
        Some(b'~') => (&left[..left.len() - 1], 0xa8),
        _ => (left, 0xa3),
    };
    if !is_attribute(attribute) {
        return Err(FilterError::Syntax);
    }
    let attribute = attribute.to_owned();
    if tag == 0xa3 && value == "*" {
        return Ok(FilterItem::Present(attribute));
    }
    let parts = value.split('*').map(parse_value);
    let mut parts = parts.collect::<Result<Vec<_>, _>>()?;
    match parts.len() {
        1 => Ok(FilterItem::Compare(
            tag,
            attribute,
            parts.pop().unwrap_or_default(),
        )),
        _ if tag != 0xa3 => Err(FilterError::Syntax),
        // Two asterisks side by side, or nothing beside asterisks.
        count if parts[1..count - 1].iter().any(Vec::is_empty) => Err(FilterError::Syntax),
        _ => Ok(FilterItem::Substrings(attribute, parts)),
    }
}

/// Returns true for an attribute description (RFC 4512 §2.5): a name or an OID, with options.
fn is_attribute(text: &str) -> bool {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "-.;".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(is_legal)
}

/// Parses a value without asterisks: `\XX` is an octet, and `%` begins a placeholder.
fn parse_value(text: &str) -> Result<Vec<ValuePart>, FilterError> {
    let (mut parts, mut literal) = (Vec::new(), Vec::new());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        match first {
            b'\\' => {
                let digits = rest.get(..2).ok_or(FilterError::Syntax)?;
                let digit = |octet: u8| char::from(octet).to_digit(16).ok_or(FilterError::Syntax);
                let octet = (digit(digits[0])? << 4) | digit(digits[1])?;
                // Two hexadecimal digits are at most 255.
                literal.push(u8::try_from(octet).unwrap_or(u8::MAX));
                rest = &rest[2..];
            }
            b'%' => {
                let (letter, behind) = rest.split_first().ok_or(FilterError::Placeholder)?;
                rest = behind;
                let placeholder = match letter {
                    b'%' => {
                        literal.push(b'%');
                        continue;
                    }
                    b's' => ValuePart::Address,
                    b'u' => ValuePart::LocalPart,
                    b'd' => ValuePart::Domain,
                    _ => return Err(FilterError::Placeholder),
                };
                if !literal.is_empty() {
                    parts.push(ValuePart::Octets(std::mem::take(&mut literal)));
                }
                parts.push(placeholder);
            }
            b'\0' => return Err(FilterError::Syntax),
            octet => literal.push(*octet),
        }
    }
    if !literal.is_empty() {
        parts.push(ValuePart::Octets(literal));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the filter in BER, with everything that is printable as text.
    fn written(filter: &str, mailbox: &str) -> String {
        let filter = LdapFilter::parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
        let mut out = Vec::new();
        filter.write(&Mailbox::parse(mailbox).expect("a mailbox"), &mut out);
        out.escape_ascii().to_string()
    }

    #[test]
    fn filters_are_written_in_ber() {
        for (filter, wanted) in [
            ("(mail=%s)", r"\xa3\r\x04\x04mail\x04\x05a@c.d"),
            (" (mail=%u) ", r"\xa3\t\x04\x04mail\x04\x01a"),
            ("(m=%u\\2a%%%d)", r"\xa3\x0b\x04\x01m\x04\x06a*%c.d"),
            ("(m>=%s)", r"\xa5\n\x04\x01m\x04\x05a@c.d"),
            ("(m<=%s)", r"\xa6\n\x04\x01m\x04\x05a@c.d"),
            ("(m~=%s)", r"\xa8\n\x04\x01m\x04\x05a@c.d"),
            (
                "(m=x*%u*y)",
                r"\xa4\x0e\x04\x01m0\t\x80\x01x\x81\x01a\x82\x01y",
            ),
            ("(m=*%u)", r"\xa4\x08\x04\x01m0\x03\x82\x01a"),
            ("(m:1.2:=%u)", r"\xa9\x0b\x81\x031.2\x82\x01m\x83\x01a"),
            (
                "(&(mail=%s)(!(b=*)))",
                r"\xa0\x14\xa3\r\x04\x04mail\x04\x05a@c.d\xa2\x03\x87\x01b",
            ),
            (
                "(|(m=%u)(b=*))",
                r"\xa1\x0b\xa3\x06\x04\x01m\x04\x01a\x87\x01b",
            ),
        ] {
            assert_eq!(written(filter, "a@c.d"), wanted, "{filter}");
        }
    }

    /// Nothing in an address is read as a part of the filter: it stands as octets, with its length,
    /// in one value.
    #[test]
    fn an_address_cannot_change_the_filter() {
        for local in [
            "*",
            "a)(uid=*",
            "\"a\\*b\"",
            "\"*)(objectClass=*\"",
            "x%s",
            "a\\2a",
        ] {
            let Ok(mailbox) = Mailbox::parse(&format!("{local}@example.com")) else {
                continue;
            };
            let filter = LdapFilter::parse("(&(objectClass=person)(mail=%s))").expect("a filter");
            let (mut out, mut value) = (Vec::new(), Vec::new());
            filter.write(&mailbox, &mut out);
            ber::write(
                &mut value,
                ber::OCTET_STRING,
                mailbox.to_string().as_bytes(),
            );
            assert!(out.ends_with(&value), "{local}");
            let (_, list, rest) = ber::read(&out).expect("BER");
            let (class, equality) = ber::read_tag(list, 0xa3).expect("the first comparison");
            assert_eq!(class.len(), "objectClass".len() + "person".len() + 4);
            let (_, behind) = ber::read_tag(equality, 0xa3).expect("the second comparison");
            assert!(rest.is_empty() && behind.is_empty(), "{local}");
        }
    }

    #[test]
    fn other_texts_are_not_filters() {
        use FilterError::{Extensible, NoAddress, Placeholder, Syntax, TooDeep};
        let deep = format!("{}(mail=%s){}", "(!".repeat(16), ")".repeat(16));
        for (text, wanted) in [
            ("", Syntax),
            ("mail=%s", Syntax),
            ("(mail=%s", Syntax),
            ("(mail=%s))", Syntax),
            ("(mail=%s)(b=c)", Syntax),
            ("(mail%s)", Syntax),
            ("(=%s)", Syntax),
            ("(ma il=%s)", Syntax),
            ("(&)", Syntax),
            ("(mail=a**%s)", Syntax),
            ("(mail>=*%s)", Syntax),
            ("(mail=\\4)", Syntax),
            ("(mail=\\zz)", Syntax),
            ("(mail=%x)", Placeholder),
            ("(mail=%)", Placeholder),
            ("(mail=user)", NoAddress),
            ("(mail=%d)", NoAddress),
            ("(objectClass=*)", NoAddress),
            ("(a:dn:=%s)", Extensible),
            ("(:1.2:=%s)", Extensible),
            (deep.as_str(), TooDeep),
        ] {
            assert_eq!(LdapFilter::parse(text), Err(wanted), "{text}");
        }
    }
}
