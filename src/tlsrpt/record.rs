//! The record by which a domain asks for reports (RFC 8460 §3).
//!
//! Pure. The record is looked up elsewhere; its character-strings come here already joined.

use std::fmt;

use crate::address::Mailbox;
use crate::https::Url;

/// Destinations that are served, at most; a record may name more.
pub const DESTINATIONS_MAX: usize = 10;
/// Octets of a record, at most.
const RECORD_MAX: usize = 8192;
const VERSION: &str = "v=TLSRPTv1";

/// Where a domain wants its reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The destinations, in the order they are named; at least one, at most [`DESTINATIONS_MAX`].
    pub destinations: Vec<Destination>,
    /// What is named beside them and cannot be served, with the reason.
    pub unusable: Vec<String>,
}

/// One destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// `mailto:`, without what RFC 6068 allows behind the address.
    Mail(Mailbox),
    /// `https:`.
    Https(Url),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mail(mailbox) => write!(f, "mailto:{mailbox}"),
            Self::Https(url) => url.fmt(f),
        }
    }
}

/// Why a domain does not get reports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It does not ask for them.
    #[error("no TXT record begins with \"v=TLSRPTv1;\"")]
    None,
    /// Several records, so none counts.
    #[error("{0} TXT records begin with \"v=TLSRPTv1;\", and only one may")]
    Several(usize),
    /// The record breaks the grammar.
    #[error("the record breaks the grammar of RFC 8460 section 3 at \"{0}\"")]
    Grammar(String),
    /// The record has no `rua`.
    #[error("the record names nobody to report to (rua)")]
    NoRua,
    /// Every destination is unusable.
    #[error("no destination of the record can be used: {0}")]
    Unusable(String),
}

/// Reads the TXT records at `_smtp._tls.DOMAIN`.
///
/// # Errors
/// [`RecordError`]: no report is sent.
pub fn parse(texts: &[String]) -> Result<Record, RecordError> {
    let ours: Vec<&str> = texts.iter().filter_map(|text| fields_of(text)).collect();
    match ours[..] {
        [] => Err(RecordError::None),
        [fields] => parse_fields(fields),
        _ => Err(RecordError::Several(ours.len())),
    }
}

/// What follows the version, where a record begins with it.
fn fields_of(text: &str) -> Option<&str> {
    text.strip_prefix(VERSION)?.trim_start_matches(is_blank).strip_prefix(';')
}

fn parse_fields(fields: &str) -> Result<Record, RecordError> {
    let grammar = |part: &str| RecordError::Grammar(shown(part));
    if fields.len() > RECORD_MAX {
        return Err(grammar("more than 8192 octets"));
    }
    let parts: Vec<&str> = fields.split(';').map(|part| part.trim_matches(is_blank)).collect();
    let mut rua = None;
    for (at, part) in parts.iter().enumerate() {
        // A delimiter may stand behind the last field.
        if part.is_empty() && at + 1 == parts.len() && at > 0 {
            continue;
        }
        let (name, value) = part.split_once('=').ok_or_else(|| grammar(part))?;
        // Names are case-sensitive, and of two the first counts: nothing says that they may not repeat.
        if name == "rua" {
            rua = rua.or(Some(value));
        } else if !is_extension(name, value) {
            return Err(grammar(part));
        }
    }
    let rua = rua.ok_or(RecordError::NoRua)?;
    let (mut destinations, mut unusable) = (Vec::new(), Vec::new());
    for uri in rua.split(',').map(|uri| uri.trim_matches(is_blank)) {
        match destination(uri) {
            Ok(known) if destinations.contains(&known) => {}
            Ok(_) if destinations.len() == DESTINATIONS_MAX => {
                unusable.push(format!("{}: more than {DESTINATIONS_MAX} destinations", shown(uri)));
            }
            Ok(new) => destinations.push(new),
            Err(why) => unusable.push(format!("{}: {why}", shown(uri))),
        }
    }
    unusable.truncate(DESTINATIONS_MAX);
    if destinations.is_empty() {
        Err(RecordError::Unusable(unusable.join(", ")))
    } else {
        Ok(Record { destinations, unusable })
    }
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

/// `tlsrpt-extension`: fields of a later version, which are passed over.
fn is_extension(name: &str, value: &str) -> bool {
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let rest = name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    let value_fits = |c: char| c.is_ascii_graphic() && c != '=' && c != ';';
    first && rest && name.len() <= 32 && !value.is_empty() && value.chars().all(value_fits)
}

fn destination(uri: &str) -> Result<Destination, String> {
    let (scheme, rest) = uri.split_once(':').ok_or_else(|| "it is not a URI".to_owned())?;
    if !rest.chars().all(|c| c.is_ascii_graphic()) {
        return Err("it has a character that no URI may have".to_owned());
    }
    // What follows a "!" would be a size limit in DMARC; here it must be encoded.
    if rest.contains('!') {
        return Err("\"!\" must be written %21".to_owned());
    }
    if scheme.eq_ignore_ascii_case("mailto") {
        mail(rest).map(Destination::Mail).map_err(str::to_owned)
    } else if scheme.eq_ignore_ascii_case("https") {
        let url = Url::parse(uri).map_err(|error| error.to_string())?;
        if url.host().parent().is_none() {
            return Err("its host is not fully qualified".to_owned());
        }
        Ok(Destination::Https(url))
    } else {
        Err("it is neither mailto: nor https:".to_owned())
    }
}

fn mail(rest: &str) -> Result<Mailbox, &'static str> {
    let address = rest.split('?').next().unwrap_or_default();
    let address = decoded(address).ok_or("its percent signs do not encode text")?;
    let mailbox = Mailbox::parse(&address).map_err(|_| "it is not one mail address")?;
    if mailbox.host().domain().is_none() {
        return Err("its host is an address, not a domain");
    }
    if mailbox.is_ascii() { Ok(mailbox) } else { Err("it needs SMTPUTF8") }
}

/// Percent-decoding (RFC 3986 §2.1), where the result is text.
fn decoded(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'%' {
            octets.push(octet);
            continue;
        }
        let mut digit =
            || rest.next().and_then(|digit| char::from(digit).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        octets.push(digit()? << 4 | digit()?);
    }
    String::from_utf8(octets).ok()
}

/// A part of a record as a log line can carry it.
fn shown(part: &str) -> String {
    part.chars().take(100).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, RecordError> {
        let record = parse(&[text.to_owned()])?;
        Ok(record.destinations.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_examples_of_the_standard_are_read() {
        let mail = read("v=TLSRPTv1;rua=mailto:reports@example.com").expect("section 3.1.1");
        assert_eq!(mail, ["mailto:reports@example.com"]);
        let https = read("v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt").expect("section 3.1.2");
        assert_eq!(https, ["https://reporting.example.com/v1/tlsrpt"]);
    }

    #[test]
    fn what_a_record_may_have_beside_the_examples() {
        for (text, meant) in [
            ("v=TLSRPTv1 ; rua=mailto:a@b.example ;", "mailto:a@b.example"),
            ("v=TLSRPTv1;\tnew=1;rua=mailto:a@b.example;x-y.z_9=(hm)", "mailto:a@b.example"),
            ("v=TLSRPTv1;rua=MAILTO:a%2bb%21@b.example?subject=x", "mailto:a+b!@b.example"),
            ("v=TLSRPTv1;rua=ftp://a.example/ , mailto:a@b.example", "mailto:a@b.example"),
            ("v=TLSRPTv1;rua=mailto:a@b.example,mailto:a@B.example", "mailto:a@b.example"),
            ("v=TLSRPTv1;rua=https://A.example:8443/x?q=1", "https://a.example:8443/x?q=1"),
            ("v=TLSRPTv1;rua=mailto:a@b.example;rua=mailto:c@d.example", "mailto:a@b.example"),
        ] {
            assert_eq!(read(text).expect(text), [meant], "{text}");
        }
        let two = read("v=TLSRPTv1;rua=mailto:a@b.example,https://b.example/x").expect("two");
        assert_eq!(two, ["mailto:a@b.example", "https://b.example/x"]);
    }

    #[test]
    fn a_record_that_is_none_is_refused_with_its_reason() {
        let none =
            ["", "v=TLSRPTv1", "v=tlsrptv1;rua=mailto:a@b.example", " v=TLSRPTv1;rua=mailto:a@b.example", "v=spf1"];
        for text in none {
            assert_eq!(read(text), Err(RecordError::None), "{text}");
        }
        for text in [
            "v=TLSRPTv1;;rua=mailto:a@b.example",
            "v=TLSRPTv1;rua",
            "v=TLSRPTv1;a b=1;rua=mailto:a@b.example",
            "v=TLSRPTv1;-x=1;rua=mailto:a@b.example",
            "v=TLSRPTv1;x=;rua=mailto:a@b.example",
        ] {
            assert!(matches!(read(text), Err(RecordError::Grammar(_))), "{text}");
        }
        for text in ["v=TLSRPTv1;x=1", "v=TLSRPTv1;RUA=mailto:a@b.example"] {
            assert_eq!(read(text), Err(RecordError::NoRua), "{text}");
        }
    }

    #[test]
    fn destinations_that_cannot_be_served_are_told() {
        for uri in [
            "",
            "a@b.example",
            "mailto:",
            "mailto:a",
            "mailto:a@[192.0.2.1]",
            "mailto:a%zz@b.example",
            "mailto:a@b.example!10m",
            "https://b.example/a!10m",
            "http://b.example/",
            "https:b.example",
            "https://192.0.2.1/",
            "https://[::1]/",
            "https://localhost/",
            "https://b.example/#f",
            "https://u:p@b.example/",
            "https://b.example:0/",
            "https://b.example:x/",
            "https://b.example/a b",
            "https://b.example/\u{e9}",
            "mailto:%c3%a9@b.example",
            "https://b.example/\"x\"",
        ] {
            let read = read(&format!("v=TLSRPTv1;rua={uri}"));
            assert!(matches!(read, Err(RecordError::Unusable(_))), "{uri}: {read:?}");
        }
    }

    #[test]
    fn of_several_records_none_counts_and_strangers_do_not() {
        let ours = "v=TLSRPTv1;rua=mailto:a@b.example".to_owned();
        assert_eq!(parse(&[ours.clone(), ours.clone()]), Err(RecordError::Several(2)));
        assert!(parse(&["google-site-verification=x".to_owned(), ours]).is_ok());
        assert_eq!(parse(&[]), Err(RecordError::None));
    }

    #[test]
    fn a_record_with_many_destinations_is_served_in_part() {
        let many: Vec<String> = (0..50).map(|n| format!("mailto:a{n}@b.example")).collect();
        let record = parse(&[format!("v=TLSRPTv1;rua={}", many.join(","))]).expect("good");
        assert_eq!((record.destinations.len(), record.unusable.len()), (DESTINATIONS_MAX, DESTINATIONS_MAX));
    }
}
