//! The messages of LDAP that a search needs (RFC 4511): bind, search and STARTTLS.

use super::error::LdapError;
use crate::policy::directory::LdapFilter;
use crate::policy::directory::ber::{
    self, BOOLEAN, BerError, ENUMERATED, INTEGER, OCTET_STRING, SEQUENCE,
};
use crate::smtp::address::Mailbox;

/// The OID of the STARTTLS operation.
const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";
/// The attribute list that asks for no attribute (RFC 4511 §4.5.1.8).
const NO_ATTRIBUTES: &[u8] = b"1.1";
const VERSION: u32 = 3;
const WHOLE_SUBTREE: u32 = 2;
const NEVER_DEREFERENCE: u32 = 0;
/// The entries and the seconds that the server may take.
const SIZE_LIMIT: u32 = 1;
const TIME_LIMIT: u32 = 10;

/// The tags of operations.
const BIND_REQUEST: u8 = 0x60;
const BIND_RESPONSE: u8 = 0x61;
const SEARCH_REQUEST: u8 = 0x63;
const SEARCH_ENTRY: u8 = 0x64;
const SEARCH_DONE: u8 = 0x65;
const SEARCH_REFERENCE: u8 = 0x73;
const EXTENDED_REQUEST: u8 = 0x77;
const EXTENDED_RESPONSE: u8 = 0x78;

/// A response of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DirectoryResponse {
    /// The end of a bind.
    Bind(LdapResult),
    /// An entry that the filter matches.
    Entry,
    /// A reference to another server, which is not followed.
    Reference,
    /// The end of a search.
    Done(LdapResult),
    /// The end of an extended operation, or a notice (with message id 0).
    Extended(LdapResult),
}

/// The result code of an operation, and the server's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LdapResult {
    pub(super) code: u32,
    pub(super) text: String,
}

fn message(id: u32, operation: u8, content: &[u8]) -> Vec<u8> {
    let (mut all, mut out) = (Vec::new(), Vec::new());
    ber::write_number(&mut all, INTEGER, id);
    ber::write(&mut all, operation, content);
    ber::write(&mut out, SEQUENCE, &all);
    out
}

/// Returns a simple bind.
pub(super) fn bind(id: u32, name: &str, password: &str) -> Vec<u8> {
    let mut content = Vec::new();
    ber::write_number(&mut content, INTEGER, VERSION);
    ber::write(&mut content, OCTET_STRING, name.as_bytes());
    ber::write(&mut content, 0x80, password.as_bytes());
    message(id, BIND_REQUEST, &content)
}

/// Returns the STARTTLS operation.
pub(super) fn start_tls(id: u32) -> Vec<u8> {
    let mut content = Vec::new();
    ber::write(&mut content, 0x80, START_TLS);
    message(id, EXTENDED_REQUEST, &content)
}

/// Returns a search for one entry, without its attributes.
pub(super) fn search(id: u32, base: &str, filter: &LdapFilter, mailbox: &Mailbox) -> Vec<u8> {
    let (mut content, mut attributes) = (Vec::new(), Vec::new());
    ber::write(&mut content, OCTET_STRING, base.as_bytes());
    ber::write_number(&mut content, ENUMERATED, WHOLE_SUBTREE);
    ber::write_number(&mut content, ENUMERATED, NEVER_DEREFERENCE);
    ber::write_number(&mut content, INTEGER, SIZE_LIMIT);
    ber::write_number(&mut content, INTEGER, TIME_LIMIT);
    ber::write(&mut content, BOOLEAN, &[0xff]);
    filter.write(mailbox, &mut content);
    ber::write(&mut attributes, OCTET_STRING, NO_ATTRIBUTES);
    ber::write(&mut content, SEQUENCE, &attributes);
    message(id, SEARCH_REQUEST, &content)
}

/// Parses one message: its id, and the response.
pub(super) fn parse(octets: &[u8]) -> Result<(u32, DirectoryResponse), LdapError> {
    let (content, _) = ber::read_tag(octets, SEQUENCE)?;
    let (id, content) = ber::read_number(content, INTEGER)?;
    let (operation, content, _) = ber::read(content)?;
    let response = match operation {
        BIND_RESPONSE => DirectoryResponse::Bind(result(content)?),
        SEARCH_ENTRY => DirectoryResponse::Entry,
        SEARCH_REFERENCE => DirectoryResponse::Reference,
        SEARCH_DONE => DirectoryResponse::Done(result(content)?),
        EXTENDED_RESPONSE => DirectoryResponse::Extended(result(content)?),
        _ => return Err(LdapError::Malformed(BerError)),
    };
    Ok((id, response))
}

fn result(content: &[u8]) -> Result<LdapResult, BerError> {
    let (code, content) = ber::read_number(content, ENUMERATED)?;
    let (_, content) = ber::read_tag(content, OCTET_STRING)?;
    let (text, _) = ber::read_tag(content, OCTET_STRING)?;
    let text = String::from_utf8_lossy(text);
    let text = text.chars().filter(|c| !c.is_control()).take(200).collect();
    Ok(LdapResult { code, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_written_as_rfc_4511_says() {
        assert_eq!(
            bind(1, "cn=x", "pw").escape_ascii().to_string(),
            r"0\x12\x02\x01\x01`\r\x02\x01\x03\x04\x04cn=x\x80\x02pw"
        );
        assert_eq!(
            start_tls(2).escape_ascii().to_string(),
            r"0\x1d\x02\x01\x02w\x18\x80\x161.3.6.1.4.1.1466.20037"
        );
        let filter = LdapFilter::parse("(mail=%s)").expect("a filter");
        let mailbox = Mailbox::parse("a@b.c").expect("a mailbox");
        assert_eq!(
            search(2, "o=x", &filter, &mailbox)
                .escape_ascii()
                .to_string(),
            concat!(
                r"0/\x02\x01\x02c*\x04\x03o=x\n\x01\x02\n\x01\x00\x02\x01\x01\x02\x01\n\x01\x01\xff",
                r"\xa3\r\x04\x04mail\x04\x05a@b.c0\x05\x04\x031.1"
            )
        );
    }

    #[test]
    fn responses_are_read_and_others_are_errors() {
        let done = [0x30, 12, 2, 1, 2, 0x65, 7, 10, 1, 4, 4, 0, 4, 0];
        let result = |code, text: &str| LdapResult {
            code,
            text: text.to_owned(),
        };
        assert_eq!(
            parse(&done),
            Ok((2, DirectoryResponse::Done(result(4, ""))))
        );
        let entry = [0x30, 9, 2, 1, 2, 0x64, 4, 4, 0, 0x30, 0];
        assert_eq!(parse(&entry), Ok((2, DirectoryResponse::Entry)));
        let refused = [
            0x30, 14, 2, 1, 1, 0x61, 9, 10, 1, 49, 4, 0, 4, 2, b'n', b'o',
        ];
        assert_eq!(
            parse(&refused),
            Ok((1, DirectoryResponse::Bind(result(49, "no"))))
        );
        for malformed in [
            &[][..],
            &[0x30, 0],
            &[0x30, 3, 2, 1, 1],
            &[0x30, 5, 2, 1, 1, 0x42, 0],
            &[0x30, 7, 2, 1, 1, 0x65, 2, 10, 0],
            b"HTTP/1.1 400",
        ] {
            assert!(parse(malformed).is_err(), "{malformed:?}");
        }
    }
}
