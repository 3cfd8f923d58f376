//! The content after DATA: octets in pieces give the same result as in one piece, and as a simpler
//! implementation.

use gatepost::smtp::envelope::TlsRequirement;
use gatepost::smtp::data::{ContentFacts, ContentFault, Decoded, Decoder, HeaderCompleter, Inspector, Stuffer};

use crate::cuts::Cuts;

/// The maximum length of a message, in octets.
const SIZE_MAX: u64 = 2000;
/// The maximum number of Received fields of a message.
const RECEIVED_MAX: u32 = 4;

pub(crate) fn run(input: &[u8]) {
    let (cuts, wire) = Cuts::take(input);
    let whole = decoded([wire]);
    assert_eq!(decoded(cuts.pieces(wire)), whole, "where the input is cut makes a difference");
    assert_eq!(whole, simply_decoded(wire), "two readings of {}", wire.escape_ascii());
    let (content, _) = whole;
    assert!(content.len() <= wire.len(), "content grows");
    let found = inspected([&content[..]]);
    assert_eq!(inspected(cuts.pieces(&content)), found, "where the content is cut makes a difference");
    let is_good = content.len() as u64 <= SIZE_MAX && is_sound(&content) && !is_loop(&content, RECEIVED_MAX);
    assert_eq!(found.is_ok(), is_good, "{}: {found:?}", content.escape_ascii());
    check_stuffed(&content, cuts, is_good);
    if let Ok(found) = found {
        check_findings(&content, &found);
        check_completed(&content, cuts);
    }
}

/// Returns the content, and the input after the end of the message if it ended.
type Unframed = (Vec<u8>, Option<Vec<u8>>);

fn decoded<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Unframed {
    let (mut decoder, mut content, mut behind) = (Decoder::new(), Vec::new(), None);
    for mut piece in pieces {
        while behind.is_none() {
            let (used, decoded) = decoder.decode(piece);
            assert!(used > 0 || !matches!(decoded, Decoded::End), "an end without an octet");
            piece = &piece[used..];
            match decoded {
                Decoded::More => {
                    assert!(piece.is_empty(), "octets are left over");
                    break;
                }
                Decoded::Content(octets) => {
                    assert!(!octets.is_empty(), "content without an octet");
                    content.extend_from_slice(octets);
                }
                Decoded::End => behind = Some(Vec::new()),
            }
        }
        if let Some(behind) = &mut behind {
            behind.extend_from_slice(piece);
        }
    }
    (content, behind)
}

/// Removes the dots line by line (RFC 5321 §4.5.2). A line ends only with CRLF.
fn simply_decoded(wire: &[u8]) -> Unframed {
    let (mut content, mut rest) = (Vec::new(), wire);
    loop {
        if let Some(behind) = rest.strip_prefix(b".\r\n") {
            return (content, Some(behind.to_vec()));
        }
        // These octets may become the end.
        if rest == b"." || rest == b".\r" {
            return (content, None);
        }
        let line = rest.strip_prefix(b".").unwrap_or(rest);
        let end = line.windows(2).position(|two| two == b"\r\n").map_or(line.len(), |at| at + 2);
        content.extend_from_slice(&line[..end]);
        rest = &line[end..];
        if rest.is_empty() {
            return (content, None);
        }
    }
}

fn inspected<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<ContentFacts, ContentFault> {
    let mut inspector = Inspector::new(SIZE_MAX, RECEIVED_MAX);
    for piece in pieces {
        inspector.push(piece)?;
    }
    inspector.finish()
}

/// Returns whether content is lines with CRLF ends, without NUL, that do not begin with a
/// continuation of the field before.
pub(crate) fn is_sound(content: &[u8]) -> bool {
    let pairs = content.windows(2).filter(|two| *two == b"\r\n").count();
    let count = |wanted: u8| content.iter().filter(|octet| **octet == wanted).count();
    count(b'\r') == pairs
        && count(b'\n') == pairs
        && count(0) == 0
        && !content.starts_with(b" ")
        && !content.starts_with(b"\t")
}

/// Returns whether content has more Received fields than this.
pub(crate) fn is_loop(content: &[u8], most: u32) -> bool {
    let received = header(content).iter().filter(|field| field.name.eq_ignore_ascii_case(b"received")).count();
    received > most as usize
}

/// A header field: its name without blanks after it, whether there were such blanks, and its value
/// without line ends.
struct Field {
    name: Vec<u8>,
    is_old: bool,
    value: Vec<u8>,
    is_ended: bool,
}

/// Returns the header of a message with CRLF line ends: it ends with an empty line, or before a
/// line that is no field.
fn header(content: &[u8]) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for line in content.split_inclusive(|octet| *octet == b'\n') {
        let (text, is_ended) = line.strip_suffix(b"\r\n").map_or((line, false), |text| (text, true));
        match (text.first(), fields.last_mut()) {
            (Some(b' ' | b'\t'), Some(field)) => {
                field.value.extend_from_slice(text);
                field.is_ended = is_ended;
            }
            (None | Some(b' ' | b'\t'), _) => return fields,
            (Some(_), _) => {
                let Some(colon) = text.iter().position(|octet| *octet == b':') else { return fields };
                let written = &text[..colon];
                let name = written.trim_ascii_end();
                if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) || !is_blank(&written[name.len()..]) {
                    return fields;
                }
                let (name, is_old) = (name.to_vec(), name.len() < written.len());
                fields.push(Field { name, is_old, value: text[colon + 1..].to_vec(), is_ended });
            }
        }
    }
    fields
}

fn is_blank(text: &[u8]) -> bool {
    text.iter().all(|octet| matches!(octet, b' ' | b'\t'))
}

fn check_findings(content: &[u8], found: &ContentFacts) {
    let header = header(content);
    let named = |name: &[u8]| header.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).collect::<Vec<_>>();
    let says_no = match named(b"tls-required")[..] {
        [field] => {
            let start = field.value.iter().position(|octet| !is_blank(&[*octet])).unwrap_or(field.value.len());
            field.value[start..].eq_ignore_ascii_case(b"no") && !field.is_old && field.is_ended
        }
        _ => false,
    };
    let wanted = if says_no { TlsRequirement::Relaxed } else { TlsRequirement::Ordinary };
    assert_eq!(found.tls, wanted, "TLS-Required in {}", content.escape_ascii());
    assert_eq!(found.needs.eight_bit, !content.is_ascii(), "octets above 127 in {}", content.escape_ascii());
    assert!(!found.needs.utf8_header || found.needs.eight_bit, "a header in UTF-8 in 7-bit content");
    let Some(id) = &found.message_id else { return };
    assert!(id.chars().count() <= 255 && !id.chars().any(char::is_control), "a Message-ID for records: {id:?}");
    assert!(!named(b"message-id").is_empty(), "a Message-ID out of nothing: {id:?}");
}

/// Checks that stuffing in pieces gives the same as in one piece, and that unstuffing gives the
/// original.
fn check_stuffed(content: &[u8], cuts: Cuts<'_>, is_good: bool) {
    let stuffed = |pieces: Vec<&[u8]>| {
        let (mut wire, mut stuffer) = (Vec::new(), Stuffer::new());
        pieces.into_iter().for_each(|piece| stuffer.push(piece, &mut wire));
        stuffer.finish(&mut wire);
        wire
    };
    let wire = stuffed(vec![content]);
    assert_eq!(stuffed(cuts.pieces(content)), wire, "where content is cut makes a difference");
    assert!(wire.len() <= 2 * content.len() + 5, "stuffed content of {} octets", wire.len());
    let (back, behind) = decoded([&wire[..]]);
    assert_eq!(behind.as_deref(), Some(&[][..]), "content ends a message early: {}", content.escape_ascii());
    if is_good {
        let is_whole = content.is_empty() || content.ends_with(b"\r\n");
        assert_eq!(back, [content, if is_whole { b"" } else { b"\r\n" }].concat(), "stuffed and unstuffed");
    }
}

/// Checks that a completed message has the two fields, and everything that it had before.
fn check_completed(content: &[u8], cuts: Cuts<'_>) {
    let completed = |pieces: Vec<&[u8]>| {
        let (mut completer, mut all) = (HeaderCompleter::new("now".to_owned(), "<a@b>".to_owned()), Vec::new());
        for piece in pieces {
            let (made, rest) = completer.push(piece);
            all.extend_from_slice(&made);
            all.extend_from_slice(rest);
        }
        let (made, _) = completer.finish();
        all.extend_from_slice(&made);
        all
    };
    let all = completed(vec![content]);
    assert_eq!(completed(cuts.pieces(content)), all, "where content is cut makes a difference");
    let same = |(one, other): &(&u8, &u8)| one == other;
    let front = content.iter().zip(&all).take_while(same).count();
    let back = content.iter().rev().zip(all.iter().rev()).take_while(same).count();
    assert!(front + back >= content.len(), "{} became {}", content.escape_ascii(), all.escape_ascii());
    let added = all.len() - content.len();
    assert!(added <= "\r\nDate: now\r\nMessage-ID: <a@b>\r\n\r\n".len(), "{added} octets were added");
    let fields = header(&all);
    for name in [&b"date"[..], b"message-id"] {
        let has = fields.iter().any(|field| field.name.eq_ignore_ascii_case(name));
        assert!(has, "{} has no {}", all.escape_ascii(), name.escape_ascii());
    }
    assert_eq!(completed(vec![&all]), all, "a complete message is completed once more");
}

/// Returns the names of the fields of a header.
pub(crate) fn header_names(content: &[u8]) -> Vec<Vec<u8>> {
    header(content).into_iter().map(|field| field.name).collect()
}
