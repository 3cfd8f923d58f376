//! The `[[recipients]]` tables, in `GET /v1/status`.

use serde::{Deserialize, Serialize};

/// One `[[recipients]]` table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RecipientsStatus {
    /// Its domains.
    pub domains: Vec<String>,
    /// The source: `ask`, `file` or `ldap`.
    pub from: String,
    /// The addresses that its file lists.
    pub addresses: Option<u64>,
    /// Mailboxes that are remembered to exist.
    pub known: u64,
    /// Mailboxes that are remembered not to exist.
    pub unknown: u64,
    /// Questions that wait or run.
    pub pending: u64,
    /// The reason why the source gave no answer the last time.
    pub trouble: Option<String>,
    /// The decision without an answer: `defer` or `accept`.
    pub on_trouble: String,
    /// The domains whose server accepts any address, so that their recipients are not checked.
    pub unchecked: Vec<String>,
}

impl RecipientsStatus {
    /// Returns the state in words, without the trouble.
    #[must_use]
    pub fn describe(&self) -> String {
        match self.addresses {
            Some(addresses) => format!("{addresses} addresses listed in a file"),
            None => format!(
                "asked at the server; remembered: {} that exist, {} that do not",
                self.known, self.unknown
            ),
        }
    }

    /// Returns the troubles in words, one line each.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let answer = if self.on_trouble == "accept" {
            "recipients are accepted without a check"
        } else {
            "mail is deferred"
        };
        let trouble = self
            .trouble
            .iter()
            .map(|reason| format!("NO ANSWER, {answer}: {reason}"));
        let unchecked = self
            .unchecked
            .iter()
            .map(|domain| format!("NOT CHECKED: the server of {domain} accepts any address"));
        trouble.chain(unchecked).collect()
    }
}
