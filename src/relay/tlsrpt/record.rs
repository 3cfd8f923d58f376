//! The TLSRPT record, with which a domain requests reports (RFC 8460 §3).
//!
//! Parses only. The caller looks the record up and joins its character-strings.

use std::fmt;

use crate::net::https::{Url, UrlError};
use crate::smtp::address::Mailbox;

/// The most destinations of a record that are used.
pub const DESTINATIONS_MAX: usize = 10;
/// The largest record that is parsed, in octets.
const RECORD_MAX: usize = 8192;
const VERSION: &str = "v=TLSRPTv1";

/// The destinations to which a domain wants reports sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsRptRecord {
    /// The destinations in the order of the record; at least one, at most [`DESTINATIONS_MAX`].
    pub destinations: Vec<ReportDestination>,
    /// The destinations that cannot be used; at most [`DESTINATIONS_MAX`].
    pub unusable: Vec<UnusableDestination>,
}

/// One destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportDestination {
    /// A `mailto:` URI, without the header fields that RFC 6068 allows after the address.
    Mail(Mailbox),
    /// An `https:` URI.
    Https(Url),
}

impl fmt::Display for ReportDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mail(mailbox) => write!(f, "mailto:{mailbox}"),
            Self::Https(url) => url.fmt(f),
        }
    }
}

/// A destination that cannot be used, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusableDestination {
    /// The URI, escaped and cut off for the log.
    pub uri: String,
    /// The reason.
    pub reason: DestinationError,
}

impl fmt::Display for UnusableDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.uri, self.reason)
    }
}

/// The reason why a destination cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// It has no scheme.
    #[error("it is not a URI")]
    NoUri,
    /// It has a character that no URI may have.
    #[error("it has a character that no URI may have")]
    Character,
    /// It has an exclamation mark. In DMARC a size limit follows it; here it must be encoded.
    #[error("\"!\" must be written %21")]
    ExclamationMark,
    /// Its scheme is another one.
    #[error("it is neither mailto: nor https:")]
    Scheme,
    /// Its percent-encoding is malformed, or does not encode text.
    #[error("its percent signs do not encode text")]
    PercentEncoding,
    /// It does not name one mail address.
    #[error("it is not one mail address")]
    MailAddress,
    /// The host of the mail address is an address literal.
    #[error("its host is an address, not a domain")]
    AddressLiteral,
    /// The mail address is not in ASCII.
    #[error("it needs SMTPUTF8")]
    Smtputf8,
    /// The `https:` URI is not valid.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The host of the `https:` URI has one label.
    #[error("its host is not fully qualified")]
    UnqualifiedHost,
    /// The record has more destinations before it than are used.
    #[error("more than {DESTINATIONS_MAX} destinations")]
    TooMany,
}

/// The reason why a domain does not get reports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsRptRecordError {
    /// The domain does not request reports.
    #[error("no TXT record begins with \"v=TLSRPTv1;\"")]
    None,
    /// The domain has several records, so that none is valid.
    #[error("{0} TXT records begin with \"v=TLSRPTv1;\", and only one may")]
    Several(usize),
    /// The record breaks the grammar.
    #[error("the record breaks the grammar of RFC 8460 section 3 at \"{0}\"")]
    Grammar(String),
    /// The record has no `rua` field.
    #[error("the record names no destination (rua)")]
    NoRua,
    /// No destination can be used.
    #[error("no destination of the record can be used: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Unusable(Vec<UnusableDestination>),
}

/// Parses the TXT records at `_smtp._tls.DOMAIN`.
///
/// # Errors
/// [`TlsRptRecordError`]; no report is sent then.
pub fn parse(texts: &[String]) -> Result<TlsRptRecord, TlsRptRecordError> {
    let records: Vec<&str> = texts
        .iter()
        .filter_map(|text| fields_after_version(text))
        .collect();
    match records[..] {
        [] => Err(TlsRptRecordError::None),
        [fields] => parse_fields(fields),
        _ => Err(TlsRptRecordError::Several(records.len())),
    }
}

/// Returns the text after the version, if the record begins with the version.
fn fields_after_version(text: &str) -> Option<&str> {
    text.strip_prefix(VERSION)?
        .trim_start_matches(is_blank)
        .strip_prefix(';')
}

fn parse_fields(fields: &str) -> Result<TlsRptRecord, TlsRptRecordError> {
    let grammar = |part: &str| TlsRptRecordError::Grammar(escape(part));
    if fields.len() > RECORD_MAX {
        return Err(grammar("more than 8192 octets"));
    }
    let parts: Vec<&str> = fields
        .split(';')
        .map(|part| part.trim_matches(is_blank))
        .collect();
    let mut rua = None;
    for (at, part) in parts.iter().enumerate() {
        // A delimiter is allowed after the last field.
        if part.is_empty() && at + 1 == parts.len() && at > 0 {
            continue;
        }
        let (name, value) = part.split_once('=').ok_or_else(|| grammar(part))?;
        // Names are case-sensitive. Of two fields with the same name the first one counts, as
        // nothing forbids repetition.
        if name == "rua" {
            rua = rua.or(Some(value));
        } else if !is_extension(name, value) {
            return Err(grammar(part));
        }
    }
    let rua = rua.ok_or(TlsRptRecordError::NoRua)?;
    let (mut destinations, mut unusable) = (Vec::new(), Vec::new());
    for uri in rua.split(',').map(|uri| uri.trim_matches(is_blank)) {
        let reason = match parse_destination(uri) {
            Ok(known) if destinations.contains(&known) => continue,
            Ok(_) if destinations.len() == DESTINATIONS_MAX => DestinationError::TooMany,
            Ok(new) => {
                destinations.push(new);
                continue;
            }
            Err(reason) => reason,
        };
        if unusable.len() < DESTINATIONS_MAX {
            let uri = escape(uri);
            unusable.push(UnusableDestination { uri, reason });
        }
    }
    if destinations.is_empty() {
        Err(TlsRptRecordError::Unusable(unusable))
    } else {
        Ok(TlsRptRecord {
            destinations,
            unusable,
        })
    }
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

/// Returns whether a field is a valid `tlsrpt-extension`, which is ignored.
fn is_extension(name: &str, value: &str) -> bool {
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let rest = name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    let value_fits = |c: char| c.is_ascii_graphic() && c != '=' && c != ';';
    first && rest && name.len() <= 32 && !value.is_empty() && value.chars().all(value_fits)
}

fn parse_destination(uri: &str) -> Result<ReportDestination, DestinationError> {
    let (scheme, rest) = uri.split_once(':').ok_or(DestinationError::NoUri)?;
    if !rest.chars().all(|c| c.is_ascii_graphic()) {
        return Err(DestinationError::Character);
    }
    if rest.contains('!') {
        return Err(DestinationError::ExclamationMark);
    }
    if scheme.eq_ignore_ascii_case("mailto") {
        parse_mailto(rest).map(ReportDestination::Mail)
    } else if scheme.eq_ignore_ascii_case("https") {
        let url = Url::parse(uri)?;
        if url.host().parent().is_none() {
            return Err(DestinationError::UnqualifiedHost);
        }
        Ok(ReportDestination::Https(url))
    } else {
        Err(DestinationError::Scheme)
    }
}

fn parse_mailto(rest: &str) -> Result<Mailbox, DestinationError> {
    let address = rest.split('?').next().unwrap_or_default();
    let address = percent_decode(address).ok_or(DestinationError::PercentEncoding)?;
    let mailbox = Mailbox::parse(&address).map_err(|_| DestinationError::MailAddress)?;
    if mailbox.host().domain().is_none() {
        return Err(DestinationError::AddressLiteral);
    }
    if mailbox.is_ascii() {
        Ok(mailbox)
    } else {
        Err(DestinationError::Smtputf8)
    }
}

/// Decodes percent-encoding (RFC 3986 §2.1). Returns `None` if the result is not text.
fn percent_decode(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet != b'%' {
            octets.push(octet);
            continue;
        }
        let mut digit = || {
            rest.next()
                .and_then(|digit| char::from(digit).to_digit(16))
                .and_then(|d| u8::try_from(d).ok())
        };
        octets.push(digit()? << 4 | digit()?);
    }
    String::from_utf8(octets).ok()
}

/// Escapes and truncates a part of a record for the log.
fn escape(part: &str) -> String {
    part.chars()
        .take(100)
        .flat_map(char::escape_default)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, TlsRptRecordError> {
        let record = parse(&[text.to_owned()])?;
        Ok(record
            .destinations
            .iter()
            .map(ToString::to_string)
            .collect())
    }

    #[test]
    fn the_examples_of_the_standard_are_read() {
        let mail = read("v=TLSRPTv1;rua=mailto:reports@example.com").expect("section 3.1.1");
        assert_eq!(mail, ["mailto:reports@example.com"]);
        let https =
            read("v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt").expect("section 3.1.2");
        assert_eq!(https, ["https://reporting.example.com/v1/tlsrpt"]);
    }

    #[test]
    fn variations_that_the_grammar_allows_are_read() {
        for (text, meant) in [
            (
                "v=TLSRPTv1 ; rua=mailto:a@b.example ;",
                "mailto:a@b.example",
            ),
            (
                "v=TLSRPTv1;\tnew=1;rua=mailto:a@b.example;x-y.z_9=(hm)",
                "mailto:a@b.example",
            ),
            (
                "v=TLSRPTv1;rua=MAILTO:a%2bb%21@b.example?subject=x",
                "mailto:a+b!@b.example",
            ),
            (
                "v=TLSRPTv1;rua=ftp://a.example/ , mailto:a@b.example",
                "mailto:a@b.example",
            ),
            (
                "v=TLSRPTv1;rua=mailto:a@b.example,mailto:a@B.example",
                "mailto:a@b.example",
            ),
            (
                "v=TLSRPTv1;rua=https://A.example:8443/x?q=1",
                "https://a.example:8443/x?q=1",
            ),
            (
                "v=TLSRPTv1;rua=mailto:a@b.example;rua=mailto:c@d.example",
                "mailto:a@b.example",
            ),
        ] {
            assert_eq!(read(text).expect(text), [meant], "{text}");
        }
        let two = read("v=TLSRPTv1;rua=mailto:a@b.example,https://b.example/x").expect("two");
        assert_eq!(two, ["mailto:a@b.example", "https://b.example/x"]);
    }

    #[test]
    fn an_invalid_record_is_rejected_with_its_reason() {
        let none = [
            "",
            "v=TLSRPTv1",
            "v=tlsrptv1;rua=mailto:a@b.example",
            " v=TLSRPTv1;rua=mailto:a@b.example",
            "v=spf1",
        ];
        for text in none {
            assert_eq!(read(text), Err(TlsRptRecordError::None), "{text}");
        }
        for text in [
            "v=TLSRPTv1;;rua=mailto:a@b.example",
            "v=TLSRPTv1;rua",
            "v=TLSRPTv1;a b=1;rua=mailto:a@b.example",
            "v=TLSRPTv1;-x=1;rua=mailto:a@b.example",
            "v=TLSRPTv1;x=;rua=mailto:a@b.example",
        ] {
            assert!(
                matches!(read(text), Err(TlsRptRecordError::Grammar(_))),
                "{text}"
            );
        }
        for text in ["v=TLSRPTv1;x=1", "v=TLSRPTv1;RUA=mailto:a@b.example"] {
            assert_eq!(read(text), Err(TlsRptRecordError::NoRua), "{text}");
        }
    }

    /// Each reason is that of the fault, and the texts name the URI.
    #[test]
    fn unusable_destinations_are_rejected() {
        use DestinationError::{
            AddressLiteral, Character, ExclamationMark, MailAddress, NoUri, PercentEncoding,
            Scheme, Smtputf8, UnqualifiedHost, Url,
        };
        for (uri, reason) in [
            ("", NoUri),
            ("a@b.example", NoUri),
            ("mailto:", MailAddress),
            ("mailto:a", MailAddress),
            ("mailto:a@[192.0.2.1]", AddressLiteral),
            ("mailto:a%zz@b.example", PercentEncoding),
            ("mailto:a@b.example!10m", ExclamationMark),
            ("https://b.example/a!10m", ExclamationMark),
            ("http://b.example/", Scheme),
            ("https:b.example", Url(UrlError::Scheme)),
            ("https://192.0.2.1/", Url(UrlError::Host)),
            ("https://[::1]/", Url(UrlError::Port)),
            ("https://localhost/", UnqualifiedHost),
            ("https://b.example/#f", Url(UrlError::Path)),
            ("https://u:p@b.example/", Url(UrlError::Port)),
            ("https://b.example:0/", Url(UrlError::Port)),
            ("https://b.example:x/", Url(UrlError::Port)),
            ("https://b.example/a b", Character),
            ("https://b.example/\u{e9}", Character),
            ("mailto:%c3%a9@b.example", Smtputf8),
            ("https://b.example/\"x\"", Url(UrlError::Path)),
        ] {
            let unusable = vec![UnusableDestination {
                uri: escape(uri),
                reason,
            }];
            assert_eq!(
                read(&format!("v=TLSRPTv1;rua={uri}")),
                Err(TlsRptRecordError::Unusable(unusable)),
                "{uri}"
            );
        }
        let error = read("v=TLSRPTv1;rua=mailto:a,ftp://b.example").expect_err("neither");
        assert_eq!(
            error.to_string(),
            "no destination of the record can be used: mailto:a: it is not one mail address, \
             ftp://b.example: it is neither mailto: nor https:"
        );
    }

    #[test]
    fn several_records_are_invalid_and_other_txt_records_are_ignored() {
        let ours = "v=TLSRPTv1;rua=mailto:a@b.example".to_owned();
        assert_eq!(
            parse(&[ours.clone(), ours.clone()]),
            Err(TlsRptRecordError::Several(2))
        );
        assert!(parse(&["google-site-verification=x".to_owned(), ours]).is_ok());
        assert_eq!(parse(&[]), Err(TlsRptRecordError::None));
    }

    #[test]
    fn only_the_first_destinations_of_a_record_are_used() {
        let many: Vec<String> = (0..50).map(|n| format!("mailto:a{n}@b.example")).collect();
        let record = parse(&[format!("v=TLSRPTv1;rua={}", many.join(","))]).expect("good");
        assert_eq!(
            (record.destinations.len(), record.unusable.len()),
            (DESTINATIONS_MAX, DESTINATIONS_MAX)
        );
    }
}
