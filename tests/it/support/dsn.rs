//! Reads a report as RFC 3464 and RFC 6522 want it written, and accepts nothing else.

use std::str::FromStr as _;

use jiff::fmt::rfc2822;

/// A report that keeps to the rules.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) header: Fields,
    /// The part for people, unfolded: one paragraph, one line.
    pub(crate) text: String,
    /// The fields about the message.
    pub(crate) message: Fields,
    /// The fields about each recipient.
    pub(crate) recipients: Vec<Fields>,
    /// `message/delivery-status`, or its sibling for addresses beyond ASCII.
    pub(crate) kind: String,
    /// The content type of what is returned, and that.
    pub(crate) returned: (String, String),
    /// All of it.
    pub(crate) whole: String,
}

/// Header fields, unfolded, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Reads fields; returns what comes after the blank line behind them.
    fn read(text: &str) -> (Self, &str) {
        let (mut fields, mut rest) = (Vec::<(String, String)>::new(), text);
        loop {
            let (line, more) = rest.split_once("\r\n").unwrap_or((rest, ""));
            rest = more;
            if line.is_empty() {
                return (Self(fields), rest);
            }
            if line.starts_with([' ', '\t']) {
                assert!(!line.trim().is_empty(), "a line of white space alone");
                let last = fields
                    .last_mut()
                    .unwrap_or_else(|| panic!("{line:?} continues nothing"));
                last.1 = format!("{} {}", last.1, line.trim_start());
                continue;
            }
            let (name, value) = line
                .split_once(": ")
                .unwrap_or_else(|| panic!("{line:?} is no field"));
            assert!(
                name.bytes()
                    .all(|octet| octet.is_ascii_alphanumeric() || octet == b'-'),
                "{line:?} is no field"
            );
            fields.push((name.to_owned(), value.to_owned()));
        }
    }

    /// The one field of this name, where there is one.
    pub(crate) fn find(&self, name: &str) -> Option<&str> {
        let mut found = self
            .0
            .iter()
            .filter(|field| field.0.eq_ignore_ascii_case(name));
        let first = found.next();
        assert!(found.next().is_none(), "{name} stands twice in {self:?}");
        first.map(|field| field.1.as_str())
    }

    pub(crate) fn get(&self, name: &str) -> &str {
        self.find(name)
            .unwrap_or_else(|| panic!("there is no {name} in {self:?}"))
    }

    /// Returns the text after `kind;`.
    fn typed(&self, name: &str, kinds: &[&str]) -> Option<&str> {
        let value = self.find(name)?;
        let (kind, rest) = value
            .split_once("; ")
            .unwrap_or_else(|| panic!("{name}: {value} has no type"));
        assert!(
            kinds.contains(&kind),
            "{name}: {value} is not one of {kinds:?}"
        );
        assert!(!rest.is_empty(), "{name}: {value} is empty");
        Some(rest)
    }

    fn only(&self, names: &[&str]) {
        for (name, _) in &self.0 {
            assert!(
                names.contains(&name.as_str()),
                "{name} is none of {names:?}"
            );
            self.get(name);
        }
    }

    fn date(&self, name: &str) {
        if let Some(value) = self.find(name) {
            rfc2822::parse(value).unwrap_or_else(|error| panic!("{name}: {value}: {error}"));
        }
    }
}

impl Report {
    /// Reads a message as it came over the wire.
    pub(crate) fn read(octets: &[u8]) -> Self {
        let whole = String::from_utf8(octets.to_vec()).expect("UTF-8");
        lines(&whole);
        let (header, body) = Fields::read(&whole);
        let boundary = outer(&header, body);
        let parts = parts(body, &boundary);
        assert_eq!(parts.len(), 3, "{whole}");
        let encodings: Vec<_> = parts
            .iter()
            .map(|part| part.0.find("Content-Transfer-Encoding"))
            .collect();
        let is_eight_bit = encodings.contains(&Some("8bit"));
        assert_eq!(
            header.find("Content-Transfer-Encoding"),
            is_eight_bit.then_some("8bit"),
            "RFC 2045 §6.4"
        );
        for ((fields, content), encoding) in parts.iter().zip(encodings) {
            fields.only(&["Content-Type", "Content-Transfer-Encoding"]);
            match encoding {
                Some("quoted-printable") => {
                    let kind = fields.get("Content-Type");
                    // RFC 2046 §5.2.1, RFC 3464 §2.1; RFC 6532 §3.7 and RFC 6533 §5 allow it of
                    // their own.
                    assert!(
                        kind.starts_with("text/") || kind.starts_with("message/global"),
                        "{kind} is encoded"
                    );
                }
                encoding => assert_eq!(
                    encoding,
                    (!content.is_ascii()).then_some("8bit"),
                    "{content}"
                ),
            }
        }
        let parts: Vec<_> = parts
            .iter()
            .map(|(fields, content)| (fields.clone(), decoded(fields, content)))
            .collect();
        let [people, status, returned] = parts.as_slice() else {
            unreachable!("as many as before")
        };
        assert_eq!(people.0.get("Content-Type"), "text/plain; charset=utf-8");
        let kind = status.0.get("Content-Type").to_owned();
        assert_eq!(
            kind == "message/global-delivery-status",
            !status.1.is_ascii(),
            "{kind}"
        );
        assert!(
            kind == "message/global-delivery-status" || kind == "message/delivery-status",
            "{kind}"
        );
        let (message, recipients) = groups(&status.1);
        check_message(&message);
        recipients.iter().for_each(check_recipient);
        Self {
            text: people.1.replace("\r\n    ", " ").replace("\r\n", "\n"),
            message,
            recipients,
            kind,
            returned: (
                returned.0.get("Content-Type").to_owned(),
                returned.1.clone(),
            ),
            header,
            whole,
        }
    }

    /// The recipients, in their order, each with its action and status.
    pub(crate) fn tells(&self) -> Vec<(String, String, String)> {
        let about = |fields: &Fields| {
            let recipient = fields
                .typed("Final-Recipient", &["rfc822", "utf-8"])
                .expect("checked");
            (
                recipient.to_owned(),
                fields.get("Action").to_owned(),
                fields.get("Status").to_owned(),
            )
        };
        self.recipients.iter().map(about).collect()
    }

    /// It has one recipient, which is this one.
    pub(crate) fn only(&self, recipient: &str, action: &str, status: &str) -> &Fields {
        assert_eq!(
            self.tells(),
            [(recipient.to_owned(), action.to_owned(), status.to_owned())],
            "{}",
            self.whole
        );
        &self.recipients[0]
    }
}

/// Lines end with CRLF, nothing else does, and none is longer than SMTP allows.
fn lines(whole: &str) {
    assert!(whole.ends_with("\r\n"));
    for line in whole.split_terminator("\r\n") {
        assert!(!line.contains(['\r', '\n', '\0']), "{line:?}");
        assert!(line.len() <= 998, "{} octets: {line}", line.len());
    }
}

/// Checks the header of the report; returns the boundary of its parts.
fn outer(header: &Fields, body: &str) -> String {
    for name in ["Date", "From", "To", "Subject", "Message-ID"] {
        header.get(name);
    }
    header.date("Date");
    assert_eq!(header.get("Auto-Submitted"), "auto-replied", "RFC 3834 §5");
    assert_eq!(header.get("MIME-Version"), "1.0");
    let kind = header.get("Content-Type");
    let boundary = kind.strip_prefix("multipart/report; report-type=delivery-status; boundary=\"");
    let boundary = boundary
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or_else(|| panic!("{kind}"));
    assert!(
        boundary.len() <= 70 && body.contains(boundary),
        "{boundary}"
    );
    boundary.to_owned()
}

/// The parts: each with its header.
fn parts<'a>(body: &'a str, boundary: &str) -> Vec<(Fields, &'a str)> {
    let (_, rest) = body
        .split_once(&format!("\r\n--{boundary}\r\n"))
        .expect("a first part");
    let (parts, after) = rest
        .split_once(&format!("\r\n--{boundary}--\r\n"))
        .expect("an end of the parts");
    assert_eq!(after, "", "nothing comes behind the parts");
    parts
        .split(&format!("\r\n--{boundary}\r\n"))
        .map(Fields::read)
        .collect()
}

/// The content of a part, without its encoding.
fn decoded(fields: &Fields, content: &str) -> String {
    if fields.find("Content-Transfer-Encoding") != Some("quoted-printable") {
        return content.to_owned();
    }
    assert!(
        content
            .split("\r\n")
            .all(|line| line.len() <= 76 && !line.ends_with([' ', '\t'])),
        "RFC 2045 §6.7: {content}"
    );
    let joined = content.replace("=\r\n", "");
    let mut octets = Vec::new();
    let mut rest = joined.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'=' {
            let hex = std::str::from_utf8(&after[..2]).expect("two digits");
            assert!(
                hex.bytes()
                    .all(|digit| digit.is_ascii_digit() || (b'A'..=b'F').contains(&digit)),
                "={hex}"
            );
            octets.push(u8::from_str_radix(hex, 16).expect("checked"));
            rest = &after[2..];
        } else {
            octets.push(*first);
            rest = after;
        }
    }
    String::from_utf8(octets).expect("UTF-8")
}

/// The group about the message, and those about its recipients (RFC 3464 §2.1).
fn groups(status: &str) -> (Fields, Vec<Fields>) {
    let (mut groups, mut rest) = (Vec::new(), status);
    while !rest.is_empty() {
        let (fields, more) = Fields::read(rest);
        assert!(!fields.0.is_empty(), "an empty group in\n{status}");
        groups.push(fields);
        rest = more;
    }
    assert!(groups.len() > 1, "no recipient in\n{status}");
    let recipients = groups.split_off(1);
    (groups.remove(0), recipients)
}

fn check_message(fields: &Fields) {
    fields.only(&["Original-Envelope-Id", "Reporting-MTA", "Arrival-Date"]);
    assert_eq!(
        fields.typed("Reporting-MTA", &["dns"]),
        Some("relay.example.com")
    );
    fields.date("Arrival-Date");
}

fn check_recipient(fields: &Fields) {
    fields.only(&[
        "Original-Recipient",
        "Final-Recipient",
        "Action",
        "Status",
        "Remote-MTA",
        "Diagnostic-Code",
        "Last-Attempt-Date",
        "Will-Retry-Until",
    ]);
    let recipient = fields
        .typed("Final-Recipient", &["rfc822", "utf-8"])
        .expect("a recipient");
    // In seven bits, characters are named by their numbers (RFC 6533 §3).
    let kind = if recipient.is_ascii() && !recipient.contains("\\x{") {
        "rfc822; "
    } else {
        "utf-8; "
    };
    assert!(
        fields.get("Final-Recipient").starts_with(kind),
        "{fields:?}"
    );
    let class = match fields.get("Action") {
        "failed" => 5,
        "delayed" => 4,
        "relayed" => 2,
        other => panic!("{other} is no action"),
    };
    let status: Vec<_> = fields
        .get("Status")
        .split('.')
        .map(|part| u16::from_str(part).expect("a number"))
        .collect();
    assert!(status.len() == 3 && status[0] == class, "{fields:?}");
    assert!(
        fields.find("Will-Retry-Until").is_none() || class == 4,
        "RFC 3464 §2.3.9"
    );
    fields.date("Will-Retry-Until");
    fields.date("Last-Attempt-Date");
    if let Some(host) = fields.typed("Remote-MTA", &["dns"]) {
        let inside = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let is_name = host
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || b".-".contains(&octet));
        assert!(
            inside.is_some() || is_name,
            "{host} is neither a name nor an address"
        );
    }
    if let Some(code) = fields.typed("Diagnostic-Code", &["smtp", "x-gatepost"])
        && fields.get("Diagnostic-Code").starts_with("smtp")
    {
        assert!(
            code.len() > 4 && code[..3].bytes().all(|octet| octet.is_ascii_digit()),
            "{code} is no reply"
        );
    }
}

/// A reader that accepts everything would find no fault: each of these reports breaks one rule.
#[test]
fn the_reader_is_strict() {
    let sound = "Date: Mon, 2 Jan 2006 15:04:05 +0000\r\nFrom: <a@example>\r\nTo: <b@example>\r\nSubject: s\r\n\
                 Message-ID: <1@example>\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
                 Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"b\"\r\n\r\n\
                 \r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHello\r\n\
                 \r\n--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; relay.example.com\r\n\r\n\
                 Final-Recipient: rfc822; c@example\r\nAction: failed\r\nStatus: 5.1.1\r\n\
                 Remote-MTA: dns; [192.0.2.1]\r\n\r\n--b\r\nContent-Type: text/rfc822-headers\r\n\r\nA: b\r\n\r\n--b--\r\n";
    Report::read(sound.as_bytes()).only("c@example", "failed", "5.1.1");
    for (from, to) in [
        ("Hello\r\n", "Hello\n"),
        ("Hello", "Hällo"),
        ("Status: 5.1.1", "Status: 4.1.1"),
        ("Status: 5.1.1", "Status: 5.1"),
        ("Status: 5.1.1\r\n", ""),
        ("[192.0.2.1]", "[192.0.2.1]:25"),
        ("dns; [192.0.2.1]", "[192.0.2.1]"),
        ("Action: failed", "Action: lost"),
        ("Action: failed", "Action: failed\r\nAction: failed"),
        (
            "Action: failed",
            "Action: failed\r\nWill-Retry-Until: Mon, 2 Jan 2006 15:04:05 +0000",
        ),
        ("Action: failed", "Action: failed\r\nX-Other: field"),
        ("\r\nReporting-MTA", "\r\n\r\nReporting-MTA"),
        ("rfc822; c@example", "utf-8; c@example"),
        ("Date: Mon", "Date: Someday"),
        ("--b--\r\n", "--b--\r\nmore\r\n"),
        (
            "message/delivery-status",
            "message/delivery-status\r\nContent-Transfer-Encoding: 8bit",
        ),
    ] {
        let broken = sound.replacen(from, to, 1);
        assert_ne!(broken, sound);
        let read = std::panic::catch_unwind(|| Report::read(broken.as_bytes()));
        assert!(read.is_err(), "{to:?} was taken for {from:?}");
    }
}
