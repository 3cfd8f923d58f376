//! The figures as a table, the ratios, and whether they meet their bars.

use comfy_table::{CellAlignment, Table, presets};

use crate::trial::{Case, Figures, Make, Onward};

/// A case with the results of each relay that was measured in it.
pub(crate) struct Row {
    pub(crate) case: Case,
    pub(crate) gatepost: Option<Figures>,
    pub(crate) postfix: Option<Figures>,
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
        format!(
            "{how}, {} per connection{legs}",
            self.messages_per_connection
        )
    }

    /// The bars: the factors by which Gatepost must be faster and cheaper than Postfix.
    fn bar(self) -> Option<f64> {
        match self.messages_per_connection {
            1 => Some(5.0),
            50 => Some(10.0),
            _ => None,
        }
    }
}

/// Prints everything; returns whether Gatepost lost, duplicated and refused nothing, and met every
/// bar that was measured.
pub(crate) fn print(rows: &[Row]) -> bool {
    println!("\n{}", figures(rows));
    println!("{LEGEND}");
    for (name, figures) in rows.iter().flat_map(measured) {
        let passage = &figures.passage;
        if let Some(refusal) = &passage.first_refusal {
            println!(
                "{name}: {} messages were not accepted; the first: {refusal}",
                passage.refused
            );
        }
        if passage.strangers > 0 {
            println!(
                "{name}: {} arrivals were not ours, or damaged",
                passage.strangers
            );
        }
        if figures.others > DISTURBED {
            let share = figures.others * 100.0;
            println!(
                "{name}: {share:.0} % of the computer went to other things; measure again when it is idle"
            );
        }
        for (end, busy) in [("client", figures.client_busy), ("sink", figures.sink_busy)] {
            if busy > BUSY {
                println!(
                    "{name}: the bench's own {end} was busy for {:.0} % of the time, and may be the limit",
                    busy * 100.0
                );
            }
        }
    }
    let clean = rows
        .iter()
        .filter_map(|row| row.gatepost.as_ref())
        .all(|figures| figures.passage.is_clean());
    clean & ratios(rows)
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
            format!("{:.1}", figures.peak_memory as f64 / f64::from(1 << 20)),
            passage.lost.to_string(),
            passage.duplicated.to_string(),
            format!("{:.0} %", figures.client_busy * 100.0),
            format!("{:.0} %", figures.sink_busy * 100.0),
        ]);
    }
    table
}

/// Prints Gatepost's figures divided by Postfix's, if both were measured; returns whether all bars
/// are met.
fn ratios(rows: &[Row]) -> bool {
    let mut table = table([
        "case",
        "delivered/s",
        "bar",
        "",
        "CPU per message",
        "bar",
        "",
    ]);
    let mut all_met = true;
    for row in rows {
        let (Some(gatepost), Some(postfix)) = (&row.gatepost, &row.postfix) else {
            continue;
        };
        let faster = gatepost.passage.delivered.rate() / postfix.passage.delivered.rate();
        let cheaper = postfix.cpu / gatepost.cpu;
        let mut verdict = |ratio: f64| match row.case.bar() {
            Some(bar) if ratio >= bar => "met",
            Some(_) => {
                all_met = false;
                "MISSED"
            }
            None => "",
        };
        let (fast_enough, cheap_enough) = (verdict(faster), verdict(cheaper));
        let bar = |words: &str| {
            row.case
                .bar()
                .map_or_else(String::new, |bar| format!("{words}{bar}"))
        };
        table.add_row([
            row.case.name(),
            format!("{faster:.1} ×"),
            bar("≥ "),
            fast_enough.to_owned(),
            format!("1/{cheaper:.1}"),
            bar("≤ 1/"),
            cheap_enough.to_owned(),
        ]);
    }
    if table.row_count() > 0 {
        println!("\nGatepost's figures over Postfix's:\n{table}");
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
