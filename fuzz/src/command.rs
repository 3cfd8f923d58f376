//! A command line: an accepted one can be written in one strict form, which means the same.

use std::fmt::Write as _;

use gatepost::smtp::envelope::{BodyType, Notify, Ret};
use gatepost::smtp::command::{Attribute, Command, CommandError, MailFrom, RcptTo, XClient};

use crate::talk;

/// The maximum length of a path, in octets.
const PATH_MAX: usize = 254;

pub(crate) fn run(line: &[u8]) {
    match Command::parse(line) {
        Ok(command) => accepted(line, &command),
        Err(fault) => refused(line, &fault),
    }
}

fn refused(line: &[u8], fault: &CommandError) {
    let reply = fault.reply();
    talk::check_reply(&reply);
    assert!(reply.code().get() >= 500, "a fault is permanent: {reply}");
    let is_bdat = line.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"BDAT"));
    assert!(!is_bdat || fault.is_fatal(), "a chunk is read as commands behind {}", line.escape_ascii());
}

fn accepted(line: &[u8], command: &Command) {
    let text = std::str::from_utf8(line).expect("only UTF-8 is accepted");
    let text = text.trim_end_matches([' ', '\t']);
    assert!(!text.chars().any(char::is_control), "a control character was accepted: {text:?}");
    let padded = [line, b" \t"].concat();
    assert_eq!(Command::parse(&padded).as_ref(), Ok(command), "blanks at the end mean something: {text:?}");
    let written = written(command);
    match Command::parse(written.as_bytes()) {
        Ok(again) => assert_eq!(as_said(again, command), *command, "{text:?} and {written:?} are not the same"),
        Err(fault) => panic!("{text:?} is accepted, {written:?} is not: {fault}"),
    }
    match command {
        Command::Ehlo(name) | Command::Helo(name) => {
            assert!((1..=255).contains(&name.as_str().len()), "a name of {} octets", name.as_str().len());
            let shown = name.to_string();
            assert!(shown.len() <= 3 * 255, "a name is shown in {} octets", shown.len());
            let harmless = |c: char| c.is_ascii_alphanumeric() || ".-_:[]%".contains(c);
            assert!(shown.chars().all(harmless), "a name means something in a header field: {shown:?}");
        }
        Command::Mail(mail) => check_mail(text, mail),
        Command::Rcpt(rcpt) => check_rcpt(text, rcpt),
        Command::Bdat { size, .. } => {
            let number = text[5..].split(' ').next().unwrap_or_default();
            assert!(number.bytes().all(|octet| octet.is_ascii_digit()), "{text:?} has a size");
            assert_eq!(number.parse(), Ok(*size), "{text:?} has another size");
        }
        _ => {}
    }
}

/// Returns the command that was parsed again, with the SMTPUTF8 mark of the first: a domain in
/// U-labels is written in A-labels.
fn as_said(again: Command, command: &Command) -> Command {
    match (again, command) {
        (Command::Rcpt(again), Command::Rcpt(said)) => {
            assert!(said.utf8 || !again.utf8, "characters beyond ASCII come out of nothing");
            Command::Rcpt(RcptTo { utf8: said.utf8, ..again })
        }
        (again, _) => again,
    }
}

fn check_mail(text: &str, mail: &MailFrom) {
    let path = mail.reverse_path.to_string();
    assert!(path.len() <= PATH_MAX, "a path of {} octets", path.len());
    if let Some(mailbox) = mail.reverse_path.mailbox() {
        assert!(text.contains(mailbox.local_part()), "{text:?} names another sender than {path:?}");
        assert!(mail.smtputf8 || mailbox.is_ascii(), "UTF-8 without SMTPUTF8: {text:?}");
    }
    if let Some(envid) = &mail.envid {
        assert!(envid.len() <= 100, "an ENVID of {} octets", envid.len());
        check_xtext(envid);
    }
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    assert!(mail.size.is_none() || digits > 0, "a size out of nothing: {text:?}");
}

fn check_rcpt(text: &str, rcpt: &RcptTo) {
    let path = rcpt.forward_path.to_string();
    assert!(path.len() <= PATH_MAX, "a path of {} octets", path.len());
    if let gatepost::smtp::address::ForwardPath::Mailbox(mailbox) = &rcpt.forward_path {
        assert!(text.contains(mailbox.local_part()), "{text:?} names another recipient than {path:?}");
        assert!(rcpt.utf8 || mailbox.is_ascii(), "{text:?} is not marked as UTF-8");
    }
    if let Some(orcpt) = &rcpt.orcpt {
        assert!(orcpt.len() <= 500, "an ORCPT of {} octets", orcpt.len());
        let (kind, address) = orcpt.split_once(';').expect("a type and an address");
        assert!(
            !kind.is_empty() && kind.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-'),
            "{orcpt}"
        );
        if !kind.eq_ignore_ascii_case("utf-8") {
            check_xtext(address);
        }
    }
    let Some(Notify::On { success, failure, delay }) = rcpt.notify else { return };
    assert!(success || failure || delay, "NOTIFY of nothing: {text:?}");
}

/// Checks that text is valid xtext (RFC 3461 §4): printable ASCII without "+" and "=", or "+" and
/// two hexadecimal digits.
fn check_xtext(text: &str) {
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        match octet {
            b'+' => {
                let digits = [octets.next(), octets.next()];
                let is_hex = |digit: &Option<u8>| digit.is_some_and(|digit| digit.is_ascii_hexdigit());
                assert!(digits.iter().all(is_hex), "not xtext: {text:?}");
            }
            b'=' => panic!("not xtext: {text:?}"),
            b'!'..=b'~' => {}
            _ => panic!("not xtext: {text:?}"),
        }
    }
}

/// Returns the command as the RFCs write it.
fn written(command: &Command) -> String {
    match command {
        Command::Ehlo(name) => format!("EHLO {}", name.as_str()),
        Command::Helo(name) => format!("HELO {}", name.as_str()),
        Command::StartTls => "STARTTLS".to_owned(),
        Command::Mail(mail) => written_mail(mail),
        Command::Rcpt(rcpt) => written_rcpt(rcpt),
        Command::Data => "DATA".to_owned(),
        Command::Bdat { size, last } => format!("BDAT {size}{}", if *last { " LAST" } else { "" }),
        Command::Rset => "RSET".to_owned(),
        Command::Noop => "NOOP".to_owned(),
        Command::Quit => "QUIT".to_owned(),
        Command::Vrfy => "VRFY x".to_owned(),
        Command::Expn => "EXPN x".to_owned(),
        Command::Help => "HELP".to_owned(),
        Command::XClient(said) => written_xclient(said),
        Command::Auth(auth) => match auth.initial.as_deref() {
            None => format!("AUTH {}", auth.mechanism),
            Some(initial) => format!("AUTH {} {initial}", auth.mechanism),
        },
    }
}

fn written_mail(mail: &MailFrom) -> String {
    let mut text = format!("MAIL FROM:<{}>", mail.reverse_path);
    // Writing into a string cannot fail.
    if let Some(size) = mail.size {
        let _ = write!(text, " SIZE={size}");
    }
    if mail.body == BodyType::EightBitMime {
        text.push_str(" BODY=8BITMIME");
    }
    if mail.smtputf8 {
        text.push_str(" SMTPUTF8");
    }
    match mail.ret {
        None => {}
        Some(Ret::Full) => text.push_str(" RET=FULL"),
        Some(Ret::Hdrs) => text.push_str(" RET=HDRS"),
    }
    if let Some(envid) = &mail.envid {
        let _ = write!(text, " ENVID={envid}");
    }
    if mail.require_tls {
        text.push_str(" REQUIRETLS");
    }
    text
}

fn written_rcpt(rcpt: &RcptTo) -> String {
    let mut text = format!("RCPT TO:<{}>", rcpt.forward_path);
    match rcpt.notify {
        None => {}
        Some(Notify::Never) => text.push_str(" NOTIFY=NEVER"),
        Some(Notify::On { success, failure, delay }) => {
            let words = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
            let words: Vec<_> = words.iter().filter(|(on, _)| *on).map(|(_, word)| *word).collect();
            let _ = write!(text, " NOTIFY={}", words.join(","));
        }
    }
    if let Some(orcpt) = &rcpt.orcpt {
        let _ = write!(text, " ORCPT={orcpt}");
    }
    text
}

fn written_xclient(said: &XClient) -> String {
    fn attribute<T>(text: &mut String, keyword: &str, value: &Attribute<T>, write: impl Fn(&T) -> String) {
        let value = match value {
            Attribute::Absent => return,
            Attribute::Unavailable => "[UNAVAILABLE]".to_owned(),
            Attribute::Is(value) => write(value),
        };
        let _ = write!(text, " {keyword}={value}");
    }
    // An empty attribute is a syntax error; this value means nothing.
    let mut text = "XCLIENT LOGIN=x".to_owned();
    attribute(&mut text, "NAME", &said.name, ToString::to_string);
    attribute(&mut text, "ADDR", &said.address, |address| match address {
        std::net::IpAddr::V4(address) => address.to_string(),
        std::net::IpAddr::V6(address) => format!("IPV6:{address}"),
    });
    attribute(&mut text, "PORT", &said.port, ToString::to_string);
    // A blank before a name is dropped; without it, a name could be read as "[UNAVAILABLE]".
    let octets = |name: &str| name.bytes().map(|octet| format!("+{octet:02X}")).collect::<String>();
    attribute(&mut text, "HELO", &said.hello, |name| format!("+20{}", octets(name.as_str())));
    attribute(&mut text, "PROTO", &said.esmtp, |esmtp| String::from(if *esmtp { "ESMTP" } else { "SMTP" }));
    text
}
