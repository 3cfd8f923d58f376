//! The completion of a message from a script: the header that is sent, and the recipients that it
//! names.

use gatepost::cli::sendmail_message;

use crate::data;

/// The fields that are removed.
const REMOVED: [&[u8]; 3] = [b"bcc", b"resent-bcc", b"return-path"];
/// The fields that every message has.
const NEEDED: [&[u8]; 3] = [b"from", b"date", b"message-id"];

pub(crate) fn run(input: &[u8]) {
    let Some((kind, text)) = input.split_first() else { return };
    let Ok((content, recipients)) = sendmail_message(text, kind & 1 == 0) else {
        assert!(text.len() > 16 * 1024, "{} octets are too many", text.len());
        return;
    };
    let shown = content.escape_ascii();
    // Every line may be an address without a domain, and every LF becomes CRLF.
    assert!(content.len() <= 24 * text.len() + 300, "{} octets became {}", text.len(), content.len());
    let bare = content.iter().enumerate().any(|(at, octet)| match octet {
        b'\r' => content.get(at + 1) != Some(&b'\n'),
        b'\n' => at == 0 || content[at - 1] != b'\r',
        _ => false,
    });
    assert!(!bare, "a line end that does not travel: {shown}");
    let names = data::header_names(&content);
    let has = |name: &[u8]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
    for name in REMOVED {
        assert!(!has(name), "{} leaves: {shown}", name.escape_ascii());
    }
    for name in NEEDED {
        assert!(has(name), "{} is missing: {shown}", name.escape_ascii());
    }
    // Before all fields, an old "From : a@x.example" is read as the envelope of an mbox file, as
    // Postfix does.
    if !content.starts_with(b"From ") && !content.starts_with(b">From ") {
        let (again, _) = sendmail_message(&content, false).expect("it is not much larger");
        assert_eq!(again.escape_ascii().to_string(), shown.to_string(), "a complete message is completed once more");
    }
    if let Ok(recipients) = recipients {
        check_recipients(text, &recipients);
    }
}

/// Checks that the recipients are addresses of the message, and the same if they are written in
/// strict form.
fn check_recipients(text: &[u8], recipients: &[String]) {
    let commas = text.iter().filter(|octet| b",;:".contains(octet)).count();
    assert!(recipients.len() <= commas + 1, "{recipients:?} out of {}", text.escape_ascii());
    for recipient in recipients {
        assert!(!recipient.contains('\u{fffd}'), "an address is made up: {recipient:?}");
        let mut rest = text.iter();
        let is_same = |octet: u8, other: u8| other == octet || (octet == b' ' && other == b'\r');
        let octets = recipient.bytes().filter(|octet| !b"\r\n".contains(octet));
        let is_part = octets.into_iter().all(|octet| rest.any(|other| is_same(octet, *other)));
        assert!(is_part, "{recipient:?} does not stand in {}", text.escape_ascii());
    }
    // A quoted line end is not part of a valid address.
    if recipients.iter().any(|recipient| recipient.contains(['\r', '\n'])) {
        return;
    }
    let list: Vec<String> = recipients.iter().map(|recipient| format!("<{recipient}>")).collect();
    let message = format!("To: {}\r\n\r\n", list.join(",\r\n "));
    let (_, again) = sendmail_message(message.as_bytes(), false).expect("a short message");
    assert_eq!(again.as_deref(), Ok(recipients), "{message:?}");
}
