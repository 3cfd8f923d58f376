//! Addresses: parsed, written and parsed again; nothing is accepted that the grammar forbids.

use gatepost::smtp::address::{Domain, ForwardPath, Host, Mailbox, ReversePath};
use gatepost::smtp::envelope::QueueId;
use gatepost::policy::tls::NamePattern;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The maximum lengths of a path, a domain and a label, in octets.
const PATH_MAX: usize = 254;
const DOMAIN_MAX: usize = 253;
const LABEL_MAX: usize = 63;

pub(crate) fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(domain) = Domain::parse(text) {
        check_domain(&domain);
        check_stored(&domain);
        assert_eq!(Domain::parse(&text.to_ascii_uppercase()).as_ref(), Ok(&domain), "the case of {text:?} counts");
    }
    if let Ok(host) = Host::parse(text) {
        assert_eq!(Host::parse(&host.to_string()).as_ref(), Ok(&host), "{text:?} becomes {host}");
    }
    if let Ok(mailbox) = Mailbox::parse(text) {
        check_mailbox(text, &mailbox);
        check_stored(&mailbox);
        assert_eq!(ReversePath::parse(text), Ok(ReversePath::Mailbox(mailbox.clone())), "{text:?}");
    }
    if let Ok(path) = ReversePath::parse(text) {
        assert_eq!(ReversePath::parse(&path.to_string()).as_ref(), Ok(&path), "{text:?} becomes {path}");
        check_stored(&path);
        assert_eq!(path.mailbox().is_none(), text.is_empty(), "{text:?} is the null sender");
    }
    if let Ok(path) = ForwardPath::parse(text) {
        assert_eq!(ForwardPath::parse(&path.to_string()).as_ref(), Ok(&path), "{text:?} becomes {path}");
        check_stored(&path);
        let is_bare = text.eq_ignore_ascii_case("postmaster");
        assert_eq!(path == ForwardPath::Postmaster, is_bare, "{text:?} becomes {path}");
        if let ForwardPath::Local(local) = &path {
            check_local_part(text, local);
        }
    }
    if let Ok(pattern) = NamePattern::parse(text) {
        assert_eq!(NamePattern::parse(&pattern.to_string()).as_ref(), Ok(&pattern), "{text:?} becomes {pattern}");
        assert!(pattern.accepts(&pattern), "{pattern} does not accept itself");
    }
    if let Some(id) = QueueId::parse(text) {
        assert!(id.to_string().eq_ignore_ascii_case(text), "{text:?} becomes {id}");
    }
}

fn check_stored<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let text = serde_json::to_string(value).expect("it can be stored");
    match serde_json::from_str::<T>(&text) {
        Ok(read) => assert_eq!(&read, value, "another address is read than was stored"),
        Err(fault) => panic!("{text} cannot be read again: {fault}"),
    }
}

fn check_domain(domain: &Domain) {
    let text = domain.as_str();
    assert!((1..=DOMAIN_MAX).contains(&text.len()), "a domain of {} octets", text.len());
    assert_eq!(Domain::parse(text).as_ref(), Ok(domain), "{text:?} is another domain the second time");
    for label in text.split('.') {
        assert!((1..=LABEL_MAX).contains(&label.len()), "a label of {} octets in {text:?}", label.len());
        let is_fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        assert!(label.chars().all(is_fit), "{label:?} is no label");
        assert!(!label.starts_with('-') && !label.ends_with('-'), "{label:?} is no label");
    }
    assert!(text.parse::<std::net::IpAddr>().is_err(), "{text:?} is an address");
    assert!(!domain.is_below(domain), "{text:?} is below itself");
    let Some(parent) = domain.parent() else { return };
    assert!(domain.is_below(&parent) && !parent.is_below(domain), "{text:?} is not below {parent}");
}

fn check_mailbox(text: &str, mailbox: &Mailbox) {
    let written = mailbox.to_string();
    assert!(written.len() <= PATH_MAX, "{} octets", written.len());
    assert_eq!(Mailbox::parse(&written).as_ref(), Ok(mailbox), "{text:?} becomes {written:?}");
    let local = mailbox.local_part();
    assert!(text.starts_with(local) && text[local.len()..].starts_with('@'), "{text:?} becomes {written:?}");
    assert!(!written.chars().any(char::is_control), "a control character in {written:?}");
    check_syntax(local);
    assert_eq!(mailbox.is_ascii(), written.is_ascii(), "{written:?}");
}

/// Checks a local part alone, which is a user of this host.
fn check_local_part(text: &str, local: &str) {
    assert!(local.len() <= PATH_MAX, "{} octets", local.len());
    assert_eq!(local, text, "another user is meant");
    assert!(!local.chars().any(char::is_control), "a control character in {local:?}");
    check_syntax(local);
}

/// Checks that text is a quoted string, or atoms and dots.
fn check_syntax(local: &str) {
    let ascii = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    if let Some(quoted) = local.strip_prefix('"') {
        let inner = quoted.strip_suffix('"').expect("a quoted string ends");
        let mut escaped = false;
        for c in inner.chars() {
            assert!(escaped || c != '"', "a quoted string goes on behind its end: {local}");
            escaped = !escaped && c == '\\';
        }
        assert!(!escaped, "a quoted string has no end: {local}");
    } else {
        assert!(!local.is_empty() && local.chars().all(ascii), "no dot-atom: {local:?}");
        assert!(!local.chars().any(char::is_whitespace), "a blank: {local:?}");
    }
}
