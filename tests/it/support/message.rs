//! Messages whose every octet follows from their name, so that what arrives can be judged alone.

use super::Dice;

/// The sender of all of them. A report about one would come from nobody, and be noticed.
pub(crate) const SENDER: &str = "alice@sender.example";

/// The ending in the names of messages that say `TLS-Required: No` (RFC 8689).
pub(crate) const RELAXED: &str = "-relaxed";

/// A message to send.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) name: String,
    pub(crate) recipients: Vec<String>,
    /// Header and body, with CRLF, without dot-stuffing.
    pub(crate) content: Vec<u8>,
}

impl Message {
    /// A message of about `size` octets, to `name` at each of the domains.
    pub(crate) fn new(name: &str, domains: &[&str], size: usize) -> Self {
        let recipients = domains
            .iter()
            .map(|domain| format!("{name}@{domain}"))
            .collect();
        Self {
            name: name.to_owned(),
            recipients,
            content: content(name, size),
        }
    }
}

/// The last line of a message, which is found in a trace where the last octets went.
pub(crate) fn last_line(name: &str) -> String {
    format!("-- the end of {name}\r\n")
}

/// Lines of many lengths, some with leading dots.
fn content(name: &str, size: usize) -> Vec<u8> {
    let mut dice = Dice::new(u64::from(crc32fast::hash(name.as_bytes())));
    // Nothing is missing that the relay would add.
    let whole =
        format!("Date: Thu, 1 Jan 1970 00:00:00 +0000\r\nMessage-ID: <{name}@sender.example>\r\n");
    let relaxed = if name.ends_with(RELAXED) {
        "TLS-Required: No\r\n"
    } else {
        ""
    };
    let mut text =
        format!("From: <{SENDER}>\r\nSubject: {name}\r\nX-Size: {size}\r\n{whole}{relaxed}\r\n");
    let last = last_line(name);
    while text.len() + last.len() < size {
        for _ in 0..dice.below(4).saturating_sub(1) {
            text.push('.');
        }
        for _ in 0..dice.below(76) {
            text.push(char::from(b'!' + u8::try_from(dice.below(94)).unwrap_or(0)));
        }
        text.push_str("\r\n");
    }
    text.push_str(&last);
    text.into_bytes()
}

/// The name of the message that arrived, where it is complete: our own Received field, then exactly
/// the content that belongs to its name.
pub(crate) fn recognise(arrived: &[u8]) -> Result<String, String> {
    let show = || String::from_utf8_lossy(&arrived[..arrived.len().min(600)]).into_owned();
    let rest = after_received(arrived)
        .ok_or_else(|| format!("no Received field at the top of\n{}", show()))?;
    let field = |name: &str| {
        let text = std::str::from_utf8(&rest[..rest.len().min(300)]).ok()?;
        text.split("\r\n")
            .find_map(|line| line.strip_prefix(name))
            .map(str::to_owned)
    };
    let name = field("Subject: ").ok_or_else(|| format!("no subject in\n{}", show()))?;
    let size = field("X-Size: ")
        .and_then(|size| size.parse().ok())
        .ok_or_else(|| format!("no size in\n{}", show()))?;
    let expected = content(&name, size);
    if rest == expected {
        return Ok(name);
    }
    let same = rest
        .iter()
        .zip(&expected)
        .take_while(|(a, b)| a == b)
        .count();
    Err(format!(
        "{name} has {} octets and should have {}; the first {same} are right",
        rest.len(),
        expected.len()
    ))
}

/// Returns the content after the first header field, which must be Received.
fn after_received(content: &[u8]) -> Option<&[u8]> {
    content.strip_prefix(b"Received: ")?;
    let folds = |at: usize| matches!(content.get(at), Some(b' ' | b'\t'));
    let end = memchr::memmem::find_iter(content, b"\r\n")
        .map(|at| at + 2)
        .find(|at| !folds(*at))?;
    content.get(end..)
}
