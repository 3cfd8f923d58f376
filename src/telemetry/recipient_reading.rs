//! The metrics of the `[[recipients]]` tables, which are read on request.

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::RecipientTableLabel;

/// One `[[recipients]]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientReading {
    /// Its domains in one text.
    pub domains: String,
    /// The mailboxes that are remembered, those that exist and those that do not.
    pub remembered: u64,
    /// The questions that wait or run.
    pub pending: u64,
    /// True while its source gives no answers.
    pub is_in_trouble: bool,
    /// The domains whose server accepts any address.
    pub unchecked_domains: u64,
}

/// Adds the metrics of all tables.
pub(super) fn register(registry: &mut Registry, tables: &[RecipientReading]) {
    let mut family = |name: &str, help: &str, value: fn(&RecipientReading) -> u64| {
        let family = Family::<RecipientTableLabel, Gauge>::default();
        for table in tables {
            let domains = table.domains.clone();
            let value = i64::try_from(value(table)).unwrap_or(i64::MAX);
            family
                .get_or_create(&RecipientTableLabel { domains })
                .set(value);
        }
        registry.register(name, help, family);
    };
    let help = "Answers about recipients that are remembered";
    family("recipient_answers", help, |table| table.remembered);
    let help = "Questions about recipients that wait or run";
    family("recipient_questions", help, |table| table.pending);
    let help = "1 while the source of [[recipients]] gives no answers, else 0";
    family("recipients_in_trouble", help, |table| {
        u64::from(table.is_in_trouble)
    });
    let help = "Domains whose recipients are not checked because their server accepts any address";
    family("recipients_unchecked_domains", help, |table| {
        table.unchecked_domains
    });
}
