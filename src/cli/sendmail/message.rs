//! A message from standard input, made into one that can be sent: line ends, the header fields that every
//! message must have (RFC 5322 §3.6), and the recipients that its header names.

use std::io::{BufRead, ErrorKind};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::arguments::Dots;
use super::exit::{Sysexit, Unsent};
use super::list::{Found, ListFault, addresses};
use crate::address::Domain;

/// Octets of a name in one encoded word, at most: 75 with everything around it (RFC 2047 §2).
const WORD_OCTETS: usize = 42;

/// Reads a message of at most `limit` octets, whatever its line ends are. A CR that ends no line becomes a space, as in
/// Postfix (`cleanup_replace_stray_cr_lf`): it may not travel (RFC 5321 §2.3.8), and must not make a line of its own.
///
/// # Errors
/// It is too large, or cannot be read.
pub(super) fn read(input: impl BufRead, dots: Dots, limit: u64) -> Result<Vec<u8>, Unsent> {
    let too_large = || {
        let message = format!("the message is larger than {limit} octets, which is the limit ([limits] message_size)");
        Unsent::new(Sysexit::Data, message)
    };
    let mut input = input.take(limit.saturating_add(1));
    let (mut text, mut line) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        match input.read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(Unsent::new(Sysexit::Io, format!("the message cannot be read: {error}"))),
        }
        // What is cut off here is neither a line nor the dot that ends a message.
        if input.limit() == 0 {
            return Err(too_large());
        }
        strip_line_end(&mut line);
        if dots == Dots::End && line == b"." {
            return if text.len() as u64 > limit { Err(too_large()) } else { Ok(text) };
        }
        text.extend_from_slice(&line);
        text.extend_from_slice(b"\r\n");
        if text.len() as u64 > limit {
            return Err(too_large());
        }
    }
    Ok(text)
}

/// Takes the line end from a line, be it LF, CR LF or CR CR LF, and makes every other CR a space.
pub(super) fn strip_line_end(line: &mut Vec<u8>) {
    if line.pop_if(|octet| *octet == b'\n').is_some() {
        while line.pop_if(|octet| *octet == b'\r').is_some() {}
    }
    line.iter_mut().filter(|octet| **octet == b'\r').for_each(|octet| *octet = b' ');
}

/// What is put in where it is missing.
#[derive(Debug)]
pub(super) struct Missing<'a> {
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
pub(super) struct Message {
    pub(super) content: Vec<u8>,
    /// The recipients that its header names: To, Cc and Bcc, or Resent-To and so on where it is resent (RFC 5322
    /// §3.6.6); else the field that cannot be read, and the reason.
    pub(super) recipients: Result<Vec<Found>, (String, ListFault)>,
}

/// Completes a message with CRLF line ends. Bcc is removed, for nobody else may know who is named there, and so is
/// Return-Path, which the last host writes (RFC 5321 §4.4). Addresses without a domain get ours.
pub(super) fn complete(text: &[u8], missing: &Missing<'_>) -> Message {
    let (fields, body) = split(text);
    let has = |name: &str| fields.iter().any(|field| field.is(name));
    let resent = fields.iter().any(|field| field.name.starts_with("resent-"));
    let mut content = Vec::with_capacity(text.len() + 256);
    for field in fields.iter().filter(|field| !REMOVED.contains(&field.name.as_str())) {
        field.write_qualified(missing.hostname, &mut content);
    }
    for prefix in if resent { &["", "Resent-"][..] } else { &[""][..] } {
        for (name, value) in [("From", &missing.from), ("Date", &missing.date), ("Message-ID", &missing.id)] {
            let name = format!("{prefix}{name}");
            if !has(&name.to_ascii_lowercase()) {
                content.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
        }
    }
    content.extend_from_slice(b"\r\n");
    content.extend_from_slice(body);
    let naming = if resent { ["resent-to", "resent-cc", "resent-bcc"] } else { ["to", "cc", "bcc"] };
    let naming = fields.iter().filter(|field| naming.contains(&field.name.as_str()));
    let read = |field: &Field<'_>| addresses(field.value).map_err(|fault| (field.written_name(), fault));
    let recipients = naming.map(read).collect::<Result<Vec<_>, _>>().map(|lists| lists.concat());
    Message { content, recipients }
}

/// Fields that do not leave.
const REMOVED: [&str; 3] = ["bcc", "resent-bcc", "return-path"];
/// Fields whose addresses get a domain where they have none.
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

/// One header field.
struct Field<'a> {
    /// In lower case.
    name: String,
    value: &'a [u8],
    /// Everything, its last CRLF included.
    whole: &'a [u8],
}

impl Field<'_> {
    fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// The name as it is written.
    fn written_name(&self) -> String {
        String::from_utf8_lossy(&self.whole[..self.name.len()]).into_owned()
    }

    /// Writes the field, with our domain behind each address that has none. A list that cannot be read is left alone.
    fn write_qualified(&self, hostname: &Domain, content: &mut Vec<u8>) {
        let found = if ADDRESS_FIELDS.contains(&self.name.as_str()) { addresses(self.value) } else { Ok(Vec::new()) };
        let mut rest = self.value;
        content.extend_from_slice(&self.whole[..self.whole.len() - rest.len()]);
        let mut written = 0;
        for bare in found.unwrap_or_default().iter().filter(|found| !found.has_domain && !found.address.is_empty()) {
            let (before, behind) = rest.split_at(bare.end - written);
            content.extend_from_slice(before);
            content.extend_from_slice(format!("@{hostname}").as_bytes());
            (rest, written) = (behind, bare.end);
        }
        content.extend_from_slice(rest);
    }
}

/// Header and body. The header ends with an empty line, which belongs to neither, or where a line is no field.
fn split(text: &[u8]) -> (Vec<Field<'_>>, &[u8]) {
    let mut rest = text;
    // The envelope of an mbox file is no header field.
    if rest.starts_with(b"From ") || rest.starts_with(b">From ") {
        rest = &rest[line_end(rest)..];
    }
    let mut fields = Vec::new();
    loop {
        if let Some(body) = rest.strip_prefix(b"\r\n") {
            return (fields, body);
        }
        let Some(colon) = name_end(rest) else { return (fields, rest) };
        let mut end = line_end(rest);
        while matches!(rest.get(end), Some(b' ' | b'\t')) {
            end += line_end(&rest[end..]);
        }
        let name = String::from_utf8_lossy(&rest[..colon]).trim_end().to_ascii_lowercase();
        fields.push(Field { name, value: &rest[colon + 1..end], whole: &rest[..end] });
        rest = &rest[end..];
    }
}

/// Where the next line begins.
fn line_end(text: &[u8]) -> usize {
    memchr::memchr(b'\n', text).map_or(text.len(), |at| at + 1)
}

/// Where the colon behind a field's name stands, if the line begins with one (RFC 5322 §2.2).
fn name_end(line: &[u8]) -> Option<usize> {
    let colon = memchr::memchr(b':', &line[..line_end(line)])?;
    // Old mail may have blanks before the colon (RFC 5322 §4.5), and no other white space.
    let name_octets = line[..colon].iter().rposition(|octet| !matches!(octet, b' ' | b'\t'))? + 1;
    line[..name_octets].iter().all(u8::is_ascii_graphic).then_some(colon)
}

/// A mailbox with a name before it, as From has it.
pub(super) fn named(name: Option<&str>, address: &str) -> String {
    // A control character would end the field.
    let name = name.map(|name| name.replace(char::is_control, " ")).unwrap_or_default();
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
    format!("\"{}\" <{address}>", name.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Encoded words (RFC 2047), each with whole characters.
fn encoded(name: &str) -> String {
    let mut words = vec![String::new()];
    for c in name.chars() {
        match words.last_mut() {
            Some(word) if word.len() + c.len_utf8() <= WORD_OCTETS => word.push(c),
            _ => words.push(c.to_string()),
        }
    }
    let words: Vec<_> = words.iter().map(|word| format!("=?utf-8?B?{}?=", STANDARD.encode(word))).collect();
    words.join("\r\n ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(text: &str) -> Message {
        let text = read(text.as_bytes(), Dots::Content, 4096).expect("it is small");
        let hostname = Domain::parse("relay.example.com").expect("a domain");
        let (from, date) = ("Alice <alice@relay.example.com>".into(), "Thu, 1 Jan 1970 00:00:00 +0000".into());
        super::complete(&text, &Missing { hostname: &hostname, from, date, id: "<1@relay.example.com>".into() })
    }

    fn completed(text: &str) -> (String, Vec<String>) {
        let Message { content, recipients } = complete(text);
        let recipients = recipients.expect("lists").into_iter().map(|found| found.address).collect();
        (String::from_utf8(content).expect("UTF-8"), recipients)
    }

    #[test]
    fn a_dot_where_the_input_is_cut_off_ends_no_message() {
        // The limit and one octet are read: the last of them is the dot of ".com".
        let text = "aaaa\r\nbb\r\n.com and more\r\n";
        assert!(read(text.as_bytes(), Dots::End, 10).is_err(), "half a message was taken for a whole one");
    }

    #[test]
    fn every_line_end_becomes_the_one_that_travels() {
        let read =
            |text: &str, dots| read(text.as_bytes(), dots, 4096).map(|text| String::from_utf8(text).expect("UTF-8"));
        assert_eq!(read("a\nb\r\nc\rd", Dots::Content).expect("small"), "a\r\nb\r\nc d\r\n");
        assert_eq!(read("a\r\r\nb\n", Dots::Content).expect("small"), "a\r\nb\r\n");
        assert_eq!(read("a\r.\rb\n\r\n", Dots::End).expect("small"), "a . b\r\n\r\n");
        assert_eq!(read("a\n.\nb\n", Dots::End).expect("small"), "a\r\n");
        assert_eq!(read("a\n.\nb\n", Dots::Content).expect("small"), "a\r\n.\r\nb\r\n");
        assert_eq!(read("", Dots::End).expect("small"), "");
    }

    #[test]
    fn what_is_too_large_is_refused_and_not_kept() {
        let endless = std::io::BufReader::new(std::io::repeat(b'x'));
        assert_eq!(read(endless, Dots::End, 1000).expect_err("too large").status, Sysexit::Data);
        // With its line ends it is over the limit.
        assert_eq!(read(&b"a\nb\nc\n"[..], Dots::End, 6).expect_err("too large").status, Sysexit::Data);
        assert_eq!(read(&b"a\nb\n"[..], Dots::End, 6).expect("it fits"), b"a\r\nb\r\n");
    }

    #[test]
    fn what_is_missing_is_put_in_and_what_is_there_stays() {
        let (content, _) = completed("Subject: hello\n\nbody\n");
        assert_eq!(
            content,
            "Subject: hello\r\nFrom: Alice <alice@relay.example.com>\r\nDate: Thu, 1 Jan 1970 00:00:00 +0000\r\n\
             Message-ID: <1@relay.example.com>\r\n\r\nbody\r\n"
        );
        let whole = "from: b@x.example\nDATE: now\nMessage-Id: <x@y>\n\nbody\n";
        assert_eq!(completed(whole).0, whole.replace('\n', "\r\n"));
        let (resent, _) = completed("From: b@x.example\nDate: now\nMessage-ID: <x@y>\nResent-From: c@x.example\n\n");
        assert!(resent.contains("Resent-Date: Thu") && resent.contains("Resent-Message-ID: <1@"), "{resent}");
        assert_eq!(resent.matches("Resent-From").count(), 1);
    }

    #[test]
    fn text_without_a_header_is_a_body() {
        let (content, recipients) = completed("hello there\nTo: nobody@x.example\n");
        assert!(content.ends_with("\r\n\r\nhello there\r\nTo: nobody@x.example\r\n"), "{content}");
        assert_eq!(recipients, Vec::<String>::new());
        // No server reads a field there, and what follows is its body.
        let (content, recipients) = completed("Subject\u{c}: x\nTo: nobody@x.example\n");
        assert!(content.ends_with("\r\n\r\nSubject\u{c}: x\r\nTo: nobody@x.example\r\n"), "{content}");
        assert_eq!(recipients, Vec::<String>::new());
        assert!(completed("From alice Thu Jan 1\nSubject: x\n\n").0.starts_with("Subject: x\r\n"));
        assert!(completed("").0.starts_with("From: Alice"));
    }

    #[test]
    fn recipients_are_found_and_bcc_does_not_travel() {
        let text = "To: a@x.example,\n B <b@x.example>\nCc: c@x.example\nBcc: secret@x.example,\n\tdeeper@x.example\n\nTo: d@x.example\n";
        let (content, recipients) = completed(text);
        assert_eq!(recipients, ["a@x.example", "b@x.example", "c@x.example", "secret@x.example", "deeper@x.example"]);
        assert!(!content.contains("secret") && !content.contains("deeper") && !content.contains("Bcc"), "{content}");
        let (content, resent) = completed("To: a@x.example\nResent-To: r@x.example\nResent-Bcc: s@x.example\n\n");
        assert_eq!(resent, ["r@x.example", "s@x.example"]);
        assert!(!content.contains("s@x.example"), "{content}");
    }

    #[test]
    fn a_cr_in_a_header_is_no_line_end() {
        let (content, recipients) = completed(
            "To: a@x.example\nSubject: hi\rBcc: victim@x.example\nX-Note: a\r\rb\r\r\nFrom: b@x.example\n\nbody\n",
        );
        assert_eq!(recipients, ["a@x.example"]);
        for field in ["\r\nSubject: hi Bcc: victim@x.example\r\n", "\r\nX-Note: a  b\r\nFrom: b@x.example\r\n"] {
            assert!(content.contains(field), "{field:?} is missing from {content:?}");
        }
    }

    #[test]
    fn an_address_without_a_domain_gets_ours() {
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
        // What is no list is nobody's to mend, and names no recipient.
        let message = complete("From: My Program\nTo: a@x.example\nCc : Bob <bob, Alice <alice@x.example>\n\n");
        let content = String::from_utf8(message.content).expect("UTF-8");
        assert!(content.contains("From: My Program\r\n") && content.contains("Cc : Bob <bob, Alice"), "{content}");
        assert_eq!(message.recipients.expect_err("a fault").0, "Cc");
    }

    #[test]
    fn a_return_path_is_removed() {
        let (content, _) =
            completed("Return-Path: <a@x.example>\nSubject: x\nreturn-path:\n <b@x.example>\n\nReturn-Path: c\n");
        assert!(content.starts_with("Subject: x\r\nFrom: "), "{content}");
        assert!(content.ends_with("\r\n\r\nReturn-Path: c\r\n"), "{content}");
    }

    #[test]
    fn a_name_cannot_write_another_field() {
        assert_eq!(named(Some("Alice Doe"), "a@x"), "Alice Doe <a@x>");
        assert_eq!(named(Some("Doe, \"A\""), "a@x"), "\"Doe, \\\"A\\\"\" <a@x>");
        assert_eq!(named(Some("x\r\nBcc: y"), "a@x"), "\"x  Bcc: y\" <a@x>");
        assert_eq!(named(Some(" "), "a@x"), "a@x");
        assert_eq!(named(Some("J\u{fc}rgen"), "a@x"), "=?utf-8?B?SsO8cmdlbg==?= <a@x>");
        let long = named(Some(&"\u{fc}".repeat(60)), "a@x");
        assert!(long.is_ascii() && long.split("\r\n ").all(|word| word.len() <= 75 + 6), "{long}");
    }
}
