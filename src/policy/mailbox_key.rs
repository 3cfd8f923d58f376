//! The form of a mailbox by which lists and remembered answers are searched.

use crate::smtp::address::{Domain, Host, Mailbox};

/// A mailbox without the differences of spelling that mailbox servers ignore: letter case, and the
/// quotes of a local part (RFC 5321 §4.1.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MailboxKey(Box<str>);

impl MailboxKey {
    /// Makes the key of a mailbox.
    #[must_use]
    pub fn new(mailbox: &Mailbox) -> Self {
        let (local, host) = (mailbox.local_part(), mailbox.host());
        let domain = host.domain().map_or("", Domain::as_str);
        // This is made for each RCPT: one allocation does.
        let mut key = String::with_capacity(local.len() + 1 + domain.len());
        push_unquoted(local, &mut key);
        if key.is_ascii() {
            key.make_ascii_lowercase();
        } else {
            key = key.to_lowercase();
        }
        key.push('@');
        match host {
            Host::Domain(domain) => key.push_str(domain.as_str()),
            Host::Literal(_) => key.push_str(&host.to_string()),
        }
        Self(key.into_boxed_str())
    }

    /// Returns the key without the plus-tag: `user@` for `user+tag@`; `None` if it has none.
    #[must_use]
    pub fn without_tag(&self) -> Option<Self> {
        let (local, domain) = self.0.rsplit_once('@')?;
        let (user, _) = local.split_once('+')?;
        (!user.is_empty()).then(|| Self(format!("{user}@{domain}").into_boxed_str()))
    }

    /// Returns true if the local part has a sign that separates tags at some mailbox servers, `+`
    /// or `-`.
    #[must_use]
    pub fn may_have_tag(&self) -> bool {
        let local = self.0.rsplit_once('@').map_or("", |(local, _)| local);
        local.contains(['+', '-'])
    }
}

/// Appends a local part without its quotes and backslashes.
fn push_unquoted(local: &str, text: &mut String) {
    let inner = local
        .strip_prefix('"')
        .and_then(|local| local.strip_suffix('"'));
    let Some(inner) = inner else {
        return text.push_str(local);
    };
    let mut is_escaped = false;
    for c in inner.chars() {
        is_escaped = c == '\\' && !is_escaped;
        if !is_escaped {
            text.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> MailboxKey {
        MailboxKey::new(&Mailbox::parse(text).expect("a mailbox"))
    }

    #[test]
    fn spellings_of_one_mailbox_have_one_key() {
        let user = key("user@example.com");
        for same in [
            "USER@example.com",
            "user@EXAMPLE.com",
            "\"user\"@example.com",
            "\"u\\s\\Er\"@example.com",
        ] {
            assert_eq!(key(same), user, "{same}");
        }
        for other in [
            "user@example.net",
            "usr@example.com",
            "\"user \"@example.com",
            "\"user\\\\\"@example.com",
            "\"user@example.com\"@example.com",
            "user@[192.0.2.1]",
        ] {
            assert_ne!(key(other), user, "{other}");
        }
        assert_eq!(key("JÜRGEN@example.com"), key("jürgen@example.com"));
        assert_eq!(key("\"a\\\\b\"@example.com").0, "a\\b@example.com".into());
    }

    #[test]
    fn a_tag_begins_with_the_first_plus() {
        for (text, untagged, may_have_tag) in [
            ("user@example.com", None, false),
            ("User+a+b@example.com", Some("user@example.com"), true),
            ("\"user+a\"@example.com", Some("user@example.com"), true),
            ("+user@example.com", None, true),
            ("user-a@example.com", None, true),
            ("user@my-example.com", None, false),
        ] {
            assert_eq!(key(text).without_tag(), untagged.map(key), "{text}");
            assert_eq!(key(text).may_have_tag(), may_have_tag, "{text}");
        }
    }
}
