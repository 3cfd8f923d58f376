//! The decision which messages of another node this one may send: those that the configurations of both
//! nodes treat alike. Nodes that share a spool publish what others compare.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::smtp::address::{Host, Mailbox};
use crate::smtp::envelope::{Envelope, Recipient};

/// The configuration of a node, as far as others compare it. It is published as JSON, so a field keeps
/// its name once it has been released.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeConfig {
    /// The SHA-256 of the configuration as it is written, in hexadecimal digits.
    pub digest: String,
    /// The SHA-256 of all that decides how mail is sent: of the connectors here.
    pub rules: String,
    /// The connectors in the order of the file, and the built-in one at the end.
    pub connectors: Vec<PublishedConnector>,
}

/// A connector of a node that others may compare with their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedConnector {
    /// The name.
    pub name: String,
    /// The domain patterns.
    pub domains: Vec<String>,
    /// The SHA-256 of all that decides how mail by this connector is sent, in hexadecimal digits.
    pub rules: String,
}

/// The reason why a message of another node is not sent by this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyDifference {
    /// The other node has not published its configuration.
    Unpublished,
    /// The message cannot be read here: it is damaged, or its node is of a later version.
    Unreadable,
    /// Mail for a domain is not sent alike.
    Domain {
        /// The domain.
        domain: Host,
        /// The connector of the other node.
        theirs: String,
        /// The connector of this node.
        own: String,
    },
    /// The connector of the user who sent the message is not the same.
    UserConnector(String),
}

impl fmt::Display for PolicyDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unpublished => f.write_str("the configuration of the other node is not known"),
            Self::Unreadable => f.write_str(
                "it cannot be read here: it is damaged, or its node has a later version",
            ),
            Self::Domain {
                domain,
                theirs,
                own,
            } if theirs == own => {
                write!(
                    f,
                    "the connector {own}, by which mail to {domain} goes, is not the same on both nodes"
                )
            }
            Self::Domain {
                domain,
                theirs,
                own,
            } => write!(
                f,
                "mail to {domain} goes by the connector {theirs} on the other node and by {own} on this one, which differ"
            ),
            Self::UserConnector(name) => write!(
                f,
                "the connector {name} of the user who sent it is not the same on both nodes"
            ),
        }
    }
}

impl NodeConfig {
    /// Reads what a node has published. What cannot be read is as if nothing were published.
    #[must_use]
    pub fn read(json: &str) -> Self {
        serde_json::from_str(json).unwrap_or_default()
    }

    /// Returns the JSON to publish.
    #[must_use]
    pub fn to_json(&self) -> String {
        // It has texts and lists alone, which cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Returns the connector for mail to a host: the one with the most specific pattern.
    fn for_host(&self, host: &Host) -> Option<&PublishedConnector> {
        let Host::Domain(domain) = host else {
            return self.with_pattern("*");
        };
        if let Some(exactly) = self.with_pattern(&domain.to_string()) {
            return Some(exactly);
        }
        let mut above = domain.parent();
        while let Some(ancestor) = above {
            if let Some(below) = self.with_pattern(&format!("*.{ancestor}")) {
                return Some(below);
            }
            above = ancestor.parent();
        }
        self.with_pattern("*")
    }

    /// Returns the first connector with this pattern. The built-in one is the last.
    fn with_pattern(&self, pattern: &str) -> Option<&PublishedConnector> {
        let has =
            |connector: &&PublishedConnector| connector.domains.iter().any(|one| one == pattern);
        self.connectors.iter().find(has)
    }

    fn named(&self, name: &str) -> Option<&PublishedConnector> {
        self.connectors
            .iter()
            .find(|connector| connector.name == name)
    }

    /// Returns the names of the connectors that are not the same in another configuration, or missing
    /// in one of the two.
    #[must_use]
    pub fn differing_connectors<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let own = self.connectors.iter();
        let changed = own.filter(|own| other.named(&own.name) != Some(*own));
        let added = other.connectors.iter();
        let added = added.filter(|theirs| self.named(&theirs.name).is_none());
        changed
            .chain(added)
            .map(|connector| connector.name.as_str())
            .collect()
    }
}

/// Decides if a node with the configuration `own` may send a message that belonged to one with the
/// configuration `owner`: if mail to each recipient that is not finished, and a report to the sender,
/// which may become due, goes by the same rules on both. Else this node might send it weaker.
///
/// # Errors
/// The first difference.
// Rule: policy table (several relays).
pub fn may_adopt(
    owner: &NodeConfig,
    own: &NodeConfig,
    envelope: &Envelope,
) -> Result<(), PolicyDifference> {
    if owner.connectors.is_empty() || own.connectors.is_empty() {
        return Err(PolicyDifference::Unpublished);
    }
    if owner.rules == own.rules {
        return Ok(());
    }
    let rules = |connector: Option<&PublishedConnector>| connector.map(|one| one.rules.clone());
    if let Some(name) = envelope.connector.as_deref()
        && rules(owner.named(name)) != rules(own.named(name))
    {
        return Err(PolicyDifference::UserConnector(name.to_owned()));
    }
    let open = envelope.recipients.iter().filter(|one| one.state.is_open());
    let open = open.map(|recipient| recipient.mailbox.host());
    let is_due = |one: &Recipient| one.state.is_open() || one.owed.is_some();
    let sender = envelope.reverse_path.mailbox();
    let sender = sender.filter(|_| envelope.recipients.iter().any(is_due));
    for host in open.chain(sender.map(Mailbox::host)) {
        let (theirs, mine) = (owner.for_host(host), own.for_host(host));
        if rules(theirs) != rules(mine) {
            let name = |connector: Option<&PublishedConnector>| {
                connector.map_or_else(String::new, |one| one.name.clone())
            };
            return Err(PolicyDifference::Domain {
                domain: host.clone(),
                theirs: name(theirs),
                own: name(mine),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::address::ReversePath;
    use crate::smtp::envelope::{AttemptFailure, FailureHistory, RecipientState};
    use crate::smtp::reply::{EnhancedStatusCode, Status};

    /// A configuration of connectors, each written `name:pattern,pattern:rules`, and the built-in one.
    fn config(connectors: &[&str]) -> NodeConfig {
        let connectors: Vec<_> = connectors
            .iter()
            .chain(&["default:*:built-in"])
            .map(|text| {
                let mut parts = text.split(':').map(str::to_owned);
                let mut next = || parts.next().expect("three parts");
                PublishedConnector {
                    name: next(),
                    domains: next().split(',').map(str::to_owned).collect(),
                    rules: next(),
                }
            })
            .collect();
        NodeConfig {
            digest: String::new(),
            rules: format!("{connectors:?}"),
            connectors,
        }
    }

    fn recipient(address: &str) -> Recipient {
        Recipient::new(Mailbox::parse(address).expect("an address"))
    }

    fn envelope(recipients: Vec<Recipient>) -> Envelope {
        let sender = ReversePath::parse("a@sender.test").expect("an address");
        Envelope::new(sender, recipients)
    }

    fn to(addresses: &[&str]) -> Envelope {
        envelope(addresses.iter().map(|address| recipient(address)).collect())
    }

    #[test]
    fn mail_is_adopted_where_the_most_specific_pattern_has_the_same_rules() {
        // The owner's connectors, those of this node, the recipients, and the domain that differs.
        let cases = [
            "p:partner.example:forced | p:partner.example:forced | b@partner.example |",
            "| | b@partner.example |",
            "p:partner.example:forced | | b@partner.example | partner.example",
            "| p:partner.example:forced | b@partner.example | partner.example",
            // A connector of another domain does not matter.
            "p:partner.example:forced | | b@elsewhere.example |",
            "p:partner.example:forced | | b@sub.partner.example |",
            // A report to the sender may become due.
            "s:sender.test:forced | | b@elsewhere.example | sender.test",
            // One recipient of several is enough.
            "p:partner.example:forced | | c@one.example b@partner.example | partner.example",
            // The name does not matter, the rules do.
            "p:partner.example:forced | q:partner.example:forced | b@partner.example |",
            "p:partner.example:forced | p:partner.example:off | b@partner.example | partner.example",
            // A wildcard covers what is below it, unless there is a more specific pattern.
            "p:*.a.example:forced | p:*.example:forced | b@x.a.example |",
            "p:*.a.example:forced | p:*.example:forced | b@a.example | a.example",
            "p:*.a.example:forced | p:*.a.example:forced q:x.a.example:off | b@x.a.example | x.a.example",
            // The pattern for everything replaces the built-in connector, also for literals.
            "p:*:forced | | b@[192.0.2.1] | [192.0.2.1]",
            "p:*:built-in | | b@[192.0.2.1] |",
        ];
        for case in cases {
            let [owner, own, recipients, expected] = case
                .split('|')
                .map(|part| part.split_whitespace().collect::<Vec<_>>())
                .collect::<Vec<_>>()
                .try_into()
                .expect("four parts");
            let adopted = may_adopt(&config(&owner), &config(&own), &to(&recipients));
            let differs = adopted.err().map(|difference| match difference {
                PolicyDifference::Domain { domain, .. } => domain.to_string(),
                other => panic!("{other}"),
            });
            assert_eq!(differs.as_deref(), expected.first().copied(), "{case}");
        }
    }

    #[test]
    fn finished_recipients_do_not_matter_and_held_ones_and_owed_reports_do() {
        let (owner, own) = (
            config(&["partner:partner.example,sender.test:forced"]),
            config(&[]),
        );
        let with = |state| Recipient {
            state,
            ..recipient("b@partner.example")
        };
        let held = RecipientState::Held {
            attempts: 1,
            history: FailureHistory::default(),
        };
        let failure = AttemptFailure {
            at: jiff::Timestamp::UNIX_EPOCH,
            status: EnhancedStatusCode::permanent(Status(0, 0)),
            text: "no".to_owned(),
            explanation: None,
            host: None,
            reply: None,
        };
        let owed = Recipient {
            owed: Some(Box::new(failure)),
            ..with(RecipientState::Failed)
        };
        for (recipient, may) in [
            (with(RecipientState::Delivered), true),
            (with(RecipientState::Failed), true),
            (with(held), false),
            (owed.clone(), false),
        ] {
            let envelope = envelope(vec![recipient]);
            let adopted = may_adopt(&owner, &own, &envelope);
            assert_eq!(adopted.is_ok(), may, "{envelope:?}");
        }
        // A report about mail from nobody goes to the postmaster of whoever writes it.
        let bounce = Envelope::new(ReversePath::Null, vec![owed]);
        may_adopt(&owner, &own, &bounce).expect("nobody gets a report");
    }

    #[test]
    fn the_connector_of_a_user_must_be_the_same_and_so_must_the_recipients_own() {
        let by_user = |address: &str| Envelope {
            connector: Some("smart".into()),
            ..to(&[address])
        };
        let smart = |rules: &str| config(&[&format!("smart:smart.example:{rules}")]);
        let refused = may_adopt(&smart("one"), &smart("two"), &by_user("b@x.example"));
        assert_eq!(
            refused,
            Err(PolicyDifference::UserConnector("smart".to_owned()))
        );
        may_adopt(&smart("one"), &smart("one"), &by_user("b@x.example")).expect("the same");
        let with_floor = config(&["smart:smart.example:one", "x:x.example:forced"]);
        let refused = may_adopt(&with_floor, &smart("one"), &by_user("b@x.example"));
        assert!(
            matches!(refused, Err(PolicyDifference::Domain { .. })),
            "{refused:?}"
        );
        let refused = may_adopt(&smart("one"), &config(&[]), &by_user("b@x.example"));
        assert!(refused.is_err(), "this node does not have it");
    }

    #[test]
    fn what_a_node_publishes_is_read_again_and_what_cannot_be_read_adopts_nothing() {
        let own = config(&["partner:partner.example:forced"]);
        assert_eq!(NodeConfig::read(&own.to_json()), own);
        for text in ["", "{", "[]", "{\"digest\":\"x\"}"] {
            let refused = may_adopt(&NodeConfig::read(text), &own, &to(&["b@x.example"]));
            assert_eq!(refused, Err(PolicyDifference::Unpublished), "{text}");
        }
    }

    #[test]
    fn the_connectors_that_differ_are_named() {
        let own = config(&[
            "same:a.example:x",
            "rules:b.example:x",
            "domains:c.example:x",
            "gone:d.example:x",
        ]);
        let other = config(&[
            "new:e.example:x",
            "domains:cc.example:x",
            "rules:b.example:y",
            "same:a.example:x",
        ]);
        assert_eq!(
            own.differing_connectors(&other),
            ["rules", "domains", "gone", "new"]
        );
        assert!(own.differing_connectors(&own).is_empty());
    }
}
