//! The figures as a table, the ratios, and whether they meet their bars.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};

use crate::record::Record;
use crate::trial::{Case, Figures, Make, Onward};

/// A case with the results of each relay that was measured in it.
pub(crate) struct Row {
    pub(crate) case: Case,
    pub(crate) gatepost: Option<Figures>,
    pub(crate) postfix: Option<Figures>,
    /// The messages per second from the client straight into the sink.
    pub(crate) ceiling: f64,
}

/// The share of a core from which an end of the benchmark may limit the figures.
const BUSY: f64 = 0.9;

const LEGEND: &str = "\
STARTTLS is used on both legs, or on neither. Reuse: how many messages a connection to the sink carried on average.
p50, p99: from the relay's 250 to the arrival at the sink. CPU: the relay's, in seconds for 1,000 messages. MiB: its
peak of memory, all its processes together. Busy: the share of one core that either end of the bench took for itself.";

/// The share of the computer from which other work makes the figures unreliable. The kernel's own
/// work for the disk stays below it.
const DISTURBED: f64 = 0.2;

impl Case {
    /// The name in tables.
    pub(crate) fn name(self) -> String {
        let how = if self.tls.is_some() {
            "STARTTLS"
        } else {
            "plain"
        };
        let legs = match self.onward {
            Onward::AsItLikes => "",
            Onward::AsTheLoad => ", on both legs",
        };
        if self.is_large() {
            return format!("5 MiB, {how}, 4 connections");
        }
        format!(
            "{how}, {} per connection{legs}",
            self.messages_per_connection
        )
    }

    /// The bars: the factors by which Gatepost must be faster and cheaper than Postfix.
    fn bars(self) -> Option<(f64, f64)> {
        match self.messages_per_connection {
            _ if self.is_large() => Some((2.0, 2.5)),
            1 => Some((5.0, 5.0)),
            50 => Some((10.0, 10.0)),
            _ => None,
        }
    }
}

/// Adds everything to the text and the record; returns whether Gatepost lost, duplicated and refused
/// nothing, and met every bar that was measured.
pub(crate) fn add(rows: &[Row], text: &mut String, record: &mut Record) -> bool {
    if rows.is_empty() {
        return true;
    }
    let _ = writeln!(text, "\n{}\n{LEGEND}", figures(rows));
    for (name, figures) in rows.iter().flat_map(measured) {
        let passage = &figures.passage;
        record.add(&name, "delivered/s", passage.delivered.rate());
        record.add_cpu(&name, figures.cpu);
        record.add(&name, "peak memory, MiB", mebibytes(figures.peak_memory));
        let mut note = |line: String| {
            let _ = writeln!(text, "{name}: {line}");
        };
        if let Some(refusal) = &passage.first_refusal {
            note(format!(
                "{} messages were not accepted; the first: {refusal}",
                passage.refused
            ));
        }
        if passage.strangers > 0 {
            note(format!(
                "{} arrivals were not ours, or damaged",
                passage.strangers
            ));
        }
        if figures.others > DISTURBED {
            let share = figures.others * 100.0;
            note(format!(
                "{share:.0} % of the computer went to other things; measure again when it is idle"
            ));
        }
        for (end, busy) in [("client", figures.client_busy), ("sink", figures.sink_busy)] {
            if busy > BUSY {
                note(format!(
                    "the bench's own {end} was busy for {:.0} % of the time, and may be the limit",
                    busy * 100.0
                ));
            }
        }
    }
    for row in rows {
        record.add(&row.case.name(), "ceiling, messages/s", row.ceiling);
    }
    let clean = rows
        .iter()
        .filter_map(|row| row.gatepost.as_ref())
        .all(|figures| figures.passage.is_clean());
    clean & ratios(rows, text)
}

fn mebibytes(octets: u64) -> f64 {
    octets as f64 / f64::from(1 << 20)
}

fn measured(row: &Row) -> impl Iterator<Item = (String, &Figures)> {
    let both = [
        (Make::Gatepost, &row.gatepost),
        (Make::Postfix, &row.postfix),
    ];
    both.into_iter().filter_map(|(make, figures)| {
        Some((
            format!("{}, {}", make.name(), row.case.name()),
            figures.as_ref()?,
        ))
    })
}

impl Make {
    /// The name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gatepost => "Gatepost",
            Self::Postfix => "Postfix",
        }
    }
}

fn figures(rows: &[Row]) -> Table {
    let mut table = table([
        "relay, case",
        "reuse",
        "accepted/s",
        "delivered/s",
        "p50 ms",
        "p99 ms",
        "CPU s",
        "MiB",
        "lost",
        "twice",
        "client busy",
        "sink busy",
    ]);
    for (name, figures) in rows.iter().flat_map(measured) {
        let passage = &figures.passage;
        table.add_row([
            name,
            format!("{:.1}", figures.reuse),
            format!("{:.0}", passage.accepted.rate()),
            format!("{:.0}", passage.delivered.rate()),
            format!("{:.1}", passage.p50.as_secs_f64() * 1000.0),
            format!("{:.1}", passage.p99.as_secs_f64() * 1000.0),
            format!("{:.3}", figures.cpu),
            format!("{:.1}", mebibytes(figures.peak_memory)),
            passage.lost.to_string(),
            passage.duplicated.to_string(),
            format!("{:.0} %", figures.client_busy * 100.0),
            format!("{:.0} %", figures.sink_busy * 100.0),
        ]);
    }
    table
}

/// Adds Gatepost's figures over Postfix's and over the ceiling, where they were measured; returns
/// whether all bars are met.
fn ratios(rows: &[Row], text: &mut String) -> bool {
    let mut table = table([
        "case",
        "delivered/s",
        "bar",
        "",
        "CPU per message",
        "bar",
        "",
        "of the ceiling",
        "ceiling/s",
    ]);
    let mut all_met = true;
    for row in rows {
        let Some(gatepost) = &row.gatepost else {
            continue;
        };
        let rate = gatepost.passage.delivered.rate();
        let mut line = vec![row.case.name()];
        let mut add = |ratio: Option<f64>, bar: Option<f64>, cheaper: bool| {
            let text = |factor: f64, [rate, cpu]: [&str; 2]| {
                if cheaper {
                    format!("{cpu}1/{factor:.1}")
                } else {
                    format!("{rate}{factor:.1} ×")
                }
            };
            let verdict = ratio.zip(bar).map(|(ratio, bar)| ratio >= bar);
            all_met &= verdict != Some(false);
            line.extend([
                ratio.map_or_else(String::new, |ratio| text(ratio, ["", ""])),
                bar.map_or_else(String::new, |bar| text(bar, ["≥ ", "≤ "])),
                verdict
                    .map_or("", |met| if met { "met" } else { "MISSED" })
                    .to_owned(),
            ]);
        };
        let (faster, cheaper) = row.case.bars().unzip();
        let postfix = row.postfix.as_ref();
        add(
            postfix.map(|postfix| rate / postfix.passage.delivered.rate()),
            faster,
            false,
        );
        add(
            postfix.map(|postfix| postfix.cpu / gatepost.cpu),
            cheaper,
            true,
        );
        line.push(format!("{:.0} %", rate / row.ceiling * 100.0));
        line.push(format!("{:.0}", row.ceiling));
        table.add_row(line);
    }
    if table.row_count() > 0 {
        let _ = writeln!(
            text,
            "\nGatepost's figures over Postfix's, and over the ceiling (the client straight into the sink):\n{table}"
        );
    }
    all_met
}

fn table<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
