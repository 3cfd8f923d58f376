//! The differences between two configurations: tables, connectors of domains, and queued messages
//! that would be treated differently.
//!
//! The comparison is of the meaning, with all defaults, and not of the text. It sends no query.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use crate::config::{
    ChangedKey, Config, DomainPattern, Section, changed_keys, outbound_settings, sections,
};
use crate::policy::connector::Connectors;
use crate::smtp::address::Host;
use crate::smtp::envelope::QueueId;

/// The maximum number of message ids that are listed for one domain.
const IDS_MAX: usize = 10;
/// The maximum number of domains that are listed; further ones are counted.
const DOMAINS_MAX: usize = 200;

/// The differences between two configurations. The field names are those of the JSON output.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Difference {
    /// The tables that are added, removed or changed.
    pub changes: Vec<SectionChange>,
    /// The domain patterns that have another connector.
    pub winners: Vec<ConnectorChange>,
    /// The recipient domains in the queue whose mail would be treated differently, the most
    /// messages first.
    pub queued: Vec<QueuedDomain>,
    /// The number of such domains that are not listed in `queued`.
    pub queued_more: usize,
}

/// A difference in one table of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SectionChange {
    /// The title: `[queue]`, `[[connector]] partner`; empty for the keys before the first table.
    pub table: String,
    /// `added`, `removed` or `changed`.
    pub what: &'static str,
    /// The keys that differ.
    pub keys: Vec<ChangedKey>,
}

/// A domain pattern that has another connector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConnectorChange {
    /// The pattern.
    pub pattern: String,
    /// The name of its connector in the old configuration.
    pub old: String,
    /// The name of its connector in the new configuration.
    pub new: String,
}

/// A recipient domain whose queued messages would be treated differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueuedDomain {
    /// The domain.
    pub domain: String,
    /// The name of its connector in the old configuration.
    pub old: String,
    /// The name of its connector in the new configuration.
    pub new: String,
    /// The keys that differ.
    pub keys: Vec<ChangedKey>,
    /// The number of queued messages for the domain.
    pub messages: usize,
    /// The ids of the first of these messages.
    pub ids: Vec<QueueId>,
}

/// The queued messages by recipient domain: their number, and the ids of the first ones.
#[derive(Debug, Default)]
pub struct QueuedMessages(BTreeMap<Host, (usize, Vec<QueueId>)>);

impl QueuedMessages {
    /// Adds a message, with the domains of its open recipients.
    pub fn add<'a>(&mut self, id: QueueId, domains: impl Iterator<Item = &'a Host>) {
        for domain in domains.collect::<BTreeSet<_>>() {
            let (messages, ids) = match self.0.get_mut(domain) {
                Some(known) => known,
                None => self.0.entry(domain.clone()).or_default(),
            };
            *messages += 1;
            if ids.len() < IDS_MAX {
                ids.push(id);
            }
        }
    }

    /// Returns the number of domains.
    #[must_use]
    pub fn domains(&self) -> usize {
        self.0.len()
    }
}

impl Difference {
    /// Compares two configurations, and how they treat the queued messages.
    #[must_use]
    pub fn between(old: &Config, new: &Config, waiting: &QueuedMessages) -> Self {
        let (old_connectors, new_connectors) = (old.connectors(), new.connectors());
        let mut queued = queued(&old_connectors, &new_connectors, waiting);
        let queued_more = queued.len().saturating_sub(DOMAINS_MAX);
        queued.truncate(DOMAINS_MAX);
        Self {
            changes: changes(&sections(old), &sections(new)),
            winners: winners(old, new, &old_connectors, &new_connectors),
            queued,
            queued_more,
        }
    }

    /// Returns true if the two configurations mean the same.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.changes.is_empty() && self.winners.is_empty() && self.queued.is_empty()
    }
}

fn changes(old: &[Section], new: &[Section]) -> Vec<SectionChange> {
    let by_title = |sections: &[Section]| -> HashMap<String, Vec<_>> {
        sections
            .iter()
            .map(|section| (section.title.clone(), section.pairs.clone()))
            .collect()
    };
    let (old_by_title, new_by_title) = (by_title(old), by_title(new));
    let change = |table: &String, what, keys| SectionChange {
        table: table.clone(),
        what,
        keys,
    };
    let mut all = Vec::new();
    for Section { title, pairs } in old {
        match new_by_title.get(title).map(|new| changed_keys(pairs, new)) {
            None => all.push(change(title, "removed", Vec::new())),
            Some(keys) if keys.is_empty() => {}
            Some(keys) => all.push(change(title, "changed", keys)),
        }
    }
    let added = new
        .iter()
        .filter(|section| !old_by_title.contains_key(&section.title));
    all.extend(added.map(|section| change(&section.title, "added", Vec::new())));
    all
}

/// Returns the patterns that have another connector. Only patterns of the two files are compared: a
/// domain that matches none of them has the built-in default in both.
fn winners(
    old: &Config,
    new: &Config,
    old_connectors: &Connectors,
    new_connectors: &Connectors,
) -> Vec<ConnectorChange> {
    let patterns = |config: &Config| -> Vec<DomainPattern> {
        config
            .connectors
            .iter()
            .flat_map(|connector| connector.domains.clone())
            .collect()
    };
    let all: BTreeMap<String, DomainPattern> = [patterns(old), patterns(new)]
        .concat()
        .into_iter()
        .map(|pattern| (pattern.to_string(), pattern))
        .collect();
    let winner = |(text, pattern): (String, DomainPattern)| {
        let old = old_connectors.for_pattern(&pattern).name.clone();
        let new = new_connectors.for_pattern(&pattern).name.clone();
        (old != new).then_some(ConnectorChange {
            pattern: text,
            old,
            new,
        })
    };
    all.into_iter().filter_map(winner).collect()
}

/// Returns the queued domains whose connectors differ in at least one key, the most messages first.
fn queued(
    old_connectors: &Connectors,
    new_connectors: &Connectors,
    waiting: &QueuedMessages,
) -> Vec<QueuedDomain> {
    let different = |(domain, (messages, ids)): (&Host, &(usize, Vec<QueueId>))| {
        let (old, new) = (
            old_connectors.for_host(domain),
            new_connectors.for_host(domain),
        );
        let keys = changed_keys(&outbound_settings(old), &outbound_settings(new));
        (!keys.is_empty()).then(|| QueuedDomain {
            domain: domain.to_string(),
            old: old.name.clone(),
            new: new.name.clone(),
            keys,
            messages: *messages,
            ids: ids.clone(),
        })
    };
    let mut all: Vec<_> = waiting.0.iter().filter_map(different).collect();
    all.sort_by(|one, other| {
        other
            .messages
            .cmp(&one.messages)
            .then_with(|| one.domain.cmp(&other.domain))
    });
    all
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse;

    const OWN: &str = "hostname = \"relay.example.com\"\npostmaster = \"postmaster@example.com\"\n";
    const LISTENER: &str =
        "[[listener]]\nname = \"mx\"\naddress = [\"127.0.0.1:2525\"]\ntls = \"off\"\n";

    fn config(rest: &str) -> Config {
        match parse(
            &format!("{OWN}{LISTENER}{rest}"),
            Path::new("/etc/gatepost/gatepost.toml"),
        ) {
            Ok((config, _)) => config,
            Err(faults) => panic!("{faults:?}"),
        }
    }

    fn partner(name: &str, domains: &str, outbound: &str) -> String {
        format!(
            "[[connector]]\nname = \"{name}\"\ndomains = [{domains}]\n[connector.outbound]\n{outbound}\n"
        )
    }

    fn waiting(messages: &[&[&str]]) -> QueuedMessages {
        let mut all = QueuedMessages::default();
        for (number, domains) in (1..).zip(messages) {
            let hosts: Vec<_> = domains
                .iter()
                .map(|text| Host::parse(text).expect("a host"))
                .collect();
            all.add(QueueId::from_number(number).expect("small"), hosts.iter());
        }
        all
    }

    /// Compares two configurations and returns the differences as text, one on each line.
    fn differences(old: &str, new: &str, messages: &[&[&str]]) -> Vec<String> {
        let found = Difference::between(&config(old), &config(new), &waiting(messages));
        let keys = |keys: &[ChangedKey]| {
            keys.iter()
                .map(|key| format!(" {}: {} to {}", key.key, key.old, key.new))
                .collect::<Vec<_>>()
                .concat()
        };
        let mut all: Vec<_> = found
            .changes
            .iter()
            .map(|one| format!("{} {}{}", one.table, one.what, keys(&one.keys)))
            .collect();
        all.extend(
            found
                .winners
                .iter()
                .map(|one| format!("{}: {} to {}", one.pattern, one.old, one.new)),
        );
        all.extend(found.queued.iter().map(|one| {
            format!(
                "{} {}: {} to {}{}",
                one.messages,
                one.domain,
                one.old,
                one.new,
                keys(&one.keys)
            )
        }));
        all
    }

    #[test]
    fn another_spelling_of_the_same_meaning_is_no_difference() {
        let one = partner("a", "\"a.example\"", "tls = \"forced\"");
        let two = partner("b", "\"b.example\"", "");
        let written_out = partner(
            "a",
            "\"A.example\"",
            "verify = \"none\"\ntls = \"forced\"\ndowngrade = \"warn\"\n# x",
        );
        let old = format!("{one}{two}[queue]\nexpire = \"5d\"\n");
        let new = format!("{two}{written_out}");
        assert_eq!(
            differences(&old, &new, &[&["a.example", "b.example"]]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_changed_key_has_both_values_and_the_queued_mail_it_affects() {
        let old = partner("a", "\"a.example\"", "tls = \"opportunistic\"");
        let new = partner("a", "\"a.example\"", "tls = \"forced\"\nconnections = 3");
        let keys = " outbound.tls: \"opportunistic\" to \"forced\" outbound.verify: - to \"none\" \
                    outbound.min_version: - to \"1.2\" outbound.connections: 20 to 3";
        assert_eq!(
            differences(
                &old,
                &new,
                &[&["a.example", "c.example"], &["a.example"], &["b.example"]]
            ),
            [
                format!("[[connector]] a changed{keys}"),
                format!("2 a.example: a to a{keys}")
            ]
        );
    }

    #[test]
    fn added_and_removed_connectors_are_listed_with_the_domains_they_affect() {
        let any = partner("internet", "\"*\"", "");
        let old = format!(
            "{any}{}",
            partner("a", "\"a.example\", \"*.a.example\"", "tls = \"forced\"")
        );
        let new = format!("{any}{}", partner("b", "\"a.example\"", "tls = \"forced\""));
        assert_eq!(
            differences(&old, &new, &[&["a.example"], &["x.a.example"]]),
            [
                "[[connector]] a removed",
                "[[connector]] b added",
                "*.a.example: a to internet",
                "a.example: a to b",
                // Mail for a.example is not listed: its new connector has the same keys.
                "1 x.a.example: a to internet outbound.tls: \"forced\" to \"opportunistic\" \
                 outbound.verify: \"none\" to - outbound.min_version: \"1.2\" to -",
            ]
        );
    }

    #[test]
    fn inbound_limit_and_listener_changes_affect_no_queued_mail() {
        let old = partner("a", "\"a.example\"", "");
        let new = format!(
            "{old}[connector.inbound]\nnetworks = [\"192.0.2.0/24\"]\n[limits]\nrecipients = 200\n\
                           [[listener]]\nname = \"two\"\naddress = [\"127.0.0.1:2526\"]\ntls = \"off\"\n"
        );
        assert_eq!(
            differences(&old, &new, &[&["a.example"]]),
            [
                "[limits] changed recipients: 1000 to 200",
                "[[connector]] a changed inbound.networks: [] to [\"192.0.2.0/24\"]",
                "[[listener]] two added",
            ]
        );
    }

    #[test]
    fn listed_domains_and_ids_are_limited() {
        let domains: Vec<String> = (0..300)
            .map(|number| format!("d{number}.example"))
            .collect();
        let messages: Vec<Vec<&str>> = (0..30)
            .map(|_| domains.iter().map(String::as_str).collect())
            .collect();
        let messages: Vec<&[&str]> = messages.iter().map(Vec::as_slice).collect();
        let forced = config(&partner("any", "\"*\"", "tls = \"forced\""));
        let found = Difference::between(&config(""), &forced, &waiting(&messages));
        assert_eq!((found.queued.len(), found.queued_more), (200, 100));
        assert_eq!(
            (found.queued[0].messages, found.queued[0].ids.len()),
            (30, 10)
        );
    }
}
