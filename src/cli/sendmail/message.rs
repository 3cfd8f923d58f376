//! Completes a message from standard input: line ends, missing header fields (RFC 5322 §3.6), and
//! the recipients that the header names.

use std::io::{BufRead, ErrorKind};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::arguments::LoneDot;
use super::exit::{SendmailError, Sysexit};
use crate::smtp::address::Domain;
use crate::smtp::data::{ListFault, ListedAddress, addresses};

/// The maximum number of octets of a name in one encoded word, which may have 75 characters (RFC
/// 2047 §2).
const WORD_OCTETS: usize = 42;

/// Reads a message of at most `limit` octets with any line ends, and returns it with CR LF. A CR
/// that ends no line becomes a space, as in Postfix (`cleanup_replace_stray_cr_lf`): it must not be
/// sent (RFC 5321 §2.3.8), and must not begin a new line.
///
/// # Errors
/// The message is too large or cannot be read.
pub(super) fn read(
    input: impl BufRead,
    dots: LoneDot,
    limit: u64,
) -> Result<Vec<u8>, SendmailError> {
    let too_large = || {
        let message = format!(
            "the message is larger than {limit} octets, which is the limit ([limits] message_size)"
        );
        SendmailError::new(Sysexit::Data, message)
    };
    let mut input = input.take(limit.saturating_add(1));
    let (mut text, mut line) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        match input.read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(SendmailError::new(
                    Sysexit::Io,
                    format!("the message cannot be read: {error}"),
                ));
            }
        }
        // The last line may be incomplete here: a single dot would not be the end of the message.
        if input.limit() == 0 {
            return Err(too_large());
        }
        strip_line_end(&mut line);
        if dots == LoneDot::End && line == b"." {
            return if text.len() as u64 > limit {
                Err(too_large())
            } else {
                Ok(text)
            };
        }
        text.extend_from_slice(&line);
        text.extend_from_slice(b"\r\n");
        if text.len() as u64 > limit {
            return Err(too_large());
        }
    }
    Ok(text)
}

/// Removes the line end (LF, CR LF or CR CR LF) of a line, and replaces every other CR by a space.
pub(super) fn strip_line_end(line: &mut Vec<u8>) {
    if line.pop_if(|octet| *octet == b'\n').is_some() {
        while line.pop_if(|octet| *octet == b'\r').is_some() {}
    }
    line.iter_mut()
        .filter(|octet| **octet == b'\r')
        .for_each(|octet| *octet = b' ');
}

/// The values of header fields that are added if they are missing.
#[derive(Debug)]
pub(super) struct DefaultFields<'a> {
    /// The domain of addresses without one.
    pub(super) hostname: &'a Domain,
    /// The value of From.
    pub(super) from: String,
    /// The value of Date.
    pub(super) date: String,
    /// The value of Message-ID.
    pub(super) id: String,
}

/// A message that can be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CompletedMessage {
    pub(super) content: Vec<u8>,
    /// The recipients in To, Cc and Bcc, or in Resent-To, Resent-Cc and Resent-Bcc of a resent
    /// message (RFC 5322 §3.6.6); or the name of the first field that is rejected, with the reason.
    pub(super) recipients: Result<Vec<ListedAddress>, (String, ListFault)>,
}

/// Completes a message that has CR LF line ends. It removes Bcc, which the other recipients must
/// not see, and Return-Path, which only the last host may add (RFC 5321 §4.4). Addresses without a
/// domain get our hostname.
pub(super) fn complete(text: &[u8], defaults: &DefaultFields<'_>) -> CompletedMessage {
    let (fields, body) = split(text);
    let has = |name: &str| fields.iter().any(|field| field.is(name));
    let resent = fields.iter().any(|field| field.name.starts_with("resent-"));
    let mut content = Vec::with_capacity(text.len() + 256);
    for field in fields
        .iter()
        .filter(|field| !REMOVED.contains(&field.name.as_str()))
    {
        field.write_qualified(defaults.hostname, &mut content);
    }
    for prefix in if resent {
        &["", "Resent-"][..]
    } else {
        &[""][..]
    } {
        for (name, value) in [
            ("From", &defaults.from),
            ("Date", &defaults.date),
            ("Message-ID", &defaults.id),
        ] {
            let name = format!("{prefix}{name}");
            if !has(&name.to_ascii_lowercase()) {
                content.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
        }
    }
    content.extend_from_slice(b"\r\n");
    content.extend_from_slice(body);
    let names = if resent {
        ["resent-to", "resent-cc", "resent-bcc"]
    } else {
        ["to", "cc", "bcc"]
    };
    let recipient_fields = fields
        .iter()
        .filter(|field| names.contains(&field.name.as_str()));
    let parse = |field: &HeaderField<'_>| {
        addresses(field.value).map_err(|fault| (field.written_name(), fault))
    };
    let recipients = recipient_fields
        .map(parse)
        .collect::<Result<Vec<_>, _>>()
        .map(|lists| lists.concat());
    CompletedMessage {
        content,
        recipients,
    }
}

/// The header fields that are removed.
// Rule: RFC 5321 §4.4.
const REMOVED: [&str; 3] = ["bcc", "resent-bcc", "return-path"];
/// The header fields whose addresses get our hostname if they have no domain.
const ADDRESS_FIELDS: [&str; 10] = [
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "resent-from",
    "resent-sender",
    "resent-reply-to",
    "resent-to",
    "resent-cc",
];

/// A header field.
struct HeaderField<'a> {
    /// The name in lower case.
    name: String,
    value: &'a [u8],
    /// The whole field with its last CR LF.
    raw: &'a [u8],
}

impl HeaderField<'_> {
    fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// Returns the name as the message has it.
    fn written_name(&self) -> String {
        String::from_utf8_lossy(&self.raw[..self.name.len()]).into_owned()
    }

    /// Writes the field, with our hostname added to each address without a domain. A list that is
    /// rejected is written unchanged.
    fn write_qualified(&self, hostname: &Domain, content: &mut Vec<u8>) {
        let is_list = ADDRESS_FIELDS.contains(&self.name.as_str());
        let listed = if is_list {
            addresses(self.value).unwrap_or_default()
        } else {
            Vec::new()
        };
        let mut remaining = self.value;
        content.extend_from_slice(&self.raw[..self.raw.len() - remaining.len()]);
        let mut written = 0;
        for address in listed
            .iter()
            .filter(|address| !address.has_domain && !address.address.is_empty())
        {
            let (before, after) = remaining.split_at(address.end - written);
            content.extend_from_slice(before);
            content.extend_from_slice(format!("@{hostname}").as_bytes());
            (remaining, written) = (after, address.end);
        }
        content.extend_from_slice(remaining);
    }
}

/// Splits a message into header fields and body. The header ends with an empty line, which is in
/// neither part, or at the first line that is not a field.
fn split(text: &[u8]) -> (Vec<HeaderField<'_>>, &[u8]) {
    let mut rest = text;
    // The first line of a message in an mbox file is not a header field.
    if rest.starts_with(b"From ") || rest.starts_with(b">From ") {
        rest = &rest[line_end(rest)..];
    }
    let mut fields = Vec::new();
    loop {
        if let Some(body) = rest.strip_prefix(b"\r\n") {
            return (fields, body);
        }
        let Some(colon) = name_end(rest) else {
            return (fields, rest);
        };
        let mut end = line_end(rest);
        while matches!(rest.get(end), Some(b' ' | b'\t')) {
            end += line_end(&rest[end..]);
        }
        let name = String::from_utf8_lossy(&rest[..colon])
            .trim_end()
            .to_ascii_lowercase();
        fields.push(HeaderField {
            name,
            value: &rest[colon + 1..end],
            raw: &rest[..end],
        });
        rest = &rest[end..];
    }
}

/// Returns the offset of the next line.
fn line_end(text: &[u8]) -> usize {
    memchr::memchr(b'\n', text).map_or(text.len(), |at| at + 1)
}

/// Returns the offset of the colon after a field name; `None` if the line does not begin with a
/// field name (RFC 5322 §2.2).
fn name_end(line: &[u8]) -> Option<usize> {
    let colon = memchr::memchr(b':', &line[..line_end(line)])?;
    // Obsolete syntax has spaces and tabs before the colon, but no other white space (RFC 5322
    // §4.5).
    let name_octets = line[..colon]
        .iter()
        .rposition(|octet| !matches!(octet, b' ' | b'\t'))?
        + 1;
    line[..name_octets]
        .iter()
        .all(u8::is_ascii_graphic)
        .then_some(colon)
}

/// Returns the value of a From field: an address with a display name.
pub(super) fn named(name: Option<&str>, address: &str) -> String {
    // A line end would begin another field.
    let name = name
        .map(|name| name.replace(char::is_control, " "))
        .unwrap_or_default();
    let name = name.trim();
    if name.is_empty() {
        return address.to_owned();
    }
    if !name.is_ascii() {
        return format!("{} <{address}>", encoded(name));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || " !#$%&'*+-/=?^_`{|}~".contains(c);
    if name.chars().all(plain) {
        return format!("{name} <{address}>");
    }
    format!(
        "\"{}\" <{address}>",
        name.replace('\\', "\\\\").replace('"', "\\\"")
    )
}

/// Encodes a name as encoded words (RFC 2047), without splitting a character.
fn encoded(name: &str) -> String {
    let mut words = vec![String::new()];
    for c in name.chars() {
        match words.last_mut() {
            Some(word) if word.len() + c.len_utf8() <= WORD_OCTETS => word.push(c),
            _ => words.push(c.to_string()),
        }
    }
    let words: Vec<_> = words
        .iter()
        .map(|word| format!("=?utf-8?B?{}?=", STANDARD.encode(word)))
        .collect();
    words.join("\r\n ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(text: &str) -> CompletedMessage {
        let text = read(text.as_bytes(), LoneDot::Content, 4096).expect("it is small");
        let hostname = Domain::parse("relay.example.com").expect("a domain");
        let (from, date) = (
            "Alice <alice@relay.example.com>".into(),
            "Thu, 1 Jan 1970 00:00:00 +0000".into(),
        );
        super::complete(
            &text,
            &DefaultFields {
                hostname: &hostname,
                from,
                date,
                id: "<1@relay.example.com>".into(),
            },
        )
    }

    fn completed(text: &str) -> (String, Vec<String>) {
        let CompletedMessage {
            content,
            recipients,
        } = complete(text);
        let recipients = recipients
            .expect("lists")
            .into_iter()
            .map(|found| found.address)
            .collect();
        (String::from_utf8(content).expect("UTF-8"), recipients)
    }

    #[test]
    fn a_dot_at_the_size_limit_does_not_end_the_message() {
        // The reader stops one octet after the limit, which is the dot of ".com".
        let text = "aaaa\r\nbb\r\n.com and more\r\n";
        assert!(
            read(text.as_bytes(), LoneDot::End, 10).is_err(),
            "a part of a message was accepted as the whole"
        );
    }

    #[test]
    fn every_line_end_becomes_cr_lf() {
        let read = |text: &str, dots| {
            read(text.as_bytes(), dots, 4096).map(|text| String::from_utf8(text).expect("UTF-8"))
        };
        assert_eq!(
            read("a\nb\r\nc\rd", LoneDot::Content).expect("small"),
            "a\r\nb\r\nc d\r\n"
        );
        assert_eq!(
            read("a\r\r\nb\n", LoneDot::Content).expect("small"),
            "a\r\nb\r\n"
        );
        assert_eq!(
            read("a\r.\rb\n\r\n", LoneDot::End).expect("small"),
            "a . b\r\n\r\n"
        );
        assert_eq!(read("a\n.\nb\n", LoneDot::End).expect("small"), "a\r\n");
        assert_eq!(
            read("a\n.\nb\n", LoneDot::Content).expect("small"),
            "a\r\n.\r\nb\r\n"
        );
        assert_eq!(read("", LoneDot::End).expect("small"), "");
    }

    #[test]
    fn a_message_over_the_limit_is_rejected() {
        let endless = std::io::BufReader::new(std::io::repeat(b'x'));
        assert_eq!(
            read(endless, LoneDot::End, 1000)
                .expect_err("too large")
                .status,
            Sysexit::Data
        );
        // With CR LF it is over the limit.
        assert_eq!(
            read(&b"a\nb\nc\n"[..], LoneDot::End, 6)
                .expect_err("too large")
                .status,
            Sysexit::Data
        );
        assert_eq!(
            read(&b"a\nb\n"[..], LoneDot::End, 6).expect("it fits"),
            b"a\r\nb\r\n"
        );
    }

    #[test]
    fn only_missing_fields_are_added() {
        let (content, _) = completed("Subject: hello\n\nbody\n");
        assert_eq!(
            content,
            "Subject: hello\r\nFrom: Alice <alice@relay.example.com>\r\nDate: Thu, 1 Jan 1970 00:00:00 +0000\r\n\
             Message-ID: <1@relay.example.com>\r\n\r\nbody\r\n"
        );
        let whole = "from: b@x.example\nDATE: now\nMessage-Id: <x@y>\n\nbody\n";
        assert_eq!(completed(whole).0, whole.replace('\n', "\r\n"));
        let (resent, _) = completed(
            "From: b@x.example\nDate: now\nMessage-ID: <x@y>\nResent-From: c@x.example\n\n",
        );
        assert!(
            resent.contains("Resent-Date: Thu") && resent.contains("Resent-Message-ID: <1@"),
            "{resent}"
        );
        assert_eq!(resent.matches("Resent-From").count(), 1);
    }

    #[test]
    fn text_without_a_header_is_a_body() {
        let (content, recipients) = completed("hello there\nTo: nobody@x.example\n");
        assert!(
            content.ends_with("\r\n\r\nhello there\r\nTo: nobody@x.example\r\n"),
            "{content}"
        );
        assert_eq!(recipients, Vec::<String>::new());
        // A name with a form feed is not a field name, so the body begins here.
        let (content, recipients) = completed("Subject\u{c}: x\nTo: nobody@x.example\n");
        assert!(
            content.ends_with("\r\n\r\nSubject\u{c}: x\r\nTo: nobody@x.example\r\n"),
            "{content}"
        );
        assert_eq!(recipients, Vec::<String>::new());
        assert!(
            completed("From alice Thu Jan 1\nSubject: x\n\n")
                .0
                .starts_with("Subject: x\r\n")
        );
        assert!(completed("").0.starts_with("From: Alice"));
    }

    #[test]
    fn recipients_are_read_from_the_header_and_bcc_is_removed() {
        let text = "To: a@x.example,\n B <b@x.example>\nCc: c@x.example\nBcc: secret@x.example,\n\tdeeper@x.example\n\nTo: d@x.example\n";
        let (content, recipients) = completed(text);
        assert_eq!(
            recipients,
            [
                "a@x.example",
                "b@x.example",
                "c@x.example",
                "secret@x.example",
                "deeper@x.example"
            ]
        );
        assert!(
            !content.contains("secret") && !content.contains("deeper") && !content.contains("Bcc"),
            "{content}"
        );
        let (content, resent) =
            completed("To: a@x.example\nResent-To: r@x.example\nResent-Bcc: s@x.example\n\n");
        assert_eq!(resent, ["r@x.example", "s@x.example"]);
        assert!(!content.contains("s@x.example"), "{content}");
    }

    #[test]
    fn a_stray_cr_in_a_header_is_no_line_end() {
        let (content, recipients) = completed(
            "To: a@x.example\nSubject: hi\rBcc: victim@x.example\nX-Note: a\r\rb\r\r\nFrom: b@x.example\n\nbody\n",
        );
        assert_eq!(recipients, ["a@x.example"]);
        for field in [
            "\r\nSubject: hi Bcc: victim@x.example\r\n",
            "\r\nX-Note: a  b\r\nFrom: b@x.example\r\n",
        ] {
            assert!(
                content.contains(field),
                "{field:?} is missing from {content:?}"
            );
        }
    }

    #[test]
    fn an_address_without_a_domain_gets_our_hostname() {
        let (content, recipients) = completed(
            "From: root (Cron Daemon)\nTO: root, Bob <bob>,\n b@x.example, \"a b\"\nReply-To: Group: carl;\nSender:ann\n\
             X-To: root\nMessage-ID: none\nDate: now\nSubject: root\n\nTo: root\n",
        );
        assert_eq!(
            content,
            "From: root@relay.example.com (Cron Daemon)\r\nTO: root@relay.example.com, Bob \
             <bob@relay.example.com>,\r\n b@x.example, \"a b\"@relay.example.com\r\nReply-To: Group: \
             carl@relay.example.com;\r\nSender:ann@relay.example.com\r\nX-To: root\r\nMessage-ID: none\r\nDate: \
             now\r\nSubject: root\r\n\r\nTo: root\r\n"
        );
        assert_eq!(recipients, ["root", "bob", "b@x.example", "\"a b\""]);
        // A field with an error is written unchanged and names no recipient.
        let message = complete(
            "From: My Program\nTo: a@x.example\nCc : Bob <bob, Alice <alice@x.example>\n\n",
        );
        let content = String::from_utf8(message.content).expect("UTF-8");
        assert!(
            content.contains("From: My Program\r\n") && content.contains("Cc : Bob <bob, Alice"),
            "{content}"
        );
        assert_eq!(message.recipients.expect_err("a fault").0, "Cc");
    }

    #[test]
    fn a_return_path_is_removed() {
        let (content, _) = completed(
            "Return-Path: <a@x.example>\nSubject: x\nreturn-path:\n <b@x.example>\n\nReturn-Path: c\n",
        );
        assert!(content.starts_with("Subject: x\r\nFrom: "), "{content}");
        assert!(content.ends_with("\r\n\r\nReturn-Path: c\r\n"), "{content}");
    }

    #[test]
    fn a_name_cannot_add_another_field() {
        assert_eq!(named(Some("Alice Doe"), "a@x"), "Alice Doe <a@x>");
        assert_eq!(named(Some("Doe, \"A\""), "a@x"), "\"Doe, \\\"A\\\"\" <a@x>");
        assert_eq!(named(Some("x\r\nBcc: y"), "a@x"), "\"x  Bcc: y\" <a@x>");
        assert_eq!(named(Some(" "), "a@x"), "a@x");
        assert_eq!(
            named(Some("J\u{fc}rgen"), "a@x"),
            "=?utf-8?B?SsO8cmdlbg==?= <a@x>"
        );
        let long = named(Some(&"\u{fc}".repeat(60)), "a@x");
        assert!(
            long.is_ascii() && long.split("\r\n ").all(|word| word.len() <= 75 + 6),
            "{long}"
        );
    }
}
