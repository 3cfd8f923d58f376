//! A list of recipients: addresses and `@domain`s, one a line.

use std::collections::HashSet;

use super::mailbox_key::MailboxKey;
use crate::smtp::address::{Domain, Host, Mailbox};

/// The most faults of one file that are reported.
const FAULTS_MAX: usize = 20;

/// The recipients of a file. Letter case is ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecipientList {
    addresses: HashSet<MailboxKey>,
    domains: HashSet<Domain>,
}

/// A line that is not a recipient.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipientListFault {
    /// The line is neither an address nor `@` and a domain.
    #[error(
        "\"{0}\" is not a recipient: write user@example.com, or @example.com for all of a domain"
    )]
    NotARecipient(String),
    /// There is no recipient at all.
    #[error("the file lists no recipient, so that all mail would be rejected")]
    Empty,
}

impl RecipientList {
    /// Parses the text of a file. Empty lines are ignored, and so is everything from a `#` at the
    /// beginning of a line or after a space.
    ///
    /// # Errors
    /// The number of each line with a fault, the first twenty.
    pub fn parse(text: &str) -> Result<Self, Vec<(u32, RecipientListFault)>> {
        let (mut list, mut faults) = (Self::default(), Vec::new());
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (number, line) in (1..).zip(text.lines()) {
            let written = without_comment(line).trim();
            if !written.is_empty() && !list.add(written) {
                let shown = written.chars().take(80).collect();
                faults.push((number, RecipientListFault::NotARecipient(shown)));
                if faults.len() == FAULTS_MAX {
                    break;
                }
            }
        }
        if faults.is_empty() && list.addresses.is_empty() && list.domains.is_empty() {
            faults.push((1, RecipientListFault::Empty));
        }
        if faults.is_empty() {
            Ok(list)
        } else {
            Err(faults)
        }
    }

    fn add(&mut self, written: &str) -> bool {
        if let Some(domain) = written.strip_prefix('@') {
            return Domain::parse(domain).is_ok_and(|domain| {
                self.domains.insert(domain);
                true
            });
        }
        match Mailbox::parse(written) {
            Ok(mailbox) if matches!(mailbox.host(), Host::Domain(_)) => {
                self.addresses.insert(MailboxKey::new(&mailbox));
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    /// The number of addresses, and of domains.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.addresses.len(), self.domains.len())
    }

    /// Returns true if the mailbox is listed, by its address or by its domain, or with `plus_tags` by
    /// its address without a plus-tag.
    #[must_use]
    pub fn contains(&self, mailbox: &Mailbox, plus_tags: bool) -> bool {
        if mailbox
            .host()
            .domain()
            .is_some_and(|domain| self.domains.contains(domain))
        {
            return true;
        }
        let key = MailboxKey::new(mailbox);
        let is_listed = |key: &MailboxKey| self.addresses.contains(key);
        is_listed(&key) || plus_tags && key.without_tag().is_some_and(|key| is_listed(&key))
    }
}

/// Returns the part of a line before its comment. A `#` within an address is a part of that (RFC
/// 5322 §3.2.3).
fn without_comment(line: &str) -> &str {
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        if c == '#' && before.is_whitespace() {
            return &line[..at];
        }
        before = c;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\u{feff}# our people\n\nalice@example.com\n  Bob.B@Example.com  # sales\n\
                        @all.example.com\nx#y@example.com\r\nlist+a@example.com\nJürgen@example.com\n";

    #[test]
    fn recipients_are_listed_by_address_domain_and_without_a_tag() {
        let list = RecipientList::parse(TEXT).expect("a list");
        assert_eq!(list.counts(), (5, 1));
        for (mailbox, wanted) in [
            ("alice@example.com", true),
            ("ALICE@EXAMPLE.COM", true),
            ("\"alice\"@example.com", true),
            ("alice+x+y@example.com", true),
            ("alice@example.net", false),
            ("alice-x@example.com", false),
            ("alic@example.com", false),
            ("+alice@example.com", false),
            ("bob.b@example.com", true),
            ("bobb@example.com", false),
            ("anybody@all.example.com", true),
            ("anybody@below.all.example.com", false),
            ("x#y@example.com", true),
            ("x@example.com", false),
            ("list+a@example.com", true),
            ("list@example.com", false),
            ("list+b@example.com", false),
            ("jürgen@example.com", true),
            ("alice@[192.0.2.1]", false),
        ] {
            let mailbox = Mailbox::parse(mailbox).expect("a mailbox");
            assert_eq!(list.contains(&mailbox, true), wanted, "{mailbox}");
        }
        for (mailbox, wanted) in [
            ("alice@example.com", true),
            ("alice+x@example.com", false),
            ("list+a@example.com", true),
            ("any+tag@all.example.com", true),
        ] {
            let mailbox = Mailbox::parse(mailbox).expect("a mailbox");
            assert_eq!(list.contains(&mailbox, false), wanted, "{mailbox}");
        }
    }

    #[test]
    fn each_line_with_a_fault_is_named() {
        let text = "a@example.com\nalice\n@\nb@[192.0.2.1]\n# fine\nc@example.com d@example.com\n";
        let faults = RecipientList::parse(text).expect_err("faults");
        let lines: Vec<u32> = faults.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 3, 4, 6]);
        let many = "x\n".repeat(1000);
        assert_eq!(
            RecipientList::parse(&many).expect_err("faults").len(),
            FAULTS_MAX
        );
    }

    /// A script that fails halfway leaves an empty file, and must not make all mail bounce.
    #[test]
    fn a_list_without_a_recipient_is_a_fault() {
        for text in ["", "\n\n", "# nobody\n"] {
            assert_eq!(
                RecipientList::parse(text),
                Err(vec![(1, RecipientListFault::Empty)]),
                "{text:?}"
            );
        }
    }
}
