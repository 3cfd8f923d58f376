//! The table of the demo's results.

use comfy_table::{ContentArrangement, Table, presets};

use crate::policy::tls::NoTls;

use super::attempts::{AttemptEnd, AttemptRecord};
use super::peer::Submission;
use super::scenarios::authentication_text;

/// The width of the table if neither the terminal nor `COLUMNS` has one.
const WIDTH: u16 = 132;

/// A row of the table.
pub(super) struct DemoRow {
    group: &'static str,
    cells: [String; 7],
    pub(super) kept: bool,
}

impl DemoRow {
    /// Returns the row of an outgoing message.
    pub(super) fn of_record(
        group: &'static str,
        peer: &str,
        policy: &str,
        record: &AttemptRecord,
        kept: bool,
    ) -> Self {
        let none = || "-".to_owned();
        let (outcome, version, cipher, reason) = match &record.end {
            AttemptEnd::Clear(reason @ (NoTls::SpokeBeforeHandshake | NoTls::Broken(_))) => (
                "delivered in the clear, on a fresh connection".to_owned(),
                none(),
                none(),
                reason.to_string(),
            ),
            AttemptEnd::Clear(reason) => (
                "delivered in the clear".to_owned(),
                none(),
                none(),
                reason.to_string(),
            ),
            AttemptEnd::Tls {
                version,
                cipher,
                authentication,
            } => (
                "delivered over TLS".to_owned(),
                version.clone(),
                cipher.clone(),
                authentication_text(authentication),
            ),
            AttemptEnd::Deferred { status, reason } => {
                (format!("deferred {status}"), none(), none(), reason.clone())
            }
            AttemptEnd::Bounced { status, reason } => {
                (format!("bounced {status}"), none(), none(), reason.clone())
            }
        };
        let cells = [
            peer.to_owned(),
            policy.to_owned(),
            outcome,
            version,
            cipher,
            reason,
            mark(kept),
        ];
        Self { group, cells, kept }
    }

    /// Returns the row of an incoming message.
    pub(super) fn of_submission(
        peer: &str,
        policy: &str,
        submission: &Submission,
        kept: bool,
    ) -> Self {
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
        let (version, cipher) = (or_none(&submission.version), or_none(&submission.cipher));
        let cells = [
            peer.to_owned(),
            policy.to_owned(),
            outcome.to_owned(),
            version,
            cipher,
            reason,
            mark(kept),
        ];
        Self {
            group: "Incoming",
            cells,
            kept,
        }
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

fn mark(kept: bool) -> String {
    if kept {
        "✔".to_owned()
    } else {
        "✘ BROKEN".to_owned()
    }
}

/// Prints the rows, one table for each group, with colours if `colour` is true.
pub(super) fn print(rows: &[DemoRow], colour: bool) {
    let width = width();
    for group in rows.chunk_by(|a, b| a.group == b.group) {
        let mut table = Table::new();
        table
            .load_style(presets::UTF8_BORDERS_ONLY)
            .set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(width);
        table.set_header([
            "peer", "policy", "outcome", "TLS", "cipher", "reason", "kept",
        ]);
        for row in group {
            table.add_row(&row.cells);
        }
        let title = group.first().map_or("", |row| row.group);
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
