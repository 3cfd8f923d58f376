//! The check of recipients, in a sentence.

use crate::config::{Config, OnTrouble, RecipientRules, RecipientSource, write_duration};
use crate::policy::recipients::{RecipientIndex, always_exists};
use crate::relay::recipient_tables::is_listed;
use crate::smtp::address::{Host, Mailbox};

/// Returns what happens at RCPT to the recipients of a host, and to `mailbox` if it is given;
/// `None` if no `[[recipients]]` table decides about them. A list of recipients is read, if this
/// user may read it; no server is asked.
#[must_use]
pub fn recipient_note(config: &Config, host: &Host, mailbox: Option<&Mailbox>) -> Option<String> {
    let at = RecipientIndex::new(&config.recipients).find(host.domain()?)?;
    let rules = config.recipients.get(at)?;
    if mailbox.is_some_and(|mailbox| always_exists(&config.postmaster, mailbox)) {
        return Some("accepted without a check: the postmaster exists".to_owned());
    }
    Some(describe(rules, mailbox))
}

/// Returns what happens to answers, and without one.
fn answers(rules: &RecipientRules) -> String {
    let trouble = match rules.on_trouble {
        OnTrouble::Defer => "without an answer the client gets 451",
        OnTrouble::Accept => "without an answer the recipient is accepted",
    };
    format!(
        "a yes is kept for {}; {trouble}",
        write_duration(rules.cache)
    )
}

/// Returns the meaning of a plus-tag.
fn tags(rules: &RecipientRules) -> &'static str {
    if rules.plus_tags {
        "user+tag exists where user does"
    } else {
        "user+tag must exist itself"
    }
}

fn describe(rules: &RecipientRules, mailbox: Option<&Mailbox>) -> String {
    match &rules.source {
        RecipientSource::Ask => format!(
            "checked at RCPT: the mailbox server is asked, as this connector says; {}",
            answers(rules)
        ),
        RecipientSource::Ldap(directory) => format!(
            "checked at RCPT: {} is searched for {}, {}; {}",
            directory.url.value,
            directory.filter.as_str(),
            tags(rules),
            answers(rules)
        ),
        RecipientSource::File(file) => {
            let path = file.value.display();
            match mailbox.and_then(|mailbox| is_listed(file, mailbox, rules.plus_tags)) {
                Some(true) => format!("accepted at RCPT: listed in {path}"),
                Some(false) => format!("REJECTED at RCPT with 550 5.1.1: not listed in {path}"),
                None => format!(
                    "checked at RCPT: only those listed in {path} exist, {}",
                    tags(rules)
                ),
            }
        }
    }
}
