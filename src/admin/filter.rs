//! The parameters of `GET /v1/queue`.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use super::api::PAGE_MAX;
use super::state::ErrorResponse;
use crate::policy::connector::Connectors;
use crate::smtp::address::{Host, Mailbox, ReversePath};
use crate::smtp::envelope::{Envelope, QueueId, Recipient, RecipientState};
use crate::storage::spool::StoredMessage;

/// The default length of a page.
const DEFAULT_LIMIT: usize = 200;

/// The state of a recipient that is still in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OpenRecipientState {
    /// Waiting for an attempt.
    Waiting,
    /// Held until an operator decides.
    Held,
}

/// The parameters of the request.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QueueQuery {
    domain: Option<String>,
    sender: Option<String>,
    older_than: Option<u64>,
    state: Option<OpenRecipientState>,
    connector: Option<String>,
    ids: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

/// The parsed parameters.
#[derive(Debug)]
pub(super) struct Filter {
    domain: Option<Host>,
    sender: Option<ReversePath>,
    older_than: Option<Duration>,
    state: Option<OpenRecipientState>,
    connector: Option<String>,
    /// Ascending, without duplicates. `None`: any message.
    pub(super) ids: Option<Vec<QueueId>>,
    pub(super) after: Option<QueueId>,
    pub(super) limit: usize,
}

/// Parses a queue id.
pub(super) fn parse_id(text: &str) -> Result<QueueId, ErrorResponse> {
    QueueId::parse(text)
        .ok_or_else(|| ErrorResponse::bad_request(format!("\"{text}\" is not a queue id")))
}

impl Filter {
    pub(super) fn parse(query: &QueueQuery) -> Result<Self, ErrorResponse> {
        let domain = query.domain.as_deref().map(Host::parse).transpose();
        let sender = query
            .sender
            .as_deref()
            .map(|text| ReversePath::parse(strip_brackets(text)))
            .transpose();
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
        if limit == 0 || limit > PAGE_MAX {
            return Err(ErrorResponse::bad_request(format!(
                "limit must be from 1 to {PAGE_MAX}"
            )));
        }
        let mut ids = match &query.ids {
            Some(text) => Some(
                text.split(',')
                    .map(parse_id)
                    .collect::<Result<Vec<_>, _>>()?,
            ),
            None => None,
        };
        if let Some(ids) = &mut ids {
            ids.sort_unstable();
            ids.dedup();
        }
        Ok(Self {
            domain: domain
                .map_err(|error| ErrorResponse::bad_request(format!("domain: {error}")))?,
            sender: sender
                .map_err(|error| ErrorResponse::bad_request(format!("sender: {error}")))?,
            older_than: query.older_than.map(Duration::from_secs),
            state: query.state,
            connector: query.connector.clone(),
            ids,
            after: query.after.as_deref().map(parse_id).transpose()?,
            limit,
        })
    }

    /// Returns true if a message matches; `connectors` are those in use.
    pub(super) fn matches(
        &self,
        message: &StoredMessage,
        connectors: &Connectors,
        now: Timestamp,
    ) -> bool {
        let age = || Duration::try_from(message.accepted.duration_until(now)).unwrap_or_default();
        self.older_than.is_none_or(|least| age() > least)
            && self
                .sender
                .as_ref()
                .is_none_or(|sender| is_sender(sender, &message.envelope.reverse_path))
            && (!self.has_recipient_criteria()
                || message
                    .envelope
                    .recipients
                    .iter()
                    .any(|one| self.is_recipient(one, &message.envelope, connectors)))
    }

    fn has_recipient_criteria(&self) -> bool {
        self.domain.is_some() || self.state.is_some() || self.connector.is_some()
    }

    /// Returns true if a recipient is still open and matches. A delivered recipient is no longer in
    /// the queue.
    fn is_recipient(
        &self,
        recipient: &Recipient,
        envelope: &Envelope,
        connectors: &Connectors,
    ) -> bool {
        let host = recipient.mailbox.host();
        let state = match recipient.state {
            RecipientState::Pending { .. } => OpenRecipientState::Waiting,
            RecipientState::Held { .. } => OpenRecipientState::Held,
            RecipientState::Delivered | RecipientState::Failed => return false,
        };
        self.state.is_none_or(|wanted| wanted == state)
            && self.domain.as_ref().is_none_or(|domain| domain == host)
            && self.connector.as_ref().is_none_or(|name| {
                let user_connector = envelope.connector.as_deref();
                user_connector.unwrap_or(&connectors.for_host(host).name) == name
            })
    }
}

/// Returns a path without its angle brackets.
fn strip_brackets(text: &str) -> &str {
    text.strip_prefix('<')
        .and_then(|rest| rest.strip_suffix('>'))
        .unwrap_or(text)
}

/// Compares senders. RFC 5321 §2.4 leaves it to the mailbox's host whether case counts in local
/// parts; a search ignores it.
fn is_sender(wanted: &ReversePath, found: &ReversePath) -> bool {
    let same = |wanted: &Mailbox, found: &Mailbox| {
        wanted.host() == found.host()
            && wanted.local_part().eq_ignore_ascii_case(found.local_part())
    };
    match (wanted.mailbox(), found.mailbox()) {
        (None, None) => true,
        (Some(wanted), Some(found)) => same(wanted, found),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, TrustSource};
    use crate::smtp::envelope::FailureHistory;

    fn stored(sender: &str, recipients: &[&str], age: u64) -> StoredMessage {
        let recipient = |text: &&str| Recipient::new(Mailbox::parse(text).expect("valid"));
        let envelope = Envelope::new(
            ReversePath::parse(sender).expect("valid"),
            recipients.iter().map(recipient).collect(),
        );
        let id = QueueId::from_number(7).expect("small");
        StoredMessage {
            id,
            accepted: Timestamp::now() - Duration::from_secs(age),
            envelope,
            size: 1,
        }
    }

    fn matches_query(query: &QueueQuery, message: &StoredMessage) -> bool {
        let location = config::Location {
            file: std::path::Path::new("gatepost.toml").into(),
            line: 1,
            column: 1,
        };
        let default = config::default_connector(&config::Located {
            value: TrustSource::Webpki,
            location,
        });
        let connectors = Connectors::new(&[], default);
        Filter::parse(query)
            .expect("a good query")
            .matches(message, &connectors, Timestamp::now())
    }

    #[test]
    fn state_connector_and_domain_are_those_of_one_open_recipient() {
        let mut message = stored("a@example.org", &["b@example.net", "c@example.com"], 0);
        message.envelope.recipients[0].state = RecipientState::Held {
            attempts: 1,
            history: FailureHistory::default(),
        };
        let asks =
            |state, connector: Option<&str>, domain: Option<&str>, message: &StoredMessage| {
                let (connector, domain) = (connector.map(str::to_owned), domain.map(str::to_owned));
                matches_query(
                    &QueueQuery {
                        domain,
                        state,
                        connector,
                        ..QueueQuery::default()
                    },
                    message,
                )
            };
        let (held, waiting) = (
            Some(OpenRecipientState::Held),
            Some(OpenRecipientState::Waiting),
        );
        for (state, connector, domain, expected) in [
            (held, None, None, true),
            (waiting, None, None, true),
            (held, Some("default"), Some("example.net"), true),
            (held, None, Some("example.com"), false),
            (waiting, None, Some("example.net"), false),
            (None, Some("default"), None, true),
            (None, Some("other"), None, false),
        ] {
            assert_eq!(
                asks(state, connector, domain, &message),
                expected,
                "{state:?} {connector:?} {domain:?}"
            );
        }
        message.envelope.recipients[0].state = RecipientState::Delivered;
        assert!(!asks(held, None, None, &message), "the other one waits");
    }

    #[test]
    fn a_domain_is_that_of_any_open_recipient_in_either_spelling() {
        let mut message = stored("a@example.org", &["b@example.net", "c@bücher.example"], 0);
        let asks = |domain: &str, message: &StoredMessage| {
            matches_query(
                &QueueQuery {
                    domain: Some(domain.into()),
                    ..QueueQuery::default()
                },
                message,
            )
        };
        for domain in [
            "example.net",
            "EXAMPLE.net",
            "bücher.example",
            "xn--bcher-kva.example",
        ] {
            assert!(asks(domain, &message), "{domain}");
        }
        assert!(!asks("example.org", &message), "the sender's domain");
        message.envelope.recipients[0].state = RecipientState::Delivered;
        assert!(!asks("example.net", &message), "nothing for it is left");
    }

    #[test]
    fn a_sender_is_matched_as_a_complete_address() {
        let asks = |sender: &str, message: &StoredMessage| {
            matches_query(
                &QueueQuery {
                    sender: Some(sender.into()),
                    ..QueueQuery::default()
                },
                message,
            )
        };
        let (null, alice) = (
            stored("", &["b@example.net"], 0),
            stored("Alice@example.org", &["b@example.net"], 0),
        );
        for sender in ["", "<>"] {
            assert!(asks(sender, &null) && !asks(sender, &alice), "{sender:?}");
        }
        for sender in ["alice@example.org", "<ALICE@EXAMPLE.ORG>"] {
            assert!(asks(sender, &alice) && !asks(sender, &null), "{sender:?}");
        }
        assert!(!asks("alice@example.com", &alice));
    }

    #[test]
    fn all_parameters_must_match() {
        let message = stored("a@example.org", &["b@example.net"], 100);
        let query = |older_than, domain: &str| QueueQuery {
            older_than: Some(older_than),
            domain: Some(domain.into()),
            ..QueueQuery::default()
        };
        assert!(matches_query(&query(99, "example.net"), &message));
        assert!(!matches_query(&query(101, "example.net"), &message));
        assert!(!matches_query(&query(99, "example.com"), &message));
    }

    #[test]
    fn invalid_parameters_are_rejected_with_a_sentence() {
        for (query, sentence) in [
            (
                QueueQuery {
                    ids: Some("0000000000005,nonsense".into()),
                    ..QueueQuery::default()
                },
                "\"nonsense\" is not a queue id",
            ),
            (
                QueueQuery {
                    domain: Some("a b".into()),
                    ..QueueQuery::default()
                },
                "domain: \"a b\" is not a domain name",
            ),
            (
                QueueQuery {
                    sender: Some("alice".into()),
                    ..QueueQuery::default()
                },
                "sender: there is no \"@domain\"",
            ),
            (
                QueueQuery {
                    limit: Some(0),
                    ..QueueQuery::default()
                },
                "limit must be from 1 to 1000",
            ),
        ] {
            assert_eq!(Filter::parse(&query).expect_err("bad").1, sentence);
        }
    }
}
