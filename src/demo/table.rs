//! The demo's result, as a table for people.

use comfy_table::{ContentArrangement, Table, presets};

use crate::tls::NoTls;

use super::ledger::{End, Record};
use super::peer::Submitted;
use super::scenarios::who;

/// Characters that a terminal of unknown width is given.
const WIDTH: u16 = 132;

/// One line of the table.
pub(super) struct Row {
    group: &'static str,
    cells: [String; 7],
    pub(super) kept: bool,
}

impl Row {
    /// A message that went out.
    pub(super) fn of_record(group: &'static str, other_side: &str, policy: &str, record: &Record, kept: bool) -> Self {
        let none = || "-".to_owned();
        let (happened, version, cipher, why) = match &record.end {
            End::Clear(reason @ (NoTls::SpokeBeforeHandshake | NoTls::Broken(_))) => {
                ("delivered in clear, on a fresh connection".to_owned(), none(), none(), reason.to_string())
            }
            End::Clear(reason) => ("delivered in clear".to_owned(), none(), none(), reason.to_string()),
            End::Tls { version, cipher, authentication } => {
                ("delivered over TLS".to_owned(), version.clone(), cipher.clone(), who(authentication))
            }
            End::Waits { status, reason } => (format!("refused {status}, waits"), none(), none(), reason.clone()),
            End::GivenUp { status, reason } => (format!("given up {status}"), none(), none(), reason.clone()),
        };
        Self {
            group,
            cells: [other_side.to_owned(), policy.to_owned(), happened, version, cipher, why, mark(kept)],
            kept,
        }
    }

    /// A message that came in, or did not.
    pub(super) fn of_submission(other_side: &str, policy: &str, submitted: &Submitted, kept: bool) -> Self {
        let happened = if submitted.taken() { "taken" } else { "refused" };
        let why = match (submitted.taken(), &submitted.version) {
            (false, _) => submitted.reply.clone(),
            (true, Some(_)) => "taken over TLS".to_owned(),
            (true, None) => "STARTTLS was offered, not used".to_owned(),
        };
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let (version, cipher) = (or_none(&submitted.version), or_none(&submitted.cipher));
        let cells = [other_side.to_owned(), policy.to_owned(), happened.to_owned(), version, cipher, why, mark(kept)];
        Self { group: "Incoming", cells, kept }
    }
}

/// Columns of the terminal, or of whoever says how many there are to be.
fn width() -> u16 {
    let told = || std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let terminal = rustix::termios::tcgetwinsize(std::io::stdout()).map(|size| size.ws_col);
    terminal.ok().filter(|columns| *columns > 0).or_else(told).unwrap_or(WIDTH)
}

fn mark(kept: bool) -> String {
    if kept { "✔".to_owned() } else { "✘ BROKEN".to_owned() }
}

/// Prints the rows, one table for each group. `colour` for terminals.
pub(super) fn print(rows: &[Row], colour: bool) {
    let width = width();
    for group in rows.chunk_by(|a, b| a.group == b.group) {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(width);
        table.set_header(["the other side", "policy", "what happened", "TLS", "cipher", "who it was, or why", "kept"]);
        for row in group {
            table.add_row(&row.cells);
        }
        let title = group.first().map_or("", |row| row.group);
        if colour {
            let text =
                table.to_string().replace('✔', "\x1b[32m✔\x1b[0m").replace("✘ BROKEN", "\x1b[31m✘ BROKEN\x1b[0m");
            println!("\n\x1b[1m{title}\x1b[0m\n{text}");
        } else {
            println!("\n{title}\n{table}");
        }
    }
}
