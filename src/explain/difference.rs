//! What another configuration would treat differently: tables, domains, and messages that wait.
//!
//! It compares what the two files mean, not what they say, and asks nobody.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use crate::address::Host;
use crate::config::{ChangedKey, Config, DomainPattern, Section, changed_keys, outbound_settings, sections};
use crate::connector::Connectors;
use crate::envelope::QueueId;

/// Ids of messages that are named for one domain, at most.
const IDS_MAX: usize = 10;
/// Domains that are named, at most; the rest is counted.
const DOMAINS_MAX: usize = 200;

/// Two configurations, compared.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Difference {
    /// Tables that are new, gone or changed.
    pub changes: Vec<Change>,
    /// Patterns for which another connector speaks.
    pub winners: Vec<Winner>,
    /// Recipient domains in the queue whose mail would be treated differently, the most messages first.
    pub queued: Vec<Queued>,
    /// How many more such domains there are.
    pub queued_more: usize,
}

/// A table that is not the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `[queue]`, `[[connector]] partner`; empty for what stands before the first table.
    pub table: String,
    /// `added`, `removed` or `changed`.
    pub what: &'static str,
    /// Which of its keys changed.
    pub keys: Vec<ChangedKey>,
}

/// A pattern for which another connector speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Winner {
    /// The pattern.
    pub pattern: String,
    /// Who spoke.
    pub old: String,
    /// Who speaks.
    pub new: String,
}

/// A recipient domain whose messages would be treated differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Queued {
    /// The domain.
    pub domain: String,
    /// Which connector speaks for it now.
    pub old: String,
    /// Which would.
    pub new: String,
    /// What would be different.
    pub keys: Vec<ChangedKey>,
    /// How many messages wait for it.
    pub messages: usize,
    /// The first of them.
    pub ids: Vec<QueueId>,
}

/// What waits in the queue, by recipient domain.
#[derive(Debug, Default)]
pub struct Waiting(BTreeMap<Host, (usize, Vec<QueueId>)>);

impl Waiting {
    /// Counts a message, with the domains of its recipients that are still open.
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

    /// How many domains there are.
    #[must_use]
    pub fn domains(&self) -> usize {
        self.0.len()
    }
}

impl Difference {
    /// Compares two configurations, and what they mean for messages that wait.
    #[must_use]
    pub fn between(old: &Config, new: &Config, waiting: &Waiting) -> Self {
        let connectors = |config: &Config| Connectors::of(config);
        let (was, will) = (connectors(old), connectors(new));
        let mut queued = queued(&was, &will, waiting);
        let queued_more = queued.len().saturating_sub(DOMAINS_MAX);
        queued.truncate(DOMAINS_MAX);
        Self {
            changes: changes(&sections(old), &sections(new)),
            winners: winners(old, new, &was, &will),
            queued,
            queued_more,
        }
    }

    /// Whether the two mean the same.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.changes.is_empty() && self.winners.is_empty() && self.queued.is_empty()
    }
}

fn changes(old: &[Section], new: &[Section]) -> Vec<Change> {
    let by_title = |sections: &[Section]| -> HashMap<String, Vec<_>> {
        sections.iter().map(|section| (section.title.clone(), section.pairs.clone())).collect()
    };
    let (was, will) = (by_title(old), by_title(new));
    let change = |table: &String, what, keys| Change { table: table.clone(), what, keys };
    let mut all = Vec::new();
    for Section { title, pairs } in old {
        match will.get(title).map(|new| changed_keys(pairs, new)) {
            None => all.push(change(title, "removed", Vec::new())),
            Some(keys) if keys.is_empty() => {}
            Some(keys) => all.push(change(title, "changed", keys)),
        }
    }
    let added = new.iter().filter(|section| !was.contains_key(&section.title));
    all.extend(added.map(|section| change(&section.title, "added", Vec::new())));
    all
}

/// Every pattern of either file: what no file names is named by no pattern either, and has the default in both.
fn winners(old: &Config, new: &Config, was: &Connectors, will: &Connectors) -> Vec<Winner> {
    let patterns = |config: &Config| -> Vec<DomainPattern> {
        config.connectors.iter().flat_map(|connector| connector.domains.clone()).collect()
    };
    let all: BTreeMap<String, DomainPattern> =
        [patterns(old), patterns(new)].concat().into_iter().map(|pattern| (pattern.to_string(), pattern)).collect();
    let winner = |(text, pattern): (String, DomainPattern)| {
        let (old, new) = (was.for_pattern(&pattern).name.clone(), will.for_pattern(&pattern).name.clone());
        (old != new).then_some(Winner { pattern: text, old, new })
    };
    all.into_iter().filter_map(winner).collect()
}

fn queued(was: &Connectors, will: &Connectors, waiting: &Waiting) -> Vec<Queued> {
    let different = |(domain, (messages, ids)): (&Host, &(usize, Vec<QueueId>))| {
        let (old, new) = (was.for_host(domain), will.for_host(domain));
        let keys = changed_keys(&outbound_settings(old), &outbound_settings(new));
        (!keys.is_empty()).then(|| Queued {
            domain: domain.to_string(),
            old: old.name.clone(),
            new: new.name.clone(),
            keys,
            messages: *messages,
            ids: ids.clone(),
        })
    };
    let mut all: Vec<_> = waiting.0.iter().filter_map(different).collect();
    all.sort_by(|one, other| other.messages.cmp(&one.messages).then_with(|| one.domain.cmp(&other.domain)));
    all
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse;

    const OWN: &str = "hostname = \"relay.example.com\"\npostmaster = \"postmaster@example.com\"\n";
    const LISTENER: &str = "[[listener]]\nname = \"mx\"\naddress = [\"127.0.0.1:2525\"]\ntls = \"off\"\n";

    fn config(rest: &str) -> Config {
        match parse(&format!("{OWN}{LISTENER}{rest}"), Path::new("/etc/gatepost/gatepost.toml")) {
            Ok((config, _)) => config,
            Err(faults) => panic!("{faults:?}"),
        }
    }

    fn partner(name: &str, domains: &str, outbound: &str) -> String {
        format!("[[connector]]\nname = \"{name}\"\ndomains = [{domains}]\n[connector.outbound]\n{outbound}\n")
    }

    fn waiting(messages: &[&[&str]]) -> Waiting {
        let mut all = Waiting::default();
        for (number, domains) in (1..).zip(messages) {
            let hosts: Vec<_> = domains.iter().map(|text| Host::parse(text).expect("a host")).collect();
            all.add(QueueId::from_number(number).expect("small"), hosts.iter());
        }
        all
    }

    /// Differences, one a line.
    fn said(old: &str, new: &str, messages: &[&[&str]]) -> Vec<String> {
        let found = Difference::between(&config(old), &config(new), &waiting(messages));
        let keys = |keys: &[ChangedKey]| {
            keys.iter().map(|key| format!(" {}: {} to {}", key.key, key.old, key.new)).collect::<Vec<_>>().concat()
        };
        let mut all: Vec<_> =
            found.changes.iter().map(|one| format!("{} {}{}", one.table, one.what, keys(&one.keys))).collect();
        all.extend(found.winners.iter().map(|one| format!("{}: {} to {}", one.pattern, one.old, one.new)));
        all.extend(
            found
                .queued
                .iter()
                .map(|one| format!("{} {}: {} to {}{}", one.messages, one.domain, one.old, one.new, keys(&one.keys))),
        );
        all
    }

    #[test]
    fn what_means_the_same_is_no_difference() {
        let one = partner("a", "\"a.example\"", "tls = \"forced\"");
        let two = partner("b", "\"b.example\"", "");
        let written_out =
            partner("a", "\"A.example\"", "verify = \"none\"\ntls = \"forced\"\ndowngrade = \"warn\"\n# x");
        let old = format!("{one}{two}[queue]\nexpire = \"5d\"\n");
        assert_eq!(said(&old, &format!("{two}{written_out}"), &[&["a.example", "b.example"]]), Vec::<String>::new());
    }

    #[test]
    fn each_changed_key_is_told_with_both_values_and_the_mail_that_it_concerns() {
        let old = partner("a", "\"a.example\"", "tls = \"opportunistic\"");
        let new = partner("a", "\"a.example\"", "tls = \"forced\"\nconnections = 3");
        let keys = " outbound.tls: \"opportunistic\" to \"forced\" outbound.verify: - to \"none\" \
                    outbound.min_version: - to \"1.2\" outbound.connections: 20 to 3";
        assert_eq!(
            said(&old, &new, &[&["a.example", "c.example"], &["a.example"], &["b.example"]]),
            [format!("[[connector]] a changed{keys}"), format!("2 a.example: a to a{keys}")]
        );
    }

    #[test]
    fn connectors_come_and_go_and_domains_change_hands() {
        let any = partner("internet", "\"*\"", "");
        let old = format!("{any}{}", partner("a", "\"a.example\", \"*.a.example\"", "tls = \"forced\""));
        let new = format!("{any}{}", partner("b", "\"a.example\"", "tls = \"forced\""));
        assert_eq!(
            said(&old, &new, &[&["a.example"], &["x.a.example"]]),
            [
                "[[connector]] a removed",
                "[[connector]] b added",
                "*.a.example: a to internet",
                "a.example: a to b",
                // What waits for a.example is treated as before, though by another connector.
                "1 x.a.example: a to internet outbound.tls: \"forced\" to \"opportunistic\" \
                 outbound.verify: \"none\" to - outbound.min_version: \"1.2\" to -",
            ]
        );
    }

    #[test]
    fn inbound_limits_and_listeners_are_told_and_concern_no_queued_mail() {
        let old = partner("a", "\"a.example\"", "");
        let new = format!(
            "{old}[connector.inbound]\nnetworks = [\"192.0.2.0/24\"]\n[limits]\nrecipients = 200\n\
                           [[listener]]\nname = \"two\"\naddress = [\"127.0.0.1:2526\"]\ntls = \"off\"\n"
        );
        assert_eq!(
            said(&old, &new, &[&["a.example"]]),
            [
                "[limits] changed recipients: 1000 to 200",
                "[[connector]] a changed inbound.networks: [] to [\"192.0.2.0/24\"]",
                "[[listener]] two added",
            ]
        );
    }

    #[test]
    fn what_is_named_is_bounded() {
        let domains: Vec<String> = (0..300).map(|number| format!("d{number}.example")).collect();
        let messages: Vec<Vec<&str>> = (0..30).map(|_| domains.iter().map(String::as_str).collect()).collect();
        let messages: Vec<&[&str]> = messages.iter().map(Vec::as_slice).collect();
        let forced = config(&partner("any", "\"*\"", "tls = \"forced\""));
        let found = Difference::between(&config(""), &forced, &waiting(&messages));
        assert_eq!((found.queued.len(), found.queued_more), (200, 100));
        assert_eq!((found.queued[0].messages, found.queued[0].ids.len()), (30, 10));
    }
}
