//! MAIL and RCPT: the path and its parameters (RFC 5321 §4.1.1.2, §4.1.1.3, §4.1.2).

use super::{CommandError, MailFrom, RcptTo};
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::envelope::{BodyType, Notify, Ret};

/// The longest ENVID in characters (RFC 3461 §4.4).
const ENVID_MAX: usize = 100;
/// The longest ORCPT in characters (RFC 3461 §4.2).
const ORCPT_MAX: usize = 500;
/// The longest value of AUTH in characters (RFC 4954 §3).
const AUTH_MAX: usize = 500;

const MAIL: CommandError = CommandError::Syntax("MAIL FROM:<address> [parameters]");
const RCPT: CommandError = CommandError::Syntax("RCPT TO:<address> [parameters]");

/// Parses the arguments of MAIL.
// Rule: RFC 4954 §5; RFC 8689 §2.
pub(super) fn parse_mail(arguments: &str) -> Result<MailFrom, CommandError> {
    let (path, parameters) = split_path(arguments, "FROM:").ok_or(MAIL)?;
    let reverse_path = ReversePath::parse(path).map_err(CommandError::Sender)?;
    let (mut size, mut body, mut smtputf8, mut ret, mut envid) = (None, None, None, None, None);
    let (mut require_tls, mut auth) = (None, None);
    for (keyword, value) in split_parameters(parameters) {
        match keyword.to_ascii_uppercase().as_str() {
            "SIZE" => set_once(
                &mut size,
                "SIZE",
                value
                    .map(parse_size)
                    .ok_or(CommandError::BadParameter("SIZE"))??,
            )?,
            "BODY" => {
                set_once(
                    &mut body,
                    "BODY",
                    value
                        .and_then(parse_body)
                        .ok_or(CommandError::BadParameter("BODY"))?,
                )?;
            }
            "SMTPUTF8" if value.is_none() => set_once(&mut smtputf8, "SMTPUTF8", ())?,
            "SMTPUTF8" => return Err(CommandError::BadParameter("SMTPUTF8")),
            "REQUIRETLS" if value.is_none() => set_once(&mut require_tls, "REQUIRETLS", ())?,
            "REQUIRETLS" => return Err(CommandError::BadParameter("REQUIRETLS")),
            "AUTH" => {
                let value = value.filter(|value| value.len() <= AUTH_MAX && is_xtext(value));
                set_once(
                    &mut auth,
                    "AUTH",
                    value
                        .map(|_| ())
                        .ok_or(CommandError::BadParameter("AUTH"))?,
                )?;
            }
            "RET" => set_once(
                &mut ret,
                "RET",
                value
                    .and_then(parse_ret)
                    .ok_or(CommandError::BadParameter("RET"))?,
            )?,
            "ENVID" => {
                let value = value.filter(|value| value.len() <= ENVID_MAX && is_xtext(value));
                set_once(
                    &mut envid,
                    "ENVID",
                    value.ok_or(CommandError::BadParameter("ENVID"))?.to_owned(),
                )?;
            }
            _ => return Err(unknown_parameter(keyword)),
        }
    }
    if smtputf8.is_none() && !path.is_ascii() {
        return Err(CommandError::NeedsSmtpUtf8);
    }
    Ok(MailFrom {
        reverse_path,
        size,
        body: body.unwrap_or_default(),
        smtputf8: smtputf8.is_some(),
        ret,
        envid,
        require_tls: require_tls.is_some(),
        auth: auth.is_some(),
    })
}

/// Parses the arguments of RCPT.
pub(super) fn parse_rcpt(arguments: &str) -> Result<RcptTo, CommandError> {
    let (path, parameters) = split_path(arguments, "TO:").ok_or(RCPT)?;
    let forward_path = ForwardPath::parse(path).map_err(CommandError::Recipient)?;
    let (mut notify, mut orcpt) = (None, None);
    for (keyword, value) in split_parameters(parameters) {
        match keyword.to_ascii_uppercase().as_str() {
            "NOTIFY" => {
                set_once(
                    &mut notify,
                    "NOTIFY",
                    value
                        .and_then(parse_notify)
                        .ok_or(CommandError::BadParameter("NOTIFY"))?,
                )?;
            }
            "ORCPT" => {
                let value = value.filter(|value| value.len() <= ORCPT_MAX && is_orcpt(value));
                set_once(
                    &mut orcpt,
                    "ORCPT",
                    value.ok_or(CommandError::BadParameter("ORCPT"))?.to_owned(),
                )?;
            }
            _ => return Err(unknown_parameter(keyword)),
        }
    }
    Ok(RcptTo {
        forward_path,
        notify,
        orcpt,
        utf8: !arguments.is_ascii(),
    })
}

/// Splits `FROM:<path> parameters`. RFC 5321 has no spaces before the path, and no address without
/// angle brackets, but devices send both and Postfix and Exchange accept them. They have only one
/// possible meaning.
fn split_path<'a>(arguments: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    let arguments = arguments.trim_start_matches(' ');
    let head = arguments
        .get(..prefix.len())
        .filter(|head| head.eq_ignore_ascii_case(prefix))?;
    let rest = arguments[head.len()..].trim_start_matches(' ');
    let Some(rest) = rest.strip_prefix('<') else {
        let end = end_of_path(rest, b' ').unwrap_or(rest.len());
        return Some(rest.split_at(end)).filter(|(path, _)| !path.is_empty());
    };
    let end = end_of_path(rest, b'>')?;
    match &rest[end + 1..] {
        "" => Some((&rest[..end], "")),
        more => more
            .strip_prefix(' ')
            .map(|parameters| (&rest[..end], parameters)),
    }
}

/// Returns the offset of the octet that ends a path. Inside quotes, that octet is part of the path.
fn end_of_path(text: &str, end: u8) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    text.bytes().position(|octet| {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            octet if octet == end && !quoted => return true,
            _ => {}
        }
        false
    })
}

/// Returns each parameter with its keyword and optional value. They may be separated by more than
/// one space.
fn split_parameters(parameters: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let words = parameters.split(' ').filter(|word| !word.is_empty());
    words.map(|word| {
        word.split_once('=')
            .map_or((word, None), |(keyword, value)| (keyword, Some(value)))
    })
}

/// Stores the value of a parameter, which may occur only once.
fn set_once<T>(slot: &mut Option<T>, keyword: &'static str, value: T) -> Result<(), CommandError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(CommandError::DuplicateParameter(keyword)),
    }
}

/// Returns the error for an unknown parameter. It quotes no more than 40 characters of the keyword.
// Rule: RFC 5321 §4.1.1, §4.1.1.11.
fn unknown_parameter(keyword: &str) -> CommandError {
    CommandError::UnknownParameter(keyword.chars().take(40).collect())
}

/// Parses a number that consists of digits alone; `parse` would accept a "+" too.
pub(super) fn parse_number(text: &str) -> Option<u64> {
    if text.bytes().all(|octet| octet.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

/// Parses the value of SIZE.
fn parse_size(value: &str) -> Result<u64, CommandError> {
    if value.is_empty() || !value.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(CommandError::BadParameter("SIZE"));
    }
    // All are digits, so a number that does not parse is too large.
    value.parse().map_err(|_| CommandError::SizeOverflow)
}

fn parse_body(value: &str) -> Option<BodyType> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Some(BodyType::SevenBit),
        "8BITMIME" => Some(BodyType::EightBitMime),
        _ => None,
    }
}

fn parse_ret(value: &str) -> Option<Ret> {
    match value.to_ascii_uppercase().as_str() {
        "FULL" => Some(Ret::Full),
        "HDRS" => Some(Ret::Hdrs),
        _ => None,
    }
}

/// Parses the value of NOTIFY: `NEVER` alone, or a list of the others (RFC 3461 §4.1).
fn parse_notify(value: &str) -> Option<Notify> {
    if value.eq_ignore_ascii_case("NEVER") {
        return Some(Notify::Never);
    }
    let (mut success, mut failure, mut delay) = (false, false, false);
    for word in value.split(',') {
        match word.to_ascii_uppercase().as_str() {
            "SUCCESS" => success = true,
            "FAILURE" => failure = true,
            "DELAY" => delay = true,
            _ => return None,
        }
    }
    Some(Notify::On {
        success,
        failure,
        delay,
    })
}

/// Returns true for xtext that is not empty and decodes to printable ASCII (RFC 3461 §4). A
/// "+0D+0A" would end a line in a report.
fn is_xtext(value: &str) -> bool {
    let octets = value.as_bytes();
    let mut at = 0;
    while let Some(octet) = octets.get(at) {
        match octet {
            b'+' => match octets.get(at + 1..at + 3).and_then(parse_hex) {
                Some(b' '..=b'~') => at += 3,
                _ => return false,
            },
            b'=' => return false,
            b'!'..=b'~' => at += 1,
            _ => return false,
        }
    }
    !value.is_empty()
}

/// Parses the two hexadecimal digits of an xtext escape. RFC 3461 §4 has upper-case letters only,
/// but some clients send lower-case ones.
pub(super) fn parse_hex(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0_u8, |sum, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'A'..=b'F' => digit - b'A' + 10,
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some((sum << 4) | value)
    })
}

/// Returns true for `rfc822;xtext` and similar (RFC 3461 §4.2). With `utf-8;`, characters outside
/// ASCII are allowed too (RFC 6533 §3).
fn is_orcpt(value: &str) -> bool {
    let Some((kind, address)) = value.split_once(';') else {
        return false;
    };
    let is_atom = !kind.is_empty()
        && kind
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
    if kind.eq_ignore_ascii_case("utf-8") {
        let ascii: String = address
            .chars()
            .map(|c| if c.is_ascii() { c } else { 'x' })
            .collect();
        return is_xtext(&ascii);
    }
    is_atom && is_xtext(address)
}
