//! The `[[recipients]]` tables: which of them decides whether a mailbox of ours exists.
//!
//! This is a pure function of addresses and the configuration. Answers are found elsewhere. The
//! postmaster exists at every domain (RFC 5321 §4.5.1).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::policy::connector::{Connectors, DomainPattern};
use crate::policy::directory::DirectoryRules;
use crate::policy::location::{Located, Location};
use crate::smtp::address::{Domain, Mailbox};

/// A `[[recipients]]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientRules {
    /// The domains whose mailboxes it decides about; never empty, and never `*`.
    pub domains: Vec<DomainPattern>,
    /// The source of answers.
    pub source: RecipientSource,
    /// True if `user+tag` exists where `user` does.
    pub plus_tags: bool,
    /// The time for which a yes is kept.
    pub cache: Duration,
    /// The answer while the source gives none.
    pub on_trouble: OnTrouble,
    /// The position of the table.
    pub location: Location,
}

/// The most domains in a label.
const LABELLED_MAX: usize = 3;
/// The factor by which a yes is kept longer than a no.
const YES_TO_NO: u32 = 10;

impl RecipientRules {
    /// The time for which a no is kept.
    #[must_use]
    pub fn cache_of_no(&self) -> Duration {
        self.cache / YES_TO_NO
    }

    /// The domains in one text.
    #[must_use]
    pub fn name(&self) -> String {
        join(&self.domains)
    }

    /// The first domains in one text, for logs and metrics.
    #[must_use]
    pub fn label(&self) -> String {
        match self.domains.split_at_checked(LABELLED_MAX) {
            Some((first, more)) if !more.is_empty() => {
                format!("{} and {} more", join(first), more.len())
            }
            _ => self.name(),
        }
    }

    /// Splits a table whose source is asked by connectors, one part for each connector, so that a
    /// server that hangs does not hold up questions at the others.
    #[must_use]
    pub fn by_connector(self: &Arc<Self>, connectors: &Connectors) -> Vec<Arc<Self>> {
        if self.source != RecipientSource::Ask {
            return vec![Arc::clone(self)];
        }
        let mut parts: Vec<(&str, Vec<DomainPattern>)> = Vec::new();
        for pattern in &self.domains {
            let name = connectors.for_pattern(pattern).name.as_str();
            match parts.iter_mut().find(|(part, _)| *part == name) {
                Some((_, domains)) => domains.push(pattern.clone()),
                None => parts.push((name, vec![pattern.clone()])),
            }
        }
        let part = |(_, domains)| {
            Arc::new(Self {
                domains,
                ..Self::clone(self)
            })
        };
        parts.into_iter().map(part).collect()
    }
}

fn join(domains: &[DomainPattern]) -> String {
    let domains: Vec<_> = domains.iter().map(ToString::to_string).collect();
    domains.join(", ")
}

/// `from`: the source of answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipientSource {
    /// The mailbox server is asked, by the connector of the recipient's domain.
    Ask,
    /// A file lists the recipients.
    File(Located<PathBuf>),
    /// A directory is searched.
    Ldap(Box<DirectoryRules>),
}

impl RecipientSource {
    /// Returns the value of `from`.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::File(_) => "file",
            Self::Ldap(_) => "ldap",
        }
    }
}

/// `on_trouble`: the answer while the source gives none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTrouble {
    /// The recipient is rejected with 451.
    Defer,
    /// The recipient is accepted without a check.
    Accept,
}

impl OnTrouble {
    /// Returns the value in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Defer => "defer",
            Self::Accept => "accept",
        }
    }
}

/// The tables of a configuration, indexed by domain pattern. The most specific pattern wins.
#[derive(Debug, Clone, Default)]
pub struct RecipientIndex {
    exactly: HashMap<Domain, usize>,
    below: HashMap<Domain, usize>,
}

impl RecipientIndex {
    /// Indexes the tables. The configuration rejects a pattern that two tables have.
    #[must_use]
    pub fn new(tables: &[Arc<RecipientRules>]) -> Self {
        let mut index = Self::default();
        for (at, table) in tables.iter().enumerate() {
            for pattern in &table.domains {
                let (map, domain) = match pattern {
                    // The configuration rejects it.
                    DomainPattern::Any => continue,
                    DomainPattern::Below(domain) => (&mut index.below, domain),
                    DomainPattern::Exactly(domain) => (&mut index.exactly, domain),
                };
                map.entry(domain.clone()).or_insert(at);
            }
        }
        index
    }

    /// Returns true if there is no table.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exactly.is_empty() && self.below.is_empty()
    }

    /// Returns the position of the table that decides about a domain.
    #[must_use]
    pub fn find(&self, domain: &Domain) -> Option<usize> {
        if let Some(at) = self.exactly.get(domain) {
            return Some(*at);
        }
        if self.below.is_empty() {
            return None;
        }
        let mut above = domain.parent();
        while let Some(ancestor) = above {
            if let Some(at) = self.below.get(&ancestor) {
                return Some(*at);
            }
            above = ancestor.parent();
        }
        None
    }
}

/// Returns true for a mailbox that exists without a check: our postmaster, and `postmaster` at any
/// domain.
// Rule: RFC 5321 §4.5.1.
#[must_use]
pub fn always_exists(postmaster: &Mailbox, mailbox: &Mailbox) -> bool {
    mailbox.local_part().eq_ignore_ascii_case("postmaster") || mailbox == postmaster
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn table(domains: &[&str]) -> Arc<RecipientRules> {
        let pattern = |text: &&str| match text.strip_prefix("*.") {
            Some(base) => DomainPattern::Below(Domain::parse(base).expect("a domain")),
            None => DomainPattern::Exactly(Domain::parse(text).expect("a domain")),
        };
        Arc::new(RecipientRules {
            domains: domains.iter().map(pattern).collect(),
            source: RecipientSource::Ask,
            plus_tags: false,
            cache: Duration::from_hours(1),
            on_trouble: OnTrouble::Defer,
            location: Location {
                file: Arc::from(Path::new("gatepost.toml")),
                line: 1,
                column: 1,
            },
        })
    }

    #[test]
    fn the_most_specific_pattern_decides() {
        let tables = [
            table(&["*.example.com"]),
            table(&["example.com", "a.example.com"]),
            table(&["*.b.example.com"]),
        ];
        let index = RecipientIndex::new(&tables);
        for (domain, wanted) in [
            ("example.com", Some(1)),
            ("a.example.com", Some(1)),
            ("x.a.example.com", Some(0)),
            ("b.example.com", Some(0)),
            ("x.b.example.com", Some(2)),
            ("example.org", None),
            ("com", None),
        ] {
            let domain = Domain::parse(domain).expect("a domain");
            assert_eq!(index.find(&domain), wanted, "{domain}");
        }
        assert!(RecipientIndex::new(&[]).is_empty());
    }

    #[test]
    fn many_domains_have_a_short_label() {
        assert_eq!(table(&["a.b", "*.c.d"]).label(), "a.b, *.c.d");
        assert_eq!(table(&["a.a", "b.b", "c.c"]).label(), "a.a, b.b, c.c");
        let many = table(&["a.a", "b.b", "c.c", "d.d", "e.e"]);
        assert_eq!(many.label(), "a.a, b.b, c.c and 2 more");
        assert_eq!(many.name(), "a.a, b.b, c.c, d.d, e.e");
    }

    #[test]
    fn the_postmaster_exists_everywhere() {
        let parse = |text| Mailbox::parse(text).expect("a mailbox");
        let ours = parse("admin@example.com");
        for (mailbox, exists) in [
            ("admin@example.com", true),
            ("PostMaster@example.net", true),
            ("postmaster+a@example.com", false),
            ("user@example.com", false),
        ] {
            assert_eq!(always_exists(&ours, &parse(mailbox)), exists, "{mailbox}");
        }
    }

    #[test]
    fn a_no_is_kept_for_a_tenth_of_the_time() {
        assert_eq!(table(&["a.b"]).cache_of_no(), Duration::from_mins(6));
    }
}
