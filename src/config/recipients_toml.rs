//! The `[[recipients]]` tables.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::directory_toml::DirectoryToml;
use super::fault_list::FaultList;
use super::hosts::domain_pattern;
use super::reader::{Field, TableReader};
use super::rules::reject_duplicates;
use super::settings::TlsConfig;
use super::values::{boolean, choice, duration, full_list, path, without_locations};
use crate::policy::connector::{Connector, Connectors, DomainPattern, Route, default_connector};
use crate::policy::location::{Located, Location};
use crate::policy::recipients::{OnTrouble, RecipientRules, RecipientSource};
use crate::policy::relay_access::RelayConfig;

/// The default of `cache`.
const CACHE: Duration = Duration::from_hours(1);

/// The values of `from`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WrittenSource {
    Ask,
    File,
    Ldap,
}

/// A `[[recipients]]` table, as written.
pub(super) struct RecipientsToml {
    location: Location,
    domains: Field<Vec<Located<DomainPattern>>>,
    from: Field<WrittenSource>,
    file: Field<PathBuf>,
    directory: DirectoryToml,
    plus_tags: Field<bool>,
    cache: Field<Duration>,
    on_trouble: Field<OnTrouble>,
}

impl RecipientsToml {
    pub(super) fn read(mut table: TableReader<'_>, faults: &mut FaultList<'_>) -> Self {
        let example = "domains = [\"example.com\"]";
        let domains = table.required(faults, "domains", example, |value, faults| {
            full_list(
                value,
                faults,
                "Write the domains whose mailboxes are checked.",
                domain_pattern,
            )
        });
        let from = table.required(faults, "from", "from = \"ask\"", |value, faults| {
            let sources = [
                ("ask", WrittenSource::Ask),
                ("file", WrittenSource::File),
                ("ldap", WrittenSource::Ldap),
            ];
            choice(value, faults, &sources)
        });
        let file = table.read(faults, "file", path);
        let directory = DirectoryToml::read(&mut table, faults);
        let plus_tags = table.read(faults, "plus_tags", boolean);
        let cache = table.read(faults, "cache", duration);
        let on_trouble = table.read(faults, "on_trouble", |value, faults| {
            let answers = [("defer", OnTrouble::Defer), ("accept", OnTrouble::Accept)];
            choice(value, faults, &answers)
        });
        let location = table.location().clone();
        table.finish(faults);
        Self {
            location,
            domains,
            from,
            file,
            directory,
            plus_tags,
            cache,
            on_trouble,
        }
    }

    /// Checks the keys against each other and resolves the table. `None` if a fault has been
    /// reported.
    fn resolve(self, faults: &mut FaultList<'_>) -> Option<Arc<RecipientRules>> {
        self.check_keys(faults);
        let source = match (self.from.value()?, self.file) {
            (WrittenSource::Ask, _) => RecipientSource::Ask,
            (WrittenSource::File, Field::Valid(file)) => RecipientSource::File(file),
            (WrittenSource::File, Field::Absent | Field::Invalid) => return None,
            (WrittenSource::Ldap, _) => {
                let directory = self.directory.resolve(&self.location, faults)?;
                RecipientSource::Ldap(Box::new(directory))
            }
        };
        // A directory does not say whether the mailbox server has plus-tags.
        let has_list = matches!(source, RecipientSource::File(_));
        Some(Arc::new(RecipientRules {
            domains: without_locations(self.domains.located()?.value.clone()),
            source,
            plus_tags: self.plus_tags.or(has_list),
            cache: self.cache.or(CACHE),
            on_trouble: self.on_trouble.or(OnTrouble::Defer),
            location: self.location,
        }))
    }

    /// Rejects `file` without a use, and a missing one. A file gives its answers at once, so that
    /// the keys for answers from a server have no use with it.
    fn check_keys(&self, faults: &mut FaultList<'_>) {
        match (self.from.value(), &self.file) {
            (Some(WrittenSource::Ask | WrittenSource::Ldap), Field::Valid(file)) => faults.add(
                &file.location,
                "file has no use: from names another source",
                "Remove it, or write from = \"file\".",
            ),
            (Some(WrittenSource::File), Field::Absent) => faults.add(
                &self.location,
                "file is missing in [[recipients]]",
                "Add to [[recipients]]: file = \"recipients.txt\", with an address or @domain on each line",
            ),
            _ => {}
        }
        if let (Some(WrittenSource::Ask | WrittenSource::File), Some((key, location))) =
            (self.from.value(), self.directory.written())
        {
            faults.add(
                location,
                format!("{key} has no use: from names another source"),
                "Remove it, or write from = \"ldap\".",
            );
        }
        if let (Some(WrittenSource::Ask), Some(plus_tags)) =
            (self.from.value(), self.plus_tags.located())
        {
            faults.add(
                &plus_tags.location,
                "plus_tags has no use: the mailbox server is asked about the address with its tag",
                "Remove it.",
            );
        }
        if self.from.value() != Some(&WrittenSource::File) {
            return;
        }
        let unused = [
            ("cache", self.cache.located().map(|cache| &cache.location)),
            (
                "on_trouble",
                self.on_trouble.located().map(|answer| &answer.location),
            ),
        ];
        for (key, location) in unused {
            if let Some(location) = location {
                faults.add(
                    location,
                    format!("{key} has no use: from = \"file\" needs no server"),
                    "Remove it.",
                );
            }
        }
    }
}

/// Resolves the tables. A domain that strangers cannot write to is a warning.
pub(super) fn resolve(
    tables: Vec<RecipientsToml>,
    relay: &RelayConfig,
    faults: &mut FaultList<'_>,
) -> Vec<Arc<RecipientRules>> {
    let patterns = tables
        .iter()
        .filter_map(|table| table.domains.value())
        .flatten();
    reject_duplicates(
        patterns
            .clone()
            .map(|pattern| (pattern.value.to_string(), &pattern.location)),
        faults,
        |pattern| {
            (
                format!("[[recipients]] already lists \"{pattern}\""),
                "Remove it here or there.".to_owned(),
            )
        },
    );
    for pattern in patterns {
        if pattern.value == DomainPattern::Any {
            faults.add(
                &pattern.location,
                "[[recipients]] domains = \"*\" would check the recipients of other servers",
                "List the domains whose mailboxes are yours, as in [relay] domains.",
            );
        } else if !relay.domains.iter().any(|ours| meets(ours, &pattern.value)) {
            faults.warn(
                &pattern.location,
                format!(
                    "\"{}\" is not in [relay] domains: only clients that may send anywhere can write to it",
                    pattern.value
                ),
                "Add it to [relay] domains if it is a domain of yours; otherwise remove it here.",
            );
        }
    }
    tables
        .into_iter()
        .filter_map(|table| table.resolve(faults))
        .collect()
}

/// Warns if mail servers would be asked that MX records name. At the domains of this relay those
/// records usually name the relay itself.
pub(super) fn warn_of_mx(
    tables: &[Arc<RecipientRules>],
    connectors: &[Arc<Connector>],
    tls: &TlsConfig,
    faults: &mut FaultList<'_>,
) {
    let connectors = Connectors::new(connectors, default_connector(&tls.trust));
    for table in tables {
        if table.source != RecipientSource::Ask {
            continue;
        }
        let by_mx = table.domains.iter().find(|pattern| {
            let route = &connectors.for_pattern(pattern).outbound.route;
            matches!(route, Route::Mx { .. })
        });
        if let Some(pattern) = by_mx {
            faults.warn(
                &table.location,
                format!(
                    "from = \"ask\": \"{pattern}\" has no mailbox server: its connector has route = \"mx\""
                ),
                "Add a connector for the domain with route = [\"MAILBOX-SERVER:25\"]; the MX records name this relay.",
            );
        }
    }
}

/// Returns true if some domain is covered by both patterns.
fn meets(ours: &DomainPattern, other: &DomainPattern) -> bool {
    match (ours, other) {
        (DomainPattern::Any, _) | (_, DomainPattern::Any) => true,
        (DomainPattern::Exactly(ours), DomainPattern::Exactly(other)) => ours == other,
        (DomainPattern::Below(base), DomainPattern::Exactly(domain))
        | (DomainPattern::Exactly(domain), DomainPattern::Below(base)) => domain.is_below(base),
        (DomainPattern::Below(ours), DomainPattern::Below(other)) => {
            ours == other || ours.is_below(other) || other.is_below(ours)
        }
    }
}
