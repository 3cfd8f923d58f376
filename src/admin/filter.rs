//! Which messages are meant: the parameters of `GET /v1/queue`.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::Problem;
use super::words::PAGE_MAX;
use crate::address::{Host, Mailbox, ReversePath};
use crate::envelope::QueueId;
use crate::spool::Stored;

/// Messages on a page where nothing is said.
const PAGE: usize = 200;

/// The parameters as they come.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Query {
    domain: Option<String>,
    sender: Option<String>,
    older_than: Option<u64>,
    ids: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

/// The parameters as meant.
#[derive(Debug)]
pub(super) struct Filter {
    domain: Option<Host>,
    sender: Option<ReversePath>,
    older_than: Option<Duration>,
    /// Ascending, without doubles; nothing for whatever there is.
    pub(super) ids: Option<Vec<QueueId>>,
    pub(super) after: Option<QueueId>,
    pub(super) limit: usize,
}

pub(super) fn id(text: &str) -> Result<QueueId, Problem> {
    QueueId::parse(text).ok_or_else(|| Problem::bad(format!("\"{text}\" is not a queue id")))
}

impl Filter {
    pub(super) fn parse(query: &Query) -> Result<Self, Problem> {
        let domain = query.domain.as_deref().map(Host::parse).transpose();
        let sender = query.sender.as_deref().map(|text| ReversePath::parse(bare(text))).transpose();
        let limit = query.limit.unwrap_or(PAGE);
        if limit == 0 || limit > PAGE_MAX {
            return Err(Problem::bad(format!("limit must be from 1 to {PAGE_MAX}")));
        }
        let mut ids = match &query.ids {
            Some(text) => Some(text.split(',').map(id).collect::<Result<Vec<_>, _>>()?),
            None => None,
        };
        if let Some(ids) = &mut ids {
            ids.sort_unstable();
            ids.dedup();
        }
        Ok(Self {
            domain: domain.map_err(|error| Problem::bad(format!("domain: {error}")))?,
            sender: sender.map_err(|error| Problem::bad(format!("sender: {error}")))?,
            older_than: query.older_than.map(Duration::from_secs),
            ids,
            after: query.after.as_deref().map(id).transpose()?,
            limit,
        })
    }

    pub(super) fn matches(&self, message: &Stored, now: Timestamp) -> bool {
        let age = || Duration::try_from(message.accepted.duration_until(now)).unwrap_or_default();
        self.older_than.is_none_or(|least| age() > least)
            && self.sender.as_ref().is_none_or(|sender| is_sender(sender, &message.envelope.reverse_path))
            && self.domain.as_ref().is_none_or(|domain| goes_to(domain, message))
    }
}

/// A path without its angle brackets, where it has them.
fn bare(text: &str) -> &str {
    text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(text)
}

/// Only a mailbox's own host may say whether case counts (RFC 5321 §2.4); people who look for one do not care.
fn is_sender(wanted: &ReversePath, found: &ReversePath) -> bool {
    let same = |wanted: &Mailbox, found: &Mailbox| {
        wanted.host() == found.host() && wanted.local_part().eq_ignore_ascii_case(found.local_part())
    };
    match (wanted.mailbox(), found.mailbox()) {
        (None, None) => true,
        (Some(wanted), Some(found)) => same(wanted, found),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// Whether a recipient there is still open: one that is served is no longer in the queue.
fn goes_to(domain: &Host, message: &Stored) -> bool {
    message.envelope.recipients.iter().any(|recipient| recipient.state.is_open() && recipient.mailbox.host() == domain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Envelope, Recipient, RecipientState};

    fn stored(sender: &str, recipients: &[&str], age: u64) -> Stored {
        let recipient = |text: &&str| Recipient::new(Mailbox::parse(text).expect("valid"));
        let envelope =
            Envelope::new(ReversePath::parse(sender).expect("valid"), recipients.iter().map(recipient).collect());
        let id = QueueId::from_number(7).expect("small");
        Stored { id, accepted: Timestamp::now() - Duration::from_secs(age), envelope, size: 1 }
    }

    fn meant(query: &Query, message: &Stored) -> bool {
        Filter::parse(query).expect("a good query").matches(message, Timestamp::now())
    }

    #[test]
    fn a_domain_is_that_of_any_open_recipient_in_either_spelling() {
        let mut message = stored("a@example.org", &["b@example.net", "c@bücher.example"], 0);
        let asks =
            |domain: &str, message: &Stored| meant(&Query { domain: Some(domain.into()), ..Query::default() }, message);
        for domain in ["example.net", "EXAMPLE.net", "bücher.example", "xn--bcher-kva.example"] {
            assert!(asks(domain, &message), "{domain}");
        }
        assert!(!asks("example.org", &message), "the sender's domain");
        message.envelope.recipients[0].state = RecipientState::Delivered;
        assert!(!asks("example.net", &message), "nothing for it is left");
    }

    #[test]
    fn a_sender_is_a_whole_address_or_none() {
        let asks =
            |sender: &str, message: &Stored| meant(&Query { sender: Some(sender.into()), ..Query::default() }, message);
        let (null, alice) = (stored("", &["b@example.net"], 0), stored("Alice@example.org", &["b@example.net"], 0));
        for sender in ["", "<>"] {
            assert!(asks(sender, &null) && !asks(sender, &alice), "{sender:?}");
        }
        for sender in ["alice@example.org", "<ALICE@EXAMPLE.ORG>"] {
            assert!(asks(sender, &alice) && !asks(sender, &null), "{sender:?}");
        }
        assert!(!asks("alice@example.com", &alice));
    }

    #[test]
    fn all_that_is_said_must_hold() {
        let message = stored("a@example.org", &["b@example.net"], 100);
        let query = |older_than, domain: &str| Query {
            older_than: Some(older_than),
            domain: Some(domain.into()),
            ..Query::default()
        };
        assert!(meant(&query(99, "example.net"), &message));
        assert!(!meant(&query(101, "example.net"), &message));
        assert!(!meant(&query(99, "example.com"), &message));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_in_a_sentence() {
        for (query, sentence) in [
            (
                Query { ids: Some("0000000000005,nonsense".into()), ..Query::default() },
                "\"nonsense\" is not a queue id",
            ),
            (Query { domain: Some("a b".into()), ..Query::default() }, "domain: \"a b\" is not a domain name"),
            (Query { sender: Some("alice".into()), ..Query::default() }, "sender: there is no \"@domain\""),
            (Query { limit: Some(0), ..Query::default() }, "limit must be from 1 to 1000"),
        ] {
            assert_eq!(Filter::parse(&query).expect_err("bad").1, sentence);
        }
    }
}
