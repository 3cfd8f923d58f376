//! The table of the demo's results.

use comfy_table::{ContentArrangement, Table, presets};

use crate::policy::tls::{Authentication, NoTls, Unmet};

use super::attempts::{AttemptEnd, AttemptRecord};
use super::peer::Submission;
use super::play::{CaseResult, MessageFate};

/// The width of the table if neither the terminal nor `COLUMNS` has one.
const WIDTH: u16 = 132;

/// Returns the cells of a result.
fn cells(result: &CaseResult) -> [String; 7] {
    let CaseResult {
        group: _,
        peer,
        policy,
        fate,
        kept,
    } = result;
    let [outcome, version, cipher, reason] = match fate {
        MessageFate::Outgoing(record) => outgoing(record),
        MessageFate::Incoming(submission) => incoming(submission),
    };
    let mark = if *kept { "✔" } else { "✘ BROKEN" };
    [
        (*peer).to_owned(),
        policy.clone(),
        outcome,
        version,
        cipher,
        reason,
        mark.to_owned(),
    ]
}

/// Returns outcome, TLS version, cipher and reason of an outgoing message.
fn outgoing(record: &AttemptRecord) -> [String; 4] {
    let none = || "-".to_owned();
    match &record.end {
        AttemptEnd::Clear(reason @ (NoTls::SpokeBeforeHandshake | NoTls::Broken(_))) => [
            "delivered in the clear, on a fresh connection".to_owned(),
            none(),
            none(),
            reason.to_string(),
        ],
        AttemptEnd::Clear(reason) => [
            "delivered in the clear".to_owned(),
            none(),
            none(),
            reason.to_string(),
        ],
        AttemptEnd::Tls {
            version,
            cipher,
            authentication,
        } => [
            "delivered over TLS".to_owned(),
            version.clone(),
            cipher.clone(),
            authentication_text(authentication),
        ],
        AttemptEnd::Deferred { status, reason } => {
            [format!("deferred {status}"), none(), none(), reason.clone()]
        }
        AttemptEnd::Bounced { status, reason } => {
            [format!("bounced {status}"), none(), none(), reason.clone()]
        }
    }
}

/// Returns outcome, TLS version, cipher and reason of an incoming message.
fn incoming(submission: &Submission) -> [String; 4] {
    let outcome = if submission.is_accepted() {
        "accepted"
    } else {
        "rejected"
    };
    let reason = match (submission.is_accepted(), &submission.version) {
        (false, _) => submission.reply.clone(),
        (true, Some(_)) => "STARTTLS was used".to_owned(),
        (true, None) => "STARTTLS was offered, not used".to_owned(),
    };
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    [
        outcome.to_owned(),
        or_none(&submission.version),
        or_none(&submission.cipher),
        reason,
    ]
}

/// Returns the authentication of the peer for the table.
fn authentication_text(authentication: &Authentication) -> String {
    match authentication {
        Authentication::Anonymous => "no certificate".to_owned(),
        Authentication::Unproved(key) => format!("possession of the key not proved: {key}"),
        Authentication::Untrusted(Unmet::Chain(fault)) => format!("untrusted: {fault}"),
        Authentication::Untrusted(fault) => format!("untrusted: {fault}"),
        Authentication::Trusted => "trusted certificate".to_owned(),
        Authentication::Verified(name) => format!("verified: {name}"),
        Authentication::Pinned(pin) => format!("pinned: {pin}"),
        Authentication::Dane { record, .. } => format!("DANE: {record}"),
    }
}

/// Returns the width of the terminal, or else the value of `COLUMNS`.
fn width() -> u16 {
    let from_environment = || {
        std::env::var("COLUMNS")
            .ok()
            .and_then(|columns| columns.parse().ok())
    };
    let terminal = rustix::termios::tcgetwinsize(std::io::stdout()).map(|size| size.ws_col);
    terminal
        .ok()
        .filter(|columns| *columns > 0)
        .or_else(from_environment)
        .unwrap_or(WIDTH)
}

/// Prints the results, one table for each group, with colours if `colour` is true.
pub(super) fn print(results: &[CaseResult], colour: bool) {
    let width = width();
    for group in results.chunk_by(|a, b| a.group == b.group) {
        let mut table = Table::new();
        table
            .load_style(presets::UTF8_BORDERS_ONLY)
            .set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(width);
        table.set_header([
            "peer", "policy", "outcome", "TLS", "cipher", "reason", "kept",
        ]);
        for result in group {
            table.add_row(cells(result));
        }
        let title = group.first().map_or("", |result| result.group);
        if colour {
            let text = table
                .to_string()
                .replace('✔', "\x1b[32m✔\x1b[0m")
                .replace("✘ BROKEN", "\x1b[31m✘ BROKEN\x1b[0m");
            println!("\n\x1b[1m{title}\x1b[0m\n{text}");
        } else {
            println!("\n{title}\n{table}");
        }
    }
}
